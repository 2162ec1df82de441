/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Saved-state payloads of the devices.
 *
 * Input: byte 0 the section (the last one is the test page), byte 1 the version, then
 * the payload.  What is refused changes nothing; what is accepted is saved as the
 * same bytes, and the device then stands any access.
 */
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "hypervisor/hv_limits.h"
#include "hypervisor/iobus.h"
#include "hypervisor/platform.h"
#include "hypervisor/test_page.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

struct setting {
	struct base_fake_clock fake;
	struct base_clock clock;
	struct hv_guest_time time;
	struct hv_iobus *bus;
	struct hv_platform *platform;
	struct hv_test_page *page;
};

static void ignore(void *context)
{
	(void)context;
}

static void ignore_output(void *context, const uint8_t *bytes, size_t size_bytes)
{
	(void)context;
	(void)bytes;
	(void)size_bytes;
}

static void ignore_irq(void *context, uint32_t gsi, int level)
{
	(void)context;
	(void)gsi;
	(void)level;
}

static const struct hv_platform_ops ops = {
	.power_off = ignore,
	.reset = ignore,
	.console_out = ignore_output,
	.irq = ignore_irq,
};

static void save(const struct setting *at, size_t index, struct base_buffer *out)
{
	if (index < hv_platform_section_count())
		hv_platform_save(at->platform, index, out);
	else
		hv_test_page_save(at->page, out);
}

static int load(const struct setting *at, size_t index, uint32_t version, struct base_reader *in)
{
	if (index < hv_platform_section_count())
		return hv_platform_load(at->platform, index, version, in, NULL);
	return hv_test_page_load(at->page, version, in, NULL);
}

static void expect_same(const struct base_buffer *saved, const uint8_t *data, size_t size)
{
	if (saved->failed || saved->size_bytes != size || memcmp(saved->data, data, size) != 0)
		abort();
}

/* Every port and register once each way, with bytes of the input. */
static void touch_all(struct setting *at, const uint8_t *data, size_t size)
{
	static const uint16_t ports[] = { 0x3F8, 0x3F9, 0x3FA, 0x3FB, 0x3FC, 0x3FD, 0x3FE, 0x3FF,
					  0x71,  0x600, 0x602, 0x604, 0x608, 0x61,  0xCF9 };

	for (size_t i = 0; i < sizeof(ports) / sizeof(ports[0]); i++) {
		(void)hv_iobus_read(at->bus, HV_IO_PORT, ports[i], 1u << i % 3);
		hv_iobus_write(at->bus, HV_IO_PORT, ports[i], 1u << i % 3, data[i % size] * 257ULL);
		at->fake.real_ns += data[i % size] * 100000000ULL;
	}
	for (uint8_t reg = 0; reg < 128; reg++) {
		hv_iobus_write(at->bus, HV_IO_PORT, 0x70, 1, reg);
		(void)hv_iobus_read(at->bus, HV_IO_PORT, 0x71, 1);
		hv_iobus_write(at->bus, HV_IO_PORT, 0x71, 1, data[reg % size]);
	}
	(void)hv_platform_console_in(at->platform, data, size);
	hv_platform_power_button(at->platform);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct setting at = { .fake = { .boot_ns = 1, .real_ns = 1700000000000000000ULL } };
	struct base_buffer before = { 0 };
	struct base_buffer after = { 0 };
	struct base_reader in;
	size_t index;

	if (size < 3)
		return 0;
	at.clock = base_clock_fake(&at.fake);
	at.time.clock = &at.clock;
	if (hv_iobus_new(&at.bus, NULL) < 0 ||
	    hv_platform_new(at.bus, &ops, NULL, &at.time, &at.platform, NULL) < 0 ||
	    hv_test_page_new(at.bus, &at.page, NULL) < 0)
		abort();

	index = data[0] % (hv_platform_section_count() + 1);
	save(&at, index, &before);
	in = base_reader_over(data + 2, size - 2);
	if (load(&at, index, data[1], &in) == 0) {
		save(&at, index, &after);
		expect_same(&after, data + 2, size - 2);
		hv_platform_loaded(at.platform);
		touch_all(&at, data, size);
	} else {
		save(&at, index, &after);
		expect_same(&after, before.data, before.size_bytes);
	}

	base_buffer_fini(&before);
	base_buffer_fini(&after);
	hv_iobus_free(at.bus);
	hv_platform_free(at.platform);
	hv_test_page_free(at.page);
	return 0;
}
