/* SPDX-License-Identifier: Apache-2.0 */
/* Formatting and sending of console lines, and the functions compilers call by themselves. */
#include "tests/guest/guest_print.h"

#include <stdbool.h>
#include <stddef.h>

#include "tests/guest/guest_call.h"
#include "tests/guest/guest_work.h"

#define DIGITS_MAX 20

void *memset(void *to, int value, size_t bytes);
void *memcpy(void *to, const void *from, size_t bytes);
int memcmp(const void *a, const void *b, size_t bytes);

void *memset(void *to, int value, size_t bytes)
{
	void *at = to;

	__asm__ volatile("rep stosb" : "+D"(at), "+c"(bytes) : "a"(value) : "memory");
	return to;
}

void *memcpy(void *to, const void *from, size_t bytes)
{
	void *at = to;

	__asm__ volatile("rep movsb" : "+D"(at), "+S"(from), "+c"(bytes) : : "memory");
	return to;
}

int memcmp(const void *a, const void *b, size_t bytes)
{
	const uint8_t *left = a, *right = b;

	for (size_t i = 0; i < bytes; i++)
		if (left[i] != right[i])
			return left[i] < right[i] ? -1 : 1;
	return 0;
}

static void add_char(struct guest_line *line, char letter)
{
	if (line->used < GUEST_LINE_BYTES - 2) /* room for the line end */
		line->text[line->used++] = letter;
}

void guest_line_text(struct guest_line *line, const char *text)
{
	while (*text != '\0')
		add_char(line, *text++);
}

void guest_line_number(struct guest_line *line, const char *name, uint64_t value)
{
	char digits[DIGITS_MAX];
	unsigned int count = 0;

	guest_line_text(line, name);
	do {
		digits[count++] = (char)('0' + value % 10);
		value /= 10;
	} while (value != 0);
	while (count > 0)
		add_char(line, digits[--count]);
}

void guest_line_hex(struct guest_line *line, const char *name, uint64_t value, unsigned int digits)
{
	unsigned int count = 1;

	while (count < 16 && (value >> (count * 4)) != 0)
		count++;
	if (count < digits)
		count = digits;
	guest_line_text(line, name);
	while (count > 0)
		add_char(line, "0123456789abcdef"[(value >> (--count * 4)) & 15]);
}

void guest_line_send(struct guest_line *line)
{
	static bool busy;

	line->text[line->used++] = '\r';
	line->text[line->used++] = '\n';
	while (__atomic_test_and_set(&busy, __ATOMIC_ACQUIRE))
		__builtin_ia32_pause();
	guest_call(SUPER_PRINT, (uint64_t)line->text, line->used, 0);
	__atomic_clear(&busy, __ATOMIC_RELEASE);
	line->used = 0;
}

void guest_die(const char *what, const char *detail)
{
	struct guest_line line;

	line.used = 0;
	guest_line_text(&line, "guest: FATAL ");
	guest_line_text(&line, what);
	guest_line_text(&line, detail);
	guest_line_send(&line);
	guest_work_stop();
}
