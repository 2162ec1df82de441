/* SPDX-License-Identifier: Apache-2.0 */
#include <criterion/criterion.h>

#include "base/bytes.h"
#include "tests/unit/storvsp/storvsp_rig.h"

TestSuite(storvsp, .init = rig_init, .fini = rig_fini);

static const uint8_t cdb_ready[16] = { 0x00 };
static const uint8_t cdb_flush[16] = { 0x35 };
static const uint8_t cdb_inquiry[16] = { 0x12, 0, 0, 0, 36 };
static const uint8_t cdb_luns[16] = { 0xa0, 0, 0, 0, 0, 0, 0, 0, 16, 0 };

static void is_good(struct rig_answer answer, uint32_t bytes)
{
	cr_assert(answer.there);
	cr_assert_eq(answer.srb_status, 1, "status %x, %x/%x/%x", answer.srb_status, answer.key,
		     answer.asc, answer.ascq);
	cr_assert_eq(answer.bytes, bytes);
}

static void is_check(struct rig_answer answer, uint8_t key, uint8_t asc, uint8_t ascq)
{
	cr_assert(answer.there);
	cr_assert_eq(answer.srb_status, 0x84, "status %x", answer.srb_status);
	cr_assert_eq(answer.scsi_status, 2);
	cr_assert_eq(answer.key, key);
	cr_assert_eq(answer.asc, asc);
	cr_assert_eq(answer.ascq, ascq);
}

Test(storvsp, start_sequence)
{
	const struct fake_packet *answer = NULL;
	struct fake_packet *packet = NULL;

	fake_open(rig.channel);
	cr_assert_eq(rig_message(9, 0x0602), 0xc0000184);
	cr_assert_eq(rig_message(3, 0), 0xc0000184);
	cr_assert_eq(rig_message(7, 0), 0);
	cr_assert_eq(rig_message(8, 0), 0xc0000184);
	cr_assert_eq(rig_message(9, 0x0700), 0xc0000059);
	cr_assert_eq(rig_message(9, 0x0600), 0);
	packet = fake_put(rig.channel, VMBUS_PACKET_INBAND, 7);
	packet->payload[0] = 10;
	rig_settle();
	answer = fake_get(rig.channel);
	cr_assert_eq(base_get_le16(answer->payload + 16), 2);
	cr_assert_eq(base_get_le32(answer->payload + 20), 1);
	cr_assert_eq(base_get_le32(answer->payload + 24), 1 << 20);
	cr_assert_eq(rig_message(13, 1), 0xc0000184);
	cr_assert_eq(rig_message(8, 0), 0);
	cr_assert_eq(rig_message(77, 0), 0xc0000010);
	cr_assert_eq(rig_message(13, 3), 0xc000000d);
	cr_assert_eq(rig_message(13, 2), 0);
	cr_assert_not_null(fake_channels[1]);
	cr_assert_not_null(fake_channels[2]);
	cr_assert_eq(rig_message(13, 1), 0xc0000184);
	fake_close(rig.channel);
	cr_assert(rig.channel->closed_called);
	fake_let_go();
	cr_assert_null(fake_channels[1]);
	rig_start();
	cr_assert_eq(rig_message(13, 2), 0);
}

Test(storvsp, a_packet_that_is_none_breaks_the_channel)
{
	struct fake_packet *packet = NULL;

	rig_start();
	packet = fake_put(rig.channel, VMBUS_PACKET_INBAND, 1);
	packet->payload_bytes = 40;
	rig_settle();
	cr_assert(rig.channel->broken);
	cr_assert(rig.channel->closed_called);
}

Test(storvsp, units_that_are_there_and_not)
{
	uint8_t first = 0;
	struct fake_packet *packet = NULL;

	rig_start();
	is_good(rig_do(0, cdb_inquiry, 0x1000, 36), 36);
	cr_assert_eq(hv_slat_read(rig.slat, 0x1000, &first, 1), 0);
	cr_assert_eq(first, 0);
	is_good(rig_do(5, cdb_inquiry, 0x1000, 36), 36);
	cr_assert_eq(hv_slat_read(rig.slat, 0x1000, &first, 1), 0);
	cr_assert_eq(first, 0x7f);
	is_good(rig_do(5, cdb_luns, 0x1000, 4096), 16);
	cr_assert_eq(rig_do(5, cdb_ready, 0, 0).srb_status, 0x20);
	cr_assert_eq(rig_do(200, cdb_ready, 0, 0).srb_status, 0x20);
	(void)rig_put(0, cdb_ready, 0, 0);
	packet = &rig.channel->in[(rig.channel->in_tail - 1) % FAKE_PACKETS];
	packet->payload[12 + 5] = 3; /* another path */
	rig_settle();
	cr_assert_eq(rig_get().srb_status, 0x0a);
	is_good(rig_do(0, cdb_ready, 0, 0), 0);
}

Test(storvsp, data_goes_both_ways)
{
	rig_start();
	rig_fill(0x100000, 8192, 65536, 1);
	(void)rig_io(true, 8192, 0x100000, 65536);
	rig_settle();
	is_good(rig_get(), 65536);
	cr_assert_eq(lab_verify(rig.disk, 8192, 65536, 1), 0);
	(void)rig_io(false, 8192, 0x200000, 65536);
	rig_settle();
	is_good(rig_get(), 65536);
	cr_assert(rig_holds(0x200000, 8192, 65536, 1));
	is_good(rig_do(0, cdb_flush, 0, 0), 0);
	cr_assert_gt(rig.channel->flush_count, 0);
}

Test(storvsp, buffers_that_are_not_aligned_are_copied)
{
	rig_start();
	for (uint32_t shift = 4; shift < 600; shift += 100) {
		rig_fill(0x100000 + shift, 0, 1 << 20, shift);
		(void)rig_io(true, 0, 0x100000 + shift, 1 << 20);
		rig_settle();
		is_good(rig_get(), 1 << 20);
		cr_assert_eq(lab_verify(rig.disk, 0, 1 << 20, shift), 0);
		(void)rig_io(false, 0, 0x400000 + 2 * shift, 1 << 20);
		rig_settle();
		is_good(rig_get(), 1 << 20);
		cr_assert(rig_holds(0x400000 + 2 * shift, 0, 1 << 20, shift));
	}
}

Test(storvsp, more_unaligned_requests_than_bounce_buffers)
{
	rig_start();
	rig_fill(0x100004, 0, 65536, 9);
	for (uint32_t i = 0; i < 40; i++)
		(void)rig_io(true, 65536ULL * i, 0x100004, 65536);
	rig_settle();
	for (uint32_t i = 0; i < 40; i++)
		is_good(rig_get(), 65536);
	cr_assert_not(rig_get().there);
}

Test(storvsp, hostile_buffers)
{
	uint8_t byte = 0;

	rig_start();
	(void)rig_io(false, 0, RIG_MEMORY - 4096, 8192); /* the second page is none */
	rig_settle();
	cr_assert_eq(rig_get().srb_status, 0x06);
	(void)rig_io(true, 0, RIG_MEMORY - 2, 4096); /* bounced */
	rig_settle();
	cr_assert_eq(rig_get().srb_status, 0x06);
	(void)rig_io(false, 0, 0x1000, 4096);
	base_put_le32(rig.channel->in[(rig.channel->in_tail - 1) % FAKE_PACKETS].payload + 24,
		      8192); /* more than its pages */
	rig_settle();
	cr_assert_eq(rig_get().srb_status, 0x06);
	(void)rig_io(false, 0, 0x1000, 4096);
	rig.channel->in[(rig.channel->in_tail - 1) % FAKE_PACKETS].payload[20] = 17; /* CDB */
	rig_settle();
	cr_assert_eq(rig_get().srb_status, 0x06);
	is_check(rig_do(0, (const uint8_t[16]){ 0x28, 0, 0xff, 0, 0, 0, 0, 0, 1 }, 0x1000, 512), 5,
		 0x21, 0);
	cr_assert_eq(rig_do(0, cdb_inquiry, RIG_MEMORY, 36).srb_status, 0x06);
	cr_assert_eq(hv_slat_read(rig.slat, 0, &byte, 1), 0);
}

Test(storvsp, pages_that_are_scattered)
{
	uint8_t cdb[16] = { 0x28, 0, 0, 0, 0, 8, 0, 0, 64 };
	uint64_t id = 0;
	struct fake_packet *packet = NULL;

	rig_start();
	cr_assert_eq(lab_write(rig.disk, 4096, 32768, 5), 0);
	id = rig_put(0, cdb, 0x100000, 32768);
	packet = &rig.channel->in[(rig.channel->in_tail - 1) % FAKE_PACKETS];
	for (uint64_t i = 0; i < 8; i++) {
		uint64_t gpa = 0x100000 + 0x10000 * (7 - i);

		memcpy(packet->header + 16 * i, &gpa, 8);
	}
	rig_settle();
	cr_assert_eq(rig_get().trans_id, id);
	for (uint64_t i = 0; i < 8; i++)
		cr_assert(rig_holds(0x100000 + 0x10000 * (7 - i), 4096 + 4096 * i, 4096, 5));
}

Test(storvsp, unmap_zero_and_fill)
{
	uint8_t list[24] = { 0, 22, 0, 16 };
	_Alignas(512) uint8_t block[512];

	rig_start();
	cr_assert_eq(lab_write(rig.disk, 0, 4 << 20, 1), 0);
	list[8 + 7 - 1] = 8; /* LBA 2048 */
	list[16 + 2] = 8;    /* 2048 blocks */
	cr_assert_eq(hv_slat_write(rig.slat, 0x1000, list, 24), 0);
	is_good(rig_do(0, (const uint8_t[16]){ 0x42, 0, 0, 0, 0, 0, 0, 0, 24 }, 0x1000, 24), 24);
	cr_assert_eq(lab_verify(rig.disk, 1 << 20, 1 << 20, 0), 0);
	cr_assert_eq(lab_verify(rig.disk, 2 << 20, 1 << 20, 1), 0);

	cr_assert_eq(hv_slat_zero(rig.slat, 0x1000, 512), 0);
	is_good(rig_do(0, (const uint8_t[16]){ 0x41, 0, 0, 0, 0x10, 0, 0, 1, 0 }, 0x1000, 512),
		512);
	cr_assert_eq(lab_verify(rig.disk, 2 << 20, 131072, 0), 0);
	memset(block, 0xab, sizeof(block));
	cr_assert_eq(hv_slat_write(rig.slat, 0x1000, block, 512), 0);
	is_good(rig_do(0, (const uint8_t[16]){ 0x93, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0x10, 1 },
		       0x1000, 512),
		512); /* more than one write */
	for (uint64_t i = 1; i <= 0x1001; i += 0x400) {
		_Alignas(512) uint8_t back[512];

		cr_assert_eq(disk_do(rig.disk, DISK_READ, 512 * i, back, 512, NULL), 0);
		cr_assert_arr_eq(back, block, 512);
	}
}

/* Linux would take the rest for bytes that were not transferred. */
Test(storvsp, parameters_count_as_moved)
{
	const uint8_t select[16] = { 0x15, 0x10, 0, 0, 24 };
	uint8_t list[24] = { 0, 0, 0, 0, 0x08, 18, 4 };

	rig_start();
	cr_assert_eq(hv_slat_write(rig.slat, 0x1000, list, sizeof(list)), 0);
	is_good(rig_do(0, select, 0x1000, sizeof(list)), sizeof(list));
	list[6] = 0; /* no write cache: that is not so */
	cr_assert_eq(hv_slat_write(rig.slat, 0x1000, list, sizeof(list)), 0);
	is_check(rig_do(0, select, 0x1000, sizeof(list)), 5, 0x26, 0);
}

Test(storvsp, errors_of_the_store)
{
	rig_start();
	rig_plan((struct fake_store_plan){ .fail_at = 1, .fail_code = -EIO });
	(void)rig_io(false, 0, 0x1000, 4096);
	rig_settle();
	is_check(rig_get(), 3, 0x11, 0);
	rig_plan((struct fake_store_plan){ .fail_at = 1, .fail_code = -EIO });
	(void)rig_io(true, 0, 0x1000, 4096);
	rig_settle();
	is_check(rig_get(), 3, 0x0c, 0);
	(void)rig_io(true, 0, 0x1000, 4096);
	rig_settle();
	is_good(rig_get(), 4096);
}

Test(storvsp, the_ring_is_full)
{
	rig_start();
	rig.channel->room = 0;
	for (uint32_t i = 0; i < 300; i++) /* more than there are requests */
		(void)rig_put(0, cdb_ready, 0, 0);
	rig_settle();
	cr_assert_not(rig_get().there);
	cr_assert_gt(rig.channel->in_tail - rig.channel->in_head, 100); /* it stopped receiving */
	for (uint64_t i = 0; i < 300; i++) {
		struct rig_answer answer;

		rig.channel->room = 1;
		vmbus_channel_again(rig.channel);
		rig_settle();
		answer = rig_get();
		cr_assert(answer.there);
		cr_assert_eq(answer.trans_id, 1 + i);
	}
	cr_assert_not(rig_get().there);
}

/* The first page of the guest's buffer has been named by a harvest since the read began; what
 * lands later must be named by the next one, and the guest must not know before. */
static uint64_t marked[RIG_MEMORY / 4096 / 64];
static bool marked_before_answer;

static void sent_hook(struct vmbus_channel *channel, const struct vmbus_send *send)
{
	(void)channel;
	(void)send;
	cr_assert_eq(hv_slat_harvest(rig.slat, marked, NULL, NULL), 0);
	marked_before_answer = (marked[0x200000 / 4096 / 64] & 1) != 0;
}

Test(storvsp, a_read_over_a_harvest)
{
	static uint64_t before[RIG_MEMORY / 4096 / 64];

	rig_start();
	cr_assert_eq(lab_write(rig.disk, 0, 8192, 3), 0);
	cr_assert_eq(hv_slat_start(rig.slat, NULL), 0);
	cr_assert_eq(hv_slat_harvest(rig.slat, before, NULL, NULL), 0);
	rig_plan((struct fake_store_plan){ .delay_steps = 40, .seed = 2 });
	rig.channel->sent = sent_hook;
	(void)rig_io(false, 0, 0x200000, 8192);
	for (uint32_t i = 0; i < 3; i++)
		(void)base_io_loop_step(rig.lab.loop, false);
	cr_assert_not(rig_holds(0x200000, 0, 8192, 3)); /* it is in flight */
	cr_assert_eq(hv_slat_harvest(rig.slat, before, NULL, NULL), 0);
	rig_settle();
	is_good(rig_get(), 8192);
	cr_assert(rig_holds(0x200000, 0, 8192, 3));
	cr_assert(marked_before_answer);
	cr_assert_eq(marked[0x200000 / 4096 / 64] & 3, 3);
	rig.channel->sent = NULL;
	cr_assert_eq(hv_slat_stop(rig.slat, NULL), 0);
}

Test(storvsp, closing_waits_for_what_is_in_flight)
{
	rig_start();
	rig_plan((struct fake_store_plan){ .delay_steps = 40, .seed = 2 });
	(void)rig_io(false, 0, 0x200000, 8192);
	for (uint32_t i = 0; i < 3; i++)
		(void)base_io_loop_step(rig.lab.loop, false);
	fake_close(rig.channel);
	cr_assert_not(rig.channel->closed_called);
	rig_settle();
	cr_assert(rig.channel->closed_called);
	cr_assert_not(rig_get().there);
	rig_start();
	is_good(rig_do(0, cdb_ready, 0, 0), 0);
}

Test(storvsp, closing_takes_back_what_waits_for_the_store)
{
	rig_start();
	rig_plan((struct fake_store_plan){
		.fail_at = 1, .fail_forever = true, .fail_code = -ENOSPC });
	(void)rig_io(true, 0, 0x200000, 8192);
	rig_settle();
	fake_close(rig.channel);
	rig_settle();
	cr_assert(rig.channel->closed_called);
	rig_plan((struct fake_store_plan){ .fail_at = 0 });
	disk_lab_pass_ms(&rig.lab, 5000);
	rig_start();
	cr_assert_not(rig_get().there);
	cr_assert_eq(lab_verify(rig.disk, 0, 8192, 0), 0); /* it was never made */
}

Test(storvsp, units_come_and_go)
{
	const struct fake_packet *told = NULL;
	struct storvsp_lun_status status;

	rig_start();
	disk_lab_make(&rig.lab, "b.img", DISK_RAW, DISK_DYNAMIC, RIG_DISK, NULL);
	{
		struct disk *other = disk_lab_open(&rig.lab, "b.img");

		rig_attach(63, other);
		cr_assert_eq(storvsp_attach(rig.storvsp, 63,
					    &(struct storvsp_medium){ .kind = STORVSP_DISK,
								      .disk = other },
					    NULL),
			     -EBUSY);
		rig_settle();
		told = fake_get(rig.channel);
		cr_assert_not_null(told);
		cr_assert_eq(told->trans_id, 0);
		cr_assert_eq(told->payload[0], 11);
		is_good(rig_do(63, cdb_ready, 0, 0), 0);
		storvsp_lun_status(rig.storvsp, 63, &status);
		cr_assert_eq(status.kind, STORVSP_DISK);
		cr_assert_not(status.seen);

		/* What waits for its store does not keep it, and is answered. */
		rig_plan((struct fake_store_plan){
			.fail_at = 1, .fail_forever = true, .fail_code = -ENOSPC });
		(void)rig_put(63, (const uint8_t[16]){ 0x2a, 0, 0, 0, 0, 0, 0, 0, 1 }, 0x1000, 512);
		rig_settle();
		cr_assert_not(rig_get().there);
		cr_assert_eq(storvsp_detach(rig.storvsp, 63, NULL), 0);
		disk_close(other);
	}
	rig_settle();
	cr_assert_eq(storvsp_detach(rig.storvsp, 63, NULL), -ENOENT);
	for (uint32_t i = 0; i < 2; i++) {
		told = fake_get(rig.channel);
		cr_assert_not_null(told);
		if (told->trans_id == 0)
			cr_assert_eq(told->payload[0], 2);
		else
			cr_assert_eq(told->payload[14], 0x20);
	}
	cr_assert_eq(rig_do(63, cdb_ready, 0, 0).srb_status, 0x20);
}

/* One disk out and another in at the same place, before the guest has looked: what it meant for the
 * first, parked, in the ring or sent later, must not get to the second. */
Test(storvsp, a_disk_swapped_behind_the_guests_back_is_not_written)
{
	const uint8_t blank[4096] = { 0 };
	_Alignas(4096) uint8_t data[4096];
	struct disk *other = NULL;

	rig_start();
	disk_lab_make(&rig.lab, "b.img", DISK_RAW, DISK_DYNAMIC, RIG_DISK, NULL);
	other = disk_lab_open(&rig.lab, "b.img");
	is_good(rig_do(0, cdb_inquiry, 0x1000, 36), 36); /* it knows the first */
	rig_plan((struct fake_store_plan){
		.fail_at = 1, .fail_forever = true, .fail_code = -ENOSPC });
	rig_fill(0x200000, 0, 4096, 4);
	(void)rig_io(true, 0, 0x200000, 4096);
	rig_settle();
	rig_quiesce(); /* gives it back: parked */
	for (uint32_t i = 0; i < 3; i++)
		(void)rig_io(true, 0, 0x200000, 4096); /* in the ring */
	cr_assert_eq(storvsp_detach(rig.storvsp, 0, NULL), 0);
	rig_plan((struct fake_store_plan){ .fail_at = 0 });
	rig_attach(0, other);
	rig_resume();
	rig_settle();
	for (uint32_t i = 0, answers = 0; answers < 4; i++) {
		const struct fake_packet *packet = fake_get(rig.channel);

		cr_assert_not_null(packet, "%u", i);
		if (packet->trans_id == 0)
			continue; /* that it has gone, and to look again */
		cr_assert_eq(packet->payload[14], 0x20);
		answers++;
	}
	while (rig_told() != 0)
		continue;
	cr_assert_eq(rig_do(0, cdb_ready, 0, 0).srb_status, 0x20);
	rig_settle();
	cr_assert_eq(rig_told(), 11); /* to look again */
	/* A new look ends it. */
	is_good(rig_do(0, cdb_luns, 0x1000, 16), 16);
	is_good(rig_do(0, cdb_inquiry, 0x1000, 36), 36);
	is_good(rig_do(0, cdb_ready, 0, 0), 0);
	cr_assert_eq(disk_do(other, DISK_READ, 0, data, sizeof(data), NULL), 0);
	cr_assert_arr_eq(data, blank, sizeof(data));
	(void)rig_io(true, 0, 0x200000, 4096);
	rig_settle();
	is_good(rig_get(), 4096);
	cr_assert_eq(storvsp_detach(rig.storvsp, 0, NULL), 0);
	disk_close(other);
}

/* A driver that begins knows no unit, and one that never asked either. */
Test(storvsp, a_new_driver_takes_what_is_there)
{
	rig_start();
	cr_assert_eq(storvsp_detach(rig.storvsp, 0, NULL), 0);
	rig_attach(0, rig.disk);
	rig_settle();
	while (rig_told() != 0)
		continue;
	is_good(rig_do(0, cdb_ready, 0, 0), 0);
	is_good(rig_do(0, cdb_inquiry, 0x1000, 36), 36);
	cr_assert_eq(storvsp_detach(rig.storvsp, 0, NULL), 0);
	rig_attach(0, rig.disk);
	fake_close(rig.channel);
	rig_settle();
	rig_start();
	is_good(rig_do(0, cdb_ready, 0, 0), 0);
}

Test(storvsp, a_dvd_drive)
{
	const struct storvsp_medium empty = { .kind = STORVSP_DVD };
	const uint8_t eject[16] = { 0x1b, 0, 0, 0, 2 };
	const uint8_t load[16] = { 0x1b, 0, 0, 0, 3 };

	rig_start();
	cr_assert_eq(storvsp_attach(rig.storvsp, 1, &empty, NULL), 0);
	rig_settle();
	(void)rig_get();
	is_check(rig_do(1, cdb_ready, 0, 0), 2, 0x3a, 0);
	cr_assert_eq(storvsp_change_medium(rig.storvsp, 0, NULL, NULL), -EINVAL);
	cr_assert_eq(storvsp_change_medium(rig.storvsp, 2, NULL, NULL), -ENOENT);
	cr_assert_eq(storvsp_change_medium(rig.storvsp, 1, rig.disk, NULL), 0);
	rig_settle();
	(void)rig_get();
	is_check(rig_do(1, cdb_ready, 0, 0), 6, 0x28, 0);
	is_good(rig_do(1, cdb_ready, 0, 0), 0);
	is_good(rig_do(1, (const uint8_t[16]){ 0x28, 0, 0, 0, 0, 1, 0, 0, 2 }, 0x1000, 4096), 4096);
	is_good(rig_do(1, (const uint8_t[16]){ 0x1e, 0, 0, 0, 1 }, 0, 0), 0);
	is_check(rig_do(1, eject, 0, 0), 5, 0x53, 2);
	is_good(rig_do(1, (const uint8_t[16]){ 0x1e }, 0, 0), 0);
	is_good(rig_do(1, eject, 0, 0), 0);
	is_check(rig_do(1, cdb_ready, 0, 0), 2, 0x3a, 0);
	is_good(rig_do(1, load, 0, 0), 0);
	is_good(rig_do(1, cdb_ready, 0, 0), 0);
	cr_assert_eq(storvsp_detach(rig.storvsp, 1, NULL), 0);
}

Test(storvsp, resizing_and_reset_are_told)
{
	rig_start();
	storvsp_resized(rig.storvsp, 0);
	rig_settle();
	cr_assert_eq(rig_told(), 11);
	is_check(rig_do(0, cdb_ready, 0, 0), 6, 0x2a, 9);
	is_good(rig_do(0, cdb_ready, 0, 0), 0);
	cr_assert_eq(rig_message(6, 0), 0);
	is_check(rig_do(0, cdb_ready, 0, 0), 6, 0x29, 2);
	is_good(rig_do(0, cdb_ready, 0, 0), 0);
}
