/* SPDX-License-Identifier: Apache-2.0 */
/* From a model's name to the CPUID table of a VM.  Pure. */
#include "hypervisor/cpu_model.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "hypervisor/cpu_check.h"
#include "hypervisor/cpu_features.h"

#define HYPERVISOR_LEAF_FIRST 0x40000000U
#define HYPERVISOR_LEAF_LAST  0x4000ffffU

/* Family 15, model 107, stepping 1: QEMU's generic 64-bit processor, no real one. */
#define BASELINE_SIGNATURE   0x00060fb1U
#define BASELINE_BASIC_LEAF  0xbU /* topology */
#define BASELINE_XSAVE_LEAF  0xdU
#define BASELINE_EXTENDED    0x80000008U
#define BASELINE_LINEAR_BITS 48U
#define CACHE_LINE_BYTES     64U
#define AMD_EDX_ECHO         0x0183f3ffU /* bits that 0x80000001 EDX repeats from leaf 1 */

#define XCR0_X87_SSE_AVX 0x7ULL
#define XCR0_AVX512      0xe0ULL /* components 5, 6, 7 */
#define XSAVE_LEGACY     576U    /* bytes of the legacy area and the header */

static const char model_names[HV_CPU_MODELS][12] = {
	[HV_CPU_MODEL_INVALID] = "invalid", [HV_CPU_MODEL_HOST] = "host",
	[HV_CPU_MODEL_V1] = "x86-64-v1",    [HV_CPU_MODEL_V2] = "x86-64-v2",
	[HV_CPU_MODEL_V3] = "x86-64-v3",    [HV_CPU_MODEL_V4] = "x86-64-v4",
};

const char *hv_cpu_model_name(enum hv_cpu_model model)
{
	base_assert(model < HV_CPU_MODELS);
	return model_names[model];
}

enum hv_cpu_model hv_cpu_model_parse(const char *name)
{
	for (int model = HV_CPU_MODEL_HOST; model < HV_CPU_MODELS; model++)
		if (strcmp(name, model_names[model]) == 0)
			return (enum hv_cpu_model)model;
	return HV_CPU_MODEL_INVALID;
}

uint32_t hv_cpu_address_bits(uint64_t memory_end)
{
	uint32_t bits = HV_CPU_ADDRESS_BITS;

	while (bits < HV_CPU_ADDRESS_BITS_MAX && memory_end > 1ULL << bits)
		bits++;
	return bits;
}

/* One entry of a baseline: flagged as KVM wants it, nothing put in when all is zero. */
static int put(struct hv_cpuid_table *table, struct hv_cpuid_entry entry, struct base_error *err)
{
	if ((entry.eax | entry.ebx | entry.ecx | entry.edx) == 0)
		return 0;
	entry.flags = hv_cpuid_is_indexed(entry.function) ? HV_CPUID_INDEXED : 0;
	return hv_cpuid_set(table, entry, err);
}

static int put_all(struct hv_cpuid_table *table, const struct hv_cpuid_entry *entries, size_t count,
		   struct base_error *err)
{
	for (size_t i = 0; i < count; i++) {
		int result = put(table, entries[i], err);

		if (result < 0)
			return result;
	}
	return 0;
}

/* Whether a baseline shows features of @level. */
static bool model_has_level(enum hv_cpu_model model, enum hv_cpu_level level)
{
	switch (level) {
	case HV_CPU_LEVEL_V1:
	case HV_CPU_LEVEL_SYSTEM:
		return true;
	case HV_CPU_LEVEL_V2:
		return model >= HV_CPU_MODEL_V2;
	case HV_CPU_LEVEL_V3:
		return model >= HV_CPU_MODEL_V3;
	case HV_CPU_LEVEL_V4:
		return model >= HV_CPU_MODEL_V4;
	case HV_CPU_LEVEL_INVALID:
	case HV_CPU_LEVEL_EXTRA:
	case HV_CPU_LEVEL_VMM:
	case HV_CPU_LEVEL_GUEST:
	case HV_CPU_LEVELS:
		break;
	}
	return false;
}

static int put_features(enum hv_cpu_model model, struct hv_cpuid_table *table,
			struct base_error *err)
{
	for (uint32_t i = 0; i < hv_cpu_feature_count(); i++) {
		const struct hv_cpu_feature *feature = hv_cpu_feature_at(i);
		int result;

		if (!model_has_level(model, feature->level))
			continue;
		result = hv_cpu_feature_put(table, feature, true, err);
		if (result < 0)
			return result;
	}
	return 0;
}

/* Leaves 0, 1, 0x80000000 to 0x80000004 and 0x80000008: who this processor says it is. */
static int put_identity(enum hv_cpu_model model, const struct hv_cpu_options *options,
			const struct hv_cpuid_table *host, struct hv_cpuid_table *table,
			struct base_error *err)
{
	struct hv_cpuid_entry vendor = hv_cpuid_get(host, 0, 0);
	struct hv_cpuid_entry one = hv_cpuid_get(table, 1, 0);
	struct hv_cpuid_entry amd = hv_cpuid_get(table, 0x80000001, 0);
	uint32_t address_bits =
		options->address_bits != 0 ? options->address_bits : HV_CPU_ADDRESS_BITS;
	struct hv_cpuid_entry entries[] = {
		{ .function = 0x80000000, .eax = BASELINE_EXTENDED },
		{ .function = 0x80000008, .eax = BASELINE_LINEAR_BITS << 8 | address_bits },
	};
	char brand[48] = { 0 };
	int result;

	vendor.eax = model >= HV_CPU_MODEL_V3 ? BASELINE_XSAVE_LEAF : BASELINE_BASIC_LEAF;
	one.eax = BASELINE_SIGNATURE;
	one.ebx = CACHE_LINE_BYTES / 8 << 8;
	if (hv_cpuid_is_amd(host)) {
		amd.eax = BASELINE_SIGNATURE;
		amd.edx |= one.edx & AMD_EDX_ECHO;
	}

	(void)snprintf(brand, sizeof(brand), "Godwit %s processor", model_names[model]);
	for (uint32_t i = 0; i < 3; i++) {
		const uint8_t *from = (const uint8_t *)brand + (size_t)i * 16;

		result = put(table,
			     (struct hv_cpuid_entry){
				     .function = 0x80000002 + i,
				     .eax = base_get_le32(from),
				     .ebx = base_get_le32(from + 4),
				     .ecx = base_get_le32(from + 8),
				     .edx = base_get_le32(from + 12),
			     },
			     err);
		if (result < 0)
			return result;
	}

	result = put(table, vendor, err);
	if (result == 0)
		result = put(table, one, err);
	if (result == 0)
		result = put(table, amd, err);
	if (result == 0)
		result = put_all(table, entries, sizeof(entries) / sizeof(entries[0]), err);
	return result;
}

/*
 * Fixed caches: 32 KiB data and code, 1 MiB second level, 16 MiB third level, 64-byte lines.
 * Who shares them is filled in by hv_cpuid_for_vcpu().
 * Leaf 4: EAX type | level << 5 | self-initialising << 8, EBX (ways - 1) << 22 | (line - 1),
 * ECX sets - 1.
 */
static int put_caches(struct hv_cpuid_table *table, bool amd, struct base_error *err)
{
	static const struct hv_cpuid_entry intel_caches[] = {
		{ .function = 2, .eax = 0xff01, .edx = 0 }, /* 0xff: see leaf 4 */
		{ .function = 4, .index = 0, .eax = 0x121, .ebx = 7U << 22 | 63, .ecx = 63 },
		{ .function = 4, .index = 1, .eax = 0x122, .ebx = 7U << 22 | 63, .ecx = 63 },
		{ .function = 4, .index = 2, .eax = 0x143, .ebx = 15U << 22 | 63, .ecx = 1023 },
		{ .function = 4, .index = 3, .eax = 0x163, .ebx = 15U << 22 | 63, .ecx = 16383 },
		{ .function = 0x80000006, .ecx = 1024U << 16 | 8U << 12 | 64 },
	};
	/* 0x80000005: KiB << 24 | ways << 16 | lines per tag << 8 | line; 0x80000006: L2 KiB << 16,
	 * L3 in 512 KiB << 18; code 8 is 16 ways. */
	static const struct hv_cpuid_entry amd_caches[] = {
		{ .function = 0x80000005, .ecx = 0x20080140, .edx = 0x20080140 },
		{ .function = 0x80000006,
		  .ecx = 1024U << 16 | 8U << 12 | 1U << 8 | 64,
		  .edx = 32U << 18 | 8U << 12 | 1U << 8 | 64 },
	};

	if (amd)
		return put_all(table, amd_caches, sizeof(amd_caches) / sizeof(amd_caches[0]), err);
	return put_all(table, intel_caches, sizeof(intel_caches) / sizeof(intel_caches[0]), err);
}

/*
 * Leaf 0xD with the level's components.  Where a component lies is the host processor's
 * doing and no table changes it, so it is taken from the host; hv_cpu_check() compares it.
 */
static int put_xsave(enum hv_cpu_model model, const struct hv_cpuid_table *host,
		     struct hv_cpuid_table *table, struct base_error *err)
{
	uint64_t mask = XCR0_X87_SSE_AVX | (model >= HV_CPU_MODEL_V4 ? XCR0_AVX512 : 0);
	uint32_t size_bytes = XSAVE_LEGACY;

	for (uint32_t number = 2; number < 8; number++) {
		struct hv_cpuid_entry component = hv_cpuid_get(host, BASELINE_XSAVE_LEAF, number);
		int result;

		if ((mask >> number & 1) == 0)
			continue;
		if (component.ebx < UINT32_MAX - component.eax &&
		    component.ebx + component.eax > size_bytes)
			size_bytes = component.ebx + component.eax;
		result = put(table, component, err);
		if (result < 0)
			return result;
	}
	return put(table,
		   (struct hv_cpuid_entry){
			   .function = BASELINE_XSAVE_LEAF,
			   .eax = (uint32_t)mask,
			   .ebx = size_bytes,
			   .ecx = size_bytes,
		   },
		   err);
}

static int make_baseline(enum hv_cpu_model model, const struct hv_cpu_options *options,
			 const struct hv_cpuid_table *host, struct hv_cpuid_table *table,
			 struct base_error *err)
{
	/* who shares what is filled in per vCPU; this keeps the leaf there and in order */
	static const struct hv_cpuid_entry topology = { .function = 0xb, .index = 1, .ecx = 0x201 };
	int result = put_features(model, table, err);

	if (result == 0)
		result = put_identity(model, options, host, table, err);
	if (result == 0)
		result = put_caches(table, hv_cpuid_is_amd(host), err);
	if (result == 0)
		result = put(table, topology, err);
	if (result == 0 && model >= HV_CPU_MODEL_V3)
		result = put_xsave(model, host, table, err);
	return result;
}

static int hide(struct hv_cpuid_table *table, const char *name, struct base_error *err)
{
	const struct hv_cpu_feature *feature = hv_cpu_feature_by_name(name);

	base_assert(feature != NULL);
	return hv_cpu_feature_put(table, feature, false, err);
}

/* What KVM supports, less what belongs to others or cannot be saved. */
static int make_host(const struct hv_cpu_options *options, const struct hv_cpuid_table *host,
		     struct hv_cpuid_table *table, struct base_error *err)
{
	static const char always[][20] = { "hypervisor", "osxsave", "ospke", "ht" };
	static const char nested[][20] = { "vmx", "svm", "sgx", "sgx_lc" };
	/* KVM tells these of the core it was asked on; hv_cpuid_for_vcpu() makes them anew */
	static const uint32_t of_a_core[] = { 0xb, 0x1f, 0x8000001e, 0x80000026 };
	struct hv_cpuid_entry one = hv_cpuid_get(host, 1, 0);
	int result;

	one.ebx &= 0xffffU; /* the APIC id above it, too */

	*table = *host;
	hv_cpuid_remove(table, HYPERVISOR_LEAF_FIRST, HYPERVISOR_LEAF_LAST);
	for (size_t i = 0; i < sizeof(of_a_core) / sizeof(of_a_core[0]); i++)
		hv_cpuid_remove(table, of_a_core[i], of_a_core[i]);
	result = hv_cpuid_set(table, one, err);
	for (size_t i = 0; result == 0 && i < sizeof(always) / sizeof(always[0]); i++)
		result = hide(table, always[i], err);
	if (options->nested)
		return result;
	for (size_t i = 0; result == 0 && i < sizeof(nested) / sizeof(nested[0]); i++)
		result = hide(table, nested[i], err);
	hv_cpuid_remove(table, 0x12, 0x12);             /* SGX */
	hv_cpuid_remove(table, 0x8000000a, 0x8000000a); /* SVM */
	return result;
}

int hv_cpu_model_apply(enum hv_cpu_model model, const struct hv_cpu_options *options,
		       const struct hv_cpuid_table *host, struct hv_cpuid_table *ret_table,
		       struct base_error *err)
{
	static const struct hv_cpu_options defaults = { .address_bits = 0 };
	struct hv_cpuid_table table = { .count = 0 };
	struct hv_cpu_report report;
	char text[BASE_ERROR_TEXT_BYTES];
	int result;

	if (options == NULL)
		options = &defaults;
	if (model <= HV_CPU_MODEL_INVALID || model >= HV_CPU_MODELS)
		return base_fail(err, -EINVAL, "CPU model %d: not one of " HV_CPU_MODEL_NAMES,
				 (int)model);
	if (options->address_bits != 0 && (options->address_bits < HV_CPU_ADDRESS_BITS_MIN ||
					   options->address_bits > HV_CPU_ADDRESS_BITS_MAX))
		return base_fail(err, -EINVAL, "CPU address bits %" PRIu32 ": not in %u..%u",
				 options->address_bits, HV_CPU_ADDRESS_BITS_MIN,
				 HV_CPU_ADDRESS_BITS_MAX);

	if (model == HV_CPU_MODEL_HOST)
		result = make_host(options, host, &table, err);
	else
		result = make_baseline(model, options, host, &table, err);
	if (result == 0 && options->hypervisor_present)
		result =
			hv_cpu_feature_put(&table, hv_cpu_feature_by_name("hypervisor"), true, err);
	if (result < 0)
		return base_fail_within(err, result, "CPU model %s", model_names[model]);

	if (hv_cpu_check(&table, host, &report) > 0)
		return base_fail(err, -ENOTSUP, "CPU model %s: %s", model_names[model],
				 hv_cpu_report_text(&report, text, sizeof(text)));

	*ret_table = table;
	return 0;
}
