/* SPDX-License-Identifier: Apache-2.0 */
#include "hypervisor/partition.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/clock.h"
#include "hypervisor/cpu_topology.h"
#include "hypervisor/host_probe.h"
#include "hypervisor/hyperv.h"
#include "hypervisor/kvm_vm_priv.h"
#include "hypervisor/machine.h"
#include "hypervisor/partition_priv.h"
#include "hypervisor/slat.h"

#define PARK_LOOK_NS (100 * BASE_NS_PER_US)

_Static_assert(HV_VCPUS_MAX <= 64, "a bit each of what has parked");

static void kicked(int signal_number)
{
	(void)signal_number; /* its arrival is all: KVM_RUN returns EINTR */
}

static int install_kick(struct base_error *err)
{
	struct sigaction action = { .sa_handler = kicked };

	if (sigaction(HV_KICK_SIGNAL, &action, NULL) < 0)
		return base_fail_errno(err, -errno, "signal %d", HV_KICK_SIGNAL);
	return 0;
}

/*
 * The chips, before any vCPU.  TSS and identity map addresses matter to VMX only.
 * The PIT answers port 0x61 too, whose bit 5 Linux calibrates by.
 */
static int create_chips(struct hv_partition *partition, struct base_error *err)
{
	struct kvm_pit_config pit = { .flags = KVM_PIT_SPEAKER_DUMMY };
	uint64_t identity = HV_GPA_VMX_IDENTITY_MAP;

	if (ioctl(partition->vm_fd, KVM_SET_IDENTITY_MAP_ADDR, &identity) < 0 ||
	    ioctl(partition->vm_fd, KVM_SET_TSS_ADDR, HV_GPA_VMX_TSS) < 0)
		return base_fail_errno(err, -errno, "KVM_SET_TSS_ADDR");
	if (ioctl(partition->vm_fd, KVM_CREATE_IRQCHIP, 0) < 0)
		return base_fail_errno(err, -errno, "KVM_CREATE_IRQCHIP");
	if (ioctl(partition->vm_fd, KVM_CREATE_PIT2, &pit) < 0)
		return base_fail_errno(err, -errno, "KVM_CREATE_PIT2");
	return 0;
}

/* Synthetic MSRs come to us, whether this KVM knows Hyper-V (the filter) or not (unknown). */
static int take_msrs(struct hv_partition *partition, struct base_error *err)
{
	uint8_t none[HV_MSR_COUNT / 8] = { 0 };
	struct kvm_enable_cap cap = {
		.cap = KVM_CAP_X86_USER_SPACE_MSR,
		.args = { KVM_MSR_EXIT_REASON_FILTER | KVM_MSR_EXIT_REASON_UNKNOWN },
	};
	struct kvm_msr_filter filter = {
		.flags = KVM_MSR_FILTER_DEFAULT_ALLOW,
		.ranges = { { .flags = KVM_MSR_FILTER_READ | KVM_MSR_FILTER_WRITE,
			      .base = HV_MSR_FIRST,
			      .nmsrs = HV_MSR_COUNT,
			      .bitmap = none } },
	};

	if (ioctl(partition->vm_fd, KVM_ENABLE_CAP, &cap) < 0)
		return base_fail_errno(err, -errno, "KVM_CAP_X86_USER_SPACE_MSR");
	if (ioctl(partition->vm_fd, KVM_X86_SET_MSR_FILTER, &filter) < 0)
		return base_fail_errno(err, -errno, "KVM_X86_SET_MSR_FILTER");
	return 0;
}

static int create_vcpu(struct hv_partition *partition, uint32_t index,
		       const struct hv_partition_opts *opts, struct base_error *err)
{
	struct hv_vcpu *vcpu = &partition->vcpus[index];
	int run_bytes = ioctl(partition->kvm_fd, KVM_GET_VCPU_MMAP_SIZE, 0);
	void *run;

	vcpu->partition = partition;
	vcpu->index = index;
	vcpu->fd = ioctl(partition->vm_fd, KVM_CREATE_VCPU, (unsigned long)index);
	if (vcpu->fd < 0)
		return base_fail_errno(err, -errno, "vcpu %" PRIu32 ": KVM_CREATE_VCPU", index);
	if (run_bytes < (int)sizeof(struct kvm_run))
		return base_fail(err, -EIO, "KVM_GET_VCPU_MMAP_SIZE gives %d", run_bytes);
	run = mmap(NULL, (size_t)run_bytes, PROT_READ | PROT_WRITE, MAP_SHARED, vcpu->fd, 0);
	if (run == MAP_FAILED)
		return base_fail_errno(err, -errno, "vcpu %" PRIu32 ": map", index);
	vcpu->run = run;
	vcpu->run_bytes = (size_t)run_bytes;
	vcpu->asks_always = opts->registers_by_call;
	if (!vcpu->asks_always)
		hv_vcpu_sync_begin(vcpu);
	hv_vcpu_count_faults(vcpu);
	return hv_partition_set_cpuid(partition, index, opts->cpuid, err);
}

int hv_partition_set_cpuid(struct hv_partition *partition, uint32_t vcpu,
			   const struct hv_cpuid_table *cpuid, struct base_error *err)
{
	struct hv_cpuid_table own;
	int r = hv_cpuid_for_vcpu(cpuid, vcpu, partition->vcpu_count, &own, err);

	if (r >= 0)
		r = hv_kvm_cpuid_give(partition->vcpus[vcpu].fd, &own, err);
	return r < 0 ? base_fail_within(err, r, "vcpu %" PRIu32, vcpu) : 0;
}

/* vCPU threads take the kick signal and nothing else: the process's signals are the loop's. */
static int start_threads(struct hv_partition *partition, struct base_error *err)
{
	sigset_t blocked;
	sigset_t before;
	int failed = 0;

	(void)sigfillset(&blocked);
	(void)sigdelset(&blocked, HV_KICK_SIGNAL);
	(void)sigdelset(&blocked, SIGSYS); /* by which the lock-down reaches every thread */
	(void)pthread_sigmask(SIG_SETMASK, &blocked, &before);
	for (uint32_t i = 0; i < partition->vcpu_count && failed == 0; i++) {
		struct hv_vcpu *vcpu = &partition->vcpus[i];

		failed = pthread_create(&vcpu->thread, NULL, hv_vcpu_main, vcpu);
		vcpu->has_thread = failed == 0;
	}
	(void)pthread_sigmask(SIG_SETMASK, &before, NULL);
	if (failed != 0)
		return base_fail_errno(err, -failed, "threads of %" PRIu32 " vCPUs",
				       partition->vcpu_count);
	return 0;
}

/* Under park_lock: everybody out of KVM_RUN. */
static void kick_all(struct hv_partition *partition)
{
	for (uint32_t i = 0; i < partition->vcpu_count; i++)
		if (partition->vcpus[i].run != NULL)
			__atomic_store_n(&partition->vcpus[i].run->immediate_exit, 1,
					 __ATOMIC_SEQ_CST);
	for (uint32_t i = 0; i < partition->vcpu_count; i++) {
		struct hv_vcpu *vcpu = &partition->vcpus[i];

		if (vcpu->has_thread && !vcpu->parked &&
		    !pthread_equal(vcpu->thread, pthread_self()))
			(void)pthread_kill(vcpu->thread, HV_KICK_SIGNAL);
	}
}

void hv_vcpu_kick(struct hv_vcpu *vcpu)
{
	BASE_LOCKED(&vcpu->partition->park_lock);

	if (vcpu->run == NULL || !vcpu->has_thread || vcpu->parked)
		return; /* it looks before it enters */
	__atomic_store_n(&vcpu->run->immediate_exit, 1, __ATOMIC_SEQ_CST);
	(void)pthread_kill(vcpu->thread, HV_KICK_SIGNAL);
}

bool hv_vcpu_park(struct hv_vcpu *vcpu)
{
	struct hv_partition *partition = vcpu->partition;
	BASE_LOCKED(&partition->park_lock);

	vcpu->parked = true;
	partition->parked_count++;
	if (partition->parked_count == partition->vcpu_count)
		(void)pthread_cond_broadcast(&partition->all_parked);
	while (atomic_load(&partition->holds) != 0 && !partition->ending)
		(void)pthread_cond_wait(&partition->go, &partition->park_lock);
	vcpu->parked = false;
	partition->parked_count--;
	/* Under the lock: a hold that comes now sets it again after us. */
	__atomic_store_n(&vcpu->run->immediate_exit, 0, __ATOMIC_SEQ_CST);
	return !partition->ending;
}

void hv_vcpu_set_entry(struct hv_vcpu *vcpu, bool may_enter)
{
	struct hv_partition *partition = vcpu->partition;
	BASE_LOCKED(&partition->park_lock);
	bool is_held = atomic_load(&partition->holds) != 0;

	__atomic_store_n(&vcpu->run->immediate_exit, !may_enter || is_held, __ATOMIC_SEQ_CST);
}

uint64_t hv_partition_hold(struct hv_partition *partition, uint32_t holds)
{
	uint64_t begin_ns = base_clock_boot_ns(&base_clock_system);
	BASE_LOCKED(&partition->park_lock);

	atomic_fetch_or(&partition->holds, holds);
	if (partition->parked_count < partition->vcpu_count)
		kick_all(partition);
	while (partition->parked_count < partition->vcpu_count)
		(void)pthread_cond_wait(&partition->all_parked, &partition->park_lock);
	return base_clock_boot_ns(&base_clock_system) - begin_ns;
}

static uint64_t parked_now(struct hv_partition *partition)
{
	BASE_LOCKED(&partition->park_lock);
	uint64_t parked = 0;

	for (uint32_t i = 0; i < partition->vcpu_count; i++)
		if (partition->vcpus[i].parked)
			parked |= 1ULL << i;
	return parked;
}

int hv_partition_hold_within(struct hv_partition *partition, uint32_t holds, uint32_t timeout_ms,
			     uint64_t *ret_parked)
{
	uint64_t end_ns = base_clock_boot_ns(&base_clock_system) + timeout_ms * BASE_NS_PER_MS;
	uint64_t all = UINT64_MAX >> (64 - partition->vcpu_count);
	bool is_over = false;

	hv_partition_request(partition, holds);
	for (;;) {
		*ret_parked = parked_now(partition);
		if (*ret_parked == all)
			return 0;
		if (is_over)
			return -ETIMEDOUT;
		base_sleep_ns(PARK_LOOK_NS);
		is_over = base_clock_boot_ns(&base_clock_system) >= end_ns;
	}
}

void hv_partition_release(struct hv_partition *partition, uint32_t holds)
{
	BASE_LOCKED(&partition->park_lock);

	if (atomic_fetch_and(&partition->holds, ~holds) != 0 && atomic_load(&partition->holds) == 0)
		(void)pthread_cond_broadcast(&partition->go);
}

void hv_partition_request(struct hv_partition *partition, uint32_t holds)
{
	BASE_LOCKED(&partition->park_lock);

	atomic_fetch_or(&partition->holds, holds);
	kick_all(partition);
}

uint32_t hv_partition_holds(const struct hv_partition *partition)
{
	return atomic_load(&partition->holds);
}

BASE_DEFINE_FREEP(struct hv_partition, hv_partition_free);

static int build(struct hv_partition *partition, const struct hv_partition_opts *opts,
		 struct base_error *err)
{
	int r = install_kick(err);

	if (r < 0)
		return r;
	partition->vm_fd = hv_kvm_vm_new(opts->kvm_fd);
	if (partition->vm_fd < 0)
		return base_fail_errno(err, -errno, "KVM_CREATE_VM");
	r = take_msrs(partition, err);
	if (r >= 0)
		r = create_chips(partition, err);
	if (r < 0)
		return r;
	r = hv_slat_new(opts->memory, partition->vm_fd, &partition->slat, err);
	if (r < 0)
		return r;
	for (uint32_t i = 0; i < opts->vcpu_count; i++) {
		r = create_vcpu(partition, i, opts, err);
		if (r < 0)
			return r;
	}
	return start_threads(partition, err);
}

int hv_partition_new(const struct hv_partition_opts *opts, const struct hv_partition_ops *ops,
		     void *context, struct hv_partition **ret_partition, struct base_error *err)
{
	BASE_CLEANUP(hv_partition_freep) struct hv_partition *partition = NULL;
	int r;

	base_assert(opts->holds != 0);
	if (opts->vcpu_count < 1 || opts->vcpu_count > HV_VCPUS_MAX)
		return base_fail(err, -EINVAL, "%" PRIu32 " vCPUs: expected 1 to %u",
				 opts->vcpu_count, HV_VCPUS_MAX);
	partition = calloc(1, sizeof(*partition));
	if (partition == NULL)
		return base_fail(err, -ENOMEM, "partition");
	(void)pthread_mutex_init(&partition->park_lock, NULL);
	(void)pthread_cond_init(&partition->all_parked, NULL);
	(void)pthread_cond_init(&partition->go, NULL);
	partition->kvm_fd = opts->kvm_fd;
	partition->vm_fd = -1;
	partition->memory = opts->memory;
	partition->bus = opts->bus;
	partition->ops = ops;
	partition->context = context;
	partition->vcpu_count = opts->vcpu_count;
	atomic_store(&partition->holds, opts->holds);
	for (uint32_t i = 0; i < HV_VCPUS_MAX; i++)
		partition->vcpus[i].fd = partition->vcpus[i].stats_fd = -1;
	r = build(partition, opts, err);
	if (r < 0)
		return r;
	*ret_partition = base_take(&partition);
	return 0;
}

static void end_threads(struct hv_partition *partition)
{
	{
		BASE_LOCKED(&partition->park_lock);
		partition->ending = true;
		atomic_fetch_or(&partition->holds, 1U << 31);
		kick_all(partition);
		(void)pthread_cond_broadcast(&partition->go);
	}
	for (uint32_t i = 0; i < partition->vcpu_count; i++)
		if (partition->vcpus[i].has_thread)
			(void)pthread_join(partition->vcpus[i].thread, NULL);
}

void hv_partition_free(struct hv_partition *partition)
{
	const uint32_t none[HV_VCPUS_MAX] = { 0 };

	if (partition == NULL)
		return;
	(void)!hv_partition_throttle(partition, none, NULL);
	end_threads(partition);
	hv_slat_free(partition->slat);
	for (uint32_t i = 0; i < partition->vcpu_count; i++) {
		struct hv_vcpu *vcpu = &partition->vcpus[i];

		if (vcpu->run != NULL)
			(void)munmap(vcpu->run, vcpu->run_bytes);
		base_closep(&vcpu->stats_fd);
		base_closep(&vcpu->fd);
	}
	base_closep(&partition->vm_fd);
	(void)pthread_cond_destroy(&partition->go);
	(void)pthread_cond_destroy(&partition->all_parked);
	(void)pthread_mutex_destroy(&partition->park_lock);
	free(partition);
}

int hv_partition_kvm_fd(const struct hv_partition *partition)
{
	return partition->kvm_fd;
}

int hv_partition_vm_fd(const struct hv_partition *partition)
{
	return partition->vm_fd;
}

uint32_t hv_partition_vcpu_count(const struct hv_partition *partition)
{
	return partition->vcpu_count;
}

int hv_partition_vcpu_fd(const struct hv_partition *partition, uint32_t vcpu)
{
	base_assert(vcpu < partition->vcpu_count);
	return partition->vcpus[vcpu].fd;
}

struct hv_slat *hv_partition_slat(const struct hv_partition *partition)
{
	return partition->slat;
}

/* @sums: what @vcpu has of each kind on top.  Return: its exits. */
static uint64_t add_exits(const struct hv_vcpu *vcpu, uint64_t sums[HV_EXIT_KINDS])
{
	uint64_t total = 0;

	for (uint32_t kind = 0; kind < HV_EXIT_KINDS; kind++) {
		uint64_t count = atomic_load_explicit(&vcpu->exits[kind], memory_order_relaxed);

		sums[kind] += count;
		total += count;
	}
	return total;
}

void hv_partition_exits(const struct hv_partition *partition, struct hv_exit_counts *ret_counts)
{
	uint64_t sums[HV_EXIT_KINDS] = { 0 };
	uint64_t total = 0;

	for (uint32_t i = 0; i < partition->vcpu_count; i++)
		total += add_exits(&partition->vcpus[i], sums);
	*ret_counts = (struct hv_exit_counts){ .total = total,
					       .hypercalls = sums[HV_EXIT_HYPERCALL],
					       .ports = sums[HV_EXIT_PORT],
					       .mmio = sums[HV_EXIT_MMIO],
					       .msrs = sums[HV_EXIT_MSR],
					       .interrupted = sums[HV_EXIT_INTERRUPTED] };
}

void hv_partition_vcpu_exits(const struct hv_partition *partition, uint32_t vcpu,
			     uint64_t *ret_count, uint32_t *ret_reason)
{
	uint64_t sums[HV_EXIT_KINDS] = { 0 };

	base_assert(vcpu < partition->vcpu_count);
	*ret_count = add_exits(&partition->vcpus[vcpu], sums);
	*ret_reason = __atomic_load_n(&partition->vcpus[vcpu].run->exit_reason, __ATOMIC_RELAXED);
}

void hv_partition_interrupt(struct hv_partition *partition, uint32_t vcpu, uint8_t vector)
{
	struct kvm_msi msi = {
		.address_lo = (uint32_t)HV_GPA_LAPIC | vcpu << 12, /* the APIC id is the index */
		.data = vector,
	};

	(void)ioctl(partition->vm_fd, KVM_SIGNAL_MSI, &msi);
}

void hv_partition_irq(struct hv_partition *partition, uint32_t gsi, int level)
{
	struct kvm_irq_level line = { .irq = gsi, .level = (uint32_t)level };

	(void)ioctl(partition->vm_fd, KVM_IRQ_LINE, &line);
}
