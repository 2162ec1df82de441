/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The parts of hv_machine_dump() (machine.h), for machine_dump.c, vcpu_dump.c, synic_dump.c and
 * their tests.  The text is for people: docs/hypervisor/hyperv.md, "Reading a dump".
 *
 * Everything that is shown is the guest's: it is copied once, printed as numbers, and of bounded
 * length whatever it holds (HV_DUMP_VCPU_BYTES_MAX).
 */
#ifndef HYPERVISOR_MACHINE_DUMP_PRIV_H
#define HYPERVISOR_MACHINE_DUMP_PRIV_H

#include <linux/kvm.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>

#include "hypervisor/slat.h"
#include "hypervisor/synic.h"

#define HV_DUMP_WAIT_MS        2000u /* a vCPU that is not stuck takes far below one */
#define HV_DUMP_RANGES_MAX     16u   /* of one list of vectors or flags */
#define HV_DUMP_VCPU_BYTES_MAX 10240u
#define HV_DUMP_CODE_BEFORE    8u /* bytes shown before RIP: HLT's RIP is behind it */
#define HV_DUMP_CODE_BYTES     24u

/* What KVM is asked for, in this order; each may fail by itself. */
enum hv_vcpu_part {
	HV_VCPU_PART_MP_STATE,
	HV_VCPU_PART_EVENTS,
	HV_VCPU_PART_REGS,
	HV_VCPU_PART_SREGS,
	HV_VCPU_PART_LAPIC,
	HV_VCPU_PARTS
};

/* A virtual processor at one instant.  A value. */
struct hv_vcpu_dump {
	int code[HV_VCPU_PARTS]; /* 0, or a negative errno: that part was not read */
	struct kvm_mp_state mp_state;
	struct kvm_vcpu_events events;
	struct kvm_regs regs;
	struct kvm_sregs sregs;
	struct kvm_lapic_state lapic;
	bool has_tsc;
	bool has_deadline;
	uint64_t tsc;
	uint64_t deadline;                             /* MSR 0x6E0 */
	uint64_t code_gpa;                             /* where RIP is; UINT64_MAX unknown */
	uint32_t code_valid;                           /* bit i: instruction_bytes[i] was read */
	uint8_t instruction_bytes[HV_DUMP_CODE_BYTES]; /* from HV_DUMP_CODE_BEFORE before RIP */
};

/* Of a parked vCPU.  Cannot fail: what could not be read is said in the result. */
void hv_vcpu_dump_get(int vcpu_fd, const struct hv_slat *slat, struct hv_vcpu_dump *ret_dump);
/* Lines, indented by two spaces.  Pure but for @out. */
void hv_vcpu_dump_print(const struct hv_vcpu_dump *dump, FILE *out);

/* The SynIC of @vp: registers, and of each SINT that is not off and empty what waits.  Any thread;
 * a lock that is not to be had (its holder is stuck) is said instead. */
void hv_synic_dump(struct hv_synic *synic, uint32_t vp, FILE *out);

/* The set ones of @count bits (bit i of byte n is number 8 * n + i) as "3,17-19", "none" without;
 * behind HV_DUMP_RANGES_MAX ranges how many more there are. */
void hv_dump_bits(const uint8_t *bits, uint32_t count, FILE *out);

#endif
