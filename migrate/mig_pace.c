/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The decision after each round, and progress: docs/migrate/pace.md.
 *
 * All sums stop at UINT64_MAX, and products are taken in 128 bits: whatever a clock or a count
 * says, nothing wraps round to a small number that looks like a goal met.
 */
#include "migrate/mig_pace.h"

#include "base/clock.h"
#include "migrate/mig_scale_priv.h"

#define SMALL_ROUND_BYTES   (16ULL << 20) /* fewer: mostly latency */
#define FUTILE_ROUNDS       3u            /* without gain, where no goal can be met */
#define PATIENCE_ROUNDS     32u           /* without gain, where there is no time limit */
#define PATIENCE_NS         (30 * BASE_NS_PER_SECOND)
#define FIRST_PERCENT       90u /* of the first round */
#define LATER_PERCENT       9u
#define GUESS_AFTER_NS      (500 * BASE_NS_PER_MS)
#define PERCENT_BEFORE_OVER 99u

static uint64_t plus(uint64_t a, uint64_t b)
{
	return a > UINT64_MAX - b ? UINT64_MAX : a + b;
}

static uint64_t less(uint64_t a, uint64_t b)
{
	return a > b ? a - b : 0;
}

static uint64_t least(uint64_t a, uint64_t b)
{
	return a < b ? a : b;
}

struct mig_pace mig_pace_begin(const struct mig_pace_options *options, uint64_t now_ns,
			       uint64_t total_bytes)
{
	struct mig_pace pace = {
		.options = *options,
		.best_left_bytes = UINT64_MAX,
		.near_left_bytes = UINT64_MAX,
		.begin_ns = now_ns,
		.gain_ns = now_ns,
		.round_ns = now_ns,
		.total_bytes = total_bytes,
		.left_ns = UINT64_MAX,
	};

	if (pace.options.downtime_goal_ns == 0)
		pace.options.downtime_goal_ns = MIG_PACE_GOAL_NS;
	if (pace.options.fixed_ns == 0)
		pace.options.fixed_ns = MIG_PACE_FIXED_NS;
	return pace;
}

/* The newest counts at least as much as all before it, unless it is small. */
static void learn_rate(struct mig_pace *pace, uint64_t sent_bytes, uint64_t took_ns)
{
	uint64_t keep = sent_bytes > SMALL_ROUND_BYTES ? sent_bytes : SMALL_ROUND_BYTES;

	if (sent_bytes == 0 || took_ns == 0)
		return; /* says nothing */
	if (pace->seen_bytes > keep) {
		pace->seen_ns = mig_scale(pace->seen_ns, keep, pace->seen_bytes);
		pace->seen_bytes = keep;
	}
	pace->seen_bytes = plus(pace->seen_bytes, sent_bytes);
	pace->seen_ns = plus(pace->seen_ns, took_ns);
	pace->rate_bytes_per_s = mig_scale(pace->seen_bytes, BASE_NS_PER_SECOND, pace->seen_ns);
	if (pace->rate_bytes_per_s == 0)
		pace->rate_bytes_per_s = 1;
}

static uint64_t sending_ns(const struct mig_pace *pace, uint64_t bytes)
{
	return mig_scale(bytes, BASE_NS_PER_SECOND, pace->rate_bytes_per_s);
}

uint64_t mig_pace_blackout_ns(const struct mig_pace *pace, uint64_t left_bytes)
{
#ifdef GODWIT_MUTANT_MIG_PACE_FIXED
	return sending_ns(pace, left_bytes);
#else
	return plus(pace->options.fixed_ns, sending_ns(pace, left_bytes));
#endif
}

uint64_t mig_pace_room_bytes(const struct mig_pace *pace)
{
	return mig_scale(less(pace->options.downtime_goal_ns, pace->options.fixed_ns),
			 pace->rate_bytes_per_s, BASE_NS_PER_SECOND);
}

/* What the harvest says of where this is going.  True at a local minimum. */
static bool note_left(struct mig_pace *pace, uint64_t now_ns, uint64_t left_bytes)
{
	uint64_t best = pace->best_left_bytes;
	uint64_t near = plus(pace->near_left_bytes, pace->near_left_bytes / 8);

	if (left_bytes < best - best / 16) {
		pace->best_left_bytes = left_bytes;
		pace->rounds_without_gain = 0;
		pace->gain_ns = now_ns;
	} else {
		pace->rounds_without_gain++; /* at most MIG_PACE_ROUNDS_MAX and a few */
	}
	pace->near_left_bytes = least(left_bytes, near);
	pace->left_bytes = left_bytes;
	return left_bytes <= near;
}

uint64_t mig_pace_time_ns(const struct mig_pace *pace, uint64_t now_ns)
{
	if (pace->options.time_limit_ns == 0)
		return UINT64_MAX;
	return less(pace->options.time_limit_ns, less(now_ns, pace->begin_ns));
}

static bool is_late(const struct mig_pace *pace, uint64_t now_ns)
{
	const struct mig_pace_options *options = &pace->options;

	if (pace->is_late || pace->rounds >= MIG_PACE_ROUNDS_MAX)
		return true;
	if (mig_pace_time_ns(pace, now_ns) == 0)
		return true;
	if (options->fixed_ns >= options->downtime_goal_ns)
		return pace->rounds_without_gain >= FUTILE_ROUNDS ||
		       sending_ns(pace, pace->left_bytes) <= options->fixed_ns / 4;
	return options->time_limit_ns == 0 && pace->rounds_without_gain >= PATIENCE_ROUNDS &&
	       less(now_ns, pace->gain_ns) >= PATIENCE_NS;
}

enum mig_pace_step mig_pace_next(struct mig_pace *pace, uint64_t now_ns, uint64_t sent_bytes,
				 uint64_t took_ns, uint64_t left_bytes)
{
	bool at_minimum;

	if (pace->rounds == 0)
		pace->first_bytes = sent_bytes;
	pace->rounds++;
	pace->round_ns = now_ns;
	pace->last_bytes = sent_bytes;
	pace->sent_bytes = plus(pace->sent_bytes, sent_bytes);
	learn_rate(pace, sent_bytes, took_ns);
	at_minimum = note_left(pace, now_ns, left_bytes);

	if (left_bytes == 0 ||
	    mig_pace_blackout_ns(pace, left_bytes) <= pace->options.downtime_goal_ns)
		return MIG_PACE_SWITCH;
	if (!is_late(pace, now_ns))
		return MIG_PACE_ROUND;
	pace->is_late = true;
	if (pace->options.late == MIG_LATE_CANCEL)
		return MIG_PACE_CANCEL;
	if (pace->options.late == MIG_LATE_POSTCOPY)
		return MIG_PACE_POST;
	if (at_minimum || pace->late_rounds >= MIG_PACE_LATE_ROUNDS)
		return MIG_PACE_SWITCH;
	pace->late_rounds++;
	return MIG_PACE_ROUND;
}

enum mig_pace_step mig_pace_post(struct mig_pace *pace, uint64_t image_bytes)
{
	if (image_bytes == 0 || pace->late_rounds >= MIG_PACE_LATE_ROUNDS ||
	    mig_pace_blackout_ns(pace, image_bytes) <= pace->options.downtime_goal_ns)
		return MIG_PACE_POST;
	pace->late_rounds++;
	return MIG_PACE_ROUND;
}

void mig_pace_skip(struct mig_pace *pace, uint64_t now_ns, uint64_t sent_bytes, uint64_t left_bytes)
{
	pace->round_ns = now_ns;
	pace->sent_bytes = plus(pace->sent_bytes, sent_bytes);
	pace->left_bytes = left_bytes;
	pace->seen_bytes = 0; /* the rate stays until the next round shows its own */
	pace->seen_ns = 0;
	pace->best_left_bytes = UINT64_MAX;
	pace->rounds_without_gain = 0;
	pace->gain_ns = now_ns;
	pace->late_rounds = 0;
}

/* A round leaves about as much as it sent: there is no end to be seen. */
static bool diverges(const struct mig_pace *pace)
{
	return pace->rounds > 0 && pace->left_bytes >= pace->last_bytes - pace->last_bytes / 8;
}

/* What the rounds after this one will have to send. */
static uint64_t bytes_after(const struct mig_pace *pace)
{
	if (pace->rounds == 0)
		return pace->total_bytes / (FIRST_PERCENT / 10);
	/* left * r + left * r^2 + ..., r = left / last */
	return mig_scale(pace->left_bytes, pace->left_bytes, pace->last_bytes - pace->left_bytes);
}

static uint32_t percent_now(const struct mig_pace *pace, uint64_t now_ns, uint64_t sent_bytes,
			    uint64_t rest_bytes)
{
	uint64_t limit_ns = pace->options.time_limit_ns;
	uint64_t done = plus(less(pace->sent_bytes, pace->first_bytes), sent_bytes);
	uint64_t whole = plus(done, rest_bytes);

	if (pace->rounds == 0)
		return (uint32_t)mig_scale(FIRST_PERCENT, sent_bytes, whole == 0 ? 1 : whole);
	if (!diverges(pace)) {
		whole = plus(whole, bytes_after(pace));
	} else if (limit_ns != 0) {
		done = least(less(now_ns, pace->begin_ns), limit_ns);
		whole = limit_ns;
	} else {
		done = 0;
	}
	return FIRST_PERCENT + (uint32_t)mig_scale(LATER_PERCENT, done, whole == 0 ? 1 : whole);
}

static uint64_t left_now(const struct mig_pace *pace, uint64_t now_ns, uint64_t rest_bytes)
{
	uint64_t limit_ns = pace->options.time_limit_ns;
	uint64_t elapsed_ns = less(now_ns, pace->begin_ns);

	if (pace->rate_bytes_per_s == 0 || (pace->rounds == 0 && elapsed_ns < GUESS_AFTER_NS))
		return UINT64_MAX;
	if (!diverges(pace))
		return mig_pace_blackout_ns(pace, plus(rest_bytes, bytes_after(pace)));
	if (limit_ns == 0)
		return UINT64_MAX;
	return plus(less(limit_ns, elapsed_ns), mig_pace_blackout_ns(pace, pace->left_bytes));
}

struct mig_progress_view mig_pace_view(struct mig_pace *pace, uint64_t now_ns,
				       uint64_t round_sent_bytes, uint64_t round_bytes)
{
	uint64_t sent_bytes = least(round_sent_bytes, round_bytes);
	uint64_t rest_bytes = round_bytes - sent_bytes;
	struct mig_pace seen = *pace; /* the round under way counted in */
	uint32_t percent;

	learn_rate(&seen, sent_bytes, less(now_ns, pace->round_ns));
	percent = percent_now(&seen, now_ns, sent_bytes, rest_bytes);
	if (percent > PERCENT_BEFORE_OVER)
		percent = PERCENT_BEFORE_OVER;
	if (percent > pace->percent)
		pace->percent = percent;
	pace->left_ns = least(pace->left_ns, left_now(&seen, now_ns, rest_bytes));
	return (struct mig_progress_view){
		.percent = pace->percent,
		.rate_bytes_per_s = seen.rate_bytes_per_s,
		.left_ns = pace->left_ns,
	};
}
