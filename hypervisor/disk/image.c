/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What all formats share: ending requests, splitting them into parts, pieces of an iov.
 * Loop thread, but for image_ops_of() and image_fail() (see image_priv.h).
 *
 * Invariants: a part is counted in its request's @pending from image_part_new() until
 * image_part_end(); a part on the free list owns no memory but itself.
 */
#include "hypervisor/disk/image_priv.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

const struct image_ops *image_ops_of(enum disk_format format)
{
	switch (format) {
	case DISK_RAW:
		return &image_raw_ops;
	case DISK_VHD:
		return &image_vhd_ops;
	case DISK_VHDX:
		return &image_vhdx_ops;
	case DISK_FORMAT_INVALID:
	case DISK_FORMATS:
		break;
	}
	base_bug("disk format %d", (int)format);
}

const char *disk_format_name(enum disk_format format)
{
	switch (format) {
	case DISK_RAW:
		return "raw";
	case DISK_VHD:
		return "vhd";
	case DISK_VHDX:
		return "vhdx";
	case DISK_FORMAT_INVALID:
	case DISK_FORMATS:
		break;
	}
	return "invalid";
}

const char *disk_kind_name(enum disk_kind kind)
{
	switch (kind) {
	case DISK_FIXED:
		return "fixed";
	case DISK_DYNAMIC:
		return "dynamic";
	case DISK_DIFFERENCING:
		return "differencing";
	case DISK_KIND_INVALID:
	case DISK_KINDS:
		break;
	}
	return "invalid";
}

void image_done(struct disk_request *request, int result)
{
	request->done(request, result);
}

void image_split(struct disk_request *request)
{
	request->pending = 1;
	request->result = 0;
}

void image_part_add(struct disk_request *request)
{
	request->pending++;
}

void image_part_done(struct disk_request *request, int result)
{
	base_assert(request->pending > 0);
	if (request->result == 0)
		request->result = result;
	if (--request->pending == 0)
		image_done(request, request->result);
}

int image_iov_slice(const struct iovec *iov, uint32_t iov_count, uint64_t skip_bytes,
		    uint64_t length_bytes, struct iovec *to, uint32_t capacity)
{
	uint32_t used = 0;

	for (uint32_t i = 0; i < iov_count && length_bytes > 0; i++) {
		size_t length = iov[i].iov_len;

		if (skip_bytes >= length) {
			skip_bytes -= length;
			continue;
		}
		length -= (size_t)skip_bytes;
		if (length > length_bytes)
			length = (size_t)length_bytes;
		if (used == capacity)
			return -ENOMEM;
		to[used].iov_base = (uint8_t *)iov[i].iov_base + skip_bytes;
		to[used].iov_len = length;
		used++;
		skip_bytes = 0;
		length_bytes -= length;
	}
	base_assert(length_bytes == 0);
	return (int)used;
}

void image_iov_zero(const struct iovec *iov, uint32_t iov_count, uint64_t skip_bytes,
		    uint64_t length_bytes)
{
	for (uint32_t i = 0; i < iov_count && length_bytes > 0; i++) {
		size_t length = iov[i].iov_len;

		if (skip_bytes >= length) {
			skip_bytes -= length;
			continue;
		}
		length -= (size_t)skip_bytes;
		if (length > length_bytes)
			length = (size_t)length_bytes;
		memset((uint8_t *)iov[i].iov_base + skip_bytes, 0, length);
		skip_bytes = 0;
		length_bytes -= length;
	}
	base_assert(length_bytes == 0);
}

void image_fail(struct image *image, const char *format, ...)
{
	va_list args;

	if (image->failed)
		return;
	image->failed = true;
	va_start(args, format);
	(void)vsnprintf(image->failed_why, sizeof(image->failed_why), format, args);
	va_end(args);
}

bool image_extent_add(struct disk_request *request, uint64_t offset_bytes, uint64_t length_bytes,
		      enum disk_extent_kind kind)
{
	struct disk_extent *extent = NULL;

	if (request->extent_count > 0) {
		extent = &request->extents[request->extent_count - 1];
		base_assert(extent->offset_bytes + extent->length_bytes == offset_bytes);
		if (extent->kind == kind) {
			extent->length_bytes += length_bytes;
			return true;
		}
	}
	if (request->extent_count >= request->extent_capacity)
		return false;

	extent = &request->extents[request->extent_count++];
	extent->offset_bytes = offset_bytes;
	extent->length_bytes = length_bytes;
	extent->kind = kind;
	return true;
}

/* --- parts --- */

static void part_recycle(struct image_part *part)
{
	free(part->iov_owned);
	part->iov_owned = NULL;
	part->next = part->image->free_parts;
	part->image->free_parts = part;
}

/* Point the part's iov at its share of the request's.  False without memory. */
static bool part_slice(struct image_part *part)
{
	const struct disk_request *request = part->request;
	struct iovec *to = part->iov_inline;
	uint32_t capacity = sizeof(part->iov_inline) / sizeof(part->iov_inline[0]);
	int count = 0;

	part->iov = NULL;
	part->iov_count = 0;
	if (request->iov == NULL)
		return true;
	if (part->skip_bytes == 0 && part->length_bytes == request->length_bytes) {
		part->iov = request->iov;
		part->iov_count = request->iov_count;
		return true;
	}
	if (request->iov_count > capacity) {
		count = image_iov_slice(request->iov, request->iov_count, part->skip_bytes,
					part->length_bytes, to, capacity);
		if (count < 0) {
			capacity = request->iov_count;
			part->iov_owned = calloc(capacity, sizeof(*to));
			if (part->iov_owned == NULL)
				return false;
			to = part->iov_owned;
		}
	}
	count = image_iov_slice(request->iov, request->iov_count, part->skip_bytes,
				part->length_bytes, to, capacity);
	base_assert(count >= 0);
	part->iov = to;
	part->iov_count = (uint32_t)count;
	return true;
}

struct image_part *image_part_new(struct image *image, struct disk_request *request,
				  uint64_t skip_bytes, uint64_t length_bytes)
{
	struct image_part *part = image->free_parts;

	if (part != NULL)
		image->free_parts = part->next;
	else
		part = malloc(sizeof(*part));
	if (part == NULL)
		return NULL;

	part->image = image;
	part->request = request;
	part->skip_bytes = skip_bytes;
	part->length_bytes = length_bytes;
	part->finish = NULL;
	part->held = NULL;
	part->iov_owned = NULL;
	part->next = NULL;
	if (!part_slice(part)) {
		part_recycle(part);
		return NULL;
	}
	image_part_add(request);
	return part;
}

/* The part's own I/O is over. */
static void part_over(struct image_part *part, int result)
{
	if (part->finish != NULL)
		part->finish(part, result);
	else
		image_part_end(part, result);
}

static void part_file_done(struct store_request *store, int result)
{
	part_over(store->context, result);
}

void image_part_file(struct image_part *part, uint64_t file_offset, uint32_t store_flags)
{
	struct image *image = part->image;
	bool write = part->request->op == DISK_WRITE;

	if (write && image->failed) {
		part_over(part, -EIO);
		return;
	}
	part->store = (struct store_request){
		.op = write ? STORE_WRITE : STORE_READ,
		.flags = store_flags,
		.epoch = store_epoch(image->file),
		.offset_bytes = file_offset,
		.length_bytes = part->length_bytes,
		.iov = part->iov,
		.iov_count = part->iov_count,
		.done = part_file_done,
		.context = part,
	};
	store_submit(image->file, &part->store);
}

static void part_parent_done(struct disk_request *parent, int result)
{
	part_over(parent->context, result);
}

/* The parent ends inside the part: its request's iov must end there too.  The part's own stays
 * whole, for finish(). */
static bool part_parent_shorten(struct image_part *part, uint64_t inside)
{
	struct iovec *both = calloc(2 * (size_t)part->iov_count, sizeof(*both));
	int count = 0;

	if (both == NULL)
		return false;
	memcpy(both, part->iov, part->iov_count * sizeof(*both));
	count = image_iov_slice(both, part->iov_count, 0, inside, both + part->iov_count,
				part->iov_count);
	base_assert(count > 0);
	free(part->iov_owned);
	part->iov_owned = both;
	part->iov = both;
	part->parent.iov = both + part->iov_count;
	part->parent.iov_count = (uint32_t)count;
	return true;
}

void image_part_parent(struct image_part *part)
{
	struct image *parent = part->image->parent;
	uint64_t offset = part->request->offset_bytes + part->skip_bytes;
	uint64_t inside = 0;

	base_assert(parent != NULL);
	if (offset < parent->geometry.size_bytes)
		inside = parent->geometry.size_bytes - offset;
	if (inside < part->length_bytes)
		image_iov_zero(part->iov, part->iov_count, inside, part->length_bytes - inside);
	else
		inside = part->length_bytes;
	if (inside == 0) {
		part_over(part, 0);
		return;
	}

	part->parent = (struct disk_request){
		.op = DISK_READ,
		.offset_bytes = offset,
		.length_bytes = inside,
		.iov = part->iov,
		.iov_count = part->iov_count,
		.done = part_parent_done,
		.context = part,
	};
	if (inside < part->length_bytes && !part_parent_shorten(part, inside)) {
		part_over(part, -ENOMEM);
		return;
	}
	parent->ops->submit(parent, &part->parent);
}

void image_part_end(struct image_part *part, int result)
{
	struct disk_request *request = part->request;

	part_recycle(part);
	image_part_done(request, result);
}

void image_parts_free(struct image *image)
{
	while (image->free_parts != NULL) {
		struct image_part *part = image->free_parts;

		image->free_parts = part->next;
		free(part);
	}
}
