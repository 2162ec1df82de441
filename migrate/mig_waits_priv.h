/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Who waits for which page since when, and how long they have waited: a small table, and counts by
 * length.  One thread at a time.
 */
#ifndef MIGRATE_MIG_WAITS_PRIV_H
#define MIGRATE_MIG_WAITS_PRIV_H

#include "migrate/mig_body_post.h"

#define MIG_WAITS_MAX    1024u /* more than there are threads; others wait for the rest */
#define MIG_WAIT_BUCKETS 512u  /* eight to each doubling */

struct mig_wait {
	uint64_t page;
	uint64_t since_ns;
	uint64_t asked_ns;
};

struct mig_waits {
	uint32_t count;
	struct mig_wait list[MIG_WAITS_MAX];
	uint64_t total;
	uint64_t longest_ns;
	uint64_t lengths[MIG_WAIT_BUCKETS];
};

/* False: somebody waits for it already, or there is no room. */
bool mig_waits_add(struct mig_waits *waits, uint64_t page, uint64_t now_ns);
/* The page is here.  Nobody may have waited. */
void mig_waits_end(struct mig_waits *waits, uint64_t page, uint64_t now_ns);
/* All of them are asked for now; @ret_pages: room for MIG_WAITS_MAX. */
uint32_t mig_waits_list(struct mig_waits *waits, uint64_t *ret_pages, uint64_t now_ns);
/* When the one was asked for that is asked for longest; far in the future: nobody waits. */
uint64_t mig_waits_oldest(const struct mig_waits *waits);
void mig_waits_tell(const struct mig_waits *waits, struct mig_complete *complete);

#endif
