/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Locks on ranges of a disk, first come, first served.  Loop only.
 *
 * The table is a list in the order of arrival.  An entry is granted when no earlier entry
 * overlaps it; so entries that overlap are served in order and nobody waits for ever while the
 * others are given back.  Empty, it costs a comparison with NULL; it is meant for some
 * hundred entries.
 *
 * Invariant: a held entry overlaps no earlier entry, but for those that range_lock_add_held()
 * put in.
 */
#ifndef HYPERVISOR_DISK_RANGE_LOCK_H
#define HYPERVISOR_DISK_RANGE_LOCK_H

#include "hypervisor/disk/disk.h"

#define RANGE_LOCK_ALL UINT64_MAX /* as a length from offset 0: overlaps everything */

struct range_locks {
	struct disk_range_lock *head;
	struct disk_range_lock *tail;
	struct disk_range_lock *grant_head; /* held, but not yet told */
	struct disk_range_lock *grant_tail;
	bool granting; /* somebody further down the stack is telling them */
};

bool range_locks_empty(const struct range_locks *locks);
/* Queue @lock; lock->granted() runs once it is held, also within this call. */
void range_lock_add(struct range_locks *locks, struct disk_range_lock *lock);
/* Somebody works on that range already: put it in as held; granted() does not run. */
void range_lock_add_held(struct range_locks *locks, struct disk_range_lock *lock);
/* Take @lock out, held or still waiting; grants what it was in the way of.  From within a
 * granted() that a remove called, those run only after that one has returned: however long the
 * queue, and however soon each gives its range back, the stack stays flat. */
void range_lock_remove(struct range_locks *locks, struct disk_range_lock *lock);

#endif
