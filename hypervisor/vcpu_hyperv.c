/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Exits of the Hyper-V interface: synthetic MSRs, and the port that the hypercall page reads.
 */
#include <sys/ioctl.h>

#include "hypervisor/hyperv.h"
#include "hypervisor/partition_priv.h"

#define EFER_LMA (1ULL << 10)

void hv_vcpu_msr(struct hv_vcpu *vcpu, bool is_write)
{
	const struct hv_partition *partition = vcpu->partition;
	struct kvm_run *run = vcpu->run;
	uint64_t value = run->msr.data;
	int r = -1;

	if (is_write && partition->ops->msr_write != NULL)
		r = partition->ops->msr_write(partition->context, vcpu->index, run->msr.index,
					      value);
	if (!is_write && partition->ops->msr_read != NULL)
		r = partition->ops->msr_read(partition->context, vcpu->index, run->msr.index,
					     &value);
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

uint32_t hv_vcpu_call(struct hv_vcpu *vcpu)
{
	const struct hv_partition *partition = vcpu->partition;
	struct hv_hypercall call = { .rip_gpa = UINT64_MAX };
	struct kvm_translation where = { .valid = 0 };
	struct kvm_sregs sregs;
	struct kvm_regs regs;

	if (ioctl(vcpu->fd, KVM_GET_REGS, &regs) < 0 || ioctl(vcpu->fd, KVM_GET_SREGS, &sregs) < 0)
		return UINT32_MAX;
	/* Before or behind the instruction, as this KVM has it: both are in the page. */
	where.linear_address = regs.rip;
	if (ioctl(vcpu->fd, KVM_TRANSLATE, &where) == 0 && where.valid != 0)
		call.rip_gpa = where.physical_address;
	call.control = regs.rcx;
	call.input = regs.rdx;
	call.output = regs.r8;
	call.is_kernel = sregs.ss.dpl == 0 && sregs.cs.dpl == 0;
	call.is_long = (sregs.efer & EFER_LMA) != 0 && sregs.cs.l != 0;
	return partition->ops->hypercall(partition->context, &call);
}
