/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Processor and chip state through real KVM: read, encoded, decoded, written to
 * another VM and read again.  Skipped where there is no /dev/kvm.
 */
#include "hypervisor/vcpu_state.h"

#include <criterion/criterion.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/clock.h"
#include "hypervisor/vcpu_msrs.h"

#define APIC_LVT_TIMER 0x320
#define APIC_TMCCT     0x390 /* counts down while it is looked at */

struct vm {
	int kvm_fd;
	int vm_fd;
	int vcpu_fd;
};

static void vm_init(struct vm *vm)
{
	struct kvm_pit_config pit = { 0 };
	struct kvm_cpuid2 *cpuid = NULL;

	vm->kvm_fd = open("/dev/kvm", O_RDWR | O_CLOEXEC);
	if (vm->kvm_fd < 0)
		cr_skip_test("no /dev/kvm here");
	vm->vm_fd = ioctl(vm->kvm_fd, KVM_CREATE_VM, 0);
	cr_assert_geq(vm->vm_fd, 0);
	cr_assert_eq(ioctl(vm->vm_fd, KVM_SET_TSS_ADDR, 0xfffbd000UL), 0);
	cr_assert_eq(ioctl(vm->vm_fd, KVM_CREATE_IRQCHIP, 0), 0);
	cr_assert_eq(ioctl(vm->vm_fd, KVM_CREATE_PIT2, &pit), 0);
	vm->vcpu_fd = ioctl(vm->vm_fd, KVM_CREATE_VCPU, 0);
	cr_assert_geq(vm->vcpu_fd, 0);
	cpuid = calloc(1, sizeof(*cpuid) + 256 * sizeof(cpuid->entries[0]));
	cpuid->nent = 256;
	cr_assert_eq(ioctl(vm->kvm_fd, KVM_GET_SUPPORTED_CPUID, cpuid), 0);
	/* KVM's list leaves out what only works with its own APIC: the TSC deadline timer. */
	for (uint32_t i = 0; i < cpuid->nent; i++)
		if (cpuid->entries[i].function == 1)
			cpuid->entries[i].ecx |= 1U << 24;
	cr_assert_eq(ioctl(vm->vcpu_fd, KVM_SET_CPUID2, cpuid), 0);
	free(cpuid);
}

static void vm_fini(struct vm *vm)
{
	close(vm->vcpu_fd);
	close(vm->vm_fd);
	close(vm->kvm_fd);
}

static struct hv_vcpu_state *state_of(const struct vm *vm)
{
	struct hv_vcpu_state *state = malloc(sizeof(*state));
	struct base_error err = { 0 };

	cr_assert_eq(hv_vcpu_state_get(vm->kvm_fd, vm->vcpu_fd, state, &err), 0, "%s", err.text);
	return state;
}

static uint8_t *lapic(struct hv_vcpu_state *state, size_t at)
{
	return (uint8_t *)state->lapic.regs + at;
}

static void set_msr(struct hv_vcpu_state *state, uint32_t index, uint64_t value)
{
	for (uint32_t i = 0; i < state->msr_count; i++) {
		if (state->msrs[i].index == index)
			state->msrs[i].data = value;
	}
}

static struct kvm_segment segment(uint8_t type, uint16_t selector)
{
	return (struct kvm_segment){ .limit = 0xffffffff,
				     .selector = selector,
				     .type = type,
				     .present = 1,
				     .s = 1,
				     .g = 1 };
}

/* 64-bit mode, ring 0, halted, with something in every part. */
static void make_interesting(struct hv_vcpu_state *s)
{
	s->regs = (struct kvm_regs){ .rax = 0x1111111111111111,
				     .rsp = 0xffff800000001000,
				     .r15 = 15,
				     .rip = 0x200000,
				     .rflags = 0x202 };
	s->sregs.cs = segment(11, 8);
	s->sregs.cs.l = 1;
	s->sregs.ds = s->sregs.es = s->sregs.ss = segment(3, 16);
	s->sregs.ds.db = s->sregs.es.db = s->sregs.ss.db = 1;
	s->sregs.gdt.base = 0xffff800000002000;
	s->sregs.gdt.limit = 0x37;
	s->sregs.cr0 = 0x80050033;
	s->sregs.cr3 = 0x1000;
	s->sregs.cr4 = 0x6a0;
	s->sregs.cr8 = 2;
	s->sregs.efer = 0xd01;
	s->xsave.components |= 3;
	for (size_t i = 32; i < 416; i++) /* x87 and XMM registers */
		s->xsave.legacy[i] = (uint8_t)(i * 3);
	if ((s->xcrs.xcrs[0].value & 1) != 0 && s->xsave.size_bytes[2] == 0) {
		s->xsave.components |= 4;
		s->xsave.size_bytes[2] = 256;
		memmove(s->xsave.data + 256, s->xsave.data, s->xsave.data_bytes);
		s->xsave.data_bytes += 256;
		memset(s->xsave.data, 0x77, 256);
		s->xcrs.xcrs[0].value = 7;
	}
	set_msr(s, 0xc0000081, 0x0023001000000000);
	set_msr(s, 0xc0000082, 0xffff800000003000);
	set_msr(s, 0xc0000102, 0xffff800000004000);
	set_msr(s, 0x174, 0x10);
	set_msr(s, 0x277, 0x0007010600070106);
	base_put_le32(lapic(s, 0xf0), 0x1ff);             /* enabled, spurious vector 255 */
	base_put_le32(lapic(s, 0x80), 0x20);              /* task priority 2 */
	base_put_le32(lapic(s, 0x210), 1u << 5);          /* request: vector 37 */
	base_put_le32(lapic(s, APIC_LVT_TIMER), 0x200ec); /* periodic */
	base_put_le32(lapic(s, 0x380), 1000000000);
	base_put_le32(lapic(s, APIC_TMCCT), 500000000);
	s->debugregs.db[0] = 0xffff800000005000;
	s->debugregs.dr7 = 0x402;
	s->mp_state.mp_state = KVM_MP_STATE_HALTED;
	s->events.nmi.masked = 1;
}

static void encode_decode(struct hv_vcpu_state *state)
{
	struct base_buffer buffer = { 0 };
	struct base_error err = { 0 };
	struct base_reader in;

	hv_vcpu_state_encode(state, &buffer);
	cr_assert_not(buffer.failed);
	in = base_reader_over(buffer.data, buffer.size_bytes);
	memset(state, 0xff, sizeof(*state));
	cr_assert_eq(hv_vcpu_state_decode(&in, HV_VCPU_STATE_VERSION, state, &err), 0, "%s",
		     err.text);
	base_buffer_fini(&buffer);
}

/* Equal as bytes of a section, but for the count of the running timer. */
static void assert_same(struct hv_vcpu_state *a, struct hv_vcpu_state *b)
{
	struct base_buffer first = { 0 };
	struct base_buffer second = { 0 };

	base_put_le32(lapic(a, APIC_TMCCT), 0);
	base_put_le32(lapic(b, APIC_TMCCT), 0);
	cr_assert_eq(memcmp(&a->regs, &b->regs, sizeof(a->regs)), 0, "regs");
	cr_assert_eq(memcmp(&a->sregs, &b->sregs, sizeof(a->sregs)), 0, "sregs");
	cr_assert_eq(memcmp(&a->xsave, &b->xsave, sizeof(a->xsave)), 0, "xsave");
	cr_assert_eq(a->msr_count, b->msr_count);
	for (uint32_t i = 0; i < a->msr_count; i++)
		cr_assert_eq(a->msrs[i].data, b->msrs[i].data, "MSR 0x%x: 0x%llx, 0x%llx",
			     a->msrs[i].index, a->msrs[i].data, b->msrs[i].data);
	for (size_t i = 0; i < sizeof(a->lapic.regs); i += 16)
		cr_assert_eq(memcmp(lapic(a, i), lapic(b, i), 4), 0, "LAPIC 0x%zx: %x %x", i,
			     base_get_le32(lapic(a, i)), base_get_le32(lapic(b, i)));
	cr_assert_eq(memcmp(&a->debugregs, &b->debugregs, sizeof(a->debugregs)), 0, "debugregs");
	cr_assert_eq(a->mp_state.mp_state, b->mp_state.mp_state);
	cr_assert_eq(memcmp(&a->events, &b->events, sizeof(a->events)), 0, "events");
	hv_vcpu_state_encode(a, &first);
	hv_vcpu_state_encode(b, &second);
	cr_assert_eq(first.size_bytes, second.size_bytes);
	cr_assert_eq(memcmp(first.data, second.data, first.size_bytes), 0);
	base_buffer_fini(&first);
	base_buffer_fini(&second);
}

Test(vcpu_state, through_a_second_vm)
{
	struct base_error err = { 0 };
	struct vm first;
	struct vm second;

	vm_init(&first);
	vm_init(&second);
	{
		BASE_FREE struct hv_vcpu_state *made = state_of(&first);
		BASE_FREE struct hv_vcpu_state *saved = NULL;
		BASE_FREE struct hv_vcpu_state *restored = NULL;

		make_interesting(made);
		cr_assert_eq(hv_vcpu_state_put(first.kvm_fd, first.vcpu_fd, made, &err), 0, "%s",
			     err.text);
		saved = state_of(&first);
		cr_assert_eq(saved->regs.rax, 0x1111111111111111);
		cr_assert_eq(saved->sregs.efer, 0xd01);
		cr_assert_eq(saved->xsave.legacy[200], (uint8_t)600);
		cr_assert_eq(saved->mp_state.mp_state, KVM_MP_STATE_HALTED);
		cr_assert_eq(base_get_le32(lapic(saved, 0x210)), 1u << 5);
		encode_decode(saved);
		cr_assert_eq(hv_vcpu_state_put(second.kvm_fd, second.vcpu_fd, saved, &err), 0, "%s",
			     err.text);
		restored = state_of(&second);
		cr_assert_leq(base_get_le32(lapic(restored, APIC_TMCCT)),
			      base_get_le32(lapic(saved, APIC_TMCCT)), "the timer goes on");
		assert_same(saved, restored);
	}
	vm_fini(&second);
	vm_fini(&first);
}

Test(vcpu_state, power_on_state)
{
	struct base_error err = { 0 };
	struct vm vm;

	vm_init(&vm);
	{
		BASE_FREE struct hv_vcpu_state *fresh = state_of(&vm);
		BASE_FREE struct hv_vcpu_state *used = state_of(&vm);
		BASE_FREE struct hv_vcpu_state *after = NULL;

		make_interesting(used);
		cr_assert_eq(hv_vcpu_state_put(vm.kvm_fd, vm.vcpu_fd, used, &err), 0, "%s",
			     err.text);
		cr_assert_eq(hv_vcpu_state_put(vm.kvm_fd, vm.vcpu_fd, fresh, &err), 0, "%s",
			     err.text);
		after = state_of(&vm);
		assert_same(fresh, after);
	}
	vm_fini(&vm);
}

Test(vcpu_state, tsc_deadline)
{
	struct base_error err = { 0 };
	uint64_t deadline = 0;
	uint64_t tsc = 0;
	struct vm vm;

	vm_init(&vm);
	{
		BASE_FREE struct hv_vcpu_state *state = state_of(&vm);

		cr_assert_eq(hv_msr_get(vm.vcpu_fd, HV_MSR_TSC, &tsc, &err), 0, "%s", err.text);
		deadline = tsc + 1000000000000;
		base_put_le32(lapic(state, 0xf0), 0x1ff);
		base_put_le32(lapic(state, APIC_LVT_TIMER), 0x400ec);
		set_msr(state, HV_MSR_TSC_DEADLINE, deadline);
		cr_assert_eq(hv_vcpu_state_put(vm.kvm_fd, vm.vcpu_fd, state, &err), 0, "%s",
			     err.text);
		cr_assert_eq(hv_vcpu_timer_put(vm.vcpu_fd, state, &err), 0, "%s", err.text);
		cr_assert_eq(hv_msr_get(vm.vcpu_fd, HV_MSR_TSC_DEADLINE, &tsc, &err), 0);
		if (base_get_le32(lapic(state, APIC_LVT_TIMER)) >> 17 == 2)
			cr_assert_eq(tsc, deadline);

		/* In another mode the deadline is none. */
		base_put_le32(lapic(state, APIC_LVT_TIMER), 0xec);
		cr_assert_eq(hv_vcpu_timer_put(vm.vcpu_fd, state, &err), 0);
	}
	vm_fini(&vm);
}

Test(vcpu_state, tsc_goes_on_or_the_host_ignores_it)
{
	struct base_error err = { 0 };
	const uint64_t wanted = 1ULL << 50;
	uint64_t tsc = 0;
	struct vm vm;

	vm_init(&vm);
	cr_assert_eq(hv_vcpu_tsc_put(vm.vcpu_fd, wanted, base_tsc_read(), &err), 0, "%s", err.text);
	cr_assert_eq(hv_msr_get(vm.vcpu_fd, HV_MSR_TSC, &tsc, &err), 0);
	if (tsc < wanted)
		fprintf(stderr, "this host's KVM ignores TSC offsets\n");
	else
		cr_assert_lt(tsc - wanted, 1ULL << 40);
	vm_fini(&vm);
}

Test(vcpu_state, what_this_host_cannot_take)
{
	struct base_error err = { 0 };
	struct vm vm;

	vm_init(&vm);
	{
		BASE_FREE struct hv_vcpu_state *state = state_of(&vm);
		int khz = ioctl(vm.vcpu_fd, KVM_GET_TSC_KHZ, 0);

		state->xsave.components |= 1ULL << 60;
		state->xsave.size_bytes[60] = 8;
		state->xsave.data_bytes += 8;
		cr_assert_eq(hv_vcpu_state_put(vm.kvm_fd, vm.vcpu_fd, state, &err), -ENOTSUP);
		cr_assert_not_null(strstr(err.text, "XSAVE component 60"), "%s", err.text);
		state->xsave.components &= ~(1ULL << 60);

		if (khz > 0 && ioctl(vm.kvm_fd, KVM_CHECK_EXTENSION, KVM_CAP_TSC_CONTROL) <= 0) {
			state->tsc_khz = (uint32_t)khz / 2;
			cr_assert_eq(hv_vcpu_state_put(vm.kvm_fd, vm.vcpu_fd, state, &err),
				     -ENOTSUP);
			cr_assert_not_null(strstr(err.text, "cannot be scaled"), "%s", err.text);
		}
		state->tsc_khz = (uint32_t)(khz > 0 ? khz + khz / 10000 : 0);
		cr_assert_eq(hv_vcpu_state_put(vm.kvm_fd, vm.vcpu_fd, state, &err), 0, "%s",
			     err.text);

		state->sregs.cr0 = 0x80000000; /* paging without protection */
		cr_assert_eq(hv_vcpu_state_put(vm.kvm_fd, vm.vcpu_fd, state, &err), -EINVAL);
		cr_assert_not_null(strstr(err.text, "KVM_SET_SREGS"), "%s", err.text);
	}
	vm_fini(&vm);
}

/* An MSR of the other vendor: refused with a value, left out with the value after reset. */
Test(vcpu_state, msrs_the_host_does_not_have)
{
	struct kvm_msr_entry msrs[2] = { { .index = 0xda0, .data = 1ULL << 50 },
					 { .index = 0xc0000102, .data = 0x1234 } };
	struct base_error err = { 0 };
	uint64_t value = 0;
	struct vm vm;

	vm_init(&vm);
	cr_assert_eq(hv_msrs_put(vm.vcpu_fd, msrs, 2, &err), -ENOTSUP);
	cr_assert_not_null(strstr(err.text, "MSR 0xda0 = 0x4000000000000"), "%s", err.text);
	msrs[0].data = 0;
	cr_assert_eq(hv_msrs_put(vm.vcpu_fd, msrs, 2, &err), 0, "%s", err.text);
	cr_assert_eq(hv_msr_get(vm.vcpu_fd, 0xc0000102, &value, &err), 0);
	cr_assert_eq(value, 0x1234, "those after it are written");
	cr_assert_eq(hv_msrs_put(vm.vcpu_fd, msrs, HV_VCPU_MSRS_MAX + 1, &err), -EINVAL);
	cr_assert_eq(hv_msr_get(vm.vcpu_fd, 0xdeadbeef, &value, &err), -ENOTSUP);
	cr_assert_eq(hv_msr_set(vm.vcpu_fd, 0xdeadbeef, 1, &err), -ENOTSUP);
	vm_fini(&vm);
}

Test(vcpu_state, chips_through_a_second_vm)
{
	struct hv_chip_state made;
	struct hv_chip_state saved;
	struct hv_chip_state restored;
	struct base_error err = { 0 };
	struct base_buffer buffer = { 0 };
	struct base_buffer again = { 0 };
	struct base_reader in;
	struct vm first;
	struct vm second;

	vm_init(&first);
	vm_init(&second);
	cr_assert_eq(hv_chip_state_get(first.vm_fd, &made, &err), 0, "%s", err.text);
	made.pic_master.chip.pic.imr = 0xfb;
	made.pic_master.chip.pic.irq_base = 0x20;
	made.pic_slave.chip.pic.irq_base = 0x28;
	made.ioapic.chip.ioapic.redirtbl[4].bits = 0x18031;
	made.ioapic.chip.ioapic.ioregsel = 0x18;
	made.pit.channels[0].count = 11932;
	made.pit.channels[0].mode = 2;
	made.clock.clock = 3600ULL * 1000000000;
	cr_assert_eq(hv_chip_state_put(first.vm_fd, &made, &err), 0, "%s", err.text);

	cr_assert_eq(hv_chip_state_get(first.vm_fd, &saved, &err), 0, "%s", err.text);
	cr_assert_eq(saved.ioapic.chip.ioapic.redirtbl[4].bits, 0x18031);
	cr_assert_geq(saved.clock.clock, made.clock.clock);
	hv_chip_state_encode(&saved, &buffer);
	in = base_reader_over(buffer.data, buffer.size_bytes);
	cr_assert_eq(hv_chip_state_decode(&in, HV_CHIP_STATE_VERSION, &restored, &err), 0, "%s",
		     err.text);
	cr_assert_eq(hv_chip_state_put(second.vm_fd, &restored, &err), 0, "%s", err.text);
	cr_assert_eq(hv_chip_state_get(second.vm_fd, &restored, &err), 0, "%s", err.text);
	cr_assert_geq(restored.clock.clock, saved.clock.clock, "the clock goes on");
	cr_assert_lt(restored.clock.clock - saved.clock.clock, 600ULL * 1000000000);
	restored.clock = saved.clock;
	hv_chip_state_encode(&restored, &again);
	cr_assert_eq(again.size_bytes, buffer.size_bytes);
	cr_assert_eq(memcmp(again.data, buffer.data, buffer.size_bytes), 0);
	base_buffer_fini(&again);
	base_buffer_fini(&buffer);
	vm_fini(&second);
	vm_fini(&first);
}

Test(vcpu_state, descriptors_that_are_none)
{
	BASE_FREE struct hv_vcpu_state *state = calloc(1, sizeof(*state));
	struct hv_chip_state chips = { .pic_master = { .chip_id = 0 } };
	struct base_error err = { 0 };
	uint64_t tsc = 0;

	cr_assert_eq(hv_vcpu_state_get(-1, -1, state, &err), -EBADF);
	cr_assert_eq(hv_vcpu_state_put(-1, -1, state, &err), -EBADF);
	cr_assert_eq(hv_chip_state_get(-1, &chips, &err), -EBADF);
	cr_assert_eq(hv_chip_state_put(-1, &chips, &err), -EBADF);
	cr_assert_eq(hv_msr_get(-1, HV_MSR_TSC, &tsc, &err), -EBADF);
	cr_assert_eq(hv_vcpu_tsc_put(-1, 1, 1, &err), -EBADF);
}

/* A power-on state takes over what KVM lets be set only before the first entry, and nothing else.
 */
Test(vcpu_state, features_are_kept_for_a_reset)
{
	BASE_FREE struct hv_vcpu_state *from = calloc(1, sizeof(*from));
	BASE_FREE struct hv_vcpu_state *to = calloc(1, sizeof(*to));

	cr_assert(from != NULL && to != NULL);
	from->msr_count = 2;
	from->msrs[0] = (struct kvm_msr_entry){ .index = 0x10a, .data = 5 };
	from->msrs[1] = (struct kvm_msr_entry){ .index = 0x174, .data = 6 };
	to->msr_count = 3;
	to->msrs[0] = (struct kvm_msr_entry){ .index = 0x48, .data = 1 };
	to->msrs[1] = (struct kvm_msr_entry){ .index = 0x10a, .data = 2 };
	to->msrs[2] = (struct kvm_msr_entry){ .index = 0x174, .data = 3 };
	hv_vcpu_keep_features(from, to);
	cr_assert_eq(to->msrs[0].data, 1);
	cr_assert_eq(to->msrs[1].data, 5);
	cr_assert_eq(to->msrs[2].data, 3);
}
