/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A source's rounds over memory: dirty pages become chunks on all data channels at once.
 *
 * The caller looks into the dirty log, and sends what it named; while the VM runs a page is
 * forgotten by the log right before it is read, span by span, so that what changes afterwards is in
 * the log again, and nothing is write-protected for longer than it has to be.  While the VM runs
 * each span has its channel; in the last round channels take spans as they come to them, so that
 * none waits.  Pages that were never touched are not in the first round at all: the destination's
 * memory is zero.  What the guest is writing to goes last in it (mig_heat.h).
 * docs/migrate/protocol.md, sections 4 and 5.
 *
 * Threads: one; a round runs on the pool's as well, one a channel.
 */
#ifndef MIGRATE_MIG_COPY_H
#define MIGRATE_MIG_COPY_H

#include "base/pool.h"
#include "migrate/mig_heat.h"
#include "migrate/mig_image.h"
#include "migrate/mig_intake.h"
#include "migrate/mig_link.h"
#include "migrate/mig_squeeze.h"

struct mig_copy;
struct mig_have;

struct mig_copy_options {
	const uint8_t *memory; /* borrowed */
	uint64_t page_count;
	struct mig_link *const *links; /* of the data channels, in their order; copied */
	uint32_t channel_count;
	struct base_pool
		*pool; /* borrowed; idle during a round, channel_count - 1 threads or more */
	enum mig_compress compress; /* other than never: the destination has MIG_CAN_LZ4 */
	struct mig_image *images;   /* borrowed; sent behind memory in each round; NULL: none */
	const struct mig_dirty_ops *log; /* borrowed; NULL: nothing is logged */
	void *log_context;
	bool bare; /* what arrives is what was sent, by other means: pages have no checksums */
};

struct mig_copy_counts {
	uint64_t chunks;     /* those of images too */
	uint64_t page_count; /* other than zero, compressed ones too */
	uint64_t zero_pages;
	uint64_t lz4_pages;
	uint64_t lz4_bytes; /* what they became */
};

/* -ENOMEM. */
BASE_MUST_CHECK int mig_copy_new(const struct mig_copy_options *options, struct mig_copy **ret_copy,
				 struct base_error *err);
void mig_copy_free(struct mig_copy *copy);

/**
 * mig_copy_round - send the pages of @dirty, and a barrier on each channel.
 * @dirty: a bit a page, bit i of word w is page 64 * w + i; none beyond the last page.
 * @last: the VM is paused.
 * What mig_link_send() and the log give; then the other channels come to an end at their next
 * chunk.
 */
BASE_MUST_CHECK int mig_copy_round(struct mig_copy *copy, const uint64_t *dirty, uint32_t number,
				   bool last, struct base_error *err);

/* Rounds that follow end with what was sent by then, and with their barriers; 0: with all. */
void mig_copy_set_deadline(struct mig_copy *copy, uint64_t deadline_ns);

/* The destination has confirmed the round: nothing of it is sent again. */
void mig_copy_confirmed(struct mig_copy *copy);

/**
 * mig_copy_have - after a cut, of a round that was not confirmed: what had come before it.
 * Takes out of @dirty, that round's, and out of what the images shall send, all spans of @have
 * that were sent in this round and have come as a whole; gives their number.
 * -EBADMSG: spans that the object does not have.  While no round is under way.
 */
BASE_MUST_CHECK int mig_copy_have(struct mig_copy *copy, const struct mig_have *have,
				  uint64_t *dirty, uint64_t *ret_spans, struct base_error *err);
/* After that: bytes of memory and images that the round had sent, and that have to go again. */
uint64_t mig_copy_again_bytes(const struct mig_copy *copy, const uint64_t *dirty);
/* Other connections for the same channels.  While no round is under way. */
void mig_copy_relink(struct mig_copy *copy, struct mig_link *const *links);

/**
 * mig_copy_forgive - what the destination reported, against a look into the log after the report.
 * Each chunk has to have a page in @harvest; then all of it is put into @harvest.  -EBADMSG: a
 * chunk that nobody wrote to, or that is not of memory: bytes were damaged on their way.
 */
BASE_MUST_CHECK int mig_copy_forgive(const struct mig_copy *copy,
				     const struct mig_failure *failures, uint32_t count,
				     uint64_t *harvest, struct base_error *err);

struct mig_copy_counts mig_copy_counts(const struct mig_copy *copy); /* any thread */

#endif
