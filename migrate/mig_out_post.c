/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The source's part in post-copy: what is owed instead of a last round, and serving it until the
 * destination has it all.  docs/migrate/postcopy.md.
 */
#include <errno.h>
#include <stdlib.h>

#include "base/cleanup.h"
#include "migrate/mig_body_post.h"
#include "migrate/mig_out_priv.h"

static int dial(void *context, uint16_t channel, struct mig_link **ret_link, int *ret_fd,
		struct base_error *err)
{
	struct mig_opened opened;

	return mig_out_dial(context, channel, ret_link, ret_fd, &opened, err);
}

int mig_out_post_begin(struct mig_out *out, struct base_error *err)
{
	const struct mig_serve_options options = {
		.memory = out->options.vm->memory(out->options.vm_context),
		.page_count = out->page_count,
		.dial = dial,
		.context = out,
		.retry_ms = out->options.retry_ms,
		.rate = out->options.rate,
	};
	struct mig_serve *serve = NULL;
	int r = 0;

	out->post = true;
	{
		BASE_LOCKED(&out->lock);

		serve = base_take(&out->serve); /* of before a cut */
	}
	mig_serve_free(base_take(&serve));
	r = mig_serve_new(&options, &serve, err);
	if (r < 0)
		return base_fail_within(err, r, "connections of post-copy");
	BASE_LOCKED(&out->lock);
	out->serve = serve;
	return 0;
}

void mig_out_post_instead(struct mig_out *out)
{
	uint64_t *owed = out->dirty;
	uint64_t count = 0;

	out->dirty = out->next; /* empty */
	out->next = owed;
	for (size_t i = 0; i < out->word_count; i++)
		count += (uint64_t)__builtin_popcountll(owed[i]);
	BASE_LOCKED(&out->lock);
	out->owed_pages = count;
}

int mig_out_post_owe(struct mig_out *out, struct base_error *err)
{
	_Atomic uint64_t *bits = calloc(out->word_count, sizeof(*bits));
	uint64_t at = 0;
	bool more = true;
	int r = 0;

	if (bits == NULL)
		return base_fail(err, -ENOMEM, "migration: bitmap of pages that follow");
	for (size_t i = 0; i < out->word_count; i++)
		atomic_init(&bits[i], out->next[i]);
	mig_serve_open(out->serve);
	while (r == 0 && more) {
		BASE_CLEANUP(base_buffer_fini) struct base_buffer body = { .data = NULL };

		more = mig_owed_next(bits, out->word_count, &at, &body);
		if (body.failed)
			r = base_fail(err, -ENOMEM, "migration: pages that follow");
		else if (more)
			r = mig_control_send(out->control, MIG_TYPE_OWED, body.data,
					     (uint32_t)body.size_bytes, err);
	}
	free(bits);
	return r;
}

int mig_out_post_take_complete(struct mig_out *out, const struct mig_received *received,
			       struct base_error *err)
{
	const struct mig_event event = { .kind = MIG_EV_MESSAGE, .message = MIG_MSG_COMPLETE };
	struct mig_complete complete;
	int r = mig_complete_decode(received->body, received->body_bytes, &complete, err);

	if (r < 0)
		return r;
	{
		BASE_LOCKED(&out->lock);

		if (out->serve == NULL)
			return base_fail(err, -EPROTO, "migration: complete, expected running");
		out->complete = complete;
	}
	mig_events_post(&out->events, &event);
	return 0;
}

void mig_out_post_serve(struct mig_out *out)
{
	/* safety: what has gone on there never runs here again, whatever comes.  What somebody
	 * waits for is answered meanwhile. */
	if (out->options.vm->serve != NULL)
		out->options.vm->serve(out->options.vm_context);
	mig_serve_go(out->serve);
}

void mig_out_post_lost(struct mig_out *out)
{
	BASE_LOCKED(&out->lock);

	if (out->serve != NULL)
		mig_serve_redial(out->serve);
}

void mig_out_post_stop(struct mig_out *out)
{
	if (out->serve != NULL)
		mig_serve_stop(out->serve);
}

void mig_out_post_now(struct mig_out *out)
{
	BASE_LOCKED(&out->lock);

	out->post_now = true;
}

bool mig_out_post_is_wanted(const struct mig_out *out)
{
	return out->options.pace.late == MIG_LATE_POSTCOPY;
}

uint64_t mig_out_post_left(const struct mig_out *out)
{
	struct mig_serve_counts counts = mig_serve_counts(out->serve);
	uint64_t sent = counts.asked_pages + counts.rest_pages;

	return out->owed_pages > sent ? out->owed_pages - sent : 0;
}

void mig_out_post_progress(const struct mig_out *out, struct mig_out_progress *progress)
{
	struct mig_serve_counts counts = { 0 };

	if (out->serve == NULL)
		return;
	counts = mig_serve_counts(out->serve);
	progress->fault_pages = counts.asked_pages;
	progress->sent_bytes += counts.sent_bytes;
	if (out->shown != MIG_SRC_SERVING)
		return;
	progress->left_pages = mig_out_post_left(out);
	progress->left_bytes = progress->left_pages * MIG_PAGE_BYTES;
}

void mig_out_post_report(const struct mig_out *out, struct mig_out_report *report)
{
	struct mig_serve_counts counts = { 0 };

	if (!out->machine.post)
		return;
	counts = mig_serve_counts(out->serve);
	report->is_post = true;
	report->post = out->complete;
	report->post.owed_pages = out->owed_pages;
	report->post.reconnects = counts.dials;
	report->post_ns = out->times.end_ns > out->times.running_ns && out->times.running_ns != 0
				  ? out->times.end_ns - out->times.running_ns
				  : 0;
	report->sent_bytes += counts.sent_bytes;
	report->page_count += counts.asked_pages + counts.rest_pages - counts.zero_pages;
	report->zero_pages += counts.zero_pages;
}
