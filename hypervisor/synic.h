/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The synthetic interrupt controller (SynIC): for each virtual processor 16 synthetic
 * interrupt sources (SINTs), a page of message slots (SIMP) and a page of event flags
 * (SIEFP), both in guest memory where the guest put them by MSR.
 *
 *   message  256 bytes into the slot of one SINT.  A slot holds one message; more wait in a
 *            queue here, in order.  The guest frees a slot by writing type 0; when more wait
 *            it was told so (flag MessagePending) and writes the EOM register.
 *   event    one of 2048 flags of one SINT; an interrupt when it goes from 0 to 1.
 *
 * Every write into guest memory is marked dirty before the guest is interrupted.
 *
 * Threads: any thread may post and signal; each virtual processor has a leaf lock.  The MSR
 * side is hypervisor/hyperv.h's, on vCPU threads.
 *
 * Source: Hypervisor Top-Level Functional Specification 6.0b, chapter 11 and 12.
 */
#ifndef HYPERVISOR_SYNIC_H
#define HYPERVISOR_SYNIC_H

#include <stdint.h>

#include "base/error.h"

#define HV_SINTS                 16u
#define HV_SINT_VMBUS            2u /* what every guest uses for VMBus */
#define HV_MESSAGE_BYTES         256u
#define HV_MESSAGE_PAYLOAD_BYTES 240u
#define HV_EVENT_FLAGS           2048u
/* Messages that wait for a slot; more is back-pressure for who posts. */
#define HV_SYNIC_QUEUE_MAX       32u

struct hv_synic;

struct hv_message {
	uint32_t type;       /* not 0, which means a free slot */
	uint32_t size_bytes; /* of the payload, 0..HV_MESSAGE_PAYLOAD_BYTES */
	uint64_t sender;     /* port id */
	uint8_t payload[HV_MESSAGE_PAYLOAD_BYTES];
};

/**
 * hv_synic_post - deliver a message, or queue it until the slot is free.
 * It is queued too while the SynIC, the message page or the SINT is off.
 * @message: copied.
 * 0; -EAGAIN HV_SYNIC_QUEUE_MAX messages wait already: the room callback will come;
 * -EINVAL there is no such virtual processor or SINT.
 */
BASE_MUST_CHECK int hv_synic_post(struct hv_synic *synic, uint32_t vp, uint32_t sint,
				  const struct hv_message *message);

/**
 * hv_synic_signal - set an event flag, and interrupt when it was clear.
 * 0; -EINVAL no such virtual processor, SINT or flag; -ENXIO the guest has no event flags page
 * there: nobody listens, the event is gone (whoever enables it later looks at the rings).
 */
BASE_MUST_CHECK int hv_synic_signal(struct hv_synic *synic, uint32_t vp, uint32_t sint,
				    uint32_t flag);

/* Interrupt a virtual processor for a SINT once, without flag or message (spurious interrupts
 * are harmless): after a restore. */
void hv_synic_nudge(struct hv_synic *synic, uint32_t vp, uint32_t sint);

/* Forget messages that wait for (@vp, @sint), as when the bus is reset.  What is in the slot
 * belongs to the guest.  Whoever was refused hears nothing of it. */
void hv_synic_drop(struct hv_synic *synic, uint32_t vp, uint32_t sint);

/* @room(@context) is called, on any thread and with no lock held, after a queue that had refused
 * a message has room again.  One user; set before the vCPUs run. */
void hv_synic_on_room(struct hv_synic *synic, void (*room)(void *context), void *context);

#endif
