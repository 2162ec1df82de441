/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Every limit of the hypervisor folder, with its reason.
 */
#ifndef HYPERVISOR_HV_LIMITS_H
#define HYPERVISOR_HV_LIMITS_H

#define HV_PAGE_SHIFT      12
#define HV_PAGE_BYTES      4096ULL
#define HV_HUGE_PAGE_BYTES (2ULL << 20)

#define HV_VCPUS_MAX        64u           /* Hyper-V's own generation-1 limit; one cpu set word */
#define HV_MEMORY_BYTES_MIN (64ULL << 20) /* less boots no kernel we support */
#define HV_MEMORY_BYTES_MAX                                                                        \
	(64ULL << 40) /* below the smallest MAXPHYADDR hosts of that size have (46) */

/* Guest-physical layout: RAM, then a hole for devices that ends at 4 GiB, then RAM again. */
#define HV_GPA_HOLE_START       0xC0000000ULL
#define HV_GPA_HOLE_END         0x100000000ULL
#define HV_GPA_IOAPIC           0xFEC00000ULL
#define HV_GPA_LAPIC            0xFEE00000ULL
#define HV_GPA_TEST_PAGE        0xFED80000ULL /* tests only, switched on by a configuration key */
#define HV_GPA_VMX_TSS          0xFFFBD000ULL /* three pages VMX without unrestricted guest needs */
#define HV_GPA_VMX_IDENTITY_MAP 0xFFFBC000ULL

#define HV_NAME_BYTES    64   /* VM name with its zero */
#define HV_CMDLINE_BYTES 2048 /* Linux x86 COMMAND_LINE_SIZE */
#define HV_KERNEL_BYTES_MAX                                                                        \
	(512ULL << 20) /* a distribution's vmlinux with symbols is below this                      \
			*/
#define HV_INITRD_BYTES_MAX (1ULL << 30)
#define HV_IO_RANGES_MAX    64u /* devices on one bus; there are about ten */

#endif
