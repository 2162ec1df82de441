/* SPDX-License-Identifier: Apache-2.0 */
/* The set of integration services: channels, sending, receiving.  On the set's loop. */
#include "hypervisor/ic/ic.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/bytes.h"
#include "base/log.h"
#include "hypervisor/ic/ic_priv.h"

/* Of the offer: a device interface, and a pipe of messages. */
#define OFFER_FLAGS  0x11u
#define PIPE_MESSAGE 4u

static const struct {
	const char *name;
	const char *type;
	const char *instance;
} offers[IC_SERVICES] = {
	[IC_HEARTBEAT] = { "ic-heartbeat", "57164f39-9115-4e78-ab55-382f3bd5422d",
			   "fd149e91-82e0-4a7d-afa6-2a4166cbd7c0" },
	[IC_SHUTDOWN] = { "ic-shutdown", "0e0b6031-5213-4934-818b-38d90ced39db",
			  "b6650ff7-33bc-4840-8048-e0676786f393" },
	[IC_TIME] = { "ic-time", "9527e630-d0ae-497b-adce-e80ab0175caf",
		      "2dd1ce17-079e-403c-b352-a1921ee207ee" },
	[IC_KVP] = { "ic-kvp", "a9a0f4e7-5a45-4d96-b827-8a841e8c03e6",
		     "242ff919-07db-4180-9c2e-b86cb68c8c55" },
	[IC_VSS] = { "ic-vss", "35fa2e29-ea23-4236-96ae-3a6ebacba440",
		     "2450ee40-33bf-4fbd-892e-9fb06e9214cf" },
};

bool ic_is_active(const struct ic_set *set)
{
	return set->running && !set->quiet;
}

bool ic_is_idle(const struct ic_set *set, enum ic_service service)
{
	const struct ic_port *port = &set->channels[service].port;

	return ic_is_active(set) && port->state == IC_PORT_READY && !port->pending;
}

void ic_log_refused(struct ic_channel *channel, const struct base_error *err)
{
	uint64_t now_ns = base_io_loop_now_ns(channel->set->options.loop);

	if (now_ns < channel->log_after_ns)
		return;
	channel->log_after_ns = now_ns + IC_LOG_PERIOD_MS * BASE_NS_PER_MS;
	base_log(BASE_LOG_WARNING, "ic.refused", "vm=%s service=%s why=%s",
		 channel->set->options.vm_name, ic_service_text(channel->port.service),
		 base_log_str(err->text));
}

static int send_message(struct ic_channel *channel, size_t size_bytes)
{
	struct ic_set *set = channel->set;
	size_t padded_bytes = (size_bytes + 7) / 8 * 8;
	struct vmbus_send send = {
		.type = VMBUS_PACKET_INBAND,
		.trans_id = channel->port.next_transaction,
		.payload = set->message,
		.payload_bytes = (uint32_t)padded_bytes,
	};
	int result = 0;

	memset(set->message + size_bytes, 0, padded_bytes - size_bytes);
	result = vmbus_send(channel->channel, &send);
	if (result < 0)
		return -EAGAIN; /* full, or about to close: in both cases we are told */
	ic_port_sent(&channel->port);
	vmbus_channel_flush(channel->channel);
	return 0;
}

int ic_send(struct ic_set *set, enum ic_service service, uint16_t body_bytes)
{
	struct ic_channel *channel = &set->channels[service];

	return send_message(channel, ic_port_request(&channel->port, body_bytes, set->message));
}

void ic_pump(struct ic_set *set, enum ic_service service)
{
	struct ic_channel *channel = &set->channels[service];

	if (!ic_is_active(set) || channel->port.pending)
		return;
	if (channel->port.state == IC_PORT_NEGOTIATING) {
		(void)send_message(channel, ic_port_negotiate(&channel->port, set->message));
		return;
	}
	if (channel->port.state != IC_PORT_READY)
		return;
	switch (service) {
	case IC_TIME:
		ic_time_pump(set);
		break;
	case IC_KVP:
		ic_kvp_pump(set);
		break;
	case IC_VSS:
		ic_vss_pump(set);
		break;
	case IC_HEARTBEAT:
	case IC_SHUTDOWN: /* by timer, and when asked to */
	case IC_SERVICES:
		break;
	}
}

static void negotiated(struct ic_channel *channel)
{
	struct ic_set *set = channel->set;
	const struct ic_port *port = &channel->port;

	base_log(BASE_LOG_INFO, "ic.negotiated", "vm=%s service=%s version=%u.%u framework=%u.%u",
		 set->options.vm_name, ic_service_text(port->service),
		 (unsigned)port->version.major, (unsigned)port->version.minor,
		 (unsigned)port->framework.major, (unsigned)port->framework.minor);
	if (port->service == IC_TIME)
		set->sync_due = true; /* a guest that has just started */
	if (port->service == IC_KVP)
		set->kvp_walks = true;
	ic_pump(set, port->service);
}

static void answered(struct ic_set *set, enum ic_service service, const struct ic_answer *answer)
{
	switch (service) {
	case IC_HEARTBEAT:
		ic_heartbeat_answer(set, answer);
		break;
	case IC_SHUTDOWN:
		ic_shutdown_answer(set, answer);
		break;
	case IC_KVP:
		ic_kvp_answer(set, answer);
		break;
	case IC_VSS:
		ic_vss_answer(set, answer);
		break;
	case IC_TIME: /* there is nothing in it */
	case IC_SERVICES:
		break;
	}
}

static void take(struct ic_channel *channel, const struct vmbus_packet *packet)
{
	struct ic_answer answer;
	struct base_error err = { 0 };
	int event = 0;

	if (packet->type != VMBUS_PACKET_INBAND || packet->header_bytes != 0)
		event = base_fail(&err, -EBADMSG, "packet of type %d", (int)packet->type);
	else
		event = ic_port_receive(&channel->port, packet->payload, packet->payload_bytes,
					&answer, &err);
	if (event < 0) {
		ic_log_refused(channel, &err);
	} else if (event == IC_EVENT_READY) {
		negotiated(channel);
	} else if (event == IC_EVENT_REFUSED) {
		base_log(BASE_LOG_INFO, "ic.none", "vm=%s service=%s",
			 channel->set->options.vm_name, ic_service_text(channel->port.service));
	} else {
		answered(channel->set, channel->port.service, &answer);
	}
}

static void ready(void *device, struct vmbus_channel *bus_channel)
{
	struct ic_channel *channel = device;
	struct vmbus_packet packet;
	uint32_t count = 0;

	if (channel->set->quiet)
		return;
	while (count < IC_PACKETS_PER_TURN && vmbus_receive(bus_channel, &packet) == 1) {
		take(channel, &packet);
		count++;
	}
	if (count == IC_PACKETS_PER_TURN)
		vmbus_channel_again(bus_channel);
	ic_pump(channel->set, channel->port.service);
}

static int opened(void *device, struct vmbus_channel *bus_channel,
		  const uint8_t user_data[VMBUS_USER_DATA_BYTES])
{
	struct ic_channel *channel = device;

	(void)user_data;
	channel->channel = bus_channel;
	ic_port_opened(&channel->port);
	/* Not from within: the bus answers the guest's open after this. */
	vmbus_channel_again(bus_channel);
	return 0;
}

/* The service is not there any more, and what was under way with it. */
static void forget(struct ic_channel *channel, const char *why)
{
	struct ic_set *set = channel->set;
	enum ic_service service = channel->port.service;

	ic_port_closed(&channel->port);
	ic_calls_end(channel, why);
	if (service == IC_HEARTBEAT)
		ic_heartbeat_set(set, IC_HEARTBEAT_NONE);
	if (service == IC_VSS)
		ic_vss_forget(set);
	if (service == IC_KVP) {
		set->kvp_walks = false;
		set->kvp_stale = false;
		set->kvp_index = 0;
		set->info.kvp = false;
	}
}

static void closing(void *device, struct vmbus_channel *bus_channel)
{
	forget(device, "the guest closed the channel before it answered");
	vmbus_channel_closed(bus_channel);
}

static const struct vmbus_channel_ops channel_ops = {
	.opened = opened,
	.ready = ready,
	.closing = closing,
};

static void resume_expired(struct base_io_timer *timer)
{
	struct ic_set *set =
		(struct ic_set *)(void *)((char *)timer - offsetof(struct ic_set, resume_timer));

	for (enum ic_service i = 0; i < IC_SERVICES; i++)
		ic_pump(set, i);
}

static void timer_set(struct ic_set *set, struct base_io_timer *timer, uint32_t after_ms, bool on)
{
	struct base_io_loop *loop = set->options.loop;

	if (on)
		base_io_timer_arm(loop, timer,
				  base_io_loop_now_ns(loop) + after_ms * BASE_NS_PER_MS);
	else
		base_io_timer_disarm(loop, timer);
}

void ic_timers(struct ic_set *set)
{
	bool on = ic_is_active(set);

	timer_set(set, &set->heartbeat_timer, IC_HEARTBEAT_PERIOD_MS, on);
	timer_set(set, &set->sample_timer, IC_SAMPLE_PERIOD_MS, on);
	timer_set(set, &set->kvp_timer, IC_KVP_PERIOD_MS, on);
	timer_set(set, &set->resume_timer, IC_RESUME_DELAY_MS, on);
}

static void start(void *context)
{
	ic_timers(context);
}

static int offer(struct ic_set *set, enum ic_service service, struct base_error *err)
{
	struct vmbus_offer offered = {
		.flags = OFFER_FLAGS,
		.loop = set->options.loop,
		.ops = &channel_ops,
		.device = &set->channels[service],
		.name = offers[service].name,
	};

	if (!disk_guid_parse(offers[service].type, strlen(offers[service].type), &offered.type) ||
	    !disk_guid_parse(offers[service].instance, strlen(offers[service].instance),
			     &offered.instance))
		base_bug("GUIDs of %s", offers[service].name);
	base_put_le32(offered.user_defined, PIPE_MESSAGE);
	return vmbus_offer(set->options.bus, &offered, &set->channels[service].channel, err);
}

int ic_new(const struct ic_options *options, struct ic_set **ret_set, struct base_error *err)
{
	struct ic_set *set = calloc(1, sizeof(*set));
	int result = 0;

	if (set == NULL)
		return base_fail(err, -ENOMEM, "integration services");
	set->options = *options;
	set->running = true;
	atomic_store(&set->wanted_running, true);
	set->order_task.run = ic_orders_run;
	set->freeze_timer.expired = ic_freeze_expired;
	set->heartbeat = IC_HEARTBEAT_NONE;
	set->heartbeat_timer.expired = ic_heartbeat_expired;
	set->sample_timer.expired = ic_sample_expired;
	set->kvp_timer.expired = ic_kvp_expired;
	set->resume_timer.expired = resume_expired;
	for (enum ic_service i = 0; i < IC_SERVICES; i++) {
		set->channels[i].set = set;
		set->channels[i].port = ic_port_new(i);
	}
	for (enum ic_service i = 0; i < IC_SERVICES && result == 0; i++)
		result = offer(set, i, err);
	if (result < 0) {
		ic_free(set);
		return base_fail_within(err, result, "integration services");
	}
	base_io_call(options->loop, start, set);
	*ret_set = set;
	return 0;
}

static void stop(void *context)
{
	struct ic_set *set = context;

	set->quiet = true;
	ic_timers(set);
	ic_vss_break(set, "the machine is being saved, moved, reset or ended");
}

static void end(void *context)
{
	struct ic_set *set = context;

	stop(set);
	base_io_timer_disarm(set->options.loop, &set->freeze_timer);
}

void ic_free(struct ic_set *set)
{
	if (set == NULL)
		return;
	base_io_call(set->options.loop, end, set);
	for (enum ic_service i = 0; i < IC_SERVICES; i++)
		vmbus_channel_free(set->channels[i].channel);
	free(set);
}

/*
 * --- the machine's life ---
 */

static int quiesce(void *service, struct base_error *err)
{
	struct ic_set *set = service;

	(void)err;
	base_io_call(set->options.loop, stop, set);
	return 0;
}

static void go_on(void *context)
{
	struct ic_set *set = context;

	set->quiet = false;
	set->sync_due = true; /* the guest has not seen the time that passed */
	ic_timers(set);
}

static void resume(void *service)
{
	struct ic_set *set = service;

	base_io_call(set->options.loop, go_on, set);
}

static void forget_all(void *context)
{
	struct ic_set *set = context;

	for (enum ic_service i = 0; i < IC_SERVICES; i++)
		forget(&set->channels[i], "the machine was reset before the guest answered");
	set->sequence = 0;
	set->info = (struct ic_guest_info){ 0 };
}

static int reset(void *service, struct base_error *err)
{
	struct ic_set *set = service;

	(void)err;
	base_io_call(set->options.loop, forget_all, set);
	return 0;
}

static uint32_t section_count(void *service)
{
	(void)service;
	return 1;
}

static struct hv_service_section section(void *service, uint32_t index)
{
	(void)service;
	(void)index;
	return (struct hv_service_section){ .name = "ic", .instance = 0, .version = 1 };
}

static int save(void *service, uint32_t index, struct base_buffer *out, struct base_error *err)
{
	(void)index;
	ic_state_encode(service, out);
	return out->failed ? base_fail(err, -ENOMEM, "integration services") : 0;
}

static int load(void *service, uint32_t index, uint32_t version, struct base_reader *in,
		struct base_error *err)
{
	(void)index;
	if (version == 0)
		return base_fail(err, -EBADMSG, "version 0");
	if (version > 1)
		return base_fail(err, -ENOTSUP, "version %u, this one knows 1", (unsigned)version);
	return ic_state_decode(service, in, err);
}

/* What was saved and what the bus took up must agree; where not, the bus is right. */
static void take_up(void *context)
{
	struct ic_set *set = context;

	for (enum ic_service i = 0; i < IC_SERVICES; i++) {
		struct ic_channel *channel = &set->channels[i];

		if (!vmbus_channel_is_open(channel->channel))
			forget(channel, "the channel is closed");
		else if (channel->port.state == IC_PORT_CLOSED)
			ic_port_opened(&channel->port);
	}
	set->kvp_walks = true;
	set->kvp_index = 0;
	set->kvp_stale = set->channels[IC_KVP].port.state == IC_PORT_READY &&
			 set->channels[IC_KVP].port.pending;
}

static int loaded(void *service, struct base_error *err)
{
	struct ic_set *set = service;

	(void)err;
	base_io_call(set->options.loop, take_up, set);
	return 0;
}

/* Quiet: nobody is on the loop. */
static bool sets_date(void *service)
{
	const struct ic_set *set = service;

	return set->channels[IC_TIME].port.state == IC_PORT_READY;
}

const struct hv_service_ops ic_service_ops = {
	.quiesce = quiesce,
	.resume = resume,
	.reset = reset,
	.section_count = section_count,
	.section = section,
	.save = save,
	.load = load,
	.loaded = loaded,
	.sets_date = sets_date,
};
