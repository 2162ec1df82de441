/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Which MSRs are saved, and how they come from and go to KVM.
 */
#include "hypervisor/vcpu_msrs.h"

#include <errno.h>
#include <inttypes.h>
#include <pthread.h>
#include <stdlib.h>
#include <sys/ioctl.h>

#include "base/cleanup.h"
#include "hypervisor/vcpu_state.h"

#define LISTED_MAX 4096u /* far more than KVM has ever named */

/* A run of neighbours with one value after reset. */
struct msr_range {
	uint32_t first;
	uint32_t count;
	uint64_t reset;
	bool unlisted; /* KVM_GET_MSR_INDEX_LIST did not name it before Linux 6.5 */
};

/* Ascending.  Intel SDM volume 4 and AMD APM volume 2 appendix A give the meaning. */
static const struct msr_range ranges[] = {
	{ 0x34, 1, 0, false },       /* SMI count */
	{ 0x3a, 1, 0, false },       /* feature control */
	{ 0x3b, 1, 0, false },       /* TSC adjust */
	{ 0x48, 1, 0, false },       /* speculation control */
	{ 0x8b, 1, 0, false },       /* microcode revision: the guest sees it */
	{ 0x9e, 1, 0x30000, false }, /* SMBASE */
	{ 0xc1, 8, 0, false },       /* performance counters */
	{ 0xce, 1, 0, false },       /* platform information: CPUID faulting */
	{ 0xe1, 1, 0, false },       /* UMWAIT control */
	{ 0x10a, 1, 0, false },      /* architectural capabilities: the guest sees them */
	{ 0x122, 1, 0, false },      /* TSX control */
	{ 0x140, 1, 0, false },      /* miscellaneous features */
	{ 0x174, 3, 0, false },      /* SYSENTER CS, ESP, EIP */
	{ 0x17a, 2, 0, false },      /* machine check status and control */
	{ 0x186, 8, 0, false },      /* performance event selectors */
	{ 0x1a0, 1, 0, false },      /* miscellaneous enables */
	{ 0x1c4, 2, 0, false },      /* extended feature disable, and its error */
	{ 0x1d9, 1, 0, false },      /* debug control */
	{ 0x1fc, 1, 0, false },      /* power control */
	{ 0x200, 16, 0, true },      /* variable-range MTRRs */
	{ 0x250, 1, 0, true },       /* fixed-range MTRRs */
	{ 0x258, 2, 0, true },       /* " */
	{ 0x268, 8, 0, true },       /* " */
	{ 0x277, 1, 0x0007040600070406, false }, /* PAT */
	{ 0x2ff, 1, 0, true },                   /* MTRR default type */
	{ 0x309, 4, 0, false },                  /* fixed performance counters */
	{ 0x38d, 4, 0, false },                  /* their control, and of all counters */
	{ 0x3f1, 2, 0, false },                  /* PEBS */
	{ 0x4d0, 1, 0, false },                  /* machine check extended control */
	{ 0x600, 1, 0, false },                  /* debug store area */
	{ 0x6a0, 1, 0, false },                  /* CET, user */
	{ 0x6a2, 1, 0, false },                  /* CET, supervisor */
	{ 0x6a4, 5, 0, false },                  /* shadow stack pointers and table */
	{ HV_MSR_TSC_DEADLINE, 1, 0, false },
	{ 0xd90, 1, 0, false },       /* MPX configuration */
	{ 0xda0, 1, 0, false },       /* XSS */
	{ 0xc0000081, 4, 0, false },  /* STAR, LSTAR, CSTAR, SYSCALL mask */
	{ 0xc0000102, 2, 0, false },  /* kernel GS base, TSC auxiliary */
	{ 0xc0000301, 2, 0, false },  /* AMD: control of all performance counters */
	{ 0xc0010000, 8, 0, false },  /* AMD: performance counters */
	{ 0xc0010015, 1, 0, false },  /* AMD: hardware configuration */
	{ 0xc001011f, 1, 0, false },  /* AMD: speculation control, virtual */
	{ 0xc0010200, 12, 0, false }, /* AMD: further performance counters */
};
#define RANGE_COUNT (sizeof(ranges) / sizeof(ranges[0]))

/* Those of @ranges that this host's KVM may have; filled once. */
static struct {
	pthread_mutex_t lock; /* leaf */
	bool filled;
	uint32_t count;
	uint32_t indices[HV_VCPU_MSRS_MAX];
} wanted = { .lock = PTHREAD_MUTEX_INITIALIZER };

static const struct msr_range *range_of(uint32_t index)
{
	for (size_t i = 0; i < RANGE_COUNT; i++) {
		if (index >= ranges[i].first && index - ranges[i].first < ranges[i].count)
			return &ranges[i];
	}
	return NULL;
}

bool hv_msr_is_saved(uint32_t index)
{
	return range_of(index) != NULL;
}

static bool is_listed(const struct kvm_msr_list *list, uint32_t index)
{
	for (uint32_t i = 0; i < list->nmsrs; i++) {
		if (list->indices[i] == index)
			return true;
	}
	return false;
}

/* Under the lock. */
static int fill_wanted(int kvm_fd, struct base_error *err)
{
	BASE_FREE struct kvm_msr_list *list =
		calloc(1, sizeof(*list) + LISTED_MAX * sizeof(list->indices[0]));

	if (list == NULL)
		return base_fail(err, -ENOMEM, "list of MSRs");
	list->nmsrs = LISTED_MAX;
	if (ioctl(kvm_fd, KVM_GET_MSR_INDEX_LIST, list) < 0)
		return base_fail_errno(err, -errno, "KVM_GET_MSR_INDEX_LIST");

	wanted.count = 0;
	for (size_t i = 0; i < RANGE_COUNT; i++) {
		for (uint32_t k = 0; k < ranges[i].count; k++) {
			uint32_t index = ranges[i].first + k;

			if (!ranges[i].unlisted && !is_listed(list, index))
				continue;
			base_assert(wanted.count < HV_VCPU_MSRS_MAX);
			wanted.indices[wanted.count++] = index;
		}
	}
	wanted.filled = true;
	return 0;
}

/* One ioctl that wants its entries behind a header. */
static int msrs_ioctl(int vcpu_fd, unsigned long request, struct kvm_msr_entry *entries,
		      uint32_t count)
{
	union {
		struct kvm_msrs head;
		uint8_t room[sizeof(struct kvm_msrs) +
			     HV_VCPU_MSRS_MAX * sizeof(struct kvm_msr_entry)];
	} all;
	int done = 0;

	base_assert(count <= HV_VCPU_MSRS_MAX);
	all.head.nmsrs = count;
	all.head.pad = 0;
	for (uint32_t i = 0; i < count; i++)
		all.head.entries[i] = entries[i];
	done = ioctl(vcpu_fd, request, &all);
	if (done < 0)
		return -errno;
	for (uint32_t i = 0; i < count; i++)
		entries[i] = all.head.entries[i];
	return done;
}

int hv_msrs_get(int kvm_fd, int vcpu_fd, struct kvm_msr_entry *ret_msrs, uint32_t capacity,
		uint32_t *ret_count, struct base_error *err)
{
	struct kvm_msr_entry tried[HV_VCPU_MSRS_MAX];
	uint32_t found = 0;
	uint32_t count = 0;
	uint32_t at = 0;

	{
		BASE_LOCKED(&wanted.lock);
		if (!wanted.filled) {
			int r = fill_wanted(kvm_fd, err);

			if (r < 0)
				return r;
		}
		count = wanted.count;
		for (uint32_t i = 0; i < count; i++)
			tried[i] = (struct kvm_msr_entry){ .index = wanted.indices[i] };
	}
	while (at < count) { /* KVM stops at the first that this vCPU does not have */
		int done = msrs_ioctl(vcpu_fd, KVM_GET_MSRS, tried + at, count - at);

		if (done < 0)
			return base_fail_errno(err, done, "KVM_GET_MSRS");
		base_assert((uint32_t)done <= capacity - found);
		for (uint32_t i = 0; i < (uint32_t)done; i++)
			ret_msrs[found++] = tried[at + i];
		at += (uint32_t)done + 1;
	}
	*ret_count = found;
	return 0;
}

int hv_msrs_put(int vcpu_fd, const struct kvm_msr_entry *msrs, uint32_t count,
		struct base_error *err)
{
	struct kvm_msr_entry tried[HV_VCPU_MSRS_MAX];
	uint32_t kept = 0;
	uint32_t at = 0;

	if (count > HV_VCPU_MSRS_MAX)
		return base_fail(err, -EINVAL, "%" PRIu32 " MSRs, limit %u", count,
				 HV_VCPU_MSRS_MAX);
	for (uint32_t i = 0; i < count; i++) {
		if (msrs[i].index != HV_MSR_TSC_DEADLINE)
			tried[kept++] = msrs[i];
	}
	while (at < kept) {
		int done = msrs_ioctl(vcpu_fd, KVM_SET_MSRS, tried + at, kept - at);
		const struct msr_range *range = NULL;

		if (done < 0)
			return base_fail_errno(err, done, "KVM_SET_MSRS");
		at += (uint32_t)done;
		if (at == kept)
			return 0;
		range = range_of(tried[at].index);
		if (range == NULL || tried[at].data != range->reset)
			return base_fail(err, -ENOTSUP,
					 "this host's KVM refuses MSR 0x%" PRIx32 " = 0x%" PRIx64,
					 tried[at].index, (uint64_t)tried[at].data);
		at++;
	}
	return 0;
}

int hv_msr_get(int vcpu_fd, uint32_t index, uint64_t *ret_value, struct base_error *err)
{
	struct kvm_msr_entry entry = { .index = index };
	int done = msrs_ioctl(vcpu_fd, KVM_GET_MSRS, &entry, 1);

	if (done < 0)
		return base_fail_errno(err, done, "KVM_GET_MSRS: MSR 0x%" PRIx32, index);
	if (done != 1)
		return base_fail(err, -ENOTSUP, "this host's KVM has no MSR 0x%" PRIx32, index);
	*ret_value = entry.data;
	return 0;
}

int hv_msr_set(int vcpu_fd, uint32_t index, uint64_t value, struct base_error *err)
{
	struct kvm_msr_entry entry = { .index = index, .data = value };
	int done = msrs_ioctl(vcpu_fd, KVM_SET_MSRS, &entry, 1);

	if (done < 0)
		return base_fail_errno(err, done, "KVM_SET_MSRS: MSR 0x%" PRIx32, index);
	if (done != 1)
		return base_fail(err, -ENOTSUP,
				 "this host's KVM refuses MSR 0x%" PRIx32 " = 0x%" PRIx64, index,
				 value);
	return 0;
}
