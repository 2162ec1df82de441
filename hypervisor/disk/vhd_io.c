/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Requests of dynamic and differencing VHDs.  Loop thread.
 *
 * A request is cut at block boundaries; each piece is a part.  A part that has to wait (for a
 * bitmap, for space, for a commit) is put on a list and run again from the start of its piece:
 * vhd_part_run() looks at the state anew each time.
 */
#include "hypervisor/disk/vhd_priv.h"

#include <errno.h>
#include <stdlib.h>

#include "base/cleanup.h"

#define CLEAR_PARTS    16U    /* ZERO and UNMAP: pieces in flight */
#define MAP_BLOCKS_MAX 65536U /* looked at in one go, so that the loop is not held up */

/* Where a part is, in blocks. */
struct place {
	uint32_t index;
	uint32_t sector; /* in the block */
	uint32_t count;
	uint64_t data_offset; /* in the file, of @sector; only when the block is there */
};

/* ZERO and UNMAP over many blocks: a few parts share the rest of the way. */
struct vhd_clear {
	uint64_t next_offset; /* in the disk: nobody has this yet */
	uint64_t end_offset;
	uint32_t users;
};

static struct place place_of(const struct image_part *part)
{
	const struct vhd *vhd = (const struct vhd *)part->image;
	uint64_t offset = part->request->offset_bytes + part->skip_bytes;
	uint64_t inside = offset % vhd->block_bytes;
	struct place place = { .index = (uint32_t)(offset / vhd->block_bytes),
			       .sector = (uint32_t)(inside / VHD_SECTOR_BYTES),
			       .count = (uint32_t)(part->length_bytes / VHD_SECTOR_BYTES) };

	if (vhd->bat[place.index] != VHD_BLOCK_ABSENT)
		place.data_offset = vhd_block_offset(vhd, place.index) + vhd->bitmap_bytes + inside;
	return place;
}

static bool pending(const struct vhd_block *block)
{
	return block != NULL && (block->fresh || block->dirty || block->committing);
}

/* What is not in this file: from the parent, or zeros. */
static void read_elsewhere(struct image_part *part)
{
	if (part->image->kind == DISK_DIFFERENCING && part->image->parent == NULL) {
		image_part_end(part, -EIO); /* never zeros where a parent's data belongs */
	} else if (part->image->kind == DISK_DIFFERENCING) {
		image_part_parent(part);
	} else {
		image_iov_zero(part->request->iov, part->request->iov_count, part->skip_bytes,
			       part->length_bytes);
		image_part_end(part, 0);
	}
}

/* Sectors from @sector on that are alike, at most @count. */
static uint32_t run_of(const struct vhd_block *block, uint32_t sector, uint32_t count)
{
	bool here = vhd_block_bit(block, sector);
	uint32_t run = 1;

	while (run < count && vhd_block_bit(block, sector + run) == here)
		run++;
	return run;
}

static void read_alike(struct image_part *part, uint64_t file_offset, bool here)
{
	if (here)
		image_part_file(part, file_offset, 0);
	else
		read_elsewhere(part);
}

/* A piece of a block that is partly here; its bitmap is in memory. */
static void read_runs(struct image_part *part, const struct vhd_block *block)
{
	struct place place = place_of(part);
	uint32_t at = 0;
	int code = 0;

	if (run_of(block, place.sector, place.count) == place.count) {
		read_alike(part, place.data_offset, vhd_block_bit(block, place.sector));
		return;
	}
	while (at < place.count && code == 0) {
		uint32_t run = run_of(block, place.sector + at, place.count - at);
		uint64_t at_bytes = (uint64_t)at * VHD_SECTOR_BYTES;
		struct image_part *piece =
			image_part_new(part->image, part->request, part->skip_bytes + at_bytes,
				       (uint64_t)run * VHD_SECTOR_BYTES);

		if (piece == NULL)
			code = -ENOMEM;
		else
			read_alike(piece, place.data_offset + at_bytes,
				   vhd_block_bit(block, place.sector + at));
		at += run;
	}
	image_part_end(part, code);
}

static void read_run(struct vhd *vhd, struct image_part *part)
{
	struct place place = place_of(part);
	struct vhd_block *block;
	int code;

	if (vhd->bat[place.index] == VHD_BLOCK_ABSENT) {
		read_elsewhere(part);
		return;
	}
	if (!vhd_entry_valid(vhd, place.index)) {
		image_part_end(part, -EBADMSG);
		return;
	}
	if (vhd_is_full(vhd, place.index)) {
		image_part_file(part, place.data_offset, 0);
		return;
	}
	block = vhd_block_get(vhd, place.index);
	code = block == NULL ? -ENOMEM : vhd_block_load(block, part);
	if (code == 0)
		read_runs(part, block);
	else if (code != -EINPROGRESS)
		image_part_end(part, code);
	if (block != NULL)
		vhd_block_put(block);
}

/* --- writing --- */

static void write_finished(struct image_part *part, int result)
{
	struct vhd *vhd = vhd_of(part->image);
	struct vhd_block *block = part->held;
	struct place place = place_of(part);
	bool commit;

	if (result == 0)
		vhd_block_set(block, place.sector, place.count);
	commit = result == 0 && (part->request->flags & DISK_FUA) != 0 && pending(block);
	vhd_block_put(block);
	if (commit)
		vhd_commit_join(vhd, part);
	else
		image_part_end(part, result);
}

static void write_run(struct vhd *vhd, struct image_part *part)
{
	bool fua = (part->request->flags & DISK_FUA) != 0;
	struct place place = place_of(part);
	struct vhd_block *block = NULL;
	int code = 0;

	if (vhd->bat[place.index] == VHD_BLOCK_ABSENT) {
		code = vhd_block_allocate(vhd, place.index, part);
		if (code == -EINPROGRESS)
			return;
		place = place_of(part);
	}
	if (code == 0 && vhd_is_full(vhd, place.index) &&
	    !(fua && pending(vhd_block_find(vhd, place.index)))) {
		image_part_file(part, place.data_offset, fua ? STORE_FUA : 0);
		return;
	}
	if (code == 0) {
		block = vhd_block_get(vhd, place.index);
		code = block == NULL ? -ENOMEM : 0;
	}
	if (code == 0 && !vhd_is_full(vhd, place.index))
		code = vhd_block_load(block, part);
	if (code == 0) {
		part->held = block; /* pinned */
		part->finish = write_finished;
		image_part_file(part, place.data_offset, fua ? STORE_FUA : 0);
		return;
	}
	if (block != NULL)
		vhd_block_put(block);
	if (code != -EINPROGRESS)
		image_part_end(part, code);
}

/* --- zeros --- */

/* The next piece of the way: false when there is none. */
static bool clear_next(struct vhd *vhd, struct image_part *part)
{
	struct vhd_clear *clear = part->held;
	uint64_t offset = clear->next_offset;
	uint64_t left;

	/* What is nowhere reads zero already. */
	while (vhd->image.kind != DISK_DIFFERENCING && offset < clear->end_offset &&
	       vhd->bat[offset / vhd->block_bytes] == VHD_BLOCK_ABSENT)
		offset += vhd->block_bytes - offset % vhd->block_bytes;
	if (offset >= clear->end_offset) {
		clear->next_offset = clear->end_offset;
		return false;
	}
	left = vhd->block_bytes - offset % vhd->block_bytes;
	left = left < clear->end_offset - offset ? left : clear->end_offset - offset;
	part->skip_bytes = offset - part->request->offset_bytes;
	part->length_bytes = left;
	clear->next_offset = offset + left;
	return true;
}

static void clear_end(struct image_part *part, int result)
{
	struct vhd_clear *clear = part->held;

	if (result < 0)
		clear->next_offset = clear->end_offset; /* the others stop too */
	if (--clear->users == 0)
		free(clear);
	part->held = NULL;
	if (result == 0 && (part->request->flags & DISK_FUA) != 0)
		vhd_commit_join(vhd_of(part->image), part);
	else
		image_part_end(part, result);
}

static void clear_done(struct store_request *store, int result)
{
	struct image_part *part = store->context;
	struct vhd *vhd = vhd_of(part->image);
	struct place place = place_of(part);
	struct vhd_block *block = vhd_block_find(vhd, place.index); /* pinned by clear_piece() */

	if (result == 0)
		vhd_block_set(block, place.sector, place.count);
	vhd_block_put(block);
	part->length_bytes = 0; /* that piece is over */
	vhd_part_run(part, result);
}

/* One piece: 0 when it is over, -EINPROGRESS when the part runs again later. */
static int clear_piece(struct vhd *vhd, struct image_part *part)
{
	bool punch =
		part->request->op == DISK_UNMAP || (part->request->flags & DISK_MAY_UNMAP) != 0;
	struct place place = place_of(part);
	struct vhd_block *block;
	bool fresh = false;
	int code = 0;

	if (vhd->bat[place.index] == VHD_BLOCK_ABSENT) {
		code = vhd_block_allocate(vhd, place.index, part);
		if (code < 0)
			return code;
		fresh = true;
		place = place_of(part);
	}
	block = vhd_block_get(vhd, place.index);
	if (block == NULL)
		return -ENOMEM;
	if (!vhd_is_full(vhd, place.index))
		code = vhd_block_load(block, part);
	if (code < 0 || fresh) {
		if (code == 0)
			vhd_block_set(block, place.sector, place.count);
		vhd_block_put(block);
		return code;
	}
	part->store = (struct store_request){ .op = punch ? STORE_PUNCH : STORE_ZERO,
					      .epoch = store_epoch(vhd->image.file),
					      .offset_bytes = place.data_offset,
					      .length_bytes = part->length_bytes,
					      .done = clear_done,
					      .context = part };
	store_submit(vhd->image.file, &part->store); /* the pin stays until clear_done() */
	return -EINPROGRESS;
}

static void clear_run(struct vhd *vhd, struct image_part *part)
{
	int code = 0;

	while (code == 0) {
		if (part->length_bytes == 0 && !clear_next(vhd, part))
			break;
		code = clear_piece(vhd, part);
		if (code == 0)
			part->length_bytes = 0;
	}
	if (code != -EINPROGRESS)
		clear_end(part, code);
}

static void submit_clear(struct vhd *vhd, struct disk_request *request)
{
	struct vhd_clear *clear = calloc(1, sizeof(*clear));

	if (clear == NULL) {
		image_part_add(request);
		image_part_done(request, -ENOMEM);
		return;
	}
	clear->next_offset = request->offset_bytes;
	clear->end_offset = request->offset_bytes + request->length_bytes;
	clear->users = 1; /* ours, while parts are being started */
	for (uint32_t i = 0; i < CLEAR_PARTS && clear->next_offset < clear->end_offset; i++) {
		struct image_part *part = image_part_new(&vhd->image, request, 0, 0);

		if (part == NULL) {
			image_part_add(request);
			image_part_done(request, -ENOMEM);
			break;
		}
		part->held = clear;
		clear->users++;
		clear_run(vhd, part);
	}
	if (--clear->users == 0)
		free(clear);
}

/* --- map --- */

/* 0: go on after the block; 1: no more room; negative: an error. */
static int map_block(struct vhd *vhd, struct image_part *part)
{
	enum disk_extent_kind absent =
		vhd->image.kind == DISK_DIFFERENCING ? DISK_EXTENT_PARENT : DISK_EXTENT_UNMAPPED;
	struct disk_request *request = part->request;
	uint64_t offset = request->offset_bytes + part->skip_bytes;
	struct place place = place_of(part);
	struct vhd_block *block;
	uint32_t at = 0;
	int code;

	if (vhd->bat[place.index] == VHD_BLOCK_ABSENT)
		return image_extent_add(request, offset, part->length_bytes, absent) ? 0 : 1;
	if (!vhd_entry_valid(vhd, place.index))
		return -EBADMSG;
	if (vhd_is_full(vhd, place.index))
		return image_extent_add(request, offset, part->length_bytes, DISK_EXTENT_DATA) ? 0
											       : 1;
	block = vhd_block_get(vhd, place.index);
	if (block == NULL)
		return -ENOMEM;
	code = vhd_block_load(block, part);
	while (code == 0 && at < place.count) {
		uint32_t run = run_of(block, place.sector + at, place.count - at);
		bool here = vhd_block_bit(block, place.sector + at);

		if (!image_extent_add(request, offset + (uint64_t)at * VHD_SECTOR_BYTES,
				      (uint64_t)run * VHD_SECTOR_BYTES,
				      here ? DISK_EXTENT_DATA : absent))
			code = 1;
		at += run;
	}
	vhd_block_put(block);
	return code;
}

static void parent_mapped(struct disk_request *parent, int result)
{
	struct image_part *part = parent->context;

	part->request->extent_count += parent->extent_count;
	image_part_end(part, result);
}

/* What shows the parent is what the parent says, down the chain.  One run of it each time: the
 * answer may end before the range does. */
static void map_parent(struct image_part *part)
{
	struct disk_request *request = part->request;
	struct image *parent = part->image->parent;
	struct disk_extent *extent = request->extents;
	uint32_t left = request->extent_count;

	while (left > 0 && extent->kind != DISK_EXTENT_PARENT) {
		extent++;
		left--;
	}
	if (left == 0 || (request->flags & DISK_THIS_LAYER) != 0) {
		image_part_end(part, 0);
		return;
	}
	request->extent_count -= left;
	if (parent == NULL) {
		image_part_end(part, -EIO);
		return;
	}
	part->parent = (struct disk_request){ .op = DISK_MAP,
					      .offset_bytes = extent->offset_bytes,
					      .length_bytes = extent->length_bytes,
					      .extents = extent,
					      .extent_capacity = request->extent_capacity -
								 request->extent_count,
					      .done = parent_mapped,
					      .context = part };
	if (extent->offset_bytes >= parent->geometry.size_bytes) {
		extent->kind = DISK_EXTENT_UNMAPPED;
		request->extent_count++;
		image_part_end(part, 0);
		return;
	}
	if (extent->length_bytes > parent->geometry.size_bytes - extent->offset_bytes)
		part->parent.length_bytes = parent->geometry.size_bytes - extent->offset_bytes;
	parent->ops->submit(parent, &part->parent);
}

static void map_run(struct vhd *vhd, struct image_part *part)
{
	struct disk_request *request = part->request;
	int code = 0;

	for (uint32_t i = 0; i < MAP_BLOCKS_MAX && part->skip_bytes < request->length_bytes; i++) {
		uint64_t offset = request->offset_bytes + part->skip_bytes;
		uint64_t left = request->length_bytes - part->skip_bytes;
		uint64_t inside = vhd->block_bytes - offset % vhd->block_bytes;

		part->length_bytes = left < inside ? left : inside;
		code = map_block(vhd, part);
		if (code != 0)
			break;
		part->skip_bytes += part->length_bytes;
	}
	if (code >= 0)
		map_parent(part);
	else if (code != -EINPROGRESS)
		image_part_end(part, code);
}

/* --- all --- */

void vhd_part_run(struct image_part *part, int result)
{
	struct vhd *vhd = vhd_of(part->image);
	enum disk_op op = part->request->op;

	if (result == 0 && vhd->image.failed && op != DISK_READ && op != DISK_MAP)
		result = -EIO;
	if (op == DISK_ZERO || op == DISK_UNMAP) {
		if (result < 0)
			clear_end(part, result);
		else
			clear_run(vhd, part);
	} else if (result < 0) {
		image_part_end(part, result);
	} else if (op == DISK_READ) {
		read_run(vhd, part);
	} else if (op == DISK_WRITE) {
		write_run(vhd, part);
	} else {
		map_run(vhd, part);
	}
}

/* Blocks that are nowhere are read in one piece. */
static uint64_t read_ahead(const struct vhd *vhd, uint64_t offset, uint64_t piece, uint64_t left)
{
	if (vhd->bat[offset / vhd->block_bytes] != VHD_BLOCK_ABSENT)
		return piece;
	while (piece < left && vhd->bat[(offset + piece) / vhd->block_bytes] == VHD_BLOCK_ABSENT)
		piece += left - piece < vhd->block_bytes ? left - piece : vhd->block_bytes;
	return piece;
}

static void submit_pieces(struct vhd *vhd, struct disk_request *request)
{
	uint64_t skip = 0;

	while (skip < request->length_bytes) {
		uint64_t offset = request->offset_bytes + skip;
		uint64_t left = request->length_bytes - skip;
		uint64_t piece = vhd->block_bytes - offset % vhd->block_bytes;
		struct image_part *part;

		piece = piece < left ? piece : left;
		if (request->op == DISK_READ)
			piece = read_ahead(vhd, offset, piece, left);
		part = image_part_new(&vhd->image, request, skip, piece);
		if (part == NULL) {
			image_part_add(request);
			image_part_done(request, -ENOMEM);
			return;
		}
		vhd_part_run(part, 0);
		skip += piece;
	}
}

/* FLUSH and MAP are one part, without a place. */
static void submit_one(struct vhd *vhd, struct disk_request *request)
{
	struct image_part *part = image_part_new(&vhd->image, request, 0, 0);

	if (part == NULL) {
		image_part_add(request);
		image_part_done(request, -ENOMEM);
	} else if (request->op == DISK_MAP) {
		request->extent_count = 0;
		map_run(vhd, part);
	} else {
		vhd_commit_join(vhd, part);
	}
}

void vhd_io_submit(struct vhd *vhd, struct disk_request *request)
{
	if (vhd->image.failed && request->op != DISK_READ && request->op != DISK_MAP) {
		image_done(request, -EIO);
		return;
	}
	image_split(request);
	switch (request->op) {
	case DISK_READ:
	case DISK_WRITE:
		submit_pieces(vhd, request);
		break;
	case DISK_ZERO:
	case DISK_UNMAP:
		submit_clear(vhd, request);
		break;
	case DISK_FLUSH:
	case DISK_MAP:
		submit_one(vhd, request);
		break;
	case DISK_RESIZE:
	case DISK_OP_INVALID:
	case DISK_OPS:
		base_bug("VHD request %d", (int)request->op);
	}
	image_part_done(request, 0);
}
