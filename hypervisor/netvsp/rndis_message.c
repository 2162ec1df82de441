/* SPDX-License-Identifier: Apache-2.0 */
/* RNDIS messages: rndis_message.h. */
#include "hypervisor/netvsp/rndis_message.h"

#include <errno.h>
#include <inttypes.h>

#define PACKET_BODY_BYTES 36u /* offsets within a packet message count from the body's start */
#define PPI_HEAD_BYTES    12u

enum ppi_kind {
	PPI_CHECKSUM = 0,
	PPI_LARGE_SEND = 2,
	PPI_VLAN = 6,
};
#define PPI_INTERNAL 0x80000000u

/* A part of the message: offset counted from the body, empty parts anywhere. */
static bool part_fits(uint32_t offset, uint32_t part_bytes, uint32_t body_bytes)
{
	return offset >= PACKET_BODY_BYTES && offset <= body_bytes &&
	       part_bytes <= body_bytes - offset;
}

int rndis_packet_decode(const uint8_t head[RNDIS_PACKET_HEAD_BYTES], uint32_t left_bytes,
			struct rndis_packet *ret_packet, struct base_error *err)
{
	const uint32_t message_bytes = base_get_le32(head + 4);
	const uint8_t *body = head + RNDIS_HEADER_BYTES;
	const uint32_t data_offset = base_get_le32(body);
	const uint32_t data_bytes = base_get_le32(body + 4);
	const uint32_t ppi_offset = base_get_le32(body + 20);
	const uint32_t ppi_bytes = base_get_le32(body + 24);
	struct rndis_packet packet = { .message_bytes = message_bytes };
	uint32_t body_bytes = 0;

	if (base_get_le32(head) != RNDIS_PACKET)
		return base_fail(err, -EBADMSG, "RNDIS message: type 0x%" PRIx32 ", expected 1",
				 base_get_le32(head));
	if (message_bytes < RNDIS_PACKET_HEAD_BYTES || message_bytes > left_bytes)
		return base_fail(err, -EBADMSG, "RNDIS packet: %" PRIu32 " bytes of %" PRIu32,
				 message_bytes, left_bytes);
	body_bytes = message_bytes - RNDIS_HEADER_BYTES;
	if (base_get_le32(body + 12) != 0 || base_get_le32(body + 16) != 0)
		return base_fail(err, -EBADMSG, "RNDIS packet: out-of-band data");
	if (data_bytes == 0 || !part_fits(data_offset, data_bytes, body_bytes))
		return base_fail(err, -EBADMSG,
				 "RNDIS packet: data at %" PRIu32 "+%" PRIu32 " of %" PRIu32,
				 data_offset, data_bytes, body_bytes);
	if (ppi_bytes != 0) {
		if (ppi_bytes > RNDIS_PPI_BYTES_MAX ||
		    !part_fits(ppi_offset, ppi_bytes, body_bytes))
			return base_fail(err, -EBADMSG,
					 "RNDIS packet: information at %" PRIu32 "+%" PRIu32
					 " of %" PRIu32,
					 ppi_offset, ppi_bytes, body_bytes);
		packet.ppi_offset = RNDIS_HEADER_BYTES + ppi_offset;
		packet.ppi_bytes = ppi_bytes;
	}
	packet.frame_offset = RNDIS_HEADER_BYTES + data_offset;
	packet.frame_bytes = data_bytes;
	*ret_packet = packet;
	return 0;
}

static void wish_checksum(uint32_t value, struct rndis_wishes *wishes)
{
	wishes->checksum = true;
	wishes->checksum_ipv4 = (value & 0x01) != 0;
	wishes->checksum_ipv6 = (value & 0x02) != 0;
	wishes->checksum_tcp = (value & 0x04) != 0;
	wishes->checksum_udp = (value & 0x08) != 0;
	wishes->checksum_ip_header = (value & 0x10) != 0;
	wishes->transport_offset = (value >> 16) & 0x3FF;
}

static int wish_segments(uint32_t value, struct rndis_wishes *wishes, struct base_error *err)
{
	if ((value & 0x40000000u) == 0)
		return base_fail(err, -EBADMSG, "large send: version 1 was not offered");
	wishes->segment = true;
	wishes->segment_ipv6 = (value & 0x80000000u) != 0;
	wishes->segment_bytes = value & 0xFFFFF;
	wishes->transport_offset = (value >> 20) & 0x3FF;
	return 0;
}

static void wish_vlan(uint32_t value, struct rndis_wishes *wishes)
{
	const uint32_t priority = value & 0x7;
	const uint32_t dei = (value >> 3) & 0x1;
	const uint32_t id = (value >> 4) & 0xFFF;

	wishes->vlan = true;
	wishes->vlan_tci = (uint16_t)(priority << 13 | dei << 12 | id);
}

int rndis_wishes_decode(const uint8_t *bytes, uint32_t size_bytes, struct rndis_wishes *ret_wishes,
			struct base_error *err)
{
	struct rndis_wishes wishes = { .checksum = false };
	uint32_t at = 0;

	while (at < size_bytes) {
		const uint32_t left = size_bytes - at;
		uint32_t element = 0;
		uint32_t kind = 0;
		uint32_t value_at = 0;
		uint32_t value = 0;
		int rc = 0;

		if (left < PPI_HEAD_BYTES)
			return base_fail(err, -EBADMSG,
					 "packet information: %" PRIu32 " bytes left", left);
		element = base_get_le32(bytes + at);
		kind = base_get_le32(bytes + at + 4);
		value_at = base_get_le32(bytes + at + 8);
		if (element < PPI_HEAD_BYTES || element > left || value_at > element)
			return base_fail(err, -EBADMSG,
					 "packet information: %" PRIu32 " bytes of %" PRIu32
					 ", value at %" PRIu32,
					 element, left, value_at);
		if (kind == PPI_CHECKSUM || kind == PPI_LARGE_SEND || kind == PPI_VLAN) {
			if (element - value_at < 4 || value_at < PPI_HEAD_BYTES)
				return base_fail(err, -EBADMSG,
						 "packet information %" PRIu32 ": no value", kind);
			value = base_get_le32(bytes + at + value_at);
			if (kind == PPI_CHECKSUM)
				wish_checksum(value, &wishes);
			else if (kind == PPI_VLAN)
				wish_vlan(value, &wishes);
			else
				rc = wish_segments(value, &wishes, err);
			if (rc < 0)
				return rc;
		}
		at += element;
	}
	*ret_wishes = wishes;
	return 0;
}

/* QUERY and SET: id, OID, length, offset (from the id on), handle. */
static int info_decode(const uint8_t *bytes, uint32_t message_bytes, struct rndis_control *control,
		       struct base_error *err)
{
	const uint32_t body_bytes = message_bytes - RNDIS_HEADER_BYTES;
	const uint8_t *body = bytes + RNDIS_HEADER_BYTES;
	uint32_t offset = 0;

	if (body_bytes < 20)
		return base_fail(err, -EBADMSG, "RNDIS request: %" PRIu32 " bytes", message_bytes);
	control->oid = base_get_le32(body + 4);
	control->info_bytes = base_get_le32(body + 8);
	offset = base_get_le32(body + 12);
	control->info = body;
	if (control->info_bytes == 0)
		return 0;
	if (offset < 20 || offset > body_bytes || control->info_bytes > body_bytes - offset)
		return base_fail(err, -EBADMSG,
				 "RNDIS request: data at %" PRIu32 "+%" PRIu32 " of %" PRIu32,
				 offset, control->info_bytes, body_bytes);
	control->info = body + offset;
	return 0;
}

int rndis_control_decode(const uint8_t *bytes, uint32_t size_bytes,
			 struct rndis_control *ret_control, struct base_error *err)
{
	struct rndis_control control = { .type = RNDIS_INVALID };
	uint32_t message_bytes = 0;
	uint32_t body_bytes = 0;
	int rc = 0;

	if (size_bytes < RNDIS_HEADER_BYTES)
		return base_fail(err, -EBADMSG, "RNDIS message: %" PRIu32 " bytes", size_bytes);
	message_bytes = base_get_le32(bytes + 4);
	if (message_bytes < RNDIS_HEADER_BYTES || message_bytes > size_bytes)
		return base_fail(err, -EBADMSG, "RNDIS message: %" PRIu32 " bytes of %" PRIu32,
				 message_bytes, size_bytes);
	body_bytes = message_bytes - RNDIS_HEADER_BYTES;
	control.type = (enum rndis_type)base_get_le32(bytes);
	if (body_bytes >= 4)
		control.request_id = base_get_le32(bytes + RNDIS_HEADER_BYTES);
	switch (base_get_le32(bytes)) {
	case RNDIS_INIT:
		if (body_bytes < 16)
			return base_fail(err, -EBADMSG, "RNDIS INIT: %" PRIu32 " bytes",
					 message_bytes);
		control.major = base_get_le32(bytes + RNDIS_HEADER_BYTES + 4);
		control.transfer_bytes_max = base_get_le32(bytes + RNDIS_HEADER_BYTES + 12);
		break;
	case RNDIS_QUERY:
	case RNDIS_SET:
		rc = info_decode(bytes, message_bytes, &control, err);
		break;
	case RNDIS_HALT:
	case RNDIS_RESET:
	case RNDIS_KEEPALIVE:
		if (body_bytes < 4)
			rc = base_fail(err, -EBADMSG, "RNDIS request: %" PRIu32 " bytes",
				       message_bytes);
		break;
	default:
		rc = base_fail(err, -ENOTSUP, "RNDIS message: type 0x%x is no request",
			       (unsigned int)control.type);
	}
	if (rc == 0 || rc == -ENOTSUP)
		*ret_control = control;
	return rc;
}

static void header(struct base_writer *out, uint32_t type, uint32_t message_bytes)
{
	base_write_le32(out, type);
	base_write_le32(out, message_bytes);
}

void rndis_init_complete(struct base_writer *out, uint32_t request_id, uint32_t status)
{
	header(out, RNDIS_INIT | RNDIS_COMPLETE_BIT, 52);
	base_write_le32(out, request_id);
	base_write_le32(out, status);
	base_write_le32(out, 1); /* RNDIS 1.0 */
	base_write_le32(out, 0);
	base_write_le32(out, 1); /* connectionless */
	base_write_le32(out, 0); /* 802.3 */
	base_write_le32(out, RNDIS_PACKETS_PER_MESSAGE);
	base_write_le32(out, RNDIS_TRANSFER_BYTES_MAX);
	base_write_le32(out, RNDIS_ALIGN_SHIFT);
	base_write_le32(out, 0);
	base_write_le32(out, 0);
}

void rndis_query_complete(struct base_writer *out, uint32_t request_id, uint32_t status,
			  const uint8_t *info, uint32_t info_bytes)
{
	header(out, RNDIS_QUERY | RNDIS_COMPLETE_BIT, 24 + info_bytes);
	base_write_le32(out, request_id);
	base_write_le32(out, status);
	base_write_le32(out, info_bytes);
	base_write_le32(out, 16); /* from the request id on; Linux refuses less, also for none */
	if (info_bytes > 0)
		base_write_bytes(out, info, info_bytes);
}

void rndis_set_complete(struct base_writer *out, uint32_t request_id, uint32_t status)
{
	header(out, RNDIS_SET | RNDIS_COMPLETE_BIT, 16);
	base_write_le32(out, request_id);
	base_write_le32(out, status);
}

void rndis_reset_complete(struct base_writer *out, uint32_t status)
{
	header(out, RNDIS_RESET | RNDIS_COMPLETE_BIT, 16);
	base_write_le32(out, status);
	base_write_le32(out, 1); /* the guest sets its filter again */
}

void rndis_keepalive_complete(struct base_writer *out, uint32_t request_id, uint32_t status)
{
	header(out, RNDIS_KEEPALIVE | RNDIS_COMPLETE_BIT, 16);
	base_write_le32(out, request_id);
	base_write_le32(out, status);
}

void rndis_indicate(struct base_writer *out, uint32_t status)
{
	header(out, RNDIS_INDICATE, 20);
	base_write_le32(out, status);
	base_write_le32(out, 0);
	base_write_le32(out, 0);
}

void rndis_receive_head(uint8_t to[RNDIS_RECEIVE_HEAD_BYTES], uint32_t frame_bytes,
			const struct rndis_receive *receive)
{
	struct base_writer out = base_writer_over(to, RNDIS_RECEIVE_HEAD_BYTES);
	const uint32_t ppi_bytes = RNDIS_RECEIVE_HEAD_BYTES - RNDIS_PACKET_HEAD_BYTES;

	header(&out, RNDIS_PACKET, RNDIS_RECEIVE_HEAD_BYTES + frame_bytes);
	base_write_le32(&out, RNDIS_RECEIVE_HEAD_BYTES - RNDIS_HEADER_BYTES);
	base_write_le32(&out, frame_bytes);
	base_write_zeros(&out, 12); /* no out-of-band data */
	base_write_le32(&out, PACKET_BODY_BYTES);
	base_write_le32(&out, ppi_bytes);
	base_write_zeros(&out, 8);
	base_write_le32(&out, ppi_bytes);
	base_write_le32(&out, PPI_CHECKSUM);
	base_write_le32(&out, PPI_HEAD_BYTES);
	base_write_le32(&out, (receive->tcp_good ? 0x08u : 0) | (receive->udp_good ? 0x10u : 0));
}
