/* SPDX-License-Identifier: Apache-2.0 */
#include "migrate/mig_image.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/crc32c.h"
#include "migrate/mig_body_resume.h"

#define SPAN_SECTORS (MIG_SPAN_BYTES / MIG_SECTOR_BYTES)
#define BUFFER_ALIGN 4096u /* of any store */

struct mig_image {
	const struct mig_image_ops *ops;
	void *context;
	struct mig_granules granules; /* to be sent */
	uint32_t channel_count;
	bool bare;
	bool is_first;         /* no harvest yet */
	uint64_t *generations; /* of each span: of its last chunk, once all of a round were sent */
	uint8_t *buffers[MIG_CHANNELS_MAX + 1];

	uint32_t round;
	uint64_t turn; /* of this round and those before: after a cut a number may come again */
	bool last;
	uint64_t deadline_ns;           /* 0: none */
	atomic_uint_fast64_t next_span; /* last round */

	atomic_uint_fast64_t chunks;
	atomic_uint_fast64_t block_bytes;
	atomic_uint_fast64_t clear_bytes;
	atomic_uint_fast64_t unmap_bytes;
};

/* A channel in a round, and the span that it is at. */
struct sending {
	struct mig_image *image;
	struct mig_link *link;
	uint8_t *buffer;
	struct mig_granules_span span;
	uint32_t chunk_count;
	/* Kept over several spans.  It may be older than a write, but never than the harvest of
	 * this round: that write is in the next one. */
	struct mig_map_cursor cursor;
};

static int tables_new(struct mig_image *image, const struct mig_image_options *options)
{
	uint64_t counts[MIG_OBJECTS_MAX];

	for (uint32_t i = 1; i < options->object_count; i++)
		counts[i] = options->objects[i].unit_count;
	if (mig_granules_init(&image->granules, counts, options->object_count) < 0)
		return -ENOMEM;
	image->generations =
		calloc(mig_granules_span_count(&image->granules) + 1, sizeof(*image->generations));
	if (image->generations == NULL)
		return -ENOMEM;
	for (uint32_t i = 1; i <= options->channel_count; i++) {
		image->buffers[i] = aligned_alloc(BUFFER_ALIGN, MIG_SPAN_BYTES);
		if (image->buffers[i] == NULL)
			return -ENOMEM;
	}
	return 0;
}

int mig_image_new(const struct mig_image_options *options, struct mig_image **ret_image,
		  struct base_error *err)
{
	struct mig_image *image = calloc(1, sizeof(*image));

	base_assert(options->object_count > 0 && options->object_count <= MIG_OBJECTS_MAX);
	base_assert(options->channel_count > 0 && options->channel_count <= MIG_CHANNELS_MAX);
	if (image == NULL)
		return base_fail(err, -ENOMEM, "migration: images");
	image->ops = options->ops;
	image->context = options->context;
	image->channel_count = options->channel_count;
	image->bare = options->bare;
	image->is_first = true;
	if (tables_new(image, options) < 0) {
		mig_image_free(image);
		return base_fail(err, -ENOMEM, "migration: %" PRIu32 " images",
				 options->object_count - 1);
	}
	*ret_image = image;
	return 0;
}

void mig_image_free(struct mig_image *image)
{
	if (image == NULL)
		return;
	for (uint32_t i = 1; i <= image->channel_count; i++)
		free(image->buffers[i]);
	mig_granules_fini(&image->granules);
	free(image->generations);
	free(image);
}

struct mig_image_counts mig_image_counts(const struct mig_image *image)
{
	return (struct mig_image_counts){
		.chunks = atomic_load(&image->chunks),
		.block_bytes = atomic_load(&image->block_bytes),
		.clear_bytes = atomic_load(&image->clear_bytes),
		.unmap_bytes = atomic_load(&image->unmap_bytes),
	};
}

/* --- what to send --- */

int mig_image_harvest(struct mig_image *image, uint64_t *ret_bytes, struct base_error *err)
{
	for (uint32_t i = 1; i < image->granules.object_count; i++) {
		int r = image->ops->harvest(image->context, (uint16_t)i, image->is_first,
					    mig_granules_bits(&image->granules, (uint16_t)i), err);

		if (r < 0)
			return r;
	}
	image->is_first = false;
	*ret_bytes = mig_granules_bytes(&image->granules);
	return 0;
}

const uint64_t *mig_image_dirty(const struct mig_image *image, uint16_t object)
{
	return mig_granules_bits(&image->granules, object);
}

/* --- chunks --- */

/* At most one chunk a sector, so a later round's generations are above. */
static uint64_t round_begin(const struct mig_image *image)
{
	return image->turn * SPAN_SECTORS;
}

static int send_chunk(struct sending *sending, enum mig_chunk_kind kind, uint64_t first,
		      uint32_t count, struct base_error *err)
{
	struct mig_image *image = sending->image;
	uint32_t size_bytes = count * MIG_SECTOR_BYTES;
	uint64_t offset_bytes = (first - sending->span.first) * MIG_SECTOR_BYTES;
	uint8_t bytes[MIG_CHUNK_BYTES];
	struct mig_chunk chunk = {
		.kind = kind,
		.object = sending->span.object,
		.round = image->round,
		.first = first,
		.count = count,
		.generation = round_begin(image) + sending->chunk_count++,
	};
	struct mig_post post = { .chunk = bytes };
	int r = 0;

	if (kind == MIG_CHUNK_BLOCKS) {
		chunk.stored_bytes = size_bytes;
		chunk.offset_bytes = offset_bytes;
		chunk.region = MIG_REGION_BOUNCE;
		if (!image->bare)
			chunk.crc = base_crc32c(0, sending->buffer + offset_bytes, size_bytes);
		post.region = MIG_REGION_BOUNCE;
		post.size_bytes = size_bytes;
		post.offset_bytes = offset_bytes;
		post.from = sending->buffer + offset_bytes;
	}
	mig_chunk_encode(&chunk, bytes);
	/* Before it is sent: what a connection that breaks has taken may have come all the same. */
	atomic_fetch_add_explicit(&image->chunks, 1, memory_order_relaxed);
	r = mig_link_post(sending->link, &post, 1, err);
	if (r < 0)
		return r;
	atomic_fetch_add_explicit(kind == MIG_CHUNK_BLOCKS  ? &image->block_bytes
				  : kind == MIG_CHUNK_CLEAR ? &image->clear_bytes
							    : &image->unmap_bytes,
				  size_bytes, memory_order_relaxed);
	return 0;
}

/* What was read: runs of granules that are all zero or all not. */
static int send_data(struct sending *sending, uint64_t first, uint32_t count,
		     struct base_error *err)
{
	struct mig_image *image = sending->image;
	uint64_t end = first + count;
	uint8_t *bytes = sending->buffer + (first - sending->span.first) * MIG_SECTOR_BYTES;
	int r = image->ops->read(image->context, sending->span.object, first, bytes, count, err);

	while (r == 0 && first < end) {
		bool zero = false;
		uint64_t at = mig_granules_alike(bytes, first, end, &zero);

		r = send_chunk(sending, zero ? MIG_CHUNK_CLEAR : MIG_CHUNK_BLOCKS, first,
			       (uint32_t)(at - first), err);
		bytes += (at - first) * MIG_SECTOR_BYTES;
		first = at;
	}
	return r;
}

static int send_run(struct sending *sending, const struct mig_run *run, struct base_error *err)
{
	switch (run->kind) {
	case MIG_RUN_DATA:
		return send_data(sending, run->first, run->count, err);
	case MIG_RUN_ZERO:
		return send_chunk(sending, MIG_CHUNK_CLEAR, run->first, run->count, err);
	case MIG_RUN_UNMAPPED:
		return send_chunk(sending, MIG_CHUNK_UNMAP, run->first, run->count, err);
	case MIG_RUN_NOTHING:
		return 0;
	case MIG_RUN_INVALID:
	case MIG_RUN_KINDS:
	default:
		base_bug("run of kind %d", (int)run->kind);
	}
}

static int send_range(struct sending *sending, uint64_t first, uint64_t end, struct base_error *err)
{
	const struct mig_mapped mapped = { .map = sending->image->ops->map,
					   .context = sending->image->context,
					   .object = sending->span.object,
					   .sector_count = sending->span.limit };

	while (first < end) {
		struct mig_run run;
		int r = mig_map_part(&sending->cursor, &mapped, first, end, &run, err);

		if (r == 0)
			r = send_run(sending, &run, err);
		if (r < 0)
			return r;
		first += run.count;
	}
	return 0;
}

/* Runs of granules that were written. */
static int send_span(struct sending *sending, struct base_error *err)
{
	uint32_t granule = 0;
	uint64_t first = 0;
	uint64_t end = 0;

	while (mig_granules_run(&sending->span, &granule, &first, &end)) {
		int r = send_range(sending, first, end, err);

		if (r < 0)
			return r;
	}
	return 0;
}

static int send_all_of(struct sending *sending, uint64_t span, struct base_error *err)
{
	int r = 0;

	sending->chunk_count = 0;
	r = send_span(sending, err);
	if (r == 0 && sending->chunk_count > 0)
		sending->image->generations[span] =
			round_begin(sending->image) + sending->chunk_count - 1;
	return r;
}

/* --- a round --- */

void mig_image_begin(struct mig_image *image, uint32_t round, bool last)
{
	image->round = round;
	image->turn++;
	image->last = last;
	atomic_store(&image->next_span, 0);
}

void mig_image_set_deadline(struct mig_image *image, uint64_t deadline_ns)
{
	image->deadline_ns = deadline_ns;
}

static bool is_late(const struct mig_image *image)
{
	return image->deadline_ns != 0 &&
	       base_clock_boot_ns(&base_clock_system) >= image->deadline_ns;
}

void mig_image_confirmed(struct mig_image *image)
{
	mig_granules_clear(&image->granules);
}

/* What a span's last chunk of the round had; 0: none, or it has not got there. */
static uint64_t sent_in_round(const struct mig_image *image, uint64_t span)
{
	return image->generations[span] >= round_begin(image) ? image->generations[span] : 0;
}

int mig_image_have(struct mig_image *image, const struct mig_have *have, uint64_t *ret_spans,
		   struct base_error *err)
{
	uint64_t base = 0;
	uint64_t count = 0;

	if (image != NULL && have->object < image->granules.object_count)
		count = mig_granules_spans_of(&image->granules, have->object, &base);
	if (have->first > count || have->count > count - have->first)
		return base_fail(err, -EBADMSG,
				 "migration have: spans %" PRIu64 "+%" PRIu32
				 " of object %u, which has %" PRIu64,
				 have->first, have->count, (unsigned int)have->object, count);
	for (uint32_t i = 0; i < have->count; i++) {
		uint64_t span = base + have->first + i;
		uint64_t sent = sent_in_round(image, span);

		if (sent == 0 || mig_have_generation(have, i) != sent)
			continue;
		mig_granules_take_out(&image->granules, span);
		++*ret_spans;
	}
	return 0;
}

uint64_t mig_image_again_bytes(const struct mig_image *image)
{
	uint64_t bytes = 0;
	uint64_t span = mig_granules_find(&image->granules, 0);

	for (; span != MIG_NO_SPAN; span = mig_granules_find(&image->granules, span + 1))
		if (sent_in_round(image, span) != 0)
			bytes += mig_granules_span_bytes(&image->granules, span);
	return bytes;
}

static uint64_t next_span(struct mig_image *image, uint64_t span)
{
	return image->last ? mig_granules_take(&image->granules, &image->next_span)
			   : mig_granules_find(&image->granules, span);
}

int mig_image_send(struct mig_image *image, uint32_t channel, struct mig_link *link,
		   const atomic_bool *stop, struct base_error *err)
{
	struct sending sending = {
		.image = image, .link = link, .buffer = image->buffers[channel], .span.object = 1
	};
	uint64_t span = next_span(image, 0);

	while (span != MIG_NO_SPAN && !atomic_load(stop) && !is_late(image)) {
		int r = 0;

		sending.span = mig_granules_span(&image->granules, span, sending.span.object);
		if (image->last ||
		    channel == mig_channel_of(sending.span.object, sending.span.first,
					      image->channel_count))
			r = send_all_of(&sending, span, err);
		if (r < 0)
			return r;
		span = next_span(image, span + 1);
	}
	return 0;
}
