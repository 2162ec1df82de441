/* SPDX-License-Identifier: Apache-2.0 */
/* Products that 64 bits do not hold. */
#ifndef MIGRATE_MIG_SCALE_PRIV_H
#define MIGRATE_MIG_SCALE_PRIV_H

#include <stdint.h>

__extension__ typedef unsigned __int128 mig_wide;

/* a * b / c, at most UINT64_MAX; also where @c is 0. */
static inline uint64_t mig_scale(uint64_t a, uint64_t b, uint64_t c)
{
	mig_wide value;

	if (c == 0)
		return a == 0 || b == 0 ? 0 : UINT64_MAX;
	value = (mig_wide)a * b / c;
	return value > UINT64_MAX ? UINT64_MAX : (uint64_t)value;
}

#endif
