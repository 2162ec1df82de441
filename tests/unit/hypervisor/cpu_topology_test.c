/* SPDX-License-Identifier: Apache-2.0 */
/* Each vCPU's own leaves, on made-up Intel and AMD hosts. */
#include "hypervisor/cpu_topology.h"

#include <criterion/criterion.h>
#include <errno.h>

#include "made_up_hosts.h"

static struct hv_cpuid_table vcpu_of(const struct hv_cpuid_table *table, uint32_t index,
				     uint32_t count)
{
	struct hv_cpuid_table one;

	cr_assert_eq(hv_cpuid_for_vcpu(table, index, count, &one, NULL), 0);
	return one;
}

static struct hv_cpuid_table model(enum hv_cpu_model which, bool amd)
{
	struct hv_cpuid_table host = made_up_host(HV_CPU_LEVEL_V4, amd);
	struct hv_cpuid_table table;

	cr_assert_eq(hv_cpu_model_apply(which, NULL, &host, &table, NULL), 0);
	return table;
}

Test(cpu_topology, ids_are_the_index)
{
	static const uint32_t counts[] = { 1, 2, 3, 4, 64, 200, 1024 };

	for (int amd = 0; amd < 2; amd++)
		for (size_t c = 0; c < sizeof(counts) / sizeof(counts[0]); c++) {
			struct hv_cpuid_table table = model(HV_CPU_MODEL_V3, amd != 0);

			for (uint32_t i = 0; i < counts[c]; i++) {
				struct hv_cpuid_table one = vcpu_of(&table, i, counts[c]);
				uint32_t ebx = hv_cpuid_register(&one, 1, 0, HV_CPUID_EBX);

				cr_assert_eq(ebx >> 24, i & 0xff);
				cr_assert_eq(ebx & 0xffff, 0x0800);
				cr_assert_eq(hv_cpuid_get(&one, 0xb, 0).edx, i);
				cr_assert_eq(hv_cpuid_get(&one, 0xb, 1).edx, i);
				cr_assert_eq(hv_cpuid_get(&one, 0xb, 0).ebx, 1);
				cr_assert_eq(hv_cpuid_get(&one, 0xb, 1).ebx, counts[c]);
				/* the shift must take every id to package 0, and no further */
				cr_assert_eq(i >> hv_cpuid_get(&one, 0xb, 1).eax, 0);
				cr_assert_eq(made_up_has(&one, "ht"), counts[c] > 1);
				cr_assert_null(hv_cpuid_find(&one, 0x1f, 0));
			}
		}
}

Test(cpu_topology, intel_caches)
{
	struct hv_cpuid_table table = model(HV_CPU_MODEL_V1, false);
	struct hv_cpuid_table one = vcpu_of(&table, 2, 6);

	cr_assert_eq(hv_cpuid_get(&one, 4, 0).eax, 7U << 26 | 0x121); /* one vCPU, 8 ids */
	cr_assert_eq(hv_cpuid_get(&one, 4, 3).eax, 7U << 26 | 7U << 14 | 0x163);
	cr_assert_null(hv_cpuid_find(&one, 4, 4));
	cr_assert_eq(hv_cpuid_get(&one, 0x80000008, 0).ecx, 0);
	one = vcpu_of(&table, 0, 1);
	cr_assert_eq(hv_cpuid_get(&one, 4, 3).eax, 0x163);
}

Test(cpu_topology, amd_leaves)
{
	struct hv_cpuid_table table = model(HV_CPU_MODEL_HOST, true);
	struct hv_cpuid_table one = vcpu_of(&table, 5, 6);

	cr_assert_eq(hv_cpuid_get(&one, 0x80000008, 0).ecx, 3U << 12 | 5);
	cr_assert_eq(hv_cpuid_get(&one, 0x8000001d, 0).eax, 5U << 14 | 0x163);
	cr_assert_eq(hv_cpuid_get(&one, 0x8000001e, 0).eax, 5);
	cr_assert_eq(hv_cpuid_get(&one, 0x8000001e, 0).ebx, 5);
	cr_assert_null(hv_cpuid_find(&one, 0x80000026, 0));
	cr_assert(made_up_has(&one, "cmp_legacy"));
	one = vcpu_of(&table, 0, 1);
	cr_assert_not(made_up_has(&one, "cmp_legacy"));

	table = model(HV_CPU_MODEL_V3, true);
	one = vcpu_of(&table, 5, 6);
	cr_assert_null(hv_cpuid_find(&one, 0x8000001e, 0)); /* no topoext in a baseline */
}

Test(cpu_topology, leaf_1f_where_the_table_reaches_it)
{
	struct hv_cpuid_table table = model(HV_CPU_MODEL_HOST, false);
	struct hv_cpuid_table one = vcpu_of(&table, 3, 4);
	struct hv_cpuid_entry zero = hv_cpuid_get(&table, 0, 0);

	for (uint32_t i = 0; i < 3; i++) {
		cr_assert_eq(hv_cpuid_get(&one, 0x1f, i).edx, 3);
		cr_assert_eq(hv_cpuid_get(&one, 0x1f, i).ecx, hv_cpuid_get(&one, 0xb, i).ecx);
	}
	zero.eax = 0xa; /* a processor from before leaf 0xB */
	made_up_set(&table, zero);
	one = vcpu_of(&table, 3, 4);
	cr_assert_null(hv_cpuid_find(&one, 0xb, 0));
}

Test(cpu_topology, applying_it_again_gives_the_same)
{
	struct hv_cpuid_table table = model(HV_CPU_MODEL_HOST, true);
	struct hv_cpuid_table once = vcpu_of(&table, 7, 9);
	struct hv_cpuid_table other = vcpu_of(&table, 2, 3);
	struct hv_cpuid_table again = vcpu_of(&other, 7, 9);

	cr_assert_eq(once.count, again.count);
	cr_assert_arr_eq(once.entries, again.entries, once.count * sizeof(once.entries[0]));
}

Test(cpu_topology, wrong_counts_and_full_tables)
{
	struct hv_cpuid_table table = model(HV_CPU_MODEL_V1, false);
	struct hv_cpuid_table one;

	cr_assert_eq(hv_cpuid_for_vcpu(&table, 0, 0, &one, NULL), -EINVAL);
	cr_assert_eq(hv_cpuid_for_vcpu(&table, 4, 4, &one, NULL), -EINVAL);
	cr_assert_eq(hv_cpuid_for_vcpu(&table, 0, HV_CPU_VCPUS_MAX + 1, &one, NULL), -EINVAL);
	for (uint32_t i = 0; table.count < HV_CPUID_ENTRIES_MAX; i++)
		made_up_set(&table, (struct hv_cpuid_entry){ .function = 0x10000 + i, .eax = 1 });
	cr_assert_eq(hv_cpuid_for_vcpu(&table, 0, 1, &one, NULL), -ENOSPC);
}
