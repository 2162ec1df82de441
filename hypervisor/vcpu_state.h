/* SPDX-License-Identifier: Apache-2.0 */
/*
 * All architectural state of one virtual processor, as KVM gives and takes it, and
 * of KVM's interrupt chips and clock.
 *
 * get and put belong to a vCPU whose thread is outside KVM_RUN with its last exit
 * completed; encode and decode are pure.  Byte layouts and section versions:
 * docs/hypervisor/saved-state.md.
 *
 * Order of a restore, for all vCPUs together at each step (the reasons are in the
 * docs): memory and CPUID; hv_vcpu_state_put(); hv_chip_state_put();
 * hv_vcpu_tsc_put(); hv_vcpu_timer_put(); run.
 */
#ifndef HYPERVISOR_VCPU_STATE_H
#define HYPERVISOR_VCPU_STATE_H

#include <linux/kvm.h>
#include <stdbool.h>
#include <stdint.h>

#include "base/bytes.h"
#include "base/error.h"

#define HV_VCPU_MSRS_MAX        256u
#define HV_VCPU_XSAVE_BYTES_MAX 16384u /* all components known today, AMX included, fit */
#define HV_XSAVE_LEGACY_BYTES   512u   /* x87 and SSE, as FXSAVE lays them out */
#define HV_XSAVE_COMPONENTS     63u    /* bit 63 of XSTATE_BV is no component */

/* Extended processor state without the saving host's layout: components 2..62 that are in
 * @components stand one after the other in @data, ascending. */
struct hv_xsave {
	uint64_t components; /* XSTATE_BV */
	uint8_t legacy[HV_XSAVE_LEGACY_BYTES];
	uint32_t size_bytes[HV_XSAVE_COMPONENTS]; /* of each component in @data, 0 when not there */
	uint32_t data_bytes;
	uint8_t data[HV_VCPU_XSAVE_BYTES_MAX];
};

struct hv_vcpu_state {
	struct kvm_regs regs;
	struct kvm_sregs2 sregs; /* without KVM_CAP_SREGS2: taken from sregs, no PDPTRs */
	struct kvm_xcrs xcrs;
	struct hv_xsave xsave;
	uint32_t msr_count;
	struct kvm_msr_entry msrs[HV_VCPU_MSRS_MAX]; /* ascending, without the TSC */
	struct kvm_lapic_state lapic;
	struct kvm_debugregs debugregs;
	struct kvm_mp_state mp_state;
	struct kvm_vcpu_events events;
	uint32_t tsc_khz; /* 0: unknown */
};

BASE_MUST_CHECK int hv_vcpu_state_get(int kvm_fd, int vcpu_fd, struct hv_vcpu_state *ret_state,
				      struct base_error *err);
/**
 * hv_vcpu_state_put - load all of it into a vCPU (its CPUID is set already).
 * The TSC is not part of it: hv_vcpu_tsc_put() does that, for all vCPUs together; nor is
 * the TSC deadline, which means nothing before: hv_vcpu_timer_put().
 * -ENOTSUP: this host cannot take a part of it (names it: MSR index and value, XSAVE
 * component, TSC rate); other errno from KVM with context.
 */
BASE_MUST_CHECK int hv_vcpu_state_put(int kvm_fd, int vcpu_fd, const struct hv_vcpu_state *state,
				      struct base_error *err);
/*
 * Take over, into a state that is to be put later (power-on), those MSRs that KVM lets be set only
 * before the vCPU first ran: it would refuse other values then.  Pure.
 */
void hv_vcpu_keep_features(const struct hv_vcpu_state *from, struct hv_vcpu_state *to);

/* The rate of the vCPU's TSC in kHz; 0 when KVM does not say. */
uint32_t hv_vcpu_tsc_khz(int vcpu_fd);
/**
 * hv_vcpu_tsc_at - what the guest's TSC reads at the instant at which the host's reads @host_tsc.
 * From the offset where the rates are one, so that vCPUs asked one after the other answer for one
 * instant.  @ret_is_exact: false when the rate is scaled and the answer was measured (off
 * by the time of an ioctl): then vCPUs that are near each other mean the same.
 */
BASE_MUST_CHECK int hv_vcpu_tsc_at(int vcpu_fd, uint64_t host_tsc, uint64_t *ret_tsc,
				   bool *ret_is_exact, struct base_error *err);
/* Set the offset so that the guest reads @tsc at host TSC @host_tsc.  KVM_VCPU_TSC_OFFSET where
 * the guest's TSC runs at the host's rate, else (or without it) MSR 0x10. */
BASE_MUST_CHECK int hv_vcpu_tsc_put(int vcpu_fd, uint64_t tsc, uint64_t host_tsc,
				    struct base_error *err);
/* Arm the local APIC's timer again if it was in TSC-deadline mode: after hv_vcpu_tsc_put(),
 * or the guest waits for a tick that never comes. */
BASE_MUST_CHECK int hv_vcpu_timer_put(int vcpu_fd, const struct hv_vcpu_state *state,
				      struct base_error *err);

#define HV_VCPU_STATE_VERSION 1u
/* Section "vcpu".  @out->failed when there is no memory. */
void hv_vcpu_state_encode(const struct hv_vcpu_state *state, struct base_buffer *out);
/* @in: the whole payload.  -EBADMSG malformed (which field, value, wanted); -ENOTSUP @version. */
BASE_MUST_CHECK int hv_vcpu_state_decode(struct base_reader *in, uint32_t version,
					 struct hv_vcpu_state *ret_state, struct base_error *err);

/* PIC master and slave, IOAPIC, PIT, KVM clock: together the section "chips". */
struct hv_chip_state {
	struct kvm_irqchip pic_master;
	struct kvm_irqchip pic_slave;
	struct kvm_irqchip ioapic;
	struct kvm_pit_state2 pit;
	struct kvm_clock_data clock;
};
#define HV_CHIP_STATE_VERSION 1u
BASE_MUST_CHECK int hv_chip_state_get(int vm_fd, struct hv_chip_state *ret_state,
				      struct base_error *err);
/* After hv_vcpu_state_put() of every vCPU: the IOAPIC sends what is pending to their APICs at
 * once.  The clock goes on from the saved value plus the time that really elapsed where both
 * hosts know it (KVM_CLOCK_REALTIME), from the saved value otherwise. */
BASE_MUST_CHECK int hv_chip_state_put(int vm_fd, const struct hv_chip_state *state,
				      struct base_error *err);
void hv_chip_state_encode(const struct hv_chip_state *state, struct base_buffer *out);
BASE_MUST_CHECK int hv_chip_state_decode(struct base_reader *in, uint32_t version,
					 struct hv_chip_state *ret_state, struct base_error *err);

#endif
