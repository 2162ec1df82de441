/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Boot what is on the disk: the kernel, initial ramdisk and command line that the boot loader
 * installed on a guest's disk (GRUB or systemd-boot) would take by itself, read from the boot
 * partition (ext2/3/4 or FAT; GPT or MBR), so that a guest's own kernel upgrade takes effect.
 *
 * Everything on the disk is hostile.  bootdisk_find() runs in a process of its own that can do
 * nothing but read the disk through its parent: bootdisk_reader.h.
 *
 * What is understood: docs/hypervisor/bootdisk.md.
 */
#ifndef HYPERVISOR_BOOTDISK_BOOTDISK_H
#define HYPERVISOR_BOOTDISK_BOOTDISK_H

#include <stddef.h>
#include <stdint.h>

#include "base/error.h"
#include "hypervisor/hv_limits.h"

/* Where the bytes come from.  read: @offset and @size_bytes whole sectors inside the disk;
 * negative errno. */
struct bootdisk_source {
	uint64_t size_bytes;
	uint32_t sector_bytes;
	/* Of the kernel and of all initial ramdisks together, where HV_KERNEL_BYTES_MAX and so on
	 * are more; 0: no less than these.  What does not fit into the guest need not be held for
	 * it. */
	uint64_t file_bytes_max;
	int (*read)(void *context, uint64_t offset, void *to, size_t size_bytes,
		    struct base_error *err);
	void *context;
};

/* What to boot.  Descriptors are sealed memfds that the caller closes. */
struct bootdisk_entry {
	int kernel_fd;
	int initrd_fd; /* -1: none; several are joined in order */
	char kernel_name[256];
	char initrd_name[256];
	char title[128];
	char cmdline[HV_CMDLINE_BYTES];
	char from[128]; /* for people: "gpt partition 2, ext4, /boot/grub/grub.cfg" */
};

/* -ENOENT nothing bootable (the text says what was looked at and what each lacked); -EBADMSG the
 * disk or its file systems are damaged; -EFBIG beyond the limits of a file; -EIO. */
BASE_MUST_CHECK int bootdisk_find(const struct bootdisk_source *source,
				  struct bootdisk_entry *ret_entry, struct base_error *err);

#endif
