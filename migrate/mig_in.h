/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A migration's destination: one session that waits for a source, takes the VM in, and runs it only
 * when the register names this side, or leaves nothing of it.
 *
 * Peers are hostile until checked: docs/migrate/protocol.md.  The listening socket is looked at by
 * the session; connections without a valid OPEN are dropped after 10 s, and there are few at a
 * time.
 *
 * Threads: mig_in_run() on a thread of the caller's, until the end; it makes others of its own.
 * mig_in_give_up() from any.
 */
#ifndef MIGRATE_MIG_IN_H
#define MIGRATE_MIG_IN_H

#include "migrate/mig_body_post.h"
#include "migrate/mig_host.h"
#include "migrate/mig_tls.h"
#include "migrate/mig_vm.h"

struct mig_in;

#define MIG_IN_MORE_MAX 3u /* networks besides the first one */

struct mig_in_options {
	const struct mig_destination_vm *vm; /* borrowed */
	void *vm_context;
	int listen_fd;                 /* borrowed */
	int more_fds[MIG_IN_MORE_MAX]; /* likewise: other networks that it may come over */
	uint32_t more_count;
	struct mig_tls *tls; /* borrowed; of a destination; NULL: clear text */
	/* Somebody who is not who may come, or who speaks otherwise, was turned away; the door's
	 * thread, must not block.  May be NULL. */
	void (*turned_away)(void *vm_context, const struct base_error *why);
	const struct mig_arbiter *arbiter; /* borrowed; local or the cluster's */
	bool keeps_register;               /* answer the source's ASK from @arbiter */
	struct mig_host *host;             /* borrowed: has to have room; NULL: no limit */
	uint32_t timeout_ms;               /* 0: 10000 */
	uint32_t retry_ms;                 /* 0: 1000 */
	uint32_t give_up_ms;               /* READY and not heard of: ask to be let go; 0: never */
	uint32_t resume_ms; /* a source that is cut off while it copies may be back within what it
			     * says, but this at most; 0: never */
	/* Pages may come when it runs: docs/migrate/postcopy.md.  Both borrowed; without @post they
	 * are nothing. */
	bool post;
	int fault_fd;  /* of mig_faults_open() */
	int memory_fd; /* the file that the memory of vm->prepare() maps from its start on */
};

enum mig_in_end {
	MIG_IN_INVALID,
	MIG_IN_RUNNING, /* the VM runs here, at the plan's epoch + 1 */
	MIG_IN_GONE,    /* nothing of it is here; @err says why */
	MIG_IN_ENDS
};

BASE_MUST_CHECK int mig_in_new(const struct mig_in_options *options, struct mig_in **ret_in,
			       struct base_error *err);
/* Blocks until the end.  After RUNNING the source may still ask, or pages may still come:
 * mig_in_fill() and mig_in_linger(), from one thread. */
enum mig_in_end mig_in_run(struct mig_in *in, uint64_t *ret_epoch, struct base_error *err);
/* Take in the pages that still come, without a limit.  Nothing to do where none do. */
void mig_in_fill(struct mig_in *in);
/* The same; then answer a source that has not heard of the end, until it has, or for @most_ms. */
void mig_in_linger(struct mig_in *in, uint32_t most_ms);
void mig_in_give_up(struct mig_in *in);
/* Whether pages of the VM are still at the source; then how many, and what there was.  Any thread.
 */
bool mig_in_is_filling(struct mig_in *in, uint64_t *ret_left_pages,
		       struct mig_complete *ret_counts);
/* After mig_in_fill(): pages are missing, and nobody will bring them: it cannot go on. */
bool mig_in_is_broken(struct mig_in *in);
void mig_in_free(struct mig_in *in); /* NULL is fine */

#endif
