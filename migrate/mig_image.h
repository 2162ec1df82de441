/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A source's rounds over images: granules that were written become chunks, behind memory's, on the
 * same channels.
 *
 * What was written is harvested before a round; then it is looked at, read and sent, and what
 * changes meanwhile is in the next harvest.  While the VM runs a span belongs to its channel; in
 * the last round channels take spans as they come to them.  docs/migrate/disks.md.
 *
 * Threads: as mig_copy.h, whose rounds call this.
 */
#ifndef MIGRATE_MIG_IMAGE_H
#define MIGRATE_MIG_IMAGE_H

#include <stdatomic.h>

#include "migrate/mig_granules.h"
#include "migrate/mig_intake.h"
#include "migrate/mig_link.h"
#include "migrate/mig_map.h"

/* Filled in by agent/; @object as in the plan, 1 and up. */
struct mig_image_ops {
	/* Add to @into, a bit a granule, what was written since the last harvest, which is
	 * forgotten before it returns; with @first instead whatever may be other than unmapped.
	 * On one thread. */
	int (*harvest)(void *context, uint16_t object, bool first, uint64_t *into,
		       struct base_error *err);
	/* On the channels' threads, several at a time. */
	int (*map)(void *context, uint16_t object, struct mig_map *map, struct base_error *err);
	int (*read)(void *context, uint16_t object, uint64_t sector, uint8_t *to, uint32_t count,
		    struct base_error *err);
};

struct mig_image;
struct mig_have;

struct mig_image_options {
	const struct mig_image_ops *ops; /* borrowed */
	void *context;
	const struct mig_object *objects; /* of the plan; the first, memory, is skipped */
	uint32_t object_count;
	uint32_t channel_count;
	bool bare; /* as of struct mig_copy_options */
};

struct mig_image_counts {
	uint64_t chunks;
	uint64_t block_bytes;
	uint64_t clear_bytes;
	uint64_t unmap_bytes;
};

/* -ENOMEM. */
BASE_MUST_CHECK int mig_image_new(const struct mig_image_options *options,
				  struct mig_image **ret_image, struct base_error *err);
void mig_image_free(struct mig_image *image); /* NULL is fine */

/**
 * mig_image_harvest - what the next round shall send; adds to what no round has sent yet.
 * Not during a round.  @ret_bytes: of all that is to be sent now, at most.  What the ops gave.
 */
BASE_MUST_CHECK int mig_image_harvest(struct mig_image *image, uint64_t *ret_bytes,
				      struct base_error *err);

/* Granules of @object that the next round sends, or the one under way: a bit each.  Not beside a
 * harvest. */
const uint64_t *mig_image_dirty(const struct mig_image *image, uint16_t object);

struct mig_image_counts mig_image_counts(const struct mig_image *image); /* any thread */

/* --- for mig_copy.c --- */

void mig_image_begin(struct mig_image *image, uint32_t round, bool last);
/* What @channel (1 and up) has to send in the round; ends early once *@stop.  What the ops and
 * mig_link_send() give. */
BASE_MUST_CHECK int mig_image_send(struct mig_image *image, uint32_t channel, struct mig_link *link,
				   const atomic_bool *stop, struct base_error *err);
/* As mig_copy_set_deadline(). */
void mig_image_set_deadline(struct mig_image *image, uint64_t deadline_ns);
/* The destination has confirmed the round. */
void mig_image_confirmed(struct mig_image *image);
/* As mig_copy_have(), for images. */
BASE_MUST_CHECK int mig_image_have(struct mig_image *image, const struct mig_have *have,
				   uint64_t *ret_spans, struct base_error *err);
uint64_t mig_image_again_bytes(const struct mig_image *image);

#endif
