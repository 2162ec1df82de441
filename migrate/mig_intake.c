/* SPDX-License-Identifier: Apache-2.0 */
#include "migrate/mig_intake.h"

#include <errno.h>
#include <inttypes.h>
#include <lz4.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#include "base/bytes.h"
#include "base/crc32c.h"
#include "migrate/mig_verify.h"

#define BOUNCE_ALIGN 4096u /* disks are written from there */

struct channel {
	uint8_t *bounce;
	bool at_barrier;
};

struct mig_intake {
	uint8_t *memory;
	struct mig_object *objects;
	uint64_t *first_spans; /* of each object, in generations */
	uint32_t object_count;
	uint32_t channel_count;
	const struct mig_disk_ops *disk;
	void *disk_context;
	struct mig_verify *verify;
	bool bare;
	struct channel channels[MIG_CHANNELS_MAX + 1];
	uint64_t *touched;             /* bit of each page that may be other than zero */
	_Atomic uint64_t *generations; /* the newest that came, of the spans of all objects */

	uint32_t round; /* 0: none yet, else number + 1 */
	bool last;
	atomic_bool open; /* chunks may come */

	atomic_uint_fast64_t chunks;
	atomic_uint_fast64_t page_count;
	atomic_uint_fast64_t zero_pages;

	pthread_mutex_t lock; /* leaf: what is below */
	uint32_t barrier_count;
	uint32_t failure_count;
	struct mig_failure failures[MIG_FAILURES_MAX];
};

static uint64_t units_per_span(uint32_t object)
{
	return MIG_SPAN_BYTES / mig_unit_bytes((uint16_t)object);
}

static uint64_t span_count(uint64_t unit_count, uint32_t object)
{
	return unit_count / units_per_span(object) + 1;
}

static int objects_new(struct mig_intake *intake, const struct mig_intake_options *options)
{
	uint64_t words = options->objects[0].unit_count / 64 + 1;
	uint64_t spans = 0;

	for (uint32_t i = 0; i < options->object_count; i++)
		spans += span_count(options->objects[i].unit_count, i);
	intake->objects = calloc(options->object_count, sizeof(*intake->objects));
	intake->first_spans = calloc(options->object_count, sizeof(*intake->first_spans));
	intake->touched = calloc(words, sizeof(*intake->touched));
	intake->generations = calloc(spans, sizeof(*intake->generations));
	if (intake->objects == NULL || intake->first_spans == NULL || intake->touched == NULL ||
	    intake->generations == NULL)
		return -ENOMEM;
	intake->object_count = options->object_count;
	spans = 0;
	for (uint32_t i = 0; i < options->object_count; i++) {
		intake->objects[i] = options->objects[i];
		intake->first_spans[i] = spans;
		spans += span_count(options->objects[i].unit_count, i);
	}
	return 0;
}

static int channels_new(struct mig_intake *intake, uint32_t count)
{
	intake->channel_count = count;
	for (uint32_t i = 1; i <= count; i++) {
		intake->channels[i].bounce = aligned_alloc(BOUNCE_ALIGN, MIG_BOUNCE_BYTES);
		if (intake->channels[i].bounce == NULL)
			return -ENOMEM;
	}
	return 0;
}

int mig_intake_new(const struct mig_intake_options *options, struct mig_intake **ret_intake,
		   struct base_error *err)
{
	struct mig_intake *intake = calloc(1, sizeof(*intake));

	base_assert(options->object_count > 0 && options->object_count <= MIG_OBJECTS_MAX);
	base_assert(options->channel_count > 0 && options->channel_count <= MIG_CHANNELS_MAX);
	base_assert(options->object_count == 1 || options->disk != NULL);
	if (intake == NULL)
		return base_fail(err, -ENOMEM, "migration: intake");
	if (pthread_mutex_init(&intake->lock, NULL) != 0)
		base_bug("intake: no mutex");
	intake->memory = options->memory;
	intake->disk = options->disk;
	intake->disk_context = options->disk_context;
	intake->verify = options->verify;
	intake->bare = options->bare;
	if (objects_new(intake, options) < 0 || channels_new(intake, options->channel_count) < 0) {
		mig_intake_free(intake);
		return base_fail(err, -ENOMEM, "migration: intake of %" PRIu32 " objects",
				 options->object_count);
	}
	*ret_intake = intake;
	return 0;
}

void mig_intake_free(struct mig_intake *intake)
{
	if (intake == NULL)
		return;
	for (uint32_t i = 1; i <= intake->channel_count; i++) {
		free(intake->channels[i].bounce);
	}
	free(intake->objects);
	free(intake->first_spans);
	free(intake->touched);
	free(intake->generations);
	(void)pthread_mutex_destroy(&intake->lock);
	free(intake);
}

uint8_t *mig_intake_bounce(struct mig_intake *intake, uint32_t channel)
{
	base_assert(channel > 0 && channel <= intake->channel_count);
	return intake->channels[channel].bounce;
}

/* --- rounds --- */

int mig_intake_round(struct mig_intake *intake, uint32_t number, bool last, struct base_error *err)
{
	if (number == UINT32_MAX || number != intake->round || intake->last || intake->open)
		return base_fail(err, -EPROTO,
				 "migration: round %" PRIu32 " begins, expected %" PRIu32 "%s",
				 number, intake->round,
				 intake->last   ? ", and there was a last one"
				 : intake->open ? " after the end of the one before"
						: "");
	intake->round = number + 1;
	intake->last = last;
	intake->open = true;
	intake->failure_count = 0;
	intake->barrier_count = 0;
	for (uint32_t i = 1; i <= intake->channel_count; i++)
		intake->channels[i].at_barrier = false;
	return 0;
}

uint32_t mig_intake_cut(struct mig_intake *intake)
{
	intake->open = false;
	intake->last = false;
	return intake->round;
}

static int in_round(const struct mig_intake *intake, uint32_t channel, uint32_t number,
		    const char *what, struct base_error *err)
{
	if (!intake->open || number + 1 != intake->round || intake->channels[channel].at_barrier)
		return base_fail(err, -EPROTO,
				 "migration %s of round %" PRIu32 " on channel %" PRIu32
				 ": the round is %" PRIu32 "%s",
				 what, number, channel, intake->round - 1,
				 intake->channels[channel].at_barrier ? ", behind its barrier"
								      : "");
	return 0;
}

int mig_intake_barrier(struct mig_intake *intake, uint32_t channel, uint32_t number,
		       struct base_error *err)
{
	int r = in_round(intake, channel, number, "barrier", err);
	BASE_LOCKED(&intake->lock);

	if (r < 0)
		return r;
	intake->channels[channel].at_barrier = true;
	if (++intake->barrier_count < intake->channel_count)
		return 0;
	intake->open = false;
	return 1;
}

uint64_t mig_intake_span_count(const struct mig_intake *intake, uint16_t object)
{
	uint64_t units = 0;

	base_assert(object < intake->object_count);
	units = intake->objects[object].unit_count;
	return units / units_per_span(object) + (units % units_per_span(object) != 0 ? 1 : 0);
}

void mig_intake_generations(const struct mig_intake *intake, uint16_t object, uint64_t first,
			    uint64_t count, uint64_t *ret_generations)
{
	const atomic_uint_fast64_t *generations =
		intake->generations + intake->first_spans[object] + first;

	for (uint64_t i = 0; i < count; i++)
		ret_generations[i] = atomic_load(&generations[i]);
}

uint32_t mig_intake_failures(const struct mig_intake *intake, struct mig_failure *ret_failures)
{
	memcpy(ret_failures, intake->failures, intake->failure_count * sizeof(*ret_failures));
	return intake->failure_count;
}

bool mig_intake_is_last(const struct mig_intake *intake)
{
	return intake->last;
}

bool mig_intake_is_whole(const struct mig_intake *intake)
{
	return intake->last && !intake->open;
}

const uint64_t *mig_intake_touched(const struct mig_intake *intake)
{
	return intake->touched;
}

struct mig_intake_counts mig_intake_counts(const struct mig_intake *intake)
{
	return (struct mig_intake_counts){
		.chunks = atomic_load(&intake->chunks),
		.page_count = atomic_load(&intake->page_count),
		.zero_pages = atomic_load(&intake->zero_pages),
	};
}

/* --- chunks --- */

/* A checksum does not fit: perhaps the guest's doing, the source will say. */
static int failed(struct mig_intake *intake, const struct mig_chunk *chunk, struct base_error *err)
{
	BASE_LOCKED(&intake->lock);

	if (intake->last || chunk->object != 0)
		return base_fail(err, -EBADMSG,
				 "migration chunk: %" PRIu32 " units from %" PRIu64
				 " of object %u: the checksum is wrong",
				 chunk->count, chunk->first, (unsigned int)chunk->object);
	if (intake->failure_count == MIG_FAILURES_MAX)
		return base_fail(err, -EBADMSG,
				 "migration: more than %u checksums of a round are wrong",
				 MIG_FAILURES_MAX);
	intake->failures[intake->failure_count++] = (struct mig_failure){ .first = chunk->first,
									  .count = chunk->count,
									  .object = chunk->object };
	return 0;
}

/* The bits of word @page / 64 that pages from @page on and before @end have. */
static uint64_t word_mask(uint64_t page, uint64_t end)
{
	uint64_t left = end - page / 64 * 64;

	return (left < 64 ? (1ULL << left) - 1 : UINT64_MAX) & UINT64_MAX << page % 64;
}

/* Pages are touched by one channel each; words are shared. */
static void touch(struct mig_intake *intake, const struct mig_chunk *chunk)
{
	uint64_t end = chunk->first + chunk->count;

	for (uint64_t page = chunk->first; page < end; page = (page / 64 + 1) * 64)
		(void)__atomic_fetch_or(&intake->touched[page / 64], word_mask(page, end),
					__ATOMIC_RELAXED);
}

void mig_intake_loose(struct mig_intake *intake, uint64_t offset_bytes, uint64_t size_bytes)
{
	const struct mig_chunk pages = {
		.first = offset_bytes / MIG_PAGE_BYTES,
		.count = (uint32_t)((offset_bytes + size_bytes + MIG_PAGE_BYTES - 1) /
					    MIG_PAGE_BYTES -
				    offset_bytes / MIG_PAGE_BYTES),
	};

	base_assert(offset_bytes + size_bytes <= intake->objects[0].unit_count * MIG_PAGE_BYTES);
	touch(intake, &pages);
}

/* Whether the @size_bytes at @bytes are what the chunk says; the record's tag has said it already
 * where there is no checksum. */
static bool is_whole(const struct mig_intake *intake, const struct mig_chunk *chunk,
		     const uint8_t *bytes, size_t size_bytes)
{
#ifdef GODWIT_MUTANT_MIG_CHECKSUM
	return true;
#endif
	return (intake->bare ? 0 : base_crc32c(0, bytes, size_bytes)) == chunk->crc;
}

static int take_pages(struct mig_intake *intake, const struct mig_chunk *chunk,
		      struct base_error *err)
{
	if (chunk->region != MIG_REGION_MEMORY ||
	    chunk->offset_bytes != chunk->first * MIG_PAGE_BYTES)
		return base_fail(err, -EBADMSG,
				 "migration chunk: pages from %" PRIu64 " at %" PRIu64
				 " of region %" PRIu32 ", expected at their place",
				 chunk->first, chunk->offset_bytes, chunk->region);
	touch(intake, chunk);
	atomic_fetch_add(&intake->page_count, chunk->count);
	return is_whole(intake, chunk, intake->memory + chunk->offset_bytes,
			(size_t)chunk->count * MIG_PAGE_BYTES)
		       ? 0
		       : failed(intake, chunk, err);
}

static int in_bounce(const struct mig_chunk *chunk, struct base_error *err)
{
	if (chunk->region != MIG_REGION_BOUNCE ||
	    chunk->offset_bytes > MIG_BOUNCE_BYTES - chunk->stored_bytes)
		return base_fail(err, -EBADMSG,
				 "migration chunk: %" PRIu32 " bytes at %" PRIu64
				 " of region %" PRIu32 ", expected in the bounce region",
				 chunk->stored_bytes, chunk->offset_bytes, chunk->region);
	return 0;
}

/* Compressed bytes are the sender's own copy: their checksum never fails by a guest's doing.
 * They unpack to their place, where nothing looks before all is verified. */
static int take_compressed(struct mig_intake *intake, struct channel *channel,
			   const struct mig_chunk *chunk, struct base_error *err)
{
	uint32_t bytes = chunk->count * MIG_PAGE_BYTES;
	uint8_t *to = intake->memory + chunk->first * MIG_PAGE_BYTES;
	int r = in_bounce(chunk, err);

	if (r < 0)
		return r;
	touch(intake, chunk);
	if (LZ4_decompress_safe((const char *)channel->bounce + chunk->offset_bytes, (char *)to,
				(int)chunk->stored_bytes, (int)bytes) != (int)bytes ||
	    base_crc32c(0, to, bytes) != chunk->crc)
		return base_fail(err, -EBADMSG,
				 "migration chunk: pages from %" PRIu64
				 ": compressed bytes are damaged",
				 chunk->first);
	atomic_fetch_add(&intake->page_count, chunk->count);
	return 0;
}

/* Memory that nobody wrote reads zero, and stays without pages of the host. */
static int take_zeros(struct mig_intake *intake, const struct mig_chunk *chunk)
{
	uint64_t end = chunk->first + chunk->count;

	for (uint64_t page = chunk->first; page < end; page = (page / 64 + 1) * 64) {
		uint64_t word = __atomic_load_n(&intake->touched[page / 64], __ATOMIC_RELAXED) &
				word_mask(page, end);

		if (intake->verify != NULL)
			mig_verify_mark_word(intake->verify, 0, page / 64, word);
		for (; word != 0; word &= word - 1)
			memset(intake->memory + (page / 64 * 64 + (uint64_t)__builtin_ctzll(word)) *
							MIG_PAGE_BYTES,
			       0, MIG_PAGE_BYTES);
	}
	atomic_fetch_add(&intake->zero_pages, chunk->count);
	return 0;
}

static int take_blocks(struct mig_intake *intake, struct channel *channel,
		       const struct mig_chunk *chunk, struct base_error *err)
{
	const uint8_t *bytes = NULL;
	int r = in_bounce(chunk, err);

	if (r < 0)
		return r;
	bytes = channel->bounce + chunk->offset_bytes;
	if (!is_whole(intake, chunk, bytes, chunk->stored_bytes))
		return failed(intake, chunk, err);
	return intake->disk->write(intake->disk_context, chunk->object, chunk->first, bytes,
				   chunk->count, err);
}

static int take(struct mig_intake *intake, struct channel *channel, const struct mig_chunk *chunk,
		struct base_error *err)
{
	switch (chunk->kind) {
	case MIG_CHUNK_PAGES:
		return take_pages(intake, chunk, err);
	case MIG_CHUNK_LZ4:
		return take_compressed(intake, channel, chunk, err);
	case MIG_CHUNK_ZEROS:
		return take_zeros(intake, chunk);
	case MIG_CHUNK_BLOCKS:
		return take_blocks(intake, channel, chunk, err);
	case MIG_CHUNK_CLEAR:
	case MIG_CHUNK_UNMAP:
		return intake->disk->clear(intake->disk_context, chunk->object, chunk->first,
					   chunk->count, chunk->kind == MIG_CHUNK_UNMAP, err);
	case MIG_CHUNK_INVALID:
	case MIG_CHUNK_KINDS:
	default:
		base_bug("chunk of kind %d", (int)chunk->kind);
	}
}

int mig_intake_chunk(struct mig_intake *intake, uint32_t channel,
		     const uint8_t bytes[MIG_CHUNK_BYTES], struct base_error *err)
{
	struct mig_chunk chunk;
	atomic_uint_fast64_t *generation = NULL;
	int r = mig_chunk_decode(bytes, intake->objects, intake->object_count, &chunk, err);

	if (r == 0)
		r = in_round(intake, channel, chunk.round, "chunk", err);
	if (r < 0)
		return r;
	if (!intake->last &&
	    channel != mig_channel_of(chunk.object, chunk.first, intake->channel_count))
		return base_fail(err, -EPROTO,
				 "migration chunk: units from %" PRIu64
				 " of object %u on channel %" PRIu32 ", which is not theirs",
				 chunk.first, (unsigned int)chunk.object, channel);
	generation = &intake->generations[intake->first_spans[chunk.object] +
					  chunk.first / units_per_span(chunk.object)];
	atomic_fetch_add(&intake->chunks, 1);
#ifndef GODWIT_MUTANT_MIG_GENERATION
	if (chunk.generation < atomic_load(generation))
		return base_fail(err, -EBADMSG,
				 "migration chunk: units from %" PRIu64
				 " of object %u: generation %" PRIu64 " after %" PRIu64,
				 chunk.first, (unsigned int)chunk.object, chunk.generation,
				 (uint64_t)atomic_load(generation));
#endif
	atomic_store(generation, chunk.generation);
	if (intake->verify != NULL && chunk.kind != MIG_CHUNK_ZEROS)
		mig_verify_mark(intake->verify, chunk.object, chunk.first, chunk.count);
	return take(intake, &intake->channels[channel], &chunk, err);
}
