/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Shared by machine.c (life), machine_boot.c (boot, reset), machine_services.c, machine_save.c,
 * machine_restore.c and machine_dump.c only.
 */
#ifndef HYPERVISOR_MACHINE_PRIV_H
#define HYPERVISOR_MACHINE_PRIV_H

#include <pthread.h>
#include <stdatomic.h>

#include "base/pool.h"
#include "hypervisor/cpuid_table.h"
#include "hypervisor/host_probe.h"
#include "hypervisor/hyperv.h"
#include "hypervisor/machine.h"
#include "hypervisor/partition.h"
#include "hypervisor/platform.h"
#include "hypervisor/test_page.h"
#include "hypervisor/vcpu_state.h"

/* A service and what was last asked of it. */
struct hv_machine_service {
	const struct hv_service_ops *ops;
	void *service;
};

struct hv_machine {
	struct hv_machine_config config;
	struct hv_machine_fds fds; /* borrowed */
	const struct hv_machine_ops *ops;
	void *context;

	pthread_mutex_t change_lock; /* boot, restore, save, reset, dump: one at a time; taken
					before all others */
	struct hv_memory *memory;
	struct hv_iobus *bus;
	struct hv_partition *partition;
	struct hv_synic *synic;
	struct hv_hyperv *hyperv;
	bool tsc_is_host_time; /* the host keeps its own time by the TSC */
	uint64_t host_tsc_khz; /* 0: unknown */
	struct hv_platform *platform;
	struct hv_test_page *test_page; /* NULL unless configured */
	struct base_pool *pool;
	struct hv_guest_time time;
	struct hv_host_facts host;
	struct hv_cpuid_table supported; /* what this host's KVM can give */
	struct hv_cpuid_table cpuid;     /* the VM's, before specialisation for a vCPU */
	uint8_t boot_id[16];             /* of the host's boot */
	bool tsc_is_ours;                /* the guest's TSC goes where we put it */
	uint64_t guest_tsc_khz;          /* 0: unknown */
	bool cpu_honoured;
	char cpu_text[256];
	bool has_guest; /* booted, restored or arrived */
	bool arrived;   /* by migration, and not finished yet */
	bool arrived_with_services;

	/* Under change_lock, but for what is only added before the first boot. */
	struct hv_machine_service services[HV_SERVICES_MAX];
	uint32_t service_count;
	uint32_t quiesce_depth;      /* how many want the services quiet */
	_Atomic bool quiet_for_user; /* quiet until the user's hold is released: a save whose
					outcome is unknown */
	int (*on_load)(void *context, struct base_error *err);
	void *on_load_context;

	struct hv_vcpu_state *power_on; /* per vCPU, as KVM made them */
	struct hv_chip_state power_on_chips;
	_Atomic uint64_t reset_count;
	_Atomic uint64_t pause_ns;
};

/* machine.c: compare @table (one processor's) with what the probe guest saw; -ENOTSUP with
 * cpu_strict and a difference. */
BASE_MUST_CHECK int hv_machine_judge_cpu(struct hv_machine *machine,
					 const struct hv_cpuid_table *table,
					 struct base_error *err);
/* machine_restore.c: whether a guest's clock would notice; what is not known does not differ. */
bool hv_tsc_rates_differ(uint64_t one_khz, uint64_t other_khz);
/* machine.c: the leash's gate. */
bool hv_machine_may_act(const struct hv_machine *machine);

/*
 * machine_services.c: the services' part of the machine's life; change_lock held, vCPUs parked.
 * quiesce and resume are counted; the first and the last reach the services.
 */
BASE_MUST_CHECK int hv_machine_services_quiesce(struct hv_machine *machine, struct base_error *err);
void hv_machine_services_resume(struct hv_machine *machine);
/* All of them quiet, for good; also those behind one that cannot finish what it has under way. */
void hv_machine_services_end(struct hv_machine *machine);
BASE_MUST_CHECK int hv_machine_services_reset(struct hv_machine *machine, struct base_error *err);
BASE_MUST_CHECK int hv_machine_services_loaded(struct hv_machine *machine, struct base_error *err);
bool hv_machine_services_set_date(const struct hv_machine *machine);
uint32_t hv_machine_service_sections(const struct hv_machine *machine); /* of all services */
/* The @index-th of all sections, and whose it is under which number. */
struct hv_service_section hv_machine_service_section(const struct hv_machine *machine,
						     uint32_t index,
						     const struct hv_machine_service **ret_service,
						     uint32_t *ret_own_index);

/* machine_hyperv.c: the Hyper-V interface's part of the machine's life. */
extern const struct hv_partition_ops hv_machine_partition_ops;
BASE_MUST_CHECK int hv_machine_hyperv_new(struct hv_machine *machine, struct base_error *err);
void hv_machine_hyperv_free(struct hv_machine *machine);
/* Back to power-on. */
BASE_MUST_CHECK int hv_machine_hyperv_reset(struct hv_machine *machine, struct base_error *err);
/* vCPUs parked, their TSCs as they will run: reference time is @reference at least. */
BASE_MUST_CHECK int hv_machine_hyperv_clock(struct hv_machine *machine, uint64_t reference,
					    struct base_error *err);

/* machine.c */
void hv_machine_vcpu_event(struct hv_machine *machine, enum hv_vcpu_event event, const char *text);
void hv_machine_request_reset(struct hv_machine *machine, const char *text);

/* machine_boot.c: put the kernel into memory and vCPU 0 at its entry; vCPUs parked, change_lock
 * held. */
BASE_MUST_CHECK int hv_machine_load_kernel(struct hv_machine *machine, struct base_error *err);

#endif
