/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The guest of the host probe: six pages of memory, one vCPU, ring 3 from its first
 * instruction.  For host_probe.c only.
 */
#ifndef HYPERVISOR_PROBE_GUEST_H
#define HYPERVISOR_PROBE_GUEST_H

#include <stdbool.h>
#include <stdint.h>

#include "hypervisor/cpuid_table.h"

struct hv_probe_answer {
	bool tsc_offset_honoured;
	bool tsc_write_honoured;
	uint64_t tsc_khz;
	struct hv_cpuid_table seen;
};

/* See hv_host_probe(), whose errors these are. */
BASE_MUST_CHECK int hv_probe_guest_run(int kvm_fd, const struct hv_cpuid_table *give,
				       struct hv_probe_answer *ret_answer, struct base_error *err);

#endif
