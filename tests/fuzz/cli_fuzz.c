/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The command line: any arguments give a parsed structure or one clean line of text.  The
 * first byte chooses the verb; zeros separate the arguments.  The same bytes as the beginning
 * of a foreign image.
 */
#include <stdalign.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "agent/cli.h"
#include "agent/cli_disk_foreign.h"

#define ARGUMENTS_MAX 64
#define BYTES_MAX     4096

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void try_sizes(const char *text)
{
	char shown[CLI_SIZE_SHOWN_BYTES];
	uint64_t bytes;

	if (!cli_size_parse(text, &bytes))
		return;
	if (bytes > INT64_MAX)
		abort();
	cli_size_show(bytes, shown);
}

/* All verbs of all nouns, in a row. */
static const struct cli_verb *verb_of(size_t number)
{
	size_t all = 0;

	for (size_t i = 0; i < cli_noun_count; i++)
		all += cli_nouns[i].verb_count;
	number %= all;
	for (size_t i = 0; i < cli_noun_count; number -= cli_nouns[i++].verb_count)
		if (number < cli_nouns[i].verb_count)
			return &cli_nouns[i].verbs[number];
	abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	alignas(max_align_t) static unsigned char args[CLI_ARGS_BYTES_MAX];
	struct cli_qcow2_outside outside;
	char text[BYTES_MAX + 1];
	char *arguments[ARGUMENTS_MAX];
	struct base_error err = { 0 };
	int count = 0;

	(void)cli_foreign_name(cli_foreign_find(data, size));
	(void)cli_qcow2_outside(data, size, &outside);
	if (size < 1 || size > BYTES_MAX)
		return 0;
	memcpy(text, data + 1, size - 1);
	text[size - 1] = '\0';
	for (size_t at = 0; at < size && count < ARGUMENTS_MAX; at += strlen(text + at) + 1) {
		arguments[count++] = text + at;
		try_sizes(text + at);
	}
	memset(args, 0, sizeof(args));
	if (cli_parse(verb_of(data[0]), count, arguments, args, &err) < 0 &&
	    (err.code == 0 || err.text[0] == '\0'))
		abort();
	return 0;
}
