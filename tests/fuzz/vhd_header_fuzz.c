/* SPDX-License-Identifier: Apache-2.0 */
/* Any bytes as a VHD dynamic header; what is accepted is encoded to the same bytes. */
#include <stdlib.h>
#include <string.h>

#include "hypervisor/disk/vhd_format.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	uint8_t bytes[VHD_HEADER_BYTES] = { 0 };
	uint8_t again[VHD_HEADER_BYTES];
	struct vhd_header header;
	char path[1024];

	memcpy(bytes, data, size < sizeof(bytes) ? size : sizeof(bytes));
	(void)!vhd_header_decode(bytes, false, &header, NULL);
	if (vhd_header_decode(bytes, true, &header, NULL) < 0)
		return 0;
	(void)!vhd_parent_name(&header, path, sizeof(path), NULL);
	memcpy(again, bytes, sizeof(again));
	vhd_header_encode(&header, again);
	memcpy(again + 36, header.sum_wrong ? bytes + 36 : again + 36, 4);
	if (memcmp(bytes, again, sizeof(again)) != 0)
		abort();
	return 0;
}
