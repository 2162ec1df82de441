/* SPDX-License-Identifier: Apache-2.0 */
/* The record of the image that goes on from another. */
#include <stdlib.h>
#include <string.h>

#include "hypervisor/disk/disk_next.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	uint8_t padded[DISK_NEXT_BYTES] = { 0 };
	uint8_t again[DISK_NEXT_BYTES];
	char name[STORE_NAME_BYTES];

	if (size > sizeof(padded))
		return 0;
	memcpy(padded, data, size); /* short inputs are the interesting ones: the rest is zeros */
	if (disk_next_decode(padded, sizeof(padded), name, NULL) < 0)
		return 0;
	if (disk_next_encode(name, again, NULL) < 0 || memcmp(padded, again, sizeof(again)) != 0)
		abort();
	return 0;
}
