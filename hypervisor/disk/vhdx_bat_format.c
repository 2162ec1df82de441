/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <inttypes.h>

#include "hypervisor/disk/vhdx_format.h"

#define ENTRY_RESERVED     UINT64_C(0xffff8) /* bits 3..19 */
#define SECTORS_PER_BITMAP (8ULL * VHDX_BITMAP_BLOCK_BYTES)
#define ENTRY_BYTES        8U

struct vhdx_bat_shape vhdx_bat_shape(uint64_t disk_bytes, uint32_t block_bytes,
				     uint32_t logical_sector_bytes, bool has_parent)
{
	struct vhdx_bat_shape shape = { 0 };
	uint64_t chunks;

	/* 2^23 sectors of at least 512 bytes are 4 GiB, a multiple of every block size. */
	shape.chunk_ratio = SECTORS_PER_BITMAP * logical_sector_bytes / block_bytes;
	shape.block_count = disk_bytes / block_bytes + (disk_bytes % block_bytes != 0);
	if (shape.block_count == 0)
		return shape;
	chunks = (shape.block_count - 1) / shape.chunk_ratio + 1;
	/* With a parent every chunk has its bitmap; else the table ends with the last block. */
	shape.entry_count =
		has_parent ? chunks * (shape.chunk_ratio + 1) : shape.block_count + chunks - 1;
	shape.bat_bytes = shape.entry_count * ENTRY_BYTES;
	return shape;
}

static int offset_check(uint64_t entry, const char *what, struct base_error *err)
{
	uint64_t offset = vhdx_entry_offset(entry);

	if (offset < VHDX_MIB || offset >= VHDX_FILE_BYTES_MAX)
		return base_fail(
			err, -EBADMSG,
			"VHDX %s entry 0x%016" PRIx64 ": state %" PRIu32
			" wants an offset of at least 1 MiB and below 8 EiB, not 0x%" PRIx64,
			what, entry, vhdx_entry_state(entry), offset);
	return 0;
}

static int reserved_check(uint64_t entry, const char *what, struct base_error *err)
{
	if ((entry & ENTRY_RESERVED) != 0)
		return base_fail(err, -EBADMSG,
				 "VHDX %s entry 0x%016" PRIx64 ": reserved bits 0x%05" PRIx64
				 " are not zero",
				 what, entry, entry & ENTRY_RESERVED);
	return 0;
}

int vhdx_payload_entry_decode(uint64_t entry, bool has_parent, struct base_error *err)
{
	int code = reserved_check(entry, "payload", err);

	if (code < 0)
		return code;
	switch (vhdx_entry_state(entry)) {
	case VHDX_BLOCK_NOT_PRESENT:
	case VHDX_BLOCK_UNDEFINED:
	case VHDX_BLOCK_ZERO:
	case VHDX_BLOCK_UNMAPPED:
		return 0; /* an offset that stayed behind says nothing any more */
	case VHDX_BLOCK_FULL:
		return offset_check(entry, "payload", err);
	case VHDX_BLOCK_PARTIAL:
		if (!has_parent)
			return base_fail(err, -EBADMSG,
					 "VHDX payload entry 0x%016" PRIx64
					 ": state %d (partial) in a disk without a parent",
					 entry, VHDX_BLOCK_PARTIAL);
		return offset_check(entry, "payload", err);
	default:
		return base_fail(err, -EBADMSG,
				 "VHDX payload entry 0x%016" PRIx64 ": state %" PRIu32
				 " is not one of 0, 1, 2, 3, 6, 7",
				 entry, vhdx_entry_state(entry));
	}
}

int vhdx_bitmap_entry_decode(uint64_t entry, struct base_error *err)
{
	int code = reserved_check(entry, "sector bitmap", err);

	if (code < 0)
		return code;
	switch (vhdx_entry_state(entry)) {
	case VHDX_BITMAP_NOT_PRESENT:
		return 0;
	case VHDX_BITMAP_PRESENT:
		return offset_check(entry, "sector bitmap", err);
	default:
		return base_fail(err, -EBADMSG,
				 "VHDX sector bitmap entry 0x%016" PRIx64 ": state %" PRIu32
				 " is not 0 or 6",
				 entry, vhdx_entry_state(entry));
	}
}
