/* SPDX-License-Identifier: Apache-2.0 */
#include "migrate/mig_copy.h"

#include <errno.h>
#include <inttypes.h>
#include <stdatomic.h>
#include <stdlib.h>

#include "base/bytes.h"
#include "base/crc32c.h"

#define SPAN_PAGES (MIG_SPAN_BYTES / MIG_PAGE_BYTES) /* whole words of a bitmap */

struct mig_copy {
	const uint8_t *memory;
	uint64_t page_count;
	uint64_t span_count;
	uint32_t channel_count;
	struct mig_link *links[MIG_CHANNELS_MAX];
	struct base_pool *pool;
	struct mig_image *images;
	uint64_t *generations; /* of each span: the last that was sent; its channel's */

	/* The round under way. */
	const uint64_t *dirty;
	uint32_t round;
	bool last;
	atomic_bool stop;               /* a channel has failed */
	atomic_uint_fast64_t next_span; /* last round */

	atomic_uint_fast64_t chunks;
	atomic_uint_fast64_t sent_pages;
	atomic_uint_fast64_t zero_pages;
};

int mig_copy_new(const struct mig_copy_options *options, struct mig_copy **ret_copy,
		 struct base_error *err)
{
	struct mig_copy *copy = calloc(1, sizeof(*copy));

	base_assert(options->channel_count > 0 && options->channel_count <= MIG_CHANNELS_MAX);
	if (copy == NULL)
		return base_fail(err, -ENOMEM, "migration: copy");
	copy->memory = options->memory;
	copy->page_count = options->page_count;
	copy->span_count =
		options->page_count / SPAN_PAGES + (options->page_count % SPAN_PAGES != 0 ? 1 : 0);
	copy->channel_count = options->channel_count;
	copy->pool = options->pool;
	copy->images = options->images;
	for (uint32_t i = 0; i < options->channel_count; i++)
		copy->links[i] = options->links[i];
	copy->generations = calloc(copy->span_count + 1, sizeof(*copy->generations));
	if (copy->generations == NULL) {
		free(copy);
		return base_fail(err, -ENOMEM, "migration: copy of %" PRIu64 " pages",
				 options->page_count);
	}
	*ret_copy = copy;
	return 0;
}

void mig_copy_free(struct mig_copy *copy)
{
	if (copy == NULL)
		return;
	free(copy->generations);
	free(copy);
}

struct mig_copy_counts mig_copy_counts(const struct mig_copy *copy)
{
	uint64_t of_images = copy->images != NULL ? mig_image_counts(copy->images).chunks : 0;

	return (struct mig_copy_counts){
		.chunks = atomic_load(&copy->chunks) + of_images,
		.page_count = atomic_load(&copy->sent_pages),
		.zero_pages = atomic_load(&copy->zero_pages),
	};
}

/* --- one span --- */

static bool is_dirty(const struct mig_copy *copy, uint64_t page)
{
	return (copy->dirty[page / 64] & 1ULL << page % 64) != 0;
}

static const uint8_t *page_at(const struct mig_copy *copy, uint64_t page)
{
	return copy->memory + page * MIG_PAGE_BYTES;
}

static int send_run(struct mig_copy *copy, struct mig_link *link, uint64_t first, uint32_t count,
		    bool zero, struct base_error *err)
{
	size_t size_bytes = (size_t)count * MIG_PAGE_BYTES;
	uint8_t bytes[MIG_CHUNK_BYTES];
	struct mig_chunk chunk = {
		.kind = zero ? MIG_CHUNK_ZEROS : MIG_CHUNK_PAGES,
		.round = copy->round,
		.first = first,
		.count = count,
		.generation = ++copy->generations[first / SPAN_PAGES],
	};
	int r = 0;

	if (!zero) {
		chunk.stored_bytes = (uint32_t)size_bytes;
		chunk.offset_bytes = first * MIG_PAGE_BYTES;
		chunk.region = MIG_REGION_MEMORY;
		chunk.crc = base_crc32c(0, page_at(copy, first), size_bytes);
		r = mig_link_write(link, MIG_REGION_MEMORY, chunk.offset_bytes,
				   page_at(copy, first), size_bytes, err);
	}
	if (r < 0)
		return r;
	mig_chunk_encode(&chunk, bytes);
	r = mig_link_send(link, MIG_TYPE_CHUNK, bytes, sizeof(bytes), err);
	if (r < 0)
		return r;
	atomic_fetch_add_explicit(&copy->chunks, 1, memory_order_relaxed);
	atomic_fetch_add_explicit(zero ? &copy->zero_pages : &copy->sent_pages, count,
				  memory_order_relaxed);
	return 0;
}

/* Runs of dirty pages that are all zero or all not. */
static int send_span(struct mig_copy *copy, struct mig_link *link, uint64_t span,
		     struct base_error *err)
{
	uint64_t page = span * SPAN_PAGES;
	uint64_t end = page + SPAN_PAGES < copy->page_count ? page + SPAN_PAGES : copy->page_count;

	while (page < end) {
		uint64_t first = page;
		bool zero = false;
		int r = 0;

		if (!is_dirty(copy, page)) {
			page++;
			continue;
		}
		zero = base_is_zero(page_at(copy, first), MIG_PAGE_BYTES);
		do {
			page++;
		} while (page < end && is_dirty(copy, page) &&
			 base_is_zero(page_at(copy, page), MIG_PAGE_BYTES) == zero);
		r = send_run(copy, link, first, (uint32_t)(page - first), zero, err);
		if (r < 0)
			return r;
	}
	return 0;
}

/* --- a round --- */

/* The span behind @span that @channel (from 0) has to look at; the first one with @span at the end.
 */
static uint64_t next_span(struct mig_copy *copy, uint32_t channel, uint64_t span, bool first)
{
	if (copy->last)
		return atomic_fetch_add(&copy->next_span, 1);
	if (!first)
		return span + copy->channel_count;
	return channel; /* mig_channel_of() of memory: span modulo the channels */
}

static int channel_round(void *context, uint64_t index, struct base_error *err)
{
	struct mig_copy *copy = context;
	uint32_t channel = (uint32_t)index;
	struct mig_link *link = copy->links[channel];
	uint8_t barrier[8] = { 0 };
	uint64_t span = next_span(copy, channel, 0, true);
	int r = 0;

	while (r == 0 && span < copy->span_count && !atomic_load(&copy->stop)) {
		r = send_span(copy, link, span, err);
		span = next_span(copy, channel, span, false);
	}
	if (r == 0 && copy->images != NULL)
		r = mig_image_send(copy->images, channel + 1, link, &copy->stop, err);
	base_put_le32(barrier, copy->round);
	if (r == 0 && !atomic_load(&copy->stop))
		r = mig_link_send(link, MIG_TYPE_BARRIER, barrier, sizeof(barrier), err);
	if (r < 0)
		atomic_store(&copy->stop, true);
	return r;
}

int mig_copy_round(struct mig_copy *copy, const uint64_t *dirty, uint32_t number, bool last,
		   struct base_error *err)
{
	int r = 0;

	copy->dirty = dirty;
	copy->round = number;
	copy->last = last;
	atomic_store(&copy->stop, false);
	atomic_store(&copy->next_span, 0);
	if (copy->images != NULL)
		mig_image_begin(copy->images, number, last);
	r = base_pool_each(copy->pool, copy->channel_count, channel_round, copy, err);
	if (r == 0 && copy->images != NULL)
		mig_image_end(copy->images);
	return r;
}

int mig_copy_forgive(const struct mig_copy *copy, const struct mig_failure *failures,
		     uint32_t count, uint64_t *harvest, struct base_error *err)
{
	for (uint32_t i = 0; i < count; i++) {
		const struct mig_failure *failure = &failures[i];
		uint64_t end = failure->first + failure->count;
		bool written = false;

		if (failure->object != 0 || failure->count == 0 ||
		    failure->first >= copy->page_count ||
		    failure->count > copy->page_count - failure->first)
			return base_fail(err, -EBADMSG,
					 "migration: units %" PRIu64 "+%" PRIu32
					 " of object %u are reported, which has no such pages",
					 failure->first, failure->count,
					 (unsigned int)failure->object);
		for (uint64_t page = failure->first; page < end && !written; page++)
			written = (harvest[page / 64] & 1ULL << page % 64) != 0;
#ifdef GODWIT_MUTANT_MIG_FORGIVE
		written = true;
#endif
		if (!written)
			return base_fail(err, -EBADMSG,
					 "migration: pages %" PRIu64 "+%" PRIu32
					 " arrived damaged, and the guest has not written them",
					 failure->first, failure->count);
		for (uint64_t page = failure->first; page < end; page++)
			harvest[page / 64] |= 1ULL << page % 64;
	}
	return 0;
}
