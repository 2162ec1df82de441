/* SPDX-License-Identifier: Apache-2.0 */
/* The source's part of a verified move: docs/migrate/verify.md. */
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "base/bytes.h"
#include "base/cleanup.h"
#include "migrate/mig_body_verify.h"
#include "migrate/mig_out_priv.h"

int mig_out_verify_new(struct mig_out *out, struct base_error *err)
{
	BASE_FREE struct mig_object *objects = calloc(out->plan.object_count, sizeof(*objects));
	struct mig_verify_options options = {
		.memory = out->options.vm->memory(out->options.vm_context),
		.objects = objects,
		.object_count = out->plan.object_count,
		.lane_count = out->link_count,
		.context = out->options.vm_context,
	};

	if (objects == NULL)
		return base_fail(err, -ENOMEM, "migration: hash tree");
	for (uint32_t i = 0; i < out->plan.object_count; i++)
		objects[i] = out->plan.objects[i].object;
	if (out->options.vm->images != NULL) {
		options.map = out->options.vm->images->map;
		options.read = out->options.vm->images->read;
	}
	return mig_verify_new(&options, &out->verify, err);
}

/* --- rounds: the mover --- */

bool mig_out_verify_sweeps(const struct mig_out *out, bool last)
{
	return out->verify != NULL && !out->swept && (out->sweep_next || last);
}

int mig_out_verify_begin(struct mig_out *out, bool last, struct base_error *err)
{
	bool sweep = mig_out_verify_sweeps(out, last);
	int r = 0;

	if (out->verify == NULL || (!sweep && !out->swept))
		return 0;
	mig_verify_round(out->verify, sweep, last);
	if (sweep) {
		r = out->options.vm->touched(out->options.vm_context, out->scratch, err);
		if (r < 0)
			return r;
		mig_verify_mark_bits(out->verify, 0, out->scratch);
	}
	mig_verify_mark_bits(out->verify, 0, out->dirty);
	for (uint32_t i = 1; i < out->plan.object_count; i++)
		mig_verify_mark_bits(out->verify, (uint16_t)i,
				     mig_image_dirty(out->image, (uint16_t)i));
	out->swept = true;
	return 0;
}

static int lane_step(void *context, uint64_t index, struct base_error *err)
{
	return mig_verify_hash(context, (uint32_t)index, err);
}

int mig_out_verify_hash(struct mig_out *out, struct base_error *err)
{
	int r = 0;

	if (out->verify == NULL || !out->swept)
		return 0;
	r = base_pool_each(out->pool, out->link_count, lane_step, out->verify, err);
	return r == 0 ? mig_verify_settle(out->verify, err) : r;
}

void mig_out_verify_after_cut(struct mig_out *out)
{
	if (out->verify == NULL)
		return;
	mig_verify_restart(out->verify);
	out->sweep_next = out->sweep_next || out->swept;
	out->swept = false;
}

int mig_out_verify_send_roots(struct mig_out *out, struct base_error *err)
{
	BASE_CLEANUP(base_buffer_fini) struct base_buffer body = { .data = NULL };
	struct mig_digest roots[MIG_OBJECTS_MAX];

	if (out->verify == NULL)
		return 0;
	for (uint32_t i = 0; i < out->plan.object_count; i++)
		roots[i] = mig_verify_root(out->verify, (uint16_t)i);
	mig_roots_encode(roots, out->plan.object_count, &body);
	if (body.failed)
		return base_fail(err, -ENOMEM, "migration: roots");
	{
		BASE_LOCKED(&out->lock);

		out->has_roots = true; /* nothing of the trees changes any more */
	}
	return mig_control_send(out->control, MIG_TYPE_ROOTS, body.data, (uint32_t)body.size_bytes,
				err);
}

/* --- the destination's messages: the receiver's thread --- */

static int check_node(const struct mig_out *out, const struct mig_node *node,
		      struct base_error *err)
{
	if (node->object >= mig_verify_object_count(out->verify) ||
	    node->index >= mig_verify_node_count(out->verify, node->object, node->level))
		return base_fail(err, -EBADMSG,
				 "migration: node %" PRIu64 " of level %u of object %u is asked "
				 "for, which has no such node",
				 node->index, (unsigned int)node->level,
				 (unsigned int)node->object);
	return 0;
}

int mig_out_verify_take_ask(struct mig_out *out, const struct mig_received *received,
			    struct base_error *err)
{
	BASE_CLEANUP(base_buffer_fini) struct base_buffer body = { .data = NULL };
	const struct mig_digest *children = NULL;
	struct mig_control *control = NULL;
	struct mig_nodes nodes = { .count = 0 };
	uint64_t first = 0;
	bool has_roots = false;
	int r = mig_ask_nodes_decode(received->body, received->body_bytes, &nodes.of, err);

	if (r < 0)
		return r;
	{
		BASE_LOCKED(&out->lock);

		has_roots = out->has_roots;
		control = out->control; /* ours: it ends only when this thread has */
	}
	if (!has_roots)
		return base_fail(err, -EPROTO, "migration: nodes are asked for before roots");
	r = check_node(out, &nodes.of, err);
	if (r < 0 || control == NULL)
		return r;
	children = mig_verify_children(out->verify, nodes.of.object, nodes.of.level, nodes.of.index,
				       &first, &nodes.count);
	memcpy(nodes.children, children, nodes.count * sizeof(*children));
	mig_nodes_encode(&nodes, &body);
	if (body.failed)
		return base_fail(err, -ENOMEM, "migration: nodes");
	return mig_control_send(control, MIG_TYPE_NODES, body.data, (uint32_t)body.size_bytes, err);
}

int mig_out_verify_take_verified(struct mig_out *out, const struct mig_received *received,
				 struct base_error *err)
{
	struct mig_verified verified;
	int r = mig_verified_decode(received->body, received->body_bytes, &verified, err);

	if (r < 0)
		return r;
	BASE_LOCKED(&out->lock);
	if (!out->has_roots)
		return base_fail(err, -EPROTO, "migration: verified before roots");
	out->verified = verified;
	out->is_verified = true;
	return 0;
}

/* A destination that says READY has compared what there was to compare. */
int mig_out_verify_check_ready(struct mig_out *out, struct base_error *err)
{
	BASE_LOCKED(&out->lock);

	if (!out->options.verify || out->is_verified)
		return 0;
	return base_fail(err, -EPROTO, "migration: ready, expected verified before it");
}

void mig_out_verify_report(const struct mig_out *out, struct mig_out_report *report)
{
	struct mig_verify_counts counts;

	if (out->verify == NULL)
		return;
	counts = mig_verify_counts(out->verify);
	report->is_verified = out->is_verified;
	report->verify_bytes = counts.bytes;
	report->verify_running_ns = counts.running_ns;
	report->verify_blackout_ns = counts.blackout_ns;
	report->destination_verify_bytes = out->verified.bytes;
	report->destination_verify_running_ns = out->verified.running_ns;
	report->destination_verify_blackout_ns = out->verified.blackout_ns;
}
