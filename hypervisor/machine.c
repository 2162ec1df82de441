/* SPDX-License-Identifier: Apache-2.0 */
#include "hypervisor/machine.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "hypervisor/cpu_check.h"
#include "hypervisor/cpu_topology.h"
#include "hypervisor/machine_priv.h"

#define POOL_THREADS_MAX 8u /* more do not make a save faster than the disk */

static void on_power_off(void *context)
{
	struct hv_machine *machine = context;

	hv_partition_request(machine->partition, HV_HOLD_STOPPED);
	machine->ops->event(machine->context, HV_EVENT_POWER_OFF, "guest powered off");
}

void hv_machine_request_reset(struct hv_machine *machine, const char *text)
{
	hv_partition_request(machine->partition, HV_HOLD_RESET);
	machine->ops->event(machine->context, HV_EVENT_RESET_REQUEST, text);
}

static void on_reset(void *context)
{
	hv_machine_request_reset(context, "guest asked for a reset");
}

static void on_console_out(void *context, const uint8_t *bytes, size_t size_bytes)
{
	struct hv_machine *machine = context;

	machine->ops->console_out(machine->context, bytes, size_bytes);
}

static void on_console_room(void *context)
{
	struct hv_machine *machine = context;

	machine->ops->console_room(machine->context);
}

static void on_irq(void *context, uint32_t gsi, int level)
{
	struct hv_machine *machine = context;

	hv_partition_irq(machine->partition, gsi, level);
}

static const struct hv_platform_ops platform_ops = {
	.power_off = on_power_off,
	.reset = on_reset,
	.console_out = on_console_out,
	.irq = on_irq,
};

/* A triple fault resets a PC, and some kernels reboot by one. */
void hv_machine_vcpu_event(struct hv_machine *machine, enum hv_vcpu_event event, const char *text)
{
	if (event == HV_VCPU_TRIPLE_FAULT) {
		hv_machine_request_reset(machine, text);
		return;
	}
	hv_partition_request(machine->partition, HV_HOLD_STOPPED);
	machine->ops->event(machine->context, HV_EVENT_CRASHED, text);
}

bool hv_machine_may_act(const struct hv_machine *machine)
{
	return machine->ops->may_act == NULL || machine->ops->may_act(machine->context);
}

int hv_machine_judge_cpu(struct hv_machine *machine, const struct hv_cpuid_table *table,
			 struct base_error *err)
{
	struct hv_cpu_report report;

	(void)hv_cpu_compare_honoured(table, &machine->host.seen, &report);
	machine->cpu_honoured = report.count == 0;
	(void)hv_cpu_report_text(&report, machine->cpu_text, sizeof(machine->cpu_text));
	if (machine->config.cpu_strict && !machine->cpu_honoured)
		return base_fail(err, -ENOTSUP, "cpu '%s' is not honoured by this host's KVM: %s",
				 hv_cpu_model_name(machine->config.cpu), machine->cpu_text);
	return 0;
}

/* Run the probe guest with the VM's table: what it sees, and what the host does to its TSC. */
static int probe_host(struct hv_machine *machine, struct base_error *err)
{
	struct hv_cpuid_table alone; /* as the probe's one processor gets it */
	int r = hv_cpuid_for_vcpu(&machine->cpuid, 0, 1, &alone, err);

	if (r >= 0)
		r = hv_host_probe(machine->fds.kvm_fd, &alone, &machine->host, err);
	if (r < 0)
		return r;
	machine->tsc_is_ours =
		machine->host.tsc_offset_honoured || machine->host.tsc_write_honoured;
	return hv_machine_judge_cpu(machine, &alone, err);
}

/* The CPUID table the VM gets, and what the guest will really see of it. */
static int choose_cpu(struct hv_machine *machine, struct base_error *err)
{
	uint64_t memory_end =
		machine->config.memory_bytes <= HV_GPA_HOLE_START
			? HV_GPA_HOLE_END
			: machine->config.memory_bytes - HV_GPA_HOLE_START + HV_GPA_HOLE_END;
	struct hv_cpu_options options = {
		.hypervisor_present = true,
		.address_bits = hv_cpu_address_bits(memory_end),
	};
	int r = hv_kvm_cpuid_supported(machine->fds.kvm_fd, &machine->supported, err);

	if (r < 0)
		return r;
	r = hv_cpu_model_apply(machine->config.cpu, &options, &machine->supported, &machine->cpuid,
			       err);
	if (r >= 0)
		r = probe_host(machine, err);
	return r < 0 ? r : hv_hyperv_cpuid(&machine->cpuid, machine->config.vcpu_count, err);
}

static int keep_power_on_state(struct hv_machine *machine, struct base_error *err)
{
	machine->guest_tsc_khz = hv_vcpu_tsc_khz(hv_partition_vcpu_fd(machine->partition, 0));
	machine->power_on = calloc(machine->config.vcpu_count, sizeof(*machine->power_on));
	if (machine->power_on == NULL)
		return base_fail(err, -ENOMEM, "state of %" PRIu32 " vCPUs",
				 machine->config.vcpu_count);
	for (uint32_t i = 0; i < machine->config.vcpu_count; i++) {
		int r = hv_vcpu_state_get(machine->fds.kvm_fd,
					  hv_partition_vcpu_fd(machine->partition, i),
					  &machine->power_on[i], err);

		if (r < 0)
			return base_fail_within(err, r, "vcpu %" PRIu32, i);
	}
	return hv_chip_state_get(hv_partition_vm_fd(machine->partition), &machine->power_on_chips,
				 err);
}

static void read_boot_id(struct hv_machine *machine)
{
	BASE_CLOSE int fd = open("/proc/sys/kernel/random/boot_id", O_RDONLY | O_CLOEXEC);
	char text[37] = "";

	if (fd < 0 || read(fd, text, 36) != 36)
		return;
	for (unsigned int in = 0, out = 0; in < 36 && out < sizeof(machine->boot_id); in += 2) {
		char pair[3] = { 0 };

		in += text[in] == '-';
		pair[0] = text[in];
		pair[1] = text[in + 1];
		machine->boot_id[out++] = (uint8_t)strtoul(pair, NULL, 16);
	}
}

static int build_devices(struct hv_machine *machine, struct base_error *err)
{
	int r = hv_iobus_new(&machine->bus, err);

	if (r < 0)
		return r;
	machine->time.clock = &base_clock_system;
	machine->time.boot_offset_ns = -(int64_t)base_clock_boot_ns(&base_clock_system);
	r = hv_platform_new(machine->bus, &platform_ops, machine, &machine->time,
			    &machine->platform, err);
	if (r < 0)
		return r;
	hv_platform_on_console_room(machine->platform, on_console_room, machine);
	if (machine->config.test_page)
		r = hv_test_page_new(machine->bus, &machine->test_page, err);
	return r;
}

static int build(struct hv_machine *machine, struct base_error *err)
{
	uint32_t threads = base_cpu_count();
	struct hv_partition_opts opts = {
		.kvm_fd = machine->fds.kvm_fd,
		.vcpu_count = machine->config.vcpu_count,
		.cpuid = &machine->cpuid,
		.holds = HV_HOLD_USER,
		.registers_by_call = machine->config.registers_by_call,
	};
	int r = choose_cpu(machine, err);

	if (r < 0)
		return r;
	r = hv_memory_new(machine->config.memory_bytes, machine->config.backing, &machine->memory,
			  err);
	if (r < 0)
		return r;
	r = hv_memory_reserve(machine->memory, err);
	if (r < 0)
		return r;
	r = build_devices(machine, err);
	if (r < 0)
		return r;
	r = base_pool_new(threads < POOL_THREADS_MAX ? threads : POOL_THREADS_MAX, "mover",
			  &machine->pool, err);
	if (r < 0)
		return r;
	opts.memory = machine->memory;
	opts.bus = machine->bus;
	r = hv_partition_new(&opts, &hv_machine_partition_ops, machine, &machine->partition, err);
	if (r < 0)
		return r;
	read_boot_id(machine);
	r = keep_power_on_state(machine, err);
	return r < 0 ? r : hv_machine_hyperv_new(machine, err);
}

BASE_DEFINE_FREEP(struct hv_machine, hv_machine_free);

int hv_machine_new(const struct hv_machine_config *config, const struct hv_machine_fds *fds,
		   const struct hv_machine_ops *ops, void *context, struct hv_machine **ret_machine,
		   struct base_error *err)
{
	BASE_CLEANUP(hv_machine_freep) struct hv_machine *machine = NULL;
	int r;

	if (config->vcpu_count < 1 || config->vcpu_count > HV_VCPUS_MAX)
		return base_fail(err, -EINVAL, "vcpus %" PRIu32 ": expected 1 to %u",
				 config->vcpu_count, HV_VCPUS_MAX);
	machine = calloc(1, sizeof(*machine));
	if (machine == NULL)
		return base_fail(err, -ENOMEM, "machine");
	(void)pthread_mutex_init(&machine->change_lock, NULL);
	machine->config = *config;
	machine->fds = *fds;
	machine->ops = ops;
	machine->context = context;
	r = build(machine, err);
	if (r < 0)
		return r;
	*ret_machine = base_take(&machine);
	return 0;
}

void hv_machine_end(struct hv_machine *machine)
{
	BASE_LOCKED(&machine->change_lock);

	(void)hv_partition_hold(machine->partition, HV_HOLD_STOPPED);
	hv_machine_services_end(machine);
}

void hv_machine_free(struct hv_machine *machine)
{
	if (machine == NULL)
		return;
	/* safety: the services' loops run on, and what they write to and signal is freed next. */
	if (machine->service_count > 0)
		hv_machine_end(machine);
	hv_machine_hyperv_free(machine);
	hv_test_page_free(machine->test_page);
	hv_platform_free(machine->platform);
	hv_iobus_free(machine->bus);
	base_pool_free(machine->pool);
	hv_memory_free(machine->memory);
	free(machine->power_on);
	(void)pthread_mutex_destroy(&machine->change_lock);
	free(machine);
}

int hv_machine_throttle(struct hv_machine *machine, const uint32_t *permille,
			struct base_error *err)
{
	return hv_partition_throttle(machine->partition, permille, err);
}

bool hv_machine_writers(struct hv_machine *machine, uint64_t *ret_faults)
{
	return hv_partition_faults(machine->partition, ret_faults);
}

int hv_machine_hold(struct hv_machine *machine, enum hv_hold hold, struct base_error *err)
{
	/* Also after STOPPED, which is only requested: others may still be in the guest. */
	atomic_store(&machine->pause_ns, hv_partition_hold(machine->partition, (uint32_t)hold));
	if ((hv_partition_holds(machine->partition) & HV_HOLD_STOPPED) != 0)
		return base_fail(err, -EPROTO, "the VM has stopped");
	return 0;
}

int hv_machine_release(struct hv_machine *machine, enum hv_hold hold, struct base_error *err)
{
	base_assert(hold != HV_HOLD_STOPPED);
	if ((hv_partition_holds(machine->partition) & HV_HOLD_STOPPED) != 0)
		return base_fail(err, -EPROTO, "the VM has stopped");
	if (hold == HV_HOLD_USER && atomic_exchange(&machine->quiet_for_user, false)) {
		BASE_LOCKED(&machine->change_lock);

		hv_machine_services_resume(machine);
	}
	hv_partition_release(machine->partition, (uint32_t)hold);
	return 0;
}

void hv_machine_power_button(struct hv_machine *machine)
{
	{
		BASE_LOCKED(&machine->change_lock);

		hv_platform_power_button(machine->platform);
	}
	machine->ops->console_room(machine->context); /* what was typed meanwhile was refused */
}

/* A device must not change while it is saved or reset: then there is no room. */
size_t hv_machine_console_in(struct hv_machine *machine, const uint8_t *bytes, size_t size_bytes)
{
	size_t taken;

	if (pthread_mutex_trylock(&machine->change_lock) != 0)
		return 0;
	taken = hv_platform_console_in(machine->platform, bytes, size_bytes);
	(void)pthread_mutex_unlock(&machine->change_lock);
	return taken;
}

static int need_test_page(const struct hv_machine *machine, struct base_error *err)
{
	if (machine->test_page == NULL)
		return base_fail(err, -ENOTSUP, "this VM has no test page (key 'test-page')");
	return 0;
}

int hv_machine_test_get(struct hv_machine *machine, uint32_t reg, uint64_t *ret_value,
			struct base_error *err)
{
	int r = need_test_page(machine, err);

	return r < 0 ? r : hv_test_page_get(machine->test_page, reg, ret_value, err);
}

int hv_machine_test_set(struct hv_machine *machine, uint32_t reg, uint64_t value,
			struct base_error *err)
{
	int r = need_test_page(machine, err);

	return r < 0 ? r : hv_test_page_set(machine->test_page, reg, value, err);
}

int hv_machine_test_mismatches(struct hv_machine *machine, uint64_t *ret_count,
			       struct base_error *err)
{
	int r = need_test_page(machine, err);

	if (r < 0)
		return r;
	*ret_count = hv_test_page_mismatch_count(machine->test_page);
	return 0;
}

void hv_machine_status(struct hv_machine *machine, struct hv_machine_status *ret_status)
{
	struct hv_machine_status status = {
		/* Who finds the VM held decides by it, and this hold lasts milliseconds. */
		.holds = hv_partition_holds(machine->partition) & ~(uint32_t)HV_HOLD_DUMP,
		.vcpu_count = machine->config.vcpu_count,
		.memory_bytes = machine->config.memory_bytes,
		.backing = hv_memory_backing(machine->memory),
		.cpu = machine->config.cpu,
		.cpu_honoured = machine->cpu_honoured,
		.tsc_offset_honoured = machine->tsc_is_ours,
		.tsc_khz = machine->guest_tsc_khz,
		.reset_count = atomic_load(&machine->reset_count),
		.pause_ns = atomic_load(&machine->pause_ns),
		.guest_ns = hv_guest_time_ns(&machine->time),
	};

	hv_partition_exits(machine->partition, &status.exits);
	memcpy(status.cpu_text, machine->cpu_text, sizeof(status.cpu_text));
	*ret_status = status;
}

struct hv_slat *hv_machine_slat(struct hv_machine *machine)
{
	return hv_partition_slat(machine->partition);
}
