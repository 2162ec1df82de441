/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What a kernel entered by PVH finds: struct hvm_start_info version 1 with module
 * list and memory map (Xen, public/arch-x86/hvm/start_info.h), in one page.
 */
#include <errno.h>

#include "base/bytes.h"
#include "hypervisor/boot_plan.h"

#define START_INFO_MAGIC   0x336EC578u
#define START_INFO_VERSION 1u
#define START_INFO_BYTES   56u
#define MODULE_OFFSET      64u /* of the one module entry in the page */
#define MEMMAP_OFFSET      128u

int hv_boot_write_pvh(struct hv_slat *slat, const struct hv_boot_plan *plan, struct base_error *err)
{
	uint8_t page[HV_PAGE_BYTES] = { 0 };
	struct base_writer out = base_writer_over(page, sizeof(page));
	bool has_initrd = plan->initrd_gpa != 0;
	int rc;

	base_write_le32(&out, START_INFO_MAGIC);
	base_write_le32(&out, START_INFO_VERSION);
	base_write_le32(&out, 0); /* flags */
	base_write_le32(&out, has_initrd ? 1 : 0);
	base_write_le64(&out, has_initrd ? BOOT_START_INFO_GPA + MODULE_OFFSET : 0);
	base_write_le64(&out, BOOT_CMDLINE_GPA);
	base_write_le64(&out, plan->image->rsdp);
	base_write_le64(&out, BOOT_START_INFO_GPA + MEMMAP_OFFSET);
	base_write_le32(&out, plan->map.count);
	base_write_le32(&out, 0);
	base_assert(out.offset_bytes == START_INFO_BYTES);

	base_write_zeros(&out, MODULE_OFFSET - out.offset_bytes);
	base_write_le64(&out, plan->initrd_gpa);
	base_write_le64(&out, has_initrd ? plan->image->initrd_bytes : 0);
	base_write_le64(&out, 0); /* no command line of its own */
	base_write_le64(&out, 0);

	base_write_zeros(&out, MEMMAP_OFFSET - out.offset_bytes);
	for (uint32_t i = 0; i < plan->map.count; i++) {
		base_write_le64(&out, plan->map.entries[i].gpa);
		base_write_le64(&out, plan->map.entries[i].size_bytes);
		base_write_le32(&out, (uint32_t)plan->map.entries[i].kind);
		base_write_le32(&out, 0);
	}
	base_assert(!out.failed);
	rc = hv_slat_write(slat, BOOT_START_INFO_GPA, page, sizeof(page));
	return rc < 0 ? base_fail_errno(err, rc, "PVH start info at 0x%llx", BOOT_START_INFO_GPA)
		      : 0;
}
