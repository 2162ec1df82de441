/* SPDX-License-Identifier: Apache-2.0 */
/* The source's session: its life, and what the machine of mig_switch.h wants done. */
#include "migrate/mig_out.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "migrate/mig_out_priv.h"

#define TIMEOUT_MS 10000u
#define RETRY_MS   1000u
#define QUEUE_NS   (100 * BASE_NS_PER_MS) /* how late a turn is seen at most */

int mig_out_new(const struct mig_out_options *options, struct mig_out **ret_out,
		struct base_error *err)
{
	struct mig_out *out = calloc(1, sizeof(*out));

	base_assert(options->channel_count > 0 && options->channel_count <= MIG_CHANNELS_MAX);
	if (out == NULL)
		return base_fail(err, -ENOMEM, "migration");
	out->options = *options;
	if (out->options.timeout_ms == 0)
		out->options.timeout_ms = TIMEOUT_MS;
	if (out->options.retry_ms == 0)
		out->options.retry_ms = RETRY_MS;
	out->machine = mig_source_begin(options->epoch);
	out->shown = out->machine.state;
	out->retry_ns = BASE_TIME_NEVER;
	base_random_bytes(out->id, sizeof(out->id));
	for (uint32_t i = 0; i < MIG_CHANNELS_MAX; i++)
		out->fds[i] = -1;
	mig_events_init(&out->events);
	(void)pthread_mutex_init(&out->lock, NULL); /* these two cannot fail on Linux */
	(void)pthread_cond_init(&out->changed, NULL);
	*ret_out = out;
	return 0;
}

void mig_out_free(struct mig_out *out)
{
	if (out == NULL)
		return;
	base_assert(!out->mover_runs && out->control == NULL);
	mig_serve_free(out->serve);
	mig_copy_free(out->copy);
	mig_image_free(out->image);
	mig_verify_free(out->verify);
	base_pool_free(out->pool);
	for (uint32_t i = 0; i < MIG_CHANNELS_MAX; i++) {
		mig_link_free(out->links[i]);
		base_closep(&out->fds[i]);
	}
	free(out->dirty);
	free(out->next);
	free(out->scratch);
	mig_plan_fini(&out->plan);
	mig_events_fini(&out->events);
	(void)pthread_cond_destroy(&out->changed);
	(void)pthread_mutex_destroy(&out->lock);
	free(out);
}

void mig_out_note(struct mig_out *out, int code, const struct base_error *why)
{
	BASE_LOCKED(&out->lock);

	if (out->has_reason)
		return;
	out->has_reason = true;
	out->reason = *why;
	out->reason.code = code;
	(void)pthread_cond_broadcast(&out->changed);
}

uint64_t mig_out_sent_bytes(const struct mig_out *out)
{
	uint64_t bytes = out->past_bytes;

	for (uint32_t i = 0; i < out->link_count; i++)
		bytes += mig_link_counts(out->links[i]).sent_bytes;
	return bytes;
}

void mig_out_cancel(struct mig_out *out)
{
	{
		BASE_LOCKED(&out->lock);

		out->cancelled = true;
		if (out->dialing != NULL)
			mig_link_cancel(out->dialing);
		(void)pthread_cond_broadcast(&out->changed);
	}
	mig_events_post_kind(&out->events, MIG_EV_CANCEL);
}

/* --- what the machine wants done --- */

static void fault(struct mig_out *out, int code, const struct base_error *why)
{
	mig_out_note(out, code, why);
	mig_events_post_kind(&out->events, MIG_EV_FAULT);
}

static void do_pause(struct mig_out *out)
{
	struct base_error why = { 0 };
	int r = 0;

	out->times.pause_ns = mig_out_now();
	r = out->options.vm->hold(out->options.vm_context, &why);
	out->times.paused_ns = mig_out_now();
	if (r < 0)
		fault(out, base_fail_within(&why, r, "the VM cannot be paused"), &why);
	else
		mig_events_post_kind(&out->events, MIG_EV_PAUSED);
}

static void do_promise(struct mig_out *out)
{
	struct base_error why = { 0 };
	int r = out->options.vm->promise(out->options.vm_context, true, out->machine.epoch, &why);

	if (r < 0)
		fault(out, base_fail_within(&why, r, "the promise cannot be written"), &why);
	else
		mig_events_post_kind(&out->events, MIG_EV_PROMISED);
}

/* Nobody is there to answer: has an operator decided meanwhile?  Who is heard of is not dead. */
static bool decided_by_hand(struct mig_out *out, struct mig_register *ret_register)
{
	const struct mig_source_vm *vm = out->options.vm;
	bool alone = false;

	{
		BASE_LOCKED(&out->lock);

		alone = out->lost || out->control == NULL;
	}
	return alone && vm->resolved != NULL &&
	       vm->resolved(out->options.vm_context, ret_register) == 1;
}

static void do_ask(struct mig_out *out, uint64_t epoch, enum mig_side owner)
{
	const struct mig_arbiter *arbiter = out->options.arbiter;
	struct mig_event event = { .kind = MIG_EV_ARBITER };
	struct mig_register answer = { 0 };
	struct base_error why = { 0 };
	int r = 0;

	if (arbiter == NULL)
		r = mig_out_ask(out, epoch, owner, &answer, &why);
	else if (owner == MIG_SIDE_INVALID)
		r = arbiter->read(arbiter->context, &answer, &why);
	else
		r = arbiter->ask(arbiter->context, epoch, owner, &answer, &why);
	if (r < 0 && arbiter == NULL && decided_by_hand(out, &answer))
		r = 0;
	if (r < 0) { /* whatever it was: the request may have been, or may yet be carried out */
		mig_events_post_kind(&out->events, MIG_EV_ARBITER_UNKNOWN);
		return;
	}
	if (answer.owner == MIG_DESTINATION && answer.epoch == out->machine.epoch + 1 &&
	    out->times.committed_ns == 0)
		out->times.committed_ns = mig_out_now();
	event.epoch = answer.epoch;
	event.owner = answer.owner;
	mig_events_post(&out->events, &event);
}

/* Nothing of the rounds is under way any more, and the promise is over: before the VM runs, as an
 * operator who reads it later must not take a VM that ran on for one that waits.  Where it cannot
 * be taken back now, finish() tries once more. */
static void do_run(struct mig_out *out, uint64_t epoch)
{
	struct base_error why = { 0 };
	int r = 0;

	if (out->cut_in_pause)
		mig_out_copy_halt(out); /* what it writes from now on is for the rounds to come */
	else
		mig_out_copy_stop(out);
	mig_out_post_stop(out);
	if (out->times.ready_ns != 0)
		(void)!out->options.vm->promise(out->options.vm_context, false, epoch, NULL);
	r = out->options.vm->run(out->options.vm_context, epoch, &why);
	out->times.running_ns = mig_out_now();
	if (r < 0) {
		(void)base_fail_within(&why, r, "the VM cannot go on here yet");
		mig_out_note(out, r, &why);
		mig_events_post_kind(&out->events, MIG_EV_RUN_FAILED);
		return;
	}
	mig_events_post_kind(&out->events, MIG_EV_RUNS);
}

static void perform(struct mig_out *out, const struct mig_action *action)
{
	switch (action->kind) {
	case MIG_DO_PAUSE:
		do_pause(out);
		break;
	case MIG_DO_SEND_REST:
		mig_out_copy_last(out);
		break;
	case MIG_DO_PROMISE:
		out->times.ready_ns = mig_out_now();
		do_promise(out);
		break;
	case MIG_DO_SEND:
		mig_out_say(out, action->message);
		break;
	case MIG_DO_ASK:
		do_ask(out, action->epoch, action->owner);
		break;
	case MIG_DO_READ:
		do_ask(out, 0, MIG_SIDE_INVALID);
		break;
	case MIG_DO_RUN:
		do_run(out, action->epoch);
		break;
	case MIG_DO_SERVE:
		out->times.running_ns = mig_out_now();
		mig_out_post_serve(out);
		mig_out_copy_stop(out);
		break;
	case MIG_DO_RELEASE:
		if (out->times.running_ns == 0)
			out->times.running_ns = mig_out_now();
		mig_out_copy_stop(out);
		mig_out_post_stop(out);
		out->options.vm->release(out->options.vm_context);
		break;
	case MIG_DO_RETRY:
		out->retry_ns = mig_out_now() + out->options.retry_ms * BASE_NS_PER_MS;
		break;
	case MIG_DO_INVALID:
	case MIG_DO_CHECK: /* the destination's */
	case MIG_DOS:
	default:
		base_bug("migration: action %d at a source", (int)action->kind);
	}
}

static void step(struct mig_out *out, const struct mig_event *event)
{
	struct mig_actions actions;
	enum mig_source_state before = out->machine.state;
	struct base_error why = { 0 };
	int r = 0;

	out->machine = mig_source_step(out->machine, event, &actions);
	{
		BASE_LOCKED(&out->lock);

		out->shown = out->machine.state;
	}
	for (uint32_t i = 0; i < actions.count; i++)
		perform(out, &actions.list[i]);
	if (event->kind == MIG_EV_LINK_LOST)
		mig_out_post_lost(out);
	if (before == MIG_SRC_LINKING && out->machine.state == MIG_SRC_COPYING) {
		r = mig_out_copy_begin(out, &why);
		if (r < 0)
			fault(out, r, &why);
	}
}

static bool is_lost(struct mig_out *out)
{
	BASE_LOCKED(&out->lock);

	return out->lost;
}

/* The questions to come have somebody who hears them. */
static void retry(struct mig_out *out)
{
	const struct mig_event again = { .kind = MIG_EV_RETRY };
	const struct mig_event back = { .kind = MIG_EV_LINK_BACK };

	out->retry_ns = BASE_TIME_NEVER;
	if (is_lost(out) &&
	    (out->machine.state == MIG_SRC_ASKING || out->machine.state == MIG_SRC_COMMITTED ||
	     out->machine.state == MIG_SRC_SERVING) &&
	    mig_out_relink(out, NULL) == 0)
		step(out, &back);
	step(out, &again);
}

/* The machine hears of a lost connection when it will not be back; or when the VM stands still, so
 * that it is let go on first. */
static bool goes_on(struct mig_out *out, const struct mig_event *event)
{
	if (event->kind != MIG_EV_LINK_LOST)
		return false;
	if (out->machine.state == MIG_SRC_PAUSING || out->machine.state == MIG_SRC_SENDING)
		mig_out_cut_in_pause(out);
	return out->machine.state == MIG_SRC_COPYING && mig_out_resume(out) == 0;
}

/* It runs here again because of a cut, nobody was asked, and there is a connection again: the
 * rounds go on. */
static bool comes_back(struct mig_out *out)
{
	const struct mig_event linked = { .kind = MIG_EV_LINKED };
	struct mig_actions actions;

	if (out->machine.state != MIG_SRC_STAYS || !out->cut_in_pause || mig_out_resume(out) < 0)
		return false;
	out->machine = mig_source_step(mig_source_begin(out->options.epoch), &linked, &actions);
	base_assert(out->machine.state == MIG_SRC_COPYING && actions.count == 0);
	BASE_LOCKED(&out->lock);
	out->shown = out->machine.state;
	return true;
}

/* --- the run --- */

/* False: the user has enough of it. */
static bool wait_in_line(struct mig_out *out)
{
	uint64_t look_ns = mig_out_now() + QUEUE_NS;
	BASE_LOCKED(&out->lock);

	out->queued = true;
	while (!out->cancelled && base_cond_wait(&out->changed, &out->lock, look_ns))
		continue;
	return !out->cancelled;
}

/* Until the host lets us take part.  Nothing has begun: nobody was told, and the VM is as it was.
 */
static int enter(struct mig_out *out, struct base_error *err)
{
	struct mig_host *host = out->options.host;
	int r = 0;

	if (host == NULL)
		return 0;
	r = mig_host_enter(host, MIG_OUTGOING, err);
	while (r == 0) {
		if (!wait_in_line(out))
			r = base_fail(err, -ECANCELED, "migration: cancelled");
		else
			r = mig_host_enter(host, MIG_OUTGOING, err);
	}
	{
		BASE_LOCKED(&out->lock);

		out->queued = false;
	}
	return r < 0 ? r : 0;
}

static void begin(struct mig_out *out)
{
	struct base_error why = { 0 };
	int r = 0;

	out->times.begin_ns = mig_out_now();
	r = enter(out, &why);
	out->times.entered_ns = mig_out_now();
	if (r == 0)
		r = mig_out_link(out, &why);
	out->times.linked_ns = mig_out_now();
	if (r < 0)
		fault(out, r, &why);
	else
		mig_events_post_kind(&out->events, MIG_EV_LINKED);
}

/* After a connection that did not come about: there may be somebody who waits. */
static bool try_again(struct mig_out *out, int code, uint64_t deadline_ns)
{
	uint64_t until_ns = mig_out_now() + out->options.retry_ms * BASE_NS_PER_MS;
	BASE_LOCKED(&out->lock);

	if (out->machine.state != MIG_SRC_STAYS || until_ns > deadline_ns ||
	    code == -ECONNREFUSED || code == -EBUSY) /* it is gone, or another's */
		return false;
	while (!out->cancelled && base_cond_wait(&out->changed, &out->lock, until_ns))
		continue;
	return !out->cancelled;
}

/* A destination that has everything would wait for a word, and in the end for an operator, and one
 * that was cut off waits for us to be back: it gets it, if it can be reached within a timeout. */
static void say_bye(struct mig_out *out)
{
	uint64_t deadline_ns = mig_out_now() + out->options.timeout_ms * BASE_NS_PER_MS;
	bool is_waited_for = out->times.sealed_ns != 0 || mig_out_can_resume(out);
	int r = is_lost(out) && is_waited_for ? mig_out_relink(out, NULL) : -ENOTCONN;

	while (r < 0 && is_waited_for && is_lost(out) && try_again(out, r, deadline_ns))
		r = mig_out_relink(out, NULL);
	if (r == 0 && out->machine.state == MIG_SRC_STAYS)
		mig_out_say(out, MIG_MSG_CANCEL);
	if (out->control != NULL && !is_lost(out))
		(void)!mig_control_send(out->control, MIG_TYPE_BYE, NULL, 0, NULL);
}

/* All threads but ours are gone after it, and nothing of the migration is left at the VM. */
static void finish(struct mig_out *out)
{
	struct mig_control *control = NULL;

	mig_out_copy_stop(out);
	mig_out_post_stop(out);
	out->times.end_ns = mig_out_now();
	say_bye(out);
	mig_events_close(&out->events);
	/* Decided, whatever was promised.  Left behind, it costs a question at the next start. */
	(void)!out->options.vm->promise(out->options.vm_context, false, out->machine.epoch, NULL);
	{
		BASE_LOCKED(&out->lock);

		control = base_take(&out->control);
	}
	mig_control_free(control);
	if (out->options.host != NULL)
		mig_host_leave(out->options.host, MIG_OUTGOING);
}

static enum mig_out_end end_of(const struct mig_out *out)
{
	if (out->machine.state == MIG_SRC_MOVED)
		return MIG_OUT_MOVED;
	if (out->machine.state == MIG_SRC_STALE)
		return MIG_OUT_STALE;
	if (out->cancelled)
		return MIG_OUT_CANCELLED;
	return out->has_facts ? MIG_OUT_FORECAST : MIG_OUT_FAILED;
}

enum mig_out_end mig_out_run(struct mig_out *out, struct mig_findings *findings,
			     struct base_error *err)
{
	struct mig_event event;

	memset(findings, 0, sizeof(*findings));
	out->findings = findings;
	begin(out);
	while (!mig_source_is_over(&out->machine) || comes_back(out))
		if (!mig_events_take(&out->events, out->retry_ns, &event))
			retry(out);
		else if (!goes_on(out, &event))
			step(out, &event);
	finish(out);
	if (out->cannot_verify)
		mig_findings_add(findings, MIG_OUT_CANNOT_VERIFY);
	if (out->cannot_post)
		mig_findings_add(findings, MIG_OUT_CANNOT_POST);
	if (err != NULL && out->has_reason)
		*err = out->reason;
	return end_of(out);
}

/* --- what is told --- */

void mig_out_progress(struct mig_out *out, struct mig_out_progress *ret_progress)
{
	struct mig_out_progress progress = { 0 };
	BASE_LOCKED(&out->lock);

	progress.state = out->shown;
	progress.is_queued = out->queued;
	progress.is_cut = out->resuming;
	progress.round = out->round;
	progress.left_pages = out->left_pages;
	if (out->copy != NULL) {
		struct mig_copy_counts counts = mig_copy_counts(out->copy);
		uint64_t sent = mig_out_sent_bytes(out);

		uint64_t moved = mig_out_moved_bytes(out) - out->round_begin_bytes;

		progress.sent_bytes = sent;
		progress.left_bytes = out->round_bytes > moved ? out->round_bytes - moved : 0;
		progress.page_count = counts.page_count;
		progress.zero_pages = counts.zero_pages;
		if (out->pace.begin_ns != 0)
			progress.view =
				mig_pace_view(&out->pace, mig_out_now(), moved, out->round_bytes);
	}
	progress.dirty_bytes = out->dirty_bytes;
	progress.throttle_permille = out->throttle_now;
	mig_out_post_progress(out, &progress);
	*ret_progress = progress;
}

static uint64_t between(uint64_t from_ns, uint64_t to_ns)
{
	return from_ns != 0 && to_ns > from_ns ? to_ns - from_ns : 0;
}

void mig_out_report(const struct mig_out *out, struct mig_out_report *ret_report)
{
	const struct mig_out_times *times = &out->times;
	struct mig_out_report report = {
		.total_ns = between(times->begin_ns, times->end_ns),
		.queued_ns = between(times->begin_ns, times->entered_ns),
		.prepare_ns = between(times->entered_ns, times->linked_ns),
		.copy_ns = between(times->linked_ns, times->pause_ns),
		.blackout_ns = between(times->pause_ns, times->running_ns),
		.pause_ns = between(times->pause_ns, times->paused_ns),
		.last_round_ns = between(times->paused_ns, times->last_round_ns),
		.state_ns = between(times->last_round_ns, times->state_ns),
		.let_go_ns = between(times->state_ns, times->sealed_ns),
		.check_ns = between(times->sealed_ns, times->ready_ns),
		.commit_ns = between(times->ready_ns, times->committed_ns),
		.activate_ns = between(times->committed_ns, times->running_ns),
		.destination_check_ns = out->destination_check_ns,
		.destination_activate_ns = out->destination_activate_ns,
		.sent_bytes = mig_out_sent_bytes(out),
		.resent_chunks = out->resent_chunks,
		.state_bytes = out->state_bytes,
		.rounds = out->copy != NULL ? out->round + 1 : 0,
		.throttle_most = out->throttle_most,
		.throttle_ns = out->throttle_ns,
		.cuts = out->cuts,
		.cut_ns = out->cut_ns,
		.cut_held_ns = out->cut_held_ns,
		.again_bytes = out->again_bytes,
		.line = out->line,
	};

	if (out->copy != NULL) {
		struct mig_copy_counts counts = mig_copy_counts(out->copy);

		report.page_count = counts.page_count;
		report.zero_pages = counts.zero_pages;
		report.lz4_pages = counts.lz4_pages;
		report.lz4_bytes = counts.lz4_bytes;
		report.chunks = counts.chunks;
	}
	mig_out_post_report(out, &report);
	mig_out_verify_report(out, &report);
	*ret_report = report;
}
