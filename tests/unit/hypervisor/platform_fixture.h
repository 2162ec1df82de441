/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A platform on a bus of its own, with a clock set by hand and an outside that
 * only remembers.  One per test; freed with fixture_fini().
 */
#ifndef TESTS_UNIT_HYPERVISOR_PLATFORM_FIXTURE_H
#define TESTS_UNIT_HYPERVISOR_PLATFORM_FIXTURE_H

#include <criterion/criterion.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "base/bytes.h"
#include "base/clock.h"
#include "hypervisor/iobus.h"
#include "hypervisor/platform.h"

#define FIXTURE_CONSOLE_BYTES 4096u
#define FIXTURE_GSIS          24u

/* Indexes of the sections. */
enum fixture_section {
	SECTION_UART,
	SECTION_RTC,
	SECTION_ACPI_PM,
	SECTION_LEGACY_IO,
	SECTIONS
};

struct fixture {
	struct base_fake_clock fake;
	struct base_clock clock;
	struct hv_guest_time time;
	struct hv_iobus *bus;
	struct hv_platform *platform;
	int level[FIXTURE_GSIS];
	unsigned int rise_count[FIXTURE_GSIS];
	unsigned int call_count[FIXTURE_GSIS];
	unsigned int power_off_count;
	unsigned int reset_count;
	unsigned int room_count;
	uint8_t console[FIXTURE_CONSOLE_BYTES];
	size_t console_bytes;
};

static inline void fixture_power_off(void *context)
{
	((struct fixture *)context)->power_off_count++;
}

static inline void fixture_reset(void *context)
{
	((struct fixture *)context)->reset_count++;
}

static inline void fixture_console_out(void *context, const uint8_t *bytes, size_t size_bytes)
{
	struct fixture *f = context;

	for (size_t i = 0; i < size_bytes && f->console_bytes < FIXTURE_CONSOLE_BYTES; i++)
		f->console[f->console_bytes++] = bytes[i];
}

static inline void fixture_irq(void *context, uint32_t gsi, int level)
{
	struct fixture *f = context;

	cr_assert_lt(gsi, FIXTURE_GSIS);
	f->rise_count[gsi] += level != 0 && f->level[gsi] == 0 ? 1 : 0;
	f->level[gsi] = level;
	f->call_count[gsi]++;
}

static inline void fixture_room(void *context)
{
	((struct fixture *)context)->room_count++;
}

static const struct hv_platform_ops fixture_ops = {
	.power_off = fixture_power_off,
	.reset = fixture_reset,
	.console_out = fixture_console_out,
	.irq = fixture_irq,
};

static inline void fixture_init(struct fixture *f)
{
	struct base_error err = { 0 };

	memset(f, 0, sizeof(*f));
	f->fake.boot_ns = 1000 * BASE_NS_PER_SECOND;
	f->fake.real_ns = 1700000000ULL * BASE_NS_PER_SECOND; /* 2023-11-14 22:13:20, a Tuesday */
	f->clock = base_clock_fake(&f->fake);
	f->time.clock = &f->clock;
	cr_assert_eq(hv_iobus_new(&f->bus, &err), 0, "%s", err.text);
	cr_assert_eq(hv_platform_new(f->bus, &fixture_ops, f, &f->time, &f->platform, &err), 0,
		     "%s", err.text);
	hv_platform_on_console_room(f->platform, fixture_room, f);
}

static inline void fixture_fini(struct fixture *f)
{
	hv_iobus_free(f->bus);
	hv_platform_free(f->platform);
}

static inline void fixture_pass_ns(struct fixture *f, uint64_t ns)
{
	f->fake.boot_ns += ns;
	f->fake.real_ns += ns;
}

static inline uint8_t in8(struct fixture *f, uint16_t port)
{
	return (uint8_t)hv_iobus_read(f->bus, HV_IO_PORT, port, 1);
}

static inline void out8(struct fixture *f, uint16_t port, uint8_t value)
{
	hv_iobus_write(f->bus, HV_IO_PORT, port, 1, value);
}

static inline uint16_t in16(struct fixture *f, uint16_t port)
{
	return (uint16_t)hv_iobus_read(f->bus, HV_IO_PORT, port, 2);
}

static inline void out16(struct fixture *f, uint16_t port, uint16_t value)
{
	hv_iobus_write(f->bus, HV_IO_PORT, port, 2, value);
}

static inline uint32_t in32(struct fixture *f, uint16_t port)
{
	return (uint32_t)hv_iobus_read(f->bus, HV_IO_PORT, port, 4);
}

static inline void out32(struct fixture *f, uint16_t port, uint32_t value)
{
	hv_iobus_write(f->bus, HV_IO_PORT, port, 4, value);
}

static inline struct base_buffer fixture_save(struct fixture *f, size_t section)
{
	struct base_buffer buffer = { 0 };

	hv_platform_save(f->platform, section, &buffer);
	cr_assert(!buffer.failed);
	return buffer;
}

static inline int fixture_load(struct fixture *f, size_t section, const void *payload,
			       size_t size_bytes)
{
	struct base_reader in = base_reader_over(payload, size_bytes);

	return hv_platform_load(f->platform, section, hv_platform_section(section).version, &in,
				NULL);
}

/* save -> load elsewhere -> save gives the same bytes, for one section. */
static inline void fixture_expect_same_elsewhere(struct fixture *f, size_t section)
{
	struct base_buffer first = fixture_save(f, section);
	struct base_buffer second;
	struct fixture other;

	fixture_init(&other);
	cr_assert_eq(fixture_load(&other, section, first.data, first.size_bytes), 0);
	second = fixture_save(&other, section);
	cr_assert_eq(first.size_bytes, second.size_bytes);
	cr_assert_arr_eq(first.data, second.data, first.size_bytes);
	base_buffer_fini(&first);
	base_buffer_fini(&second);
	fixture_fini(&other);
}

/* Every length but the right one is refused, and nothing changes. */
static inline void fixture_expect_length_checked(struct fixture *f, size_t section)
{
	struct base_buffer saved = fixture_save(f, section);
	uint8_t bytes[1024] = { 0 };

	cr_assert_lt(saved.size_bytes, sizeof(bytes));
	memcpy(bytes, saved.data, saved.size_bytes);
	for (size_t size = 0; size <= saved.size_bytes + 8; size++) {
		struct base_buffer now;

		if (size != saved.size_bytes)
			cr_assert_eq(fixture_load(f, section, bytes, size), -EBADMSG);
		now = fixture_save(f, section);
		cr_assert_eq(now.size_bytes, saved.size_bytes);
		cr_assert_arr_eq(now.data, saved.data, saved.size_bytes);
		base_buffer_fini(&now);
	}
	base_buffer_fini(&saved);
}

/* The payload with the byte at @offset replaced is refused, and nothing changes. */
static inline void fixture_expect_byte_refused(struct fixture *f, size_t section, size_t offset,
					       uint8_t value)
{
	struct base_buffer saved = fixture_save(f, section);
	struct base_buffer now;
	uint8_t *bytes = malloc(saved.size_bytes);

	cr_assert_not_null(bytes);
	memcpy(bytes, saved.data, saved.size_bytes);
	bytes[offset] = value;
	cr_assert_eq(fixture_load(f, section, bytes, saved.size_bytes), -EBADMSG,
		     "offset %zu value 0x%02x", offset, value);
	now = fixture_save(f, section);
	cr_assert_arr_eq(now.data, saved.data, saved.size_bytes);
	free(bytes);
	base_buffer_fini(&saved);
	base_buffer_fini(&now);
}

/* A repeatable stream of numbers (splitmix64), for accesses that no one planned. */
static inline uint64_t fixture_next(uint64_t *seed)
{
	uint64_t mixed = *seed += 0x9E3779B97F4A7C15ULL;

	mixed = (mixed ^ mixed >> 30) * 0xBF58476D1CE4E5B9ULL;
	mixed = (mixed ^ mixed >> 27) * 0x94D049BB133111EBULL;
	return mixed ^ mixed >> 31;
}

/*
 * @step_count random accesses to @port_count ports from @port on, of any width, with
 * time passing.  A read never gives more bits than asked for; and every state that is
 * reached can be saved and loaded, which is where the invariants are checked.
 */
static inline void fixture_hammer(struct fixture *f, size_t section, uint16_t port,
				  uint16_t port_count, unsigned int step_count)
{
	uint64_t seed = port;

	for (unsigned int i = 0; i < step_count; i++) {
		const uint64_t random = fixture_next(&seed);
		const uint32_t size = 1u << (random & 3);
		const uint64_t at = port + (random >> 8) % port_count;

		if ((random & 4) != 0) {
			hv_iobus_write(f->bus, HV_IO_PORT, at, size, fixture_next(&seed));
		} else {
			uint64_t value = hv_iobus_read(f->bus, HV_IO_PORT, at, size);

			cr_assert(size == 8 || value >> (8 * size) == 0);
		}
		fixture_pass_ns(f, random >> 20 & 0xFFFFFFF);
		if (i % 64 == 0)
			fixture_expect_same_elsewhere(f, section);
	}
}

#endif
