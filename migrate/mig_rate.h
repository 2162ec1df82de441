/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A cap on what is sent, shared by any number of channels and migrations of one process: bytes a
 * second, with a burst of a tenth of a second.  What goes beyond it waits its turn.  The last
 * round, while the VM is paused, asks nobody.
 *
 * Threads: any; mig_rate_step() is pure.
 */
#ifndef MIGRATE_MIG_RATE_H
#define MIGRATE_MIG_RATE_H

#include <stdatomic.h>
#include <stdint.h>

#include "base/error.h"

#define MIG_RATE_MIN_BYTES_PER_S (1u << 20) /* below it signs of life would wait behind data */

/* When the next byte may go, in the nanoseconds of base_clock_boot_ns(). */
struct mig_rate_state {
	uint64_t bytes_per_s; /* 0: no cap */
	uint64_t free_ns;
};

/* Pure: @bytes are to go at @now_ns: how long they wait, and what is so afterwards. */
uint64_t mig_rate_step(struct mig_rate_state *state, uint64_t now_ns, uint64_t bytes);

struct mig_rate;

/* -EINVAL: @bytes_per_s is neither 0 nor MIG_RATE_MIN_BYTES_PER_S or more; -ENOMEM. */
BASE_MUST_CHECK int mig_rate_new(uint64_t bytes_per_s, struct mig_rate **ret_rate,
				 struct base_error *err);
void mig_rate_free(struct mig_rate *rate); /* NULL is fine */
/* Another cap, for what comes after it. */
BASE_MUST_CHECK int mig_rate_set(struct mig_rate *rate, uint64_t bytes_per_s,
				 struct base_error *err);
/* Wait until @bytes may go, or *@stop; NULL @rate: at once. */
void mig_rate_wait(struct mig_rate *rate, uint64_t bytes, const atomic_bool *stop);

#endif
