/* SPDX-License-Identifier: Apache-2.0 */
#include <criterion/criterion.h>
#include <errno.h>
#include <string.h>

#include "base/bytes.h"
#include "base/crc32c.h"
#include "hypervisor/disk/vhdx_format.h"

#define FILE_BYTES (64 * VHDX_MIB)

static uint8_t bytes[VHDX_REGION_TABLE_BYTES];
static struct base_error err;
static struct vhdx_regions out;

static void fresh(void)
{
	struct vhdx_regions regions = {
		.bat = { .offset_bytes = 3 * VHDX_MIB, .length_bytes = 2 << 20 },
		.metadata = { .offset_bytes = 2 * VHDX_MIB, .length_bytes = 1 << 20 },
	};

	vhdx_regions_encode(&regions, bytes);
}

static void fix_crc(void)
{
	base_put_le32(bytes + 4, 0);
	base_put_le32(bytes + 4, base_crc32c(0, bytes, sizeof(bytes)));
}

static int decode(void)
{
	fix_crc();
	return vhdx_regions_decode(bytes, VHDX_REGION1_OFFSET, FILE_BYTES, &out, &err);
}

static uint8_t *entry(uint32_t index)
{
	return bytes + 16 + (size_t)index * 32;
}

/* One more at the end. */
static void add(uint8_t id, uint64_t offset, uint32_t length, uint32_t flags)
{
	uint32_t count = base_get_le32(bytes + 8);

	memset(entry(count), id, 16);
	base_put_le64(entry(count) + 16, offset);
	base_put_le32(entry(count) + 24, length);
	base_put_le32(entry(count) + 28, flags);
	base_put_le32(bytes + 8, count + 1);
}

static void expect(int code, const char *text)
{
	cr_assert_eq(decode(), code, "%s", err.text);
	cr_assert_not_null(strstr(err.text, text), "%s", err.text);
}

Test(vhdx_regions, known_ids_and_round_trip)
{
	struct disk_guid id;

	fresh();
	cr_assert_eq(decode(), 0, "%s", err.text);
	cr_assert_eq(out.bat.offset_bytes, 3 * VHDX_MIB);
	cr_assert_eq(out.bat.length_bytes, 2 << 20);
	cr_assert_eq(out.metadata.offset_bytes, 2 * VHDX_MIB);
	cr_assert(disk_guid_parse("2DC27766-F623-4200-9D64-115E9BFD4A08", 36, &id));
	cr_assert(disk_guid_equal(&out.bat.id, &id));
	cr_assert(disk_guid_parse("8B7CA206-4790-4B9A-B8FE-575F050F886E", 36, &id));
	cr_assert(disk_guid_equal(&out.metadata.id, &id));
	cr_assert(out.bat.required && out.metadata.required);
}

Test(vhdx_regions, signature_checksum_and_count)
{
	fresh();
	bytes[0] ^= 1;
	expect(-EBADMSG, "signature");
	fresh();
	bytes[60000] = 1;
	cr_assert_eq(vhdx_regions_decode(bytes, VHDX_REGION1_OFFSET, FILE_BYTES, &out, &err),
		     -EBADMSG);
	cr_assert_not_null(strstr(err.text, "region table at 0x30000: checksum"), "%s", err.text);
	fresh();
	base_put_le32(bytes + 8, 2048);
	expect(-EBADMSG, "2048 entries, at most 2047");
}

Test(vhdx_regions, placement)
{
	fresh();
	base_put_le64(entry(0) + 16, VHDX_MIB + 4096);
	expect(-EBADMSG, "offset 0x101000");
	fresh();
	base_put_le64(entry(0) + 16, 0);
	expect(-EBADMSG, "offset 0x0");
	fresh();
	base_put_le32(entry(0) + 24, 0);
	expect(-EBADMSG, "length 0");
	fresh();
	base_put_le32(entry(0) + 24, 4096);
	expect(-EBADMSG, "length 4096");
	fresh();
	base_put_le64(entry(0) + 16, 63 * VHDX_MIB);
	expect(-EBADMSG, "ends past the file's 67108864 bytes");
	fresh();
	base_put_le64(entry(0) + 16, UINT64_MAX - VHDX_MIB + 1);
	expect(-EBADMSG, "ends past the file's");
}

Test(vhdx_regions, no_region_twice_and_none_over_another)
{
	fresh();
	memcpy(entry(1), entry(0), 16);
	base_put_le64(entry(1) + 16, 8 * VHDX_MIB);
	expect(-EBADMSG, "is there twice");
	fresh();
	base_put_le64(entry(0) + 16, VHDX_MIB);
	base_put_le64(entry(1) + 16, 2 * VHDX_MIB);
	expect(-EBADMSG, "overlaps");
	fresh();
	add(7, 4 * VHDX_MIB, 1 << 20, 0);
	expect(-EBADMSG, "overlaps");
}

Test(vhdx_regions, both_known_ones_are_wanted)
{
	fresh();
	base_put_le32(bytes + 8, 1);
	expect(-EBADMSG, "no metadata region");
	fresh();
	base_put_le32(bytes + 8, 0);
	expect(-EBADMSG, "no BAT region");
}

Test(vhdx_regions, unknown_ones)
{
	fresh();
	add(7, 8 * VHDX_MIB, 1 << 20, 0);
	cr_assert_eq(decode(), 0, "%s", err.text);
	cr_assert_eq(out.other_count, 1);
	cr_assert_eq(out.other[0].offset_bytes, 8 * VHDX_MIB);
	fresh();
	add(7, 8 * VHDX_MIB, 1 << 20, 1);
	expect(-EOPNOTSUPP, "{07070707-0707-0707-0707-070707070707} is required and unknown");
	fresh();
	add(7, 8 * VHDX_MIB, 1 << 20, 2);
	expect(-EBADMSG, "flags 0x2");
	fresh();
	for (uint8_t i = 0; i <= VHDX_REGIONS_KEPT; i++)
		add((uint8_t)(i + 1), (10 + i) * VHDX_MIB, 1 << 20, 0);
	expect(-EOPNOTSUPP, "more than 16 optional");
}
