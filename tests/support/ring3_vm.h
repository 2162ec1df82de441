/* SPDX-License-Identifier: Apache-2.0 */
/*
 * For benchmarks: a bare KVM VM of 1 GiB whose vCPUs do nothing but write to pages of a
 * list, in ring 3, round after round, with either of KVM's two ways of dirty tracking.
 * No Godwit code lies between the caller and KVM.
 *
 * vCPU v of n works on the v-th of n equal parts of the list.  Each write also counts up a
 * word in a page of the vCPU's own, so a harvest names one page per vCPU besides.
 * One thread drives it.
 */
#ifndef SUPPORT_RING3_VM_H
#define SUPPORT_RING3_VM_H

#include <stdbool.h>
#include <stdint.h>

#include "base/error.h"
#include "hypervisor/memory.h"

#define RING3_PAGE_COUNT  262144u /* 1 GiB */
#define RING3_FIRST_PAGE  4096u   /* below it: page tables, code, counters, the list */
#define RING3_LIST_MAX    65536u
#define RING3_VCPUS_MAX   4u
#define RING3_WORD_COUNT  (RING3_PAGE_COUNT / 64)
#define RING3_ENTRIES_MAX 65536u /* of a ring; KVM's limit */

struct ring3_vm;

enum ring3_tracking {
	RING3_TRACK_INVALID,
	RING3_LOG,  /* KVM_GET_DIRTY_LOG, KVM_CLEAR_DIRTY_LOG; manual protect, initially all set */
	RING3_RING, /* a ring per vCPU, KVM_RESET_DIRTY_RINGS */
	RING3_TRACKINGS
};

struct ring3_opts {
	int kvm_fd;               /* borrowed */
	struct hv_memory *memory; /* 1 GiB, populated; borrowed */
	uint32_t vcpu_count;
	enum ring3_tracking tracking;
	uint32_t ring_entries; /* a power of two, 1024..RING3_ENTRIES_MAX; RING3_RING only */
	const uint32_t *pages; /* the list: numbers from RING3_FIRST_PAGE; borrowed during the call
				*/
	uint32_t page_count;
};

/* -ENOTSUP: this KVM has no such tracking.  Other errno of KVM with context. */
BASE_MUST_CHECK int ring3_vm_new(const struct ring3_opts *opts, struct ring3_vm **ret_vm,
				 struct base_error *err);
void ring3_vm_free(struct ring3_vm *vm); /* NULL is fine; stops it */

BASE_MUST_CHECK int ring3_vm_run(struct ring3_vm *vm, struct base_error *err);
/* -EIO: a vCPU had ended on an exit that should not come. */
BASE_MUST_CHECK int ring3_vm_pause(struct ring3_vm *vm, struct base_error *err);
uint64_t ring3_vm_writes(const struct ring3_vm *vm); /* so far, all vCPUs */

/* Turn the slot's tracking on or off: one KVM_SET_USER_MEMORY_REGION. */
BASE_MUST_CHECK int ring3_vm_track(struct ring3_vm *vm, bool on, struct base_error *err);
/* Name and forget: @into has RING3_WORD_COUNT words, overwritten.  The VM may run. */
BASE_MUST_CHECK int ring3_vm_harvest(struct ring3_vm *vm, uint64_t *into, struct base_error *err);
/* Exits because a ring was full. */
uint64_t ring3_vm_full_count(const struct ring3_vm *vm);

#endif
