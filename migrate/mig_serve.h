/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A source's memory while the VM runs at the destination already: answers what is asked for at
 * once, and sends all else that the destination lacks, near the newest faults first, without being
 * in the way of the answers.  docs/migrate/postcopy.md, section 3.
 *
 * Its two connections are made again whenever one breaks, for as long as it serves.
 *
 * Threads: two of its own, one a connection; the calls on one thread, but for redial and counts.
 */
#ifndef MIGRATE_MIG_SERVE_H
#define MIGRATE_MIG_SERVE_H

#include "migrate/mig_link.h"

struct mig_serve;

struct mig_serve_options {
	const uint8_t *memory; /* borrowed */
	uint64_t page_count;
	/* A new connection to the destination, as the channel MIG_CHANNEL_URGENT or _REST; gives
	 * link and descriptor.  Each is asked for on one thread at a time.  May block for the
	 * timeout. */
	int (*dial)(void *context, uint16_t channel, struct mig_link **ret_link, int *ret_fd,
		    struct base_error *err);
	void *context;
	uint32_t retry_ms;     /* between attempts */
	struct mig_rate *rate; /* borrowed; holds for all that was not asked for; or NULL */
};

/* -ENOMEM, -EAGAIN no threads, what dial() gave: both connections are there when it returns 0. */
BASE_MUST_CHECK int mig_serve_new(const struct mig_serve_options *options,
				  struct mig_serve **ret_serve, struct base_error *err);
/* Memory stands still: what is asked for is answered from now on. */
void mig_serve_open(struct mig_serve *serve);
/* It runs there: all else goes, too. */
void mig_serve_go(struct mig_serve *serve);
/* Both connections are of no use: make them again.  Any thread. */
void mig_serve_redial(struct mig_serve *serve);
/* Nothing reads memory any more when it returns.  Again is fine. */
void mig_serve_stop(struct mig_serve *serve);
void mig_serve_free(struct mig_serve *serve); /* stops; NULL is fine */

struct mig_serve_counts {
	uint64_t asked_pages; /* sent because they were asked for */
	uint64_t rest_pages;
	uint64_t zero_pages; /* of both */
	uint64_t sent_bytes; /* of pages, with headers */
	uint64_t dials;      /* connections that were made again */
};
struct mig_serve_counts mig_serve_counts(const struct mig_serve *serve); /* any thread */

#endif
