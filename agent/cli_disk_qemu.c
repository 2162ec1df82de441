/* SPDX-License-Identifier: Apache-2.0 */
#include "agent/cli_disk_qemu.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <spawn.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "agent/cli_disk_foreign.h"
#include "base/cleanup.h"

#define POLL_MS     200 /* how soon a wish to stop is seen */
#define LINE_BYTES  256
#define PERCENT_MAX 10000 /* qemu-img counts in hundredths */

int cli_qemu_safe(const char *path, struct base_error *err)
{
	BASE_CLOSE int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
	uint8_t bytes[CLI_FOREIGN_LOOK_BYTES];
	struct cli_qcow2_outside outside = { 0 };
	ssize_t n;

	if (fd < 0)
		return base_fail_errno(err, -errno, "'%s'", path);
	n = pread(fd, bytes, sizeof(bytes), 0);
	if (n < 0)
		return base_fail_errno(err, -errno, "'%s': read", path);
	if (cli_foreign_find(bytes, (size_t)n) != CLI_FOREIGN_QCOW2 ||
	    !cli_qcow2_outside(bytes, (size_t)n, &outside))
		return base_fail(err, -EBADMSG, "'%s': expected a qcow2 image", path);
	if (outside.backing || outside.data_file)
		return base_fail(err, -EPROTO,
				 "'%s' takes content from another file (%s): expected "
				 "--with-backing, if you trust the image",
				 path, outside.backing ? "backing file" : "data file");
	return 0;
}

/* What comes from the child: percents on one pipe, complaints on the other. */
struct child {
	pid_t pid; /* 0: none, or waited for */
	int out;
	int complaints;
	char line[LINE_BYTES]; /* of @out, being read */
	size_t line_bytes;
	char last[LINE_BYTES]; /* of @complaints */
	size_t last_bytes;
};

static void child_end(struct child *child)
{
	int status;

	if (child->pid > 0) {
		(void)kill(child->pid, SIGKILL);
		while (waitpid(child->pid, &status, 0) < 0 && errno == EINTR)
			;
	}
	base_closep(&child->out);
	base_closep(&child->complaints);
}

static int spawn(char *from, char *to, const int out[2], const int complaints[2],
		 struct child *child)
{
	/* posix_spawnp() wants them writable and leaves them as they are. */
	char words[][9] = { "qemu-img", "convert", "-p", "-f", "qcow2", "-O", "raw", "--" };
	char *args[] = { words[0], words[1], words[2], words[3], words[4], words[5],
			 words[6], words[7], from,     to,       NULL };
	posix_spawn_file_actions_t actions;
	posix_spawnattr_t attributes;
	sigset_t none;
	int rc;

	(void)sigemptyset(&none);
	if (posix_spawn_file_actions_init(&actions) != 0)
		return -ENOMEM;
	if (posix_spawnattr_init(&attributes) != 0) {
		(void)posix_spawn_file_actions_destroy(&actions);
		return -ENOMEM;
	}
	/* A group of its own: a Ctrl-C is for us, and we end it. */
	(void)posix_spawnattr_setflags(&attributes, POSIX_SPAWN_SETPGROUP | POSIX_SPAWN_SETSIGMASK);
	(void)posix_spawnattr_setpgroup(&attributes, 0);
	(void)posix_spawnattr_setsigmask(&attributes, &none);
	rc = posix_spawn_file_actions_addopen(&actions, 0, "/dev/null", O_RDONLY, 0);
	if (rc == 0)
		rc = posix_spawn_file_actions_adddup2(&actions, out[1], 1);
	if (rc == 0)
		rc = posix_spawn_file_actions_adddup2(&actions, complaints[1], 2);
	if (rc == 0)
		rc = posix_spawnp(&child->pid, args[0], &actions, &attributes, args, environ);
	(void)posix_spawnattr_destroy(&attributes);
	(void)posix_spawn_file_actions_destroy(&actions);
	return -rc;
}

static int child_begin(char *from, char *to, struct child *child, struct base_error *err)
{
	int out[2];
	int complaints[2];
	int rc;

	if (pipe2(out, O_CLOEXEC) != 0)
		return base_fail_errno(err, -errno, "qemu-img: pipe");
	if (pipe2(complaints, O_CLOEXEC) != 0) {
		rc = -errno;
		(void)close(out[0]);
		(void)close(out[1]);
		return base_fail_errno(err, rc, "qemu-img: pipe");
	}
	rc = spawn(from, to, out, complaints, child);
	(void)close(out[1]);
	(void)close(complaints[1]);
	child->out = out[0];
	child->complaints = complaints[0];
	if (rc == 0)
		return 0;
	child->pid = 0;
	if (rc == -ENOENT)
		return base_fail(err, -ENOPKG,
				 "'%s' is a qcow2 image, and qemu-img, which reads it, is not "
				 "installed: expected the package qemu-utils",
				 from);
	return base_fail_errno(err, rc, "qemu-img: start");
}

/* "    (12.34/100%)\r" in hundredths; -1: something else. */
static int percent_of(const char *line)
{
	const char *at = strchr(line, '(');
	char *end = NULL;
	double percent;

	if (at == NULL)
		return -1;
	percent = strtod(at + 1, &end);
	if (end == at + 1 || !(percent >= 0.0 && percent <= 100.0))
		return -1;
	return (int)(percent * 100.0);
}

/* Read what is there.  False at the end of the pipe. */
static bool read_percents(struct child *child, struct cli_progress *progress)
{
	char bytes[LINE_BYTES];
	ssize_t n = read(child->out, bytes, sizeof(bytes));

	for (ssize_t i = 0; i < n; i++) {
		int percent;

		if (bytes[i] != '\r' && bytes[i] != '\n') {
			if (child->line_bytes < sizeof(child->line) - 1)
				child->line[child->line_bytes++] = bytes[i];
			continue;
		}
		child->line[child->line_bytes] = '\0';
		child->line_bytes = 0;
		percent = percent_of(child->line);
		if (percent >= 0)
			(void)cli_progress_step(progress, (uint64_t)percent, PERCENT_MAX);
	}
	return n > 0 || (n < 0 && errno == EINTR);
}

/* Keep the last line that is not empty. */
static bool read_complaints(struct child *child)
{
	char bytes[LINE_BYTES];
	ssize_t n = read(child->complaints, bytes, sizeof(bytes));

	for (ssize_t i = 0; i < n; i++) {
		if (child->last_bytes > 0 && child->last[child->last_bytes - 1] == '\n' &&
		    bytes[i] != '\n')
			child->last_bytes = 0;
		if (child->last_bytes < sizeof(child->last) - 1)
			child->last[child->last_bytes++] = bytes[i];
	}
	return n > 0 || (n < 0 && errno == EINTR);
}

static int child_wait(struct child *child, const char *from, struct base_error *err)
{
	int status = 0;
	pid_t pid;

	do
		pid = waitpid(child->pid, &status, 0);
	while (pid < 0 && errno == EINTR);
	child->pid = 0;
	if (WIFEXITED(status) && WEXITSTATUS(status) == 0)
		return 0;
	while (child->last_bytes > 0 && child->last[child->last_bytes - 1] == '\n')
		child->last_bytes--;
	child->last[child->last_bytes] = '\0';
	if (child->last_bytes > 0)
		return base_fail(err, -EIO, "'%s': %s", from, child->last);
	return base_fail(err, -EIO, "'%s': qemu-img ended with %s %d: expected 0", from,
			 WIFEXITED(status) ? "exit code" : "signal",
			 WIFEXITED(status) ? WEXITSTATUS(status) : WTERMSIG(status));
}

int cli_qemu_to_raw(char *from, char *to, struct cli_progress *progress, struct base_error *err)
{
	BASE_CLEANUP(child_end) struct child child = { .out = -1, .complaints = -1 };
	int rc = child_begin(from, to, &child, err);

	if (rc < 0)
		return rc;
	while (child.out >= 0 || child.complaints >= 0) {
		/* poll() passes over descriptors that are negative. */
		struct pollfd fds[2] = { { .fd = child.out, .events = POLLIN },
					 { .fd = child.complaints, .events = POLLIN } };

		if (cli_stop_wanted())
			return base_fail(err, -ECANCELED, "'%s': stopped", from);
		if (poll(fds, 2, POLL_MS) < 0)
			continue; /* a signal: looked at above */
		if (fds[0].revents != 0 && !read_percents(&child, progress)) {
			base_closep(&child.out);
			child.out = -1;
		}
		if (fds[1].revents != 0 && !read_complaints(&child)) {
			base_closep(&child.complaints);
			child.complaints = -1;
		}
	}
	return child_wait(&child, from, err);
}
