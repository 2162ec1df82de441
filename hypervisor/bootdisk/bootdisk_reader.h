/* SPDX-License-Identifier: Apache-2.0 */
/*
 * bootdisk_find() in a process that can do nothing else.
 *
 * A helper process is forked early and stays idle, below a keeper that does nothing but make it
 * anew when something has ended it.  For each request it forks a child that locks
 * itself down (no new privileges, a short list of system calls, limits on memory and processor
 * time) and reads the disk only by asking the caller.  What comes back is checked as hostile.
 * One request at a time; any thread that may block.
 */
#ifndef HYPERVISOR_BOOTDISK_BOOTDISK_READER_H
#define HYPERVISOR_BOOTDISK_BOOTDISK_READER_H

#include "base/cleanup.h"
#include "base/error.h"
#include "hypervisor/bootdisk/bootdisk.h"

struct bootdisk_reader;

/* Before the process has threads, privileged descriptors or a lock-down: keeper and helper are its
 * copies.  They close every descriptor but their socket, and end when the reader is freed or its
 * owner dies. */
BASE_MUST_CHECK int bootdisk_reader_start(struct bootdisk_reader **ret_reader,
					  struct base_error *err);
void bootdisk_reader_free(struct bootdisk_reader *reader);
BASE_DEFINE_FREEP(struct bootdisk_reader, bootdisk_reader_free);

/**
 * bootdisk_reader_find - as bootdisk_find(), which see.
 * Blocks up to BOOTDISK_READER_LIMIT_MS and one source->read(), which is called on this thread.
 * Also: -EIO the helper is gone, and its keeper too or has made it anew too often; -ETIMEDOUT the
 * limit (nothing has an effect outside); -EBADMSG also when the child broke its limits, fell, or
 * answered what it must not.
 */
#define BOOTDISK_READER_LIMIT_MS 60000u /* 1 GiB at 20 MB/s */
BASE_MUST_CHECK int bootdisk_reader_find(struct bootdisk_reader *reader,
					 const struct bootdisk_source *source,
					 struct bootdisk_entry *ret_entry, struct base_error *err);

#endif
