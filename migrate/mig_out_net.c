/* SPDX-License-Identifier: Apache-2.0 */
/* The source's connections, and what the destination says on them. */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/bytes.h"
#include "base/cleanup.h"
#include "migrate/mig_out_priv.h"

/* --- the destination's messages: the receiver's thread --- */

static void post_message(struct mig_out *out, enum mig_message message)
{
	const struct mig_event event = { .kind = MIG_EV_MESSAGE, .message = message };

	mig_events_post(&out->events, &event);
}

/* What it objects to is the reason, whatever it says after that. */
static void note_objection(struct mig_out *out)
{
	struct base_error why = { 0 };

	(void)base_fail(&why, -EINVAL, "the destination objects: %s%s", out->findings->lines[0],
			out->findings->count > 1 ? " (and more)" : "");
	mig_out_note(out, why.code, &why);
}

static int take_findings(struct mig_out *out, const struct mig_received *received,
			 struct base_error *err)
{
	int r = 0;

	if (out->has_findings) /* nobody else sets it */
		return base_fail(err, -EPROTO, "migration: findings a second time");
	r = mig_findings_decode(received->body, received->body_bytes, out->findings, err);
	if (r < 0)
		return r;
	if (out->findings->count > 0)
		note_objection(out);
	BASE_LOCKED(&out->lock);
	out->has_findings = true;
	(void)pthread_cond_broadcast(&out->changed);
	return 0;
}

static int take_round_done(struct mig_out *out, const struct mig_received *received,
			   struct base_error *err)
{
	BASE_LOCKED(&out->lock);
	uint32_t number = 0;
	int r = mig_done_decode(received->body, received->body_bytes, &number, out->failures,
				&out->failure_count, err);

	if (r < 0)
		return r;
	if (number != out->rounds_done || number != out->round)
		return base_fail(err, -EPROTO,
				 "migration: round %" PRIu32 " is done, expected %" PRIu32, number,
				 out->round);
	out->rounds_done = number + 1;
	(void)pthread_cond_broadcast(&out->changed);
	return 0;
}

static int take_answer(struct mig_out *out, const struct mig_received *received,
		       struct base_error *err)
{
	BASE_LOCKED(&out->lock);
	struct mig_answer answer;
	int r = mig_answer_decode(received->body, received->body_bytes, &answer, err);

	if (r < 0)
		return r;
	if (answer.number != out->question) /* late: somebody asked again meanwhile */
		return 0;
	out->answer = answer;
	out->has_answer = true;
	(void)pthread_cond_broadcast(&out->changed);
	return 0;
}

static int take_note(struct mig_out *out, const struct mig_received *received,
		     enum mig_message message, struct base_error *err)
{
	struct mig_epoch_note note;
	int r = mig_epoch_decode(received->body, received->body_bytes, &note, err);

	if (r < 0)
		return r;
	{
		BASE_LOCKED(&out->lock);

		if (message == MIG_MSG_READY)
			out->destination_check_ns = note.took_ns;
		if (message == MIG_MSG_RUNNING)
			out->destination_activate_ns = note.took_ns;
	}
	post_message(out, message);
	return 0;
}

static int take_ready(struct mig_out *out, const struct mig_received *received,
		      struct base_error *err)
{
	int r = mig_out_verify_check_ready(out, err);

	if (r == 0 && mig_out_is_too_late(out))
		return 0;
	return r == 0 ? take_note(out, received, MIG_MSG_READY, err) : r;
}

static int take_running(struct mig_out *out, const struct mig_received *received,
			struct base_error *err)
{
	return take_note(out, received, MIG_MSG_RUNNING, err);
}

static int take_handed_back(struct mig_out *out, const struct mig_received *received,
			    struct base_error *err)
{
	return take_note(out, received, MIG_MSG_HANDED_BACK, err);
}

static int take_failed(struct mig_out *out, const struct mig_received *received,
		       struct base_error *err)
{
	struct base_error why = { 0 };
	char text[MIG_FINDING_BYTES];

	(void)err;
	mig_reason_decode(received->body, received->body_bytes, text, sizeof(text));
	(void)base_fail(&why, -EREMOTEIO, "the destination has failed: %s", text);
	mig_out_note(out, why.code, &why);
	{
		BASE_LOCKED(&out->lock);

		out->refused = true;
		(void)pthread_cond_broadcast(&out->changed);
	}
	post_message(out, MIG_MSG_FAILED);
	return 0;
}

static int (*const takers[MIG_TYPES])(struct mig_out *, const struct mig_received *,
				      struct base_error *) = {
	[MIG_TYPE_FINDINGS] = take_findings,
	[MIG_TYPE_ROUND_DONE] = take_round_done,
	[MIG_TYPE_REGISTER] = take_answer,
	[MIG_TYPE_READY] = take_ready,
	[MIG_TYPE_RUNNING] = take_running,
	[MIG_TYPE_HANDED_BACK] = take_handed_back,
	[MIG_TYPE_FAILED] = take_failed,
	[MIG_TYPE_ASK_NODES] = mig_out_verify_take_ask,
	[MIG_TYPE_VERIFIED] = mig_out_verify_take_verified,
	[MIG_TYPE_COMPLETE] = mig_out_post_take_complete,
	[MIG_TYPE_HAVE] = mig_out_take_have,
	[MIG_TYPE_RESUMED] = mig_out_take_resumed,
};

static int on_message(void *context, const struct mig_received *received, struct base_error *err)
{
	struct mig_out *out = context;

	if (takers[received->type] == NULL)
		return base_fail(err, -EPROTO, "migration: message %s is not expected now",
				 mig_type_row((uint32_t)received->type)->name);
	return takers[received->type](out, received, err);
}

static void on_alive(void *context, uint64_t number)
{
	struct mig_out *out = context;
	BASE_LOCKED(&out->lock);

	if (number == out->alive_number)
		return;
	out->alive_number = number;
	out->progress_ns = mig_out_now();
	(void)pthread_cond_broadcast(&out->changed);
}

static void on_lost(void *context, int code, const struct base_error *why)
{
	struct mig_out *out = context;

	mig_out_note(out, code, why);
	{
		BASE_LOCKED(&out->lock);

		out->lost = true;
		(void)pthread_cond_broadcast(&out->changed);
	}
	mig_events_post_kind(&out->events, MIG_EV_LINK_LOST);
}

/* --- connecting --- */

static int set_dialing(struct mig_out *out, struct mig_link *link, struct base_error *err)
{
	BASE_LOCKED(&out->lock);

	out->dialing = link;
	if (link != NULL && out->cancelled &&
	    (out->machine.state == MIG_SRC_LINKING || out->resuming))
		return base_fail(err, -ECANCELED, "migration: cancelled");
	return 0;
}

/* OPEN and OPENED on a new connection. */
static int greet(struct mig_link *link, const struct mig_open *open, struct mig_opened *ret_opened,
		 struct base_error *err)
{
	uint8_t body[MIG_OPEN_BYTES];
	char text[MIG_FINDING_BYTES];
	struct mig_received received = { .type = MIG_TYPE_INVALID };
	int r = 0;

	mig_open_encode(open, body);
	r = mig_link_send(link, MIG_TYPE_OPEN, body, sizeof(body), err);
	if (r == 0)
		r = mig_link_receive(link, &received, err);
	if (r < 0)
		return r;
	if (received.type == MIG_TYPE_FAILED) {
		mig_reason_decode(received.body, received.body_bytes, text, sizeof(text));
		return base_fail(err, -EBUSY, "the destination refuses: %s", text);
	}
	if (received.type != MIG_TYPE_OPENED)
		return base_fail(err, -EPROTO, "migration: message %s, expected opened",
				 mig_type_row((uint32_t)received.type)->name);
	r = mig_opened_decode(received.body, received.body_bytes, ret_opened, err);
	if (r < 0)
		return r;
	if (ret_opened->version < open->version_min || ret_opened->version > open->version_max)
		return base_fail(err, -ENOTSUP,
				 "migration: this side speaks versions %u to %u, the destination "
				 "%u to %u",
				 (unsigned int)open->version_min, (unsigned int)open->version_max,
				 (unsigned int)ret_opened->version_min,
				 (unsigned int)ret_opened->version_max);
	return 0;
}

/* So much of the plan that the kernel need not take a new key on any channel. */
static bool is_small(const struct mig_out *out)
{
	uint64_t most_bytes = MIG_TLS_KEY_BYTES * out->options.channel_count;
	uint64_t bytes = 0;

	for (uint32_t i = 0; i < out->plan.object_count && bytes <= most_bytes; i++)
		bytes += out->plan.objects[i].object.unit_count * mig_unit_bytes((uint16_t)i);
	return bytes <= most_bytes;
}

static int make_tls(const struct mig_out *out, int fd, bool is_control,
		    struct mig_tls_stream **ret_stream, struct base_error *err)
{
	const struct mig_tls_stream_options options = { .tls = out->options.tls,
							.fd = fd,
							.may_use_kernel = out->options.kernel_tls &&
									  !is_control &&
									  is_small(out) };
	struct mig_tls_stream *stream = NULL;
	int r = 0;

	if (options.tls == NULL)
		return 0;
	r = mig_tls_stream_new(&options, &stream, err);
	if (r == 0 && !is_control)
		r = mig_tls_stream_widen(stream, err);
	if (r < 0)
		mig_tls_stream_free(stream);
	else
		*ret_stream = stream;
	return r;
}

static void note_line(struct mig_out *out, const struct mig_link *link)
{
	struct mig_out_line *line = &out->line;
	struct mig_tls_facts facts;

	if (!mig_link_tls_facts(link, &facts))
		return;
	line->is_tls = true;
	line->in_kernel = line->in_kernel || facts.in_kernel;
	(void)snprintf(line->cipher, sizeof(line->cipher), "%s", facts.cipher);
	(void)snprintf(line->peer, sizeof(line->peer), "%s", facts.peer);
}

int mig_out_dial(struct mig_out *out, uint16_t channel, struct mig_link **ret_link, int *ret_fd,
		 struct mig_opened *ret_opened, struct base_error *err)
{
	struct mig_open open = { .version_min = 1,
				 .version_max = MIG_VERSION,
				 .channel = channel,
				 .channel_count = (uint16_t)out->options.channel_count,
				 .resume_ms = out->options.quick ? 0 : out->options.resume_ms };
	struct mig_link_options options = { .is_source = true,
					    .is_control = channel == 0,
					    .timeout_ms = out->options.timeout_ms };
	/* No cancel waits for those: they are made while nothing is left to cancel. */
	bool of_post = channel >= MIG_CHANNEL_URGENT;
	struct mig_link *link = NULL;
	BASE_CLOSE int fd = -1;
	int r = out->options.connect(out->options.connect_context, &fd, err);

	if (r < 0)
		return r;
	memcpy(open.id, out->id, sizeof(open.id));
	memcpy(open.secret, out->opened.secret, sizeof(open.secret));
	options.fd = fd;
	r = make_tls(out, fd, options.is_control, &options.tls, err);
	if (r == 0)
		r = mig_link_new(&options, &link, err);
	if (r < 0)
		return r;
	if (!of_post)
		r = set_dialing(out, link, err);
	if (r == 0)
		r = mig_link_greet(link, out->options.timeout_ms, err);
	if (r == 0)
		r = greet(link, &open, ret_opened, err);
	if (!of_post)
		(void)!set_dialing(out, NULL, NULL);
	if (r < 0) {
		mig_link_free(link);
		return r;
	}
	if (!of_post)
		note_line(out, link);
	*ret_link = link;
	*ret_fd = base_take_fd(&fd);
	return 0;
}

static int open_control(struct mig_out *out, struct mig_opened *ret_opened, struct base_error *err)
{
	const struct mig_control_ops ops = {
		.message = on_message, .lost = on_lost, .alive = on_alive, .context = out
	};
	struct mig_control *control = NULL;
	struct mig_link *link = NULL;
	int fd = -1;
	int r = mig_out_dial(out, 0, &link, &fd, ret_opened, err);

	if (r < 0)
		return r;
	{
		BASE_LOCKED(&out->lock);

		out->lost = false;
	}
	r = mig_control_new(link, fd, out->options.timeout_ms, &ops, &control, err);
	if (r < 0)
		return r;
	{
		BASE_LOCKED(&out->lock);

		out->control = control;
	}
	return 0;
}

int mig_out_open_data(struct mig_out *out, struct base_error *err)
{
	struct mig_opened opened;

	for (uint32_t i = 0; i < out->options.channel_count; i++) {
		int r = mig_out_dial(out, (uint16_t)(i + 1), &out->links[i], &out->fds[i], &opened,
				     err);

		if (r < 0)
			return base_fail_within(err, r, "data channel %" PRIu32, i + 1);
	}
	{
		BASE_LOCKED(&out->lock);

		out->link_count = out->options.channel_count;
	}
	return 0;
}

static int send_plan(struct mig_out *out, struct base_error *err)
{
	BASE_CLEANUP(base_buffer_fini) struct base_buffer body = { .data = NULL };
	int r = mig_plan_encode(&out->plan, &body, err);

	if (r < 0)
		return r;
	return mig_control_send(out->control, MIG_TYPE_PLAN, body.data, (uint32_t)body.size_bytes,
				err);
}

/* It may take minutes to provide memory there; that the destination lives is heard meanwhile. */
static int wait_findings(struct mig_out *out, struct base_error *err)
{
	BASE_LOCKED(&out->lock);

	while (!out->has_findings && !out->lost && !out->cancelled)
		(void)base_cond_wait(&out->changed, &out->lock, BASE_TIME_NEVER);
	if (out->cancelled)
		return base_fail(err, -ECANCELED, "migration: cancelled");
	if (!out->has_findings)
		return base_fail(err, -ECONNRESET, "migration: the destination has gone");
	if (out->findings->count > 0)
		return base_fail(err, -EINVAL, "the destination objects");
	return 0;
}

static int make_plan(struct mig_out *out, struct base_error *err)
{
	int r = out->options.vm->plan(out->options.vm_context, &out->plan, err);

	if (r < 0)
		return r;
	base_assert(out->plan.object_count > 0 && out->plan.objects != NULL);
	out->plan.epoch = out->options.epoch;
	out->plan.capabilities = MIG_CAN_ALL;
	if (out->options.verify)
		out->plan.flags |= MIG_PLAN_VERIFY;
	out->page_count = out->plan.objects[0].object.unit_count;
	out->word_count = (size_t)(out->page_count / 64 + 1);
	return 0;
}

static int check_abilities(struct mig_out *out, struct base_error *err)
{
	out->cannot_verify =
		out->options.verify && (out->opened.capabilities & MIG_CAN_VERIFY) == 0;
	out->cannot_post =
		mig_out_post_is_wanted(out) && (out->opened.capabilities & MIG_CAN_POST) == 0;
	if (out->options.verify && mig_out_post_is_wanted(out))
		return base_fail(err, -EINVAL,
				 "a verified move cannot end by post-copy: what would be compared "
				 "is not there yet");
	if (out->cannot_post)
		return base_fail(err, -ENOTSUP, MIG_OUT_CANNOT_POST);
	return out->cannot_verify ? base_fail(err, -ENOTSUP, MIG_OUT_CANNOT_VERIFY) : 0;
}

int mig_out_link(struct mig_out *out, struct base_error *err)
{
	int r = make_plan(out, err);

	if (r == 0)
		r = open_control(out, &out->opened, err);
	if (r == 0)
		r = check_abilities(out, err);
	if (r == 0)
		r = send_plan(out, err);
	if (r == 0)
		r = wait_findings(out, err);
	if (r == 0)
		r = mig_out_open_data(out, err);
	return r;
}

void mig_out_drop_control(struct mig_out *out)
{
	struct mig_control *control = out->control;

	{
		BASE_LOCKED(&out->lock);

		out->control = NULL;
	}
	mig_events_drop(&out->events, true);
	mig_control_free(control);
	mig_events_drop(&out->events, false);
}

int mig_out_relink(struct mig_out *out, struct base_error *err)
{
	struct mig_opened opened;

	mig_out_drop_control(out);
	return open_control(out, &opened, err);
}

/* --- the switchover's messages --- */

void mig_out_say(struct mig_out *out, enum mig_message message)
{
	const struct mig_epoch_note note = { .epoch = out->machine.epoch + 1 };
	uint8_t body[MIG_NOTIFY_BYTES_MAX];
	uint32_t body_bytes = 0;

	if (out->control == NULL)
		return;
	if (message == MIG_MSG_COMMIT) {
		mig_epoch_encode(&note, body);
		(void)!mig_control_send(out->control, MIG_TYPE_COMMIT, body, MIG_EPOCH_BYTES, NULL);
		return;
	}
	base_assert(message == MIG_MSG_CANCEL);
	{
		BASE_LOCKED(&out->lock);

		body_bytes =
			mig_reason_encode(out->has_reason ? out->reason.text : "cancelled", body);
	}
	(void)!mig_control_send(out->control, MIG_TYPE_CANCEL, body, body_bytes, NULL);
}

int mig_out_ask(struct mig_out *out, uint64_t epoch, enum mig_side owner,
		struct mig_register *ret_register, struct base_error *err)
{
	struct mig_ask ask = { .epoch = epoch, .owner = (uint32_t)owner };
	uint64_t deadline_ns = mig_out_now() + out->options.timeout_ms * BASE_NS_PER_MS;
	uint8_t body[MIG_ASK_BYTES];
	int r = 0;

	if (out->control == NULL)
		return base_fail(err, -ENOTCONN, "migration: no connection");
	{
		BASE_LOCKED(&out->lock);

		ask.number = ++out->question;
		out->has_answer = false;
	}
	mig_ask_encode(&ask, body);
	r = mig_control_send(out->control, MIG_TYPE_ASK, body, sizeof(body), err);
	if (r < 0)
		return r;
	BASE_LOCKED(&out->lock);
	while (!out->has_answer && !out->lost &&
	       base_cond_wait(&out->changed, &out->lock, deadline_ns))
		continue;
	if (!out->has_answer || out->answer.owner == MIG_SIDE_INVALID)
		return base_fail(err, -ETIMEDOUT, "migration: the register is not known");
	*ret_register = (struct mig_register){ .epoch = out->answer.epoch,
					       .owner = (enum mig_side)out->answer.owner };
	return 0;
}
