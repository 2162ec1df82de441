/* SPDX-License-Identifier: Apache-2.0 */
/* Clocks, sleep and random bytes of the host. */
#include "base/clock.h"

#include <errno.h>
#include <string.h>
#include <sys/random.h>
#include <time.h>
#include <x86intrin.h>

#include "base/error.h"

static uint64_t read_ns(clockid_t id)
{
	struct timespec now;

	if (clock_gettime(id, &now) != 0)
		base_bug("clock_gettime %d: error %d", (int)id, errno);
	return (uint64_t)now.tv_sec * BASE_NS_PER_SECOND + (uint64_t)now.tv_nsec;
}

static uint64_t system_boot_ns(void *context)
{
	(void)context;
	return read_ns(CLOCK_BOOTTIME);
}

static uint64_t system_real_ns(void *context)
{
	(void)context;
	return read_ns(CLOCK_REALTIME);
}

const struct base_clock base_clock_system = { .boot_ns = system_boot_ns,
					      .real_ns = system_real_ns };

uint64_t base_clock_boot_ns(const struct base_clock *clock)
{
	return clock->boot_ns(clock->context);
}

uint64_t base_clock_real_ns(const struct base_clock *clock)
{
	return clock->real_ns(clock->context);
}

uint64_t base_thread_cpu_ns(void)
{
	return read_ns(CLOCK_THREAD_CPUTIME_ID);
}

static uint64_t fake_boot_ns(void *context)
{
	const struct base_fake_clock *fake = context;

	return fake->boot_ns;
}

static uint64_t fake_real_ns(void *context)
{
	const struct base_fake_clock *fake = context;

	return fake->real_ns;
}

struct base_clock base_clock_fake(struct base_fake_clock *fake)
{
	return (struct base_clock){ .boot_ns = fake_boot_ns,
				    .real_ns = fake_real_ns,
				    .context = fake };
}

void base_sleep_ns(uint64_t duration_ns)
{
	uint64_t now_ns = read_ns(CLOCK_BOOTTIME);
	uint64_t until_ns = duration_ns > UINT64_MAX - now_ns ? UINT64_MAX : now_ns + duration_ns;
	struct timespec until = { .tv_sec = (time_t)(until_ns / BASE_NS_PER_SECOND),
				  .tv_nsec = (long)(until_ns % BASE_NS_PER_SECOND) };
	int code = 0;

	do {
		code = clock_nanosleep(CLOCK_BOOTTIME, TIMER_ABSTIME, &until, NULL);
	} while (code == EINTR);
	if (code != 0)
		base_bug("clock_nanosleep: error %d", code);
}

bool base_cond_wait(pthread_cond_t *cond, pthread_mutex_t *lock, uint64_t deadline_ns)
{
	uint64_t now_ns = read_ns(CLOCK_BOOTTIME);
	uint64_t until_ns = read_ns(CLOCK_MONOTONIC); /* nobody sets it */
	struct timespec until;

	if (deadline_ns == BASE_TIME_NEVER) {
		if (pthread_cond_wait(cond, lock) != 0)
			base_bug("condition: cannot be waited for");
		return true;
	}
	if (now_ns >= deadline_ns)
		return false;
	until_ns += deadline_ns - now_ns;
	until = (struct timespec){ .tv_sec = (time_t)(until_ns / BASE_NS_PER_SECOND),
				   .tv_nsec = (long)(until_ns % BASE_NS_PER_SECOND) };
	if (pthread_cond_clockwait(cond, lock, CLOCK_MONOTONIC, &until) == 0)
		return true;
	return read_ns(CLOCK_BOOTTIME) < deadline_ns;
}

uint64_t base_tsc_read(void)
{
	return __rdtsc();
}

void base_random_bytes(void *to, size_t size_bytes)
{
	uint8_t *bytes = to;

	while (size_bytes > 0) {
		ssize_t got = getrandom(bytes, size_bytes, 0);

		if (got < 0 && errno == EINTR)
			continue;
		if (got <= 0)
			base_bug("getrandom: error %d", errno);
		bytes += got;
		size_bytes -= (size_t)got;
	}
}
