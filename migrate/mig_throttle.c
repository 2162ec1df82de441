/* SPDX-License-Identifier: Apache-2.0 */
/* The control law, and who it is for: docs/migrate/throttle.md. */
#include "migrate/mig_throttle.h"

#include "base/clock.h"
#include "migrate/mig_scale_priv.h"

#define FIRST_ROUNDS 1u   /* say nothing of the guest: all of memory was sent meanwhile */
#define GOAL_MIN     250u /* of what a round sent; less is asked of no guest */
#define HALF         2u   /* a step takes at most half of the time that it runs */
#define EASE         4u   /* and gives back at most a quarter more */

static uint64_t least(uint64_t a, uint64_t b)
{
	return a < b ? a : b;
}

struct mig_throttle mig_throttle_begin(uint32_t most_permille)
{
	return (struct mig_throttle){
		.most_permille = (uint32_t)least(most_permille, MIG_THROTTLE_MAX),
	};
}

/*
 * What a round may leave of what it sent.  The rounds to come are a geometric series; with ratio q
 * they take next / (1 - q) in all, which has to fit into the time that is left.
 */
static uint64_t goal_permille(const struct mig_throttle_round *round)
{
	uint64_t next_ns = mig_scale(round->took_ns, round->left_bytes, round->sent_bytes);
	uint64_t part = 0;

	if (round->time_ns == UINT64_MAX)
		return MIG_THROTTLE_GOAL;
	if (round->time_ns <= next_ns)
		return GOAL_MIN;
	part = mig_scale(next_ns, MIG_THROTTLE_ALL, round->time_ns);
	part = MIG_THROTTLE_ALL - least(part, MIG_THROTTLE_ALL);
	return part < GOAL_MIN ? GOAL_MIN : least(part, MIG_THROTTLE_GOAL);
}

uint32_t mig_throttle_next(struct mig_throttle *throttle, const struct mig_throttle_round *round)
{
	uint64_t run = MIG_THROTTLE_ALL - throttle->permille;
	uint64_t ratio = 0;
	uint64_t goal = 0;
	uint64_t wanted = 0;

	if (throttle->rounds < FIRST_ROUNDS) {
		throttle->rounds++;
		return throttle->permille;
	}
	if (round->sent_bytes == 0 || round->room_bytes == 0)
		return throttle->permille;
	ratio = mig_scale(round->left_bytes, MIG_THROTTLE_ALL, round->sent_bytes);
	goal = goal_permille(round);
	/* What it writes is as the time that it runs. */
	wanted = ratio == 0 ? MIG_THROTTLE_ALL : mig_scale(run, goal, ratio);
	if (wanted < run / HALF)
		wanted = run / HALF;
	wanted = least(wanted, run + run / EASE + 1);
	wanted = least(wanted, MIG_THROTTLE_ALL);
	if (MIG_THROTTLE_ALL - wanted > throttle->most_permille)
		wanted = MIG_THROTTLE_ALL - throttle->most_permille;
	throttle->permille = MIG_THROTTLE_ALL - (uint32_t)wanted;
	return throttle->permille;
}

uint64_t mig_throttle_freely(uint64_t written, uint32_t permille)
{
	return mig_scale(written, MIG_THROTTLE_ALL,
			 MIG_THROTTLE_ALL - least(permille, MIG_THROTTLE_MAX));
}

void mig_throttle_shares(uint32_t permille, uint32_t most_permille, const uint64_t *written,
			 size_t count, uint32_t *shares)
{
	uint64_t sum = 0;
	uint64_t most = 0;
	uint64_t squares = 0; /* of parts of the greatest, permille */

	for (size_t i = 0; i < count; i++)
		most = written[i] > most ? written[i] : most;
	for (size_t i = 0; most > 0 && i < count; i++) {
		uint64_t part = mig_scale(written[i], MIG_THROTTLE_ALL, most);

		sum += part;
		squares += part * part;
	}
	/* share = k * part, so that the sum of share * part is permille * sum */
	for (size_t i = 0; i < count; i++) {
		uint64_t share = permille;

		if (most > 0)
			share = mig_scale(mig_scale(written[i], MIG_THROTTLE_ALL, most),
					  permille * sum, squares);
		shares[i] = (uint32_t)least(share, least(most_permille, MIG_THROTTLE_MAX));
	}
}
