/* SPDX-License-Identifier: Apache-2.0 */
/*
 * One VHDX image on the fake store with a loop that the test pumps, a byte model of what the
 * guest has to see, and random requests against both.  Everything follows from the seed.
 */
#ifndef TESTS_VHDX_RIG_H
#define TESTS_VHDX_RIG_H

#include "hypervisor/disk/fake_store.h"
#include "hypervisor/disk/vhdx_io_priv.h"

#define RIG_BLOCK     (1U << 20)
#define RIG_SECTOR    512U
#define RIG_MODEL_MAX (128ULL << 20) /* of a larger disk only the beginning is looked at */
#define RIG_SLOTS_MAX 32U
#define RIG_NAME      "disk.vhdx"
#define RIG_PARENT    "parent.vhdx"

struct rig_options {
	enum disk_kind kind;
	uint64_t size_bytes;
	uint64_t parent_bytes; /* of a differencing image */
	uint32_t block_bytes;  /* 0: RIG_BLOCK */
	uint32_t sector_bytes; /* 0: RIG_SECTOR */
	uint64_t model_bytes;  /* 0: RIG_MODEL_MAX */
};

struct rig {
	struct base_fake_clock fake_clock;
	struct base_clock clock;
	struct base_io_loop *loop;
	struct store *store;
	struct image *parent;
	struct image *image;
	uint8_t *model;      /* what the guest has to see */
	uint8_t *unsure;     /* per sector: a request that failed left either content */
	uint64_t size_bytes; /* of the disk, as far as the model goes */
	uint64_t model_bytes;
	uint32_t sector_bytes;
	uint64_t random;
	uint32_t failures; /* requests that failed */
	bool may_keep;     /* space of failed writes is not given back */
};

void rig_init(struct rig *rig, const struct rig_options *options);
void rig_fini(struct rig *rig);
/* Close the image (errors of deactivate are ignored after failures) and open it again. */
void rig_reopen(struct rig *rig);
struct vhdx *rig_vhdx(struct rig *rig);

/* Submit one request and pump until it is done; the model is not looked at. */
int rig_do(struct rig *rig, enum disk_op op, uint32_t flags, uint64_t offset_bytes, void *data,
	   uint64_t length_bytes);
/* The same, with the model kept and looked at. */
int rig_step(struct rig *rig, enum disk_op op, uint32_t flags, uint64_t offset_bytes,
	     uint64_t length_bytes);
/* MAP of the whole range, joined. Returns the count. */
uint32_t rig_map(struct rig *rig, uint32_t flags, uint64_t offset_bytes, uint64_t length_bytes,
		 struct disk_extent *extents, uint32_t capacity);
/* @count random requests, up to @depth at once. */
void rig_random(struct rig *rig, uint32_t count, uint32_t depth);
/* All of the disk against the model. */
void rig_verify(struct rig *rig);
/* Nothing is lost and nothing is used twice: the BAT against the space map. */
void rig_check_space(struct rig *rig);
uint64_t rig_rand(struct rig *rig, uint64_t below);
uint64_t rig_entry(struct rig *rig, uint64_t bat_index);
/* Changes a BAT entry in the file of a closed image. */
void rig_poke_entry(struct rig *rig, uint64_t bat_index, uint64_t entry);

#endif
