/* SPDX-License-Identifier: Apache-2.0 */
/* Ring 3's side of the border: calls to the supervisor half, and small CPU access. */
#ifndef GUEST_CALL_H
#define GUEST_CALL_H

#include <stdint.h>

#include "tests/guest/guest_super.h"

struct guest_cpuid {
	uint32_t eax, ebx, ecx, edx;
};

#ifdef GUEST_ON_HOST /* the drivers run in a test: tests/support/guest_host.h */
uint64_t guest_call(uint64_t number, uint64_t a, uint64_t b, uint64_t c);
struct guest_cpuid guest_cpuid(uint32_t leaf);
#else

/** guest_call - one call (SUPER_* in guest_super.h); costs some 80 us where CPL 0 is emulated. */
static inline uint64_t guest_call(uint64_t number, uint64_t a, uint64_t b, uint64_t c)
{
	uint64_t rax = SUPER_CALL_BASE + number;

	__asm__ volatile("ud2" : "+a"(rax), "+D"(a), "+S"(b), "+d"(c) : : "rcx", "memory");
	return rax;
}

/** guest_cpuid - as CPL 0 sees it: in ring 3 CPUID may answer for the host. */
static inline struct guest_cpuid guest_cpuid(uint32_t leaf)
{
	uint64_t rax = SUPER_CALL_BASE + SUPER_CPUID, rbx, rcx, rdx, rdi = leaf;

	__asm__ volatile("ud2"
			 : "+a"(rax), "=b"(rbx), "=c"(rcx), "=d"(rdx), "+D"(rdi)
			 :
			 : "memory");
	return (struct guest_cpuid){ (uint32_t)rax, (uint32_t)rbx, (uint32_t)rcx, (uint32_t)rdx };
}

struct guest_sample {
	uint64_t pit, tsc, apic;
};

static inline struct guest_sample guest_sample(void)
{
	struct guest_sample sample = { SUPER_CALL_BASE + SUPER_SAMPLE, 0, 0 };

	__asm__ volatile("ud2"
			 : "+a"(sample.pit), "=d"(sample.tsc), "=c"(sample.apic)
			 :
			 : "memory");
	return sample;
}

#endif

static inline uint64_t guest_tsc(void)
{
	uint32_t low, high;

	__asm__ volatile("rdtsc" : "=a"(low), "=d"(high) : : "memory");
	return low | ((uint64_t)high << 32);
}

/* Exactly one 8 byte access each: an MMIO exit must not depend on what a compiler fancies. */
static inline uint64_t guest_mmio_read(uint64_t address)
{
	uint64_t value;

	__asm__ volatile("movq (%1), %0" : "=r"(value) : "r"(address) : "memory");
	return value;
}

static inline void guest_mmio_write(uint64_t address, uint64_t value)
{
	__asm__ volatile("movq %0, (%1)" : : "r"(value), "r"(address) : "memory");
}

#endif
