/* SPDX-License-Identifier: Apache-2.0 */
/* A machine's processor, for other hosts to compare. */
#include "hypervisor/machine_cpu.h"

#include <inttypes.h>
#include <stdio.h>

#include "hypervisor/machine_priv.h"

void hv_machine_cpu(const struct hv_machine *machine, struct hv_machine_cpu *ret_cpu)
{
	ret_cpu->cpuid = machine->cpuid;
	ret_cpu->tsc_khz = machine->guest_tsc_khz;
}

uint32_t hv_machine_cpu_check(const struct hv_machine *machine, const struct hv_machine_cpu *cpu,
			      struct hv_cpu_report *ret_report)
{
	struct hv_cpu_finding *finding;

	(void)hv_cpu_check(&cpu->cpuid, &machine->supported, ret_report);
	if (machine->host.tsc_control || !hv_tsc_rates_differ(cpu->tsc_khz, machine->guest_tsc_khz))
		return ret_report->count;
	if (ret_report->count == HV_CPU_FINDINGS_MAX) {
		ret_report->truncated = true;
		return ret_report->count;
	}
	finding = &ret_report->findings[ret_report->count++];
	finding->kind = HV_CPU_FINDING_VALUE;
	(void)snprintf(finding->name, sizeof(finding->name), "TSC");
	(void)snprintf(finding->text, sizeof(finding->text),
		       "TSC: VM %" PRIu64 " kHz, host %" PRIu64 " kHz and cannot scale it",
		       cpu->tsc_khz, machine->guest_tsc_khz);
	return ret_report->count;
}
