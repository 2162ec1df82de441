/* SPDX-License-Identifier: Apache-2.0 */
/* What the verbs of "godwit vm" share: their arguments.  Main thread. */
#ifndef AGENT_CLI_VM_PRIV_H
#define AGENT_CLI_VM_PRIV_H

#include "agent/cli.h"

enum cli_vm_owner {
	CLI_VM_OWNER_INVALID, /* not given: only look */
	CLI_VM_HERE,
	CLI_VM_THERE,
	CLI_VM_OWNERS
};

struct cli_vm_args {
	const char *state_dir;
	const char *name;
	int owner; /* enum cli_vm_owner */
	const char *control;
	const char *from;
	const char *report;
	bool wait;
	bool other_is_dead;
	bool dry_run;
	bool json;
};

int cli_vm_resolve(const void *arguments, struct base_error *err);

int cli_vm_report(const void *arguments, struct base_error *err);

#define CLI_VM_VERBS 2
extern const struct cli_verb cli_vm_verbs[CLI_VM_VERBS];

#endif
