/* SPDX-License-Identifier: Apache-2.0 */
#include "agent/vm_migrate_ahead.h"

#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>

#include "base/cleanup.h"
#include "base/thread.h"

#define STEP_PAGES 8u /* huge ones, between looks at whether it shall end */
#define HUGE_WORDS (HV_HUGE_PAGE_BYTES / HV_PAGE_BYTES / 64u)

struct vm_ahead {
	struct hv_memory *memory;
	struct vm_touched touched;
	pthread_t thread;
	atomic_bool stop;
	atomic_bool over;
};

static bool is_touched(const uint64_t *bits, uint64_t words, uint64_t grain, uint64_t scale)
{
	uint64_t end = (grain + 1) * scale * HUGE_WORDS;

	for (uint64_t word = grain * scale * HUGE_WORDS; word < end && word < words; word++)
		if (bits[word] != 0)
			return true;
	return false;
}

/* Runs of grains of @scale huge pages; false: there are more than fit. */
static bool collect(const uint64_t *bits, uint64_t words, uint64_t scale, struct vm_touched *into)
{
	uint64_t huge = words / HUGE_WORDS + (words % HUGE_WORDS != 0);
	uint64_t grains = huge / scale + (huge % scale != 0);
	bool inside = false;

	into->count = 0;
	for (uint64_t grain = 0; grain < grains; grain++) {
		uint64_t first = grain * scale;
		uint64_t count = huge - first < scale ? huge - first : scale;
		bool touched = is_touched(bits, words, grain, scale);

		if (touched && inside) {
			into->runs[into->count - 1].count += count;
		} else if (touched) {
			if (into->count == VM_TOUCHED_RUNS_MAX)
				return false;
			into->runs[into->count++] = (struct vm_touched_run){ first, count };
		}
		inside = touched;
	}
	return true;
}

void vm_touched_of(const uint64_t *bits, uint64_t page_count, struct vm_touched *ret_touched)
{
	uint64_t words = page_count / 64 + (page_count % 64 != 0);
	uint64_t scale = 1;

	while (!collect(bits, words, scale, ret_touched))
		scale *= 2;
}

/* Failure is told where the page is needed. */
static void *populate(void *context)
{
	struct vm_ahead *ahead = context;
	uint64_t end = hv_memory_size(ahead->memory) / HV_HUGE_PAGE_BYTES;

	for (uint32_t i = 0; i < ahead->touched.count; i++) {
		uint64_t at = ahead->touched.runs[i].first;
		uint64_t left = ahead->touched.runs[i].count;

		while (left > 0 && at < end && !atomic_load(&ahead->stop)) {
			uint64_t count = left < STEP_PAGES ? left : STEP_PAGES;

			count = count < end - at ? count : end - at;
			(void)!hv_memory_touch(ahead->memory, at * HV_HUGE_PAGE_BYTES,
					       count * HV_HUGE_PAGE_BYTES, NULL);
			at += count;
			left -= count;
		}
	}
	atomic_store(&ahead->over, true);
	return NULL;
}

int vm_ahead_start(struct hv_memory *memory, const struct vm_touched *touched,
		   struct vm_ahead **ret_ahead, struct base_error *err)
{
	struct vm_ahead *ahead = calloc(1, sizeof(*ahead));
	int r = 0;

	if (ahead == NULL)
		return base_fail(err, -ENOMEM, "memory ahead of arrival");
	ahead->memory = memory;
	ahead->touched = *touched;
	r = base_thread_start(&ahead->thread, "vm-ahead", populate, ahead, err);
	if (r < 0) {
		free(ahead);
		return r;
	}
	*ret_ahead = ahead;
	return 0;
}

bool vm_ahead_is_over(const struct vm_ahead *ahead)
{
	return atomic_load(&ahead->over);
}

void vm_ahead_stop(struct vm_ahead *ahead)
{
	if (ahead == NULL)
		return;
	atomic_store(&ahead->stop, true);
	base_thread_join(ahead->thread);
	free(ahead);
}
