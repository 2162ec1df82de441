/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Text for people, made from tables: wrapped columns for --help, roff for man pages.
 * Any thread; what cannot be written is found by whoever flushes @out.
 */
#ifndef AGENT_TEXT_LAYOUT_H
#define AGENT_TEXT_LAYOUT_H

#include <stddef.h>
#include <stdio.h>

/* Blanks from column @used up to @column. */
void text_pad(FILE *out, size_t used, size_t column);
/* @text from @column on, broken at blanks before column 96; ends the line. */
void text_wrap(FILE *out, size_t column, const char *text);
/* @text as roff input, one line per sentence: '-' is a minus; ends the line. */
void text_roff(FILE *out, const char *text);
/* The same within a line: no sentence breaks, no end. */
void text_roff_word(FILE *out, const char *text);

#endif
