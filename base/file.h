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
 * begin: creates "<name>.<random>.tmp" in @directory_fd (borrowed, must outlive it);
 * commit: fsync of the file, rename over <name>, fsync of the directory;
 * abort (or free without commit): the temporary file is gone, <name> is as before.
 *
 * Only the owner may read the file (mode 0600): it may hold a guest's memory.
 * begin: -EINVAL when @name is empty, "." or ".." or has a slash; -ENAMETOOLONG;
 * what openat gave.  commit ends the object either way: on failure the temporary file
 * is gone and <name> is as before, except that a failed fsync of the directory (the
 * text says so) leaves the new file in place.  abort after either does nothing.
 */
struct base_new_file {
	int directory_fd; /* borrowed */
	int fd;           /* owned; -1 when not open */
	char name[256];
	char temporary[288];
};
BASE_MUST_CHECK int base_new_file_begin(int directory_fd, const char *name,
					struct base_new_file *ret_file, struct base_error *err);
BASE_MUST_CHECK int base_new_file_commit(struct base_new_file *file, struct base_error *err);
void base_new_file_abort(struct base_new_file *file);

#endif
