/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Parent locators: what is accepted is encoded and read again as the same.
 *
 * Reached: vhdx_locator_decode(), disk_utf16_to_utf8(), disk_utf16_from_utf8(), disk_guid_parse().
 */
#include <stdlib.h>
#include <string.h>

#include "hypervisor/disk/vhdx_format.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static struct vhdx_locator locator;
	static struct vhdx_locator again;
	static uint8_t bytes[65536];
	int length;

	if (vhdx_locator_decode(data, size, &locator, NULL) < 0)
		return 0;
	if (!locator.linkage2_present) /* zeros, which count as none */
		memset(&locator.linkage2, 0, sizeof(locator.linkage2));
	length = vhdx_locator_encode(&locator, bytes, sizeof(bytes), NULL);
	if (length < 0 || vhdx_locator_decode(bytes, (size_t)length, &again, NULL) < 0 ||
	    memcmp(&locator, &again, sizeof(again)) != 0)
		abort();
	return 0;
}
