/* SPDX-License-Identifier: Apache-2.0 */
/* The probe on this machine's KVM; skipped by name where there is none. */
#include "hypervisor/host_probe.h"

#include <criterion/criterion.h>
#include <dirent.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "base/cleanup.h"
#include "base/clock.h"
#include "hypervisor/cpu_check.h"
#include "hypervisor/cpu_topology.h"
#include "made_up_hosts.h"

static int kvm_or_skip(void)
{
	struct base_error err = { 0 };
	int fd = hv_kvm_open(HV_KVM_PATH, &err);

	if (fd < 0)
		cr_skip_test("no KVM here: %s", err.text);
	return fd;
}

static uint32_t open_descriptors(void)
{
	DIR *folder = opendir("/proc/self/fd");
	uint32_t count = 0;

	cr_assert_not_null(folder);
	while (readdir(folder) != NULL)
		count++;
	closedir(folder);
	return count;
}

Test(host_probe, open_says_what_is_wrong)
{
	struct base_error err = { 0 };

	cr_assert_eq(hv_kvm_open("/dev/no-kvm-here", &err), -ENOENT);
	cr_assert_str_eq(err.text, "/dev/no-kvm-here: not there: load kvm_intel or kvm_amd, or "
				   "enable virtualization in the firmware");
	cr_assert_eq(hv_kvm_open("/dev/null", &err), -ENOTSUP);
	cr_assert_not_null(strstr(err.text, "/dev/null: not KVM"));
	cr_assert_eq(hv_kvm_open("/proc", &err), -EISDIR);
	cr_assert_not_null(strstr(err.text, "/proc"));
	cr_assert_lt(hv_kvm_open("/dev/null", NULL), 0);
}

Test(host_probe, errors_on_a_descriptor_that_is_not_kvm)
{
	struct base_error err = { 0 };
	struct hv_cpuid_table table;
	struct hv_host_facts facts;

	cr_assert_eq(hv_host_probe(-1, NULL, &facts, &err), -EBADF);
	cr_assert_not_null(strstr(err.text, "host probe"));
	cr_assert_eq(hv_kvm_cpuid_supported(-1, &table, &err), -EBADF);
	cr_assert_eq(hv_kvm_cpuid_read(-1, &table, &err), -EBADF);
	cr_assert_eq(hv_kvm_cpuid_give(-1, &(struct hv_cpuid_table){ .count = 0 }, &err), -EBADF);
}

Test(host_probe, sees_a_processor_and_leaves_nothing)
{
	BASE_CLOSE int kvm_fd = kvm_or_skip();
	uint32_t before = open_descriptors();
	struct hv_host_facts facts;
	struct base_error err = { 0 };

	cr_assert_eq(hv_host_probe(kvm_fd, NULL, &facts, &err), 0, "%s", err.text);
	cr_assert_eq(open_descriptors(), before);
	cr_assert_eq(facts.api_version, HV_KVM_API_VERSION);
	cr_assert_geq(facts.vcpus_max, 1);
	cr_assert_geq(facts.xsave_bytes, 4096);
	/* whatever KVM does, a 64-bit guest runs on a processor of level v1 */
	for (uint32_t i = 0; i < hv_cpu_feature_count(); i++)
		if (hv_cpu_feature_at(i)->level == HV_CPU_LEVEL_V1)
			cr_assert(hv_cpu_feature_in(&facts.seen, hv_cpu_feature_at(i)), "%s",
				  hv_cpu_feature_at(i)->name);
	cr_assert(made_up_has(&facts.seen, "lm"));
}

Test(host_probe, a_table_without_long_mode_is_an_error)
{
	BASE_CLOSE int kvm_fd = kvm_or_skip();
	struct hv_cpuid_table table;
	struct hv_host_facts facts;
	struct base_error err = { 0 };
	int result;

	cr_assert_eq(hv_kvm_cpuid_supported(kvm_fd, &table, &err), 0, "%s", err.text);
	made_up_feature(&table, "lm", false);
	result = hv_host_probe(kvm_fd, &table, &facts, &err);
	/* a KVM that ignores masks runs it all the same */
	cr_assert(result == 0 || strstr(err.text, "host probe: ") == err.text);
}

Test(host_probe, each_model_this_host_has_and_what_became_of_it)
{
	BASE_CLOSE int kvm_fd = kvm_or_skip();
	struct hv_cpuid_table supported;
	struct base_error err = { 0 };

	cr_assert_eq(hv_kvm_cpuid_supported(kvm_fd, &supported, &err), 0, "%s", err.text);
	for (int model = HV_CPU_MODEL_HOST; model < HV_CPU_MODELS; model++) {
		const char *name = hv_cpu_model_name((enum hv_cpu_model)model);
		static struct hv_cpu_report report;
		static struct hv_host_facts facts;
		struct hv_cpuid_table table;
		struct hv_cpuid_table one;
		char text[2048];
		uint64_t began_ns;
		uint64_t took_ns;
		int result = hv_cpu_model_apply((enum hv_cpu_model)model, NULL, &supported, &table,
						&err);

		if (result < 0) {
			cr_assert_eq(result, -ENOTSUP);
			printf("%s\n", err.text);
			continue;
		}
		cr_assert_eq(hv_cpuid_for_vcpu(&table, 0, 1, &one, &err), 0, "%s", err.text);
		began_ns = base_clock_boot_ns(&base_clock_system);
		cr_assert_eq(hv_host_probe(kvm_fd, &one, &facts, &err), 0, "%s: %s", name,
			     err.text);
		took_ns = base_clock_boot_ns(&base_clock_system) - began_ns;
		(void)hv_cpu_compare_honoured(&one, &facts.seen, &report);
		printf("%s: probe took %.1f ms; TSC offset %s, write %s, %lu kHz; %u not honoured: "
		       "%s\n",
		       name, (double)took_ns / 1e6,
		       facts.tsc_offset_honoured ? "honoured" : "ignored",
		       facts.tsc_write_honoured ? "honoured" : "ignored",
		       (unsigned long)facts.tsc_khz, report.count,
		       hv_cpu_report_text(&report, text, sizeof(text)));
	}
}
