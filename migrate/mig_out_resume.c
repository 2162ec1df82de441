/* SPDX-License-Identifier: Apache-2.0 */
/* The source after a cut: another connection, what had come, and on: docs/migrate/resume.md. */
#include <errno.h>
#include <inttypes.h>

#include "base/cleanup.h"
#include "migrate/mig_body_resume.h"
#include "migrate/mig_out_priv.h"

/* --- what a cut is --- */

bool mig_out_can_resume(const struct mig_out *out)
{
	return out->options.resume_ms > 0 && !out->options.quick && out->options.forecast_ms == 0 &&
	       (out->opened.capabilities & MIG_CAN_RESUME) != 0;
}

bool mig_out_is_cut(const struct mig_out *out, int code)
{
	return mig_out_can_resume(out) && mig_link_is_broken(code);
}

/* --- the destination's messages: the receiver's thread --- */

static bool is_resuming(struct mig_out *out)
{
	BASE_LOCKED(&out->lock);

	return out->resuming;
}

bool mig_out_is_too_late(struct mig_out *out)
{
	struct base_error why = { 0 };

	if (!is_resuming(out))
		return false;
	(void)base_fail(&why, -ESTALE,
			"the connection broke when the destination had all, before it said so");
	mig_out_note(out, why.code, &why);
	BASE_LOCKED(&out->lock);
	out->refused = true;
	(void)pthread_cond_broadcast(&out->changed);
	return true;
}

int mig_out_take_have(struct mig_out *out, const struct mig_received *received,
		      struct base_error *err)
{
	struct mig_have have;
	uint64_t spans = 0;
	int r = mig_have_decode(received->body, received->body_bytes, &have, err);

	if (r < 0 || !is_resuming(out) || !out->open_round) /* nothing of it is asked for */
		return r;
	r = mig_copy_have(out->copy, &have, out->dirty, &spans, err);
	out->have_spans += spans;
	return r;
}

int mig_out_take_resumed(struct mig_out *out, const struct mig_received *received,
			 struct base_error *err)
{
	struct mig_resumed resumed;
	uint64_t chunks = 0;
	BASE_LOCKED(&out->lock);
	int r = mig_resumed_decode(received->body, received->body_bytes, &resumed, out->failures,
				   err);

	if (r < 0 || !out->resuming)
		return r;
	if (resumed.rounds != out->rounds_done &&
	    !(out->open_round && resumed.rounds == out->rounds_done + 1))
		return base_fail(
			err, -EPROTO,
			"migration: resumed before round %" PRIu32 ", expected %" PRIu32 "%s",
			resumed.rounds, out->rounds_done, out->open_round ? " or the next" : "");
	chunks = mig_copy_counts(out->copy).chunks;
	if (resumed.chunks > chunks)
		return base_fail(err, -EPROTO,
				 "migration: resumed with %" PRIu64 " chunks, of %" PRIu64
				 " that were sent",
				 resumed.chunks, chunks);
	out->lost_chunks = chunks - resumed.chunks;
	/* Those of a round that had been confirmed are not news. */
	out->failure_count = resumed.rounds > out->rounds_done ? resumed.failure_count : 0;
	out->resumed_at = resumed.rounds;
	out->resumed = true;
	(void)pthread_cond_broadcast(&out->changed);
	return 0;
}

/* --- the runner --- */

/* Nobody uses a connection any more, and nothing that was said on one counts. */
static void let_go_of_links(struct mig_out *out)
{
	if (out->control != NULL)
		mig_control_cancel(out->control); /* the mover may be sending on it */
	mig_out_copy_halt(out);
	mig_out_drop_control(out);
	mig_events_clear(&out->events);
	BASE_LOCKED(&out->lock);
	out->past_bytes = mig_out_sent_bytes(out);
	out->link_count = 0;
	for (uint32_t i = 0; i < out->options.channel_count; i++) {
		mig_link_free(out->links[i]);
		out->links[i] = NULL;
		base_closep(&out->fds[i]);
	}
	out->lost = true;
}

/* False: another connection would not help. */
static bool begin_cut(struct mig_out *out)
{
	BASE_LOCKED(&out->lock);

	if (out->faulted || out->refused ||
	    (out->has_reason && !mig_link_is_broken(out->reason.code)))
		return false;
	out->has_reason = false;
	out->resuming = true;
	return true;
}

static int wait_resumed(struct mig_out *out, struct base_error *err)
{
	uint64_t deadline_ns = mig_out_now() + out->options.timeout_ms * BASE_NS_PER_MS;
	BASE_LOCKED(&out->lock);

	while (!out->resumed && !out->lost && !out->cancelled && !out->refused &&
	       base_cond_wait(&out->changed, &out->lock,
			      deadline_ns > out->cut_until ? deadline_ns : out->cut_until))
		continue;
	if (out->resumed)
		return 0;
	return base_fail(err, -ETIMEDOUT, "migration: the destination does not go on");
}

static int try_once(struct mig_out *out, struct base_error *err)
{
	int r = 0;

	{
		BASE_LOCKED(&out->lock);

		out->resumed = false;
	}
	r = mig_out_relink(out, err);
	if (r == 0)
		r = wait_resumed(out, err);
	if (r == 0)
		r = mig_out_open_data(out, err);
	if (r < 0)
		let_go_of_links(out);
	return r;
}

/* False: it is over. */
static bool wait_again(struct mig_out *out, int code)
{
	uint64_t until_ns = mig_out_now() + out->options.retry_ms * BASE_NS_PER_MS;
	BASE_LOCKED(&out->lock);

	if (out->refused || out->faulted || until_ns > out->cut_until || code == -ECONNREFUSED ||
	    code == -EBUSY) /* it is gone, or another's */
		return false;
	while (!out->cancelled && base_cond_wait(&out->changed, &out->lock, until_ns))
		continue;
	return !out->cancelled;
}

/* A connection that breaks again and again, and nothing comes between, does not go on for ever.
 * False: it has for long enough. */
static bool set_deadline(struct mig_out *out, struct base_error *err)
{
	uint64_t mark = 1 + out->have_spans + out->rounds_done;
	bool has_come = mark != out->cut_mark;

	out->cut_mark = mark;
	if (has_come)
		out->cut_until = mig_out_now() + out->options.resume_ms * BASE_NS_PER_MS;
	if (has_come || wait_again(out, -ENOTCONN))
		return true;
	(void)base_fail(err, -ETIMEDOUT, "it breaks before anything comes");
	return false;
}

static void give_up(struct mig_out *out, int code, const struct base_error *lost,
		    const struct base_error *why)
{
	struct base_error reason = { 0 };

	(void)base_fail(&reason, code, "%s; and it was not back in %" PRIu32 " ms: %s", lost->text,
			out->options.resume_ms, why->text);
	mig_out_note(out, code, &reason);
	BASE_LOCKED(&out->lock);
	out->resuming = false;
}

static int go_on(struct mig_out *out, struct base_error *err)
{
	out->cuts++;
	out->again_bytes += out->open_round ? mig_copy_again_bytes(out->copy, out->dirty) : 0;
	{
		BASE_LOCKED(&out->lock);

		out->resuming = false;
		out->rounds_done = out->resumed_at;
		out->progress_ns = mig_out_now();
	}
	return mig_out_copy_go_on(out, err);
}

void mig_out_cut_in_pause(struct mig_out *out)
{
	if (!mig_out_can_resume(out))
		return;
	let_go_of_links(out);
#ifdef GODWIT_MUTANT_MIG_RESUME_LET_GO
	out->let_go = false;
#endif
	out->cut_in_pause = !out->let_go;
}

/* The blackout that did not come about is none of the report's. */
static void forget_pause(struct mig_out *out)
{
	struct mig_out_times *times = &out->times;

	if (!out->cut_in_pause)
		return;
	out->cut_in_pause = false;
	if (times->running_ns > times->pause_ns)
		out->cut_held_ns += times->running_ns - times->pause_ns;
	*times = (struct mig_out_times){ .begin_ns = times->begin_ns,
					 .entered_ns = times->entered_ns,
					 .linked_ns = times->linked_ns };
}

int mig_out_resume(struct mig_out *out)
{
	uint64_t begin_ns = mig_out_now();
	struct base_error lost = { 0 };
	struct base_error why = { 0 };
	int r = -ENOTCONN;

	if (!mig_out_can_resume(out))
		return r;
	let_go_of_links(out);
	forget_pause(out);
	lost = out->reason; /* nobody else is there to change it */
	if (!begin_cut(out))
		return r;
	if (set_deadline(out, &why))
		do {
			r = try_once(out, &why);
		} while (r < 0 && wait_again(out, r));
	if (r == 0)
		r = go_on(out, &why);
	out->cut_ns += mig_out_now() - begin_ns;
	if (r < 0)
		give_up(out, r, &lost, &why);
	return r;
}
