/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The guest's end of a VMBus ring pair.  Pure but for the ring's own memory; compiles for the
 * guest and the host.  A ring belongs to one vCPU at a time.
 *
 * A half is one header page and the data.  Header: 0 write index, 4 read index, 8 interrupt
 * mask, 12 pending send size, 64 feature bits (1: whoever reads honours pending send size).
 * A packet: u16 type, u16 payload offset / 8, u16 length / 8, u16 flags, u64 transaction; what
 * belongs to the type; payload, padded to 8; and behind it 8 bytes, the upper half of which
 * is the write index from before.  A writer never fills a ring to the last byte.
 */
#ifndef GUEST_RING_H
#define GUEST_RING_H

#include <stdbool.h>
#include <stdint.h>

#define GUEST_PACKET_INBAND     6
#define GUEST_PACKET_XFER       7
#define GUEST_PACKET_GPA_DIRECT 9
#define GUEST_PACKET_COMPLETION 11
#define GUEST_PACKET_ANSWER     1 /* flag: wants a completion */

struct guest_ring_half {
	volatile uint32_t *header;
	uint8_t *data;
	uint32_t size_bytes; /* of the data */
};

struct guest_ring {
	struct guest_ring_half out, in;
	uint32_t out_at; /* our own index: what the header says is for the host */
	uint32_t in_at;
	uint32_t in_published; /* the read index that the host has seen */
	bool out_blocked;      /* pending send size stands: tell when there is room */
	uint64_t sent, received, signals;
};

struct guest_packet {
	uint16_t type, flags;
	uint64_t trans_id;
	const uint8_t *header; /* behind the descriptor; a multiple of 8 bytes */
	uint32_t header_bytes;
	const uint8_t *payload;
	uint32_t payload_bytes; /* read: padding included */
};

/** guest_ring_init - lay a ring pair over @bytes zeroed bytes, half each way. */
void guest_ring_init(struct guest_ring *ring, uint8_t *at, uint32_t bytes);

/**
 * guest_ring_write - put a packet into the ring.
 * @signal: set to true (never to false) when the host waits for a signal: then signal once
 *          after the last packet of a batch.
 * Return: false when there is no room: the host was asked to tell when there is.
 */
bool guest_ring_write(struct guest_ring *ring, const struct guest_packet *packet, bool *signal);

/**
 * guest_ring_read - take the next packet.
 * @buffer: of @buffer_bytes: header and payload point into it.
 * Return: 1; 0 nothing there; -1 what the host wrote is no packet.
 */
int guest_ring_read(struct guest_ring *ring, uint8_t *buffer, uint32_t buffer_bytes,
		    struct guest_packet *ret_packet);

/** guest_ring_publish - let the host have what was read.  Return: it waits for that: signal. */
bool guest_ring_publish(struct guest_ring *ring);

/** guest_ring_mask - ask the host for no interrupts, or for them again (then look once more). */
void guest_ring_mask(struct guest_ring *ring, bool mask);

/** guest_ring_is_empty - nothing to read. */
bool guest_ring_is_empty(const struct guest_ring *ring);

#endif
