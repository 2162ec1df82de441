/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the parts of the boot disk reader share.  One thread; every byte from the disk is hostile.
 * Limits are here, each with its reason.
 */
#ifndef HYPERVISOR_BOOTDISK_BOOTDISK_PRIV_H
#define HYPERVISOR_BOOTDISK_BOOTDISK_PRIV_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/bytes.h"
#include "base/cleanup.h"
#include "base/error.h"
#include "hypervisor/bootdisk/bootdisk.h"

#define BOOTDISK_PARTS_MAX   128u       /* what a GPT of usual size holds */
#define BOOTDISK_CHAIN_MAX   64u        /* logical partitions of an MBR */
#define BOOTDISK_CONFIG_MAX  (1u << 20) /* a grub.cfg has some 20 KiB */
#define BOOTDISK_PATH_BYTES  512u
#define BOOTDISK_ENTRIES_MAX 256u /* menu entries, loader entries */
#define BOOTDISK_INITRDS_MAX 16u
#define BOOTDISK_LIST_MAX    4096u /* names looked at in one folder */

#define BOOTDISK_LINE_BYTES 65536u /* one line of the read cache */
#define BOOTDISK_LINES      32u

/* @limit, or what the source allows where that is less. */
static inline uint64_t bootdisk_most(const struct bootdisk_source *source, uint64_t limit)
{
	return source->file_bytes_max != 0 && source->file_bytes_max < limit
		       ? source->file_bytes_max
		       : limit;
}

/* The disk as bytes, through a small cache. */
struct bootdisk_io {
	const struct bootdisk_source *source;
	uint8_t *data;                 /* BOOTDISK_LINES lines */
	uint64_t line[BOOTDISK_LINES]; /* number + 1; 0 is empty */
	uint64_t used[BOOTDISK_LINES];
	uint64_t now;
};
BASE_MUST_CHECK int bootdisk_io_init(struct bootdisk_io *io, const struct bootdisk_source *source,
				     struct base_error *err);
void bootdisk_io_fini(struct bootdisk_io *io);
/* -EBADMSG outside the disk; what source->read() gives. */
BASE_MUST_CHECK int bootdisk_io_read(struct bootdisk_io *io, uint64_t offset, void *to,
				     size_t size_bytes, struct base_error *err);

enum bootdisk_table {
	BOOTDISK_TABLE_INVALID,
	BOOTDISK_TABLE_NONE,
	BOOTDISK_TABLE_MBR,
	BOOTDISK_TABLE_GPT,
	BOOTDISK_TABLES
};

struct bootdisk_part {
	uint64_t start_bytes;
	uint64_t size_bytes;
	uint32_t number; /* as Linux and GRUB count; 0: the whole disk */
	bool esp;
	bool xbootldr;
	bool active;
};

struct bootdisk_parts {
	enum bootdisk_table table;
	uint32_t count;
	struct bootdisk_part part[BOOTDISK_PARTS_MAX];
};
BASE_MUST_CHECK int bootdisk_parts_read(struct bootdisk_io *io, struct bootdisk_parts *ret_parts,
					struct base_error *err);

struct bootdisk_fs;
struct bootdisk_file {
	uint64_t size_bytes;
	uint64_t id; /* inode, first cluster */
	bool folder;
	uint64_t at_index; /* FAT: where the last read ended */
	uint32_t at_cluster;
};
/* Non-zero ends the listing and is returned. */
typedef int bootdisk_each(void *context, const char *name);

struct bootdisk_fs_ops {
	int (*lookup)(struct bootdisk_fs *fs, const char *path, struct bootdisk_file *ret_file,
		      struct base_error *err);
	int (*read)(struct bootdisk_fs *fs, struct bootdisk_file *file, uint64_t offset, void *to,
		    size_t size_bytes, struct base_error *err);
	int (*list)(struct bootdisk_fs *fs, const struct bootdisk_file *folder, bootdisk_each *each,
		    void *context, struct base_error *err);
	void (*close)(struct bootdisk_fs *fs); /* of what is in the structure; frees it too */
};

struct bootdisk_fs {
	const struct bootdisk_fs_ops *ops;
	struct bootdisk_io *io;
	uint64_t start_bytes;
	uint64_t size_bytes;
	const char *type; /* "ext4", "fat" */
	char uuid[40];    /* as blkid prints it */
	char label[64];
};
/* -ENODEV not this file system; -EBADMSG damaged. */
BASE_MUST_CHECK int bootdisk_ext_open(struct bootdisk_io *io, const struct bootdisk_part *part,
				      struct bootdisk_fs **ret_fs, struct base_error *err);
BASE_MUST_CHECK int bootdisk_fat_open(struct bootdisk_io *io, const struct bootdisk_part *part,
				      struct bootdisk_fs **ret_fs, struct base_error *err);
void bootdisk_fs_close(struct bootdisk_fs *fs);
BASE_DEFINE_FREEP(struct bootdisk_fs, bootdisk_fs_close);

/* -ENOENT; -EISDIR; -EFBIG. A terminated copy; free() it. */
BASE_MUST_CHECK int bootdisk_fs_text(struct bootdisk_fs *fs, const char *path, char **ret_text,
				     size_t *ret_bytes, struct base_error *err);
bool bootdisk_fs_has(struct bootdisk_fs *fs, const char *path, bool folder);
BASE_MUST_CHECK int bootdisk_fs_list(struct bootdisk_fs *fs, const char *path, bootdisk_each *each,
				     void *context, struct base_error *err);

/* The disk with its file systems, opened when first asked for. */
struct bootdisk_disk {
	struct bootdisk_io io;
	struct bootdisk_parts parts;
	struct bootdisk_fs *fs[BOOTDISK_PARTS_MAX];
	bool tried[BOOTDISK_PARTS_MAX];
	char notes[400]; /* what was looked at and what it lacked */
};
/* NULL: none that is understood (noted). */
struct bootdisk_fs *bootdisk_disk_fs(struct bootdisk_disk *disk, uint32_t index);
void bootdisk_note(struct bootdisk_disk *disk, const char *format, ...) BASE_PRINTF(2, 3);
/* What fits, terminated. */
void bootdisk_copy(char *to, size_t room, const char *from);
/* "gpt2", "msdos1", "disk" */
void bootdisk_part_name(const struct bootdisk_disk *disk, uint32_t index, char *to, size_t bytes);

/* One file, or a part of one. */
struct bootdisk_piece {
	uint32_t part; /* index */
	char path[BOOTDISK_PATH_BYTES];
	uint64_t offset;
	uint64_t size_bytes; /* 0: to the end */
};

/* What a boot loader's configuration chose. */
struct bootdisk_choice {
	struct bootdisk_piece kernel;
	struct bootdisk_piece initrd[BOOTDISK_INITRDS_MAX];
	uint32_t initrd_count;
	char cmdline[HV_CMDLINE_BYTES];
	char title[128];
};
BASE_MUST_CHECK int bootdisk_choice_load(struct bootdisk_disk *disk,
					 const struct bootdisk_choice *choice,
					 struct bootdisk_entry *ret_entry, struct base_error *err);

/* Run the grub.cfg at @path of partition @index.  -ENOENT: nothing to boot came out of it. */
BASE_MUST_CHECK int bootdisk_grub_run(struct bootdisk_disk *disk, uint32_t index, const char *path,
				      struct bootdisk_choice *ret_choice, struct base_error *err);

/* A loader entry (type 1 or 2). */
struct bootdisk_bls {
	char id[256]; /* file name without counters, with suffix */
	char title[128];
	char version[128];
	char sort_key[64];
	char machine_id[64];
	char architecture[16];
	char linux_path[BOOTDISK_PATH_BYTES];
	char initrd[4][BOOTDISK_PATH_BYTES];
	uint32_t initrd_count;
	char options[HV_CMDLINE_BYTES];
	uint32_t part;
	bool exhausted; /* boot counting: no tries left */
	bool uki;
	struct bootdisk_piece pieces[3]; /* of a UKI: linux, initrd, cmdline */
};
/* -EBADMSG: no "linux" line or longer than the room. */
BASE_MUST_CHECK int bootdisk_bls_decode(const char *text, const char *name,
					struct bootdisk_bls *ret_bls, struct base_error *err);
/* <0: @left is listed before @right. */
int bootdisk_bls_order(const struct bootdisk_bls *left, const struct bootdisk_bls *right);
int bootdisk_version_order(const char *left, const char *right);

struct bootdisk_bls_set {
	struct bootdisk_bls *entry; /* BOOTDISK_ENTRIES_MAX */
	uint32_t count;
};
void bootdisk_bls_set_fini(struct bootdisk_bls_set *set);
/* Add what is in folder @path of partition @index; a damaged entry is noted and left out. */
BASE_MUST_CHECK int bootdisk_bls_read(struct bootdisk_disk *disk, uint32_t index, const char *path,
				      struct bootdisk_bls_set *set, struct base_error *err);
void bootdisk_bls_sort(struct bootdisk_bls_set *set);
/* What systemd-boot on partition @index would take.  -ENOENT. */
BASE_MUST_CHECK int bootdisk_sdboot_run(struct bootdisk_disk *disk, uint32_t index,
					struct bootdisk_choice *ret_choice, struct base_error *err);

/* Sections of a unified kernel image. */
struct bootdisk_uki {
	struct {
		uint64_t offset;
		uint64_t size_bytes; /* 0: not there */
	} linux_image, initrd, cmdline, osrel;
};
#define BOOTDISK_UKI_HEAD_BYTES 8192u
/* @head: the beginning of a file of @file_bytes. */
BASE_MUST_CHECK int bootdisk_uki_decode(const uint8_t *head, size_t head_bytes, uint64_t file_bytes,
					struct bootdisk_uki *ret_uki, struct base_error *err);

/* The block that grub-editenv writes.  @each gets "name=value"; -EBADMSG. */
BASE_MUST_CHECK int bootdisk_grubenv_decode(const char *text, size_t bytes, bootdisk_each *each,
					    void *context, struct base_error *err);

#endif
