/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The sections of a saved state that describe the machine as a whole: "machine" and
 * "time" ("cpuid" is hypervisor/cpuid_table.h's own encoding).  Pure values.
 * Layout: docs/hypervisor/saved-state.md.
 */
#ifndef HYPERVISOR_MACHINE_SECTIONS_H
#define HYPERVISOR_MACHINE_SECTIONS_H

#include <stdbool.h>
#include <stdint.h>

#include "base/bytes.h"
#include "base/error.h"
#include "hypervisor/hv_limits.h"

#define HV_CPUID_SECTION_VERSION 1u

#define HV_MACHINE_SECTION_VERSION 1u
struct hv_machine_section {
	char name[HV_NAME_BYTES]; /* always terminated, zeros behind */
	uint64_t memory_bytes;
	uint32_t vcpu_count;
	uint32_t cpu_model; /* enum hv_cpu_model: for people; "cpuid" is what counts */
	bool has_test_page;
};
void hv_machine_section_encode(const struct hv_machine_section *section, struct base_buffer *out);
BASE_MUST_CHECK int hv_machine_section_decode(struct base_reader *in, uint32_t version,
					      struct hv_machine_section *ret_section,
					      struct base_error *err);

#define HV_TIME_SECTION_VERSION 2u /* 1: without host_sets_date */
struct hv_time_section {
	uint64_t host_real_ns; /* date of the saving host at the save */
	uint64_t host_boot_ns; /* its CLOCK_BOOTTIME */
	uint8_t boot_id[16];   /* which boot that clock belongs to; zeros: unknown */
	uint64_t guest_ns;     /* guest time since its creation */
	uint64_t tsc_khz;      /* 0: unknown */
	uint32_t vcpu_count;
	uint64_t tsc[HV_VCPUS_MAX]; /* as the guest read it */
	bool host_sets_date;        /* the guest sets its date to the host's when told to */
};
void hv_time_section_encode(const struct hv_time_section *section, struct base_buffer *out);
BASE_MUST_CHECK int hv_time_section_decode(struct base_reader *in, uint32_t version,
					   struct hv_time_section *ret_section,
					   struct base_error *err);

/*
 * What of @elapsed_ns, the time from save to restore, goes by for the guest.  All, or its clock
 * would be late; but nothing of a long gap where the guest's date is set from outside: its kernel
 * would take the gap for processors that stood still (Linux after 20 s) and report or panic.
 */
#define HV_TIME_GAP_MAX_NS 5000000000ULL
uint64_t hv_time_gap_ns(const struct hv_time_section *section, uint64_t elapsed_ns);

#endif
