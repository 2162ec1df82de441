/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The guest's side of VMBus: contact, offers, page lists (GPADLs), opening and closing of
 * channels.  Steps are taken by messages; nothing here waits.  vCPU 0 only, but for the
 * fields of a channel that say so.  Compiles for the guest and the host: what it needs
 * (guest_hv_post, guest_bus_event) is supplied by guest_hv.c or by a test.
 */
#ifndef GUEST_BUS_H
#define GUEST_BUS_H

#include <stdbool.h>
#include <stdint.h>

#include "tests/guest/guest_ring.h"

#define GUEST_CHANNELS_MAX  96
#define GUEST_GPADLS_MAX    256
#define GUEST_RELIDS        2048
#define GUEST_MESSAGE_BYTES 240

enum guest_class {
	GUEST_CLASS_OTHER = 0,
	GUEST_CLASS_SCSI,
	GUEST_CLASS_NIC,
	GUEST_CLASS_HEARTBEAT,
	GUEST_CLASS_SHUTDOWN,
	GUEST_CLASS_TIMESYNC,
	GUEST_CLASS_KVP,
	GUEST_CLASS_VSS,
	GUEST_CLASSES
};
extern const char *const guest_class_names[GUEST_CLASSES];

enum guest_channel_state {
	GUEST_CHANNEL_FREE = 0,
	GUEST_CHANNEL_OFFERED,
	GUEST_CHANNEL_GPADL, /* the ring's page list is with the host */
	GUEST_CHANNEL_OPENING,
	GUEST_CHANNEL_OPEN,
	GUEST_CHANNEL_CLOSING /* closed; its page lists are asked back */
};

struct guest_channel {
	uint32_t state; /* enum guest_channel_state; read by the owner with acquire */
	uint32_t vcpu;  /* owner: drives the rings; the host interrupts it */
	bool pending;   /* an event flag came: set by any vCPU, taken by the owner; atomic */
	bool rescinded;
	enum guest_class class;
	uint16_t sub_index;
	uint32_t relid, connection;
	uint8_t instance[16];
	uint32_t ring_gpadl, ring_bytes;
	uint8_t *ring_at;        /* kept over close and open */
	struct guest_ring ring;  /* the owner's while OPEN */
	uint64_t serial;         /* which opening this is */
	uint64_t modified_count; /* answers to MODIFYCHANNEL */
};

enum guest_bus_state {
	GUEST_BUS_OFF = 0,
	GUEST_BUS_CONTACT,
	GUEST_BUS_OFFERS,
	GUEST_BUS_READY,
	GUEST_BUS_UNLOADING,
	GUEST_BUS_UNLOADED,
	GUEST_BUS_REFUSED /* no version in common, or an open that failed */
};

enum guest_gpadl_state {
	GUEST_GPADL_FREE = 0,
	GUEST_GPADL_ASKED,
	GUEST_GPADL_READY,
	GUEST_GPADL_FAILED,
	GUEST_GPADL_TORN /* asked back */
};

struct guest_gpadl {
	uint32_t state; /* atomic: a channel's owner looks */
	uint32_t id, relid;
};

struct guest_bus {
	enum guest_bus_state state;
	uint32_t version, version_at;
	uint32_t connection; /* where messages go */
	uint32_t offer_count, posted, received, strange;
	uint32_t vp; /* VP index of vCPU 0 */
	uint32_t next_gpadl;
	const char *failure; /* why REFUSED */
	struct guest_channel channels[GUEST_CHANNELS_MAX];
	struct guest_gpadl gpadls[GUEST_GPADLS_MAX];
	uint8_t by_relid[GUEST_RELIDS]; /* index + 1 */
	uint32_t place_count;           /* atomic: channels behind have never been offered */
};

enum guest_bus_event {
	GUEST_BUS_CONNECTED = 1, /* all offers are there; channel NULL */
	GUEST_BUS_OFFERED,
	GUEST_BUS_OPENED,
	GUEST_BUS_CLOSED, /* its pages are the guest's again */
	GUEST_BUS_GONE    /* taken back by the host: the channel is free */
};

/** guest_bus_start - make contact.  Offers and the event CONNECTED follow. */
void guest_bus_start(struct guest_bus *bus, uint32_t vp);

/** guest_bus_message - one message from the host, payload only. */
void guest_bus_message(struct guest_bus *bus, const uint8_t *payload, uint32_t bytes);

/** guest_bus_open - open an offered channel.  The ring's memory is in place: ring_at, ring_bytes.
 */
void guest_bus_open(struct guest_bus *bus, struct guest_channel *channel, uint32_t vcpu);

/** guest_bus_close - close an open channel; its owner does not touch it any more. */
void guest_bus_close(struct guest_bus *bus, struct guest_channel *channel);

/** guest_bus_modify - let the host interrupt another vCPU for it. */
void guest_bus_modify(struct guest_bus *bus, struct guest_channel *channel, uint32_t vcpu);

/** guest_bus_unload - let go of everything, as before a kexec. */
void guest_bus_unload(struct guest_bus *bus);

/**
 * guest_bus_gpadl - make @bytes from @at known to the host for @channel.
 * Torn down with the channel's close.  Return: the entry; its state tells.
 */
struct guest_gpadl *guest_bus_gpadl(struct guest_bus *bus, const struct guest_channel *channel,
				    const uint8_t *at, uint32_t bytes);

struct guest_channel *guest_bus_channel(struct guest_bus *bus, uint32_t relid);

/* Supplied from outside. */

/** guest_hv_post - hypercall POST_MESSAGE; tries again while the host has no buffers.
 *  Return: hypercall status. */
uint32_t guest_hv_post(uint32_t connection, const uint8_t *payload, uint32_t bytes);
/** guest_hv_address - the guest physical address of @at. */
uint64_t guest_hv_address(const uint8_t *at);
/** guest_hv_vp - the VP index of a vCPU. */
uint32_t guest_hv_vp(uint32_t vcpu);
void guest_bus_event(struct guest_bus *bus, enum guest_bus_event event,
		     struct guest_channel *channel);

#endif
