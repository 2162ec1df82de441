/* SPDX-License-Identifier: Apache-2.0 */
/* The test guest's ARP, ICMP and UDP: one guest talks to another. */
#include <criterion/criterion.h>
#include <string.h>

/* Part of the guest image, not of a library.  NOLINTNEXTLINE(bugprone-suspicious-include) */
#include "tests/guest/guest_inet.c"

static struct guest_inet here, there;
static uint8_t frame[GUEST_FRAME_BYTES_MAX + 64], reply[GUEST_FRAME_BYTES_MAX + 64];

static void setup(void)
{
	here = (struct guest_inet){ .mac = { 2, 0, 0, 0, 0, 1 },
				    .address = 0x0a000001,
				    .peer = 0x0a000002 };
	there = (struct guest_inet){ .mac = { 2, 0, 0, 0, 0, 2 }, .address = 0x0a000002 };
}

static void meet(void)
{
	uint32_t bytes = guest_inet_arp(&here, here.peer, frame);

	bytes = guest_inet_answer(&there, frame, bytes, false, reply);
	cr_assert_eq(bytes, FRAME_MIN);
	cr_assert_eq(guest_inet_answer(&here, reply, bytes, false, frame), 0);
}

/* A datagram for the echo port, its checksum made good. */
static uint32_t echo_request(uint32_t payload_bytes)
{
	uint32_t bytes = guest_inet_datagram(&here, payload_bytes, 0x1122334455667788, frame);

	guest_put_be16(frame + ETHER + IP_BYTES + 2, GUEST_PORT_ECHO);
	put_udp_sum(frame + ETHER, UDP_BYTES + payload_bytes);
	return bytes;
}

Test(guest_inet, arp_is_asked_and_answered, .init = setup)
{
	meet();
	cr_assert(here.peer_known);
	cr_assert_arr_eq(here.peer_mac, there.mac, 6);
	cr_assert_eq(there.arp, 1);
	cr_assert_eq(guest_inet_answer(&there, frame, guest_inet_arp(&here, 0x0a000003, frame),
				       false, reply),
		     0, "for somebody else");
}

Test(guest_inet, udp_echo_of_every_length, .init = setup)
{
	meet();
	for (uint32_t length = 0; length <= GUEST_DATAGRAM_MAX; length++) {
		uint32_t bytes = echo_request(length);
		uint32_t answer = guest_inet_answer(&there, frame, bytes, false, reply);

		cr_assert_eq(answer, bytes);
		cr_assert_arr_eq(reply + ETHER + IP_BYTES + UDP_BYTES,
				 frame + ETHER + IP_BYTES + UDP_BYTES, length);
		cr_assert_eq(guest_get_be16(reply + ETHER + IP_BYTES), GUEST_PORT_ECHO);
		/* to a port that counts: so its sums are right too */
		guest_put_be16(reply + ETHER + IP_BYTES + 2, GUEST_PORT_DISCARD);
		cr_assert_eq(guest_inet_answer(&here, reply, answer, false, frame), 0);
	}
	cr_assert_eq(there.udp, GUEST_DATAGRAM_MAX + 1);
	cr_assert_eq(there.bad_sum, 0);
	cr_assert_eq(here.sunk, GUEST_DATAGRAM_MAX + 1);
	cr_assert_eq(here.bad_sum, 0);
}

Test(guest_inet, a_wrong_checksum_is_counted_unless_vouched_for, .init = setup)
{
	uint32_t bytes;

	meet();
	bytes = echo_request(100);
	frame[ETHER + IP_BYTES + UDP_BYTES + 50] ^= 1;
	cr_assert_eq(guest_inet_answer(&there, frame, bytes, false, reply), 0);
	cr_assert_eq(there.bad_sum, 1);
	cr_assert_eq(guest_inet_answer(&there, frame, bytes, true, reply), bytes);
	cr_assert_eq(there.bad_sum, 1);
	frame[ETHER + 8] ^= 1; /* time to live: the sum of IP itself */
	cr_assert_eq(guest_inet_answer(&there, frame, bytes, true, reply), 0);
	cr_assert_eq(there.bad_sum, 2);
}

Test(guest_inet, icmp_echo, .init = setup)
{
	uint32_t bytes = 64;
	uint8_t *icmp = frame + ETHER + IP_BYTES;

	meet();
	put_ether(&here, frame, here.peer_mac, TYPE_IP);
	guest_put_be32(frame + ETHER + 16, there.address);
	for (uint32_t i = 0; i < bytes; i++)
		icmp[i] = (uint8_t)i;
	guest_put32(icmp, ICMP_ECHO);
	guest_put_be16(icmp + 2, (uint16_t)~sum_of(icmp, bytes, 0));
	put_ip(&here, frame + ETHER, ICMP, IP_BYTES + bytes);
	cr_assert_eq(guest_inet_answer(&there, frame, ETHER + IP_BYTES + bytes, false, reply),
		     ETHER + IP_BYTES + bytes);
	cr_assert_eq(reply[ETHER + IP_BYTES], 0);
	cr_assert_eq(sum_of(reply + ETHER + IP_BYTES, bytes, 0), 0xffff);
	cr_assert_eq(there.icmp, 1);
}

Test(guest_inet, frames_that_are_cut_or_lie_get_no_answer, .init = setup)
{
	uint32_t bytes;

	meet();
	bytes = echo_request(200);
	for (uint32_t cut = 0; cut < bytes; cut++)
		cr_assert_eq(guest_inet_answer(&there, frame, cut, false, reply), 0);
	guest_put_be16(frame + ETHER + IP_BYTES + 4, 3); /* shorter than its own header */
	cr_assert_eq(guest_inet_answer(&there, frame, bytes, true, reply), 0);
}
