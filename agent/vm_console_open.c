/* SPDX-License-Identifier: Apache-2.0 */
/* Console: opening and closing the sinks. */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "agent/vm_console_priv.h"
#include "base/cleanup.h"

BASE_DEFINE_FREEP(struct vm_console, vm_console_free);

static int open_directory_of(struct vm_console *console, const char *path, struct base_error *err)
{
	const char *slash = strrchr(path, '/');
	const char *name = slash != NULL ? slash + 1 : path;
	char directory[VM_PATH_BYTES] = ".";

	if (strlen(name) >= sizeof(console->file_name))
		return base_fail(err, -EINVAL, "console file '%s': name of %zu bytes: expected 255",
				 path, strlen(name));
	if (slash == path)
		(void)snprintf(directory, sizeof(directory), "/");
	else if (slash != NULL)
		(void)snprintf(directory, sizeof(directory), "%.*s", (int)(slash - path), path);
	console->directory_fd = open(directory, O_PATH | O_DIRECTORY | O_CLOEXEC);
	if (console->directory_fd < 0)
		return base_fail_errno(err, -errno, "console file '%s': directory '%s'", path,
				       directory);
	(void)snprintf(console->file_name, sizeof(console->file_name), "%s", name);
	return 0;
}

static int open_file(struct vm_console *console, const char *path, struct base_error *err)
{
	/* Not blocking: a FIFO must be refused, not waited for. */
	const int flags = O_WRONLY | O_APPEND | O_CLOEXEC | O_NONBLOCK | O_NOCTTY;
	struct stat status;
	int fd = open(path, flags);

	if (fd < 0 && errno == ENOENT) {
		int code = open_directory_of(console, path, err);

		if (code < 0)
			return code;
		fd = openat(console->directory_fd, console->file_name,
			    flags | O_CREAT | O_EXCL | O_NOFOLLOW, 0600);
		console->made_file = fd >= 0;
	}
	if (fd < 0)
		return base_fail_errno(err, -errno, "console file '%s'", path);
	console->owned_fd = fd;
	console->out_fd = fd;
	if (fstat(fd, &status) < 0)
		return base_fail_errno(err, -errno, "console file '%s'", path);
	if (!S_ISREG(status.st_mode) && !S_ISCHR(status.st_mode))
		return base_fail(err, -EINVAL,
				 "console file '%s': mode 0%o: expected a regular file or a "
				 "character device",
				 path, status.st_mode);
	return 0;
}

/*
 * Standard output not blocking, without changing it for the shell we share it with: by
 * a description of our own where one can be had.
 */
static int open_output(struct vm_console *console, struct base_error *err)
{
	struct stat status;

	console->out_fd = STDOUT_FILENO;
	if (fstat(STDOUT_FILENO, &status) < 0)
		return base_fail_errno(err, -errno, "console: standard output");
	if (S_ISREG(status.st_mode))
		return 0; /* its offset is shared, too, and must stay so */
	console->owned_fd =
		open("/proc/self/fd/1", O_WRONLY | O_NONBLOCK | O_CLOEXEC | O_NOCTTY | O_APPEND);
	if (console->owned_fd >= 0)
		console->out_fd = console->owned_fd;
	else
		console->blocking_out = true;
	return 0;
}

static int open_stdio(struct vm_console *console, struct base_error *err)
{
	struct termios raw;
	int code = open_output(console, err);

	if (code < 0)
		return code;
	console->in_fd = STDIN_FILENO;
	if (tcgetattr(STDIN_FILENO, &console->terminal_before) < 0)
		return 0; /* a pipe or a file: nothing to change */
	raw = console->terminal_before;
	cfmakeraw(&raw);
	raw.c_oflag |= OPOST; /* log lines on the same terminal keep their line ends */
	if (tcsetattr(STDIN_FILENO, TCSANOW, &raw) < 0)
		return base_fail_errno(err, -errno, "console: terminal");
	console->is_terminal = true;
	return 0;
}

static int open_sink(struct vm_console *console, const struct vm_console_spec *spec,
		     struct base_error *err)
{
	switch (spec->kind) {
	case VM_CONSOLE_FILE:
		return open_file(console, spec->path, err);
	case VM_CONSOLE_STDIO:
		return open_stdio(console, err);
	case VM_CONSOLE_UNIX:
		vm_ring_keep_newest(&console->ring, true);
		return vm_socket_open(spec->path, "console socket", &console->listening, err);
	case VM_CONSOLE_NONE:
		return 0;
	case VM_CONSOLE_INVALID:
	case VM_CONSOLE_KINDS:
		break;
	}
	base_bug("console kind %d", (int)spec->kind);
}

int vm_console_new(const struct vm_console_spec *spec, struct vm_console **ret_console,
		   struct base_error *err)
{
	BASE_CLEANUP(vm_console_freep) struct vm_console *console = calloc(1, sizeof(*console));
	int code = 0;

	if (console == NULL)
		return base_fail(err, -ENOMEM, "console: no memory");
	console->kind = spec->kind;
	console->out_fd = -1;
	console->in_fd = -1;
	console->owned_fd = -1;
	console->directory_fd = -1;
	console->client_fd = -1;
	console->listening = VM_SOCKET_NONE;
	vm_ring_init(&console->ring);
	code = open_sink(console, spec, err);
	if (code < 0)
		return code;
	*ret_console = base_take(&console);
	return 0;
}

void vm_console_free(struct vm_console *console)
{
	if (console == NULL)
		return;
	if (console->is_terminal)
		(void)tcsetattr(STDIN_FILENO, TCSADRAIN, &console->terminal_before);
	if (console->out_watch != console->in_watch)
		base_loop_remove(console->out_watch);
	base_loop_remove(console->in_watch);
	base_loop_remove(console->listen_watch);
	if (console->made_file && !console->begun)
		(void)unlinkat(console->directory_fd, console->file_name, 0);
	vm_socket_close(&console->listening);
	base_closep(&console->client_fd);
	base_closep(&console->owned_fd);
	base_closep(&console->directory_fd);
	vm_ring_fini(&console->ring);
	free(console);
}
