/* SPDX-License-Identifier: Apache-2.0 */
#include <criterion/criterion.h>
#include <errno.h>
#include <string.h>

#include "base/bytes.h"
#include "hypervisor/disk/utf16.h"
#include "hypervisor/disk/vhdx_format.h"

#define LINKAGE "{83ed0ec3-24c8-49a6-a959-5e4bf1288bfb}"

static uint8_t bytes[65536];
static size_t size;
static struct base_error err;
static struct vhdx_locator out;

static void add(const char *key, const char *value)
{
	uint8_t *entry = bytes + 20 + (size_t)base_get_le16(bytes + 18) * 12;
	int key_bytes = disk_utf16_from_utf8(key, bytes + size, sizeof(bytes) - size);
	int value_bytes = disk_utf16_from_utf8(value, bytes + size + (size_t)key_bytes,
					       sizeof(bytes) - size - (size_t)key_bytes);

	base_put_le32(entry, (uint32_t)size);
	base_put_le32(entry + 4, (uint32_t)size + (uint32_t)key_bytes);
	base_put_le16(entry + 8, (uint16_t)key_bytes);
	base_put_le16(entry + 10, (uint16_t)value_bytes);
	base_put_le16(bytes + 18, (uint16_t)(base_get_le16(bytes + 18) + 1));
	size += (size_t)(key_bytes + value_bytes);
}

static void fresh(void)
{
	struct disk_guid type;

	memset(bytes, 0, sizeof(bytes));
	cr_assert(disk_guid_parse("B04AEFB7-D19E-4A81-B789-25B8E9445913", 36, &type));
	memcpy(bytes, type.bytes, 16);
	size = 20 + 70 * 12;
	add("parent_linkage", LINKAGE);
	add("relative_path", "..\\base.vhdx");
}

static int decode(void)
{
	return vhdx_locator_decode(bytes, size, &out, &err);
}

static void expect(int code, const char *text)
{
	cr_assert_eq(decode(), code, "%s", err.text);
	cr_assert_not_null(strstr(err.text, text), "%s", err.text);
}

Test(vhdx_locator, all_known_keys)
{
	struct disk_guid want;

	fresh();
	add("parent_linkage2", "{00000000-0000-0000-0000-000000000001}");
	add("volume_path", "\\\\?\\Volume{26a21bda-a627-11d7-9931-806e6f6e6963}\\base.vhdx");
	add("absolute_win32_path", "\\\\?\\d:\\b\xc3\xa4se.vhdx");
	add("godwit_parent_format", "raw");
	add("somebody_elses", "value");
	cr_assert_eq(decode(), 0, "%s", err.text);
	cr_assert(disk_guid_parse(LINKAGE, strlen(LINKAGE), &want));
	cr_assert(out.linkage_present && disk_guid_equal(&out.linkage, &want));
	cr_assert(out.linkage2_present);
	cr_assert_str_eq(out.relative, "..\\base.vhdx");
	cr_assert_str_eq(out.absolute, "\\\\?\\d:\\b\xc3\xa4se.vhdx");
	cr_assert_not_null(strstr(out.volume, "Volume{26a2"));
	cr_assert_str_eq(out.format, "raw");
}

Test(vhdx_locator, encode_and_decode)
{
	struct vhdx_locator in = { .linkage_present = true, .linkage2_present = true };
	struct base_error none = { 0 };
	int length;

	memset(in.linkage.bytes, 7, 16);
	memset(in.linkage2.bytes, 8, 16);
	strcpy(in.relative, ".\\b\xf0\x9f\x90\xa6.vhdx");
	strcpy(in.format, "vhd");
	length = vhdx_locator_encode(&in, bytes, sizeof(bytes), &err);
	cr_assert_gt(length, 0, "%s", err.text);
	cr_assert_eq(vhdx_locator_decode(bytes, (size_t)length, &out, &err), 0, "%s", err.text);
	cr_assert(memcmp(&in, &out, sizeof(in)) == 0);
	for (size_t room = 0; room < (size_t)length; room++)
		cr_assert_eq(vhdx_locator_encode(&in, bytes, room, &none), -ENOSPC);
	strcpy(in.relative, "\xff");
	cr_assert_eq(vhdx_locator_encode(&in, bytes, sizeof(bytes), &err), -EINVAL);
}

Test(vhdx_locator, a_second_linkage_of_zeros_is_none)
{
	fresh();
	add("parent_linkage2", "{00000000-0000-0000-0000-000000000000}");
	cr_assert_eq(decode(), 0);
	cr_assert_not(out.linkage2_present);
}

Test(vhdx_locator, header)
{
	fresh();
	cr_assert_eq(vhdx_locator_decode(bytes, 19, &out, &err), -EBADMSG);
	bytes[0] ^= 1;
	expect(-EOPNOTSUPP, "{b04aefb6-d19e-4a81-b789-25b8e9445913} is unknown");
	fresh();
	base_put_le16(bytes + 18, 65);
	expect(-EOPNOTSUPP, "65 entries, at most 64");
	fresh();
	size = 30;
	expect(-EBADMSG, "do not fit into the item's 30 bytes");
}

Test(vhdx_locator, strings_lie_inside)
{
	static const struct {
		size_t field;
		uint32_t value;
		const char *text;
	} cases[] = {
		{ 0, 0, "key at 0x0" },
		{ 0, 65000, "key at 0xfde8" },
		{ 0, UINT32_MAX, "key at 0xffffffff" },
		{ 4, UINT32_MAX - 1, "value at 0xfffffffe" },
	};

	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		fresh();
		base_put_le32(bytes + 20 + cases[i].field, cases[i].value);
		expect(-EBADMSG, cases[i].text);
	}
	fresh();
	base_put_le16(bytes + 28, 0);
	expect(-EBADMSG, "key length 0");
	fresh();
	base_put_le16(bytes + 30, 3);
	expect(-EBADMSG, "value length 3");
	fresh();
	base_put_le16(bytes + 30, 60000);
	expect(-EBADMSG, "is outside of the item");
}

Test(vhdx_locator, content)
{
	fresh();
	add("relative_path", "other");
	expect(-EBADMSG, "entries 1 and 2 have the same key");
	fresh();
	add("parent_linkage2", "{no guid}");
	expect(-EBADMSG, "\"parent_linkage2\"");
	fresh();
	add("volume_path", "x");
	base_put_le16(bytes + size - 2, 0xd800);
	expect(-EBADMSG, "value of \"volume_path\"");
	fresh();
	add("x", "y");
	base_put_le16(bytes + size - 4, 0xdc00);
	expect(-EBADMSG, "entry 2: key");
	fresh();
	add("godwit_parent_format", "very new");
	expect(-EOPNOTSUPP, "more than 7 in UTF-8");
	fresh();
	bytes[size - 1] = 0; /* still UTF-16 */
	base_put_le16(bytes + 18, 1);
	expect(-EBADMSG, "no path");
	fresh();
	memcpy(bytes + 20, bytes + 32, 12);
	base_put_le16(bytes + 18, 1);
	expect(-EBADMSG, "no \"parent_linkage\"");
}
