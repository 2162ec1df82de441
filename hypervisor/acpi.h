/* SPDX-License-Identifier: Apache-2.0 */
/*
 * ACPI tables: RSDP, XSDT, FADT, FACS, MADT, DSDT, for a machine without PCI and
 * HPET.  Source: ACPI specification 6.4, chapter 5.
 */
#ifndef HYPERVISOR_ACPI_H
#define HYPERVISOR_ACPI_H

#include <stdint.h>

#include "base/error.h"
#include "hypervisor/slat.h"

#define HV_ACPI_AREA_GPA   0xE0000ULL /* the tables lie here, in memory that e820 calls reserved */
#define HV_ACPI_AREA_BYTES 0x20000ULL

#define HV_ACPI_VCPUS_MAX 4096u /* their MADT entries fill half of the area */

#define HV_ACPI_SCI_IRQ       9u
#define HV_ACPI_PM1A_EVT_PORT 0x600u /* status 2 bytes, enable 2 bytes */
#define HV_ACPI_PM1A_CNT_PORT 0x604u /* 2 bytes */
#define HV_ACPI_PM_TMR_PORT   0x608u /* 4 bytes, 3.579545 MHz, 32 bit */
#define HV_ACPI_RESET_PORT    0xCF9u /* write 6: reset */
#define HV_ACPI_SLP_TYP_S5    5u

/**
 * hv_acpi_build - write the tables for @vcpu_count processors (APIC id = index).
 * @ret_rsdp: GPA of the RSDP.
 * Called while no vCPU runs; the rest of the area is zeroed.  Return: 0; -EINVAL
 * @vcpu_count not in 1..HV_ACPI_VCPUS_MAX; -ENOMEM; -EFAULT the area is not RAM.
 */
BASE_MUST_CHECK int hv_acpi_build(struct hv_slat *slat, uint32_t vcpu_count, uint64_t *ret_rsdp,
				  struct base_error *err);

#endif
