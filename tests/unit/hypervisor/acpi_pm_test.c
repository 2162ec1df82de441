/* SPDX-License-Identifier: Apache-2.0 */
/* ACPI power management: registers, SCI, power button, S5, timer. */
#include "platform_fixture.h"

#define STATUS  0x600
#define ENABLE  0x602
#define CONTROL 0x604
#define TIMER   0x608
#define SCI     9

#define BUTTON 0x0100
#define SLP_EN 0x2000
#define S5     (5 << 10)

static struct fixture f;

static void set_up(void)
{
	fixture_init(&f);
}

static void tear_down(void)
{
	fixture_fini(&f);
}

TestSuite(acpi_pm, .init = set_up, .fini = tear_down);

Test(acpi_pm, enable_bits_are_read_back)
{
	out16(&f, ENABLE, 0x0020); /* global lock: Linux looks whether it sticks */
	cr_assert_eq(in16(&f, ENABLE), 0x0020);
	out16(&f, ENABLE, 0xFFFF);
	cr_assert_eq(in16(&f, ENABLE), 0x0721);
	cr_assert_eq(in32(&f, STATUS), 0x07210000);
}

Test(acpi_pm, power_button_raises_sci_until_its_status_is_cleared)
{
	out16(&f, ENABLE, BUTTON);
	hv_platform_power_button(f.platform);
	cr_assert_eq(f.level[SCI], 1);
	cr_assert_eq(in16(&f, STATUS), BUTTON);
	out16(&f, STATUS, 0xFEFF); /* others do not clear it */
	cr_assert_eq(f.level[SCI], 1);
	out8(&f, STATUS + 1, 0x01);
	cr_assert_eq(f.level[SCI], 0);
	cr_assert_eq(in16(&f, STATUS), 0);
}

Test(acpi_pm, power_button_waits_for_its_enable_bit)
{
	hv_platform_power_button(f.platform);
	hv_platform_power_button(f.platform);
	cr_assert_eq(f.level[SCI], 0);
	out16(&f, ENABLE, BUTTON);
	cr_assert_eq(f.level[SCI], 1);
	out16(&f, ENABLE, 0);
	cr_assert_eq(f.level[SCI], 0);
	cr_assert_eq(f.rise_count[SCI], 1);
}

Test(acpi_pm, s5_powers_off_and_nothing_else_does)
{
	cr_assert_eq(in16(&f, CONTROL), 0x0001, "in ACPI mode from the start");
	for (unsigned int type = 0; type < 8; type++) {
		out16(&f, CONTROL, (uint16_t)(type << 10));
		if (type != 5)
			out16(&f, CONTROL, (uint16_t)(type << 10 | SLP_EN));
	}
	cr_assert_eq(f.power_off_count, 0);
	out16(&f, CONTROL, S5 | SLP_EN);
	cr_assert_eq(f.power_off_count, 1);
	cr_assert_eq(in16(&f, CONTROL), S5 | 1, "SLP_EN reads as zero");
	out8(&f, CONTROL + 1, (S5 | SLP_EN) >> 8);
	cr_assert_eq(f.power_off_count, 2);
	out8(&f, CONTROL, 0xFF);
	cr_assert_eq(f.power_off_count, 2);
	out32(&f, CONTROL - 2, (uint32_t)(S5 | SLP_EN) << 16);
	cr_assert_eq(f.power_off_count, 3);
}

Test(acpi_pm, timer_follows_guest_time)
{
	uint32_t before = in32(&f, TIMER);

	fixture_pass_ns(&f, BASE_NS_PER_SECOND);
	cr_assert_eq(in32(&f, TIMER) - before, 3579545);
	fixture_pass_ns(&f, 1000 * BASE_NS_PER_SECOND);
	cr_assert_eq(in32(&f, TIMER) - before, 3579545u * 1001u, "modulo 2^32");
	before = in32(&f, TIMER);
	out32(&f, TIMER, 0);
	cr_assert_eq(in32(&f, TIMER), before, "read-only");
	cr_assert_eq(in8(&f, TIMER + 1), before >> 8 & 0xFF);
	f.time.boot_offset_ns = -(int64_t)f.fake.boot_ns;
	cr_assert_eq(in32(&f, TIMER), 0);
	f.fake.boot_ns--;
	cr_assert_eq(in32(&f, TIMER), 0, "guest time does not go below zero");
}

Test(acpi_pm, timer_status_at_each_half)
{
	const uint64_t half_ns = (1ULL << 31) * BASE_NS_PER_SECOND / 3579545 + 1;

	out16(&f, STATUS, 0xFFFF);
	cr_assert_eq(in16(&f, STATUS), 0);
	for (unsigned int i = 0; i < 3; i++) {
		fixture_pass_ns(&f, half_ns);
		cr_assert_eq(f.level[SCI], 0);
		cr_assert_eq(in16(&f, STATUS), 1);
		out16(&f, ENABLE, 1);
		cr_assert_eq(f.level[SCI], 1);
		out16(&f, STATUS, 1);
		cr_assert_eq(f.level[SCI], 0);
		out16(&f, ENABLE, 0);
	}
}

Test(acpi_pm, timer_survives_the_end_of_time)
{
	f.fake.boot_ns = UINT64_MAX;
	(void)in32(&f, TIMER);
	fixture_expect_same_elsewhere(&f, SECTION_ACPI_PM);
}

Test(acpi_pm, reset_lowers_the_line)
{
	out16(&f, ENABLE, BUTTON);
	hv_platform_power_button(f.platform);
	hv_platform_reset(f.platform);
	cr_assert_eq(f.level[SCI], 0);
	cr_assert_eq(in32(&f, STATUS), 0);
	cr_assert_eq(in16(&f, CONTROL), 1);
	f.level[SCI] = 1; /* the chip's inputs may disagree: they are told in any case */
	hv_platform_loaded(f.platform);
	cr_assert_eq(f.level[SCI], 0);
}

Test(acpi_pm, saved_state_goes_on_elsewhere)
{
	struct base_buffer saved;
	struct fixture other;

	out16(&f, ENABLE, 0x0721);
	out16(&f, CONTROL, 0x1402);
	hv_platform_power_button(f.platform);
	fixture_expect_same_elsewhere(&f, SECTION_ACPI_PM);
	saved = fixture_save(&f, SECTION_ACPI_PM);
	cr_assert_eq(saved.size_bytes, 16);
	fixture_init(&other);
	cr_assert_eq(fixture_load(&other, SECTION_ACPI_PM, saved.data, saved.size_bytes), 0);
	cr_assert_eq(other.call_count[SCI], 0);
	hv_platform_loaded(other.platform);
	cr_assert_eq(other.level[SCI], 1);
	cr_assert_eq(in32(&other, STATUS), 0x07210100);
	cr_assert_eq(in16(&other, CONTROL), 0x1403);
	base_buffer_fini(&saved);
	fixture_fini(&other);
}

Test(acpi_pm, bad_payloads_are_refused)
{
	fixture_expect_length_checked(&f, SECTION_ACPI_PM);
	fixture_expect_byte_refused(&f, SECTION_ACPI_PM, 0, 0x02);
	fixture_expect_byte_refused(&f, SECTION_ACPI_PM, 1, 0x80);
	fixture_expect_byte_refused(&f, SECTION_ACPI_PM, 2, 0x02);
	fixture_expect_byte_refused(&f, SECTION_ACPI_PM, 3, 0x40);
	fixture_expect_byte_refused(&f, SECTION_ACPI_PM, 4, 0x01);
	fixture_expect_byte_refused(&f, SECTION_ACPI_PM, 5, 0x20);
	fixture_expect_byte_refused(&f, SECTION_ACPI_PM, 6, 0x01);
	fixture_expect_byte_refused(&f, SECTION_ACPI_PM, 15, 0x01);
}

Test(acpi_pm, any_access_leaves_a_sane_state)
{
	fixture_hammer(&f, SECTION_ACPI_PM, STATUS, 12, 20000);
}
