/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What makes the partition a Hyper-V one to its guest: CPUID leaves, synthetic MSRs, the hypercall
 * page and the calls, reference time.  The SynIC's registers are among the MSRs.
 * All in user space: no KVM of any host needs to know of it.  docs/hypervisor/hyperv.md.
 *
 * Threads: read_msr, write_msr and call on the vCPU's own thread; reference_time on any; the
 * others while the vCPUs are parked.
 */
#ifndef HYPERVISOR_HYPERV_H
#define HYPERVISOR_HYPERV_H

#include <stdbool.h>
#include <stdint.h>

#include "base/bytes.h"
#include "base/clock.h"
#include "base/error.h"
#include "hypervisor/cpuid_table.h"
#include "hypervisor/machine.h"
#include "hypervisor/slat.h"

struct hv_hyperv;
struct hv_synic;

#define HV_HYPERCALL_PORT                                                                          \
	0x5Cu /* the stub in the hypercall page reads it; no PC has a device there */
#define HV_MSR_FIRST 0x40000000u
#define HV_MSR_COUNT 0x200u

struct hv_hyperv_ops {
	/* On a vCPU's thread, no lock held; must not block. */
	void (*reset)(void *context);
	void (*panic)(void *context, const char *text);
};

/* @slat, @synic: borrowed, outlive the result.  -ENOMEM. */
BASE_MUST_CHECK int hv_hyperv_new(struct hv_slat *slat, struct hv_synic *synic, uint32_t vp_count,
				  const struct hv_hyperv_ops *ops, void *context,
				  struct hv_hyperv **ret_hyperv, struct base_error *err);
void hv_hyperv_free(struct hv_hyperv *hyperv); /* NULL is fine */
/* Registers to power-on; reference time goes on. */
void hv_hyperv_reset(struct hv_hyperv *hyperv);

/* Who takes POST_MESSAGE and SIGNAL_EVENT.  Before the vCPUs run. */
void hv_hyperv_set_calls(struct hv_hyperv *hyperv, const struct hv_hypercall_ops *ops,
			 void *context);

/* Put the leaves 0x40000000..6 into a VM's table.  -ENOSPC. */
BASE_MUST_CHECK int hv_hyperv_cpuid(struct hv_cpuid_table *table, uint32_t vp_count,
				    struct base_error *err);

/* 0; -EINVAL: #GP. */
BASE_MUST_CHECK int hv_hyperv_read_msr(struct hv_hyperv *hyperv, uint32_t vp, uint32_t msr,
				       uint64_t *ret_value);
BASE_MUST_CHECK int hv_hyperv_write_msr(struct hv_hyperv *hyperv, uint32_t vp, uint32_t msr,
					uint64_t value);

/* A guest that read HV_HYPERCALL_PORT. */
struct hv_hypercall {
	uint64_t control; /* RCX */
	uint64_t input;   /* RDX */
	uint64_t output;  /* R8 */
	uint64_t rip_gpa; /* where the instruction lies; UINT64_MAX unknown */
	bool is_kernel;   /* ring 0 */
	bool is_long;     /* 64-bit code */
};
/* What the read gives: a status, or all ones when it was no hypercall but a stray read. */
uint32_t hv_hyperv_call(struct hv_hyperv *hyperv, const struct hv_hypercall *call);

/*
 * The guest's clock at one instant.  A TSC is trusted where its rate is known, it is equal on all
 * vCPUs and the host keeps time by it; else reference time comes from the boot clock.
 */
struct hv_hyperv_clock {
	uint64_t host_tsc;
	uint64_t guest_tsc;
	uint64_t host_hz;
	uint64_t tsc_hz; /* the guest's; 0 unknown */
	bool is_trusted;
	uint64_t boot_ns;
	const struct base_clock *clock;
};
/* Reference time reads at least @reference at that instant, and never less than it read before.
 * Fills the guest's reference page again. */
void hv_hyperv_set_clock(struct hv_hyperv *hyperv, const struct hv_hyperv_clock *clock,
			 uint64_t reference);
uint64_t hv_hyperv_reference_time(struct hv_hyperv *hyperv); /* units of 100 ns */

/* Section "hyperv": load checks all before it changes anything. */
#define HV_HYPERV_VERSION 1u
void hv_hyperv_save(struct hv_hyperv *hyperv, struct base_buffer *out);
BASE_MUST_CHECK int hv_hyperv_load(struct hv_hyperv *hyperv, uint32_t version,
				   struct base_reader *in, struct base_error *err);
/* The reference time that was loaded; 0 none. */
uint64_t hv_hyperv_saved_reference(const struct hv_hyperv *hyperv);

#endif
