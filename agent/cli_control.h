/* SPDX-License-Identifier: Apache-2.0 */
/* One command to a worker's control socket, for verbs of the command line.  Main thread; blocks. */
#ifndef AGENT_CLI_CONTROL_H
#define AGENT_CLI_CONTROL_H

#include <jansson.h>
#include <stddef.h>
#include <stdint.h>

#include "base/error.h"

/**
 * cli_control_ask - send a command and wait for its answer.
 * @path: of the socket.  @request: an object with cmd and arguments; the id is put in.  Borrowed.
 * @timeout_s: 0: none.  @limit_bytes: of the answer's line.
 * Gives the result, to be released.  -ENOENT, -ECONNREFUSED...: no worker is there; -EBADMSG the
 * answer is none; -EPROTO, with the worker's own words, it refuses; -EIO no answer came.
 */
BASE_MUST_CHECK int cli_control_ask(const char *path, json_t *request, uint32_t timeout_s,
				    size_t limit_bytes, json_t **ret_result,
				    struct base_error *err);

#endif
