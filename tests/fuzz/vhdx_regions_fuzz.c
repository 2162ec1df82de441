/* SPDX-License-Identifier: Apache-2.0 */
/*
 * VHDX region tables: the input is the begin of one, zeros follow; the checksum is made right when
 * the first byte is odd.  What is accepted lies inside the file and does not overlap.
 *
 * Reached: vhdx_regions_decode().
 */
#include <stdlib.h>
#include <string.h>

#include "base/bytes.h"
#include "base/crc32c.h"
#include "hypervisor/disk/vhdx_format.h"

#define FILE_BYTES (1ULL << 40)

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void inside(const struct vhdx_region *region)
{
	if (region->offset_bytes < VHDX_MIB || region->length_bytes == 0 ||
	    region->offset_bytes > FILE_BYTES - region->length_bytes)
		abort();
}

static void apart(const struct vhdx_region *a, const struct vhdx_region *b)
{
	if (a->offset_bytes < b->offset_bytes + b->length_bytes &&
	    b->offset_bytes < a->offset_bytes + a->length_bytes)
		abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static uint8_t bytes[VHDX_REGION_TABLE_BYTES];
	static struct vhdx_regions regions;

	if (size == 0 || size - 1 > sizeof(bytes))
		return -1;
	memset(bytes, 0, sizeof(bytes));
	memcpy(bytes, data + 1, size - 1);
	if ((data[0] & 1) != 0) {
		base_put_le32(bytes + 4, 0);
		base_put_le32(bytes + 4, base_crc32c(0, bytes, sizeof(bytes)));
	}
	if (vhdx_regions_decode(bytes, 0, FILE_BYTES, &regions, NULL) < 0)
		return 0;
	inside(&regions.bat);
	inside(&regions.metadata);
	apart(&regions.bat, &regions.metadata);
	for (uint32_t i = 0; i < regions.other_count; i++) {
		inside(&regions.other[i]);
		apart(&regions.other[i], &regions.bat);
		apart(&regions.other[i], &regions.metadata);
	}
	vhdx_regions_encode(&regions, bytes);
	if (vhdx_regions_decode(bytes, 0, FILE_BYTES, &regions, NULL) < 0)
		abort();
	return 0;
}
