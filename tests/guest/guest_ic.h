/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The guest's side of the integration services: heartbeat, shutdown, time, key-value pairs and
 * backup.  The host speaks, the guest answers in place.  vCPU 0 only.
 */
#ifndef GUEST_IC_H
#define GUEST_IC_H

#include "tests/guest/guest_bus.h"
#include "tests/guest/guest_work.h"

void guest_ic_packet(struct guest_worker *worker, struct guest_channel *channel,
		     const struct guest_packet *packet);
void guest_ic_put(void (*put)(uint64_t offset, uint64_t value));

/** guest_ic_is_frozen - between freeze and thaw: no new writes to the disk.  Any vCPU. */
bool guest_ic_is_frozen(void);

#endif
