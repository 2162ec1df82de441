/* SPDX-License-Identifier: Apache-2.0 */
/* The lease record of a local file: what is accepted is exactly what would be written. */
#include <stdlib.h>
#include <string.h>

#include "hypervisor/disk/local_store.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	char again[LOCAL_LEASE_BYTES];
	struct store_lease lease;

	if (local_lease_decode(data, size, &lease, NULL) < 0)
		return 0;
	if (local_lease_encode(&lease, again) != size || memcmp(data, again, size) != 0)
		abort();
	return 0;
}
