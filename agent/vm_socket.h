/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A listening Unix socket that survives kill -9 of its owner.
 *
 * PATH.lock decides who owns PATH: while its flock is held the owner lives; else
 * the socket found at PATH is a dead one's and is replaced.  Both are removed at
 * the end, through the directory's descriptor, so that it works in a locked-down
 * process.  Loop thread; a value that owns descriptors.
 */
#ifndef AGENT_VM_SOCKET_H
#define AGENT_VM_SOCKET_H

#include "agent/agent_limits.h"
#include "base/error.h"

struct vm_socket {
	int fd;           /* listening; -1 when closed */
	int lock_fd;      /* holds the flock */
	int directory_fd; /* O_PATH */
	char name[VM_SOCKET_PATH_BYTES];
	char lock_name[VM_SOCKET_PATH_BYTES + 8];
};

#define VM_SOCKET_NONE                                                                             \
	(struct vm_socket)                                                                         \
	{                                                                                          \
		.fd = -1, .lock_fd = -1, .directory_fd = -1                                        \
	}

/**
 * vm_socket_open - own @path and listen on it, mode 0600, not blocking.
 * @what: "control socket", for error texts.
 * -EBUSY a living process (named by its id) owns it; -EEXIST something that is no
 * socket is there; -EINVAL the path; other errno from the kernel.
 */
BASE_MUST_CHECK int vm_socket_open(const char *path, const char *what, struct vm_socket *ret_socket,
				   struct base_error *err);

/* Accept one client: a descriptor (CLOEXEC, not blocking) or negative errno; -EAGAIN none. */
int vm_socket_accept(const struct vm_socket *listening);

/* Remove socket and lock file, close.  Fine on VM_SOCKET_NONE. */
void vm_socket_close(struct vm_socket *listening);

#endif
