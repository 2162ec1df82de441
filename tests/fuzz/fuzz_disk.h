/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A disk for fuzz targets that is zeros but for what the input puts there: records {le32 offset,
 * le16 length, bytes}, of which later ones win.  So a small input is a large file system.
 */
#ifndef TESTS_FUZZ_FUZZ_DISK_H
#define TESTS_FUZZ_FUZZ_DISK_H

#include <string.h>

#include "base/bytes.h"
#include "hypervisor/bootdisk/bootdisk_priv.h"

#define FUZZ_DISK_RUNS_MAX 256u

struct fuzz_disk {
	struct {
		uint64_t offset;
		uint32_t size_bytes;
		const uint8_t *bytes; /* of the input */
	} run[FUZZ_DISK_RUNS_MAX];
	uint32_t run_count;
	struct bootdisk_source source;
};

static inline int fuzz_disk_read(void *context, uint64_t offset, void *to, size_t size_bytes,
				 struct base_error *err)
{
	const struct fuzz_disk *disk = context;

	(void)err;
	base_assert(offset <= disk->source.size_bytes &&
		    size_bytes <= disk->source.size_bytes - offset);
	memset(to, 0, size_bytes);
	for (uint32_t i = 0; i < disk->run_count; i++) {
		uint64_t from = disk->run[i].offset;
		uint64_t end = from + disk->run[i].size_bytes;

		if (from < offset)
			from = offset;
		if (end > offset + size_bytes)
			end = offset + size_bytes;
		if (from < end)
			memcpy((uint8_t *)to + (from - offset),
			       disk->run[i].bytes + (from - disk->run[i].offset),
			       (size_t)(end - from));
	}
	return 0;
}

static inline void fuzz_disk_put(struct fuzz_disk *disk, uint64_t offset, const void *bytes,
				 uint32_t size_bytes)
{
	if (disk->run_count == FUZZ_DISK_RUNS_MAX)
		return;
	disk->run[disk->run_count].offset = offset;
	disk->run[disk->run_count].size_bytes = size_bytes;
	disk->run[disk->run_count++].bytes = bytes;
}

/* All that is left of @in is records. */
static inline void fuzz_disk_init(struct fuzz_disk *disk, uint64_t size_bytes,
				  uint32_t sector_bytes, struct base_reader *in)
{
	disk->run_count = 0;
	disk->source = (struct bootdisk_source){ .size_bytes = size_bytes,
						 .sector_bytes = sector_bytes,
						 .read = fuzz_disk_read,
						 .context = disk };
	while (base_reader_left(in) > 6) {
		uint64_t offset = base_read_le32(in);
		size_t length = base_read_le16(in);

		if (length > base_reader_left(in))
			length = base_reader_left(in);
		fuzz_disk_put(disk, offset, base_read_span(in, length), (uint32_t)length);
	}
}

#endif
