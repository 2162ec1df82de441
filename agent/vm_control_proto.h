/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The control protocol's bytes: a line to a request, results to lines.
 *
 * One JSON object per line.  docs/agent/control.md.  Pure; any thread.  Lines are
 * hostile: everything is checked against the table of commands.
 */
#ifndef AGENT_VM_CONTROL_PROTO_H
#define AGENT_VM_CONTROL_PROTO_H

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "agent/agent_limits.h"
#include "base/error.h"

enum vm_arg_type {
	VM_ARG_INVALID, /* ends the list of arguments */
	VM_ARG_TEXT,    /* string, 1..VM_CONTROL_TEXT_BYTES - 1 bytes without control characters */
	VM_ARG_BYTES,   /* string, any bytes but zero */
	VM_ARG_SWITCH,  /* true or false */
	VM_ARG_NUMBER,  /* integer from 0, or a string "0x..." or of decimal digits */
	VM_ARG_TYPES
};

struct vm_arg_spec {
	const char *name;
	enum vm_arg_type type;
	bool required;
};

/* A row of the command table as far as the protocol knows it. */
struct vm_command_spec {
	const char *name;
	struct vm_arg_spec args[VM_CONTROL_ARGS_MAX];
};

/* A value. */
struct vm_arg {
	bool given;
	bool flag;
	uint64_t number;
	char text[VM_CONTROL_TEXT_BYTES];
};

/* A value; args in the order of the command's specification. */
struct vm_request {
	bool has_id;    /* also set when the rest of the line is refused */
	int64_t id;     /* 0 and up */
	size_t command; /* index into the table */
	struct vm_arg args[VM_CONTROL_ARGS_MAX];
};

/**
 * vm_request_decode - one line, without its newline.
 * @commands: table of @command_count rows.
 * @ret_request: id is set whenever the line had a usable one, also on failure.
 * -EBADMSG not one JSON object, or keys doubled; -EINVAL id, command or argument unknown,
 * missing or of a wrong type: named with what was expected.
 */
BASE_MUST_CHECK int vm_request_decode(const struct vm_command_spec *commands, size_t command_count,
				      const char *line, size_t size_bytes,
				      struct vm_request *ret_request, struct base_error *err);

/*
 * Lines, with newline, to be freed; NULL: no memory.  @result is taken (may be NULL: {}).
 * @has_id false gives "id":null.
 */
char *vm_answer_encode(bool has_id, int64_t id, json_t *result);
char *vm_refusal_encode(bool has_id, int64_t id, const struct base_error *err);
char *vm_event_encode(const char *event, json_t *fields); /* takes @fields */

/* "EINVAL" for -EINVAL; "EIO" for what the protocol has no name for. */
const char *vm_error_name(int code);

/* A number that JSON readers keep exact: "0x..." as a string. */
json_t *vm_json_hex(uint64_t number);

#endif
