/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Whole reads and writes, and files that are there entirely or not at all.
 * Any thread; calls block.
 */
#ifndef BASE_FILE_H
#define BASE_FILE_H

#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "base/error.h"

/* Write all bytes; over EINTR and short writes.  0 or -errno. */
BASE_MUST_CHECK int base_write_all(int fd, const void *data, size_t size_bytes);
BASE_MUST_CHECK int base_pwrite_all(int fd, const void *data, size_t size_bytes,
				    uint64_t offset_bytes);
/* Read exactly @size_bytes; -ENODATA when the file ends before. */
BASE_MUST_CHECK int base_read_all(int fd, void *to, size_t size_bytes);
BASE_MUST_CHECK int base_pread_all(int fd, void *to, size_t size_bytes, uint64_t offset_bytes);

/**
 * base_file_load - read a whole file into memory.
 * @path: shown in errors.  @limit_bytes: -EFBIG when the file is larger.
 * Gives a malloc'ed buffer with one zero byte after the content.
 * -ENOENT, -EACCES, ... from open; -EINVAL when it is no regular file; -ENOMEM.
 */
BASE_MUST_CHECK int base_file_load(const char *path, size_t limit_bytes, uint8_t **ret_data,
				   size_t *ret_size_bytes, struct base_error *err);

/*
 * A file that appears under its name only when whole and durable.
 *
 * Until then it is ".<name>.part" in the same directory, locked (flock) for as long as
 * somebody writes it.  One name, not a random one: what a killed writer left is written
 * over by the next one, or removed by base_new_file_sweep(); the lock tells it from a
 * file that is being written.
 *
 * begin: opens that file, locks and empties it.  @directory_fd is borrowed and must
 * outlive the object.  -EINVAL @name is empty, has a slash or begins with a dot;
 * -ENAMETOOLONG; -EBUSY another writer is at it; -EEXIST something is there that no
 * writer left (no file of ours with mode 0600 and one name); what the system said.
 *
 * commit: fsync of the file, rename over <name>, fsync of the directory.  Ends the
 * object either way.  -ETIMEDOUT the directory could not be synced: the file is in place
 * under <name>, but whether it survives a power cut is UNKNOWN; after any other error
 * the temporary file is gone and <name> is as before.
 *
 * abort: the temporary file is gone, <name> is as before.  After a commit it does nothing.
 *
 * Only the owner may read the file (mode 0600): it may hold a guest's memory.
 */
struct base_new_file {
	int directory_fd; /* borrowed */
	int fd;           /* owned; -1 when not open */
	char name[256];
	char temporary[264]; /* ".<name>.part" */
};
BASE_MUST_CHECK int base_new_file_begin(int directory_fd, const char *name,
					struct base_new_file *ret_file, struct base_error *err);
BASE_MUST_CHECK int base_new_file_commit(struct base_new_file *file, struct base_error *err);
void base_new_file_abort(struct base_new_file *file);

/**
 * base_new_file_sweep - remove what killed writers left in @directory_fd (borrowed).
 * Files ".*.part" that are ours (regular, mode 0600, one name) and that nobody has locked.
 * A writer that begins in the same instant may get -EBUSY.
 * Return: how many were removed; or -errno when the directory cannot be listed.
 */
BASE_MUST_CHECK int base_new_file_sweep(int directory_fd, struct base_error *err);

#endif
