/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Exits of the Hyper-V interface: synthetic MSRs, and the port that the hypercall page reads.
 */
#include <sys/ioctl.h>

#include "hypervisor/hyperv_priv.h"
#include "hypervisor/partition_priv.h"

#define EFER_LMA (1ULL << 10)

void hv_vcpu_msr(struct hv_vcpu *vcpu, bool is_write)
{
	struct hv_partition *partition = vcpu->partition;
	struct kvm_run *run = vcpu->run;
	uint64_t value = run->msr.data;
	int r = -1;

	if (is_write && partition->ops->msr_write != NULL)
		r = partition->ops->msr_write(partition->context, vcpu->index, run->msr.index,
					      value);
	if (!is_write && partition->ops->msr_read != NULL)
		r = partition->ops->msr_read(partition->context, vcpu->index, run->msr.index,
					     &value);
	/* After it is done: what was found before is not believed after it. */
	if (is_write &&
	    (run->msr.index == HV_MSR_GUEST_OS_ID || run->msr.index == HV_MSR_HYPERCALL))
		atomic_fetch_add(&partition->call_epoch, 1);
	if (!is_write)
		run->msr.data = r < 0 ? 0 : value;
	run->msr.error = r < 0;
}

bool hv_vcpu_is_call(const struct hv_vcpu *vcpu)
{
	const struct kvm_run *run = vcpu->run;

	return run->io.port == HV_HYPERCALL_PORT && run->io.direction == KVM_EXIT_IO_IN &&
	       run->io.size == 4 && run->io.count == 1 && vcpu->partition->ops->hypercall != NULL;
}

/* --- where a call comes from --- */

#define TABLE_MASK (~0xfffULL) /* of CR3: without the PCID */

bool hv_call_sites_find(struct hv_call_sites *sites, uint64_t epoch, uint64_t rip, uint64_t cr3,
			uint64_t *ret_gpa)
{
#ifdef GODWIT_MUTANT_HYPERV_CALL_SITES
	(void)epoch;
#else
	if (sites->epoch != epoch)
		*sites = (struct hv_call_sites){ .epoch = epoch };
#endif
	for (uint32_t i = 0; i < sites->count; i++) {
		if (sites->sites[i].rip == rip && sites->sites[i].table == (cr3 & TABLE_MASK)) {
			*ret_gpa = sites->sites[i].gpa;
			return true;
		}
	}
	return false;
}

void hv_call_sites_add(struct hv_call_sites *sites, uint64_t rip, uint64_t cr3, uint64_t gpa)
{
	uint32_t at = sites->next;

	sites->next = (at + 1) % HV_CALL_SITES;
	if (sites->count < HV_CALL_SITES)
		sites->count++;
	sites->sites[at].rip = rip;
	sites->sites[at].table = cr3 & TABLE_MASK;
	sites->sites[at].gpa = gpa;
}

/*
 * The guest page of the instruction; UINT64_MAX unknown.  Before or behind the instruction, as
 * this KVM has it: both are in the page.
 *
 * Remembered for 64-bit code of ring 0, where a linear address is all there is to it, and until a
 * guest writes one of the registers that say where the hypercall page is.  A kernel that puts
 * something else there without saying so, and lets that read our port, has made a hypercall: it
 * may make one anyhow.
 */
static uint64_t find_site(struct hv_vcpu *vcpu, const struct hv_hypercall *call, uint64_t rip,
			  uint64_t cr3)
{
	uint64_t epoch = atomic_load(&vcpu->partition->call_epoch);
	struct kvm_translation where = { .linear_address = rip };
	bool remember = call->is_long && !vcpu->asks_always;
	uint64_t gpa = UINT64_MAX;

	if (remember && hv_call_sites_find(&vcpu->sites, epoch, rip, cr3, &gpa))
		return gpa;
	if (ioctl(vcpu->fd, KVM_TRANSLATE, &where) < 0 || where.valid == 0)
		return UINT64_MAX;
	if (remember)
		hv_call_sites_add(&vcpu->sites, rip, cr3, where.physical_address);
	return where.physical_address;
}

/* --- registers --- */

void hv_vcpu_sync_begin(struct hv_vcpu *vcpu)
{
	int fields = ioctl(vcpu->partition->kvm_fd, KVM_CHECK_EXTENSION, KVM_CAP_SYNC_REGS);

	if (fields < 0 || ((unsigned int)fields & HV_SYNC_REGS) != HV_SYNC_REGS)
		return;
	vcpu->sync = HV_SYNC_OFFERED;
	vcpu->run->kvm_valid_regs = HV_SYNC_REGS;
}

/* A KVM that promises and leaves zeros would have ring 3 look like ring 0: once, compare. */
static void prove(struct hv_vcpu *vcpu, const struct kvm_regs *regs, const struct kvm_sregs *sregs)
{
	const struct kvm_regs *r = &vcpu->run->s.regs.regs;
	const struct kvm_sregs *s = &vcpu->run->s.regs.sregs;

	if (r->rip == regs->rip && r->rcx == regs->rcx && r->rdx == regs->rdx &&
	    r->r8 == regs->r8 && s->cs.selector == sregs->cs.selector &&
	    s->cs.dpl == sregs->cs.dpl && s->cs.l == sregs->cs.l && s->ss.dpl == sregs->ss.dpl &&
	    s->cr3 == sregs->cr3 && s->efer == sregs->efer) {
		vcpu->sync = HV_SYNC_PROVEN;
		return;
	}
	vcpu->sync = HV_SYNC_NONE;
	vcpu->run->kvm_valid_regs = 0;
}

/* As they are at this exit.  What KVM hands over is a copy: nothing is ever written back by it, so
 * who reads registers by a call finds the same. */
static bool read_registers(struct hv_vcpu *vcpu, struct kvm_regs *ret_regs,
			   struct kvm_sregs *ret_sregs)
{
	if (vcpu->sync == HV_SYNC_PROVEN) {
		*ret_regs = vcpu->run->s.regs.regs;
		*ret_sregs = vcpu->run->s.regs.sregs;
		return true;
	}
	if (ioctl(vcpu->fd, KVM_GET_REGS, ret_regs) < 0 ||
	    ioctl(vcpu->fd, KVM_GET_SREGS, ret_sregs) < 0)
		return false;
	if (vcpu->sync == HV_SYNC_OFFERED)
		prove(vcpu, ret_regs, ret_sregs);
	return true;
}

uint32_t hv_vcpu_call(struct hv_vcpu *vcpu)
{
	const struct hv_partition *partition = vcpu->partition;
	struct hv_hypercall call = { .rip_gpa = UINT64_MAX };
	struct kvm_sregs sregs;
	struct kvm_regs regs;

	if (!read_registers(vcpu, &regs, &sregs))
		return UINT32_MAX;
	call.control = regs.rcx;
	call.input = regs.rdx;
	call.output = regs.r8;
#ifndef GODWIT_MUTANT_HYPERV_RING
	call.is_kernel = sregs.ss.dpl == 0 && sregs.cs.dpl == 0;
#else
	call.is_kernel = true;
#endif
	call.is_long = (sregs.efer & EFER_LMA) != 0 && sregs.cs.l != 0;
	if (call.is_kernel) /* else it is none, wherever it comes from */
		call.rip_gpa = find_site(vcpu, &call, regs.rip, sregs.cr3);
	return partition->ops->hypercall(partition->context, &call);
}
