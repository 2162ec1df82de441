/* SPDX-License-Identifier: Apache-2.0 */
/* KVM's descriptor, its CPUID calls and its capabilities.  The guest: probe_guest.c. */
#include "hypervisor/host_probe.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/ioctl.h>

#include "base/cleanup.h"
#include "hypervisor/cpu_features.h"
#include "hypervisor/probe_guest.h"

#define XSAVE_BYTES_LEGACY 4096U

int hv_kvm_open(const char *path, struct base_error *err)
{
	BASE_CLOSE int fd = open(path, O_RDWR | O_CLOEXEC);
	int version;

	if (fd < 0) {
		int code = -errno;

		if (code == -ENOENT || code == -ENODEV || code == -ENXIO)
			return base_fail(err, code,
					 "%s: not there: load kvm_intel or kvm_amd, or enable "
					 "virtualization in the firmware",
					 path);
		if (code == -EACCES || code == -EPERM)
			return base_fail(err, code,
					 "%s: no permission to read and write: join its group "
					 "(usually 'kvm') or run as root",
					 path);
		return base_fail_errno(err, code, "%s", path);
	}

	version = ioctl(fd, KVM_GET_API_VERSION, 0);
	if (version < 0)
		return base_fail(err, -ENOTSUP, "%s: not KVM: it does not tell an API version",
				 path);
	if (version != HV_KVM_API_VERSION)
		return base_fail(err, -ENOTSUP, "%s: KVM API version %d, expected %d", path,
				 version, HV_KVM_API_VERSION);
	return base_take_fd(&fd);
}

static uint32_t capability(int kvm_fd, unsigned long number)
{
	int value = ioctl(kvm_fd, KVM_CHECK_EXTENSION, number);

	return value > 0 ? (uint32_t)value : 0; /* a KVM that does not know it has it not */
}

int hv_kvm_cpuid_supported(int kvm_fd, struct hv_cpuid_table *ret_table, struct base_error *err)
{
	union hv_cpuid_kvm kvm = { .head.nent = HV_CPUID_KVM_ENTRIES_MAX };
	struct hv_cpuid_table table;
	int result;

	if (ioctl(kvm_fd, KVM_GET_SUPPORTED_CPUID, &kvm) < 0)
		return base_fail_errno(err, -errno, "KVM_GET_SUPPORTED_CPUID");
	result = hv_cpuid_from_kvm(&kvm, &table, err);
	if (result == 0 && capability(kvm_fd, KVM_CAP_TSC_DEADLINE_TIMER) != 0)
		result = hv_cpu_feature_put(&table, hv_cpu_feature_by_name("tsc_deadline_timer"),
					    true, err);
	if (result < 0)
		return base_fail_within(err, result, "KVM_GET_SUPPORTED_CPUID");

	*ret_table = table;
	return 0;
}

int hv_kvm_cpuid_give(int vcpu_fd, const struct hv_cpuid_table *table, struct base_error *err)
{
	union hv_cpuid_kvm kvm;

	hv_cpuid_to_kvm(table, &kvm);
	if (ioctl(vcpu_fd, KVM_SET_CPUID2, &kvm) < 0)
		return base_fail_errno(err, -errno, "KVM_SET_CPUID2 of %u entries", table->count);
	return 0;
}

int hv_kvm_cpuid_read(int vcpu_fd, struct hv_cpuid_table *ret_table, struct base_error *err)
{
	union hv_cpuid_kvm kvm = { .head.nent = HV_CPUID_KVM_ENTRIES_MAX };

	if (ioctl(vcpu_fd, KVM_GET_CPUID2, &kvm) < 0)
		return base_fail_errno(err, -errno, "KVM_GET_CPUID2");
	return hv_cpuid_from_kvm(&kvm, ret_table, err);
}

static void ask_capabilities(int kvm_fd, struct hv_host_facts *facts)
{
	const uint32_t sync_regs = KVM_SYNC_X86_REGS | KVM_SYNC_X86_SREGS;
	uint32_t ring = capability(kvm_fd, KVM_CAP_DIRTY_LOG_RING);
	uint32_t ring_ordered = capability(kvm_fd, KVM_CAP_DIRTY_LOG_RING_ACQ_REL);
	int version = ioctl(kvm_fd, KVM_GET_API_VERSION, 0);

	facts->api_version = version > 0 ? (uint32_t)version : 0;
	facts->vcpus_recommended = capability(kvm_fd, KVM_CAP_NR_VCPUS);
	facts->vcpus_max = capability(kvm_fd, KVM_CAP_MAX_VCPUS);
	facts->vcpu_id_max = capability(kvm_fd, KVM_CAP_MAX_VCPU_ID);
	facts->memory_slots = capability(kvm_fd, KVM_CAP_NR_MEMSLOTS);
	facts->xsave_bytes = capability(kvm_fd, KVM_CAP_XSAVE2);
	if (facts->xsave_bytes < XSAVE_BYTES_LEGACY)
		facts->xsave_bytes = XSAVE_BYTES_LEGACY;
	facts->dirty_log_manual_flags = capability(kvm_fd, KVM_CAP_MANUAL_DIRTY_LOG_PROTECT2);
	facts->dirty_ring_bytes_max = ring > ring_ordered ? ring : ring_ordered;
	facts->user_msr_reasons = capability(kvm_fd, KVM_CAP_X86_USER_SPACE_MSR);
	facts->msr_filter = capability(kvm_fd, KVM_CAP_X86_MSR_FILTER) != 0;
	facts->immediate_exit = capability(kvm_fd, KVM_CAP_IMMEDIATE_EXIT) != 0;
	facts->sync_regs = (capability(kvm_fd, KVM_CAP_SYNC_REGS) & sync_regs) == sync_regs;
	facts->sregs2 = capability(kvm_fd, KVM_CAP_SREGS2) != 0;
	facts->split_irqchip = capability(kvm_fd, KVM_CAP_SPLIT_IRQCHIP) != 0;
	facts->smm = capability(kvm_fd, KVM_CAP_X86_SMM) != 0;
	facts->tsc_deadline_timer = capability(kvm_fd, KVM_CAP_TSC_DEADLINE_TIMER) != 0;
	facts->tsc_control = capability(kvm_fd, KVM_CAP_TSC_CONTROL) != 0;
	facts->vm_tsc_control = capability(kvm_fd, KVM_CAP_VM_TSC_CONTROL) != 0;
	facts->hyperv = capability(kvm_fd, KVM_CAP_HYPERV) != 0;
	facts->hyperv_synic2 = capability(kvm_fd, KVM_CAP_HYPERV_SYNIC2) != 0;
	facts->hyperv_cpuid = capability(kvm_fd, KVM_CAP_HYPERV_CPUID) != 0;
	facts->hyperv_tlbflush = capability(kvm_fd, KVM_CAP_HYPERV_TLBFLUSH) != 0;
	facts->hyperv_send_ipi = capability(kvm_fd, KVM_CAP_HYPERV_SEND_IPI) != 0;
	facts->hyperv_enforce_cpuid = capability(kvm_fd, KVM_CAP_HYPERV_ENFORCE_CPUID) != 0;
}

int hv_host_probe(int kvm_fd, const struct hv_cpuid_table *give, struct hv_host_facts *ret_facts,
		  struct base_error *err)
{
	struct hv_host_facts facts = { .api_version = 0 };
	struct hv_cpuid_table supported;
	struct hv_probe_answer answer = { .tsc_khz = 0 };
	int result = 0;

	ask_capabilities(kvm_fd, &facts);
	if (give == NULL) {
		result = hv_kvm_cpuid_supported(kvm_fd, &supported, err);
		give = &supported;
	}
	if (result == 0)
		result = hv_probe_guest_run(kvm_fd, give, &answer, err);
	if (result < 0)
		return base_fail_within(err, result, "host probe");

	facts.tsc_offset_honoured = answer.tsc_offset_honoured;
	facts.tsc_write_honoured = answer.tsc_write_honoured;
	facts.tsc_khz = answer.tsc_khz;
	facts.seen = answer.seen;
	*ret_facts = facts;
	return 0;
}
