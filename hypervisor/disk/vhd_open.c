/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Reading an image's structures: footers, header, block table, the parent's name.  Blocking;
 * nothing is written but by vhd_footer_write().
 */
#include "hypervisor/disk/vhd_priv.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "base/bytes.h"
#include "base/cleanup.h"
#include "hypervisor/disk/flat_io.h"

#define LOOK_BYTES 65536U /* of a fixed disk's last data, for a footer that the end has lost */
#define BAT_PIECE  (1ULL << 20) /* read at a time */

void *vhd_buffer_new(size_t size_bytes)
{
	size_t whole = (size_bytes + VHD_SECTOR_BYTES - 1) & ~(size_t)(VHD_SECTOR_BYTES - 1);
	void *buffer = aligned_alloc(VHD_SECTOR_BYTES, whole);

	if (buffer != NULL)
		memset(buffer, 0, whole);
	return buffer;
}

int vhd_footer_write(struct vhd *vhd, uint64_t offset_bytes, struct base_error *err)
{
	struct store_file *file = vhd->image.file;
	struct store_facts facts;
	int code = 0;

	store_facts(file, &facts);
	memcpy(vhd->sector, vhd->footer_bytes, VHD_FOOTER_BYTES);
	if (offset_bytes + VHD_FOOTER_BYTES > facts.size_bytes)
		code = store_do(file, STORE_TRUNCATE, offset_bytes + VHD_FOOTER_BYTES, NULL, 0,
				err);
	if (code == 0)
		code = store_do(file, STORE_WRITE, offset_bytes, vhd->sector, VHD_FOOTER_BYTES,
				err);
	if (code == 0)
		code = store_do(file, STORE_FLUSH, 0, NULL, 0, err);
	store_facts(file, &facts);
	vhd->file_bytes = facts.size_bytes;
	return code;
}

/* --- footers --- */

struct footers {
	uint8_t *tail; /* bytes */
	uint8_t *copy;
	struct vhd_footer tail_footer;
	struct vhd_footer copy_footer;
	bool tail_good;
	bool copy_good;
};

static bool read_footer(struct vhd *vhd, uint64_t offset, uint8_t *bytes,
			struct vhd_footer *ret_footer, int *ret_code, struct base_error *err)
{
	*ret_code = store_do(vhd->image.file, STORE_READ, offset, bytes, VHD_FOOTER_BYTES, err);
	return *ret_code == 0 && vhd_footer_decode(bytes, false, ret_footer, err) == 0;
}

static void footer_take(struct vhd *vhd, const struct vhd_footer *footer, const uint8_t *bytes)
{
	vhd->footer = *footer;
	memcpy(vhd->footer_bytes, bytes, VHD_FOOTER_BYTES);
}

/* Where the last data of the file ends, in whole sectors. */
static int data_end(struct vhd *vhd, uint64_t *ret_end, struct base_error *err)
{
	struct store_range ranges[16];
	uint64_t at = 0;
	uint64_t end = 0;

	while (at < vhd->file_bytes) {
		struct store_request request = { .op = STORE_RANGES,
						 .offset_bytes = at,
						 .length_bytes = vhd->file_bytes - at,
						 .ranges = ranges,
						 .range_capacity = 16 };
		int code = flat_wait(&vhd->image, &request);

		if (code < 0 || request.range_count == 0)
			return base_fail(err, code < 0 ? code : -EIO, "'%s': ranges of the file",
					 store_name(vhd->image.file));
		for (uint32_t i = 0; i < request.range_count; i++) {
			at = ranges[i].offset_bytes + ranges[i].length_bytes;
			end = ranges[i].data ? at : end;
		}
	}
	*ret_end = (end + VHD_SECTOR_BYTES - 1) & ~(uint64_t)(VHD_SECTOR_BYTES - 1);
	return 0;
}

/*
 * Growing a fixed disk has extended the file, and the power failed before the new footer was
 * there.  Then the old one is the last data in the file, behind the disk that it tells of, and
 * after it everything is zero.  It counts more than a copy at 0: what is there is the
 * guest's, if the disk is fixed.
 */
static int fixed_footer_find(struct vhd *vhd, bool *ret_found, struct base_error *err)
{
	BASE_FREE uint8_t *look = vhd_buffer_new(LOOK_BYTES);
	struct vhd_footer footer;
	uint64_t at;
	uint64_t end = 0;
	uint64_t start;
	int code;

	*ret_found = false;
	if (look == NULL)
		return base_fail(err, -ENOMEM, "VHD footer");
	code = data_end(vhd, &end, err);
	if (code < 0 || end == 0)
		return code;
	start = end < LOOK_BYTES ? 0 : end - LOOK_BYTES;
	code = store_do(vhd->image.file, STORE_READ, start, look, end - start, err);
	if (code < 0)
		return code;
	for (end -= start; end > 0; end -= VHD_SECTOR_BYTES) {
		const uint8_t *sector = look + end - VHD_SECTOR_BYTES;

		if (base_is_zero(sector, VHD_SECTOR_BYTES))
			continue;
		at = start + end - VHD_SECTOR_BYTES;
		if (vhd_footer_decode(sector, false, &footer, NULL) < 0 ||
		    footer.type != VHD_TYPE_FIXED || footer.current_bytes > at)
			break;
		footer_take(vhd, &footer, sector);
		vhd->tail_offset = at;
		vhd->copy_good = true; /* it has none */
		*ret_found = true;
		break;
	}
	return 0;
}

/* Neither is good.  Two that are alike to the last byte are no torn write and no damage: their
 * writer computed the checksum wrong, or changed them without it.  Good for reading. */
static int both_bad(struct vhd *vhd, const struct footers *both, struct base_error *err)
{
	struct vhd_footer footer;

	if (vhd_is_footer(both->copy) && memcmp(both->copy, both->tail, VHD_FOOTER_BYTES) == 0) {
		int code = vhd_footer_decode(both->copy, true, &footer, err);

		if (code < 0 || footer.type == VHD_TYPE_FIXED)
			return code < 0 ? code
					: base_fail(err, -EBADMSG, "VHD footer: type 2 at 0");
		vhd->sums_wrong = true;
		vhd->copy_same = true;
		footer_take(vhd, &footer, both->copy);
		if (err != NULL)
			*err = (struct base_error){ 0 };
		return 0;
	}
	if (vhd_is_footer(both->copy) || vhd_is_footer(both->tail)) {
		const uint8_t *bytes = vhd_is_footer(both->tail) ? both->tail : both->copy;
		int code = vhd_footer_decode(bytes, false, &footer, err);

		return base_fail_within(err, code, "'%s', at 0x%" PRIx64,
					store_name(vhd->image.file),
					bytes == both->tail ? vhd->tail_offset : (uint64_t)0);
	}
	return base_fail(err, -EBADMSG,
			 "'%s': no VHD footer at its end (0x%" PRIx64 ") and no copy at 0",
			 store_name(vhd->image.file), vhd->tail_offset);
}

/* One disk, only that a resize has changed one of them. */
static bool same_disk(const struct vhd_footer *tail, const struct vhd_footer *copy)
{
	return disk_guid_equal(&tail->id, &copy->id) && tail->type == copy->type &&
	       tail->header_offset == copy->header_offset;
}

/* The footer at the end counts; without it the copy at 0.  See the docs. */
static int footers_choose(struct vhd *vhd, const struct footers *both, struct base_error *err)
{
	bool found = false;
	int code = 0;

	if (both->tail_good) {
		footer_take(vhd, &both->tail_footer, both->tail);
		return 0;
	}
	if (base_is_zero(both->tail, VHD_FOOTER_BYTES))
		code = fixed_footer_find(vhd, &found, err);
	if (code < 0 || found)
		return code;
	if (!both->copy_good)
		return both_bad(vhd, both, err);
	footer_take(vhd, &both->copy_footer, both->copy);
	return 0;
}

static int load_footers(struct vhd *vhd, struct base_error *err)
{
	BASE_FREE uint8_t *tail = vhd_buffer_new(VHD_FOOTER_BYTES);
	BASE_FREE uint8_t *copy = vhd_buffer_new(VHD_FOOTER_BYTES);
	struct footers both = { .tail = tail, .copy = copy };
	int code;

	if (tail == NULL || copy == NULL)
		return base_fail(err, -ENOMEM, "VHD footer");
	if (vhd->file_bytes < VHD_FOOTER_BYTES - 1)
		return base_fail(err, -EBADMSG, "'%s': %" PRIu64 " bytes: a VHD has 511 or more",
				 store_name(vhd->image.file), vhd->file_bytes);
	/* Before Virtual PC 2004 a footer had 511 bytes; reading past the end gives the zero. */
	vhd->tail_offset =
		vhd->file_bytes % VHD_SECTOR_BYTES == VHD_FOOTER_BYTES - 1
			? vhd->file_bytes - (VHD_FOOTER_BYTES - 1)
			: (vhd->file_bytes & ~(uint64_t)(VHD_SECTOR_BYTES - 1)) - VHD_FOOTER_BYTES;
	both.tail_good = read_footer(vhd, vhd->tail_offset, tail, &both.tail_footer, &code, err);
	if (code < 0)
		return code;
	both.copy_good = read_footer(vhd, 0, copy, &both.copy_footer, &code, err);
	if (code < 0)
		return code;
	/* Byte 0 of a fixed disk is the guest's: a footer there tells nothing about this file. */
	if ((both.tail_good && both.tail_footer.type == VHD_TYPE_FIXED) ||
	    (both.copy_good && both.copy_footer.type == VHD_TYPE_FIXED))
		both.copy_good = false;
	vhd->tail_good = both.tail_good;
	vhd->copy_good =
		both.copy_good || (both.tail_good && both.tail_footer.type == VHD_TYPE_FIXED);
	vhd->copy_same = memcmp(tail, copy, VHD_FOOTER_BYTES) == 0;
	vhd->twins = both.tail_good && both.copy_good && !vhd->copy_same &&
		     same_disk(&both.tail_footer, &both.copy_footer);
	code = footers_choose(vhd, &both, err);
	if (code == 0 && err != NULL)
		*err = (struct base_error){ 0 };
	return code;
}

/* --- header and table --- */

static bool apart(uint64_t a, uint64_t a_bytes, uint64_t b, uint64_t b_bytes)
{
	return a + a_bytes <= b || b + b_bytes <= a;
}

static uint64_t table_bytes(const struct vhd *vhd)
{
	return (uint64_t)vhd->entry_capacity * 4;
}

bool vhd_entry_valid(const struct vhd *vhd, uint32_t index)
{
	uint64_t offset = vhd_block_offset(vhd, index);
	uint64_t bytes = (uint64_t)vhd->bitmap_bytes + vhd->block_bytes;

	return offset >= VHD_FOOTER_BYTES && offset <= vhd->file_bytes &&
	       bytes <= vhd->file_bytes - offset &&
	       apart(offset, bytes, vhd->footer.header_offset, VHD_HEADER_BYTES) &&
	       apart(offset, bytes, vhd->header.bat_offset, table_bytes(vhd));
}

uint64_t vhd_tables_end(const struct vhd *vhd)
{
	uint64_t end = vhd->header.bat_offset + table_bytes(vhd);

	if (vhd->footer.header_offset + VHD_HEADER_BYTES > end)
		end = vhd->footer.header_offset + VHD_HEADER_BYTES;
	for (uint32_t i = 0; i < VHD_LOCATORS; i++) {
		const struct vhd_locator *locator = &vhd->header.locators[i];

		if (locator->code != 0 && locator->offset_bytes < vhd->file_bytes &&
		    locator->length_bytes <= vhd->file_bytes - locator->offset_bytes &&
		    locator->offset_bytes + locator->length_bytes > end)
			end = locator->offset_bytes + locator->length_bytes;
	}
	return end;
}

static int compare_entries(const void *left, const void *right)
{
	uint32_t a = *(const uint32_t *)left;
	uint32_t b = *(const uint32_t *)right;

	return a < b ? -1 : a > b;
}

int vhd_table_check(const struct vhd *vhd, struct base_error *err)
{
	uint32_t stride = (vhd->bitmap_bytes + vhd->block_bytes) / VHD_SECTOR_BYTES;
	BASE_FREE uint32_t *sorted = NULL;
	uint32_t used = 0;

	sorted = calloc(vhd->header.entries, sizeof(*sorted));
	if (sorted == NULL)
		return base_fail(err, -ENOMEM, "VHD block table, %" PRIu32 " entries",
				 vhd->header.entries);
	for (uint32_t i = 0; i < vhd->header.entries; i++) {
		if (vhd->bat[i] == VHD_BLOCK_ABSENT)
			continue;
		if (!vhd_entry_valid(vhd, i))
			return base_fail(
				err, -EBADMSG,
				"'%s': VHD block table: block %" PRIu32 " at sector 0x%" PRIx32
				": outside of the file (%" PRIu64 " bytes) or on a table",
				store_name(vhd->image.file), i, vhd->bat[i], vhd->file_bytes);
		sorted[used++] = vhd->bat[i];
	}
	qsort(sorted, used, sizeof(*sorted), compare_entries);
	for (uint32_t i = 1; i < used; i++)
		if (sorted[i] - sorted[i - 1] < stride)
			return base_fail(err, -EBADMSG,
					 "'%s': VHD block table: blocks at sectors 0x%" PRIx32
					 " and 0x%" PRIx32 " overlap",
					 store_name(vhd->image.file), sorted[i - 1], sorted[i]);
	return 0;
}

static int load_table(struct vhd *vhd, struct base_error *err)
{
	uint64_t bytes = ((uint64_t)vhd->header.entries * 4 + VHD_SECTOR_BYTES - 1) &
			 ~(uint64_t)(VHD_SECTOR_BYTES - 1);
	uint64_t size = vhd_size_of(&vhd->footer);

	if ((size + vhd->block_bytes - 1) / vhd->block_bytes > vhd->header.entries)
		return base_fail(err, -EBADMSG,
				 "'%s': VHD header: %" PRIu32 " blocks of %" PRIu32
				 " bytes: the disk has %" PRIu64 " bytes",
				 store_name(vhd->image.file), vhd->header.entries, vhd->block_bytes,
				 size);
	if (vhd->header.bat_offset > vhd->file_bytes ||
	    bytes > vhd->file_bytes - vhd->header.bat_offset ||
	    !apart(vhd->header.bat_offset, bytes, vhd->footer.header_offset, VHD_HEADER_BYTES))
		return base_fail(err, -EBADMSG,
				 "'%s': VHD block table: %" PRIu64 " bytes at 0x%" PRIx64
				 ": outside of the file (%" PRIu64 " bytes) or on the header",
				 store_name(vhd->image.file), bytes, vhd->header.bat_offset,
				 vhd->file_bytes);
	vhd->entry_capacity = (uint32_t)(bytes / 4);
	vhd->bat = vhd_buffer_new(bytes);
	vhd->full = calloc(1, vhd->entry_capacity / 8);
	vhd->ones = vhd_buffer_new(vhd->bitmap_bytes);
	if (vhd->bat == NULL || vhd->full == NULL || vhd->ones == NULL)
		return base_fail(err, -ENOMEM, "VHD block table, %" PRIu64 " bytes", bytes);
	memset(vhd->ones, 0xff, vhd->bitmap_bytes);
	for (uint64_t at = 0; at < bytes; at += BAT_PIECE) {
		uint64_t piece = bytes - at < BAT_PIECE ? bytes - at : BAT_PIECE;
		int code = store_do(vhd->image.file, STORE_READ, vhd->header.bat_offset + at,
				    (uint8_t *)vhd->bat + at, piece, err);

		if (code < 0)
			return code;
	}
	for (uint32_t i = 0; i < vhd->entry_capacity; i++)
		vhd->bat[i] = i < vhd->header.entries ? vhd_bat_get((const uint8_t *)vhd->bat, i)
						      : VHD_BLOCK_ABSENT;
	return 0;
}

static int load_header(struct vhd *vhd, struct base_error *err)
{
	BASE_FREE uint8_t *bytes = vhd_buffer_new(VHD_HEADER_BYTES);
	uint64_t offset = vhd->footer.header_offset;
	int code;

	if (bytes == NULL)
		return base_fail(err, -ENOMEM, "VHD header");
	if (offset > vhd->file_bytes || VHD_HEADER_BYTES > vhd->file_bytes - offset)
		return base_fail(err, -EBADMSG,
				 "'%s': VHD header at 0x%" PRIx64 ": the file has %" PRIu64
				 " bytes",
				 store_name(vhd->image.file), offset, vhd->file_bytes);
	code = store_do(vhd->image.file, STORE_READ, offset, bytes, VHD_HEADER_BYTES, err);
	if (code == 0)
		code = vhd_header_decode(bytes, true, &vhd->header, err);
	if (code < 0)
		return base_fail_within(err, code, "'%s', at 0x%" PRIx64,
					store_name(vhd->image.file), offset);
	memcpy(vhd->header_bytes, bytes, VHD_HEADER_BYTES);
	vhd->sums_wrong = vhd->sums_wrong || vhd->header.sum_wrong;
	vhd->block_bytes = vhd->header.block_bytes;
	vhd->bitmap_bytes = vhd_bitmap_bytes(vhd->block_bytes);
	return load_table(vhd, err);
}

/* --- the parent's name --- */

static bool name_opens(const struct vhd *vhd, const char *name)
{
	const struct store_open_options options = { .loop = vhd->image.loop,
						    .read_only = true,
						    .align_bytes = VHD_SECTOR_BYTES };
	struct store_file *file = NULL;

	if (store_open(vhd->image.store, name, &options, &file, NULL) < 0)
		return false;
	store_close(file);
	return true;
}

/* True when @path leads to a file.  The first that makes a name at all is kept for the error that
 * who opens the chain gives when none does. */
static bool try_path(struct vhd *vhd, const char *path)
{
	char name[STORE_NAME_BYTES];

	if (store_resolve(store_name(vhd->image.file), path, name, NULL) < 0)
		return false;
	if (vhd->image.parent_is.name[0] == '\0')
		memcpy(vhd->image.parent_is.name, name, sizeof(name));
	if (!name_opens(vhd, name))
		return false;
	memcpy(vhd->image.parent_is.name, name, sizeof(name));
	return true;
}

static int try_locator(struct vhd *vhd, const struct vhd_locator *locator, bool *ret_found,
		       struct base_error *err)
{
	uint8_t *bytes;
	char path[STORE_NAME_BYTES];
	int code;

	if (locator->length_bytes == 0 || locator->length_bytes > VHD_LOCATOR_MAX ||
	    locator->offset_bytes % VHD_SECTOR_BYTES != 0 ||
	    locator->offset_bytes > vhd->file_bytes ||
	    locator->length_bytes > vhd->file_bytes - locator->offset_bytes)
		return 0; /* one of several: not to be followed, not in the way either */
	bytes = vhd_buffer_new(VHD_LOCATOR_MAX);
	if (bytes == NULL)
		return base_fail(err, -ENOMEM, "VHD parent locator");
	code = store_do(vhd->image.file, STORE_READ, locator->offset_bytes, bytes,
			(locator->length_bytes + VHD_SECTOR_BYTES - 1) &
				~(uint64_t)(VHD_SECTOR_BYTES - 1),
			err);
	if (code == 0 && vhd_locator_decode(locator->code, bytes, locator->length_bytes, path,
					    sizeof(path), NULL) == 0)
		*ret_found = try_path(vhd, path);
	free(bytes);
	return code;
}

static int find_parent(struct vhd *vhd, struct base_error *err)
{
	static const uint32_t order[] = { VHD_CODE_W2RU, VHD_CODE_MACX, VHD_CODE_W2KU };
	struct image_parent *parent = &vhd->image.parent_is;
	char path[STORE_NAME_BYTES];
	bool found = false;

	*parent = (struct image_parent){ .format = DISK_VHD, .data_id = vhd->header.parent_id };
	for (size_t c = 0; c < sizeof(order) / sizeof(order[0]) && !found; c++)
		for (uint32_t i = 0; i < VHD_LOCATORS && !found; i++) {
			const struct vhd_locator *locator = &vhd->header.locators[i];
			int code = locator->code == order[c]
					   ? try_locator(vhd, locator, &found, err)
					   : 0;

			if (code < 0)
				return code;
		}
	if (!found && vhd_parent_name(&vhd->header, path, sizeof(path), NULL) == 0) {
		const char *slash = strrchr(path, '/');

		found = try_path(vhd, slash == NULL ? path : slash + 1);
	}
	if (parent->name[0] == '\0')
		return base_fail(err, -EBADMSG, "'%s': VHD header: no usable name of the parent",
				 store_name(vhd->image.file));
	return 0;
}

void vhd_unload(struct vhd *vhd)
{
	free(vhd->bat);
	free(vhd->full);
	free(vhd->ones);
	vhd->bat = NULL;
	vhd->full = NULL;
	vhd->ones = NULL;
	vhd->sums_wrong = false;
}

int vhd_load(struct vhd *vhd, struct base_error *err)
{
	struct image *image = &vhd->image;
	struct store_facts facts;
	int code;

	vhd_unload(vhd);
	store_facts(image->file, &facts);
	vhd->file_bytes = facts.size_bytes;
	code = load_footers(vhd, err);
	if (code < 0)
		return code;
	image->kind = vhd->footer.type == VHD_TYPE_FIXED     ? DISK_FIXED
		      : vhd->footer.type == VHD_TYPE_DYNAMIC ? DISK_DYNAMIC
							     : DISK_DIFFERENCING;
	image->geometry = (struct disk_geometry){ .size_bytes = vhd_size_of(&vhd->footer),
						  .logical_sector_bytes = VHD_SECTOR_BYTES,
						  .physical_sector_bytes = VHD_SECTOR_BYTES,
						  .unmap_granularity_bytes = FLAT_GRANULARITY_BYTES,
						  .id = vhd->footer.id };
	image->data_id = vhd->footer.id;
	if (image->kind == DISK_FIXED) {
		if (vhd->footer.current_bytes > vhd->tail_offset)
			return base_fail(err, -EBADMSG,
					 "'%s': VHD footer: a disk of %" PRIu64
					 " bytes: the footer is at %" PRIu64,
					 store_name(image->file), vhd->footer.current_bytes,
					 vhd->tail_offset);
		return 0;
	}
	code = load_header(vhd, err);
	if (code < 0)
		return code;
	image->geometry.unmap_granularity_bytes = vhd->block_bytes;
	return image->kind == DISK_DIFFERENCING ? find_parent(vhd, err) : 0;
}
