/* SPDX-License-Identifier: Apache-2.0 */
/*
 * FAT12, FAT16 and FAT32: everything that can be listed is looked up and read.  Folders of a
 * damaged file system may be in circles, so depth and number are bounded here.
 *
 * Input: the disk's size in units of 4 KiB less one (le16), then records of fuzz_disk.h.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

#include "tests/fuzz/fuzz_disk.h"

/* NOLINTNEXTLINE(readability-identifier-naming) */
int LLVMFuzzerTestOneInput(const uint8_t *input, size_t size);

#define NAMES_MAX 64u
#define DEPTH_MAX 4u

struct walk {
	struct bootdisk_fs *fs;
	char path[BOOTDISK_PATH_BYTES];
	uint32_t depth;
	uint32_t names;
};

static void need(bool condition)
{
	if (!condition)
		abort();
}

/* In two parts, from behind first: the place where a read ended must not mislead the next. */
static void read_file(struct walk *walk, struct bootdisk_file *file)
{
	static uint8_t bytes[8192];
	uint64_t half = file->size_bytes / 2;
	size_t part = sizeof(bytes);

	if (part > file->size_bytes - half)
		part = (size_t)(file->size_bytes - half);
	(void)!walk->fs->ops->read(walk->fs, file, half, bytes, part, NULL);
	part = half < sizeof(bytes) ? (size_t)half : sizeof(bytes);
	(void)!walk->fs->ops->read(walk->fs, file, 0, bytes, part, NULL);
	need(walk->fs->ops->read(walk->fs, file, file->size_bytes, bytes, 1, NULL) == -EBADMSG);
}

static int visit(void *context, const char *name)
{
	struct walk *walk = context;
	struct bootdisk_file file = { .size_bytes = 0 };
	size_t used = strlen(walk->path);
	char *text = NULL;
	size_t text_bytes = 0;

	if (++walk->names > NAMES_MAX)
		return 1;
	need(strlen(name) <= 255);
	if (used + 1 + strlen(name) >= sizeof(walk->path))
		return 0;
	(void)snprintf(walk->path + used, sizeof(walk->path) - used, "/%s", name);
	if (walk->fs->ops->lookup(walk->fs, walk->path, &file, NULL) == 0) {
		if (!file.folder)
			read_file(walk, &file);
		if (!file.folder && file.size_bytes < 65536 &&
		    bootdisk_fs_text(walk->fs, walk->path, &text, &text_bytes, NULL) == 0)
			need(text[text_bytes] == '\0' && text_bytes == file.size_bytes);
		free(text);
		if (file.folder && walk->depth < DEPTH_MAX) {
			walk->depth++;
			(void)!walk->fs->ops->list(walk->fs, &file, visit, walk, NULL);
			walk->depth--;
		}
	}
	walk->path[used] = '\0';
	return 0;
}

int LLVMFuzzerTestOneInput(const uint8_t *input, size_t size)
{
	static struct fuzz_disk disk;
	struct base_reader in = base_reader_over(input, size);
	struct base_error err = { 0 };
	struct bootdisk_io io;
	uint64_t bytes = ((uint64_t)base_read_le16(&in) + 1) * 4096;
	const struct bootdisk_part part = { .size_bytes = bytes, .number = 1 };
	struct walk walk = { .names = 0 };
	int rc = 0;

	fuzz_disk_init(&disk, bytes, 512, &in);
	need(bootdisk_io_init(&io, &disk.source, NULL) == 0);
	rc = bootdisk_fat_open(&io, &part, &walk.fs, &err);
	need(rc == 0 || (err.text[0] != '\0' && (rc == -ENODEV || rc == -EBADMSG)));
	if (rc == 0) {
		need(memchr(walk.fs->label, 0, sizeof(walk.fs->label)) != NULL);
		need(memchr(walk.fs->uuid, 0, sizeof(walk.fs->uuid)) != NULL);
		(void)!bootdisk_fs_list(walk.fs, "/", visit, &walk, &err);
		(void)bootdisk_fs_has(walk.fs, "/boot/grub/grub.cfg", false);
		(void)bootdisk_fs_has(walk.fs, "/EFI/BOOT/../../EFI", true);
		bootdisk_fs_close(walk.fs);
	}
	bootdisk_io_fini(&io);
	return 0;
}
