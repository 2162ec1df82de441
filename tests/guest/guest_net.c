/* SPDX-License-Identifier: Apache-2.0 */
/* See guest_net.h.  Messages: docs/hypervisor/netvsp/netvsp.md. */
#include "tests/guest/guest_net.h"

#include <stddef.h>

#include "tests/guest/guest_bytes.h"
#include "tests/guest/guest_call.h"
#include "tests/guest/guest_hv.h"
#include "tests/guest/guest_inet.h"
#include "tests/guest/guest_net_priv.h"
#include "tests/guest/guest_print.h"
#include "tests/guest/guest_region.h"

#define RECEIVE_BYTES   (2u << 20)
#define SEND_BYTES      (1u << 20)
#define SECTIONS_MAX    1024
#define NVSP_BYTES      40
#define NVSP_INIT       1
#define NVSP_INIT_DONE  2
#define NVSP_NDIS_VER   100
#define NVSP_RECV_BUF   101
#define NVSP_RECV_DONE  102
#define NVSP_SEND_BUF   104
#define NVSP_SEND_DONE  105
#define NVSP_RNDIS      107
#define NVSP_RNDIS_DONE 108
#define NVSP_CONFIG     125
#define NVSP_VERSION_5  0x50000
#define RECV_BUF_ID     0xcafe
#define NO_SECTION      0xffffffff
#define CONTROL         1
#define CONTROL_ID      (1ULL << 63) /* transactions that are not sections */
#define RNDIS_INIT      2
#define RNDIS_QUERY     4
#define RNDIS_SET       5
#define RNDIS_INDICATE  7
#define RNDIS_DONE      0x80000000
#define OID_MAC         0x01010101
#define OID_FILTER      0x0001010e
#define FILTER_ALL_OURS 0xd /* directed, all multicast, broadcast */
#define STATUS_CONNECT  0x4001000b
#define STATUS_CHANGE   0x40010018
#define PPI_CHECKSUM    0
#define UDP_SUM_GOOD    (1u << 4)

enum step {
	STEP_NONE = 0,
	STEP_INIT,
	STEP_RECEIVE, /* page list, then the buffer */
	STEP_SEND,
	STEP_RNDIS,
	STEP_MAC,
	STEP_FILTER,
	STEP_READY
};

static struct {
	struct guest_channel *primary;
	enum step step;
	bool asked, lists_asked;
	uint64_t asked_at, transaction, serial;
	uint32_t request_id;
	struct guest_gpadl *receive_list, *send_list;
	uint8_t *receive, *send, *control;
	uint32_t section_bytes, section_count, free_count;
	uint16_t free_sections[SECTIONS_MAX];
	bool section_busy[SECTIONS_MAX];
	bool announce;
	struct guest_inet inet;
	uint64_t rx, tx, rx_bytes, tx_bytes, dropped, news;
} net;

uint64_t guest_net_pool_bytes(void)
{
	return RECEIVE_BYTES + SEND_BYTES + 2 * PAGE + guest_source_pool_bytes();
}

bool guest_net_wants(const struct guest_channel *channel)
{
	if (guest_options.net == 0)
		return false;
	if (net.primary == NULL && channel->sub_index == 0)
		net.primary = &guest_bus.channels[channel - guest_bus.channels];
	return net.primary == channel;
}

static bool send_nvsp(const uint8_t *message, uint64_t trans_id, bool wants_answer)
{
	const struct guest_packet packet = { .type = GUEST_PACKET_INBAND,
					     .flags = wants_answer ? GUEST_PACKET_ANSWER : 0,
					     .trans_id = trans_id,
					     .payload = message,
					     .payload_bytes = NVSP_BYTES };

	return guest_hv_send(net.primary, &packet);
}

static void ask_nvsp(uint32_t type, uint32_t first, uint32_t second)
{
	uint8_t message[NVSP_BYTES] = { 0 };

	guest_put32(message, type);
	guest_put32(message + 4, first);
	guest_put32(message + 8, second);
	net.asked = send_nvsp(message, net.transaction, true);
}

/* A control message of RNDIS, in a page of its own. */
static void ask_rndis(uint32_t type, uint32_t bytes)
{
	uint8_t message[NVSP_BYTES] = { 0 }, header[24];
	const struct guest_packet packet = { .type = GUEST_PACKET_GPA_DIRECT,
					     .flags = GUEST_PACKET_ANSWER,
					     .trans_id = net.transaction,
					     .header = header,
					     .header_bytes = sizeof(header),
					     .payload = message,
					     .payload_bytes = sizeof(message) };

	guest_put32(net.control, type);
	guest_put32(net.control + 4, bytes);
	guest_put32(net.control + 8, ++net.request_id);
	guest_put32(message, NVSP_RNDIS);
	guest_put32(message + 4, CONTROL);
	guest_put32(message + 8, NO_SECTION);
	guest_put32(header, 0);
	guest_put32(header + 4, 1);
	guest_put32(header + 8, bytes);
	guest_put32(header + 12, 0);
	guest_put64(header + 16, guest_hv_address(net.control) / PAGE);
	net.asked = guest_hv_send(net.primary, &packet);
}

static void ask_oid(uint32_t type, uint32_t oid, const uint8_t *value, uint32_t bytes)
{
	__builtin_memset(net.control, 0, PAGE);
	guest_put32(net.control + 12, oid);
	guest_put32(net.control + 16, bytes);
	guest_put32(net.control + 20, 20); /* from the request id on */
	if (value != NULL)
		__builtin_memcpy(net.control + 28, value, bytes);
	ask_rndis(type, 28 + bytes);
}

static void ask_init(void)
{
	__builtin_memset(net.control, 0, PAGE);
	guest_put32(net.control + 12, 1);
	guest_put32(net.control + 20, 0x4000);
	ask_rndis(RNDIS_INIT, 24);
}

static void send_config(void)
{
	uint8_t message[NVSP_BYTES] = { 0 };

	guest_put32(message, NVSP_CONFIG);
	guest_put32(message + 4, 1514);
	(void)send_nvsp(message, CONTROL_ID, false);
	__builtin_memset(message, 0, sizeof(message));
	guest_put32(message, NVSP_NDIS_VER);
	guest_put32(message + 4, 6);
	guest_put32(message + 8, 0x1e);
	(void)send_nvsp(message, CONTROL_ID, false);
}

static bool list_ready(const struct guest_gpadl *list)
{
	return list != NULL && __atomic_load_n(&list->state, __ATOMIC_ACQUIRE) == GUEST_GPADL_READY;
}

static void ask(const struct guest_worker *w)
{
	static const uint8_t filter[4] = { FILTER_ALL_OURS };

	net.asked_at = w->active_tsc;
	if ((net.step == STEP_RECEIVE && !list_ready(net.receive_list)) ||
	    (net.step == STEP_SEND && !list_ready(net.send_list)))
		return;
	net.transaction = CONTROL_ID | (net.transaction + 1);
	switch (net.step) {
	case STEP_INIT:
		ask_nvsp(NVSP_INIT, NVSP_VERSION_5, NVSP_VERSION_5);
		break;
	case STEP_RECEIVE:
		ask_nvsp(NVSP_RECV_BUF, net.receive_list->id, RECV_BUF_ID);
		break;
	case STEP_SEND:
		ask_nvsp(NVSP_SEND_BUF, net.send_list->id, 0);
		break;
	case STEP_RNDIS:
		ask_init();
		break;
	case STEP_MAC:
		ask_oid(RNDIS_QUERY, OID_MAC, NULL, 0);
		break;
	case STEP_FILTER:
		ask_oid(RNDIS_SET, OID_FILTER, filter, sizeof(filter));
		break;
	case STEP_NONE:
	case STEP_READY:
	default:
		break;
	}
}

static void step_to(enum step step)
{
	net.step = step;
	net.asked = false;
}

uint8_t *guest_net_frame_begin(uint32_t *ret_section)
{
	if (net.free_count == 0)
		return NULL;
	*ret_section = net.free_sections[net.free_count - 1];
	return net.send + (size_t)*ret_section * net.section_bytes + RNDIS_HEADER;
}

bool guest_net_frame_send(uint32_t section, uint32_t bytes)
{
	uint8_t *rndis = net.send + (size_t)section * net.section_bytes;
	uint8_t message[NVSP_BYTES] = { 0 };

	__builtin_memset(rndis, 0, RNDIS_HEADER);
	guest_put32(rndis, RNDIS_PACKET);
	guest_put32(rndis + 4, RNDIS_HEADER + bytes);
	guest_put32(rndis + 8, RNDIS_HEADER - 8);
	guest_put32(rndis + 12, bytes);
	guest_put32(message, NVSP_RNDIS);
	guest_put32(message + 8, section);
	guest_put32(message + 12, RNDIS_HEADER + bytes);
	if (!send_nvsp(message, section + 1ULL, true))
		return false;
	net.section_busy[section] = true;
	net.free_count--;
	net.tx++;
	net.tx_bytes += bytes;
	return true;
}

bool guest_net_pages_send(const uint8_t *at, uint32_t bytes, uint32_t frame_bytes,
			  uint64_t trans_id)
{
	uint8_t message[NVSP_BYTES] = { 0 }, header[16 + GUEST_LARGE_PAGES * 8];
	uint32_t pages = (bytes + PAGE - 1) / PAGE;
	const struct guest_packet packet = { .type = GUEST_PACKET_GPA_DIRECT,
					     .flags = GUEST_PACKET_ANSWER,
					     .trans_id = trans_id,
					     .header = header,
					     .header_bytes = 16 + pages * 8,
					     .payload = message,
					     .payload_bytes = sizeof(message) };

	guest_put32(header, 0);
	guest_put32(header + 4, 1);
	guest_put32(header + 8, bytes);
	guest_put32(header + 12, 0);
	for (uint32_t i = 0; i < pages; i++)
		guest_put64(header + 16 + (size_t)i * 8, guest_hv_address(at) / PAGE + i);
	guest_put32(message, NVSP_RNDIS);
	guest_put32(message + 8, NO_SECTION);
	if (!guest_hv_send(net.primary, &packet))
		return false;
	net.tx++;
	net.tx_bytes += frame_bytes;
	return true;
}

struct guest_inet *guest_net_of(const struct guest_worker *w)
{
	return net.step == STEP_READY && w->vcpu == net.primary->vcpu ? &net.inet : NULL;
}

static void announce(void)
{
	uint32_t section = 0, bytes;
	uint8_t *frame = guest_net_frame_begin(&section);

	if (frame == NULL)
		return;
	bytes = guest_inet_arp(&net.inet, net.inet.address, frame);
	net.announce = !guest_net_frame_send(section, bytes);
}

static void print_ready(void)
{
	struct guest_line line = { .used = 0 };

	guest_line_hex(&line, "guest: net address=0x", net.inet.address, 8);
	guest_line_hex(&line, " mac=",
		       (uint64_t)guest_get_be16(net.inet.mac) << 32 |
			       guest_get_be32(net.inet.mac + 2),
		       12);
	guest_line_number(&line, " sections=", net.section_count);
	guest_line_send(&line);
}

static void take_sections(const uint8_t *message)
{
	net.section_bytes = guest_get32(message + 8);
	if (net.section_bytes < RNDIS_HEADER + GUEST_FRAME_BYTES_MAX)
		guest_die("the network card's send sections are too small", "");
	net.section_count = SEND_BYTES / net.section_bytes;
	if (net.section_count > SECTIONS_MAX)
		net.section_count = SECTIONS_MAX;
	net.free_count = net.section_count;
	for (uint32_t i = 0; i < net.section_count; i++) {
		net.free_sections[i] = (uint16_t)i;
		net.section_busy[i] = false;
	}
}

/* The answer to a question of NVSP. */
static void nvsp_answer(const uint8_t *message)
{
	uint32_t type = guest_get32(message);

	if (net.step == STEP_INIT && type == NVSP_INIT_DONE && guest_get32(message + 12) == 1) {
		send_config();
		step_to(STEP_RECEIVE);
	} else if (net.step == STEP_RECEIVE && type == NVSP_RECV_DONE &&
		   guest_get32(message + 4) == 1) {
		step_to(STEP_SEND);
	} else if (net.step == STEP_SEND && type == NVSP_SEND_DONE &&
		   guest_get32(message + 4) == 1) {
		take_sections(message);
		step_to(STEP_RNDIS);
	} else if (net.step < STEP_RNDIS) {
		guest_die("the network card refuses a step", "");
	}
}

static void free_section(struct guest_worker *w, const struct guest_packet *packet)
{
	uint64_t section = packet->trans_id - 1, want_got[2] = { 0, packet->trans_id };

	if (guest_source_done(packet->trans_id))
		return;
	if (section >= net.section_count || !net.section_busy[section]) {
		guest_work_bad(w, "completion=", packet->trans_id, want_got, "double");
		return;
	}
	net.section_busy[section] = false;
	net.free_sections[net.free_count++] = (uint16_t)section;
}

/* The answer to a question of RNDIS, which comes as a message of its own. */
static void rndis_answer(const uint8_t *rndis, uint32_t bytes)
{
	uint32_t type = guest_get32(rndis);

	if (bytes < 16 || guest_get32(rndis + 8) != net.request_id)
		return;
	if (guest_get32(rndis + 12) != 0)
		guest_die("the network card refuses a question of RNDIS", "");
	if (net.step == STEP_RNDIS && type == (RNDIS_INIT | RNDIS_DONE)) {
		step_to(STEP_MAC);
	} else if (net.step == STEP_MAC && type == (RNDIS_QUERY | RNDIS_DONE) && bytes >= 24) {
		uint32_t at = 8 + guest_get32(rndis + 20);

		if (guest_get32(rndis + 16) != 6 || at > bytes - 6)
			guest_die("the network card's address is not 6 bytes", "");
		__builtin_memcpy(net.inet.mac, rndis + at, 6);
		step_to(STEP_FILTER);
	} else if (net.step == STEP_FILTER && type == (RNDIS_SET | RNDIS_DONE)) {
		step_to(STEP_READY);
		net.announce = true;
		print_ready();
	}
}

/* The checksum extra of a data packet: does it vouch for UDP? */
static bool vouched(const uint8_t *rndis, uint32_t bytes)
{
	uint32_t at = 8 + guest_get32(rndis + 28), left = guest_get32(rndis + 32);

	while (left >= 16 && at <= bytes - 16) {
		uint32_t size = guest_get32(rndis + at);

		if (guest_get32(rndis + at + 4) == PPI_CHECKSUM)
			return (guest_get32(rndis + at + guest_get32(rndis + at + 8)) &
				UDP_SUM_GOOD) != 0;
		if (size < 12 || size > left)
			break;
		at += size;
		left -= size;
	}
	return false;
}

static void data(const uint8_t *rndis, uint32_t bytes)
{
	uint32_t at = 8 + guest_get32(rndis + 8), length = guest_get32(rndis + 12), section = 0;
	uint8_t *reply = guest_net_frame_begin(&section);
	uint8_t nowhere[GUEST_FRAME_BYTES_MAX + 64];
	uint32_t answer;

	if (at > bytes || length > bytes - at)
		guest_die("a frame is not within its packet", "");
	net.rx++;
	net.rx_bytes += length;
	answer = guest_inet_answer(&net.inet, rndis + at, length, vouched(rndis, bytes),
				   reply != NULL ? reply : nowhere);
	if (answer != 0 && (reply == NULL || !guest_net_frame_send(section, answer)))
		net.dropped++;
}

static void indication(const uint8_t *rndis)
{
	uint32_t status = guest_get32(rndis + 8);

	net.news++;
	if (net.step == STEP_READY && (status == STATUS_CONNECT || status == STATUS_CHANGE))
		net.announce = true;
}

/* One or more RNDIS messages, back to back, in a stretch of the receive buffer. */
static void received(const uint8_t *rndis, uint32_t bytes)
{
	while (bytes >= 12) {
		uint32_t type = guest_get32(rndis), length = guest_get32(rndis + 4);

		if (length < 12 || length > bytes)
			guest_die("an RNDIS message is longer than its place", "");
		if (type == RNDIS_PACKET && length >= RNDIS_HEADER)
			data(rndis, length);
		else if (type == RNDIS_INDICATE)
			indication(rndis);
		else if ((type & RNDIS_DONE) != 0)
			rndis_answer(rndis, length);
		rndis += length;
		bytes -= length;
	}
}

static void transfer(struct guest_worker *w, const struct guest_packet *packet)
{
	uint8_t message[NVSP_BYTES] = { 0 };
	const struct guest_packet done = { .type = GUEST_PACKET_COMPLETION,
					   .trans_id = packet->trans_id,
					   .payload = message,
					   .payload_bytes = sizeof(message) };
	uint64_t want_got[2] = { 0, packet->header_bytes };
	uint32_t count = packet->header_bytes < 16 ? 0 : guest_get32(packet->header + 4);

	if (count == 0 || count > (packet->header_bytes - 8) / 8) {
		guest_work_bad(w, "transfer=", packet->trans_id, want_got, "packet");
		return;
	}
	for (uint32_t i = 0; i < count; i++) {
		uint32_t bytes = guest_get32(packet->header + 8 + (size_t)i * 8);
		uint32_t at = guest_get32(packet->header + 12 + (size_t)i * 8);

		if (at > RECEIVE_BYTES || bytes > RECEIVE_BYTES - at)
			guest_die("what was received is not in the receive buffer", "");
		received(net.receive + at, bytes);
	}
	guest_put32(message, NVSP_RNDIS_DONE);
	guest_put32(message + 4, 1);
	if (!guest_hv_send(net.primary, &done))
		guest_die("no room to give a receive section back", "");
}

void guest_net_packet(struct guest_worker *w, struct guest_channel *channel,
		      const struct guest_packet *packet)
{
	(void)channel;
	if (packet->type == GUEST_PACKET_XFER)
		transfer(w, packet);
	else if (packet->type == GUEST_PACKET_COMPLETION && packet->payload_bytes >= 16 &&
		 packet->trans_id == net.transaction)
		nvsp_answer(packet->payload);
	else if (packet->type == GUEST_PACKET_COMPLETION && (packet->trans_id & CONTROL_ID) == 0)
		free_section(w, packet);
}

/* vCPU 0: the bus is its. */
static void ask_lists(void)
{
	if (net.lists_asked)
		return;
	net.lists_asked = true;
	if (net.receive == NULL) {
		net.receive = guest_region_take(RECEIVE_BYTES);
		net.send = guest_region_take(SEND_BYTES);
		net.control = guest_region_take(PAGE);
	}
	net.send_list = guest_bus_gpadl(&guest_bus, net.primary, net.send, SEND_BYTES);
	__atomic_store_n(&net.receive_list,
			 guest_bus_gpadl(&guest_bus, net.primary, net.receive, RECEIVE_BYTES),
			 __ATOMIC_RELEASE);
}

void guest_net_poll(struct guest_worker *w)
{
	uint64_t want_got[2] = { 0, net.transaction };

	if (net.primary == NULL || !guest_hv_is_open(net.primary))
		return;
	if (w->vcpu == 0)
		ask_lists();
	if (w->vcpu != net.primary->vcpu ||
	    __atomic_load_n(&net.receive_list, __ATOMIC_ACQUIRE) == NULL)
		return;
	if (net.step == STEP_NONE) {
		net.inet.address = (uint32_t)guest_options.net;
		net.inet.peer = (uint32_t)guest_options.net_peer;
		step_to(STEP_INIT);
	}
	if (net.step < STEP_READY && !net.asked)
		ask(w);
	if (net.step < STEP_READY && guest_hv_stalled(w, net.asked_at)) {
		guest_work_bad(w, "net=", net.step, want_got, "stalled");
		net.asked_at = w->active_tsc;
	}
	if (net.announce)
		announce();
}

void guest_net_put(void (*put)(uint64_t offset, uint64_t value))
{
	if (guest_options.net == 0)
		return;
	put(TESTPAGE_NET_RX, net.rx);
	put(TESTPAGE_NET_TX, net.tx);
	put(TESTPAGE_NET_RX_BYTES, net.rx_bytes);
	put(TESTPAGE_NET_TX_BYTES, net.tx_bytes);
	put(TESTPAGE_NET_ARP, net.inet.arp);
	put(TESTPAGE_NET_ICMP, net.inet.icmp);
	put(TESTPAGE_NET_UDP, net.inet.udp);
	put(TESTPAGE_NET_SUNK, net.inet.sunk);
	put(TESTPAGE_NET_BAD_SUM, net.inet.bad_sum);
	put(TESTPAGE_NET_NEWS, net.news);
	put(TESTPAGE_NET_STATE,
	    net.step == STEP_READY ? TESTPAGE_IO_RUNNING : TESTPAGE_IO_STARTING);
}
