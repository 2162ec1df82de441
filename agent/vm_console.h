/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Where the serial console goes: a file, the terminal, a Unix socket or nowhere.
 *
 * Output never blocks a vCPU: vm_console_write() puts into a ring that the loop
 * drains.  Everything else belongs to the loop's thread.
 *
 *   file   appended to; made with mode 0600 if missing.
 *   stdio  the terminal is put into raw mode and restored by vm_console_free().
 *          Ctrl-A x asks to end the machine, Ctrl-A Ctrl-A (or a) sends Ctrl-A.
 *   unix   one client at a time, a later one replaces the earlier; while there is
 *          none the newest 64 KiB are kept for the next.
 *   none   dropped, not counted as lost.
 */
#ifndef AGENT_VM_CONSOLE_H
#define AGENT_VM_CONSOLE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "agent/vm_config.h"
#include "base/error.h"
#include "base/loop.h"

struct vm_console;

/* Called on the loop's thread. */
struct vm_console_ops {
	/* Bytes for the guest; the count taken (the rest is offered again after room). */
	size_t (*input)(void *context, const uint8_t *bytes, size_t size_bytes);
	/* Ctrl-A x. */
	void (*quit)(void *context);
};

/**
 * vm_console_new - open the sink (privileged step; before lock-down).
 * Nothing is left behind when vm_console_free() follows without vm_console_begin().
 * -EINVAL the path is a directory, a FIFO, ...; -EBUSY the socket is another worker's;
 * other errno from the kernel with context.
 */
BASE_MUST_CHECK int vm_console_new(const struct vm_console_spec *spec,
				   struct vm_console **ret_console, struct base_error *err);
void vm_console_free(struct vm_console *console); /* NULL is fine */

/* Join the loop: from here on bytes flow.  @ops, @loop borrowed. */
BASE_MUST_CHECK int vm_console_begin(struct vm_console *console, struct base_loop *loop,
				     const struct vm_console_ops *ops, void *context,
				     struct base_error *err);

/* Output of the guest.  Any thread; never blocks on the sink. */
void vm_console_write(struct vm_console *console, const uint8_t *bytes, size_t size_bytes);

/* The guest's receiver has room again: offer what waits.  Loop thread. */
void vm_console_room(struct vm_console *console);

/* Write what the ring holds; vCPUs have ended.  A terminal, pipe or client that takes nothing
 * is waited for VM_CONSOLE_FLUSH_MS at most.  Loop thread, after the run. */
void vm_console_finish(struct vm_console *console);

/* Directory in which vm_console_free() removes files, -1 for none: for the sandbox. */
int vm_console_directory_fd(const struct vm_console *console);

struct vm_console_status {
	enum vm_console_kind kind;
	uint64_t output_bytes;  /* offered by the guest */
	uint64_t dropped_bytes; /* of them lost */
	bool connected;         /* UNIX: a client is there */
};
void vm_console_status(struct vm_console *console, struct vm_console_status *ret_status);
const char *vm_console_kind_name(enum vm_console_kind kind);

#endif
