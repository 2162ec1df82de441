/* SPDX-License-Identifier: Apache-2.0 */
/* The destination's data channels: a thread each, until the barrier of the last round. */
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>

#include "base/bytes.h"
#include "base/cleanup.h"
#include "base/thread.h"
#include "migrate/mig_in_priv.h"

void mig_in_round_opened(struct mig_in *in, uint32_t number)
{
	BASE_LOCKED(&in->lock);

	atomic_store(&in->round_open, number + 1);
	(void)pthread_cond_broadcast(&in->changed);
}

/* Order holds within a channel only: a round's first bytes may overtake the word that it begins. */
static int wait_round(struct mig_in *in, uint32_t number, struct base_error *err)
{
	if (number != atomic_load(&in->round_open))
		return 0; /* under way, or it never will be: the intake says so */
	BASE_LOCKED(&in->lock);
	while (number == atomic_load(&in->round_open) && !mig_in_is_ending(in))
		(void)base_cond_wait(&in->changed, &in->lock, BASE_TIME_NEVER);
	return mig_in_is_ending(in) ? base_fail(err, -ECANCELED, "migration: cancelled") : 0;
}

/* All channels are behind round @number: what has to come again. */
static int report_round(struct mig_in *in, uint32_t number, struct base_error *err)
{
	BASE_CLEANUP(base_buffer_fini) struct base_buffer body = { .data = NULL };
	BASE_FREE struct mig_failure *failures = calloc(MIG_FAILURES_MAX, sizeof(*failures));

	if (failures == NULL)
		return base_fail(err, -ENOMEM, "migration: report of a round");
	mig_done_encode(number, failures, mig_intake_failures(in->intake, failures), &body);
	if (body.failed)
		return base_fail(err, -ENOMEM, "migration: report of a round");
	{
		BASE_LOCKED(&in->lock);

		in->rounds_reported = number + 1;
		in->whole = mig_intake_is_whole(in->intake);
	}
	mig_in_send(in, MIG_TYPE_ROUND_DONE, body.data, (uint32_t)body.size_bytes);
	mig_in_sealed(in);
	return 0;
}

static int take_chunk(struct mig_in_channel *channel, const uint8_t *body, struct base_error *err)
{
	struct mig_in *in = channel->in;
	int r = mig_intake_chunk(in->intake, channel->number, body, err);

	if (r == 0 && in->options.vm->came != NULL)
		in->options.vm->came(in->options.vm_context,
				     mig_intake_counts(in->intake).page_count * MIG_PAGE_BYTES);
	return r;
}

/* 1: it was the last word on this channel. */
static int take(struct mig_in_channel *channel, const struct mig_received *received,
		struct base_error *err)
{
	struct mig_in *in = channel->in;
	uint32_t number = 0;
	bool last = false;
	int r = 0;

	if (received->type == MIG_TYPE_CHUNK) {
		r = wait_round(in, base_get_le32(received->body + 4), err);
		return r < 0 ? r : take_chunk(channel, received->body, err);
	}
	if (received->type != MIG_TYPE_BARRIER)
		return base_fail(err, -EPROTO, "migration: message %s on data channel %" PRIu32,
				 mig_type_row((uint32_t)received->type)->name, channel->number);
	r = mig_barrier_decode(received->body, received->body_bytes, &number, err);
	if (r == 0)
		r = wait_round(in, number, err);
	if (r < 0)
		return r;
	last = mig_intake_is_last(in->intake); /* behind the barrier it may be the next's answer */
	r = mig_intake_barrier(in->intake, channel->number, number, err);
	if (r >= 0)
		r = mig_in_verify_hash(in, channel->number - 1, number, r == 1, err);
	if (r == 1)
		r = report_round(in, number, err);
	if (r < 0)
		return r;
	return last ? 1 : 0;
}

/* A data channel that breaks is seldom the reason: the source says that on the other one. */
static void wait_reason(struct mig_in *in)
{
	uint64_t deadline_ns = mig_in_now() + (uint64_t)in->options.timeout_ms * BASE_NS_PER_MS / 4;
	BASE_LOCKED(&in->lock);

	while (!in->has_reason && !in->lost && !mig_in_is_ending(in) &&
	       base_cond_wait(&in->changed, &in->lock, deadline_ns))
		continue;
}

static bool is_ending(struct mig_in *in)
{
	BASE_LOCKED(&in->lock);

	return mig_in_is_ending(in);
}

/* One channel is of no use without the others: the source notices at once, and comes again. */
static void end_connection(struct mig_in *in)
{
	BASE_LOCKED(&in->control_lock);

	if (in->control != NULL)
		mig_control_cancel(in->control);
}

static void *receive(void *context)
{
	struct mig_in_channel *channel = context;
	struct base_error why = { 0 };
	struct mig_received received;
	int r = 0;

	do {
		r = mig_link_receive(channel->link, &received, &why);
		if (r == 0)
			r = take(channel, &received, &why);
	} while (r == 0);
	if (r > 0 || is_ending(channel->in))
		return NULL;
	if (r == -ECONNRESET || r == -ENOTCONN)
		wait_reason(channel->in);
	if (is_ending(channel->in))
		return NULL;
	if (mig_in_is_cut(channel->in, r))
		end_connection(channel->in);
	else
		mig_in_fault(channel->in, r, &why);
	return NULL;
}

uint64_t mig_in_progress(void *context)
{
	struct mig_in *in = context;
	uint64_t number = 0;
	BASE_LOCKED(&in->lock);

	for (uint32_t i = 1; i <= MIG_CHANNELS_MAX; i++)
		if (in->channels[i].there)
			number += mig_link_counts(in->channels[i].link).received_bytes;
	if (in->intake != NULL)
		number += mig_intake_counts(in->intake).chunks;
	return in->verify != NULL ? number + mig_verify_counts(in->verify).looked : number;
}

void mig_in_channel_register(struct mig_in *in, uint32_t number, struct mig_link *link)
{
	uint64_t pages = in->plan.objects[0].object.unit_count;

	if (pages > 0)
		mig_link_register(link, MIG_REGION_MEMORY, in->memory, pages * MIG_PAGE_BYTES);
	mig_link_register(link, MIG_REGION_BOUNCE, mig_intake_bounce(in->intake, number),
			  MIG_BOUNCE_BYTES);
}

int mig_in_channel_begin(struct mig_in *in, uint32_t number, struct mig_link *link, int fd,
			 struct base_error *err)
{
	struct mig_in_channel *channel = &in->channels[number];
	int r = 0;
	BASE_LOCKED(&in->lock);

	if (in->stop)
		r = base_fail(err, -ECANCELED, "migration: over");
	else if (channel->there)
		r = base_fail(err, -EPROTO, "migration: data channel %" PRIu32 " a second time",
			      number);
	if (r == 0) {
		*channel = (struct mig_in_channel){
			.in = in, .number = number, .link = link, .fd = fd
		};
		r = base_thread_start(&channel->thread, "mig-data", receive, channel, err);
		channel->there = r == 0;
	}
	if (r < 0) {
		mig_link_free(link);
		base_closep(&fd);
	}
	return r;
}

/* What was written and never told of is not zero for all that. */
static void note_loose(struct mig_in *in, const struct mig_in_channel *channel)
{
	uint64_t offset_bytes = 0;
	uint64_t size_bytes = 0;

#ifdef GODWIT_MUTANT_MIG_RESUME_LOOSE
	return;
#endif
	if (in->plan.objects[0].object.unit_count > 0 &&
	    mig_link_loose(channel->link, MIG_REGION_MEMORY, &offset_bytes, &size_bytes))
		mig_intake_loose(in->intake, offset_bytes, size_bytes);
}

/* None comes meanwhile. */
static void end_channels(struct mig_in *in)
{
	for (uint32_t i = 1; i <= MIG_CHANNELS_MAX; i++)
		if (in->channels[i].there)
			mig_link_cancel(in->channels[i].link);
	for (uint32_t i = 1; i <= MIG_CHANNELS_MAX; i++) {
		struct mig_in_channel *channel = &in->channels[i];

		if (!channel->there)
			continue;
		base_thread_join(channel->thread);
		note_loose(in, channel);
		{
			BASE_LOCKED(&in->lock);

			channel->there = false; /* nobody counts its bytes any more */
		}
		mig_link_free(channel->link);
		base_closep(&channel->fd);
	}
}

int mig_in_data_cut(struct mig_in *in, struct base_error *err)
{
	{
		BASE_LOCKED(&in->lock);

		if (in->stop || in->sealed_told)
			return base_fail(err, -ECANCELED, "migration: over");
		in->cutting = true;
		if (in->verify != NULL)
			mig_verify_cancel(in->verify);
		(void)pthread_cond_broadcast(&in->changed);
	}
	end_channels(in); /* the door makes them: that is who is here */
	BASE_LOCKED(&in->lock);
	in->cutting = false;
	(void)pthread_cond_broadcast(&in->changed);
	return in->stop ? base_fail(err, -ECANCELED, "migration: over") : 0;
}

void mig_in_data_stop(struct mig_in *in)
{
	{
		BASE_LOCKED(&in->lock);

		in->stop = true;
		if (in->verify != NULL)
			mig_verify_cancel(in->verify);
		(void)pthread_cond_broadcast(&in->changed);
		while (in->cutting) /* the door ends them */
			(void)base_cond_wait(&in->changed, &in->lock, BASE_TIME_NEVER);
	}
	/* None comes any more: they are made under the lock, and not after stop. */
	end_channels(in);
}
