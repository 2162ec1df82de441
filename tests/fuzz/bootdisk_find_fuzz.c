/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A whole disk: partition tables, file systems, boot loaders.
 *
 * Reached: bootdisk_find() and everything under it.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "hypervisor/bootdisk/bootdisk.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static int read_bytes(void *context, uint64_t offset, void *to, size_t bytes,
		      struct base_error *err)
{
	(void)err;
	memcpy(to, (const uint8_t *)context + offset, bytes);
	return 0;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct bootdisk_entry entry = { .kernel_fd = -1, .initrd_fd = -1 };
	struct base_error err = { 0 };
	uint8_t *copy = malloc(size + 1);
	struct bootdisk_source source = { .size_bytes = size - size % 512,
					  .sector_bytes = 512,
					  .read = read_bytes };

	if (copy == NULL)
		return -1;
	memcpy(copy, data, size);
	source.context = copy;
	if (bootdisk_find(&source, &entry, &err) == 0) {
		(void)close(entry.kernel_fd);
		if (entry.initrd_fd >= 0)
			(void)close(entry.initrd_fd);
	} else if (err.text[0] == '\0') {
		abort();
	}
	free(copy);
	return 0;
}
