/* SPDX-License-Identifier: Apache-2.0 */
/* Set-up of a network card, and frames both ways. */
#include "tests/unit/netvsp/netvsp_rig.h"

/* --- set-up --- */

Test(netvsp, a_driver_comes_up_and_goes)
{
	struct rig *rig = rig_new(false);
	uint8_t answer[SECTION];

	bring_up(rig);
	cr_assert(status_of(rig).connected);
	cr_assert_eq(status_of(rig).queue_count, 1);
	cr_assert_eq(rndis(rig, WORDS(4, 28, 3, 0x01010101, 0, 20, 0), answer), 30);
	cr_assert_eq(memcmp(answer + 24, mac, 6), 0);
	cr_assert_gt(rig->bus.lists[0].refs, 0);
	fake_close(rig->primary);
	pump(rig);
	cr_assert(rig->primary->closed);
	cr_assert_eq(rig->bus.lists[0].refs + rig->bus.lists[1].refs, 0);
	cr_assert_not(status_of(rig).connected);
	bring_up(rig);
	rig_end(rig);
}

Test(netvsp, options_are_checked)
{
	struct rig *rig = rig_new(false);
	struct netvsp_options options = rig->options;
	struct netvsp *card = NULL;

	options.mac[0] = 1;
	cr_assert_eq(netvsp_new(&options, &card, NULL), -EINVAL);
	options = rig->options;
	options.queue_count = 0;
	cr_assert_eq(netvsp_new(&options, &card, NULL), -EINVAL);
	options = rig->options;
	options.loop_count = NETVSP_QUEUES_MAX + 1;
	cr_assert_eq(netvsp_new(&options, &card, NULL), -EINVAL);
	options = rig->options;
	options.mtu = NETVSP_MTU_MAX + 1;
	cr_assert_eq(netvsp_new(&options, &card, NULL), -EINVAL);
	netvsp_free(NULL);
	rig_end(rig);
}

Test(netvsp, a_version_nobody_knows_is_refused_and_another_taken)
{
	struct rig *rig = rig_new(false);

	fake_open(rig->primary);
	cr_assert_eq(ask(rig, WORDS(1, 0x70000, 0x70000), 3), NVSP_STATUS_TOO_NEW);
	cr_assert_eq(ask(rig, WORDS(1, 0x50000, 0x50000), 3), NVSP_STATUS_SUCCESS);
	rig_end(rig);
}

Test(netvsp, buffers_that_cannot_be)
{
	struct rig *rig = rig_new(false);

	fake_open(rig->primary);
	cr_assert_eq(ask(rig, WORDS(101, RECEIVE_ID, 0xCAFE), 1), NVSP_STATUS_FAIL); /* no INIT */
	cr_assert_eq(ask(rig, WORDS(1, 0x60001, 0x60001), 3), 1);
	cr_assert_eq(ask(rig, WORDS(101, 5, 0xCAFE), 1), NVSP_STATUS_FAIL);
	list_make(rig, 2, 6, RECEIVE_GPA, SECTION * 3); /* less than two a queue */
	cr_assert_eq(ask(rig, WORDS(101, 6, 0xCAFE), 1), NVSP_STATUS_FAIL);
	list_make(rig, 2, 6, RECEIVE_GPA, SEND_SECTION - 1);
	cr_assert_eq(ask(rig, WORDS(104, 6, 0), 1), NVSP_STATUS_FAIL);
	cr_assert_eq(ask(rig, WORDS(101, RECEIVE_ID, 0xCAFE), 1), 1);
	cr_assert_eq(ask(rig, WORDS(101, RECEIVE_ID, 0xCAFE), 1), NVSP_STATUS_FAIL); /* twice */
	cr_assert_eq(ask(rig, WORDS(103, 0xCAFE), 1), 1);
	cr_assert_eq(rig->bus.lists[0].refs, 0);
	rig_end(rig);
}

/* --- out --- */

Test(netvsp, frames_from_ranges_and_from_sections)
{
	struct rig *rig = rig_new(false);
	uint8_t bytes[4096];
	uint8_t wire[4096];
	uint32_t size = packet_make(bytes, mac, 1400);
	uint32_t first = 0;
	struct fake_packet *packet = NULL;

	bring_up(rig);
	send_range(rig, rig->primary, false, bytes, size);
	cr_assert_eq(tx_status(rig), 1);
	cr_assert_eq(wire_read(rig, 0, wire, sizeof(wire)), 12 + 1414);
	cr_assert_eq(memcmp(wire + 12, bytes + 44, 1414), 0);
	/* Two messages in a section. */
	first = packet_make(bytes, mac, 62);
	size = first + packet_make(bytes + first, mac, 300);
	cr_assert_eq(hv_slat_write(rig->bus.slat, SEND_GPA + 2 * SEND_SECTION, bytes, size), 0);
	(void)nvsp(rig, rig->primary, WORDS(107, 0, 2, size));
	cr_assert_eq(tx_status(rig), 1);
	cr_assert_eq(wire_read(rig, 0, wire, sizeof(wire)), 12 + 76);
	cr_assert_eq(wire_read(rig, 0, wire, sizeof(wire)), 12 + 314);
	cr_assert_eq(memcmp(wire + 12, bytes + first + 44, 314), 0);
	/* One in the section; the other's header there and its frame in a range. */
	send_range(rig, rig->primary, false, bytes + first + 44, 314);
	packet = &rig->primary->in[(rig->primary->in_tail - 1) % FAKE_PACKETS_MAX];
	put_words(packet->payload, WORDS(107, 0, 2, first + 44));
	cr_assert_eq(tx_status(rig), 1);
	cr_assert_eq(wire_read(rig, 0, wire, sizeof(wire)), 12 + 76);
	cr_assert_eq(wire_read(rig, 0, wire, sizeof(wire)), 12 + 314);
	cr_assert_eq(memcmp(wire + 12, bytes + first + 44, 314), 0);
	cr_assert_eq(status_of(rig).tx_frames, 5);
	rig_end(rig);
}

Test(netvsp, others_addresses_stay_inside)
{
	struct rig *rig = rig_new(false);
	uint8_t bytes[256];
	const uint32_t size = packet_make(bytes, peer, 60);

	bring_up(rig);
	send_range(rig, rig->primary, false, bytes, size);
	cr_assert_eq(tx_status(rig), 1);
	cr_assert_eq(wire_read(rig, 0, bytes, sizeof(bytes)), 0);
	cr_assert_eq(status_of(rig).tx_spoofed, 1);
	rig_end(rig);
}

Test(netvsp, nothing_leaves_through_a_closed_gate)
{
	struct rig *rig = rig_new(false);
	uint8_t bytes[256];
	uint8_t wire[256];
	const uint32_t size = packet_make(bytes, mac, 60);

	bring_up(rig);
	rig->gate = false;
	send_range(rig, rig->primary, false, bytes, size);
	cr_assert_eq(tx_status(rig), 1);
	netvsp_announce(rig->card);
	pump(rig);
	cr_assert_eq(wire_read(rig, 0, wire, sizeof(wire)), 0);
	cr_assert_eq(status_of(rig).tx_dropped, 2);
	rig->gate = true;
	rig->primary->out_count = 0;
	send_range(rig, rig->primary, false, bytes, size);
	cr_assert_eq(tx_status(rig), 1);
	cr_assert_eq(wire_read(rig, 0, wire, sizeof(wire)), 86);
	rig_end(rig);
}

Test(netvsp, packets_that_lie)
{
	struct rig *rig = rig_new(false);
	uint8_t bytes[256];
	uint8_t wire[256];
	uint32_t size = packet_make(bytes, mac, 60);
	struct fake_packet *packet = NULL;

	bring_up(rig);
	(void)nvsp(rig, rig->primary, WORDS(107, 0, 16, 100)); /* no such section */
	cr_assert_eq(tx_status(rig), NVSP_STATUS_BAD_RNDIS);
	(void)nvsp(rig, rig->primary, WORDS(107, 0, 0xFFFFFFFE, 100));
	cr_assert_eq(tx_status(rig), NVSP_STATUS_BAD_RNDIS);
	(void)nvsp(rig, rig->primary, WORDS(107, 0, 2, SEND_SECTION + 1));
	cr_assert_eq(tx_status(rig), NVSP_STATUS_BAD_RNDIS);
	(void)nvsp(rig, rig->primary, WORDS(107, 0, 0xFFFFFFFF, 0)); /* nothing at all */
	cr_assert_eq(tx_status(rig), NVSP_STATUS_BAD_RNDIS);
	send_range(rig, rig->primary, false, bytes, size - 1); /* shorter than it says */
	cr_assert_eq(tx_status(rig), NVSP_STATUS_BAD_RNDIS);
	send_range(rig, rig->primary, false, bytes, size);
	packet = &rig->primary->in[(rig->primary->in_tail - 1) % FAKE_PACKETS_MAX];
	base_put_le64(packet->header + 16, 1ull << 40); /* no RAM */
	cr_assert_eq(tx_status(rig), NVSP_STATUS_BAD_RNDIS);
	put_words(bytes + 8, WORDS(36, 75)); /* data beyond the message */
	send_range(rig, rig->primary, false, bytes, size);
	cr_assert_eq(tx_status(rig), NVSP_STATUS_BAD_RNDIS);
	cr_assert_eq(wire_read(rig, 0, wire, sizeof(wire)), 0);
	put_words(bytes, WORDS(0x80000004, 28, 0, 0, 0, 20, 0)); /* an answer is no request */
	send_range(rig, rig->primary, true, bytes, 28);
	cr_assert_eq(tx_status(rig), NVSP_STATUS_BAD_RNDIS);
	(void)nvsp(rig, rig->primary, WORDS(4711)); /* no such message */
	cr_assert_eq(tx_status(rig), NVSP_STATUS_UNSUPPORTED);
	(void)packet_make(bytes, mac, 60); /* and yet it lives */
	send_range(rig, rig->primary, false, bytes, size);
	cr_assert_eq(tx_status(rig), 1);
	cr_assert_eq(wire_read(rig, 0, wire, sizeof(wire)), 86);
	rig_end(rig);
}

/* One packet is so much work at most as the guest was told. */
Test(netvsp, as_many_frames_in_a_packet_as_were_announced)
{
	struct rig *rig = rig_new(false);
	uint8_t bytes[9 * 64];
	uint32_t size = 0;

	bring_up(rig);
	for (uint32_t i = 0; i < RNDIS_PACKETS_PER_MESSAGE; i++)
		size += packet_make(bytes + size, mac, 2);
	send_range(rig, rig->primary, false, bytes, size);
	cr_assert_eq(tx_status(rig), NVSP_STATUS_SUCCESS);
	cr_assert_eq(status_of(rig).tx_frames, RNDIS_PACKETS_PER_MESSAGE);
	size += packet_make(bytes + size, mac, 2);
	send_range(rig, rig->primary, false, bytes, size);
	cr_assert_eq(tx_status(rig), NVSP_STATUS_BAD_RNDIS);
	cr_assert_eq(status_of(rig).tx_frames, 2 * RNDIS_PACKETS_PER_MESSAGE);
	rig_end(rig);
}

Test(netvsp, a_frame_before_rndis_is_refused)
{
	struct rig *rig = rig_new(false);
	uint8_t bytes[256];
	const uint32_t size = packet_make(bytes, mac, 60);

	fake_open(rig->primary);
	cr_assert_eq(ask(rig, WORDS(1, 0x60001, 0x60001), 3), 1);
	send_range(rig, rig->primary, false, bytes, size);
	cr_assert_eq(tx_status(rig), NVSP_STATUS_BAD_RNDIS);
	cr_assert_eq(wire_read(rig, 0, bytes, sizeof(bytes)), 0);
	rig_end(rig);
}

/* The ring is full: what the guest sends is completed later, in order, each once. */
Test(netvsp, completions_wait_for_room)
{
	struct rig *rig = rig_new(false);
	uint8_t bytes[256];
	const uint32_t size = packet_make(bytes, mac, 60);
	uint64_t first = 0;

	bring_up(rig);
	rig->primary->room = 1;
	first = rig->next_id + 1;
	for (int i = 0; i < 3; i++)
		send_range(rig, rig->primary, false, bytes, size);
	fake_ready(rig->primary);
	cr_assert_eq(rig->primary->out_count, 1);
	cr_assert_eq(status_of(rig).tx_frames, 2); /* one waits, and nothing behind it is taken */
	rig->primary->room = 100;
	fake_ready(rig->primary);
	cr_assert_eq(rig->primary->out_count, 3);
	for (uint64_t i = 0; i < 3; i++)
		cr_assert_eq(take(rig->primary).trans_id, first + i);
	rig_end(rig);
}

/* --- in --- */

static void frames_come_in(bool without_ring)
{
	struct rig *rig = rig_new(without_ring);
	uint8_t message[SECTION];

	bring_up(rig);
	wire_write(rig, 0, 100);
	pump_for(rig, rig->primary, 1);
	cr_assert_gt(rig->primary->flush_count, 0);
	cr_assert_eq(shown(rig, rig->primary, message, true), 60 + 114);
	cr_assert_eq(base_get_le32(message), 1);
	cr_assert_eq(memcmp(message + 60, mac, 6), 0);
	cr_assert_eq(message[60 + 14], 100);
	wire_write(rig, 0, 200);
	pump_for(rig, rig->primary, 1);
	cr_assert_eq(shown(rig, rig->primary, message, true), 60 + 214);
	cr_assert_eq(status_of(rig).rx_frames, 2);
	cr_assert_eq(status_of(rig).rx_bytes, 328);
	rig_end(rig);
}

Test(netvsp, frames_come_in)
{
	frames_come_in(false);
}

Test(netvsp, frames_come_in_where_there_is_no_ring)
{
	frames_come_in(true);
}

Test(netvsp, what_is_not_for_the_guest_is_not_shown)
{
	struct rig *rig = rig_new(false);
	uint8_t frame[100] = { 0 };
	uint8_t message[SECTION];

	bring_up(rig);
	memcpy(frame + 12, peer, 6);
	cr_assert_eq(write(rig->wires[0], frame, sizeof(frame)), sizeof(frame));
	wire_write(rig, 0, 70);
	pump_for(rig, rig->primary, 1);
	cr_assert_eq(shown(rig, rig->primary, message, true), 60 + 84);
	rig_end(rig);
}

Test(netvsp, old_frames_are_dropped_when_the_guest_begins_to_receive)
{
	struct rig *rig = rig_new(false);
	uint8_t message[SECTION];

	wire_write(rig, 0, 50);
	bring_up(rig);
	wire_write(rig, 0, 60);
	pump_for(rig, rig->primary, 1);
	cr_assert_eq(shown(rig, rig->primary, message, true), 60 + 74);
	set_filter(rig, 0);
	wire_write(rig, 0, 70);
	pump(rig);
	set_filter(rig, 0x0D);
	wire_write(rig, 0, 80);
	pump_for(rig, rig->primary, 1);
	cr_assert_eq(shown(rig, rig->primary, message, true), 60 + 94);
	rig_end(rig);
}

/* What the guest has is never written again before it gives it back. */
Test(netvsp, a_section_is_the_guests_until_it_is_completed)
{
	struct rig *rig = rig_new(false);
	bool seen[SECTIONS] = { false };
	uint64_t ids[SECTIONS];
	uint32_t offset = 0;
	const uint32_t usable = SECTIONS / QUEUES - 5;

	bring_up(rig);
	for (uint32_t i = 0; i < 8; i++) /* more than the socket's own limit is not needed */
		wire_write(rig, 0, 100 + i);
	pump_for(rig, rig->primary, usable);
	for (uint32_t i = 0; i < usable; i++) {
		const struct fake_packet packet = take(rig->primary);

		ids[i] = packet.trans_id;
		offset = base_get_le32(packet.header + 12);
		cr_assert_eq(offset % SECTION, 0);
		cr_assert_lt(offset / SECTION, SECTIONS / QUEUES);
		cr_assert_not(seen[offset / SECTION], "section %u twice", offset / SECTION);
		seen[offset / SECTION] = true;
	}
	pump(rig);
	cr_assert_eq(rig->primary->out_count, 0);
	complete_section(rig->primary, ids[2]);
	complete_section(rig->primary, ids[2]); /* twice: ignored */
	complete_section(rig->primary, ids[2] + 1000);
	complete_section(rig->primary, ids[2] + (1ull << 32)); /* another buffer's */
	complete_section(rig->primary, 0);
	fake_ready(rig->primary);
	pump_for(rig, rig->primary, 1);
	cr_assert_eq(take(rig->primary).trans_id, ids[2]);
	pump(rig);
	cr_assert_eq(rig->primary->out_count, 0);
	rig_end(rig);
}

Test(netvsp, a_frame_waits_for_room_in_the_ring)
{
	struct rig *rig = rig_new(false);
	uint8_t message[SECTION];

	bring_up(rig);
	rig->primary->room = 0;
	wire_write(rig, 0, 100);
	wire_write(rig, 0, 101);
	for (uint32_t i = 0; i < 10000000 && status_of(rig).rx_frames == 0; i++)
		(void)base_io_loop_step(rig->loop, true);
	cr_assert_eq(status_of(rig).rx_frames, 1);
	cr_assert_eq(rig->primary->out_count, 0);
	rig->primary->room = 10;
	fake_ready(rig->primary);
	pump_for(rig, rig->primary, 2);
	cr_assert_eq(shown(rig, rig->primary, message, true), 60 + 114);
	cr_assert_eq(shown(rig, rig->primary, message, true), 60 + 115);
	rig_end(rig);
}
