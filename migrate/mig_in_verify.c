/* SPDX-License-Identifier: Apache-2.0 */
/* The destination's part of a verified move: docs/migrate/verify.md. */
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "migrate/mig_in_priv.h"

int mig_in_verify_new(const struct mig_in *in, const struct mig_object *objects,
		      struct mig_verify **ret_verify, struct base_error *err)
{
	const struct mig_verify_options options = {
		.memory = in->memory,
		.objects = objects,
		.object_count = in->plan.object_count,
		.lane_count = in->channel_count,
		.map = in->options.vm->disk.map,
		.read = in->options.vm->disk.read,
		.context = in->options.vm_context,
	};

	base_assert(options.object_count == 1 || (options.map != NULL && options.read != NULL));
	return mig_verify_new(&options, ret_verify, err);
}

/* --- rounds --- */

int mig_in_verify_begin(struct mig_in *in, const struct mig_round *round, struct base_error *err)
{
	if (in->verify == NULL) {
		if (!round->sweep)
			return 0;
		return base_fail(err, -EPROTO,
				 "migration: round %" PRIu32
				 " is a sweep, and the plan does not verify",
				 round->number);
	}
	if (round->sweep ? in->swept : (round->last && !in->swept))
		return base_fail(err, -EPROTO, "migration: round %" PRIu32 " %s", round->number,
				 round->sweep ? "is a second sweep"
					      : "is the last, and there was no sweep");
	mig_verify_round(in->verify, round->sweep, round->last);
	in->sweeps = round->sweep;
	if (round->sweep)
		atomic_store(&in->hashed_from, round->number + 1);
	in->swept = in->swept || round->sweep;
	return 0;
}

/* All channels are behind their barriers: nothing of the round changes any more. */
static void open_hashing(struct mig_in *in, uint32_t number)
{
	if (in->sweeps)
		mig_verify_mark_bits(in->verify, 0, mig_intake_touched(in->intake));
	BASE_LOCKED(&in->lock);
	in->hash_open = number + 1;
	(void)pthread_cond_broadcast(&in->changed);
}

static int wait_hashing(struct mig_in *in, uint32_t number, struct base_error *err)
{
	BASE_LOCKED(&in->lock);

	while (in->hash_open <= number && !mig_in_is_ending(in))
		(void)base_cond_wait(&in->changed, &in->lock, BASE_TIME_NEVER);
	return mig_in_is_ending(in) ? base_fail(err, -ECANCELED, "migration: cancelled") : 0;
}

static bool is_last_lane(struct mig_in *in)
{
	BASE_LOCKED(&in->lock);

	if (++in->hash_done < in->channel_count)
		return false;
	in->hash_done = 0;
	return true;
}

/* A thread may come here when the others have begun the next round, which may be the sweep. */
static bool is_hashed(struct mig_in *in, uint32_t number)
{
	uint32_t from = atomic_load(&in->hashed_from);

	return from != 0 && number + 1 >= from;
}

int mig_in_verify_hash(struct mig_in *in, uint32_t lane, uint32_t number, bool all_there,
		       struct base_error *err)
{
	int r = 0;

	if (in->verify == NULL || !is_hashed(in, number))
		return all_there ? 1 : 0;
	if (all_there)
		open_hashing(in, number);
	else
		r = wait_hashing(in, number, err);
	if (r == 0)
		r = mig_verify_hash(in->verify, lane, err);
	if (r < 0 || !is_last_lane(in))
		return r;
	r = mig_verify_settle(in->verify, err);
	return r < 0 ? r : 1;
}

void mig_in_verify_cut(struct mig_in *in)
{
	if (in->verify == NULL)
		return;
	mig_verify_restart(in->verify);
	free(base_take(&in->roots));
	in->sweeps = false;
	in->swept = false;
	atomic_store(&in->hashed_from, 0);
	BASE_LOCKED(&in->lock);
	in->hash_done = 0;
}

/* --- what the source says --- */

int mig_in_verify_take_roots(struct mig_in *in, const struct mig_received *received,
			     struct base_error *err)
{
	uint32_t count = 0;
	int r = 0;

	if (in->verify == NULL || in->roots != NULL)
		return base_fail(err, -EPROTO, "migration: roots %s",
				 in->verify == NULL ? "of a move that is not verified"
						    : "a second time");
	in->roots = calloc(MIG_OBJECTS_MAX, sizeof(*in->roots));
	if (in->roots == NULL)
		return base_fail(err, -ENOMEM, "migration: roots");
	r = mig_roots_decode(received->body, received->body_bytes, in->roots, &count, err);
	if (r == 0 && count != in->plan.object_count)
		r = base_fail(err, -EBADMSG, "migration: %" PRIu32 " roots, expected %" PRIu32,
			      count, in->plan.object_count);
	return r;
}

int mig_in_verify_take_nodes(struct mig_in *in, const struct mig_received *received,
			     struct base_error *err)
{
	BASE_LOCKED(&in->lock);
	struct mig_nodes *nodes = &in->nodes;
	int r = 0;

	if (!in->asked_nodes)
		return base_fail(err, -EPROTO, "migration: nodes, which nobody asked for");
	r = mig_nodes_decode(received->body, received->body_bytes, nodes, err);
	if (r < 0)
		return r;
	if (nodes->of.object != in->node.object || nodes->of.level != in->node.level ||
	    nodes->of.index != in->node.index)
		return base_fail(err, -EPROTO,
				 "migration: children of node %" PRIu64 " of level %u of object "
				 "%u, expected those of %" PRIu64 " of %u of %u",
				 nodes->of.index, (unsigned int)nodes->of.level,
				 (unsigned int)nodes->of.object, in->node.index,
				 (unsigned int)in->node.level, (unsigned int)in->node.object);
	in->asked_nodes = false;
	(void)pthread_cond_broadcast(&in->changed);
	return 0;
}

/* --- the comparison: the runner --- */

/* The source's children of @node are in in->nodes then, until the next question. */
static bool ask_children(struct mig_in *in, const struct mig_node *node)
{
	uint64_t deadline_ns = mig_in_now() + in->options.timeout_ms * BASE_NS_PER_MS;
	uint8_t body[MIG_ASK_NODES_BYTES];

	{
		BASE_LOCKED(&in->lock);

		in->node = *node;
		in->asked_nodes = true;
	}
	mig_ask_nodes_encode(node, body);
	mig_in_send(in, MIG_TYPE_ASK_NODES, body, sizeof(body));
	BASE_LOCKED(&in->lock);
	while (in->asked_nodes && !in->lost && !in->stop &&
	       base_cond_wait(&in->changed, &in->lock, deadline_ns))
		continue;
	return !in->asked_nodes;
}

/* The child of @node that differs; false: it is not known which. */
static bool go_down(struct mig_in *in, struct mig_node *node)
{
	uint64_t first = 0;
	uint32_t count = 0;
	uint32_t at = 0;
	const struct mig_digest *ours = mig_verify_children(in->verify, node->object, node->level,
							    node->index, &first, &count);

	if (!ask_children(in, node) || in->nodes.count != count)
		return false;
	while (at < count && memcmp(&ours[at], &in->nodes.children[at], sizeof(*ours)) == 0)
		at++;
	if (at == count)
		return false;
	node->index = first + at;
	node->level--;
	return true;
}

/* The first unit that differs, as exactly as the source says. */
static uint64_t find_difference(struct mig_in *in, uint16_t object)
{
	struct mig_node node = { .object = object,
				 .level = (uint16_t)mig_verify_top(in->verify, object) };

	while (node.level > 0 && go_down(in, &node))
		continue;
	return mig_verify_unit(in->verify, object, node.level, node.index);
}

int mig_in_verify_compare(struct mig_in *in, struct base_error *err)
{
	if (in->verify == NULL)
		return 0;
	if (in->roots == NULL)
		return base_fail(err, -EPROTO, "migration: sealed, expected roots before it");
#ifdef GODWIT_MUTANT_MIG_VERIFY_RESULT
	return 0;
#endif
	for (uint32_t i = 0; i < in->plan.object_count; i++) {
		const struct mig_digest root = mig_verify_root(in->verify, (uint16_t)i);

		if (memcmp(&root, &in->roots[i], sizeof(root)) == 0)
			continue;
		if (i == 0)
			return base_fail(err, -EBADMSG,
					 "verify: memory differs from page %" PRIu64 " on",
					 find_difference(in, 0));
		return base_fail(err, -EBADMSG,
				 "verify: image %" PRIu32 " differs from sector %" PRIu64 " on", i,
				 find_difference(in, (uint16_t)i));
	}
	return 0;
}

void mig_in_verify_say(struct mig_in *in)
{
	struct mig_verify_counts counts;
	struct mig_verified verified;
	uint8_t body[MIG_VERIFIED_BYTES];

	if (in->verify == NULL)
		return;
	counts = mig_verify_counts(in->verify);
	verified = (struct mig_verified){ .bytes = counts.bytes,
					  .running_ns = counts.running_ns,
					  .blackout_ns = counts.blackout_ns };
	mig_verified_encode(&verified, body);
	mig_in_send(in, MIG_TYPE_VERIFIED, body, sizeof(body));
}
