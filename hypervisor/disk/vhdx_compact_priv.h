/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A compaction under way: on its caller's thread, which waits for what it asks of the loop.
 */
#ifndef HYPERVISOR_DISK_VHDX_COMPACT_PRIV_H
#define HYPERVISOR_DISK_VHDX_COMPACT_PRIV_H

#include "hypervisor/disk/vhdx_io_priv.h"

struct vhdx_move {
	uint64_t offset_bytes; /* of the block in the file, when it was looked for */
	uint64_t block;
};

struct vhdx_compact {
	struct vhdx *vhdx;
	disk_progress progress;
	void *context;
	uint64_t done_bytes;
	uint64_t told_bytes;
	uint64_t total_bytes; /* twice the disk: looking for zeros, moving */
	/* What runs on the loop, and waiting for it. */
	int (*attempt)(struct vhdx_compact *compact);
	struct vhdx_waiter waiter;
	bool waited;
	int waited_result;
	int result;
	bool committed;
	bool holding; /* requests are held back */
	/* The block at hand. */
	uint64_t block;
	uint64_t entry;
	uint64_t new_entry;
	uint64_t to_offset;
	struct vhdx_block_lock lock;
	bool granted;
	uint8_t *buffer;
	/* What is to be moved. */
	struct vhdx_move *moves;
	uint32_t move_count;
	uint64_t next;  /* block or chunk to look at */
	uint64_t moved; /* in this pass */
};

/* Run @attempt on the loop until it returns something but -EINPROGRESS; what it waits for runs
 * compact->waiter. */
int vhdx_compact_do(struct vhdx_compact *compact, int (*attempt)(struct vhdx_compact *compact));
int vhdx_compact_touch(struct vhdx_compact *compact); /* an attempt */
int vhdx_compact_commit(struct vhdx_compact *compact);
/* Attempts: hold requests back, with none in flight; and let them go on. */
int vhdx_compact_hold(struct vhdx_compact *compact);
int vhdx_compact_unhold(struct vhdx_compact *compact);
/* vhdx_compact_bitmap.c: move sector bitmaps down where there is room. */
int vhdx_compact_bitmaps(struct vhdx_compact *compact, struct base_error *err);
/* vhdx_compact_cut.c: commit, and as far as a busy guest lets us make free what was released. */
int vhdx_compact_settle(struct vhdx_compact *compact);
/* Cut off what lies behind the last used MiB. */
int vhdx_compact_cut(struct vhdx_compact *compact, struct base_error *err);

#endif
