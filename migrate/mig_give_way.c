/* SPDX-License-Identifier: Apache-2.0 */
/* A cap that yields to the heartbeat network. */
#include "migrate/mig_give_way.h"

#include <stdbool.h>

struct mig_give_way mig_give_way_begin(uint64_t floor_bytes_per_s, uint64_t most_bytes_per_s)
{
	return (struct mig_give_way){ .floor_bytes_per_s = floor_bytes_per_s,
				      .most_bytes_per_s = most_bytes_per_s,
				      .cap_bytes_per_s = most_bytes_per_s };
}

/* The shortest seen; a longer way is learnt, slowly, and never from what looks like queues. */
static void learn(struct mig_give_way *yield, uint64_t rtt_ns, bool crowded)
{
	if (yield->base_ns == 0 || rtt_ns < yield->base_ns)
		yield->base_ns = rtt_ns > 0 ? rtt_ns : 1;
	else if (!crowded)
		yield->base_ns += (rtt_ns - yield->base_ns) / 64;
}

static bool is_crowded(const struct mig_give_way *yield, uint64_t rtt_ns)
{
#ifdef GODWIT_MUTANT_MIG_GIVE_WAY
	return yield->base_ns > rtt_ns;
#endif
	if (rtt_ns == UINT64_MAX)
		return yield->base_ns != 0; /* who never answered says nothing */
	return yield->base_ns != 0 && rtt_ns > MIG_GIVE_WAY_SLACK_NS &&
	       (rtt_ns - MIG_GIVE_WAY_SLACK_NS) / 2 > yield->base_ns;
}

static uint64_t within(const struct mig_give_way *yield, uint64_t cap)
{
	uint64_t most = yield->most_bytes_per_s;

	if (most != 0 && cap > most)
		cap = most;
	return cap > yield->floor_bytes_per_s ? cap : yield->floor_bytes_per_s;
}

/* From what really goes, where that is less than what may. */
static void back_off(struct mig_give_way *yield, uint64_t sent_bytes_per_s)
{
	uint64_t from = yield->cap_bytes_per_s;

	if (from == 0 || (sent_bytes_per_s != 0 && sent_bytes_per_s < from))
		from = sent_bytes_per_s;
	yield->cap_bytes_per_s = within(yield, from / 10 * 7);
	yield->settle = MIG_GIVE_WAY_SETTLE;
	yield->backoffs++;
}

static void recover(struct mig_give_way *yield)
{
	uint64_t cap = yield->cap_bytes_per_s;
	uint64_t enough =
		yield->seen_bytes_per_s > UINT64_MAX / 2 ? UINT64_MAX : yield->seen_bytes_per_s * 2;

	/* What lets everything through that ever went is no cap that anybody feels. */
	if (cap == 0 || cap >= enough || cap > UINT64_MAX / 2)
		return;
	yield->cap_bytes_per_s = within(yield, cap + cap / 32 + yield->floor_bytes_per_s / 16);
}

uint64_t mig_give_way_step(struct mig_give_way *yield, uint64_t rtt_ns, uint64_t sent_bytes_per_s)
{
	bool crowded = is_crowded(yield, rtt_ns);

	if (rtt_ns != UINT64_MAX)
		learn(yield, rtt_ns, crowded);
	if (sent_bytes_per_s > yield->seen_bytes_per_s)
		yield->seen_bytes_per_s = sent_bytes_per_s;
	if (yield->settle > 0)
		yield->settle--;
	else if (crowded)
		back_off(yield, sent_bytes_per_s);
	else
		recover(yield);
	return yield->cap_bytes_per_s;
}
