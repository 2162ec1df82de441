/* SPDX-License-Identifier: Apache-2.0 */
/* Heartbeat: a number that the guest gives back plus one; pure. */
#include <errno.h>
#include <inttypes.h>
#include <string.h>

#include "base/bytes.h"
#include "hypervisor/ic/ic_body.h"

#define BODY_BYTES 40u

uint16_t ic_heartbeat_encode(uint64_t sequence, uint8_t *to)
{
	memset(to, 0, BODY_BYTES);
	base_put_le64(to, sequence);
	return BODY_BYTES;
}

int ic_heartbeat_decode(const struct ic_answer *answer, uint64_t sequence, struct base_error *err)
{
	uint64_t seen = 0;

	if (answer->body_bytes < sizeof(seen))
		return base_fail(err, -EBADMSG, "body of %u bytes, expected 8 at least",
				 (unsigned)answer->body_bytes);
	seen = base_get_le64(answer->body);
	if (seen != sequence && seen != sequence + 1)
		return base_fail(err, -EBADMSG, "number %" PRIu64 " for %" PRIu64, seen, sequence);
	return 0;
}
