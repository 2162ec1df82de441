/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A processor's state as text: made-up ones, without KVM.  What must never happen: text that
 * grows with what a guest put there.
 */
#include <criterion/criterion.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/bytes.h"
#include "hypervisor/machine_dump_priv.h"

static char text[65536];

static const char *print(const struct hv_vcpu_dump *dump)
{
	FILE *out = fmemopen(text, sizeof(text), "w");

	cr_assert_not_null(out);
	hv_vcpu_dump_print(dump, out);
	cr_assert_eq(fclose(out), 0);
	return text;
}

static const char *bits_of(const uint8_t *bits, uint32_t count)
{
	FILE *out = fmemopen(text, sizeof(text), "w");

	cr_assert_not_null(out);
	hv_dump_bits(bits, count, out);
	cr_assert_eq(fclose(out), 0);
	return text;
}

static void says(const struct hv_vcpu_dump *dump, const char *what)
{
	cr_assert_not_null(strstr(print(dump), what), "'%s' is not in:\n%s", what, text);
}

static void is_silent_of(const struct hv_vcpu_dump *dump, const char *what)
{
	cr_assert_null(strstr(print(dump), what), "'%s' is in:\n%s", what, text);
}

static void put_apic(struct hv_vcpu_dump *dump, uint32_t offset, uint32_t value)
{
	base_put_le32((uint8_t *)dump->lapic.regs + offset, value);
}

/* ISR 0x100, TMR 0x180, IRR 0x200. */
static void put_vector(struct hv_vcpu_dump *dump, uint32_t offset, uint32_t vector)
{
	uint8_t *reg = (uint8_t *)dump->lapic.regs + offset + (size_t)16 * (vector / 32);

	base_put_le32(reg, base_get_le32(reg) | 1U << (vector % 32));
}

/* Halted in the idle loop of a 64-bit kernel, with nothing to do. */
static struct hv_vcpu_dump idle(void)
{
	struct hv_vcpu_dump dump = {
		.mp_state = { KVM_MP_STATE_HALTED },
		.regs = { .rip = 0xffffffff81000001, .rsp = 0xffffc90000003000, .rflags = 0x246 },
		.sregs = { .cr0 = 0x80050033,
			   .cr3 = 0x1000,
			   .cr4 = 0x6f0,
			   .efer = 0xd01,
			   .cs = { .selector = 0x10, .l = 1 },
			   .apic_base = 0xfee00900 },
		.has_tsc = true,
		.tsc = 1000,
		.code_gpa = 0x1000001,
		.code_valid = 0xffff80,
	};

	dump.instruction_bytes[HV_DUMP_CODE_BEFORE - 1] = 0xf4;
	dump.instruction_bytes[HV_DUMP_CODE_BEFORE] = 0xc3;
	put_apic(&dump, 0x20, 3U << 24);
	put_apic(&dump, 0xf0, 0x1ff);
	put_apic(&dump, 0x320, 0x400ec);
	return dump;
}

Test(vcpu_dump, lists_of_bits_are_short)
{
	uint8_t bits[32] = { 0 };

	cr_assert_str_eq(bits_of(bits, 256), "none");
	bits[0] = 0x08;
	bits[2] = 0x0e;
	cr_assert_str_eq(bits_of(bits, 256), "3,17-19");
	memset(bits, 0xff, sizeof(bits));
	cr_assert_str_eq(bits_of(bits, 256), "0-255");
	cr_assert_str_eq(bits_of(bits, 9), "0-8");
	memset(bits, 0x55, sizeof(bits));
	cr_assert_str_eq(bits_of(bits, 256),
			 "0,2,4,6,8,10,12,14,16,18,20,22,24,26,28,30,... (112 more)");
}

Test(vcpu_dump, an_idle_one)
{
	struct hv_vcpu_dump dump = idle();

	says(&dump, "  state: halted (3)\n");
	says(&dump, "  rip=0xffffffff81000001 rsp=0xffffc90000003000 rflags=0x246 IF=1\n");
	says(&dump, "cr0=0x80050033 cr2=0x0 cr3=0x1000 cr4=0x6f0 efer=0xd01 cs=0x10 cpl=0");
	says(&dump, "  code at gpa 0x1000001: ?? ?? ?? ?? ?? ?? ?? f4 |c3 00");
	says(&dump, "  tsc=1000\n");
	says(&dump, "base=0xfee00900 on=1 x2apic=0 id=3 svr=0x1ff");
	says(&dump, "    isr: none\n    irr: none\n    tmr: none\n");
	says(&dump, "    timer: tsc-deadline vector=236 masked=0");
	is_silent_of(&dump, "waits");
	is_silent_of(&dump, "KVM does not give");
	is_silent_of(&dump, "deadline=");
}

Test(vcpu_dump, a_deadline_is_told_from_now)
{
	struct hv_vcpu_dump dump = idle();

	dump.has_deadline = true;
	dump.deadline = 900;
	says(&dump, " deadline=900 (in -100 ticks)\n");
	dump.deadline = 0;
	says(&dump, " deadline=0\n");
}

/* What holds an interrupt back is the first question of a stall. */
Test(vcpu_dump, why_an_interrupt_waits)
{
	struct hv_vcpu_dump dump = idle();

	put_vector(&dump, 0x200, 243);
	put_vector(&dump, 0x200, 49);
	says(&dump, "    irr: 49,243\n");
	says(&dump, "    vector 243 waits: nothing holds it back\n");
	dump.regs.rflags &= ~0x200ULL;
	says(&dump, "IF=0\n");
	says(&dump, "vector 243 waits: IF is clear;\n");
	dump.events.interrupt.shadow = 1;
	put_vector(&dump, 0x100, 0xf0);
	says(&dump, "    isr: 240\n");
	says(&dump, "waits: IF is clear; priority 15 of one in service holds it back;"
		    " an instruction's shadow;\n");
}

Test(vcpu_dump, task_priority_and_an_apic_that_is_off_hold_back)
{
	struct hv_vcpu_dump dump = idle();

	put_vector(&dump, 0x200, 49);
	put_apic(&dump, 0x80, 0x20);
	says(&dump, "nothing holds it back");
	put_apic(&dump, 0x80, 0x30);
	says(&dump, "vector 49 waits: priority 3 of TPR holds it back;\n");
	put_apic(&dump, 0xf0, 0xff);
	says(&dump, " the APIC is off by SVR;\n");
}

Test(vcpu_dump, events_of_the_past_are_none)
{
	struct hv_vcpu_dump dump = idle();

	dump.events.exception.nr = 6;
	dump.events.interrupt.nr = 64;
	says(&dump, "  events: exception=none interrupt=none shadow=0 nmi: injected=0 pending=0 ");
	dump.events.exception.injected = 1;
	dump.events.interrupt.injected = 1;
	dump.events.nmi.pending = 1;
	says(&dump, "exception=6 (injected, error 0x0) interrupt=64 (injected) shadow=0"
		    " nmi: injected=0 pending=1 ");
}

Test(vcpu_dump, what_kvm_does_not_give_is_said)
{
	struct hv_vcpu_dump dump = idle();

	for (uint32_t i = 0; i < HV_VCPU_PARTS; i++)
		dump.code[i] = -EINVAL;
	dump.has_tsc = false;
	cr_assert_str_eq(print(&dump),
			 "  KVM does not give the mp state: Invalid argument\n"
			 "  KVM does not give the events: Invalid argument\n"
			 "  KVM does not give the registers: Invalid argument\n"
			 "  KVM does not give the control registers: Invalid argument\n"
			 "  KVM does not give the local APIC: Invalid argument\n");
}

/* The part that judges from others has them not: it must not read what is not there. */
Test(vcpu_dump, an_apic_alone)
{
	struct hv_vcpu_dump dump = idle();

	dump.regs.rflags = 0;
	dump.code[HV_VCPU_PART_REGS] = -EIO;
	dump.code[HV_VCPU_PART_SREGS] = -EIO;
	put_vector(&dump, 0x200, 49);
	says(&dump, "  local APIC: id=3 ");
	says(&dump, "nothing holds it back");
	is_silent_of(&dump, "code");
}

Test(vcpu_dump, an_unmapped_rip_is_said)
{
	struct hv_vcpu_dump dump = idle();

	dump.code_gpa = UINT64_MAX;
	dump.code_valid = 0;
	says(&dump, "  code: rip is not mapped: ?? ");
}

/* The longest text there can be: every number as long as it gets, lists of every other bit. */
Test(vcpu_dump, text_is_bounded)
{
	struct hv_vcpu_dump dump;

	memset(&dump, 0xff, sizeof(dump));
	memset(dump.code, 0, sizeof(dump.code));
	dump.has_tsc = true;
	dump.has_deadline = true;
	dump.code_gpa--;
	for (uint32_t at = 0x100; at < 0x280; at += 16)
		put_apic(&dump, at, 0x55555555);
	cr_assert_lt(strlen(print(&dump)), HV_DUMP_VCPU_BYTES_MAX / 3, "%zu", strlen(text));
	is_silent_of(&dump, "KVM does not give");
}
