/* SPDX-License-Identifier: Apache-2.0 */
/* Which boot loader is asked, in which order, and the files of what it chose. */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "hypervisor/bootdisk/bootdisk_priv.h"

#define COPY_BYTES (1u << 20)

static int write_all(int fd, const uint8_t *data, size_t bytes, struct base_error *err)
{
	while (bytes > 0) {
		ssize_t written = write(fd, data, bytes);

		if (written < 0 && errno == EINTR)
			continue;
		if (written <= 0)
			return base_fail_errno(err, written < 0 ? -errno : -EIO, "boot file");
		data += written;
		bytes -= (size_t)written;
	}
	return 0;
}

/* Append @piece to @fd; *total grows, up to @most. */
static int copy_piece(struct bootdisk_disk *disk, const struct bootdisk_piece *piece, int fd,
		      uint64_t most, uint64_t *total, struct base_error *err)
{
	struct bootdisk_fs *fs = bootdisk_disk_fs(disk, piece->part);
	BASE_FREE uint8_t *buffer = malloc(COPY_BYTES);
	struct bootdisk_file file;
	uint64_t at = piece->offset;
	uint64_t left;
	int rc;

	if (fs == NULL || buffer == NULL)
		return base_fail(err, fs == NULL ? -ENOENT : -ENOMEM, "%s", piece->path);
	rc = fs->ops->lookup(fs, piece->path, &file, err);
	if (rc < 0)
		return rc;
	if (file.folder || at > file.size_bytes || piece->size_bytes > file.size_bytes - at)
		return base_fail(err, -EBADMSG, "%s: no such part of a file", piece->path);
	left = piece->size_bytes != 0 ? piece->size_bytes : file.size_bytes - at;
	if (left > most - *total)
		return base_fail(err, -EFBIG, "%s: %" PRIu64 " bytes: expected at most %" PRIu64,
				 piece->path, left, most - *total);
	*total += left;
	while (left > 0) {
		size_t bytes = left < COPY_BYTES ? (size_t)left : COPY_BYTES;

		rc = fs->ops->read(fs, &file, at, buffer, bytes, err);
		if (rc < 0)
			return base_fail_within(err, rc, "%s", piece->path);
		rc = write_all(fd, buffer, bytes, err);
		if (rc < 0)
			return rc;
		at += bytes;
		left -= bytes;
	}
	return 0;
}

/* The pieces one after the other, each from a multiple of four: what Linux wants of archives. */
static int load(struct bootdisk_disk *disk, const struct bootdisk_piece *pieces, uint32_t count,
		uint64_t most, int *ret_fd, struct base_error *err)
{
	static const uint8_t zeros[4];
	BASE_CLOSE int fd = -1;
	uint64_t total = 0;
	int rc = 0;

	fd = memfd_create("bootdisk", MFD_CLOEXEC | MFD_ALLOW_SEALING);
	if (fd < 0)
		return base_fail_errno(err, -errno, "boot file");
	for (uint32_t i = 0; i < count && rc == 0; i++) {
		size_t pad = (size_t)(-total & 3);

		if (i > 0 && pad > 0 && total + pad <= most) {
			rc = write_all(fd, zeros, pad, err);
			total += pad;
		}
		if (rc == 0)
			rc = copy_piece(disk, &pieces[i], fd, most, &total, err);
	}
	if (rc < 0)
		return rc;
	if (fcntl(fd, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_WRITE | F_SEAL_SEAL) < 0)
		return base_fail_errno(err, -errno, "boot file: seal");
	*ret_fd = base_take_fd(&fd);
	return 0;
}

int bootdisk_choice_load(struct bootdisk_disk *disk, const struct bootdisk_choice *choice,
			 struct bootdisk_entry *ret_entry, struct base_error *err)
{
	BASE_CLOSE int kernel = -1;
	BASE_CLOSE int initrd = -1;
	int rc;

	rc = load(disk, &choice->kernel, 1, bootdisk_most(disk->io.source, HV_KERNEL_BYTES_MAX),
		  &kernel, err);
	if (rc == 0 && choice->initrd_count > 0)
		rc = load(disk, choice->initrd, choice->initrd_count,
			  bootdisk_most(disk->io.source, HV_INITRD_BYTES_MAX), &initrd, err);
	if (rc < 0)
		return rc;
	memset(ret_entry, 0, sizeof(*ret_entry));
	bootdisk_copy(ret_entry->kernel_name, sizeof(ret_entry->kernel_name), choice->kernel.path);
	if (choice->initrd_count > 0)
		bootdisk_copy(ret_entry->initrd_name, sizeof(ret_entry->initrd_name),
			      choice->initrd[0].path);
	memcpy(ret_entry->title, choice->title, sizeof(ret_entry->title));
	memcpy(ret_entry->cmdline, choice->cmdline, sizeof(ret_entry->cmdline));
	ret_entry->kernel_fd = base_take_fd(&kernel);
	ret_entry->initrd_fd = base_take_fd(&initrd);
	return 0;
}

static void say_from(const struct bootdisk_disk *disk, uint32_t index, const char *path,
		     struct bootdisk_entry *entry)
{
	static const char *const tables[] = { "", "whole disk", "mbr", "gpt" };
	char number[32] = "";

	if (disk->parts.table != BOOTDISK_TABLE_NONE)
		(void)snprintf(number, sizeof(number), " partition %u",
			       disk->parts.part[index].number);
	(void)snprintf(entry->from, sizeof(entry->from), "%s%s, %s, %.60s",
		       tables[disk->parts.table], number, disk->fs[index]->type, path);
}

/* 0 found; 1 go on; else the end. */
static int try_grub(struct bootdisk_disk *disk, uint32_t index, const char *path,
		    struct bootdisk_entry *ret_entry, struct base_error *err)
{
	BASE_FREE struct bootdisk_choice *choice = malloc(sizeof(*choice));
	struct bootdisk_fs *fs = bootdisk_disk_fs(disk, index);
	struct base_error why = { 0 };
	int rc;

	if (choice == NULL)
		return base_fail(err, -ENOMEM, "boot entry");
	if (fs == NULL || !bootdisk_fs_has(fs, path, false))
		return 1;
	rc = bootdisk_grub_run(disk, index, path, choice, &why);
	if (rc == 0)
		rc = bootdisk_choice_load(disk, choice, ret_entry, &why);
	if (rc == 0) {
		say_from(disk, index, path, ret_entry);
		return 0;
	}
	if (rc != -ENOENT) {
		if (err != NULL)
			*err = why;
		return base_fail_within(err, rc, "boot disk: %s", path);
	}
	bootdisk_note(disk, "%.120s", why.text);
	return 1;
}

struct vendor {
	struct bootdisk_disk *disk;
	struct bootdisk_entry *entry;
	struct base_error *err;
	uint32_t index;
};

static int try_vendor(void *context, const char *name)
{
	struct vendor *vendor = context;
	char path[BOOTDISK_PATH_BYTES];
	int rc;

	(void)snprintf(path, sizeof(path), "/EFI/%.200s/grub.cfg", name);
	rc = try_grub(vendor->disk, vendor->index, path, vendor->entry, vendor->err);
	return rc == 0 ? 1 : rc == 1 ? 0 : rc; /* non-zero ends the listing */
}

static int try_sdboot(struct bootdisk_disk *disk, uint32_t index, struct bootdisk_entry *ret_entry,
		      struct base_error *err)
{
	BASE_FREE struct bootdisk_choice *choice = malloc(sizeof(*choice));
	struct bootdisk_fs *fs = bootdisk_disk_fs(disk, index);
	struct base_error why = { 0 };
	int rc;

	if (choice == NULL)
		return base_fail(err, -ENOMEM, "boot entry");
	if (!bootdisk_fs_has(fs, "/EFI/systemd/systemd-bootx64.efi", false) &&
	    !bootdisk_fs_has(fs, "/loader/loader.conf", false) &&
	    !bootdisk_fs_has(fs, "/EFI/Linux", true))
		return 1;
	rc = bootdisk_sdboot_run(disk, index, choice, &why);
	if (rc == 0)
		rc = bootdisk_choice_load(disk, choice, ret_entry, &why);
	if (rc == 0) {
		say_from(disk, index, "systemd-boot", ret_entry);
		return 0;
	}
	if (rc != -ENOENT) {
		if (err != NULL)
			*err = why;
		return base_fail_within(err, rc, "boot disk: systemd-boot");
	}
	bootdisk_note(disk, "%.120s", why.text);
	return 1;
}

static int try_esp(struct bootdisk_disk *disk, uint32_t index, struct bootdisk_entry *ret_entry,
		   struct base_error *err)
{
	struct vendor vendor = { .disk = disk, .entry = ret_entry, .err = err, .index = index };
	struct bootdisk_fs *fs = bootdisk_disk_fs(disk, index);
	int rc;

	if (fs == NULL)
		return 1;
	rc = try_sdboot(disk, index, ret_entry, err);
	if (rc != 1)
		return rc;
	rc = bootdisk_fs_list(fs, "/EFI", try_vendor, &vendor, NULL);
	if (rc == 1)
		return 0;
	return rc == 0 || rc == -ENOENT ? 1 : rc;
}

static int try_part(struct bootdisk_disk *disk, uint32_t index, struct bootdisk_entry *ret_entry,
		    struct base_error *err)
{
	static const char *const paths[] = { "/boot/grub/grub.cfg", "/boot/grub2/grub.cfg",
					     "/grub/grub.cfg", "/grub2/grub.cfg" };

	for (size_t i = 0; i < sizeof(paths) / sizeof(paths[0]); i++) {
		int rc = try_grub(disk, index, paths[i], ret_entry, err);

		if (rc != 1)
			return rc;
	}
	return 1;
}

static int find(struct bootdisk_disk *disk, struct bootdisk_entry *ret_entry,
		struct base_error *err)
{
	for (int round = 0; round < 3; round++) {
		for (uint32_t i = 0; i < disk->parts.count; i++) {
			const struct bootdisk_part *part = &disk->parts.part[i];
			int rc = 1;

			if (round == 0 && (part->esp || disk->parts.table == BOOTDISK_TABLE_NONE))
				rc = try_esp(disk, i, ret_entry, err);
			else if ((round == 1) == part->active && round > 0)
				rc = try_part(disk, i, ret_entry, err);
			if (rc != 1)
				return rc;
		}
	}
	return base_fail(err, -ENOENT, "boot disk: no boot entry: %s",
			 disk->notes[0] != '\0' ? disk->notes : "no grub.cfg, no systemd-boot");
}

int bootdisk_find(const struct bootdisk_source *source, struct bootdisk_entry *ret_entry,
		  struct base_error *err)
{
	BASE_FREE struct bootdisk_disk *disk = calloc(1, sizeof(*disk));
	int rc;

	if (disk == NULL)
		return base_fail(err, -ENOMEM, "boot disk");
	rc = bootdisk_io_init(&disk->io, source, err);
	if (rc < 0)
		return rc;
	rc = bootdisk_parts_read(&disk->io, &disk->parts, err);
	if (rc == 0)
		rc = find(disk, ret_entry, err);
	for (uint32_t i = 0; i < disk->parts.count; i++)
		bootdisk_fs_close(disk->fs[i]);
	bootdisk_io_fini(&disk->io);
	return rc;
}
