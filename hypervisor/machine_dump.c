/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The whole machine as text: hv_machine_dump().
 */
#include <inttypes.h>

#include "base/cleanup.h"
#include "hypervisor/hyperv_priv.h"
#include "hypervisor/machine_dump_priv.h"
#include "hypervisor/machine_priv.h"

static void print_holds(uint32_t holds, FILE *out)
{
	static const struct {
		enum hv_hold hold;
		const char *name;
	} names[] = {
		{ HV_HOLD_USER, "user" },       { HV_HOLD_SAVE, "save" },
		{ HV_HOLD_LEASH, "leash" },     { HV_HOLD_RESET, "reset" },
		{ HV_HOLD_MIGRATE, "migrate" }, { HV_HOLD_STOPPED, "stopped" },
	};

	fputs("machine: holds:", out);
	for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++)
		if ((holds & (uint32_t)names[i].hold) != 0)
			fprintf(out, " %s", names[i].name);
	fputs((holds & HV_HOLD_STOPPED) != 0 ? "; the guest has ended\n"
	      : holds != 0                   ? "; stands still\n"
					     : " none; runs\n",
	      out);
}

static void print_clocks(struct hv_machine *machine, FILE *out)
{
	uint64_t os_id = 0;
	uint64_t call_page = 0;
	uint64_t time_page = 0;

	(void)!hv_hyperv_read_msr(machine->hyperv, 0, HV_MSR_GUEST_OS_ID, &os_id);
	(void)!hv_hyperv_read_msr(machine->hyperv, 0, HV_MSR_HYPERCALL, &call_page);
	(void)!hv_hyperv_read_msr(machine->hyperv, 0, HV_MSR_REFERENCE_TSC, &time_page);
	fprintf(out,
		"machine: vcpus=%" PRIu32 " resets=%" PRIu64 " guest-ns=%" PRIu64
		" tsc-khz=%" PRIu64 "\n",
		machine->config.vcpu_count, atomic_load(&machine->reset_count),
		hv_guest_time_ns(&machine->time), machine->guest_tsc_khz);
	fprintf(out,
		"hyper-v: reference-time=%" PRIu64 " os-id=0x%" PRIx64 " hypercall-page=0x%" PRIx64
		" reference-tsc-page=0x%" PRIx64 "\n",
		hv_hyperv_reference_time(machine->hyperv), os_id, call_page, time_page);
}

static const char *exit_name(uint32_t reason)
{
	switch (reason) {
	case KVM_EXIT_IO:
		return "port";
	case KVM_EXIT_MMIO:
		return "mmio";
	case KVM_EXIT_X86_RDMSR:
		return "rdmsr";
	case KVM_EXIT_X86_WRMSR:
		return "wrmsr";
	case KVM_EXIT_INTR:
		return "signal"; /* ours as a rule: the kick before this dump */
	case KVM_EXIT_SHUTDOWN:
		return "triple-fault";
	case KVM_EXIT_INTERNAL_ERROR:
		return "internal-error";
	case KVM_EXIT_FAIL_ENTRY:
		return "failed-entry";
	default:
		return "other";
	}
}

static void print_vcpu(struct hv_machine *machine, uint32_t index, bool is_parked, FILE *out)
{
	struct hv_vcpu_dump dump;
	uint64_t exit_count;
	uint32_t reason;

	hv_partition_vcpu_exits(machine->partition, index, &exit_count, &reason);
	fprintf(out, "vcpu %" PRIu32 ": exits=%" PRIu64 " last-exit=%s (%" PRIu32 ")\n", index,
		exit_count, exit_name(reason), reason);
	if (is_parked) { /* else KVM would block us until it comes out */
		hv_vcpu_dump_get(hv_partition_vcpu_fd(machine->partition, index),
				 hv_partition_slat(machine->partition), &dump);
		hv_vcpu_dump_print(&dump, out);
	} else {
		fprintf(out,
			"  STUCK: its thread did not come out of its exit within %u ms: "
			"registers and local APIC cannot be read\n",
			HV_DUMP_WAIT_MS);
	}
	hv_synic_dump(machine->synic, index, out);
}

void hv_machine_dump(struct hv_machine *machine, FILE *out, void (*also)(void *context, FILE *out),
		     void *context)
{
	BASE_LOCKED(&machine->change_lock);
	uint32_t holds = hv_partition_holds(machine->partition);
	uint64_t parked = 0;

	(void)!hv_partition_hold_within(machine->partition, HV_HOLD_DUMP, HV_DUMP_WAIT_MS, &parked);
	print_holds(holds, out);
	print_clocks(machine, out);
	if (also != NULL)
		also(context, out);
	if (!machine->has_guest)
		fputs("vcpus: no guest was ever started\n", out);
	for (uint32_t i = 0; i < machine->config.vcpu_count && machine->has_guest; i++)
		print_vcpu(machine, i, (parked >> i & 1) != 0, out);
	hv_partition_release(machine->partition, HV_HOLD_DUMP);
}
