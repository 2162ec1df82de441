/* SPDX-License-Identifier: Apache-2.0 */
#include "migrate/mig_body_resume.h"

#include <errno.h>
#include <inttypes.h>

#include "migrate/mig_body.h"
#include "migrate/mig_body_priv.h"

#define RESUMED_COUNT_BYTES 8u

_Static_assert(MIG_RESUMED_HEADER_BYTES + MIG_FAILURES_MAX * MIG_FAILURE_BYTES <=
		       MIG_BODY_BYTES_MAX,
	       "what a round may report fits");

/* --- HAVE --- */

void mig_have_encode(const struct mig_have *have, const uint64_t *generations,
		     struct base_buffer *out)
{
	base_assert(have->count > 0 && have->count <= MIG_HAVE_SPANS_MAX);
	base_buffer_le16(out, have->object);
	base_buffer_le16(out, 0);
	base_buffer_le32(out, have->count);
	base_buffer_le64(out, have->first);
	for (uint32_t i = 0; i < have->count; i++)
		base_buffer_le64(out, generations[i]);
}

int mig_have_decode(const uint8_t *bytes, uint32_t size_bytes, struct mig_have *ret_have,
		    struct base_error *err)
{
	struct base_reader in = base_reader_over(bytes, size_bytes);
	struct mig_have have = { .object = base_read_le16(&in) };
	int r = mig_body_zeros("have", &in, 2, err);

	have.count = base_read_le32(&in);
	have.first = base_read_le64(&in);
	if (r < 0)
		return r;
	if (have.object >= MIG_OBJECTS_MAX)
		return base_fail(err, -EBADMSG, "migration have: object %u, expected less than %u",
				 (unsigned int)have.object, MIG_OBJECTS_MAX);
	if (have.count == 0 || have.count > MIG_HAVE_SPANS_MAX)
		return base_fail(err, -EBADMSG,
				 "migration have: %" PRIu32 " spans, expected 1 to %u", have.count,
				 MIG_HAVE_SPANS_MAX);
	if (have.first > UINT64_MAX - have.count)
		return base_fail(err, -EBADMSG, "migration have: span %" PRIu64 " is too far",
				 have.first);
	r = mig_body_size("have", size_bytes, MIG_HAVE_HEADER_BYTES + have.count * 8, err);
	if (r < 0)
		return r;
	have.generations = base_read_span(&in, (size_t)have.count * 8);
	*ret_have = have;
	return 0;
}

uint64_t mig_have_generation(const struct mig_have *have, uint32_t index)
{
	return base_get_le64(have->generations + (size_t)index * 8);
}

/* --- RESUMED: behind the count of chunks it is as ROUND_DONE --- */

void mig_resumed_encode(const struct mig_resumed *resumed, const struct mig_failure *failures,
			struct base_buffer *out)
{
	base_buffer_le64(out, resumed->chunks);
	mig_done_encode(resumed->rounds, failures, resumed->failure_count, out);
}

int mig_resumed_decode(const uint8_t *bytes, uint32_t size_bytes, struct mig_resumed *ret_resumed,
		       struct mig_failure *ret_failures, struct base_error *err)
{
	struct mig_resumed resumed = { .rounds = 0 };
	int r = 0;

	if (size_bytes < MIG_RESUMED_HEADER_BYTES)
		return base_fail(err, -EBADMSG,
				 "migration resumed: %" PRIu32 " bytes, expected %u or more",
				 size_bytes, MIG_RESUMED_HEADER_BYTES);
	resumed.chunks = base_get_le64(bytes);
	r = mig_done_decode(bytes + RESUMED_COUNT_BYTES, size_bytes - RESUMED_COUNT_BYTES,
			    &resumed.rounds, ret_failures, &resumed.failure_count, err);
	if (r < 0)
		return r;
	*ret_resumed = resumed;
	return 0;
}
