/* SPDX-License-Identifier: Apache-2.0 */
#include <criterion/criterion.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "base/bytes.h"
#include "hypervisor/disk/vhdx_format.h"
#include "tests/support/alloc_fail.h"

#define REGION_OFFSET (2 * VHDX_MIB)

static uint8_t bytes[1 << 20];
static struct base_error err;
static struct vhdx_metadata meta;
static struct vhdx_metadata out;

static void fresh(void)
{
	memset(&meta, 0, sizeof(meta));
	meta.block_bytes = 2 << 20;
	meta.has_parent = true;
	meta.disk_bytes = 10ULL << 30;
	meta.logical_sector_bytes = 512;
	meta.physical_sector_bytes = 4096;
	memset(meta.page83.bytes, 0x11, 16);
	meta.locator.linkage_present = true;
	memset(meta.locator.linkage.bytes, 0x22, 16);
	strcpy(meta.locator.relative, ".\\base.vhdx");
	cr_assert_eq(vhdx_metadata_encode(&meta, bytes, sizeof(bytes), &err), 0);
}

static int decode(void)
{
	return vhdx_metadata_decode(bytes, sizeof(bytes), REGION_OFFSET, &out, &err);
}

static void expect(int code, const char *text)
{
	cr_assert_eq(decode(), code, "%s", err.text);
	cr_assert_not_null(strstr(err.text, text), "%s", err.text);
}

/* In the order of encoding: parameters, size, page 83, logical, physical, locator. */
static uint8_t *entry(uint32_t index)
{
	return bytes + 32 + (size_t)index * 32;
}

static uint8_t *item(uint32_t index)
{
	return bytes + base_get_le32(entry(index) + 16);
}

static void add(const char *id, uint32_t offset, uint32_t length, uint32_t flags)
{
	uint16_t count = base_get_le16(bytes + 10);
	struct disk_guid guid;

	cr_assert(disk_guid_parse(id, strlen(id), &guid));
	memcpy(entry(count), guid.bytes, 16);
	base_put_le32(entry(count) + 16, offset);
	base_put_le32(entry(count) + 20, length);
	base_put_le32(entry(count) + 24, flags);
	base_put_le16(bytes + 10, (uint16_t)(count + 1));
}

Test(vhdx_metadata, ids_are_those_of_the_specification)
{
	static const char *const ids[] = {
		"CAA16737-FA36-4D43-B3B6-33F0AA44E76B", "2FA54224-CD1B-4876-B211-5DBED83BF4B8",
		"BECA12AB-B2E6-4523-93EF-C309E000C746", "8141BF1D-A96F-4709-BA47-F233A8FAAB5F",
		"CDA348C7-445D-4471-9CC9-E9885251C556", "A8D35F2D-B30B-454D-ABF7-D3D84834AB0C",
	};
	static const uint32_t flags[] = { 4, 6, 6, 6, 6, 4 };
	struct disk_guid guid;

	fresh();
	cr_assert_eq(base_get_le16(bytes + 10), 6);
	for (uint32_t i = 0; i < 6; i++) {
		cr_assert(disk_guid_parse(ids[i], 36, &guid));
		cr_assert_arr_eq(entry(i), guid.bytes, 16, "%u", i);
		cr_assert_eq(base_get_le32(entry(i) + 24), flags[i], "%u", i);
	}
}

Test(vhdx_metadata, round_trip)
{
	uint32_t needed = 0;

	fresh();
	cr_assert_eq(decode(), 0, "%s", err.text);
	cr_assert(memcmp(&meta, &out, sizeof(meta)) == 0);
	cr_assert_eq(vhdx_metadata_needed(bytes, 1 << 20, REGION_OFFSET, &needed, &err), 0);
	cr_assert_eq(needed, out.items_end_bytes);
	cr_assert_eq(vhdx_metadata_decode(bytes, needed, REGION_OFFSET, &out, &err), 0);
	cr_assert_eq(vhdx_metadata_decode(bytes, needed - 1, REGION_OFFSET, &out, &err), -EBADMSG);
	cr_assert_eq(vhdx_metadata_decode(bytes, 65535, REGION_OFFSET, &out, &err), -EBADMSG);
	cr_assert_eq(vhdx_metadata_encode(&meta, bytes, sizeof(bytes) - 1, &err), -ENOSPC);
}

Test(vhdx_metadata, table)
{
	fresh();
	bytes[0] ^= 1;
	expect(-EBADMSG, "metadata table at 0x200000: signature");
	fresh();
	base_put_le16(bytes + 10, 2048);
	expect(-EBADMSG, "2048 entries");
	fresh();
	base_put_le16(bytes + 10, 4);
	expect(-EBADMSG, "no item \"physical sector size\"");
	fresh();
	base_put_le16(bytes + 10, 5);
	expect(-EBADMSG, "no item \"parent locator\"");
}

Test(vhdx_metadata, entries)
{
	fresh();
	base_put_le32(entry(0) + 24, 12);
	expect(-EBADMSG, "flags 0xc");
	fresh();
	base_put_le32(entry(0) + 24, 1);
	expect(-EBADMSG, "no item \"file parameters\"");
	fresh();
	for (uint32_t i = 0; i < 6; i++) /* as some writers have it */
		base_put_le32(entry(i) + 24, 4);
	cr_assert_eq(decode(), 0, "%s", err.text);
	cr_assert_eq(out.disk_bytes, 10ULL << 30);
	fresh();
	base_put_le32(entry(5) + 20, (1 << 20) + 1);
	expect(-EBADMSG, "has 1048577 bytes");
	fresh();
	base_put_le32(entry(0) + 20, 0);
	expect(-EBADMSG, "is empty and has offset");
	fresh();
	base_put_le32(entry(0) + 16, 65535);
	expect(-EBADMSG, "inside the table");
	fresh();
	base_put_le32(entry(0) + 20, 9);
	expect(-EBADMSG, "file parameters has 9 bytes, 8 are wanted");
	fresh();
	base_put_le32(entry(1) + 16, base_get_le32(entry(0) + 16) + 4);
	expect(-EBADMSG, "overlap");
	fresh();
	memcpy(entry(5), entry(4), 16);
	base_put_le32(entry(5) + 20, 4);
	base_put_le32(entry(5) + 24, 6);
	expect(-EBADMSG, "are both item");
}

Test(vhdx_metadata, items_inside_the_region)
{
	uint32_t needed;

	fresh();
	base_put_le32(entry(0) + 16, (1 << 20) - 7);
	cr_assert_eq(vhdx_metadata_needed(bytes, 1 << 20, REGION_OFFSET, &needed, &err), -EBADMSG);
	cr_assert_not_null(strstr(err.text, "ends past the region's 1048576 bytes"));
	base_put_le32(entry(0) + 16, UINT32_MAX - 3);
	expect(-EBADMSG, "ends past the region's");
	fresh();
	base_put_le32(entry(0) + 16, 65 << 20);
	cr_assert_eq(vhdx_metadata_needed(bytes, 66 << 20, REGION_OFFSET, &needed, &err),
		     -EOPNOTSUPP);
}

Test(vhdx_metadata, unknown_items)
{
	fresh();
	add("11111111-0000-0000-0000-000000000000", 0, 0, 0);
	add("11111111-0000-0000-0000-000000000000", 0, 0, 1); /* a user's is another */
	cr_assert_eq(decode(), 0, "%s", err.text);
	add("11111111-0000-0000-0000-000000000001", 0, 0, 4);
	expect(-EOPNOTSUPP, "{11111111-0000-0000-0000-000000000001} is required and unknown");
	fresh();
	add("71CC85F0-1B69-4E28-9558-C3BF83AE75D3", 0, 0, 4);
	expect(-EOPNOTSUPP, "incomplete");
	fresh();
	for (uint32_t i = 0; i < 1025; i++) {
		char id[40];

		snprintf(id, sizeof(id), "%08x-0000-0000-0000-000000000000", i);
		add(id, 0, 0, 1);
	}
	expect(-EBADMSG, "1025 user items");
}

Test(vhdx_metadata, values)
{
	static const uint32_t blocks[] = { 0, 1 << 19, 3 << 20, 512 << 20 };
	static const uint64_t sizes[] = { 0, 513, (64ULL << 40) + 512, UINT64_MAX };

	for (size_t i = 0; i < 4; i++) {
		fresh();
		base_put_le32(item(0), blocks[i]);
		expect(-EBADMSG, "is not a power of two");
		fresh();
		base_put_le64(item(1), sizes[i]);
		expect(-EBADMSG, "metadata at 0x210008: virtual disk size");
	}
	fresh();
	base_put_le32(item(0) + 4, 4);
	expect(-EBADMSG, "parameter flags 0x4");
	fresh();
	base_put_le32(item(0) + 4, 3);
	cr_assert_eq(decode(), 0, "%s", err.text);
	cr_assert(out.has_parent, "\"fixed\" has no meaning then");
	cr_assert_not(out.leave_allocated);
	fresh();
	base_put_le32(item(3), 1024);
	expect(-EBADMSG, "logical sector size 1024");
	fresh();
	base_put_le32(item(4), 0);
	expect(-EBADMSG, "physical sector size 0");
	fresh();
	item(5)[0] ^= 1;
	expect(-EOPNOTSUPP, "metadata at 0x211000: VHDX parent locator: type");
}

Test(vhdx_metadata, no_memory)
{
	fresh();
	alloc_fail_at(0);
	cr_assert_eq(decode(), -ENOMEM);
	cr_assert(alloc_fail_done());
}
