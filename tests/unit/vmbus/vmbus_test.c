/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The bus as a guest sees it: the life of a connection, of channels and page lists, and what a
 * hostile guest gets.
 */
#include "tests/unit/vmbus/vmbus_rig.h"

/* A message of 32-bit words. */
static enum hv_status post_words(struct vmbus_guest *guest, const uint32_t *words, uint32_t count)
{
	uint8_t m[HV_MESSAGE_PAYLOAD_BYTES];

	for (uint32_t i = 0; i < count; i++)
		base_put_le32(m + 4 * i, words[i]);
	return vmbus_guest_post(guest, 4, m, 4 * count);
}
#define POST(guest, ...)                                                                           \
	post_words(guest, (const uint32_t[]){ __VA_ARGS__ },                                       \
		   sizeof((const uint32_t[]){ __VA_ARGS__ }) / 4)

/* Without a turn of the loop after it: what follows is handled together with it. */
static void post_only(struct vmbus_guest *guest, const uint32_t *words, uint32_t count)
{
	uint8_t m[HV_MESSAGE_PAYLOAD_BYTES];

	for (uint32_t i = 0; i < count; i++)
		base_put_le32(m + 4 * i, words[i]);
	cr_assert_eq(vmbus_hypercall_ops.post_message(vmbus_guest_bus(guest), 4, 1, m, 4 * count),
		     HV_STATUS_SUCCESS);
}

static uint32_t word_of(const struct hv_message *message, uint32_t offset)
{
	return base_get_le32(message->payload + offset);
}

static uint32_t open_raw(struct vmbus_guest *guest, uint32_t relid, uint32_t gpadl, uint32_t vp,
			 uint32_t down)
{
	uint32_t words[37] = { VMBUS_MSG_OPENCHANNEL, 0, relid, 77, gpadl, vp, down };
	struct hv_message answer;

	cr_assert_eq(post_words(guest, words, 37), HV_STATUS_SUCCESS);
	vmbus_guest_expect(guest, VMBUS_MSG_OPENCHANNEL_RESULT, &answer);
	cr_assert_eq(word_of(&answer, 8), relid);
	cr_assert_eq(word_of(&answer, 12), 77);
	return word_of(&answer, 16);
}

Test(vmbus, opens_echoes_and_closes)
{
	static const char text[16] = "hello";
	struct vmbus_guest_packet packet;
	struct rig rig;

	rig_begin(&rig, 0);
	cr_assert_eq(rig.echo.opened_count, 1);
	cr_assert(rig.offer->dedicated);
	cr_assert_eq(vmbus_guest_send_inband(&rig.channel, 7, text, sizeof(text), true), 0);
	cr_assert(vmbus_guest_receive(&rig.channel, &packet));
	cr_assert_eq(packet.type, VMBUS_PACKET_COMPLETION);
	cr_assert_eq(packet.trans_id, 7);
	cr_assert_eq(packet.payload_bytes, sizeof(text));
	cr_assert_arr_eq(packet.bytes, text, sizeof(text));
	cr_assert(vmbus_guest_event(&rig.channel));
	vmbus_guest_close(&rig.channel);
	cr_assert_eq(rig.echo.closing_count, 1);
	cr_assert_not(vmbus_channel_is_open(rig.echo.channel));
	/* And again. */
	cr_assert_eq(vmbus_guest_open(rig.guest, rig.offer, 0, &rig.channel), 0);
	cr_assert_eq(rig.echo.opened_count, 2);
	rig_end(&rig);
}

Test(vmbus, serves_versions_4_0_to_5_3)
{
	static const uint32_t good[] = { 0x40000, 0x40001, 0x50000, 0x50001, 0x50002, 0x50003 };
	static const uint32_t bad[] = { 0, 0x20004, 0x30000, 0x40002, 0x50004, 0x60000 };
	struct vmbus_guest *guest = vmbus_guest_new(NULL);

	for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++)
		cr_assert_not(vmbus_guest_contact(guest, bad[i]), "%x", bad[i]);
	for (size_t i = 0; i < sizeof(good) / sizeof(good[0]); i++)
		cr_assert(vmbus_guest_contact(guest, good[i]), "%x", good[i]);
	vmbus_guest_free(guest);
}

Test(vmbus, keys_are_unique_and_channels_bounded)
{
	struct vmbus_guest *guest = vmbus_guest_new(NULL);
	struct echo *echoes = calloc(VMBUS_CHANNELS_MAX + 2, sizeof(*echoes));
	struct vmbus *bus = vmbus_guest_bus(guest);
	struct base_io_loop *loop = vmbus_guest_loop(guest);

	for (uint32_t i = 0; i < VMBUS_CHANNELS_MAX; i++)
		cr_assert_eq(rig_try_offer(bus, loop, &echoes[i], (uint16_t)i), 0);
	cr_assert_eq(rig_try_offer(bus, loop, &echoes[VMBUS_CHANNELS_MAX], 9), -EEXIST);
	cr_assert_eq(rig_try_offer(bus, loop, &echoes[VMBUS_CHANNELS_MAX], VMBUS_CHANNELS_MAX),
		     -ENOSPC);
	vmbus_guest_run(guest);
	vmbus_retract(echoes[5].channel);
	vmbus_guest_run(guest);
	cr_assert_eq(echoes[5].gone_count, 1); /* the guest never saw it */
	cr_assert_eq(rig_try_offer(bus, loop, &echoes[5], 5), 0);
	vmbus_guest_free(guest); /* frees the channels, too */
	free(echoes);
}

Test(vmbus, a_refused_open_leaves_the_channel_offered)
{
	struct echo echo = { .open_code = -ENOMEM };
	struct vmbus_guest *guest = vmbus_guest_new(NULL);
	struct vmbus_guest_channel channel;
	const struct vmbus_guest_offer *offer = NULL;

	rig_offer(guest, &echo, 0);
	vmbus_guest_connect(guest);
	offer = vmbus_guest_offer(guest, &rig_type, 0);
	cr_assert_neq(vmbus_guest_open(guest, offer, 0, &channel), 0);
	cr_assert_eq(echo.opened_count, 1);
	cr_assert(vmbus_guest_teardown(guest, channel.relid, channel.gpadl));
	echo.open_code = 0;
	cr_assert_eq(vmbus_guest_open(guest, offer, 0, &channel), 0);
	cr_assert_eq(echo.closing_count, 0);
	vmbus_channel_free(echo.channel);
	vmbus_guest_free(guest);
}

Test(vmbus, opens_out_of_place_fail)
{
	struct rig rig;
	uint64_t pfns[8];
	uint32_t gpadl = 0;
	uint32_t relid = 0;

	rig_begin(&rig, 0);
	relid = rig.channel.relid;
	cr_assert_neq(open_raw(rig.guest, relid, rig.channel.gpadl, 0, 9), 0); /* twice */
	cr_assert_neq(open_raw(rig.guest, 2047, rig.channel.gpadl, 0, 9), 0);
	cr_assert_neq(open_raw(rig.guest, 0xffffffffu, rig.channel.gpadl, 0, 9), 0);
	vmbus_guest_close(&rig.channel);
	vmbus_guest_scattered(rig.guest, 8, pfns);
	cr_assert_eq(vmbus_guest_gpadl(rig.guest, relid, pfns, 8, &gpadl), 0);
	cr_assert_neq(open_raw(rig.guest, relid, gpadl + 1, 0, 4), 0); /* no such list */
	cr_assert_neq(open_raw(rig.guest, relid, gpadl, 1, 4), 0);     /* no such processor */
	cr_assert_neq(open_raw(rig.guest, relid, gpadl, 0, 0), 0);
	cr_assert_neq(open_raw(rig.guest, relid, gpadl, 0, 1), 0); /* no data pages */
	cr_assert_neq(open_raw(rig.guest, relid, gpadl, 0, 7), 0);
	cr_assert_neq(open_raw(rig.guest, relid, gpadl, 0, 8), 0);
	cr_assert_neq(open_raw(rig.guest, relid, gpadl, 0, 0xffffffffu), 0);
	base_put_le32(vmbus_guest_at(rig.guest, pfns[0] << 12, 4096) + VMBUS_RING_READ_INDEX, 12);
	cr_assert_neq(open_raw(rig.guest, relid, gpadl, 0, 4), 0); /* index not aligned */
	base_put_le32(vmbus_guest_at(rig.guest, pfns[0] << 12, 4096) + VMBUS_RING_READ_INDEX, 0);
	cr_assert_eq(open_raw(rig.guest, relid, gpadl, 0, 4), 0);
	rig_end(&rig);
}

Test(vmbus, page_lists_of_many_messages)
{
	struct vmbus_gpadl *gpadl = NULL;
	uint64_t pfns[1000];
	uint8_t bytes[9000];
	uint8_t back[9000];
	struct rig rig;
	uint32_t id = 0;

	rig_begin(&rig, 0);
	vmbus_guest_scattered(rig.guest, 1000, pfns);
	cr_assert_eq(vmbus_guest_gpadl(rig.guest, rig.channel.relid, pfns, 1000, &id), 0);
	cr_assert_eq(vmbus_gpadl_ref(rig.echo.channel, id + 1, &gpadl), -ENOENT);
	cr_assert_eq(vmbus_gpadl_ref(rig.echo.channel, id, &gpadl), 0);
	cr_assert_eq(vmbus_gpadl_size(gpadl), 1000u * 4096);
	memset(bytes, 0x5a, sizeof(bytes));
	cr_assert_eq(vmbus_gpadl_write(gpadl, 4000, bytes, sizeof(bytes)), 0);
	cr_assert_eq(vmbus_gpadl_read(gpadl, 4000, back, sizeof(back)), 0);
	cr_assert_arr_eq(bytes, back, sizeof(back));
	cr_assert_eq(*(vmbus_guest_at(rig.guest, pfns[1] << 12, 4096) + 4095), 0x5a);
	cr_assert_eq(vmbus_gpadl_read(gpadl, 1000u * 4096 - 8, back, 9), -EFAULT);
	cr_assert_eq(vmbus_gpadl_write(gpadl, 0xffffffffu, back, 1), -EFAULT);
	/* The device keeps it: torn down only when it lets go. */
	rig.echo.gpadl = gpadl;
	rig.echo.keep_gpadl = true;
	cr_assert_not(vmbus_guest_teardown(rig.guest, rig.channel.relid, id));
	cr_assert_eq(rig.echo.torn_count, 1);
	cr_assert_eq(vmbus_gpadl_ref(rig.echo.channel, id, &gpadl), -ENOENT);
	vmbus_gpadl_unref(base_take(&rig.echo.gpadl));
	{
		struct hv_message answer;

		vmbus_guest_expect(rig.guest, VMBUS_MSG_GPADL_TORNDOWN, &answer);
		cr_assert_eq(word_of(&answer, 8), id);
	}
	rig_end(&rig);
}

Test(vmbus, page_lists_that_are_wrong_are_refused)
{
	struct hv_message answer;
	uint32_t refused = 0;
	struct rig rig;
	uint64_t bad_pfns[] = { 1, 1ULL << 40 };
	uint64_t huge_pfns[] = { UINT64_MAX };
	uint64_t pfns[] = { 0x900 };
	uint32_t relid = 0;
	uint32_t id = 0;

	rig_begin(&rig, 0);
	relid = rig.channel.relid;
	cr_assert_neq(vmbus_guest_gpadl(rig.guest, relid, bad_pfns, 2, &id), 0);
	cr_assert_neq(vmbus_guest_gpadl(rig.guest, relid, huge_pfns, 1, &id), 0);
	cr_assert_neq(vmbus_guest_gpadl(rig.guest, relid + 1, pfns, 1, &id), 0); /* no channel */
	/* The same id twice. */
	POST(rig.guest, VMBUS_MSG_GPADL_HEADER, 0, relid, rig.channel.gpadl, 16 | 1u << 16, 4096, 0,
	     0x900, 0);
	vmbus_guest_expect(rig.guest, VMBUS_MSG_GPADL_CREATED, &answer);
	cr_assert_neq(word_of(&answer, 16), 0);
	/* Ranges: none, empty, with a wild offset, longer than the list, shorter than it. */
	static const uint32_t lists[][4] = {
		{ 16, 4096, 0, 1 },
		{ 16 | 1u << 16, 0, 0, 0x900 },
		{ 16 | 1u << 16, 8, 4096, 0 },
		{ 16 | 1u << 16, 8192, 0, 0x900 },
		{ 24 | 1u << 16, 8, 0, 0x900 },
		{ 12 | 1u << 16, 8, 0, 0x900 },
		{ 16 | 2u << 16, 8, 0, 0x900 },
		{ 16 | 1u << 16, 0xffffffffu, 0, 0x900 },
	};
	for (uint32_t i = 0; i < sizeof(lists) / sizeof(lists[0]); i++) {
		POST(rig.guest, VMBUS_MSG_GPADL_HEADER, 0, relid, 0x100 + i, lists[i][0],
		     lists[i][1], lists[i][2], lists[i][3], 0, 0x900, 0);
		vmbus_guest_expect(rig.guest, VMBUS_MSG_GPADL_CREATED, &answer);
		cr_assert_neq(word_of(&answer, 16), 0, "list %u", i);
	}
	refused = (uint32_t)rig_status(&rig).refused_count;
	/* Without a header, after it was whole, of an odd length. */
	POST(rig.guest, VMBUS_MSG_GPADL_BODY, 0, 0, 0x4444, 1, 0);
	POST(rig.guest, VMBUS_MSG_GPADL_BODY, 0, 0, rig.channel.gpadl, 1, 0);
	POST(rig.guest, VMBUS_MSG_GPADL_BODY, 0, 0, rig.channel.gpadl, 1);
	/* The ring of an open channel, an unknown one. */
	POST(rig.guest, VMBUS_MSG_GPADL_TEARDOWN, 0, relid, rig.channel.gpadl);
	POST(rig.guest, VMBUS_MSG_GPADL_TEARDOWN, 0, relid, 0x4444);
	cr_assert_eq(rig_status(&rig).refused_count, refused + 5);
	cr_assert_not(vmbus_guest_take(rig.guest, &answer));
	cr_assert(vmbus_channel_is_open(rig.echo.channel));
	rig_end(&rig);
}

Test(vmbus, messages_out_of_place_have_no_effect)
{
	struct hv_message answer;
	struct rig rig;
	uint64_t refused = 0;
	struct vmbus_guest *fresh = vmbus_guest_new(NULL);
	struct vmbus_status status;

	/* Not connected. */
	POST(fresh, VMBUS_MSG_REQUESTOFFERS, 0);
	POST(fresh, VMBUS_MSG_CLOSECHANNEL, 0, 1);
	POST(fresh, VMBUS_MSG_GPADL_HEADER, 0, 1, 2, 16 | 1u << 16, 4096, 0, 0x900, 0);
	POST(fresh, VMBUS_MSG_INITIATE_CONTACT, 0, 0x50003, 64, 0, 0, 0, 0, 0, 0); /* VP 64 */
	cr_assert_not(vmbus_guest_take(fresh, &answer));
	vmbus_status(vmbus_guest_bus(fresh), &status);
	cr_assert_eq(status.refused_count, 4);
	vmbus_guest_free(fresh);

	rig_begin(&rig, 0);
	refused = rig_status(&rig).refused_count;
	POST(rig.guest, VMBUS_MSG_REQUESTOFFERS, 0); /* twice */
	POST(rig.guest, VMBUS_MSG_CLOSECHANNEL, 0, 99);
	POST(rig.guest, VMBUS_MSG_RELID_RELEASED, 0, rig.channel.relid);
	POST(rig.guest, VMBUS_MSG_OFFERCHANNEL, 0, 1); /* ours to send */
	POST(rig.guest, 12345, 0);
	POST(rig.guest, VMBUS_MSG_CLOSECHANNEL, 0); /* short */
	POST(rig.guest, VMBUS_MSG_CLOSECHANNEL);
	cr_assert_eq(vmbus_guest_post(rig.guest, 4, "", 0), HV_STATUS_SUCCESS);
	cr_assert_eq(rig_status(&rig).refused_count, refused + 8);
	cr_assert_eq(vmbus_guest_post(rig.guest, 2, "", 0), HV_STATUS_INVALID_CONNECTION_ID);
	cr_assert_eq(vmbus_hypercall_ops.signal_event(vmbus_guest_bus(rig.guest), 5, 0),
		     HV_STATUS_INVALID_CONNECTION_ID);
	cr_assert_eq(
		vmbus_hypercall_ops.signal_event(vmbus_guest_bus(rig.guest), 0x10000 + 2047, 0),
		HV_STATUS_INVALID_CONNECTION_ID);
	cr_assert_not(vmbus_guest_take(rig.guest, &answer));
	cr_assert(vmbus_channel_is_open(rig.echo.channel));
	rig_end(&rig);
}

Test(vmbus, a_full_queue_is_told_to_the_guest)
{
	const uint8_t m[8] = { VMBUS_MSG_UNLOAD };
	struct vmbus_guest *guest = vmbus_guest_new(NULL);
	struct vmbus *bus = vmbus_guest_bus(guest);

	for (uint32_t i = 0; i < VMBUS_IN_MAX; i++)
		cr_assert_eq(vmbus_hypercall_ops.post_message(bus, 4, 1, m, sizeof(m)),
			     HV_STATUS_SUCCESS);
	cr_assert_eq(vmbus_hypercall_ops.post_message(bus, 4, 1, m, sizeof(m)),
		     HV_STATUS_INSUFFICIENT_BUFFERS);
	vmbus_guest_run(guest);
	cr_assert_eq(vmbus_hypercall_ops.post_message(bus, 4, 1, m, sizeof(m)), HV_STATUS_SUCCESS);
	vmbus_guest_free(guest);
}

/* A guest that posts and never takes an answer is held up, and nothing is lost when it does. */
Test(vmbus, answers_wait_for_the_guest)
{
	struct hv_message answer;
	enum hv_status status = HV_STATUS_SUCCESS;
	uint32_t posted = 0;
	struct rig rig;

	rig_begin(&rig, 0);
	while (posted < 1000) {
		const uint32_t words[37] = { VMBUS_MSG_OPENCHANNEL, 0, 2000, posted };

		status = post_words(rig.guest, words, 37);
		if (status != HV_STATUS_SUCCESS)
			break;
		posted++;
	}
	cr_assert_eq(status, HV_STATUS_INSUFFICIENT_BUFFERS);
	for (uint32_t i = 0; i < posted; i++) {
		cr_assert(vmbus_guest_take(rig.guest, &answer), "answer %u of %u", i, posted);
		cr_assert_eq(word_of(&answer, 12), i);
	}
	cr_assert_not(vmbus_guest_take(rig.guest, &answer));
	rig_end(&rig);
}

Test(vmbus, contact_waits_until_the_old_connection_has_let_go)
{
	uint32_t contact[10] = { VMBUS_MSG_INITIATE_CONTACT, 0, 0x50002, 0 };
	struct hv_message answer;
	struct rig rig;

	rig_begin(&rig, 0);
	rig.echo.hold = true;
	cr_assert_eq(post_words(rig.guest, contact, 10), HV_STATUS_SUCCESS);
	cr_assert_eq(rig.echo.closing_count, 1);
	cr_assert_not(vmbus_guest_take(rig.guest, &answer)); /* access may be in flight */
	POST(rig.guest, VMBUS_MSG_REQUESTOFFERS, 0);
	cr_assert_not(vmbus_guest_take(rig.guest, &answer));
	vmbus_channel_closed(rig.echo.channel);
	vmbus_guest_expect(rig.guest, VMBUS_MSG_VERSION_RESPONSE, &answer);
	cr_assert_eq(answer.payload[8], 1);
	cr_assert_eq(rig_status(&rig).version, 0x50002);
	rig_end(&rig);
}

Test(vmbus, unload_and_reconnect)
{
	struct rig rig;

	rig_begin(&rig, 0);
	cr_assert(vmbus_guest_unload(rig.guest));
	cr_assert_eq(rig.echo.closing_count, 1);
	cr_assert_not(rig_status(&rig).connected);
	vmbus_guest_connect(rig.guest);
	rig.offer = vmbus_guest_offer(rig.guest, &rig_type, 0);
	cr_assert_not_null(rig.offer);
	cr_assert_eq(vmbus_guest_open(rig.guest, rig.offer, 0, &rig.channel), 0);
	rig_end(&rig);
}

Test(vmbus, close_while_the_device_is_busy)
{
	struct hv_message answer;
	struct rig rig;

	rig_begin(&rig, 0);
	rig.echo.hold = true;
	POST(rig.guest, VMBUS_MSG_CLOSECHANNEL, 0, rig.channel.relid);
	POST(rig.guest, VMBUS_MSG_GPADL_TEARDOWN, 0, rig.channel.relid, rig.channel.gpadl);
	cr_assert_not(vmbus_guest_take(rig.guest, &answer));
	vmbus_channel_closed(rig.echo.channel);
	vmbus_guest_expect(rig.guest, VMBUS_MSG_GPADL_TORNDOWN, &answer);
	cr_assert_eq(word_of(&answer, 8), rig.channel.gpadl);
	rig_end(&rig);
}

Test(vmbus, retraction_waits_for_the_guest)
{
	struct rig rig;
	uint32_t relid = 0;

	rig_begin(&rig, 0);
	relid = rig.channel.relid;
	vmbus_retract(rig.echo.channel);
	cr_assert_eq(vmbus_guest_rescinded(rig.guest), relid);
	cr_assert_eq(rig.echo.closing_count, 1);
	cr_assert_eq(rig.echo.gone_count, 0);
	vmbus_guest_close(&rig.channel);
	vmbus_guest_release_relid(rig.guest, relid);
	cr_assert_eq(rig.echo.gone_count, 1);
	/* The number is free again. */
	rig_offer(rig.guest, &rig.echo, 0);
	cr_assert_not_null(vmbus_guest_offer(rig.guest, &rig_type, 0));
	rig_end(&rig);
}

/* Who frees it owns it from there on, whatever was on its way. */
Test(vmbus, a_channel_is_freed_while_its_retraction_is_under_way)
{
	struct vmbus_guest *guest = vmbus_guest_new(NULL);
	struct echo echo = { .bus = NULL };

	rig_offer(guest, &echo, 0);
	vmbus_retract(echo.channel);
	vmbus_channel_free(echo.channel);
	vmbus_guest_run(guest);
	cr_assert_eq(echo.gone_count, 0);
	rig_offer(guest, &echo, 0); /* the key is free */
	vmbus_guest_free(guest);
}

Test(vmbus, hot_added_sub_channels_are_offered)
{
	struct echo sub = { .bus = NULL };
	const struct vmbus_guest_offer *offer = NULL;
	struct vmbus_guest_channel channel;
	struct rig rig;

	rig_begin(&rig, 0);
	rig_offer(rig.guest, &sub, 1);
	offer = vmbus_guest_offer(rig.guest, &rig_type, 1);
	cr_assert_not_null(offer);
	cr_assert_eq(offer->sub_index, 1);
	cr_assert_eq(vmbus_guest_open(rig.guest, offer, 0, &channel), 0);
	vmbus_channel_free(sub.channel);
	rig_end(&rig);
}

Test(vmbus, modify_moves_interrupts_and_answers)
{
	const struct vmbus_guest_opts opts = { .vcpus = 2 };
	struct vmbus_guest_channel channel;
	struct echo echo = { .bus = NULL };
	struct hv_message answer;
	struct vmbus_guest *guest = vmbus_guest_new(&opts);

	rig_offer(guest, &echo, 0);
	vmbus_guest_connect(guest);
	cr_assert_eq(vmbus_guest_open(guest, vmbus_guest_offer(guest, &rig_type, 0), 0, &channel),
		     0);
	POST(guest, VMBUS_MSG_MODIFYCHANNEL, 0, channel.relid, 1);
	vmbus_guest_expect(guest, VMBUS_MSG_MODIFYCHANNEL_RESPONSE, &answer);
	cr_assert_eq(word_of(&answer, 12), 0);
	channel.target_vp = 1;
	cr_assert_eq(vmbus_guest_send_inband(&channel, 1, "abcdefg", 8, true), 0);
	cr_assert(vmbus_guest_event(&channel));
	cr_assert_eq(vmbus_guest_interrupts(guest, 1), 1);
	POST(guest, VMBUS_MSG_MODIFYCHANNEL, 0, channel.relid, 2);
	vmbus_guest_expect(guest, VMBUS_MSG_MODIFYCHANNEL_RESPONSE, &answer);
	cr_assert_neq(word_of(&answer, 12), 0);
	vmbus_channel_free(echo.channel);
	vmbus_guest_free(guest);
}

/* Or it would be open with a list that is going, which no saved state may have. */
Test(vmbus, rings_of_an_opening_channel_stay)
{
	uint32_t words[37] = { VMBUS_MSG_OPENCHANNEL, 0, 0, 77, 0, 0, 9 };
	struct hv_message answer;
	uint64_t refused = 0;
	uint64_t pfns[18];
	struct rig rig;

	rig_begin(&rig, 0);
	vmbus_guest_close(&rig.channel);
	vmbus_guest_scattered(rig.guest, 18, pfns);
	words[2] = rig.channel.relid;
	cr_assert_eq(vmbus_guest_gpadl(rig.guest, rig.channel.relid, pfns, 18, &words[4]), 0);
	refused = rig_status(&rig).refused_count;
	post_only(rig.guest, words, 37);
	post_only(rig.guest, (const uint32_t[]){ VMBUS_MSG_GPADL_TEARDOWN, 0, words[2], words[4] },
		  4);
	vmbus_guest_run(rig.guest);
	cr_assert_eq(rig_status(&rig).refused_count, refused + 1);
	vmbus_guest_expect(rig.guest, VMBUS_MSG_OPENCHANNEL_RESULT, &answer);
	cr_assert_eq(word_of(&answer, 16), 0);
	POST(rig.guest, VMBUS_MSG_CLOSECHANNEL, 0, words[2]);
	POST(rig.guest, VMBUS_MSG_GPADL_TEARDOWN, 0, words[2], words[4]);
	vmbus_guest_expect(rig.guest, VMBUS_MSG_GPADL_TORNDOWN, &answer);
	rig_end(&rig);
}

/* Three in a row of a guest that does not wait for answers: the last one counts. */
Test(vmbus, modifications_of_older_guests_are_not_lost)
{
	const struct vmbus_guest_opts opts = { .vcpus = 4 };
	struct vmbus_guest_channel channel;
	struct echo echo = { .bus = NULL };
	struct hv_message answer;
	struct vmbus_guest *guest = vmbus_guest_new(&opts);

	rig_offer(guest, &echo, 0);
	cr_assert(vmbus_guest_contact(guest, VMBUS_VERSION_5_2));
	vmbus_guest_request_offers(guest);
	cr_assert_eq(vmbus_guest_open(guest, vmbus_guest_offer(guest, &rig_type, 0), 0, &channel),
		     0);
	for (uint32_t vp = 1; vp < 4; vp++)
		post_only(guest,
			  (const uint32_t[]){ VMBUS_MSG_MODIFYCHANNEL, 0, channel.relid, vp }, 4);
	vmbus_guest_run(guest);
	cr_assert_not(vmbus_guest_take(guest, &answer));
	channel.target_vp = 3;
	cr_assert_eq(vmbus_guest_send_inband(&channel, 1, "abcdefg", 8, true), 0);
	cr_assert(vmbus_guest_event(&channel));
	cr_assert_eq(echo.channel->vp, 3);
	vmbus_channel_free(echo.channel);
	vmbus_guest_free(guest);
}

/* An open after a close must not meet a modification that is still under way: what is counted for
 * both would not come back to nothing, and no save would ever end. */
Test(vmbus, a_modification_ends_with_its_channel)
{
	struct hv_message answer;
	struct rig rig;

	rig_begin(&rig, 0);
	for (uint32_t i = 0; i < 2; i++)
		post_only(rig.guest,
			  (const uint32_t[]){ VMBUS_MSG_MODIFYCHANNEL, 0, rig.channel.relid, 0 },
			  4);
	post_only(rig.guest, (const uint32_t[]){ VMBUS_MSG_CLOSECHANNEL, 0, rig.channel.relid }, 3);
	while (base_io_loop_step(vmbus_guest_loop(rig.guest), false))
		cr_assert(rig.echo.channel->state != CHANNEL_OFFERED || !rig.echo.channel->hopping);
	cr_assert_eq(rig.echo.channel->state, CHANNEL_OFFERED);
	for (uint32_t i = 0; i < 2; i++) {
		vmbus_guest_expect(rig.guest, VMBUS_MSG_MODIFYCHANNEL_RESPONSE, &answer);
		cr_assert_eq(word_of(&answer, 12), 0);
	}
	cr_assert_eq(vmbus_service_ops.quiesce(vmbus_guest_bus(rig.guest), NULL), 0);
	vmbus_service_ops.resume(vmbus_guest_bus(rig.guest));
	rig_end(&rig);
}

/* --- rings --- */

Test(vmbus, broken_rings_close_their_channel_only)
{
	static const struct {
		uint32_t offset; /* of the header page; or UINT32_MAX: the packet's length */
		uint32_t value;
	} cases[] = {
		{ VMBUS_RING_WRITE_INDEX, 0xffffffffu },
		{ VMBUS_RING_WRITE_INDEX, 12 },
		{ VMBUS_RING_WRITE_INDEX, 8 * 4096 },
		{ VMBUS_RING_WRITE_INDEX, 8 },
		{ VMBUS_RING_WRITE_INDEX, 16 },
		{ UINT32_MAX, 0xffff0002u },
		{ UINT32_MAX, 2 | 1u << 16 },
	};

	for (uint32_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		struct rig rig;

		rig_begin(&rig, 0);
		if (cases[i].offset != UINT32_MAX) {
			*vmbus_guest_ring_word(&rig.channel, false, cases[i].offset) =
				cases[i].value;
		} else {
			uint8_t *data = vmbus_guest_at(rig.guest, rig.channel.pfns[1] << 12, 4096);

			base_put_le16(data, 6);
			base_put_le16(data + 2, 2);
			base_put_le32(data + 2, cases[i].value);
			*vmbus_guest_ring_word(&rig.channel, false, VMBUS_RING_WRITE_INDEX) = 64;
		}
		vmbus_guest_signal(&rig.channel);
		cr_assert_eq(rig.echo.receive_code, -EBADMSG, "case %u", i);
		cr_assert_eq(rig.echo.closing_count, 1);
		cr_assert_not(vmbus_channel_is_open(rig.echo.channel));
		vmbus_guest_close(&rig.channel); /* the guest may still do so */
		cr_assert_eq(rig.echo.closing_count, 1);
		cr_assert_eq(vmbus_guest_open(rig.guest, rig.offer, 0, &rig.channel), 0);
		rig_end(&rig);
	}
}

Test(vmbus, a_device_that_waits_for_room_is_called_when_there_is)
{
	struct vmbus_guest_packet packet;
	uint8_t payload[1000] = { 0 };
	uint32_t sent = 0;
	uint32_t got = 0;
	struct rig rig;

	rig_begin(&rig, 2); /* one page each way */
	while (got < 200) {
		base_put_le32(payload, sent);
		if (sent < 200 && vmbus_guest_send_inband(&rig.channel, sent, payload,
							  sizeof(payload), true) == 0) {
			sent++;
			continue;
		}
		cr_assert(vmbus_guest_receive(&rig.channel, &packet), "%u of %u", got, sent);
		cr_assert_eq(packet.trans_id, got);
		cr_assert_eq(base_get_le32(packet.bytes), got);
		got++;
	}
	cr_assert_gt(rig.echo.blocked_count, 0);
	cr_assert_eq(*vmbus_guest_ring_word(&rig.channel, true, VMBUS_RING_PENDING), 0);
	rig_end(&rig);
}

Test(vmbus, a_guest_that_waits_for_room_is_interrupted)
{
	uint8_t payload[1000] = { 0 };
	struct rig rig;

	rig_begin(&rig, 2);
	rig.echo.deaf = true;
	while (vmbus_guest_send_inband(&rig.channel, 1, payload, sizeof(payload), false) == 0)
		continue;
	(void)vmbus_guest_event(&rig.channel);
	*vmbus_guest_ring_word(&rig.channel, false, VMBUS_RING_PENDING) = 1024;
	rig.echo.deaf = false;
	rig.echo.mute = true;
	vmbus_channel_again(rig.echo.channel);
	vmbus_guest_run(rig.guest);
	cr_assert(vmbus_guest_event(&rig.channel));
	cr_assert_eq(rig.echo.packet_count, 3);
	rig_end(&rig);
}

Test(vmbus, what_goes_into_the_ring_is_marked)
{
	struct vmbus_guest_packet packet;
	uint64_t *bitmap = NULL;
	struct base_error err;
	struct hv_slat *slat = NULL;
	uint64_t header = 0;
	uint64_t data = 0;
	struct rig rig;

	rig_begin(&rig, 0);
	slat = vmbus_guest_slat(rig.guest);
	bitmap = calloc(hv_slat_word_count(slat), sizeof(*bitmap));
	cr_assert_eq(hv_slat_start(slat, &err), 0);
	cr_assert_eq(hv_slat_harvest(slat, bitmap, NULL, &err), 0);
	cr_assert_eq(vmbus_guest_send_inband(&rig.channel, 7, "abcdefg", 8, true), 0);
	cr_assert(vmbus_guest_receive(&rig.channel, &packet));
	cr_assert_eq(hv_slat_harvest(slat, bitmap, NULL, &err), 0);
	header = rig.channel.pfns[rig.channel.out_pages];
	data = rig.channel.pfns[rig.channel.out_pages + 1];
	cr_assert((bitmap[header / 64] >> header % 64 & 1) != 0);
	cr_assert((bitmap[data / 64] >> data % 64 & 1) != 0);
	header = rig.channel.pfns[0];
	cr_assert((bitmap[header / 64] >> header % 64 & 1) != 0);
	free(bitmap);
	rig_end(&rig);
}

Test(vmbus, dump_and_status_tell_what_is)
{
	char *text = NULL;
	size_t size = 0;
	FILE *out = open_memstream(&text, &size);
	struct rig rig;

	rig_begin(&rig, 0);
	vmbus_dump(vmbus_guest_bus(rig.guest), out);
	(void)fclose(out);
	cr_assert_not_null(strstr(text, "connected=1"));
	cr_assert_not_null(strstr(text, "echo"));
	cr_assert_not_null(strstr(text, "to-guest"));
	cr_assert_eq(rig_status(&rig).open_count, 1);
	cr_assert_eq(rig_status(&rig).offered_count, 1);
	free(text);
	rig_end(&rig);
}
