/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The log of an active VHDX image: where entries lie, writing one, flushing, and what each
 * entry is still needed for.
 *
 * Loop only.  The list of live entries begins at the tail that the newest durable entry names,
 * and ends with that entry: a crash now would replay exactly these, so nothing is written over
 * them.  A page content counts as needed at its entry until it is durable at home or a newer
 * durable entry holds the page anew.
 *
 * Source: MS-VHDX section 2.3.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "hypervisor/disk/vhdx_journal_priv.h"

/* One sector stays free for an empty entry that moves the tail when all else is full. */
#define RESERVE_BYTES VHDX_LOG_SECTOR_BYTES

bool vhdx_log_fits(const struct vhdx_journal *journal, uint32_t page_count)
{
	uint32_t free_bytes = journal->log_bytes - journal->live_bytes;

	/* Far more pages than sectors: also keeps the sum below from wrapping around. */
	if (page_count > journal->log_bytes / VHDX_LOG_SECTOR_BYTES)
		return false;
	return free_bytes >= RESERVE_BYTES &&
	       vhdx_log_entry_bytes(page_count) <= free_bytes - RESERVE_BYTES;
}

int vhdx_log_prepare(struct vhdx_journal *journal, uint32_t page_count)
{
	size_t bytes = vhdx_log_entry_bytes(page_count);
	struct vhdx_log_live *entry;
	struct vhdx_page **pages = NULL;

	if (journal->buffer_bytes < bytes) {
		uint8_t *buffer = aligned_alloc(VHDX_LOG_SECTOR_BYTES, bytes);

		if (buffer == NULL)
			return -ENOMEM;
		free(journal->buffer);
		journal->buffer = buffer;
		journal->buffer_bytes = bytes;
	}
	entry = calloc(1, sizeof(*entry) + page_count * sizeof(entry->offsets[0]));
	if (entry == NULL)
		return -ENOMEM;
	if (page_count > 0) {
		pages = calloc(page_count, sizeof(struct vhdx_page *));
		if (pages == NULL) {
			free(entry);
			return -ENOMEM;
		}
	}
	entry->length_bytes = (uint32_t)bytes;
	journal->entry = entry;
	journal->entry_pages = pages;
	return 0;
}

/*
 * The oldest entry that a replay which ends with the new one has to begin at.  What only pages
 * need that the new entry holds anew is not needed any more once the new one is valid.
 */
static const struct vhdx_log_live *tail_for_entry(struct vhdx_journal *journal)
{
	struct vhdx_log_live *entry = journal->entry;
	struct vhdx_log_live *tail = NULL;

	for (uint32_t i = 0; i < entry->page_count; i++) {
		if (journal->entry_pages[i]->logged != NULL)
			journal->entry_pages[i]->logged_in->superseded++;
	}
	for (struct vhdx_log_live *live = journal->live_oldest; live != NULL; live = live->next) {
		if (tail == NULL && live->needed > live->superseded)
			tail = live;
		live->superseded = 0;
	}
	return tail != NULL ? tail : entry;
}

static int entry_encode(struct vhdx_journal *journal)
{
	struct vhdx_log_live *entry = journal->entry;
	const struct vhdx_log_live *tail;
	struct vhdx_log_entry header = { .log = journal->log };
	struct vhdx_log_page *pages = NULL;

	if (entry->page_count > 0) {
		pages = calloc(entry->page_count, sizeof(*pages));
		if (pages == NULL)
			return -ENOMEM;
	}
	entry->sequence = journal->next_sequence;
	entry->at_bytes = journal->head_bytes;
	tail = tail_for_entry(journal);
	journal->entry_tail_sequence = tail->sequence;
	header.sequence = entry->sequence;
	header.tail_bytes = tail->at_bytes;
	header.flushed_file_bytes = vhdx_space_flushed_bytes(journal->vhdx);
	header.last_file_bytes = vhdx_space_last_bytes(journal->vhdx);
	for (uint32_t i = 0; pages != NULL && i < entry->page_count; i++) {
		pages[i].file_offset = journal->entry_pages[i]->offset_bytes;
		pages[i].data = journal->entry_pages[i]->snapshot;
	}
	vhdx_log_entry_encode(&header, pages, entry->page_count, journal->buffer);
	free(pages);
	return 0;
}

static void entry_written(struct store_request *request, int result)
{
	struct vhdx_journal *journal = request->context;

	if (result < 0 && journal->write_result == 0)
		journal->write_result = vhdx_journal_outcome(journal->vhdx, result, "the log");
	if (--journal->writes_pending == 0)
		journal->write_next(journal, journal->write_result);
}

/* One piece of the buffer; an entry that reaches the log's end goes on at its beginning. */
static void entry_piece(struct vhdx_journal *journal, uint32_t index, uint32_t skip_bytes,
			uint32_t length_bytes, uint32_t at_bytes)
{
	struct vhdx *vhdx = journal->vhdx;

	journal->write_iov[index] = (struct iovec){
		.iov_base = journal->buffer + skip_bytes,
		.iov_len = length_bytes,
	};
	journal->write[index] = (struct store_request){
		.op = STORE_WRITE,
		.epoch = store_epoch(vhdx->image.file),
		.offset_bytes = vhdx->header.log_offset + at_bytes,
		.length_bytes = length_bytes,
		.iov = &journal->write_iov[index],
		.iov_count = 1,
		.done = entry_written,
		.context = journal,
	};
}

/*
 * A write that failed may have landed all the same, whole or torn, and the next try writes over
 * it, at the same place with the same sequence number.  That is safe at every instant: whole,
 * it describes a state that was consistent and whose data is durable, and says no more than
 * changes which nobody was promised; torn (the first time or while it is written over),
 * it is invalid, and the entry before it is the newest, whose tail still stands.
 */
void vhdx_log_write(struct vhdx_journal *journal, vhdx_journal_step next)
{
	uint32_t length = journal->entry->length_bytes;
	uint32_t first = journal->log_bytes - journal->head_bytes;
	int code = entry_encode(journal);

	if (code < 0) {
		next(journal, code);
		return;
	}
	if (first > length)
		first = length;
	journal->write_next = next;
	journal->write_result = 0;
	journal->writes_pending = first < length ? 2 : 1;
	entry_piece(journal, 0, 0, first, journal->head_bytes);
	if (first < length)
		entry_piece(journal, 1, first, length - first, 0);
	store_submit(journal->vhdx->image.file, &journal->write[0]);
	if (first < length)
		store_submit(journal->vhdx->image.file, &journal->write[1]);
}

static void page_adopt(struct vhdx_journal *journal, struct vhdx_page *page)
{
	struct vhdx_log_live *entry = journal->entry;

	if (page->logged != NULL) {
		page->logged_in->needed--;
		page->logged_in->unhomed--;
		vhdx_buffer_give(journal->vhdx->pages, page->logged);
	}
	page->logged = page->snapshot;
	page->snapshot = NULL;
	page->logged_in = entry;
	page->logged_sequence = entry->sequence;
	entry->needed++;
	entry->unhomed++;
}

void vhdx_log_adopt(struct vhdx_journal *journal)
{
	struct vhdx_log_live *entry = journal->entry;

	for (uint32_t i = 0; i < entry->page_count; i++)
		page_adopt(journal, journal->entry_pages[i]);
	free(journal->entry_pages);
	journal->entry_pages = NULL;
	journal->entry = NULL;
	if (journal->live_newest != NULL)
		journal->live_newest->next = entry;
	else
		journal->live_oldest = entry;
	journal->live_newest = entry;
	journal->live_bytes += entry->length_bytes;
	journal->head_bytes = (entry->at_bytes + entry->length_bytes) % journal->log_bytes;
	journal->next_sequence++;
	while (journal->live_oldest->sequence < journal->entry_tail_sequence) {
		struct vhdx_log_live *old = journal->live_oldest;

		base_assert(old->needed == 0);
		journal->live_oldest = old->next;
		journal->live_bytes -= old->length_bytes;
		free(old);
	}
}

void vhdx_log_abandon(struct vhdx_journal *journal)
{
	struct vhdx_log_live *entry = journal->entry;

	if (entry == NULL)
		return;
	journal->entry = NULL;
	for (uint32_t i = 0; i < entry->page_count; i++) {
		struct vhdx_page *page = journal->entry_pages[i];

		vhdx_buffer_give(journal->vhdx->pages, page->snapshot);
		page->snapshot = NULL;
		vhdx_page_dirty(page, page->snapshot_ordered);
	}
	free(journal->entry_pages);
	journal->entry_pages = NULL;
	free(entry);
}

static void flushed(struct store_request *request, int result)
{
	struct vhdx_journal *journal = request->context;
	struct vhdx *vhdx = journal->vhdx;

	if (result < 0) {
		/* What had completed may be lost, and a second flush would not tell. */
		image_fail(&vhdx->image, "%s: a flush failed: error %d",
			   store_name(vhdx->image.file), -result);
		journal->flush_next(journal, -EIO);
		return;
	}
	vhdx_space_flush_end(vhdx);
	vhdx_homes_flush_end(journal);
	journal->flush_next(journal, 0);
}

void vhdx_log_flush(struct vhdx_journal *journal, vhdx_journal_step next)
{
	struct vhdx *vhdx = journal->vhdx;

	journal->flush_next = next;
	vhdx_space_flush_begin(vhdx);
	vhdx_homes_flush_begin(journal);
	journal->flush = (struct store_request){
		.op = STORE_FLUSH,
		.epoch = store_epoch(vhdx->image.file),
		.done = flushed,
		.context = journal,
	};
	store_submit(vhdx->image.file, &journal->flush);
}

static bool holds_any(const struct vhdx_log_live *live, uint64_t offset_bytes,
		      uint64_t length_bytes)
{
	for (uint32_t i = 0; i < live->page_count; i++) {
		if (live->offsets[i] >= offset_bytes &&
		    live->offsets[i] - offset_bytes < length_bytes)
			return true;
	}
	return false;
}

uint64_t vhdx_log_newest_over(const struct vhdx *vhdx, uint64_t offset_bytes, uint64_t length_bytes)
{
	const struct vhdx_log_live *live =
		vhdx->journal != NULL ? vhdx->journal->live_oldest : NULL;
	uint64_t newest = 0;

	for (; live != NULL; live = live->next) {
		if (holds_any(live, offset_bytes, length_bytes))
			newest = live->sequence;
	}
	if (vhdx->journal != NULL && vhdx->journal->entry != NULL &&
	    holds_any(vhdx->journal->entry, offset_bytes, length_bytes))
		newest = vhdx->journal->next_sequence; /* that it has, or gets */
	return newest;
}

uint64_t vhdx_log_oldest(const struct vhdx *vhdx)
{
	if (vhdx->journal == NULL || vhdx->journal->live_oldest == NULL)
		return UINT64_MAX;
	return vhdx->journal->live_oldest->sequence;
}

void vhdx_log_free(struct vhdx_journal *journal)
{
	while (journal->live_oldest != NULL) {
		struct vhdx_log_live *old = journal->live_oldest;

		journal->live_oldest = old->next;
		free(old);
	}
	journal->live_newest = NULL;
	free(journal->entry);
	free(journal->entry_pages);
	free(journal->buffer);
}
