/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Guest page lists (GPADLs): what the guest gave us of its memory, as the bus keeps it.
 *
 * A list comes in a HEADER and any number of BODY messages as one run of bytes: ranges of
 * {u32 byte count, u32 byte offset, u64 page numbers...}.  It is kept in that form, also for
 * saving, and checked once when it is whole: from then on it is immutable and every page in it
 * is RAM for as long as the VM lives.
 *
 * References are counted on any thread.  The bus holds one until the guest wants the list back;
 * who drops the last one tells the bus (vmbus_gpadl_ops).
 *
 * Limits: a list has at most 65535 bytes (its length field), so 8190 pages.
 */
#ifndef HYPERVISOR_VMBUS_VMBUS_GPADL_H
#define HYPERVISOR_VMBUS_VMBUS_GPADL_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "base/error.h"
#include "base/io_loop.h"
#include "hypervisor/slat.h"
#include "hypervisor/vmbus/vmbus_channel.h"
#include "hypervisor/vmbus/vmbus_proto.h"

/* A network card's buffers come as one range each; nothing we know sends more than a few. */
#define VMBUS_GPADL_RANGES_MAX 64u

struct vmbus_gpadl_range {
	uint32_t start;  /* of the run of bytes */
	uint32_t bytes;  /* not 0 */
	uint32_t offset; /* of the first byte in the first page, < 4096 */
	const uint8_t *pfns;
	uint32_t page_count;
};

struct vmbus_gpadl {
	uint32_t id;
	uint32_t relid; /* the channel it was made for */
	struct hv_slat *slat;
	atomic_uint refs;
	/* Runs on the thread that drops the last reference. */
	void (*unused)(void *context, struct vmbus_gpadl *gpadl);
	void *context;

	uint8_t *list; /* owned: the bytes of the ranges */
	uint32_t list_bytes;
	uint32_t received_bytes;
	uint32_t range_count;
	bool whole;
	struct vmbus_gpadl_range *ranges; /* owned; when whole */
	uint32_t size_bytes;
	uint32_t page_count;

	/* The bus's. */
	bool usable;        /* bus->lock: whole, and devices may have it */
	bool tearing;       /* the guest wants it back */
	bool announce;      /* and is told when it has it */
	bool saved_tearing; /* of a saved state: the bus lets go of it at resume */
	struct vmbus_gpadl *next;
	struct base_io_task task; /* torn down: to the channel; unused: to the bus */
	struct vmbus_channel *torn_for;
};

/* -EINVAL the list's length or number of ranges is out of bounds; -ENOMEM. */
BASE_MUST_CHECK int vmbus_gpadl_new(struct hv_slat *slat, const struct vmbus_gpadl_header *header,
				    struct vmbus_gpadl **ret_gpadl);
void vmbus_gpadl_free(struct vmbus_gpadl *gpadl); /* whatever the count; NULL is fine */

/**
 * vmbus_gpadl_add - the next part of the list.
 * 1 it is whole and good; 0 more is missing; -EBADMSG malformed ranges; -EFAULT a page is not
 * RAM; -ENOMEM.  Bytes beyond the list's length are ignored.
 */
BASE_MUST_CHECK int vmbus_gpadl_add(struct vmbus_gpadl *gpadl, const uint8_t *part,
				    uint32_t part_bytes);

void vmbus_gpadl_hold(struct vmbus_gpadl *gpadl);
/* Pages that a list of that many bytes can have: what it counts for while it is not whole. */
uint32_t vmbus_gpadl_pages_of(uint32_t list_bytes);

/* The addresses of all its pages, for a ring: one range of whole pages.  -EINVAL otherwise. */
BASE_MUST_CHECK int vmbus_gpadl_page_gpas(const struct vmbus_gpadl *gpadl, uint64_t *ret_gpas,
					  uint32_t capacity);

#endif
