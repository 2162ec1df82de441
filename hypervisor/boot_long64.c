/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What a kernel entered by the 64-bit boot protocol finds: boot_params ("zero page",
 * Documentation/arch/x86/zero-page.rst), a GDT with __BOOT_CS and __BOOT_DS, and
 * identity-mapped memory in 2 MiB pages.
 */
#include <errno.h>
#include <inttypes.h>

#include "base/bytes.h"
#include "hypervisor/boot_plan.h"

/* Offsets in boot_params. */
#define EXT_RAMDISK_IMAGE 0x0C0u
#define EXT_RAMDISK_SIZE  0x0C4u
#define EXT_CMD_LINE_PTR  0x0C8u
#define ACPI_RSDP_ADDR    0x070u
#define E820_ENTRIES      0x1E8u
#define BOOT_FLAG         0x1FEu
#define HEADER            0x202u
#define VERSION           0x206u
#define TYPE_OF_LOADER    0x210u
#define LOADFLAGS         0x211u
#define RAMDISK_IMAGE     0x218u
#define RAMDISK_SIZE      0x21Cu
#define CMD_LINE_PTR      0x228u
#define INITRD_ADDR_MAX   0x22Cu
#define KERNEL_ALIGNMENT  0x230u
#define CMDLINE_SIZE      0x238u
#define E820_TABLE        0x2D0u
#define E820_ENTRY_BYTES  20u

#define BOOT_FLAG_VALUE   0xAA55u
#define HEADER_VALUE      0x53726448u /* "HdrS" */
#define VERSION_VALUE     0x20Fu
#define LOADER_UNDEFINED  0xFFu /* boot.rst: no id assigned */
#define LOADED_HIGH       0x01u
#define CAN_USE_HEAP      0x80u
#define DEFAULT_ALIGNMENT 0x200000u

#define PAGE_TABLE_ENTRIES 512u
#define PTE_PRESENT        (1ULL << 0)
#define PTE_WRITE          (1ULL << 1)
#define PTE_HUGE           (1ULL << 7)
#define GIBS_PER_PDPT      512u

/* The setup header: the file's own, or for an ELF kernel what is fixed in it. */
static void put_header(uint8_t *page, const struct hv_boot_plan *plan)
{
	if (plan->header != NULL) {
		struct base_writer out = base_writer_over(page + BOOT_HEADER_OFFSET,
							  HV_PAGE_BYTES - BOOT_HEADER_OFFSET);

		base_write_bytes(&out, plan->header, plan->header_bytes);
		base_assert(!out.failed);
	} else {
		base_put_le16(page + BOOT_FLAG, BOOT_FLAG_VALUE);
		base_put_le32(page + HEADER, HEADER_VALUE);
		base_put_le16(page + VERSION, VERSION_VALUE);
		base_put_le32(page + INITRD_ADDR_MAX, UINT32_MAX);
		base_put_le32(page + KERNEL_ALIGNMENT, DEFAULT_ALIGNMENT);
		base_put_le32(page + CMDLINE_SIZE, HV_CMDLINE_BYTES - 1);
	}
	page[TYPE_OF_LOADER] = LOADER_UNDEFINED;
	page[LOADFLAGS] = (uint8_t)((page[LOADFLAGS] | LOADED_HIGH) & ~CAN_USE_HEAP);
}

static int write_zero_page(struct hv_slat *slat, const struct hv_boot_plan *plan,
			   struct base_error *err)
{
	uint8_t page[HV_PAGE_BYTES] = { 0 };
	int rc;

	put_header(page, plan);
	base_put_le64(page + ACPI_RSDP_ADDR, plan->image->rsdp);
	base_put_le32(page + CMD_LINE_PTR, (uint32_t)BOOT_CMDLINE_GPA);
	base_put_le32(page + EXT_CMD_LINE_PTR, 0);
	if (plan->initrd_gpa != 0) { /* below the hole, so 32 bits hold address and size */
		base_put_le32(page + RAMDISK_IMAGE, (uint32_t)plan->initrd_gpa);
		base_put_le32(page + RAMDISK_SIZE, (uint32_t)plan->image->initrd_bytes);
		base_put_le32(page + EXT_RAMDISK_IMAGE, 0);
		base_put_le32(page + EXT_RAMDISK_SIZE, 0);
	}
	page[E820_ENTRIES] = (uint8_t)plan->map.count;
	for (uint32_t i = 0; i < plan->map.count; i++) {
		const struct hv_memmap_entry *entry = &plan->map.entries[i];
		uint8_t *to = page + E820_TABLE + (size_t)i * E820_ENTRY_BYTES;

		base_put_le64(to, entry->gpa);
		base_put_le64(to + 8, entry->size_bytes);
		base_put_le32(to + 16, (uint32_t)entry->kind);
	}
	rc = hv_slat_write(slat, BOOT_ZERO_PAGE_GPA, page, sizeof(page));
	return rc < 0 ? base_fail_errno(err, rc, "zero page at 0x%llx", BOOT_ZERO_PAGE_GPA) : 0;
}

/* One GiB more in the tables, with a PDPT of its own when it is the first of its 512. */
static int map_gib(struct hv_boot_plan *plan, uint64_t gib, struct base_error *err)
{
	uint32_t new_pdpts = 1;

	for (uint32_t i = 0; i < plan->gib_count; i++) {
		if (plan->gibs[i] == gib)
			return 0;
	}
	for (uint32_t i = 0; i < plan->pdpt_count; i++) {
		if (plan->pdpts[i] == gib / GIBS_PER_PDPT)
			new_pdpts = 0;
	}
	if (1 + plan->pdpt_count + new_pdpts + plan->gib_count + 1 > BOOT_PAGE_TABLE_PAGES)
		return base_fail(err, -ENOSPC,
				 "spreads over more than %" PRIu32
				 " GiB of addresses, the boot page tables are full",
				 plan->gib_count);
	base_assert(plan->gib_count < BOOT_GIBS_MAX);
	if (new_pdpts > 0) {
		base_assert(plan->pdpt_count < BOOT_PDPTS_MAX);
		plan->pdpts[plan->pdpt_count++] = gib / GIBS_PER_PDPT;
	}
	plan->gibs[plan->gib_count++] = gib;
	return 0;
}

int hv_boot_plan_map(struct hv_boot_plan *plan, uint64_t gpa, uint64_t size_bytes,
		     struct base_error *err)
{
	uint64_t last = (gpa + size_bytes - 1) / BOOT_GIB_BYTES;
	int rc = 0;

	for (uint64_t gib = 0; rc == 0 && gib < BOOT_GIBS_ALWAYS; gib++)
		rc = map_gib(plan, gib, err);
	for (uint64_t gib = gpa / BOOT_GIB_BYTES; rc == 0 && gib <= last; gib++)
		rc = map_gib(plan, gib, err);
	return rc;
}

/* Pages of the tables: PML4, then the PDPTs, then one PD for each GiB. */
static uint64_t pdpt_gpa(uint32_t pdpt)
{
	return BOOT_PAGE_TABLE_GPA + (1ULL + pdpt) * HV_PAGE_BYTES;
}

static uint64_t pd_gpa(const struct hv_boot_plan *plan, uint32_t gib)
{
	return pdpt_gpa(plan->pdpt_count + gib);
}

static void put_entry(uint8_t *table, uint64_t index, uint64_t value)
{
	base_put_le64(table + index % PAGE_TABLE_ENTRIES * sizeof(uint64_t), value);
}

static int write_page_tables(struct hv_slat *slat, const struct hv_boot_plan *plan,
			     struct base_error *err)
{
	uint8_t pml4[HV_PAGE_BYTES] = { 0 };
	int rc = 0;

	for (uint32_t i = 0; rc == 0 && i < plan->pdpt_count; i++) {
		uint8_t pdpt[HV_PAGE_BYTES] = { 0 };

		for (uint32_t j = 0; j < plan->gib_count; j++) {
			if (plan->gibs[j] / GIBS_PER_PDPT == plan->pdpts[i])
				put_entry(pdpt, plan->gibs[j],
					  pd_gpa(plan, j) | PTE_PRESENT | PTE_WRITE);
		}
		put_entry(pml4, plan->pdpts[i], pdpt_gpa(i) | PTE_PRESENT | PTE_WRITE);
		rc = hv_slat_write(slat, pdpt_gpa(i), pdpt, sizeof(pdpt));
	}
	for (uint32_t i = 0; rc == 0 && i < plan->gib_count; i++) {
		uint8_t pd[HV_PAGE_BYTES];

		for (uint64_t j = 0; j < PAGE_TABLE_ENTRIES; j++)
			put_entry(pd, j,
				  (plan->gibs[i] * BOOT_GIB_BYTES + j * HV_HUGE_PAGE_BYTES) |
					  PTE_PRESENT | PTE_WRITE | PTE_HUGE);
		rc = hv_slat_write(slat, pd_gpa(plan, i), pd, sizeof(pd));
	}
	if (rc == 0)
		rc = hv_slat_write(slat, BOOT_PAGE_TABLE_GPA, pml4, sizeof(pml4));
	return rc < 0 ? base_fail_errno(err, rc, "page tables at 0x%llx", BOOT_PAGE_TABLE_GPA) : 0;
}

int hv_boot_write_long64(struct hv_slat *slat, const struct hv_boot_plan *plan,
			 struct base_error *err)
{
	int rc = write_zero_page(slat, plan, err);

	return rc < 0 ? rc : write_page_tables(slat, plan, err);
}
