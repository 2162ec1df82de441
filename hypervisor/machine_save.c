/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Save the whole machine.  Sections: docs/hypervisor/saved-state.md.
 */
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "base/bytes.h"
#include "base/cleanup.h"
#include "base/file.h"
#include "hypervisor/machine_priv.h"
#include "hypervisor/machine_sections.h"
#include "hypervisor/state_file.h"
#include "hypervisor/synic_priv.h"

#define TSC_NEAR_US 200 /* many times what reading a TSC takes */

BASE_DEFINE_FREEP(struct hv_state_writer, hv_state_writer_free);

static int put_buffer(struct hv_state_writer *writer, const char *name, uint32_t instance,
		      uint32_t version, struct base_buffer *buffer, struct base_error *err)
{
	struct hv_state_key key = { .name = name, .instance = instance, .version = version };
	int r;

	if (buffer->failed)
		r = base_fail(err, -ENOMEM, "section '%s'", name);
	else
		r = hv_state_put(writer, &key, buffer->data, buffer->size_bytes, err);
	base_buffer_fini(buffer);
	return r;
}

static struct hv_machine_section describe(const struct hv_machine *machine)
{
	struct hv_machine_section section = {
		.memory_bytes = machine->config.memory_bytes,
		.vcpu_count = machine->config.vcpu_count,
		.cpu_model = (uint32_t)machine->config.cpu,
		.has_test_page = machine->test_page != NULL,
	};

	memcpy(section.name, machine->config.name, sizeof(section.name));
	return section;
}

/*
 * Every vCPU's TSC at one reading of the host's.  Vcpus that are measured (scaled TSC) and
 * are nearer to the first than two ioctls take mean the same.
 */
static int read_tscs(const struct hv_machine *machine, struct hv_time_section *time,
		     struct base_error *err)
{
	uint64_t near_ticks = machine->guest_tsc_khz / 1000 * TSC_NEAR_US;
	uint64_t host_tsc = base_tsc_read();

	for (uint32_t i = 0; i < time->vcpu_count; i++) {
		bool is_exact = true;
		int r = 0;

		time->tsc[i] = host_tsc;
		if (machine->tsc_is_ours)
			r = hv_vcpu_tsc_at(hv_partition_vcpu_fd(machine->partition, i), host_tsc,
					   &time->tsc[i], &is_exact, err);
		if (r < 0)
			return base_fail_within(err, r, "vcpu %" PRIu32, i);
		if (!is_exact && time->tsc[i] - time->tsc[0] + near_ticks <= 2 * near_ticks)
			time->tsc[i] = time->tsc[0];
	}
	return 0;
}

/* All clocks in one go, so that they belong to one instant. */
static int read_time(struct hv_machine *machine, struct hv_time_section *ret_time,
		     struct base_error *err)
{
	struct hv_time_section time = { .vcpu_count = machine->config.vcpu_count };
	int r = read_tscs(machine, &time, err);

	if (r < 0)
		return r;
	memcpy(time.boot_id, machine->boot_id, sizeof(time.boot_id));
	time.host_real_ns = base_clock_real_ns(&base_clock_system);
	time.host_boot_ns = base_clock_boot_ns(&base_clock_system);
	time.guest_ns = hv_guest_time_ns(&machine->time);
	time.tsc_khz = machine->guest_tsc_khz;
	time.host_sets_date = hv_machine_services_set_date(machine);
	*ret_time = time;
	return 0;
}

static int save_vcpus(struct hv_machine *machine, struct hv_state_writer *writer,
		      struct base_error *err)
{
	BASE_FREE struct hv_vcpu_state *state = malloc(sizeof(*state));

	if (state == NULL)
		return base_fail(err, -ENOMEM, "vcpu state");
	for (uint32_t i = 0; i < machine->config.vcpu_count; i++) {
		struct base_buffer buffer = { .data = NULL };
		int r = hv_vcpu_state_get(machine->fds.kvm_fd,
					  hv_partition_vcpu_fd(machine->partition, i), state, err);

		if (r < 0)
			return base_fail_within(err, r, "vcpu %" PRIu32, i);
		hv_vcpu_state_encode(state, &buffer);
		r = put_buffer(writer, "vcpu", i, HV_VCPU_STATE_VERSION, &buffer, err);
		if (r < 0)
			return r;
	}
	return 0;
}

static int save_devices(struct hv_machine *machine, struct hv_state_writer *writer,
			struct base_error *err)
{
	int r = 0;

	for (size_t i = 0; i < hv_platform_section_count() && r >= 0; i++) {
		struct hv_platform_section section = hv_platform_section(i);
		struct base_buffer buffer = { .data = NULL };

		hv_platform_save(machine->platform, i, &buffer);
		r = put_buffer(writer, section.name, 0, section.version, &buffer, err);
	}
	if (r >= 0 && machine->test_page != NULL) {
		struct base_buffer buffer = { .data = NULL };

		hv_test_page_save(machine->test_page, &buffer);
		r = put_buffer(writer, "test-page", 0, HV_TEST_PAGE_VERSION, &buffer, err);
	}
	return r;
}

static int save_hyperv(struct hv_machine *machine, struct hv_state_writer *writer,
		       struct base_error *err)
{
	struct base_buffer buffer = { .data = NULL };
	int r;

	hv_hyperv_save(machine->hyperv, &buffer);
	r = put_buffer(writer, "hyperv", 0, HV_HYPERV_VERSION, &buffer, err);
	if (r < 0)
		return r;
	hv_synic_save(machine->synic, &buffer);
	return put_buffer(writer, "synic", 0, HV_SYNIC_VERSION, &buffer, err);
}

static int save_services(struct hv_machine *machine, struct hv_state_writer *writer,
			 struct base_error *err)
{
	uint32_t count = hv_machine_service_sections(machine);
	int r = 0;

	for (uint32_t i = 0; i < count && r >= 0; i++) {
		const struct hv_machine_service *service;
		struct base_buffer buffer = { .data = NULL };
		uint32_t own;
		struct hv_service_section section =
			hv_machine_service_section(machine, i, &service, &own);

		r = service->ops->save(service->service, own, &buffer, err);
		if (r >= 0)
			r = put_buffer(writer, section.name, section.instance, section.version,
				       &buffer, err);
		else
			base_buffer_fini(&buffer);
	}
	return r;
}

static int save_chips(struct hv_machine *machine, struct hv_state_writer *writer,
		      struct base_error *err)
{
	struct base_buffer buffer = { .data = NULL };
	struct hv_chip_state chips;
	int r = hv_chip_state_get(hv_partition_vm_fd(machine->partition), &chips, err);

	if (r < 0)
		return r;
	hv_chip_state_encode(&chips, &buffer);
	return put_buffer(writer, "chips", 0, HV_CHIP_STATE_VERSION, &buffer, err);
}

static int save_small(struct hv_machine *machine, struct hv_state_writer *writer,
		      struct base_error *err)
{
	struct hv_machine_section description = describe(machine);
	struct base_buffer buffer = { .data = NULL };
	struct hv_time_section time;
	int r;

	hv_machine_section_encode(&description, &buffer);
	r = put_buffer(writer, "machine", 0, HV_MACHINE_SECTION_VERSION, &buffer, err);
	if (r >= 0) {
		hv_cpuid_encode(&machine->cpuid, &buffer);
		r = put_buffer(writer, "cpuid", 0, HV_CPUID_SECTION_VERSION, &buffer, err);
	}
	/* Chips first: a PIT tick that comes between the two is then seen twice, not never. */
	if (r >= 0)
		r = save_chips(machine, writer, err);
	if (r >= 0)
		r = save_vcpus(machine, writer, err);
	if (r >= 0)
		r = save_devices(machine, writer, err);
	if (r >= 0)
		r = save_hyperv(machine, writer, err);
	if (r >= 0)
		r = save_services(machine, writer, err);
	/* Last: what elapses after this instant is what "really elapsed". */
	if (r >= 0)
		r = read_time(machine, &time, err);
	if (r >= 0) {
		hv_time_section_encode(&time, &buffer);
		r = put_buffer(writer, "time", 0, HV_TIME_SECTION_VERSION, &buffer, err);
	}
	return r;
}

static bool may_write(void *context)
{
	return hv_machine_may_act(context);
}

/* Whether there is anything to save, and all of it in what is saved. */
static int check_savable(const struct hv_machine *machine, struct base_error *err)
{
	uint32_t holds = hv_partition_holds(machine->partition);

	if ((holds & HV_HOLD_STOPPED) != 0)
		return base_fail(err, -EPROTO, "the VM has stopped");
	if ((holds & HV_HOLD_RESET) != 0)
		return base_fail(err, -EAGAIN, "the VM is being reset");
	if (!machine->has_guest)
		return base_fail(err, -EPROTO, "the VM has no guest yet");
	return 0;
}

static int write_state(struct hv_machine *machine, int fd, struct hv_save_report *report,
		       struct base_error *err)
{
	BASE_CLEANUP(hv_state_writer_freep) struct hv_state_writer *writer = NULL;
	struct stat status;
	int r = hv_state_writer_new(fd, &writer, err);

	if (r < 0)
		return r;
	hv_state_writer_gate(writer, may_write, machine);
	r = save_small(machine, writer, err);
	if (r < 0)
		return r;
	r = hv_ram_save(hv_partition_slat(machine->partition), machine->pool, writer, &report->ram,
			err);
	if (r < 0)
		return r;
	r = hv_state_finish(writer, err);
	if (r < 0)
		return r;
	if (fstat(fd, &status) == 0)
		report->file_bytes = (uint64_t)status.st_size;
	return 0;
}

static int save_held(struct hv_machine *machine, int directory_fd, const char *name,
		     struct hv_save_report *report, bool *ret_quiet, struct base_error *err)
{
	struct base_new_file file;
	int r = check_savable(machine, err);

	if (r < 0)
		return r;
	r = base_new_file_begin(directory_fd, name, &file, err);
	if (r < 0)
		return r == -ETIMEDOUT ? -EIO : r; /* no file: that is known */
	r = hv_machine_services_quiesce(machine, err);
	if (r < 0) {
		base_new_file_abort(&file);
		return r;
	}
	*ret_quiet = true;
	r = write_state(machine, file.fd, report, err);
	if (r >= 0 && !hv_machine_may_act(machine))
		r = base_fail(err, -EAGAIN, "the leash is not held");
	if (r < 0) {
		base_new_file_abort(&file);
		return r == -ETIMEDOUT ? -EIO : r; /* no file: that is known */
	}
	return base_new_file_commit(&file, err);
}

static int save_locked(struct hv_machine *machine, int directory_fd, const char *name, bool go_on,
		       struct hv_save_report *report, struct base_error *err)
{
	BASE_LOCKED(&machine->change_lock);
	bool is_quiet = false;
	int r;

	atomic_store(&machine->pause_ns, hv_partition_hold(machine->partition, HV_HOLD_SAVE));
	r = save_held(machine, directory_fd, name, report, &is_quiet, err);
	/* Not told to go on, it belongs to the file from here: it must not run twice. */
	if (r >= 0 && !go_on)
		(void)hv_partition_hold(machine->partition, HV_HOLD_STOPPED);
	/* Whether there is a file is unknown: then it must not run by itself. */
	if (r == -ETIMEDOUT) {
		(void)hv_partition_hold(machine->partition, HV_HOLD_USER);
		if (atomic_exchange(&machine->quiet_for_user, true))
			hv_machine_services_resume(machine); /* counted once */
	} else if (is_quiet && (r < 0 || go_on)) {
		hv_machine_services_resume(machine);
	}
	hv_partition_release(machine->partition, HV_HOLD_SAVE);
	return r;
}

int hv_machine_save(struct hv_machine *machine, int directory_fd, const char *name, bool go_on,
		    struct hv_save_report *ret_report, struct base_error *err)
{
	uint64_t begin_ns = base_clock_boot_ns(&base_clock_system);
	struct hv_save_report report = { .total_ns = 0 };
	int r = save_locked(machine, directory_fd, name, go_on, &report, err);

	machine->ops->console_room(machine->context); /* what was typed meanwhile was refused */
	if (r < 0)
		return base_fail_within(err, r, "save to '%s'", name);
	report.total_ns = base_clock_boot_ns(&base_clock_system) - begin_ns;
	*ret_report = report;
	return 0;
}

int hv_machine_state_save(struct hv_machine *machine, int fd, struct base_error *err)
{
	BASE_CLEANUP(hv_state_writer_freep) struct hv_state_writer *writer = NULL;
	BASE_LOCKED(&machine->change_lock);
	int r;

	if (hv_partition_holds(machine->partition) == 0 || machine->quiesce_depth == 0)
		return base_fail(err, -EPROTO, "the VM runs: expected it quiesced");
	r = check_savable(machine, err);
	if (r >= 0)
		r = hv_state_writer_new(fd, &writer, err);
	if (r < 0)
		return r;
	hv_state_writer_gate(writer, may_write, machine);
	r = save_small(machine, writer, err);
	return r < 0 ? r : hv_state_finish(writer, err);
}
