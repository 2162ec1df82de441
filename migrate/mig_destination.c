/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The destination's side of the switchover.
 *
 * It runs the VM by the register's word only, and leaves, once it has said READY, by the register's
 * word or the source's: silence is neither.
 */
#include "migrate/mig_switch_priv.h"

struct mig_destination mig_destination_begin(uint64_t epoch)
{
	return (struct mig_destination){
		.state = MIG_DST_RECEIVING,
		.epoch = epoch,
	};
}

bool mig_destination_is_over(const struct mig_destination *destination)
{
	return destination->state == MIG_DST_RUNNING || destination->state == MIG_DST_GONE;
}

static void go(struct mig_destination *destination, struct mig_actions *out)
{
	destination->state = MIG_DST_GONE;
	mig_do_plain(out, MIG_DO_RELEASE);
}

/* The register names us: run it, or give it back. */
static void named(struct mig_destination *destination, struct mig_actions *out)
{
	if (destination->broken) {
		destination->state = MIG_DST_HANDING_BACK;
		mig_do_ask(out, destination->epoch + 1, MIG_SOURCE);
	} else {
		destination->state = MIG_DST_ACTIVATING;
		mig_do_run(out, destination->epoch + 1);
	}
}

static void withdraw(struct mig_destination *destination, struct mig_actions *out)
{
	destination->state = MIG_DST_WITHDRAWING;
	mig_do_ask(out, destination->epoch, MIG_SOURCE);
}

static void step_early(struct mig_destination *destination, const struct mig_event *event,
		       struct mig_actions *out)
{
	if (event->kind == MIG_EV_FAULT || event->kind == MIG_EV_GIVE_UP) {
		mig_do_send(out, MIG_MSG_FAILED);
		go(destination, out);
	} else if (event->kind == MIG_EV_LINK_LOST || mig_is_message(event, MIG_MSG_CANCEL)) {
		go(destination, out);
	} else if (destination->state == MIG_DST_RECEIVING &&
		   (mig_is_message(event, MIG_MSG_SEALED) ||
		    mig_is_message(event, MIG_MSG_SEALED_POST))) {
		destination->state = MIG_DST_CHECKING;
		destination->post = mig_is_message(event, MIG_MSG_SEALED_POST);
		mig_do_plain(out, MIG_DO_CHECK);
	} else if (destination->state == MIG_DST_CHECKING && event->kind == MIG_EV_CHECKED) {
		destination->state = MIG_DST_READY;
		mig_do_send(out, MIG_MSG_READY);
		mig_do_plain(out, MIG_DO_RETRY);
	}
}

/* The register at one instant after READY. */
static void judge(struct mig_destination *destination, const struct mig_event *event,
		  struct mig_actions *out)
{
	if (event->epoch == destination->epoch + 1 && event->owner == MIG_DESTINATION)
		named(destination, out);
	else if (event->epoch > destination->epoch)
		go(destination, out);
	else
		mig_do_plain(out, MIG_DO_RETRY);
}

/* READY and WITHDRAWING: not named yet as far as it knows. */
static void step_waiting(struct mig_destination *destination, const struct mig_event *event,
			 struct mig_actions *out)
{
	bool ready = destination->state == MIG_DST_READY;

	switch ((uint32_t)event->kind) {
	case MIG_EV_ARBITER:
		judge(destination, event, out);
		break;
	case MIG_EV_ARBITER_UNKNOWN:
		mig_do_plain(out, MIG_DO_RETRY);
		break;
	case MIG_EV_FAULT:
		destination->broken = true;
		withdraw(destination, out);
		break;
	case MIG_EV_GIVE_UP:
#ifdef GODWIT_MUTANT_MIG_LEAVE_ALONE
		go(destination, out);
#else
		withdraw(destination, out);
#endif
		break;
	case MIG_EV_LINK_LOST:
		mig_do_plain(out, MIG_DO_READ);
		break;
	case MIG_EV_RETRY:
		if (ready)
			mig_do_plain(out, MIG_DO_READ);
		else
			mig_do_ask(out, destination->epoch, MIG_SOURCE);
		break;
	case MIG_EV_LINK_BACK:
		if (ready)
			mig_do_send(out, MIG_MSG_READY);
		break;
	default:
		if (mig_is_message(event, MIG_MSG_COMMIT))
			named(destination, out);
		else if (mig_is_message(event, MIG_MSG_CANCEL))
			go(destination, out);
		break;
	}
}

static void step_handing_back(struct mig_destination *destination, const struct mig_event *event,
			      struct mig_actions *out)
{
	if (event->kind == MIG_EV_ARBITER && event->epoch > destination->epoch + 1) {
		destination->handed_back = event->owner == MIG_SOURCE;
		if (destination->handed_back)
			mig_do_send(out, MIG_MSG_HANDED_BACK);
		go(destination, out);
	} else if (event->kind == MIG_EV_ARBITER || event->kind == MIG_EV_ARBITER_UNKNOWN) {
		mig_do_plain(out, MIG_DO_RETRY);
	} else if (event->kind == MIG_EV_RETRY) {
		mig_do_ask(out, destination->epoch + 1, MIG_SOURCE);
	}
}

static void step_activating(struct mig_destination *destination, const struct mig_event *event,
			    struct mig_actions *out)
{
	if (event->kind == MIG_EV_RUNS) {
		destination->state = destination->post ? MIG_DST_FILLING : MIG_DST_RUNNING;
		mig_do_send(out, MIG_MSG_RUNNING);
	} else if (event->kind == MIG_EV_RUN_FAILED) {
		destination->broken = true;
		named(destination, out);
	}
}

/* It runs, and is not taken back by anything.  What its user ends here needs no more pages. */
static void step_filling(struct mig_destination *destination, const struct mig_event *event,
			 struct mig_actions *out)
{
	if (event->kind == MIG_EV_FILLED || event->kind == MIG_EV_GIVE_UP) {
		destination->state = MIG_DST_RUNNING;
		mig_do_send(out, MIG_MSG_COMPLETE);
	} else if (event->kind == MIG_EV_LINK_BACK || mig_is_message(event, MIG_MSG_COMMIT)) {
		mig_do_send(out, MIG_MSG_RUNNING);
	}
}

/* After the end: a source that has not heard of it is told. */
static void step_over(const struct mig_destination *destination, const struct mig_event *event,
		      struct mig_actions *out)
{
	if (event->kind != MIG_EV_LINK_BACK && !mig_is_message(event, MIG_MSG_COMMIT))
		return;
	if (destination->state == MIG_DST_RUNNING)
		mig_do_send(out, destination->post ? MIG_MSG_COMPLETE : MIG_MSG_RUNNING);
	else
		mig_do_send(out, destination->handed_back ? MIG_MSG_HANDED_BACK : MIG_MSG_FAILED);
}

struct mig_destination mig_destination_step(struct mig_destination destination,
					    const struct mig_event *event,
					    struct mig_actions *ret_actions)
{
	ret_actions->count = 0;
	switch (destination.state) {
	case MIG_DST_RECEIVING:
	case MIG_DST_CHECKING:
		step_early(&destination, event, ret_actions);
		break;
	case MIG_DST_READY:
	case MIG_DST_WITHDRAWING:
		step_waiting(&destination, event, ret_actions);
		break;
	case MIG_DST_ACTIVATING:
		step_activating(&destination, event, ret_actions);
		break;
	case MIG_DST_HANDING_BACK:
		step_handing_back(&destination, event, ret_actions);
		break;
	case MIG_DST_FILLING:
		step_filling(&destination, event, ret_actions);
		break;
	case MIG_DST_RUNNING:
	case MIG_DST_GONE:
		step_over(&destination, event, ret_actions);
		break;
	case MIG_DST_INVALID:
	case MIG_DST_STATES:
	default:
		base_bug("a migration's destination in state %d", (int)destination.state);
	}
	return destination;
}
