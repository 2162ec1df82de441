/* SPDX-License-Identifier: Apache-2.0 */
/*
 * How much a guest is kept from running so that it can be caught: pure, from counts.
 *
 * After each round: what it sent, what the guest has made dirty meanwhile, what may be left for the
 * pause, and the time that is left.  The answer is a share of the guest's time, 0 where rounds
 * shrink by themselves, and never more than the policy allows.  Who writes is slowed, in proportion
 * to what it writes.  docs/migrate/throttle.md.
 *
 * Threads: values.
 */
#ifndef MIGRATE_MIG_THROTTLE_H
#define MIGRATE_MIG_THROTTLE_H

#include <stddef.h>
#include <stdint.h>

#define MIG_THROTTLE_ALL  1000u /* all of the time */
#define MIG_THROTTLE_MAX  900u  /* with more, slices of what is left get uneven */
/* A round may leave so much of what it sent: below, rounds end soon by themselves. */
#define MIG_THROTTLE_GOAL 750u /* permille */

struct mig_throttle {
	uint32_t most_permille; /* the policy: at most MIG_THROTTLE_MAX; 0: never */
	uint32_t permille;      /* now */
	uint32_t rounds;        /* seen */
};

/* What there is to judge from, in bytes of memory and disks. */
struct mig_throttle_round {
	uint64_t sent_bytes; /* by the round, and in @took_ns */
	uint64_t took_ns;
	uint64_t left_bytes; /* by it: the next one's */
	uint64_t room_bytes; /* for the pause; 0: no goal can be met, or not known */
	uint64_t time_ns;    /* until it is late; UINT64_MAX: no limit */
};

struct mig_throttle mig_throttle_begin(uint32_t most_permille);
/* Another round is over, and another one comes.  The new share. */
uint32_t mig_throttle_next(struct mig_throttle *throttle, const struct mig_throttle_round *round);

/* What somebody would have written who wrote @written while he was kept from running by
 * @permille. */
uint64_t mig_throttle_freely(uint64_t written, uint32_t permille);

/**
 * mig_throttle_shares - whom to slow so that what all write gets less by @permille.
 * @written: by each since the last time, any unit; none written: all alike.
 * @shares: each in proportion to what it writes, at most @most_permille; who writes nothing is not
 * slowed where others write.
 */
void mig_throttle_shares(uint32_t permille, uint32_t most_permille, const uint64_t *written,
			 size_t count, uint32_t *shares);

#endif
