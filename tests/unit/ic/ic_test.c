/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/unit/ic/ic_rig.h"

TestSuite(ic, .init = rig_setup, .fini = rig_teardown);

static enum ic_heartbeat heartbeat(void)
{
	struct ic_status status;

	ic_status(rig_set, &status);
	return status.heartbeat;
}

static void beat(void)
{
	rig_pass(IC_HEARTBEAT_PERIOD_MS);
	cr_assert(rig_request(IC_HEARTBEAT));
	base_put_le64(rig_body(), base_get_le64(rig_body()) + 1);
	rig_answer(IC_HEARTBEAT, 0);
}

Test(ic, heartbeat_none_ok_lost_ok)
{
	cr_assert_eq(heartbeat(), IC_HEARTBEAT_NONE);
	rig_up(IC_HEARTBEAT, 3, 0);
	cr_assert_eq(heartbeat(), IC_HEARTBEAT_NONE);
	for (uint32_t i = 0; i < 20; i++) {
		beat();
		cr_assert_eq(heartbeat(), IC_HEARTBEAT_OK);
	}
	rig_pass(IC_HEARTBEAT_PERIOD_MS);
	cr_assert(rig_request(IC_HEARTBEAT));
	rig_pass(IC_HEARTBEAT_LOST_MS - IC_HEARTBEAT_PERIOD_MS);
	cr_assert_eq(heartbeat(), IC_HEARTBEAT_OK);
	cr_assert_not(rig_request(IC_HEARTBEAT)); /* one at a time */
	rig_pass(IC_HEARTBEAT_PERIOD_MS);
	cr_assert_eq(heartbeat(), IC_HEARTBEAT_LOST);
	rig_answer(IC_HEARTBEAT, 0); /* the number unchanged will do */
	cr_assert_eq(heartbeat(), IC_HEARTBEAT_OK);
	vmbus_guest_close(&rig_channels[IC_HEARTBEAT]);
	cr_assert_eq(heartbeat(), IC_HEARTBEAT_NONE);
	cr_assert_eq(rig_heartbeats, 4);
}

Test(ic, a_paused_guest_is_not_lost)
{
	rig_up(IC_HEARTBEAT, 3, 0);
	beat();
	rig_pass(IC_HEARTBEAT_PERIOD_MS);
	ic_set_running(rig_set, false);
	vmbus_guest_run(rig_guest);
	rig_pass(10 * IC_HEARTBEAT_LOST_MS);
	cr_assert_eq(heartbeat(), IC_HEARTBEAT_OK);
	ic_set_running(rig_set, true);
	vmbus_guest_run(rig_guest);
	cr_assert_eq(ic_service_ops.quiesce(rig_set, NULL), 0);
	rig_pass(10 * IC_HEARTBEAT_LOST_MS);
	cr_assert_eq(heartbeat(), IC_HEARTBEAT_OK);
	ic_service_ops.resume(rig_set);
	rig_pass(2 * IC_HEARTBEAT_LOST_MS);
	cr_assert_eq(heartbeat(), IC_HEARTBEAT_LOST);
}

Test(ic, a_wrong_heartbeat_is_none)
{
	rig_up(IC_HEARTBEAT, 1, 0);
	rig_pass(IC_HEARTBEAT_PERIOD_MS);
	cr_assert(rig_request(IC_HEARTBEAT));
	base_put_le64(rig_body(), 77);
	rig_answer(IC_HEARTBEAT, 0);
	cr_assert_eq(heartbeat(), IC_HEARTBEAT_NONE);
	rig_pass(IC_HEARTBEAT_PERIOD_MS);
	cr_assert(rig_request(IC_HEARTBEAT));
	rig_answer(IC_HEARTBEAT, IC_STATUS_FAILED);
	cr_assert_eq(heartbeat(), IC_HEARTBEAT_NONE);
}

static void is_time(uint8_t flags)
{
	cr_assert(rig_request(IC_TIME));
	cr_assert_eq(base_get_le64(rig_body()), rig_time.real_ns / 100 + 116444736000000000ULL);
	cr_assert_eq(base_get_le64(rig_body() + 8), rig_reference);
	cr_assert_eq(rig_body()[16], flags);
	rig_answer(IC_TIME, 0);
}

Test(ic, time_sync_at_once_then_samples)
{
	rig_up(IC_TIME, 4, 0);
	is_time(IC_TIME_SYNC);
	rig_pass(IC_SAMPLE_PERIOD_MS);
	is_time(IC_TIME_SAMPLE);
	ic_sync_time(rig_set);
	vmbus_guest_run(rig_guest);
	is_time(IC_TIME_SYNC);
	ic_set_running(rig_set, false);
	vmbus_guest_run(rig_guest);
	ic_sync_time(rig_set);
	rig_pass(2 * IC_SAMPLE_PERIOD_MS);
	cr_assert_not(rig_request(IC_TIME));
	ic_set_running(rig_set, true);
	vmbus_guest_run(rig_guest);
	rig_pass(IC_RESUME_DELAY_MS);
	is_time(IC_TIME_SYNC);
}

Test(ic, time_before_version_4)
{
	rig_up(IC_TIME, 3, 0);
	cr_assert(rig_request(IC_TIME));
	cr_assert_eq(base_get_le16(rig_packet.bytes + 18), 32);
	cr_assert_eq(rig_body()[24], IC_TIME_SYNC);
	cr_assert_eq(base_get_le64(rig_body() + 8), 0);
}

Test(ic, a_sync_waits_for_the_sample_under_way)
{
	rig_up(IC_TIME, 4, 0);
	is_time(IC_TIME_SYNC);
	rig_pass(IC_SAMPLE_PERIOD_MS);
	ic_sync_time(rig_set);
	vmbus_guest_run(rig_guest);
	is_time(IC_TIME_SAMPLE);
	is_time(IC_TIME_SYNC);
}

static void item(const char *key, const char *value)
{
	int bytes = 0;

	cr_assert(rig_request(IC_KVP));
	cr_assert_eq(rig_body()[0], 3);
	cr_assert_eq(rig_body()[1], 2);
	base_put_le32(rig_body() + 8, 1);
	bytes = disk_utf16_from_utf8(key, rig_body() + 20, 510);
	base_put_le32(rig_body() + 12, (uint32_t)bytes + 2);
	bytes = disk_utf16_from_utf8(value, rig_body() + 532, 2046);
	base_put_le32(rig_body() + 16, (uint32_t)bytes + 2);
	rig_answer(IC_KVP, 0);
}

Test(ic, kvp_walk)
{
	struct ic_guest_info info;

	rig_up(IC_KVP, 4, 0);
	item("FullyQualifiedDomainName", "guest.example");
	item("Something", "else");
	item("NetworkAddressIPv4", "192.0.2.1;192.0.2.2");
	ic_guest_info(rig_set, &info);
	cr_assert_str_eq(info.fqdn, ""); /* whole walks only */
	cr_assert(rig_request(IC_KVP));
	cr_assert_eq(base_get_le32(rig_body() + 4), 3);
	rig_answer(IC_KVP, IC_STATUS_NO_MORE);
	ic_guest_info(rig_set, &info);
	cr_assert(info.kvp);
	cr_assert_str_eq(info.fqdn, "guest.example");
	cr_assert_str_eq(info.ipv4, "192.0.2.1;192.0.2.2");
	cr_assert_eq(rig_kvp_changes, 1);
	cr_assert_not(rig_request(IC_KVP));
	rig_pass(IC_KVP_PERIOD_MS);
	cr_assert(rig_request(IC_KVP));
	cr_assert_eq(base_get_le32(rig_body() + 4), 0);
	rig_answer(IC_KVP, IC_STATUS_FAILED); /* the daemon is gone */
	ic_guest_info(rig_set, &info);
	cr_assert_not(info.kvp);
	cr_assert_str_eq(info.fqdn, "guest.example");
	cr_assert_eq(rig_kvp_changes, 2);
}

Test(ic, kvp_endless_and_late)
{
	rig_open(IC_KVP);
	cr_assert(rig_request(IC_KVP));
	rig_pass(60000); /* the daemon is not there yet */
	rig_choose(IC_KVP, 3, 0);
	for (uint32_t i = 0; i < IC_KVP_ITEMS_MAX; i++)
		item("x", i % 2 == 0 ? "y" : "z");
	cr_assert_not(rig_request(IC_KVP));
	cr_assert(rig_set->info.kvp);
	rig_pass(IC_KVP_PERIOD_MS);
	cr_assert(rig_request(IC_KVP));
}

Test(ic, kvp_after_the_channel_was_closed_in_a_walk)
{
	struct ic_guest_info info;

	rig_up(IC_KVP, 4, 0);
	item("OSName", "before");
	vmbus_guest_close(&rig_channels[IC_KVP]);
	rig_up(IC_KVP, 4, 0);
	cr_assert(rig_request(IC_KVP));
	cr_assert_eq(base_get_le32(rig_body() + 4), 0);
	rig_answer(IC_KVP, IC_STATUS_NO_MORE);
	ic_guest_info(rig_set, &info);
	cr_assert(info.kvp);
	cr_assert_str_eq(info.os_name, "");
}

Test(ic, offers_are_pipes_and_a_hostile_guest_keeps_its_bus)
{
	uint8_t rubbish[64];

	rig_up(IC_SHUTDOWN, 3, 2);
	memset(rubbish, 0xa5, sizeof(rubbish));
	for (uint32_t i = 0; i < 200; i++) {
		cr_assert_eq(vmbus_guest_send_inband(&rig_channels[IC_SHUTDOWN], i, rubbish,
						     8 * (i % 8), i % 2 == 0),
			     0);
		vmbus_guest_run(rig_guest);
	}
	cr_assert_eq(rig_set->channels[IC_SHUTDOWN].port.state, IC_PORT_READY);
	vmbus_guest_close(&rig_channels[IC_SHUTDOWN]);
	cr_assert_eq(rig_set->channels[IC_SHUTDOWN].port.state, IC_PORT_CLOSED);
	rig_up(IC_SHUTDOWN, 3, 1);
}

Test(ic, reset_forgets)
{
	struct ic_guest_info info;
	struct ic_status status;

	rig_up(IC_HEARTBEAT, 3, 0);
	beat();
	rig_set->info.kvp = true;
	cr_assert_eq(ic_service_ops.quiesce(rig_set, NULL), 0);
	cr_assert_eq(ic_service_ops.reset(rig_set, NULL), 0);
	ic_service_ops.resume(rig_set);
	ic_status(rig_set, &status);
	ic_guest_info(rig_set, &info);
	cr_assert_eq(status.heartbeat, IC_HEARTBEAT_NONE);
	cr_assert_not(info.kvp);
}
