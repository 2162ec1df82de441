/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The processor of a machine as another host has to be able to give it: compared before a VM is
 * moved there.  What a saved state is compared with when it comes is the same.
 *
 * Any thread, once the machine is made; what a VM was given changes only as it is loaded.
 */
#ifndef HYPERVISOR_MACHINE_CPU_H
#define HYPERVISOR_MACHINE_CPU_H

#include "hypervisor/cpu_check.h"
#include "hypervisor/cpuid_table.h"
#include "hypervisor/machine.h"

struct hv_machine_cpu {
	struct hv_cpuid_table cpuid; /* as the VM was given it */
	uint64_t tsc_khz;            /* 0: unknown */
};

void hv_machine_cpu(const struct hv_machine *machine, struct hv_machine_cpu *ret_cpu);

/* Why a VM with @cpu cannot run on @machine's host: each thing by its name, the TSC's rate among
 * them.  The count of findings, 0: it can. */
uint32_t hv_machine_cpu_check(const struct hv_machine *machine, const struct hv_machine_cpu *cpu,
			      struct hv_cpu_report *ret_report);

#endif
