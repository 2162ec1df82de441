/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The control loop of one thread: descriptors (epoll), timers and messages from
 * other threads.
 *
 * The thread that calls base_loop_run() owns the loop: every call but
 * base_loop_post() and base_loop_stop() belongs to it (or comes before the run),
 * and asserts that.  Nothing may block the loop; a callback that took longer than
 * BASE_LOOP_BUDGET_NS is logged (evt=loop.slow) at debug level.
 */
#ifndef BASE_LOOP_H
#define BASE_LOOP_H

#include <stdbool.h>
#include <stdint.h>

#include "base/error.h"

#define BASE_LOOP_BUDGET_NS 5000000ULL
#define BASE_LOOP_POSTS_MAX 4096 /* messages from other threads not run yet */

struct base_loop;
struct base_loop_fd;
struct base_loop_timer;

BASE_MUST_CHECK int base_loop_new(struct base_loop **ret_loop, struct base_error *err);
/* Watches and timers still there are released; posted messages not run are dropped. */
void base_loop_free(struct base_loop *loop);

/* Run until base_loop_stop(); 0, or the error that epoll gave. */
BASE_MUST_CHECK int base_loop_run(struct base_loop *loop, struct base_error *err);
/* Any thread, also in a signal handler: end base_loop_run() soon. */
void base_loop_stop(struct base_loop *loop);

/**
 * base_loop_add - call @ready when @fd (borrowed) has one of @events (EPOLLIN, EPOLLOUT).
 * EPOLLERR and EPOLLHUP are always reported.  Gives a handle; base_loop_remove() ends
 * it, also from within the callback, and never closes the descriptor.
 */
BASE_MUST_CHECK int base_loop_add(struct base_loop *loop, int fd, uint32_t events,
				  void (*ready)(void *context, uint32_t events), void *context,
				  struct base_loop_fd **ret_watch, struct base_error *err);
void base_loop_modify(struct base_loop_fd *watch, uint32_t events);
void base_loop_remove(struct base_loop_fd *watch); /* NULL is fine */

/* A timer that is not armed yet.  @expired runs once per arming. */
BASE_MUST_CHECK int base_loop_timer_new(struct base_loop *loop, void (*expired)(void *context),
					void *context, struct base_loop_timer **ret_timer,
					struct base_error *err);
void base_loop_timer_arm(struct base_loop_timer *timer, uint64_t deadline_boot_ns);
void base_loop_timer_disarm(struct base_loop_timer *timer);
void base_loop_timer_free(struct base_loop_timer *timer); /* NULL is fine */

/* Any thread: run @call(context) on the loop's thread, in the order of posting.
 * 0; -EAGAIN when BASE_LOOP_POSTS_MAX are waiting. */
BASE_MUST_CHECK int base_loop_post(struct base_loop *loop, void (*call)(void *context),
				   void *context);

/* True on the thread that runs the loop (or before it runs). */
bool base_loop_is_owner(const struct base_loop *loop);

#endif
