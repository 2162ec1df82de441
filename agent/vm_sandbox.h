/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Locking the worker down, in two steps.
 *
 * vm_sandbox_begin() runs first of all: descriptors that nobody named are closed.
 * vm_sandbox_enter() runs when everything privileged is open and before a byte of
 * the guest's files is parsed: no new privileges, no capabilities (in every
 * thread), no way to other files (chroot or Landlock), and a list of system
 * calls beyond which the kernel kills the process.  docs/agent/godwit-vm.md,
 * "Lock-down".  Main thread.  There is no way back.
 */
#ifndef AGENT_VM_SANDBOX_H
#define AGENT_VM_SANDBOX_H

#include <stdbool.h>
#include <stddef.h>

#include "base/error.h"

#define VM_SANDBOX_DIRECTORIES 4 /* socket directories of control and console, console file */

struct vm_sandbox_spec {
	int state_dir_fd;                          /* files may be made here; -1: nowhere */
	int directory_fds[VM_SANDBOX_DIRECTORIES]; /* files may be removed here; -1: none */
	/* Folders of stores: files may be opened, made, renamed and removed below these. */
	const int *store_fds;
	size_t store_count;
	bool boot_reader; /* bootdisk_reader_find() is called */
	bool migrate;     /* a migration comes or may go: TCP connections */
	int tls_dir_fd;   /* with it: files may be read there; 0 or -1: nowhere */
};

/* What is in force. A value, for status and log. */
struct vm_sandbox_facts {
	bool no_new_privileges;
	bool capabilities_dropped;
	bool chroot;      /* into the state directory */
	int landlock_abi; /* 0: this kernel does not enforce it */
	bool seccomp;
};

/**
 * vm_sandbox_begin - close every descriptor but 0, 1, 2 and the @count listed ones.
 * Of 0, 1 and 2 those not open become /dev/null, so that no later file gets their number.
 * @keep: entries below 3 are skipped.  -EBADF names a listed one that is not open.
 */
BASE_MUST_CHECK int vm_sandbox_begin(const int *keep, size_t count, struct base_error *err);

/**
 * vm_sandbox_enter - lock down this process, all its threads included.
 * @ret_facts: what is in force.
 * -EPERM a thread kept its capabilities; errno of the kernel or libseccomp with
 * context.  After an error the process is in between and must end.
 */
BASE_MUST_CHECK int vm_sandbox_enter(const struct vm_sandbox_spec *spec,
				     struct vm_sandbox_facts *ret_facts, struct base_error *err);

#endif
