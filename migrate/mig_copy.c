/* SPDX-License-Identifier: Apache-2.0 */
#include "migrate/mig_copy.h"

#include <errno.h>
#include <inttypes.h>
#include <lz4.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#include "base/bytes.h"
#include "base/clock.h"
#include "base/crc32c.h"
#include "migrate/mig_body.h"
#include "migrate/mig_body_resume.h"

#define SPAN_PAGES   (MIG_SPAN_BYTES / MIG_PAGE_BYTES) /* whole words of a bitmap */
#define ROUND_STEP   (2ULL * SPAN_PAGES) /* of generations: more than chunks of a span in a round */
#define BATCH_BYTES  (256u << 10)        /* so much does not wait for company */
#define PACKED_PAGES 64u /* of a compressed chunk: copy and result stay in a processor's cache */
#define PACKED_BYTES ((size_t)PACKED_PAGES * MIG_PAGE_BYTES)

/* What a channel's thread has for itself. */
struct lane {
	struct mig_link *link;
	struct mig_squeeze squeeze;
	uint8_t *plain;  /* a copy that no guest changes; NULL: nothing is compressed */
	uint8_t *packed; /* what became of it */
	size_t packed_bytes;
	uint8_t *stable; /* copies of pages that are being written to; NULL: nothing is logged */
	size_t stable_bytes;
	bool hot;             /* such are sent now */
	uint32_t chunk_count; /* of the span in the round */

	/* Small chunks wait here for company; their bytes stay where they are until then. */
	uint32_t post_count;
	uint32_t post_bytes;
	struct mig_post posts[MIG_POSTS_MAX];
	uint8_t chunks[MIG_POSTS_MAX][MIG_CHUNK_BYTES];
};

struct mig_copy {
	const uint8_t *memory;
	uint64_t page_count;
	uint64_t span_count;
	uint32_t channel_count;
	struct lane lanes[MIG_CHANNELS_MAX];
	struct base_pool *pool;
	struct mig_image *images;
	const struct mig_dirty_ops *log; /* NULL: nothing is logged */
	void *log_context;
	bool bare;
	struct mig_heat *heat; /* of the first round; NULL: nothing is logged */
	uint64_t *generations; /* of each span: of its last chunk, once all of a round were sent */

	/* The round under way. */
	const uint64_t *dirty;
	uint32_t round;
	uint64_t turn; /* of this round and those before: after a cut a number may come again */
	bool last;
	atomic_bool stop;               /* a channel has failed */
	uint64_t deadline_ns;           /* of the round; 0: none */
	atomic_uint_fast64_t next_span; /* last round */

	atomic_uint_fast64_t chunks;
	atomic_uint_fast64_t sent_pages;
	atomic_uint_fast64_t zero_pages;
	atomic_uint_fast64_t lz4_pages;
	atomic_uint_fast64_t lz4_bytes;
};

static int lane_new(struct lane *lane, struct mig_link *link, enum mig_compress compress)
{
	lane->link = link;
	lane->squeeze = mig_squeeze_begin(compress);
	if (compress == MIG_COMPRESS_INVALID || compress == MIG_COMPRESS_NEVER)
		return 0;
	lane->plain = malloc(PACKED_BYTES);
	lane->packed = malloc(PACKED_BYTES);
	return lane->plain == NULL || lane->packed == NULL ? -ENOMEM : 0;
}

int mig_copy_new(const struct mig_copy_options *options, struct mig_copy **ret_copy,
		 struct base_error *err)
{
	struct mig_copy *copy = calloc(1, sizeof(*copy));
	int r = 0;

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
	copy->log = options->log;
	copy->log_context = options->log_context;
	copy->bare = options->bare;
	for (uint32_t i = 0; i < options->channel_count && r == 0; i++) {
		r = lane_new(&copy->lanes[i], options->links[i], options->compress);
		if (r == 0 && copy->log != NULL) {
			copy->lanes[i].stable = malloc(PACKED_BYTES);
			r = copy->lanes[i].stable == NULL ? -ENOMEM : 0;
		}
	}
	copy->generations = calloc(copy->span_count + 1, sizeof(*copy->generations));
	if (copy->generations == NULL || r < 0) {
		mig_copy_free(copy);
		return base_fail(err, -ENOMEM, "migration: copy of %" PRIu64 " pages",
				 options->page_count);
	}
	if (copy->log != NULL)
		r = mig_heat_new(copy->log, copy->log_context, copy->page_count, &copy->heat, err);
	if (r < 0) {
		mig_copy_free(copy);
		return r;
	}
	*ret_copy = copy;
	return 0;
}

void mig_copy_free(struct mig_copy *copy)
{
	if (copy == NULL)
		return;
	for (uint32_t i = 0; i < copy->channel_count; i++) {
		free(copy->lanes[i].plain);
		free(copy->lanes[i].packed);
		free(copy->lanes[i].stable);
	}
	mig_heat_free(copy->heat);
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
		.lz4_pages = atomic_load(&copy->lz4_pages),
		.lz4_bytes = atomic_load(&copy->lz4_bytes),
	};
}

/* --- one span --- */

/* The first dirty page from @page on and before @end; @end: none.  A word at a time, as most of a
 * large VM's last bitmap is empty. */
static uint64_t next_dirty(const struct mig_copy *copy, uint64_t page, uint64_t end)
{
	while (page < end) {
		uint64_t word = copy->dirty[page / 64] >> page % 64;

		if (word != 0) {
			page += (uint64_t)__builtin_ctzll(word);
			return page < end ? page : end;
		}
		page = (page / 64 + 1) * 64;
	}
	return end;
}

static bool is_dirty(const struct mig_copy *copy, uint64_t page)
{
	return (copy->dirty[page / 64] & 1ULL << page % 64) != 0;
}

static const uint8_t *page_at(const struct mig_copy *copy, uint64_t page)
{
	return copy->memory + page * MIG_PAGE_BYTES;
}

static void add(atomic_uint_fast64_t *count, uint64_t more)
{
	atomic_fetch_add_explicit(count, more, memory_order_relaxed);
}

static void empty(struct lane *lane)
{
	lane->post_count = 0;
	lane->post_bytes = 0;
	lane->packed_bytes = 0;
	lane->stable_bytes = 0;
}

static int flush(struct lane *lane, struct base_error *err)
{
	uint32_t count = lane->post_count;

	empty(lane);
	return count > 0 ? mig_link_post(lane->link, lane->posts, count, err) : 0;
}

/* Generations of a round are above it, and up to the next one's. */
static uint64_t round_begin(const struct mig_copy *copy)
{
	return copy->turn * ROUND_STEP;
}

/* @chunk, whose stored bytes are at @bytes and stay there until the lane is flushed. */
static int send_chunk(struct mig_copy *copy, struct lane *lane, struct mig_chunk *chunk,
		      const uint8_t *bytes, struct base_error *err)
{
	uint8_t *encoded = lane->chunks[lane->post_count];

	chunk->round = copy->round;
	chunk->generation = round_begin(copy) + ++lane->chunk_count;
	mig_chunk_encode(chunk, encoded);
	lane->posts[lane->post_count++] = (struct mig_post){ .region = chunk->region,
							     .size_bytes = chunk->stored_bytes,
							     .offset_bytes = chunk->offset_bytes,
							     .from = bytes,
							     .chunk = encoded };
	lane->post_bytes += chunk->stored_bytes;
	add(&copy->chunks, 1);
	add(chunk->kind == MIG_CHUNK_ZEROS ? &copy->zero_pages : &copy->sent_pages, chunk->count);
	if (lane->post_count < MIG_POSTS_MAX && lane->post_bytes < BATCH_BYTES)
		return 0;
	return flush(lane, err);
}

static int send_zeros(struct mig_copy *copy, struct lane *lane, uint64_t first, uint32_t count,
		      struct base_error *err)
{
	struct mig_chunk chunk = { .kind = MIG_CHUNK_ZEROS, .first = first, .count = count };

	return send_chunk(copy, lane, &chunk, NULL, err);
}

/* Pages whose bytes are at @bytes: in memory, or a copy. */
static int send_raw(struct mig_copy *copy, struct lane *lane, uint64_t first, uint32_t count,
		    const uint8_t *bytes, struct base_error *err)
{
	struct mig_chunk chunk = { .kind = MIG_CHUNK_PAGES,
				   .first = first,
				   .count = count,
				   .stored_bytes = count * MIG_PAGE_BYTES,
				   .offset_bytes = first * MIG_PAGE_BYTES,
				   .region = MIG_REGION_MEMORY };

	if (!copy->bare)
		chunk.crc = base_crc32c(0, bytes, chunk.stored_bytes);
	return send_chunk(copy, lane, &chunk, bytes, err);
}

/*
 * From copies: pages that were written a moment ago are written again while they are sent, and then
 * the whole chunk would arrive with a checksum that is not its own, and be sent once more.
 */
static int send_stable(struct mig_copy *copy, struct lane *lane, uint64_t first, uint32_t count,
		       struct base_error *err)
{
	int r = 0;

	for (uint32_t at = 0; r == 0 && at < count;) {
		uint32_t room = (uint32_t)((PACKED_BYTES - lane->stable_bytes) / MIG_PAGE_BYTES);
		uint32_t part = count - at < room ? count - at : room;
		uint8_t *to = lane->stable + lane->stable_bytes;

		if (room == 0) {
			r = flush(lane, err);
			continue;
		}
		memcpy(to, page_at(copy, first + at), (size_t)part * MIG_PAGE_BYTES);
		lane->stable_bytes += (size_t)part * MIG_PAGE_BYTES;
		r = send_raw(copy, lane, first + at, part, to, err);
		at += part;
	}
	return r;
}

/* At most PACKED_PAGES; raw, if they do not shrink. */
static int send_packed(struct mig_copy *copy, struct lane *lane, uint64_t first, uint32_t count,
		       struct base_error *err)
{
	uint32_t bytes = count * MIG_PAGE_BYTES;
	struct mig_chunk chunk = {
		.kind = MIG_CHUNK_LZ4, .first = first, .count = count, .region = MIG_REGION_BOUNCE
	};
	const uint8_t *plain = lane->plain;
	uint8_t *packed = NULL;
	int r = 0;

	if (bytes > PACKED_BYTES - lane->packed_bytes)
		r = flush(lane, err);
	if (r < 0)
		return r;
	packed = lane->packed + lane->packed_bytes;
	memcpy(lane->plain, page_at(copy, first), bytes);
#ifdef GODWIT_MUTANT_MIG_STABLE
	plain = page_at(copy, first);
#endif
	r = LZ4_compress_default((const char *)plain, (char *)packed, (int)bytes,
				 (int)(bytes - bytes / 16));
	if (r <= 0) { /* the copy is needed for the next ones */
		r = send_raw(copy, lane, first, count, plain, err);
		return r < 0 ? r : flush(lane, err);
	}
	chunk.stored_bytes = (uint32_t)r;
	chunk.crc = base_crc32c(0, plain, bytes);
	lane->packed_bytes += chunk.stored_bytes;
	r = send_chunk(copy, lane, &chunk, packed, err);
	if (r < 0)
		return r;
	add(&copy->lz4_pages, count);
	add(&copy->lz4_bytes, chunk.stored_bytes);
	return 0;
}

/* Whether a run shall be compressed, by a page of it. */
static bool does_pay(const struct mig_copy *copy, struct lane *lane, uint64_t first, uint32_t count)
{
	uint64_t begin_ns = base_clock_boot_ns(&base_clock_system);
	char packed[MIG_PAGE_BYTES];
	int stored = 0;

	memcpy(lane->plain, page_at(copy, first + count / 2), MIG_PAGE_BYTES);
	stored = LZ4_compress_default((const char *)lane->plain, packed, (int)MIG_PAGE_BYTES,
				      (int)MIG_PAGE_BYTES);
	return mig_squeeze_judge(&lane->squeeze, MIG_PAGE_BYTES,
				 stored > 0 ? (uint32_t)stored : MIG_PAGE_BYTES,
				 base_clock_boot_ns(&base_clock_system) - begin_ns);
}

static int send_pages(struct mig_copy *copy, struct lane *lane, uint64_t first, uint32_t count,
		      struct base_error *err)
{
	uint64_t bytes = (uint64_t)count * MIG_PAGE_BYTES;
	enum mig_squeeze_step step = mig_squeeze_next(&lane->squeeze, bytes);
	int r = 0;

	if (step == MIG_SQUEEZE_SAMPLE)
		step = does_pay(copy, lane, first, count) ? MIG_SQUEEZE_LZ4 : MIG_SQUEEZE_RAW;
	if (step == MIG_SQUEEZE_RAW && lane->hot && !copy->bare)
		r = send_stable(copy, lane, first, count, err);
	else if (step == MIG_SQUEEZE_RAW)
		r = send_raw(copy, lane, first, count, page_at(copy, first), err);
	for (uint32_t at = 0; step == MIG_SQUEEZE_LZ4 && r == 0 && at < count; at += PACKED_PAGES)
		r = send_packed(copy, lane, first + at,
				count - at < PACKED_PAGES ? count - at : PACKED_PAGES, err);
	if (r == 0 && mig_squeeze_sent(&lane->squeeze, bytes))
		mig_squeeze_end(&lane->squeeze, base_clock_boot_ns(&base_clock_system),
				base_thread_cpu_ns());
	return r;
}

/* What is written from now on is in the log again.  A VM that stands still writes nothing. */
static int forget(struct mig_copy *copy, uint64_t first, uint64_t end, struct base_error *err)
{
	if (copy->log == NULL || copy->last)
		return 0;
	return copy->log->clear(copy->log_context, first, end - first, &copy->dirty[first / 64],
				err);
}

/* Runs of dirty pages that are all zero or all not. */
static int send_span(struct mig_copy *copy, struct lane *lane, uint64_t span,
		     struct base_error *err)
{
	uint64_t page = span * SPAN_PAGES;
	uint64_t end = page + SPAN_PAGES < copy->page_count ? page + SPAN_PAGES : copy->page_count;
	int gone = 0;

	if (next_dirty(copy, page, end) == end)
		return 0;
	lane->chunk_count = 0;
#ifndef GODWIT_MUTANT_MIG_CLEAR_LATE
	gone = forget(copy, page, end, err);
#endif
	if (gone < 0)
		return gone;
	for (page = next_dirty(copy, page, end); page < end; page = next_dirty(copy, page, end)) {
		uint64_t first = page;
		bool zero = false;
		int r = 0;

		zero = base_is_zero(page_at(copy, first), MIG_PAGE_BYTES);
		do {
			page++;
		} while (page < end && is_dirty(copy, page) &&
			 base_is_zero(page_at(copy, page), MIG_PAGE_BYTES) == zero);
		r = zero ? send_zeros(copy, lane, first, (uint32_t)(page - first), err)
			 : send_pages(copy, lane, first, (uint32_t)(page - first), err);
		if (r < 0)
			return r;
	}
	copy->generations[span] = round_begin(copy) + lane->chunk_count;
#ifdef GODWIT_MUTANT_MIG_CLEAR_LATE
	gone = flush(lane, err);
	if (gone == 0)
		gone = forget(copy, span * SPAN_PAGES, end, err);
#endif
	return gone;
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

/* A channel has failed, or it is time. */
static bool is_over(struct mig_copy *copy)
{
	return atomic_load(&copy->stop) ||
	       (copy->deadline_ns != 0 &&
		base_clock_boot_ns(&base_clock_system) >= copy->deadline_ns);
}

static int in_order(struct mig_copy *copy, struct lane *lane, uint32_t channel,
		    struct base_error *err)
{
	uint64_t span = next_span(copy, channel, 0, true);
	int r = 0;

	while (r == 0 && span < copy->span_count && !is_over(copy)) {
		r = send_span(copy, lane, span, err);
		span = next_span(copy, channel, span, false);
	}
	return r;
}

/*
 * The first round: spans in an order that has nothing to do with where they are, since what the
 * guest writes is seldom spread evenly, and it takes a while until it is known; those that it
 * writes to behind all others.  A span that was sent has a generation of the round.
 */
static int by_heat(struct mig_copy *copy, struct lane *lane, uint32_t channel,
		   struct base_error *err)
{
	uint64_t count =
		(copy->span_count + copy->channel_count - 1 - channel) / copy->channel_count;
	uint64_t stride = mig_heat_stride(count);
	uint64_t at = 0;
	int r = 0;

	for (uint64_t i = 0; r == 0 && i < 2 * count && !is_over(copy); i++) {
		uint64_t span = channel + at * copy->channel_count;

		at = (at + stride) % count;
		lane->hot = i >= count;
		if (copy->generations[span] <= round_begin(copy) &&
		    (i >= count || !mig_heat_is_hot(copy->heat, span)))
			r = send_span(copy, lane, span, err);
	}
	return r;
}

static int channel_round(void *context, uint64_t index, struct base_error *err)
{
	struct mig_copy *copy = context;
	uint32_t channel = (uint32_t)index;
	struct lane *lane = &copy->lanes[channel];
	uint8_t barrier[MIG_NUMBER_BYTES];
	int r = 0;

	empty(lane); /* of a round that broke off */
	lane->hot = copy->log != NULL && !copy->last;
#ifdef GODWIT_MUTANT_MIG_STABLE
	lane->hot = false;
#endif
	mig_squeeze_start(&lane->squeeze, base_clock_boot_ns(&base_clock_system),
			  base_thread_cpu_ns());
	r = copy->heat != NULL && copy->round == 0 && !copy->last
		    ? by_heat(copy, lane, channel, err)
		    : in_order(copy, lane, channel, err);
	if (r == 0)
		r = flush(lane, err);
	if (r == 0 && copy->images != NULL && !is_over(copy))
		r = mig_image_send(copy->images, channel + 1, lane->link, &copy->stop, err);
	mig_barrier_encode(copy->round, barrier);
	if (r == 0 && !atomic_load(&copy->stop))
		r = mig_link_send(lane->link, MIG_TYPE_BARRIER, barrier, sizeof(barrier), err);
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
	copy->turn++;
	copy->last = last;
	atomic_store(&copy->stop, false);
	atomic_store(&copy->next_span, 0);
	if (copy->images != NULL)
		mig_image_begin(copy->images, number, last);
	if (copy->heat != NULL && number == 0 && !last)
		r = mig_heat_begin(copy->heat, dirty, err);
	if (r == 0)
		r = base_pool_each(copy->pool, copy->channel_count, channel_round, copy, err);
	return r;
}

void mig_copy_set_deadline(struct mig_copy *copy, uint64_t deadline_ns)
{
	copy->deadline_ns = deadline_ns;
	if (copy->images != NULL)
		mig_image_set_deadline(copy->images, deadline_ns);
}

void mig_copy_confirmed(struct mig_copy *copy)
{
	if (copy->images != NULL)
		mig_image_confirmed(copy->images);
}

/* --- after a cut --- */

static void take_out(const struct mig_copy *copy, uint64_t span, uint64_t *dirty)
{
	uint64_t end = (span + 1) * SPAN_PAGES;

	if (end > copy->page_count)
		end = copy->page_count; /* bits behind the last page are not there */
	for (uint64_t word = span * SPAN_PAGES / 64; word * 64 < end; word++)
		dirty[word] = 0;
}

int mig_copy_have(struct mig_copy *copy, const struct mig_have *have, uint64_t *dirty,
		  uint64_t *ret_spans, struct base_error *err)
{
	*ret_spans = 0;
	if (have->object > 0)
		return mig_image_have(copy->images, have, ret_spans, err);
	if (have->first > copy->span_count || have->count > copy->span_count - have->first)
		return base_fail(err, -EBADMSG,
				 "migration have: spans %" PRIu64 "+%" PRIu32
				 " of memory, which has %" PRIu64,
				 have->first, have->count, copy->span_count);
	for (uint32_t i = 0; i < have->count; i++) {
		uint64_t sent = copy->generations[have->first + i];

		if (sent <= round_begin(copy))
			continue; /* of an earlier round: this one has not got there */
#ifndef GODWIT_MUTANT_MIG_RESUME_HAVE
		if (mig_have_generation(have, i) != sent)
			continue;
#endif
		take_out(copy, have->first + i, dirty);
		++*ret_spans;
	}
	return 0;
}

uint64_t mig_copy_again_bytes(const struct mig_copy *copy, const uint64_t *dirty)
{
	uint64_t bytes = copy->images != NULL ? mig_image_again_bytes(copy->images) : 0;

	for (uint64_t span = 0; span < copy->span_count; span++) {
		uint64_t end = (span + 1) * SPAN_PAGES;

		if (copy->generations[span] <= round_begin(copy))
			continue;
		end = end < copy->page_count ? end : copy->page_count;
		for (uint64_t word = span * SPAN_PAGES / 64; word * 64 < end; word++)
			bytes += (uint64_t)__builtin_popcountll(dirty[word]) * MIG_PAGE_BYTES;
	}
	return bytes;
}

void mig_copy_relink(struct mig_copy *copy, struct mig_link *const *links)
{
	for (uint32_t i = 0; i < copy->channel_count; i++)
		copy->lanes[i].link = links[i];
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
