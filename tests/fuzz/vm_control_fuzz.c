/* SPDX-License-Identifier: Apache-2.0 */
/* A line of the control protocol, against the worker's own table of commands. */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "agent/vm_worker_priv.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct vm_command_spec specs[VM_CONTROL_COMMANDS_MAX];
	struct base_error err = { 0 };
	struct vm_request request;
	char *line = NULL;

	for (size_t i = 0; i < vm_worker_command_count; i++)
		specs[i] = vm_worker_commands[i].spec;
	if (vm_request_decode(specs, vm_worker_command_count, (const char *)data, size, &request,
			      &err) < 0) {
		if (err.code == 0)
			abort();
		line = vm_refusal_encode(request.has_id, request.id, &err);
	} else {
		if (request.command >= vm_worker_command_count || !request.has_id || request.id < 0)
			abort();
		line = vm_answer_encode(true, request.id, NULL);
	}
	/* Whatever came in, one whole line goes out. */
	if (line == NULL || strchr(line, '\n') != line + strlen(line) - 1)
		abort();
	free(line);
	return 0;
}
