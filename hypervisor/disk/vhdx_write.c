/* SPDX-License-Identifier: Apache-2.0 */
/*
 * WRITE, and ZERO of parts of blocks, once the BAT entry is known; first allocation.
 *
 * What has to be on the medium before an entry names new space (W2), by case:
 *
 *   fresh space, the block read zero before    nothing: entry first, then the bytes in place,
 *                                              with others in the block already
 *   recycled space, part of the block          zeros over all of it, entry (ordered), bytes
 *   recycled space, the whole block            bytes, entry (ordered)
 *   the parent showed, the whole block         bytes, entry (ordered): zeros would be neither
 *                                              the old content nor the new
 *   the parent showed, part of the block       vhdx_diff.c
 */
#include <errno.h>

#include "hypervisor/disk/vhdx_io_priv.h"

/* In place: the block is FULL, or all sectors are present already. */
static enum vhdx_step_result write_in_place(struct vhdx_piece *piece)
{
	uint32_t flags = 0;
	int code;

	if ((piece->request->flags & DISK_FUA) != 0) {
		if (piece->commit || vhdx_commit_pending(piece->vhdx))
			piece->commit = true;
		else
			flags = STORE_FUA;
	}
	code = vhdx_piece_put(piece, vhdx_entry_offset(piece->entry), flags);
	if (code < 0)
		return vhdx_piece_fail(piece, code);
	return vhdx_piece_join(piece, vhdx_step_block_done);
}

/* --- new space: the lock is exclusive --- */

static bool bytes_first(const struct vhdx_piece *piece)
{
	bool parent_shows = piece->vhdx->meta.has_parent &&
			    vhdx_entry_state(piece->entry) == VHDX_BLOCK_NOT_PRESENT;

	return piece->whole && (parent_shows || !piece->fresh);
}

static enum vhdx_step_result step_name_space(struct vhdx_piece *piece)
{
	struct vhdx *vhdx = piece->vhdx;
	bool written = bytes_first(piece);

	if (vhdx_commit_crowded(vhdx, &piece->waiter))
		return VHDX_WAIT;
	vhdx_space_release_kept(vhdx, piece->entry, vhdx->block_bytes);
	piece->entry = vhdx_entry_make(VHDX_BLOCK_FULL, piece->space_offset);
	vhdx_bat_set(vhdx, piece->bat, piece->bat_index, piece->entry, written || !piece->fresh);
	piece->has_space = false; /* the entry's now */
	piece->commit = true;
	if (written)
		return vhdx_step_block_done(piece);
	vhdx_page_put(base_take(&piece->bat));
	vhdx_block_downgrade(vhdx, &piece->lock);
	return write_in_place(piece);
}

static enum vhdx_step_result step_fill_space(struct vhdx_piece *piece)
{
	int code;

	if (!bytes_first(piece)) {
		piece->step = step_name_space;
		return VHDX_GO;
	}
	code = vhdx_piece_put(piece, piece->space_offset, 0);
	if (code < 0)
		return vhdx_piece_fail(piece, code);
	return vhdx_piece_join(piece, step_name_space);
}

static enum vhdx_step_result step_take_space(struct vhdx_piece *piece)
{
	struct vhdx *vhdx = piece->vhdx;
	int code = vhdx_space_take(vhdx, vhdx->block_bytes, &piece->waiter, &piece->space_offset,
				   &piece->fresh);

	if (code < 0)
		return vhdx_piece_after(piece, code, NULL);
	piece->has_space = true;
	piece->space_bytes = vhdx->block_bytes;
	/* All of the space is written only when the disk does not end in the block. */
	if (!piece->fresh && !(piece->whole && piece->visible == vhdx->block_bytes))
		vhdx_piece_clear(piece, piece->space_offset, vhdx->block_bytes);
	return vhdx_piece_join(piece, step_fill_space);
}

enum vhdx_step_result vhdx_step_write(struct vhdx_piece *piece)
{
	struct vhdx *vhdx = piece->vhdx;
	uint32_t state = vhdx_entry_state(piece->entry);
	bool parent_shows = vhdx->meta.has_parent && state == VHDX_BLOCK_NOT_PRESENT;
	bool zero = piece->request->op == DISK_ZERO;
	bool forget = false;
	int code;

	if (zero && !parent_shows && (state == VHDX_BLOCK_NOT_PRESENT || state == VHDX_BLOCK_ZERO))
		return vhdx_step_block_done(piece); /* reads zero as it is */
	/* UNMAPPED and UNDEFINED read zero here; the specification lets others read old bytes. */
	if (zero && !vhdx_state_has_space(piece->entry) && !parent_shows)
		forget = !vhdx->meta.leave_allocated;
	else if (zero && piece->whole)
		forget = parent_shows || ((piece->request->flags & DISK_MAY_UNMAP) != 0 &&
					  !vhdx->meta.leave_allocated);
	if ((forget || !vhdx_state_has_space(piece->entry)) && !piece->lock.exclusive)
		return vhdx_piece_upgrade(piece);
	code = vhdx_touch(vhdx, true, &piece->waiter);
	if (code < 0)
		return vhdx_piece_after(piece, code, NULL); /* and looks at the entry again */
	vhdx->blocks->touched = true;
	if (forget)
		return vhdx_step_forget(piece);
	if (!vhdx_state_has_space(piece->entry)) {
		piece->step =
			parent_shows && !piece->whole ? vhdx_step_alloc_partial : step_take_space;
		return VHDX_GO;
	}
	if (piece->lock.exclusive) /* somebody was faster */
		vhdx_block_downgrade(vhdx, &piece->lock);
	if (state == VHDX_BLOCK_PARTIAL) {
		piece->step = vhdx_step_write_partial;
		return VHDX_GO;
	}
	vhdx_page_put(base_take(&piece->bat));
	return write_in_place(piece);
}
