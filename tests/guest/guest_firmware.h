/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the machine tells about itself: the PVH start info (command line, memory
 * map) and ACPI (processors, power off, reset).  Read once, by vCPU 0, before
 * anything else in low memory is written.
 */
#ifndef GUEST_FIRMWARE_H
#define GUEST_FIRMWARE_H

#include <stdbool.h>
#include <stdint.h>

#include "tests/guest/guest_super.h"

#define GUEST_RAM_MAX 16

struct guest_range {
	uint64_t start, end; /* physical bytes, end is the first one after */
};

struct guest_firmware {
	char cmdline[SUPER_CMDLINE_BYTES];
	struct guest_range ram[GUEST_RAM_MAX]; /* as the memory map has it, type 1 only */
	uint32_t ram_count;
	uint32_t vcpu_count; /* 0: no MADT */
	uint64_t ram_bytes;
	uint8_t apic_ids[SUPER_VCPUS_MAX];
	uint16_t pm1a_control; /* port; 0: none */
	uint16_t reset_port;   /* 0: none */
	uint8_t reset_value;
	uint8_t sleep_type; /* for S5 */
};

/** guest_firmware_read - fill @ret from the start info.  Dies with a line if it makes no sense. */
void guest_firmware_read(uint64_t start_info, struct guest_firmware *ret);

#endif
