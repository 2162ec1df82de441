/* SPDX-License-Identifier: Apache-2.0 */
/* The disk as bytes: a cache of whole lines, the one used least recently goes. */
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "hypervisor/bootdisk/bootdisk_priv.h"

int bootdisk_io_init(struct bootdisk_io *io, const struct bootdisk_source *source,
		     struct base_error *err)
{
	memset(io, 0, sizeof(*io));
	if (source->sector_bytes != 512 && source->sector_bytes != 4096)
		return base_fail(err, -EINVAL,
				 "boot disk: sector of %u bytes: expected 512 or 4096",
				 source->sector_bytes);
	io->data = malloc((size_t)BOOTDISK_LINES * BOOTDISK_LINE_BYTES);
	if (io->data == NULL)
		return base_fail(err, -ENOMEM, "boot disk: read cache");
	io->source = source;
	return 0;
}

void bootdisk_io_fini(struct bootdisk_io *io)
{
	free(io->data);
	io->data = NULL;
}

static int line_of(struct bootdisk_io *io, uint64_t number, uint8_t **ret_data,
		   struct base_error *err)
{
	uint64_t start = number * BOOTDISK_LINE_BYTES;
	uint64_t bytes = io->source->size_bytes - start;
	uint32_t oldest = 0;
	int rc;

	for (uint32_t i = 0; i < BOOTDISK_LINES; i++) {
		if (io->line[i] == number + 1) {
			io->used[i] = ++io->now;
			*ret_data = io->data + (size_t)i * BOOTDISK_LINE_BYTES;
			return 0;
		}
		if (io->used[i] < io->used[oldest])
			oldest = i;
	}
	if (bytes > BOOTDISK_LINE_BYTES)
		bytes = BOOTDISK_LINE_BYTES;
	io->line[oldest] = 0;
	*ret_data = io->data + (size_t)oldest * BOOTDISK_LINE_BYTES;
	bytes -= bytes % io->source->sector_bytes;
	rc = io->source->read(io->source->context, start, *ret_data, (size_t)bytes, err);
	if (rc < 0)
		return base_fail_within(err, rc, "boot disk: read at %" PRIu64, start);
	io->line[oldest] = number + 1;
	io->used[oldest] = ++io->now;
	return 0;
}

int bootdisk_io_read(struct bootdisk_io *io, uint64_t offset, void *to, size_t size_bytes,
		     struct base_error *err)
{
	uint64_t end = io->source->size_bytes - io->source->size_bytes % io->source->sector_bytes;
	uint8_t *out = to;

	if (offset > end || size_bytes > end - offset)
		return base_fail(err, -EBADMSG, "boot disk: %zu bytes at %" PRIu64 ": past the end",
				 size_bytes, offset);
	while (size_bytes > 0) {
		size_t within = (size_t)(offset % BOOTDISK_LINE_BYTES);
		size_t bytes = BOOTDISK_LINE_BYTES - within;
		uint8_t *data = NULL;
		int rc = line_of(io, offset / BOOTDISK_LINE_BYTES, &data, err);

		if (rc < 0)
			return rc;
		if (bytes > size_bytes)
			bytes = size_bytes;
		memcpy(out, data + within, bytes);
		out += bytes;
		offset += bytes;
		size_bytes -= bytes;
	}
	return 0;
}
