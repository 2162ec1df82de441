/* SPDX-License-Identifier: Apache-2.0 */
#include "hypervisor/disk/utf16.h"

#include <errno.h>
#include <limits.h>
#include <stdbool.h>
#include <string.h>

#include "base/bytes.h"

/* The code point at @from; *ret_bytes: 2 or 4.  0 when it is none that may stand in text. */
static uint32_t utf16_point(const uint8_t *from, size_t size_bytes, size_t *ret_bytes)
{
	uint32_t high = base_get_le16(from);
	uint32_t low;

	*ret_bytes = 2;
	if (high < 0xd800 || high > 0xdfff)
		return high;
	if (high > 0xdbff || size_bytes < 4)
		return 0;
	low = base_get_le16(from + 2);
	if (low < 0xdc00 || low > 0xdfff)
		return 0;
	*ret_bytes = 4;
	return 0x10000 + ((high - 0xd800) << 10) + (low - 0xdc00);
}

/* Into 4 bytes at @to; returns how many. */
static size_t utf8_put(uint32_t point, uint8_t to[4])
{
	if (point < 0x80) {
		to[0] = (uint8_t)point;
		return 1;
	}
	if (point < 0x800) {
		to[0] = (uint8_t)(0xc0 | (point >> 6));
		to[1] = (uint8_t)(0x80 | (point & 0x3f));
		return 2;
	}
	if (point < 0x10000) {
		to[0] = (uint8_t)(0xe0 | (point >> 12));
		to[1] = (uint8_t)(0x80 | ((point >> 6) & 0x3f));
		to[2] = (uint8_t)(0x80 | (point & 0x3f));
		return 3;
	}
	to[0] = (uint8_t)(0xf0 | (point >> 18));
	to[1] = (uint8_t)(0x80 | ((point >> 12) & 0x3f));
	to[2] = (uint8_t)(0x80 | ((point >> 6) & 0x3f));
	to[3] = (uint8_t)(0x80 | (point & 0x3f));
	return 4;
}

int disk_utf16_to_utf8(const uint8_t *from, size_t size_bytes, char *to, size_t capacity)
{
	size_t used = 0;

	if (capacity == 0 || capacity > INT_MAX)
		return -ENOSPC;
	if (size_bytes % 2 != 0)
		return -EILSEQ;
	while (size_bytes > 0) {
		uint8_t piece[4];
		size_t taken = 0;
		size_t count;
		uint32_t point = utf16_point(from, size_bytes, &taken);

		if (point == 0)
			return -EILSEQ;
		count = utf8_put(point, piece);
		if (count >= capacity - used)
			return -ENOSPC;
		memcpy(to + used, piece, count);
		used += count;
		from += taken;
		size_bytes -= taken;
	}
	to[used] = '\0';
	return (int)used;
}

/* The code point at @from, which is terminated, and its length; 0 when it is malformed. */
static uint32_t utf8_point(const uint8_t *from, size_t *ret_bytes)
{
	static const uint32_t smallest[5] = { 0, 0, 0x80, 0x800, 0x10000 };
	uint32_t point;
	size_t count;

	if (from[0] < 0x80) {
		*ret_bytes = 1;
		return from[0];
	}
	if (from[0] >= 0xf8 || from[0] < 0xc0)
		return 0;
	count = from[0] >= 0xf0 ? 4 : from[0] >= 0xe0 ? 3 : 2;
	point = from[0] & (0xffU >> (count + 1));
	for (size_t i = 1; i < count; i++) { /* ends at the terminator: it is no continuation */
		if ((from[i] & 0xc0) != 0x80)
			return 0;
		point = (point << 6) | (from[i] & 0x3fU);
	}
	if (point < smallest[count] || point > 0x10ffff || (point >= 0xd800 && point <= 0xdfff))
		return 0;
	*ret_bytes = count;
	return point;
}

int disk_utf16_from_utf8(const char *from, uint8_t *to, size_t capacity)
{
	const uint8_t *at = (const uint8_t *)from;
	size_t used = 0;

	if (capacity > INT_MAX)
		return -ENOSPC;
	while (*at != 0) {
		size_t taken = 0;
		uint32_t point = utf8_point(at, &taken);
		size_t count = point >= 0x10000 ? 4 : 2;

		if (point == 0)
			return -EILSEQ;
		if (count > capacity - used)
			return -ENOSPC;
		if (count == 4) {
			base_put_le16(to + used, (uint16_t)(0xd800 + ((point - 0x10000) >> 10)));
			base_put_le16(to + used + 2,
				      (uint16_t)(0xdc00 + ((point - 0x10000) & 0x3ff)));
		} else {
			base_put_le16(to + used, (uint16_t)point);
		}
		used += count;
		at += taken;
	}
	return (int)used;
}
