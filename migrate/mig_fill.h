/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A destination's memory while pages of it are still at the source: asks for those that somebody
 * waits for, and puts each that comes into its place, once.  docs/migrate/postcopy.md.
 *
 * A page is missing, being placed by who has changed its bit, or here; so what comes twice is
 * dropped, as the guest may have written to it since.
 *
 * Threads: one of its own for the faults; mig_fill_lane() on a thread of the caller's for each
 * connection, at most one of each kind at a time; counts, abort and ask from any.  No callback
 * runs under a lock.
 */
#ifndef MIGRATE_MIG_FILL_H
#define MIGRATE_MIG_FILL_H

#include "migrate/mig_body_post.h"
#include "migrate/mig_faults.h"
#include "migrate/mig_link.h"

struct mig_fill;

struct mig_fill_options {
	struct mig_faults_place place; /* what it borrows outlives the fill */
	const _Atomic uint64_t *owed;  /* copied */
	uint32_t timeout_ms;           /* an answer that is later: the connection is of no use */
	/* The last page is here, and nothing waits any more.  The fill's own thread; once. */
	void (*done)(void *context);
	void *context;
};

/* From here on pages are waited for.  -ENOMEM, -EAGAIN no threads, errors of mig_faults_new(). */
BASE_MUST_CHECK int mig_fill_new(const struct mig_fill_options *options, struct mig_fill **ret_fill,
				 struct base_error *err);
/* No lane is inside.  NULL is fine. */
void mig_fill_free(struct mig_fill *fill);

/**
 * mig_fill_lane - work on @link, until it fails.
 * @urgent: pages that were asked for come on it; else all others do.
 * What the link gave; -EBADMSG, -EPROTO what came cannot be, and nothing of it was placed.
 */
int mig_fill_lane(struct mig_fill *fill, struct mig_link *link, bool urgent,
		  struct base_error *err);

/* Nothing that is here will run: whoever waits goes on, with whatever is there. */
void mig_fill_abort(struct mig_fill *fill);
bool mig_fill_is_aborted(const struct mig_fill *fill);

/* What it has come to; epoch and fill_ns are the caller's. */
struct mig_complete mig_fill_counts(struct mig_fill *fill);
uint64_t mig_fill_left(const struct mig_fill *fill); /* pages that are missing */

#endif
