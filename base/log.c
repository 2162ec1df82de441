/* SPDX-License-Identifier: Apache-2.0 */
/* One line, one write(2): lines of several threads and processes never mix. */
#include "base/log.h"

#include <errno.h>
#include <poll.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "base/clock.h"

#define CUT_DOTS         3   /* "..." at the end of what was cut */
#define QUOTED_BYTES_MAX 150 /* escaped bytes between the quotes, before the mark of a cut */

static const char *const level_names[BASE_LOG_LEVELS] = {
	[BASE_LOG_INVALID] = "invalid", [BASE_LOG_ERR] = "err",   [BASE_LOG_WARNING] = "warning",
	[BASE_LOG_NOTICE] = "notice",   [BASE_LOG_INFO] = "info", [BASE_LOG_DEBUG] = "debug",
};

static atomic_int log_fd = STDERR_FILENO;
static atomic_int log_most = BASE_LOG_INFO;

void base_log_init(int fd, enum base_log_level most)
{
	atomic_store(&log_fd, fd);
	atomic_store(&log_most, (int)most);
}

/* "ts=2024-05-06T07:08:09.123Z level=... evt=..."; gives the length. */
static size_t line_begin(char *line, size_t room, enum base_log_level level, const char *event)
{
	uint64_t now_ns = base_clock_real_ns(&base_clock_system);
	time_t seconds = (time_t)(now_ns / BASE_NS_PER_SECOND);
	unsigned int ms = (unsigned int)(now_ns % BASE_NS_PER_SECOND / BASE_NS_PER_MS);
	struct tm utc = { .tm_sec = 0 };
	char day_time[32] = "";
	int length = 0;

	if (gmtime_r(&seconds, &utc) != NULL)
		(void)strftime(day_time, sizeof(day_time), "%Y-%m-%dT%H:%M:%S", &utc);
	length = snprintf(line, room, "ts=%s.%03uZ level=%s evt=%s", day_time, ms,
			  level_names[level], event);
	return (size_t)length < room ? (size_t)length : room - 1;
}

static void line_write(const char *line, size_t size_bytes)
{
	struct pollfd out = { .fd = atomic_load(&log_fd), .events = POLLOUT };
	ssize_t written = 0;

	/* A log that cannot be written must not stop the process: the line is lost.  A pipe that
	 * nobody reads is full sooner or later; one that has room takes a line whole. */
	if (poll(&out, 1, 0) == 0)
		return;
	do {
		written = write(out.fd, line, size_bytes);
	} while (written < 0 && errno == EINTR);
}

void base_log(enum base_log_level level, const char *event, const char *format, ...)
{
	char line[BASE_LOG_LINE_BYTES];
	size_t room = sizeof(line) - 1; /* one byte for the newline */
	int saved_errno = errno;
	size_t used = 0;
	int length = 0;
	va_list args;

	base_assert(level > BASE_LOG_INVALID && level < BASE_LOG_LEVELS);
	if ((int)level > atomic_load(&log_most))
		return;

	used = line_begin(line, room, level, event);
	if (format[0] != '\0' && used < room - 1) {
		line[used++] = ' ';
		va_start(args, format);
		length = vsnprintf(line + used, room - used, format, args);
		va_end(args);
		if (length >= 0 && (size_t)length >= room - used) {
			used = room - 1;
			memset(line + used - CUT_DOTS, '.', CUT_DOTS);
		} else if (length >= 0) {
			used += (size_t)length;
		}
	}
	for (size_t i = 0; i < used; i++) {
		if ((unsigned char)line[i] < 0x20 || line[i] == 0x7f)
			line[i] = '?'; /* one event stays one line, whatever an error text holds */
	}
	line[used++] = '\n';
	line_write(line, used);
	errno = saved_errno;
}

/* One byte as it stands between quotes; gives the length, at most 4. */
static size_t quote_byte(unsigned char byte, char to[4])
{
	static const char digits[] = "0123456789abcdef";

	if (byte == '"' || byte == '\\') {
		to[0] = '\\';
		to[1] = (char)byte;
		return 2;
	}
	if (byte == '\n') {
		to[0] = '\\';
		to[1] = 'n';
		return 2;
	}
	if (byte >= 0x20 && byte < 0x7f) {
		to[0] = (char)byte;
		return 1;
	}
	to[0] = '\\';
	to[1] = 'x';
	to[2] = digits[byte >> 4];
	to[3] = digits[byte & 0xf];
	return 4;
}

struct base_log_quoted base_log_quote(const char *outside)
{
	struct base_log_quoted quoted;
	size_t used = 0;
	size_t i = 0;

	outside = outside != NULL ? outside : "";
	quoted.text[used++] = '"';
	for (i = 0; outside[i] != '\0'; i++) {
		char escaped[4];
		size_t length = quote_byte((unsigned char)outside[i], escaped);

		if (used - 1 + length > QUOTED_BYTES_MAX) {
			memset(quoted.text + used, '.', CUT_DOTS);
			used += CUT_DOTS;
			break;
		}
		memcpy(quoted.text + used, escaped, length);
		used += length;
	}
	quoted.text[used++] = '"';
	quoted.text[used] = '\0';
	return quoted;
}

enum base_log_level base_log_level_parse(const char *name)
{
	for (int level = BASE_LOG_ERR; level < BASE_LOG_LEVELS; level++) {
		if (strcmp(name, level_names[level]) == 0)
			return (enum base_log_level)level;
	}
	return BASE_LOG_INVALID;
}

bool base_log_rate_take(struct base_log_rate *rate, uint64_t now_ns, uint32_t lines_per_second)
{
	if (rate->count == 0 || now_ns - rate->since_ns >= BASE_NS_PER_SECOND)
		*rate = (struct base_log_rate){ .since_ns = now_ns };
	if (rate->count >= lines_per_second)
		return false;
	rate->count++;
	return true;
}
