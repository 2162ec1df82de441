/* SPDX-License-Identifier: Apache-2.0 */
/*
 * How much may be under way of a stream that shall be in nobody's way: so much as the network
 * carries without a queue.  What was sent is answered; an answer that takes longer than the way
 * does stood in a queue, which was made by this stream.  docs/migrate/postcopy.md, section 3.
 *
 * Threads: values.
 */
#ifndef MIGRATE_MIG_YIELD_H
#define MIGRATE_MIG_YIELD_H

#include <stdbool.h>
#include <stdint.h>

#define MIG_YIELD_MESSAGES  256u /* under way at most */
#define MIG_YIELD_BYTES_MIN (128u << 10)
#define MIG_YIELD_BYTES_MAX (16u << 20)
#define MIG_YIELD_SLACK_NS  1000000u

struct mig_yield {
	uint64_t window_bytes;
	uint64_t way_bytes; /* under way */
	uint64_t least_ns;  /* the shortest answer; 0: none yet */
	uint32_t first, count;
	struct {
		uint64_t sent_ns;
		uint32_t bytes;
	} list[MIG_YIELD_MESSAGES];
};

void mig_yield_begin(struct mig_yield *yield);
/* Whether @bytes may go now; always where nothing is under way. */
bool mig_yield_may(const struct mig_yield *yield, uint32_t bytes);
void mig_yield_sent(struct mig_yield *yield, uint64_t now_ns, uint32_t bytes);
/* The oldest is answered.  False: there was none. */
bool mig_yield_got(struct mig_yield *yield, uint64_t now_ns);

#endif
