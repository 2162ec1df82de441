/* SPDX-License-Identifier: Apache-2.0 */
/* The section `disks` of a saved state, for a machine that has none. */
#include "agent/vm_devices_priv.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static struct vm_devices devices;
	struct base_reader in = base_reader_over(data, size);

	(void)!vm_devices_state_decode(&devices, &in, NULL);
	return 0;
}
