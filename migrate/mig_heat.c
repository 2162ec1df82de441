/* SPDX-License-Identifier: Apache-2.0 */
#include "migrate/mig_heat.h"

#include <errno.h>
#include <inttypes.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>

#include "base/cleanup.h"
#include "base/clock.h"
#include "migrate/mig_wire.h"

#define SPAN_WORDS  (MIG_SPAN_BYTES / MIG_PAGE_BYTES / 64u)
#define DENSE_WORDS (UINT64_C(1) << 16) /* 16 GiB; more memory has one page a span */
#define LOOK_NS     (2 * BASE_NS_PER_MS)
#define LOOK_SHARE  50u /* of the time, at most, goes by in looks */

struct mig_heat {
	const struct mig_dirty_ops *log;
	void *log_context;
	uint64_t page_count;
	uint64_t word_count;
	uint64_t span_count;
	const uint64_t *dirty; /* of the round */
	atomic_bool *hot;      /* by span */
	atomic_uint_fast64_t next_look_ns;

	pthread_mutex_t lock; /* a leaf but for the log's: one look at a time */
	uint64_t *bits;
};

BASE_DEFINE_FREEP(struct mig_heat, mig_heat_free);

int mig_heat_new(const struct mig_dirty_ops *log, void *log_context, uint64_t page_count,
		 struct mig_heat **ret_heat, struct base_error *err)
{
	BASE_CLEANUP(mig_heat_freep) struct mig_heat *heat = calloc(1, sizeof(*heat));

	if (heat == NULL)
		return base_fail(err, -ENOMEM, "migration: heat");
	(void)pthread_mutex_init(&heat->lock, NULL);
	heat->log = log;
	heat->log_context = log_context;
	heat->page_count = page_count;
	heat->word_count = page_count / 64 + (page_count % 64 != 0);
	heat->span_count = heat->word_count / SPAN_WORDS + (heat->word_count % SPAN_WORDS != 0);
	heat->bits = calloc(heat->word_count + 1, sizeof(*heat->bits));
	heat->hot = calloc(heat->span_count + 1, sizeof(*heat->hot));
	if (heat->bits == NULL || heat->hot == NULL)
		return base_fail(err, -ENOMEM, "migration: heat of %" PRIu64 " pages", page_count);
	*ret_heat = base_take(&heat);
	return 0;
}

void mig_heat_free(struct mig_heat *heat)
{
	if (heat == NULL)
		return;
	(void)pthread_mutex_destroy(&heat->lock);
	free(heat->bits);
	free(heat->hot);
	free(heat);
}

/* The page that tells for a word of the bitmap, or none.  Not the same one in each: what a guest
 * writes may lie at even distances.  Only what is sent anyway may be forgotten. */
static uint64_t telling(const struct mig_heat *heat, uint64_t word)
{
	if (heat->word_count > DENSE_WORDS && word % SPAN_WORDS != 0)
		return 0;
#ifdef GODWIT_MUTANT_MIG_HEAT_ALL
	return 1ULL << word * 29 % 64;
#else
	return 1ULL << word * 29 % 64 & heat->dirty[word];
#endif
}

int mig_heat_begin(struct mig_heat *heat, const uint64_t *dirty, struct base_error *err)
{
	BASE_LOCKED(&heat->lock);

	heat->dirty = dirty;
	for (uint64_t word = 0; word < heat->word_count; word++)
		heat->bits[word] = telling(heat, word);
	for (uint64_t span = 0; span < heat->span_count; span++)
		atomic_store(&heat->hot[span], false);
	atomic_store(&heat->next_look_ns, base_clock_boot_ns(&base_clock_system) + LOOK_NS);
	return heat->log->clear(heat->log_context, 0, heat->page_count, heat->bits, err);
}

static void look(struct mig_heat *heat, uint64_t begin_ns)
{
	uint64_t end_ns = 0;

	/* A log that cannot be read fails the round where it counts. */
	if (heat->log->get(heat->log_context, heat->bits, NULL) == 0)
		for (uint64_t word = 0; word < heat->word_count; word++)
			if ((heat->bits[word] & telling(heat, word)) != 0)
				atomic_store_explicit(&heat->hot[word / SPAN_WORDS], true,
						      memory_order_relaxed);
	end_ns = base_clock_boot_ns(&base_clock_system);
	atomic_store(&heat->next_look_ns, end_ns + LOOK_NS + LOOK_SHARE * (end_ns - begin_ns));
}

bool mig_heat_is_hot(struct mig_heat *heat, uint64_t span)
{
	uint64_t now_ns = base_clock_boot_ns(&base_clock_system);

	if (now_ns >= atomic_load(&heat->next_look_ns) && pthread_mutex_trylock(&heat->lock) == 0) {
		look(heat, now_ns);
		(void)pthread_mutex_unlock(&heat->lock);
	}
	return atomic_load_explicit(&heat->hot[span], memory_order_relaxed);
}

void mig_heat_leave(uint64_t *next, const uint64_t *sent, uint64_t *log, size_t words,
		    uint64_t room)
{
	uint64_t hot = 0;
	uint64_t other = 0;

	for (size_t i = 0; i < words; i++) {
		log[i] &= next[i] & sent[i];
		hot += (uint64_t)__builtin_popcountll(log[i]);
		other += (uint64_t)__builtin_popcountll(next[i] & ~log[i]);
	}
	if (other == 0 || hot > room)
		return;
	for (size_t i = 0; i < words; i++)
		next[i] &= ~log[i];
}

static uint64_t common_divisor(uint64_t a, uint64_t b)
{
	while (b != 0) {
		uint64_t rest = a % b;

		a = b;
		b = rest;
	}
	return a;
}

uint64_t mig_heat_stride(uint64_t count)
{
	uint64_t stride =
		count / 8 * 5 + 1; /* near the golden section, which leaves no gaps long */

	while (count > 0 && common_divisor(stride, count) != 1)
		stride++;
	return stride;
}
