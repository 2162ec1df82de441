/* SPDX-License-Identifier: Apache-2.0 */
/* One vCPU's view of its VM's CPUID table.  Pure. */
#include "hypervisor/cpu_topology.h"

#include <errno.h>
#include <inttypes.h>

#include "hypervisor/cpu_features.h"

#define LEVEL_SMT    1U
#define LEVEL_CORE   2U
#define ID_XAPIC     0xffU
#define TOPOEXT_NAME "topoext"

/* Bits an APIC id of @count vCPUs takes. */
static uint32_t id_bits(uint32_t count)
{
	uint32_t bits = 0;

	while (1U << bits < count)
		bits++;
	return bits;
}

static uint32_t at_most(uint32_t value, uint32_t most)
{
	return value < most ? value : most;
}

static int set_feature(struct hv_cpuid_table *table, const char *name, bool shown,
		       struct base_error *err)
{
	const struct hv_cpu_feature *feature = hv_cpu_feature_by_name(name);

	base_assert(feature != NULL);
	return hv_cpu_feature_put(table, feature, shown, err);
}

/* Leaf 1 EBX: initial APIC id and addressable ids; HTT says that the latter counts. */
static int set_leaf_1(struct hv_cpuid_table *table, uint32_t index, uint32_t count,
		      struct base_error *err)
{
	struct hv_cpuid_entry leaf = hv_cpuid_get(table, 1, 0);
	int result;

	leaf.ebx &= 0xffffU;
	leaf.ebx |= (index & ID_XAPIC) << 24 | at_most(count, ID_XAPIC) << 16;
	result = hv_cpuid_set(table, leaf, err);
	if (result < 0)
		return result;
	return set_feature(table, "ht", count > 1, err);
}

/* Leaves 0xB and 0x1F have one layout: threads, cores, end.  SDM volume 2A, leaf 0BH. */
static int set_levels(struct hv_cpuid_table *table, uint32_t leaf, uint32_t index, uint32_t count,
		      struct base_error *err)
{
	const struct hv_cpuid_entry levels[] = {
		{ leaf, 0, HV_CPUID_INDEXED, 0, 1, LEVEL_SMT << 8 | 0, index },
		{ leaf, 1, HV_CPUID_INDEXED, id_bits(count), count, LEVEL_CORE << 8 | 1, index },
		{ leaf, 2, HV_CPUID_INDEXED, 0, 0, 2, index },
	};

	hv_cpuid_remove(table, leaf, leaf);
	if (hv_cpuid_register(table, 0, 0, HV_CPUID_EAX) < leaf)
		return 0;
	for (size_t i = 0; i < sizeof(levels) / sizeof(levels[0]); i++) {
		int result = hv_cpuid_set(table, levels[i], err);

		if (result < 0)
			return result;
	}
	return 0;
}

/*
 * Leaf 4 and AMD's 0x8000001D: EAX bits 4:0 kind, 7:5 level, 25:14 vCPUs that share it less
 * one; Intel also has 31:26 cores in the package less one.  Level 3 belongs to all.
 */
static void set_sharing(struct hv_cpuid_table *table, uint32_t leaf, uint32_t count)
{
	uint32_t ids = 1U << id_bits(count);

	for (uint32_t i = 0; i < table->count; i++) {
		struct hv_cpuid_entry *entry = &table->entries[i];
		uint32_t level = entry->eax >> 5 & 7;

		if (entry->function != leaf || (entry->eax & 0x1f) == 0)
			continue;
		entry->eax &= 0x3fffU;
		if (level >= 3)
			entry->eax |= (leaf == 4 ? ids - 1 : count - 1) << 14;
		if (leaf == 4)
			entry->eax |= at_most(ids - 1, 63) << 26;
	}
}

/* AMD: 0x80000008 ECX core count and id width, 0x8000001E ids, CmpLegacy. */
static int set_amd(struct hv_cpuid_table *table, uint32_t index, uint32_t count,
		   struct base_error *err)
{
	struct hv_cpuid_entry sizes = hv_cpuid_get(table, 0x80000008, 0);
	const struct hv_cpuid_entry ids = {
		.function = 0x8000001e,
		.eax = index,
		.ebx = index & 0xff, /* core; one thread each */
	};
	int result;

	sizes.ecx = id_bits(count) << 12 | at_most(count - 1, 0xff);
	result = hv_cpuid_set(table, sizes, err);
	if (result == 0)
		result = set_feature(table, "cmp_legacy", count > 1, err);
	hv_cpuid_remove(table, ids.function, ids.function);
	if (result == 0 && hv_cpu_feature_in(table, hv_cpu_feature_by_name(TOPOEXT_NAME)))
		result = hv_cpuid_set(table, ids, err);
	return result;
}

int hv_cpuid_for_vcpu(const struct hv_cpuid_table *table, uint32_t vcpu_index, uint32_t vcpu_count,
		      struct hv_cpuid_table *ret_table, struct base_error *err)
{
	struct hv_cpuid_table one = *table;
	int result;

	if (vcpu_count == 0 || vcpu_count > HV_CPU_VCPUS_MAX || vcpu_index >= vcpu_count)
		return base_fail(err, -EINVAL,
				 "CPUID of vCPU %" PRIu32 " of %" PRIu32 ": at most %u vCPUs",
				 vcpu_index, vcpu_count, HV_CPU_VCPUS_MAX);

	hv_cpuid_remove(&one, 0x80000026, 0x80000026);
	set_sharing(&one, 0x4, vcpu_count);
	set_sharing(&one, 0x8000001d, vcpu_count);
	result = set_leaf_1(&one, vcpu_index, vcpu_count, err);
	if (result == 0)
		result = set_levels(&one, 0xb, vcpu_index, vcpu_count, err);
	if (result == 0)
		result = set_levels(&one, 0x1f, vcpu_index, vcpu_count, err);
	if (result == 0 && hv_cpuid_is_amd(&one))
		result = set_amd(&one, vcpu_index, vcpu_count, err);
	if (result < 0)
		return base_fail_within(err, result, "CPUID of vCPU %" PRIu32, vcpu_index);

	*ret_table = one;
	return 0;
}
