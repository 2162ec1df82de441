/* SPDX-License-Identifier: Apache-2.0 */
/*
 * NVSP messages as bytes: what the guest's network driver sends, and our answers.  Pure.
 *
 * Layout: docs/hypervisor/netvsp/netvsp.md section 2, little-endian.
 */
#ifndef HYPERVISOR_NETVSP_NVSP_MESSAGE_H
#define HYPERVISOR_NETVSP_NVSP_MESSAGE_H

#include <stdbool.h>
#include <stdint.h>

#include "base/error.h"

#define NVSP_MESSAGE_BYTES       40u /* every message but the indirection table */
#define NVSP_TABLE_ENTRIES       16u
#define NVSP_TABLE_MESSAGE_BYTES (NVSP_MESSAGE_BYTES + 4 * NVSP_TABLE_ENTRIES)
#define NVSP_NO_SECTION          0xFFFFFFFFu
#define NVSP_RECEIVE_BUFFER_ID   0xCAFEu

enum nvsp_version {
	NVSP_VERSION_NONE = 0,
	NVSP_VERSION_1 = 0x00002,
	NVSP_VERSION_2 = 0x30002,
	NVSP_VERSION_4 = 0x40000,
	NVSP_VERSION_5 = 0x50000, /* from here on with several queues */
	NVSP_VERSION_6 = 0x60000,
	NVSP_VERSION_61 = 0x60001,
};

enum nvsp_type {
	NVSP_INVALID = 0,
	NVSP_INIT = 1,
	NVSP_INIT_COMPLETE = 2,
	NVSP_NDIS_VERSION = 100,
	NVSP_RECEIVE_BUFFER = 101,
	NVSP_RECEIVE_BUFFER_COMPLETE = 102,
	NVSP_REVOKE_RECEIVE_BUFFER = 103,
	NVSP_SEND_BUFFER = 104,
	NVSP_SEND_BUFFER_COMPLETE = 105,
	NVSP_REVOKE_SEND_BUFFER = 106,
	NVSP_RNDIS = 107,
	NVSP_RNDIS_COMPLETE = 108,
	NVSP_NDIS_CONFIG = 125,
	NVSP_SWITCH_DATA_PATH = 129,
	NVSP_SUBCHANNEL = 133,
	NVSP_INDIRECTION_TABLE = 134,
};

enum nvsp_status {
	NVSP_STATUS_NONE = 0,
	NVSP_STATUS_SUCCESS = 1,
	NVSP_STATUS_FAIL = 2,
	NVSP_STATUS_TOO_NEW = 3,
	NVSP_STATUS_TOO_OLD = 4,
	NVSP_STATUS_BAD_RNDIS = 5,
	NVSP_STATUS_BUSY = 6,
	NVSP_STATUS_UNSUPPORTED = 7,
};

/* One message of the guest; only the member of its type is set. */
struct nvsp_request {
	enum nvsp_type type;
	union {
		struct {
			uint32_t oldest, newest;
		} init;
		struct {
			uint32_t major, minor;
		} ndis;
		struct {
			uint32_t gpadl_id;
			uint16_t id;
		} buffer; /* RECEIVE_BUFFER, SEND_BUFFER; the revokes have the id only */
		struct {
			bool is_control;
			uint32_t section; /* NVSP_NO_SECTION: all is in the ranges */
			uint32_t section_bytes;
		} rndis;
		struct {
			uint32_t status;
		} complete;
		struct {
			uint32_t mtu; /* with the Ethernet header */
			uint64_t capabilities;
		} config;
		struct {
			uint32_t operation, count;
		} subchannel;
	};
};

/* -EBADMSG too short; -ENOTSUP a type the guest has no business with (ret_request->type is set). */
BASE_MUST_CHECK int nvsp_request_decode(const uint8_t *bytes, uint32_t size_bytes,
					struct nvsp_request *ret_request, struct base_error *err);

/* The newest version known to us within the guest's bounds; NVSP_VERSION_NONE when none is. */
enum nvsp_version nvsp_version_choose(uint32_t oldest, uint32_t newest);

void nvsp_init_complete(uint8_t to[NVSP_MESSAGE_BYTES], uint32_t version, enum nvsp_status status);
/* @section_count 0 with a status that is no success. */
void nvsp_receive_buffer_complete(uint8_t to[NVSP_MESSAGE_BYTES], enum nvsp_status status,
				  uint32_t section_bytes, uint32_t section_count);
void nvsp_send_buffer_complete(uint8_t to[NVSP_MESSAGE_BYTES], enum nvsp_status status,
			       uint32_t section_bytes);
void nvsp_rndis_complete(uint8_t to[NVSP_MESSAGE_BYTES], enum nvsp_status status);
void nvsp_rndis_message(uint8_t to[NVSP_MESSAGE_BYTES], bool is_control);
void nvsp_subchannel_complete(uint8_t to[NVSP_MESSAGE_BYTES], enum nvsp_status status,
			      uint32_t count);
/* Spread over @queue_count queues. */
void nvsp_indirection_table(uint8_t to[NVSP_TABLE_MESSAGE_BYTES], uint32_t queue_count);

#endif
