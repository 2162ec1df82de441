/* SPDX-License-Identifier: Apache-2.0 */
/*
 * For tests: a guest's end of VMBus without a guest, in this process and without KVM.
 *
 * It has memory, a SynIC and a bus, and does what a guest's drivers do: connects, asks for
 * offers, gives page lists, opens channels, reads and writes the rings as Linux does (signals
 * only when the host waits for it).  Messages are laid out here by hand, so that it checks the
 * bus's own codec.  Wrong ones can be sent too.
 *
 * The loop is not started: the test's thread owns it, and everything waits by pumping it, so tests
 * are deterministic.  What does not come within many turns is a failure of the test.
 */
#ifndef SUPPORT_VMBUS_GUEST_H
#define SUPPORT_VMBUS_GUEST_H

#include <stdbool.h>
#include <stdint.h>

#include "base/io_loop.h"
#include "hypervisor/slat.h"
#include "hypervisor/synic.h"
#include "hypervisor/vmbus/vmbus.h"
#include "hypervisor/vmbus/vmbus_channel.h"

#define VMBUS_GUEST_VERSION   0x00050003u /* 5.3 */
#define VMBUS_GUEST_RING_MAX  64u         /* pages of both rings together */
#define VMBUS_GUEST_OFFERS    96u
#define VMBUS_GUEST_STATUS_OK 0u

struct vmbus_guest;

struct vmbus_guest_opts {
	uint64_t memory_bytes;          /* 0: 64 MiB */
	uint32_t vcpus;                 /* 0: 1 */
	const struct base_clock *clock; /* of the loop; NULL: the system's */
};

struct vmbus_guest *vmbus_guest_new(const struct vmbus_guest_opts *opts); /* NULL opts: defaults */
/* Devices on the bus are freed first. */
void vmbus_guest_free(struct vmbus_guest *guest);

/* Another bus over the same memory and SynIC, at power-on: to be loaded.  The devices on the old
 * one are freed first. */
void vmbus_guest_new_bus(struct vmbus_guest *guest);

struct vmbus *vmbus_guest_bus(struct vmbus_guest *guest);
struct hv_slat *vmbus_guest_slat(struct vmbus_guest *guest);
struct hv_synic *vmbus_guest_synic(struct vmbus_guest *guest);
struct base_io_loop *vmbus_guest_loop(struct vmbus_guest *guest);
/* Pump the loop until nothing is ready. */
void vmbus_guest_run(struct vmbus_guest *guest);
/* Interrupts that @vp was given so far. */
uint64_t vmbus_guest_interrupts(struct vmbus_guest *guest, uint32_t vp);

/* --- memory, as the guest sees it (its own writes are not the worker's: not marked) --- */

/* @count free pages next to each other, zeroed; the GPA of the first. */
uint64_t vmbus_guest_pages(struct vmbus_guest *guest, uint32_t count);
/* @count free pages in an order that is not theirs. */
void vmbus_guest_scattered(struct vmbus_guest *guest, uint32_t count, uint64_t *ret_pfns);
/* Host address of guest memory; aborts when it is not RAM. */
uint8_t *vmbus_guest_at(struct vmbus_guest *guest, uint64_t gpa, uint64_t size_bytes);

/* --- messages --- */

/* POST_MESSAGE with these bytes, as they are; then the loop is pumped. */
enum hv_status vmbus_guest_post(struct vmbus_guest *guest, uint32_t connection_id,
				const void *payload, uint32_t size_bytes);
/* Take the next message out of the slot, EOM as a guest; false: there is none. */
bool vmbus_guest_take(struct vmbus_guest *guest, struct hv_message *ret_message);
/* The next message must be of this VMBus type; the others fail the test. */
void vmbus_guest_expect(struct vmbus_guest *guest, uint32_t type, struct hv_message *ret_message);
/* INITIATE_CONTACT; whether the version was taken. */
bool vmbus_guest_contact(struct vmbus_guest *guest, uint32_t version);
/* Contact with VMBUS_GUEST_VERSION, and all offers. */
void vmbus_guest_connect(struct vmbus_guest *guest);
/* REQUESTOFFERS again (after a contact). */
void vmbus_guest_request_offers(struct vmbus_guest *guest);

struct vmbus_guest_offer {
	struct disk_guid type;
	struct disk_guid instance;
	uint16_t flags;
	uint16_t sub_index;
	uint32_t relid;
	uint32_t connection_id;
	bool dedicated;
	uint8_t user_defined[120];
};
/* Offers seen since the last contact and not rescinded.  Takes what waits first.  NULL: none such.
 */
const struct vmbus_guest_offer *vmbus_guest_offer(struct vmbus_guest *guest,
						  const struct disk_guid *type, uint16_t sub_index);
/* Relid of a RESCIND that came since the last call; 0: none.  Takes what waits first. */
uint32_t vmbus_guest_rescinded(struct vmbus_guest *guest);
void vmbus_guest_release_relid(struct vmbus_guest *guest, uint32_t relid);
/* UNLOAD; whether the response came. */
bool vmbus_guest_unload(struct vmbus_guest *guest);

/* A page list of whole pages; its status (0: created) and id. */
uint32_t vmbus_guest_gpadl(struct vmbus_guest *guest, uint32_t relid, const uint64_t *pfns,
			   uint32_t count, uint32_t *ret_gpadl);
/* GPADL_TEARDOWN; whether TORNDOWN came. */
bool vmbus_guest_teardown(struct vmbus_guest *guest, uint32_t relid, uint32_t gpadl);

/* --- a channel --- */

struct vmbus_guest_channel {
	struct vmbus_guest *guest;
	uint32_t relid;
	uint32_t connection_id;
	uint32_t gpadl;
	uint32_t target_vp;
	uint32_t out_pages; /* to the host, with the header page */
	uint32_t in_pages;
	uint64_t pfns[VMBUS_GUEST_RING_MAX];
	uint64_t signal_count; /* hypercalls made */
};
/* Gives a ring of @pages each way (header included, 0: 9), opens; the status of the result. */
uint32_t vmbus_guest_open(struct vmbus_guest *guest, const struct vmbus_guest_offer *offer,
			  uint32_t pages, struct vmbus_guest_channel *ret_channel);
/* CLOSECHANNEL and the teardown of its page list. */
void vmbus_guest_close(struct vmbus_guest_channel *channel);

struct vmbus_guest_packet {
	uint16_t type;
	uint16_t flags;
	uint64_t trans_id;
	uint32_t header_bytes;  /* behind the descriptor */
	uint32_t payload_bytes; /* with padding */
	uint8_t bytes[16384];   /* header, then payload */
};
/* Into the ring to the host; signals if it waits for it and @signal, and pumps then.  -EAGAIN:
 * full. */
int vmbus_guest_send(struct vmbus_guest_channel *channel, uint16_t type, uint16_t flags,
		     uint64_t trans_id, const struct iovec pieces[2], bool signal);
/* In-band, with or without completion wanted. */
int vmbus_guest_send_inband(struct vmbus_guest_channel *channel, uint64_t trans_id,
			    const void *payload, uint32_t size_bytes, bool wants_completion);
/* GPA-direct with one range. */
int vmbus_guest_send_direct(struct vmbus_guest_channel *channel, uint64_t trans_id,
			    const void *payload, uint32_t payload_bytes, const uint64_t *pfns,
			    uint32_t offset, uint32_t length);
/* Signal the host, needed or not. */
void vmbus_guest_signal(struct vmbus_guest_channel *channel);
/* The next packet from the host; false: none.  Pumps first; tells the host of room when it waits.
 */
bool vmbus_guest_receive(struct vmbus_guest_channel *channel,
			 struct vmbus_guest_packet *ret_packet);
/* Test and clear the channel's event flag. */
bool vmbus_guest_event(struct vmbus_guest_channel *channel);

/* A word of a ring's header, for tests that break it: @in the ring to the guest. */
uint32_t *vmbus_guest_ring_word(struct vmbus_guest_channel *channel, bool in, uint32_t offset);

#endif
