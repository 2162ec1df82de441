/* SPDX-License-Identifier: Apache-2.0 */
#include "hypervisor/disk/range_lock.h"

#include <criterion/criterion.h>
#include <stdlib.h>
#include <string.h>

static void granted(struct disk_range_lock *lock)
{
	(*(uint32_t *)lock->context)++;
}

static struct disk_range_lock lock_of(uint64_t offset, uint64_t length, uint32_t *count)
{
	return (struct disk_range_lock){
		.offset_bytes = offset, .length_bytes = length, .granted = granted, .context = count
	};
}

Test(range_lock, apart_are_granted_at_once)
{
	struct range_locks locks = { .head = NULL };
	uint32_t count = 0;
	struct disk_range_lock a = lock_of(0, 4096, &count);
	struct disk_range_lock b = lock_of(4096, 4096, &count);

	cr_assert(range_locks_empty(&locks));
	range_lock_add(&locks, &a);
	range_lock_add(&locks, &b);
	cr_assert_eq(count, 2);
	cr_assert(a.held && b.held);
	range_lock_remove(&locks, &a);
	range_lock_remove(&locks, &b);
	cr_assert(range_locks_empty(&locks));
}

Test(range_lock, overlapping_wait_in_order)
{
	struct range_locks locks = { .head = NULL };
	uint32_t count = 0;
	struct disk_range_lock a = lock_of(0, 8192, &count);
	struct disk_range_lock b = lock_of(4096, 8192, &count);
	struct disk_range_lock c = lock_of(8192, 4096, &count); /* free of a, behind b */

	range_lock_add(&locks, &a);
	range_lock_add(&locks, &b);
	range_lock_add(&locks, &c);
	cr_assert(a.held && !b.held && !c.held);
	range_lock_remove(&locks, &a);
	cr_assert(b.held && !c.held);
	range_lock_remove(&locks, &b);
	cr_assert(c.held);
	range_lock_remove(&locks, &c);
	cr_assert_eq(count, 3);
}

Test(range_lock, who_waits_can_leave)
{
	struct range_locks locks = { .head = NULL };
	uint32_t count = 0;
	struct disk_range_lock a = lock_of(0, 10, &count);
	struct disk_range_lock b = lock_of(0, 20, &count);
	struct disk_range_lock c = lock_of(15, 5, &count);

	range_lock_add(&locks, &a);
	range_lock_add(&locks, &b);
	range_lock_add(&locks, &c);
	range_lock_remove(&locks, &b);
	cr_assert(c.held);
	cr_assert_eq(count, 2);
}

Test(range_lock, the_whole_disk_and_the_ends_of_the_numbers)
{
	struct range_locks locks = { .head = NULL };
	uint32_t count = 0;
	struct disk_range_lock all = lock_of(0, RANGE_LOCK_ALL, &count);
	struct disk_range_lock far = lock_of(UINT64_MAX - 4096, 4096, &count);
	struct disk_range_lock none = lock_of(100, 0, &count);

	range_lock_add(&locks, &far);
	range_lock_add(&locks, &none); /* nothing overlaps an empty range */
	range_lock_add(&locks, &all);
	cr_assert(far.held && none.held && !all.held);
	range_lock_remove(&locks, &far);
	cr_assert(all.held);
}

Test(range_lock, held_ones_are_put_in_as_they_are)
{
	struct range_locks locks = { .head = NULL };
	uint32_t count = 0;
	struct disk_range_lock a = lock_of(0, 100, &count);
	struct disk_range_lock b = lock_of(50, 100, &count);
	struct disk_range_lock c = lock_of(60, 10, &count);

	range_lock_add_held(&locks, &a);
	range_lock_add_held(&locks, &b);
	cr_assert_eq(count, 0);
	range_lock_add(&locks, &c);
	range_lock_remove(&locks, &a);
	cr_assert(!c.held);
	range_lock_remove(&locks, &b);
	cr_assert(c.held);
}

#define MANY   64
#define ROUNDS 4000

/* Whatever comes and goes: no two that were granted overlap, and all are granted in the end. */
Test(range_lock, random_never_overlap_and_all_are_served)
{
	struct range_locks locks = { .head = NULL };
	struct disk_range_lock lock[MANY];
	bool in[MANY] = { false };
	uint32_t count = 0;
	uint32_t asked = 0;
	uint64_t state = 12345;

	for (uint32_t round = 0; round < ROUNDS; round++) {
		uint32_t i = (uint32_t)((state = state * 6364136223846793005ULL + 1) >> 33) % MANY;

		if (!in[i]) {
			lock[i] = lock_of(state >> 40 & 1023, (state >> 50 & 127) + 1, &count);
			range_lock_add(&locks, &lock[i]);
			asked++;
			in[i] = true;
		} else if (lock[i].held) {
			range_lock_remove(&locks, &lock[i]);
			in[i] = false;
		}
		for (uint32_t a = 0; a < MANY; a++) {
			for (uint32_t b = a + 1; b < MANY && in[a] && lock[a].held; b++) {
				if (!in[b] || !lock[b].held)
					continue;
				cr_assert(lock[a].offset_bytes + lock[a].length_bytes <=
						  lock[b].offset_bytes ||
					  lock[b].offset_bytes + lock[b].length_bytes <=
						  lock[a].offset_bytes);
			}
		}
	}
	while (!range_locks_empty(&locks))
		range_lock_remove(&locks, locks.head);
	cr_assert_eq(count, asked);
}

/* --- long queues --- */

#define QUEUE 4000U

static struct range_locks chain_locks;
static struct disk_range_lock chain[QUEUE];
static uint32_t chain_told;
static uint32_t chain_depth;

/* Gives its range back at once. */
static void chain_granted(struct disk_range_lock *lock)
{
	cr_assert_eq(lock, &chain[++chain_told]); /* in the order they came */
	cr_assert_eq(++chain_depth, 1);
	range_lock_remove(&chain_locks, lock);
	chain_depth--;
}

Test(range_lock, a_long_queue_does_not_pile_up_on_the_stack)
{
	uint32_t count = 0;

	chain[0] = lock_of(0, 4096, &count);
	range_lock_add(&chain_locks, &chain[0]);
	for (uint32_t i = 1; i < QUEUE; i++) {
		chain[i] = lock_of(0, 4096, NULL);
		chain[i].granted = chain_granted;
		range_lock_add(&chain_locks, &chain[i]);
	}
	range_lock_remove(&chain_locks, &chain[0]);
	cr_assert_eq(chain_told, QUEUE - 1);
	cr_assert(range_locks_empty(&chain_locks));
}

struct leaver {
	struct range_locks locks;
	struct disk_range_lock first, second, third, last;
	uint32_t count;
};

/* The second is told, and takes out the third, which holds its range but does not know. */
static void takes_out_third(struct disk_range_lock *lock)
{
	struct leaver *leaver = lock->context;

	cr_assert(leaver->third.held);
	range_lock_remove(&leaver->locks, &leaver->third);
}

Test(range_lock, who_leaves_before_it_was_told_is_not_told)
{
	static struct leaver leaver;

	leaver.first = lock_of(0, 8192, &leaver.count);
	leaver.second = lock_of(0, 4096, NULL);
	leaver.second.granted = takes_out_third;
	leaver.second.context = &leaver;
	leaver.third = lock_of(4096, 4096, NULL); /* granted() would count at NULL */
	leaver.last = lock_of(4096, 4096, &leaver.count);
	range_lock_add(&leaver.locks, &leaver.first);
	range_lock_add(&leaver.locks, &leaver.second);
	range_lock_add(&leaver.locks, &leaver.third);
	range_lock_add(&leaver.locks, &leaver.last);
	range_lock_remove(&leaver.locks, &leaver.first);
	cr_assert_eq(leaver.count, 2);
	cr_assert(leaver.second.held && leaver.last.held && !leaver.third.held);
}
