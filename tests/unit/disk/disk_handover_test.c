/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Giving a disk up: what completed is durable before, or the disk stays where it is.
 */
#include <criterion/criterion.h>
#include <errno.h>

#include "tests/support/disk_lab.h"

#define MIB (1ULL << 20)

static struct disk_lab lab;

static void setup(void)
{
	disk_lab_init(&lab);
}

static void teardown(void)
{
	disk_lab_fini(&lab);
}

TestSuite(handover, .init = setup, .fini = teardown);

static void fail_next(uint32_t ops, int code)
{
	const struct fake_store_plan plan = { .fail_at = 1, .fail_ops = ops, .fail_code = code };

	fake_store_set_plan(lab.store, &plan);
}

/* A write that completed and was never flushed outlives a hand-over that failed. */
static void completed_survives(enum disk_format format, uint32_t ops, int code)
{
	struct base_error err = { 0 };
	struct disk *disk = NULL;

	disk_lab_make(&lab, "a", format, DISK_DYNAMIC, 64 * MIB, NULL);
	disk = disk_lab_open(&lab, "a");
	cr_assert_eq(lab_write(disk, 0, 4096, 1), 0);
	cr_assert_eq(disk_do(disk, DISK_FLUSH, 0, NULL, 0, NULL), 0);
	cr_assert_eq(lab_write(disk, 40 * MIB, 8192, 2), 0);
	fail_next(ops, code);
	cr_assert_eq(disk_deactivate(disk, &err), code, "%s", err.text);
	cr_assert_neq(disk_epoch(disk), STORE_EPOCH_NONE, "it stays active");
	cr_assert_eq(lab_write(disk, 50 * MIB, 4096, 3), 0);
	cr_assert_eq(disk_deactivate(disk, &err), 0, "%s", err.text);
	cr_assert_eq(disk_epoch(disk), STORE_EPOCH_NONE);
	cr_assert_eq(disk_activate(disk, 8, NULL, &err), 0, "%s", err.text);
	cr_assert_eq(lab_verify(disk, 0, 4096, 1), 0);
	cr_assert_eq(lab_verify(disk, 40 * MIB, 8192, 2), 0);
	cr_assert_eq(lab_verify(disk, 50 * MIB, 4096, 3), 0);
	disk_close(disk);
}

Test(handover, a_full_store_costs_the_hand_over_not_the_writes)
{
	completed_survives(DISK_VHDX, 1U << STORE_WRITE, -ENOSPC);
}

Test(handover, a_write_that_fails_costs_the_hand_over_not_the_writes)
{
	completed_survives(DISK_VHDX, 1U << STORE_WRITE, -EIO);
}

Test(handover, the_same_with_a_vhd)
{
	completed_survives(DISK_VHD, 1U << STORE_WRITE, -EIO);
}

/* Behind the flush everything is durable: whatever fails then, the next owner finds it. */
Test(handover, every_failure_behind_the_flush_loses_nothing)
{
	for (uint64_t k = 1; k < 40; k++) {
		struct fake_store_plan plan = { .fail_at = k, .fail_code = -EIO };
		struct disk *disk = NULL;
		int rc = 0;

		disk_lab_make(&lab, "b", DISK_VHDX, DISK_DYNAMIC, 64 * MIB, NULL);
		disk = disk_lab_open(&lab, "b");
		cr_assert_eq(lab_write(disk, 40 * MIB, 8192, 2), 0);
		fake_store_set_plan(lab.store, &plan);
		rc = disk_deactivate(disk, NULL);
		fake_store_set_plan(lab.store, &(struct fake_store_plan){ .seed = 1 });
		if (rc != 0 && disk_epoch(disk) != STORE_EPOCH_NONE && lab.failed == 0)
			cr_assert_eq(disk_deactivate(disk, NULL), 0, "request %d", (int)k);
		if (lab.failed == 0) { /* else a flush failed: nobody was promised anything */
			if (disk_epoch(disk) == STORE_EPOCH_NONE)
				cr_assert_eq(disk_activate(disk, 8, NULL, NULL), 0);
			cr_assert_eq(lab_verify(disk, 40 * MIB, 8192, 2), 0, "request %d", (int)k);
		}
		disk_close(disk);
		lab.failed = 0;
		cr_assert_eq(store_remove(lab.store, "b", NULL), 0);
	}
}
