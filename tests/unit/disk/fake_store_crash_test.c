/* SPDX-License-Identifier: Apache-2.0 */
#include "hypervisor/disk/fake_store.h"

#include <criterion/criterion.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define SECTOR  512U
#define SECTORS 16U

/* A loop, a recording store and a file "a" whose sectors all hold 1, durably. */
struct stage {
	struct base_io_loop *loop;
	struct store *store;
	struct store_file *file;
};

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

static struct store_file *make(struct stage *stage, const char *name)
{
	struct store_open_options options = {
		.loop = stage->loop,
		.create = true,
		.align_bytes = SECTOR,
	};
	struct store_file *file = NULL;

	cr_assert_eq(store_open(stage->store, name, &options, &file, NULL), 0);
	cr_assert_eq(store_acquire(file, 1, NULL, NULL, NULL), 0);
	return file;
}

static struct stage stage_new(void)
{
	struct base_io_loop_options options = { .without_ring = true };
	struct stage stage = { .loop = NULL };

	cr_assert_eq(base_io_loop_new(&options, &stage.loop, NULL), 0);
	cr_assert_eq(fake_store_new(&stage.store, NULL), 0);
	stage.file = make(&stage, "a");
	put(stage.file, 0, 1, (uint64_t)SECTORS * SECTOR);
	cr_assert_eq(fake_store_record(stage.store, NULL), 0);
	return stage;
}

static void stage_free(struct stage *stage)
{
	store_close(stage->file);
	store_free(stage->store);
	base_io_loop_free(stage->loop);
}

static struct store *crash(const struct stage *stage, uint64_t count, enum fake_store_loss loss,
			   uint64_t seed)
{
	struct base_error err = { .code = 0 };
	struct store *image = NULL;

	cr_assert_eq(fake_store_crash(stage->store, count, loss, seed, &image, &err), 0, "%s",
		     err.text);
	return image;
}

/* What a sector holds, all of it the same. */
static int value_of(const struct store *store, const char *name, uint64_t sector)
{
	uint8_t data[SECTOR];

	cr_assert(fake_store_peek(store, name, sector * SECTOR, data, SECTOR));
	for (uint32_t i = 1; i < SECTOR; i++)
		cr_assert_eq(data[i], data[0]);
	return data[0];
}

/* The same of a crash image. */
static int value_after(const struct stage *stage, uint64_t count, enum fake_store_loss loss,
		       uint64_t sector)
{
	struct store *image = crash(stage, count, loss, 7);
	int value = value_of(image, "a", sector);

	store_free(image);
	return value;
}

static uint64_t now(const struct stage *stage)
{
	return fake_store_event_count(stage->store);
}

Test(fake_store_crash, only_what_a_flush_covers)
{
	struct stage stage = stage_new();
	uint64_t written;
	uint64_t flushed;

	cr_assert_eq(now(&stage), 0);
	put(stage.file, 0, 2, SECTOR);
	written = now(&stage);
	cr_assert_eq(written, 2);
	flush(stage.file);
	flushed = now(&stage);
	cr_assert_eq(flushed, 4);
	put(stage.file, 0, 3, SECTOR);
	cr_assert_eq(value_after(&stage, 0, FAKE_LOSE_NONE, 0), 1);
	cr_assert_eq(value_after(&stage, 1, FAKE_LOSE_NONE, 0), 2, "begun is enough");
	cr_assert_eq(value_after(&stage, written, FAKE_LOSE_ALL, 0), 1);
	cr_assert_eq(value_after(&stage, flushed - 1, FAKE_LOSE_ALL, 0), 1,
		     "the flush is not over");
	cr_assert_eq(value_after(&stage, flushed, FAKE_LOSE_ALL, 0), 2);
	cr_assert_eq(value_after(&stage, now(&stage), FAKE_LOSE_ALL, 0), 2);
	cr_assert_eq(value_after(&stage, now(&stage), FAKE_LOSE_NONE, 0), 3);
	stage_free(&stage);
}

Test(fake_store_crash, a_failed_flush_covers_nothing)
{
	struct fake_store_plan plan = { .fail_at = 1, .fail_ops = 1U << STORE_FLUSH };
	struct stage stage = stage_new();

	fake_store_set_plan(stage.store, &plan);
	put(stage.file, 0, 2, SECTOR);
	cr_assert_eq(store_do(stage.file, STORE_FLUSH, 0, NULL, 0, NULL), -EIO);
	cr_assert_eq(value_after(&stage, now(&stage), FAKE_LOSE_ALL, 0), 1);
	stage_free(&stage);
}

struct two {
	struct store_request write;
	struct store_request flush;
	struct base_io_loop *loop;
	uint32_t count;
	bool done;
};

static void two_done(struct store_request *request, int result)
{
	struct two *two = request->context;

	cr_assert_eq(result, 0);
	if (++two->count == 2)
		base_io_done(two->loop, &two->done);
}

/* A flush does not cover what was in flight when it was submitted. */
Test(fake_store_crash, flush_beside_a_write)
{
	struct stage stage = stage_new();
	uint8_t data[SECTOR];
	struct iovec iov = { data, SECTOR };
	struct two two = { .loop = stage.loop };

	memset(data, 2, SECTOR);
	two.write = (struct store_request){ .op = STORE_WRITE,
					    .epoch = 1,
					    .length_bytes = SECTOR,
					    .iov = &iov,
					    .iov_count = 1,
					    .done = two_done,
					    .context = &two };
	two.flush = (struct store_request){
		.op = STORE_FLUSH, .epoch = 1, .done = two_done, .context = &two
	};
	store_submit(stage.file, &two.write);
	store_submit(stage.file, &two.flush);
	base_io_wait(stage.loop, &two.done);
	cr_assert_eq(value_after(&stage, now(&stage), FAKE_LOSE_ALL, 0), 1);
	flush(stage.file);
	cr_assert_eq(value_after(&stage, now(&stage), FAKE_LOSE_ALL, 0), 2);
	stage_free(&stage);
}

/* FUA is durable alone, and over what was written there before and is not. */
Test(fake_store_crash, fua)
{
	struct stage stage = stage_new();
	uint8_t data[SECTOR];
	struct iovec iov = { data, SECTOR };
	struct two two = { .loop = stage.loop, .count = 1 };

	put(stage.file, 0, 2, 2 * SECTOR);
	memset(data, 3, SECTOR);
	two.write = (struct store_request){ .op = STORE_WRITE,
					    .flags = STORE_FUA,
					    .epoch = 1,
					    .length_bytes = SECTOR,
					    .iov = &iov,
					    .iov_count = 1,
					    .done = two_done,
					    .context = &two };
	store_submit(stage.file, &two.write);
	base_io_wait(stage.loop, &two.done);
	cr_assert_eq(value_after(&stage, now(&stage), FAKE_LOSE_ALL, 0), 3);
	cr_assert_eq(value_after(&stage, now(&stage), FAKE_LOSE_ALL, 1), 1);
	cr_assert_eq(value_after(&stage, now(&stage), FAKE_LOSE_NONE, 0), 3);
	cr_assert_eq(value_after(&stage, now(&stage), FAKE_LOSE_NONE, 1), 2);
	stage_free(&stage);
}

/* Over many seeds each operation is there and is not, and sectors are torn only where they may. */
Test(fake_store_crash, subsets_and_tears)
{
	struct stage stage = stage_new();
	uint32_t some[3] = { 0 };
	uint32_t torn = 0;
	uint32_t present = 0;

	put(stage.file, 0, 2, 4 * SECTOR);
	cr_assert_eq(store_do(stage.file, STORE_ZERO, 8 * SECTOR, NULL, SECTOR, NULL), 0);
	for (uint64_t seed = 0; seed < 120; seed++) {
		struct store *image = crash(&stage, now(&stage), FAKE_LOSE_SOME, seed);
		int value = value_of(image, "a", 0);

		for (uint32_t i = 1; i < 4; i++)
			cr_assert_eq(value_of(image, "a", i), value, "whole or not at all");
		some[value]++;
		some[0] += value_of(image, "a", 8) == 0;
		store_free(image);
		image = crash(&stage, now(&stage), FAKE_LOSE_SECTORS, seed);
		for (uint32_t i = 0; i < 4; i++)
			present += value_of(image, "a", i) == 2;
		torn += value_of(image, "a", 0) != value_of(image, "a", 1);
		store_free(image);
	}
	cr_assert(some[0] > 20 && some[0] < 100 && some[1] > 20 && some[2] > 20);
	cr_assert(torn > 30 && torn < 90);
	cr_assert(present > 160 && present < 320);
	stage_free(&stage);
}

Test(fake_store_crash, size)
{
	struct stage stage = stage_new();
	struct store *image;
	uint64_t bytes = 0;

	cr_assert_eq(store_do(stage.file, STORE_TRUNCATE, 1 << 20, NULL, 0, NULL), 0);
	put(stage.file, 65536, 2, SECTOR);
	image = crash(&stage, now(&stage), FAKE_LOSE_ALL, 0);
	cr_assert(fake_store_file_bytes(image, "a", &bytes));
	cr_assert_eq(bytes, SECTORS * SECTOR);
	store_free(image);
	for (uint64_t seed = 0; seed < 30; seed++) {
		image = crash(&stage, now(&stage), FAKE_LOSE_SOME, seed);
		cr_assert(fake_store_file_bytes(image, "a", &bytes));
		cr_assert(bytes == SECTORS * SECTOR || bytes == 65536 + SECTOR || bytes == 1 << 20);
		if (bytes == 65536 + SECTOR)
			cr_assert_eq(value_of(image, "a", 128), 2);
		store_free(image);
	}
	flush(stage.file);
	image = crash(&stage, now(&stage), FAKE_LOSE_ALL, 0);
	cr_assert(fake_store_file_bytes(image, "a", &bytes));
	cr_assert_eq(bytes, 1 << 20);
	store_free(image);
	stage_free(&stage);
}

static bool there(const struct stage *stage, enum fake_store_loss loss, const char *name)
{
	struct store *image = crash(stage, now(stage), loss, 0);
	uint64_t bytes;
	bool found = fake_store_file_bytes(image, name, &bytes);

	store_free(image);
	return found;
}

Test(fake_store_crash, names)
{
	struct stage stage = stage_new();
	struct store_file *file = make(&stage, "vm/b");

	put(file, 0, 5, SECTOR);
	flush(file);
	cr_assert_not(there(&stage, FAKE_LOSE_ALL, "vm/b"), "its folder was not synced");
	cr_assert(there(&stage, FAKE_LOSE_NONE, "vm/b"));
	cr_assert_eq(store_sync_folder(stage.store, "a", NULL), 0);
	cr_assert_not(there(&stage, FAKE_LOSE_ALL, "vm/b"), "another folder was");
	cr_assert_eq(store_sync_folder(stage.store, "vm/x", NULL), 0);
	cr_assert(there(&stage, FAKE_LOSE_ALL, "vm/b"));
	cr_assert_eq(store_rename(stage.store, "vm/b", "a", NULL), 0);
	cr_assert(there(&stage, FAKE_LOSE_ALL, "vm/b"));
	cr_assert_eq(value_after(&stage, now(&stage), FAKE_LOSE_ALL, 0), 1);
	cr_assert_eq(value_after(&stage, now(&stage), FAKE_LOSE_NONE, 0), 5);
	cr_assert_eq(store_sync_folder(stage.store, "vm/b", NULL), 0);
	cr_assert_eq(store_sync_folder(stage.store, "a", NULL), 0);
	cr_assert_not(there(&stage, FAKE_LOSE_ALL, "vm/b"));
	cr_assert_eq(value_after(&stage, now(&stage), FAKE_LOSE_ALL, 0), 5);
	cr_assert_eq(store_remove(stage.store, "a", NULL), 0);
	cr_assert(there(&stage, FAKE_LOSE_ALL, "a"));
	cr_assert_not(there(&stage, FAKE_LOSE_NONE, "a"));
	cr_assert_eq(store_sync_folder(stage.store, "a", NULL), 0);
	cr_assert_not(there(&stage, FAKE_LOSE_ALL, "a"));
	store_close(file);
	stage_free(&stage);
}

static uint64_t next(uint64_t *state)
{
	*state = *state * 6364136223846793005ULL + 1442695040888963407ULL;
	return *state >> 33;
}

/* A long mixed run, in which a flush follows each few operations. */
static void run_mixed(struct stage *stage, uint64_t seed)
{
	for (uint32_t i = 0; i < 900; i++) {
		uint64_t sector = next(&seed) % SECTORS;
		uint64_t length_bytes = (1 + next(&seed) % (SECTORS - sector)) * SECTOR;
		uint64_t offset_bytes = sector * SECTOR;

		switch (next(&seed) % 8) {
		case 0:
			flush(stage->file);
			break;
		case 1:
			cr_assert_eq(store_do(stage->file, STORE_ZERO, offset_bytes, NULL,
					      length_bytes, NULL),
				     0);
			break;
		case 2:
			cr_assert_eq(store_do(stage->file, STORE_PUNCH, offset_bytes, NULL,
					      length_bytes, NULL),
				     0);
			break;
		default:
			put(stage->file, offset_bytes, (int)(i % 250) + 2, length_bytes);
		}
	}
}

static void image_bytes(const struct stage *stage, uint64_t count, enum fake_store_loss loss,
			uint64_t seed, uint8_t to[SECTORS * SECTOR])
{
	struct store *image = crash(stage, count, loss, seed);

	cr_assert(fake_store_peek(image, "a", 0, to, SECTORS * SECTOR));
	store_free(image);
}

/* The same crash gives the same image, whatever was asked for before it. */
Test(fake_store_crash, points_in_any_order)
{
	static uint8_t forward[200][SECTORS * SECTOR];
	static uint8_t again[SECTORS * SECTOR];
	struct stage stage = stage_new();
	uint64_t random = 99;

	run_mixed(&stage, 5);
	for (uint64_t i = 0; i < 200; i++)
		image_bytes(&stage, i * 9, 1 + (enum fake_store_loss)(i % 4), i, forward[i]);
	for (uint32_t n = 0; n < 300; n++) {
		uint64_t i = next(&random) % 200;

		image_bytes(&stage, i * 9, 1 + (enum fake_store_loss)(i % 4), i, again);
		cr_assert_arr_eq(again, forward[i], sizeof(again));
	}
	stage_free(&stage);
}

/* Right after a flush nothing can be lost; and with everything there it is the live content. */
Test(fake_store_crash, agrees_with_the_live_content)
{
	static uint8_t live[SECTORS * SECTOR];
	static uint8_t image[SECTORS * SECTOR];

	for (uint64_t seed = 1; seed < 12; seed++) {
		struct fake_store_plan plan = { .seed = seed, .reorder = true, .delay_steps = 3 };
		struct stage stage = stage_new();

		fake_store_set_plan(stage.store, &plan);
		run_mixed(&stage, seed);
		cr_assert(fake_store_peek(stage.store, "a", 0, live, sizeof(live)));
		image_bytes(&stage, now(&stage), FAKE_LOSE_NONE, seed, image);
		cr_assert_arr_eq(image, live, sizeof(live));
		flush(stage.file);
		for (int loss = FAKE_LOSE_NONE; loss < FAKE_LOSSES; loss++) {
			image_bytes(&stage, now(&stage), (enum fake_store_loss)loss, seed, image);
			cr_assert_arr_eq(image, live, sizeof(live));
		}
		stage_free(&stage);
	}
}

Test(fake_store_crash, arguments_are_checked)
{
	struct store *image = NULL;
	struct store *bare = NULL;
	struct stage stage = stage_new();

	cr_assert_eq(fake_store_new(&bare, NULL), 0);
	cr_assert_eq(fake_store_crash(bare, 0, FAKE_LOSE_ALL, 0, &image, NULL), -EPROTO);
	cr_assert_eq(fake_store_event_count(bare), 0);
	cr_assert_eq(fake_store_crash(stage.store, 1, FAKE_LOSE_ALL, 0, &image, NULL), -EINVAL);
	cr_assert_eq(fake_store_crash(stage.store, 0, FAKE_LOSSES, 0, &image, NULL), -EINVAL);
	cr_assert_null(image);
	store_free(bare);
	stage_free(&stage);
}
