/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The bus as a guest sees it: the life of a connection, of channels and page lists.
 */
#include "tests/unit/vmbus/vmbus_rig.h"

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
