/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Reading what a VHDX file says of itself: identifier, headers, log, region table, metadata.  The
 * BAT is not read here, so that a disk of any size opens at once.
 *
 * Blocking; while nothing is in flight.
 *
 * Source: [MS-VHDX] v4.0 sections 2.2, 2.3.3 and 2.6.
 */
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "base/cleanup.h"
#include "hypervisor/disk/vhdx_priv.h"

#define BUFFER_ALIGN 4096U

static uint8_t *buffer_new(size_t size_bytes)
{
	return aligned_alloc(BUFFER_ALIGN,
			     (size_bytes + BUFFER_ALIGN - 1) / BUFFER_ALIGN * BUFFER_ALIGN);
}

int vhdx_read_meta(struct vhdx *vhdx, uint64_t offset_bytes, void *data, size_t length_bytes,
		   struct base_error *err)
{
	int code = store_do(vhdx->image.file, STORE_READ, offset_bytes, data, length_bytes, err);

	if (code < 0)
		return code;
	if (vhdx->overlay != NULL)
		vhdx_overlay_apply(vhdx->overlay, offset_bytes, data, length_bytes);
	return 0;
}

/* --- headers --- */

struct header_slot {
	uint8_t *bytes;
	struct vhdx_header header;
	int code;
	struct base_error error;
};

static int header_choose(const struct header_slot slots[2], uint32_t *ret_slot,
			 struct base_error *err)
{
	if (slots[0].code < 0 && slots[1].code < 0) {
		if (err != NULL)
			*err = slots[0].error;
		return base_fail_within(err, slots[0].code, "both VHDX headers are unusable");
	}
	if (slots[0].code < 0 || slots[1].code < 0) {
		*ret_slot = slots[0].code < 0 ? 1U : 0U;
		return 0;
	}
	if (slots[0].header.sequence == slots[1].header.sequence &&
	    memcmp(slots[0].bytes, slots[1].bytes, VHDX_HEADER_BYTES) != 0)
		return base_fail(err, -EBADMSG,
				 "VHDX headers at 0x%llx and 0x%llx: both have sequence number "
				 "%" PRIu64 ", and they differ",
				 VHDX_HEADER1_OFFSET, VHDX_HEADER2_OFFSET,
				 slots[0].header.sequence);
	*ret_slot = slots[1].header.sequence > slots[0].header.sequence ? 1U : 0U;
	return 0;
}

static int headers_load(struct vhdx *vhdx, uint8_t *buffer, struct base_error *err)
{
	static const uint64_t offsets[2] = { VHDX_HEADER1_OFFSET, VHDX_HEADER2_OFFSET };
	struct header_slot slots[2] = { { .bytes = buffer },
					{ .bytes = buffer + VHDX_HEADER_BYTES } };
	const struct vhdx_header *header;
	int code;

	for (int i = 0; i < 2; i++) {
		/* Never through the overlay: the log does not hold headers. */
		code = store_do(vhdx->image.file, STORE_READ, offsets[i], slots[i].bytes,
				VHDX_HEADER_BYTES, err);
		if (code < 0)
			return code;
		slots[i].code = vhdx_header_decode(slots[i].bytes, offsets[i], &slots[i].header,
						   &slots[i].error);
	}
	code = header_choose(slots, &vhdx->header_slot, err);
	if (code < 0)
		return code;
	header = &slots[vhdx->header_slot].header;
	if (header->log_offset > vhdx->file_bytes ||
	    header->log_bytes > vhdx->file_bytes - header->log_offset)
		return base_fail(err, -EBADMSG,
				 "VHDX header at 0x%" PRIx64 ": log at 0x%" PRIx64 ", %" PRIu32
				 " bytes, ends past the file's %" PRIu64 " bytes",
				 offsets[vhdx->header_slot], header->log_offset, header->log_bytes,
				 vhdx->file_bytes);
	vhdx->header = *header;
	return 0;
}

int vhdx_header_write(struct vhdx *vhdx, const struct vhdx_header *header, struct base_error *err)
{
	BASE_FREE uint8_t *bytes = buffer_new(VHDX_HEADER_BYTES);
	uint32_t slot = vhdx->header_slot == 0 ? 1U : 0U;
	struct vhdx_header next = *header;
	int code;

	if (bytes == NULL)
		return base_fail(err, -ENOMEM, "VHDX header, %u bytes", VHDX_HEADER_BYTES);
	if (vhdx->header.sequence == UINT64_MAX)
		return base_fail(err, -EBADMSG,
				 "VHDX header: sequence number %" PRIu64 " is the last, no header "
				 "can be newer",
				 vhdx->header.sequence);
	next.sequence = vhdx->header.sequence + 1;
	vhdx_header_encode(&next, bytes);
	code = store_do(vhdx->image.file, STORE_WRITE,
			slot == 0 ? VHDX_HEADER1_OFFSET : VHDX_HEADER2_OFFSET, bytes,
			VHDX_HEADER_BYTES, err);
	if (code == 0)
		code = store_do(vhdx->image.file, STORE_FLUSH, 0, NULL, 0, err);
	if (code < 0)
		return base_fail_within(err, code, "VHDX header");
	vhdx->header = next;
	vhdx->header_slot = slot;
	return 0;
}

/* --- regions --- */

static int log_beside_check(const struct vhdx_header *header, const struct vhdx_region *region,
			    const char *name, struct base_error *err)
{
	if (region->offset_bytes >= header->log_offset + header->log_bytes ||
	    header->log_offset >= region->offset_bytes + region->length_bytes)
		return 0;
	return base_fail(err, -EBADMSG,
			 "VHDX %s region at 0x%" PRIx64 ", %" PRIu32
			 " bytes, overlaps the log at 0x%" PRIx64 ", %" PRIu32 " bytes",
			 name, region->offset_bytes, region->length_bytes, header->log_offset,
			 header->log_bytes);
}

/* The first table that is whole counts; the second is a copy. */
static int region_tables_load(struct vhdx *vhdx, uint8_t *buffer, struct base_error *err)
{
	static const uint64_t offsets[2] = { VHDX_REGION1_OFFSET, VHDX_REGION2_OFFSET };
	struct base_error second = { 0 };
	int codes[2];

	for (int i = 0; i < 2; i++) {
		int code = vhdx_read_meta(vhdx, offsets[i], buffer, VHDX_REGION_TABLE_BYTES, err);

		if (code < 0)
			return code;
		codes[i] = vhdx_regions_decode(buffer, offsets[i], vhdx->file_bytes, &vhdx->regions,
					       i == 0 ? err : &second);
		if (codes[i] == 0 && i == 1 && err != NULL)
			*err = (struct base_error){ 0 }; /* the copy stands in */
		/* A table that is whole and asks for what we do not know is not damaged. */
		if (codes[i] == 0 || codes[i] == -EOPNOTSUPP)
			return codes[i];
	}
	return base_fail_within(err, codes[0], "both VHDX region tables are unusable");
}

static int regions_load(struct vhdx *vhdx, uint8_t *buffer, struct base_error *err)
{
	const struct vhdx_regions *regions = &vhdx->regions;
	int code = region_tables_load(vhdx, buffer, err);

	if (code == 0)
		code = log_beside_check(&vhdx->header, &regions->bat, "BAT", err);
	if (code == 0)
		code = log_beside_check(&vhdx->header, &regions->metadata, "metadata", err);
	for (uint32_t i = 0; code == 0 && i < regions->other_count; i++)
		code = log_beside_check(&vhdx->header, &regions->other[i], "optional", err);
	return code;
}

/* --- metadata --- */

static int metadata_load(struct vhdx *vhdx, uint8_t *table, struct base_error *err)
{
	const struct vhdx_region *region = &vhdx->regions.metadata;
	BASE_FREE uint8_t *bytes = NULL;
	uint32_t needed = 0;
	size_t read_bytes;
	int code =
		vhdx_read_meta(vhdx, region->offset_bytes, table, VHDX_METADATA_TABLE_BYTES, err);

	if (code == 0)
		code = vhdx_metadata_needed(table, region->length_bytes, region->offset_bytes,
					    &needed, err);
	if (code < 0)
		return code;
	/* The region ends at a MiB, so that rounding up stays inside. */
	read_bytes = ((size_t)needed + BUFFER_ALIGN - 1) / BUFFER_ALIGN * BUFFER_ALIGN;
	bytes = buffer_new(read_bytes);
	if (bytes == NULL)
		return base_fail(err, -ENOMEM, "VHDX metadata, %zu bytes", read_bytes);
	code = vhdx_read_meta(vhdx, region->offset_bytes, bytes, read_bytes, err);
	if (code == 0)
		code = vhdx_metadata_decode(bytes, read_bytes, region->offset_bytes, &vhdx->meta,
					    err);
	return code;
}

static int shape_load(struct vhdx *vhdx, struct base_error *err)
{
	const struct vhdx_metadata *meta = &vhdx->meta;
	struct vhdx_bat_shape shape = vhdx_bat_shape(meta->disk_bytes, meta->block_bytes,
						     meta->logical_sector_bytes, meta->has_parent);

	if (shape.bat_bytes > vhdx->regions.bat.length_bytes)
		return base_fail(err, -EBADMSG,
				 "VHDX BAT region at 0x%" PRIx64 ": %" PRIu32
				 " bytes, a disk of %" PRIu64 " bytes in blocks of %" PRIu32
				 " wants %" PRIu64,
				 vhdx->regions.bat.offset_bytes, vhdx->regions.bat.length_bytes,
				 meta->disk_bytes, meta->block_bytes, shape.bat_bytes);
	vhdx->chunk_ratio = shape.chunk_ratio;
	vhdx->block_count = shape.block_count;
	vhdx->bat_entry_count = shape.entry_count;
	vhdx->block_bytes = meta->block_bytes;
	return 0;
}

/* --- the parent --- */

/* As a store writes it: slashes, and nothing of "\\?\", which only tells Windows to look no
 * further into the path. */
static void path_clean(const char *recorded, char to[VHDX_LOCATOR_TEXT_BYTES])
{
	const char *from = recorded + (strncmp(recorded, "\\\\?\\", 4) == 0 ? 4 : 0);
	size_t i;

	for (i = 0; from[i] != '\0'; i++) {
		to[i] = from[i];
		if (to[i] == '\\')
			to[i] = '/';
	}
	to[i] = '\0';
}

/* A drive, a volume or a share of a Windows host: no folder of a store stands for it. */
static bool path_is_foreign(const char *path)
{
	char letter = (char)(path[0] | 0x20);

	return (letter >= 'a' && letter <= 'z' && path[1] == ':') ||
	       strncasecmp(path, "Volume{", 7) == 0 || strncasecmp(path, "UNC/", 4) == 0;
}

/* What is there and does not open (no permission, no memory) counts as found: no other file may
 * stand in for it, and who opens the chain says what is wrong. */
static bool parent_exists(const struct vhdx *vhdx, const char *name)
{
	const struct store_open_options options = { .loop = vhdx->image.loop,
						    .read_only = true,
						    .align_bytes = 512 };
	struct store_file *file = NULL;
	int code = store_open(vhdx->image.store, name, &options, &file, NULL);

	if (code == 0)
		store_close(file);
	return code != -ENOENT && code != -ENOTDIR && code != -EISDIR && code != -EINVAL &&
	       code != -ELOOP;
}

/* True when @path, from where the child is, leads to a file that is not the child itself. */
static bool parent_try(const struct vhdx *vhdx, const char *path, char ret_name[STORE_NAME_BYTES])
{
	const char *child = store_name(vhdx->image.file);

	return store_resolve(child, path, ret_name, NULL) == 0 && strcmp(ret_name, child) != 0 &&
	       parent_exists(vhdx, ret_name);
}

/*
 * The first of the paths that leads to a file; of those that only a Windows host knows the last
 * component, beside the child, after all others.  Who opens the parent compares its identity.  A
 * raw parent has none to compare: for that nothing is guessed.
 */
static bool parent_find(const struct vhdx *vhdx, char ret_name[STORE_NAME_BYTES])
{
	const struct vhdx_locator *locator = &vhdx->meta.locator;
	const char *const recorded[] = { locator->relative, locator->volume, locator->absolute };
	bool guess = strcmp(locator->format, "raw") != 0;
	char path[VHDX_LOCATOR_TEXT_BYTES];

	for (int i = 0; i < 3; i++) {
		path_clean(recorded[i], path);
		if (path[0] != '\0' && !path_is_foreign(path) && parent_try(vhdx, path, ret_name))
			return true;
	}
	for (int i = 0; guess && i < 3; i++) {
		const char *last;

		path_clean(recorded[i], path);
		last = strrchr(path, '/');
		if (last != NULL && path_is_foreign(path) && parent_try(vhdx, last + 1, ret_name))
			return true;
	}
	return false;
}

/*
 * Where the parent is in the store: where the relative path, the volume's or the absolute one
 * leads, in the specification's order.  When none leads to a file, the first that is recorded is
 * kept, so that who fails to open it can say which path that was (and that the file can be given
 * another parent).
 */
static int parent_name(const struct vhdx *vhdx, char ret_name[STORE_NAME_BYTES],
		       struct base_error *err)
{
	const struct vhdx_locator *locator = &vhdx->meta.locator;
	const char *recorded = locator->relative[0] != '\0' ? locator->relative
			       : locator->volume[0] != '\0' ? locator->volume
							    : locator->absolute;
	char path[VHDX_LOCATOR_TEXT_BYTES];

	if (parent_find(vhdx, ret_name))
		return 0;
	if (strlen(recorded) >= STORE_NAME_BYTES)
		return base_fail(err, -ENAMETOOLONG,
				 "VHDX parent locator: path of %zu bytes, at most %d are allowed",
				 strlen(recorded), STORE_NAME_BYTES - 1);
	if (recorded == locator->relative) {
		path_clean(recorded, path);
		if (store_resolve(store_name(vhdx->image.file), path, ret_name, NULL) == 0)
			return 0;
	}
	memcpy(ret_name, recorded, strlen(recorded) + 1);
	return 0;
}

static int parent_format(const char *text, enum disk_format *ret_format, struct base_error *err)
{
	if (text[0] == '\0')
		*ret_format = DISK_VHDX;
	else if (strcmp(text, "raw") == 0)
		*ret_format = DISK_RAW;
	else if (strcmp(text, "vhd") == 0)
		*ret_format = DISK_VHD;
	else
		return base_fail(err, -EOPNOTSUPP,
				 "VHDX parent locator: parent of format '%s'; known are raw, vhd "
				 "and vhdx",
				 text);
	return 0;
}

static int parent_load(struct vhdx *vhdx, struct base_error *err)
{
	struct image_parent *parent = &vhdx->image.parent_is;
	const struct vhdx_locator *locator = &vhdx->meta.locator;
	int code;

	memset(parent, 0, sizeof(*parent));
	if (!vhdx->meta.has_parent)
		return 0;
	code = parent_format(locator->format, &parent->format, err);
	if (code == 0)
		code = parent_name(vhdx, parent->name, err);
	if (code < 0)
		return code;
	parent->data_id = locator->linkage;
	if (locator->linkage2_present)
		parent->data_id2 = locator->linkage2;
	return 0;
}

/* --- all of it --- */

static void image_fill(struct vhdx *vhdx)
{
	const struct vhdx_metadata *meta = &vhdx->meta;
	struct image *image = &vhdx->image;

	image->geometry = (struct disk_geometry){
		.size_bytes = meta->disk_bytes,
		.logical_sector_bytes = meta->logical_sector_bytes,
		.physical_sector_bytes = meta->physical_sector_bytes,
		.unmap_granularity_bytes = meta->block_bytes,
		.id = meta->page83,
	};
	image->kind = meta->has_parent        ? DISK_DIFFERENCING
		      : meta->leave_allocated ? DISK_FIXED
					      : DISK_DYNAMIC;
	image->data_id = vhdx->header.data_write;
}

static int identifier_check(struct vhdx *vhdx, uint8_t *buffer, struct base_error *err)
{
	struct store_facts facts;
	int code;

	store_facts(vhdx->image.file, &facts);
	vhdx->file_bytes = facts.size_bytes;
	code = store_do(vhdx->image.file, STORE_READ, 0, buffer, VHDX_HEADER_BYTES, err);
	if (code == 0)
		code = vhdx_identifier_decode(buffer, VHDX_HEADER_BYTES, NULL, 0, err);
	if (code < 0)
		return code;
	if (vhdx->file_bytes < VHDX_MIB)
		return base_fail(err, -EBADMSG,
				 "VHDX file of %" PRIu64 " bytes: its headers alone take %llu",
				 vhdx->file_bytes, VHDX_MIB);
	return 0;
}

int vhdx_load(struct vhdx *vhdx, struct base_error *err)
{
	BASE_FREE uint8_t *buffer = buffer_new(VHDX_REGION_TABLE_BYTES);
	int code;

	if (buffer == NULL)
		return base_fail(err, -ENOMEM, "VHDX tables, %u bytes", VHDX_REGION_TABLE_BYTES);
	vhdx_overlay_free(vhdx->overlay);
	vhdx->overlay = NULL;
	code = identifier_check(vhdx, buffer, err);
	if (code == 0)
		code = headers_load(vhdx, buffer, err);
	if (code == 0)
		code = vhdx_overlay_load(vhdx->image.file, &vhdx->header, vhdx->file_bytes,
					 &vhdx->overlay, err);
	if (code == 0 && vhdx->overlay != NULL)
		vhdx->file_bytes = vhdx_overlay_file_bytes(vhdx->overlay);
	if (code == 0)
		code = regions_load(vhdx, buffer, err);
	if (code == 0)
		code = metadata_load(vhdx, buffer, err);
	if (code == 0)
		code = shape_load(vhdx, err);
	if (code == 0)
		code = parent_load(vhdx, err);
	if (code < 0)
		return code;
	image_fill(vhdx);
	return 0;
}
