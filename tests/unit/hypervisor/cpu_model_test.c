/* SPDX-License-Identifier: Apache-2.0 */
/* Each model on each made-up host. */
#include "hypervisor/cpu_model.h"

#include <criterion/criterion.h>
#include <errno.h>
#include <string.h>

#include "hypervisor/cpu_check.h"
#include "made_up_hosts.h"

static const enum hv_cpu_model baselines[] = { HV_CPU_MODEL_V1, HV_CPU_MODEL_V2, HV_CPU_MODEL_V3,
					       HV_CPU_MODEL_V4 };
static const enum hv_cpu_level levels[] = { HV_CPU_LEVEL_V1, HV_CPU_LEVEL_V2, HV_CPU_LEVEL_V3,
					    HV_CPU_LEVEL_V4 };

static struct hv_cpuid_table applied(enum hv_cpu_model model, const struct hv_cpu_options *options,
				     const struct hv_cpuid_table *host)
{
	struct hv_cpuid_table table;
	struct base_error err = { 0 };

	cr_assert_eq(hv_cpu_model_apply(model, options, host, &table, &err), 0, "%s", err.text);
	return table;
}

Test(cpu_model, names_there_and_back)
{
	for (int model = HV_CPU_MODEL_HOST; model < HV_CPU_MODELS; model++) {
		const char *name = hv_cpu_model_name((enum hv_cpu_model)model);

		cr_assert_eq(hv_cpu_model_parse(name), (enum hv_cpu_model)model);
		cr_assert_not_null(strstr(HV_CPU_MODEL_NAMES, name));
	}
	cr_assert_eq(hv_cpu_model_parse("x86-64-v5"), HV_CPU_MODEL_INVALID);
	cr_assert_eq(hv_cpu_model_parse("invalid"), HV_CPU_MODEL_INVALID);
	cr_assert_eq(hv_cpu_model_parse(""), HV_CPU_MODEL_INVALID);
}

/* A baseline shows its level's features and those of the system, and nothing else. */
static void shows_exactly(const struct hv_cpuid_table *table, enum hv_cpu_level most)
{
	for (uint32_t i = 0; i < hv_cpu_feature_count(); i++) {
		const struct hv_cpu_feature *feature = hv_cpu_feature_at(i);
		bool expected = feature->level <= most || feature->level == HV_CPU_LEVEL_SYSTEM;

		cr_assert_eq(hv_cpu_feature_in(table, feature), expected, "%s", feature->name);
	}
}

Test(cpu_model, baselines_on_every_host_that_has_the_level)
{
	for (int amd = 0; amd < 2; amd++)
		for (size_t h = 0; h < 4; h++) {
			struct hv_cpuid_table host = made_up_host(levels[h], amd != 0);

			for (size_t b = 0; b <= h; b++) {
				struct hv_cpuid_table table = applied(baselines[b], NULL, &host);

				shows_exactly(&table, levels[b]);
			}
		}
}

Test(cpu_model, baseline_is_the_same_on_unequal_hosts)
{
	for (int amd = 0; amd < 2; amd++)
		for (size_t b = 0; b < 4; b++)
			for (size_t h = b + 1; h < 4; h++) {
				struct hv_cpuid_table small = made_up_host(levels[b], amd != 0);
				struct hv_cpuid_table large = made_up_host(levels[h], amd != 0);
				struct hv_cpuid_table on_small =
					applied(baselines[b], NULL, &small);
				struct hv_cpuid_table on_large =
					applied(baselines[b], NULL, &large);

				cr_assert_eq(on_small.count, on_large.count);
				cr_assert_arr_eq(on_small.entries, on_large.entries,
						 on_small.count * sizeof(on_small.entries[0]));
			}
}

Test(cpu_model, a_lower_host_is_refused_with_every_name)
{
	for (int amd = 0; amd < 2; amd++)
		for (size_t h = 0; h < 4; h++)
			for (size_t b = h + 1; b < 4; b++) {
				struct hv_cpuid_table host = made_up_host(levels[h], amd != 0);
				struct hv_cpuid_table table;
				struct base_error err = { 0 };

				cr_assert_eq(
					hv_cpu_model_apply(baselines[b], NULL, &host, &table, &err),
					-ENOTSUP);
				for (uint32_t i = 0; i < hv_cpu_feature_count(); i++) {
					const struct hv_cpu_feature *feature = hv_cpu_feature_at(i);

					if (feature->level > levels[h] &&
					    feature->level <= levels[b])
						cr_assert_not_null(strstr(err.text, feature->name),
								   "%s not in: %s", feature->name,
								   err.text);
				}
				cr_assert_null(strchr(err.text, '\n'));
			}
}

Test(cpu_model, a_host_without_a_system_feature_is_refused)
{
	struct hv_cpuid_table host = made_up_host(HV_CPU_LEVEL_V4, false);
	struct hv_cpuid_table table;
	struct base_error err = { 0 };

	made_up_feature(&host, "x2apic", false);
	made_up_feature(&host, "avx", false);
	cr_assert_eq(hv_cpu_model_apply(HV_CPU_MODEL_V4, NULL, &host, &table, &err), -ENOTSUP);
	cr_assert_str_eq(err.text, "CPU model x86-64-v4: host has not: x2apic, avx");
}

Test(cpu_model, baseline_identity)
{
	struct hv_cpu_options options = { .hypervisor_present = true, .address_bits = 45 };
	struct hv_cpuid_table host = made_up_host(HV_CPU_LEVEL_V4, true);
	struct hv_cpuid_table table = applied(HV_CPU_MODEL_V2, NULL, &host);
	struct hv_cpuid_entry brand;

	cr_assert_str_eq(hv_cpuid_vendor(&table).text, "AuthenticAMD");
	cr_assert_eq(hv_cpuid_register(&table, 0, 0, HV_CPUID_EAX), 0xb);
	cr_assert_eq(hv_cpuid_register(&table, 1, 0, HV_CPUID_EAX), 0x60fb1);
	cr_assert_eq(hv_cpuid_register(&table, 0x80000008, 0, HV_CPUID_EAX), 0x3027);
	brand = hv_cpuid_get(&table, 0x80000002, 0);
	cr_assert_eq(memcmp(&brand.eax, "Godwit x86-64-v2", 16), 0);
	cr_assert_not(made_up_has(&table, "hypervisor"));
	/* AMD repeats leaf 1's bits; SYSCALL, NX and LM are its own */
	cr_assert_eq(hv_cpuid_register(&table, 0x80000001, 0, HV_CPUID_EDX),
		     (hv_cpuid_register(&table, 1, 0, HV_CPUID_EDX) & 0x0183f3ff) | 0x20100800);

	table = applied(HV_CPU_MODEL_V3, &options, &host);
	cr_assert_eq(hv_cpuid_register(&table, 0, 0, HV_CPUID_EAX), 0xd);
	cr_assert_eq(hv_cpuid_register(&table, 0x80000008, 0, HV_CPUID_EAX), 0x302d);
	cr_assert(made_up_has(&table, "hypervisor"));
}

Test(cpu_model, baseline_xsave_is_masked_and_measured)
{
	struct hv_cpuid_table host = made_up_host(HV_CPU_LEVEL_V4, false);
	struct hv_cpuid_table v2 = applied(HV_CPU_MODEL_V2, NULL, &host);
	struct hv_cpuid_table v3 = applied(HV_CPU_MODEL_V3, NULL, &host);
	struct hv_cpuid_table v4 = applied(HV_CPU_MODEL_V4, NULL, &host);
	struct hv_cpuid_table amd = made_up_host(HV_CPU_LEVEL_V4, true);

	cr_assert_eq(hv_cpuid_xcr0_mask(&v2), 0);
	cr_assert_eq(hv_cpuid_xcr0_mask(&v3), 0x7);
	cr_assert_eq(hv_cpuid_register(&v3, 0xd, 0, HV_CPUID_ECX), 832);
	cr_assert_eq(hv_cpuid_xcr0_mask(&v4), 0xe7);
	cr_assert_eq(hv_cpuid_register(&v4, 0xd, 0, HV_CPUID_EBX), 2688);
	cr_assert_null(hv_cpuid_find(&v4, 0xd, 9));
	v4 = applied(HV_CPU_MODEL_V4, NULL, &amd);
	cr_assert_eq(hv_cpuid_register(&v4, 0xd, 0, HV_CPUID_ECX), 2432);
}

Test(cpu_model, host_is_what_kvm_supports_less_what_cannot_move)
{
	struct hv_cpu_options nested = { .nested = true, .hypervisor_present = true };

	for (int amd = 0; amd < 2; amd++) {
		struct hv_cpuid_table host = made_up_host(HV_CPU_LEVEL_V4, amd != 0);
		struct hv_cpuid_table table;

		made_up_feature(&host, "osxsave", true);
		made_up_feature(&host, "invtsc", true);
		table = applied(HV_CPU_MODEL_HOST, NULL, &host);
		cr_assert_null(hv_cpuid_find(&table, 0x40000000, 0));
		cr_assert_null(hv_cpuid_find(&table, 0x8000000a, 0));
		cr_assert_null(hv_cpuid_find(&table, 0x8000001e, 0));
		cr_assert_null(hv_cpuid_find(&table, 0xb, 0)); /* one core's answer */
		cr_assert_eq(hv_cpuid_register(&table, 1, 0, HV_CPUID_EBX), 0x0800);
		cr_assert(made_up_has(&table, "avx512f"));
		cr_assert(made_up_has(&table, "rdtscp"));
		cr_assert(made_up_has(&table, "invtsc"));
		cr_assert_not(made_up_has(&table, "hypervisor"));
		cr_assert_not(made_up_has(&table, "osxsave"));
		cr_assert_not(made_up_has(&table, amd != 0 ? "svm" : "vmx"));
		cr_assert_eq(hv_cpuid_xcr0_mask(&table), 0x2e7);

		table = applied(HV_CPU_MODEL_HOST, &nested, &host);
		cr_assert(made_up_has(&table, amd != 0 ? "svm" : "vmx"));
		cr_assert(made_up_has(&table, "hypervisor"));
	}
}

Test(cpu_model, wrong_arguments_are_named)
{
	struct hv_cpuid_table host = made_up_host(HV_CPU_LEVEL_V4, false);
	struct hv_cpu_options options = { .address_bits = 53 };
	struct hv_cpuid_table table;
	struct base_error err = { 0 };

	cr_assert_eq(hv_cpu_model_apply(HV_CPU_MODEL_INVALID, NULL, &host, &table, &err), -EINVAL);
	cr_assert_eq(hv_cpu_model_apply(HV_CPU_MODELS, NULL, &host, &table, &err), -EINVAL);
	cr_assert_eq(hv_cpu_model_apply(HV_CPU_MODEL_V1, &options, &host, &table, &err), -EINVAL);
	cr_assert_not_null(strstr(err.text, "53"));
	options.address_bits = 35;
	cr_assert_eq(hv_cpu_model_apply(HV_CPU_MODEL_V1, &options, &host, &table, &err), -EINVAL);
	options.address_bits = 47; /* more than the Intel host has */
	cr_assert_eq(hv_cpu_model_apply(HV_CPU_MODEL_V1, &options, &host, &table, &err), -ENOTSUP);
	cr_assert_str_eq(err.text, "CPU model x86-64-v1: MAXPHYADDR: VM 47, host 46");
}

Test(cpu_model, a_full_host_table_is_an_error)
{
	struct hv_cpuid_table host = made_up_host(HV_CPU_LEVEL_V1, false);
	struct hv_cpu_options options = { .hypervisor_present = true };
	struct hv_cpuid_table table;

	hv_cpuid_remove(&host, 1, 1);
	for (uint32_t i = 0; host.count < HV_CPUID_ENTRIES_MAX; i++)
		made_up_set(&host, (struct hv_cpuid_entry){ .function = 0x10000 + i, .eax = 1 });
	hv_cpuid_remove(&host, 0x40000000, 0x4000ffff);
	hv_cpuid_remove(&host, 0xb, 0xb);
	for (uint32_t i = 0; host.count < HV_CPUID_ENTRIES_MAX; i++)
		made_up_set(&host, (struct hv_cpuid_entry){ .function = 0x20000 + i, .eax = 1 });
	cr_assert_eq(hv_cpu_model_apply(HV_CPU_MODEL_HOST, &options, &host, &table, NULL), -ENOSPC);
}

Test(cpu_model, address_bits_grow_with_memory)
{
	cr_assert_eq(hv_cpu_address_bits(0), 39);
	cr_assert_eq(hv_cpu_address_bits(1ULL << 39), 39);
	cr_assert_eq(hv_cpu_address_bits((1ULL << 39) + 1), 40);
	cr_assert_eq(hv_cpu_address_bits(64ULL << 40), 46);
	cr_assert_eq(hv_cpu_address_bits(UINT64_MAX), 52);
}
