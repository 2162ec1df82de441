/* SPDX-License-Identifier: Apache-2.0 */
#include "migrate/mig_intake.h"

#include <criterion/criterion.h>
#include <errno.h>
#include <lz4.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/bytes.h"
#include "base/crc32c.h"
#include "tests/support/alloc_fail.h"

#define PAGES    1024u /* four spans */
#define SECTORS  4096u /* two spans */
#define CHANNELS 2u

static uint8_t *memory;
static uint8_t image[SECTORS * 512];
static char cleared[64];
static int disk_code;
static struct mig_intake *intake;
static struct base_error err;
static uint64_t generation;

static int disk_write(void *context, uint16_t object, uint64_t sector, const uint8_t *bytes,
		      uint32_t count, struct base_error *error)
{
	(void)context;
	cr_assert_eq(object, 1);
	cr_assert(sector < SECTORS && count <= SECTORS - sector);
	memcpy(image + sector * 512, bytes, (size_t)count * 512);
	return disk_code == 0 ? 0 : base_fail(error, disk_code, "disk");
}

static int disk_clear(void *context, uint16_t object, uint64_t sector, uint32_t count, bool unmap,
		      struct base_error *error)
{
	(void)context;
	(void)error;
	(void)snprintf(cleared, sizeof(cleared), "%u: %llu+%u%s", (unsigned int)object,
		       (unsigned long long)sector, count, unmap ? " unmap" : "");
	return 0;
}

static const struct mig_disk_ops disk_ops = { .write = disk_write, .clear = disk_clear };
static const struct mig_object objects[] = { { .unit_count = PAGES }, { .unit_count = SECTORS } };

static struct mig_intake_options options_of(void)
{
	return (struct mig_intake_options){ .memory = memory,
					    .objects = objects,
					    .object_count = 2,
					    .channel_count = CHANNELS,
					    .disk = &disk_ops };
}

static void setup(void)
{
	struct mig_intake_options options;

	memory = calloc(PAGES, 4096);
	cr_assert_not_null(memory);
	options = options_of();
	cr_assert_eq(mig_intake_new(&options, &intake, &err), 0, "%s", err.text);
	cr_assert_eq(mig_intake_round(intake, 0, false, &err), 0);
}

static void teardown(void)
{
	mig_intake_free(intake);
	free(memory);
}

TestSuite(mig_intake, .init = setup, .fini = teardown);

static int give(uint32_t channel, const struct mig_chunk *chunk)
{
	uint8_t bytes[MIG_CHUNK_BYTES];

	mig_chunk_encode(chunk, bytes);
	return mig_intake_chunk(intake, channel, bytes, &err);
}

static void expect_refused(uint32_t channel, const struct mig_chunk *chunk, int code,
			   const char *text)
{
	cr_assert_eq(give(channel, chunk), code, "%s", err.text);
	cr_assert_not_null(strstr(err.text, text), "%s, not %s", err.text, text);
}

/* Pages with @value, as if their bytes had come. */
static struct mig_chunk pages(uint64_t first, uint32_t count, uint8_t value)
{
	memset(memory + first * 4096, value, (size_t)count * 4096);
	return (struct mig_chunk){
		.kind = MIG_CHUNK_PAGES,
		.first = first,
		.count = count,
		.stored_bytes = count * 4096,
		.generation = ++generation,
		.offset_bytes = first * 4096,
		.region = MIG_REGION_MEMORY,
		.crc = base_crc32c(0, memory + first * 4096, (size_t)count * 4096),
	};
}

static struct mig_chunk zeros(uint64_t first, uint32_t count)
{
	return (struct mig_chunk){
		.kind = MIG_CHUNK_ZEROS, .first = first, .count = count, .generation = ++generation
	};
}

static void end_round(uint32_t number)
{
	cr_assert_eq(mig_intake_barrier(intake, 1, number, &err), 0, "%s", err.text);
	cr_assert_eq(mig_intake_barrier(intake, 2, number, &err), 1, "%s", err.text);
}

Test(mig_intake, pages_are_verified_where_they_are)
{
	static struct mig_failure failures[MIG_FAILURES_MAX];
	struct mig_chunk chunk = pages(0, 3, 7);

	cr_assert_eq(give(1, &chunk), 0, "%s", err.text);
	chunk = pages(256, 256, 8);
	memory[300 * 4096 + 5] ^= 1; /* the guest, meanwhile, or a fault */
	cr_assert_eq(give(2, &chunk), 0);
	end_round(0);
	cr_assert_eq(mig_intake_failures(intake, failures), 1);
	cr_assert_eq(failures[0].first, 256);
	cr_assert_eq(failures[0].count, 256);
	cr_assert_eq(failures[0].object, 0);
	cr_assert_eq(mig_intake_counts(intake).page_count, 259);
	cr_assert_not(mig_intake_is_whole(intake));
	cr_assert_eq(mig_intake_round(intake, 1, true, &err), 0);
	cr_assert_eq(mig_intake_failures(intake, failures), 0);
}

/* Where nothing changes any more a wrong checksum is corruption. */
Test(mig_intake, the_last_round_forgives_nothing)
{
	struct mig_chunk chunk;

	end_round(0);
	cr_assert_eq(mig_intake_round(intake, 1, true, &err), 0);
	chunk = pages(512, 1, 8);
	chunk.round = 1;
	memory[512 * 4096] ^= 1;
	expect_refused(2, &chunk, -EBADMSG, "the checksum is wrong");
}

Test(mig_intake, the_last_round_takes_spans_on_any_channel)
{
	struct mig_chunk chunk;

	end_round(0);
	cr_assert_eq(mig_intake_round(intake, 1, true, &err), 0);
	chunk = pages(0, 1, 8);
	chunk.round = 1;
	cr_assert_eq(give(2, &chunk), 0, "%s", err.text);
	end_round(1);
	cr_assert(mig_intake_is_whole(intake));
	cr_assert_eq(mig_intake_round(intake, 2, true, &err), -EPROTO);
	chunk.round = 2;
	cr_assert_eq(give(2, &chunk), -EPROTO);
}

Test(mig_intake, order_is_kept)
{
	struct mig_chunk chunk = pages(256, 1, 1);

	expect_refused(1, &chunk, -EPROTO, "on channel 1, which is not theirs");
	cr_assert_eq(give(2, &chunk), 0);
	chunk.generation--;
	expect_refused(2, &chunk, -EBADMSG, "generation 0 after 1");
	chunk.generation++;
	chunk.round = 1;
	expect_refused(2, &chunk, -EPROTO, "of round 1 on channel 2: the round is 0");
	chunk.round = UINT32_MAX;
	expect_refused(2, &chunk, -EPROTO, "the round is 0");
	chunk.round = 0;
	cr_assert_eq(mig_intake_barrier(intake, 2, 0, &err), 0);
	expect_refused(2, &chunk, -EPROTO, "behind its barrier");
	cr_assert_eq(mig_intake_barrier(intake, 2, 0, &err), -EPROTO, "twice");
	cr_assert_eq(mig_intake_round(intake, 1, false, &err),
		     -EPROTO); /* channel 1 is not there */
	cr_assert_eq(mig_intake_barrier(intake, 1, 1, &err), -EPROTO);
	cr_assert_eq(mig_intake_barrier(intake, 1, 0, &err), 1);
	cr_assert_eq(mig_intake_round(intake, 2, false, &err), -EPROTO);
	cr_assert_eq(mig_intake_round(intake, 1, false, &err), 0);
}

Test(mig_intake, pages_belong_at_their_place)
{
	struct mig_chunk chunk = pages(0, 1, 1);

	chunk.offset_bytes = 4096;
	expect_refused(1, &chunk, -EBADMSG, "expected at their place");
	chunk.offset_bytes = 0;
	chunk.region = MIG_REGION_BOUNCE;
	expect_refused(1, &chunk, -EBADMSG, "expected at their place");
}

Test(mig_intake, zeros_clear_what_was_touched_only)
{
	struct mig_chunk chunk = pages(0, 2, 9);

	cr_assert_eq(give(1, &chunk), 0);
	memory[2 * 4096] = 1; /* nobody sent it: it shall not be looked at */
	chunk = zeros(0, 3);
	cr_assert_eq(give(1, &chunk), 0);
	cr_assert(base_is_zero(memory, 2 * 4096));
	cr_assert_eq(memory[2 * 4096], 1);
	cr_assert_eq(mig_intake_counts(intake).zero_pages, 3);
}

static struct mig_chunk compressed(uint64_t first, uint32_t count, uint32_t channel)
{
	uint8_t *bounce = mig_intake_bounce(intake, channel);
	uint8_t plain[16 * 4096];
	int stored = 0;

	memset(plain, 'x', sizeof(plain));
	plain[77] = 5;
	stored = LZ4_compress_default((const char *)plain, (char *)bounce + 100,
				      (int)(count * 4096), MIG_BOUNCE_BYTES - 100);
	cr_assert_gt(stored, 0);
	return (struct mig_chunk){ .kind = MIG_CHUNK_LZ4,
				   .first = first,
				   .count = count,
				   .stored_bytes = (uint32_t)stored,
				   .generation = ++generation,
				   .offset_bytes = 100,
				   .region = MIG_REGION_BOUNCE,
				   .crc = base_crc32c(0, plain, (size_t)count * 4096) };
}

Test(mig_intake, compressed_pages)
{
	struct mig_chunk chunk = compressed(16, 16, 1);

	cr_assert_eq(give(1, &chunk), 0, "%s", err.text);
	cr_assert_eq(memory[16 * 4096 + 77], 5);
	cr_assert_eq(memory[31 * 4096 + 4095], 'x');
	cr_assert_eq(memory[32 * 4096], 0);
	chunk.crc ^= 1; /* the sender's own copy: nobody changed that */
	expect_refused(1, &chunk, -EBADMSG, "compressed bytes are damaged");
	chunk.crc ^= 1;
	chunk.stored_bytes--;
	expect_refused(1, &chunk, -EBADMSG, "compressed bytes are damaged");
	chunk.stored_bytes++;
	chunk.count--;
	expect_refused(1, &chunk, -EBADMSG, "compressed bytes are damaged");
	chunk.count++;
	chunk.offset_bytes = MIG_BOUNCE_BYTES - chunk.stored_bytes + 1;
	expect_refused(1, &chunk, -EBADMSG, "expected in the bounce region");
	chunk.offset_bytes = 100;
	chunk.region = MIG_REGION_MEMORY;
	expect_refused(1, &chunk, -EBADMSG, "expected in the bounce region");
}

Test(mig_intake, images)
{
	struct mig_chunk chunk = { .kind = MIG_CHUNK_BLOCKS,
				   .object = 1,
				   .first = 5,
				   .count = 2,
				   .stored_bytes = 1024,
				   .generation = 1,
				   .region = MIG_REGION_BOUNCE };

	memset(mig_intake_bounce(intake, 2), 3, 1024);
	chunk.crc = base_crc32c(0, mig_intake_bounce(intake, 2), 1024);
	cr_assert_eq(give(2, &chunk), 0, "%s", err.text);
	cr_assert_eq(image[5 * 512], 3);
	cr_assert_eq(image[7 * 512], 0);
	chunk.crc ^= 1;
	expect_refused(2, &chunk, -EBADMSG, "of object 1: the checksum is wrong");
	chunk.crc ^= 1;
	disk_code = -ENOSPC;
	cr_assert_eq(give(2, &chunk), -ENOSPC);
	chunk = (struct mig_chunk){
		.kind = MIG_CHUNK_CLEAR, .object = 1, .first = 9, .count = 4, .generation = 2
	};
	cr_assert_eq(give(2, &chunk), 0);
	cr_assert_str_eq(cleared, "1: 9+4");
	chunk.kind = MIG_CHUNK_UNMAP;
	cr_assert_eq(give(2, &chunk), 0);
	cr_assert_str_eq(cleared, "1: 9+4 unmap");
}

/* A peer cannot make us remember without end. */
Test(mig_intake, failures_are_bounded)
{
	struct mig_chunk chunk = pages(0, 1, 1);

	chunk.crc ^= 1;
	for (uint32_t i = 0; i < MIG_FAILURES_MAX; i++)
		cr_assert_eq(give(1, &chunk), 0);
	expect_refused(1, &chunk, -EBADMSG, "more than 65535 checksums");
}

Test(mig_intake, no_memory)
{
	struct mig_intake_options options = options_of();
	struct mig_intake *other = NULL;

	for (unsigned int k = 0;; k++) {
		int r = 0;

		alloc_fail_at(k);
		r = mig_intake_new(&options, &other, &err);
		if (!alloc_fail_done()) {
			cr_assert_eq(r, 0);
			break;
		}
		cr_assert_eq(r, -ENOMEM);
		cr_assert_null(other);
	}
	mig_intake_free(other);
	mig_intake_free(NULL);
}
