/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What goes through the network service to and from a TAP device in a second: the test guest's
 * network client through its rings, VMBus and the network service, against the same frames written
 * to and read from another TAP device by a loop that does nothing else, in turns.  One thread for
 * guest and host, so the figures are processor time.
 *
 *   throughput_bench [--quick]
 *
 * What the guest sends goes up into the host's network stack and is dropped there as somebody
 * else's; what it receives is put into the device beforehand, outside of the time measured.
 * Needs root for a network namespace with TAP devices.
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/if_packet.h>
#include <linux/if_tun.h>
#include <net/if.h>
#include <sched.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <unistd.h>

#include "hypervisor/netvsp/netvsp.h"
#include "tests/guest/guest_inet.h"
#include "tests/support/bench_table.h"
#include "tests/support/guest_host.h"

#define VNET_BYTES    12u
#define FRAME_BYTES   (GUEST_LARGE_PAYLOAD_MAX + 54u)
#define SEGMENT_BYTES 1448u
#define RUNS_MAX      15u
#define PLACES        16u  /* as many as the guest sends from in turn */
#define BATCH         256u /* frames that wait in a TAP device, which holds 1000 */
#define SKIPPED       77

/* A TAP device and a socket that puts frames into it, as the bridge does. */
struct tap {
	int fd, socket;
};

struct bench {
	struct guest_host *host;
	struct netvsp *card;
	struct tap card_tap, bare_tap;
	struct guest_inet peer, guest;
	uint8_t frame[VNET_BYTES + FRAME_BYTES], taken[VNET_BYTES + FRAME_BYTES];
};

static int open_tap(const char *name, struct tap *ret_tap)
{
	struct sockaddr_ll address = { .sll_family = AF_PACKET };
	struct ifreq device = { .ifr_flags = IFF_TAP | IFF_NO_PI | IFF_VNET_HDR };
	struct tap tap = { .fd = open("/dev/net/tun", O_RDWR | O_CLOEXEC) };
	struct base_error err = { .code = 0 };
	const int one = 1;

	(void)snprintf(device.ifr_name, sizeof(device.ifr_name), "%s", name);
	if (tap.fd < 0 || ioctl(tap.fd, TUNSETIFF, &device) < 0)
		return -errno;
	bench_need(netvsp_tap_prepare(tap.fd, &err), &err);
	tap.socket = socket(AF_PACKET, SOCK_RAW | SOCK_CLOEXEC, 0);
	if (tap.socket < 0)
		return -errno;
	device.ifr_flags = IFF_UP;
	if (ioctl(tap.socket, SIOCSIFFLAGS, &device) < 0 ||
	    setsockopt(tap.socket, SOL_PACKET, PACKET_QDISC_BYPASS, &one, sizeof(one)) < 0)
		return -errno;
	address.sll_ifindex = (int)if_nametoindex(name);
	if (bind(tap.socket, (const struct sockaddr *)&address, sizeof(address)) < 0)
		return -errno;
	*ret_tap = tap;
	return 0;
}

static void fill(const struct bench *bench, const struct tap *tap, uint32_t bytes, uint32_t count)
{
	for (uint32_t i = 0; i < count; i++)
		if (send(tap->socket, bench->frame + VNET_BYTES, bytes, 0) < 0)
			base_bug("send: errno %d", errno);
}

/* Empty the device; how many frames of @bytes there were (the kernel has frames of its own). */
static uint32_t drain(struct bench *bench, const struct tap *tap, uint32_t bytes)
{
	uint32_t count = 0;
	ssize_t got;

	while ((got = read(tap->fd, bench->taken, sizeof(bench->taken))) > 0)
		count += (uint32_t)got == VNET_BYTES + bytes;
	return count;
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

	bench->peer = (struct guest_inet){ .mac = { 2, 0, 0, 0, 0, 9 },
					   .address = 0x0a000009,
					   .peer = 0x0a000002 };
	memcpy(bench->peer.peer_mac, options.mac, sizeof(options.mac));
	bench->guest =
		(struct guest_inet){ .address = bench->peer.peer, .peer = bench->peer.address };
	memcpy(bench->guest.mac, options.mac, sizeof(options.mac));
	memcpy(bench->guest.peer_mac, bench->peer.mac, sizeof(bench->peer.mac));
	bench->host = guest_host_new(1, "net=10.0.0.2/24 net_peer=10.0.0.9");
	options.bus = guest_host_bus(bench->host);
	options.slat = guest_host_slat(bench->host);
	options.loops[0] = guest_host_loop(bench->host);
	options.tap_fds[0] = bench->card_tap.fd;
	bench_need(netvsp_new(&options, &bench->card, &err), &err);
	guest_host_boot(bench->host);
	guest_host_until(bench->host, TESTPAGE_NET_STATE, TESTPAGE_IO_RUNNING);
	/* the guest learns its peer by a question of it */
	fill(bench, &bench->card_tap,
	     guest_inet_arp(&bench->peer, bench->peer.peer, bench->frame + VNET_BYTES), 1);
	guest_host_until(bench->host, TESTPAGE_NET_ARP, 1);
}

/* --- the guest sends --- */

static uint32_t make_frame(struct bench *bench, uint32_t payload, uint32_t segment)
{
	uint8_t *frame = bench->frame + VNET_BYTES;

	memset(bench->frame, 0, VNET_BYTES);
	if (segment == 0)
		return guest_inet_datagram(&bench->guest, payload, 1, frame);
	memcpy(bench->frame,
	       (uint8_t[]){ 1, 1, 54, 0, segment & 0xff, (uint8_t)(segment >> 8), GUEST_TCP_AT, 0,
			    16, 0 },
	       10);
	return guest_inet_large(&bench->guest, payload, 1, frame) + payload;
}

static double bare_sends(struct bench *bench, uint32_t payload, uint32_t segment, uint64_t ms)
{
	static uint8_t places[PLACES][VNET_BYTES + FRAME_BYTES];
	uint32_t bytes = make_frame(bench, payload, segment);
	uint64_t begin_ns, end_ns, count = 0;

	for (uint32_t i = 0; i < PLACES; i++)
		memcpy(places[i], bench->frame, VNET_BYTES + bytes);
	begin_ns = bench_cpu_ns();
	end_ns = bench_now_ns() + ms * BASE_NS_PER_MS;
	while (bench_now_ns() < end_ns)
		for (uint32_t i = 0; i < PLACES; i++, count++)
			if (write(bench->bare_tap.fd, places[i], VNET_BYTES + bytes) < 0)
				base_bug("write: errno %d", errno);
	return (double)(bench_cpu_ns() - begin_ns) / (double)count / 1000;
}

/* us for each frame that the device took. */
static double guest_sends(struct bench *bench, uint32_t payload, uint32_t segment, uint64_t ms)
{
	struct netvsp_status before, after;
	uint64_t ns = 0, frames = 0;

	while (frames == 0) { /* none: others had the processor all the time */
		uint64_t begin_ns = bench_cpu_ns();

		netvsp_status(bench->card, &before);
		(void)guest_host_command(bench->host, TESTPAGE_NET_SOURCE, payload, ms, segment);
		ns = bench_cpu_ns() - begin_ns;
		netvsp_status(bench->card, &after);
		if (after.tx_dropped != before.tx_dropped)
			base_bug("the TAP device did not take what the guest sent");
		frames = after.tx_frames - before.tx_frames;
	}
	return (double)ns / (double)frames / 1000;
}

/* --- the guest receives --- */

static double bare_receives(struct bench *bench, uint32_t bytes, uint64_t ms)
{
	uint64_t ns = 0, count = 0;

	while (ns < ms * BASE_NS_PER_MS) {
		uint64_t begin_ns;

		fill(bench, &bench->bare_tap, bytes, BATCH);
		begin_ns = bench_cpu_ns();
		count += drain(bench, &bench->bare_tap, bytes);
		ns += bench_cpu_ns() - begin_ns;
	}
	return (double)ns / (double)count / 1000;
}

static double guest_receives(struct bench *bench, uint32_t bytes, uint64_t ms)
{
	uint64_t ns = 0, count = 0;

	while (ns < ms * BASE_NS_PER_MS) {
		uint64_t sunk = guest_host_get(bench->host, TESTPAGE_NET_SUNK), begin_ns;

		fill(bench, &bench->card_tap, bytes, BATCH);
		begin_ns = bench_cpu_ns();
		while (guest_host_get(bench->host, TESTPAGE_NET_SUNK) < sunk + BATCH)
			(void)guest_host_turn(bench->host);
		ns += bench_cpu_ns() - begin_ns;
		count += BATCH;
	}
	return (double)ns / (double)count / 1000;
}

/* --- both --- */

struct series {
	struct bench_series rate, part, bare, ratio, signals, interrupts;
};

static void add(struct series *series, double us, double bare_us, uint32_t payload)
{
	bench_add(&series->rate, payload * 8 / us / 1000);
	bench_add(&series->bare, payload * 8 / bare_us / 1000);
	bench_add(&series->part, us - bare_us);
	bench_add(&series->ratio, bare_us / us);
}

static void print(const char *name, const struct series *series)
{
	bench_row(name, &series->rate, "Gbit/s", "the TAP device alone %.2f",
		  bench_median(&series->bare));
	bench_row("  as a share of the TAP device alone", &series->ratio, "ratio",
		  "1: nothing but the device");
	bench_row("  the service's part, driver included", &series->part, "us", "for each frame");
	bench_row("  signals (exits) each", &series->signals, "exits", "for each frame");
	bench_row("  interrupts each", &series->interrupts, "irqs", "for each frame");
}

static void compare(struct bench *bench, const char *name, bool sends, uint32_t payload,
		    uint32_t segment, bool quick)
{
	static struct series series;
	uint32_t offset = sends ? TESTPAGE_NET_TX : TESTPAGE_NET_RX;
	uint64_t ms = quick ? 100 : 300;

	memset(&series, 0, sizeof(series));
	for (uint32_t i = 0; i < (quick ? 5 : RUNS_MAX); i++) {
		uint64_t signals = guest_host_get(bench->host, TESTPAGE_HV_SIGNALS);
		uint64_t irqs = guest_host_get(bench->host, TESTPAGE_HV_IRQS(0));
		uint64_t frames = guest_host_get(bench->host, offset);
		double bare_us, us;

		if (sends) {
			bare_us = bare_sends(bench, payload, segment, ms);
			us = guest_sends(bench, payload, segment, ms);
		} else {
			uint32_t bytes = guest_inet_datagram(&bench->peer, payload, 1,
							     bench->frame + VNET_BYTES);

			memset(bench->frame + VNET_BYTES + 40, 0, 2); /* no checksum */
			bare_us = bare_receives(bench, bytes, ms);
			us = guest_receives(bench, bytes, ms);
		}
		frames = guest_host_get(bench->host, offset) - frames;
		add(&series, us, bare_us, payload);
		bench_add(&series.signals,
			  (double)(guest_host_get(bench->host, TESTPAGE_HV_SIGNALS) - signals) /
				  (double)frames);
		bench_add(&series.interrupts,
			  (double)(guest_host_get(bench->host, TESTPAGE_HV_IRQS(0)) - irqs) /
				  (double)frames);
	}
	print(name, &series);
}

int main(int argc, char **argv)
{
	bool quick = bench_has_word(argc, argv, "--quick");
	static struct bench bench;

	if (unshare(CLONE_NEWNET) < 0 || open_tap("card0", &bench.card_tap) < 0 ||
	    open_tap("bare0", &bench.bare_tap) < 0) {
		printf("SKIP throughput_bench: no network namespace with TAP devices: %s\n",
		       strerrordesc_np(errno));
		return SKIPPED;
	}
	start(&bench);
	bench_title("network throughput, one thread for guest and host, payload of TCP or UDP");
	compare(&bench, "guest sends TCP of 64 KiB, segments of 1448", true,
		GUEST_LARGE_PAYLOAD_MAX, SEGMENT_BYTES, quick);
	compare(&bench, "guest sends UDP of 1472 bytes", true, GUEST_DATAGRAM_MAX, 0, quick);
	compare(&bench, "guest receives UDP of 1472 bytes", false, GUEST_DATAGRAM_MAX, 0, quick);
	return 0;
}
