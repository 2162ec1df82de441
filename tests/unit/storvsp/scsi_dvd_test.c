/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/unit/storvsp/scsi_rig.h"

TestSuite(scsi_dvd, .init = setup);

Test(scsi_dvd, no_medium)
{
	unit.dvd = true;
	unit.has_medium = false;
	for (uint32_t i = 0; i < 3; i++) {
		cdb((const uint8_t[]){ 0x00, 0x25, 0x28 }[i], 0);
		run();
		is_check(2, 0x3a, 0);
	}
	cdb(0x03, 0);
	command.cdb[4] = 18;
	run();
	cr_assert_eq(data[2], 2);
	cr_assert_eq(data[12], 0x3a);
}

Test(scsi_dvd, start_stop_and_the_lock)
{
	cdb(0x1b, 0);
	command.cdb[4] = 2; /* a disk has nothing to eject */
	run();
	is_good(0);
	cr_assert_eq(plan.effect, SCSI_EFFECT_NONE);
	unit.dvd = true;
	run();
	cr_assert_eq(plan.effect, SCSI_EFFECT_EJECT);
	unit.locked = true;
	run();
	is_check(5, 0x53, 2);
	cr_assert_eq(plan.effect, SCSI_EFFECT_NONE);
	command.cdb[4] = 3;
	run();
	cr_assert_eq(plan.effect, SCSI_EFFECT_LOAD);
	cdb(0x1e, 0);
	command.cdb[4] = 1;
	run();
	cr_assert_eq(plan.effect, SCSI_EFFECT_LOCK);
	command.cdb[4] = 0;
	run();
	cr_assert_eq(plan.effect, SCSI_EFFECT_UNLOCK);
}

static void dvd(void)
{
	unit.dvd = true;
	unit.read_only = true;
	unit.block_bytes = 2048;
	unit.physical_block_bytes = 2048;
	unit.unmap_bytes = 0;
	unit.size_bytes = 650ULL << 20;
}

Test(scsi_dvd, table_of_contents)
{
	dvd();
	cdb(0x43, 0);
	put(7, 2, 255);
	run();
	is_good(20);
	cr_assert_eq(get(data, 2), 18);
	cr_assert_eq(data[6], 1);
	cr_assert_eq(get(data + 8, 4), 0);
	cr_assert_eq(data[14], 0xaa);
	cr_assert_eq(get(data + 16, 4), 650 << 9);
	command.cdb[1] = 2; /* minutes, seconds, frames */
	run();
	cr_assert_arr_eq(data + 8, "\x00\x00\x02\x00", 4);
	command.cdb[6] = 0xaa;
	run();
	is_good(12);
	command.cdb[6] = 2;
	run();
	is_check(5, 0x24, 0);
	cdb(0x43, 0);
	command.cdb[2] = 1;
	put(7, 2, 12);
	run();
	is_good(12);
	cr_assert_eq(data[2], 1);
	command.cdb[2] = 5;
	run();
	is_check(5, 0x24, 0);
}

Test(scsi_dvd, dvd_drive)
{
	dvd();
	cdb(0x46, 0);
	put(7, 2, 512);
	run();
	cr_assert_eq(plan.status, SCSI_GOOD);
	cr_assert_eq(get(data, 4), plan.data_bytes - 4);
	cr_assert_eq(get(data + 6, 2), 8); /* a CD by its size */
	unit.size_bytes = 4ULL << 30;
	run();
	cr_assert_eq(get(data + 6, 2), 0x10);
	command.cdb[1] = 2;
	put(2, 2, 3);
	run();
	is_good(16);
	cdb(0x4a, 1);
	command.cdb[4] = 0x10;
	put(7, 2, 8);
	run();
	is_good(8);
	cr_assert_eq(data[2], 4);
	cr_assert_eq(data[5], 2);
	command.cdb[4] = 2;
	run();
	is_good(4);
	cr_assert_eq(data[2], 0x80);
	command.cdb[1] = 0;
	run();
	is_check(5, 0x24, 0);
	cdb(0x51, 0);
	put(7, 2, 34);
	run();
	is_good(34);
	cr_assert_eq(data[2], 0x0e);
	cdb(0x52, 1);
	put(2, 4, 1);
	put(7, 2, 36);
	run();
	is_good(36);
	cr_assert_eq(get(data + 24, 4), 4ULL << 19);
	cdb(0x2a, 0); /* there is no WRITE at all */
	run();
	is_check(5, 0x20, 0);
}
