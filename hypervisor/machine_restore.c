/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Restore a whole machine, from a file or as it arrives by migration.  Sections:
 * docs/hypervisor/saved-state.md.  Everything but RAM is decoded, checked and compared with host
 * and configuration before RAM is read; where it came by migration it is there already.
 */
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "base/bytes.h"
#include "base/cleanup.h"
#include "hypervisor/cpu_check.h"
#include "hypervisor/cpu_topology.h"
#include "hypervisor/machine_priv.h"
#include "hypervisor/machine_sections.h"
#include "hypervisor/ram_codec.h"
#include "hypervisor/state_file.h"
#include "hypervisor/state_section.h"
#include "hypervisor/synic_priv.h"

BASE_DEFINE_FREEP(struct hv_state_reader, hv_state_reader_free);

/* Everything of a saved state but RAM, decoded. */
struct saved {
	struct hv_machine_section machine;
	struct hv_cpuid_table cpuid;
	struct hv_time_section time;
	struct hv_chip_state chips;
	struct hv_vcpu_state *vcpus;
};

static void saved_fini(struct saved *saved)
{
	free(saved->vcpus);
}

/* A section that must be there, and what to make of it. */
struct wanted {
	const char *name;
	uint32_t instance;
	uint32_t newest; /* version that we know */
	int (*decode)(struct base_reader *in, uint32_t version, void *to, struct base_error *err);
	void *to;
};

/* Fetch one section, checked against the newest version we know, and decode all of it. */
static int decode_section(const struct hv_state_reader *reader, const struct wanted *wanted,
			  struct base_error *err)
{
	const struct hv_state_section *section =
		hv_state_find(reader, wanted->name, wanted->instance);
	BASE_FREE uint8_t *payload = NULL;
	struct base_reader in;
	int r;

	if (section == NULL)
		return base_fail(err, -EBADMSG, "section '%s' %" PRIu32 ": expected, and missing",
				 wanted->name, wanted->instance);
	if (section->version > wanted->newest)
		return base_fail(err, -ENOTSUP,
				 "section '%s': version %" PRIu32 ", expected at most %" PRIu32,
				 wanted->name, section->version, wanted->newest);
	r = hv_state_get(reader, section, &payload, err);
	if (r < 0)
		return r;
	in = base_reader_over(payload, section->payload_bytes);
	r = wanted->decode(&in, section->version, wanted->to, err);
	if (r < 0)
		return base_fail_within(err, r, "section '%s' %" PRIu32, wanted->name,
					wanted->instance);
	if (base_reader_left(&in) != 0)
		return base_fail(err, -EBADMSG, "section '%s' %" PRIu32 ": %zu bytes too many",
				 wanted->name, wanted->instance, base_reader_left(&in));
	return 0;
}

static int decode_machine(struct base_reader *in, uint32_t version, void *to,
			  struct base_error *err)
{
	return hv_machine_section_decode(in, version, to, err);
}

static int decode_cpuid(struct base_reader *in, uint32_t version, void *to, struct base_error *err)
{
	(void)version;
	return hv_cpuid_decode(in, to, err);
}

static int decode_time(struct base_reader *in, uint32_t version, void *to, struct base_error *err)
{
	return hv_time_section_decode(in, version, to, err);
}

static int decode_chips(struct base_reader *in, uint32_t version, void *to, struct base_error *err)
{
	return hv_chip_state_decode(in, version, to, err);
}

static int decode_vcpu(struct base_reader *in, uint32_t version, void *to, struct base_error *err)
{
	return hv_vcpu_state_decode(in, version, to, err);
}

static int check_description(const struct hv_machine *machine,
			     const struct hv_machine_section *saved, struct base_error *err)
{
	if (saved->memory_bytes != machine->config.memory_bytes)
		return base_fail(err, -EINVAL,
				 "memory: the saved VM has %" PRIu64
				 " MiB, the configuration %" PRIu64,
				 saved->memory_bytes >> 20, machine->config.memory_bytes >> 20);
	if (saved->vcpu_count != machine->config.vcpu_count)
		return base_fail(err, -EINVAL,
				 "vcpus: the saved VM has %" PRIu32 ", the configuration %" PRIu32,
				 saved->vcpu_count, machine->config.vcpu_count);
	if (saved->cpu_model != (uint32_t)machine->config.cpu)
		return base_fail(err, -EINVAL, "cpu: the saved VM has '%s', the configuration '%s'",
				 hv_cpu_model_name((enum hv_cpu_model)saved->cpu_model),
				 hv_cpu_model_name(machine->config.cpu));
	if (saved->has_test_page != (machine->test_page != NULL))
		return base_fail(err, -EINVAL,
				 "test-page: the saved VM has it %s, the configuration %s",
				 saved->has_test_page ? "on" : "off",
				 machine->test_page != NULL ? "on" : "off");
	return 0;
}

/*
 * A host that did for the probe guest what it was told will do so for the saved VM's table.  One
 * that did not shows its own features through any table: then it is compared with what was seen.
 * (No new probe: this runs behind the lock-down, where no VM can be made.)
 */
static int check_cpu(struct hv_machine *machine, const struct hv_cpuid_table *saved,
		     struct base_error *err)
{
	struct hv_cpuid_table alone;
	struct hv_cpu_report report;
	char text[384];
	int r;

	if (hv_cpu_check(saved, &machine->supported, &report) != 0)
		return base_fail(err, -ENOTSUP, "this host cannot run the saved VM: %s",
				 hv_cpu_report_text(&report, text, sizeof(text)));
	if (machine->cpu_honoured)
		return 0;
	r = hv_cpuid_for_vcpu(saved, 0, 1, &alone, err);
	return r < 0 ? r : hv_machine_judge_cpu(machine, &alone, err);
}

/* One service section more that we can read: instances of a name count together. */
static size_t add_known(struct hv_state_known *known, size_t count,
			const struct hv_service_section *section)
{
	for (size_t i = 0; i < count; i++)
		if (strcmp(known[i].name, section->name) == 0) {
			if (known[i].instance_count <= section->instance)
				known[i].instance_count = section->instance + 1;
			return count;
		}
	known[count] =
		(struct hv_state_known){ section->name, section->version, section->instance + 1 };
	return count + 1;
}

/* What this program can read: anything else in the file is refused before it matters. */
static int check_known(const struct hv_machine *machine, const struct hv_state_reader *reader,
		       struct base_error *err)
{
	const struct hv_state_known own[] = {
		{ "machine", HV_MACHINE_SECTION_VERSION, 1 },
		{ "cpuid", HV_CPUID_SECTION_VERSION, 1 },
		{ "time", HV_TIME_SECTION_VERSION, 1 },
		{ "chips", HV_CHIP_STATE_VERSION, 1 },
		{ "vcpu", HV_VCPU_STATE_VERSION, machine->config.vcpu_count },
		{ "ram", HV_RAM_VERSION, 1 },
		{ "test-page", HV_TEST_PAGE_VERSION, 1 },
		{ "hyperv", HV_HYPERV_VERSION, 1 },
		{ "synic", HV_SYNIC_VERSION, 1 },
	};
	size_t count = sizeof(own) / sizeof(own[0]);
	uint32_t services = hv_machine_service_sections(machine);
	BASE_FREE struct hv_state_known *known =
		calloc(count + hv_platform_section_count() + services, sizeof(*known));

	if (known == NULL)
		return base_fail(err, -ENOMEM, "table of sections");
	memcpy(known, own, sizeof(own));
	for (size_t i = 0; i < hv_platform_section_count(); i++) {
		struct hv_platform_section section = hv_platform_section(i);

		known[count++] = (struct hv_state_known){ section.name, section.version, 1 };
	}
	for (uint32_t i = 0; i < services; i++) {
		const struct hv_machine_service *service;
		uint32_t index;
		struct hv_service_section section =
			hv_machine_service_section(machine, i, &service, &index);

		count = add_known(known, count, &section);
	}
	return hv_state_check_known(reader, known, count, err);
}

static int decode_all(struct hv_machine *machine, const struct hv_state_reader *reader,
		      struct saved *saved, struct base_error *err)
{
	int r = decode_section(reader,
			       &(struct wanted){ "machine", 0, HV_MACHINE_SECTION_VERSION,
						 decode_machine, &saved->machine },
			       err);

	if (r >= 0)
		r = check_description(machine, &saved->machine, err);
	if (r >= 0)
		r = check_known(machine, reader, err);
	if (r >= 0)
		r = decode_section(reader,
				   &(struct wanted){ "cpuid", 0, HV_CPUID_SECTION_VERSION,
						     decode_cpuid, &saved->cpuid },
				   err);
	if (r >= 0)
		r = check_cpu(machine, &saved->cpuid, err);
	if (r >= 0)
		r = decode_section(reader,
				   &(struct wanted){ "time", 0, HV_TIME_SECTION_VERSION,
						     decode_time, &saved->time },
				   err);
	if (r >= 0 && saved->time.vcpu_count != machine->config.vcpu_count)
		r = base_fail(err, -EBADMSG, "section 'time': %" PRIu32 " vCPUs, expected %" PRIu32,
			      saved->time.vcpu_count, machine->config.vcpu_count);
	if (r >= 0)
		r = decode_section(reader,
				   &(struct wanted){ "chips", 0, HV_CHIP_STATE_VERSION,
						     decode_chips, &saved->chips },
				   err);
	for (uint32_t i = 0; i < machine->config.vcpu_count && r >= 0; i++)
		r = decode_section(reader,
				   &(struct wanted){ "vcpu", i, HV_VCPU_STATE_VERSION, decode_vcpu,
						     &saved->vcpus[i] },
				   err);
	return r;
}

/* Nanoseconds between the save and now: by the host's boot clock where it is the same boot,
 * which nobody sets; by the date otherwise. */
static uint64_t elapsed_ns(const struct hv_machine *machine, const struct hv_time_section *saved)
{
	static const uint8_t unknown[16];
	bool same_boot = memcmp(saved->boot_id, machine->boot_id, sizeof(saved->boot_id)) == 0 &&
			 memcmp(saved->boot_id, unknown, sizeof(unknown)) != 0;
	uint64_t now = same_boot ? base_clock_boot_ns(&base_clock_system)
				 : base_clock_real_ns(&base_clock_system);
	uint64_t then = same_boot ? saved->host_boot_ns : saved->host_real_ns;

	return now > then ? now - then : 0;
}

/* ns * khz / 10^6, which 64 bits do not hold in one go. */
static uint64_t ticks_of(uint64_t ns, uint64_t khz)
{
	return ns / 1000000U * khz + ns % 1000000U * khz / 1000000U;
}

bool hv_tsc_rates_differ(uint64_t one_khz, uint64_t other_khz)
{
	uint64_t apart = one_khz > other_khz ? one_khz - other_khz : other_khz - one_khz;

	/* Crystals differ by parts per million; 250 is what a guest's clock is disciplined over. */
	return one_khz != 0 && other_khz != 0 && apart > other_khz / 4000;
}

/* A rate that this host neither has nor can make; @force: the guest's clock will be off. */
static int check_tsc_rate(const struct hv_machine *machine, struct saved *saved, bool force,
			  struct base_error *err)
{
	uint64_t here = machine->guest_tsc_khz;
	uint64_t there = saved->time.tsc_khz;

	if (machine->host.tsc_control || !hv_tsc_rates_differ(here, there))
		return 0;
	if (!force)
		return base_fail(err, -ENOTSUP,
				 "TSC: the saved VM runs at %" PRIu64 " kHz, this host at %" PRIu64
				 " kHz and cannot scale it (force to go on)",
				 there, here);
	for (uint32_t i = 0; i < saved->machine.vcpu_count; i++)
		saved->vcpus[i].tsc_khz = 0; /* unknown: this host's stays */
	return 0;
}

static int check_tsc(const struct hv_machine *machine, const struct hv_time_section *saved,
		     bool force, struct base_error *err)
{
	if (machine->tsc_is_ours || force)
		return 0;
	for (uint32_t i = 0; i < saved->vcpu_count; i++)
		if (base_tsc_read() < saved->tsc[i])
			return base_fail(
				err, -ERANGE,
				"TSC: would step back from %" PRIu64 " to %" PRIu64
				", because this host's KVM ignores TSC offsets (force to go on)",
				saved->tsc[i], base_tsc_read());
	return 0;
}

/* After the vCPU state, which sets the rate; then a TSC deadline can be armed against the TSC.
 * vCPUs that were equal get one offset. */
static int apply_time(struct hv_machine *machine, const struct hv_time_section *saved,
		      uint64_t gone_ns, struct base_error *err)
{
	uint64_t host_tsc = base_tsc_read();

	machine->time.boot_offset_ns =
		(int64_t)(saved->guest_ns + gone_ns - base_clock_boot_ns(&base_clock_system));
	machine->guest_tsc_khz = hv_vcpu_tsc_khz(hv_partition_vcpu_fd(machine->partition, 0));
	for (uint32_t i = 0; i < saved->vcpu_count && machine->tsc_is_ours; i++) {
		int r = hv_vcpu_tsc_put(hv_partition_vcpu_fd(machine->partition, i),
					saved->tsc[i] + ticks_of(gone_ns, machine->guest_tsc_khz),
					host_tsc, err);

		if (r < 0)
			return base_fail_within(err, r, "vcpu %" PRIu32, i);
	}
	return 0;
}

/* What KVM lets be set only before the first entry must be in the power-on state, too, or a
 * restored VM could not be reset on a host whose own values differ. */
static void keep_features(struct hv_machine *machine, const struct saved *saved)
{
	for (uint32_t i = 0; i < machine->config.vcpu_count; i++)
		hv_vcpu_keep_features(&saved->vcpus[i], &machine->power_on[i]);
}

/* One device section: the device itself checks all of it before it changes. */
struct device_load {
	struct hv_machine *machine;
	size_t index; /* hv_platform_section_count(): the test page */
};

static int load_device(struct base_reader *in, uint32_t version, void *to, struct base_error *err)
{
	struct device_load *load = to;

	if (load->index == hv_platform_section_count())
		return hv_test_page_load(load->machine->test_page, version, in, err);
	return hv_platform_load(load->machine->platform, load->index, version, in, err);
}

static int load_devices(struct hv_machine *machine, const struct hv_state_reader *reader,
			struct base_error *err)
{
	struct device_load load = { .machine = machine };
	int r = 0;

	for (load.index = 0; load.index < hv_platform_section_count() && r >= 0; load.index++) {
		struct hv_platform_section section = hv_platform_section(load.index);

		r = decode_section(
			reader,
			&(struct wanted){ section.name, 0, section.version, load_device, &load },
			err);
	}
	if (r >= 0 && machine->test_page != NULL)
		r = decode_section(reader,
				   &(struct wanted){ "test-page", 0, HV_TEST_PAGE_VERSION,
						     load_device, &load },
				   err);
	return r;
}

static int load_hyperv_registers(struct base_reader *in, uint32_t version, void *to,
				 struct base_error *err)
{
	return hv_hyperv_load(((struct hv_machine *)to)->hyperv, version, in, err);
}

static int load_synic(struct base_reader *in, uint32_t version, void *to, struct base_error *err)
{
	return hv_synic_load(((struct hv_machine *)to)->synic, version, in, err);
}

/* A state that has neither section is of a guest that never saw Hyper-V. */
static int load_hyperv(struct hv_machine *machine, const struct hv_state_reader *reader,
		       struct base_error *err)
{
	int r;

	if (hv_state_find(reader, "hyperv", 0) == NULL && hv_state_find(reader, "synic", 0) == NULL)
		return 0;
	r = decode_section(
		reader,
		&(struct wanted){ "hyperv", 0, HV_HYPERV_VERSION, load_hyperv_registers, machine },
		err);
	if (r >= 0)
		r = decode_section(
			reader,
			&(struct wanted){ "synic", 0, HV_SYNIC_VERSION, load_synic, machine }, err);
	return r;
}

/* One section of a service. */
struct service_load {
	const struct hv_machine_service *service;
	uint32_t index;
};

static int load_service(struct base_reader *in, uint32_t version, void *to, struct base_error *err)
{
	const struct service_load *load = to;

	return load->service->ops->load(load->service->service, load->index, version, in, err);
}

static bool has_services(const struct hv_machine *machine, const struct hv_state_reader *reader)
{
	uint32_t count = hv_machine_service_sections(machine);
	struct service_load load;

	for (uint32_t i = 0; i < count; i++) {
		struct hv_service_section section =
			hv_machine_service_section(machine, i, &load.service, &load.index);

		if (hv_state_find(reader, section.name, section.instance) != NULL)
			return true;
	}
	return false;
}

/* The number of sections may grow while they are loaded: what one says brings others. */
static int load_services(struct hv_machine *machine, const struct hv_state_reader *reader,
			 struct base_error *err)
{
	int r = 0;

	for (uint32_t i = 0; i < hv_machine_service_sections(machine) && r >= 0; i++) {
		struct service_load load;
		struct hv_service_section section =
			hv_machine_service_section(machine, i, &load.service, &load.index);

		r = decode_section(reader,
				   &(struct wanted){ section.name, section.instance,
						     section.version, load_service, &load },
				   err);
	}
	return r;
}

static int apply_all(struct hv_machine *machine, const struct saved *saved, struct base_error *err)
{
	uint64_t gone_ns = hv_time_gap_ns(&saved->time, elapsed_ns(machine, &saved->time));
	int r = 0;

	for (uint32_t i = 0; i < machine->config.vcpu_count && r >= 0; i++)
		r = hv_partition_set_cpuid(machine->partition, i, &saved->cpuid, err);
	for (uint32_t i = 0; i < machine->config.vcpu_count && r >= 0; i++)
		r = hv_vcpu_state_put(machine->fds.kvm_fd,
				      hv_partition_vcpu_fd(machine->partition, i), &saved->vcpus[i],
				      err);
	if (r >= 0)
		r = hv_chip_state_put(hv_partition_vm_fd(machine->partition), &saved->chips, err);
	if (r >= 0)
		r = apply_time(machine, &saved->time, gone_ns, err);
	/* Before any vCPU runs, or it would read the time by the old host's TSC. */
	if (r >= 0)
		r = hv_machine_hyperv_clock(
			machine, hv_hyperv_saved_reference(machine->hyperv) + gone_ns / 100, err);
	for (uint32_t i = 0; i < machine->config.vcpu_count && r >= 0; i++)
		r = hv_vcpu_timer_put(hv_partition_vcpu_fd(machine->partition, i), &saved->vcpus[i],
				      err);
	if (r < 0)
		return r;
	hv_platform_loaded(machine->platform);
	keep_features(machine, saved);
	machine->cpuid = saved->cpuid;
	return 0;
}

/* Decoded and checked against host and configuration; devices loaded, services quiet and loaded.
 * @ret_with_services: the state has sections of theirs. */
static int load_all(struct hv_machine *machine, const struct hv_state_reader *reader,
		    struct saved *saved, bool force_tsc, bool *ret_with_services,
		    struct base_error *err)
{
	int r = decode_all(machine, reader, saved, err);

	if (r < 0)
		return r;
	r = check_tsc_rate(machine, saved, force_tsc, err);
	if (r >= 0)
		r = check_tsc(machine, &saved->time, force_tsc, err);
	if (r >= 0)
		r = load_devices(machine, reader, err);
	if (r >= 0)
		r = load_hyperv(machine, reader, err);
	if (r >= 0)
		r = hv_machine_services_quiesce(machine, err);
	if (r < 0)
		return r;
	*ret_with_services = has_services(machine, reader);
	return *ret_with_services ? load_services(machine, reader, err) : 0;
}

/* A state that came beside its memory has none of it. */
static int check_no_ram(const struct hv_state_reader *reader, struct base_error *err)
{
	for (uint64_t i = 0; i < hv_state_section_count(reader); i++)
		if (strcmp(hv_state_section_at(reader, i)->name, HV_STATE_RAM_NAME) == 0)
			return base_fail(err, -EBADMSG,
					 "section '%s': expected none where memory came before it",
					 HV_STATE_RAM_NAME);
	return 0;
}

/* All but what services do once their guest runs here. @has_ram: memory is in the file. */
static int restore(struct hv_machine *machine, int fd, bool force_tsc, bool has_ram,
		   bool *ret_with_services, struct base_error *err)
{
	BASE_CLEANUP(hv_state_reader_freep) struct hv_state_reader *reader = NULL;
	BASE_CLEANUP(saved_fini) struct saved saved = { .vcpus = NULL };
	struct hv_ram_report report;
	int r = hv_state_reader_open(fd, &reader, err);

	if (r >= 0 && !has_ram)
		r = check_no_ram(reader, err);
	if (r < 0)
		return r;
	saved.vcpus = calloc(machine->config.vcpu_count, sizeof(*saved.vcpus));
	if (saved.vcpus == NULL)
		return base_fail(err, -ENOMEM, "state of %" PRIu32 " vCPUs",
				 machine->config.vcpu_count);
	r = load_all(machine, reader, &saved, force_tsc, ret_with_services, err);
	if (r >= 0 && has_ram)
		r = hv_ram_restore(hv_partition_slat(machine->partition), machine->pool, reader,
				   &report, err);
	return r < 0 ? r : apply_all(machine, &saved, err);
}

/* After a failure the VM is never run, and the services stay quiet. */
static int take_up(struct hv_machine *machine, bool with_services, struct base_error *err)
{
	int r = with_services ? hv_machine_services_loaded(machine, err) : 0;

	if (r < 0)
		return r;
	hv_machine_services_resume(machine);
	machine->has_guest = true;
	return 0;
}

static int check_empty(const struct hv_machine *machine, struct base_error *err)
{
	if (machine->has_guest || machine->arrived)
		return base_fail(err, -EPROTO, "the VM has a guest already");
	return 0;
}

int hv_machine_restore(struct hv_machine *machine, int fd, bool force_tsc, struct base_error *err)
{
	BASE_LOCKED(&machine->change_lock);
	bool with_services = false;
	int r = check_empty(machine, err);

	if (r < 0)
		return r;
	r = restore(machine, fd, force_tsc, true, &with_services, err);
	if (r >= 0)
		r = take_up(machine, with_services, err);
	return r < 0 ? base_fail_within(err, r, "saved state") : 0;
}

int hv_machine_arrive(struct hv_machine *machine, int fd, bool force_tsc, struct base_error *err)
{
	BASE_LOCKED(&machine->change_lock);
	int r = check_empty(machine, err);

	if (r < 0)
		return r;
	/* Whoever releases the user's hold does not run it before it is ours. */
	(void)hv_partition_hold(machine->partition, HV_HOLD_MIGRATE);
	r = restore(machine, fd, force_tsc, false, &machine->arrived_with_services, err);
	if (r < 0)
		return base_fail_within(err, r, "state of the move");
	machine->arrived = true;
	return 0;
}

int hv_machine_arrive_finish(struct hv_machine *machine, struct base_error *err)
{
	BASE_LOCKED(&machine->change_lock);
	int r;

	if (!machine->arrived)
		return base_fail(err, -EPROTO, "no VM has arrived");
	machine->arrived = false; /* done or never */
	r = take_up(machine, machine->arrived_with_services, err);
	if (r < 0)
		return base_fail_within(err, r, "state of the move");
	hv_partition_release(machine->partition, HV_HOLD_MIGRATE);
	return 0;
}
