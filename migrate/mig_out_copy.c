/* SPDX-License-Identifier: Apache-2.0 */
/* The source's rounds: harvest, send, hear what has to be sent again, and the rest. */
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>

#include "base/bytes.h"
#include "base/cleanup.h"
#include "base/crc32c.h"
#include "base/thread.h"
#include "migrate/mig_out_priv.h"

/* Timeouts without any progress at the destination, whose disk may be slow. */
#define PATIENCE 3ULL

static uint64_t count_pages(const struct mig_out *out, const uint64_t *bits)
{
	uint64_t count = 0;

	for (size_t i = 0; i < out->word_count; i++)
		count += (uint64_t)__builtin_popcountll(bits[i]);
	return count;
}

/* What is in the log, into @into too. */
static int harvest(struct mig_out *out, uint64_t *into, struct base_error *err)
{
	int r = out->options.vm->dirty.get(out->options.vm_context, out->scratch, err);

	for (size_t i = 0; r == 0 && i < out->word_count; i++)
		into[i] |= out->scratch[i];
	return r;
}

/* Images: the same; not during a round. */
static int harvest_images(struct mig_out *out, struct base_error *err)
{
	return out->image != NULL ? mig_image_harvest(out->image, &out->image_bytes, err) : 0;
}

uint64_t mig_out_moved_bytes(const struct mig_out *out)
{
	struct mig_copy_counts counts = mig_copy_counts(out->copy);
	uint64_t bytes = (counts.page_count + counts.zero_pages) * MIG_PAGE_BYTES;

	if (out->image != NULL) {
		struct mig_image_counts images = mig_image_counts(out->image);

		bytes += images.block_bytes + images.clear_bytes + images.unmap_bytes;
	}
	return bytes;
}

static bool is_stopped(struct mig_out *out)
{
	BASE_LOCKED(&out->lock);

	return out->stop;
}

/* --- a round --- */

static int announce(struct mig_out *out, uint32_t number, bool last, struct base_error *err)
{
	struct mig_round round = { .number = number,
				   .last = last,
				   .sweep = mig_out_verify_sweeps(out, last) };
	uint8_t body[MIG_ROUND_BYTES];

	round.page_count = count_pages(out, out->dirty);
	round.bytes = round.page_count * MIG_PAGE_BYTES + out->image_bytes;
	{
		BASE_LOCKED(&out->lock);

		out->round = number;
		out->round_bytes = round.bytes;
		out->round_begin_bytes = mig_out_moved_bytes(out);
		out->left_pages = round.page_count;
	}
	mig_round_encode(&round, body);
	return mig_control_send(out->control, MIG_TYPE_ROUND, body, sizeof(body), err);
}

/* A VM that stands still waits for nobody; but where all goes in one round, a cap that did not hold
 * there would be none. */
static bool is_capped(const struct mig_out *out, bool last)
{
#ifdef GODWIT_MUTANT_MIG_QUICK_CAP
	return !last;
#endif
	return (!last && !out->uncapped) || out->options.quick;
}

static int send_round(struct mig_out *out, uint32_t number, bool last, struct base_error *err)
{
	int r = 0;

	out->open_round = true;
	r = announce(out, number, last, err);
	if (r == 0)
		r = mig_out_verify_begin(out, last, err);
	if (r < 0)
		return r;
	for (uint32_t i = 0; i < out->link_count; i++)
		mig_link_set_rate(out->links[i], out->options.rate, is_capped(out, last));
	r = mig_copy_round(out->copy, out->dirty, number, last, err);
	return r == 0 ? mig_out_verify_hash(out, err) : r;
}

/* Whether it comes: a data channel may be stuck while the control channel lives. */
static bool wait_report(struct mig_out *out, uint32_t number, uint64_t patience_ns)
{
	uint64_t since_ns = mig_out_now();
	BASE_LOCKED(&out->lock);

	while (out->rounds_done <= number && !out->lost && !out->stop) {
		since_ns = out->progress_ns > since_ns ? out->progress_ns : since_ns;
		if (!base_cond_wait(&out->changed, &out->lock, since_ns + patience_ns) &&
		    out->progress_ns <= since_ns)
			return false;
	}
	return true;
}

/* What the destination says of round @number, of which all has been sent. */
static int wait_done(struct mig_out *out, uint32_t number, struct base_error *err)
{
	uint64_t patience_ns = PATIENCE * out->options.timeout_ms * BASE_NS_PER_MS;

	if (!wait_report(out, number, patience_ns))
		return base_fail(err, -ETIMEDOUT,
				 "migration: the destination has taken nothing in for %" PRIu64
				 " ms, and not all of round %" PRIu32,
				 (uint64_t)(patience_ns / BASE_NS_PER_MS), number);
	BASE_LOCKED(&out->lock);
	if (out->rounds_done <= number)
		return base_fail(err, -ECANCELED, "migration: round %" PRIu32 " was not confirmed",
				 number);
	out->resent_chunks += out->failure_count;
	return 0;
}

static void round_confirmed(struct mig_out *out)
{
	out->open_round = false;
	mig_copy_confirmed(out->copy);
}

/* The receiver writes @failures of the next round only after that was announced. */
static int forgive(struct mig_out *out, struct base_error *err)
{
	return mig_copy_forgive(out->copy, out->failures, out->failure_count, out->next, err);
}

static void turn(struct mig_out *out)
{
	uint64_t *dirty = out->dirty;

	out->dirty = out->next;
	out->next = dirty;
	for (size_t i = 0; i < out->word_count; i++)
		out->next[i] = 0;
}

/* --- the way to the pause --- */

/* Everything that may be other than zero is the first round's. */
static int everything(struct mig_out *out, struct base_error *err)
{
	int r = out->options.vm->touched(out->options.vm_context, out->dirty, err);

	if (r == 0)
		r = harvest_images(out, err);
	if (r < 0)
		return r;
	BASE_LOCKED(&out->lock);
	out->pace =
		mig_pace_begin(&out->options.pace, mig_out_now(),
			       count_pages(out, out->dirty) * MIG_PAGE_BYTES + out->image_bytes);
	return 0;
}

static int first_harvest(struct mig_out *out, struct base_error *err)
{
	const struct mig_source_vm *vm = out->options.vm;
	int r = vm->track(out->options.vm_context, true, err);

	return r == 0 ? everything(out, err) : r;
}

/* What comes after a round.  Under the lock. */
static enum mig_pace_step next_step(struct mig_out *out, bool swept, uint64_t sent_bytes,
				    uint64_t took_ns)
{
	uint64_t left_bytes = out->left_pages * MIG_PAGE_BYTES + out->image_bytes;
	enum mig_pace_step step = MIG_PACE_ROUND;

	if (swept)
		mig_pace_skip(&out->pace, mig_out_now(), sent_bytes, left_bytes);
	else
		step = mig_pace_next(&out->pace, mig_out_now(), sent_bytes, took_ns, left_bytes);
	if (step == MIG_PACE_POST ||
	    (step == MIG_PACE_ROUND && out->post_now && mig_out_post_is_wanted(out)))
		return mig_pace_post(&out->pace, out->image_bytes);
	if (step != MIG_PACE_SWITCH || out->verify == NULL || out->swept)
		return step;
	out->sweep_next = true;
	return MIG_PACE_ROUND;
}

/* One round, and what there is to send after it; the next step. */
static int one_round(struct mig_out *out, uint32_t number, enum mig_pace_step *ret_step,
		     struct base_error *err)
{
	uint64_t begin_ns = mig_out_now();
	uint64_t begin_bytes = mig_out_moved_bytes(out);
	bool sweep = mig_out_verify_sweeps(out, false);
	uint64_t took_ns = 0;
	uint64_t sent_bytes = 0;
	uint64_t left = 0;
	uint64_t room_bytes = 0;
	int r = send_round(out, number, false, err);

	if (r == 0)
		r = wait_done(out, number, err);
	took_ns = mig_out_now() - begin_ns;
	if (r == 0)
		round_confirmed(out);
	/* After the report: what changed under the sender is in it. */
	if (r == 0)
		r = harvest(out, out->next, err);
	if (r == 0)
		r = forgive(out, err);
	if (r == 0)
		r = harvest_images(out, err);
	if (r < 0)
		return r;
	left = count_pages(out, out->next);
	sent_bytes = mig_out_moved_bytes(out) - begin_bytes;
	{
		BASE_LOCKED(&out->lock);

		out->left_pages = left;
		out->dirty_bytes += left * MIG_PAGE_BYTES + out->image_bytes;
		*ret_step = next_step(out, sweep, sent_bytes, took_ns);
		room_bytes = mig_pace_room_bytes(&out->pace);
	}
	/* After a sweep the rounds cost more than those before it: nothing to judge from. */
	if (*ret_step == MIG_PACE_ROUND && !sweep)
		mig_out_throttle_next(out, sent_bytes, took_ns,
				      left * MIG_PAGE_BYTES + out->image_bytes);
	if (*ret_step == MIG_PACE_ROUND)
		mig_heat_leave(out->next, out->dirty, out->scratch, out->word_count,
			       room_bytes / 2 / MIG_PAGE_BYTES);
	return 0;
}

/* The round that broke off is over: what of it has not come, and what changed meanwhile, is the
 * next one's. */
static int after_cut(struct mig_out *out, uint32_t *ret_number, struct base_error *err)
{
	int r = 0;

	*ret_number = out->rounds_done;
	mig_out_verify_after_cut(out);
	if (!out->open_round)
		return 0;
	out->open_round = false;
	r = harvest(out, out->next, err);
	if (r == 0)
		r = forgive(out, err);
#ifndef GODWIT_MUTANT_MIG_RESUME_DIRTY
	for (size_t i = 0; r == 0 && i < out->word_count; i++)
		out->next[i] |= out->dirty[i];
#endif
	if (r == 0)
		r = harvest_images(out, err);
	if (r < 0)
		return r;
	turn(out);
	BASE_LOCKED(&out->lock);
	out->left_pages = count_pages(out, out->dirty);
	mig_pace_skip(&out->pace, mig_out_now(), 0,
		      out->left_pages * MIG_PAGE_BYTES + out->image_bytes);
	return 0;
}

static int rounds(struct mig_out *out, uint32_t *ret_next, struct base_error *err)
{
	enum mig_pace_step next = MIG_PACE_ROUND;
	uint32_t number = 0;
	int r = out->goes_on ? after_cut(out, &number, err) : first_harvest(out, err);

	while (r == 0 && next == MIG_PACE_ROUND) {
		if (is_stopped(out))
			return base_fail(err, -ECANCELED, "migration: stopped");
		r = one_round(out, number, &next, err);
		if (r == 0)
			turn(out);
		number++;
	}
	if (r == 0 && next == MIG_PACE_CANCEL)
		r = base_fail(err, -ETIME,
			      "migration: the guest writes faster than can be sent: the downtime "
			      "goal of %" PRIu64 " ms was not met in %" PRIu64 " s",
			      (uint64_t)(out->pace.options.downtime_goal_ns / BASE_NS_PER_MS),
			      (uint64_t)(out->pace.options.time_limit_ns / BASE_NS_PER_SECOND));
	if (r == 0 && next == MIG_PACE_POST)
		r = mig_out_post_begin(out, err);
	*ret_next = number;
	return r;
}

/* --- a dry run --- */

int mig_out_copy_first(struct mig_out *out, struct base_error *err)
{
	return first_harvest(out, err);
}

int mig_out_copy_sample(struct mig_out *out, uint32_t number, uint64_t deadline_ns, bool capped,
			struct base_error *err)
{
	int r = 0;

	mig_copy_set_deadline(out->copy, deadline_ns);
	out->uncapped = !capped;
	r = send_round(out, number, false, err);
	return r == 0 ? wait_done(out, number, err) : r;
}

/* --- the rest --- */

/* False: it will not be asked for. */
static bool wait_last(struct mig_out *out)
{
	BASE_LOCKED(&out->lock);

	while (!out->last && !out->stop)
		(void)base_cond_wait(&out->changed, &out->lock, BASE_TIME_NEVER);
	return !out->stop;
}

static int send_piece(struct mig_out *out, const struct mig_state_piece *piece,
		      struct base_error *err)
{
	BASE_CLEANUP(base_buffer_fini) struct base_buffer body = { .data = NULL };

	mig_state_encode(piece, &body);
	if (body.failed)
		return base_fail(err, -ENOMEM, "migration: device state");
	return mig_control_send(out->control, MIG_TYPE_STATE, body.data, (uint32_t)body.size_bytes,
				err);
}

static int send_state(struct mig_out *out, const struct base_buffer *state, struct base_error *err)
{
	int r = 0;

	if (state->failed)
		return base_fail(err, -ENOMEM, "migration: device state");
	if (state->size_bytes > MIG_STATE_BYTES_MAX)
		return base_fail(err, -E2BIG,
				 "migration: the device state has %zu bytes, expected at most %u",
				 state->size_bytes, MIG_STATE_BYTES_MAX);
	for (size_t at = 0; r == 0 && at < state->size_bytes; at += MIG_STATE_PIECE_BYTES) {
		size_t left = state->size_bytes - at;
		struct mig_state_piece piece = {
			.offset_bytes = at,
			.bytes = state->data + at,
			.size_bytes = left < MIG_STATE_PIECE_BYTES ? (uint32_t)left
								   : MIG_STATE_PIECE_BYTES,
		};

		r = send_piece(out, &piece, err);
	}
	return r;
}

static int send_sealed(struct mig_out *out, uint32_t round, const struct base_buffer *state,
		       struct base_error *err)
{
	struct mig_sealed sealed = {
		.round = round,
		.chunks = mig_copy_counts(out->copy).chunks - out->lost_chunks,
		.state_bytes = state->size_bytes,
		.state_crc = base_crc32c(0, state->data, state->size_bytes),
		.post = out->post,
		.owed_pages = out->owed_pages,
	};
	uint8_t body[MIG_SEALED_BYTES];

	mig_sealed_encode(&sealed, body);
	return mig_control_send(out->control, MIG_TYPE_SEALED, body, sizeof(body), err);
}

/* The VM is paused: what was harvested before and what was written since. */
static int last_harvest(struct mig_out *out, struct base_error *err)
{
	int r = 0;

	if (out->options.quick)
		return everything(out, err);
#ifndef GODWIT_MUTANT_MIG_LAST_HARVEST
	r = harvest(out, out->dirty, err);
#endif
	return r == 0 ? harvest_images(out, err) : r;
}

/* What is written to disks from then on, nobody watches. */
static int let_go(struct mig_out *out, struct base_error *err)
{
	out->let_go = true;
	return out->options.vm->let_go(out->options.vm_context, err);
}

static int rest(struct mig_out *out, uint32_t number, struct base_error *err)
{
	const struct mig_source_vm *vm = out->options.vm;
	BASE_CLEANUP(base_buffer_fini) struct base_buffer state = { .data = NULL };
	uint64_t before = count_pages(out, out->dirty);
	int r = last_harvest(out, err);

	if (r == 0 && !out->options.quick) {
		BASE_LOCKED(&out->lock);

		out->dirty_bytes += (count_pages(out, out->dirty) - before) * MIG_PAGE_BYTES;
	}
	if (r == 0 && out->post)
		mig_out_post_instead(out);
	if (r == 0)
		r = send_round(out, number, true, err);
	out->times.last_round_ns = mig_out_now();
	if (r == 0)
		r = vm->state(out->options.vm_context, &state, err);
	if (r == 0)
		r = send_state(out, &state, err);
	out->times.state_ns = mig_out_now();
	out->state_bytes = state.size_bytes;
	if (r == 0)
		r = let_go(out, err);
	out->times.sealed_ns = mig_out_now();
	if (r == 0)
		r = mig_out_verify_send_roots(out, err);
	if (r == 0 && out->post)
		r = mig_out_post_owe(out, err);
	if (r == 0)
		r = send_sealed(out, number, &state, err);
	if (r == 0) /* the VM stands still: not for a channel that is stuck */
		r = wait_done(out, number, err);
	return r;
}

/* --- the mover --- */

static int move(struct mig_out *out, struct base_error *err)
{
	uint32_t number = 0;
	int r = 0;

	out->post = false; /* until this attempt says so */

	if (out->options.forecast_ms > 0) {
		r = mig_out_forecast_measure(out, err);
		if (r == 0)
			mig_events_post_kind(&out->events, MIG_EV_CANCEL);
		return r;
	}
	r = out->options.quick ? 0 : rounds(out, &number, err);
	if (r < 0)
		return r;
	mig_events_post_kind(&out->events, out->post ? MIG_EV_SWITCH_POST : MIG_EV_SWITCH);
	return wait_last(out) ? rest(out, number, err) : 0;
}

/* A data channel that breaks is seldom the reason: the destination says that on the other one. */
static void wait_reason(struct mig_out *out)
{
	uint64_t deadline_ns =
		mig_out_now() + (uint64_t)out->options.timeout_ms * BASE_NS_PER_MS / 4;
	BASE_LOCKED(&out->lock);

	while (!out->has_reason && !out->lost && !out->stop &&
	       base_cond_wait(&out->changed, &out->lock, deadline_ns))
		continue;
}

static void *mover(void *context)
{
	struct mig_out *out = context;
	struct base_error why = { 0 };
	int r = move(out, &why);

#ifndef GODWIT_MUTANT_MIG_THROTTLE_STAYS
	mig_out_throttle_end(out);
#endif
	if (r == 0 || is_stopped(out))
		return NULL;
	if (r == -ECONNRESET || r == -EPIPE || r == -ENOTCONN)
		wait_reason(out);
	mig_out_note(out, r, &why);
	if (mig_out_is_cut(out, r)) {
		mig_events_post_kind(&out->events, MIG_EV_LINK_LOST);
		return NULL;
	}
	{
		BASE_LOCKED(&out->lock);

		out->faulted = true;
	}
	mig_events_post_kind(&out->events, MIG_EV_FAULT);
	return NULL;
}

static int make_bitmaps(struct mig_out *out, struct base_error *err)
{
	out->dirty = calloc(out->word_count, sizeof(*out->dirty));
	out->next = calloc(out->word_count, sizeof(*out->next));
	out->scratch = calloc(out->word_count, sizeof(*out->scratch));
	if (out->dirty == NULL || out->next == NULL || out->scratch == NULL)
		return base_fail(err, -ENOMEM, "migration: bitmaps of %" PRIu64 " pages",
				 out->page_count);
	return 0;
}

/* A record's tag says what a checksum would: docs/migrate/tls.md, section 7. */
static bool is_bare(const struct mig_out *out)
{
	return out->options.tls != NULL && (out->opened.capabilities & MIG_CAN_BARE) != 0;
}

static int make_image(struct mig_out *out, struct base_error *err)
{
	BASE_FREE struct mig_object *objects = calloc(out->plan.object_count, sizeof(*objects));
	const struct mig_image_options options = {
		.ops = out->options.vm->images,
		.context = out->options.vm_context,
		.objects = objects,
		.object_count = out->plan.object_count,
		.channel_count = out->link_count,
		.bare = is_bare(out),
	};

	if (objects == NULL)
		return base_fail(err, -ENOMEM, "migration: images");
	for (uint32_t i = 0; i < out->plan.object_count; i++)
		objects[i] = out->plan.objects[i].object;
	return mig_image_new(&options, &out->image, err);
}

static int make_copy(struct mig_out *out, struct base_error *err)
{
	struct mig_copy_options options = { .memory = out->options.vm->memory(
						    out->options.vm_context),
					    .page_count = out->page_count,
					    .links = out->links,
					    .channel_count = out->link_count };
	struct mig_copy *copy = NULL;
	int r = base_pool_new(out->link_count, "mig-copy", &out->pool, err);

	if (r == 0 && out->plan.object_count > 1)
		r = make_image(out, err);
	if (r < 0)
		return r;
	if (out->options.verify)
		r = mig_out_verify_new(out, err);
	if (r < 0)
		return r;
	options.pool = out->pool;
	options.images = out->image;
	options.log = &out->options.vm->dirty;
	options.log_context = out->options.vm_context;
	options.bare = is_bare(out);
	if ((out->opened.capabilities & MIG_CAN_LZ4) != 0)
		options.compress = out->options.compress;
	r = mig_copy_new(&options, &copy, err);
	if (r < 0)
		return r;
	BASE_LOCKED(&out->lock);
	out->copy = copy;
	return 0;
}

static int start_mover(struct mig_out *out, struct base_error *err)
{
	int r = base_thread_start(&out->mover, "mig-mover", mover, out, err);

	out->mover_runs = r == 0;
	out->is_tracked = out->is_tracked || r == 0;
	return r;
}

int mig_out_copy_begin(struct mig_out *out, struct base_error *err)
{
	int r = make_bitmaps(out, err);

	if (r == 0)
		r = make_copy(out, err);
	return r == 0 ? start_mover(out, err) : r;
}

int mig_out_copy_go_on(struct mig_out *out, struct base_error *err)
{
	{
		BASE_LOCKED(&out->lock);

		out->stop = false;
		out->last = false;
	}
	mig_copy_relink(out->copy, out->links);
	out->goes_on = true;
	return start_mover(out, err);
}

void mig_out_copy_last(struct mig_out *out)
{
	BASE_LOCKED(&out->lock);

	out->last = true;
	(void)pthread_cond_broadcast(&out->changed);
}

void mig_out_copy_halt(struct mig_out *out)
{
	{
		BASE_LOCKED(&out->lock);

		out->stop = true;
		(void)pthread_cond_broadcast(&out->changed);
	}
	for (uint32_t i = 0; i < out->link_count; i++)
		mig_link_cancel(out->links[i]);
	if (out->verify != NULL)
		mig_verify_cancel(out->verify);
	if (out->mover_runs)
		base_thread_join(out->mover);
	out->mover_runs = false;
}

void mig_out_copy_stop(struct mig_out *out)
{
	mig_out_copy_halt(out);
	if (out->is_tracked)
		(void)!out->options.vm->track(out->options.vm_context, false, NULL);
	out->is_tracked = false;
}
