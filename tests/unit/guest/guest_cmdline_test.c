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
	cr_assert(guest_cmdline_parse(
		"vcpus=3 ws=64M fill=2G rate=100 verify=5 report=0 time=90 "
		"tsc_khz=1 lapic_khz=2 testpage=0xfed80000 content=zero "
		"fill_content=random stamp=word pattern=random idle=halt "
		"exit=acpi dump=cpuid hv=on irq=poll stall=7 ic=on disk=randwrite "
		"disk_lun=3 disk_offset=1M disk_bytes=2M disk_depth=32 disk_io=64K "
		"disk_reads=50 disk_flush=9 disk_seed=4 disk_time=5 disk_channels=2 "
		"net=10.1.2.3/16 net_peer=10.1.2.4",
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
	cr_assert_eq(options.hv, GUEST_HV_ON);
	cr_assert_eq(options.irq, GUEST_IRQ_POLL);
	cr_assert_eq(options.stall_ms, 7);
	cr_assert_eq(options.ic, 1);
	cr_assert_eq(options.disk, GUEST_DISK_RANDWRITE);
	cr_assert_eq(options.disk_lun, 3);
	cr_assert_eq(options.disk_offset_bytes, 1U << 20);
	cr_assert_eq(options.disk_bytes, 2U << 20);
	cr_assert_eq(options.disk_depth, 32);
	cr_assert_eq(options.disk_io_bytes, 65536);
	cr_assert_eq(options.disk_reads, 50);
	cr_assert_eq(options.disk_flush, 9);
	cr_assert_eq(options.disk_seed, 4);
	cr_assert_eq(options.disk_time_ms, 5);
	cr_assert_eq(options.disk_channels, 2);
	cr_assert_eq(options.net, 16ULL << 32 | 0x0a010203);
	cr_assert_eq(options.net_peer, 24ULL << 32 | 0x0a010204);
}

Test(guest_cmdline, hyperv_is_used_when_something_asks_for_it)
{
	static const char *const with[] = { "hv=on", "ic=on", "disk=stamp", "net=10.0.0.1" };
	static const char *const without[] = { "", "ws=1M", "disk_lun=1", "net_peer=10.0.0.1",
					       "disk=stamp hv=off" };

	for (size_t i = 0; i < sizeof(with) / sizeof(with[0]); i++) {
		cr_assert(guest_cmdline_parse(with[i], &options, word));
		cr_assert(guest_cmdline_wants_hv(&options), "%s", with[i]);
	}
	for (size_t i = 0; i < sizeof(without) / sizeof(without[0]); i++) {
		cr_assert(guest_cmdline_parse(without[i], &options, word));
		cr_assert_not(guest_cmdline_wants_hv(&options), "%s", without[i]);
	}
}

Test(guest_cmdline, wrong_words)
{
	static const char *const wrong[] = { "foo=1",
					     "ws",
					     "ws=",
					     "ws=12Q",
					     "ws=M",
					     "rate=1K",
					     "rate=-1",
					     "rate=0x",
					     "=1",
					     "wsx=1",
					     "exit=off",
					     "exit=acpix",
					     "content=",
					     "ws=1Mx",
					     "net=1.2.3",
					     "net=1.2.3.256",
					     "net=1.2.3.4/33",
					     "net=1.2.3.4/0",
					     "net=1.2.3.4.5",
					     "net=",
					     "net=1..2.3",
					     "ic=1" };

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
