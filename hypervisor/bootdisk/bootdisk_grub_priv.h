/* SPDX-License-Identifier: Apache-2.0 */
/* The interpreter of GRUB scripts: its state, shared by the language and its commands. */
#ifndef HYPERVISOR_BOOTDISK_BOOTDISK_GRUB_PRIV_H
#define HYPERVISOR_BOOTDISK_BOOTDISK_GRUB_PRIV_H

#include "hypervisor/bootdisk/bootdisk_priv.h"

#define GRUB_STEPS_MAX   100000u /* commands; a grub.cfg of a hundred kernels runs some thousands */
#define GRUB_DEPTH_MAX   24u     /* of if, function, configfile */
#define GRUB_TOKENS_MAX  100000u
#define GRUB_SCRIPTS_MAX 16u
#define GRUB_VARS_MAX    512u
#define GRUB_NAME_BYTES  64u
#define GRUB_VALUE_BYTES 4096u
#define GRUB_WORDS_MAX   128u
#define GRUB_TEXT_BYTES  16384u
#define GRUB_SUBMENU_MAX 4u

enum grub_token_kind {
	GRUB_TOKEN_INVALID,
	GRUB_TOKEN_WORD,
	GRUB_TOKEN_END, /* newline or ; */
	GRUB_TOKEN_OPEN,
	GRUB_TOKEN_CLOSE,
	GRUB_TOKENS
};

struct grub_token {
	uint32_t start;
	uint32_t bytes;
	enum grub_token_kind kind;
};

struct grub_script {
	char *text;
	struct grub_token *token;
	uint32_t count;
};

struct grub_var {
	char name[GRUB_NAME_BYTES];
	char *value;
};

/* Tokens [from, to) of a script. */
struct grub_range {
	uint32_t script;
	uint32_t from;
	uint32_t to;
};

struct grub_function {
	char name[GRUB_NAME_BYTES];
	struct grub_range body;
};

struct grub_menu_entry {
	char title[256];
	char id[256];
	bool submenu;
	bool loader_entry; /* of grub->bls, number below */
	uint32_t bls;
	struct grub_range body;
};

/* The words of one command after expansion. */
struct grub_words {
	uint32_t count;
	const char *word[GRUB_WORDS_MAX];
	size_t used;
	char text[GRUB_TEXT_BYTES];
};

struct grub {
	struct bootdisk_disk *disk;
	struct grub_script script[GRUB_SCRIPTS_MAX];
	uint32_t script_count;
	struct grub_var var[GRUB_VARS_MAX];
	uint32_t var_count;
	struct grub_function function[32];
	uint32_t function_count;
	struct grub_menu_entry *entry; /* BOOTDISK_ENTRIES_MAX */
	uint32_t entry_count;
	struct bootdisk_bls_set bls;
	struct bootdisk_choice *choice;
	bool chosen; /* a "linux" command ran */
	bool stop;   /* configfile: what follows it is not reached */
	uint32_t steps;
	uint32_t depth;
	int fatal;
	struct base_error *err;
};

const char *grub_get(const struct grub *grub, const char *name); /* "" when not set */
void grub_set(struct grub *grub, const char *name, const char *value);
int grub_fatal(struct grub *grub, int code, const char *what);

/* Bytes of the word at @text, which quotes hold together; 0 at its end, a blank or ';'. */
uint32_t grub_word_bytes(const char *text);
/* Words of a token's text are appended. */
void grub_expand(struct grub *grub, const char *raw, size_t bytes, struct grub_words *words);
/* The number of the script. */
BASE_MUST_CHECK int grub_script_add(struct grub *grub, char *text, size_t bytes);
int grub_execute(struct grub *grub, struct grub_range range);
int grub_run_file(struct grub *grub, const char *name); /* status */

/* One command; its status (0 is true). */
int grub_command(struct grub *grub, const struct grub_words *words);
int grub_test(struct grub *grub, const struct grub_words *words);
void grub_menu_add(struct grub *grub, const struct grub_words *words, struct grub_range body);
/* "(hd0,gpt2)/boot/x" or "/boot/x" on $root: false when there is no such partition. */
bool grub_resolve(struct grub *grub, const char *name, uint32_t *ret_index, const char **ret_path);

#endif
