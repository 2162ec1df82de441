/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A destination's memory, populated ahead of arrival: the source tells in its plan where there is
 * something to come, and a thread of the destination's touches that while the first pages are on
 * their way.  A hint, and only what it names is touched: a page that nobody touches stays a hole.
 * What is named may come as zeros, which need no page: it gets ahead only of what has come.
 *
 * Threads: start and stop one at a time, came() from any between the two; the rest are values.
 */
#ifndef AGENT_VM_MIGRATE_AHEAD_H
#define AGENT_VM_MIGRATE_AHEAD_H

#include <stdint.h>

#include "hypervisor/memory.h"

#define VM_TOUCHED_RUNS_MAX  64u
/* Touched at first; and for each byte that has come. */
#define VM_AHEAD_FIRST_BYTES (32ULL << 20)
#define VM_AHEAD_TIMES       8u

/* Guest memory in huge pages (HV_HUGE_PAGE_BYTES). */
struct vm_touched_run {
	uint64_t first;
	uint64_t count;
};
struct vm_touched {
	uint32_t count;
	struct vm_touched_run runs[VM_TOUCHED_RUNS_MAX];
};

/* Runs that have every page of @bits (bit i of word w: page 64 * w + i; @page_count of them) in
 * them, and as little else as so many runs allow. */
void vm_touched_of(const uint64_t *bits, uint64_t page_count, struct vm_touched *ret_touched);

struct vm_ahead;

/* @memory: borrowed until the stop; runs beyond its end are cut.  -ENOMEM, -EAGAIN no thread. */
BASE_MUST_CHECK int vm_ahead_start(struct hv_memory *memory, const struct vm_touched *touched,
				   struct vm_ahead **ret_ahead, struct base_error *err);
/* So many bytes, in all, have come that were not zeros. */
void vm_ahead_came(struct vm_ahead *ahead, uint64_t bytes);
/* Whether it has come to its end. */
bool vm_ahead_is_over(struct vm_ahead *ahead);
/* Ends it, wherever it is.  NULL is fine. */
void vm_ahead_stop(struct vm_ahead *ahead);

#endif
