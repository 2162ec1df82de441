/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Header updates: the first change of a session, the first change of content, and an id that
 * somebody sets.
 *
 * Loop only.  Order of the first one (W5): an empty entry under a new LogGuid; flush; the header
 * that names the LogGuid, in the slot that is not current; flush.  A crash before the header
 * is there leaves the old one, which says that the log is empty; a header that is there finds
 * a valid sequence.  The entry is therefore written once per session and never again, also when
 * writing the header fails and is tried again: the failed one may have landed.
 *
 * Source: MS-VHDX sections 2.2.2 and 2.3.
 */
#include <errno.h>

#include "hypervisor/disk/vhdx_journal_priv.h"

/* --- writing a header --- */

static void header_durable(struct vhdx_journal *journal, int result)
{
	struct vhdx *vhdx = journal->vhdx;

	if (result == 0) {
		vhdx->header = journal->new_header;
		vhdx->header_slot = vhdx->header_slot == 0 ? 1 : 0;
		vhdx->image.data_id = vhdx->header.data_write;
	}
	journal->header_next(journal, result);
}

static void header_written(struct store_request *request, int result)
{
	struct vhdx_journal *journal = request->context;

	if (result < 0) {
		journal->header_next(journal,
				     vhdx_journal_outcome(journal->vhdx, result, "the header"));
		return;
	}
	vhdx_log_flush(journal, header_durable);
}

void vhdx_header_update(struct vhdx_journal *journal, vhdx_journal_step next)
{
	struct vhdx *vhdx = journal->vhdx;

	journal->header_next = next;
	vhdx_header_encode(&journal->new_header, journal->header_buffer);
	journal->header_iov = (struct iovec){
		.iov_base = journal->header_buffer,
		.iov_len = VHDX_HEADER_BYTES,
	};
	journal->header_write = (struct store_request){
		.op = STORE_WRITE,
		.epoch = store_epoch(vhdx->image.file),
		.offset_bytes = vhdx->header_slot == 0 ? VHDX_HEADER2_OFFSET : VHDX_HEADER1_OFFSET,
		.length_bytes = VHDX_HEADER_BYTES,
		.iov = &journal->header_iov,
		.iov_count = 1,
		.done = header_written,
		.context = journal,
	};
	store_submit(vhdx->image.file, &journal->header_write);
}

/* --- touching --- */

static void touch_over(struct vhdx_journal *journal, int result)
{
	struct vhdx_waiter *waiters = journal->touch_running;

	if (result == 0) {
		journal->touched = true;
		journal->data_touched = journal->data_touched || journal->new_header_data;
	}
	journal->touch_running = NULL;
	vhdx_journal_idle(journal);
	vhdx_waiters_run(&waiters, result);
}

static void touch_header(struct vhdx_journal *journal)
{
	const struct vhdx_header *old = &journal->vhdx->header;
	struct vhdx_header *header = &journal->new_header;

	*header = *old;
	header->sequence = old->sequence + 1;
	header->log = journal->log;
	if (!journal->touched)
		header->file_write = disk_guid_new();
	if (journal->running_id) {
		header->data_write = journal->id;
		journal->new_header_data = true; /* the next change is not to set another one */
	} else if (journal->running_data && !journal->data_touched) {
		header->data_write = disk_guid_new();
		journal->new_header_data = true;
	}
	vhdx_header_update(journal, touch_over);
}

static void first_entry_durable(struct vhdx_journal *journal, int result)
{
	if (result < 0) {
		vhdx_log_abandon(journal);
		touch_over(journal, result);
		return;
	}
	vhdx_log_adopt(journal);
	journal->log_begun = true;
	touch_header(journal);
}

static void first_entry_written(struct vhdx_journal *journal, int result)
{
	if (result < 0) {
		vhdx_log_abandon(journal);
		touch_over(journal, result);
		return;
	}
	vhdx_log_flush(journal, first_entry_durable);
}

void vhdx_touch_begin(struct vhdx_journal *journal)
{
	struct vhdx *vhdx = journal->vhdx;
	int code = 0;

	journal->busy = true;
	journal->touch_wanted = false;
	journal->touch_running = journal->touch_waiters;
	journal->touch_waiters = NULL;
	journal->running_data = journal->touch_data;
	journal->running_id = journal->id_wanted;
	journal->touch_data = false;
	journal->id_wanted = false;
	journal->new_header_data = false;
	if (journal->touched && !journal->running_id &&
	    (!journal->running_data || journal->data_touched)) {
		touch_over(journal, 0); /* the update before did it */
		return;
	}
	if (vhdx->image.failed)
		code = -EIO;
	else if (vhdx->header.sequence >= UINT64_MAX - 2)
		code = -EBADMSG; /* no header could be newer, at the end of the session */
	else if (!journal->log_begun)
		code = vhdx_log_prepare(journal, 0);
	if (code < 0)
		touch_over(journal, code);
	else if (journal->log_begun)
		touch_header(journal);
	else
		vhdx_log_write(journal, first_entry_written);
}

int vhdx_touch(struct vhdx *vhdx, bool data, struct vhdx_waiter *waiter)
{
	struct vhdx_journal *journal = vhdx->journal;

	if (vhdx->image.failed)
		return -EIO;
	if (journal->touched && (!data || journal->data_touched))
		return 0;
	vhdx_waiters_add(&journal->touch_waiters, waiter);
	journal->touch_wanted = true;
	journal->touch_data = journal->touch_data || data;
	vhdx_journal_kick(journal);
	return -EINPROGRESS;
}

void vhdx_journal_set_data_id(struct vhdx *vhdx, const struct disk_guid *id,
			      struct vhdx_waiter *waiter)
{
	struct vhdx_journal *journal = vhdx->journal;

	vhdx_waiters_add(&journal->touch_waiters, waiter);
	journal->touch_wanted = true;
	journal->id_wanted = true;
	journal->id = *id;
	vhdx_journal_kick(journal);
}
