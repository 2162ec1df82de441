/* SPDX-License-Identifier: Apache-2.0 */
/* Any bytes as a VHD footer; what is accepted is encoded to the same bytes. */
#include <stdlib.h>
#include <string.h>

#include "hypervisor/disk/vhd_format.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	uint8_t bytes[VHD_FOOTER_BYTES] = { 0 };
	uint8_t again[VHD_FOOTER_BYTES];
	struct vhd_footer footer;

	memcpy(bytes, data, size < sizeof(bytes) ? size : sizeof(bytes));
	(void)!vhd_footer_decode(bytes, false, &footer, NULL);
	if (vhd_footer_decode(bytes, true, &footer, NULL) < 0)
		return 0;
	if (vhd_size_of(&footer) == 0 || vhd_size_of(&footer) > footer.current_bytes)
		abort();
	memcpy(again, bytes, sizeof(again));
	vhd_footer_encode(&footer, again);
	memcpy(again + 64, footer.sum_wrong ? bytes + 64 : again + 64, 4);
	if (memcmp(bytes, again, sizeof(again)) != 0)
		abort();
	return 0;
}
