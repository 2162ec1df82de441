/* SPDX-License-Identifier: Apache-2.0 */
#include "hypervisor/disk/flat_io.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define FLAT_SECTOR_BYTES 512U
#define FLAT_RANGES       64U /* asked of the store at a time */

/* MAP: what it needs beyond the request. */
struct flat_map {
	struct image *image;
	struct disk_request *request;
	struct store_request store;
	struct store_range ranges[FLAT_RANGES];
	uint64_t end_bytes; /* of the request, or of the file */
};

int flat_flushed(struct image *image, int result)
{
	/* Refused or cut off before it began: it may be tried again.  Anything else may be told
	 * only once by the kernel, and a second flush would say that all is well. */
	if (result < 0 && result != -ESTALE && result != -EROFS && result != -ECANCELED &&
	    result != -ENODEV)
		image_fail(image, "'%s': a flush failed: %s", store_name(image->file),
			   strerrordesc_np(-result));
	return result;
}

static void flush_done(struct store_request *store, int result)
{
	struct image_part *part = store->context;

	image_part_end(part, flat_flushed(part->image, result));
}

static void part_submit(struct image_part *part, enum store_op op, uint64_t offset_bytes,
			uint64_t length_bytes,
			void (*done)(struct store_request *store, int result))
{
	part->store = (struct store_request){ .op = op,
					      .epoch = store_epoch(part->image->file),
					      .offset_bytes = offset_bytes,
					      .length_bytes = length_bytes,
					      .done = done,
					      .context = part };
	store_submit(part->image->file, &part->store);
}

static void clear_done(struct store_request *store, int result)
{
	struct image_part *part = store->context;

	if (result == 0 && (part->request->flags & DISK_FUA) != 0)
		part_submit(part, STORE_FLUSH, 0, 0, flush_done);
	else
		image_part_end(part, result);
}

/* Everything but MAP is one request to the store. */
static void submit_part(struct image *image, struct disk_request *request)
{
	struct image_part *part;
	bool punch = request->op == DISK_UNMAP || (request->flags & DISK_MAY_UNMAP) != 0;

	part = image_part_new(image, request, 0, request->length_bytes);
	if (part == NULL) {
		image_part_add(request);
		image_part_done(request, -ENOMEM);
	} else if (request->op == DISK_READ || request->op == DISK_WRITE) {
		image_part_file(part, request->offset_bytes,
				request->op == DISK_WRITE && (request->flags & DISK_FUA) != 0
					? STORE_FUA
					: 0);
	} else if (request->op == DISK_FLUSH) {
		part_submit(part, STORE_FLUSH, 0, 0, flush_done);
	} else {
		part_submit(part, punch ? STORE_PUNCH : STORE_ZERO, request->offset_bytes,
			    request->length_bytes, clear_done);
	}
}

static void map_end(struct flat_map *map, int result)
{
	struct disk_request *request = map->request;

	free(map);
	image_part_done(request, result);
}

static uint64_t sector_ceil(uint64_t bytes)
{
	return (bytes + FLAT_SECTOR_BYTES - 1) & ~(uint64_t)(FLAT_SECTOR_BYTES - 1);
}

/* Runs go on sector boundaries; what lies past the end of the file is not allocated. */
static void map_done(struct store_request *store, int result)
{
	struct flat_map *map = store->context;
	struct disk_request *request = map->request;
	uint64_t end_bytes = request->offset_bytes + request->length_bytes;
	uint64_t at_bytes = request->offset_bytes;
	bool fits = true;

	if (result < 0) {
		map_end(map, result);
		return;
	}
	for (uint32_t i = 0; i < store->range_count && fits; i++) {
		const struct store_range *range = &map->ranges[i];
		uint64_t to_bytes = range->offset_bytes + range->length_bytes;

		to_bytes = range->data ? sector_ceil(to_bytes)
				       : to_bytes - to_bytes % FLAT_SECTOR_BYTES;
		to_bytes = to_bytes < end_bytes ? to_bytes : end_bytes;
		if (to_bytes <= at_bytes)
			continue;
		fits = image_extent_add(request, at_bytes, to_bytes - at_bytes,
					range->data ? DISK_EXTENT_DATA : DISK_EXTENT_UNMAPPED);
		if (fits)
			at_bytes = to_bytes;
	}
	if (fits && at_bytes < end_bytes &&
	    (request->extent_count == 0 || at_bytes >= map->end_bytes))
		(void)image_extent_add(request, at_bytes, end_bytes - at_bytes,
				       at_bytes >= map->end_bytes ? DISK_EXTENT_UNMAPPED
								  : DISK_EXTENT_DATA);
	map_end(map, 0);
}

static void submit_map(struct image *image, struct disk_request *request)
{
	struct store_facts facts;
	struct flat_map *map = calloc(1, sizeof(*map));
	uint64_t end_bytes = request->offset_bytes + request->length_bytes;

	image_part_add(request);
	if (map == NULL) {
		image_part_done(request, -ENOMEM);
		return;
	}
	store_facts(image->file, &facts);
	request->extent_count = 0;
	map->image = image;
	map->request = request;
	map->end_bytes = facts.size_bytes < end_bytes ? facts.size_bytes : end_bytes;
	if (map->end_bytes <= request->offset_bytes) {
		(void)image_extent_add(request, request->offset_bytes, request->length_bytes,
				       DISK_EXTENT_UNMAPPED);
		map_end(map, 0);
		return;
	}
	map->store = (struct store_request){ .op = STORE_RANGES,
					     .epoch = store_epoch(image->file),
					     .offset_bytes = request->offset_bytes,
					     .length_bytes = map->end_bytes - request->offset_bytes,
					     .ranges = map->ranges,
					     .range_capacity = FLAT_RANGES,
					     .done = map_done,
					     .context = map };
	store_submit(image->file, &map->store);
}

void flat_submit(struct image *image, struct disk_request *request)
{
	if (image->failed && request->op != DISK_READ && request->op != DISK_MAP) {
		image_done(request, -EIO);
		return;
	}
	image_split(request);
	if (request->op == DISK_MAP)
		submit_map(image, request);
	else
		submit_part(image, request);
	image_part_done(request, 0);
}

/* --- blocking --- */

struct flat_waiter {
	struct image *image;
	struct store_request *store;
	bool done;
	int result;
};

static void wait_done(struct store_request *store, int result)
{
	struct flat_waiter *wait = store->context;

	wait->result = result;
	base_io_done(wait->image->loop, &wait->done);
}

static void wait_submit(void *context)
{
	struct flat_waiter *wait = context;

	store_submit(wait->image->file, wait->store);
}

int flat_wait(struct image *image, struct store_request *store)
{
	struct flat_waiter wait = { .image = image, .store = store };

	store->epoch = store_epoch(image->file);
	store->done = wait_done;
	store->context = &wait;
	base_io_call(image->loop, wait_submit, &wait);
	base_io_wait(image->loop, &wait.done);
	return wait.result;
}

uint64_t flat_data_bytes(struct image *image, uint64_t size_bytes)
{
	struct store_range ranges[FLAT_RANGES];
	uint64_t at_bytes = 0;
	uint64_t sum_bytes = 0;

	while (at_bytes < size_bytes) {
		struct store_request store = { .op = STORE_RANGES,
					       .offset_bytes = at_bytes,
					       .length_bytes = size_bytes - at_bytes,
					       .ranges = ranges,
					       .range_capacity = FLAT_RANGES };
		uint64_t before_bytes = at_bytes;
		int result = flat_wait(image, &store);

		for (uint32_t i = 0; result == 0 && i < store.range_count; i++) {
			sum_bytes += ranges[i].data ? ranges[i].length_bytes : 0;
			at_bytes = ranges[i].offset_bytes + ranges[i].length_bytes;
		}
		if (at_bytes <= before_bytes)
			return UINT64_MAX;
	}
	return sum_bytes;
}
