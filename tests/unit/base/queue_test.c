/* SPDX-License-Identifier: Apache-2.0 */
#include "base/queue.h"

#include <criterion/criterion.h>
#include <errno.h>
#include <stdint.h>

#include "base/thread.h"
#include "tests/support/alloc_fail.h"

static void *item(uintptr_t number)
{
	return (void *)number;
}

static uintptr_t number_of(void *pointer)
{
	return (uintptr_t)pointer;
}

static struct base_queue *queue_of(size_t capacity)
{
	struct base_queue *queue = NULL;

	cr_assert_eq(base_queue_new(capacity, &queue, NULL), 0);
	return queue;
}

Test(queue, capacity_is_checked)
{
	struct base_error err = { .code = 0 };
	struct base_queue *queue = NULL;

	cr_assert_eq(base_queue_new(0, &queue, &err), -EINVAL);
	cr_assert_eq(base_queue_new(BASE_QUEUE_CAPACITY_MAX + 1, &queue, &err), -EINVAL);
	cr_assert_eq(base_queue_new(SIZE_MAX, &queue, &err), -EINVAL);
	cr_assert_null(queue);
	cr_assert_eq(base_queue_new(BASE_QUEUE_CAPACITY_MAX, &queue, &err), 0);
	base_queue_free(queue);
	base_queue_free(NULL);
}

Test(queue, no_memory)
{
	struct base_error err = { .code = 0 };
	struct base_queue *queue = NULL;

	alloc_fail_at(0);
	cr_assert_eq(base_queue_new(4, &queue, &err), -ENOMEM);
	cr_assert(alloc_fail_done());
	cr_assert_null(queue);
}

Test(queue, first_in_first_out_over_the_end_of_the_ring)
{
	struct base_queue *queue = queue_of(3);
	void *out = NULL;

	for (uintptr_t i = 1; i < 20; i += 2) {
		cr_assert_eq(base_queue_try_push(queue, item(i)), 0);
		cr_assert_eq(base_queue_push(queue, item(i + 1)), 0);
		cr_assert_eq(base_queue_try_pop(queue, &out), 0);
		cr_assert_eq(number_of(out), i);
		cr_assert_eq(base_queue_pop(queue, &out), 0);
		cr_assert_eq(number_of(out), i + 1);
	}
	base_queue_free(queue);
}

Test(queue, full_and_empty_say_again)
{
	struct base_queue *queue = queue_of(2);
	void *out = item(99);

	cr_assert_eq(base_queue_try_pop(queue, &out), -EAGAIN);
	cr_assert_eq(number_of(out), 99, "nothing is written on failure");
	cr_assert_eq(base_queue_try_push(queue, item(1)), 0);
	cr_assert_eq(base_queue_try_push(queue, item(2)), 0);
	cr_assert_eq(base_queue_try_push(queue, item(3)), -EAGAIN);
	base_queue_free(queue);
}

Test(queue, closed_takes_no_more_but_gives_what_it_has)
{
	struct base_queue *queue = queue_of(2);
	void *out = NULL;

	cr_assert_eq(base_queue_try_push(queue, item(1)), 0);
	base_queue_close(queue);
	base_queue_close(queue);
	cr_assert_eq(base_queue_try_push(queue, item(2)), -ECANCELED);
	cr_assert_eq(base_queue_push(queue, item(2)), -ECANCELED);
	cr_assert_eq(base_queue_pop(queue, &out), 0);
	cr_assert_eq(base_queue_pop(queue, &out), -ECANCELED);
	cr_assert_eq(base_queue_try_pop(queue, &out), -ECANCELED);
	base_queue_free(queue);
}

static void *pop_one(void *queue)
{
	void *out = NULL;

	return item((uintptr_t)-base_queue_pop(queue, &out));
}

static void *push_one(void *queue)
{
	return item((uintptr_t)-base_queue_push(queue, item(1)));
}

static uintptr_t joined(pthread_t thread)
{
	void *result = NULL;

	cr_assert_eq(pthread_join(thread, &result), 0);
	return number_of(result);
}

Test(queue, close_wakes_those_who_wait)
{
	struct base_queue *empty = queue_of(1);
	struct base_queue *full = queue_of(1);
	pthread_t popper;
	pthread_t pusher;

	cr_assert_eq(base_queue_try_push(full, item(1)), 0);
	cr_assert_eq(base_thread_start(&popper, "pop", pop_one, empty, NULL), 0);
	cr_assert_eq(base_thread_start(&pusher, "push", push_one, full, NULL), 0);
	base_queue_close(empty);
	base_queue_close(full);
	cr_assert_eq(joined(popper), ECANCELED);
	cr_assert_eq(joined(pusher), ECANCELED);
	base_queue_free(empty);
	base_queue_free(full);
}

enum {
	PER_PRODUCER = 20000,
	PRODUCERS = 4,
	CONSUMERS = 3
};

struct producer {
	struct base_queue *queue;
	uintptr_t first;
};

struct consumer {
	struct base_queue *queue;
	uint64_t count;
	uint64_t sum;
	uintptr_t last[PRODUCERS]; /* of each producer: order within one must hold */
	bool in_order;
};

static void *produce(void *context)
{
	const struct producer *producer = context;

	for (uintptr_t i = 0; i < PER_PRODUCER; i++) {
		if (base_queue_push(producer->queue, item(producer->first + i)) != 0)
			return item(1);
	}
	return NULL;
}

static void *consume(void *context)
{
	struct consumer *consumer = context;
	void *out = NULL;

	consumer->in_order = true;
	while (base_queue_pop(consumer->queue, &out) == 0) {
		uintptr_t number = number_of(out);
		size_t from = (number - 1) / PER_PRODUCER;

		consumer->in_order = consumer->in_order && number > consumer->last[from];
		consumer->last[from] = number;
		consumer->count++;
		consumer->sum += number;
	}
	return NULL;
}

Test(queue, many_threads_lose_and_repeat_nothing)
{
	struct base_queue *queue = queue_of(7);
	struct producer producers[PRODUCERS];
	struct consumer consumers[CONSUMERS] = { { .queue = queue },
						 { .queue = queue },
						 { .queue = queue } };
	pthread_t producing[PRODUCERS];
	pthread_t consuming[CONSUMERS];
	const uint64_t total = (uint64_t)PRODUCERS * PER_PRODUCER;
	uint64_t count = 0;
	uint64_t sum = 0;

	for (size_t i = 0; i < CONSUMERS; i++)
		cr_assert_eq(base_thread_start(&consuming[i], "out", consume, &consumers[i], NULL),
			     0);
	for (size_t i = 0; i < PRODUCERS; i++) {
		producers[i] = (struct producer){ .queue = queue, .first = 1 + i * PER_PRODUCER };
		cr_assert_eq(base_thread_start(&producing[i], "in", produce, &producers[i], NULL),
			     0);
	}
	for (size_t i = 0; i < PRODUCERS; i++)
		cr_assert_eq(joined(producing[i]), 0);
	base_queue_close(queue);
	for (size_t i = 0; i < CONSUMERS; i++) {
		(void)joined(consuming[i]);
		cr_assert(consumers[i].in_order);
		count += consumers[i].count;
		sum += consumers[i].sum;
	}
	cr_assert_eq(count, total);
	cr_assert_eq(sum, total * (total + 1) / 2);
	base_queue_free(queue);
}
