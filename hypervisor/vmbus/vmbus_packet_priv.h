/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Packets of the guest in private memory.
 */
#ifndef HYPERVISOR_VMBUS_VMBUS_PACKET_PRIV_H
#define HYPERVISOR_VMBUS_VMBUS_PACKET_PRIV_H

#include <stdint.h>

#include "hypervisor/vmbus/vmbus_channel.h"

/* The parts of a packet; points into @bytes.  -EBADMSG bounds, or a type that no guest sends. */
BASE_MUST_CHECK int vmbus_packet_decode(const uint8_t *bytes, uint32_t size_bytes,
					struct vmbus_packet *ret_packet);

#endif
