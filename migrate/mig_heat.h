/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Where a guest writes, found out before its memory is sent: a page in 64 is forgotten by the dirty
 * log at the start, and a span is hot once one of its pages is in the log again.  Costs the guest a
 * fault for each of these pages that it writes to, and whoever asks a look into the log now and
 * then.
 *
 * A hint for an order: whatever it says, nothing is lost.  docs/migrate/protocol.md, section 5.
 *
 * Threads: new, begin and free one at a time; asking any thread.
 */
#ifndef MIGRATE_MIG_HEAT_H
#define MIGRATE_MIG_HEAT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/error.h"

/* The log of what a VM writes.  Bitmaps: bit i of word w is page 64 * w + i. */
struct mig_dirty_ops {
	/* Pages written and not forgotten since the log began, which has all of them then.
	 * Overwritten; nothing is forgotten.  One at a time; beside a clear it names that one's
	 * pages or does not. */
	int (*get)(void *context, uint64_t *into, struct base_error *err);
	/* Forget @bits, of @page_count pages from @first_page on (whole words, or up to the last
	 * page), which are read afterwards: what is written then is in the log again.  Any thread.
	 */
	int (*clear)(void *context, uint64_t first_page, uint64_t page_count, const uint64_t *bits,
		     struct base_error *err);
};

struct mig_heat;

/* @log: borrowed.  -ENOMEM. */
BASE_MUST_CHECK int mig_heat_new(const struct mig_dirty_ops *log, void *log_context,
				 uint64_t page_count, struct mig_heat **ret_heat,
				 struct base_error *err);
void mig_heat_free(struct mig_heat *heat); /* NULL is fine */

/**
 * mig_heat_begin - nothing is hot; the pages that tell are forgotten.
 * @dirty: the pages that are going to be sent, no others are forgotten; borrowed while it is asked.
 * What the log gives.
 */
BASE_MUST_CHECK int mig_heat_begin(struct mig_heat *heat, const uint64_t *dirty,
				   struct base_error *err);
/* Whether the guest has written to @span (of MIG_SPAN_BYTES) since the beginning, as far as is
 * known. */
bool mig_heat_is_hot(struct mig_heat *heat, uint64_t span);

/**
 * mig_heat_leave - leave pages that are hot round after round to the pause, if they fit into it.
 * @next: to be sent; what is left out goes.  @sent: in the round before.  @log: what the log has
 * now, a part of @next; overwritten.  @room: pages that may be left.
 * What is left stays in the log and writable, at no cost to the guest.  Pure.
 */
void mig_heat_leave(uint64_t *next, const uint64_t *sent, uint64_t *log, size_t words,
		    uint64_t room);

/* A step that comes to each of @count places once, and to distant ones one after another; from 1.
 */
uint64_t mig_heat_stride(uint64_t count);

#endif
