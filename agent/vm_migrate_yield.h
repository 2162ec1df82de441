/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A move that yields: round trips to an address on the heartbeat network, for as long as the move
 * lasts, and a cap from them.  docs/migrate/networks.md.
 *
 * A round trip is that of making a connection, which the other kernel answers by itself: whether
 * somebody listens there or not.
 *
 * Threads: one of its own; begin and end on one thread.
 */
#ifndef AGENT_VM_MIGRATE_YIELD_H
#define AGENT_VM_MIGRATE_YIELD_H

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>

#include "agent/vm_migrate_net.h"
#include "migrate/mig_give_way.h"
#include "migrate/mig_rate.h"

struct vm_yield {
	struct vm_address to;
	struct mig_rate *rate; /* borrowed */
	uint64_t (*sent_bytes)(void *context);
	void *context;
	struct mig_give_way law;
	atomic_bool stop;
	pthread_t thread;
	bool has_thread;
};

/* The fields to, rate, sent_bytes and context are set.  Where there is no thread for it, nothing
 * yields. */
void vm_yield_begin(struct vm_yield *yield, uint64_t most_bytes_per_s);
void vm_yield_end(struct vm_yield *yield); /* waits for the thread; again is fine */

#endif
