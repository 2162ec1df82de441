/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Control of a network card: NVSP set-up and RNDIS requests.  On the loop of queue 0.
 *
 * Answers to RNDIS requests go through sections of the receive buffer, as frames do; they wait in
 * a ring of their own until there is a section and room.  A guest that asks for more without
 * taking its answers loses its channel.
 */
#include <errno.h>
#include <string.h>

#include "base/log.h"
#include "hypervisor/netvsp/netvsp_priv.h"

#define SEND_SECTION_BYTES    6144u /* what Hyper-V gives; holds a few frames of 1500 bytes */
/* The smallest receive section: an envelope and 1500 bytes with room; larger ones are multiples. */
#define RECEIVE_SECTION_BYTES 1728u
#define SECTION_ALIGN         64u

static struct netvsp_queue *primary_queue(struct netvsp *netvsp)
{
	return &netvsp->queues[0];
}

static void kick_all(struct netvsp *netvsp)
{
	netvsp_queue_sync(primary_queue(netvsp));
	for (uint32_t i = 1; i < netvsp->queue_limit; i++)
		netvsp_queue_kick(&netvsp->queues[i]);
}

static void data_off(struct netvsp *netvsp)
{
	netvsp->control.rndis_ready = false;
	atomic_store(&netvsp->data_on, false);
	atomic_store(&netvsp->filter, 0);
}

void netvsp_control_reset(struct netvsp *netvsp)
{
	const uint32_t generation = netvsp->control.generation;

	data_off(netvsp);
	atomic_store(&netvsp->offloads, RNDIS_OFFLOAD_KNOWN);
	memset(&netvsp->control, 0, sizeof(netvsp->control));
	netvsp->control.generation = generation; /* late completions stay late */
	netvsp->control.link_shown = atomic_load(&netvsp->link_up);
	for (uint32_t i = 1; i < netvsp->queue_limit; i++) {
		struct netvsp_sub *sub = &netvsp->subs[i];

		if (sub->channel == NULL || sub->retracted)
			continue;
		sub->retracted = true;
		vmbus_retract(sub->channel);
	}
	netvsp_buffer_publish(netvsp, &netvsp->receive, NULL);
	netvsp_buffer_publish(netvsp, &netvsp->send, NULL);
}

/* --- NVSP --- */

static void complete(struct netvsp *netvsp, const struct vmbus_packet *packet,
		     const uint8_t payload[NVSP_MESSAGE_BYTES])
{
	if (packet->wants_completion)
		netvsp_queue_complete(primary_queue(netvsp), packet->trans_id, payload);
}

static void complain(struct netvsp *netvsp, const struct base_error *why)
{
	netvsp_complain(primary_queue(netvsp), NETVSP_COMPLAINT_MESSAGE, why);
}

static void on_init(struct netvsp *netvsp, const struct vmbus_packet *packet,
		    const struct nvsp_request *request)
{
	const enum nvsp_version version =
		nvsp_version_choose(request->init.oldest, request->init.newest);
	uint8_t payload[NVSP_MESSAGE_BYTES];

	if (netvsp->control.version != NVSP_VERSION_NONE)
		netvsp_control_reset(netvsp); /* it begins anew */
	netvsp->control.version = (uint32_t)version;
	if (version != NVSP_VERSION_NONE)
		nvsp_init_complete(payload, (uint32_t)version, NVSP_STATUS_SUCCESS);
	else
		nvsp_init_complete(payload, 0xFFFFFFFF,
				   request->init.oldest > NVSP_VERSION_61 ? NVSP_STATUS_TOO_NEW
									  : NVSP_STATUS_TOO_OLD);
	complete(netvsp, packet, payload);
}

static uint32_t receive_section_bytes(const struct netvsp *netvsp)
{
	const uint32_t frame = netvsp->options.mtu + NETVSP_ETHERNET_BYTES + NETVSP_VLAN_BYTES;
	const uint32_t want = (frame + RNDIS_RECEIVE_HEAD_BYTES + SECTION_ALIGN - 1) /
			      SECTION_ALIGN * SECTION_ALIGN;

	return want > RECEIVE_SECTION_BYTES ? want : RECEIVE_SECTION_BYTES;
}

/* How many sections a page list has room for; 0 when there is no such list. */
static uint32_t sections_in(const struct netvsp *netvsp, uint32_t gpadl_id, uint32_t section_bytes)
{
	struct vmbus_gpadl *gpadl = NULL;
	uint32_t count = 0;

	if (vmbus_gpadl_ref(netvsp->primary, gpadl_id, &gpadl) < 0)
		return 0;
	count = vmbus_gpadl_size(gpadl) / section_bytes;
	vmbus_gpadl_unref(gpadl);
	return count < NETVSP_SECTIONS_MAX ? count : NETVSP_SECTIONS_MAX;
}

static void on_buffer(struct netvsp *netvsp, const struct vmbus_packet *packet,
		      const struct nvsp_request *request)
{
	const bool is_receive = request->type == NVSP_RECEIVE_BUFFER;
	struct netvsp_control *control = &netvsp->control;
	struct netvsp_state_buffer from = {
		.is_set = true,
		.is_receive = is_receive,
		.id = request->buffer.id,
		.gpadl_id = request->buffer.gpadl_id,
		.section_bytes = is_receive ? receive_section_bytes(netvsp) : SEND_SECTION_BYTES,
		.shares = is_receive ? netvsp->queue_limit : 0,
		.generation = is_receive ? control->generation + 1 : 0,
	};
	struct netvsp_state_buffer *saved = is_receive ? &control->receive : &control->send;
	struct netvsp_buffer *buffer = NULL;
	enum nvsp_status status = NVSP_STATUS_FAIL;
	struct base_error why = { 0 };
	uint8_t payload[NVSP_MESSAGE_BYTES];
	int rc = 0;

	if (from.is_receive && from.generation == 0)
		from.generation = 1;
	from.section_count = sections_in(netvsp, from.gpadl_id, from.section_bytes);
	if (control->version == NVSP_VERSION_NONE || saved->is_set)
		rc = base_fail(&why, -EPROTO, "NVSP message %d out of place", (int)request->type);
	else
		rc = netvsp_buffer_new(netvsp, &from, &buffer, &why);
	if (rc == 0) {
		status = NVSP_STATUS_SUCCESS;
		*saved = from;
		if (is_receive)
			control->generation = from.generation;
		netvsp_buffer_publish(netvsp, is_receive ? &netvsp->receive : &netvsp->send,
				      buffer);
	} else {
		complain(netvsp, &why);
		from.section_bytes = 0;
		from.section_count = 0;
	}
	if (is_receive)
		nvsp_receive_buffer_complete(payload, status, from.section_bytes,
					     from.section_count);
	else
		nvsp_send_buffer_complete(payload, status, from.section_bytes);
	complete(netvsp, packet, payload);
}

static void on_revoke(struct netvsp *netvsp, const struct vmbus_packet *packet,
		      const struct nvsp_request *request)
{
	uint8_t payload[NVSP_MESSAGE_BYTES];

	if (request->type == NVSP_REVOKE_RECEIVE_BUFFER) {
		netvsp->control.receive.is_set = false;
		netvsp_buffer_publish(netvsp, &netvsp->receive, NULL);
	} else {
		netvsp->control.send.is_set = false;
		netvsp_buffer_publish(netvsp, &netvsp->send, NULL);
	}
	nvsp_rndis_complete(payload, NVSP_STATUS_SUCCESS);
	complete(netvsp, packet, payload);
}

/* --- sub-channels --- */

static bool subs_are_gone(const struct netvsp *netvsp)
{
	for (uint32_t i = 1; i < netvsp->queue_limit; i++)
		if (netvsp->subs[i].channel != NULL)
			return false;
	return true;
}

/* Offer @count sub-channels; how many there are then. */
static uint32_t offer_subs(struct netvsp *netvsp, uint32_t count)
{
	struct base_error why = { 0 };

	for (uint32_t i = 1; i <= count; i++) {
		struct netvsp_sub *sub = &netvsp->subs[i];

		sub->retracted = false;
		atomic_store(&sub->gone, false);
		if (netvsp_offer(netvsp, i, &sub->channel, &why) < 0) {
			complain(netvsp, &why);
			sub->channel = NULL;
			return i - 1;
		}
	}
	return count;
}

/* Once the guest has let go of earlier ones, and no other completion waits for room.  False: this
 * one does now. */
static bool flush_sub_request(struct netvsp *netvsp)
{
	struct netvsp_control *control = &netvsp->control;
	const uint64_t trans_id = control->sub_request.trans_id;
	uint8_t payload[NVSP_MESSAGE_BYTES];
	uint32_t count = 0;

	if (!control->sub_request.is_set || !subs_are_gone(netvsp))
		return true;
	count = offer_subs(netvsp, control->sub_request.count);
	control->sub_request.is_set = false;
	control->sub_count = count;
	control->table_waits = count > 0;
	nvsp_subchannel_complete(payload, NVSP_STATUS_SUCCESS, count);
	netvsp_queue_complete(primary_queue(netvsp), trans_id, payload);
	return !primary_queue(netvsp)->waiting.is_set;
}

static void on_subchannel(struct netvsp *netvsp, const struct vmbus_packet *packet,
			  const struct nvsp_request *request)
{
	struct netvsp_control *control = &netvsp->control;
	uint32_t count = request->subchannel.count;
	struct base_error why = { 0 };
	uint8_t payload[NVSP_MESSAGE_BYTES];

	if (control->version < NVSP_VERSION_5 || request->subchannel.operation != 1 ||
	    control->sub_count != 0 || control->sub_request.is_set || count == 0 ||
	    !packet->wants_completion) {
		(void)base_fail(&why, -EPROTO, "NVSP request %u for %u sub-channels",
				request->subchannel.operation, count);
		complain(netvsp, &why);
		nvsp_subchannel_complete(payload, NVSP_STATUS_FAIL, 0);
		complete(netvsp, packet, payload);
		return;
	}
	if (count > netvsp->queue_limit - 1)
		count = netvsp->queue_limit - 1;
	control->sub_request.is_set =
		true; /* answered before the next packet is looked at, or later */
	control->sub_request.trans_id = packet->trans_id;
	control->sub_request.count = count;
}

void netvsp_control_gone(struct netvsp *netvsp)
{
	struct netvsp_queue *queue = primary_queue(netvsp);

	for (uint32_t i = 1; i < netvsp->queue_limit; i++)
		if (netvsp->subs[i].channel != NULL && atomic_load(&netvsp->subs[i].gone))
			netvsp->subs[i].channel = NULL;
	if (netvsp->closing && atomic_load(&netvsp->live_buffers) == 0) {
		netvsp->closing = false;
		vmbus_channel_closed(netvsp->primary);
	}
	if (netvsp->control.sub_request.is_set && queue->channel != NULL && !queue->quiet) {
		(void)netvsp_queue_flush(queue);
		vmbus_channel_flush(queue->channel);
	}
}

static void gone_run(struct base_io_task *task)
{
	struct netvsp *netvsp =
		(struct netvsp *)((char *)task - offsetof(struct netvsp, control_task));

	atomic_store(&netvsp->control_posted, false);
	netvsp_control_gone(netvsp);
}

void netvsp_control_init(struct netvsp *netvsp)
{
	netvsp->control_task.run = gone_run;
}

void netvsp_control_kick(struct netvsp *netvsp)
{
	if (!atomic_exchange(&netvsp->control_posted, true))
		base_io_post(netvsp->queues[0].loop, &netvsp->control_task);
}

void netvsp_control_message(struct netvsp *netvsp, const struct vmbus_packet *packet,
			    const struct nvsp_request *request)
{
	struct netvsp_control *control = &netvsp->control;
	uint8_t payload[NVSP_MESSAGE_BYTES];

	switch (request->type) {
	case NVSP_INIT:
		on_init(netvsp, packet, request);
		return;
	case NVSP_RECEIVE_BUFFER:
	case NVSP_SEND_BUFFER:
		on_buffer(netvsp, packet, request);
		return;
	case NVSP_REVOKE_RECEIVE_BUFFER:
	case NVSP_REVOKE_SEND_BUFFER:
		on_revoke(netvsp, packet, request);
		return;
	case NVSP_SUBCHANNEL:
		on_subchannel(netvsp, packet, request);
		return;
	case NVSP_NDIS_VERSION:
		control->ndis_major = request->ndis.major;
		control->ndis_minor = request->ndis.minor;
		break;
	case NVSP_NDIS_CONFIG:
		control->guest_mtu = request->config.mtu;
		control->capabilities = request->config.capabilities;
		break;
	case NVSP_INVALID:
	case NVSP_INIT_COMPLETE:
	case NVSP_RECEIVE_BUFFER_COMPLETE:
	case NVSP_SEND_BUFFER_COMPLETE:
	case NVSP_RNDIS:
	case NVSP_RNDIS_COMPLETE:
	case NVSP_SWITCH_DATA_PATH:
	case NVSP_INDIRECTION_TABLE:
	default:
		break; /* a completion is all it takes */
	}
	nvsp_rndis_complete(payload, NVSP_STATUS_SUCCESS);
	complete(netvsp, packet, payload);
}

/* --- RNDIS --- */

/* The next free answer; NULL: the guest does not take them, and loses its channel. */
static struct netvsp_answer *answer_new(struct netvsp *netvsp)
{
	struct netvsp_control *control = &netvsp->control;
	struct vmbus_channel *channel = primary_queue(netvsp)->channel;

	if (control->answer_count == NETVSP_ANSWERS_MAX) {
		if (channel != NULL)
			vmbus_channel_break(channel, "%u answers to RNDIS requests wait",
					    control->answer_count);
		return NULL;
	}
	return &control->answers[(control->answer_first + control->answer_count++) %
				 NETVSP_ANSWERS_MAX];
}

bool netvsp_control_indicate(struct netvsp *netvsp, uint32_t status)
{
	struct netvsp_answer *answer = NULL;
	struct base_writer out;

	/* Nobody asked: the guest is not to blame for what does not fit. */
	if (!netvsp->control.rndis_ready || netvsp->control.answer_count == NETVSP_ANSWERS_MAX)
		return false;
	answer = answer_new(netvsp);
	base_assert(answer != NULL);
	out = base_writer_over(answer->bytes, sizeof(answer->bytes));
	rndis_indicate(&out, status);
	answer->size_bytes = (uint32_t)out.offset_bytes;
	return true;
}

/* The guest believes of its link what it was told last; what there was no room for is told later.
 */
static void show_link(struct netvsp *netvsp)
{
	const bool up = atomic_load(&netvsp->link_up);

	if (up != netvsp->control.link_shown &&
	    netvsp_control_indicate(netvsp, up ? RNDIS_STATUS_MEDIA_CONNECT
					       : RNDIS_STATUS_MEDIA_DISCONNECT))
		netvsp->control.link_shown = up;
}

static uint64_t sum_of(const struct netvsp *netvsp, size_t offset)
{
	uint64_t sum = 0;

	for (uint32_t i = 0; i < netvsp->queue_limit; i++)
		sum += atomic_load_explicit(
			(_Atomic uint64_t *)(void *)((char *)&netvsp->queues[i] + offset),
			memory_order_relaxed);
	return sum;
}

static struct rndis_card card_facts(const struct netvsp *netvsp)
{
	struct rndis_card card = {
		.nvsp_version = netvsp->control.version,
		.mtu = netvsp->options.mtu,
		.link_up = atomic_load(&netvsp->link_up),
		.filter = atomic_load(&netvsp->filter),
		.queue_count = netvsp->queue_limit,
		.mac_may_change = netvsp->options.mac_spoofing,
		.rx_frames = sum_of(netvsp, offsetof(struct netvsp_queue, rx_frames)),
		.tx_frames = sum_of(netvsp, offsetof(struct netvsp_queue, tx_frames)),
		.rx_dropped = sum_of(netvsp, offsetof(struct netvsp_queue, rx_dropped)),
		.tx_dropped = sum_of(netvsp, offsetof(struct netvsp_queue, tx_dropped)),
	};

	memcpy(card.permanent_mac, netvsp->options.mac, 6);
	netvsp_mac_unpack(atomic_load(&netvsp->mac), card.mac);
	return card;
}

static void apply(struct netvsp *netvsp, const struct rndis_change *change)
{
	switch (change->kind) {
	case RNDIS_CHANGE_FILTER:
		atomic_store(&netvsp->filter, change->filter);
		kick_all(netvsp);
		break;
	case RNDIS_CHANGE_MAC:
		atomic_store(&netvsp->mac, netvsp_mac_pack(change->mac));
		break;
	case RNDIS_CHANGE_OFFLOADS:
		atomic_store(&netvsp->offloads,
			     (atomic_load(&netvsp->offloads) | change->offloads_on) &
				     ~change->offloads_off);
		break;
	case RNDIS_CHANGE_RSS:
		netvsp->control.rss_on = change->rss_on;
		break;
	case RNDIS_CHANGE_NONE:
	default:
		break;
	}
}

static void answer_query(struct netvsp *netvsp, const struct rndis_control *request,
			 struct base_writer *out)
{
	const struct rndis_card card = card_facts(netvsp);
	uint8_t info[RNDIS_INFO_BYTES_MAX];
	uint32_t info_bytes = 0;
	const uint32_t status = rndis_oid_query(&card, request->oid, info, &info_bytes);

	rndis_query_complete(out, request->request_id, status, info, info_bytes);
}

static void answer_set(struct netvsp *netvsp, const struct rndis_control *request,
		       struct base_writer *out)
{
	const struct rndis_card card = card_facts(netvsp);
	struct rndis_change change = { .kind = RNDIS_CHANGE_NONE };
	const uint32_t status = rndis_oid_set(&card, request, &change);

	if (status == RNDIS_STATUS_SUCCESS)
		apply(netvsp, &change);
	rndis_set_complete(out, request->request_id, status);
}

static void start_rndis(struct netvsp *netvsp)
{
	netvsp->control.rndis_ready = true;
	netvsp->control.link_shown = atomic_load(&netvsp->link_up); /* it will ask */
	atomic_store(&netvsp->data_on, true);
}

enum nvsp_status netvsp_control_request(struct netvsp *netvsp, const uint8_t *bytes,
					uint32_t size_bytes)
{
	struct rndis_control request = { .type = RNDIS_INVALID };
	struct netvsp_answer *answer = NULL;
	struct base_error why = { 0 };
	struct base_writer out;
	int rc = rndis_control_decode(bytes, size_bytes, &request, &why);

	if (rc == 0 && netvsp->control.version == NVSP_VERSION_NONE)
		rc = base_fail(&why, -EPROTO, "an RNDIS request before NVSP is initialised");
	if (rc < 0) {
		netvsp_complain(primary_queue(netvsp), NETVSP_COMPLAINT_RNDIS, &why);
		return NVSP_STATUS_BAD_RNDIS;
	}
	if (request.type == RNDIS_HALT) { /* has no answer */
		data_off(netvsp);
		kick_all(netvsp);
		return NVSP_STATUS_SUCCESS;
	}
	answer = answer_new(netvsp);
	if (answer == NULL)
		return NVSP_STATUS_BUSY;
	out = base_writer_over(answer->bytes, sizeof(answer->bytes));
	if (request.type == RNDIS_INIT) {
		start_rndis(netvsp);
		rndis_init_complete(&out, request.request_id, RNDIS_STATUS_SUCCESS);
	} else if (request.type == RNDIS_RESET) {
		atomic_store(&netvsp->filter, 0);
		kick_all(netvsp);
		rndis_reset_complete(&out, RNDIS_STATUS_SUCCESS);
	} else if (request.type == RNDIS_KEEPALIVE) {
		rndis_keepalive_complete(&out, request.request_id, RNDIS_STATUS_SUCCESS);
	} else if (request.type == RNDIS_QUERY) {
		answer_query(netvsp, &request, &out);
	} else {
		answer_set(netvsp, &request, &out);
	}
	base_assert(!out.failed);
	answer->size_bytes = (uint32_t)out.offset_bytes;
	return NVSP_STATUS_SUCCESS;
}

/* --- out --- */

static bool flush_table(struct netvsp *netvsp)
{
	struct netvsp_queue *queue = primary_queue(netvsp);
	uint8_t table[NVSP_TABLE_MESSAGE_BYTES];
	const struct vmbus_send send = {
		.type = VMBUS_PACKET_INBAND,
		.payload = table,
		.payload_bytes = sizeof(table),
	};

	if (!netvsp->control.table_waits)
		return true;
	nvsp_indirection_table(table, netvsp->control.sub_count + 1);
	if (vmbus_send(queue->channel, &send) == -EAGAIN)
		return false;
	netvsp->control.table_waits = false;
	return true;
}

/* Whether the ring took it; without a section it waits for the guest, not for room. */
static bool flush_answers(struct netvsp *netvsp)
{
	struct netvsp_control *control = &netvsp->control;
	struct netvsp_queue *queue = primary_queue(netvsp);
	uint32_t section = 0;

	while (control->answer_count > 0 && queue->receive != NULL) {
		const struct netvsp_answer *answer = &control->answers[control->answer_first];
		int rc = 0;

		if (!netvsp_section_take(queue->receive, 0, 0, &section))
			return true;
		rc = vmbus_gpadl_write(queue->receive->gpadl,
				       section * queue->receive->section_bytes, answer->bytes,
				       answer->size_bytes);
		if (rc == 0)
			rc = netvsp_queue_send_section(queue, section, answer->size_bytes, true);
		if (rc < 0)
			netvsp_section_give(queue->receive, 0, section);
		if (rc == -EAGAIN)
			return false;
		control->answer_first = (control->answer_first + 1) % NETVSP_ANSWERS_MAX;
		control->answer_count--;
	}
	return true;
}

bool netvsp_control_flush(struct netvsp *netvsp)
{
	if (primary_queue(netvsp)->channel == NULL)
		return true;
	show_link(netvsp);
	return flush_sub_request(netvsp) && flush_table(netvsp) && flush_answers(netvsp);
}
