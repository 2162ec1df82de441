/* SPDX-License-Identifier: Apache-2.0 */
/*
 * RESIZE, the BAT's part: entries beyond the disk's end are made zero before they come into use,
 * the table moves to a larger region when it has to grow, and a fixed image gets the space of
 * its new blocks.
 *
 * Nothing of this shows before vhdx_resize_publish(): entries beyond the recorded size
 * mean nothing, and a new region is named by no region table yet.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "hypervisor/disk/vhdx_resize_priv.h"

static enum vhdx_step_result step_fill(struct vhdx_resize *resize);
static enum vhdx_step_result step_copy_read(struct vhdx_resize *resize);

/* The entry after the one of the last block of @shape. */
static uint64_t first_stale(const struct vhdx_resize *resize, const struct vhdx_bat_shape *shape)
{
	return vhdx_bat_index(resize->vhdx, shape->block_count - 1) + 1;
}

/* Is entry @index, which lies behind the last block of @shape, in use all the same: the bitmap of
 * the last chunk? */
static bool is_kept(const struct vhdx_resize *resize, const struct vhdx_bat_shape *shape,
		    uint64_t index)
{
	return resize->vhdx->meta.has_parent &&
	       index == vhdx_bitmap_index(resize->vhdx, shape->block_count - 1);
}

int vhdx_resize_page(struct vhdx_resize *resize, uint64_t index)
{
	uint64_t offset = resize->bat.offset_bytes +
			  (index * sizeof(uint64_t) & ~(uint64_t)(VHDX_PAGE_BYTES - 1));

	if (resize->page != NULL && resize->page->offset_bytes == offset)
		return 0;
	if (resize->page != NULL)
		vhdx_page_put(base_take(&resize->page));
	return vhdx_page_get(resize->vhdx, offset, &resize->waiter, &resize->page);
}

/*
 * Entries from resize->at to the end of @end become zero, but for the one that @kept still uses.
 * Bitmap blocks that a shrunk disk does not use any more are released.
 */
static enum vhdx_step_result clear_entries(struct vhdx_resize *resize,
					   const struct vhdx_bat_shape *kept, uint64_t end,
					   vhdx_resize_step next)
{
	struct vhdx *vhdx = resize->vhdx;
	uint64_t looked = 0;

	for (; resize->at < end; resize->at++) {
		uint64_t entry;
		int code;

		if (is_kept(resize, kept, resize->at))
			continue;
		if (looked++ == VHDX_RESIZE_PER_TURN)
			return vhdx_resize_turn(resize);
		code = vhdx_resize_page(resize, resize->at);
		if (code < 0)
			return vhdx_resize_after(resize, code, NULL);
		entry = vhdx_bat_get(vhdx, resize->page, resize->at);
		if (entry == 0)
			continue;
		if (vhdx_commit_crowded(vhdx, &resize->waiter))
			return VHDX_WAIT;
		vhdx_bat_set(vhdx, resize->page, resize->at, 0, false);
		if (resize->new_bytes < resize->old_bytes &&
		    vhdx_entry_state(entry) == VHDX_BITMAP_PRESENT &&
		    vhdx_range_is_payload(vhdx, vhdx_entry_offset(entry), VHDX_BITMAP_BLOCK_BYTES))
			vhdx_space_release_entry(vhdx, resize->at, entry, VHDX_BITMAP_BLOCK_BYTES);
	}
	resize->step = next;
	return VHDX_GO;
}

static enum vhdx_step_result step_clear_shrunk(struct vhdx_resize *resize)
{
	return clear_entries(resize, &resize->new_shape, resize->old_shape.entry_count,
			     vhdx_resize_publish);
}

enum vhdx_step_result vhdx_resize_shrink_bat(struct vhdx_resize *resize)
{
	resize->at = first_stale(resize, &resize->new_shape);
	resize->step = step_clear_shrunk;
	return VHDX_GO;
}

/* --- growing in place --- */

static enum vhdx_step_result fill_begin(struct vhdx_resize *resize)
{
	resize->filled = resize->old_shape.block_count;
	resize->step = resize->vhdx->meta.leave_allocated ? step_fill : vhdx_resize_publish;
	return VHDX_GO;
}

static enum vhdx_step_result step_clear_stale(struct vhdx_resize *resize)
{
	return clear_entries(resize, &resize->old_shape, resize->new_shape.entry_count, fill_begin);
}

/* --- growing into another region --- */

/* What the page cache has is newer than the file; entries beyond the old end are left out. */
static void copy_overlay(struct vhdx_resize *resize, uint64_t length)
{
	struct vhdx *vhdx = resize->vhdx;
	uint64_t first = first_stale(resize, &resize->old_shape);

	for (uint64_t at = 0; at < length; at += VHDX_PAGE_BYTES) {
		const struct vhdx_page *page =
			vhdx_page_peek(vhdx, vhdx->regions.bat.offset_bytes + resize->at + at);

		if (page != NULL)
			memcpy(resize->buffer + at, page->data, VHDX_PAGE_BYTES);
	}
	for (uint64_t at = 0; at < length; at += sizeof(uint64_t)) {
		uint64_t index = (resize->at + at) / sizeof(uint64_t);

		if (index >= first && !is_kept(resize, &resize->old_shape, index))
			memset(resize->buffer + at, 0, sizeof(uint64_t));
	}
}

static uint64_t copy_length(const struct vhdx_resize *resize)
{
	uint64_t bytes = (resize->old_shape.bat_bytes + VHDX_PAGE_BYTES - 1) &
			 ~(uint64_t)(VHDX_PAGE_BYTES - 1);

	return bytes - resize->at < VHDX_RESIZE_PIECE ? bytes - resize->at : VHDX_RESIZE_PIECE;
}

static enum vhdx_step_result step_copy_next(struct vhdx_resize *resize)
{
	resize->at += copy_length(resize);
	resize->step = copy_length(resize) != 0 ? step_copy_read : fill_begin;
	return VHDX_GO;
}

static enum vhdx_step_result step_copy_write(struct vhdx_resize *resize)
{
	uint64_t length = copy_length(resize);

	copy_overlay(resize, length);
	return vhdx_resize_store(resize, STORE_WRITE, resize->bat.offset_bytes + resize->at, length,
				 step_copy_next);
}

static enum vhdx_step_result step_copy_read(struct vhdx_resize *resize)
{
	return vhdx_resize_store(resize, STORE_READ,
				 resize->vhdx->regions.bat.offset_bytes + resize->at,
				 copy_length(resize), step_copy_write);
}

static enum vhdx_step_result step_take_region(struct vhdx_resize *resize)
{
	struct vhdx *vhdx = resize->vhdx;
	uint64_t length = (resize->new_shape.bat_bytes + VHDX_MIB - 1) & ~(VHDX_MIB - 1);
	uint64_t offset = 0;
	int code = vhdx_space_take(vhdx, length, &resize->waiter, &offset, &resize->fresh);

	if (code < 0)
		return vhdx_resize_after(resize, code, NULL);
	resize->moved = true;
	resize->bat.offset_bytes = offset;
	resize->bat.length_bytes = (uint32_t)length;
	resize->at = 0;
	if (!resize->fresh) {
		/* Pages of what was there before, if it was a table. */
		vhdx_pages_drop(vhdx, offset, length);
		return vhdx_resize_store(resize, STORE_ZERO, offset, length, step_copy_read);
	}
	resize->step = step_copy_read;
	return VHDX_GO;
}

static enum vhdx_step_result step_grow(struct vhdx_resize *resize)
{
	resize->at = first_stale(resize, &resize->old_shape);
	resize->step = resize->new_shape.bat_bytes > resize->bat.length_bytes ? step_take_region
									      : step_clear_stale;
	return VHDX_GO;
}

/*
 * The disk ends within its last block: the rest of that block comes to light.  A file may end
 * there too, and what another writer left behind the disk's end no guest has written.
 */
static enum vhdx_step_result step_last_block(struct vhdx_resize *resize)
{
	struct vhdx *vhdx = resize->vhdx;
	uint64_t block = resize->old_shape.block_count - 1;
	uint64_t within = resize->old_bytes - block * vhdx->block_bytes;
	uint64_t visible = resize->new_bytes - block * vhdx->block_bytes;
	uint64_t entry;
	int code = vhdx_resize_page(resize, vhdx_bat_index(vhdx, block));

	if (code < 0)
		return vhdx_resize_after(resize, code, NULL);
	entry = vhdx_bat_get(vhdx, resize->page, vhdx_bat_index(vhdx, block));
	if (within == vhdx->block_bytes || !vhdx_state_has_space(entry)) {
		resize->step = step_grow;
		return VHDX_GO;
	}
	code = vhdx_bat_entry_check(vhdx, block, entry);
	if (code == 0)
		code = vhdx_space_complete(vhdx, &resize->waiter);
	if (visible > vhdx->block_bytes)
		visible = vhdx->block_bytes;
	if (code == 0 && !vhdx_range_is_payload(vhdx, vhdx_entry_offset(entry), visible))
		code = -EBADMSG;
	if (code < 0)
		return vhdx_resize_after(resize, code, NULL);
	return vhdx_resize_store(resize, STORE_ZERO, vhdx_entry_offset(entry) + within,
				 visible - within, step_grow);
}

enum vhdx_step_result vhdx_resize_grow_bat(struct vhdx_resize *resize)
{
	resize->step = step_last_block;
	return VHDX_GO;
}

/* --- the new blocks of a fixed image --- */

static enum vhdx_step_result step_fill_name(struct vhdx_resize *resize)
{
	struct vhdx *vhdx = resize->vhdx;
	uint64_t index = vhdx_bat_index(vhdx, resize->filled);
	int code = vhdx_resize_page(resize, index);

	if (code < 0)
		return vhdx_resize_after(resize, code, NULL);
	if (vhdx_commit_crowded(vhdx, &resize->waiter))
		return VHDX_WAIT;
	vhdx_bat_set(vhdx, resize->page, index,
		     vhdx_entry_make(VHDX_BLOCK_FULL, resize->space_offset), !resize->fresh);
	resize->has_space = false;
	resize->filled++;
	resize->step = step_fill;
	return VHDX_GO;
}

static enum vhdx_step_result step_fill_allocate(struct vhdx_resize *resize)
{
	return vhdx_resize_store(resize, STORE_ALLOCATE, resize->space_offset,
				 resize->vhdx->block_bytes, step_fill_name);
}

static enum vhdx_step_result step_fill(struct vhdx_resize *resize)
{
	struct vhdx *vhdx = resize->vhdx;
	int code;

	if (resize->filled == resize->new_shape.block_count) {
		resize->step = vhdx_resize_publish;
		return VHDX_GO;
	}
	code = vhdx_space_take(vhdx, vhdx->block_bytes, &resize->waiter, &resize->space_offset,
			       &resize->fresh);
	if (code < 0)
		return vhdx_resize_after(resize, code, NULL);
	resize->has_space = true;
	if (!resize->fresh)
		return vhdx_resize_store(resize, STORE_ZERO, resize->space_offset,
					 vhdx->block_bytes, step_fill_allocate);
	resize->step = step_fill_allocate;
	return VHDX_GO;
}

enum vhdx_step_result vhdx_resize_unfill(struct vhdx_resize *resize)
{
	struct vhdx *vhdx = resize->vhdx;

	for (; resize->filled > resize->old_shape.block_count; resize->filled--) {
		uint64_t index = vhdx_bat_index(vhdx, resize->filled - 1);
		int code = vhdx_resize_page(resize, index);

		if (code < 0)
			return code == -EINPROGRESS ? VHDX_WAIT : VHDX_END;
		vhdx_space_release(vhdx, vhdx_entry_offset(vhdx_bat_get(vhdx, resize->page, index)),
				   vhdx->block_bytes);
		vhdx_bat_set(vhdx, resize->page, index, 0, false);
	}
	return VHDX_END;
}
