/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The journal of an active VHDX image: one operation at a time, and the commit.
 *
 * Loop only, but for begin and free.  A commit takes every dirty page in one task of the loop:
 *
 *   room      while the entry does not fit: all homes, flush, an empty entry that moves the
 *             tail, flush
 *   snapshot  copies of all dirty pages; guests go on changing them
 *   data      flush, when a page of it is ordered (W2)
 *   entry     written to the log
 *   flush     the entry is durable, with every write that completed before (W4)
 *   done      waiters run, space is told, homes begin when the log is half full
 *
 * A write that fails costs nothing: the pages are dirty again and the next commit takes them.  A
 * flush that fails ends all writing to the image.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "hypervisor/disk/vhdx_journal_priv.h"

static void commit_room(struct vhdx_journal *journal);

int vhdx_journal_outcome(struct vhdx *vhdx, int result, const char *what)
{
	/* A write that may land later would land on what is written there next. */
	if (result == -ETIMEDOUT)
		image_fail(&vhdx->image, "%s: a write to %s may still land: outcome unknown",
			   store_name(vhdx->image.file), what);
	return result;
}

/* --- one operation at a time --- */

static void kicked(struct base_io_task *task)
{
	struct vhdx_journal *journal =
		(struct vhdx_journal *)((char *)task - offsetof(struct vhdx_journal, kick));

	journal->kick_posted = false;
	if (journal->end_parked)
		vhdx_end_quiet(journal, 0);
	if (journal->busy || journal->ended)
		return;
	if (journal->touch_wanted)
		vhdx_touch_begin(journal);
	else if (journal->commit_wanted) {
		journal->busy = true;
		journal->commit_wanted = false;
		journal->commit_running = journal->commit_waiters;
		journal->commit_waiters = NULL;
		journal->reclaimed = false;
		commit_room(journal);
	} else if (journal->end_wanted)
		vhdx_end_begin(journal);
}

void vhdx_journal_kick(struct vhdx_journal *journal)
{
	if (journal->kick_posted || journal->busy || journal->ended)
		return;
	journal->kick_posted = true;
	base_io_post(journal->vhdx->image.loop, &journal->kick);
}

void vhdx_journal_idle(struct vhdx_journal *journal)
{
	journal->busy = false;
	if (journal->touch_wanted || journal->commit_wanted || journal->end_wanted)
		vhdx_journal_kick(journal);
}

/* --- the timer --- */

static void timer_arm(struct vhdx_journal *journal)
{
	struct base_io_loop *loop = journal->vhdx->image.loop;

	if (!journal->timer.armed && !journal->ended && !journal->vhdx->image.failed)
		base_io_timer_arm(loop, &journal->timer,
				  base_io_loop_now_ns(loop) + VHDX_COMMIT_NS);
}

static void timer_expired(struct base_io_timer *timer)
{
	struct vhdx_journal *journal =
		(struct vhdx_journal *)((char *)timer - offsetof(struct vhdx_journal, timer));

	journal->commit_wanted = true;
	vhdx_journal_kick(journal);
}

void vhdx_journal_dirtied(struct vhdx *vhdx)
{
	struct vhdx_journal *journal = vhdx->journal;

	timer_arm(journal);
	/* Begin before requests have to wait. */
	if (vhdx->pages->dirty_count >= journal->crowd_pages / 2 && !journal->busy &&
	    !vhdx->image.failed) {
		journal->commit_wanted = true;
		vhdx_journal_kick(journal);
	}
}

/* --- the commit --- */

static void commit_over(struct vhdx_journal *journal, int result)
{
	struct vhdx *vhdx = journal->vhdx;
	struct vhdx_waiter *waiters = journal->commit_running;

	journal->commit_running = NULL;
	if (result == 0) {
		journal->commit_durable = journal->commit_number;
		vhdx_space_committed(vhdx, journal->commit_number);
		if (vhdx->pages->dirty_count == 0)
			base_io_timer_disarm(vhdx->image.loop, &journal->timer);
		if (journal->live_bytes > journal->log_bytes / 2)
			vhdx_homes_start(journal, NULL);
	} else {
		vhdx_log_abandon(journal);
		if (vhdx->pages->dirty_count > 0)
			timer_arm(journal);
	}
	vhdx_journal_idle(journal);
	vhdx_waiters_run(&waiters, result);
}

static void commit_durable(struct vhdx_journal *journal, int result)
{
	if (result == 0 && journal->entry != NULL)
		vhdx_log_adopt(journal);
	commit_over(journal, result);
}

static void commit_written(struct vhdx_journal *journal, int result)
{
	if (result < 0) {
		commit_over(journal, result);
		return;
	}
#ifdef GODWIT_MUTANT_VHDX_LOG_LATE
	vhdx_log_adopt(journal);
	vhdx_homes_start(journal, NULL);
#endif
	vhdx_log_flush(journal, commit_durable);
}

static void commit_data_durable(struct vhdx_journal *journal, int result)
{
	if (result < 0)
		commit_over(journal, result);
	else
		vhdx_log_write(journal, commit_written);
}

/* Copies of the dirty pages, all or none. */
static int commit_snapshot(struct vhdx_journal *journal)
{
	struct vhdx *vhdx = journal->vhdx;
	uint32_t count = vhdx->pages->dirty_count;
	int code = vhdx_log_prepare(journal, count);
	struct vhdx_page *next;

	if (code < 0)
		return code;
	journal->entry->page_count = count;
	next = vhdx_pages_take_dirty(vhdx, &count, &journal->ordered);
	for (uint32_t i = 0; i < count; i++) {
		struct vhdx_page *page = next;

		next = page->dirty_next;
		journal->entry_pages[i] = page;
		journal->entry->offsets[i] = page->offset_bytes;
		page->snapshot = vhdx_buffer_take(vhdx->pages);
		if (page->snapshot == NULL)
			code = -ENOMEM; /* commit_over() makes them all dirty again */
		else
			memcpy(page->snapshot, page->data, VHDX_PAGE_BYTES);
	}
	return code;
}

static void commit_begin(struct vhdx_journal *journal)
{
	int code = 0;

	journal->commit_number = journal->commit_next++;
	if (journal->vhdx->pages->dirty_count == 0) {
		vhdx_log_flush(journal, commit_durable);
		return;
	}
	base_assert(journal->touched); /* W5 */
	code = commit_snapshot(journal);
#ifdef GODWIT_MUTANT_VHDX_FLUSH
	journal->ordered = false;
#endif
	if (code < 0)
		commit_over(journal, code);
	else if (journal->ordered)
		vhdx_log_flush(journal, commit_data_durable);
	else
		vhdx_log_write(journal, commit_written);
}

/* --- room in the log --- */

static void room_durable(struct vhdx_journal *journal, int result)
{
	if (result < 0) {
		commit_over(journal, result);
		return;
	}
	vhdx_log_adopt(journal);
	vhdx_space_settle(journal->vhdx);
	commit_room(journal);
}

static void room_written(struct vhdx_journal *journal, int result)
{
	if (result < 0)
		commit_over(journal, result);
	else
		vhdx_log_flush(journal, room_durable);
}

static void room_homes_durable(struct vhdx_journal *journal, int result)
{
	if (result == 0)
		result = vhdx_log_prepare(journal, 0);
	if (result < 0)
		commit_over(journal, result);
	else
		vhdx_log_write(journal, room_written);
}

static void room_homes_written(struct vhdx_journal *journal, int result)
{
	if (result < 0)
		commit_over(journal, result);
	else
		vhdx_log_flush(journal, room_homes_durable);
}

static void commit_room(struct vhdx_journal *journal)
{
	struct vhdx *vhdx = journal->vhdx;

	if (vhdx->image.failed) {
		commit_over(journal, -EIO);
	} else if (vhdx->pages->dirty_count == 0 ||
		   vhdx_log_fits(journal, vhdx->pages->dirty_count)) {
		commit_begin(journal);
	} else if (!journal->reclaimed) {
		journal->reclaimed = true;
		vhdx_homes_start(journal, room_homes_written);
	} else {
		/* Two entries would let a crash see one half of a change. */
		image_fail(&vhdx->image, "%s: %u changed pages do not fit into a log of %u bytes",
			   store_name(vhdx->image.file), vhdx->pages->dirty_count,
			   journal->log_bytes);
		commit_over(journal, -EIO);
	}
}

/* --- what others ask --- */

void vhdx_commit(struct vhdx *vhdx, struct vhdx_waiter *waiter)
{
	struct vhdx_journal *journal = vhdx->journal;

	vhdx_waiters_add(&journal->commit_waiters, waiter);
	journal->commit_wanted = true;
	vhdx_journal_kick(journal);
}

bool vhdx_commit_crowded(struct vhdx *vhdx, struct vhdx_waiter *waiter)
{
	if (vhdx->pages->dirty_count < vhdx->journal->crowd_pages)
		return false;
	vhdx_commit(vhdx, waiter);
	return true;
}

bool vhdx_commit_pending(const struct vhdx *vhdx)
{
	return vhdx->pages->dirty_count > 0 || vhdx->journal->entry != NULL;
}

uint64_t vhdx_commit_next(const struct vhdx *vhdx)
{
	return vhdx->journal->commit_next;
}

uint64_t vhdx_commit_durable(const struct vhdx *vhdx)
{
	return vhdx->journal->commit_durable;
}

void vhdx_journal_forget(struct vhdx_page *page)
{
	page->logged_in->needed--;
	page->logged_in->unhomed--;
}

/* --- begin and free --- */

/* Pages that an entry of a quarter of the log takes. */
static uint32_t crowd_pages_of(uint32_t log_bytes)
{
	uint32_t sectors = log_bytes / 4 / VHDX_LOG_SECTOR_BYTES;
	uint32_t pages = sectors - 1;

	while (pages > 1 && vhdx_log_entry_bytes(pages) > sectors * VHDX_LOG_SECTOR_BYTES)
		pages--;
	return pages;
}

int vhdx_journal_begin(struct vhdx *vhdx, struct base_error *err)
{
	struct vhdx_journal *journal;

	if (vhdx->header.log_bytes < VHDX_MIB || vhdx->header.log_bytes % VHDX_MIB != 0 ||
	    vhdx->header.log_bytes > VHDX_LOG_BYTES_MAX)
		return base_fail(err, -EBADMSG, "log: length %u, want whole MiB up to %u",
				 vhdx->header.log_bytes, VHDX_LOG_BYTES_MAX);
	journal = calloc(1, sizeof(*journal));
	if (journal == NULL)
		return base_fail(err, -ENOMEM, "journal");
	journal->header_buffer = aligned_alloc(VHDX_HEADER_BYTES, VHDX_HEADER_BYTES);
	if (journal->header_buffer == NULL) {
		free(journal);
		return base_fail(err, -ENOMEM, "journal");
	}
	journal->vhdx = vhdx;
	journal->kick.run = kicked;
	journal->timer.expired = timer_expired;
	journal->log = disk_guid_new();
	journal->log_bytes = vhdx->header.log_bytes;
	/* Above zero, and above what the sessions before used, for whoever looks at a log without
	 * its header; nothing depends on it, as the LogGuid is new. */
	journal->next_sequence =
		vhdx->header.sequence < UINT64_MAX / 2 ? vhdx->header.sequence + 1 : 1;
	journal->crowd_pages = crowd_pages_of(journal->log_bytes);
	journal->commit_next = 1;
	vhdx->journal = journal;
	return 0;
}

void vhdx_journal_free(struct vhdx *vhdx)
{
	struct vhdx_journal *journal = vhdx->journal;

	if (journal == NULL)
		return;
	base_io_timer_disarm(vhdx->image.loop, &journal->timer);
	vhdx_log_free(journal);
	free(journal->header_buffer);
	free(journal);
	vhdx->journal = NULL;
}
