/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A disk moves to another folder, and everything fails: each request of the store in turn, and the
 * power at each instant.  After a power failure there is one disk, found as the documentation says,
 * with all that the guest had flushed; after any other failure the guest goes on where it was.
 * One thread, stores in memory.
 */
#include <criterion/criterion.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "agent/vm_storage_move.h"
#include "hypervisor/disk/disk_next.h"
#include "tests/support/depth.h"
#include "tests/support/disk_lab.h"

#define MIB        (1ULL << 20)
#define SIZE       (8 * MIB)
#define AREA       MIB /* where the guest writes its versions */
#define AREA_BYTES 16384u
#define PLACES     (2 * MIB)
#define CALLS_MAX  64u
#define NEVER      UINT64_MAX

static struct disk_lab lab;
static struct disk *disk;
static struct base_error err;

/* What the guest has done: a version each time, of the whole area. */
static uint32_t version;
static struct {
	uint64_t events; /* there were when its flush had ended */
	uint32_t version;
} flushed[CALLS_MAX];
static uint32_t flushed_count;
static uint32_t calls, cancel_at;

static void setup(void)
{
	disk_lab_init(&lab);
}

static void teardown(void)
{
	disk_close(disk);
	disk_lab_fini(&lab);
}

TestSuite(vm_storage_crash, .init = setup, .fini = teardown, .timeout = 280);

static void guest_writes(void)
{
	cr_assert_eq(lab_write(disk, AREA, AREA_BYTES, ++version), 0);
}

static void guest_flushes(void)
{
	cr_assert_eq(disk_do(disk, DISK_FLUSH, 0, NULL, 0, &err), 0, "%s", err.text);
	cr_assert_lt(flushed_count, CALLS_MAX);
	flushed[flushed_count].version = version;
	flushed[flushed_count++].events = fake_store_event_count(lab.store);
}

/* Between the rounds the guest writes, and flushes every other time. */
static int progress(void *context, uint64_t sent_bytes, uint64_t left_bytes)
{
	(void)context;
	(void)sent_bytes;
	(void)left_bytes;
	guest_writes();
	/* And once to a place where it did not write before. */
	cr_assert_eq(lab_write(disk, PLACES + calls * MIG_GRANULE_BYTES, 4096, 5), 0);
	if (calls % 2 == 0)
		guest_flushes();
	return ++calls == cancel_at;
}

/* A chain: a base that others use, what a checkpoint made a parent, and the top. */
static void make_chain(void)
{
	disk_lab_make(&lab, "a/base.vhdx", DISK_VHDX, DISK_DYNAMIC, SIZE, NULL);
	disk = disk_lab_open(&lab, "a/base.vhdx");
	cr_assert_eq(lab_write(disk, 4 * MIB, 4096, 77), 0);
	disk_close(disk);
	disk_lab_make(&lab, "a/old.vhdx", DISK_VHDX, DISK_DIFFERENCING, 0, "a/base.vhdx");
	disk = disk_lab_open(&lab, "a/old.vhdx");
	cr_assert_eq(lab_write(disk, 5 * MIB, 4096, 78), 0);
	disk_close(disk);
	disk_lab_make(&lab, "a/top.vhdx", DISK_VHDX, DISK_DIFFERENCING, 0, "a/old.vhdx");
	cr_assert_eq(disk_next_write(lab.store, lab.loop, "a/old.vhdx", "a/top.vhdx", &err), 0);
	disk = disk_lab_open(&lab, "a/top.vhdx");
	version = 0;
	flushed_count = 0;
	calls = 0;
	guest_writes();
}

static int move(bool keep, struct vm_storage_move_report *report)
{
	const struct vm_storage_move_options options = { .from = lab.store,
							 .disk = disk,
							 .to = lab.store,
							 .folder = "b",
							 .keep = keep,
							 .left_bytes = 65536,
							 .progress = progress };

	return vm_storage_move(&options, report, &err);
}

static bool is_there(struct store *store, const char *name)
{
	return disk_next_exists(store, lab.loop, name, NULL) == 1;
}

/* The versions that sectors of the area have; false: one that was never written. */
static bool versions_of(struct disk *from, uint32_t *ret_least, uint32_t *ret_most)
{
	static uint8_t bytes[AREA_BYTES] __attribute__((aligned(4096)));

	*ret_least = UINT32_MAX;
	*ret_most = 0;
	if (disk_do(from, DISK_READ, AREA, bytes, AREA_BYTES, &err) < 0)
		return false;
	for (uint32_t at = 0; at < AREA_BYTES; at += LAB_SECTOR_BYTES) {
		uint32_t seen = 0;

		while (seen <= version &&
		       lab_differs(bytes + at, AREA + at, LAB_SECTOR_BYTES, seen) != UINT64_MAX)
			seen++;
		if (seen > version)
			return false;
		*ret_least = seen < *ret_least ? seen : *ret_least;
		*ret_most = seen > *ret_most ? seen : *ret_most;
	}
	return true;
}

/* --- the power --- */

/* docs/migrate/disks.md: as long as the old name is there it is the disk, then the new one is. */
static const char *disk_of(struct store *store)
{
	return is_there(store, "a/top.vhdx") ? "a/top.vhdx" : "b/top.vhdx";
}

static void check_crash(uint64_t events, enum fake_store_loss loss)
{
	struct store *left = NULL;
	struct disk *found = NULL;
	struct disk_options options = { .loop = lab.loop };
	uint32_t least = 0, most = 0, must = 0;

	for (uint32_t i = 0; i < flushed_count; i++)
		if (flushed[i].events <= events)
			must = flushed[i].version;
	cr_assert_eq(fake_store_crash(lab.store, events, loss, events, &left, &err), 0);
	options.store = left;
	options.name = disk_of(left);
	cr_assert_eq(disk_open_standby(&options, &found, &err), 0, "after %llu events: %s",
		     (unsigned long long)events, err.text);
	cr_assert_eq(disk_activate(found, 9, NULL, &err), 0, "%s", err.text);
	cr_assert(versions_of(found, &least, &most), "%s after %llu events", options.name,
		  (unsigned long long)events);
	cr_assert_geq(least, must, "%s after %llu events: version %u, flushed was %u", options.name,
		      (unsigned long long)events, least, must);
	cr_assert_eq(lab_verify(found, 4 * MIB, 4096, 77), 0);
	cr_assert_eq(lab_verify(found, 5 * MIB, 4096, 78), 0);
	disk_close(found);
	store_free(left);
}

static void fail_power_everywhere(bool keep)
{
	const enum fake_store_loss losses[] = { FAKE_LOSE_ALL, FAKE_LOSE_SOME, FAKE_LOSE_NONE };
	struct vm_storage_move_report report;

	make_chain();
	cr_assert_eq(fake_store_record(lab.store, &err), 0);
	guest_flushes();
	cr_assert_eq(move(keep, &report), 0, "%s", err.text);
	guest_writes();
	guest_flushes();
	for (uint64_t events = flushed[0].events; events <= fake_store_event_count(lab.store);
	     events += 1 + depth_stride() / 9)
		check_crash(events, losses[events % (sizeof(losses) / sizeof(losses[0]))]);
}

Test(vm_storage_crash, a_power_failure_leaves_one_disk)
{
	fail_power_everywhere(false);
}

Test(vm_storage_crash, a_power_failure_leaves_one_disk_where_the_old_is_kept)
{
	fail_power_everywhere(true);
}

/* --- what is left --- */

static int count_name(void *context, const char *name, uint64_t size_bytes)
{
	(void)name;
	(void)size_bytes;
	(*(uint32_t *)context)++;
	return 0;
}

static uint32_t files_in(const char *folder)
{
	uint32_t count = 0;

	return store_list(lab.store, folder, count_name, &count, NULL) < 0 ? 0 : count;
}

/* It is where it was, with all that it had, and nothing is in the new folder. */
static void check_stayed(void)
{
	uint32_t least = 0, most = 0;

	cr_assert_str_eq(disk_name(disk), "a/top.vhdx");
	cr_assert(is_there(lab.store, "a/top.vhdx") && !is_there(lab.store, "a/top.vhdx.moved"));
	cr_assert_eq(files_in("b"), 0, "%u files", files_in("b"));
	cr_assert(versions_of(disk, &least, &most));
	cr_assert_eq(least, version);
	guest_writes();
	guest_flushes();
}

Test(vm_storage_crash, the_old_images_are_gone_and_what_others_use_is_not)
{
	struct vm_storage_move_report report;

	make_chain();
	cr_assert_eq(move(false, &report), 0, "%s", err.text);
	cr_assert_str_eq(report.name, "b/top.vhdx");
	cr_assert_geq(calls, 2);
	for (uint32_t i = 0; i < calls; i++)
		cr_assert_eq(lab_verify(disk, PLACES + i * MIG_GRANULE_BYTES, 4096, 5), 0,
			     "written before round %u", i);
	cr_assert_eq(files_in("a"), 1, "the base");
	cr_assert(is_there(lab.store, "a/base.vhdx"));
	cr_assert(is_there(lab.store, "b/base.vhdx") && is_there(lab.store, "b/old.vhdx"));
	cr_assert_lt(disk_next_check(lab.store, lab.loop, "b/old.vhdx", &err), 0,
		     "it is a checkpoint's past there, too");
}

Test(vm_storage_crash, what_is_kept_is_found_by_nobody)
{
	struct vm_storage_move_report report;

	make_chain();
	cr_assert_eq(move(true, &report), 0, "%s", err.text);
	cr_assert(!is_there(lab.store, "a/top.vhdx") && !is_there(lab.store, "a/old.vhdx"));
	cr_assert(is_there(lab.store, "a/top.vhdx.moved"));
	cr_assert(is_there(lab.store, "a/old.vhdx.moved"));
}

Test(vm_storage_crash, what_an_earlier_move_has_kept_is_not_written_over)
{
	struct vm_storage_move_report report;

	make_chain();
	disk_lab_make(&lab, "a/top.vhdx.moved", DISK_RAW, DISK_DYNAMIC, 4096, NULL);
	cr_assert_eq(move(false, &report), -EEXIST, "%s", err.text);
	cr_assert(strstr(err.text, "kept by an earlier move") != NULL, "%s", err.text);
	cr_assert_eq(store_remove(lab.store, "a/top.vhdx.moved", &err), 0);
	check_stayed();
}

/* --- what fails --- */

Test(vm_storage_crash, cancelled_at_any_round_it_leaves_no_trace)
{
	struct vm_storage_move_report report;

	for (cancel_at = 1;; cancel_at++) {
		int code = 0;

		make_chain();
		code = move(false, &report);
		if (code == 0)
			break;
		cr_assert_eq(code, -ECANCELED, "%s", err.text);
		check_stayed();
		disk_close(disk);
		disk = NULL;
		for (uint32_t i = 0; i < 3; i++) {
			static const char *const names[] = { "a/top.vhdx", "a/old.vhdx",
							     "a/base.vhdx" };

			disk_next_remove(lab.store, names[i]);
			cr_assert_eq(store_remove(lab.store, names[i], &err), 0);
		}
	}
	cr_assert_geq(cancel_at, 3);
}

static int move_to(struct store *to)
{
	const struct vm_storage_move_options options = {
		.from = lab.store, .disk = disk, .to = to, .folder = "b"
	};
	struct vm_storage_move_report report;

	return vm_storage_move(&options, &report, &err);
}

/* Each request fails in turn, until the move gets through: of @which store, @ops of them. */
static void fail_each(struct store *to, struct store *which, uint32_t ops, int with)
{
	const struct fake_store_plan none = { .fail_at = 0 };
	uint64_t failed = 0;

	make_chain();
	for (uint64_t k = 1;; k++) {
		const struct fake_store_plan plan = { .fail_at = k,
						      .fail_ops = ops,
						      .fail_code = with };
		uint32_t left = 0;
		int code = 0;

		flushed_count = 0;
		fake_store_set_plan(which, &plan);
		code = move_to(to);
		fake_store_set_plan(which, &none);
		if (code == 0)
			break;
		failed++;
		cr_assert_eq(lab.failed, 0, "the guest's image has failed at %llu",
			     (unsigned long long)k);
		check_stayed();
		(void)!store_list(to, "b", count_name, &left, NULL);
		cr_assert_eq(left, 0, "%u files", left);
	}
	cr_assert_gt(failed, 5);
}

Test(vm_storage_crash, a_new_store_that_fails_fails_the_move_alone)
{
	struct store *there = NULL;

	cr_assert_eq(fake_store_new(&there, &err), 0);
	fail_each(there, there, 0, -EIO);
	disk_close(disk);
	disk = NULL;
	store_free(there);
}

Test(vm_storage_crash, a_store_without_space_fails_the_move_alone)
{
	struct store *there = NULL;

	cr_assert_eq(fake_store_new(&there, &err), 0);
	fail_each(there, there, 1u << STORE_WRITE | 1u << STORE_ALLOCATE | 1u << STORE_TRUNCATE,
		  -ENOSPC);
	disk_close(disk);
	disk = NULL;
	store_free(there);
}

Test(vm_storage_crash, a_read_that_fails_fails_the_move_alone)
{
	fail_each(lab.store, lab.store, 1u << STORE_READ, -EIO);
}

static bool gate_open;

static bool may_submit(void *context)
{
	(void)context;
	return gate_open;
}

Test(vm_storage_crash, progress_never_runs_backwards)
{
	struct vm_storage_view view = { .round = 0 };
	struct vm_storage_move_report report;
	struct vm_storage_move_options options = { .from = lab.store,
						   .disk = NULL,
						   .to = lab.store,
						   .folder = "b",
						   .view = &view,
						   .gate = { .may_submit = may_submit },
						   .progress = progress,
						   .left_bytes = 1 };

	gate_open = true;
	make_chain();
	options.disk = disk;
	cr_assert_eq(vm_storage_move(&options, &report, &err), 0, "%s", err.text);
	cr_assert_eq(atomic_load(&view.percent), 100);
	cr_assert_eq(atomic_load(&view.round), report.rounds);
	cr_assert_geq(report.rounds, 4, "the guest wrote in each");
	cr_assert_eq(atomic_load(&view.left_bytes), 0);
}
