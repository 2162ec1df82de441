/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The help text and the man page, made from the table of keys.
 */
#include <string.h>

#include "agent/text_layout.h"
#include "agent/vm_config_priv.h"
#include "agent/vm_exit.h"

#define HELP_COLUMN 24

const struct vm_exit_text vm_exit_texts[] = {
	{ VM_EXIT_DONE,
	  "The machine ended in order: it powered off, was saved, or was told to end." },
	{ VM_EXIT_FAILED, "The worker failed; the last line on standard error says why." },
	{ VM_EXIT_USAGE, "The configuration is wrong; nothing was done." },
	{ VM_EXIT_UNKNOWN, "The outcome is not known. Not used yet." },
	{ VM_EXIT_CRASHED, "The guest crashed." },
	{ VM_EXIT_RESET, "The guest asked for a reset and on-reset is stop." },
	{ VM_EXIT_STALE, "A higher epoch exists: the machine belongs to another worker." },
	{ VM_EXIT_MOVED, "The machine has moved: it runs at another worker now." },
};

const size_t vm_exit_text_count = sizeof(vm_exit_texts) / sizeof(vm_exit_texts[0]);

void vm_config_help(FILE *out)
{
	(void)fputs("usage: godwit-vm [--config FILE] [--KEY VALUE | --KEY=VALUE]...\n"
		    "       godwit-vm --help | --man | --version\n"
		    "\n"
		    "Runs one virtual machine until it ends.  FILE has lines 'KEY = VALUE' and\n"
		    "comments (#); flags win over the file.\n"
		    "\n"
		    "keys:\n",
		    out);
	for (size_t i = 0; i < vm_config_key_count; i++) {
		const struct vm_key *key = &vm_config_keys[i];
		char line[512];

		(void)fprintf(out, "  %s", key->name);
		text_pad(out, 2 + strlen(key->name), HELP_COLUMN);
		text_wrap(out, HELP_COLUMN, key->help);
		(void)snprintf(line, sizeof(line), "Value: %s%s%s.%s%s%s", key->expected,
			       key->unit != NULL ? "; " : "", key->unit != NULL ? key->unit : "",
			       key->value != NULL && key->value[0] != '\0' ? " Default: " : "",
			       key->value != NULL ? key->value : "",
			       key->value != NULL && key->value[0] != '\0' ? "." : "");
		text_pad(out, 0, HELP_COLUMN);
		text_wrap(out, HELP_COLUMN, line);
	}
	(void)fputs("\nexit codes:\n", out);
	for (size_t i = 0; i < vm_exit_text_count; i++) {
		(void)fprintf(out, "  %d", vm_exit_texts[i].code);
		text_pad(out, 3, HELP_COLUMN);
		text_wrap(out, HELP_COLUMN, vm_exit_texts[i].text);
	}
}

static void man_keys(FILE *out)
{
	for (size_t i = 0; i < vm_config_key_count; i++) {
		const struct vm_key *key = &vm_config_keys[i];

		(void)fputs(".TP\n.B ", out);
		text_roff(out, key->name);
		text_roff(out, key->help);
		(void)fputs(".br\nValue: ", out);
		text_roff(out, key->expected);
		if (key->unit != NULL) {
			(void)fputs(".br\nUnit: ", out);
			text_roff(out, key->unit);
		}
		if (key->value != NULL && key->value[0] != '\0') {
			(void)fputs(".br\nDefault: ", out);
			text_roff(out, key->value);
		}
	}
}

void vm_config_man(FILE *out)
{
	(void)fputs(".\\\" Made from the table of keys: godwit\\-vm \\-\\-man\n"
		    ".TH GODWIT\\-VM 8 2026-11-20 Godwit \"System administration\"\n"
		    ".SH NAME\n"
		    "godwit\\-vm \\- run one virtual machine on KVM\n"
		    ".SH SYNOPSIS\n"
		    ".B godwit\\-vm\n"
		    "[\\-\\-config FILE] [\\-\\-KEY VALUE | \\-\\-KEY=VALUE]...\n"
		    ".br\n"
		    ".B godwit\\-vm\n"
		    "\\-\\-help | \\-\\-man | \\-\\-version\n"
		    ".SH DESCRIPTION\n"
		    ".B godwit\\-vm\n"
		    "runs one virtual machine and ends with it.\n"
		    "It is configured by a file, by flags, or by both; a flag wins over the file.\n"
		    "The configuration is read and checked whole before anything is done.\n"
		    ".PP\n"
		    "Each line of FILE is\n"
		    ".BR \"KEY = VALUE\" ,\n"
		    "empty, or a comment that begins with #.\n"
		    "A value goes to the end of the line, without the blanks around it.\n"
		    ".SH KEYS\n",
		    out);
	man_keys(out);
	(void)fputs(
		".SH SIGNALS\n"
		"SIGTERM, SIGINT, SIGQUIT and, unless ignored at the start, SIGHUP cut the\n"
		"machine's power and end the worker in order, like the control command\n"
		".BR stop .\n"
		"A state that is being saved is finished first; a kernel or saved state that is\n"
		"being loaded is not.\n"
		".SH EXIT STATUS\n",
		out);
	for (size_t i = 0; i < vm_exit_text_count; i++) {
		(void)fprintf(out, ".TP\n.B %d\n", vm_exit_texts[i].code);
		text_roff(out, vm_exit_texts[i].text);
	}
	(void)fputs(".PP\n"
		    "The signal SIGKILL ends a worker whose leash ran out; SIGSYS one that made a\n"
		    "system call it has no business to make.\n"
		    ".SH SEE ALSO\n"
		    "The control protocol: docs/agent/control.md.\n",
		    out);
}
