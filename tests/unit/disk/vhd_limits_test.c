/* SPDX-License-Identifier: Apache-2.0 */
/* VHD where something runs out or fails: memory, time, room for what is dirty, flushes. */
#include <criterion/criterion.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "hypervisor/disk/vhd_priv.h"
#include "tests/support/alloc_fail.h"
#include "tests/support/image_rig.h"

#define MIB   (1ULL << 20)
#define BLOCK (512U << 10)
#define NAME  "disk.vhd"
#define TABLE 1536 /* where the block table of a dynamic disk is */

static const struct image_ops *const ops = &image_vhd_ops;

static void make(struct image_rig *rig, enum disk_kind kind, uint64_t size_bytes, uint32_t block)
{
	const struct disk_create_options options = { .kind = kind,
						     .size_bytes = size_bytes,
						     .block_bytes =
							     kind == DISK_FIXED ? 0 : block };
	struct base_error err = { 0 };

	if (rig->loop == NULL)
		image_rig_init(rig);
	cr_assert_eq(image_rig_create(rig, ops, NAME, &options, NULL, &err), 0, "%s", err.text);
}

static struct disk_check_result whole(struct image *image)
{
	struct disk_check_result result = { 0 };
	struct base_error err = { 0 };

	cr_assert_eq(ops->check(image, false, NULL, NULL, &result, &err), 0, "%s", err.text);
	cr_assert_eq(result.damages, 0);
	return result;
}

static void clean(struct image *image)
{
	cr_assert_eq(whole(image).leaks, 0);
}

/* --- many requests at once --- */

struct batch {
	struct image *image;
	struct disk_request *requests;
	struct iovec iov;
	uint32_t count;
	uint32_t left;
	int result; /* the first failure */
	bool done;
};

static void batch_one_done(struct disk_request *request, int result)
{
	struct batch *batch = request->context;

	if (batch->result == 0)
		batch->result = result;
	if (--batch->left == 0)
		base_io_done(batch->image->loop, &batch->done);
}

/* A sector of @data into each of @count places, @stride_bytes apart. */
static void batch_write(struct batch *batch, struct image *image, uint8_t *data, uint32_t count,
			uint64_t stride_bytes)
{
	*batch = (struct batch){ .image = image,
				 .requests = calloc(count, sizeof(*batch->requests)),
				 .iov = { data, 512 },
				 .count = count,
				 .left = count };
	cr_assert_not_null(batch->requests);
	for (uint32_t i = 0; i < count; i++) {
		batch->requests[i] = (struct disk_request){ .op = DISK_WRITE,
							    .offset_bytes = i * stride_bytes,
							    .length_bytes = 512,
							    .iov = &batch->iov,
							    .iov_count = 1,
							    .done = batch_one_done,
							    .context = batch };
		ops->submit(image, &batch->requests[i]);
	}
}

static void batch_wait(struct batch *batch)
{
	base_io_wait(batch->image->loop, &batch->done);
	cr_assert_eq(batch->result, 0);
	free(batch->requests);
}

/* Until nothing is ready any more. */
static void pump(struct base_io_loop *loop)
{
	while (base_io_loop_step(loop, false))
		;
}

/* --- memory --- */

static const struct {
	enum disk_op op;
	uint64_t offset;
	uint64_t length;
} steps[] = {
	{ DISK_WRITE, 0, 4096 },     { DISK_WRITE, 3 * BLOCK - 2048, 4096 }, /* over two blocks */
	{ DISK_FLUSH, 0, 0 },        { DISK_WRITE, 512, 1024 },
	{ DISK_ZERO, BLOCK, 2048 },  { DISK_READ, 0, 4096 },
	{ DISK_MAP, 0, 4 * MIB },    { DISK_UNMAP, 2 * BLOCK, BLOCK },
	{ DISK_RESIZE, 5 * MIB, 0 }, { DISK_WRITE, 3 * MIB, 4096 },
	{ DISK_FLUSH, 0, 0 },
};

static int step_do(struct image *image, size_t at, uint8_t *data, struct disk_extent *extents)
{
	static const uint64_t no_length[DISK_OPS] = { [DISK_FLUSH] = 1, [DISK_RESIZE] = 1 };
	bool has_data = steps[at].op == DISK_READ || steps[at].op == DISK_WRITE;

	if (steps[at].op == DISK_MAP)
		return image_rig_try_map(image, 0, extents, 16);
	memset(data, 7, 4096);
	return image_rig_do(image, steps[at].op, 0, steps[at].offset, has_data ? data : NULL,
			    no_length[steps[at].op] != 0 ? 0 : steps[at].length);
}

/* Opens, runs all steps and closes; what failed once is tried again, and must then work. */
static void run_with_failures(struct image_rig *rig, const char *name, struct image *parent,
			      unsigned int skip, bool *ret_failed)
{
	struct disk_extent extents[16];
	struct base_error err = { 0 };
	struct image *image = NULL;
	uint8_t *data = aligned_alloc(512, 4096);
	bool failed = false;
	int code;

	alloc_fail_at(skip);
	code = image_rig_open(rig, ops, name, &image, &err);
	if (code < 0) {
		cr_assert_eq(code, -ENOMEM);
		code = image_rig_open(rig, ops, name, &image, &err);
	}
	cr_assert_eq(code, 0);
	code = ops->activate(image, STORE_EPOCH_NONE, NULL, &err);
	if (code < 0) {
		cr_assert_eq(code, -ENOMEM, "%s", err.text);
		code = ops->activate(image, STORE_EPOCH_NONE, NULL, &err);
	}
	cr_assert_eq(code, 0, "%s", err.text);
	image->parent = parent;
	for (size_t i = 0; i < sizeof(steps) / sizeof(steps[0]); i++) {
		code = step_do(image, i, data, extents);
		if (code < 0) {
			cr_assert_eq(code, -ENOMEM, "step %zu: %d", i, code);
			code = step_do(image, i, data, extents);
		}
		cr_assert(code == 0 || image->failed, "step %zu: %d", i, code);
		if (image->failed)
			break; /* the store had no memory for a flush: that is for good */
	}
	code = ops->deactivate(image, &err);
	cr_assert(code == 0 || code == -ENOMEM || image->failed, "%d %s", code, err.text);
	failed = alloc_fail_done();
	ops->close(image);
	free(data);
	*ret_failed = failed;
}

Test(vhd_limits, every_allocation_may_fail)
{
	bool failed = true;
	unsigned int k;

	for (k = 0; failed; k++) {
		struct image_rig rig = { 0 };
		struct base_error err = { 0 };
		struct image *image;

		make(&rig, DISK_DYNAMIC, 4 * MIB, BLOCK);
		run_with_failures(&rig, NAME, NULL, k, &failed);
		image = image_rig_active(&rig, ops, NAME);
		cr_assert(image_rig_is(image, 0, 512, 7), "k %u", k);
		cr_assert(image_rig_is(image, 4 * BLOCK, BLOCK, 0), "k %u", k);
		cr_assert_eq(ops->deactivate(image, &err), 0, "%s", err.text);
		(void)whole(image); /* space that was not cut off may be left */
		ops->close(image);
		image_rig_fini(&rig);
	}
	cr_assert_gt(k, 20);
}

Test(vhd_limits, every_allocation_of_a_child_may_fail)
{
	const struct disk_create_options child = { .kind = DISK_DIFFERENCING,
						   .block_bytes = BLOCK };
	bool failed = true;
	unsigned int k;

	for (k = 0; failed; k++) {
		struct image_rig rig = { 0 };
		struct base_error err = { 0 };
		struct image *parent;
		struct image *image;

		make(&rig, DISK_DYNAMIC, 4 * MIB, BLOCK);
		cr_assert_eq(image_rig_open(&rig, ops, NAME, &parent, &err), 0);
		cr_assert_eq(image_rig_create(&rig, ops, "child.vhd", &child, parent, &err), 0);
		run_with_failures(&rig, "child.vhd", parent, k, &failed);
		image = image_rig_active(&rig, ops, "child.vhd");
		image->parent = parent;
		cr_assert(image_rig_is(image, 0, 512, 7), "k %u", k);
		cr_assert(image_rig_is(image, 7 * BLOCK, BLOCK, 0), "k %u", k);
		cr_assert_eq(ops->deactivate(image, &err), 0, "%s", err.text);
		(void)whole(image); /* space that was not cut off may be left */
		ops->close(image);
		ops->close(parent);
		image_rig_fini(&rig);
	}
	cr_assert_gt(k, 20);
}

/* --- time --- */

Test(vhd_limits, what_is_dirty_is_committed_after_a_second)
{
	struct base_fake_clock time = { .boot_ns = BASE_NS_PER_SECOND };
	struct base_clock clock = base_clock_fake(&time);
	struct base_io_loop_options options = { .clock = &clock, .without_ring = true };
	struct base_error err = { 0 };
	struct image_rig rig = { 0 };
	struct image_rig after;
	struct image *image;
	uint8_t *data = aligned_alloc(512, 512);
	uint8_t entry[4];

	cr_assert_eq(base_io_loop_new(&options, &rig.loop, &err), 0);
	cr_assert_eq(fake_store_new(&rig.store, &err), 0);
	make(&rig, DISK_DYNAMIC, 4 * MIB, BLOCK);
	image = image_rig_active(&rig, ops, NAME);
	cr_assert_eq(fake_store_record(rig.store, &err), 0);
	memset(data, 3, 512);
	cr_assert_eq(image_rig_do(image, DISK_WRITE, 0, 0, data, 512), 0);
	cr_assert_eq(base_io_loop_next_ns(rig.loop), time.boot_ns + VHD_COMMIT_NS);
	time.boot_ns += VHD_COMMIT_NS - 1;
	pump(rig.loop);
	cr_assert(fake_store_peek(rig.store, NAME, TABLE, entry, 4));
	cr_assert_eq(entry[0], 0xff, "not yet");
	time.boot_ns += 1;
	pump(rig.loop);
	cr_assert(fake_store_peek(rig.store, NAME, TABLE, entry, 4));
	cr_assert_eq(entry[0], 0);
	cr_assert_eq(base_io_loop_next_ns(rig.loop), BASE_TIME_NEVER, "nothing is dirty");
	/* And it is durable. */
	after = rig;
	cr_assert_eq(fake_store_crash(rig.store, fake_store_event_count(rig.store), FAKE_LOSE_ALL,
				      1, &after.store, &err),
		     0);
	image_rig_close(image);
	image = image_rig_active(&after, ops, NAME);
	cr_assert(image_rig_is(image, 0, 512, 3));
	image_rig_close(image);
	store_free(after.store);
	image_rig_fini(&rig);
	free(data);
}

/* A commit that fails is tried again a second later. */
Test(vhd_limits, a_commit_that_failed_is_tried_again)
{
	struct base_fake_clock time = { .boot_ns = BASE_NS_PER_SECOND };
	struct base_clock clock = base_clock_fake(&time);
	struct base_io_loop_options options = { .clock = &clock, .without_ring = true };
	struct base_error err = { 0 };
	struct image_rig rig = { 0 };
	struct image *image;
	uint8_t *data = aligned_alloc(512, 512);
	uint8_t entry[4];

	cr_assert_eq(base_io_loop_new(&options, &rig.loop, &err), 0);
	cr_assert_eq(fake_store_new(&rig.store, &err), 0);
	make(&rig, DISK_DYNAMIC, 4 * MIB, BLOCK);
	image = image_rig_active(&rig, ops, NAME);
	memset(data, 3, 512);
	cr_assert_eq(image_rig_do(image, DISK_WRITE, 0, 0, data, 512), 0);
	fake_store_set_plan(rig.store, &(struct fake_store_plan){ .fail_at = 1,
								  .fail_ops = 1U << STORE_WRITE,
								  .fail_code = -ENOSPC });
	cr_assert_eq(image_rig_do(image, DISK_FLUSH, 0, 0, NULL, 0), -ENOSPC);
	cr_assert_not(image->failed);
	time.boot_ns += VHD_COMMIT_NS;
	pump(rig.loop);
	cr_assert(fake_store_peek(rig.store, NAME, TABLE, entry, 4));
	cr_assert_eq(entry[0], 0);
	image_rig_close(image);
	image_rig_fini(&rig);
	free(data);
}

/* --- back-pressure --- */

static void held(struct vhd *vhd)
{
	(void)vhd;
}

Test(vhd_limits, too_many_dirty_blocks_wait_for_a_commit)
{
	const uint32_t count = VHD_DIRTY_MAX + 100;
	struct image_rig rig = { 0 };
	struct batch batch;
	struct image *image;
	struct vhd *vhd;
	uint8_t *data = aligned_alloc(512, 512);

	make(&rig, DISK_DYNAMIC, (uint64_t)count * BLOCK, BLOCK);
	image = image_rig_active(&rig, ops, NAME);
	vhd = vhd_of(image);
	vhd_commit_exclude(vhd, held); /* as a resize does: no commit begins */
	memset(data, 3, 512);
	batch_write(&batch, image, data, count, BLOCK);
	pump(rig.loop);
	cr_assert_eq(vhd->dirty_count, VHD_DIRTY_MAX);
	cr_assert_eq(batch.left, 100, "%u", batch.left);
	cr_assert_not_null(vhd->crowd.head);
	vhd_commit_release(vhd);
	batch_wait(&batch);
	cr_assert_leq(vhd->dirty_count, VHD_DIRTY_MAX);
	for (uint32_t i = 0; i < count; i++)
		cr_assert(image_rig_is(image, (uint64_t)i * BLOCK, 512, 3));
	image_rig_close(image);
	cr_assert_eq(image_rig_open(&rig, ops, NAME, &image, NULL), 0);
	clean(image);
	ops->close(image);
	image_rig_fini(&rig);
	free(data);
}

/* --- large blocks --- */

Test(vhd_limits, large_blocks_agree_with_a_model)
{
	static const uint32_t blocks[] = { 4U << 20, 16U << 20, VHD_BLOCK_MAX };

	for (size_t i = 0; i < sizeof(blocks) / sizeof(blocks[0]); i++) {
		const struct disk_create_options child = { .kind = DISK_DIFFERENCING,
							   .block_bytes = blocks[i] };
		uint64_t size = 40 * MIB + 512;
		uint8_t *model = calloc(1, size / 512);
		struct image_rig rig = { 0 };
		struct base_error err = { 0 };
		struct image *parent;
		struct image *image;

		make(&rig, DISK_DYNAMIC, size, blocks[i]);
		image = image_rig_active(&rig, ops, NAME);
		cr_assert_eq(vhd_of(image)->bitmap_bytes, blocks[i] / 512 / 8);
		cr_assert_eq(image_rig_random(image, model, 5 + i, 150), 0);
		image_rig_close(image);
		cr_assert_eq(image_rig_open(&rig, ops, NAME, &parent, &err), 0);
		clean(parent);
		cr_assert_eq(image_rig_create(&rig, ops, "child.vhd", &child, parent, &err), 0);
		for (uint64_t round = 0; round < 2; round++) {
			image = image_rig_active(&rig, ops, "child.vhd");
			image->parent = parent;
			cr_assert(image_rig_model_holds(image, model));
			cr_assert_eq(image_rig_random(image, model, 50 + i + round, 150), 0);
			cr_assert(image_rig_model_holds(image, model));
			image_rig_close(image);
		}
		ops->close(parent);
		free(model);
		image_rig_fini(&rig);
	}
}

/* --- resize meets requests --- */

Test(vhd_limits, a_resize_goes_well_with_requests_in_flight)
{
	for (int kind = DISK_FIXED; kind <= DISK_DYNAMIC; kind++)
		for (uint64_t seed = 1; seed <= 8; seed++) {
			struct image_rig rig = { 0 };
			struct batch before;
			struct batch after;
			struct image *image;
			struct batch size = { .left = 1 };
			struct disk_request resize = { .op = DISK_RESIZE,
						       .offset_bytes = 32 * MIB,
						       .done = batch_one_done,
						       .context = &size };
			uint8_t *data = aligned_alloc(512, 512);

			make(&rig, (enum disk_kind)kind, 16 * MIB, BLOCK);
			image = image_rig_active(&rig, ops, NAME);
			fake_store_set_plan(rig.store, &(struct fake_store_plan){
							       .seed = seed,
							       .reorder = true,
							       .delay_steps = (uint32_t)seed });
			size.image = image;
			memset(data, 4, 512);
			batch_write(&before, image, data, 32, BLOCK);
			for (uint64_t i = 0; i < seed * 3; i++)
				(void)base_io_loop_step(rig.loop, false);
			ops->submit(image, &resize);
			if (!size.done)
				cr_assert_eq(image_rig_do(image, DISK_RESIZE, 0, 48 * MIB, NULL, 0),
					     -EBUSY, "one at a time");
			batch_write(&after, image, data, 31, BLOCK + 512);
			batch_wait(&before);
			batch_wait(&after);
			base_io_wait(rig.loop, &size.done);
			cr_assert_eq(size.result, 0);
			cr_assert_eq(image->geometry.size_bytes, 32 * MIB);
			cr_assert_eq(image_rig_do(image, DISK_WRITE, 0, 32 * MIB - 512, data, 512),
				     0);
			image_rig_close(image);
			image = image_rig_active(&rig, ops, NAME);
			cr_assert_eq(image->geometry.size_bytes, 32 * MIB);
			for (uint32_t i = 0; i < 31; i++) {
				cr_assert(image_rig_is(image, (uint64_t)i * BLOCK, 512, 4));
				cr_assert(image_rig_is(image, i * (BLOCK + 512ULL), 512, 4));
			}
			cr_assert(image_rig_is(image, 17 * MIB, 14 * MIB, 0));
			image_rig_close(image);
			image_rig_fini(&rig);
			free(data);
		}
}

/* --- flushes that fail --- */

static void fail_flush(struct image_rig *rig, int code)
{
	fake_store_set_plan(rig->store, &(struct fake_store_plan){ .fail_at = 1,
								   .fail_ops = 1U << STORE_FLUSH,
								   .fail_code = code });
}

Test(vhd_limits, a_flush_that_failed_ends_writing_until_it_is_opened_again)
{
	for (int kind = DISK_FIXED; kind <= DISK_DYNAMIC; kind++) {
		struct image_rig rig = { 0 };
		struct base_error err = { 0 };
		struct image *image;
		uint8_t *data = aligned_alloc(512, 512);

		make(&rig, (enum disk_kind)kind, 16 * MIB, BLOCK);
		image = image_rig_active(&rig, ops, NAME);
		memset(data, 4, 512);
		cr_assert_eq(image_rig_do(image, DISK_WRITE, 0, 0, data, 512), 0);
		cr_assert_eq(image_rig_do(image, DISK_FLUSH, 0, 0, NULL, 0), 0);
		fail_flush(&rig, -EIO);
		cr_assert_eq(image_rig_do(image, DISK_WRITE, 0, 512, data, 512), 0);
		cr_assert_eq(image_rig_do(image, DISK_FLUSH, 0, 0, NULL, 0), -EIO);
		cr_assert(image->failed);
		cr_assert_not_null(strstr(image->failed_why, NAME));
		cr_assert_eq(image_rig_do(image, DISK_WRITE, 0, 0, data, 512), -EIO);
		cr_assert_eq(image_rig_do(image, DISK_ZERO, 0, 0, NULL, 512), -EIO);
		cr_assert_eq(image_rig_do(image, DISK_FLUSH, 0, 0, NULL, 0), -EIO);
		cr_assert_eq(image_rig_do(image, DISK_RESIZE, 0, 17 * MIB, NULL, 0), -EIO);
		cr_assert(image_rig_is(image, 0, 512, 4), "reading goes on");
		cr_assert_eq(ops->deactivate(image, &err), -EIO);
		cr_assert_not_null(strstr(err.text, "flush"), "%s", err.text);
		cr_assert_eq(ops->activate(image, STORE_EPOCH_NONE, NULL, &err), 0, "%s", err.text);
		cr_assert_not(image->failed);
		cr_assert(image_rig_is(image, 0, 512, 4));
		cr_assert_eq(image_rig_do(image, DISK_WRITE, DISK_FUA, 0, data, 512), 0);
		image_rig_close(image);
		image_rig_fini(&rig);
		free(data);
	}
}

/* The growth of the file has a flush of its own. */
Test(vhd_limits, a_failed_flush_of_growth_fails_the_write)
{
	struct image_rig rig = { 0 };
	struct base_error err = { 0 };
	struct image *image;
	uint8_t *data = aligned_alloc(512, 512);

	make(&rig, DISK_DYNAMIC, 16 * MIB, BLOCK);
	image = image_rig_active(&rig, ops, NAME);
	fail_flush(&rig, -EIO);
	memset(data, 4, 512);
	cr_assert_eq(image_rig_do(image, DISK_WRITE, 0, 0, data, 512), -EIO);
	cr_assert(image->failed);
	cr_assert_eq(ops->deactivate(image, &err), -EIO);
	cr_assert_eq(ops->activate(image, STORE_EPOCH_NONE, NULL, &err), 0, "%s", err.text);
	cr_assert(image_rig_is(image, 0, MIB, 0));
	image_rig_close(image);
	image_rig_fini(&rig);
	free(data);
}

Test(vhd_limits, a_store_that_was_away_is_no_failed_flush)
{
	struct image_rig rig = { 0 };
	struct image *image;
	uint8_t *data = aligned_alloc(512, 512);

	make(&rig, DISK_DYNAMIC, 16 * MIB, BLOCK);
	image = image_rig_active(&rig, ops, NAME);
	memset(data, 4, 512);
	cr_assert_eq(image_rig_do(image, DISK_WRITE, 0, 0, data, 512), 0);
	fake_store_set_gone(rig.store, true);
	cr_assert_eq(image_rig_do(image, DISK_FLUSH, 0, 0, NULL, 0), -ENODEV);
	cr_assert_not(image->failed);
	fake_store_set_gone(rig.store, false);
	cr_assert_eq(image_rig_do(image, DISK_FLUSH, 0, 0, NULL, 0), 0);
	image_rig_close(image);
	image = image_rig_active(&rig, ops, NAME);
	cr_assert(image_rig_is(image, 0, 512, 4));
	image_rig_close(image);
	image_rig_fini(&rig);
	free(data);
}
