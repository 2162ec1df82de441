/* SPDX-License-Identifier: Apache-2.0 */
/* The kernel that the boot loader on the VM's disk would take, at boot and at each reset. */
#include <errno.h>

#include "agent/vm_devices_priv.h"

int vm_devices_load_kernel(void *context, struct base_error *err)
{
	struct vm_devices *devices = context;
	struct vm_disk *disk = vm_devices_boot_disk(devices);

	if (disk == NULL)
		return base_fail(err, -ENOENT, "boot: no disk: expected one with an image");
	return base_fail(err, -ENOTSUP, "boot from disk '%s': expected the key 'kernel'",
			 disk->config.path);
}
