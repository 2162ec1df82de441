/* SPDX-License-Identifier: Apache-2.0 */
/* The destination's part in post-copy: what is owed, and the two connections on which it comes. */
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>

#include "base/cleanup.h"
#include "base/thread.h"
#include "migrate/mig_in_priv.h"

static uint64_t page_count(const struct mig_in *in)
{
	return in->plan.objects[0].object.unit_count;
}

/* --- what is owed: the receiver, before SEALED --- */

int mig_in_post_take_owed(struct mig_in *in, const struct mig_received *received,
			  struct base_error *err)
{
	struct mig_owed owed = { .last = false };
	int r = mig_owed_decode(received->body, received->body_bytes, &owed, err);

	if (r < 0)
		return r;
	if (!in->options.post || owed.last)
		return base_fail(err, -EPROTO, "migration: pages are owed, expected none");
	if (in->post.owed == NULL)
		in->post.owed = calloc(page_count(in) / 64 + 1, sizeof(*in->post.owed));
	if (in->post.owed == NULL)
		return base_fail(err, -ENOMEM, "migration: bitmap of pages that follow");
	r = mig_owed_take(&owed, page_count(in), &in->post.owed_at, in->post.owed, err);
	for (uint32_t i = 0; r == 0 && i < owed.word_count; i++)
		in->post.owed_pages +=
			(uint64_t)__builtin_popcountll(base_get_le64(owed.words + (size_t)i * 8));
	return r;
}

void mig_in_post_cut(struct mig_in *in)
{
	for (uint64_t i = 0; in->post.owed != NULL && i <= page_count(in) / 64; i++)
		atomic_store(&in->post.owed[i], 0);
	in->post.owed_at = 0;
	in->post.owed_pages = 0;
}

int mig_in_post_check(const struct mig_in *in, struct base_error *err)
{
	if (in->sealed.post && !in->options.post)
		return base_fail(err, -EPROTO, "migration: sealed by post-copy, expected all");
	if (in->sealed.owed_pages != in->post.owed_pages)
		return base_fail(err, -EBADMSG,
				 "migration: %" PRIu64 " pages are owed, the source said %" PRIu64,
				 in->post.owed_pages, in->sealed.owed_pages);
	return 0;
}

/* --- filling: the runner --- */

static void on_done(void *context)
{
	struct mig_in *in = context;

	in->post.filled_ns = mig_in_now();
	mig_events_post_kind(&in->events, MIG_EV_FILLED);
}

int mig_in_post_begin(struct mig_in *in, struct base_error *err)
{
	struct mig_fill_options options = {
		.place = { .fault_fd = in->options.fault_fd,
			   .memory_fd = in->options.memory_fd,
			   .memory = in->memory,
			   .page_count = page_count(in) },
		.timeout_ms = in->options.timeout_ms,
		.done = on_done,
		.context = in,
	};
	struct mig_fill *fill = NULL;
	int r = 0;

	if (in->options.vm->settle != NULL)
		in->options.vm->settle(in->options.vm_context);
	if (in->post.owed == NULL) /* none is */
		in->post.owed = calloc(page_count(in) / 64 + 1, sizeof(*in->post.owed));
	if (in->post.owed == NULL)
		return base_fail(err, -ENOMEM, "migration: bitmap of pages that follow");
	options.owed = in->post.owed;
	r = mig_fill_new(&options, &fill, err);
	if (r < 0)
		return r;
	BASE_LOCKED(&in->lock);
	in->post.fill = fill;
	in->post.checking = !in->lost;
	(void)pthread_cond_broadcast(&in->changed);
	return in->lost ? base_fail(err, -ECONNRESET, "migration: the source has gone") : 0;
}

int mig_in_post_end_check(struct mig_in *in, int code, struct base_error *err)
{
	BASE_LOCKED(&in->lock);

	in->post.checking = false;
	if (code == 0 && mig_fill_is_aborted(in->post.fill))
		return base_fail(err, -ECONNRESET, "migration: the source has gone");
	return code;
}

void mig_in_post_parted(struct mig_in *in)
{
	BASE_LOCKED(&in->lock);

	/* Who loads the device state may wait for a page that will not come. */
	if (in->post.checking)
		mig_fill_abort(in->post.fill);
}

void mig_in_post_runs(struct mig_in *in)
{
	in->post.running_ns = mig_in_now();
	if (mig_fill_left(in->post.fill) == 0) /* told before it counted */
		mig_events_post_kind(&in->events, MIG_EV_FILLED);
}

void mig_in_post_say(struct mig_in *in)
{
	struct mig_complete complete = mig_fill_counts(in->post.fill);
	uint8_t body[MIG_COMPLETE_BYTES];

	complete.epoch = in->plan.epoch + 1;
	if (in->post.filled_ns > in->post.running_ns)
		complete.fill_ns = in->post.filled_ns - in->post.running_ns;
	mig_complete_encode(&complete, body);
	mig_in_send(in, MIG_TYPE_COMPLETE, body, sizeof(body));
}

/* --- the two connections --- */

/* Until there is something to be done on it.  NULL: there will not be. */
static struct mig_fill *wait_fill(struct mig_in_lane *lane)
{
	struct mig_in *in = lane->in;
	BASE_LOCKED(&in->lock);

	while (in->post.fill == NULL && !lane->ended)
		(void)base_cond_wait(&in->changed, &in->lock, BASE_TIME_NEVER);
	return lane->ended ? NULL : in->post.fill;
}

static void *run_lane(void *context)
{
	struct mig_in_lane *lane = context;
	struct mig_fill *fill = wait_fill(lane);

	/* Whatever it has ended with: the source makes another. */
	if (fill != NULL)
		(void)mig_fill_lane(fill, lane->link, lane->urgent, NULL);
	mig_link_cancel(lane->link);
	return NULL;
}

/* Under the lock. */
static void cancel_lane(struct mig_in *in, struct mig_in_lane *lane)
{
	lane->ended = true;
	if (lane->there)
		mig_link_cancel(lane->link);
	(void)pthread_cond_broadcast(&in->changed);
}

/* By the door, or when there is none any more. */
static void end_lane(struct mig_in *in, struct mig_in_lane *lane)
{
	if (!lane->there)
		return;
	{
		BASE_LOCKED(&in->lock);

		cancel_lane(in, lane);
	}
	base_thread_join(lane->thread);
	{
		BASE_LOCKED(&in->lock);

		lane->there = false;
	}
	mig_link_free(lane->link);
	base_closep(&lane->fd);
}

int mig_in_post_admit(struct mig_in *in, bool urgent, struct mig_link *link, int fd,
		      struct base_error *err)
{
	struct mig_in_lane *lane = &in->post.lanes[urgent ? 0 : 1];
	int r = 0;

	end_lane(in, lane);
	BASE_LOCKED(&in->lock);
	*lane = (struct mig_in_lane){ .in = in, .urgent = urgent, .link = link, .fd = fd };
	if (in->stop)
		r = base_fail(err, -ECANCELED, "migration: over");
	else
		r = base_thread_start(&lane->thread, "mig-pages", run_lane, lane, err);
	lane->there = r == 0;
	if (r < 0) {
		mig_link_free(link);
		base_closep(&fd);
	}
	return r;
}

void mig_in_post_halt(struct mig_in *in)
{
	BASE_LOCKED(&in->lock);

	if (in->post.fill != NULL)
		mig_fill_abort(in->post.fill);
	for (uint32_t i = 0; i < 2; i++)
		cancel_lane(in, &in->post.lanes[i]);
}

void mig_in_post_fini(struct mig_in *in)
{
	mig_in_post_halt(in);
	for (uint32_t i = 0; i < 2; i++)
		end_lane(in, &in->post.lanes[i]);
	mig_fill_free(in->post.fill);
	free(in->post.owed);
}

bool mig_in_post_needs(struct mig_in *in)
{
	BASE_LOCKED(&in->lock);

	return in->post.fill != NULL && mig_fill_left(in->post.fill) > 0;
}

/* --- what is told --- */

bool mig_in_is_filling(struct mig_in *in, uint64_t *ret_left_pages, struct mig_complete *ret_counts)
{
	struct mig_fill *fill = NULL;

	{
		BASE_LOCKED(&in->lock);

		fill = in->post.fill;
	}
	if (fill == NULL)
		return false;
	*ret_counts = mig_fill_counts(fill);
	*ret_left_pages = mig_fill_left(fill);
	return *ret_left_pages > 0;
}

bool mig_in_is_broken(struct mig_in *in)
{
	return in->machine.state == MIG_DST_RUNNING && in->machine.post &&
	       mig_fill_left(in->post.fill) > 0;
}
