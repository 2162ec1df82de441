/* SPDX-License-Identifier: Apache-2.0 */
/*
 * One queue of a network card: its channel.  Everything here runs on the queue's loop.
 *
 * What the guest sends is answered in the order it came: while a completion waits for room in the
 * ring, nothing more is received.
 */
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "base/log.h"
#include "hypervisor/netvsp/netvsp_priv.h"

/* f8615163-df3e-46c5-913f-f2d2f965ed0e */
static const struct disk_guid network_type = { .bytes = { 0x63, 0x51, 0x61, 0xF8, 0x3E, 0xDF, 0xC5,
							  0x46, 0x91, 0x3F, 0xF2, 0xD2, 0xF9, 0x65,
							  0xED, 0x0E } };
#define OFFER_ENUMERATE_INTERFACE 0x0001u

void netvsp_complain(struct netvsp_queue *queue, enum netvsp_complaint kind,
		     const struct base_error *why)
{
	const uint64_t bit = 1ULL << (unsigned int)kind;

	if ((queue->told_mask & bit) != 0)
		return;
	queue->told_mask |= bit;
	base_log(BASE_LOG_WARNING, "net.guest-error", "vm=%s card=%u queue=%u why=%s",
		 base_log_str(queue->netvsp->options.vm_name), queue->netvsp->options.index,
		 queue->index, base_log_str(why->text));
}

/* --- what control has published --- */

static void take_over(struct netvsp *netvsp, struct netvsp_buffer **mine,
		      struct netvsp_buffer *const *place)
{
	struct netvsp_buffer *before = NULL;

	{
		BASE_LOCKED(&netvsp->path_lock);
		if (*mine == *place)
			return;
		before = *mine;
		*mine = *place;
		if (*mine != NULL)
			atomic_fetch_add(&(*mine)->refs, 1);
	}
	netvsp_buffer_unref(before);
}

void netvsp_queue_sync(struct netvsp_queue *queue)
{
	struct netvsp *netvsp = queue->netvsp;

	/* The section of a frame that waits goes with its buffer. */
	if (queue->rx_held) {
		BASE_LOCKED(&netvsp->path_lock);
		if (queue->receive != netvsp->receive)
			queue->rx_held = false;
	}
	take_over(netvsp, &queue->receive, &netvsp->receive);
	take_over(netvsp, &queue->send, &netvsp->send);
	netvsp_rx_update(queue);
}

static void sync_run(struct base_io_task *task)
{
	struct netvsp_queue *queue =
		(struct netvsp_queue *)((char *)task - offsetof(struct netvsp_queue, sync_task));

	atomic_store(&queue->sync_posted, false);
	netvsp_queue_sync(queue);
}

void netvsp_queue_init(struct netvsp_queue *queue)
{
	queue->sync_task.run = sync_run;
	netvsp_rx_init(queue);
}

void netvsp_queue_kick(struct netvsp_queue *queue)
{
	if (!atomic_exchange(&queue->sync_posted, true))
		base_io_post(queue->loop, &queue->sync_task);
}

/* --- to the guest --- */

static bool completion_try(struct netvsp_queue *queue)
{
	const struct vmbus_send send = {
		.type = VMBUS_PACKET_COMPLETION,
		.trans_id = queue->waiting.trans_id,
		.payload = queue->waiting.payload,
		.payload_bytes = NVSP_MESSAGE_BYTES,
	};

	if (!queue->waiting.is_set)
		return true;
	if (queue->channel == NULL)
		return false;
	if (vmbus_send(queue->channel, &send) == -EAGAIN)
		return false;
	queue->waiting.is_set = false; /* sent; or the channel is closing, and nobody waits */
	return true;
}

void netvsp_queue_complete(struct netvsp_queue *queue, uint64_t trans_id,
			   const uint8_t payload[NVSP_MESSAGE_BYTES])
{
	base_assert(!queue->waiting.is_set);
	queue->waiting.is_set = true;
	queue->waiting.trans_id = trans_id;
	memcpy(queue->waiting.payload, payload, NVSP_MESSAGE_BYTES);
	(void)completion_try(queue);
}

int netvsp_queue_send_section(struct netvsp_queue *queue, uint32_t section, uint32_t size_bytes,
			      bool is_control)
{
	const struct netvsp_buffer *buffer = queue->receive;
	uint8_t header[16];
	uint8_t payload[NVSP_MESSAGE_BYTES];
	const struct vmbus_send send = {
		.type = VMBUS_PACKET_XFER_PAGES,
		.wants_completion = true,
		.trans_id = (uint64_t)buffer->generation << 32 | (section + 1),
		.header = header,
		.header_bytes = sizeof(header),
		.payload = payload,
		.payload_bytes = sizeof(payload),
	};
	struct base_writer out = base_writer_over(header, sizeof(header));

	base_write_le16(&out, buffer->id);
	base_write_le16(&out, 0);
	base_write_le32(&out, 1);
	base_write_le32(&out, size_bytes);
	base_write_le32(&out, section * buffer->section_bytes);
	nvsp_rndis_message(payload, is_control);
	return vmbus_send(queue->channel, &send);
}

bool netvsp_queue_flush(struct netvsp_queue *queue)
{
	if (!completion_try(queue))
		return false;
	if (queue->index == 0 && !netvsp_control_flush(queue->netvsp))
		return false;
	return netvsp_rx_send_held(queue);
}

/* --- from the guest --- */

static void completed_by_guest(struct netvsp_queue *queue, const struct vmbus_packet *packet)
{
	struct base_error why = { 0 };

	if (queue->receive != NULL &&
	    netvsp_section_complete(queue->receive, queue->index, packet->trans_id))
		return;
	/* Of a buffer that it has taken back in between, perhaps. */
	(void)base_fail(&why, -EBADMSG, "a completion of 0x%llx, which it does not have",
			(unsigned long long)packet->trans_id);
	netvsp_complain(queue, NETVSP_COMPLAINT_COMPLETION, &why);
}

static void handle_message(struct netvsp_queue *queue, const struct vmbus_packet *packet)
{
	struct nvsp_request request = { .type = NVSP_INVALID };
	struct base_error why = { 0 };
	uint8_t payload[NVSP_MESSAGE_BYTES];
	enum nvsp_status status = NVSP_STATUS_UNSUPPORTED;
	int rc = nvsp_request_decode(packet->payload, packet->payload_bytes, &request, &why);

	if (rc == 0 && request.type == NVSP_RNDIS) {
		status = netvsp_transmit(queue, packet, &request);
	} else if (rc == 0 && queue->index == 0 && packet->type == VMBUS_PACKET_INBAND) {
		netvsp_control_message(queue->netvsp, packet, &request);
		return;
	} else {
		if (rc == 0)
			(void)base_fail(&why, -EPROTO, "NVSP message of type %d on a data channel",
					(int)request.type);
		netvsp_complain(queue, NETVSP_COMPLAINT_MESSAGE, &why);
	}
	if (!packet->wants_completion)
		return;
	nvsp_rndis_complete(payload, status);
	netvsp_queue_complete(queue, packet->trans_id, payload);
}

static void channel_ready(void *device, struct vmbus_channel *channel)
{
	struct netvsp_queue *queue = device;
	struct vmbus_packet packet;
	uint32_t count = 0;

	if (queue->quiet)
		return;
	netvsp_queue_sync(queue);
	while (netvsp_queue_flush(queue) && queue->channel != NULL) {
		if (count == NETVSP_PACKETS_PER_TURN) {
			vmbus_channel_again(channel);
			break;
		}
		if (vmbus_receive(channel, &packet) != 1)
			break;
		count++;
		if (packet.type == VMBUS_PACKET_COMPLETION)
			completed_by_guest(queue, &packet);
		else
			handle_message(queue, &packet);
	}
	if (queue->channel != NULL)
		netvsp_rx_update(queue); /* sections may be free again */
}

void netvsp_queue_take_part(struct netvsp_queue *queue, bool takes_part)
{
	const int rc = queue->index == 0 ? 0 : netvsp_tap_take_part(queue->tap_fd, takes_part);

	if (rc < 0)
		base_log(BASE_LOG_WARNING, "net.tap-error", "vm=%s card=%u queue=%u why=%s",
			 base_log_str(queue->netvsp->options.vm_name), queue->netvsp->options.index,
			 queue->index, base_log_str(strerrordesc_np(-rc)));
}

static int channel_opened(void *device, struct vmbus_channel *channel,
			  const uint8_t user_data[VMBUS_USER_DATA_BYTES])
{
	struct netvsp_queue *queue = device;

	(void)user_data;
	queue->channel = channel;
	queue->waiting.is_set = false;
	atomic_store(&queue->is_open, true);
	netvsp_queue_take_part(queue, true);
	if (queue->index == 0)
		netvsp_control_reset(queue->netvsp);
	netvsp_queue_sync(queue);
	return 0;
}

static void channel_closing(void *device, struct vmbus_channel *channel)
{
	struct netvsp_queue *queue = device;

	netvsp_rx_drop_held(queue);
	queue->channel = NULL;
	queue->waiting.is_set = false;
	atomic_store(&queue->is_open, false);
	netvsp_queue_take_part(queue, false);
	if (queue->index != 0) {
		vmbus_channel_closed(channel);
		return;
	}
	queue->netvsp->closing = true;
	netvsp_control_reset(queue->netvsp);
	netvsp_control_gone(queue->netvsp);
}

static void channel_gpadl_torn(void *device, struct vmbus_channel *channel,
			       struct vmbus_gpadl *gpadl)
{
	struct netvsp_queue *queue = device;
	struct netvsp *netvsp = queue->netvsp;

	(void)channel;
	if (queue->index != 0)
		return;
	if (netvsp->receive != NULL &&
	    vmbus_gpadl_id(netvsp->receive->gpadl) == vmbus_gpadl_id(gpadl)) {
		netvsp->control.receive.is_set = false;
		netvsp_buffer_publish(netvsp, &netvsp->receive, NULL);
	}
	if (netvsp->send != NULL && vmbus_gpadl_id(netvsp->send->gpadl) == vmbus_gpadl_id(gpadl)) {
		netvsp->control.send.is_set = false;
		netvsp_buffer_publish(netvsp, &netvsp->send, NULL);
	}
}

static void channel_gone(void *device, struct vmbus_channel *channel)
{
	struct netvsp_queue *queue = device;

	(void)channel;
	if (queue->index == 0)
		return;
	atomic_store(&queue->netvsp->subs[queue->index].gone, true);
	netvsp_control_kick(queue->netvsp);
}

const struct vmbus_channel_ops netvsp_channel_ops = {
	.opened = channel_opened,
	.ready = channel_ready,
	.closing = channel_closing,
	.gpadl_torn = channel_gpadl_torn,
	.gone = channel_gone,
};

int netvsp_offer(struct netvsp *netvsp, uint32_t index, struct vmbus_channel **ret_channel,
		 struct base_error *err)
{
	struct vmbus_offer offer = {
		.type = network_type,
		.instance = netvsp->options.instance,
		.sub_index = (uint16_t)index,
		.flags = OFFER_ENUMERATE_INTERFACE,
		.loop = netvsp->queues[index].loop,
		.ops = &netvsp_channel_ops,
		.device = &netvsp->queues[index],
	};
	char name[32];

	if (index == 0)
		(void)snprintf(name, sizeof(name), "net%u", netvsp->options.index);
	else
		(void)snprintf(name, sizeof(name), "net%u.%u", netvsp->options.index, index);
	offer.name = name;
	return vmbus_offer(netvsp->options.bus, &offer, ret_channel, err);
}
