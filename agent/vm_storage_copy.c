/* SPDX-License-Identifier: Apache-2.0 */
#include "agent/vm_storage_copy.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "base/pool.h"
#include "migrate/mig_granules.h"
#include "migrate/mig_map.h"

#define THREADS      4u    /* reads and writes of as many spans overlap; they wait, mostly */
#define BUFFER_ALIGN 4096u /* of any store */

struct vm_storage_copy {
	struct vm_storage_copy_options options;
	struct mig_granules granules; /* to be copied */
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
	struct mig_granules_span at;
	struct mig_map_cursor cursor; /* never older than the harvest of this round */
};

static int tables_new(struct vm_storage_copy *copy, const struct mig_plan *plan)
{
	uint64_t counts[MIG_OBJECTS_MAX];

	for (uint32_t i = 1; i < plan->object_count; i++)
		counts[i] = plan->objects[i].object.unit_count;
	if (mig_granules_init(&copy->granules, counts, plan->object_count) < 0)
		return -ENOMEM;
	for (uint32_t i = 0; i < THREADS; i++) {
		copy->buffers[i] = aligned_alloc(BUFFER_ALIGN, MIG_SPAN_BYTES);
		if (copy->buffers[i] == NULL)
			return -ENOMEM;
	}
	return 0;
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
	mig_granules_fini(&copy->granules);
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

int vm_storage_copy_harvest(struct vm_storage_copy *copy, uint64_t *ret_left_bytes,
			    struct base_error *err)
{
	for (uint32_t i = 1; i < copy->granules.object_count; i++) {
		int code = vm_migrate_out_ops.harvest(
			copy->options.out, (uint16_t)i, false,
			mig_granules_bits(&copy->granules, (uint16_t)i), err);

		if (code < 0)
			return code;
	}
	*ret_left_bytes = mig_granules_bytes(&copy->granules);
	atomic_store(&copy->options.view->left_bytes, *ret_left_bytes);
	return 0;
}

/* --- a span --- */

static int clear(const struct span *span, uint64_t first, uint32_t count, bool unmap,
		 struct base_error *err)
{
	struct vm_storage_copy *copy = span->copy;

	atomic_fetch_add_explicit(unmap ? &copy->unmap_bytes : &copy->clear_bytes,
				  (uint64_t)count * MIG_SECTOR_BYTES, memory_order_relaxed);
	return vm_migrate_in_ops.clear(copy->options.in, span->at.object, first, count, unmap, err);
}

/* What was read: runs of granules that are all zero or all not. */
static int copy_data(const struct span *span, uint64_t first, uint32_t count,
		     struct base_error *err)
{
	struct vm_storage_copy *copy = span->copy;
	uint64_t end = first + count;
	uint8_t *bytes = span->buffer + (first - span->at.first) * MIG_SECTOR_BYTES;
	int code = vm_migrate_out_ops.read(copy->options.out, span->at.object, first, bytes, count,
					   err);

	while (code == 0 && first < end) {
		bool zero = false;
		uint64_t at = mig_granules_alike(bytes, first, end, &zero);

		if (zero)
			code = clear(span, first, (uint32_t)(at - first), false, err);
		else
			code = vm_migrate_in_ops.write(copy->options.in, span->at.object, first,
						       bytes, (uint32_t)(at - first), err);
		if (!zero)
			atomic_fetch_add_explicit(&copy->data_bytes,
						  (at - first) * MIG_SECTOR_BYTES,
						  memory_order_relaxed);
		bytes += (at - first) * MIG_SECTOR_BYTES;
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

static int copy_range(struct span *span, uint64_t first, uint64_t end, struct base_error *err)
{
	const struct mig_mapped mapped = { .map = vm_migrate_out_ops.map,
					   .context = span->copy->options.out,
					   .object = span->at.object,
					   .sector_count = span->at.limit };

	while (first < end) {
		struct mig_run run;
		int code = mig_map_part(&span->cursor, &mapped, first, end, &run, err);

		if (code == 0)
			code = copy_run(span, &run, err);
		if (code < 0)
			return code;
		first += run.count;
	}
	return 0;
}

/* Runs of granules that were written. */
static int copy_span(struct span *span, struct base_error *err)
{
	uint32_t granule = 0;
	uint64_t first = 0;
	uint64_t end = 0;

	while (mig_granules_run(&span->at, &granule, &first, &end)) {
		int code = copy_range(span, first, end, err);

		if (code < 0)
			return code;
	}
	return 0;
}

/* --- a round --- */

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
	struct span span = { .copy = copy, .buffer = copy->buffers[index], .at.object = 1 };

	while (!atomic_load(&copy->stop)) {
		uint64_t number = mig_granules_take(&copy->granules, &copy->next_span);
		uint64_t bytes = 0;
		int code = 0;

		if (number == MIG_NO_SPAN)
			return 0;
		span.at = mig_granules_span(&copy->granules, number, span.at.object);
		bytes = (uint64_t)__builtin_popcount(span.at.bits) * MIG_GRANULE_BYTES;
		if (!copy->last) {
			mig_rate_wait(copy->options.rate, bytes, &copy->options.view->cancel);
			if (atomic_load(&copy->options.view->cancel))
				code = base_fail(err, -ECANCELED, "cancelled");
		}
		if (code == 0)
			code = copy_span(&span, err);
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
	mig_granules_clear(&copy->granules);
	atomic_fetch_add(&copy->options.view->round, 1);
	return 0;
}
