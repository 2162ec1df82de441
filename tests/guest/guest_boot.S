/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Entry (PVH: 32-bit protected mode, paging off, EBX = hvm_start_info), the way
 * to long mode for every vCPU, page tables, descriptor tables, exception and
 * timer entries.  Every instruction at CPL 0 may cost microseconds where KVM
 * emulates it, so what can be laid out at build time is.
 *
 * Map: user half  0 .. 3 GiB identity (2 MiB pages, user), more above 4 GiB
 *      added at run time, the device hole absent but for the test page;
 *      kernel half SUPER_HIGH_BASE = physical 0..1 GiB, and the device hole at
 *      0xffffffffc0000000, both supervisor only.
 */
#include "guest_super.h"

#define PTE_TABLE 0x67	/* present, writable, user, accessed, dirty */
#define PTE_LARGE 0xe7	/* the same, 2 MiB page */
#define PTE_DEVICE 0xfb /* present, writable, supervisor, uncached, 2 MiB page */

	.section .note.pvh, "a", @note
	.long 4, 8, 18 /* XEN_ELFNOTE_PHYS32_ENTRY */
	.asciz "Xen"
	.quad pvh_start

	.section .boot, "awx"
	.code32
	.globl pvh_start
pvh_start:
	cli
	cld
	movl $boot_text, %esi
	movl $(boot_text_end - boot_text), %ecx
	movl $SUPER_SERIAL_PORT, %edx
	rep outsb
	movl %ebx, guest_start_info
	lgdt gdt_pointer_low

/* Every vCPU: 32-bit flat, paging off.  The GDT is loaded. */
boot_long:
	movl $0x620, %eax /* PAE, OSFXSR, OSXMMEXCPT */
	movl %eax, %cr4
	movl $page_pml4, %eax
	movl %eax, %cr3
	movl $0xc0000080, %ecx /* EFER */
	rdmsr
	orl $0x100, %eax /* LME */
	wrmsr
	movl $0x80050033, %eax /* PG, AM, WP, NE, ET, MP, PE */
	movl %eax, %cr0
	ljmp $SUPER_KERNEL_CS, $boot_64

	.code64
boot_64:
	movabsq $high_start, %rax
	jmp *%rax

boot_text:
	.ascii "guest: boot\r\n"
boot_text_end:

	.balign 8
	.globl guest_start_info
guest_start_info:
	.quad 0
	.word 0, 0, 0
gdt_pointer_low:
	.word gdt_end - gdt - 1
	.long gdt_low

/* Copied to SUPER_TRAMPOLINE; runs there with CS = SUPER_TRAMPOLINE >> 4. */
	.section .text.super, "ax"
	.globl trampoline, trampoline_end
	.code16
trampoline:
	cli
	xorw %ax, %ax
	movw %ax, %ds
	lgdtl SUPER_TRAMPOLINE + trampoline_gdt - trampoline
	movl %cr0, %eax
	orb $1, %al
	movl %eax, %cr0
	ljmpl $0x8, $(SUPER_TRAMPOLINE + trampoline_32 - trampoline)
	.code32
trampoline_32:
	movw $SUPER_KERNEL_DS, %ax
	movw %ax, %ds
	movw %ax, %es
	movw %ax, %ss
	movl $boot_long, %eax
	jmp *%eax
	.balign 4
trampoline_gdt:
	.word gdt_end - gdt - 1
	.long gdt_low
trampoline_end:

	.code64
high_start:
	movl $SUPER_KERNEL_DS, %eax
	movl %eax, %ss
	xorl %eax, %eax
	movl %eax, %ds
	movl %eax, %es
	movl %eax, %fs
	movl %eax, %gs
	lgdt gdt_pointer
	movl super_next_vcpu(%rip), %edi
	movl %edi, %eax
	incl %eax
	shll $12, %eax
	leaq super_stacks(%rax), %rsp
	movl %edi, %ebx
	call super_vcpu_init /* GDT entry, LTR, LIDT, local APIC */
	fninit
	pushq $SUPER_USER_DS
	movl %ebx, %eax
	incl %eax
	shll $14, %eax /* 16 KiB of user stack per vCPU */
	movabsq $guest_stacks, %rcx
	addq %rcx, %rax
	subq $8, %rax /* as if called */
	pushq %rax
	pushq $0x202
	pushq $SUPER_USER_CS
	movabsq $guest_main, %rax
	pushq %rax
	movl %ebx, %edi
	iretq

/* The 100 Hz tick: counted in the first word of the vCPU's kernel stack page. */
	.globl super_timer_entry, super_hv_entry, super_stray_entry
super_timer_entry:
	pushq %rax
	movq %rsp, %rax
	andq $-SUPER_STACK_BYTES, %rax
	incq SUPER_COUNT_TICKS(%rax)
	movl $0, SUPER_LAPIC_BASE + 0xb0 /* EOI */
	popq %rax
super_stray_entry:
	iretq

/* The SynIC's interrupt: counted, the rest is ring 3's. */
super_hv_entry:
	pushq %rax
	movq %rsp, %rax
	andq $-SUPER_STACK_BYTES, %rax
	incq SUPER_COUNT_HV(%rax)
	movl $0, SUPER_LAPIC_BASE + 0xb0 /* EOI */
	popq %rax
	iretq

	.macro vector number
	.balign 16
	/* 8, 10 .. 14, 17 and 21 come with an error code of their own */
	.if !((0x227d00 >> \number) & 1)
	pushq $0
	.endif
	pushq $\number
	jmp trap_common
	.endm

	.balign 16
	.globl super_vectors
super_vectors: /* 32 entries, 16 bytes each */
	.set n, 0
	.rept 32
	vector n
	.set n, n + 1
	.endr

	.balign 16
trap_common:
	pushq %rax
	pushq %rcx
	pushq %rdx
	pushq %rbx
	pushq %rbp
	pushq %rsi
	pushq %rdi
	pushq %r8
	pushq %r9
	pushq %r10
	pushq %r11
	pushq %r12
	pushq %r13
	pushq %r14
	pushq %r15
	movq %rsp, %rdi
	call super_trap
	popq %r15
	popq %r14
	popq %r13
	popq %r12
	popq %r11
	popq %r10
	popq %r9
	popq %r8
	popq %rdi
	popq %rsi
	popq %rbp
	popq %rbx
	popq %rdx
	popq %rcx
	popq %rax
	addq $16, %rsp
	iretq

	.section .data.super, "aw"
	.balign 8
	.globl gdt
gdt:
	.quad 0
	.quad 0x00cf9b000000ffff /* 0x08 kernel, 32-bit */
	.quad 0x00af9b000000ffff /* 0x10 kernel, 64-bit */
	.quad 0x00cf93000000ffff /* 0x18 kernel data */
	.quad 0x00cffb000000ffff /* 0x20 user, 32-bit */
	.quad 0x00cff3000000ffff /* 0x28 user data */
	.quad 0x00affb000000ffff /* 0x30 user, 64-bit */
	.quad 0
	.fill SUPER_VCPUS_MAX * 2, 8, 0 /* 0x40 on: one TSS per vCPU */
gdt_end:
	.set gdt_low, gdt - SUPER_HIGH_BASE
	.word 0, 0, 0
gdt_pointer:
	.word gdt_end - gdt - 1
	.quad gdt

/* Page tables, in the low (physical) part of the image. */
	.section .boot.tables, "aw"
	.balign 4096
	.globl page_pdpt_user, page_table_test, page_dir_hole_user
page_pml4:
	.quad page_pdpt_user + PTE_TABLE
	.fill 510, 8, 0
	.quad page_pdpt_kernel + 0x63 /* no user bit: all below is supervisor only */
page_pdpt_user:
	.quad page_dir_low + PTE_TABLE
	.quad page_dir_low + 0x1000 + PTE_TABLE
	.quad page_dir_low + 0x2000 + PTE_TABLE
	.quad page_dir_hole_user + PTE_TABLE
	.fill 508, 8, 0
page_pdpt_kernel:
	.fill 510, 8, 0
	.quad page_dir_low + PTE_TABLE
	.quad page_dir_hole_kernel + 0x63
page_dir_low:
	.set n, 0
	.rept 512 * 3
	.quad (n << 21) + PTE_LARGE
	.set n, n + 1
	.endr
page_dir_hole_kernel:
	.set n, 512 * 3
	.rept 512
	.quad (n << 21) + PTE_DEVICE
	.set n, n + 1
	.endr
page_dir_hole_user:
	.fill 512, 8, 0
page_table_test:
	.fill 512, 8, 0

	.section .note.GNU-stack, "", @progbits
