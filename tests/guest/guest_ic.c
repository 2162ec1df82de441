/* SPDX-License-Identifier: Apache-2.0 */
/* See guest_ic.h.  Layouts: docs/hypervisor/ic/ic.md. */
#include "tests/guest/guest_ic.h"

#include <stddef.h>

#include "tests/guest/guest_bytes.h"
#include "tests/guest/guest_control.h"
#include "tests/guest/guest_hv.h"
#include "tests/guest/guest_print.h"

#define TYPE           12 /* offsets in the packet, pipe header included */
#define STATUS         20
#define FLAGS          25
#define BODY           28
#define FLAGS_ANSWER   5 /* transaction, response */
#define NEGOTIATE      0
#define PACKET_MAX     4096
#define VERSIONS_MAX   32
#define STATUS_FAIL    0x80004005
#define STATUS_NO_MORE 0x80070103
#define SHUTDOWN_FORCE 1
#define SHUTDOWN_AGAIN 2 /* restart */
#define TIME_V4        4
#define TIME_SYNC      1
#define EPOCH_DELTA_MS 11644473600000 /* 1601 to 1970 */
#define KVP_SET        1
#define KVP_ENUMERATE  3
#define KVP_KEY_BYTES  512
#define VSS_CAPABLE    3
#define VSS_FREEZE     5
#define VSS_THAW       6
#define UTF16_CHARS    100

/* What this guest knows, newest first: major << 16 | minor. */
struct service {
	enum guest_class class;
	uint32_t versions[4];
};
static const struct service services[] = {
	{ GUEST_CLASS_HEARTBEAT, { 0x30000, 0x10000 } },
	{ GUEST_CLASS_SHUTDOWN, { 0x30002, 0x30001, 0x30000, 0x10000 } },
	{ GUEST_CLASS_TIMESYNC, { 0x40000, 0x30000, 0x10000 } },
	{ GUEST_CLASS_KVP, { 0x40000, 0x30000 } },
	{ GUEST_CLASS_VSS, { 0x50000 } },
};
static const uint32_t frameworks[] = { 0x30000, 0x10000, 0 };

static struct {
	uint64_t beats, syncs, time_ms, kvp, frozen;
	uint32_t versions[GUEST_CLASSES];
	uint8_t packet[PACKET_MAX];
} ic;

bool guest_ic_is_frozen(void)
{
	return __atomic_load_n(&ic.frozen, __ATOMIC_RELAXED) != 0;
}

/* As {u16 major, u16 minor}, which is how they go over the channel. */
static uint32_t get_version(const uint8_t *from)
{
	return (uint32_t)guest_get16(from) << 16 | guest_get16(from + 2);
}

static void put_version(uint8_t *to, uint32_t version)
{
	guest_put16(to, (uint16_t)(version >> 16));
	guest_put16(to + 2, (uint16_t)version);
}

static uint32_t choose(const uint8_t *offered, uint32_t count, const uint32_t *known)
{
	for (; *known != 0; known++)
		for (uint32_t i = 0; i < count; i++)
			if (get_version(offered + (size_t)i * 4) == *known)
				return *known;
	return 0;
}

static const uint32_t *versions_of(enum guest_class class)
{
	for (unsigned int i = 0; i < sizeof(services) / sizeof(services[0]); i++)
		if (services[i].class == class)
			return services[i].versions;
	return frameworks;
}

static void negotiate(enum guest_class class, uint8_t *packet, uint32_t bytes)
{
	uint8_t *body = packet + BODY;
	uint32_t framework_count = guest_get16(body), message_count = guest_get16(body + 2);
	uint32_t known[5] = { 0 }, framework = 0, message = 0;

	for (unsigned int i = 0; i < 4; i++) {
		known[i] = versions_of(class)[i];
		if (known[i] == 0)
			break;
	}
	if (framework_count + message_count <= VERSIONS_MAX &&
	    bytes >= BODY + 8 + (framework_count + message_count) * 4) {
		framework = choose(body + 8, framework_count, frameworks);
		message = choose(body + 8 + (size_t)framework_count * 4, message_count, known);
	}
	guest_put16(body, framework != 0 && message != 0 ? 1 : 0);
	guest_put16(body + 2, framework != 0 && message != 0 ? 1 : 0);
	put_version(body + 8, framework);
	put_version(body + 12, message);
	ic.versions[class] = message;
}

static void print_version(const struct guest_channel *channel)
{
	struct guest_line line = { .used = 0 };

	guest_line_text(&line, "guest: service ");
	guest_line_text(&line, guest_class_names[channel->class]);
	guest_line_hex(&line, " version=0x", ic.versions[channel->class], 1);
	guest_line_send(&line);
}

static void time_told(const uint8_t *body, uint32_t body_bytes)
{
	bool has_reference = ic.versions[GUEST_CLASS_TIMESYNC] >> 16 >= TIME_V4;
	uint64_t lag = has_reference ? guest_hv_reference_time() - guest_get64(body + 8) : 0;
	uint8_t flags = has_reference ? body[16] : body[24];
	struct guest_line line = { .used = 0 };

	if (body_bytes < 24 || (flags & TIME_SYNC) == 0)
		return;
	ic.time_ms = (guest_get64(body) + lag) / 10000 - EPOCH_DELTA_MS;
	ic.syncs++;
	guest_line_number(&line, "guest: time unix_ms=", ic.time_ms);
	guest_line_number(&line, " lag_us=", lag / 10);
	guest_line_send(&line);
}

/* UTF-16 in the packet, with its zero; its length in bytes. */
static uint32_t put_text(uint8_t *to, const char *text)
{
	uint32_t i = 0;

	do
		guest_put16(to + (size_t)i * 2, (uint8_t)text[i]);
	while (text[i++] != '\0' && i < UTF16_CHARS);
	return i * 2;
}

static const char *const pairs[][2] = {
	{ "FullyQualifiedDomainName", "testguest.godwit.example" },
	{ "IntegrationServicesVersion", "1.0" },
	{ "OSName", "Godwit test guest" },
	{ "OSVersion", "1" },
	{ "OSBuildNumber", "1" },
	{ "OSPlatformId", "2" },
	{ "ProcessorArchitecture", "9" },
	{ "NetworkAddressIPv4", "" },
	{ "NetworkAddressIPv6", "" },
};

/* An address as in the command line. */
static void put_address(char *to)
{
	unsigned int at = 0;

	for (int shift = 24; shift >= 0; shift -= 8) {
		uint64_t part = (guest_options.net >> shift) & 255;

		if (part >= 100)
			to[at++] = (char)('0' + part / 100);
		if (part >= 10)
			to[at++] = (char)('0' + part / 10 % 10);
		to[at++] = (char)('0' + part % 10);
		to[at++] = '.';
	}
	to[at - 1] = '\0';
}

/* Body: u8 operation, u8 pool, u16; enumerate: u32 index, u32 type, key bytes, value bytes, key,
 * value.  Return: status. */
static uint32_t kvp(uint8_t *body, uint32_t bytes)
{
	uint32_t index = guest_get32(body + 4);
	char address[16] = "";

	ic.kvp++;
	if (body[0] == KVP_SET)
		return 0;
	if (body[0] != KVP_ENUMERATE || bytes < 4 + 16 + KVP_KEY_BYTES + UTF16_CHARS * 2)
		return STATUS_FAIL;
	if (index >= sizeof(pairs) / sizeof(pairs[0]))
		return STATUS_NO_MORE;
	if (index == 7 && guest_options.net != 0)
		put_address(address);
	guest_put32(body + 8, 1); /* a string */
	guest_put32(body + 12, put_text(body + 20, pairs[index][0]));
	guest_put32(body + 16,
		    put_text(body + 20 + KVP_KEY_BYTES, index == 7 ? address : pairs[index][1]));
	return 0;
}

static uint32_t vss(uint8_t *body)
{
	if (body[0] == VSS_FREEZE || body[0] == VSS_THAW)
		__atomic_store_n(&ic.frozen, body[0] == VSS_FREEZE ? 1 : 0, __ATOMIC_RELEASE);
	else if (body[0] == VSS_CAPABLE)
		guest_put32(body + 4, 0); /* no flag: a freeze is possible */
	return 0;
}

static void answer(struct guest_channel *channel, const struct guest_packet *packet, uint32_t bytes)
{
	const struct guest_packet send = { .type = GUEST_PACKET_INBAND,
					   .trans_id = packet->trans_id,
					   .payload = ic.packet,
					   .payload_bytes = bytes };

	ic.packet[FLAGS] = FLAGS_ANSWER;
	(void)guest_hv_send(channel, &send);
}

static void request(struct guest_channel *channel, uint8_t *body, uint32_t body_bytes)
{
	uint32_t status = 0;

	switch (channel->class) {
	case GUEST_CLASS_HEARTBEAT:
		guest_put64(body, guest_get64(body) + 1);
		ic.beats++;
		break;
	case GUEST_CLASS_TIMESYNC:
		time_told(body, body_bytes);
		break;
	case GUEST_CLASS_KVP:
		status = kvp(body, body_bytes);
		break;
	case GUEST_CLASS_VSS:
		status = vss(body);
		break;
	case GUEST_CLASS_SHUTDOWN:
		if (body_bytes < 12 ||
		    (guest_get32(body + 8) & ~(uint32_t)(SHUTDOWN_FORCE | SHUTDOWN_AGAIN)) != 0)
			status = STATUS_FAIL;
		break;
	case GUEST_CLASS_OTHER:
	case GUEST_CLASS_SCSI:
	case GUEST_CLASS_NIC:
	case GUEST_CLASSES:
	default:
		break;
	}
	guest_put32(ic.packet + STATUS, status);
}

static void shut_down(const uint8_t *body)
{
	uint32_t flags = guest_get32(body + 8);
	struct guest_line line = { .used = 0 };

	if (guest_get32(ic.packet + STATUS) != 0)
		return;
	guest_line_number(&line, "guest: shutdown asked flags=", flags);
	guest_line_send(&line);
	guest_control_ask_end((flags & SHUTDOWN_AGAIN) != 0);
}

void guest_ic_packet(struct guest_worker *w, struct guest_channel *channel,
		     const struct guest_packet *packet)
{
	uint32_t bytes = packet->payload_bytes;
	uint64_t want_got[2] = { BODY, bytes };

	if (packet->type != GUEST_PACKET_INBAND || bytes < BODY + 8 || bytes > PACKET_MAX) {
		guest_work_bad(w, "service=", (uint64_t)channel->class, want_got, "packet");
		return;
	}
	__builtin_memcpy(ic.packet, packet->payload, bytes);
	if (guest_get16(ic.packet + TYPE) == NEGOTIATE) {
		negotiate(channel->class, ic.packet, bytes);
		guest_put32(ic.packet + STATUS, 0);
		answer(channel, packet, bytes);
		print_version(channel);
		return;
	}
	request(channel, ic.packet + BODY, bytes - BODY);
	answer(channel, packet, bytes);
	if (channel->class == GUEST_CLASS_SHUTDOWN)
		shut_down(ic.packet + BODY);
}

void guest_ic_put(void (*put)(uint64_t offset, uint64_t value))
{
	if (guest_options.ic == 0)
		return;
	put(TESTPAGE_IC_BEATS, ic.beats);
	put(TESTPAGE_IC_SYNCS, ic.syncs);
	put(TESTPAGE_IC_TIME_MS, ic.time_ms);
	put(TESTPAGE_IC_KVP, ic.kvp);
	put(TESTPAGE_IC_FROZEN, ic.frozen);
}
