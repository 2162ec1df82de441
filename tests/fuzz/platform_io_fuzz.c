/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Sequences of guest accesses to the devices, with time passing and a host that types,
 * presses the power button and resets.
 *
 * Input: steps of 12 bytes: what (1), width (1), where (2), value (8).
 * No value is wider than asked for, lines are where the last call left them, and
 * every state that is reached can be saved, loaded elsewhere and saved the same.
 */
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "hypervisor/hv_limits.h"
#include "hypervisor/iobus.h"
#include "hypervisor/platform.h"
#include "hypervisor/test_page.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define STEP_BYTES 12u
#define STEPS_MAX  4096u

enum step_kind {
	STEP_READ,
	STEP_WRITE,
	STEP_PAGE_READ,
	STEP_PAGE_WRITE,
	STEP_TIME,
	STEP_TYPE,
	STEP_BUTTON,
	STEP_RESET,
	STEP_KINDS
};

struct setting {
	struct base_fake_clock fake;
	struct base_clock clock;
	struct hv_guest_time time;
	struct hv_iobus *bus;
	struct hv_platform *platform;
	struct hv_test_page *page;
	int level[16];
};

static void ignore(void *context)
{
	(void)context;
}

static void ignore_output(void *context, const uint8_t *bytes, size_t size_bytes)
{
	(void)context;
	if (bytes == NULL || size_bytes == 0)
		abort();
}

static void set_level(void *context, uint32_t gsi, int level)
{
	struct setting *at = context;

	if ((gsi != 4 && gsi != 9) || (level != 0 && level != 1))
		abort();
	at->level[gsi] = level;
}

static const struct hv_platform_ops ops = {
	.power_off = ignore,
	.reset = ignore,
	.console_out = ignore_output,
	.irq = set_level,
};

static void begin(struct setting *at)
{
	memset(at, 0, sizeof(*at));
	at->fake.real_ns = 1700000000000000000ULL;
	at->clock = base_clock_fake(&at->fake);
	at->time.clock = &at->clock;
	if (hv_iobus_new(&at->bus, NULL) < 0 ||
	    hv_platform_new(at->bus, &ops, at, &at->time, &at->platform, NULL) < 0 ||
	    hv_test_page_new(at->bus, &at->page, NULL) < 0)
		abort();
}

static void end(struct setting *at)
{
	hv_iobus_free(at->bus);
	hv_platform_free(at->platform);
	hv_test_page_free(at->page);
}

/* Ports where devices are, and now and then any other. */
static uint64_t port_of(uint16_t where)
{
	static const uint16_t bases[] = { 0x3F8, 0x70, 0x600, 0xCF8, 0x60, 0x90 };
	const size_t pick = where >> 8 & 7;

	if (pick >= sizeof(bases) / sizeof(bases[0]))
		return where;
	return bases[pick] + (where & 0xFu);
}

static void access_bus(struct setting *at, enum hv_io_space space, uint64_t address, uint32_t width,
		       const uint64_t *write)
{
	uint64_t value;

	if (write != NULL) {
		hv_iobus_write(at->bus, space, address, width, *write);
		return;
	}
	value = hv_iobus_read(at->bus, space, address, width);
	if (width < 8 && value >> (8 * width) != 0)
		abort();
}

static void take_step(struct setting *at, struct base_reader *in)
{
	const enum step_kind kind = (enum step_kind)(base_read_u8(in) % STEP_KINDS);
	const uint8_t width_byte = base_read_u8(in);
	const uint32_t width = width_byte < 0xF0 ? 1u << width_byte % 4 : width_byte & 0xFu;
	const uint16_t where = base_read_le16(in);
	const uint64_t value = base_read_le64(in);
	uint8_t typed[20];

	switch (kind) {
	case STEP_READ:
	case STEP_WRITE:
		access_bus(at, HV_IO_PORT, port_of(where), width,
			   kind == STEP_WRITE ? &value : NULL);
		break;
	case STEP_PAGE_READ:
	case STEP_PAGE_WRITE:
		access_bus(at, HV_IO_MMIO, HV_GPA_TEST_PAGE + where % HV_PAGE_BYTES, width,
			   kind == STEP_PAGE_WRITE ? &value : NULL);
		break;
	case STEP_TIME:
		at->fake.boot_ns += value >> (where & 63);
		at->fake.real_ns += value >> (where >> 8 & 63);
		break;
	case STEP_TYPE:
		memset(typed, (int)(value & 0xFF), sizeof(typed));
		(void)hv_platform_console_in(at->platform, typed, where % (sizeof(typed) + 1));
		break;
	case STEP_BUTTON:
		hv_platform_power_button(at->platform);
		break;
	case STEP_RESET:
		hv_platform_reset(at->platform);
		hv_test_page_reset(at->page);
		if (at->level[4] != 0 || at->level[9] != 0)
			abort();
		break;
	case STEP_KINDS:
		abort();
	}
}

/* The end state must load elsewhere, save the same there, and raise the same lines. */
static void check_moves(struct setting *at)
{
	struct setting other;

	begin(&other);
	other.fake = at->fake;
	for (size_t i = 0; i < hv_platform_section_count(); i++) {
		struct base_buffer here = { 0 };
		struct base_buffer there = { 0 };
		struct base_reader in;

		hv_platform_save(at->platform, i, &here);
		in = base_reader_over(here.data, here.size_bytes);
		if (hv_platform_load(other.platform, i, hv_platform_section(i).version, &in, NULL) <
		    0)
			abort();
		hv_platform_save(other.platform, i, &there);
		if (here.failed || there.failed || here.size_bytes != there.size_bytes ||
		    memcmp(here.data, there.data, here.size_bytes) != 0)
			abort();
		base_buffer_fini(&here);
		base_buffer_fini(&there);
	}
	hv_platform_loaded(other.platform);
	if (memcmp(at->level, other.level, sizeof(at->level)) != 0)
		abort();
	end(&other);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct base_reader in = base_reader_over(data, size);
	struct setting at;

	begin(&at);
	for (size_t i = 0; i < STEPS_MAX && base_reader_left(&in) >= STEP_BYTES; i++)
		take_step(&at, &in);
	check_moves(&at);
	end(&at);
	return 0;
}
