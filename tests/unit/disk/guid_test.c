/* SPDX-License-Identifier: Apache-2.0 */
#include "hypervisor/disk/guid.h"

#include <criterion/criterion.h>
#include <string.h>

static const char text[] = "{2dc27766-f623-4200-9d64-115e9bfd4a08}";
static const uint8_t bytes[16] = { 0x66, 0x77, 0xc2, 0x2d, 0x23, 0xf6, 0x00, 0x42,
				   0x9d, 0x64, 0x11, 0x5e, 0x9b, 0xfd, 0x4a, 0x08 };

Test(guid, text_has_the_first_three_fields_swapped)
{
	struct disk_guid guid;
	char out[DISK_GUID_TEXT_BYTES];

	cr_assert(disk_guid_parse(text, strlen(text), &guid));
	cr_assert_arr_eq(guid.bytes, bytes, 16);
	disk_guid_text(&guid, out);
	cr_assert_str_eq(out, text);
}

Test(guid, parse_takes_any_case_and_no_braces)
{
	struct disk_guid guid;

	cr_assert(disk_guid_parse("2DC27766-F623-4200-9D64-115E9BFD4A08", 36, &guid));
	cr_assert_arr_eq(guid.bytes, bytes, 16);
}

Test(guid, parse_refuses_what_is_none)
{
	static const char *const wrong[] = {
		"",
		"{}",
		"{2dc27766-f623-4200-9d64-115e9bfd4a08",
		"2dc27766-f623-4200-9d64-115e9bfd4a08}",
		"{2dc27766-f623-4200-9d64-115e9bfd4a0}",
		"2dc27766xf623-4200-9d64-115e9bfd4a08",
		"2dc27766-f623-4200-9d64-115e9bfd4a0g",
		"2dc27766-f623-4200-9d64-115e9bfd4a088",
	};
	struct disk_guid guid;

	for (size_t i = 0; i < sizeof(wrong) / sizeof(wrong[0]); i++)
		cr_assert_not(disk_guid_parse(wrong[i], strlen(wrong[i]), &guid), "%s", wrong[i]);
}

Test(guid, new_ones_differ_and_are_version_4)
{
	struct disk_guid a = disk_guid_new();
	struct disk_guid b = disk_guid_new();
	const struct disk_guid none = { { 0 } };

	cr_assert_not(disk_guid_equal(&a, &b));
	cr_assert_eq(a.bytes[7] >> 4, 4);
	cr_assert_eq(a.bytes[8] >> 6, 2);
	cr_assert_not(disk_guid_is_zero(&a));
	cr_assert(disk_guid_is_zero(&none));
}
