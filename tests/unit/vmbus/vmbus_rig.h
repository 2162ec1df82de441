/* SPDX-License-Identifier: Apache-2.0 */
/*
 * For the tests of the bus: a guest's end of it and a device that echoes: what it is sent it
 * sends back, as a completion when one is wanted.
 */
#ifndef TESTS_VMBUS_RIG_H
#define TESTS_VMBUS_RIG_H

#include <criterion/criterion.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/bytes.h"
#include "hypervisor/vmbus/vmbus_priv.h"
#include "tests/support/vmbus_guest.h"

struct echo {
	struct vmbus *bus;
	struct vmbus_channel *channel;
	int open_code; /* what opened() gives */
	bool hold;     /* closing() does not answer: access is in flight */
	bool deaf;     /* ready() takes nothing */
	bool mute;     /* receives, sends nothing */
	bool keep_gpadl;
	struct vmbus_gpadl *gpadl; /* a list it holds */
	uint32_t opened_count;
	uint32_t ready_count;
	uint32_t closing_count;
	uint32_t torn_count;
	uint32_t gone_count;
	uint32_t packet_count;
	uint32_t blocked_count; /* sends that did not fit */
	int receive_code;       /* the last that was negative */
	uint8_t last[64];
	bool has_unsent;
	struct vmbus_send unsent;
	uint8_t unsent_bytes[4096];
};

static const struct disk_guid rig_type = { { 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15,
					     16 } };

static int rig_opened(void *device, struct vmbus_channel *channel,
		      const uint8_t user_data[VMBUS_USER_DATA_BYTES])
{
	struct echo *echo = device;

	(void)channel;
	(void)user_data;
	echo->opened_count++;
	return echo->open_code;
}

static bool rig_send_unsent(struct echo *echo)
{
	int r = 0;

	if (!echo->has_unsent)
		return true;
	r = vmbus_send(echo->channel, &echo->unsent);
	if (r == -EAGAIN) {
		echo->blocked_count++;
		return false;
	}
	echo->has_unsent = false;
	return true;
}

static void rig_ready(void *device, struct vmbus_channel *channel)
{
	struct echo *echo = device;
	struct vmbus_packet packet;
	int r = 0;

	echo->ready_count++;
	if (echo->deaf)
		return;
	while (rig_send_unsent(echo) && (r = vmbus_receive(channel, &packet)) > 0) {
		echo->packet_count++;
		memcpy(echo->last, packet.payload,
		       packet.payload_bytes < sizeof(echo->last) ? packet.payload_bytes
								 : sizeof(echo->last));
		if (echo->mute)
			continue;
		cr_assert_leq(packet.payload_bytes, sizeof(echo->unsent_bytes));
		memcpy(echo->unsent_bytes, packet.payload, packet.payload_bytes);
		echo->has_unsent = true;
		echo->unsent = (struct vmbus_send){
			.type = packet.wants_completion ? VMBUS_PACKET_COMPLETION
							: VMBUS_PACKET_INBAND,
			.trans_id = packet.trans_id,
			.payload = echo->unsent_bytes,
			.payload_bytes = packet.payload_bytes,
		};
	}
	if (r < 0)
		echo->receive_code = r;
}

static void rig_closing(void *device, struct vmbus_channel *channel)
{
	struct echo *echo = device;

	echo->closing_count++;
	echo->has_unsent = false;
	if (echo->hold)
		return;
	vmbus_gpadl_unref(base_take(&echo->gpadl));
	vmbus_channel_closed(channel);
}

static void rig_torn(void *device, struct vmbus_channel *channel, struct vmbus_gpadl *gpadl)
{
	struct echo *echo = device;

	(void)channel;
	echo->torn_count++;
	if (gpadl == echo->gpadl && !echo->keep_gpadl)
		vmbus_gpadl_unref(base_take(&echo->gpadl));
}

static void rig_gone(void *device, struct vmbus_channel *channel)
{
	struct echo *echo = device;

	(void)channel;
	echo->gone_count++;
	echo->channel = NULL;
}

static const struct vmbus_channel_ops rig_ops = {
	.opened = rig_opened,
	.ready = rig_ready,
	.closing = rig_closing,
	.gpadl_torn = rig_torn,
	.gone = rig_gone,
};

static inline int rig_try_offer(struct vmbus *bus, struct base_io_loop *loop, struct echo *echo,
				uint16_t sub_index)
{
	struct vmbus_offer offer = {
		.type = rig_type,
		.instance = rig_type,
		.sub_index = sub_index,
		.loop = loop,
		.ops = &rig_ops,
		.device = echo,
		.name = "echo",
	};

	echo->bus = bus;
	return vmbus_offer(bus, &offer, &echo->channel, NULL);
}

static inline void rig_offer(struct vmbus_guest *guest, struct echo *echo, uint16_t sub_index)
{
	cr_assert_eq(
		rig_try_offer(vmbus_guest_bus(guest), vmbus_guest_loop(guest), echo, sub_index), 0);
	vmbus_guest_run(guest);
}

/* Connected, one echo device, its channel open. */
struct rig {
	struct vmbus_guest *guest;
	struct echo echo;
	const struct vmbus_guest_offer *offer;
	struct vmbus_guest_channel channel;
};

static inline void rig_begin(struct rig *rig, uint32_t ring_pages)
{
	memset(rig, 0, sizeof(*rig));
	rig->guest = vmbus_guest_new(NULL);
	rig_offer(rig->guest, &rig->echo, 0);
	vmbus_guest_connect(rig->guest);
	rig->offer = vmbus_guest_offer(rig->guest, &rig_type, 0);
	cr_assert_not_null(rig->offer);
	cr_assert_eq(vmbus_guest_open(rig->guest, rig->offer, ring_pages, &rig->channel), 0);
}

static inline void rig_end(struct rig *rig)
{
	vmbus_channel_free(rig->echo.channel);
	vmbus_guest_free(rig->guest);
}

static inline struct vmbus_status rig_status(const struct rig *rig)
{
	struct vmbus_status status;

	vmbus_status(vmbus_guest_bus(rig->guest), &status);
	return status;
}

#endif
