/* SPDX-License-Identifier: Apache-2.0 */
/* The keeper, the helper process and its locked-down children. */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/clock.h"
#include "hypervisor/bootdisk/bootdisk_reader_priv.h"

#define HELPER_FD 3
#define RETRY_NS  (100 * BASE_NS_PER_MS)

ssize_t reader_send(int socket_fd, const void *data, size_t bytes, const int *fds, size_t fd_count)
{
	_Alignas(struct cmsghdr) char control[CMSG_SPACE(sizeof(int) * READER_FDS)] = { 0 };
	union { /* an iovec is for both ways */
		const void *in;
		void *out;
	} base = { .in = data };
	struct iovec iov = { .iov_base = base.out, .iov_len = bytes };
	struct msghdr message = { .msg_iov = &iov, .msg_iovlen = 1 };
	ssize_t sent;

	if (fd_count > 0) {
		struct cmsghdr *header = (struct cmsghdr *)(void *)control;

		message.msg_control = control;
		message.msg_controllen = CMSG_SPACE(sizeof(int) * fd_count);
		header->cmsg_level = SOL_SOCKET;
		header->cmsg_type = SCM_RIGHTS;
		header->cmsg_len = CMSG_LEN(sizeof(int) * fd_count);
		memcpy(CMSG_DATA(header), fds, sizeof(int) * fd_count);
	}
	do
		sent = sendmsg(socket_fd, &message, MSG_NOSIGNAL);
	while (sent < 0 && errno == EINTR);
	return sent < 0 ? -errno : sent;
}

ssize_t reader_receive(int socket_fd, void *data, size_t bytes, int fds[READER_FDS])
{
	_Alignas(struct cmsghdr) char control[CMSG_SPACE(sizeof(int) * READER_FDS)] = { 0 };
	struct iovec iov = { .iov_base = data, .iov_len = bytes };
	struct msghdr message = { .msg_iov = &iov,
				  .msg_iovlen = 1,
				  .msg_control = control,
				  .msg_controllen = sizeof(control) };
	ssize_t got;

	for (size_t i = 0; i < READER_FDS; i++)
		fds[i] = -1;
	do
		got = recvmsg(socket_fd, &message, MSG_CMSG_CLOEXEC);
	while (got < 0 && errno == EINTR);
	if (got < 0)
		return -errno;
	for (struct cmsghdr *header = CMSG_FIRSTHDR(&message); header != NULL;
	     header = CMSG_NXTHDR(&message, header)) {
		size_t room = header->cmsg_len - CMSG_LEN(0);

		if (header->cmsg_level != SOL_SOCKET || header->cmsg_type != SCM_RIGHTS)
			continue;
		memcpy(fds, CMSG_DATA(header),
		       room < sizeof(int) * READER_FDS ? room : sizeof(int) * READER_FDS);
	}
	if ((message.msg_flags & (MSG_TRUNC | MSG_CTRUNC)) != 0) {
		for (size_t i = 0; i < READER_FDS; i++)
			base_closep(&fds[i]);
		return -EBADMSG;
	}
	return got;
}

struct child {
	int socket_fd;
	struct reader_message message;
	struct reader_data data;
};

static int child_read(void *context, uint64_t offset, void *to, size_t size_bytes,
		      struct base_error *err)
{
	struct child *child = context;
	int fds[READER_FDS];
	ssize_t got;

	child->message.kind = READER_READ;
	child->message.offset = offset;
	child->message.size_bytes = (uint32_t)size_bytes;
	if (reader_send(child->socket_fd, &child->message, sizeof(child->message), NULL, 0) < 0)
		_exit(1); /* nobody waits any more */
	got = reader_receive(child->socket_fd, &child->data, sizeof(child->data), fds);
	if (got <= 0)
		_exit(1);
	if (child->data.code < 0)
		return base_fail(err, child->data.code, "the disk cannot be read");
	if ((size_t)got != offsetof(struct reader_data, bytes) + size_bytes)
		_exit(1);
	memcpy(to, child->data.bytes, size_bytes);
	return 0;
}

static _Noreturn void child_run(int socket_fd, const struct reader_order *order)
{
	struct child *child = calloc(1, sizeof(*child));
	struct bootdisk_source source = { .size_bytes = order->size_bytes,
					  .sector_bytes = order->sector_bytes,
					  .file_bytes_max = order->file_bytes_max,
					  .read = child_read,
					  .context = child };
	struct base_error err = { 0 };
	int fds[READER_FDS];
	size_t count = 0;

	if (child == NULL || bootdisk_lock_down(bootdisk_most(&source, HV_INITRD_BYTES_MAX)) < 0)
		_exit(1);
	child->socket_fd = socket_fd;
	child->message.entry.kernel_fd = -1;
	child->message.entry.initrd_fd = -1;
	child->message.code = bootdisk_find(&source, &child->message.entry, &err);
	child->message.kind = READER_DONE;
	memcpy(child->message.text, err.text, sizeof(err.text));
	if (child->message.code == 0) {
		fds[count++] = child->message.entry.kernel_fd;
		if (child->message.entry.initrd_fd >= 0)
			fds[count++] = child->message.entry.initrd_fd;
	}
	(void)reader_send(socket_fd, &child->message, sizeof(child->message), fds, count);
	_exit(0);
}

/* On HELPER_FD; 0 when there is nobody any more who could ask. */
static _Noreturn void helper_run(void)
{
	for (;;) {
		struct reader_order order;
		int fds[READER_FDS];
		ssize_t got = reader_receive(HELPER_FD, &order, sizeof(order), fds);
		pid_t pid;

		if (got <= 0)
			_exit(0);
		if (got == sizeof(order) && fds[0] >= 0) {
			pid = fork();
			if (pid == 0) {
				(void)close(HELPER_FD);
				child_run(fds[0], &order);
			}
			(void)close(fds[0]);
			fds[0] = -1;
			while (pid > 0 && waitpid(pid, NULL, 0) < 0 && errno == EINTR)
				;
		}
		for (size_t i = 0; i < READER_FDS; i++)
			base_closep(&fds[i]);
	}
}

_Noreturn void reader_keeper(int socket_fd)
{
	struct sigaction plain = { .sa_handler = SIG_DFL };

	/* Nothing of the process it is a copy of stays open. */
	if (dup2(socket_fd, HELPER_FD) < 0 || close_range(HELPER_FD + 1, ~0u, 0) < 0)
		_exit(1);
	(void)sigaction(SIGCHLD, &plain, NULL);
	for (uint32_t i = 0; i <= READER_RESTARTS_MAX; i++) {
		int status = 0;
		pid_t pid = fork();

		if (pid == 0)
			helper_run();
		if (pid < 0) { /* the host has no room for a process now */
			base_sleep_ns(RETRY_NS);
			continue;
		}
		while (waitpid(pid, &status, 0) < 0 && errno == EINTR)
			;
#ifndef GODWIT_MUTANT_BOOTDISK_KEEPER
		if (WIFSIGNALED(status))
			continue;
#endif
		_exit(0);
	}
	_exit(1);
}
