/* SPDX-License-Identifier: Apache-2.0 */
/*
 * vCPUs that are kept from running for a share of their time: docs/migrate/throttle.md.
 *
 * A thread tells each until when it stands still, period by period, and kicks it; the vCPU's own
 * thread looks before it enters the guest.  What it says is over by itself a period later, so that
 * nothing stands longer than that if this thread does not get a processor.
 */
#include <errno.h>
#include <inttypes.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/clock.h"
#include "base/file.h"
#include "base/thread.h"
#include "hypervisor/partition_priv.h"

#define ALL_PERMILLE  1000u
#define STATS_MAX     4096u /* counters of a vCPU; KVM has about sixty */
#define STAT_NAME_MAX 256u

static void *throttler(void *context)
{
	struct hv_partition *partition = context;

	while (!atomic_load(&partition->throttle_ends)) {
		uint64_t now_ns = base_clock_boot_ns(&base_clock_system);

		for (uint32_t i = 0; i < partition->vcpu_count; i++) {
			struct hv_vcpu *vcpu = &partition->vcpus[i];
			uint64_t permille = atomic_load(&vcpu->throttle_permille);

			if (permille == 0)
				continue;
			atomic_store(&vcpu->stand_until_ns,
				     now_ns + HV_THROTTLE_PERIOD_NS / ALL_PERMILLE * permille);
			hv_vcpu_kick(vcpu);
		}
		base_sleep_ns(HV_THROTTLE_PERIOD_NS);
	}
	return NULL;
}

static void end(struct hv_partition *partition)
{
	if (partition->has_throttler) {
		atomic_store(&partition->throttle_ends, true);
		base_thread_join(partition->throttler);
		partition->has_throttler = false;
	}
	for (uint32_t i = 0; i < partition->vcpu_count; i++)
		atomic_store(&partition->vcpus[i].stand_until_ns, 0);
}

int hv_partition_throttle(struct hv_partition *partition, const uint32_t *permille,
			  struct base_error *err)
{
	bool any = false;
	int r = 0;

	for (uint32_t i = 0; i < partition->vcpu_count; i++) {
		base_assert(permille[i] <= ALL_PERMILLE);
		any = any || permille[i] != 0;
	}
	if (any && !partition->has_throttler) {
		atomic_store(&partition->throttle_ends, false);
		r = base_thread_start(&partition->throttler, "vcpu-throttle", throttler, partition,
				      err);
		if (r < 0)
			return r;
		partition->has_throttler = true;
	}
	for (uint32_t i = 0; i < partition->vcpu_count; i++)
		atomic_store(&partition->vcpus[i].throttle_permille, permille[i]);
	if (!any)
		end(partition);
	return 0;
}

/* --- who writes --- */

static bool read_at(int fd, void *to, size_t size_bytes, uint64_t offset)
{
	return base_pread_all(fd, to, size_bytes, offset) == 0;
}

/* A page that is protected because it is tracked is mended by one of these two ways. */
static uint32_t which(const char *name)
{
	if (strcmp(name, "pf_fixed") == 0)
		return 1;
	return strcmp(name, "pf_fast") == 0 ? 2 : 0;
}

static void find_counters(struct hv_vcpu *vcpu, const struct kvm_stats_header *header)
{
	union {
		struct kvm_stats_desc desc;
		char bytes[sizeof(struct kvm_stats_desc) + STAT_NAME_MAX];
	} one;
	size_t size_bytes = sizeof(one.desc) + header->name_size;

	for (uint32_t i = 0; i < header->num_desc; i++) {
		uint32_t at = 0;

		if (!read_at(vcpu->stats_fd, &one, size_bytes,
			     header->desc_offset + (uint64_t)i * size_bytes))
			return;
		one.bytes[size_bytes - 1] = '\0';
		at = which(one.bytes + sizeof(one.desc));
		if (at != 0 && one.desc.size == 1)
			vcpu->faults_at[at - 1] = (uint64_t)header->data_offset + one.desc.offset;
	}
}

void hv_vcpu_count_faults(struct hv_vcpu *vcpu)
{
	struct kvm_stats_header header;

	vcpu->stats_fd = ioctl(vcpu->fd, KVM_GET_STATS_FD, NULL);
	if (vcpu->stats_fd < 0) /* Linux before 5.14 */
		return;
	if (!read_at(vcpu->stats_fd, &header, sizeof(header), 0) ||
	    header.name_size > STAT_NAME_MAX || header.num_desc > STATS_MAX)
		return;
	find_counters(vcpu, &header);
}

static bool count(const struct hv_vcpu *vcpu, uint64_t *ret_faults)
{
	bool known = false;

	*ret_faults = 0;
	for (uint32_t i = 0; i < 2; i++) {
		uint64_t value = 0;

		if (vcpu->faults_at[i] == 0)
			continue;
		if (!read_at(vcpu->stats_fd, &value, sizeof(value), vcpu->faults_at[i]))
			return false;
		*ret_faults += value;
		known = true;
	}
	return known;
}

bool hv_partition_faults(struct hv_partition *partition, uint64_t *ret_faults)
{
	for (uint32_t i = 0; i < partition->vcpu_count; i++) {
		struct hv_vcpu *vcpu = &partition->vcpus[i];
		uint64_t now = 0;

		if (!count(vcpu, &now))
			return false;
		ret_faults[i] = now - vcpu->faults_before;
		vcpu->faults_before = now;
	}
	return true;
}
