/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The console object, for vm_console.c (flow) and vm_console_open.c (sinks).
 */
#ifndef AGENT_VM_CONSOLE_PRIV_H
#define AGENT_VM_CONSOLE_PRIV_H

#include <stdatomic.h>
#include <termios.h>

#include "agent/vm_console.h"
#include "agent/vm_ring.h"
#include "agent/vm_socket.h"

#define VM_CONSOLE_BLOCKING_BYTES 256u /* a terminal that polls writable takes this many */

struct vm_console {
	enum vm_console_kind kind;
	struct base_loop *loop; /* NULL before vm_console_begin() */
	const struct vm_console_ops *ops;
	void *context;
	bool begun;

	int out_fd;        /* borrowed from one of the below, or owned (owned_fd) */
	int in_fd;         /* likewise */
	int owned_fd;      /* FILE: the file; STDIO: our own description of standard output */
	bool blocking_out; /* the description is shared with others and may block */
	bool out_wanted;   /* the sink was full: watch for room */
	bool failure_said; /* an error of the sink is logged once */
	struct base_loop_fd *out_watch; /* may be the same as in_watch */
	struct base_loop_fd *in_watch;

	/* FILE: the file we made is removed when the VM never ran. */
	bool made_file;
	int directory_fd;
	char file_name[256];

	/* STDIO */
	bool is_terminal;
	bool escaped; /* Ctrl-A was typed */
	struct termios terminal_before;

	/* UNIX */
	struct vm_socket listening;
	struct base_loop_fd *listen_watch;
	int client_fd;

	bool in_stalled; /* the guest's receiver is full: reading rests */
	size_t input_bytes;
	uint8_t input[VM_CONSOLE_INPUT_BYTES];

	atomic_bool posted;
	struct vm_ring ring;
};

#endif
