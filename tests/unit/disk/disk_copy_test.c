/* SPDX-License-Identifier: Apache-2.0 */
#include "hypervisor/disk/disk_copy.h"

#include <criterion/criterion.h>
#include <errno.h>
#include <string.h>

#include "tests/support/alloc_fail.h"
#include "tests/support/disk_lab.h"

#define KIB  (1ULL << 10)
#define MIB  (1ULL << 20)
#define SIZE (16 * MIB)

static struct disk_lab lab;
static struct disk *from;
static struct disk *to;
static uint32_t cancel_after;
static uint64_t last_done, last_total;

static void setup(void)
{
	disk_lab_init(&lab);
	disk_lab_make(&lab, "from.vhdx", DISK_VHDX, DISK_DYNAMIC, SIZE, NULL);
	disk_lab_make(&lab, "to.img", DISK_RAW, DISK_DYNAMIC, SIZE, NULL);
	from = disk_lab_open(&lab, "from.vhdx");
	to = disk_lab_open(&lab, "to.img");
	cancel_after = 0;
	cr_assert_eq(lab_write(from, 0, 64 * KIB, 1), 0);
	cr_assert_eq(lab_write(from, 3 * MIB - 4096, 8192, 2), 0);
	cr_assert_eq(lab_write(from, 8 * MIB, 2 * MIB, 0), 0); /* zeros as data */
	cr_assert_eq(lab_write(from, 8 * MIB + 512, 512, 3), 0);
	cr_assert_eq(lab_write(from, SIZE - 512, 512, 4), 0);
}

static void teardown(void)
{
	disk_close(from);
	disk_close(to);
	disk_lab_fini(&lab);
}

TestSuite(disk_copy, .init = setup, .fini = teardown);

static int progress(void *context, uint64_t done_bytes, uint64_t total_bytes)
{
	cr_assert_eq(context, &lab);
	cr_assert_geq(done_bytes, last_done);
	cr_assert_leq(done_bytes, total_bytes);
	last_done = done_bytes;
	last_total = total_bytes;
	return cancel_after > 0 && --cancel_after == 0;
}

static struct disk_copy_options options_of(bool fresh, bool detect)
{
	last_done = 0;
	return (struct disk_copy_options){ .from = from,
					   .to = to,
					   .fresh = fresh,
					   .detect_zeroes = detect,
					   .progress = progress,
					   .context = &lab };
}

static void verify(void)
{
	cr_assert_eq(lab_verify(to, 0, 64 * KIB, 1), 0);
	cr_assert_eq(lab_verify(to, 64 * KIB, 2 * MIB, 0), 0);
	cr_assert_eq(lab_verify(to, 3 * MIB - 4096, 8192, 2), 0);
	cr_assert_eq(lab_verify(to, 8 * MIB, 512, 0), 0);
	cr_assert_eq(lab_verify(to, 8 * MIB + 512, 512, 3), 0);
	cr_assert_eq(lab_verify(to, 8 * MIB + 1024, 2 * MIB, 0), 0);
	cr_assert_eq(lab_verify(to, SIZE - 512, 512, 4), 0);
}

Test(disk_copy, into_a_fresh_target)
{
	struct disk_copy_options options = options_of(true, true);
	struct base_error err = { .code = 0 };

	cr_assert_eq(disk_copy(&options, &err), 0, "%s", err.text);
	cr_assert_eq(last_done, SIZE);
	cr_assert_eq(last_total, SIZE);
	verify();
}

Test(disk_copy, over_what_was_there)
{
	struct disk_copy_options options = options_of(false, false);

	cr_assert_eq(lab_write(to, 0, SIZE, 9), 0);
	cr_assert_eq(disk_copy(&options, NULL), 0);
	verify();
	cr_assert_eq(lab_write(to, 0, SIZE, 9), 0);
	options = options_of(false, true);
	options.chunk_bytes = 4096;
	options.depth = 1;
	cr_assert_eq(disk_copy(&options, NULL), 0);
	verify();
}

static uint64_t written_bytes(bool detect)
{
	struct disk_copy_options options = options_of(true, detect);
	struct fake_store_plan plan = { .fail_ops = 1U << STORE_WRITE };

	fake_store_set_plan(lab.store, &plan);
	cr_assert_eq(disk_copy(&options, NULL), 0);
	verify();
	return fake_store_request_count(lab.store);
}

Test(disk_copy, zeros_are_found_and_left_out)
{
	uint64_t with = written_bytes(true);

	cr_assert_leq(with, 6, "%lu writes", (unsigned long)with);
}

/* A target of larger sectors: shared ones are merged, the last one is filled up. */
Test(disk_copy, into_larger_sectors)
{
	const struct disk_create_options create = { .format = DISK_VHDX,
						    .kind = DISK_DYNAMIC,
						    .size_bytes = SIZE + 4096,
						    .logical_sector_bytes = 4096 };
	struct disk_copy_options options;
	struct base_error err = { .code = 0 };

	cr_assert_eq(disk_create(lab.store, "4k.vhdx", lab.loop, &create, &err), 0, "%s", err.text);
	cr_assert_eq(disk_do(from, DISK_RESIZE, SIZE + 512, NULL, 0, NULL), 0);
	cr_assert_eq(lab_write(from, SIZE, 512, 7), 0);
	disk_close(to);
	to = disk_lab_open(&lab, "4k.vhdx");
	options = options_of(true, true);
	cr_assert_eq(disk_copy(&options, &err), 0, "%s", err.text);
	{
		_Alignas(4096) static uint8_t sector[4096];

		cr_assert_eq(disk_do(to, DISK_READ, SIZE, sector, 4096, NULL), 0);
		cr_assert_eq(lab_differs(sector, SIZE, 512, 7), UINT64_MAX);
		cr_assert_eq(lab_differs(sector + 512, SIZE + 512, 3584, 0), UINT64_MAX);
	}
	cr_assert_eq(lab_verify(to, 0, 64 * KIB, 1), 0);
	cr_assert_eq(lab_verify(to, 3 * MIB - 4096, 8192, 2), 0);
}

Test(disk_copy, options_are_checked)
{
	struct disk_copy_options options = options_of(true, true);
	struct base_error err = { .code = 0 };

	options.chunk_bytes = 1000;
	cr_assert_eq(disk_copy(&options, &err), -EINVAL);
	options.chunk_bytes = DISK_COPY_CHUNK_BYTES_MAX + 4096;
	cr_assert_eq(disk_copy(&options, &err), -EINVAL);
	options.chunk_bytes = 0;
	options.depth = DISK_COPY_DEPTH_MAX + 1;
	cr_assert_eq(disk_copy(&options, &err), -EINVAL);
	options.depth = 0;
	cr_assert_eq(disk_do(from, DISK_RESIZE, 2 * SIZE, NULL, 0, NULL), 0);
	cr_assert_eq(disk_copy(&options, &err), -EINVAL);
	cr_assert_not_null(strstr(err.text, "33554432"), "%s", err.text);
}

Test(disk_copy, cancelled)
{
	for (uint32_t i = 1; i < 5; i++) {
		struct disk_copy_options options = options_of(true, true);

		cancel_after = i;
		cr_assert_eq(disk_copy(&options, NULL), -ECANCELED);
	}
}

Test(disk_copy, every_failure_is_told)
{
	for (uint64_t k = 1;; k++) {
		struct fake_store_plan plan = { .fail_at = k, .fail_code = -EIO };
		struct disk_copy_options options = options_of(true, true);
		struct base_error err = { .code = 0 };
		int rc = 0;

		fake_store_set_plan(lab.store, &plan);
		rc = disk_copy(&options, &err);
		if (fake_store_request_count(lab.store) < k) {
			cr_assert_eq(rc, 0);
			plan.fail_at = 0;
			fake_store_set_plan(lab.store, &plan);
			break;
		}
		cr_assert_eq(rc, -EIO, "request %lu: %d", (unsigned long)k, rc);
		cr_assert_not_null(strstr(err.text, "from.vhdx"), "%s", err.text);
	}
	verify();
}

Test(disk_copy, without_memory)
{
	for (unsigned int k = 0; k < 3; k++) {
		struct disk_copy_options options = options_of(true, true);

		alloc_fail_at(k);
		cr_assert_eq(disk_copy(&options, NULL), -ENOMEM);
		cr_assert(alloc_fail_done());
	}
}

/* --- many tiny extents --- */

#define TINY_COUNT 32768U
#define TINY_SIZE  (TINY_COUNT * 2 * 512ULL) /* every other sector, in one layer of two */

static void tiny_copy(bool live)
{
	static _Alignas(4096) uint8_t sector[512];
	struct disk_copy_options options;
	struct disk *tiny = NULL;
	struct base_error err = { .code = 0 };

	disk_lab_make(&lab, "tiny_base.vhdx", DISK_VHDX, DISK_DYNAMIC, TINY_SIZE, NULL);
	disk_lab_make(&lab, "tiny.vhdx", DISK_VHDX, DISK_DIFFERENCING, 0, "tiny_base.vhdx");
	disk_close(to);
	disk_lab_make(&lab, "tiny.img", DISK_RAW, DISK_DYNAMIC, TINY_SIZE, NULL);
	to = disk_lab_open(&lab, "tiny.img");
	tiny = disk_lab_open(&lab, "tiny.vhdx");
	for (uint64_t i = 0; i < TINY_COUNT; i++) {
		lab_fill(sector, i * 1024, 512, 5);
		cr_assert_eq(disk_do(tiny, DISK_WRITE, i * 1024, sector, 512, NULL), 0);
	}
	options = options_of(false, false);
	options.from = tiny;
	options.live = live;
	cr_assert_eq(disk_copy(&options, &err), 0, "%s", err.text);
	cr_assert_eq(last_done, TINY_SIZE);
	for (uint64_t i = 0; i < TINY_COUNT; i += 997) {
		cr_assert_eq(lab_verify(to, i * 1024, 512, 5), 0);
		cr_assert_eq(lab_verify(to, i * 1024 + 512, 512, 0), 0);
	}
	disk_close(tiny);
}

Test(disk_copy, tens_of_thousands_of_tiny_extents)
{
	tiny_copy(false);
}

Test(disk_copy, tens_of_thousands_of_tiny_extents_with_locks)
{
	tiny_copy(true);
}
