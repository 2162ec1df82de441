/* SPDX-License-Identifier: Apache-2.0 */
#include "hypervisor/synic_slot_priv.h"

#include "base/error.h"

enum hv_slot_step hv_slot_next(enum hv_slot_step step, uint32_t type)
{
	switch (step) {
	case HV_SLOT_LOOK:
		return type == 0 ? HV_SLOT_FILL : HV_SLOT_ASK;
	case HV_SLOT_ASK:
#ifdef GODWIT_MUTANT_SYNIC_PENDING_RECHECK
		return HV_SLOT_BUSY;
#else
		return HV_SLOT_LOOK_AGAIN;
#endif
	case HV_SLOT_LOOK_AGAIN:
		return type == 0 ? HV_SLOT_FILL : HV_SLOT_BUSY;
	case HV_SLOT_FILL:
		return HV_SLOT_PUBLISH;
	case HV_SLOT_PUBLISH:
		return HV_SLOT_DELIVERED;
	case HV_SLOT_INVALID:
	case HV_SLOT_DELIVERED:
	case HV_SLOT_BUSY:
	case HV_SLOT_STEPS:
	default:
		base_bug("message slot: step %d", (int)step);
	}
}
