/* SPDX-License-Identifier: Apache-2.0 */
#include "hypervisor/disk/disk.h"

#include <criterion/criterion.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tests/support/depth.h"
#include "tests/support/disk_lab.h"

#define KIB    (1ULL << 10)
#define MIB    (1ULL << 20)
#define SIZE   (16 * MIB)
#define PIECE  (64 * KIB)
#define PIECES (SIZE / PIECE)

static struct disk_lab lab;
static uint32_t model[PIECES]; /* version of each piece; 0: zeros */
static struct disk *open_disk;
static uint64_t random_state;
static uint32_t version;
static uint32_t cancel_after; /* progress calls; 0: never */
static uint32_t guest_writes;
static char top[STORE_NAME_BYTES];

static int top_moved(void *context, const char *name)
{
	(void)context;
	(void)snprintf(top, sizeof(top), "%s", name);
	return 0;
}

static void setup(void)
{
	disk_lab_init(&lab);
	lab.events.top_moved = top_moved;
	memset(model, 0, sizeof(model));
	random_state = 99;
	version = 0;
	cancel_after = 0;
	guest_writes = 0;
	top[0] = '\0';
}

static void teardown(void)
{
	disk_lab_fini(&lab);
}

TestSuite(disk_merge, .init = setup, .fini = teardown);

static uint64_t next_random(void)
{
	random_state = random_state * 6364136223846793005ULL + 1442695040888963407ULL;
	return random_state >> 33;
}

static void write_piece(struct disk *disk, uint64_t piece)
{
	model[piece] = ++version;
	cr_assert_eq(lab_write(disk, piece * PIECE, PIECE, version), 0);
}

static void zero_piece(struct disk *disk, uint64_t piece)
{
	struct disk_request request = { .op = DISK_ZERO,
					.flags = DISK_MAY_UNMAP,
					.offset_bytes = piece * PIECE,
					.length_bytes = PIECE };

	model[piece] = 0;
	cr_assert_eq(disk_do_request(disk, &request, NULL), 0);
}

static void some_writes(struct disk *disk, uint32_t count)
{
	for (uint32_t i = 0; i < count; i++) {
		if (next_random() % 4 == 0)
			zero_piece(disk, next_random() % PIECES);
		else
			write_piece(disk, next_random() % PIECES);
	}
}

static void verify(struct disk *disk)
{
	for (uint64_t i = 0; i < PIECES; i++)
		cr_assert_eq(lab_verify(disk, i * PIECE, PIECE, model[i]), 0, "piece %lu",
			     (unsigned long)i);
}

static struct disk *chain_of(uint32_t count, enum disk_format base, const char *ending)
{
	struct disk *disk = NULL;
	char name[32];

	(void)snprintf(name, sizeof(name), "0.%s",
		       base == DISK_RAW ? "img" : disk_format_name(base));
	disk_lab_make(&lab, name, base, DISK_DYNAMIC, SIZE, NULL);
	disk = disk_lab_open(&lab, name);
	some_writes(disk, 60);
	for (uint32_t i = 1; i < count; i++) {
		(void)snprintf(name, sizeof(name), "%u.%s", i, ending);
		cr_assert_eq(disk_checkpoint(disk, name, NULL), 0);
		some_writes(disk, 60);
	}
	open_disk = disk;
	return disk;
}

/* A guest that writes while the merge is at work, not waiting for it. */
static struct lab_request guest[64];

static int guest_at_work(void *context, uint64_t done_bytes, uint64_t total_bytes)
{
	(void)context;
	cr_assert_leq(done_bytes, total_bytes);
	if (cancel_after > 0 && --cancel_after == 0)
		return 1;
	if (guest_writes < 64) {
		struct lab_request *one = &guest[guest_writes];
		uint64_t piece = next_random() % PIECES;

		for (uint32_t i = 0; i < guest_writes; i++) {
			if (guest[i].request.offset_bytes == piece * PIECE)
				return 0; /* in flight together they would have no order */
		}
		if (guest_writes % 5 == 4) {
			model[piece] = 0;
			lab_submit(open_disk, one, DISK_ZERO, 0, piece * PIECE, PIECE, 0);
		} else {
			model[piece] = ++version;
			lab_submit(open_disk, one, DISK_WRITE, 0, piece * PIECE, PIECE, version);
		}
		guest_writes++;
	}
	return 0;
}

static void guest_ends(void)
{
	disk_lab_settle(&lab);
	for (uint32_t i = 0; i < guest_writes; i++) {
		cr_assert(guest[i].done);
		cr_assert_eq(guest[i].result, 0);
		lab_request_fini(&guest[i]);
	}
	guest_writes = 0;
}

static uint32_t layers_of(struct disk *disk)
{
	struct disk_layer_info info;
	uint32_t count = 0;

	while (disk_layer(disk, count, &info, NULL) == 0)
		count++;
	return count;
}

static void merge(struct disk *disk, uint32_t index)
{
	struct base_error err = { .code = 0 };
	uint32_t before = layers_of(disk);

	cr_assert_eq(disk_merge(disk, index, guest_at_work, NULL, &err), 0, "%s", err.text);
	guest_ends();
	cr_assert_eq(layers_of(disk), before - 1);
	verify(disk);
	some_writes(disk, 20);
	verify(disk);
}

static void reopen_and_verify(struct disk *disk)
{
	char name[STORE_NAME_BYTES];

	(void)snprintf(name, sizeof(name), "%s", disk_name(disk));
	disk_close(disk);
	disk = disk_lab_open(&lab, name);
	verify(disk);
	disk_close(disk);
}

Test(disk_merge, top_into_its_parent)
{
	struct disk *disk = chain_of(2, DISK_VHDX, "vhdx");
	uint64_t bytes = 0;

	merge(disk, 0);
	cr_assert_str_eq(disk_name(disk), "0.vhdx");
	cr_assert_str_eq(top, "0.vhdx");
	cr_assert_not(fake_store_file_bytes(lab.store, "1.vhdx", &bytes));
	reopen_and_verify(disk);
}

Test(disk_merge, a_frozen_layer_into_its_parent)
{
	struct disk *disk = chain_of(4, DISK_VHDX, "vhdx");

	merge(disk, 2); /* layer 1.vhdx into 0.vhdx */
	merge(disk, 1);
	cr_assert_str_eq(disk_name(disk), "3.vhdx");
	merge(disk, 0);
	cr_assert_str_eq(disk_name(disk), "0.vhdx");
	reopen_and_verify(disk);
}

Test(disk_merge, a_layer_whose_child_is_frozen)
{
	struct disk *disk = chain_of(5, DISK_VHDX, "vhdx");

	merge(disk, 3); /* its child, 2.vhdx, is no top */
	merge(disk, 2);
	reopen_and_verify(disk);
}

Test(disk_merge, reopened_between)
{
	struct disk *disk = chain_of(3, DISK_VHDX, "vhdx");

	cr_assert_eq(disk_deactivate(disk, NULL), 0);
	cr_assert_eq(disk_activate(disk, 7, NULL, NULL), 0);
	merge(disk, 1);
	cr_assert_eq(disk_deactivate(disk, NULL), 0);
	cr_assert_eq(disk_activate(disk, 7, NULL, NULL), 0);
	merge(disk, 0);
	reopen_and_verify(disk);
}

Test(disk_merge, into_raw)
{
	struct disk *disk = chain_of(3, DISK_RAW, "vhdx");

	merge(disk, 1);
	merge(disk, 0);
	cr_assert_str_eq(disk_name(disk), "0.img");
	reopen_and_verify(disk);
}

Test(disk_merge, vhd)
{
	struct disk *disk = chain_of(3, DISK_VHD, "vhd");
	struct base_error err = { .code = 0 };

	cr_assert_eq(disk_merge(disk, 1, NULL, NULL, &err), -EOPNOTSUPP, "%s", err.text);
	merge(disk, 0);
	merge(disk, 0);
	cr_assert_str_eq(disk_name(disk), "0.vhd");
	reopen_and_verify(disk);
}

Test(disk_merge, cancelled_at_any_point_leaves_the_chain)
{
	struct disk *disk = chain_of(3, DISK_VHDX, "vhdx");
	struct base_error err = { .code = 0 };

	for (uint32_t i = 1; i < 12; i++) {
		cancel_after = i;
		cr_assert_eq(disk_merge(disk, i % 2, guest_at_work, NULL, &err), -ECANCELED, "%s",
			     err.text);
		guest_ends();
		cr_assert_eq(layers_of(disk), 3);
		verify(disk);
		some_writes(disk, 10);
	}
	cancel_after = 0;
	verify(disk);
	reopen_and_verify(disk);
	disk = disk_lab_open(&lab, "2.vhdx");
	open_disk = disk;
	merge(disk, 0);
	merge(disk, 0);
	reopen_and_verify(disk);
}

/* Writes right before the copy, which overtakes them or is overtaken. */
static int guest_ahead(void *context, uint64_t done_bytes, uint64_t total_bytes)
{
	uint64_t piece = (done_bytes / PIECE + next_random() % (10 * MIB / PIECE)) % PIECES;

	(void)context;
	(void)total_bytes;
	for (uint32_t i = 0; i < guest_writes; i++) {
		if (guest[i].request.offset_bytes == piece * PIECE)
			return 0;
	}
	if (guest_writes < 64) {
		model[piece] = ++version;
		lab_submit(open_disk, &guest[guest_writes++], DISK_WRITE, 0, piece * PIECE, PIECE,
			   version);
	}
	return 0;
}

Test(disk_merge, a_copy_and_a_write_of_the_guest_do_not_cross)
{
	for (uint64_t seed = 1; seed <= 8; seed++) {
		struct fake_store_plan plan = { .seed = seed, .reorder = true, .delay_steps = 24 };
		struct disk *disk = NULL;

		teardown();
		setup();
		random_state = seed;
		disk = chain_of(2, DISK_VHDX, "vhdx");
		for (uint64_t i = 0; i < PIECES; i++) /* nothing is left out of the copy */
			write_piece(disk, i);
		fake_store_set_plan(lab.store, &plan);
		cr_assert_eq(disk_merge(disk, 0, guest_ahead, NULL, NULL), 0);
		guest_ends();
		verify(disk);
		disk_close(disk);
	}
}

static void hook(void *context, const struct disk_hook_event *event)
{
	disk_hook_done(context, event->request);
}

Test(disk_merge, errors)
{
	struct disk *disk = chain_of(2, DISK_VHDX, "vhdx");
	struct base_error err = { .code = 0 };

	cr_assert_eq(disk_merge(disk, 1, NULL, NULL, &err), -EINVAL);
	cr_assert_eq(disk_merge(disk, UINT32_MAX, NULL, NULL, &err), -EINVAL);
	cr_assert_eq(disk_hook_set(disk, hook, disk, NULL), 0);
	cr_assert_eq(disk_merge(disk, 0, NULL, NULL, &err), -EBUSY);
	cr_assert_eq(disk_hook_set(disk, NULL, NULL, NULL), 0);
	cr_assert_eq(disk_deactivate(disk, NULL), 0);
	cr_assert_eq(disk_merge(disk, 0, NULL, NULL, &err), -EROFS);
	disk_close(disk);
}

static int meddle(void *context, uint64_t done_bytes, uint64_t total_bytes)
{
	struct base_error err = { .code = 0 };
	struct disk *disk = context;

	(void)done_bytes;
	(void)total_bytes;
	/* All that it refuses at once, before it would wait. */
	cr_assert_eq(disk_deactivate(disk, &err), -EBUSY);
	cr_assert_eq(disk_merge(disk, 0, NULL, NULL, &err), -EBUSY);
	cr_assert_eq(disk_checkpoint(disk, "x.vhdx", &err), -EBUSY);
	cr_assert_eq(disk_compact(disk, NULL, NULL, &err), -EBUSY);
	return 0;
}

Test(disk_merge, one_job_at_a_time)
{
	struct disk *disk = chain_of(2, DISK_VHDX, "vhdx");

	cr_assert_eq(disk_merge(disk, 0, meddle, disk, NULL), 0);
	verify(disk);
	disk_close(disk);
}

Test(disk_merge, a_child_that_grew)
{
	struct disk *disk = chain_of(2, DISK_VHDX, "vhdx");

	cr_assert_eq(disk_do(disk, DISK_RESIZE, 2 * SIZE, NULL, 0, NULL), 0);
	cr_assert_eq(lab_write(disk, 2 * SIZE - MIB, MIB, 77), 0);
	merge(disk, 0);
	cr_assert_eq(lab_verify(disk, 2 * SIZE - MIB, MIB, 77), 0);
	cr_assert_eq(lab_verify(disk, SIZE, MIB, 0), 0);
	reopen_and_verify(disk);
}

/* The k-th request to the store fails, for every k: either way the disk reads right and works. */
static void every_failure(uint32_t index)
{
	for (uint64_t k = 1;; k += depth_stride()) {
		struct fake_store_plan plan = { .fail_at = k, .fail_code = -EIO };
		struct base_error err = { .code = 0 };
		struct disk *disk = NULL;
		int rc = 0;

		teardown();
		setup();
		disk = chain_of(3, DISK_VHDX, "vhdx");
		(void)snprintf(top, sizeof(top), "2.vhdx");
		cr_assert_eq(disk_do(disk, DISK_FLUSH, 0, NULL, 0, NULL), 0);
		fake_store_set_plan(lab.store, &plan);
		rc = disk_merge(disk, index, NULL, NULL, &err);
		if (fake_store_request_count(lab.store) < k) {
			cr_assert_eq(rc, 0);
			disk_close(disk);
			break;
		}
		plan.fail_at = 0;
		fake_store_set_plan(lab.store, &plan);
		verify(disk);
		disk_close(disk);
		disk = disk_lab_open(&lab, top);
		verify(disk);
		some_writes(disk, 5);
		verify(disk);
		disk_close(disk);
	}
}

Test(disk_merge, every_failure_of_the_top)
{
	every_failure(0);
}

Test(disk_merge, every_failure_of_a_frozen_layer)
{
	every_failure(1);
}
