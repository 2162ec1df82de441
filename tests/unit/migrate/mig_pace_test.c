/* SPDX-License-Identifier: Apache-2.0 */
/* Guests and links made of numbers: when is it switched over, and what is shown meanwhile. */
#include "migrate/mig_pace.h"

#include <criterion/criterion.h>
#include <inttypes.h>

#include "base/clock.h"

#define MIB (1ULL << 20)
#define GIB (1ULL << 30)
#define MS  BASE_NS_PER_MS
#define SEC BASE_NS_PER_SECOND

/* A guest that writes all over its memory, and hot pages over and over. */
struct guest {
	uint64_t memory_bytes;
	uint64_t dirty_bytes_per_s; /* each page once */
	uint64_t hot_bytes;         /* dirty after any time */
	uint64_t burst_every_ns;    /* 0: none; half of it calm */
	uint64_t link_bytes_per_s;
	uint64_t latency_ns; /* of a round */
};

struct run {
	enum mig_pace_step end;
	uint32_t rounds;
	uint64_t took_ns;
	uint64_t left_bytes;
	uint64_t blackout_ns; /* what it really costs, with fixed costs as given */
	bool shown;           /* a time left */
};

static uint64_t written(const struct guest *guest, uint64_t now_ns, uint64_t took_ns)
{
	double bytes = (double)guest->dirty_bytes_per_s * (double)took_ns / (double)SEC;

	if (guest->burst_every_ns != 0 && (now_ns / (guest->burst_every_ns / 2)) % 2 == 1)
		return 0;
	bytes += (double)guest->hot_bytes;
	return bytes >= (double)guest->memory_bytes ? guest->memory_bytes : (uint64_t)bytes;
}

/* Look at progress a few times on the way through a round. */
static void watch(struct mig_pace *pace, struct run *run, uint64_t from_ns, uint64_t took_ns,
		  uint64_t bytes)
{
	uint32_t percent = pace->percent;
	uint64_t left_ns = pace->left_ns;

	for (uint32_t i = 0; i <= 4; i++) {
		struct mig_progress_view view = mig_pace_view(
			pace, from_ns + took_ns / 4 * i, i == 4 ? bytes : bytes / 4 * i, bytes);

		cr_assert_geq(view.percent, percent);
		cr_assert_leq(view.percent, 99);
		cr_assert_leq(view.left_ns, left_ns);
		run->shown = run->shown || view.left_ns != UINT64_MAX;
		percent = view.percent;
		left_ns = view.left_ns;
	}
}

static struct run drive(const struct guest *guest, const struct mig_pace_options *options)
{
	const uint64_t begin_ns = 1000 * SEC;
	uint64_t now_ns = begin_ns;
	uint64_t bytes = guest->memory_bytes;
	struct mig_pace pace = mig_pace_begin(options, now_ns, bytes);
	struct run run = { .end = MIG_PACE_ROUND };

	while (run.end == MIG_PACE_ROUND && run.rounds < MIG_PACE_ROUNDS_MAX + 10) {
		uint64_t took_ns = guest->latency_ns + (uint64_t)((double)bytes * (double)SEC /
								  (double)guest->link_bytes_per_s);
		uint64_t left = written(guest, now_ns, took_ns);

		watch(&pace, &run, now_ns, took_ns, bytes);
		now_ns += took_ns;
		run.rounds++;
		run.end = mig_pace_next(&pace, now_ns, bytes, took_ns, left);
		bytes = left;
	}
	run.left_bytes = bytes;
	run.took_ns = now_ns - begin_ns;
	run.blackout_ns = options->fixed_ns + guest->latency_ns +
			  (uint64_t)((double)bytes * (double)SEC / (double)guest->link_bytes_per_s);
	return run;
}

static const struct guest idle = { .memory_bytes = 4 * GIB, .link_bytes_per_s = 2 * GIB };
static const struct mig_pace_options ten_ms = { .downtime_goal_ns = 10 * MS,
						.time_limit_ns = 60 * SEC,
						.fixed_ns = 3 * MS };

Test(mig_pace, idle_guest_takes_one_round)
{
	struct run run = drive(&idle, &ten_ms);

	cr_assert_eq(run.end, MIG_PACE_SWITCH);
	cr_assert_eq(run.rounds, 1);
	cr_assert_eq(run.blackout_ns, 3 * MS);
	cr_assert(run.shown);
}

Test(mig_pace, nothing_to_send_takes_one_round)
{
	struct guest guest = { .memory_bytes = 0, .link_bytes_per_s = GIB };
	struct run run = drive(&guest, &ten_ms);

	cr_assert_eq(run.end, MIG_PACE_SWITCH);
	cr_assert_eq(run.rounds, 1);
}

Test(mig_pace, slow_writer_converges_within_the_goal)
{
	struct guest guest = idle;
	struct run run;

	guest.dirty_bytes_per_s = GIB / 2; /* a quarter of the link */
	run = drive(&guest, &ten_ms);
	cr_assert_eq(run.end, MIG_PACE_SWITCH);
	cr_assert_leq(run.blackout_ns, 10 * MS);
	cr_assert_lt(run.rounds, 10);
	cr_assert_lt(run.took_ns, 4 * SEC);
}

Test(mig_pace, larger_goal_takes_fewer_rounds)
{
	struct guest guest = idle;
	struct mig_pace_options options = ten_ms;
	struct run small;
	struct run large;

	guest.dirty_bytes_per_s = GIB;
	small = drive(&guest, &options);
	options.downtime_goal_ns = 0; /* the default */
	large = drive(&guest, &options);
	cr_assert_leq(large.blackout_ns, MIG_PACE_GOAL_NS);
	cr_assert_lt(large.rounds, small.rounds);
}

/* A writer as fast as the link, or faster, never gets there: the limit ends it, and the action. */
Test(mig_pace, fast_writer_ends_with_the_time_limit)
{
	static const uint64_t rates[] = { 2 * GIB, 3 * GIB, 200 * GIB };
	struct mig_pace_options options = ten_ms;
	struct guest guest = idle;
	struct run run;

	for (uint32_t i = 0; i < 3; i++) {
		guest.dirty_bytes_per_s = rates[i];
		options.late = MIG_LATE_SWITCH;
		run = drive(&guest, &options);
		cr_assert_eq(run.end, MIG_PACE_SWITCH);
		cr_assert_geq(run.took_ns, 60 * SEC);
		cr_assert_leq(run.took_ns, 72 * SEC);
		options.late = MIG_LATE_CANCEL;
		run = drive(&guest, &options);
		cr_assert_eq(run.end, MIG_PACE_CANCEL);
		cr_assert_geq(run.took_ns, 60 * SEC);
		cr_assert_leq(run.took_ns, 62 * SEC);
		options.late = MIG_LATE_POSTCOPY;
		run = drive(&guest, &options);
		cr_assert_eq(run.end, MIG_PACE_POST);
		cr_assert_geq(run.took_ns, 60 * SEC);
		cr_assert_leq(run.took_ns, 62 * SEC);
	}
}

Test(mig_pace, fast_writer_without_a_limit_ends_when_nothing_gets_better)
{
	struct mig_pace_options options = { .downtime_goal_ns = 10 * MS };
	struct guest guest = idle;
	struct run run;

	guest.dirty_bytes_per_s = 3 * GIB;
	run = drive(&guest, &options);
	cr_assert_eq(run.end, MIG_PACE_SWITCH);
	cr_assert_gt(run.rounds, 32);
	cr_assert_geq(run.took_ns, 30 * SEC);
	options.late = MIG_LATE_CANCEL;
	cr_assert_eq(drive(&guest, &options).end, MIG_PACE_CANCEL);
}

Test(mig_pace, hot_set_that_fits_is_switched)
{
	struct guest guest = idle;
	struct run run;

	guest.hot_bytes = 8 * MIB; /* 4 ms */
	run = drive(&guest, &ten_ms);
	cr_assert_eq(run.end, MIG_PACE_SWITCH);
	cr_assert_eq(run.rounds, 1);
	cr_assert_leq(run.blackout_ns, 10 * MS);
}

/* Nobody's goal is given up while it may yet be met. */
Test(mig_pace, hot_set_that_does_not_fit_waits_for_the_limit)
{
	struct guest guest = idle;
	struct run run;

	guest.hot_bytes = 256 * MIB;
	run = drive(&guest, &ten_ms);
	cr_assert_eq(run.end, MIG_PACE_SWITCH);
	cr_assert_geq(run.took_ns, 60 * SEC);
	cr_assert_leq(run.took_ns, 61 * SEC);
}

Test(mig_pace, bursts_are_waited_out)
{
	struct guest guest = idle;
	struct run run;

	guest.dirty_bytes_per_s = 10 * GIB;
	guest.burst_every_ns = 14 * SEC;
	run = drive(&guest, &ten_ms);
	cr_assert_eq(run.end, MIG_PACE_SWITCH);
	cr_assert_leq(run.blackout_ns, 10 * MS);
	cr_assert_lt(run.took_ns, 20 * SEC);
}

/* The limit comes in a burst: a few rounds later the guest has calmed down. */
Test(mig_pace, late_in_a_burst_waits_for_a_minimum)
{
	struct mig_pace_options options = { .downtime_goal_ns = 10 * MS, .time_limit_ns = 100 };
	struct mig_pace pace = mig_pace_begin(&options, 0, GIB);

	cr_assert_eq(mig_pace_next(&pace, 10, GIB, SEC / 2, 100 * MIB), MIG_PACE_ROUND);
	cr_assert_eq(mig_pace_next(&pace, 100, 100 * MIB, SEC / 20, 300 * MIB), MIG_PACE_ROUND);
	cr_assert_eq(mig_pace_next(&pace, 110, 300 * MIB, SEC / 7, 280 * MIB), MIG_PACE_ROUND);
	cr_assert_eq(mig_pace_next(&pace, 120, 280 * MIB, SEC / 7, 110 * MIB), MIG_PACE_SWITCH);
}

Test(mig_pace, late_in_a_long_burst_is_switched_in_it)
{
	struct mig_pace_options options = { .downtime_goal_ns = 10 * MS, .time_limit_ns = 100 };
	struct mig_pace pace = mig_pace_begin(&options, 0, GIB);
	uint64_t left = 100 * MIB;

	cr_assert_eq(mig_pace_next(&pace, 10, GIB, SEC / 2, left), MIG_PACE_ROUND);
	for (uint32_t i = 0; i < MIG_PACE_LATE_ROUNDS; i++) {
		left *= 2;
		cr_assert_eq(mig_pace_next(&pace, 100 + i, left, SEC, left * 2), MIG_PACE_ROUND);
	}
	cr_assert_eq(mig_pace_next(&pace, 200, left, SEC, left * 4), MIG_PACE_SWITCH);
}

/* The fixed costs are more than the goal: as good as it gets, at once. */
Test(mig_pace, goal_below_the_fixed_costs_ends_at_a_minimum)
{
	struct mig_pace_options options = { .downtime_goal_ns = 10 * MS, .fixed_ns = 20 * MS };
	struct guest guest = idle;
	struct run run;

	guest.hot_bytes = MIB;
	guest.dirty_bytes_per_s = GIB / 2;
	run = drive(&guest, &options);
	cr_assert_eq(run.end, MIG_PACE_SWITCH);
	cr_assert_leq(run.blackout_ns, 25 * MS);
	cr_assert_lt(run.rounds, 10);

	guest.hot_bytes = 256 * MIB;
	run = drive(&guest, &options);
	cr_assert_eq(run.end, MIG_PACE_SWITCH);
	cr_assert_lt(run.rounds, 12);

	options.late = MIG_LATE_CANCEL;
	run = drive(&guest, &options);
	cr_assert_eq(run.end, MIG_PACE_CANCEL);
}

/* Memory follows, disks do not: they are given a few rounds to come down. */
Test(mig_pace, post_copy_waits_for_disks)
{
	struct mig_pace_options options = ten_ms;
	struct mig_pace pace;

	options.late = MIG_LATE_POSTCOPY;
	pace = mig_pace_begin(&options, 0, GIB);
	cr_assert_eq(mig_pace_next(&pace, 61 * SEC, GIB, SEC, GIB), MIG_PACE_POST);
	cr_assert_eq(mig_pace_post(&pace, 0), MIG_PACE_POST);
	cr_assert_eq(mig_pace_post(&pace, MIB), MIG_PACE_POST);
	for (uint32_t i = 0; i < MIG_PACE_LATE_ROUNDS; i++)
		cr_assert_eq(mig_pace_post(&pace, 20 * MIB), MIG_PACE_ROUND);
	cr_assert_eq(mig_pace_post(&pace, 20 * MIB), MIG_PACE_POST, "it ends all the same");
}

/* What fits without the fixed costs does not fit with them. */
Test(mig_pace, fixed_costs_are_counted)
{
	struct mig_pace_options options = ten_ms;
	struct mig_pace pace;

	options.fixed_ns = 8 * MS;
	pace = mig_pace_begin(&options, 0, GIB);
	cr_assert_eq(mig_pace_next(&pace, SEC, GIB, SEC, 5 * MIB), MIG_PACE_ROUND); /* 5 + 8 ms */
	cr_assert_eq(mig_pace_blackout_ns(&pace, GIB), SEC + 8 * MS);
	cr_assert_eq(mig_pace_next(&pace, SEC + 1, 5 * MIB, 5 * MS, MIB), MIG_PACE_SWITCH);
}

Test(mig_pace, clock_that_stands_still_or_goes_back)
{
	struct mig_pace pace = mig_pace_begin(&ten_ms, 5 * SEC, GIB);
	enum mig_pace_step step = MIG_PACE_ROUND;
	uint32_t rounds = 0;

	cr_assert_eq(mig_pace_view(&pace, 5 * SEC, GIB / 2, GIB).left_ns, UINT64_MAX);
	cr_assert_eq(mig_pace_blackout_ns(&pace, 1), UINT64_MAX);
	while (step == MIG_PACE_ROUND && rounds <= MIG_PACE_ROUNDS_MAX + MIG_PACE_LATE_ROUNDS) {
		step = mig_pace_next(&pace, rounds % 2 == 0 ? 5 * SEC : 4 * SEC, GIB, 0, GIB);
		(void)mig_pace_view(&pace, 4 * SEC, 1, 2);
		rounds++;
	}
	cr_assert_eq(step, MIG_PACE_SWITCH);
	cr_assert_eq(rounds, MIG_PACE_ROUNDS_MAX);

	/* Nothing left needs no clock. */
	pace = mig_pace_begin(&ten_ms, 5 * SEC, GIB);
	cr_assert_eq(mig_pace_next(&pace, 5 * SEC, GIB, 0, 0), MIG_PACE_SWITCH);
}

Test(mig_pace, numbers_near_the_end_do_not_wrap)
{
	struct mig_pace_options options = { .downtime_goal_ns = 1,
					    .time_limit_ns = UINT64_MAX,
					    .fixed_ns = UINT64_MAX - 1 };
	struct mig_pace pace = mig_pace_begin(&options, 0, UINT64_MAX);

	cr_assert_eq(mig_pace_next(&pace, 1, UINT64_MAX, UINT64_MAX, UINT64_MAX - 1),
		     MIG_PACE_ROUND);
	cr_assert_eq(mig_pace_blackout_ns(&pace, UINT64_MAX), UINT64_MAX);
	cr_assert_eq(mig_pace_next(&pace, 2, UINT64_MAX, 1, UINT64_MAX), MIG_PACE_ROUND);
	/* No goal can be met, and nothing gets less. */
	cr_assert_eq(mig_pace_next(&pace, 3, 1, UINT64_MAX, UINT64_MAX), MIG_PACE_SWITCH);
	cr_assert_leq(mig_pace_view(&pace, UINT64_MAX, UINT64_MAX, UINT64_MAX).percent, 99);
	cr_assert_leq(mig_pace_view(&pace, UINT64_MAX, UINT64_MAX, 0).percent, 99);
	cr_assert_neq(mig_pace_next(&pace, UINT64_MAX, UINT64_MAX, 1, UINT64_MAX),
		      MIG_PACE_INVALID);
}

/* A round of one page is all latency: it does not say that the link has become slow. */
Test(mig_pace, small_rounds_hardly_move_the_rate)
{
	struct mig_pace pace = mig_pace_begin(&ten_ms, 0, GIB);
	uint64_t before;

	(void)mig_pace_next(&pace, SEC, GIB, SEC, GIB);
	before = pace.rate_bytes_per_s;
	(void)mig_pace_next(&pace, SEC + MS, 4096, MS, GIB);
	cr_assert_gt(pace.rate_bytes_per_s, before - before / 10);
	(void)mig_pace_next(&pace, 2 * SEC, GIB / 10, SEC, GIB); /* a slow one does */
	cr_assert_lt(pace.rate_bytes_per_s, before / 4);
}

/* The sweep of a verified move: rounds behind it hash what they send. */
Test(mig_pace, behind_a_round_that_did_more_the_rate_is_learned_anew)
{
	const struct mig_pace_options options = { .downtime_goal_ns = SEC / 100 };
	struct mig_pace pace = mig_pace_begin(&options, SEC, 1000 * MIB);

	cr_assert_eq(mig_pace_next(&pace, 2 * SEC, 1000 * MIB, SEC, 1 * MIB), MIG_PACE_SWITCH);
	cr_assert_eq(pace.rate_bytes_per_s, 1000 * MIB);
	mig_pace_skip(&pace, 9 * SEC, 1 * MIB, 80 * MIB);
	cr_assert_eq(pace.rate_bytes_per_s, 1000 * MIB);
	cr_assert_eq(mig_pace_next(&pace, 10 * SEC, 80 * MIB, SEC, 2 * MIB), MIG_PACE_ROUND,
		     "2 MiB take 25 ms now");
	cr_assert_eq(pace.rate_bytes_per_s, 80 * MIB);
	cr_assert_eq(pace.rounds_without_gain, 0, "gains are counted from the sweep on");
	cr_assert_eq(mig_pace_next(&pace, 11 * SEC, 8 * MIB, SEC / 10, MIB / 10), MIG_PACE_SWITCH);
}

Test(mig_pace, view_of_an_idle_guest_goes_evenly)
{
	struct mig_pace pace = mig_pace_begin(&ten_ms, 0, 10 * GIB);
	struct mig_progress_view view = mig_pace_view(&pace, 100 * MS, GIB / 10, 10 * GIB);

	cr_assert_eq(view.left_ns, UINT64_MAX, "too early to tell");
	view = mig_pace_view(&pace, 5 * SEC, 5 * GIB, 10 * GIB);
	cr_assert_eq(view.percent, 45);
	cr_assert_eq(view.rate_bytes_per_s, GIB);
	cr_assert_geq(view.left_ns, 5 * SEC);
	cr_assert_leq(view.left_ns, 7 * SEC);
	view = mig_pace_view(&pace, 10 * SEC, 10 * GIB, 10 * GIB);
	cr_assert_eq(view.percent, 90);
	cr_assert_leq(view.left_ns, 2 * SEC);
	view = mig_pace_view(&pace, 11 * SEC, 0, 10 * GIB); /* an older look that comes late */
	cr_assert_eq(view.percent, 90);
}

Test(mig_pace, view_of_a_guest_that_never_calms_goes_with_the_limit)
{
	struct mig_pace pace = mig_pace_begin(&ten_ms, 0, GIB);
	struct mig_progress_view view;

	(void)mig_pace_next(&pace, SEC, GIB, SEC, GIB);
	view = mig_pace_view(&pace, SEC, 0, GIB);
	cr_assert_eq(view.percent, 90);
	cr_assert_geq(view.left_ns, 59 * SEC);
	(void)mig_pace_next(&pace, 40 * SEC, GIB, SEC, GIB);
	view = mig_pace_view(&pace, 40 * SEC, 0, GIB);
	cr_assert_eq(view.percent, 96);
	cr_assert_leq(view.left_ns, 22 * SEC);
}

/* --- any guest, any link --- */

static uint64_t draw(uint64_t *seed)
{
	*seed = *seed * 6364136223846793005ULL + 1442695040888963407ULL;
	return *seed >> 11;
}

/* Of any order of magnitude. */
static uint64_t draw_size(uint64_t *seed)
{
	return draw(seed) >> draw(seed) % 53;
}

static void any_sequence(uint64_t *seed)
{
	struct mig_pace_options options = {
		.downtime_goal_ns = draw_size(seed),
		.time_limit_ns = 1 + draw_size(seed) % (3600 * SEC),
		.late = (enum mig_late)(draw(seed) % MIG_LATES),
		.fixed_ns = draw_size(seed),
	};
	uint64_t now_ns = draw_size(seed);
	uint64_t limit_at_ns = now_ns + options.time_limit_ns;
	struct mig_pace pace = mig_pace_begin(&options, now_ns, draw_size(seed));
	struct run run = { .end = MIG_PACE_ROUND };
	uint32_t rounds_late = 0;

	while (run.end == MIG_PACE_ROUND) {
		uint64_t took_ns = draw(seed) % 4 == 0 ? 0 : draw_size(seed) % (100 * SEC);
		uint64_t bytes = draw_size(seed);

		watch(&pace, &run, now_ns, took_ns, bytes);
		now_ns += took_ns;
		run.end = mig_pace_next(&pace, now_ns, bytes, took_ns, draw_size(seed));
		cr_assert(run.end > MIG_PACE_INVALID && run.end < MIG_PACE_STEPS);
		cr_assert(run.end != MIG_PACE_CANCEL || options.late == MIG_LATE_CANCEL);
		rounds_late += now_ns >= limit_at_ns;
		cr_assert_leq(rounds_late, MIG_PACE_LATE_ROUNDS + 1);
	}
}

Test(mig_pace, any_sequence_is_monotone_and_ends)
{
	uint64_t seed = 20;

	for (uint32_t i = 0; i < 20000; i++)
		any_sequence(&seed);
}
