/* SPDX-License-Identifier: Apache-2.0 */
/* The plan of a move as JSON, and its comparison. */
#include "agent/vm_migrate_plan.h"

#include <errno.h>
#include <inttypes.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "agent/vm_config_priv.h"
#include "base/bytes.h"
#include "base/cleanup.h"
#include "base/hex.h"

#define FORM 1 /* of the text */

void vm_plan_of(const struct vm_config *config, struct vm_plan *ret_plan)
{
	memset(ret_plan, 0, sizeof(*ret_plan));
	memcpy(ret_plan->name, config->name, sizeof(ret_plan->name));
	ret_plan->memory_bytes = config->memory_bytes;
	ret_plan->vcpu_count = (uint32_t)config->vcpu_count;
	ret_plan->cpu = config->cpu;
	ret_plan->test_page = config->test_page == VM_SWITCH_ON;
	ret_plan->nic_count = config->nic_count;
	for (uint32_t i = 0; i < config->nic_count; i++) {
		const struct vm_nic_config *nic = &config->nics[i];

		memcpy(ret_plan->nics[i].mac, nic->mac, sizeof(nic->mac));
		ret_plan->nics[i].queue_count = nic->queue_count;
		ret_plan->nics[i].mtu = nic->mtu;
		ret_plan->nics[i].spoofing = nic->spoofing;
	}
}

/* --- writing --- */

static json_t *hex_json(const uint8_t *bytes, size_t size_bytes)
{
	static const char digits[] = "0123456789abcdef";
	BASE_FREE char *text = malloc(2 * size_bytes + 1);

	if (text == NULL)
		return NULL;
	for (size_t i = 0; i < size_bytes; i++) {
		text[2 * i] = digits[bytes[i] >> 4];
		text[2 * i + 1] = digits[bytes[i] & 15];
	}
	return json_stringn(text, 2 * size_bytes);
}

static json_t *cpuid_json(const struct hv_cpuid_table *cpuid)
{
	BASE_CLEANUP(base_buffer_fini) struct base_buffer buffer = { .data = NULL };

	hv_cpuid_encode(cpuid, &buffer);
	return buffer.failed ? NULL : hex_json(buffer.data, buffer.size_bytes);
}

static json_t *nics_json(const struct vm_plan *plan)
{
	json_t *list = json_array();

	for (uint32_t i = 0; i < plan->nic_count; i++) {
		const struct vm_plan_nic *nic = &plan->nics[i];

		(void)json_array_append_new(list, json_pack("{s:o, s:I, s:I, s:b}", "mac",
							    hex_json(nic->mac, sizeof(nic->mac)),
							    "queues", (json_int_t)nic->queue_count,
							    "mtu", (json_int_t)nic->mtu, "spoofing",
							    (int)nic->spoofing));
	}
	return list;
}

static json_t *disks_json(const struct vm_plan *plan)
{
	json_t *list = json_array();

	for (uint32_t i = 0; i < plan->disk_count; i++) {
		const struct vm_plan_disk *disk = &plan->disks[i];

		(void)json_array_append_new(
			list, json_pack("{s:I, s:I, s:b, s:b, s:b, s:s}", "controller",
					(json_int_t)disk->controller, "lun", (json_int_t)disk->lun,
					"dvd", (int)disk->dvd, "read_only", (int)disk->read_only,
					"empty", (int)disk->empty, "image", disk->image));
	}
	return list;
}

/* First, count, first, count... */
static json_t *touched_json(const struct vm_touched *touched)
{
	json_t *list = json_array();

	for (uint32_t i = 0; i < touched->count; i++) {
		(void)json_array_append_new(list, json_integer((json_int_t)touched->runs[i].first));
		(void)json_array_append_new(list, json_integer((json_int_t)touched->runs[i].count));
	}
	return list;
}

int vm_plan_encode(const struct vm_plan *plan, char **ret_text, struct base_error *err)
{
	json_auto_t *root = json_pack(
		"{s:i, s:o, s:s, s:s, s:I, s:o, s:I, s:s, s:b, s:o, s:I, s:o, s:o}", "form", FORM,
		"id", hex_json(plan->id, sizeof(plan->id)), "name", plan->name, "host", plan->host,
		"memory", (json_int_t)plan->memory_bytes, "touched", touched_json(&plan->touched),
		"vcpus", (json_int_t)plan->vcpu_count, "cpu", hv_cpu_model_name(plan->cpu),
		"test_page", (int)plan->test_page, "cpuid", cpuid_json(&plan->processor.cpuid),
		"tsc_khz", (json_int_t)plan->processor.tsc_khz, "nics", nics_json(plan), "disks",
		disks_json(plan));
	char *text = NULL;

	if (root != NULL && json_array_size(json_object_get(root, "nics")) == plan->nic_count &&
	    json_array_size(json_object_get(root, "touched")) == (size_t)2 * plan->touched.count &&
	    json_array_size(json_object_get(root, "disks")) == plan->disk_count)
		text = json_dumps(root, JSON_COMPACT);
	if (text == NULL)
		return base_fail(err, -ENOMEM, "plan of the move");
	*ret_text = text;
	return 0;
}

/* --- reading: each taker checks type and range, and says what was expected --- */

struct reading {
	json_t *object;
	size_t taken; /* keys of it that are known */
	int code;     /* the first failure */
	struct base_error *err;
};

static void refuse(struct reading *reading, const char *key, const char *expected)
{
	if (reading->code == 0)
		reading->code = base_fail(reading->err, -EBADMSG,
					  "plan of the move: key '%s': expected %s", key, expected);
}

static json_t *take(struct reading *reading, const char *key)
{
	json_t *value = json_object_get(reading->object, key);

	if (value != NULL)
		reading->taken++;
	return value;
}

static uint64_t take_number(struct reading *reading, const char *key, uint64_t most)
{
	json_t *value = take(reading, key);
	json_int_t number = json_integer_value(value);

	if (!json_is_integer(value) || number < 0 || (uint64_t)number > most) {
		refuse(reading, key, "a number in its range");
		return 0;
	}
	return (uint64_t)number;
}

static bool take_flag(struct reading *reading, const char *key)
{
	json_t *value = take(reading, key);

	if (!json_is_boolean(value))
		refuse(reading, key, "true or false");
	return json_is_true(value);
}

static const char *take_text(struct reading *reading, const char *key)
{
	json_t *value = take(reading, key);

	if (!json_is_string(value) ||
	    strlen(json_string_value(value)) != json_string_length(value)) {
		refuse(reading, key, "a text");
		return "";
	}
	return json_string_value(value);
}

static void take_name(struct reading *reading, const char *key, char *to, size_t size_bytes)
{
	const char *name = take_text(reading, key);

	if (strlen(name) >= size_bytes || !vm_config_is_name(name, strlen(name)))
		refuse(reading, key, "a name");
	else
		(void)snprintf(to, size_bytes, "%s", name);
}

/* Bytes of hex digits; the count, 0 after a failure. */
static size_t take_hex(struct reading *reading, const char *key, uint8_t *to, size_t most)
{
	const char *text = take_text(reading, key);
	size_t length = strlen(text);

	if (length % 2 != 0 || length / 2 > most) {
		refuse(reading, key, "hexadecimal digits");
		return 0;
	}
	for (size_t i = 0; i < length / 2; i++) {
		int high = base_hex_digit(text[2 * i]);
		int low = base_hex_digit(text[2 * i + 1]);

		if (high < 0 || low < 0) {
			refuse(reading, key, "hexadecimal digits");
			return 0;
		}
		to[i] = (uint8_t)(high << 4 | low);
	}
	return length / 2;
}

/* Nothing that is not known: it would mean something. */
static void take_end(struct reading *reading)
{
	if (reading->code == 0 && json_object_size(reading->object) != reading->taken)
		reading->code = base_fail(reading->err, -EBADMSG,
					  "plan of the move: %zu keys, %zu of them known: expected "
					  "all",
					  json_object_size(reading->object), reading->taken);
}

static void take_nic(struct reading *outer, json_t *value, struct vm_plan_nic *nic)
{
	struct reading reading = { .object = value, .err = outer->err };

	if (take_hex(&reading, "mac", nic->mac, sizeof(nic->mac)) != sizeof(nic->mac))
		refuse(&reading, "mac", "6 bytes");
	nic->queue_count = (uint32_t)take_number(&reading, "queues", VM_NIC_QUEUES_MAX);
	nic->mtu = (uint32_t)take_number(&reading, "mtu", UINT16_MAX);
	nic->spoofing = take_flag(&reading, "spoofing");
	take_end(&reading);
	if (outer->code == 0)
		outer->code = reading.code;
}

/* A file's name, without a folder; shown in findings. */
static void take_image(struct reading *reading, struct vm_plan_disk *disk)
{
	const char *name = take_text(reading, "image");
	size_t length = strlen(name);

	if (length >= sizeof(disk->image) || (length == 0) != disk->empty || name[0] == '.' ||
	    strchr(name, '/') != NULL || !vm_config_printable(name, length))
		refuse(reading, "image", "the name of a file");
	else
		(void)snprintf(disk->image, sizeof(disk->image), "%s", name);
}

static void take_disk(struct reading *outer, json_t *value, struct vm_plan_disk *disk)
{
	struct reading reading = { .object = value, .err = outer->err };

	disk->controller = (uint32_t)take_number(&reading, "controller", VM_CONTROLLERS - 1);
	disk->lun = (uint32_t)take_number(&reading, "lun", VM_DISKS_MAX - 1);
	disk->dvd = take_flag(&reading, "dvd");
	disk->read_only = take_flag(&reading, "read_only");
	disk->empty = take_flag(&reading, "empty");
	take_image(&reading, disk);
	take_end(&reading);
	if (outer->code == 0)
		outer->code = reading.code;
}

static json_t *take_list(struct reading *reading, const char *key, size_t most)
{
	json_t *list = take(reading, key);

	if (json_is_array(list) && json_array_size(list) <= most)
		return list;
	refuse(reading, key, "a list that is not longer than a VM's can be");
	return NULL;
}

static void take_devices(struct reading *reading, struct vm_plan *plan)
{
	json_t *nics = take_list(reading, "nics", VM_NICS_MAX);
	json_t *disks = take_list(reading, "disks", VM_DISKS_MAX);

	for (size_t i = 0; reading->code == 0 && i < json_array_size(nics); i++)
		take_nic(reading, json_array_get(nics, i), &plan->nics[plan->nic_count++]);
	for (size_t i = 0; reading->code == 0 && i < json_array_size(disks); i++)
		take_disk(reading, json_array_get(disks, i), &plan->disks[plan->disk_count++]);
}

static void take_touched(struct reading *reading, struct vm_plan *plan)
{
	json_t *list = take_list(reading, "touched", (size_t)2 * VM_TOUCHED_RUNS_MAX);
	json_int_t most = (json_int_t)(plan->memory_bytes / HV_HUGE_PAGE_BYTES);

	for (size_t i = 0; i + 1 < json_array_size(list); i += 2) {
		json_t *first = json_array_get(list, i);
		json_t *count = json_array_get(list, i + 1);
		struct vm_touched_run *run = &plan->touched.runs[plan->touched.count];

		if (!json_is_integer(first) || !json_is_integer(count) ||
		    json_integer_value(first) < 0 || json_integer_value(first) > most ||
		    json_integer_value(count) < 0 ||
		    json_integer_value(count) > most - json_integer_value(first))
			break;
		run->first = (uint64_t)json_integer_value(first);
		run->count = (uint64_t)json_integer_value(count);
		plan->touched.count++;
	}
	if (json_array_size(list) != (size_t)2 * plan->touched.count)
		refuse(reading, "touched", "runs of 2 MiB pages of the memory");
}

static void take_cpuid(struct reading *reading, struct hv_cpuid_table *cpuid)
{
	uint8_t bytes[4 + HV_CPUID_ENTRIES_MAX * HV_CPUID_ENTRY_BYTES];
	struct base_reader in =
		base_reader_over(bytes, take_hex(reading, "cpuid", bytes, sizeof(bytes)));

	if (reading->code == 0 &&
	    (hv_cpuid_decode(&in, cpuid, NULL) < 0 || base_reader_left(&in) != 0))
		refuse(reading, "cpuid", "a table of CPUID answers");
}

static void take_all(struct reading *reading, struct vm_plan *plan)
{
	if (take_hex(reading, "id", plan->id, sizeof(plan->id)) != sizeof(plan->id))
		refuse(reading, "id", "16 bytes");
	take_name(reading, "name", plan->name, sizeof(plan->name));
	take_name(reading, "host", plan->host, sizeof(plan->host));
	plan->memory_bytes = take_number(reading, "memory", HV_MEMORY_BYTES_MAX);
	take_touched(reading, plan);
	plan->vcpu_count = (uint32_t)take_number(reading, "vcpus", HV_VCPUS_MAX);
	plan->cpu = hv_cpu_model_parse(take_text(reading, "cpu"));
	if (plan->cpu == HV_CPU_MODEL_INVALID)
		refuse(reading, "cpu", "one of " HV_CPU_MODEL_NAMES);
	plan->test_page = take_flag(reading, "test_page");
	take_cpuid(reading, &plan->processor.cpuid);
	plan->processor.tsc_khz = take_number(reading, "tsc_khz", INT64_MAX);
	take_devices(reading, plan);
	take_end(reading);
}

int vm_plan_decode(const char *text, struct vm_plan *ret_plan, struct base_error *err)
{
	json_error_t why;
	json_auto_t *root = json_loads(text, JSON_REJECT_DUPLICATES, &why);
	struct reading reading = { .object = root, .err = err };

	if (!json_is_object(root))
		return base_fail(err, -EBADMSG, "plan of the move: expected a JSON object");
	if (take_number(&reading, "form", INT64_MAX) > FORM)
		return base_fail(err, -ENOTSUP,
				 "plan of the move: a form newer than %d, expected it", FORM);
	memset(ret_plan, 0, sizeof(*ret_plan));
	take_all(&reading, ret_plan);
	return reading.code;
}

/* --- comparing --- */

static void compare_nic(uint32_t i, const struct vm_plan_nic *vm, const struct vm_plan_nic *here,
			struct mig_findings *findings)
{
	if (memcmp(vm->mac, here->mac, sizeof(vm->mac)) != 0)
		mig_findings_add(findings,
				 "network card %" PRIu32 ": the VM has the address "
				 "%02x:%02x:%02x:%02x:%02x:%02x, the one here "
				 "%02x:%02x:%02x:%02x:%02x:%02x",
				 i, vm->mac[0], vm->mac[1], vm->mac[2], vm->mac[3], vm->mac[4],
				 vm->mac[5], here->mac[0], here->mac[1], here->mac[2], here->mac[3],
				 here->mac[4], here->mac[5]);
	if (vm->queue_count != here->queue_count)
		mig_findings_add(findings,
				 "network card %" PRIu32 ": the VM has %" PRIu32
				 " queues, the one here %" PRIu32,
				 i, vm->queue_count, here->queue_count);
	if (vm->mtu != here->mtu)
		mig_findings_add(findings,
				 "network card %" PRIu32 ": the VM has MTU %" PRIu32
				 ", the one here %" PRIu32 " (0: 1500)",
				 i, vm->mtu, here->mtu);
	if (vm->spoofing != here->spoofing)
		mig_findings_add(findings,
				 "network card %" PRIu32 ": spoofing is %s for the VM, %s here", i,
				 vm->spoofing ? "on" : "off", here->spoofing ? "on" : "off");
}

static const struct vm_plan_disk *find_disk(const struct vm_plan *plan,
					    const struct vm_plan_disk *place)
{
	for (uint32_t i = 0; i < plan->disk_count; i++)
		if (plan->disks[i].controller == place->controller &&
		    plan->disks[i].lun == place->lun)
			return &plan->disks[i];
	return NULL;
}

static void compare_disk(const struct vm_plan_disk *vm, const struct vm_plan_disk *here,
			 struct mig_findings *findings)
{
	const char *what = NULL;

	if (here == NULL)
		what = "the VM has a disk there, here is none";
	else if (vm->dvd != here->dvd)
		what = vm->dvd ? "the VM has a DVD drive there, here is a disk"
			       : "the VM has a disk there, here is a DVD drive";
	else if (vm->empty != here->empty)
		what = vm->empty ? "the VM's drive is empty, the one here is not"
				 : "the VM's drive has a medium, the one here has none";
	else if (vm->read_only != here->read_only)
		what = vm->read_only ? "the VM only reads it, here it would be written"
				     : "the VM writes it, here it can only be read";
	if (what != NULL)
		mig_findings_add(findings, "controller %" PRIu32 " LUN %" PRIu32 ": %s",
				 vm->controller, vm->lun, what);
	else if (strcmp(vm->image, here->image) != 0)
		mig_findings_add(findings,
				 "controller %" PRIu32 " LUN %" PRIu32
				 ": the VM's image is '%s', the configuration here names '%s'",
				 vm->controller, vm->lun, vm->image, here->image);
}

static void compare_disks(const struct vm_plan *plan, const struct vm_plan *here,
			  struct mig_findings *findings)
{
	for (uint32_t i = 0; i < plan->disk_count; i++)
		compare_disk(&plan->disks[i], find_disk(here, &plan->disks[i]), findings);
	for (uint32_t i = 0; i < here->disk_count; i++)
		if (find_disk(plan, &here->disks[i]) == NULL)
			mig_findings_add(findings,
					 "controller %" PRIu32 " LUN %" PRIu32
					 ": the VM has no disk there, here is one",
					 here->disks[i].controller, here->disks[i].lun);
}

void vm_plan_compare(const struct vm_plan *plan, const struct vm_plan *here,
		     struct mig_findings *findings)
{
	if (strcmp(plan->name, here->name) != 0)
		mig_findings_add(findings, "name: the VM is '%s', this worker is for '%s'",
				 plan->name, here->name);
	if (plan->memory_bytes != here->memory_bytes)
		mig_findings_add(findings, "memory: the VM has %" PRIu64 " MiB, here are %" PRIu64,
				 plan->memory_bytes >> 20, here->memory_bytes >> 20);
	if (plan->vcpu_count != here->vcpu_count)
		mig_findings_add(findings, "vcpus: the VM has %" PRIu32 ", here are %" PRIu32,
				 plan->vcpu_count, here->vcpu_count);
	if (plan->cpu != here->cpu)
		mig_findings_add(findings, "cpu: the VM has '%s', the configuration here '%s'",
				 hv_cpu_model_name(plan->cpu), hv_cpu_model_name(here->cpu));
	if (plan->test_page != here->test_page)
		mig_findings_add(findings, "test-page: the VM has it %s, here it is %s",
				 plan->test_page ? "on" : "off", here->test_page ? "on" : "off");
	if (plan->nic_count != here->nic_count)
		mig_findings_add(findings,
				 "network: the VM has %" PRIu32 " cards, here are %" PRIu32,
				 plan->nic_count, here->nic_count);
	for (uint32_t i = 0; i < plan->nic_count && i < here->nic_count; i++)
		compare_nic(i, &plan->nics[i], &here->nics[i], findings);
	compare_disks(plan, here, findings);
}

void vm_plan_findings_cpu(const struct hv_cpu_report *report, struct mig_findings *findings)
{
	for (uint32_t i = 0; i < report->count; i++)
		mig_findings_add(findings, "processor: %s", report->findings[i].text);
	if (report->truncated)
		mig_findings_add(findings, "processor: and more");
}
