/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What this host's KVM says it can do, and what it really does.
 *
 * KVM's word is not always kept: some builds run guest user code natively, where
 * CPUID and RDTSC answer for the host whatever was set, and report success.  So the
 * probe runs a tiny guest that executes both and tells.  docs/hypervisor/cpu-models.md
 * "Hosts that do not honour masks".
 *
 * Any thread; nothing is kept between calls.  The descriptors are borrowed.
 */
#ifndef HYPERVISOR_HOST_PROBE_H
#define HYPERVISOR_HOST_PROBE_H

#include <stdbool.h>
#include <stdint.h>

#include "hypervisor/cpuid_table.h"

#define HV_KVM_PATH        "/dev/kvm"
#define HV_KVM_API_VERSION 12 /* the only one in use */

/**
 * hv_kvm_open - open KVM and check that it is one.
 * @path: HV_KVM_PATH, or what a test puts in its place.
 * Return: a descriptor (CLOEXEC) the caller owns; -ENOENT, -EACCES, -ENODEV and others
 * of open(2), the text says what to do; -ENOTSUP not KVM, or not API version 12.
 */
BASE_MUST_CHECK int hv_kvm_open(const char *path, struct base_error *err);

/**
 * hv_kvm_cpuid_supported - KVM_GET_SUPPORTED_CPUID as a table.
 * The TSC deadline timer is added when only KVM_CAP_TSC_DEADLINE_TIMER tells of it: older
 * KVMs leave the bit out, because it depends on the in-kernel local APIC. errno of the ioctl;
 * -ENOSPC too many entries.
 */
BASE_MUST_CHECK int hv_kvm_cpuid_supported(int kvm_fd, struct hv_cpuid_table *ret_table,
					   struct base_error *err);

/* KVM_SET_CPUID2.  Before the vCPU first runs.  errno of the ioctl. */
BASE_MUST_CHECK int hv_kvm_cpuid_give(int vcpu_fd, const struct hv_cpuid_table *table,
				      struct base_error *err);

/* KVM_GET_CPUID2: what KVM keeps for this vCPU, which the guest need not see.  errno of the ioctl.
 */
BASE_MUST_CHECK int hv_kvm_cpuid_read(int vcpu_fd, struct hv_cpuid_table *ret_table,
				      struct base_error *err);

/* Numbers are as KVM_CHECK_EXTENSION gives them; 0: absent. */
struct hv_host_facts {
	uint32_t api_version;
	uint32_t vcpus_recommended;
	uint32_t vcpus_max;
	uint32_t vcpu_id_max;
	uint32_t memory_slots;
	uint32_t xsave_bytes; /* for KVM_GET_XSAVE2; 4096 when KVM has only KVM_GET_XSAVE */
	uint32_t dirty_log_manual_flags; /* KVM_CAP_MANUAL_DIRTY_LOG_PROTECT2: 1 manual, 2 initially
					    set */
	uint32_t dirty_ring_bytes_max;   /* larger of KVM_CAP_DIRTY_LOG_RING(_ACQ_REL) */
	uint32_t user_msr_reasons;       /* KVM_CAP_X86_USER_SPACE_MSR */
	bool msr_filter;
	bool immediate_exit;
	bool sync_regs; /* general and special registers, with each exit */
	bool sregs2;
	bool split_irqchip;
	bool smm;
	bool tsc_deadline_timer;
	bool tsc_control;    /* the TSC's frequency can be set, per vCPU */
	bool vm_tsc_control; /* the same, per VM */
	bool hyperv;         /* KVM's own Hyper-V emulation, each part */
	bool hyperv_synic2;
	bool hyperv_cpuid;
	bool hyperv_tlbflush;
	bool hyperv_send_ipi;
	bool hyperv_enforce_cpuid;

	/* found by running the guest */
	bool tsc_offset_honoured;   /* KVM_VCPU_TSC_OFFSET moves what RDTSC answers */
	bool tsc_write_honoured;    /* writing MSR 0x10 does */
	uint64_t tsc_khz;           /* the guest's TSC, as KVM says; 0: it does not say */
	struct hv_cpuid_table seen; /* CPUID as executed in the guest */
};

/**
 * hv_host_probe - ask KVM, and run a one-vCPU guest that looks for itself.
 * @kvm_fd: from hv_kvm_open().
 * @give:   the table to give the guest, as for a vCPU (hv_cpuid_for_vcpu()); it must show
 *          long mode.  NULL: all that KVM supports.
 * Asked inside: each leaf with named features, topology, XSAVE, identity, and each
 * entry of @give; entries of @give beyond HV_CPUID_ENTRIES_MAX in all are not asked.
 * The guest has six pages, no devices, and is gone when the call returns.  Blocks for
 * some milliseconds.
 * Return: 0; errno of the ioctl that failed, named; -EPROTO the guest did not come to its
 * end (the exit is named).
 */
BASE_MUST_CHECK int hv_host_probe(int kvm_fd, const struct hv_cpuid_table *give,
				  struct hv_host_facts *ret_facts, struct base_error *err);

#endif
