/* SPDX-License-Identifier: Apache-2.0 */
/* The ring between vCPU threads and the console's sink. */
#include "agent/vm_ring.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "base/cleanup.h"
#include "base/error.h"

void vm_ring_init(struct vm_ring *ring)
{
	memset(ring, 0, sizeof(*ring));
	(void)pthread_mutex_init(&ring->lock, NULL);
}

void vm_ring_fini(struct vm_ring *ring)
{
	(void)pthread_mutex_destroy(&ring->lock);
}

static size_t room(const struct vm_ring *ring)
{
	return sizeof(ring->data) - ring->size_bytes;
}

/* Caller has seen that they fit. */
static void append(struct vm_ring *ring, const uint8_t *bytes, size_t size_bytes)
{
	size_t at = (ring->first + ring->size_bytes) % sizeof(ring->data);
	size_t to_end = sizeof(ring->data) - at;
	size_t head = size_bytes < to_end ? size_bytes : to_end;

	memcpy(ring->data + at, bytes, head);
	memcpy(ring->data, bytes + head, size_bytes - head);
	ring->size_bytes += size_bytes;
}

static void take_front(struct vm_ring *ring, size_t size_bytes)
{
	base_assert(size_bytes <= ring->size_bytes);
	ring->first = (ring->first + size_bytes) % sizeof(ring->data);
	ring->size_bytes -= size_bytes;
}

static void lose(struct vm_ring *ring, size_t size_bytes)
{
	ring->gap_bytes += size_bytes;
	ring->dropped_bytes += size_bytes;
}

static size_t make_mark(char mark[VM_RING_MARK_BYTES_MAX], uint64_t gap_bytes)
{
	int length = snprintf(mark, VM_RING_MARK_BYTES_MAX,
			      "\n[godwit: %" PRIu64 " bytes of console output lost]\n", gap_bytes);

	return (size_t)length;
}

/* The oldest make room; the mark comes when a reader does. */
static void put_newest(struct vm_ring *ring, const uint8_t *bytes, size_t size_bytes)
{
	if (size_bytes > sizeof(ring->data)) {
		lose(ring, size_bytes - sizeof(ring->data));
		bytes += size_bytes - sizeof(ring->data);
		size_bytes = sizeof(ring->data);
	}
	if (size_bytes > room(ring)) {
		size_t excess = size_bytes - room(ring);

		lose(ring, excess);
		take_front(ring, excess);
	}
	append(ring, bytes, size_bytes);
}

/* The newest are refused; after a gap nothing is taken before its mark fits. */
static void put_oldest(struct vm_ring *ring, const uint8_t *bytes, size_t size_bytes)
{
	size_t fits = 0;

	if (ring->gap_bytes > 0) {
		char mark[VM_RING_MARK_BYTES_MAX];
		size_t mark_bytes = make_mark(mark, ring->gap_bytes);

		if (room(ring) <= mark_bytes) {
			lose(ring, size_bytes);
			return;
		}
		append(ring, (const uint8_t *)mark, mark_bytes);
		ring->gap_bytes = 0;
	}
	fits = size_bytes < room(ring) ? size_bytes : room(ring);
	append(ring, bytes, fits);
	lose(ring, size_bytes - fits);
}

bool vm_ring_put(struct vm_ring *ring, const uint8_t *bytes, size_t size_bytes)
{
	BASE_LOCKED(&ring->lock);
	bool was_empty = ring->size_bytes == 0;

	ring->put_bytes += size_bytes;
	if (size_bytes == 0)
		return false;
	if (ring->keep_newest)
		put_newest(ring, bytes, size_bytes);
	else
		put_oldest(ring, bytes, size_bytes);
	return was_empty;
}

/* A gap in front of the bytes that are left is marked there, in place of the first of them. */
static void mark_front(struct vm_ring *ring)
{
	char mark[VM_RING_MARK_BYTES_MAX];
	size_t mark_bytes = 0;

	if (ring->gap_bytes == 0)
		return;
	mark_bytes = make_mark(mark, ring->gap_bytes);
	if (room(ring) < mark_bytes) {
		size_t excess = mark_bytes - room(ring);

		lose(ring, excess);
		take_front(ring, excess);
		mark_bytes = make_mark(mark, ring->gap_bytes);
	}
	/* The number may have grown by a digit: then there is one byte too few of room. */
	if (room(ring) < mark_bytes) {
		lose(ring, 1);
		take_front(ring, 1);
		mark_bytes = make_mark(mark, ring->gap_bytes);
	}
	for (size_t i = mark_bytes; i > 0; i--) {
		ring->first = (ring->first + sizeof(ring->data) - 1) % sizeof(ring->data);
		ring->data[ring->first] = (uint8_t)mark[i - 1];
	}
	ring->size_bytes += mark_bytes;
	ring->gap_bytes = 0;
}

void vm_ring_keep_newest(struct vm_ring *ring, bool keep_newest)
{
	BASE_LOCKED(&ring->lock);

	if (ring->keep_newest && !keep_newest)
		mark_front(ring);
	ring->keep_newest = keep_newest;
}

/* A gap at the very end gets its mark once the reader has made room for it. */
static void mark_end(struct vm_ring *ring)
{
	char mark[VM_RING_MARK_BYTES_MAX];
	size_t mark_bytes = 0;

	if (ring->gap_bytes == 0 || ring->keep_newest || ring->size_bytes > 0)
		return;
	mark_bytes = make_mark(mark, ring->gap_bytes);
	append(ring, (const uint8_t *)mark, mark_bytes);
	ring->gap_bytes = 0;
}

size_t vm_ring_span(struct vm_ring *ring, const uint8_t **ret_bytes)
{
	BASE_LOCKED(&ring->lock);
	size_t to_end = 0;

	mark_end(ring);
	to_end = sizeof(ring->data) - ring->first;
	*ret_bytes = ring->data + ring->first;
	return ring->size_bytes < to_end ? ring->size_bytes : to_end;
}

void vm_ring_consume(struct vm_ring *ring, size_t size_bytes)
{
	BASE_LOCKED(&ring->lock);

	take_front(ring, size_bytes);
}

void vm_ring_discard(struct vm_ring *ring)
{
	BASE_LOCKED(&ring->lock);

	lose(ring, ring->size_bytes);
	take_front(ring, ring->size_bytes);
}

void vm_ring_counts(struct vm_ring *ring, uint64_t *ret_put_bytes, uint64_t *ret_dropped_bytes)
{
	BASE_LOCKED(&ring->lock);

	*ret_put_bytes = ring->put_bytes;
	*ret_dropped_bytes = ring->dropped_bytes;
}
