/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Sizes as people write them.
 */
#include <inttypes.h>
#include <string.h>

#include "agent/cli.h"

#define FRACTION_DIGITS 9 /* more than the binary suffixes need for sensible sizes */

static const char suffixes[] = "KMGTP";

static bool is_digit(char c)
{
	return c >= '0' && c <= '9';
}

/* "", "B", "K", "KB", "KiB"...: how many bits to shift; -1: no suffix. */
static int suffix_shift(const char *text)
{
	const char *found;
	char letter = *text;

	if (letter == '\0' || strcmp(text, "B") == 0)
		return 0;
	if (letter >= 'a' && letter <= 'z')
		letter = (char)(letter - 'a' + 'A');
	found = strchr(suffixes, letter);
	if (found == NULL)
		return -1;
	if (text[1] != '\0' && strcmp(text + 1, "B") != 0 && strcmp(text + 1, "iB") != 0)
		return -1;
	return 10 * (int)(found - suffixes + 1);
}

bool cli_size_parse(const char *text, uint64_t *ret_bytes)
{
	uint64_t whole = 0;
	uint64_t part = 0;
	uint64_t scale = 1;
	int shift;

	if (!is_digit(*text))
		return false;
	for (; is_digit(*text); text++) {
		if (whole > ((uint64_t)INT64_MAX - (uint64_t)(*text - '0')) / 10)
			return false;
		whole = whole * 10 + (uint64_t)(*text - '0');
	}
	if (*text == '.') {
		text++;
		if (!is_digit(*text))
			return false;
		for (int digits = 0; is_digit(*text); text++, digits++) {
			if (digits == FRACTION_DIGITS)
				return false;
			part = part * 10 + (uint64_t)(*text - '0');
			scale *= 10;
		}
	}
	shift = suffix_shift(text);
	if (shift < 0 || whole > (uint64_t)INT64_MAX >> shift)
		return false;
	/* part < 10^9 < 2^30: of the 50 bits of P the last 16 are shifted after dividing. */
	if (part != 0) {
		uint64_t first = shift > 34 ? 34 : (uint64_t)shift;
		uint64_t rest = (uint64_t)shift - first;
		uint64_t bytes = part << first;

		if (bytes % scale != 0)
			return false;
		bytes = (bytes / scale) << rest;
		if (bytes > (uint64_t)INT64_MAX - (whole << shift))
			return false;
		*ret_bytes = (whole << shift) + bytes;
		return true;
	}
	*ret_bytes = whole << shift;
	return true;
}

void cli_size_show(uint64_t size_bytes, char ret_text[CLI_SIZE_SHOWN_BYTES])
{
	int unit = -1;
	uint64_t shift = 0;
	uint64_t hundredths;
	uint64_t whole;

	while (unit < (int)sizeof(suffixes) - 2 && size_bytes >> (shift + 10) != 0) {
		shift += 10;
		unit++;
	}
	if (unit < 0) {
		(void)snprintf(ret_text, CLI_SIZE_SHOWN_BYTES, "%" PRIu64 " bytes", size_bytes);
		return;
	}
	whole = size_bytes >> shift;
	/* The 20 bits below the unit's are enough for two digits and cannot overflow. */
	hundredths = shift >= 20 ? (size_bytes >> (shift - 20)) & 0xfffff
				 : (size_bytes << (20 - shift)) & 0xfffff;
	hundredths = (hundredths * 100) >> 20;
	if (hundredths == 0)
		(void)snprintf(ret_text, CLI_SIZE_SHOWN_BYTES, "%" PRIu64 " %ciB", whole,
			       suffixes[unit]);
	else if (whole >= 100 || hundredths % 10 == 0)
		(void)snprintf(ret_text, CLI_SIZE_SHOWN_BYTES, "%" PRIu64 ".%" PRIu64 " %ciB",
			       whole, hundredths / 10, suffixes[unit]);
	else
		(void)snprintf(ret_text, CLI_SIZE_SHOWN_BYTES, "%" PRIu64 ".%02" PRIu64 " %ciB",
			       whole, hundredths, suffixes[unit]);
}
