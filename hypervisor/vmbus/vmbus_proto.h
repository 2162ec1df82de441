/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The messages of VMBus as bytes: what a guest posts, decoded and checked; what we post, encoded.
 *
 * Pure; any thread.  All numbers are little-endian.  Messages that are longer than their layout
 * are taken (newer guests append fields), shorter ones are not.
 *
 * Layouts: docs/hypervisor/vmbus/vmbus.md section 3.
 */
#ifndef HYPERVISOR_VMBUS_VMBUS_PROTO_H
#define HYPERVISOR_VMBUS_VMBUS_PROTO_H

#include <stdbool.h>
#include <stdint.h>

#include "base/error.h"
#include "hypervisor/synic.h"
#include "hypervisor/vmbus/vmbus_channel.h"

/* Versions: major << 16 | minor. */
#define VMBUS_VERSION_4_0 0x00040000u
#define VMBUS_VERSION_4_1 0x00040001u
#define VMBUS_VERSION_5_0 0x00050000u
#define VMBUS_VERSION_5_1 0x00050001u
#define VMBUS_VERSION_5_2 0x00050002u
#define VMBUS_VERSION_5_3 0x00050003u

/* Connection ids that the guest posts messages to: before and since 5.0. */
#define VMBUS_CONNECTION_MESSAGE     1u
#define VMBUS_CONNECTION_MESSAGE_5_0 4u
/* Type of hypervisor message that carries all of VMBus, and the port it comes from. */
#define VMBUS_HV_MESSAGE_TYPE        1u

#define VMBUS_STATUS_OK     0u
#define VMBUS_STATUS_FAILED 0xC0000001u

/* The relid is also the number of the event flag; 0 belongs to the protocol. */
#define VMBUS_RELID_MAX 2047u

enum vmbus_message_type {
	VMBUS_MSG_INVALID = 0,
	VMBUS_MSG_OFFERCHANNEL = 1,
	VMBUS_MSG_RESCIND = 2,
	VMBUS_MSG_REQUESTOFFERS = 3,
	VMBUS_MSG_ALLOFFERS_DELIVERED = 4,
	VMBUS_MSG_OPENCHANNEL = 5,
	VMBUS_MSG_OPENCHANNEL_RESULT = 6,
	VMBUS_MSG_CLOSECHANNEL = 7,
	VMBUS_MSG_GPADL_HEADER = 8,
	VMBUS_MSG_GPADL_BODY = 9,
	VMBUS_MSG_GPADL_CREATED = 10,
	VMBUS_MSG_GPADL_TEARDOWN = 11,
	VMBUS_MSG_GPADL_TORNDOWN = 12,
	VMBUS_MSG_RELID_RELEASED = 13,
	VMBUS_MSG_INITIATE_CONTACT = 14,
	VMBUS_MSG_VERSION_RESPONSE = 15,
	VMBUS_MSG_UNLOAD = 16,
	VMBUS_MSG_UNLOAD_RESPONSE = 17,
	VMBUS_MSG_TL_CONNECT_REQUEST = 21,
	VMBUS_MSG_MODIFYCHANNEL = 22,
	VMBUS_MSG_TL_CONNECT_RESULT = 23,
	VMBUS_MSG_MODIFYCHANNEL_RESPONSE = 24,
	VMBUS_MSG_TYPES
};

struct vmbus_contact {
	uint32_t version;
	uint32_t vp; /* where messages to the guest go */
	uint64_t interrupt_page;
};

struct vmbus_open {
	uint32_t relid;
	uint32_t open_id; /* the guest's; comes back in the result */
	uint32_t gpadl;
	uint32_t vp;
	uint32_t downstream_page; /* first page of the ring to the guest */
	uint8_t user_data[VMBUS_USER_DATA_BYTES];
};

struct vmbus_gpadl_header {
	uint32_t relid;
	uint32_t gpadl;
	uint16_t range_bytes; /* of the whole list of ranges, over all messages */
	uint16_t range_count;
	const uint8_t *part; /* the first bytes of the list; in the message */
	uint32_t part_bytes;
};

struct vmbus_gpadl_body {
	uint32_t gpadl;
	const uint8_t *part;
	uint32_t part_bytes;
};

struct vmbus_gpadl_teardown {
	uint32_t relid;
	uint32_t gpadl;
};

struct vmbus_modify {
	uint32_t relid;
	uint32_t vp;
};

/* What a guest posts.  REQUESTOFFERS and UNLOAD have no fields. */
struct vmbus_guest_message {
	enum vmbus_message_type type;
	union {
		struct vmbus_contact contact;
		struct vmbus_open open;
		uint32_t relid; /* CLOSECHANNEL, RELID_RELEASED */
		struct vmbus_gpadl_header gpadl_header;
		struct vmbus_gpadl_body gpadl_body;
		struct vmbus_gpadl_teardown teardown;
		struct vmbus_modify modify;
	};
};

/**
 * vmbus_message_decode - one message of the guest.
 * @bytes: private memory; the result points into it for the parts of page lists.
 * -EBADMSG too short, or a page list that is not whole 64-bit words; -ENOTSUP a type that no
 * guest sends, or that we do not serve.
 */
BASE_MUST_CHECK int vmbus_message_decode(const uint8_t *bytes, uint32_t size_bytes,
					 struct vmbus_guest_message *ret_message,
					 struct base_error *err);
const char *vmbus_message_name(uint32_t type);

/* What we post: bytes and their number. */
struct vmbus_host_message {
	uint32_t size_bytes;
	uint8_t bytes[HV_MESSAGE_PAYLOAD_BYTES];
};

struct vmbus_offer_wire {
	struct disk_guid type;
	struct disk_guid instance;
	uint16_t flags;
	uint16_t mmio_megabytes;
	const uint8_t *user_defined; /* VMBUS_USER_DATA_BYTES */
	uint16_t sub_index;
	uint32_t relid;
	uint32_t connection_id;
};
void vmbus_put_offer(struct vmbus_host_message *out, const struct vmbus_offer_wire *offer);
/* RESCIND, GPADL_TORNDOWN: one number.  ALLOFFERS_DELIVERED, UNLOAD_RESPONSE: none. */
void vmbus_put_number(struct vmbus_host_message *out, enum vmbus_message_type type,
		      uint32_t number);
void vmbus_put_plain(struct vmbus_host_message *out, enum vmbus_message_type type);
void vmbus_put_open_result(struct vmbus_host_message *out, uint32_t relid, uint32_t open_id,
			   uint32_t status);
void vmbus_put_gpadl_created(struct vmbus_host_message *out, uint32_t relid, uint32_t gpadl,
			     uint32_t status);
void vmbus_put_modify_response(struct vmbus_host_message *out, uint32_t relid, uint32_t status);
void vmbus_put_version_response(struct vmbus_host_message *out, bool supported,
				uint32_t connection_id);

#endif
