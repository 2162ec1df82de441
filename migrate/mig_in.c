/* SPDX-License-Identifier: Apache-2.0 */
/* The destination's session: its life, and what the machine of mig_switch.h wants done. */
#include "migrate/mig_in.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>

#include "base/bytes.h"
#include "base/cleanup.h"
#include "base/crc32c.h"
#include "migrate/mig_in_priv.h"

#define TIMEOUT_MS 10000u
#define RETRY_MS   1000u

int mig_in_new(const struct mig_in_options *options, struct mig_in **ret_in, struct base_error *err)
{
	struct mig_in *in = calloc(1, sizeof(*in));
	int r = 0;

	if (in == NULL)
		return base_fail(err, -ENOMEM, "migration");
	in->options = *options;
	if (in->options.timeout_ms == 0)
		in->options.timeout_ms = TIMEOUT_MS;
	if (in->options.retry_ms == 0)
		in->options.retry_ms = RETRY_MS;
	in->retry_ns = BASE_TIME_NEVER;
	in->give_up_ns = BASE_TIME_NEVER;
	in->wake_fd = -1;
	in->machine = mig_destination_begin(0);
	mig_events_init(&in->events);
	(void)pthread_mutex_init(&in->control_lock, NULL); /* these three cannot fail on Linux */
	(void)pthread_mutex_init(&in->lock, NULL);
	(void)pthread_cond_init(&in->changed, NULL);
	base_random_bytes(in->secret, sizeof(in->secret));
	r = mig_in_door_open(in, err);
	if (r < 0) {
		mig_in_free(in);
		return r;
	}
	*ret_in = in;
	return 0;
}

/* The control channel of now, which nobody uses any more after it. */
static struct mig_control *take_control(struct mig_in *in)
{
	BASE_LOCKED(&in->control_lock);

	return base_take(&in->control);
}

static void leave_host(const struct mig_in *in)
{
	if (in->options.host != NULL)
		mig_host_leave(in->options.host, MIG_INCOMING);
}

void mig_in_free(struct mig_in *in)
{
	if (in == NULL)
		return;
	mig_events_close(&in->events);
	mig_in_door_close(in);
	mig_control_free(take_control(in));
	mig_in_data_stop(in);
	mig_in_post_fini(in);
	leave_host(in);
	mig_intake_free(in->intake);
	mig_verify_free(in->verify);
	free(in->roots);
	base_buffer_fini(&in->state);
	mig_plan_fini(&in->plan);
	mig_events_fini(&in->events);
	(void)pthread_cond_destroy(&in->changed);
	(void)pthread_mutex_destroy(&in->lock);
	(void)pthread_mutex_destroy(&in->control_lock);
	free(in);
}

void mig_in_note(struct mig_in *in, int code, const struct base_error *why)
{
	BASE_LOCKED(&in->lock);

	if (in->has_reason)
		return;
	in->has_reason = true;
	in->reason = *why;
	in->reason.code = code;
	(void)pthread_cond_broadcast(&in->changed);
}

void mig_in_fault(struct mig_in *in, int code, const struct base_error *why)
{
	mig_in_note(in, code, why);
	mig_events_post_kind(&in->events, MIG_EV_FAULT);
}

void mig_in_give_up(struct mig_in *in)
{
	mig_events_post_kind(&in->events, MIG_EV_GIVE_UP);
}

/* --- what is said --- */

void mig_in_send(struct mig_in *in, enum mig_type type, const void *body, uint32_t body_bytes)
{
	BASE_LOCKED(&in->control_lock);

	if (in->control != NULL)
		(void)!mig_control_send(in->control, type, body, body_bytes, NULL);
}

void mig_in_send_failed(struct mig_in *in, const char *why)
{
	uint8_t body[MIG_NOTIFY_BYTES_MAX];

	mig_in_send(in, MIG_TYPE_FAILED, body, mig_reason_encode(why, body));
}

static void say_epoch(struct mig_in *in, enum mig_type type, uint64_t took_ns)
{
	const struct mig_epoch_note note = { .epoch = in->plan.epoch + 1, .took_ns = took_ns };
	uint8_t body[MIG_EPOCH_BYTES];

	mig_epoch_encode(&note, body);
	mig_in_send(in, type, body, sizeof(body));
}

static void say_failed(struct mig_in *in)
{
	struct base_error reason;

	{
		BASE_LOCKED(&in->lock);

		reason = in->reason;
	}
	mig_in_send_failed(in, reason.code != 0 ? reason.text : "given up");
}

static void say_ready(struct mig_in *in)
{
	{
		BASE_LOCKED(&in->lock);

		in->was_ready = true;
	}
	mig_in_verify_say(in);
	say_epoch(in, MIG_TYPE_READY, in->check_ns);
}

static void say(struct mig_in *in, enum mig_message message)
{
	if (message == MIG_MSG_READY)
		say_ready(in);
	else if (message == MIG_MSG_RUNNING)
		say_epoch(in, MIG_TYPE_RUNNING, in->activate_ns);
	else if (message == MIG_MSG_HANDED_BACK)
		say_epoch(in, MIG_TYPE_HANDED_BACK, 0);
	else if (message == MIG_MSG_FAILED)
		say_failed(in);
	else if (message == MIG_MSG_COMPLETE)
		mig_in_post_say(in);
	else
		base_bug("migration: message %d of a destination", (int)message);
}

/* --- what the machine wants done --- */

/* Whether what came is what was sent. */
static int check_seal(struct mig_in *in, struct base_error *err)
{
	uint64_t chunks = mig_intake_counts(in->intake).chunks;

#ifdef GODWIT_MUTANT_MIG_SEAL
	return 0;
#endif
	if (in->sealed.chunks != chunks)
		return base_fail(err, -EBADMSG,
				 "migration: %" PRIu64 " chunks came, the source sent %" PRIu64,
				 chunks, in->sealed.chunks);
	if (in->sealed.round + 1 != in->rounds_reported)
		return base_fail(err, -EBADMSG,
				 "migration: sealed after round %" PRIu32 ", expected %" PRIu32,
				 in->sealed.round, in->rounds_reported - 1);
	if (in->sealed.state_bytes != in->state.size_bytes ||
	    in->sealed.state_crc != base_crc32c(0, in->state.data, in->state.size_bytes))
		return base_fail(err, -EBADMSG,
				 "migration: the device state is not what the source sent (%zu of "
				 "%" PRIu64 " bytes)",
				 in->state.size_bytes, in->sealed.state_bytes);
	return mig_in_post_check(in, err);
}

static void do_check(struct mig_in *in)
{
	uint64_t begin_ns = mig_in_now();
	struct base_error why = { 0 };
	int r = check_seal(in, &why);

	if (r == 0)
		r = mig_in_verify_compare(in, &why);
	if (r == 0 && in->sealed.post)
		r = mig_in_post_begin(in, &why);
	if (r == 0)
		r = in->options.vm->check(in->options.vm_context, in->state.data,
					  in->state.size_bytes, &why);
	if (in->post.fill != NULL)
		r = mig_in_post_end_check(in, r, &why);
	in->check_ns = mig_in_now() - begin_ns;
	if (r < 0)
		mig_in_fault(in, base_fail_within(&why, r, "the VM cannot run here"), &why);
	else
		mig_events_post_kind(&in->events, MIG_EV_CHECKED);
}

static void do_ask(struct mig_in *in, uint64_t epoch, enum mig_side owner)
{
	const struct mig_arbiter *arbiter = in->options.arbiter;
	struct mig_event event = { .kind = MIG_EV_ARBITER };
	struct mig_register value = { 0 };
	int r = 0;

	if (owner == MIG_SIDE_INVALID)
		r = arbiter->read(arbiter->context, &value, NULL);
	else
		r = arbiter->ask(arbiter->context, epoch, owner, &value, NULL);
	if (r < 0) { /* whatever it was: the request may have been, or may yet be carried out */
		mig_events_post_kind(&in->events, MIG_EV_ARBITER_UNKNOWN);
		return;
	}
	event.epoch = value.epoch;
	event.owner = value.owner;
	mig_events_post(&in->events, &event);
}

static void do_run(struct mig_in *in, uint64_t epoch)
{
	uint64_t begin_ns = mig_in_now();
	struct base_error why = { 0 };
	int r = in->options.vm->run(in->options.vm_context, epoch, &why);

	in->activate_ns = mig_in_now() - begin_ns;
	if (r < 0) {
		(void)base_fail_within(&why, r, "the VM does not start here");
		mig_in_note(in, r, &why);
		mig_events_post_kind(&in->events, MIG_EV_RUN_FAILED);
		return;
	}
	mig_events_post_kind(&in->events, MIG_EV_RUNS);
}

static void do_release(struct mig_in *in)
{
	bool prepared = false;

	mig_in_data_stop(in); /* nobody writes into its memory after it */
	mig_in_post_halt(in);
	{
		BASE_LOCKED(&in->lock);

		while (in->preparing) /* one call at a time */
			(void)base_cond_wait(&in->changed, &in->lock, BASE_TIME_NEVER);
		prepared = in->prepared;
		in->prepared = false;
	}
	if (prepared)
		in->options.vm->release(in->options.vm_context);
}

static void perform(struct mig_in *in, const struct mig_action *action)
{
	switch (action->kind) {
	case MIG_DO_CHECK:
		do_check(in);
		break;
	case MIG_DO_SEND:
		say(in, action->message);
		break;
	case MIG_DO_ASK:
		do_ask(in, action->epoch, action->owner);
		break;
	case MIG_DO_READ:
		do_ask(in, 0, MIG_SIDE_INVALID);
		break;
	case MIG_DO_RUN:
		do_run(in, action->epoch);
		break;
	case MIG_DO_RELEASE:
		do_release(in);
		break;
	case MIG_DO_RETRY:
		in->retry_ns = mig_in_now() + in->options.retry_ms * BASE_NS_PER_MS;
		break;
	case MIG_DO_INVALID:
	case MIG_DO_PAUSE: /* the source's */
	case MIG_DO_SEND_REST:
	case MIG_DO_PROMISE:
	case MIG_DO_SERVE:
	case MIG_DOS:
	default:
		base_bug("migration: action %d at a destination", (int)action->kind);
	}
}

/* How long it stays ready without a word of the source.  True: it is nothing to the machine, as the
 * source may be back before it has sent all. */
static bool count_silence(struct mig_in *in, const struct mig_event *event)
{
	bool is_cut = event->kind == MIG_EV_LINK_LOST && in->machine.state == MIG_DST_RECEIVING &&
		      mig_in_can_resume(in);
	uint32_t most_ms = is_cut ? in->resume_ms : in->options.give_up_ms;

	if (event->kind == MIG_EV_LINK_BACK)
		in->give_up_ns = BASE_TIME_NEVER;
	if (event->kind == MIG_EV_LINK_LOST && most_ms > 0)
		in->give_up_ns = mig_in_now() + most_ms * BASE_NS_PER_MS;
	return is_cut;
}

static void step(struct mig_in *in, const struct mig_event *event)
{
	struct mig_actions actions;

	if (event->kind == MIG_EV_MESSAGE &&
	    (event->message == MIG_MSG_SEALED || event->message == MIG_MSG_SEALED_POST))
		in->machine.epoch = in->plan.epoch;
	if (count_silence(in, event))
		return;
	in->machine = mig_destination_step(in->machine, event, &actions);
	for (uint32_t i = 0; i < actions.count; i++)
		perform(in, &actions.list[i]);
	if (event->kind == MIG_EV_RUNS && in->machine.state == MIG_DST_FILLING)
		mig_in_post_runs(in);
}

/* The next event, or what its time has come for. */
static void next(struct mig_in *in, uint64_t most_ns)
{
	uint64_t deadline_ns = in->retry_ns < in->give_up_ns ? in->retry_ns : in->give_up_ns;
	struct mig_event event = { .kind = MIG_EV_GIVE_UP };

	deadline_ns = most_ns < deadline_ns ? most_ns : deadline_ns;
	if (!mig_events_take(&in->events, deadline_ns, &event)) {
		if (deadline_ns == most_ns)
			return;
		if (deadline_ns == in->retry_ns) {
			event.kind = MIG_EV_RETRY;
			in->retry_ns = BASE_TIME_NEVER;
		} else {
			in->give_up_ns = BASE_TIME_NEVER;
		}
	}
	step(in, &event);
}

enum mig_in_end mig_in_run(struct mig_in *in, uint64_t *ret_epoch, struct base_error *err)
{
	while (!mig_destination_is_over(&in->machine) && in->machine.state != MIG_DST_FILLING)
		next(in, BASE_TIME_NEVER);
	if (in->machine.state != MIG_DST_FILLING)
		leave_host(in);
	if (in->machine.state == MIG_DST_RUNNING || in->machine.state == MIG_DST_FILLING) {
		*ret_epoch = in->machine.epoch + 1;
		return MIG_IN_RUNNING;
	}
	BASE_LOCKED(&in->lock);
	if (in->has_reason && err != NULL)
		*err = in->reason;
	else
		(void)base_fail(err, -ECANCELED, "migration: given up");
	return MIG_IN_GONE;
}

static bool has_parted(struct mig_in *in)
{
	BASE_LOCKED(&in->lock);

	return !in->was_ready || in->parted;
}

void mig_in_fill(struct mig_in *in)
{
	while (in->machine.state == MIG_DST_FILLING)
		next(in, BASE_TIME_NEVER);
	leave_host(in);
}

void mig_in_linger(struct mig_in *in, uint32_t most_ms)
{
	uint64_t most_ns = 0;

	mig_in_fill(in);
	base_assert(mig_destination_is_over(&in->machine));
	most_ns = mig_in_now() + most_ms * BASE_NS_PER_MS;
	in->retry_ns = BASE_TIME_NEVER;
	in->give_up_ns = BASE_TIME_NEVER;
	while (!has_parted(in) && mig_in_now() < most_ns)
		next(in, most_ns);
}
