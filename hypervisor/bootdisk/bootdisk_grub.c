/* SPDX-License-Identifier: Apache-2.0 */
/* A grub.cfg from its first line to the entry that nobody's keystroke changes. */
#include <ctype.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "hypervisor/bootdisk/bootdisk_grub_priv.h"

int bootdisk_grubenv_decode(const char *text, size_t bytes, bootdisk_each *each, void *context,
			    struct base_error *err)
{
	static const char head[] = "# GRUB Environment Block\n";
	char line[1024];
	size_t used = 0;

	if (bytes < sizeof(head) - 1 || memcmp(text, head, sizeof(head) - 1) != 0)
		return base_fail(err, -EBADMSG, "grubenv: expected its first line");
	for (size_t i = sizeof(head) - 1; i < bytes; i++) {
		if (text[i] == '\n') {
			line[used] = '\0';
			if (used > 0 && line[0] != '#' && strchr(line, '=') != NULL) {
				int rc = each(context, line);

				if (rc != 0)
					return rc;
			}
			used = 0;
			continue;
		}
		if (text[i] == '\\' && i + 1 < bytes)
			i++; /* the byte after it stands for itself */
		if (text[i] != '\0' && used + 1 < sizeof(line))
			line[used++] = text[i];
	}
	return 0;
}

void grub_menu_add(struct grub *grub, const struct grub_words *words, struct grub_range body)
{
	bool submenu = words->count > 0 && strcmp(words->word[0], "submenu") == 0;
	struct grub_menu_entry *entry;
	bool titled = false;

	if (words->count == 0 || (!submenu && strcmp(words->word[0], "menuentry") != 0) ||
	    grub->entry_count == BOOTDISK_ENTRIES_MAX)
		return;
	entry = &grub->entry[grub->entry_count++];
	*entry = (struct grub_menu_entry){ .submenu = submenu, .body = body };
	for (uint32_t i = 1; i < words->count; i++) {
		const char *word = words->word[i];
		bool more = i + 1 < words->count;

		if (strcmp(word, "--id") == 0 && more)
			bootdisk_copy(entry->id, sizeof(entry->id), words->word[++i]);
		else if (strncmp(word, "--id=", 5) == 0)
			bootdisk_copy(entry->id, sizeof(entry->id), word + 5);
		else if ((strcmp(word, "--class") == 0 || strcmp(word, "--users") == 0 ||
			  strcmp(word, "--hotkey") == 0 || strcmp(word, "--source") == 0) &&
			 more)
			i++;
		else if (!titled && strncmp(word, "--", 2) != 0) {
			bootdisk_copy(entry->title, sizeof(entry->title), word);
			titled = true;
		}
	}
	if (entry->id[0] == '\0')
		bootdisk_copy(entry->id, sizeof(entry->id), entry->title);
}

/* Whether @text is the first part of @path, where ">>" is a '>' of its own. */
static bool part_is(const char *path, const char *text)
{
	while (*text != '\0') {
		if (*path != *text)
			return false;
		if (*path == '>') {
			if (path[1] != '>')
				return false;
			path++;
		}
		path++;
		text++;
	}
	return *path == '\0' || (*path == '>' && path[1] != '>');
}

static const char *part_after(const char *path)
{
	for (; *path != '\0'; path++) {
		if (*path != '>')
			continue;
		if (path[1] != '>')
			return path + 1;
		path++;
	}
	return path;
}

/* As GRUB: a number, or else an identifier or title; what is not there means the first. */
static uint32_t pick(const struct grub *grub, const char *path)
{
	char *end = NULL;
	unsigned long number = strtoul(path, &end, 10);

	if (isdigit((unsigned char)path[0]) != 0 && (*end == '\0' || *end == '>'))
		return number < grub->entry_count ? (uint32_t)number : 0;
	for (uint32_t i = 0; i < grub->entry_count && path[0] != '\0'; i++)
		if (part_is(path, grub->entry[i].id) || part_is(path, grub->entry[i].title))
			return i;
	return 0;
}

/* The words of a line of a loader entry, which GRUB makes a command of: another one behind ';' is
 * not looked at. */
static void expand_line(struct grub *grub, const char *line, struct grub_words *words)
{
	for (line += strspn(line, " \t"); *line != '\0'; line += strspn(line, " \t")) {
		size_t bytes = grub_word_bytes(line);

		if (bytes == 0)
			return;
		grub_expand(grub, line, bytes, words);
		line += bytes;
	}
}

/* A loader entry's options may use GRUB's variables. */
static int choose_loader_entry(struct grub *grub, const struct bootdisk_bls *bls)
{
	BASE_FREE struct grub_words *words = calloc(1, sizeof(*words));

	if (words == NULL)
		return grub_fatal(grub, -ENOMEM, "no memory");
	words->word[words->count++] = "linux";
	words->word[words->count++] = bls->linux_path;
	expand_line(grub, bls->options, words);
	if (grub_command(grub, words) != 0)
		return 1;
	memset(words, 0, sizeof(*words));
	words->word[words->count++] = "initrd";
	for (uint32_t i = 0; i < bls->initrd_count; i++)
		expand_line(grub, bls->initrd[i], words);
	if (words->count > 1)
		return grub_command(grub, words);
	return 0;
}

static void choose(struct grub *grub)
{
	BASE_FREE char *held = NULL; /* what an entry runs may set it anew */
	const char *path = NULL;

	for (uint32_t i = 0; i < GRUB_SUBMENU_MAX && grub->entry_count > 0; i++) {
		struct grub_menu_entry entry;

		if (path == NULL) {
			free(held);
			held = strdup(grub_get(grub, "default"));
			path = held;
		}
		if (path == NULL) {
			(void)grub_fatal(grub, -ENOMEM, "no memory");
			return;
		}
		entry = grub->entry[pick(grub, path)];
		grub->stop = false;
		bootdisk_copy(grub->choice->title, sizeof(grub->choice->title), entry.title);
		if (entry.loader_entry) {
			(void)choose_loader_entry(grub, &grub->bls.entry[entry.bls]);
			return;
		}
		grub_set(grub, "chosen", entry.title);
		if (entry.submenu)
			grub->entry_count = 0;
		(void)grub_execute(grub, entry.body);
		if (!entry.submenu && !grub->stop)
			return;
		/* A submenu, or an entry that is a configfile with a default of its own. */
		path = entry.submenu ? part_after(path) : NULL;
	}
}

static void grub_free(struct grub *grub)
{
	if (grub == NULL)
		return;
	for (uint32_t i = 0; i < grub->script_count; i++) {
		free(grub->script[i].text);
		free(grub->script[i].token);
	}
	for (uint32_t i = 0; i < grub->var_count; i++)
		free(grub->var[i].value);
	bootdisk_bls_set_fini(&grub->bls);
	free(grub->entry);
	free(grub);
}
BASE_DEFINE_FREEP(struct grub, grub_free);

static void first_variables(struct grub *grub, uint32_t index, const char *path)
{
	static const char *const features[] = {
		"feature_default_font_path", "feature_platform_search_hint", "feature_menuentry_id",
		"feature_menuentry_options", "feature_timeout_style",        "feature_200_final",
	};
	char name[32];
	char device[48];
	char prefix[BOOTDISK_PATH_BYTES + 64];

	for (size_t i = 0; i < sizeof(features) / sizeof(features[0]); i++)
		grub_set(grub, features[i], "y");
	grub_set(grub, "menuentry_id_option", "--id");
	grub_set(grub, "grub_cpu", "x86_64");
	grub_set(grub, "grub_platform", grub->disk->parts.part[index].esp ? "efi" : "pc");
	bootdisk_part_name(grub->disk, index, name, sizeof(name));
	if (grub->disk->parts.table == BOOTDISK_TABLE_NONE)
		(void)snprintf(device, sizeof(device), "hd0");
	else
		(void)snprintf(device, sizeof(device), "hd0,%s", name);
	grub_set(grub, "root", device);
	(void)snprintf(prefix, sizeof(prefix), "(%s)%.*s", device, (int)(strrchr(path, '/') - path),
		       path);
	grub_set(grub, "prefix", prefix);
	grub_set(grub, "config_directory", prefix);
}

int bootdisk_grub_run(struct bootdisk_disk *disk, uint32_t index, const char *path,
		      struct bootdisk_choice *ret_choice, struct base_error *err)
{
	BASE_CLEANUP(grub_freep) struct grub *grub = calloc(1, sizeof(*grub));

	if (grub == NULL)
		return base_fail(err, -ENOMEM, "grub.cfg");
	grub->entry = calloc(BOOTDISK_ENTRIES_MAX, sizeof(*grub->entry));
	if (grub->entry == NULL)
		return base_fail(err, -ENOMEM, "grub.cfg");
	memset(ret_choice, 0, sizeof(*ret_choice));
	grub->disk = disk;
	grub->choice = ret_choice;
	grub->err = err;
	first_variables(grub, index, path);
	(void)grub_run_file(grub, path);
	if (grub->fatal == 0 && grub->entry_count > 0) {
		grub->chosen = false;
		choose(grub);
	}
	if (grub->fatal < 0)
		return grub->fatal;
	if (!grub->chosen)
		return base_fail(err, -ENOENT, "%s: no entry that boots Linux from this disk",
				 path);
	return 0;
}
