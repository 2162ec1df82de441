/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Ownership by scope: cleanup attributes and the hand-over that ends them.
 *
 * A local that owns something is declared with one of these and given away with
 * base_take()/base_take_fd(); what was not given away is released when the scope
 * ends.  Release functions accept NULL and -1.
 */
#ifndef BASE_CLEANUP_H
#define BASE_CLEANUP_H

#include <pthread.h>
#include <stdio.h>

/* BASE_CLEANUP(fn) - run fn(&variable) at the end of the variable's scope. */
#define BASE_CLEANUP(release) __attribute__((cleanup(release)))

/* BASE_DEFINE_FREEP(type, release) - define "release##p", which frees *p for BASE_CLEANUP.
 * The declaration at its end wants the semicolon. */
#define BASE_DEFINE_FREEP(type, release)                                                           \
	static inline void release##p(type **held) /* NOLINT(bugprone-macro-parentheses) */        \
	{                                                                                          \
		release(*held);                                                                    \
	}                                                                                          \
	static inline void release##p(type **held) /* NOLINT(bugprone-macro-parentheses) */

void base_freep(void *held); /* free() of the pointer that @held points to */
void base_closep(int *fd);   /* close() unless negative; errno is kept */
void base_fclosep(FILE **file);
void base_unlockp(pthread_mutex_t **mutex);

#define BASE_FREE   BASE_CLEANUP(base_freep)
#define BASE_CLOSE  BASE_CLEANUP(base_closep)
#define BASE_FCLOSE BASE_CLEANUP(base_fclosep)

/* BASE_LOCKED(mutex) - hold @mutex until the scope ends. */
#define BASE_LOCKED_JOIN2(a, b) a##b
#define BASE_LOCKED_JOIN(a, b)  BASE_LOCKED_JOIN2(a, b)
#define BASE_LOCKED(mutex)                                                                         \
	pthread_mutex_t *BASE_LOCKED_JOIN(base_locked_, __LINE__)                                  \
		__attribute__((cleanup(base_unlockp), unused)) = base_lock(mutex)

/* base_lock - lock and return @mutex; a lock that fails is a bug. */
pthread_mutex_t *base_lock(pthread_mutex_t *mutex);

/* base_take(&pointer) - give the pointer away: its value is returned, NULL stays behind. */
#define base_take(held)                                                                            \
	__extension__({                                                                            \
		__typeof__(*(held)) base_taken_ = *(held);                                         \
		*(held) = NULL;                                                                    \
		base_taken_;                                                                       \
	})

/* base_take_fd - give a descriptor away: its value is returned, -1 stays behind. */
static inline int base_take_fd(int *fd)
{
	int taken = *fd;

	*fd = -1;
	return taken;
}

#endif
