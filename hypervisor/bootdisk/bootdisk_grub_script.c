/* SPDX-License-Identifier: Apache-2.0 */
/* The language: tokens, words and their expansion, if, functions and menu entries. */
#include <ctype.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "hypervisor/bootdisk/bootdisk_grub_priv.h"

const char *grub_get(const struct grub *grub, const char *name)
{
	for (uint32_t i = 0; i < grub->var_count; i++)
		if (strcmp(grub->var[i].name, name) == 0)
			return grub->var[i].value;
	return "";
}

int grub_fatal(struct grub *grub, int code, const char *what)
{
	if (grub->fatal == 0)
		grub->fatal = base_fail(grub->err, code, "grub.cfg: %s", what);
	return 1;
}

void grub_set(struct grub *grub, const char *name, const char *value)
{
	char *copy = strndup(value, GRUB_VALUE_BYTES);
	uint32_t i = 0;

	if (copy == NULL) {
		(void)grub_fatal(grub, -ENOMEM, "no memory");
		return;
	}
	while (i < grub->var_count && strcmp(grub->var[i].name, name) != 0)
		i++;
	if (i == GRUB_VARS_MAX || strlen(name) >= GRUB_NAME_BYTES) {
		free(copy);
		return;
	}
	if (i == grub->var_count) {
		bootdisk_copy(grub->var[i].name, GRUB_NAME_BYTES, name);
		grub->var_count++;
	} else {
		free(grub->var[i].value);
	}
	grub->var[i].value = copy;
}

uint32_t grub_word_bytes(const char *text)
{
	const char *at = text;

	while (*at != '\0' && strchr(" \t\r\n;", *at) == NULL) {
		char quote = *at;
		size_t bytes = 1;

		if (quote == '\\' && at[1] != '\0') {
			bytes = 2;
		} else if (quote == '\'') {
			bytes += strcspn(at + 1, "'");
			bytes += at[bytes] != '\0' ? 1 : 0;
		} else if (quote == '"') {
			while (at[bytes] != '\0' && at[bytes] != '"')
				bytes += at[bytes] == '\\' && at[bytes + 1] != '\0' ? 2 : 1;
			bytes += at[bytes] != '\0' ? 1 : 0;
		}
		at += bytes;
	}
	return (uint32_t)(at - text);
}

static uint32_t tokens_of(const char *text, struct grub_token *token)
{
	uint32_t count = 0;
	uint32_t at = 0;

	while (text[at] != '\0' && count < GRUB_TOKENS_MAX) {
		struct grub_token next = { .start = at, .bytes = 1, .kind = GRUB_TOKEN_END };

		if (text[at] == ' ' || text[at] == '\t' || text[at] == '\r') {
			at++;
			continue;
		}
		if (text[at] == '#') {
			at += (uint32_t)strcspn(text + at, "\n");
			continue;
		}
		if (text[at] == '\\' && text[at + 1] == '\n') {
			at += 2;
			continue;
		}
		if (text[at] != '\n' && text[at] != ';') {
			next.bytes = grub_word_bytes(text + at);
			next.kind = GRUB_TOKEN_WORD;
			if (next.bytes == 1 && text[at] == '{')
				next.kind = GRUB_TOKEN_OPEN;
			if (next.bytes == 1 && text[at] == '}')
				next.kind = GRUB_TOKEN_CLOSE;
		}
		if (token != NULL)
			token[count] = next;
		count++;
		at += next.bytes;
	}
	return count;
}

int grub_script_add(struct grub *grub, char *text, size_t bytes)
{
	struct grub_script *script;

	for (size_t i = 0; i < bytes; i++)
		if (text[i] == '\0')
			text[i] = ' ';
	if (grub->script_count == GRUB_SCRIPTS_MAX) {
		free(text);
		return grub_fatal(grub, -EBADMSG, "too many files");
	}
	script = &grub->script[grub->script_count++];
	script->text = text;
	script->count = tokens_of(text, NULL);
	script->token = calloc((size_t)script->count + 1, sizeof(*script->token));
	if (script->token == NULL)
		return grub_fatal(grub, -ENOMEM, "no memory");
	(void)tokens_of(text, script->token);
	return 0;
}

static void put(struct grub_words *words, char byte)
{
	if (words->used + 1 < sizeof(words->text))
		words->text[words->used++] = byte;
}

/* End the word begun at @start, if there is one. */
static void end_word(struct grub_words *words, size_t *start, bool even_empty)
{
	if ((words->used == *start && !even_empty) || words->count == GRUB_WORDS_MAX ||
	    words->used + 1 >= sizeof(words->text))
		return;
	words->text[words->used++] = '\0';
	words->word[words->count++] = words->text + *start;
	*start = words->used;
}

/* The variable at @at (a '$'): its value, and how many bytes name it; 0: a plain dollar. */
static size_t variable(struct grub *grub, const char *at, size_t left, const char **ret_value)
{
	bool braces = left > 1 && at[1] == '{';
	size_t from = braces ? 2 : 1;
	size_t bytes = 0;
	char name[GRUB_NAME_BYTES] = "";

	while (from + bytes < left &&
	       (isalnum((unsigned char)at[from + bytes]) != 0 || at[from + bytes] == '_' ||
		(at[from + bytes] == '?' && bytes == 0)))
		bytes++;
	if (bytes == 0 || (braces && (from + bytes >= left || at[from + bytes] != '}')))
		return 0;
	if (bytes < sizeof(name))
		memcpy(name, at + from, bytes);
	*ret_value = grub_get(grub, name);
	return from + bytes + (braces ? 1 : 0);
}

static void put_value(struct grub_words *words, const char *value, bool quoted, size_t *start)
{
	for (; *value != '\0'; value++) {
		if (!quoted && isspace((unsigned char)*value) != 0)
			end_word(words, start, false);
		else
			put(words, *value);
	}
}

void grub_expand(struct grub *grub, const char *raw, size_t bytes, struct grub_words *words)
{
	size_t start = words->used;
	bool any_quote = false;
	char quote = '\0';

	for (size_t i = 0; i < bytes; i++) {
		const char *value = NULL;
		size_t taken = 0;

		if (quote == '\0' && (raw[i] == '\'' || raw[i] == '"')) {
			quote = raw[i];
			any_quote = true;
		} else if (quote != '\0' && raw[i] == quote) {
			quote = '\0';
		} else if (quote != '\'' && raw[i] == '\\' && i + 1 < bytes) {
			if (quote == '"' && strchr("\"\\$", raw[i + 1]) == NULL)
				put(words, '\\');
			if (raw[++i] != '\n')
				put(words, raw[i]);
		} else if (quote != '\'' && raw[i] == '$' &&
			   (taken = variable(grub, raw + i, bytes - i, &value)) > 0) {
			put_value(words, value, quote == '"', &start);
			i += taken - 1;
		} else {
			put(words, raw[i]);
		}
	}
	end_word(words, &start, any_quote);
}

static bool token_is(const struct grub_script *script, uint32_t at, const char *word)
{
	const struct grub_token *token = &script->token[at];

	return token->kind == GRUB_TOKEN_WORD && strlen(word) == token->bytes &&
	       memcmp(script->text + token->start, word, token->bytes) == 0;
}

static bool token_in(const struct grub_script *script, uint32_t at, const char *const words[])
{
	for (; *words != NULL; words++)
		if (token_is(script, at, *words))
			return true;
	return false;
}

/* The first then, elif, else, fi or done that belongs to what begins at @at; @to: none. */
static uint32_t next_mark(const struct grub_script *script, uint32_t at, uint32_t to)
{
	static const char *const opening[] = { "if", "while", "until", "for", NULL };
	static const char *const closing[] = { "fi", "done", NULL };
	static const char *const middle[] = { "then", "elif", "else", NULL };
	bool command = true;
	uint32_t nested = 0;

	for (; at < to; at++) {
		bool mark = command && token_in(script, at, middle);

		if (command && token_in(script, at, opening)) {
			nested++;
			continue;
		}
		if (command && token_in(script, at, closing)) {
			if (nested == 0)
				return at;
			nested--;
		} else if (mark && nested == 0) {
			return at;
		}
		command = mark || script->token[at].kind != GRUB_TOKEN_WORD ||
			  (command && token_is(script, at, "do"));
	}
	return to;
}

static uint32_t closing_brace(const struct grub_script *script, uint32_t at, uint32_t to)
{
	uint32_t nested = 0;

	for (; at < to; at++) {
		if (script->token[at].kind == GRUB_TOKEN_OPEN)
			nested++;
		if (script->token[at].kind == GRUB_TOKEN_CLOSE && nested-- == 0)
			return at;
	}
	return to;
}

/* NOLINTBEGIN(misc-no-recursion): grub_execute() ends at GRUB_DEPTH_MAX */

/* From after "if": where it ends. */
static uint32_t execute_if(struct grub *grub, struct grub_range all)
{
	const struct grub_script *script = &grub->script[all.script];
	struct grub_range range = all;
	bool done = false;

	for (;;) {
		uint32_t then = next_mark(script, range.from, all.to);
		bool yes = false;

		if (then >= all.to || !token_is(script, then, "then"))
			return all.to;
		range.to = then;
		if (!done)
			yes = grub_execute(grub, range) == 0;
		range.from = then + 1;
		range.to = next_mark(script, range.from, all.to);
		if (yes)
			(void)grub_execute(grub, range);
		done = done || yes;
		if (range.to >= all.to)
			return all.to;
		range.from = range.to + 1;
		if (token_is(script, range.to, "elif"))
			continue;
		if (!token_is(script, range.to, "else"))
			return range.from;
		range.to = next_mark(script, range.from, all.to);
		if (!done)
			(void)grub_execute(grub, range);
		return range.to < all.to ? range.to + 1 : all.to;
	}
}

static void add_function(struct grub *grub, const struct grub_words *words, struct grub_range body)
{
	struct grub_function *function;

	if (words->count < 2 || grub->function_count == 32)
		return;
	function = &grub->function[grub->function_count++];
	bootdisk_copy(function->name, sizeof(function->name), words->word[1]);
	function->body = body;
}

static int call(struct grub *grub, const struct grub_words *words)
{
	for (uint32_t i = grub->function_count; i > 0; i--)
		if (strcmp(grub->function[i - 1].name, words->word[0]) == 0)
			return grub_execute(grub, grub->function[i - 1].body);
	return grub_command(grub, words);
}

/* One command with its words, and the body in braces if it has one: where it ends. */
static uint32_t execute_one(struct grub *grub, struct grub_range range, int *status)
{
	const struct grub_script *script = &grub->script[range.script];
	BASE_FREE struct grub_words *words = calloc(1, sizeof(*words));
	struct grub_range body = range;
	uint32_t at = range.from;

	if (words == NULL) {
		*status = grub_fatal(grub, -ENOMEM, "no memory");
		return range.to;
	}
	for (; at < range.to && script->token[at].kind == GRUB_TOKEN_WORD; at++)
		grub_expand(grub, script->text + script->token[at].start, script->token[at].bytes,
			    words);
	if (at < range.to && script->token[at].kind == GRUB_TOKEN_OPEN) {
		body.from = at + 1;
		body.to = closing_brace(script, body.from, range.to);
		at = body.to + 1;
		if (words->count > 0 && strcmp(words->word[0], "function") == 0)
			add_function(grub, words, body);
		else
			grub_menu_add(grub, words, body);
		return at;
	}
	if (words->count > 0)
		*status = call(grub, words);
	return at + 1;
}

int grub_execute(struct grub *grub, struct grub_range range)
{
	const struct grub_script *script = &grub->script[range.script];
	int status = 0;

	if (grub->depth >= GRUB_DEPTH_MAX)
		return grub_fatal(grub, -EBADMSG, "nested too deeply");
	grub->depth++;
	while (range.from < range.to && grub->fatal == 0 && !grub->stop) {
		if (++grub->steps > GRUB_STEPS_MAX) {
			status = grub_fatal(grub, -EBADMSG, "runs for too long");
		} else if (script->token[range.from].kind != GRUB_TOKEN_WORD) {
			range.from++;
		} else if (token_is(script, range.from, "if")) {
			range.from++;
			range.from = execute_if(grub, range);
		} else if (token_is(script, range.from, "while") ||
			   token_is(script, range.from, "until") ||
			   token_is(script, range.from, "for")) {
			range.from = next_mark(script, range.from + 1, range.to) + 1;
			bootdisk_note(grub->disk, "a loop was left out");
		} else {
			range.from = execute_one(grub, range, &status);
		}
	}
	grub->depth--;
	return status;
}
/* NOLINTEND(misc-no-recursion) */
