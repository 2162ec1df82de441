/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The control socket: clients, their lines, answers and events.
 *
 * Knows no command: it is given a table of them.  A handler answers at once, or
 * keeps the call's reference and answers later; a client that went away meanwhile
 * is no error.  A client that does not read its answers is dropped.  Loop thread.
 */
#ifndef AGENT_VM_CONTROL_H
#define AGENT_VM_CONTROL_H

#include <jansson.h>
#include <stdint.h>

#include "agent/vm_control_proto.h"
#include "base/error.h"
#include "base/loop.h"

struct vm_control;

/* Whom an answer is for.  A value. */
struct vm_call {
	uint32_t client;     /* slot */
	uint64_t generation; /* which client of that slot */
	int64_t id;
};

#define VM_CALL_LATER 1 /* a handler's return: vm_control_answer() or _refuse() will come */

struct vm_command {
	struct vm_command_spec spec;
	/* 0: *ret_result (owned by the caller, NULL for {}) is the answer; VM_CALL_LATER;
	 * negative errno: @err is the answer. */
	int (*handle)(void *context, const struct vm_call *call, const struct vm_request *request,
		      json_t **ret_result, struct base_error *err);
};

/**
 * vm_control_new - listen on @path (privileged step; before lock-down).
 * @commands: 1..VM_CONTROL_COMMANDS_MAX rows; borrowed.  @context: for the handlers.
 * Errors of vm_socket_open().
 */
BASE_MUST_CHECK int vm_control_new(const char *path, const struct vm_command *commands,
				   size_t command_count, void *context,
				   struct vm_control **ret_control, struct base_error *err);
/* Tries once to send what waits; removes the socket.  NULL is fine. */
void vm_control_free(struct vm_control *control);

/* Join the loop: from here on clients are heard. */
BASE_MUST_CHECK int vm_control_begin(struct vm_control *control, struct base_loop *loop,
				     struct base_error *err);

/* Answers of calls that were kept.  @result is taken, NULL for {}. */
void vm_control_answer(struct vm_control *control, const struct vm_call *call, json_t *result);
void vm_control_refuse(struct vm_control *control, const struct vm_call *call,
		       const struct base_error *err);

/* Tell of clients that are gone before they had all their answers: @gone(context of the handlers,
 * their client and generation; no id).  Loop thread. */
void vm_control_on_gone(struct vm_control *control,
			void (*gone)(void *context, const struct vm_call *call));

/* From now on this client gets events. */
void vm_control_subscribe(struct vm_control *control, const struct vm_call *call);
/* Tell all subscribers; @fields is taken. */
void vm_control_event(struct vm_control *control, const char *event, json_t *fields);

/* Directory in which vm_control_free() removes files: for the sandbox. */
int vm_control_directory_fd(const struct vm_control *control);

#endif
