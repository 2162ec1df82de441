/* SPDX-License-Identifier: Apache-2.0 */
/*
 * RNDIS messages as bytes: the envelope of frames and of control requests.  Pure.
 *
 * Everything here works on private copies of the guest's bytes, never on guest memory.
 *
 * Layout: docs/hypervisor/netvsp/netvsp.md section 3 (MS-RNDIS 2.2), little-endian.
 */
#ifndef HYPERVISOR_NETVSP_RNDIS_MESSAGE_H
#define HYPERVISOR_NETVSP_RNDIS_MESSAGE_H

#include <stdbool.h>
#include <stdint.h>

#include "base/bytes.h"
#include "base/error.h"

#define RNDIS_HEADER_BYTES        8u
#define RNDIS_PACKET_HEAD_BYTES   44u   /* header and body of a packet message */
#define RNDIS_PPI_BYTES_MAX       256u  /* Linux sends up to 64; Windows has about ten kinds */
#define RNDIS_CONTROL_BYTES_MAX   4096u /* RSS parameters are about 1.2 KiB */
#define RNDIS_RECEIVE_HEAD_BYTES  60u   /* a packet head with our checksum information */
#define RNDIS_PACKETS_PER_MESSAGE 8u
#define RNDIS_ALIGN_SHIFT         3u
#define RNDIS_TRANSFER_BYTES_MAX  0x17000u

enum rndis_type {
	RNDIS_INVALID = 0,
	RNDIS_PACKET = 1,
	RNDIS_INIT = 2,
	RNDIS_HALT = 3,
	RNDIS_QUERY = 4,
	RNDIS_SET = 5,
	RNDIS_RESET = 6,
	RNDIS_INDICATE = 7,
	RNDIS_KEEPALIVE = 8,
};
#define RNDIS_COMPLETE_BIT 0x80000000u /* in the type of an answer */

#define RNDIS_STATUS_SUCCESS          0x00000000u
#define RNDIS_STATUS_FAILURE          0xC0000001u
#define RNDIS_STATUS_INVALID_DATA     0xC0010015u
#define RNDIS_STATUS_INVALID_LENGTH   0xC0010014u
#define RNDIS_STATUS_NOT_SUPPORTED    0xC00000BBu
#define RNDIS_STATUS_NETWORK_CHANGE   0x40010018u
#define RNDIS_STATUS_MEDIA_CONNECT    0x4001000Bu
#define RNDIS_STATUS_MEDIA_DISCONNECT 0x4001000Cu

/* Where frame and per-packet information lie, in bytes from the start of the message. */
struct rndis_packet {
	uint32_t message_bytes;
	uint32_t frame_offset, frame_bytes;
	uint32_t ppi_offset, ppi_bytes; /* 0, 0: none */
};

/**
 * rndis_packet_decode - the head of a packet message.
 * @left_bytes: what is there of the guest's data from the message's start on.
 * -EBADMSG: another type, a length or an offset that does not fit, more than RNDIS_PPI_BYTES_MAX
 * of per-packet information, out-of-band data.  Everything then lies within message_bytes.
 */
BASE_MUST_CHECK int rndis_packet_decode(const uint8_t head[RNDIS_PACKET_HEAD_BYTES],
					uint32_t left_bytes, struct rndis_packet *ret_packet,
					struct base_error *err);

/* What the guest wants done with a frame. */
struct rndis_wishes {
	bool checksum; /* the members behind it are valid */
	bool checksum_ipv4, checksum_ipv6;
	bool checksum_tcp, checksum_udp, checksum_ip_header;
	bool segment; /* large send, version 2 */
	bool segment_ipv6;
	uint16_t transport_offset; /* of TCP or UDP in the frame; 0: not said */
	uint32_t segment_bytes;    /* payload of one segment */
	bool vlan;
	uint16_t vlan_tci;
};
/* The chain of per-packet information; unknown kinds are passed over.  -EBADMSG. */
BASE_MUST_CHECK int rndis_wishes_decode(const uint8_t *bytes, uint32_t size_bytes,
					struct rndis_wishes *ret_wishes, struct base_error *err);

/* A control request; @info points into the message. */
struct rndis_control {
	enum rndis_type type;
	uint32_t request_id;
	uint32_t oid; /* QUERY, SET */
	const uint8_t *info;
	uint32_t info_bytes;
	uint32_t major, transfer_bytes_max; /* INIT */
};
/* -EBADMSG malformed; -ENOTSUP a type that is no request (ret_control->type is set). */
BASE_MUST_CHECK int rndis_control_decode(const uint8_t *bytes, uint32_t size_bytes,
					 struct rndis_control *ret_control, struct base_error *err);

/* Answers and indications, appended. */
void rndis_init_complete(struct base_writer *out, uint32_t request_id, uint32_t status);
void rndis_query_complete(struct base_writer *out, uint32_t request_id, uint32_t status,
			  const uint8_t *info, uint32_t info_bytes);
void rndis_set_complete(struct base_writer *out, uint32_t request_id, uint32_t status);
void rndis_reset_complete(struct base_writer *out, uint32_t status);
void rndis_keepalive_complete(struct base_writer *out, uint32_t request_id, uint32_t status);
void rndis_indicate(struct base_writer *out, uint32_t status);

/* What we know of a received frame's checksums. */
struct rndis_receive {
	bool tcp_good, udp_good;
};
/* The head of a received frame of @frame_bytes, which follows it directly. */
void rndis_receive_head(uint8_t to[RNDIS_RECEIVE_HEAD_BYTES], uint32_t frame_bytes,
			const struct rndis_receive *receive);

#endif
