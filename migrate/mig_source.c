/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The source's side of the switchover.
 *
 * Until the arbiter has been asked, the source decides alone: the destination runs by the
 * register's word only.  From then on the register decides, for the source as well: it never
 * resumes because time has passed or a connection is gone.
 */
#include "migrate/mig_switch_priv.h"

struct mig_source mig_source_begin(uint64_t epoch)
{
	return (struct mig_source){ .state = MIG_SRC_LINKING, .epoch = epoch };
}

bool mig_source_is_over(const struct mig_source *source)
{
	return source->state == MIG_SRC_STAYS || source->state == MIG_SRC_MOVED ||
	       source->state == MIG_SRC_STALE;
}

/* Back into life, at @epoch; the destination is told that it need not wait. */
static void retake(struct mig_source *source, uint64_t epoch, struct mig_actions *out)
{
	source->state = MIG_SRC_RETAKING;
	source->epoch = epoch;
	mig_do_run(out, epoch);
}

static void release(struct mig_source *source, enum mig_source_state end, struct mig_actions *out)
{
	source->state = end;
	mig_do_plain(out, MIG_DO_RELEASE);
}

/* Whether the event ends a migration that has not asked the arbiter. */
static bool ends_early(const struct mig_event *event)
{
	return event->kind == MIG_EV_CANCEL || event->kind == MIG_EV_FAULT ||
	       event->kind == MIG_EV_LINK_LOST || mig_is_message(event, MIG_MSG_FAILED);
}

/* The VM has not been touched. */
static void stay(struct mig_source *source, struct mig_actions *out)
{
	source->state = MIG_SRC_STAYS;
	mig_do_send(out, MIG_MSG_CANCEL);
}

static void back_out(struct mig_source *source, struct mig_actions *out)
{
	mig_do_send(out, MIG_MSG_CANCEL);
	retake(source, source->epoch, out);
}

static void step_before_pause(struct mig_source *source, const struct mig_event *event,
			      struct mig_actions *out)
{
	if (ends_early(event)) {
		stay(source, out);
	} else if (event->kind == MIG_EV_LINKED) {
		source->state = MIG_SRC_COPYING;
	} else if ((event->kind == MIG_EV_SWITCH || event->kind == MIG_EV_SWITCH_POST) &&
		   source->state == MIG_SRC_COPYING) {
		source->state = MIG_SRC_PAUSING;
		source->post = event->kind == MIG_EV_SWITCH_POST;
		mig_do_plain(out, MIG_DO_PAUSE);
	}
}

static void step_before_asking(struct mig_source *source, const struct mig_event *event,
			       struct mig_actions *out)
{
	if (ends_early(event)) {
		back_out(source, out);
	} else if (source->state == MIG_SRC_PAUSING && event->kind == MIG_EV_PAUSED) {
		source->state = MIG_SRC_SENDING;
		mig_do_plain(out, MIG_DO_SEND_REST);
	} else if (source->state == MIG_SRC_SENDING && mig_is_message(event, MIG_MSG_READY)) {
		source->state = MIG_SRC_PROMISING;
		mig_do_plain(out, MIG_DO_PROMISE);
	} else if (source->state == MIG_SRC_PROMISING && event->kind == MIG_EV_PROMISED) {
		source->state = MIG_SRC_ASKING;
		mig_do_ask(out, source->epoch, MIG_DESTINATION);
	}
}

/* The destination runs it.  What it still needs stays, and is never run here again. */
static void moved(struct mig_source *source, struct mig_actions *out)
{
#ifndef GODWIT_MUTANT_MIG_POST_RELEASE
	if (source->post) {
		source->state = MIG_SRC_SERVING;
		mig_do_plain(out, MIG_DO_SERVE);
		return;
	}
#endif
	release(source, MIG_SRC_MOVED, out);
}

/* The register as it was at one instant after we first asked. */
static void judge(struct mig_source *source, const struct mig_event *event, struct mig_actions *out)
{
	uint64_t beyond = source->state == MIG_SRC_COMMITTED ? source->epoch + 1 : source->epoch;

	if (event->epoch <= beyond) {
		mig_do_plain(out, MIG_DO_RETRY); /* what we asked for may still come to pass */
	} else if (event->owner == MIG_SOURCE) {
		retake(source, event->epoch, out);
	} else if (event->owner == MIG_DESTINATION && event->epoch == source->epoch + 1) {
		source->state = MIG_SRC_COMMITTED;
		mig_do_send(out, MIG_MSG_COMMIT);
		mig_do_plain(out, MIG_DO_RETRY);
	} else {
		release(source, MIG_SRC_STALE, out);
	}
}

/* Also without a word that it runs: that was lost. */
static bool is_complete(const struct mig_source *source, const struct mig_event *event)
{
	return source->post && mig_is_message(event, MIG_MSG_COMPLETE);
}

static void step_asking(struct mig_source *source, const struct mig_event *event,
			struct mig_actions *out)
{
	switch ((uint32_t)event->kind) {
	case MIG_EV_ARBITER:
		judge(source, event, out);
		break;
	case MIG_EV_ARBITER_UNKNOWN:
#ifdef GODWIT_MUTANT_MIG_UNKNOWN_IS_NO
		retake(source, source->epoch, out);
#else
		mig_do_plain(out, MIG_DO_RETRY);
#endif
		break;
	case MIG_EV_CANCEL: /* our wish stands against the one before: the first to arrive wins */
		source->cancelled = true;
		mig_do_ask(out, source->epoch, MIG_SOURCE);
		break;
	case MIG_EV_RETRY:
		mig_do_ask(out, source->epoch, source->cancelled ? MIG_SOURCE : MIG_DESTINATION);
		break;
	default:
		if (mig_is_message(event, MIG_MSG_RUNNING))
			moved(source, out);
		else if (is_complete(source, event))
			release(source, MIG_SRC_MOVED, out);
		else if (mig_is_message(event, MIG_MSG_FAILED) ||
			 mig_is_message(event, MIG_MSG_HANDED_BACK))
			mig_do_plain(out, MIG_DO_READ); /* the register knows */
		break;
	}
}

static void step_committed(struct mig_source *source, const struct mig_event *event,
			   struct mig_actions *out)
{
	if (event->kind == MIG_EV_ARBITER)
		judge(source, event, out);
	else if (event->kind == MIG_EV_ARBITER_UNKNOWN)
		mig_do_plain(out, MIG_DO_RETRY);
	else if (event->kind == MIG_EV_RETRY || mig_is_message(event, MIG_MSG_HANDED_BACK))
		mig_do_plain(out, MIG_DO_READ);
	else if (event->kind == MIG_EV_LINK_BACK)
		mig_do_send(out, MIG_MSG_COMMIT);
	else if (mig_is_message(event, MIG_MSG_RUNNING))
		moved(source, out);
	else if (is_complete(source, event))
		release(source, MIG_SRC_MOVED, out);
}

/*
 * It runs there, whatever the register says later: that it was given on, or restarted from its
 * disks.  What is here can never run.  It goes when the destination has all of it, when the
 * register has gone on, or by the word of a user who hears as little of the destination as we do.
 */
static void step_serving(struct mig_source *source, const struct mig_event *event,
			 struct mig_actions *out)
{
	bool elsewhere = event->kind == MIG_EV_ARBITER && event->epoch > source->epoch + 1;
	bool answered = event->kind == MIG_EV_ARBITER || event->kind == MIG_EV_ARBITER_UNKNOWN;

	if (is_complete(source, event)) {
		release(source, MIG_SRC_MOVED, out);
	} else if (elsewhere || (event->kind == MIG_EV_CANCEL && source->lost)) {
		release(source, MIG_SRC_STALE, out);
	} else if (answered && source->lost) {
		mig_do_plain(out, MIG_DO_RETRY);
	} else if (event->kind == MIG_EV_RETRY && source->lost) {
		mig_do_plain(out, MIG_DO_READ);
	} else if (event->kind == MIG_EV_LINK_LOST) {
		source->lost = true;
		mig_do_plain(out, MIG_DO_RETRY);
	} else if (event->kind == MIG_EV_LINK_BACK) {
		source->lost = false;
		mig_do_send(out, MIG_MSG_COMMIT); /* it answers with what it has come to */
	}
}

static void step_retaking(struct mig_source *source, const struct mig_event *event,
			  struct mig_actions *out)
{
	if (event->kind == MIG_EV_RUNS)
		source->state = MIG_SRC_STAYS;
	else if (event->kind == MIG_EV_RUN_FAILED)
		mig_do_plain(out, MIG_DO_RETRY);
	else if (event->kind == MIG_EV_RETRY)
		mig_do_run(out, source->epoch);
}

struct mig_source mig_source_step(struct mig_source source, const struct mig_event *event,
				  struct mig_actions *ret_actions)
{
	ret_actions->count = 0;
	switch (source.state) {
	case MIG_SRC_LINKING:
	case MIG_SRC_COPYING:
		step_before_pause(&source, event, ret_actions);
		break;
	case MIG_SRC_PAUSING:
	case MIG_SRC_SENDING:
	case MIG_SRC_PROMISING:
		step_before_asking(&source, event, ret_actions);
		break;
	case MIG_SRC_ASKING:
		step_asking(&source, event, ret_actions);
		break;
	case MIG_SRC_COMMITTED:
		step_committed(&source, event, ret_actions);
		break;
	case MIG_SRC_SERVING:
		step_serving(&source, event, ret_actions);
		break;
	case MIG_SRC_RETAKING:
		step_retaking(&source, event, ret_actions);
		break;
	case MIG_SRC_STAYS:
	case MIG_SRC_MOVED:
	case MIG_SRC_STALE:
		break;
	case MIG_SRC_INVALID:
	case MIG_SRC_STATES:
	default:
		base_bug("a migration's source in state %d", (int)source.state);
	}
	/* A destination that still waits for us is told that it need not. */
	if ((source.state == MIG_SRC_STAYS || source.state == MIG_SRC_RETAKING) &&
	    (event->kind == MIG_EV_LINK_BACK || mig_is_message(event, MIG_MSG_READY)))
		mig_do_send(ret_actions, MIG_MSG_CANCEL);
	return source;
}
