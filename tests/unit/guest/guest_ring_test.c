/* SPDX-License-Identifier: Apache-2.0 */
/* The test guest's rings: two ends over the same memory, the second with the halves changed over.
 */
#include <criterion/criterion.h>
#include <string.h>

/* Part of the guest image, not of a library.  NOLINTNEXTLINE(bugprone-suspicious-include) */
#include "tests/guest/guest_ring.c"
#include "tests/guest/testpage.h"

#define RING_BYTES (16u << 10) /* 4 KiB of data each way */
#define PAYLOAD    512u

static uint8_t memory[RING_BYTES] __attribute__((aligned(4096)));
static uint8_t buffer[4096];
static struct guest_ring guest, host;

static void setup(void)
{
	memset(memory, 0, sizeof(memory));
	guest_ring_init(&guest, memory, RING_BYTES);
	host = guest;
	host.out = guest.in;
	host.in = guest.out;
}

static uint32_t fill(uint8_t *payload, uint64_t number)
{
	uint32_t bytes = (uint32_t)(testpage_mix(number) % PAYLOAD);

	for (uint32_t i = 0; i < bytes; i++)
		payload[i] = (uint8_t)testpage_mix(number * PAYLOAD + i);
	return bytes;
}

static bool put_packet(struct guest_ring *ring, uint64_t number, bool *signal)
{
	uint8_t payload[PAYLOAD];
	const struct guest_packet packet = { .type = GUEST_PACKET_INBAND,
					     .flags = (uint16_t)(number & 1),
					     .trans_id = number,
					     .payload = payload,
					     .payload_bytes = fill(payload, number) };

	return guest_ring_write(ring, &packet, signal);
}

static void check_packet(const struct guest_packet *packet, uint64_t number)
{
	uint8_t payload[PAYLOAD];
	uint32_t bytes = fill(payload, number);

	cr_assert_eq(packet->trans_id, number);
	cr_assert_eq(packet->flags, number & 1);
	cr_assert_eq(packet->payload_bytes, (bytes + 7) / 8 * 8);
	cr_assert_arr_eq(packet->payload, payload, bytes);
}

Test(guest_ring, packets_come_out_as_they_went_in, .init = setup)
{
	struct guest_packet packet;
	uint64_t written = 0, read = 0;
	bool signal = false;

	for (uint64_t turn = 0; turn < 20000; turn++) {
		if (testpage_mix(turn) % 2 == 0) {
			if (put_packet(&guest, written, &signal))
				written++;
		} else if (guest_ring_read(&host, buffer, sizeof(buffer), &packet) == 1) {
			check_packet(&packet, read++);
			(void)guest_ring_publish(&host);
		}
	}
	cr_assert_gt(read, 5000);
	cr_assert_eq(host.received + (written - read), guest.sent);
}

/* The reader only looks when it was told, the writer that was refused only tries again when it
 * was told: nothing must be left lying. */
Test(guest_ring, nobody_waits_for_ever, .init = setup)
{
	bool told_reader = true, told_writer = true, refused = false;
	struct guest_packet packet;
	uint64_t written = 0, read = 0;

	for (uint64_t turn = 0; read < 20000; turn++) {
		uint64_t dice = testpage_mix(turn + 1);

		cr_assert(told_reader || !refused || told_writer || written == read,
			  "both wait, %lu written, %lu read", written, read);
		if (dice % 2 == 0 && (!refused || told_writer)) {
			told_writer = false;
			refused = false;
			for (uint64_t i = dice % 16; i > 0 && !refused; i--) {
				refused = !put_packet(&guest, written, &told_reader);
				written += refused ? 0 : 1;
			}
		} else if (dice % 2 == 1 && told_reader) {
			guest_ring_mask(&host, true);
			for (uint64_t i = dice / 2 % 64;
			     i > 0 && guest_ring_read(&host, buffer, sizeof(buffer), &packet) == 1;
			     i--)
				check_packet(&packet, read++);
			if (guest_ring_publish(&host))
				told_writer = true;
			guest_ring_mask(&host, false);
			told_reader = !guest_ring_is_empty(&host);
		}
	}
}

Test(guest_ring, a_signal_only_for_an_empty_ring_that_is_not_masked, .init = setup)
{
	bool signal = false;

	cr_assert(put_packet(&guest, 1, &signal));
	cr_assert(signal);
	signal = false;
	cr_assert(put_packet(&guest, 2, &signal));
	cr_assert_not(signal, "the host knows already");
	setup();
	guest_ring_mask(&host, true);
	cr_assert(put_packet(&guest, 1, &signal));
	cr_assert_not(signal, "the host looks by itself");
}

Test(guest_ring, what_is_no_packet_is_refused, .init = setup)
{
	struct guest_packet packet;
	bool signal = false;

	cr_assert_eq(guest_ring_read(&host, buffer, sizeof(buffer), &packet), 0);
	guest.out.header[WRITE_INDEX] = 8; /* less than a descriptor */
	cr_assert_eq(guest_ring_read(&host, buffer, sizeof(buffer), &packet), -1);
	guest.out.header[WRITE_INDEX] = guest.out.size_bytes;
	cr_assert_eq(guest_ring_read(&host, buffer, sizeof(buffer), &packet), -1);
	setup();
	cr_assert(put_packet(&guest, 3, &signal));
	guest_put16(guest.out.data + 4, 0xffff); /* longer than what is there */
	cr_assert_eq(guest_ring_read(&host, buffer, sizeof(buffer), &packet), -1);
	guest_put16(guest.out.data + 4, 2);
	guest_put16(guest.out.data + 2, 3); /* the payload begins behind its end */
	cr_assert_eq(guest_ring_read(&host, buffer, sizeof(buffer), &packet), -1);
}
