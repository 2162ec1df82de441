/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Finding out which space of a VHDX file is used: the structures, and everything that the BAT
 * names, read in pieces while requests go on.
 *
 * Loop only.  It runs beside requests, but nobody takes space before it is over: so the tables
 * only have to tell what was used before the session, and an old table tells that as well as a
 * new one.  What is freed meanwhile counts as used until the scan's end, so that another entry
 * that names the same place is seen.
 *
 * Tables that contradict each other (two entries, or an entry and a structure, at one
 * place) end the reuse of space for the session: nobody could say whom a freed range belongs to.
 */
#include <errno.h>
#include <stdlib.h>

#include "base/bytes.h"
#include "hypervisor/disk/vhdx_io_priv.h"
#include "hypervisor/disk/vhdx_journal_priv.h"

#define PIECE_BYTES VHDX_MIB

static void scan_next(struct vhdx_space *space);

/* --- marking --- */

static void mark(struct vhdx_space *space, uint64_t offset_bytes, uint64_t length_bytes)
{
	if (vhdx_units_any(space, offset_bytes, length_bytes))
		space->no_reuse = true;
	vhdx_units_mark(space, offset_bytes, length_bytes);
}

static void mark_structures(struct vhdx_space *space)
{
	const struct vhdx *vhdx = space->vhdx;
	const struct vhdx_regions *regions = &vhdx->regions;

	vhdx_units_mark(space, 0, VHDX_MIB);
	vhdx_units_mark(space, vhdx->header.log_offset, vhdx->header.log_bytes);
	vhdx_units_mark(space, regions->bat.offset_bytes, regions->bat.length_bytes);
	vhdx_units_mark(space, regions->metadata.offset_bytes, regions->metadata.length_bytes);
	for (uint32_t i = 0; i < regions->other_count; i++)
		vhdx_units_mark(space, regions->other[i].offset_bytes,
				regions->other[i].length_bytes);
	vhdx_units_mark(space, space->begin_bytes, space->end_bytes - space->begin_bytes);
	/* Nobody names it any more: an entry that does is another owner's. */
	for (const struct vhdx_space_freed *freed = space->freed; freed != NULL;
	     freed = freed->next)
		vhdx_units_mark(space, freed->offset_bytes, freed->length_bytes);
}

/* Space that @entry names is not in the file: from there on the file must not grow, or what is
 * lost would read zero. */
static void note_bad(struct vhdx_space *space, uint64_t offset_bytes)
{
	if (offset_bytes < space->bad_offset)
		space->bad_offset = offset_bytes;
}

/* Bytes from the entry's offset on that requests may look at. */
static uint64_t visible_bytes(const struct vhdx *vhdx, uint64_t index, uint64_t entry)
{
	uint64_t chunk = index / (vhdx->chunk_ratio + 1);
	uint64_t within = index % (vhdx->chunk_ratio + 1);
	uint64_t start;

	if (within == vhdx->chunk_ratio)
		return vhdx_entry_state(entry) == VHDX_BITMAP_PRESENT ? VHDX_BITMAP_BLOCK_BYTES : 0;
	if (!vhdx_state_has_space(entry))
		return 0;
	start = (chunk * vhdx->chunk_ratio + within) * vhdx->block_bytes;
	if (vhdx->meta.disk_bytes - start < vhdx->block_bytes)
		return vhdx->meta.disk_bytes - start; /* no entry is behind the last block's */
	return vhdx->block_bytes;
}

/* An entry keeps its space in every state: others may count on what they left there. */
static void mark_entry(struct vhdx_space *space, uint64_t index, uint64_t entry)
{
	const struct vhdx *vhdx = space->vhdx;
	uint64_t offset = vhdx_entry_offset(entry);
	uint64_t length = vhdx->block_bytes;

	if (offset == 0 || offset >= VHDX_FILE_BYTES_MAX) {
		if (offset != 0)
			space->no_reuse = true;
		return;
	}
	if (index % (vhdx->chunk_ratio + 1) == vhdx->chunk_ratio)
		length = VHDX_BITMAP_BLOCK_BYTES;
	if (offset >= space->begin_bytes) {
		if (offset >= space->end_bytes)
			note_bad(space, offset);
		return;
	}
	if (visible_bytes(vhdx, index, entry) > vhdx->file_bytes - offset) {
		space->no_reuse = true;
		note_bad(space, vhdx->file_bytes);
	}
	if (length > space->begin_bytes - offset) { /* reaches behind the file's end */
		space->no_reuse = true;
		/* What it lacks stays its own: a larger disk would show it. */
		if (space->end_bytes < offset + length)
			space->end_bytes = offset + length;
		length = space->begin_bytes - offset;
	}
	mark(space, offset, length);
}

static void mark_piece(struct vhdx_space *space, uint64_t length_bytes)
{
	for (uint64_t at = 0; at < length_bytes; at += VHDX_PAGE_BYTES) {
		uint64_t first = (space->scan_done + at) / 8;
		const struct vhdx_page *page =
			vhdx_page_peek(space->vhdx, space->scan_bat_offset + space->scan_done + at);
		const uint8_t *bytes = page != NULL ? page->data : space->scan_buffer + at;

		for (uint64_t i = 0; i < VHDX_PAGE_BYTES / 8; i++) {
			if (first + i >= space->scan_entries)
				return;
			mark_entry(space, first + i, base_get_le64(bytes + i * 8));
		}
	}
}

/* --- running --- */

static void scan_over(struct vhdx_space *space, int result)
{
	struct vhdx_waiter *waiters = space->scan_waiters;

	space->scan_waiters = NULL;
	free(space->scan_buffer);
	space->scan_buffer = NULL;
	space->scan = VHDX_SCAN_FAILED;
	if (result == 0) {
		for (struct vhdx_space_freed *freed = space->freed; freed != NULL;
		     freed = freed->next)
			vhdx_units_mark(space, freed->offset_bytes, freed->length_bytes);
		space->scan = VHDX_SCAN_KNOWN;
	}
	vhdx_space_settle(space->vhdx);
	vhdx_waiters_run(&waiters, result);
}

/* From the start: the tables moved. */
static void scan_reset(struct vhdx_space *space)
{
	const struct vhdx *vhdx = space->vhdx;

	vhdx_units_clear(space, 0, space->begin_bytes);
	mark_structures(space);
	space->scan_done = 0;
	space->scan_bat_offset = vhdx->regions.bat.offset_bytes;
	space->scan_entries = vhdx->bat_entry_count;
}

static void piece_read(struct store_request *request, int result)
{
	struct vhdx_space *space = request->context;
	const struct vhdx *vhdx = space->vhdx;

	if (space->scan_stop)
		result = -ECANCELED;
	if (result < 0) {
		scan_over(space, result);
		return;
	}
	if (space->scan_bat_offset != vhdx->regions.bat.offset_bytes ||
	    space->scan_entries != vhdx->bat_entry_count) {
		scan_reset(space);
		scan_next(space);
		return;
	}
	mark_piece(space, request->length_bytes);
	space->scan_done += request->length_bytes;
	if (space->scan_done / 8 >= space->scan_entries)
		scan_over(space, 0);
	else
		scan_next(space);
}

static void scan_next(struct vhdx_space *space)
{
	struct vhdx *vhdx = space->vhdx;
	uint64_t left = space->scan_entries * 8 - space->scan_done;
	uint64_t length = left < PIECE_BYTES ? left : PIECE_BYTES;

	length = (length + (VHDX_PAGE_BYTES - 1)) / VHDX_PAGE_BYTES * VHDX_PAGE_BYTES;
	space->scan_iov = (struct iovec){ .iov_base = space->scan_buffer, .iov_len = length };
	space->scan_read = (struct store_request){
		.op = STORE_READ,
		.epoch = store_epoch(vhdx->image.file),
		.offset_bytes = space->scan_bat_offset + space->scan_done,
		.length_bytes = length,
		.iov = &space->scan_iov,
		.iov_count = 1,
		.done = piece_read,
		.context = space,
	};
	store_submit(vhdx->image.file, &space->scan_read);
}

int vhdx_scan_begin(struct vhdx_space *space)
{
	int code = vhdx_units_grow(space, space->end_bytes);

	if (code == -EFBIG)
		space->no_reuse = true; /* no map, but what lies behind the file is found */
	else if (code < 0)
		return code;
	space->scan_buffer = aligned_alloc(VHDX_PAGE_BYTES, PIECE_BYTES);
	if (space->scan_buffer == NULL)
		return -ENOMEM;
	space->scan = VHDX_SCAN_RUNNING;
	scan_reset(space);
	scan_next(space);
	return 0;
}

int vhdx_space_scan(struct vhdx *vhdx, struct vhdx_waiter *waiter)
{
	struct vhdx_space *space = vhdx->space;
	int code;

	if (space->scan == VHDX_SCAN_KNOWN)
		return 0;
	if (space->scan != VHDX_SCAN_RUNNING) {
		code = vhdx_scan_begin(space);
		if (code < 0)
			return code;
	}
	vhdx_waiters_add(&space->scan_waiters, waiter);
	return -EINPROGRESS;
}

void vhdx_scan_freed(struct vhdx_space *space, uint64_t index, uint64_t offset_bytes,
		     uint64_t length_bytes)
{
	if (space->scan != VHDX_SCAN_RUNNING || index < space->scan_done / 8)
		return; /* the mark is this entry's; another one would have been seen */
	mark(space, offset_bytes, length_bytes);
}

int vhdx_scan_halt(struct vhdx_space *space, struct vhdx_waiter *waiter)
{
	if (space->scan != VHDX_SCAN_RUNNING)
		return 0;
	space->scan_stop = true;
	vhdx_waiters_add(&space->scan_waiters, waiter);
	return -EINPROGRESS;
}
