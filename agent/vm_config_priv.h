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
	VM_KEY_DISK,    /* repeatable: struct vm_disk_config[], and the count at @count_offset */
	VM_KEY_NIC,     /* repeatable: struct vm_nic_config[] likewise */
	VM_KEY_PATHS,   /* repeatable: char[][VM_PATH_BYTES] likewise */
	VM_KEY_TYPES
};

struct vm_key {
	const char *name;
	enum vm_key_type type;
	size_t offset;        /* in struct vm_config */
	size_t size_bytes;    /* of the field there, of one element if repeatable */
	size_t count_offset;  /* repeatable: of the uint32_t that counts the elements */
	uint64_t least;       /* SIZE, NUMBER, FD: the range */
	uint64_t most;        /* both ends included; repeatable: the number of elements */
	uint64_t step;        /* SIZE: a multiple of this */
	const char *expected; /* ends "expected ..." in errors; also shown in the texts */
	const char *unit;     /* "" for none */
	const char *value;    /* the default, as one would write it; NULL for none */
	int (*choice)(const char *text); /* CHOICE: the enum's value, 0 for none of them */
	const char *help;                /* one or more sentences */
};

extern const struct vm_key vm_config_keys[];
extern const size_t vm_config_key_count;

static inline bool vm_key_repeats(const struct vm_key *key)
{
	return key->type == VM_KEY_DISK || key->type == VM_KEY_NIC || key->type == VM_KEY_PATHS;
}

/* --- vm_config_devices.c --- */

/* Values of the keys disk and nic.  @where begins error texts. */
BASE_MUST_CHECK int vm_config_nic(const char *where, const char *value, size_t size_bytes,
				  struct vm_nic_config *ret_nic, struct base_error *err);
/* What the devices demand of each other; gives LUNs and addresses to those without. */
BASE_MUST_CHECK int vm_config_devices_check(struct vm_config *config, struct base_error *err);

/* --- vm_config.c, for the other parsers --- */

/* A value from outside as it is shown in an error: cut, without control characters. */
struct vm_shown {
	char text[100];
};
struct vm_shown vm_config_show(const char *bytes, size_t length);
/* Decimal digits only; false when there are none, others, or too many. */
bool vm_config_number(const char *text, size_t length, uint64_t *ret_number);
/* Of a VM: a file's name as well. */
bool vm_config_is_name(const char *text, size_t length);
bool vm_config_printable(const char *text, size_t length);

/* NULL: no such key.  @name: @length bytes. */
const struct vm_key *vm_config_key_find(const char *name, size_t length);

#endif
