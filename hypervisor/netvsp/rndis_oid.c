/* SPDX-License-Identifier: Apache-2.0 */
/* The objects of a network card: rndis_oid.h. */
#include "hypervisor/netvsp/rndis_oid.h"

#include <string.h>

#include "base/hex.h"
#include "hypervisor/netvsp/nvsp_message.h"

enum {
	OID_SUPPORTED_LIST = 0x00010101,
	OID_HARDWARE_STATUS = 0x00010102,
	OID_MEDIA_SUPPORTED = 0x00010103,
	OID_MEDIA_IN_USE = 0x00010104,
	OID_MAXIMUM_LOOKAHEAD = 0x00010105,
	OID_MAXIMUM_FRAME_SIZE = 0x00010106,
	OID_LINK_SPEED = 0x00010107,
	OID_TRANSMIT_BLOCK_SIZE = 0x0001010A,
	OID_RECEIVE_BLOCK_SIZE = 0x0001010B,
	OID_VENDOR_ID = 0x0001010C,
	OID_VENDOR_DESCRIPTION = 0x0001010D,
	OID_CURRENT_PACKET_FILTER = 0x0001010E,
	OID_CURRENT_LOOKAHEAD = 0x0001010F,
	OID_MAXIMUM_TOTAL_SIZE = 0x00010111,
	OID_PROTOCOL_OPTIONS = 0x00010112,
	OID_MAC_OPTIONS = 0x00010113,
	OID_MEDIA_CONNECT_STATUS = 0x00010114,
	OID_MAXIMUM_SEND_PACKETS = 0x00010115,
	OID_VENDOR_DRIVER_VERSION = 0x00010116,
	OID_NETWORK_LAYER_ADDRESSES = 0x00010118,
	OID_RECEIVE_SCALE_CAPABILITIES = 0x00010203,
	OID_RECEIVE_SCALE_PARAMETERS = 0x00010204,
	OID_RNDIS_CONFIG_PARAMETER = 0x0001021B,
	OID_XMIT_OK = 0x00020101,
	OID_RCV_OK = 0x00020102,
	OID_XMIT_ERROR = 0x00020103,
	OID_RCV_ERROR = 0x00020104,
	OID_RCV_NO_BUFFER = 0x00020105,
	OID_802_3_PERMANENT_ADDRESS = 0x01010101,
	OID_802_3_CURRENT_ADDRESS = 0x01010102,
	OID_802_3_MULTICAST_LIST = 0x01010103,
	OID_802_3_MAXIMUM_LIST_SIZE = 0x01010104,
};
/* Beyond an int. */
#define OID_TCP_OFFLOAD_CURRENT_CONFIG        0xFC01020Bu
#define OID_TCP_OFFLOAD_PARAMETERS            0xFC01020Cu
#define OID_TCP_OFFLOAD_HARDWARE_CAPABILITIES 0xFC01020Du

static const uint32_t supported[] = {
	OID_SUPPORTED_LIST,
	OID_HARDWARE_STATUS,
	OID_MEDIA_SUPPORTED,
	OID_MEDIA_IN_USE,
	OID_MAXIMUM_LOOKAHEAD,
	OID_MAXIMUM_FRAME_SIZE,
	OID_LINK_SPEED,
	OID_TRANSMIT_BLOCK_SIZE,
	OID_RECEIVE_BLOCK_SIZE,
	OID_VENDOR_ID,
	OID_VENDOR_DESCRIPTION,
	OID_CURRENT_PACKET_FILTER,
	OID_CURRENT_LOOKAHEAD,
	OID_MAXIMUM_TOTAL_SIZE,
	OID_MAC_OPTIONS,
	OID_MEDIA_CONNECT_STATUS,
	OID_MAXIMUM_SEND_PACKETS,
	OID_VENDOR_DRIVER_VERSION,
	OID_RECEIVE_SCALE_CAPABILITIES,
	OID_RECEIVE_SCALE_PARAMETERS,
	OID_RNDIS_CONFIG_PARAMETER,
	OID_XMIT_OK,
	OID_RCV_OK,
	OID_XMIT_ERROR,
	OID_RCV_ERROR,
	OID_RCV_NO_BUFFER,
	OID_802_3_PERMANENT_ADDRESS,
	OID_802_3_CURRENT_ADDRESS,
	OID_802_3_MULTICAST_LIST,
	OID_802_3_MAXIMUM_LIST_SIZE,
	OID_TCP_OFFLOAD_CURRENT_CONFIG,
	OID_TCP_OFFLOAD_PARAMETERS,
	OID_TCP_OFFLOAD_HARDWARE_CAPABILITIES,
};

#define ETHERNET_HEAD_BYTES    14u
#define LINK_SPEED_100_BIT     100000000u /* 10 Gbit/s, in units of 100 bit/s */
/* Copies lookahead, serialised, 802.1p/q in the packet. */
#define MAC_OPTIONS            0x0000000Bu
#define VENDOR_ID              0x00FFFFFFu /* none of the IEEE's */
#define VENDOR_DRIVER_VERSION  0x00010000u
#define MULTICAST_LIST_ENTRIES 32u
#define DROPS_SHOWN_MAX        0xFFFFFFFFu

/* --- offload capabilities (NDIS_OFFLOAD) --- */

#define OBJECT_OFFLOAD 0xA7u
#define ENCAP_8023     0x02u

/* By revision: what the structure has grown to. */
#define OFFLOAD_BYTES_REVISION_1 112u
#define OFFLOAD_BYTES_REVISION_2 144u
#define OFFLOAD_BYTES_REVISION_3 156u

#define CHECKSUM_IP4_ALL 0x155u /* options of IP and TCP, TCP, UDP, the IP header */
#define CHECKSUM_IP6_ALL 0x055u /* extension headers, options of TCP, TCP, UDP */
#define SEGMENT_IP6_ALL  0x005u /* extension headers, options of TCP */

static uint32_t offload_bytes(uint32_t nvsp_version, uint8_t *ret_revision)
{
	if (nvsp_version >= NVSP_VERSION_5) {
		*ret_revision = 3;
		return OFFLOAD_BYTES_REVISION_3;
	}
	if (nvsp_version >= NVSP_VERSION_4) {
		*ret_revision = 2;
		return OFFLOAD_BYTES_REVISION_2;
	}
	*ret_revision = 1;
	return OFFLOAD_BYTES_REVISION_1;
}

static void write_offloads(struct base_writer *out, uint32_t nvsp_version)
{
	uint8_t revision = 0;
	const uint32_t total = offload_bytes(nvsp_version, &revision);

	base_write_u8(out, OBJECT_OFFLOAD);
	base_write_u8(out, revision);
	base_write_le16(out, (uint16_t)total);
	for (uint32_t ip = 0; ip < 2; ip++) { /* IPv4, then IPv6: sent, then received */
		const uint32_t what = ip == 0 ? CHECKSUM_IP4_ALL : CHECKSUM_IP6_ALL;

		base_write_le32(out, ENCAP_8023);
		base_write_le32(out, what);
		base_write_le32(out, ENCAP_8023);
		base_write_le32(out, what);
	}
	base_write_zeros(out, 16); /* large send, version 1: none */
	base_write_zeros(out, 28); /* IPsec: none */
	base_write_le32(out, ENCAP_8023);
	base_write_le32(out, RNDIS_SEGMENT_BYTES_MAX);
	base_write_le32(out, RNDIS_SEGMENTS_MIN);
	base_write_le32(out, ENCAP_8023);
	base_write_le32(out, RNDIS_SEGMENT_BYTES_MAX);
	base_write_le32(out, RNDIS_SEGMENTS_MIN);
	base_write_le32(out, SEGMENT_IP6_ALL);
	/* Flags, IPsec version 2, coalescing of received segments, tunnels: none. */
	base_write_zeros(out, total - out->offset_bytes);
}

/* --- receive-side scaling --- */

#define OBJECT_RSS_CAPABILITIES 0x88u
/* Message-signalled, classified at ISR and DPC; TCP on IPv4 and IPv6. */
#define RSS_FLAGS               0x07000300u

static void write_rss(struct base_writer *out, uint32_t queue_count)
{
	base_write_u8(out, OBJECT_RSS_CAPABILITIES);
	base_write_u8(out, 2);
	base_write_le16(out, 18);
	base_write_le32(out, RSS_FLAGS);
	base_write_le32(out, queue_count);
	base_write_le32(out, queue_count);
	base_write_le16(out, RNDIS_RSS_TABLE_ENTRIES);
}

/* --- queries --- */

static uint32_t clamp32(uint64_t value)
{
	return value > DROPS_SHOWN_MAX ? DROPS_SHOWN_MAX : (uint32_t)value;
}

/* Objects of one number.  False: it is none of them. */
static bool query_number(const struct rndis_card *card, uint32_t oid, uint32_t *ret_value)
{
	switch (oid) {
	case OID_HARDWARE_STATUS: /* ready */
	case OID_MEDIA_SUPPORTED: /* 802.3 */
	case OID_MEDIA_IN_USE:
	case OID_RCV_ERROR:
		*ret_value = 0;
		return true;
	case OID_MAXIMUM_LOOKAHEAD:
	case OID_CURRENT_LOOKAHEAD:
	case OID_MAXIMUM_FRAME_SIZE:
		*ret_value = card->mtu;
		return true;
	case OID_TRANSMIT_BLOCK_SIZE:
	case OID_RECEIVE_BLOCK_SIZE:
	case OID_MAXIMUM_TOTAL_SIZE:
		*ret_value = card->mtu + ETHERNET_HEAD_BYTES;
		return true;
	case OID_LINK_SPEED:
		*ret_value = LINK_SPEED_100_BIT;
		return true;
	case OID_VENDOR_ID:
		*ret_value = VENDOR_ID;
		return true;
	case OID_CURRENT_PACKET_FILTER:
		*ret_value = card->filter;
		return true;
	case OID_MAC_OPTIONS:
		*ret_value = MAC_OPTIONS;
		return true;
	case OID_MEDIA_CONNECT_STATUS:
		*ret_value = card->link_up ? 0 : 1;
		return true;
	case OID_MAXIMUM_SEND_PACKETS:
		*ret_value = RNDIS_PACKETS_PER_MESSAGE;
		return true;
	case OID_VENDOR_DRIVER_VERSION:
		*ret_value = VENDOR_DRIVER_VERSION;
		return true;
	case OID_802_3_MAXIMUM_LIST_SIZE:
		*ret_value = MULTICAST_LIST_ENTRIES;
		return true;
	case OID_XMIT_OK:
		*ret_value = clamp32(card->tx_frames);
		return true;
	case OID_RCV_OK:
		*ret_value = clamp32(card->rx_frames);
		return true;
	case OID_XMIT_ERROR:
		*ret_value = clamp32(card->tx_dropped);
		return true;
	case OID_RCV_NO_BUFFER:
		*ret_value = clamp32(card->rx_dropped);
		return true;
	default:
		return false;
	}
}

uint32_t rndis_oid_query(const struct rndis_card *card, uint32_t oid,
			 uint8_t info[RNDIS_INFO_BYTES_MAX], uint32_t *ret_bytes)
{
	static const char vendor[] = "Godwit network";
	struct base_writer out = base_writer_over(info, RNDIS_INFO_BYTES_MAX);
	uint32_t value = 0;

	*ret_bytes = 0;
	if (query_number(card, oid, &value)) {
		base_write_le32(&out, value);
	} else if (oid == OID_802_3_PERMANENT_ADDRESS) {
		base_write_bytes(&out, card->permanent_mac, 6);
	} else if (oid == OID_802_3_CURRENT_ADDRESS) {
		base_write_bytes(&out, card->mac, 6);
	} else if (oid == OID_VENDOR_DESCRIPTION) {
		base_write_bytes(&out, vendor, sizeof(vendor));
	} else if (oid == OID_SUPPORTED_LIST) {
		for (size_t i = 0; i < sizeof(supported) / sizeof(supported[0]); i++)
			base_write_le32(&out, supported[i]);
	} else if (oid == OID_TCP_OFFLOAD_HARDWARE_CAPABILITIES ||
		   oid == OID_TCP_OFFLOAD_CURRENT_CONFIG) {
		write_offloads(&out, card->nvsp_version);
	} else if (oid == OID_RECEIVE_SCALE_CAPABILITIES && card->queue_count > 1 &&
		   card->nvsp_version >= NVSP_VERSION_5) {
		write_rss(&out, card->queue_count);
	} else if (oid != OID_802_3_MULTICAST_LIST) { /* the list is empty: all pass */
		return RNDIS_STATUS_NOT_SUPPORTED;
	}
	*ret_bytes = (uint32_t)out.offset_bytes;
	return RNDIS_STATUS_SUCCESS;
}

/* --- sets --- */

/* Per offload: 0 no change, 1 off, 2 sent only, 3 received only, 4 both. */
static bool set_checksum(uint8_t value, uint32_t tx, uint32_t rx, struct rndis_change *change)
{
	if (value > 4)
		return false;
	if (value == 0)
		return true;
	if (value == 2 || value == 4)
		change->offloads_on |= tx;
	else
		change->offloads_off |= tx;
	if (value == 3 || value == 4)
		change->offloads_on |= rx;
	else
		change->offloads_off |= rx;
	return true;
}

/* 0 no change, 1 off, 2 on. */
static bool set_segment(uint8_t value, uint32_t bit, struct rndis_change *change)
{
	if (value == 2)
		change->offloads_on |= bit;
	else if (value == 1)
		change->offloads_off |= bit;
	return value <= 2;
}

static uint32_t set_offloads(const struct rndis_control *control, struct rndis_change *change)
{
	const uint8_t *at = control->info;

	/* Type, revision, size; then a byte each for IP, TCP4, UDP4, TCP6, UDP6, LSO1, IPsec,
	 * LSO2 on IPv4, LSO2 on IPv6.  What comes behind we never offered. */
	if (control->info_bytes < 13)
		return RNDIS_STATUS_INVALID_LENGTH;
	if (!set_checksum(at[5], RNDIS_OFFLOAD_TX_CHECKSUM4, RNDIS_OFFLOAD_RX_CHECKSUM4, change) ||
	    !set_checksum(at[7], RNDIS_OFFLOAD_TX_CHECKSUM6, RNDIS_OFFLOAD_RX_CHECKSUM6, change) ||
	    !set_segment(at[11], RNDIS_OFFLOAD_SEGMENT4, change) ||
	    !set_segment(at[12], RNDIS_OFFLOAD_SEGMENT6, change))
		return RNDIS_STATUS_INVALID_DATA;
	change->kind = RNDIS_CHANGE_OFFLOADS;
	return RNDIS_STATUS_SUCCESS;
}

#define RSS_DISABLE 0x0010u

/* The kernel's TAP driver spreads flows over queues by itself (a flow comes back on the queue
 * that it is sent on), so key and table are checked for form and not used. */
static uint32_t set_rss(const struct rndis_control *control, struct rndis_change *change)
{
	const uint8_t *at = control->info;
	uint32_t table_bytes = 0;
	uint32_t table_at = 0;

	if (control->info_bytes < 28)
		return RNDIS_STATUS_INVALID_LENGTH;
	table_bytes = base_get_le16(at + 12);
	table_at = base_get_le32(at + 14);
	change->kind = RNDIS_CHANGE_RSS;
	change->rss_on = (base_get_le16(at + 4) & RSS_DISABLE) == 0;
	if (change->rss_on && table_bytes != 0 &&
	    (table_bytes % 4 != 0 || table_at > control->info_bytes ||
	     table_bytes > control->info_bytes - table_at))
		return RNDIS_STATUS_INVALID_DATA;
	return RNDIS_STATUS_SUCCESS;
}

static bool utf16_is(const uint8_t *at, uint32_t size_bytes, const char *text)
{
	if (size_bytes != 2 * strlen(text))
		return false;
	for (uint32_t i = 0; i < size_bytes / 2; i++)
		if (base_get_le16(at + 2 * (size_t)i) != (uint8_t)text[i])
			return false;
	return true;
}

/* A named parameter; we know "NetworkAddress", twelve hexadecimal digits in UTF-16. */
static uint32_t set_parameter(const struct rndis_card *card, const struct rndis_control *control,
			      struct rndis_change *change)
{
	const uint8_t *at = control->info;
	const uint32_t bytes = control->info_bytes;
	uint32_t name_at = 0;
	uint32_t name_bytes = 0;
	uint32_t value_at = 0;
	uint32_t value_bytes = 0;

	if (bytes < 20)
		return RNDIS_STATUS_INVALID_LENGTH;
	name_at = base_get_le32(at);
	name_bytes = base_get_le32(at + 4);
	value_at = base_get_le32(at + 12);
	value_bytes = base_get_le32(at + 16);
	if (name_at > bytes || name_bytes > bytes - name_at || value_at > bytes ||
	    value_bytes > bytes - value_at)
		return RNDIS_STATUS_INVALID_DATA;
	if (!utf16_is(at + name_at, name_bytes, "NetworkAddress"))
		return RNDIS_STATUS_NOT_SUPPORTED;
	if (value_bytes != 24)
		return RNDIS_STATUS_INVALID_DATA;
	for (uint32_t i = 0; i < 6; i++) {
		const uint8_t *digits = at + value_at + 4 * (size_t)i;
		const int high = base_hex_digit(base_get_le16(digits));
		const int low = base_hex_digit(base_get_le16(digits + 2));

		if (high < 0 || low < 0)
			return RNDIS_STATUS_INVALID_DATA;
		change->mac[i] = (uint8_t)(high << 4 | low);
	}
	if ((change->mac[0] & 1) != 0 || base_is_zero(change->mac, 6))
		return RNDIS_STATUS_INVALID_DATA;
	if (!card->mac_may_change && memcmp(change->mac, card->mac, 6) != 0)
		return RNDIS_STATUS_FAILURE;
	change->kind = RNDIS_CHANGE_MAC;
	return RNDIS_STATUS_SUCCESS;
}

uint32_t rndis_oid_set(const struct rndis_card *card, const struct rndis_control *control,
		       struct rndis_change *ret_change)
{
	struct rndis_change change = { .kind = RNDIS_CHANGE_NONE };
	uint32_t status = RNDIS_STATUS_SUCCESS;

	switch (control->oid) {
	case OID_CURRENT_PACKET_FILTER:
		if (control->info_bytes < 4)
			return RNDIS_STATUS_INVALID_LENGTH;
		change.kind = RNDIS_CHANGE_FILTER;
		change.filter = base_get_le32(control->info) & RNDIS_FILTER_KNOWN;
		break;
	case OID_TCP_OFFLOAD_PARAMETERS:
		status = set_offloads(control, &change);
		break;
	case OID_RECEIVE_SCALE_PARAMETERS:
		status = card->queue_count > 1 ? set_rss(control, &change)
					       : RNDIS_STATUS_NOT_SUPPORTED;
		break;
	case OID_RNDIS_CONFIG_PARAMETER:
		status = set_parameter(card, control, &change);
		break;
	case OID_802_3_MULTICAST_LIST: /* all multicast passes while any does */
	case OID_CURRENT_LOOKAHEAD:
	case OID_PROTOCOL_OPTIONS:
	case OID_NETWORK_LAYER_ADDRESSES:
		break;
	default:
		status = RNDIS_STATUS_NOT_SUPPORTED;
	}
	if (status == RNDIS_STATUS_SUCCESS)
		*ret_change = change;
	return status;
}
