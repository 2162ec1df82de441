/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/unit/storvsp/scsi_rig.h"

TestSuite(scsi, .init = setup);

Test(scsi, unknown_commands_are_refused)
{
	cdb(0x85, 0); /* ATA PASS-THROUGH(16) */
	run();
	is_check(5, 0x20, 0);
	cdb(0x9e, 0x12); /* another service action */
	run();
	is_check(5, 0x24, 0);
	cdb(0x00, 0);
	command.cdb[5] = 4; /* NACA */
	run();
	is_check(5, 0x24, 0);
	cdb(0x43, 0); /* READ TOC is for DVDs */
	run();
	is_check(5, 0x20, 0);
}

Test(scsi, inquiry)
{
	cdb(0x12, 0);
	put(3, 2, 36);
	run();
	is_good(36);
	cr_assert_eq(data[0], 0);
	cr_assert_eq(data[2], 5);
	cr_assert_eq(data[3], 2);
	cr_assert_eq(data[4], 31);
	cr_assert_eq(data[7], 2);
	cr_assert_arr_eq(data + 8, "Msft    Virtual Disk    1.0 ", 28);

	put(3, 2, 5); /* cut to what was asked for, and to the buffer */
	run();
	is_good(5);
	put(3, 2, 255);
	command.transfer_bytes = 7;
	run();
	is_good(7);
	command.cdb[2] = 1; /* a page code without EVPD */
	run();
	is_check(5, 0x24, 0);
	unit.dvd = true;
	command.cdb[2] = 0;
	run();
	cr_assert_eq(data[0], 5);
	cr_assert_eq(data[1], 0x80);
}

static void vpd(uint8_t page, uint32_t size)
{
	cdb(0x12, 1);
	command.cdb[2] = page;
	put(3, 2, 255);
	run();
	is_good(size);
	cr_assert_eq(data[1], page);
	cr_assert_eq(get(data + 2, 2), size - 4);
}

Test(scsi, vital_product_data)
{
	vpd(0x00, 10);
	cr_assert_arr_eq(data + 4, "\x00\x80\x83\xb0\xb1\xb2", 6);
	vpd(0x80, 36);
	cr_assert_arr_eq(data + 4, "101112131415161718191a1b1c1d1e1f", 32);

	vpd(0x83, 68);
	cr_assert_arr_eq(data + 4, "\x01\x03\x00\x10\x60\x02\x24\x80", 8);
	cr_assert_eq(data[12], 0x10);
	cr_assert_eq(data[20], 0x18 ^ 0x1c);
	cr_assert_arr_eq(data + 24, "\x02\x01\x00\x28Msft    10111213", 20);

	vpd(0xb0, 64);
	cr_assert_eq(get(data + 8, 4), 2048);
	cr_assert_eq(get(data + 20, 4), UINT32_MAX);
	cr_assert_eq(get(data + 24, 4), SCSI_UNMAP_RANGES_MAX);
	cr_assert_eq(get(data + 28, 4), 2048);
	cr_assert_eq(get(data + 36, 8), SCSI_ZERO_BYTES_MAX / 512);

	unit.solid_state = true;
	vpd(0xb1, 64);
	cr_assert_eq(get(data + 4, 2), 1);
	vpd(0xb2, 8);
	cr_assert_eq(data[5], 0xe4);
	cr_assert_eq(data[6], 2);
	unit.unmap_bytes = 0;
	vpd(0xb2, 8);
	cr_assert_eq(data[5], 0);

	command.cdb[2] = 0x89;
	run();
	is_check(5, 0x24, 0);
	unit.dvd = true;
	vpd(0x00, 7);
	command.cdb[2] = 0xb0;
	run();
	is_check(5, 0x24, 0);
}

Test(scsi, two_ids_give_two_names)
{
	uint8_t before[16];

	vpd(0x83, 68);
	memcpy(before, data + 8, 16);
	for (uint32_t i = 0; i < 16; i++) {
		unit.id.bytes[i] ^= 1;
		vpd(0x83, 68);
		cr_assert_arr_neq(data + 8, before, 16);
		unit.id.bytes[i] ^= 1;
	}
}

Test(scsi, absent_units)
{
	cdb(0x12, 0);
	put(3, 2, 36);
	cr_assert(scsi_plan_absent(&command, 0, &plan));
	is_good(36);
	cr_assert_eq(data[0], 0x7f);
	cr_assert_eq(data[2], 5);
	command.cdb[1] = 1;
	cr_assert(scsi_plan_absent(&command, 0, &plan));
	is_check(5, 0x24, 0);
	cdb(0xa0, 0);
	put(6, 4, 4096);
	cr_assert(scsi_plan_absent(&command, 0, &plan));
	is_good(8);
	cr_assert_eq(get(data, 4), 0);
	cdb(0x00, 0);
	cr_assert_not(scsi_plan_absent(&command, 0, &plan));
}

Test(scsi, report_luns)
{
	cdb(0xa0, 0);
	put(6, 4, 4096);
	run();
	is_good(24);
	cr_assert_eq(get(data, 4), 16);
	cr_assert_eq(get(data + 8, 8), 0);
	cr_assert_eq(get(data + 16, 8), 2ULL << 48);
	unit.luns = UINT64_MAX;
	run();
	is_good(8 + 512);
	command.cdb[2] = 1; /* well-known units: none */
	run();
	is_good(8);
	command.cdb[2] = 3;
	run();
	is_check(5, 0x24, 0);
}

Test(scsi, unit_attention_is_told_once_and_in_order)
{
	command.attention = SCSI_ATTENTION_CAPACITY | SCSI_ATTENTION_RESET;
	cdb(0x12, 0);
	put(3, 2, 36);
	run();
	is_good(36); /* INQUIRY neither tells nor takes it */
	cr_assert_eq(plan.attention_told, 0);
	cdb(0x00, 0);
	run();
	is_check(6, 0x29, 2);
	cr_assert_eq(plan.attention_told, SCSI_ATTENTION_RESET);
	command.attention &= ~plan.attention_told;
	run();
	is_check(6, 0x2a, 9);
	command.attention = SCSI_ATTENTION_MEDIUM;
	run();
	is_check(6, 0x28, 0);
	command.attention = SCSI_ATTENTION_LUNS;
	run();
	is_check(6, 0x3f, 0x0e);

	cdb(0x03, 0);
	command.cdb[4] = 252;
	run();
	is_good(18);
	cr_assert_eq(data[0], 0x70);
	cr_assert_eq(data[2], 6);
	cr_assert_eq(data[7], 10);
	cr_assert_eq(data[12], 0x3f);
	cr_assert_eq(data[13], 0x0e);
	cr_assert_eq(plan.attention_told, SCSI_ATTENTION_LUNS);
	command.attention = 0;
	run();
	is_good(18);
	cr_assert_eq(data[2], 0);
}

Test(scsi, read_and_write_of_every_length)
{
	const struct {
		uint8_t opcode;
		uint8_t lba_at, lba_bytes, count_at, count_bytes;
	} forms[] = { { 0x08, 2, 2, 4, 1 },  { 0x28, 2, 4, 7, 2 }, { 0xa8, 2, 4, 6, 4 },
		      { 0x88, 2, 8, 10, 4 }, { 0x0a, 2, 2, 4, 1 }, { 0x2a, 2, 4, 7, 2 },
		      { 0xaa, 2, 4, 6, 4 },  { 0x8a, 2, 8, 10, 4 } };

	for (uint32_t i = 0; i < 8; i++) {
		bool six = i % 4 == 0;

		cdb(forms[i].opcode, 0);
		put(forms[i].lba_at, forms[i].lba_bytes, 1000);
		put(forms[i].count_at, forms[i].count_bytes, 100);
		run();
		cr_assert_eq(plan.action, i < 4 ? SCSI_READ : SCSI_WRITE);
		cr_assert_eq(plan.offset_bytes, 512000);
		cr_assert_eq(plan.length_bytes, 51200);
		cr_assert_not(plan.fua);
		command.cdb[1] = 0x18; /* DPO and FUA; for the short ones bits of the address */
		run();
		cr_assert_eq(plan.fua, !six);
		if (!six) {
			command.cdb[1] = 0x20; /* protection */
			run();
			is_check(5, 0x24, 0);
		}
		command.cdb[1] = 0;
		command.transfer_bytes = 51199;
		run();
		is_check(5, 0x24, 0);
		command.transfer_bytes = 65536;
	}
}

Test(scsi, the_address_of_the_short_read)
{
	cdb(0x08, 0xff);
	command.cdb[2] = 0xff;
	command.cdb[3] = 0xff;
	command.cdb[4] = 1;
	run();
	cr_assert_eq(plan.offset_bytes, 0x1fffffULL * 512);
	command.cdb[1] = 0;
	command.cdb[4] = 0; /* 256 blocks */
	command.transfer_bytes = 256 * 512;
	run();
	cr_assert_eq(plan.length_bytes, 256 * 512);
}

Test(scsi, what_is_beyond_the_end)
{
	cdb(0x88, 0);
	put(2, 8, BLOCKS - 1);
	put(10, 4, 1);
	run();
	cr_assert_eq(plan.action, SCSI_READ);
	put(10, 4, 2);
	run();
	is_check(5, 0x21, 0);
	put(2, 8, UINT64_MAX);
	put(10, 4, UINT32_MAX);
	run();
	is_check(5, 0x21, 0);
	put(2, 8, BLOCKS);
	put(10, 4, 0); /* nothing, at the end: that is inside */
	run();
	is_good(0);
	put(2, 8, BLOCKS + 1);
	run();
	is_check(5, 0x21, 0);
	put(2, 8, 0);
	put(10, 4, 4096); /* more than a transfer */
	command.transfer_bytes = 4096 * 512;
	run();
	is_check(5, 0x24, 0);
	cdb(0x2f, 0);
	put(2, 4, BLOCKS - 1);
	put(7, 2, 1);
	run();
	is_good(0);
	put(7, 2, 2);
	run();
	is_check(5, 0x21, 0);
	command.cdb[1] = 2; /* BYTCHK */
	run();
	is_check(5, 0x24, 0);
}

Test(scsi, write_protected)
{
	const uint8_t writes[] = { 0x0a, 0x2a, 0xaa, 0x8a, 0x41, 0x93, 0x42 };

	unit.read_only = true;
	for (uint32_t i = 0; i < sizeof(writes); i++) {
		cdb(writes[i], 0);
		run();
		is_check(7, 0x27, 0);
	}
	cdb(0x35, 0);
	run();
	is_good(0);
}

Test(scsi, synchronize_cache)
{
	cdb(0x35, 0);
	run();
	cr_assert_eq(plan.action, SCSI_FLUSH);
	cdb(0x91, 2); /* IMMED is not taken up on: done when it is done */
	run();
	cr_assert_eq(plan.action, SCSI_FLUSH);
	put(2, 8, BLOCKS + 1);
	run();
	is_check(5, 0x21, 0);
}

Test(scsi, capacity)
{
	cdb(0x25, 0);
	run();
	is_good(8);
	cr_assert_eq(get(data, 4), BLOCKS - 1);
	cr_assert_eq(get(data + 4, 4), 512);
	cdb(0x9e, 0x10);
	put(10, 4, 32);
	run();
	is_good(32);
	cr_assert_eq(get(data, 8), BLOCKS - 1);
	cr_assert_eq(get(data + 8, 4), 512);
	cr_assert_eq(data[13], 3);
	cr_assert_eq(data[14], 0xc0);
	unit.unmap_bytes = 0;
	unit.block_bytes = 4096;
	unit.size_bytes = 1ULL << 46;
	run();
	cr_assert_eq(data[13], 0);
	cr_assert_eq(data[14], 0);
	cdb(0x25, 0);
	unit.block_bytes = 512;
	run();
	cr_assert_eq(get(data, 4), UINT32_MAX);
}

Test(scsi, mode_sense)
{
	cdb(0x1a, 0);
	command.cdb[2] = 0x3f;
	command.cdb[4] = 255;
	run();
	is_good(4 + 8 + 12 + 20 + 12);
	cr_assert_eq(data[0], plan.data_bytes - 1);
	cr_assert_eq(data[2], 0x10);
	cr_assert_eq(data[3], 8);
	command.cdb[1] = 8; /* DBD */
	command.cdb[2] = 0x08;
	run();
	is_good(4 + 20);
	cr_assert_eq(data[4], 8);
	cr_assert_eq(data[5], 0x12);
	cr_assert_eq(data[6], 4);
	command.cdb[2] = 0x48; /* what can be changed */
	run();
	cr_assert_eq(data[6], 0);
	unit.write_cache = false;
	unit.read_only = true;
	command.cdb[2] = 0x08;
	run();
	cr_assert_eq(data[6], 0);
	cr_assert_eq(data[2], 0x90);
	command.cdb[2] = 0x0a;
	run();
	is_good(4 + 12);
	command.cdb[2] = 0x1c;
	run();
	is_check(5, 0x24, 0);
	command.cdb[2] = 0xc8;
	run();
	is_check(5, 0x39, 0);

	cdb(0x5a, 0x10);
	command.cdb[2] = 0x08;
	put(7, 2, 512);
	run();
	is_good(8 + 16 + 20);
	cr_assert_eq(get(data, 2), plan.data_bytes - 2);
	cr_assert_eq(data[3], 0x90);
	cr_assert_eq(data[4], 1);
	cr_assert_eq(get(data + 6, 2), 16);
	cr_assert_eq(get(data + 8, 8), BLOCKS);
	unit.dvd = true;
	command.cdb[2] = 0x2a;
	run();
	is_good(8 + 22);
}

Test(scsi, mode_select_takes_what_is_in_force)
{
	cdb(0x15, 0x10);
	command.cdb[4] = 24;
	run();
	cr_assert_eq(plan.action, SCSI_PARAMETERS);
	cr_assert_eq(plan.length_bytes, 24);
	memset(data, 0, 24);
	data[4] = 8;
	data[5] = 18;
	data[6] = 4;
	scsi_plan_parameters(&unit, &command, &plan);
	is_good(0);
	run();
	data[6] = 0; /* the write cache off */
	scsi_plan_parameters(&unit, &command, &plan);
	is_check(5, 0x26, 0);
	run();
	data[3] = 255; /* a descriptor longer than the list */
	scsi_plan_parameters(&unit, &command, &plan);
	is_check(5, 0x1a, 0);
	run();
	data[3] = 0;
	data[5] = 19;
	scsi_plan_parameters(&unit, &command, &plan);
	is_check(5, 0x1a, 0);
	command.transfer_bytes = 23;
	run();
	is_check(5, 0x1a, 0);
	command.cdb[1] = 0x11; /* save */
	run();
	is_check(5, 0x24, 0);
}

static void unmap_range(uint32_t index, uint64_t lba, uint32_t count)
{
	uint8_t *to = data + 8 + 16 * (size_t)index;

	memset(to, 0, 16);
	for (uint32_t i = 0; i < 8; i++)
		to[i] = (uint8_t)(lba >> (56 - 8 * i));
	for (uint32_t i = 0; i < 4; i++)
		to[8 + i] = (uint8_t)(count >> (24 - 8 * i));
}

static void unmap_run(uint32_t ranges_bytes)
{
	run();
	cr_assert_eq(plan.action, SCSI_PARAMETERS);
	data[2] = (uint8_t)(ranges_bytes >> 8);
	data[3] = (uint8_t)ranges_bytes;
	scsi_plan_parameters(&unit, &command, &plan);
}

Test(scsi, unmap)
{
	uint64_t offset = 0;
	uint64_t length = 0;

	cdb(0x42, 0);
	put(7, 2, 8 + 32);
	unmap_range(0, 2048, 4096);
	unmap_range(1, BLOCKS - 1, 1);
	unmap_run(32);
	cr_assert_eq(plan.action, SCSI_UNMAP);
	cr_assert_eq(plan.range_count, 2);
	scsi_unmap_range(&unit, &plan, 0, &offset, &length);
	cr_assert_eq(offset, 2048 * 512);
	cr_assert_eq(length, 4096 * 512);
	scsi_unmap_range(&unit, &plan, 1, &offset, &length);
	cr_assert_eq(offset, 64 * GIB - 512);

	unmap_range(1, BLOCKS - 1, 2);
	unmap_run(32);
	is_check(5, 0x21, 0);
	unmap_range(1, UINT64_MAX, UINT32_MAX);
	unmap_run(32);
	is_check(5, 0x21, 0);
	unmap_run(33); /* not whole ranges */
	is_check(5, 0x1a, 0);
	unmap_run(48); /* more than was sent */
	is_check(5, 0x1a, 0);
	unmap_run(0);
	is_good(0);
	put(7, 2, 7);
	unmap_run(0);
	is_check(5, 0x1a, 0);
	put(7, 2, 0); /* no list: nothing to do */
	run();
	is_good(0);
	put(7, 2, 5000);
	run();
	is_check(5, 0x1a, 0);
	put(7, 2, 24);
	command.cdb[1] = 1; /* ANCHOR */
	run();
	is_check(5, 0x24, 0);
	unit.unmap_bytes = 0;
	run();
	is_check(5, 0x20, 0);
}

Test(scsi, the_longest_unmap_list_fits)
{
	cdb(0x42, 0);
	put(7, 2, 8 + 16 * SCSI_UNMAP_RANGES_MAX);
	for (uint32_t i = 0; i < SCSI_UNMAP_RANGES_MAX; i++)
		unmap_range(i, i, 1);
	unmap_run(16 * SCSI_UNMAP_RANGES_MAX);
	cr_assert_eq(plan.action, SCSI_UNMAP);
	cr_assert_eq(plan.range_count, SCSI_UNMAP_RANGES_MAX);
}

Test(scsi, write_same)
{
	cdb(0x93, 8); /* UNMAP */
	put(2, 8, 16);
	put(10, 4, 1 << 20);
	run();
	cr_assert_eq(plan.action, SCSI_PARAMETERS);
	cr_assert_eq(plan.length_bytes, 512);
	memset(data, 0, 512);
	scsi_plan_parameters(&unit, &command, &plan);
	cr_assert_eq(plan.action, SCSI_ZERO);
	cr_assert(plan.may_unmap);
	cr_assert_eq(plan.offset_bytes, 16 * 512);
	cr_assert_eq(plan.length_bytes, 512ULL << 20);

	run();
	data[511] = 1;
	scsi_plan_parameters(&unit, &command, &plan);
	is_check(5, 0x24, 0); /* that much of it is not zeros */
	put(10, 4, SCSI_FILL_BYTES_MAX / 512);
	run();
	scsi_plan_parameters(&unit, &command, &plan);
	cr_assert_eq(plan.action, SCSI_FILL);
	cr_assert_eq(data[4095], 1);
	cr_assert_eq(data[4094], 0);
	command.cdb[1] = 1; /* NDOB */
	command.transfer_bytes = 0;
	run();
	cr_assert_eq(plan.action, SCSI_ZERO);
	cr_assert_not(plan.may_unmap);
	command.cdb[1] = 0;
	run();
	is_check(5, 0x1a, 0);

	command.cdb[1] = 0x11; /* ANCHOR */
	run();
	is_check(5, 0x24, 0);
	command.cdb[1] = 1;
	put(10, 4, 0); /* to the end */
	run();
	is_check(5, 0x24, 0);
	put(10, 4, (uint32_t)(SCSI_ZERO_BYTES_MAX / 512 + 1));
	run();
	is_check(5, 0x24, 0);
	put(10, 4, 1);
	put(2, 8, BLOCKS);
	run();
	is_check(5, 0x21, 0);
	unit.unmap_bytes = 0;
	put(2, 8, 0);
	command.cdb[1] = 9;
	run();
	is_check(5, 0x24, 0);
	cdb(0x41, 1);
	put(7, 2, 1);
	run();
	is_check(5, 0x24, 0);
}

Test(scsi, operation_codes)
{
	cdb(0xa3, 0x0c);
	put(6, 4, 4096);
	run();
	cr_assert_eq(plan.status, SCSI_GOOD);
	cr_assert_eq(get(data, 4), plan.data_bytes - 4);
	command.cdb[2] = 1;
	run();
	is_check(5, 0x24, 0);
}

Test(scsi, results_of_the_disk)
{
	const struct {
		enum scsi_action action;
		int result;
		uint8_t key, asc, ascq;
	} rows[] = {
		{ SCSI_READ, -EIO, 3, 0x11, 0 },      { SCSI_WRITE, -EIO, 3, 0x0c, 0 },
		{ SCSI_FLUSH, -EIO, 4, 0x44, 0 },     { SCSI_READ, -EBADMSG, 3, 0x11, 0 },
		{ SCSI_WRITE, -ENOSPC, 7, 0x27, 7 },  { SCSI_WRITE, -EROFS, 7, 0x27, 0 },
		{ SCSI_READ, -EINVAL, 5, 0x21, 0 },   { SCSI_READ, -ENODEV, 2, 4, 0 },
		{ SCSI_WRITE, -ETIMEDOUT, 11, 8, 1 }, { SCSI_ZERO, -EOPNOTSUPP, 5, 0x24, 0 },
		{ SCSI_WRITE, -ECANCELED, 11, 8, 1 },
	};

	for (uint32_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
		plan.action = rows[i].action;
		scsi_result(&plan, rows[i].result);
		is_check(rows[i].key, rows[i].asc, rows[i].ascq);
	}
	plan.action = SCSI_UNMAP;
	scsi_result(&plan, -EOPNOTSUPP);
	is_good(0);
	plan.action = SCSI_WRITE;
	scsi_result(&plan, -ENOMEM);
	cr_assert_eq(plan.status, SCSI_BUSY);
}
