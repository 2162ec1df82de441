/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The supervisor half of the test guest: descriptor tables, local APIC, the
 * calls that ring 3 makes, and the last words after an unexpected exception.
 * Where KVM emulates CPL 0 every instruction costs about 2 us, so anything that
 * can be done in ring 3 is done there.  General registers only; each vCPU runs
 * on its own stack with interrupts off.
 */
#include <stddef.h>
#include <stdint.h>

#include "guest_super.h"

#define VECTORS          256
#define VECTOR_UD        6
#define UD2_OPCODE       0x0b0f
#define GATE_INTERRUPT   0x8e00
#define TSS_BYTES        104
#define TSS_DESCRIPTOR   0x890000000000ULL
#define APIC_TPR         0x080
#define APIC_SVR         0x0f0
#define APIC_LVT_TIMER   0x320
#define APIC_LVT_LINT0   0x350
#define APIC_LVT_LINT1   0x360
#define APIC_TIMER_COUNT 0x390
#define APIC_MASKED      0x10000
#define RFLAGS_IOPL      0x3000ULL
#define CR4_OSXSAVE      0x40000
#define CPUID_1_ECX_AVX  0x14000000 /* XSAVE and AVX */
#define XCR0_AVX         7          /* x87, SSE, AVX */
#define PTE_TABLE        0x67       /* present, writable, user, accessed, dirty */
#define PTE_UNCACHED     0x7f       /* the same, PWT and PCD */
#define LINE_BYTES       400

/* As guest_boot.S pushes it. */
struct super_frame {
	uint64_t r15, r14, r13, r12, r11, r10, r9, r8;
	uint64_t rdi, rsi, rbp, rbx, rdx, rcx, rax;
	uint64_t vector, error_code;
	uint64_t rip, cs, rflags, rsp, ss;
};

struct super_pointer {
	uint16_t limit;
	uint64_t base;
} __attribute__((packed));

struct super_tss { /* 64-bit TSS, only the ring 0 stack is used */
	uint32_t reserved;
	uint32_t rsp0_low, rsp0_high;
	uint32_t unused[22];
	uint32_t io_map; /* high half: beyond the limit, no ring 3 port is allowed */
};

struct super_gate {
	uint64_t low, high;
};

/* The page tables by their kernel half address: guest.ld. */
extern uint64_t gdt[], super_pdpt_user[], super_dir_hole[], super_table_test[];
extern const uint8_t super_vectors[], trampoline[], trampoline_end[];
void super_timer_entry(void);
void super_stray_entry(void);
void super_hv_entry(void);
void super_vcpu_init(uint64_t vcpu);
void super_trap(struct super_frame *frame);

uint8_t super_stacks[SUPER_VCPUS_MAX][SUPER_STACK_BYTES] __attribute__((aligned(4096)));
uint32_t super_next_vcpu;

static struct super_tss tss[SUPER_VCPUS_MAX] __attribute__((aligned(64)));
static struct super_gate idt[VECTORS] __attribute__((aligned(16)));

static void port_out(uint16_t port, uint32_t value, uint64_t width)
{
	if (width == 1)
		__asm__ volatile("outb %b0, %w1" : : "a"(value), "Nd"(port));
	else if (width == 2)
		__asm__ volatile("outw %w0, %w1" : : "a"(value), "Nd"(port));
	else
		__asm__ volatile("outl %0, %w1" : : "a"(value), "Nd"(port));
}

static uint32_t port_in(uint16_t port, uint64_t width)
{
	uint32_t value = 0;

	if (width == 1)
		__asm__ volatile("inb %w1, %b0" : "+a"(value) : "Nd"(port));
	else if (width == 2)
		__asm__ volatile("inw %w1, %w0" : "+a"(value) : "Nd"(port));
	else
		__asm__ volatile("inl %w1, %0" : "=a"(value) : "Nd"(port));
	return value;
}

static void apic_write(uint64_t offset, uint32_t value)
{
	*(volatile uint32_t *)(SUPER_LAPIC_BASE + offset) = value;
}

static uint32_t apic_read(uint64_t offset)
{
	return *(volatile uint32_t *)(SUPER_LAPIC_BASE + offset);
}

static void print(const char *text, uint64_t bytes)
{
	__asm__ volatile("rep outsb"
			 : "+S"(text), "+c"(bytes)
			 : "d"((uint16_t)SUPER_SERIAL_PORT)
			 : "memory");
}

static void stop(void)
{
	for (;;)
		__asm__ volatile("cli; hlt");
}

static void triple_fault(void)
{
	static const struct super_pointer nothing;

	__asm__ volatile("lidt %0; ud2" : : "m"(nothing));
	stop();
}

static char *add_field(char *at, const char *name, uint64_t value)
{
	while (*name != '\0')
		*at++ = *name++;
	for (int shift = 60; shift >= 0; shift -= 4)
		*at++ = "0123456789abcdef"[(value >> shift) & 15];
	return at;
}

static void fatal(const struct super_frame *frame, uint64_t vcpu)
{
	char line[LINE_BYTES];
	uint64_t cr2;
	char *at = line;

	__asm__ volatile("mov %%cr2, %0" : "=r"(cr2));
	at = add_field(at, "guest: FATAL vector=0x", frame->vector);
	at = add_field(at, " error=0x", frame->error_code);
	at = add_field(at, " vcpu=0x", vcpu);
	at = add_field(at, " rip=0x", frame->rip);
	at = add_field(at, " cs=0x", frame->cs);
	at = add_field(at, " rsp=0x", frame->rsp);
	at = add_field(at, " cr2=0x", cr2);
	at = add_field(at, " rax=0x", frame->rax);
	at = add_field(at, " rdi=0x", frame->rdi);
	*at++ = '\r';
	*at++ = '\n';
	print(line, (uint64_t)(at - line));
	stop();
}

static void gate_set(unsigned int vector, uint64_t entry)
{
	idt[vector].low = (entry & 0xffff) | ((uint64_t)SUPER_KERNEL_CS << 16) |
			  ((uint64_t)GATE_INTERRUPT << 32) | ((entry & 0xffff0000) << 32);
	idt[vector].high = entry >> 32;
}

static void tables_init(void)
{
	for (unsigned int i = 0; i < 32; i++)
		gate_set(i, (uint64_t)&super_vectors[i * 16]);
	gate_set(SUPER_VECTOR_TIMER, (uint64_t)&super_timer_entry);
	gate_set(SUPER_VECTOR_HV, (uint64_t)&super_hv_entry);
	gate_set(SUPER_VECTOR_STRAY, (uint64_t)&super_stray_entry);
	port_out(0x21, 0xff, 1); /* both PICs masked */
	port_out(0xa1, 0xff, 1);
}

/* Called once on each vCPU, on its own stack, before it goes to ring 3. */
void super_vcpu_init(uint64_t vcpu)
{
	static const struct super_pointer idt_pointer = { sizeof(idt) - 1, (uint64_t)idt };
	uint64_t base = (uint64_t)&tss[vcpu];
	uint64_t stack = (uint64_t)super_stacks[vcpu + 1];
	uint64_t *descriptor = &gdt[SUPER_TSS / 8 + vcpu * 2];

	if (vcpu == 0)
		tables_init();
	tss[vcpu].rsp0_low = (uint32_t)stack;
	tss[vcpu].rsp0_high = (uint32_t)(stack >> 32);
	tss[vcpu].io_map = TSS_BYTES << 16;
	descriptor[0] = (TSS_BYTES - 1) | ((base & 0xffffff) << 16) | TSS_DESCRIPTOR |
			((base & 0xff000000) << 32);
	descriptor[1] = base >> 32;
	__asm__ volatile("lidt %0" : : "m"(idt_pointer));
	__asm__ volatile("ltr %w0" : : "r"((uint16_t)(SUPER_TSS + vcpu * 16)));
	apic_write(APIC_SVR, 0x100 | SUPER_VECTOR_STRAY);
	apic_write(APIC_TPR, 0);
	apic_write(APIC_LVT_TIMER, APIC_MASKED);
	apic_write(APIC_LVT_LINT0, APIC_MASKED);
	apic_write(APIC_LVT_LINT1, APIC_MASKED);
}

/* PIT channel 0, TSC and APIC timer, read as close together as can be. */
static void sample(struct super_frame *frame)
{
	uint32_t low, high, count;

	port_out(0x43, 0x00, 1); /* latch channel 0 */
	__asm__ volatile("rdtsc" : "=a"(low), "=d"(high));
	frame->rcx = apic_read(APIC_TIMER_COUNT);
	count = port_in(0x40, 1);
	count |= port_in(0x40, 1) << 8;
	frame->rax = count;
	frame->rdx = low | ((uint64_t)high << 32);
}

static void map_testpage(uint64_t address)
{
	uint64_t in_hole = address - SUPER_HOLE_START;
	uint64_t table = (uint64_t)super_table_test - SUPER_HIGH_BASE;

	super_table_test[(address >> 12) & 511] = (address & ~0xfffULL) | PTE_UNCACHED;
	super_dir_hole[(in_hole >> 21) & 511] = table | PTE_TABLE;
}

static void prepare_vcpu(uint64_t vcpu)
{
	uint8_t *to = (uint8_t *)(SUPER_HIGH_BASE + SUPER_TRAMPOLINE);
	const uint8_t *from = trampoline;
	uint64_t bytes = (uint64_t)(trampoline_end - trampoline);

	super_next_vcpu = (uint32_t)vcpu;
	__asm__ volatile("rep movsb" : "+S"(from), "+D"(to), "+c"(bytes) : : "memory");
}

static uint64_t enable_avx(void)
{
	uint32_t eax = 1, ebx, ecx = 0, edx;
	uint64_t cr4;

	/* Asked here, not in ring 3: there CPUID may answer for the host. */
	__asm__ volatile("cpuid" : "+a"(eax), "=b"(ebx), "+c"(ecx), "=d"(edx));
	if ((ecx & CPUID_1_ECX_AVX) != CPUID_1_ECX_AVX)
		return 0;
	__asm__ volatile("mov %%cr4, %0" : "=r"(cr4));
	__asm__ volatile("mov %0, %%cr4" : : "r"(cr4 | CR4_OSXSAVE));
	__asm__ volatile("xsetbv" : : "a"(XCR0_AVX), "d"(0), "c"(0));
	return 1;
}

static void cpuid(struct super_frame *frame)
{
	uint32_t eax = (uint32_t)frame->rdi, ebx, ecx = 0, edx;

	__asm__ volatile("cpuid" : "+a"(eax), "=b"(ebx), "+c"(ecx), "=d"(edx));
	frame->rax = eax;
	frame->rbx = ebx;
	frame->rcx = ecx;
	frame->rdx = edx;
}

static uint64_t msr_read(uint64_t number)
{
	uint32_t low, high;

	__asm__ volatile("rdmsr" : "=a"(low), "=d"(high) : "c"((uint32_t)number));
	return low | ((uint64_t)high << 32);
}

static void msr_write(uint64_t number, uint64_t value)
{
	__asm__ volatile("wrmsr"
			 :
			 : "c"((uint32_t)number), "a"((uint32_t)value), "d"((uint32_t)(value >> 32))
			 : "memory");
}

/* RCX: control, RDX and R8: input and output or the two halves of a fast input; RAX: status. */
static uint64_t hypercall(uint64_t page, uint64_t control, uint64_t input)
{
	register uint64_t output __asm__("r8") = 0;
	uint64_t entry = SUPER_HIGH_BASE + page, status;

	__asm__ volatile("call *%[entry]"
			 : "=a"(status), "+c"(control), "+d"(input), "+r"(output)
			 : [entry] "r"(entry)
			 : "memory", "r9", "r10", "r11");
	return status;
}

static uint64_t calls(uint64_t page, uint64_t count, uint16_t port)
{
	uint64_t taken = 0;

	for (uint64_t i = 0; i < count; i++) {
		uint32_t status = page != 0 ? (uint32_t)hypercall(page, SUPER_CALL_SPIN_WAIT, 0)
					    : port_in(port, 4);

		taken += status != UINT32_MAX;
	}
	return taken;
}

/* Interrupts are off here, and STI lets none in before HLT: none can be missed. */
static void wait_for_hv(const struct super_frame *frame)
{
	uint64_t page = (uint64_t)frame & ~(uint64_t)(SUPER_STACK_BYTES - 1);

	if (*(const volatile uint64_t *)(page + SUPER_COUNT_HV) == frame->rdi)
		__asm__ volatile("sti; hlt; cli" : : : "memory");
}

/* The calls of the Hyper-V side.  Return: 0, or -1 for a number that does not exist. */
static int call_hv(struct super_frame *frame)
{
	switch (frame->rax - SUPER_CALL_BASE) {
	case SUPER_CPUID:
		cpuid(frame);
		break;
	case SUPER_MSR_READ:
		frame->rax = msr_read(frame->rdi);
		break;
	case SUPER_MSR_WRITE:
		msr_write(frame->rdi, frame->rsi);
		break;
	case SUPER_HYPERCALL:
		frame->rax = hypercall(frame->rdi, frame->rsi, frame->rdx);
		break;
	case SUPER_WAIT:
		wait_for_hv(frame);
		break;
	case SUPER_IOPL:
		frame->rflags = (frame->rflags & ~RFLAGS_IOPL) | (frame->rdi << 12 & RFLAGS_IOPL);
		break;
	case SUPER_CALLS:
		frame->rax = calls(frame->rdi, frame->rsi, (uint16_t)frame->rdx);
		break;
	default:
		return -1;
	}
	return 0;
}

/* One call from ring 3.  Return: 0, or -1 for a number that does not exist. */
static int call(struct super_frame *frame)
{
	switch (frame->rax - SUPER_CALL_BASE) {
	case SUPER_PRINT:
		print((const char *)frame->rdi, frame->rsi);
		break;
	case SUPER_PORT_OUT:
		port_out((uint16_t)frame->rdi, (uint32_t)frame->rsi, frame->rdx);
		break;
	case SUPER_PORT_IN:
		frame->rax = port_in((uint16_t)frame->rdi, frame->rdx);
		break;
	case SUPER_APIC_WRITE:
		apic_write(frame->rdi, (uint32_t)frame->rsi);
		break;
	case SUPER_APIC_READ:
		frame->rax = apic_read(frame->rdi);
		break;
	case SUPER_SAMPLE:
		sample(frame);
		break;
	case SUPER_MAP_GIB:
		super_pdpt_user[frame->rdi & 511] = frame->rsi | PTE_TABLE;
		break;
	case SUPER_MAP_TESTPAGE:
		map_testpage(frame->rdi);
		break;
	case SUPER_PREPARE_VCPU:
		prepare_vcpu(frame->rdi);
		break;
	case SUPER_IDLE:
		__asm__ volatile("sti; hlt; cli" : : : "memory");
		break;
	case SUPER_STOP:
		stop();
		break;
	case SUPER_TRIPLE_FAULT:
		triple_fault();
		break;
	case SUPER_ENABLE_AVX:
		frame->rax = enable_avx();
		break;
	default:
		if (call_hv(frame) < 0)
			return -1;
		break;
	}
	frame->rip += 2; /* past the UD2 */
	return 0;
}

/* Every exception.  A UD2 of ring 3 with a call number is a call, the rest is the end. */
void super_trap(struct super_frame *frame)
{
	uint64_t vcpu = ((uint64_t)frame - (uint64_t)super_stacks) / SUPER_STACK_BYTES;

	if (frame->vector == VECTOR_UD && (frame->cs & 3) == 3 &&
	    *(const uint16_t *)frame->rip == UD2_OPCODE && call(frame) == 0)
		return;
	fatal(frame, vcpu);
}
