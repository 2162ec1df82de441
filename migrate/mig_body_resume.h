/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The bodies of what a destination says when its source is back after a cut, HAVE and RESUMED:
 * docs/migrate/resume.md.  As mig_body.h; whether there is such an object or span is the caller's
 * to check.
 *
 * Any thread.
 */
#ifndef MIGRATE_MIG_BODY_RESUME_H
#define MIGRATE_MIG_BODY_RESUME_H

#include "base/bytes.h"
#include "migrate/mig_intake.h"

#define MIG_HAVE_HEADER_BYTES    16u
#define MIG_HAVE_SPANS_MAX       ((MIG_BODY_BYTES_MAX - MIG_HAVE_HEADER_BYTES) / 8u)
#define MIG_RESUMED_HEADER_BYTES 16u

/* Of @count spans of an object, from @first on: the generation of the newest chunk that came. */
struct mig_have {
	uint16_t object; /* less than MIG_OBJECTS_MAX */
	uint32_t count;  /* 1 to MIG_HAVE_SPANS_MAX */
	uint64_t first;
	const uint8_t *generations; /* decoded: in the body, 8 bytes each: mig_have_generation() */
};
/* Appends @generations, of @have->count spans; out->failed: no memory. */
void mig_have_encode(const struct mig_have *have, const uint64_t *generations,
		     struct base_buffer *out);
BASE_MUST_CHECK int mig_have_decode(const uint8_t *bytes, uint32_t size_bytes,
				    struct mig_have *ret_have, struct base_error *err);
uint64_t mig_have_generation(const struct mig_have *have, uint32_t index);

/* RESUMED: the source has heard all of HAVE, and may go on. */
struct mig_resumed {
	uint32_t rounds; /* that were opened: the number of the next */
	uint64_t chunks; /* that came, of all rounds */
	uint32_t failure_count;
};
/* @failures: of the last of those rounds.  Appends; out->failed: no memory. */
void mig_resumed_encode(const struct mig_resumed *resumed, const struct mig_failure *failures,
			struct base_buffer *out);
/* @ret_failures: room for MIG_FAILURES_MAX, as of ROUND_DONE. */
BASE_MUST_CHECK int mig_resumed_decode(const uint8_t *bytes, uint32_t size_bytes,
				       struct mig_resumed *ret_resumed,
				       struct mig_failure *ret_failures, struct base_error *err);

#endif
