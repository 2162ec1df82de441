/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Ethernet frames between guest and TAP device: what is checked and made of their headers.
 * Pure; works on private copies.
 *
 * Rules: docs/hypervisor/netvsp/netvsp.md sections 5 and 6.
 */
#ifndef HYPERVISOR_NETVSP_NETVSP_FRAME_H
#define HYPERVISOR_NETVSP_NETVSP_FRAME_H

#include <stdbool.h>
#include <stdint.h>

#include "base/error.h"
#include "hypervisor/netvsp/rndis_message.h"

#define NETVSP_VNET_BYTES        12u /* struct virtio_net_hdr_mrg_rxbuf */
#define NETVSP_ETHERNET_BYTES    14u
#define NETVSP_VLAN_BYTES        4u
/* Headers that a plan may have to look at: 10 bits of offset and the largest TCP header.  A frame
 * up to here is sent wholly from private memory. */
#define NETVSP_HEAD_BYTES_MAX    1152u
/* An IP packet of the largest size behind two headers. */
#define NETVSP_FRAME_BYTES_MAX   (65535u + NETVSP_ETHERNET_BYTES + NETVSP_VLAN_BYTES)
/* Less would let one send become tens of thousands of frames: the smallest that TCP itself uses. */
#define NETVSP_SEGMENT_BYTES_MIN 8u

/* One frame of the guest on its way out. */
struct netvsp_tx_frame {
	/* Room for a VLAN tag, then the first head_bytes of the frame: a private copy, in which
	 * lengths and checksums are filled in. */
	uint8_t bytes[NETVSP_VLAN_BYTES + NETVSP_HEAD_BYTES_MAX];
	uint32_t head_bytes; /* min(frame_bytes, how much was copied) */
	uint32_t frame_bytes;
	struct rndis_wishes wishes;
	/* What netvsp_tx_plan() sets: */
	uint8_t vnet[NETVSP_VNET_BYTES];
	const uint8_t *head; /* to be sent instead of the first head_bytes of the frame */
	uint32_t head_send_bytes;
};

struct netvsp_tx_rules {
	uint8_t mac[6];
	bool mac_spoofing;
	uint32_t mtu;
};

/* How much of a frame netvsp_tx_plan() wants in its private copy. */
uint32_t netvsp_tx_head_bytes(uint32_t frame_bytes, const struct rndis_wishes *wishes);

/**
 * netvsp_tx_plan - check a frame and make its header for the TAP device.
 * -EPERM the source address is not the guest's; -EMSGSIZE longer than the network takes;
 * -EBADMSG headers that do not fit what the guest wants done with them.
 */
BASE_MUST_CHECK int netvsp_tx_plan(struct netvsp_tx_frame *frame,
				   const struct netvsp_tx_rules *rules, struct base_error *err);

/**
 * netvsp_rx_plan - complete a received frame and say what is known of its checksums.
 * @vnet: as read; a checksum that is left to us is written into @frame.
 * -EBADMSG the header is not one that a TAP device prepared by us gives (segments).
 */
BASE_MUST_CHECK int netvsp_rx_plan(const uint8_t vnet[NETVSP_VNET_BYTES], uint8_t *frame,
				   uint32_t frame_bytes, struct rndis_receive *ret_receive);

/* Whether a received frame passes the guest's packet filter (RNDIS_FILTER_*). */
bool netvsp_rx_wanted(const uint8_t *frame, uint32_t frame_bytes, uint32_t filter,
		      const uint8_t mac[6]);

#define NETVSP_RARP_BYTES 60u
/* A request (RFC 903) that asks for nothing but shows switches where @mac is now. */
void netvsp_rarp(uint8_t to[NETVSP_RARP_BYTES], const uint8_t mac[6]);

#endif
