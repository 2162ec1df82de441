/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Hosts that do not exist, for tests of processor compatibility: tables as KVM would
 * support them on an Intel or AMD processor of a psABI level.
 */
#ifndef TESTS_MADE_UP_HOSTS_H
#define TESTS_MADE_UP_HOSTS_H

#include <criterion/criterion.h>
#include <string.h>

#include "hypervisor/cpu_features.h"
#include "hypervisor/cpu_model.h"

#define MADE_UP_INTEL_BITS 46U
#define MADE_UP_AMD_BITS   48U

static inline void made_up_set(struct hv_cpuid_table *table, struct hv_cpuid_entry entry)
{
	if (hv_cpuid_is_indexed(entry.function))
		entry.flags = HV_CPUID_INDEXED;
	cr_assert_eq(hv_cpuid_set(table, entry, NULL), 0);
}

/* Show or hide one feature by name. */
static inline void made_up_feature(struct hv_cpuid_table *table, const char *name, bool shown)
{
	const struct hv_cpu_feature *feature = hv_cpu_feature_by_name(name);

	cr_assert_not_null(feature, "%s", name);
	cr_assert_eq(hv_cpu_feature_put(table, feature, shown, NULL), 0);
}

static inline bool made_up_has(const struct hv_cpuid_table *table, const char *name)
{
	const struct hv_cpu_feature *feature = hv_cpu_feature_by_name(name);

	cr_assert_not_null(feature, "%s", name);
	return hv_cpu_feature_in(table, feature);
}

static inline void made_up_levels(struct hv_cpuid_table *table, enum hv_cpu_level most)
{
	for (uint32_t i = 0; i < hv_cpu_feature_count(); i++) {
		const struct hv_cpu_feature *feature = hv_cpu_feature_at(i);

		if (feature->level <= most || feature->level == HV_CPU_LEVEL_SYSTEM)
			made_up_feature(table, feature->name, true);
	}
}

static inline void made_up_xsave(struct hv_cpuid_table *table, enum hv_cpu_level level, bool amd)
{
	bool avx512 = level >= HV_CPU_LEVEL_V4;
	uint32_t mask_at = amd ? 832 : 1088; /* AMD leaves no room for MPX */

	if (level < HV_CPU_LEVEL_V3)
		return;
	made_up_set(table, (struct hv_cpuid_entry){ .function = 0xd,
						    .eax = avx512 ? 0x2e7 : 0x7,
						    .ebx = 0xa88,
						    .ecx = 0xa88 });
	made_up_set(table,
		    (struct hv_cpuid_entry){ .function = 0xd, .index = 2, .eax = 256, .ebx = 576 });
	if (!avx512)
		return;
	made_up_set(table, (struct hv_cpuid_entry){
				   .function = 0xd, .index = 5, .eax = 64, .ebx = mask_at });
	made_up_set(table, (struct hv_cpuid_entry){
				   .function = 0xd, .index = 6, .eax = 512, .ebx = mask_at + 64 });
	made_up_set(table,
		    (struct hv_cpuid_entry){
			    .function = 0xd, .index = 7, .eax = 1024, .ebx = mask_at + 576 });
	made_up_set(table,
		    (struct hv_cpuid_entry){
			    .function = 0xd, .index = 9, .eax = 8, .ebx = amd ? 2432 : 2688 });
	made_up_feature(table, "pku", true);
	made_up_feature(table, "xsavec", true);
}

/* A host whose processor has exactly @level and some of what is usual beside it. */
static inline struct hv_cpuid_table made_up_host(enum hv_cpu_level level, bool amd)
{
	static const char *const usual[] = { "vme", "ss", "rdtscp", "hypervisor" };
	struct hv_cpuid_table host = { .count = 0 };
	uint8_t vendor[12];

	memcpy(vendor, amd ? "AuthenticAMD" : "GenuineIntel", sizeof(vendor));
	made_up_set(&host, (struct hv_cpuid_entry){ .function = 0,
						    .eax = amd ? 0x10 : 0x1f,
						    .ebx = base_get_le32(vendor),
						    .edx = base_get_le32(vendor + 4),
						    .ecx = base_get_le32(vendor + 8) });
	made_up_set(&host, (struct hv_cpuid_entry){ .function = 1,
						    .eax = amd ? 0xa60f12 : 0x50654,
						    .ebx = 0x05100800 });
	made_up_set(&host, (struct hv_cpuid_entry){ .function = 0x80000000,
						    .eax = amd ? 0x80000026 : 0x80000008 });
	made_up_set(&host, (struct hv_cpuid_entry){ .function = 0x80000008,
						    .eax = amd ? 0x3000 | MADE_UP_AMD_BITS
							       : 0x3000 | MADE_UP_INTEL_BITS });
	made_up_set(&host,
		    (struct hv_cpuid_entry){ .function = 0x40000000, .eax = 0x40000001, .ebx = 1 });
	made_up_levels(&host, level);
	for (size_t i = 0; i < sizeof(usual) / sizeof(usual[0]); i++)
		made_up_feature(&host, usual[i], true);
	if (amd) {
		made_up_feature(&host, "svm", true);
		made_up_feature(&host, "topoext", true);
		made_up_set(&host, (struct hv_cpuid_entry){
					   .function = 0x8000000a, .eax = 1, .ebx = 8, .edx = 1 });
		made_up_set(&host, (struct hv_cpuid_entry){
					   .function = 0x8000001d, .eax = 0x1c163, .ebx = 63 });
		made_up_set(&host, (struct hv_cpuid_entry){
					   .function = 0x8000001e, .eax = 7, .ebx = 0x103 });
		made_up_set(&host,
			    (struct hv_cpuid_entry){ .function = 0x80000026, .eax = 1, .ebx = 2 });
	} else {
		made_up_feature(&host, "vmx", true);
		made_up_set(&host,
			    (struct hv_cpuid_entry){
				    .function = 4, .eax = 0x1c004121, .ebx = 63, .ecx = 63 });
		made_up_set(&host, (struct hv_cpuid_entry){ .function = 4,
							    .index = 3,
							    .eax = 0x1c03c163,
							    .ebx = 63,
							    .ecx = 63 });
		made_up_set(&host, (struct hv_cpuid_entry){ .function = 0xb, .edx = 5 });
	}
	made_up_xsave(&host, level, amd);
	return host;
}

#endif
