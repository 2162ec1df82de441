/* SPDX-License-Identifier: Apache-2.0 */
#include <criterion/criterion.h>
#include <errno.h>
#include <string.h>

#include "hypervisor/disk/disk.h"
#include "tests/support/depth.h"
#include "tests/support/disk_lab.h"

#define MIB    (1ULL << 20)
#define BLOCK  MIB
#define BLOCKS 48U
#define SIZE   (BLOCKS * BLOCK)

static struct disk_lab lab;
static struct disk *guest_disk;
static uint32_t model[BLOCKS];
static uint32_t version;
static uint32_t cancel_after;
static struct lab_request guest;
static bool guest_busy;

static void setup(void)
{
	disk_lab_init(&lab);
	memset(model, 0, sizeof(model));
	version = 0;
	cancel_after = 0;
	guest_busy = false;
}

static void teardown(void)
{
	disk_lab_fini(&lab);
}

TestSuite(vhdx_compact, .init = setup, .fini = teardown);

static struct disk *make(const char *name, const char *parent)
{
	const struct disk_create_options options = {
		.format = DISK_VHDX,
		.kind = parent != NULL ? DISK_DIFFERENCING : DISK_DYNAMIC,
		.size_bytes = SIZE,
		.block_bytes = BLOCK,
		.parent = parent,
	};

	cr_assert_eq(disk_create(lab.store, name, lab.loop, &options, NULL), 0);
	guest_disk = disk_lab_open(&lab, name);
	return guest_disk;
}

static void write_block(struct disk *disk, uint32_t block, bool zeros)
{
	model[block] = zeros ? 0 : ++version;
	cr_assert_eq(lab_write(disk, block * BLOCK, BLOCK, model[block]), 0);
}

static void verify(struct disk *disk)
{
	for (uint32_t i = 0; i < BLOCKS; i++)
		cr_assert_eq(lab_verify(disk, i * BLOCK, BLOCK, model[i]), 0, "block %u", i);
}

static uint64_t file_bytes(const char *name)
{
	uint64_t bytes = 0;

	cr_assert(fake_store_file_bytes(lab.store, name, &bytes));
	return bytes;
}

static void clean(const char *name)
{
	const struct disk_options options = {
		.store = lab.store, .name = name, .format = DISK_VHDX, .loop = lab.loop
	};
	struct disk_check_result result = { .leaks = 0 };
	struct base_error err = { .code = 0 };

	cr_assert_eq(disk_check(&options, false, NULL, NULL, &result, &err), 0, "%s", err.text);
	cr_assert_eq(result.damages, 0);
}

static void reopen_and_verify(struct disk *disk, const char *name)
{
	disk_close(disk);
	clean(name);
	disk = disk_lab_open(&lab, name);
	verify(disk);
	disk_close(disk);
}

/* Every second block holds zeros, written as data: half the file goes. */
Test(vhdx_compact, zeros_go_and_blocks_move_down)
{
	struct disk *disk = make("a.vhdx", NULL);
	struct base_error err = { .code = 0 };
	uint64_t before = 0;

	for (uint32_t i = 0; i < BLOCKS; i++)
		write_block(disk, i, i % 2 == 0);
	cr_assert_eq(disk_do(disk, DISK_FLUSH, 0, NULL, 0, NULL), 0);
	before = file_bytes("a.vhdx");
	cr_assert_eq(disk_compact(disk, NULL, NULL, &err), 0, "%s", err.text);
	cr_assert_leq(file_bytes("a.vhdx"), before - BLOCKS / 2 * BLOCK);
	verify(disk);
	for (uint32_t i = 0; i < BLOCKS; i += 3) /* and it grows again, into what reads zero */
		write_block(disk, i, false);
	verify(disk);
	reopen_and_verify(disk, "a.vhdx");
}

static uint64_t differencing_after(uint64_t *ret_before)
{
	struct disk *disk = make("base.vhdx", NULL);
	uint64_t after = 0;

	for (uint32_t i = 0; i < BLOCKS; i++)
		write_block(disk, i, false);
	disk_close(disk);
	disk = make("child.vhdx", "base.vhdx");
	for (uint32_t i = 0; i < 30; i++)
		write_block(disk, i, i < 20); /* zeros must stay zeros over the parent's data */
	model[40] = model[41] = ++version;    /* PARTIAL: a bitmap block is behind the others */
	cr_assert_eq(lab_write(disk, 41 * BLOCK - 4096, 8192, version), 0);
	model[40] = model[41] = 0;
	cr_assert_eq(disk_do(disk, DISK_ZERO, 40 * BLOCK, NULL, 2 * BLOCK, NULL), 0);
	cr_assert_eq(disk_do(disk, DISK_FLUSH, 0, NULL, 0, NULL), 0);
	*ret_before = file_bytes("child.vhdx");
	cr_assert_eq(disk_compact(disk, NULL, NULL, NULL), 0);
	after = file_bytes("child.vhdx");
	verify(disk);
	reopen_and_verify(disk, "child.vhdx");
	return after;
}

Test(vhdx_compact, a_child_keeps_its_zeros_over_the_parent)
{
	uint64_t before = 0;
	uint64_t after = differencing_after(&before);

	cr_assert_leq(after, before - 20 * BLOCK, "%lu to %lu", (unsigned long)before,
		      (unsigned long)after);
}

/* A sector bitmap at the end of the file is no reason to keep all that is before it. */
Test(vhdx_compact, a_bitmap_at_the_end_moves)
{
	struct disk *disk = make("base.vhdx", NULL);
	uint64_t before = 0;

	write_block(disk, 40, false);
	disk_close(disk);
	disk = make("child.vhdx", "base.vhdx");
	for (uint32_t i = 0; i < 20; i++)
		write_block(disk, i, false);
	cr_assert_eq(lab_write(disk, 40 * BLOCK, 4096, model[40]), 0); /* PARTIAL: a bitmap */
	cr_assert_eq(disk_do(disk, DISK_UNMAP, 0, NULL, 20 * BLOCK, NULL), 0);
	memset(model, 0, 20 * sizeof(model[0]));
	cr_assert_eq(disk_do(disk, DISK_FLUSH, 0, NULL, 0, NULL), 0);
	before = file_bytes("child.vhdx");
	cr_assert_eq(disk_compact(disk, NULL, NULL, NULL), 0);
	cr_assert_leq(file_bytes("child.vhdx"), before - 19 * BLOCK);
	verify(disk);
	reopen_and_verify(disk, "child.vhdx");
}

static int guest_at_work(void *context, uint64_t done_bytes, uint64_t total_bytes)
{
	(void)context;
	cr_assert_leq(done_bytes, total_bytes);
	if (cancel_after > 0 && --cancel_after == 0)
		return 1;
	if (guest_busy && guest.done) {
		cr_assert_eq(guest.result, 0);
		lab_request_fini(&guest);
		guest_busy = false;
	}
	if (!guest_busy) {
		uint32_t block = version * 7 % BLOCKS;

		model[block] = ++version;
		lab_submit(guest_disk, &guest, DISK_WRITE, 0, block * BLOCK, BLOCK, version);
		guest_busy = true;
	}
	return 0;
}

static void guest_ends(void)
{
	disk_lab_settle(&lab);
	if (guest_busy) {
		cr_assert(guest.done);
		cr_assert_eq(guest.result, 0);
		lab_request_fini(&guest);
		guest_busy = false;
	}
}

Test(vhdx_compact, a_guest_goes_on)
{
	struct fake_store_plan plan = { .seed = 5, .reorder = true, .delay_steps = 3 };
	struct disk *disk = make("a.vhdx", NULL);

	for (uint32_t i = 0; i < BLOCKS; i++)
		write_block(disk, i, i % 3 != 0);
	fake_store_set_plan(lab.store, &plan);
	cr_assert_eq(disk_compact(disk, guest_at_work, NULL, NULL), 0);
	guest_ends();
	verify(disk);
	reopen_and_verify(disk, "a.vhdx");
}

Test(vhdx_compact, cancelled_it_is_whole)
{
	struct disk *disk = make("a.vhdx", NULL);

	for (uint32_t round = 1; round < 12; round++) {
		for (uint32_t i = 0; i < BLOCKS; i++)
			write_block(disk, i, (i + round) % 2 == 0);
		cancel_after = round;
		cr_assert_eq(disk_compact(disk, guest_at_work, NULL, NULL), -ECANCELED);
		guest_ends();
		verify(disk);
	}
	reopen_and_verify(disk, "a.vhdx");
}

Test(vhdx_compact, a_fixed_disk_cannot)
{
	struct disk *disk = NULL;

	disk_lab_make(&lab, "f.vhdx", DISK_VHDX, DISK_FIXED, 4 * MIB, NULL);
	disk = disk_lab_open(&lab, "f.vhdx");
	cr_assert_eq(disk_compact(disk, NULL, NULL, NULL), -EOPNOTSUPP);
	disk_close(disk);
	disk = disk_lab_open_standby(&lab, "f.vhdx");
	cr_assert_eq(disk_compact(disk, NULL, NULL, NULL), -EROFS);
	disk_close(disk);
}

/* The k-th request fails, for every k: nothing is lost, and the image checks clean. */
Test(vhdx_compact, every_failure_loses_nothing)
{
	for (uint64_t k = 1;; k += depth_stride()) {
		struct fake_store_plan plan = { .fail_at = k, .fail_code = -EIO };
		struct disk *disk = NULL;
		int rc = 0;

		teardown();
		setup();
		disk = make("a.vhdx", NULL);
		for (uint32_t i = 0; i < 12; i++)
			write_block(disk, i, i % 2 == 0);
		cr_assert_eq(disk_do(disk, DISK_FLUSH, 0, NULL, 0, NULL), 0);
		fake_store_set_plan(lab.store, &plan);
		rc = disk_compact(disk, NULL, NULL, NULL);
		if (fake_store_request_count(lab.store) < k) {
			cr_assert_eq(rc, 0);
			disk_close(disk);
			break;
		}
		plan.fail_at = 0;
		fake_store_set_plan(lab.store, &plan);
		verify(disk);
		reopen_and_verify(disk, "a.vhdx");
	}
}
