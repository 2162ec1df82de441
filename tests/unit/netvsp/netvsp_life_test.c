/* SPDX-License-Identifier: Apache-2.0 */
/* A network card's control, its queues, and the machine's life. */
#include "hypervisor/netvsp/netvsp_state.h"
#include "tests/unit/netvsp/netvsp_rig.h"

/* --- control --- */

Test(netvsp, a_guest_that_takes_no_answers_loses_its_channel)
{
	struct rig *rig = rig_new(false);
	uint8_t bytes[28];

	bring_up(rig);
	put_words(bytes, WORDS(4, 28, 3, 0x01010101, 0, 20, 0));
	for (uint32_t i = 0; i < 100 && !rig->primary->broken; i++) {
		send_range(rig, rig->primary, true, bytes, sizeof(bytes));
		fake_ready(rig->primary);
	}
	cr_assert(rig->primary->broken);
	rig_end(rig);
}

Test(netvsp, the_link)
{
	struct rig *rig = rig_new(false);
	uint8_t message[SECTION];
	uint8_t bytes[256];
	const uint32_t size = packet_make(bytes, mac, 60);

	bring_up(rig);
	netvsp_set_link(rig->card, false);
	netvsp_set_link(rig->card, false);
	pump(rig);
	cr_assert_eq(shown(rig, rig->primary, message, true), 20);
	cr_assert_eq(base_get_le32(message), 7);
	cr_assert_eq(base_get_le32(message + 8), 0x4001000C);
	cr_assert_not(status_of(rig).link_up);
	send_range(rig, rig->primary, false, bytes, size);
	cr_assert_eq(tx_status(rig), 1);
	cr_assert_eq(wire_read(rig, 0, message, sizeof(message)), 0);
	netvsp_set_link(rig->card, true);
	pump(rig);
	cr_assert_eq(shown(rig, rig->primary, message, true), 20);
	cr_assert_eq(base_get_le32(message + 8), 0x4001000B);
	rig_end(rig);
}

Test(netvsp, an_announcement)
{
	static const uint64_t pauses_ms[] = { 50, 150, 250, 350, 450 };
	struct rig *rig = rig_new(false);
	uint8_t message[SECTION];

	bring_up(rig);
	netvsp_announce(rig->card);
	pump(rig);
	cr_assert_eq(wire_read(rig, 0, message, sizeof(message)), 12 + NETVSP_RARP_BYTES);
	cr_assert_eq(memcmp(message + 12 + 12, "\x80\x35", 2), 0);
	cr_assert_eq(memcmp(message + 12 + 6, mac, 6), 0);
	cr_assert_eq(shown(rig, rig->primary, message, true), 20);
	cr_assert_eq(base_get_le32(message + 8), 0x4001000B);
	for (size_t i = 0; i < 5; i++) {
		rig->time.boot_ns += pauses_ms[i] * BASE_NS_PER_MS - 1;
		pump(rig);
		cr_assert_eq(wire_read(rig, 0, message, sizeof(message)), 0);
		rig->time.boot_ns += 1;
		pump(rig);
		cr_assert_eq(wire_read(rig, 0, message, sizeof(message)), 12 + NETVSP_RARP_BYTES);
	}
	cr_assert_eq(base_io_loop_next_ns(rig->loop), BASE_TIME_NEVER);
	cr_assert_eq(rig->primary->out_count, 0);
	rig_end(rig);
}

/* A guest that is slow to take answers hears of its link all the same. */
Test(netvsp, the_link_while_answers_wait)
{
	struct rig *rig = rig_new(false);
	uint8_t message[SECTION];
	uint8_t bytes[28];
	uint32_t status = 0;

	bring_up(rig);
	put_words(bytes, WORDS(4, 28, 3, 0x01010101, 0, 20, 0));
	for (uint32_t i = 0; i < SECTIONS / QUEUES + NETVSP_ANSWERS_MAX; i++) {
		send_range(rig, rig->primary, true, bytes, sizeof(bytes));
		fake_ready(rig->primary);
	}
	cr_assert_not(rig->primary->broken);
	netvsp_set_link(rig->card, false);
	pump(rig);
	while (rig->primary->out_count > 0) {
		if (rig->primary->out[0].type == VMBUS_PACKET_COMPLETION) {
			(void)take(rig->primary);
			continue;
		}
		(void)shown(rig, rig->primary, message, true);
		if (base_get_le32(message) == 7)
			status = base_get_le32(message + 8);
		fake_ready(rig->primary);
	}
	cr_assert_eq(status, 0x4001000C);
	rig_end(rig);
}

/* --- several queues --- */

static struct vmbus_channel *add_queue(struct rig *rig)
{
	struct vmbus_channel *sub = NULL;
	struct fake_packet table;

	const uint64_t id = nvsp(rig, rig->primary, WORDS(133, 1, 7));

	fake_ready(rig->primary);
	pump(rig);
	table = take(rig->primary);
	cr_assert_eq(table.trans_id, id);
	cr_assert_eq(base_get_le32(table.payload), 133);
	cr_assert_eq(base_get_le32(table.payload + 4), 1);
	cr_assert_eq(base_get_le32(table.payload + 8), QUEUES - 1);
	table = take(rig->primary);
	cr_assert_eq(table.type, VMBUS_PACKET_INBAND);
	cr_assert_eq(base_get_le32(table.payload), 134);
	cr_assert_eq(base_get_le32(table.payload + 44), 1);
	sub = fake_channel(&rig->bus, 1);
	cr_assert_not_null(sub);
	fake_open(sub);
	pump(rig);
	return sub;
}

Test(netvsp, a_second_queue_has_its_own_wire_and_sections)
{
	struct rig *rig = rig_new(false);
	struct vmbus_channel *sub = NULL;
	uint8_t bytes[SECTION];
	uint32_t size = packet_make(bytes, mac, 60);

	bring_up(rig);
	sub = add_queue(rig);
	cr_assert_eq(status_of(rig).queue_count, 2);
	send_range(rig, sub, false, bytes, size);
	fake_ready(sub);
	cr_assert_eq(base_get_le32(take(sub).payload + 4), 1);
	cr_assert_eq(wire_read(rig, 0, bytes, sizeof(bytes)), 0);
	cr_assert_eq(wire_read(rig, 1, bytes, sizeof(bytes)), 86);
	wire_write(rig, 1, 100);
	pump_for(rig, sub, 1);
	cr_assert_geq(base_get_le32(sub->out[0].header + 12), SECTION * SECTIONS / QUEUES);
	/* The section of one queue is not completed on another. */
	complete_section(rig->primary, sub->out[0].trans_id);
	fake_ready(rig->primary);
	cr_assert_eq(shown(rig, sub, bytes, true), 60 + 114);
	fake_ready(sub);
	(void)nvsp(rig, sub, WORDS(1, 2, 0x60001)); /* control has no business there */
	fake_ready(sub);
	cr_assert_eq(base_get_le32(take(sub).payload + 4), NVSP_STATUS_UNSUPPORTED);
	rig_end(rig);
}

/* Set up again while the guest still holds what was retracted: the answer waits for it. */
Test(netvsp, queues_go_with_the_primary_channel)
{
	struct rig *rig = rig_new(false);
	struct vmbus_channel *sub = NULL;
	struct fake_packet packet;

	bring_up(rig);
	sub = add_queue(rig);
	fake_close(sub);
	cr_assert(sub->closed);
	fake_close(rig->primary);
	pump(rig);
	cr_assert(rig->primary->closed);
	cr_assert(sub->retracted);
	bring_up(rig);
	(void)nvsp(rig, rig->primary, WORDS(133, 1, 1));
	fake_ready(rig->primary);
	pump(rig);
	cr_assert_eq(rig->primary->out_count, 0);
	fake_gone(sub);
	pump(rig);
	packet = take(rig->primary);
	cr_assert_eq(base_get_le32(packet.payload), 133);
	cr_assert_eq(base_get_le32(packet.payload + 8), 1);
	cr_assert_not_null(fake_channel(&rig->bus, 1));
	rig_end(rig);
}

/* The last one goes at a moment when a completion waits for room in the ring. */
Test(netvsp, queues_that_go_while_the_ring_is_full)
{
	struct rig *rig = rig_new(false);
	struct vmbus_channel *sub = NULL;
	uint64_t asked = 0;

	bring_up(rig);
	sub = add_queue(rig);
	fake_close(sub);
	fake_close(rig->primary);
	pump(rig);
	bring_up(rig);
	asked = nvsp(rig, rig->primary, WORDS(133, 1, 1));
	fake_ready(rig->primary);
	rig->primary->room = 0;
	(void)nvsp(rig, rig->primary, WORDS(100, 6, 30));
	fake_ready(rig->primary);
	fake_gone(sub);
	pump(rig);
	cr_assert_eq(rig->primary->out_count, 0);
	rig->primary->room = FAKE_PACKETS_MAX;
	fake_ready(rig->primary);
	cr_assert_eq(take(rig->primary).trans_id, rig->next_id);
	cr_assert_eq(take(rig->primary).trans_id, asked);
	cr_assert_eq(take(rig->primary).type, VMBUS_PACKET_INBAND); /* the table */
	cr_assert_not_null(fake_channel(&rig->bus, 1));
	rig_end(rig);
}

Test(netvsp, a_torn_list_is_let_go_of_by_all_queues)
{
	struct rig *rig = rig_new(false);

	bring_up(rig);
	(void)add_queue(rig);
	cr_assert_gt(rig->bus.lists[0].refs, 0);
	rig->primary->offer.ops->gpadl_torn(rig->primary->offer.device, rig->primary,
					    &rig->bus.lists[0]);
	pump(rig);
	cr_assert_eq(rig->bus.lists[0].refs, 0);
	cr_assert_gt(rig->bus.lists[1].refs, 0);
	wire_write(rig, 0, 100); /* there is nowhere to put it */
	pump(rig);
	cr_assert_eq(rig->primary->out_count, 0);
	rig_end(rig);
}

/* --- the machine's life --- */

static void save(struct rig *rig, struct base_buffer *out)
{
	cr_assert_eq(netvsp_service_ops.quiesce(rig->card, NULL), 0);
	cr_assert_eq(netvsp_service_ops.section_count(rig->card), 1);
	cr_assert_eq(netvsp_service_ops.save(rig->card, 0, out, NULL), 0);
}

static int load(struct rig *rig, const struct base_buffer *from, struct base_error *err)
{
	struct base_reader in = base_reader_over(from->data, from->size_bytes);

	cr_assert_eq(netvsp_service_ops.quiesce(rig->card, NULL), 0);
	return netvsp_service_ops.load(rig->card, 0, 1, &in, err);
}

Test(netvsp, a_quiet_card_touches_nothing)
{
	struct rig *rig = rig_new(false);
	uint8_t bytes[SECTION];

	bring_up(rig);
	cr_assert_eq(netvsp_service_ops.quiesce(rig->card, NULL), 0);
	wire_write(rig, 0, 100);
	netvsp_set_link(rig->card, false);
	for (int i = 0; i < 1000; i++)
		(void)base_io_loop_step(rig->loop, true);
	cr_assert_eq(rig->primary->out_count, 0);
	netvsp_announce(rig->card);
	pump(rig);
	cr_assert_eq(wire_read(rig, 0, bytes, sizeof(bytes)), 0);
	netvsp_service_ops.resume(rig->card);
	pump_for(rig, rig->primary, 1); /* the link; the frame came while it was out */
	cr_assert_eq(shown(rig, rig->primary, bytes, true), 20);
	cr_assert_eq(base_get_le32(bytes + 8), 0x4001000C);
	netvsp_set_link(rig->card, true);
	pump_for(rig, rig->primary, 1);
	cr_assert_eq(shown(rig, rig->primary, bytes, true), 20);
	cr_assert_eq(base_get_le32(bytes + 8), 0x4001000B);
	cr_assert_eq(wire_read(rig, 0, bytes, sizeof(bytes)), 0); /* no cable */
	rig->time.boot_ns += 50 * BASE_NS_PER_MS;
	pump(rig);
	cr_assert_eq(wire_read(rig, 0, bytes, sizeof(bytes)), 12 + NETVSP_RARP_BYTES);
	rig_end(rig);
}

Test(netvsp, a_restored_card_goes_on)
{
	struct rig *rig = rig_new(false);
	struct base_buffer state = { 0 };
	struct base_error err = { 0 };
	uint8_t bytes[SECTION];
	uint32_t size = packet_make(bytes, mac, 60);
	struct vmbus_channel *sub = NULL;
	uint64_t held = 0;
	uint64_t waits = 0;
	bool announced = false;

	bring_up(rig);
	sub = add_queue(rig);
	wire_write(rig, 1, 100);
	pump_for(rig, sub, 1);
	held = take(sub).trans_id; /* with the guest over the save */
	rig->primary->room = 0;
	send_range(rig, rig->primary, false, bytes, size);
	waits = rig->next_id; /* done, and its completion waits */
	fake_ready(rig->primary);
	cr_assert_eq(wire_read(rig, 0, bytes, sizeof(bytes)), 86);
	save(rig, &state);
	netvsp_free(rig->card);

	rig->bus.restoring = true;
	card_make(rig);
	cr_assert_eq(load(rig, &state, &err), 0, "%s", err.text);
	cr_assert_eq(netvsp_service_ops.loaded(rig->card, &err), 0, "%s", err.text);
	rig->bus.restoring = false;
	netvsp_service_ops.resume(rig->card);
	pump(rig);
	sub = fake_channel(&rig->bus, 1);
	cr_assert_not_null(sub);
	cr_assert_eq(take(rig->primary).trans_id, waits);
	cr_assert_eq(wire_read(rig, 0, bytes, sizeof(bytes)), 0); /* whether the guest runs? */
	netvsp_announce(rig->card);
	pump(rig);
	cr_assert_eq(shown(rig, rig->primary, bytes, true), 20);
	cr_assert_eq(base_get_le32(bytes + 8), 0x4001000B);
	while (wire_read(rig, 0, bytes, sizeof(bytes)) == 12 + NETVSP_RARP_BYTES)
		announced = true;
	cr_assert(announced);
	cr_assert(status_of(rig).connected);
	cr_assert_eq(status_of(rig).queue_count, 2);
	for (uint32_t i = 0; i < 8; i++)
		wire_write(rig, 1, 100 + i);
	pump_for(rig, sub, 8);
	for (uint32_t i = 0; i < 8; i++)
		cr_assert_neq(sub->out[i].trans_id, held);
	complete_section(sub, held);
	fake_ready(sub);
	wire_write(rig, 1, 120); /* ten sections, eight are out */
	wire_write(rig, 1, 121);
	pump_for(rig, sub, 10);
	base_buffer_fini(&state);
	rig_end(rig);
}

/* A request for sub-channels that is still open, for more than this card can have. */
static void refuse_open_request(struct rig *rig, const struct base_buffer *from)
{
	struct netvsp_state *state = calloc(1, sizeof(*state));
	struct base_reader in = base_reader_over(from->data, from->size_bytes);
	struct base_buffer changed = { 0 };
	struct base_error err = { 0 };

	cr_assert_eq(netvsp_state_decode(&in, state, &err), 0, "%s", err.text);
	state->control.sub_count = 0;
	state->control.table_waits = false;
	state->control.sub_request.is_set = true;
	state->control.sub_request.count = NETVSP_QUEUES_MAX - 1;
	netvsp_state_encode(state, &changed);
	cr_assert_eq(load(rig, &changed, &err), -EINVAL);
	base_buffer_fini(&changed);
	free(state);
}

Test(netvsp, states_of_other_configurations)
{
	struct rig *rig = rig_new(false);
	struct base_buffer state = { 0 };
	struct base_error err = { 0 };
	struct base_reader in;

	bring_up(rig);
	(void)add_queue(rig);
	save(rig, &state);
	netvsp_free(rig->card);
	rig->options.mac[5] = 9;
	card_make(rig);
	cr_assert_eq(load(rig, &state, &err), -EINVAL);
	netvsp_free(rig->card);
	rig->options.mac[5] = 1;
	rig->options.queue_count = 1;
	card_make(rig);
	cr_assert_eq(load(rig, &state, &err), -EINVAL);
	refuse_open_request(rig, &state);
	in = base_reader_over(state.data, state.size_bytes);
	cr_assert_eq(netvsp_service_ops.load(rig->card, 0, 2, &in, &err), -ENOTSUP);
	in = base_reader_over(state.data, state.size_bytes);
	cr_assert_eq(netvsp_service_ops.load(rig->card, 0, 0, &in, &err), -EBADMSG);
	in = base_reader_over(state.data, state.size_bytes - 1);
	cr_assert_eq(netvsp_service_ops.load(rig->card, 0, 1, &in, &err), -EBADMSG);
	netvsp_free(rig->card);
	rig->options.queue_count = QUEUES;
	rig->bus.restoring = true;
	card_make(rig);
	rig->bus.lists[0].exists = false; /* the page list is not there any more */
	cr_assert_eq(load(rig, &state, &err), 0);
	cr_assert_eq(netvsp_service_ops.loaded(rig->card, &err), -ENOENT);
	base_buffer_fini(&state);
	rig_end(rig);
}

Test(netvsp, a_reset_forgets_the_guest)
{
	struct rig *rig = rig_new(false);

	bring_up(rig);
	cr_assert_eq(netvsp_service_ops.quiesce(rig->card, NULL), 0);
	fake_close(rig->primary); /* the bus does */
	pump(rig);
	cr_assert(rig->primary->closed);
	cr_assert_eq(netvsp_service_ops.reset(rig->card, NULL), 0);
	netvsp_service_ops.resume(rig->card);
	cr_assert_not(status_of(rig).connected);
	bring_up(rig);
	rig_end(rig);
}

Test(netvsp, no_memory_for_a_card)
{
	struct rig *rig = rig_new(true);
	struct netvsp *card = NULL;
	int rc = -ENOMEM;

	rig->bus.channels[0] = NULL; /* its place is free */
	for (unsigned int at = 0; rc == -ENOMEM; at++) {
		alloc_fail_at(at);
		rc = netvsp_new(&rig->options, &card, NULL);
		if (!alloc_fail_done())
			break;
		cr_assert_eq(rc, -ENOMEM);
	}
	cr_assert_eq(rc, 0);
	netvsp_free(card);
	rig->bus.channels[0] = rig->primary;
	rig_end(rig);
}
