/* SPDX-License-Identifier: Apache-2.0 */
/* What the source says on the control channel: the receiver's thread. */
#include <errno.h>
#include <inttypes.h>
#include <string.h>

#include "base/bytes.h"
#include "base/cleanup.h"
#include "migrate/mig_in_priv.h"

static void post_message(struct mig_in *in, enum mig_message message)
{
	const struct mig_event event = { .kind = MIG_EV_MESSAGE, .message = message };

	mig_events_post(&in->events, &event);
}

void mig_in_sealed(struct mig_in *in)
{
	{
		BASE_LOCKED(&in->lock);

		if (!in->has_sealed || !in->whole || in->sealed_told || in->cutting)
			return;
		in->sealed_told = true;
	}
	post_message(in, in->sealed.post ? MIG_MSG_SEALED_POST : MIG_MSG_SEALED);
}

/* --- the plan --- */

static int make_intake(struct mig_in *in, struct mig_intake **ret_intake,
		       struct mig_verify **ret_verify, struct base_error *err)
{
	struct mig_object objects[MIG_OBJECTS_MAX];
	struct mig_intake_options options = {
		.memory = in->memory,
		.objects = objects,
		.object_count = in->plan.object_count,
		.channel_count = in->channel_count,
		.disk = &in->options.vm->disk,
		.disk_context = in->options.vm_context,
		.bare = in->options.tls != NULL && (in->plan.capabilities & MIG_CAN_BARE) != 0,
	};
	int r = 0;

	for (uint32_t i = 0; i < in->plan.object_count; i++)
		objects[i] = in->plan.objects[i].object;
	if ((in->plan.flags & MIG_PLAN_VERIFY) != 0)
		r = mig_in_verify_new(in, objects, ret_verify, err);
	if (r < 0)
		return r;
	options.verify = *ret_verify;
	r = mig_intake_new(&options, ret_intake, err);
	if (r < 0)
		mig_verify_free(*ret_verify);
	return r;
}

static int send_findings(struct mig_in *in, const struct mig_findings *findings,
			 struct base_error *err)
{
	BASE_CLEANUP(base_buffer_fini) struct base_buffer body = { .data = NULL };

	mig_findings_encode(findings, &body);
	if (body.failed)
		return base_fail(err, -ENOMEM, "migration: findings");
	mig_in_send(in, MIG_TYPE_FINDINGS, body.data, (uint32_t)body.size_bytes);
	return 0;
}

/* Now or never: who waited here would hold up a source that others wait for. */
static int take_part(const struct mig_in *in, struct mig_findings *findings, struct base_error *err)
{
	struct mig_host *host = in->options.host;
	uint32_t busy = 0;
	uint32_t most = 0;
	int r = host == NULL ? 1 : mig_host_try(host, MIG_INCOMING, err);

	if (r < 0)
		return r;
	if (r == 0) {
		busy = mig_host_busy(host, MIG_INCOMING, &most);
		mig_findings_add(findings,
				 "host: it takes part in %" PRIu32 " of %" PRIu32
				 " incoming migrations",
				 busy, most);
	}
	return 0;
}

/* Room for all of it, or why there is none. */
static int prepare(struct mig_in *in, struct mig_findings *findings, struct base_error *err)
{
	struct mig_intake *intake = NULL;
	struct mig_verify *verify = NULL;
	int r = 0;

	{
		BASE_LOCKED(&in->lock);

		if (in->stop)
			return base_fail(err, -ECANCELED, "migration: over");
		in->prepared = true;
		in->preparing = true;
	}
	r = take_part(in, findings, err);
	if (r == 0)
		r = in->options.vm->prepare(in->options.vm_context, &in->plan, findings,
					    &in->memory, err);
	{
		BASE_LOCKED(&in->lock);

		in->preparing = false;
		(void)pthread_cond_broadcast(&in->changed);
	}
	if (r < 0 || findings->count > 0)
		return r;
	r = make_intake(in, &intake, &verify, err);
	if (r < 0)
		return r;
	BASE_LOCKED(&in->lock);
	in->verify = verify;
	in->intake = intake;
	return 0;
}

static int take_plan(struct mig_in *in, const struct mig_received *received, struct base_error *err)
{
	static const struct mig_findings none;
	struct mig_findings findings = none;
	int r = 0;

	if (in->plan.objects != NULL)
		return base_fail(err, -EPROTO, "migration: a second plan");
	r = mig_plan_decode(received->body, received->body_bytes, &in->plan, err);
	if (r == 0)
		r = prepare(in, &findings, err);
	if (r < 0)
		return r;
	if (findings.count == 0) {
		BASE_LOCKED(&in->lock);

		in->accepted = true;
	}
	r = send_findings(in, &findings, err);
	if (r == 0 && findings.count > 0)
		mig_in_fault(in, -EINVAL,
			     &(struct base_error){ .code = -EINVAL,
						   .text = "the VM does not fit here: the source "
							   "was told why" });
	return r;
}

/* --- rounds, state --- */

static int in_migration(struct mig_in *in, const char *what, struct base_error *err)
{
	BASE_LOCKED(&in->lock);

	if (in->accepted && !in->has_sealed)
		return 0;
	return base_fail(err, -EPROTO, "migration: message %s %s", what,
			 in->accepted ? "after sealed" : "before a plan that fits");
}

static int take_round(struct mig_in *in, const struct mig_received *received,
		      struct base_error *err)
{
	struct mig_round round = { 0 };
	int r = in_migration(in, "round", err);

	if (r == 0)
		r = mig_round_decode(received->body, received->body_bytes, &round, err);
	if (r < 0)
		return r;
	{
		BASE_LOCKED(&in->lock);

		if (round.number != in->rounds_reported)
			return base_fail(err, -EPROTO,
					 "migration: round %" PRIu32 " begins, expected %" PRIu32
					 " after the report of the one before",
					 round.number, in->rounds_reported);
	}
	r = mig_intake_round(in->intake, round.number, round.last, err);
	if (r == 0)
		r = mig_in_verify_begin(in, &round, err);
	if (r == 0)
		mig_in_round_opened(in, round.number);
	return r;
}

static int take_state(struct mig_in *in, const struct mig_received *received,
		      struct base_error *err)
{
	struct mig_state_piece piece = { 0 };
	int r = in_migration(in, "state", err);

	if (r == 0)
		r = mig_state_decode(received->body, received->body_bytes, &piece, err);
	if (r < 0)
		return r;
	if (piece.offset_bytes != in->state.size_bytes) /* so all are within the limit, too */
		return base_fail(err, -EBADMSG,
				 "migration: device state from byte %" PRIu64 ", expected %zu",
				 piece.offset_bytes, in->state.size_bytes);
	base_buffer_append(&in->state, piece.bytes, piece.size_bytes);
	return in->state.failed ? base_fail(err, -ENOMEM, "migration: device state") : 0;
}

static int take_roots(struct mig_in *in, const struct mig_received *received,
		      struct base_error *err)
{
	int r = in_migration(in, "roots", err);

	return r == 0 ? mig_in_verify_take_roots(in, received, err) : r;
}

static int take_owed(struct mig_in *in, const struct mig_received *received, struct base_error *err)
{
	int r = in_migration(in, "owed", err);

	return r == 0 ? mig_in_post_take_owed(in, received, err) : r;
}

static int take_sealed(struct mig_in *in, const struct mig_received *received,
		       struct base_error *err)
{
	int r = in_migration(in, "sealed", err);

	if (r == 0)
		r = mig_sealed_decode(received->body, received->body_bytes, &in->sealed, err);
	if (r < 0)
		return r;
	{
		BASE_LOCKED(&in->lock);

		in->has_sealed = true;
	}
	mig_in_sealed(in);
	return 0;
}

/* --- the switchover --- */

/* Where the register is here, the source's word is compared with it.  1: it was true, and is not
 * any more, which a source that was cut off cannot know: it asks. */
static int check_commit(struct mig_in *in, struct base_error *err)
{
	const struct mig_arbiter *arbiter = in->options.arbiter;
	struct mig_register value = { 0 };

#ifdef GODWIT_MUTANT_MIG_COMMIT_WORD
	return 0;
#endif
	if (!in->options.keeps_register ||
	    arbiter->read(arbiter->context, &value, NULL) < 0 || /* not known now: it asks again */
	    (value.epoch == in->plan.epoch + 1 && value.owner == MIG_DESTINATION))
		return 0;
	if (value.epoch > in->plan.epoch + 1)
		return 1;
	return base_fail(err, -EPROTO,
			 "migration: commit of epoch %" PRIu64 ", which the register does not know",
			 in->plan.epoch + 1);
}

static int take_commit(struct mig_in *in, const struct mig_received *received,
		       struct base_error *err)
{
	struct mig_epoch_note note;
	int r = mig_epoch_decode(received->body, received->body_bytes, &note, err);

	if (r < 0)
		return r;
	if (note.epoch != in->plan.epoch + 1)
		return base_fail(err, -EPROTO,
				 "migration: commit of epoch %" PRIu64 ", expected %" PRIu64,
				 note.epoch, in->plan.epoch + 1);
	r = check_commit(in, err);
	if (r == 0)
		post_message(in, MIG_MSG_COMMIT);
	return r < 0 ? r : 0;
}

/* Nobody becomes the owner of what it has not: the destination is named only once it is ready. */
static bool may_ask(struct mig_in *in, const struct mig_ask *ask)
{
	BASE_LOCKED(&in->lock);

#ifdef GODWIT_MUTANT_MIG_ASK_EARLY
	return true;
#endif
	return in->options.keeps_register && in->was_ready &&
	       (ask->owner == MIG_SIDE_INVALID || ask->epoch == in->plan.epoch);
}

static int take_ask(struct mig_in *in, const struct mig_received *received, struct base_error *err)
{
	const struct mig_arbiter *arbiter = in->options.arbiter;
	struct mig_answer answer = { .owner = MIG_SIDE_INVALID };
	struct mig_register value = { 0 };
	uint8_t body[MIG_REGISTER_BYTES];
	struct mig_ask ask;
	int r = mig_ask_decode(received->body, received->body_bytes, &ask, err);

	if (r < 0)
		return r;
	answer.number = ask.number;
	if (!may_ask(in, &ask))
		r = -EPROTO;
	else if (ask.owner == MIG_SIDE_INVALID)
		r = arbiter->read(arbiter->context, &value, NULL);
	else
		r = arbiter->ask(arbiter->context, ask.epoch, (enum mig_side)ask.owner, &value,
				 NULL);
	if (r == 0) {
		answer.epoch = value.epoch;
		answer.owner = (uint32_t)value.owner;
	}
	mig_answer_encode(&answer, body);
	mig_in_send(in, MIG_TYPE_REGISTER, body, sizeof(body));
	return 0;
}

static int take_cancel(struct mig_in *in, const struct mig_received *received,
		       struct base_error *err)
{
	char text[MIG_FINDING_BYTES];
	struct base_error why = { 0 };

	(void)err;
	mig_reason_decode(received->body, received->body_bytes, text, sizeof(text));
	(void)base_fail(&why, -ECANCELED, "the source has cancelled: %s", text);
	mig_in_note(in, -ECANCELED, &why);
	mig_in_post_parted(in);
	post_message(in, MIG_MSG_CANCEL);
	return 0;
}

static int take_bye(struct mig_in *in, const struct mig_received *received, struct base_error *err)
{
	(void)received;
	(void)err;
	{
		BASE_LOCKED(&in->lock);

		in->parted = true;
	}
	/* A VM that still needs pages of it has lost them. */
	if (mig_in_post_needs(in))
		mig_in_give_up(in);
	return 0;
}

static int (*const takers[MIG_TYPES])(struct mig_in *, const struct mig_received *,
				      struct base_error *) = {
	[MIG_TYPE_PLAN] = take_plan,
	[MIG_TYPE_ROUND] = take_round,
	[MIG_TYPE_STATE] = take_state,
	[MIG_TYPE_SEALED] = take_sealed,
	[MIG_TYPE_CANCEL] = take_cancel,
	[MIG_TYPE_COMMIT] = take_commit,
	[MIG_TYPE_ASK] = take_ask,
	[MIG_TYPE_BYE] = take_bye,
	[MIG_TYPE_OWED] = take_owed,
	[MIG_TYPE_ROOTS] = take_roots,
	[MIG_TYPE_NODES] = mig_in_verify_take_nodes,
};

static int on_message(void *context, const struct mig_received *received, struct base_error *err)
{
	struct mig_in *in = context;

	if (takers[received->type] == NULL)
		return base_fail(err, -EPROTO, "migration: message %s is not expected now",
				 mig_type_row((uint32_t)received->type)->name);
	return takers[received->type](in, received, err);
}

/* What was refused is a fault of the migration; a connection that broke is not, of itself. */
static bool is_fault(int code)
{
	return code == -EBADMSG || code == -EPROTO || code == -ENOMEM || code == -ENOSPC;
}

static void on_lost(void *context, int code, const struct base_error *why)
{
	struct mig_in *in = context;

	if (is_fault(code)) {
		mig_in_send_failed(in, why->text); /* before the connection goes */
		mig_in_fault(in, code, why);
	} else {
		mig_in_note(in, code, why);
	}
	{
		BASE_LOCKED(&in->lock);

		in->lost = true;
		(void)pthread_cond_broadcast(&in->changed);
	}
	mig_in_post_parted(in);
	mig_events_post_kind(&in->events, MIG_EV_LINK_LOST);
}

struct mig_control_ops mig_in_control_ops(struct mig_in *in)
{
	return (struct mig_control_ops){
		.message = on_message, .lost = on_lost, .progress = mig_in_progress, .context = in
	};
}
