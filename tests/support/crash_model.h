/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What a disk may hold after a power failure: for each 512-byte sector the operations that
 * changed it, in order, and from when on each of them was durable.
 *
 * Time is counted in events of the recording store.  After a crash at event k a sector holds
 * the value of the last operation that a flush (or FUA) had acknowledged by then, or of any
 * later one that had begun.  Sectors are stamped with their number and their operation, so bytes
 * that were never written there are recognised.
 *
 * Two operations on one sector are never in flight at once: the caller sees to that.
 */
#ifndef TESTS_CRASH_MODEL_H
#define TESTS_CRASH_MODEL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "hypervisor/disk/disk.h"

#define CRASH_SECTOR    512U
#define CRASH_AFTER     0xee         /* each byte of what is written after the power failure */
#define CRASH_NOW       UINT64_MAX   /* no crash: the last operation counts */
#define CRASH_BYTES_MAX (1ULL << 38) /* of a disk: there is a table of its chunks */
#define CRASH_CHUNK     2048U        /* sectors whose lists are made together */

struct crash_op {
	enum disk_op op;
	uint64_t offset_bytes; /* RESIZE: the new size */
	uint64_t length_bytes;
	uint64_t begin_count;   /* events when it was submitted */
	uint64_t durable_count; /* events when it was known to be durable; UINT64_MAX: never */
	uint64_t begin_tick;    /* order of submitting and ending among operations */
	uint64_t end_tick;      /* UINT64_MAX: not over */
	int result;
};

struct crash_list {
	uint32_t *ops;
	uint32_t count;
	uint32_t capacity;
};

struct crash_model {
	uint64_t seed;
	uint64_t tick;
	struct crash_op *ops;
	size_t op_count;
	size_t op_capacity;
	struct crash_list **chunks; /* NULL: nothing was ever done there */
	uint64_t *written; /* sectors that were ever written, ascending: see crash_model_sort() */
	size_t written_count;
};

void crash_model_init(struct crash_model *model, uint64_t seed);
void crash_model_fini(struct crash_model *model);

/* @op begins after @event_count events; UNMAP is trimmed to whole granules already.  Returns its
 * number. */
uint32_t crash_model_begin(struct crash_model *model, enum disk_op op, uint64_t offset_bytes,
			   uint64_t length_bytes, uint64_t event_count);
/* It ended.  @durable: with 0 it is so by itself (FUA). */
void crash_model_end(struct crash_model *model, uint32_t number, int result, bool durable,
		     uint64_t event_count);
/* Whether an operation in flight touches the range. */
bool crash_model_busy(const struct crash_model *model, uint64_t offset_bytes,
		      uint64_t length_bytes);
/* What operation @number writes to @sector. */
void crash_model_stamp(const struct crash_model *model, uint32_t number, uint64_t sector,
		       uint8_t to[CRASH_SECTOR]);
/* Build the list of written sectors. */
void crash_model_sort(struct crash_model *model);

/* Whether an operation ever wrote there; elsewhere CRASH_AFTER is allowed. */
bool crash_model_was_written(const struct crash_model *model, uint64_t sector);
/* Whether @sector may hold @data after a crash at @event_count; else what is wrong in @why. */
bool crash_model_allows(const struct crash_model *model, uint64_t sector, uint64_t event_count,
			const uint8_t data[CRASH_SECTOR], char *why, size_t why_bytes);
/* Whether the disk may have that size. */
bool crash_model_allows_size(const struct crash_model *model, uint64_t size_bytes,
			     uint64_t event_count);

#endif
