/* SPDX-License-Identifier: Apache-2.0 */
#include "migrate/mig_yield.h"

#include "base/error.h"

void mig_yield_begin(struct mig_yield *yield)
{
	*yield = (struct mig_yield){ .window_bytes = MIG_YIELD_BYTES_MIN };
}

bool mig_yield_may(const struct mig_yield *yield, uint32_t bytes)
{
	if (yield->count == 0)
		return true;
	return yield->count < MIG_YIELD_MESSAGES && yield->way_bytes + bytes <= yield->window_bytes;
}

void mig_yield_sent(struct mig_yield *yield, uint64_t now_ns, uint32_t bytes)
{
	uint32_t at = (yield->first + yield->count) % MIG_YIELD_MESSAGES;

	base_assert(yield->count < MIG_YIELD_MESSAGES);
	yield->list[at].sent_ns = now_ns;
	yield->list[at].bytes = bytes;
	yield->count++;
	yield->way_bytes += bytes;
}

bool mig_yield_got(struct mig_yield *yield, uint64_t now_ns)
{
	uint64_t sent_ns = yield->list[yield->first].sent_ns;
	uint64_t took_ns = now_ns > sent_ns ? now_ns - sent_ns : 0;
	uint32_t bytes = yield->list[yield->first].bytes;
	uint64_t least = yield->window_bytes - MIG_YIELD_BYTES_MIN;

	if (yield->count == 0)
		return false;
	yield->first = (yield->first + 1) % MIG_YIELD_MESSAGES;
	yield->count--;
	yield->way_bytes -= bytes;
	if (yield->least_ns == 0 || took_ns < yield->least_ns)
		yield->least_ns = took_ns > 0 ? took_ns : 1;
	if (took_ns > 2 * yield->least_ns + MIG_YIELD_SLACK_NS)
		yield->window_bytes -= bytes < least ? bytes : least;
	else if (yield->window_bytes < MIG_YIELD_BYTES_MAX)
		yield->window_bytes += bytes;
	return true;
}
