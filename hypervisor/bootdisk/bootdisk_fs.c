/* SPDX-License-Identifier: Apache-2.0 */
/* Files of a file system of either kind; the file systems of a disk. */
#include <errno.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "hypervisor/bootdisk/bootdisk_priv.h"

void bootdisk_fs_close(struct bootdisk_fs *fs)
{
	if (fs != NULL)
		fs->ops->close(fs);
}

int bootdisk_fs_text(struct bootdisk_fs *fs, const char *path, char **ret_text, size_t *ret_bytes,
		     struct base_error *err)
{
	BASE_FREE char *text = NULL;
	struct bootdisk_file file;
	int rc;

	rc = fs->ops->lookup(fs, path, &file, err);
	if (rc < 0)
		return rc;
	if (file.folder)
		return base_fail(err, -EISDIR, "%s: a folder", path);
	if (file.size_bytes > BOOTDISK_CONFIG_MAX)
		return base_fail(err, -EFBIG, "%s: %" PRIu64 " bytes: expected at most %u", path,
				 file.size_bytes, BOOTDISK_CONFIG_MAX);
	text = calloc(1, (size_t)file.size_bytes + 1);
	if (text == NULL)
		return base_fail(err, -ENOMEM, "%s", path);
	rc = fs->ops->read(fs, &file, 0, text, (size_t)file.size_bytes, err);
	if (rc < 0)
		return base_fail_within(err, rc, "%s", path);
	*ret_text = base_take(&text);
	*ret_bytes = (size_t)file.size_bytes;
	return 0;
}

bool bootdisk_fs_has(struct bootdisk_fs *fs, const char *path, bool folder)
{
	struct bootdisk_file file;

	return fs->ops->lookup(fs, path, &file, NULL) == 0 && file.folder == folder;
}

int bootdisk_fs_list(struct bootdisk_fs *fs, const char *path, bootdisk_each *each, void *context,
		     struct base_error *err)
{
	struct bootdisk_file file;
	int rc = fs->ops->lookup(fs, path, &file, err);

	if (rc < 0)
		return rc;
	if (!file.folder)
		return base_fail(err, -ENOENT, "%s: no folder", path);
	return fs->ops->list(fs, &file, each, context, err);
}

void bootdisk_copy(char *to, size_t room, const char *from)
{
	size_t bytes = strnlen(from, room - 1);

	memcpy(to, from, bytes);
	to[bytes] = '\0';
}

void bootdisk_note(struct bootdisk_disk *disk, const char *format, ...)
{
	size_t used = strlen(disk->notes);
	va_list args;

	if (used + 4 >= sizeof(disk->notes))
		return;
	if (used > 0)
		used += (size_t)snprintf(disk->notes + used, sizeof(disk->notes) - used, "; ");
	va_start(args, format);
	(void)vsnprintf(disk->notes + used, sizeof(disk->notes) - used, format, args);
	va_end(args);
}

void bootdisk_part_name(const struct bootdisk_disk *disk, uint32_t index, char *to, size_t bytes)
{
	if (disk->parts.table == BOOTDISK_TABLE_NONE)
		(void)snprintf(to, bytes, "disk");
	else
		(void)snprintf(to, bytes, "%s%u",
			       disk->parts.table == BOOTDISK_TABLE_GPT ? "gpt" : "msdos",
			       disk->parts.part[index].number);
}

/* What is there instead, for people. */
static const char *other_content(struct bootdisk_io *io, const struct bootdisk_part *part)
{
	static const struct {
		uint32_t offset;
		const char *mark;
		const char *text;
	} known[] = {
		{ 0, "XFSB", "XFS" },        { 0, "LUKS\xba\xbe", "encrypted (LUKS)" },
		{ 512, "LABELONE", "LVM" }, /* in one of the first four sectors */
		{ 0, "LABELONE", "LVM" },    { 1024, "LABELONE", "LVM" },
		{ 1536, "LABELONE", "LVM" }, { 65600, "_BHRfS_M", "btrfs" },
	};

	for (size_t i = 0; i < sizeof(known) / sizeof(known[0]); i++) {
		char bytes[8];
		size_t length = strlen(known[i].mark);

		if (known[i].offset + sizeof(bytes) <= part->size_bytes &&
		    bootdisk_io_read(io, part->start_bytes + known[i].offset, bytes, length,
				     NULL) == 0 &&
		    memcmp(bytes, known[i].mark, length) == 0)
			return known[i].text;
	}
	return "unknown content";
}

struct bootdisk_fs *bootdisk_disk_fs(struct bootdisk_disk *disk, uint32_t index)
{
	const struct bootdisk_part *part = &disk->parts.part[index];
	struct base_error err = { 0 };
	char name[32];
	int rc;

	if (index >= disk->parts.count || disk->tried[index])
		return index < disk->parts.count ? disk->fs[index] : NULL;
	disk->tried[index] = true;
	rc = bootdisk_ext_open(&disk->io, part, &disk->fs[index], &err);
	if (rc == -ENODEV)
		rc = bootdisk_fat_open(&disk->io, part, &disk->fs[index], &err);
	if (rc < 0) {
		disk->fs[index] = NULL;
		bootdisk_part_name(disk, index, name, sizeof(name));
		if (rc == -ENODEV)
			bootdisk_note(disk, "%s: %s: expected ext2/3/4 or FAT", name,
				      other_content(&disk->io, part));
		else
			bootdisk_note(disk, "%s: %.80s", name, err.text);
	}
	return disk->fs[index];
}
