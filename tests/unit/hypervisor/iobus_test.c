/* SPDX-License-Identifier: Apache-2.0 */
/* The bus: who answers where, and what happens where no one does. */
#include <criterion/criterion.h>
#include <errno.h>

#include "hypervisor/hv_limits.h"
#include "hypervisor/iobus.h"

/* A device that remembers the last access. */
struct probe {
	uint64_t offset;
	uint64_t value;
	uint32_t size_bytes;
	unsigned int access_count;
};

static uint64_t probe_read(void *device, uint64_t offset, uint32_t size_bytes)
{
	struct probe *probe = device;

	probe->offset = offset;
	probe->size_bytes = size_bytes;
	probe->access_count++;
	return 0xFFEEDDCCBBAA9988ULL; /* more than was asked for: the bus must cut */
}

static void probe_write(void *device, uint64_t offset, uint32_t size_bytes, uint64_t value)
{
	(void)probe_read(device, offset, size_bytes);
	((struct probe *)device)->value = value;
}

static const struct hv_io_ops probe_ops = { .read = probe_read, .write = probe_write };

static struct hv_iobus *bus;
static struct probe probe;

static void set_up(void)
{
	probe = (struct probe){ 0 };
	cr_assert_eq(hv_iobus_new(&bus, NULL), 0);
}

static void tear_down(void)
{
	hv_iobus_free(bus);
}

static int add(enum hv_io_space space, uint64_t base, uint64_t length)
{
	struct base_error err = { 0 };
	const struct hv_io_range range = { space, base, length, &probe_ops, &probe };
	int rc = hv_iobus_add(bus, &range, &err);

	cr_assert_eq(err.code, rc);
	return rc;
}

TestSuite(iobus, .init = set_up, .fini = tear_down);

Test(iobus, finds_the_device_and_gives_offset_and_width)
{
	cr_assert_eq(add(HV_IO_PORT, 0x100, 8), 0);
	cr_assert_eq(hv_iobus_read(bus, HV_IO_PORT, 0x106, 2), 0x9988);
	cr_assert_eq(probe.offset, 6);
	cr_assert_eq(probe.size_bytes, 2);
	hv_iobus_write(bus, HV_IO_PORT, 0x100, 1, 0x1234);
	cr_assert_eq(probe.offset, 0);
	cr_assert_eq(probe.value, 0x34);
}

Test(iobus, accesses_that_no_range_holds_whole)
{
	static const struct {
		uint64_t address;
		uint32_t size_bytes;
		uint64_t answer;
	} rows[] = {
		{ 0xFF, 1, 0xFF },
		{ 0xFF, 2, 0xFFFF },
		{ 0x108, 1, 0xFF },
		{ 0x107, 2, 0xFFFF },
		{ 0x105, 4, 0xFFFFFFFF },
		{ 0x101, 8, UINT64_MAX },
		{ 0x100, 3, 0xFFFFFF },
		{ 0x100, 0, 0 },
		{ 0x100, 16, UINT64_MAX },
		{ UINT64_MAX, 1, 0xFF },
		{ UINT64_MAX, 8, UINT64_MAX },
		{ 0x100, UINT32_MAX, UINT64_MAX },
	};

	cr_assert_eq(add(HV_IO_PORT, 0x100, 8), 0);
	for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
		cr_expect_eq(hv_iobus_read(bus, HV_IO_PORT, rows[i].address, rows[i].size_bytes),
			     rows[i].answer, "row %zu", i);
		hv_iobus_write(bus, HV_IO_PORT, rows[i].address, rows[i].size_bytes, 1);
	}
	cr_assert_eq(probe.access_count, 0);
	cr_assert_eq(hv_iobus_read(bus, HV_IO_MMIO, 0x100, 1), 0xFF, "the other space");
}

Test(iobus, overlaps_are_refused_from_both_sides)
{
	cr_assert_eq(add(HV_IO_MMIO, 0x1000, 0x1000), 0);
	cr_assert_eq(add(HV_IO_MMIO, 0x1000, 1), -EEXIST);
	cr_assert_eq(add(HV_IO_MMIO, 0x1FFF, 1), -EEXIST);
	cr_assert_eq(add(HV_IO_MMIO, 0xFFF, 2), -EEXIST);
	cr_assert_eq(add(HV_IO_MMIO, 0, UINT64_MAX), -EEXIST);
	cr_assert_eq(add(HV_IO_MMIO, 0xFFF, 1), 0);
	cr_assert_eq(add(HV_IO_MMIO, 0x2000, 1), 0);
	cr_assert_eq(add(HV_IO_PORT, 0x1000, 1), 0);
}

Test(iobus, ranges_that_cannot_be)
{
	cr_assert_eq(add(HV_IO_PORT, 0x100, 0), -EINVAL);
	cr_assert_eq(add(HV_IO_PORT, 0xFFFF, 2), -EINVAL);
	cr_assert_eq(add(HV_IO_PORT, 0x10000, 1), -EINVAL);
	cr_assert_eq(add(HV_IO_MMIO, UINT64_MAX, 2), -EINVAL);
	cr_assert_eq(add(HV_IO_INVALID, 0, 1), -EINVAL);
	cr_assert_eq(add(HV_IO_SPACES, 0, 1), -EINVAL);
}

Test(iobus, the_last_addresses_of_a_space_work)
{
	cr_assert_eq(add(HV_IO_PORT, 0xFFFF, 1), 0);
	cr_assert_eq(add(HV_IO_MMIO, UINT64_MAX - 7, 8), 0);
	(void)hv_iobus_read(bus, HV_IO_PORT, 0xFFFF, 1);
	(void)hv_iobus_read(bus, HV_IO_MMIO, UINT64_MAX - 7, 8);
	(void)hv_iobus_read(bus, HV_IO_MMIO, UINT64_MAX, 1);
	cr_assert_eq(probe.access_count, 3);
}

Test(iobus, is_full_at_its_limit)
{
	/* From the top down, so that each one is moved in front. */
	for (uint64_t i = HV_IO_RANGES_MAX; i > 0; i--)
		cr_assert_eq(add(HV_IO_PORT, i * 16, 16), 0);
	cr_assert_eq(add(HV_IO_PORT, 0, 1), -ENOSPC);
	for (uint64_t i = 1; i <= HV_IO_RANGES_MAX; i++) {
		(void)hv_iobus_read(bus, HV_IO_PORT, i * 16 + 5, 1);
		cr_assert_eq(probe.offset, 5);
	}
	cr_assert_eq(probe.access_count, HV_IO_RANGES_MAX);
}
