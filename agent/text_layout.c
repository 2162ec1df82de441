/* SPDX-License-Identifier: Apache-2.0 */
#include "agent/text_layout.h"

#include <string.h>

#define WIDTH 96

void text_pad(FILE *out, size_t used, size_t column)
{
	for (size_t i = used; i < column; i++)
		(void)fputc(' ', out);
}

void text_wrap(FILE *out, size_t column, const char *text)
{
	size_t at = column;

	while (*text != '\0') {
		size_t word = strcspn(text, " ");

		if (at > column && at + 1 + word > WIDTH) {
			(void)fputc('\n', out);
			text_pad(out, 0, column);
			at = column;
		} else if (at > column) {
			(void)fputc(' ', out);
			at++;
		}
		(void)fwrite(text, 1, word, out);
		at += word;
		text += word;
		while (*text == ' ')
			text++;
	}
	(void)fputc('\n', out);
}

static void roff_char(FILE *out, char c)
{
	if (c == '-')
		(void)fputs("\\-", out);
	else if (c == '\\')
		(void)fputs("\\e", out);
	else
		(void)fputc(c, out);
}

void text_roff_word(FILE *out, const char *text)
{
	for (; *text != '\0'; text++)
		roff_char(out, *text);
}

void text_roff(FILE *out, const char *text)
{
	for (; *text != '\0'; text++) {
		if (text[0] == '.' && text[1] == ' ' && text[2] >= 'A' && text[2] <= 'Z') {
			(void)fputs(".\n", out); /* a sentence ends its line */
			text++;
		} else {
			roff_char(out, *text);
		}
	}
	(void)fputc('\n', out);
}
