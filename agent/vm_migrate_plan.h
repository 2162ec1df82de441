/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What a source says of its VM before it moves, and what a destination has to object to.
 *
 * The text is JSON, in the plan of the migration (migrate/mig_body.h): docs/agent/migrate.md.  It
 * comes from a peer and is hostile: every key is checked, unknown ones are refused.
 *
 * Values; any thread.
 */
#ifndef AGENT_VM_MIGRATE_PLAN_H
#define AGENT_VM_MIGRATE_PLAN_H

#include "agent/vm_config.h"
#include "agent/vm_migrate_ahead.h"
#include "agent/vm_migrate_disk.h"
#include "hypervisor/machine_cpu.h"
#include "migrate/mig_body.h"

struct vm_plan_nic {
	uint8_t mac[6];
	uint32_t queue_count;
	uint32_t mtu; /* 0: 1500 */
	bool spoofing;
};

struct vm_plan_disk {
	uint32_t controller;
	uint32_t lun;
	bool dvd;
	bool read_only;
	bool empty;                      /* a drive without a medium */
	char image[VM_IMAGE_NAME_BYTES]; /* the file; "" when empty */
};

/* Large: on the heap. */
struct vm_plan {
	uint8_t id[MIG_ID_BYTES]; /* of the migration */
	char name[HV_NAME_BYTES];
	char host[HV_NAME_BYTES]; /* of the source, for people */
	uint64_t memory_bytes;
	struct vm_touched touched; /* of it: where there may be something */
	uint32_t vcpu_count;
	enum hv_cpu_model cpu;
	bool test_page;
	struct hv_machine_cpu processor;
	uint32_t nic_count;
	struct vm_plan_nic nics[VM_NICS_MAX];
	uint32_t disk_count;
	struct vm_plan_disk disks[VM_DISKS_MAX];
};

/* All of @config that another host has to have alike; id, host, processor, what memory was touched
 * and disks, which may have changed since, are the caller's. */
void vm_plan_of(const struct vm_config *config, struct vm_plan *ret_plan);

/* JSON of one line, to be freed.  -ENOMEM. */
BASE_MUST_CHECK int vm_plan_encode(const struct vm_plan *plan, char **ret_text,
				   struct base_error *err);
/* -EBADMSG names key and expectation; -ENOTSUP a newer form; -ENOMEM. */
BASE_MUST_CHECK int vm_plan_decode(const char *text, struct vm_plan *ret_plan,
				   struct base_error *err);

/* Each difference between the VM that is to come and the one that @here has room for. */
void vm_plan_compare(const struct vm_plan *plan, const struct vm_plan *here,
		     struct mig_findings *findings);
/* Each thing that the host's processor lacks. */
void vm_plan_findings_cpu(const struct hv_cpu_report *report, struct mig_findings *findings);

#endif
