/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A disk from the inside: the chain of images, and requests on their way through it.
 *
 *   disk.c          states, holding and draining, facts
 *   disk_open.c     chains of images: opening, probing, making, checking
 *   disk_request.c  requests: validation, queueing, submission, completion
 *   disk_policy.c   what happens to a request that the store failed
 *   disk_hook.c     the write hook and range locks
 *   disk_copy.c     copying what one disk or layer shows into another
 *   disk_checkpoint.c, disk_merge.c
 *
 * Everything in struct disk belongs to the loop, but for what says otherwise.  A blocking call
 * changes the chain while it holds the disk and nothing is in flight.
 *
 * Invariants:
 *  D1  A request is in exactly one place: in flight, waiting, stalled, waiting for its range, or
 *      on its way to @done.
 *  D2  While the disk is held, deactivated or closed nothing new is submitted to an image.
 *  D3  While a hook is set or a range lock exists every request in flight that changes the
 *      disk has its range in @locks; with the hook alone, they exclude each other.
 */
#ifndef HYPERVISOR_DISK_DISK_PRIV_H
#define HYPERVISOR_DISK_DISK_PRIV_H

#include <pthread.h>
#include <stdatomic.h>

#include "hypervisor/disk/disk.h"
#include "hypervisor/disk/image_priv.h"
#include "hypervisor/disk/range_lock.h"

#define DISK_RETRY_MS_DEFAULT 1000 /* a person frees space in seconds, not in milliseconds */
#define DISK_COPY_ALIGN_BYTES 4096 /* of buffers of our own: any store's alignment */

/* A guest's request inside the disk.  @inner is what the image sees: another buffer, other
 * flags, a trimmed range. */
struct disk_io {
	struct disk *disk;
	struct disk_request *guest;
	struct disk_request inner;
	struct disk_range_lock range;
	bool in_locks; /* @range is in disk->locks */
	bool direct;   /* still inside disk_submit(): done must wait */
	bool in_flight;
	bool hooked;   /* the hook sees it */
	bool retrying; /* it failed by the store and is being tried again */
	int result;
	void *copy; /* the stable copy of a WRITE */
	struct iovec copy_iov;
	struct disk_io *next; /* of the list it is in */
	struct disk_io *previous;
	struct base_io_task task; /* a done that had to wait */
};

struct disk_io_list {
	struct disk_io *head;
	struct disk_io *tail;
	uint32_t count;
};

struct disk_drain {
	bool done;
	struct disk_drain *next;
};

enum disk_job {
	DISK_JOB_NONE,
	DISK_JOB_CHECKPOINT,
	DISK_JOB_MERGE,
	DISK_JOB_COMPACT,
	DISK_JOB_MOVE,
	DISK_JOBS
};

struct disk {
	struct disk_options options; /* @name is not kept: see layers[0] */
	struct base_io_loop *loop;
	char top_name[STORE_NAME_BYTES];
	struct image *layers[DISK_CHAIN_MAX]; /* 0 = top */
	uint32_t layer_count;

	bool active;
	bool parked;        /* deactivated: requests wait for the next activate */
	bool closing;       /* requests end with -ECANCELED */
	bool ending;        /* the caller's: disk_close() has begun */
	const char *broken; /* a roll back failed, and why: writes get -EIO */
	uint32_t holds;
	_Atomic uint32_t job; /* enum disk_job: any thread may ask */

	uint32_t live;              /* requests between submit and done */
	struct disk_io_list flight; /* at the image, or at the hook */
	struct disk_io_list waiting;
	struct disk_io_list stalled;
	struct disk_io *free_ios;
	struct disk_drain *drains;
	bool *closed_wait; /* set when live gets 0 */

	int stall_code;    /* 0: none */
	uint32_t retrying; /* requests that are being tried again */
	struct base_io_timer retry_timer;
	struct base_io_task retry_task;
	atomic_bool retry_posted;
	_Atomic uint32_t giving_back; /* disk_give_back() less disk_keep() */
	struct base_io_task give_task;
	atomic_bool give_posted;
	bool failed_told;

	struct range_locks locks;
	disk_hook hook;
	void *hook_context;
	bool hook_inside; /* it is a merge's */
	bool hook_blind;  /* it wants no data */

	pthread_mutex_t facts_lock;    /* a leaf: geometry and epoch, for any thread */
	struct disk_geometry geometry; /* written on the loop or while held, under the lock */
	uint64_t epoch;
};

/* --- disk.c --- */

/* Copy the top image's geometry and epoch to where any thread reads them. */
void disk_facts_update(struct disk *disk);
/* Begin a job: 0 or -EBUSY, named. */
int disk_job_begin(struct disk *disk, enum disk_job job, struct base_error *err);
void disk_job_end(struct disk *disk);
/* Nothing is in flight any more: tell who waits for that. */
void disk_drained(struct disk *disk);
void disk_tell_failed(struct disk *disk, const char *why);
/* Blocking, held: there is no image left that could be written to. */
void disk_break(struct disk *disk, const char *why);

/* Blocking: FLUSH, or RESIZE to @offset, of one image, past the queues. */
int disk_image_do(struct image *image, enum disk_op op, uint64_t offset, struct base_error *err);

/* --- disk_open.c: blocking --- */

/* One image of any store. */
struct disk_image_at {
	struct store *store;
	const char *name;
	enum disk_format format; /* INVALID: look */
	bool read_only;
};
int disk_image_open_at(struct disk *disk, const struct disk_image_at *at, struct image **ret_image,
		       struct base_error *err);
/* Open one image of the disk's store; @format INVALID: look. */
int disk_image_open(struct disk *disk, const char *name, enum disk_format format, bool read_only,
		    struct image **ret_image, struct base_error *err);
/* Open the parents of @child, from its store, into @layers from @count on; returns the new count.
 */
int disk_parents_open(struct disk *disk, struct image *child, struct image **layers, uint32_t count,
		      struct base_error *err);
void disk_layers_close(struct image **layers, uint32_t first, uint32_t count);
/* Whether @parent lies in the folder of @child or below it: a raw parent has to. */
bool disk_is_near(const char *child, const char *parent);
/* The parent's identity is one that the child has recorded; -EPROTO. */
int disk_parent_check(const struct image *child, const struct image *parent,
		      struct base_error *err);

/* --- disk_request.c: loop --- */

void disk_list_add(struct disk_io_list *list, struct disk_io *io);
void disk_list_remove(struct disk_io_list *list, struct disk_io *io);
/* Go on with @io: queue it, lock its range, or hand it to the image. */
void disk_io_go(struct disk_io *io);
/* Everything is done: give locks and buffers back, tell the guest. */
void disk_io_finish(struct disk_io *io, int result);
/* Go on with everything that waits. */
void disk_waiting_go(struct disk *disk);
/* End everything that waits or is stalled. */
void disk_waiting_end(struct disk *disk, int result);
bool disk_op_changes(enum disk_op op);

/* --- disk_policy.c: loop --- */

/* True: the policy keeps @io, which failed with @code; it will be tried again. */
bool disk_stall(struct disk_io *io, int code);
/* True: @io has to wait behind what is stalled. */
bool disk_stall_blocks(const struct disk_io *io);
/* @io, which was being tried again, is over (well, or with an error that is reported). */
void disk_stall_over(struct disk_io *io);
void disk_policy_init(struct disk *disk);
void disk_retry_now(struct disk *disk);
/* True: @io must not wait for the store or an activation; it ends with -ECANCELED. */
bool disk_gives_back(const struct disk_io *io);

/* --- disk_hook.c --- */

/* Loop: @io needs its range locked before it goes to the image. */
bool disk_lock_needed(const struct disk_io *io);
/* Loop: true when @io has its range now; else it goes on by itself. */
bool disk_lock(struct disk_io *io);
void disk_unlock(struct disk_io *io);
/* Loop: the hook as of now will see @io: make the stable copy. */
void disk_hook_prepare(struct disk_io *io);
void disk_hook_call(struct disk_io *io);
/* Blocking: as disk_hook_set(), for a merge. */
int disk_hook_set_inside(struct disk *disk, disk_hook hook, void *context, struct base_error *err);

#endif
