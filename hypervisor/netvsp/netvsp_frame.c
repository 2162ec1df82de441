/* SPDX-License-Identifier: Apache-2.0 */
/* Ethernet frames between guest and TAP device: netvsp_frame.h. */
#include "hypervisor/netvsp/netvsp_frame.h"

#include <errno.h>
#include <inttypes.h>
#include <string.h>

#include "base/bytes.h"
#include "hypervisor/netvsp/rndis_oid.h"

#define VNET_NEEDS_CSUM 0x01u
#define VNET_DATA_VALID 0x02u
#define VNET_GSO_NONE   0x00u
#define VNET_GSO_TCP4   0x01u
#define VNET_GSO_TCP6   0x04u
#define VNET_GSO_ECN    0x80u

#define TYPE_IP4     0x0800u
#define TYPE_RARP    0x8035u
#define TYPE_VLAN    0x8100u
#define TYPE_IP6     0x86DDu
#define PROTOCOL_TCP 6u
#define PROTOCOL_UDP 17u

#define IP4_BYTES_MIN    20u
#define IP6_BYTES        40u
#define TCP_BYTES_MIN    20u
#define UDP_BYTES        8u
#define TCP_CHECKSUM_AT  16u
#define UDP_CHECKSUM_AT  6u
#define TCP_FLAG_CWR     0x80u
#define PLAIN_HEAD_BYTES 256u /* without large sends; most acknowledgements and requests fit */
#define LENGTH_FIELD_MAX 65535u

/* The ones' complement sum of RFC 1071, folded, on top of @sum. */
static uint32_t sum_bytes(const uint8_t *bytes, uint32_t size_bytes, uint64_t sum)
{
	uint32_t at = 0;

	for (; size_bytes - at >= 2; at += 2)
		sum += base_get_be16(bytes + at);
	if (at < size_bytes)
		sum += (uint32_t)bytes[at] << 8;
	while (sum > 0xFFFF)
		sum = (sum & 0xFFFF) + (sum >> 16);
	return (uint32_t)sum;
}

/* --- sent by the guest --- */

/* Where the headers are, all within the private copy. */
struct layers {
	uint32_t network_at;
	uint32_t transport_at; /* 0: not found */
	bool is_ip6;
	uint8_t protocol;
};

uint32_t netvsp_tx_head_bytes(uint32_t frame_bytes, const struct rndis_wishes *wishes)
{
	uint32_t want = PLAIN_HEAD_BYTES;

	if (wishes->segment)
		want = NETVSP_HEAD_BYTES_MAX;
	return frame_bytes < want ? frame_bytes : want;
}

static bool is_source_allowed(const uint8_t *source, const struct netvsp_tx_rules *rules)
{
#ifdef GODWIT_MUTANT_NETVSP_MAC
	return true;
#endif
	if ((source[0] & 1) != 0)
		return false; /* a group is never a sender */
	return rules->mac_spoofing || memcmp(source, rules->mac, 6) == 0;
}

static int bad(struct base_error *err, const char *what)
{
	return base_fail(err, -EBADMSG, "frame: %s", what);
}

/* A frame, or one segment of it, with headers. */
static int check_length(uint32_t frame_bytes, const struct netvsp_tx_rules *rules,
			struct base_error *err)
{
	if (frame_bytes <= rules->mtu + NETVSP_ETHERNET_BYTES + NETVSP_VLAN_BYTES)
		return 0;
	return base_fail(err, -EMSGSIZE, "frame: %" PRIu32 " bytes, the network takes %" PRIu32,
			 frame_bytes, rules->mtu);
}

/* The network header, behind a tag that the guest put in itself. */
static int find_network(const uint8_t *head, uint32_t head_bytes, struct layers *layers,
			struct base_error *err)
{
	uint32_t at = NETVSP_ETHERNET_BYTES;
	uint16_t type = base_get_be16(head + 12);

	if (type == TYPE_VLAN) {
		if (head_bytes < at + NETVSP_VLAN_BYTES)
			return bad(err, "cut in its VLAN tag");
		type = base_get_be16(head + at + 2);
		at += NETVSP_VLAN_BYTES;
	}
	layers->network_at = at;
	layers->is_ip6 = type == TYPE_IP6;
	if (type == TYPE_IP6) {
		if (head_bytes - at < IP6_BYTES || head[at] >> 4 != 6)
			return bad(err, "no IPv6 header");
		layers->protocol = head[at + 6];
		if (layers->protocol == PROTOCOL_TCP || layers->protocol == PROTOCOL_UDP)
			layers->transport_at = at + IP6_BYTES;
		return 0;
	}
	if (type == TYPE_IP4) {
		const uint32_t ip_bytes =
			head_bytes - at < IP4_BYTES_MIN ? 0 : (head[at] & 0xFu) * 4;

		if (ip_bytes < IP4_BYTES_MIN || ip_bytes > head_bytes - at || head[at] >> 4 != 4)
			return bad(err, "no IPv4 header");
		layers->protocol = head[at + 9];
		layers->transport_at = at + ip_bytes;
		return 0;
	}
	return bad(err, "an offload for what is not IP");
}

/* Where TCP or UDP begins: as the guest says, or as the headers do. */
static int find_transport(const struct netvsp_tx_frame *frame, struct layers *layers,
			  struct base_error *err)
{
	const uint32_t said = frame->wishes.transport_offset;
	const uint32_t floor = layers->network_at + (layers->is_ip6 ? IP6_BYTES : IP4_BYTES_MIN);

	if (said != 0) {
		/* IPv6 may have extension headers, whose walk we leave to the guest. */
		if (said < floor || (!layers->is_ip6 && said != layers->transport_at))
			return bad(err, "the transport header is not where the guest says");
		layers->transport_at = said;
	}
	if (layers->transport_at == 0)
		return bad(err, "no transport header");
	return 0;
}

static void vnet_checksum(uint8_t *vnet, uint32_t start, uint32_t offset)
{
	vnet[0] |= VNET_NEEDS_CSUM;
	base_put_le16(vnet + 6, (uint16_t)start);
	base_put_le16(vnet + 8, (uint16_t)offset);
}

static void fill_ip4_checksum(uint8_t *ip)
{
	base_put_be16(ip + 10, 0);
	base_put_be16(ip + 10, ~sum_bytes(ip, (ip[0] & 0xFu) * 4, 0) & 0xFFFF);
}

/* The guest left a length and a sum of the pseudo header without a length: fill both in, as
 * Linux wants a packet that it is to cut. */
static int plan_segments(struct netvsp_tx_frame *frame, const struct layers *layers,
			 const struct netvsp_tx_rules *rules, struct base_error *err)
{
	uint8_t *head = frame->bytes + NETVSP_VLAN_BYTES;
	const uint32_t mss = frame->wishes.segment_bytes;
	const uint32_t tcp_at = layers->transport_at;
	uint8_t *ip = head + layers->network_at;
	uint8_t *tcp = head + tcp_at;
	uint32_t tcp_head = 0;
	uint32_t length = 0;

	if (layers->is_ip6 != frame->wishes.segment_ipv6)
		return bad(err, "a large send of the other IP version");
	if (!layers->is_ip6 && layers->protocol != PROTOCOL_TCP)
		return bad(err, "a large send of what is not TCP");
	if (frame->head_bytes < TCP_BYTES_MIN || tcp_at > frame->head_bytes - TCP_BYTES_MIN)
		return bad(err, "a large send without its TCP header");
	tcp_head = (uint32_t)(tcp[12] >> 4) * 4;
	if (tcp_head < TCP_BYTES_MIN || tcp_head > frame->head_bytes - tcp_at)
		return bad(err, "a large send with a broken TCP header");
	if (mss < NETVSP_SEGMENT_BYTES_MIN || mss > LENGTH_FIELD_MAX)
		return bad(err, "a large send with an impossible segment size");
	length = frame->frame_bytes - layers->network_at;
	if (layers->is_ip6)
		length -= IP6_BYTES;
	if (length > LENGTH_FIELD_MAX)
		return bad(err, "a large send beyond what IP can say");
	if (layers->is_ip6) {
		base_put_be16(ip + 4, (uint16_t)length);
	} else {
		base_put_be16(ip + 2, (uint16_t)length);
		fill_ip4_checksum(ip);
	}
	length = frame->frame_bytes - tcp_at;
	base_put_be16(tcp + TCP_CHECKSUM_AT,
		      (uint16_t)(sum_bytes(tcp + TCP_CHECKSUM_AT, 2, length)));
	vnet_checksum(frame->vnet, tcp_at, TCP_CHECKSUM_AT);
	if (length - tcp_head <= mss) /* one segment: nothing to cut */
		return check_length(frame->frame_bytes, rules, err);
	if (check_length(tcp_at + tcp_head + mss, rules, err) < 0)
		return -EMSGSIZE;
	frame->vnet[1] = layers->is_ip6 ? VNET_GSO_TCP6 : VNET_GSO_TCP4;
	if ((tcp[13] & TCP_FLAG_CWR) != 0)
		frame->vnet[1] |= VNET_GSO_ECN;
	base_put_le16(frame->vnet + 2, (uint16_t)(tcp_at + tcp_head));
	base_put_le16(frame->vnet + 4, (uint16_t)mss);
	return 0;
}

static int plan_checksum(struct netvsp_tx_frame *frame, uint8_t *head, const struct layers *layers,
			 struct base_error *err)
{
	const struct rndis_wishes *wishes = &frame->wishes;
	const uint32_t left = frame->frame_bytes - layers->transport_at;

	if (wishes->checksum_ip_header && !layers->is_ip6)
		fill_ip4_checksum(head + layers->network_at);
	if (wishes->checksum_tcp) {
		if (layers->transport_at > frame->frame_bytes || left < TCP_BYTES_MIN)
			return bad(err, "a checksum without its TCP header");
		vnet_checksum(frame->vnet, layers->transport_at, TCP_CHECKSUM_AT);
	} else if (wishes->checksum_udp) {
		if (layers->transport_at > frame->frame_bytes || left < UDP_BYTES)
			return bad(err, "a checksum without its UDP header");
		vnet_checksum(frame->vnet, layers->transport_at, UDP_CHECKSUM_AT);
	}
	return 0;
}

/* Put the tag between addresses and type: the addresses move into the room in front. */
static void insert_vlan(struct netvsp_tx_frame *frame)
{
	uint8_t *bytes = frame->bytes;

	memmove(bytes, bytes + NETVSP_VLAN_BYTES, 12);
	base_put_be16(bytes + 12, TYPE_VLAN);
	base_put_be16(bytes + 14, frame->wishes.vlan_tci);
	frame->head = bytes;
	frame->head_send_bytes += NETVSP_VLAN_BYTES;
	if ((frame->vnet[0] & VNET_NEEDS_CSUM) != 0)
		base_put_le16(frame->vnet + 6,
			      (uint16_t)(base_get_le16(frame->vnet + 6) + NETVSP_VLAN_BYTES));
	if (frame->vnet[1] != VNET_GSO_NONE)
		base_put_le16(frame->vnet + 2,
			      (uint16_t)(base_get_le16(frame->vnet + 2) + NETVSP_VLAN_BYTES));
}

int netvsp_tx_plan(struct netvsp_tx_frame *frame, const struct netvsp_tx_rules *rules,
		   struct base_error *err)
{
	const struct rndis_wishes *wishes = &frame->wishes;
	uint8_t *head = frame->bytes + NETVSP_VLAN_BYTES;
	struct layers layers = { .network_at = 0 };
	int rc = 0;

	memset(frame->vnet, 0, sizeof(frame->vnet));
	frame->head = head;
	frame->head_send_bytes = frame->head_bytes;
	if (frame->head_bytes < NETVSP_ETHERNET_BYTES)
		return bad(err, "shorter than an Ethernet header");
	if (!is_source_allowed(head + 6, rules))
		return base_fail(err, -EPERM, "frame: source %02x:%02x:%02x:%02x:%02x:%02x",
				 head[6], head[7], head[8], head[9], head[10], head[11]);
	if (frame->frame_bytes > NETVSP_FRAME_BYTES_MAX || !wishes->segment)
		rc = check_length(frame->frame_bytes, rules, err);
	if (rc < 0)
		return rc;
	if (wishes->segment || (wishes->checksum && (wishes->checksum_tcp || wishes->checksum_udp ||
						     wishes->checksum_ip_header))) {
		rc = find_network(head, frame->head_bytes, &layers, err);
		if (rc == 0 && (wishes->segment || wishes->checksum_tcp || wishes->checksum_udp))
			rc = find_transport(frame, &layers, err);
		if (rc == 0)
			rc = wishes->segment ? plan_segments(frame, &layers, rules, err)
					     : plan_checksum(frame, head, &layers, err);
		if (rc < 0)
			return rc;
	}
	if (wishes->vlan && base_get_be16(head + 12) != TYPE_VLAN)
		insert_vlan(frame);
	return 0;
}

/* --- received for the guest --- */

/* TCP or UDP over IP without a walk through extension headers; 0 for others. */
static uint8_t transport_of(const uint8_t *frame, uint32_t frame_bytes)
{
	uint32_t at = NETVSP_ETHERNET_BYTES;
	uint16_t type = 0;

	if (frame_bytes < NETVSP_ETHERNET_BYTES)
		return 0;
	type = base_get_be16(frame + 12);
	if (type == TYPE_VLAN && frame_bytes >= at + NETVSP_VLAN_BYTES) {
		type = base_get_be16(frame + at + 2);
		at += NETVSP_VLAN_BYTES;
	}
	if (type == TYPE_IP4 && frame_bytes - at >= IP4_BYTES_MIN)
		return frame[at + 9];
	if (type == TYPE_IP6 && frame_bytes - at >= IP6_BYTES)
		return frame[at + 6];
	return 0;
}

int netvsp_rx_plan(const uint8_t vnet[NETVSP_VNET_BYTES], uint8_t *frame, uint32_t frame_bytes,
		   struct rndis_receive *ret_receive)
{
	struct rndis_receive receive = { .tcp_good = false };

	if (frame_bytes < NETVSP_ETHERNET_BYTES || vnet[1] != VNET_GSO_NONE)
		return -EBADMSG;
	if ((vnet[0] & VNET_NEEDS_CSUM) != 0) {
		const uint32_t start = base_get_le16(vnet + 6);
		const uint32_t offset = base_get_le16(vnet + 8);
		uint32_t sum = 0;

		if (start >= frame_bytes || offset > frame_bytes - start ||
		    frame_bytes - start - offset < 2)
			return -EBADMSG;
		sum = ~sum_bytes(frame + start, frame_bytes - start, 0) & 0xFFFF;
		if (sum == 0 && offset == UDP_CHECKSUM_AT)
			sum = 0xFFFF; /* 0 would mean that there is none */
		base_put_be16(frame + start + offset, (uint16_t)sum);
		receive.tcp_good = offset == TCP_CHECKSUM_AT;
		receive.udp_good = offset == UDP_CHECKSUM_AT;
	} else if ((vnet[0] & VNET_DATA_VALID) != 0) {
		const uint8_t protocol = transport_of(frame, frame_bytes);

		receive.tcp_good = protocol == PROTOCOL_TCP;
		receive.udp_good = protocol == PROTOCOL_UDP;
	}
	*ret_receive = receive;
	return 0;
}

bool netvsp_rx_wanted(const uint8_t *frame, uint32_t frame_bytes, uint32_t filter,
		      const uint8_t mac[6])
{
	static const uint8_t broadcast[6] = { 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF };

	if (frame_bytes < NETVSP_ETHERNET_BYTES)
		return false;
	if ((filter & RNDIS_FILTER_PROMISCUOUS) != 0)
		return true;
	if (memcmp(frame, broadcast, 6) == 0)
		return (filter & RNDIS_FILTER_BROADCAST) != 0;
	if ((frame[0] & 1) != 0) /* of the guest's list nothing is kept: all pass, or none */
		return (filter & (RNDIS_FILTER_MULTICAST | RNDIS_FILTER_ALL_MULTICAST)) != 0;
	return (filter & RNDIS_FILTER_DIRECTED) != 0 && memcmp(frame, mac, 6) == 0;
}

void netvsp_rarp(uint8_t to[NETVSP_RARP_BYTES], const uint8_t mac[6])
{
	memset(to, 0, NETVSP_RARP_BYTES);
	memset(to, 0xFF, 6);
	memcpy(to + 6, mac, 6);
	base_put_be16(to + 12, TYPE_RARP);
	base_put_be16(to + 14, 1); /* Ethernet */
	base_put_be16(to + 16, TYPE_IP4);
	to[18] = 6;
	to[19] = 4;
	base_put_be16(to + 20, 3); /* who am I */
	memcpy(to + 22, mac, 6);
	memcpy(to + 32, mac, 6);
}
