/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A cap that yields: from round trips on the heartbeat network, how much a migration may send.
 *
 * A round trip that takes much longer than they did means that queues fill, and the cap goes down
 * at once; when they are short again it goes up step by step.  docs/migrate/networks.md.
 *
 * Threads: values; reads no clock.
 */
#ifndef MIGRATE_MIG_GIVE_WAY_H
#define MIGRATE_MIG_GIVE_WAY_H

#include <stdint.h>

#define MIG_GIVE_WAY_STEP_NS  100000000ULL  /* between two round trips */
#define MIG_GIVE_WAY_LOST_NS  1000000000ULL /* no answer for so long: none came */
#define MIG_GIVE_WAY_SLACK_NS 1000000ULL    /* what a round trip may vary by without a reason */
#define MIG_GIVE_WAY_SETTLE   2u            /* steps until a lower cap shows in round trips */

struct mig_give_way {
	uint64_t floor_bytes_per_s; /* never below it */
	uint64_t most_bytes_per_s;  /* never above it; 0: as it goes */
	/* The rest is its own. */
	uint64_t base_ns;          /* a round trip without queues; 0: not known */
	uint64_t cap_bytes_per_s;  /* 0: none */
	uint64_t seen_bytes_per_s; /* the most that was ever sent */
	uint32_t settle;
	uint32_t backoffs; /* for people */
};

/* @most_bytes_per_s: 0: none. */
struct mig_give_way mig_give_way_begin(uint64_t floor_bytes_per_s, uint64_t most_bytes_per_s);

/* A round trip has ended: @rtt_ns UINT64_MAX: no answer.  @sent_bytes_per_s: lately.  Returns the
 * cap from now on; 0: none. */
uint64_t mig_give_way_step(struct mig_give_way *yield, uint64_t rtt_ns, uint64_t sent_bytes_per_s);

#endif
