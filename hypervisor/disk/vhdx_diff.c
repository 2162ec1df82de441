/* SPDX-License-Identifier: Apache-2.0 */
/*
 * PARTIAL blocks of a differencing image: sector bitmaps, reads that go to two places, writes
 * that make sectors present.
 *
 * A bit is set only after the bytes it shows are in the file, and the page is marked ordered: so
 * the store is flushed between the bytes and the log entry that holds the bit (W2).  Until then
 * reads see the parent.  A block becomes PARTIAL with all its bits clear, in one turn of the loop:
 * stale bits of other writers never show, and whatever its space held is not visible either.
 *
 * The bitmap block of a chunk is made under the chunk's lock, which is taken after a block's.
 */
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "hypervisor/disk/vhdx_io_priv.h"

/* --- bits --- */

static uint32_t sector_bytes(const struct vhdx_piece *piece)
{
	return piece->vhdx->meta.logical_sector_bytes;
}

static uint8_t *bits_byte(const struct vhdx_piece *piece, uint64_t sector)
{
	uint64_t at = piece->bitmap_offset + piece->bits_start + sector / 8 - piece->bits_first;

	base_assert(at / VHDX_PAGE_BYTES < piece->bits_count);
	return piece->bits[at / VHDX_PAGE_BYTES]->data + at % VHDX_PAGE_BYTES;
}

static struct vhdx_page *bits_page(const struct vhdx_piece *piece, uint64_t sector)
{
	uint64_t at = piece->bitmap_offset + piece->bits_start + sector / 8 - piece->bits_first;

	return piece->bits[at / VHDX_PAGE_BYTES];
}

uint32_t vhdx_bits_run(const struct vhdx_piece *piece, uint32_t at, uint32_t limit, bool *ret_set)
{
	uint32_t bytes = sector_bytes(piece);
	uint32_t first = at / bytes;
	uint32_t end = limit / bytes;
	uint32_t sector = first;
	bool set = (*bits_byte(piece, first) >> (first % 8) & 1) != 0;

	while (sector < end) {
		uint8_t byte = *bits_byte(piece, sector);

		if (sector % 8 == 0 && end - sector >= 8 && byte == (set ? 0xff : 0)) {
			sector += 8;
			continue;
		}
		if (((byte >> (sector % 8) & 1) != 0) != set)
			break;
		sector++;
	}
	*ret_set = set;
	return (sector - first) * bytes;
}

/* Set or clear those of [at, at + length); pages that change become dirty. */
static void bits_write(struct vhdx_piece *piece, uint32_t at, uint32_t length, bool set)
{
	uint32_t sector = at / sector_bytes(piece);
	uint32_t end = sector + length / sector_bytes(piece);

	while (sector < end) {
		uint8_t *byte = bits_byte(piece, sector);
		uint32_t count = 8 - sector % 8;
		uint8_t mask;

		if (count > end - sector)
			count = end - sector;
		mask = (uint8_t)(((1U << count) - 1) << (sector % 8));
		if ((*byte & mask) != (set ? mask : 0)) {
			*byte = (uint8_t)(set ? *byte | mask : *byte & ~mask);
			vhdx_page_dirty(bits_page(piece, sector), set);
		}
		sector += count;
	}
}

void vhdx_bits_drop(struct vhdx_piece *piece)
{
	for (uint32_t i = 0; i < piece->bits_count; i++)
		vhdx_page_put(piece->bits[i]);
	piece->bits_count = 0;
	if (piece->bitmap_bat != NULL)
		vhdx_page_put(base_take(&piece->bitmap_bat));
	piece->has_bits = false;
}

static int bad_bitmap_entry(struct vhdx *vhdx, uint64_t index, uint64_t entry, const char *why)
{
	uint64_t place = vhdx->regions.bat.offset_bytes + index * sizeof(uint64_t);

	if (vhdx->image.damage[0] == '\0')
		(void)snprintf(vhdx->image.damage, sizeof(vhdx->image.damage),
			       "BAT entry %llu (sector bitmap) at 0x%llx: 0x%016llx: %.100s",
			       (unsigned long long)index, (unsigned long long)place,
			       (unsigned long long)entry, why);
	return -EBADMSG;
}

/* The bitmap entry of the block's chunk, its page pinned in piece->bitmap_bat. */
static int bitmap_entry(struct vhdx_piece *piece, uint64_t *ret_entry)
{
	struct vhdx *vhdx = piece->vhdx;
	uint64_t index = vhdx_bitmap_index(vhdx, piece->block);
	struct base_error err = { 0 };
	int code;

	if (piece->bitmap_bat == NULL) {
		code = vhdx_bat_page(vhdx, index, &piece->waiter, &piece->bitmap_bat);
		if (code < 0)
			return code;
		piece->has_bits = true;
	}
	*ret_entry = vhdx_bat_get(vhdx, piece->bitmap_bat, index);
	if (vhdx_bitmap_entry_decode(*ret_entry, &err) < 0)
		return bad_bitmap_entry(vhdx, index, *ret_entry, err.text);
	if (vhdx_entry_state(*ret_entry) == VHDX_BITMAP_PRESENT &&
	    !vhdx_range_is_payload(vhdx, vhdx_entry_offset(*ret_entry), VHDX_BITMAP_BLOCK_BYTES))
		return bad_bitmap_entry(vhdx, index, *ret_entry,
					"outside the file or over a structure");
	return 0;
}

int vhdx_bits_load(struct vhdx_piece *piece, uint32_t at, uint32_t length)
{
	struct vhdx *vhdx = piece->vhdx;
	uint64_t entry = 0;
	uint64_t first;
	uint64_t last;
	int code = bitmap_entry(piece, &entry);

	if (code < 0)
		return code;
	if (vhdx_entry_state(entry) != VHDX_BITMAP_PRESENT)
		return bad_bitmap_entry(vhdx, vhdx_bitmap_index(vhdx, piece->block), entry,
					"not present, and a partial block wants one");
	piece->bitmap_offset = vhdx_entry_offset(entry);
	piece->bits_start =
		piece->block % vhdx->chunk_ratio * (vhdx->block_bytes / sector_bytes(piece) / 8);
	first = piece->bits_start + at / sector_bytes(piece) / 8;
	last = piece->bits_start + (at + length - 1) / sector_bytes(piece) / 8;
	piece->bits_first = piece->bitmap_offset + (first & ~(uint64_t)(VHDX_PAGE_BYTES - 1));
	last = piece->bitmap_offset + (last & ~(uint64_t)(VHDX_PAGE_BYTES - 1));
	while (piece->bits_first + (uint64_t)piece->bits_count * VHDX_PAGE_BYTES <= last) {
		base_assert(piece->bits_count < VHDX_BITS_PAGES_MAX);
		code = vhdx_page_get(
			vhdx, piece->bits_first + (uint64_t)piece->bits_count * VHDX_PAGE_BYTES,
			&piece->waiter, &piece->bits[piece->bits_count]);
		if (code < 0)
			return code;
		piece->bits_count++;
	}
	return 0;
}

/* --- reading --- */

static enum vhdx_step_result step_read_runs(struct vhdx_piece *piece)
{
	uint32_t end = piece->within + piece->length;
	uint64_t block_offset = vhdx_entry_offset(piece->entry);
	int code;

	for (uint32_t parts = 0; piece->run_at < end && parts < VHDX_PARTS_AT_ONCE; parts++) {
		uint32_t at = piece->run_at;
		bool set = false;
		uint32_t length = vhdx_bits_run(piece, at, end, &set);

		piece->run_at += length;
		if (set)
			code = vhdx_piece_file(piece, at, length, block_offset + at, 0);
		else
			code = vhdx_piece_parent(piece, at, length);
		if (code < 0)
			return vhdx_piece_fail(piece, code);
	}
	return vhdx_piece_join(piece, piece->run_at < end ? step_read_runs : vhdx_step_block_done);
}

enum vhdx_step_result vhdx_step_read_partial(struct vhdx_piece *piece)
{
	int code = vhdx_bits_load(piece, piece->within, piece->length);

	return vhdx_piece_after(piece, code, step_read_runs);
}

/* --- writing --- */

static enum vhdx_step_result step_show(struct vhdx_piece *piece)
{
	struct vhdx *vhdx = piece->vhdx;

	if (vhdx_commit_crowded(vhdx, &piece->waiter))
		return VHDX_WAIT;
	if (piece->whole)
		vhdx_bat_set(vhdx, piece->bat, piece->bat_index,
			     vhdx_entry_make(VHDX_BLOCK_FULL, vhdx_entry_offset(piece->entry)),
			     true);
	else
		bits_write(piece, piece->within, piece->length, true);
	piece->commit = true;
	return vhdx_step_block_done(piece);
}

static bool all_present(const struct vhdx_piece *piece)
{
	bool set = false;

	return vhdx_bits_run(piece, piece->within, piece->within + piece->length, &set) ==
		       piece->length &&
	       set;
}

enum vhdx_step_result vhdx_step_write_partial(struct vhdx_piece *piece)
{
	vhdx_step next = step_show;
	uint32_t flags = 0;
	int code;

	if (!piece->whole) {
		code = vhdx_bits_load(piece, piece->within, piece->length);
		if (code < 0)
			return vhdx_piece_after(piece, code, NULL);
		if (all_present(piece)) {
			next = vhdx_step_block_done;
			if (piece->commit || vhdx_commit_pending(piece->vhdx))
				piece->commit = true;
			else if ((piece->request->flags & DISK_FUA) != 0)
				flags = STORE_FUA;
		}
	}
	code = vhdx_piece_put(piece, vhdx_entry_offset(piece->entry), flags);
	if (code < 0)
		return vhdx_piece_fail(piece, code);
	return vhdx_piece_join(piece, next);
}

/* --- a block becomes PARTIAL: its lock is exclusive --- */

static enum vhdx_step_result step_become_partial(struct vhdx_piece *piece)
{
	struct vhdx *vhdx = piece->vhdx;

	if (vhdx_commit_crowded(vhdx, &piece->waiter))
		return VHDX_WAIT;
	bits_write(piece, 0, vhdx->block_bytes, false);
	vhdx_space_release_kept(vhdx, piece->entry, vhdx->block_bytes);
	piece->entry = vhdx_entry_make(VHDX_BLOCK_PARTIAL, piece->space_offset);
	vhdx_bat_set(vhdx, piece->bat, piece->bat_index, piece->entry, false);
	piece->has_space = false; /* the entry's now */
	piece->commit = true;
	vhdx_bits_drop(piece);
	vhdx_block_downgrade(vhdx, &piece->lock);
	piece->step = vhdx_step_write_partial;
	return VHDX_GO;
}

static enum vhdx_step_result step_block_space(struct vhdx_piece *piece)
{
	struct vhdx *vhdx = piece->vhdx;
	int code = vhdx_space_take(vhdx, vhdx->block_bytes, &piece->waiter, &piece->space_offset,
				   &piece->fresh);

	if (code == 0) {
		piece->has_space = true;
		piece->space_bytes = vhdx->block_bytes;
	}
	return vhdx_piece_after(piece, code, step_become_partial);
}

static enum vhdx_step_result step_all_bits(struct vhdx_piece *piece)
{
	return vhdx_piece_after(piece, vhdx_bits_load(piece, 0, piece->vhdx->block_bytes),
				step_block_space);
}

static enum vhdx_step_result step_name_bitmap(struct vhdx_piece *piece)
{
	struct vhdx *vhdx = piece->vhdx;

	if (vhdx_commit_crowded(vhdx, &piece->waiter))
		return VHDX_WAIT;
	vhdx_bat_set(vhdx, piece->bitmap_bat, vhdx_bitmap_index(vhdx, piece->block),
		     vhdx_entry_make(VHDX_BITMAP_PRESENT, piece->space_offset), !piece->fresh);
	piece->has_space = false; /* the entry's now */
	piece->chunk_locked = false;
	vhdx_block_unlock(vhdx, &piece->chunk);
	piece->step = step_all_bits;
	return VHDX_GO;
}

/* The chunk's lock is held: make its bitmap block unless somebody else was faster. */
static enum vhdx_step_result step_make_bitmap(struct vhdx_piece *piece)
{
	struct vhdx *vhdx = piece->vhdx;
	uint64_t entry = 0;
	int code = bitmap_entry(piece, &entry);

	if (code < 0)
		return vhdx_piece_after(piece, code, NULL);
	if (vhdx_entry_state(entry) == VHDX_BITMAP_PRESENT) {
		piece->chunk_locked = false;
		vhdx_block_unlock(vhdx, &piece->chunk);
		piece->step = step_all_bits;
		return VHDX_GO;
	}
	code = vhdx_space_take(vhdx, VHDX_BITMAP_BLOCK_BYTES, &piece->waiter, &piece->space_offset,
			       &piece->fresh);
	if (code < 0)
		return vhdx_piece_after(piece, code, NULL);
	piece->has_space = true;
	piece->space_bytes = VHDX_BITMAP_BLOCK_BYTES;
	if (!piece->fresh) {
		/* Pages of what was there before, if it was a table. */
		vhdx_pages_drop(vhdx, piece->space_offset, VHDX_BITMAP_BLOCK_BYTES);
		vhdx_piece_clear(piece, piece->space_offset, VHDX_BITMAP_BLOCK_BYTES);
	}
	return vhdx_piece_join(piece, step_name_bitmap);
}

enum vhdx_step_result vhdx_step_alloc_partial(struct vhdx_piece *piece)
{
	uint64_t entry = 0;
	int code = bitmap_entry(piece, &entry);

	if (code < 0)
		return vhdx_piece_after(piece, code, NULL);
	if (vhdx_entry_state(entry) == VHDX_BITMAP_PRESENT) {
		piece->step = step_all_bits;
		return VHDX_GO;
	}
	piece->chunk.block = VHDX_CHUNK_LOCK | piece->block / piece->vhdx->chunk_ratio;
	piece->chunk.exclusive = true;
	piece->chunk_locked = true;
	piece->step = step_make_bitmap;
	vhdx_block_lock(piece->vhdx, &piece->chunk);
	return piece->chunk.held ? VHDX_GO : VHDX_WAIT;
}
