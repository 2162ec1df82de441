/* SPDX-License-Identifier: Apache-2.0 */
/* The test guest's command line: what is taken, and that nothing else is. */
#include <criterion/criterion.h>
#include <string.h>

/* Part of the guest image, not of a library.  NOLINTNEXTLINE(bugprone-suspicious-include) */
#include "tests/guest/guest_cmdline.c"

static struct guest_options options;
static char word[GUEST_WORD_BYTES];

Test(guest_cmdline, defaults)
{
	cr_assert(guest_cmdline_parse("  \t ", &options, word));
	cr_assert_eq(options.vcpus, 0);
	cr_assert_eq(options.verify, 1000);
	cr_assert_eq(options.report_ms, 1000);
	cr_assert_eq(options.content, GUEST_CONTENT_TEXT);
	cr_assert_eq(options.fill_content, GUEST_CONTENT_TEXT);
	cr_assert_eq(options.exit, GUEST_EXIT_HALT);
}

Test(guest_cmdline, every_key)
{
	cr_assert(guest_cmdline_parse("vcpus=3 ws=64M fill=2G rate=100 verify=5 report=0 time=90 "
				      "tsc_khz=1 lapic_khz=2 testpage=0xfed80000 content=zero "
				      "fill_content=random stamp=word pattern=random idle=halt "
				      "exit=acpi dump=cpuid",
				      &options, word));
	cr_assert_eq(options.vcpus, 3);
	cr_assert_eq(options.ws_bytes, 64ULL << 20);
	cr_assert_eq(options.fill_bytes, 2ULL << 30);
	cr_assert_eq(options.rate, 100);
	cr_assert_eq(options.verify, 5);
	cr_assert_eq(options.report_ms, 0);
	cr_assert_eq(options.time_ms, 90);
	cr_assert_eq(options.tsc_khz, 1);
	cr_assert_eq(options.lapic_khz, 2);
	cr_assert_eq(options.testpage, 0xfed80000);
	cr_assert_eq(options.content, GUEST_CONTENT_ZERO);
	cr_assert_eq(options.fill_content, GUEST_CONTENT_RANDOM);
	cr_assert_eq(options.stamp, GUEST_STAMP_WORD);
	cr_assert_eq(options.pattern, GUEST_PATTERN_RANDOM);
	cr_assert_eq(options.idle, GUEST_IDLE_HALT);
	cr_assert_eq(options.exit, GUEST_EXIT_ACPI);
	cr_assert_eq(options.dump, GUEST_DUMP_CPUID);
}

Test(guest_cmdline, wrong_words)
{
	static const char *const wrong[] = { "foo=1",    "ws",      "ws=",      "ws=12Q",
					     "ws=M",     "rate=1K", "rate=-1",  "rate=0x",
					     "=1",       "wsx=1",   "exit=off", "exit=acpix",
					     "content=", "ws=1Mx" };

	for (size_t i = 0; i < sizeof(wrong) / sizeof(wrong[0]); i++) {
		char text[64] = "rate=1 ";

		strcat(text, wrong[i]);
		cr_assert_not(guest_cmdline_parse(text, &options, word), "'%s' was taken", text);
		cr_assert_str_eq(word, wrong[i]);
	}
}

Test(guest_cmdline, numbers_do_not_wrap)
{
	cr_assert(guest_cmdline_parse("rate=18446744073709551615", &options, word));
	cr_assert_eq(options.rate, UINT64_MAX);
	cr_assert_not(guest_cmdline_parse("rate=18446744073709551616", &options, word));
	cr_assert_not(guest_cmdline_parse("ws=17179869184G", &options, word));
	cr_assert(guest_cmdline_parse("ws=17179869183G", &options, word));
}

Test(guest_cmdline, long_wrong_word_is_cut)
{
	char text[200];

	memset(text, 'x', sizeof(text) - 1);
	text[sizeof(text) - 1] = '\0';
	cr_assert_not(guest_cmdline_parse(text, &options, word));
	cr_assert_eq(strlen(word), GUEST_WORD_BYTES - 1);
}
