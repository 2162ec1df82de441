/* SPDX-License-Identifier: Apache-2.0 */
/*
 * One virtual processor's registers, pending events and local APIC as text.
 */
#include <errno.h>
#include <inttypes.h>
#include <string.h>
#include <sys/ioctl.h>

#include "base/bytes.h"
#include "hypervisor/hv_limits.h"
#include "hypervisor/machine_dump_priv.h"
#include "hypervisor/vcpu_msrs.h"

#define EFER_LMA        (1ULL << 10)
#define RFLAGS_IF       (1ULL << 9)
#define APIC_BASE_X2    (1ULL << 10)
#define APIC_BASE_ON    (1ULL << 11)
#define APIC_VECTORS    256u
#define APIC_SVR_ON     (1u << 8)
#define APIC_LVT_MASKED (1u << 16)

/* Offsets in the APIC page. */
enum apic_register {
	APIC_ID = 0x20,
	APIC_TPR = 0x80,
	APIC_PPR = 0xa0,
	APIC_SVR = 0xf0,
	APIC_ISR = 0x100, /* eight registers of 32 bits each, 16 bytes apart; so are TMR and IRR */
	APIC_TMR = 0x180,
	APIC_IRR = 0x200,
	APIC_ESR = 0x280,
	APIC_LVT_TIMER = 0x320,
	APIC_LVT_LINT0 = 0x350,
	APIC_LVT_LINT1 = 0x360,
	APIC_INITIAL_COUNT = 0x380,
	APIC_CURRENT_COUNT = 0x390,
	APIC_DIVIDE = 0x3e0
};

static bool has(const struct hv_vcpu_dump *dump, enum hv_vcpu_part part)
{
	return dump->code[part] == 0;
}

/* --- out of KVM --- */

static bool is_long(const struct hv_vcpu_dump *dump)
{
	return (dump->sregs.efer & EFER_LMA) != 0 && dump->sregs.cs.l != 0;
}

/* Byte by byte it would be as many ioctls: once per page, of which there are at most two. */
static void get_code(int vcpu_fd, const struct hv_slat *slat, struct hv_vcpu_dump *dump)
{
	uint64_t rip = dump->regs.rip + (is_long(dump) ? 0 : dump->sregs.cs.base);
	uint64_t page = UINT64_MAX;
	uint64_t gpa = UINT64_MAX;

	for (uint32_t i = 0; i < HV_DUMP_CODE_BYTES; i++) {
		uint64_t linear = rip - HV_DUMP_CODE_BEFORE + i; /* wraps as addresses do */

		if (linear / HV_PAGE_BYTES != page) {
			struct kvm_translation where = { .linear_address =
								 linear & ~(HV_PAGE_BYTES - 1) };

			page = linear / HV_PAGE_BYTES;
			gpa = UINT64_MAX;
			if (ioctl(vcpu_fd, KVM_TRANSLATE, &where) == 0 && where.valid != 0)
				gpa = where.physical_address;
		}
		if (gpa == UINT64_MAX)
			continue;
		if (i == HV_DUMP_CODE_BEFORE)
			dump->code_gpa = gpa + linear % HV_PAGE_BYTES;
		if (hv_slat_read(slat, gpa + linear % HV_PAGE_BYTES, &dump->instruction_bytes[i],
				 1) == 0)
			dump->code_valid |= 1U << i;
	}
}

void hv_vcpu_dump_get(int vcpu_fd, const struct hv_slat *slat, struct hv_vcpu_dump *ret_dump)
{
	struct hv_vcpu_dump *dump = ret_dump;
	const struct {
		unsigned long request;
		void *into;
	} parts[HV_VCPU_PARTS] = {
		[HV_VCPU_PART_MP_STATE] = { KVM_GET_MP_STATE, &dump->mp_state },
		[HV_VCPU_PART_EVENTS] = { KVM_GET_VCPU_EVENTS, &dump->events },
		[HV_VCPU_PART_REGS] = { KVM_GET_REGS, &dump->regs },
		[HV_VCPU_PART_SREGS] = { KVM_GET_SREGS, &dump->sregs },
		[HV_VCPU_PART_LAPIC] = { KVM_GET_LAPIC, &dump->lapic },
	};

	memset(dump, 0, sizeof(*dump));
	dump->code_gpa = UINT64_MAX;
	for (uint32_t i = 0; i < HV_VCPU_PARTS; i++)
		dump->code[i] = ioctl(vcpu_fd, parts[i].request, parts[i].into) < 0 ? -errno : 0;
	dump->has_tsc = hv_msr_get(vcpu_fd, HV_MSR_TSC, &dump->tsc, NULL) == 0;
	dump->has_deadline = hv_msr_get(vcpu_fd, HV_MSR_TSC_DEADLINE, &dump->deadline, NULL) == 0;
	if (has(dump, HV_VCPU_PART_REGS) && has(dump, HV_VCPU_PART_SREGS))
		get_code(vcpu_fd, slat, dump);
}

/* --- as text --- */

void hv_dump_bits(const uint8_t *bits, uint32_t count, FILE *out)
{
	uint32_t ranges = 0;
	uint32_t left_out = 0;

	for (uint32_t i = 0; i < count; i++) {
		uint32_t first = i;

		while (i < count && (bits[i / 8] >> (i % 8) & 1) != 0)
			i++;
		if (i == first)
			continue;
		if (++ranges > HV_DUMP_RANGES_MAX)
			left_out += i - first;
		else if (i - first == 1)
			fprintf(out, "%s%" PRIu32, ranges > 1 ? "," : "", first);
		else
			fprintf(out, "%s%" PRIu32 "-%" PRIu32, ranges > 1 ? "," : "", first, i - 1);
	}
	if (ranges == 0)
		fputs("none", out);
	if (left_out > 0)
		fprintf(out, ",... (%" PRIu32 " more)", left_out);
}

static void print_failures(const struct hv_vcpu_dump *dump, FILE *out)
{
	static const char *const names[HV_VCPU_PARTS] = {
		[HV_VCPU_PART_MP_STATE] = "mp state", [HV_VCPU_PART_EVENTS] = "events",
		[HV_VCPU_PART_REGS] = "registers",    [HV_VCPU_PART_SREGS] = "control registers",
		[HV_VCPU_PART_LAPIC] = "local APIC",
	};

	for (uint32_t i = 0; i < HV_VCPU_PARTS; i++)
		if (dump->code[i] != 0)
			fprintf(out, "  KVM does not give the %s: %s\n", names[i],
				strerrordesc_np(-dump->code[i]));
}

static void print_registers(const struct kvm_regs *regs, FILE *out)
{
	fprintf(out, "  rip=0x%llx rsp=0x%llx rflags=0x%llx IF=%d\n", regs->rip, regs->rsp,
		regs->rflags, (regs->rflags & RFLAGS_IF) != 0 ? 1 : 0);
	fprintf(out,
		"  rax=0x%llx rbx=0x%llx rcx=0x%llx rdx=0x%llx rsi=0x%llx rdi=0x%llx rbp=0x%llx\n",
		regs->rax, regs->rbx, regs->rcx, regs->rdx, regs->rsi, regs->rdi, regs->rbp);
	fprintf(out,
		"  r8=0x%llx r9=0x%llx r10=0x%llx r11=0x%llx r12=0x%llx r13=0x%llx r14=0x%llx"
		" r15=0x%llx\n",
		regs->r8, regs->r9, regs->r10, regs->r11, regs->r12, regs->r13, regs->r14,
		regs->r15);
}

static void print_control(const struct kvm_sregs *sregs, FILE *out)
{
	fprintf(out,
		"  cr0=0x%llx cr2=0x%llx cr3=0x%llx cr4=0x%llx efer=0x%llx cs=0x%x cpl=%u"
		" gs-base=0x%llx\n",
		sregs->cr0, sregs->cr2, sregs->cr3, sregs->cr4, sregs->efer,
		(unsigned int)sregs->cs.selector, (unsigned int)sregs->ss.dpl, sregs->gs.base);
}

static void print_code(const struct hv_vcpu_dump *dump, FILE *out)
{
	if (dump->code_gpa == UINT64_MAX)
		fputs("  code: rip is not mapped:", out);
	else
		fprintf(out, "  code at gpa 0x%" PRIx64 ":", dump->code_gpa);
	for (uint32_t i = 0; i < HV_DUMP_CODE_BYTES; i++) {
		const char *mark = i == HV_DUMP_CODE_BEFORE ? "|" : "";

		if ((dump->code_valid >> i & 1) != 0)
			fprintf(out, " %s%02x", mark, (unsigned int)dump->instruction_bytes[i]);
		else
			fprintf(out, " %s??", mark);
	}
	fputc('\n', out);
}

static const char *mp_state_name(uint32_t state)
{
	switch (state) {
	case KVM_MP_STATE_RUNNABLE:
		return "runnable";
	case KVM_MP_STATE_UNINITIALIZED:
		return "waits-for-init";
	case KVM_MP_STATE_INIT_RECEIVED:
		return "waits-for-sipi";
	case KVM_MP_STATE_HALTED:
		return "halted";
	case KVM_MP_STATE_SIPI_RECEIVED:
		return "sipi-received";
	default:
		return "other";
	}
}

/* KVM leaves the last number where there is none any more: that would mislead. */
static void print_events(const struct kvm_vcpu_events *events, FILE *out)
{
	fputs("  events: exception=", out);
	if (events->exception.injected != 0 || events->exception.pending != 0)
		fprintf(out, "%u (%s, error 0x%x)", (unsigned int)events->exception.nr,
			events->exception.injected != 0 ? "injected" : "pending",
			events->exception.error_code);
	else
		fputs("none", out);
	if (events->interrupt.injected != 0)
		fprintf(out, " interrupt=%u (injected)", (unsigned int)events->interrupt.nr);
	else
		fputs(" interrupt=none", out);
	fprintf(out, " shadow=%u nmi: injected=%u pending=%u masked=%u smm=%u\n",
		(unsigned int)events->interrupt.shadow, (unsigned int)events->nmi.injected,
		(unsigned int)events->nmi.pending, (unsigned int)events->nmi.masked,
		(unsigned int)events->smi.smm);
}

static uint32_t apic(const struct hv_vcpu_dump *dump, uint32_t offset)
{
	return base_get_le32((const uint8_t *)dump->lapic.regs + offset);
}

/* ISR, TMR or IRR as one row of bits. */
static void get_vectors(const struct hv_vcpu_dump *dump, uint32_t offset,
			uint8_t ret_bits[APIC_VECTORS / 8])
{
	for (uint32_t i = 0; i < APIC_VECTORS / 32; i++)
		base_put_le32(ret_bits + 4 * (size_t)i, apic(dump, offset + 16 * i));
}

static void print_vectors(const struct hv_vcpu_dump *dump, const char *name, uint32_t offset,
			  FILE *out)
{
	uint8_t bits[APIC_VECTORS / 8];

	get_vectors(dump, offset, bits);
	fprintf(out, "    %s: ", name);
	hv_dump_bits(bits, APIC_VECTORS, out);
	fputc('\n', out);
}

/* The highest vector of a register, 0 for none: vectors below 16 are no interrupts. */
static uint32_t highest(const struct hv_vcpu_dump *dump, uint32_t offset)
{
	uint8_t bits[APIC_VECTORS / 8];

	get_vectors(dump, offset, bits);
	for (uint32_t i = APIC_VECTORS; i > 0; i--)
		if ((bits[(i - 1) / 8] >> ((i - 1) % 8) & 1) != 0)
			return i - 1;
	return 0;
}

/* Why an interrupt that the APIC holds does not come through; computed from what else is shown. */
static void print_waiting(const struct hv_vcpu_dump *dump, FILE *out)
{
	uint32_t vector = highest(dump, APIC_IRR);
	uint32_t task = apic(dump, APIC_TPR) >> 4 & 15;
	uint32_t service = highest(dump, APIC_ISR) >> 4;
	uint32_t priority = task > service ? task : service;
	bool is_free = true;

	if (vector == 0)
		return;
	fprintf(out, "    vector %" PRIu32 " waits:", vector);
	if (has(dump, HV_VCPU_PART_REGS) && (dump->regs.rflags & RFLAGS_IF) == 0) {
		fputs(" IF is clear;", out);
		is_free = false;
	}
	if (vector >> 4 <= priority) {
		fprintf(out, " priority %" PRIu32 " of %s holds it back;", priority,
			service >= task ? "one in service" : "TPR");
		is_free = false;
	}
	if (has(dump, HV_VCPU_PART_EVENTS) && dump->events.interrupt.shadow != 0) {
		fputs(" an instruction's shadow;", out);
		is_free = false;
	}
	if ((apic(dump, APIC_SVR) & APIC_SVR_ON) == 0) {
		fputs(" the APIC is off by SVR;", out);
		is_free = false;
	}
	fputs(is_free ? " nothing holds it back\n" : "\n", out);
}

static void print_timer(const struct hv_vcpu_dump *dump, FILE *out)
{
	static const char *const modes[] = { "one-shot", "periodic", "tsc-deadline", "reserved" };
	uint32_t lvt = apic(dump, APIC_LVT_TIMER);

	fprintf(out,
		"    timer: %s vector=%" PRIu32 " masked=%d initial=%" PRIu32 " current=%" PRIu32
		" divide=0x%" PRIx32,
		modes[lvt >> 17 & 3], lvt & 0xff, (lvt & APIC_LVT_MASKED) != 0 ? 1 : 0,
		apic(dump, APIC_INITIAL_COUNT), apic(dump, APIC_CURRENT_COUNT),
		apic(dump, APIC_DIVIDE));
	if (dump->has_deadline)
		fprintf(out, " deadline=%" PRIu64, dump->deadline);
	if (dump->has_deadline && dump->has_tsc && dump->deadline != 0)
		fprintf(out, " (in %" PRId64 " ticks)", (int64_t)(dump->deadline - dump->tsc));
	fputc('\n', out);
}

static void print_apic(const struct hv_vcpu_dump *dump, FILE *out)
{
	uint64_t base = dump->sregs.apic_base;

	fputs("  local APIC:", out);
	if (has(dump, HV_VCPU_PART_SREGS))
		fprintf(out, " base=0x%" PRIx64 " on=%d x2apic=%d", base,
			(base & APIC_BASE_ON) != 0 ? 1 : 0, (base & APIC_BASE_X2) != 0 ? 1 : 0);
	fprintf(out,
		" id=%" PRIu32 " svr=0x%" PRIx32 " tpr=0x%" PRIx32 " ppr=0x%" PRIx32
		" esr=0x%" PRIx32 " lint0=0x%" PRIx32 " lint1=0x%" PRIx32 "\n",
		apic(dump, APIC_ID) >> 24, apic(dump, APIC_SVR), apic(dump, APIC_TPR),
		apic(dump, APIC_PPR), apic(dump, APIC_ESR), apic(dump, APIC_LVT_LINT0),
		apic(dump, APIC_LVT_LINT1));
	print_vectors(dump, "isr", APIC_ISR, out);
	print_vectors(dump, "irr", APIC_IRR, out);
	print_vectors(dump, "tmr", APIC_TMR, out);
	print_waiting(dump, out);
	print_timer(dump, out);
}

void hv_vcpu_dump_print(const struct hv_vcpu_dump *dump, FILE *out)
{
	print_failures(dump, out);
	if (has(dump, HV_VCPU_PART_MP_STATE))
		fprintf(out, "  state: %s (%" PRIu32 ")\n", mp_state_name(dump->mp_state.mp_state),
			dump->mp_state.mp_state);
	if (has(dump, HV_VCPU_PART_REGS))
		print_registers(&dump->regs, out);
	if (has(dump, HV_VCPU_PART_SREGS))
		print_control(&dump->sregs, out);
	if (has(dump, HV_VCPU_PART_REGS) && has(dump, HV_VCPU_PART_SREGS))
		print_code(dump, out);
	if (dump->has_tsc)
		fprintf(out, "  tsc=%" PRIu64 "\n", dump->tsc);
	if (has(dump, HV_VCPU_PART_EVENTS))
		print_events(&dump->events, out);
	if (has(dump, HV_VCPU_PART_LAPIC))
		print_apic(dump, out);
}
