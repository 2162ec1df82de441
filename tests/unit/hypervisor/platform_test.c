/* SPDX-License-Identifier: Apache-2.0 */
/* The platform as a whole: claims, section table, versions. */
#include <pthread.h>

#include "platform_fixture.h"

Test(platform, a_taken_port_fails_the_whole)
{
	static const struct hv_io_ops none = { 0 };
	static const uint16_t ports[] = { 0x3FF, 0x71, 0x60B, 0x61, 0x64, 0x92, 0xCF9 };

	for (size_t i = 0; i < sizeof(ports) / sizeof(ports[0]); i++) {
		const struct hv_io_range taken = { HV_IO_PORT, ports[i], 1, &none, NULL };
		struct hv_platform *platform = NULL;
		struct base_error err = { 0 };
		struct fixture f = { 0 };

		f.clock = base_clock_fake(&f.fake);
		f.time.clock = &f.clock;
		cr_assert_eq(hv_iobus_new(&f.bus, NULL), 0);
		cr_assert_eq(hv_iobus_add(f.bus, &taken, NULL), 0);
		cr_assert_eq(hv_platform_new(f.bus, &fixture_ops, &f, &f.time, &platform, &err),
			     -EEXIST);
		cr_assert_null(platform);
		cr_assert_eq(strncmp(err.text, "device '", 8), 0, "%s", err.text);
		hv_iobus_free(f.bus);
	}
	hv_platform_free(NULL);
}

Test(platform, sections_have_their_names)
{
	static const char *const names[] = { "uart", "rtc", "acpi-pm", "legacy-io" };

	cr_assert_eq(hv_platform_section_count(), SECTIONS);
	for (size_t i = 0; i < SECTIONS; i++) {
		cr_assert_str_eq(hv_platform_section(i).name, names[i]);
		cr_assert_eq(hv_platform_section(i).version, 1);
	}
}

Test(platform, other_versions_are_refused)
{
	struct fixture f;

	fixture_init(&f);
	for (size_t i = 0; i < SECTIONS; i++) {
		struct base_buffer saved = fixture_save(&f, i);
		struct base_reader in = base_reader_over(saved.data, saved.size_bytes);
		struct base_error err = { 0 };

		cr_assert_eq(hv_platform_load(f.platform, i, 0, &in, &err), -EBADMSG);
		cr_assert_eq(hv_platform_load(f.platform, i, 2, &in, &err), -ENOTSUP);
		cr_assert_not_null(strstr(err.text, hv_platform_section(i).name));
		cr_assert_not_null(strstr(err.text, "version 2"));
		cr_assert_eq(hv_platform_load(f.platform, i, UINT32_MAX, &in, NULL), -ENOTSUP);
		cr_assert_eq(hv_platform_load(f.platform, i, 1, &in, NULL), 0);
		base_buffer_fini(&saved);
	}
	fixture_fini(&f);
}

Test(platform, guest_time_is_boot_time_and_an_offset)
{
	struct base_fake_clock fake = { .boot_ns = 100 };
	struct base_clock clock = base_clock_fake(&fake);
	struct hv_guest_time time = { .clock = &clock };

	cr_assert_eq(hv_guest_time_ns(&time), 100);
	time.boot_offset_ns = 5;
	cr_assert_eq(hv_guest_time_ns(&time), 105);
	time.boot_offset_ns = -40;
	cr_assert_eq(hv_guest_time_ns(&time), 60);
	time.boot_offset_ns = INT64_MIN;
	cr_assert_eq(hv_guest_time_ns(&time), 0);
}

/* Several processors at once, input and the power button beside them (for tsan). */
struct racer {
	struct fixture *f;
	uint64_t seed;
};

static unsigned int room_calls; /* atomic access only */

static void count_irq(void *context, uint32_t gsi, int level)
{
	(void)context;
	(void)gsi;
	(void)level;
}

static void count_nothing(void *context)
{
	(void)context;
}

static void count_room(void *context)
{
	(void)context;
	(void)__atomic_add_fetch(&room_calls, 1, __ATOMIC_RELAXED);
}

static void drop_output(void *context, const uint8_t *bytes, size_t size_bytes)
{
	(void)context;
	(void)bytes;
	(void)size_bytes;
}

static void *race(void *context)
{
	static const uint16_t ports[] = { 0x3F8, 0x3F9, 0x3FA, 0x3FC, 0x3FD, 0x3FE,
					  0x70,  0x71,  0x600, 0x604, 0x608, 0x61 };
	struct racer *racer = context;

	for (unsigned int i = 0; i < 5000; i++) {
		const uint64_t random = fixture_next(&racer->seed);
		const uint16_t port = ports[random % (sizeof(ports) / sizeof(ports[0]))];

		if ((random & 1 << 20) != 0)
			out8(racer->f, port, (uint8_t)(random >> 32));
		else
			(void)in8(racer->f, port);
	}
	return NULL;
}

Test(platform, devices_stand_several_processors_at_once)
{
	static const struct hv_platform_ops ops = { .power_off = count_nothing,
						    .reset = count_nothing,
						    .console_out = drop_output,
						    .irq = count_irq };
	struct fixture f = { 0 };
	struct racer racers[3];
	pthread_t threads[3];

	f.clock = base_clock_fake(&f.fake);
	f.time.clock = &f.clock;
	cr_assert_eq(hv_iobus_new(&f.bus, NULL), 0);
	cr_assert_eq(hv_platform_new(f.bus, &ops, NULL, &f.time, &f.platform, NULL), 0);
	hv_platform_on_console_room(f.platform, count_room, NULL);
	for (unsigned int i = 0; i < 3; i++) {
		racers[i] = (struct racer){ .f = &f, .seed = i };
		cr_assert_eq(pthread_create(&threads[i], NULL, race, &racers[i]), 0);
	}
	for (unsigned int i = 0; i < 2000; i++) {
		(void)hv_platform_console_in(f.platform, (const uint8_t *)"typed", 5);
		hv_platform_power_button(f.platform);
	}
	for (unsigned int i = 0; i < 3; i++)
		cr_assert_eq(pthread_join(threads[i], NULL), 0);
	for (size_t i = 0; i < SECTIONS; i++)
		fixture_expect_same_elsewhere(&f, i);
	fixture_fini(&f);
}
