/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Where the Hyper-V interface meets the machine: exits, interrupts, its clock.
 */
#include <fcntl.h>
#include <inttypes.h>
#include <string.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "hypervisor/machine_priv.h"
#include "hypervisor/synic_priv.h"

#define TSC_NEAR_US 200 /* many times what reading a TSC takes */

static bool on_may_run(void *context)
{
	return hv_machine_may_act(context);
}

static void on_vcpu_event(void *context, uint32_t vcpu, enum hv_vcpu_event event, const char *text)
{
	(void)vcpu;
	hv_machine_vcpu_event(context, event, text);
}

static int on_msr_read(void *context, uint32_t vcpu, uint32_t msr, uint64_t *ret_value)
{
	struct hv_machine *machine = context;

	return hv_hyperv_read_msr(machine->hyperv, vcpu, msr, ret_value);
}

static int on_msr_write(void *context, uint32_t vcpu, uint32_t msr, uint64_t value)
{
	struct hv_machine *machine = context;

	return hv_hyperv_write_msr(machine->hyperv, vcpu, msr, value);
}

static uint32_t on_hypercall(void *context, const struct hv_hypercall *call)
{
	struct hv_machine *machine = context;

	return hv_hyperv_call(machine->hyperv, call);
}

const struct hv_partition_ops hv_machine_partition_ops = {
	.vcpu_event = on_vcpu_event,
	.may_run = on_may_run,
	.msr_read = on_msr_read,
	.msr_write = on_msr_write,
	.hypercall = on_hypercall,
};

static void on_interrupt(void *context, uint32_t vp, uint8_t vector)
{
	struct hv_machine *machine = context;

	hv_partition_interrupt(machine->partition, vp, vector);
}

static void on_msr_reset(void *context)
{
	hv_machine_request_reset(context, "guest asked for a reset by MSR");
}

static void on_panic(void *context, const char *text)
{
	struct hv_machine *machine = context;

	machine->ops->event(machine->context, HV_EVENT_GUEST_PANIC, text);
}

static const struct hv_synic_ops synic_ops = { .interrupt = on_interrupt };
static const struct hv_hyperv_ops hyperv_ops = { .reset = on_msr_reset, .panic = on_panic };

/* A host that does not trust its TSC gives the guest no clock made of it. */
static bool host_keeps_time_by_tsc(void)
{
	static const char *const good[] = { "tsc\n", "kvm-clock\n",
					    "hyperv_clocksource_tsc_page\n" };
	BASE_CLOSE int fd = open("/sys/devices/system/clocksource/clocksource0/current_clocksource",
				 O_RDONLY | O_CLOEXEC);
	char name[64] = "";

	if (fd < 0 || read(fd, name, sizeof(name) - 1) <= 0)
		return false;
	for (size_t i = 0; i < sizeof(good) / sizeof(good[0]); i++)
		if (strcmp(name, good[i]) == 0)
			return true;
	return false;
}

int hv_machine_hyperv_new(struct hv_machine *machine, struct base_error *err)
{
	int r = hv_synic_new(hv_partition_slat(machine->partition), machine->config.vcpu_count,
			     &synic_ops, machine, &machine->synic, err);

	if (r < 0)
		return r;
	machine->tsc_is_host_time = host_keeps_time_by_tsc();
	machine->host_tsc_khz = machine->guest_tsc_khz; /* nobody has scaled it yet */
	return hv_hyperv_new(hv_partition_slat(machine->partition), machine->synic,
			     machine->config.vcpu_count, &hyperv_ops, machine, &machine->hyperv,
			     err);
}

void hv_machine_hyperv_free(struct hv_machine *machine)
{
	hv_partition_free(machine->partition); /* its threads use what is freed here */
	hv_hyperv_free(machine->hyperv);
	hv_synic_free(machine->synic);
}

int hv_machine_hyperv_reset(struct hv_machine *machine, struct base_error *err)
{
	hv_hyperv_reset(machine->hyperv);
	hv_synic_reset(machine->synic);
	return hv_machine_hyperv_clock(machine, 0, err);
}

/* Every vCPU's TSC when the host's reads @host_tsc; false where they are not one clock. */
static int read_tscs(const struct hv_machine *machine, uint64_t host_tsc, uint64_t *ret_tsc,
		     bool *ret_is_one, struct base_error *err)
{
	uint64_t near_ticks = machine->guest_tsc_khz / 1000 * TSC_NEAR_US;
	uint64_t first = host_tsc;

	*ret_is_one = true;
	for (uint32_t i = 0; machine->tsc_is_ours && i < machine->config.vcpu_count; i++) {
		uint64_t tsc = 0;
		bool is_exact = true;
		int r = hv_vcpu_tsc_at(hv_partition_vcpu_fd(machine->partition, i), host_tsc, &tsc,
				       &is_exact, err);

		if (r < 0)
			return base_fail_within(err, r, "vcpu %" PRIu32, i);
		if (i == 0)
			first = tsc;
		else if (is_exact ? tsc != first : tsc - first + near_ticks > 2 * near_ticks)
			*ret_is_one = false;
	}
	*ret_tsc = first;
	return 0;
}

int hv_machine_hyperv_clock(struct hv_machine *machine, uint64_t reference, struct base_error *err)
{
	struct hv_hyperv_clock clock = {
		.host_tsc = base_tsc_read(),
		.boot_ns = base_clock_boot_ns(&base_clock_system),
		.host_hz = machine->host_tsc_khz * 1000,
		.tsc_hz = machine->guest_tsc_khz * 1000,
		.clock = &base_clock_system,
	};
	bool is_one = false;
	int r = read_tscs(machine, clock.host_tsc, &clock.guest_tsc, &is_one, err);

	if (r < 0)
		return r;
	clock.is_trusted = machine->tsc_is_host_time && is_one;
	hv_hyperv_set_clock(machine->hyperv, &clock, reference);
	return 0;
}

struct hv_synic *hv_machine_synic(struct hv_machine *machine)
{
	return machine->synic;
}

uint64_t hv_machine_reference_time(struct hv_machine *machine)
{
	return hv_hyperv_reference_time(machine->hyperv);
}

void hv_machine_set_hypercalls(struct hv_machine *machine, const struct hv_hypercall_ops *ops,
			       void *context)
{
	hv_hyperv_set_calls(machine->hyperv, ops, context);
}
