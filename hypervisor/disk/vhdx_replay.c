/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A dirty log in memory: what its active sequence says the file holds.
 *
 * Entries are applied in order, so of two that write one place the later counts.  That is
 * worked out once, when the log is loaded: what remains are runs of zeros that do not overlap
 * and pages that lie over them, both sorted, each place at most once in each.
 */
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "hypervisor/disk/vhdx_log_scan.h"
#include "hypervisor/disk/vhdx_priv.h"

#define SECTOR      VHDX_LOG_SECTOR_BYTES
#define READ_BYTES  (4U << 20)   /* one read of the log */
#define WRITE_BYTES (256U << 10) /* one write of pages that follow each other */

/* @order: position in the log; a later one wins. */
struct zeros {
	uint64_t offset_bytes;
	uint64_t end_bytes;
	uint64_t order;
};
struct data {
	uint64_t offset_bytes; /* SECTOR bytes from here */
	uint64_t order;
	const uint8_t *bytes; /* in the arena */
};

struct vhdx_overlay {
	uint64_t file_bytes; /* what the file's size becomes */
	struct zeros *zeros;
	size_t zeros_count;
	struct data *pages;
	size_t page_count;
	uint8_t *arena;
};
BASE_DEFINE_FREEP(struct vhdx_overlay, vhdx_overlay_free);

void vhdx_overlay_free(struct vhdx_overlay *overlay)
{
	if (overlay == NULL)
		return;
	free(overlay->zeros);
	free(overlay->pages);
	free(overlay->arena);
	free(overlay);
}

static uint64_t sector_up(uint64_t bytes)
{
	return (bytes + SECTOR - 1) / SECTOR * SECTOR;
}

/* --- loading --- */

static int zeros_by_offset(const void *left, const void *right)
{
	const struct zeros *a = left;
	const struct zeros *b = right;

	return a->offset_bytes < b->offset_bytes ? -1 : a->offset_bytes > b->offset_bytes;
}

static int data_by_offset(const void *left, const void *right)
{
	const struct data *a = left;
	const struct data *b = right;

	if (a->offset_bytes != b->offset_bytes)
		return a->offset_bytes < b->offset_bytes ? -1 : 1;
	return a->order < b->order ? -1 : a->order > b->order;
}

/* A heap of zero runs, the latest at the top: those that began at or before where the sweep is. */
struct heap {
	const struct zeros **items;
	size_t count;
};

static void heap_add(struct heap *heap, const struct zeros *item)
{
	size_t at = heap->count++;

	while (at > 0 && heap->items[(at - 1) / 2]->order < item->order) {
		heap->items[at] = heap->items[(at - 1) / 2];
		at = (at - 1) / 2;
	}
	heap->items[at] = item;
}

static void heap_drop_top(struct heap *heap)
{
	const struct zeros *item = heap->items[--heap->count];
	size_t at = 0;

	for (;;) {
		size_t child = 2 * at + 1;

		if (child >= heap->count)
			break;
		if (child + 1 < heap->count &&
		    heap->items[child + 1]->order > heap->items[child]->order)
			child++;
		if (heap->items[child]->order <= item->order)
			break;
		heap->items[at] = heap->items[child];
		at = child;
	}
	heap->items[at] = item;
}

/*
 * Cut overlapping runs so that each place keeps its latest one.  The sweep goes up the file;
 * each step ends where a run begins or the latest one ends, so there are at most two pieces
 * for each run.  @to has room for that.
 */
static size_t zeros_flatten(const struct zeros *from, size_t count, struct heap *heap,
			    struct zeros *to)
{
	size_t used = 0;
	size_t next = 0;
	uint64_t at = 0;

	while (next < count || heap->count > 0) {
		uint64_t end;

		if (heap->count == 0)
			at = from[next].offset_bytes;
		while (next < count && from[next].offset_bytes <= at)
			heap_add(heap, &from[next++]);
		if (heap->items[0]->end_bytes <= at) {
			heap_drop_top(heap);
			continue;
		}
		end = heap->items[0]->end_bytes;
		if (next < count && from[next].offset_bytes < end)
			end = from[next].offset_bytes;
		to[used++] = (struct zeros){ at, end, heap->items[0]->order };
		at = end;
	}
	return used;
}

static int zeros_settle(struct vhdx_overlay *overlay, struct base_error *err)
{
	BASE_FREE const struct zeros **items = NULL;
	struct heap heap = { 0 };
	struct zeros *flat;

	if (overlay->zeros_count == 0)
		return 0;
	items = calloc(overlay->zeros_count, sizeof(const struct zeros *));
	flat = calloc(2 * overlay->zeros_count, sizeof(*flat));
	if (items == NULL || flat == NULL) {
		free(flat);
		return base_fail(err, -ENOMEM, "VHDX log: %zu zero descriptors",
				 overlay->zeros_count);
	}
	heap.items = items;
	qsort(overlay->zeros, overlay->zeros_count, sizeof(*overlay->zeros), zeros_by_offset);
	overlay->zeros_count = zeros_flatten(overlay->zeros, overlay->zeros_count, &heap, flat);
	free(overlay->zeros);
	overlay->zeros = flat;
	return 0;
}

/* The first zero run that ends behind @offset_bytes; zeros_count when none does. */
static size_t zeros_from(const struct vhdx_overlay *overlay, uint64_t offset_bytes)
{
	size_t low = 0;
	size_t high = overlay->zeros_count;

	while (low < high) {
		size_t middle = low + (high - low) / 2;

		if (overlay->zeros[middle].end_bytes <= offset_bytes)
			low = middle + 1;
		else
			high = middle;
	}
	return low;
}

/* The first page at @offset_bytes or behind it. */
static size_t pages_from(const struct vhdx_overlay *overlay, uint64_t offset_bytes)
{
	size_t low = 0;
	size_t high = overlay->page_count;

	while (low < high) {
		size_t middle = low + (high - low) / 2;

		if (overlay->pages[middle].offset_bytes < offset_bytes)
			low = middle + 1;
		else
			high = middle;
	}
	return low;
}

/* Of each place the latest page, and that only when no later zeros lie over it. */
static void pages_settle(struct vhdx_overlay *overlay)
{
	size_t kept = 0;

	if (overlay->page_count > 1)
		qsort(overlay->pages, overlay->page_count, sizeof(*overlay->pages), data_by_offset);
	for (size_t i = 0; i < overlay->page_count; i++) {
		const struct data *page = &overlay->pages[i];
		size_t zeros = zeros_from(overlay, page->offset_bytes);

		if (i + 1 < overlay->page_count &&
		    overlay->pages[i + 1].offset_bytes == page->offset_bytes)
			continue;
		if (zeros < overlay->zeros_count &&
		    overlay->zeros[zeros].offset_bytes <= page->offset_bytes &&
		    overlay->zeros[zeros].order > page->order)
			continue;
		overlay->pages[kept++] = *page;
	}
	overlay->page_count = kept;
}

/* Filling from the active sequence. */
struct filling {
	struct vhdx_overlay *overlay;
	uint64_t disk_file_bytes; /* of the file as it is */
	uint64_t order;
	size_t zeros_count;
	size_t page_count;
};

static int descriptor_add(struct filling *fill, const uint8_t *bytes,
			  const struct vhdx_log_entry *entry, uint32_t index, uint32_t *data_count,
			  struct base_error *err)
{
	struct vhdx_log_descriptor descriptor = vhdx_log_descriptor_at(bytes, index, data_count);
	struct vhdx_overlay *overlay = fill->overlay;
	uint64_t end = descriptor.file_offset + descriptor.length_bytes;
	uint64_t room = entry->last_file_bytes > fill->disk_file_bytes ? entry->last_file_bytes
								       : fill->disk_file_bytes;

	if (end > sector_up(room))
		return base_fail(err, -EBADMSG,
				 "VHDX log entry %" PRIu64 " descriptor %" PRIu32
				 ": offset 0x%" PRIx64 ", length %" PRIu64
				 " ends past the file's %" PRIu64 " bytes",
				 entry->sequence, index, descriptor.file_offset,
				 descriptor.length_bytes, room);
	fill->order++;
	/* The file was cut later: the last entry says that nothing is behind its end. */
	if (descriptor.file_offset >= overlay->file_bytes)
		return 0;
	if (descriptor.zero) {
		overlay->zeros[fill->zeros_count++] =
			(struct zeros){ descriptor.file_offset,
					end < overlay->file_bytes ? end : overlay->file_bytes,
					fill->order };
		return 0;
	}
	vhdx_log_data_at(bytes, entry, index, descriptor.data_sector,
			 overlay->arena + fill->page_count * SECTOR);
	overlay->pages[fill->page_count] =
		(struct data){ descriptor.file_offset, fill->order,
			       overlay->arena + fill->page_count * SECTOR };
	fill->page_count++;
	return 0;
}

/* How many descriptors of each kind the sequence has. */
static void descriptors_count(struct vhdx_log_scan *scan, size_t *ret_zeros, size_t *ret_pages)
{
	uint32_t slot = scan->tail_slot;

	*ret_zeros = 0;
	*ret_pages = 0;
	for (uint32_t i = 0; i < scan->entry_count; i++) {
		struct vhdx_log_entry entry;
		const uint8_t *bytes = vhdx_log_scan_next(scan, &slot, &entry);
		uint32_t data_count = 0;

		for (uint32_t j = 0; j < entry.descriptor_count; j++)
			(void)vhdx_log_descriptor_at(bytes, j, &data_count);
		*ret_pages += data_count;
		*ret_zeros += entry.descriptor_count - data_count;
	}
}

static int overlay_room(struct vhdx_overlay *overlay, size_t zeros, size_t pages,
			struct base_error *err)
{
	overlay->zeros = calloc(zeros + 1, sizeof(*overlay->zeros));
	overlay->pages = calloc(pages + 1, sizeof(*overlay->pages));
	overlay->arena = aligned_alloc(SECTOR, (pages + 1) * SECTOR);
	if (overlay->zeros == NULL || overlay->pages == NULL || overlay->arena == NULL)
		return base_fail(err, -ENOMEM, "VHDX log: %zu pages and %zu zero descriptors",
				 pages, zeros);
	return 0;
}

static int overlay_fill(struct vhdx_overlay *overlay, struct vhdx_log_scan *scan,
			uint64_t file_bytes, struct base_error *err)
{
	struct filling fill = { .overlay = overlay, .disk_file_bytes = file_bytes };
	uint32_t slot = scan->tail_slot;
	size_t zeros = 0;
	size_t pages = 0;
	int code;

	descriptors_count(scan, &zeros, &pages);
	code = overlay_room(overlay, zeros, pages, err);
	if (code < 0)
		return code;
	for (uint32_t i = 0; i < scan->entry_count; i++) {
		struct vhdx_log_entry entry;
		const uint8_t *bytes = vhdx_log_scan_next(scan, &slot, &entry);
		uint32_t data_count = 0;

		for (uint32_t j = 0; j < entry.descriptor_count; j++) {
			code = descriptor_add(&fill, bytes, &entry, j, &data_count, err);
			if (code < 0)
				return code;
		}
	}
	overlay->zeros_count = fill.zeros_count;
	overlay->page_count = fill.page_count;
	code = zeros_settle(overlay, err);
	if (code < 0)
		return code;
	pages_settle(overlay);
	return 0;
}

static int log_read(struct store_file *file, const struct vhdx_header *header, uint8_t *to,
		    struct base_error *err)
{
	for (uint32_t at = 0; at < header->log_bytes;) {
		uint32_t piece =
			header->log_bytes - at < READ_BYTES ? header->log_bytes - at : READ_BYTES;
		int code = store_do(file, STORE_READ, header->log_offset + at, to + at, piece, err);

		if (code < 0)
			return base_fail_within(err, code, "VHDX log at 0x%" PRIx64,
						header->log_offset);
		at += piece;
	}
	return 0;
}

/* The sizes that the newest entry promises, against the file's. */
static int sizes_check(const struct vhdx_log_entry *head, uint64_t file_bytes,
		       struct base_error *err)
{
	if (head->flushed_file_bytes > file_bytes)
		return base_fail(err, -EBADMSG,
				 "VHDX log entry %" PRIu64 ": the file had %" PRIu64
				 " bytes then and has %" PRIu64 " now: it was cut",
				 head->sequence, head->flushed_file_bytes, file_bytes);
	if (head->last_file_bytes > VHDX_FILE_BYTES_MAX - SECTOR)
		return base_fail(err, -EBADMSG,
				 "VHDX log entry %" PRIu64 ": file size %" PRIu64
				 " is more than any file has",
				 head->sequence, head->last_file_bytes);
	return 0;
}

int vhdx_overlay_load(struct store_file *file, const struct vhdx_header *header,
		      uint64_t file_bytes, struct vhdx_overlay **ret_overlay,
		      struct base_error *err)
{
	BASE_CLEANUP(vhdx_overlay_freep) struct vhdx_overlay *overlay = NULL;
	BASE_CLEANUP(vhdx_log_scan_fini)
	struct vhdx_log_scan scan = {
		.log_bytes = header->log_bytes,
		.log_offset = header->log_offset,
		.id = header->log,
	};
	BASE_FREE uint8_t *log = NULL;
	int code;

	*ret_overlay = NULL;
	if (disk_guid_is_zero(&header->log))
		return 0;
	if (header->log_bytes > VHDX_LOG_BYTES_MAX)
		return base_fail(err, -EOPNOTSUPP,
				 "VHDX log at 0x%" PRIx64 ": %" PRIu32
				 " bytes in use, at most %u are read",
				 header->log_offset, header->log_bytes, VHDX_LOG_BYTES_MAX);
	log = aligned_alloc(SECTOR, header->log_bytes);
	overlay = calloc(1, sizeof(*overlay));
	if (log == NULL || overlay == NULL)
		return base_fail(err, -ENOMEM, "VHDX log of %" PRIu32 " bytes", header->log_bytes);
	code = log_read(file, header, log, err);
	if (code < 0)
		return code;
	scan.log = log;
	code = vhdx_log_scan_run(&scan, err);
	if (code == 0)
		code = sizes_check(&scan.head, file_bytes, err);
	if (code < 0)
		return code;
	/* Whole pages, so that what is written home lies inside. */
	overlay->file_bytes = sector_up(
		scan.head.last_file_bytes > file_bytes ? scan.head.last_file_bytes : file_bytes);
	code = overlay_fill(overlay, &scan, file_bytes, err);
	if (code < 0)
		return code;

	*ret_overlay = base_take(&overlay);
	return 0;
}

/* --- using it --- */

uint64_t vhdx_overlay_file_bytes(const struct vhdx_overlay *overlay)
{
	return overlay->file_bytes;
}

/* Where [@from, @end) and the @length_bytes at @offset_bytes meet, as a place in the latter. */
static size_t meet(uint64_t offset_bytes, size_t length_bytes, uint64_t from, uint64_t end,
		   size_t *ret_at)
{
	uint64_t first = from > offset_bytes ? from : offset_bytes;
	uint64_t last = end < offset_bytes + length_bytes ? end : offset_bytes + length_bytes;

	*ret_at = (size_t)(first - offset_bytes);
	return last > first ? (size_t)(last - first) : 0;
}

void vhdx_overlay_apply(const struct vhdx_overlay *overlay, uint64_t offset_bytes, void *data,
			size_t length_bytes)
{
	uint64_t end = offset_bytes + length_bytes;
	uint64_t first_page = offset_bytes / SECTOR * SECTOR;
	uint8_t *to = data;
	size_t at = 0;

	for (size_t i = zeros_from(overlay, offset_bytes); i < overlay->zeros_count; i++) {
		const struct zeros *run = &overlay->zeros[i];

		size_t count;

		if (run->offset_bytes >= end)
			break;
		count = meet(offset_bytes, length_bytes, run->offset_bytes, run->end_bytes, &at);
		memset(to + at, 0, count);
	}
	for (size_t i = pages_from(overlay, first_page); i < overlay->page_count; i++) {
		const struct data *page = &overlay->pages[i];
		size_t count;

		if (page->offset_bytes >= end)
			break;
		count = meet(offset_bytes, length_bytes, page->offset_bytes,
			     page->offset_bytes + SECTOR, &at);
		memcpy(to + at, page->bytes + (offset_bytes + at - page->offset_bytes), count);
	}
}

/* Pages from @first on that follow each other in the file, into @buffer; how many. */
static size_t pages_gather(const struct vhdx_overlay *overlay, size_t first, uint8_t *buffer)
{
	size_t count = 0;

	while (first + count < overlay->page_count && count < WRITE_BYTES / SECTOR) {
		const struct data *page = &overlay->pages[first + count];

		if (page->offset_bytes !=
		    overlay->pages[first].offset_bytes + (uint64_t)count * SECTOR)
			break;
		memcpy(buffer + count * SECTOR, page->bytes, SECTOR);
		count++;
	}
	return count;
}

static int pages_write(const struct vhdx_overlay *overlay, struct store_file *file,
		       struct base_error *err)
{
	BASE_FREE uint8_t *buffer = aligned_alloc(SECTOR, WRITE_BYTES);

	if (buffer == NULL)
		return base_fail(err, -ENOMEM, "replay of the VHDX log, %u bytes", WRITE_BYTES);
	for (size_t i = 0; i < overlay->page_count;) {
		size_t count = pages_gather(overlay, i, buffer);
		int code = store_do(file, STORE_WRITE, overlay->pages[i].offset_bytes, buffer,
				    count * SECTOR, err);

		if (code < 0)
			return code;
		i += count;
	}
	return 0;
}

/* Punched, not zeroed: what hostile bytes say of a sparse file must not fill the store. */
static int zeros_write(const struct vhdx_overlay *overlay, struct store_file *file,
		       struct base_error *err)
{
	for (size_t i = 0; i < overlay->zeros_count; i++) {
		const struct zeros *run = &overlay->zeros[i];
		int code = store_do(file, STORE_PUNCH, run->offset_bytes, NULL,
				    run->end_bytes - run->offset_bytes, err);

		if (code < 0)
			return code;
	}
	return 0;
}

int vhdx_overlay_replay(const struct vhdx_overlay *overlay, struct store_file *file,
			struct base_error *err)
{
	struct store_facts facts;
	int code = 0;

	store_facts(file, &facts);
	if (overlay->file_bytes > facts.size_bytes)
		code = store_do(file, STORE_TRUNCATE, overlay->file_bytes, NULL, 0, err);
	if (code == 0)
		code = zeros_write(overlay, file, err);
	if (code == 0)
		code = pages_write(overlay, file, err); /* after the zeros: pages lie over them */
	if (code == 0)
		code = store_do(file, STORE_FLUSH, 0, NULL, 0, err);
	return code < 0 ? base_fail_within(err, code, "replay of the VHDX log") : 0;
}
