/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The parent locator: a table of keys and values in UTF-16LE, section 2.6.2.6 of [MS-VHDX].
 */
#include <errno.h>
#include <inttypes.h>
#include <string.h>

#include "base/bytes.h"
#include "hypervisor/disk/utf16.h"
#include "hypervisor/disk/vhdx_format.h"

#define HEADER_BYTES 20U
#define ENTRY_BYTES  12U
#define KEY_BYTES    64U /* the longest known key has 19 characters */
#define KEY_LINKAGE  "parent_linkage"
#define KEY_LINKAGE2 "parent_linkage2"
#define KEY_RELATIVE "relative_path"
#define KEY_VOLUME   "volume_path"
#define KEY_ABSOLUTE "absolute_win32_path"
#define KEY_FORMAT   "godwit_parent_format"
#define KNOWN_KEYS   6U

static const struct disk_guid vhdx_type = { { 0xb7, 0xef, 0x4a, 0xb0, 0x9e, 0xd1, 0x81, 0x4a, 0xb7,
					      0x89, 0x25, 0xb8, 0xe9, 0x44, 0x59, 0x13 } };

struct entry {
	uint32_t key_offset;
	uint32_t value_offset;
	uint16_t key_bytes;
	uint16_t value_bytes;
};

static struct entry entry_at(const uint8_t *bytes, uint32_t index)
{
	struct base_reader in =
		base_reader_over(bytes + HEADER_BYTES + (size_t)index * ENTRY_BYTES, ENTRY_BYTES);
	struct entry entry;

	entry.key_offset = base_read_le32(&in);
	entry.value_offset = base_read_le32(&in);
	entry.key_bytes = base_read_le16(&in);
	entry.value_bytes = base_read_le16(&in);
	return entry;
}

static int string_check(uint32_t index, const char *what, uint32_t offset, uint16_t length,
			size_t size_bytes, struct base_error *err)
{
	if (length == 0 || length % 2 != 0)
		return base_fail(err, -EBADMSG,
				 "VHDX parent locator entry %" PRIu32
				 ": %s length %u is not even and above 0",
				 index, what, length);
	if (offset == 0 || offset > size_bytes || length > size_bytes - offset)
		return base_fail(err, -EBADMSG,
				 "VHDX parent locator entry %" PRIu32 ": %s at 0x%" PRIx32
				 ", %u bytes, is outside of the item's %zu bytes",
				 index, what, offset, length, size_bytes);
	return 0;
}

/* Entry @index is inside the item, and no entry before it has its key. */
static int entry_check(const uint8_t *bytes, size_t size_bytes, uint32_t index,
		       struct base_error *err)
{
	struct entry entry = entry_at(bytes, index);
	int code = string_check(index, "key", entry.key_offset, entry.key_bytes, size_bytes, err);

	if (code == 0)
		code = string_check(index, "value", entry.value_offset, entry.value_bytes,
				    size_bytes, err);
	if (code < 0)
		return code;
	for (uint32_t i = 0; i < index; i++) {
		struct entry other = entry_at(bytes, i);

		if (other.key_bytes == entry.key_bytes &&
		    memcmp(bytes + other.key_offset, bytes + entry.key_offset, entry.key_bytes) ==
			    0)
			return base_fail(err, -EBADMSG,
					 "VHDX parent locator: entries %" PRIu32 " and %" PRIu32
					 " have the same key",
					 i, index);
	}
	return 0;
}

static int text_decode(const uint8_t *bytes, const struct entry *entry, const char *key, char *to,
		       size_t capacity, struct base_error *err)
{
	int code =
		disk_utf16_to_utf8(bytes + entry->value_offset, entry->value_bytes, to, capacity);

	if (code == -ENOSPC)
		return base_fail(err, -EOPNOTSUPP,
				 "VHDX parent locator: value of \"%s\" has %u bytes, more than %zu "
				 "in UTF-8",
				 key, entry->value_bytes, capacity - 1);
	if (code < 0)
		return base_fail(err, -EBADMSG,
				 "VHDX parent locator: value of \"%s\" at 0x%" PRIx32
				 " is not UTF-16",
				 key, entry->value_offset);
	return 0;
}

static int guid_decode(const uint8_t *bytes, const struct entry *entry, const char *key,
		       struct disk_guid *ret_guid, struct base_error *err)
{
	char text[DISK_GUID_TEXT_BYTES];
	int length = disk_utf16_to_utf8(bytes + entry->value_offset, entry->value_bytes, text,
					sizeof(text));

	if (length < 0 || !disk_guid_parse(text, (size_t)length, ret_guid))
		return base_fail(err, -EBADMSG,
				 "VHDX parent locator: value of \"%s\" at 0x%" PRIx32
				 ", %u bytes, is not a GUID",
				 key, entry->value_offset, entry->value_bytes);
	return 0;
}

static int entry_decode(const uint8_t *bytes, uint32_t index, struct vhdx_locator *locator,
			struct base_error *err)
{
	struct entry entry = entry_at(bytes, index);
	char key[KEY_BYTES];
	int code = disk_utf16_to_utf8(bytes + entry.key_offset, entry.key_bytes, key, sizeof(key));

	if (code == -ENOSPC)
		return 0; /* too long to be a known one */
	if (code < 0)
		return base_fail(err, -EBADMSG,
				 "VHDX parent locator entry %" PRIu32 ": key at 0x%" PRIx32
				 " is not UTF-16",
				 index, entry.key_offset);
	if (strcmp(key, KEY_LINKAGE) == 0) {
		locator->linkage_present = true;
		return guid_decode(bytes, &entry, key, &locator->linkage, err);
	}
	if (strcmp(key, KEY_LINKAGE2) == 0) {
		code = guid_decode(bytes, &entry, key, &locator->linkage2, err);
		/* All zeros is how "none" is written by some. */
		locator->linkage2_present = code == 0 && !disk_guid_is_zero(&locator->linkage2);
		return code;
	}
	if (strcmp(key, KEY_RELATIVE) == 0)
		return text_decode(bytes, &entry, key, locator->relative, sizeof(locator->relative),
				   err);
	if (strcmp(key, KEY_VOLUME) == 0)
		return text_decode(bytes, &entry, key, locator->volume, sizeof(locator->volume),
				   err);
	if (strcmp(key, KEY_ABSOLUTE) == 0)
		return text_decode(bytes, &entry, key, locator->absolute, sizeof(locator->absolute),
				   err);
	if (strcmp(key, KEY_FORMAT) == 0)
		return text_decode(bytes, &entry, key, locator->format, sizeof(locator->format),
				   err);
	return 0; /* others may have keys of their own */
}

static int header_decode(const uint8_t *bytes, size_t size_bytes, uint32_t *ret_count,
			 struct base_error *err)
{
	char text[DISK_GUID_TEXT_BYTES];
	struct disk_guid type;
	uint32_t count;

	if (size_bytes < HEADER_BYTES)
		return base_fail(err, -EBADMSG,
				 "VHDX parent locator: %zu bytes, its header alone has %u",
				 size_bytes, HEADER_BYTES);
	memcpy(type.bytes, bytes, sizeof(type.bytes));
	if (!disk_guid_equal(&type, &vhdx_type)) {
		disk_guid_text(&type, text);
		return base_fail(err, -EOPNOTSUPP,
				 "VHDX parent locator: type %s is unknown; known is that of VHDX "
				 "parents",
				 text);
	}
	count = base_get_le16(bytes + 18);
	if (count > VHDX_LOCATOR_ENTRIES_MAX)
		return base_fail(err, -EOPNOTSUPP,
				 "VHDX parent locator: %" PRIu32 " entries, at most %d are read",
				 count, VHDX_LOCATOR_ENTRIES_MAX);
	if ((size_t)count * ENTRY_BYTES > size_bytes - HEADER_BYTES)
		return base_fail(err, -EBADMSG,
				 "VHDX parent locator: %" PRIu32
				 " entries do not fit into the item's %zu bytes",
				 count, size_bytes);
	*ret_count = count;
	return 0;
}

int vhdx_locator_decode(const uint8_t *bytes, size_t size_bytes, struct vhdx_locator *ret_locator,
			struct base_error *err)
{
	uint32_t count = 0;
	int code = header_decode(bytes, size_bytes, &count, err);

	if (code < 0)
		return code;
	memset(ret_locator, 0, sizeof(*ret_locator));
	for (uint32_t i = 0; i < count; i++) {
		code = entry_check(bytes, size_bytes, i, err);
		if (code == 0)
			code = entry_decode(bytes, i, ret_locator, err);
		if (code < 0)
			return code;
	}
	if (!ret_locator->linkage_present)
		return base_fail(err, -EBADMSG, "VHDX parent locator: no \"" KEY_LINKAGE "\"");
	if (ret_locator->relative[0] == '\0' && ret_locator->volume[0] == '\0' &&
	    ret_locator->absolute[0] == '\0')
		return base_fail(err, -EBADMSG,
				 "VHDX parent locator: no path (\"" KEY_RELATIVE "\", \"" KEY_VOLUME
				 "\" or \"" KEY_ABSOLUTE "\")");
	return 0;
}

/* What is being encoded: entries grow from the header on, strings behind all of them. */
struct encoding {
	uint8_t *to;
	size_t capacity;
	size_t strings_at; /* where the next string goes */
	uint32_t count;
};

static int string_encode(struct encoding *out, const char *text, uint16_t *ret_bytes,
			 struct base_error *err)
{
	int length = disk_utf16_from_utf8(text, out->to + out->strings_at,
					  out->capacity - out->strings_at);

	if (length == -ENOSPC || length > UINT16_MAX)
		return base_fail(err, -ENOSPC, "VHDX parent locator: no room for \"%s\"", text);
	if (length < 0)
		return base_fail(err, -EINVAL, "VHDX parent locator: \"%s\" is not UTF-8", text);
	out->strings_at += (size_t)length;
	*ret_bytes = (uint16_t)length;
	return 0;
}

static int pair_encode(struct encoding *out, const char *key, const char *value,
		       struct base_error *err)
{
	uint8_t *entry = out->to + HEADER_BYTES + (size_t)out->count * ENTRY_BYTES;
	uint16_t length = 0;
	int code;

	base_put_le32(entry, (uint32_t)out->strings_at);
	code = string_encode(out, key, &length, err);
	if (code < 0)
		return code;
	base_put_le16(entry + 8, length);
	base_put_le32(entry + 4, (uint32_t)out->strings_at);
	code = string_encode(out, value, &length, err);
	if (code < 0)
		return code;
	base_put_le16(entry + 10, length);
	out->count++;
	return 0;
}

int vhdx_locator_encode(const struct vhdx_locator *locator, uint8_t *to, size_t capacity,
			struct base_error *err)
{
	char linkage[DISK_GUID_TEXT_BYTES] = "";
	char linkage2[DISK_GUID_TEXT_BYTES] = "";
	const char *pairs[KNOWN_KEYS][2] = { { KEY_LINKAGE, linkage },
					     { KEY_LINKAGE2, linkage2 },
					     { KEY_RELATIVE, locator->relative },
					     { KEY_VOLUME, locator->volume },
					     { KEY_ABSOLUTE, locator->absolute },
					     { KEY_FORMAT, locator->format } };
	struct encoding out = { .to = to, .capacity = capacity, .strings_at = HEADER_BYTES };

	if (locator->linkage_present)
		disk_guid_text(&locator->linkage, linkage);
	if (locator->linkage2_present)
		disk_guid_text(&locator->linkage2, linkage2);
	for (uint32_t i = 0; i < KNOWN_KEYS; i++)
		out.strings_at += pairs[i][1][0] != '\0' ? ENTRY_BYTES : 0;
	if (capacity < out.strings_at || capacity > VHDX_METADATA_ITEM_BYTES_MAX)
		return base_fail(err, -ENOSPC,
				 "VHDX parent locator: %zu bytes of room, %zu are "
				 "the least and %u the most",
				 capacity, out.strings_at, VHDX_METADATA_ITEM_BYTES_MAX);
	for (uint32_t i = 0; i < KNOWN_KEYS; i++) {
		int code = 0;

		if (pairs[i][1][0] != '\0')
			code = pair_encode(&out, pairs[i][0], pairs[i][1], err);
		if (code < 0)
			return code;
	}
	memcpy(to, vhdx_type.bytes, sizeof(vhdx_type.bytes));
	base_put_le16(to + 16, 0);
	base_put_le16(to + 18, (uint16_t)out.count);
	return (int)out.strings_at;
}
