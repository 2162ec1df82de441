/* SPDX-License-Identifier: Apache-2.0 */
#include <criterion/criterion.h>
#include <errno.h>
#include <string.h>

#include "hypervisor/disk/disk.h"
#include "tests/support/disk_lab.h"

#define MIB  (1ULL << 20)
#define SIZE (8 * MIB)

static struct disk_lab lab;

static void setup(void)
{
	disk_lab_init(&lab);
	disk_lab_make(&lab, "a.img", DISK_RAW, DISK_DYNAMIC, SIZE, NULL);
}

static void teardown(void)
{
	disk_lab_fini(&lab);
}

TestSuite(disk_policy, .init = setup, .fini = teardown);

static void fail(int code, uint32_t ops, uint64_t at, bool forever)
{
	struct fake_store_plan plan = {
		.fail_at = at, .fail_ops = ops, .fail_code = code, .fail_forever = forever
	};

	fake_store_set_plan(lab.store, &plan);
}

static void heal(void)
{
	struct fake_store_plan plan = { .fail_at = 0 };

	fake_store_set_plan(lab.store, &plan);
}

Test(disk_policy, no_space_waits_and_goes_on)
{
	struct disk *disk = disk_lab_open(&lab, "a.img");
	struct lab_request write[2];
	struct lab_request read;

	fail(-ENOSPC, 1U << STORE_WRITE, 1, true);
	lab_submit(disk, &write[0], DISK_WRITE, 0, 0, 4096, 1);
	disk_lab_settle(&lab);
	cr_assert(!write[0].done);
	cr_assert_eq(lab.stalled, 1);
	cr_assert_eq(lab.stall_code, -ENOSPC);
	cr_assert_not_null(strstr(lab.why, "a.img"), "%s", lab.why);

	lab_submit(disk, &write[1], DISK_WRITE, 0, 8192, 4096, 2); /* waits behind it */
	lab_submit(disk, &read, DISK_READ, 0, MIB, 4096, 1);       /* reads go on */
	disk_lab_settle(&lab);
	cr_assert(!write[1].done);
	cr_assert(read.done);
	cr_assert_eq(read.result, 0);

	disk_lab_pass_ms(&lab, 1000); /* tried, and stalled still: told once */
	cr_assert(!write[0].done);
	cr_assert_eq(lab.stalled, 1);
	cr_assert_eq(lab.unstalled, 0);

	heal();
	disk_lab_pass_ms(&lab, 999);
	cr_assert(!write[0].done);
	disk_lab_pass_ms(&lab, 1);
	cr_assert(write[0].done && write[1].done);
	cr_assert_eq(write[0].result, 0);
	cr_assert_eq(write[1].result, 0);
	cr_assert_eq(lab.unstalled, 1);
	cr_assert_eq(lab_verify(disk, 0, 4096, 1), 0);
	cr_assert_eq(lab_verify(disk, 8192, 4096, 2), 0);
	lab_request_fini(&write[0]);
	lab_request_fini(&write[1]);
	lab_request_fini(&read);
	disk_close(disk);
}

Test(disk_policy, retry_at_once_when_asked)
{
	struct disk *disk = disk_lab_open(&lab, "a.img");
	struct lab_request write;

	fail(-ENOSPC, 1U << STORE_WRITE, 1, false);
	lab_submit(disk, &write, DISK_WRITE, 0, 0, 4096, 1);
	disk_lab_settle(&lab);
	cr_assert(!write.done);
	disk_retry(disk);
	disk_retry(disk);
	disk_lab_settle(&lab);
	cr_assert(write.done);
	cr_assert_eq(write.result, 0);
	cr_assert_eq(lab.unstalled, 1);
	lab_request_fini(&write);
	disk_close(disk);
}

static void is_reported(int code)
{
	struct disk *disk = disk_lab_open(&lab, "a.img");

	fail(code, 1U << STORE_WRITE, 1, false);
	cr_assert_eq(lab_write(disk, 0, 4096, 1), code);
	cr_assert_eq(lab.stalled, 0);
	cr_assert_eq(lab_write(disk, 0, 4096, 1), 0);
	disk_close(disk);
}

Test(disk_policy, an_io_error_is_reported)
{
	is_reported(-EIO);
}

Test(disk_policy, no_space_is_reported_where_asked)
{
	lab.options.on_no_space = DISK_POLICY_REPORT;
	is_reported(-ENOSPC);
}

Test(disk_policy, what_is_unknown_is_reported_where_asked)
{
	lab.options.on_gone = DISK_POLICY_REPORT;
	is_reported(-ETIMEDOUT);
}

Test(disk_policy, an_io_error_waits_where_asked)
{
	struct disk *disk = NULL;
	struct lab_request read;

	lab.options.on_io_error = DISK_POLICY_PAUSE;
	lab.options.retry_ms = 50;
	disk = disk_lab_open(&lab, "a.img");
	fail(-EIO, 1U << STORE_READ, 1, false);
	lab_submit(disk, &read, DISK_READ, 0, 0, 4096, 1);
	disk_lab_settle(&lab);
	cr_assert(!read.done);
	disk_lab_pass_ms(&lab, 50);
	cr_assert(read.done);
	cr_assert_eq(read.result, 0);
	lab_request_fini(&read);
	disk_close(disk);
}

Test(disk_policy, a_store_that_is_gone_and_comes_back)
{
	struct disk *disk = disk_lab_open(&lab, "a.img");
	struct lab_request write;
	struct lab_request read;

	fake_store_set_gone(lab.store, true);
	lab_submit(disk, &write, DISK_WRITE, 0, 0, 4096, 1);
	disk_lab_settle(&lab);
	cr_assert_eq(lab.stall_code, -ENODEV);
	lab_submit(disk, &read, DISK_READ, 0, MIB, 4096, 1); /* there is nothing to read from */
	disk_lab_settle(&lab);
	cr_assert(!read.done);
	fake_store_set_gone(lab.store, false);
	disk_lab_pass_ms(&lab, 1000);
	cr_assert(write.done && read.done);
	cr_assert_eq(write.result, 0);
	cr_assert_eq(read.result, 0);
	cr_assert_eq(lab.unstalled, 1);
	lab_request_fini(&write);
	lab_request_fini(&read);
	disk_close(disk);
}

/* It may land as late as max_inflight_ms; the same data is not written over it before. */
Test(disk_policy, an_unknown_write_is_written_again_when_it_can_land_no_more)
{
	struct disk *disk = NULL;
	struct lab_request write;

	lab.options.retry_ms = 10;
	disk = disk_lab_open(&lab, "a.img");
	fail(-ETIMEDOUT, 1U << STORE_WRITE, 1, false);
	lab_submit(disk, &write, DISK_WRITE, 0, 0, 4096, 3);
	disk_lab_settle(&lab);
	cr_assert(!write.done);
	disk_lab_pass_ms(&lab, 999);
	cr_assert(!write.done);
	disk_lab_pass_ms(&lab, 1);
	cr_assert(write.done);
	cr_assert_eq(write.result, 0);
	cr_assert_eq(lab_verify(disk, 0, 4096, 3), 0);
	lab_request_fini(&write);
	disk_close(disk);
}

Test(disk_policy, a_flush_that_failed_is_never_tried_into_success)
{
	struct disk *disk = NULL;

	disk_lab_make(&lab, "a.vhdx", DISK_VHDX, DISK_DYNAMIC, SIZE, NULL);
	lab.options.on_io_error = DISK_POLICY_PAUSE;
	disk = disk_lab_open(&lab, "a.vhdx");
	cr_assert_eq(lab_write(disk, 0, 4096, 1), 0);
	fail(-EIO, 1U << STORE_FLUSH, 1, false);
	cr_assert_eq(disk_do(disk, DISK_FLUSH, 0, NULL, 0, NULL), -EIO);
	cr_assert_eq(lab.failed, 1);
	cr_assert_eq(lab.stalled, 0);
	cr_assert_eq(disk_do(disk, DISK_FLUSH, 0, NULL, 0, NULL), -EIO);
	cr_assert_eq(lab_write(disk, 0, 4096, 2), -EIO);
	cr_assert_eq(lab.failed, 1); /* told once */
	disk_close(disk);
}

Test(disk_policy, stalled_requests_survive_a_hold_and_a_hand_over)
{
	struct disk *disk = disk_lab_open(&lab, "a.img");
	struct lab_request write;

	fail(-ENOSPC, 1U << STORE_WRITE, 1, true);
	lab_submit(disk, &write, DISK_WRITE, 0, 0, 4096, 1);
	disk_lab_settle(&lab);
	disk_hold(disk); /* does not wait for what cannot end */
	disk_lab_pass_ms(&lab, 5000);
	cr_assert(!write.done);
	disk_unhold(disk);
	cr_assert_eq(disk_deactivate(disk, NULL), 0);
	heal();
	disk_lab_pass_ms(&lab, 5000);
	cr_assert(!write.done);
	cr_assert_eq(disk_activate(disk, 7, NULL, NULL), 0);
	disk_lab_settle(&lab);
	cr_assert(write.done);
	cr_assert_eq(write.result, 0);
	cr_assert_eq(lab_verify(disk, 0, 4096, 1), 0);
	lab_request_fini(&write);
	disk_close(disk);
}

Test(disk_policy, close_ends_what_is_stalled)
{
	struct disk *disk = disk_lab_open(&lab, "a.img");
	struct lab_request write;

	fail(-ENOSPC, 1U << STORE_WRITE, 1, true);
	lab_submit(disk, &write, DISK_WRITE, 0, 0, 4096, 1);
	disk_lab_settle(&lab);
	disk_close(disk);
	cr_assert(write.done);
	cr_assert_eq(write.result, -ECANCELED);
	lab_request_fini(&write);
}

Test(disk_policy, a_resize_without_space_is_told_to_who_asked)
{
	struct disk *disk = disk_lab_open(&lab, "a.img");

	fail(-ENOSPC, 1U << STORE_TRUNCATE, 1, false);
	cr_assert_eq(disk_do(disk, DISK_RESIZE, 2 * SIZE, NULL, 0, NULL), -ENOSPC);
	cr_assert_eq(lab.stalled, 0);
	disk_close(disk);
}

Test(disk_policy, what_is_stalled_and_what_waits_behind_it_is_given_back)
{
	struct disk *disk = disk_lab_open(&lab, "a.img");
	struct lab_request write[3];

	fail(-ENOSPC, 1U << STORE_WRITE, 1, true);
	lab_submit(disk, &write[0], DISK_WRITE, 0, 0, 4096, 1);
	disk_lab_settle(&lab);
	lab_submit(disk, &write[1], DISK_WRITE, 0, 8192, 4096, 2);
	disk_lab_settle(&lab);
	cr_assert(!write[0].done && !write[1].done);
	disk_give_back(disk);
	disk_lab_settle(&lab);
	cr_assert(write[0].done && write[1].done);
	cr_assert_eq(write[0].result, -ECANCELED);
	cr_assert_eq(write[1].result, -ECANCELED);

	/* So is what comes meanwhile. */
	lab_submit(disk, &write[2], DISK_WRITE, 0, 16384, 4096, 3);
	disk_lab_settle(&lab);
	cr_assert(write[2].done);
	cr_assert_eq(write[2].result, -ECANCELED);
	disk_keep(disk);
	for (int i = 0; i < 3; i++)
		lab_request_fini(&write[i]);

	heal();
	lab_submit(disk, &write[0], DISK_WRITE, 0, 0, 4096, 1); /* waits for the next try */
	disk_lab_settle(&lab);
	cr_assert(!write[0].done);
	disk_lab_pass_ms(&lab, 1000);
	cr_assert(write[0].done);
	cr_assert_eq(write[0].result, 0);
	cr_assert_eq(lab.stalled, 1);
	cr_assert_eq(lab.unstalled, 1);
	cr_assert_eq(lab_verify(disk, 0, 4096, 1), 0);
	lab_request_fini(&write[0]);
	disk_close(disk);
}

/* The request is on its way when it is asked for, and fails only then. */
Test(disk_policy, what_would_stall_while_things_are_given_back_is_given_back)
{
	struct disk *disk = disk_lab_open(&lab, "a.img");
	struct lab_request write[2];

	fail(-ENOSPC, 1U << STORE_WRITE, 1, true);
	lab_submit(disk, &write[0], DISK_WRITE, 0, 0, 4096, 1);
	disk_lab_settle(&lab);
	disk_retry(disk);
	lab_submit(disk, &write[1], DISK_WRITE, 0, 8192, 4096, 1);
	disk_give_back(disk);
	disk_lab_settle(&lab);
	cr_assert(write[0].done && write[1].done);
	cr_assert_eq(write[0].result, -ECANCELED);
	cr_assert_eq(write[1].result, -ECANCELED);
	disk_keep(disk);
	heal();
	disk_lab_pass_ms(&lab, 1000);
	cr_assert_eq(lab_write(disk, 0, 4096, 1), 0);
	cr_assert_eq(lab.unstalled, 1);
	lab_request_fini(&write[0]);
	lab_request_fini(&write[1]);
	disk_close(disk);
}

Test(disk_policy, an_unknown_write_made_again_keeps_its_distance)
{
	struct disk *disk = NULL;
	struct lab_request write;

	lab.options.retry_ms = 10;
	disk = disk_lab_open(&lab, "a.img");
	fail(-ETIMEDOUT, 1U << STORE_WRITE, 1, false);
	lab_submit(disk, &write, DISK_WRITE, 0, 0, 4096, 3);
	disk_lab_settle(&lab);
	disk_give_back(disk);
	disk_lab_settle(&lab);
	cr_assert_eq(write.result, -ECANCELED);
	disk_keep(disk);
	lab_request_fini(&write);
	lab_submit(disk, &write, DISK_WRITE, 0, 0, 4096, 3);
	disk_lab_pass_ms(&lab, 999);
	cr_assert(!write.done);
	disk_lab_pass_ms(&lab, 1);
	cr_assert(write.done);
	cr_assert_eq(write.result, 0);
	lab_request_fini(&write);
	disk_close(disk);
}

Test(disk_policy, what_waits_for_an_activation_is_given_back_and_what_is_held_is_not)
{
	struct disk *disk = disk_lab_open(&lab, "a.img");
	struct lab_request write;

	disk_hold(disk);
	lab_submit(disk, &write, DISK_WRITE, 0, 0, 4096, 1);
	disk_give_back(disk);
	disk_lab_settle(&lab);
	cr_assert(!write.done); /* a hold ends by itself */
	disk_unhold(disk);
	disk_lab_settle(&lab);
	cr_assert(write.done);
	cr_assert_eq(write.result, 0);
	disk_keep(disk);
	lab_request_fini(&write);

	cr_assert_eq(disk_deactivate(disk, NULL), 0);
	lab_submit(disk, &write, DISK_WRITE, 0, 0, 4096, 1);
	disk_lab_settle(&lab);
	cr_assert(!write.done);
	disk_give_back(disk);
	disk_lab_settle(&lab);
	cr_assert(write.done);
	cr_assert_eq(write.result, -ECANCELED);
	disk_keep(disk);
	lab_request_fini(&write);
	disk_close(disk);
}

Test(disk_policy, closing_right_after_asking_for_things_back)
{
	struct disk *disk = disk_lab_open(&lab, "a.img");

	disk_give_back(disk);
	disk_keep(disk);
	disk_give_back(disk);
	disk_close(disk); /* the task of the first one is still queued */
}
