/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Which of a destination's addresses a connection goes to: in order of preference, or round over
 * all of them; one that failed lately comes last.  docs/migrate/networks.md.
 *
 * Threads: connect on any, several at a time; vm_route_order() is pure.
 */
#ifndef AGENT_VM_MIGRATE_ROUTE_H
#define AGENT_VM_MIGRATE_ROUTE_H

#include <pthread.h>
#include <stdbool.h>

#include "agent/vm_migrate_net.h"

#define VM_ROUTE_AGAIN_NS (30 * 1000000000ULL) /* one that failed is tried last for so long */

struct vm_route {
	struct vm_addresses addresses;
	bool spread;
	pthread_mutex_t lock;                 /* a leaf: what is below */
	uint32_t turn;                        /* connections asked for so far */
	uint64_t failed_ns[VM_ADDRESSES_MAX]; /* when it failed last; 0: it has not, since it worked
					       */
};

void vm_route_init(struct vm_route *route, const struct vm_addresses *addresses, bool spread);
void vm_route_fini(struct vm_route *route); /* again, and all zeros, is fine */

/* All addresses by number, in the order in which connection @turn tries them.  Pure. */
void vm_route_order(const struct vm_route *route, uint32_t turn, uint64_t now_ns,
		    uint32_t ret_order[VM_ADDRESSES_MAX]);

/* As vm_address_connect(), at the first address that lets it, each within the timeout.  The error
 * is that of the first which did not refuse, as that may have been meant for somebody. */
BASE_MUST_CHECK int vm_route_connect(struct vm_route *route, uint32_t timeout_ms, int *ret_fd,
				     struct base_error *err);

#endif
