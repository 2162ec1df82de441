/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A guest that executes CPUID and RDTSC and leaves by an MMIO write.
 *
 * Ring 3, because there the answers are what programs get on every KVM: kernels that
 * emulate guest ring 0 would answer there from the table they were given, and run ring 3
 * natively.  The vCPU is put there by registers; it has no IDT, so any fault is a
 * triple fault and shows as a shutdown exit.
 *
 * Guest-physical = guest-virtual but for the exit page:
 *   0x0000 PML4  0x1000 PDPT  0x2000 PD  0x3000 PT  0x4000 code  0x5000 questions
 *   virtual 0x6000 -> physical EXIT_GPA, where there is no memory
 */
#include "hypervisor/probe_guest.h"

#include <errno.h>
#include <inttypes.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/clock.h"
#include "hypervisor/cpu_features.h"
#include "hypervisor/host_probe.h"
#include "hypervisor/hv_limits.h"
#include "hypervisor/kvm_vm_priv.h"

#define PML4_GPA      0x0000U
#define PDPT_GPA      0x1000U
#define PD_GPA        0x2000U
#define PT_GPA        0x3000U
#define CODE_GPA      0x4000U
#define QUESTIONS_GPA 0x5000U
#define MEMORY_BYTES  0x6000U
#define EXIT_GVA      0x6000U
#define EXIT_GPA      0x10000000U /* beyond memory, below every platform device */

#define PAGE_TABLE_FLAGS 0x67ULL /* present, writable, user, accessed, dirty */

#define CR0_PROTECTED_PAGED 0x80050033ULL /* PG AM WP NE ET MP PE */
#define CR4_PAE             0x20ULL
#define EFER_LONG           0x500ULL /* LMA LME */
#define EFER_NX             0x800ULL
#define EFER_SYSCALL        0x1ULL

#define HYPERVISOR_LEAF 0x40000000U
#define EXTENDED_LEAF   0x80000000U

#define MSR_TSC            0x10U
#define TSC_STEP           (1ULL << 44) /* hours: no clock difference between cores looks like it */
#define TSC_SLACK          (1ULL << 36) /* seconds: a vCPU may wait that long for a core */
#define RUN_RETRIES_MAX    1000         /* signals between two entries; more is not an accident */
#define XSAVE_SUBLEAVES    20U
#define CACHE_SUBLEAVES    5U
#define TOPOLOGY_SUBLEAVES 3U

/*
 * r8: question count, rsi: first question; a question is 24 bytes: function, index, then
 * the four registers of the answer.  After the answers, and again at each later entry,
 * RAX holds the TSC at the exit.
 */
static const uint8_t guest_code[] = {
	/* next: */
	0x8b, 0x06,             /* mov eax, [rsi] */
	0x8b, 0x4e, 0x04,       /* mov ecx, [rsi + 4] */
	0x0f, 0xa2,             /* cpuid */
	0x89, 0x46, 0x08,       /* mov [rsi + 8], eax */
	0x89, 0x5e, 0x0c,       /* mov [rsi + 12], ebx */
	0x89, 0x4e, 0x10,       /* mov [rsi + 16], ecx */
	0x89, 0x56, 0x14,       /* mov [rsi + 20], edx */
	0x48, 0x83, 0xc6, 0x18, /* add rsi, 24 */
	0x41, 0xff, 0xc8,       /* dec r8d */
	0x75, 0xe4,             /* jnz next */
	/* tell: */
	0x0f, 0x31,             /* rdtsc */
	0x48, 0xc1, 0xe2, 0x20, /* shl rdx, 32 */
	0x48, 0x09, 0xd0,       /* or rax, rdx */
	0x48, 0x89, 0x07,       /* mov [rdi], rax: leaves */
	0xeb, 0xf2,             /* jmp tell */
};

struct question {
	uint32_t function;
	uint32_t index;
	uint32_t eax;
	uint32_t ebx;
	uint32_t ecx;
	uint32_t edx;
};

_Static_assert(sizeof(struct question) == 24, "the guest's code counts on it");
_Static_assert(HV_CPUID_ENTRIES_MAX * sizeof(struct question) <= HV_PAGE_BYTES, "one page");

/* What the throw-away VM holds; fini releases in reverse. */
struct probe {
	int vm_fd;
	int vcpu_fd;
	uint8_t *memory;
	struct kvm_run *run;
	size_t run_bytes;
};

static void probe_fini(struct probe *probe)
{
	if (probe->run != NULL)
		(void)munmap(probe->run, probe->run_bytes);
	base_closep(&probe->vcpu_fd);
	base_closep(&probe->vm_fd);
	if (probe->memory != NULL)
		(void)munmap(probe->memory, MEMORY_BYTES);
}

static void ask(struct hv_cpuid_table *questions, uint32_t function, uint32_t index)
{
	struct hv_cpuid_entry entry = {
		.function = function,
		.index = index,
		.flags = hv_cpuid_is_indexed(function) ? HV_CPUID_INDEXED : 0,
	};

	/* a full table only means that the last of the wishes stay open */
	(void)!hv_cpuid_set(questions, entry, NULL);
}

/* All that is asked inside, most important first. */
static struct hv_cpuid_table make_questions(const struct hv_cpuid_table *give)
{
	static const uint32_t plain[] = {
		0x0,        0x1,        0xa,        0x80000000, 0x80000001, 0x80000002,
		0x80000003, 0x80000004, 0x80000008, 0x15,       0x16,
	};
	struct hv_cpuid_table questions = { .count = 0 };

	for (uint32_t i = 0; i < hv_cpu_register_count(); i++)
		ask(&questions, hv_cpu_register_at(i)->leaf, hv_cpu_register_at(i)->subleaf);
	for (size_t i = 0; i < sizeof(plain) / sizeof(plain[0]); i++)
		ask(&questions, plain[i], 0);
	for (uint32_t i = 0; i < XSAVE_SUBLEAVES; i++)
		ask(&questions, 0xd, i);
	for (uint32_t i = 0; i < TOPOLOGY_SUBLEAVES; i++)
		ask(&questions, 0xb, i);
	for (uint32_t i = 0; i < CACHE_SUBLEAVES; i++)
		ask(&questions, 0x4, i);
	ask(&questions, 0x24, 0);
	for (uint32_t i = 0; i < give->count; i++)
		ask(&questions, give->entries[i].function, give->entries[i].index);
	return questions;
}

static void fill_memory(uint8_t *memory, const struct hv_cpuid_table *questions)
{
	base_put_le64(memory + PML4_GPA, PDPT_GPA | PAGE_TABLE_FLAGS);
	base_put_le64(memory + PDPT_GPA, PD_GPA | PAGE_TABLE_FLAGS);
	base_put_le64(memory + PD_GPA, PT_GPA | PAGE_TABLE_FLAGS);
	for (uint64_t gpa = 0; gpa < MEMORY_BYTES; gpa += HV_PAGE_BYTES)
		base_put_le64(memory + PT_GPA + gpa / HV_PAGE_BYTES * 8, gpa | PAGE_TABLE_FLAGS);
	base_put_le64(memory + PT_GPA + EXIT_GVA / HV_PAGE_BYTES * 8, EXIT_GPA | PAGE_TABLE_FLAGS);

	memcpy(memory + CODE_GPA, guest_code, sizeof(guest_code));
	for (uint32_t i = 0; i < questions->count; i++) {
		uint8_t *at = memory + QUESTIONS_GPA + i * sizeof(struct question);

		base_put_le32(at, questions->entries[i].function);
		base_put_le32(at + 4, questions->entries[i].index);
	}
}

static int make_vm(struct probe *probe, int kvm_fd, struct base_error *err)
{
	struct kvm_userspace_memory_region region = { .memory_size = MEMORY_BYTES };
	void *memory = mmap(NULL, MEMORY_BYTES, PROT_READ | PROT_WRITE,
			    MAP_SHARED | MAP_ANONYMOUS | MAP_POPULATE, -1, 0);
	uint64_t identity_map = HV_GPA_VMX_IDENTITY_MAP;
	int run_bytes = ioctl(kvm_fd, KVM_GET_VCPU_MMAP_SIZE, 0);
	void *run;

	if (memory == MAP_FAILED)
		return base_fail_errno(err, -errno, "memory, %u bytes", MEMORY_BYTES);
	probe->memory = memory;
	region.userspace_addr = (uint64_t)(uintptr_t)memory;

	if (run_bytes < (int)sizeof(struct kvm_run))
		return base_fail(err, -EPROTO, "KVM_GET_VCPU_MMAP_SIZE: %d", run_bytes);
	probe->vm_fd = hv_kvm_vm_new(kvm_fd);
	if (probe->vm_fd < 0)
		return base_fail_errno(err, -errno, "KVM_CREATE_VM");
	/* only VMX without unrestricted guest needs these two; elsewhere they change nothing */
	(void)ioctl(probe->vm_fd, KVM_SET_IDENTITY_MAP_ADDR, &identity_map);
	(void)ioctl(probe->vm_fd, KVM_SET_TSS_ADDR, HV_GPA_VMX_TSS);
	if (ioctl(probe->vm_fd, KVM_SET_USER_MEMORY_REGION, &region) < 0)
		return base_fail_errno(err, -errno, "KVM_SET_USER_MEMORY_REGION");
	probe->vcpu_fd = ioctl(probe->vm_fd, KVM_CREATE_VCPU, 0);
	if (probe->vcpu_fd < 0)
		return base_fail_errno(err, -errno, "KVM_CREATE_VCPU");

	run = mmap(NULL, (size_t)run_bytes, PROT_READ | PROT_WRITE, MAP_SHARED, probe->vcpu_fd, 0);
	if (run == MAP_FAILED)
		return base_fail_errno(err, -errno, "vCPU's shared page, %d bytes", run_bytes);
	probe->run = run;
	probe->run_bytes = (size_t)run_bytes;
	return 0;
}

/* Ring 3, 64-bit, flat, paging on, at the first instruction. */
static int set_registers(const struct probe *probe, const struct hv_cpuid_table *give,
			 uint32_t question_count, struct base_error *err)
{
	const struct kvm_segment code = { .limit = 0xffffffff,
					  .selector = 0x33,
					  .type = 11,
					  .present = 1,
					  .dpl = 3,
					  .s = 1,
					  .l = 1,
					  .g = 1 };
	const struct kvm_segment data = { .limit = 0xffffffff,
					  .selector = 0x2b,
					  .type = 3,
					  .present = 1,
					  .dpl = 3,
					  .db = 1,
					  .s = 1,
					  .g = 1 };
	const struct kvm_regs regs = {
		.rip = CODE_GPA,
		.rsi = QUESTIONS_GPA,
		.rdi = EXIT_GVA,
		.r8 = question_count,
		.rflags = 0x2,
	};
	struct kvm_sregs sregs;

	if (ioctl(probe->vcpu_fd, KVM_GET_SREGS, &sregs) < 0)
		return base_fail_errno(err, -errno, "KVM_GET_SREGS");
	sregs.cr0 = CR0_PROTECTED_PAGED;
	sregs.cr3 = PML4_GPA;
	sregs.cr4 = CR4_PAE;
	sregs.efer = EFER_LONG;
	if (hv_cpu_feature_in(give, hv_cpu_feature_by_name("nx")))
		sregs.efer |= EFER_NX;
	if (hv_cpu_feature_in(give, hv_cpu_feature_by_name("syscall")))
		sregs.efer |= EFER_SYSCALL;
	sregs.cs = code;
	sregs.ds = sregs.es = sregs.fs = sregs.gs = sregs.ss = data;
	sregs.tr = (struct kvm_segment){ .limit = 0x67, .type = 11, .present = 1 };
	sregs.ldt = (struct kvm_segment){ .unusable = 1 };
	if (ioctl(probe->vcpu_fd, KVM_SET_SREGS, &sregs) < 0)
		return base_fail_errno(err, -errno, "KVM_SET_SREGS");
	if (ioctl(probe->vcpu_fd, KVM_SET_REGS, &regs) < 0)
		return base_fail_errno(err, -errno, "KVM_SET_REGS");
	return 0;
}

/* Run to the next exit write; the guest's TSC there. */
static int run_to_exit(const struct probe *probe, uint64_t *ret_tsc, struct base_error *err)
{
	int result = -1;

	for (int i = 0; result < 0 && i < RUN_RETRIES_MAX; i++) {
		result = ioctl(probe->vcpu_fd, KVM_RUN, 0);
		if (result < 0 && errno != EINTR && errno != EAGAIN)
			return base_fail_errno(err, -errno, "KVM_RUN");
	}
	if (result < 0)
		return base_fail(err, -EPROTO, "KVM_RUN: interrupted %d times", RUN_RETRIES_MAX);
	if (probe->run->exit_reason != KVM_EXIT_MMIO || probe->run->mmio.phys_addr != EXIT_GPA ||
	    probe->run->mmio.len != 8 || probe->run->mmio.is_write == 0)
		return base_fail(err, -EPROTO,
				 "guest: exit reason %" PRIu32 " at 0x%" PRIx64
				 ", expected a write to 0x%x",
				 (uint32_t)probe->run->exit_reason,
				 (uint64_t)probe->run->mmio.phys_addr, EXIT_GPA);
	*ret_tsc = base_get_le64(probe->run->mmio.data);
	return 0;
}

/* Whether the guest reads its TSC @ahead of the host's, which was @host_before the run. */
static bool tsc_is_ahead(uint64_t guest, uint64_t host_before, uint64_t ahead)
{
	uint64_t off = guest - host_before - ahead; /* time that passed, when it is ahead */

	return off < TSC_SLACK || -off < TSC_SLACK;
}

static int probe_tsc_offset(const struct probe *probe, bool *ret_honoured, struct base_error *err)
{
	uint64_t offset = 0;
	struct kvm_device_attr attr = {
		.group = KVM_VCPU_TSC_CTRL,
		.attr = KVM_VCPU_TSC_OFFSET,
		.addr = (uint64_t)(uintptr_t)&offset,
	};
	uint64_t before;
	uint64_t guest = 0;
	int result;

	*ret_honoured = false;
	if (ioctl(probe->vcpu_fd, KVM_GET_DEVICE_ATTR, &attr) < 0)
		return 0; /* KVM before Linux 5.16 has no such attribute */
	offset += TSC_STEP;
	if (ioctl(probe->vcpu_fd, KVM_SET_DEVICE_ATTR, &attr) < 0)
		return 0;
	before = base_tsc_read();
	result = run_to_exit(probe, &guest, err);
	if (result < 0)
		return result;
	*ret_honoured = tsc_is_ahead(guest, before, offset);
	return 0;
}

static int probe_tsc_write(const struct probe *probe, bool *ret_honoured, struct base_error *err)
{
	union {
		struct kvm_msrs head;
		uint8_t room[sizeof(struct kvm_msrs) + sizeof(struct kvm_msr_entry)];
	} msrs = { .head.nmsrs = 1 };
	uint64_t before = base_tsc_read();
	uint64_t guest = 0;
	int result;

	*ret_honoured = false;
	msrs.head.entries[0] = (struct kvm_msr_entry){
		.index = MSR_TSC,
		.data = before + 3 * TSC_STEP, /* neither no offset nor the one set before */
	};
	if (ioctl(probe->vcpu_fd, KVM_SET_MSRS, &msrs) != 1)
		return 0;
	result = run_to_exit(probe, &guest, err);
	if (result < 0)
		return result;
	*ret_honoured = tsc_is_ahead(guest, before, 3 * TSC_STEP);
	return 0;
}

/* Intel answers a leaf beyond its highest with the data of the highest: no answer at all. */
static void drop_out_of_range(struct hv_cpuid_table *seen)
{
	uint32_t basic = hv_cpuid_register(seen, 0, 0, HV_CPUID_EAX);
	uint32_t extended = hv_cpuid_register(seen, EXTENDED_LEAF, 0, HV_CPUID_EAX);

	if (basic < HYPERVISOR_LEAF - 1)
		hv_cpuid_remove(seen, basic + 1, HYPERVISOR_LEAF - 1);
	if (!hv_cpu_feature_in(seen, hv_cpu_feature_by_name("hypervisor")))
		hv_cpuid_remove(seen, HYPERVISOR_LEAF, EXTENDED_LEAF - 1);
	if (extended < EXTENDED_LEAF)
		hv_cpuid_remove(seen, EXTENDED_LEAF, UINT32_MAX);
	else if (extended < UINT32_MAX)
		hv_cpuid_remove(seen, extended + 1, UINT32_MAX);
}

/* The answers in the guest's page; the guest is ours, and nothing depends on them but text. */
static int take_answers(const uint8_t *memory, const struct hv_cpuid_table *questions,
			struct hv_cpuid_table *ret_seen, struct base_error *err)
{
	struct hv_cpuid_table seen = { .count = 0 };

	for (uint32_t i = 0; i < questions->count; i++) {
		const uint8_t *at = memory + QUESTIONS_GPA + i * sizeof(struct question);
		struct hv_cpuid_entry entry = questions->entries[i];
		int result;

		entry.eax = base_get_le32(at + 8);
		entry.ebx = base_get_le32(at + 12);
		entry.ecx = base_get_le32(at + 16);
		entry.edx = base_get_le32(at + 20);
		if ((entry.eax | entry.ebx | entry.ecx | entry.edx) == 0)
			continue;
		result = hv_cpuid_set(&seen, entry, err);
		if (result < 0)
			return result;
	}
	drop_out_of_range(&seen);
	*ret_seen = seen;
	return 0;
}

int hv_probe_guest_run(int kvm_fd, const struct hv_cpuid_table *give,
		       struct hv_probe_answer *ret_answer, struct base_error *err)
{
	BASE_CLEANUP(probe_fini) struct probe probe = { .vm_fd = -1, .vcpu_fd = -1 };
	struct hv_cpuid_table questions = make_questions(give);
	struct hv_probe_answer answer = { .tsc_khz = 0 };
	uint64_t tsc = 0;
	int khz;
	int result;

	result = make_vm(&probe, kvm_fd, err);
	if (result < 0)
		return result;
	base_assert(probe.memory != NULL && probe.run != NULL);
	fill_memory(probe.memory, &questions);
	result = hv_kvm_cpuid_give(probe.vcpu_fd, give, err);
	if (result == 0)
		result = set_registers(&probe, give, questions.count, err);
	if (result == 0)
		result = run_to_exit(&probe, &tsc, err);
	if (result == 0)
		result = take_answers(probe.memory, &questions, &answer.seen, err);
	if (result == 0)
		result = probe_tsc_offset(&probe, &answer.tsc_offset_honoured, err);
	if (result == 0)
		result = probe_tsc_write(&probe, &answer.tsc_write_honoured, err);
	if (result < 0)
		return result;

	khz = ioctl(probe.vcpu_fd, KVM_GET_TSC_KHZ, 0);
	answer.tsc_khz = khz > 0 ? (uint64_t)khz : 0;
	*ret_answer = answer;
	return 0;
}
