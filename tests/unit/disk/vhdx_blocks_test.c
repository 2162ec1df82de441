/* SPDX-License-Identifier: Apache-2.0 */
#include <criterion/criterion.h>
#include <errno.h>
#include <string.h>

#include "tests/support/vhdx_rig.h"

#define MIB VHDX_MIB

static const struct rig_options dynamic = { .kind = DISK_DYNAMIC, .size_bytes = 8 * MIB };

struct counted_lock {
	struct vhdx_block_lock lock;
	uint32_t *clock;
	uint32_t granted_at; /* 0: not yet */
};

static void granted(struct vhdx_block_lock *lock)
{
	struct counted_lock *counted = lock->context;

	counted->granted_at = ++*counted->clock;
}

static void take(struct rig *rig, struct counted_lock *lock, uint32_t *clock, uint64_t block,
		 bool exclusive)
{
	*lock = (struct counted_lock){ .clock = clock };
	lock->lock.block = block;
	lock->lock.exclusive = exclusive;
	lock->lock.granted = granted;
	lock->lock.context = lock;
	vhdx_block_lock(rig_vhdx(rig), &lock->lock);
}

static void give(struct rig *rig, struct counted_lock *lock)
{
	vhdx_block_unlock(rig_vhdx(rig), &lock->lock);
	while (base_io_loop_step(rig->loop, false))
		;
}

Test(vhdx_blocks, shared_side_by_side_exclusive_alone_first_come_first_served)
{
	struct rig rig = { .random = 1 };
	struct counted_lock a, b, c, d, other;
	uint32_t clock = 0;

	rig_init(&rig, &dynamic);
	take(&rig, &a, &clock, 3, false);
	take(&rig, &b, &clock, 3, false);
	cr_assert(a.granted_at == 1 && b.granted_at == 2);
	take(&rig, &c, &clock, 3, true);
	take(&rig, &d, &clock, 3, false);
	take(&rig, &other, &clock, 4, true);
	cr_assert_eq(c.granted_at, 0);
	cr_assert_eq(d.granted_at, 0, "not past the one that waits");
	cr_assert_eq(other.granted_at, 3, "another block");
	give(&rig, &a);
	cr_assert_eq(c.granted_at, 0);
	give(&rig, &b);
	cr_assert_eq(c.granted_at, 4);
	cr_assert_eq(d.granted_at, 0);
	give(&rig, &c);
	cr_assert_eq(d.granted_at, 5);
	give(&rig, &d);
	give(&rig, &other);
	rig_fini(&rig);
}

Test(vhdx_blocks, downgrade_lets_shared_ones_in_and_nobody_between)
{
	struct rig rig = { .random = 1 };
	struct counted_lock a, b, c;
	uint32_t clock = 0;

	rig_init(&rig, &dynamic);
	take(&rig, &a, &clock, 3, true);
	take(&rig, &b, &clock, 3, false);
	take(&rig, &c, &clock, 3, true);
	vhdx_block_downgrade(rig_vhdx(&rig), &a.lock);
	while (base_io_loop_step(rig.loop, false))
		;
	cr_assert(a.lock.held && b.lock.held && !c.lock.held);
	give(&rig, &b);
	cr_assert_not(c.lock.held);
	give(&rig, &a);
	cr_assert(c.lock.held);
	give(&rig, &c);
	rig_fini(&rig);
}

/* Many locks of a few blocks, in any order: never two that exclude each other. */
Test(vhdx_blocks, random_locks)
{
	struct rig rig = { .random = 7 };
	struct counted_lock locks[64];
	bool used[64] = { false };
	uint32_t clock = 0;

	rig_init(&rig, &dynamic);
	for (uint32_t turn = 0; turn < 20000; turn++) {
		uint64_t i = rig_rand(&rig, 64);

		if (!used[i]) {
			take(&rig, &locks[i], &clock, rig_rand(&rig, 3) << 40,
			     rig_rand(&rig, 3) == 0);
			used[i] = true;
		} else if (locks[i].lock.held && locks[i].granted_at != 0) {
			give(&rig, &locks[i]);
			used[i] = false;
		}
		for (uint32_t a = 0; a < 64; a++) {
			for (uint32_t b = 0; b < a; b++) {
				if (used[a] && used[b] && locks[a].lock.held &&
				    locks[b].lock.held &&
				    locks[a].lock.block == locks[b].lock.block)
					cr_assert(!locks[a].lock.exclusive &&
						  !locks[b].lock.exclusive);
			}
		}
	}
	for (bool any = true; any;) {
		any = false;
		for (uint32_t i = 0; i < 64; i++) {
			if (!used[i])
				continue;
			any = true;
			if (!locks[i].lock.held)
				continue;
			give(&rig, &locks[i]);
			used[i] = false;
		}
	}
	rig_fini(&rig);
}

Test(vhdx_blocks, entries_that_are_refused)
{
	struct rig rig = { .random = 1 };
	struct vhdx *vhdx;

	rig_init(&rig, &dynamic);
	cr_assert_eq(rig_step(&rig, DISK_WRITE, 0, 0, 512), 0);
	vhdx = rig_vhdx(&rig);
	cr_assert_eq(vhdx_bat_entry_check(vhdx, 0, rig_entry(&rig, 0)), 0);
	cr_assert_eq(vhdx_bat_entry_check(vhdx, 0, 0), 0);
	cr_assert_eq(vhdx_bat_entry_check(vhdx, 0, VHDX_BLOCK_ZERO), 0);
	cr_assert_eq(vhdx_bat_entry_check(vhdx, 0, 4), -EBADMSG);
	cr_assert_eq(vhdx_bat_entry_check(vhdx, 0, 6), -EBADMSG);
	cr_assert_eq(vhdx_bat_entry_check(vhdx, 0, 6 | vhdx->header.log_offset), -EBADMSG);
	cr_assert_eq(vhdx_bat_entry_check(vhdx, 0, 6 | vhdx->regions.bat.offset_bytes), -EBADMSG);
	cr_assert_eq(vhdx_bat_entry_check(vhdx, 0, 6 | vhdx->regions.metadata.offset_bytes),
		     -EBADMSG);
	cr_assert_eq(vhdx_bat_entry_check(vhdx, 0, 6 | (vhdx->file_bytes / MIB * MIB)), -EBADMSG);
	cr_assert_eq(vhdx_bat_entry_check(vhdx, 0, 7 | vhdx_entry_offset(rig_entry(&rig, 0))),
		     -EBADMSG, "PARTIAL without a parent");
	rig_fini(&rig);
}

struct holder {
	struct vhdx_waiter waiter;
	bool quiet;
};

static void quiet(struct vhdx_waiter *waiter, int result)
{
	struct holder *holder = waiter->context;

	cr_assert_eq(result, 0);
	holder->quiet = true;
}

static void read_done(struct disk_request *request, int result)
{
	bool *done = request->context;

	cr_assert_eq(result, 0);
	*done = true;
}

Test(vhdx_blocks, held_requests_wait_and_go_on_and_one_holds_at_a_time)
{
	struct holder a = { .quiet = false }, b = { .quiet = false };
	struct rig rig = { .random = 1 };
	uint8_t bytes[512];
	struct iovec iov = { .iov_base = bytes, .iov_len = sizeof(bytes) };
	bool done[2] = { false, false };
	struct disk_request reads[2];

	rig_init(&rig, &dynamic);
	cr_assert_eq(rig_step(&rig, DISK_WRITE, 0, 0, 512), 0);
	for (int i = 0; i < 2; i++)
		reads[i] = (struct disk_request){
			.op = DISK_READ,
			.length_bytes = sizeof(bytes),
			.iov = &iov,
			.iov_count = 1,
			.done = read_done,
			.context = &done[i],
		};
	a.waiter = (struct vhdx_waiter){ .run = quiet, .context = &a };
	b.waiter = (struct vhdx_waiter){ .run = quiet, .context = &b };
	vhdx_submit(rig.image, &reads[0]);
	vhdx_hold(rig_vhdx(&rig), &a.waiter);
	vhdx_hold(rig_vhdx(&rig), &b.waiter);
	vhdx_submit(rig.image, &reads[1]);
	cr_assert(!a.quiet && !done[0]);
	while (base_io_loop_step(rig.loop, false))
		;
	cr_assert(done[0] && a.quiet && !b.quiet && !done[1]);
	vhdx_unhold(rig_vhdx(&rig));
	while (base_io_loop_step(rig.loop, false))
		;
	cr_assert(done[1] && b.quiet);
	vhdx_unhold(rig_vhdx(&rig));
	rig_fini(&rig);
}
