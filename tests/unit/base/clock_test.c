/* SPDX-License-Identifier: Apache-2.0 */
#include "base/clock.h"

#include <criterion/criterion.h>
#include <string.h>

Test(clock, boot_time_never_goes_back)
{
	uint64_t before_ns = base_clock_boot_ns(&base_clock_system);

	for (int i = 0; i < 1000; i++) {
		uint64_t now_ns = base_clock_boot_ns(&base_clock_system);

		cr_assert_geq(now_ns, before_ns);
		before_ns = now_ns;
	}
}

Test(clock, real_time_is_after_2020)
{
	cr_assert_gt(base_clock_real_ns(&base_clock_system), 1577836800ULL * BASE_NS_PER_SECOND);
}

Test(clock, sleep_takes_at_least_its_time)
{
	uint64_t begin_ns = base_clock_boot_ns(&base_clock_system);

	base_sleep_ns(2 * BASE_NS_PER_MS);
	cr_assert_geq(base_clock_boot_ns(&base_clock_system) - begin_ns, 2 * BASE_NS_PER_MS);
	base_sleep_ns(0);
}

Test(clock, fake_clock_stands_where_it_is_put)
{
	struct base_fake_clock fake = { .boot_ns = 5, .real_ns = 7 };
	struct base_clock clock = base_clock_fake(&fake);

	cr_assert_eq(base_clock_boot_ns(&clock), 5);
	cr_assert_eq(base_clock_real_ns(&clock), 7);
	fake.boot_ns = 6;
	cr_assert_eq(base_clock_boot_ns(&clock), 6);
}

Test(clock, tsc_goes_on)
{
	uint64_t before = base_tsc_read();

	base_sleep_ns(BASE_NS_PER_MS);
	cr_assert_neq(base_tsc_read(), before);
}

Test(clock, random_bytes_differ_and_stay_inside)
{
	uint8_t first[34];
	uint8_t second[34];

	memset(first, 0, sizeof(first));
	memset(second, 0, sizeof(second));
	base_random_bytes(first + 1, 32);
	base_random_bytes(second + 1, 32);
	cr_assert_neq(memcmp(first, second, sizeof(first)), 0);
	cr_assert_eq(first[0] + first[33] + second[0] + second[33], 0);
	base_random_bytes(first, 0);
}

/* --- conditions --- */

static pthread_mutex_t cond_lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t cond = PTHREAD_COND_INITIALIZER;
static bool cond_done;

static void *signal_cond(void *context)
{
	(void)context;
	(void)pthread_mutex_lock(&cond_lock);
	cond_done = true;
	(void)pthread_cond_broadcast(&cond);
	(void)pthread_mutex_unlock(&cond_lock);
	return NULL;
}

Test(clock, a_condition_or_its_deadline)
{
	uint64_t now_ns = base_clock_boot_ns(&base_clock_system);
	pthread_t thread;

	(void)pthread_mutex_lock(&cond_lock);
	cr_assert_not(base_cond_wait(&cond, &cond_lock, now_ns)); /* over already */
	cr_assert_not(base_cond_wait(&cond, &cond_lock, 0));
	while (base_cond_wait(&cond, &cond_lock, now_ns + 2 * BASE_NS_PER_MS))
		continue;
	cr_assert_geq(base_clock_boot_ns(&base_clock_system), now_ns + 2 * BASE_NS_PER_MS);
	cr_assert_eq(pthread_create(&thread, NULL, signal_cond, NULL), 0);
	while (!cond_done)
		cr_assert(base_cond_wait(&cond, &cond_lock, BASE_TIME_NEVER));
	(void)pthread_mutex_unlock(&cond_lock);
	cr_assert_eq(pthread_join(thread, NULL), 0);
}
