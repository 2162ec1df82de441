/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Writing home what the log holds, so that its tail can move.
 *
 * Loop only.  Only the content of a durable entry goes home (W1).  A page that the commit under
 * way holds is left out: its entry will hold it anew.  At most one write per page is in flight,
 * so two never overtake each other.
 */
#include <errno.h>

#include "hypervisor/disk/vhdx_journal_priv.h"

static void homes_go_on(struct vhdx_journal *journal);

static void home_over(struct store_request *request, int result)
{
	struct vhdx_page *page = request->context;
	struct vhdx_journal *journal = page->vhdx->journal;
	struct vhdx_log_live *entry = page->homing_in;
	uint8_t *content = page->homing;

	page->homing = NULL;
	page->homing_in = NULL;
	journal->homes_in_flight--;
	if (result == 0) {
		entry->homed++;
		journal->homed_count++;
		vhdx_buffer_give(page->vhdx->pages, content);
	} else {
		journal->homes_result = vhdx_journal_outcome(page->vhdx, result, "a table");
		if (page->logged == NULL) {
			page->logged = content;
			page->logged_in = entry;
			page->logged_sequence = entry->sequence;
			entry->unhomed++;
		} else {
			entry->needed--; /* a newer durable entry holds the page */
			vhdx_buffer_give(page->vhdx->pages, content);
		}
	}
	vhdx_page_settle(page);
	homes_go_on(journal);
}

static void home_write(struct vhdx_journal *journal, struct vhdx_page *page)
{
	struct vhdx *vhdx = journal->vhdx;

	page->homing = page->logged;
	page->homing_in = page->logged_in;
	page->logged = NULL;
	page->logged_in = NULL;
	page->homing_in->unhomed--;
	journal->homes_in_flight++;
	page->iov = (struct iovec){ .iov_base = page->homing, .iov_len = VHDX_PAGE_BYTES };
	page->request = (struct store_request){
		.op = STORE_WRITE,
		.epoch = store_epoch(vhdx->image.file),
		.offset_bytes = page->offset_bytes,
		.length_bytes = VHDX_PAGE_BYTES,
		.iov = &page->iov,
		.iov_count = 1,
		.done = home_over,
		.context = page,
	};
	store_submit(vhdx->image.file, &page->request);
}

/* Begin what there is room for, oldest entry first. */
static void homes_begin(struct vhdx_journal *journal)
{
	struct vhdx_log_live *live = journal->live_oldest;

	for (; live != NULL; live = live->next) {
		if (live->unhomed == 0)
			continue;
		for (uint32_t i = 0; i < live->page_count; i++) {
			struct vhdx_page *page = vhdx_page_peek(journal->vhdx, live->offsets[i]);

			if (journal->homes_in_flight >= VHDX_HOMES_MAX)
				return;
			if (page != NULL && page->logged != NULL && page->logged_in == live &&
			    page->snapshot == NULL && page->homing == NULL)
				home_write(journal, page);
		}
	}
}

static void homes_go_on(struct vhdx_journal *journal)
{
	vhdx_journal_step next = journal->homes_next;

	if (journal->homes_wanted && journal->homes_result == 0 && !journal->vhdx->image.failed)
		homes_begin(journal);
	if (journal->homes_in_flight > 0)
		return;
	journal->homes_wanted = false;
	journal->homes_next = NULL;
	if (next != NULL)
		next(journal, journal->homes_result);
}

void vhdx_homes_start(struct vhdx_journal *journal, vhdx_journal_step next)
{
	if (next != NULL)
		journal->homes_next = next;
	journal->homes_wanted = true;
	journal->homes_result = 0;
	homes_go_on(journal);
}

void vhdx_homes_flush_begin(struct vhdx_journal *journal)
{
	if (journal->homed_count == 0)
		return;
	for (struct vhdx_log_live *live = journal->live_oldest; live != NULL; live = live->next) {
		live->flushing += live->homed;
		live->homed = 0;
	}
	journal->flushing_count = journal->homed_count;
	journal->homed_count = 0;
}

void vhdx_homes_flush_end(struct vhdx_journal *journal)
{
	if (journal->flushing_count == 0)
		return;
	for (struct vhdx_log_live *live = journal->live_oldest; live != NULL; live = live->next) {
		live->needed -= live->flushing;
		live->flushing = 0;
	}
	journal->flushing_count = 0;
}
