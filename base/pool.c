/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Worker threads over one ring of jobs.  The jobs lie in the ring by value, so that
 * submitting one allocates nothing.
 *
 * base_pool_each() shares its work through one reference-counted struct each_run: a
 * helper that a busy pool begins only after the call has returned finds nothing left
 * to do and drops its reference.  So the call never waits for a helper that has not
 * begun.  Both locks here are leaves; no job runs under one.
 */
#include "base/pool.h"

#include <errno.h>
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdlib.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/thread.h"

struct job {
	void (*run)(void *context);
	void *context;
};

struct base_pool {
	pthread_mutex_t lock;
	pthread_cond_t has_job; /* or closed */
	bool closed;
	uint32_t first; /* index of the oldest job */
	uint32_t count;
	struct job jobs[BASE_POOL_JOBS_MAX];
	uint32_t thread_count; /* started so far; constant after base_pool_new() */
	pthread_t threads[BASE_POOL_THREADS_MAX];
};

/* The oldest job; false when the pool is closed and nothing is queued any more. */
static bool job_take(struct base_pool *pool, struct job *ret_job)
{
	BASE_LOCKED(&pool->lock);

	while (pool->count == 0 && !pool->closed)
		(void)pthread_cond_wait(&pool->has_job, &pool->lock);
	if (pool->count == 0)
		return false;
	*ret_job = pool->jobs[pool->first];
	pool->first = (pool->first + 1) % BASE_POOL_JOBS_MAX;
	pool->count--;
	return true;
}

static void *pool_thread(void *context)
{
	struct base_pool *pool = context;
	struct job job;

	while (job_take(pool, &job))
		job.run(job.context);
	return NULL;
}

static void pool_close(struct base_pool *pool)
{
	BASE_LOCKED(&pool->lock);

	pool->closed = true;
	(void)pthread_cond_broadcast(&pool->has_job);
}

void base_pool_free(struct base_pool *pool)
{
	if (pool == NULL)
		return;
	pool_close(pool);
	for (uint32_t i = 0; i < pool->thread_count; i++)
		base_thread_join(pool->threads[i]);
	(void)pthread_cond_destroy(&pool->has_job);
	(void)pthread_mutex_destroy(&pool->lock);
	free(pool);
}

BASE_DEFINE_FREEP(struct base_pool, base_pool_free);

int base_pool_new(uint32_t thread_count, const char *name, struct base_pool **ret_pool,
		  struct base_error *err)
{
	BASE_CLEANUP(base_pool_freep) struct base_pool *pool = NULL;
	int code = 0;

	if (thread_count == 0 || thread_count > BASE_POOL_THREADS_MAX)
		return base_fail(err, -EINVAL, "pool '%s': %u threads, not 1..%d", name,
				 thread_count, BASE_POOL_THREADS_MAX);
	pool = calloc(1, sizeof(*pool));
	if (pool == NULL)
		return base_fail(err, -ENOMEM, "pool '%s': no memory", name);

	(void)pthread_mutex_init(&pool->lock, NULL); /* these two cannot fail on Linux */
	(void)pthread_cond_init(&pool->has_job, NULL);
	for (; pool->thread_count < thread_count; pool->thread_count++) {
		code = base_thread_start(&pool->threads[pool->thread_count], name, pool_thread,
					 pool, err);
		if (code < 0)
			return base_fail_within(err, code, "pool '%s'", name);
	}
	*ret_pool = base_take(&pool);
	return 0;
}

int base_pool_submit(struct base_pool *pool, void (*job)(void *context), void *context)
{
	BASE_LOCKED(&pool->lock);

	base_assert(!pool->closed);
	if (pool->count == BASE_POOL_JOBS_MAX)
		return -EAGAIN;
	pool->jobs[(pool->first + pool->count) % BASE_POOL_JOBS_MAX] =
		(struct job){ .run = job, .context = context };
	pool->count++;
	(void)pthread_cond_signal(&pool->has_job);
	return 0;
}

struct each_run {
	/* Set once before any helper sees it. */
	uint64_t count;
	int (*step)(void *context, uint64_t index, struct base_error *err);
	void *context;

	_Atomic uint64_t next; /* first index nobody has claimed */
	atomic_bool stopped;   /* a step failed: claim no more */

	pthread_mutex_t lock;
	pthread_cond_t idle;
	uint32_t references;
	uint32_t active; /* threads inside each_work() */
	int code;        /* of the first failure */
	struct base_error failure;
};

static bool each_claim(struct each_run *run, uint64_t *ret_index)
{
	uint64_t next = atomic_load_explicit(&run->next, memory_order_relaxed);

	do {
		if (next >= run->count || atomic_load(&run->stopped))
			return false;
	} while (!atomic_compare_exchange_weak(&run->next, &next, next + 1));
	*ret_index = next;
	return true;
}

static void each_failed(struct each_run *run, int code, const struct base_error *failure)
{
	BASE_LOCKED(&run->lock);

	atomic_store(&run->stopped, true);
	if (run->code != 0)
		return;
	run->code = code;
	run->failure = *failure;
}

static void each_work(struct each_run *run)
{
	struct base_error failure = { .code = 0 };
	uint64_t index = 0;

	while (each_claim(run, &index)) {
		int code = run->step(run->context, index, &failure);

		if (code < 0)
			each_failed(run, code, &failure);
	}
}

static void each_enter(struct each_run *run)
{
	BASE_LOCKED(&run->lock);

	run->active++;
}

/* Leaves the work and drops one reference; the last one releases the run. */
static void each_drop(struct each_run *run, bool was_active)
{
	bool last = false;

	{
		BASE_LOCKED(&run->lock);

		run->active -= was_active ? 1 : 0;
		if (run->active == 0)
			(void)pthread_cond_signal(&run->idle);
		run->references--;
		last = run->references == 0;
	}
	if (!last)
		return;
	(void)pthread_cond_destroy(&run->idle);
	(void)pthread_mutex_destroy(&run->lock);
	free(run);
}

static void each_helper(void *context)
{
	struct each_run *run = context;

	/*
	 * Entered before the first claim: as long as an index may be claimed here, the
	 * caller sees an active thread or has not yet claimed the last index itself.
	 */
	each_enter(run);
	each_work(run);
	each_drop(run, true);
}

static void each_invite(struct base_pool *pool, struct each_run *run)
{
	uint64_t wanted = run->count - 1; /* one index is the caller's */

	if (wanted > pool->thread_count)
		wanted = pool->thread_count;
	for (uint64_t i = 0; i < wanted; i++) {
		{
			BASE_LOCKED(&run->lock);

			run->references++;
		}
		if (base_pool_submit(pool, each_helper, run) < 0) {
			each_drop(run, false); /* a full queue: fewer hands, same work */
			return;
		}
	}
}

int base_pool_each(struct base_pool *pool, uint64_t count,
		   int (*step)(void *context, uint64_t index, struct base_error *err),
		   void *context, struct base_error *err)
{
	struct each_run *run = NULL;
	int code = 0;

	if (count == 0)
		return 0;
	run = calloc(1, sizeof(*run));
	if (run == NULL)
		return base_fail(err, -ENOMEM, "parallel run of %zu bytes: no memory",
				 sizeof(*run));
	run->count = count;
	run->step = step;
	run->context = context;
	run->references = 1;
	(void)pthread_mutex_init(&run->lock, NULL);
	(void)pthread_cond_init(&run->idle, NULL);

	each_invite(pool, run);
	each_work(run); /* on return every index is claimed, or none will be any more */
	{
		BASE_LOCKED(&run->lock);

		while (run->active > 0)
			(void)pthread_cond_wait(&run->idle, &run->lock);
		code = run->code;
		if (code < 0 && err != NULL)
			*err = run->failure;
	}
	each_drop(run, false);
	return code;
}

uint32_t base_cpu_count(void)
{
	cpu_set_t allowed;
	long online = 0;

	if (sched_getaffinity(0, sizeof(allowed), &allowed) == 0 && CPU_COUNT(&allowed) > 0)
		return (uint32_t)CPU_COUNT(&allowed);
	online = sysconf(_SC_NPROCESSORS_ONLN); /* more processors than the set holds */
	return online > 0 ? (uint32_t)online : 1;
}
