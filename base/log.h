/* SPDX-License-Identifier: Apache-2.0 */
/*
 * logfmt lines, one event each, to a descriptor (stderr by default).
 *
 * "ts=... level=notice evt=vm.paused vm=web1 why=..." : the first field is a
 * stable event id listed in docs/events.md.  Strings from outside are given with
 * base_log_str(), which quotes and cuts.  A line is written with one write(2).
 * Any thread.  Libraries log nothing above debug; the process that consumes an
 * error logs it.
 */
#ifndef BASE_LOG_H
#define BASE_LOG_H

#include <stdbool.h>
#include <stdint.h>

#include "base/error.h"

/* By reader: err = act now, warning = degraded but proceeding, notice = state change. */
enum base_log_level {
	BASE_LOG_INVALID,
	BASE_LOG_ERR,
	BASE_LOG_WARNING,
	BASE_LOG_NOTICE,
	BASE_LOG_INFO,
	BASE_LOG_DEBUG,
	BASE_LOG_LEVELS
};

#define BASE_LOG_LINE_BYTES 1024

/* Where lines go and which; called before threads start.  @fd is borrowed. */
void base_log_init(int fd, enum base_log_level most);

/**
 * base_log - write one line.
 * @event:  stable id, lower case words joined by dots, listed in docs/events.md.
 * @format: further "key=value" fields, without newline; "" for none.
 */
void base_log(enum base_log_level level, const char *event, const char *format, ...)
	BASE_PRINTF(3, 4);

/* A value of base_log_str(): kept by value so that it can be an argument. */
struct base_log_quoted {
	char text[160];
};

/* Quote a string from outside for a field: "..." with \" \\ \n and \xNN; cut at 150 bytes. */
struct base_log_quoted base_log_quote(const char *outside);
#define base_log_str(outside) (base_log_quote(outside).text)

/*
 * A few lines of one kind a second, for what an outsider can cause at will: whether one more may be
 * written now.  All zero to begin with; whoever has it guards it.
 */
struct base_log_rate {
	uint64_t since_ns; /* the second that count is of */
	uint32_t count;
};
BASE_MUST_CHECK bool base_log_rate_take(struct base_log_rate *rate, uint64_t now_ns,
					uint32_t lines_per_second);

/* Parse "err", "warning", "notice", "info", "debug"; BASE_LOG_INVALID when none of them. */
enum base_log_level base_log_level_parse(const char *name);

#endif
