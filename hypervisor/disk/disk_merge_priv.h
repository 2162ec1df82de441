/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A merge under way.  Lives on the stack of disk_merge().
 */
#ifndef HYPERVISOR_DISK_DISK_MERGE_PRIV_H
#define HYPERVISOR_DISK_DISK_MERGE_PRIV_H

#include "hypervisor/disk/disk_copy_priv.h"
#include "hypervisor/disk/disk_priv.h"

struct disk_merge {
	struct disk *disk;
	uint32_t index;
	struct image *parent;   /* open for writing; owned until in_chain */
	struct image *replaced; /* the handle that was in its place */
	struct image *layer;    /* owned once it is out of the chain */
	bool in_chain;
	bool mirrors;      /* the hook is set */
	bool past_return;  /* the layer is not part of the disk any more */
	int mirror_result; /* loop: the first failure of the mirror */
	disk_progress progress;
	void *progress_context;
};

#endif
