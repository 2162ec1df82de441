/* SPDX-License-Identifier: Apache-2.0 */
/* The kernel that the boot loader on the VM's disk would take, at boot and at each reset. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "agent/vm_devices_priv.h"
#include "base/cleanup.h"
#include "base/log.h"

#define BOOT_BUFFER_BYTES 65536u

struct boot_read {
	struct disk *disk;
	uint8_t *buffer; /* aligned as a disk wants it */
};

static int read_disk(void *context, uint64_t offset, void *to, size_t size_bytes,
		     struct base_error *err)
{
	struct boot_read *from = context;
	int code;

	if (size_bytes > BOOT_BUFFER_BYTES)
		return base_fail(err, -EINVAL, "boot: read of %zu bytes", size_bytes);
	code = disk_do(from->disk, DISK_READ, offset, from->buffer, size_bytes, err);
	if (code < 0) /* also given back: no damage of the disk, which other codes are taken for */
		return base_fail_errno(err, -EIO, "the image cannot be read");
	memcpy(to, from->buffer, size_bytes);
	return 0;
}

int vm_devices_find_kernel(struct vm_devices *devices, struct bootdisk_entry *ret_entry,
			   struct base_error *err)
{
	struct vm_disk *disk = vm_devices_boot_disk(devices);
	BASE_FREE uint8_t *buffer = aligned_alloc(4096, BOOT_BUFFER_BYTES);
	struct boot_read from = { .buffer = buffer };
	struct bootdisk_source source = { .read = read_disk, .context = &from };
	struct disk_geometry geometry;
	int code;

	if (disk == NULL)
		return base_fail(err, -ENOENT, "boot: no disk: expected one with an image");
	if (buffer == NULL)
		return base_fail(err, -ENOMEM, "boot from disk '%s'", disk->config.path);
	from.disk = disk->disk;
	disk_geometry(disk->disk, &geometry);
	source.size_bytes = geometry.size_bytes;
	source.sector_bytes = geometry.logical_sector_bytes;
	source.file_bytes_max = devices->config->memory_bytes;
	/* A store that is gone must not hold the thread that changes the machine: its reads fail
	 * instead of waiting.  No request of the guest's is under way. */
	disk_give_back(disk->disk);
	code = bootdisk_reader_find(devices->options.boot_reader, &source, ret_entry, err);
	disk_keep(disk->disk);
	return code < 0 ? base_fail_within(err, code, "boot from disk '%s'", disk->config.path) : 0;
}

int vm_devices_load_kernel(void *context, struct base_error *err)
{
	struct vm_devices *devices = context;
	struct bootdisk_entry *mine = &devices->boot;
	struct bootdisk_entry entry = { .kernel_fd = -1, .initrd_fd = -1 };
	struct hv_machine_kernel kernel = { .kernel_name = mine->kernel_name,
					    .initrd_name = mine->initrd_name,
					    .cmdline = entry.cmdline };
	int code = vm_devices_find_kernel(devices, &entry, err);

	if (code < 0)
		return code;
	kernel.kernel_fd = entry.kernel_fd;
	kernel.initrd_fd = entry.initrd_fd;
	code = hv_machine_set_kernel(devices->machine, &kernel, err);
	if (code < 0) {
		base_closep(&entry.kernel_fd);
		base_closep(&entry.initrd_fd);
		return code;
	}
	base_closep(&mine->kernel_fd);
	base_closep(&mine->initrd_fd);
	*mine = entry;
	base_log(BASE_LOG_NOTICE, "vm.boot-entry", "vm=%s from=%s kernel=%s title=%s",
		 devices->config->name, base_log_str(mine->from), base_log_str(mine->kernel_name),
		 base_log_str(mine->title));
	return 0;
}
