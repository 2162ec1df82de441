/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A bus that a test plays itself, in the place of hypervisor/vmbus: packets are handed over one by
 * one, the ring towards the guest has as much room as the test says.  One thread.
 *
 * Included by one test program, which then needs nothing of the real bus.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/bytes.h"
#include "hypervisor/vmbus/vmbus_channel.h"

#define FAKE_PACKETS_MAX  512u
#define FAKE_CHANNELS_MAX 32u
#define FAKE_LISTS_MAX    8u

struct fake_packet {
	enum vmbus_packet_type type;
	bool wants_completion;
	uint64_t trans_id;
	uint8_t header[1024];
	uint32_t header_bytes;
	uint8_t payload[256];
	uint32_t payload_bytes;
};

struct vmbus_channel {
	struct vmbus *bus;
	struct vmbus_offer offer;
	bool open, broken, closing, closed, retracted;
	struct fake_packet in[FAKE_PACKETS_MAX], out[FAKE_PACKETS_MAX];
	uint32_t in_head, in_tail, out_count;
	uint32_t room; /* packets that may still be sent */
	uint32_t again_count, flush_count;
};

struct vmbus_gpadl {
	struct vmbus *bus;
	uint32_t id, size;
	uint64_t gpa;
	uint32_t refs; /* of devices */
	bool exists;
};

struct vmbus {
	struct hv_slat *slat;
	struct vmbus_channel *channels[FAKE_CHANNELS_MAX];
	struct vmbus_gpadl lists[FAKE_LISTS_MAX];
	bool restoring; /* offers are taken up open */
};

static inline struct vmbus_channel *fake_channel(struct vmbus *bus, uint16_t sub_index)
{
	for (uint32_t i = 0; i < FAKE_CHANNELS_MAX; i++)
		if (bus->channels[i] != NULL && bus->channels[i]->offer.sub_index == sub_index)
			return bus->channels[i];
	return NULL;
}

int vmbus_offer(struct vmbus *bus, const struct vmbus_offer *offer,
		struct vmbus_channel **ret_channel, struct base_error *err)
{
	struct vmbus_channel *channel = NULL;

	if (fake_channel(bus, offer->sub_index) != NULL)
		return base_fail(err, -EEXIST, "offered twice");
	channel = calloc(1, sizeof(*channel));
	if (channel == NULL)
		return base_fail(err, -ENOMEM, "channel");
	channel->bus = bus;
	channel->offer = *offer;
	channel->room = FAKE_PACKETS_MAX;
	channel->open = bus->restoring;
	for (uint32_t i = 0; i < FAKE_CHANNELS_MAX; i++) {
		if (bus->channels[i] == NULL) {
			bus->channels[i] = channel;
			break;
		}
	}
	*ret_channel = channel;
	return 0;
}

void vmbus_retract(struct vmbus_channel *channel)
{
	channel->retracted = true;
}

void vmbus_channel_free(struct vmbus_channel *channel)
{
	for (uint32_t i = 0; i < FAKE_CHANNELS_MAX; i++)
		if (channel != NULL && channel->bus->channels[i] == channel)
			channel->bus->channels[i] = NULL;
	free(channel);
}

void vmbus_channel_closed(struct vmbus_channel *channel)
{
	if (!channel->closing)
		abort();
	channel->closing = false;
	channel->closed = true;
}

bool vmbus_channel_is_open(const struct vmbus_channel *channel)
{
	return channel->open;
}

void vmbus_channel_again(struct vmbus_channel *channel)
{
	channel->again_count++;
}

void vmbus_channel_break(struct vmbus_channel *channel, const char *format, ...)
{
	(void)format;
	channel->broken = true;
}

int vmbus_receive(struct vmbus_channel *channel, struct vmbus_packet *ret_packet)
{
	const struct fake_packet *packet = NULL;

	if (channel->broken)
		return -EBADMSG;
	if (channel->in_head == channel->in_tail)
		return 0;
	packet = &channel->in[channel->in_head++ % FAKE_PACKETS_MAX];
	*ret_packet = (struct vmbus_packet){ .type = packet->type,
					     .wants_completion = packet->wants_completion,
					     .trans_id = packet->trans_id,
					     .header = packet->header,
					     .header_bytes = packet->header_bytes,
					     .payload = packet->payload,
					     .payload_bytes = packet->payload_bytes };
	return 1;
}

int vmbus_send(struct vmbus_channel *channel, const struct vmbus_send *send)
{
	struct fake_packet *packet = NULL;

	if (!channel->open)
		return -EPIPE;
	if (channel->room == 0 || channel->out_count == FAKE_PACKETS_MAX)
		return -EAGAIN;
	channel->room--;
	packet = &channel->out[channel->out_count++];
	packet->type = send->type;
	packet->wants_completion = send->wants_completion;
	packet->trans_id = send->trans_id;
	packet->header_bytes = send->header_bytes;
	packet->payload_bytes = send->payload_bytes;
	if (send->header_bytes > 0)
		memcpy(packet->header, send->header, send->header_bytes);
	memcpy(packet->payload, send->payload, send->payload_bytes);
	return 0;
}

void vmbus_channel_flush(struct vmbus_channel *channel)
{
	channel->flush_count++;
}

int vmbus_gpa_walk(const struct vmbus_packet *packet,
		   int (*each)(void *context, const struct vmbus_gpa_piece *piece, uint32_t range),
		   void *context)
{
	struct base_reader in = base_reader_over(packet->header, packet->header_bytes);
	uint32_t ranges = 0;

	base_read_skip(&in, 4);
	ranges = base_read_le32(&in);
	for (uint32_t range = 0; range < ranges; range++) {
		uint32_t left = base_read_le32(&in);
		uint32_t offset = base_read_le32(&in);

		while (left > 0) {
			const uint64_t page = base_read_le64(&in);
			struct vmbus_gpa_piece piece = { .gpa = page * 4096 + offset,
							 .length_bytes = 4096 - offset };
			int rc = 0;

			if (in.failed)
				return -EBADMSG;
			if (piece.length_bytes > left)
				piece.length_bytes = left;
			rc = each(context, &piece, range);
			if (rc != 0)
				return rc;
			left -= piece.length_bytes;
			offset = 0;
		}
	}
	return in.failed ? -EBADMSG : 0;
}

int vmbus_gpadl_ref(struct vmbus_channel *channel, uint32_t gpadl_id,
		    struct vmbus_gpadl **ret_gpadl)
{
	for (uint32_t i = 0; i < FAKE_LISTS_MAX; i++) {
		struct vmbus_gpadl *list = &channel->bus->lists[i];

		if (list->exists && list->id == gpadl_id) {
			list->refs++;
			*ret_gpadl = list;
			return 0;
		}
	}
	return -ENOENT;
}

void vmbus_gpadl_unref(struct vmbus_gpadl *gpadl)
{
	if (gpadl == NULL)
		return;
	if (gpadl->refs == 0)
		abort();
	gpadl->refs--;
}

uint32_t vmbus_gpadl_id(const struct vmbus_gpadl *gpadl)
{
	return gpadl->id;
}

uint32_t vmbus_gpadl_size(const struct vmbus_gpadl *gpadl)
{
	return gpadl->size;
}

int vmbus_gpadl_write(const struct vmbus_gpadl *gpadl, uint32_t offset, const void *from,
		      uint32_t size_bytes)
{
	if (offset > gpadl->size || size_bytes > gpadl->size - offset)
		return -EFAULT;
	return hv_slat_write(gpadl->bus->slat, gpadl->gpa + offset, from, size_bytes);
}

int vmbus_gpadl_view(const struct vmbus_gpadl *gpadl, uint32_t offset, uint32_t size_bytes,
		     struct iovec *ret_iov, uint32_t capacity)
{
	if (offset > gpadl->size || size_bytes > gpadl->size - offset)
		return -EFAULT;
	if (capacity == 0)
		return -ENOSPC;
	ret_iov->iov_base =
		(void *)(uintptr_t)hv_slat_view(gpadl->bus->slat, gpadl->gpa + offset, size_bytes);
	ret_iov->iov_len = size_bytes;
	return ret_iov->iov_base == NULL ? -EFAULT : 1;
}

/* --- the guest's moves --- */

static inline void fake_ready(struct vmbus_channel *channel)
{
	do {
		channel->again_count = 0;
		channel->offer.ops->ready(channel->offer.device, channel);
	} while (channel->again_count > 0 && channel->in_head != channel->in_tail);
}

static inline struct fake_packet *fake_put(struct vmbus_channel *channel,
					   enum vmbus_packet_type type, uint64_t trans_id)
{
	struct fake_packet *packet = &channel->in[channel->in_tail++ % FAKE_PACKETS_MAX];

	memset(packet, 0, sizeof(*packet));
	packet->type = type;
	packet->trans_id = trans_id;
	packet->wants_completion = type != VMBUS_PACKET_COMPLETION;
	return packet;
}

static inline void fake_open(struct vmbus_channel *channel)
{
	const uint8_t data[VMBUS_USER_DATA_BYTES] = { 0 };

	channel->open = true;
	channel->closed = false;
	if (channel->offer.ops->opened(channel->offer.device, channel, data) != 0)
		abort();
}

static inline void fake_close(struct vmbus_channel *channel)
{
	channel->open = false;
	channel->closing = true;
	channel->in_head = channel->in_tail;
	channel->out_count = 0;
	channel->room = FAKE_PACKETS_MAX;
	channel->offer.ops->closing(channel->offer.device, channel);
}

/* The guest has let go of a retracted channel. */
static inline void fake_gone(struct vmbus_channel *channel)
{
	channel->offer.ops->gone(channel->offer.device, channel);
	vmbus_channel_free(channel);
}
