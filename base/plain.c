/* SPDX-License-Identifier: Apache-2.0 */
/* Text made fit for people: plain.h. */
#include "base/plain.h"

#include <stdint.h>
#include <string.h>

/* Bytes of the character that the @left bytes at @text begin with, 0 when it is none. */
static size_t character(const unsigned char *text, size_t left, uint32_t *ret_value)
{
	static const uint32_t least[] = { 0, 0, 0x80, 0x800, 0x10000 };
	size_t bytes = text[0] < 0x80 ? 1 : text[0] >= 0xf0 ? 4 : text[0] >= 0xe0 ? 3 : 2;
	uint32_t value = bytes == 1 ? text[0] : text[0] & (0x7fU >> bytes);

	if ((text[0] & 0xc0) == 0x80 || text[0] > 0xf7 || bytes > left)
		return 0;
	for (size_t i = 1; i < bytes; i++) {
		if ((text[i] & 0xc0) != 0x80)
			return 0;
		value = value << 6 | (text[i] & 0x3fU);
	}
	if (value < least[bytes] || value > 0x10ffff || (value >= 0xd800 && value < 0xe000))
		return 0;
	*ret_value = value;
	return bytes;
}

/* The same, 0 also when a terminal would obey it. */
static size_t shown(const char *text, size_t left)
{
	uint32_t value = 0;
	size_t bytes = character((const unsigned char *)text, left, &value);

	return value >= 0x20 && (value < 0x7f || value > 0x9f) ? bytes : 0;
}

void base_plain(char *text)
{
	const char *from = text;
	const char *end = text + strlen(text);

	while (from < end) {
		size_t left = (size_t)(end - from);
		uint32_t value = 0;
		size_t bytes = shown(from, left);
		size_t taken =
			bytes > 0 ? bytes : character((const unsigned char *)from, left, &value);

		if (bytes == 0)
			*text++ = '?';
		for (size_t i = 0; i < bytes; i++)
			*text++ = from[i];
		from += taken > 0 ? taken : 1;
	}
	*text = '\0';
}

bool base_is_plain(const char *text, size_t size_bytes)
{
	size_t at = 0;

	while (at < size_bytes) {
		size_t bytes = shown(text + at, size_bytes - at);

		if (bytes == 0)
			return false;
		at += bytes;
	}
	return true;
}
