/* SPDX-License-Identifier: Apache-2.0 */
/*
 * One image on a fake store with a loop that the test pumps: for tests of formats.
 * Everything is deterministic.  Failures of the rig itself end the test.
 */
#ifndef TESTS_IMAGE_RIG_H
#define TESTS_IMAGE_RIG_H

#include "hypervisor/disk/fake_store.h"
#include "hypervisor/disk/image_priv.h"

#define IMAGE_RIG_DEPTH 8U /* requests in flight in image_rig_random() */

struct image_rig {
	struct base_io_loop *loop;
	struct store *store;
};

void image_rig_init(struct image_rig *rig);
void image_rig_fini(struct image_rig *rig); /* images are closed */

int image_rig_create(struct image_rig *rig, const struct image_ops *ops, const char *name,
		     const struct disk_create_options *options, struct image *parent,
		     struct base_error *err);
int image_rig_open(struct image_rig *rig, const struct image_ops *ops, const char *name,
		   struct image **ret_image, struct base_error *err);
/* Open and activate; it must work. */
struct image *image_rig_active(struct image_rig *rig, const struct image_ops *ops,
			       const char *name);
/* Deactivate and close; both must work. */
void image_rig_close(struct image *image);

/* One request, waited for.  Guest memory is @data, one iovec. */
int image_rig_do(struct image *image, enum disk_op op, uint32_t flags, uint64_t offset_bytes,
		 void *data, uint64_t length_bytes);
/* The runs of the whole disk or as many as fit. */
uint32_t image_rig_map(struct image *image, uint32_t flags, struct disk_extent *extents,
		       uint32_t capacity);
/* The same, and the result: it may fail. */
int image_rig_try_map(struct image *image, uint32_t flags, struct disk_extent *extents,
		      uint32_t capacity);
/* Is every byte of the range @value? */
bool image_rig_is(struct image *image, uint64_t offset_bytes, uint64_t length_bytes, uint8_t value);

/*
 * Random writes, zeros, unmaps, flushes and reads, IMAGE_RIG_DEPTH in flight, against a model with
 * one byte for each 512-byte sector (@model, geometry.size_bytes / 512 of them, as the disk is
 * now). Reads must agree with it; the first request that fails ends it and its result is returned
 * (the model then knows nothing of what was in flight).
 */
int image_rig_random(struct image *image, uint8_t *model, uint64_t seed, uint32_t count);
/* Does the whole disk read as @model says? */
bool image_rig_model_holds(struct image *image, const uint8_t *model);

#endif
