/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Channels: packets in, answers out, the start sequence on the primary one.
 */
#include "hypervisor/storvsp/storvsp_priv.h"

#include <errno.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define CLASS_SCSI              "ba6163d9-04a1-4d29-b605-72e2ffb1dc7f"
#define OFFER_ENUMERATE_DEVICES 1 /* the guest shows it to its drivers */

void storvsp_list_add(struct storvsp_list *list, struct storvsp_request *request)
{
	request->next = NULL;
	if (list->tail != NULL)
		list->tail->next = request;
	else
		list->head = request;
	list->tail = request;
}

struct storvsp_request *storvsp_list_take(struct storvsp_list *list)
{
	struct storvsp_request *request = list->head;

	if (request == NULL)
		return NULL;
	list->head = request->next;
	if (list->head == NULL)
		list->tail = NULL;
	request->next = NULL;
	return request;
}

/* --- memory of an open channel --- */

int storvsp_channel_memory(struct storvsp_channel *channel)
{
	const size_t data_bytes = (size_t)STORVSP_REQUESTS * SCSI_DATA_BYTES;
	const size_t bounce_bytes = (size_t)STORVSP_BOUNCES * STORVSP_TRANSFER_BYTES;

	channel->requests = calloc(STORVSP_REQUESTS, sizeof(*channel->requests));
	channel->memory = aligned_alloc(SCSI_DATA_BYTES, data_bytes + bounce_bytes);
	if (channel->requests == NULL || channel->memory == NULL) {
		free(channel->requests);
		free(channel->memory);
		channel->requests = NULL;
		channel->memory = NULL;
		return -ENOMEM;
	}
	channel->unused = (struct storvsp_list){ .head = NULL };
	channel->parked = (struct storvsp_list){ .head = NULL };
	channel->bouncing = (struct storvsp_list){ .head = NULL };
	channel->outgoing = (struct storvsp_list){ .head = NULL };
	for (uint32_t i = 0; i < STORVSP_REQUESTS; i++) {
		channel->requests[i].channel = channel;
		channel->requests[i].data = channel->memory + (size_t)i * SCSI_DATA_BYTES;
		storvsp_list_add(&channel->unused, &channel->requests[i]);
	}
	for (uint32_t i = 0; i < STORVSP_BOUNCES; i++)
		channel->bounces[i] =
			channel->memory + data_bytes + (size_t)i * STORVSP_TRANSFER_BYTES;
	channel->bounce_count = STORVSP_BOUNCES;
	channel->starved = false;
	return 0;
}

static void memory_free(struct storvsp_channel *channel)
{
	free(channel->requests);
	free(channel->memory);
	channel->requests = NULL;
	channel->memory = NULL;
	channel->unused = (struct storvsp_list){ .head = NULL };
}

/* --- answers --- */

void storvsp_channel_flush(struct storvsp_channel *channel)
{
	if (!channel->unflushed)
		return;
	channel->unflushed = false;
	if (channel->state == STORVSP_OPEN)
		vmbus_channel_flush(channel->bus);
}

static void flush_task(struct base_io_task *task)
{
	struct storvsp_channel *channel =
		(struct storvsp_channel *)((char *)task -
					   offsetof(struct storvsp_channel, flush_task));

	channel->flush_posted = false;
	storvsp_channel_flush(channel);
}

/* What is sent in one turn of the loop interrupts the guest once. */
static void flush_soon(struct storvsp_channel *channel)
{
	channel->unflushed = true;
	if (channel->flush_posted)
		return;
	channel->flush_posted = true;
	channel->flush_task = (struct base_io_task){ .run = flush_task };
	base_io_post(channel->shard->loop, &channel->flush_task);
}

void storvsp_channel_release(struct storvsp_request *request)
{
	struct storvsp_channel *channel = request->channel;

	request->disk = NULL;
	storvsp_list_add(&channel->unused, request);
	if (channel->starved && channel->state == STORVSP_OPEN) {
		channel->starved = false;
		vmbus_channel_again(channel->bus);
	}
}

/* false: there is no room. */
static bool send(struct storvsp_channel *channel, enum vmbus_packet_type type, uint64_t trans_id,
		 const uint8_t message[VSTOR_BYTES])
{
	const struct vmbus_send packet = {
		.type = type,
		.trans_id = trans_id,
		.payload = message,
		.payload_bytes = VSTOR_BYTES,
	};
	int rc = vmbus_send(channel->bus, &packet);

	if (rc == -EAGAIN)
		return false;
	flush_soon(channel); /* -EPIPE: it is closing, and nobody waits for it any more */
	return true;
}

void storvsp_channel_answer(struct storvsp_request *request)
{
	struct storvsp_channel *channel = request->channel;

	if (request->wants_completion && channel->state == STORVSP_OPEN &&
	    (channel->outgoing.head != NULL ||
	     !send(channel, VMBUS_PACKET_COMPLETION, request->trans_id, request->answer))) {
#ifndef GODWIT_MUTANT_STORVSP_RING_FULL
		storvsp_list_add(&channel->outgoing, request);
		return;
#endif
	}
	storvsp_channel_release(request);
}

static void send_outgoing(struct storvsp_channel *channel)
{
	while (channel->outgoing.head != NULL) {
		struct storvsp_request *request = channel->outgoing.head;

		if (!send(channel, VMBUS_PACKET_COMPLETION, request->trans_id, request->answer))
			return;
		(void)storvsp_list_take(&channel->outgoing);
		storvsp_channel_release(request);
	}
}

void storvsp_tell_now(struct storvsp *storvsp)
{
	static const struct {
		uint32_t what;
		enum vstor_operation operation;
	} rows[] = { { STORVSP_TELL_REMOVE, VSTOR_REMOVE_DEVICE },
		     { STORVSP_TELL_ENUMERATE, VSTOR_ENUMERATE_BUS } };
	struct storvsp_channel *primary = &storvsp->channels[0];
	uint8_t message[VSTOR_BYTES];

	if (primary->shard->quiesced)
		return;
	if (primary->state != STORVSP_OPEN || atomic_load(&storvsp->protocol) != STORVSP_READY) {
		(void)atomic_exchange(&storvsp->tell, 0); /* it will look for itself */
		return;
	}
	for (uint32_t i = 0; i < 2; i++) {
		if ((atomic_fetch_and(&storvsp->tell, ~rows[i].what) & rows[i].what) == 0)
			continue;
		vstor_tell(rows[i].operation, message);
		if (!send(primary, VMBUS_PACKET_INBAND, 0, message))
			(void)atomic_fetch_or(&storvsp->tell, rows[i].what); /* at ready() */
	}
}

/* --- the start sequence --- */

static uint32_t reset_units(struct storvsp *storvsp)
{
	for (uint32_t i = 0; i < STORVSP_LUNS; i++) {
		if (storvsp->channels[0].shard->units[i].kind != STORVSP_INVALID)
			(void)atomic_fetch_or(&storvsp->attention[i], SCSI_ATTENTION_RESET);
	}
	return VSTOR_STATUS_OK;
}

static uint32_t take_version(struct storvsp *storvsp, uint32_t version)
{
	if (version != 0x0602 && version != 0x0600 && version != 0x0501)
		return VSTOR_STATUS_REVISION_MISMATCH;
	atomic_store(&storvsp->version, version);
	atomic_store(&storvsp->protocol, STORVSP_VERSIONED);
	return VSTOR_STATUS_OK;
}

static uint32_t create_sub_channels(struct storvsp *storvsp, uint32_t count)
{
	if (count > storvsp->sub_max)
		return VSTOR_STATUS_INVALID_PARAMETER;
	for (uint32_t i = 1; i <= count; i++) {
		if (atomic_load(&storvsp->channels[i].offer_state) != STORVSP_NOT_OFFERED)
			return VSTOR_STATUS_INVALID_STATE;
	}
	for (uint32_t i = 1; i <= count; i++) {
		if (storvsp_channel_offer(&storvsp->channels[i], NULL) != 0)
			return VSTOR_STATUS_NO_RESOURCES; /* those before it go with the primary */
		atomic_store(&storvsp->sub_count, i);
	}
	return VSTOR_STATUS_OK;
}

static uint32_t control(struct storvsp *storvsp, const uint8_t *message)
{
	uint32_t protocol = atomic_load(&storvsp->protocol);

	switch (vstor_operation(message)) {
	case VSTOR_BEGIN_INITIALIZATION:
		atomic_store(&storvsp->protocol, STORVSP_BEGUN);
		return VSTOR_STATUS_OK;
	case VSTOR_QUERY_PROTOCOL_VERSION:
		return protocol == STORVSP_BEGUN ? take_version(storvsp, vstor_word(message))
						 : VSTOR_STATUS_INVALID_STATE;
	case VSTOR_QUERY_PROPERTIES:
		return protocol == STORVSP_VERSIONED ? VSTOR_STATUS_OK : VSTOR_STATUS_INVALID_STATE;
	case VSTOR_END_INITIALIZATION:
		if (protocol != STORVSP_VERSIONED)
			return VSTOR_STATUS_INVALID_STATE;
		atomic_store(&storvsp->protocol, STORVSP_READY);
		return VSTOR_STATUS_OK;
	case VSTOR_CREATE_SUB_CHANNELS:
		return protocol == STORVSP_READY ? create_sub_channels(storvsp, vstor_word(message))
						 : VSTOR_STATUS_INVALID_STATE;
	case VSTOR_RESET_LUN:
	case VSTOR_RESET_ADAPTER:
	case VSTOR_RESET_BUS:
		return protocol == STORVSP_READY ? reset_units(storvsp)
						 : VSTOR_STATUS_INVALID_STATE;
	default:
		return VSTOR_STATUS_INVALID_REQUEST;
	}
}

static void take_message(struct storvsp_request *request)
{
	struct storvsp_channel *channel = request->channel;
	struct storvsp *storvsp = channel->storvsp;
	uint32_t operation = vstor_operation(request->message);
	uint32_t status = VSTOR_STATUS_INVALID_REQUEST;

	if (operation == VSTOR_EXECUTE_SRB) {
		if (atomic_load(&storvsp->protocol) == STORVSP_READY) {
			storvsp_request_begin(request);
			return;
		}
		status = VSTOR_STATUS_INVALID_STATE;
	} else if (channel->index == 0) {
		status = control(storvsp, request->message);
	}
	if (status == VSTOR_STATUS_INVALID_STATE || status == VSTOR_STATUS_INVALID_REQUEST)
		storvsp_complain(storvsp, STORVSP_BAD_ORDER, "operation unknown or out of order");
	if (status == VSTOR_STATUS_OK && operation == VSTOR_QUERY_PROPERTIES)
		vstor_answer_properties(request->message, (uint16_t)storvsp->sub_max,
					STORVSP_TRANSFER_BYTES, request->answer);
	else
		vstor_answer(request->message, status, request->answer);
	storvsp_channel_answer(request);
}

/* --- packets --- */

static void take_packet(struct storvsp_channel *channel, const struct vmbus_packet *packet)
{
	struct storvsp_request *request = NULL;
	uint32_t size = packet->payload_bytes < VSTOR_BYTES ? packet->payload_bytes : VSTOR_BYTES;

	if (packet->type == VMBUS_PACKET_COMPLETION)
		return; /* nothing we send asks for one */
	if (packet->type == VMBUS_PACKET_XFER_PAGES || packet->payload_bytes < VSTOR_BYTES_MIN) {
		storvsp_complain(channel->storvsp, STORVSP_BAD_PACKET, "type or length");
		vmbus_channel_break(channel->bus, "packet of type %d with %u bytes",
				    (int)packet->type, packet->payload_bytes);
		return;
	}
	request = storvsp_list_take(&channel->unused);
	base_assert(request != NULL); /* ready() has looked */
	memset(request->message, 0, sizeof(request->message));
	memcpy(request->message, packet->payload, size);
	request->trans_id = packet->trans_id;
	request->wants_completion = packet->wants_completion;
	request->tries = 0;
	request->gone = false;
	storvsp_data_take(request, packet);
	take_message(request);
}

static void ready(void *device, struct vmbus_channel *bus)
{
	struct storvsp_channel *channel = device;

	(void)bus;
	if (channel->state != STORVSP_OPEN || channel->shard->quiesced)
		return;
	send_outgoing(channel);
	if (channel->index == 0 && atomic_load(&channel->storvsp->tell) != 0)
		storvsp_tell_now(channel->storvsp);
	for (uint32_t i = 0; i < STORVSP_BATCH; i++) {
		struct vmbus_packet packet;

		if (channel->unused.head == NULL) {
			channel->starved = true; /* until one is over */
			return;
		}
		if (vmbus_receive(channel->bus, &packet) != 1)
			return;
		take_packet(channel, &packet);
		if (channel->state != STORVSP_OPEN)
			return;
	}
	vmbus_channel_again(channel->bus);
}

/* --- open, close, gone --- */

static int opened(void *device, struct vmbus_channel *bus,
		  const uint8_t user_data[VMBUS_USER_DATA_BYTES])
{
	struct storvsp_channel *channel = device;
	int rc = 0;

	(void)user_data;
	if (channel->state != STORVSP_CLOSED)
		return -EBUSY;
	rc = storvsp_channel_memory(channel);
	if (rc != 0)
		return rc;
	if (channel->index == 0) {
		atomic_store(&channel->storvsp->protocol, STORVSP_IDLE);
		/* A driver that begins knows no unit. */
		for (uint32_t i = 0; i < STORVSP_LUNS; i++)
			(void)atomic_fetch_and(&channel->storvsp->drive[i],
					       ~(STORVSP_VACATED | STORVSP_TOLD));
	}
	channel->bus = bus;
	channel->state = STORVSP_OPEN;
	return 0;
}

bool storvsp_channel_is_lost(const struct storvsp_channel *channel)
{
	return atomic_load(&channel->offer_state) == STORVSP_OFFERED &&
	       vmbus_channel_is_broken(channel->offer);
}

static void mark_list(const struct storvsp_list *list, uint32_t lun)
{
	for (struct storvsp_request *at = list->head; at != NULL; at = at->next) {
		struct vstor_srb srb;

		vstor_srb_decode(at->message, &srb);
		if (srb.path == 0 && srb.target == 0 && srb.lun == lun)
			at->gone = true;
	}
}

void storvsp_channel_gone(struct storvsp_channel *channel, uint32_t lun)
{
	if (channel->state != STORVSP_OPEN)
		return;
	mark_list(&channel->parked, lun);
	mark_list(&channel->bouncing, lun);
}

void storvsp_channel_drop(struct storvsp_channel *channel)
{
	struct storvsp_list *lists[] = { &channel->parked, &channel->bouncing, &channel->outgoing };

	for (uint32_t i = 0; i < 3; i++) {
		while (lists[i]->head != NULL)
			storvsp_channel_release(storvsp_list_take(lists[i]));
	}
}

void storvsp_channel_closed(struct storvsp_channel *channel)
{
	struct storvsp *storvsp = channel->storvsp;
	struct vmbus_channel *bus = channel->bus;
	bool gave = false;

	for (uint32_t i = 0; i < STORVSP_LUNS; i++) {
		if (channel->gave_back[i] == NULL)
			continue;
		disk_keep(channel->gave_back[i]);
		channel->gave_back[i] = NULL;
		gave = true;
	}
	memory_free(channel);
	channel->state = STORVSP_CLOSED;
	channel->bus = NULL;
	if (gave) {
		(void)atomic_fetch_sub(&storvsp->giving_back, 1);
		storvsp_unpark_all(storvsp);
	}
	vmbus_channel_closed(bus);
}

/* A request that waits for its store must not keep the channel from closing. */
static void close_give_back(struct storvsp_channel *channel)
{
	struct storvsp_shard *shard = channel->shard;

	(void)atomic_fetch_add(&channel->storvsp->giving_back, 1);
	for (uint32_t i = 0; i < STORVSP_REQUESTS; i++) {
		struct storvsp_request *request = &channel->requests[i];

		if (request->disk == NULL || request->srb.lun >= STORVSP_LUNS ||
		    shard->counts[request->srb.lun].in_flight == 0 ||
		    channel->gave_back[request->srb.lun] != NULL)
			continue;
		channel->gave_back[request->srb.lun] = request->disk;
		disk_give_back(request->disk);
	}
}

void storvsp_channel_retract_subs(struct storvsp *storvsp)
{
	atomic_store(&storvsp->protocol, STORVSP_IDLE);
	atomic_store(&storvsp->sub_count, 0);
	for (uint32_t i = 1; i < STORVSP_CHANNELS_MAX; i++) {
		struct storvsp_channel *sub = &storvsp->channels[i];
		uint32_t offered = STORVSP_OFFERED;

		if (atomic_compare_exchange_strong(&sub->offer_state, &offered, STORVSP_RETRACTED))
			vmbus_retract(sub->offer);
	}
}

static void closing(void *device, struct vmbus_channel *bus)
{
	struct storvsp_channel *channel = device;

	(void)bus;
	if (channel->state != STORVSP_OPEN)
		return;
	channel->state = STORVSP_CLOSING;
	storvsp_channel_drop(channel);
	if (channel->index == 0)
		storvsp_channel_retract_subs(channel->storvsp);
	if (channel->at_disk > 0) {
		close_give_back(channel);
#ifdef GODWIT_MUTANT_STORVSP_CLOSE_WAIT
		vmbus_channel_closed(channel->bus);
#endif
		return;
	}
	storvsp_channel_closed(channel);
}

static void gone(void *device, struct vmbus_channel *bus)
{
	struct storvsp_channel *channel = device;

	(void)bus;
	atomic_store(&channel->offer_state, STORVSP_NOT_OFFERED);
}

const struct vmbus_channel_ops storvsp_channel_ops = {
	.opened = opened,
	.ready = ready,
	.closing = closing,
	.gone = gone,
};

int storvsp_channel_offer(struct storvsp_channel *channel, struct base_error *err)
{
	struct storvsp *storvsp = channel->storvsp;
	struct vmbus_offer offer = {
		.instance = storvsp->options.instance,
		.sub_index = (uint16_t)channel->index,
		.flags = OFFER_ENUMERATE_DEVICES,
		.loop = channel->shard->loop,
		.ops = &storvsp_channel_ops,
		.device = channel,
	};
	char name[32];
	int rc = 0;

	if (!disk_guid_parse(CLASS_SCSI, strlen(CLASS_SCSI), &offer.type))
		base_bug("class GUID '%s'", CLASS_SCSI);
	(void)snprintf(name, sizeof(name), channel->index == 0 ? "%s" : "%s.%u", storvsp->name,
		       channel->index);
	offer.name = name;
	rc = vmbus_offer(storvsp->options.bus, &offer, &channel->offer, err);
	if (rc == 0)
		atomic_store(&channel->offer_state, STORVSP_OFFERED);
	return rc;
}

/* --- parked requests --- */

static void unpark_task(struct base_io_task *task)
{
	struct storvsp_channel *channel =
		(struct storvsp_channel *)((char *)task -
					   offsetof(struct storvsp_channel, unpark_task));
	struct storvsp_list list = channel->parked;

	atomic_store(&channel->unpark_posted, false);
	if (channel->state != STORVSP_OPEN || channel->shard->quiesced)
		return;
	channel->parked = (struct storvsp_list){ .head = NULL };
	while (list.head != NULL)
		storvsp_request_begin(storvsp_list_take(&list));
	while (channel->bounce_count > 0 && channel->bouncing.head != NULL)
		storvsp_request_retry_bounce(channel);
	if (channel->outgoing.head != NULL)
		vmbus_channel_again(channel->bus);
}

void storvsp_channel_init(struct storvsp_channel *channel)
{
	channel->unpark_task = (struct base_io_task){ .run = unpark_task };
}
