/* SPDX-License-Identifier: Apache-2.0 */
/*
 * BAT entries and the shape of the table: any geometry, any entry.
 *
 * Reached: vhdx_payload_entry_decode(), vhdx_bitmap_entry_decode(), vhdx_bat_shape().
 */
#include <stdlib.h>

#include "base/bytes.h"
#include "hypervisor/disk/vhdx_format.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void shape_check(uint64_t disk_bytes, uint32_t block_bytes, uint32_t sector, bool has_parent)
{
	struct vhdx_bat_shape shape = vhdx_bat_shape(disk_bytes, block_bytes, sector, has_parent);
	uint64_t last = shape.block_count - 1;

	if (shape.block_count * block_bytes < disk_bytes ||
	    (shape.block_count - 1) * block_bytes >= disk_bytes)
		abort();
	if (last + last / shape.chunk_ratio >= shape.entry_count)
		abort();
	if (has_parent && shape.entry_count % (shape.chunk_ratio + 1) != 0)
		abort();
	if (!has_parent && last + last / shape.chunk_ratio + 1 != shape.entry_count)
		abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct base_reader in = base_reader_over(data, size);
	uint8_t flags = base_read_u8(&in);
	uint32_t sector = (flags & 1) != 0 ? 512 : 4096;
	uint64_t disk = base_read_le64(&in) % (VHDX_DISK_BYTES_MAX / sector) * sector + sector;

	shape_check(disk, VHDX_BLOCK_BYTES_MIN << ((flags >> 1) % 9), sector, (flags & 32) != 0);
	while (base_reader_left(&in) >= 8) {
		uint64_t entry = base_read_le64(&in);

		if (vhdx_payload_entry_decode(entry, (flags & 32) != 0, NULL) == 0 &&
		    vhdx_entry_state(entry) >= VHDX_BLOCK_FULL &&
		    vhdx_entry_offset(entry) < VHDX_MIB)
			abort();
		if (vhdx_bitmap_entry_decode(entry, NULL) == 0 && vhdx_entry_state(entry) != 0 &&
		    (entry & 0xfffffU) != VHDX_BITMAP_PRESENT)
			abort();
	}
	return 0;
}
