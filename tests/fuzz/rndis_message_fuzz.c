/* SPDX-License-Identifier: Apache-2.0 */
/*
 * An RNDIS message of the guest: a packet with its information and its frame, or a control
 * request.  What must hold: all parts lie within the message, what goes to the TAP device has the
 * guest's own address, and its offsets lie within the frame.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "hypervisor/netvsp/netvsp_frame.h"
#include "hypervisor/netvsp/rndis_message.h"
#include "hypervisor/netvsp/rndis_oid.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static const uint8_t mac[6] = { 0x02, 0x15, 0x5D, 0x01, 0x02, 0x03 };

static void check_planned(const struct netvsp_tx_frame *frame)
{
	const uint32_t total = frame->frame_bytes - frame->head_bytes + frame->head_send_bytes;
	const uint32_t start = base_get_le16(frame->vnet + 6);
	const uint32_t offset = base_get_le16(frame->vnet + 8);

	if (memcmp(frame->head + 6, mac, 6) != 0)
		abort();
	if (frame->head < frame->bytes ||
	    frame->head + frame->head_send_bytes > frame->bytes + sizeof(frame->bytes))
		abort();
	if ((frame->vnet[0] & 1) != 0 && start + offset + 2 > total)
		abort();
	if (frame->vnet[1] != 0 &&
	    ((frame->vnet[0] & 1) == 0 || base_get_le16(frame->vnet + 4) == 0 ||
	     base_get_le16(frame->vnet + 2) >= total))
		abort();
}

static void packet(const uint8_t *bytes, uint32_t size_bytes)
{
	static struct netvsp_tx_frame frame;
	const struct netvsp_tx_rules rules = { .mac = { 0x02, 0x15, 0x5D, 0x01, 0x02, 0x03 },
					       .mtu = 1500 };
	struct rndis_packet parts;

	if (size_bytes < RNDIS_PACKET_HEAD_BYTES ||
	    rndis_packet_decode(bytes, size_bytes, &parts, NULL) < 0)
		return;
	if (parts.message_bytes > size_bytes ||
	    parts.frame_offset + parts.frame_bytes > parts.message_bytes ||
	    parts.ppi_offset + parts.ppi_bytes > parts.message_bytes)
		abort();
	if (rndis_wishes_decode(bytes + parts.ppi_offset, parts.ppi_bytes, &frame.wishes, NULL) < 0)
		return;
	frame.frame_bytes = parts.frame_bytes;
	frame.head_bytes = netvsp_tx_head_bytes(frame.frame_bytes, &frame.wishes);
	memcpy(frame.bytes + NETVSP_VLAN_BYTES, bytes + parts.frame_offset, frame.head_bytes);
	if (netvsp_tx_plan(&frame, &rules, NULL) == 0)
		check_planned(&frame);
}

static void control(const uint8_t *bytes, uint32_t size_bytes)
{
	const struct rndis_card card = { .nvsp_version = 0x60001, .mtu = 1500, .queue_count = 4 };
	struct rndis_control request;
	struct rndis_change change;
	uint8_t info[RNDIS_INFO_BYTES_MAX];
	uint32_t info_bytes = 0;

	if (rndis_control_decode(bytes, size_bytes, &request, NULL) < 0)
		return;
	if (request.type == RNDIS_QUERY) {
		const uint32_t status = rndis_oid_query(&card, request.oid, info, &info_bytes);

		if (info_bytes > sizeof(info) ||
		    (status != RNDIS_STATUS_SUCCESS && info_bytes != 0))
			abort();
	} else if (request.type == RNDIS_SET) {
		if (rndis_oid_set(&card, &request, &change) == RNDIS_STATUS_SUCCESS &&
		    change.kind == RNDIS_CHANGE_MAC && memcmp(change.mac, card.mac, 6) != 0)
			abort();
	}
}

static void received(const uint8_t *bytes, uint32_t size_bytes)
{
	struct rndis_receive receive;
	uint8_t *frame = NULL;

	if (size_bytes <= NETVSP_VNET_BYTES)
		return;
	frame = malloc(size_bytes - NETVSP_VNET_BYTES);
	if (frame == NULL)
		return;
	memcpy(frame, bytes + NETVSP_VNET_BYTES, size_bytes - NETVSP_VNET_BYTES);
	(void)netvsp_rx_wanted(frame, size_bytes - NETVSP_VNET_BYTES, bytes[1], mac);
	(void)netvsp_rx_plan(bytes, frame, size_bytes - NETVSP_VNET_BYTES, &receive);
	free(frame);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	uint8_t *exact = malloc(size > 0 ? size : 1); /* so that a read past the end is seen */

	if (exact == NULL)
		return 0;
	memcpy(exact, data, size);
	packet(exact, (uint32_t)size);
	control(exact, (uint32_t)size);
	received(exact, (uint32_t)size);
	free(exact);
	return 0;
}
