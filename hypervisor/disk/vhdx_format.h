/* SPDX-License-Identifier: Apache-2.0 */
/*
 * VHDX structures: bytes <-> values, and their validation.  No I/O, no allocation that a small
 * input can blow up, any thread.
 *
 * Source: [MS-VHDX] v4.0 sections 2.1 to 2.6; docs/hypervisor/disk/vhdx.md has the layout.  All
 * integers little-endian.  Decoders refuse what the specification forbids with -EBADMSG and a
 * text that names structure, offset in the file, the value seen and the value wanted; a feature
 * that is required and unknown is -EOPNOTSUPP.
 */
#ifndef HYPERVISOR_DISK_VHDX_FORMAT_H
#define HYPERVISOR_DISK_VHDX_FORMAT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/error.h"
#include "hypervisor/disk/guid.h"

#define VHDX_MIB                       (1ULL << 20)
#define VHDX_HEADER1_OFFSET            (64ULL << 10)
#define VHDX_HEADER2_OFFSET            (128ULL << 10)
#define VHDX_REGION1_OFFSET            (192ULL << 10)
#define VHDX_REGION2_OFFSET            (256ULL << 10)
#define VHDX_HEADER_BYTES              4096U
#define VHDX_REGION_TABLE_BYTES        65536U
#define VHDX_METADATA_TABLE_BYTES      65536U
#define VHDX_METADATA_REGION_BYTES_MAX (64ULL << 20) /* what we read at most */
#define VHDX_METADATA_ITEM_BYTES_MAX   (1U << 20)
#define VHDX_REGIONS_MAX               2047U
/* Unknown optional regions that we keep track of; more: -EOPNOTSUPP. */
#define VHDX_REGIONS_KEPT              16U
#define VHDX_BLOCK_BYTES_MIN           (1U << 20)
#define VHDX_BLOCK_BYTES_MAX           (256U << 20)
#define VHDX_DISK_BYTES_MAX            (64ULL << 40)
/* A log in use is read into memory; a larger one: -EOPNOTSUPP. */
#define VHDX_LOG_BYTES_MAX             (64U << 20)
#define VHDX_BITMAP_BLOCK_BYTES        (1U << 20)
#define VHDX_LOG_SECTOR_BYTES          4096U
#define VHDX_LOG_ENTRY_HEADER_BYTES    64U
#define VHDX_LOG_DESCRIPTOR_BYTES      32U
#define VHDX_FILE_BYTES_MAX            (1ULL << 63)

/* --- the header --- */

struct vhdx_header {
	uint64_t sequence;
	struct disk_guid file_write;
	struct disk_guid data_write;
	struct disk_guid log; /* zero: the log is empty */
	uint32_t log_bytes;
	uint64_t log_offset;
};
/* @slot_offset is for the text. */
BASE_MUST_CHECK int vhdx_header_decode(const uint8_t bytes[VHDX_HEADER_BYTES], uint64_t slot_offset,
				       struct vhdx_header *ret_header, struct base_error *err);
void vhdx_header_encode(const struct vhdx_header *header, uint8_t to[VHDX_HEADER_BYTES]);
/* The file type identifier at offset 0: creator as UTF-8, cut at @creator_bytes. */
BASE_MUST_CHECK int vhdx_identifier_decode(const uint8_t *bytes, size_t size_bytes,
					   char *ret_creator, size_t creator_bytes,
					   struct base_error *err);
void vhdx_identifier_encode(uint8_t to[4096]);

/* --- the region table --- */

struct vhdx_region {
	struct disk_guid id;
	uint64_t offset_bytes;
	uint32_t length_bytes;
	bool required;
};
struct vhdx_regions {
	struct vhdx_region bat;
	struct vhdx_region metadata;
	struct vhdx_region
		other[VHDX_REGIONS_KEPT]; /* optional, unknown: their space is not ours */
	uint32_t other_count;
};
/* @file_bytes: regions must lie inside; they must not overlap each other or the first MiB. */
BASE_MUST_CHECK int vhdx_regions_decode(const uint8_t bytes[VHDX_REGION_TABLE_BYTES],
					uint64_t table_offset, uint64_t file_bytes,
					struct vhdx_regions *ret_regions, struct base_error *err);
void vhdx_regions_encode(const struct vhdx_regions *regions, uint8_t to[VHDX_REGION_TABLE_BYTES]);

/* --- metadata --- */

#define VHDX_LOCATOR_ENTRIES_MAX  64
#define VHDX_LOCATOR_TEXT_BYTES   3072 /* a path in UTF-8 */
#define VHDX_LOCATOR_FORMAT_BYTES 8

struct vhdx_locator {
	bool linkage_present, linkage2_present;
	struct disk_guid linkage;  /* the parent's DataWriteGuid when the child was made */
	struct disk_guid linkage2; /* another one that is right too (a merge was under way) */
	char relative[VHDX_LOCATOR_TEXT_BYTES]; /* "" absent; as recorded, with backslashes */
	char volume[VHDX_LOCATOR_TEXT_BYTES];
	char absolute[VHDX_LOCATOR_TEXT_BYTES];
	/* Our own key, of a parent that is no VHDX: "raw" or "vhd"; "" a VHDX, as in the
	 * specification.  Recorded, so that no guest's bytes are looked at to find out. */
	char format[VHDX_LOCATOR_FORMAT_BYTES];
};
/* The item's bytes.  Keys in UTF-16LE; a key twice, a length outside: -EBADMSG. */
BASE_MUST_CHECK int vhdx_locator_decode(const uint8_t *bytes, size_t size_bytes,
					struct vhdx_locator *ret_locator, struct base_error *err);
/* Returns the length; -ENOSPC when @capacity does not suffice, -EINVAL text is no UTF-8. */
BASE_MUST_CHECK int vhdx_locator_encode(const struct vhdx_locator *locator, uint8_t *to,
					size_t capacity, struct base_error *err);

/* Where an item is: so that resize and relink can rewrite it in place. */
struct vhdx_item_place {
	uint32_t offset_bytes; /* from the start of the region */
	uint32_t length_bytes;
};
struct vhdx_metadata {
	uint32_t block_bytes;
	bool leave_allocated; /* fixed */
	bool has_parent;
	uint64_t disk_bytes;
	struct disk_guid page83;
	uint32_t logical_sector_bytes;
	uint32_t physical_sector_bytes;
	struct vhdx_locator locator; /* has_parent */
	struct vhdx_item_place disk_bytes_at;
	struct vhdx_item_place locator_at;
	uint32_t items_end_bytes; /* first byte after the last item, from the region's start */
};
/* From the table alone (VHDX_METADATA_TABLE_BYTES at @table): every entry is checked against the
 * region's length, overlaps too; *ret_bytes: how much of the region vhdx_metadata_decode() has to
 * see.  -EOPNOTSUPP beyond VHDX_METADATA_REGION_BYTES_MAX. */
BASE_MUST_CHECK int vhdx_metadata_needed(const uint8_t *table, uint32_t region_bytes,
					 uint64_t region_offset, uint32_t *ret_bytes,
					 struct base_error *err);
/* @bytes: the whole region as far as read (at least the table and every known item). */
BASE_MUST_CHECK int vhdx_metadata_decode(const uint8_t *bytes, size_t size_bytes,
					 uint64_t region_offset, struct vhdx_metadata *ret_meta,
					 struct base_error *err);
/* Table and items for a new file; @to has 1 MiB; the place members of @meta are set. */
BASE_MUST_CHECK int vhdx_metadata_encode(struct vhdx_metadata *meta, uint8_t *to, size_t capacity,
					 struct base_error *err);

/* --- the BAT --- */

enum vhdx_block_state {
	VHDX_BLOCK_NOT_PRESENT = 0,
	VHDX_BLOCK_UNDEFINED = 1,
	VHDX_BLOCK_ZERO = 2,
	VHDX_BLOCK_UNMAPPED = 3,
	VHDX_BLOCK_FULL = 6,
	VHDX_BLOCK_PARTIAL = 7
};
#define VHDX_BITMAP_NOT_PRESENT 0U
#define VHDX_BITMAP_PRESENT     6U

static inline uint32_t vhdx_entry_state(uint64_t entry)
{
	return (uint32_t)(entry & 7U);
}
static inline uint64_t vhdx_entry_offset(uint64_t entry)
{
	return entry & ~(VHDX_MIB - 1); /* bits 20..63, in MiB, are the offset in bytes */
}
static inline uint64_t vhdx_entry_make(uint32_t state, uint64_t offset_bytes)
{
	return offset_bytes | state;
}
/* Blocks, entries and bytes of the BAT for a disk. */
struct vhdx_bat_shape {
	uint64_t chunk_ratio;
	uint64_t block_count;
	uint64_t entry_count;
	uint64_t bat_bytes; /* of the entries, not rounded */
};
struct vhdx_bat_shape vhdx_bat_shape(uint64_t disk_bytes, uint32_t block_bytes,
				     uint32_t logical_sector_bytes, bool has_parent);
/* State known, reserved bits zero, offset where the state wants one. */
BASE_MUST_CHECK int vhdx_payload_entry_decode(uint64_t entry, bool has_parent,
					      struct base_error *err);
BASE_MUST_CHECK int vhdx_bitmap_entry_decode(uint64_t entry, struct base_error *err);

/* --- the log --- */

#define VHDX_LOG_DESCRIPTORS_FIRST 126U /* in the entry's first sector, after its header */
#define VHDX_LOG_DESCRIPTORS_MORE  128U /* in each further descriptor sector */

struct vhdx_log_entry {
	uint32_t entry_bytes; /* whole: header, descriptors, data sectors */
	uint32_t tail_bytes;  /* offset in the log of the sequence's oldest entry */
	uint64_t sequence;
	uint32_t descriptor_count;
	struct disk_guid log;
	uint64_t flushed_file_bytes;
	uint64_t last_file_bytes;
};
struct vhdx_log_descriptor {
	bool zero; /* a zero descriptor: @length_bytes of zeros */
	uint64_t file_offset;
	uint64_t length_bytes; /* data: VHDX_LOG_SECTOR_BYTES */
	uint32_t data_sector;  /* data: index among the entry's data sectors */
};
/* The log's region, and which log is in it. */
struct vhdx_log_region {
	struct disk_guid id;
	uint32_t log_bytes;
	uint64_t log_offset; /* in the file */
};
/* One whole entry in contiguous memory (@size_bytes of at least entry_bytes): signature, CRC,
 * lengths, every descriptor and data sector. */
BASE_MUST_CHECK int vhdx_log_entry_decode(const uint8_t *bytes, size_t size_bytes,
					  const struct vhdx_log_region *log,
					  struct vhdx_log_entry *ret_entry, struct base_error *err);
/* The header alone, from the entry's first sector: signature, log, lengths against the region.
 * Cheap, and says how long the entry is. */
BASE_MUST_CHECK int vhdx_log_entry_peek(const uint8_t bytes[VHDX_LOG_SECTOR_BYTES],
					const struct disk_guid *log, uint32_t log_bytes,
					struct vhdx_log_entry *ret_entry, struct base_error *err);
/* Descriptor @index of an entry that was decoded.  *@data_count: data descriptors before it;
 * counted on, so that a walk from 0 starts with 0. */
struct vhdx_log_descriptor vhdx_log_descriptor_at(const uint8_t *bytes, uint32_t index,
						  uint32_t *data_count);
/* The 4096 bytes of data descriptor @index, put together; @data_sector is the descriptor's. */
void vhdx_log_data_at(const uint8_t *bytes, const struct vhdx_log_entry *entry, uint32_t index,
		      uint32_t data_sector, uint8_t to[VHDX_LOG_SECTOR_BYTES]);
/* Bytes of an entry with that many data descriptors (no zero ones). */
uint32_t vhdx_log_entry_bytes(uint32_t page_count);
struct vhdx_log_page {
	uint64_t file_offset;
	const uint8_t *data; /* 4096 bytes */
};
/* Encode an entry of whole pages into @to (vhdx_log_entry_bytes() long), CRC included.  @entry:
 * tail, sequence, log, flushed, last are read; the rest is derived. */
void vhdx_log_entry_encode(const struct vhdx_log_entry *entry, const struct vhdx_log_page *pages,
			   uint32_t page_count, uint8_t *to);

#endif
