/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Space in a VHDX file: taking it, giving it back, making the file longer.
 *
 * Loop only.  The first one who takes space waits for a scan of the tables (vhdx_space_scan.c):
 * it tells what is free, and which space behind the file's end a damaged table names, which
 * nobody may get.  Behind the file's end at activation space is handed out upwards, once: it
 * reads zero (fresh).  Below, and what was given back, may hold old bytes.
 *
 * Freed space waits behind three gates before it is free (W3):
 *   the commit that ends its use is durable;
 *   no entry of the log that a replay would apply writes there, which matters where a table or a
 *   bitmap was: its old pages would be written over the new data;
 *   the scan, if one is running, is over: it may have read the old table.
 */
#include <errno.h>
#include <stdlib.h>

#include "hypervisor/disk/vhdx_io_priv.h"
#include "hypervisor/disk/vhdx_journal_priv.h"

/* gcc 12's analyzer loses a pointer that is stored through another one, and calls it a leak. */
#if defined(__GNUC__) && !defined(__clang__)
#pragma GCC diagnostic ignored "-Wanalyzer-malloc-leak"
#endif

static uint64_t round_up_mib(uint64_t bytes)
{
	return (bytes + (VHDX_MIB - 1)) / VHDX_MIB * VHDX_MIB; /* file_bytes < 2^63 */
}

/* --- extending the file --- */

static void extend_submit(struct vhdx_space *space, uint64_t bytes);

static void extended(struct store_request *request, int result)
{
	struct vhdx_space *space = request->context;
	struct vhdx *vhdx = space->vhdx;
	struct vhdx_waiter *waiters;

	if (result == -ENOSPC && space->extend_bytes > space->extend_need) {
		extend_submit(space, space->extend_need); /* without what is for later */
		return;
	}
	if (result == -ETIMEDOUT) /* a late one could cut what was extended further since */
		image_fail(&vhdx->image, "%s: the file's size is unknown: extending timed out",
			   store_name(vhdx->image.file));
	if (result == 0)
		vhdx->file_bytes = space->extend_bytes;
	space->extend_bytes = 0;
	waiters = space->extend_waiters;
	space->extend_waiters = NULL;
	vhdx_waiters_run(&waiters, result);
}

static void extend_submit(struct vhdx_space *space, uint64_t bytes)
{
	struct vhdx *vhdx = space->vhdx;

	space->extend_bytes = bytes;
	space->extend = (struct store_request){
		.op = STORE_TRUNCATE,
		.epoch = store_epoch(vhdx->image.file),
		.offset_bytes = bytes,
		.done = extended,
		.context = space,
	};
	store_submit(vhdx->image.file, &space->extend);
}

static void extend(struct vhdx_space *space, uint64_t need_bytes)
{
	uint64_t step = space->vhdx->file_bytes / 8;
	uint64_t more;

	if (step > VHDX_STEP_BYTES)
		step = VHDX_STEP_BYTES;
	more = round_up_mib(space->vhdx->file_bytes + step);
	/* What a damaged table names behind the file's end must not become a part of it. */
	if (more > space->bad_offset)
		more = space->bad_offset;
	space->extend_need = need_bytes;
	extend_submit(space, more > need_bytes ? more : need_bytes);
}

/* --- taking --- */

static int take_known(struct vhdx_space *space, uint64_t length_bytes, uint64_t *ret_offset)
{
	uint64_t units = length_bytes / VHDX_MIB;
	uint64_t limit = space->end_bytes / VHDX_MIB;
	uint64_t found;

	if (space->scan != VHDX_SCAN_KNOWN || space->no_reuse || units >= space->hopeless)
		return -ENOSPC;
	found = vhdx_units_find(space, space->next_unit, limit, units);
	if (found == UINT64_MAX)
		found = vhdx_units_find(space, 1, limit, units);
	if (found == UINT64_MAX) {
		space->hopeless = units;
		return -ENOSPC;
	}
	space->next_unit = found + units;
	vhdx_units_mark(space, found * VHDX_MIB, length_bytes);
	*ret_offset = found * VHDX_MIB;
	return 0;
}

/* Until @need_bytes of the file are there: -EINPROGRESS. */
static int reach(struct vhdx_space *space, uint64_t need_bytes, struct vhdx_waiter *waiter)
{
	if (space->extend_bytes == 0 && need_bytes <= space->vhdx->file_bytes)
		return 0;
	if (need_bytes > space->bad_offset)
		return -EBADMSG; /* a table names space there: never two owners */
	if (space->extend_bytes == 0)
		extend(space, need_bytes);
	vhdx_waiters_add(&space->extend_waiters, waiter);
	return -EINPROGRESS;
}

int vhdx_space_complete(struct vhdx *vhdx, struct vhdx_waiter *waiter)
{
	struct vhdx_space *space = vhdx->space;
	int code;

	if (vhdx->image.failed)
		return -EIO;
	code = vhdx_space_scan(vhdx, waiter);
	if (code < 0 || space->end_bytes <= vhdx->file_bytes)
		return code;
	return reach(space, space->end_bytes, waiter);
}

int vhdx_space_take(struct vhdx *vhdx, uint64_t length_bytes, struct vhdx_waiter *waiter,
		    uint64_t *ret_offset, bool *ret_fresh)
{
	struct vhdx_space *space = vhdx->space;
	int code;

	base_assert(length_bytes > 0 && length_bytes % VHDX_MIB == 0);
	/* The file may end within a MiB: what is free there is not in it yet. */
	code = vhdx_space_complete(vhdx, waiter);
	if (code < 0)
		return code;
	if (take_known(space, length_bytes, ret_offset) == 0) {
		*ret_fresh = false;
		return 0;
	}
	if (length_bytes > VHDX_FILE_BYTES_MAX - space->end_bytes)
		return -EFBIG;
	code = reach(space, space->end_bytes + length_bytes, waiter);
	if (code < 0)
		return code;
	if (!space->no_reuse) {
		code = vhdx_units_grow(space, space->end_bytes + length_bytes);
		if (code == -ENOMEM)
			return code;
		if (code < 0)
			space->no_reuse = true; /* larger than what is worth a map */
	}
	*ret_offset = space->end_bytes;
	*ret_fresh = true;
	vhdx_units_mark(space, space->end_bytes, length_bytes);
	space->end_bytes += length_bytes;
	return 0;
}

bool vhdx_space_take_below(struct vhdx *vhdx, uint64_t length_bytes, uint64_t limit_bytes,
			   uint64_t *ret_offset)
{
	struct vhdx_space *space = vhdx->space;
	uint64_t limit = limit_bytes < space->end_bytes ? limit_bytes : space->end_bytes;
	uint64_t found;

	if (space->scan != VHDX_SCAN_KNOWN || space->no_reuse || length_bytes < VHDX_MIB)
		return false;
	found = vhdx_units_find(space, 1, limit / VHDX_MIB, length_bytes / VHDX_MIB);
	if (found == UINT64_MAX)
		return false;
	vhdx_units_mark(space, found * VHDX_MIB, length_bytes);
	*ret_offset = found * VHDX_MIB;
	return true;
}

/* --- giving back --- */

static void set_free(struct vhdx_space *space, const struct vhdx_space_freed *freed)
{
	/* What its last owner kept there in memory is not what its next owner will. */
	vhdx_pages_drop(space->vhdx, freed->offset_bytes, freed->length_bytes);
	if (space->scan == VHDX_SCAN_KNOWN && !space->no_reuse) {
		vhdx_units_clear(space, freed->offset_bytes, freed->length_bytes);
		space->hopeless = UINT64_MAX;
	}
}

/* Whether a replay could still write into it: looked up again only when what was found last time
 * has left the log. */
static bool is_in_log(struct vhdx_space *space, struct vhdx_space_freed *freed, uint64_t oldest)
{
	if (freed->sequence >= oldest)
		return true;
	freed->sequence =
		vhdx_log_newest_over(space->vhdx, freed->offset_bytes, freed->length_bytes);
	return freed->sequence != 0;
}

void vhdx_space_settle(struct vhdx *vhdx)
{
	struct vhdx_space *space = vhdx->space;
	struct vhdx_space_freed **link = &space->freed;
	uint64_t oldest = vhdx_log_oldest(vhdx);

	while (*link != NULL) {
		struct vhdx_space_freed *freed = *link;

		if (freed->commit != 0 || space->scan == VHDX_SCAN_RUNNING ||
		    is_in_log(space, freed, oldest)) {
			link = &freed->next;
			continue;
		}
		*link = freed->next;
		set_free(space, freed);
		free(freed);
	}
}

static void space_freed(struct vhdx *vhdx, uint64_t offset_bytes, uint64_t length_bytes,
			uint64_t commit)
{
	struct vhdx_space *space = vhdx->space;
	struct vhdx_space_freed *freed;

	if (space->no_reuse)
		return;
	freed = malloc(sizeof(*freed));
	if (freed == NULL) {
		/* A scan could take it for free too early: rather never. */
		space->no_reuse = true;
		return;
	}
	*freed = (struct vhdx_space_freed){
		.next = space->freed,
		.offset_bytes = offset_bytes,
		.length_bytes = length_bytes,
		.commit = commit,
	};
	space->freed = freed;
}

void vhdx_space_give_back(struct vhdx *vhdx, uint64_t offset_bytes, uint64_t length_bytes)
{
	/* Pages that were to live there must not reach the log any more. */
	vhdx_pages_drop(vhdx, offset_bytes, length_bytes);
	space_freed(vhdx, offset_bytes, length_bytes, 0);
	vhdx_space_settle(vhdx);
}

void vhdx_space_release(struct vhdx *vhdx, uint64_t offset_bytes, uint64_t length_bytes)
{
	space_freed(vhdx, offset_bytes, length_bytes, vhdx_commit_next(vhdx));
}

void vhdx_space_release_entry(struct vhdx *vhdx, uint64_t bat_index, uint64_t entry,
			      uint64_t length_bytes)
{
	uint64_t offset = vhdx_entry_offset(entry);

	vhdx_scan_freed(vhdx->space, bat_index, offset, length_bytes);
	vhdx_space_release(vhdx, offset, length_bytes);
}

void vhdx_space_release_kept(struct vhdx *vhdx, uint64_t entry, uint64_t length_bytes)
{
	uint64_t offset = vhdx_entry_offset(entry);

	if (vhdx_space_known(vhdx) && !vhdx->space->no_reuse && offset != 0 &&
	    vhdx_range_is_payload(vhdx, offset, length_bytes))
		vhdx_space_release(vhdx, offset, length_bytes);
}

void vhdx_space_unsure(struct vhdx *vhdx)
{
	vhdx->space->no_reuse = true;
}

void vhdx_space_committed(struct vhdx *vhdx, uint64_t number)
{
	struct vhdx_space_freed *freed = vhdx->space->freed;

	for (; freed != NULL; freed = freed->next) {
		if (freed->commit <= number)
			freed->commit = 0;
	}
	vhdx_space_settle(vhdx);
}

/* --- sizes --- */

uint64_t vhdx_space_last_bytes(const struct vhdx *vhdx)
{
	return vhdx->file_bytes;
}

uint64_t vhdx_space_flushed_bytes(const struct vhdx *vhdx)
{
	return vhdx->space->flushed_bytes;
}

void vhdx_space_flush_begin(struct vhdx *vhdx)
{
	vhdx->space->flushing_bytes = vhdx->file_bytes;
}

void vhdx_space_flush_end(struct vhdx *vhdx)
{
	vhdx->space->flushed_bytes = vhdx->space->flushing_bytes;
}

uint64_t vhdx_space_end(const struct vhdx *vhdx)
{
	return vhdx_units_end(vhdx->space);
}

bool vhdx_space_known(const struct vhdx *vhdx)
{
	return vhdx->space->scan == VHDX_SCAN_KNOWN;
}

bool vhdx_space_is_free(const struct vhdx *vhdx, uint64_t offset_bytes, uint64_t length_bytes)
{
	const struct vhdx_space *space = vhdx->space;

	return space->scan == VHDX_SCAN_KNOWN && !space->no_reuse &&
	       !vhdx_units_any(space, offset_bytes, length_bytes);
}

uint64_t vhdx_space_cut_bytes(const struct vhdx *vhdx)
{
	const struct vhdx_space *space = vhdx->space;
	uint64_t end = space->end_bytes;

	if (space->no_reuse || space->bad_offset != UINT64_MAX)
		return vhdx->file_bytes;
	if (space->scan == VHDX_SCAN_KNOWN)
		end = vhdx_units_end(space);
	return end;
}

/* --- making and freeing --- */

int vhdx_space_new(struct vhdx *vhdx, struct base_error *err)
{
	struct vhdx_space *space = calloc(1, sizeof(*space));

	if (space == NULL)
		return base_fail(err, -ENOMEM, "space map");
	space->vhdx = vhdx;
	space->begin_bytes = round_up_mib(vhdx->file_bytes);
	space->end_bytes = space->begin_bytes;
	space->flushed_bytes = vhdx->file_bytes; /* durable by the time an entry counts: the
						    session's first header follows a flush */
	space->next_unit = 1;
	space->hopeless = UINT64_MAX;
	space->bad_offset = UINT64_MAX;
	space->scan = VHDX_SCAN_NOT_BEGUN;
	vhdx->space = space;
	return 0;
}

void vhdx_space_free_all(struct vhdx *vhdx)
{
	struct vhdx_space *space = vhdx->space;

	if (space == NULL)
		return;
	while (space->freed != NULL) {
		struct vhdx_space_freed *freed = space->freed;

		space->freed = freed->next;
		free(freed);
	}
	free(space->used);
	free(space->scan_buffer);
	free(space);
	vhdx->space = NULL;
}
