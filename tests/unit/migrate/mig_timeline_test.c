/* SPDX-License-Identifier: Apache-2.0 */
/* What a migration did over time: bounded whatever it does, and no total is lost. */
#include <criterion/criterion.h>
#include <stdlib.h>
#include <string.h>

#include "migrate/mig_timeline.h"
#include "tests/support/mig_rig.h"

#define MS UINT64_C(1000000)
#define S  (1000 * MS)

static struct mig_timeline timeline;

static void check(void)
{
	const struct mig_timeline_sample *samples = timeline.samples;

	cr_assert_leq(timeline.sample_count, MIG_TIMELINE_SAMPLES);
	cr_assert_leq(timeline.round_count, MIG_TIMELINE_ROUNDS);
	cr_assert_leq(timeline.mark_count, MIG_TIMELINE_MARKS);
	for (uint32_t i = 1; i < timeline.sample_count; i++) {
		cr_assert_geq(samples[i].at_ns, samples[i - 1].at_ns);
		cr_assert_geq(samples[i].sent_bytes, samples[i - 1].sent_bytes);
		cr_assert_geq(samples[i].dirty_bytes, samples[i - 1].dirty_bytes);
		cr_assert_geq(samples[i].fault_pages, samples[i - 1].fault_pages);
	}
	for (uint32_t i = 1; i < timeline.round_count; i++)
		cr_assert_gt(timeline.rounds[i].number, timeline.rounds[i - 1].number);
}

/* @hours of it, looked at when it wants to be. */
static void watch(uint64_t total_ns)
{
	struct mig_timeline_view view = { .at_ns = 0 };

	mig_timeline_begin(&timeline);
	while (view.at_ns < total_ns) {
		view.sent_bytes = view.at_ns / 10;
		view.dirty_bytes = view.at_ns / 100;
		view.fault_pages = view.at_ns / S;
		view.left_bytes = total_ns - view.at_ns;
		view.round = (uint32_t)(view.at_ns / S);
		view.throttle_permille = view.at_ns / S == 3 ? 700 : 100;
		mig_timeline_look(&timeline, &view);
		cr_assert_gt(timeline.next_ns, view.at_ns);
		view.at_ns = timeline.next_ns;
	}
	mig_timeline_end(&timeline);
	check();
}

static uint64_t longest_gap(void)
{
	uint64_t gap_ns = 0;

	for (uint32_t i = 1; i < timeline.sample_count; i++) {
		uint64_t here_ns = timeline.samples[i].at_ns - timeline.samples[i - 1].at_ns;

		gap_ns = here_ns > gap_ns ? here_ns : gap_ns;
	}
	return gap_ns;
}

Test(mig_timeline, a_short_move_has_every_sample)
{
	watch(2 * S);
	cr_assert_eq(timeline.sample_count, 2 * S / MIG_TIMELINE_STEP_NS);
	cr_assert_eq(timeline.samples[0].at_ns, 0);
	cr_assert_eq(timeline.step_ns, MIG_TIMELINE_STEP_NS);
}

Test(mig_timeline, hours_fit_and_are_as_fine_as_there_is_room)
{
	static const uint64_t hours[] = { 1, 3, 24, 24 * 7 };

	for (size_t i = 0; i < sizeof(hours) / sizeof(hours[0]); i++) {
		uint64_t total_ns = hours[i] * 3600 * S;
		const struct mig_timeline_sample *last = NULL;

		watch(total_ns);
		last = &timeline.samples[timeline.sample_count - 1];
		cr_assert_gt(timeline.sample_count, MIG_TIMELINE_SAMPLES / 4);
		cr_assert_lt(longest_gap(), total_ns / 100);
		cr_assert_eq(timeline.samples[0].at_ns, 0);
		cr_assert_eq(last->at_ns, timeline.last.at_ns, "the end is there");
		cr_assert_eq(last->sent_bytes, timeline.last.sent_bytes, "and its totals");
		cr_assert_eq(last->dirty_bytes, timeline.last.dirty_bytes);
		cr_assert_eq(timeline.throttle_most, 700);
		cr_assert_geq(timeline.round_count, MIG_TIMELINE_ROUNDS / 4);
		cr_assert_eq(timeline.rounds[0].number, 0);
	}
}

Test(mig_timeline, a_peak_of_throttling_survives_thinning)
{
	uint32_t most = 0;

	watch(3600 * S);
	for (uint32_t i = 0; i < timeline.sample_count; i++)
		if (timeline.samples[i].throttle_permille > most)
			most = timeline.samples[i].throttle_permille;
	cr_assert_eq(most, 700);
}

Test(mig_timeline, looked_at_oftener_it_takes_no_more)
{
	mig_timeline_begin(&timeline);
	for (uint64_t i = 0; i < 100000; i++) {
		const struct mig_timeline_view view = { .at_ns = i * MS, .sent_bytes = i };

		mig_timeline_look(&timeline, &view);
	}
	check();
	cr_assert_geq(timeline.step_ns, 100 * S / MIG_TIMELINE_SAMPLES / 2);
}

Test(mig_timeline, time_and_counters_that_go_back_stand_still)
{
	const struct mig_timeline_view ahead = {
		.at_ns = 5 * S, .sent_bytes = 50, .dirty_bytes = 40, .fault_pages = 3
	};
	const struct mig_timeline_view back = { .at_ns = S, .sent_bytes = 1 };

	mig_timeline_begin(&timeline);
	mig_timeline_look(&timeline, &ahead);
	mig_timeline_look(&timeline, &back);
	mig_timeline_end(&timeline);
	check();
	cr_assert_eq(timeline.last.at_ns, 5 * S);
	cr_assert_eq(timeline.last.sent_bytes, 50);
}

Test(mig_timeline, cuts_leave_room_for_states)
{
	struct mig_timeline_view view = { .state = 1 };

	mig_timeline_begin(&timeline);
	for (uint64_t i = 0; i < 1000; i++) {
		view.at_ns = i * S;
		view.is_cut = i % 2 == 1;
		mig_timeline_look(&timeline, &view);
	}
	cr_assert_gt(timeline.lost_marks, 900U);
	view.state = 7;
	mig_timeline_look(&timeline, &view);
	check();
	cr_assert_eq(timeline.marks[0].what, MIG_TIMELINE_STATE);
	cr_assert_eq(timeline.marks[1].what, MIG_TIMELINE_CUT);
	cr_assert_eq(timeline.marks[2].what, MIG_TIMELINE_RESUMED);
	cr_assert_eq(timeline.marks[timeline.mark_count - 1].what, MIG_TIMELINE_STATE);
	cr_assert_eq(timeline.marks[timeline.mark_count - 1].state, 7);
}

Test(mig_timeline, instants_at_the_end_of_time)
{
	const struct mig_timeline_view view = { .at_ns = UINT64_MAX, .round = UINT32_MAX };

	mig_timeline_begin(&timeline);
	mig_timeline_end(&timeline); /* nothing was seen */
	cr_assert_eq(timeline.sample_count, 0);
	for (int i = 0; i < 2000; i++)
		mig_timeline_look(&timeline, &view);
	mig_timeline_end(&timeline);
	check();
}

/* What a session shows of itself at the end is what its report says. */
Test(mig_timeline, a_sessions_sums)
{
	static struct mig_rig rig;
	struct mig_out_progress progress;
	struct mig_out_report report;

	mig_rig_init(&rig);
	mig_rig_begin(&rig);
	cr_assert_eq(mig_rig_finish(&rig), MIG_OUT_MOVED, "%s", rig.err.text);
	mig_out_progress(rig.out, &progress);
	mig_out_report(rig.out, &report);
	cr_assert_eq(progress.sent_bytes, report.sent_bytes);
	cr_assert_gt(progress.dirty_bytes, 0U, "its guest writes all the time");
	cr_assert_leq(progress.dirty_bytes, (report.page_count + report.zero_pages) * 4096U);
	cr_assert_eq(progress.left_bytes, 0U);
	cr_assert_eq(progress.fault_pages, 0U);
	mig_rig_fini(&rig);
}
