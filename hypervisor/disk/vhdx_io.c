/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Requests of an open VHDX image: holding them back, cutting them up by blocks, the machinery of
 * pieces, and reading.  All on the loop.  Contract in vhdx_priv.h and vhdx_io_priv.h;
 * docs/hypervisor/disk/vhdx.md.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "hypervisor/disk/vhdx_io_priv.h"

static enum vhdx_step_result step_begin(struct vhdx_piece *piece);
static void go_on(struct vhdx *vhdx);

/* --- waiting --- */

static void waiter_task(struct base_io_task *task)
{
	struct vhdx_waiter *waiter =
		(struct vhdx_waiter *)((char *)task - offsetof(struct vhdx_waiter, task));

	waiter->run(waiter, waiter->result);
}

void vhdx_waiter_post(struct vhdx *vhdx, struct vhdx_waiter *waiter, int result)
{
	waiter->result = result;
	waiter->task.run = waiter_task;
	base_io_post(vhdx->image.loop, &waiter->task);
}

static enum vhdx_step_result step_failed(struct vhdx_piece *piece)
{
	return vhdx_piece_fail(piece, piece->result);
}

static void piece_waited(struct vhdx_waiter *waiter, int result)
{
	struct vhdx_piece *piece = waiter->context;

	if (result < 0) {
		if (piece->result == 0)
			piece->result = result;
		piece->step = step_failed;
	}
	vhdx_piece_run(piece);
}

static void piece_turned(struct base_io_task *task)
{
	vhdx_piece_run((struct vhdx_piece *)((char *)task - offsetof(struct vhdx_piece, task)));
}

static void piece_granted(struct vhdx_block_lock *lock)
{
	struct vhdx_piece *piece = lock->context;

	if (!piece->stepping)
		vhdx_piece_run(piece);
}

/* --- pieces --- */

/* NULL without memory.  The request's reference for it is the caller's to add. */
static struct vhdx_piece *piece_new(struct vhdx *vhdx, struct disk_request *request,
				    uint64_t cursor, uint64_t end)
{
	struct vhdx_blocks *blocks = vhdx->blocks;
	struct vhdx_piece *piece = blocks->free_pieces;

	if (piece != NULL) {
		blocks->free_pieces = piece->next;
		blocks->free_count--;
	} else {
		piece = calloc(1, sizeof(*piece)); /* what is set once stays set in the list */
		if (piece == NULL)
			return NULL;
		piece->vhdx = vhdx;
		piece->lock.granted = piece_granted;
		piece->lock.context = piece;
		piece->chunk.granted = piece_granted;
		piece->chunk.context = piece;
		piece->waiter.run = piece_waited;
		piece->waiter.context = piece;
		piece->task.run = piece_turned;
	}
	blocks->in_flight++;
	piece->request = request;
	piece->cursor = cursor;
	piece->end = end;
	piece->result = 0;
	piece->turns = 0;
	piece->commit = false;
	return piece;
}

void vhdx_piece_release(struct vhdx_piece *piece)
{
	struct vhdx *vhdx = piece->vhdx;

	if (piece->bat != NULL) {
		vhdx_page_put(piece->bat);
		piece->bat = NULL;
	}
	if (piece->has_bits)
		vhdx_bits_drop(piece);
	if (piece->has_space) {
		/* safety: a write of unknown outcome may still land there; nobody else gets the
		 * space before the image is opened again. */
		if (piece->result != -ETIMEDOUT)
			vhdx_space_give_back(vhdx, piece->space_offset, piece->space_bytes);
		piece->has_space = false;
	}
	if (piece->chunk_locked) {
		piece->chunk_locked = false;
		vhdx_block_unlock(vhdx, &piece->chunk);
	}
	if (piece->locked) {
		piece->locked = false;
		vhdx_block_unlock(vhdx, &piece->lock);
	}
}

static void piece_end(struct vhdx_piece *piece)
{
	struct vhdx *vhdx = piece->vhdx;
	struct vhdx_blocks *blocks = vhdx->blocks;
	struct disk_request *request = piece->request;
	int result = piece->result;

	vhdx_piece_release(piece);
	free(base_take(&piece->below));
	if (blocks->free_count < VHDX_PIECES_FREE_KEPT) {
		piece->next = blocks->free_pieces;
		blocks->free_pieces = piece;
		blocks->free_count++;
	} else {
		free(piece);
	}
	blocks->in_flight--;
	if (blocks->in_flight == 0 && blocks->holders != NULL)
		go_on(vhdx);
	image_part_done(request, result);
}

void vhdx_piece_run(struct vhdx_piece *piece)
{
	enum vhdx_step_result next;

	base_assert(!piece->stepping);
	piece->stepping = true;
	do {
		next = piece->step(piece);
	} while (next == VHDX_GO);
	piece->stepping = false;
	if (next != VHDX_END)
		return;
	if (piece->pending != 0)
		piece->step = step_failed; /* what is in flight uses what the piece holds */
	else
		piece_end(piece);
}

enum vhdx_step_result vhdx_piece_fail(struct vhdx_piece *piece, int code)
{
	if (piece->result == 0)
		piece->result = code;
	return VHDX_END;
}

enum vhdx_step_result vhdx_piece_after(struct vhdx_piece *piece, int code, vhdx_step next)
{
	if (code == -EINPROGRESS)
		return VHDX_WAIT;
	if (code < 0)
		return vhdx_piece_fail(piece, code);
	piece->step = next;
	return VHDX_GO;
}

enum vhdx_step_result vhdx_piece_join(struct vhdx_piece *piece, vhdx_step next)
{
	piece->step = next;
	if (piece->pending != 0)
		return VHDX_WAIT; /* piece_arrived() of the last one goes on */
	if (piece->result < 0)
		return VHDX_END;
	return VHDX_GO;
}

static bool op_changes(enum disk_op op)
{
	return op == DISK_WRITE || op == DISK_ZERO || op == DISK_UNMAP;
}

/* One thing in flight is over. */
static void piece_arrived(struct vhdx_piece *piece, int result)
{
	/* It may land after the block was given back, and then it must not be another's. */
	if (result == -ETIMEDOUT && op_changes(piece->request->op))
		vhdx_space_unsure(piece->vhdx);
	if (result < 0 && piece->result == 0)
		piece->result = result;
	piece->pending--;
	if (piece->pending != 0 || piece->stepping)
		return;
	if (piece->result < 0)
		piece->step = step_failed;
	vhdx_piece_run(piece);
}

static void part_finished(struct image_part *part, int result)
{
	struct vhdx_piece *piece = part->held;

	/* The piece holds a reference of its own: the request does not end here. */
	image_part_end(part, result);
	piece_arrived(piece, result);
}

static void clear_finished(struct store_request *request, int result)
{
	piece_arrived(request->context, result);
}

static struct image_part *part_new(struct vhdx_piece *piece, uint32_t at, uint32_t length)
{
	uint64_t skip = piece->cursor - piece->request->offset_bytes + (at - piece->within);
	struct image_part *part = image_part_new(&piece->vhdx->image, piece->request, skip, length);

	if (part == NULL)
		return NULL;
	part->finish = part_finished;
	part->held = piece;
	piece->pending++;
	return part;
}

int vhdx_piece_file(struct vhdx_piece *piece, uint32_t at, uint32_t length, uint64_t file_offset,
		    uint32_t store_flags)
{
	struct image_part *part = part_new(piece, at, length);

	if (part == NULL)
		return -ENOMEM;
	image_part_file(part, file_offset, store_flags);
	return 0;
}

int vhdx_piece_parent(struct vhdx_piece *piece, uint32_t at, uint32_t length)
{
	struct image_part *part;

	if (piece->vhdx->image.parent == NULL)
		return -ENODEV; /* opened without its chain: there is nothing to read from */
	part = part_new(piece, at, length);
	if (part == NULL)
		return -ENOMEM;
	image_part_parent(part);
	return 0;
}

void vhdx_piece_zero(struct vhdx_piece *piece, uint32_t at, uint32_t length)
{
	uint64_t skip = piece->cursor - piece->request->offset_bytes + (at - piece->within);

	image_iov_zero(piece->request->iov, piece->request->iov_count, skip, length);
}

void vhdx_piece_clear(struct vhdx_piece *piece, uint64_t file_offset, uint64_t length_bytes)
{
	struct store_file *file = piece->vhdx->image.file;

	piece->store = (struct store_request){
		.op = STORE_ZERO,
		.epoch = store_epoch(file),
		.offset_bytes = file_offset,
		.length_bytes = length_bytes,
		.done = clear_finished,
		.context = piece,
	};
	piece->pending++;
	store_submit(file, &piece->store);
}

int vhdx_piece_put(struct vhdx_piece *piece, uint64_t block_offset, uint32_t store_flags)
{
	uint64_t file_offset = block_offset + piece->within;

	if (piece->request->op == DISK_WRITE)
		return vhdx_piece_file(piece, piece->within, piece->length, file_offset,
				       store_flags);
	vhdx_piece_clear(piece, file_offset, piece->length);
	piece->commit = true; /* ZERO has no FUA of its own */
	return 0;
}

/* --- from block to block --- */

static enum vhdx_step_result piece_lock(struct vhdx_piece *piece, bool exclusive)
{
	piece->lock.block = piece->block;
	piece->lock.exclusive = exclusive;
	piece->locked = true;
	piece->step = vhdx_step_entry;
	vhdx_block_lock(piece->vhdx, &piece->lock);
	return piece->lock.held ? VHDX_GO : VHDX_WAIT;
}

enum vhdx_step_result vhdx_piece_upgrade(struct vhdx_piece *piece)
{
	vhdx_piece_release(piece);
	return piece_lock(piece, true);
}

static enum vhdx_step_result step_begin(struct vhdx_piece *piece)
{
	struct vhdx *vhdx = piece->vhdx;
	uint64_t left = piece->end - piece->cursor;
	uint64_t start;

	piece->block = piece->cursor >> vhdx->blocks->block_shift;
	piece->within = (uint32_t)(piece->cursor & (vhdx->block_bytes - 1));
	piece->length = vhdx->block_bytes - piece->within;
	if (piece->length > left)
		piece->length = (uint32_t)left;
	start = piece->cursor - piece->within;
	piece->visible = vhdx->block_bytes;
	if (vhdx->meta.disk_bytes - start < piece->visible)
		piece->visible = (uint32_t)(vhdx->meta.disk_bytes - start);
	piece->whole = piece->length == piece->visible;
	piece->bat_index = vhdx_bat_index(vhdx, piece->block);
	return piece_lock(piece, false);
}

static enum vhdx_step_result step_read(struct vhdx_piece *piece)
{
	int code = 0;

	switch (vhdx_entry_state(piece->entry)) {
	case VHDX_BLOCK_FULL:
		code = vhdx_piece_file(piece, piece->within, piece->length,
				       vhdx_entry_offset(piece->entry) + piece->within, 0);
		break;
	case VHDX_BLOCK_PARTIAL:
		piece->run_at = piece->within;
		piece->step = vhdx_step_read_partial;
		return VHDX_GO;
	case VHDX_BLOCK_NOT_PRESENT:
		if (piece->vhdx->meta.has_parent) {
			code = vhdx_piece_parent(piece, piece->within, piece->length);
			break;
		}
		vhdx_piece_zero(piece, piece->within, piece->length);
		break;
	default:
		vhdx_piece_zero(piece, piece->within, piece->length);
		break;
	}
	if (code < 0)
		return vhdx_piece_fail(piece, code);
	return vhdx_piece_join(piece, vhdx_step_block_done);
}

enum vhdx_step_result vhdx_step_entry(struct vhdx_piece *piece)
{
	struct vhdx *vhdx = piece->vhdx;
	int code;

	if (piece->bat == NULL) {
		code = vhdx_bat_page(vhdx, piece->bat_index, &piece->waiter, &piece->bat);
		if (code < 0)
			return vhdx_piece_after(piece, code, vhdx_step_entry);
	}
	piece->entry = vhdx_bat_get(vhdx, piece->bat, piece->bat_index);
	code = vhdx_bat_entry_check(vhdx, piece->block, piece->entry);
	if (code < 0)
		return vhdx_piece_fail(piece, code);
	switch ((int)piece->request->op) {
	case DISK_READ:
		vhdx_page_put(base_take(&piece->bat));
		piece->step = step_read;
		return VHDX_GO;
	case DISK_UNMAP:
		return vhdx_step_unmap(piece);
	case DISK_MAP:
		piece->step = vhdx_step_map;
		return VHDX_GO;
	default:
		return vhdx_step_write(piece);
	}
}

static enum vhdx_step_result step_end(struct vhdx_piece *piece)
{
	(void)piece;
	return VHDX_END;
}

enum vhdx_step_result vhdx_step_block_done(struct vhdx_piece *piece)
{
	vhdx_piece_release(piece);
	piece->cursor += piece->length;
	if (piece->cursor < piece->end) {
		piece->step = step_begin;
		piece->turns++;
		if (piece->turns % VHDX_BLOCKS_PER_TURN != 0)
			return VHDX_GO;
		base_io_post(piece->vhdx->image.loop, &piece->task);
		return VHDX_WAIT;
	}
	if ((piece->request->flags & DISK_FUA) == 0 || !op_changes(piece->request->op))
		return VHDX_END;
	/* Where nothing was left to unmap, the change that did it may not be durable yet. */
	if (!piece->commit &&
	    (piece->request->op == DISK_WRITE || !vhdx_commit_pending(piece->vhdx)))
		return VHDX_END;
	piece->step = step_end;
	vhdx_commit(piece->vhdx, &piece->waiter);
	return VHDX_WAIT;
}

/* --- requests --- */

static enum vhdx_step_result step_flush(struct vhdx_piece *piece)
{
	piece->step = step_end;
	vhdx_commit(piece->vhdx, &piece->waiter);
	return VHDX_WAIT;
}

static void start_piece(struct vhdx *vhdx, struct disk_request *request, uint64_t cursor,
			uint64_t end, vhdx_step step)
{
	struct vhdx_piece *piece = piece_new(vhdx, request, cursor, end);

	image_part_add(request);
	if (piece == NULL) {
		image_part_done(request, -ENOMEM);
		return;
	}
	piece->step = step;
	vhdx_piece_run(piece);
}

static int may_start(const struct vhdx *vhdx, const struct disk_request *request)
{
	if (request->op == DISK_READ || request->op == DISK_MAP)
		return 0;
	if (vhdx->image.failed)
		return -EIO;
	if (!vhdx->image.active)
		return request->op == DISK_FLUSH ? 0 : -EROFS;
	return 0;
}

void vhdx_start(struct vhdx *vhdx, struct disk_request *request)
{
	uint64_t at = request->offset_bytes;
	uint64_t end = at + request->length_bytes;
	int code = may_start(vhdx, request);

	image_split(request);
	if (code < 0 || (at == end && request->op != DISK_FLUSH)) {
		image_part_done(request, code);
		return;
	}
	/* Resize may have made the disk smaller since the request was looked at. */
	if (request->op != DISK_FLUSH &&
	    (at > vhdx->meta.disk_bytes || end - at > vhdx->meta.disk_bytes - at)) {
		image_part_done(request, -EINVAL);
		return;
	}
	switch ((int)request->op) {
	case DISK_FLUSH:
		/* What a session never touched is as durable as the last one left it. */
		if (vhdx->image.active && vhdx->blocks->touched)
			start_piece(vhdx, request, 0, 0, step_flush);
		break;
	case DISK_READ:
	case DISK_WRITE:
		while (at < end) { /* side by side */
			uint64_t next = (at | (vhdx->block_bytes - 1)) + 1;

			if (next > end)
				next = end;
			start_piece(vhdx, request, at, next, step_begin);
			at = next;
		}
		break;
	case DISK_MAP:
		request->extent_count = 0;
		start_piece(vhdx, request, at, end, step_begin);
		break;
	default:
		start_piece(vhdx, request, at, end, step_begin);
		break;
	}
	image_part_done(request, 0);
}

void vhdx_submit(struct image *image, struct disk_request *request)
{
	struct vhdx *vhdx = vhdx_of(image);
	struct vhdx_blocks *blocks = vhdx->blocks;

	if (request->op == DISK_RESIZE) {
		vhdx_resize(vhdx, request);
		return;
	}
	if (blocks->holders == NULL) {
		vhdx_start(vhdx, request);
		return;
	}
	request->held[0] = NULL;
	if (blocks->queue_tail != NULL)
		blocks->queue_tail->held[0] = request;
	else
		blocks->queue_head = request;
	blocks->queue_tail = request;
}

/* --- holding --- */

/* Nothing is in flight: the first holder's turn. */
static void go_on(struct vhdx *vhdx)
{
	struct vhdx_blocks *blocks = vhdx->blocks;

	if (blocks->held)
		return; /* the holder's own reads are over */
	blocks->held = true;
	vhdx_waiter_post(vhdx, blocks->holders, 0);
}

void vhdx_hold(struct vhdx *vhdx, struct vhdx_waiter *waiter)
{
	struct vhdx_waiter **at = &vhdx->blocks->holders;

	while (*at != NULL)
		at = &(*at)->next;
	waiter->next = NULL;
	*at = waiter;
	if (vhdx->blocks->in_flight == 0)
		go_on(vhdx);
}

void vhdx_unhold(struct vhdx *vhdx)
{
	struct vhdx_blocks *blocks = vhdx->blocks;
	struct disk_request *queue = blocks->queue_head;

	base_assert(blocks->held && blocks->in_flight == 0);
	blocks->held = false;
	blocks->holders = blocks->holders->next;
	blocks->in_flight++; /* nobody's turn before all of the queue has begun */
	blocks->queue_head = NULL;
	blocks->queue_tail = NULL;
	/* What waited goes before the next holder. */
	while (queue != NULL) {
		struct disk_request *request = queue;

		queue = request->held[0];
		vhdx_start(vhdx, request);
	}
	blocks->in_flight--;
	if (blocks->holders != NULL && blocks->in_flight == 0)
		go_on(vhdx);
}
