/* SPDX-License-Identifier: Apache-2.0 */
#include "agent/vm_migrate_ahead.h"

#include <errno.h>
#include <pthread.h>
#include <stdlib.h>

#include "base/cleanup.h"
#include "base/clock.h"
#include "base/thread.h"

#define STEP_PAGES                                                                                 \
	2u /* huge ones, between looks at whether it shall end: a VM may wait for that             \
	    */
#define HUGE_WORDS (HV_HUGE_PAGE_BYTES / HV_PAGE_BYTES / 64u)

struct vm_ahead {
	struct hv_memory *memory;
	struct vm_touched touched;
	pthread_t thread;
	pthread_mutex_t lock; /* a leaf: what follows */
	pthread_cond_t changed;
	uint64_t came_bytes;
	bool stop;
	bool over;
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

/* Waits until more than @done_bytes may have been touched; false: it shall end. */
static bool may_go_on(struct vm_ahead *ahead, uint64_t done_bytes)
{
	BASE_LOCKED(&ahead->lock);

	while (!ahead->stop && done_bytes >= VM_AHEAD_FIRST_BYTES &&
	       (done_bytes - VM_AHEAD_FIRST_BYTES) / VM_AHEAD_TIMES >= ahead->came_bytes)
		(void)base_cond_wait(&ahead->changed, &ahead->lock, BASE_TIME_NEVER);
	return !ahead->stop;
}

/* Failure is told where the page is needed. */
static void *populate(void *context)
{
	struct vm_ahead *ahead = context;
	uint64_t end = hv_memory_size(ahead->memory) / HV_HUGE_PAGE_BYTES;
	uint64_t done_bytes = 0;

	for (uint32_t i = 0; i < ahead->touched.count; i++) {
		uint64_t at = ahead->touched.runs[i].first;
		uint64_t left = ahead->touched.runs[i].count;

		while (left > 0 && at < end && may_go_on(ahead, done_bytes)) {
			uint64_t count = left < STEP_PAGES ? left : STEP_PAGES;

			count = count < end - at ? count : end - at;
			(void)!hv_memory_touch(ahead->memory, at * HV_HUGE_PAGE_BYTES,
					       count * HV_HUGE_PAGE_BYTES, NULL);
			at += count;
			left -= count;
			done_bytes += count * HV_HUGE_PAGE_BYTES;
		}
	}
	BASE_LOCKED(&ahead->lock);
	ahead->over = true;
	return NULL;
}

static void ahead_free(struct vm_ahead *ahead)
{
	(void)pthread_cond_destroy(&ahead->changed);
	(void)pthread_mutex_destroy(&ahead->lock);
	free(ahead);
}

int vm_ahead_start(struct hv_memory *memory, const struct vm_touched *touched,
		   struct vm_ahead **ret_ahead, struct base_error *err)
{
	struct vm_ahead *ahead = calloc(1, sizeof(*ahead));
	int r = 0;

	if (ahead == NULL)
		return base_fail(err, -ENOMEM, "memory ahead of arrival");
	if (pthread_mutex_init(&ahead->lock, NULL) != 0)
		base_bug("memory ahead: no mutex");
	(void)pthread_cond_init(&ahead->changed, NULL); /* cannot fail on Linux */
	ahead->memory = memory;
	ahead->touched = *touched;
	r = base_thread_start(&ahead->thread, "vm-ahead", populate, ahead, err);
	if (r < 0) {
		ahead_free(ahead);
		return r;
	}
	*ret_ahead = ahead;
	return 0;
}

void vm_ahead_came(struct vm_ahead *ahead, uint64_t bytes)
{
	BASE_LOCKED(&ahead->lock);

	if (bytes > ahead->came_bytes) /* channels may overtake each other */
		ahead->came_bytes = bytes;
	(void)pthread_cond_signal(&ahead->changed);
}

bool vm_ahead_is_over(struct vm_ahead *ahead)
{
	BASE_LOCKED(&ahead->lock);

	return ahead->over;
}

void vm_ahead_stop(struct vm_ahead *ahead)
{
	if (ahead == NULL)
		return;
	{
		BASE_LOCKED(&ahead->lock);

		ahead->stop = true;
		(void)pthread_cond_signal(&ahead->changed);
	}
	base_thread_join(ahead->thread);
	ahead_free(ahead);
}
