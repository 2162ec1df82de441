/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A cap on what is sent, shared by any number of channels and migrations of one process: bytes a
 * second, with a burst of a tenth of a second.  What goes beyond it waits its turn.  With a host
 * (mig_host.h), the cap of all of its processes as well.
 *
 * Threads: any; mig_rate_step() and mig_rate_step_shared() are pure.
 */
#ifndef MIGRATE_MIG_RATE_H
#define MIGRATE_MIG_RATE_H

#include <stdatomic.h>
#include <stdint.h>

#include "base/error.h"
#include "migrate/mig_host.h"

#define MIG_RATE_MIN_BYTES_PER_S (1u << 20) /* below it signs of life would wait behind data */

/* When the next byte may go, in the nanoseconds of base_clock_boot_ns(). */
struct mig_rate_state {
	uint64_t bytes_per_s; /* 0: no cap */
	uint64_t free_ns;
};

/* Pure: @bytes are to go at @now_ns: how long they wait, and what is so afterwards. */
uint64_t mig_rate_step(struct mig_rate_state *state, uint64_t now_ns, uint64_t bytes);

/* Pure: the same with a state that other processes write, who may have died, or mean ill.  False:
 * more than a second is owed, nothing was taken, ask again in a while.  So @free_ns is never far
 * from now, and what is found there and is far counts as nothing. */
BASE_MUST_CHECK bool mig_rate_step_shared(struct mig_rate_state *state, uint64_t now_ns,
					  uint64_t bytes, uint64_t *ret_wait_ns);
bool mig_rate_is_foreign(uint64_t free_ns, uint64_t now_ns);
/* -EINVAL: neither 0 nor MIG_RATE_MIN_BYTES_PER_S or more. */
BASE_MUST_CHECK int mig_rate_check(uint64_t bytes_per_s, struct base_error *err);

struct mig_rate;

/* -EINVAL: @bytes_per_s is neither 0 nor MIG_RATE_MIN_BYTES_PER_S or more; -ENOMEM. */
BASE_MUST_CHECK int mig_rate_new(uint64_t bytes_per_s, struct mig_rate **ret_rate,
				 struct base_error *err);
void mig_rate_free(struct mig_rate *rate); /* NULL is fine */
/* Wait for the cap of @host, too; borrowed, outlives @rate.  Before the first wait. */
void mig_rate_share(struct mig_rate *rate, struct mig_host *host);
/* Another cap, for what comes after it. */
BASE_MUST_CHECK int mig_rate_set(struct mig_rate *rate, uint64_t bytes_per_s,
				 struct base_error *err);
/* The same, while things go on: what is owed stays owed.  Not 0, and not below the least. */
void mig_rate_adjust(struct mig_rate *rate, uint64_t bytes_per_s);
/* Wait until @bytes may go, or *@stop, which may be so before: then they are counted, and others
 * wait for them.  NULL @rate: at once. */
void mig_rate_wait(struct mig_rate *rate, uint64_t bytes, const atomic_bool *stop);

#endif
