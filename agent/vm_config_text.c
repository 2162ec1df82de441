/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The help text and the man page, made from the table of keys.
 */
#include <string.h>

#include "agent/vm_config_priv.h"
#include "agent/vm_exit.h"

#define HELP_COLUMN 24
#define HELP_WIDTH  96

const struct vm_exit_text vm_exit_texts[] = {
	{ VM_EXIT_DONE,
	  "The machine ended in order: it powered off, was saved, or was told to end." },
	{ VM_EXIT_FAILED, "The worker failed; the last line on standard error says why." },
	{ VM_EXIT_USAGE, "The configuration is wrong; nothing was done." },
	{ VM_EXIT_UNKNOWN, "The outcome is not known. Not used yet." },
	{ VM_EXIT_CRASHED, "The guest crashed." },
	{ VM_EXIT_RESET, "The guest asked for a reset and on-reset is stop." },
	{ VM_EXIT_STALE, "A higher epoch exists: the machine belongs to another worker." },
};

const size_t vm_exit_text_count = sizeof(vm_exit_texts) / sizeof(vm_exit_texts[0]);

static void pad(FILE *out, size_t used)
{
	for (size_t i = used; i < HELP_COLUMN; i++)
		(void)fputc(' ', out);
}

/* @text from HELP_COLUMN on, broken at blanks. */
static void wrap(FILE *out, const char *text)
{
	size_t column = HELP_COLUMN;

	while (*text != '\0') {
		size_t word = strcspn(text, " ");

		if (column > HELP_COLUMN && column + 1 + word > HELP_WIDTH) {
			(void)fputc('\n', out);
			pad(out, 0);
			column = HELP_COLUMN;
		} else if (column > HELP_COLUMN) {
			(void)fputc(' ', out);
			column++;
		}
		(void)fwrite(text, 1, word, out);
		column += word;
		text += word;
		while (*text == ' ')
			text++;
	}
	(void)fputc('\n', out);
}

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
		pad(out, 2 + strlen(key->name));
		wrap(out, key->help);
		(void)snprintf(line, sizeof(line), "Value: %s%s%s.%s%s%s", key->expected,
			       key->unit != NULL ? "; " : "", key->unit != NULL ? key->unit : "",
			       key->value != NULL && key->value[0] != '\0' ? " Default: " : "",
			       key->value != NULL ? key->value : "",
			       key->value != NULL && key->value[0] != '\0' ? "." : "");
		pad(out, 0);
		wrap(out, line);
	}
	(void)fputs("\nexit codes:\n", out);
	for (size_t i = 0; i < vm_exit_text_count; i++) {
		(void)fprintf(out, "  %d", vm_exit_texts[i].code);
		pad(out, 3);
		wrap(out, vm_exit_texts[i].text);
	}
}

/* Text as roff input: a line must not begin with a control character, '-' is a minus. */
static void roff(FILE *out, const char *text)
{
	for (; *text != '\0'; text++) {
		if (*text == '-')
			(void)fputs("\\-", out);
		else if (*text == '\\')
			(void)fputs("\\e", out);
		else if (text[0] == '.' && text[1] == ' ' && text[2] >= 'A' && text[2] <= 'Z') {
			(void)fputs(".\n", out); /* a sentence ends its line */
			text++;
		} else
			(void)fputc(*text, out);
	}
	(void)fputc('\n', out);
}

static void man_keys(FILE *out)
{
	for (size_t i = 0; i < vm_config_key_count; i++) {
		const struct vm_key *key = &vm_config_keys[i];

		(void)fputs(".TP\n.B ", out);
		roff(out, key->name);
		roff(out, key->help);
		(void)fputs(".br\nValue: ", out);
		roff(out, key->expected);
		if (key->unit != NULL) {
			(void)fputs(".br\nUnit: ", out);
			roff(out, key->unit);
		}
		if (key->value != NULL && key->value[0] != '\0') {
			(void)fputs(".br\nDefault: ", out);
			roff(out, key->value);
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
		roff(out, vm_exit_texts[i].text);
	}
	(void)fputs(".PP\n"
		    "The signal SIGKILL ends a worker whose leash ran out; SIGSYS one that made a\n"
		    "system call it has no business to make.\n"
		    ".SH SEE ALSO\n"
		    "The control protocol: docs/agent/control.md.\n",
		    out);
}
