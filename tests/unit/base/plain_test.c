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
