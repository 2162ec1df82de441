/* SPDX-License-Identifier: Apache-2.0 */
/* Backup: freeze and thaw; pure. */
#include <errno.h>
#include <string.h>

#include "hypervisor/ic/ic_body.h"

#define BODY_BYTES 12u

uint16_t ic_vss_encode(enum ic_vss_op op, uint8_t *to)
{
	memset(to, 0, BODY_BYTES);
	to[0] = (uint8_t)op;
	return BODY_BYTES;
}

int ic_vss_decode(const struct ic_answer *answer, enum ic_vss_op op, struct base_error *err)
{
	if (answer->body_bytes < BODY_BYTES)
		return base_fail(err, -EBADMSG, "body of %u bytes, expected %u at least",
				 (unsigned)answer->body_bytes, BODY_BYTES);
	if (answer->body[0] != (uint8_t)op)
		return base_fail(err, -EBADMSG, "operation %u, expected %u",
				 (unsigned)answer->body[0], (unsigned)op);
	return 0;
}
