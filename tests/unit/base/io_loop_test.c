/* SPDX-License-Identifier: Apache-2.0 */
#include "base/io_loop.h"

#include <criterion/criterion.h>
#include <errno.h>
#include <fcntl.h>
#include <liburing.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/thread.h"
#include "tests/support/alloc_fail.h"

static struct base_io_loop *loop_of(const struct base_io_loop_options *options)
{
	struct base_io_loop *loop = NULL;

	cr_assert_eq(base_io_loop_new(options, &loop, NULL), 0);
	return loop;
}

/* Both kinds of sleeping; the first may be the same as the second where there is no ring. */
static const struct base_io_loop_options kinds[] = {
	{ .without_ring = false },
	{ .without_ring = true },
};

Test(io_loop, no_memory)
{
	struct base_io_loop *loop = NULL;

	alloc_fail_at(0);
	cr_assert_eq(base_io_loop_new(NULL, &loop, NULL), -ENOMEM);
	cr_assert(alloc_fail_done());
	cr_assert_null(loop);
	base_io_loop_free(NULL);
}

Test(io_loop, no_descriptors)
{
	struct base_io_loop *loop = NULL;
	struct base_error err = { .code = 0 };
	int fds[4096];
	int count = 0;

	while (count < 4096 && (fds[count] = dup(STDERR_FILENO)) >= 0)
		count++;
	if (count < 4096)
		cr_assert_eq(base_io_loop_new(NULL, &loop, &err), -EMFILE);
	while (count > 0)
		(void)close(fds[--count]);
	cr_assert_null(loop);
}

Test(io_loop, a_thread_name_is_checked)
{
	struct base_io_loop *loop = loop_of(NULL);

	cr_assert_eq(base_io_loop_start(loop, "a name of more than 15 bytes", NULL), -EINVAL);
	base_io_loop_free(loop); /* still its maker's */
}

/* --- tasks --- */

struct numbered {
	struct base_io_task task; /* first */
	struct base_io_loop *loop;
	uint32_t number;
	uint32_t again; /* posts itself so many times */
};

static uint32_t seen[100];
static uint32_t seen_count;

static void note(struct base_io_task *task)
{
	struct numbered *numbered = (struct numbered *)task;

	seen[seen_count++] = numbered->number;
	if (numbered->again > 0) {
		numbered->again--;
		base_io_post(numbered->loop, task);
	}
}

Test(io_loop, tasks_run_in_order_and_wait_for_the_next_turn)
{
	struct base_io_loop *loop = loop_of(NULL);
	struct numbered tasks[3];

	for (uint32_t i = 0; i < 3; i++) {
		tasks[i] = (struct numbered){ .task.run = note, .loop = loop, .number = i };
		base_io_post(loop, &tasks[i].task);
	}
	tasks[0].again = 1;
	cr_assert(base_io_loop_step(loop, true));
	cr_assert_eq(seen_count, 3); /* not what was posted on the way */
	cr_assert(base_io_loop_step(loop, false));
	cr_assert_not(base_io_loop_step(loop, false));
	cr_assert_eq(seen_count, 4);
	for (uint32_t i = 0; i < 4; i++)
		cr_assert_eq(seen[i], i % 3);
	base_io_loop_free(loop);
}

/* The tasks behind it would be lost, and whoever waits for them waits for ever. */
Test(io_loop, a_task_queued_twice_is_a_bug, .signal = SIGABRT)
{
	struct base_io_loop *loop = loop_of(NULL);
	struct numbered task = { .task.run = note, .loop = loop };

	base_io_post(loop, &task.task);
	cr_assert(base_io_loop_step(loop, false));
	base_io_post(loop, &task.task); /* it ran */
	cr_assert_eq(seen_count, 1);
	base_io_post(loop, &task.task);
}

enum {
	POSTERS = 4,
	POSTS = 5000
};

struct poster {
	struct base_io_loop *loop;
	pthread_t thread;
	struct counted {
		struct base_io_task task; /* first */
		struct poster *poster;
		uint32_t number;
	} tasks[POSTS];
	uint32_t next; /* the loop's */
	bool wrong;
	bool all;
};

static void count_in_order(struct base_io_task *task)
{
	struct counted *counted = (struct counted *)task;
	struct poster *poster = counted->poster;

	if (counted->number != poster->next)
		poster->wrong = true;
	if (++poster->next == POSTS)
		base_io_done(poster->loop, &poster->all);
}

static void *post_all(void *context)
{
	struct poster *poster = context;

	for (uint32_t i = 0; i < POSTS; i++) {
		poster->tasks[i] = (struct counted){ .task.run = count_in_order,
						     .poster = poster,
						     .number = i };
		base_io_post(poster->loop, &poster->tasks[i].task);
	}
	return NULL;
}

static void many_posters(const struct base_io_loop_options *options, bool started)
{
	struct base_io_loop *loop = loop_of(options);
	struct poster *posters = calloc(POSTERS, sizeof(*posters));

	cr_assert_not_null(posters);
	if (started)
		cr_assert_eq(base_io_loop_start(loop, "disk", NULL), 0);
	for (int i = 0; i < POSTERS; i++) {
		posters[i].loop = loop;
		cr_assert_eq(base_thread_start(&posters[i].thread, "poster", post_all, &posters[i],
					       NULL),
			     0);
	}
	for (int i = 0; i < POSTERS; i++)
		base_io_wait(loop, &posters[i].all);
	for (int i = 0; i < POSTERS; i++) {
		base_thread_join(posters[i].thread);
		cr_assert_not(posters[i].wrong);
	}
	base_io_loop_free(loop);
	free(posters);
}

Test(io_loop, posts_of_many_threads_arrive_in_each_ones_order)
{
	for (size_t i = 0; i < 2; i++) {
		many_posters(&kinds[i], false);
		many_posters(&kinds[i], true);
	}
}

struct look {
	struct base_io_loop *loop;
	bool owner;
	int count;
};

static void look_who(void *context)
{
	struct look *look = context;

	look->owner = base_io_loop_is_owner(look->loop);
	look->count++;
}

Test(io_loop, a_call_runs_on_the_owner)
{
	struct look look = { .count = 0 };

	for (size_t i = 0; i < 2; i++) {
		look.loop = loop_of(&kinds[i]);
		base_io_call(look.loop, look_who, &look);
		cr_assert(look.owner && look.count == 1);
		cr_assert_eq(base_io_loop_start(look.loop, "disk", NULL), 0);
		cr_assert_not(base_io_loop_is_owner(look.loop));
		for (int k = 0; k < 1000; k++)
			base_io_call(look.loop, look_who, &look);
		cr_assert(look.owner && look.count == 1001);
		base_io_loop_free(look.loop);
		look.count = 0;
	}
}

struct gate {
	_Atomic bool is_open;
	_Atomic bool is_reached;
};

static void wait_at_gate(void *context)
{
	struct gate *gate = context;

	atomic_store(&gate->is_reached, true);
	while (!atomic_load(&gate->is_open))
		base_sleep_ns(BASE_NS_PER_MS);
}

static void *stand_at_gate(void *context)
{
	void **both = context;

	base_io_call(both[0], wait_at_gate, both[1]);
	return NULL;
}

static void must_not_run(void *context)
{
	(void)context;
	cr_assert_fail("called after its caller gave up");
}

/* A stuck loop, and later a free one: what was given up is never called. */
Test(io_loop, a_bounded_call_gives_up)
{
	struct gate gate = { .is_open = false };
	struct base_io_loop *loop = loop_of(NULL);
	void *both[] = { loop, &gate };
	struct look look = { .loop = loop };
	pthread_t thread;

	cr_assert_eq(base_io_loop_start(loop, "io", NULL), 0);
	cr_assert_eq(base_thread_start(&thread, "stuck", stand_at_gate, both, NULL), 0);
	while (!atomic_load(&gate.is_reached))
		base_sleep_ns(BASE_NS_PER_MS);
	cr_assert_eq(base_io_call_within(loop, 20, must_not_run, NULL), -ETIMEDOUT);
	alloc_fail_at(0);
	cr_assert_eq(base_io_call_within(loop, 20, must_not_run, NULL), -ENOMEM);
	cr_assert(alloc_fail_done());
	atomic_store(&gate.is_open, true);
	base_thread_join(thread);
	cr_assert_eq(base_io_call_within(loop, 60000, look_who, &look), 0);
	cr_assert(look.owner && look.count == 1);
	base_io_loop_free(loop);
}

static void take_long(void *context)
{
	uint32_t *count = context;

	base_sleep_ns(20 * BASE_NS_PER_MS);
	(*count)++;
}

/* It uses what its caller lent it: told to be over only when it is. */
Test(io_loop, a_bounded_call_that_has_begun_is_waited_for)
{
	struct base_io_loop *loop = loop_of(NULL);
	uint32_t count = 0;
	int code = -ETIMEDOUT;

	cr_assert_eq(base_io_call_within(loop, 0, take_long, &count), 0, "the owner's own");
	cr_assert_eq(count, 1);
	cr_assert_eq(base_io_loop_start(loop, "io", NULL), 0);
	while (code == -ETIMEDOUT) /* before it began: then it never does */
		code = base_io_call_within(loop, 5, take_long, &count);
	cr_assert_eq(code, 0);
	cr_assert_eq(count, 2);
	base_io_loop_free(loop);
}

static void count_down(struct base_io_task *task)
{
	((struct numbered *)task)->number++;
}

Test(io_loop, free_runs_what_was_posted)
{
	struct numbered task = { .task.run = count_down };
	struct base_io_loop *loop = loop_of(NULL);

	cr_assert_eq(base_io_loop_start(loop, "disk", NULL), 0);
	base_io_post(loop, &task.task);
	base_io_loop_free(loop);
	cr_assert_eq(task.number, 1);
	loop = loop_of(NULL);
	base_io_post(loop, &task.task);
	base_io_loop_free(loop);
	cr_assert_eq(task.number, 2);
}

/* --- timers --- */

struct alarm {
	struct base_io_timer timer; /* first */
	struct base_io_loop *loop;
	struct alarm *stops;
	uint32_t count;
	bool rung;
};

static void ring(struct base_io_timer *timer)
{
	struct alarm *alarm = (struct alarm *)timer;

	alarm->count++;
	if (alarm->stops != NULL)
		base_io_timer_disarm(alarm->loop, &alarm->stops->timer);
	base_io_done(alarm->loop, &alarm->rung);
}

Test(io_loop, timers_of_a_fake_clock)
{
	struct base_fake_clock fake = { .boot_ns = 100 };
	struct base_clock clock = base_clock_fake(&fake);
	struct base_io_loop *loop = loop_of(&(struct base_io_loop_options){ .clock = &clock });
	struct alarm alarms[3];

	for (int i = 0; i < 3; i++)
		alarms[i] = (struct alarm){ .timer.expired = ring, .loop = loop };
	cr_assert_eq(base_io_loop_next_ns(loop), BASE_TIME_NEVER);
	base_io_timer_disarm(loop, &alarms[0].timer); /* idle: fine */
	base_io_timer_arm(loop, &alarms[0].timer, 300);
	base_io_timer_arm(loop, &alarms[1].timer, 200);
	base_io_timer_arm(loop, &alarms[2].timer, 200);
	alarms[1].stops = &alarms[2]; /* due in the same turn */
	cr_assert_eq(base_io_loop_next_ns(loop), 200);
	cr_assert_not(base_io_loop_step(loop, true)); /* does not sleep */
	fake.boot_ns = 200;
	cr_assert(base_io_loop_step(loop, true));
	cr_assert(alarms[1].count == 1 && alarms[2].count == 0);
	base_io_timer_arm(loop, &alarms[0].timer, 250); /* moved */
	cr_assert_eq(base_io_loop_next_ns(loop), 250);
	fake.boot_ns = 1000;
	cr_assert_eq(base_io_loop_now_ns(loop), 1000);
	cr_assert(base_io_loop_step(loop, false));
	cr_assert_eq(alarms[0].count, 1);
	base_io_timer_arm(loop, &alarms[0].timer, BASE_TIME_NEVER);
	cr_assert_eq(base_io_loop_next_ns(loop), BASE_TIME_NEVER);
	base_io_loop_free(loop);
}

static void arm_soon(void *context)
{
	struct alarm *alarm = context;

	base_io_timer_arm(alarm->loop, &alarm->timer,
			  base_io_loop_now_ns(alarm->loop) + BASE_NS_PER_MS);
}

Test(io_loop, a_timer_wakes_who_sleeps)
{
	for (size_t i = 0; i < 4; i++) {
		struct alarm alarm = { .timer.expired = ring, .loop = loop_of(&kinds[i % 2]) };

		if (i >= 2)
			cr_assert_eq(base_io_loop_start(alarm.loop, "disk", NULL), 0);
		base_io_call(alarm.loop, arm_soon, &alarm);
		base_io_wait(alarm.loop, &alarm.rung);
		base_io_loop_free(alarm.loop);
		cr_assert_eq(alarm.count, 1);
	}
}

/* --- the ring --- */

enum {
	READS = 20000 /* more than the submissions and the results that the ring holds */
};

struct reader {
	struct base_io_loop *loop;
	int fd;
	uint32_t finished;
	uint32_t good;
	bool all;
	struct one_read {
		struct base_io_completion completion; /* first */
		struct reader *reader;
		uint8_t byte;
	} reads[READS];
};

static void read_done(struct base_io_completion *completion, int32_t result)
{
	struct one_read *one = (struct one_read *)completion;
	struct reader *reader = one->reader;
	uint32_t index = (uint32_t)(one - reader->reads);

	if (result == 1 && one->byte == (uint8_t)(index % 251))
		reader->good++;
	if (++reader->finished == READS)
		base_io_done(reader->loop, &reader->all);
}

static void read_all(void *context)
{
	struct reader *reader = context;

	for (uint32_t i = 0; i < READS; i++) {
		struct one_read *one = &reader->reads[i];

		*one = (struct one_read){ .completion.done = read_done, .reader = reader };
		io_uring_prep_read(base_io_sqe(reader->loop, &one->completion), reader->fd,
				   &one->byte, 1, i);
	}
}

Test(io_loop, more_submissions_than_the_ring_holds)
{
	struct reader *reader = calloc(1, sizeof(*reader));
	uint8_t content[READS];
	FILE *file = tmpfile();

	cr_assert(reader != NULL && file != NULL);
	for (uint32_t i = 0; i < READS; i++)
		content[i] = (uint8_t)(i % 251);
	reader->fd = fileno(file);
	cr_assert_eq(pwrite(reader->fd, content, sizeof(content), 0), (ssize_t)sizeof(content));
	for (int started = 0; started < 2; started++) {
		reader->loop = loop_of(NULL);
		if (!base_io_loop_has_ring(reader->loop)) {
			base_io_loop_free(reader->loop);
			cr_skip_test("this kernel or sandbox refuses io_uring");
		}
		if (started != 0)
			cr_assert_eq(base_io_loop_start(reader->loop, "disk", NULL), 0);
		reader->finished = 0;
		reader->good = 0;
		reader->all = false;
		base_io_call(reader->loop, read_all, reader);
		base_io_wait(reader->loop, &reader->all);
		cr_assert_eq(reader->good, READS);
		base_io_loop_free(reader->loop);
	}
	(void)fclose(file);
	free(reader);
}

enum {
	NOPS = BASE_IO_RING_ENTRIES /* there is no room left for the loop's own submission */
};

struct nops {
	struct one_nop {
		struct base_io_completion completion; /* first */
		struct nops *nops;
	} all[NOPS];
	struct base_io_loop *loop;
	uint32_t finished;
	bool done;
};

static void nop_done(struct base_io_completion *completion, int32_t result)
{
	struct nops *nops = ((struct one_nop *)completion)->nops;

	cr_assert_eq(result, 0);
	if (++nops->finished == NOPS)
		base_io_done(nops->loop, &nops->done);
}

static void nop_all(void *context)
{
	struct nops *nops = context;

	nops->finished = 0;
	nops->done = false;
	for (uint32_t i = 0; i < NOPS; i++) {
		nops->all[i] = (struct one_nop){ .completion.done = nop_done, .nops = nops };
		io_uring_prep_nop(base_io_sqe(nops->loop, &nops->all[i].completion));
	}
}

/* All of them have ended by the time that the loop made room for what wakes it. */
Test(io_loop, a_full_ring_does_not_sleep_over_its_results, .timeout = 60)
{
	struct nops *nops = calloc(1, sizeof(*nops));

	cr_assert_not_null(nops);
	for (int started = 0; started < 2; started++) {
		nops->loop = loop_of(NULL);
		if (!base_io_loop_has_ring(nops->loop)) {
			base_io_loop_free(nops->loop);
			cr_skip_test("this kernel or sandbox refuses io_uring");
		}
		if (started != 0)
			cr_assert_eq(base_io_loop_start(nops->loop, "disk", NULL), 0);
		for (int i = 0; i < 3; i++) {
			base_io_call(nops->loop, nop_all, nops);
			base_io_wait(nops->loop, &nops->done);
		}
		base_io_loop_free(nops->loop);
	}
	free(nops);
}

Test(io_loop, without_a_ring_when_asked)
{
	struct base_io_loop *loop = loop_of(&kinds[1]);

	cr_assert_not(base_io_loop_has_ring(loop));
	base_io_loop_free(loop);
}
