/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Codec of the VMBus messages: vmbus_proto.h.
 */
#include "hypervisor/vmbus/vmbus_proto.h"

#include <errno.h>
#include <inttypes.h>
#include <string.h>

#include "base/bytes.h"

#define HEAD_BYTES         8u /* type, padding */
#define OFFER_MONITOR_NONE 0u
#define OFFER_DEDICATED    1u
#define VERSION_TAIL_BYTES 4u /* feature flags; none is claimed */
#define RANGE_WORD_BYTES   8u

static const char *const names[VMBUS_MSG_TYPES] = {
	[VMBUS_MSG_OFFERCHANNEL] = "OFFERCHANNEL",
	[VMBUS_MSG_RESCIND] = "RESCIND",
	[VMBUS_MSG_REQUESTOFFERS] = "REQUESTOFFERS",
	[VMBUS_MSG_ALLOFFERS_DELIVERED] = "ALLOFFERS_DELIVERED",
	[VMBUS_MSG_OPENCHANNEL] = "OPENCHANNEL",
	[VMBUS_MSG_OPENCHANNEL_RESULT] = "OPENCHANNEL_RESULT",
	[VMBUS_MSG_CLOSECHANNEL] = "CLOSECHANNEL",
	[VMBUS_MSG_GPADL_HEADER] = "GPADL_HEADER",
	[VMBUS_MSG_GPADL_BODY] = "GPADL_BODY",
	[VMBUS_MSG_GPADL_CREATED] = "GPADL_CREATED",
	[VMBUS_MSG_GPADL_TEARDOWN] = "GPADL_TEARDOWN",
	[VMBUS_MSG_GPADL_TORNDOWN] = "GPADL_TORNDOWN",
	[VMBUS_MSG_RELID_RELEASED] = "RELID_RELEASED",
	[VMBUS_MSG_INITIATE_CONTACT] = "INITIATE_CONTACT",
	[VMBUS_MSG_VERSION_RESPONSE] = "VERSION_RESPONSE",
	[VMBUS_MSG_UNLOAD] = "UNLOAD",
	[VMBUS_MSG_UNLOAD_RESPONSE] = "UNLOAD_RESPONSE",
	[VMBUS_MSG_TL_CONNECT_REQUEST] = "TL_CONNECT_REQUEST",
	[VMBUS_MSG_MODIFYCHANNEL] = "MODIFYCHANNEL",
	[VMBUS_MSG_TL_CONNECT_RESULT] = "TL_CONNECT_RESULT",
	[VMBUS_MSG_MODIFYCHANNEL_RESPONSE] = "MODIFYCHANNEL_RESPONSE",
};

const char *vmbus_message_name(uint32_t type)
{
	if (type >= VMBUS_MSG_TYPES || names[type] == NULL)
		return "unknown";
	return names[type];
}

/* --- from the guest --- */

static void read_open(struct base_reader *in, struct vmbus_open *open)
{
	open->relid = base_read_le32(in);
	open->open_id = base_read_le32(in);
	open->gpadl = base_read_le32(in);
	open->vp = base_read_le32(in);
	open->downstream_page = base_read_le32(in);
	base_read_bytes(in, open->user_data, sizeof(open->user_data));
}

/* The rest of the message is a part of a list of ranges: whole words. */
static bool read_part(struct base_reader *in, const uint8_t **ret_part, uint32_t *ret_bytes)
{
	size_t left = base_reader_left(in);

	*ret_bytes = (uint32_t)left;
	*ret_part = base_read_span(in, left);
	return left % RANGE_WORD_BYTES == 0;
}

static bool read_fields(struct base_reader *in, struct vmbus_guest_message *message)
{
	switch ((uint32_t)message->type) {
	case VMBUS_MSG_INITIATE_CONTACT:
		message->contact.version = base_read_le32(in);
		message->contact.vp = base_read_le32(in);
		message->contact.interrupt_page = base_read_le64(in);
		base_read_skip(in, 16); /* monitor pages: we use none */
		return true;
	case VMBUS_MSG_OPENCHANNEL:
		read_open(in, &message->open);
		return true;
	case VMBUS_MSG_CLOSECHANNEL:
	case VMBUS_MSG_RELID_RELEASED:
		message->relid = base_read_le32(in);
		return true;
	case VMBUS_MSG_GPADL_HEADER:
		message->gpadl_header.relid = base_read_le32(in);
		message->gpadl_header.gpadl = base_read_le32(in);
		message->gpadl_header.range_bytes = base_read_le16(in);
		message->gpadl_header.range_count = base_read_le16(in);
		return read_part(in, &message->gpadl_header.part,
				 &message->gpadl_header.part_bytes);
	case VMBUS_MSG_GPADL_BODY:
		base_read_skip(in, 4); /* number of the part: guests leave it 0 */
		message->gpadl_body.gpadl = base_read_le32(in);
		return read_part(in, &message->gpadl_body.part, &message->gpadl_body.part_bytes);
	case VMBUS_MSG_GPADL_TEARDOWN:
		message->teardown.relid = base_read_le32(in);
		message->teardown.gpadl = base_read_le32(in);
		return true;
	case VMBUS_MSG_MODIFYCHANNEL:
		message->modify.relid = base_read_le32(in);
		message->modify.vp = base_read_le32(in);
		return true;
	default:
		return true; /* REQUESTOFFERS, UNLOAD: no fields */
	}
}

static bool guest_sends(uint32_t type)
{
	switch (type) {
	case VMBUS_MSG_REQUESTOFFERS:
	case VMBUS_MSG_OPENCHANNEL:
	case VMBUS_MSG_CLOSECHANNEL:
	case VMBUS_MSG_GPADL_HEADER:
	case VMBUS_MSG_GPADL_BODY:
	case VMBUS_MSG_GPADL_TEARDOWN:
	case VMBUS_MSG_RELID_RELEASED:
	case VMBUS_MSG_INITIATE_CONTACT:
	case VMBUS_MSG_UNLOAD:
	case VMBUS_MSG_MODIFYCHANNEL:
		return true;
	default:
		return false;
	}
}

int vmbus_message_decode(const uint8_t *bytes, uint32_t size_bytes,
			 struct vmbus_guest_message *ret_message, struct base_error *err)
{
	struct base_reader in = base_reader_over(bytes, size_bytes);
	struct vmbus_guest_message message = { .type = VMBUS_MSG_INVALID };
	uint32_t type = base_read_le32(&in);
	bool whole = false;

	base_read_skip(&in, HEAD_BYTES - 4);
	if (in.failed)
		return base_fail(err, -EBADMSG, "message of %" PRIu32 " bytes, expected a header",
				 size_bytes);
	if (!guest_sends(type))
		return base_fail(err, -ENOTSUP, "message type %" PRIu32 " (%s)", type,
				 vmbus_message_name(type));
	message.type = (enum vmbus_message_type)type;
	whole = read_fields(&in, &message);
	if (in.failed || !whole)
		return base_fail(err, -EBADMSG, "%s of %" PRIu32 " bytes", vmbus_message_name(type),
				 size_bytes);
	*ret_message = message;
	return 0;
}

/* --- to the guest --- */

static struct base_writer begin(struct vmbus_host_message *out, enum vmbus_message_type type)
{
	struct base_writer writer = base_writer_over(out->bytes, sizeof(out->bytes));

	base_write_le32(&writer, type);
	base_write_le32(&writer, 0);
	return writer;
}

static void end(struct vmbus_host_message *out, const struct base_writer *writer)
{
	base_assert(!writer->failed);
	out->size_bytes = (uint32_t)writer->offset_bytes;
}

void vmbus_put_offer(struct vmbus_host_message *out, const struct vmbus_offer_wire *offer)
{
	struct base_writer writer = begin(out, VMBUS_MSG_OFFERCHANNEL);

	base_write_bytes(&writer, offer->type.bytes, sizeof(offer->type.bytes));
	base_write_bytes(&writer, offer->instance.bytes, sizeof(offer->instance.bytes));
	base_write_zeros(&writer, 16); /* interrupt latency hints */
	base_write_le16(&writer, offer->flags);
	base_write_le16(&writer, offer->mmio_megabytes);
	base_write_bytes(&writer, offer->user_defined, VMBUS_USER_DATA_BYTES);
	base_write_le16(&writer, offer->sub_index);
	base_write_le16(&writer, 0);
	base_write_le32(&writer, offer->relid);
	base_write_u8(&writer, 0);
	base_write_u8(&writer, OFFER_MONITOR_NONE);
	base_write_le16(&writer, OFFER_DEDICATED);
	base_write_le32(&writer, offer->connection_id);
	end(out, &writer);
}

void vmbus_put_plain(struct vmbus_host_message *out, enum vmbus_message_type type)
{
	struct base_writer writer = begin(out, type);

	end(out, &writer);
}

void vmbus_put_number(struct vmbus_host_message *out, enum vmbus_message_type type, uint32_t number)
{
	struct base_writer writer = begin(out, type);

	base_write_le32(&writer, number);
	end(out, &writer);
}

static void put_numbers(struct vmbus_host_message *out, enum vmbus_message_type type, uint32_t a,
			uint32_t b, const uint32_t *c)
{
	struct base_writer writer = begin(out, type);

	base_write_le32(&writer, a);
	base_write_le32(&writer, b);
	if (c != NULL)
		base_write_le32(&writer, *c);
	end(out, &writer);
}

void vmbus_put_open_result(struct vmbus_host_message *out, uint32_t relid, uint32_t open_id,
			   uint32_t status)
{
	put_numbers(out, VMBUS_MSG_OPENCHANNEL_RESULT, relid, open_id, &status);
}

void vmbus_put_gpadl_created(struct vmbus_host_message *out, uint32_t relid, uint32_t gpadl,
			     uint32_t status)
{
	put_numbers(out, VMBUS_MSG_GPADL_CREATED, relid, gpadl, &status);
}

void vmbus_put_modify_response(struct vmbus_host_message *out, uint32_t relid, uint32_t status)
{
	put_numbers(out, VMBUS_MSG_MODIFYCHANNEL_RESPONSE, relid, status, NULL);
}

void vmbus_put_version_response(struct vmbus_host_message *out, bool supported,
				uint32_t connection_id)
{
	struct base_writer writer = begin(out, VMBUS_MSG_VERSION_RESPONSE);

	base_write_u8(&writer, supported ? 1 : 0);
	base_write_u8(&writer, 0); /* connection state: fine */
	base_write_le16(&writer, 0);
	base_write_le32(&writer, connection_id);
	base_write_zeros(&writer, VERSION_TAIL_BYTES);
	end(out, &writer);
}
