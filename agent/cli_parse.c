/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Arguments of one verb into its structure, by its table of rows.
 */
#include <errno.h>
#include <string.h>

#include "agent/cli.h"

/* A key or a value of -o: longer than any key; values are sizes and words. */
#define KEY_TEXT_BYTES 64

struct parse {
	const struct cli_verb *verb;
	int argc;
	char *const *argv;
	int at;
	char *args;
	uint32_t seen; /* rows that were given */
	size_t operands;
	struct base_error *err;
};

static bool is_operand(const struct cli_row *row)
{
	return row->name == NULL && row->key == NULL;
}

/* The row's type as the user has to write it. */
static const char *expected_of(const struct cli_row *row)
{
	if (row->expected != NULL)
		return row->expected;
	if (row->type == CLI_SIZE)
		return CLI_SIZE_TEXT;
	if (row->type == CLI_DELTA)
		return "SIZE, +SIZE or -SIZE: " CLI_SIZE_TEXT;
	return "something, not an empty text";
}

static int fail_choice(struct parse *p, const struct cli_row *row, const char *what,
		       const char *value)
{
	char words[128] = "";
	size_t used = 0;

	for (const struct cli_word *w = row->words; w->text != NULL; w++) {
		const char *join = w == row->words ? "" : w[1].text == NULL ? " or " : ", ";
		int n = snprintf(words + used, sizeof(words) - used, "%s%s", join, w->text);

		if (n < 0 || (size_t)n >= sizeof(words) - used)
			break;
		used += (size_t)n;
	}
	return base_fail(p->err, -EINVAL, "%s: value '%s': expected %s", what, value, words);
}

static bool parse_delta(const char *text, struct cli_delta *ret_delta)
{
	struct cli_delta delta = { .sign = '=' };

	if (*text == '+' || *text == '-')
		delta.sign = *text++;
	if (!cli_size_parse(text, &delta.bytes) || delta.bytes == 0)
		return false;
	*ret_delta = delta;
	return true;
}

/* Put @value in the row's field.  @what: "option '--x'" for errors. */
static int set_value(struct parse *p, const struct cli_row *row, const char *what,
		     const char *value)
{
	void *field = p->args + row->offset;
	uint32_t bit = 1U << (row - p->verb->rows);
	bool good = false;

	if ((p->seen & bit) != 0)
		return base_fail(p->err, -EINVAL, "%s: value '%s': expected it once", what, value);
	p->seen |= bit;
	switch (row->type) {
	case CLI_FLAG:
		*(bool *)field = true;
		good = true;
		break;
	case CLI_TEXT:
		*(const char **)field = value;
		good = *value != '\0';
		break;
	case CLI_SIZE:
		good = cli_size_parse(value, (uint64_t *)field) && *(uint64_t *)field != 0;
		break;
	case CLI_DELTA:
		good = parse_delta(value, field);
		break;
	case CLI_CHOICE:
		for (const struct cli_word *w = row->words; w->text != NULL; w++) {
			if (strcmp(w->text, value) == 0) {
				*(int *)field = w->value;
				return 0;
			}
		}
		return fail_choice(p, row, what, value);
	case CLI_KEYS:
	case CLI_TYPE_INVALID:
	case CLI_TYPES:
		base_bug("option type %d", (int)row->type);
	}
	if (good)
		return 0;
	return base_fail(p->err, -EINVAL, "%s: value '%s': expected %s", what, value,
			 expected_of(row));
}

/* "subformat=fixed,block_size=1M" */
static int set_keys(struct parse *p, const char *what, const char *list)
{
	const struct cli_verb *verb = p->verb;

	for (;;) {
		size_t part = strcspn(list, ",");
		size_t key_bytes = strcspn(list, "=,");
		char label[KEY_TEXT_BYTES + 16];
		char key[KEY_TEXT_BYTES];
		char value[KEY_TEXT_BYTES];
		const struct cli_row *row = NULL;
		int rc;

		if (key_bytes == part || part - key_bytes > KEY_TEXT_BYTES ||
		    key_bytes >= KEY_TEXT_BYTES)
			return base_fail(p->err, -EINVAL, "%s: value '%s': expected KEY=VALUE,...",
					 what, list);
		(void)snprintf(key, sizeof(key), "%.*s", (int)key_bytes, list);
		(void)snprintf(value, sizeof(value), "%.*s", (int)(part - key_bytes - 1),
			       list + key_bytes + 1);
		for (size_t i = 0; i < verb->row_count && row == NULL; i++)
			if (verb->rows[i].key != NULL && strcmp(verb->rows[i].key, key) == 0)
				row = &verb->rows[i];
		if (row == NULL || row->type == CLI_TEXT)
			return base_fail(p->err, -EINVAL,
					 "%s: key '%s': expected a known key; --help lists them",
					 what, key);
		(void)snprintf(label, sizeof(label), "option '-o %s'", key);
		rc = set_value(p, row, label, value);
		if (rc < 0)
			return rc;
		if (list[part] == '\0')
			return 0;
		list += part + 1;
	}
}

/* @inlined: the value that came in the same argument, or NULL. */
static int set_option(struct parse *p, const struct cli_row *row, const char *what,
		      const char *inlined)
{
	const char *value = inlined;

	if (row->type == CLI_FLAG) {
		if (inlined != NULL)
			return base_fail(p->err, -EINVAL, "%s: value '%s': expected no value", what,
					 inlined);
		return set_value(p, row, what, "");
	}
	if (value == NULL) {
		if (p->at >= p->argc)
			return base_fail(p->err, -EINVAL, "%s: no value: expected %s", what,
					 row->value);
		value = p->argv[p->at++];
	}
	return row->type == CLI_KEYS ? set_keys(p, what, value) : set_value(p, row, what, value);
}

static int parse_long(struct parse *p, const char *text)
{
	size_t name_bytes = strcspn(text + 2, "=");
	const char *inlined = text[2 + name_bytes] == '=' ? text + 3 + name_bytes : NULL;
	char what[KEY_TEXT_BYTES];

	for (size_t i = 0; i < p->verb->row_count; i++) {
		const struct cli_row *row = &p->verb->rows[i];

		if (row->name == NULL || strlen(row->name) != name_bytes ||
		    memcmp(row->name, text + 2, name_bytes) != 0)
			continue;
		(void)snprintf(what, sizeof(what), "option '--%s'", row->name);
		return set_option(p, row, what, inlined);
	}
	return base_fail(p->err, -EINVAL,
			 "option '%.*s': expected an option of '%s'; --help lists them",
			 (int)name_bytes + 2, text, p->verb->name);
}

/* "-pq", "-fvhdx", "-f vhdx" */
static int parse_short(struct parse *p, const char *text)
{
	for (const char *letter = text + 1; *letter != '\0'; letter++) {
		const struct cli_row *row = NULL;
		char what[24];
		int rc;

		for (size_t i = 0; i < p->verb->row_count && row == NULL; i++)
			if (p->verb->rows[i].letter == *letter)
				row = &p->verb->rows[i];
		(void)snprintf(what, sizeof(what), "option '-%c'", *letter);
		if (row == NULL)
			return base_fail(p->err, -EINVAL,
					 "%s: expected an option of '%s'; --help lists them", what,
					 p->verb->name);
		if (row->type != CLI_FLAG)
			return set_option(p, row, what, letter[1] != '\0' ? letter + 1 : NULL);
		rc = set_option(p, row, what, NULL);
		if (rc < 0)
			return rc;
	}
	return 0;
}

static const struct cli_row *operand_row(const struct cli_verb *verb, size_t index)
{
	for (size_t i = 0; i < verb->row_count; i++)
		if (is_operand(&verb->rows[i]) && index-- == 0)
			return &verb->rows[i];
	return NULL;
}

static int parse_operand(struct parse *p, const char *text)
{
	const struct cli_row *row = operand_row(p->verb, p->operands++);
	char what[KEY_TEXT_BYTES];

	if (row == NULL)
		return base_fail(p->err, -EINVAL, "operand '%s': expected no more operands", text);
	(void)snprintf(what, sizeof(what), "operand %s", row->value);
	return set_value(p, row, what, text);
}

/* "-1G" is an operand: no option is a digit. */
static bool looks_like_option(const char *text)
{
	return text[0] == '-' && text[1] != '\0' && (text[1] < '0' || text[1] > '9');
}

int cli_parse(const struct cli_verb *verb, int argc, char *const argv[], void *args,
	      struct base_error *err)
{
	struct parse p = { .verb = verb, .argc = argc, .argv = argv, .args = args, .err = err };
	bool options_end = false;
	const struct cli_row *row;

	base_assert(verb->row_count <= CLI_ROWS_MAX);
	while (p.at < argc) {
		const char *text = argv[p.at++];
		int rc;

		if (!options_end && strcmp(text, "--") == 0) {
			options_end = true;
			continue;
		}
		if (options_end || !looks_like_option(text))
			rc = parse_operand(&p, text);
		else if (text[1] == '-')
			rc = parse_long(&p, text);
		else
			rc = parse_short(&p, text);
		if (rc < 0)
			return rc;
	}
	row = operand_row(verb, p.operands);
	if (row != NULL && !row->optional)
		return base_fail(err, -EINVAL, "operand %s: not given: expected %s", row->value,
				 expected_of(row));
	return 0;
}
