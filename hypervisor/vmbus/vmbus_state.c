/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The bus as a service of the machine: standing still, going on, starting over, and the section
 * "vmbus" of a saved state (docs/hypervisor/vmbus/vmbus.md section 7).
 *
 * A section is read into a value of its own and checked whole before the bus changes.
 */
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "base/log.h"
#include "hypervisor/vmbus/vmbus_priv.h"

#define SECTION_VERSION 1u

enum saved_bus {
	SAVED_CONNECTED = 1 << 0,
	SAVED_OFFERS_REQUESTED = 1 << 1,
	SAVED_RESETTING = 1 << 2,
	SAVED_CONTACT_WAITS = 1 << 3,
	SAVED_UNLOAD_WAITS = 1 << 4,
	SAVED_BUS_BITS = (1 << 5) - 1,
};

enum saved_channel {
	SAVED_RETRACTED = 1 << 0,
	SAVED_GUEST_OPEN = 1 << 1,
	SAVED_OPEN = 1 << 2,
	SAVED_CHANNEL_BITS = (1 << 3) - 1,
};

enum saved_gpadl {
	SAVED_TEARING = 1 << 0,
	SAVED_GPADL_BITS = (1 << 1) - 1,
};

struct vmbus_channel *vmbus_find_key(struct vmbus *bus, const struct vmbus_offer *offer,
				     bool waiting)
{
	struct vmbus_channel *channel = bus->channels;

	for (; channel != NULL; channel = channel->next)
		if (!channel->retracted && (channel->loop == NULL) == waiting &&
		    channel->sub_index == offer->sub_index &&
		    disk_guid_equal(&channel->type, &offer->type) &&
		    disk_guid_equal(&channel->instance, &offer->instance))
			return channel;
	return NULL;
}

/* --- standing still and going on --- */

static void quiesce_call(void *context)
{
	struct vmbus *bus = context;

	vmbus_take_all(bus);
	bus->settled = false;
	bus->settled_wanted = true;
	vmbus_reset_step(bus);
}

static int quiesce(void *service, struct base_error *err)
{
	struct vmbus *bus = service;

	(void)err;
	atomic_store(&bus->quiet, true);
	base_io_call(bus->loop, quiesce_call, bus);
	base_io_wait(bus->loop, &bus->settled);
	vmbus_settle_all(bus); /* a ready() that was running has ended; closing() has come */
	vmbus_settle_all(bus);
	return 0;
}

static void resume_call(void *context)
{
	struct vmbus *bus = context;
	struct vmbus_channel *next = NULL;

	bus->settled_wanted = false;
	for (struct vmbus_gpadl *gpadl = bus->gpadls; gpadl != NULL; gpadl = gpadl->next)
		if (gpadl->saved_tearing) {
			gpadl->saved_tearing = false;
			vmbus_gpadl_unref(gpadl);
		}
	for (struct vmbus_channel *channel = vmbus_first(bus); channel != NULL; channel = next) {
		next = channel->next;
		if (channel->loop == NULL && !channel->retracted) {
			/* Its device is not here: the guest is asked to let go of it. */
			channel->saved_open = false;
			vmbus_gpadl_unref(base_take(&channel->ring_gpadl));
			vmbus_rescind(channel);
		} else if (channel->state == CHANNEL_OPEN) {
			vmbus_channel_command(channel, COMMAND_KICK);
		}
	}
	vmbus_reset_step(bus);
	vmbus_pump_out(bus);
	vmbus_take_some(bus);
}

static void resume(void *service)
{
	struct vmbus *bus = service;

	{
		BASE_LOCKED(&bus->lock);

		bus->taking_up = false;
		bus->memory_back = false;
	}
	atomic_store(&bus->quiet, false);
	atomic_store(&bus->muted, false);
	base_io_call(bus->loop, resume_call, bus);
}

static void reset_call(void *context)
{
	struct vmbus *bus = context;

	{
		BASE_LOCKED(&bus->lock);

		bus->in_count = 0;
		bus->taking_up = false;
	}
	vmbus_start_reset(bus);
	vmbus_reset_step(bus);
}

static int reset(void *service, struct base_error *err)
{
	struct vmbus *bus = service;

	(void)err;
	base_io_call(bus->loop, reset_call, bus);
	vmbus_settle_all(bus);
	vmbus_settle_all(bus);
	return 0;
}

/* --- saving --- */

static uint32_t section_count(void *service)
{
	(void)service;
	return 1;
}

static struct hv_service_section section(void *service, uint32_t index)
{
	(void)service;
	(void)index;
	return (struct hv_service_section){ .name = "vmbus", .version = SECTION_VERSION };
}

static void save_channel(const struct vmbus_channel *channel, struct base_buffer *out)
{
	/* A channel that was closing is closed in the saved state: what it had in flight has
	 * ended with the quiescing of its device. */
	bool open = channel->state == CHANNEL_OPEN || channel->saved_open;
	uint32_t flags = (channel->retracted ? SAVED_RETRACTED : 0u) |
			 (channel->guest_open ? SAVED_GUEST_OPEN : 0u) | (open ? SAVED_OPEN : 0u);

	base_buffer_append(out, channel->type.bytes, sizeof(channel->type.bytes));
	base_buffer_append(out, channel->instance.bytes, sizeof(channel->instance.bytes));
	base_buffer_le16(out, channel->sub_index);
	base_buffer_le16(out, (uint16_t)flags);
	base_buffer_le32(out, channel->relid);
	base_buffer_le32(out, channel->open.open_id);
	base_buffer_le32(out, channel->open.gpadl);
	base_buffer_le32(out, channel->open.vp);
	base_buffer_le32(out, channel->open.downstream_page);
	base_buffer_append(out, channel->open.user_data, sizeof(channel->open.user_data));
}

static void save_gpadl(const struct vmbus_gpadl *gpadl, struct base_buffer *out)
{
	base_buffer_le32(out, gpadl->id);
	base_buffer_le32(out, gpadl->relid);
	base_buffer_le32(out, gpadl->tearing ? SAVED_TEARING : 0u);
	base_buffer_le16(out, (uint16_t)gpadl->list_bytes);
	base_buffer_le16(out, (uint16_t)gpadl->range_count);
	base_buffer_le32(out, gpadl->received_bytes);
	base_buffer_append(out, gpadl->list, gpadl->received_bytes);
}

/* Lists that nobody would hear of again are left out. */
static bool gpadl_is_saved(const struct vmbus_gpadl *gpadl)
{
	return !gpadl->tearing || gpadl->announce;
}

static void save_lists(struct vmbus *bus, struct base_buffer *out)
{
	uint32_t count = 0;

	for (const struct vmbus_gpadl *gpadl = bus->gpadls; gpadl != NULL; gpadl = gpadl->next)
		count += gpadl_is_saved(gpadl) ? 1 : 0;
	base_buffer_le32(out, count);
	for (const struct vmbus_gpadl *gpadl = bus->gpadls; gpadl != NULL; gpadl = gpadl->next)
		if (gpadl_is_saved(gpadl))
			save_gpadl(gpadl, out);
	count = 0;
	for (const struct vmbus_channel *channel = vmbus_first(bus); channel != NULL;
	     channel = channel->next)
		count += channel->known ? 1 : 0;
	base_buffer_le32(out, count);
	for (const struct vmbus_channel *channel = vmbus_first(bus); channel != NULL;
	     channel = channel->next)
		if (channel->known)
			save_channel(channel, out);
}

struct save_call {
	struct vmbus *bus;
	struct base_buffer *out;
};

static void save_call(void *context)
{
	const struct save_call *call = context;
	struct vmbus *bus = call->bus;
	struct base_buffer *out = call->out;

	base_buffer_le32(out, (bus->connected ? SAVED_CONNECTED : 0u) |
				      (bus->offers_requested ? SAVED_OFFERS_REQUESTED : 0u) |
				      (bus->resetting ? SAVED_RESETTING : 0u) |
				      (bus->contact_waits ? SAVED_CONTACT_WAITS : 0u) |
				      (bus->unload_waits ? SAVED_UNLOAD_WAITS : 0u));
	base_buffer_le32(out, bus->contact.version);
	base_buffer_le32(out, bus->contact.vp);
	base_buffer_le32(out, bus->out_count);
	for (uint32_t i = 0; i < bus->out_count; i++) {
		const struct vmbus_host_message *message =
			&bus->out[(bus->out_head + i) % VMBUS_OUT_MAX];

		base_buffer_le32(out, message->size_bytes);
		base_buffer_append(out, message->bytes, message->size_bytes);
	}
	save_lists(bus, out);
}

static int save(void *service, uint32_t index, struct base_buffer *out, struct base_error *err)
{
	struct vmbus *bus = service;
	struct save_call call = { .bus = bus, .out = out };

	(void)index;
	vmbus_settle_all(bus); /* what devices reported while they were quiesced */
	base_io_call(bus->loop, save_call, &call);
	if (out->failed)
		return base_fail(err, -ENOMEM, "section vmbus");
	return 0;
}

/* --- loading --- */

/* What a section says, until all of it is known to be good. */
struct loaded_state {
	struct vmbus *bus;
	uint32_t flags;
	struct vmbus_contact contact;
	struct vmbus_host_message *out; /* out_count */
	uint32_t out_count;
	struct vmbus_gpadl *gpadls;
	struct vmbus_channel *channels;
	uint32_t gpadl_count;
	uint32_t gpadl_pages;
	uint32_t channel_count;
};

static void loaded_state_free(struct loaded_state *state)
{
	for (struct vmbus_gpadl *next = NULL; state->gpadls != NULL; state->gpadls = next) {
		next = state->gpadls->next;
		vmbus_gpadl_free(state->gpadls);
	}
	for (struct vmbus_channel *next = NULL; state->channels != NULL; state->channels = next) {
		next = state->channels->next;
		vmbus_channel_destroy(state->channels);
	}
	free(state->out);
}

/* What cannot be together is not. */
static bool head_is_sane(const struct loaded_state *state)
{
	uint32_t flags = state->flags;

	if ((flags & ~(uint32_t)SAVED_BUS_BITS) != 0 || state->contact.vp >= state->bus->vcpu_count)
		return false;
	if ((flags & SAVED_CONNECTED) != 0)
		return (flags & (SAVED_RESETTING | SAVED_CONTACT_WAITS | SAVED_UNLOAD_WAITS)) ==
			       0 &&
		       vmbus_version_is_served(state->contact.version);
	return (flags & SAVED_OFFERS_REQUESTED) == 0 &&
	       ((flags & SAVED_RESETTING) != 0 ||
		(flags & (SAVED_CONTACT_WAITS | SAVED_UNLOAD_WAITS)) == 0);
}

static int load_head(struct loaded_state *state, struct base_reader *in, struct base_error *err)
{
	state->flags = base_read_le32(in);
	state->contact.version = base_read_le32(in);
	state->contact.vp = base_read_le32(in);
	state->out_count = base_read_le32(in);
	if (in->failed || !head_is_sane(state))
		return base_fail(err, -EBADMSG,
				 "section vmbus: flags 0x%" PRIx32 ", version 0x%" PRIx32
				 ", processor %" PRIu32,
				 state->flags, state->contact.version, state->contact.vp);
	if (state->out_count >= VMBUS_OUT_MAX)
		return base_fail(err, -EBADMSG, "section vmbus: %" PRIu32 " messages",
				 state->out_count);
	state->out = calloc((size_t)state->out_count + 1, sizeof(*state->out));
	if (state->out == NULL)
		return base_fail(err, -ENOMEM, "section vmbus");
	for (uint32_t i = 0; i < state->out_count; i++) {
		state->out[i].size_bytes = base_read_le32(in);
		if (in->failed || state->out[i].size_bytes > HV_MESSAGE_PAYLOAD_BYTES)
			return base_fail(err, -EBADMSG, "section vmbus: message %" PRIu32, i);
		base_read_bytes(in, state->out[i].bytes, state->out[i].size_bytes);
	}
	return 0;
}

static struct vmbus_gpadl *loaded_gpadl(struct loaded_state *state, uint32_t id)
{
	struct vmbus_gpadl *gpadl = state->gpadls;

	while (gpadl != NULL && gpadl->id != id)
		gpadl = gpadl->next;
	return gpadl;
}

static int load_gpadl(struct loaded_state *state, struct base_reader *in, struct base_error *err)
{
	struct vmbus_gpadl_header header = { .relid = 0 };
	struct vmbus_gpadl *gpadl = NULL;
	uint32_t received = 0;
	uint32_t flags = 0;
	int r = 0;

	header.gpadl = base_read_le32(in);
	header.relid = base_read_le32(in);
	flags = base_read_le32(in);
	header.range_bytes = base_read_le16(in);
	header.range_count = base_read_le16(in);
	received = base_read_le32(in);
	header.part = base_read_span(in, received);
	if (in->failed || received > header.range_bytes ||
	    (flags & ~(uint32_t)SAVED_GPADL_BITS) != 0 || loaded_gpadl(state, header.gpadl) != NULL)
		return base_fail(err, -EBADMSG, "section vmbus: page list 0x%" PRIx32,
				 header.gpadl);
	r = vmbus_gpadl_new(state->bus->slat, &header, &gpadl);
	if (r == 0) {
		gpadl->next = state->gpadls;
		state->gpadls = gpadl;
		gpadl->tearing = (flags & SAVED_TEARING) != 0;
		gpadl->announce = gpadl->tearing;
		gpadl->saved_tearing = gpadl->tearing;
		state->gpadl_pages += vmbus_gpadl_pages_of(header.range_bytes);
		r = vmbus_gpadl_add(gpadl, header.part, received);
	}
	if (r < 0)
		return base_fail(err, r == -ENOMEM ? r : -EBADMSG,
				 "section vmbus: page list 0x%" PRIx32 ": error %d", header.gpadl,
				 -r);
	return 0;
}

static bool relid_is_taken(const struct loaded_state *state, uint32_t relid)
{
	for (const struct vmbus_channel *channel = state->channels; channel != NULL;
	     channel = channel->next)
		if (channel->relid == relid)
			return true;
	return false;
}

/* The first of them, newest, is looked at: one device cannot take up two channels. */
static bool key_is_taken(const struct vmbus_channel *first)
{
	for (const struct vmbus_channel *other = first->next; other != NULL; other = other->next)
		if (!first->retracted && !other->retracted &&
		    first->sub_index == other->sub_index &&
		    disk_guid_equal(&first->type, &other->type) &&
		    disk_guid_equal(&first->instance, &other->instance))
			return true;
	return false;
}

static int load_open(struct loaded_state *state, struct vmbus_channel *channel,
		     struct base_error *err)
{
	struct vmbus_gpadl *gpadl = loaded_gpadl(state, channel->open.gpadl);

	if (gpadl == NULL || !gpadl->whole || gpadl->tearing || gpadl->relid != channel->relid ||
	    channel->open.vp >= state->bus->vcpu_count || channel->retracted ||
	    !channel->guest_open)
		return base_fail(err, -EBADMSG, "section vmbus: open channel %" PRIu32,
				 channel->relid);
	vmbus_gpadl_hold(gpadl);
	channel->ring_gpadl = gpadl;
	channel->saved_open = true;
	return 0;
}

static int load_channel(struct loaded_state *state, struct base_reader *in, struct base_error *err)
{
	struct vmbus_channel *channel = NULL;
	struct disk_guid type;
	struct disk_guid instance;
	uint32_t relid = 0;
	uint16_t sub_index = 0;
	uint16_t flags = 0;

	base_read_bytes(in, type.bytes, sizeof(type.bytes));
	base_read_bytes(in, instance.bytes, sizeof(instance.bytes));
	sub_index = base_read_le16(in);
	flags = base_read_le16(in);
	relid = base_read_le32(in);
	if (in->failed || relid == 0 || relid > VMBUS_RELID_MAX || relid_is_taken(state, relid) ||
	    (flags & ~(uint32_t)SAVED_CHANNEL_BITS) != 0)
		return base_fail(err, -EBADMSG, "section vmbus: channel %" PRIu32, relid);
	channel = vmbus_channel_new(state->bus);
	if (channel == NULL)
		return base_fail(err, -ENOMEM, "section vmbus");
	channel->next = state->channels;
	state->channels = channel;
	channel->type = type;
	channel->instance = instance;
	channel->sub_index = sub_index;
	channel->relid = relid;
	channel->known = true;
	channel->retracted = (flags & SAVED_RETRACTED) != 0;
	channel->rescinded = channel->retracted;
	channel->guest_open = (flags & SAVED_GUEST_OPEN) != 0;
	channel->open.relid = relid;
	channel->open.open_id = base_read_le32(in);
	channel->open.gpadl = base_read_le32(in);
	channel->open.vp = base_read_le32(in);
	channel->open.downstream_page = base_read_le32(in);
	base_read_bytes(in, channel->open.user_data, sizeof(channel->open.user_data));
	if (in->failed)
		return base_fail(err, -EBADMSG, "section vmbus: truncated");
	if (key_is_taken(channel))
		return base_fail(err, -EBADMSG, "section vmbus: channel %" PRIu32 ": device twice",
				 relid);
	return (flags & SAVED_OPEN) != 0 ? load_open(state, channel, err) : 0;
}

static int load_all(struct loaded_state *state, struct base_reader *in, struct base_error *err)
{
	int r = load_head(state, in, err);

	if (r == 0) {
		state->gpadl_count = base_read_le32(in);
		if (state->gpadl_count > VMBUS_GPADLS_MAX)
			r = base_fail(err, -EBADMSG, "section vmbus: %" PRIu32 " page lists",
				      state->gpadl_count);
	}
	for (uint32_t i = 0; r == 0 && i < state->gpadl_count; i++)
		r = load_gpadl(state, in, err);
	if (r == 0) {
		state->channel_count = base_read_le32(in);
		if (state->channel_count > VMBUS_CHANNELS_MAX ||
		    state->gpadl_pages > VMBUS_GPADL_PAGES_MAX ||
		    ((state->flags & SAVED_CONNECTED) == 0 &&
		     (state->channel_count != 0 || state->gpadl_count != 0)))
			r = base_fail(err, -EBADMSG, "section vmbus: %" PRIu32 " channels",
				      state->channel_count);
	}
	for (uint32_t i = 0; r == 0 && i < state->channel_count; i++)
		r = load_channel(state, in, err);
	if (r == 0 && (in->failed || base_reader_left(in) != 0))
		r = base_fail(err, -EBADMSG, "section vmbus: length");
	return r;
}

/* A channel that its device has offered already takes over what was saved of it. */
static void take_over(struct vmbus_channel *channel, struct vmbus_channel *saved)
{
	channel->known = true;
	channel->guest_open = saved->guest_open;
	channel->open = saved->open;
	channel->ring_gpadl = base_take(&saved->ring_gpadl);
	if (saved->saved_open)
		channel->state = CHANNEL_OPEN;
	(void)vmbus_assign(channel, saved->relid);
	vmbus_channel_destroy(saved);
}

static void commit_channel(struct vmbus *bus, struct vmbus_channel *saved)
{
	struct vmbus_offer key = { .type = saved->type,
				   .instance = saved->instance,
				   .sub_index = saved->sub_index };
	struct vmbus_channel *offered = NULL;

	{
		BASE_LOCKED(&bus->lock);

		if (!saved->retracted)
			offered = vmbus_find_key(bus, &key, false);
		if (offered == NULL) {
			(void)snprintf(saved->name, sizeof(saved->name), "saved");
			saved->next = bus->channels;
			bus->channels = saved;
			bus->channel_count++;
		}
	}
	if (offered != NULL)
		take_over(offered, saved);
	else
		(void)vmbus_assign(saved, saved->relid);
}

static void commit_call(void *context)
{
	struct loaded_state *state = context;
	struct vmbus *bus = state->bus;

	bus->connected = (state->flags & SAVED_CONNECTED) != 0;
	bus->offers_requested = (state->flags & SAVED_OFFERS_REQUESTED) != 0;
	bus->resetting = (state->flags & SAVED_RESETTING) != 0;
	bus->contact_waits = (state->flags & SAVED_CONTACT_WAITS) != 0;
	bus->unload_waits = (state->flags & SAVED_UNLOAD_WAITS) != 0;
	bus->contact = state->contact;
	bus->out_head = 0;
	bus->out_count = state->out_count;
	memcpy(bus->out, state->out, state->out_count * sizeof(*state->out));
	for (struct vmbus_gpadl *next = NULL; state->gpadls != NULL; state->gpadls = next) {
		next = state->gpadls->next;
		vmbus_link_gpadl(bus, state->gpadls);
	}
	for (struct vmbus_channel *next = NULL; state->channels != NULL; state->channels = next) {
		next = state->channels->next;
		commit_channel(bus, state->channels);
	}
	BASE_LOCKED(&bus->lock);
	bus->taking_up = true;
}

static int load(void *service, uint32_t index, uint32_t version, struct base_reader *in,
		struct base_error *err)
{
	struct loaded_state state = { .bus = service };
	int r = 0;

	(void)index;
	if (version != SECTION_VERSION)
		return base_fail(err, -ENOTSUP, "section vmbus: version %" PRIu32, version);
	for (const struct vmbus_channel *channel = state.bus->channels; channel != NULL;
	     channel = channel->next)
		if (channel->relid != 0)
			return base_fail(err, -EPROTO, "section vmbus: a guest has used the bus");
	r = load_all(&state, in, err);
	if (r == 0)
		base_io_call(state.bus->loop, commit_call, &state);
	loaded_state_free(&state);
	return r;
}

static void start_call(void *context)
{
	struct vmbus_channel *channel = context;

	channel->open_code = vmbus_channel_start(channel);
}

static int loaded(void *service, struct base_error *err)
{
	struct vmbus *bus = service;

	(void)err;
	/* Nothing runs: the list and the states stand still. */
	for (struct vmbus_channel *channel = vmbus_first(bus); channel != NULL;
	     channel = channel->next) {
		if (channel->loop == NULL || channel->state != CHANNEL_OPEN ||
		    atomic_load(&channel->is_open))
			continue;
		base_io_call(channel->loop, start_call, channel);
		if (channel->open_code == 0)
			continue;
		/* The guest still thinks it open, and may close it. */
		base_log(BASE_LOG_WARNING, "vmbus.channel-broken",
			 "vm=%s channel=%s relid=%" PRIu32 " why=\"saved rings: error %d\"",
			 bus->vm_name, channel->name, channel->relid, -channel->open_code);
		channel->state = CHANNEL_OFFERED;
		channel->broken = true;
		vmbus_gpadl_unref(base_take(&channel->ring_gpadl));
	}
	BASE_LOCKED(&bus->lock);
	bus->memory_back = true;
	return 0;
}

const struct hv_service_ops vmbus_service_ops = {
	.quiesce = quiesce,
	.resume = resume,
	.reset = reset,
	.section_count = section_count,
	.section = section,
	.save = save,
	.load = load,
	.loaded = loaded,
};
