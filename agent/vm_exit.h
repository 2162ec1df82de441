/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the worker's exit code says.  Part of its interface: the parent decides by it.
 */
#ifndef AGENT_VM_EXIT_H
#define AGENT_VM_EXIT_H

#include <stddef.h>

enum vm_exit {
	VM_EXIT_DONE = 0,
	VM_EXIT_FAILED = 1,
	VM_EXIT_USAGE = 2,
	VM_EXIT_UNKNOWN = 3,
	VM_EXIT_CRASHED = 4,
	VM_EXIT_RESET = 5,
	VM_EXIT_STALE = 6,
	VM_EXIT_MOVED = 7,
};

/* One line of the documentation. */
struct vm_exit_text {
	int code;
	const char *text;
};

extern const struct vm_exit_text vm_exit_texts[];
extern const size_t vm_exit_text_count;

#endif
