/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The bytes of VHD: footer, dynamic header, parent locators, block table.  No I/O; any thread.
 *
 * Everything on disk is big-endian.  Decoded structures are plain values; encoding changes only
 * the bytes of known fields, so that what a footer or header holds beyond them stays.
 *
 * Source: Virtual Hard Disk Image Format Specification 1.0 (Microsoft, October 2006);
 * docs/hypervisor/disk/vhd.md says where images in the field differ from it.
 */
#ifndef HYPERVISOR_DISK_VHD_FORMAT_H
#define HYPERVISOR_DISK_VHD_FORMAT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/error.h"
#include "hypervisor/disk/guid.h"

#define VHD_SECTOR_BYTES   512U
#define VHD_FOOTER_BYTES   512U
#define VHD_HEADER_BYTES   1024U
#define VHD_LOCATORS       8U
#define VHD_NAME_UNITS     256U  /* UTF-16 units of the header's parent name */
#define VHD_LOCATOR_MAX    4096U /* bytes of a locator's path that are looked at */
#define VHD_BLOCK_ABSENT   UINT32_MAX
#define VHD_BLOCK_MIN      (512U << 10)
#define VHD_BLOCK_MAX      (256U << 20)
#define VHD_BLOCK_DEFAULT  (2U << 20)
#define VHD_SIZE_MAX       (2040ULL << 30) /* 32-bit sector numbers, less what tables need */
#define VHD_ENTRIES_MAX    ((uint32_t)(VHD_SIZE_MAX / VHD_BLOCK_MIN))
#define VHD_BAT_PER_SECTOR (VHD_SECTOR_BYTES / 4U)
#define VHD_NO_OFFSET      UINT64_MAX
#define VHD_EPOCH_SECONDS  946684800ULL /* 2000-01-01 UTC in seconds since 1970 */

#define VHD_CODE_W2RU 0x57327275U /* Windows relative path, UTF-16LE */
#define VHD_CODE_W2KU 0x57326b75U /* Windows absolute path, UTF-16LE */
#define VHD_CODE_MACX 0x4d616358U /* file URL, UTF-8 */

enum vhd_type {
	VHD_TYPE_FIXED = 2,
	VHD_TYPE_DYNAMIC = 3,
	VHD_TYPE_DIFFERENCING = 4,
};

struct vhd_geometry {
	uint16_t cylinders;
	uint8_t heads;
	uint8_t sectors;
};

struct vhd_footer {
	uint64_t header_offset; /* VHD_NO_OFFSET for a fixed disk */
	uint32_t time;          /* seconds since 2000-01-01 UTC */
	char creator[4];        /* as on disk, not terminated */
	uint32_t creator_version;
	uint64_t original_bytes;
	uint64_t current_bytes;
	struct vhd_geometry geometry;
	enum vhd_type type;
	struct disk_guid id; /* raw bytes */
	uint32_t sum;        /* recorded */
	bool sum_wrong;      /* with @lenient only */
};

struct vhd_locator {
	uint32_t code; /* 0: unused */
	uint32_t length_bytes;
	uint64_t offset_bytes; /* in the file */
};

struct vhd_header {
	uint64_t bat_offset;
	uint32_t entries;
	uint32_t block_bytes;
	struct disk_guid parent_id;
	uint32_t parent_time;
	uint8_t parent_name[VHD_NAME_UNITS * 2]; /* UTF-16BE as on disk */
	struct vhd_locator locators[VHD_LOCATORS];
	bool sum_wrong; /* with @lenient only */
};

/* The spec's checksum over @size_bytes with the four bytes at @field left out. */
uint32_t vhd_checksum(const uint8_t *bytes, size_t size_bytes, size_t field);
bool vhd_is_footer(const uint8_t bytes[VHD_FOOTER_BYTES]); /* the cookie only */

/**
 * vhd_footer_decode - validate and read a footer.
 * @lenient: a wrong checksum is noted in @ret_footer, not refused; the caller knows why that
 *           is safe.
 * -EBADMSG: cookie, checksum, version, type, size, or header offset; names both values.
 */
BASE_MUST_CHECK int vhd_footer_decode(const uint8_t bytes[VHD_FOOTER_BYTES], bool lenient,
				      struct vhd_footer *ret_footer, struct base_error *err);
/* Into @bytes, which hold zeros or the footer that it was; checksum included. */
void vhd_footer_encode(const struct vhd_footer *footer, uint8_t bytes[VHD_FOOTER_BYTES]);

/* -EBADMSG as above: cookie, checksum, version, block size, entries, offsets. */
BASE_MUST_CHECK int vhd_header_decode(const uint8_t bytes[VHD_HEADER_BYTES], bool lenient,
				      struct vhd_header *ret_header, struct base_error *err);
void vhd_header_encode(const struct vhd_header *header, uint8_t bytes[VHD_HEADER_BYTES]);

/* The geometry that the spec derives from a size. */
struct vhd_geometry vhd_geometry_of(uint64_t size_bytes);
/* What a guest of the image's creator saw: see the table in the docs. */
uint64_t vhd_size_of(const struct vhd_footer *footer);

/* Bytes of the sector bitmap in front of each block's data, whole sectors. */
uint32_t vhd_bitmap_bytes(uint32_t block_bytes);

/**
 * vhd_locator_decode - the path that a locator holds, as UTF-8 with "/" as separator.
 * -EOPNOTSUPP: a code that is not read; -EBADMSG: empty, no valid text, or too long.
 */
BASE_MUST_CHECK int vhd_locator_decode(uint32_t code, const uint8_t *bytes, size_t size_bytes,
				       char *ret_path, size_t path_bytes, struct base_error *err);
/* The header's own parent name, as above; -EBADMSG. */
BASE_MUST_CHECK int vhd_parent_name(const struct vhd_header *header, char *ret_path,
				    size_t path_bytes, struct base_error *err);
/* @path with backslashes as UTF-16, little-endian or big; returns bytes, -ENAMETOOLONG when
 * @capacity does not suffice, -EINVAL when @path is no UTF-8. */
int vhd_utf16_encode(const char *path, bool little_endian, uint8_t *to, size_t capacity);

/* One entry of the block table. */
uint32_t vhd_bat_get(const uint8_t *sector, uint32_t index);
void vhd_bat_put(uint8_t *sector, uint32_t index, uint32_t value);

#endif
