/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A network card on the real bus: set-up, frames both ways, a second queue, save and restore, and
 * a TAP device of the kernel's where there may be one.
 */
#include <criterion/criterion.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/if_packet.h>
#include <linux/if_tun.h>
#include <net/if.h>
#include <sched.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/bytes.h"
#include "hypervisor/netvsp/netvsp.h"
#include "tests/support/vmbus_guest.h"

#define RECEIVE_PAGES 32u
#define SEND_PAGES    8u

static const struct disk_guid network_type = { .bytes = { 0x63, 0x51, 0x61, 0xF8, 0x3E, 0xDF, 0xC5,
							  0x46, 0x91, 0x3F, 0xF2, 0xD2, 0xF9, 0x65,
							  0xED, 0x0E } };
static const uint8_t mac[6] = { 2, 0, 0, 0, 0, 1 };

struct rig {
	struct vmbus_guest *guest;
	struct netvsp_options options;
	struct netvsp *card;
	int wire;
	struct vmbus_guest_channel primary;
	uint64_t receive_pfns[RECEIVE_PAGES];
	uint64_t scratch_pfn;
	uint64_t next_id;
};

static void card_make(struct rig *rig)
{
	struct base_error err = { 0 };

	rig->options.bus = vmbus_guest_bus(rig->guest);
	cr_assert_eq(netvsp_new(&rig->options, &rig->card, &err), 0, "%s", err.text);
}

/* @tap_fds: of a real device; -1: a socket stands in for one. */
static struct rig *rig_new_on(const int tap_fds[2])
{
	struct rig *rig = calloc(1, sizeof(*rig));
	int ends[2] = { tap_fds[0], -1 };

	cr_assert_not_null(rig);
	rig->guest = vmbus_guest_new(NULL);
	if (tap_fds[0] < 0)
		cr_assert_eq(socketpair(AF_UNIX, SOCK_DGRAM | SOCK_NONBLOCK, 0, ends), 0);
	rig->wire = ends[1];
	rig->options = (struct netvsp_options){ .slat = vmbus_guest_slat(rig->guest),
						.loops = { vmbus_guest_loop(rig->guest) },
						.loop_count = 1,
						.tap_fds = { ends[0], tap_fds[1] < 0 ? ends[0]
										     : tap_fds[1] },
						.queue_count = 2,
						.vcpu_count = 2,
						.link_up = true,
						.vm_name = "test" };
	memcpy(rig->options.mac, mac, 6);
	rig->scratch_pfn = vmbus_guest_pages(rig->guest, 1) / 4096;
	card_make(rig);
	return rig;
}

static struct rig *rig_new(int tap_fd)
{
	const int tap_fds[2] = { tap_fd, -1 };

	return rig_new_on(tap_fds);
}

static void rig_end(struct rig *rig)
{
	netvsp_free(rig->card);
	vmbus_guest_free(rig->guest);
	(void)close(rig->options.tap_fds[0]);
	if (rig->wire >= 0)
		(void)close(rig->wire);
	free(rig);
}

/* The next packet, for as long as the kernel may take to say that there is a frame. */
static struct vmbus_guest_packet next_packet(struct vmbus_guest_channel *channel)
{
	struct vmbus_guest_packet packet;

	for (uint32_t i = 0; i < 1000000; i++) {
		if (vmbus_guest_receive(channel, &packet))
			return packet;
		(void)sched_yield();
	}
	cr_assert_fail("no packet came");
	return packet;
}

static struct vmbus_guest_packet ask(struct rig *rig, uint32_t a, uint32_t b, uint32_t c)
{
	uint8_t bytes[40] = { 0 };
	struct vmbus_guest_packet packet;

	base_put_le32(bytes, a);
	base_put_le32(bytes + 4, b);
	base_put_le32(bytes + 8, c);
	cr_assert_eq(vmbus_guest_send_inband(&rig->primary, ++rig->next_id, bytes, 40, true), 0);
	packet = next_packet(&rig->primary);
	cr_assert_eq(packet.type, VMBUS_PACKET_COMPLETION);
	cr_assert_eq(packet.trans_id, rig->next_id);
	return packet;
}

/* An RNDIS message in one page; its completion's status. */
static uint32_t send_rndis(struct rig *rig, struct vmbus_guest_channel *channel, bool is_control,
			   const uint8_t *bytes, uint32_t size)
{
	uint8_t head[40] = { 0 };
	struct vmbus_guest_packet packet;

	memcpy(vmbus_guest_at(rig->guest, rig->scratch_pfn * 4096, size), bytes, size);
	base_put_le32(head, 107);
	base_put_le32(head + 4, is_control ? 1 : 0);
	base_put_le32(head + 8, 0xFFFFFFFF);
	cr_assert_eq(vmbus_guest_send_direct(channel, ++rig->next_id, head, 40, &rig->scratch_pfn,
					     0, size),
		     0);
	packet = next_packet(channel);
	cr_assert_eq(packet.type, VMBUS_PACKET_COMPLETION);
	cr_assert_eq(packet.trans_id, rig->next_id);
	return base_get_le32(packet.bytes + packet.header_bytes + 4);
}

/* What the next packet shows; given back. */
static const uint8_t *shown(struct rig *rig, struct vmbus_guest_channel *channel, uint32_t *bytes)
{
	const struct vmbus_guest_packet packet = next_packet(channel);
	uint8_t done[8] = { 108, 0, 0, 0, 1, 0, 0, 0 };
	struct iovec pieces[2] = { { NULL, 0 }, { done, sizeof(done) } };
	uint32_t offset = 0;

	cr_assert_eq(packet.type, VMBUS_PACKET_XFER_PAGES);
	*bytes = base_get_le32(packet.bytes + 8);
	offset = base_get_le32(packet.bytes + 12);
	cr_assert_eq(vmbus_guest_send(channel, VMBUS_PACKET_COMPLETION, 0, packet.trans_id, pieces,
				      true),
		     0);
	/* The test's list is of pages next to each other. */
	return vmbus_guest_at(rig->guest, rig->receive_pfns[0] * 4096 + offset, *bytes);
}

static uint32_t request(struct rig *rig, uint32_t type, uint32_t oid, uint32_t value)
{
	uint8_t bytes[32] = { 0 };
	const uint8_t *answer = NULL;
	uint32_t size = 0;

	base_put_le32(bytes, type);
	base_put_le32(bytes + 4, type == 2 ? 24 : 32);
	base_put_le32(bytes + 8, 5);
	base_put_le32(bytes + 12, type == 2 ? 1 : oid);
	base_put_le32(bytes + 16, 4);
	base_put_le32(bytes + 20, 20);
	base_put_le32(bytes + 28, value);
	cr_assert_eq(send_rndis(rig, &rig->primary, true, bytes, base_get_le32(bytes + 4)), 1);
	answer = shown(rig, &rig->primary, &size);
	cr_assert_eq(base_get_le32(answer), type | 0x80000000);
	return base_get_le32(answer + 12);
}

static void open_card(struct rig *rig)
{
	const struct vmbus_guest_offer *offer = vmbus_guest_offer(rig->guest, &network_type, 0);

	cr_assert_not_null(offer);
	cr_assert_eq(vmbus_guest_open(rig->guest, offer, 0, &rig->primary), VMBUS_GUEST_STATUS_OK);
}

static void set_up(struct rig *rig)
{
	const uint64_t receive = vmbus_guest_pages(rig->guest, RECEIVE_PAGES) / 4096;
	const uint64_t send = vmbus_guest_pages(rig->guest, SEND_PAGES) / 4096;
	uint64_t send_pfns[SEND_PAGES];
	uint32_t receive_id = 0;
	uint32_t send_id = 0;
	struct vmbus_guest_packet packet;

	for (uint32_t i = 0; i < RECEIVE_PAGES; i++)
		rig->receive_pfns[i] = receive + i;
	for (uint32_t i = 0; i < SEND_PAGES; i++)
		send_pfns[i] = send + i;
	cr_assert_eq(base_get_le32(ask(rig, 1, 0x60001, 0x60001).bytes + 12), 1);
	cr_assert_eq(vmbus_guest_gpadl(rig->guest, rig->primary.relid, rig->receive_pfns,
				       RECEIVE_PAGES, &receive_id),
		     0);
	cr_assert_eq(
		vmbus_guest_gpadl(rig->guest, rig->primary.relid, send_pfns, SEND_PAGES, &send_id),
		0);
	packet = ask(rig, 101, receive_id, 0xCAFE);
	cr_assert_eq(base_get_le32(packet.bytes + 4), 1);
	cr_assert_eq(base_get_le32(packet.bytes + 20), RECEIVE_PAGES * 4096 / 1728);
	cr_assert_eq(base_get_le32(ask(rig, 104, send_id, 0).bytes + 4), 1);
	cr_assert_eq(request(rig, 2, 0, 0), 0);
	/* A TAP device is full of the kernel's own multicast. */
	cr_assert_eq(request(rig, 5, 0x0001010E, rig->wire < 0 ? 0x01 : 0x0D), 0);
}

static uint32_t frame_make(uint8_t *to, uint32_t payload_bytes)
{
	memset(to, 0, 44 + 14 + payload_bytes);
	base_put_le32(to, 1);
	base_put_le32(to + 4, 44 + 14 + payload_bytes);
	base_put_le32(to + 8, 36);
	base_put_le32(to + 12, 14 + payload_bytes);
	memset(to + 44, 0xFF, 6);
	memcpy(to + 50, mac, 6);
	to[56] = 0x88;
	to[57] = 0xB5;
	return 44 + 14 + payload_bytes;
}

static void frame_in(const struct rig *rig, uint32_t payload_bytes)
{
	uint8_t frame[2048] = { 0 };

	memcpy(frame + 12, mac, 6);
	cr_assert_gt(write(rig->wire, frame, 26 + payload_bytes), 0);
}

Test(netvsp_bus, frames_both_ways)
{
	struct rig *rig = rig_new(-1);
	uint8_t bytes[2048];
	uint32_t size = frame_make(bytes, 1000);

	vmbus_guest_connect(rig->guest);
	open_card(rig);
	set_up(rig);
	cr_assert_eq(send_rndis(rig, &rig->primary, false, bytes, size), 1);
	cr_assert_eq(read(rig->wire, bytes, sizeof(bytes)), 12 + 1014);
	for (uint32_t i = 0; i < 300; i++) { /* round and round the sections */
		frame_in(rig, 100 + i);
		(void)shown(rig, &rig->primary, &size);
		cr_assert_eq(size, 60 + 14 + 100 + i);
	}
	rig_end(rig);
}

Test(netvsp_bus, the_channel_closes_and_opens_again)
{
	struct rig *rig = rig_new(-1);
	uint32_t size = 0;

	vmbus_guest_connect(rig->guest);
	for (int i = 0; i < 3; i++) {
		open_card(rig);
		set_up(rig);
		frame_in(rig, 100);
		(void)shown(rig, &rig->primary, &size);
		vmbus_guest_close(&rig->primary);
		vmbus_guest_run(rig->guest);
	}
	rig_end(rig);
}

static void add_queue(struct rig *rig, struct vmbus_guest_channel *sub)
{
	const struct vmbus_guest_offer *offer = NULL;
	struct vmbus_guest_packet packet = ask(rig, 133, 1, 1);

	cr_assert_eq(base_get_le32(packet.bytes + 4), 1);
	cr_assert_eq(base_get_le32(packet.bytes + 8), 1);
	packet = next_packet(&rig->primary);
	cr_assert_eq(packet.type, VMBUS_PACKET_INBAND);
	cr_assert_eq(base_get_le32(packet.bytes), 134);
	offer = vmbus_guest_offer(rig->guest, &network_type, 1);
	cr_assert_not_null(offer);
	cr_assert_eq(vmbus_guest_open(rig->guest, offer, 0, sub), VMBUS_GUEST_STATUS_OK);
}

Test(netvsp_bus, a_second_queue_comes_and_goes)
{
	struct rig *rig = rig_new(-1);
	struct vmbus_guest_channel sub;
	uint8_t bytes[2048];
	uint32_t size = frame_make(bytes, 100);

	vmbus_guest_connect(rig->guest);
	for (int i = 0; i < 3; i++) {
		open_card(rig);
		set_up(rig);
		add_queue(rig, &sub);
		cr_assert_eq(send_rndis(rig, &sub, false, bytes, size), 1);
		cr_assert_eq(read(rig->wire, bytes + 1024, 1024), 12 + 114);
		vmbus_guest_close(&sub);
		if (i == 1) /* as Linux: their numbers with them, before it is asked to */
			vmbus_guest_release_relid(rig->guest, sub.relid);
		vmbus_guest_close(&rig->primary);
		vmbus_guest_run(rig->guest);
		if (i != 1 && vmbus_guest_rescinded(rig->guest) == sub.relid)
			vmbus_guest_release_relid(rig->guest, sub.relid);
		vmbus_guest_run(rig->guest);
	}
	rig_end(rig);
}

static void save(const struct hv_service_ops *ops, void *service, struct base_buffer *out,
		 uint32_t *ret_version)
{
	cr_assert_eq(ops->section_count(service), 1);
	*ret_version = ops->section(service, 0).version;
	cr_assert_eq(ops->save(service, 0, out, NULL), 0);
}

Test(netvsp_bus, restored_on_another_bus)
{
	struct rig *rig = rig_new(-1);
	struct base_buffer states[2] = { { 0 }, { 0 } };
	struct base_error err = { 0 };
	struct base_reader in;
	struct vmbus *bus = NULL;
	struct vmbus_guest_channel sub;
	uint32_t versions[2];
	uint32_t size = 0;

	vmbus_guest_connect(rig->guest);
	open_card(rig);
	set_up(rig);
	add_queue(rig, &sub);
	bus = vmbus_guest_bus(rig->guest);
	cr_assert_eq(vmbus_service_ops.quiesce(bus, &err), 0);
	cr_assert_eq(netvsp_service_ops.quiesce(rig->card, &err), 0);
	save(&vmbus_service_ops, bus, &states[0], &versions[0]);
	save(&netvsp_service_ops, rig->card, &states[1], &versions[1]);
	netvsp_free(rig->card);
	vmbus_guest_new_bus(rig->guest);
	bus = vmbus_guest_bus(rig->guest);
	card_make(rig);
	cr_assert_eq(vmbus_service_ops.quiesce(bus, &err), 0);
	cr_assert_eq(netvsp_service_ops.quiesce(rig->card, &err), 0);
	in = base_reader_over(states[0].data, states[0].size_bytes);
	cr_assert_eq(vmbus_service_ops.load(bus, 0, versions[0], &in, &err), 0, "%s", err.text);
	in = base_reader_over(states[1].data, states[1].size_bytes);
	cr_assert_eq(netvsp_service_ops.load(rig->card, 0, versions[1], &in, &err), 0, "%s",
		     err.text);
	cr_assert_eq(vmbus_service_ops.loaded(bus, &err), 0, "%s", err.text);
	cr_assert_eq(netvsp_service_ops.loaded(rig->card, &err), 0, "%s", err.text);
	netvsp_service_ops.resume(rig->card);
	vmbus_service_ops.resume(bus);
	netvsp_announce(rig->card);
	vmbus_guest_run(rig->guest);
	(void)shown(rig, &rig->primary, &size); /* the announcement to the guest */
	cr_assert_eq(size, 20);
	frame_in(rig, 200);
	/* Both queues read the one wire here: whichever was first has it. */
	for (uint32_t i = 0; i < 1000000; i++) {
		struct vmbus_guest_packet packet;

		if (vmbus_guest_receive(&rig->primary, &packet) ||
		    vmbus_guest_receive(&sub, &packet)) {
			cr_assert_eq(base_get_le32(packet.bytes + 8), 60 + 214);
			size = 0;
			break;
		}
	}
	cr_assert_eq(size, 0);
	base_buffer_fini(&states[0]);
	base_buffer_fini(&states[1]);
	rig_end(rig);
}

/* In a network namespace of its own; a skip where that is not allowed. */
Test(netvsp_bus, a_real_tap_device)
{
	struct ifreq device = { .ifr_flags = IFF_TAP | IFF_NO_PI | IFF_VNET_HDR };
	struct base_error err = { 0 };
	struct rig *rig = NULL;
	uint8_t bytes[2048];
	uint32_t size = frame_make(bytes, 1000);
	struct netvsp_status status;
	int control = -1;
	int tap_fd = -1;

	if (unshare(CLONE_NEWNET) < 0 || (tap_fd = open("/dev/net/tun", O_RDWR | O_CLOEXEC)) < 0 ||
	    ioctl(tap_fd, TUNSETIFF, &device) < 0)
		cr_skip_test("no TAP device here");
	cr_assert_eq(netvsp_tap_prepare(tap_fd, &err), 0, "%s", err.text);
	control = socket(AF_INET, SOCK_DGRAM, 0);
	device.ifr_flags = IFF_UP;
	cr_assert_eq(ioctl(control, SIOCSIFFLAGS, &device), 0);
	rig = rig_new(tap_fd);
	vmbus_guest_connect(rig->guest);
	open_card(rig);
	set_up(rig);
	cr_assert_eq(send_rndis(rig, &rig->primary, false, bytes, size), 1);
	netvsp_status(rig->card, &status);
	cr_assert_eq(status.tx_frames, 1);
	cr_assert_eq(status.tx_dropped, 0);
	(void)close(control);
	rig_end(rig);
	cr_assert_eq(netvsp_tap_prepare(-1, &err), -EBADF);
}

#define FLOWS 64u

/* An IPv4 packet of UDP for the guest, of a flow that its port names, from the host's end. */
static void host_sends(int packet_socket, const struct sockaddr_ll *to, uint32_t flow)
{
	uint8_t frame[60] = { 2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 9, 0x08, 0x00, 0x45, 0, 0, 46 };

	frame[22] = 64; /* hops */
	frame[23] = 17; /* UDP */
	memcpy(frame + 26, (const uint8_t[]){ 10, 0, 0, 9, 10, 0, 0, 1 }, 8);
	base_put_be16(frame + 34, (uint16_t)(1000 + flow));
	base_put_be16(frame + 36, 7);
	base_put_be16(frame + 38, 26);
	cr_assert_eq(sendto(packet_socket, frame, sizeof(frame), 0, (const void *)to, sizeof(*to)),
		     (ssize_t)sizeof(frame));
}

/* Each flow's frame comes, on one of the two channels. */
static void all_flows_come(struct rig *rig, struct vmbus_guest_channel *sub, int packet_socket,
			   const struct sockaddr_ll *to)
{
	static const uint8_t done[8] = { 108, 0, 0, 0, 1, 0, 0, 0 };
	struct iovec pieces[2] = { { NULL, 0 }, { (void *)(uintptr_t)done, sizeof(done) } };

	for (uint32_t flow = 0; flow < FLOWS; flow++) {
		struct vmbus_guest_channel *channel = NULL;
		struct vmbus_guest_packet packet;

		host_sends(packet_socket, to, flow);
		for (uint32_t i = 0; i < 100000 && channel == NULL; i++) {
			if (vmbus_guest_receive(&rig->primary, &packet))
				channel = &rig->primary;
			else if (sub != NULL && vmbus_guest_receive(sub, &packet))
				channel = sub;
			else
				(void)sched_yield();
		}
		cr_assert_not_null(channel, "flow %u is lost", flow);
		cr_assert_eq(base_get_le32(packet.bytes + 8), 60 + 60);
		cr_assert_eq(vmbus_guest_send(channel, VMBUS_PACKET_COMPLETION, 0, packet.trans_id,
					      pieces, true),
			     0);
	}
}

/* In the words that tests/mutants/run looks for, too. */
static void skip(const char *why)
{
	(void)printf("SKIP netvsp_bus: %s\n", why);
	(void)fflush(stdout);
	cr_skip_test("%s", why);
}

/* The kernel spreads flows over all queues of a device that somebody holds: a queue whose channel
 * the guest does not open must not be among them. */
Test(netvsp_bus, flows_go_to_the_queues_that_are_open)
{
	struct ifreq device = { .ifr_flags = IFF_TAP | IFF_NO_PI | IFF_VNET_HDR | IFF_MULTI_QUEUE };
	struct sockaddr_ll to = { .sll_family = AF_PACKET, .sll_halen = 6 };
	int tap_fds[2] = { -1, -1 };
	struct vmbus_guest_channel sub;
	struct rig *rig = NULL;
	int packets = -1;

	if (unshare(CLONE_NEWNET) < 0)
		skip("no network namespace here");
	for (int i = 0; i < 2; i++) {
		tap_fds[i] = open("/dev/net/tun", O_RDWR | O_CLOEXEC);
		if (tap_fds[i] < 0 || ioctl(tap_fds[i], TUNSETIFF, &device) < 0)
			skip("no TAP device here");
		cr_assert_eq(netvsp_tap_prepare(tap_fds[i], NULL), 0);
	}
	packets = socket(AF_PACKET, SOCK_RAW | SOCK_CLOEXEC, 0);
	to.sll_ifindex = (int)if_nametoindex(device.ifr_name);
	device.ifr_flags = IFF_UP;
	cr_assert_eq(ioctl(packets, SIOCSIFFLAGS, &device), 0);
	rig = rig_new_on(tap_fds);
	vmbus_guest_connect(rig->guest);
	open_card(rig);
	set_up(rig);
	all_flows_come(rig, NULL, packets, &to);
	add_queue(rig, &sub);
	all_flows_come(rig, &sub, packets, &to);
	vmbus_guest_close(&sub);
	vmbus_guest_run(rig->guest);
	all_flows_come(rig, NULL, packets, &to);
	netvsp_free(rig->card);
	vmbus_guest_new_bus(rig->guest);
	rig->options.vcpu_count = 1; /* more descriptors than there can be channels */
	card_make(rig);
	vmbus_guest_connect(rig->guest);
	open_card(rig);
	set_up(rig);
	all_flows_come(rig, NULL, packets, &to);
	(void)close(packets);
	(void)close(tap_fds[1]);
	rig_end(rig);
}
