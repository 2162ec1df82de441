/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The bus over quiesce, save, restore and reset: nothing lost, nothing twice.
 */
#include "tests/support/alloc_fail.h"
#include "tests/unit/vmbus/vmbus_rig.h"

static void quiesce(struct rig *rig)
{
	cr_assert_eq(vmbus_service_ops.quiesce(vmbus_guest_bus(rig->guest), NULL), 0);
}

static void resume(struct rig *rig)
{
	vmbus_service_ops.resume(vmbus_guest_bus(rig->guest));
	vmbus_guest_run(rig->guest);
}

static struct base_buffer save(struct rig *rig)
{
	struct base_buffer out = { .data = NULL };

	cr_assert_eq(vmbus_service_ops.save(vmbus_guest_bus(rig->guest), 0, &out, NULL), 0);
	return out;
}

static int load(struct rig *rig, const struct base_buffer *saved)
{
	struct base_reader in = base_reader_over(saved->data, saved->size_bytes);

	return vmbus_service_ops.load(vmbus_guest_bus(rig->guest), 0, 1, &in, NULL);
}

/* Save, and a fresh bus without devices in place of the old one, quiesced. */
static struct base_buffer move(struct rig *rig)
{
	struct base_buffer saved;

	quiesce(rig);
	saved = save(rig);
	vmbus_gpadl_unref(base_take(&rig->echo.gpadl));
	vmbus_channel_free(base_take(&rig->echo.channel));
	vmbus_guest_new_bus(rig->guest);
	quiesce(rig);
	return saved;
}

static void offer(struct rig *rig)
{
	cr_assert_eq(rig_try_offer(vmbus_guest_bus(rig->guest), vmbus_guest_loop(rig->guest),
				   &rig->echo, 0),
		     0);
}

static void loaded(struct rig *rig)
{
	cr_assert_eq(vmbus_service_ops.loaded(vmbus_guest_bus(rig->guest), NULL), 0);
}

static void send(struct rig *rig, uint64_t id)
{
	cr_assert_eq(vmbus_guest_send_inband(&rig->channel, id, &id, sizeof(id), true), 0);
}

static void expect(struct rig *rig, uint64_t id)
{
	struct vmbus_guest_packet packet;

	cr_assert(vmbus_guest_receive(&rig->channel, &packet), "%u", (unsigned int)id);
	cr_assert_eq(packet.trans_id, id);
}

Test(vmbus_state, nothing_is_served_while_quiet)
{
	struct rig rig;
	struct vmbus_guest_packet packet;
	uint32_t ready = 0;

	rig_begin(&rig, 0);
	quiesce(&rig);
	ready = rig.echo.ready_count;
	send(&rig, 1);
	vmbus_channel_again(rig.echo.channel);
	vmbus_guest_run(rig.guest);
	cr_assert_eq(rig.echo.ready_count, ready);
	cr_assert_not(vmbus_guest_receive(&rig.channel, &packet));
	resume(&rig);
	cr_assert_eq(rig.echo.ready_count, ready + 1);
	expect(&rig, 1);
	rig_end(&rig);
}

Test(vmbus_state, resume_looks_once_at_each_ring_and_interrupts_once)
{
	struct rig rig;
	uint64_t interrupts = 0;
	uint32_t ready = 0;

	rig_begin(&rig, 0);
	quiesce(&rig);
	interrupts = vmbus_guest_interrupts(rig.guest, 0);
	ready = rig.echo.ready_count;
	resume(&rig);
	cr_assert_eq(rig.echo.ready_count, ready + 1);
	cr_assert_gt(vmbus_guest_interrupts(rig.guest, 0), interrupts);
	cr_assert(vmbus_guest_event(&rig.channel));
	rig_end(&rig);
}

/* Both orders of offering and loading; rings half full on both sides. */
static void rings_go_along(bool offer_first, bool offer_late)
{
	struct rig rig;
	struct base_buffer saved;
	const uint64_t read_ahead = 3;

	rig_begin(&rig, 3);
	for (uint64_t i = 0; i < read_ahead; i++)
		send(&rig, i); /* answers wait in the ring to the guest */
	vmbus_guest_run(rig.guest);
	rig.echo.deaf = true;
	for (uint64_t i = read_ahead; i < 6; i++)
		send(&rig, i); /* requests wait in the ring to the host */
	rig.echo.opened_count = 0;
	saved = move(&rig);
	rig.echo.deaf = false;
	if (offer_first)
		offer(&rig);
	cr_assert_eq(load(&rig, &saved), 0);
	if (!offer_first && !offer_late)
		offer(&rig);
	loaded(&rig);
	if (offer_late)
		offer(&rig);
	cr_assert(vmbus_channel_is_open(rig.echo.channel));
	resume(&rig);
	for (uint64_t i = 0; i < 6; i++)
		expect(&rig, i);
	cr_assert_eq(rig.echo.opened_count, 0);
	send(&rig, 6);
	expect(&rig, 6);
	vmbus_guest_close(&rig.channel);
	cr_assert_eq(vmbus_guest_open(rig.guest, rig.offer, 0, &rig.channel), 0);
	base_buffer_fini(&saved);
	rig_end(&rig);
}

Test(vmbus_state, rings_go_along_with_devices_offered_before)
{
	rings_go_along(true, false);
}

Test(vmbus_state, rings_go_along_with_devices_offered_after)
{
	rings_go_along(false, false);
}

Test(vmbus_state, rings_go_along_with_devices_that_come_last)
{
	rings_go_along(false, true);
}

Test(vmbus_state, channels_without_a_device_are_rescinded)
{
	struct rig rig;
	struct base_buffer saved;
	uint32_t relid = 0;

	rig_begin(&rig, 0);
	relid = rig.channel.relid;
	saved = move(&rig);
	cr_assert_eq(load(&rig, &saved), 0);
	loaded(&rig);
	resume(&rig);
	cr_assert_eq(vmbus_guest_rescinded(rig.guest), relid);
	vmbus_guest_close(&rig.channel);
	vmbus_guest_release_relid(rig.guest, relid);
	cr_assert_eq(rig_status(&rig).offered_count, 0);
	offer(&rig);
	cr_assert_not_null(vmbus_guest_offer(rig.guest, &rig_type, 0));
	base_buffer_fini(&saved);
	rig_end(&rig);
}

Test(vmbus_state, half_a_page_list_and_answers_go_along)
{
	struct rig rig;
	struct base_buffer saved;
	struct hv_message answer;
	uint8_t header[36] = { VMBUS_MSG_GPADL_HEADER };
	uint8_t body[24] = { VMBUS_MSG_GPADL_BODY };
	uint8_t unknown[148] = { VMBUS_MSG_OPENCHANNEL };

	rig_begin(&rig, 0);
	base_put_le32(header + 8, rig.channel.relid);
	base_put_le32(header + 12, 0x777);
	base_put_le16(header + 16, 24);
	base_put_le16(header + 18, 1);
	base_put_le32(header + 20, 8192);
	base_put_le64(header + 28, 0x900);
	cr_assert_eq(vmbus_guest_post(rig.guest, 4, header, sizeof(header)), HV_STATUS_SUCCESS);
	/* More answers than the SynIC holds. */
	for (uint32_t i = 0; i < 50; i++) {
		base_put_le32(unknown + 12, i);
		cr_assert_eq(vmbus_guest_post(rig.guest, 4, unknown, sizeof(unknown)),
			     HV_STATUS_SUCCESS);
	}
	saved = move(&rig);
	offer(&rig);
	cr_assert_eq(load(&rig, &saved), 0);
	loaded(&rig);
	resume(&rig);
	for (uint32_t i = 0; i < 50; i++) {
		vmbus_guest_expect(rig.guest, VMBUS_MSG_OPENCHANNEL_RESULT, &answer);
		cr_assert_eq(base_get_le32(answer.payload + 12), i);
	}
	base_put_le32(body + 12, 0x777);
	base_put_le64(body + 16, 0x901);
	cr_assert_eq(vmbus_guest_post(rig.guest, 4, body, sizeof(body)), HV_STATUS_SUCCESS);
	vmbus_guest_expect(rig.guest, VMBUS_MSG_GPADL_CREATED, &answer);
	cr_assert_eq(base_get_le32(answer.payload + 16), 0);
	base_buffer_fini(&saved);
	rig_end(&rig);
}

Test(vmbus_state, a_list_being_torn_down_goes_along)
{
	struct rig rig;
	struct base_buffer saved;
	struct hv_message answer;
	uint64_t pfns[2];
	uint32_t id = 0;

	rig_begin(&rig, 0);
	vmbus_guest_scattered(rig.guest, 2, pfns);
	cr_assert_eq(vmbus_guest_gpadl(rig.guest, rig.channel.relid, pfns, 2, &id), 0);
	cr_assert_eq(vmbus_gpadl_ref(rig.echo.channel, id, &rig.echo.gpadl), 0);
	rig.echo.keep_gpadl = true;
	cr_assert_not(vmbus_guest_teardown(rig.guest, rig.channel.relid, id));
	saved = move(&rig);
	offer(&rig);
	cr_assert_eq(load(&rig, &saved), 0);
	loaded(&rig);
	cr_assert_not(vmbus_guest_take(rig.guest, &answer)); /* not before it goes on */
	resume(&rig);
	vmbus_guest_expect(rig.guest, VMBUS_MSG_GPADL_TORNDOWN, &answer);
	base_buffer_fini(&saved);
	rig_end(&rig);
}

Test(vmbus_state, rings_that_broke_meanwhile_cost_the_channel)
{
	struct rig rig;
	struct base_buffer saved;

	rig_begin(&rig, 0);
	saved = move(&rig);
	*vmbus_guest_ring_word(&rig.channel, false, VMBUS_RING_READ_INDEX) = 0x10000000;
	offer(&rig);
	cr_assert_eq(load(&rig, &saved), 0);
	loaded(&rig);
	cr_assert_not(vmbus_channel_is_open(rig.echo.channel));
	resume(&rig);
	vmbus_guest_close(&rig.channel);
	cr_assert_eq(vmbus_guest_open(rig.guest, rig.offer, 0, &rig.channel), 0);
	base_buffer_fini(&saved);
	rig_end(&rig);
}

Test(vmbus_state, reset_forgets_the_guest)
{
	struct rig rig;

	rig_begin(&rig, 0);
	quiesce(&rig);
	cr_assert_eq(vmbus_service_ops.reset(vmbus_guest_bus(rig.guest), NULL), 0);
	cr_assert_eq(rig.echo.closing_count, 1);
	resume(&rig);
	cr_assert_not(rig_status(&rig).connected);
	vmbus_guest_connect(rig.guest);
	rig.offer = vmbus_guest_offer(rig.guest, &rig_type, 0);
	cr_assert_eq(vmbus_guest_open(rig.guest, rig.offer, 0, &rig.channel), 0);
	rig_end(&rig);
}

/* Truncated at every byte, and every byte changed: refused or taken, never half. */
Test(vmbus_state, a_damaged_section_changes_nothing)
{
	struct rig rig;
	struct base_buffer saved;
	struct base_buffer cut;
	struct base_reader in;

	rig_begin(&rig, 0);
	saved = move(&rig);
	for (size_t i = 0; i < saved.size_bytes; i++) {
		cut = (struct base_buffer){ .data = saved.data, .size_bytes = i };
		cr_assert_eq(load(&rig, &cut), -EBADMSG, "%zu bytes", i);
		cr_assert_not(rig_status(&rig).connected);
	}
	in = base_reader_over(saved.data, saved.size_bytes);
	cr_assert_eq(vmbus_service_ops.load(vmbus_guest_bus(rig.guest), 0, 2, &in, NULL), -ENOTSUP);
	cr_assert_eq(load(&rig, &saved), 0);
	cr_assert_eq(load(&rig, &saved), -EPROTO);
	base_buffer_fini(&saved);
	vmbus_guest_free(rig.guest);
}

#define CHANNEL_BYTES 176u
#define FLAGS_AT      34u
#define RELID_AT      36u

static int load_bent(const struct base_buffer *saved, uint32_t offset, uint32_t value)
{
	struct base_buffer bent = { .data = malloc(saved->size_bytes),
				    .size_bytes = saved->size_bytes };
	struct rig rig = { .guest = vmbus_guest_new(NULL) };
	int r = 0;

	memcpy(bent.data, saved->data, saved->size_bytes);
	base_put_le32(bent.data + offset, value);
	quiesce(&rig);
	r = load(&rig, &bent);
	cr_assert(r == 0 || !rig_status(&rig).connected);
	free(bent.data);
	vmbus_guest_free(rig.guest);
	return r;
}

/* Bits that contradict each other. */
Test(vmbus_state, a_section_that_cannot_be_is_refused)
{
	struct rig rig;
	struct base_buffer saved;
	uint32_t flags_at = 0;
	uint32_t flags = 0;

	rig_begin(&rig, 0);
	saved = move(&rig);
	flags_at = (uint32_t)saved.size_bytes - CHANNEL_BYTES + FLAGS_AT;
	cr_assert_eq(load_bent(&saved, 0, 3), 0);
	cr_assert_eq(load_bent(&saved, 0, 0), -EBADMSG);  /* channels, and no connection */
	cr_assert_eq(load_bent(&saved, 0, 7), -EBADMSG);  /* connected and resetting */
	cr_assert_eq(load_bent(&saved, 0, 11), -EBADMSG); /* a contact waits */
	cr_assert_eq(load_bent(&saved, 0, 19), -EBADMSG); /* an unload waits */
	cr_assert_eq(load_bent(&saved, 0, 2), -EBADMSG);  /* offers without a connection */
	cr_assert_eq(load_bent(&saved, 4, 0x40002), -EBADMSG);
	flags = base_get_le16(saved.data + flags_at);
	cr_assert_eq(flags, 6);
	/* Open, and not for the guest. */
	cr_assert_eq(load_bent(&saved, flags_at,
			       4u | (base_get_le32(saved.data + flags_at) & 0xffff0000u)),
		     -EBADMSG);
	base_buffer_fini(&saved);
	vmbus_guest_free(rig.guest);
}

/* One device for two numbers: the first would be left behind with nobody who frees it. */
Test(vmbus_state, a_device_twice_in_a_section_is_refused)
{
	struct rig rig;
	struct base_buffer saved;
	uint8_t twin[CHANNEL_BYTES];

	rig_begin(&rig, 0);
	saved = move(&rig);
	base_put_le32(saved.data + saved.size_bytes - CHANNEL_BYTES - 4, 2);
	memcpy(twin, saved.data + saved.size_bytes - CHANNEL_BYTES, CHANNEL_BYTES);
	base_put_le16(twin + FLAGS_AT, 0);
	base_put_le32(twin + RELID_AT, 77);
	base_buffer_append(&saved, twin, sizeof(twin));
	cr_assert_not(saved.failed);
	offer(&rig);
	cr_assert_eq(load(&rig, &saved), -EBADMSG);
	cr_assert_eq(rig_status(&rig).offered_count, 1);
	base_buffer_fini(&saved);
	rig_end(&rig);
}

Test(vmbus_state, no_memory_while_loading)
{
	struct rig rig;
	struct base_buffer saved;

	rig_begin(&rig, 0);
	saved = move(&rig);
	for (unsigned int k = 0;; k++) {
		int r = 0;

		alloc_fail_at(k);
		r = load(&rig, &saved);
		if (!alloc_fail_done()) {
			cr_assert_eq(r, 0);
			break;
		}
		cr_assert_eq(r, -ENOMEM, "allocation %u", k);
		cr_assert_not(rig_status(&rig).connected);
	}
	base_buffer_fini(&saved);
	vmbus_guest_free(rig.guest);
}
