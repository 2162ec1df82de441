/* SPDX-License-Identifier: Apache-2.0 */
/*
 * For the tests of the integration services: a guest's end of the bus that answers as Linux does,
 * in place, under a clock set by hand.
 */
#ifndef TESTS_IC_RIG_H
#define TESTS_IC_RIG_H

#include <criterion/criterion.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/bytes.h"
#include "hypervisor/disk/utf16.h"
#include "hypervisor/ic/ic_priv.h"
#include "tests/support/vmbus_guest.h"

#define RIG_REAL_NS (1700000000ULL * BASE_NS_PER_SECOND)

static struct base_fake_clock rig_time;
static struct base_clock rig_clock;
static struct vmbus_guest *rig_guest;
static struct ic_set *rig_set;
static struct vmbus_guest_channel rig_channels[IC_SERVICES];
static struct vmbus_guest_packet rig_packet; /* the last request */
static uint64_t rig_reference;
static uint32_t rig_heartbeats; /* events */
static uint32_t rig_kvp_changes;

static uint64_t rig_reference_time(void *context)
{
	(void)context;
	return rig_reference;
}

static void rig_heartbeat(void *context, enum ic_heartbeat state)
{
	(void)context;
	(void)state;
	rig_heartbeats++;
}

static void rig_kvp_changed(void *context)
{
	(void)context;
	rig_kvp_changes++;
}

static const struct ic_events rig_events = {
	.heartbeat = rig_heartbeat,
	.kvp_changed = rig_kvp_changed,
};

static struct ic_set *rig_new_set(struct vmbus_guest *guest)
{
	struct ic_set *set = NULL;
	struct base_error err = { 0 };
	struct ic_options options = {
		.bus = vmbus_guest_bus(guest),
		.loop = vmbus_guest_loop(guest),
		.clock = &rig_clock,
		.vm_name = "rig",
		.reference_time = rig_reference_time,
		.events = &rig_events,
	};

	cr_assert_eq(ic_new(&options, &set, &err), 0, "%s", err.text);
	return set;
}

static void rig_setup(void)
{
	rig_time =
		(struct base_fake_clock){ .boot_ns = BASE_NS_PER_SECOND, .real_ns = RIG_REAL_NS };
	rig_clock = base_clock_fake(&rig_time);
	rig_reference = 10000000;
	rig_guest = vmbus_guest_new(&(struct vmbus_guest_opts){ .clock = &rig_clock });
	rig_set = rig_new_set(rig_guest);
	vmbus_guest_connect(rig_guest);
}

static void rig_teardown(void)
{
	ic_free(rig_set);
	vmbus_guest_free(rig_guest);
}

/* Time passes, and timers expire. */
static void rig_pass(uint32_t ms)
{
	for (uint32_t i = 0; i < ms; i += 10) {
		rig_time.boot_ns += 10 * BASE_NS_PER_MS;
		rig_time.real_ns += 10 * BASE_NS_PER_MS;
		rig_reference += 100000;
		vmbus_guest_run(rig_guest);
	}
}

static bool rig_request(enum ic_service service)
{
	return vmbus_guest_receive(&rig_channels[service], &rig_packet);
}

static void rig_send(enum ic_service service)
{
	cr_assert_eq(vmbus_guest_send_inband(&rig_channels[service], rig_packet.trans_id,
					     rig_packet.bytes, rig_packet.payload_bytes, false),
		     0);
	vmbus_guest_run(rig_guest);
}

/* Answer the last request with what stands in rig_packet. */
static void rig_answer(enum ic_service service, uint32_t status)
{
	base_put_le32(rig_packet.bytes + 20, status);
	rig_packet.bytes[25] = IC_FLAG_TRANSACTION | IC_FLAG_RESPONSE;
	rig_send(service);
}

static void rig_open(enum ic_service service)
{
	static const char *types[IC_SERVICES] = {
		"57164f39-9115-4e78-ab55-382f3bd5422d", "0e0b6031-5213-4934-818b-38d90ced39db",
		"9527e630-d0ae-497b-adce-e80ab0175caf", "a9a0f4e7-5a45-4d96-b827-8a841e8c03e6",
		"35fa2e29-ea23-4236-96ae-3a6ebacba440",
	};
	struct disk_guid type;
	const struct vmbus_guest_offer *offer = NULL;

	cr_assert(disk_guid_parse(types[service], strlen(types[service]), &type));
	offer = vmbus_guest_offer(rig_guest, &type, 0);
	cr_assert_not_null(offer);
	cr_assert_eq(vmbus_guest_open(rig_guest, offer, 4, &rig_channels[service]), 0);
}

/* The guest's answer to a negotiation. */
static void rig_choose(enum ic_service service, uint16_t major, uint16_t minor)
{
	base_put_le16(rig_packet.bytes + 18, 16);
	base_put_le16(rig_packet.bytes + 28, 1);
	base_put_le16(rig_packet.bytes + 30, 1);
	base_put_le16(rig_packet.bytes + 36, 3);
	base_put_le16(rig_packet.bytes + 38, 0);
	base_put_le16(rig_packet.bytes + 40, major);
	base_put_le16(rig_packet.bytes + 42, minor);
	rig_answer(service, 0);
}

static void rig_up(enum ic_service service, uint16_t major, uint16_t minor)
{
	rig_open(service);
	cr_assert(rig_request(service));
	cr_assert_eq(base_get_le16(rig_packet.bytes + 12), IC_TYPE_NEGOTIATE);
	rig_choose(service, major, minor);
	cr_assert_eq(rig_set->channels[service].port.state, IC_PORT_READY);
}

static uint8_t *rig_body(void)
{
	return rig_packet.bytes + IC_HEADER_BYTES;
}

#endif
