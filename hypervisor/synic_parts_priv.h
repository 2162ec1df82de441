/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The SynIC's insides, for synic.c (messages, events), synic_msrs.c, synic_state.c and synic_dump.c
 * only.
 */
#ifndef HYPERVISOR_SYNIC_PARTS_PRIV_H
#define HYPERVISOR_SYNIC_PARTS_PRIV_H

#include <pthread.h>
#include <stdatomic.h>

#include "hypervisor/synic_priv.h"

#define SYNIC_SINT_RESET HV_SINT_MASKED

/* Messages that wait for one slot, in order. */
struct synic_queue {
	struct hv_message messages[HV_SYNIC_QUEUE_MAX];
	uint32_t first;
	uint32_t count;
	bool refused; /* somebody waits for room */
};

struct synic_vp {
	pthread_mutex_t lock; /* leaf: all below, and who writes this processor's slots */
	uint64_t control;
	uint64_t siefp;
	uint64_t simp;
	uint64_t sint[HV_SINTS];
	struct synic_queue queues[HV_SINTS];
};

struct hv_synic {
	struct hv_slat *slat;
	const struct hv_synic_ops *ops;
	void *context;
	void (*room)(void *context);
	void *room_context;
	_Atomic bool auto_eoi_logged;
	uint32_t vp_count;
	struct synic_vp vps[];
};

/* What is to be done once the lock is released. */
struct synic_after {
	uint32_t vectors[256 / 32]; /* to raise, a bit each */
	bool room;
};
void hv_synic_after(struct hv_synic *synic, uint32_t vp, const struct synic_after *after);

/* Under the lock: put the next message of @sint into its slot, if both are there. */
void hv_synic_deliver(struct hv_synic *synic, struct synic_vp *vp, uint32_t sint,
		      struct synic_after *after);
/* Under the lock: an interrupt of @sint is due, unless it is off, masked or polled. */
void hv_synic_raise(const struct synic_vp *vp, uint32_t sint, struct synic_after *after);

void hv_synic_reset_vp(struct synic_vp *vp);
bool hv_synic_sint_is_sane(uint64_t value);

#endif
