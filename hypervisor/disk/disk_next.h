/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What an image is the past of: a record beside an image that a checkpoint has made a parent, which
 * names the image that its guest goes on in.  Whoever opens a disk for writing looks: writing to
 * the older image would cut off everything that is newer.
 *
 * Kept by the owner of a disk (events.top_moved), not by the disk.  A record whose newer image is
 * not there any more (merged, or removed on purpose) says nothing.
 *
 * Format: docs/hypervisor/disk/checkpoints.md.
 */
#ifndef HYPERVISOR_DISK_DISK_NEXT_H
#define HYPERVISOR_DISK_DISK_NEXT_H

#include "base/error.h"
#include "base/io_loop.h"
#include "hypervisor/disk/store.h"

#define DISK_NEXT_BYTES 4096u /* a whole sector of any medium */

/* The bytes of a record that names @next, a file name without a folder.  -EINVAL it is none, or
 * holds control characters; -ENAMETOOLONG. */
BASE_MUST_CHECK int disk_next_encode(const char *next, uint8_t to[DISK_NEXT_BYTES],
				     struct base_error *err);
/* -EBADMSG: not what disk_next_encode() writes. */
BASE_MUST_CHECK int disk_next_decode(const uint8_t *bytes, size_t size_bytes,
				     char ret_next[STORE_NAME_BYTES], struct base_error *err);

/* Blocking, as store.h says; names are those of a store, @loop is for the files.
 *
 * disk_next_write: durable when it returns; replaces what was recorded.  @next is in the folder of
 * @name (-EINVAL).  Errors of the store: nothing is recorded. */
BASE_MUST_CHECK int disk_next_write(struct store *store, struct base_io_loop *loop,
				    const char *name, const char *next, struct base_error *err);
/* Nothing is recorded of @name any more. */
void disk_next_remove(struct store *store, const char *name);
/* 1: the newest image that goes on from @name, over several checkpoints; 0: none; -EBADMSG a record
 * that is damaged (the text names it), or leads in a circle; errors of the store. */
BASE_MUST_CHECK int disk_next_find(struct store *store, struct base_io_loop *loop, const char *name,
				   char ret_newest[STORE_NAME_BYTES], struct base_error *err);
/* disk_next_find() for who is about to write to @name: 0; -EPROTO there is a newer one, and what to
 * do. */
BASE_MUST_CHECK int disk_next_check(struct store *store, struct base_io_loop *loop,
				    const char *name, struct base_error *err);
/* Is there a file of that name?  1, 0 or an error. */
BASE_MUST_CHECK int disk_next_exists(struct store *store, struct base_io_loop *loop,
				     const char *name, struct base_error *err);

#endif
