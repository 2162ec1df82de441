/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Bytes from many writers that may not wait to one reader that may be slow.
 *
 * What does not fit is counted, and the place where it is missing is marked in the
 * stream: "\n[godwit: 123 bytes of console output lost]\n".  Either the newest
 * bytes are refused (a reader is at work) or the oldest make room (nobody reads).
 * vm_ring_put() on any thread; the rest on the reader's.  The lock is a leaf.
 */
#ifndef AGENT_VM_RING_H
#define AGENT_VM_RING_H

#include <pthread.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "agent/agent_limits.h"

#define VM_RING_MARK_BYTES_MAX 80

struct vm_ring {
	pthread_mutex_t lock;
	bool keep_newest;       /* make room by dropping the oldest */
	size_t first;           /* index of the oldest byte */
	size_t size_bytes;      /* bytes waiting */
	uint64_t gap_bytes;     /* lost since the last mark */
	uint64_t put_bytes;     /* offered in all */
	uint64_t dropped_bytes; /* lost in all */
	uint8_t data[VM_CONSOLE_RING_BYTES];
};

void vm_ring_init(struct vm_ring *ring);
void vm_ring_fini(struct vm_ring *ring);

/* Any thread.  True when the ring was empty before: the reader wants to be woken. */
bool vm_ring_put(struct vm_ring *ring, const uint8_t *bytes, size_t size_bytes);

/* Choose who loses; no span may be out. */
void vm_ring_keep_newest(struct vm_ring *ring, bool keep_newest);

/**
 * vm_ring_span - the next bytes, in one piece.
 * @ret_bytes: into the ring; stays valid until vm_ring_consume(), as long as the newest
 * lose.  Return: their count, 0 when the ring is empty.
 */
size_t vm_ring_span(struct vm_ring *ring, const uint8_t **ret_bytes);
void vm_ring_consume(struct vm_ring *ring, size_t size_bytes);
/* Lose all that waits: the sink does not take it. */
void vm_ring_discard(struct vm_ring *ring);

/* Bytes offered and bytes lost, in all. */
void vm_ring_counts(struct vm_ring *ring, uint64_t *ret_put_bytes, uint64_t *ret_dropped_bytes);

#endif
