/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Requests on their way through a disk: docs/hypervisor/disk/disk.md draws it.  Loop, but for
 * disk_submit(), disk_do_request() and disk_do().
 */
#include "hypervisor/disk/disk_priv.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define IOVEC_ALIGN 512U

bool disk_op_changes(enum disk_op op)
{
	return op == DISK_WRITE || op == DISK_ZERO || op == DISK_UNMAP || op == DISK_RESIZE;
}

void disk_list_add(struct disk_io_list *list, struct disk_io *io)
{
	io->next = NULL;
	io->previous = list->tail;
	if (list->tail != NULL)
		list->tail->next = io;
	else
		list->head = io;
	list->tail = io;
	list->count++;
}

void disk_list_remove(struct disk_io_list *list, struct disk_io *io)
{
	if (io->previous != NULL)
		io->previous->next = io->next;
	else
		list->head = io->next;
	if (io->next != NULL)
		io->next->previous = io->previous;
	else
		list->tail = io->previous;
	io->next = NULL;
	io->previous = NULL;
	list->count--;
}

/* --- validation --- */

static uint32_t flags_of(enum disk_op op)
{
	switch (op) {
	case DISK_WRITE:
	case DISK_UNMAP:
		return DISK_FUA;
	case DISK_ZERO:
		return DISK_FUA | DISK_MAY_UNMAP;
	case DISK_MAP:
		return DISK_THIS_LAYER;
	case DISK_READ:
	case DISK_FLUSH:
	case DISK_RESIZE:
	case DISK_OP_INVALID:
	case DISK_OPS:
		break;
	}
	return 0;
}

static bool inside(const struct disk *disk, uint64_t offset, uint64_t length)
{
	uint64_t size = disk->geometry.size_bytes;

	return offset <= size && length <= size - offset;
}

static bool iov_valid(const struct disk_request *request)
{
	uint64_t left = request->length_bytes;

	if (request->length_bytes > DISK_REQUEST_BYTES_MAX || request->iov == NULL ||
	    request->iov_count == 0 || request->iov_count > DISK_REQUEST_IOVECS_MAX)
		return false;
	for (uint32_t i = 0; i < request->iov_count; i++) {
		const struct iovec *iov = &request->iov[i];

		if (iov->iov_base == NULL || (uintptr_t)iov->iov_base % IOVEC_ALIGN != 0)
			return false;
		if (iov->iov_len == 0 || iov->iov_len % IOVEC_ALIGN != 0 || iov->iov_len > left)
			return false;
		left -= iov->iov_len;
	}
	return left == 0;
}

/* 0: go on; 1: nothing is to be done; or the error. */
static int validate(const struct disk *disk, const struct disk_request *request)
{
	uint32_t sector = disk->geometry.logical_sector_bytes;
	bool data = request->op == DISK_READ || request->op == DISK_WRITE;

	if (request->op <= DISK_OP_INVALID || request->op >= DISK_OPS)
		return -EINVAL;
	if ((request->flags & ~flags_of(request->op)) != 0)
		return -EINVAL;
	if (disk_op_changes(request->op) && (disk->options.read_only || !disk->active) &&
	    !(disk->parked && !disk->options.read_only))
		return -EROFS;
	if (request->op == DISK_FLUSH)
		return disk->active || disk->parked ? 0 : 1; /* standby has nothing to flush */
	if (request->op == DISK_RESIZE)
		return request->offset_bytes == 0 || request->offset_bytes % sector != 0 ? -EINVAL
											 : 0;
	if (request->offset_bytes % sector != 0 || request->length_bytes % sector != 0 ||
	    !inside(disk, request->offset_bytes, request->length_bytes))
		return -EINVAL;
	if (request->op == DISK_MAP)
		return request->length_bytes == 0 || request->extents == NULL ||
				       request->extent_capacity == 0
			       ? -EINVAL
			       : 0;
	if (request->length_bytes == 0)
		return 1;
	return data && !iov_valid(request) ? -EINVAL : 0;
}

/* Whole granules inside the range; false when there are none. */
static bool trim(const struct disk *disk, struct disk_request *inner)
{
	uint64_t granule = disk->geometry.unmap_granularity_bytes;
	uint64_t begin = inner->offset_bytes;
	uint64_t end = begin + inner->length_bytes; /* inside the disk: no overflow */
	uint64_t skip = 0;

	if (granule <= 1)
		return true;
	skip = (granule - begin % granule) % granule;
	end -= end % granule;
	if (skip > inner->length_bytes || begin + skip >= end)
		return false;
	inner->offset_bytes = begin + skip;
	inner->length_bytes = end - inner->offset_bytes;
	return true;
}

/* --- the end of a request --- */

static void io_free(struct disk_io *io)
{
	struct disk *disk = io->disk;

	io->next = disk->free_ios;
	disk->free_ios = io;
}

/* What is left after locks and buffers: out of the lists, to the guest. */
static void io_tell(struct disk_io *io)
{
	struct disk *disk = io->disk;
	struct disk_request *guest = io->guest;
	int result = io->result;

	if (io->in_flight)
		disk_list_remove(&disk->flight, io);
	io->in_flight = false;
	io_free(io);
	guest->done(guest, result);
	disk->live--;
	if (disk->flight.count == 0)
		disk_drained(disk);
	if (disk->live == 0 && disk->closed_wait != NULL)
		base_io_done(disk->loop, disk->closed_wait);
}

static void tell_later(struct base_io_task *task)
{
	io_tell((struct disk_io *)((char *)task - offsetof(struct disk_io, task)));
}

void disk_io_finish(struct disk_io *io, int result)
{
	struct disk *disk = io->disk;

	io->result = result;
	if (io->guest->op == DISK_MAP)
		io->guest->extent_count = io->inner.extent_count;
	free(io->copy);
	io->copy = NULL;
	if (io->retrying)
		disk_stall_over(io);
	if (io->in_locks)
		disk_unlock(io);
	if (io->direct) {
		io->task = (struct base_io_task){ .run = tell_later };
		base_io_post(disk->loop, &io->task);
		return;
	}
	io_tell(io);
}

static void resized(struct disk *disk)
{
	const struct disk_events *events = disk->options.events;

	disk_facts_update(disk);
	if (events != NULL && events->resized != NULL)
		events->resized(disk->options.events_context, disk->geometry.size_bytes);
}

/* The image is done with it. */
static void inner_done(struct disk_request *inner, int result)
{
	struct disk_io *io = inner->context;
	struct disk *disk = io->disk;
	const struct image *top = disk->layers[0];

	if (result == 0) {
		if (inner->op == DISK_RESIZE)
			resized(disk);
		if (io->hooked)
			disk_hook_call(io);
		else
			disk_io_finish(io, 0);
		return;
	}
	if (top->failed)
		disk_tell_failed(disk, top->failed_why);
	if (!disk_stall(io, result))
		disk_io_finish(io, result);
}

/* --- the way to the image --- */

static void submit_inner(struct disk_io *io)
{
	struct disk *disk = io->disk;
	struct image *top = disk->layers[0];

	if (!io->in_flight)
		disk_list_add(&disk->flight, io);
	io->in_flight = true;
	if (disk->broken != NULL && (disk_op_changes(io->inner.op) || io->inner.op == DISK_FLUSH)) {
		disk_io_finish(io, -EIO);
		return;
	}
	if (io->inner.op == DISK_RESIZE && atomic_load(&disk->job) != DISK_JOB_NONE) {
		disk_io_finish(io, -EBUSY);
		return;
	}
	/* It may have waited while the disk shrank. */
	if (io->inner.op != DISK_FLUSH && io->inner.op != DISK_RESIZE &&
	    !inside(disk, io->inner.offset_bytes, io->inner.length_bytes)) {
		disk_io_finish(io, -EINVAL);
		return;
	}
	if (disk_op_changes(io->inner.op))
		disk_hook_prepare(io);
	io->inner.extent_count = 0;
	io->inner.pending = 0;
	io->inner.result = 0;
	top->ops->submit(top, &io->inner);
}

void disk_io_go(struct disk_io *io)
{
	struct disk *disk = io->disk;

	if (disk->closing) {
		disk_io_finish(io, -ECANCELED);
		return;
	}
	if (disk_gives_back(io)) {
		disk_io_finish(io, -ECANCELED);
		return;
	}
	if (disk->parked || disk->holds > 0 || disk_stall_blocks(io)) {
		disk_list_add(&disk->waiting, io);
		return;
	}
	if (disk_lock_needed(io) && !disk_lock(io))
		return; /* goes on when its range is granted */
	submit_inner(io);
}

void disk_waiting_go(struct disk *disk)
{
	struct disk_io_list list = disk->waiting;

	disk->waiting = (struct disk_io_list){ .head = NULL };
	while (list.head != NULL) {
		struct disk_io *io = list.head;

		disk_list_remove(&list, io);
		disk_io_go(io);
	}
}

void disk_waiting_end(struct disk *disk, int result)
{
	while (disk->waiting.head != NULL || disk->stalled.head != NULL) {
		struct disk_io_list *list =
			disk->waiting.head != NULL ? &disk->waiting : &disk->stalled;
		struct disk_io *io = list->head;

		disk_list_remove(list, io);
		io->retrying = false;
		disk_io_finish(io, result);
	}
}

static struct disk_io *io_new(struct disk *disk, struct disk_request *guest)
{
	struct disk_io *io = disk->free_ios;

	if (io != NULL)
		disk->free_ios = io->next;
	else
		io = malloc(sizeof(*io));
	if (io == NULL)
		return NULL;

	io->disk = disk;
	io->guest = guest;
	io->range = (struct disk_range_lock){ .length_bytes = 0 };
	io->in_locks = false;
	io->direct = false;
	io->in_flight = false;
	io->hooked = false;
	io->retrying = false;
	io->result = 0;
	io->copy = NULL;
	io->next = NULL;
	io->previous = NULL;
	io->inner = (struct disk_request){
		.op = guest->op,
		.flags = guest->flags,
		.offset_bytes = guest->offset_bytes,
		.length_bytes = guest->length_bytes,
		.iov = guest->iov,
		.iov_count = guest->iov_count,
		.extents = guest->extents,
		.extent_capacity = guest->extent_capacity,
		.done = inner_done,
		.context = io,
	};
	guest->owner = io;
	return io;
}

/* A request for which there was no memory: its own fields have to do. */
static void plain_done(struct base_io_task *task)
{
	struct disk_request *guest =
		(struct disk_request *)((char *)task - offsetof(struct disk_request, task));
	struct disk *disk = guest->owner;

	guest->done(guest, -ENOMEM);
	disk->live--;
	if (disk->live == 0 && disk->closed_wait != NULL)
		base_io_done(disk->loop, disk->closed_wait);
}

static void io_begin(struct disk *disk, struct disk_request *guest, bool direct)
{
	struct disk_io *io = io_new(disk, guest);
	int rc = 0;

	disk->live++;
	if (io == NULL) {
		guest->owner = disk;
		guest->task = (struct base_io_task){ .run = plain_done };
		base_io_post(disk->loop, &guest->task);
		return;
	}
	io->direct = direct;
	rc = validate(disk, guest);
	if (rc == 0 && guest->op == DISK_UNMAP && !trim(disk, &io->inner))
		rc = 1;
	if (rc != 0) {
		disk_io_finish(io, rc > 0 ? 0 : rc);
		return;
	}
	if (disk->options.write_through &&
	    (guest->op == DISK_WRITE || guest->op == DISK_ZERO || guest->op == DISK_UNMAP))
		io->inner.flags |= DISK_FUA;
	disk_io_go(io);
	if (direct)
		io->direct = false; /* it is still there: its done waits for the loop */
}

static void arrived(struct base_io_task *task)
{
	struct disk_request *guest =
		(struct disk_request *)((char *)task - offsetof(struct disk_request, task));

	io_begin(guest->owner, guest, false);
}

void disk_submit(struct disk *disk, struct disk_request *request)
{
	if (base_io_loop_is_owner(disk->loop)) {
		io_begin(disk, request, true);
		return;
	}
	request->owner = disk;
	request->task = (struct base_io_task){ .run = arrived };
	base_io_post(disk->loop, &request->task);
}

/* --- the blocking form --- */

struct do_wait {
	struct disk *disk;
	bool done;
	int result;
};

static void do_done(struct disk_request *request, int result)
{
	struct do_wait *wait = request->context;

	wait->result = result;
	base_io_done(wait->disk->loop, &wait->done);
}

static const char *op_name(enum disk_op op)
{
	static const char *const names[DISK_OPS] = {
		[DISK_READ] = "read",     [DISK_WRITE] = "write", [DISK_FLUSH] = "flush",
		[DISK_UNMAP] = "unmap",   [DISK_ZERO] = "zero",   [DISK_MAP] = "map",
		[DISK_RESIZE] = "resize",
	};

	return op > DISK_OP_INVALID && op < DISK_OPS ? names[op] : "invalid request";
}

const char *disk_damage(const struct disk *disk)
{
	for (uint32_t i = 0; i < disk->layer_count; i++) {
		if (disk->layers[i]->damage[0] != '\0')
			return disk->layers[i]->damage;
	}
	return "";
}

int disk_do_request(struct disk *disk, struct disk_request *request, struct base_error *err)
{
	struct do_wait wait = { .disk = disk };
	const char *damage = NULL;

	request->done = do_done;
	request->context = &wait;
	disk_submit(disk, request);
	base_io_wait(disk->loop, &wait.done);
	if (wait.result == 0)
		return 0;
	damage = wait.result == -EBADMSG ? disk_damage(disk) : "";
	return base_fail_errno(
		err, wait.result, "disk '%s': %s of %llu bytes at %llu%s%s", disk->top_name,
		op_name(request->op), (unsigned long long)request->length_bytes,
		(unsigned long long)request->offset_bytes, damage[0] != '\0' ? ": " : "", damage);
}

int disk_do(struct disk *disk, enum disk_op op, uint64_t offset_bytes, void *data,
	    uint64_t length_bytes, struct base_error *err)
{
	struct iovec iov = { .iov_base = data, .iov_len = (size_t)length_bytes };
	struct disk_request request = {
		.op = op,
		.offset_bytes = offset_bytes,
		.length_bytes = length_bytes,
		.iov = &iov,
		.iov_count = 1,
	};

	return disk_do_request(disk, &request, err);
}
