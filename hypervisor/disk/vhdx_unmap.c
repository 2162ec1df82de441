/* SPDX-License-Identifier: Apache-2.0 */
/*
 * UNMAP of whole blocks, and ZERO of whole blocks that gives their space back.
 *
 * An unmapped block reads zero, over a parent too, and has no space.  Its space may be taken
 * again once the commit that holds the new entry is durable (W3); the exclusive lock made sure
 * that nobody uses it any more.  A fixed image keeps its space: zeros are written.
 */
#include <errno.h>

#include "hypervisor/disk/vhdx_io_priv.h"

enum vhdx_step_result vhdx_step_forget(struct vhdx_piece *piece)
{
	struct vhdx *vhdx = piece->vhdx;
	uint32_t state = piece->request->op == DISK_ZERO ? VHDX_BLOCK_ZERO : VHDX_BLOCK_UNMAPPED;

	base_assert(piece->lock.exclusive);
	if (vhdx_commit_crowded(vhdx, &piece->waiter))
		return VHDX_WAIT;
	vhdx_bat_set(vhdx, piece->bat, piece->bat_index, vhdx_entry_make(state, 0), false);
	if (vhdx_state_has_space(piece->entry))
		vhdx_space_release_entry(vhdx, piece->bat_index, piece->entry, vhdx->block_bytes);
	else
		vhdx_space_release_kept(vhdx, piece->entry, vhdx->block_bytes);
	piece->commit = true;
	return vhdx_step_block_done(piece);
}

enum vhdx_step_result vhdx_step_unmap(struct vhdx_piece *piece)
{
	struct vhdx *vhdx = piece->vhdx;
	bool fixed = vhdx->meta.leave_allocated;
	bool has_space = vhdx_state_has_space(piece->entry);
	bool parent_shows =
		vhdx->meta.has_parent && vhdx_entry_state(piece->entry) == VHDX_BLOCK_NOT_PRESENT;
	int code;

	if (!piece->whole || (!has_space && !parent_shows))
		return vhdx_step_block_done(piece);
	if (!fixed && !piece->lock.exclusive)
		return vhdx_piece_upgrade(piece);
	code = vhdx_touch(vhdx, true, &piece->waiter);
	if (code < 0)
		return vhdx_piece_after(piece, code, NULL); /* and looks at the entry again */
	vhdx->blocks->touched = true;
	if (!fixed)
		return vhdx_step_forget(piece);
	code = vhdx_piece_put(piece, vhdx_entry_offset(piece->entry), 0);
	if (code < 0)
		return vhdx_piece_fail(piece, code);
	return vhdx_piece_join(piece, vhdx_step_block_done);
}
