/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What would be booted from a raw disk image:
 *
 *   bootdisk_show [--sector 4096] [--here] FILE [KERNEL-OUT [INITRD-OUT]]
 *
 * --here: in this process, for debuggers; else through the locked-down helper as a worker does it.
 * Exit 0, or 1 with one line.
 */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "hypervisor/bootdisk/bootdisk.h"
#include "hypervisor/bootdisk/bootdisk_reader.h"

static int read_file(void *context, uint64_t offset, void *to, size_t size_bytes,
		     struct base_error *err)
{
	const int *fd = context;
	ssize_t got = pread(*fd, to, size_bytes, (off_t)offset);

	if (got < 0)
		return base_fail_errno(err, -errno, "read");
	if ((size_t)got != size_bytes)
		return base_fail(err, -EIO, "read at %" PRIu64 ": cut off", offset);
	return 0;
}

static int copy_out(int fd, const char *path)
{
	BASE_CLOSE int out = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
	uint8_t bytes[65536];
	ssize_t got = 0;
	off_t at = 0;

	if (out < 0)
		return 1;
	while ((got = pread(fd, bytes, sizeof(bytes), at)) > 0) {
		if (write(out, bytes, (size_t)got) != got)
			return 1;
		at += got;
	}
	return got < 0 ? 1 : 0;
}

static int show(const struct bootdisk_entry *entry, char *const outs[])
{
	(void)printf("from: %s\ntitle: %s\nkernel: %s\ninitrd: %s\ncmdline: %s\n", entry->from,
		     entry->title, entry->kernel_name, entry->initrd_name, entry->cmdline);
	if (outs[0] == NULL)
		return 0;
	if (copy_out(entry->kernel_fd, outs[0]) != 0)
		return 1;
	if (outs[1] == NULL || entry->initrd_fd < 0)
		return 0;
	return copy_out(entry->initrd_fd, outs[1]);
}

int main(int argc, char *argv[])
{
	BASE_CLEANUP(bootdisk_reader_freep) struct bootdisk_reader *reader = NULL;
	struct bootdisk_source source = { .sector_bytes = 512, .read = read_file };
	struct bootdisk_entry entry = { .kernel_fd = -1, .initrd_fd = -1 };
	struct base_error err = { 0 };
	bool here = false;
	struct stat about;
	int at = 1;
	int fd;
	int rc = 0;

	for (; at < argc && argv[at][0] == '-'; at++) {
		if (strcmp(argv[at], "--here") == 0)
			here = true;
		else if (strcmp(argv[at], "--sector") == 0 && at + 1 < argc)
			source.sector_bytes = (uint32_t)strtoul(argv[++at], NULL, 10);
	}
	if (at >= argc)
		return 2;
	if (!here)
		rc = bootdisk_reader_start(&reader, &err);
	fd = open(argv[at], O_RDONLY | O_CLOEXEC);
	if (fd < 0 || fstat(fd, &about) < 0) {
		(void)fprintf(stderr, "bootdisk_show: %s: cannot open\n", argv[at]);
		return 1;
	}
	source.size_bytes = (uint64_t)about.st_size;
	source.context = &fd;
	if (rc == 0)
		rc = here ? bootdisk_find(&source, &entry, &err)
			  : bootdisk_reader_find(reader, &source, &entry, &err);
	if (rc < 0) {
		(void)fprintf(stderr, "bootdisk_show: %s (%d)\n", err.text, rc);
		return 1;
	}
	return show(&entry, argv + at + 1);
}
