/* SPDX-License-Identifier: Apache-2.0 */
/* Hexadecimal digits, of ASCII or of UTF-16 units.  Any thread. */
#ifndef BASE_HEX_H
#define BASE_HEX_H

/* 0 to 15; -1 it is none.  A char that is negative is none either. */
static inline int base_hex_digit(int unit)
{
	if (unit >= '0' && unit <= '9')
		return unit - '0';
	if (unit >= 'a' && unit <= 'f')
		return unit - 'a' + 10;
	if (unit >= 'A' && unit <= 'F')
		return unit - 'A' + 10;
	return -1;
}

#endif
