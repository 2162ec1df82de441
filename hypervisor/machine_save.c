/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Save and restore of the whole machine.  Sections: docs/hypervisor/saved-state.md.
 * Restore decodes and checks everything but RAM before it changes anything.
 */
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "base/bytes.h"
#include "base/cleanup.h"
#include "base/file.h"
#include "hypervisor/cpu_check.h"
#include "hypervisor/machine_priv.h"
#include "hypervisor/machine_sections.h"
#include "hypervisor/ram_codec.h"
#include "hypervisor/state_file.h"

BASE_DEFINE_FREEP(struct hv_state_writer, hv_state_writer_free);
BASE_DEFINE_FREEP(struct hv_state_reader, hv_state_reader_free);

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

/* All clocks in one go, so that they belong to one instant. */
static int read_time(struct hv_machine *machine, struct hv_time_section *ret_time,
		     struct base_error *err)
{
	struct hv_time_section time = { .vcpu_count = machine->config.vcpu_count };

	memcpy(time.boot_id, machine->boot_id, sizeof(time.boot_id));
	for (uint32_t i = 0; i < time.vcpu_count; i++) {
		int r = hv_vcpu_tsc_get(hv_partition_vcpu_fd(machine->partition, i), &time.tsc[i],
					err);

		if (r < 0)
			return base_fail_within(err, r, "vcpu %" PRIu32, i);
	}
	time.host_real_ns = base_clock_real_ns(&base_clock_system);
	time.host_boot_ns = base_clock_boot_ns(&base_clock_system);
	time.guest_ns = hv_guest_time_ns(&machine->time);
	time.tsc_khz = machine->host.tsc_khz;
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
	/* Last: what elapses after this instant is what "really elapsed". */
	if (r >= 0)
		r = read_time(machine, &time, err);
	if (r >= 0) {
		hv_time_section_encode(&time, &buffer);
		r = put_buffer(writer, "time", 0, HV_TIME_SECTION_VERSION, &buffer, err);
	}
	return r;
}

static int write_state(struct hv_machine *machine, int fd, struct hv_save_report *report,
		       struct base_error *err)
{
	BASE_CLEANUP(hv_state_writer_freep) struct hv_state_writer *writer = NULL;
	struct stat status;
	int r = hv_state_writer_new(fd, &writer, err);

	if (r < 0)
		return r;
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
		     struct hv_save_report *report, struct base_error *err)
{
	struct base_new_file file;
	uint32_t holds = hv_partition_holds(machine->partition);
	int r;

	if ((holds & HV_HOLD_STOPPED) != 0)
		return base_fail(err, -EPROTO, "the VM has stopped");
	if ((holds & HV_HOLD_RESET) != 0)
		return base_fail(err, -EAGAIN, "the VM is being reset");
	if (!machine->has_guest)
		return base_fail(err, -EPROTO, "the VM has no guest yet");
	r = base_new_file_begin(directory_fd, name, &file, err);
	if (r < 0)
		return r;
	r = write_state(machine, file.fd, report, err);
	if (r < 0) {
		base_new_file_abort(&file);
		return r;
	}
	return base_new_file_commit(&file, err);
}

static int save_locked(struct hv_machine *machine, int directory_fd, const char *name, bool go_on,
		       struct hv_save_report *report, struct base_error *err)
{
	BASE_LOCKED(&machine->change_lock);
	int r;

	atomic_store(&machine->pause_ns, hv_partition_hold(machine->partition, HV_HOLD_SAVE));
	r = save_held(machine, directory_fd, name, report, err);
	/* A saved VM that is not told to go on belongs to the file from here. */
	if (r >= 0 && !go_on)
		(void)hv_partition_hold(machine->partition, HV_HOLD_USER);
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

/* Fetch one section, checked against the newest version we know, and decode all of it. */
static int decode_section(const struct hv_state_reader *reader, const char *name, uint32_t instance,
			  uint32_t newest,
			  int (*decode)(struct base_reader *in, uint32_t version, void *to,
					struct base_error *err),
			  void *to, struct base_error *err)
{
	const struct hv_state_section *section = hv_state_find(reader, name, instance);
	BASE_FREE uint8_t *payload = NULL;
	struct base_reader in;
	int r;

	if (section == NULL)
		return base_fail(err, -EBADMSG, "section '%s' %" PRIu32 " is missing", name,
				 instance);
	if (section->version > newest)
		return base_fail(err, -ENOTSUP,
				 "section '%s': version %" PRIu32 ", expected at most %" PRIu32,
				 name, section->version, newest);
	r = hv_state_get(reader, section, &payload, err);
	if (r < 0)
		return r;
	in = base_reader_over(payload, section->payload_bytes);
	r = decode(&in, section->version, to, err);
	if (r < 0)
		return base_fail_within(err, r, "section '%s' %" PRIu32, name, instance);
	if (base_reader_left(&in) != 0)
		return base_fail(err, -EBADMSG, "section '%s' %" PRIu32 ": %zu bytes too many",
				 name, instance, base_reader_left(&in));
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
	if (saved->has_test_page != (machine->test_page != NULL))
		return base_fail(err, -EINVAL,
				 "test-page: the saved VM has it %s, the configuration %s",
				 saved->has_test_page ? "on" : "off",
				 machine->test_page != NULL ? "on" : "off");
	return 0;
}

static int check_cpu(const struct hv_machine *machine, const struct hv_cpuid_table *saved,
		     struct base_error *err)
{
	struct hv_cpu_report report;
	char text[384];

	if (hv_cpu_check(saved, &machine->supported, &report) == 0)
		return 0;
	return base_fail(err, -ENOTSUP, "this host cannot run the saved VM: %s",
			 hv_cpu_report_text(&report, text, sizeof(text)));
}

/* What this program can read: anything else in the file is refused before it matters. */
static int check_known(const struct hv_machine *machine, const struct hv_state_reader *reader,
		       struct base_error *err)
{
	struct hv_state_known known[16] = {
		{ "machine", HV_MACHINE_SECTION_VERSION, 1 },
		{ "cpuid", HV_CPUID_SECTION_VERSION, 1 },
		{ "time", HV_TIME_SECTION_VERSION, 1 },
		{ "chips", HV_CHIP_STATE_VERSION, 1 },
		{ "vcpu", HV_VCPU_STATE_VERSION, machine->config.vcpu_count },
		{ "ram", HV_RAM_VERSION, 1 },
		{ "test-page", HV_TEST_PAGE_VERSION, 1 },
	};
	size_t count = 7;

	for (size_t i = 0; i < hv_platform_section_count(); i++) {
		struct hv_platform_section section = hv_platform_section(i);

		base_assert(count < sizeof(known) / sizeof(known[0]));
		known[count++] = (struct hv_state_known){ section.name, section.version, 1 };
	}
	return hv_state_check_known(reader, known, count, err);
}

static int decode_all(struct hv_machine *machine, const struct hv_state_reader *reader,
		      struct saved *saved, struct base_error *err)
{
	int r = decode_section(reader, "machine", 0, HV_MACHINE_SECTION_VERSION, decode_machine,
			       &saved->machine, err);

	if (r >= 0)
		r = check_description(machine, &saved->machine, err);
	if (r >= 0)
		r = check_known(machine, reader, err);
	if (r >= 0)
		r = decode_section(reader, "cpuid", 0, HV_CPUID_SECTION_VERSION, decode_cpuid,
				   &saved->cpuid, err);
	if (r >= 0)
		r = check_cpu(machine, &saved->cpuid, err);
	if (r >= 0)
		r = decode_section(reader, "time", 0, HV_TIME_SECTION_VERSION, decode_time,
				   &saved->time, err);
	if (r >= 0 && saved->time.vcpu_count != machine->config.vcpu_count)
		r = base_fail(err, -EBADMSG, "section 'time': %" PRIu32 " vCPUs, expected %" PRIu32,
			      saved->time.vcpu_count, machine->config.vcpu_count);
	if (r >= 0)
		r = decode_section(reader, "chips", 0, HV_CHIP_STATE_VERSION, decode_chips,
				   &saved->chips, err);
	for (uint32_t i = 0; i < machine->config.vcpu_count && r >= 0; i++)
		r = decode_section(reader, "vcpu", i, HV_VCPU_STATE_VERSION, decode_vcpu,
				   &saved->vcpus[i], err);
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

static int check_tsc(const struct hv_machine *machine, const struct hv_time_section *saved,
		     bool force, struct base_error *err)
{
	uint64_t here = machine->host.tsc_khz;
	uint64_t apart = here > saved->tsc_khz ? here - saved->tsc_khz : saved->tsc_khz - here;

	/* Crystals differ by parts per million; 250 is what a guest's clock is disciplined over. */
	if (saved->tsc_khz != 0 && apart > saved->tsc_khz / 4000 && !force)
		return base_fail(err, -ENOTSUP,
				 "TSC: the saved VM runs at %" PRIu64 " kHz, this host at %" PRIu64
				 " kHz and cannot scale it (force to go on)",
				 saved->tsc_khz, here);
	if (machine->host.tsc_offset_honoured || force)
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

/* After the vCPU state, which sets the rate; then a TSC deadline can be armed against the TSC. */
static int apply_time(struct hv_machine *machine, const struct hv_time_section *saved,
		      struct base_error *err)
{
	uint64_t gone_ns = elapsed_ns(machine, saved);
	uint64_t host_tsc = base_tsc_read();

	machine->time.boot_offset_ns =
		(int64_t)(saved->guest_ns + gone_ns - base_clock_boot_ns(&base_clock_system));
	for (uint32_t i = 0; i < saved->vcpu_count && machine->host.tsc_offset_honoured; i++) {
		int r = hv_vcpu_tsc_put(hv_partition_vcpu_fd(machine->partition, i),
					saved->tsc[i] + ticks_of(gone_ns, machine->host.tsc_khz),
					host_tsc, err);

		if (r < 0)
			return base_fail_within(err, r, "vcpu %" PRIu32, i);
	}
	return 0;
}

static int apply_devices(struct hv_machine *machine, const struct hv_state_reader *reader,
			 struct base_error *err);

static int apply_all(struct hv_machine *machine, const struct hv_state_reader *reader,
		     const struct saved *saved, struct base_error *err)
{
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
		r = apply_time(machine, &saved->time, err);
	for (uint32_t i = 0; i < machine->config.vcpu_count && r >= 0; i++)
		r = hv_vcpu_timer_put(hv_partition_vcpu_fd(machine->partition, i), &saved->vcpus[i],
				      err);
	if (r >= 0)
		r = apply_devices(machine, reader, err);
	if (r < 0)
		return r;
	machine->cpuid = saved->cpuid;
	machine->has_guest = true;
	return 0;
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

static int apply_devices(struct hv_machine *machine, const struct hv_state_reader *reader,
			 struct base_error *err)
{
	struct device_load load = { .machine = machine };
	int r = 0;

	for (load.index = 0; load.index < hv_platform_section_count() && r >= 0; load.index++) {
		struct hv_platform_section section = hv_platform_section(load.index);

		r = decode_section(reader, section.name, 0, section.version, load_device, &load,
				   err);
	}
	if (r >= 0 && machine->test_page != NULL)
		r = decode_section(reader, "test-page", 0, HV_TEST_PAGE_VERSION, load_device, &load,
				   err);
	if (r >= 0)
		hv_platform_loaded(machine->platform);
	return r;
}

static int restore(struct hv_machine *machine, int fd, bool force_tsc, struct base_error *err)
{
	BASE_CLEANUP(hv_state_reader_freep) struct hv_state_reader *reader = NULL;
	BASE_CLEANUP(saved_fini) struct saved saved = { .vcpus = NULL };
	struct hv_ram_report report;
	int r = hv_state_reader_open(fd, &reader, err);

	if (r < 0)
		return r;
	saved.vcpus = calloc(machine->config.vcpu_count, sizeof(*saved.vcpus));
	if (saved.vcpus == NULL)
		return base_fail(err, -ENOMEM, "state of %" PRIu32 " vCPUs",
				 machine->config.vcpu_count);
	r = decode_all(machine, reader, &saved, err);
	if (r < 0)
		return r;
	r = check_tsc(machine, &saved.time, force_tsc, err);
	if (r < 0)
		return r;
	r = hv_ram_restore(hv_partition_slat(machine->partition), machine->pool, reader, &report,
			   err);
	if (r < 0)
		return r;
	return apply_all(machine, reader, &saved, err);
}

int hv_machine_restore(struct hv_machine *machine, int fd, bool force_tsc, struct base_error *err)
{
	BASE_LOCKED(&machine->change_lock);
	int r;

	if (machine->has_guest)
		return base_fail(err, -EPROTO, "the VM has a guest already");
	r = restore(machine, fd, force_tsc, err);
	return r < 0 ? base_fail_within(err, r, "saved state") : 0;
}
