/* SPDX-License-Identifier: Apache-2.0 */
#include "migrate/mig_image.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "base/bytes.h"
#include "base/crc32c.h"

#define SPAN_SECTORS   (MIG_SPAN_BYTES / MIG_SECTOR_BYTES)
#define SPAN_GRANULES  (MIG_SPAN_BYTES / MIG_GRANULE_BYTES)
#define SPAN_MASK      ((1u << SPAN_GRANULES) - 1)
#define SPANS_PER_WORD (64u / SPAN_GRANULES)
#define NO_SPAN        UINT64_MAX
#define MAP_SECTORS    (128ULL * SPAN_SECTORS) /* asked of a map at a time */
#define BUFFER_ALIGN   4096u                   /* of any store */

struct object {
	uint64_t sector_count;
	uint64_t first_word; /* of its bits; they begin with a word */
};

struct mig_image {
	const struct mig_image_ops *ops;
	void *context;
	struct object *objects; /* [object_count + 1]: the last one says where the bits end */
	uint32_t object_count;
	uint32_t channel_count;
	uint64_t *dirty; /* of all objects; spans are numbered through them */
	bool is_first;   /* no harvest yet */
	uint8_t *buffers[MIG_CHANNELS_MAX + 1];

	uint32_t round;
	bool last;
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
	uint16_t object;
	uint64_t span_first; /* sector */
	uint32_t chunk_count;
	/* What was seen last, over several spans.  It may be older than a write, but never than the
	 * harvest of this round: that write is in the next one. */
	struct mig_map map;
	uint16_t map_object; /* 0: none */
	uint32_t map_run;    /* that was used last */
};

static uint64_t words_of(uint64_t sector_count)
{
	return sector_count / (64u * (uint64_t)MIG_GRANULE_SECTORS) + 1;
}

static int tables_new(struct mig_image *image, const struct mig_image_options *options)
{
	uint64_t words = 0;

	image->objects = calloc((size_t)options->object_count + 1, sizeof(*image->objects));
	if (image->objects == NULL)
		return -ENOMEM;
	for (uint32_t i = 1; i < options->object_count; i++) {
		image->objects[i] = (struct object){
			.sector_count = options->objects[i].unit_count,
			.first_word = words,
		};
		words += words_of(options->objects[i].unit_count);
	}
	image->objects[options->object_count].first_word = words;
	image->dirty = calloc(words + 1, sizeof(*image->dirty));
	if (image->dirty == NULL)
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
	image->object_count = options->object_count;
	image->channel_count = options->channel_count;
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
	free(image->objects);
	free(image->dirty);
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

static uint64_t word_count(const struct mig_image *image)
{
	return image->objects[image->object_count].first_word;
}

int mig_image_harvest(struct mig_image *image, uint64_t *ret_bytes, struct base_error *err)
{
	uint64_t granules = 0;

	for (uint32_t i = 1; i < image->object_count; i++) {
		int r = image->ops->harvest(image->context, (uint16_t)i, image->is_first,
					    image->dirty + image->objects[i].first_word, err);

		if (r < 0)
			return r;
	}
	image->is_first = false;
	for (uint64_t word = 0; word < word_count(image); word++)
		granules += (uint64_t)__builtin_popcountll(image->dirty[word]);
	*ret_bytes = granules * MIG_GRANULE_BYTES;
	return 0;
}

const uint64_t *mig_image_dirty(const struct mig_image *image, uint16_t object)
{
	base_assert(object > 0 && object < image->object_count);
	return image->dirty + image->objects[object].first_word;
}

static uint32_t span_bits(const struct mig_image *image, uint64_t span)
{
	return (uint32_t)(image->dirty[span / SPANS_PER_WORD] >>
			  span % SPANS_PER_WORD * SPAN_GRANULES) &
	       SPAN_MASK;
}

/* The first span from @span on with something to send. */
static uint64_t find_span(const struct mig_image *image, uint64_t span)
{
	uint64_t end = word_count(image) * SPANS_PER_WORD;

	while (span < end) {
		if (span % SPANS_PER_WORD == 0 && image->dirty[span / SPANS_PER_WORD] == 0)
			span += SPANS_PER_WORD;
		else if (span_bits(image, span) == 0)
			span++;
		else
			return span;
	}
	return NO_SPAN;
}

/* The last round: one that no other channel has taken. */
static uint64_t take_span(struct mig_image *image)
{
	uint_fast64_t from = atomic_load(&image->next_span);
	uint64_t span = 0;

	do {
		span = find_span(image, from);
		if (span == NO_SPAN)
			return NO_SPAN;
	} while (!atomic_compare_exchange_weak(&image->next_span, &from, span + 1));
	return span;
}

/* --- chunks --- */

static int send_chunk(struct sending *sending, enum mig_chunk_kind kind, uint64_t first,
		      uint32_t count, struct base_error *err)
{
	struct mig_image *image = sending->image;
	uint32_t size_bytes = count * MIG_SECTOR_BYTES;
	uint64_t offset_bytes = (first - sending->span_first) * MIG_SECTOR_BYTES;
	uint8_t bytes[MIG_CHUNK_BYTES];
	struct mig_chunk chunk = {
		.kind = kind,
		.object = sending->object,
		.round = image->round,
		.first = first,
		.count = count,
		/* At most one chunk a sector, so a later round's are above. */
		.generation = ((uint64_t)image->round + 1) * SPAN_SECTORS + sending->chunk_count++,
	};
	struct mig_post post = { .chunk = bytes };
	int r = 0;

	if (kind == MIG_CHUNK_BLOCKS) {
		chunk.stored_bytes = size_bytes;
		chunk.offset_bytes = offset_bytes;
		chunk.region = MIG_REGION_BOUNCE;
		chunk.crc = base_crc32c(0, sending->buffer + offset_bytes, size_bytes);
		post.region = MIG_REGION_BOUNCE;
		post.size_bytes = size_bytes;
		post.offset_bytes = offset_bytes;
		post.from = sending->buffer + offset_bytes;
	}
	mig_chunk_encode(&chunk, bytes);
	r = mig_link_post(sending->link, &post, 1, err);
	if (r < 0)
		return r;
	atomic_fetch_add_explicit(&image->chunks, 1, memory_order_relaxed);
	atomic_fetch_add_explicit(kind == MIG_CHUNK_BLOCKS  ? &image->block_bytes
				  : kind == MIG_CHUNK_CLEAR ? &image->clear_bytes
							    : &image->unmap_bytes,
				  size_bytes, memory_order_relaxed);
	return 0;
}

/* From @first on: sectors up to the next granule's begin, or to @end. */
static uint32_t granule_rest(uint64_t first, uint64_t end)
{
	uint64_t next = first - first % MIG_GRANULE_SECTORS + MIG_GRANULE_SECTORS;

	return (uint32_t)((next < end ? next : end) - first);
}

static bool is_zero(const struct sending *sending, uint64_t first, uint32_t count)
{
	return base_is_zero(sending->buffer + (first - sending->span_first) * MIG_SECTOR_BYTES,
			    (size_t)count * MIG_SECTOR_BYTES);
}

/* What was read: runs of granules that are all zero or all not. */
static int send_data(struct sending *sending, uint64_t first, uint32_t count,
		     struct base_error *err)
{
	struct mig_image *image = sending->image;
	uint64_t end = first + count;
	int r = image->ops->read(image->context, sending->object, first,
				 sending->buffer + (first - sending->span_first) * MIG_SECTOR_BYTES,
				 count, err);

	while (r == 0 && first < end) {
		bool zero = is_zero(sending, first, granule_rest(first, end));
		uint64_t at = first;

		do {
			at += granule_rest(at, end);
		} while (at < end && is_zero(sending, at, granule_rest(at, end)) == zero);
		r = send_chunk(sending, zero ? MIG_CHUNK_CLEAR : MIG_CHUNK_BLOCKS, first,
			       (uint32_t)(at - first), err);
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

/* The run that @sector is in, of what was seen; NULL: it has to be looked at. */
static const struct mig_run *seen_run(struct sending *sending, uint64_t sector)
{
	const struct mig_map *map = &sending->map;

	if (sending->map_object != sending->object)
		return NULL;
	for (uint32_t i = sending->map_run; i < map->run_count; i++)
		if (sector >= map->runs[i].first &&
		    sector - map->runs[i].first < map->runs[i].count) {
			sending->map_run = i;
			return &map->runs[i];
		}
	return NULL;
}

static int look(struct sending *sending, uint64_t sector, struct base_error *err)
{
	struct mig_image *image = sending->image;
	uint64_t left = image->objects[sending->object].sector_count - sector;
	struct mig_map *map = &sending->map;
	int r = 0;

	map->first = sector;
	map->count = (uint32_t)(left < MAP_SECTORS ? left : MAP_SECTORS);
	map->run_count = 0;
	sending->map_run = 0;
	sending->map_object = 0;
	r = image->ops->map(image->context, sending->object, map, err);
	if (r < 0)
		return r;
	base_assert(map->run_count > 0 && map->run_count <= MIG_RUNS_MAX &&
		    map->runs[0].first == sector);
	sending->map_object = sending->object;
	return 0;
}

static int send_range(struct sending *sending, uint64_t first, uint64_t end, struct base_error *err)
{
	while (first < end) {
		const struct mig_run *seen = seen_run(sending, first);
		struct mig_run run;
		int r = 0;

		if (seen == NULL)
			r = look(sending, first, err);
		if (r < 0)
			return r;
		if (seen == NULL)
			seen = seen_run(sending, first);
		base_assert(seen != NULL);
		run = (struct mig_run){ .first = first, .kind = seen->kind };
		run.count = (uint32_t)(seen->first + seen->count < end
					       ? seen->first + seen->count - first
					       : end - first);
		r = send_run(sending, &run, err);
		if (r < 0)
			return r;
		first += run.count;
	}
	return 0;
}

/* Runs of granules that were written. */
static int send_span(struct sending *sending, uint32_t bits, struct base_error *err)
{
	uint64_t limit = sending->image->objects[sending->object].sector_count;

	for (uint32_t granule = 0; granule < SPAN_GRANULES;) {
		uint32_t end = granule;
		uint64_t first = sending->span_first + (uint64_t)granule * MIG_GRANULE_SECTORS;
		uint64_t stop = 0;
		int r = 0;

		while (end < SPAN_GRANULES && (bits & 1u << end) != 0)
			end++;
		if (end == granule) {
			granule++;
			continue;
		}
		stop = sending->span_first + (uint64_t)end * MIG_GRANULE_SECTORS;
		r = send_range(sending, first, stop < limit ? stop : limit, err);
		if (r < 0)
			return r;
		granule = end;
	}
	return 0;
}

/* --- a round --- */

void mig_image_begin(struct mig_image *image, uint32_t round, bool last)
{
	image->round = round;
	image->last = last;
	atomic_store(&image->next_span, 0);
}

void mig_image_end(struct mig_image *image)
{
	memset(image->dirty, 0, word_count(image) * sizeof(*image->dirty));
}

/* The object of @span, not before @from. */
static uint16_t object_at(const struct mig_image *image, uint64_t span, uint16_t from)
{
	uint16_t object = from;

	while (span >= image->objects[object + 1].first_word * SPANS_PER_WORD)
		object++;
	return object;
}

int mig_image_send(struct mig_image *image, uint32_t channel, struct mig_link *link,
		   const atomic_bool *stop, struct base_error *err)
{
	struct sending sending = {
		.image = image, .link = link, .buffer = image->buffers[channel], .object = 1
	};
	uint64_t span = image->last ? take_span(image) : find_span(image, 0);

	while (span != NO_SPAN && !atomic_load(stop)) {
		int r = 0;

		sending.object = object_at(image, span, sending.object);
		sending.span_first =
			(span - image->objects[sending.object].first_word * SPANS_PER_WORD) *
			SPAN_SECTORS;
		sending.chunk_count = 0;
		if (image->last || channel == mig_channel_of(sending.object, sending.span_first,
							     image->channel_count))
			r = send_span(&sending, span_bits(image, span), err);
		if (r < 0)
			return r;
		span = image->last ? take_span(image) : find_span(image, span + 1);
	}
	return 0;
}
