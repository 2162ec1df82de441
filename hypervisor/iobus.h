/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Port and memory-mapped I/O: which device answers at an address.
 *
 * Built before the vCPUs start, immutable afterwards, so look-ups take no lock.
 * Handlers run on vCPU threads, several at once: each device locks itself.
 */
#ifndef HYPERVISOR_IOBUS_H
#define HYPERVISOR_IOBUS_H

#include <stdint.h>

#include "base/error.h"

enum hv_io_space {
	HV_IO_INVALID,
	HV_IO_PORT,
	HV_IO_MMIO,
	HV_IO_SPACES
};

/* @offset: from the range's base.  @size_bytes: 1, 2, 4 or 8, and inside the range. */
struct hv_io_ops {
	uint64_t (*read)(void *device, uint64_t offset, uint32_t size_bytes);
	void (*write)(void *device, uint64_t offset, uint32_t size_bytes, uint64_t value);
};

struct hv_iobus;

BASE_MUST_CHECK int hv_iobus_new(struct hv_iobus **ret_bus, struct base_error *err);
void hv_iobus_free(struct hv_iobus *bus); /* NULL is fine; devices are not freed */

/* Who answers where: [base, base + length).  A value; @ops and @device are borrowed. */
struct hv_io_range {
	enum hv_io_space space;
	uint64_t base;
	uint64_t length;
	const struct hv_io_ops *ops;
	void *device;
};

/* Claim a range.  -EEXIST overlaps another, -ENOSPC too many, -EINVAL empty or wraps.
 * The range's ops and device outlive the bus; @range is copied. */
BASE_MUST_CHECK int hv_iobus_add(struct hv_iobus *bus, const struct hv_io_range *range,
				 struct base_error *err);

/* An access that no range holds whole: reads give all ones, writes vanish, as on a PC. */
uint64_t hv_iobus_read(struct hv_iobus *bus, enum hv_io_space space, uint64_t address,
		       uint32_t size_bytes);
void hv_iobus_write(struct hv_iobus *bus, enum hv_io_space space, uint64_t address,
		    uint32_t size_bytes, uint64_t value);

/* An interrupt line into the partition's IOAPIC and PIC.  Any thread. */
struct hv_irq_line {
	void (*set)(void *context, uint32_t gsi, int level);
	void *context;
	uint32_t gsi;
};
static inline void hv_irq_set(const struct hv_irq_line *line, int level)
{
	line->set(line->context, line->gsi, level);
}

#endif
