/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the network service costs: UDP echo by the test guest's network client, through its rings,
 * VMBus and the network service to a datagram socket that stands for the TAP device, against the
 * same frames echoed over the same kind of socket by the same code without any of that.  One
 * thread, so the figures are processor time; exits and interrupts are counted beside them.
 *
 *   network_bench [--quick]
 */
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>

#include "hypervisor/netvsp/netvsp.h"
#include "tests/guest/guest_inet.h"
#include "tests/support/bench_table.h"
#include "tests/support/guest_host.h"

#define VNET_BYTES  12u
#define FRAME_BYTES 2048u
#define RUNS_MAX    15u
#define WINDOW      32u

struct bench {
	struct guest_host *host;
	struct netvsp *card;
	int tap[2], bare[2];
	struct guest_inet peer, echo;
	uint8_t frame[VNET_BYTES + FRAME_BYTES], taken[VNET_BYTES + FRAME_BYTES];
};

static bool take(int fd, uint8_t *to)
{
	return recv(fd, to, VNET_BYTES + FRAME_BYTES, MSG_DONTWAIT) > (ssize_t)VNET_BYTES;
}

static void give(int fd, const uint8_t *from, uint32_t bytes)
{
	if (send(fd, from, VNET_BYTES + bytes, 0) < 0)
		base_bug("send: errno %d", errno);
}

/* A datagram for the echo port with its checksum left out, which UDP allows. */
static uint32_t echo_request(struct bench *bench, uint32_t payload_bytes)
{
	uint8_t *udp = bench->frame + VNET_BYTES + 34;
	uint32_t bytes =
		guest_inet_datagram(&bench->peer, payload_bytes, 1, bench->frame + VNET_BYTES);

	udp[3] = GUEST_PORT_ECHO;
	udp[6] = 0;
	udp[7] = 0;
	return bytes;
}

/* The far end of the bare socket: what the guest does, and nothing else. */
static void bare_turn(struct bench *bench)
{
	static uint8_t in[VNET_BYTES + FRAME_BYTES], out[VNET_BYTES + FRAME_BYTES];
	ssize_t got = recv(bench->bare[1], in, sizeof(in), MSG_DONTWAIT);
	uint32_t bytes;

	if (got <= (ssize_t)VNET_BYTES)
		return;
	bytes = guest_inet_answer(&bench->echo, in + VNET_BYTES, (uint32_t)got - VNET_BYTES, false,
				  out + VNET_BYTES);
	if (bytes != 0)
		give(bench->bare[1], out, bytes);
}

/* us for each echo with @window of them under way. */
static double run(struct bench *bench, bool bare, uint32_t bytes, uint32_t window, uint64_t ms)
{
	uint64_t begin_ns = bench_cpu_ns(), end_ns = bench_now_ns() + ms * BASE_NS_PER_MS, done = 0;
	int fd = bare ? bench->bare[0] : bench->tap[0];

	for (uint32_t i = 0; i < window; i++)
		give(fd, bench->frame, bytes);
	for (uint32_t under_way = window; under_way != 0;) {
		if (bare)
			bare_turn(bench);
		else
			(void)guest_host_turn(bench->host);
		while (take(fd, bench->taken)) {
			done++;
			if (bench_now_ns() < end_ns)
				give(fd, bench->frame, bytes);
			else
				under_way--;
		}
	}
	return (double)(bench_cpu_ns() - begin_ns) / 1000 / (double)done;
}

static void start(struct bench *bench)
{
	struct netvsp_options options = { .loop_count = 1,
					  .queue_count = 1,
					  .vcpu_count = 1,
					  .instance = { .bytes = { 1 } },
					  .mac = { 0, 0x15, 0x5d, 1, 2, 3 },
					  .link_up = true,
					  .vm_name = "bench" };
	struct base_error err = { .code = 0 };
	int type = SOCK_DGRAM | SOCK_NONBLOCK | SOCK_CLOEXEC;

	bench->peer = (struct guest_inet){ .mac = { 2, 0, 0, 0, 0, 9 },
					   .address = 0x0a000009,
					   .peer = 0x0a000002 };
	memcpy(bench->peer.peer_mac, options.mac, sizeof(options.mac));
	bench->echo = (struct guest_inet){ .address = 0x0a000002 };
	if (socketpair(AF_UNIX, type, 0, bench->tap) < 0 ||
	    socketpair(AF_UNIX, type, 0, bench->bare) < 0)
		base_bug("socketpair: errno %d", errno);
	bench->host = guest_host_new(1, "net=10.0.0.2/24");
	options.bus = guest_host_bus(bench->host);
	options.slat = guest_host_slat(bench->host);
	options.loops[0] = guest_host_loop(bench->host);
	options.tap_fds[0] = bench->tap[1];
	bench_need(netvsp_new(&options, &bench->card, &err), &err);
	guest_host_boot(bench->host);
	guest_host_until(bench->host, TESTPAGE_NET_STATE, TESTPAGE_IO_RUNNING);
	while (!take(bench->tap[0], bench->taken)) /* the announcement */
		(void)guest_host_turn(bench->host);
}

static void compare(struct bench *bench, uint32_t payload, uint32_t window, bool quick)
{
	struct bench_series bare = { .count = 0 }, service = { .count = 0 };
	struct bench_series signals = { .count = 0 }, interrupts = { .count = 0 };
	uint32_t bytes = echo_request(bench, payload);
	uint64_t ms = quick ? 100 : 300;
	char name[64];

	for (uint32_t i = 0; i < (quick ? 5 : RUNS_MAX); i++) {
		uint64_t signals_before = guest_host_get(bench->host, TESTPAGE_HV_SIGNALS);
		uint64_t irqs_before = guest_host_get(bench->host, TESTPAGE_HV_IRQS(0));
		uint64_t echoes_before = guest_host_get(bench->host, TESTPAGE_NET_UDP);
		double echoes;

		bench_add(&bare, run(bench, true, bytes, window, ms));
		bench_add(&service, run(bench, false, bytes, window, ms));
		echoes = (double)(guest_host_get(bench->host, TESTPAGE_NET_UDP) - echoes_before);
		bench_add(&signals, (double)(guest_host_get(bench->host, TESTPAGE_HV_SIGNALS) -
					     signals_before) /
					    echoes);
		bench_add(&interrupts,
			  (double)(guest_host_get(bench->host, TESTPAGE_HV_IRQS(0)) - irqs_before) /
				  echoes);
	}
	(void)snprintf(name, sizeof(name), "UDP echo of %u bytes, %u under way", payload, window);
	bench_row(name, &service, "us", "same socket and code alone %.3f us", bench_median(&bare));
	bench_row("  signals (exits) each", &signals, "exits",
		  "1: what the guest sends goes in one batch");
	bench_row("  interrupts each", &interrupts, "irqs", "2: the frame, and a completion");
}

int main(int argc, char **argv)
{
	bool quick = bench_has_word(argc, argv, "--quick");
	static struct bench bench;

	start(&bench);
	bench_title("network service, one thread for guest and host, a socket for the TAP device");
	compare(&bench, 64, 1, quick);
	compare(&bench, 64, WINDOW / 4, quick);
	compare(&bench, 1400, 1, quick);
	compare(&bench, 1400, WINDOW / 4, quick);
	return 0;
}
