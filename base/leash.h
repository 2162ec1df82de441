/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The leash: how long a worker may run its VM without hearing from its holder.
 *
 * One shared page (memfd) and one eventfd between the *holder* (the cluster
 * service, which knows how long this node may act) and the *worker*.  The holder
 * writes deadlines; the worker obeys them even when the holder is gone:
 *
 *   soft deadline  vCPUs freeze, no request is submitted to a store any more;
 *   hard deadline  the kernel kills the worker: timer_create(CLOCK_BOOTTIME,
 *                  SIGEV_SIGNAL, SIGKILL), re-armed at every extension, so that it
 *                  also ends a worker that is stopped (SIGSTOP) or hangs.
 *
 * All deadlines are absolute CLOCK_BOOTTIME nanoseconds of this host;
 * BASE_TIME_NEVER is infinite.  A frozen worker never thaws by an extension alone:
 * the holder must say thaw (it has seen the database name this node at this epoch).
 * An epoch in the page above the worker's own ends the right to run for good:
 * freeze, and the worker exits with "stale".
 *
 * Page layout and protocol: docs/base/leash.md.  The page is written by the holder
 * only; the worker maps it read-only.  Everything in it is checked before use.
 */
#ifndef BASE_LEASH_H
#define BASE_LEASH_H

#include <stdbool.h>
#include <stdint.h>

#include "base/clock.h"
#include "base/error.h"

#define BASE_LEASH_PAGE_BYTES 4096

/* What the holder promises.  A value. */
struct base_leash_terms {
	uint64_t epoch;      /* the VM's epoch these deadlines belong to; 0 = none yet */
	uint64_t soft_ns;    /* CLOCK_BOOTTIME, <= hard_ns */
	uint64_t hard_ns;    /* CLOCK_BOOTTIME */
	uint64_t thaw_count; /* raised by one with each thaw */
	/* soft_ns as it was when the last thaw was said: the thaw counts only before. */
	uint64_t thaw_until_ns;
};

/* --- the holder's side (cluster service; one thread at a time) --- */

struct base_leash_holder;

/* Makes page and eventfd with @terms.  -EINVAL terms, -ENOMEM, -EMFILE.  The eventfd is
 * non-blocking; the descriptors are closed on exec: the worker gets them by SCM_RIGHTS, or
 * the flag is cleared in the child. */
BASE_MUST_CHECK int base_leash_holder_new(const struct base_leash_terms *terms,
					  struct base_leash_holder **ret_holder,
					  struct base_error *err);
void base_leash_holder_free(
	struct base_leash_holder *holder); /* NULL is fine; no message to the worker */
/* Borrowed descriptors to hand to the worker: sealed page (read-only), eventfd. */
int base_leash_holder_page_fd(const struct base_leash_holder *holder);
int base_leash_holder_event_fd(const struct base_leash_holder *holder);

/**
 * base_leash_extend - write new deadlines and wake the worker.
 * Deadlines never move back unless @terms is for a higher epoch or the holder
 * shortens on purpose (@may_shorten): -EINVAL otherwise, nothing written.
 */
BASE_MUST_CHECK int base_leash_extend(struct base_leash_holder *holder, uint64_t soft_ns,
				      uint64_t hard_ns, bool may_shorten, struct base_error *err);
/**
 * base_leash_thaw - allow a frozen worker to run again until the deadlines in the page.
 * Extend first.  A worker that had not frozen yet when it reads this ignores it.
 * Return: 0; -EPROTO the soft deadline in the page has passed: nothing written.
 */
BASE_MUST_CHECK int base_leash_thaw(struct base_leash_holder *holder, struct base_error *err);
/* The VM is somebody else's from now on: a worker with a lower epoch must end.
 * -EINVAL @new_epoch is not above the page's. */
BASE_MUST_CHECK int base_leash_revoke(struct base_leash_holder *holder, uint64_t new_epoch,
				      struct base_error *err);

/* --- the worker's side --- */

enum base_leash_state {
	BASE_LEASH_INVALID,
	BASE_LEASH_HELD,   /* before the soft deadline: run */
	BASE_LEASH_FROZEN, /* soft deadline passed: wait for thaw */
	BASE_LEASH_STALE,  /* a higher epoch exists: end */
	BASE_LEASH_STATES
};

/*
 * Called on the leash's own thread when the state changes, with no lock held.
 * HELD -> FROZEN: freeze the vCPUs before returning.  FROZEN -> HELD: thaw.
 */
typedef void (*base_leash_changed)(void *context, enum base_leash_state state);

struct base_leash;

/**
 * base_leash_new - bind this process to a leash.
 * @page_fd, @event_fd: from the holder; borrowed, may be closed afterwards; both -1
 *           for a worker that runs alone: state HELD, deadlines never.
 * @epoch:   the epoch this worker runs at.
 * Arms the kill timer before it returns and starts the leash thread ("leash").  The
 * timer belongs to the process: call this after the last fork and exec.  The thread
 * calls: poll, read, clock_gettime, timerfd_settime, timer_settime, futex.
 * Return: 0; -EBADMSG the page is malformed; -ESTALE the page names a higher epoch;
 * -ETIME the soft deadline has passed already, or the page names a lower epoch (it
 * holds nothing for this one yet); -EINVAL descriptors; -EAGAIN the holder was in the
 * middle of an update all the time; -EPROTO this is process 1 of a PID namespace, which
 * the kernel does not kill for its own timer; -ENOMEM, -EMFILE.
 */
BASE_MUST_CHECK int base_leash_new(int page_fd, int event_fd, uint64_t epoch,
				   base_leash_changed changed, void *context,
				   struct base_leash **ret_leash, struct base_error *err);
/* Disarms the kill timer: the caller runs no VM any more.  Not from the callback.  NULL is
 * fine. */
void base_leash_free(struct base_leash *leash);

/* Any thread; no lock. */
enum base_leash_state base_leash_state(const struct base_leash *leash);

/**
 * base_leash_may_submit - the gate in front of every submission to a store.
 * True only while HELD *and* now < soft deadline, judged by reading CLOCK_BOOTTIME in this
 * call: a worker that was stopped over the deadline submits nothing when it
 * wakes, before its leash thread has run.  Any thread; no system call, no lock.
 */
bool base_leash_may_submit(const struct base_leash *leash);

/* The terms in force (last valid read of the page) and the epoch, for status; once STALE,
 * @ret_terms->epoch is the higher one.  Any thread. */
void base_leash_terms(const struct base_leash *leash, struct base_leash_terms *ret_terms);

/* --- the page's bytes, for holder, worker and fuzzer --- */

/* One decoded copy; -EBADMSG malformed, -EAGAIN the writer was in the middle of an update. */
BASE_MUST_CHECK int base_leash_page_decode(const uint8_t page[BASE_LEASH_PAGE_BYTES],
					   struct base_leash_terms *ret_terms,
					   struct base_error *err);

#endif
