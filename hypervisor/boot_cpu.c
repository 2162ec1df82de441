/* SPDX-License-Identifier: Apache-2.0 */
/*
 * How vCPU 0 enters the kernel.  64-bit: boot.rst, "64-bit Boot Protocol"; 32-bit:
 * Xen, docs/misc/pvh.pandoc.  The GDT in guest memory and the segment registers
 * come from the same descriptors.
 */
#include <errno.h>

#include "base/bytes.h"
#include "hypervisor/boot_plan.h"

/* boot.rst fixes the selectors of the 64-bit protocol; PVH fixes none, so they serve both. */
#define BOOT_CS 0x10u
#define BOOT_DS 0x18u

#define CR0_PE   (1ULL << 0)
#define CR0_ET   (1ULL << 4)
#define CR0_PG   (1ULL << 31)
#define CR4_PAE  (1ULL << 5)
#define EFER_LME (1ULL << 8)
#define EFER_LMA (1ULL << 10)

#define RFLAGS_FIXED 0x2ULL /* bit 1 always reads 1; interrupts off */

#define TYPE_CODE      0xBu /* execute, read, accessed */
#define TYPE_DATA      0x3u /* read, write, accessed */
#define TYPE_TSS_BUSY  0xBu /* VMX enters with no other */
#define TSS_LIMIT      0x67u
#define FLAT_LIMIT     0xFFFFFFFFu
#define FLAT_LIMIT_GDT 0xFFFFFu /* in 4 KiB units */

static struct kvm_segment flat_segment(uint16_t selector, uint8_t type, bool is_64bit_code)
{
	return (struct kvm_segment){ .limit = FLAT_LIMIT,
				     .selector = selector,
				     .type = type,
				     .present = 1,
				     .db = is_64bit_code ? 0 : 1,
				     .s = 1,
				     .l = is_64bit_code ? 1 : 0,
				     .g = 1 };
}

/* A flat segment as the 8 bytes of its descriptor: Intel SDM volume 3, figure 3-8. */
static uint64_t descriptor(const struct kvm_segment *segment)
{
	uint64_t access = (uint64_t)segment->type | (uint64_t)segment->s << 4 |
			  (uint64_t)segment->dpl << 5 | (uint64_t)segment->present << 7;
	uint64_t flags =
		(uint64_t)segment->l << 1 | (uint64_t)segment->db << 2 | (uint64_t)segment->g << 3;

	return (FLAT_LIMIT_GDT & 0xFFFFu) | access << 40 | (uint64_t)(FLAT_LIMIT_GDT >> 16) << 48 |
	       flags << 52;
}

int hv_boot_write_gdt(struct hv_slat *slat, enum hv_boot_mode mode, struct base_error *err)
{
	struct kvm_segment code = flat_segment(BOOT_CS, TYPE_CODE, mode == HV_BOOT_LONG64);
	struct kvm_segment data = flat_segment(BOOT_DS, TYPE_DATA, false);
	uint8_t gdt[BOOT_GDT_BYTES] = { 0 };
	int rc;

	base_put_le64(gdt + BOOT_CS, descriptor(&code));
	base_put_le64(gdt + BOOT_DS, descriptor(&data));
	rc = hv_slat_write(slat, BOOT_GDT_GPA, gdt, sizeof(gdt));
	return rc < 0 ? base_fail_errno(err, rc, "GDT at 0x%llx", BOOT_GDT_GPA) : 0;
}

void hv_boot_registers(const struct hv_boot_entry *entry, struct kvm_sregs *sregs,
		       struct kvm_regs *regs)
{
	bool is_long = entry->mode == HV_BOOT_LONG64;
	struct kvm_segment data = flat_segment(BOOT_DS, TYPE_DATA, false);

	base_assert(is_long || entry->mode == HV_BOOT_PVH32);
	sregs->cs = flat_segment(BOOT_CS, TYPE_CODE, is_long);
	sregs->ds = data;
	sregs->es = data;
	sregs->fs = data;
	sregs->gs = data;
	sregs->ss = data;
	sregs->tr = (struct kvm_segment){ .limit = TSS_LIMIT, .type = TYPE_TSS_BUSY, .present = 1 };
	sregs->gdt = (struct kvm_dtable){ .base = entry->gdt, .limit = BOOT_GDT_BYTES - 1 };
	sregs->idt = (struct kvm_dtable){ .base = 0, .limit = 0 };
	sregs->cr0 = CR0_PE | CR0_ET | (is_long ? CR0_PG : 0);
	sregs->cr2 = 0;
	sregs->cr3 = is_long ? entry->page_table : 0;
	sregs->cr4 = is_long ? CR4_PAE : 0;
	sregs->efer = is_long ? EFER_LME | EFER_LMA : 0;

	*regs = (struct kvm_regs){ .rip = entry->entry,
				   .rsp = entry->stack,
				   .rflags = RFLAGS_FIXED };
	if (is_long)
		regs->rsi = entry->info;
	else
		regs->rbx = entry->info;
}
