/* SPDX-License-Identifier: Apache-2.0 */
#include "base/clock.h"
#include "base/log.h"

#include <criterion/criterion.h>
#include <errno.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

static char content[4 * BASE_LOG_LINE_BYTES];
static int log_to = -1;

static void log_begin(void)
{
	log_to = memfd_create("log", MFD_CLOEXEC);
	cr_assert_geq(log_to, 0);
	base_log_init(log_to, BASE_LOG_NOTICE);
}

static const char *logged(void)
{
	ssize_t got = pread(log_to, content, sizeof(content) - 1, 0);

	cr_assert_geq(got, 0);
	content[got] = '\0';
	return content;
}

Test(log, line_has_time_level_event_and_fields, .init = log_begin)
{
	base_log(BASE_LOG_NOTICE, "vm.paused", "vm=%s why=%s", "web1", "user");
	cr_assert_eq(strncmp(logged(), "ts=2", 4), 0);
	cr_assert_not_null(strstr(content, "Z level=notice evt=vm.paused vm=web1 why=user\n"));
	cr_assert_eq(strlen("ts=2024-05-06T07:08:09.123Z"), strcspn(content, " "));
}

Test(log, no_fields_no_trailing_space, .init = log_begin)
{
	const char *none = "";

	base_log(BASE_LOG_ERR, "vm.lost", "%s", none);
	cr_assert_not_null(strstr(logged(), "evt=vm.lost \n"), "fields that came out empty");
	base_log(BASE_LOG_ERR, "vm.gone", "");
	cr_assert_not_null(strstr(logged(), "evt=vm.gone\n"));
}

Test(log, levels_above_the_most_are_dropped, .init = log_begin)
{
	base_log(BASE_LOG_INFO, "a.b", "x=1");
	base_log(BASE_LOG_DEBUG, "a.b", "x=1");
	cr_assert_str_eq(logged(), "");
	base_log(BASE_LOG_WARNING, "a.b", "x=1");
	cr_assert_str_neq(logged(), "");
}

Test(log, a_long_line_is_cut_and_stays_one, .init = log_begin)
{
	char longer[2 * BASE_LOG_LINE_BYTES];

	memset(longer, 'x', sizeof(longer) - 1);
	longer[sizeof(longer) - 1] = '\0';
	base_log(BASE_LOG_ERR, "a.b", "k=%s", longer);
	cr_assert_leq(strlen(logged()), BASE_LOG_LINE_BYTES);
	cr_assert_str_eq(strchr(content, '\n'), "\n");
	cr_assert_not_null(strstr(content, "xxx...\n"));
}

Test(log, control_bytes_cannot_forge_a_line, .init = log_begin)
{
	base_log(BASE_LOG_ERR, "a.b", "k=%s", "1\nts=0 level=err evt=forged\x1b[0m");
	cr_assert_str_eq(strchr(logged(), '\n'), "\n");
	cr_assert_null(strchr(content, '\x1b'));
}

Test(log, errno_is_kept, .init = log_begin)
{
	errno = EXDEV;
	base_log_init(-1, BASE_LOG_NOTICE);
	base_log(BASE_LOG_ERR, "a.b", "k=1");
	cr_assert_eq(errno, EXDEV);
}

Test(log, quote_escapes)
{
	cr_assert_str_eq(base_log_str("plain"), "\"plain\"");
	cr_assert_str_eq(base_log_str("a\"b\\c\nd\te\x7f\xff"),
			 "\"a\\\"b\\\\c\\nd\\x09e\\x7f\\xff\"");
	cr_assert_str_eq(base_log_str(""), "\"\"");
	cr_assert_str_eq(base_log_str(NULL), "\"\"");
}

Test(log, quote_cuts_between_escapes)
{
	char text[400];

	for (size_t length = 0; length < sizeof(text); length++) {
		struct base_log_quoted quoted;
		size_t size = 0;

		memset(text, '\x01', length);
		text[length] = '\0';
		quoted = base_log_quote(text);
		size = strlen(quoted.text);
		cr_assert_eq(quoted.text[size - 1], '"');
		if (length <= 150 / 4)
			cr_assert_eq(size, 2 + 4 * length);
		else
			cr_assert_str_eq(quoted.text + size - 8, "\\x01...\"");
	}
}

Test(log, level_names)
{
	cr_assert_eq(base_log_level_parse("err"), BASE_LOG_ERR);
	cr_assert_eq(base_log_level_parse("warning"), BASE_LOG_WARNING);
	cr_assert_eq(base_log_level_parse("notice"), BASE_LOG_NOTICE);
	cr_assert_eq(base_log_level_parse("info"), BASE_LOG_INFO);
	cr_assert_eq(base_log_level_parse("debug"), BASE_LOG_DEBUG);
	cr_assert_eq(base_log_level_parse("invalid"), BASE_LOG_INVALID);
	cr_assert_eq(base_log_level_parse("DEBUG"), BASE_LOG_INVALID);
	cr_assert_eq(base_log_level_parse(""), BASE_LOG_INVALID);
}

Test(log, a_few_lines_a_second)
{
	struct base_log_rate rate = { .count = 0 };

	cr_assert(base_log_rate_take(&rate, 5, 2));
	cr_assert(base_log_rate_take(&rate, 6, 2));
	cr_assert_not(base_log_rate_take(&rate, 7, 2));
	cr_assert_not(base_log_rate_take(&rate, 5 + BASE_NS_PER_SECOND - 1, 2));
	cr_assert(base_log_rate_take(&rate, 5 + BASE_NS_PER_SECOND, 2));
	cr_assert(base_log_rate_take(&rate, 6 + BASE_NS_PER_SECOND, 2));
	cr_assert_not(base_log_rate_take(&rate, 7 + BASE_NS_PER_SECOND, 2));
}
