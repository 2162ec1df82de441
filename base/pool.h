/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Worker threads that run jobs from one bounded queue, and a parallel loop.
 * Jobs must not wait for other jobs of the same pool.
 */
#ifndef BASE_POOL_H
#define BASE_POOL_H

#include <stdint.h>

#include "base/error.h"

#define BASE_POOL_THREADS_MAX 64
#define BASE_POOL_JOBS_MAX    1024 /* queued; a producer further ahead only wastes memory */

struct base_pool;

/* @thread_count 1..BASE_POOL_THREADS_MAX; @name (up to 15 bytes) shows in ps.  -EINVAL, -ENOMEM,
 * -EAGAIN. */
BASE_MUST_CHECK int base_pool_new(uint32_t thread_count, const char *name,
				  struct base_pool **ret_pool, struct base_error *err);
/* Runs what is queued, then ends the threads.  NULL is fine. */
void base_pool_free(struct base_pool *pool);

/* Queue one job.  0; -EAGAIN when the queue is full (nothing happened). */
BASE_MUST_CHECK int base_pool_submit(struct base_pool *pool, void (*job)(void *context),
				     void *context);

/**
 * base_pool_each - run @step(context, index, err) for index 0..@count-1 on the pool and
 * the calling thread, in any order, each index once.
 * Return: 0, or the code (and text) of the first step that failed; after a failure
 * indices not begun yet are skipped.  Returns only when no step is running any more.
 */
BASE_MUST_CHECK int base_pool_each(struct base_pool *pool, uint64_t count,
				   int (*step)(void *context, uint64_t index,
					       struct base_error *err),
				   void *context, struct base_error *err);

/* Processors this process may run on, at least 1. */
uint32_t base_cpu_count(void);

#endif
