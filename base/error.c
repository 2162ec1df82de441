/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Error text: formatted into a local line first, so that a caller may pass the old
 * text as an argument, then copied; nothing here allocates.
 */
#include "base/error.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct line {
	char text[BASE_ERROR_TEXT_BYTES];
	size_t size_bytes; /* without the terminator; < sizeof(text) */
};

static void line_cut(struct line *line)
{
	static const char mark[] = "...";

	memcpy(line->text + sizeof(line->text) - sizeof(mark), mark, sizeof(mark));
	line->size_bytes = sizeof(line->text) - 1;
}

static void line_append_list(struct line *line, const char *format, va_list args)
	__attribute__((format(printf, 2, 0)));

static void line_append_list(struct line *line, const char *format, va_list args)
{
	size_t room = sizeof(line->text) - line->size_bytes;
	int length = vsnprintf(line->text + line->size_bytes, room, format, args);

	if (length < 0) /* a wide character that cannot be converted: keep what there is */
		line->text[line->size_bytes] = '\0';
	else if ((size_t)length >= room)
		line_cut(line);
	else
		line->size_bytes += (size_t)length;
}

static void line_append(struct line *line, const char *text)
{
	size_t room = sizeof(line->text) - line->size_bytes;
	size_t length = strnlen(text, room);

	memcpy(line->text + line->size_bytes, text, length < room ? length + 1 : room);
	if (length >= room)
		line_cut(line);
	else
		line->size_bytes += length;
}

/* strerror() without its buffer, which threads would share. */
static const char *errno_text(int code)
{
	const char *text = strerrordesc_np(-code);

	return text != NULL ? text : "unknown error";
}

static void error_set(struct base_error *err, int code, const struct line *line)
{
	err->code = code;
	memcpy(err->text, line->text, sizeof(err->text));
}

int base_fail(struct base_error *err, int code, const char *format, ...)
{
	struct line line = { .size_bytes = 0 };
	va_list args;

	if (err == NULL)
		return code;

	va_start(args, format);
	line_append_list(&line, format, args);
	va_end(args);
	error_set(err, code, &line);
	return code;
}

int base_fail_errno(struct base_error *err, int code, const char *format, ...)
{
	struct line line = { .size_bytes = 0 };
	va_list args;

	if (err == NULL)
		return code;

	va_start(args, format);
	line_append_list(&line, format, args);
	va_end(args);
	line_append(&line, ": ");
	line_append(&line, errno_text(code));
	error_set(err, code, &line);
	return code;
}

int base_fail_within(struct base_error *err, int code, const char *format, ...)
{
	struct line line = { .size_bytes = 0 };
	va_list args;

	if (err == NULL)
		return code;

	va_start(args, format);
	line_append_list(&line, format, args);
	va_end(args);
	line_append(&line, ": ");
	line_append(&line, err->code != 0 ? err->text : errno_text(code));
	error_set(err, code, &line);
	return code;
}

void base_bug_at(const char *file, int line, const char *format, ...)
{
	va_list args;

	va_start(args, format);
	fprintf(stderr, "bug at %s:%d: ", file, line);
	vfprintf(stderr, format, args);
	fputc('\n', stderr);
	va_end(args);
	abort();
}
