/* SPDX-License-Identifier: Apache-2.0 */
#include <criterion/criterion.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/bytes.h"
#include "hypervisor/disk/vhdx_journal_priv.h"
#include "tests/support/alloc_fail.h"
#include "tests/support/depth.h"
#include "tests/support/vhdx_rig.h"

#define MIB VHDX_MIB
#define GIB (1024 * MIB)

static const struct rig_options dynamic = {
	.kind = DISK_DYNAMIC,
	.size_bytes = 6 * MIB + 7 * RIG_SECTOR,
};
/* One entry more than a BAT of 1 MiB has room for: it moves. */
static const struct rig_options large = {
	.kind = DISK_DYNAMIC,
	.size_bytes = 127 * GIB,
	.model_bytes = 24 * MIB,
};
#define LARGER (300 * GIB)

static int resize(struct rig *rig, uint64_t size)
{
	int code = rig_do(rig, DISK_RESIZE, 0, size, NULL, 0);

	if (code == 0)
		rig->size_bytes = size < rig->model_bytes ? size : rig->model_bytes;
	return code;
}

static uint64_t size_now(struct rig *rig)
{
	cr_assert_eq(rig_vhdx(rig)->meta.disk_bytes, rig->image->geometry.size_bytes);
	return rig->image->geometry.size_bytes;
}

Test(vhdx_resize, sizes_that_are_refused)
{
	struct rig rig = { .random = 1 };

	rig_init(&rig, &dynamic);
	cr_assert_eq(resize(&rig, 0), -EINVAL);
	cr_assert_eq(resize(&rig, MIB + 1), -EINVAL);
	cr_assert_eq(resize(&rig, VHDX_DISK_BYTES_MAX + RIG_SECTOR), -EINVAL);
	cr_assert_eq(resize(&rig, dynamic.size_bytes), 0, "as it is");
	rig_fini(&rig);
}

Test(vhdx_resize, up_and_down_with_random_requests_between)
{
	struct rig rig = { .random = 4 };

	rig_init(&rig, &dynamic);
	rig_random(&rig, 200, 8);
	for (uint64_t turn = 0; turn < 6; turn++) {
		uint64_t from = rig.size_bytes;
		uint64_t to = from + 3 * MIB + RIG_SECTOR;

		cr_assert_eq(resize(&rig, to), 0);
		rig_verify(&rig);
		rig_random(&rig, 100, 8);
		rig_check_space(&rig);
		/* Free the end, then a part of it goes. */
		cr_assert_eq(rig_step(&rig, DISK_ZERO, DISK_MAY_UNMAP, from, to - from), 0);
		cr_assert_eq(resize(&rig, from + MIB), 0);
		cr_assert_eq(size_now(&rig), from + MIB);
		rig_verify(&rig);
		rig_reopen(&rig);
		cr_assert_eq(size_now(&rig), from + MIB);
		rig_verify(&rig);
		rig_check_space(&rig);
	}
	rig_fini(&rig);
}

Test(vhdx_resize, down_only_when_the_tail_is_free)
{
	struct rig rig = { .random = 1 };
	struct vhdx *vhdx;

	rig_init(&rig, &dynamic);
	vhdx = rig_vhdx(&rig);
	cr_assert_eq(rig_step(&rig, DISK_WRITE, 0, 2 * MIB + 4096, 512), 0);
	cr_assert_eq(rig_step(&rig, DISK_WRITE, 0, 5 * MIB, 512), 0);
	cr_assert_eq(resize(&rig, 4 * MIB), -EBUSY);
	cr_assert_eq(rig_step(&rig, DISK_UNMAP, 0, 5 * MIB, MIB), 0);
	cr_assert_eq(resize(&rig, 2 * MIB + 512), -EBUSY, "bytes in the last block");
	cr_assert_eq(size_now(&rig), dynamic.size_bytes);
	cr_assert_eq(resize(&rig, 2 * MIB + 8192), 0);
	cr_assert_eq(rig_entry(&rig, 5), 0, "UNMAPPED went away");
	cr_assert_eq(vhdx->block_count, 3);
	cr_assert_eq(resize(&rig, 9 * MIB), 0);
	rig_verify(&rig);
	rig_fini(&rig);
}

Test(vhdx_resize, stale_entries_behind_the_end_do_not_come_to_life)
{
	struct rig rig = { .random = 1 };

	rig_init(&rig, &dynamic);
	cr_assert_eq(rig_step(&rig, DISK_WRITE, 0, 0, 2 * MIB), 0);
	rig_poke_entry(&rig, 7, rig_entry(&rig, 0));
	rig_poke_entry(&rig, 1000, 0xdeadbeef);
	cr_assert_eq(resize(&rig, 2000 * MIB), 0);
	cr_assert_eq(rig_entry(&rig, 7), 0);
	cr_assert_eq(rig_entry(&rig, 1000), 0);
	rig_verify(&rig);
	rig_reopen(&rig);
	rig_verify(&rig);
	rig_check_space(&rig);
	rig_fini(&rig);
}

Test(vhdx_resize, the_bat_moves_when_it_has_no_room)
{
	struct rig rig = { .random = 1 };
	uint64_t old_bat;
	uint8_t there[512], seen[512];

	rig_init(&rig, &large);
	memset(there, 0x77, sizeof(there));
	old_bat = rig_vhdx(&rig)->regions.bat.offset_bytes;
	cr_assert_eq(rig_vhdx(&rig)->regions.bat.length_bytes, MIB);
	cr_assert_eq(rig_step(&rig, DISK_WRITE, 0, MIB, 3 * MIB), 0);
	cr_assert_eq(rig_do(&rig, DISK_WRITE, 0, 127 * GIB - 512, there, 512), 0);
	cr_assert_eq(resize(&rig, LARGER), 0);
	cr_assert_neq(rig_vhdx(&rig)->regions.bat.offset_bytes, old_bat);
	cr_assert_eq(rig_vhdx(&rig)->regions.bat.length_bytes, 3 * MIB);
	for (int turn = 0; turn < 2; turn++) {
		rig_verify(&rig);
		cr_assert_eq(rig_do(&rig, DISK_READ, 0, 127 * GIB - 512, seen, 512), 0);
		cr_assert_arr_eq(seen, there, 512);
		cr_assert_eq(rig_do(&rig, DISK_WRITE, 0, LARGER - 512, there, 512), 0);
		cr_assert_eq(rig_step(&rig, DISK_WRITE, 0, (uint64_t)turn * 5 * MIB, 2 * MIB), 0);
		rig_check_space(&rig);
		rig_reopen(&rig);
		cr_assert_eq(size_now(&rig), LARGER);
		cr_assert_eq(rig_do(&rig, DISK_READ, 0, LARGER - 512, seen, 512), 0);
		cr_assert_arr_eq(seen, there, 512);
	}
	rig_fini(&rig);
}

Test(vhdx_resize, a_fixed_image_gets_its_space)
{
	const struct rig_options options = { .kind = DISK_FIXED, .size_bytes = 3 * MIB };
	struct rig rig = { .random = 1 };

	rig_init(&rig, &options);
	rig_random(&rig, 50, 4);
	cr_assert_eq(resize(&rig, 7 * MIB + 512), 0);
	for (uint64_t block = 0; block < 8; block++)
		cr_assert_eq(vhdx_entry_state(rig_entry(&rig, block)), VHDX_BLOCK_FULL);
	rig_verify(&rig);
	rig_random(&rig, 50, 4);
	rig_check_space(&rig);
	rig_reopen(&rig);
	rig_verify(&rig);
	cr_assert_eq(resize(&rig, 2 * MIB), -EBUSY);
	rig_fini(&rig);
}

Test(vhdx_resize, a_child)
{
	const struct rig_options options = {
		.kind = DISK_DIFFERENCING,
		.size_bytes = 4 * MIB + 512,
		.parent_bytes = 4 * MIB + 512,
	};
	struct rig rig = { .random = 1 };

	rig_init(&rig, &options);
	cr_assert_eq(rig_step(&rig, DISK_WRITE, 0, 4 * MIB, 512), 0);
	cr_assert_eq(resize(&rig, 2 * MIB), -EBUSY, "the parent shows there");
	cr_assert_eq(resize(&rig, 8 * MIB), 0);
	rig_verify(&rig);
	rig_random(&rig, 100, 8);
	cr_assert_eq(rig_step(&rig, DISK_ZERO, DISK_MAY_UNMAP, 4 * MIB + 512, 4 * MIB - 512), 0);
	cr_assert_eq(resize(&rig, 5 * MIB), 0);
	rig_reopen(&rig);
	rig_verify(&rig);
	rig_check_space(&rig);
	rig_fini(&rig);
}

static void count_done(struct disk_request *request, int result)
{
	uint32_t *count = request->context;

	cr_assert_eq(result, 0);
	(*count)++;
}

Test(vhdx_resize, requests_in_flight_and_behind_it)
{
	const struct fake_store_plan plan = { .seed = 4, .reorder = true, .delay_steps = 5 };
	struct disk_request requests[20];
	struct rig rig = { .random = 1 };
	uint8_t bytes[4096];
	struct iovec iov = { .iov_base = bytes, .iov_len = sizeof(bytes) };
	uint32_t count = 0;

	rig_init(&rig, &large);
	fake_store_set_plan(rig.store, &plan);
	memset(bytes, 0x66, sizeof(bytes));
	for (uint64_t i = 0; i < 20; i++) {
		requests[i] = (struct disk_request){
			.op = i == 10 ? DISK_RESIZE : DISK_WRITE,
			.offset_bytes = i == 10 ? LARGER : i * MIB,
			.length_bytes = i == 10 ? 0 : sizeof(bytes),
			.iov = &iov,
			.iov_count = 1,
			.done = count_done,
			.context = &count,
		};
		rig.image->ops->submit(rig.image, &requests[i]);
		if (i != 10)
			memcpy(rig.model + i * MIB, bytes, sizeof(bytes));
	}
	while (count < 20)
		(void)base_io_loop_step(rig.loop, false);
	rig_verify(&rig);
	rig_check_space(&rig);
	rig_reopen(&rig);
	rig_verify(&rig);
	rig_fini(&rig);
}

/* Whatever fails: the old size or the new, in this session and in the next. */
static void fail_every(const struct rig_options *options, uint64_t size, int code)
{
	bool more = true;

	for (uint64_t k = 1; more; k += depth_stride()) {
		const struct fake_store_plan healthy = { .seed = 1 };
		struct rig rig = { .random = 3, .may_keep = code == -ETIMEDOUT };
		struct fake_store_plan plan = { .seed = k, .fail_at = k, .fail_code = code };

		rig_init(&rig, options);
		cr_assert_eq(rig_step(&rig, DISK_WRITE, 0, MIB, 2 * MIB), 0);
		cr_assert_eq(rig_step(&rig, DISK_FLUSH, 0, 0, 0), 0);
		fake_store_set_plan(rig.store, &plan);
		if (resize(&rig, size) < 0) {
			rig.failures++;
			cr_assert_eq(size_now(&rig), options->size_bytes);
		} else {
			cr_assert_eq(size_now(&rig), size);
		}
		more = fake_store_request_count(rig.store) >= k;
		cr_assert(more || k > 3);
		fake_store_set_plan(rig.store, &healthy);
		rig_verify(&rig);
		if (!rig.image->failed)
			rig_check_space(&rig);
		rig_reopen(&rig);
		cr_assert(size_now(&rig) == size || size_now(&rig) == options->size_bytes);
		rig.size_bytes = size_now(&rig);
		if (rig.size_bytes > rig.model_bytes)
			rig.size_bytes = rig.model_bytes;
		rig_verify(&rig);
		cr_assert_eq(resize(&rig, size), 0);
		rig_verify(&rig);
		rig_check_space(&rig);
		rig_fini(&rig);
	}
}

Test(vhdx_resize, the_kth_request_of_the_store_fails)
{
	const struct rig_options fixed = { .kind = DISK_FIXED, .size_bytes = 3 * MIB };

	fail_every(&dynamic, 30 * MIB, -EIO);
	fail_every(&dynamic, 4 * MIB, -EIO);
	fail_every(&large, LARGER, -EIO);
	fail_every(&large, LARGER, -ETIMEDOUT);
	fail_every(&fixed, 8 * MIB, -EIO);
	fail_every(&fixed, 8 * MIB, -ENOSPC);
}

Test(vhdx_resize, the_kth_allocation_fails)
{
	bool failed = true;

	for (unsigned int k = 0; failed; k += depth_stride()) {
		struct rig rig = { .random = 3 };
		int code;

		rig_init(&rig, &large);
		cr_assert_eq(rig_step(&rig, DISK_WRITE, 0, MIB, 2 * MIB), 0);
		alloc_fail_at(k);
		code = resize(&rig, LARGER);
		failed = alloc_fail_done();
		cr_assert(code == 0 || code == -ENOMEM || code == -EIO, "%d", code);
		rig.failures++;
		rig_verify(&rig);
		rig_reopen(&rig);
		rig_verify(&rig);
		cr_assert_eq(resize(&rig, LARGER), 0);
		rig_check_space(&rig);
		rig_fini(&rig);
	}
}

/* Power fails at every point: the old size or the new, and the bytes that were flushed. */
static void crash_every(const struct rig_options *options, uint64_t size)
{
	struct rig rig = { .random = 3 };
	struct base_error err = { 0 };
	uint64_t count;
	uint32_t old_seen = 0, new_seen = 0;

	rig_init(&rig, options);
	cr_assert_eq(rig_step(&rig, DISK_WRITE, 0, MIB, 2 * MIB), 0);
	cr_assert_eq(rig_step(&rig, DISK_FLUSH, 0, 0, 0), 0);
	cr_assert_eq(fake_store_record(rig.store, &err), 0);
	cr_assert_eq(resize(&rig, size), 0);
	count = fake_store_event_count(rig.store);
	for (uint64_t point = 0; point < (count + 1) * 4; point += 1 + depth_stride() / 6) {
		enum fake_store_loss loss = FAKE_LOSE_NONE + point % 4;
		uint64_t at = point / 4;
		struct rig crashed = rig;
		uint64_t now;

		crashed.image = NULL;
		crashed.store = NULL;
		cr_assert_eq(fake_store_crash(rig.store, at, loss, at, &crashed.store, &err), 0);
		rig_reopen(&crashed);
		now = size_now(&crashed);
		cr_assert(now == size || now == options->size_bytes);
		old_seen += now == options->size_bytes;
		new_seen += now == size;
		crashed.size_bytes = 3 * MIB;
		rig_verify(&crashed);
		cr_assert_eq(image_vhdx_ops.deactivate(crashed.image, NULL), 0);
		image_vhdx_ops.close(crashed.image);
		store_free(crashed.store);
	}
	cr_assert(old_seen > 0 && new_seen > 0);
	rig_fini(&rig);
}

Test(vhdx_resize, power_fails_at_every_point)
{
	crash_every(&dynamic, 30 * MIB);
	crash_every(&large, LARGER);
}

/* Behind the disk's end another writer may have left bytes, and its file may end there. */
Test(vhdx_resize, what_lies_behind_the_end_of_the_last_block_is_zero_when_it_shows)
{
	for (int cut = 0; cut < 2; cut++) {
		struct rig rig = { .random = 9 };
		uint8_t bytes[RIG_SECTOR];
		uint64_t place;
		uint64_t end = 6 * MIB + 7 * RIG_SECTOR;
		uint64_t visible = 7 * RIG_SECTOR;

		rig_init(&rig, &dynamic);
		cr_assert_eq(rig_step(&rig, DISK_WRITE, DISK_FUA, 6 * MIB, visible), 0);
		rig_reopen(&rig);
		place = vhdx_entry_offset(rig_entry(&rig, 6));
		memset(bytes, 0xee, sizeof(bytes));
		cr_assert(fake_store_poke(rig.store, RIG_NAME, place + visible, bytes,
					  sizeof(bytes)));
		if (cut != 0) { /* as it would have been opened */
			cr_assert_eq(place + MIB, rig_vhdx(&rig)->file_bytes);
			rig_vhdx(&rig)->file_bytes = place + visible;
			rig_vhdx(&rig)->space->begin_bytes = place + MIB;
		}
		cr_assert_eq(resize(&rig, end + 3 * RIG_SECTOR), 0);
		cr_assert_geq(rig_vhdx(&rig)->file_bytes, place + visible + 3 * RIG_SECTOR);
		cr_assert_eq(rig_do(&rig, DISK_READ, 0, end, bytes, sizeof(bytes)), 0);
		cr_assert(base_is_zero(bytes, sizeof(bytes)));
		rig_verify(&rig);
		rig_fini(&rig);
	}
}
