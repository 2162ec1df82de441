/* SPDX-License-Identifier: Apache-2.0 */
#include "migrate/mig_forecast.h"

#include "base/clock.h"
#include "migrate/mig_scale_priv.h"

#define MARGIN_PERCENT 15u /* of a rate and of what a guest writes: both change */
#define MARGIN_LEAST   10u /* percent of a time: what was measured is never exact */
#define STEPS          8u  /* of a mean over a curve */

/* How it may turn out. */
struct way {
	uint32_t rate_percent;
	uint32_t written_percent;
	bool grows;
};
static const struct way ways[] = {
	{ 100, 100, true },
	{ 100 + MARGIN_PERCENT, 100 - MARGIN_PERCENT, false },
	{ 100 - MARGIN_PERCENT, 100 + MARGIN_PERCENT, true },
};
#define WAYS (sizeof(ways) / sizeof(ways[0]))

static uint64_t plus(uint64_t a, uint64_t b)
{
	return a > UINT64_MAX - b ? UINT64_MAX : a + b;
}

static uint64_t between(const struct mig_forecast_point *from, const struct mig_forecast_point *to,
			uint64_t at_ns)
{
	return plus(from->bytes, mig_scale(to->bytes - from->bytes, at_ns - from->after_ns,
					   to->after_ns - from->after_ns));
}

uint64_t mig_forecast_written(const struct mig_forecast_curve *curve, uint64_t after_ns, bool grows)
{
	struct mig_forecast_point last = { .after_ns = 0 };
	struct mig_forecast_point before = last;

	for (uint32_t i = 0; i < curve->count; i++) {
		if (after_ns <= curve->points[i].after_ns)
			return between(&last, &curve->points[i], after_ns);
		before = last;
		last = curve->points[i];
	}
	if (!grows || last.after_ns <= before.after_ns)
		return last.bytes;
	return between(&before, &last, after_ns);
}

/* What the guest writes behind a round that takes @took_ns: each page counts from when it was sent,
 * so it is the mean over the time. */
static uint64_t mean_written(const struct mig_forecast_facts *facts, uint64_t took_ns, bool grows)
{
	uint64_t sum = 0;

	for (uint64_t i = 1; i <= STEPS; i++)
		sum = plus(sum, mig_forecast_written(&facts->curve, mig_scale(took_ns, i, STEPS),
						     grows) /
					STEPS);
	return sum;
}

static uint64_t at_most(uint64_t value, uint64_t most)
{
	return value < most ? value : most;
}

/* Hot spans go last in the first round. */
static uint64_t left_after(const struct mig_forecast_facts *facts, const struct way *way,
			   uint64_t rate, uint32_t round, uint64_t took_ns)
{
	uint64_t hot_ns = mig_scale(facts->hot_bytes, BASE_NS_PER_SECOND, rate);
	uint64_t written = round == 0 ? mean_written(facts, at_most(hot_ns, took_ns), way->grows)
				      : mig_forecast_written(&facts->curve, took_ns, way->grows);

	return at_most(mig_scale(written, way->written_percent, 100), facts->total_bytes);
}

static struct mig_forecast go_through(const struct mig_forecast_facts *facts, const struct way *way)
{
	uint64_t rate = mig_scale(facts->rate_bytes_per_s, way->rate_percent, 100);
	struct mig_pace pace = mig_pace_begin(&facts->pace, 0, facts->total_bytes);
	struct mig_forecast forecast = { .rounds = 0 };
	enum mig_pace_step step = MIG_PACE_ROUND;
	uint64_t left = facts->total_bytes;
	uint64_t now_ns = 0;

	while (step == MIG_PACE_ROUND && !facts->quick) {
		uint64_t sent = left;
		uint64_t took_ns = plus(mig_scale(sent, BASE_NS_PER_SECOND, rate), facts->round_ns);

		now_ns = plus(now_ns, took_ns);
		left = left_after(facts, way, rate, forecast.rounds++, took_ns);
		step = mig_pace_next(&pace, now_ns, sent, took_ns, left);
	}
	forecast.rounds++;
	if (facts->quick) { /* all of it in the blackout */
		pace.rate_bytes_per_s = rate;
	}
	forecast.is_cancelled = step == MIG_PACE_CANCEL;
	forecast.is_post = step == MIG_PACE_POST;
	if (forecast.is_post) { /* what is left follows */
		now_ns = plus(now_ns, mig_scale(left, BASE_NS_PER_SECOND, rate));
		left = 0;
	}
	forecast.meets_goal = !facts->quick && !forecast.is_cancelled &&
			      mig_pace_blackout_ns(&pace, left) <= pace.options.downtime_goal_ns;
	if (facts->last_bytes_per_s != 0 && !facts->quick)
		pace.rate_bytes_per_s = mig_scale(facts->last_bytes_per_s, way->rate_percent, 100);
	forecast.blackout_ns = mig_pace_blackout_ns(&pace, left);
	forecast.total_ns = plus(plus(facts->begin_ns, now_ns), forecast.blackout_ns);
	return forecast;
}

static uint64_t apart(uint64_t a, uint64_t b)
{
	return a > b ? a - b : b - a;
}

static uint64_t wider(uint64_t margin, uint64_t value, uint64_t other)
{
	uint64_t by = apart(value, other);

	return by > margin ? by : margin;
}

static uint64_t fixed_ns(const struct mig_forecast_facts *facts)
{
	return mig_pace_begin(&facts->pace, 0, 0).options.fixed_ns;
}

struct mig_forecast mig_forecast_make(const struct mig_forecast_facts *facts)
{
	struct mig_forecast forecast = go_through(facts, &ways[0]);

	forecast.total_margin_ns = mig_scale(forecast.total_ns, MARGIN_LEAST, 100);
	/* The fixed costs are a guess, as far as all of them may be less. */
	forecast.blackout_margin_ns =
		plus(mig_scale(forecast.blackout_ns, MARGIN_LEAST, 100), fixed_ns(facts));
	for (uint32_t i = 1; i < WAYS; i++) {
		struct mig_forecast other = go_through(facts, &ways[i]);

		forecast.total_margin_ns =
			wider(forecast.total_margin_ns, forecast.total_ns, other.total_ns);
		forecast.blackout_margin_ns =
			wider(forecast.blackout_margin_ns, forecast.blackout_ns, other.blackout_ns);
	}
	if (facts->curve.count > 0) {
		const struct mig_forecast_point *last =
			&facts->curve.points[facts->curve.count - 1];

		forecast.dirty_bytes_per_s =
			mig_scale(last->bytes, BASE_NS_PER_SECOND, last->after_ns);
	}
	return forecast;
}
