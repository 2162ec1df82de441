/* SPDX-License-Identifier: Apache-2.0 */
#include "migrate/mig_waits_priv.h"

#define SUBS 8u /* of a doubling */

bool mig_waits_add(struct mig_waits *waits, uint64_t page, uint64_t now_ns)
{
	for (uint32_t i = 0; i < waits->count; i++)
		if (waits->list[i].page == page)
			return false;
	if (waits->count == MIG_WAITS_MAX)
		return false;
	waits->list[waits->count++] =
		(struct mig_wait){ .page = page, .since_ns = now_ns, .asked_ns = now_ns };
	return true;
}

/* Exact below SUBS; then the top four bits. */
static uint32_t bucket_of(uint64_t ns)
{
	uint32_t power = ns >= SUBS ? 63u - (uint32_t)__builtin_clzll(ns) : 0;

	if (ns < SUBS)
		return (uint32_t)ns;
	return (power - 2) * SUBS + (uint32_t)(ns >> (power - 3)) % SUBS;
}

/* The largest that is counted there. */
static uint64_t length_of(uint32_t bucket)
{
	uint32_t shift = bucket / SUBS - 1;

	if (bucket < SUBS)
		return bucket;
	return ((uint64_t)(SUBS + bucket % SUBS + 1) << shift) - 1;
}

void mig_waits_end(struct mig_waits *waits, uint64_t page, uint64_t now_ns)
{
	uint64_t ns = 0;
	uint32_t at = 0;

	while (at < waits->count && waits->list[at].page != page)
		at++;
	if (at == waits->count)
		return;
	ns = now_ns > waits->list[at].since_ns ? now_ns - waits->list[at].since_ns : 0;
	waits->list[at] = waits->list[--waits->count];
	waits->total++;
	waits->lengths[bucket_of(ns)]++;
	if (ns > waits->longest_ns)
		waits->longest_ns = ns;
}

uint32_t mig_waits_list(struct mig_waits *waits, uint64_t *ret_pages, uint64_t now_ns)
{
	for (uint32_t i = 0; i < waits->count; i++) {
		waits->list[i].asked_ns = now_ns;
		ret_pages[i] = waits->list[i].page;
	}
	return waits->count;
}

uint64_t mig_waits_oldest(const struct mig_waits *waits)
{
	uint64_t oldest = UINT64_MAX / 2;

	for (uint32_t i = 0; i < waits->count; i++)
		if (waits->list[i].asked_ns < oldest)
			oldest = waits->list[i].asked_ns;
	return oldest;
}

static uint64_t quantile(const struct mig_waits *waits, uint64_t percent)
{
	uint64_t rank = waits->total / 100 * percent + waits->total % 100 * percent / 100;
	uint64_t seen = 0;

	for (uint32_t i = 0; i < MIG_WAIT_BUCKETS; i++) {
		seen += waits->lengths[i];
		if (seen > rank)
			return length_of(i) < waits->longest_ns ? length_of(i) : waits->longest_ns;
	}
	return waits->longest_ns;
}

void mig_waits_tell(const struct mig_waits *waits, struct mig_complete *complete)
{
	complete->waits = waits->total;
	complete->p50_ns = quantile(waits, 50);
	complete->p99_ns = quantile(waits, 99);
	complete->longest_ns = waits->longest_ns;
}
