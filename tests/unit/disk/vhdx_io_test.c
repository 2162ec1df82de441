/* SPDX-License-Identifier: Apache-2.0 */
#include <criterion/criterion.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "tests/support/alloc_fail.h"
#include "tests/support/depth.h"
#include "tests/support/vhdx_rig.h"

#define MIB VHDX_MIB

static const struct rig_options dynamic = {
	.kind = DISK_DYNAMIC,
	.size_bytes = 12 * MIB + 7 * RIG_SECTOR,
};
static const struct rig_options fixed = {
	.kind = DISK_FIXED,
	.size_bytes = 8 * MIB + 7 * RIG_SECTOR,
};

static void random_seed(const struct rig_options *options, uint64_t seed)
{
	struct rig rig = { .random = seed };
	struct fake_store_plan plan = {
		.seed = seed,
		.reorder = seed % 2 == 0,
		.delay_steps = (uint32_t)(seed % 4),
		.garbage_buffers = seed % 3 == 0,
		.quiesce_every = seed % 5 == 0 ? 50 : 0,
	};

	rig_init(&rig, options);
	fake_store_set_plan(rig.store, &plan);
	for (uint32_t round = 0; round < 4; round++) {
		rig_random(&rig, 250, 1 + (uint32_t)(seed * 7 % RIG_SLOTS_MAX));
		rig_check_space(&rig);
		if (round % 2 == 1)
			rig_reopen(&rig);
		rig_verify(&rig);
	}
	cr_assert_eq(rig.failures, 0);
	rig_fini(&rig);
}

Test(vhdx_io, random_requests_against_a_model)
{
	for (uint64_t seed = 1; seed <= 10; seed += depth_stride())
		random_seed(&dynamic, seed);
}

Test(vhdx_io, random_requests_with_4096_byte_sectors_and_larger_blocks)
{
	const struct rig_options options = {
		.kind = DISK_DYNAMIC,
		.size_bytes = 15 * MIB + 4096,
		.block_bytes = 2 << 20,
		.sector_bytes = 4096,
	};

	for (uint64_t seed = 1; seed <= 4; seed += 1 + depth_stride() / 13)
		random_seed(&options, seed);
}

Test(vhdx_io, random_requests_on_a_fixed_image)
{
	for (uint64_t seed = 1; seed <= 4; seed += 1 + depth_stride() / 13)
		random_seed(&fixed, seed);
}

/* A bit of everything, one after the other and side by side. */
static void workload(struct rig *rig)
{
	(void)rig_step(rig, DISK_WRITE, 0, MIB, 4096);
	(void)rig_step(rig, DISK_WRITE, DISK_FUA, 3 * MIB - 4096, 8192);
	(void)rig_step(rig, DISK_WRITE, 0, 4 * MIB, MIB);
	(void)rig_step(rig, DISK_FLUSH, 0, 0, 0);
	(void)rig_step(rig, DISK_UNMAP, 0, 4 * MIB, MIB);
	(void)rig_step(rig, DISK_ZERO, DISK_FUA | DISK_MAY_UNMAP, MIB, MIB);
	(void)rig_step(rig, DISK_FLUSH, 0, 0, 0);
	(void)rig_step(rig, DISK_WRITE, 0, 6 * MIB + 512, 512);
	(void)rig_step(rig, DISK_WRITE, 0, 7 * MIB, MIB);
	(void)rig_step(rig, DISK_ZERO, 0, 6 * MIB, 4096);
	(void)rig_step(rig, DISK_READ, 0, 2 * MIB, 6 * MIB);
	rig_random(rig, 40, 8);
	(void)rig_step(rig, DISK_FLUSH, 0, 0, 0);
}

/* After failures the image works on, or says that it does not and works once opened again. */
static void check_after(struct rig *rig)
{
	const struct fake_store_plan healthy = { .seed = 1 };

	fake_store_set_plan(rig->store, &healthy);
	if (rig_vhdx(rig)->image.failed) {
		/* What was not flushed may be gone. */
		memset(rig->unsure, 1, rig->size_bytes / rig->sector_bytes);
		rig_reopen(rig);
	}
	rig_verify(rig);
	rig_check_space(rig);
	rig_random(rig, 60, 4);
	rig_check_space(rig);
	rig_reopen(rig);
	rig_verify(rig);
}

static uint32_t fail_every(const struct rig_options *options, int code, bool forever)
{
	for (uint64_t k = 1;; k += depth_stride() + k / 40) {
		struct rig rig = { .random = 3, .may_keep = code == -ETIMEDOUT };
		struct fake_store_plan plan = {
			.seed = k,
			.reorder = true,
			.fail_at = k,
			.fail_code = code,
			.fail_forever = forever,
		};
		uint64_t count;

		rig_init(&rig, options);
		fake_store_set_plan(rig.store, &plan);
		workload(&rig);
		count = fake_store_request_count(rig.store);
		check_after(&rig);
		rig_fini(&rig);
		if (count < k)
			return (uint32_t)k;
	}
}

Test(vhdx_io, the_kth_request_of_the_store_fails)
{
	cr_assert_gt(fail_every(&dynamic, -EIO, false), 50);
	cr_assert_gt(fail_every(&dynamic, -ENOSPC, true), 50);
	cr_assert_gt(fail_every(&dynamic, -ETIMEDOUT, false), 50);
	cr_assert_gt(fail_every(&fixed, -EIO, false), 20);
}

Test(vhdx_io, the_kth_allocation_fails)
{
	for (unsigned int k = 0;; k += depth_stride()) {
		struct rig rig = { .random = 3 };
		bool failed;

		rig_init(&rig, &dynamic);
		alloc_fail_at(k);
		(void)rig_do(&rig, DISK_FLUSH, 0, 0, NULL, 0);
		for (uint64_t block = 0; block < 6; block++) {
			static uint8_t bytes[8192];
			int code;

			memset(bytes, 0x5a, sizeof(bytes));
			code = rig_do(&rig, DISK_WRITE, DISK_FUA, block * 2 * MIB + MIB - 4096,
				      bytes, sizeof(bytes));
			cr_assert(code == 0 || code == -ENOMEM, "%d", code);
			if (code == 0) {
				memcpy(rig.model + block * 2 * MIB + MIB - 4096, bytes,
				       sizeof(bytes));
			} else {
				rig.failures++;
				memset(rig.unsure + (block * 2 * MIB + MIB - 4096) / RIG_SECTOR, 1,
				       sizeof(bytes) / RIG_SECTOR);
			}
		}
		(void)rig_do(&rig, DISK_UNMAP, 0, 0, NULL, MIB);
		failed = alloc_fail_done();
		memset(rig.model, 0, MIB);
		memset(rig.unsure, 1, MIB / RIG_SECTOR);
		check_after(&rig);
		rig_fini(&rig);
		if (!failed)
			break;
	}
}

Test(vhdx_io, a_damaged_entry_fails_its_own_requests_only)
{
	static const struct {
		uint64_t entry;
		const char *what;
	} bad[] = {
		{ 4, "an unknown state" },
		{ 5, "an unknown state" },
		{ 6 | 8, "reserved bits" },
		{ 6, "no offset" },
		{ 7 | 20 * MIB, "PARTIAL without a parent" },
		{ 6 | (1ULL << 40), "behind the file" },
		{ 6 | MIB, "over the log" },
		{ 6 | 0xfffffffffff00000ULL, "the largest offset" },
	};
	uint8_t bytes[512] = { 1 };

	for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
		struct rig rig = { .random = 1 };

		rig_init(&rig, &dynamic);
		cr_assert_eq(rig_step(&rig, DISK_WRITE, 0, 2 * MIB, 512), 0);
		rig_poke_entry(&rig, 1, bad[i].entry);
		cr_assert_eq(rig_do(&rig, DISK_READ, 0, MIB, bytes, 512), -EBADMSG, "%s",
			     bad[i].what);
		cr_assert_eq(rig_do(&rig, DISK_WRITE, 0, MIB, bytes, 512), -EBADMSG);
		cr_assert_eq(rig_do(&rig, DISK_ZERO, 0, MIB, NULL, 512), -EBADMSG);
		cr_assert_eq(rig_do(&rig, DISK_UNMAP, 0, MIB, NULL, MIB), -EBADMSG);
		cr_assert_eq(rig_step(&rig, DISK_READ, 0, 2 * MIB, 512), 0);
		cr_assert_not(rig_vhdx(&rig)->image.failed);
		rig_fini(&rig);
	}
}

Test(vhdx_io, an_idle_session_writes_nothing)
{
	const struct fake_store_plan plan = {
		.fail_at = 1,
		.fail_ops = 1U << STORE_WRITE | 1U << STORE_ZERO | 1U << STORE_TRUNCATE |
			    1U << STORE_FLUSH,
	};
	const struct fake_store_plan healthy = { .seed = 1 };
	struct rig rig = { .random = 1 };

	rig_init(&rig, &dynamic);
	fake_store_set_plan(rig.store, &plan);
	cr_assert_eq(rig_step(&rig, DISK_READ, 0, 0, MIB), 0);
	cr_assert_eq(rig_step(&rig, DISK_FLUSH, 0, 0, 0), 0);
	cr_assert_eq(rig_step(&rig, DISK_ZERO, DISK_FUA, 0, 3 * MIB), 0);
	cr_assert_eq(rig_step(&rig, DISK_UNMAP, DISK_FUA, 0, 3 * MIB), 0);
	cr_assert_eq(fake_store_request_count(rig.store), 0);
	fake_store_set_plan(rig.store, &healthy);
	rig_fini(&rig);
}

Test(vhdx_io, fua_alone_when_nothing_is_pending)
{
	const struct fake_store_plan plan = { .fail_ops = 1U << STORE_FLUSH };
	struct rig rig = { .random = 1 };

	rig_init(&rig, &dynamic);
	cr_assert_eq(rig_step(&rig, DISK_WRITE, 0, 0, 4096), 0);
	cr_assert_eq(rig_step(&rig, DISK_FLUSH, 0, 0, 0), 0);
	fake_store_set_plan(rig.store, &plan);
	cr_assert_eq(rig_step(&rig, DISK_WRITE, DISK_FUA, 8192, 4096), 0);
	cr_assert_eq(fake_store_request_count(rig.store), 0, "the store's FUA does");
	cr_assert_eq(rig_step(&rig, DISK_WRITE, DISK_FUA, 5 * MIB, 4096), 0);
	cr_assert_gt(fake_store_request_count(rig.store), 0, "the entry wants a commit");
	rig_fini(&rig);
}

Test(vhdx_io, standby_and_a_failed_image_refuse_writes)
{
	uint8_t bytes[512] = { 0 };
	struct rig rig = { .random = 1 };

	rig_init(&rig, &dynamic);
	image_fail(rig.image, "the test says so");
	rig.failures++;
	cr_assert_eq(rig_do(&rig, DISK_WRITE, 0, 0, bytes, 512), -EIO);
	cr_assert_eq(rig_do(&rig, DISK_FLUSH, 0, 0, NULL, 0), -EIO);
	cr_assert_eq(rig_do(&rig, DISK_READ, 0, 0, bytes, 512), 0);
	rig_reopen(&rig);
	cr_assert_eq(image_vhdx_ops.deactivate(rig.image, NULL), 0);
	cr_assert_eq(rig_do(&rig, DISK_WRITE, 0, 0, bytes, 512), -EROFS);
	cr_assert_eq(rig_do(&rig, DISK_RESIZE, 0, MIB, NULL, 0), -EROFS);
	cr_assert_eq(rig_do(&rig, DISK_FLUSH, 0, 0, NULL, 0), 0);
	cr_assert_eq(rig_do(&rig, DISK_READ, 0, 0, bytes, 512), 0);
	rig_fini(&rig);
}

Test(vhdx_io, map_tells_states_and_stops_when_full)
{
	struct disk_extent extents[16];
	struct rig rig = { .random = 1 };

	rig_init(&rig, &dynamic);
	cr_assert_eq(rig_step(&rig, DISK_WRITE, 0, 0, 2 * MIB), 0);
	cr_assert_eq(rig_step(&rig, DISK_ZERO, DISK_MAY_UNMAP, MIB, MIB), 0);
	cr_assert_eq(rig_step(&rig, DISK_WRITE, 0, 5 * MIB, 512), 0);
	cr_assert_eq(rig_map(&rig, 0, 512, rig.size_bytes - 512, extents, 16), 5);
	cr_assert_eq(extents[0].kind, DISK_EXTENT_DATA);
	cr_assert_eq(extents[0].length_bytes, MIB - 512);
	cr_assert_eq(extents[1].kind, DISK_EXTENT_ZERO);
	cr_assert_eq(extents[2].kind, DISK_EXTENT_UNMAPPED);
	cr_assert_eq(extents[2].length_bytes, 3 * MIB);
	cr_assert_eq(extents[3].kind, DISK_EXTENT_DATA);
	cr_assert_eq(extents[4].kind, DISK_EXTENT_UNMAPPED);
	rig_fini(&rig);
}

/* An unmapped block may show old bytes to others; zeros that a guest asked for may not. */
Test(vhdx_io, zeros_over_an_unmapped_block_are_recorded)
{
	static const struct rig_options options = { .kind = DISK_DYNAMIC,
						    .size_bytes = 8ULL << 20 };
	struct rig rig = { .random = 3 };

	rig_init(&rig, &options);
	cr_assert_eq(rig_step(&rig, DISK_WRITE, 0, MIB, 4096), 0);
	cr_assert_eq(rig_step(&rig, DISK_UNMAP, 0, MIB, MIB), 0);
	cr_assert_eq(vhdx_entry_state(rig_entry(&rig, 1)), VHDX_BLOCK_UNMAPPED);
	cr_assert_eq(rig_step(&rig, DISK_ZERO, DISK_FUA, MIB + 4096, 4096), 0);
	cr_assert_eq(rig_entry(&rig, 1), vhdx_entry_make(VHDX_BLOCK_ZERO, 0));
	rig_verify(&rig);
	rig_fini(&rig);
}
