/* SPDX-License-Identifier: Apache-2.0 */
#include "hypervisor/disk/utf16.h"

#include <criterion/criterion.h>
#include <errno.h>
#include <string.h>

Test(utf16, round_trip_of_every_length_of_utf8)
{
	const char *text = "a\xc3\xa4\xe2\x82\xac\xf0\x9f\x90\xa6"; /* 1, 2, 3 and 4 bytes */
	uint8_t units[10];
	char back[16];

	cr_assert_eq(disk_utf16_from_utf8(text, units, sizeof(units)), 10);
	cr_assert_eq(disk_utf16_to_utf8(units, 10, back, sizeof(back)), 10);
	cr_assert_str_eq(back, text);
}

Test(utf16, malformed_utf16_is_refused)
{
	static const uint8_t lone_high[] = { 0x3d, 0xd8 };
	static const uint8_t high_high[] = { 0x3d, 0xd8, 0x3d, 0xd8 };
	static const uint8_t lone_low[] = { 0x26, 0xdc, 'a', 0 };
	static const uint8_t nul[] = { 'a', 0, 0, 0 };
	char to[16];

	cr_assert_eq(disk_utf16_to_utf8(lone_high, 2, to, sizeof(to)), -EILSEQ);
	cr_assert_eq(disk_utf16_to_utf8(high_high, 4, to, sizeof(to)), -EILSEQ);
	cr_assert_eq(disk_utf16_to_utf8(lone_low, 4, to, sizeof(to)), -EILSEQ);
	cr_assert_eq(disk_utf16_to_utf8(nul, 4, to, sizeof(to)), -EILSEQ);
	cr_assert_eq(disk_utf16_to_utf8(nul, 1, to, sizeof(to)), -EILSEQ);
}

Test(utf16, malformed_utf8_is_refused)
{
	static const char *const wrong[] = {
		"\x80",
		"\xc3",
		"\xc0\xaf",
		"\xe0\x80\xaf",
		"\xed\xa0\x80",
		"\xf4\x90\x80\x80",
		"\xf8\x88\x80\x80",
		"a\xe2\x82",
		"\xff",
	};
	uint8_t to[16];

	for (size_t i = 0; i < sizeof(wrong) / sizeof(wrong[0]); i++)
		cr_assert_eq(disk_utf16_from_utf8(wrong[i], to, sizeof(to)), -EILSEQ, "%zu", i);
}

Test(utf16, room_is_never_exceeded)
{
	uint8_t units[4];
	char text[3];

	cr_assert_eq(disk_utf16_from_utf8("abc", units, sizeof(units)), -ENOSPC);
	cr_assert_eq(disk_utf16_from_utf8("ab", units, sizeof(units)), 4);
	cr_assert_eq(disk_utf16_to_utf8(units, 4, text, 2), -ENOSPC);
	cr_assert_eq(disk_utf16_to_utf8(units, 4, text, 3), 2);
	cr_assert_eq(disk_utf16_to_utf8(units, 0, text, 0), -ENOSPC);
}
