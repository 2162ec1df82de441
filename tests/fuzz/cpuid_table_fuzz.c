/* SPDX-License-Identifier: Apache-2.0 */
/* CPUID table bytes: whatever is accepted has one encoding and survives every use. */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "hypervisor/cpu_check.h"
#include "hypervisor/cpu_model.h"
#include "hypervisor/cpu_topology.h"
#include "hypervisor/cpuid_table.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct base_reader in = base_reader_over(data, size);
	struct base_buffer again = { .data = NULL };
	struct hv_cpuid_table table;
	struct hv_cpuid_table other;
	struct hv_cpu_report report;
	union hv_cpuid_kvm kvm;
	char text[64];

	if (hv_cpuid_decode(&in, &table, NULL) < 0)
		return 0;
	hv_cpuid_encode(&table, &again);
	if (again.failed || again.size_bytes != in.offset_bytes ||
	    memcmp(again.data, data, again.size_bytes) != 0)
		abort();
	base_buffer_fini(&again);

	hv_cpuid_to_kvm(&table, &kvm);
	if (hv_cpuid_from_kvm(&kvm, &other, NULL) < 0)
		abort();
	if (hv_cpu_check(&table, &table, &report) != 0) /* nothing stands against itself */
		abort();
	(void)hv_cpu_compare_honoured(&table, &other, &report);
	(void)hv_cpu_report_text(&report, text, sizeof(text));
	for (int model = HV_CPU_MODEL_HOST; model < HV_CPU_MODELS; model++)
		if (hv_cpu_model_apply((enum hv_cpu_model)model, NULL, &table, &other, NULL) == 0)
			(void)hv_cpuid_xcr0_mask(&other);
	if (hv_cpuid_for_vcpu(&table, 3, 64, &other, NULL) == 0 &&
	    other.count > HV_CPUID_ENTRIES_MAX)
		abort();
	return 0;
}
