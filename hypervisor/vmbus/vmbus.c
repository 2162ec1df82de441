/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The bus as an object: making and ending it, the queues between it and the guest, the guest's
 * two hypercalls, offering and retracting channels (vmbus.h, vmbus_channel.h).
 */
#include "hypervisor/vmbus/vmbus.h"

#include <errno.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include "base/log.h"
#include "hypervisor/vmbus/vmbus_priv.h"

/* --- waiting for loops --- */

struct settle {
	struct base_io_task task;
	struct base_io_loop *loop;
	bool done;
};

static void settle_run(struct base_io_task *task)
{
	struct settle *settle = (struct settle *)(void *)task;

	base_io_done(settle->loop, &settle->done);
}

void vmbus_settle(struct base_io_loop *loop)
{
	struct settle settle = { .task = { .run = settle_run }, .loop = loop };

	base_io_post(loop, &settle.task);
	base_io_wait(loop, &settle.done);
}

void vmbus_settle_all(struct vmbus *bus)
{
	uint32_t count = 0;

	{
		BASE_LOCKED(&bus->lock);

		count = bus->loop_count;
	}
	for (uint32_t i = 0; i < count; i++)
		vmbus_settle(bus->loops[i]);
	vmbus_settle(bus->loop);
}

/* --- log --- */

bool vmbus_may_log(struct vmbus *bus, enum vmbus_log_kind kind)
{
	uint64_t now_ns = base_io_loop_now_ns(bus->loop);
	BASE_LOCKED(&bus->lock);
	bool may = base_log_rate_take(&bus->logs[kind], now_ns, VMBUS_LOG_LINES);

#ifdef GODWIT_MUTANT_VMBUS_LOG_STORM
	may = true;
#endif
	return may;
}

void vmbus_refuse(struct vmbus *bus, const char *what, const char *format, ...)
{
	char text[400];
	va_list args;

	atomic_fetch_add(&bus->refused_count, 1);
	if (!vmbus_may_log(bus, VMBUS_LOG_REFUSED))
		return;
	va_start(args, format);
	(void)vsnprintf(text, sizeof(text), format, args);
	va_end(args);
	base_log(BASE_LOG_WARNING, "vmbus.refused", "vm=%s what=%s %s", bus->vm_name, what, text);
}

/* --- to the guest --- */

void vmbus_post(struct vmbus *bus, const struct vmbus_host_message *message)
{
	base_assert(bus->out_count < VMBUS_OUT_MAX);
	bus->out[(bus->out_head + bus->out_count) % VMBUS_OUT_MAX] = *message;
	bus->out_count++;
	vmbus_pump_out(bus);
}

void vmbus_pump_out(struct vmbus *bus)
{
	while (bus->out_count > 0 && !atomic_load(&bus->quiet) && !atomic_load(&bus->muted)) {
		const struct vmbus_host_message *next = &bus->out[bus->out_head];
		struct hv_message message = { .type = VMBUS_HV_MESSAGE_TYPE,
					      .size_bytes = next->size_bytes };

		memcpy(message.payload, next->bytes, next->size_bytes);
		if (hv_synic_post(bus->synic, bus->contact.vp, HV_SINT_VMBUS, &message) == -EAGAIN)
			return; /* room() comes */
		bus->out_head = (bus->out_head + 1) % VMBUS_OUT_MAX;
		bus->out_count--;
	}
}

/* --- from the guest --- */

static bool take_one(struct vmbus *bus, struct vmbus_host_message *ret_message)
{
	BASE_LOCKED(&bus->lock);

	if (bus->in_count == 0) {
#ifdef GODWIT_MUTANT_VMBUS_IN_QUEUED
		bus->in_queued = false; /* with the task still on its way */
#endif
		return false;
	}
	*ret_message = bus->in[bus->in_head];
	bus->in_head = (bus->in_head + 1) % VMBUS_IN_MAX;
	bus->in_count--;
	return true;
}

/* What was there when it was called, and so it ends whatever a guest posts meanwhile. */
void vmbus_take_all(struct vmbus *bus)
{
	struct vmbus_host_message message;

	for (uint32_t i = 0; i < VMBUS_IN_MAX && take_one(bus, &message); i++) {
#ifndef GODWIT_MUTANT_VMBUS_OUT_QUIET
		if (bus->out_count >= VMBUS_OUT_QUIET) {
			vmbus_refuse(bus, "message", "why=\"answers wait: %" PRIu32 "\"",
				     bus->out_count);
			continue;
		}
#endif
		vmbus_handle(bus, message.bytes, message.size_bytes);
	}
}

static void room(void *context)
{
	struct vmbus *bus = context;

	if (!atomic_exchange(&bus->room_queued, true))
		base_io_post(bus->loop, &bus->room_task);
}

/* While the guest does not take its answers, its messages wait, and then it is told to. */
void vmbus_take_some(struct vmbus *bus)
{
	struct vmbus_host_message message;

	for (uint32_t i = 0; bus->out_count < VMBUS_OUT_PAUSE; i++) {
		if (i == VMBUS_IN_TURN) {
			room(bus); /* goes on with the rest */
			return;
		}
		if (!take_one(bus, &message))
			return;
		vmbus_handle(bus, message.bytes, message.size_bytes);
	}
}

static void in_run(struct base_io_task *task)
{
	struct vmbus *bus =
		(struct vmbus *)(void *)((uint8_t *)task - offsetof(struct vmbus, in_task));

	{
		BASE_LOCKED(&bus->lock);

		bus->in_queued = false;
	}
	atomic_store(&bus->muted, false);
	vmbus_pump_out(bus);
	if (!atomic_load(&bus->room_queued)) /* else it goes on with what is there */
		vmbus_take_some(bus);
}

static void room_run(struct base_io_task *task)
{
	struct vmbus *bus =
		(struct vmbus *)(void *)((uint8_t *)task - offsetof(struct vmbus, room_task));

	atomic_store(&bus->room_queued, false);
	vmbus_pump_out(bus);
	vmbus_take_some(bus);
}

static enum hv_status post_message(void *context, uint32_t connection_id, uint32_t type,
				   const uint8_t *payload, uint32_t size_bytes)
{
	struct vmbus *bus = context;
	bool queue = false;

	if (connection_id != VMBUS_CONNECTION_MESSAGE &&
	    connection_id != VMBUS_CONNECTION_MESSAGE_5_0)
		return HV_STATUS_INVALID_CONNECTION_ID;
	if (type != VMBUS_HV_MESSAGE_TYPE || size_bytes > HV_MESSAGE_PAYLOAD_BYTES)
		return HV_STATUS_INVALID_PARAMETER;
	{
		struct vmbus_host_message *slot = NULL;
		BASE_LOCKED(&bus->lock);

		if (bus->in_count == VMBUS_IN_MAX)
			return HV_STATUS_INSUFFICIENT_BUFFERS;
		slot = &bus->in[(bus->in_head + bus->in_count) % VMBUS_IN_MAX];
		slot->size_bytes = size_bytes;
		memcpy(slot->bytes, payload, size_bytes);
		bus->in_count++;
		queue = !bus->in_queued;
		bus->in_queued = true;
	}
	if (queue)
		base_io_post(bus->loop, &bus->in_task);
	return HV_STATUS_SUCCESS;
}

static enum hv_status signal_event(void *context, uint32_t connection_id, uint16_t flag)
{
	struct vmbus *bus = context;
	uint32_t relid = connection_id - VMBUS_CONNECTION_CHANNEL; /* may wrap: then too large */

	if (relid == 0 || relid > VMBUS_RELID_MAX || !vmbus_port_notify(&bus->ports[relid]))
		return HV_STATUS_INVALID_CONNECTION_ID;
	if (flag != 0)
		return HV_STATUS_INVALID_PARAMETER;
	atomic_fetch_add_explicit(&bus->signal_count, 1, memory_order_relaxed);
	return HV_STATUS_SUCCESS;
}

const struct hv_hypercall_ops vmbus_hypercall_ops = {
	.post_message = post_message,
	.signal_event = signal_event,
};

/* --- life --- */

int vmbus_new(const struct vmbus_options *options, struct vmbus **ret_bus, struct base_error *err)
{
	struct vmbus *bus = calloc(1, sizeof(*bus));

	if (bus == NULL)
		return base_fail(err, -ENOMEM, "VMBus");
	bus->out = calloc(VMBUS_OUT_MAX, sizeof(*bus->out));
	if (bus->out == NULL) {
		free(bus);
		return base_fail(err, -ENOMEM, "VMBus: messages to the guest");
	}
	bus->slat = options->slat;
	bus->synic = options->synic;
	bus->loop = options->loop;
	bus->vcpu_count = options->vcpu_count;
	bus->vm_name = options->vm_name;
	bus->in_task.run = in_run;
	bus->room_task.run = room_run;
	bus->loops[bus->loop_count++] = options->loop;
	for (uint32_t i = 0; i <= VMBUS_RELID_MAX; i++)
		bus->ports[i].task.run = vmbus_port_run;
	if (pthread_mutex_init(&bus->lock, NULL) != 0)
		base_bug("VMBus: no mutex");
	hv_synic_on_room(bus->synic, room, bus);
	*ret_bus = bus;
	return 0;
}

void vmbus_free(struct vmbus *bus)
{
	if (bus == NULL)
		return;
	/* Channels on their way out are on no list any more. */
	vmbus_settle_all(bus);
	vmbus_settle_all(bus);
	while (bus->channels != NULL)
		vmbus_channel_free(bus->channels);
	vmbus_settle(bus->loop);
	for (struct vmbus_gpadl *next = NULL; bus->gpadls != NULL; bus->gpadls = next) {
		next = bus->gpadls->next;
		vmbus_gpadl_free(bus->gpadls);
	}
	vmbus_settle(bus->loop);
	(void)pthread_mutex_destroy(&bus->lock);
	free(bus->out);
	free(bus);
}

/* --- channels come and go --- */

static bool loop_is_listed(struct vmbus *bus, struct base_io_loop *loop)
{
	for (uint32_t i = 0; i < bus->loop_count; i++)
		if (bus->loops[i] == loop)
			return true;
	if (bus->loop_count == VMBUS_LOOPS_MAX)
		return false;
	bus->loops[bus->loop_count++] = loop;
	return true;
}

static void fill(struct vmbus_channel *channel, const struct vmbus_offer *offer)
{
	channel->type = offer->type;
	channel->instance = offer->instance;
	channel->sub_index = offer->sub_index;
	channel->flags = offer->flags;
	channel->mmio_megabytes = offer->mmio_megabytes;
	memcpy(channel->user_defined, offer->user_defined, sizeof(channel->user_defined));
	channel->loop = offer->loop;
	channel->ops = offer->ops;
	channel->device = offer->device;
	(void)snprintf(channel->name, sizeof(channel->name), "%s", offer->name);
}

/* 1 a channel of the saved state was taken up; 0 the new one is on the list; or an error. */
static int list_channel(struct vmbus *bus, const struct vmbus_offer *offer,
			struct vmbus_channel *fresh, struct vmbus_channel **ret_saved)
{
	struct vmbus_channel *saved = NULL;
	BASE_LOCKED(&bus->lock);

	if (!loop_is_listed(bus, offer->loop))
		return -ENOSPC;
	if (vmbus_find_key(bus, offer, false) != NULL)
		return -EEXIST;
	saved = bus->taking_up ? vmbus_find_key(bus, offer, true) : NULL;
	if (saved == NULL) {
		if (bus->channel_count == VMBUS_CHANNELS_MAX)
			return -ENOSPC;
		fresh->next = bus->channels;
		bus->channels = fresh;
		bus->channel_count++;
		return 0;
	}
	fill(saved, offer);
	if (saved->relid != 0)
		vmbus_port_open(saved);
	if (saved->saved_open) {
		saved->saved_open = false;
		saved->state = CHANNEL_OPEN;
		/* Its loop does not know it yet. */
		if (bus->memory_back && vmbus_channel_start(saved) < 0) {
			saved->state = CHANNEL_OFFERED;
			saved->broken = true;
			vmbus_gpadl_unref(base_take(&saved->ring_gpadl));
		}
	}
	*ret_saved = saved;
	return 1;
}

struct vmbus_channel *vmbus_channel_new(struct vmbus *bus)
{
	struct vmbus_channel *channel = calloc(1, sizeof(*channel));

	if (channel == NULL)
		return NULL;
	channel->bus = bus;
	channel->command_task.run = vmbus_channel_commands;
	channel->news_task.run = vmbus_news;
	channel->state = CHANNEL_OFFERED;
	return channel;
}

int vmbus_offer(struct vmbus *bus, const struct vmbus_offer *offer,
		struct vmbus_channel **ret_channel, struct base_error *err)
{
	struct vmbus_channel *channel = vmbus_channel_new(bus);
	struct vmbus_channel *saved = NULL;
	int r = 0;

	if (channel == NULL)
		return base_fail(err, -ENOMEM, "channel %s", offer->name);
	fill(channel, offer);
	/* Before it is on the list: then somebody else may see, and retract, it. */
	*ret_channel = channel;
	r = list_channel(bus, offer, channel, &saved);
	if (r != 0)
		free(channel);
	if (r < 0) {
		*ret_channel = NULL;
		return base_fail(err, r, "channel %s: %s", offer->name,
				 r == -EEXIST ? "is offered already" : "too many");
	}
	if (r > 0) {
		*ret_channel = saved;
		return 0;
	}
	vmbus_channel_tell(channel, NEWS_OFFER);
	return 0;
}

void vmbus_retract(struct vmbus_channel *channel)
{
	vmbus_channel_tell(channel, NEWS_RETRACT);
}

static void forget_call(void *context)
{
	struct vmbus_channel *channel = context;
	struct vmbus *bus = channel->bus;

	if (channel->hopping)
		bus->hop_count--;
	if (channel->state == CHANNEL_CLOSING)
		bus->close_count--;
	vmbus_forget(channel);
	vmbus_reset_step(bus);
}

void vmbus_channel_free(struct vmbus_channel *channel)
{
	struct base_io_loop *loop = NULL;
	struct vmbus *bus = NULL;

	if (channel == NULL)
		return;
	bus = channel->bus;
	loop = channel->loop;
	atomic_store(&bus->muted, true);
	atomic_store(&channel->freeing, true);
	/* What is under way between the loops ends within two rounds and has no effect. */
	for (int round = 0; loop != NULL && round < 2; round++) {
		vmbus_settle(loop);
		vmbus_settle(bus->loop);
	}
	base_io_call(bus->loop, forget_call, channel);
	if (channel->relid != 0) {
		if (loop != NULL)
			vmbus_settle(loop); /* a signal that was under way */
		atomic_store(&bus->ports[channel->relid].channel, NULL);
	}
	vmbus_settle(bus->loop);
	vmbus_channel_destroy(channel);
}

/* --- status --- */

struct status_call {
	struct vmbus *bus;
	struct vmbus_status *status;
};

static void status_call(void *context)
{
	const struct status_call *call = context;
	struct vmbus *bus = call->bus;
	struct vmbus_status *status = call->status;

	status->connected = bus->connected;
	status->version = bus->connected ? bus->contact.version : 0;
	for (const struct vmbus_channel *channel = vmbus_first(bus); channel != NULL;
	     channel = channel->next) {
		status->offered_count++;
		status->open_count += channel->state == CHANNEL_OPEN ? 1 : 0;
	}
}

void vmbus_status(struct vmbus *bus, struct vmbus_status *ret_status)
{
	struct status_call call = { .bus = bus, .status = ret_status };

	*ret_status = (struct vmbus_status){
		.message_count = atomic_load(&bus->message_count),
		.signal_count = atomic_load(&bus->signal_count),
		.interrupt_count = atomic_load(&bus->interrupt_count),
		.refused_count = atomic_load(&bus->refused_count),
	};
	base_io_call(bus->loop, status_call, &call);
}
