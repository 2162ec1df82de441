/* SPDX-License-Identifier: Apache-2.0 */
/*
 * godwit disk boot-entry.
 */
#include <errno.h>
#include <jansson.h>
#include <stdlib.h>
#include <string.h>

#include "agent/cli_disk_priv.h"
#include "base/cleanup.h"
#include "base/plain.h"
#include "hypervisor/bootdisk/bootdisk_reader.h"

#define BOOT_BUFFER_BYTES 65536u

struct boot_read {
	struct cli_disk *session;
	struct disk *disk;
	uint8_t *buffer; /* aligned as a disk wants it */
};

static int read_disk(void *context, uint64_t offset, void *to, size_t size_bytes,
		     struct base_error *err)
{
	struct boot_read *from = context;
	struct cli_disk_wait wait = {
		.request = { .op = DISK_READ, .offset_bytes = offset, .length_bytes = size_bytes }
	};
	int rc;

	if (size_bytes > BOOT_BUFFER_BYTES)
		return base_fail(err, -EINVAL, "read of %zu bytes", size_bytes);
	cli_disk_start(from->session, from->disk, &wait, from->buffer);
	rc = cli_disk_wait(&wait);
	if (rc < 0)
		return base_fail_errno(err, -EIO, "the image cannot be read");
	memcpy(to, from->buffer, size_bytes);
	return 0;
}

static int show(const struct cli_disk_args *args, struct bootdisk_entry *entry,
		struct base_error *err)
{
	base_plain(entry->cmdline); /* shown, not booted */
	if (cli_disk_wants_json(args))
		return cli_disk_print_json(json_pack("{s:s, s:s, s:s, s:s, s:s}", "from",
						     entry->from, "title", entry->title, "kernel",
						     entry->kernel_name, "initrd",
						     entry->initrd_name, "cmdline", entry->cmdline),
					   err);
	(void)printf("from: %s\ntitle: %s\nkernel: %s\ninitrd: %s\ncmdline: %s\n", entry->from,
		     entry->title, entry->kernel_name,
		     entry->initrd_name[0] != '\0' ? entry->initrd_name : "none", entry->cmdline);
	return 0;
}

static int look(struct cli_disk *session, struct bootdisk_reader *reader,
		const struct cli_disk_args *args, struct base_error *err)
{
	CLI_DISK_CLOSE struct disk *disk = NULL;
	BASE_FREE uint8_t *buffer = aligned_alloc(4096, BOOT_BUFFER_BYTES);
	struct boot_read from = { .session = session, .buffer = buffer };
	struct bootdisk_source source = { .read = read_disk, .context = &from };
	struct bootdisk_entry entry = { .kernel_fd = -1, .initrd_fd = -1 };
	struct disk_layer_info info = { .size_bytes = 0 };
	int rc;

	if (buffer == NULL)
		return base_fail(err, -ENOMEM, "%s", args->name);
	rc = cli_disk_open(session, args->name, args->format, true, &disk, err);
	if (rc == 0)
		rc = disk_layer(disk, 0, &info, err);
	if (rc < 0)
		return rc;
	from.disk = disk;
	source.size_bytes = info.size_bytes;
	source.sector_bytes = info.logical_sector_bytes;
	rc = bootdisk_reader_find(reader, &source, &entry, err);
	if (rc == 0)
		rc = show(args, &entry, err);
	base_closep(&entry.kernel_fd);
	base_closep(&entry.initrd_fd);
	return rc;
}

int cli_disk_boot_entry(const void *arguments, struct base_error *err)
{
	BASE_CLEANUP(bootdisk_reader_freep) struct bootdisk_reader *reader = NULL;
	struct cli_disk session = { 0 };
	int rc = bootdisk_reader_start(&reader, err); /* before there are threads */

	if (rc == 0)
		rc = cli_disk_begin(&session, err);
	if (rc == 0)
		rc = look(&session, reader, arguments, err);
	cli_disk_end(&session);
	return rc;
}
