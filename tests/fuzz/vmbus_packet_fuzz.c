/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A packet of the guest in private memory: its parts, and a walk over its GPA ranges.  The pieces
 * of a walk lie within pages, and their number is bounded by the packet.
 */
#include <stdlib.h>
#include <string.h>

#include "hypervisor/vmbus/vmbus_packet_priv.h"
#include "hypervisor/vmbus/vmbus_proto.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

struct walk {
	uint64_t count;
	uint64_t bytes;
};

static int each(void *context, const struct vmbus_gpa_piece *piece, uint32_t range)
{
	struct walk *walk = context;

	(void)range;
	walk->count++;
	walk->bytes += piece->length_bytes;
	if (piece->length_bytes == 0 || (piece->gpa & 4095u) + piece->length_bytes > 4096)
		abort();
	return 0;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct vmbus_guest_message message;
	struct vmbus_packet packet;
	struct walk walk = { .count = 0 };
	uint8_t *copy = NULL;

	if (size > VMBUS_PACKET_BYTES_MAX)
		return 0;
	if (vmbus_message_decode(data, (uint32_t)size, &message, NULL) == 0 &&
	    message.type == VMBUS_MSG_INVALID)
		abort();
	copy = malloc(size + 1); /* so that a read beyond the end is seen */
	if (copy == NULL)
		return 0;
	memcpy(copy, data, size);
	if (vmbus_packet_decode(copy, (uint32_t)size, &packet) == 0) {
		if (packet.header_bytes + packet.payload_bytes + 16 != size)
			abort();
		if (vmbus_gpa_walk(&packet, each, &walk) == 0 && walk.count > size / 8)
			abort();
	}
	free(copy);
	return 0;
}
