/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The connection: what each message of the guest does, and what channels report back.  All on
 * the bus's loop.  docs/hypervisor/vmbus/vmbus.md section 4 has the states.
 */
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>

#include "base/log.h"
#include "hypervisor/vmbus/vmbus_priv.h"

/* --- tables --- */

struct vmbus_channel *vmbus_first(struct vmbus *bus)
{
	BASE_LOCKED(&bus->lock);

	return bus->channels;
}

static struct vmbus_channel *known_channel(struct vmbus *bus, uint32_t relid)
{
	struct vmbus_channel *channel = relid <= VMBUS_RELID_MAX ? bus->by_relid[relid] : NULL;

	return channel != NULL && channel->known ? channel : NULL;
}

bool vmbus_assign(struct vmbus_channel *channel, uint32_t relid)
{
	struct vmbus *bus = channel->bus;
	uint32_t first = relid == 0 ? 1 : relid;
	uint32_t last = relid == 0 ? VMBUS_RELID_MAX : relid;

	for (uint32_t i = first; i <= last; i++) {
		/* A port may still be on its way out for the channel before. */
		if (bus->by_relid[i] != NULL || atomic_load(&bus->ports[i].channel) != NULL ||
		    atomic_load(&bus->ports[i].state) != 0)
			continue;
		channel->relid = i;
		bus->by_relid[i] = channel;
		if (channel->loop != NULL)
			vmbus_port_open(channel);
		return true;
	}
	return false;
}

struct vmbus_gpadl *vmbus_find_gpadl(struct vmbus *bus, uint32_t id)
{
	struct vmbus_gpadl *gpadl = bus->gpadls;

	while (gpadl != NULL && gpadl->id != id)
		gpadl = gpadl->next;
	return gpadl;
}

void vmbus_link_gpadl(struct vmbus *bus, struct vmbus_gpadl *gpadl)
{
	BASE_LOCKED(&bus->lock);

	gpadl->unused = vmbus_gpadl_unused;
	gpadl->context = bus;
	gpadl->usable = gpadl->whole;
	gpadl->next = bus->gpadls;
	bus->gpadls = gpadl;
	bus->gpadl_count++;
	bus->gpadl_pages += vmbus_gpadl_pages_of(gpadl->list_bytes);
}

/* --- page lists --- */

static void gpadl_unused_run(struct base_io_task *task)
{
	struct vmbus_gpadl *gpadl =
		(struct vmbus_gpadl *)(void *)((uint8_t *)task -
					       offsetof(struct vmbus_gpadl, task));
	struct vmbus *bus = gpadl->context;

	{
		struct vmbus_gpadl **link = &bus->gpadls;
		BASE_LOCKED(&bus->lock);

		while (*link != gpadl)
			link = &(*link)->next;
		*link = gpadl->next;
		bus->gpadl_count--;
		bus->gpadl_pages -= vmbus_gpadl_pages_of(gpadl->list_bytes);
	}
	if (gpadl->announce && bus->connected) {
		struct vmbus_host_message message;

		vmbus_put_number(&message, VMBUS_MSG_GPADL_TORNDOWN, gpadl->id);
		vmbus_post(bus, &message);
	}
	vmbus_gpadl_free(gpadl);
	vmbus_reset_step(bus);
}

void vmbus_gpadl_unused(void *context, struct vmbus_gpadl *gpadl)
{
	struct vmbus *bus = context;

	gpadl->task = (struct base_io_task){ .run = gpadl_unused_run };
	base_io_post(bus->loop, &gpadl->task);
}

/* The bus's own reference goes; the guest hears of it (or not) when the last one has. */
static void gpadl_let_go(struct vmbus *bus, struct vmbus_gpadl *gpadl, bool announce)
{
	bool held = false;

	{
		BASE_LOCKED(&bus->lock);

		held = !gpadl->tearing;
		gpadl->tearing = true;
		gpadl->announce = announce;
	}
	if (held)
		vmbus_gpadl_unref(gpadl);
}

/* All lists, or those of one channel (@relid not 0). */
static void gpadls_let_go(struct vmbus *bus, uint32_t relid)
{
	/* Removal is the work of a later task on this loop: the list stays as it is. */
	for (struct vmbus_gpadl *gpadl = bus->gpadls; gpadl != NULL; gpadl = gpadl->next)
		if (relid == 0 || gpadl->relid == relid)
			gpadl_let_go(bus, gpadl, false);
}

static void answer_gpadl(struct vmbus *bus, uint32_t relid, uint32_t id, uint32_t status)
{
	struct vmbus_host_message message;

	vmbus_put_gpadl_created(&message, relid, id, status);
	vmbus_post(bus, &message);
}

static void gpadl_add(struct vmbus *bus, struct vmbus_gpadl *gpadl, const uint8_t *part,
		      uint32_t bytes)
{
	int r = vmbus_gpadl_add(gpadl, part, bytes);

	if (r == 0)
		return;
	if (r > 0) {
		BASE_LOCKED(&bus->lock);

		gpadl->usable = true;
	}
	answer_gpadl(bus, gpadl->relid, gpadl->id, r > 0 ? VMBUS_STATUS_OK : VMBUS_STATUS_FAILED);
	if (r > 0)
		return;
	vmbus_refuse(bus, "gpadl", "gpadl=0x%" PRIx32 " error=%d", gpadl->id, -r);
	gpadl_let_go(bus, gpadl, false);
}

static struct vmbus_gpadl *find_gpadl(struct vmbus *bus, uint32_t id)
{
	BASE_LOCKED(&bus->lock);

	return vmbus_find_gpadl(bus, id);
}

static void on_gpadl_header(struct vmbus *bus, const struct vmbus_gpadl_header *header)
{
	struct vmbus_gpadl *gpadl = NULL;
	int r = 0;

	if (find_gpadl(bus, header->gpadl) != NULL)
		r = -EEXIST;
	if (r == 0 && known_channel(bus, header->relid) == NULL)
		r = -ENOENT;
	if (r == 0 &&
	    (bus->gpadl_count >= VMBUS_GPADLS_MAX ||
	     bus->gpadl_pages + vmbus_gpadl_pages_of(header->range_bytes) > VMBUS_GPADL_PAGES_MAX))
		r = -ENOSPC;
	if (r == 0)
		r = vmbus_gpadl_new(bus->slat, header, &gpadl);
	if (r < 0) {
		vmbus_refuse(bus, "gpadl", "gpadl=0x%" PRIx32 " relid=%" PRIu32 " error=%d",
			     header->gpadl, header->relid, -r);
		answer_gpadl(bus, header->relid, header->gpadl, VMBUS_STATUS_FAILED);
		return;
	}
	vmbus_link_gpadl(bus, gpadl);
	gpadl_add(bus, gpadl, header->part, header->part_bytes);
}

static void on_gpadl_body(struct vmbus *bus, const struct vmbus_gpadl_body *body)
{
	struct vmbus_gpadl *gpadl = find_gpadl(bus, body->gpadl);

	if (gpadl == NULL || gpadl->whole || gpadl->tearing) {
		vmbus_refuse(bus, "gpadl-body", "gpadl=0x%" PRIx32, body->gpadl);
		return;
	}
	gpadl_add(bus, gpadl, body->part, body->part_bytes);
}

static void gpadl_torn_run(struct base_io_task *task)
{
	struct vmbus_gpadl *gpadl =
		(struct vmbus_gpadl *)(void *)((uint8_t *)task -
					       offsetof(struct vmbus_gpadl, task));
	struct vmbus_channel *channel = gpadl->torn_for;

	if (atomic_load(&channel->is_open) && !atomic_load(&channel->freeing) &&
	    channel->ops->gpadl_torn != NULL)
		channel->ops->gpadl_torn(channel->device, channel, gpadl);
	vmbus_gpadl_unref(gpadl);
}

static void on_gpadl_teardown(struct vmbus *bus, const struct vmbus_gpadl_teardown *teardown)
{
	struct vmbus_gpadl *gpadl = find_gpadl(bus, teardown->gpadl);
	struct vmbus_channel *channel = NULL;

	if (gpadl == NULL || gpadl->tearing) {
		vmbus_refuse(bus, "gpadl-teardown", "gpadl=0x%" PRIx32, teardown->gpadl);
		return;
	}
	channel = known_channel(bus, gpadl->relid);
	if (channel != NULL && channel->ring_gpadl == gpadl && channel->state != CHANNEL_CLOSING) {
		vmbus_refuse(bus, "gpadl-teardown", "gpadl=0x%" PRIx32 " why=ring",
			     teardown->gpadl);
		return;
	}
	if (channel != NULL && channel->state == CHANNEL_OPEN) {
		/* Its device may hold it: ask, with a reference for the way. */
		vmbus_gpadl_hold(gpadl);
		gpadl->torn_for = channel;
		gpadl->task = (struct base_io_task){ .run = gpadl_torn_run };
		base_io_post(channel->loop, &gpadl->task);
	}
	gpadl_let_go(bus, gpadl, true);
}

/* --- channels --- */

void vmbus_forget(struct vmbus_channel *channel)
{
	struct vmbus *bus = channel->bus;
	struct vmbus_channel **link = &bus->channels;

	if (channel->relid != 0) {
		(void)atomic_fetch_and(&bus->ports[channel->relid].state, ~(uint32_t)PORT_LIVE);
		bus->by_relid[channel->relid] = NULL;
		gpadls_let_go(bus, channel->relid);
	}
	vmbus_gpadl_unref(base_take(&channel->ring_gpadl));
	BASE_LOCKED(&bus->lock);
	while (*link != channel)
		link = &(*link)->next;
	*link = channel->next;
	bus->channel_count--;
}

void vmbus_offer_to_guest(struct vmbus_channel *channel)
{
	struct vmbus *bus = channel->bus;
	struct vmbus_host_message message;
	struct vmbus_offer_wire wire = {
		.type = channel->type,
		.instance = channel->instance,
		.flags = channel->flags,
		.mmio_megabytes = channel->mmio_megabytes,
		.user_defined = channel->user_defined,
		.sub_index = channel->sub_index,
	};

	if (!bus->connected || !bus->offers_requested || channel->known || channel->retracted)
		return;
	if (channel->relid == 0 && !vmbus_assign(channel, 0))
		return; /* every number waits for the guest's release; the next reset frees them */
	channel->known = true;
	wire.relid = channel->relid;
	wire.connection_id = VMBUS_CONNECTION_CHANNEL + channel->relid;
	vmbus_put_offer(&message, &wire);
	vmbus_post(bus, &message);
}

static void begin_close(struct vmbus_channel *channel)
{
	channel->state = CHANNEL_CLOSING;
	channel->bus->close_count++;
	vmbus_channel_command(channel, COMMAND_CLOSE);
}

/* Not open any more or never: a channel that is taken off the bus may go now. */
void vmbus_channel_settled(struct vmbus_channel *channel)
{
	if (!channel->retracted || channel->state != CHANNEL_OFFERED || channel->hopping ||
	    atomic_load(&channel->freeing))
		return; /* the last: its device frees it */
	if (channel->known && !channel->released)
		return; /* the guest has still to release the number */
	vmbus_forget(channel);
	if (channel->loop == NULL)
		vmbus_channel_destroy(channel);
	else
		vmbus_channel_command(channel, COMMAND_GONE);
}

void vmbus_rescind(struct vmbus_channel *channel)
{
	struct vmbus_host_message message;

	if (channel->retracted)
		return;
	{
		BASE_LOCKED(&channel->bus->lock); /* whoever offers looks at it */

		channel->retracted = true;
	}
	if (channel->known && !channel->rescinded) {
		channel->rescinded = true;
		vmbus_put_number(&message, VMBUS_MSG_RESCIND, channel->relid);
		vmbus_post(channel->bus, &message);
	}
	if (channel->state == CHANNEL_OPEN)
		begin_close(channel);
	else if (channel->state == CHANNEL_OPENING)
		channel->close_wanted = true;
	vmbus_channel_settled(channel);
}

static void answer_open(struct vmbus *bus, const struct vmbus_open *open, uint32_t status)
{
	struct vmbus_host_message message;

	vmbus_put_open_result(&message, open->relid, open->open_id, status);
	vmbus_post(bus, &message);
}

static void on_open(struct vmbus *bus, const struct vmbus_open *open)
{
	struct vmbus_channel *channel = known_channel(bus, open->relid);
	struct vmbus_gpadl *gpadl = find_gpadl(bus, open->gpadl);
	const char *why = NULL;

	if (channel == NULL || channel->retracted || channel->loop == NULL)
		why = "channel";
	else if (channel->state != CHANNEL_OFFERED || channel->guest_open)
		why = "open";
	else if (gpadl == NULL || !gpadl->whole || gpadl->tearing || gpadl->relid != open->relid)
		why = "gpadl";
	else if (open->vp >= bus->vcpu_count)
		why = "vp";
	if (why != NULL) {
		vmbus_refuse(bus, "open", "relid=%" PRIu32 " why=%s", open->relid, why);
		answer_open(bus, open, VMBUS_STATUS_FAILED);
		return;
	}
	vmbus_gpadl_hold(gpadl);
	channel->ring_gpadl = gpadl;
	channel->open = *open;
	channel->guest_open = true;
	channel->close_wanted = false;
	channel->state = CHANNEL_OPENING;
	channel->hopping = true;
	bus->hop_count++;
	vmbus_channel_command(channel, COMMAND_OPEN);
}

static void on_close(struct vmbus *bus, uint32_t relid)
{
	struct vmbus_channel *channel = known_channel(bus, relid);

	if (channel == NULL || !channel->guest_open) {
		vmbus_refuse(bus, "close", "relid=%" PRIu32, relid);
		return;
	}
	channel->guest_open = false;
	if (channel->state == CHANNEL_OPEN)
		begin_close(channel);
	else if (channel->state == CHANNEL_OPENING)
		channel->close_wanted = true;
}

static void answer_modify(struct vmbus *bus, uint32_t relid, uint32_t status)
{
	struct vmbus_host_message message;

	if (bus->contact.version < VMBUS_VERSION_5_3 || !bus->connected)
		return; /* older guests do not wait for it */
	vmbus_put_modify_response(&message, relid, status);
	vmbus_post(bus, &message);
}

/* A guest that is answered has one modification under way, and one more waits at most.  An older
 * guest does not wait: the last one counts. */
static bool modify_is_one_too_many(const struct vmbus_channel *channel)
{
	return channel->hopping && channel->modify_again &&
	       channel->bus->contact.version >= VMBUS_VERSION_5_3;
}

static void on_modify(struct vmbus *bus, const struct vmbus_modify *modify)
{
	struct vmbus_channel *channel = known_channel(bus, modify->relid);

	if (channel == NULL || channel->state != CHANNEL_OPEN || modify->vp >= bus->vcpu_count ||
	    modify_is_one_too_many(channel)) {
		vmbus_refuse(bus, "modify", "relid=%" PRIu32 " vp=%" PRIu32, modify->relid,
			     modify->vp);
		answer_modify(bus, modify->relid, VMBUS_STATUS_FAILED);
		return;
	}
	channel->open.vp = modify->vp;
	if (channel->hopping) {
		channel->modify_again = true;
		return;
	}
	channel->hopping = true;
	bus->hop_count++;
	channel->modify_vp = modify->vp;
	/* Answered when the channel's loop has taken it: from then on no interrupt goes to the old
	 * processor. */
	vmbus_channel_command(channel, COMMAND_MODIFY);
}

static void on_released(struct vmbus *bus, uint32_t relid)
{
	struct vmbus_channel *channel = known_channel(bus, relid);

	/* Linux lets go of the sub-channels with their primary one, without being asked to: for the
	 * guest they are as if never offered, until their device retracts them. */
	if (channel != NULL && !channel->rescinded && channel->sub_index != 0 &&
	    !channel->guest_open) {
		channel->known = false;
		return;
	}
	if (channel == NULL || !channel->rescinded) {
		vmbus_refuse(bus, "relid-released", "relid=%" PRIu32, relid);
		return;
	}
	channel->guest_open = false;
	channel->released = true;
	vmbus_channel_settled(channel);
}

/* --- what channels report --- */

static void on_opened(struct vmbus_channel *channel)
{
	struct vmbus *bus = channel->bus;
	bool good = channel->open_code == 0;

	channel->hopping = false;
	bus->hop_count--;
	if (channel->known)
		answer_open(bus, &channel->open, good ? VMBUS_STATUS_OK : VMBUS_STATUS_FAILED);
	if (good) {
		channel->state = CHANNEL_OPEN;
		if (channel->close_wanted)
			begin_close(channel);
		return;
	}
	vmbus_refuse(bus, "open", "relid=%" PRIu32 " error=%d", channel->relid,
		     -channel->open_code);
	channel->state = CHANNEL_OFFERED;
	channel->guest_open = false;
	vmbus_gpadl_unref(base_take(&channel->ring_gpadl));
}

static void on_modified(struct vmbus_channel *channel)
{
	struct vmbus *bus = channel->bus;

	if (channel->known)
		answer_modify(bus, channel->relid, VMBUS_STATUS_OK);
	if (channel->modify_again) {
		channel->modify_again = false;
		if (channel->state == CHANNEL_OPEN) {
			channel->modify_vp = channel->open.vp;
			vmbus_channel_command(channel, COMMAND_MODIFY);
			return;
		}
		/* Closed meanwhile: nothing may hop any more when it is opened again. */
		if (channel->known)
			answer_modify(bus, channel->relid, VMBUS_STATUS_OK);
	}
	channel->hopping = false;
	bus->hop_count--;
}

void vmbus_news(struct base_io_task *task)
{
	struct vmbus_channel *channel =
		(struct vmbus_channel *)(void *)((uint8_t *)task -
						 offsetof(struct vmbus_channel, news_task));
	struct vmbus *bus = channel->bus;
	uint32_t news = atomic_exchange(&channel->news, 0);

	if ((news & NEWS_OFFER) != 0)
		vmbus_offer_to_guest(channel);
	if ((news & NEWS_OPENED) != 0)
		on_opened(channel);
	if ((news & NEWS_BROKEN) != 0) {
		if (channel->state == CHANNEL_OPEN)
			begin_close(channel);
		else if (channel->state == CHANNEL_OPENING)
			channel->close_wanted = true;
	}
	if ((news & NEWS_MODIFIED) != 0)
		on_modified(channel);
	if ((news & NEWS_CLOSED) != 0) {
		channel->state = CHANNEL_OFFERED;
		bus->close_count--;
		vmbus_gpadl_unref(base_take(&channel->ring_gpadl));
	}
	if ((news & NEWS_RETRACT) != 0)
		vmbus_rescind(channel); /* may free it */
	else
		vmbus_channel_settled(channel); /* may free it */
	vmbus_reset_step(bus);
}

/* --- the connection --- */

void vmbus_start_reset(struct vmbus *bus)
{
	struct vmbus_channel *next = NULL;

	bus->connected = false;
	bus->offers_requested = false;
	bus->resetting = true;
	bus->contact_waits = false;
	bus->unload_waits = false;
	bus->out_count = 0;
	if (bus->contact.vp < bus->vcpu_count && !atomic_load(&bus->muted))
		hv_synic_drop(bus->synic, bus->contact.vp, HV_SINT_VMBUS);
	for (struct vmbus_channel *channel = vmbus_first(bus); channel != NULL; channel = next) {
		next = channel->next;
		channel->known = false;
		channel->guest_open = false;
		channel->rescinded = false;
		if (channel->state == CHANNEL_OPEN)
			begin_close(channel);
		else if (channel->state == CHANNEL_OPENING)
			channel->close_wanted = true;
		vmbus_channel_settled(channel); /* may free it */
	}
	gpadls_let_go(bus, 0);
}

bool vmbus_version_is_served(uint32_t version)
{
	return version == VMBUS_VERSION_4_0 || version == VMBUS_VERSION_4_1 ||
	       (version >= VMBUS_VERSION_5_0 && version <= VMBUS_VERSION_5_3);
}

void vmbus_reset_step(struct vmbus *bus)
{
	struct vmbus_host_message message;

	if (bus->settled_wanted && bus->hop_count == 0)
		base_io_done(bus->loop, &bus->settled);
	if (!bus->resetting || bus->hop_count != 0 || bus->close_count != 0 ||
	    bus->gpadl_count != 0)
		return;
	bus->resetting = false;
	if (bus->unload_waits) {
		bus->unload_waits = false;
		vmbus_put_plain(&message, VMBUS_MSG_UNLOAD_RESPONSE);
		vmbus_post(bus, &message);
	}
	if (!bus->contact_waits)
		return;
	bus->contact_waits = false;
	bus->connected = vmbus_version_is_served(bus->contact.version);
	vmbus_put_version_response(&message, bus->connected,
				   bus->contact.version >= VMBUS_VERSION_5_0
					   ? VMBUS_CONNECTION_MESSAGE_5_0
					   : VMBUS_CONNECTION_MESSAGE);
	vmbus_post(bus, &message);
	if (vmbus_may_log(bus, VMBUS_LOG_CONTACT))
		base_log(BASE_LOG_INFO, "vmbus.contact",
			 "vm=%s version=%" PRIu32 ".%" PRIu32 " served=%s", bus->vm_name,
			 bus->contact.version >> 16, bus->contact.version & 0xffffu,
			 bus->connected ? "yes" : "no");
}

static void on_contact(struct vmbus *bus, const struct vmbus_contact *contact)
{
	if (contact->vp >= bus->vcpu_count) {
		vmbus_refuse(bus, "contact", "vp=%" PRIu32, contact->vp);
		return;
	}
	vmbus_start_reset(bus);
	bus->contact = *contact;
	bus->contact_waits = true;
	vmbus_reset_step(bus);
}

static void on_unload(struct vmbus *bus)
{
	vmbus_start_reset(bus);
	bus->unload_waits = true;
	vmbus_reset_step(bus);
}

static void on_request_offers(struct vmbus *bus)
{
	struct vmbus_host_message message;

	if (bus->offers_requested) {
		vmbus_refuse(bus, "request-offers", "why=twice");
		return;
	}
	bus->offers_requested = true;
	for (struct vmbus_channel *channel = vmbus_first(bus); channel != NULL;
	     channel = channel->next)
		vmbus_offer_to_guest(channel);
	vmbus_put_plain(&message, VMBUS_MSG_ALLOFFERS_DELIVERED);
	vmbus_post(bus, &message);
}

static void handle_connected(struct vmbus *bus, const struct vmbus_guest_message *message)
{
	switch ((uint32_t)message->type) {
	case VMBUS_MSG_REQUESTOFFERS:
		on_request_offers(bus);
		break;
	case VMBUS_MSG_OPENCHANNEL:
		on_open(bus, &message->open);
		break;
	case VMBUS_MSG_CLOSECHANNEL:
		on_close(bus, message->relid);
		break;
	case VMBUS_MSG_GPADL_HEADER:
		on_gpadl_header(bus, &message->gpadl_header);
		break;
	case VMBUS_MSG_GPADL_BODY:
		on_gpadl_body(bus, &message->gpadl_body);
		break;
	case VMBUS_MSG_GPADL_TEARDOWN:
		on_gpadl_teardown(bus, &message->teardown);
		break;
	case VMBUS_MSG_RELID_RELEASED:
		on_released(bus, message->relid);
		break;
	case VMBUS_MSG_MODIFYCHANNEL:
		on_modify(bus, &message->modify);
		break;
	default:
		break;
	}
}

void vmbus_handle(struct vmbus *bus, const uint8_t *bytes, uint32_t size_bytes)
{
	struct vmbus_guest_message message;
	struct base_error err = { .code = 0 };

	atomic_fetch_add(&bus->message_count, 1);
	if (vmbus_message_decode(bytes, size_bytes, &message, &err) < 0)
		vmbus_refuse(bus, "message", "why=%s", base_log_str(err.text));
	else if (message.type == VMBUS_MSG_INITIATE_CONTACT)
		on_contact(bus, &message.contact);
	else if (message.type == VMBUS_MSG_UNLOAD)
		on_unload(bus);
	else if (!bus->connected)
		vmbus_refuse(bus, "not-connected", "type=%s",
			     vmbus_message_name((uint32_t)message.type));
	else
		handle_connected(bus, &message);
}
