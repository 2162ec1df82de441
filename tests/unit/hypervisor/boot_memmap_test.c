/* SPDX-License-Identifier: Apache-2.0 */
#include "boot_image.h"
#include "hypervisor/boot_memmap.h"

static struct hv_memmap map_of(uint64_t size_bytes)
{
	struct hv_memory *memory = NULL;
	struct hv_memmap map;

	if (hv_memory_check_size(size_bytes, NULL) == -ENOMEM)
		cr_skip_test("this host has less memory than the VM of this test");
	cr_assert_eq(hv_memory_new(size_bytes, HV_MEMORY_SMALL, &memory, NULL), 0);
	hv_memmap_build(memory, &map);
	hv_memory_free(memory);
	for (uint32_t i = 1; i < map.count; i++)
		cr_assert_geq(map.entries[i].gpa,
			      map.entries[i - 1].gpa + map.entries[i - 1].size_bytes);
	return map;
}

static void assert_entry(const struct hv_memmap *map, uint32_t index, uint64_t gpa,
			 uint64_t size_bytes, enum hv_memmap_kind kind)
{
	cr_assert_lt(index, map->count);
	cr_assert_eq(map->entries[index].gpa, gpa, "entry %u", index);
	cr_assert_eq(map->entries[index].size_bytes, size_bytes, "entry %u", index);
	cr_assert_eq(map->entries[index].kind, kind, "entry %u", index);
}

Test(boot_memmap, smallest_vm)
{
	struct hv_memmap map = map_of(HV_MEMORY_BYTES_MIN);

	cr_assert_eq(map.count, 5);
	assert_entry(&map, 0, 0, 0x9F000, HV_MEMMAP_RAM);
	assert_entry(&map, 1, 0x9F000, 0x1000, HV_MEMMAP_RESERVED);
	assert_entry(&map, 2, 0xE0000, 0x20000, HV_MEMMAP_RESERVED);
	assert_entry(&map, 3, 0x100000, HV_MEMORY_BYTES_MIN - 0x100000, HV_MEMMAP_RAM);
	assert_entry(&map, 4, 0xFFFBC000, 0x4000, HV_MEMMAP_RESERVED);
}

Test(boot_memmap, ram_continues_above_the_hole)
{
	struct hv_memmap map = map_of(HV_GPA_HOLE_START + HV_HUGE_PAGE_BYTES);

	cr_assert_eq(map.count, 6);
	assert_entry(&map, 3, 0x100000, HV_GPA_HOLE_START - 0x100000, HV_MEMMAP_RAM);
	assert_entry(&map, 5, HV_GPA_HOLE_END, HV_HUGE_PAGE_BYTES, HV_MEMMAP_RAM);
	cr_assert_eq(map_of(HV_GPA_HOLE_START).count, 5, "RAM that just fills the low part");
}

Test(boot_memmap, look_ups)
{
	struct hv_memmap map = map_of(HV_MEMORY_BYTES_MIN);

	cr_assert_eq(hv_memmap_find(&map, 0x9EFFF), &map.entries[0]);
	cr_assert_eq(hv_memmap_find(&map, 0x9F000), &map.entries[1]);
	cr_assert_null(hv_memmap_find(&map, 0xA0000));
	cr_assert_null(hv_memmap_find(&map, UINT64_MAX));
	cr_assert(hv_memmap_is_ram(&map, 0x100000, HV_MEMORY_BYTES_MIN - 0x100000));
	cr_assert_not(hv_memmap_is_ram(&map, 0x100000, HV_MEMORY_BYTES_MIN - 0xFFFFF));
	cr_assert_not(hv_memmap_is_ram(&map, 0x100001, UINT64_MAX));
	cr_assert_not(hv_memmap_is_ram(&map, 0xE0000, 1));
	cr_assert_not(hv_memmap_is_ram(&map, HV_MEMORY_BYTES_MIN, 0));
}
