/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Channels without a bus, for tests of the storage service: the functions of vmbus_channel.h that
 * it calls, over queues in memory.  What the bus itself does is tested elsewhere.  Included by
 * one file of a program; its definitions take the place of the library's.
 */
#ifndef TESTS_UNIT_STORVSP_FAKE_VMBUS_H
#define TESTS_UNIT_STORVSP_FAKE_VMBUS_H

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "hypervisor/vmbus/vmbus_channel.h"

#ifndef FAKE_PACKETS
#define FAKE_PACKETS 4096u /* each way */
#endif
#define FAKE_CHANNELS 8u
#define FAKE_PAYLOAD  64u

struct fake_packet {
	enum vmbus_packet_type type;
	uint64_t trans_id;
	uint8_t payload[FAKE_PAYLOAD];
	uint8_t *header;
	uint32_t header_bytes;
	uint32_t payload_bytes;
};

struct vmbus_channel {
	struct vmbus_offer offer;
	bool offered, open, retracted, closed_called, broken;
	bool again_posted, dead;
	struct base_io_task again;
	struct fake_packet in[FAKE_PACKETS]; /* from the guest */
	uint32_t in_head, in_tail;
	uint8_t *current;
	struct fake_packet out[FAKE_PACKETS]; /* to the guest */
	uint32_t out_head, out_tail;
	uint32_t room; /* of the ring to the guest: packets that it takes */
	uint32_t flush_count;
	void (*sent)(struct vmbus_channel *channel, const struct vmbus_send *send);
};

static struct vmbus_channel *fake_channels[FAKE_CHANNELS];
static bool fake_quiesced;
static bool fake_loading_open;   /* what is offered is taken up open */
static bool fake_loading_broken; /* or would be, but for its rings */

static inline void fake_again(struct base_io_task *task)
{
	struct vmbus_channel *channel =
		(struct vmbus_channel *)((char *)task - offsetof(struct vmbus_channel, again));

	channel->again_posted = false;
	if (channel->dead)
		free(channel);
	else if (channel->open && !fake_quiesced)
		channel->offer.ops->ready(channel->offer.device, channel);
}

int vmbus_offer(struct vmbus *bus, const struct vmbus_offer *offer,
		struct vmbus_channel **ret_channel, struct base_error *err)
{
	struct vmbus_channel *channel = calloc(1, sizeof(*channel));

	(void)bus;
	if (channel == NULL)
		return base_fail(err, -ENOMEM, "channel");
	channel->offer = *offer;
	channel->offered = true;
	channel->open = fake_loading_open && !fake_loading_broken;
	channel->broken = fake_loading_broken;
	channel->room = UINT32_MAX;
	base_assert(fake_channels[offer->sub_index] == NULL);
	fake_channels[offer->sub_index] = channel;
	*ret_channel = channel;
	return 0;
}

static inline void fake_empty(struct vmbus_channel *channel)
{
	for (; channel->in_head != channel->in_tail; channel->in_head++)
		free(channel->in[channel->in_head % FAKE_PACKETS].header);
	channel->out_head = channel->out_tail;
}

static inline void fake_free(struct vmbus_channel *channel)
{
	fake_empty(channel);
	free(channel->current);
	fake_channels[channel->offer.sub_index] = NULL;
	channel->dead = true;
	if (!channel->again_posted)
		free(channel); /* else its task does */
}

void vmbus_retract(struct vmbus_channel *channel)
{
	channel->retracted = true;
}

void vmbus_channel_free(struct vmbus_channel *channel)
{
	if (channel != NULL)
		fake_free(channel);
}

void vmbus_channel_closed(struct vmbus_channel *channel)
{
	base_assert(!channel->closed_called);
	channel->closed_called = true;
}

bool vmbus_channel_is_broken(const struct vmbus_channel *channel)
{
	return channel->broken;
}

bool vmbus_channel_is_open(const struct vmbus_channel *channel)
{
	return channel->open;
}

void vmbus_channel_again(struct vmbus_channel *channel)
{
	if (channel->again_posted)
		return;
	channel->again_posted = true;
	channel->again = (struct base_io_task){ .run = fake_again };
	base_io_post(channel->offer.loop, &channel->again);
}

void vmbus_channel_break(struct vmbus_channel *channel, const char *format, ...)
{
	(void)format;
	channel->broken = true;
	channel->open = false;
	channel->offer.ops->closing(channel->offer.device, channel);
}

int vmbus_receive(struct vmbus_channel *channel, struct vmbus_packet *ret_packet)
{
	struct fake_packet *packet = &channel->in[channel->in_head % FAKE_PACKETS];

	if (channel->in_head == channel->in_tail)
		return 0;
	channel->in_head++;
	free(channel->current);
	channel->current = packet->header;
	packet->header = NULL;
	*ret_packet = (struct vmbus_packet){
		.type = packet->type,
		.wants_completion = true,
		.trans_id = packet->trans_id,
		.header = channel->current,
		.header_bytes = packet->header_bytes,
		.payload = packet->payload,
		.payload_bytes = packet->payload_bytes,
	};
	return 1;
}

int vmbus_send(struct vmbus_channel *channel, const struct vmbus_send *send)
{
	struct fake_packet *packet = &channel->out[channel->out_tail % FAKE_PACKETS];

	if (!channel->open)
		return -EPIPE;
	if (channel->room == 0)
		return -EAGAIN;
	if (channel->room != UINT32_MAX)
		channel->room--;
	base_assert(channel->out_tail - channel->out_head < FAKE_PACKETS);
	base_assert(send->payload_bytes == FAKE_PAYLOAD);
	if (channel->sent != NULL)
		channel->sent(channel, send);
	packet->type = send->type;
	packet->trans_id = send->trans_id;
	memcpy(packet->payload, send->payload, FAKE_PAYLOAD);
	channel->out_tail++;
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
	/* The test's own form: pairs of address and length, each within a page. */
	for (uint32_t at = 0; at + 16 <= packet->header_bytes; at += 16) {
		struct vmbus_gpa_piece piece;
		uint64_t length = 0;
		int rc = 0;

		memcpy(&piece.gpa, packet->header + at, 8);
		memcpy(&length, packet->header + at + 8, 8);
		piece.length_bytes = (uint32_t)length;
		if (length == 0 || length > 4096 - piece.gpa % 4096)
			return -EBADMSG;
		rc = each(context, &piece, 0);
		if (rc != 0)
			return rc;
	}
	return 0;
}

/* --- the guest's side --- */

static inline void fake_open(struct vmbus_channel *channel)
{
	static const uint8_t user_data[VMBUS_USER_DATA_BYTES];

	channel->closed_called = false;
	fake_empty(channel);
	channel->room = UINT32_MAX;
	base_assert(channel->offer.ops->opened(channel->offer.device, channel, user_data) == 0);
	channel->open = true;
}

static inline void fake_close(struct vmbus_channel *channel)
{
	channel->open = false;
	channel->offer.ops->closing(channel->offer.device, channel);
}

/* Retracted channels are let go of. */
static inline void fake_let_go(void)
{
	for (uint32_t i = 0; i < FAKE_CHANNELS; i++) {
		struct vmbus_channel *channel = fake_channels[i];

		if (channel == NULL || !channel->retracted)
			continue;
		if (channel->open)
			fake_close(channel);
		channel->offer.ops->gone(channel->offer.device, channel);
		fake_free(channel);
	}
}

static inline struct fake_packet *fake_put(struct vmbus_channel *channel,
					   enum vmbus_packet_type type, uint64_t trans_id)
{
	struct fake_packet *packet = &channel->in[channel->in_tail % FAKE_PACKETS];

	base_assert(channel->in_tail - channel->in_head < FAKE_PACKETS);
	channel->in_tail++;
	memset(packet, 0, sizeof(*packet));
	packet->type = type;
	packet->trans_id = trans_id;
	packet->payload_bytes = FAKE_PAYLOAD;
	vmbus_channel_again(channel);
	return packet;
}

static inline const struct fake_packet *fake_get(struct vmbus_channel *channel)
{
	if (channel->out_head == channel->out_tail)
		return NULL;
	return &channel->out[channel->out_head++ % FAKE_PACKETS];
}

#endif
