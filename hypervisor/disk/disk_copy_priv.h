/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The copying job beneath disk_copy(): between disks or images.  docs/hypervisor/disk/disk.md.
 */
#ifndef HYPERVISOR_DISK_DISK_COPY_PRIV_H
#define HYPERVISOR_DISK_DISK_COPY_PRIV_H

#include "hypervisor/disk/disk_copy.h"

/* Where requests go. @submit may end them within the call. */
struct disk_copy_port {
	void (*submit)(void *context, struct disk_request *request);
	void *context;
	const char *name; /* for texts */
};

struct disk_copy_plan {
	struct base_io_loop *loop;
	struct disk_copy_port from;
	struct disk_copy_port to;
	uint64_t size_bytes;  /* of what is copied */
	uint32_t align_bytes; /* the target's sectors: pieces are multiples, the last one padded */
	uint32_t map_flags;   /* DISK_THIS_LAYER: what shows the parent is left out */
	struct disk *locks;   /* lock each piece there; NULL: the source does not change */
	uint32_t chunk_bytes;
	uint32_t depth;
	bool detect_zeroes;
	bool fresh;
	disk_progress progress;
	void *context;
};
BASE_MUST_CHECK int disk_copy_run(const struct disk_copy_plan *plan, struct base_error *err);

#endif
