/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The only place that reads a clock, sleeps or draws random bytes.
 *
 * Time is nanoseconds in uint64_t.  Deadlines are CLOCK_BOOTTIME: it goes on while
 * the host sleeps.  struct base_clock lets a test put its own time in.  Any thread.
 */
#ifndef BASE_CLOCK_H
#define BASE_CLOCK_H

#include <pthread.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define BASE_NS_PER_SECOND 1000000000ULL
#define BASE_NS_PER_MS     1000000ULL
#define BASE_NS_PER_US     1000ULL
#define BASE_TIME_NEVER    UINT64_MAX /* a deadline that never comes */

struct base_clock {
	uint64_t (*boot_ns)(void *context); /* CLOCK_BOOTTIME */
	uint64_t (*real_ns)(void *context); /* CLOCK_REALTIME since 1970 */
	void *context;
};

/* The host's own clocks. */
extern const struct base_clock base_clock_system;

uint64_t base_clock_boot_ns(const struct base_clock *clock);
uint64_t base_clock_real_ns(const struct base_clock *clock);

/* Processor time of the calling thread: what it did, not what it waited.  A system call. */
uint64_t base_thread_cpu_ns(void);

/* A clock set by hand, for tests: fill base_clock with base_clock_fake(&fake). */
struct base_fake_clock {
	uint64_t boot_ns;
	uint64_t real_ns;
};
struct base_clock base_clock_fake(struct base_fake_clock *fake);

/* Sleep at least @duration_ns (CLOCK_BOOTTIME), also over signals. */
void base_sleep_ns(uint64_t duration_ns);

/**
 * base_cond_wait - wait for @cond under @lock, at most until @deadline_ns (CLOCK_BOOTTIME;
 * BASE_TIME_NEVER: for ever).  May come back early; false: the deadline has passed.
 */
bool base_cond_wait(pthread_cond_t *cond, pthread_mutex_t *lock, uint64_t deadline_ns);

/* The processor's time stamp counter. */
uint64_t base_tsc_read(void);

/* Fill with bytes from the kernel's generator; aborts when there are none. */
void base_random_bytes(void *to, size_t size_bytes);

#endif
