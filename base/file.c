/* SPDX-License-Identifier: Apache-2.0 */
/* Whole reads and writes; files that appear whole and durable, or not. */
#include "base/file.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/bytes.h"
#include "base/cleanup.h"

#define POSITION_NONE   UINT64_MAX
#define IO_BYTES_MAX    0x7ffff000U /* what the kernel moves in one call at most */
#define LOAD_STEP_BYTES 4096
#define OFFSET_MAX      INT64_MAX /* of off_t */
#define PART_SUFFIX     ".part"
#define PART_MODE       0600U
#define PART_TRIES      16 /* each lost to a writer or sweeper that was faster */

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
	if (name[0] == '\0' || name[0] == '.' || strchr(name, '/') != NULL)
		return base_fail(err, -EINVAL,
				 "file name '%s': expected a plain name that does not begin "
				 "with a dot",
				 name);
	if (strlen(name) >= sizeof(((struct base_new_file *)NULL)->name))
		return base_fail(err, -ENAMETOOLONG, "file name of %zu bytes: at most %zu",
				 strlen(name), sizeof(((struct base_new_file *)NULL)->name) - 1);
	return 0;
}

/* What a writer of ours makes: anything else under such a name is left alone. */
static bool is_ours(const struct stat *status)
{
	return S_ISREG(status->st_mode) && (status->st_mode & 07777) == PART_MODE &&
	       status->st_uid == geteuid() && status->st_nlink == 1;
}

/*
 * Lock an open temporary file.  -EAGAIN: between opening and locking it lost its name (its
 * writer committed or ended, or it was swept), so that it is not what @temporary names now.
 * -EWOULDBLOCK has the same number, so a lock that is held gives -EBUSY.
 */
static int part_lock(int directory_fd, const char *temporary, int fd)
{
	struct stat named;
	struct stat opened;

	if (flock(fd, LOCK_EX | LOCK_NB) < 0)
		return errno == EWOULDBLOCK ? -EBUSY : -errno;
	if (fstat(fd, &opened) < 0)
		return -errno;
	if (fstatat(directory_fd, temporary, &named, AT_SYMLINK_NOFOLLOW) < 0)
		return errno == ENOENT ? -EAGAIN : -errno;
	if (named.st_dev != opened.st_dev || named.st_ino != opened.st_ino)
		return -EAGAIN;
	return is_ours(&opened) ? 0 : -EEXIST;
}

static int part_open(struct base_new_file *file)
{
	int code = -EAGAIN;

	for (int i = 0; i < PART_TRIES && code == -EAGAIN; i++) {
		/* Not blocking: a FIFO must be refused, not waited for. */
		BASE_CLOSE int fd =
			openat(file->directory_fd, file->temporary,
			       O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK | O_NOCTTY,
			       PART_MODE);

		if (fd < 0)
			return errno == ELOOP || errno == EISDIR ? -EEXIST : -errno;
		code = part_lock(file->directory_fd, file->temporary, fd);
		if (code == 0 && ftruncate(fd, 0) < 0)
			code = -errno;
		if (code == 0)
			file->fd = base_take_fd(&fd);
	}
	return code == -EAGAIN ? -EBUSY : code; /* others come and go under that name */
}

int base_new_file_begin(int directory_fd, const char *name, struct base_new_file *ret_file,
			struct base_error *err)
{
	struct base_new_file file = { .directory_fd = directory_fd, .fd = -1 };
	int code = name_check(name, err);

	if (code < 0)
		return code;
	(void)snprintf(file.name, sizeof(file.name), "%s", name);
	(void)snprintf(file.temporary, sizeof(file.temporary), ".%s" PART_SUFFIX, name);
	code = part_open(&file);
	if (code == -EBUSY)
		return base_fail(err, code, "'%s': another writer is at it", file.temporary);
	if (code == -EEXIST)
		return base_fail(err, code,
				 "'%s': something else is there: expected nothing, or a file of "
				 "ours with mode 0600",
				 file.temporary);
	if (code < 0)
		return base_fail_errno(err, code, "create '%s'", file.temporary);
	*ret_file = file;
	return 0;
}

void base_new_file_abort(struct base_new_file *file)
{
	int saved_errno = errno;

	if (file->fd < 0)
		return;
	(void)unlinkat(file->directory_fd, file->temporary, 0); /* while it is locked */
	base_closep(&file->fd);
	errno = saved_errno;
}

int base_new_file_commit(struct base_new_file *file, struct base_error *err)
{
	int code = 0;

	base_assert(file->fd >= 0);
	if (fsync(file->fd) < 0) {
		/* A network file system's timeout: nothing is in place, so not our "unknown". */
		code = errno == ETIMEDOUT ? -EIO : -errno;
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
		return base_fail(err, -ETIMEDOUT,
				 "'%s' is in place, but not known to be durable: fsync of its "
				 "directory: %s",
				 file->name, strerrordesc_np(errno));
	return 0;
}

static bool is_part_name(const char *name)
{
	size_t size = strlen(name);
	size_t suffix = sizeof(PART_SUFFIX) - 1;

	return name[0] == '.' && size > suffix + 1 &&
	       strcmp(name + size - suffix, PART_SUFFIX) == 0;
}

/* True when it was removed. */
static bool part_sweep(int directory_fd, const char *temporary)
{
	BASE_CLOSE int fd = openat(directory_fd, temporary,
				   O_RDWR | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK | O_NOCTTY);

	return fd >= 0 && part_lock(directory_fd, temporary, fd) == 0 &&
	       unlinkat(directory_fd, temporary, 0) == 0;
}

int base_new_file_sweep(int directory_fd, struct base_error *err)
{
	BASE_CLOSE int fd = openat(directory_fd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	DIR *list = fd < 0 ? NULL : fdopendir(fd);
	struct dirent *entry = NULL;
	int count = 0;

	if (list == NULL)
		return base_fail_errno(err, -errno, "list the directory");
	(void)base_take_fd(&fd); /* the stream's */
	/* A stream of this call's own. */
	while ((entry = readdir(list)) != NULL) /* NOLINT(concurrency-mt-unsafe) */
		if (is_part_name(entry->d_name) && part_sweep(directory_fd, entry->d_name))
			count++;
	(void)closedir(list);
	return count;
}
