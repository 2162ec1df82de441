/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Virtual processor state from KVM and to KVM, each part in its order: the reasons
 * are in docs/hypervisor/saved-state.md, "vcpu".
 */
#include "hypervisor/vcpu_state.h"

#include <errno.h>
#include <inttypes.h>
#include <string.h>
#include <sys/ioctl.h>

#include "base/clock.h"
#include "hypervisor/vcpu_msrs.h"
#include "hypervisor/vcpu_xsave.h"

/* Rates that differ by less count as equal: clocks of hosts that are said to run at the same
 * rate are calibrated to about this, and guests discipline theirs within it. */
#define TSC_TOLERANCE_PPM 250u

/* Cycles that may pass between two readings of a TSC, a preemption included: about 0.1 s. */
#define TSC_SLACK 300000000u

#define APIC_LVT_TIMER     0x320u /* offset in the APIC page */
#define APIC_TIMER_MODE(v) ((v) >> 17 & 3)
#define APIC_TSC_DEADLINE  2u

/* The layouts of CPUID leaf 0xD and what KVM_GET_XSAVE2 fills need the same room. */
union xsave_area {
	struct kvm_xsave kvm;
	uint8_t bytes[HV_VCPU_XSAVE_BYTES_MAX];
};

/* One ioctl whose failure is an error with the ioctl's name. */
static int kvm_call(int fd, unsigned long request, void *argument, const char *name,
		    struct base_error *err)
{
	if (ioctl(fd, request, argument) < 0)
		return base_fail_errno(err, -errno, "%s", name);
	return 0;
}

static bool has_cap(int kvm_fd, unsigned long capability)
{
	return ioctl(kvm_fd, KVM_CHECK_EXTENSION, capability) > 0;
}

/* Both structs begin with the same fields, but only copying them by name says so. */
#define COPY_SREGS(to, from)                                                                       \
	do {                                                                                       \
		(to)->cs = (from)->cs;                                                             \
		(to)->ds = (from)->ds;                                                             \
		(to)->es = (from)->es;                                                             \
		(to)->fs = (from)->fs;                                                             \
		(to)->gs = (from)->gs;                                                             \
		(to)->ss = (from)->ss;                                                             \
		(to)->tr = (from)->tr;                                                             \
		(to)->ldt = (from)->ldt;                                                           \
		(to)->gdt = (from)->gdt;                                                           \
		(to)->idt = (from)->idt;                                                           \
		(to)->cr0 = (from)->cr0;                                                           \
		(to)->cr2 = (from)->cr2;                                                           \
		(to)->cr3 = (from)->cr3;                                                           \
		(to)->cr4 = (from)->cr4;                                                           \
		(to)->cr8 = (from)->cr8;                                                           \
		(to)->efer = (from)->efer;                                                         \
		(to)->apic_base = (from)->apic_base;                                               \
	} while (0)

static int get_sregs(int kvm_fd, int vcpu_fd, struct kvm_sregs2 *ret_sregs, struct base_error *err)
{
	struct kvm_sregs old;
	int r = 0;

	if (has_cap(kvm_fd, KVM_CAP_SREGS2))
		return kvm_call(vcpu_fd, KVM_GET_SREGS2, ret_sregs, "KVM_GET_SREGS2", err);
	r = kvm_call(vcpu_fd, KVM_GET_SREGS, &old, "KVM_GET_SREGS", err);
	if (r < 0)
		return r;
	COPY_SREGS(ret_sregs, &old);
	return 0;
}

static int put_sregs(int kvm_fd, int vcpu_fd, const struct kvm_sregs2 *sregs,
		     struct base_error *err)
{
	struct kvm_sregs2 new = *sregs;
	struct kvm_sregs old = { 0 }; /* no pending interrupt: the events have it */

	if (has_cap(kvm_fd, KVM_CAP_SREGS2))
		return kvm_call(vcpu_fd, KVM_SET_SREGS2, &new, "KVM_SET_SREGS2", err);
	/* KVM then loads the PDPTRs from guest memory, as every KVM did once. */
	COPY_SREGS(&old, sregs);
	return kvm_call(vcpu_fd, KVM_SET_SREGS, &old, "KVM_SET_SREGS", err);
}

static int get_xsave(int kvm_fd, int vcpu_fd, struct hv_xsave *ret_xsave, struct base_error *err)
{
	bool new = has_cap(kvm_fd, KVM_CAP_XSAVE2);
	struct hv_xsave_layout layout;
	union xsave_area area = { .bytes = { 0 } };
	int r = hv_xsave_layout_get(kvm_fd, &layout, err);

	if (r < 0)
		return r;
	r = kvm_call(vcpu_fd, new ? KVM_GET_XSAVE2 : KVM_GET_XSAVE, &area, "KVM_GET_XSAVE", err);
	if (r < 0)
		return r;
	return hv_xsave_unpack(&layout, area.bytes, ret_xsave, err);
}

static int put_xsave(int kvm_fd, int vcpu_fd, const struct hv_xsave *xsave, struct base_error *err)
{
	struct hv_xsave_layout layout;
	union xsave_area area = { .bytes = { 0 } };
	int r = hv_xsave_layout_get(kvm_fd, &layout, err);

	if (r < 0)
		return r;
	r = hv_xsave_pack(&layout, xsave, area.bytes, err);
	if (r < 0)
		return r;
	return kvm_call(vcpu_fd, KVM_SET_XSAVE, &area, "KVM_SET_XSAVE", err);
}

int hv_vcpu_state_get(int kvm_fd, int vcpu_fd, struct hv_vcpu_state *ret_state,
		      struct base_error *err)
{
	struct hv_vcpu_state *s = ret_state;
	int r = 0;

	memset(s, 0, sizeof(*s));
	r = kvm_call(vcpu_fd, KVM_GET_MP_STATE, &s->mp_state, "KVM_GET_MP_STATE", err);
	if (r == 0) /* for what it does to CR2 and DR6; read again below */
		r = kvm_call(vcpu_fd, KVM_GET_VCPU_EVENTS, &s->events, "KVM_GET_VCPU_EVENTS", err);
	if (r == 0)
		r = kvm_call(vcpu_fd, KVM_GET_REGS, &s->regs, "KVM_GET_REGS", err);
	if (r == 0)
		r = get_sregs(kvm_fd, vcpu_fd, &s->sregs, err);
	if (r == 0)
		r = kvm_call(vcpu_fd, KVM_GET_XCRS, &s->xcrs, "KVM_GET_XCRS", err);
	if (r == 0)
		r = get_xsave(kvm_fd, vcpu_fd, &s->xsave, err);
	if (r == 0)
		r = kvm_call(vcpu_fd, KVM_GET_DEBUGREGS, &s->debugregs, "KVM_GET_DEBUGREGS", err);
	if (r == 0)
		r = kvm_call(vcpu_fd, KVM_GET_LAPIC, &s->lapic, "KVM_GET_LAPIC", err);
	if (r == 0)
		r = hv_msrs_get(kvm_fd, vcpu_fd, s->msrs, HV_VCPU_MSRS_MAX, &s->msr_count, err);
	if (r == 0)
		r = kvm_call(vcpu_fd, KVM_GET_VCPU_EVENTS, &s->events, "KVM_GET_VCPU_EVENTS", err);
	if (r < 0)
		return r;

	s->tsc_khz = hv_vcpu_tsc_khz(vcpu_fd);
	return 0;
}

/* The rate first of all: the TSC that is set later counts with it. */
static int put_tsc_khz(int kvm_fd, int vcpu_fd, uint32_t khz, struct base_error *err)
{
	int here = ioctl(vcpu_fd, KVM_GET_TSC_KHZ, 0);
	uint64_t apart = 0;

	if (khz == 0 || here <= 0 || (uint32_t)here == khz)
		return 0;
	if (has_cap(kvm_fd, KVM_CAP_TSC_CONTROL) &&
	    ioctl(vcpu_fd, KVM_SET_TSC_KHZ, (unsigned long)khz) == 0)
		return 0;
	apart = khz > (uint32_t)here ? khz - (uint32_t)here : (uint32_t)here - khz;
	if (apart * 1000000 > (uint64_t)khz * TSC_TOLERANCE_PPM)
		return base_fail(err, -ENOTSUP,
				 "the guest's TSC runs at %" PRIu32
				 " kHz, this host's at %d and cannot be scaled",
				 khz, here);
	return 0;
}

int hv_vcpu_state_put(int kvm_fd, int vcpu_fd, const struct hv_vcpu_state *state,
		      struct base_error *err)
{
	struct kvm_xcrs xcrs = state->xcrs;
	struct kvm_regs regs = state->regs;
	struct kvm_lapic_state lapic = state->lapic;
	struct kvm_debugregs debugregs = state->debugregs;
	struct kvm_mp_state mp_state = state->mp_state;
	struct kvm_vcpu_events events = state->events;
	int r = put_tsc_khz(kvm_fd, vcpu_fd, state->tsc_khz, err);

	if (r == 0)
		r = put_sregs(kvm_fd, vcpu_fd, &state->sregs, err);
	if (r == 0 && xcrs.nr_xcrs > 0)
		r = kvm_call(vcpu_fd, KVM_SET_XCRS, &xcrs, "KVM_SET_XCRS", err);
	if (r == 0)
		r = put_xsave(kvm_fd, vcpu_fd, &state->xsave, err);
	if (r == 0)
		r = hv_msrs_put(vcpu_fd, state->msrs, state->msr_count, err);
	if (r == 0)
		r = kvm_call(vcpu_fd, KVM_SET_REGS, &regs, "KVM_SET_REGS", err);
	if (r == 0)
		r = kvm_call(vcpu_fd, KVM_SET_LAPIC, &lapic, "KVM_SET_LAPIC", err);
	if (r == 0)
		r = kvm_call(vcpu_fd, KVM_SET_DEBUGREGS, &debugregs, "KVM_SET_DEBUGREGS", err);
	if (r == 0)
		r = kvm_call(vcpu_fd, KVM_SET_MP_STATE, &mp_state, "KVM_SET_MP_STATE", err);
	if (r == 0)
		r = kvm_call(vcpu_fd, KVM_SET_VCPU_EVENTS, &events, "KVM_SET_VCPU_EVENTS", err);
	return r;
}

static bool is_feature_msr(uint32_t index)
{
	switch (index) {
	case 0xce:       /* platform information */
	case 0x10a:      /* architectural capabilities */
	case 0x345:      /* performance capabilities */
	case 0xc0011029: /* AMD: LFENCE is serialising */
		return true;
	default:
		return false;
	}
}

void hv_vcpu_keep_features(const struct hv_vcpu_state *from, struct hv_vcpu_state *to)
{
	for (uint32_t i = 0; i < to->msr_count; i++)
		for (uint32_t k = 0; k < from->msr_count && is_feature_msr(to->msrs[i].index); k++)
			if (from->msrs[k].index == to->msrs[i].index)
				to->msrs[i].data = from->msrs[k].data;
}

uint32_t hv_vcpu_tsc_khz(int vcpu_fd)
{
	int khz = ioctl(vcpu_fd, KVM_GET_TSC_KHZ, 0);

	return khz > 0 ? (uint32_t)khz : 0;
}

static struct kvm_device_attr tsc_offset_attr(uint64_t *offset)
{
	return (struct kvm_device_attr){ .group = KVM_VCPU_TSC_CTRL,
					 .attr = KVM_VCPU_TSC_OFFSET,
					 .addr = (uint64_t)(uintptr_t)offset };
}

/* Is the guest's TSC the host's plus an offset, not scaled?  KVM does not tell; a scaled one
 * would be off by more than the tolerance of what the host's TSC has counted. */
static bool is_unscaled(int vcpu_fd, uint64_t offset)
{
	uint64_t guest = 0;
	uint64_t host = 0;
	uint64_t apart = 0;

	if (hv_msr_get(vcpu_fd, HV_MSR_TSC, &guest, NULL) < 0)
		return false;
	host = base_tsc_read();
	guest -= offset;
	apart = host > guest ? host - guest : guest - host;
	return apart <= host / 1000000 * TSC_TOLERANCE_PPM + TSC_SLACK;
}

int hv_vcpu_tsc_at(int vcpu_fd, uint64_t host_tsc, uint64_t *ret_tsc, bool *ret_is_exact,
		   struct base_error *err)
{
	uint64_t offset = 0;
	struct kvm_device_attr attr = tsc_offset_attr(&offset);
	uint64_t before;
	uint64_t guest;
	int r;

	if (ioctl(vcpu_fd, KVM_GET_DEVICE_ATTR, &attr) == 0 && is_unscaled(vcpu_fd, offset)) {
		*ret_tsc = host_tsc + offset;
		*ret_is_exact = true;
		return 0;
	}
	/* The host's ticks since @host_tsc are few, so their rate does not matter. */
	before = base_tsc_read();
	r = hv_msr_get(vcpu_fd, HV_MSR_TSC, &guest, err);
	if (r < 0)
		return r;
	*ret_tsc = guest - ((before - host_tsc) + (base_tsc_read() - before) / 2);
	*ret_is_exact = false;
	return 0;
}

int hv_vcpu_tsc_put(int vcpu_fd, uint64_t tsc, uint64_t host_tsc, struct base_error *err)
{
	uint64_t offset = 0;
	struct kvm_device_attr attr = tsc_offset_attr(&offset);

	if (ioctl(vcpu_fd, KVM_GET_DEVICE_ATTR, &attr) == 0 && is_unscaled(vcpu_fd, offset)) {
		offset = tsc - host_tsc; /* wraps as the TSC does */
		if (ioctl(vcpu_fd, KVM_SET_DEVICE_ATTR, &attr) < 0)
			return base_fail_errno(err, -errno, "KVM_VCPU_TSC_OFFSET");
		return 0;
	}
	/* KVM gives vCPUs whose TSC is written within a second the same offset. */
	return hv_msr_set(vcpu_fd, HV_MSR_TSC, tsc + (base_tsc_read() - host_tsc), err);
}

int hv_vcpu_timer_put(int vcpu_fd, const struct hv_vcpu_state *state, struct base_error *err)
{
	uint32_t lvt = base_get_le32((const uint8_t *)state->lapic.regs + APIC_LVT_TIMER);

	if (APIC_TIMER_MODE(lvt) != APIC_TSC_DEADLINE)
		return 0;
	for (uint32_t i = 0; i < state->msr_count; i++) {
		if (state->msrs[i].index == HV_MSR_TSC_DEADLINE)
			return hv_msr_set(vcpu_fd, HV_MSR_TSC_DEADLINE, state->msrs[i].data, err);
	}
	return 0;
}
