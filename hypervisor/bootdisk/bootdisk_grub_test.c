/* SPDX-License-Identifier: Apache-2.0 */
/* The condition of [ ] and test. */
#include <stdlib.h>
#include <string.h>

#include "hypervisor/bootdisk/bootdisk_grub_priv.h"

struct condition {
	struct grub *grub;
	const struct grub_words *words;
	uint32_t at;
	uint32_t end;
	uint32_t depth;
};

static bool either(struct condition *test);

static const char *word(const struct condition *test, uint32_t ahead)
{
	return test->at + ahead < test->end ? test->words->word[test->at + ahead] : "";
}

static bool has(struct condition *test, const char *name, char what)
{
	struct bootdisk_file file;
	struct bootdisk_fs *fs;
	const char *path;
	uint32_t index;

	if (!grub_resolve(test->grub, name, &index, &path))
		return false;
	fs = bootdisk_disk_fs(test->grub->disk, index);
	if (fs == NULL || fs->ops->lookup(fs, path, &file, NULL) < 0)
		return false;
	if (what == 'd')
		return file.folder;
	if (what == 'f')
		return !file.folder;
	return what != 's' || file.size_bytes > 0;
}

/* -1: no operator; else its truth. */
static int compare(const char *left, const char *operator, const char * right)
{
	long a = strtol(left, NULL, 10);
	long b = strtol(right, NULL, 10);

	if (strcmp(operator, "=") == 0 || strcmp(operator, "==") == 0)
		return strcmp(left, right) == 0;
	if (strcmp(operator, "!=") == 0)
		return strcmp(left, right) != 0;
	if (strcmp(operator, "-eq") == 0)
		return a == b;
	if (strcmp(operator, "-ne") == 0)
		return a != b;
	if (strcmp(operator, "-lt") == 0)
		return a < b;
	if (strcmp(operator, "-le") == 0)
		return a <= b;
	if (strcmp(operator, "-gt") == 0)
		return a > b;
	if (strcmp(operator, "-ge") == 0)
		return a >= b;
	return -1;
}

/* NOLINTBEGIN(misc-no-recursion): primary() goes no deeper than GRUB_DEPTH_MAX */
static bool primary(struct condition *test)
{
	const char *first = word(test, 0);
	uint32_t left = test->end - test->at;
	int truth;

	if (left >= 3 && (truth = compare(first, word(test, 1), word(test, 2))) >= 0) {
		test->at += 3;
		return truth != 0;
	}
	if (left >= 2 && strcmp(first, "!") == 0 && test->depth < GRUB_DEPTH_MAX) {
		test->at++;
		test->depth++;
		return !primary(test);
	}
	if (left >= 3 && strcmp(first, "(") == 0 && test->depth < GRUB_DEPTH_MAX) {
		bool inner;

		test->at++;
		test->depth++;
		inner = either(test);
		if (strcmp(word(test, 0), ")") == 0)
			test->at++;
		return inner;
	}
	if (left >= 2 && first[0] == '-' && first[1] != '\0' && first[2] == '\0' &&
	    strchr("nzfdes", first[1]) != NULL) {
		const char *name = word(test, 1);

		test->at += 2;
		if (first[1] == 'n' || first[1] == 'z')
			return (name[0] != '\0') == (first[1] == 'n');
		return has(test, name, first[1]);
	}
	if (left > 0)
		test->at++;
	return first[0] != '\0';
}

static bool both(struct condition *test)
{
	bool truth = primary(test);

	while (strcmp(word(test, 0), "-a") == 0) {
		test->at++;
		truth = primary(test) && truth;
	}
	return truth;
}

static bool either(struct condition *test)
{
	bool truth = both(test);

	while (strcmp(word(test, 0), "-o") == 0) {
		test->at++;
		truth = both(test) || truth;
	}
	return truth;
}
/* NOLINTEND(misc-no-recursion) */

int grub_test(struct grub *grub, const struct grub_words *words)
{
	struct condition test = { .grub = grub, .words = words, .at = 1, .end = words->count };

	if (strcmp(words->word[0], "[") == 0) {
		if (words->count < 2 || strcmp(words->word[words->count - 1], "]") != 0)
			return 1;
		test.end--;
	}
	return test.at < test.end && either(&test) ? 0 : 1;
}
