/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Rounds of a storage migration within one process: what was written is looked at, read and written
 * to the copy by several threads at a time, without a stream between them.  docs/migrate/disks.md,
 * section 5.
 *
 * A span belongs to one thread within a round, and rounds do not overlap: so no two of them ever
 * write one sector at a time, and what is written later was read later.
 *
 * Threads: one, which no I/O loop is; a round runs on threads of its own as well.
 */
#ifndef AGENT_VM_STORAGE_COPY_H
#define AGENT_VM_STORAGE_COPY_H

#include <stdatomic.h>

#include "agent/vm_migrate_disk.h"
#include "migrate/mig_rate.h"

/* What is told of a move to other threads, and by them. */
struct vm_storage_view {
	atomic_bool cancel; /* the user's */
	atomic_uint round;
	atomic_uint percent; /* never less than it was; 100: the disk goes on in the copy */
	atomic_uint_fast64_t done_bytes;
	atomic_uint_fast64_t left_bytes; /* that are known of */
};

struct vm_storage_copy_options {
	struct vm_migrate_out *out; /* all borrowed */
	struct vm_migrate_in *in;
	const struct mig_plan *plan; /* object 0 is skipped */
	struct base_io_loop *loop;   /* of both; of this thread: it is pumped, and no other works */
	struct mig_rate *rate;       /* NULL: no cap; the last round asks nobody */
	struct vm_storage_view *view;
};

struct vm_storage_copy_counts {
	uint64_t data_bytes;
	uint64_t clear_bytes;
	uint64_t unmap_bytes;
};

struct vm_storage_copy;

/* -ENOMEM; -EAGAIN no threads. */
BASE_MUST_CHECK int vm_storage_copy_new(const struct vm_storage_copy_options *options,
					struct vm_storage_copy **ret_copy, struct base_error *err);
void vm_storage_copy_free(struct vm_storage_copy *copy); /* NULL is fine */

/* What the next round is of; the bytes of it, at most. */
BASE_MUST_CHECK int vm_storage_copy_harvest(struct vm_storage_copy *copy, uint64_t *ret_left_bytes,
					    struct base_error *err);
/* Copy it.  @last: the disk is held.  -ECANCELED view.cancel, unless @last; what reading and
 * writing gave. */
BASE_MUST_CHECK int vm_storage_copy_round(struct vm_storage_copy *copy, bool last,
					  struct base_error *err);
struct vm_storage_copy_counts vm_storage_copy_counts(const struct vm_storage_copy *copy);

#endif
