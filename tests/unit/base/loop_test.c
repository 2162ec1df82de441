/* SPDX-License-Identifier: Apache-2.0 */
#include "base/loop.h"

#include <criterion/criterion.h>
#include <errno.h>
#include <fcntl.h>
#include <semaphore.h>
#include <signal.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/thread.h"
#include "tests/support/alloc_fail.h"

static struct base_loop *loop;
static char name_a[] = "a"; /* contexts: they outlive the call that passes them */
static char name_f[] = "f";
static char name_r[] = "r";
static char trace[64]; /* what ran, one letter each */

static void step(char letter)
{
	size_t length = strlen(trace);

	cr_assert_lt(length, sizeof(trace) - 1);
	trace[length] = letter;
	trace[length + 1] = '\0';
}

static void begin(void)
{
	cr_assert_eq(base_loop_new(&loop, NULL), 0);
}

static void end(void)
{
	base_loop_free(loop);
}

static void stop(void *context)
{
	(void)context;
	base_loop_stop(loop);
}

static void letter(void *context)
{
	step(*(const char *)context);
}

static int ready_fd(void)
{
	int fd = eventfd(1, EFD_CLOEXEC | EFD_NONBLOCK);

	cr_assert_geq(fd, 0);
	return fd;
}

static void run(void)
{
	struct base_error err = { .code = 0 };

	cr_assert_eq(base_loop_run(loop, &err), 0, "%s", err.text);
}

Test(loop, no_memory_at_any_allocation)
{
	struct base_loop *other = NULL;

	alloc_fail_at(0);
	cr_assert_eq(base_loop_new(&other, NULL), -ENOMEM);
	cr_assert(alloc_fail_done());
	cr_assert_null(other);
	base_loop_free(NULL);
}

Test(loop, no_memory_for_watch_and_timer, .init = begin, .fini = end)
{
	struct base_loop_fd *watch = NULL;
	struct base_loop_timer *timer = NULL;

	alloc_fail_at(0);
	cr_assert_eq(base_loop_add(loop, 0, EPOLLIN, NULL, NULL, &watch, NULL), -ENOMEM);
	cr_assert(alloc_fail_done());
	alloc_fail_at(0);
	cr_assert_eq(base_loop_timer_new(loop, stop, NULL, &timer, NULL), -ENOMEM);
	cr_assert(alloc_fail_done());
	cr_assert(watch == NULL && timer == NULL);
}

Test(loop, bad_descriptor_is_refused, .init = begin, .fini = end)
{
	struct base_error err = { .code = 0 };
	struct base_loop_fd *watch = NULL;

	cr_assert_eq(base_loop_add(loop, -1, EPOLLIN, NULL, NULL, &watch, &err), -EBADF);
	cr_assert_eq(err.code, -EBADF);
	cr_assert_null(watch);
}

Test(loop, stop_before_the_run_ends_it_and_a_later_run_is_fresh, .init = begin, .fini = end)
{
	base_loop_stop(loop);
	run();
	cr_assert_eq(base_loop_post(loop, letter, name_a), 0);
	cr_assert_eq(base_loop_post(loop, stop, NULL), 0);
	run();
	cr_assert_str_eq(trace, "a");
}

static void on_signal(int number)
{
	(void)number;
	base_loop_stop(loop);
}

static void raise_signal(void *context)
{
	(void)context;
	(void)raise(SIGUSR1);
}

Test(loop, stop_from_a_signal_handler, .init = begin, .fini = end)
{
	struct sigaction action = { .sa_handler = on_signal };

	(void)sigaction(SIGUSR1, &action, NULL);
	cr_assert_eq(base_loop_post(loop, raise_signal, NULL), 0);
	run();
}

static void letter_and_stop(void *context, uint32_t events)
{
	cr_assert_eq(events & EPOLLIN, EPOLLIN);
	step(*(const char *)context);
	base_loop_stop(loop);
}

Test(loop, ready_descriptor_is_reported, .init = begin, .fini = end)
{
	struct base_loop_fd *watch = NULL;
	int fd = ready_fd();

	cr_assert_eq(base_loop_add(loop, fd, EPOLLIN, letter_and_stop, name_r, &watch, NULL), 0);
	run();
	cr_assert_str_eq(trace, "r");
	base_loop_modify(watch, 0); /* not interested: only the post below runs */
	cr_assert_eq(base_loop_post(loop, stop, NULL), 0);
	run();
	cr_assert_str_eq(trace, "r");
	base_loop_modify(watch, EPOLLIN);
	run();
	cr_assert_str_eq(trace, "rr");
	base_loop_remove(watch);
	base_loop_remove(NULL);
	cr_assert_geq(fcntl(fd, F_GETFD), 0, "the descriptor is the user's");
	(void)close(fd);
}

static void hung_up(void *context, uint32_t events)
{
	(void)context;
	cr_assert_neq(events & EPOLLHUP, 0);
	step('h');
	base_loop_stop(loop);
}

Test(loop, hang_up_is_reported_unasked, .init = begin, .fini = end)
{
	struct base_loop_fd *watch = NULL;
	int ends[2];

	cr_assert_eq(pipe2(ends, O_CLOEXEC), 0);
	cr_assert_eq(base_loop_add(loop, ends[0], 0, hung_up, NULL, &watch, NULL), 0);
	(void)close(ends[1]);
	run();
	cr_assert_str_eq(trace, "h");
	(void)close(ends[0]);
}

static struct base_loop_fd *pair[2];

/* Whichever is reported first removes both, itself and the one still in the batch. */
static void remove_both(void *context, uint32_t events)
{
	(void)context;
	(void)events;
	step('x');
	base_loop_remove(pair[0]);
	base_loop_remove(pair[1]);
	cr_assert_eq(base_loop_post(loop, stop, NULL), 0);
}

Test(loop, watches_removed_inside_a_callback_are_silent, .init = begin, .fini = end)
{
	int fds[2] = { ready_fd(), ready_fd() };

	for (int i = 0; i < 2; i++)
		cr_assert_eq(
			base_loop_add(loop, fds[i], EPOLLIN, remove_both, NULL, &pair[i], NULL), 0);
	run();
	cr_assert_str_eq(trace, "x");
	(void)close(fds[0]);
	(void)close(fds[1]);
}

static void replace_other(void *context, uint32_t events)
{
	struct base_loop_fd *fresh = NULL;
	int fd = *(const int *)context;

	(void)events;
	step('n');
	base_loop_remove(pair[0]);
	base_loop_remove(pair[1]);
	cr_assert_eq(base_loop_add(loop, fd, EPOLLIN, letter_and_stop, name_f, &fresh, NULL), 0);
}

/* A watch made in the batch where another died must not get the dead one's event. */
Test(loop, watch_added_inside_a_callback_gets_its_own_events, .init = begin, .fini = end)
{
	static int fds[2];

	for (int i = 0; i < 2; i++) {
		fds[i] = ready_fd();
		cr_assert_eq(base_loop_add(loop, fds[i], EPOLLIN, replace_other, &fds[0], &pair[i],
					   NULL),
			     0);
	}
	run();
	cr_assert_str_eq(trace, "nf");
	(void)close(fds[0]);
	(void)close(fds[1]);
}

Test(loop, timers_run_by_deadline_each_once, .init = begin, .fini = end)
{
	struct base_loop_timer *timers[5];
	char names[] = "abcde";
	uint64_t now_ns = base_clock_boot_ns(&base_clock_system);

	for (size_t i = 0; i < 5; i++)
		cr_assert_eq(base_loop_timer_new(loop, i == 4 ? stop : letter, &names[i],
						 &timers[i], NULL),
			     0);
	base_loop_timer_arm(timers[4], now_ns + 4 * BASE_NS_PER_MS);
	base_loop_timer_arm(timers[0], now_ns + 3 * BASE_NS_PER_MS);
	base_loop_timer_arm(timers[2], BASE_TIME_NEVER);
	base_loop_timer_arm(timers[3], now_ns + 2 * BASE_NS_PER_MS);
	base_loop_timer_arm(timers[1], 0);
	base_loop_timer_arm(timers[3], now_ns + 1 * BASE_NS_PER_MS); /* again: once */
	run();
	cr_assert_str_eq(trace, "bda");
	cr_assert_geq(base_clock_boot_ns(&base_clock_system), now_ns + 4 * BASE_NS_PER_MS);
	base_loop_timer_free(timers[1]);
	base_loop_timer_free(NULL);
}

static struct base_loop_timer *timer_pair[2];

static void disarm_other_free_self(void *context)
{
	size_t self = *(const size_t *)context;

	step('t');
	base_loop_timer_disarm(timer_pair[1 - self]);
	base_loop_timer_free(timer_pair[self]);
	cr_assert_eq(base_loop_post(loop, stop, NULL), 0);
}

Test(loop, timer_may_free_itself_and_disarm_another, .init = begin, .fini = end)
{
	size_t numbers[2] = { 0, 1 };

	for (size_t i = 0; i < 2; i++) {
		cr_assert_eq(base_loop_timer_new(loop, disarm_other_free_self, &numbers[i],
						 &timer_pair[i], NULL),
			     0);
		base_loop_timer_arm(timer_pair[i], 1);
	}
	run();
	cr_assert_str_eq(trace, "t");
}

static int rounds;

static void again_at_once(void *context)
{
	(void)context;
	if (rounds++ < 100)
		base_loop_timer_arm(timer_pair[0], 0);
}

static void descriptor_after_some(void *context, uint32_t events)
{
	(void)context;
	(void)events;
	if (rounds > 10)
		base_loop_stop(loop);
}

Test(loop, timer_that_is_always_due_does_not_starve_descriptors, .init = begin, .fini = end)
{
	struct base_loop_fd *watch = NULL;
	int fd = ready_fd();

	cr_assert_eq(base_loop_timer_new(loop, again_at_once, NULL, &timer_pair[0], NULL), 0);
	base_loop_timer_arm(timer_pair[0], 0);
	cr_assert_eq(base_loop_add(loop, fd, EPOLLIN, descriptor_after_some, NULL, &watch, NULL),
		     0);
	run();
	cr_assert_leq(rounds, 13);
	(void)close(fd);
}

Test(loop, posts_are_bounded, .init = begin, .fini = end)
{
	for (int i = 0; i < BASE_LOOP_POSTS_MAX; i++)
		cr_assert_eq(base_loop_post(loop, stop, NULL), 0);
	cr_assert_eq(base_loop_post(loop, stop, NULL), -EAGAIN);
}

enum {
	POSTERS = 3,
	POSTS_EACH = 5000
};

struct poster {
	size_t number;
	uint32_t next_expected; /* the loop's thread only */
};

struct message {
	struct poster *poster;
	uint32_t sequence;
};

static struct message messages[POSTERS][POSTS_EACH];
static struct poster posters[POSTERS];
static uint32_t received;
static pthread_t loop_thread;

static void receive(void *context)
{
	const struct message *message = context;

	cr_assert(pthread_equal(pthread_self(), loop_thread));
	cr_assert(base_loop_is_owner(loop));
	cr_assert_eq(message->sequence, message->poster->next_expected);
	message->poster->next_expected++;
	received++;
	if (received == POSTERS * POSTS_EACH)
		base_loop_stop(loop);
}

static void *post_all(void *context)
{
	const struct poster *poster = context;

	for (size_t i = 0; i < POSTS_EACH; i++) {
		while (base_loop_post(loop, receive, &messages[poster->number][i]) == -EAGAIN)
			base_sleep_ns(BASE_NS_PER_US); /* back-pressure */
	}
	return NULL;
}

Test(loop, posts_of_several_threads_arrive_in_order, .init = begin, .fini = end)
{
	pthread_t threads[POSTERS];

	loop_thread = pthread_self();
	for (size_t i = 0; i < POSTERS; i++) {
		posters[i].number = i;
		for (uint32_t k = 0; k < POSTS_EACH; k++)
			messages[i][k] = (struct message){ .poster = &posters[i], .sequence = k };
		cr_assert_eq(base_thread_start(&threads[i], "post", post_all, &posters[i], NULL),
			     0);
	}
	run();
	for (size_t i = 0; i < POSTERS; i++)
		base_thread_join(threads[i]);
	cr_assert_eq(received, POSTERS * POSTS_EACH);
}

static sem_t inside;
static sem_t leave;

static void stay(void *context)
{
	(void)context;
	(void)sem_post(&inside);
	(void)sem_wait(&leave);
}

static void *run_elsewhere(void *context)
{
	return (void *)(uintptr_t)(base_loop_run(context, NULL) != 0);
}

Test(loop, only_the_running_thread_is_the_owner, .init = begin, .fini = end)
{
	pthread_t thread;

	(void)sem_init(&inside, 0, 0);
	(void)sem_init(&leave, 0, 0);
	cr_assert(base_loop_is_owner(loop), "nobody runs it yet");
	cr_assert_eq(base_loop_post(loop, stay, NULL), 0);
	cr_assert_eq(base_thread_start(&thread, "runner", run_elsewhere, loop, NULL), 0);
	(void)sem_wait(&inside);
	cr_assert_not(base_loop_is_owner(loop));
	base_loop_stop(loop);
	(void)sem_post(&leave);
	base_thread_join(thread);
	cr_assert(base_loop_is_owner(loop));
}

static void arm_in_place(void *context)
{
	(void)context;
	cr_assert_eq(base_loop_post(loop, stop, NULL), 0);
}

Test(loop, timer_armed_before_the_run_fires, .init = begin, .fini = end)
{
	struct base_loop_timer *timer = NULL;

	cr_assert_eq(base_loop_timer_new(loop, arm_in_place, NULL, &timer, NULL), 0);
	base_loop_timer_arm(timer, base_clock_boot_ns(&base_clock_system) + BASE_NS_PER_MS);
	run();
}
