/* SPDX-License-Identifier: Apache-2.0 */
/* The destination after a cut: what had come, for a source that is back: docs/migrate/resume.md. */
#include <errno.h>
#include <stdlib.h>

#include "base/cleanup.h"
#include "migrate/mig_body_resume.h"
#include "migrate/mig_in_priv.h"

bool mig_in_can_resume(struct mig_in *in)
{
	BASE_LOCKED(&in->lock);

	return in->resume_ms > 0 && in->accepted && !in->sealed_told && !in->stop &&
	       (in->plan.capabilities & MIG_CAN_RESUME) != 0;
}

bool mig_in_is_cut(struct mig_in *in, int code)
{
	return mig_link_is_broken(code) && mig_in_can_resume(in);
}

/* What ended the connection is not the end of the migration. */
static void forget_reason(struct mig_in *in)
{
	BASE_LOCKED(&in->lock);

	in->has_reason = false;
}

int mig_in_cut(struct mig_in *in, struct base_error *err)
{
	uint32_t rounds = 0;
	int r = mig_in_data_cut(in, err);

	if (r < 0)
		return r;
	rounds = mig_intake_cut(in->intake);
	mig_in_verify_cut(in);
	mig_in_post_cut(in);
	base_buffer_fini(&in->state);
	in->state = (struct base_buffer){ .data = NULL };
	atomic_store(&in->round_open, rounds);
	forget_reason(in);
	BASE_LOCKED(&in->lock);
	in->rounds_reported = rounds;
	in->hash_open = rounds;
	in->whole = false;
	in->has_sealed = false;
	return 0;
}

static bool is_any(const uint64_t *generations, uint32_t count)
{
	for (uint32_t i = 0; i < count; i++)
		if (generations[i] != 0)
			return true;
	return false;
}

/* @generations: room for MIG_HAVE_SPANS_MAX.  False: no memory for it. */
static bool say_object(struct mig_in *in, uint16_t object, uint64_t *generations)
{
	uint64_t count = mig_intake_span_count(in->intake, object);

	for (uint64_t first = 0; first < count; first += MIG_HAVE_SPANS_MAX) {
		BASE_CLEANUP(base_buffer_fini) struct base_buffer body = { .data = NULL };
		struct mig_have have = { .object = object, .first = first };

		have.count = count - first < MIG_HAVE_SPANS_MAX ? (uint32_t)(count - first)
								: MIG_HAVE_SPANS_MAX;
		mig_intake_generations(in->intake, object, first, have.count, generations);
		if (!is_any(generations, have.count))
			continue;
		mig_have_encode(&have, generations, &body);
		if (body.failed)
			return false;
		mig_in_send(in, MIG_TYPE_HAVE, body.data, (uint32_t)body.size_bytes);
	}
	return true;
}

void mig_in_say_have(struct mig_in *in)
{
	BASE_CLEANUP(base_buffer_fini) struct base_buffer body = { .data = NULL };
	BASE_FREE struct mig_failure *failures = calloc(MIG_FAILURES_MAX, sizeof(*failures));
	BASE_FREE uint64_t *generations = calloc(MIG_HAVE_SPANS_MAX, sizeof(*generations));
	struct mig_resumed resumed = { .chunks = mig_intake_counts(in->intake).chunks };
	bool is_said = failures != NULL && generations != NULL;

	for (uint32_t i = 0; is_said && i < in->plan.object_count; i++)
		is_said = say_object(in, (uint16_t)i, generations);
	if (!is_said)
		return; /* it is not in order to go on without: the source asks again */
	{
		BASE_LOCKED(&in->lock);

		resumed.rounds = in->rounds_reported;
	}
	resumed.failure_count = mig_intake_failures(in->intake, failures);
	mig_resumed_encode(&resumed, failures, &body);
	if (!body.failed)
		mig_in_send(in, MIG_TYPE_RESUMED, body.data, (uint32_t)body.size_bytes);
}
