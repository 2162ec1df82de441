/* SPDX-License-Identifier: Apache-2.0 */
/* The real-time clock: formats, setting it, polling it, its NVRAM. */
#include <time.h>

#include "platform_fixture.h"

#define HALT  0x80
#define BCD24 0x02
#define BCD12 0x00
#define BIN24 0x06
#define BIN12 0x04

static struct fixture f;

static void set_up(void)
{
	fixture_init(&f);
}

static void tear_down(void)
{
	fixture_fini(&f);
}

static uint8_t get(struct fixture *from, uint8_t reg)
{
	out8(from, 0x70, reg);
	return in8(from, 0x71);
}

static void put(struct fixture *to, uint8_t reg, uint8_t value)
{
	out8(to, 0x70, reg);
	out8(to, 0x71, value);
}

/* century, year, month, day, weekday, hour, minute, second */
static const uint8_t order[8] = { 0x32, 0x09, 0x08, 0x07, 0x06, 0x04, 0x02, 0x00 };

static void expect_time(const uint8_t bytes[8])
{
	for (size_t i = 0; i < 8; i++)
		cr_expect_eq(get(&f, order[i]), bytes[i], "register 0x%02x: 0x%02x, wanted 0x%02x",
			     order[i], get(&f, order[i]), bytes[i]);
}

static void put_time(const uint8_t bytes[8])
{
	for (size_t i = 0; i < 8; i++)
		put(&f, order[i], bytes[i]);
}

TestSuite(rtc, .init = set_up, .fini = tear_down);

Test(rtc, shows_host_time_in_each_format)
{
	cr_assert_eq(get(&f, 0x0A), 0x26);
	cr_assert_eq(get(&f, 0x0B), BCD24);
	cr_assert_eq(get(&f, 0x0D), 0x80);
	expect_time((uint8_t[8]){ 0x20, 0x23, 0x11, 0x14, 0x03, 0x22, 0x13, 0x20 });
	put(&f, 0x0B, BIN24);
	expect_time((uint8_t[8]){ 20, 23, 11, 14, 3, 22, 13, 20 });
	put(&f, 0x0B, BCD12);
	expect_time((uint8_t[8]){ 0x20, 0x23, 0x11, 0x14, 0x03, 0x90, 0x13, 0x20 });
	put(&f, 0x0B, BIN12);
	expect_time((uint8_t[8]){ 20, 23, 11, 14, 3, 0x8A, 13, 20 });
}

Test(rtc, midnight_and_noon_in_12_hours)
{
	put(&f, 0x0B, BCD12);
	f.fake.real_ns = 86400 * BASE_NS_PER_SECOND;
	cr_assert_eq(get(&f, 0x04), 0x12);
	f.fake.real_ns += 43200 * BASE_NS_PER_SECOND;
	cr_assert_eq(get(&f, 0x04), 0x92);
	f.fake.real_ns += 3600 * BASE_NS_PER_SECOND;
	cr_assert_eq(get(&f, 0x04), 0x81);
}

/* Against the C library's calendar, over 500 years of the host's clock. */
Test(rtc, calendar_agrees_with_the_c_library)
{
	put(&f, 0x0B, BIN24);
	for (uint64_t second = 0; second < 16000000000ULL; second += 7777777) {
		time_t when = (time_t)second;
		struct tm tm;

		f.fake.real_ns = second * BASE_NS_PER_SECOND;
		cr_assert_not_null(gmtime_r(&when, &tm));
		cr_assert_eq(get(&f, 0x32) * 100 + get(&f, 0x09), tm.tm_year + 1900);
		cr_assert_eq(get(&f, 0x08), tm.tm_mon + 1);
		cr_assert_eq(get(&f, 0x07), tm.tm_mday);
		cr_assert_eq(get(&f, 0x06), tm.tm_wday + 1);
		cr_assert_eq(get(&f, 0x04), tm.tm_hour);
		cr_assert_eq(get(&f, 0x02), tm.tm_min);
		cr_assert_eq(get(&f, 0x00), tm.tm_sec);
	}
}

/* As Linux sets it: SET, divider in reset, all bytes, then both back. */
static void set_like_linux(const uint8_t bytes[8])
{
	uint8_t b = get(&f, 0x0B);
	uint8_t a = get(&f, 0x0A);

	put(&f, 0x0B, b | HALT);
	put(&f, 0x0A, a | 0x70);
	put_time(bytes);
	put(&f, 0x0B, b);
	put(&f, 0x0A, a & 0x7F);
}

Test(rtc, guest_sets_the_time_and_it_goes_on)
{
	const uint8_t leap[8] = { 0x20, 0x24, 0x02, 0x29, 0x05, 0x23, 0x59, 0x59 };

	fixture_pass_ns(&f, 123456789);
	set_like_linux(leap);
	expect_time(leap);
	fixture_pass_ns(&f, 499999999);
	expect_time(leap);
	fixture_pass_ns(&f, 1); /* half a second after the divider's reset */
	expect_time((uint8_t[8]){ 0x20, 0x24, 0x03, 0x01, 0x06, 0x00, 0x00, 0x00 });
	fixture_pass_ns(&f, 366 * 86400 * BASE_NS_PER_SECOND);
	expect_time((uint8_t[8]){ 0x20, 0x25, 0x03, 0x02, 0x01, 0x00, 0x00, 0x00 });
}

Test(rtc, first_and_last_second_of_four_digit_years)
{
	set_like_linux((uint8_t[8]){ 0x99, 0x99, 0x12, 0x31, 0x01, 0x23, 0x59, 0x59 });
	expect_time((uint8_t[8]){ 0x99, 0x99, 0x12, 0x31, 0x06, 0x23, 0x59, 0x59 });
	fixture_pass_ns(&f, BASE_NS_PER_SECOND);
	expect_time((uint8_t[8]){ 0x00, 0x00, 0x01, 0x01, 0x07, 0x00, 0x00, 0x00 });
	fixture_expect_same_elsewhere(&f, SECTION_RTC);
	set_like_linux((uint8_t[8]){ 0x00, 0x00, 0x01, 0x01, 0x07, 0x00, 0x00, 0x00 });
	expect_time((uint8_t[8]){ 0x00, 0x00, 0x01, 0x01, 0x07, 0x00, 0x00, 0x00 });
	f.fake.real_ns = UINT64_MAX;
	(void)get(&f, 0x09);
	(void)get(&f, 0x0C);
	fixture_expect_same_elsewhere(&f, SECTION_RTC);
}

Test(rtc, halting_without_writing_loses_no_time)
{
	put(&f, 0x0B, BCD24 | HALT);
	fixture_pass_ns(&f, 90 * BASE_NS_PER_SECOND);
	cr_assert_eq(get(&f, 0x02), 0x13, "bytes stand still");
	put(&f, 0x0B, BCD24);
	expect_time((uint8_t[8]){ 0x20, 0x23, 0x11, 0x14, 0x03, 0x22, 0x14, 0x50 });
}

Test(rtc, what_makes_no_date_is_not_taken)
{
	static const uint8_t bad[][8] = {
		{ 0x20, 0x23, 0x02, 0x29, 1, 0, 0, 0 },
		{ 0x20, 0x23, 0x13, 0x01, 1, 0, 0, 0 },
		{ 0x20, 0x23, 0x00, 0x01, 1, 0, 0, 0 },
		{ 0x20, 0x23, 0x01, 0x00, 1, 0, 0, 0 },
		{ 0x20, 0x23, 0x01, 0x01, 1, 0x24, 0, 0 },
		{ 0x20, 0x23, 0x01, 0x01, 1, 0, 0x60, 0 },
		{ 0x20, 0x23, 0x01, 0x01, 1, 0, 0, 0x60 },
		{ 0x20, 0x23, 0x01, 0x0A, 1, 0, 0, 0 },
		{ 0xA0, 0x23, 0x01, 0x01, 1, 0, 0, 0 },
		{ 0x20, 0xFF, 0x01, 0x01, 1, 0, 0, 0 },
		{ 0x19, 0x00, 0x02, 0x29, 1, 0, 0, 0 },
	};
	const uint8_t now[8] = { 0x20, 0x23, 0x11, 0x14, 0x03, 0x22, 0x13, 0x20 };

	for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
		set_like_linux(bad[i]);
		expect_time(now);
	}
}

Test(rtc, bytes_written_while_it_runs_count_when_they_make_a_date)
{
	put(&f, 0x00, 0x45);
	put(&f, 0x07, 0x31); /* November has 30 */
	put(&f, 0x08, 0x12);
	put(&f, 0x07, 0x31);
	expect_time((uint8_t[8]){ 0x20, 0x23, 0x12, 0x31, 0x01, 0x22, 0x13, 0x45 });
}

Test(rtc, update_in_progress_at_the_end_of_each_second)
{
	cr_assert_eq(get(&f, 0x0A) & 0x80, 0);
	fixture_pass_ns(&f, 999000000);
	cr_assert_eq(get(&f, 0x0A) & 0x80, 0x80);
	cr_assert_eq(get(&f, 0x00), 0x20);
	put(&f, 0x0B, BCD24 | HALT);
	cr_assert_eq(get(&f, 0x0A) & 0x80, 0);
	put(&f, 0x0B, BCD24);
	fixture_pass_ns(&f, 1000000);
	cr_assert_eq(get(&f, 0x0A) & 0x80, 0);
	cr_assert_eq(get(&f, 0x00), 0x21);
	put(&f, 0x0A, 0xA6);
	cr_assert_eq(get(&f, 0x0A), 0x26, "UIP cannot be written");
}

Test(rtc, flags_can_be_polled)
{
	(void)get(&f, 0x0C);
	cr_assert_eq(get(&f, 0x0C), 0);
	fixture_pass_ns(&f, 976563); /* 1024 Hz */
	cr_assert_eq(get(&f, 0x0C), 0x40);
	put(&f, 0x0B, BCD24 | 0x50);
	fixture_pass_ns(&f, BASE_NS_PER_SECOND);
	cr_assert_eq(get(&f, 0x0C), 0xD0);
	cr_assert_eq(get(&f, 0x0C), 0x00);
	put(&f, 0x0A, 0x20); /* no rate, no periodic flag */
	fixture_pass_ns(&f, BASE_NS_PER_SECOND);
	cr_assert_eq(get(&f, 0x0C), 0x90);
	put(&f, 0x0A, 0x21); /* 256 Hz */
	(void)get(&f, 0x0C);
	fixture_pass_ns(&f, 3000000);
	put(&f, 0x0A, 0x2F); /* 2 Hz */
	cr_assert_eq(get(&f, 0x0C), 0x00);
	put(&f, 0x0C, 0xFF);
	put(&f, 0x0D, 0x00);
	cr_assert_eq(get(&f, 0x0C), 0x00);
	cr_assert_eq(get(&f, 0x0D), 0x80);
	cr_assert_eq(f.call_count[8], 0);
}

Test(rtc, nvram_keeps_bytes_also_over_reset)
{
	for (uint8_t reg = 0x0E; reg < 0x80; reg++)
		if (reg != 0x32)
			put(&f, reg, (uint8_t)(reg ^ 0x5A));
	put(&f, 0x01, 0xC0); /* alarm */
	put(&f, 0x0B, BIN24 | HALT);
	put(&f, 0x09, 99); /* half a date */
	hv_platform_reset(f.platform);
	for (uint8_t reg = 0x0E; reg < 0x80; reg++)
		cr_assert(reg == 0x32 || get(&f, reg) == (uint8_t)(reg ^ 0x5A));
	cr_assert_eq(get(&f, 0x01), 0xC0);
	cr_assert_eq(get(&f, 0x8E), 0x0E ^ 0x5A, "bit 7 of the index masks NMI");
	cr_assert_eq(in8(&f, 0x70), 0xFF, "the index cannot be read");
	cr_assert_eq(get(&f, 0x0B), BCD24);
	expect_time((uint8_t[8]){ 0x20, 0x23, 0x11, 0x14, 0x03, 0x22, 0x13, 0x20 });
	fixture_expect_same_elsewhere(&f, SECTION_RTC);
}

Test(rtc, a_word_is_index_and_data)
{
	out16(&f, 0x70, 0xAB40);
	cr_assert_eq(get(&f, 0x40), 0xAB);
	cr_assert_eq(in16(&f, 0x70), 0xABFF);
}

Test(rtc, time_set_by_the_guest_survives_save_and_the_gap)
{
	struct base_buffer saved;
	struct fixture other;

	fixture_pass_ns(&f, 700000000);
	set_like_linux((uint8_t[8]){ 0x19, 0x70, 0x01, 0x01, 0x05, 0x00, 0x00, 0x00 });
	saved = fixture_save(&f, SECTION_RTC);
	cr_assert_eq(saved.size_bytes, 160);
	fixture_init(&other);
	cr_assert_eq(fixture_load(&other, SECTION_RTC, saved.data, saved.size_bytes), 0);
	other.fake.real_ns = f.fake.real_ns + 3600 * BASE_NS_PER_SECOND + 500000000;
	cr_assert_eq(get(&other, 0x04), 0x01);
	cr_assert_eq(get(&other, 0x02), 0x00);
	cr_assert_eq(get(&other, 0x00), 0x01);
	base_buffer_fini(&saved);
	fixture_fini(&other);
}

Test(rtc, half_set_time_survives_save)
{
	put(&f, 0x0B, BCD24 | HALT);
	put(&f, 0x09, 0x77);
	put(&f, 0x07, 0xEE);
	fixture_expect_same_elsewhere(&f, SECTION_RTC);
}

Test(rtc, bad_payloads_are_refused)
{
	put(&f, 0x0B, BCD24);
	fixture_expect_length_checked(&f, SECTION_RTC);
	fixture_expect_byte_refused(&f, SECTION_RTC, 5, 0x7F);  /* offset far ahead */
	fixture_expect_byte_refused(&f, SECTION_RTC, 7, 0x80);  /* and far back */
	fixture_expect_byte_refused(&f, SECTION_RTC, 11, 0x40); /* phase */
	fixture_expect_byte_refused(&f, SECTION_RTC, 12, 0x80); /* index */
	fixture_expect_byte_refused(&f, SECTION_RTC, 13, 0xA6); /* UIP */
	fixture_expect_byte_refused(&f, SECTION_RTC, 15, 0x01); /* set while running */
	fixture_expect_byte_refused(&f, SECTION_RTC, 15, 0x02); /* unknown flag */
	fixture_expect_byte_refused(&f, SECTION_RTC, 22, 0x7F); /* last update */
	fixture_expect_byte_refused(&f, SECTION_RTC, 31, 0x01); /* last tick */
	fixture_expect_byte_refused(&f, SECTION_RTC, 32, 0x20); /* seconds of a running clock */
	fixture_expect_byte_refused(&f, SECTION_RTC, 32 + 0x32, 0x20);
	for (uint8_t reg = 0x0A; reg <= 0x0D; reg++)
		fixture_expect_byte_refused(&f, SECTION_RTC, 32u + reg, 0x01);
}

Test(rtc, any_access_leaves_a_sane_state)
{
	uint64_t seed = 70;

	fixture_hammer(&f, SECTION_RTC, 0x70, 2, 20000);
	for (unsigned int i = 0; i < 20000; i++) { /* mostly time and control registers */
		const uint64_t random = fixture_next(&seed);
		const uint8_t reg = (random & 15) == 15 ? 0x32 : random & 15;

		if ((random & 0x100) != 0)
			put(&f, reg, (uint8_t)(random >> 16));
		else
			(void)get(&f, reg);
		if ((random & 0xFE00) == 0)
			f.fake.real_ns = fixture_next(&seed);
		if (i % 64 == 0)
			fixture_expect_same_elsewhere(&f, SECTION_RTC);
	}
}
