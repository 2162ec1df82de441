/* SPDX-License-Identifier: Apache-2.0 */
/*
 * System calls that write records, counted, made to fail, and cut off.  A test that includes this
 * file (once, in its own .c) is linked with --wrap for them: tests/CMakeLists.txt.
 *
 * A small model of what a power cut would leave goes along: a file's bytes are durable from an
 * fsync of the file on, a name from an fsync of the directory on.  An fsync that fails makes
 * nothing durable, and a later one that succeeds does not make up for it: the bytes are to be
 * written again.
 */
#ifndef TESTS_RECORD_FAULTS_H
#define TESTS_RECORD_FAULTS_H

#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <sys/types.h>
#include <unistd.h>

static struct {
	bool armed;
	bool dies; /* the process ends at the call, instead of an error */
	int error; /* given by the call number @at */
	unsigned int at;
	unsigned int count;
	/* The model. */
	bool part_dirty;  /* bytes written since the last good fsync of a file */
	bool name_unsafe; /* what was renamed into place last was dirty */
	bool names_dirty; /* a name has changed since the last good fsync of the directory */
} faults;

#define RECORD_FAULT_DIED 42

/* True: the call fails now. */
static bool fault_now(void)
{
	if (!faults.armed || faults.count++ != faults.at)
		return false;
	if (faults.dies)
		_exit(RECORD_FAULT_DIED);
	errno = faults.error;
	return true;
}

#define WRAP(type, name, parameters, arguments)                                                    \
	type __real_##name parameters;                                                             \
	type __wrap_##name parameters;                                                             \
	type __wrap_##name parameters                                                              \
	{                                                                                          \
		return fault_now() ? -1 : __real_##name arguments;                                 \
	}

WRAP(int, flock, (int fd, int operation), (fd, operation))
WRAP(int, ftruncate, (int fd, off_t size), (fd, size))
WRAP(int, ftruncate64, (int fd, off_t size), (fd, size))
WRAP(int, fstat, (int fd, struct stat *status), (fd, status))
WRAP(int, fstat64, (int fd, struct stat *status), (fd, status))
WRAP(ssize_t, read, (int fd, void *to, size_t size), (fd, to, size))

int __real_openat64(int fd, const char *path, int flags, mode_t mode);
int __wrap_openat64(int fd, const char *path, int flags, ...);
int __wrap_openat(int fd, const char *path, int flags, ...);
int __wrap_openat64(int fd, const char *path, int flags, ...)
{
	va_list list;
	mode_t mode;
	int result;

	if (fault_now())
		return -1;
	va_start(list, flags);
	mode = (flags & O_CREAT) != 0 ? va_arg(list, mode_t) : 0;
	va_end(list);
	result = __real_openat64(fd, path, flags, mode);
	return result;
}
int __wrap_openat(int fd, const char *path, int flags, ...)
{
	(void)fd;
	(void)path;
	(void)flags;
	abort(); /* built with 64-bit offsets */
}

/* A write that fails has written some of it. */
ssize_t __real_write(int fd, const void *from, size_t size);
ssize_t __wrap_write(int fd, const void *from, size_t size);
ssize_t __wrap_write(int fd, const void *from, size_t size)
{
	ssize_t result;

	if (fault_now()) {
		faults.part_dirty = true;
		result = __real_write(fd, from, size / 2);
		errno = faults.error;
		return result >= 0 ? -1 : result;
	}
	result = __real_write(fd, from, size);
	faults.part_dirty = true;
	return result;
}

int __real_fsync(int fd);
int __wrap_fsync(int fd);
int __wrap_fsync(int fd)
{
	struct stat status;
	bool is_directory = __real_fstat64(fd, &status) == 0 && S_ISDIR(status.st_mode);
	int result;

	if (fault_now())
		return -1;
	result = __real_fsync(fd);
	if (result == 0 && is_directory)
		faults.names_dirty = false;
	else if (result == 0)
		faults.part_dirty = false;
	return result;
}

int __real_renameat(int from_fd, const char *from, int to_fd, const char *to);
int __wrap_renameat(int from_fd, const char *from, int to_fd, const char *to);
int __wrap_renameat(int from_fd, const char *from, int to_fd, const char *to)
{
	int result;

	if (fault_now())
		return -1;
	result = __real_renameat(from_fd, from, to_fd, to);
	faults.name_unsafe = faults.part_dirty;
	faults.names_dirty = true;
	return result;
}

int __real_unlinkat(int fd, const char *path, int flags);
int __wrap_unlinkat(int fd, const char *path, int flags);
int __wrap_unlinkat(int fd, const char *path, int flags)
{
	int result;

	if (fault_now())
		return -1;
	result = __real_unlinkat(fd, path, flags);
	faults.names_dirty = true;
	return result;
}

#endif
