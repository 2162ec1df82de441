/* SPDX-License-Identifier: Apache-2.0 */
#include "hypervisor/disk/fake_store.h"

#include <criterion/criterion.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "tests/support/alloc_fail.h"

#define SECTOR 512U
#define BATCH  8U

static struct base_io_loop *loop_new(void)
{
	struct base_io_loop_options options = { .without_ring = true };
	struct base_io_loop *loop = NULL;

	cr_assert_eq(base_io_loop_new(&options, &loop, NULL), 0);
	return loop;
}

static struct store *store_new(void)
{
	struct store *store = NULL;

	cr_assert_eq(fake_store_new(&store, NULL), 0);
	return store;
}

static struct store_file *file_open(struct store *store, struct base_io_loop *loop,
				    const char *name, bool create)
{
	struct store_open_options options = {
		.loop = loop,
		.create = create,
		.align_bytes = SECTOR,
	};
	struct base_error err = { .code = 0 };
	struct store_file *file = NULL;

	cr_assert_eq(store_open(store, name, &options, &file, &err), 0, "%s", err.text);
	return file;
}

static struct store_file *file_make(struct store *store, struct base_io_loop *loop,
				    const char *name)
{
	struct store_file *file = file_open(store, loop, name, true);

	cr_assert_eq(store_acquire(file, 1, NULL, NULL, NULL), 0);
	return file;
}

static void put(struct store_file *file, uint64_t offset_bytes, int value, uint64_t length_bytes)
{
	void *data = malloc(length_bytes);

	memset(data, value, length_bytes);
	cr_assert_eq(store_do(file, STORE_WRITE, offset_bytes, data, length_bytes, NULL), 0);
	free(data);
}

static void flush(struct store_file *file)
{
	cr_assert_eq(store_do(file, STORE_FLUSH, 0, NULL, 0, NULL), 0);
}

/* The first byte of a sector; all of it must be the same. */
static int sector_of(const struct store *store, const char *name, uint64_t offset_bytes)
{
	uint8_t data[SECTOR];

	cr_assert(fake_store_peek(store, name, offset_bytes, data, SECTOR));
	for (uint32_t i = 1; i < SECTOR; i++)
		cr_assert_eq(data[i], data[0]);
	return data[0];
}

static uint64_t size_of(const struct store *store, const char *name)
{
	uint64_t bytes = 0;

	cr_assert(fake_store_file_bytes(store, name, &bytes));
	return bytes;
}

/* --- several requests at once --- */

struct batch {
	struct base_io_loop *loop;
	struct store_request requests[BATCH];
	struct iovec iovs[BATCH];
	uint8_t data[BATCH][SECTOR];
	uint32_t order[BATCH]; /* in which they ended */
	uint32_t count;
	bool done;
};

static void batch_done(struct store_request *request, int result)
{
	struct batch *batch = request->context;

	cr_assert_eq(request->result, result);
	batch->order[batch->count++] = (uint32_t)(request - batch->requests);
	if (batch->count == BATCH)
		base_io_done(batch->loop, &batch->done);
}

static void batch_begin(struct batch *batch, struct store_file *file, enum store_op op)
{
	batch->loop = store_loop(file);
	for (uint32_t i = 0; i < BATCH; i++) {
		memset(batch->data[i], (int)i + 1, SECTOR);
		batch->iovs[i] = (struct iovec){ batch->data[i], SECTOR };
		batch->requests[i] = (struct store_request){
			.op = op,
			.epoch = store_epoch(file),
			.offset_bytes = (uint64_t)i * SECTOR,
			.length_bytes = SECTOR,
			.iov = &batch->iovs[i],
			.iov_count = 1,
			.done = batch_done,
			.context = batch,
		};
		store_submit(file, &batch->requests[i]);
	}
}

static void batch_wait(struct batch *batch)
{
	base_io_wait(batch->loop, &batch->done);
	cr_assert_eq(batch->count, BATCH);
}

static bool in_order(const struct batch *batch)
{
	for (uint32_t i = 0; i < BATCH; i++)
		if (batch->order[i] != i)
			return false;
	return true;
}

/* --- content --- */

Test(fake_store, sparse_content_reads_back)
{
	struct base_io_loop *loop = loop_new();
	struct store *store = store_new();
	struct store_file *file = file_make(store, loop, "a");
	const uint64_t far_bytes = (64ULL << 40) - SECTOR;
	static uint8_t data[4 * SECTOR];

	put(file, 65536 - SECTOR, 0x11, 2 * SECTOR);
	put(file, far_bytes, 0x22, SECTOR);
	cr_assert_eq(size_of(store, "a"), 64ULL << 40);
	cr_assert_eq(store_do(file, STORE_READ, 65536 - 2 * SECTOR, data, sizeof(data), NULL), 0);
	cr_assert_eq(data[0], 0);
	cr_assert_eq(data[SECTOR], 0x11);
	cr_assert_eq(data[3 * SECTOR - 1], 0x11);
	cr_assert_eq(data[3 * SECTOR], 0);
	cr_assert_eq(sector_of(store, "a", far_bytes), 0x22);
	cr_assert_eq(sector_of(store, "a", 1ULL << 40), 0);
	memset(data, 0xff, sizeof(data)); /* past the end */
	cr_assert_eq(store_do(file, STORE_READ, 64ULL << 40, data, SECTOR, NULL), 0);
	cr_assert_eq(data[0], 0);
	store_close(file);
	store_free(store);
	base_io_loop_free(loop);
}

Test(fake_store, two_files_of_one_name_share_content)
{
	struct base_io_loop *loop = loop_new();
	struct store *store = store_new();
	struct store_file *file = file_make(store, loop, "a");
	struct store_file *reader = file_open(store, loop, "a", false);
	uint8_t data[SECTOR];

	put(file, 0, 0x33, SECTOR);
	cr_assert_eq(store_do(reader, STORE_READ, 0, data, SECTOR, NULL), 0);
	cr_assert_eq(data[7], 0x33);
	cr_assert_eq(store_do(reader, STORE_WRITE, 0, data, SECTOR, NULL), -EROFS);
	store_close(reader);
	store_close(file);
	store_free(store);
	base_io_loop_free(loop);
}

Test(fake_store, zero_punch_truncate_and_ranges)
{
	struct base_io_loop *loop = loop_new();
	struct store *store = store_new();
	struct store_file *file = file_make(store, loop, "a");
	struct store_range ranges[8];
	struct batch batch = { .loop = loop, .count = BATCH - 1 };
	struct store_request *request = &batch.requests[0];

	put(file, 0, 0x44, 256 << 10);
	cr_assert_eq(store_do(file, STORE_ZERO, SECTOR, NULL, SECTOR, NULL), 0);
	cr_assert_eq(store_do(file, STORE_PUNCH, 8192, NULL, 65536 + 4096 + SECTOR, NULL), 0);
	cr_assert_eq(sector_of(store, "a", 0), 0x44);
	cr_assert_eq(sector_of(store, "a", SECTOR), 0);
	cr_assert_eq(sector_of(store, "a", 2 * SECTOR), 0x44);
	cr_assert_eq(sector_of(store, "a", 8192 + 65536 + 4096), 0);
	cr_assert_eq(sector_of(store, "a", 8192 + 65536 + 4096 + SECTOR), 0x44);
	cr_assert_eq(store_do(file, STORE_TRUNCATE, 100 << 10, NULL, 0, NULL), 0);
	cr_assert_eq(store_do(file, STORE_TRUNCATE, 1 << 20, NULL, 0, NULL), 0);
	cr_assert_eq(size_of(store, "a"), 1 << 20);
	cr_assert_eq(sector_of(store, "a", 100 << 10), 0);
	*request = (struct store_request){ .op = STORE_RANGES,
					   .epoch = store_epoch(file),
					   .length_bytes = 1 << 20,
					   .ranges = ranges,
					   .range_capacity = 8,
					   .done = batch_done,
					   .context = &batch };
	store_submit(file, request);
	batch_wait(&batch);
	cr_assert_eq(request->range_count, 4);
	cr_assert(ranges[0].data && ranges[0].length_bytes == 8192);
	cr_assert(!ranges[1].data && ranges[1].length_bytes == 65536 + 4096);
	cr_assert(ranges[2].data && ranges[2].offset_bytes == 8192 + 65536 + 4096);
	cr_assert(!ranges[3].data && ranges[3].offset_bytes == 100 << 10);
	cr_assert_eq(ranges[3].length_bytes, (1 << 20) - (100 << 10));
	store_close(file);
	store_free(store);
	base_io_loop_free(loop);
}

Test(fake_store, capacity_counts_pages)
{
	struct fake_store_plan plan = { .capacity_bytes = 16384 };
	struct base_io_loop *loop = loop_new();
	struct store *store = store_new();
	struct store_file *file = file_make(store, loop, "a");
	static uint8_t data[8192];
	uint64_t free_bytes = 0;

	fake_store_set_plan(store, &plan);
	put(file, 0, 1, SECTOR);
	put(file, 4096 - SECTOR, 1, 2 * SECTOR);
	cr_assert_eq(store_free_space(store, &free_bytes, NULL), 0);
	cr_assert_eq(free_bytes, 8192);
	cr_assert_eq(store_do(file, STORE_ALLOCATE, 1 << 20, NULL, 4096, NULL), 0);
	cr_assert_eq(store_do(file, STORE_WRITE, 65536, data, 8192, NULL), -ENOSPC);
	cr_assert_eq(store_do(file, STORE_ALLOCATE, 65536, NULL, 8192, NULL), -ENOSPC);
	cr_assert_eq(store_do(file, STORE_WRITE, 0, data, 8192, NULL), 0, "an overwrite fits");
	cr_assert_eq(store_do(file, STORE_PUNCH, 0, NULL, 4096, NULL), 0);
	cr_assert_eq(store_do(file, STORE_WRITE, 65536, data, 8192, NULL), 0);
	store_close(file);
	store_free(store);
	base_io_loop_free(loop);
}

Test(fake_store, import_and_export)
{
	struct base_io_loop *loop = loop_new();
	struct store *store = store_new();
	struct store_file *file = file_make(store, loop, "a");
	char path[] = "/tmp/fake-store-XXXXXX";
	int fd = mkstemp(path);

	cr_assert_geq(fd, 0);
	put(file, 1 << 20, 0x55, SECTOR);
	cr_assert_eq(store_do(file, STORE_TRUNCATE, 3 << 20, NULL, 0, NULL), 0);
	cr_assert_eq(fake_store_export(store, "a", path, NULL), 0);
	cr_assert_eq(fake_store_export(store, "none", path, NULL), -ENOENT);
	cr_assert_eq(fake_store_import(store, "b", path, NULL), 0);
	cr_assert_eq(fake_store_import(store, "b", "/none/of/this", NULL), -ENOENT);
	cr_assert_eq(size_of(store, "b"), 3 << 20);
	cr_assert_eq(sector_of(store, "b", 1 << 20), 0x55);
	cr_assert_eq(sector_of(store, "b", 2 << 20), 0);
	(void)unlink(path);
	(void)close(fd);
	store_close(file);
	store_free(store);
	base_io_loop_free(loop);
}

Test(fake_store, clone_is_its_own)
{
	struct base_io_loop *loop = loop_new();
	struct store *store = store_new();
	struct store *copy = NULL;
	struct store_file *file = file_make(store, loop, "a");
	struct store_lease lease;
	uint8_t data[SECTOR];

	put(file, 0, 1, SECTOR);
	cr_assert_eq(fake_store_clone(store, &copy, NULL), 0);
	put(file, 0, 2, SECTOR);
	memset(data, 3, SECTOR);
	cr_assert(fake_store_poke(copy, "a", SECTOR, data, SECTOR));
	cr_assert_not(fake_store_poke(copy, "b", SECTOR, data, SECTOR));
	cr_assert_not(fake_store_peek(copy, "b", SECTOR, data, SECTOR));
	cr_assert_eq(sector_of(copy, "a", 0), 1);
	cr_assert_eq(sector_of(copy, "a", SECTOR), 3);
	cr_assert_eq(sector_of(store, "a", 0), 2);
	cr_assert_eq(sector_of(store, "a", SECTOR), 0);
	cr_assert_eq(store_lease(copy, "a", &lease, NULL), 0);
	cr_assert(!lease.held && lease.epoch == 1);
	store_free(copy);
	store_close(file);
	store_free(store);
	base_io_loop_free(loop);
}

/* --- names --- */

static int count_names(void *context, const char *name, uint64_t size_bytes)
{
	char *text = context;

	(void)sprintf(text + strlen(text), "%s=%d ", name, (int)size_bytes);
	return 0;
}

Test(fake_store, names)
{
	struct store_open_options options = { .align_bytes = SECTOR };
	struct base_io_loop *loop = loop_new();
	struct store *store = store_new();
	struct store_file *file;
	struct store_file *other = NULL;
	char text[256] = "";

	options.loop = loop;
	store_close(file_make(store, loop, "vm/a"));
	store_close(file_make(store, loop, "vm/deep/c"));
	file = file_make(store, loop, "top");
	put(file, 0, 1, SECTOR);
	cr_assert_eq(store_open(store, "none", &options, &other, NULL), -ENOENT);
	cr_assert_eq(store_open(store, "vm", &options, &other, NULL), -EISDIR);
	cr_assert_eq(store_open(store, "../x", &options, &other, NULL), -EINVAL);
	options.create = true;
	cr_assert_eq(store_open(store, "top", &options, &other, NULL), -EEXIST);
	cr_assert_eq(store_rename(store, "none", "vm/a", NULL), -ENOENT);
	cr_assert_eq(store_remove(store, "none", NULL), -ENOENT);
	cr_assert_eq(store_rename(store, "top", "vm/a", NULL), 0);
	cr_assert_eq(store_list(store, "vm", count_names, text, NULL), 0);
	cr_assert_str_eq(text, "a=512 ");
	put(file, 0, 2, SECTOR); /* an open file goes along */
	cr_assert_eq(sector_of(store, "vm/a", 0), 2);
	cr_assert_eq(store_remove(store, "vm/a", NULL), 0);
	put(file, 0, 3, SECTOR);
	text[0] = '\0';
	cr_assert_eq(store_list(store, "", count_names, text, NULL), 0);
	cr_assert_str_eq(text, "");
	store_close(file);
	store_free(store);
	base_io_loop_free(loop);
}

/* --- owners --- */

Test(fake_store, one_writer)
{
	struct base_io_loop *loop = loop_new();
	struct store *store = store_new();
	struct store_file *old = file_open(store, loop, "a", true);
	struct store_file *new = file_open(store, loop, "a", false);
	struct store_proof proof = { .fence = STORE_FENCE_DEAD, .epoch = 6 };
	struct base_error err = { .code = 0 };
	struct store_lease lease;
	uint8_t data[SECTOR] = { 1 };
	uint64_t epoch = 0;

	cr_assert_eq(store_do(old, STORE_WRITE, 0, data, SECTOR, NULL), -EROFS);
	cr_assert_eq(store_acquire(old, 7, NULL, &epoch, NULL), 0);
	cr_assert_eq(epoch, 7);
	cr_assert_eq(store_acquire(new, 6, NULL, NULL, &err), -ESTALE);
	cr_assert(strstr(err.text, "6") != NULL && strstr(err.text, "7") != NULL);
	cr_assert_eq(store_acquire(new, 8, NULL, NULL, &err), -EBUSY);
	cr_assert_not_null(strstr(err.text, "file 1"));
	cr_assert_eq(store_acquire(new, 8, &proof, NULL, NULL), -EBUSY, "not the fenced epoch");
	cr_assert_eq(store_lease(store, "a", &lease, NULL), 0);
	cr_assert(lease.held && lease.epoch == 7 && lease.holder[0] != '\0');
	proof.epoch = 7;
	proof.fence = STORE_FENCE_RELEASED;
	cr_assert_eq(store_acquire(new, 8, &proof, NULL, NULL), -EBUSY, "it did not give it back");
	proof.fence = STORE_FENCE_EXPIRED;
	cr_assert_eq(store_acquire(new, 8, &proof, NULL, NULL), 0);
	cr_assert_eq(store_do(old, STORE_WRITE, 0, data, SECTOR, NULL), -ESTALE);
	cr_assert_eq(store_do(old, STORE_READ, 0, data, SECTOR, NULL), -ESTALE);
	cr_assert_eq(store_do(new, STORE_WRITE, 0, data, SECTOR, NULL), 0);
	cr_assert_eq(store_release(old, NULL), -ESTALE);
	cr_assert_eq(store_release(new, NULL), 0);
	cr_assert_eq(store_acquire(old, STORE_EPOCH_NONE, NULL, &epoch, NULL), 0);
	cr_assert_eq(epoch, 8);
	store_close(old);
	cr_assert_eq(store_lease(store, "a", &lease, NULL), 0);
	cr_assert(!lease.held && lease.epoch == 8);
	store_close(new);
	store_free(store);
	base_io_loop_free(loop);
}

/* What is in flight when another takes over has no effect. */
Test(fake_store, takeover_in_flight)
{
	struct store_proof proof = { .fence = STORE_FENCE_DEAD, .epoch = 1 };
	struct base_io_loop *loop = loop_new();
	struct store *store = store_new();
	struct store_file *old = file_make(store, loop, "a");
	struct store_file *new = file_open(store, loop, "a", false);
	struct batch batch = { .count = 0 };

	batch_begin(&batch, old, STORE_WRITE);
	cr_assert_eq(store_acquire(new, 2, &proof, NULL, NULL), 0);
	batch_wait(&batch);
	for (uint32_t i = 0; i < BATCH; i++)
		cr_assert_eq(batch.requests[i].result, -ESTALE);
	cr_assert_eq(size_of(store, "a"), 0);
	store_close(old);
	store_close(new);
	store_free(store);
	base_io_loop_free(loop);
}

/* --- the plan --- */

Test(fake_store, order_without_a_plan)
{
	struct base_io_loop *loop = loop_new();
	struct store *store = store_new();
	struct store_file *file = file_make(store, loop, "a");
	struct batch batch = { .count = 0 };

	batch_begin(&batch, file, STORE_WRITE);
	cr_assert_eq(batch.count, 0, "never within submit");
	batch_wait(&batch);
	cr_assert(in_order(&batch));
	store_close(file);
	store_free(store);
	base_io_loop_free(loop);
}

Test(fake_store, reorder_is_the_same_for_a_seed)
{
	uint32_t order[2][BATCH];
	uint32_t mixed = 0;

	for (uint64_t seed = 1; seed <= 20; seed++) {
		for (uint32_t run = 0; run < 2; run++) {
			struct fake_store_plan plan = { .seed = seed,
							.reorder = true,
							.delay_steps = (uint32_t)seed % 4 };
			struct base_io_loop *loop = loop_new();
			struct store *store = store_new();
			struct store_file *file = file_make(store, loop, "a");
			struct batch batch = { .count = 0 };

			fake_store_set_plan(store, &plan);
			batch_begin(&batch, file, STORE_WRITE);
			batch_wait(&batch);
			mixed += !in_order(&batch);
			memcpy(order[run], batch.order, sizeof(batch.order));
			for (uint32_t i = 0; i < BATCH; i++)
				cr_assert_eq(sector_of(store, "a", (uint64_t)i * SECTOR),
					     (int)i + 1);
			store_close(file);
			store_free(store);
			base_io_loop_free(loop);
		}
		cr_assert_arr_eq(order[0], order[1], sizeof(order[0]));
	}
	cr_assert_geq(mixed, 30);
}

Test(fake_store, delay_keeps_the_order)
{
	struct fake_store_plan plan = { .seed = 3, .delay_steps = 5 };
	struct base_io_loop *loop = loop_new();
	struct store *store = store_new();
	struct store_file *file = file_make(store, loop, "a");
	struct batch batch = { .count = 0 };

	fake_store_set_plan(store, &plan);
	batch_begin(&batch, file, STORE_WRITE);
	(void)base_io_loop_step(loop, false);
	(void)base_io_loop_step(loop, false);
	cr_assert_lt(batch.count, BATCH);
	batch_wait(&batch);
	cr_assert(in_order(&batch));
	store_close(file);
	store_free(store);
	base_io_loop_free(loop);
}

Test(fake_store, the_kth_fails)
{
	struct fake_store_plan plan = { .fail_at = 2, .fail_ops = 1U << STORE_WRITE };
	struct base_io_loop *loop = loop_new();
	struct store *store = store_new();
	struct store_file *file = file_make(store, loop, "a");
	uint8_t data[SECTOR] = { 9 };

	fake_store_set_plan(store, &plan);
	flush(file); /* does not count */
	put(file, 0, 1, SECTOR);
	cr_assert_eq(store_do(file, STORE_WRITE, 0, data, SECTOR, NULL), -EIO);
	cr_assert_eq(sector_of(store, "a", 0), 1);
	put(file, 0, 2, SECTOR);
	cr_assert_eq(fake_store_request_count(store), 3);
	plan = (struct fake_store_plan){ .fail_at = 2, .fail_code = -ENOSPC, .fail_forever = true };
	fake_store_set_plan(store, &plan);
	flush(file);
	cr_assert_eq(store_do(file, STORE_WRITE, 0, data, SECTOR, NULL), -ENOSPC);
	cr_assert_eq(store_do(file, STORE_FLUSH, 0, NULL, 0, NULL), -ENOSPC);
	cr_assert_eq(store_do(file, STORE_READ, 0, data, SECTOR, NULL), -ENOSPC);
	plan = (struct fake_store_plan){ .fail_at = 1,
					 .fail_code = -ETIMEDOUT,
					 .fail_does_it = true };
	fake_store_set_plan(store, &plan);
	memset(data, 9, SECTOR);
	cr_assert_eq(store_do(file, STORE_WRITE, 0, data, SECTOR, NULL), -ETIMEDOUT);
	cr_assert_eq(sector_of(store, "a", 0), 9, "it landed all the same");
	store_close(file);
	store_free(store);
	base_io_loop_free(loop);
}

struct seen {
	int quiesced;
	int resumed;
	int states;
	enum store_state state;
};

static void saw_quiesced(void *context)
{
	((struct seen *)context)->quiesced++;
}

static void saw_resumed(void *context)
{
	((struct seen *)context)->resumed++;
}

static void saw_state(void *context, enum store_state state, const char *reason)
{
	struct seen *seen = context;

	seen->states++;
	seen->state = state;
	cr_assert((state == STORE_DIRECT) == (reason[0] == '\0'));
}

static const struct store_events seen_events = {
	.state = saw_state,
	.quiesced = saw_quiesced,
	.resumed = saw_resumed,
};

static struct store_file *file_watched(struct store *store, struct base_io_loop *loop,
				       struct seen *seen)
{
	struct store_open_options options = {
		.loop = loop,
		.create = true,
		.align_bytes = SECTOR,
		.events = &seen_events,
		.events_context = seen,
	};
	struct store_file *file = NULL;

	cr_assert_eq(store_open(store, "a", &options, &file, NULL), 0);
	cr_assert_eq(store_acquire(file, 1, NULL, NULL, NULL), 0);
	return file;
}

Test(fake_store, quiesce_waits_and_goes_on)
{
	struct fake_store_plan plan = { .quiesce_every = 3, .delay_steps = 2, .seed = 5 };
	struct base_io_loop *loop = loop_new();
	struct store *store = store_new();
	struct seen seen = { .quiesced = 0 };
	struct store_file *file = file_watched(store, loop, &seen);

	fake_store_set_plan(store, &plan);
	for (int i = 0; i < 10; i++) {
		struct batch batch = { .count = 0 };

		batch_begin(&batch, file, STORE_WRITE);
		batch_wait(&batch);
		for (uint32_t k = 0; k < BATCH; k++)
			cr_assert_eq(batch.requests[k].result, 0);
	}
	cr_assert_geq(seen.quiesced, 5);
	store_close(file);
	cr_assert_eq(seen.quiesced, seen.resumed);
	store_free(store);
	base_io_loop_free(loop);
}

Test(fake_store, gone_and_back)
{
	struct fake_store_plan plan = { .delay_steps = 9, .seed = 1 };
	struct base_io_loop *loop = loop_new();
	struct store *store = store_new();
	struct seen seen = { .quiesced = 0 };
	struct store_file *file = file_watched(store, loop, &seen);
	struct batch batch = { .count = 0 };
	uint8_t data[SECTOR];

	fake_store_set_plan(store, &plan);
	batch_begin(&batch, file, STORE_WRITE);
	fake_store_set_gone(store, true);
	cr_assert_eq(seen.state, STORE_DOWN);
	batch_wait(&batch);
	for (uint32_t i = 0; i < BATCH; i++)
		cr_assert_eq(batch.requests[i].result, -ENODEV);
	cr_assert_eq(store_do(file, STORE_READ, 0, data, SECTOR, NULL), -ENODEV);
	cr_assert_eq(store_remove(store, "a", NULL), -ENODEV);
	fake_store_set_gone(store, false);
	cr_assert_eq(seen.state, STORE_DIRECT);
	cr_assert_eq(seen.states, 2);
	cr_assert_eq(store_do(file, STORE_READ, 0, data, SECTOR, NULL), 0);
	store_close(file);
	store_free(store);
	base_io_loop_free(loop);
}

Test(fake_store, buffers_may_change)
{
	for (int late = 0; late < 2; late++) {
		struct fake_store_plan plan = { .garbage_buffers = late == 1 };
		struct base_io_loop *loop = loop_new();
		struct store *store = store_new();
		struct store_file *file = file_make(store, loop, "a");
		struct batch batch = { .count = 0 };

		fake_store_set_plan(store, &plan);
		batch_begin(&batch, file, STORE_WRITE);
		memset(batch.data, 0x77, sizeof(batch.data));
		batch_wait(&batch);
		cr_assert_eq(sector_of(store, "a", SECTOR), late == 1 ? 0x77 : 2);
		store_close(file);
		store_free(store);
		base_io_loop_free(loop);
	}
}

Test(fake_store, requests_out_of_bounds)
{
	struct fake_store_plan plan = { .align_bytes = 4096 };
	struct base_io_loop *loop = loop_new();
	struct store *store = store_new();
	struct store_file *file;
	uint8_t data[SECTOR] = { 0 };

	fake_store_set_plan(store, &plan);
	file = file_make(store, loop, "a");
	cr_assert_eq(store_do(file, STORE_WRITE, 0, data, SECTOR, NULL), -EINVAL);
	cr_assert_eq(store_do(file, STORE_ZERO, 1ULL << 62, NULL, 4096, NULL), -EINVAL);
	cr_assert_eq(store_do(file, STORE_ALLOCATE, 0, NULL, 1ULL << 40, NULL), -EFBIG);
	store_close(file);
	store_free(store);
	base_io_loop_free(loop);
}

/* The k-th allocation fails for every k: the request or the call does, and nothing leaks. */
Test(fake_store, no_memory)
{
	for (unsigned int k = 0;; k++) {
		struct base_io_loop *loop = loop_new();
		struct store_open_options options = { .loop = loop,
						      .create = true,
						      .align_bytes = SECTOR };
		struct store *store = NULL;
		struct store *image = NULL;
		struct store_file *file = NULL;
		uint8_t data[SECTOR] = { 1 };
		int code;

		alloc_fail_at(k);
		code = fake_store_new(&store, NULL);
		if (code == 0)
			code = fake_store_record(store, NULL);
		if (code == 0)
			code = store_open(store, "a", &options, &file, NULL);
		if (code == 0)
			code = store_acquire(file, 1, NULL, NULL, NULL);
		if (code == 0)
			code = store_do(file, STORE_WRITE, 0, data, SECTOR, NULL);
		if (code == 0)
			code = store_sync_folder(store, "a", NULL);
		if (code == 0)
			code = fake_store_crash(store, fake_store_event_count(store),
						FAKE_LOSE_NONE, 0, &image, NULL);
		if (!alloc_fail_done()) {
			cr_assert_eq(code, 0);
			cr_assert_eq(sector_of(image, "a", SECTOR), 0);
		} else {
			cr_assert_eq(code, -ENOMEM, "allocation %u: %d", k, code);
		}
		store_free(image);
		store_close(file);
		store_free(store);
		base_io_loop_free(loop);
		if (code == 0)
			return;
	}
}
