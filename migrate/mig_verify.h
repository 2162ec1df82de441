/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The hash trees of a verified move, one for each object, at one side: docs/migrate/verify.md.
 *
 * Nothing is kept before the sweep.  A round then marks the leaves of what it carries, and behind
 * its barriers several threads hash what is marked, each from what lies in memory or reads back
 * from an image.  What is all zero, or was never touched, has the digest of 16 zero bytes.
 *
 * Threads: marks from several at a time, between mig_verify_round() and the first
 * mig_verify_hash() of the round; mig_verify_hash() on one thread a lane, all at a time;
 * mig_verify_cancel() and mig_verify_counts() from any; the others on one, while nobody is inside.
 */
#ifndef MIGRATE_MIG_VERIFY_H
#define MIGRATE_MIG_VERIFY_H

#include "migrate/mig_image.h"
#include "migrate/mig_wire.h"

#define MIG_DIGEST_BYTES 16u
#define MIG_VERIFY_FANOUT                                                                          \
	256u                 /* children of a node, from level 2 on; of fewer bytes at level 1     \
			      */
#define MIG_VERIFY_LEVELS 8u /* of an object of MIG_OBJECT_BYTES_MAX, and one to spare */

struct mig_verify;

struct mig_digest {
	uint8_t bytes[MIG_DIGEST_BYTES];
};

struct mig_verify_options {
	const uint8_t *memory;            /* borrowed */
	const struct mig_object *objects; /* copied; the first is memory, which may have no pages */
	uint32_t object_count;            /* 1 to MIG_OBJECTS_MAX */
	uint32_t lane_count;              /* 1 to MIG_CHANNELS_MAX */
	/* Of images, as in struct mig_image_ops; NULL where there are none.  On lanes' threads. */
	int (*map)(void *context, uint16_t object, struct mig_map *map, struct base_error *err);
	int (*read)(void *context, uint16_t object, uint64_t sector, uint8_t *to, uint32_t count,
		    struct base_error *err);
	void *context;
};

struct mig_verify_counts {
	uint64_t bytes;       /* hashed: content and nodes */
	uint64_t looked;      /* rises whenever something was hashed or found to be zero */
	uint64_t running_ns;  /* of hashing while the VM ran, over all lanes */
	uint64_t blackout_ns; /* by the clock, while it was paused */
};

/* -ENOMEM; -ENOTSUP libcrypto has no SHA-256. */
BASE_MUST_CHECK int mig_verify_new(const struct mig_verify_options *options,
				   struct mig_verify **ret_verify, struct base_error *err);
void mig_verify_free(struct mig_verify *verify); /* NULL is fine */

/**
 * mig_verify_round - a round begins.
 * @sweep: from here on leaves are kept: all of every image is marked, and what else is marked.
 * @paused: the VM stands still: times count as the blackout's.
 */
void mig_verify_round(struct mig_verify *verify, bool sweep, bool paused);
/* Before the sweep marks are dropped.  @count units (pages, sectors) within the object. */
void mig_verify_mark(struct mig_verify *verify, uint16_t object, uint64_t first, uint64_t count);
/* Leaves @word * 64 and up of @object: those of @bits; none beyond the last. */
void mig_verify_mark_word(struct mig_verify *verify, uint16_t object, uint64_t word, uint64_t bits);
/* All of an object's: a bit a leaf, in as many words as that needs. */
void mig_verify_mark_bits(struct mig_verify *verify, uint16_t object, const uint64_t *bits);

/**
 * mig_verify_hash - what is marked, together with the other lanes; @lane from 0.
 * 0 when nothing is left to be begun.  -ECANCELED; what map and read give; -EIO libcrypto.
 */
BASE_MUST_CHECK int mig_verify_hash(struct mig_verify *verify, uint32_t lane,
				    struct base_error *err);
/* After all lanes: nodes above those that changed.  -EIO libcrypto. */
BASE_MUST_CHECK int mig_verify_settle(struct mig_verify *verify, struct base_error *err);
/* Whoever hashes comes out, now and later. */
void mig_verify_cancel(struct mig_verify *verify);
/* Nobody is inside: it may be hashed again, from a sweep on. */
void mig_verify_restart(struct mig_verify *verify);
struct mig_verify_counts mig_verify_counts(const struct mig_verify *verify);

/* --- the tree: settled --- */

uint32_t mig_verify_object_count(const struct mig_verify *verify);
/* Level of the root; leaves are level 0.  An object without units: 0, and no nodes. */
uint32_t mig_verify_top(const struct mig_verify *verify, uint16_t object);
uint64_t mig_verify_node_count(const struct mig_verify *verify, uint16_t object, uint32_t level);
/* Of an object without units: zero. */
struct mig_digest mig_verify_root(const struct mig_verify *verify, uint16_t object);
/* Children of node @index of @level (1 and up): their first, and their digests. */
const struct mig_digest *mig_verify_children(const struct mig_verify *verify, uint16_t object,
					     uint32_t level, uint64_t index, uint64_t *ret_first,
					     uint32_t *ret_count);
/* First unit (page, sector) that a node of @level stands for. */
uint64_t mig_verify_unit(const struct mig_verify *verify, uint16_t object, uint32_t level,
			 uint64_t index);

#endif
