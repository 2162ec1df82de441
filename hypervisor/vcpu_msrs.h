/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The model-specific registers that belong to a virtual processor's saved state.
 */
#ifndef HYPERVISOR_VCPU_MSRS_H
#define HYPERVISOR_VCPU_MSRS_H

#include <linux/kvm.h>
#include <stdbool.h>
#include <stdint.h>

#include "base/error.h"

#define HV_MSR_TSC          0x10u
#define HV_MSR_TSC_DEADLINE 0x6e0u

/* Is it one that a saved state may hold?  Pure. */
bool hv_msr_is_saved(uint32_t index);

/**
 * hv_msrs_get - read those of the list that this host's KVM has and lets be read.
 * @ret_msrs: @capacity entries, filled ascending.
 * Any thread; which MSRs KVM has is asked once per process.
 */
BASE_MUST_CHECK int hv_msrs_get(int kvm_fd, int vcpu_fd, struct kvm_msr_entry *ret_msrs,
				uint32_t capacity, uint32_t *ret_count, struct base_error *err);
/**
 * hv_msrs_put - write all but the TSC deadline.
 * One that this host does not take is left out when its value is that after reset;
 * otherwise -ENOTSUP with index and value.
 */
BASE_MUST_CHECK int hv_msrs_put(int vcpu_fd, const struct kvm_msr_entry *msrs, uint32_t count,
				struct base_error *err);

/* One MSR.  -ENOTSUP KVM does not let it be read or written. */
BASE_MUST_CHECK int hv_msr_get(int vcpu_fd, uint32_t index, uint64_t *ret_value,
			       struct base_error *err);
BASE_MUST_CHECK int hv_msr_set(int vcpu_fd, uint32_t index, uint64_t value, struct base_error *err);

#endif
