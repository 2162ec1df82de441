/* SPDX-License-Identifier: Apache-2.0 */
/* For the files that disks in a migration are made of; above all the destination's images:
 * vm_migrate_disk_in.c (making, filling, finishing), vm_migrate_disk_look.c (objections). */
#ifndef AGENT_VM_MIGRATE_DISK_PRIV_H
#define AGENT_VM_MIGRATE_DISK_PRIV_H

#include <stdatomic.h>

#include "agent/vm_migrate_disk.h"

struct incoming {
	struct vm_image is;
	char name[STORE_NAME_BYTES]; /* in the store */
	char part[STORE_NAME_BYTES]; /* until it is whole */
	bool there;        /* a file that the folder has already: what comes is not needed */
	bool made;         /* under @part */
	bool named;        /* and now under @name */
	struct disk *disk; /* active, alone; of what is there, of a verified move: standby, the file
			    * as it is; NULL: closed */
	_Atomic uint64_t written_bytes;
	uint64_t word_count;
	_Atomic uint64_t
		*unmapped; /* a bit a span: all of it was unmapped, and nothing came since */
};

struct vm_migrate_in {
	struct store *store;
	char *folder; /* "", or with a slash at its end */
	struct base_io_loop *loop;
	uint32_t count;
	struct incoming *images; /* of object 1 and up */
	bool keep;
	bool verified; /* what is there is read as well */
};

/* Blocking, of several threads at a time: each waits for its own request alone, which on the loop's
 * own condition would wake them all. */
BASE_MUST_CHECK int vm_migrate_do(struct disk *disk, struct disk_request *request,
				  struct base_error *err);

/* Sectors of @disk; @held: past what waits at it (disk_move()).  Likewise. */
BASE_MUST_CHECK int vm_migrate_read(struct disk *disk, bool held, uint64_t sector, uint8_t *to,
				    uint32_t count, struct base_error *err);

/* To read a file that has its final name; @alone: without its parents. */
BASE_MUST_CHECK int vm_migrate_in_open(const struct vm_migrate_in *in, const struct incoming *image,
				       bool alone, struct disk **ret_disk, struct base_error *err);

/* @extents, as runs. */
void vm_migrate_runs(const struct disk_extent *extents, uint32_t count, struct mig_map *map);

/* Fill in what each image is and is called, and object to what cannot be.  Not 0: it cannot be
 * looked at. */
BASE_MUST_CHECK int vm_migrate_in_look(struct vm_migrate_in *in, const struct mig_plan *plan,
				       struct mig_findings *findings, struct base_error *err);

#endif
