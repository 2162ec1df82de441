/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A network card, with a guest's driver played by the test and a datagram socket for its TAP
 * device.  Included by the programs that test the card.
 */
#include "hypervisor/netvsp/netvsp.h"

#include <criterion/criterion.h>
#include <fcntl.h>
#include <sched.h>
#include <stdio.h>
#include <sys/socket.h>
#include <unistd.h>

#include "hypervisor/memory.h"
#include "hypervisor/netvsp/netvsp_frame.h"
#include "hypervisor/netvsp/nvsp_message.h"
#include "hypervisor/netvsp/rndis_message.h"
#include "tests/support/alloc_fail.h"
#include "tests/unit/netvsp/netvsp_fake_bus.h"

#define QUEUES       2u
#define RECEIVE_GPA  0x100000ull
#define SEND_GPA     0x200000ull
#define SCRATCH_GPA  0x300000ull
#define RECEIVE_ID   0xE1E10u
#define SEND_ID      0xE1E11u
#define SECTION      1728u
#define SECTIONS     20u /* ten a queue, of which queue 0 keeps five for answers */
#define SEND_SECTION 6144u

static const uint8_t mac[6] = { 2, 0, 0, 0, 0, 1 };
static const uint8_t peer[6] = { 2, 0, 0, 0, 0, 2 };

struct rig {
	struct base_fake_clock time;
	struct base_clock clock;
	struct base_io_loop *loop;
	struct hv_memory *memory;
	struct vmbus bus;
	struct netvsp_options options;
	struct netvsp *card;
	struct vmbus_channel *primary;
	int wires[QUEUES]; /* the far ends */
	bool gate;
	uint64_t next_id;
};

static inline bool gate_is_open(void *context)
{
	return ((const struct rig *)context)->gate;
}

static inline void list_make(struct rig *rig, uint32_t index, uint32_t id, uint64_t gpa,
			     uint32_t size)
{
	rig->bus.lists[index] = (struct vmbus_gpadl){
		.bus = &rig->bus, .id = id, .gpa = gpa, .size = size, .exists = true
	};
}

static inline void card_make(struct rig *rig)
{
	struct base_error err = { 0 };

	cr_assert_eq(netvsp_new(&rig->options, &rig->card, &err), 0, "%s", err.text);
	rig->primary = fake_channel(&rig->bus, 0);
	cr_assert_not_null(rig->primary);
}

static inline struct rig *rig_new(bool without_ring)
{
	struct rig *rig = calloc(1, sizeof(*rig));

	cr_assert_not_null(rig);
	rig->time.boot_ns = 1000 * BASE_NS_PER_SECOND;
	rig->clock = base_clock_fake(&rig->time);
	rig->gate = true;
	const struct base_io_loop_options options = { .clock = &rig->clock,
						      .without_ring = without_ring };

	cr_assert_eq(base_io_loop_new(&options, &rig->loop, NULL), 0);
	cr_assert_eq(hv_memory_new(HV_MEMORY_BYTES_MIN, HV_MEMORY_SMALL, &rig->memory, NULL), 0);
	cr_assert_eq(hv_slat_new(rig->memory, -1, &rig->bus.slat, NULL), 0);
	rig->options = (struct netvsp_options){ .bus = &rig->bus,
						.slat = rig->bus.slat,
						.loops = { rig->loop },
						.loop_count = 1,
						.queue_count = QUEUES,
						.vcpu_count = QUEUES,
						.link_up = true,
						.vm_name = "test",
						.may_send = gate_is_open,
						.gate_context = rig };
	memcpy(rig->options.mac, mac, 6);
	for (uint32_t i = 0; i < QUEUES; i++) {
		int ends[2];

		cr_assert_eq(socketpair(AF_UNIX, SOCK_DGRAM | SOCK_NONBLOCK, 0, ends), 0);
		rig->options.tap_fds[i] = ends[0];
		rig->wires[i] = ends[1];
	}
	list_make(rig, 0, RECEIVE_ID, RECEIVE_GPA, SECTION * SECTIONS);
	list_make(rig, 1, SEND_ID, SEND_GPA, 16 * SEND_SECTION);
	card_make(rig);
	return rig;
}

static inline void rig_end(struct rig *rig)
{
	netvsp_free(rig->card);
	for (uint32_t i = 0; i < FAKE_LISTS_MAX; i++)
		cr_assert_eq(rig->bus.lists[i].refs, 0);
	for (uint32_t i = 0; i < QUEUES; i++) {
		(void)close(rig->options.tap_fds[i]);
		(void)close(rig->wires[i]);
	}
	base_io_loop_free(rig->loop);
	hv_slat_free(rig->bus.slat);
	hv_memory_free(rig->memory);
	free(rig);
}

/* Until nothing more happens; what the kernel still has to say comes with pump_for(). */
static inline void pump(struct rig *rig)
{
	while (base_io_loop_step(rig->loop, false))
		;
}

/* Until the guest has been sent @count packets on @channel. */
static inline void pump_for(struct rig *rig, const struct vmbus_channel *channel, uint32_t count)
{
	for (uint32_t i = 0; i < 10000000 && channel->out_count < count; i++)
		if (!base_io_loop_step(rig->loop, true))
			(void)sched_yield();
	cr_assert_eq(channel->out_count, count, "%u packets", channel->out_count);
	pump(rig);
}

/* --- the guest's driver --- */

static inline void put_words(uint8_t *to, const uint32_t *words, uint32_t count)
{
	for (uint32_t i = 0; i < count; i++)
		base_put_le32(to + 4 * (size_t)i, words[i]);
}

#define WORDS(...) (const uint32_t[]){ __VA_ARGS__ }, sizeof((uint32_t[]){ __VA_ARGS__ }) / 4

static inline uint64_t nvsp(struct rig *rig, struct vmbus_channel *channel, const uint32_t *words,
			    uint32_t count)
{
	struct fake_packet *packet = fake_put(channel, VMBUS_PACKET_INBAND, ++rig->next_id);

	put_words(packet->payload, words, count);
	packet->payload_bytes = NVSP_MESSAGE_BYTES;
	return rig->next_id;
}

/* Take the oldest packet that was sent to the guest. */
static inline struct fake_packet take(struct vmbus_channel *channel)
{
	struct fake_packet packet;

	cr_assert_gt(channel->out_count, 0, "nothing was sent");
	packet = channel->out[0];
	channel->out_count--;
	memmove(channel->out, channel->out + 1, channel->out_count * sizeof(channel->out[0]));
	return packet;
}

/* A message and its completion's word @at. */
static inline uint32_t ask(struct rig *rig, const uint32_t *words, uint32_t count, uint32_t at)
{
	const uint64_t id = nvsp(rig, rig->primary, words, count);
	struct fake_packet packet;

	fake_ready(rig->primary);
	pump(rig);
	packet = take(rig->primary);
	cr_assert_eq(packet.type, VMBUS_PACKET_COMPLETION);
	cr_assert_eq(packet.trans_id, id);
	return base_get_le32(packet.payload + 4 * (size_t)at);
}

static inline void complete_section(struct vmbus_channel *channel, uint64_t trans_id)
{
	struct fake_packet *packet = fake_put(channel, VMBUS_PACKET_COMPLETION, trans_id);

	put_words(packet->payload, WORDS(108, 1));
	packet->payload_bytes = 8;
}

/* The RNDIS message that a packet to the guest shows; its section is given back if @give. */
static inline uint32_t shown(struct rig *rig, struct vmbus_channel *channel, uint8_t *to, bool give)
{
	const struct fake_packet packet = take(channel);
	uint32_t bytes = 0;

	cr_assert_eq(packet.type, VMBUS_PACKET_XFER_PAGES);
	cr_assert(packet.wants_completion);
	cr_assert_eq(base_get_le16(packet.header), 0xCAFE);
	cr_assert_eq(base_get_le32(packet.header + 4), 1);
	cr_assert_eq(base_get_le32(packet.payload), 107);
	bytes = base_get_le32(packet.header + 8);
	cr_assert_leq(bytes, SECTION);
	cr_assert_eq(hv_slat_read(rig->bus.slat, RECEIVE_GPA + base_get_le32(packet.header + 12),
				  to, bytes),
		     0);
	if (give)
		complete_section(channel, packet.trans_id);
	return bytes;
}

/* A packet whose bytes are in guest memory at SCRATCH_GPA, in one range. */
static inline void send_range(struct rig *rig, struct vmbus_channel *channel, bool is_control,
			      const void *bytes, uint32_t size)
{
	struct fake_packet *packet = fake_put(channel, VMBUS_PACKET_GPA_DIRECT, ++rig->next_id);

	cr_assert_eq(hv_slat_write(rig->bus.slat, SCRATCH_GPA + 100, bytes, size), 0);
	put_words(packet->header, WORDS(0, 1, size, 100));
	for (uint32_t i = 0; i * 4096 < 100 + size; i++)
		base_put_le64(packet->header + 16 + 8 * (size_t)i, SCRATCH_GPA / 4096 + i);
	packet->header_bytes = sizeof(packet->header);
	put_words(packet->payload, WORDS(107, is_control ? 1 : 0, 0xFFFFFFFF, 0));
	packet->payload_bytes = NVSP_MESSAGE_BYTES;
}

/* An RNDIS request and its answer. */
static inline uint32_t rndis(struct rig *rig, const uint32_t *words, uint32_t count,
			     uint8_t *answer)
{
	uint8_t bytes[128];
	uint32_t size = 0;

	put_words(bytes, words, count);
	send_range(rig, rig->primary, true, bytes, 4 * count);
	fake_ready(rig->primary);
	cr_assert_eq(base_get_le32(take(rig->primary).payload + 4), 1);
	size = shown(rig, rig->primary, answer, true);
	fake_ready(rig->primary);
	pump(rig);
	return size;
}

static inline void set_filter(struct rig *rig, uint32_t filter)
{
	uint8_t answer[SECTION];

	(void)rndis(rig, WORDS(5, 32, 9, 0x0001010E, 4, 20, 0, filter), answer);
	cr_assert_eq(base_get_le32(answer), 0x80000005);
	cr_assert_eq(base_get_le32(answer + 12), 0);
}

static inline void bring_up(struct rig *rig)
{
	uint8_t answer[SECTION];

	fake_open(rig->primary);
	cr_assert_eq(ask(rig, WORDS(1, 0x60001, 0x60001), 3), 1);
	cr_assert_eq(ask(rig, WORDS(125, 1514, 0, 0xAC), 1), 1);
	cr_assert_eq(ask(rig, WORDS(100, 6, 30), 1), 1);
	cr_assert_eq(ask(rig, WORDS(101, RECEIVE_ID, 0xCAFE), 5), SECTIONS);
	cr_assert_eq(ask(rig, WORDS(104, SEND_ID, 0), 2), SEND_SECTION);
	(void)rndis(rig, WORDS(2, 24, 7, 1, 0, 0x4000), answer);
	cr_assert_eq(base_get_le32(answer), 0x80000002);
	cr_assert_eq(base_get_le32(answer + 8), 7);
	cr_assert_eq(base_get_le32(answer + 12), 0);
	set_filter(rig, 0x0D);
}

static inline uint32_t packet_make(uint8_t *to, const uint8_t source[6], uint32_t payload_bytes)
{
	memset(to, 0, 44);
	put_words(to, WORDS(1, 44 + 14 + payload_bytes, 36, 14 + payload_bytes));
	memcpy(to + 44, peer, 6);
	memcpy(to + 50, source, 6);
	to[56] = 0x88;
	to[57] = 0xB5;
	for (uint32_t i = 0; i < payload_bytes; i++)
		to[58 + i] = (uint8_t)(payload_bytes + i);
	return 44 + 14 + payload_bytes;
}

/* The next frame on the wire, with its header; 0: none. */
static inline uint32_t wire_read(const struct rig *rig, uint32_t queue, uint8_t *to,
				 uint32_t capacity)
{
	const ssize_t got = read(rig->wires[queue], to, capacity);

	return got < 0 ? 0 : (uint32_t)got;
}

static inline void wire_write(const struct rig *rig, uint32_t queue, uint32_t payload_bytes)
{
	uint8_t frame[2048] = { 0 };

	memcpy(frame + 12, mac, 6);
	memcpy(frame + 18, peer, 6);
	frame[24] = 0x88;
	frame[25] = 0xB5;
	memset(frame + 26, (int)(payload_bytes & 0xFF), payload_bytes);
	cr_assert_eq(write(rig->wires[queue], frame, 26 + payload_bytes), 26 + payload_bytes);
}

static inline struct netvsp_status status_of(struct rig *rig)
{
	struct netvsp_status status;

	netvsp_status(rig->card, &status);
	return status;
}

static inline uint32_t tx_status(struct rig *rig)
{
	fake_ready(rig->primary);
	return base_get_le32(take(rig->primary).payload + 4);
}
