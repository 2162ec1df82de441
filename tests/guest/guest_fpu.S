/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The C code of the guest uses general registers only, so the vector registers
 * hold what is put there until the next look: whoever saves and restores the
 * machine must bring them back.  RDI: GUEST_FPU_BYTES, 32 aligned; a register's
 * slot is 32 bytes, of which the XMM forms use 16.
 */
	.macro each instruction, prefix, store
	.set slot, 0
	.irp n, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15
	.if \store
	\instruction %\prefix\n, slot(%rdi)
	.else
	\instruction slot(%rdi), %\prefix\n
	.endif
	.set slot, slot + 32
	.endr
	.endm

	.text
	.globl guest_fpu_load_xmm, guest_fpu_store_xmm, guest_fpu_load_ymm, guest_fpu_store_ymm
guest_fpu_load_xmm:
	each movups, xmm, 0
	ret
guest_fpu_store_xmm:
	each movups, xmm, 1
	ret
guest_fpu_load_ymm:
	each vmovups, ymm, 0
	ret
guest_fpu_store_ymm:
	each vmovups, ymm, 1
	ret

	.section .note.GNU-stack, "", @progbits
