/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Blocks of a dynamic or differencing VHD in memory: their sector bitmaps, and space for new ones.
 * Loop thread.  A block is on the LRU list exactly while nothing keeps it (see unused()).
 */
#include "hypervisor/disk/vhd_priv.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "hypervisor/disk/flat_io.h"

void vhd_parts_add(struct vhd_parts *parts, struct image_part *part)
{
	part->next = NULL;
	if (parts->tail == NULL)
		parts->head = part;
	else
		parts->tail->next = part;
	parts->tail = part;
}

struct image_part *vhd_parts_take(struct vhd_parts *parts)
{
	struct image_part *head = parts->head;

	*parts = (struct vhd_parts){ 0 };
	return head;
}

void vhd_parts_run(struct vhd_parts *parts, int result)
{
	struct image_part *part = vhd_parts_take(parts);

	while (part != NULL) {
		struct image_part *next = part->next;

		vhd_part_run(part, result);
		part = next;
	}
}

/* --- the cache --- */

static bool unused(const struct vhd_block *block)
{
	return block->pins == 0 && !block->loading && !block->dirty && !block->committing &&
	       !block->fresh;
}

static struct vhd_block **bucket_of(struct vhd *vhd, uint32_t index)
{
	return &vhd->hash[index & (VHD_BLOCK_HASH - 1)];
}

static void lru_remove(struct vhd_block *block)
{
	struct vhd *vhd = block->vhd;

	if (block->lru_previous != NULL)
		block->lru_previous->lru_next = block->lru_next;
	else
		vhd->lru_head = block->lru_next;
	if (block->lru_next != NULL)
		block->lru_next->lru_previous = block->lru_previous;
	else
		vhd->lru_tail = block->lru_previous;
	block->lru_next = NULL;
	block->lru_previous = NULL;
	vhd->lru_count--;
}

static void block_free(struct vhd_block *block)
{
	struct vhd_block **link = bucket_of(block->vhd, block->index);

	while (*link != block)
		link = &(*link)->hash_next;
	*link = block->hash_next;
	free(block->snapshot);
	free(block->bits);
	free(block);
}

struct vhd_block *vhd_block_find(struct vhd *vhd, uint32_t index)
{
	struct vhd_block *block = *bucket_of(vhd, index);

	while (block != NULL && block->index != index)
		block = block->hash_next;
	return block;
}

struct vhd_block *vhd_block_get(struct vhd *vhd, uint32_t index)
{
	struct vhd_block *block = vhd_block_find(vhd, index);

	if (block == NULL) {
		struct vhd_block **bucket = bucket_of(vhd, index);

		block = calloc(1, sizeof(*block));
		if (block == NULL)
			return NULL;
		block->vhd = vhd;
		block->index = index;
		block->hash_next = *bucket;
		*bucket = block;
	} else if (unused(block)) {
		lru_remove(block);
	}
	block->pins++;
	return block;
}

void vhd_block_put(struct vhd_block *block)
{
	struct vhd *vhd = block->vhd;

	base_assert(block->pins > 0);
	block->pins--;
	if (!unused(block))
		return;
	block->lru_next = vhd->lru_head;
	if (vhd->lru_head != NULL)
		vhd->lru_head->lru_previous = block;
	else
		vhd->lru_tail = block;
	vhd->lru_head = block;
	vhd->lru_count++;
	if (vhd->lru_count > VHD_BLOCKS_KEPT) {
		struct vhd_block *oldest = vhd->lru_tail;

		lru_remove(oldest);
		block_free(oldest);
	}
}

void vhd_blocks_free(struct vhd *vhd)
{
	for (uint32_t i = 0; i < VHD_BLOCK_HASH; i++)
		while (vhd->hash[i] != NULL)
			block_free(vhd->hash[i]);
	vhd->lru_head = NULL;
	vhd->lru_tail = NULL;
	vhd->lru_count = 0;
	vhd->dirty = NULL;
	vhd->dirty_count = 0;
}

/* --- bitmaps --- */

static void set_full_if(struct vhd_block *block)
{
	struct vhd *vhd = block->vhd;
	uint32_t used_bytes = vhd->block_bytes / VHD_SECTOR_BYTES / 8; /* 128 or more */

	if (memcmp(block->bits, vhd->ones, used_bytes) == 0)
		vhd->full[block->index / 8] |= (uint8_t)(1U << block->index % 8);
}

static void load_done(struct store_request *request, int result)
{
	struct vhd_block *block = request->context;
	struct vhd_parts waiters = block->waiters;

	block->waiters = (struct vhd_parts){ 0 };
	block->loading = false;
	if (result == 0) {
		set_full_if(block);
	} else {
		free(block->bits);
		block->bits = NULL;
	}
	vhd_parts_run(&waiters, result);
	vhd_block_put(block); /* the loader's pin */
}

int vhd_block_load(struct vhd_block *block, struct image_part *part)
{
	struct vhd *vhd = block->vhd;

	if (block->bits != NULL && !block->loading)
		return 0;
	if (!block->loading) {
		block->bits = vhd_buffer_new(vhd->bitmap_bytes);
		if (block->bits == NULL)
			return -ENOMEM;
		block->loading = true;
		block->pins++;
		block->iov = (struct iovec){ block->bits, vhd->bitmap_bytes };
		block->request =
			(struct store_request){ .op = STORE_READ,
						.epoch = store_epoch(vhd->image.file),
						.offset_bytes = vhd_block_offset(vhd, block->index),
						.length_bytes = vhd->bitmap_bytes,
						.iov = &block->iov,
						.iov_count = 1,
						.done = load_done,
						.context = block };
		store_submit(vhd->image.file, &block->request);
	}
	vhd_parts_add(&block->waiters, part);
	return -EINPROGRESS;
}

bool vhd_block_bit(const struct vhd_block *block, uint32_t sector)
{
	return (block->bits[sector / 8] & (0x80U >> sector % 8)) != 0;
}

void vhd_block_dirty(struct vhd_block *block)
{
	struct vhd *vhd = block->vhd;

	if (block->dirty)
		return;
	block->dirty = true;
	block->dirty_next = vhd->dirty;
	vhd->dirty = block;
	vhd->dirty_count++;
	if (vhd->dirty_count >= VHD_DIRTY_MANY)
		vhd_commit_join(vhd, NULL);
	else
		vhd_commit_later(vhd);
}

void vhd_block_set(struct vhd_block *block, uint32_t sector, uint32_t count)
{
	bool changed = false;

	if (vhd_is_full(block->vhd, block->index))
		return;
	for (uint32_t i = sector; i < sector + count; i++) {
		uint8_t bit = (uint8_t)(0x80U >> i % 8);

		changed = changed || (block->bits[i / 8] & bit) == 0;
		block->bits[i / 8] |= bit;
	}
	if (changed) {
		set_full_if(block);
		vhd_block_dirty(block);
	}
}

/* --- space --- */

static uint64_t place_after(const struct vhd *vhd, uint64_t offset_bytes)
{
	uint64_t data = offset_bytes + vhd->bitmap_bytes + VHD_DATA_ALIGN - 1;

	return (data & ~(uint64_t)(VHD_DATA_ALIGN - 1)) - vhd->bitmap_bytes;
}

static uint64_t block_end(const struct vhd *vhd, uint64_t offset_bytes)
{
	return offset_bytes + vhd->bitmap_bytes + vhd->block_bytes;
}

void vhd_grow_done(struct vhd *vhd, int result)
{
	vhd->growing = false;
	if (vhd->resize_waits)
		vhd_resize_after_growth(vhd); /* takes @growing: who waits goes on after it */
	else
		vhd_parts_run(&vhd->growth, result);
}

static void grow_flushed(struct store_request *request, int result)
{
	struct vhd *vhd = request->context;

	result = flat_flushed(&vhd->image, result);
	if (result == 0) {
		vhd->grown_offset = vhd->grow_to;
		vhd->file_bytes = vhd->grow_to + VHD_FOOTER_BYTES;
	}
	vhd_grow_done(vhd, result);
}

/* Before a guest's data goes there: a file must not end with that, see V3. */
static void grow_written(struct store_request *request, int result)
{
	struct vhd *vhd = request->context;

	if (result < 0) {
		vhd_grow_done(vhd, result);
		return;
	}
	*request = (struct store_request){ .op = STORE_FLUSH,
					   .epoch = store_epoch(vhd->image.file),
					   .done = grow_flushed,
					   .context = vhd };
#ifdef GODWIT_MUTANT_VHD_GROW_FLUSH
	grow_flushed(request, 0);
	return;
#endif
	store_submit(vhd->image.file, request);
}

static void grow_truncated(struct store_request *request, int result)
{
	struct vhd *vhd = request->context;

	if (result < 0) {
		vhd_grow_done(vhd, result);
		return;
	}
	memcpy(vhd->sector, vhd->footer_bytes, VHD_FOOTER_BYTES);
	vhd->grow_iov = (struct iovec){ vhd->sector, VHD_FOOTER_BYTES };
	*request = (struct store_request){ .op = STORE_WRITE,
					   .epoch = store_epoch(vhd->image.file),
					   .offset_bytes = vhd->grow_to,
					   .length_bytes = VHD_FOOTER_BYTES,
					   .iov = &vhd->grow_iov,
					   .iov_count = 1,
					   .done = grow_written,
					   .context = vhd };
	store_submit(vhd->image.file, request);
}

/* Make the file longer by some blocks.  It ends where a block would, with the footer: so the old
 * footer is never inside the data of a new block. */
static int grow(struct vhd *vhd)
{
	uint64_t offset = place_after(vhd, vhd->next_offset);
	uint64_t last = (uint64_t)(VHD_BLOCK_ABSENT - 1) * VHD_SECTOR_BYTES;
	uint64_t end = block_end(vhd, offset);

	if (offset > last)
		return -ENOSPC;
	for (uint32_t i = 1; i < VHD_GROW_BLOCKS && end - offset < VHD_GROW_BYTES; i++)
		if (place_after(vhd, end) <= last)
			end = block_end(vhd, place_after(vhd, end));
	vhd->growing = true;
	vhd->grow_to = end;
	vhd->grow_request = (struct store_request){ .op = STORE_TRUNCATE,
						    .epoch = store_epoch(vhd->image.file),
						    .offset_bytes = end + VHD_FOOTER_BYTES,
						    .done = grow_truncated,
						    .context = vhd };
	store_submit(vhd->image.file, &vhd->grow_request);
	return -EINPROGRESS;
}

int vhd_block_allocate(struct vhd *vhd, uint32_t index, struct image_part *part)
{
	uint64_t offset = place_after(vhd, vhd->next_offset);
	struct vhd_block *block;
	int code = 0;

	if (vhd->dirty_count >= VHD_DIRTY_MAX) {
		vhd_parts_add(&vhd->crowd, part);
		vhd_commit_join(vhd, NULL);
		return -EINPROGRESS;
	}
	if (vhd->growing || block_end(vhd, offset) > vhd->grown_offset) {
		if (!vhd->growing)
			code = grow(vhd);
		if (code < 0 && code != -EINPROGRESS)
			return code;
		vhd_parts_add(&vhd->growth, part);
		return -EINPROGRESS;
	}
	block = vhd_block_get(vhd, index);
	if (block == NULL)
		return -ENOMEM;
	if (vhd->image.kind == DISK_DIFFERENCING) {
		free(block->bits);
		block->bits = vhd_buffer_new(vhd->bitmap_bytes);
		code = block->bits == NULL ? -ENOMEM : 0;
	} else {
		vhd->full[index / 8] |= (uint8_t)(1U << index % 8);
	}
	if (code == 0) {
		vhd->bat[index] = (uint32_t)(offset / VHD_SECTOR_BYTES);
		vhd->next_offset = block_end(vhd, offset);
		block->fresh = true;
		vhd_block_dirty(block);
	}
	vhd_block_put(block);
	return code;
}
