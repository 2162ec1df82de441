/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The insides of hypervisor/hyperv.h, for hyperv*.c and their tests.
 */
#ifndef HYPERVISOR_HYPERV_PRIV_H
#define HYPERVISOR_HYPERV_PRIV_H

#include <pthread.h>
#include <stdatomic.h>

#include "base/log.h"
#include "hypervisor/hv_limits.h"
#include "hypervisor/hyperv.h"

#define HV_MSR_GUEST_OS_ID    0x40000000u
#define HV_MSR_HYPERCALL      0x40000001u
#define HV_MSR_VP_INDEX       0x40000002u
#define HV_MSR_RESET          0x40000003u
#define HV_MSR_REFERENCE_TIME 0x40000020u
#define HV_MSR_REFERENCE_TSC  0x40000021u
#define HV_MSR_TSC_HZ         0x40000022u
#define HV_MSR_APIC_HZ        0x40000023u
#define HV_MSR_VP_ASSIST      0x40000073u
#define HV_MSR_CRASH_P0       0x40000100u
#define HV_MSR_CRASH_CTL      0x40000105u
#define HV_CRASH_PARAMETERS   5u

#define HV_PAGE_ENABLE    1u /* of HYPERCALL, REFERENCE_TSC, VP_ASSIST */
#define HV_HYPERCALL_LOCK 2u
#define HV_CRASH_NOTIFY   (1ULL << 63)
#define HV_CRASH_MESSAGE  (1ULL << 62)
#define HV_APIC_HZ        1000000000ULL /* KVM's local APIC timer counts nanoseconds */
#define HV_GPA_PAGE_MASK  (~(uint64_t)(HV_PAGE_BYTES - 1))
#define HV_CALLS_LOGGED   16u /* a hostile guest could try 65536 codes */
#define HV_CRASHES_TOLD   4u  /* in a second: each is a line in somebody's log */

struct hv_hyperv_regs {
	uint64_t guest_os_id;
	uint64_t hypercall;
	uint64_t reference_tsc;
	uint64_t crash[HV_CRASH_PARAMETERS];
	uint64_t assist[HV_VCPUS_MAX];
};

struct hv_hyperv {
	struct hv_slat *slat;
	struct hv_synic *synic;
	const struct hv_hyperv_ops *ops;
	void *context;
	const struct hv_hypercall_ops *call_ops;
	void *call_context;
	uint32_t vp_count;

	pthread_mutex_t lock; /* regs; clock_lock may be taken under it */
	struct hv_hyperv_regs regs;
	_Atomic uint64_t call_page; /* HYPERCALL as it is, for the calls */

	pthread_mutex_t clock_lock; /* leaf: what follows, and the reference page's bytes */
	struct hv_hyperv_clock clock;
	uint64_t clock_reference; /* at that instant */
	uint64_t scale;           /* of the reference page; 0: no TSC */
	uint64_t offset;
	uint32_t sequence; /* the last that was given */
	uint64_t saved_reference;

	pthread_mutex_t log_lock; /* leaf: what follows */
	uint16_t logged[HV_CALLS_LOGGED];
	uint32_t logged_count;
	struct base_log_rate crashes_told;
};

/* hyperv_time.c: write the reference page at @page (MSR value), if it is on.  -EINVAL not RAM. */
BASE_MUST_CHECK int hv_hyperv_put_page(struct hv_hyperv *hyperv, uint64_t page);

#endif
