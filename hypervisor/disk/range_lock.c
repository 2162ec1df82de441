/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Range locks as a list: see range_lock.h.  Loop only.
 */
#include "hypervisor/disk/range_lock.h"

/* Written with differences, so that no end of a range is ever computed. */
static bool overlap(const struct disk_range_lock *a, const struct disk_range_lock *b)
{
	if (a->offset_bytes < b->offset_bytes)
		return b->offset_bytes - a->offset_bytes < a->length_bytes && b->length_bytes > 0;
	return a->offset_bytes - b->offset_bytes < b->length_bytes && a->length_bytes > 0;
}

/* Nobody who came before @lock overlaps it. */
static bool may_hold(const struct disk_range_lock *lock)
{
	const struct disk_range_lock *earlier = NULL;

	for (earlier = lock->previous; earlier != NULL; earlier = earlier->previous) {
		if (overlap(earlier, lock))
			return false;
	}
	return true;
}

static void append(struct range_locks *locks, struct disk_range_lock *lock)
{
	lock->next = NULL;
	lock->previous = locks->tail;
	if (locks->tail != NULL)
		locks->tail->next = lock;
	else
		locks->head = lock;
	locks->tail = lock;
}

bool range_locks_empty(const struct range_locks *locks)
{
	return locks->head == NULL;
}

void range_lock_add(struct range_locks *locks, struct disk_range_lock *lock)
{
	append(locks, lock);
	lock->held = may_hold(lock);
	if (lock->held)
		lock->granted(lock);
}

void range_lock_add_held(struct range_locks *locks, struct disk_range_lock *lock)
{
	append(locks, lock);
	lock->held = true;
}

static void grant_add(struct range_locks *locks, struct disk_range_lock *lock)
{
	lock->held = true;
	lock->grant = NULL;
	if (locks->grant_tail != NULL)
		locks->grant_tail->grant = lock;
	else
		locks->grant_head = lock;
	locks->grant_tail = lock;
}

static struct disk_range_lock *grant_take(struct range_locks *locks)
{
	struct disk_range_lock *lock = locks->grant_head;

	if (lock == NULL)
		return NULL;
	locks->grant_head = lock->grant;
	if (locks->grant_head == NULL)
		locks->grant_tail = NULL;
	lock->grant = NULL;
	return lock;
}

/* Who leaves before it was told is not told any more. */
static void grant_forget(struct range_locks *locks, const struct disk_range_lock *lock)
{
	struct disk_range_lock *previous = NULL;
	struct disk_range_lock *at = locks->grant_head;

	for (; at != NULL && at != lock; at = at->grant)
		previous = at;
	if (at == NULL)
		return;
	if (previous != NULL)
		previous->grant = at->grant;
	else
		locks->grant_head = at->grant;
	if (locks->grant_tail == at)
		locks->grant_tail = previous;
	at->grant = NULL;
}

void range_lock_remove(struct range_locks *locks, struct disk_range_lock *lock)
{
	struct disk_range_lock *next = lock->next;

	grant_forget(locks, lock);
	if (lock->previous != NULL)
		lock->previous->next = lock->next;
	else
		locks->head = lock->next;
	if (lock->next != NULL)
		lock->next->previous = lock->previous;
	else
		locks->tail = lock->previous;
	lock->next = NULL;
	lock->previous = NULL;
	lock->held = false;

	/* Only who came later and overlapped the one that went can have become free. */
	for (; next != NULL; next = next->next) {
		if (!next->held && overlap(next, lock) && may_hold(next))
			grant_add(locks, next);
	}
	if (locks->granting)
		return;
	locks->granting = true;
	for (next = grant_take(locks); next != NULL; next = grant_take(locks))
		next->granted(next);
	locks->granting = false;
}
