/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The control loop: one epoll set with the users' descriptors, one eventfd (posts and
 * stop) and one timerfd for the earliest timer.
 *
 * A watch removed while events are being handed out may still be named by an event of
 * the same batch: it is unlinked at once but released after the batch.  Timers are a
 * list ordered by deadline: a process has a few dozen.
 */
#include "base/loop.h"

#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/timerfd.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/clock.h"
#include "base/log.h"

#define EVENTS_PER_WAIT 64 /* more only delays timers and posts */

struct base_loop_fd {
	struct base_loop *loop;
	struct base_loop_fd *next;
	struct base_loop_fd **link; /* what points here; NULL once removed */
	int fd;
	void (*ready)(void *context, uint32_t events);
	void *context;
};

struct base_loop_timer {
	struct base_loop *loop;
	struct base_loop_timer *next; /* among the armed ones, by deadline */
	struct base_loop_timer *next_made;
	struct base_loop_timer **link_made; /* what points here in the list of all */
	bool armed;
	uint64_t deadline_ns;
	void (*expired)(void *context);
	void *context;
};

struct post {
	void (*call)(void *context);
	void *context;
};

struct base_loop {
	int epoll_fd;
	int event_fd;
	int timer_fd;
	_Atomic pthread_t owner; /* 0 while nobody runs the loop */
	atomic_bool stopped;

	/* The owner's. */
	bool in_batch;
	struct base_loop_fd *watches;
	struct base_loop_fd *removed; /* released after the batch */
	struct base_loop_timer *timers;
	struct base_loop_timer *armed;
	uint64_t timer_fd_ns; /* what the timerfd is set to */

	pthread_mutex_t lock; /* a leaf; no call runs under it */
	uint32_t first;       /* index of the oldest post */
	uint32_t count;
	struct post posts[BASE_LOOP_POSTS_MAX];
};

/* Marks of the loop's own descriptors in an event; their addresses are all that counts. */
static char event_mark;
static char timer_mark;

bool base_loop_is_owner(const struct base_loop *loop)
{
	pthread_t owner = atomic_load(&loop->owner);

	return owner == 0 || pthread_equal(owner, pthread_self()) != 0;
}

static void watches_release(struct base_loop_fd **list)
{
	while (*list != NULL) {
		struct base_loop_fd *watch = *list;

		*list = watch->next;
		free(watch);
	}
}

void base_loop_free(struct base_loop *loop)
{
	if (loop == NULL)
		return;
	base_assert(atomic_load(&loop->owner) == 0);
	watches_release(&loop->watches);
	watches_release(&loop->removed);
	while (loop->timers != NULL) {
		struct base_loop_timer *timer = loop->timers;

		loop->timers = timer->next_made;
		free(timer);
	}
	base_closep(&loop->timer_fd);
	base_closep(&loop->event_fd);
	base_closep(&loop->epoll_fd);
	(void)pthread_mutex_destroy(&loop->lock);
	free(loop);
}

BASE_DEFINE_FREEP(struct base_loop, base_loop_free);

static int own_fd_add(struct base_loop *loop, int fd, void *mark, struct base_error *err)
{
	struct epoll_event event = { .events = EPOLLIN, .data.ptr = mark };

	if (fd < 0)
		return base_fail_errno(err, -errno, "loop: descriptor");
	if (epoll_ctl(loop->epoll_fd, EPOLL_CTL_ADD, fd, &event) < 0)
		return base_fail_errno(err, -errno, "loop: epoll_ctl");
	return 0;
}

int base_loop_new(struct base_loop **ret_loop, struct base_error *err)
{
	BASE_CLEANUP(base_loop_freep) struct base_loop *loop = calloc(1, sizeof(*loop));
	int code = 0;

	if (loop == NULL)
		return base_fail(err, -ENOMEM, "loop: no memory");
	(void)pthread_mutex_init(&loop->lock, NULL);
	loop->timer_fd_ns = BASE_TIME_NEVER;
	loop->event_fd = -1;
	loop->timer_fd = -1;
	loop->epoll_fd = epoll_create1(EPOLL_CLOEXEC);
	if (loop->epoll_fd < 0)
		return base_fail_errno(err, -errno, "loop: epoll_create1");
	loop->event_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	code = own_fd_add(loop, loop->event_fd, &event_mark, err);
	if (code < 0)
		return code;
	loop->timer_fd = timerfd_create(CLOCK_BOOTTIME, TFD_CLOEXEC | TFD_NONBLOCK);
	code = own_fd_add(loop, loop->timer_fd, &timer_mark, err);
	if (code < 0)
		return code;
	*ret_loop = base_take(&loop);
	return 0;
}

/* NOLINTNEXTLINE(readability-function-size): seven parameters, as the header has it */
int base_loop_add(struct base_loop *loop, int fd, uint32_t events,
		  void (*ready)(void *context, uint32_t events), void *context,
		  struct base_loop_fd **ret_watch, struct base_error *err)
{
	BASE_FREE struct base_loop_fd *watch = NULL;
	struct epoll_event event = { .events = events };

	base_assert(base_loop_is_owner(loop));
	watch = calloc(1, sizeof(*watch));
	if (watch == NULL)
		return base_fail(err, -ENOMEM, "loop: watch of descriptor %d: no memory", fd);
	watch->loop = loop;
	watch->fd = fd;
	watch->ready = ready;
	watch->context = context;
	event.data.ptr = watch;
	if (epoll_ctl(loop->epoll_fd, EPOLL_CTL_ADD, fd, &event) < 0)
		return base_fail_errno(err, -errno, "loop: watch of descriptor %d", fd);

	watch->next = loop->watches;
	watch->link = &loop->watches;
	if (watch->next != NULL)
		watch->next->link = &watch->next;
	loop->watches = watch;
	*ret_watch = base_take(&watch);
	return 0;
}

void base_loop_modify(struct base_loop_fd *watch, uint32_t events)
{
	struct epoll_event event = { .events = events, .data.ptr = watch };

	base_assert(base_loop_is_owner(watch->loop) && watch->link != NULL);
	if (epoll_ctl(watch->loop->epoll_fd, EPOLL_CTL_MOD, watch->fd, &event) < 0)
		base_bug("loop: modify of descriptor %d: error %d", watch->fd, errno);
}

void base_loop_remove(struct base_loop_fd *watch)
{
	struct base_loop *loop = NULL;

	if (watch == NULL)
		return;
	loop = watch->loop;
	base_assert(base_loop_is_owner(loop) && watch->link != NULL);
	/* EBADF when the user closed it first; the kernel has dropped it then. */
	(void)epoll_ctl(loop->epoll_fd, EPOLL_CTL_DEL, watch->fd, NULL);
	*watch->link = watch->next;
	if (watch->next != NULL)
		watch->next->link = watch->link;
	watch->link = NULL;
	watch->next = loop->removed;
	loop->removed = watch;
	if (!loop->in_batch)
		watches_release(&loop->removed);
}

int base_loop_timer_new(struct base_loop *loop, void (*expired)(void *context), void *context,
			struct base_loop_timer **ret_timer, struct base_error *err)
{
	struct base_loop_timer *timer = NULL;

	base_assert(base_loop_is_owner(loop));
	timer = calloc(1, sizeof(*timer));
	if (timer == NULL)
		return base_fail(err, -ENOMEM, "loop: timer: no memory");
	timer->loop = loop;
	timer->expired = expired;
	timer->context = context;
	timer->next_made = loop->timers;
	timer->link_made = &loop->timers;
	if (timer->next_made != NULL)
		timer->next_made->link_made = &timer->next_made;
	loop->timers = timer;
	*ret_timer = timer;
	return 0;
}

void base_loop_timer_disarm(struct base_loop_timer *timer)
{
	struct base_loop_timer **place = &timer->loop->armed;

	base_assert(base_loop_is_owner(timer->loop));
	if (!timer->armed)
		return;
	while (*place != timer)
		place = &(*place)->next;
	*place = timer->next;
	timer->armed = false;
}

void base_loop_timer_arm(struct base_loop_timer *timer, uint64_t deadline_boot_ns)
{
	struct base_loop_timer **place = &timer->loop->armed;

	base_loop_timer_disarm(timer);
	if (deadline_boot_ns == BASE_TIME_NEVER)
		return;
	while (*place != NULL && (*place)->deadline_ns <= deadline_boot_ns)
		place = &(*place)->next;
	timer->deadline_ns = deadline_boot_ns;
	timer->next = *place;
	timer->armed = true;
	*place = timer;
}

void base_loop_timer_free(struct base_loop_timer *timer)
{
	if (timer == NULL)
		return;
	base_loop_timer_disarm(timer);
	*timer->link_made = timer->next_made;
	if (timer->next_made != NULL)
		timer->next_made->link_made = timer->link_made;
	free(timer);
}

static void loop_wake(const struct base_loop *loop)
{
	const uint64_t one = 1;

	/* -EAGAIN means that the counter is full: the loop wakes anyway. */
	(void)!write(loop->event_fd, &one, sizeof(one));
}

void base_loop_stop(struct base_loop *loop)
{
	int saved_errno = errno; /* may run in a signal handler */

	atomic_store(&loop->stopped, true);
	loop_wake(loop);
	errno = saved_errno;
}

int base_loop_post(struct base_loop *loop, void (*call)(void *context), void *context)
{
	BASE_LOCKED(&loop->lock);

	if (loop->count == BASE_LOOP_POSTS_MAX)
		return -EAGAIN;
	loop->posts[(loop->first + loop->count) % BASE_LOOP_POSTS_MAX] =
		(struct post){ .call = call, .context = context };
	loop->count++;
	if (loop->count == 1)
		loop_wake(loop);
	return 0;
}

/* The oldest post; false when there is none. */
static bool post_take(struct base_loop *loop, struct post *ret_post)
{
	BASE_LOCKED(&loop->lock);

	if (loop->count == 0)
		return false;
	*ret_post = loop->posts[loop->first];
	loop->first = (loop->first + 1) % BASE_LOOP_POSTS_MAX;
	loop->count--;
	return true;
}

static void budget_check(uint64_t begin_ns, const char *what)
{
	uint64_t took_ns = base_clock_boot_ns(&base_clock_system) - begin_ns;

	if (took_ns > BASE_LOOP_BUDGET_NS)
		base_log(BASE_LOG_DEBUG, "loop.slow", "what=%s took_us=%llu", what,
			 (unsigned long long)(took_ns / BASE_NS_PER_US));
}

/* At most a full ring, so that a post that posts itself cannot starve the rest. */
static void run_posts(struct base_loop *loop)
{
	uint64_t counter = 0;
	uint32_t due = 0;
	struct post post;

	(void)!read(loop->event_fd, &counter, sizeof(counter));
	{
		BASE_LOCKED(&loop->lock);

		due = loop->count; /* a post that posts itself again waits for the next round */
	}
	for (uint32_t i = 0; i < due; i++) {
		uint64_t begin_ns = 0;

		if (atomic_load(&loop->stopped) || !post_take(loop, &post))
			break;
		begin_ns = base_clock_boot_ns(&base_clock_system);
		post.call(post.context);
		budget_check(begin_ns, "post");
	}
	{
		BASE_LOCKED(&loop->lock);

		if (loop->count > 0)
			loop_wake(loop);
	}
}

static void run_timers(struct base_loop *loop)
{
	uint64_t now_ns = base_clock_boot_ns(&base_clock_system);
	uint32_t due = 0;

	/* Counted first: a timer that re-arms itself in the past waits for the next round. */
	for (const struct base_loop_timer *timer = loop->armed;
	     timer != NULL && timer->deadline_ns <= now_ns; timer = timer->next)
		due++;
	for (; due > 0 && !atomic_load(&loop->stopped); due--) {
		struct base_loop_timer *timer = loop->armed;
		uint64_t begin_ns = 0;

		if (timer == NULL || timer->deadline_ns > now_ns)
			break; /* a callback disarmed it */
		base_loop_timer_disarm(timer);
		begin_ns = base_clock_boot_ns(&base_clock_system);
		timer->expired(timer->context); /* may free the timer */
		budget_check(begin_ns, "timer");
	}
}

static int timer_fd_set(struct base_loop *loop, struct base_error *err)
{
	uint64_t first_ns = loop->armed != NULL ? loop->armed->deadline_ns : BASE_TIME_NEVER;
	struct itimerspec spec = { .it_value.tv_sec = 0 };

	if (first_ns == loop->timer_fd_ns)
		return 0;
	if (first_ns != BASE_TIME_NEVER) {
		spec.it_value.tv_sec = (time_t)(first_ns / BASE_NS_PER_SECOND);
		spec.it_value.tv_nsec = (long)(first_ns % BASE_NS_PER_SECOND);
		if (first_ns == 0)
			spec.it_value.tv_nsec = 1; /* zero would disarm */
	}
	if (timerfd_settime(loop->timer_fd, TFD_TIMER_ABSTIME, &spec, NULL) < 0)
		return base_fail_errno(err, -errno, "loop: timerfd_settime");
	loop->timer_fd_ns = first_ns;
	return 0;
}

static void run_batch(struct base_loop *loop, const struct epoll_event *events, int count)
{
	loop->in_batch = true;
	for (int i = 0; i < count && !atomic_load(&loop->stopped); i++) {
		struct base_loop_fd *watch = events[i].data.ptr;
		uint64_t begin_ns = 0;

		if (events[i].data.ptr == &timer_mark)
			continue; /* looked at after every batch */
		if (events[i].data.ptr == &event_mark) {
			run_posts(loop);
			continue;
		}
		if (watch->link == NULL)
			continue; /* removed by an earlier callback of this batch */
		begin_ns = base_clock_boot_ns(&base_clock_system);
		watch->ready(watch->context, events[i].events);
		budget_check(begin_ns, "descriptor");
	}
	if (loop->armed != NULL)
		run_timers(loop);
	loop->in_batch = false;
	watches_release(&loop->removed);
}

static int run_until_stopped(struct base_loop *loop, struct base_error *err)
{
	struct epoll_event events[EVENTS_PER_WAIT];

	while (!atomic_load(&loop->stopped)) {
		int count = timer_fd_set(loop, err);

		if (count < 0)
			return count;
		count = epoll_wait(loop->epoll_fd, events, EVENTS_PER_WAIT, -1);
		if (count < 0 && errno == EINTR)
			continue;
		if (count < 0)
			return base_fail_errno(err, -errno, "loop: epoll_wait");
		run_batch(loop, events, count);
	}
	return 0;
}

int base_loop_run(struct base_loop *loop, struct base_error *err)
{
	pthread_t nobody = 0;
	int code = 0;

	if (!atomic_compare_exchange_strong(&loop->owner, &nobody, pthread_self()))
		base_bug("a loop is run twice at a time");
	code = run_until_stopped(loop, err);
	atomic_store(&loop->stopped, false); /* a later run begins afresh */
	atomic_store(&loop->owner, (pthread_t)0);
	return code;
}
