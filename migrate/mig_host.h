/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the migrations of a host share, whose VMs are a process each: how many go and how many come
 * at a time, and a cap on what all of them send together.
 *
 * A folder with three files and nobody who keeps it.  Who takes part, or waits for that, holds a
 * lock on a byte of `outgoing` or `incoming`, which have no content; the kernel takes it back with
 * the process.  `bandwidth` is a page of memory with one number, the instant from which on nothing
 * is owed; whatever is found there is bounded.  docs/migrate/host.md.
 *
 * Threads: one at a time for each way; mig_host_reserve() any.
 */
#ifndef MIGRATE_MIG_HOST_H
#define MIGRATE_MIG_HOST_H

#include <stdbool.h>
#include <stdint.h>

#include "base/error.h"

#define MIG_HOST_MOVES_MAX 64u /* limit of the limits; and of those who wait in line */
#define MIG_HOST_MOVES     2u  /* a limit that is not set otherwise */

enum mig_way {
	MIG_WAY_INVALID,
	MIG_OUTGOING,
	MIG_INCOMING,
	MIG_WAYS
};

struct mig_host;

struct mig_host_options {
	int directory_fd;        /* borrowed for the call only */
	uint32_t most[MIG_WAYS]; /* 1 to MIG_HOST_MOVES_MAX */
	uint64_t bytes_per_s;    /* of all that goes; 0: no cap */
};

/**
 * mig_host_new - open the files of the folder, and make those that are not there.
 * No descriptor of the folder or of the memory is kept: who takes this process over cannot cut the
 * file off under others.
 * -EINVAL: what has such a name is not a file of one name; or the cap is less than
 * MIG_RATE_MIN_BYTES_PER_S; -ENOMEM; what the system said.
 */
BASE_MUST_CHECK int mig_host_new(const struct mig_host_options *options, struct mig_host **ret_host,
				 struct base_error *err);
/* Gives back what it holds.  NULL is fine. */
void mig_host_free(struct mig_host *host);
/* What was found and put right when it was opened, a line; NULL: nothing. */
const char *mig_host_healed(const struct mig_host *host);

/**
 * mig_host_enter - take part, in the order of asking.
 * 1 it does, until mig_host_leave(); 0 others come first, ask again in a while: the place in the
 * line is kept meanwhile.  Again is fine.  Other than that: what the system said.
 */
BASE_MUST_CHECK int mig_host_enter(struct mig_host *host, enum mig_way way, struct base_error *err);
/* Now or never: the same without a line, whoever waits in it. */
BASE_MUST_CHECK int mig_host_try(struct mig_host *host, enum mig_way way, struct base_error *err);
/* Gives back part or place; without either is fine. */
void mig_host_leave(struct mig_host *host, enum mig_way way);

/* For people: how many take part, ourselves too, of how many. */
uint32_t mig_host_busy(const struct mig_host *host, enum mig_way way, uint32_t *ret_most);

bool mig_host_is_capped(const struct mig_host *host);
/* @bytes are to go at @now_ns (boot-time clock): true, and how long they wait; false: so much is
 * owed that nothing was taken, ask again in a while. */
BASE_MUST_CHECK bool mig_host_reserve(struct mig_host *host, uint64_t now_ns, uint64_t bytes,
				      uint64_t *ret_wait_ns);

#endif
