/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Finding the log's active sequence in a copy of the log region; no I/O.
 *
 * Source: [MS-VHDX] v4.0 section 2.3.2.  A sequence is a run of entries with consecutive numbers,
 * each where the one before it ends (the region is a ring); it is valid when the entry that its
 * last one names as the tail is part of it.  The active one is the valid one with the greatest
 * number.  Replay applies the entries from that tail to the last.
 *
 * The bytes are hostile: the work is linear in the size of the log, whatever it holds.
 */
#ifndef HYPERVISOR_DISK_VHDX_LOG_SCAN_H
#define HYPERVISOR_DISK_VHDX_LOG_SCAN_H

#include "hypervisor/disk/vhdx_format.h"

struct vhdx_log_slot; /* what begins at one sector of the log */

struct vhdx_log_scan {
	const uint8_t *log; /* the region; borrowed */
	uint32_t log_bytes;
	uint64_t log_offset;
	struct disk_guid id;
	struct vhdx_log_slot *slots; /* one for each sector; owned */
	uint8_t *joined;             /* an entry that wraps around, in one piece; owned */
	uint32_t tail_slot;          /* of the active sequence */
	uint32_t entry_count;        /* in it, from the tail on */
	struct vhdx_log_entry head;  /* its last entry */
};

/* -EBADMSG no valid sequence, or two that cannot be told apart; -ENOMEM.  fini() in any case. */
BASE_MUST_CHECK int vhdx_log_scan_run(struct vhdx_log_scan *scan, struct base_error *err);
void vhdx_log_scan_fini(struct vhdx_log_scan *scan);

/* Walk the active sequence: @*slot is scan->tail_slot at first and moved on by each call.  The
 * entry's bytes in one piece, good until the next call. */
const uint8_t *vhdx_log_scan_next(struct vhdx_log_scan *scan, uint32_t *slot,
				  struct vhdx_log_entry *ret_entry);

#endif
