/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A running disk goes on in a copy of its chain, in another store: the end of a storage migration.
 * docs/migrate/disks.md, section 5.
 */
#ifndef HYPERVISOR_DISK_DISK_MOVE_H
#define HYPERVISOR_DISK_DISK_MOVE_H

#include "hypervisor/disk/disk.h"

struct disk_move_options {
	struct store *store;     /* borrowed; outlives the disk */
	const char *name;        /* of the new top image there */
	enum disk_format format; /* of it */
	/* The guest's requests are held and none is in flight: make the copy whole, under its name,
	 * and nobody's.  disk_do_held() looks at the old one. */
	int (*fill)(void *context, struct base_error *err);
	/* The copy can be written: record durably that the old top image is not the disk any more.
	 * The next write goes to the copy alone. */
	int (*commit)(void *context, struct base_error *err);
	void *context;
	uint64_t *held_ns; /* set: how long the guest's requests waited, at most; may be NULL */
};

/**
 * disk_move - go on in the copy.
 * The disk is active, at whose epoch the copy is activated, and watched (disk_watch_begin()), which
 * the caller ends in any case.  Blocking; the guest waits from before @fill to the end.
 * 0: the old chain is closed, and its files are the caller's.  Else nothing has changed: -EROFS not
 * active; -EINVAL the copy is of another size; what @fill, @commit and opening the copy gave.
 */
BASE_MUST_CHECK int disk_move(struct disk *disk, const struct disk_move_options *options,
			      struct base_error *err);

/* Blocking: READ or MAP of a disk that the caller has held; as disk_do_request(), of the images at
 * once.  Several threads may. */
BASE_MUST_CHECK int disk_do_held(struct disk *disk, struct disk_request *request,
				 struct base_error *err);

#endif
