/* SPDX-License-Identifier: Apache-2.0 */
/* The commands of GRUB that decide what is booted; others do nothing and succeed. */
#include <ctype.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "hypervisor/bootdisk/bootdisk_grub_priv.h"

/* "hd0,gpt2", "hd0,msdos1", "hd0,2", "hd0": the disk is the first one. */
static bool device_find(const struct grub *grub, const char *name, size_t bytes,
			uint32_t *ret_index)
{
	const struct bootdisk_parts *parts = &grub->disk->parts;
	const char *digits = name + bytes;
	unsigned long number = 0;

	if (bytes < 3 || bytes > 32 || strncmp(name, "hd0", 3) != 0 ||
	    (bytes > 3 && name[3] != ','))
		return false;
	while (digits > name + 3 && isdigit((unsigned char)digits[-1]) != 0)
		digits--;
	if (digits < name + bytes)
		number = strtoul(digits, NULL, 10);
	for (uint32_t i = 0; i < parts->count; i++) {
		if (parts->part[i].number == number) {
			*ret_index = i;
			return true;
		}
	}
	return false;
}

bool grub_resolve(struct grub *grub, const char *name, uint32_t *ret_index, const char **ret_path)
{
	const char *device = grub_get(grub, "root");
	size_t bytes = strlen(device);

	if (name[0] == '(') {
		device = name + 1;
		bytes = strcspn(device, ")");
		if (device[bytes] == '\0')
			return false;
		name = device + bytes + 1;
	}
	*ret_path = name;
	return name[0] == '/' && device_find(grub, device, bytes, ret_index);
}

static struct bootdisk_fs *fs_of(struct grub *grub, const char *name, const char **ret_path)
{
	uint32_t index;

	if (!grub_resolve(grub, name, &index, ret_path))
		return NULL;
	return bootdisk_disk_fs(grub->disk, index);
}

static int assign(struct grub *grub, const char *text)
{
	const char *equal = strchr(text, '=');
	char name[GRUB_NAME_BYTES];

	if (equal == NULL || equal == text || (size_t)(equal - text) >= sizeof(name))
		return 1;
	memcpy(name, text, (size_t)(equal - text));
	name[equal - text] = '\0';
	grub_set(grub, name, equal + 1);
	return 0;
}

enum search_kind {
	SEARCH_INVALID,
	SEARCH_UUID,
	SEARCH_LABEL,
	SEARCH_FILE,
	SEARCH_KINDS
};

static bool search_matches(struct grub *grub, uint32_t index, enum search_kind kind,
			   const char *what)
{
	struct bootdisk_fs *fs = bootdisk_disk_fs(grub->disk, index);

	if (fs == NULL)
		return false;
	if (kind == SEARCH_UUID)
		return strcasecmp(fs->uuid, what) == 0;
	if (kind == SEARCH_LABEL)
		return strcmp(fs->label, what) == 0;
	return bootdisk_fs_has(fs, what, false);
}

static int search(struct grub *grub, enum search_kind kind, const char *what, const char *variable)
{
	char name[32];
	char device[48];

	for (uint32_t i = 0; i < grub->disk->parts.count; i++) {
		if (!search_matches(grub, i, kind, what))
			continue;
		bootdisk_part_name(grub->disk, i, name, sizeof(name));
		if (grub->disk->parts.table == BOOTDISK_TABLE_NONE)
			(void)snprintf(device, sizeof(device), "hd0");
		else
			(void)snprintf(device, sizeof(device), "hd0,%s", name);
		grub_set(grub, variable, device);
		return 0;
	}
	return 1;
}

static int command_search(struct grub *grub, const struct grub_words *words)
{
	enum search_kind kind = SEARCH_FILE;
	const char *variable = "root";
	const char *what = NULL;

	if (strncmp(words->word[0], "search.", 7) == 0) { /* KIND UUID VARIABLE HINT... */
		const char *suffix = words->word[0] + 7;

		if (words->count < 2)
			return 1;
		kind = strcmp(suffix, "fs_uuid") == 0    ? SEARCH_UUID
		       : strcmp(suffix, "fs_label") == 0 ? SEARCH_LABEL
							 : SEARCH_FILE;
		return search(grub, kind, words->word[1],
			      words->count > 2 ? words->word[2] : "root");
	}
	for (uint32_t i = 1; i < words->count; i++) {
		const char *word = words->word[i];

		if (strcmp(word, "--fs-uuid") == 0 || strcmp(word, "-u") == 0)
			kind = SEARCH_UUID;
		else if (strcmp(word, "--label") == 0 || strcmp(word, "-l") == 0 ||
			 strcmp(word, "--fs-label") == 0)
			kind = SEARCH_LABEL;
		else if (strncmp(word, "--set=", 6) == 0)
			variable = word + 6;
		else if (strcmp(word, "--hint") == 0 && i + 1 < words->count)
			i++;
		else if (word[0] != '-')
			what = word; /* the last: with "--set VARIABLE" the name comes before it */
		if (strcmp(word, "--set") == 0 && i + 2 < words->count &&
		    words->word[i + 1][0] != '-')
			variable = words->word[++i];
	}
	return what == NULL ? 1 : search(grub, kind, what, variable);
}

struct env_filter {
	struct grub *grub;
	const struct grub_words *words;
	uint32_t from;
};

static int env_take(void *context, const char *pair)
{
	struct env_filter *filter = context;
	size_t bytes = strcspn(pair, "=");
	bool wanted = filter->from >= filter->words->count;

	for (uint32_t i = filter->from; i < filter->words->count && !wanted; i++)
		wanted = strlen(filter->words->word[i]) == bytes &&
			 strncmp(filter->words->word[i], pair, bytes) == 0;
	if (wanted)
		(void)assign(filter->grub, pair);
	return 0;
}

static int command_load_env(struct grub *grub, const struct grub_words *words)
{
	struct env_filter filter = { .grub = grub, .words = words, .from = 1 };
	BASE_FREE char *text = NULL;
	char name[GRUB_VALUE_BYTES];
	struct bootdisk_fs *fs;
	const char *path;
	size_t bytes = 0;

	(void)snprintf(name, sizeof(name), "%.4000s/grubenv", grub_get(grub, "prefix"));
	while (filter.from < words->count && words->word[filter.from][0] == '-') {
		const char *option = words->word[filter.from++];

		if ((strcmp(option, "--file") == 0 || strcmp(option, "-f") == 0) &&
		    filter.from < words->count)
			bootdisk_copy(name, sizeof(name), words->word[filter.from++]);
		else if (strncmp(option, "--file=", 7) == 0)
			bootdisk_copy(name, sizeof(name), option + 7);
	}
	fs = fs_of(grub, name, &path);
	if (fs == NULL || bootdisk_fs_text(fs, path, &text, &bytes, NULL) < 0)
		return 1;
	if (bootdisk_grubenv_decode(text, bytes, env_take, &filter, NULL) < 0) {
		bootdisk_note(grub->disk, "grubenv is damaged");
		return 1;
	}
	return 0;
}

static bool piece_of(struct grub *grub, const char *name, struct bootdisk_piece *piece)
{
	const char *path;

	memset(piece, 0, sizeof(*piece));
	if (!grub_resolve(grub, name, &piece->part, &path) || strlen(path) >= sizeof(piece->path)) {
		bootdisk_note(grub->disk, "%.100s: no such partition", name);
		return false;
	}
	bootdisk_copy(piece->path, sizeof(piece->path), path);
	return true;
}

static void put(struct base_writer *out, char byte)
{
	base_write_u8(out, (uint8_t)byte);
}

/* As GRUB gives it to Linux: in quotes when there is a blank in it, and what would end or change
 * them behind a backslash, but for bytes that are written as \\xHH already. */
static void put_word(struct base_writer *out, const char *word)
{
	const bool blank = strchr(word, ' ') != NULL;

	if (blank)
		put(out, '"');
	for (; *word != '\0'; word++) {
		const bool is_code = word[0] == '\\' && word[1] == 'x' &&
				     isxdigit((unsigned char)word[2]) != 0 &&
				     isxdigit((unsigned char)word[3]) != 0;

		if (!is_code && strchr("\\'\"", *word) != NULL)
			put(out, '\\');
		put(out, *word);
	}
	if (blank)
		put(out, '"');
}

static int command_linux(struct grub *grub, const struct grub_words *words)
{
	static const char image[] = "BOOT_IMAGE=";
	struct bootdisk_choice *choice = grub->choice;
	struct base_writer out = base_writer_over(choice->cmdline, sizeof(choice->cmdline));

	if (words->count < 2 || !piece_of(grub, words->word[1], &choice->kernel))
		return 1;
	base_write_bytes(&out, image, sizeof(image) - 1);
	for (uint32_t i = 1; i < words->count; i++) {
		if (i > 1)
			put(&out, ' ');
		put_word(&out, words->word[i]);
	}
	put(&out, '\0');
	if (out.failed)
		return grub_fatal(grub, -EFBIG, "command line too long");
	choice->initrd_count = 0;
	grub->chosen = true;
	return 0;
}

static int command_initrd(struct grub *grub, const struct grub_words *words)
{
	struct bootdisk_choice *choice = grub->choice;

	choice->initrd_count = 0;
	for (uint32_t i = 1; i < words->count; i++) {
		if (choice->initrd_count == BOOTDISK_INITRDS_MAX)
			return grub_fatal(grub, -EFBIG, "too many initial ramdisks");
		if (!piece_of(grub, words->word[i], &choice->initrd[choice->initrd_count]))
			return grub_fatal(grub, -ENOENT, "initrd on no partition of this disk");
		choice->initrd_count++;
	}
	return 0;
}

int grub_run_file(struct grub *grub, const char *name)
{
	struct base_error err = { 0 };
	struct bootdisk_fs *fs;
	char *text = NULL;
	const char *path;
	size_t bytes = 0;
	struct grub_range range = { 0 };
	int rc;

	fs = fs_of(grub, name, &path);
	if (fs == NULL)
		return 1;
	rc = bootdisk_fs_text(fs, path, &text, &bytes, &err);
	if (rc == -EIO || rc == -ENOMEM)
		return grub_fatal(grub, rc, err.text);
	if (rc < 0) {
		bootdisk_note(grub->disk, "%.80s", err.text);
		return 1;
	}
	if (grub_script_add(grub, text, bytes) != 0)
		return 1;
	range.script = grub->script_count - 1;
	range.to = grub->script[range.script].count;
	return grub_execute(grub, range);
}

static int command_configfile(struct grub *grub, const struct grub_words *words)
{
	const char *path;

	if (words->count < 2 || fs_of(grub, words->word[1], &path) == NULL)
		return 1;
	grub->entry_count = 0;
	(void)grub_run_file(grub, words->word[1]);
	grub->stop = true;
	return 0;
}

/* Fedora: loader entries beside the kernels, newest first. */
static int command_blscfg(struct grub *grub)
{
	const char *path;
	const char *boot = grub_get(grub, "boot");
	char root[64];
	uint32_t index;

	(void)snprintf(root, sizeof(root), "(%.40s)/",
		       boot[0] != '\0' ? boot : grub_get(grub, "root"));
	if (!grub_resolve(grub, root, &index, &path) || bootdisk_disk_fs(grub->disk, index) == NULL)
		return 1;
	if (bootdisk_bls_read(grub->disk, index, "/loader/entries", &grub->bls, NULL) < 0 &&
	    bootdisk_bls_read(grub->disk, index, "/boot/loader/entries", &grub->bls, NULL) < 0)
		return 1;
	bootdisk_bls_sort(&grub->bls);
	for (uint32_t i = 0; i < grub->bls.count; i++) {
		struct grub_menu_entry *entry;
		size_t bytes = strlen(grub->bls.entry[i].id);

		if (grub->entry_count == BOOTDISK_ENTRIES_MAX)
			break;
		entry = &grub->entry[grub->entry_count++];
		*entry = (struct grub_menu_entry){ .loader_entry = true, .bls = i };
		bootdisk_copy(entry->title, sizeof(entry->title), grub->bls.entry[i].title);
		(void)snprintf(entry->id, sizeof(entry->id), "%.*s",
			       (int)(bytes > 5 ? bytes - 5 : bytes), grub->bls.entry[i].id);
	}
	return 0;
}

static bool is_one_of(const char *word, const char *const list[])
{
	for (; *list != NULL; list++)
		if (strcmp(*list, word) == 0)
			return true;
	return false;
}

int grub_command(struct grub *grub, const struct grub_words *words)
{
	static const char *const false_ones[] = {
		"false", "loadfont", "keystatus", "background_image", "cmosdump", "sleep", NULL
	};
	static const char *const linuxes[] = { "linux", "linux16", "linuxefi", NULL };
	static const char *const initrds[] = { "initrd", "initrd16", "initrdefi", NULL };
	const char *name = words->word[0];

	if (strcmp(name, "set") == 0)
		return words->count > 1 ? assign(grub, words->word[1]) : 0;
	if (strcmp(name, "unset") == 0 && words->count > 1) {
		grub_set(grub, words->word[1], "");
		return 0;
	}
	if (strcmp(name, "[") == 0 || strcmp(name, "test") == 0)
		return grub_test(grub, words);
	if (strncmp(name, "search", 6) == 0)
		return command_search(grub, words);
	if (strcmp(name, "load_env") == 0)
		return command_load_env(grub, words);
	if (is_one_of(name, linuxes))
		return command_linux(grub, words);
	if (is_one_of(name, initrds))
		return command_initrd(grub, words);
	if (strcmp(name, "source") == 0 || strcmp(name, ".") == 0)
		return words->count > 1 ? grub_run_file(grub, words->word[1]) : 1;
	if (strcmp(name, "configfile") == 0)
		return command_configfile(grub, words);
	if (strcmp(name, "blscfg") == 0)
		return command_blscfg(grub);
	if (is_one_of(name, false_ones))
		return 1;
	if (strchr(name, '=') != NULL)
		return assign(grub, name);
	return 0;
}
