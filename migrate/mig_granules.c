/* SPDX-License-Identifier: Apache-2.0 */
#include "migrate/mig_granules.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/bytes.h"

#define SPAN_SECTORS   (MIG_SPAN_BYTES / MIG_SECTOR_BYTES)
#define SPAN_GRANULES  (MIG_SPAN_BYTES / MIG_GRANULE_BYTES)
#define SPAN_MASK      ((1u << SPAN_GRANULES) - 1)
#define SPANS_PER_WORD (64u / SPAN_GRANULES)

static uint64_t words_of(uint64_t sector_count)
{
	return sector_count / (64u * (uint64_t)MIG_GRANULE_SECTORS) + 1;
}

static uint64_t word_count(const struct mig_granules *granules)
{
	return granules->objects[granules->object_count].first_word;
}

int mig_granules_init(struct mig_granules *granules, const uint64_t *sector_counts,
		      uint32_t object_count)
{
	uint64_t words = 0;

	granules->dirty = NULL;
	granules->object_count = object_count;
	granules->objects = calloc((size_t)object_count + 1, sizeof(*granules->objects));
	if (granules->objects == NULL)
		return -ENOMEM;
	for (uint32_t i = 1; i < object_count; i++) {
		granules->objects[i].sector_count = sector_counts[i];
		granules->objects[i].first_word = words;
		words += words_of(sector_counts[i]);
	}
	granules->objects[object_count].first_word = words;
	granules->dirty = calloc(words + 1, sizeof(*granules->dirty));
	return granules->dirty != NULL ? 0 : -ENOMEM;
}

void mig_granules_fini(struct mig_granules *granules)
{
	free(granules->objects);
	free(granules->dirty);
}

uint64_t *mig_granules_bits(const struct mig_granules *granules, uint16_t object)
{
	base_assert(object > 0 && object < granules->object_count);
	return granules->dirty + granules->objects[object].first_word;
}

uint64_t mig_granules_bytes(const struct mig_granules *granules)
{
	uint64_t count = 0;

	for (uint64_t word = 0; word < word_count(granules); word++)
		count += (uint64_t)__builtin_popcountll(granules->dirty[word]);
	return count * MIG_GRANULE_BYTES;
}

void mig_granules_clear(struct mig_granules *granules)
{
	memset(granules->dirty, 0, word_count(granules) * sizeof(*granules->dirty));
}

static uint32_t span_bits(const struct mig_granules *granules, uint64_t span)
{
	return (uint32_t)(granules->dirty[span / SPANS_PER_WORD] >>
			  span % SPANS_PER_WORD * SPAN_GRANULES) &
	       SPAN_MASK;
}

uint64_t mig_granules_span_count(const struct mig_granules *granules)
{
	return word_count(granules) * SPANS_PER_WORD;
}

uint64_t mig_granules_spans_of(const struct mig_granules *granules, uint16_t object,
			       uint64_t *ret_first)
{
	const struct mig_granules_object *objects = granules->objects;

	base_assert(object > 0 && object < granules->object_count);
	*ret_first = objects[object].first_word * SPANS_PER_WORD;
	return (objects[object + 1].first_word - objects[object].first_word) * SPANS_PER_WORD;
}

uint64_t mig_granules_span_bytes(const struct mig_granules *granules, uint64_t span)
{
	return (uint64_t)__builtin_popcount(span_bits(granules, span)) * MIG_GRANULE_BYTES;
}

void mig_granules_take_out(struct mig_granules *granules, uint64_t span)
{
	granules->dirty[span / SPANS_PER_WORD] &=
		~((uint64_t)SPAN_MASK << span % SPANS_PER_WORD * SPAN_GRANULES);
}

uint64_t mig_granules_find(const struct mig_granules *granules, uint64_t span)
{
	uint64_t end = word_count(granules) * SPANS_PER_WORD;

	while (span < end) {
		if (span % SPANS_PER_WORD == 0 && granules->dirty[span / SPANS_PER_WORD] == 0)
			span += SPANS_PER_WORD;
		else if (span_bits(granules, span) == 0)
			span++;
		else
			return span;
	}
	return MIG_NO_SPAN;
}

uint64_t mig_granules_take(const struct mig_granules *granules, atomic_uint_fast64_t *next)
{
	uint_fast64_t from = atomic_load(next);
	uint64_t span = 0;

	do {
		span = mig_granules_find(granules, from);
		if (span == MIG_NO_SPAN)
			return MIG_NO_SPAN;
	} while (!atomic_compare_exchange_weak(next, &from, span + 1));
	return span;
}

struct mig_granules_span mig_granules_span(const struct mig_granules *granules, uint64_t span,
					   uint16_t from)
{
	const struct mig_granules_object *objects = granules->objects;
	struct mig_granules_span found = { .object = from, .bits = span_bits(granules, span) };

	while (span >= objects[found.object + 1].first_word * SPANS_PER_WORD)
		found.object++;
	found.first = (span - objects[found.object].first_word * SPANS_PER_WORD) * SPAN_SECTORS;
	found.limit = objects[found.object].sector_count;
	return found;
}

bool mig_granules_run(const struct mig_granules_span *span, uint32_t *granule, uint64_t *ret_first,
		      uint64_t *ret_end)
{
	uint32_t end = 0;

	while (*granule < SPAN_GRANULES && (span->bits & 1u << *granule) == 0)
		(*granule)++;
	if (*granule == SPAN_GRANULES)
		return false;
	for (end = *granule; end < SPAN_GRANULES && (span->bits & 1u << end) != 0;)
		end++;
	*ret_first = span->first + (uint64_t)*granule * MIG_GRANULE_SECTORS;
	*ret_end = span->first + (uint64_t)end * MIG_GRANULE_SECTORS;
	if (*ret_end > span->limit)
		*ret_end = span->limit;
	*granule = end;
	return true;
}

uint64_t mig_granules_alike(const uint8_t *bytes, uint64_t first, uint64_t end, bool *ret_zero)
{
	uint64_t at = first;
	bool zero = false;

	do {
		uint64_t next = at - at % MIG_GRANULE_SECTORS + MIG_GRANULE_SECTORS;
		size_t size_bytes = 0;

		next = next < end ? next : end;
		size_bytes = (size_t)(next - at) * MIG_SECTOR_BYTES;
		zero = base_is_zero(bytes + (at - first) * MIG_SECTOR_BYTES, size_bytes);
		if (at == first)
			*ret_zero = zero;
		if (zero == *ret_zero)
			at = next;
	} while (at < end && zero == *ret_zero);
	return at;
}
