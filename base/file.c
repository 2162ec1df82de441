/* SPDX-License-Identifier: Apache-2.0 */
/* Whole reads and writes; files that appear whole and durable, or not. */
#include "base/file.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/bytes.h"
#include "base/cleanup.h"
#include "base/clock.h"

#define POSITION_NONE   UINT64_MAX
#define IO_BYTES_MAX    0x7ffff000U /* what the kernel moves in one call at most */
#define LOAD_STEP_BYTES 4096
#define OFFSET_MAX      INT64_MAX /* of off_t */

/* True when @offset_bytes..+@size_bytes does not fit an off_t. */
static bool out_of_range(size_t size_bytes, uint64_t offset_bytes)
{
	return offset_bytes > OFFSET_MAX || size_bytes > OFFSET_MAX - offset_bytes;
}

static int write_loop(int fd, const uint8_t *from, size_t size_bytes, uint64_t offset_bytes)
{
	bool positioned = offset_bytes != POSITION_NONE;

	while (size_bytes > 0) {
		size_t piece = size_bytes < IO_BYTES_MAX ? size_bytes : IO_BYTES_MAX;
		ssize_t done = positioned ? pwrite(fd, from, piece, (off_t)offset_bytes)
					  : write(fd, from, piece);

		if (done < 0 && errno == EINTR)
			continue;
		if (done < 0)
			return -errno;
		if (done == 0)
			return -EIO; /* no progress and no reason: not to be tried for ever */
		from += done;
		size_bytes -= (size_t)done;
		offset_bytes += positioned ? (uint64_t)done : 0;
	}
	return 0;
}

static int read_loop(int fd, uint8_t *to, size_t size_bytes, uint64_t offset_bytes)
{
	bool positioned = offset_bytes != POSITION_NONE;

	while (size_bytes > 0) {
		size_t piece = size_bytes < IO_BYTES_MAX ? size_bytes : IO_BYTES_MAX;
		ssize_t done = positioned ? pread(fd, to, piece, (off_t)offset_bytes)
					  : read(fd, to, piece);

		if (done < 0 && errno == EINTR)
			continue;
		if (done < 0)
			return -errno;
		if (done == 0)
			return -ENODATA;
		to += done;
		size_bytes -= (size_t)done;
		offset_bytes += positioned ? (uint64_t)done : 0;
	}
	return 0;
}

int base_write_all(int fd, const void *data, size_t size_bytes)
{
	return write_loop(fd, data, size_bytes, POSITION_NONE);
}

int base_pwrite_all(int fd, const void *data, size_t size_bytes, uint64_t offset_bytes)
{
	if (out_of_range(size_bytes, offset_bytes))
		return -EINVAL;
	return write_loop(fd, data, size_bytes, offset_bytes);
}

int base_read_all(int fd, void *to, size_t size_bytes)
{
	return read_loop(fd, to, size_bytes, POSITION_NONE);
}

int base_pread_all(int fd, void *to, size_t size_bytes, uint64_t offset_bytes)
{
	if (out_of_range(size_bytes, offset_bytes))
		return -EINVAL;
	return read_loop(fd, to, size_bytes, offset_bytes);
}

/* The file's size as far as it is known: -EINVAL no regular file, -EFBIG beyond the limit. */
static int load_check(int fd, const char *path, size_t limit_bytes, size_t *ret_size_bytes,
		      struct base_error *err)
{
	struct stat status;

	if (fstat(fd, &status) < 0)
		return base_fail_errno(err, -errno, "'%s'", path);
	if (!S_ISREG(status.st_mode))
		return base_fail(err, -EINVAL, "'%s': not a regular file", path);
	if ((uint64_t)status.st_size > limit_bytes)
		return base_fail(err, -EFBIG, "'%s': %" PRIu64 " bytes, at most %zu", path,
				 (uint64_t)status.st_size, limit_bytes);
	*ret_size_bytes = (size_t)status.st_size;
	return 0;
}

/*
 * Append to @content until the file ends.  The size that stat gave is only a hint:
 * files of /proc and /sys give 0, and others may grow meanwhile.
 */
static int load_content(int fd, size_t hint_bytes, size_t limit_bytes, struct base_buffer *content)
{
	size_t piece_bytes = hint_bytes + 1; /* one more, to see the end at once */

	for (;;) {
		size_t before_bytes = content->size_bytes;
		uint8_t *room = base_buffer_extend(content, piece_bytes);
		ssize_t done = 0;

		if (room == NULL)
			return -ENOMEM;
		do {
			done = read(fd, room, piece_bytes);
		} while (done < 0 && errno == EINTR);
		if (done < 0)
			return -errno;
		content->size_bytes = before_bytes + (size_t)done;
		if (done == 0)
			return 0;
		if (content->size_bytes > limit_bytes)
			return -EFBIG;
		piece_bytes = piece_bytes - (size_t)done < LOAD_STEP_BYTES
				      ? LOAD_STEP_BYTES
				      : piece_bytes - (size_t)done;
	}
}

int base_file_load(const char *path, size_t limit_bytes, uint8_t **ret_data, size_t *ret_size_bytes,
		   struct base_error *err)
{
	/* Not blocking: a FIFO must be refused, not waited for. */
	BASE_CLOSE int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
	BASE_CLEANUP(base_buffer_fini) struct base_buffer content = { .data = NULL };
	size_t size_bytes = 0;
	int code = 0;

	if (fd < 0)
		return base_fail_errno(err, -errno, "'%s'", path);
	code = load_check(fd, path, limit_bytes, &size_bytes, err);
	if (code < 0)
		return code;
	code = load_content(fd, size_bytes, limit_bytes, &content);
	if (code == -EFBIG)
		return base_fail(err, code, "'%s': more than %zu bytes", path, limit_bytes);
	if (code < 0)
		return base_fail_errno(err, code, "'%s': read", path);
	base_buffer_u8(&content, 0);
	if (content.failed)
		return base_fail_errno(err, -ENOMEM, "'%s': read", path);

	*ret_size_bytes = content.size_bytes - 1;
	*ret_data = base_take(&content.data);
	return 0;
}

static int name_check(const char *name, struct base_error *err)
{
	if (name[0] == '\0' || strcmp(name, ".") == 0 || strcmp(name, "..") == 0 ||
	    strchr(name, '/') != NULL)
		return base_fail(err, -EINVAL, "file name '%s': not a plain name", name);
	if (strlen(name) >= sizeof(((struct base_new_file *)NULL)->name))
		return base_fail(err, -ENAMETOOLONG, "file name of %zu bytes: at most %zu",
				 strlen(name), sizeof(((struct base_new_file *)NULL)->name) - 1);
	return 0;
}

int base_new_file_begin(int directory_fd, const char *name, struct base_new_file *ret_file,
			struct base_error *err)
{
	struct base_new_file file = { .directory_fd = directory_fd, .fd = -1 };
	uint64_t random = 0;
	int code = name_check(name, err);

	if (code < 0)
		return code;
	base_random_bytes(&random, sizeof(random));
	(void)snprintf(file.name, sizeof(file.name), "%s", name);
	(void)snprintf(file.temporary, sizeof(file.temporary), "%s.%016" PRIx64 ".tmp", name,
		       random);
	file.fd = openat(directory_fd, file.temporary,
			 O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, 0600);
	if (file.fd < 0)
		return base_fail_errno(err, -errno, "create '%s'", file.temporary);
	*ret_file = file;
	return 0;
}

void base_new_file_abort(struct base_new_file *file)
{
	int saved_errno = errno;

	if (file->fd < 0)
		return;
	(void)unlinkat(file->directory_fd, file->temporary, 0);
	base_closep(&file->fd);
	errno = saved_errno;
}

int base_new_file_commit(struct base_new_file *file, struct base_error *err)
{
	int code = 0;

	base_assert(file->fd >= 0);
	if (fsync(file->fd) < 0) {
		code = -errno;
		base_new_file_abort(file);
		return base_fail_errno(err, code, "'%s': fsync", file->name);
	}
	if (renameat(file->directory_fd, file->temporary, file->directory_fd, file->name) < 0) {
		code = -errno;
		base_new_file_abort(file);
		return base_fail_errno(err, code, "'%s': rename into place", file->name);
	}
	base_closep(&file->fd);
	/* From here on the file is there; only a power cut can still undo it. */
	if (fsync(file->directory_fd) < 0)
		return base_fail_errno(err, -errno,
				       "'%s' is in place, but may not survive a power cut: "
				       "fsync of its directory",
				       file->name);
	return 0;
}
