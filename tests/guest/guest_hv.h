/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Hyper-V as the guest uses it: detection, hypercalls, the SynIC of each vCPU, and the
 * channels' interrupts.  CPL 0 only counts interrupts (SUPER_COUNT_HV); all the rest is done by
 * ring 3 at full speed when the count has changed.
 *
 * A ring is looked at only when an event flag has come for it (irq=event), so an interrupt or
 * a signal that gets lost shows as a request that stalls.
 */
#ifndef GUEST_HV_H
#define GUEST_HV_H

#include "tests/guest/guest_bus.h"
#include "tests/guest/guest_work.h"

extern struct guest_bus guest_bus;
extern bool guest_hv_active; /* constant once the vCPUs are started */

/** guest_hv_pool_bytes - what guest_region_take() will be asked for.  0: no Hyper-V wanted. */
uint64_t guest_hv_pool_bytes(void);

/** guest_hv_init - detect and switch on; vCPU 0, before the others run.  Dies if it was asked
 *  for and is not there. */
void guest_hv_init(void);

/** guest_hv_start_vcpu - the SynIC of this vCPU. */
void guest_hv_start_vcpu(uint64_t vcpu);

/** guest_hv_begin - connect to VMBus; vCPU 0, when all vCPUs are ready. */
void guest_hv_begin(void);

/** guest_hv_poll - messages, event flags, rings and clients of this vCPU.  Every round. */
void guest_hv_poll(struct guest_worker *worker);

/** guest_hv_wait - HLT until an interrupt, unless one of Hyper-V's has come since the last poll. */
void guest_hv_wait(const struct guest_worker *worker);

/** guest_hv_send - put a packet into a channel's ring, owner only; the signal, if the host waits
 *  for one, goes out at the end of the poll.  Return: false no room: it will be polled again. */
bool guest_hv_send(struct guest_channel *channel, const struct guest_packet *packet);

/** guest_hv_is_open - for the owner of a channel. */
bool guest_hv_is_open(const struct guest_channel *channel);

/** guest_hv_reference_time - of the partition, 100 ns, by MSR. */
uint64_t guest_hv_reference_time(void);
/* The physical address of the hypercall page; 0: Hyper-V is not in use. */
uint64_t guest_hv_call_page(void);

uint64_t guest_hv_interrupts(uint64_t vcpu);
uint64_t guest_hv_signals(void);

/** guest_hv_stalled - @what has waited since @since (active_tsc) for too long. */
bool guest_hv_stalled(const struct guest_worker *worker, uint64_t since);

/** guest_hv_close, guest_hv_reopen - all channels of @class; vCPU 0.  Closing ends when
 *  guest_hv_is_closed(). */
void guest_hv_close(enum guest_class class);
bool guest_hv_is_closed(enum guest_class class);
void guest_hv_reopen(enum guest_class class);

/** guest_hv_put - counters to the test page; vCPU 0. */
void guest_hv_put(void (*put)(uint64_t offset, uint64_t value));

#endif
