/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Configurations of boot loaders with the files they lead to: grub.cfg with what it sources, its
 * environment and loader entries, and what systemd-boot reads.  The files come from the input, so
 * nothing of a file system is in the way.
 *
 * Input: a line of options (g or s: GRUB or systemd-boot; 2: another partition with the same files;
 * e: the first is an EFI system partition; n: the whole disk, without a table), then files, each
 * with a line "=/PATH" before it.  The first is the grub.cfg that GRUB runs.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "hypervisor/bootdisk/bootdisk_priv.h"

/* NOLINTNEXTLINE(readability-identifier-naming) */
int LLVMFuzzerTestOneInput(const uint8_t *input, size_t size);

#define FILES_MAX 64u

struct text_file {
	const char *path; /* not terminated */
	size_t path_bytes;
	const char *text;
	size_t text_bytes;
};

static struct {
	struct text_file file[FILES_MAX];
	uint32_t file_count;
} files;

static void need(bool condition)
{
	if (!condition)
		abort();
}

/* --- the files as a file system --- */

/* A folder is what other paths begin with. */
static bool is_folder(const char *path, size_t bytes)
{
	for (uint32_t i = 0; i < files.file_count; i++)
		if (files.file[i].path_bytes > bytes && files.file[i].path[bytes] == '/' &&
		    memcmp(files.file[i].path, path, bytes) == 0)
			return true;
	return false;
}

static int text_lookup(struct bootdisk_fs *fs, const char *path, struct bootdisk_file *ret_file,
		       struct base_error *err)
{
	size_t bytes = strlen(path);

	(void)fs;
	while (bytes > 0 && path[bytes - 1] == '/')
		bytes--;
	for (uint32_t i = 0; i < files.file_count; i++) {
		const struct text_file *file = &files.file[i];

		if (file->path_bytes != bytes || memcmp(file->path, path, bytes) != 0)
			continue;
		*ret_file = (struct bootdisk_file){ .size_bytes = file->text_bytes, .id = i };
		return 0;
	}
	for (uint32_t i = 0; i < files.file_count && is_folder(path, bytes); i++) {
		if (files.file[i].path_bytes <= bytes ||
		    memcmp(files.file[i].path, path, bytes) != 0 ||
		    files.file[i].path[bytes] != '/')
			continue;
		/* Named by the first file in it, and how much of its path is the folder's. */
		*ret_file =
			(struct bootdisk_file){ .folder = true, .id = (uint64_t)i << 32 | bytes };
		return 0;
	}
	return base_fail(err, -ENOENT, "%s: not found", path);
}

static int text_read(struct bootdisk_fs *fs, struct bootdisk_file *file, uint64_t offset, void *to,
		     size_t size_bytes, struct base_error *err)
{
	(void)fs;
	(void)err;
	need(!file->folder && offset <= file->size_bytes &&
	     size_bytes <= file->size_bytes - offset);
	memcpy(to, files.file[file->id].text + offset, size_bytes);
	return 0;
}

static int text_list(struct bootdisk_fs *fs, const struct bootdisk_file *folder,
		     bootdisk_each *each, void *context, struct base_error *err)
{
	size_t bytes = (uint32_t)folder->id;
	const char *path = files.file[folder->id >> 32].path;

	(void)fs;
	(void)err;
	for (uint32_t i = 0; i < files.file_count; i++) {
		char name[256];
		size_t name_bytes = 0;
		const char *at = files.file[i].path + bytes + 1;
		int rc = 0;

		if (files.file[i].path_bytes <= bytes + 1 ||
		    memcmp(files.file[i].path, path, bytes) != 0 || at[-1] != '/')
			continue;
		name_bytes = files.file[i].path_bytes - bytes - 1;
		if (name_bytes >= sizeof(name) || memchr(at, '/', name_bytes) != NULL)
			continue;
		memcpy(name, at, name_bytes);
		name[name_bytes] = '\0';
		rc = each(context, name);
		if (rc != 0)
			return rc;
	}
	return 0;
}

static void text_close(struct bootdisk_fs *fs)
{
	(void)fs;
}

static const struct bootdisk_fs_ops text_ops = {
	.lookup = text_lookup,
	.read = text_read,
	.list = text_list,
	.close = text_close,
};

/* --- the input --- */

static const char *line_end(const char *at, const char *end)
{
	const char *found = memchr(at, '\n', (size_t)(end - at));

	return found != NULL ? found : end;
}

static void take_files(const char *at, const char *end)
{
	struct text_file *file = NULL;

	files.file_count = 0;
	while (at < end) {
		const char *stop = line_end(at, end);

		if (stop - at > 1 && at[0] == '=' && at[1] == '/') {
			if (file != NULL)
				file->text_bytes = (size_t)(at - file->text);
			if (files.file_count == FILES_MAX)
				return;
			file = &files.file[files.file_count++];
			*file = (struct text_file){ .path = at + 1,
						    .path_bytes = (size_t)(stop - at - 1),
						    .text = stop < end ? stop + 1 : end };
		}
		at = stop < end ? stop + 1 : end;
	}
	if (file != NULL)
		file->text_bytes = (size_t)(end - file->text);
}

static void check_piece(const struct bootdisk_disk *disk, const struct bootdisk_piece *piece)
{
	need(piece->part < disk->parts.count);
	need(memchr(piece->path, 0, sizeof(piece->path)) != NULL);
}

static void check(const struct bootdisk_disk *disk, const struct bootdisk_choice *choice)
{
	check_piece(disk, &choice->kernel);
	need(choice->initrd_count <= BOOTDISK_INITRDS_MAX);
	for (uint32_t i = 0; i < choice->initrd_count; i++)
		check_piece(disk, &choice->initrd[i]);
	need(memchr(choice->cmdline, 0, sizeof(choice->cmdline)) != NULL);
	need(memchr(choice->title, 0, sizeof(choice->title)) != NULL);
}

static bool has(const char *options, size_t bytes, char option)
{
	return memchr(options, option, bytes) != NULL;
}

int LLVMFuzzerTestOneInput(const uint8_t *input, size_t size)
{
	static struct bootdisk_disk disk;
	static struct bootdisk_choice choice;
	static struct bootdisk_fs fs = {
		.ops = &text_ops, .type = "ext4", .uuid = "1234-ABCD", .label = "root"
	};
	const char *text = (const char *)input;
	const char *end = text + size;
	struct base_error err = { 0 };
	char path[BOOTDISK_PATH_BYTES];
	size_t options = 0;
	int rc = 0;

	if (size == 0)
		return 0;
	options = (size_t)(line_end(text, end) - text);
	memset(&disk, 0, sizeof(disk));
	take_files(text + options, end);
	disk.parts.table = has(text, options, 'n') ? BOOTDISK_TABLE_NONE : BOOTDISK_TABLE_GPT;
	disk.parts.count = has(text, options, '2') ? 2 : 1;
	for (uint32_t i = 0; i < disk.parts.count; i++) {
		disk.parts.part[i] = (struct bootdisk_part){
			.number = disk.parts.table == BOOTDISK_TABLE_NONE ? 0 : i + 1,
			.esp = i == 0 && has(text, options, 'e'),
			.xbootldr = i == 1,
		};
		disk.tried[i] = true;
		disk.fs[i] = &fs;
	}
	if (has(text, options, 's')) {
		rc = bootdisk_sdboot_run(&disk, 0, &choice, &err);
	} else {
		if (files.file_count == 0 || files.file[0].path_bytes >= sizeof(path) ||
		    memchr(files.file[0].path, 0, files.file[0].path_bytes) != NULL)
			return 0;
		memcpy(path, files.file[0].path, files.file[0].path_bytes);
		path[files.file[0].path_bytes] = '\0';
		rc = bootdisk_grub_run(&disk, 0, path, &choice, &err);
	}
	need(memchr(disk.notes, 0, sizeof(disk.notes)) != NULL);
	if (rc == 0)
		check(&disk, &choice);
	else
		need(err.text[0] != '\0');
	return 0;
}
