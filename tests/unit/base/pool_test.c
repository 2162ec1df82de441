/* SPDX-License-Identifier: Apache-2.0 */
#include "base/pool.h"

#include <criterion/criterion.h>
#include <errno.h>
#include <semaphore.h>
#include <stdatomic.h>
#include <stdlib.h>

#include "tests/support/alloc_fail.h"

static struct base_pool *pool_of(uint32_t thread_count)
{
	struct base_pool *pool = NULL;

	cr_assert_eq(base_pool_new(thread_count, "test", &pool, NULL), 0);
	return pool;
}

Test(pool, arguments_are_checked)
{
	struct base_error err = { .code = 0 };
	struct base_pool *pool = NULL;

	cr_assert_eq(base_pool_new(0, "test", &pool, &err), -EINVAL);
	cr_assert_eq(base_pool_new(BASE_POOL_THREADS_MAX + 1, "test", &pool, &err), -EINVAL);
	cr_assert_eq(base_pool_new(1, "a name of more than 15 bytes", &pool, &err), -EINVAL);
	cr_assert_null(pool);
	base_pool_free(NULL);
}

Test(pool, no_memory)
{
	struct base_pool *pool = NULL;

	alloc_fail_at(0);
	cr_assert_eq(base_pool_new(1, "test", &pool, NULL), -ENOMEM);
	cr_assert(alloc_fail_done());
	cr_assert_null(pool);
}

static void count_one(void *context)
{
	atomic_fetch_add((atomic_uint *)context, 1);
}

Test(pool, free_runs_what_is_queued)
{
	atomic_uint count = 0;
	struct base_pool *pool = pool_of(3);

	for (unsigned int i = 0; i < 1000; i++)
		cr_assert_eq(base_pool_submit(pool, count_one, &count), 0);
	base_pool_free(pool);
	cr_assert_eq(atomic_load(&count), 1000);
}

struct gate {
	sem_t begun;
	sem_t open;
};

static void wait_at_gate(void *context)
{
	struct gate *gate = context;

	(void)sem_post(&gate->begun);
	(void)sem_wait(&gate->open);
}

static void gate_init(struct gate *gate)
{
	(void)sem_init(&gate->begun, 0, 0);
	(void)sem_init(&gate->open, 0, 0);
}

Test(pool, full_queue_says_again)
{
	atomic_uint count = 0;
	struct gate gate;
	struct base_pool *pool = pool_of(1);

	gate_init(&gate);
	cr_assert_eq(base_pool_submit(pool, wait_at_gate, &gate), 0);
	(void)sem_wait(&gate.begun); /* the only thread is busy: all else queues up */
	for (unsigned int i = 0; i < BASE_POOL_JOBS_MAX; i++)
		cr_assert_eq(base_pool_submit(pool, count_one, &count), 0);
	cr_assert_eq(base_pool_submit(pool, count_one, &count), -EAGAIN);
	(void)sem_post(&gate.open);
	base_pool_free(pool);
	cr_assert_eq(atomic_load(&count), BASE_POOL_JOBS_MAX);
}

enum {
	COUNT = 50000
};

struct marks {
	atomic_uchar seen[COUNT];
};

static int mark(void *context, uint64_t index, struct base_error *err)
{
	struct marks *marks = context;

	(void)err;
	return atomic_fetch_add(&marks->seen[index], 1) == 0 ? 0 : -EEXIST;
}

Test(pool, each_index_runs_once)
{
	struct marks *marks = calloc(1, sizeof(*marks));
	struct base_pool *pool = pool_of(4);

	cr_assert_not_null(marks);
	cr_assert_eq(base_pool_each(pool, COUNT, mark, marks, NULL), 0);
	for (size_t i = 0; i < COUNT; i++)
		cr_assert_eq(atomic_load(&marks->seen[i]), 1);
	cr_assert_eq(base_pool_each(pool, 0, mark, marks, NULL), 0);
	cr_assert_eq(base_pool_each(pool, 1, mark, marks, NULL), -EEXIST);
	base_pool_free(pool);
	free(marks);
}

Test(pool, each_works_while_the_pool_is_busy)
{
	struct marks *marks = calloc(1, sizeof(*marks));
	struct gate gate;
	struct base_pool *pool = pool_of(1);

	cr_assert_not_null(marks);
	gate_init(&gate);
	cr_assert_eq(base_pool_submit(pool, wait_at_gate, &gate), 0);
	(void)sem_wait(&gate.begun);
	/* The helper cannot begin: the caller does it all and does not wait for it. */
	cr_assert_eq(base_pool_each(pool, COUNT, mark, marks, NULL), 0);
	(void)sem_post(&gate.open);
	base_pool_free(pool);
	free(marks);
}

struct failing {
	uint64_t bad;
	atomic_uint begun;
	atomic_int running;
};

static int fail_at(void *context, uint64_t index, struct base_error *err)
{
	struct failing *failing = context;
	int code = 0;

	atomic_fetch_add(&failing->running, 1);
	atomic_fetch_add(&failing->begun, 1);
	if (index == failing->bad)
		code = base_fail(err, -EIO, "step %d", (int)index);
	atomic_fetch_sub(&failing->running, 1);
	return code;
}

Test(pool, each_gives_the_failure_and_skips_the_rest)
{
	struct base_error err = { .code = 0 };
	struct base_pool *pool = pool_of(3);

	for (uint64_t bad = 0; bad < 200; bad++) {
		struct failing failing = { .bad = bad };

		cr_assert_eq(base_pool_each(pool, 1000000000, fail_at, &failing, &err), -EIO);
		cr_assert_eq(err.code, -EIO);
		cr_assert_eq(strtoull(err.text + 5, NULL, 10), bad);
		cr_assert_eq(atomic_load(&failing.running), 0);
		cr_assert_geq(atomic_load(&failing.begun), bad + 1);
	}
	base_pool_free(pool);
}

static int fail_always(void *context, uint64_t index, struct base_error *err)
{
	(void)context;
	return base_fail(err, index == 0 ? -EIO : -ENOSPC, "step");
}

Test(pool, each_keeps_code_and_text_together)
{
	struct base_pool *pool = pool_of(3);

	for (int i = 0; i < 200; i++) {
		struct base_error err = { .code = 0 };

		cr_assert_eq(base_pool_each(pool, 100, fail_always, NULL, &err), err.code);
		cr_assert_neq(err.code, 0);
	}
	base_pool_free(pool);
}

Test(pool, each_without_memory)
{
	struct base_error err = { .code = 0 };
	struct failing failing = { .bad = UINT64_MAX };
	struct base_pool *pool = pool_of(1);

	alloc_fail_at(0);
	cr_assert_eq(base_pool_each(pool, 10, fail_at, &failing, &err), -ENOMEM);
	cr_assert(alloc_fail_done());
	cr_assert_eq(atomic_load(&failing.begun), 0);
	base_pool_free(pool);
}

struct nested {
	struct base_pool *pool;
	atomic_uint total;
};

static int inner(void *context, uint64_t index, struct base_error *err)
{
	(void)index;
	(void)err;
	atomic_fetch_add(&((struct nested *)context)->total, 1);
	return 0;
}

static int outer(void *context, uint64_t index, struct base_error *err)
{
	(void)index;
	return base_pool_each(((struct nested *)context)->pool, 10, inner, context, err);
}

Test(pool, each_inside_each_ends)
{
	struct nested nested = { .pool = pool_of(2) };

	cr_assert_eq(base_pool_each(nested.pool, 100, outer, &nested, NULL), 0);
	cr_assert_eq(atomic_load(&nested.total), 1000);
	base_pool_free(nested.pool);
}

Test(pool, there_is_a_processor)
{
	cr_assert_geq(base_cpu_count(), 1);
}
