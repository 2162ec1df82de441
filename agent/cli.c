/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Finds noun and verb, runs it, and says how it ended.
 */
#include "agent/cli.h"

#include <errno.h>
#include <stdalign.h>
#include <string.h>

/* One clean line, whatever file names hold. */
static void print_error(const char *where, const struct base_error *err)
{
	char line[BASE_ERROR_TEXT_BYTES + 128];

	(void)snprintf(line, sizeof(line), "godwit: %s%s", where, err->text);
	for (char *c = line; *c != '\0'; c++)
		if ((unsigned char)*c < ' ' || *c == 0x7f)
			*c = '?';
	(void)fprintf(stderr, "%s\n", line);
}

static int usage(const char *noun, const char *verb)
{
	struct base_error err = { 0 };

	(void)base_fail(&err, -EINVAL, "command '%.40s%s%.40s': expected %s; --help lists them",
			noun, verb[0] != '\0' ? " " : "", verb,
			noun[0] == '\0' ? "a command" : "a known command");
	print_error("", &err);
	return CLI_EXIT_USAGE;
}

/* What was printed must have arrived: a pipe or a disk that refuses it is a failure. */
static int finish(int exit_code)
{
	struct base_error err = { 0 };

	if (fflush(stdout) == 0 && ferror(stdout) == 0)
		return exit_code;
	(void)base_fail_errno(&err, -errno, "standard output");
	print_error("", &err);
	return exit_code == CLI_EXIT_DONE ? CLI_EXIT_FAILED : exit_code;
}

static int run_verb(const struct cli_noun *noun, const struct cli_verb *verb, int argc,
		    char *const argv[])
{
	alignas(max_align_t) unsigned char args[CLI_ARGS_BYTES_MAX] = { 0 };
	struct base_error err = { 0 };
	char where[64];
	int rc;

	base_assert(noun->args_bytes <= sizeof(args));
	(void)snprintf(where, sizeof(where), "%s %s: ", noun->name, verb->name);
	rc = cli_parse(verb, argc, argv, args, &err);
	if (rc == 0)
		rc = verb->run(args, &err);
	if (rc >= 0 && err.code == 0)
		return finish(rc);
	(void)fflush(stdout); /* what was found comes before why it ended */
	if (err.code == 0)
		(void)base_fail_errno(&err, rc, "failed");
	print_error(where, &err);
	if (rc >= 0)
		return finish(rc);
	if (rc == -EINVAL)
		return CLI_EXIT_USAGE;
	return rc == -ETIMEDOUT ? CLI_EXIT_UNKNOWN : CLI_EXIT_FAILED;
}

static bool is_help(const char *text)
{
	return strcmp(text, "--help") == 0 || strcmp(text, "-h") == 0;
}

/* --help among a verb's arguments wins, wherever it stands. */
static bool asks_help(int argc, char *const argv[])
{
	for (int i = 0; i < argc && strcmp(argv[i], "--") != 0; i++)
		if (is_help(argv[i]))
			return true;
	return false;
}

int cli_main(const struct cli_noun *nouns, size_t noun_count, int argc, char *const argv[])
{
	const struct cli_noun *noun = NULL;
	const struct cli_verb *verb = NULL;

	if (argc >= 2 && (is_help(argv[1]) || strcmp(argv[1], "help") == 0)) {
		cli_help(stdout, nouns, noun_count, NULL, NULL);
		return finish(CLI_EXIT_DONE);
	}
	if (argc >= 2 && strcmp(argv[1], "--man") == 0) {
		cli_man(stdout, nouns, noun_count, NULL);
		return finish(CLI_EXIT_DONE);
	}
	if (argc >= 2 && (strcmp(argv[1], "--version") == 0 || strcmp(argv[1], "-V") == 0)) {
		(void)printf("godwit %s\n", GODWIT_VERSION);
		return finish(CLI_EXIT_DONE);
	}
	for (size_t i = 0; argc >= 2 && i < noun_count; i++)
		if (strcmp(argv[1], nouns[i].name) == 0)
			noun = &nouns[i];
	if (noun == NULL)
		return usage(argc >= 2 ? argv[1] : "", "");
	if (argc >= 3 && (is_help(argv[2]) || strcmp(argv[2], "help") == 0)) {
		cli_help(stdout, nouns, noun_count, noun, NULL);
		return finish(CLI_EXIT_DONE);
	}
	if (argc >= 3 && strcmp(argv[2], "--man") == 0) {
		cli_man(stdout, nouns, noun_count, noun);
		return finish(CLI_EXIT_DONE);
	}
	for (size_t i = 0; argc >= 3 && i < noun->verb_count; i++)
		if (strcmp(argv[2], noun->verbs[i].name) == 0)
			verb = &noun->verbs[i];
	if (verb == NULL)
		return usage(noun->name, argc >= 3 ? argv[2] : "");
	if (asks_help(argc - 3, argv + 3)) {
		cli_help(stdout, nouns, noun_count, noun, verb);
		return finish(CLI_EXIT_DONE);
	}
	return run_verb(noun, verb, argc - 3, argv + 3);
}
