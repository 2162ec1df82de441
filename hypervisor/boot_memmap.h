/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The memory map that a booting kernel is told: e820 table of the Linux boot
 * protocol and memory map of PVH say the same.  A pure function of the VM's RAM
 * layout; any thread.  Picture: docs/hypervisor/boot.md.
 */
#ifndef HYPERVISOR_BOOT_MEMMAP_H
#define HYPERVISOR_BOOT_MEMMAP_H

#include <stdbool.h>
#include <stdint.h>

#include "hypervisor/memory.h"

#define HV_MEMMAP_ENTRIES_MAX 6           /* exactly what hv_memmap_build() can give */
#define HV_MEMMAP_EBDA_GPA    0x9F000ULL  /* low RAM ends here, one page below 640 KiB, as on PCs */
#define HV_MEMMAP_HIGH_GPA    0x100000ULL /* RAM again, from 1 MiB */

/* Numbers as in the ACPI address range types (ACPI 6.4, table 15.2), e820 and PVH. */
enum hv_memmap_kind {
	HV_MEMMAP_INVALID = 0,
	HV_MEMMAP_RAM = 1,
	HV_MEMMAP_RESERVED = 2,
	HV_MEMMAP_KINDS
};

struct hv_memmap_entry {
	uint64_t gpa;
	uint64_t size_bytes;
	enum hv_memmap_kind kind;
};

/* Ascending, not overlapping.  A value. */
struct hv_memmap {
	struct hv_memmap_entry entries[HV_MEMMAP_ENTRIES_MAX];
	uint32_t count;
};

/* The map of a VM with @memory (at least HV_MEMORY_BYTES_MIN). */
void hv_memmap_build(const struct hv_memory *memory, struct hv_memmap *ret_map);

/* The entry that holds @gpa; NULL when the map says nothing about it. */
const struct hv_memmap_entry *hv_memmap_find(const struct hv_memmap *map, uint64_t gpa);

/* Is all of [gpa, gpa + size_bytes) in one entry of RAM? */
bool hv_memmap_is_ram(const struct hv_memmap *map, uint64_t gpa, uint64_t size_bytes);

#endif
