/* SPDX-License-Identifier: Apache-2.0 */
#include "hypervisor/disk/vhd_format.h"

#include <errno.h>
#include <inttypes.h>
#include <string.h>

#include "base/bytes.h"
#include "hypervisor/disk/utf16.h"

#define VERSION         0x00010000U
#define FEATURES        2U /* the reserved bit that is always set */
#define FOOTER_SUM      64U
#define HEADER_SUM      36U
#define CHS_SECTORS_MAX (65535ULL * 16 * 255)

static const char footer_cookie[8] = { 'c', 'o', 'n', 'e', 'c', 't', 'i', 'x' };
static const char header_cookie[8] = { 'c', 'x', 's', 'p', 'a', 'r', 's', 'e' };
static const char host_windows[4] = { 'W', 'i', '2', 'k' };

uint32_t vhd_checksum(const uint8_t *bytes, size_t size_bytes, size_t field)
{
	uint32_t sum = 0;

	for (size_t i = 0; i < size_bytes; i++)
		if (i < field || i >= field + 4)
			sum += bytes[i];
	return ~sum;
}

bool vhd_is_footer(const uint8_t bytes[VHD_FOOTER_BYTES])
{
	return memcmp(bytes, footer_cookie, sizeof(footer_cookie)) == 0;
}

static int footer_fields_check(const struct vhd_footer *footer, struct base_error *err)
{
	bool fixed = footer->type == VHD_TYPE_FIXED;

	if (!fixed && footer->type != VHD_TYPE_DYNAMIC && footer->type != VHD_TYPE_DIFFERENCING)
		return base_fail(err, -EBADMSG,
				 "VHD footer: type %u at 60: 2 (fixed), 3 (dynamic) or 4 "
				 "(differencing)",
				 (unsigned int)footer->type);
	if (footer->current_bytes == 0 || footer->current_bytes > VHD_SIZE_MAX ||
	    footer->current_bytes % VHD_SECTOR_BYTES != 0)
		return base_fail(err, -EBADMSG,
				 "VHD footer: size %" PRIu64 " at 48: a multiple of 512, 512 to "
				 "%" PRIu64,
				 footer->current_bytes, (uint64_t)VHD_SIZE_MAX);
	/* A fixed disk's is all ones, by the spec; some writers put zero there. */
	if (!fixed && (footer->header_offset < VHD_FOOTER_BYTES ||
		       footer->header_offset % VHD_SECTOR_BYTES != 0 ||
		       footer->header_offset > INT64_MAX - VHD_HEADER_BYTES))
		return base_fail(err, -EBADMSG,
				 "VHD footer: header offset 0x%" PRIx64
				 " at 16: a multiple of 512, 512 or more",
				 footer->header_offset);
	return 0;
}

int vhd_footer_decode(const uint8_t bytes[VHD_FOOTER_BYTES], bool lenient,
		      struct vhd_footer *ret_footer, struct base_error *err)
{
	struct vhd_footer footer = { 0 };
	uint32_t sum = vhd_checksum(bytes, VHD_FOOTER_BYTES, FOOTER_SUM);
	uint32_t version = base_get_be32(bytes + 12);
	int code;

	if (!vhd_is_footer(bytes))
		return base_fail(err, -EBADMSG, "VHD footer: no 'conectix' at 0");
	footer.sum = base_get_be32(bytes + FOOTER_SUM);
	footer.sum_wrong = footer.sum != sum;
	if (footer.sum_wrong && !lenient)
		return base_fail(err, -EBADMSG,
				 "VHD footer: checksum 0x%08" PRIx32
				 " at 64, computed 0x%08" PRIx32,
				 footer.sum, sum);
	if (version >> 16 != VERSION >> 16)
		return base_fail(err, -EBADMSG,
				 "VHD footer: version 0x%08" PRIx32 " at 12: 0x%08x known", version,
				 VERSION);
	footer.header_offset = base_get_be64(bytes + 16);
	footer.time = base_get_be32(bytes + 24);
	memcpy(footer.creator, bytes + 28, sizeof(footer.creator));
	footer.creator_version = base_get_be32(bytes + 32);
	footer.original_bytes = base_get_be64(bytes + 40);
	footer.current_bytes = base_get_be64(bytes + 48);
	footer.geometry = (struct vhd_geometry){ .cylinders = base_get_be16(bytes + 56),
						 .heads = bytes[58],
						 .sectors = bytes[59] };
	footer.type = (enum vhd_type)base_get_be32(bytes + 60);
	memcpy(footer.id.bytes, bytes + 68, sizeof(footer.id.bytes));
	code = footer_fields_check(&footer, err);
	if (code < 0)
		return code;
	*ret_footer = footer;
	return 0;
}

void vhd_footer_encode(const struct vhd_footer *footer, uint8_t bytes[VHD_FOOTER_BYTES])
{
	if (!vhd_is_footer(bytes)) {
		memset(bytes, 0, VHD_FOOTER_BYTES);
		memcpy(bytes, footer_cookie, sizeof(footer_cookie));
		base_put_be32(bytes + 8, FEATURES);
		base_put_be32(bytes + 12, VERSION);
		memcpy(bytes + 36, host_windows, sizeof(host_windows));
	}
	base_put_be64(bytes + 16, footer->header_offset);
	base_put_be32(bytes + 24, footer->time);
	memcpy(bytes + 28, footer->creator, sizeof(footer->creator));
	base_put_be32(bytes + 32, footer->creator_version);
	base_put_be64(bytes + 40, footer->original_bytes);
	base_put_be64(bytes + 48, footer->current_bytes);
	base_put_be16(bytes + 56, footer->geometry.cylinders);
	bytes[58] = footer->geometry.heads;
	bytes[59] = footer->geometry.sectors;
	base_put_be32(bytes + 60, (uint32_t)footer->type);
	memcpy(bytes + 68, footer->id.bytes, sizeof(footer->id.bytes));
	base_put_be32(bytes + FOOTER_SUM, vhd_checksum(bytes, VHD_FOOTER_BYTES, FOOTER_SUM));
}

static int header_fields_check(const struct vhd_header *header, struct base_error *err)
{
	if (header->block_bytes < VHD_BLOCK_MIN || header->block_bytes > VHD_BLOCK_MAX ||
	    (header->block_bytes & (header->block_bytes - 1)) != 0)
		return base_fail(err, -EBADMSG,
				 "VHD header: block size %" PRIu32
				 " at 32: a power of two, %u to %u",
				 header->block_bytes, VHD_BLOCK_MIN, VHD_BLOCK_MAX);
	if (header->entries == 0 || header->entries > VHD_ENTRIES_MAX)
		return base_fail(err, -EBADMSG, "VHD header: %" PRIu32 " blocks at 28: 1 to %u",
				 header->entries, VHD_ENTRIES_MAX);
	if (header->bat_offset < VHD_FOOTER_BYTES || header->bat_offset % VHD_SECTOR_BYTES != 0 ||
	    header->bat_offset > INT64_MAX - 4ULL * VHD_ENTRIES_MAX)
		return base_fail(err, -EBADMSG,
				 "VHD header: block table at 0x%" PRIx64
				 " (at 16): a multiple of 512, 512 or more",
				 header->bat_offset);
	return 0;
}

int vhd_header_decode(const uint8_t bytes[VHD_HEADER_BYTES], bool lenient,
		      struct vhd_header *ret_header, struct base_error *err)
{
	struct vhd_header header = { 0 };
	uint32_t sum = vhd_checksum(bytes, VHD_HEADER_BYTES, HEADER_SUM);
	uint32_t version = base_get_be32(bytes + 24);
	int code;

	if (memcmp(bytes, header_cookie, sizeof(header_cookie)) != 0)
		return base_fail(err, -EBADMSG, "VHD header: no 'cxsparse' at 0");
	header.sum_wrong = base_get_be32(bytes + HEADER_SUM) != sum;
	if (header.sum_wrong && !lenient)
		return base_fail(err, -EBADMSG,
				 "VHD header: checksum 0x%08" PRIx32
				 " at 36, computed 0x%08" PRIx32,
				 base_get_be32(bytes + HEADER_SUM), sum);
	if (version >> 16 != VERSION >> 16)
		return base_fail(err, -EBADMSG,
				 "VHD header: version 0x%08" PRIx32 " at 24: 0x%08x known", version,
				 VERSION);
	header.bat_offset = base_get_be64(bytes + 16);
	header.entries = base_get_be32(bytes + 28);
	header.block_bytes = base_get_be32(bytes + 32);
	memcpy(header.parent_id.bytes, bytes + 40, sizeof(header.parent_id.bytes));
	header.parent_time = base_get_be32(bytes + 56);
	memcpy(header.parent_name, bytes + 64, sizeof(header.parent_name));
	for (uint32_t i = 0; i < VHD_LOCATORS; i++) {
		const uint8_t *at = bytes + 576 + 24 * (size_t)i;

		header.locators[i] = (struct vhd_locator){ .code = base_get_be32(at),
							   .length_bytes = base_get_be32(at + 8),
							   .offset_bytes = base_get_be64(at + 16) };
	}
	code = header_fields_check(&header, err);
	if (code < 0)
		return code;
	*ret_header = header;
	return 0;
}

void vhd_header_encode(const struct vhd_header *header, uint8_t bytes[VHD_HEADER_BYTES])
{
	if (memcmp(bytes, header_cookie, sizeof(header_cookie)) != 0) {
		memset(bytes, 0, VHD_HEADER_BYTES);
		memcpy(bytes, header_cookie, sizeof(header_cookie));
		base_put_be64(bytes + 8, VHD_NO_OFFSET);
		base_put_be32(bytes + 24, VERSION);
	}
	base_put_be64(bytes + 16, header->bat_offset);
	base_put_be32(bytes + 28, header->entries);
	base_put_be32(bytes + 32, header->block_bytes);
	memcpy(bytes + 40, header->parent_id.bytes, sizeof(header->parent_id.bytes));
	base_put_be32(bytes + 56, header->parent_time);
	memcpy(bytes + 64, header->parent_name, sizeof(header->parent_name));
	for (uint32_t i = 0; i < VHD_LOCATORS; i++) {
		const struct vhd_locator *locator = &header->locators[i];
		uint8_t *at = bytes + 576 + 24 * (size_t)i;
		uint32_t space =
			(locator->length_bytes + VHD_SECTOR_BYTES - 1) & ~(VHD_SECTOR_BYTES - 1);

		/* The space is in bytes, as Hyper-V writes it; the spec says sectors.  One that is
		 * there stays as it is when the locator does. */
		if (base_get_be32(at) != locator->code ||
		    base_get_be32(at + 8) != locator->length_bytes)
			base_put_be32(at + 4, space);
		base_put_be32(at, locator->code);
		base_put_be32(at + 8, locator->length_bytes);
		base_put_be64(at + 16, locator->offset_bytes);
	}
	base_put_be32(bytes + HEADER_SUM, vhd_checksum(bytes, VHD_HEADER_BYTES, HEADER_SUM));
}

struct vhd_geometry vhd_geometry_of(uint64_t size_bytes)
{
	uint64_t total = size_bytes / VHD_SECTOR_BYTES;
	uint64_t sectors = 17;
	uint64_t heads;
	uint64_t tracks;

	if (total > CHS_SECTORS_MAX)
		total = CHS_SECTORS_MAX;
	if (total >= 65535ULL * 16 * 63) {
		sectors = 255;
		heads = 16;
		tracks = total / sectors;
	} else {
		tracks = total / sectors;
		heads = (tracks + 1023) / 1024;
		heads = heads < 4 ? 4 : heads;
		if (tracks >= heads * 1024 || heads > 16) {
			sectors = 31;
			heads = 16;
			tracks = total / sectors;
		}
		if (tracks >= heads * 1024) {
			sectors = 63;
			heads = 16;
			tracks = total / sectors;
		}
	}
	return (struct vhd_geometry){ .cylinders = (uint16_t)(tracks / heads),
				      .heads = (uint8_t)heads,
				      .sectors = (uint8_t)sectors };
}

uint64_t vhd_size_of(const struct vhd_footer *footer)
{
	static const char by_geometry[][4] = { { 'v', 'p', 'c', ' ' },
					       { 'v', 's', ' ', ' ' },
					       { 'q', 'e', 'm', 'u' } };
	uint64_t sectors = (uint64_t)footer->geometry.cylinders * footer->geometry.heads *
			   footer->geometry.sectors;
	uint64_t bytes = sectors * VHD_SECTOR_BYTES;

	/* At its largest the geometry only says that the disk is no smaller. */
	if (sectors == 0 || sectors >= CHS_SECTORS_MAX || bytes > footer->current_bytes)
		return footer->current_bytes;
	for (size_t i = 0; i < sizeof(by_geometry) / sizeof(by_geometry[0]); i++)
		if (memcmp(footer->creator, by_geometry[i], 4) == 0)
			return bytes;
	return footer->current_bytes;
}

uint32_t vhd_bitmap_bytes(uint32_t block_bytes)
{
	uint32_t bytes = block_bytes / VHD_SECTOR_BYTES / 8;

	return (bytes + VHD_SECTOR_BYTES - 1) & ~(VHD_SECTOR_BYTES - 1);
}

/* --- text --- */

static int path_from_utf16(const uint8_t *bytes, size_t size_bytes, bool little_endian,
			   char *ret_path, size_t path_bytes, struct base_error *err)
{
	uint8_t text[VHD_LOCATOR_MAX];
	size_t used_bytes = 0;
	int length;

	/* Padding follows a NUL. */
	while (used_bytes + 2 <= size_bytes && used_bytes + 2 <= sizeof(text) &&
	       (bytes[used_bytes] != 0 || bytes[used_bytes + 1] != 0)) {
		text[used_bytes] = bytes[used_bytes + (little_endian ? 0 : 1)];
		text[used_bytes + 1] = bytes[used_bytes + (little_endian ? 1 : 0)];
		used_bytes += 2;
	}
	if (used_bytes == 0)
		return base_fail(err, -EBADMSG, "VHD parent path: empty");
	length = disk_utf16_to_utf8(text, used_bytes, ret_path, path_bytes);
	if (length < 0)
		return base_fail(err, -EBADMSG,
				 "VHD parent path: %zu bytes: not UTF-16, or longer than %zu",
				 used_bytes, path_bytes - 1);
	for (int i = 0; i < length; i++) {
		if ((uint8_t)ret_path[i] < 0x20)
			return base_fail(err, -EBADMSG, "VHD parent path: byte 0x%02x at %d",
					 (unsigned int)(uint8_t)ret_path[i], i);
		if (ret_path[i] == '\\')
			ret_path[i] = '/';
	}
	return 0;
}

static int path_from_url(const uint8_t *bytes, size_t size_bytes, char *ret_path, size_t path_bytes,
			 struct base_error *err)
{
	static const char scheme[] = "file://";
	size_t skip = sizeof(scheme) - 1;
	size_t length = 0;

	if (size_bytes <= skip || memcmp(bytes, scheme, skip) != 0)
		return base_fail(err, -EBADMSG, "VHD parent path: no 'file://' URL");
	while (length < size_bytes - skip && bytes[skip + length] != 0) {
		if (bytes[skip + length] < 0x20)
			return base_fail(err, -EBADMSG, "VHD parent path: byte 0x%02x at %zu",
					 bytes[skip + length], skip + length);
		length++;
	}
	if (length == 0 || length >= path_bytes)
		return base_fail(err, -EBADMSG, "VHD parent path: %zu bytes: 1 to %zu", length,
				 path_bytes - 1);
	memcpy(ret_path, bytes + skip, length);
	ret_path[length] = '\0';
	return 0;
}

int vhd_locator_decode(uint32_t code, const uint8_t *bytes, size_t size_bytes, char *ret_path,
		       size_t path_bytes, struct base_error *err)
{
	switch (code) {
	case VHD_CODE_W2RU:
	case VHD_CODE_W2KU:
		return path_from_utf16(bytes, size_bytes, true, ret_path, path_bytes, err);
	case VHD_CODE_MACX:
		return path_from_url(bytes, size_bytes, ret_path, path_bytes, err);
	default:
		return base_fail(err, -EOPNOTSUPP, "VHD parent locator: code 0x%08" PRIx32, code);
	}
}

int vhd_parent_name(const struct vhd_header *header, char *ret_path, size_t path_bytes,
		    struct base_error *err)
{
	return path_from_utf16(header->parent_name, sizeof(header->parent_name), false, ret_path,
			       path_bytes, err);
}

int vhd_utf16_encode(const char *path, bool little_endian, uint8_t *to, size_t capacity)
{
	int bytes = disk_utf16_from_utf8(path, to, capacity);

	if (bytes < 0)
		return bytes == -ENOSPC ? -ENAMETOOLONG : -EINVAL;
	for (int i = 0; i < bytes; i += 2) {
		if (to[i] == '/' && to[i + 1] == 0)
			to[i] = '\\';
		if (!little_endian) {
			uint8_t low = to[i];

			to[i] = to[i + 1];
			to[i + 1] = low;
		}
	}
	return bytes;
}

uint32_t vhd_bat_get(const uint8_t *sector, uint32_t index)
{
	return base_get_be32(sector + 4 * (size_t)index);
}

void vhd_bat_put(uint8_t *sector, uint32_t index, uint32_t value)
{
	base_put_be32(sector + 4 * (size_t)index, value);
}
