/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Moving sector bitmaps of a differencing VHDX image down in the file.
 *
 * Requests are held back meanwhile (some milliseconds for a MiB): a bitmap is used through cached
 * pages by all blocks of its chunk.  Its content goes to free space that nothing names, then
 * one ordered BAT change becomes durable; only then the old pages are forgotten, because until
 * then a replay needs what the log holds for them.
 */
#include <errno.h>
#include <string.h>

#include "hypervisor/disk/vhdx_compact_priv.h"
#include "hypervisor/disk/vhdx_journal_priv.h"

static uint64_t bitmap_index(const struct vhdx_compact *compact)
{
	return vhdx_bitmap_index(compact->vhdx, compact->next * compact->vhdx->chunk_ratio);
}

static int try_entry(struct vhdx_compact *compact)
{
	struct vhdx *vhdx = compact->vhdx;
	struct vhdx_page *page = NULL;
	int code = vhdx_bat_page(vhdx, bitmap_index(compact), &compact->waiter, &page);

	if (code < 0)
		return code;
	compact->entry = vhdx_bat_get(vhdx, page, bitmap_index(compact));
	vhdx_page_put(page);
	return vhdx_bitmap_entry_decode(compact->entry, NULL);
}

/* 1: there is a place below. */
static int try_take(struct vhdx_compact *compact)
{
	return vhdx_space_take_below(compact->vhdx, VHDX_BITMAP_BLOCK_BYTES,
				     vhdx_entry_offset(compact->entry), &compact->to_offset)
		       ? 1
		       : 0;
}

static int try_give_back(struct vhdx_compact *compact)
{
	vhdx_space_give_back(compact->vhdx, compact->to_offset, VHDX_BITMAP_BLOCK_BYTES);
	return 0;
}

/* What is in memory is newer than what was read. */
static int try_overlay(struct vhdx_compact *compact)
{
	uint64_t offset = vhdx_entry_offset(compact->entry);

	for (uint32_t at = 0; at < VHDX_BITMAP_BLOCK_BYTES; at += VHDX_PAGE_BYTES) {
		const struct vhdx_page *page = vhdx_page_peek(compact->vhdx, offset + at);

		if (page != NULL)
			memcpy(compact->buffer + at, page->data, VHDX_PAGE_BYTES);
	}
	return 0;
}

static int try_set(struct vhdx_compact *compact)
{
	struct vhdx *vhdx = compact->vhdx;
	struct vhdx_page *page = NULL;
	int code = vhdx_bat_page(vhdx, bitmap_index(compact), &compact->waiter, &page);

	if (code < 0)
		return code;
	vhdx_bat_set(vhdx, page, bitmap_index(compact),
		     vhdx_entry_make(VHDX_BITMAP_PRESENT, compact->to_offset), true);
	vhdx_page_put(page);
	return 0;
}

static int try_release(struct vhdx_compact *compact)
{
	uint64_t old = vhdx_entry_offset(compact->entry);

	vhdx_pages_drop(compact->vhdx, old, VHDX_BITMAP_BLOCK_BYTES);
	vhdx_space_release(compact->vhdx, old, VHDX_BITMAP_BLOCK_BYTES);
	return 0;
}

/* Held, and a place is taken. */
static int bitmap_copy(struct vhdx_compact *compact, struct base_error *err)
{
	struct store_file *file = compact->vhdx->image.file;
	int rc = store_do(file, STORE_READ, vhdx_entry_offset(compact->entry), compact->buffer,
			  VHDX_BITMAP_BLOCK_BYTES, err);

	if (rc == 0)
		rc = vhdx_compact_do(compact, try_overlay);
	if (rc == 0)
		rc = store_do(file, STORE_WRITE, compact->to_offset, compact->buffer,
			      VHDX_BITMAP_BLOCK_BYTES, err);
	if (rc == 0)
		rc = vhdx_compact_do(compact, try_set);
	/* safety: what a write of unknown outcome may still reach is given to nobody else. */
	if (rc < 0 && rc != -ETIMEDOUT)
		(void)vhdx_compact_do(compact, try_give_back);
	return rc;
}

static int bitmap_move_held(struct vhdx_compact *compact, struct base_error *err)
{
	int rc = vhdx_compact_do(compact, try_entry);

	if (rc < 0 || vhdx_entry_state(compact->entry) != VHDX_BITMAP_PRESENT)
		return rc;
	if (!vhdx_range_is_payload(compact->vhdx, vhdx_entry_offset(compact->entry),
				   VHDX_BITMAP_BLOCK_BYTES))
		return -EBADMSG;
	rc = vhdx_compact_do(compact, try_take);
	if (rc <= 0)
		return rc;
	rc = bitmap_copy(compact, err);
	if (rc < 0)
		return rc;
	/* A commit that fails leaves the entry as it is in memory, and both copies the same. */
	rc = vhdx_compact_commit(compact);
	if (rc < 0)
		return rc;
	compact->moved++;
	return vhdx_compact_do(compact, try_release);
}

/* Is it there, and is there room for it below?  Without holding anybody back. */
static int bitmap_wants_move(struct vhdx_compact *compact)
{
	int rc = vhdx_compact_do(compact, try_entry);

	if (rc < 0 || vhdx_entry_state(compact->entry) != VHDX_BITMAP_PRESENT)
		return rc;
	rc = vhdx_compact_do(compact, try_take);
	if (rc > 0)
		(void)vhdx_compact_do(compact, try_give_back);
	return rc;
}

int vhdx_compact_bitmaps(struct vhdx_compact *compact, struct base_error *err)
{
	const struct vhdx *vhdx = compact->vhdx;
	uint64_t chunks = (vhdx->block_count + vhdx->chunk_ratio - 1) / vhdx->chunk_ratio;
	int rc = 0;

	if (!vhdx->meta.has_parent)
		return 0;
	for (compact->next = 0; rc == 0 && compact->next < chunks; compact->next++) {
		rc = bitmap_wants_move(compact);
		if (rc <= 0)
			continue;
		rc = vhdx_compact_do(compact, vhdx_compact_hold);
		if (rc == 0) {
			rc = bitmap_move_held(compact, err);
			(void)vhdx_compact_do(compact, vhdx_compact_unhold);
		}
	}
	return rc;
}
