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

#include "hypervisor/partition.h"

/* Kicks a vCPU out of KVM_RUN.  Real-time signals: SIGUSR1 belongs to nobody in particular. */
#define HV_KICK_SIGNAL (SIGRTMIN + 2)

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
	_Atomic uint64_t exit_count;
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
	struct hv_vcpu vcpus[HV_VCPUS_MAX];

	pthread_mutex_t park_lock; /* leaf: holds, parked, ending, immediate_exit */
	pthread_cond_t all_parked;
	pthread_cond_t go;
	_Atomic uint32_t holds;
	uint32_t parked_count;
	bool ending;
};

/* vcpu_hyperv.c */
bool hv_vcpu_is_call(const struct hv_vcpu *vcpu); /* an exit that may be a hypercall */
uint32_t hv_vcpu_call(struct hv_vcpu *vcpu);
void hv_vcpu_msr(struct hv_vcpu *vcpu, bool is_write);
/* vcpu.c */
void *hv_vcpu_main(void *argument); /* struct hv_vcpu */
/* partition.c: park until released; false: end the thread. */
bool hv_vcpu_park(struct hv_vcpu *vcpu);
/* partition.c: let the next KVM_RUN enter the guest, or only complete the last exit. */
void hv_vcpu_set_entry(struct hv_vcpu *vcpu, bool may_enter);

#endif
