/* SPDX-License-Identifier: Apache-2.0 */
/* Each kind of finding, in both directions, and the line they make. */
#include "hypervisor/cpu_check.h"

#include <criterion/criterion.h>
#include <string.h>

#include "made_up_hosts.h"

static struct hv_cpu_report report;

static struct hv_cpuid_table host_model(const struct hv_cpuid_table *host)
{
	struct hv_cpuid_table table;

	cr_assert_eq(hv_cpu_model_apply(HV_CPU_MODEL_HOST, NULL, host, &table, NULL), 0);
	return table;
}

static bool found(enum hv_cpu_finding_kind kind, const char *text)
{
	for (uint32_t i = 0; i < report.count; i++)
		if (report.findings[i].kind == kind && strcmp(report.findings[i].text, text) == 0)
			return true;
	return false;
}

Test(cpu_check, nothing_stands_against_the_own_host_or_a_larger_one)
{
	for (int amd = 0; amd < 2; amd++)
		for (int level = HV_CPU_LEVEL_V1; level <= HV_CPU_LEVEL_V4; level++) {
			struct hv_cpuid_table host =
				made_up_host((enum hv_cpu_level)level, amd != 0);
			struct hv_cpuid_table best = made_up_host(HV_CPU_LEVEL_V4, amd != 0);
			struct hv_cpuid_table vm = host_model(&host);

			cr_assert_eq(hv_cpu_check(&vm, &host, &report), 0);
			cr_assert_eq(hv_cpu_check(&vm, &best, &report), 0);
			cr_assert_not(report.truncated);
		}
}

Test(cpu_check, missing_features_one_by_one)
{
	struct hv_cpuid_table host = made_up_host(HV_CPU_LEVEL_V2, false);
	struct hv_cpuid_table vm = host_model(&host);

	for (uint32_t i = 0; i < hv_cpu_feature_count(); i++) {
		const struct hv_cpu_feature *feature = hv_cpu_feature_at(i);
		struct hv_cpuid_table less = host;
		bool ours =
			feature->level == HV_CPU_LEVEL_VMM || feature->level == HV_CPU_LEVEL_GUEST;

		if (!hv_cpu_feature_in(&vm, feature))
			continue;
		made_up_feature(&less, feature->name, false);
		cr_assert_eq(hv_cpu_check(&vm, &less, &report), ours ? 0 : 1, "%s", feature->name);
		cr_assert_eq(report.findings[0].kind, HV_CPU_FINDING_MISSING);
		cr_assert_str_eq(report.findings[0].name, feature->name);
	}
	made_up_feature(&host, "sse4_2", false);
	cr_assert_eq(hv_cpu_check(&vm, &host, &report), 1);
	cr_assert(found(HV_CPU_FINDING_MISSING, "sse4_2: VM uses it, host has not"));
}

Test(cpu_check, bits_without_a_name_count_too)
{
	struct hv_cpuid_table host = made_up_host(HV_CPU_LEVEL_V2, false);
	struct hv_cpuid_table vm = host_model(&host);

	made_up_set(&vm, (struct hv_cpuid_entry){ .function = 7, .index = 1, .edx = 1U << 30 });
	cr_assert_eq(hv_cpu_check(&vm, &host, &report), 1);
	cr_assert(found(HV_CPU_FINDING_MISSING, "CPUID.7.1:edx[30]: VM uses it, host has not"));
}

Test(cpu_check, vendor)
{
	struct hv_cpuid_table intel = made_up_host(HV_CPU_LEVEL_V4, false);
	struct hv_cpuid_table amd = made_up_host(HV_CPU_LEVEL_V4, true);
	struct hv_cpuid_table vm;

	cr_assert_eq(hv_cpu_model_apply(HV_CPU_MODEL_V2, NULL, &amd, &vm, NULL), 0);
	cr_assert_eq(hv_cpu_check(&vm, &intel, &report), 1);
	cr_assert(found(HV_CPU_FINDING_VALUE, "vendor: VM AuthenticAMD, host GenuineIntel"));
}

Test(cpu_check, xsave_components_and_their_places)
{
	struct hv_cpuid_table host = made_up_host(HV_CPU_LEVEL_V4, false);
	struct hv_cpuid_table vm = host_model(&host);
	struct hv_cpuid_entry leaf = hv_cpuid_get(&host, 0xd, 0);
	struct hv_cpuid_entry place = hv_cpuid_get(&host, 0xd, 5);

	leaf.eax &= ~(1U << 2);
	made_up_set(&host, leaf);
	place.ebx = 832;
	made_up_set(&host, place);
	cr_assert_eq(hv_cpu_check(&vm, &host, &report), 2);
	cr_assert(found(HV_CPU_FINDING_MISSING, "XSAVE AVX: VM uses it, host has not"));
	cr_assert(found(HV_CPU_FINDING_VALUE,
			"XSAVE AVX-512 mask: VM 64 bytes at 1088, host 64 bytes at 832"));
}

Test(cpu_check, supervisor_and_unknown_xsave_components)
{
	struct hv_cpuid_table host = made_up_host(HV_CPU_LEVEL_V4, false);
	struct hv_cpuid_table vm = host_model(&host);
	struct hv_cpuid_entry leaf = hv_cpuid_get(&vm, 0xd, 1);

	leaf.ecx = 1U << 12;
	leaf.edx = 1U << 8;
	made_up_set(&vm, leaf);
	cr_assert_eq(hv_cpu_check(&vm, &host, &report), 2);
	cr_assert(found(HV_CPU_FINDING_MISSING, "XSAVE CET supervisor: VM uses it, host has not"));
	cr_assert(found(HV_CPU_FINDING_MISSING, "XSAVE component 40: VM uses it, host has not"));
}

Test(cpu_check, numbers_may_be_larger_on_the_host_only)
{
	struct hv_cpuid_table small = made_up_host(HV_CPU_LEVEL_V2, false);
	struct hv_cpuid_table large = small;
	struct hv_cpuid_table vm;

	made_up_set(&large, (struct hv_cpuid_entry){ .function = 0x80000008, .eax = 0x3934 });
	made_up_set(&large, (struct hv_cpuid_entry){ .function = 0xa, .eax = 0x300802, .edx = 3 });
	made_up_set(&large, (struct hv_cpuid_entry){ .function = 0x24, .ebx = 2 });
	vm = host_model(&small);
	cr_assert_eq(hv_cpu_check(&vm, &large, &report), 0);
	vm = host_model(&large);
	cr_assert_eq(hv_cpu_check(&vm, &small, &report), 7);
	cr_assert(found(HV_CPU_FINDING_VALUE, "MAXPHYADDR: VM 52, host 46"));
	cr_assert(found(HV_CPU_FINDING_VALUE, "linear address bits: VM 57, host 48"));
	cr_assert(found(HV_CPU_FINDING_VALUE, "PMU version: VM 2, host 0"));
	cr_assert(found(HV_CPU_FINDING_VALUE, "AVX10 version: VM 2, host 0"));

	hv_cpuid_remove(&small, 0x80000008, 0x80000008); /* 36 bits then, by the architecture */
	cr_assert_gt(hv_cpu_check(&vm, &small, &report), 0);
	cr_assert(found(HV_CPU_FINDING_VALUE, "MAXPHYADDR: VM 52, host 36"));
}

Test(cpu_check, read_back_names_both_directions)
{
	struct hv_cpuid_table host = made_up_host(HV_CPU_LEVEL_V3, false);
	struct hv_cpuid_table asked;
	struct hv_cpuid_table seen;
	char text[256];

	cr_assert_eq(hv_cpu_model_apply(HV_CPU_MODEL_V2, NULL, &host, &asked, NULL), 0);
	seen = asked;
	made_up_feature(&seen, "osxsave", true); /* the guest's own doing */
	cr_assert_eq(hv_cpu_compare_honoured(&asked, &seen, &report), 0);

	made_up_feature(&seen, "popcnt", false);
	made_up_feature(&seen, "avx2", true);
	made_up_feature(&seen, "hypervisor", true);
	made_up_feature(&seen, "xsave", true);
	made_up_set(&seen, (struct hv_cpuid_entry){ .function = 0xd, .eax = 4 });
	made_up_set(&seen, (struct hv_cpuid_entry){ .function = 0x80000008, .eax = 0x302e });
	cr_assert_eq(hv_cpu_compare_honoured(&asked, &seen, &report), 6);
	cr_assert(found(HV_CPU_FINDING_HIDDEN, "popcnt: asked visible, the guest does not see it"));
	cr_assert(found(HV_CPU_FINDING_VISIBLE, "avx2: asked hidden, the guest sees it"));
	cr_assert(found(HV_CPU_FINDING_VALUE, "MAXPHYADDR: asked 39, guest sees 46"));
	cr_assert_str_eq(hv_cpu_report_text(&report, text, sizeof(text)),
			 "MAXPHYADDR: asked 39, guest sees 46; "
			 "asked hidden but seen: xsave, hypervisor, avx2, XSAVE AVX; "
			 "asked visible but not seen: popcnt");

	cr_assert_gt(hv_cpu_compare_honoured(&seen, &asked, &report), 0);
	cr_assert(found(HV_CPU_FINDING_HIDDEN,
			"XSAVE AVX: asked visible, the guest does not see it"));
}

Test(cpu_check, read_back_names_the_signature)
{
	struct hv_cpuid_table host = made_up_host(HV_CPU_LEVEL_V2, false);
	struct hv_cpuid_table asked;

	cr_assert_eq(hv_cpu_model_apply(HV_CPU_MODEL_V2, NULL, &host, &asked, NULL), 0);
	cr_assert_gt(hv_cpu_compare_honoured(&asked, &host, &report), 0);
	cr_assert(found(HV_CPU_FINDING_VALUE,
			"family/model/stepping: asked 0x60fb1, guest sees 0x50654"));
}

Test(cpu_check, a_report_that_is_full_says_so)
{
	struct hv_cpuid_table vm = made_up_host(HV_CPU_LEVEL_V4, false);
	struct hv_cpuid_table host = { .count = 0 };
	char text[4096];

	for (uint32_t i = 0; i < hv_cpu_feature_count(); i++)
		made_up_feature(&vm, hv_cpu_feature_at(i)->name, true);
	cr_assert_eq(hv_cpu_check(&vm, &host, &report), HV_CPU_FINDINGS_MAX);
	cr_assert(report.truncated);
	(void)hv_cpu_report_text(&report, text, sizeof(text));
	cr_assert_str_eq(text + strlen(text) - strlen(", and more"), ", and more");
}

Test(cpu_check, text_is_cut_at_every_size)
{
	struct hv_cpuid_table host = made_up_host(HV_CPU_LEVEL_V1, true);
	struct hv_cpuid_table best = made_up_host(HV_CPU_LEVEL_V4, false);
	struct hv_cpuid_table vm = host_model(&best);
	char whole[2048];
	char cut[2048];
	size_t length;

	cr_assert_gt(hv_cpu_check(&vm, &host, &report), 20);
	length = strlen(hv_cpu_report_text(&report, whole, sizeof(whole)));
	cr_assert_lt(length, sizeof(whole) - 1);
	for (size_t size = 1; size <= length + 1; size++) {
		memset(cut, 'x', sizeof(cut));
		cr_assert_eq(hv_cpu_report_text(&report, cut, size), cut);
		cr_assert_lt(strlen(cut), size);
		cr_assert_eq(cut[size], 'x');
		if (size > length)
			cr_assert_str_eq(cut, whole);
		else if (size >= 4)
			cr_assert_str_eq(cut + strlen(cut) - 3, "...", "size %zu", size);
	}
	cut[0] = 'x';
	(void)hv_cpu_report_text(&report, cut, 0);
	cr_assert_eq(cut[0], 'x');
	memset(&report, 0, sizeof(report));
	cr_assert_str_eq(hv_cpu_report_text(&report, cut, sizeof(cut)), "");
}
