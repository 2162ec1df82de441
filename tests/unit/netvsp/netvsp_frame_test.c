/* SPDX-License-Identifier: Apache-2.0 */
#include "hypervisor/netvsp/netvsp_frame.h"

#include <criterion/criterion.h>
#include <errno.h>
#include <string.h>

#include "hypervisor/netvsp/rndis_oid.h"

static const struct netvsp_tx_rules rules = { .mac = { 2, 0, 0, 0, 0, 1 }, .mtu = 1500 };

/* A TCP packet over IPv4 or IPv6; its head is all there is of it here. */
static struct netvsp_tx_frame tcp_make(bool ip6, uint32_t payload_bytes)
{
	struct netvsp_tx_frame frame = { .head_bytes = 0 };
	uint8_t *head = frame.bytes + NETVSP_VLAN_BYTES;
	const uint32_t ip_bytes = ip6 ? 40 : 20;

	memset(head, 0xFF, 6);
	memcpy(head + 6, rules.mac, 6);
	head[12] = ip6 ? 0x86 : 0x08;
	head[13] = ip6 ? 0xDD : 0x00;
	head[14] = ip6 ? 0x60 : 0x45;
	if (ip6)
		head[20] = 6;
	else
		head[23] = 6;
	head[14 + ip_bytes + 12] = 0x50; /* 20 bytes of header */
	frame.frame_bytes = 14 + ip_bytes + 20 + payload_bytes;
	frame.head_bytes = frame.frame_bytes;
	if (frame.head_bytes > NETVSP_HEAD_BYTES_MAX)
		frame.head_bytes = NETVSP_HEAD_BYTES_MAX;
	return frame;
}

static uint32_t be16(const uint8_t *at)
{
	return (uint32_t)at[0] << 8 | at[1];
}

Test(netvsp_frame, only_the_guests_own_address_is_a_source)
{
	struct netvsp_tx_rules free_rules = rules;
	struct netvsp_tx_frame frame = tcp_make(false, 10);

	cr_assert_eq(netvsp_tx_plan(&frame, &rules, NULL), 0);
	cr_assert_eq(frame.head, frame.bytes + NETVSP_VLAN_BYTES);
	cr_assert_eq(frame.head_send_bytes, frame.frame_bytes);
	frame.bytes[NETVSP_VLAN_BYTES + 11] = 9;
	cr_assert_eq(netvsp_tx_plan(&frame, &rules, NULL), -EPERM);
	free_rules.mac_spoofing = true;
	cr_assert_eq(netvsp_tx_plan(&frame, &free_rules, NULL), 0);
	frame.bytes[NETVSP_VLAN_BYTES + 6] = 3; /* a group is nobody's */
	cr_assert_eq(netvsp_tx_plan(&frame, &free_rules, NULL), -EPERM);
}

Test(netvsp_frame, too_short_and_too_long)
{
	struct netvsp_tx_frame frame = tcp_make(false, 10);

	frame.head_bytes = 13;
	frame.frame_bytes = 13;
	cr_assert_eq(netvsp_tx_plan(&frame, &rules, NULL), -EBADMSG);
	frame = tcp_make(false, 1500 + 4 - 40);
	cr_assert_eq(netvsp_tx_plan(&frame, &rules, NULL), 0);
	frame = tcp_make(false, 1500 + 5 - 40);
	cr_assert_eq(netvsp_tx_plan(&frame, &rules, NULL), -EMSGSIZE);
}

Test(netvsp_frame, a_checksum_is_left_to_the_host)
{
	struct netvsp_tx_frame frame = tcp_make(false, 10);

	frame.wishes = (struct rndis_wishes){ .checksum = true,
					      .checksum_ipv4 = true,
					      .checksum_tcp = true,
					      .transport_offset = 34 };
	cr_assert_eq(netvsp_tx_plan(&frame, &rules, NULL), 0);
	cr_assert_eq(frame.vnet[0], 1);
	cr_assert_eq(frame.vnet[1], 0);
	cr_assert_eq(base_get_le16(frame.vnet + 6), 34);
	cr_assert_eq(base_get_le16(frame.vnet + 8), 16);
	frame.wishes.transport_offset = 0; /* found in the headers */
	cr_assert_eq(netvsp_tx_plan(&frame, &rules, NULL), 0);
	cr_assert_eq(base_get_le16(frame.vnet + 6), 34);
	frame.wishes.checksum_tcp = false;
	frame.wishes.checksum_udp = true;
	cr_assert_eq(netvsp_tx_plan(&frame, &rules, NULL), 0);
	cr_assert_eq(base_get_le16(frame.vnet + 8), 6);
	frame.wishes.checksum_ip_header = true;
	cr_assert_eq(netvsp_tx_plan(&frame, &rules, NULL), 0);
	cr_assert_neq(be16(frame.head + 24), 0);
}

Test(netvsp_frame, a_checksum_that_lies_outside)
{
	struct netvsp_tx_frame frame = tcp_make(true, 0);

	frame.wishes = (struct rndis_wishes){ .checksum = true,
					      .checksum_ipv6 = true,
					      .checksum_tcp = true,
					      .transport_offset = 54 };
	cr_assert_eq(netvsp_tx_plan(&frame, &rules, NULL), 0);
	frame.wishes.transport_offset = 55; /* 19 bytes are no TCP header */
	cr_assert_eq(netvsp_tx_plan(&frame, &rules, NULL), -EBADMSG);
	frame.wishes.transport_offset = 1023;
	cr_assert_eq(netvsp_tx_plan(&frame, &rules, NULL), -EBADMSG);
	frame.wishes.transport_offset = 20; /* within the IP header */
	cr_assert_eq(netvsp_tx_plan(&frame, &rules, NULL), -EBADMSG);
	frame.bytes[NETVSP_VLAN_BYTES + 12] = 0x08;
	frame.bytes[NETVSP_VLAN_BYTES + 13] = 0x06; /* ARP has none */
	cr_assert_eq(netvsp_tx_plan(&frame, &rules, NULL), -EBADMSG);
}

Test(netvsp_frame, a_large_send_gets_lengths_and_sums)
{
	for (int ip6 = 0; ip6 < 2; ip6++) {
		struct netvsp_tx_frame frame = tcp_make(ip6 != 0, 20000);
		const uint32_t tcp_at = ip6 != 0 ? 54 : 34;
		const uint16_t mss = ip6 != 0 ? 1428 : 1448;
		const uint8_t *sent = frame.bytes + NETVSP_VLAN_BYTES;

		frame.bytes[NETVSP_VLAN_BYTES + tcp_at + 16] = 0xFF; /* sum without a length */
		frame.bytes[NETVSP_VLAN_BYTES + tcp_at + 17] = 0xF0;
		frame.wishes = (struct rndis_wishes){ .segment = true,
						      .segment_ipv6 = ip6 != 0,
						      .segment_bytes = mss,
						      .transport_offset = (uint16_t)tcp_at };
		cr_assert_eq(netvsp_tx_plan(&frame, &rules, NULL), 0);
		cr_assert_eq(frame.vnet[0], 1);
		cr_assert_eq(frame.vnet[1], ip6 != 0 ? 4 : 1);
		cr_assert_eq(base_get_le16(frame.vnet + 2), tcp_at + 20);
		cr_assert_eq(base_get_le16(frame.vnet + 4), mss);
		cr_assert_eq(be16(sent + (ip6 != 0 ? 18 : 16)), ip6 != 0 ? 20020 : 20040);
		cr_assert_eq(be16(sent + tcp_at + 16), 0xFFF0 + 20020 - 0xFFFF);
		frame.wishes.segment_bytes = 20000; /* one segment, longer than the network takes */
		cr_assert_eq(netvsp_tx_plan(&frame, &rules, NULL), -EMSGSIZE);
		frame.wishes.segment_bytes = 1504 - tcp_at + 14 - 20;
		cr_assert_eq(netvsp_tx_plan(&frame, &rules, NULL), 0);
		frame.wishes.segment_bytes++; /* so is each of these */
		cr_assert_eq(netvsp_tx_plan(&frame, &rules, NULL), -EMSGSIZE);
		frame = tcp_make(ip6 != 0, 1400);
		frame.wishes = (struct rndis_wishes){ .segment = true,
						      .segment_ipv6 = ip6 != 0,
						      .segment_bytes = mss,
						      .transport_offset = (uint16_t)tcp_at };
		cr_assert_eq(netvsp_tx_plan(&frame, &rules, NULL), 0);
		cr_assert_eq(frame.vnet[1], 0); /* one segment is none */
	}
}

Test(netvsp_frame, large_sends_that_lie)
{
	const struct rndis_wishes good = { .segment = true,
					   .segment_bytes = 1448,
					   .transport_offset = 34 };
	struct netvsp_tx_frame frame = tcp_make(false, 20000);

	frame.wishes = good;
	cr_assert_eq(netvsp_tx_plan(&frame, &rules, NULL), 0);
	frame.wishes.segment_ipv6 = true;
	cr_assert_eq(netvsp_tx_plan(&frame, &rules, NULL), -EBADMSG);
	frame.wishes = good;
	frame.wishes.segment_bytes = 0;
	cr_assert_eq(netvsp_tx_plan(&frame, &rules, NULL), -EBADMSG);
	frame.wishes.segment_bytes = 7;
	cr_assert_eq(netvsp_tx_plan(&frame, &rules, NULL), -EBADMSG);
	frame.wishes.segment_bytes = 0x10000;
	cr_assert_eq(netvsp_tx_plan(&frame, &rules, NULL), -EBADMSG);
	frame.wishes = good;
	frame.wishes.transport_offset = 1023;
	cr_assert_eq(netvsp_tx_plan(&frame, &rules, NULL), -EBADMSG);
	frame.wishes = good;
	frame.bytes[NETVSP_VLAN_BYTES + 34 + 12] = 0x40; /* 16 bytes of TCP header */
	cr_assert_eq(netvsp_tx_plan(&frame, &rules, NULL), -EBADMSG);
	frame = tcp_make(false, 20000);
	frame.wishes = good;
	frame.bytes[NETVSP_VLAN_BYTES + 23] = 17; /* UDP */
	cr_assert_eq(netvsp_tx_plan(&frame, &rules, NULL), -EBADMSG);
	frame = tcp_make(false, 20000);
	frame.wishes = good;
	frame.frame_bytes = 65535 + 15;
	cr_assert_eq(netvsp_tx_plan(&frame, &rules, NULL), -EBADMSG);
	frame = tcp_make(false, 0);
	frame.wishes = good;
	frame.head_bytes = 53;
	frame.frame_bytes = 53;
	cr_assert_eq(netvsp_tx_plan(&frame, &rules, NULL), -EBADMSG);
}

Test(netvsp_frame, a_tag_goes_behind_the_addresses)
{
	struct netvsp_tx_frame frame = tcp_make(false, 10);

	frame.wishes = (struct rndis_wishes){ .checksum = true,
					      .checksum_ipv4 = true,
					      .checksum_tcp = true,
					      .transport_offset = 34,
					      .vlan = true,
					      .vlan_tci = 0xA064 };
	cr_assert_eq(netvsp_tx_plan(&frame, &rules, NULL), 0);
	cr_assert_eq(frame.head_send_bytes, frame.frame_bytes + 4);
	cr_assert_eq(memcmp(frame.head + 6, rules.mac, 6), 0);
	cr_assert_eq(memcmp(frame.head + 12, "\x81\x00\xA0\x64\x08\x00", 6), 0);
	cr_assert_eq(base_get_le16(frame.vnet + 6), 38);
}

static void udp_make(uint8_t *frame)
{
	memset(frame, 0, 50);
	frame[12] = 0x08;
	frame[14] = 0x45;
	frame[23] = 17;
	frame[34 + 5] = 16;
	memcpy(frame + 42, "12345678", 8);
}

Test(netvsp_frame, a_checksum_left_to_us_is_written)
{
	uint8_t vnet[NETVSP_VNET_BYTES] = { 1 };
	struct rndis_receive receive;
	uint8_t frame[50];
	uint64_t sum = 0;

	udp_make(frame);
	frame[40] = 0x12; /* of the pseudo header */
	frame[41] = 0x34;
	base_put_le16(vnet + 6, 34);
	base_put_le16(vnet + 8, 6);
	cr_assert_eq(netvsp_rx_plan(vnet, frame, sizeof(frame), &receive), 0);
	cr_assert(receive.udp_good && !receive.tcp_good);
	for (size_t i = 34; i < 50; i += 2)
		sum += be16(frame + i);
	sum += 0x1234; /* with the pseudo header all bits are set */
	sum = (sum & 0xFFFF) + (sum >> 16);
	sum = (sum & 0xFFFF) + (sum >> 16);
	cr_assert_eq(sum, 0xFFFF);
	base_put_le16(vnet + 8, 15);
	cr_assert_eq(netvsp_rx_plan(vnet, frame, sizeof(frame), &receive), -EBADMSG);
	base_put_le16(vnet + 6, 50);
	base_put_le16(vnet + 8, 0);
	cr_assert_eq(netvsp_rx_plan(vnet, frame, sizeof(frame), &receive), -EBADMSG);
}

Test(netvsp_frame, what_the_host_says_of_checksums)
{
	uint8_t vnet[NETVSP_VNET_BYTES] = { 2 };
	struct rndis_receive receive;
	uint8_t frame[50];

	udp_make(frame);
	cr_assert_eq(netvsp_rx_plan(vnet, frame, sizeof(frame), &receive), 0);
	cr_assert(receive.udp_good && !receive.tcp_good);
	vnet[0] = 0;
	cr_assert_eq(netvsp_rx_plan(vnet, frame, sizeof(frame), &receive), 0);
	cr_assert_not(receive.udp_good || receive.tcp_good);
	vnet[1] = 1; /* segments: never asked for */
	cr_assert_eq(netvsp_rx_plan(vnet, frame, sizeof(frame), &receive), -EBADMSG);
	vnet[1] = 0;
	cr_assert_eq(netvsp_rx_plan(vnet, frame, 13, &receive), -EBADMSG);
}

Test(netvsp_frame, the_packet_filter)
{
	const uint8_t *mac = rules.mac;
	uint8_t frame[14] = { 2, 0, 0, 0, 0, 1 };

	cr_assert(netvsp_rx_wanted(frame, 14, RNDIS_FILTER_DIRECTED, mac));
	cr_assert_not(netvsp_rx_wanted(frame, 14, RNDIS_FILTER_BROADCAST, mac));
	cr_assert_not(netvsp_rx_wanted(frame, 14, 0, mac));
	cr_assert_not(netvsp_rx_wanted(frame, 13, RNDIS_FILTER_PROMISCUOUS, mac));
	frame[5] = 2;
	cr_assert_not(netvsp_rx_wanted(frame, 14, RNDIS_FILTER_DIRECTED, mac));
	cr_assert(netvsp_rx_wanted(frame, 14, RNDIS_FILTER_PROMISCUOUS, mac));
	frame[0] = 0x33;
	cr_assert_not(netvsp_rx_wanted(frame, 14, RNDIS_FILTER_DIRECTED, mac));
	cr_assert(netvsp_rx_wanted(frame, 14, RNDIS_FILTER_ALL_MULTICAST, mac));
	memset(frame, 0xFF, 6);
	cr_assert(netvsp_rx_wanted(frame, 14, RNDIS_FILTER_BROADCAST, mac));
	cr_assert_not(netvsp_rx_wanted(frame, 14, RNDIS_FILTER_ALL_MULTICAST, mac));
}

Test(netvsp_frame, the_announcement)
{
	uint8_t frame[NETVSP_RARP_BYTES];

	netvsp_rarp(frame, rules.mac);
	cr_assert_eq(memcmp(frame, "\xFF\xFF\xFF\xFF\xFF\xFF", 6), 0);
	cr_assert_eq(memcmp(frame + 6, rules.mac, 6), 0);
	cr_assert_eq(memcmp(frame + 12, "\x80\x35\0\1\x08\0\6\4\0\3", 10), 0);
	cr_assert_eq(memcmp(frame + 22, rules.mac, 6), 0);
	cr_assert_eq(memcmp(frame + 32, rules.mac, 6), 0);
}
