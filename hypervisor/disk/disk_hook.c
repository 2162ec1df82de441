/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The write hook and range locks: what storage migration and merging stand on.
 * Loop, but for disk_hook_set() (blocking) and disk_hook_done() (any thread).
 */
#include "hypervisor/disk/disk_priv.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

/* --- ranges --- */

static void io_range(struct disk_io *io)
{
	bool all = io->inner.op == DISK_RESIZE;

	io->range = (struct disk_range_lock){
		.offset_bytes = all ? 0 : io->inner.offset_bytes,
		.length_bytes = all ? RANGE_LOCK_ALL : io->inner.length_bytes,
		.context = io,
	};
	io->in_locks = true;
}

/* The first lock: whatever is on its way without one gets one, held (D3). */
static void locks_begin(struct disk *disk)
{
	struct disk_io *io = NULL;

	if (!range_locks_empty(&disk->locks))
		return;
	for (io = disk->flight.head; io != NULL; io = io->next) {
		if (io->in_locks || !disk_op_changes(io->inner.op))
			continue;
		io_range(io);
		range_lock_add_held(&disk->locks, &io->range);
	}
	for (io = disk->stalled.head; io != NULL; io = io->next) {
		if (io->in_locks || !disk_op_changes(io->inner.op))
			continue;
		io_range(io);
		range_lock_add_held(&disk->locks, &io->range);
	}
}

bool disk_lock_needed(const struct disk_io *io)
{
	const struct disk *disk = io->disk;

	if (io->in_locks || !disk_op_changes(io->inner.op))
		return false;
	return disk->hook != NULL || io->inner.op == DISK_RESIZE ||
	       !range_locks_empty(&disk->locks);
}

static void io_granted_later(struct disk_range_lock *lock)
{
	disk_io_go(lock->context);
}

static void io_granted_now(struct disk_range_lock *lock)
{
	(void)lock; /* disk_lock() looks at held */
}

bool disk_lock(struct disk_io *io)
{
	struct disk *disk = io->disk;

	locks_begin(disk);
	io_range(io);
	io->range.granted = io_granted_now;
	range_lock_add(&disk->locks, &io->range);
	io->range.granted = io_granted_later;
	return io->range.held;
}

void disk_unlock(struct disk_io *io)
{
	io->in_locks = false;
	range_lock_remove(&io->disk->locks, &io->range);
}

void disk_range_lock(struct disk *disk, struct disk_range_lock *lock)
{
	locks_begin(disk);
#ifdef GODWIT_MUTANT_DISK_RANGE_LOCK
	range_lock_add_held(&disk->locks, lock);
	lock->granted(lock);
#else
	range_lock_add(&disk->locks, lock);
#endif
}

void disk_range_unlock(struct disk *disk, struct disk_range_lock *lock)
{
	range_lock_remove(&disk->locks, lock);
}

/* --- the hook --- */

static void gather(const struct iovec *iov, uint32_t iov_count, uint8_t *to)
{
	for (uint32_t i = 0; i < iov_count; i++) {
		memcpy(to, iov[i].iov_base, iov[i].iov_len);
		to += iov[i].iov_len;
	}
}

void disk_hook_prepare(struct disk_io *io)
{
	io->hooked = io->disk->hook != NULL;
	if (!io->hooked || io->disk->hook_blind || io->inner.op != DISK_WRITE || io->copy != NULL)
		return;
	/* The guest may change its buffer at any time: image and hook must see the same. */
	if (posix_memalign(&io->copy, DISK_COPY_ALIGN_BYTES, (size_t)io->inner.length_bytes) != 0) {
		io->copy = NULL;
		return; /* the hook gets no data: its owner's failure, not the guest's */
	}
	gather(io->guest->iov, io->guest->iov_count, io->copy);
	io->copy_iov = (struct iovec){ io->copy, (size_t)io->inner.length_bytes };
	io->inner.iov = &io->copy_iov;
	io->inner.iov_count = 1;
}

static void hook_over(struct base_io_task *task)
{
	struct disk_request *guest =
		(struct disk_request *)((char *)task - offsetof(struct disk_request, task));

	disk_io_finish(guest->owner, 0);
}

void disk_hook_call(struct disk_io *io)
{
	struct disk *disk = io->disk;
	struct disk_hook_event event = {
		.op = io->inner.op,
		.offset_bytes = io->inner.offset_bytes,
		.length_bytes = io->inner.length_bytes,
		.data = io->copy,
		.request = io->guest,
	};

	disk->hook(disk->hook_context, &event);
}

void disk_hook_done(struct disk *disk, struct disk_request *request)
{
	request->task = (struct base_io_task){ .run = hook_over };
	base_io_post(disk->loop, &request->task);
}

struct hook_change {
	struct disk *disk;
	disk_hook hook;
	void *context;
	bool inside;
	bool blind;
	int result;
};

static void hook_change(void *context)
{
	struct hook_change *change = context;
	struct disk *disk = change->disk;

	if (disk->hook != NULL && (change->hook != NULL || disk->hook_inside != change->inside)) {
		change->result = -EBUSY;
		return;
	}
	disk->hook = change->hook;
	disk->hook_context = change->context;
	disk->hook_inside = change->hook != NULL && change->inside;
	disk->hook_blind = change->hook != NULL && change->blind;
}

static int hook_set(struct hook_change *change, struct base_error *err)
{
	/* Drained, every write was either over before the hook came or will be seen by it. */
	disk_hold(change->disk);
	base_io_call(change->disk->loop, hook_change, change);
	disk_unhold(change->disk);
	if (change->result != 0)
		return base_fail(err, change->result, "disk '%s': %s watches its writes",
				 change->disk->top_name,
				 change->disk->hook_inside ? "a merge" : "another hook");
	return 0;
}

int disk_hook_set(struct disk *disk, disk_hook hook, void *context, struct base_error *err)
{
	struct hook_change change = { .disk = disk, .hook = hook, .context = context };

	return hook_set(&change, err);
}

int disk_hook_set_inside(struct disk *disk, disk_hook hook, void *context, struct base_error *err)
{
	struct hook_change change = {
		.disk = disk, .hook = hook, .context = context, .inside = true
	};

	return hook_set(&change, err);
}

/* --- watching --- */

int disk_watch_begin(struct disk *disk, disk_hook hook, void *context, struct base_error *err)
{
	struct hook_change change = {
		.disk = disk, .hook = hook, .context = context, .blind = true
	};
	int rc = disk_job_begin(disk, DISK_JOB_MOVE, err);

	if (rc != 0)
		return rc;
	rc = hook_set(&change, err);
	if (rc != 0)
		disk_job_end(disk);
	return rc;
}

void disk_watch_end(struct disk *disk)
{
	struct hook_change change = { .disk = disk };
	int rc = hook_set(&change, NULL);

	base_assert(rc == 0); /* it is ours */
	disk_job_end(disk);
}
