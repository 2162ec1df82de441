/* SPDX-License-Identifier: Apache-2.0 */
/* Reset ports, and the ports that only have to be harmless. */
#include "platform_fixture.h"

static struct fixture f;

static void set_up(void)
{
	fixture_init(&f);
}

static void tear_down(void)
{
	fixture_fini(&f);
}

TestSuite(legacy_io, .init = set_up, .fini = tear_down);

Test(legacy_io, each_way_to_reset)
{
	out8(&f, 0xCF9, 0x02); /* what kind: not yet */
	cr_assert_eq(f.reset_count, 0);
	cr_assert_eq(in8(&f, 0xCF9), 0x02);
	out8(&f, 0xCF9, 0x06);
	cr_assert_eq(f.reset_count, 1);
	out8(&f, 0xCF9, 0x0E);
	cr_assert_eq(f.reset_count, 2);
	out8(&f, 0x64, 0xFE);
	cr_assert_eq(f.reset_count, 3);
	out8(&f, 0x92, 0x03);
	cr_assert_eq(f.reset_count, 4);
}

Test(legacy_io, what_looks_like_a_reset_and_is_none)
{
	out8(&f, 0x64, 0xD1);
	out8(&f, 0x60, 0xFE);
	out8(&f, 0x92, 0x02);
	out32(&f, 0xCF8, 0xFFFFFFFF); /* the PCI address register, whose byte 1 is no port */
	out16(&f, 0xCF8, 0xFFFF);
	out16(&f, 0xCF9, 0x0606);
	out8(&f, 0xCF8, 0x06);
	out8(&f, 0xCFA, 0x06);
	cr_assert_eq(f.reset_count, 0);
}

Test(legacy_io, there_is_no_pci_and_no_keyboard)
{
	out8(&f, 0xCFB, 0x01);
	out32(&f, 0xCF8, 0x80000000);
	cr_assert_eq(in32(&f, 0xCF8), 0xFFFFFFFF);
	cr_assert_eq(in32(&f, 0xCFC), 0xFFFFFFFF);
	cr_assert_eq(in8(&f, 0xCF8), 0xFF);
	cr_assert_eq(in8(&f, 0x60), 0xFF);
	cr_assert_eq(in8(&f, 0x64), 0xFF);
	cr_assert_eq(in8(&f, 0x92), 0x02, "A20 is on");
	out8(&f, 0x80, 0x55);
	out8(&f, 0xED, 0x55);
	cr_assert_eq(in8(&f, 0x80), 0xFF);
	cr_assert_eq(in8(&f, 0xED), 0xFF);
}

Test(legacy_io, port_61_lets_calibration_loops_end)
{
	uint8_t first = in8(&f, 0x61);

	cr_assert_eq(first & 0x20, 0x20);
	out8(&f, 0x61, 0xFD);
	cr_assert_eq(in8(&f, 0x61) & 0x0F, 0x0D);
	fixture_pass_ns(&f, 15085);
	cr_assert_eq((in8(&f, 0x61) ^ first) & 0x10, 0x10, "the refresh bit toggles");
}

Test(legacy_io, reset_clears_it)
{
	out8(&f, 0x61, 0x03);
	out8(&f, 0xCF9, 0x0A);
	hv_platform_reset(f.platform);
	cr_assert_eq(in8(&f, 0x61) & 0x0F, 0);
	cr_assert_eq(in8(&f, 0xCF9), 0);
}

Test(legacy_io, saved_state_goes_on_elsewhere)
{
	struct base_buffer saved;

	out8(&f, 0x61, 0x0F);
	out8(&f, 0xCF9, 0x0A);
	fixture_expect_same_elsewhere(&f, SECTION_LEGACY_IO);
	saved = fixture_save(&f, SECTION_LEGACY_IO);
	cr_assert_eq(saved.size_bytes, 4);
	cr_assert_arr_eq(saved.data, "\x0F\x0A\0\0", 4);
	base_buffer_fini(&saved);
}

Test(legacy_io, bad_payloads_are_refused)
{
	fixture_expect_length_checked(&f, SECTION_LEGACY_IO);
	fixture_expect_byte_refused(&f, SECTION_LEGACY_IO, 0, 0x10);
	fixture_expect_byte_refused(&f, SECTION_LEGACY_IO, 1, 0x04);
	fixture_expect_byte_refused(&f, SECTION_LEGACY_IO, 2, 0x01);
	fixture_expect_byte_refused(&f, SECTION_LEGACY_IO, 3, 0x01);
}

Test(legacy_io, any_access_leaves_a_sane_state)
{
	fixture_hammer(&f, SECTION_LEGACY_IO, 0x60, 0x40, 10000);
	fixture_hammer(&f, SECTION_LEGACY_IO, 0xCF8, 8, 10000);
}
