/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Hash trees, for the files that make them up: mig_verify.c (the tree and who hashes what),
 * mig_verify_hash.c (the hashes of what lies in memory and in images).
 */
#ifndef MIGRATE_MIG_VERIFY_PRIV_H
#define MIGRATE_MIG_VERIFY_PRIV_H

#include <stdatomic.h>

#include "migrate/mig_verify.h"

struct mig_verify_level {
	uint64_t count;
	struct mig_digest *nodes;
	uint64_t *stale; /* a bit a node: to be made anew; level 1 is made with its span's leaves */
};

struct mig_verify_tree {
	uint64_t unit_count;
	uint32_t units_per_leaf;
	uint32_t leaves_per_span;
	uint64_t first_span;  /* spans are numbered through all objects */
	uint32_t level_count; /* 0: no units; else 2 or more, the last with one node */
	struct mig_verify_level levels[MIG_VERIFY_LEVELS];
};

/* What a thread has for itself. */
struct mig_verify_lane {
	void *digest;    /* of libcrypto */
	uint8_t *buffer; /* of a span; NULL: there are no images */
	struct mig_map_cursor cursor;
	atomic_uint_fast64_t bytes;
	atomic_uint_fast64_t looked;
};

struct mig_verify {
	struct mig_verify_options options;
	uint32_t object_count;
	struct mig_verify_tree *trees;
	uint64_t span_count;
	struct mig_verify_lane lanes[MIG_CHANNELS_MAX];
	bool kept; /* the sweep has begun */

	/* The round under way. */
	bool paused;
	atomic_uint_fast64_t begin_ns; /* of hashing; 0: not yet */
	atomic_uint_fast64_t next_span;
	atomic_bool cancelled;
	atomic_uint_fast64_t running_ns;
	atomic_uint_fast64_t blackout_ns;
};

/* -ENOMEM, -ENOTSUP. */
int mig_verify_lane_new(struct mig_verify_lane *lane, bool has_images);
void mig_verify_lane_fini(struct mig_verify_lane *lane);

BASE_MUST_CHECK int mig_verify_hash_node(struct mig_verify_lane *lane,
					 const struct mig_digest *children, uint32_t count,
					 uint32_t level, struct mig_digest *ret_digest,
					 struct base_error *err);
/* The marked leaves of a span of the object, whose marks go. */
BASE_MUST_CHECK int mig_verify_hash_memory(struct mig_verify *verify, struct mig_verify_lane *lane,
					   uint64_t span, struct base_error *err);
BASE_MUST_CHECK int mig_verify_hash_image(struct mig_verify *verify, struct mig_verify_lane *lane,
					  uint16_t object, uint64_t span, struct base_error *err);

#endif
