/* SPDX-License-Identifier: Apache-2.0 */
/* What a migration did over time. */
#include "migrate/mig_timeline.h"

#include <string.h>

/* Places that cuts do not take: each state comes once or twice. */
#define MARKS_FOR_STATES 24u

void mig_timeline_begin(struct mig_timeline *timeline)
{
	memset(timeline, 0, sizeof(*timeline));
	timeline->step_ns = MIG_TIMELINE_STEP_NS;
	timeline->round_stride = 1;
}

static uint64_t no_less(uint64_t value, uint64_t before)
{
	return value > before ? value : before;
}

/* Each second one goes into the one behind it, which has its totals already. */
static void thin_samples(struct mig_timeline *timeline)
{
	struct mig_timeline_sample *samples = timeline->samples;
	uint32_t kept = 1; /* the first one is the begin */

	for (uint32_t i = 2; i < timeline->sample_count; i += 2) {
		uint32_t before = samples[i - 1].throttle_permille;

		samples[kept] = samples[i];
		if (samples[kept].throttle_permille < before)
			samples[kept].throttle_permille = before;
		kept++;
	}
	/* An even count leaves one behind the last that was kept: it is the newest. */
	if (timeline->sample_count % 2 == 0)
		samples[kept++] = samples[timeline->sample_count - 1];
	timeline->sample_count = kept;
	if (timeline->step_ns <= UINT64_MAX / 2)
		timeline->step_ns *= 2;
}

static void add_sample(struct mig_timeline *timeline)
{
	const struct mig_timeline_view *view = &timeline->last;
	struct mig_timeline_sample *sample = NULL;

	if (timeline->sample_count == MIG_TIMELINE_SAMPLES)
		thin_samples(timeline);
	sample = &timeline->samples[timeline->sample_count++];
	*sample = (struct mig_timeline_sample){ .at_ns = view->at_ns,
						.sent_bytes = view->sent_bytes,
						.dirty_bytes = view->dirty_bytes,
						.left_bytes = view->left_bytes,
						.fault_pages = view->fault_pages,
						.throttle_permille = timeline->throttle_permille };
	timeline->throttle_permille = 0;
	timeline->next_ns = view->at_ns < UINT64_MAX - timeline->step_ns
				    ? view->at_ns + timeline->step_ns
				    : UINT64_MAX;
}

static void thin_rounds(struct mig_timeline *timeline)
{
	uint32_t kept = 0;

	timeline->round_stride *= 2;
	for (uint32_t i = 0; i < timeline->round_count; i++)
		if (timeline->rounds[i].number % timeline->round_stride == 0)
			timeline->rounds[kept++] = timeline->rounds[i];
	timeline->round_count = kept;
}

static void add_round(struct mig_timeline *timeline, uint64_t at_ns, uint32_t number)
{
	while (timeline->round_count == MIG_TIMELINE_ROUNDS && timeline->round_stride < 1u << 30)
		thin_rounds(timeline);
	if (timeline->round_count < MIG_TIMELINE_ROUNDS && number % timeline->round_stride == 0)
		timeline->rounds[timeline->round_count++] =
			(struct mig_timeline_round){ .at_ns = at_ns, .number = number };
}

static void add_mark(struct mig_timeline *timeline, enum mig_timeline_what what, uint64_t at_ns,
		     uint32_t state)
{
	uint32_t places = what == MIG_TIMELINE_STATE ? MIG_TIMELINE_MARKS
						     : MIG_TIMELINE_MARKS - MARKS_FOR_STATES;

	if (timeline->mark_count >= places) {
		timeline->lost_marks++;
		return;
	}
	timeline->marks[timeline->mark_count++] =
		(struct mig_timeline_mark){ .at_ns = at_ns, .what = what, .state = state };
}

void mig_timeline_look(struct mig_timeline *timeline, const struct mig_timeline_view *view)
{
	const struct mig_timeline_view before = timeline->last;
	struct mig_timeline_view now = *view;
	bool is_first = !timeline->has_view;

	now.at_ns = no_less(now.at_ns, before.at_ns);
	now.sent_bytes = no_less(now.sent_bytes, before.sent_bytes);
	now.dirty_bytes = no_less(now.dirty_bytes, before.dirty_bytes);
	now.fault_pages = no_less(now.fault_pages, before.fault_pages);
	timeline->last = now;
	timeline->has_view = true;
	if (now.throttle_permille > timeline->throttle_permille)
		timeline->throttle_permille = now.throttle_permille;
	if (now.throttle_permille > timeline->throttle_most)
		timeline->throttle_most = now.throttle_permille;
	if (is_first || now.round > before.round)
		add_round(timeline, now.at_ns, now.round);
	if (is_first || now.state != before.state)
		add_mark(timeline, MIG_TIMELINE_STATE, now.at_ns, now.state);
	if (now.is_cut != before.is_cut)
		add_mark(timeline, now.is_cut ? MIG_TIMELINE_CUT : MIG_TIMELINE_RESUMED, now.at_ns,
			 now.state);
	if (is_first || now.at_ns >= timeline->next_ns)
		add_sample(timeline);
}

void mig_timeline_end(struct mig_timeline *timeline)
{
	if (timeline->has_view &&
	    timeline->last.at_ns > timeline->samples[timeline->sample_count - 1].at_ns)
		add_sample(timeline);
}
