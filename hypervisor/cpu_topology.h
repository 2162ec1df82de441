/* SPDX-License-Identifier: Apache-2.0 */
/*
 * One vCPU's view of its VM's CPUID table: APIC ids and who shares what.  Pure; any thread.
 */
#ifndef HYPERVISOR_CPU_TOPOLOGY_H
#define HYPERVISOR_CPU_TOPOLOGY_H

#include <stdint.h>

#include "hypervisor/cpuid_table.h"

#define HV_CPU_VCPUS_MAX 1024U /* ids of leaf 0x8000001E and cache sharing hold no more */

/**
 * hv_cpuid_for_vcpu - make a VM's table that of one vCPU.
 * APIC ids are the vCPU's index; one socket, one thread per core; the last cache level is
 * shared by all.  Leaves 1, 4, 0xB, 0x1F, 0x80000001, 0x80000008, 0x8000001D/E; the
 * heterogeneous topology of leaf 0x80000026 is taken away.
 * Return: 0; -EINVAL not @vcpu_index < @vcpu_count <= HV_CPU_VCPUS_MAX; -ENOSPC no room.
 */
BASE_MUST_CHECK int hv_cpuid_for_vcpu(const struct hv_cpuid_table *table, uint32_t vcpu_index,
				      uint32_t vcpu_count, struct hv_cpuid_table *ret_table,
				      struct base_error *err);

#endif
