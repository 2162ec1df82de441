/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the guest's network card is made to send: datagrams by its send buffer, large TCP packets
 * straight from pages, for the host to cut.
 */
#include <stddef.h>

#include "tests/guest/guest_bytes.h"
#include "tests/guest/guest_call.h"
#include "tests/guest/guest_hv.h"
#include "tests/guest/guest_net_priv.h"
#include "tests/guest/guest_region.h"

#define RETRY_MS        200
#define LARGE_COUNT     16u
#define LARGE_ID        (1ULL << 62) /* transactions: which of the large packets */
#define PPI_BYTES       16u
#define PPI_LARGE_SEND  2
#define LARGE_VERSION_2 (1u << 30)
#define SEGMENT_MAX     0xfffffu

static struct {
	uint8_t *at[LARGE_COUNT];
	bool is_busy[LARGE_COUNT];
	uint64_t sequence;
} source;

uint64_t guest_source_pool_bytes(void)
{
	return (uint64_t)LARGE_COUNT * GUEST_LARGE_PAGES * PAGE;
}

bool guest_source_done(uint64_t trans_id)
{
	uint64_t which = trans_id & ~LARGE_ID;

	if ((trans_id & LARGE_ID) == 0 || which >= LARGE_COUNT || !source.is_busy[which])
		return false;
	source.is_busy[which] = false;
	return true;
}

/* The peer's address, asked for again and again. */
static bool find_peer(struct guest_worker *w, const struct guest_inet *inet, uint64_t end)
{
	uint64_t due = 0, now;

	while (!inet->peer_known) {
		uint32_t section = 0;
		uint8_t *frame = guest_net_frame_begin(&section);

		now = guest_work_observe(w);
		if (guest_tsc() > end)
			return false;
		if (now >= due && frame != NULL) {
			(void)guest_net_frame_send(section,
						   guest_inet_arp(inet, inet->peer, frame));
			due = now + RETRY_MS * guest_tsc_khz;
		}
		guest_hv_poll(w);
	}
	return true;
}

static bool send_datagram(const struct guest_inet *inet, uint32_t payload_bytes)
{
	uint32_t section = 0;
	uint8_t *frame = guest_net_frame_begin(&section);

	return frame != NULL &&
	       guest_net_frame_send(
		       section, guest_inet_datagram(inet, payload_bytes, source.sequence, frame));
}

/* The envelope, one extra that asks for segments, the frame; the payload does not matter. */
static bool send_large(const struct guest_inet *inet, uint32_t payload_bytes, uint32_t segment)
{
	uint32_t which = 0, bytes;
	uint8_t *rndis;

	while (which < LARGE_COUNT && source.is_busy[which])
		which++;
	if (which == LARGE_COUNT)
		return false;
	if (source.at[which] == NULL)
		source.at[which] = guest_region_take(GUEST_LARGE_PAGES * PAGE);
	rndis = source.at[which];
	bytes = payload_bytes + guest_inet_large(inet, payload_bytes, (uint32_t)source.sequence,
						 rndis + RNDIS_HEADER + PPI_BYTES);
	__builtin_memset(rndis, 0, RNDIS_HEADER);
	guest_put32(rndis, RNDIS_PACKET);
	guest_put32(rndis + 4, RNDIS_HEADER + PPI_BYTES + bytes);
	guest_put32(rndis + 8, RNDIS_HEADER + PPI_BYTES - 8);
	guest_put32(rndis + 12, bytes);
	guest_put32(rndis + 28, RNDIS_HEADER - 8);
	guest_put32(rndis + 32, PPI_BYTES);
	guest_put32(rndis + RNDIS_HEADER, PPI_BYTES);
	guest_put32(rndis + RNDIS_HEADER + 4, PPI_LARGE_SEND);
	guest_put32(rndis + RNDIS_HEADER + 8, PPI_BYTES - 4);
	guest_put32(rndis + RNDIS_HEADER + 12,
		    (segment & SEGMENT_MAX) | GUEST_TCP_AT << 20 | LARGE_VERSION_2);
	source.is_busy[which] = guest_net_pages_send(rndis, RNDIS_HEADER + PPI_BYTES + bytes, bytes,
						     LARGE_ID | which);
	return source.is_busy[which];
}

uint64_t guest_net_command(struct guest_worker *w, const struct guest_command *command)
{
	uint64_t bytes = command->args[0], end = guest_tsc() + command->args[1] * guest_tsc_khz;
	uint64_t before = source.sequence, segment = command->args[2];
	uint64_t most = segment != 0 ? GUEST_LARGE_PAYLOAD_MAX : GUEST_DATAGRAM_MAX;
	const struct guest_inet *inet = guest_net_of(w);

	if (inet == NULL || inet->peer == 0)
		return 0;
	if (bytes > most)
		bytes = most;
	if (!find_peer(w, inet, end))
		return 0;
	while (guest_tsc() < end) {
		guest_work_observe(w);
		while (segment != 0 ? send_large(inet, (uint32_t)bytes, (uint32_t)segment)
				    : send_datagram(inet, (uint32_t)bytes))
			source.sequence++;
		guest_hv_poll(w);
	}
	return source.sequence - before;
}
