/* SPDX-License-Identifier: Apache-2.0 */
/* The serial port, as drivers see it. */
#include "platform_fixture.h"

#define PORT 0x3F8
#define DATA (PORT + 0)
#define IER  (PORT + 1)
#define IIR  (PORT + 2)
#define FCR  (PORT + 2)
#define LCR  (PORT + 3)
#define MCR  (PORT + 4)
#define LSR  (PORT + 5)
#define MSR  (PORT + 6)
#define SCR  (PORT + 7)
#define IRQ  4

static struct fixture f;

static void set_up(void)
{
	fixture_init(&f);
}

static void tear_down(void)
{
	fixture_fini(&f);
}

static size_t type(const char *text)
{
	return hv_platform_console_in(f.platform, (const uint8_t *)text, strlen(text));
}

TestSuite(uart, .init = set_up, .fini = tear_down);

Test(uart, bytes_written_come_out_in_order)
{
	static const char text[] = "hello, line\r\n";

	for (size_t i = 0; i < sizeof(text) - 1; i++) {
		cr_assert_eq(in8(&f, LSR), 0x60);
		out8(&f, DATA, (uint8_t)text[i]);
	}
	cr_assert_eq(f.console_bytes, sizeof(text) - 1);
	cr_assert_arr_eq(f.console, text, sizeof(text) - 1);
	cr_assert_eq(f.call_count[IRQ], 0, "polled output costs no interrupt calls");
}

/* The order of accesses in which a Linux 8250 driver tells a 16550A from its kin. */
Test(uart, is_detected_as_a_16550a)
{
	uint8_t status;

	out8(&f, IER, 0);
	cr_assert_eq(in8(&f, IER) & 0x0F, 0);
	out8(&f, IER, 0x0F);
	cr_assert_eq(in8(&f, IER) & 0x0F, 0x0F);
	out8(&f, IER, 0);

	out8(&f, MCR, 0x1A); /* loopback: RTS comes back as CTS, OUT2 as DCD */
	cr_assert_eq(in8(&f, MSR) & 0xF0, 0x90);
	out8(&f, MCR, 0x00);

	out8(&f, LCR, 0xBF);
	out8(&f, FCR, 0x00);
	out8(&f, LCR, 0x00);
	out8(&f, FCR, 0x01);
	cr_assert_eq(in8(&f, IIR) >> 6, 3, "FIFOs that work");

	out8(&f, LCR, 0x80); /* no extended register behind DLAB */
	cr_assert_neq(in8(&f, FCR), 0);
	out8(&f, LCR, 0xBF);
	cr_assert_neq(in8(&f, FCR), 0);
	out8(&f, LCR, 0x00);

	out8(&f, FCR, 0x21); /* no 64-byte FIFO */
	cr_assert_eq(in8(&f, IIR) & 0xE0, 0xC0);
	out8(&f, LCR, 0x80);
	out8(&f, FCR, 0x21);
	cr_assert_eq(in8(&f, IIR) & 0xE0, 0xC0);
	out8(&f, LCR, 0x00);

	status = in8(&f, IER); /* no extra enable bit */
	out8(&f, IER, status | 0x40);
	cr_assert_eq(in8(&f, IER) & 0x40, 0);
	cr_assert_eq(f.console_bytes, 0);
}

Test(uart, loopback_measures_a_fifo_of_16)
{
	unsigned int count = 0;

	out8(&f, FCR, 0x07);
	out8(&f, MCR, 0x10);
	for (unsigned int i = 0; i < 256; i++)
		out8(&f, DATA, (uint8_t)i);
	cr_assert_eq(in8(&f, LSR), 0x63, "data and overrun");
	cr_assert_eq(in8(&f, LSR), 0x61, "the error is told once");
	while ((in8(&f, LSR) & 1) != 0)
		cr_assert_eq(in8(&f, DATA), count++);
	cr_assert_eq(count, 16);
	cr_assert_eq(f.console_bytes, 0);
}

Test(uart, divisor_and_scratch_are_registers)
{
	out8(&f, LCR, 0x83);
	out8(&f, DATA, 0x34);
	out8(&f, IER, 0x12);
	cr_assert_eq(in8(&f, DATA), 0x34);
	cr_assert_eq(in8(&f, IER), 0x12);
	out8(&f, LCR, 0x03);
	cr_assert_eq(in8(&f, IER), 0);
	cr_assert_eq(in8(&f, LCR), 0x03);
	for (unsigned int i = 0; i < 256; i++) {
		out8(&f, SCR, (uint8_t)i);
		cr_assert_eq(in8(&f, SCR), i);
	}
	cr_assert_eq(f.console_bytes, 0);
}

/* What Linux tries before it believes in the transmit interrupt. */
Test(uart, transmit_interrupt_comes_each_time_it_is_enabled)
{
	out8(&f, MCR, 0x08);
	for (unsigned int i = 0; i < 2; i++) {
		out8(&f, IER, 0x02);
		cr_assert_eq(f.level[IRQ], 1);
		cr_assert_eq(in8(&f, IIR), 0x02);
		cr_assert_eq(f.level[IRQ], 0, "reading it takes it back");
		cr_assert_eq(in8(&f, IIR), 0x01);
		out8(&f, IER, 0x00);
	}
	cr_assert_eq(f.rise_count[IRQ], 2);
}

Test(uart, transmit_interrupt_comes_after_each_byte)
{
	out8(&f, MCR, 0x08);
	out8(&f, IER, 0x02);
	for (unsigned int i = 0; i < 10; i++)
		out8(&f, DATA, 'x'); /* a driver that never reads IIR gets an edge too */
	cr_assert_eq(f.rise_count[IRQ], 11);
	cr_assert_eq(in8(&f, IIR), 0x02);
	cr_assert_eq(f.level[IRQ], 0);
	out8(&f, DATA, 'x');
	cr_assert_eq(f.level[IRQ], 1);
}

Test(uart, out2_gates_the_line_and_loopback_closes_the_gate)
{
	out8(&f, IER, 0x01);
	cr_assert_eq(type("a"), 1);
	cr_assert_eq(in8(&f, IIR), 0x04);
	cr_assert_eq(f.level[IRQ], 0);
	out8(&f, MCR, 0x08);
	cr_assert_eq(f.level[IRQ], 1);
	out8(&f, MCR, 0x18);
	cr_assert_eq(f.level[IRQ], 0);
	out8(&f, MCR, 0x08);
	cr_assert_eq(f.level[IRQ], 1);
	cr_assert_eq(in8(&f, DATA), 'a');
	cr_assert_eq(f.level[IRQ], 0);
}

Test(uart, trigger_levels_choose_between_data_and_timeout)
{
	static const uint8_t levels[4] = { 1, 4, 8, 14 };

	for (uint8_t i = 0; i < 4; i++) {
		out8(&f, FCR, (uint8_t)(0x03 | i << 6));
		out8(&f, IER, 0x01);
		for (uint8_t count = 1; count <= 16; count++) {
			cr_assert_eq(type("k"), 1);
			cr_assert_eq(in8(&f, IIR), count >= levels[i] ? 0xC4 : 0xCC);
		}
		cr_assert_eq(type("k"), 0, "the FIFO is full");
	}
}

Test(uart, interrupts_have_priorities)
{
	out8(&f, FCR, 0x01);
	out8(&f, MCR, 0x16); /* loopback with RTS and OUT1 */
	for (unsigned int i = 0; i < 17; i++)
		out8(&f, DATA, 'o');
	out8(&f, IER, 0x0F);
	out8(&f, MCR, 0x08); /* out of loopback: modem lines change */

	cr_assert_eq(in8(&f, IIR), 0xC6);
	cr_assert_eq(in8(&f, LSR) & 0x02, 0x02);
	cr_assert_eq(in8(&f, IIR), 0xC4);
	out8(&f, FCR, 0x03);
	cr_assert_eq(in8(&f, IIR), 0xC2);
	cr_assert_eq(in8(&f, IIR), 0xC0);
	cr_assert_eq(in8(&f, MSR), 0xBE, "RI fell, DSR and DCD rose, CTS stayed");
	cr_assert_eq(in8(&f, IIR), 0xC1);
	cr_assert_eq(in8(&f, MSR), 0xB0);
	cr_assert_eq(f.level[IRQ], 0);
}

Test(uart, input_waits_outside_until_there_is_room)
{
	out8(&f, FCR, 0x01);
	cr_assert_eq(type("0123456789abcdefXYZ"), 16);
	cr_assert_eq(f.room_count, 0);
	cr_assert_eq(in8(&f, DATA), '0');
	cr_assert_eq(f.room_count, 1);
	cr_assert_eq(in8(&f, DATA), '1');
	cr_assert_eq(f.room_count, 1, "told once");
	cr_assert_eq(type("XYZ"), 2);
	out8(&f, FCR, 0x03);
	cr_assert_eq(f.room_count, 2);
	cr_assert_eq(in8(&f, LSR), 0x60);
}

Test(uart, loopback_takes_no_input)
{
	out8(&f, MCR, 0x10);
	cr_assert_eq(type("a"), 0);
	out8(&f, MCR, 0x00);
	cr_assert_eq(f.room_count, 1);
	cr_assert_eq(type("a"), 1);
}

Test(uart, without_fifos_one_byte_is_held)
{
	cr_assert_eq(type("ab"), 1);
	cr_assert_eq(in8(&f, DATA), 'a');
	out8(&f, MCR, 0x10);
	out8(&f, DATA, 'x');
	out8(&f, DATA, 'y');
	cr_assert_eq(in8(&f, LSR), 0x63);
	cr_assert_eq(in8(&f, DATA), 'y', "the later one overran the earlier");
	cr_assert_eq(in8(&f, DATA), 0, "nothing there");
}

Test(uart, switching_fifos_empties_them)
{
	out8(&f, FCR, 0x01);
	cr_assert_eq(type("abc"), 3);
	out8(&f, FCR, 0x00);
	cr_assert_eq(in8(&f, LSR), 0x60);
	cr_assert_eq(in8(&f, IIR), 0x01);
	cr_assert_eq(type("d"), 1);
	out8(&f, FCR, 0xC6); /* means nothing without the enable bit */
	cr_assert_eq(in8(&f, LSR), 0x61);
}

Test(uart, wide_accesses_go_byte_by_byte)
{
	hv_iobus_write(f.bus, HV_IO_PORT, PORT, 8, 0xAB00000000000041ULL);
	cr_assert_eq(f.console_bytes, 1);
	cr_assert_eq(f.console[0], 'A');
	cr_assert_eq(in8(&f, SCR), 0xAB);
	cr_assert_eq(hv_iobus_read(f.bus, HV_IO_PORT, LSR, 1), 0x60);
	cr_assert_eq(in16(&f, MSR), 0xABB0);
}

Test(uart, reset_is_power_on_and_calls_for_input)
{
	out8(&f, FCR, 0xC1);
	out8(&f, MCR, 0x08);
	out8(&f, IER, 0x01);
	out8(&f, SCR, 0x77);
	cr_assert_eq(type("0123456789abcdefX"), 16);
	cr_assert_eq(f.level[IRQ], 1);
	hv_platform_reset(f.platform);
	cr_assert_eq(f.level[IRQ], 0);
	cr_assert_eq(f.room_count, 1);
	cr_assert_eq(in8(&f, IER), 0);
	cr_assert_eq(in8(&f, IIR), 0x01);
	cr_assert_eq(in8(&f, MCR), 0);
	cr_assert_eq(in8(&f, LSR), 0x60);
	cr_assert_eq(in8(&f, SCR), 0);
	f.level[IRQ] = 1; /* the chip's inputs may disagree: they are told in any case */
	hv_platform_loaded(f.platform);
	cr_assert_eq(f.level[IRQ], 0);
}

/* A state with every field in use. */
static void make_busy(struct fixture *busy)
{
	out8(busy, LCR, 0x83);
	out8(busy, DATA, 0x01);
	out8(busy, IER, 0x02);
	out8(busy, LCR, 0x03);
	out8(busy, FCR, 0x89);
	out8(busy, MCR, 0x1A);
	for (unsigned int i = 0; i < 17; i++)
		out8(busy, DATA, (uint8_t)(0xA0 + i));
	out8(busy, SCR, 0x5A);
	out8(busy, MCR, 0x0B);
	out8(busy, IER, 0x0F);
	(void)in8(busy, DATA);
}

Test(uart, saved_state_goes_on_elsewhere)
{
	struct base_buffer saved;
	struct fixture other;

	make_busy(&f);
	fixture_expect_same_elsewhere(&f, SECTION_UART);
	saved = fixture_save(&f, SECTION_UART);
	cr_assert_eq(saved.size_bytes, 28);

	fixture_init(&other);
	cr_assert_eq(fixture_load(&other, SECTION_UART, saved.data, saved.size_bytes), 0);
	cr_assert_eq(other.call_count[IRQ], 0, "no line moves before all is loaded");
	hv_platform_loaded(other.platform);
	cr_assert_eq(other.level[IRQ], 1);
	for (unsigned int i = 0; i < 3000; i++) {
		uint16_t port = (uint16_t)(PORT + i * 7 % 8);

		cr_assert_eq(in8(&f, port), in8(&other, port), "access %u", i);
		out8(&f, port, (uint8_t)(i * 37));
		out8(&other, port, (uint8_t)(i * 37));
	}
	base_buffer_fini(&saved);
	fixture_fini(&other);
}

Test(uart, bad_payloads_are_refused)
{
	make_busy(&f);
	fixture_expect_length_checked(&f, SECTION_UART);
	fixture_expect_byte_refused(&f, SECTION_UART, 0, 0x1F);
	fixture_expect_byte_refused(&f, SECTION_UART, 0, 0x0D); /* pending while masked */
	fixture_expect_byte_refused(&f, SECTION_UART, 1, 0x8B);
	fixture_expect_byte_refused(&f, SECTION_UART, 1, 0x88); /* and too many bytes */
	fixture_expect_byte_refused(&f, SECTION_UART, 1, 0x00); /* too many bytes */
	fixture_expect_byte_refused(&f, SECTION_UART, 3, 0x20);
	fixture_expect_byte_refused(&f, SECTION_UART, 4, 0x01);
	fixture_expect_byte_refused(&f, SECTION_UART, 5, 0x10);
	fixture_expect_byte_refused(&f, SECTION_UART, 9, 0x02);
	fixture_expect_byte_refused(&f, SECTION_UART, 10, 17);
	fixture_expect_byte_refused(&f, SECTION_UART, 10, 14); /* bytes behind them */
	fixture_expect_byte_refused(&f, SECTION_UART, 11, 1);
	fixture_expect_byte_refused(&f, SECTION_UART, 27, 1);
}

Test(uart, any_access_leaves_a_sane_state)
{
	fixture_hammer(&f, SECTION_UART, PORT, 8, 20000);
}
