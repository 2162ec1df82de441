/* SPDX-License-Identifier: Apache-2.0 */
/* The table of features is well formed, and the document says what it says. */
#include "hypervisor/cpu_features.h"

#include <criterion/criterion.h>
#include <ctype.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "base/file.h"

Test(cpu_features, every_row_is_one_bit_with_one_name)
{
	for (uint32_t i = 0; i < hv_cpu_feature_count(); i++) {
		const struct hv_cpu_feature *feature = hv_cpu_feature_at(i);
		struct hv_cpu_register where = { feature->leaf, feature->subleaf, feature->reg };
		bool listed = false;

		cr_assert_lt(feature->bit, 32, "%s", feature->name);
		cr_assert(feature->level > HV_CPU_LEVEL_INVALID && feature->level < HV_CPU_LEVELS);
		cr_assert_eq(hv_cpu_feature_by_name(feature->name), feature, "%s twice",
			     feature->name);
		cr_assert_eq(hv_cpu_feature_by_bit(&where, feature->bit), feature,
			     "%s has another's bit", feature->name);
		for (uint32_t r = 0; r < hv_cpu_register_count(); r++)
			listed |= memcmp(hv_cpu_register_at(r), &where, sizeof(where)) == 0;
		cr_assert(listed, "%s is in no listed register", feature->name);
	}
}

Test(cpu_features, unknown_is_null)
{
	struct hv_cpu_register where = { 1, 0, HV_CPUID_EDX };

	cr_assert_null(hv_cpu_feature_by_name("sse5"));
	cr_assert_null(hv_cpu_feature_by_bit(&where, 10)); /* reserved */
	cr_assert_null(hv_cpu_xsave_name(62));
	cr_assert_str_eq(hv_cpu_xsave_name(2), "AVX");
}

Test(cpu_features, put_touches_its_bit_only)
{
	for (uint32_t i = 0; i < hv_cpu_feature_count(); i++) {
		const struct hv_cpu_feature *feature = hv_cpu_feature_at(i);
		struct hv_cpuid_table table = { .count = 0 };

		cr_assert_eq(hv_cpu_feature_put(&table, feature, false, NULL), 0);
		cr_assert_eq(table.count, 0);
		cr_assert_eq(hv_cpu_feature_put(&table, feature, true, NULL), 0);
		cr_assert(hv_cpu_feature_in(&table, feature));
		cr_assert_eq(table.count, 1);
		cr_assert_eq(
			hv_cpuid_register(&table, feature->leaf, feature->subleaf, feature->reg),
			1U << feature->bit);
		cr_assert_eq(hv_cpu_feature_put(&table, feature, false, NULL), 0);
		cr_assert_not(hv_cpu_feature_in(&table, feature));
	}
}

/* How many features each level has: the psABI's lists, counted by hand. */
Test(cpu_features, levels_are_those_of_the_psabi)
{
	/* v1 without OSFXSR, which is no CPUID bit; v3's OSXSAVE is XSAVE here */
	static const uint32_t expected[HV_CPU_LEVELS] = {
		[HV_CPU_LEVEL_V1] = 8,
		[HV_CPU_LEVEL_V2] = 7,
		[HV_CPU_LEVEL_V3] = 9,
		[HV_CPU_LEVEL_V4] = 5,
	};
	uint32_t counted[HV_CPU_LEVELS] = { 0 };

	for (uint32_t i = 0; i < hv_cpu_feature_count(); i++)
		counted[hv_cpu_feature_at(i)->level]++;
	for (int level = HV_CPU_LEVEL_V1; level <= HV_CPU_LEVEL_V4; level++)
		cr_assert_eq(counted[level], expected[level], "level %d: %u", level,
			     counted[level]);
}

Test(cpu_features, document_names_every_feature_of_a_baseline)
{
	BASE_FREE uint8_t *text = NULL;
	size_t size_bytes = 0;
	struct base_error err = { 0 };

	cr_assert_eq(base_file_load(TEST_SOURCE_DIR "/docs/hypervisor/cpu-models.md", 1 << 20,
				    &text, &size_bytes, &err),
		     0, "%s", err.text);
	for (uint32_t i = 0; i < hv_cpu_feature_count(); i++) {
		const struct hv_cpu_feature *feature = hv_cpu_feature_at(i);
		char quoted[32];

		if (feature->level > HV_CPU_LEVEL_SYSTEM)
			continue;
		(void)snprintf(quoted, sizeof(quoted), "`%s`", feature->name);
		cr_assert_not_null(strstr((const char *)text, quoted), "%s is not described",
				   quoted);
	}
}
