/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The store in a folder of this host: struct store (store.h) over regular files and block
 * devices.
 *
 * Requests go through the loop's io_uring; what may block there, and everything when the loop
 * has no ring, through a few threads of the store.  I/O is direct (O_DIRECT) where the
 * file system allows it.  The owner of a file holds a lock on it that ends with its process, and
 * the newest epoch is recorded beside it in ".<name>.lease": docs/hypervisor/disk/store.md.
 */
#ifndef HYPERVISOR_DISK_LOCAL_STORE_H
#define HYPERVISOR_DISK_LOCAL_STORE_H

#include "hypervisor/disk/store.h"

#define LOCAL_LEASE_BYTES 320 /* the longest record */

struct local_store_options {
	uint32_t thread_count; /* 0: 4; without a ring this many requests are served at a time */
	bool buffered;         /* never O_DIRECT */
	const char *holder;    /* who we are, for lease records; NULL: the name of the process */
};

/**
 * local_store_open - the store whose root is @folder.
 * @folder:  a path of this host; "/" makes every path of the host a name (command line tools).
 * @options: may be NULL.
 * Names may not lead outside of the folder, over symbolic links neither.
 * Return: 0; -ENOENT, -ENOTDIR, -EACCES from opening the folder; -ENOMEM; -EAGAIN no thread.
 */
BASE_MUST_CHECK int local_store_open(const char *folder, const struct local_store_options *options,
				     struct store **ret_store, struct base_error *err);

/*
 * The lease record: one line of text (docs/hypervisor/disk/store.md has its format).
 * encode: @lease's holder is printable text; returns the bytes written, without a terminator.
 * decode: -EBADMSG, with what is wrong; only what encode writes is accepted.
 */
size_t local_lease_encode(const struct store_lease *lease, char to[LOCAL_LEASE_BYTES]);
BASE_MUST_CHECK int local_lease_decode(const void *data, size_t size_bytes,
				       struct store_lease *ret_lease, struct base_error *err);

#endif
