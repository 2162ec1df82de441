/* SPDX-License-Identifier: Apache-2.0 */
#include "base/plain.h"

#include <criterion/criterion.h>
#include <stdio.h>
#include <string.h>

static const char *plain(const char *text)
{
	static char shown[64];

	(void)snprintf(shown, sizeof(shown), "%s", text);
	base_plain(shown);
	return shown;
}

Test(plain, text_stays)
{
	cr_assert_str_eq(plain(""), "");
	cr_assert_str_eq(plain("Debian GNU/Linux ~"), "Debian GNU/Linux ~");
	cr_assert_str_eq(plain("\xc2\xa0\xc3\xa9\xe2\x82\xac\xf0\x9f\x90\xa6"),
			 "\xc2\xa0\xc3\xa9\xe2\x82\xac\xf0\x9f\x90\xa6");
}

Test(plain, what_a_terminal_obeys)
{
	cr_assert_str_eq(plain("a\x1b[2J\n\r\tb\x7f"), "a?[2J???b?");
	cr_assert_str_eq(plain("\xc2\x80 \xc2\x9b \xc2\x9f"), "? ? ?");
}

Test(plain, what_is_not_utf8)
{
	cr_assert_str_eq(plain("\xe9t\xe9"), "?t?");
	cr_assert_str_eq(plain("cut \xe2\x82"), "cut ??");
	cr_assert_str_eq(plain("\xc0\xaf"), "??");           /* too long a form */
	cr_assert_str_eq(plain("\xed\xa0\x80"), "???");      /* half of a pair */
	cr_assert_str_eq(plain("\xf4\x90\x80\x80"), "????"); /* beyond the last */
	cr_assert_str_eq(plain("\xff\xfe\x80"), "???");
}

/* What is plain is what would not change. */
Test(plain, is_plain)
{
	static const char *const no[] = { "a\nb",     "\x1b",  "\x7f",
					  "\xc2\x9b", "\xe9t", "cut \xe2\x82" };

	cr_assert(base_is_plain("", 0));
	cr_assert(base_is_plain("Debian ~\xc3\xa9\xe2\x82\xac", 13));
	for (size_t i = 0; i < sizeof(no) / sizeof(no[0]); i++)
		cr_assert_not(base_is_plain(no[i], strlen(no[i])), "%zu", i);
	cr_assert_not(base_is_plain("a\0b", 3));
	cr_assert_not(base_is_plain("\xe2\x82\xac", 2)); /* what follows is not looked at */
}
