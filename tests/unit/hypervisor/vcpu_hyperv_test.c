/* SPDX-License-Identifier: Apache-2.0 */
/* Hypercall exits: whose registers count, and which instruction is in the hypercall page.  Without
 * KVM: what would be asked of it fails, so only what the vCPU knows by itself can answer. */
#include <criterion/criterion.h>
#include <string.h>

#include "hypervisor/hyperv_priv.h"
#include "hypervisor/partition_priv.h"

#define RIP   0xffffffffc0001002ULL
#define TABLE 0x12345000ULL
#define GPA   0x7002ULL
#define PCID  0x123ULL

struct world {
	struct hv_partition partition;
	struct hv_vcpu *vcpu;
	struct kvm_run run;
	struct hv_hypercall seen;
	uint32_t calls;
};

static uint32_t on_call(void *context, const struct hv_hypercall *call)
{
	struct world *world = context;

	world->seen = *call;
	world->calls++;
	return HV_STATUS_SUCCESS;
}

static int on_write(void *context, uint32_t vcpu, uint32_t msr, uint64_t value)
{
	(void)context;
	(void)vcpu;
	(void)msr;
	(void)value;
	return 0;
}

static const struct hv_partition_ops ops = { .hypercall = on_call, .msr_write = on_write };

/* A vCPU whose registers came with the exit, in 64-bit code of @ring. */
static struct world *new_world(uint8_t ring)
{
	static struct world world;
	struct kvm_sregs *sregs = &world.run.s.regs.sregs;
	struct kvm_regs *regs = &world.run.s.regs.regs;

	memset(&world, 0, sizeof(world));
	world.vcpu = &world.partition.vcpus[0];
	world.partition.ops = &ops;
	world.partition.context = &world;
	world.vcpu->partition = &world.partition;
	world.vcpu->run = &world.run;
	world.vcpu->fd = -1;
	world.vcpu->sync = HV_SYNC_PROVEN;
	regs->rip = RIP;
	regs->rcx = 1;
	regs->rdx = 2;
	regs->r8 = 3;
	sregs->cs.dpl = ring;
	sregs->ss.dpl = ring;
	sregs->cs.l = 1;
	sregs->cr3 = TABLE;
	sregs->efer = 0x500;
	hv_call_sites_add(&world.vcpu->sites, RIP, TABLE, GPA);
	return &world;
}

static uint64_t page_of_call(struct world *world)
{
	uint32_t before = world->calls;

	cr_assert_eq(hv_vcpu_call(world->vcpu), HV_STATUS_SUCCESS);
	cr_assert_eq(world->calls, before + 1);
	return world->seen.rip_gpa;
}

static void write_msr(struct world *world, uint32_t msr)
{
	world->run.msr.index = msr;
	hv_vcpu_msr(world->vcpu, true);
	cr_assert_eq(world->run.msr.error, 0);
}

Test(vcpu_hyperv, registers_come_with_the_exit)
{
	struct world *world = new_world(0);

	cr_assert_eq(page_of_call(world), GPA);
	cr_assert_eq(world->seen.control, 1);
	cr_assert_eq(world->seen.input, 2);
	cr_assert_eq(world->seen.output, 3);
	cr_assert(world->seen.is_kernel);
	cr_assert(world->seen.is_long);
}

Test(vcpu_hyperv, what_was_not_proven_is_not_believed)
{
	struct world *world = new_world(0);

	world->vcpu->sync = HV_SYNC_OFFERED;
	cr_assert_eq(hv_vcpu_call(world->vcpu), UINT32_MAX);
	world->vcpu->sync = HV_SYNC_NONE;
	cr_assert_eq(hv_vcpu_call(world->vcpu), UINT32_MAX);
	cr_assert_eq(world->calls, 0);
}

Test(vcpu_hyperv, ring_3_is_never_in_the_page)
{
	struct world *world = new_world(3);

	cr_assert_eq(page_of_call(world), UINT64_MAX);
	cr_assert_not(world->seen.is_kernel);
	world->run.s.regs.sregs.cs.dpl = 0; /* neither register alone makes a kernel */
	cr_assert_eq(page_of_call(world), UINT64_MAX);
	world->run.s.regs.sregs.cs.dpl = 3;
	world->run.s.regs.sregs.ss.dpl = 0;
	cr_assert_eq(page_of_call(world), UINT64_MAX);
}

Test(vcpu_hyperv, a_place_is_known_by_address_and_address_space)
{
	struct world *world = new_world(0);

	world->run.s.regs.sregs.cr3 = TABLE | PCID;
	cr_assert_eq(page_of_call(world), GPA);
	world->run.s.regs.sregs.cr3 = TABLE + 0x1000;
	cr_assert_eq(page_of_call(world), UINT64_MAX);
	world->run.s.regs.sregs.cr3 = TABLE;
	world->run.s.regs.regs.rip = RIP + 1;
	cr_assert_eq(page_of_call(world), UINT64_MAX);
}

Test(vcpu_hyperv, other_code_than_64_bit_is_always_looked_up)
{
	struct world *world = new_world(0);

	world->run.s.regs.sregs.cs.l = 0;
	cr_assert_eq(page_of_call(world), UINT64_MAX);
	cr_assert_not(world->seen.is_long);
	world->run.s.regs.sregs.cs.l = 1;
	world->run.s.regs.sregs.efer = 0;
	cr_assert_eq(page_of_call(world), UINT64_MAX);
}

Test(vcpu_hyperv, who_asks_always_remembers_nothing)
{
	struct world *world = new_world(0);

	world->vcpu->asks_always = true;
	cr_assert_eq(page_of_call(world), UINT64_MAX);
}

Test(vcpu_hyperv, a_write_of_the_page_or_the_id_forgets)
{
	static const uint32_t forgets[] = { HV_MSR_GUEST_OS_ID, HV_MSR_HYPERCALL };

	for (size_t i = 0; i < sizeof(forgets) / sizeof(forgets[0]); i++) {
		struct world *world = new_world(0);

		write_msr(world, HV_MSR_REFERENCE_TSC);
		cr_assert_eq(page_of_call(world), GPA);
		write_msr(world, forgets[i]);
		cr_assert_eq(page_of_call(world), UINT64_MAX);
		hv_call_sites_add(&world->vcpu->sites, RIP, TABLE, GPA + 0x1000);
		cr_assert_eq(page_of_call(world), GPA + 0x1000);
	}
}

Test(vcpu_hyperv, the_latest_places_are_remembered)
{
	struct hv_call_sites sites = { .epoch = 0 };
	uint64_t gpa = 0;

	for (uint64_t i = 0; i < 3 * HV_CALL_SITES; i++)
		hv_call_sites_add(&sites, RIP, TABLE + i * 0x1000, i);
	for (uint64_t i = 0; i < 3 * HV_CALL_SITES; i++) {
		bool found = hv_call_sites_find(&sites, 0, RIP, TABLE + i * 0x1000, &gpa);

		cr_assert_eq(found, i >= 2 * HV_CALL_SITES);
		if (found)
			cr_assert_eq(gpa, i);
	}
}
