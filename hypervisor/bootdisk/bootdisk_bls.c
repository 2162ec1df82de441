/* SPDX-License-Identifier: Apache-2.0 */
/* Loader entries: the Boot Loader Specification's files, their order, and what systemd-boot takes.
 */
#include <ctype.h>
#include <errno.h>
#include <fnmatch.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "hypervisor/bootdisk/bootdisk_priv.h"

static int rank(char byte)
{
	if (byte == '~')
		return -2;
	if (byte == '-')
		return 1;
	if (byte == '^')
		return 2;
	if (byte == '.')
		return 3;
	return 0;
}

static bool counts(char byte)
{
	return isalnum((unsigned char)byte) != 0 || rank(byte) != 0;
}

/* Runs of digits as numbers, of letters as text. */
static int run_order(const char **left, const char **right)
{
	bool digits = isdigit((unsigned char)**left) != 0 || isdigit((unsigned char)**right) != 0;
	size_t a;
	size_t b;
	int order;

	if (digits) {
		*left += strspn(*left, "0");
		*right += strspn(*right, "0");
		a = strspn(*left, "0123456789");
		b = strspn(*right, "0123456789");
		if (a != b)
			return a < b ? -1 : 1;
	} else {
		for (a = 0; isalpha((unsigned char)(*left)[a]) != 0;)
			a++;
		for (b = 0; isalpha((unsigned char)(*right)[b]) != 0;)
			b++;
	}
	order = strncmp(*left, *right, a < b ? a : b);
	if (order == 0 && a != b)
		order = a < b ? -1 : 1;
	*left += a;
	*right += b;
	return order;
}

int bootdisk_version_order(const char *left, const char *right)
{
	for (;;) {
		int order;

		while (*left != '\0' && !counts(*left))
			left++;
		while (*right != '\0' && !counts(*right))
			right++;
		order = (*left == '\0' ? -1 : rank(*left)) - (*right == '\0' ? -1 : rank(*right));
		if (rank(*left) != 0 || rank(*right) != 0 || *left == '\0' || *right == '\0') {
			if (order != 0 || *left == '\0')
				return order;
			left++;
			right++;
			continue;
		}
		order = run_order(&left, &right);
		if (order != 0)
			return order;
	}
}

int bootdisk_bls_order(const struct bootdisk_bls *left, const struct bootdisk_bls *right)
{
	bool sorted = left->sort_key[0] != '\0';
	int order;

	if (left->exhausted != right->exhausted)
		return left->exhausted ? 1 : -1;
	if (sorted != (right->sort_key[0] != '\0'))
		return sorted ? -1 : 1;
	if (sorted) {
		order = strcmp(left->sort_key, right->sort_key);
		if (order == 0)
			order = strcmp(left->machine_id, right->machine_id);
		if (order == 0)
			order = bootdisk_version_order(right->version, left->version);
		if (order != 0)
			return order;
	}
	return bootdisk_version_order(right->id, left->id);
}

static int order_of(const void *left, const void *right)
{
	return bootdisk_bls_order(left, right);
}

void bootdisk_bls_sort(struct bootdisk_bls_set *set)
{
	if (set->count > 1)
		qsort(set->entry, set->count, sizeof(*set->entry), order_of);
}

void bootdisk_bls_set_fini(struct bootdisk_bls_set *set)
{
	free(set->entry);
	*set = (struct bootdisk_bls_set){ 0 };
}

/* "name+3-1.conf" is "name.conf" with three tries left. */
static void take_name(struct bootdisk_bls *bls, const char *name)
{
	const char *plus = strrchr(name, '+');
	const char *suffix = strrchr(name, '.');
	size_t digits = plus == NULL ? 0 : strspn(plus + 1, "0123456789");
	size_t more = 0;

	bootdisk_copy(bls->id, sizeof(bls->id), name);
	if (digits == 0 || suffix == NULL || plus > suffix)
		return;
	if (plus[1 + digits] == '-')
		more = 1 + strspn(plus + 2 + digits, "0123456789");
	if (plus + 1 + digits + more != suffix)
		return;
	(void)snprintf(bls->id, sizeof(bls->id), "%.*s%s", (int)(plus - name), name, suffix);
	bls->exhausted = strspn(plus + 1, "0") == digits;
}

static int take_value(char *to, size_t bytes, const char *value, bool join, struct base_error *err)
{
	size_t used = join ? strlen(to) : 0;
	int more = snprintf(to + used, bytes - used, "%s%s", used > 0 ? " " : "", value);

	if (more < 0 || (size_t)more >= bytes - used)
		return base_fail(err, -EBADMSG, "loader entry: '%.40s': too long", value);
	return 0;
}

static int take_line(struct bootdisk_bls *bls, const char *key, const char *value,
		     struct base_error *err)
{
	if (strcmp(key, "title") == 0)
		bootdisk_copy(bls->title, sizeof(bls->title), value);
	else if (strcmp(key, "version") == 0)
		bootdisk_copy(bls->version, sizeof(bls->version), value);
	else if (strcmp(key, "sort-key") == 0)
		bootdisk_copy(bls->sort_key, sizeof(bls->sort_key), value);
	else if (strcmp(key, "machine-id") == 0)
		bootdisk_copy(bls->machine_id, sizeof(bls->machine_id), value);
	else if (strcmp(key, "architecture") == 0)
		bootdisk_copy(bls->architecture, sizeof(bls->architecture), value);
	else if (strcmp(key, "linux") == 0)
		return take_value(bls->linux_path, sizeof(bls->linux_path), value, false, err);
	else if (strcmp(key, "options") == 0)
		return take_value(bls->options, sizeof(bls->options), value, true, err);
	else if (strcmp(key, "initrd") == 0) {
		if (bls->initrd_count == 4)
			return base_fail(err, -EBADMSG, "loader entry: more than 4 initrd lines");
		return take_value(bls->initrd[bls->initrd_count++], sizeof(bls->initrd[0]), value,
				  false, err);
	}
	return 0;
}

/* The next "key value" line; false at the end. */
static bool next_line(const char **at, char *key, size_t key_bytes, char *value, size_t value_bytes)
{
	while (**at != '\0') {
		size_t bytes = strcspn(*at, "\n");
		const char *line = *at;
		size_t first;
		size_t rest;

		*at += bytes + (line[bytes] == '\n' ? 1 : 0);
		while (bytes > 0 && isspace((unsigned char)*line) != 0)
			line++, bytes--;
		while (bytes > 0 && isspace((unsigned char)line[bytes - 1]) != 0)
			bytes--;
		first = strcspn(line, " \t\n");
		first = first < bytes ? first : bytes;
		if (bytes == 0 || line[0] == '#' || first >= key_bytes)
			continue;
		(void)snprintf(key, key_bytes, "%.*s", (int)first, line);
		rest = first;
		while (rest < bytes && isspace((unsigned char)line[rest]) != 0)
			rest++;
		(void)snprintf(value, value_bytes, "%.*s", (int)(bytes - rest), line + rest);
		return true;
	}
	return false;
}

int bootdisk_bls_decode(const char *text, const char *name, struct bootdisk_bls *ret_bls,
			struct base_error *err)
{
	char value[HV_CMDLINE_BYTES + 1];
	char key[32];

	memset(ret_bls, 0, sizeof(*ret_bls));
	take_name(ret_bls, name);
	while (next_line(&text, key, sizeof(key), value, sizeof(value))) {
		int rc = take_line(ret_bls, key, value, err);

		if (rc < 0)
			return rc;
	}
	if (ret_bls->linux_path[0] == '\0')
		return base_fail(err, -EBADMSG, "loader entry '%.80s': no linux line", name);
	if (ret_bls->title[0] == '\0')
		bootdisk_copy(ret_bls->title, sizeof(ret_bls->title), ret_bls->id);
	return 0;
}

struct reading {
	struct bootdisk_disk *disk;
	struct bootdisk_bls_set *set;
	const char *path;
	uint32_t index;
	bool uki;
};

/* The text of a section, white space at its end cut. */
static int section_text(struct bootdisk_fs *fs, struct bootdisk_file *file, uint64_t offset,
			uint64_t bytes, char *to, size_t room)
{
	int rc;

	memset(to, 0, room);
	if (bytes == 0)
		return 0;
	if (bytes > room - 1)
		return -EFBIG;
	rc = fs->ops->read(fs, file, offset, to, (size_t)bytes, NULL);
	for (size_t i = strlen(to); i > 0 && isspace((unsigned char)to[i - 1]) != 0; i--)
		to[i - 1] = '\0';
	return rc;
}

static void osrel_value(const char *osrel, const char *key, char *to, size_t room)
{
	size_t bytes = strlen(key);

	for (const char *at = osrel; *at != '\0'; at += strspn(at, "\n")) {
		size_t line = strcspn(at, "\n");

		if (line > bytes + 1 && strncmp(at, key, bytes) == 0 && at[bytes] == '=') {
			const char *value = at + bytes + 1;
			size_t count = line - bytes - 1;

			if (count >= 2 && (*value == '"' || *value == '\'')) {
				value++;
				count -= 2;
			}
			(void)snprintf(to, room, "%.*s", (int)count, value);
		}
		at += line;
	}
}

static int read_uki(struct reading *reading, const char *path, struct bootdisk_bls *bls)
{
	struct bootdisk_fs *fs = bootdisk_disk_fs(reading->disk, reading->index);
	uint8_t head[BOOTDISK_UKI_HEAD_BYTES];
	struct bootdisk_uki uki;
	struct bootdisk_file file;
	char osrel[4096] = "";
	size_t bytes;
	int rc;

	rc = fs->ops->lookup(fs, path, &file, NULL);
	if (rc < 0)
		return rc;
	bytes = file.size_bytes < sizeof(head) ? (size_t)file.size_bytes : sizeof(head);
	rc = fs->ops->read(fs, &file, 0, head, bytes, NULL);
	if (rc == 0)
		rc = bootdisk_uki_decode(head, bytes, file.size_bytes, &uki, NULL);
	if (rc == 0)
		rc = section_text(fs, &file, uki.cmdline.offset, uki.cmdline.size_bytes,
				  bls->options, sizeof(bls->options));
	if (rc == 0)
		rc = section_text(fs, &file, uki.osrel.offset, uki.osrel.size_bytes, osrel,
				  sizeof(osrel));
	if (rc < 0)
		return rc;
	osrel_value(osrel, "PRETTY_NAME", bls->title, sizeof(bls->title));
	osrel_value(osrel, "IMAGE_VERSION", bls->version, sizeof(bls->version));
	if (bls->version[0] == '\0')
		osrel_value(osrel, "VERSION_ID", bls->version, sizeof(bls->version));
	osrel_value(osrel, "ID", bls->sort_key, sizeof(bls->sort_key));
	bls->uki = true;
	bls->pieces[0] = (struct bootdisk_piece){ .part = reading->index,
						  .offset = uki.linux_image.offset,
						  .size_bytes = uki.linux_image.size_bytes };
	bls->pieces[1] = (struct bootdisk_piece){ .part = reading->index,
						  .offset = uki.initrd.offset,
						  .size_bytes = uki.initrd.size_bytes };
	bootdisk_copy(bls->linux_path, sizeof(bls->linux_path), path);
	return 0;
}

static int read_one(void *context, const char *name)
{
	struct reading *reading = context;
	struct bootdisk_fs *fs = bootdisk_disk_fs(reading->disk, reading->index);
	struct bootdisk_bls *bls = &reading->set->entry[reading->set->count];
	size_t length = strlen(name);
	BASE_FREE char *text = NULL;
	char path[BOOTDISK_PATH_BYTES];
	size_t bytes = 0;
	int rc;

	if (reading->set->count == BOOTDISK_ENTRIES_MAX || length < 6 || length > 200 ||
	    (reading->uki ? strcmp(name + length - 4, ".efi")
			  : strcmp(name + length - 5, ".conf")) != 0)
		return 0;
	(void)snprintf(path, sizeof(path), "%.200s/%.200s", reading->path, name);
	memset(bls, 0, sizeof(*bls));
	if (reading->uki) {
		take_name(bls, name);
		rc = read_uki(reading, path, bls);
	} else {
		rc = bootdisk_fs_text(fs, path, &text, &bytes, NULL);
		if (rc == 0)
			rc = bootdisk_bls_decode(text, name, bls, NULL);
	}
	if (rc == -EIO || rc == -ENOMEM)
		return rc;
	if (rc < 0) {
		bootdisk_note(reading->disk, "%.60s: no loader entry", name);
		return 0;
	}
	bls->part = reading->index;
	if (bls->architecture[0] == '\0' || strcmp(bls->architecture, "x64") == 0 ||
	    strcmp(bls->architecture, "X64") == 0)
		reading->set->count++;
	return 0;
}

static int read_folder(struct bootdisk_disk *disk, uint32_t index, const char *path, bool uki,
		       struct bootdisk_bls_set *set)
{
	struct reading reading = {
		.disk = disk, .set = set, .path = path, .index = index, .uki = uki
	};
	struct bootdisk_fs *fs = bootdisk_disk_fs(disk, index);

	if (set->entry == NULL)
		set->entry = calloc(BOOTDISK_ENTRIES_MAX, sizeof(*set->entry));
	if (set->entry == NULL)
		return -ENOMEM;
	return fs == NULL ? -ENOENT : bootdisk_fs_list(fs, path, read_one, &reading, NULL);
}

int bootdisk_bls_read(struct bootdisk_disk *disk, uint32_t index, const char *path,
		      struct bootdisk_bls_set *set, struct base_error *err)
{
	int rc = read_folder(disk, index, path, false, set);

	return rc < 0 ? base_fail_errno(err, rc, "loader entries in %s", path) : 0;
}

/* The "default" of loader.conf; entry 0 when it has none or nothing matches. */
static uint32_t default_of(struct bootdisk_fs *fs, const struct bootdisk_bls_set *set)
{
	BASE_FREE char *text = NULL;
	char pattern[256] = "";
	char value[256];
	char key[32];
	const char *at;
	size_t bytes = 0;

	if (bootdisk_fs_text(fs, "/loader/loader.conf", &text, &bytes, NULL) < 0)
		return 0;
	at = text;
	while (next_line(&at, key, sizeof(key), value, sizeof(value)))
		if (strcmp(key, "default") == 0)
			bootdisk_copy(pattern, sizeof(pattern), value);
	for (uint32_t i = 0; i < set->count && pattern[0] != '\0'; i++)
		if (fnmatch(pattern, set->entry[i].id, FNM_CASEFOLD) == 0)
			return i;
	return 0;
}

static int choice_of(const struct bootdisk_bls *bls, struct bootdisk_choice *ret_choice)
{
	memset(ret_choice, 0, sizeof(*ret_choice));
	bootdisk_copy(ret_choice->title, sizeof(ret_choice->title), bls->title);
	bootdisk_copy(ret_choice->cmdline, sizeof(ret_choice->cmdline), bls->options);
	if (bls->uki)
		ret_choice->kernel = bls->pieces[0];
	ret_choice->kernel.part = bls->part;
	bootdisk_copy(ret_choice->kernel.path, sizeof(ret_choice->kernel.path), bls->linux_path);
	for (uint32_t i = 0; i < bls->initrd_count; i++) {
		ret_choice->initrd[i].part = bls->part;
		bootdisk_copy(ret_choice->initrd[i].path, BOOTDISK_PATH_BYTES, bls->initrd[i]);
	}
	ret_choice->initrd_count = bls->initrd_count;
	if (bls->uki && bls->pieces[1].size_bytes > 0) {
		ret_choice->initrd[0] = bls->pieces[1];
		bootdisk_copy(ret_choice->initrd[0].path, BOOTDISK_PATH_BYTES, bls->linux_path);
		ret_choice->initrd_count = 1;
	}
	return 0;
}

int bootdisk_sdboot_run(struct bootdisk_disk *disk, uint32_t index,
			struct bootdisk_choice *ret_choice, struct base_error *err)
{
	struct bootdisk_bls_set set = { 0 };
	int rc = 0;

	for (uint32_t i = 0; i < disk->parts.count && rc == 0; i++) {
		if (i != index && !disk->parts.part[i].xbootldr)
			continue;
		rc = read_folder(disk, i, "/loader/entries", false, &set);
		if (rc == 0 || rc == -ENOENT)
			rc = read_folder(disk, i, "/EFI/Linux", true, &set);
		rc = rc == -EIO || rc == -ENOMEM ? rc : 0;
	}
	if (rc == 0 && set.count == 0)
		rc = -ENOENT;
	if (rc < 0) {
		bootdisk_bls_set_fini(&set);
		return base_fail_errno(err, rc, "systemd-boot: loader entries");
	}
	bootdisk_bls_sort(&set);
	rc = choice_of(&set.entry[default_of(bootdisk_disk_fs(disk, index), &set)], ret_choice);
	bootdisk_bls_set_fini(&set);
	return rc;
}
