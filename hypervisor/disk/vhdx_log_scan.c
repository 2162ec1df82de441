/* SPDX-License-Identifier: Apache-2.0 */
#include "hypervisor/disk/vhdx_log_scan.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#define SECTOR      VHDX_LOG_SECTOR_BYTES
/* Entries that a writer made overlap at most once, where the ring's head is; bytes looked at
 * beyond this many times the log are somebody's attempt to keep us busy. */
#define WORK_FACTOR 4U
#define UNKNOWN     UINT32_MAX

struct vhdx_log_slot {
	struct vhdx_log_entry entry;
	bool valid;
	uint32_t end; /* slot of the last entry of the run that this one is in */
};

static uint32_t slot_count(const struct vhdx_log_scan *scan)
{
	return scan->log_bytes / SECTOR;
}

static uint32_t slot_after(const struct vhdx_log_scan *scan, uint32_t slot)
{
	uint64_t next = (uint64_t)slot + scan->slots[slot].entry.entry_bytes / SECTOR;

	return (uint32_t)(next % slot_count(scan));
}

/* @entry_bytes from @slot on in one piece. */
static const uint8_t *entry_bytes_at(struct vhdx_log_scan *scan, uint32_t slot,
				     uint32_t entry_bytes)
{
	uint32_t offset = slot * SECTOR;
	uint32_t first = scan->log_bytes - offset;

	if (entry_bytes <= first)
		return scan->log + offset;
	memcpy(scan->joined, scan->log + offset, first);
	memcpy(scan->joined + first, scan->log, entry_bytes - first);
	return scan->joined;
}

static int slots_fill(struct vhdx_log_scan *scan, struct base_error *err)
{
	const struct vhdx_log_region region = { .id = scan->id,
						.log_bytes = scan->log_bytes,
						.log_offset = scan->log_offset };
	uint64_t budget = (uint64_t)WORK_FACTOR * scan->log_bytes;
	uint32_t slot = 0;

	while (slot < slot_count(scan)) {
		struct vhdx_log_slot *at = &scan->slots[slot];
		struct vhdx_log_entry entry;

		at->end = UNKNOWN;
		if (vhdx_log_entry_peek(scan->log + (size_t)slot * SECTOR, &scan->id,
					scan->log_bytes, &entry, NULL) < 0) {
			slot++;
			continue;
		}
		if (entry.entry_bytes > budget)
			return base_fail(
				err, -EBADMSG,
				"VHDX log at 0x%" PRIx64
				": entries overlap again and again, the last at +0x%" PRIx32
				", %" PRIu32 " bytes",
				scan->log_offset, slot * SECTOR, entry.entry_bytes);
		budget -= entry.entry_bytes;
		at->valid =
			vhdx_log_entry_decode(entry_bytes_at(scan, slot, entry.entry_bytes),
					      entry.entry_bytes, &region, &at->entry, NULL) == 0;
		/* What is inside a whole entry is that entry's. */
		slot += at->valid ? entry.entry_bytes / SECTOR : 1;
	}
	return 0;
}

/* Whether the run goes on behind @slot; numbers only grow, so that no walk goes in circles. */
static bool goes_on(const struct vhdx_log_scan *scan, uint32_t slot)
{
	const struct vhdx_log_slot *next = &scan->slots[slot_after(scan, slot)];

	return next->valid && scan->slots[slot].entry.sequence != UINT64_MAX &&
	       next->entry.sequence == scan->slots[slot].entry.sequence + 1;
}

/* Every slot learns its run's end; each is stepped over twice at most. */
static void ends_fill(struct vhdx_log_scan *scan)
{
	for (uint32_t slot = 0; slot < slot_count(scan); slot++) {
		uint32_t at = slot;
		uint32_t end;

		if (!scan->slots[slot].valid)
			continue;
		while (scan->slots[at].end == UNKNOWN && goes_on(scan, at))
			at = slot_after(scan, at);
		end = scan->slots[at].end == UNKNOWN ? at : scan->slots[at].end;
		for (at = slot; scan->slots[at].end == UNKNOWN; at = slot_after(scan, at)) {
			scan->slots[at].end = end;
			if (at == end)
				break;
		}
	}
}

/* The run that ends at @head holds its tail, and does not lap itself: *ret_count entries. */
static bool run_is_valid(const struct vhdx_log_scan *scan, uint32_t head, uint32_t *ret_count)
{
	uint32_t tail = scan->slots[head].entry.tail_bytes / SECTOR;
	uint64_t bytes = scan->slots[head].entry.entry_bytes;
	uint32_t count = 1;

	if (!scan->slots[tail].valid || scan->slots[tail].end != head)
		return false;
	for (uint32_t at = tail; at != head; at = slot_after(scan, at)) {
		bytes += scan->slots[at].entry.entry_bytes;
		if (bytes > scan->log_bytes)
			return false;
		count++;
	}
	*ret_count = count;
	return true;
}

static int active_find(struct vhdx_log_scan *scan, struct base_error *err)
{
	uint32_t best = UNKNOWN;
	bool twice = false;

	for (uint32_t slot = 0; slot < slot_count(scan); slot++) {
		const struct vhdx_log_slot *at = &scan->slots[slot];
		uint32_t count = 0;

		if (!at->valid || at->end != slot || !run_is_valid(scan, slot, &count))
			continue;
		if (best != UNKNOWN && at->entry.sequence < scan->head.sequence)
			continue;
		twice = best != UNKNOWN && at->entry.sequence == scan->head.sequence;
		best = slot;
		scan->head = at->entry;
		scan->entry_count = count;
		scan->tail_slot = at->entry.tail_bytes / SECTOR;
	}
	if (best == UNKNOWN)
		return base_fail(
			err, -EBADMSG,
			"VHDX log at 0x%" PRIx64 ", %" PRIu32
			" bytes: the header says it is in use, but it holds no valid sequence "
			"of entries",
			scan->log_offset, scan->log_bytes);
	if (twice)
		return base_fail(err, -EBADMSG,
				 "VHDX log at 0x%" PRIx64
				 ": two sequences of entries end with number %" PRIu64,
				 scan->log_offset, scan->head.sequence);
	return 0;
}

int vhdx_log_scan_run(struct vhdx_log_scan *scan, struct base_error *err)
{
	int code;

	scan->slots = calloc(slot_count(scan), sizeof(*scan->slots));
	scan->joined = malloc(scan->log_bytes);
	if (scan->slots == NULL || scan->joined == NULL)
		return base_fail(err, -ENOMEM, "VHDX log of %" PRIu32 " bytes", scan->log_bytes);
	code = slots_fill(scan, err);
	if (code < 0)
		return code;
	ends_fill(scan);
	return active_find(scan, err);
}

void vhdx_log_scan_fini(struct vhdx_log_scan *scan)
{
	free(scan->slots);
	free(scan->joined);
	scan->slots = NULL;
	scan->joined = NULL;
}

const uint8_t *vhdx_log_scan_next(struct vhdx_log_scan *scan, uint32_t *slot,
				  struct vhdx_log_entry *ret_entry)
{
	const uint8_t *bytes = entry_bytes_at(scan, *slot, scan->slots[*slot].entry.entry_bytes);

	*ret_entry = scan->slots[*slot].entry;
	*slot = slot_after(scan, *slot);
	return bytes;
}
