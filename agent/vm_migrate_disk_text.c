/* SPDX-License-Identifier: Apache-2.0 */
/* What a plan says of an image: JSON of one line, read strictly because a peer sends it. */
#include <errno.h>
#include <inttypes.h>
#include <jansson.h>
#include <stdlib.h>
#include <string.h>

#include "agent/vm_migrate_disk.h"

#define LINE_MAX (MIG_DESCRIPTION_BYTES - 1)

/* --- encode --- */

static json_t *guid_json(const struct disk_guid *guid)
{
	char text[DISK_GUID_TEXT_BYTES];

	disk_guid_text(guid, text);
	return json_string(text);
}

static json_t *parent_json(const struct vm_image *image)
{
	const struct disk_parent_is *is = &image->parent_is;

	if (image->parent[0] == '\0')
		return json_null();
	return json_pack("{s:s, s:s, s:I, s:I, s:I, s:o, s:o}", "name", image->parent, "format",
			 disk_format_name(image->parent_format), "bytes",
			 (json_int_t)is->size_bytes, "logical_sector_bytes",
			 (json_int_t)is->logical_sector_bytes, "physical_sector_bytes",
			 (json_int_t)is->physical_sector_bytes, "id", guid_json(&is->id), "data_id",
			 guid_json(&is->data_id));
}

static json_t *top_json(const struct vm_image *image)
{
	if (!image->is_top)
		return json_null();
	return json_pack("{s:s, s:I, s:I, s:I, s:o, s:o}", "kind", disk_kind_name(image->kind),
			 "block_bytes", (json_int_t)image->block_bytes, "logical_sector_bytes",
			 (json_int_t)image->logical_sector_bytes, "physical_sector_bytes",
			 (json_int_t)image->physical_sector_bytes, "id", guid_json(&image->id),
			 "parent", parent_json(image));
}

char *vm_image_encode(const struct vm_image *image)
{
	json_auto_t *root =
		json_pack("{s:s, s:s, s:I, s:I, s:o, s:s, s:o}", "name", image->name, "format",
			  disk_format_name(image->format), "bytes", (json_int_t)image->bytes,
			  "need_bytes", (json_int_t)image->need_bytes, "data_id",
			  guid_json(&image->data_id), "next", image->next, "top", top_json(image));

	return root != NULL ? json_dumps(root, JSON_COMPACT) : NULL;
}

/* --- decode --- */

static int wrong(const char *key, const char *expected, struct base_error *err)
{
	return base_fail(err, -EBADMSG, "image of the plan: key '%s': expected %s", key, expected);
}

/* A plain file name, which a store puts nothing of its own beside. */
static bool is_name(const char *text)
{
	size_t length = strlen(text);

	if (length == 0 || length >= VM_IMAGE_NAME_BYTES || text[0] == '.')
		return false;
	for (size_t i = 0; i < length; i++)
		if ((unsigned char)text[i] < ' ' || text[i] == 0x7f || text[i] == '/' ||
		    text[i] == '\\')
			return false;
	return true;
}

static int take_name(const char *key, const char *text, bool may_be_none, char *to,
		     struct base_error *err)
{
	if (!(may_be_none && text[0] == '\0') && !is_name(text))
		return wrong(key, "a plain file name of at most 200 bytes", err);
	memcpy(to, text, strlen(text) + 1);
	return 0;
}

static int take_guid(const char *key, const char *text, struct disk_guid *to,
		     struct base_error *err)
{
	char again[DISK_GUID_TEXT_BYTES];

	if (!disk_guid_parse(text, strlen(text), to))
		return wrong(key, "a GUID", err);
	disk_guid_text(to, again);
	return strcmp(again, text) == 0 ? 0 : wrong(key, "a GUID in braces, lower case", err);
}

static int take_format(const char *key, const char *text, enum disk_format *to,
		       struct base_error *err)
{
	for (int format = DISK_RAW; format < DISK_FORMATS; format++)
		if (strcmp(text, disk_format_name((enum disk_format)format)) == 0) {
			*to = (enum disk_format)format;
			return 0;
		}
	return wrong(key, "raw, vhd or vhdx", err);
}

static int take_kind(const char *text, enum disk_kind *to, struct base_error *err)
{
	for (int kind = DISK_FIXED; kind < DISK_KINDS; kind++)
		if (strcmp(text, disk_kind_name((enum disk_kind)kind)) == 0) {
			*to = (enum disk_kind)kind;
			return 0;
		}
	return wrong("kind", "fixed, dynamic or differencing", err);
}

static int take_size(const char *key, json_int_t value, uint64_t *to, struct base_error *err)
{
	if (value < 0 || (uint64_t)value > VM_IMAGE_BYTES_MAX)
		return wrong(key, "bytes, 0 to 64 TiB", err);
	*to = (uint64_t)value;
	return 0;
}

static int take_sector(const char *key, json_int_t value, uint32_t *to, struct base_error *err)
{
	if (value != 512 && value != 4096)
		return wrong(key, "512 or 4096", err);
	*to = (uint32_t)value;
	return 0;
}

/* @root's members are @format's, no more and no fewer. */
static int unpack_failed(const json_error_t *why, struct base_error *err)
{
	char text[64];
	size_t used = 0;

	/* It may show bytes of the peer's. */
	for (; why->text[used] != '\0' && used < sizeof(text) - 1; used++) {
		text[used] = '?';
		if (why->text[used] >= ' ' && why->text[used] < 0x7f)
			text[used] = why->text[used];
	}
	text[used] = '\0';
	return base_fail(err, -EBADMSG, "image of the plan: %s", text);
}

static int take_parent(json_t *root, struct vm_image *image, struct base_error *err)
{
	struct disk_parent_is *is = &image->parent_is;
	const char *name = NULL;
	const char *format = NULL;
	const char *id = NULL;
	const char *data_id = NULL;
	json_int_t bytes = 0;
	json_int_t logical = 0;
	json_int_t physical = 0;
	json_error_t why;
	int code = 0;

	if (json_is_null(root))
		return 0;
	if (json_unpack_ex(root, &why, JSON_STRICT, "{s:s, s:s, s:I, s:I, s:I, s:s, s:s}", "name",
			   &name, "format", &format, "bytes", &bytes, "logical_sector_bytes",
			   &logical, "physical_sector_bytes", &physical, "id", &id, "data_id",
			   &data_id) < 0)
		return unpack_failed(&why, err);
	code = take_name("parent.name", name, false, image->parent, err);
	if (code == 0)
		code = take_format("parent.format", format, &image->parent_format, err);
	if (code == 0)
		code = take_size("parent.bytes", bytes, &is->size_bytes, err);
	if (code == 0)
		code = take_sector("parent.logical_sector_bytes", logical,
				   &is->logical_sector_bytes, err);
	if (code == 0)
		code = take_sector("parent.physical_sector_bytes", physical,
				   &is->physical_sector_bytes, err);
	if (code == 0)
		code = take_guid("parent.id", id, &is->id, err);
	return code == 0 ? take_guid("parent.data_id", data_id, &is->data_id, err) : code;
}

static int take_top(json_t *root, struct vm_image *image, struct base_error *err)
{
	const char *kind = NULL;
	const char *id = NULL;
	json_int_t block = 0;
	json_int_t logical = 0;
	json_int_t physical = 0;
	json_t *parent = NULL;
	json_error_t why;
	int code = 0;

	image->is_top = !json_is_null(root);
	if (!image->is_top)
		return 0;
	if (json_unpack_ex(root, &why, JSON_STRICT, "{s:s, s:I, s:I, s:I, s:s, s:o}", "kind", &kind,
			   "block_bytes", &block, "logical_sector_bytes", &logical,
			   "physical_sector_bytes", &physical, "id", &id, "parent", &parent) < 0)
		return unpack_failed(&why, err);
	code = take_kind(kind, &image->kind, err);
	if (code == 0 && (block < 0 || block > UINT32_MAX))
		code = wrong("block_bytes", "0 to 4294967295", err);
	image->block_bytes = (uint32_t)block;
	if (code == 0)
		code = take_sector("logical_sector_bytes", logical, &image->logical_sector_bytes,
				   err);
	if (code == 0)
		code = take_sector("physical_sector_bytes", physical, &image->physical_sector_bytes,
				   err);
	if (code == 0)
		code = take_guid("id", id, &image->id, err);
	if (code == 0)
		code = take_parent(parent, image, err);
	if (code == 0 && (image->kind == DISK_DIFFERENCING) != (image->parent[0] != '\0'))
		code = wrong("parent", "one for a differencing image, and for no other", err);
	return code;
}

int vm_image_decode(const char *text, struct vm_image *ret_image, struct base_error *err)
{
	json_error_t why;
	json_auto_t *root =
		json_loadb(text, strnlen(text, LINE_MAX + 1), JSON_REJECT_DUPLICATES, &why);
	struct vm_image image = { .format = DISK_FORMAT_INVALID };
	const char *name = NULL;
	const char *format = NULL;
	const char *data_id = NULL;
	const char *next = NULL;
	json_int_t bytes = 0;
	json_int_t need = 0;
	json_t *top = NULL;
	int code = 0;

	if (root == NULL ||
	    json_unpack_ex(root, &why, JSON_STRICT, "{s:s, s:s, s:I, s:I, s:s, s:s, s:o}", "name",
			   &name, "format", &format, "bytes", &bytes, "need_bytes", &need,
			   "data_id", &data_id, "next", &next, "top", &top) < 0)
		return unpack_failed(&why, err);
	code = take_name("name", name, false, image.name, err);
	if (code == 0)
		code = take_format("format", format, &image.format, err);
	if (code == 0)
		code = take_size("bytes", bytes, &image.bytes, err);
	if (code == 0)
		code = take_size("need_bytes", need, &image.need_bytes, err);
	if (code == 0)
		code = take_guid("data_id", data_id, &image.data_id, err);
	if (code == 0)
		code = take_name("next", next, true, image.next, err);
	if (code == 0)
		code = take_top(top, &image, err);
	if (code == 0 && image.is_top && (image.bytes == 0 || image.bytes % MIG_SECTOR_BYTES != 0))
		code = wrong("bytes", "whole sectors of a disk", err);
	if (code == 0)
		*ret_image = image;
	return code;
}
