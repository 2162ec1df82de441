/* SPDX-License-Identifier: Apache-2.0 */
/* FAT12, FAT16 and FAT32 with long names (their ASCII part).  Every chain is bounded by the number
 * of clusters. */
#include <ctype.h>
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "hypervisor/bootdisk/bootdisk_priv.h"

#define FAT_ENTRY_BYTES 32u
#define FAT_FOLDER_MAX  65536u /* entries, as the format says */
#define FAT_ATTR_FOLDER 0x10u
#define FAT_ATTR_LABEL  0x08u
#define FAT_ATTR_LONG   0x0Fu
#define FAT_NAME_CHARS  255u
#define FAT_LONG_CHARS  13u
#define FAT_ROOT_ID     0u /* the root folder of FAT12 and FAT16 has no cluster */

struct fat_fs {
	struct bootdisk_fs fs;
	uint32_t bits;
	uint64_t fat_bytes_at;
	uint64_t root_at; /* FAT12, FAT16 */
	uint32_t root_entries;
	uint32_t root_cluster; /* FAT32 */
	uint64_t data_at;
	uint32_t cluster_bytes;
	uint32_t clusters;
};

struct fat_name {
	char text[FAT_NAME_CHARS + 1];
	uint32_t cluster;
	uint32_t size_bytes;
	uint8_t attributes;
};

static int fat_disk_read(struct fat_fs *fat, uint64_t offset, void *to, size_t bytes,
			 struct base_error *err)
{
	if (offset > fat->fs.size_bytes || bytes > fat->fs.size_bytes - offset)
		return base_fail(err, -EBADMSG, "FAT: %zu bytes at %" PRIu64 ": past the end",
				 bytes, offset);
	return bootdisk_io_read(fat->fs.io, fat->fs.start_bytes + offset, to, bytes, err);
}

/* The cluster after @cluster; 0 at the end. */
static int fat_next(struct fat_fs *fat, uint32_t cluster, uint32_t *ret_next,
		    struct base_error *err)
{
	uint64_t bit = (uint64_t)cluster * fat->bits;
	uint8_t bytes[4] = { 0 };
	uint32_t next;
	int rc;

	rc = fat_disk_read(fat, fat->fat_bytes_at + bit / 8, bytes, fat->bits == 32 ? 4 : 2, err);
	if (rc < 0)
		return rc;
	next = base_get_le32(bytes);
	if (fat->bits == 12)
		next = (bit % 8 != 0 ? next >> 4 : next) & 0xFFF;
	if (fat->bits == 32)
		next &= 0x0FFFFFFF;
	if (next >= (0x0FFFFFF8u & ((1u << (fat->bits == 32 ? 28 : fat->bits)) - 1))) {
		*ret_next = 0;
		return 0;
	}
	if (next < 2 || next - 2 >= fat->clusters)
		return base_fail(err, -EBADMSG, "FAT: cluster %u is followed by %u", cluster, next);
	*ret_next = next;
	return 0;
}

static int fat_read(struct bootdisk_fs *fs, struct bootdisk_file *file, uint64_t offset, void *to,
		    size_t size_bytes, struct base_error *err)
{
	struct fat_fs *fat = (struct fat_fs *)fs;
	uint8_t *out = to;

	if (offset > file->size_bytes || size_bytes > file->size_bytes - offset)
		return base_fail(err, -EBADMSG, "FAT: read past the end of a file");
	while (size_bytes > 0) {
		uint64_t index = offset / fat->cluster_bytes;
		size_t within = (size_t)(offset % fat->cluster_bytes);
		size_t bytes = fat->cluster_bytes - within;
		int rc = 0;

		if (index >= fat->clusters)
			return base_fail(err, -EBADMSG, "FAT: a file longer than the file system");
		if (file->at_cluster == 0 || file->at_index > index) {
			file->at_cluster = (uint32_t)file->id;
			file->at_index = 0;
		}
		while (rc == 0 && file->at_index < index && file->at_cluster != 0) {
			rc = fat_next(fat, file->at_cluster, &file->at_cluster, err);
			file->at_index++;
		}
		if (rc < 0)
			return rc;
		if (file->at_cluster < 2 || file->at_cluster - 2 >= fat->clusters)
			return base_fail(err, -EBADMSG, "FAT: a file's chain ends early");
		if (bytes > size_bytes)
			bytes = size_bytes;
		rc = fat_disk_read(fat,
				   fat->data_at +
					   (uint64_t)(file->at_cluster - 2) * fat->cluster_bytes +
					   within,
				   out, bytes, err);
		if (rc < 0)
			return rc;
		out += bytes;
		offset += bytes;
		size_bytes -= bytes;
	}
	return 0;
}

static void short_name(const uint8_t *entry, char *to)
{
	size_t count = 0;

	for (size_t i = 0; i < 8 && entry[i] != ' '; i++)
		to[count++] = (char)((entry[12] & 0x08) != 0 ? tolower(entry[i]) : entry[i]);
	if (entry[8] != ' ')
		to[count++] = '.';
	for (size_t i = 8; i < 11 && entry[i] != ' '; i++)
		to[count++] = (char)((entry[12] & 0x10) != 0 ? tolower(entry[i]) : entry[i]);
	to[count] = '\0';
}

static uint8_t short_sum(const uint8_t *entry)
{
	unsigned int sum = 0;

	for (size_t i = 0; i < 11; i++)
		sum = (((sum & 1) << 7) + (sum >> 1) + entry[i]) & 0xFF;
	return (uint8_t)sum;
}

/* A long name as it is put together; parts come last first. */
struct long_name {
	char text[20 * FAT_LONG_CHARS + 1];
	uint8_t expected; /* number of the next part; 0: complete */
	uint8_t sum;
	bool valid;
};

static void long_take(struct long_name *name, const uint8_t *entry)
{
	static const uint8_t places[FAT_LONG_CHARS] = { 1,  3,  5,  7,  9,  14, 16,
							18, 20, 22, 24, 28, 30 };
	uint8_t number = entry[0] & 0x1F;

	if ((entry[0] & 0x40) != 0) {
		memset(name, 0, sizeof(*name));
		name->valid = number >= 1 && number <= 20;
		name->expected = number;
		name->sum = entry[13];
	}
	if (!name->valid || number != name->expected || entry[13] != name->sum) {
		name->valid = false;
		return;
	}
	name->expected--;
	for (size_t i = 0; i < FAT_LONG_CHARS; i++) {
		uint16_t unit = base_get_le16(entry + places[i]);
		char *to = &name->text[(size_t)(number - 1) * FAT_LONG_CHARS + i];

		if (unit == 0)
			break;
		if (unit != 0xFFFF)
			*to = (char)(unit < 0x80 ? unit : '?');
	}
}

typedef int fat_each(void *context, const struct fat_name *name);

static int folder_entry(const struct bootdisk_file *folder, struct fat_fs *fat, uint32_t index,
			struct bootdisk_file *cursor, uint8_t *entry, struct base_error *err)
{
	if (folder->id == FAT_ROOT_ID)
		return fat_disk_read(fat, fat->root_at + (uint64_t)index * FAT_ENTRY_BYTES, entry,
				     FAT_ENTRY_BYTES, err);
	return fat_read(&fat->fs, cursor, (uint64_t)index * FAT_ENTRY_BYTES, entry, FAT_ENTRY_BYTES,
			err);
}

static int fat_walk(struct fat_fs *fat, const struct bootdisk_file *folder, fat_each *each,
		    void *context, struct base_error *err)
{
	uint32_t most = folder->id == FAT_ROOT_ID ? fat->root_entries : FAT_FOLDER_MAX;
	struct bootdisk_file cursor = { .id = folder->id, .size_bytes = UINT64_MAX };
	struct long_name longer = { .valid = false };

	for (uint32_t i = 0; i < most; i++) {
		uint8_t entry[FAT_ENTRY_BYTES] = { 0 };
		struct fat_name name = { .text = "" };
		int rc;

		/* A chain that ends with a full cluster ends the folder. */
		if (folder->id != FAT_ROOT_ID && i > 0 &&
		    (i * FAT_ENTRY_BYTES) % fat->cluster_bytes == 0) {
			uint32_t next = 0;

			rc = fat_next(fat, cursor.at_cluster, &next, err);
			if (rc < 0 || next == 0)
				return rc;
		}
		rc = folder_entry(folder, fat, i, &cursor, entry, err);
		if (rc < 0 || entry[0] == 0)
			return rc;
		if ((entry[11] & 0x3F) == FAT_ATTR_LONG && entry[0] != 0xE5) {
			long_take(&longer, entry);
			continue;
		}
		if (entry[0] != 0xE5) {
			if (longer.valid && longer.expected == 0 && longer.sum == short_sum(entry))
				bootdisk_copy(name.text, sizeof(name.text), longer.text);
			else
				short_name(entry, name.text);
			name.attributes = entry[11];
			name.cluster = base_get_le16(entry + 26);
			if (fat->bits == 32)
				name.cluster |= (uint32_t)base_get_le16(entry + 20) << 16;
			name.size_bytes = base_get_le32(entry + 28);
			rc = each(context, &name);
			if (rc != 0)
				return rc;
		}
		longer.valid = false;
	}
	return 0;
}

struct wanted {
	const char *name;
	size_t name_bytes;
	struct fat_name found;
};

static int match_name(void *context, const struct fat_name *name)
{
	struct wanted *wanted = context;

	if ((name->attributes & FAT_ATTR_LABEL) != 0 || strlen(name->text) != wanted->name_bytes ||
	    strncasecmp(name->text, wanted->name, wanted->name_bytes) != 0)
		return 0;
	wanted->found = *name;
	return 1;
}

static void fat_root(const struct fat_fs *fat, struct bootdisk_file *file)
{
	*file = (struct bootdisk_file){ .folder = true, .id = fat->root_cluster };
}

static int fat_lookup(struct bootdisk_fs *fs, const char *path, struct bootdisk_file *ret_file,
		      struct base_error *err)
{
	struct fat_fs *fat = (struct fat_fs *)fs;
	struct bootdisk_file file;

	fat_root(fat, &file);
	for (const char *at = path + strspn(path, "/"); *at != '\0'; at += strspn(at, "/")) {
		struct wanted wanted = { .name = at, .name_bytes = strcspn(at, "/") };
		int rc;

		if (!file.folder)
			return base_fail(err, -ENOENT, "%s: not found", path);
		rc = fat_walk(fat, &file, match_name, &wanted, err);
		if (rc < 0)
			return base_fail_within(err, rc, "%s", path);
		if (rc == 0)
			return base_fail(err, -ENOENT, "%s: not found", path);
		file = (struct bootdisk_file){
			.id = wanted.found.cluster,
			.size_bytes = wanted.found.size_bytes,
			.folder = (wanted.found.attributes & FAT_ATTR_FOLDER) != 0,
		};
		if (file.folder && file.id == 0)
			fat_root(fat, &file); /* ".." of a folder in the root */
		at += wanted.name_bytes;
	}
	*ret_file = file;
	return 0;
}

struct listing {
	bootdisk_each *each;
	void *context;
	uint32_t count;
};

static int list_name(void *context, const struct fat_name *name)
{
	struct listing *listing = context;

	if ((name->attributes & FAT_ATTR_LABEL) != 0 || name->text[0] == '.')
		return 0;
	if (++listing->count > BOOTDISK_LIST_MAX)
		return -E2BIG;
	return listing->each(listing->context, name->text);
}

static int fat_list(struct bootdisk_fs *fs, const struct bootdisk_file *folder, bootdisk_each *each,
		    void *context, struct base_error *err)
{
	struct listing listing = { .each = each, .context = context };
	int rc = fat_walk((struct fat_fs *)fs, folder, list_name, &listing, err);

	return rc == -E2BIG ? 0 : rc; /* the names beyond the limit are not seen */
}

static void fat_close(struct bootdisk_fs *fs)
{
	free(fs);
}

static const struct bootdisk_fs_ops fat_ops = {
	.lookup = fat_lookup,
	.read = fat_read,
	.list = fat_list,
	.close = fat_close,
};

static int match_label(void *context, const struct fat_name *name)
{
	struct fat_name *label = context;

	if ((name->attributes & FAT_ATTR_LABEL) == 0)
		return 0;
	*label = *name;
	return 1;
}

static void fat_identity(struct fat_fs *fat, const uint8_t *boot)
{
	uint32_t serial = base_get_le32(boot + (fat->bits == 32 ? 67 : 39));
	struct bootdisk_file root;
	struct fat_name label = { .text = "" };
	size_t count = 0;

	(void)snprintf(fat->fs.uuid, sizeof(fat->fs.uuid), "%04X-%04X", serial >> 16,
		       serial & 0xFFFF);
	fat_root(fat, &root);
	if (fat_walk(fat, &root, match_label, &label, NULL) != 1)
		return;
	for (const char *at = label.text; *at != '\0' && count + 1 < sizeof(fat->fs.label); at++)
		if (*at != '.')
			fat->fs.label[count++] = *at;
}

static int fat_geometry(struct fat_fs *fat, const uint8_t *boot, struct base_error *err)
{
	uint32_t sector = base_get_le16(boot + 11);
	uint32_t per_cluster = boot[13];
	uint32_t reserved = base_get_le16(boot + 14);
	uint32_t fats = boot[16];
	uint64_t total = base_get_le16(boot + 19);
	uint64_t fat_sectors = base_get_le16(boot + 22);
	uint64_t first;

	if ((sector != 512 && sector != 1024 && sector != 2048 && sector != 4096) ||
	    per_cluster == 0 || (per_cluster & (per_cluster - 1)) != 0 || reserved == 0 ||
	    fats == 0 || fats > 2)
		return base_fail(err, -ENODEV, "FAT: no boot sector");
	fat->root_entries = base_get_le16(boot + 17);
	if (total == 0)
		total = base_get_le32(boot + 32);
	if (fat_sectors == 0)
		fat_sectors = base_get_le32(boot + 36);
	fat->cluster_bytes = sector * per_cluster;
	fat->fat_bytes_at = (uint64_t)reserved * sector;
	fat->root_at = fat->fat_bytes_at + (uint64_t)fats * fat_sectors * sector;
	fat->data_at = fat->root_at + ((uint64_t)fat->root_entries * FAT_ENTRY_BYTES + sector - 1) /
					      sector * sector;
	first = fat->data_at / sector;
	if (fat_sectors == 0 || total <= first || total > fat->fs.size_bytes / sector)
		return base_fail(err, -EBADMSG,
				 "FAT: %" PRIu64 " sectors, data from %" PRIu64 ": does not fit",
				 total, first);
	fat->clusters = (uint32_t)((total - first) / per_cluster);
	fat->bits = fat->clusters < 4085 ? 12 : fat->clusters < 65525 ? 16 : 32;
	if (base_get_le16(boot + 22) == 0)
		fat->bits = 32;
	if (((uint64_t)fat->clusters + 2) * fat->bits / 8 > fat_sectors * sector)
		return base_fail(err, -EBADMSG, "FAT: %u clusters: more than the table holds",
				 fat->clusters);
	if (fat->bits == 32) {
		fat->root_cluster = base_get_le32(boot + 44);
		if (fat->root_cluster < 2 || fat->root_cluster - 2 >= fat->clusters)
			return base_fail(err, -EBADMSG, "FAT: root folder at cluster %u",
					 fat->root_cluster);
	}
	return 0;
}

int bootdisk_fat_open(struct bootdisk_io *io, const struct bootdisk_part *part,
		      struct bootdisk_fs **ret_fs, struct base_error *err)
{
	BASE_FREE struct fat_fs *fat = calloc(1, sizeof(*fat));
	uint8_t boot[512] = { 0 };
	int rc;

	if (fat == NULL)
		return base_fail(err, -ENOMEM, "FAT file system");
	fat->fs = (struct bootdisk_fs){ .ops = &fat_ops,
					.io = io,
					.start_bytes = part->start_bytes,
					.size_bytes = part->size_bytes,
					.type = "fat" };
	rc = fat_disk_read(fat, 0, boot, sizeof(boot), err);
	if (rc < 0)
		return rc;
	if (boot[510] != 0x55 || boot[511] != 0xAA)
		return base_fail(err, -ENODEV, "FAT: no boot sector");
	rc = fat_geometry(fat, boot, err);
	if (rc < 0)
		return rc;
	fat_identity(fat, boot);
	*ret_fs = &base_take(&fat)->fs;
	return 0;
}
