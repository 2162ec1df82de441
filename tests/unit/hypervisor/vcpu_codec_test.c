/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The section "vcpu" as bytes, without KVM.
 */
#include <criterion/criterion.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "hypervisor/vcpu_msrs.h"
#include "hypervisor/vcpu_state.h"

/* Where things are in the payload that example() makes. */
#define AT_SEGMENTS 144u
#define AT_FLAGS    (AT_SEGMENTS + 8 * 24 + 20 + 56)
#define AT_XCRS     (AT_FLAGS + 40)
#define AT_XSAVE    (AT_XCRS + 4 + 2 * 12)
#define AT_PART     (AT_XSAVE + 8 + 512)
#define AT_MSRS     (AT_PART + 4 + 256)
#define AT_LAPIC    (AT_MSRS + 4 + 3 * 12)
#define AT_MP_STATE (AT_LAPIC + 1024 + 48)
#define AT_EVENTS   (AT_MP_STATE + 4)
#define AT_TSC_KHZ  (AT_EVENTS + 8 + 4 + 3 + 4 + 4 + 4 + 1 + 9)
#define ALL_BYTES   (AT_TSC_KHZ + 4)

static struct hv_vcpu_state *example(void)
{
	struct hv_vcpu_state *s = calloc(1, sizeof(*s));

	cr_assert_not_null(s);
	s->regs.rax = 0x1122334455667788;
	s->regs.rflags = 2;
	s->sregs.cs = (struct kvm_segment){ .base = 1,
					    .limit = 2,
					    .selector = 8,
					    .type = 11,
					    .present = 1,
					    .dpl = 3,
					    .s = 1,
					    .l = 1,
					    .g = 1 };
	s->sregs.gdt.base = 0x5000;
	s->sregs.gdt.limit = 0x7f;
	s->sregs.cr0 = 0x80050033;
	s->sregs.flags = KVM_SREGS2_FLAGS_PDPTRS_VALID;
	s->sregs.pdptrs[3] = 0x4001;
	s->xcrs.nr_xcrs = 2;
	s->xcrs.xcrs[0].value = 7;
	s->xcrs.xcrs[1].xcr = 1;
	s->xsave.components = 7;
	memset(s->xsave.legacy, 0x5a, sizeof(s->xsave.legacy));
	s->xsave.size_bytes[2] = 256;
	s->xsave.data_bytes = 256;
	memset(s->xsave.data, 0xa5, 256);
	s->msr_count = 3;
	s->msrs[0] = (struct kvm_msr_entry){ .index = 0x3b, .data = 1 };
	s->msrs[1] = (struct kvm_msr_entry){ .index = HV_MSR_TSC_DEADLINE, .data = 2 };
	s->msrs[2] = (struct kvm_msr_entry){ .index = 0xc0000102, .data = 3 };
	memset(s->lapic.regs, 0x11, sizeof(s->lapic.regs));
	s->debugregs.dr7 = 0x400;
	s->mp_state.mp_state = KVM_MP_STATE_HALTED;
	s->events.exception.nr = 14;
	s->events.exception.error_code = 6;
	s->events.interrupt.nr = 0xec;
	s->events.flags = 0x3f;
	s->events.exception_payload = 0xdead;
	s->tsc_khz = 2600000;
	return s;
}

static struct base_buffer encoded(void)
{
	BASE_FREE struct hv_vcpu_state *state = example();
	struct base_buffer buffer = { 0 };

	hv_vcpu_state_encode(state, &buffer);
	cr_assert_not(buffer.failed);
	cr_assert_eq(buffer.size_bytes, ALL_BYTES);
	return buffer;
}

static int decode(const uint8_t *bytes, size_t size_bytes, uint32_t version, struct base_error *err)
{
	BASE_FREE struct hv_vcpu_state *state = malloc(sizeof(*state));
	BASE_FREE uint8_t *exact = malloc(size_bytes + 1); /* so that ASan sees the end */
	struct base_reader in;

	memcpy(exact, bytes, size_bytes);
	in = base_reader_over(exact, size_bytes);
	return hv_vcpu_state_decode(&in, version, state, err);
}

/* With one byte changed. */
static void refused(size_t at, uint8_t value, const char *text)
{
	struct base_error err = { 0 };
	struct base_buffer buffer = encoded();

	buffer.data[at] = value;
	cr_assert_eq(decode(buffer.data, buffer.size_bytes, 1, &err), -EBADMSG, "byte %zu", at);
	cr_assert_not_null(strstr(err.text, text), "'%s' is not in '%s'", text, err.text);
	base_buffer_fini(&buffer);
}

Test(vcpu_codec, round_trip)
{
	BASE_FREE struct hv_vcpu_state *before = example();
	BASE_FREE struct hv_vcpu_state *after = malloc(sizeof(*after));
	struct base_buffer buffer = encoded();
	struct base_reader in = base_reader_over(buffer.data, buffer.size_bytes);
	struct base_error err = { 0 };

	cr_assert_eq(hv_vcpu_state_decode(&in, 1, after, &err), 0, "%s", err.text);
	cr_assert_eq(memcmp(before, after, sizeof(*before)), 0);
	base_buffer_fini(&buffer);
}

Test(vcpu_codec, versions)
{
	struct base_buffer buffer = encoded();
	struct base_error err = { 0 };

	cr_assert_eq(decode(buffer.data, buffer.size_bytes, 2, &err), -ENOTSUP);
	cr_assert_str_eq(err.text, "vcpu: version 2, newest known is 1");
	cr_assert_eq(decode(buffer.data, buffer.size_bytes, 0, &err), -ENOTSUP);
	base_buffer_fini(&buffer);
}

Test(vcpu_codec, lengths)
{
	struct base_buffer buffer = encoded();
	struct base_error err = { 0 };

	for (size_t size = 0; size < buffer.size_bytes; size++)
		cr_assert_eq(decode(buffer.data, size, 1, &err), -EBADMSG, "%zu bytes", size);
	base_buffer_u8(&buffer, 0);
	cr_assert_eq(decode(buffer.data, buffer.size_bytes, 1, &err), -EBADMSG);
	cr_assert_str_eq(err.text, "vcpu: 1 bytes too many");
	base_buffer_fini(&buffer);
}

Test(vcpu_codec, segments)
{
	for (size_t i = 0; i < 8; i++) {
		size_t at = AT_SEGMENTS + i * 24 + 14;

		refused(at, 16, "segment type is 16");
		refused(at + 1, 2, "segment present is 2");
		refused(at + 2, 4, "segment DPL is 4");
		refused(at + 3, 2, "segment D/B is 2");
		refused(at + 4, 2, "segment S is 2");
		refused(at + 5, 2, "segment L is 2");
		refused(at + 6, 2, "segment G is 2");
		refused(at + 7, 2, "segment AVL is 2");
		refused(at + 8, 2, "segment unusable is 2");
		refused(at + 9, 1, "segment padding is 1");
	}
}

Test(vcpu_codec, control_registers)
{
	refused(AT_FLAGS, 2, "SREGS flags is 2");
	refused(AT_FLAGS, 0, "PDPTR that is not valid is 16385");
	refused(AT_XCRS, 17, "number of XCRs is 17");
	refused(AT_XCRS + 4, 1, "XCR out of order");
}

Test(vcpu_codec, xsave)
{
	refused(AT_XSAVE + 7, 0x80, "XSTATE_BV 0x8000000000000007");
	refused(AT_PART + 2, 1, "XSAVE component 2 with 65792 bytes, 16384 are allowed in all");
	refused(AT_PART + 1, 0, "XSAVE component 2 with 0 bytes");
}

Test(vcpu_codec, msrs)
{
	refused(AT_MSRS + 1, 2, "515 MSRs, limit 256");
	refused(AT_MSRS + 4, 0x11, "MSR 0x11 is none of those saved");
	refused(AT_MSRS + 4, 0x10, "MSR 0x10 is none of those saved");
	refused(AT_MSRS + 5, 0xff, "MSR 0xff3b is none of those saved");
	refused(AT_MSRS + 16 + 3, 0xff, "MSR 0xff0006e0 is none of those saved");
	refused(AT_MSRS + 28 + 3, 0, "MSR 0x102 out of order");
}

Test(vcpu_codec, mp_state_and_events)
{
	refused(AT_MP_STATE, 5, "MP state is 5");
	refused(AT_MP_STATE, 10, "MP state is 10");
	refused(AT_EVENTS, 2, "exception injected is 2");
	refused(AT_EVENTS + 1, 32, "exception number is 32");
	refused(AT_EVENTS + 2, 2, "exception has error code is 2");
	refused(AT_EVENTS + 3, 2, "exception pending is 2");
	refused(AT_EVENTS + 8, 2, "interrupt injected is 2");
	refused(AT_EVENTS + 10, 2, "interrupt software is 2");
	refused(AT_EVENTS + 11, 4, "interrupt shadow is 4");
	refused(AT_EVENTS + 12, 2, "NMI injected is 2");
	refused(AT_EVENTS + 13, 3, "NMI pending is 3");
	refused(AT_EVENTS + 14, 2, "NMI masked is 2");
	refused(AT_EVENTS + 19, 0x40, "event flags is 64");
	refused(AT_EVENTS + 23, 2, "SMM is 2");
	refused(AT_EVENTS + 24, 2, "SMI pending is 2");
	refused(AT_EVENTS + 25, 2, "SMM inside NMI is 2");
	refused(AT_EVENTS + 26, 2, "INIT latched is 2");
	refused(AT_EVENTS + 27, 2, "triple fault pending is 2");
	refused(AT_EVENTS + 28, 2, "exception has payload is 2");
}

/* Whatever a byte becomes, the decoder takes it or refuses it, and what it takes is canonical. */
Test(vcpu_codec, every_flip_is_canonical_or_refused)
{
	BASE_FREE struct hv_vcpu_state *state = malloc(sizeof(*state));
	struct base_buffer buffer = encoded();

	for (size_t i = 0; i < buffer.size_bytes * 8; i++) {
		struct base_reader in = base_reader_over(buffer.data, buffer.size_bytes);
		struct base_buffer again = { 0 };

		buffer.data[i / 8] ^= (uint8_t)(1u << i % 8);
		if (hv_vcpu_state_decode(&in, 1, state, NULL) == 0) {
			hv_vcpu_state_encode(state, &again);
			cr_assert_eq(again.size_bytes, buffer.size_bytes);
			cr_assert_eq(memcmp(again.data, buffer.data, again.size_bytes), 0,
				     "byte %zu", i / 8);
			base_buffer_fini(&again);
		}
		buffer.data[i / 8] ^= (uint8_t)(1u << i % 8);
	}
	base_buffer_fini(&buffer);
}
