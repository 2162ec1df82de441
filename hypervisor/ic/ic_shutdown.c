/* SPDX-License-Identifier: Apache-2.0 */
/* Shutdown: power off or restart in good order; pure. */
#include <string.h>

#include "base/bytes.h"
#include "hypervisor/ic/ic_body.h"

#define BODY_BYTES     2060u /* Linux wants the text's field as well */
#define REASON_PLANNED 0x80000000u
#define FLAG_FORCE     1u
#define FLAG_RESTART   2u

uint16_t ic_shutdown_encode(enum ic_power kind, bool force, uint8_t *to)
{
	uint32_t flags = (kind == IC_POWER_RESTART ? FLAG_RESTART : 0) | (force ? FLAG_FORCE : 0);

	memset(to, 0, BODY_BYTES);
	base_put_le32(to, REASON_PLANNED);
	base_put_le32(to + 8, flags);
	return BODY_BYTES;
}

bool ic_shutdown_can(struct ic_version version, enum ic_power kind)
{
	return kind == IC_POWER_OFF || version.major >= 3;
}
