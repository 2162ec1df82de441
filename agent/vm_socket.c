/* SPDX-License-Identifier: Apache-2.0 */
/* Listening Unix sockets with a lock beside them. */
#include "agent/vm_socket.h"

#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/file.h"

#define BACKLOG 16 /* clients not accepted yet */

static int split_path(const char *path, const char *what, struct vm_socket *listening,
		      struct base_error *err)
{
	const char *slash = strrchr(path, '/');
	const char *name = slash != NULL ? slash + 1 : path;
	char directory[VM_SOCKET_PATH_BYTES] = ".";

	if (strlen(path) >= VM_SOCKET_PATH_BYTES)
		return base_fail(err, -EINVAL, "%s '%s': %zu bytes: expected at most %u", what,
				 path, strlen(path), VM_SOCKET_PATH_BYTES - 1);
	if (name[0] == '\0' || strcmp(name, ".") == 0 || strcmp(name, "..") == 0)
		return base_fail(err, -EINVAL, "%s '%s': expected the path of a socket", what,
				 path);
	if (slash == path)
		(void)snprintf(directory, sizeof(directory), "/");
	else if (slash != NULL)
		(void)snprintf(directory, sizeof(directory), "%.*s", (int)(slash - path), path);
	(void)snprintf(listening->name, sizeof(listening->name), "%s", name);
	(void)snprintf(listening->lock_name, sizeof(listening->lock_name), "%s.lock", name);
	listening->directory_fd = open(directory, O_PATH | O_DIRECTORY | O_CLOEXEC);
	if (listening->directory_fd < 0)
		return base_fail_errno(err, -errno, "%s '%s': directory '%s'", what, path,
				       directory);
	return 0;
}

/* The lock's holder wrote its process id there; 0 when that cannot be read. */
static long read_holder(int lock_fd)
{
	char text[24] = "";
	ssize_t got = pread(lock_fd, text, sizeof(text) - 1, 0);

	return got > 0 ? strtol(text, NULL, 10) : 0;
}

/* Whether the locked file is still the one at its name (its last owner removes it). */
static bool is_current(const struct vm_socket *listening)
{
	struct stat held;
	struct stat named;

	return fstat(listening->lock_fd, &held) == 0 &&
	       fstatat(listening->directory_fd, listening->lock_name, &named,
		       AT_SYMLINK_NOFOLLOW) == 0 &&
	       held.st_dev == named.st_dev && held.st_ino == named.st_ino;
}

static int take_lock(const char *path, const char *what, struct vm_socket *listening,
		     struct base_error *err)
{
	char text[24];
	int code = 0;

	for (;;) {
		listening->lock_fd =
			openat(listening->directory_fd, listening->lock_name,
			       O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK, 0600);
		if (listening->lock_fd < 0)
			return base_fail_errno(err, -errno, "%s '%s': lock file '%s'", what, path,
					       listening->lock_name);
		if (flock(listening->lock_fd, LOCK_EX | LOCK_NB) < 0) {
			long holder = 0;

			code = errno == EWOULDBLOCK ? -EBUSY : -errno;
			holder = read_holder(listening->lock_fd);

			base_closep(&listening->lock_fd);
			listening->lock_fd = -1;
			if (code != -EBUSY)
				return base_fail_errno(err, code, "%s '%s': flock", what, path);
			return base_fail(err, code,
					 "%s '%s': process %ld uses it: expected a path of its own",
					 what, path, holder);
		}
		if (is_current(listening))
			break;
		base_closep(&listening->lock_fd);
	}
	(void)snprintf(text, sizeof(text), "%ld\n", (long)getpid());
	if (ftruncate(listening->lock_fd, 0) < 0)
		return base_fail_errno(err, -errno, "%s '%s': lock file", what, path);
	code = base_pwrite_all(listening->lock_fd, text, strlen(text), 0);
	return code < 0 ? base_fail_errno(err, code, "%s '%s': lock file", what, path) : 0;
}

static int remove_stale(const char *path, const char *what, const struct vm_socket *listening,
			struct base_error *err)
{
	struct stat status;

	if (fstatat(listening->directory_fd, listening->name, &status, AT_SYMLINK_NOFOLLOW) < 0)
		return errno == ENOENT ? 0 : base_fail_errno(err, -errno, "%s '%s'", what, path);
	if (!S_ISSOCK(status.st_mode))
		return base_fail(err, -EEXIST,
				 "%s '%s': something else is there: expected a socket or nothing",
				 what, path);
	if (unlinkat(listening->directory_fd, listening->name, 0) < 0)
		return base_fail_errno(err, -errno, "%s '%s': remove the dead socket", what, path);
	return 0;
}

static int bind_and_listen(const char *path, const char *what, struct vm_socket *listening,
			   struct base_error *err)
{
	struct sockaddr_un address = { .sun_family = AF_UNIX };
	BASE_CLOSE int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);

	if (fd < 0)
		return base_fail_errno(err, -errno, "%s '%s': socket", what, path);
	(void)snprintf(address.sun_path, sizeof(address.sun_path), "%s", path);
	/* Before bind: the file gets this mode from its first instant (unix(7), Linux). */
	if (fchmod(fd, 0600) < 0)
		return base_fail_errno(err, -errno, "%s '%s': fchmod", what, path);
	if (bind(fd, (const struct sockaddr *)&address, sizeof(address)) < 0)
		return base_fail_errno(err, -errno, "%s '%s': bind", what, path);
	listening->fd = base_take_fd(&fd);
	if (listen(listening->fd, BACKLOG) < 0)
		return base_fail_errno(err, -errno, "%s '%s': listen", what, path);
	return 0;
}

int vm_socket_open(const char *path, const char *what, struct vm_socket *ret_socket,
		   struct base_error *err)
{
	BASE_CLEANUP(vm_socket_close) struct vm_socket listening = VM_SOCKET_NONE;
	int code = split_path(path, what, &listening, err);

	if (code == 0)
		code = take_lock(path, what, &listening, err);
	if (code == 0)
		code = remove_stale(path, what, &listening, err);
	if (code == 0)
		code = bind_and_listen(path, what, &listening, err);
	if (code < 0)
		return code;
	*ret_socket = listening;
	listening = VM_SOCKET_NONE;
	return 0;
}

int vm_socket_accept(const struct vm_socket *listening)
{
	int fd = accept4(listening->fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);

	return fd >= 0 ? fd : -errno;
}

void vm_socket_close(struct vm_socket *listening)
{
	if (listening->fd >= 0)
		(void)unlinkat(listening->directory_fd, listening->name, 0);
	/* Only the lock's holder may remove the lock file; then a newcomer's check sees it. */
	if (listening->lock_fd >= 0)
		(void)unlinkat(listening->directory_fd, listening->lock_name, 0);
	base_closep(&listening->fd);
	base_closep(&listening->lock_fd);
	base_closep(&listening->directory_fd);
	*listening = VM_SOCKET_NONE;
}
