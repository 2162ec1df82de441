/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The border between the test guest's two halves.  Ring 3 "calls" CPL 0 with
 * UD2, because SYSCALL and INT n do not reach it on every KVM; RAX holds
 * SUPER_CALL_BASE + one of the numbers below, RDI, RSI and RDX the arguments,
 * and RAX the answer (SUPER_SAMPLE and SUPER_CPUID answer in more registers).
 * Included by assembly too: plain #defines only.
 */
#ifndef GUEST_SUPER_H
#define GUEST_SUPER_H

#define SUPER_VCPUS_MAX     64
#define SUPER_HIGH_BASE     0xffffffff80000000 /* physical 0..1 GiB, supervisor only */
#define SUPER_LAPIC_BASE    0xfffffffffee00000 /* the local APIC, uncached, supervisor only */
#define SUPER_STACK_BYTES   4096
#define SUPER_TRAMPOLINE    0x8000 /* where a started vCPU wakes up in real mode */
#define SUPER_VECTOR_TIMER  0x40
#define SUPER_VECTOR_HV     0x50 /* SINT 2 of the SynIC */
#define SUPER_VECTOR_STRAY  0xff
#define SUPER_SERIAL_PORT   0x3f8
#define SUPER_HOLE_START    0xc0000000 /* device hole: mapped for CPL 0 only */
#define SUPER_HOLE_END      0x100000000
#define SUPER_CMDLINE_BYTES 2048

#define SUPER_KERNEL_CS 0x10
#define SUPER_KERNEL_DS 0x18
#define SUPER_USER_DS   0x2b
#define SUPER_USER_CS   0x33
#define SUPER_TSS       0x40 /* one 16 byte descriptor per vCPU from here on */

#define SUPER_CALL_BASE    0x6775657374000000
#define SUPER_PRINT        0x01 /* (text, bytes): the whole string in one REP OUTSB */
#define SUPER_PORT_OUT     0x02 /* (port, value, width in bytes) */
#define SUPER_PORT_IN      0x03 /* (port, 0, width in bytes) -> value */
#define SUPER_APIC_WRITE   0x04 /* (register offset, value) */
#define SUPER_APIC_READ    0x05 /* (register offset) -> value */
#define SUPER_SAMPLE       0x06 /* () -> RAX: PIT count, RDX: TSC, RCX: APIC timer count */
#define SUPER_MAP_GIB      0x07 /* (GiB number >= 4, physical address of its page directory) */
#define SUPER_MAP_TESTPAGE 0x08 /* (physical address in the device hole) */
#define SUPER_PREPARE_VCPU 0x09 /* (vCPU number): next one to come out of the trampoline */
#define SUPER_IDLE         0x0a /* (): HLT until the next interrupt */
#define SUPER_STOP         0x0b /* (): HLT for ever, interrupts off */
#define SUPER_TRIPLE_FAULT 0x0c /* () */
#define SUPER_ENABLE_AVX   0x0d /* () -> 1: this vCPU may use YMM; 0: it has none */
#define SUPER_CPUID        0x0e /* (leaf) -> RAX, RBX, RCX, RDX: ring 3 may see the host's */
#define SUPER_MSR_READ     0x0f /* (number) -> value */
#define SUPER_MSR_WRITE    0x10 /* (number, value) */
#define SUPER_HYPERCALL    0x11 /* (physical address of the page, control, input) -> RAX */
#define SUPER_WAIT         0x12 /* (count): HLT, unless SUPER_VECTOR_HV has come oftener */
#define SUPER_IOPL         0x13 /* (level): ring 3 may use ports, level 3, or may not, 0 */
/* (physical address of the page, or 0: read a port here; count; port) -> answers that were not all
 * ones: the same fast call again and again */
#define SUPER_CALLS        0x14

#define SUPER_CALL_SPIN_WAIT 0x10008 /* control of the call of SUPER_CALLS: code and fast */

/* Counters in the first words of each vCPU's kernel stack page, which ring 3 reads. */
#define SUPER_COUNT_TICKS 0
#define SUPER_COUNT_HV    8

#endif
