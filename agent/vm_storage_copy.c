/* SPDX-License-Identifier: Apache-2.0 */
#include "agent/vm_storage_copy.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "base/bytes.h"
#include "base/pool.h"

#define THREADS        4u /* reads and writes of as many spans overlap; they wait, mostly */
#define SPAN_SECTORS   (MIG_SPAN_BYTES / MIG_SECTOR_BYTES)
#define SPAN_GRANULES  (MIG_SPAN_BYTES / MIG_GRANULE_BYTES)
#define SPAN_MASK      ((1u << SPAN_GRANULES) - 1)
#define SPANS_PER_WORD (64u / SPAN_GRANULES)
#define NO_SPAN        UINT64_MAX
#define BUFFER_ALIGN   4096u /* of any store */

struct object {
	uint64_t sector_count;
	uint64_t first_word; /* of its bits; they begin with a word */
};

struct vm_storage_copy {
	struct vm_storage_copy_options options;
	struct object *objects; /* [object_count + 1]: the last one says where the bits end */
	uint32_t object_count;
	uint64_t *dirty; /* a bit a granule, of all objects */
	uint8_t *buffers[THREADS];
	struct base_pool *pool;
	bool last;
	atomic_bool stop; /* a thread has failed */
	atomic_uint_fast64_t next_span;
	atomic_uint_fast64_t data_bytes;
	atomic_uint_fast64_t clear_bytes;
	atomic_uint_fast64_t unmap_bytes;
};

/* A span under way. */
struct span {
	struct vm_storage_copy *copy;
	uint8_t *buffer;
	uint16_t object;
	uint64_t first; /* sector */
};

static uint64_t words_of(uint64_t sector_count)
{
	return sector_count / (64u * (uint64_t)MIG_GRANULE_SECTORS) + 1;
}

static int tables_new(struct vm_storage_copy *copy, const struct mig_plan *plan)
{
	uint64_t words = 0;

	copy->object_count = plan->object_count;
	copy->objects = calloc((size_t)plan->object_count + 1, sizeof(*copy->objects));
	if (copy->objects == NULL)
		return -ENOMEM;
	for (uint32_t i = 1; i < plan->object_count; i++) {
		uint64_t count = plan->objects[i].object.unit_count;

		copy->objects[i] = (struct object){ .sector_count = count, .first_word = words };
		words += words_of(count);
	}
	copy->objects[plan->object_count].first_word = words;
	copy->dirty = calloc(words + 1, sizeof(*copy->dirty));
	for (uint32_t i = 0; i < THREADS; i++) {
		copy->buffers[i] = aligned_alloc(BUFFER_ALIGN, MIG_SPAN_BYTES);
		if (copy->buffers[i] == NULL)
			return -ENOMEM;
	}
	return copy->dirty != NULL ? 0 : -ENOMEM;
}

int vm_storage_copy_new(const struct vm_storage_copy_options *options,
			struct vm_storage_copy **ret_copy, struct base_error *err)
{
	struct vm_storage_copy *copy = calloc(1, sizeof(*copy));
	int code = 0;

	if (copy == NULL)
		return base_fail(err, -ENOMEM, "storage migration");
	copy->options = *options;
	if (tables_new(copy, options->plan) < 0)
		code = base_fail(err, -ENOMEM, "storage migration of %" PRIu32 " images",
				 options->plan->object_count - 1);
	if (code == 0) /* the caller is the last of them */
		code = base_pool_new(THREADS - 1, "disk-move", &copy->pool, err);
	if (code < 0) {
		vm_storage_copy_free(copy);
		return code;
	}
	*ret_copy = copy;
	return 0;
}

void vm_storage_copy_free(struct vm_storage_copy *copy)
{
	if (copy == NULL)
		return;
	base_pool_free(copy->pool);
	for (uint32_t i = 0; i < THREADS; i++)
		free(copy->buffers[i]);
	free(copy->objects);
	free(copy->dirty);
	free(copy);
}

struct vm_storage_copy_counts vm_storage_copy_counts(const struct vm_storage_copy *copy)
{
	return (struct vm_storage_copy_counts){
		.data_bytes = atomic_load(&copy->data_bytes),
		.clear_bytes = atomic_load(&copy->clear_bytes),
		.unmap_bytes = atomic_load(&copy->unmap_bytes),
	};
}

/* --- what to copy --- */

static uint64_t word_count(const struct vm_storage_copy *copy)
{
	return copy->objects[copy->object_count].first_word;
}

int vm_storage_copy_harvest(struct vm_storage_copy *copy, uint64_t *ret_left_bytes,
			    struct base_error *err)
{
	uint64_t granules = 0;

	for (uint32_t i = 1; i < copy->object_count; i++) {
		int code =
			vm_migrate_out_ops.harvest(copy->options.out, (uint16_t)i, false,
						   copy->dirty + copy->objects[i].first_word, err);

		if (code < 0)
			return code;
	}
	for (uint64_t word = 0; word < word_count(copy); word++)
		granules += (uint64_t)__builtin_popcountll(copy->dirty[word]);
	*ret_left_bytes = granules * MIG_GRANULE_BYTES;
	atomic_store(&copy->options.view->left_bytes, *ret_left_bytes);
	return 0;
}

static uint32_t span_bits(const struct vm_storage_copy *copy, uint64_t span)
{
	return (uint32_t)(copy->dirty[span / SPANS_PER_WORD] >>
			  span % SPANS_PER_WORD * SPAN_GRANULES) &
	       SPAN_MASK;
}

/* The first span from @span on with something to copy. */
static uint64_t find_span(const struct vm_storage_copy *copy, uint64_t span)
{
	uint64_t end = word_count(copy) * SPANS_PER_WORD;

	while (span < end) {
		if (span % SPANS_PER_WORD == 0 && copy->dirty[span / SPANS_PER_WORD] == 0)
			span += SPANS_PER_WORD;
		else if (span_bits(copy, span) == 0)
			span++;
		else
			return span;
	}
	return NO_SPAN;
}

/* One that no other thread has. */
static uint64_t take_span(struct vm_storage_copy *copy)
{
	uint_fast64_t from = atomic_load(&copy->next_span);
	uint64_t span = 0;

	do {
		span = find_span(copy, from);
		if (span == NO_SPAN)
			return NO_SPAN;
	} while (!atomic_compare_exchange_weak(&copy->next_span, &from, span + 1));
	return span;
}

/* --- a span --- */

static int clear(const struct span *span, uint64_t first, uint32_t count, bool unmap,
		 struct base_error *err)
{
	struct vm_storage_copy *copy = span->copy;

	atomic_fetch_add_explicit(unmap ? &copy->unmap_bytes : &copy->clear_bytes,
				  (uint64_t)count * MIG_SECTOR_BYTES, memory_order_relaxed);
	return vm_migrate_in_ops.clear(copy->options.in, span->object, first, count, unmap, err);
}

static uint8_t *place(const struct span *span, uint64_t first)
{
	return span->buffer + (first - span->first) * MIG_SECTOR_BYTES;
}

/* From @first on: sectors up to the next granule's begin, or to @end. */
static uint32_t granule_rest(uint64_t first, uint64_t end)
{
	uint64_t next = first - first % MIG_GRANULE_SECTORS + MIG_GRANULE_SECTORS;

	return (uint32_t)((next < end ? next : end) - first);
}

static bool is_zero(const struct span *span, uint64_t first, uint32_t count)
{
	return base_is_zero(place(span, first), (size_t)count * MIG_SECTOR_BYTES);
}

/* What was read: runs of granules that are all zero or all not. */
static int copy_data(const struct span *span, uint64_t first, uint32_t count,
		     struct base_error *err)
{
	struct vm_storage_copy *copy = span->copy;
	uint64_t end = first + count;
	int code = vm_migrate_out_ops.read(copy->options.out, span->object, first,
					   place(span, first), count, err);

	while (code == 0 && first < end) {
		bool zero = is_zero(span, first, granule_rest(first, end));
		uint64_t at = first;

		do {
			at += granule_rest(at, end);
		} while (at < end && is_zero(span, at, granule_rest(at, end)) == zero);
		if (zero)
			code = clear(span, first, (uint32_t)(at - first), false, err);
		else
			code = vm_migrate_in_ops.write(copy->options.in, span->object, first,
						       place(span, first), (uint32_t)(at - first),
						       err);
		if (!zero)
			atomic_fetch_add_explicit(&copy->data_bytes,
						  (at - first) * MIG_SECTOR_BYTES,
						  memory_order_relaxed);
		first = at;
	}
	return code;
}

static int copy_run(const struct span *span, const struct mig_run *run, struct base_error *err)
{
	switch (run->kind) {
	case MIG_RUN_DATA:
		return copy_data(span, run->first, run->count, err);
	case MIG_RUN_ZERO:
		return clear(span, run->first, run->count, false, err);
	case MIG_RUN_UNMAPPED:
		return clear(span, run->first, run->count, true, err);
	case MIG_RUN_NOTHING:
		return 0;
	case MIG_RUN_INVALID:
	case MIG_RUN_KINDS:
	default:
		base_bug("run of kind %d", (int)run->kind);
	}
}

static int copy_range(const struct span *span, uint64_t first, uint64_t end, struct base_error *err)
{
	while (first < end) {
		struct mig_map map = { .first = first, .count = (uint32_t)(end - first) };
		int code = vm_migrate_out_ops.map(span->copy->options.out, span->object, &map, err);

		if (code < 0)
			return code;
		base_assert(map.run_count > 0 && map.runs[0].first == first);
		for (uint32_t i = 0; i < map.run_count && first < end; i++) {
			struct mig_run run = map.runs[i];

			if (run.count > end - first)
				run.count = (uint32_t)(end - first);
			code = copy_run(span, &run, err);
			if (code < 0)
				return code;
			first += run.count;
		}
	}
	return 0;
}

/* Runs of granules that were written. */
static int copy_span(const struct span *span, uint32_t bits, struct base_error *err)
{
	uint64_t limit = span->copy->objects[span->object].sector_count;

	for (uint32_t granule = 0; granule < SPAN_GRANULES; granule++) {
		uint64_t first = span->first + (uint64_t)granule * MIG_GRANULE_SECTORS;
		uint64_t stop = 0;
		int code = 0;

		if ((bits & 1u << granule) == 0)
			continue;
		while (granule + 1 < SPAN_GRANULES && (bits & 1u << (granule + 1)) != 0)
			granule++;
		stop = span->first + (uint64_t)(granule + 1) * MIG_GRANULE_SECTORS;
		code = copy_range(span, first, stop < limit ? stop : limit, err);
		if (code < 0)
			return code;
	}
	return 0;
}

/* --- a round --- */

/* The object of @number, not before @from. */
static uint16_t object_at(const struct vm_storage_copy *copy, uint64_t number, uint16_t from)
{
	uint16_t object = from;

	while (number >= copy->objects[object + 1].first_word * SPANS_PER_WORD)
		object++;
	return object;
}

static void tell(struct vm_storage_copy *copy, uint64_t bytes)
{
	struct vm_storage_view *view = copy->options.view;
	uint64_t done = atomic_fetch_add(&view->done_bytes, bytes) + bytes;
	uint64_t left = atomic_fetch_sub(&view->left_bytes, bytes) - bytes;
	unsigned int percent = (unsigned int)((double)done * 99 / (double)(done + left));
	unsigned int before = atomic_load(&view->percent);

	while (percent > before && !atomic_compare_exchange_weak(&view->percent, &before, percent))
		;
}

static int run_thread(void *context, uint64_t index, struct base_error *err)
{
	struct vm_storage_copy *copy = context;
	struct span span = { .copy = copy, .buffer = copy->buffers[index], .object = 1 };

	while (!atomic_load(&copy->stop)) {
		uint64_t number = take_span(copy);
		uint32_t bits = 0;
		uint64_t bytes = 0;
		int code = 0;

		if (number == NO_SPAN)
			return 0;
		bits = span_bits(copy, number);
		bytes = (uint64_t)__builtin_popcount(bits) * MIG_GRANULE_BYTES;
		span.object = object_at(copy, number, span.object);
		span.first = (number - copy->objects[span.object].first_word * SPANS_PER_WORD) *
			     SPAN_SECTORS;
		if (!copy->last) {
			mig_rate_wait(copy->options.rate, bytes, &copy->options.view->cancel);
			if (atomic_load(&copy->options.view->cancel))
				code = base_fail(err, -ECANCELED, "cancelled");
		}
		if (code == 0)
			code = copy_span(&span, bits, err);
		if (code < 0) {
			atomic_store(&copy->stop, true);
			return code;
		}
		tell(copy, bytes);
	}
	return 0;
}

int vm_storage_copy_round(struct vm_storage_copy *copy, bool last, struct base_error *err)
{
	int code = 0;

	copy->last = last;
	atomic_store(&copy->next_span, 0);
	if (base_io_loop_is_owner(copy->options.loop))
		code = run_thread(copy, 0, err);
	else
		code = base_pool_each(copy->pool, THREADS, run_thread, copy, err);
	if (code < 0)
		return code;
	memset(copy->dirty, 0, word_count(copy) * sizeof(*copy->dirty));
	atomic_fetch_add(&copy->options.view->round, 1);
	return 0;
}
