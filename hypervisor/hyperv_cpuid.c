/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the guest is told by CPUID.  Bits: docs/hypervisor/hyperv.md, "Leaves".
 */
#include "hypervisor/hyperv.h"

#define ACCESS_REFERENCE_TIME (1u << 1)
#define ACCESS_SYNIC          (1u << 2)
#define ACCESS_HYPERCALL      (1u << 5)
#define ACCESS_VP_INDEX       (1u << 6)
#define ACCESS_RESET          (1u << 7)
#define ACCESS_REFERENCE_TSC  (1u << 9)
#define ACCESS_FREQUENCIES    (1u << 11)
#define POST_MESSAGES         (1u << 4)
#define SIGNAL_EVENTS         (1u << 5)
#define HAS_FREQUENCIES       (1u << 8)
#define HAS_CRASH             (1u << 10)
#define RELAXED_TIMING        (1u << 5) /* no watchdog over timer ticks */
#define NO_AUTO_EOI           (1u << 9)
#define NEVER_NOTIFY          UINT32_MAX /* of long spinning */
#define LOGICAL_PROCESSORS    64u

int hv_hyperv_cpuid(struct hv_cpuid_table *table, uint32_t vp_count, struct base_error *err)
{
	const struct hv_cpuid_entry leaves[] = {
		/* "Microsoft Hv", without which no guest goes on; "Hv#1"; version 10.0.14393 */
		{ .function = 0x40000000,
		  .eax = 0x40000006,
		  .ebx = 0x7263694d,
		  .ecx = 0x666f736f,
		  .edx = 0x76482074 },
		{ .function = 0x40000001, .eax = 0x31237648 },
		{ .function = 0x40000002, .eax = 14393, .ebx = 10u << 16 },
		{ .function = 0x40000003,
		  .eax = ACCESS_REFERENCE_TIME | ACCESS_SYNIC | ACCESS_HYPERCALL | ACCESS_VP_INDEX |
			 ACCESS_RESET | ACCESS_REFERENCE_TSC | ACCESS_FREQUENCIES,
		  .ebx = POST_MESSAGES | SIGNAL_EVENTS,
		  .edx = HAS_FREQUENCIES | HAS_CRASH },
		{ .function = 0x40000004,
		  .eax = RELAXED_TIMING | NO_AUTO_EOI,
		  .ebx = NEVER_NOTIFY },
		{ .function = 0x40000005, .eax = vp_count, .ebx = LOGICAL_PROCESSORS },
	};
	int r = 0;

	hv_cpuid_remove(table, 0x40000000, 0x4000ffff);
	for (size_t i = 0; i < sizeof(leaves) / sizeof(leaves[0]) && r >= 0; i++)
		r = hv_cpuid_set(table, leaves[i], err);
	return r;
}
