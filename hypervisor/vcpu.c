/* SPDX-License-Identifier: Apache-2.0 */
/*
 * One virtual processor's thread: run, dispatch the exit, park when held.
 */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>

#include "base/bytes.h"
#include "base/clock.h"
#include "hypervisor/partition_priv.h"

#define STAND_BY_NS BASE_NS_PER_MS /* how late longer terms are seen */

static uint64_t load_le(const uint8_t *from, uint32_t size_bytes)
{
	switch (size_bytes) {
	case 1:
		return from[0];
	case 2:
		return base_get_le16(from);
	case 4:
		return base_get_le32(from);
	default:
		return base_get_le64(from);
	}
}

static void store_le(uint8_t *to, uint32_t size_bytes, uint64_t value)
{
	switch (size_bytes) {
	case 1:
		to[0] = (uint8_t)value;
		break;
	case 2:
		base_put_le16(to, (uint16_t)value);
		break;
	case 4:
		base_put_le32(to, (uint32_t)value);
		break;
	default:
		base_put_le64(to, value);
		break;
	}
}

/* A string instruction (rep outsb) arrives as one exit with several items. */
static void handle_port(struct hv_vcpu *vcpu)
{
	struct kvm_run *run = vcpu->run;
	struct hv_iobus *bus = vcpu->partition->bus;
	uint8_t *data = (uint8_t *)run + run->io.data_offset;
	uint32_t size = run->io.size;

	if (hv_vcpu_is_call(vcpu)) {
		store_le(data, size, hv_vcpu_call(vcpu));
		return;
	}
	for (uint32_t i = 0; i < run->io.count; i++, data += size) {
		if (run->io.direction == KVM_EXIT_IO_OUT)
			hv_iobus_write(bus, HV_IO_PORT, run->io.port, size, load_le(data, size));
		else
			store_le(data, size, hv_iobus_read(bus, HV_IO_PORT, run->io.port, size));
	}
}

/* KVM splits accesses at page ends: any length of 1 to 8 may come. */
static void handle_mmio(struct hv_vcpu *vcpu)
{
	struct kvm_run *run = vcpu->run;
	struct hv_iobus *bus = vcpu->partition->bus;
	uint64_t address = run->mmio.phys_addr;
	uint32_t length = run->mmio.len;
	uint8_t *data = run->mmio.data;

	while (length > 0) {
		uint32_t size = length >= 8 ? 8 : length >= 4 ? 4 : length >= 2 ? 2 : 1;

		if (run->mmio.is_write)
			hv_iobus_write(bus, HV_IO_MMIO, address, size, load_le(data, size));
		else
			store_le(data, size, hv_iobus_read(bus, HV_IO_MMIO, address, size));
		address += size;
		data += size;
		length -= size;
	}
}

static void report(struct hv_vcpu *vcpu, enum hv_vcpu_event event, const char *text)
{
	vcpu->partition->ops->vcpu_event(vcpu->partition->context, vcpu->index, event, text);
}

/* KVM cannot go on: say everything that helps, then stand still. */
static void report_failure(struct hv_vcpu *vcpu, const char *what, uint64_t detail)
{
	struct kvm_regs regs = { .rip = 0 };
	struct kvm_sregs sregs = { .cr0 = 0 };
	char text[256];

	(void)ioctl(vcpu->fd, KVM_GET_REGS, &regs);
	(void)ioctl(vcpu->fd, KVM_GET_SREGS, &sregs);
	(void)snprintf(text, sizeof(text),
		       "vcpu %" PRIu32 ": %s (0x%" PRIx64
		       "): rip 0x%llx cs 0x%x cr0 0x%llx cr2 0x%llx cr3 0x%llx "
		       "cr4 0x%llx efer 0x%llx rflags 0x%llx rsp 0x%llx",
		       vcpu->index, what, detail, regs.rip, sregs.cs.selector, sregs.cr0, sregs.cr2,
		       sregs.cr3, sregs.cr4, sregs.efer, regs.rflags, regs.rsp);
	report(vcpu, HV_VCPU_FAILED, text);
}

static void handle_exit(struct hv_vcpu *vcpu)
{
	struct kvm_run *run = vcpu->run;
	char text[64];

	switch (run->exit_reason) {
	case KVM_EXIT_IO:
		vcpu->completion_pending = true;
		handle_port(vcpu);
		break;
	case KVM_EXIT_MMIO:
		vcpu->completion_pending = true;
		handle_mmio(vcpu);
		break;
	case KVM_EXIT_X86_RDMSR:
	case KVM_EXIT_X86_WRMSR:
		vcpu->completion_pending = true;
		hv_vcpu_msr(vcpu, run->exit_reason == KVM_EXIT_X86_WRMSR);
		break;
	case KVM_EXIT_INTR:
	case KVM_EXIT_IRQ_WINDOW_OPEN:
		break;
	case KVM_EXIT_SHUTDOWN:
		(void)snprintf(text, sizeof(text), "vcpu %" PRIu32 ": triple fault", vcpu->index);
		report(vcpu, HV_VCPU_TRIPLE_FAULT, text);
		break;
	case KVM_EXIT_INTERNAL_ERROR:
		report_failure(vcpu, "KVM internal error", run->internal.suberror);
		break;
	case KVM_EXIT_FAIL_ENTRY:
		report_failure(vcpu, "guest entry failed",
			       run->fail_entry.hardware_entry_failure_reason);
		break;
	default:
		report_failure(vcpu, "exit unknown to us", run->exit_reason);
		break;
	}
}

static void name_thread(const struct hv_vcpu *vcpu)
{
	char name[16];

	(void)snprintf(name, sizeof(name), "vcpu/%" PRIu32, vcpu->index);
	(void)pthread_setname_np(pthread_self(), name);
}

static bool may_run(const struct hv_vcpu *vcpu)
{
	const struct hv_partition *partition = vcpu->partition;

#ifdef GODWIT_MUTANT_RUN_GATE
	return true;
#endif
	return partition->ops->may_run == NULL || partition->ops->may_run(partition->context);
}

/* @failed: errno of KVM_RUN, 0 none.  Before the exit is handled, which may overwrite it. */
static enum hv_exit_kind exit_kind(const struct hv_vcpu *vcpu, int failed)
{
	if (failed != 0)
		return failed == EINTR || failed == EAGAIN ? HV_EXIT_INTERRUPTED : HV_EXIT_OTHER;
	switch (vcpu->run->exit_reason) {
	case KVM_EXIT_IO:
		return hv_vcpu_is_call(vcpu) ? HV_EXIT_HYPERCALL : HV_EXIT_PORT;
	case KVM_EXIT_MMIO:
		return HV_EXIT_MMIO;
	case KVM_EXIT_X86_RDMSR:
	case KVM_EXIT_X86_WRMSR:
		return HV_EXIT_MSR;
	case KVM_EXIT_INTR:
		return HV_EXIT_INTERRUPTED;
	default:
		return HV_EXIT_OTHER;
	}
}

static void count_exit(_Atomic uint64_t *count)
{
	atomic_store_explicit(count, atomic_load_explicit(count, memory_order_relaxed) + 1,
			      memory_order_relaxed);
}

/* One KVM_RUN and what it came back with. */
static void run_once(struct hv_vcpu *vcpu)
{
	int failed = ioctl(vcpu->fd, KVM_RUN, 0) < 0 ? errno : 0;

	count_exit(&vcpu->exits[exit_kind(vcpu, failed)]);
	vcpu->completion_pending = false;
#ifndef GODWIT_MUTANT_KICK_BACK
	if (failed == EINTR) /* a hold may be over that never saw us park */
		hv_vcpu_set_entry(vcpu, true);
#endif
	/* EAGAIN: a processor that waits for INIT and SIPI was woken for nothing. */
	if (failed == EINTR || failed == EAGAIN)
		return;
	if (failed != 0)
		report_failure(vcpu, strerrordesc_np(failed), (uint64_t)failed);
	else
		handle_exit(vcpu);
}

/*
 * Past the soft deadline, or while it is throttled, nothing of the guest runs, also before the
 * leash's own thread has said so (both were stopped, and the processor went to us first).  What an
 * exit left open is completed; then we wait for a hold, or for longer terms.
 */
static void stand_by(struct hv_vcpu *vcpu)
{
	if (!vcpu->completion_pending) {
		base_sleep_ns(STAND_BY_NS);
		return;
	}
	hv_vcpu_set_entry(vcpu, false);
	run_once(vcpu);
	hv_vcpu_set_entry(vcpu, true);
}

void *hv_vcpu_main(void *argument)
{
	struct hv_vcpu *vcpu = argument;
	struct hv_partition *partition = vcpu->partition;

	name_thread(vcpu);
	for (;;) {
#ifdef GODWIT_MUTANT_EXIT_COMPLETION
		vcpu->completion_pending = false;
#endif
		if (atomic_load(&partition->holds) != 0 && !vcpu->completion_pending) {
			if (!hv_vcpu_park(vcpu))
				return NULL;
			continue;
		}
		if (may_run(vcpu) && !hv_vcpu_stands(vcpu))
			run_once(vcpu);
		else
			stand_by(vcpu);
	}
}
