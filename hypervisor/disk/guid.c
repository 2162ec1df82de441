/* SPDX-License-Identifier: Apache-2.0 */
#include "hypervisor/disk/guid.h"

#include <stdio.h>
#include <string.h>

#include "base/bytes.h"
#include "base/clock.h"
#include "base/hex.h"

/* Byte of the GUID that each pair of hexadecimal digits stands for, in the order of the text. */
static const uint8_t text_order[16] = { 3, 2, 1, 0, 5, 4, 7, 6, 8, 9, 10, 11, 12, 13, 14, 15 };

#define TEXT_CHARS 36U /* without braces */

struct disk_guid disk_guid_new(void)
{
	struct disk_guid guid;

	base_random_bytes(guid.bytes, sizeof(guid.bytes));
	guid.bytes[7] = (uint8_t)((guid.bytes[7] & 0x0f) | 0x40); /* version 4: random */
	guid.bytes[8] = (uint8_t)((guid.bytes[8] & 0x3f) | 0x80); /* variant of RFC 4122 */
	return guid;
}

bool disk_guid_equal(const struct disk_guid *a, const struct disk_guid *b)
{
	return memcmp(a->bytes, b->bytes, sizeof(a->bytes)) == 0;
}

bool disk_guid_is_zero(const struct disk_guid *guid)
{
	return base_is_zero(guid->bytes, sizeof(guid->bytes));
}

static bool is_dash(size_t index)
{
	return index == 8 || index == 13 || index == 18 || index == 23;
}

void disk_guid_text(const struct disk_guid *guid, char ret_text[DISK_GUID_TEXT_BYTES])
{
	static const char digits[] = "0123456789abcdef";
	size_t nibble = 0;

	ret_text[0] = '{';
	for (size_t i = 0; i < TEXT_CHARS; i++) {
		uint8_t byte;

		if (is_dash(i)) {
			ret_text[i + 1] = '-';
			continue;
		}
		byte = guid->bytes[text_order[nibble / 2]];
		ret_text[i + 1] = digits[nibble % 2 == 0 ? byte >> 4 : byte & 0x0f];
		nibble++;
	}
	ret_text[TEXT_CHARS + 1] = '}';
	ret_text[TEXT_CHARS + 2] = '\0';
}

bool disk_guid_parse(const char *text, size_t text_bytes, struct disk_guid *ret_guid)
{
	struct disk_guid guid = { 0 };
	size_t nibble = 0;

	if (text_bytes == TEXT_CHARS + 2 && text[0] == '{' && text[TEXT_CHARS + 1] == '}') {
		text++;
		text_bytes -= 2;
	}
	if (text_bytes != TEXT_CHARS)
		return false;
	for (size_t i = 0; i < TEXT_CHARS; i++) {
		uint8_t *byte;
		int digit;

		if (is_dash(i)) {
			if (text[i] != '-')
				return false;
			continue;
		}
		digit = base_hex_digit(text[i]);
		if (digit < 0)
			return false;
		byte = &guid.bytes[text_order[nibble / 2]];
		*byte = (uint8_t)((*byte << 4) | digit);
		nibble++;
	}
	*ret_guid = guid;
	return true;
}
