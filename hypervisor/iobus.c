/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Port and memory-mapped I/O: see iobus.h.
 *
 * Invariant: ranges are sorted by (space, base) and do not overlap, so a look-up
 * is a binary search and at most one range can hold an address.
 */
#include "hypervisor/iobus.h"

#include <errno.h>
#include <inttypes.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include "hypervisor/hv_limits.h"

#define PORT_SPACE_BYTES 0x10000ULL /* x86 has 64 Ki ports */

struct hv_iobus {
	size_t range_count;
	struct hv_io_range ranges[HV_IO_RANGES_MAX];
};

int hv_iobus_new(struct hv_iobus **ret_bus, struct base_error *err)
{
	struct hv_iobus *bus = calloc(1, sizeof(*bus));

	if (bus == NULL)
		return base_fail(err, -ENOMEM, "I/O bus, %zu bytes", sizeof(*bus));
	*ret_bus = bus;
	return 0;
}

void hv_iobus_free(struct hv_iobus *bus)
{
	free(bus);
}

/* Ranges whose (space, base) is at or before (@space, @address). */
static size_t count_up_to(const struct hv_iobus *bus, enum hv_io_space space, uint64_t address)
{
	size_t low = 0;
	size_t high = bus->range_count;

	while (low < high) {
		size_t middle = low + (high - low) / 2;
		const struct hv_io_range *range = &bus->ranges[middle];

		if (range->space < space || (range->space == space && range->base <= address))
			low = middle + 1;
		else
			high = middle;
	}
	return low;
}

static int check_range(const struct hv_io_range *range, struct base_error *err)
{
	if (range->space != HV_IO_PORT && range->space != HV_IO_MMIO)
		return base_fail(err, -EINVAL, "I/O range: space %d is not known",
				 (int)range->space);
	if (range->length == 0 || range->length - 1 > UINT64_MAX - range->base)
		return base_fail(err, -EINVAL,
				 "I/O range: base 0x%" PRIx64 ", length 0x%" PRIx64
				 " is empty or wraps",
				 range->base, range->length);
	if (range->space == HV_IO_PORT &&
	    (range->base >= PORT_SPACE_BYTES || range->length > PORT_SPACE_BYTES - range->base))
		return base_fail(err, -EINVAL,
				 "I/O range: ports 0x%" PRIx64 ", length 0x%" PRIx64
				 " end above 0xffff",
				 range->base, range->length);
	return 0;
}

/* Two ranges, @low not behind @high. */
static bool overlap(const struct hv_io_range *low, const struct hv_io_range *high)
{
	return low->space == high->space && high->base - low->base < low->length;
}

int hv_iobus_add(struct hv_iobus *bus, const struct hv_io_range *range, struct base_error *err)
{
	const struct hv_io_range *other = NULL;
	size_t at;
	int rc = check_range(range, err);

	if (rc < 0)
		return rc;
	if (bus->range_count == HV_IO_RANGES_MAX)
		return base_fail(err, -ENOSPC, "I/O range 0x%" PRIx64 ": the bus holds %u already",
				 range->base, HV_IO_RANGES_MAX);

	at = count_up_to(bus, range->space, range->base);
	if (at > 0 && overlap(&bus->ranges[at - 1], range))
		other = &bus->ranges[at - 1];
	else if (at < bus->range_count && overlap(range, &bus->ranges[at]))
		other = &bus->ranges[at];
	if (other != NULL)
		return base_fail(err, -EEXIST,
				 "I/O range 0x%" PRIx64 " overlaps the one at 0x%" PRIx64,
				 range->base, other->base);

	memmove(&bus->ranges[at + 1], &bus->ranges[at],
		(bus->range_count - at) * sizeof(bus->ranges[0]));
	bus->ranges[at] = *range;
	bus->range_count++;
	return 0;
}

static uint64_t all_ones(uint32_t size_bytes)
{
	return size_bytes >= 8 ? UINT64_MAX : (1ULL << (8 * size_bytes)) - 1;
}

/* The range that holds the whole access, or NULL. */
static const struct hv_io_range *find(const struct hv_iobus *bus, enum hv_io_space space,
				      uint64_t address, uint32_t size_bytes)
{
	const struct hv_io_range *range;
	size_t at;

	if (size_bytes != 1 && size_bytes != 2 && size_bytes != 4 && size_bytes != 8)
		return NULL;
	at = count_up_to(bus, space, address);
	if (at == 0)
		return NULL;
	range = &bus->ranges[at - 1];
	if (range->space != space || range->length < size_bytes)
		return NULL;
	if (address - range->base > range->length - size_bytes)
		return NULL;
	return range;
}

uint64_t hv_iobus_read(struct hv_iobus *bus, enum hv_io_space space, uint64_t address,
		       uint32_t size_bytes)
{
	const struct hv_io_range *range = find(bus, space, address, size_bytes);

	if (range == NULL)
		return all_ones(size_bytes);
	return range->ops->read(range->device, address - range->base, size_bytes) &
	       all_ones(size_bytes);
}

void hv_iobus_write(struct hv_iobus *bus, enum hv_io_space space, uint64_t address,
		    uint32_t size_bytes, uint64_t value)
{
	const struct hv_io_range *range = find(bus, space, address, size_bytes);

	if (range != NULL)
		range->ops->write(range->device, address - range->base, size_bytes,
				  value & all_ones(size_bytes));
}
