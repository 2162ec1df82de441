/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Direct boot: put a kernel, an initrd, a command line and the tables a kernel
 * looks for into guest memory, and say how the first vCPU enters it.
 *
 * Kernels: a Linux bzImage (64-bit boot protocol, Documentation/arch/x86/boot.rst
 * 2.12 or newer with XLF_KERNEL_64), or an ELF64 x86-64 executable: entered by PVH
 * when it carries the Xen note XEN_ELFNOTE_PHYS32_ENTRY (18), by the 64-bit boot
 * protocol otherwise.  Files are hostile: every offset and length is checked.
 * Called while no vCPU runs.
 */
#ifndef HYPERVISOR_BOOT_H
#define HYPERVISOR_BOOT_H

#include <linux/kvm.h>
#include <stddef.h>
#include <stdint.h>

#include "base/error.h"
#include "hypervisor/slat.h"

enum hv_boot_mode {
	HV_BOOT_INVALID,
	HV_BOOT_LONG64, /* RSI = boot_params, identity map, docs of the 64-bit protocol */
	HV_BOOT_PVH32,  /* EBX = hvm_start_info, protected mode, paging off */
	HV_BOOT_MODES
};

/* How vCPU 0 starts.  A value. */
struct hv_boot_entry {
	enum hv_boot_mode mode;
	uint64_t entry;      /* RIP / EIP */
	uint64_t info;       /* GPA of boot_params or hvm_start_info */
	uint64_t page_table; /* GPA of the PML4 (LONG64) */
	uint64_t gdt;        /* GPA of the GDT */
	uint64_t stack;      /* GPA of the stack's top */
};

struct hv_boot_image {
	const char *kernel_name; /* for error texts */
	const uint8_t *kernel;   /* whole file */
	size_t kernel_bytes;
	const char *initrd_name; /* NULL: none */
	const uint8_t *initrd;
	size_t initrd_bytes;
	const char *cmdline; /* "" for none */
	uint64_t rsdp;       /* GPA of the ACPI RSDP, 0 for none */
};

/**
 * hv_boot_check - full dry run of hv_boot_load(): same errors, nothing written.
 * hv_boot_load - place everything.  No error is found after the first byte is written.
 * @ret_entry: for hv_boot_registers().
 * Return: 0; -EBADMSG the kernel is malformed or claims what is taken (what, value,
 * expectation); -ENOTSUP well formed but not for us (32-bit, other machine, too old a
 * protocol); -ENOSPC does not fit into the VM's memory (need and have); -EINVAL the
 * command line is too long, the initrd is empty or above HV_INITRD_BYTES_MAX.
 * Layout: docs/hypervisor/boot.md.
 */
BASE_MUST_CHECK int hv_boot_check(struct hv_slat *slat, const struct hv_boot_image *image,
				  struct base_error *err);
BASE_MUST_CHECK int hv_boot_load(struct hv_slat *slat, const struct hv_boot_image *image,
				 struct hv_boot_entry *ret_entry, struct base_error *err);

/* Pure: registers of vCPU 0 for @entry, from its power-on registers in @sregs and @regs. */
void hv_boot_registers(const struct hv_boot_entry *entry, struct kvm_sregs *sregs,
		       struct kvm_regs *regs);

#endif
