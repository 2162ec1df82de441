/* SPDX-License-Identifier: Apache-2.0 */
#include <criterion/criterion.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "tests/support/alloc_fail.h"
#include "tests/support/depth.h"
#include "tests/support/vhdx_rig.h"

#define MIB VHDX_MIB

/* The child is larger than its parent, and both end within a block. */
static const struct rig_options child = {
	.kind = DISK_DIFFERENCING,
	.size_bytes = 9 * MIB + 7 * RIG_SECTOR,
	.parent_bytes = 6 * MIB + 3 * RIG_SECTOR,
};

static void random_seed(const struct rig_options *options, uint64_t seed)
{
	struct rig rig = { .random = seed };
	struct fake_store_plan plan = {
		.seed = seed,
		.reorder = seed % 2 == 0,
		.delay_steps = (uint32_t)(seed % 4),
		.garbage_buffers = seed % 3 == 0,
	};

	rig_init(&rig, options);
	fake_store_set_plan(rig.store, &plan);
	rig_verify(&rig);
	for (uint32_t round = 0; round < 4; round++) {
		rig_random(&rig, 200, 1 + (uint32_t)(seed * 11 % RIG_SLOTS_MAX));
		rig_check_space(&rig);
		if (round % 2 == 1)
			rig_reopen(&rig);
		rig_verify(&rig);
	}
	cr_assert_eq(rig.failures, 0);
	rig_fini(&rig);
}

Test(vhdx_diff, random_requests_against_a_model)
{
	for (uint64_t seed = 1; seed <= 10; seed += depth_stride())
		random_seed(&child, seed);
}

Test(vhdx_diff, random_requests_with_4096_byte_sectors_and_larger_blocks)
{
	const struct rig_options options = {
		.kind = DISK_DIFFERENCING,
		.size_bytes = 13 * MIB + 4096,
		.parent_bytes = 13 * MIB + 4096,
		.block_bytes = 4 << 20,
		.sector_bytes = 4096,
	};

	for (uint64_t seed = 1; seed <= 4; seed += 1 + depth_stride() / 13)
		random_seed(&options, seed);
}

Test(vhdx_diff, a_block_of_64_mib_has_its_bits_on_several_pages)
{
	const struct rig_options options = {
		.kind = DISK_DIFFERENCING,
		.size_bytes = 96 * MIB,
		.parent_bytes = 8 * MIB,
		.block_bytes = 64 << 20,
	};
	struct rig rig = { .random = 5 };

	rig_init(&rig, &options);
	cr_assert_eq(rig_step(&rig, DISK_WRITE, 0, 15 * MIB, 8 * MIB + 512), 0);
	cr_assert_eq(rig_step(&rig, DISK_ZERO, 0, MIB, 63 * MIB), 0);
	cr_assert_eq(rig_step(&rig, DISK_WRITE, DISK_FUA, 64 * MIB - 512, 1024), 0);
	rig_verify(&rig);
	rig_reopen(&rig);
	rig_verify(&rig);
	cr_assert_eq(vhdx_entry_state(rig_entry(&rig, 0)), VHDX_BLOCK_PARTIAL);
	rig_fini(&rig);
}

static struct rig *states_rig(struct rig *rig)
{
	rig_init(rig, &child);
	return rig;
}

Test(vhdx_diff, states_after_each_kind_of_write)
{
	struct rig rig = { .random = 2 };

	states_rig(&rig);
	cr_assert_eq(rig_step(&rig, DISK_WRITE, 0, 512, 512), 0);
	cr_assert_eq(vhdx_entry_state(rig_entry(&rig, 0)), VHDX_BLOCK_PARTIAL);
	cr_assert_eq(rig_step(&rig, DISK_WRITE, 0, MIB, MIB), 0);
	cr_assert_eq(vhdx_entry_state(rig_entry(&rig, 1)), VHDX_BLOCK_FULL);
	cr_assert_eq(rig_step(&rig, DISK_WRITE, 0, 0, MIB), 0);
	cr_assert_eq(vhdx_entry_state(rig_entry(&rig, 0)), VHDX_BLOCK_FULL);
	cr_assert_eq(rig_step(&rig, DISK_UNMAP, 0, 0, 3 * MIB), 0);
	cr_assert_eq(rig_entry(&rig, 0), VHDX_BLOCK_UNMAPPED);
	cr_assert_eq(rig_entry(&rig, 2), VHDX_BLOCK_UNMAPPED, "it hides the parent");
	cr_assert_eq(rig_step(&rig, DISK_WRITE, 0, 512, 512), 0);
	cr_assert_eq(vhdx_entry_state(rig_entry(&rig, 0)), VHDX_BLOCK_FULL, "the rest is zero");
	cr_assert_eq(rig_step(&rig, DISK_ZERO, 0, 3 * MIB, MIB), 0);
	cr_assert_eq(rig_entry(&rig, 3), VHDX_BLOCK_ZERO);
	cr_assert_eq(rig_step(&rig, DISK_ZERO, 0, 4 * MIB + 512, 512), 0);
	cr_assert_eq(vhdx_entry_state(rig_entry(&rig, 4)), VHDX_BLOCK_PARTIAL);
	rig_verify(&rig);
	rig_fini(&rig);
}

Test(vhdx_diff, stale_bits_do_not_show)
{
	struct rig rig = { .random = 2 };
	struct vhdx *vhdx;
	uint8_t ones[256];
	uint64_t bitmap;

	states_rig(&rig);
	cr_assert_eq(rig_step(&rig, DISK_WRITE, 0, 512, 512), 0);
	vhdx = rig_vhdx(&rig);
	bitmap = vhdx_entry_offset(rig_entry(&rig, vhdx_bitmap_index(vhdx, 0)));
	cr_assert_neq(bitmap, 0);
	memset(ones, 0xff, sizeof(ones));
	cr_assert_eq(image_vhdx_ops.deactivate(rig.image, NULL), 0);
	image_vhdx_ops.close(rig.image);
	rig.image = NULL;
	cr_assert(fake_store_poke(rig.store, RIG_NAME, bitmap + 256, ones, sizeof(ones)));
	rig_reopen(&rig);
	cr_assert_eq(rig_step(&rig, DISK_WRITE, 0, MIB + 512, 512), 0);
	rig_verify(&rig);
	rig_reopen(&rig);
	rig_verify(&rig);
	rig_fini(&rig);
}

Test(vhdx_diff, a_bitmap_entry_that_is_damaged)
{
	static const uint64_t bad[] = { 0, 5, 6, 6 | MIB, 6 | (1ULL << 41), 6 | (8 * MIB) | 16 };
	uint8_t bytes[512];

	for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
		struct rig rig = { .random = 2 };

		states_rig(&rig);
		cr_assert_eq(rig_step(&rig, DISK_WRITE, 0, 512, 512), 0);
		cr_assert_eq(rig_step(&rig, DISK_WRITE, 0, MIB, MIB), 0);
		rig_poke_entry(&rig, vhdx_bitmap_index(rig_vhdx(&rig), 0), bad[i]);
		cr_assert_eq(rig_do(&rig, DISK_READ, 0, 0, bytes, 512), -EBADMSG);
		cr_assert_eq(rig_do(&rig, DISK_WRITE, 0, 0, bytes, 512), -EBADMSG);
		cr_assert_eq(rig_step(&rig, DISK_READ, 0, MIB, MIB), 0);
		rig_fini(&rig);
	}
}

Test(vhdx_diff, map_looks_below_unless_told_not_to)
{
	struct disk_extent extents[2048];
	struct rig rig = { .random = 2 };
	uint64_t at = 0;
	uint32_t count;

	states_rig(&rig);
	cr_assert_eq(rig_step(&rig, DISK_UNMAP, 0, 0, MIB), 0);
	cr_assert_eq(rig_step(&rig, DISK_WRITE, 0, MIB + 1024, 512), 0);
	count = rig_map(&rig, DISK_THIS_LAYER, 0, rig.size_bytes, extents, 2048);
	cr_assert_eq(count, 4);
	cr_assert_eq(extents[0].kind, DISK_EXTENT_ZERO);
	cr_assert_eq(extents[1].kind, DISK_EXTENT_PARENT);
	cr_assert_eq(extents[2].kind, DISK_EXTENT_DATA);
	cr_assert_eq(extents[2].length_bytes, 512);
	cr_assert_eq(extents[3].kind, DISK_EXTENT_PARENT);
	count = rig_map(&rig, 0, 0, rig.size_bytes, extents, 2048);
	for (uint32_t i = 0; i < count; i++) {
		cr_assert_eq(extents[i].offset_bytes, at);
		cr_assert_neq(extents[i].kind, DISK_EXTENT_PARENT);
		at += extents[i].length_bytes;
	}
	cr_assert_eq(at, rig.size_bytes);
	cr_assert_eq(extents[count - 1].kind, DISK_EXTENT_UNMAPPED, "behind the parent's end");
	rig_fini(&rig);
}

static void workload(struct rig *rig)
{
	(void)rig_step(rig, DISK_WRITE, 0, 512, 512);
	(void)rig_step(rig, DISK_WRITE, DISK_FUA, 2 * MIB - 4096, 8192);
	(void)rig_step(rig, DISK_WRITE, 0, 4 * MIB, MIB);
	(void)rig_step(rig, DISK_UNMAP, 0, 4 * MIB, 2 * MIB);
	(void)rig_step(rig, DISK_ZERO, DISK_FUA, 3 * MIB + 512, 4096);
	(void)rig_step(rig, DISK_FLUSH, 0, 0, 0);
	(void)rig_step(rig, DISK_WRITE, 0, 7 * MIB, 512);
	(void)rig_step(rig, DISK_WRITE, 0, 4 * MIB, 512);
	(void)rig_step(rig, DISK_WRITE, 0, 0, MIB);
	(void)rig_step(rig, DISK_READ, 0, 0, 6 * MIB);
	rig_random(rig, 30, 8);
	(void)rig_step(rig, DISK_FLUSH, 0, 0, 0);
}

static void check_after(struct rig *rig)
{
	const struct fake_store_plan healthy = { .seed = 1 };

	fake_store_set_plan(rig->store, &healthy);
	if (rig_vhdx(rig)->image.failed) {
		memset(rig->unsure, 1, rig->size_bytes / rig->sector_bytes);
		rig_reopen(rig);
	}
	rig_verify(rig);
	rig_check_space(rig);
	rig_random(rig, 40, 4);
	rig_check_space(rig);
	rig_reopen(rig);
	rig_verify(rig);
}

static void fail_every(int code, bool forever)
{
	bool more = true;

	for (uint64_t k = 1; more; k += depth_stride() + k / 40) {
		struct rig rig = { .random = 3, .may_keep = code == -ETIMEDOUT };
		struct fake_store_plan plan = {
			.seed = k,
			.reorder = true,
			.fail_at = k,
			.fail_code = code,
			.fail_forever = forever,
		};

		rig_init(&rig, &child);
		fake_store_set_plan(rig.store, &plan);
		workload(&rig);
		more = fake_store_request_count(rig.store) >= k;
		cr_assert(more || k > 40);
		check_after(&rig);
		rig_fini(&rig);
	}
}

Test(vhdx_diff, the_kth_request_of_the_store_fails)
{
	fail_every(-EIO, false);
	fail_every(-ENOSPC, true);
	fail_every(-ETIMEDOUT, false);
}

Test(vhdx_diff, the_kth_allocation_fails)
{
	bool failed = true;

	for (unsigned int k = 0; failed; k += depth_stride()) {
		struct rig rig = { .random = 3 };
		uint8_t bytes[1024];
		uint32_t good = 0;

		rig_init(&rig, &child);
		memset(bytes, 0x5a, sizeof(bytes));
		rig.failures = 1;
		alloc_fail_at(k);
		for (uint64_t block = 0; block < 4; block++) {
			uint64_t at = block * 2 * MIB + 4096;
			int code = rig_do(&rig, DISK_WRITE, DISK_FUA, at, bytes, sizeof(bytes));

			cr_assert(code == 0 || code == -ENOMEM, "%d", code);
			good += code == 0;
			if (code == 0)
				memcpy(rig.model + at, bytes, sizeof(bytes));
			else
				memset(rig.unsure + at / RIG_SECTOR, 1, sizeof(bytes) / RIG_SECTOR);
		}
		failed = alloc_fail_done();
		cr_assert(failed || good == 4);
		check_after(&rig);
		rig_fini(&rig);
	}
}
