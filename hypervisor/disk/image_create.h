/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Making an image file so that it is there whole and durable, or not at all: it is written
 * under a temporary name in the same folder (".<name>.part"), flushed, renamed, and the folder is
 * synced.  What a crash leaves behind is the temporary file, which the next attempt removes.
 *
 * Blocking; one thread; a value on its caller's stack between begin and commit or abort.
 */
#ifndef HYPERVISOR_DISK_IMAGE_CREATE_H
#define HYPERVISOR_DISK_IMAGE_CREATE_H

#include "hypervisor/disk/store.h"

struct image_create {
	struct store *store;     /* borrowed */
	struct store_file *file; /* the temporary file, acquired: write here; NULL when over */
	const char *name;        /* borrowed */
	char part[STORE_NAME_BYTES];
};

/**
 * image_create_begin - open and acquire the temporary file of @name.
 * -EEXIST @name is there; -EBUSY somebody else is making it now; -ENAMETOOLONG; as store_open()
 * and store_acquire().
 */
BASE_MUST_CHECK int image_create_begin(struct store *store, const char *name,
				       struct base_io_loop *loop, struct image_create *ret_create,
				       struct base_error *err);
/* Flush, rename, sync the folder, give back.  After a failure the temporary file is gone and
 * @name is not there; -ETIMEDOUT: UNKNOWN whether @name is. */
BASE_MUST_CHECK int image_create_commit(struct image_create *create, struct base_error *err);
/* Remove the temporary file.  After a commit, or on zeros, it does nothing. */
void image_create_abort(struct image_create *create);

#endif
