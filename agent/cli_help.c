/* SPDX-License-Identifier: Apache-2.0 */
/*
 * --help and the man pages, from the tables.
 */
#include <string.h>

#include "agent/cli.h"
#include "agent/text_layout.h"

#define NAME_COLUMN   14
#define OPTION_COLUMN 30
#define LABEL_BYTES   96
#define LINE_BYTES    512

static const struct {
	int code;
	const char *text;
} exits[] = {
	{ CLI_EXIT_DONE, "Done." },
	{ CLI_EXIT_FAILED, "Failed. The last line on standard error says what, with which value, "
			   "and what was expected." },
	{ CLI_EXIT_USAGE, "The command line is wrong. Nothing was done." },
	{ CLI_EXIT_UNKNOWN, "The outcome is not known: it may have happened or not." },
};

static bool is_operand(const struct cli_row *row)
{
	return row->name == NULL && row->key == NULL;
}

static bool has_operands(const struct cli_verb *verb)
{
	for (size_t i = 0; i < verb->row_count; i++)
		if (is_operand(&verb->rows[i]))
			return true;
	return false;
}

/* "create [OPTION]... NAME [SIZE]" */
static void synopsis(char *to, size_t to_bytes, const struct cli_verb *verb)
{
	size_t used;

	(void)snprintf(to, to_bytes, "%s [OPTION]...", verb->name);
	for (size_t i = 0; i < verb->row_count; i++) {
		const struct cli_row *row = &verb->rows[i];

		if (!is_operand(row))
			continue;
		used = strlen(to);
		(void)snprintf(to + used, to_bytes - used, row->optional ? " [%s]" : " %s",
			       row->value);
	}
}

/* "-f, --format FORMAT", "-o subformat=KIND", "NAME" */
static void label(char *to, size_t to_bytes, const struct cli_row *row)
{
	const char *value = row->value != NULL ? row->value : "";
	const char *blank = row->value != NULL ? " " : "";

	if (is_operand(row))
		(void)snprintf(to, to_bytes, "%s", value);
	else if (row->name == NULL)
		(void)snprintf(to, to_bytes, "-o %s=%s", row->key, value);
	else if (row->letter != 0)
		(void)snprintf(to, to_bytes, "-%c, --%s%s%s", row->letter, row->name, blank, value);
	else
		(void)snprintf(to, to_bytes, "--%s%s%s", row->name, blank, value);
}

/* The help with the words of a choice and the key of -o. */
static void explain(char *to, size_t to_bytes, const struct cli_row *row)
{
	size_t used;

	(void)snprintf(to, to_bytes, "%s", row->help);
	if (row->type == CLI_CHOICE) {
		used = strlen(to);
		(void)snprintf(to + used, to_bytes - used, " One of:");
		for (const struct cli_word *w = row->words; w->text != NULL; w++) {
			used = strlen(to);
			(void)snprintf(to + used, to_bytes - used, " %s%s", w->text,
				       w[1].text != NULL ? "," : ".");
		}
	}
	if (row->key != NULL && row->name != NULL) {
		used = strlen(to);
		(void)snprintf(to + used, to_bytes - used, " Also -o %s=%s.", row->key, row->value);
	}
}

static void help_rows(FILE *out, const struct cli_verb *verb, bool operands)
{
	for (size_t i = 0; i < verb->row_count; i++) {
		const struct cli_row *row = &verb->rows[i];
		char text[LINE_BYTES];
		size_t used;

		if (is_operand(row) != operands)
			continue;
		label(text, sizeof(text), row);
		used = 2 + strlen(text);
		(void)fprintf(out, "  %s", text);
		if (used >= OPTION_COLUMN) {
			(void)fputc('\n', out);
			used = 0;
		}
		text_pad(out, used, OPTION_COLUMN);
		explain(text, sizeof(text), row);
		text_wrap(out, OPTION_COLUMN, text);
	}
}

static void help_exits(FILE *out)
{
	(void)fputs("\nexit codes:\n", out);
	for (size_t i = 0; i < sizeof(exits) / sizeof(exits[0]); i++) {
		(void)fprintf(out, "  %d", exits[i].code);
		text_pad(out, 3, NAME_COLUMN);
		text_wrap(out, NAME_COLUMN, exits[i].text);
	}
}

static void help_verb(FILE *out, const struct cli_noun *noun, const struct cli_verb *verb)
{
	char line[LINE_BYTES];

	synopsis(line, sizeof(line), verb);
	(void)fprintf(out, "usage: godwit %s %s\n\n", noun->name, line);
	text_wrap(out, 0, verb->text);
	if (has_operands(verb)) {
		(void)fputs("\noperands:\n", out);
		help_rows(out, verb, true);
	}
	(void)fputs("\noptions:\n", out);
	help_rows(out, verb, false);
	if (verb->examples == NULL)
		return;
	(void)fputs("\nexamples:\n", out);
	for (const char *const *example = verb->examples; *example != NULL; example++)
		(void)fprintf(out, "  %s\n", *example);
}

static void help_list(FILE *out, const char *name, const char *summary)
{
	(void)fprintf(out, "  %s", name);
	text_pad(out, 2 + strlen(name), NAME_COLUMN);
	text_wrap(out, NAME_COLUMN, summary);
}

void cli_help(FILE *out, const struct cli_noun *nouns, size_t noun_count,
	      const struct cli_noun *noun, const struct cli_verb *verb)
{
	if (verb != NULL) {
		help_verb(out, noun, verb);
		return;
	}
	if (noun != NULL) {
		(void)fprintf(out, "usage: godwit %s VERB [OPTION]... OPERAND...\n\n", noun->name);
		text_wrap(out, 0, noun->text);
		(void)fputs("\nverbs:\n", out);
		for (size_t i = 0; i < noun->verb_count; i++)
			help_list(out, noun->verbs[i].name, noun->verbs[i].summary);
		(void)fprintf(out, "\n'godwit %s VERB --help' shows the options of one verb.\n",
			      noun->name);
	} else {
		(void)fputs("usage: godwit NOUN VERB [OPTION]... OPERAND...\n"
			    "       godwit --help | --man | --version\n\nnouns:\n",
			    out);
		for (size_t i = 0; i < noun_count; i++)
			help_list(out, nouns[i].name, nouns[i].summary);
		(void)fputs("\n'godwit NOUN --help' lists the verbs of one noun.\n", out);
	}
	help_exits(out);
}

static void man_rows(FILE *out, const struct cli_verb *verb, bool operands)
{
	for (size_t i = 0; i < verb->row_count; i++) {
		const struct cli_row *row = &verb->rows[i];
		char text[LINE_BYTES];

		if (is_operand(row) != operands)
			continue;
		label(text, sizeof(text), row);
		(void)fputs(".TP\n.B ", out);
		text_roff(out, text);
		explain(text, sizeof(text), row);
		text_roff(out, text);
	}
}

static void man_verb(FILE *out, const struct cli_noun *noun, const struct cli_verb *verb)
{
	char line[LINE_BYTES];

	synopsis(line, sizeof(line), verb);
	(void)fprintf(out, ".SS %s\n.B godwit %s\n", verb->name, noun->name);
	text_roff(out, line);
	(void)fputs(".PP\n", out);
	text_roff(out, verb->text);
	man_rows(out, verb, true);
	man_rows(out, verb, false);
	if (verb->examples == NULL)
		return;
	(void)fputs(".PP\nExamples:\n.PP\n.nf\n", out);
	for (const char *const *example = verb->examples; *example != NULL; example++) {
		(void)fputs("    ", out);
		text_roff_word(out, *example);
		(void)fputc('\n', out);
	}
	(void)fputs(".fi\n", out);
}

static void man_exits(FILE *out, const char *more)
{
	(void)fputs(".SH EXIT STATUS\n", out);
	for (size_t i = 0; i < sizeof(exits) / sizeof(exits[0]); i++) {
		(void)fprintf(out, ".TP\n.B %d\n", exits[i].code);
		text_roff(out, exits[i].text);
	}
	if (more == NULL)
		return;
	(void)fputs(".PP\n", out);
	text_roff(out, more);
}

static void man_noun(FILE *out, const struct cli_noun *noun)
{
	(void)fprintf(out, ".\\\" Made from the table of verbs: godwit %s \\-\\-man\n", noun->name);
	(void)fputs(".TH GODWIT\\-", out);
	for (const char *c = noun->name; *c != '\0'; c++)
		(void)fputc(*c >= 'a' && *c <= 'z' ? *c - 'a' + 'A' : *c, out);
	(void)fprintf(out, " 1 2026-11-21 Godwit \"User commands\"\n.SH NAME\ngodwit\\-%s \\- ",
		      noun->name);
	text_roff(out, noun->summary);
	(void)fprintf(out, ".SH SYNOPSIS\n.B godwit %s\nVERB [OPTION]... OPERAND...\n", noun->name);
	(void)fprintf(out, ".br\n.B godwit %s\n[VERB] \\-\\-help\n", noun->name);
	(void)fputs(".SH DESCRIPTION\n", out);
	text_roff(out, noun->text);
	(void)fputs(".SH VERBS\n", out);
	for (size_t i = 0; i < noun->verb_count; i++)
		man_verb(out, noun, &noun->verbs[i]);
	man_exits(out, noun->exits);
	(void)fputs(".SH SEE ALSO\n.BR godwit (1)\n", out);
}

void cli_man(FILE *out, const struct cli_noun *nouns, size_t noun_count,
	     const struct cli_noun *noun)
{
	if (noun != NULL) {
		man_noun(out, noun);
		return;
	}
	(void)fputs(".\\\" Made from the table of nouns: godwit \\-\\-man\n"
		    ".TH GODWIT 1 2026-11-21 Godwit \"User commands\"\n"
		    ".SH NAME\ngodwit \\- virtual machines and their disks\n"
		    ".SH SYNOPSIS\n.B godwit\nNOUN VERB [OPTION]... OPERAND...\n"
		    ".br\n.B godwit\n[NOUN [VERB]] \\-\\-help\n"
		    ".br\n.B godwit\n\\-\\-man | \\-\\-version\n"
		    ".SH DESCRIPTION\n"
		    "Everything is said as a noun and a verb.\n"
		    "Options may stand before, between and after operands; after\n"
		    ".B \\-\\-\n"
		    "everything is an operand.\n"
		    ".SH NOUNS\n",
		    out);
	for (size_t i = 0; i < noun_count; i++) {
		(void)fprintf(out, ".TP\n.B %s\n", nouns[i].name);
		text_roff(out, nouns[i].summary);
	}
	man_exits(out, NULL);
	(void)fputs(".SH SEE ALSO\n", out);
	for (size_t i = 0; i < noun_count; i++)
		(void)fprintf(out, ".BR godwit\\-%s (1)%s\n", nouns[i].name,
			      i + 1 < noun_count ? "," : "");
}
