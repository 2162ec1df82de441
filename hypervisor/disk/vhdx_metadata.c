/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The metadata region: a table of items and the items, section 2.6 of [MS-VHDX].
 */
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "base/bytes.h"
#include "base/cleanup.h"
#include "hypervisor/disk/vhdx_format.h"

#define TABLE_SIGNATURE           UINT64_C(0x617461646174656d) /* "metadata" */
#define ENTRIES_MAX               2047U
#define USER_ENTRIES_MAX          1024U
#define HEADER_BYTES              32U
#define ENTRY_BYTES               32U
#define FLAG_USER                 1U
#define FLAG_DISK                 2U
#define FLAG_REQUIRED             4U
#define FLAGS_KNOWN               7U
#define PARAMETER_LEAVE_ALLOCATED 1U
#define PARAMETER_HAS_PARENT      2U
/* In a new file: the small items at the first place that is allowed, the locator on a page of its
 * own behind them and last, so that it can grow. */
#define NEW_ITEMS_OFFSET          VHDX_METADATA_TABLE_BYTES
#define NEW_LOCATOR_OFFSET        (VHDX_METADATA_TABLE_BYTES + 4096U)

enum item {
	ITEM_PARAMETERS,
	ITEM_DISK_BYTES,
	ITEM_PAGE83,
	ITEM_LOGICAL,
	ITEM_PHYSICAL,
	ITEM_LOCATOR,
	ITEMS
};

struct item_rule {
	struct disk_guid id;
	const char *name;
	uint32_t length_bytes; /* 0: any */
	uint32_t flags;
};

static const struct item_rule rules[ITEMS] = {
	[ITEM_PARAMETERS] = { { { 0x37, 0x67, 0xa1, 0xca, 0x36, 0xfa, 0x43, 0x4d, 0xb3, 0xb6, 0x33,
				  0xf0, 0xaa, 0x44, 0xe7, 0x6b } },
			      "file parameters",
			      8,
			      FLAG_REQUIRED },
	[ITEM_DISK_BYTES] = { { { 0x24, 0x42, 0xa5, 0x2f, 0x1b, 0xcd, 0x76, 0x48, 0xb2, 0x11, 0x5d,
				  0xbe, 0xd8, 0x3b, 0xf4, 0xb8 } },
			      "virtual disk size",
			      8,
			      FLAG_REQUIRED | FLAG_DISK },
	[ITEM_PAGE83] = { { { 0xab, 0x12, 0xca, 0xbe, 0xe6, 0xb2, 0x23, 0x45, 0x93, 0xef, 0xc3,
			      0x09, 0xe0, 0x00, 0xc7, 0x46 } },
			  "page 83 data",
			  16,
			  FLAG_REQUIRED | FLAG_DISK },
	[ITEM_LOGICAL] = { { { 0x1d, 0xbf, 0x41, 0x81, 0x6f, 0xa9, 0x09, 0x47, 0xba, 0x47, 0xf2,
			       0x33, 0xa8, 0xfa, 0xab, 0x5f } },
			   "logical sector size",
			   4,
			   FLAG_REQUIRED | FLAG_DISK },
	[ITEM_PHYSICAL] = { { { 0xc7, 0x48, 0xa3, 0xcd, 0x5d, 0x44, 0x71, 0x44, 0x9c, 0xc9, 0xe9,
				0x88, 0x52, 0x51, 0xc5, 0x56 } },
			    "physical sector size",
			    4,
			    FLAG_REQUIRED | FLAG_DISK },
	[ITEM_LOCATOR] = { { { 0x2d, 0x5f, 0xd3, 0xa8, 0x0b, 0xb3, 0x4d, 0x45, 0xab, 0xf7, 0xd3,
			       0xd8, 0x48, 0x34, 0xab, 0x0c } },
			   "parent locator",
			   0,
			   FLAG_REQUIRED },
};

/* Marks a file that is still being made or merged: what it holds is not a disk. */
static const struct disk_guid incomplete_id = { { 0xf0, 0x85, 0xcc, 0x71, 0x69, 0x1b, 0x28, 0x4e,
						  0x95, 0x58, 0xc3, 0xbf, 0x83, 0xae, 0x75,
						  0xd3 } };

struct entry {
	struct disk_guid id;
	uint32_t offset_bytes;
	uint32_t length_bytes;
	uint32_t flags;
	uint64_t at; /* offset of the entry in the file, for texts */
};

struct table {
	struct entry *entries; /* owned */
	uint32_t count;
	bool known[ITEMS];
	struct entry items[ITEMS];
};

static void table_fini(struct table *table)
{
	free(table->entries);
}

static int by_offset(const void *left, const void *right)
{
	const struct entry *a = left;
	const struct entry *b = right;

	return a->offset_bytes < b->offset_bytes ? -1 : a->offset_bytes > b->offset_bytes;
}

static int by_id(const void *left, const void *right)
{
	const struct entry *a = left;
	const struct entry *b = right;
	int order = memcmp(a->id.bytes, b->id.bytes, sizeof(a->id.bytes));

	if (order != 0)
		return order;
	return (int)(a->flags & FLAG_USER) - (int)(b->flags & FLAG_USER);
}

static int entry_check(const struct entry *entry, const char *id, uint32_t region_bytes,
		       struct base_error *err)
{
	if ((entry->flags & ~FLAGS_KNOWN) != 0)
		return base_fail(err, -EBADMSG,
				 "VHDX metadata entry at 0x%" PRIx64 ": flags 0x%" PRIx32
				 " of item %s, known are 0x%x",
				 entry->at, entry->flags, id, FLAGS_KNOWN);
	if (entry->length_bytes > VHDX_METADATA_ITEM_BYTES_MAX)
		return base_fail(err, -EBADMSG,
				 "VHDX metadata entry at 0x%" PRIx64 ": item %s has %" PRIu32
				 " bytes, at most %u are allowed",
				 entry->at, id, entry->length_bytes, VHDX_METADATA_ITEM_BYTES_MAX);
	if (entry->length_bytes == 0 && entry->offset_bytes != 0)
		return base_fail(err, -EBADMSG,
				 "VHDX metadata entry at 0x%" PRIx64
				 ": item %s is empty and has offset 0x%" PRIx32 ", not 0",
				 entry->at, id, entry->offset_bytes);
	if (entry->length_bytes == 0)
		return 0;
	if (entry->offset_bytes < VHDX_METADATA_TABLE_BYTES)
		return base_fail(err, -EBADMSG,
				 "VHDX metadata entry at 0x%" PRIx64 ": offset 0x%" PRIx32
				 " of item %s is inside the table, at least 0x%x is wanted",
				 entry->at, entry->offset_bytes, id, VHDX_METADATA_TABLE_BYTES);
	if (entry->offset_bytes > region_bytes ||
	    entry->length_bytes > region_bytes - entry->offset_bytes)
		return base_fail(err, -EBADMSG,
				 "VHDX metadata entry at 0x%" PRIx64 ": item %s at 0x%" PRIx32
				 ", %" PRIu32 " bytes, ends past the region's %" PRIu32 " bytes",
				 entry->at, id, entry->offset_bytes, entry->length_bytes,
				 region_bytes);
	return 0;
}

/* Remember a known item; refuse an unknown one that is required.  What a known item's own flags
 * say besides "user" is not looked at: some writers leave out that it is the disk's, and it tells
 * only those what to do with it who do not know the item. */
static int entry_note(struct table *table, const struct entry *entry, const char *id,
		      struct base_error *err)
{
	if (disk_guid_equal(&entry->id, &incomplete_id))
		return base_fail(err, -EOPNOTSUPP,
				 "VHDX metadata entry at 0x%" PRIx64
				 ": the file is incomplete: whoever was making it has not finished",
				 entry->at);
	for (int i = 0; i < ITEMS && (entry->flags & FLAG_USER) == 0; i++) {
		const struct item_rule *rule = &rules[i];

		if (!disk_guid_equal(&entry->id, &rule->id))
			continue;
		if (entry->length_bytes == 0 ||
		    (rule->length_bytes != 0 && entry->length_bytes != rule->length_bytes))
			return base_fail(err, -EBADMSG,
					 "VHDX metadata entry at 0x%" PRIx64 ": %s has %" PRIu32
					 " bytes, %" PRIu32 " are wanted",
					 entry->at, rule->name, entry->length_bytes,
					 rule->length_bytes);
		table->known[i] = true;
		table->items[i] = *entry;
		return 0;
	}
	if ((entry->flags & FLAG_REQUIRED) != 0)
		return base_fail(err, -EOPNOTSUPP,
				 "VHDX metadata entry at 0x%" PRIx64
				 ": item %s is required and unknown",
				 entry->at, id);
	return 0;
}

static int uniqueness_check(struct table *table, struct base_error *err)
{
	char id[DISK_GUID_TEXT_BYTES];

	qsort(table->entries, table->count, sizeof(*table->entries), by_id);
	for (uint32_t i = 1; i < table->count; i++) {
		if (by_id(&table->entries[i - 1], &table->entries[i]) != 0)
			continue;
		disk_guid_text(&table->entries[i].id, id);
		return base_fail(err, -EBADMSG,
				 "VHDX metadata entries at 0x%" PRIx64 " and 0x%" PRIx64
				 " are both item %s",
				 table->entries[i - 1].at, table->entries[i].at, id);
	}
	qsort(table->entries, table->count, sizeof(*table->entries), by_offset);
	for (uint32_t i = 1; i < table->count; i++) {
		const struct entry *before = &table->entries[i - 1];
		const struct entry *entry = &table->entries[i];

		if (before->length_bytes <= entry->offset_bytes - before->offset_bytes)
			continue;
		return base_fail(err, -EBADMSG,
				 "VHDX metadata entries at 0x%" PRIx64 " and 0x%" PRIx64
				 ": items at 0x%" PRIx32 " (%" PRIu32 " bytes) and 0x%" PRIx32
				 " overlap",
				 before->at, entry->at, before->offset_bytes, before->length_bytes,
				 entry->offset_bytes);
	}
	return 0;
}

static int presence_check(const struct table *table, uint64_t region_offset, struct base_error *err)
{
	for (int i = 0; i < ITEMS; i++) {
		if (!table->known[i] && i != ITEM_LOCATOR)
			return base_fail(err, -EBADMSG,
					 "VHDX metadata table at 0x%" PRIx64 ": no item \"%s\"",
					 region_offset, rules[i].name);
	}
	return 0;
}

static int entries_decode(struct base_reader *in, uint32_t region_bytes, uint64_t region_offset,
			  struct table *table, struct base_error *err)
{
	uint32_t users = 0;

	for (uint32_t i = 0; i < table->count; i++) {
		struct entry *entry = &table->entries[i];
		char id[DISK_GUID_TEXT_BYTES];
		int code;

		entry->at = region_offset + in->offset_bytes;
		base_read_bytes(in, entry->id.bytes, 16);
		entry->offset_bytes = base_read_le32(in);
		entry->length_bytes = base_read_le32(in);
		entry->flags = base_read_le32(in);
		base_read_skip(in, 4);
		disk_guid_text(&entry->id, id);
		code = entry_check(entry, id, region_bytes, err);
		if (code == 0)
			code = entry_note(table, entry, id, err);
		if (code < 0)
			return code;
		users += (entry->flags & FLAG_USER) != 0;
	}
	if (users > USER_ENTRIES_MAX)
		return base_fail(err, -EBADMSG,
				 "VHDX metadata table at 0x%" PRIx64 ": %" PRIu32
				 " user items, at most %u are allowed",
				 region_offset, users, USER_ENTRIES_MAX);
	return 0;
}

/* table_fini() is the caller's. */
static int table_decode(const uint8_t *bytes, uint32_t region_bytes, uint64_t region_offset,
			struct table *table, struct base_error *err)
{
	struct base_reader in = base_reader_over(bytes, VHDX_METADATA_TABLE_BYTES);
	uint64_t signature = base_read_le64(&in);
	int code;

	base_read_skip(&in, 2);
	table->count = base_read_le16(&in);
	base_read_skip(&in, HEADER_BYTES - 12);
	if (signature != TABLE_SIGNATURE)
		return base_fail(err, -EBADMSG,
				 "VHDX metadata table at 0x%" PRIx64 ": signature 0x%016" PRIx64
				 " is not 0x%016" PRIx64,
				 region_offset, signature, TABLE_SIGNATURE);
	if (table->count > ENTRIES_MAX)
		return base_fail(err, -EBADMSG,
				 "VHDX metadata table at 0x%" PRIx64 ": %" PRIu32
				 " entries, at most %u fit",
				 region_offset, table->count, ENTRIES_MAX);
	table->entries = calloc(ENTRIES_MAX, sizeof(*table->entries));
	if (table->entries == NULL)
		return base_fail(err, -ENOMEM, "VHDX metadata table, %u entries", ENTRIES_MAX);
	code = entries_decode(&in, region_bytes, region_offset, table, err);
	if (code == 0)
		code = uniqueness_check(table, err);
	if (code == 0)
		code = presence_check(table, region_offset, err);
	return code;
}

int vhdx_metadata_needed(const uint8_t *bytes, uint32_t region_bytes, uint64_t region_offset,
			 uint32_t *ret_bytes, struct base_error *err)
{
	BASE_CLEANUP(table_fini) struct table table = { 0 };
	uint32_t needed = VHDX_METADATA_TABLE_BYTES;
	int code = table_decode(bytes, region_bytes, region_offset, &table, err);

	if (code < 0)
		return code;
	for (int i = 0; i < ITEMS; i++) {
		uint32_t end = table.items[i].offset_bytes + table.items[i].length_bytes;

		if (table.known[i] && end > needed)
			needed = end;
	}
	if (needed > VHDX_METADATA_REGION_BYTES_MAX)
		return base_fail(err, -EOPNOTSUPP,
				 "VHDX metadata at 0x%" PRIx64 ": known items end at %" PRIu32
				 ", at most %llu bytes are read",
				 region_offset, needed, VHDX_METADATA_REGION_BYTES_MAX);
	*ret_bytes = needed;
	return 0;
}

static int sector_decode(const uint8_t *bytes, const struct entry *entry, const char *name,
			 uint64_t region_offset, uint32_t *ret_bytes, struct base_error *err)
{
	uint32_t sector = base_get_le32(bytes + entry->offset_bytes);

	if (sector != 512 && sector != 4096)
		return base_fail(err, -EBADMSG,
				 "VHDX metadata at 0x%" PRIx64 ": %s %" PRIu32
				 " is not 512 or 4096",
				 region_offset + entry->offset_bytes, name, sector);
	*ret_bytes = sector;
	return 0;
}

static int parameters_decode(const uint8_t *item, uint64_t at, struct vhdx_metadata *meta,
			     struct base_error *err)
{
	uint32_t block = base_get_le32(item);
	uint32_t flags = base_get_le32(item + 4);

	if (block < VHDX_BLOCK_BYTES_MIN || block > VHDX_BLOCK_BYTES_MAX ||
	    (block & (block - 1)) != 0)
		return base_fail(err, -EBADMSG,
				 "VHDX metadata at 0x%" PRIx64 ": block size %" PRIu32
				 " is not a power of two from 1 MiB to 256 MiB",
				 at, block);
	if ((flags & ~(PARAMETER_LEAVE_ALLOCATED | PARAMETER_HAS_PARENT)) != 0)
		return base_fail(err, -EBADMSG,
				 "VHDX metadata at 0x%" PRIx64 ": file parameter flags 0x%" PRIx32
				 ", known are 0x3",
				 at, flags);
	meta->block_bytes = block;
	meta->has_parent = (flags & PARAMETER_HAS_PARENT) != 0;
	/* With a parent it has no meaning (section 2.6.2.1). */
	meta->leave_allocated = !meta->has_parent && (flags & PARAMETER_LEAVE_ALLOCATED) != 0;
	return 0;
}

static int disk_bytes_decode(const uint8_t *item, uint64_t at, struct vhdx_metadata *meta,
			     struct base_error *err)
{
	uint64_t size = base_get_le64(item);

	if (size == 0 || size > VHDX_DISK_BYTES_MAX || size % meta->logical_sector_bytes != 0)
		return base_fail(err, -EBADMSG,
				 "VHDX metadata at 0x%" PRIx64 ": virtual disk size %" PRIu64
				 " is not a multiple of %" PRIu32 ", above 0 and at most %llu",
				 at, size, meta->logical_sector_bytes, VHDX_DISK_BYTES_MAX);
	meta->disk_bytes = size;
	return 0;
}

static int locator_item_decode(const uint8_t *bytes, const struct table *table,
			       uint64_t region_offset, struct vhdx_metadata *meta,
			       struct base_error *err)
{
	const struct entry *item = &table->items[ITEM_LOCATOR];
	int code;

	if (!meta->has_parent)
		return 0;
	if (!table->known[ITEM_LOCATOR])
		return base_fail(err, -EBADMSG,
				 "VHDX metadata table at 0x%" PRIx64
				 ": the disk has a parent, and no item \"%s\"",
				 region_offset, rules[ITEM_LOCATOR].name);
	code = vhdx_locator_decode(bytes + item->offset_bytes, item->length_bytes, &meta->locator,
				   err);
	return code < 0 ? base_fail_within(err, code, "metadata at 0x%" PRIx64,
					   region_offset + item->offset_bytes)
			: 0;
}

static int items_decode(const uint8_t *bytes, const struct table *table, uint64_t region_offset,
			struct vhdx_metadata *meta, struct base_error *err)
{
	const struct entry *items = table->items;
	uint32_t at = items[ITEM_PARAMETERS].offset_bytes;
	int code = parameters_decode(bytes + at, region_offset + at, meta, err);

	if (code == 0)
		code = sector_decode(bytes, &items[ITEM_LOGICAL], rules[ITEM_LOGICAL].name,
				     region_offset, &meta->logical_sector_bytes, err);
	if (code == 0)
		code = sector_decode(bytes, &items[ITEM_PHYSICAL], rules[ITEM_PHYSICAL].name,
				     region_offset, &meta->physical_sector_bytes, err);
	at = items[ITEM_DISK_BYTES].offset_bytes;
	if (code == 0)
		code = disk_bytes_decode(bytes + at, region_offset + at, meta, err);
	if (code == 0)
		code = locator_item_decode(bytes, table, region_offset, meta, err);
	if (code < 0)
		return code;
	memcpy(meta->page83.bytes, bytes + items[ITEM_PAGE83].offset_bytes, 16);
	return 0;
}

int vhdx_metadata_decode(const uint8_t *bytes, size_t size_bytes, uint64_t region_offset,
			 struct vhdx_metadata *ret_meta, struct base_error *err)
{
	BASE_CLEANUP(table_fini) struct table table = { 0 };
	uint32_t end = VHDX_METADATA_TABLE_BYTES;
	int code;

	if (size_bytes < VHDX_METADATA_TABLE_BYTES)
		return base_fail(err, -EBADMSG,
				 "VHDX metadata table at 0x%" PRIx64 ": %zu bytes, %u are wanted",
				 region_offset, size_bytes, VHDX_METADATA_TABLE_BYTES);
	code = table_decode(bytes, UINT32_MAX, region_offset, &table, err);
	if (code < 0)
		return code;
	memset(ret_meta, 0, sizeof(*ret_meta));
	for (int i = 0; i < ITEMS; i++) {
		const struct entry *item = &table.items[i];

		if (table.known[i] && item->length_bytes > size_bytes - item->offset_bytes)
			return base_fail(err, -EBADMSG,
					 "VHDX metadata entry at 0x%" PRIx64 ": %s at 0x%" PRIx32
					 ", %" PRIu32 " bytes, ends past the region's %zu bytes",
					 item->at, rules[i].name, item->offset_bytes,
					 item->length_bytes, size_bytes);
	}
	for (uint32_t i = 0; i < table.count; i++) {
		uint32_t item_end = table.entries[i].offset_bytes + table.entries[i].length_bytes;

		end = item_end > end ? item_end : end;
	}
	code = items_decode(bytes, &table, region_offset, ret_meta, err);
	if (code < 0)
		return code;
	ret_meta->disk_bytes_at.offset_bytes = table.items[ITEM_DISK_BYTES].offset_bytes;
	ret_meta->disk_bytes_at.length_bytes = table.items[ITEM_DISK_BYTES].length_bytes;
	ret_meta->locator_at.offset_bytes = table.items[ITEM_LOCATOR].offset_bytes;
	ret_meta->locator_at.length_bytes = table.items[ITEM_LOCATOR].length_bytes;
	ret_meta->items_end_bytes = end;
	return 0;
}

static void entry_encode(uint8_t *to, uint16_t index, enum item item, uint32_t offset,
			 uint32_t length)
{
	uint8_t *entry = to + HEADER_BYTES + (size_t)index * ENTRY_BYTES;

	memcpy(entry, rules[item].id.bytes, 16);
	base_put_le32(entry + 16, offset);
	base_put_le32(entry + 20, length);
	base_put_le32(entry + 24, rules[item].flags);
}

int vhdx_metadata_encode(struct vhdx_metadata *meta, uint8_t *to, size_t capacity,
			 struct base_error *err)
{
	uint32_t offset = NEW_ITEMS_OFFSET;
	uint16_t count = 0;
	uint32_t flags = (meta->leave_allocated ? PARAMETER_LEAVE_ALLOCATED : 0) |
			 (meta->has_parent ? PARAMETER_HAS_PARENT : 0);

	if (capacity < VHDX_MIB)
		return base_fail(err, -ENOSPC, "VHDX metadata: %zu bytes of room, %llu are wanted",
				 capacity, VHDX_MIB);
	memset(to, 0, capacity);
	for (int i = 0; i < ITEM_LOCATOR; i++) {
		entry_encode(to, count++, (enum item)i, offset, rules[i].length_bytes);
		if (i == ITEM_DISK_BYTES)
			meta->disk_bytes_at = (struct vhdx_item_place){ offset, 8 };
		switch ((enum item)i) {
		case ITEM_PARAMETERS:
			base_put_le32(to + offset, meta->block_bytes);
			base_put_le32(to + offset + 4, flags);
			break;
		case ITEM_DISK_BYTES:
			base_put_le64(to + offset, meta->disk_bytes);
			break;
		case ITEM_PAGE83:
			memcpy(to + offset, meta->page83.bytes, 16);
			break;
		case ITEM_LOGICAL:
			base_put_le32(to + offset, meta->logical_sector_bytes);
			break;
		case ITEM_PHYSICAL:
			base_put_le32(to + offset, meta->physical_sector_bytes);
			break;
		case ITEM_LOCATOR:
		case ITEMS:
			base_bug("metadata item %d", i);
		}
		offset += rules[i].length_bytes;
	}
	meta->items_end_bytes = offset;
	if (meta->has_parent) {
		int length = vhdx_locator_encode(&meta->locator, to + NEW_LOCATOR_OFFSET,
						 VHDX_MIB - NEW_LOCATOR_OFFSET, err);

		if (length < 0)
			return length;
		entry_encode(to, count++, ITEM_LOCATOR, NEW_LOCATOR_OFFSET, (uint32_t)length);
		meta->locator_at = (struct vhdx_item_place){ NEW_LOCATOR_OFFSET, (uint32_t)length };
		meta->items_end_bytes = NEW_LOCATOR_OFFSET + (uint32_t)length;
	}
	base_put_le64(to, TABLE_SIGNATURE);
	base_put_le16(to + 10, count);
	return 0;
}
