/* SPDX-License-Identifier: Apache-2.0 */
/* Text made fit for people: plain.h. */
#include "base/plain.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Bytes of the character that @text begins with, 0 when it is none. */
static size_t character(const unsigned char *text, uint32_t *ret_value)
{
	static const uint32_t least[] = { 0, 0, 0x80, 0x800, 0x10000 };
	size_t bytes = text[0] < 0x80 ? 1 : text[0] >= 0xf0 ? 4 : text[0] >= 0xe0 ? 3 : 2;
	uint32_t value = bytes == 1 ? text[0] : text[0] & (0x7fU >> bytes);

	if ((text[0] & 0xc0) == 0x80 || text[0] > 0xf7)
		return 0;
	for (size_t i = 1; i < bytes; i++) { /* the terminator ends it, too */
		if ((text[i] & 0xc0) != 0x80)
			return 0;
		value = value << 6 | (text[i] & 0x3fU);
	}
	if (value < least[bytes] || value > 0x10ffff || (value >= 0xd800 && value < 0xe000))
		return 0;
	*ret_value = value;
	return bytes;
}

void base_plain(char *text)
{
	const char *from = text;

	while (*from != '\0') {
		uint32_t value = 0;
		size_t bytes = character((const unsigned char *)from, &value);
		bool shown = bytes > 0 && value >= 0x20 && (value < 0x7f || value > 0x9f);

		if (!shown)
			*text++ = '?';
		for (size_t i = 0; shown && i < bytes; i++)
			*text++ = from[i];
		from += bytes > 0 ? bytes : 1;
	}
	*text = '\0';
}
