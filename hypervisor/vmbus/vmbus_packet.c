/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Packets of the guest, once they are in private memory: their parts, and the GPA ranges of
 * GPA_DIRECT packets (vmbus_channel.h).
 */
#include "hypervisor/vmbus/vmbus_packet_priv.h"

#include <errno.h>

#include "base/bytes.h"
#include "hypervisor/hv_limits.h"
#include "hypervisor/vmbus/vmbus_ring.h"

#define RANGES_HEAD_BYTES 8u /* reserved, count */
#define RANGE_HEAD_BYTES  8u /* bytes, offset */
#define PFN_BYTES         8u
#define PFN_MAX           (UINT64_MAX >> HV_PAGE_SHIFT)

int vmbus_packet_decode(const uint8_t *bytes, uint32_t size_bytes, struct vmbus_packet *ret_packet)
{
	uint32_t offset = 0;
	uint16_t type = 0;

	if (size_bytes < VMBUS_PACKET_HEAD_BYTES)
		return -EBADMSG;
	type = base_get_le16(bytes);
	offset = base_get_le16(bytes + 2) * 8u;
	if (offset < VMBUS_PACKET_HEAD_BYTES || offset > size_bytes)
		return -EBADMSG;
	switch (type) {
	case VMBUS_PACKET_INBAND:
	case VMBUS_PACKET_XFER_PAGES:
	case VMBUS_PACKET_GPA_DIRECT:
	case VMBUS_PACKET_COMPLETION:
		break;
	default:
		return -EBADMSG;
	}
	*ret_packet = (struct vmbus_packet){
		.type = (enum vmbus_packet_type)type,
		.wants_completion = (base_get_le16(bytes + 6) & VMBUS_PACKET_WANTS_REPLY) != 0,
		.trans_id = base_get_le64(bytes + 8),
		.header = bytes + VMBUS_PACKET_HEAD_BYTES,
		.header_bytes = offset - VMBUS_PACKET_HEAD_BYTES,
		.payload = bytes + offset,
		.payload_bytes = size_bytes - offset,
	};
	return 0;
}

struct range {
	uint32_t bytes;
	uint32_t offset;
	const uint8_t *pfns;
	uint32_t page_count;
};

/* The next range; its page numbers are in the packet and give addresses that do not wrap. */
static bool next_range(struct base_reader *in, struct range *range)
{
	uint64_t span = 0;

	range->bytes = base_read_le32(in);
	range->offset = base_read_le32(in);
	if (in->failed || range->offset >= HV_PAGE_BYTES)
		return false;
	span = (uint64_t)range->offset + range->bytes;
	range->page_count = (uint32_t)((span + HV_PAGE_BYTES - 1) >> HV_PAGE_SHIFT);
	range->pfns = base_read_span(in, (size_t)range->page_count * PFN_BYTES);
	if (range->pfns == NULL)
		return false;
	for (uint32_t i = 0; i < range->page_count; i++)
		if (base_get_le64(range->pfns + (size_t)i * PFN_BYTES) > PFN_MAX)
			return false;
	return true;
}

static int walk_range(const struct range *range, uint32_t index,
		      int (*each)(void *context, const struct vmbus_gpa_piece *piece,
				  uint32_t range),
		      void *context)
{
	uint32_t left = range->bytes;
	uint32_t in_page = range->offset;
	int r = 0;

	for (uint32_t i = 0; r == 0 && left > 0; i++) {
		uint64_t pfn = base_get_le64(range->pfns + (size_t)i * PFN_BYTES);
		struct vmbus_gpa_piece piece = {
			.gpa = (pfn << HV_PAGE_SHIFT) + in_page,
			.length_bytes = (uint32_t)HV_PAGE_BYTES - in_page,
		};

		if (piece.length_bytes > left)
			piece.length_bytes = left;
		left -= piece.length_bytes;
		in_page = 0;
		r = each(context, &piece, index);
	}
	return r;
}

int vmbus_gpa_walk(const struct vmbus_packet *packet,
		   int (*each)(void *context, const struct vmbus_gpa_piece *piece, uint32_t range),
		   void *context)
{
	struct base_reader in = base_reader_over(packet->header, packet->header_bytes);
	struct base_reader again;
	struct range range;
	uint32_t count = 0;
	int r = 0;

	base_read_skip(&in, RANGES_HEAD_BYTES - 4);
	count = base_read_le32(&in);
	/* A range takes its head at least: what the packet cannot hold is not counted through. */
	if (packet->type != VMBUS_PACKET_GPA_DIRECT || in.failed ||
	    count > base_reader_left(&in) / RANGE_HEAD_BYTES)
		return -EBADMSG;
	again = in;
	for (uint32_t i = 0; i < count; i++)
		if (!next_range(&in, &range))
			return -EBADMSG;
	for (uint32_t i = 0; r == 0 && i < count; i++) {
		(void)next_range(&again, &range);
		r = walk_range(&range, i, each, context);
	}
	return r;
}
