/* SPDX-License-Identifier: Apache-2.0 */
#include "hypervisor/boot_memmap.h"

#include <stddef.h>

#include "hypervisor/acpi.h"

static void add(struct hv_memmap *map, uint64_t gpa, uint64_t size_bytes, enum hv_memmap_kind kind)
{
	base_assert(map->count < HV_MEMMAP_ENTRIES_MAX);
	map->entries[map->count++] =
		(struct hv_memmap_entry){ .gpa = gpa, .size_bytes = size_bytes, .kind = kind };
}

void hv_memmap_build(const struct hv_memory *memory, struct hv_memmap *ret_map)
{
	struct hv_ram_range ranges[2];
	uint32_t range_count = hv_memory_ranges(memory, ranges);
	struct hv_memmap map = { .count = 0 };

	base_assert(range_count >= 1 && ranges[0].gpa == 0);
	base_assert(ranges[0].size_bytes > HV_MEMMAP_HIGH_GPA);

	add(&map, 0, HV_MEMMAP_EBDA_GPA, HV_MEMMAP_RAM);
	add(&map, HV_MEMMAP_EBDA_GPA, HV_PAGE_BYTES, HV_MEMMAP_RESERVED);
	add(&map, HV_ACPI_AREA_GPA, HV_ACPI_AREA_BYTES, HV_MEMMAP_RESERVED);
	add(&map, HV_MEMMAP_HIGH_GPA, ranges[0].size_bytes - HV_MEMMAP_HIGH_GPA, HV_MEMMAP_RAM);
	/* KVM on VMX keeps its own pages there: nobody may place a device over them. */
	add(&map, HV_GPA_VMX_IDENTITY_MAP,
	    HV_GPA_VMX_TSS + 3 * HV_PAGE_BYTES - HV_GPA_VMX_IDENTITY_MAP, HV_MEMMAP_RESERVED);
	if (range_count > 1)
		add(&map, ranges[1].gpa, ranges[1].size_bytes, HV_MEMMAP_RAM);
	*ret_map = map;
}

const struct hv_memmap_entry *hv_memmap_find(const struct hv_memmap *map, uint64_t gpa)
{
	for (uint32_t i = 0; i < map->count; i++) {
		const struct hv_memmap_entry *entry = &map->entries[i];

		if (gpa >= entry->gpa && gpa - entry->gpa < entry->size_bytes)
			return entry;
	}
	return NULL;
}

bool hv_memmap_is_ram(const struct hv_memmap *map, uint64_t gpa, uint64_t size_bytes)
{
	const struct hv_memmap_entry *entry = hv_memmap_find(map, gpa);

	return entry != NULL && entry->kind == HV_MEMMAP_RAM &&
	       size_bytes <= entry->size_bytes - (gpa - entry->gpa);
}
