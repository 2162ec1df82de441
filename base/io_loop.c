/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The loop of an I/O thread: io_loop.h.
 *
 * A turn takes what the ring has completed, then the tasks, then the timers that are due; each
 * only as far as it was there when its part of the turn began, so that nothing that goes on
 * for ever starves the rest.  What a turn submits goes to the kernel in one call, which is
 * also the call that sleeps.
 *
 * Tasks of other threads come over a lock-free stack that the owner takes as a whole and turns
 * round; the owner's own are appended to its list directly.  The eventfd is written only when
 * the owner said that it sleeps.
 */
#include "base/io_loop.h"

#include <errno.h>
#include <liburing.h>
#include <poll.h>
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/thread.h"

/* Submissions with the kernel whose results have not been taken; so none ever overflows. */
#define RING_RESULTS 4096

/* Of kernels since 5.11: no result is lost, a wait takes a timeout. */
#define RING_FEATURES (IORING_FEAT_NODROP | IORING_FEAT_EXT_ARG | IORING_FEAT_SUBMIT_STABLE)

/* How often a bounded call looks whether it was made. */
#define CALL_LOOK_NS (100 * BASE_NS_PER_US)

struct base_io_loop {
	const struct base_clock *clock;
	bool may_sleep; /* false under a test's clock: its time does not pass by waiting */
	bool want_ring;
	_Atomic pthread_t owner;
	int event_fd;

	_Atomic(struct base_io_task *) posted; /* of other threads, newest first */
	atomic_bool asleep;

	/* The owner's. */
	struct base_io_task *task_head;
	struct base_io_task *task_tail;
	struct base_io_completion *ready_head;
	struct base_io_completion *ready_tail;
	struct base_io_timer *timers; /* by deadline */
	bool has_ring;
	bool deferred; /* results appear only when the kernel is entered for them */
	struct io_uring ring;
	uint32_t in_kernel; /* submissions, also those not handed over yet, without a result */
	uint32_t in_flight; /* the users' among them, until their completion ran */
	bool event_armed;   /* the ring reads the eventfd */
	uint64_t event_value;
	bool stopping;
	struct base_io_task stop_task;

	bool started;
	pthread_t thread;
	pthread_mutex_t lock; /* a leaf: what base_io_wait() waits for, and thread_runs */
	pthread_cond_t changed;
	bool thread_runs;
};

/* --- the ring --- */

static int ring_try(struct base_io_loop *loop, uint32_t flags)
{
	struct io_uring_params params = {
		.flags = flags | IORING_SETUP_CQSIZE,
		.cq_entries = RING_RESULTS,
	};
	int code = io_uring_queue_init_params(BASE_IO_RING_ENTRIES, &loop->ring, &params);

	if (code < 0)
		return code;
	if ((params.features & RING_FEATURES) != RING_FEATURES) {
		io_uring_queue_exit(&loop->ring);
		return -ENOSYS;
	}
	return 0;
}

/* On the thread that will use it.  Any refusal leaves the loop without a ring. */
static void ring_open(struct base_io_loop *loop)
{
	if (!loop->want_ring)
		return;
	loop->deferred = true;
	if (ring_try(loop, IORING_SETUP_SINGLE_ISSUER | IORING_SETUP_DEFER_TASKRUN) == 0) {
		loop->has_ring = true;
		return;
	}
	loop->deferred = false; /* before Linux 6.1 */
	loop->has_ring = ring_try(loop, 0) == 0;
}

static void loop_wake(const struct base_io_loop *loop)
{
	const uint64_t one = 1;

	(void)!write(loop->event_fd, &one, sizeof(one)); /* cannot fill: 2^64 wakes unread */
}

/* Take every result out of the ring, so that there is room for more; none runs here. */
static void ring_reap(struct base_io_loop *loop)
{
	struct io_uring_cqe *cqe = NULL;
	unsigned int head = 0;
	unsigned int count = 0;

	io_uring_for_each_cqe(&loop->ring, head, cqe)
	{
		struct base_io_completion *completion = io_uring_cqe_get_data(cqe);

		count++;
		loop->in_kernel--;
		if (completion == NULL) { /* the read of the eventfd */
			loop->event_armed = false;
			continue;
		}
		completion->result = cqe->res;
		completion->next = NULL;
		if (loop->ready_tail == NULL)
			loop->ready_head = completion;
		else
			loop->ready_tail->next = completion;
		loop->ready_tail = completion;
	}
	io_uring_cq_advance(&loop->ring, count);
}

/* Hand over what was submitted; with @wait, sleep for a result, or @timeout_ns. */
static void ring_enter(struct base_io_loop *loop, bool wait, uint64_t timeout_ns)
{
	struct io_uring_cqe *cqe = NULL;
	int code = 0;

	if (!wait) {
		code = io_uring_submit_and_get_events(&loop->ring);
	} else if (timeout_ns == BASE_TIME_NEVER) {
		code = io_uring_submit_and_wait(&loop->ring, 1);
	} else {
		struct __kernel_timespec timeout = {
			.tv_sec = (int64_t)(timeout_ns / BASE_NS_PER_SECOND),
			.tv_nsec = (long long)(timeout_ns % BASE_NS_PER_SECOND),
		};

		code = io_uring_submit_and_wait_timeout(&loop->ring, &cqe, 1, &timeout, NULL);
	}
	ring_reap(loop);
	/* EAGAIN, EBUSY: short of memory or of room for results; what was not taken stays queued
	 * and the next turn hands it over. */
	if (code < 0 && code != -EINTR && code != -ETIME && code != -EAGAIN && code != -EBUSY)
		base_bug("io_uring_enter: error %d", -code);
}

static struct io_uring_sqe *ring_sqe(struct base_io_loop *loop)
{
	struct io_uring_sqe *sqe = NULL;

	while (loop->in_kernel >= RING_RESULTS)
		ring_enter(loop, true, BASE_TIME_NEVER);
	for (;;) {
		sqe = io_uring_get_sqe(&loop->ring);
		if (sqe != NULL)
			break;
		ring_enter(loop, false, 0);
	}
	loop->in_kernel++;
	return sqe;
}

static void ring_arm_event(struct base_io_loop *loop)
{
	struct io_uring_sqe *sqe = NULL;

	if (loop->event_armed)
		return;
	sqe = ring_sqe(loop);
	io_uring_prep_read(sqe, loop->event_fd, &loop->event_value, sizeof(loop->event_value), 0);
	io_uring_sqe_set_data(sqe, NULL);
	loop->event_armed = true;
}

/* On the thread that used it. */
static void ring_close(struct base_io_loop *loop)
{
	if (!loop->has_ring)
		return;
	if (loop->in_flight != 0)
		base_bug("an I/O loop ends with %u requests in flight", loop->in_flight);
	if (loop->event_armed)
		loop_wake(loop); /* the kernel must not write to event_value afterwards */
	while (loop->event_armed)
		ring_enter(loop, true, BASE_TIME_NEVER);
	io_uring_queue_exit(&loop->ring);
	loop->has_ring = false;
}

struct io_uring_sqe *base_io_sqe(struct base_io_loop *loop, struct base_io_completion *completion)
{
	struct io_uring_sqe *sqe = NULL;

	base_assert(base_io_loop_is_owner(loop) && loop->has_ring);
	sqe = ring_sqe(loop);
	io_uring_sqe_set_data(sqe, completion);
	loop->in_flight++;
	return sqe;
}

/* --- a turn --- */

static bool run_completions(struct base_io_loop *loop)
{
	const struct base_io_completion *last = NULL;
	bool is_last = false;

	if (loop->has_ring)
		ring_reap(loop);
	last = loop->ready_tail;
	if (last == NULL)
		return false;
	while (!is_last && loop->ready_head != NULL) {
		struct base_io_completion *completion = loop->ready_head;

		is_last = completion == last;
		loop->ready_head = completion->next;
		if (loop->ready_head == NULL)
			loop->ready_tail = NULL;
		loop->in_flight--;
		completion->done(completion, completion->result);
	}
	return true;
}

static void task_append(struct base_io_loop *loop, struct base_io_task *task)
{
	task->next = NULL;
	if (loop->task_tail == NULL)
		loop->task_head = task;
	else
		loop->task_tail->next = task;
	loop->task_tail = task;
}

/* The other threads' tasks, oldest first, behind the owner's. */
static void tasks_take(struct base_io_loop *loop)
{
	struct base_io_task *newest = NULL;
	struct base_io_task *oldest = NULL;

	if (atomic_load_explicit(&loop->posted, memory_order_relaxed) == NULL)
		return;
	newest = atomic_exchange(&loop->posted, NULL);
	while (newest != NULL) {
		struct base_io_task *older = newest->next;

		newest->next = oldest;
		oldest = newest;
		newest = older;
	}
	while (oldest != NULL) {
		struct base_io_task *newer = oldest->next;

		task_append(loop, oldest);
		oldest = newer;
	}
}

static bool run_tasks(struct base_io_loop *loop)
{
	const struct base_io_task *last = NULL;
	bool is_last = false;

	tasks_take(loop);
	last = loop->task_tail;
	if (last == NULL)
		return false;
	while (!is_last && loop->task_head != NULL) {
		struct base_io_task *task = loop->task_head;

		is_last = task == last;
		loop->task_head = task->next;
		if (loop->task_head == NULL)
			loop->task_tail = NULL;
		task->next = NULL;
		atomic_store_explicit(&task->queued, false, memory_order_relaxed);
		task->run(task); /* may free it or queue it again */
	}
	return true;
}

static bool run_timers(struct base_io_loop *loop)
{
	uint64_t now_ns = 0;
	uint32_t due = 0;
	bool ran = false;

	if (loop->timers == NULL)
		return false;
	now_ns = base_io_loop_now_ns(loop);
	for (const struct base_io_timer *timer = loop->timers;
	     timer != NULL && timer->deadline_ns <= now_ns; timer = timer->next)
		due++;
	for (; due > 0; due--) {
		struct base_io_timer *timer = loop->timers;

		if (timer == NULL || timer->deadline_ns > now_ns)
			break; /* one of them disarmed another */
		base_io_timer_disarm(loop, timer);
		timer->expired(timer); /* may free it or arm it again */
		ran = true;
	}
	return ran;
}

static bool run_ready(struct base_io_loop *loop)
{
	bool ran = run_completions(loop);

	ran = run_tasks(loop) || ran;
	return run_timers(loop) || ran;
}

/* Hand submissions over without waiting. */
static void submit_only(struct base_io_loop *loop)
{
	if (!loop->has_ring)
		return;
	if (io_uring_sq_ready(&loop->ring) > 0 || (loop->deferred && loop->in_flight > 0))
		ring_enter(loop, false, 0);
}

static void sleep_without_ring(struct base_io_loop *loop, uint64_t timeout_ns)
{
	struct pollfd event = { .fd = loop->event_fd, .events = POLLIN };
	struct timespec timeout = {
		.tv_sec = (time_t)(timeout_ns / BASE_NS_PER_SECOND),
		.tv_nsec = (long)(timeout_ns % BASE_NS_PER_SECOND),
	};
	uint64_t value = 0;

	if (ppoll(&event, 1, timeout_ns == BASE_TIME_NEVER ? NULL : &timeout, NULL) > 0)
		(void)!read(loop->event_fd, &value, sizeof(value));
}

/* Nothing is ready: sleep until something may be, handing submissions over on the way. */
static void idle(struct base_io_loop *loop)
{
	uint64_t timeout_ns = BASE_TIME_NEVER;

	if (loop->task_head != NULL || loop->ready_head != NULL) {
		submit_only(loop);
		return;
	}
	if (!loop->may_sleep) {
		submit_only(loop);
		(void)sched_yield(); /* another thread may be about to post */
		return;
	}
	if (loop->timers != NULL) {
		uint64_t now_ns = base_io_loop_now_ns(loop);

		timeout_ns =
			loop->timers->deadline_ns > now_ns ? loop->timers->deadline_ns - now_ns : 0;
	}
	if (loop->has_ring)
		ring_arm_event(loop);
	atomic_store(&loop->asleep, true);
	/* Making room for that submission may have brought results in. */
	if (timeout_ns == 0 || loop->ready_head != NULL || atomic_load(&loop->posted) != NULL)
		submit_only(loop);
	else if (loop->has_ring)
		ring_enter(loop, true, timeout_ns);
	else
		sleep_without_ring(loop, timeout_ns);
	atomic_store(&loop->asleep, false);
}

bool base_io_loop_step(struct base_io_loop *loop, bool may_wait)
{
	bool ran = false;

	base_assert(base_io_loop_is_owner(loop) && !loop->started);
	ran = run_ready(loop);
	if (!ran && may_wait) {
		idle(loop);
		ran = run_ready(loop);
	}
	submit_only(loop);
	return ran;
}

/* --- tasks, calls, waits --- */

bool base_io_loop_is_owner(const struct base_io_loop *loop)
{
	return pthread_equal(atomic_load_explicit(&loop->owner, memory_order_relaxed),
			     pthread_self()) != 0;
}

void base_io_post(struct base_io_loop *loop, struct base_io_task *task)
{
	struct base_io_task *head = NULL;

#ifndef GODWIT_MUTANT_IO_TASK_TWICE
	if (atomic_load_explicit(&task->queued, memory_order_relaxed))
		base_bug("a task of an I/O loop is queued twice");
#endif
	atomic_store_explicit(&task->queued, true, memory_order_relaxed);
	if (base_io_loop_is_owner(loop)) {
		tasks_take(loop); /* what others posted before goes first */
		task_append(loop, task);
		return;
	}
	head = atomic_load_explicit(&loop->posted, memory_order_relaxed);
	do {
		task->next = head;
	} while (!atomic_compare_exchange_weak(&loop->posted, &head, task));
	if (atomic_load(&loop->asleep) && atomic_exchange(&loop->asleep, false))
		loop_wake(loop);
}

struct call {
	struct base_io_task task;
	struct base_io_loop *loop;
	void (*call)(void *context);
	void *context;
	bool done;
};

static void call_run(struct base_io_task *task)
{
	struct call *call = (struct call *)task; /* its first member */

	call->call(call->context);
	base_io_done(call->loop, &call->done);
}

void base_io_call(struct base_io_loop *loop, void (*call)(void *context), void *context)
{
	struct call posted = {
		.task = { .run = call_run },
		.loop = loop,
		.call = call,
		.context = context,
	};

	if (base_io_loop_is_owner(loop)) {
		call(context);
		return;
	}
	if (!loop->started)
		base_bug("an I/O loop that was not started is called by another thread");
	base_io_post(loop, &posted.task);
	base_io_wait(loop, &posted.done);
}

/* Who posted it may be gone before it runs: freed by whoever is last. */
struct bounded_call {
	struct base_io_task task;
	void (*call)(void *context);
	void *context;
	_Atomic uint32_t state; /* enum bounded_state */
};

enum bounded_state {
	CALL_WAITS,
	CALL_RUNS,
	CALL_MADE,
	CALL_GIVEN_UP
};

static bool bounded_move(struct bounded_call *call, uint32_t to)
{
	uint32_t waits = CALL_WAITS;

	return atomic_compare_exchange_strong(&call->state, &waits, to);
}

static void bounded_run(struct base_io_task *task)
{
	struct bounded_call *call = (struct bounded_call *)task; /* its first member */

	if (!bounded_move(call, CALL_RUNS)) {
		free(call);
		return;
	}
	call->call(call->context);
	atomic_store(&call->state, CALL_MADE);
}

int base_io_call_within(struct base_io_loop *loop, uint32_t timeout_ms, void (*call)(void *context),
			void *context)
{
	uint64_t end_ns = base_clock_boot_ns(&base_clock_system) + timeout_ms * BASE_NS_PER_MS;
	struct bounded_call *posted = NULL;

	if (base_io_loop_is_owner(loop)) {
		call(context);
		return 0;
	}
	posted = calloc(1, sizeof(*posted));
	if (posted == NULL)
		return -ENOMEM;
	posted->task.run = bounded_run;
	posted->call = call;
	posted->context = context;
	base_io_post(loop, &posted->task);
	while (atomic_load(&posted->state) != CALL_MADE) {
		if (base_clock_boot_ns(&base_clock_system) >= end_ns &&
		    bounded_move(posted, CALL_GIVEN_UP))
			return -ETIMEDOUT;
		base_sleep_ns(CALL_LOOK_NS);
	}
	free(posted);
	return 0;
}

void base_io_done(struct base_io_loop *loop, bool *done)
{
	BASE_LOCKED(&loop->lock);

	base_assert(base_io_loop_is_owner(loop));
	*done = true;
	(void)pthread_cond_broadcast(&loop->changed);
}

void base_io_wait(struct base_io_loop *loop, const bool *done)
{
	if (!base_io_loop_is_owner(loop)) {
		BASE_LOCKED(&loop->lock);

		while (!*done)
			(void)pthread_cond_wait(&loop->changed, &loop->lock);
		return;
	}
	if (loop->started)
		base_bug("the thread of an I/O loop waits for itself");
	while (!*done) {
		(void)run_ready(loop);
		if (!*done)
			idle(loop);
	}
	submit_only(loop);
}

/* --- timers --- */

void base_io_timer_disarm(struct base_io_loop *loop, struct base_io_timer *timer)
{
	struct base_io_timer **place = &loop->timers;

	base_assert(base_io_loop_is_owner(loop));
	if (!timer->armed)
		return;
	while (*place != timer)
		place = &(*place)->next;
	*place = timer->next;
	timer->next = NULL;
	timer->armed = false;
}

void base_io_timer_arm(struct base_io_loop *loop, struct base_io_timer *timer,
		       uint64_t deadline_boot_ns)
{
	struct base_io_timer **place = &loop->timers;

	base_io_timer_disarm(loop, timer);
	if (deadline_boot_ns == BASE_TIME_NEVER)
		return;
	while (*place != NULL && (*place)->deadline_ns <= deadline_boot_ns)
		place = &(*place)->next;
	timer->deadline_ns = deadline_boot_ns;
	timer->next = *place;
	timer->armed = true;
	*place = timer;
}

uint64_t base_io_loop_next_ns(const struct base_io_loop *loop)
{
	base_assert(base_io_loop_is_owner(loop));
	return loop->timers != NULL ? loop->timers->deadline_ns : BASE_TIME_NEVER;
}

uint64_t base_io_loop_now_ns(const struct base_io_loop *loop)
{
	return base_clock_boot_ns(loop->clock);
}

bool base_io_loop_has_ring(const struct base_io_loop *loop)
{
	return loop->has_ring;
}

/* --- beginning and end --- */

static void stop_run(struct base_io_task *task)
{
	struct base_io_loop *loop =
		(struct base_io_loop *)((char *)task - offsetof(struct base_io_loop, stop_task));

	loop->stopping = true;
}

int base_io_loop_new(const struct base_io_loop_options *options, struct base_io_loop **ret_loop,
		     struct base_error *err)
{
	struct base_io_loop *loop = calloc(1, sizeof(*loop));

	if (loop == NULL)
		return base_fail(err, -ENOMEM, "I/O loop: no memory");
	loop->clock =
		options != NULL && options->clock != NULL ? options->clock : &base_clock_system;
	loop->may_sleep = loop->clock == &base_clock_system;
	loop->want_ring = options == NULL || !options->without_ring;
	loop->stop_task.run = stop_run;
	/* Blocking on purpose: the ring waits in a read of it only then. */
	loop->event_fd = eventfd(0, EFD_CLOEXEC);
	if (loop->event_fd < 0) {
		int code = -errno;

		free(loop);
		return base_fail_errno(err, code, "I/O loop: eventfd");
	}
	(void)pthread_mutex_init(&loop->lock, NULL);
	(void)pthread_cond_init(&loop->changed, NULL);
	atomic_store(&loop->owner, pthread_self());
	ring_open(loop);
	*ret_loop = loop;
	return 0;
}

static void *loop_body(void *context)
{
	struct base_io_loop *loop = context;

	ring_open(loop);
	{
		BASE_LOCKED(&loop->lock);

		atomic_store(&loop->owner, pthread_self());
		loop->thread_runs = true;
		(void)pthread_cond_broadcast(&loop->changed);
	}
	for (;;) {
		(void)run_ready(loop);
		if (loop->stopping)
			break;
		idle(loop);
	}
	ring_close(loop);
	return NULL;
}

int base_io_loop_start(struct base_io_loop *loop, const char *name, struct base_error *err)
{
	int code = 0;

	base_assert(base_io_loop_is_owner(loop) && !loop->started);
	ring_close(loop); /* a ring belongs to one thread: the new one makes its own */
	loop->started = true;
	code = base_thread_start(&loop->thread, name, loop_body, loop, err);
	if (code < 0) {
		loop->started = false;
		ring_open(loop);
		return base_fail_within(err, code, "I/O loop");
	}
	{
		BASE_LOCKED(&loop->lock);

		while (!loop->thread_runs)
			(void)pthread_cond_wait(&loop->changed, &loop->lock);
	}
	return 0;
}

void base_io_loop_free(struct base_io_loop *loop)
{
	if (loop == NULL)
		return;
	if (loop->started) {
		if (base_io_loop_is_owner(loop))
			base_bug("an I/O loop is freed on its own thread");
		base_io_post(loop, &loop->stop_task);
		base_thread_join(loop->thread);
	} else {
		base_assert(base_io_loop_is_owner(loop));
		(void)run_ready(loop);
		ring_close(loop);
	}
	base_closep(&loop->event_fd);
	(void)pthread_cond_destroy(&loop->changed);
	(void)pthread_mutex_destroy(&loop->lock);
	free(loop);
}
