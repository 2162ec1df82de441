/* SPDX-License-Identifier: Apache-2.0 */
/* What is foretold from what was measured: guests that write nothing, slowly, in a hot set, faster
 * than the link, and numbers that no machine has. */
#include "migrate/mig_forecast.h"

#include <criterion/criterion.h>

#include "base/clock.h"

#define MIB  (1ULL << 20)
#define GIB  (1ULL << 30)
#define RATE (500 * MIB)

static struct mig_forecast_facts facts;

/* Writes @bytes_per_s over @set_bytes, each page once before one comes again. */
static void guest(uint64_t bytes_per_s, uint64_t set_bytes)
{
	facts.curve.count = 12;
	for (uint32_t i = 0; i < 12; i++) {
		struct mig_forecast_point *point = &facts.curve.points[i];
		uint64_t bytes = 0;

		point->after_ns = 2 * BASE_NS_PER_SECOND >> (11 - i);
		bytes = bytes_per_s / BASE_NS_PER_MS * (point->after_ns / 1000);
		point->bytes = bytes < set_bytes ? bytes : set_bytes;
	}
	facts.hot_bytes = set_bytes;
}

static void setup(void)
{
	facts = (struct mig_forecast_facts){ .total_bytes = 4 * GIB,
					     .rate_bytes_per_s = RATE,
					     .round_ns = BASE_NS_PER_MS,
					     .begin_ns = 100 * BASE_NS_PER_MS,
					     .pace = { .downtime_goal_ns = 100 * BASE_NS_PER_MS } };
}

TestSuite(mig_forecast, .init = setup);

static void expect_near(uint64_t value, uint64_t expected, const char *what)
{
	uint64_t by = value > expected ? value - expected : expected - value;

	cr_assert_leq(by, expected / 20 + BASE_NS_PER_MS, "%s: %llu, expected %llu", what,
		      (unsigned long long)value, (unsigned long long)expected);
}

Test(mig_forecast, an_idle_guest)
{
	struct mig_forecast forecast = mig_forecast_make(&facts);

	cr_assert(forecast.meets_goal);
	cr_assert_eq(forecast.rounds, 2);
	expect_near(forecast.total_ns,
		    4 * GIB * 1000 / RATE * BASE_NS_PER_MS + 105 * BASE_NS_PER_MS, "total");
	expect_near(forecast.blackout_ns, MIG_PACE_FIXED_NS, "blackout");
	cr_assert_geq(forecast.total_margin_ns, forecast.total_ns / 10);
	cr_assert_eq(forecast.dirty_bytes_per_s, 0);
}

Test(mig_forecast, a_hot_set_that_fits_into_the_pause)
{
	struct mig_forecast forecast;

	guest(200 * MIB, 20 * MIB);
	forecast = mig_forecast_make(&facts);
	cr_assert(forecast.meets_goal);
	cr_assert_leq(forecast.blackout_ns, 100 * BASE_NS_PER_MS);
	cr_assert_eq(forecast.dirty_bytes_per_s, 10 * MIB);
}

Test(mig_forecast, slower_than_the_link)
{
	struct mig_forecast forecast;

	guest(100 * MIB, 2 * GIB);
	forecast = mig_forecast_make(&facts);
	cr_assert(forecast.meets_goal);
	cr_assert_geq(forecast.rounds, 2);
	cr_assert_gt(forecast.total_ns, 4 * GIB * 1000 / RATE * BASE_NS_PER_MS);
}

/* It writes what the link carries, over all of its memory: it ends by the limit. */
Test(mig_forecast, faster_than_the_link)
{
	struct mig_forecast forecast;

	guest(2 * RATE, 4 * GIB);
	facts.pace.time_limit_ns = 60 * BASE_NS_PER_SECOND;
	forecast = mig_forecast_make(&facts);
	cr_assert_not(forecast.meets_goal);
	cr_assert_not(forecast.is_cancelled);
	cr_assert_gt(forecast.blackout_ns, 100 * BASE_NS_PER_MS);
	cr_assert_geq(forecast.total_ns, 60 * BASE_NS_PER_SECOND);
	facts.pace.late = MIG_LATE_POSTCOPY;
	forecast = mig_forecast_make(&facts);
	cr_assert(forecast.is_post);
	cr_assert(forecast.meets_goal);
	cr_assert_leq(forecast.blackout_ns, 100 * BASE_NS_PER_MS);
	facts.pace.late = MIG_LATE_CANCEL;
	forecast = mig_forecast_make(&facts);
	cr_assert(forecast.is_cancelled);
	cr_assert_not(forecast.meets_goal);
}

Test(mig_forecast, quick_is_all_blackout)
{
	struct mig_forecast forecast;

	facts.quick = true;
	forecast = mig_forecast_make(&facts);
	expect_near(forecast.blackout_ns, 4 * GIB * 1000 / RATE * BASE_NS_PER_MS, "blackout");
	expect_near(forecast.total_ns, forecast.blackout_ns + facts.begin_ns, "total");
	cr_assert_not(forecast.meets_goal);
}

/* Between points, behind the last, before the first. */
Test(mig_forecast, a_curve_is_read)
{
	guest(200 * MIB, 100 * MIB);
	cr_assert_eq(mig_forecast_written(&facts.curve, 0, true), 0);
	expect_near(mig_forecast_written(&facts.curve, 375 * BASE_NS_PER_MS, true), 75 * MIB, "at");
	cr_assert_eq(mig_forecast_written(&facts.curve, 3 * BASE_NS_PER_SECOND, true), 100 * MIB);
	guest(10 * MIB, GIB);
	expect_near(mig_forecast_written(&facts.curve, 4 * BASE_NS_PER_SECOND, true), 40 * MIB,
		    "on");
	expect_near(mig_forecast_written(&facts.curve, 4 * BASE_NS_PER_SECOND, false), 20 * MIB,
		    "no");
}

/* The worse the link, the longer; margins have both the better and the worse one in them. */
Test(mig_forecast, margins_hold_what_may_come)
{
	struct mig_forecast forecast;
	struct mig_forecast slower;

	guest(100 * MIB, 2 * GIB);
	forecast = mig_forecast_make(&facts);
	facts.rate_bytes_per_s = RATE - RATE / 10;
	slower = mig_forecast_make(&facts);
	cr_assert_gt(slower.total_ns, forecast.total_ns);
	cr_assert_leq(slower.total_ns, forecast.total_ns + forecast.total_margin_ns);
}

Test(mig_forecast, numbers_that_no_machine_has)
{
	struct mig_forecast forecast;

	guest(UINT64_MAX / 4, UINT64_MAX / 2);
	facts.total_bytes = UINT64_MAX;
	facts.rate_bytes_per_s = 1;
	facts.pace.time_limit_ns = 1;
	forecast = mig_forecast_make(&facts);
	cr_assert_not(forecast.meets_goal);
	facts.rate_bytes_per_s = 0;
	forecast = mig_forecast_make(&facts);
	cr_assert_not(forecast.meets_goal);
	facts = (struct mig_forecast_facts){ .rate_bytes_per_s = UINT64_MAX };
	forecast = mig_forecast_make(&facts);
	cr_assert(forecast.meets_goal);
}
