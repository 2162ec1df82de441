/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Which granules of a migration's images are to be carried, and the spans of 1 MiB that they are
 * taken by; numbered through all images.
 *
 * Threads: find and take any thread while nobody changes bits; the rest one at a time.
 */
#ifndef MIGRATE_MIG_GRANULES_H
#define MIGRATE_MIG_GRANULES_H

#include <stdatomic.h>
#include <stdbool.h>

#include "migrate/mig_wire.h"

#define MIG_GRANULE_BYTES   (64u << 10) /* what a bit stands for: what a guest writes at a time */
#define MIG_GRANULE_SECTORS (MIG_GRANULE_BYTES / MIG_SECTOR_BYTES)
#define MIG_NO_SPAN         UINT64_MAX

struct mig_granules {
	struct mig_granules_object {
		uint64_t sector_count;
		uint64_t first_word; /* of its bits; they begin with a word */
	} * objects;                 /* [object_count + 1]: the last one says where the bits end */
	uint32_t object_count;
	uint64_t *dirty;
};

/* @sector_counts: of objects 1 and up; [0] is not looked at.  -ENOMEM; fini is due all the same. */
BASE_MUST_CHECK int mig_granules_init(struct mig_granules *granules, const uint64_t *sector_counts,
				      uint32_t object_count);
void mig_granules_fini(struct mig_granules *granules); /* of a zeroed one is fine */

/* The bits of @object: a bit a granule. */
uint64_t *mig_granules_bits(const struct mig_granules *granules, uint16_t object);
uint64_t mig_granules_bytes(const struct mig_granules *granules); /* of all that are set */
void mig_granules_clear(struct mig_granules *granules);

uint64_t mig_granules_span_count(const struct mig_granules *granules);
/* How many spans stand for @object; the first of them. */
uint64_t mig_granules_spans_of(const struct mig_granules *granules, uint16_t object,
			       uint64_t *ret_first);
/* What is set of @span: bytes, and none any more. */
uint64_t mig_granules_span_bytes(const struct mig_granules *granules, uint64_t span);
void mig_granules_take_out(struct mig_granules *granules, uint64_t span);

/* The first span from @span on in which something is set; MIG_NO_SPAN. */
uint64_t mig_granules_find(const struct mig_granules *granules, uint64_t span);
/* One that no other thread has taken; @next: 0 when they begin. */
uint64_t mig_granules_take(const struct mig_granules *granules, atomic_uint_fast64_t *next);

struct mig_granules_span {
	uint16_t object;
	uint32_t bits;
	uint64_t first; /* sector */
	uint64_t limit; /* sectors of the object */
};
/* Where @span is.  @from: no object before that, at least 1. */
struct mig_granules_span mig_granules_span(const struct mig_granules *granules, uint64_t span,
					   uint16_t from);
/* The next run of granules that are set: sectors [*ret_first, *ret_end).  @granule: 0 at first. */
bool mig_granules_run(const struct mig_granules_span *span, uint32_t *granule, uint64_t *ret_first,
		      uint64_t *ret_end);

/* Where in [@first, @end) a run of granules ends that are all zero, or that all are not, from
 * @first on, whose bytes are @bytes. */
uint64_t mig_granules_alike(const uint8_t *bytes, uint64_t first, uint64_t end, bool *ret_zero);

#endif
