/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Compaction of an open VHDX image while the guest runs: blocks that hold only zeros are given
 * back, blocks from the end of the file move into free space before them, and the file's end
 * is cut (vhdx_compact_cut.c).
 *
 * vhdx_compact() runs on its caller's thread, step by step; whatever belongs to the image it
 * does in calls on the loop.  Guests go on; a block waits while it is being moved.  What a guest
 * sees never changes, so the DataWriteGuid stays.
 *
 * A power failure at any point leaves an image that is more or less compact: a move is a write
 * into space that nothing names, then one ordered BAT change; the old space is not used again
 * before that is durable (W2, W3).  Sector bitmaps: vhdx_compact_bitmap.c.
 */
#include "hypervisor/disk/vhdx_compact_priv.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/bytes.h"
#include "base/cleanup.h"

#define COPY_BYTES  (1U << 20)
#define COPY_ALIGN  4096U
#define MOVES_MAX   65536U /* found in one pass over the BAT: 1 MiB of memory */
#define BLOCKS_STEP 256U   /* looked at in one call on the loop */
#define PASSES_MAX  64U    /* a guest that writes all the time could go on for ever */

/* --- waiting for what the loop does --- */

static void compact_waited(struct vhdx_waiter *waiter, int result)
{
	struct vhdx_compact *compact = waiter->context;

	compact->waited_result = result;
	base_io_done(compact->vhdx->image.loop, &compact->waited);
}

static void compact_try(void *context)
{
	struct vhdx_compact *compact = context;

	compact->result = compact->attempt(compact);
}

int vhdx_compact_do(struct vhdx_compact *compact, int (*attempt)(struct vhdx_compact *compact))
{
	struct base_io_loop *loop = compact->vhdx->image.loop;

	for (;;) {
		compact->attempt = attempt;
		compact->waited = false;
		compact->waiter = (struct vhdx_waiter){ .run = compact_waited, .context = compact };
		base_io_call(loop, compact_try, compact);
		if (compact->result != -EINPROGRESS)
			return compact->result;
		base_io_wait(loop, &compact->waited);
		if (compact->waited_result < 0)
			return compact->waited_result;
	}
}

static int try_scan(struct vhdx_compact *compact)
{
	return vhdx_space_scan(compact->vhdx, &compact->waiter);
}

int vhdx_compact_touch(struct vhdx_compact *compact)
{
	return vhdx_touch(compact->vhdx, false, &compact->waiter);
}

static int try_commit(struct vhdx_compact *compact)
{
	if (compact->committed)
		return 0;
	compact->committed = true; /* when it has ended well this is tried again */
	vhdx_commit(compact->vhdx, &compact->waiter);
	return -EINPROGRESS;
}

int vhdx_compact_commit(struct vhdx_compact *compact)
{
	compact->committed = false;
	return vhdx_compact_do(compact, try_commit);
}

int vhdx_compact_hold(struct vhdx_compact *compact)
{
	if (compact->holding)
		return 0;
	compact->holding = true; /* when the waiter runs */
	vhdx_hold(compact->vhdx, &compact->waiter);
	return -EINPROGRESS;
}

int vhdx_compact_unhold(struct vhdx_compact *compact)
{
	compact->holding = false;
	vhdx_unhold(compact->vhdx);
	return 0;
}

/* --- progress --- */

static int try_progress(struct vhdx_compact *compact)
{
	if (compact->done_bytes < compact->told_bytes)
		compact->done_bytes = compact->told_bytes; /* another pass: never backwards */
	compact->told_bytes = compact->done_bytes;
	if (compact->progress == NULL)
		return 0;
	return compact->progress(compact->context, compact->done_bytes, compact->total_bytes) == 0
		       ? 0
		       : -ECANCELED;
}

/* --- one block, locked --- */

static void block_granted(struct vhdx_block_lock *lock)
{
	struct vhdx_compact *compact = lock->context;

	base_io_done(compact->vhdx->image.loop, &compact->granted);
}

static void block_lock(void *context)
{
	struct vhdx_compact *compact = context;

	vhdx_block_lock(compact->vhdx, &compact->lock);
}

static void block_unlock(void *context)
{
	struct vhdx_compact *compact = context;

	vhdx_block_unlock(compact->vhdx, &compact->lock);
}

static void lock(struct vhdx_compact *compact, uint64_t block)
{
	struct base_io_loop *loop = compact->vhdx->image.loop;

	compact->granted = false;
	compact->lock = (struct vhdx_block_lock){
		.block = block,
		.exclusive = true,
		.granted = block_granted,
		.context = compact,
	};
	base_io_call(loop, block_lock, compact);
	base_io_wait(loop, &compact->granted);
}

static void unlock(struct vhdx_compact *compact)
{
	base_io_call(compact->vhdx->image.loop, block_unlock, compact);
}

static int try_entry(struct vhdx_compact *compact)
{
	struct vhdx *vhdx = compact->vhdx;
	uint64_t index = vhdx_bat_index(vhdx, compact->block);
	struct vhdx_page *page = NULL;
	int code = vhdx_bat_page(vhdx, index, &compact->waiter, &page);

	if (code < 0)
		return code;
	compact->entry = vhdx_bat_get(vhdx, page, index);
	vhdx_page_put(page);
	return vhdx_bat_entry_check(vhdx, compact->block, compact->entry);
}

/* The block's entry becomes new_entry, and what it had is given back. */
static int try_replace(struct vhdx_compact *compact)
{
	struct vhdx *vhdx = compact->vhdx;
	uint64_t index = vhdx_bat_index(vhdx, compact->block);
	struct vhdx_page *page = NULL;
	int code = 0;

	if (vhdx_commit_crowded(vhdx, &compact->waiter))
		return -EINPROGRESS;
	code = vhdx_bat_page(vhdx, index, &compact->waiter, &page);
	if (code < 0)
		return code;
	vhdx_bat_set(vhdx, page, index, compact->new_entry,
		     vhdx_entry_state(compact->new_entry) == vhdx_entry_state(compact->entry));
	vhdx_page_put(page);
	vhdx_space_release(vhdx, vhdx_entry_offset(compact->entry), vhdx->block_bytes);
	return 0;
}

/* --- zeros --- */

static uint64_t visible_bytes(const struct vhdx *vhdx, uint64_t block)
{
	uint64_t start = block * vhdx->block_bytes;
	uint64_t left = vhdx->meta.disk_bytes - start;

	return left < vhdx->block_bytes ? left : vhdx->block_bytes;
}

/* 1: zeros; 0: something; or the error. */
static int block_is_zero(struct vhdx_compact *compact, struct base_error *err)
{
	uint64_t offset = vhdx_entry_offset(compact->entry);
	uint64_t visible = visible_bytes(compact->vhdx, compact->block);

	for (uint64_t at = 0; at < visible; at += COPY_BYTES) {
		uint64_t length = visible - at < COPY_BYTES ? visible - at : COPY_BYTES;
		int rc = store_do(compact->vhdx->image.file, STORE_READ, offset + at,
				  compact->buffer, length, err);

		if (rc < 0)
			return rc;
		if (!base_is_zero(compact->buffer, (size_t)length))
			return 0;
	}
	return 1;
}

/* Look without the lock first: most blocks are not zero, and then nobody has to wait. */
static int block_free_zeros(struct vhdx_compact *compact, uint64_t block, struct base_error *err)
{
	struct vhdx *vhdx = compact->vhdx;
	int rc = 0;

	compact->block = block;
	rc = vhdx_compact_do(compact, try_entry);
	if (rc < 0 || vhdx_entry_state(compact->entry) != VHDX_BLOCK_FULL)
		return rc;
	rc = block_is_zero(compact, err);
	if (rc <= 0)
		return rc;

	lock(compact, block);
	rc = vhdx_compact_do(compact, try_entry);
	if (rc == 0 && vhdx_entry_state(compact->entry) == VHDX_BLOCK_FULL)
		rc = block_is_zero(compact, err);
	if (rc > 0) {
		compact->new_entry = vhdx_entry_make(
			vhdx->meta.has_parent ? VHDX_BLOCK_ZERO : VHDX_BLOCK_NOT_PRESENT, 0);
		rc = vhdx_compact_do(compact, try_replace);
	}
	unlock(compact);
	return rc;
}

/* --- finding allocated blocks, many in one call --- */

static void heap_down(struct vhdx_move *heap, uint32_t count, uint32_t at)
{
	for (;;) {
		uint32_t child = 2 * at + 1;
		struct vhdx_move swap = heap[at];

		if (child + 1 < count && heap[child + 1].offset_bytes < heap[child].offset_bytes)
			child++;
		if (child >= count || heap[at].offset_bytes <= heap[child].offset_bytes)
			return;
		heap[at] = heap[child];
		heap[child] = swap;
		at = child;
	}
}

/* Keep the MOVES_MAX blocks that lie highest: the lowest of them is at the heap's top. */
static void move_note(struct vhdx_compact *compact, uint64_t block, uint64_t offset)
{
	struct vhdx_move *heap = compact->moves;

	if (compact->move_count < MOVES_MAX) {
		heap[compact->move_count++] = (struct vhdx_move){ offset, block };
		if (compact->move_count == MOVES_MAX) {
			for (uint32_t i = MOVES_MAX / 2; i > 0; i--)
				heap_down(heap, MOVES_MAX, i - 1);
		}
		return;
	}
	if (offset <= heap[0].offset_bytes)
		return;
	heap[0] = (struct vhdx_move){ offset, block };
	heap_down(heap, MOVES_MAX, 0);
}

/* The entry of compact->next; -EINPROGRESS: its page is being read. */
static int next_entry(struct vhdx_compact *compact, uint64_t *ret_entry)
{
	struct vhdx *vhdx = compact->vhdx;
	uint64_t index = vhdx_bat_index(vhdx, compact->next);
	struct vhdx_page *page = NULL;
	int code = vhdx_bat_page(vhdx, index, &compact->waiter, &page);

	if (code < 0)
		return code;
	*ret_entry = vhdx_bat_get(vhdx, page, index);
	vhdx_page_put(page);
	return 0;
}

static int try_find(struct vhdx_compact *compact)
{
	struct vhdx *vhdx = compact->vhdx;

	for (uint32_t i = 0; i < BLOCKS_STEP && compact->next < vhdx->block_count; i++) {
		uint64_t entry = 0;
		int code = next_entry(compact, &entry);

		if (code < 0)
			return code;
		code = vhdx_bat_entry_check(vhdx, compact->next, entry);
		if (code < 0)
			return code;
		if (vhdx_entry_state(entry) == VHDX_BLOCK_FULL ||
		    vhdx_entry_state(entry) == VHDX_BLOCK_PARTIAL)
			move_note(compact, compact->next, vhdx_entry_offset(entry));
		compact->next++;
	}
	return 0;
}

static int descending(const void *left, const void *right)
{
	const struct vhdx_move *a = left;
	const struct vhdx_move *b = right;

	return a->offset_bytes > b->offset_bytes ? -1 : a->offset_bytes < b->offset_bytes;
}

static int moves_find(struct vhdx_compact *compact)
{
	int rc = 0;

	compact->move_count = 0;
	compact->next = 0;
	while (rc == 0 && compact->next < compact->vhdx->block_count)
		rc = vhdx_compact_do(compact, try_find);
	qsort(compact->moves, compact->move_count, sizeof(*compact->moves), descending);
	return rc;
}

/* --- moving --- */

static int try_take(struct vhdx_compact *compact)
{
	struct vhdx *vhdx = compact->vhdx;

	return vhdx_space_take_below(vhdx, vhdx->block_bytes, vhdx_entry_offset(compact->entry),
				     &compact->to_offset)
		       ? 1
		       : 0;
}

static int try_give_back(struct vhdx_compact *compact)
{
	vhdx_space_give_back(compact->vhdx, compact->to_offset, compact->vhdx->block_bytes);
	return 0;
}

static int block_copy(struct vhdx_compact *compact, struct base_error *err)
{
	struct store_file *file = compact->vhdx->image.file;
	uint64_t from = vhdx_entry_offset(compact->entry);

	for (uint64_t at = 0; at < compact->vhdx->block_bytes; at += COPY_BYTES) {
		int rc = store_do(file, STORE_READ, from + at, compact->buffer, COPY_BYTES, err);

		if (rc == 0)
			rc = store_do(file, STORE_WRITE, compact->to_offset + at, compact->buffer,
				      COPY_BYTES, err);
		if (rc < 0)
			return rc;
	}
	return 0;
}

/* Exclusive.  1: moved (or not to be moved any more); 0: there is no room before it. */
static int block_move_locked(struct vhdx_compact *compact, uint64_t offset, struct base_error *err)
{
	int rc = vhdx_compact_do(compact, try_entry);

	if (rc < 0)
		return rc;
	if (vhdx_entry_offset(compact->entry) != offset ||
	    (vhdx_entry_state(compact->entry) != VHDX_BLOCK_FULL &&
	     vhdx_entry_state(compact->entry) != VHDX_BLOCK_PARTIAL))
		return 1; /* the guest was here meanwhile */
	rc = vhdx_compact_do(compact, try_take);
	if (rc <= 0)
		return rc;
	rc = block_copy(compact, err);
	if (rc == 0) {
		compact->new_entry =
			vhdx_entry_make(vhdx_entry_state(compact->entry), compact->to_offset);
		rc = vhdx_compact_do(compact, try_replace);
	}
	if (rc == 0) {
		compact->moved++;
		return 1;
	}
	/* safety: what a write of unknown outcome may still reach is given to nobody else. */
	if (rc != -ETIMEDOUT)
		(void)vhdx_compact_do(compact, try_give_back);
	return rc;
}

static int moves_make(struct vhdx_compact *compact, struct base_error *err)
{
	uint64_t half = compact->total_bytes / 2;

	for (uint32_t i = 0; i < compact->move_count; i++) {
		int rc = 0;

		compact->block = compact->moves[i].block;
		lock(compact, compact->block);
		rc = block_move_locked(compact, compact->moves[i].offset_bytes, err);
		unlock(compact);
		if (rc <= 0)
			return rc; /* what the highest finds no room for, no other can mend */
		compact->done_bytes = half + half / compact->move_count * i;
		rc = vhdx_compact_do(compact, try_progress);
		if (rc < 0)
			return rc;
	}
	return 0;
}

/* --- all of it --- */

/* On to the next block that is all there, as far as one call on the loop goes.  1: it is. */
static int try_skip(struct vhdx_compact *compact)
{
	struct vhdx *vhdx = compact->vhdx;

	for (uint32_t i = 0; i < BLOCKS_STEP && compact->next < vhdx->block_count; i++) {
		uint64_t entry = 0;
		int code = next_entry(compact, &entry);

		if (code < 0)
			return code;
		if (vhdx_entry_state(entry) == VHDX_BLOCK_FULL)
			return 1;
		compact->next++;
	}
	return 0;
}

static int zeros_free(struct vhdx_compact *compact, struct base_error *err)
{
	const struct vhdx *vhdx = compact->vhdx;
	uint32_t turns = 0;
	int rc = 0;

	compact->next = 0;
	while (rc >= 0 && compact->next < vhdx->block_count) {
		rc = vhdx_compact_do(compact, try_skip);
		if (rc > 0)
			rc = block_free_zeros(compact, compact->next++, err);
		compact->done_bytes = compact->next * vhdx->block_bytes;
		if (rc >= 0 && turns++ % 16 == 0)
			rc = vhdx_compact_do(compact, try_progress);
	}
	return rc;
}

static int compact_run(struct vhdx_compact *compact, struct base_error *err)
{
	int rc = vhdx_compact_do(compact, vhdx_compact_touch);

	if (rc == 0)
		rc = vhdx_compact_do(compact, try_scan);
	if (rc == 0)
		rc = zeros_free(compact, err);
	if (rc == 0)
		rc = vhdx_compact_settle(compact); /* what was freed can be moved into */
	compact->moved = 1;
	for (uint32_t pass = 0; rc == 0 && compact->moved > 0 && pass < PASSES_MAX; pass++) {
		compact->moved = 0;
		rc = moves_find(compact);
		if (rc == 0)
			rc = moves_make(compact, err);
		if (rc == 0)
			rc = vhdx_compact_bitmaps(compact, err);
		if (rc == 0)
			rc = vhdx_compact_settle(compact);
	}
	if (rc == 0)
		rc = vhdx_compact_cut(compact, err);
	compact->done_bytes = compact->total_bytes;
	return rc == 0 ? vhdx_compact_do(compact, try_progress) : rc;
}

int vhdx_compact(struct image *image, disk_progress progress, void *context, struct base_error *err)
{
	struct vhdx *vhdx = vhdx_of(image);
	BASE_FREE struct vhdx_compact *compact = calloc(1, sizeof(*compact));
	BASE_FREE void *buffer = aligned_alloc(COPY_ALIGN, COPY_BYTES);
	BASE_FREE void *moves = calloc(MOVES_MAX, sizeof(struct vhdx_move));
	struct base_error why = { .code = 0 };
	int rc = 0;

	if (vhdx->meta.leave_allocated)
		return base_fail(err, -EOPNOTSUPP, "'%s' is fixed: its blocks stay where they are",
				 store_name(image->file));
	if (compact == NULL || buffer == NULL || moves == NULL)
		return base_fail(err, -ENOMEM, "compaction of '%s'", store_name(image->file));
	compact->vhdx = vhdx;
	compact->progress = progress;
	compact->context = context;
	compact->buffer = buffer;
	compact->moves = moves;
	compact->total_bytes = 2 * vhdx->block_count * vhdx->block_bytes;
	rc = compact_run(compact, &why);
	if (rc == 0)
		return 0;
	if (why.code == 0)
		return base_fail_errno(err, rc, "'%s'", store_name(image->file));
	return base_fail(err, rc, "%s", why.text);
}
