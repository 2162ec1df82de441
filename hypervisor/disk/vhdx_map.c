/* SPDX-License-Identifier: Apache-2.0 */
/*
 * MAP: what a range consists of.
 *
 * It goes from block to block with the block's lock shared, so an answer is true at the instant
 * it was given; a run that the parent shows is asked of the parent (and its parents) unless only
 * this layer is wanted.
 *
 *   state                         alone              over a parent
 *   FULL, bits set                DATA               DATA
 *   NOT_PRESENT, bits clear       UNMAPPED           PARENT, or what the parent says
 *   ZERO                          ZERO               ZERO
 *   UNMAPPED, UNDEFINED           UNMAPPED           ZERO: it hides what the parent has
 */
#include <errno.h>
#include <stdlib.h>

#include "hypervisor/disk/vhdx_io_priv.h"

static enum vhdx_step_result step_below(struct vhdx_piece *piece);
static enum vhdx_step_result step_bits(struct vhdx_piece *piece);

/* No more room: the answer is what there is. */
static enum vhdx_step_result full(struct vhdx_piece *piece)
{
	piece->end = piece->cursor + piece->length;
	return vhdx_step_block_done(piece);
}

/* --- what the parent shows --- */

static void below_done(struct disk_request *request, int result)
{
	struct vhdx_piece *piece = request->context;

	piece->pending--;
	if (result < 0 && piece->result == 0)
		piece->result = result;
	if (!piece->stepping)
		vhdx_piece_run(piece);
}

static enum vhdx_step_result step_below_over(struct vhdx_piece *piece)
{
	struct vhdx_map_below *below = piece->below;

	if (piece->result < 0)
		return VHDX_END;
	if (below->request.extent_count == 0)
		return vhdx_piece_fail(piece, -EIO); /* a map is never empty */
	for (uint32_t i = 0; i < below->request.extent_count; i++) {
		const struct disk_extent *extent = &below->extents[i];

		if (!image_extent_add(piece->request, extent->offset_bytes, extent->length_bytes,
				      extent->kind))
			return full(piece);
		piece->below_at = extent->offset_bytes + extent->length_bytes;
	}
	piece->step = step_below;
	return VHDX_GO;
}

static enum vhdx_step_result step_below(struct vhdx_piece *piece)
{
	struct image *parent = piece->vhdx->image.parent;
	uint64_t block_start = piece->cursor - piece->within;
	uint64_t left = piece->below_end - piece->below_at;

	if (left == 0) {
		piece->run_at = (uint32_t)(piece->below_end - block_start);
		piece->step = step_bits;
		return VHDX_GO;
	}
	if (parent == NULL)
		return vhdx_piece_fail(piece, -ENODEV);
	if (piece->below_at >= parent->geometry.size_bytes) {
		if (!image_extent_add(piece->request, piece->below_at, left, DISK_EXTENT_UNMAPPED))
			return full(piece);
		piece->below_at = piece->below_end;
		return VHDX_GO;
	}
	if (left > parent->geometry.size_bytes - piece->below_at)
		left = parent->geometry.size_bytes - piece->below_at;
	if (piece->below == NULL) {
		piece->below = malloc(sizeof(*piece->below));
		if (piece->below == NULL)
			return vhdx_piece_fail(piece, -ENOMEM);
	}
	piece->below->request = (struct disk_request){
		.op = DISK_MAP,
		.flags = piece->request->flags,
		.offset_bytes = piece->below_at,
		.length_bytes = left,
		.extents = piece->below->extents,
		.extent_capacity = VHDX_MAP_SUB_EXTENTS,
		.done = below_done,
		.context = piece,
	};
	piece->step = step_below_over;
	piece->pending++;
	parent->ops->submit(parent, &piece->below->request);
	return piece->pending != 0 ? VHDX_WAIT : VHDX_GO;
}

/* --- this layer --- */

/* [at, at + length) of the block shows the parent.  Sets the step to go on with. */
static enum vhdx_step_result show_parent(struct vhdx_piece *piece, uint32_t at, uint32_t length)
{
	uint64_t start = piece->cursor - piece->within + at;

	if ((piece->request->flags & DISK_THIS_LAYER) != 0) {
		if (!image_extent_add(piece->request, start, length, DISK_EXTENT_PARENT))
			return full(piece);
		piece->run_at = at + length;
		piece->step = step_bits;
		return VHDX_GO;
	}
	piece->below_at = start;
	piece->below_end = start + length;
	piece->step = step_below;
	return VHDX_GO;
}

/* The rest of the block from run_at on: by its bits, or all of one kind. */
static enum vhdx_step_result step_bits(struct vhdx_piece *piece)
{
	uint32_t end = piece->within + piece->length;
	uint64_t start = piece->cursor - piece->within;

	while (piece->run_at < end) {
		uint32_t at = piece->run_at;
		uint32_t length = end - at;
		bool set = false;

		if (vhdx_entry_state(piece->entry) == VHDX_BLOCK_PARTIAL)
			length = vhdx_bits_run(piece, at, end, &set);
		if (!set)
			return show_parent(piece, at, length);
		if (!image_extent_add(piece->request, start + at, length, DISK_EXTENT_DATA))
			return full(piece);
		piece->run_at += length;
	}
	return vhdx_step_block_done(piece);
}

enum vhdx_step_result vhdx_step_map(struct vhdx_piece *piece)
{
	bool child = piece->vhdx->meta.has_parent;
	enum disk_extent_kind kind = child ? DISK_EXTENT_ZERO : DISK_EXTENT_UNMAPPED;
	int code = 0;

	piece->run_at = piece->within;
	switch (vhdx_entry_state(piece->entry)) {
	case VHDX_BLOCK_PARTIAL:
		code = vhdx_bits_load(piece, piece->within, piece->length);
		return vhdx_piece_after(piece, code, step_bits);
	case VHDX_BLOCK_NOT_PRESENT:
		if (child)
			return show_parent(piece, piece->within, piece->length);
		break;
	case VHDX_BLOCK_FULL:
		kind = DISK_EXTENT_DATA;
		break;
	case VHDX_BLOCK_ZERO:
		kind = DISK_EXTENT_ZERO;
		break;
	default:
		break;
	}
	if (!image_extent_add(piece->request, piece->cursor, piece->length, kind))
		return full(piece);
	return vhdx_step_block_done(piece);
}
