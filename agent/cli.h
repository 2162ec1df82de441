/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The command line "godwit NOUN VERB": one table per noun makes parser, --help and man page.
 *
 * Exit codes, the same for every verb unless its text says otherwise: 0 done, 1 failed (one
 * line "godwit: ..." on standard error), 2 the command line is wrong and nothing was done,
 * 3 the outcome is not known.
 *
 * One thread: main's.  Tables are constant; arguments are borrowed from argv.
 */
#ifndef AGENT_CLI_H
#define AGENT_CLI_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include "base/error.h"

enum cli_exit {
	CLI_EXIT_DONE = 0,
	CLI_EXIT_FAILED = 1,
	CLI_EXIT_USAGE = 2,
	CLI_EXIT_UNKNOWN = 3,
};

enum cli_type {
	CLI_TYPE_INVALID,
	CLI_FLAG,   /* bool */
	CLI_TEXT,   /* const char *, not empty */
	CLI_SIZE,   /* uint64_t bytes: cli_size_parse(); 0 is refused */
	CLI_DELTA,  /* struct cli_delta */
	CLI_CHOICE, /* int: one of @words */
	CLI_KEYS,   /* no field: "key=value,..." of the rows that have a @key */
	CLI_TYPES
};

/* SIZE, +SIZE or -SIZE. */
struct cli_delta {
	char sign; /* '+', '-', or '=' for a plain size; 0 not given */
	uint64_t bytes;
};

struct cli_word {
	const char *text;
	int value; /* not 0: 0 means not given */
};

/* One row: an option (@name or @key) or an operand (neither; in order). */
struct cli_row {
	const char *name;             /* "format" for --format; NULL for a key or an operand */
	const char *key;              /* also "-o key=..."; NULL for none */
	const char *value;            /* what the help calls the value; an operand's name */
	const char *expected;         /* SIZE, TEXT...: ends "expected ..."; NULL: of the type */
	const struct cli_word *words; /* CHOICE: ends with a NULL text */
	const char *help;             /* sentences */
	size_t offset;                /* of the field in the arguments */
	enum cli_type type;
	char letter;   /* 'f' for -f; 0 for none */
	bool optional; /* operands: may be left out */
};

#define CLI_ROWS_MAX 32 /* of one verb: a bit each while parsing */

struct cli_verb {
	const char *name;
	const char *summary; /* for the list of verbs */
	const char *text;    /* sentences */
	const struct cli_row *rows;
	size_t row_count;
	const char *const *examples; /* ends with NULL; NULL: none */
	/* 0, another exit code, or a negative errno with @err set: -EINVAL is exit code 2,
	 * -ETIMEDOUT 3, anything else 1. */
	int (*run)(const void *args, struct base_error *err);
};

struct cli_noun {
	const char *name;
	const char *summary;
	const char *text;
	const char *exits; /* man page: where exit codes mean more; NULL: nowhere */
	const struct cli_verb *verbs;
	size_t verb_count;
	size_t args_bytes; /* of the structure the rows' offsets are in */
};

/* The largest cli_noun.args_bytes. */
#define CLI_ARGS_BYTES_MAX 1024

/**
 * cli_parse - arguments of one verb.
 * @argc, @argv: what follows the verb.  @args: zeroed, noun.args_bytes; borrows from argv.
 * -EINVAL "option '--x': value 'v': expected ...", "operand 'v': expected ...".
 */
BASE_MUST_CHECK int cli_parse(const struct cli_verb *verb, int argc, char *const argv[], void *args,
			      struct base_error *err);

/**
 * cli_size_parse - "10G", "1.5T", "512", "64KiB": bytes, 1024-based, up to 2^63-1.
 * False when @text is none, is negative, or is no whole number of bytes.
 */
BASE_MUST_CHECK bool cli_size_parse(const char *text, uint64_t *ret_bytes);
#define CLI_SIZE_TEXT "a number of bytes, or one with suffix K, M, G, T or P"

#define CLI_SIZE_SHOWN_BYTES 48
/* "10 GiB", "1.5 MiB", "513 bytes": exact where it ends so, else rounded to 3 digits. */
void cli_size_show(uint64_t size_bytes, char ret_text[CLI_SIZE_SHOWN_BYTES]);

/* @verb NULL: all verbs of the noun; @noun NULL: all nouns. */
void cli_help(FILE *out, const struct cli_noun *nouns, size_t noun_count,
	      const struct cli_noun *noun, const struct cli_verb *verb);
/* godwit(1), or with @noun godwit-NOUN(1). */
void cli_man(FILE *out, const struct cli_noun *nouns, size_t noun_count,
	     const struct cli_noun *noun);

/* All of main(): finds noun and verb, parses, runs, prints the error.  Returns the exit code. */
int cli_main(const struct cli_noun *nouns, size_t noun_count, int argc, char *const argv[]);

/* All nouns of godwit. */
extern const struct cli_noun cli_nouns[];
extern const size_t cli_noun_count;

#endif
