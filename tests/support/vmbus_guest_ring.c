/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The guest's end of a channel: rings as Linux handles them.
 */
#include <errno.h>
#include <string.h>
#include <sys/uio.h>

#include "base/bytes.h"
#include "tests/support/vmbus_guest_priv.h"

#define M_OPEN        5u
#define M_OPEN_RESULT 6u
#define M_CLOSE       7u

/* Ring header, by offset. */
#define RING_WRITE   0u
#define RING_READ    4u
#define RING_MASK    8u
#define RING_PENDING 12u
#define RING_FEATURE 64u

#define DESCRIPTOR_BYTES         16u
#define TRAILER_BYTES            8u
#define PACKET_COMPLETION_WANTED 1u
#define DEFAULT_PAGES            9u

static uint8_t *page(const struct vmbus_guest_channel *channel, uint32_t index)
{
	return vmbus_guest_at(channel->guest, channel->pfns[index] * HV_PAGE_BYTES, HV_PAGE_BYTES);
}

uint32_t *vmbus_guest_ring_word(struct vmbus_guest_channel *channel, bool in, uint32_t offset)
{
	return (uint32_t *)(void *)(page(channel, in ? channel->out_pages : 0) + offset);
}

static uint32_t load(struct vmbus_guest_channel *channel, bool in, uint32_t offset)
{
	return __atomic_load_n(vmbus_guest_ring_word(channel, in, offset), __ATOMIC_SEQ_CST);
}

static void store(struct vmbus_guest_channel *channel, bool in, uint32_t offset, uint32_t value)
{
	__atomic_store_n(vmbus_guest_ring_word(channel, in, offset), value, __ATOMIC_SEQ_CST);
}

static uint32_t data_bytes(const struct vmbus_guest_channel *channel, bool in)
{
	return (uint32_t)(((in ? channel->in_pages : channel->out_pages) - 1) * HV_PAGE_BYTES);
}

/* The ring's data, byte by byte over the page ends and the ring's own: returns where it ends. */
static uint32_t copy(struct vmbus_guest_channel *channel, bool in, uint32_t at, void *bytes,
		     uint32_t size_bytes, bool write)
{
	uint32_t first = (in ? channel->out_pages : 0) + 1;
	uint32_t total = data_bytes(channel, in);
	uint8_t *moved = bytes;

	for (uint32_t i = 0; i < size_bytes; i++) {
		uint8_t *byte =
			page(channel, first + (uint32_t)(at / HV_PAGE_BYTES)) + at % HV_PAGE_BYTES;

		if (write)
			*byte = moved[i];
		else
			moved[i] = *byte;
		at = at + 1 == total ? 0 : at + 1;
	}
	return at;
}

uint32_t vmbus_guest_open(struct vmbus_guest *guest, const struct vmbus_guest_offer *offer,
			  uint32_t pages, struct vmbus_guest_channel *ret_channel)
{
	struct vmbus_guest_channel channel = {
		.guest = guest,
		.relid = offer->relid,
		.connection_id = offer->connection_id,
		.out_pages = pages != 0 ? pages : DEFAULT_PAGES,
		.in_pages = pages != 0 ? pages : DEFAULT_PAGES,
	};
	uint8_t m[148] = { M_OPEN };
	struct hv_message answer;

	if (2 * channel.out_pages > VMBUS_GUEST_RING_MAX)
		vmbus_guest_give_up("ring too large", pages);
	vmbus_guest_scattered(guest, 2 * channel.out_pages, channel.pfns);
	store(&channel, false, RING_FEATURE, 1);
	store(&channel, true, RING_FEATURE, 1);
	if (vmbus_guest_gpadl(guest, channel.relid, channel.pfns, 2 * channel.out_pages,
			      &channel.gpadl) != 0)
		vmbus_guest_give_up("page list of a ring", channel.relid);
	base_put_le32(m + 8, channel.relid);
	base_put_le32(m + 12, channel.relid);
	base_put_le32(m + 16, channel.gpadl);
	base_put_le32(m + 20, channel.target_vp);
	base_put_le32(m + 24, channel.out_pages);
	if (vmbus_guest_post(guest, 4, m, sizeof(m)) != HV_STATUS_SUCCESS)
		vmbus_guest_give_up("open was refused", channel.relid);
	vmbus_guest_expect(guest, M_OPEN_RESULT, &answer);
	if (base_get_le32(answer.payload + 8) != channel.relid)
		vmbus_guest_give_up("another channel was opened",
				    base_get_le32(answer.payload + 8));
	*ret_channel = channel;
	return base_get_le32(answer.payload + 16);
}

void vmbus_guest_close(struct vmbus_guest_channel *channel)
{
	uint8_t m[12] = { M_CLOSE };

	base_put_le32(m + 8, channel->relid);
	(void)vmbus_guest_post(channel->guest, 4, m, sizeof(m));
	if (!vmbus_guest_teardown(channel->guest, channel->relid, channel->gpadl))
		vmbus_guest_give_up("no TORNDOWN after a close", channel->gpadl);
}

void vmbus_guest_signal(struct vmbus_guest_channel *channel)
{
	channel->signal_count++;
	(void)vmbus_hypercall_ops.signal_event(vmbus_guest_bus(channel->guest),
					       channel->connection_id, 0);
	vmbus_guest_run(channel->guest);
}

int vmbus_guest_send(struct vmbus_guest_channel *channel, uint16_t type, uint16_t flags,
		     uint64_t trans_id, const struct iovec pieces[2], bool signal)
{
	uint32_t header = (uint32_t)pieces[0].iov_len;
	uint32_t payload = (uint32_t)pieces[1].iov_len;
	uint32_t padded = (payload + 7) & ~7U;
	uint32_t total = DESCRIPTOR_BYTES + header + padded;
	uint32_t before = load(channel, false, RING_WRITE);
	uint32_t read = load(channel, false, RING_READ);
	uint32_t ring = data_bytes(channel, false);
	uint32_t used = before >= read ? before - read : ring - read + before;
	uint8_t descriptor[DESCRIPTOR_BYTES];
	uint8_t trailer[TRAILER_BYTES] = { 0 };
	uint8_t zeros[8] = { 0 };
	uint32_t at = before;

	if (ring - used <= total + TRAILER_BYTES)
		return -EAGAIN;
	base_put_le16(descriptor, type);
	base_put_le16(descriptor + 2, (uint16_t)((DESCRIPTOR_BYTES + header) / 8));
	base_put_le16(descriptor + 4, (uint16_t)(total / 8));
	base_put_le16(descriptor + 6, flags);
	base_put_le64(descriptor + 8, trans_id);
	base_put_le32(trailer + 4, before);
	at = copy(channel, false, at, descriptor, sizeof(descriptor), true);
	at = copy(channel, false, at, pieces[0].iov_base, header, true);
	at = copy(channel, false, at, pieces[1].iov_base, payload, true);
	at = copy(channel, false, at, zeros, padded - payload, true);
	at = copy(channel, false, at, trailer, sizeof(trailer), true);
	store(channel, false, RING_WRITE, at);
	/* As Linux: only when the host has emptied the ring and does not look by itself. */
	if (signal && load(channel, false, RING_MASK) == 0 &&
	    before == load(channel, false, RING_READ))
		vmbus_guest_signal(channel);
	return 0;
}

int vmbus_guest_send_inband(struct vmbus_guest_channel *channel, uint64_t trans_id,
			    const void *payload, uint32_t size_bytes, bool wants_completion)
{
	uint8_t stable[4096];
	const struct iovec pieces[2] = { { stable, 0 }, { stable, size_bytes } };

	if (size_bytes > sizeof(stable))
		vmbus_guest_give_up("packet too large", size_bytes);
	memcpy(stable, payload, size_bytes);
	return vmbus_guest_send(channel, VMBUS_PACKET_INBAND,
				wants_completion ? PACKET_COMPLETION_WANTED : 0, trans_id, pieces,
				true);
}

int vmbus_guest_send_direct(struct vmbus_guest_channel *channel, uint64_t trans_id,
			    const void *payload, uint32_t payload_bytes, const uint64_t *pfns,
			    uint32_t offset, uint32_t length)
{
	uint8_t header[16 + 8 * 1024] = { 0 };
	uint8_t stable[4096];
	uint32_t count = (uint32_t)((offset + length + HV_PAGE_BYTES - 1) / HV_PAGE_BYTES);
	const struct iovec pieces[2] = { { header, 16 + 8 * count }, { stable, payload_bytes } };

	if (count > 1024 || payload_bytes > sizeof(stable))
		vmbus_guest_give_up("packet too large", count);
	memcpy(stable, payload, payload_bytes);
	base_put_le32(header + 4, 1);
	base_put_le32(header + 8, length);
	base_put_le32(header + 12, offset);
	for (uint32_t i = 0; i < count; i++)
		base_put_le64(header + 16 + 8 * i, pfns[i]);
	return vmbus_guest_send(channel, VMBUS_PACKET_GPA_DIRECT, PACKET_COMPLETION_WANTED,
				trans_id, pieces, true);
}

/* As Linux after it has made room: tell a host that waits for as much as there is now. */
static void made_room(struct vmbus_guest_channel *channel, uint32_t free_before)
{
	uint32_t wanted = load(channel, true, RING_PENDING);
	uint32_t write = load(channel, true, RING_WRITE);
	uint32_t read = load(channel, true, RING_READ);
	uint32_t ring = data_bytes(channel, true);
	uint32_t free_now = ring - (write >= read ? write - read : ring - read + write);

	if (wanted != 0 && free_before <= wanted && free_now > wanted)
		vmbus_guest_signal(channel);
}

bool vmbus_guest_receive(struct vmbus_guest_channel *channel, struct vmbus_guest_packet *ret_packet)
{
	uint32_t ring = data_bytes(channel, true);
	uint8_t descriptor[DESCRIPTOR_BYTES];
	uint32_t write;
	uint32_t read;
	uint32_t header;
	uint32_t total;

	vmbus_guest_run(channel->guest);
	write = load(channel, true, RING_WRITE);
	read = load(channel, true, RING_READ);
	if (write == read)
		return false;
	(void)copy(channel, true, read, descriptor, sizeof(descriptor), false);
	header = base_get_le16(descriptor + 2) * 8U;
	total = base_get_le16(descriptor + 4) * 8U;
	if (header < DESCRIPTOR_BYTES || total < header ||
	    total - DESCRIPTOR_BYTES > sizeof(ret_packet->bytes) || total + TRAILER_BYTES > ring)
		vmbus_guest_give_up("malformed packet from the host", total);
	*ret_packet = (struct vmbus_guest_packet){
		.type = base_get_le16(descriptor),
		.flags = base_get_le16(descriptor + 6),
		.trans_id = base_get_le64(descriptor + 8),
		.header_bytes = header - DESCRIPTOR_BYTES,
		.payload_bytes = total - header,
	};
	(void)copy(channel, true, (read + DESCRIPTOR_BYTES) % ring, ret_packet->bytes,
		   total - DESCRIPTOR_BYTES, false);
	store(channel, true, RING_READ, (read + total + TRAILER_BYTES) % ring);
	made_room(channel, ring - (write >= read ? write - read : ring - read + write));
	return true;
}

bool vmbus_guest_event(struct vmbus_guest_channel *channel)
{
	uint32_t *words = vmbus_guest_flags(channel->guest, channel->target_vp);
	uint32_t bit = 1U << channel->relid % 32;

	vmbus_guest_run(channel->guest);
	return (__atomic_fetch_and(&words[channel->relid / 32], ~bit, __ATOMIC_SEQ_CST) & bit) != 0;
}
