/* SPDX-License-Identifier: Apache-2.0 */
/* Time synchronisation: the host's time and the reference time of the same instant; pure. */
#include <string.h>

#include "base/bytes.h"
#include "hypervisor/ic/ic_body.h"

#define BODY_BYTES       24u                   /* from version 4 on */
#define OLD_BODY_BYTES   32u                   /* before */
#define UNITS_TO_1970    116444736000000000ULL /* from 1601, of 100 ns */
#define NS_PER_UNIT      100u
#define OFFSET_FLAGS     16u
#define OFFSET_OLD_FLAGS 24u

uint16_t ic_time_encode(struct ic_version version, uint64_t real_ns, uint64_t reference,
			uint8_t flags, uint8_t *to)
{
	memset(to, 0, OLD_BODY_BYTES);
	base_put_le64(to, real_ns / NS_PER_UNIT + UNITS_TO_1970);
	if (version.major < 4) {
		to[OFFSET_OLD_FLAGS] = flags;
		return OLD_BODY_BYTES;
	}
	base_put_le64(to + 8, reference);
	to[OFFSET_FLAGS] = flags;
	return BODY_BYTES;
}
