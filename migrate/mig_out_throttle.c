/* SPDX-License-Identifier: Apache-2.0 */
/* A guest that writes faster than can be sent is slowed, as far as it may be. */
#include "migrate/mig_out_priv.h"

/* For those who ask, and the report. */
static void show(struct mig_out *out, uint32_t permille)
{
	uint64_t now_ns = mig_out_now();
	BASE_LOCKED(&out->lock);

	if (out->throttle_since_ns != 0)
		out->throttle_ns += now_ns - out->throttle_since_ns;
	out->throttle_since_ns = permille != 0 ? now_ns : 0;
	out->throttle_now = permille;
	if (permille > out->throttle_most)
		out->throttle_most = permille;
}

static void set(struct mig_out *out, uint32_t permille)
{
	if (permille == 0 && out->throttle_now == 0)
		return;
	out->options.vm->throttle(out->options.vm_context, permille);
	show(out, permille);
}

void mig_out_throttle_next(struct mig_out *out, uint64_t sent_bytes, uint64_t took_ns,
			   uint64_t left_bytes)
{
	struct mig_throttle_round round = { .sent_bytes = sent_bytes,
					    .took_ns = took_ns,
					    .left_bytes = left_bytes };

	if (out->options.vm->throttle == NULL || out->options.throttle_permille == 0)
		return;
	if (out->throttle.most_permille == 0)
		out->throttle = mig_throttle_begin(out->options.throttle_permille);
	{
		BASE_LOCKED(&out->lock);

		round.room_bytes = mig_pace_room_bytes(&out->pace);
		round.time_ns = mig_pace_time_ns(&out->pace, mig_out_now());
	}
	set(out, mig_throttle_next(&out->throttle, &round));
}

void mig_out_throttle_end(struct mig_out *out)
{
	/* What comes after a cut is judged anew. */
	out->throttle = (struct mig_throttle){ .most_permille = 0 };
	if (out->options.vm->throttle != NULL)
		set(out, 0);
}
