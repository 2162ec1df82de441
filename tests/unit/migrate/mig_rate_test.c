/* SPDX-License-Identifier: Apache-2.0 */
#include "migrate/mig_rate.h"

#include <criterion/criterion.h>
#include <errno.h>
#include <string.h>

#include "base/clock.h"
#include "migrate/mig_scale_priv.h"

#define MIB  (1ULL << 20)
#define LATE (1000 * BASE_NS_PER_SECOND)

static struct base_error err;

Test(mig_rate, no_cap_never_waits)
{
	struct mig_rate_state state = { .bytes_per_s = 0 };

	cr_assert_eq(mig_rate_step(&state, LATE, UINT64_MAX), 0);
	cr_assert_eq(mig_rate_step(&state, 0, UINT64_MAX), 0);
}

/* A burst of a tenth of a second is free, then each byte waits for those before it. */
Test(mig_rate, what_goes_beyond_waits)
{
	struct mig_rate_state state = { .bytes_per_s = 10 * MIB };

	cr_assert_eq(mig_rate_step(&state, LATE, MIB), 0);
	cr_assert_eq(mig_rate_step(&state, LATE, MIB), 0); /* the burst is used up exactly */
	cr_assert_eq(mig_rate_step(&state, LATE, MIB), BASE_NS_PER_SECOND / 10);
	cr_assert_eq(mig_rate_step(&state, LATE, 1), BASE_NS_PER_SECOND / 5);
}

Test(mig_rate, silence_saves_no_more_than_a_burst)
{
	struct mig_rate_state state = { .bytes_per_s = 10 * MIB };

	cr_assert_eq(mig_rate_step(&state, LATE, MIB), 0);
	cr_assert_eq(mig_rate_step(&state, 2 * LATE, 2 * MIB), 0);
	cr_assert_eq(mig_rate_step(&state, 2 * LATE, 1), BASE_NS_PER_SECOND / 10);
}

/* Over any stretch what was let through is at most the cap and a burst. */
Test(mig_rate, the_cap_holds_over_any_stretch)
{
	struct mig_rate_state state = { .bytes_per_s = 50 * MIB };
	uint64_t now_ns = LATE;
	uint64_t sent = 0;
	uint32_t random = 7;

	for (uint64_t i = 0; i < 20000; i++) {
		uint64_t bytes = 0;
		uint64_t most = 0;

		random = random * 1664525u + 1013904223u;
		bytes = 1 + (random >> 8) % MIB;
		now_ns += mig_rate_step(&state, now_ns, bytes);
		if (random % 7 == 0)
			now_ns += random % BASE_NS_PER_MS;
		sent += bytes;
		most = mig_scale(now_ns - LATE + BASE_NS_PER_SECOND / 10, state.bytes_per_s,
				 BASE_NS_PER_SECOND);
		/* The newest has just begun; a nanosecond was cut off each. */
		cr_assert_leq(sent, most + MIB + i);
	}
}

Test(mig_rate, numbers_do_not_wrap)
{
	struct mig_rate_state state = { .bytes_per_s = MIG_RATE_MIN_BYTES_PER_S };

	(void)mig_rate_step(&state, LATE, UINT64_MAX);
	(void)mig_rate_step(&state, LATE, UINT64_MAX);
	(void)mig_rate_step(&state, LATE, UINT64_MAX);
	cr_assert_eq(state.free_ns, UINT64_MAX);
	cr_assert_eq(mig_rate_step(&state, LATE, 1), UINT64_MAX - LATE);
	state = (struct mig_rate_state){ .bytes_per_s = UINT64_MAX };
	cr_assert_eq(mig_rate_step(&state, 0, UINT64_MAX), 0);
	cr_assert_eq(mig_rate_step(&state, 0, 0), BASE_NS_PER_SECOND);
}

Test(mig_rate, a_cap_that_is_too_low)
{
	struct mig_rate *rate = NULL;

	cr_assert_eq(mig_rate_new(1000, &rate, &err), -EINVAL);
	cr_assert_not_null(strstr(err.text, "bandwidth: 1000 bytes a second, expected 0"), "%s",
			   err.text);
	cr_assert_eq(mig_rate_new(0, &rate, &err), 0);
	cr_assert_eq(mig_rate_set(rate, 5, &err), -EINVAL);
	cr_assert_eq(mig_rate_set(rate, MIG_RATE_MIN_BYTES_PER_S, &err), 0);
	mig_rate_free(rate);
}

Test(mig_rate, a_stop_ends_the_wait, .timeout = 30)
{
	atomic_bool stop = true;
	struct mig_rate *rate = NULL;

	mig_rate_wait(NULL, UINT64_MAX, &stop);
	cr_assert_eq(mig_rate_new(MIG_RATE_MIN_BYTES_PER_S, &rate, &err), 0);
	mig_rate_wait(rate, UINT64_MAX / 4, &stop);
	mig_rate_wait(rate, 1, &stop); /* some thousands of years */
	mig_rate_free(rate);
}
