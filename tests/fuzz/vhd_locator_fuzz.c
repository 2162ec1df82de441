/* SPDX-License-Identifier: Apache-2.0 */
/* The first byte picks the kind of a VHD parent locator, the rest is its path. */
#include <stdlib.h>
#include <string.h>

#include "hypervisor/disk/vhd_format.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static const uint32_t codes[] = { VHD_CODE_W2RU, VHD_CODE_W2KU, VHD_CODE_MACX, 0 };
	char path[256];
	uint8_t *exact;

	if (size == 0)
		return 0;
	exact = malloc(size); /* so that a read past the end is seen */
	if (exact == NULL)
		return 0;
	memcpy(exact, data + 1, size - 1);
	if (vhd_locator_decode(codes[data[0] % 4], exact, size - 1, path, sizeof(path), NULL) ==
		    0 &&
	    (path[0] == '\0' || strlen(path) >= sizeof(path)))
		abort();
	free(exact);
	return 0;
}
