/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Shared by partition.c (life cycle, holds) and vcpu.c (run loop, exits) only.
 */
#ifndef HYPERVISOR_PARTITION_PRIV_H
#define HYPERVISOR_PARTITION_PRIV_H

#include <linux/kvm.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stddef.h>

#include "base/clock.h"
#include "hypervisor/partition.h"

/* What KVM is to hand over with each exit. */
#define HV_SYNC_REGS  ((uint32_t)(KVM_SYNC_X86_REGS | KVM_SYNC_X86_SREGS))
/* Places that hypercalls come from, which a vCPU remembers: one per address space of late. */
#define HV_CALL_SITES 8u

/* Kicks a vCPU out of KVM_RUN.  Real-time signals: SIGUSR1 belongs to nobody in particular. */
#define HV_KICK_SIGNAL (SIGRTMIN + 2)

enum hv_exit_kind {
	HV_EXIT_HYPERCALL,
	HV_EXIT_PORT,
	HV_EXIT_MMIO,
	HV_EXIT_MSR,
	HV_EXIT_INTERRUPTED,
	HV_EXIT_OTHER,
	HV_EXIT_KINDS
};

/* Where a vCPU's registers are at an exit. */
enum hv_sync_state {
	HV_SYNC_NONE,    /* in KVM: asked for */
	HV_SYNC_OFFERED, /* KVM says that it hands them over with the exit */
	HV_SYNC_PROVEN,  /* and once they were what it says when it is asked */
};

/* Which guest page the instruction at a linear address lies in: what KVM_TRANSLATE said. */
struct hv_call_sites {
	struct {
		uint64_t rip, table; /* the table without its PCID */
		uint64_t gpa;
	} sites[HV_CALL_SITES];
	uint32_t count, next;
	uint64_t epoch; /* of the partition, when they were filled in */
};

struct hv_vcpu {
	struct hv_partition *partition;
	uint32_t index;
	int fd;
	struct kvm_run *run;
	size_t run_bytes;
	pthread_t thread;
	bool has_thread;
	bool parked;             /* under the partition's park_lock */
	bool completion_pending; /* the vCPU's thread: KVM still has to finish the last exit */
	enum hv_sync_state sync;
	bool asks_always; /* takes nothing handed over, and remembers nothing */
	struct hv_call_sites sites;
	_Atomic uint64_t exits[HV_EXIT_KINDS]; /* written by its thread only */

	_Atomic uint64_t
		stand_until_ns; /* boot clock; it does not enter the guest before; 0: runs */
	_Atomic uint32_t throttle_permille;
	int stats_fd;          /* -1: none */
	uint64_t faults_at[2]; /* where page faults are counted there; 0: not */
	uint64_t faults_before;
};

struct hv_partition {
	int kvm_fd; /* borrowed */
	int vm_fd;
	struct hv_memory *memory; /* borrowed */
	struct hv_iobus *bus;     /* borrowed */
	struct hv_slat *slat;
	const struct hv_partition_ops *ops;
	void *context;
	uint32_t vcpu_count;
	_Atomic uint64_t call_epoch; /* one more when the hypercall page may have changed */
	struct hv_vcpu vcpus[HV_VCPUS_MAX];

	pthread_mutex_t park_lock; /* leaf: holds, parked, ending, immediate_exit */
	pthread_cond_t all_parked;
	pthread_cond_t go;
	_Atomic uint32_t holds;
	uint32_t parked_count;
	bool ending;

	pthread_t throttler; /* while has_throttler: who throttles joins it */
	bool has_throttler;
	atomic_bool throttle_ends;
};

/* vcpu_hyperv.c */
/* Before it runs: have KVM hand over registers with each exit, where it can. */
void hv_vcpu_sync_begin(struct hv_vcpu *vcpu);
bool hv_vcpu_is_call(const struct hv_vcpu *vcpu); /* an exit that may be a hypercall */
uint32_t hv_vcpu_call(struct hv_vcpu *vcpu);
void hv_vcpu_msr(struct hv_vcpu *vcpu, bool is_write);
/* The page of an instruction, if it was seen in this epoch; and remember it. */
bool hv_call_sites_find(struct hv_call_sites *sites, uint64_t epoch, uint64_t rip, uint64_t cr3,
			uint64_t *ret_gpa);
void hv_call_sites_add(struct hv_call_sites *sites, uint64_t rip, uint64_t cr3, uint64_t gpa);
/* vcpu.c */
void *hv_vcpu_main(void *argument); /* struct hv_vcpu */
/* partition.c: park until released; false: end the thread. */
bool hv_vcpu_park(struct hv_vcpu *vcpu);
/* partition.c: one of them, out of KVM_RUN, without a hold. */
void hv_vcpu_kick(struct hv_vcpu *vcpu);
/* partition_throttle.c */
void hv_vcpu_count_faults(struct hv_vcpu *vcpu); /* where KVM counts them; before a lock-down */
/* Whether it is kept from running now.  Its own thread. */
static inline bool hv_vcpu_stands(const struct hv_vcpu *vcpu)
{
	uint64_t until_ns = atomic_load_explicit(&vcpu->stand_until_ns, memory_order_relaxed);

	return until_ns != 0 && base_clock_boot_ns(&base_clock_system) < until_ns;
}
/* partition.c: let the next KVM_RUN enter the guest, or only complete the last exit. */
void hv_vcpu_set_entry(struct hv_vcpu *vcpu, bool may_enter);

#endif
