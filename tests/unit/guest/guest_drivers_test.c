/* SPDX-License-Identifier: Apache-2.0 */
/* The test guest's drivers on the real SynIC, VMBus and devices, in one thread and without KVM. */
#include <criterion/criterion.h>
#include <errno.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "hypervisor/netvsp/netvsp.h"
#include "tests/guest/guest_inet.h"
#include "tests/support/guest_host.h"

#define VNET_BYTES  12u
#define FRAME_BYTES 2048u

static struct guest_host *host;
static struct netvsp *card;
static int tap[2];
static struct guest_inet peer;
static uint8_t frame[VNET_BYTES + FRAME_BYTES], reply[FRAME_BYTES];

static void add_card(uint32_t vcpus)
{
	struct netvsp_options options = {
		.bus = guest_host_bus(host),
		.slat = guest_host_slat(host),
		.loops = { guest_host_loop(host) },
		.loop_count = 1,
		.queue_count = 1,
		.vcpu_count = vcpus,
		.instance = { .bytes = { 1, 2, 3 } },
		.mac = { 0x00, 0x15, 0x5d, 1, 2, 3 },
		.link_up = true,
		.vm_name = "test",
	};
	struct base_error err = { .code = 0 };

	cr_assert_eq(socketpair(AF_UNIX, SOCK_DGRAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, tap), 0);
	options.tap_fds[0] = tap[1];
	cr_assert_geq(netvsp_new(&options, &card, &err), 0, "%s", err.text);
	peer = (struct guest_inet){ .mac = { 2, 0, 0, 0, 0, 9 },
				    .address = 0x0a000009,
				    .peer = 0x0a000002 };
}

static void start(uint32_t vcpus, const char *cmdline)
{
	host = guest_host_new(vcpus, cmdline);
	add_card(vcpus);
	guest_host_boot(host);
}

static void stop(void)
{
	cr_assert_eq(guest_host_bad(host), 0);
	netvsp_free(card);
	guest_host_free(host);
	(void)close(tap[0]);
	(void)close(tap[1]);
}

static void send_frame(uint32_t bytes)
{
	memset(frame, 0, VNET_BYTES);
	cr_assert_eq(send(tap[0], frame, VNET_BYTES + bytes, 0), (ssize_t)(VNET_BYTES + bytes));
}

/* The next frame that the guest sends, to @frame. */
static uint32_t next_frame(void)
{
	for (uint32_t i = 0; i < 1000000; i++) {
		ssize_t got = recv(tap[0], frame, sizeof(frame), MSG_DONTWAIT);

		if (got > (ssize_t)VNET_BYTES)
			return (uint32_t)got - VNET_BYTES;
		(void)guest_host_turn(host);
	}
	cr_assert_fail("the guest sends nothing");
	return 0;
}

Test(guest_drivers, the_bus_is_found_and_its_offers_counted)
{
	start(2, "hv=on");
	guest_host_until(host, TESTPAGE_HV_VERSION, 0x50003);
	cr_assert_eq(guest_host_get(host, TESTPAGE_HV_OFFERS), 1);
	stop();
}

Test(guest_drivers, the_network_answers)
{
	uint32_t bytes;

	start(1, "net=10.0.0.2/24");
	guest_host_until(host, TESTPAGE_NET_STATE, TESTPAGE_IO_RUNNING);
	bytes = next_frame(); /* the announcement */
	cr_assert_eq(bytes, 60);
	cr_assert_arr_eq(frame + VNET_BYTES + 6, ((uint8_t[]){ 0x00, 0x15, 0x5d, 1, 2, 3 }), 6);
	bytes = guest_inet_arp(&peer, peer.peer, frame + VNET_BYTES);
	send_frame(bytes);
	bytes = next_frame();
	cr_assert_eq(guest_inet_answer(&peer, frame + VNET_BYTES, bytes, false, reply), 0);
	cr_assert(peer.peer_known);
	for (uint64_t i = 0; i < 2000; i++) {
		bytes = guest_inet_datagram(&peer, (uint32_t)(i % GUEST_DATAGRAM_MAX), i,
					    frame + VNET_BYTES);
		send_frame(bytes);
		guest_host_until(host, TESTPAGE_NET_SUNK, i + 1);
	}
	cr_assert_eq(guest_host_get(host, TESTPAGE_NET_BAD_SUM), 0);
	stop();
}

/* As fast as the guest sends, with nobody in between: not one is lost that the socket took. */
Test(guest_drivers, the_network_sends)
{
	uint64_t sent, seen = 0;
	uint32_t bytes;

	start(2, "net=10.0.0.2/24 net_peer=10.0.0.9");
	guest_host_until(host, TESTPAGE_NET_STATE, TESTPAGE_IO_RUNNING);
	(void)next_frame();
	bytes = guest_inet_arp(&peer, peer.peer,
			       frame + VNET_BYTES); /* the guest learns us by it */
	send_frame(bytes);
	(void)next_frame();
	sent = guest_host_command(host, TESTPAGE_NET_SOURCE, 100, 50, 0);
	cr_assert_gt(sent, 0);
	for (uint32_t idle = 0; idle < 1000; idle++) {
		ssize_t got = recv(tap[0], frame, sizeof(frame), MSG_DONTWAIT);

		if (got > 0) {
			cr_assert_eq(guest_inet_answer(&peer, frame + VNET_BYTES,
						       (uint32_t)got - VNET_BYTES, false, reply),
				     0);
			seen++;
			idle = 0;
		} else {
			(void)guest_host_turn(host);
		}
	}
	cr_assert_eq(peer.sunk, seen);
	cr_assert_gt(seen, 0);
	cr_assert_eq(peer.bad_sum, 0);
	stop();
}

/* What the guest leaves to the host: one packet, to be cut, with all that Linux needs for it. */
Test(guest_drivers, the_network_sends_large_packets)
{
	static uint8_t large[VNET_BYTES + 65549];
	const uint32_t payload = 40000, head = 54, segment = 1448;
	uint64_t sent;
	uint32_t seen = 0, bytes;

	start(1, "net=10.0.0.2/24 net_peer=10.0.0.9");
	guest_host_until(host, TESTPAGE_NET_STATE, TESTPAGE_IO_RUNNING);
	(void)next_frame();
	bytes = guest_inet_arp(&peer, peer.peer, frame + VNET_BYTES);
	send_frame(bytes);
	(void)next_frame();
	sent = guest_host_command(host, TESTPAGE_NET_SOURCE, payload, 50, segment);
	cr_assert_gt(sent, 0);
	for (;;) {
		ssize_t got = recv(tap[0], large, sizeof(large), MSG_DONTWAIT);
		const uint8_t *ip = large + VNET_BYTES + 14;

		if (got < 0)
			break;
		cr_assert_eq(got, VNET_BYTES + head + payload);
		cr_assert_arr_eq(large,
				 ((uint8_t[]){ 1, 1, head, 0, segment & 0xff, segment >> 8,
					       GUEST_TCP_AT, 0, 16, 0 }),
				 10);
		cr_assert_eq(ip[2] << 8 | ip[3], head - 14 + payload);
		cr_assert_eq(ip[9], 6);
		cr_assert_arr_eq(large + VNET_BYTES, peer.mac, 6);
		seen++;
	}
	cr_assert_gt(seen, 0);
	stop();
}
