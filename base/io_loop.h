/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The loop of an I/O thread: tasks from any thread, timers, and an io_uring where
 * the kernel gives one.
 *
 * A loop is owned by one thread: the one it starts (base_io_loop_start) or, for a
 * loop that was not started, the thread that made it and that pumps it itself
 * (tests, command line tools).  Tasks, timers and completions run on the owner, one
 * after the other, with no lock held; so what lives on a loop needs no locks.
 * Nothing that runs on a loop may block.
 *
 * Tasks, timers and completions are embedded in their users' structures: posting,
 * arming and submitting never allocate and never fail.
 *
 * Source: io_uring(7), io_uring_setup(2), eventfd(2).
 */
#ifndef BASE_IO_LOOP_H
#define BASE_IO_LOOP_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/clock.h"
#include "base/error.h"

#define BASE_IO_RING_ENTRIES 256 /* submissions in one batch; more wait their turn in the loop */

struct base_io_loop;
struct io_uring_sqe;

/* Work for the loop.  Zero-initialised but for @run; queued at most once at a time: twice would
 * lose the tasks behind it, and is a base_bug(). */
struct base_io_task {
	void (*run)(struct base_io_task *task);
	struct base_io_task *next; /* the loop's */
	atomic_bool queued;        /* the loop's */
};

/* Runs once per arming, at or after its deadline.  Zero-initialised but for @expired. */
struct base_io_timer {
	void (*expired)(struct base_io_timer *timer);
	uint64_t deadline_ns;       /* the loop's */
	struct base_io_timer *next; /* the loop's */
	bool armed;                 /* the loop's */
};

/* What a submission to the ring reports to; @result is the CQE's.  One submission gives one
 * completion: no multishot operations.  Zero-initialised but for @done. */
struct base_io_completion {
	void (*done)(struct base_io_completion *completion, int32_t result);
	struct base_io_completion *next; /* the loop's */
	int32_t result;                  /* the loop's */
};

struct base_io_loop_options {
	const struct base_clock *clock; /* NULL: the system's; a test's fake one never waits */
	bool without_ring;              /* do not ask for an io_uring */
};

/**
 * base_io_loop_new - make a loop that the calling thread owns until it is started.
 * A kernel that refuses io_uring (-EPERM, -ENOSYS, a seccomp filter) gives a loop without a
 * ring, not an error: see base_io_loop_has_ring().  -ENOMEM, -EMFILE.
 */
BASE_MUST_CHECK int base_io_loop_new(const struct base_io_loop_options *options,
				     struct base_io_loop **ret_loop, struct base_error *err);
/* Give the loop a thread of its own (name as base_thread_start()). */
BASE_MUST_CHECK int base_io_loop_start(struct base_io_loop *loop, const char *name,
				       struct base_error *err);
/* Ends and joins the thread after the tasks queued so far; nothing may be in flight in the
 * ring any more (base_bug otherwise).  NULL is fine.  Not from the loop's own thread. */
void base_io_loop_free(struct base_io_loop *loop);

/* Queue @task; any thread; tasks of one thread run in the order of posting. */
void base_io_post(struct base_io_loop *loop, struct base_io_task *task);

/**
 * base_io_call - run @call(@context) on the loop and wait for it.
 * On the owner it is called at once; on another thread it waits; a loop that was not started
 * must be called by its owner only.
 */
void base_io_call(struct base_io_loop *loop, void (*call)(void *context), void *context);

/**
 * base_io_call_within - as base_io_call, for a loop that may be stuck: to look at what is there.
 * 0 it was called; -ETIMEDOUT the loop did not come to it in @timeout_ms, -ENOMEM: it was not, and
 * will not be: @context may go.  A call that has begun is waited for.
 */
BASE_MUST_CHECK int base_io_call_within(struct base_io_loop *loop, uint32_t timeout_ms,
					void (*call)(void *context), void *context);

/**
 * base_io_wait - wait until *@done, which something that runs on the loop sets (on the
 * loop's thread, with base_io_done()).
 * On the owner of a loop that was not started this pumps the loop; on any other thread it
 * sleeps.  Not on the thread of a started loop (base_bug).
 */
void base_io_wait(struct base_io_loop *loop, const bool *done);
/* Set *@done and wake who waits for it.  Owner only. */
void base_io_done(struct base_io_loop *loop, bool *done);

/* Pump a loop that was not started: run what is ready, once.  With @may_wait it sleeps until
 * something is (not under a fake clock).  Returns whether anything ran. */
bool base_io_loop_step(struct base_io_loop *loop, bool may_wait);

/* Owner only.  Arming an armed timer moves it.  Disarming an idle one is fine. */
void base_io_timer_arm(struct base_io_loop *loop, struct base_io_timer *timer,
		       uint64_t deadline_boot_ns);
void base_io_timer_disarm(struct base_io_loop *loop, struct base_io_timer *timer);
/* Earliest armed deadline; BASE_TIME_NEVER when none: for tests with a fake clock. */
uint64_t base_io_loop_next_ns(const struct base_io_loop *loop);
uint64_t base_io_loop_now_ns(const struct base_io_loop *loop);

bool base_io_loop_is_owner(const struct base_io_loop *loop);
bool base_io_loop_has_ring(const struct base_io_loop *loop);

/**
 * base_io_sqe - the next submission of the ring, to be filled in by the caller at once.
 * Owner only; the loop must have a ring.  Submitted before the loop sleeps, in batches;
 * when the queue is full it is submitted first.  @completion is called once, on the owner.
 * The caller sets everything with io_uring_prep_*() but not the user data.
 */
struct io_uring_sqe *base_io_sqe(struct base_io_loop *loop, struct base_io_completion *completion);

#endif
