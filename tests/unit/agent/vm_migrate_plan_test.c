/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What a source says of its VM: the same again after a decode, nothing that is not known taken, and
 * each difference named.
 */
#include <criterion/criterion.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "agent/vm_migrate_plan.h"

/* A VM with something of everything. */
static struct vm_plan *sample(void)
{
	struct vm_plan *plan = calloc(1, sizeof(*plan));
	struct hv_cpuid_entry leaf = { .function = 1, .eax = 0x806f8, .ecx = 0x1234, .edx = 7 };

	cr_assert_not_null(plan);
	memset(plan->id, 0xa5, sizeof(plan->id));
	(void)snprintf(plan->name, sizeof(plan->name), "web-1");
	(void)snprintf(plan->host, sizeof(plan->host), "n1.example");
	plan->memory_bytes = 1ULL << 30;
	plan->touched = (struct vm_touched){ .count = 2, .runs = { { 0, 3 }, { 500, 12 } } };
	plan->vcpu_count = 4;
	plan->cpu = HV_CPU_MODEL_V2;
	plan->test_page = true;
	cr_assert_eq(hv_cpuid_set(&plan->processor.cpuid, leaf, NULL), 0);
	plan->processor.tsc_khz = 2445000;
	plan->nic_count = 1;
	plan->nics[0] = (struct vm_plan_nic){ .mac = { 2, 0, 1, 2, 3, 4 }, .queue_count = 4 };
	plan->disk_count = 2;
	plan->disks[0] = (struct vm_plan_disk){ .image = "web.vhdx" };
	plan->disks[1] =
		(struct vm_plan_disk){ .controller = 1, .lun = 3, .dvd = true, .image = "cd.iso" };
	return plan;
}

Test(vm_migrate_plan, the_same_again)
{
	struct vm_plan *plan = sample();
	struct vm_plan *again = calloc(1, sizeof(*again));
	struct mig_findings *findings = calloc(1, sizeof(*findings));
	struct base_error err = { 0 };
	char *text = NULL;
	char *second = NULL;

	cr_assert_eq(vm_plan_encode(plan, &text, &err), 0, "%s", err.text);
	cr_assert_eq(vm_plan_decode(text, again, &err), 0, "%s", err.text);
	cr_assert_eq(vm_plan_encode(again, &second, NULL), 0);
	cr_assert_str_eq(text, second);
	cr_assert_eq(memcmp(plan->id, again->id, sizeof(plan->id)), 0);
	cr_assert_str_eq(again->name, "web-1");
	cr_assert_str_eq(again->host, "n1.example");
	cr_assert_eq(again->processor.cpuid.count, 1);
	cr_assert_eq(again->processor.cpuid.entries[0].ecx, 0x1234);
	cr_assert_eq(again->processor.tsc_khz, 2445000);
	cr_assert_eq(again->touched.count, 2);
	cr_assert_eq(again->touched.runs[1].first, 500);
	cr_assert_eq(again->touched.runs[1].count, 12);
	vm_plan_compare(plan, again, findings);
	cr_assert_eq(findings->count, 0, "%s", findings->lines[0]);
	free(second);
	free(text);
	free(findings);
	free(again);
	free(plan);
}

/* Each replaces one piece of the text; none is taken. */
static const struct {
	const char *from;
	const char *to;
	int code;
	const char *expected;
} wrong[] = {
	{ "{\"form\"", "[{\"form\"", -EBADMSG, "a JSON object" },
	{ "\"form\":1", "\"form\":2", -ENOTSUP, "newer than 1" },
	{ "\"form\":1", "\"form\":\"1\"", -EBADMSG, "'form'" },
	{ "[0,3,500,12]", "[0,3,500,13]", -EBADMSG, "'touched': expected runs" },
	{ "[0,3,500,12]", "[0,3,500]", -EBADMSG, "'touched'" },
	{ "[0,3,500,12]", "[0,3,-1,1]", -EBADMSG, "'touched'" },
	{ "[0,3,500,12]", "[0,3,513,-1]", -EBADMSG, "'touched'" },
	{ "[0,3,500,12]", "[0,3,500,\"1\"]", -EBADMSG, "'touched'" },
	{ "[0,3,500,12]", "7", -EBADMSG, "'touched': expected a list" },
	{ "\"name\":\"web-1\"", "\"name\":\"../web\"", -EBADMSG, "'name': expected a name" },
	{ "\"name\":\"web-1\"", "\"name\":\"\"", -EBADMSG, "'name'" },
	{ "\"name\":\"web-1\"", "\"name\":7", -EBADMSG, "'name': expected a text" },
	{ "\"name\":\"web-1\"", "\"title\":\"web-1\"", -EBADMSG, "'name'" },
	{ "\"host\":\"n1.example\"", "\"host\":\"a b\"", -EBADMSG, "'host'" },
	{ "\"vcpus\":4", "\"vcpus\":65", -EBADMSG, "'vcpus'" },
	{ "\"vcpus\":4", "\"vcpus\":-1", -EBADMSG, "'vcpus'" },
	{ "\"vcpus\":4", "\"vcpus\":4,\"vcpus\":4", -EBADMSG, "a JSON object" },
	{ "\"vcpus\":4", "\"vcpus\":4,\"gpus\":1", -EBADMSG, "13 of them known" },
	{ "\"cpu\":\"x86-64-v2\"", "\"cpu\":\"pentium\"", -EBADMSG, "'cpu'" },
	{ "\"test_page\":true", "\"test_page\":1", -EBADMSG,
	  "'test_page': expected true or false" },
	{ "\"cpuid\":\"01", "\"cpuid\":\"ff", -EBADMSG, "'cpuid': expected a table" },
	{ "\"cpuid\":\"01", "\"cpuid\":\"0g", -EBADMSG, "'cpuid': expected hexadecimal" },
	{ "\"cpuid\":\"01", "\"cpuid\":\"1", -EBADMSG, "'cpuid': expected hexadecimal" },
	{ "\"mac\":\"0200", "\"mac\":\"02", -EBADMSG, "'mac': expected 6 bytes" },
	{ "\"queues\":4", "\"queues\":17", -EBADMSG, "'queues'" },
	{ "\"queues\":4", "\"queues\":4,\"speed\":1", -EBADMSG, "known" },
	{ "\"controller\":1", "\"controller\":4", -EBADMSG, "'controller'" },
	{ "\"lun\":3", "\"lun\":64", -EBADMSG, "'lun'" },
	{ "\"web.vhdx\"", "\"../web.vhdx\"", -EBADMSG, "'image'" },
	{ "\"web.vhdx\"", "\".web.vhdx\"", -EBADMSG, "'image'" },
	{ "\"web.vhdx\"", "\"\"", -EBADMSG, "'image'" },
	{ "\"web.vhdx\"", "\"a\\nb\"", -EBADMSG, "'image'" },
	{ "\"empty\":false", "\"empty\":true", -EBADMSG, "'image'" },
	{ "\"disks\":[", "\"disks\":{}, \"more\":[", -EBADMSG, "'disks'" },
};

static void check_refused(const char *text, size_t index)
{
	struct vm_plan *plan = calloc(1, sizeof(*plan));
	struct base_error err = { 0 };
	const char *at = strstr(text, wrong[index].from);
	char *changed = NULL;

	cr_assert_not_null(at, "%s", wrong[index].from);
	cr_assert_geq(asprintf(&changed, "%.*s%s%s", (int)(at - text), text, wrong[index].to,
			       at + strlen(wrong[index].from)),
		      0);
	cr_assert_eq(vm_plan_decode(changed, plan, &err), wrong[index].code, "%s: %s", changed,
		     err.text);
	cr_assert_not_null(strstr(err.text, wrong[index].expected), "%s: '%s'", changed, err.text);
	free(changed);
	free(plan);
}

Test(vm_migrate_plan, what_is_not_known_is_refused)
{
	struct vm_plan *plan = sample();
	char *text = NULL;

	cr_assert_eq(vm_plan_encode(plan, &text, NULL), 0);
	for (size_t i = 0; i < sizeof(wrong) / sizeof(wrong[0]); i++)
		check_refused(text, i);
	free(text);
	free(plan);
}

/* All differences at once, a line each. */
Test(vm_migrate_plan, every_difference_is_named)
{
	static const char *const expected[] = {
		"name: the VM is 'web-1', this worker is for 'web-2'",
		"memory: the VM has 1024 MiB, here are 512",
		"vcpus: the VM has 4, here are 2",
		"cpu: the VM has 'x86-64-v2', the configuration here 'x86-64-v3'",
		"test-page: the VM has it on, here it is off",
		"network: the VM has 1 cards, here are 2",
		("network card 0: the VM has the address 02:00:01:02:03:04, the one here "
		 "02:00:01:02:03:05"),
		"network card 0: the VM has 4 queues, the one here 1",
		"network card 0: the VM has MTU 0, the one here 9000 (0: 1500)",
		"network card 0: spoofing is off for the VM, on here",
		"controller 0 LUN 0: the VM writes it, here it can only be read",
		"controller 1 LUN 3: the VM has a disk there, here is none",
		"controller 2 LUN 0: the VM has no disk there, here is one",
	};
	struct vm_plan *plan = sample();
	struct vm_plan *here = sample();
	struct mig_findings *findings = calloc(1, sizeof(*findings));

	(void)snprintf(here->name, sizeof(here->name), "web-2");
	here->memory_bytes = 512ULL << 20;
	here->vcpu_count = 2;
	here->cpu = HV_CPU_MODEL_V3;
	here->test_page = false;
	here->nic_count = 2;
	here->nics[0].mac[5] = 5;
	here->nics[0].queue_count = 1;
	here->nics[0].mtu = 9000;
	here->nics[0].spoofing = true;
	here->disks[0].read_only = true;
	here->disks[1] = (struct vm_plan_disk){ .controller = 2 };
	vm_plan_compare(plan, here, findings);
	for (size_t i = 0; i < sizeof(expected) / sizeof(expected[0]); i++)
		cr_assert_str_eq(findings->lines[i], expected[i]);
	cr_assert_eq(findings->count, sizeof(expected) / sizeof(expected[0]));
	free(findings);
	free(here);
	free(plan);
}

Test(vm_migrate_plan, a_drive_is_no_disk)
{
	struct vm_plan *plan = sample();
	struct vm_plan *here = sample();
	struct mig_findings *findings = calloc(1, sizeof(*findings));

	here->disks[0].dvd = true;
	here->disks[1].empty = true;
	here->disks[1].image[0] = '\0';
	vm_plan_compare(plan, here, findings);
	cr_assert_eq(findings->count, 2);
	cr_assert_str_eq(findings->lines[0],
			 "controller 0 LUN 0: the VM has a disk there, here is a DVD drive");
	cr_assert_str_eq(findings->lines[1], "controller 1 LUN 3: the VM's drive has a medium, the "
					     "one here has none");
	free(findings);
	free(here);
	free(plan);
}

Test(vm_migrate_plan, another_image_is_another_disk)
{
	struct vm_plan *plan = sample();
	struct vm_plan *here = sample();
	struct mig_findings *findings = calloc(1, sizeof(*findings));

	(void)snprintf(here->disks[0].image, sizeof(here->disks[0].image), "db.vhdx");
	vm_plan_compare(plan, here, findings);
	cr_assert_eq(findings->count, 1);
	cr_assert_str_eq(findings->lines[0],
			 "controller 0 LUN 0: the VM's image is 'web.vhdx', the "
			 "configuration here names 'db.vhdx'");
	free(findings);
	free(here);
	free(plan);
}

Test(vm_migrate_plan, a_processor_is_named_feature_by_feature)
{
	struct hv_cpu_report report = { .count = 2, .truncated = true };
	struct mig_findings *findings = calloc(1, sizeof(*findings));

	(void)snprintf(report.findings[0].text, sizeof(report.findings[0].text),
		       "avx2: VM uses it, host has not");
	(void)snprintf(report.findings[1].text, sizeof(report.findings[1].text),
		       "MAXPHYADDR: VM 48, host 46");
	vm_plan_findings_cpu(&report, findings);
	cr_assert_eq(findings->count, 3);
	cr_assert_str_eq(findings->lines[0], "processor: avx2: VM uses it, host has not");
	cr_assert_str_eq(findings->lines[1], "processor: MAXPHYADDR: VM 48, host 46");
	free(findings);
}

/* What the configuration says, and nothing else. */
Test(vm_migrate_plan, of_a_configuration)
{
	static const char text[] = "name = web-1\nmemory = 256M\nvcpus = 2\nkernel = /k\n"
				   "disk = /d.vhdx,read-only\n"
				   "nic = tap=t0,queues=2,mtu=9000,spoofing=on\n";
	struct vm_config *config = calloc(1, sizeof(*config));
	struct vm_plan *plan = calloc(1, sizeof(*plan));
	struct base_error err = { 0 };

	cr_assert_eq(vm_config_parse_text("f", text, strlen(text), config, &err), 0, "%s",
		     err.text);
	vm_plan_of(config, plan);
	cr_assert_str_eq(plan->name, "web-1");
	cr_assert_eq(plan->memory_bytes, 256ULL << 20);
	cr_assert_eq(plan->vcpu_count, 2);
	cr_assert_eq(plan->cpu, HV_CPU_MODEL_HOST);
	cr_assert_eq(plan->nic_count, 1);
	cr_assert_eq(plan->nics[0].queue_count, 2);
	cr_assert_eq(plan->nics[0].mtu, 9000);
	cr_assert(plan->nics[0].spoofing);
	cr_assert_eq(plan->disk_count, 0, "they may have changed since");
	free(plan);
	free(config);
}
