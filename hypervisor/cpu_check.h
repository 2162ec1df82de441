/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Can this VM run on that host, and did KVM do as asked: answers feature by feature.
 *
 * Pure; reports are plain values.  Any thread.  What is compared and why:
 * docs/hypervisor/cpu-models.md "Comparison".
 */
#ifndef HYPERVISOR_CPU_CHECK_H
#define HYPERVISOR_CPU_CHECK_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "hypervisor/cpuid_table.h"

#define HV_CPU_FINDINGS_MAX       96 /* a current host against an old VM gives about 70 */
#define HV_CPU_FINDING_NAME_BYTES 32
#define HV_CPU_FINDING_TEXT_BYTES 128

enum hv_cpu_finding_kind {
	HV_CPU_FINDING_INVALID,
	HV_CPU_FINDING_MISSING, /* a feature or state component: VM uses it, host has not */
	HV_CPU_FINDING_VALUE,   /* vendor, address width, XSAVE layout, ...: both are named */
	HV_CPU_FINDING_VISIBLE, /* asked hidden, the guest sees it all the same */
	HV_CPU_FINDING_HIDDEN,  /* asked visible, the guest does not see it */
	HV_CPU_FINDING_KINDS
};

struct hv_cpu_finding {
	enum hv_cpu_finding_kind kind;
	char name[HV_CPU_FINDING_NAME_BYTES]; /* the thing: "avx2", "MAXPHYADDR" */
	char text[HV_CPU_FINDING_TEXT_BYTES]; /* a sentence: "avx2: VM uses it, host has not" */
};

struct hv_cpu_report {
	uint32_t count; /* of findings that are there; 0: nothing stands against it */
	bool truncated; /* there were more than HV_CPU_FINDINGS_MAX */
	struct hv_cpu_finding findings[HV_CPU_FINDINGS_MAX];
};

/**
 * hv_cpu_check - why a VM cannot run on a host.
 * @vm:   the table the VM was given (before hv_cpuid_for_vcpu()).
 * @host: what the host's KVM supports.
 * Compared: vendor; each feature bit the VM sees, unnamed ones too, but not those that
 * follow from the VM's shape; XSAVE components with size and place; widths and versions
 * (MAXPHYADDR, linear address bits, PMU, AVX10).  Not family and model: a guest does not
 * notice that they are no longer true.
 * Return: number of findings, 0 when the VM can run.
 */
uint32_t hv_cpu_check(const struct hv_cpuid_table *vm, const struct hv_cpuid_table *host,
		      struct hv_cpu_report *ret_report);

/**
 * hv_cpu_compare_honoured - what KVM did not do.
 * @asked: the table given to KVM_SET_CPUID2.
 * @seen:  what CPUID answers inside the guest (struct hv_host_facts).
 * Return: number of findings, 0 when the guest sees what was asked.
 */
uint32_t hv_cpu_compare_honoured(const struct hv_cpuid_table *asked,
				 const struct hv_cpuid_table *seen,
				 struct hv_cpu_report *ret_report);

/**
 * hv_cpu_report_text - the whole report in one line.
 * Names are grouped by kind ("host has not: avx, avx2; MAXPHYADDR: VM 48, host 46");
 * what does not fit is cut and ends in "...".  Empty for an empty report.
 * @to: always terminated unless @size_bytes is 0.
 * Return: @to.
 */
char *hv_cpu_report_text(const struct hv_cpu_report *report, char *to, size_t size_bytes);

#endif
