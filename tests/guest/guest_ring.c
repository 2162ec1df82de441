/* SPDX-License-Identifier: Apache-2.0 */
/* See guest_ring.h. */
#include "tests/guest/guest_ring.h"

#include <stddef.h>

#include "tests/guest/guest_bytes.h"

#define WRITE_INDEX      0 /* in words of 32 bits */
#define READ_INDEX       1
#define INTERRUPT_MASK   2
#define PENDING_SEND     3
#define FEATURES         16
#define HEADER_BYTES     4096u
#define DESCRIPTOR_BYTES 16u
#define TRAILER_BYTES    8u

static uint32_t load(const struct guest_ring_half *half, uint32_t word)
{
	return __atomic_load_n(&half->header[word], __ATOMIC_ACQUIRE);
}

static void store(const struct guest_ring_half *half, uint32_t word, uint32_t value)
{
	__atomic_store_n(&half->header[word], value, __ATOMIC_RELEASE);
}

/* A store of ours and a load of what the host wrote: the one order that x86 does not keep. */
static void full_barrier(void)
{
	__atomic_thread_fence(__ATOMIC_SEQ_CST);
}

static void half_init(struct guest_ring_half *half, uint8_t *at, uint32_t bytes)
{
	half->header = (volatile uint32_t *)(void *)at;
	half->data = at + HEADER_BYTES;
	half->size_bytes = bytes - HEADER_BYTES;
	store(half, FEATURES, 1);
}

void guest_ring_init(struct guest_ring *ring, uint8_t *at, uint32_t bytes)
{
	*ring = (struct guest_ring){ .out_at = 0 };
	half_init(&ring->out, at, bytes / 2);
	half_init(&ring->in, at + bytes / 2, bytes / 2);
}

static uint32_t put(const struct guest_ring_half *half, uint32_t at, const uint8_t *from,
		    uint32_t bytes)
{
	uint32_t first = half->size_bytes - at;

	if (first > bytes)
		first = bytes;
	if (bytes == 0)
		return at;
	__builtin_memcpy(half->data + at, from, first);
	__builtin_memcpy(half->data, from + first, bytes - first);
	at += bytes;
	return at >= half->size_bytes ? at - half->size_bytes : at;
}

static uint32_t get(const struct guest_ring_half *half, uint32_t at, uint8_t *to, uint32_t bytes)
{
	uint32_t first = half->size_bytes - at;

	if (first > bytes)
		first = bytes;
	__builtin_memcpy(to, half->data + at, first);
	__builtin_memcpy(to + first, half->data, bytes - first);
	at += bytes;
	return at >= half->size_bytes ? at - half->size_bytes : at;
}

static bool has_room(const struct guest_ring *ring, uint32_t need)
{
	uint32_t read = load(&ring->out, READ_INDEX);
	uint32_t used = ring->out_at >= read ? ring->out_at - read
					     : ring->out_at + ring->out.size_bytes - read;

	return ring->out.size_bytes - used > need;
}

/* Room for @need, or the host has been asked to tell when there is. */
static bool room_or_ask(struct guest_ring *ring, uint32_t need)
{
	if (!has_room(ring, need)) {
		store(&ring->out, PENDING_SEND, need);
		ring->out_blocked = true;
		full_barrier(); /* it may have made room before it could see that */
		if (!has_room(ring, need))
			return false;
	}
	if (ring->out_blocked) {
		store(&ring->out, PENDING_SEND, 0);
		ring->out_blocked = false;
	}
	return true;
}

bool guest_ring_write(struct guest_ring *ring, const struct guest_packet *packet, bool *signal)
{
	static const uint8_t zeros[8];
	uint32_t padding = -packet->payload_bytes & 7;
	uint32_t bytes = DESCRIPTOR_BYTES + packet->header_bytes + packet->payload_bytes + padding;
	uint32_t before = ring->out_at, at;
	uint8_t descriptor[DESCRIPTOR_BYTES], trailer[TRAILER_BYTES] = { 0 };

	if (!room_or_ask(ring, bytes + TRAILER_BYTES))
		return false;
	guest_put16(descriptor, packet->type);
	guest_put16(descriptor + 2, (uint16_t)((DESCRIPTOR_BYTES + packet->header_bytes) / 8));
	guest_put16(descriptor + 4, (uint16_t)(bytes / 8));
	guest_put16(descriptor + 6, packet->flags);
	guest_put64(descriptor + 8, packet->trans_id);
	guest_put32(trailer + 4, before);
	at = put(&ring->out, before, descriptor, sizeof(descriptor));
	at = put(&ring->out, at, packet->header, packet->header_bytes);
	at = put(&ring->out, at, packet->payload, packet->payload_bytes);
	at = put(&ring->out, at, zeros, padding);
	ring->out_at = put(&ring->out, at, trailer, sizeof(trailer));
	store(&ring->out, WRITE_INDEX, ring->out_at);
	full_barrier();
	if (load(&ring->out, INTERRUPT_MASK) == 0 && load(&ring->out, READ_INDEX) == before)
		*signal = true;
	ring->sent++;
	return true;
}

int guest_ring_read(struct guest_ring *ring, uint8_t *buffer, uint32_t buffer_bytes,
		    struct guest_packet *ret_packet)
{
	uint32_t write = load(&ring->in, WRITE_INDEX), size = ring->in.size_bytes;
	uint32_t have, bytes, offset, at;
	uint8_t descriptor[DESCRIPTOR_BYTES];

	if (write == ring->in_at)
		return 0;
	if (write >= size || write % 8 != 0)
		return -1;
	have = write > ring->in_at ? write - ring->in_at : write + size - ring->in_at;
	if (have < DESCRIPTOR_BYTES + TRAILER_BYTES)
		return -1;
	at = get(&ring->in, ring->in_at, descriptor, sizeof(descriptor));
	offset = guest_get16(descriptor + 2) * 8u;
	bytes = guest_get16(descriptor + 4) * 8u;
	if (offset < DESCRIPTOR_BYTES || offset > bytes || bytes > have - TRAILER_BYTES ||
	    bytes - DESCRIPTOR_BYTES > buffer_bytes)
		return -1;
	at = get(&ring->in, at, buffer, bytes - DESCRIPTOR_BYTES);
	at += TRAILER_BYTES;
	ring->in_at = at >= size ? at - size : at;
	ret_packet->type = guest_get16(descriptor);
	ret_packet->flags = guest_get16(descriptor + 6);
	ret_packet->trans_id = guest_get64(descriptor + 8);
	ret_packet->header = buffer;
	ret_packet->header_bytes = offset - DESCRIPTOR_BYTES;
	ret_packet->payload = buffer + ret_packet->header_bytes;
	ret_packet->payload_bytes = bytes - offset;
	ring->received++;
	return 1;
}

static uint32_t in_free(const struct guest_ring *ring, uint32_t read)
{
	uint32_t write = load(&ring->in, WRITE_INDEX);

	return ring->in.size_bytes -
	       (write >= read ? write - read : write + ring->in.size_bytes - read);
}

bool guest_ring_publish(struct guest_ring *ring)
{
	uint32_t before = ring->in_published, pending, freed, room;

	if (before == ring->in_at)
		return false;
	store(&ring->in, READ_INDEX, ring->in_at);
	ring->in_published = ring->in_at;
	full_barrier();
	pending = load(&ring->in, PENDING_SEND);
	if (pending == 0 || (load(&ring->in, FEATURES) & 1) == 0)
		return false;
	freed = ring->in_at >= before ? ring->in_at - before
				      : ring->in_at + ring->in.size_bytes - before;
	room = in_free(ring, ring->in_at);
	/* only when this made the difference: else the host was told before */
	return room > pending && (room < freed || room - freed <= pending);
}

void guest_ring_mask(struct guest_ring *ring, bool mask)
{
	store(&ring->in, INTERRUPT_MASK, mask ? 1 : 0);
	full_barrier();
}

bool guest_ring_is_empty(const struct guest_ring *ring)
{
	return load(&ring->in, WRITE_INDEX) == ring->in_at;
}
