/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <inttypes.h>
#include <string.h>

#include "base/bytes.h"
#include "base/crc32c.h"
#include "hypervisor/disk/vhdx_format.h"

#define TABLE_SIGNATURE 0x69676572U /* "regi" */
#define FLAG_REQUIRED   1U
#define ENTRIES_OFFSET  16U
#define ENTRY_BYTES     32U

static const struct disk_guid bat_id = { { 0x66, 0x77, 0xc2, 0x2d, 0x23, 0xf6, 0x00, 0x42, 0x9d,
					   0x64, 0x11, 0x5e, 0x9b, 0xfd, 0x4a, 0x08 } };
static const struct disk_guid metadata_id = { { 0x06, 0xa2, 0x7c, 0x8b, 0x90, 0x47, 0x9a, 0x4b,
						0xb8, 0xfe, 0x57, 0x5f, 0x05, 0x0f, 0x88, 0x6e } };

static uint32_t table_crc(const uint8_t bytes[VHDX_REGION_TABLE_BYTES])
{
	static const uint8_t no_crc[4] = { 0 };
	uint32_t crc = base_crc32c(0, bytes, 4);

	crc = base_crc32c(crc, no_crc, sizeof(no_crc));
	return base_crc32c(crc, bytes + 8, VHDX_REGION_TABLE_BYTES - 8);
}

static int region_check(const struct vhdx_region *region, uint64_t entry_offset,
			uint64_t file_bytes, struct base_error *err)
{
	char id[DISK_GUID_TEXT_BYTES];

	disk_guid_text(&region->id, id);
	if (region->offset_bytes < VHDX_MIB || region->offset_bytes % VHDX_MIB != 0)
		return base_fail(err, -EBADMSG,
				 "VHDX region entry at 0x%" PRIx64 ": offset 0x%" PRIx64
				 " of region %s is not a multiple of 1 MiB, at least 1 MiB",
				 entry_offset, region->offset_bytes, id);
	if (region->length_bytes == 0 || region->length_bytes % VHDX_MIB != 0)
		return base_fail(err, -EBADMSG,
				 "VHDX region entry at 0x%" PRIx64 ": length %" PRIu32
				 " of region %s is not a multiple of 1 MiB, at least 1 MiB",
				 entry_offset, region->length_bytes, id);
	if (region->offset_bytes > file_bytes ||
	    region->length_bytes > file_bytes - region->offset_bytes)
		return base_fail(err, -EBADMSG,
				 "VHDX region entry at 0x%" PRIx64 ": region %s at 0x%" PRIx64
				 ", %" PRIu32 " bytes, ends past the file's %" PRIu64 " bytes",
				 entry_offset, id, region->offset_bytes, region->length_bytes,
				 file_bytes);
	return 0;
}

/* @a was accepted before @b; lengths were checked against the file, so no sum wraps. */
static int pair_check(const struct vhdx_region *a, const struct vhdx_region *b,
		      uint64_t entry_offset, struct base_error *err)
{
	char id_a[DISK_GUID_TEXT_BYTES];
	char id_b[DISK_GUID_TEXT_BYTES];

	if (a->length_bytes == 0) /* not seen yet */
		return 0;
	disk_guid_text(&a->id, id_a);
	disk_guid_text(&b->id, id_b);
	if (disk_guid_equal(&a->id, &b->id))
		return base_fail(err, -EBADMSG,
				 "VHDX region entry at 0x%" PRIx64
				 ": region %s is there twice, at 0x%" PRIx64 " and 0x%" PRIx64,
				 entry_offset, id_a, a->offset_bytes, b->offset_bytes);
	if (a->offset_bytes < b->offset_bytes + b->length_bytes &&
	    b->offset_bytes < a->offset_bytes + a->length_bytes)
		return base_fail(err, -EBADMSG,
				 "VHDX region entry at 0x%" PRIx64 ": region %s at 0x%" PRIx64
				 ", %" PRIu32 " bytes, overlaps region %s at 0x%" PRIx64,
				 entry_offset, id_b, b->offset_bytes, b->length_bytes, id_a,
				 a->offset_bytes);
	return 0;
}

/* Put @region where it belongs.  What was accepted before does not overlap it. */
static int region_add(struct vhdx_regions *regions, const struct vhdx_region *region,
		      uint64_t entry_offset, struct base_error *err)
{
	char id[DISK_GUID_TEXT_BYTES];
	int code = pair_check(&regions->bat, region, entry_offset, err);

	if (code == 0)
		code = pair_check(&regions->metadata, region, entry_offset, err);
	for (uint32_t i = 0; code == 0 && i < regions->other_count; i++)
		code = pair_check(&regions->other[i], region, entry_offset, err);
	if (code < 0)
		return code;

	if (disk_guid_equal(&region->id, &bat_id)) {
		regions->bat = *region;
		return 0;
	}
	if (disk_guid_equal(&region->id, &metadata_id)) {
		regions->metadata = *region;
		return 0;
	}
	disk_guid_text(&region->id, id);
	if (region->required)
		return base_fail(err, -EOPNOTSUPP,
				 "VHDX region entry at 0x%" PRIx64
				 ": region %s is required and unknown",
				 entry_offset, id);
	if (regions->other_count == VHDX_REGIONS_KEPT)
		return base_fail(err, -EOPNOTSUPP,
				 "VHDX region entry at 0x%" PRIx64
				 ": more than %u optional unknown regions, the next is %s",
				 entry_offset, VHDX_REGIONS_KEPT, id);
	regions->other[regions->other_count++] = *region;
	return 0;
}

static int entries_decode(struct base_reader *in, uint32_t count, uint64_t table_offset,
			  uint64_t file_bytes, struct vhdx_regions *regions, struct base_error *err)
{
	for (uint32_t i = 0; i < count; i++) {
		uint64_t entry_offset = table_offset + in->offset_bytes;
		struct vhdx_region region = { 0 };
		uint32_t flags;
		int code;

		base_read_bytes(in, region.id.bytes, 16);
		region.offset_bytes = base_read_le64(in);
		region.length_bytes = base_read_le32(in);
		flags = base_read_le32(in);
		region.required = (flags & FLAG_REQUIRED) != 0;
		if ((flags & ~FLAG_REQUIRED) != 0)
			return base_fail(err, -EBADMSG,
					 "VHDX region entry at 0x%" PRIx64 ": flags 0x%" PRIx32
					 ", known is 0x%x",
					 entry_offset, flags, FLAG_REQUIRED);
		code = region_check(&region, entry_offset, file_bytes, err);
		if (code == 0)
			code = region_add(regions, &region, entry_offset, err);
		if (code < 0)
			return code;
	}
	return 0;
}

int vhdx_regions_decode(const uint8_t bytes[VHDX_REGION_TABLE_BYTES], uint64_t table_offset,
			uint64_t file_bytes, struct vhdx_regions *ret_regions,
			struct base_error *err)
{
	struct base_reader in = base_reader_over(bytes, VHDX_REGION_TABLE_BYTES);
	struct vhdx_regions regions = { 0 };
	uint32_t signature = base_read_le32(&in);
	uint32_t crc = base_read_le32(&in);
	uint32_t count = base_read_le32(&in);
	int code;

	if (signature != TABLE_SIGNATURE)
		return base_fail(err, -EBADMSG,
				 "VHDX region table at 0x%" PRIx64 ": signature 0x%08" PRIx32
				 " is not 0x%08" PRIx32,
				 table_offset, signature, TABLE_SIGNATURE);
	if (crc != table_crc(bytes))
		return base_fail(err, -EBADMSG,
				 "VHDX region table at 0x%" PRIx64 ": checksum 0x%08" PRIx32
				 " recorded, 0x%08" PRIx32 " computed",
				 table_offset, crc, table_crc(bytes));
	if (count > VHDX_REGIONS_MAX)
		return base_fail(err, -EBADMSG,
				 "VHDX region table at 0x%" PRIx64 ": %" PRIu32
				 " entries, at most %u fit",
				 table_offset, count, VHDX_REGIONS_MAX);
	base_read_skip(&in, ENTRIES_OFFSET - 12);
	code = entries_decode(&in, count, table_offset, file_bytes, &regions, err);
	if (code < 0)
		return code;
	if (regions.bat.length_bytes == 0 || regions.metadata.length_bytes == 0)
		return base_fail(err, -EBADMSG, "VHDX region table at 0x%" PRIx64 ": no %s region",
				 table_offset, regions.bat.length_bytes == 0 ? "BAT" : "metadata");

	*ret_regions = regions;
	return 0;
}

static void entry_encode(struct base_writer *out, const struct vhdx_region *region)
{
	base_write_bytes(out, region->id.bytes, 16);
	base_write_le64(out, region->offset_bytes);
	base_write_le32(out, region->length_bytes);
	base_write_le32(out, region->required ? FLAG_REQUIRED : 0);
}

void vhdx_regions_encode(const struct vhdx_regions *regions, uint8_t to[VHDX_REGION_TABLE_BYTES])
{
	struct base_writer out = base_writer_over(to, VHDX_REGION_TABLE_BYTES);
	struct vhdx_region known;

	base_write_le32(&out, TABLE_SIGNATURE);
	base_write_le32(&out, 0);
	base_write_le32(&out, 2 + regions->other_count);
	base_write_le32(&out, 0);
	/* The ids and the flag of the two known regions are the format's, not the caller's. */
	known = regions->bat;
	known.id = bat_id;
	known.required = true;
	entry_encode(&out, &known);
	known = regions->metadata;
	known.id = metadata_id;
	known.required = true;
	entry_encode(&out, &known);
	for (uint32_t i = 0; i < regions->other_count; i++)
		entry_encode(&out, &regions->other[i]);
	base_write_zeros(&out, VHDX_REGION_TABLE_BYTES - out.offset_bytes);
	base_put_le32(to + 4, table_crc(to));
}
