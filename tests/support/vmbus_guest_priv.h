/* SPDX-License-Identifier: Apache-2.0 */
/* Shared by vmbus_guest.c (world, messages) and vmbus_guest_ring.c (channels). */
#ifndef SUPPORT_VMBUS_GUEST_PRIV_H
#define SUPPORT_VMBUS_GUEST_PRIV_H

#include "tests/support/vmbus_guest.h"

/* Fail the test: what was expected. */
_Noreturn void vmbus_guest_give_up(const char *what, uint64_t value);
/* Address of the event flags of the VMBus SINT of @vp. */
uint32_t *vmbus_guest_flags(struct vmbus_guest *guest, uint32_t vp);

#endif
