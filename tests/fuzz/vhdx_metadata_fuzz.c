/* SPDX-License-Identifier: Apache-2.0 */
/*
 * VHDX metadata regions.  The input: two bytes, how much of it is the table's begin; the rest are
 * the items' bytes from 64 KiB on.  Zeros fill both.  What is accepted keeps every rule.
 *
 * Reached: vhdx_metadata_needed(), vhdx_metadata_decode(), vhdx_locator_decode().
 */
#include <stdlib.h>
#include <string.h>

#include "base/bytes.h"
#include "hypervisor/disk/vhdx_format.h"

#define REGION_BYTES (1U << 20)

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static uint8_t bytes[REGION_BYTES];
	static struct vhdx_metadata meta;
	uint32_t needed = 0;
	size_t table;

	if (size < 2 || size > 65536)
		return -1;
	table = base_get_le16(data);
	data += 2;
	size -= 2;
	table = table < size ? table : size;
	memset(bytes, 0, sizeof(bytes));
	memcpy(bytes, data, table);
	memcpy(bytes + VHDX_METADATA_TABLE_BYTES, data + table, size - table);
	if (vhdx_metadata_needed(bytes, REGION_BYTES, 0, &needed, NULL) < 0)
		return 0;
	if (needed > REGION_BYTES)
		abort();
	if (vhdx_metadata_decode(bytes, needed, 0, &meta, NULL) < 0)
		return 0;
	if (meta.disk_bytes == 0 || meta.disk_bytes > VHDX_DISK_BYTES_MAX ||
	    meta.disk_bytes % meta.logical_sector_bytes != 0 ||
	    meta.block_bytes < VHDX_BLOCK_BYTES_MIN || meta.block_bytes > VHDX_BLOCK_BYTES_MAX ||
	    (meta.has_parent && !meta.locator.linkage_present))
		abort();
	return 0;
}
