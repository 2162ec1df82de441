/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/support/ring3_vm.h"

#include <errno.h>
#include <inttypes.h>
#include <linux/kvm.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "hypervisor/host_probe.h"
#include "hypervisor/memory_priv.h"

/* Guest-physical addresses; virtual ones are the same. */
#define PML4_GPA    0x10000ULL
#define PDPT_GPA    0x11000ULL
#define PD_GPA      0x12000ULL
#define CODE_GPA    0x20000ULL
#define COUNTER_GPA 0x30000ULL /* a page per vCPU */
#define LIST_GPA    0x400000ULL

#define TABLE_BITS 0x67ULL /* present, writable, user, accessed, dirty */
#define LARGE_PAGE 0x80ULL

#define KICK_SIGNAL SIGUSR1

struct ring3_vcpu {
	struct ring3_vm *vm;
	int fd;
	struct kvm_run *run;
	size_t run_bytes;
	struct kvm_dirty_gfn *ring;
	uint32_t fetch; /* the next entry to collect; under collect_lock */
	pthread_t thread;
	bool has_thread;
	uint32_t bad_exit; /* the exit it ended on; read after the join */
};

struct ring3_vm {
	int fd;
	uint8_t *base;
	uint32_t vcpu_count;
	enum ring3_tracking tracking;
	uint32_t ring_entries;
	struct ring3_vcpu vcpus[RING3_VCPUS_MAX];
	atomic_bool stop;
	pthread_mutex_t collect_lock;
	uint64_t pending[RING3_WORD_COUNT]; /* collected, not harvested yet; under collect_lock */
	_Atomic uint64_t full_count;
};

BASE_DEFINE_FREEP(struct ring3_vm, ring3_vm_free);

/*
 *	again: mov rsi, rbx          rbx: the list, r8: its end
 *	next:  mov rax, [rsi]
 *	       inc qword [rax]
 *	       inc qword [rdi]       rdi: the counter
 *	       add rsi, 8
 *	       cmp rsi, r8
 *	       jne next
 *	       jmp again
 */
static const uint8_t loop_code[] = { 0x48, 0x89, 0xde, 0x48, 0x8b, 0x06, 0x48, 0xff,
				     0x00, 0x48, 0xff, 0x07, 0x48, 0x83, 0xc6, 0x08,
				     0x4c, 0x39, 0xc6, 0x75, 0xee, 0xeb, 0xe9 };

static void put_u64(struct ring3_vm *vm, uint64_t gpa, uint64_t value)
{
	memcpy(vm->base + gpa, &value, sizeof(value));
}

static void lay_out(struct ring3_vm *vm, const struct ring3_opts *opts)
{
	put_u64(vm, PML4_GPA, PDPT_GPA | TABLE_BITS);
	put_u64(vm, PDPT_GPA, PD_GPA | TABLE_BITS);
	for (uint64_t i = 0; i < 512; i++)
		put_u64(vm, PD_GPA + i * 8, (i << 21) | TABLE_BITS | LARGE_PAGE);
	memcpy(vm->base + CODE_GPA, loop_code, sizeof(loop_code));
	for (uint32_t i = 0; i < opts->page_count; i++)
		put_u64(vm, LIST_GPA + i * 8ULL, (uint64_t)opts->pages[i] << HV_PAGE_SHIFT);
	for (uint32_t v = 0; v < opts->vcpu_count; v++)
		put_u64(vm, COUNTER_GPA + v * HV_PAGE_BYTES, 0);
}

static struct kvm_segment segment(uint8_t type, uint16_t selector, bool is_code)
{
	return (struct kvm_segment){ .limit = 0xffffffff,
				     .selector = selector,
				     .type = type,
				     .present = 1,
				     .dpl = 3,
				     .db = !is_code,
				     .s = 1,
				     .l = is_code,
				     .g = 1 };
}

/* Straight into ring 3 of long mode; no descriptor table, for nothing ever faults. */
static int enter_ring3(const struct ring3_vm *vm, uint32_t index, uint32_t page_count,
		       struct base_error *err)
{
	int fd = vm->vcpus[index].fd;
	uint64_t share = page_count / vm->vcpu_count;
	struct kvm_regs regs = {
		.rip = CODE_GPA,
		.rbx = LIST_GPA + index * share * 8,
		.r8 = LIST_GPA + (index + 1) * share * 8,
		.rdi = COUNTER_GPA + index * HV_PAGE_BYTES,
		.rflags = 2,
	};
	struct kvm_sregs sregs;

	if (ioctl(fd, KVM_GET_SREGS, &sregs) < 0)
		return base_fail_errno(err, -errno, "KVM_GET_SREGS");
	sregs.cr0 = 0x80050033;
	sregs.cr3 = PML4_GPA;
	sregs.cr4 = 0x20;
	sregs.efer = 0xd01; /* SCE, LME, LMA, NXE */
	sregs.cs = segment(11, 0x33, true);
	sregs.ds = sregs.es = sregs.fs = sregs.gs = sregs.ss = segment(3, 0x2b, false);
	sregs.ldt = (struct kvm_segment){ .unusable = 1 };
	sregs.tr.present = 1;
	sregs.tr.type = 11;
	sregs.tr.s = 0;
	if (ioctl(fd, KVM_SET_SREGS, &sregs) < 0 || ioctl(fd, KVM_SET_REGS, &regs) < 0)
		return base_fail_errno(err, -errno, "registers of vcpu %" PRIu32, index);
	return 0;
}

static int add_vcpu(struct ring3_vm *vm, const struct ring3_opts *opts, uint32_t index,
		    const struct hv_cpuid_table *cpuid, struct base_error *err)
{
	struct ring3_vcpu *vcpu = &vm->vcpus[index];
	int run_bytes = ioctl(opts->kvm_fd, KVM_GET_VCPU_MMAP_SIZE, 0);
	void *map;
	int r;

	vcpu->vm = vm;
	vcpu->fd = ioctl(vm->fd, KVM_CREATE_VCPU, (unsigned long)index);
	if (vcpu->fd < 0 || run_bytes < 0)
		return base_fail_errno(err, -errno, "KVM_CREATE_VCPU");
	vcpu->run_bytes = (size_t)run_bytes;
	map = mmap(NULL, vcpu->run_bytes, PROT_READ | PROT_WRITE, MAP_SHARED, vcpu->fd, 0);
	if (map == MAP_FAILED)
		return base_fail_errno(err, -errno, "map of vcpu %" PRIu32, index);
	vcpu->run = map;
	if (vm->tracking == RING3_RING) {
		map = mmap(NULL, vm->ring_entries * sizeof(*vcpu->ring), PROT_READ | PROT_WRITE,
			   MAP_SHARED, vcpu->fd, KVM_DIRTY_LOG_PAGE_OFFSET * 4096);
		if (map == MAP_FAILED)
			return base_fail_errno(err, -errno, "ring of vcpu %" PRIu32, index);
		vcpu->ring = map;
	}
	r = hv_kvm_cpuid_give(vcpu->fd, cpuid, err);
	return r < 0 ? r : enter_ring3(vm, index, opts->page_count, err);
}

/* The ring's size is fixed before the first vCPU. */
static int choose_tracking(const struct ring3_vm *vm, struct base_error *err)
{
	struct kvm_enable_cap cap = { .cap = KVM_CAP_MANUAL_DIRTY_LOG_PROTECT2, .args = { 3 } };

	if (vm->tracking == RING3_RING) {
		cap.cap = KVM_CAP_DIRTY_LOG_RING_ACQ_REL;
		if (ioctl(vm->fd, KVM_CHECK_EXTENSION, KVM_CAP_DIRTY_LOG_RING_ACQ_REL) <= 0)
			cap.cap = KVM_CAP_DIRTY_LOG_RING;
		cap.args[0] = vm->ring_entries * sizeof(struct kvm_dirty_gfn);
	}
	if (ioctl(vm->fd, KVM_CHECK_EXTENSION, (unsigned long)cap.cap) <= 0)
		return base_fail(err, -ENOTSUP, "KVM lacks capability %" PRIu32, cap.cap);
	if (ioctl(vm->fd, KVM_ENABLE_CAP, &cap) < 0)
		return base_fail_errno(err, -errno, "capability %" PRIu32, cap.cap);
	return 0;
}

int ring3_vm_track(struct ring3_vm *vm, bool on, struct base_error *err)
{
	struct kvm_userspace_memory_region region = {
		.flags = on ? KVM_MEM_LOG_DIRTY_PAGES : 0,
		.memory_size = RING3_PAGE_COUNT * HV_PAGE_BYTES,
		.userspace_addr = (uintptr_t)vm->base,
	};

	if (ioctl(vm->fd, KVM_SET_USER_MEMORY_REGION, &region) < 0)
		return base_fail_errno(err, -errno, "KVM_SET_USER_MEMORY_REGION");
	return 0;
}

static void kicked(int signal_number)
{
	(void)signal_number;
}

int ring3_vm_new(const struct ring3_opts *opts, struct ring3_vm **ret_vm, struct base_error *err)
{
	BASE_CLEANUP(ring3_vm_freep) struct ring3_vm *vm = NULL;
	struct sigaction action = { .sa_handler = kicked };
	struct hv_cpuid_table cpuid;
	int r = hv_kvm_cpuid_supported(opts->kvm_fd, &cpuid, err);

	base_assert(opts->vcpu_count >= 1 && opts->vcpu_count <= RING3_VCPUS_MAX &&
		    opts->page_count >= opts->vcpu_count && opts->page_count <= RING3_LIST_MAX);
	if (r < 0)
		return r;
	vm = calloc(1, sizeof(*vm));
	if (vm == NULL)
		return base_fail(err, -ENOMEM, "VM");
	for (uint32_t i = 0; i < RING3_VCPUS_MAX; i++)
		vm->vcpus[i].fd = -1;
	(void)pthread_mutex_init(&vm->collect_lock, NULL);
	(void)sigaction(KICK_SIGNAL, &action, NULL);
	vm->base = hv_memory_base(opts->memory);
	vm->vcpu_count = opts->vcpu_count;
	vm->tracking = opts->tracking;
	vm->ring_entries = opts->ring_entries;
	vm->fd = ioctl(opts->kvm_fd, KVM_CREATE_VM, 0);
	if (vm->fd < 0)
		return base_fail_errno(err, -errno, "KVM_CREATE_VM");
	(void)ioctl(vm->fd, KVM_SET_TSS_ADDR, HV_GPA_VMX_TSS);
	r = choose_tracking(vm, err);
	if (r >= 0)
		r = ring3_vm_track(vm, false, err);
	lay_out(vm, opts);
	for (uint32_t i = 0; i < vm->vcpu_count && r >= 0; i++)
		r = add_vcpu(vm, opts, i, &cpuid, err);
	if (r < 0)
		return r;
	*ret_vm = base_take(&vm);
	return 0;
}

void ring3_vm_free(struct ring3_vm *vm)
{
	if (vm == NULL)
		return;
	(void)!ring3_vm_pause(vm, NULL);
	for (uint32_t i = 0; i < vm->vcpu_count; i++) {
		struct ring3_vcpu *vcpu = &vm->vcpus[i];

		if (vcpu->ring != NULL)
			(void)munmap(vcpu->ring, vm->ring_entries * sizeof(*vcpu->ring));
		if (vcpu->run != NULL)
			(void)munmap(vcpu->run, vcpu->run_bytes);
		base_closep(&vcpu->fd);
	}
	base_closep(&vm->fd);
	(void)pthread_mutex_destroy(&vm->collect_lock);
	free(vm);
}

/* Under collect_lock: every ring's entries into the pending bitmap, and back to KVM. */
static int collect(struct ring3_vm *vm)
{
	uint64_t taken = 0;

	for (uint32_t i = 0; i < vm->vcpu_count; i++) {
		struct ring3_vcpu *vcpu = &vm->vcpus[i];

		for (;;) {
			struct kvm_dirty_gfn *entry = &vcpu->ring[vcpu->fetch % vm->ring_entries];

			if ((__atomic_load_n(&entry->flags, __ATOMIC_ACQUIRE) &
			     KVM_DIRTY_GFN_F_DIRTY) == 0)
				break;
			vm->pending[entry->offset / 64] |= 1ULL << (entry->offset % 64);
			__atomic_store_n(&entry->flags, KVM_DIRTY_GFN_F_RESET, __ATOMIC_RELEASE);
			vcpu->fetch++;
			taken++;
		}
	}
	if (taken > 0 && ioctl(vm->fd, KVM_RESET_DIRTY_RINGS, 0) < 0)
		return -errno;
	return 0;
}

static int harvest_log(struct ring3_vm *vm, uint64_t *into, struct base_error *err)
{
	struct kvm_dirty_log get = { .dirty_bitmap = into };
	struct kvm_clear_dirty_log clear = { .num_pages = RING3_PAGE_COUNT, .dirty_bitmap = into };

	if (ioctl(vm->fd, KVM_GET_DIRTY_LOG, &get) < 0)
		return base_fail_errno(err, -errno, "KVM_GET_DIRTY_LOG");
	if (ioctl(vm->fd, KVM_CLEAR_DIRTY_LOG, &clear) < 0)
		return base_fail_errno(err, -errno, "KVM_CLEAR_DIRTY_LOG");
	return 0;
}

int ring3_vm_harvest(struct ring3_vm *vm, uint64_t *into, struct base_error *err)
{
	BASE_LOCKED(&vm->collect_lock);
	int r;

	if (vm->tracking == RING3_LOG)
		return harvest_log(vm, into, err);
	r = collect(vm);
	memcpy(into, vm->pending, sizeof(vm->pending));
	memset(vm->pending, 0, sizeof(vm->pending));
	return r < 0 ? base_fail_errno(err, r, "KVM_RESET_DIRTY_RINGS") : 0;
}

/* A full ring: make room at once, as a migration's collector would be asked to. */
static bool make_room(struct ring3_vm *vm)
{
	BASE_LOCKED(&vm->collect_lock);

	atomic_fetch_add(&vm->full_count, 1);
	return collect(vm) == 0;
}

static void *vcpu_main(void *context)
{
	struct ring3_vcpu *vcpu = context;

	while (!atomic_load(&vcpu->vm->stop)) {
		int failed = ioctl(vcpu->fd, KVM_RUN, 0) < 0 ? errno : 0;

		if (failed == EINTR || failed == EAGAIN)
			continue;
		if (failed == 0 && vcpu->run->exit_reason == KVM_EXIT_INTR)
			continue;
		if (failed == 0 && vcpu->run->exit_reason == KVM_EXIT_DIRTY_RING_FULL &&
		    make_room(vcpu->vm))
			continue;
		vcpu->bad_exit = failed != 0 ? 1000 + (uint32_t)failed : vcpu->run->exit_reason;
		return NULL;
	}
	return NULL;
}

int ring3_vm_run(struct ring3_vm *vm, struct base_error *err)
{
	atomic_store(&vm->stop, false);
	for (uint32_t i = 0; i < vm->vcpu_count; i++) {
		struct ring3_vcpu *vcpu = &vm->vcpus[i];
		int failed;

		vcpu->run->immediate_exit = 0;
		failed = pthread_create(&vcpu->thread, NULL, vcpu_main, vcpu);
		if (failed != 0)
			return base_fail_errno(err, -failed, "thread of vcpu %" PRIu32, i);
		vcpu->has_thread = true;
	}
	return 0;
}

int ring3_vm_pause(struct ring3_vm *vm, struct base_error *err)
{
	uint32_t bad_exit = 0;

	atomic_store(&vm->stop, true);
	for (uint32_t i = 0; i < vm->vcpu_count; i++) {
		struct ring3_vcpu *vcpu = &vm->vcpus[i];

		if (!vcpu->has_thread)
			continue;
		vcpu->run->immediate_exit = 1;
		(void)pthread_kill(vcpu->thread, KICK_SIGNAL);
		(void)pthread_join(vcpu->thread, NULL);
		vcpu->has_thread = false;
		if (vcpu->bad_exit != 0)
			bad_exit = vcpu->bad_exit;
	}
	if (bad_exit >= 1000)
		return base_fail_errno(err, -EIO, "KVM_RUN: errno %" PRIu32, bad_exit - 1000);
	if (bad_exit != 0)
		return base_fail(err, -EIO, "exit %" PRIu32 ": expected none", bad_exit);
	return 0;
}

uint64_t ring3_vm_writes(const struct ring3_vm *vm)
{
	uint64_t writes = 0;

	for (uint32_t i = 0; i < vm->vcpu_count; i++) {
		const uint8_t *at = vm->base + COUNTER_GPA + i * HV_PAGE_BYTES;

		writes += __atomic_load_n((const uint64_t *)(const void *)at, __ATOMIC_RELAXED);
	}
	return writes;
}

uint64_t ring3_vm_full_count(const struct ring3_vm *vm)
{
	return atomic_load(&vm->full_count);
}
