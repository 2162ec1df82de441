/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Cutting the end of a VHDX file that is in use.
 *
 * A log entry says how long the file was when it was written, and a file that is shorter is
 * refused as truncated.  So the session is ended as at a clean close (everything home, log empty,
 * file cut) and begun again at the same epoch, while requests are held: some flushes long.  The
 * first change of the new session is preceded by a durable header (W5), and so by a flush
 * that makes the cut durable before the file can grow again.
 *
 * Source: [MS-VHDX] v4.0 section 2.3.1.1 (FlushedFileOffset, LastFileOffset).
 */
#include <errno.h>

#include "hypervisor/disk/vhdx_compact_priv.h"
#include "hypervisor/disk/vhdx_journal_priv.h"

#define SETTLE_ROUNDS 4U /* three do without a guest; with one, what is left is left */

/* Any page that is written again makes the next commit an entry. */
static int try_dirty(struct vhdx_compact *compact)
{
	struct vhdx_page *page = NULL;
	int code = vhdx_bat_page(compact->vhdx, 0, &compact->waiter, &page);

	if (code < 0)
		return code;
	vhdx_page_dirty(page, false);
	vhdx_page_put(page);
	return 0;
}

/* 1: what was released waits for the log to be rid of it. */
static int try_homes(struct vhdx_compact *compact)
{
	struct vhdx *vhdx = compact->vhdx;
	struct vhdx_journal *journal = vhdx->journal;

	if (vhdx->space->freed == NULL)
		return 0;
	if (!journal->busy && journal->homes_in_flight == 0 && !vhdx->image.failed)
		vhdx_homes_start(journal, NULL);
	return 1;
}

int vhdx_compact_settle(struct vhdx_compact *compact)
{
	int rc = vhdx_compact_commit(compact);

	/* Home, then a flush that covers that, then an entry that moves the tail. */
	for (uint32_t round = 0; rc == 0 && round < SETTLE_ROUNDS; round++) {
		rc = vhdx_compact_do(compact, try_homes);
		if (rc <= 0)
			return rc;
		rc = vhdx_compact_do(compact, try_dirty);
		if (rc == 0)
			rc = vhdx_compact_commit(compact);
	}
	return rc;
}

/* 1: there is something to cut. */
static int try_look(struct vhdx_compact *compact)
{
	const struct vhdx *vhdx = compact->vhdx;

	return vhdx_space_known(vhdx) && vhdx_space_cut_bytes(vhdx) < vhdx->file_bytes ? 1 : 0;
}

/* The session did not end.  Before its last header nothing has changed and it goes on; from
 * there on the medium may say that the log is empty, so nothing may be logged any more. */
static int try_go_on(struct vhdx_compact *compact)
{
	struct vhdx *vhdx = compact->vhdx;
	struct vhdx_journal *journal = vhdx->journal;

	if (disk_guid_is_zero(&journal->new_header.log))
		image_fail(&vhdx->image, "%s: compacting: the log was closed, and no other begun",
			   store_name(vhdx->image.file));
	journal->ended = false;
	journal->end_done = false;
	vhdx_journal_idle(journal);
	if (vhdx->pages->dirty_count > 0)
		vhdx_journal_dirtied(vhdx); /* its timer was stopped */
	return 0;
}

/* The ended session's parts stay until the new one's are there. */
static int try_renew(struct vhdx_compact *compact)
{
	struct vhdx *vhdx = compact->vhdx;
	struct vhdx_space *space = vhdx->space;
	struct vhdx_journal *journal = vhdx->journal;
	struct vhdx_space *new_space = NULL;
	struct vhdx_journal *new_journal = NULL;
	int rc = 0;

	vhdx->space = NULL;
	vhdx->journal = NULL;
	rc = vhdx_space_new(vhdx, NULL);
	if (rc == 0)
		rc = vhdx_journal_begin(vhdx, NULL);
	if (rc < 0)
		vhdx_space_free_all(vhdx);
	new_space = vhdx->space;
	new_journal = vhdx->journal;
	vhdx->space = space;
	vhdx->journal = journal;
	if (rc < 0)
		return rc;
	vhdx_journal_free(vhdx);
	vhdx_space_free_all(vhdx);
	vhdx->space = new_space;
	vhdx->journal = new_journal;
	vhdx->blocks->touched = false; /* flushed, all of it */
	return 0;
}

/* Requests are held. */
static int session_renew(struct vhdx_compact *compact, struct base_error *err)
{
	int rc = vhdx_journal_end(compact->vhdx, err);

	if (rc == 0)
		rc = vhdx_compact_do(compact, try_renew);
	if (rc < 0)
		(void)vhdx_compact_do(compact, try_go_on);
	return rc;
}

int vhdx_compact_cut(struct vhdx_compact *compact, struct base_error *err)
{
	int rc = vhdx_compact_settle(compact); /* what can fail harmlessly fails here */

	if (rc == 0)
		rc = vhdx_compact_do(compact, try_look);
	if (rc <= 0)
		return rc;
	rc = vhdx_compact_do(compact, vhdx_compact_hold);
	if (rc < 0)
		return rc;
	rc = session_renew(compact, err);
	(void)vhdx_compact_do(compact, vhdx_compact_unhold);
	return rc;
}
