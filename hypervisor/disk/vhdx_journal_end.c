/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The end of a session: everything home, the log empty, the file no longer than it must be.
 *
 * Loop, but for vhdx_journal_end() itself, which blocks.  Order: commit; homes; flush; header with
 * LogGuid zero; flush; cut.  The file is cut only after the header that ends the log is
 * durable, so no entry that could be replayed tells of a larger file.  A session that changed
 * nothing writes nothing.
 */
#include <errno.h>

#include "hypervisor/disk/vhdx_journal_priv.h"

/* Nothing may be in flight when the journal is freed: homes, the scan, a task. */
void vhdx_end_quiet(struct vhdx_journal *journal, int result)
{
	(void)result; /* of the homes: the end's own result is known already */
	journal->end_parked = journal->kick_posted;
	if (journal->end_parked)
		return;
	if (vhdx_scan_halt(journal->vhdx->space, &journal->end_waiter) == -EINPROGRESS)
		return;
	journal->ended = true;
	base_io_timer_disarm(journal->vhdx->image.loop, &journal->timer);
	base_io_done(journal->vhdx->image.loop, &journal->end_done);
}

static void scan_halted(struct vhdx_waiter *waiter, int result)
{
	vhdx_end_quiet(waiter->context, result);
}

static void end_over(struct vhdx_journal *journal, int result)
{
	journal->end_result = result;
	journal->end_waiter.run = scan_halted;
	journal->end_waiter.context = journal;
	journal->homes_wanted = false;
	if (journal->homes_in_flight > 0)
		journal->homes_next = vhdx_end_quiet;
	else
		vhdx_end_quiet(journal, 0);
}

static void cut_over(struct store_request *request, int result)
{
	struct vhdx_journal *journal = request->context;

	if (result == 0)
		journal->vhdx->file_bytes = journal->cut_bytes;
	end_over(journal, result);
}

static void end_header_durable(struct vhdx_journal *journal, int result)
{
	struct vhdx *vhdx = journal->vhdx;

	journal->cut_bytes = vhdx_space_cut_bytes(vhdx);
	if (result < 0 || journal->cut_bytes >= vhdx->file_bytes) {
		end_over(journal, result);
		return;
	}
	journal->cut = (struct store_request){
		.op = STORE_TRUNCATE,
		.epoch = store_epoch(vhdx->image.file),
		.offset_bytes = journal->cut_bytes,
		.done = cut_over,
		.context = journal,
	};
	store_submit(vhdx->image.file, &journal->cut);
}

static void end_header(struct vhdx_journal *journal, int result)
{
	if (result < 0) {
		end_over(journal, result);
		return;
	}
	journal->new_header = journal->vhdx->header;
	journal->new_header.sequence++;
	journal->new_header.log = (struct disk_guid){ .bytes = { 0 } };
	vhdx_header_update(journal, end_header_durable);
}

static void end_homes_written(struct vhdx_journal *journal, int result)
{
	if (result == 0 && journal->homed_count > 0)
		vhdx_log_flush(journal, end_header);
	else
		end_header(journal, result);
}

void vhdx_end_begin(struct vhdx_journal *journal)
{
	journal->busy = true;
	journal->end_wanted = false;
	if (journal->vhdx->image.failed)
		end_over(journal, -EIO);
	else if (journal->end_result < 0) /* the commit failed: the log stays, for a replay */
		end_over(journal, journal->end_result);
	else if (!journal->touched)
		end_over(journal, 0);
	else
		vhdx_homes_start(journal, end_homes_written);
}

static void end_committed(struct vhdx_waiter *waiter, int result)
{
	struct vhdx_journal *journal = waiter->context;

	journal->end_result = result;
	journal->end_wanted = true;
	vhdx_journal_kick(journal);
}

static void end_start(void *context)
{
	struct vhdx_journal *journal = context;

	journal->end_waiter.run = end_committed;
	journal->end_waiter.context = journal;
	vhdx_commit(journal->vhdx, &journal->end_waiter);
}

int vhdx_journal_end(struct vhdx *vhdx, struct base_error *err)
{
	struct vhdx_journal *journal = vhdx->journal;

	base_io_call(vhdx->image.loop, end_start, journal);
	base_io_wait(vhdx->image.loop, &journal->end_done);
	if (journal->end_result == 0)
		return 0;
	if (vhdx->image.failed)
		return base_fail(err, journal->end_result, "%s", vhdx->image.failed_why);
	return base_fail_errno(err, journal->end_result, "%s: closing the log",
			       store_name(vhdx->image.file));
}
