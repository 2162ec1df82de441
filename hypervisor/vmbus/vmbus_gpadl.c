/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Guest page lists: vmbus_gpadl.h, and what devices see of them (vmbus_channel.h).
 */
#include "hypervisor/vmbus/vmbus_gpadl.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/bytes.h"

#define RANGE_HEAD_BYTES 8u
#define PFN_BYTES        8u
#define PFN_MAX          (UINT64_MAX >> HV_PAGE_SHIFT)

uint32_t vmbus_gpadl_pages_of(uint32_t list_bytes)
{
	return list_bytes / PFN_BYTES;
}

int vmbus_gpadl_new(struct hv_slat *slat, const struct vmbus_gpadl_header *header,
		    struct vmbus_gpadl **ret_gpadl)
{
	struct vmbus_gpadl *gpadl = NULL;

	if (header->range_count == 0 || header->range_count > VMBUS_GPADL_RANGES_MAX ||
	    header->range_bytes % PFN_BYTES != 0 ||
	    header->range_bytes < header->range_count * (RANGE_HEAD_BYTES + PFN_BYTES))
		return -EINVAL;
	gpadl = calloc(1, sizeof(*gpadl));
	if (gpadl == NULL)
		return -ENOMEM;
	gpadl->list = malloc(header->range_bytes);
	if (gpadl->list == NULL) {
		free(gpadl);
		return -ENOMEM;
	}
	gpadl->id = header->gpadl;
	gpadl->relid = header->relid;
	gpadl->slat = slat;
	gpadl->list_bytes = header->range_bytes;
	gpadl->range_count = header->range_count;
	atomic_init(&gpadl->refs, 1);
	*ret_gpadl = gpadl;
	return 0;
}

void vmbus_gpadl_free(struct vmbus_gpadl *gpadl)
{
	if (gpadl == NULL)
		return;
	free(gpadl->ranges);
	free(gpadl->list);
	free(gpadl);
}

static bool pages_are_ram(const struct vmbus_gpadl *gpadl, const struct vmbus_gpadl_range *range)
{
	for (uint32_t i = 0; i < range->page_count; i++) {
		uint64_t pfn = base_get_le64(range->pfns + (size_t)i * PFN_BYTES);

		if (pfn > PFN_MAX ||
		    hv_slat_view(gpadl->slat, pfn << HV_PAGE_SHIFT, HV_PAGE_BYTES) == NULL)
			return false;
	}
	return true;
}

/* All ranges, when the list has come in whole. */
static int parse(struct vmbus_gpadl *gpadl)
{
	struct base_reader in = base_reader_over(gpadl->list, gpadl->list_bytes);

	gpadl->ranges = calloc(gpadl->range_count, sizeof(*gpadl->ranges));
	if (gpadl->ranges == NULL)
		return -ENOMEM;
	for (uint32_t i = 0; i < gpadl->range_count; i++) {
		struct vmbus_gpadl_range *range = &gpadl->ranges[i];
		uint64_t span = 0;

		range->start = gpadl->size_bytes;
		range->bytes = base_read_le32(&in);
		range->offset = base_read_le32(&in);
		if (in.failed || range->bytes == 0 || range->offset >= HV_PAGE_BYTES)
			return -EBADMSG;
		span = (uint64_t)range->offset + range->bytes;
		range->page_count = (uint32_t)((span + HV_PAGE_BYTES - 1) >> HV_PAGE_SHIFT);
		range->pfns = base_read_span(&in, (size_t)range->page_count * PFN_BYTES);
		/* Cannot wrap: the list's bytes bound the pages, these the sum. */
		if (range->pfns == NULL)
			return -EBADMSG;
		if (!pages_are_ram(gpadl, range))
			return -EFAULT;
		gpadl->size_bytes += range->bytes;
		gpadl->page_count += range->page_count;
	}
	if (base_reader_left(&in) != 0)
		return -EBADMSG;
	gpadl->whole = true;
	return 1;
}

int vmbus_gpadl_add(struct vmbus_gpadl *gpadl, const uint8_t *part, uint32_t part_bytes)
{
	uint32_t missing = gpadl->list_bytes - gpadl->received_bytes;

	if (part_bytes > missing)
		part_bytes = missing;
	if (part_bytes > 0)
		memcpy(gpadl->list + gpadl->received_bytes, part, part_bytes);
	gpadl->received_bytes += part_bytes;
	if (part_bytes < missing)
		return 0;
	return parse(gpadl);
}

void vmbus_gpadl_hold(struct vmbus_gpadl *gpadl)
{
	unsigned int before = atomic_fetch_add_explicit(&gpadl->refs, 1, memory_order_relaxed);

	base_assert(before != 0);
}

void vmbus_gpadl_unref(struct vmbus_gpadl *gpadl)
{
	unsigned int before = 0;

	if (gpadl == NULL)
		return;
	before = atomic_fetch_sub(&gpadl->refs, 1);
	base_assert(before != 0);
	if (before > 1)
		return;
	if (gpadl->unused != NULL)
		gpadl->unused(gpadl->context, gpadl);
	else
		vmbus_gpadl_free(gpadl);
}

uint32_t vmbus_gpadl_id(const struct vmbus_gpadl *gpadl)
{
	return gpadl->id;
}

uint32_t vmbus_gpadl_size(const struct vmbus_gpadl *gpadl)
{
	return gpadl->size_bytes;
}

int vmbus_gpadl_page_gpas(const struct vmbus_gpadl *gpadl, uint64_t *ret_gpas, uint32_t capacity)
{
	const struct vmbus_gpadl_range *range = gpadl->ranges;

	if (gpadl->range_count != 1 || range->offset != 0 || range->bytes % HV_PAGE_BYTES != 0 ||
	    range->page_count > capacity)
		return -EINVAL;
	for (uint32_t i = 0; i < range->page_count; i++)
		ret_gpas[i] = base_get_le64(range->pfns + (size_t)i * PFN_BYTES) << HV_PAGE_SHIFT;
	return 0;
}

/* --- the run of bytes --- */

/* A place in the run.  Ranges are found by halving, pages by division. */
struct place {
	const struct vmbus_gpadl *gpadl;
	uint32_t range;
	uint32_t at; /* bytes into the range */
};

static int place_at(const struct vmbus_gpadl *gpadl, uint32_t offset, uint32_t size_bytes,
		    struct place *ret_place)
{
	uint32_t low = 0;
	uint32_t high = gpadl->range_count;

	if (offset > gpadl->size_bytes || size_bytes > gpadl->size_bytes - offset)
		return -EFAULT;
	while (high - low > 1) {
		uint32_t middle = low + (high - low) / 2;

		if (gpadl->ranges[middle].start <= offset)
			low = middle;
		else
			high = middle;
	}
	*ret_place = (struct place){ .gpadl = gpadl,
				     .range = low,
				     .at = offset - gpadl->ranges[low].start };
	return 0;
}

/* The piece within one page at the place, at most @most bytes; the place moves behind it. */
static uint32_t next_piece(struct place *place, uint32_t most, uint64_t *ret_gpa)
{
	const struct vmbus_gpadl_range *range = &place->gpadl->ranges[place->range];
	uint32_t in_pages = 0;
	uint32_t in_page = 0;
	uint32_t bytes = most;

	if (place->at == range->bytes) {
		range++;
		place->range++;
		place->at = 0;
	}
	in_pages = range->offset + place->at;
	in_page = in_pages % (uint32_t)HV_PAGE_BYTES;
	if (bytes > HV_PAGE_BYTES - in_page)
		bytes = (uint32_t)HV_PAGE_BYTES - in_page;
	if (bytes > range->bytes - place->at)
		bytes = range->bytes - place->at;
	*ret_gpa = (base_get_le64(range->pfns + (size_t)(in_pages >> HV_PAGE_SHIFT) * PFN_BYTES)
		    << HV_PAGE_SHIFT) +
		   in_page;
	place->at += bytes;
	return bytes;
}

int vmbus_gpadl_read(const struct vmbus_gpadl *gpadl, uint32_t offset, void *to,
		     uint32_t size_bytes)
{
	uint8_t *next = to;
	struct place place;
	int r = place_at(gpadl, offset, size_bytes, &place);

	while (r == 0 && size_bytes > 0) {
		uint64_t gpa = 0;
		uint32_t piece = next_piece(&place, size_bytes, &gpa);

		r = hv_slat_read(gpadl->slat, gpa, next, piece);
		next += piece;
		size_bytes -= piece;
	}
	return r;
}

int vmbus_gpadl_write(const struct vmbus_gpadl *gpadl, uint32_t offset, const void *from,
		      uint32_t size_bytes)
{
	const uint8_t *next = from;
	struct place place;
	int r = place_at(gpadl, offset, size_bytes, &place);

	while (r == 0 && size_bytes > 0) {
		uint64_t gpa = 0;
		uint32_t piece = next_piece(&place, size_bytes, &gpa);

		r = hv_slat_write(gpadl->slat, gpa, next, piece);
		next += piece;
		size_bytes -= piece;
	}
	return r;
}

int vmbus_gpadl_view(const struct vmbus_gpadl *gpadl, uint32_t offset, uint32_t size_bytes,
		     struct iovec *ret_iov, uint32_t capacity)
{
	struct place place;
	uint32_t used = 0;
	int r = place_at(gpadl, offset, size_bytes, &place);

	if (r < 0)
		return r;
	while (size_bytes > 0) {
		uint64_t gpa = 0;
		uint32_t piece = next_piece(&place, size_bytes, &gpa);
		const uint8_t *view = hv_slat_view(gpadl->slat, gpa, piece);
		/* An iovec has no const; the caller reads only. */
		uint8_t *bytes = (uint8_t *)(uintptr_t)view;

		if (view == NULL)
			return -EFAULT;
		size_bytes -= piece;
		if (used > 0 &&
		    (uint8_t *)ret_iov[used - 1].iov_base + ret_iov[used - 1].iov_len == bytes) {
			ret_iov[used - 1].iov_len += piece;
			continue;
		}
		if (used == capacity)
			return -ENOSPC;
		ret_iov[used++] = (struct iovec){ .iov_base = bytes, .iov_len = piece };
	}
	return (int)used;
}

static bool window_grows(struct hv_slat_window *window, const struct hv_slat_window *by)
{
	if (window->data + window->size_bytes != by->data ||
	    window->ram_offset + window->size_bytes != by->ram_offset)
		return false;
	window->size_bytes += by->size_bytes;
	return true;
}

int vmbus_gpadl_windows(const struct vmbus_gpadl *gpadl, uint32_t offset, uint32_t size_bytes,
			struct hv_slat_window *ret_windows, uint32_t capacity)
{
	struct place place;
	uint32_t used = 0;
	int r = place_at(gpadl, offset, size_bytes, &place);

	while (r == 0 && size_bytes > 0) {
		struct hv_slat_window window = { .data = NULL };
		uint64_t gpa = 0;
		uint32_t piece = next_piece(&place, size_bytes, &gpa);

		r = hv_slat_window_begin(gpadl->slat, gpa, piece, &window);
		size_bytes -= piece;
		if (r < 0 || (used > 0 && window_grows(&ret_windows[used - 1], &window)))
			continue;
		if (used == capacity)
			r = -ENOSPC;
		else
			ret_windows[used++] = window;
	}
	if (r < 0) {
		for (uint32_t i = 0; i < used; i++)
			ret_windows[i].data = NULL; /* nothing was written: nothing to mark */
		return r;
	}
	return (int)used;
}
