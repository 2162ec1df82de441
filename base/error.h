/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Error text that travels up beside a negative errno.
 *
 * Owned by the caller, fixed size, never allocates: it works when memory is
 * gone.  A failure is described where it is seen (base_fail) and gets one layer
 * of context at each boundary it crosses (base_fail_within).  Whoever consumes
 * the error logs it, once.  Not shared between threads.
 */
#ifndef BASE_ERROR_H
#define BASE_ERROR_H

#include <stddef.h>

#define BASE_ERROR_TEXT_BYTES 512 /* one line on any terminal or log, with room for two paths */

#define BASE_MUST_CHECK __attribute__((warn_unused_result))
#define BASE_PRINTF(format_index, args_index)                                                      \
	__attribute__((format(printf, format_index, args_index)))

/* Zero-initialised is "no error".  @text is always terminated. */
struct base_error {
	int code; /* negative errno, 0 while unset */
	char text[BASE_ERROR_TEXT_BYTES];
};

/**
 * base_fail - describe a failure where it is seen.
 * @err:    filled, replacing what was there; may be NULL.
 * @code:   negative errno (HOUSE: -EINVAL user input, -EBADMSG malformed bytes,
 *          -EPROTO not allowed now, -ESTALE higher epoch, -ETIMEDOUT unknown,
 *          -EAGAIN nothing happened, -ECANCELED, -ENOMEM/-ENOSPC).
 * @format: one line without newline: the thing, the value seen, the value wanted.
 *
 * Return: @code, so that "return base_fail(...)" reads naturally.  Text that
 * does not fit is cut and ends in "...".
 */
int base_fail(struct base_error *err, int code, const char *format, ...) BASE_PRINTF(3, 4);

/**
 * base_fail_errno - like base_fail() with ": <strerror>" of -@code appended.
 */
int base_fail_errno(struct base_error *err, int code, const char *format, ...) BASE_PRINTF(3, 4);

/**
 * base_fail_within - put "<context>: " before a text that a callee has set.
 * @err:  as the callee left it; when the callee set no text (code 0), strerror of
 *        -@code is used as its text.
 * @code: the callee's negative errno.
 *
 * Return: @code.
 */
int base_fail_within(struct base_error *err, int code, const char *format, ...) BASE_PRINTF(3, 4);

/**
 * base_bug - a programmer's error: print where and what to stderr and abort.
 * Never used on bytes that come from outside.  Compiled into release builds.
 */
#define base_bug(...) base_bug_at(__FILE__, __LINE__, __VA_ARGS__)
_Noreturn void base_bug_at(const char *file, int line, const char *format, ...) BASE_PRINTF(3, 4);

/* base_assert - like assert(), but never compiled out. */
#define base_assert(condition)                                                                     \
	do {                                                                                       \
		if (!(condition))                                                                  \
			base_bug("assertion '%s' does not hold", #condition);                      \
	} while (0)

#endif
