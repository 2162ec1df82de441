/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The partition: a KVM VM with its interrupt chips, memory slots and virtual
 * processors, a thread each.
 *
 * vCPUs run while no hold is set.  hold() costs one signal round: every vCPU gets
 * immediate_exit and a signal first, then one wait for all.  A vCPU parks only after
 * the exit it was in has been completed inside KVM (KVM_RUN once more with
 * immediate_exit), so that its registers stand behind the access.
 *
 * Threads: new, free, hold, release belong to any thread but the vCPUs'; request may
 * be called on a vCPU thread.  vCPU descriptors may be used by others only while
 * every vCPU is parked: KVM blocks them otherwise.
 */
#ifndef HYPERVISOR_PARTITION_H
#define HYPERVISOR_PARTITION_H

#include <stdbool.h>
#include <stdint.h>

#include "base/error.h"
#include "hypervisor/cpuid_table.h"
#include "hypervisor/iobus.h"
#include "hypervisor/memory.h"

struct hv_partition;
struct hv_hypercall;
struct hv_exit_counts;

enum hv_vcpu_event {
	HV_VCPU_INVALID,
	HV_VCPU_TRIPLE_FAULT, /* KVM_EXIT_SHUTDOWN */
	HV_VCPU_FAILED,       /* KVM cannot go on: internal error, failed entry, unknown exit */
	HV_VCPU_EVENTS
};

struct hv_partition_ops {
	/* Before each entry into the guest, on the vCPU's thread: false, not now.  NULL: always. */
	bool (*may_run)(void *context);
	/* On the vCPU's thread; it parks afterwards only if the handler requests a hold. */
	void (*vcpu_event)(void *context, uint32_t vcpu, enum hv_vcpu_event event,
			   const char *text);
	/* A synthetic MSR (hyperv.h) on the vCPU's thread; -EINVAL: #GP.  NULL: always #GP. */
	int (*msr_read)(void *context, uint32_t vcpu, uint32_t msr, uint64_t *ret_value);
	int (*msr_write)(void *context, uint32_t vcpu, uint32_t msr, uint64_t value);
	/* A read of HV_HYPERCALL_PORT: what it gives.  NULL: all ones. */
	uint32_t (*hypercall)(void *context, const struct hv_hypercall *call);
};

struct hv_partition_opts {
	int kvm_fd;                         /* borrowed during the call and after */
	uint32_t vcpu_count;                /* 1..HV_VCPUS_MAX */
	const struct hv_cpuid_table *cpuid; /* of the whole VM; borrowed during the call */
	struct hv_memory *memory;           /* borrowed, outlives the partition */
	struct hv_iobus *bus;               /* borrowed, outlives the partition */
	uint32_t holds;                     /* set from the start, not 0 */
	bool registers_by_call;             /* for tests: ask KVM for them at each hypercall */
};

/**
 * hv_partition_new - create VM, chips, slots, vCPUs and their (parked) threads.
 * Errors: errno of KVM with context; -ENOMEM; -EAGAIN no threads.
 */
BASE_MUST_CHECK int hv_partition_new(const struct hv_partition_opts *opts,
				     const struct hv_partition_ops *ops, void *context,
				     struct hv_partition **ret_partition, struct base_error *err);
/* Ends vCPU threads and the VM.  NULL is fine. */
void hv_partition_free(struct hv_partition *partition);

/* Set @holds and wait until every vCPU is parked.  Returns what the round took, ns. */
uint64_t hv_partition_hold(struct hv_partition *partition, uint32_t holds);
/**
 * hv_partition_hold_within - as hold, but wait at most @timeout_ms: for looking at what is stuck.
 * @ret_parked: bit i: vCPU i is parked, and stays so until @holds are released.
 * The holds are set in any case.  0 all are parked; -ETIMEDOUT not all.
 */
BASE_MUST_CHECK int hv_partition_hold_within(struct hv_partition *partition, uint32_t holds,
					     uint32_t timeout_ms, uint64_t *ret_parked);
/* Clear @holds; vCPUs run when none is left. */
void hv_partition_release(struct hv_partition *partition, uint32_t holds);
/* Set @holds without waiting; the calling vCPU thread parks once its exit is completed. */
void hv_partition_request(struct hv_partition *partition, uint32_t holds);
uint32_t hv_partition_holds(const struct hv_partition *partition);

/**
 * hv_partition_set_cpuid - give one vCPU its share of the VM's table again (restore).
 * Only before it has run for the first time.  Errno of KVM_SET_CPUID2 with context.
 */
BASE_MUST_CHECK int hv_partition_set_cpuid(struct hv_partition *partition, uint32_t vcpu,
					   const struct hv_cpuid_table *cpuid,
					   struct base_error *err);

/**
 * hv_partition_throttle - keep each vCPU from running for a share of its time, in slices of
 * HV_THROTTLE_PERIOD_NS; all 0: no more.  Holds, kicks and the leash's gate are as ever, and seen a
 * millisecond later at most.
 * @permille: one for each vCPU, at most 1000.  One caller at a time.
 * -EAGAIN no thread for it: nothing is changed.
 */
#define HV_THROTTLE_PERIOD_NS 10000000ULL
BASE_MUST_CHECK int hv_partition_throttle(struct hv_partition *partition, const uint32_t *permille,
					  struct base_error *err);
/* Page faults of each vCPU that KVM has mended since the last call: while writes are tracked, who
 * writes has them.  False: KVM does not say.  The caller is that of the above. */
bool hv_partition_faults(struct hv_partition *partition, uint64_t *ret_faults);

int hv_partition_kvm_fd(const struct hv_partition *partition);
int hv_partition_vm_fd(const struct hv_partition *partition);
uint32_t hv_partition_vcpu_count(const struct hv_partition *partition);
int hv_partition_vcpu_fd(const struct hv_partition *partition, uint32_t vcpu);
struct hv_slat *hv_partition_slat(const struct hv_partition *partition);
/* Exits to user space of all vCPUs so far.  Any thread. */
void hv_partition_exits(const struct hv_partition *partition, struct hv_exit_counts *ret_counts);

/* One vCPU's exits so far, and why the last one was (KVM_EXIT_*).  Any thread; while it runs the
 * two need not belong together. */
void hv_partition_vcpu_exits(const struct hv_partition *partition, uint32_t vcpu,
			     uint64_t *ret_count, uint32_t *ret_reason);

/* Raise @vector on a vCPU, edge-triggered, as its local APIC takes it.  Any thread. */
void hv_partition_interrupt(struct hv_partition *partition, uint32_t vcpu, uint8_t vector);
/* Drive an interrupt line of the chips.  Any thread. */
void hv_partition_irq(struct hv_partition *partition, uint32_t gsi, int level);

#endif
