/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What a dry run foretells against what then happens: whole sessions with a VM that is none, whose
 * guest writes at a given rate all over its memory, over a link with a given cap.  First a dry run,
 * then the same guest moves; each case several times, in turns.
 *
 *   forecast_bench [--quick]
 *
 * The last line says in how many of all runs the time, and the blackout, were within 25 percent,
 * and within the margin that was told.
 */
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "base/clock.h"
#include "tests/support/mig_rig.h"

#define MIB        ((uint64_t)1 << 20)
#define DRY_RUN_MS 1000u
#define NEAR       25u /* percent */

struct what {
	uint64_t cap_bytes_per_s;
	uint32_t writes_per_ms; /* 0: none */
	uint64_t goal_ms;
	uint64_t limit_ms;
	bool quick;
};
static const struct what cases[] = {
	{ 4 * MIB, 0, 300, 0, false },      { 16 * MIB, 0, 300, 0, false },
	{ 8 * MIB, 0, 300, 0, true },       { 16 * MIB, 1, 300, 0, false },
	{ 32 * MIB, 1, 100, 0, false },     { 32 * MIB, 2, 200, 0, false },
	{ 4 * MIB, 1, 100, 4000, false },   { 8 * MIB, 2, 300, 3000, false },
	{ 16 * MIB, 20, 100, 2500, false }, { 64 * MIB, 4, 100, 0, false },
};
#define CASES (sizeof(cases) / sizeof(cases[0]))

struct tally {
	uint32_t runs, time_near, time_in_margin, blackout_near, blackout_in_margin;
};

static struct mig_rig rig;

static void begin(const struct what *what, struct mig_rate **ret_rate)
{
	mig_rig_init(&rig);
	if (mig_rate_new(what->cap_bytes_per_s, ret_rate, &rig.err) < 0)
		base_bug("rate: %s", rig.err.text);
	rig.out_options.rate = *ret_rate;
	rig.out_options.quick = what->quick;
	rig.out_options.pace.downtime_goal_ns = what->goal_ms * BASE_NS_PER_MS;
	rig.out_options.pace.time_limit_ns = what->limit_ms * BASE_NS_PER_MS;
	rig.source.writes = what->writes_per_ms > 0;
	rig.source.writes_per_ms = what->writes_per_ms;
}

static void end(struct mig_rate *rate)
{
	mig_rig_fini(&rig);
	mig_rate_free(rate);
}

static struct mig_forecast foretell(const struct what *what)
{
	struct mig_forecast_facts facts;
	struct mig_forecast forecast = { .rounds = 0 };
	struct mig_rate *rate = NULL;

	begin(what, &rate);
	rig.out_options.forecast_ms = DRY_RUN_MS;
	mig_rig_begin(&rig);
	if (mig_rig_finish(&rig) != MIG_OUT_FORECAST ||
	    !mig_out_forecast(rig.out, &facts, &forecast))
		base_bug("dry run: %s", rig.err.text);
	end(rate);
	return forecast;
}

static struct mig_out_report move(const struct what *what)
{
	struct mig_out_report report;
	struct mig_rate *rate = NULL;

	begin(what, &rate);
	mig_rig_begin(&rig);
	if (mig_rig_finish(&rig) != MIG_OUT_MOVED)
		base_bug("move: %s", rig.err.text);
	mig_out_report(rig.out, &report);
	end(rate);
	return report;
}

static uint64_t apart(uint64_t a, uint64_t b)
{
	return a > b ? a - b : b - a;
}

static double ms(uint64_t ns)
{
	return (double)ns / BASE_NS_PER_MS;
}

static void compare(const struct what *what, struct tally *tally)
{
	struct mig_forecast forecast = foretell(what);
	struct mig_out_report report = move(what);
	uint64_t time_by = apart(forecast.total_ns, report.total_ns);
	uint64_t blackout_by = apart(forecast.blackout_ns, report.blackout_ns);

	tally->runs++;
	tally->time_near += time_by * 100 <= report.total_ns * NEAR;
	tally->time_in_margin += time_by <= forecast.total_margin_ns;
	tally->blackout_near += blackout_by * 100 <= report.blackout_ns * NEAR;
	tally->blackout_in_margin += blackout_by <= forecast.blackout_margin_ns;
	printf("%3" PRIu64 " MiB/s %5u pages/s%s goal %3" PRIu64
	       ": time %7.0f (+- %5.0f) ms, was %7.0f; blackout %6.1f (+- %6.1f) ms, was %6.1f; "
	       "rounds %u, was %u\n",
	       what->cap_bytes_per_s / MIB, what->writes_per_ms * 1000, what->quick ? " quick" : "",
	       what->goal_ms, ms(forecast.total_ns), ms(forecast.total_margin_ns),
	       ms(report.total_ns), ms(forecast.blackout_ns), ms(forecast.blackout_margin_ns),
	       ms(report.blackout_ns), forecast.rounds, report.rounds);
	(void)fflush(stdout);
}

int main(int argc, char **argv)
{
	uint32_t times = argc > 1 && strcmp(argv[1], "--quick") == 0 ? 1 : 3;
	struct tally tally = { 0 };

	for (uint32_t i = 0; i < times; i++)
		for (uint32_t j = 0; j < CASES; j++)
			compare(&cases[j], &tally);
	printf("of %u: time within %u%% %u, within its margin %u; blackout within %u%% %u, within "
	       "its "
	       "margin %u\n",
	       tally.runs, NEAR, tally.time_near, tally.time_in_margin, NEAR, tally.blackout_near,
	       tally.blackout_in_margin);
	return 0;
}
