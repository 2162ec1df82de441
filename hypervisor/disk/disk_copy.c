/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The copying job: a cursor that maps the source, and slots that each carry a piece.
 * Loop only, but for disk_copy() and disk_copy_run(), which wait for it.
 *
 * Every completion comes back through a task, so that sources that answer at once do not
 * pile up on the stack.
 *
 * A piece that is locked is looked at again under the lock where the map said "zero": the guest
 * may have written there since.  "Data" needs no second look, because reading shows what is there
 * now; and what the map left out (unmapped in a fresh target, the parent's) can only have been
 * changed by a write that the hook saw.
 */
#include "hypervisor/disk/disk_copy.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/bytes.h"
#include "base/cleanup.h"
#include "hypervisor/disk/disk_copy_priv.h"

#define MAP_EXTENTS  64U
#define ZERO_PIECE   (256ULL << 20) /* one request for so many zeros */
#define MAP_PIECE    (64ULL << 30)  /* asked of the map at a time */
#define LOOK_BYTES   4096U          /* zeros are looked for in pieces of this */
#define ZERO_RUN_MIN (32U << 10)    /* fewer zeros are written with their neighbours */
#define BUFFER_ALIGN 4096U

struct copy;

enum slot_step {
	SLOT_INVALID,
	SLOT_MAPPED, /* the look under the lock is there */
	SLOT_READ,   /* the data is there */
	SLOT_WRITTEN /* a run of it is written */
};

struct slot {
	struct copy *copy;
	bool busy;
	enum slot_step step;
	enum disk_extent_kind kind;
	uint64_t begin_bytes; /* of what is left of the piece */
	uint64_t end_bytes;
	uint64_t now_bytes; /* how much of it is being worked on */
	uint64_t at_bytes;  /* of that, written */
	uint64_t run_bytes; /* of that, being written */
	uint8_t *buffer;
	struct iovec iov;
	struct disk_extent extent;
	struct disk_request request;
	struct disk_range_lock lock;
	struct base_io_task task;
	int result;
};

struct copy {
	const struct disk_copy_plan *plan;
	struct slot *slots;
	uint32_t busy;
	uint64_t cursor_bytes; /* everything before is done or in a slot */
	uint64_t mapped_bytes; /* the extents reach to here */
	struct disk_extent extents[MAP_EXTENTS];
	uint32_t extent_count;
	uint32_t extent_next;
	struct disk_request map;
	bool mapping;
	struct base_io_task task;
	uint64_t done_bytes;
	int result;
	const char *what; /* that failed */
	bool over;
};

static void copy_go(struct copy *copy);

static void copy_fail(struct copy *copy, int code, const char *what)
{
	if (copy->result != 0)
		return;
	copy->result = code;
	copy->what = what;
}

static void copied(struct copy *copy, uint64_t bytes)
{
	const struct disk_copy_plan *plan = copy->plan;

	copy->done_bytes += bytes;
	if (plan->progress == NULL || copy->result != 0)
		return;
	if (plan->progress(plan->context, copy->done_bytes, plan->size_bytes) != 0)
		copy_fail(copy, -ECANCELED, "copying");
}

/* --- a piece --- */

static void slot_task(struct base_io_task *task);

static void slot_done(struct disk_request *request, int result)
{
	struct slot *slot = request->context;

	slot->result = result;
	slot->task = (struct base_io_task){ .run = slot_task };
	base_io_post(slot->copy->plan->loop, &slot->task);
}

static void slot_submit(struct slot *slot, const struct disk_copy_port *port, enum disk_op op,
			uint64_t offset, uint64_t length)
{
	slot->iov = (struct iovec){ slot->buffer + (offset - slot->begin_bytes), (size_t)length };
	slot->request = (struct disk_request){
		.op = op,
		.flags = op == DISK_ZERO ? DISK_MAY_UNMAP : 0,
		.offset_bytes = offset,
		.length_bytes = length,
		.iov = &slot->iov,
		.iov_count = 1,
		.done = slot_done,
		.context = slot,
	};
	if (op == DISK_ZERO || op == DISK_MAP) {
		slot->request.iov = NULL;
		slot->request.iov_count = 0;
	}
	if (op == DISK_MAP) {
		slot->request.flags = slot->copy->plan->map_flags;
		slot->request.extents = &slot->extent;
		slot->request.extent_capacity = 1;
	}
	port->submit(port->context, &slot->request);
}

/* Zero or data, from the slot's position on; how long. */
static bool zero_run(const struct slot *slot, uint64_t *ret_bytes)
{
	const uint8_t *from = slot->buffer + slot->at_bytes;
	uint64_t left = slot->now_bytes - slot->at_bytes;
	uint64_t zeros = 0;
	uint64_t data = 0;

	for (uint64_t at = 0; at < left; at += LOOK_BYTES) {
		uint64_t length = left - at < LOOK_BYTES ? left - at : LOOK_BYTES;

		if (base_is_zero(from + at, (size_t)length)) {
			zeros += length;
			if (data > 0 && zeros >= ZERO_RUN_MIN)
				break;
			continue;
		}
		if (data == 0 && zeros >= ZERO_RUN_MIN)
			break;
		data = at + length;
		zeros = 0;
	}
	if (data == 0) {
		*ret_bytes = zeros;
		return true;
	}
	*ret_bytes = zeros >= ZERO_RUN_MIN ? data : left;
	return false;
}

static void slot_end(struct slot *slot)
{
	struct copy *copy = slot->copy;

	slot->busy = false;
	copy->busy--;
	copy_go(copy);
}

/* What was being worked on is over. */
static void slot_advance(struct slot *slot, uint64_t bytes)
{
	struct copy *copy = slot->copy;

	if (copy->plan->locks != NULL)
		disk_range_unlock(copy->plan->locks, &slot->lock);
	if (bytes > slot->end_bytes - slot->begin_bytes)
		bytes = slot->end_bytes - slot->begin_bytes; /* the rest was padding */
	slot->begin_bytes += bytes;
	if (copy->result == 0)
		copied(copy, bytes);
}

/* The next run of what was read; true when there is none. */
static bool slot_write(struct slot *slot)
{
	const struct disk_copy_plan *plan = slot->copy->plan;

	while (slot->at_bytes < slot->now_bytes) {
		bool zero = false;

		slot->run_bytes = slot->now_bytes - slot->at_bytes;
		if (plan->detect_zeroes)
			zero = zero_run(slot, &slot->run_bytes);
		if (!zero || !plan->fresh) {
			slot->step = SLOT_WRITTEN;
			slot_submit(slot, &plan->to, zero ? DISK_ZERO : DISK_WRITE,
				    slot->begin_bytes + slot->at_bytes, slot->run_bytes);
			return false;
		}
		slot->at_bytes += slot->run_bytes;
	}
	slot_advance(slot, slot->now_bytes);
	return true;
}

/* The target's last sector may reach beyond the source's end: what is left there is zeros. */
static void slot_pad(struct slot *slot)
{
	uint32_t align = slot->copy->plan->align_bytes;

	slot->now_bytes = (slot->now_bytes + align - 1) / align * align;
}

static void slot_zero(struct slot *slot)
{
	slot_pad(slot);
	slot->at_bytes = 0;
	slot->run_bytes = slot->now_bytes;
	slot->step = SLOT_WRITTEN;
	slot_submit(slot, &slot->copy->plan->to, DISK_ZERO, slot->begin_bytes, slot->now_bytes);
}

static bool slot_was_read(struct slot *slot)
{
	uint64_t bytes = slot->now_bytes;

	slot_pad(slot);
	memset(slot->buffer + bytes, 0, (size_t)(slot->now_bytes - bytes));
	return slot_write(slot);
}

static void slot_read(struct slot *slot)
{
	const struct disk_copy_plan *plan = slot->copy->plan;

	if (slot->now_bytes > plan->chunk_bytes)
		slot->now_bytes = plan->chunk_bytes;
	slot->at_bytes = 0;
	slot->step = SLOT_READ;
	slot_submit(slot, &plan->from, DISK_READ, slot->begin_bytes, slot->now_bytes);
}

/* The range is ours. */
static void slot_locked(struct disk_range_lock *lock)
{
	struct slot *slot = lock->context;

	if (slot->kind == DISK_EXTENT_DATA) {
		slot_read(slot);
		return;
	}
	slot->step = SLOT_MAPPED;
	slot_submit(slot, &slot->copy->plan->from, DISK_MAP, slot->begin_bytes, slot->now_bytes);
}

/* The next part of the piece. */
static void slot_begin(struct slot *slot)
{
	const struct disk_copy_plan *plan = slot->copy->plan;

	slot->now_bytes = slot->end_bytes - slot->begin_bytes;
	if (plan->locks == NULL) {
		if (slot->kind == DISK_EXTENT_DATA)
			slot_read(slot);
		else
			slot_zero(slot);
		return;
	}
	slot->lock = (struct disk_range_lock){
		.offset_bytes = slot->begin_bytes,
		.length_bytes = slot->now_bytes,
		.granted = slot_locked,
		.context = slot,
	};
	disk_range_lock(plan->locks, &slot->lock);
}

/* True: there is nothing to copy. */
static bool slot_mapped(struct slot *slot)
{
	if (slot->now_bytes > slot->extent.length_bytes)
		slot->now_bytes = slot->extent.length_bytes;
	switch (slot->extent.kind) {
	case DISK_EXTENT_DATA:
		slot_read(slot);
		break;
	case DISK_EXTENT_ZERO:
	case DISK_EXTENT_UNMAPPED:
		slot_zero(slot);
		break;
	case DISK_EXTENT_PARENT:
		slot_advance(slot, slot->now_bytes);
		return true;
	case DISK_EXTENT_INVALID:
	case DISK_EXTENT_KINDS:
		base_bug("extent of kind %d", (int)slot->extent.kind);
	}
	return false;
}

/* One step.  True: the next one can be made at once; false: the slot may be gone. */
static bool slot_step(struct slot *slot)
{
	struct copy *copy = slot->copy;
	enum slot_step step = slot->step;

	slot->step = SLOT_INVALID;
	if (step != SLOT_INVALID && slot->result != 0)
		copy_fail(copy, slot->result, step == SLOT_WRITTEN ? "write" : "read");
	if (step != SLOT_INVALID && copy->result != 0) {
		slot_advance(slot, 0);
		slot_end(slot);
		return false;
	}
	switch (step) {
	case SLOT_MAPPED:
		return slot_mapped(slot);
	case SLOT_READ:
		return slot_was_read(slot);
	case SLOT_WRITTEN:
		slot->at_bytes += slot->run_bytes;
		return slot_write(slot);
	case SLOT_INVALID:
		if (slot->begin_bytes < slot->end_bytes && copy->result == 0)
			slot_begin(slot);
		else
			slot_end(slot);
		break;
	}
	return false;
}

static void slot_task(struct base_io_task *task)
{
	struct slot *slot = (struct slot *)((char *)task - offsetof(struct slot, task));

	while (slot_step(slot))
		;
}

/* --- the cursor --- */

static bool skipped(const struct disk_copy_plan *plan, enum disk_extent_kind kind)
{
	if (kind == DISK_EXTENT_PARENT)
		return true;
	return plan->fresh && (kind == DISK_EXTENT_UNMAPPED || kind == DISK_EXTENT_ZERO);
}

static void copy_task(struct base_io_task *task)
{
	struct copy *copy = (struct copy *)((char *)task - offsetof(struct copy, task));

	copy->mapping = false;
	copy_go(copy);
}

static void map_done(struct disk_request *request, int result)
{
	struct copy *copy = request->context;

	if (result != 0)
		copy_fail(copy, result, "map");
	copy->extent_next = 0;
	copy->extent_count = result == 0 ? request->extent_count : 0;
	copy->task = (struct base_io_task){ .run = copy_task };
	base_io_post(copy->plan->loop, &copy->task);
}

static void copy_map(struct copy *copy)
{
	const struct disk_copy_plan *plan = copy->plan;
	uint64_t left = plan->size_bytes - copy->cursor_bytes;

	copy->mapping = true;
	copy->map = (struct disk_request){
		.op = DISK_MAP,
		.flags = plan->map_flags,
		.offset_bytes = copy->cursor_bytes,
		.length_bytes = left < MAP_PIECE ? left : MAP_PIECE,
		.extents = copy->extents,
		.extent_capacity = MAP_EXTENTS,
		.done = map_done,
		.context = copy,
	};
	plan->from.submit(plan->from.context, &copy->map);
}

static struct slot *slot_free(struct copy *copy)
{
	for (uint32_t i = 0; i < copy->plan->depth; i++) {
		if (!copy->slots[i].busy)
			return &copy->slots[i];
	}
	return NULL;
}

/* The piece of @kind from the cursor on, at most to @end_bytes, goes to @slot. */
static void piece_begin(struct copy *copy, struct slot *slot, enum disk_extent_kind kind,
			uint64_t end_bytes)
{
	uint64_t most = ZERO_PIECE;
	uint64_t left = end_bytes - copy->cursor_bytes;

	if (kind == DISK_EXTENT_DATA) /* pieces end where chunks do */
		most = copy->plan->chunk_bytes - copy->cursor_bytes % copy->plan->chunk_bytes;
	slot->busy = true;
	copy->busy++;
	slot->kind = kind;
	slot->begin_bytes = copy->cursor_bytes;
	slot->end_bytes = copy->cursor_bytes + (left < most ? left : most);
	copy->cursor_bytes = slot->end_bytes;
	slot->step = SLOT_INVALID;
	slot->result = 0;
	slot->task = (struct base_io_task){ .run = slot_task };
	base_io_post(copy->plan->loop, &slot->task);
}

/*
 * What to do next: an extent as far as it has whole sectors of the target; a sector that several
 * extents share is data.  False: the extents are used up.
 */
static bool piece_next(struct copy *copy, enum disk_extent_kind *ret_kind, uint64_t *ret_end)
{
	const struct disk_copy_plan *plan = copy->plan;
	uint32_t align = plan->align_bytes;

	for (; copy->extent_next < copy->extent_count; copy->extent_next++) {
		const struct disk_extent *extent = &copy->extents[copy->extent_next];
		uint64_t end = extent->offset_bytes + extent->length_bytes;

		if (end <= copy->cursor_bytes)
			continue;
		*ret_kind = extent->kind;
		*ret_end = end == plan->size_bytes ? end : end / align * align;
		if (*ret_end > copy->cursor_bytes)
			return true;
		*ret_kind = DISK_EXTENT_DATA;
		*ret_end = copy->cursor_bytes + align;
		if (*ret_end > plan->size_bytes)
			*ret_end = plan->size_bytes;
		return true;
	}
	return false;
}

static void copy_go(struct copy *copy)
{
	const struct disk_copy_plan *plan = copy->plan;

	if (copy->mapping)
		return;
	while (copy->result == 0 && copy->cursor_bytes < plan->size_bytes) {
		enum disk_extent_kind kind = DISK_EXTENT_INVALID;
		struct slot *slot = NULL;
		uint64_t end = 0;

		if (!piece_next(copy, &kind, &end)) {
			copy_map(copy);
			return;
		}
		if (skipped(plan, kind)) {
			uint64_t bytes = end - copy->cursor_bytes;

			copy->cursor_bytes = end;
			copied(copy, bytes);
			continue;
		}
		slot = slot_free(copy);
		if (slot == NULL)
			return;
		piece_begin(copy, slot, kind, end);
	}
	if (copy->busy == 0)
		base_io_done(plan->loop, &copy->over);
}

/* --- the blocking forms --- */

static void copy_start(void *context)
{
	copy_go(context);
}

static void slots_free(struct copy *copy)
{
	for (uint32_t i = 0; copy->slots != NULL && i < copy->plan->depth; i++)
		free(copy->slots[i].buffer);
	free(copy->slots);
}

static int slots_new(struct copy *copy)
{
	const struct disk_copy_plan *plan = copy->plan;

	copy->slots = calloc(plan->depth, sizeof(*copy->slots));
	for (uint32_t i = 0; copy->slots != NULL && i < plan->depth; i++) {
		copy->slots[i].copy = copy;
		copy->slots[i].buffer = aligned_alloc(BUFFER_ALIGN, plan->chunk_bytes);
		if (copy->slots[i].buffer == NULL)
			return -ENOMEM;
	}
	return copy->slots == NULL ? -ENOMEM : 0;
}

int disk_copy_run(const struct disk_copy_plan *plan, struct base_error *err)
{
	BASE_FREE struct copy *copy = calloc(1, sizeof(*copy));
	int rc = 0;

	if (copy == NULL)
		return base_fail(err, -ENOMEM, "copy of '%s'", plan->from.name);
	copy->plan = plan;
	rc = slots_new(copy);
	if (rc == 0) {
		base_io_call(plan->loop, copy_start, copy);
		base_io_wait(plan->loop, &copy->over);
		rc = copy->result;
	} else {
		copy->what = "buffers";
	}
	slots_free(copy);
	if (rc == 0)
		return 0;
	return base_fail_errno(err, rc, "copy '%s' to '%s': %s", plan->from.name, plan->to.name,
			       copy->what);
}

static void submit_to_disk(void *context, struct disk_request *request)
{
	disk_submit(context, request);
}

static int options_check(const struct disk_copy_options *options, struct disk_copy_plan *plan,
			 struct base_error *err)
{
	struct disk_geometry to;

	if (plan->chunk_bytes % LOOK_BYTES != 0 || plan->chunk_bytes > DISK_COPY_CHUNK_BYTES_MAX)
		return base_fail(err, -EINVAL, "copy: chunks of %u bytes, wanted 4096 to %u",
				 plan->chunk_bytes, DISK_COPY_CHUNK_BYTES_MAX);
	if (plan->depth > DISK_COPY_DEPTH_MAX)
		return base_fail(err, -EINVAL, "copy: %u pieces in flight, wanted 1 to %u",
				 plan->depth, DISK_COPY_DEPTH_MAX);
	disk_geometry(options->to, &to);
	plan->align_bytes = to.logical_sector_bytes;
	if (to.size_bytes < plan->size_bytes ||
	    to.size_bytes - plan->size_bytes <
		    (plan->align_bytes - plan->size_bytes % plan->align_bytes) % plan->align_bytes)
		return base_fail(err, -EINVAL, "copy: the target has %llu bytes, the source %llu",
				 (unsigned long long)to.size_bytes,
				 (unsigned long long)plan->size_bytes);
	return 0;
}

int disk_copy(const struct disk_copy_options *options, struct base_error *err)
{
	struct disk_geometry from;
	struct disk_copy_plan plan = {
		.loop = disk_loop(options->from),
		.from = { submit_to_disk, options->from, disk_name(options->from) },
		.to = { submit_to_disk, options->to, disk_name(options->to) },
		.locks = options->live ? options->from : NULL,
		.chunk_bytes =
			options->chunk_bytes != 0 ? options->chunk_bytes : DISK_COPY_CHUNK_BYTES,
		.depth = options->depth != 0 ? options->depth : DISK_COPY_DEPTH,
		.detect_zeroes = options->detect_zeroes,
		.fresh = options->fresh,
		.progress = options->progress,
		.context = options->context,
	};
	int rc = 0;

	disk_geometry(options->from, &from);
	plan.size_bytes = from.size_bytes;
	rc = options_check(options, &plan, err);
	return rc != 0 ? rc : disk_copy_run(&plan, err);
}
