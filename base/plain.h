/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Text of a guest's, made fit for people: for a terminal, and for JSON.  Any thread.
 *
 * Source: RFC 3629 section 4 (UTF-8); ECMA-48 (control characters).
 */
#ifndef BASE_PLAIN_H
#define BASE_PLAIN_H

#include <stdbool.h>
#include <stddef.h>

/* What a terminal would obey (U+0000 to U+001F, U+007F to U+009F) and each byte that is not UTF-8
 * become '?'.  In place; never longer. */
void base_plain(char *text);
/* Whether @size_bytes at @text hold nothing that base_plain() changes, and no terminator. */
bool base_is_plain(const char *text, size_t size_bytes);

#endif
