/* SPDX-License-Identifier: Apache-2.0 */
#include "hypervisor/netvsp/rndis_message.h"

#include <criterion/criterion.h>
#include <errno.h>
#include <string.h>

static void head_make(uint8_t head[RNDIS_PACKET_HEAD_BYTES], uint32_t message, uint32_t offset,
		      uint32_t bytes)
{
	memset(head, 0, RNDIS_PACKET_HEAD_BYTES);
	base_put_le32(head, RNDIS_PACKET);
	base_put_le32(head + 4, message);
	base_put_le32(head + 8, offset);
	base_put_le32(head + 12, bytes);
}

Test(rndis_message, a_packet_is_within_its_message)
{
	uint8_t head[RNDIS_PACKET_HEAD_BYTES];
	struct rndis_packet packet;

	head_make(head, 44 + 16 + 60, 36 + 16, 60);
	base_put_le32(head + 28, 36);
	base_put_le32(head + 32, 16);
	cr_assert_eq(rndis_packet_decode(head, 200, &packet, NULL), 0);
	cr_assert_eq(packet.message_bytes, 120);
	cr_assert_eq(packet.frame_offset, 60);
	cr_assert_eq(packet.frame_bytes, 60);
	cr_assert_eq(packet.ppi_offset, 44);
	cr_assert_eq(packet.ppi_bytes, 16);
	cr_assert_eq(rndis_packet_decode(head, 119, &packet, NULL), -EBADMSG);
}

Test(rndis_message, lengths_and_offsets_that_lie)
{
	static const uint32_t wrong[][3] = {
		{ 43, 36, 0 },           { 44, 36, 1 },           { 0, 36, 1 },
		{ 0xFFFFFFFF, 36, 1 },   { 104, 35, 60 },         { 104, 36, 61 },
		{ 104, 36, 0xFFFFFFFF }, { 104, 0xFFFFFFFF, 60 }, { 104, 96, 1 },
		{ 104, 36, 0 },          { 104, 0, 60 },
	};
	uint8_t head[RNDIS_PACKET_HEAD_BYTES];
	struct rndis_packet packet;

	for (size_t i = 0; i < sizeof(wrong) / sizeof(wrong[0]); i++) {
		head_make(head, wrong[i][0], wrong[i][1], wrong[i][2]);
		cr_assert_eq(rndis_packet_decode(head, 4096, &packet, NULL), -EBADMSG, "case %zu",
			     i);
	}
	head_make(head, 104, 36, 60);
	base_put_le32(head + 28, 36);
	base_put_le32(head + 32, 61);
	cr_assert_eq(rndis_packet_decode(head, 4096, &packet, NULL), -EBADMSG);
	base_put_le32(head + 32, 60);
	base_put_le32(head + 28, 0xFFFFFFF0);
	cr_assert_eq(rndis_packet_decode(head, 4096, &packet, NULL), -EBADMSG);
	head_make(head, 104, 36, 60);
	base_put_le32(head + 20, 8); /* out-of-band data */
	cr_assert_eq(rndis_packet_decode(head, 4096, &packet, NULL), -EBADMSG);
	head_make(head, 104, 36, 60);
	base_put_le32(head, RNDIS_SET);
	cr_assert_eq(rndis_packet_decode(head, 4096, &packet, NULL), -EBADMSG);
}

static uint32_t ppi_put(uint8_t *to, uint32_t kind, uint32_t value)
{
	base_put_le32(to, 16);
	base_put_le32(to + 4, kind);
	base_put_le32(to + 8, 12);
	base_put_le32(to + 12, value);
	return 16;
}

Test(rndis_message, wishes)
{
	uint8_t bytes[64];
	struct rndis_wishes wishes;
	uint32_t at = ppi_put(bytes, 8, 0x12345678); /* a hash: not for us */

	at += ppi_put(bytes + at, 0, 0x01 | 0x04 | 34u << 16);
	at += ppi_put(bytes + at, 6, 5u | 1u << 3 | 100u << 4);
	at += ppi_put(bytes + at, 2, 1448u | 54u << 20 | 3u << 30);
	cr_assert_eq(rndis_wishes_decode(bytes, at, &wishes, NULL), 0);
	cr_assert(wishes.checksum && wishes.checksum_ipv4 && wishes.checksum_tcp);
	cr_assert_not(wishes.checksum_udp || wishes.checksum_ipv6);
	cr_assert(wishes.vlan);
	cr_assert_eq(wishes.vlan_tci, 5 << 13 | 1 << 12 | 100);
	cr_assert(wishes.segment && wishes.segment_ipv6);
	cr_assert_eq(wishes.segment_bytes, 1448);
	cr_assert_eq(wishes.transport_offset, 54);
	cr_assert_eq(rndis_wishes_decode(bytes, 0, &wishes, NULL), 0);
	cr_assert_not(wishes.checksum || wishes.segment || wishes.vlan);
}

Test(rndis_message, chains_of_information_that_lie)
{
	uint8_t bytes[32];
	struct rndis_wishes wishes;

	(void)ppi_put(bytes, 0, 0);
	cr_assert_eq(rndis_wishes_decode(bytes, 15, &wishes, NULL), -EBADMSG);
	cr_assert_eq(rndis_wishes_decode(bytes, 11, &wishes, NULL), -EBADMSG);
	base_put_le32(bytes, 0); /* would never end */
	cr_assert_eq(rndis_wishes_decode(bytes, 16, &wishes, NULL), -EBADMSG);
	base_put_le32(bytes, 0xFFFFFFF0);
	cr_assert_eq(rndis_wishes_decode(bytes, 16, &wishes, NULL), -EBADMSG);
	base_put_le32(bytes, 12); /* no room for the value */
	cr_assert_eq(rndis_wishes_decode(bytes, 12, &wishes, NULL), -EBADMSG);
	base_put_le32(bytes, 16);
	base_put_le32(bytes + 8, 0xFFFFFFFF);
	cr_assert_eq(rndis_wishes_decode(bytes, 16, &wishes, NULL), -EBADMSG);
	base_put_le32(bytes + 8, 4); /* within its own header */
	cr_assert_eq(rndis_wishes_decode(bytes, 16, &wishes, NULL), -EBADMSG);
	(void)ppi_put(bytes, 2, 1448); /* version 1 of large sends */
	cr_assert_eq(rndis_wishes_decode(bytes, 16, &wishes, NULL), -EBADMSG);
}

static uint32_t request_make(uint8_t *to, uint32_t type, uint32_t oid, uint32_t bytes,
			     uint32_t offset)
{
	base_put_le32(to, type);
	base_put_le32(to + 4, 28 + bytes);
	base_put_le32(to + 8, 77);
	base_put_le32(to + 12, oid);
	base_put_le32(to + 16, bytes);
	base_put_le32(to + 20, offset);
	base_put_le32(to + 24, 0);
	return 28 + bytes;
}

Test(rndis_message, control_requests)
{
	uint8_t bytes[64] = { 0 };
	struct rndis_control control;
	uint32_t size = request_make(bytes, RNDIS_SET, 0x0001010E, 4, 20);

	base_put_le32(bytes + 28, 13);
	cr_assert_eq(rndis_control_decode(bytes, size, &control, NULL), 0);
	cr_assert_eq(control.type, RNDIS_SET);
	cr_assert_eq(control.request_id, 77);
	cr_assert_eq(control.oid, 0x0001010E);
	cr_assert_eq(control.info_bytes, 4);
	cr_assert_eq(base_get_le32(control.info), 13);
	cr_assert_eq(rndis_control_decode(bytes, size - 1, &control, NULL), -EBADMSG);
	(void)request_make(bytes, RNDIS_SET, 1, 4, 21);
	cr_assert_eq(rndis_control_decode(bytes, size, &control, NULL), -EBADMSG);
	(void)request_make(bytes, RNDIS_QUERY, 1, 4, 19);
	cr_assert_eq(rndis_control_decode(bytes, size, &control, NULL), -EBADMSG);
	(void)request_make(bytes, RNDIS_QUERY, 1, 0, 0xFFFFFFFF); /* no data: no offset */
	cr_assert_eq(rndis_control_decode(bytes, size, &control, NULL), 0);
	base_put_le32(bytes + 4, 27);
	cr_assert_eq(rndis_control_decode(bytes, size, &control, NULL), -EBADMSG);
	(void)request_make(bytes, 9, 0, 0, 20);
	cr_assert_eq(rndis_control_decode(bytes, size, &control, NULL), -ENOTSUP);
	(void)request_make(bytes, RNDIS_QUERY | RNDIS_COMPLETE_BIT, 0, 0, 20);
	cr_assert_eq(rndis_control_decode(bytes, size, &control, NULL), -ENOTSUP);
}

Test(rndis_message, a_received_frame)
{
	const struct rndis_receive receive = { .udp_good = true };
	uint8_t head[RNDIS_RECEIVE_HEAD_BYTES];
	struct rndis_packet packet;

	rndis_receive_head(head, 98, &receive);
	cr_assert_eq(rndis_packet_decode(head, 60 + 98, &packet, NULL), 0);
	cr_assert_eq(packet.frame_offset, 60);
	cr_assert_eq(packet.frame_bytes, 98);
	cr_assert_eq(packet.ppi_offset, 44);
	cr_assert_eq(packet.ppi_bytes, 16);
	cr_assert_eq(base_get_le32(head + 56), 0x10);
}
