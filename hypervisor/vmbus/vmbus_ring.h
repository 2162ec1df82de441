/* SPDX-License-Identifier: Apache-2.0 */
/*
 * One direction of a channel: a ring of packets in guest pages, with us as its reader or as its
 * writer.
 *
 * Our own index is kept here and only written to guest memory; the other side's index is read
 * once per look and checked.  Packets are copied to private memory before anything in them is
 * looked at.  Bytes go into the ring through write windows and are marked dirty before the index
 * that shows them is published; the header page is marked after each change of it.
 *
 * Nothing is lost between two sides that sleep: docs/hypervisor/vmbus/vmbus.md section 5 has the
 * rules, tests/unit/vmbus/vmbus_ring_model_test.c the proof over all interleavings.  The steps
 * named below are the ones of the model.
 *
 * Owned by the channel's loop.
 */
#ifndef HYPERVISOR_VMBUS_VMBUS_RING_H
#define HYPERVISOR_VMBUS_VMBUS_RING_H

#include <stdbool.h>
#include <stdint.h>

#include "base/error.h"
#include "hypervisor/slat.h"
#include "hypervisor/vmbus/vmbus_channel.h"

/* Offsets in the header page. */
#define VMBUS_RING_WRITE_INDEX   0u
#define VMBUS_RING_READ_INDEX    4u
#define VMBUS_RING_MASK          8u
#define VMBUS_RING_PENDING       12u
#define VMBUS_RING_FEATURES      64u
#define VMBUS_RING_FEAT_PENDING  1u
#define VMBUS_RING_HEADER_BYTES  128u /* what we look at of the page */
#define VMBUS_PACKET_HEAD_BYTES  16u
#define VMBUS_PACKET_TAIL_BYTES  8u
#define VMBUS_PACKET_WANTS_REPLY 1u /* in the flags of a descriptor */

/* Accesses to shared memory, in the order the code makes them; for tests that come between. */
enum vmbus_ring_step {
	VMBUS_STEP_INVALID,
	VMBUS_STEP_LOAD_WRITE,    /* reader: the writer's index */
	VMBUS_STEP_STORE_READ,    /* reader: publish our index */
	VMBUS_STEP_MASK,          /* reader: interrupt_mask = 1 */
	VMBUS_STEP_UNMASK,        /* reader: interrupt_mask = 0 */
	VMBUS_STEP_LOAD_PENDING,  /* reader: is the writer waiting for room? */
	VMBUS_STEP_LOAD_READ,     /* writer: the reader's index */
	VMBUS_STEP_STORE_WRITE,   /* writer: publish our index */
	VMBUS_STEP_LOAD_MASK,     /* writer: does the reader want to hear of it? */
	VMBUS_STEP_STORE_PENDING, /* writer: we wait for room */
	VMBUS_STEP_CLEAR_PENDING, /* writer: we do not any more */
	VMBUS_STEP_BARRIER,       /* either: earlier stores are visible before later loads */
	VMBUS_STEPS
};

struct vmbus_ring {
	struct hv_slat *slat;
	uint64_t *gpas;        /* owned; the header page, then the data */
	uint32_t page_count;   /* with the header */
	uint32_t size_bytes;   /* of the data area */
	const uint8_t *header; /* view of the header page */
	uint32_t index;        /* ours: next byte to read or write */
	uint32_t published;    /* what the guest sees of it */
	uint32_t pending;      /* writer: pending_send_sz as we set it */
	bool unannounced;      /* writer: published, and the reader not interrupted yet */
	bool masked;           /* reader: interrupt_mask as we set it */
	uint64_t packet_count;
	uint64_t full_count; /* writer: times that a packet did not fit */
	/* Tests only: called before each step. */
	void (*hook)(void *context, enum vmbus_ring_step step);
	void *hook_context;
};

/**
 * vmbus_ring_init - over @page_gpas (copied), the first of which is the header page.
 * -EINVAL fewer than 2 pages or a data area of 4 GiB; -EFAULT a page is not RAM; -ENOMEM.
 */
BASE_MUST_CHECK int vmbus_ring_init(struct vmbus_ring *ring, struct hv_slat *slat,
				    const uint64_t *page_gpas, uint32_t page_count);
void vmbus_ring_fini(struct vmbus_ring *ring); /* zero-initialised is fine */

/* Take our index from guest memory, when a channel opens or is taken up; a writer announces
 * there that it understands pending_send_sz.  -EBADMSG an index out of range. */
BASE_MUST_CHECK int vmbus_ring_begin_reader(struct vmbus_ring *ring);
BASE_MUST_CHECK int vmbus_ring_begin_writer(struct vmbus_ring *ring);

/* --- reader --- */

/**
 * vmbus_ring_get - copy the next packet, descriptor and all but not the trailer.
 * 1, and its length in *@ret_bytes; 0 the ring is empty; -EBADMSG the ring is broken.
 */
BASE_MUST_CHECK int vmbus_ring_get(struct vmbus_ring *ring, uint8_t *to, uint32_t capacity,
				   uint32_t *ret_bytes);
void vmbus_ring_mask(struct vmbus_ring *ring);
/**
 * vmbus_ring_end_read - publish what was read and let the writer interrupt us again.
 * @ret_room: the writer waits for room and has it now: interrupt the guest.
 * @recheck: look again for packets that came meanwhile: 1 there are, 0 none; without it 0.
 * -EBADMSG the ring is broken.
 */
BASE_MUST_CHECK int vmbus_ring_end_read(struct vmbus_ring *ring, bool recheck, bool *ret_room);

/* --- writer --- */

/**
 * vmbus_ring_put - write a packet; the reader sees it after vmbus_ring_end_write().
 * 0; -EAGAIN no room: pending_send_sz asks the reader to signal; -EBADMSG the ring is broken;
 * -EINVAL it could never fit.
 */
BASE_MUST_CHECK int vmbus_ring_put(struct vmbus_ring *ring, const struct vmbus_send *send);
/* Publish what was written; true: interrupt the guest. */
bool vmbus_ring_end_write(struct vmbus_ring *ring);
/* Whether a packet that did not fit may fit now; the reader is told that we do not wait any more.
 */
bool vmbus_ring_take_room(struct vmbus_ring *ring);

/* The header as the guest sees it now, for dumps. */
struct vmbus_ring_header {
	uint32_t write_index;
	uint32_t read_index;
	uint32_t interrupt_mask;
	uint32_t pending_send_sz;
	uint32_t features;
};
struct vmbus_ring_header vmbus_ring_peek(const struct vmbus_ring *ring);

#endif
