/* SPDX-License-Identifier: Apache-2.0 */
/* See guest_bus.h.  Messages: docs/hypervisor/vmbus/vmbus.md. */
#include "tests/guest/guest_bus.h"

#include <stddef.h>

#include "tests/guest/guest_bytes.h"

enum message {
	OFFER = 1,
	RESCIND = 2,
	REQUEST_OFFERS = 3,
	ALL_OFFERS = 4,
	OPEN = 5,
	OPEN_RESULT = 6,
	CLOSE = 7,
	GPADL_HEADER = 8,
	GPADL_BODY = 9,
	GPADL_CREATED = 10,
	GPADL_TEARDOWN = 11,
	GPADL_TORNDOWN = 12,
	RELID_RELEASED = 13,
	INITIATE_CONTACT = 14,
	VERSION_RESPONSE = 15,
	UNLOAD = 16,
	UNLOAD_RESPONSE = 17,
	MODIFY_CHANNEL = 22,
	MODIFY_RESPONSE = 24
};

#define VERSION_CONNECTION 0x50000 /* from here on messages go where the host says */
#define CONTACT_CONNECTION 4
#define OLD_CONNECTION     1
#define CONTACT_BYTES      40
#define OFFER_BYTES        196
#define OPEN_BYTES         148
#define PFNS_IN_HEADER     26
#define PFNS_IN_BODY       28
#define PAGE_SHIFT         12
#define GPADL_ID_FIRST     0xe1e10

static const uint32_t versions[] = { 0x50003, 0x50002, 0x50001, 0x50000, 0x40001, 0x40000 };

const char *const guest_class_names[GUEST_CLASSES] = {
	"other", "scsi", "nic", "heartbeat", "shutdown", "timesync", "kvp", "vss",
};

/* The first four bytes are enough to tell those apart that matter here. */
static const uint32_t class_ids[GUEST_CLASSES] = {
	0, 0xba6163d9, 0xf8615163, 0x57164f39, 0x0e0b6031, 0x9527e630, 0xa9a0f4e7, 0x35fa2e29,
};

static void post(struct guest_bus *bus, uint8_t *message, enum message type, uint32_t bytes)
{
	uint32_t status;

	guest_put32(message, type);
	guest_put32(message + 4, 0);
	bus->posted++;
	status = guest_hv_post(bus->connection, message, bytes);
	if (status != 0) {
		bus->state = GUEST_BUS_REFUSED;
		bus->failure = "the host does not take a message";
	}
}

static void post_relid(struct guest_bus *bus, enum message type, uint32_t relid)
{
	uint8_t message[12];

	guest_put32(message + 8, relid);
	post(bus, message, type, sizeof(message));
}

static void contact(struct guest_bus *bus)
{
	uint8_t message[CONTACT_BYTES] = { 0 };

	bus->version = versions[bus->version_at];
	bus->connection = bus->version >= VERSION_CONNECTION ? CONTACT_CONNECTION : OLD_CONNECTION;
	bus->state = GUEST_BUS_CONTACT;
	guest_put32(message + 8, bus->version);
	guest_put32(message + 12, bus->vp);
	guest_put64(message + 16, 2); /* messages by SINT 2, VTL 0, no feature */
	post(bus, message, INITIATE_CONTACT, sizeof(message));
}

void guest_bus_start(struct guest_bus *bus, uint32_t vp)
{
	bus->version_at = 0;
	bus->vp = vp;
	bus->next_gpadl = GPADL_ID_FIRST;
	contact(bus);
}

static void version_response(struct guest_bus *bus, const uint8_t *payload, uint32_t bytes)
{
	uint8_t message[8];

	if (bus->state != GUEST_BUS_CONTACT) {
		bus->strange++;
		return;
	}
	if (payload[8] == 0 || payload[9] != 0) {
		if (++bus->version_at < sizeof(versions) / sizeof(versions[0])) {
			contact(bus);
			return;
		}
		bus->state = GUEST_BUS_REFUSED;
		bus->failure = "no version in common";
		return;
	}
	if (bus->version >= VERSION_CONNECTION && bytes >= 16)
		bus->connection = guest_get32(payload + 12);
	bus->state = GUEST_BUS_OFFERS;
	post(bus, message, REQUEST_OFFERS, sizeof(message));
}

static enum guest_class class_of(const uint8_t *guid)
{
	for (unsigned int i = 1; i < GUEST_CLASSES; i++)
		if (guest_get32(guid) == class_ids[i])
			return (enum guest_class)i;
	return GUEST_CLASS_OTHER;
}

/* The same device again, after a close of all or a rescind, gets its old place and ring. */
static struct guest_channel *place_for(struct guest_bus *bus, const uint8_t *payload)
{
	uint16_t sub_index = guest_get16(payload + 180);
	struct guest_channel *free = NULL;

	for (unsigned int i = 0; i < GUEST_CHANNELS_MAX; i++) {
		struct guest_channel *channel = &bus->channels[i];

		if (channel->state != GUEST_CHANNEL_FREE)
			continue;
		if (channel->ring_at != NULL && channel->sub_index == sub_index &&
		    __builtin_memcmp(channel->instance, payload + 24, 16) == 0)
			return channel;
		if (channel->ring_at == NULL && free == NULL)
			free = channel;
	}
	return free;
}

static void offer(struct guest_bus *bus, const uint8_t *payload)
{
	uint32_t relid = guest_get32(payload + 184);
	struct guest_channel *channel = place_for(bus, payload);

	if (relid == 0 || relid >= GUEST_RELIDS || channel == NULL || bus->by_relid[relid] != 0) {
		bus->strange++;
		return;
	}
	channel->class = class_of(payload + 8);
	__builtin_memcpy(channel->instance, payload + 24, 16);
	channel->sub_index = guest_get16(payload + 180);
	channel->relid = relid;
	channel->connection = guest_get32(payload + 192);
	channel->rescinded = false;
	channel->state = GUEST_CHANNEL_OFFERED;
	bus->by_relid[relid] = (uint8_t)(channel - bus->channels + 1);
	if (bus->by_relid[relid] > bus->place_count)
		__atomic_store_n(&bus->place_count, bus->by_relid[relid], __ATOMIC_RELEASE);
	bus->offer_count++;
	guest_bus_event(bus, GUEST_BUS_OFFERED, channel);
}

struct guest_channel *guest_bus_channel(struct guest_bus *bus, uint32_t relid)
{
	if (relid >= GUEST_RELIDS || bus->by_relid[relid] == 0)
		return NULL;
	return &bus->channels[bus->by_relid[relid] - 1];
}

static struct guest_gpadl *find_gpadl(struct guest_bus *bus, uint32_t id)
{
	for (unsigned int i = 0; i < GUEST_GPADLS_MAX; i++)
		if (bus->gpadls[i].state != GUEST_GPADL_FREE && bus->gpadls[i].id == id)
			return &bus->gpadls[i];
	return NULL;
}

static void put_pfns(uint8_t *to, const uint8_t *at, uint32_t from, uint32_t count)
{
	for (uint32_t i = 0; i < count; i++)
		guest_put64(to + i * 8, (guest_hv_address(at) >> PAGE_SHIFT) + from + i);
}

struct guest_gpadl *guest_bus_gpadl(struct guest_bus *bus, const struct guest_channel *channel,
				    const uint8_t *at, uint32_t bytes)
{
	uint32_t pages = bytes >> PAGE_SHIFT, sent;
	uint8_t message[GUEST_MESSAGE_BYTES] = { 0 };
	struct guest_gpadl *gpadl = bus->gpadls;

	while (gpadl->state != GUEST_GPADL_FREE)
		if (++gpadl == bus->gpadls + GUEST_GPADLS_MAX)
			return NULL;
	gpadl->id = bus->next_gpadl++;
	gpadl->relid = channel->relid;
	gpadl->state = GUEST_GPADL_ASKED;
	sent = pages < PFNS_IN_HEADER ? pages : PFNS_IN_HEADER;
	guest_put32(message + 8, channel->relid);
	guest_put32(message + 12, gpadl->id);
	guest_put16(message + 16, (uint16_t)(8 + pages * 8));
	guest_put16(message + 18, 1);
	guest_put32(message + 20, bytes);
	put_pfns(message + 28, at, 0, sent);
	post(bus, message, GPADL_HEADER, 28 + sent * 8);
	while (sent < pages) {
		uint32_t part = pages - sent < PFNS_IN_BODY ? pages - sent : PFNS_IN_BODY;

		__builtin_memset(message, 0, sizeof(message));
		guest_put32(message + 12, gpadl->id);
		put_pfns(message + 16, at, sent, part);
		post(bus, message, GPADL_BODY, 16 + part * 8);
		sent += part;
	}
	return gpadl;
}

void guest_bus_open(struct guest_bus *bus, struct guest_channel *channel, uint32_t vcpu)
{
	const struct guest_gpadl *gpadl;

	__builtin_memset(channel->ring_at, 0, channel->ring_bytes);
	guest_ring_init(&channel->ring, channel->ring_at, channel->ring_bytes);
	__atomic_store_n(&channel->pending, true, __ATOMIC_RELEASE); /* look once at the start */
	channel->vcpu = vcpu;
	channel->state = GUEST_CHANNEL_GPADL;
	gpadl = guest_bus_gpadl(bus, channel, channel->ring_at, channel->ring_bytes);
	if (gpadl != NULL)
		channel->ring_gpadl = gpadl->id;
}

static void open_ring(struct guest_bus *bus, struct guest_channel *channel)
{
	uint8_t message[OPEN_BYTES] = { 0 };

	guest_put32(message + 8, channel->relid);
	guest_put32(message + 12, channel->relid);
	guest_put32(message + 16, channel->ring_gpadl);
	guest_put32(message + 20, guest_hv_vp(channel->vcpu));
	guest_put32(message + 24, (channel->ring_bytes / 2) >> PAGE_SHIFT);
	channel->state = GUEST_CHANNEL_OPENING;
	post(bus, message, OPEN, sizeof(message));
}

static void gpadl_created(struct guest_bus *bus, const uint8_t *payload)
{
	struct guest_channel *channel = guest_bus_channel(bus, guest_get32(payload + 8));
	struct guest_gpadl *gpadl = find_gpadl(bus, guest_get32(payload + 12));
	bool good = guest_get32(payload + 16) == 0;

	if (gpadl == NULL || gpadl->state != GUEST_GPADL_ASKED || channel == NULL) {
		bus->strange++;
		return;
	}
	__atomic_store_n(&gpadl->state, good ? GUEST_GPADL_READY : GUEST_GPADL_FAILED,
			 __ATOMIC_RELEASE);
	if (!good) {
		bus->state = GUEST_BUS_REFUSED;
		bus->failure = "a page list was refused";
	} else if (channel->state == GUEST_CHANNEL_GPADL && gpadl->id == channel->ring_gpadl) {
		open_ring(bus, channel);
	}
}

static void open_result(struct guest_bus *bus, const uint8_t *payload)
{
	struct guest_channel *channel = guest_bus_channel(bus, guest_get32(payload + 8));

	if (channel == NULL || channel->state != GUEST_CHANNEL_OPENING) {
		bus->strange++;
		return;
	}
	if (guest_get32(payload + 16) != 0) {
		bus->state = GUEST_BUS_REFUSED;
		bus->failure = "a channel does not open";
		return;
	}
	channel->serial++;
	__atomic_store_n(&channel->state, GUEST_CHANNEL_OPEN, __ATOMIC_RELEASE);
	guest_bus_event(bus, GUEST_BUS_OPENED, channel);
}

static uint32_t gpadls_of(const struct guest_bus *bus, uint32_t relid)
{
	uint32_t count = 0;

	for (unsigned int i = 0; i < GUEST_GPADLS_MAX; i++)
		if (bus->gpadls[i].state != GUEST_GPADL_FREE && bus->gpadls[i].relid == relid)
			count++;
	return count;
}

static void tear_gpadls(struct guest_bus *bus, const struct guest_channel *channel)
{
	uint8_t message[16];

	for (unsigned int i = 0; i < GUEST_GPADLS_MAX; i++) {
		struct guest_gpadl *gpadl = &bus->gpadls[i];

		if (gpadl->state == GUEST_GPADL_FREE || gpadl->relid != channel->relid)
			continue;
		gpadl->state = GUEST_GPADL_TORN;
		guest_put32(message + 8, channel->relid);
		guest_put32(message + 12, gpadl->id);
		post(bus, message, GPADL_TEARDOWN, sizeof(message));
	}
}

/* All page lists are back: the channel is as it was offered, or gone when it was taken back. */
static void closed(struct guest_bus *bus, struct guest_channel *channel)
{
	if (!channel->rescinded) {
		channel->state = GUEST_CHANNEL_OFFERED;
		guest_bus_event(bus, GUEST_BUS_CLOSED, channel);
		return;
	}
	post_relid(bus, RELID_RELEASED, channel->relid);
	bus->by_relid[channel->relid] = 0;
	bus->offer_count--;
	channel->state = GUEST_CHANNEL_FREE;
	guest_bus_event(bus, GUEST_BUS_GONE, channel);
}

void guest_bus_close(struct guest_bus *bus, struct guest_channel *channel)
{
	__atomic_store_n(&channel->state, GUEST_CHANNEL_CLOSING, __ATOMIC_RELEASE);
	post_relid(bus, CLOSE, channel->relid);
	tear_gpadls(bus, channel);
}

static void torn_down(struct guest_bus *bus, const uint8_t *payload)
{
	struct guest_gpadl *gpadl = find_gpadl(bus, guest_get32(payload + 8));
	struct guest_channel *channel;

	if (gpadl == NULL || gpadl->state != GUEST_GPADL_TORN) {
		bus->strange++;
		return;
	}
	gpadl->state = GUEST_GPADL_FREE;
	channel = guest_bus_channel(bus, gpadl->relid);
	if (channel != NULL && channel->state == GUEST_CHANNEL_CLOSING &&
	    gpadls_of(bus, channel->relid) == 0)
		closed(bus, channel);
}

static void rescind(struct guest_bus *bus, const uint8_t *payload)
{
	struct guest_channel *channel = guest_bus_channel(bus, guest_get32(payload + 8));

	if (channel == NULL || channel->rescinded) {
		bus->strange++;
		return;
	}
	channel->rescinded = true;
	if (channel->state == GUEST_CHANNEL_OFFERED)
		closed(bus, channel);
	else if (channel->state != GUEST_CHANNEL_CLOSING)
		guest_bus_close(bus, channel);
}

void guest_bus_modify(struct guest_bus *bus, struct guest_channel *channel, uint32_t vcpu)
{
	uint8_t message[16];

	channel->vcpu = vcpu;
	guest_put32(message + 8, channel->relid);
	guest_put32(message + 12, guest_hv_vp(vcpu));
	post(bus, message, MODIFY_CHANNEL, sizeof(message));
}

void guest_bus_unload(struct guest_bus *bus)
{
	uint8_t message[8];

	bus->state = GUEST_BUS_UNLOADING;
	post(bus, message, UNLOAD, sizeof(message));
}

static void unloaded(struct guest_bus *bus)
{
	for (unsigned int i = 0; i < GUEST_CHANNELS_MAX; i++)
		bus->channels[i].state = GUEST_CHANNEL_FREE;
	for (unsigned int i = 0; i < GUEST_GPADLS_MAX; i++)
		bus->gpadls[i].state = GUEST_GPADL_FREE;
	__builtin_memset(bus->by_relid, 0, sizeof(bus->by_relid));
	bus->offer_count = 0;
	bus->state = GUEST_BUS_UNLOADED;
}

/* The least length of each message that is taken; 0: none is. */
static uint32_t least_bytes(uint32_t type)
{
	switch (type) {
	case OFFER:
		return OFFER_BYTES;
	case RESCIND:
	case GPADL_TORNDOWN:
		return 12;
	case OPEN_RESULT:
	case GPADL_CREATED:
		return 20;
	case VERSION_RESPONSE:
		return 10;
	case MODIFY_RESPONSE:
		return 16;
	case ALL_OFFERS:
	case UNLOAD_RESPONSE:
		return 8;
	default:
		return UINT32_MAX;
	}
}

void guest_bus_message(struct guest_bus *bus, const uint8_t *payload, uint32_t bytes)
{
	uint32_t type = bytes < 8 ? 0 : guest_get32(payload);
	struct guest_channel *channel;

	bus->received++;
	if (bytes < least_bytes(type)) {
		bus->strange++;
		return;
	}
	if (type == OFFER)
		offer(bus, payload);
	else if (type == RESCIND)
		rescind(bus, payload);
	else if (type == GPADL_TORNDOWN)
		torn_down(bus, payload);
	else if (type == OPEN_RESULT)
		open_result(bus, payload);
	else if (type == GPADL_CREATED)
		gpadl_created(bus, payload);
	else if (type == VERSION_RESPONSE)
		version_response(bus, payload, bytes);
	else if (type == UNLOAD_RESPONSE)
		unloaded(bus);
	else if (type == ALL_OFFERS) {
		bus->state = GUEST_BUS_READY;
		guest_bus_event(bus, GUEST_BUS_CONNECTED, NULL);
	} else if (type == MODIFY_RESPONSE) {
		channel = guest_bus_channel(bus, guest_get32(payload + 8));
		if (channel != NULL && guest_get32(payload + 12) == 0)
			__atomic_store_n(&channel->modified_count, channel->modified_count + 1,
					 __ATOMIC_RELEASE);
		else
			bus->strange++;
	}
}
