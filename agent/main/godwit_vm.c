/* SPDX-License-Identifier: Apache-2.0 */
/* godwit-vm: one virtual machine in one process.  See godwit-vm(8). */
#include <stdio.h>
#include <unistd.h>

#include "agent/vm_config.h"
#include "agent/vm_worker.h"
#include "base/log.h"

static int show_text(enum vm_config_action action)
{
	if (action == VM_CONFIG_HELP)
		vm_config_help(stdout);
	else if (action == VM_CONFIG_MAN)
		vm_config_man(stdout);
	else
		(void)printf("godwit-vm %s\n", GODWIT_VERSION);
	return fflush(stdout) == 0 ? VM_EXIT_DONE : VM_EXIT_FAILED;
}

int main(int argc, char *argv[])
{
	static struct vm_config config; /* large, and there is one */
	enum vm_config_action action = VM_CONFIG_INVALID;
	struct base_error err = { 0 };
	enum vm_exit exit_code = VM_EXIT_USAGE;

	if (vm_config_parse(argc, argv, &action, &config, &err) == 0) {
		if (action != VM_CONFIG_RUN)
			return show_text(action);
		base_log_init(STDERR_FILENO, config.log_level);
		exit_code = vm_worker_run(&config, &err);
	}
	if (err.code != 0)
		(void)fprintf(stderr, "godwit-vm: %s\n", err.text);
	return (int)exit_code;
}
