/* SPDX-License-Identifier: Apache-2.0 */
#include "base/error.h"

#include <criterion/criterion.h>
#include <errno.h>
#include <signal.h>
#include <string.h>

Test(error, fail_fills_code_and_text)
{
	struct base_error err = { .code = 0 };

	cr_assert_eq(base_fail(&err, -EINVAL, "memory %d, not %s", 0, "1..8"), -EINVAL);
	cr_assert_eq(err.code, -EINVAL);
	cr_assert_str_eq(err.text, "memory 0, not 1..8");
}

Test(error, null_error_still_returns_the_code)
{
	cr_assert_eq(base_fail(NULL, -EBADMSG, "x"), -EBADMSG);
	cr_assert_eq(base_fail_errno(NULL, -ENOENT, "x"), -ENOENT);
	cr_assert_eq(base_fail_within(NULL, -ESTALE, "x"), -ESTALE);
}

Test(error, fail_replaces_what_was_there)
{
	struct base_error err = { .code = 0 };

	(void)base_fail(&err, -EINVAL, "a long first text");
	(void)base_fail(&err, -EPROTO, "second");
	cr_assert_eq(err.code, -EPROTO);
	cr_assert_str_eq(err.text, "second");
}

Test(error, old_text_may_be_an_argument)
{
	struct base_error err = { .code = 0 };

	(void)base_fail(&err, -EINVAL, "inner");
	(void)base_fail(&err, -EPROTO, "<%s>", err.text);
	cr_assert_str_eq(err.text, "<inner>");
}

Test(error, errno_text_is_appended)
{
	struct base_error err = { .code = 0 };

	cr_assert_eq(base_fail_errno(&err, -ENOENT, "open '%s'", "k"), -ENOENT);
	cr_assert_str_eq(err.text, "open 'k': No such file or directory");
	(void)base_fail_errno(&err, -99999, "odd");
	cr_assert_str_eq(err.text, "odd: unknown error");
}

Test(error, context_goes_in_front)
{
	struct base_error err = { .code = 0 };

	(void)base_fail(&err, -EINVAL, "refused");
	cr_assert_eq(base_fail_within(&err, -EINVAL, "link to '%s'", "n2"), -EINVAL);
	cr_assert_str_eq(err.text, "link to 'n2': refused");
}

Test(error, context_without_callee_text_uses_strerror)
{
	struct base_error err = { .code = 0 };

	(void)base_fail_within(&err, -ENOSPC, "save");
	cr_assert_eq(err.code, -ENOSPC);
	cr_assert_str_eq(err.text, "save: No space left on device");
}

static void expect_cut(const struct base_error *err)
{
	cr_assert_eq(strlen(err->text), BASE_ERROR_TEXT_BYTES - 1);
	cr_assert_str_eq(err->text + BASE_ERROR_TEXT_BYTES - 4, "...");
}

Test(error, long_text_is_cut_with_dots)
{
	char longer[2 * BASE_ERROR_TEXT_BYTES];
	struct base_error err = { .code = 0 };

	memset(longer, 'a', sizeof(longer) - 1);
	longer[sizeof(longer) - 1] = '\0';
	(void)base_fail(&err, -EINVAL, "%s", longer);
	expect_cut(&err);
	(void)base_fail_within(&err, -EINVAL, "context");
	expect_cut(&err);
	cr_assert_eq(strncmp(err.text, "context: aaa", 12), 0);
	(void)base_fail_errno(&err, -EINVAL, "%s", longer);
	expect_cut(&err);
}

Test(error, every_length_around_the_limit_is_terminated)
{
	char text[BASE_ERROR_TEXT_BYTES + 8];
	struct base_error err = { .code = 0 };

	for (size_t length = BASE_ERROR_TEXT_BYTES - 40; length < sizeof(text); length++) {
		memset(text, 'b', length);
		text[length] = '\0';
		(void)base_fail_errno(&err, -ENOENT, "%s", text);
		cr_assert(memchr(err.text, '\0', sizeof(err.text)) != NULL);
		(void)base_fail(&err, -ENOENT, "%s", text);
		if (length < BASE_ERROR_TEXT_BYTES)
			cr_assert_str_eq(err.text, text);
		else
			expect_cut(&err);
	}
}

Test(error, bug_aborts, .signal = SIGABRT)
{
	base_bug("state %d", 7);
}

Test(error, assert_that_does_not_hold_aborts, .signal = SIGABRT)
{
	base_assert(1 + 1 == 3);
}

Test(error, assert_that_holds_does_nothing)
{
	base_assert(1 + 1 == 2);
}
