/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The section "vcpu" as bytes, field by field: docs/hypervisor/saved-state.md.
 * A decoder goes on over a bad field (reads stay in bounds) and names the first.
 */
#include <errno.h>
#include <inttypes.h>
#include <string.h>

#include "hypervisor/vcpu_msrs.h"
#include "hypervisor/vcpu_state.h"
#include "hypervisor/vcpu_xsave.h"

#define KNOWN_EVENTS                                                                               \
	(KVM_VCPUEVENT_VALID_NMI_PENDING | KVM_VCPUEVENT_VALID_SIPI_VECTOR |                       \
	 KVM_VCPUEVENT_VALID_SHADOW | KVM_VCPUEVENT_VALID_SMM | KVM_VCPUEVENT_VALID_PAYLOAD |      \
	 KVM_VCPUEVENT_VALID_TRIPLE_FAULT)

/* The first field that is out of range. */
struct bad {
	const char *field;
	uint64_t value;
};

static void check_most(struct bad *bad, const char *field, uint64_t value, uint64_t most)
{
	if (value > most && bad->field == NULL)
		*bad = (struct bad){ field, value };
}

static uint8_t read_u8_most(struct base_reader *in, struct bad *bad, const char *field,
			    uint8_t most)
{
	uint8_t value = base_read_u8(in);

	check_most(bad, field, value, most);
	return value;
}

/* The general registers in the order of the format. */
#define EACH_REG(do_reg, s, io)                                                                    \
	do {                                                                                       \
		do_reg(io, (s)->rax);                                                              \
		do_reg(io, (s)->rbx);                                                              \
		do_reg(io, (s)->rcx);                                                              \
		do_reg(io, (s)->rdx);                                                              \
		do_reg(io, (s)->rsi);                                                              \
		do_reg(io, (s)->rdi);                                                              \
		do_reg(io, (s)->rsp);                                                              \
		do_reg(io, (s)->rbp);                                                              \
		do_reg(io, (s)->r8);                                                               \
		do_reg(io, (s)->r9);                                                               \
		do_reg(io, (s)->r10);                                                              \
		do_reg(io, (s)->r11);                                                              \
		do_reg(io, (s)->r12);                                                              \
		do_reg(io, (s)->r13);                                                              \
		do_reg(io, (s)->r14);                                                              \
		do_reg(io, (s)->r15);                                                              \
		do_reg(io, (s)->rip);                                                              \
		do_reg(io, (s)->rflags);                                                           \
	} while (0)
#define EACH_CONTROL(do_reg, s, io)                                                                \
	do {                                                                                       \
		do_reg(io, (s)->cr0);                                                              \
		do_reg(io, (s)->cr2);                                                              \
		do_reg(io, (s)->cr3);                                                              \
		do_reg(io, (s)->cr4);                                                              \
		do_reg(io, (s)->cr8);                                                              \
		do_reg(io, (s)->efer);                                                             \
		do_reg(io, (s)->apic_base);                                                        \
		do_reg(io, (s)->flags);                                                            \
		do_reg(io, (s)->pdptrs[0]);                                                        \
		do_reg(io, (s)->pdptrs[1]);                                                        \
		do_reg(io, (s)->pdptrs[2]);                                                        \
		do_reg(io, (s)->pdptrs[3]);                                                        \
	} while (0)
#define EACH_DEBUG(do_reg, s, io)                                                                  \
	do {                                                                                       \
		do_reg(io, (s)->db[0]);                                                            \
		do_reg(io, (s)->db[1]);                                                            \
		do_reg(io, (s)->db[2]);                                                            \
		do_reg(io, (s)->db[3]);                                                            \
		do_reg(io, (s)->dr6);                                                              \
		do_reg(io, (s)->dr7);                                                              \
	} while (0)
#define PUT64(out, field) base_buffer_le64(out, field)
#define GET64(in, field)  ((field) = base_read_le64(in))

static void encode_segment(const struct kvm_segment *segment, struct base_buffer *out)
{
	base_buffer_le64(out, segment->base);
	base_buffer_le32(out, segment->limit);
	base_buffer_le16(out, segment->selector);
	base_buffer_u8(out, segment->type);
	base_buffer_u8(out, segment->present);
	base_buffer_u8(out, segment->dpl);
	base_buffer_u8(out, segment->db);
	base_buffer_u8(out, segment->s);
	base_buffer_u8(out, segment->l);
	base_buffer_u8(out, segment->g);
	base_buffer_u8(out, segment->avl);
	base_buffer_u8(out, segment->unusable);
	base_buffer_u8(out, 0);
}

static struct kvm_segment decode_segment(struct base_reader *in, struct bad *bad)
{
	struct kvm_segment segment = { 0 };

	segment.base = base_read_le64(in);
	segment.limit = base_read_le32(in);
	segment.selector = base_read_le16(in);
	segment.type = read_u8_most(in, bad, "segment type", 15);
	segment.present = read_u8_most(in, bad, "segment present", 1);
	segment.dpl = read_u8_most(in, bad, "segment DPL", 3);
	segment.db = read_u8_most(in, bad, "segment D/B", 1);
	segment.s = read_u8_most(in, bad, "segment S", 1);
	segment.l = read_u8_most(in, bad, "segment L", 1);
	segment.g = read_u8_most(in, bad, "segment G", 1);
	segment.avl = read_u8_most(in, bad, "segment AVL", 1);
	segment.unusable = read_u8_most(in, bad, "segment unusable", 1);
	(void)read_u8_most(in, bad, "segment padding", 0);
	return segment;
}

static void encode_sregs(const struct kvm_sregs2 *sregs, struct base_buffer *out)
{
	encode_segment(&sregs->cs, out);
	encode_segment(&sregs->ds, out);
	encode_segment(&sregs->es, out);
	encode_segment(&sregs->fs, out);
	encode_segment(&sregs->gs, out);
	encode_segment(&sregs->ss, out);
	encode_segment(&sregs->tr, out);
	encode_segment(&sregs->ldt, out);
	base_buffer_le64(out, sregs->gdt.base);
	base_buffer_le16(out, sregs->gdt.limit);
	base_buffer_le64(out, sregs->idt.base);
	base_buffer_le16(out, sregs->idt.limit);
	EACH_CONTROL(PUT64, sregs, out);
}

static void decode_sregs(struct base_reader *in, struct kvm_sregs2 *sregs, struct bad *bad)
{
	sregs->cs = decode_segment(in, bad);
	sregs->ds = decode_segment(in, bad);
	sregs->es = decode_segment(in, bad);
	sregs->fs = decode_segment(in, bad);
	sregs->gs = decode_segment(in, bad);
	sregs->ss = decode_segment(in, bad);
	sregs->tr = decode_segment(in, bad);
	sregs->ldt = decode_segment(in, bad);
	sregs->gdt.base = base_read_le64(in);
	sregs->gdt.limit = base_read_le16(in);
	sregs->idt.base = base_read_le64(in);
	sregs->idt.limit = base_read_le16(in);
	EACH_CONTROL(GET64, sregs, in);
	check_most(bad, "SREGS flags", sregs->flags, KVM_SREGS2_FLAGS_PDPTRS_VALID);
	if (sregs->flags == 0) {
		for (size_t i = 0; i < 4; i++)
			check_most(bad, "PDPTR that is not valid", sregs->pdptrs[i], 0);
	}
}

static void encode_xcrs(const struct kvm_xcrs *xcrs, struct base_buffer *out)
{
	base_buffer_le32(out, xcrs->nr_xcrs);
	for (uint32_t i = 0; i < xcrs->nr_xcrs; i++) {
		base_buffer_le32(out, xcrs->xcrs[i].xcr);
		base_buffer_le64(out, xcrs->xcrs[i].value);
	}
}

static void decode_xcrs(struct base_reader *in, struct kvm_xcrs *xcrs, struct bad *bad)
{
	uint32_t count = base_read_le32(in);

	check_most(bad, "number of XCRs", count, KVM_MAX_XCRS);
	for (uint32_t i = 0; i < count && i < KVM_MAX_XCRS; i++) {
		xcrs->xcrs[i].xcr = base_read_le32(in);
		xcrs->xcrs[i].value = base_read_le64(in);
		if (i > 0 && xcrs->xcrs[i].xcr <= xcrs->xcrs[i - 1].xcr)
			check_most(bad, "XCR out of order", 1, 0);
		xcrs->nr_xcrs = i + 1;
	}
}

static void encode_msrs(const struct hv_vcpu_state *state, struct base_buffer *out)
{
	base_buffer_le32(out, state->msr_count);
	for (uint32_t i = 0; i < state->msr_count; i++) {
		base_buffer_le32(out, state->msrs[i].index);
		base_buffer_le64(out, state->msrs[i].data);
	}
}

static int decode_msrs(struct base_reader *in, struct hv_vcpu_state *state, struct base_error *err)
{
	uint32_t count = base_read_le32(in);

	if (count > HV_VCPU_MSRS_MAX)
		return base_fail(err, -EBADMSG, "vcpu: %" PRIu32 " MSRs, limit %u", count,
				 HV_VCPU_MSRS_MAX);
	for (uint32_t i = 0; i < count && !in->failed; i++) {
		struct kvm_msr_entry *msr = &state->msrs[i];

		msr->index = base_read_le32(in);
		msr->data = base_read_le64(in);
		if (in->failed)
			break;
		if (i > 0 && msr->index <= msr[-1].index)
			return base_fail(err, -EBADMSG, "vcpu: MSR 0x%" PRIx32 " out of order",
					 msr->index);
		if (!hv_msr_is_saved(msr->index))
			return base_fail(err, -EBADMSG,
					 "vcpu: MSR 0x%" PRIx32 " is none of those saved",
					 msr->index);
		state->msr_count = i + 1;
	}
	return 0;
}

static void encode_events(const struct kvm_vcpu_events *events, struct base_buffer *out)
{
	base_buffer_u8(out, events->exception.injected);
	base_buffer_u8(out, events->exception.nr);
	base_buffer_u8(out, events->exception.has_error_code);
	base_buffer_u8(out, events->exception.pending);
	base_buffer_le32(out, events->exception.error_code);
	base_buffer_u8(out, events->interrupt.injected);
	base_buffer_u8(out, events->interrupt.nr);
	base_buffer_u8(out, events->interrupt.soft);
	base_buffer_u8(out, events->interrupt.shadow);
	base_buffer_u8(out, events->nmi.injected);
	base_buffer_u8(out, events->nmi.pending);
	base_buffer_u8(out, events->nmi.masked);
	base_buffer_le32(out, events->sipi_vector);
	base_buffer_le32(out, events->flags);
	base_buffer_u8(out, events->smi.smm);
	base_buffer_u8(out, events->smi.pending);
	base_buffer_u8(out, events->smi.smm_inside_nmi);
	base_buffer_u8(out, events->smi.latched_init);
	base_buffer_u8(out, events->triple_fault.pending);
	base_buffer_u8(out, events->exception_has_payload);
	base_buffer_le64(out, events->exception_payload);
}

static void decode_events(struct base_reader *in, struct kvm_vcpu_events *events, struct bad *bad)
{
	events->exception.injected = read_u8_most(in, bad, "exception injected", 1);
	events->exception.nr = read_u8_most(in, bad, "exception number", 31);
	events->exception.has_error_code = read_u8_most(in, bad, "exception has error code", 1);
	events->exception.pending = read_u8_most(in, bad, "exception pending", 1);
	events->exception.error_code = base_read_le32(in);
	events->interrupt.injected = read_u8_most(in, bad, "interrupt injected", 1);
	events->interrupt.nr = base_read_u8(in);
	events->interrupt.soft = read_u8_most(in, bad, "interrupt software", 1);
	events->interrupt.shadow = read_u8_most(in, bad, "interrupt shadow", 3);
	events->nmi.injected = read_u8_most(in, bad, "NMI injected", 1);
	events->nmi.pending = read_u8_most(in, bad, "NMI pending", 2);
	events->nmi.masked = read_u8_most(in, bad, "NMI masked", 1);
	events->sipi_vector = base_read_le32(in);
	events->flags = base_read_le32(in);
	check_most(bad, "event flags", events->flags, KNOWN_EVENTS);
	events->smi.smm = read_u8_most(in, bad, "SMM", 1);
	events->smi.pending = read_u8_most(in, bad, "SMI pending", 1);
	events->smi.smm_inside_nmi = read_u8_most(in, bad, "SMM inside NMI", 1);
	events->smi.latched_init = read_u8_most(in, bad, "INIT latched", 1);
	events->triple_fault.pending = read_u8_most(in, bad, "triple fault pending", 1);
	events->exception_has_payload = read_u8_most(in, bad, "exception has payload", 1);
	events->exception_payload = base_read_le64(in);
}

static void check_mp_state(struct bad *bad, uint32_t mp_state)
{
	if (mp_state > KVM_MP_STATE_SIPI_RECEIVED && mp_state != KVM_MP_STATE_AP_RESET_HOLD)
		check_most(bad, "MP state", mp_state, 0);
}

void hv_vcpu_state_encode(const struct hv_vcpu_state *state, struct base_buffer *out)
{
	EACH_REG(PUT64, &state->regs, out);
	encode_sregs(&state->sregs, out);
	encode_xcrs(&state->xcrs, out);
	hv_xsave_encode(&state->xsave, out);
	encode_msrs(state, out);
	base_buffer_append(out, state->lapic.regs, sizeof(state->lapic.regs));
	EACH_DEBUG(PUT64, &state->debugregs, out);
	base_buffer_le32(out, state->mp_state.mp_state);
	encode_events(&state->events, out);
	base_buffer_le32(out, state->tsc_khz);
}

int hv_vcpu_state_decode(struct base_reader *in, uint32_t version, struct hv_vcpu_state *ret_state,
			 struct base_error *err)
{
	struct hv_vcpu_state *s = ret_state;
	struct bad bad = { 0 };
	int r = 0;

	memset(s, 0, sizeof(*s));
	if (version != HV_VCPU_STATE_VERSION)
		return base_fail(err, -ENOTSUP, "vcpu: version %" PRIu32 ", newest known is %u",
				 version, HV_VCPU_STATE_VERSION);
	EACH_REG(GET64, &s->regs, in);
	decode_sregs(in, &s->sregs, &bad);
	decode_xcrs(in, &s->xcrs, &bad);
	if (bad.field == NULL) { /* behind a bad count nothing stands where it should */
		r = hv_xsave_decode(in, &s->xsave, err);
		if (r < 0)
			return base_fail_within(err, r, "vcpu");
		r = decode_msrs(in, s, err);
		if (r < 0)
			return r;
		base_read_bytes(in, s->lapic.regs, sizeof(s->lapic.regs));
		EACH_DEBUG(GET64, &s->debugregs, in);
		s->mp_state.mp_state = base_read_le32(in);
		check_mp_state(&bad, s->mp_state.mp_state);
		decode_events(in, &s->events, &bad);
		s->tsc_khz = base_read_le32(in);
	}
	if (in->failed)
		return base_fail(err, -EBADMSG, "vcpu: truncated");
	if (bad.field != NULL)
		return base_fail(err, -EBADMSG, "vcpu: %s is %" PRIu64, bad.field, bad.value);
	if (base_reader_left(in) != 0)
		return base_fail(err, -EBADMSG, "vcpu: %zu bytes too many", base_reader_left(in));
	return 0;
}
