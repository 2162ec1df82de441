/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The table of configuration keys, for the parser and the texts made from it.
 */
#ifndef AGENT_VM_CONFIG_PRIV_H
#define AGENT_VM_CONFIG_PRIV_H

#include <stddef.h>
#include <stdint.h>

#include "agent/vm_config.h"

enum vm_key_type {
	VM_KEY_INVALID,
	VM_KEY_NAME,    /* char[]: letters, digits, '.', '_', '-' */
	VM_KEY_TEXT,    /* char[]: printable */
	VM_KEY_PATH,    /* char[]: printable, not empty */
	VM_KEY_SIZE,    /* uint64_t bytes, suffix K, M, G or T */
	VM_KEY_NUMBER,  /* uint64_t */
	VM_KEY_FD,      /* int */
	VM_KEY_CHOICE,  /* int-sized enum: @choice gives it */
	VM_KEY_CONSOLE, /* struct vm_console_spec */
	VM_KEY_TYPES
};

struct vm_key {
	const char *name;
	enum vm_key_type type;
	size_t offset;        /* in struct vm_config */
	size_t size_bytes;    /* of the field there */
	uint64_t least;       /* SIZE, NUMBER, FD: the range */
	uint64_t most;        /* both ends included */
	uint64_t step;        /* SIZE: a multiple of this */
	const char *expected; /* ends "expected ..." in errors; also shown in the texts */
	const char *unit;     /* "" for none */
	const char *value;    /* the default, as one would write it; NULL for none */
	int (*choice)(const char *text); /* CHOICE: the enum's value, 0 for none of them */
	const char *help;                /* one or more sentences */
};

extern const struct vm_key vm_config_keys[];
extern const size_t vm_config_key_count;

/* NULL: no such key.  @name: @length bytes. */
const struct vm_key *vm_config_key_find(const char *name, size_t length);

#endif
