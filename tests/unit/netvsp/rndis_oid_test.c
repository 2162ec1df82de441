/* SPDX-License-Identifier: Apache-2.0 */
#include "hypervisor/netvsp/rndis_oid.h"

#include <criterion/criterion.h>
#include <string.h>

static const struct rndis_card card = {
	.nvsp_version = 0x60001,
	.permanent_mac = { 2, 0, 0, 0, 0, 1 },
	.mac = { 2, 0, 0, 0, 0, 1 },
	.mtu = 1500,
	.link_up = true,
	.queue_count = 4,
};

static uint32_t query(const struct rndis_card *of, uint32_t oid, uint8_t *info)
{
	uint32_t bytes = 0;

	if (rndis_oid_query(of, oid, info, &bytes) != RNDIS_STATUS_SUCCESS)
		cr_assert_eq(bytes, 0);
	return bytes;
}

Test(rndis_oid, what_a_linux_driver_asks_for)
{
	struct rndis_card down = card;
	uint8_t info[RNDIS_INFO_BYTES_MAX];

	cr_assert_eq(query(&card, 0x00010106, info), 4);
	cr_assert_eq(base_get_le32(info), 1500);
	cr_assert_eq(query(&card, 0x01010101, info), 6);
	cr_assert_eq(memcmp(info, card.mac, 6), 0);
	cr_assert_eq(query(&card, 0x00010107, info), 4);
	cr_assert_eq(base_get_le32(info) / 10000, 10000); /* Mbit/s */
	cr_assert_eq(query(&card, 0x00010114, info), 4);
	cr_assert_eq(base_get_le32(info), 0);
	down.link_up = false;
	cr_assert_eq(query(&down, 0x00010114, info), 4);
	cr_assert_eq(base_get_le32(info), 1);
	cr_assert_eq(query(&card, 0x00020216, info), 0); /* no name: it may fail */
	cr_assert_eq(query(&card, 0xDEADBEEF, info), 0);
}

/* The conditions of rndis_netdev_set_hwcaps(): checksums of TCP and UDP, large sends. */
Test(rndis_oid, offloads_that_linux_turns_on)
{
	static const struct {
		uint32_t version, bytes, revision;
	} cases[] = {
		{ 0x60001, 156, 3 }, { 0x50000, 156, 3 }, { 0x40000, 144, 2 }, { 2, 112, 1 }
	};
	uint8_t info[RNDIS_INFO_BYTES_MAX];

	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		struct rndis_card old = card;

		old.nvsp_version = cases[i].version;
		cr_assert_eq(query(&old, 0xFC01020D, info), cases[i].bytes);
		cr_assert_eq(info[0], 0xA7);
		cr_assert_eq(info[1], cases[i].revision);
		cr_assert_eq(base_get_le16(info + 2), cases[i].bytes);
		cr_assert_eq(base_get_le32(info + 8) & 0x54, 0x54);  /* TCP4, its options, UDP4 */
		cr_assert_eq(base_get_le32(info + 24) & 0x55, 0x55); /* TCP6, UDP6 */
		cr_assert_eq(base_get_le32(info + 80) & 2, 2);       /* LSOv2 on IPv4 */
		cr_assert_eq(base_get_le32(info + 84), RNDIS_SEGMENT_BYTES_MAX);
		cr_assert_eq(base_get_le32(info + 92) & 2, 2); /* on IPv6 */
		cr_assert_eq(base_get_le32(info + 104) & 5, 5);
		if (cases[i].bytes == 156)
			cr_assert_eq(base_get_le16(info + 144), 0); /* no coalescing */
	}
}

Test(rndis_oid, several_queues_only_where_there_are_some)
{
	struct rndis_card one = card;
	uint8_t info[RNDIS_INFO_BYTES_MAX];

	cr_assert_eq(query(&card, 0x00010203, info), 18);
	cr_assert_eq(base_get_le32(info + 12 - 4), 4);
	cr_assert_eq(base_get_le32(info + 12), 4);
	cr_assert_eq(base_get_le16(info + 16), 128);
	one.queue_count = 1;
	cr_assert_eq(query(&one, 0x00010203, info), 0);
	one = card;
	one.nvsp_version = 0x40000;
	cr_assert_eq(query(&one, 0x00010203, info), 0);
}

static uint32_t set(const struct rndis_card *of, uint32_t oid, const void *info, uint32_t bytes,
		    struct rndis_change *change)
{
	const struct rndis_control control = {
		.type = RNDIS_SET, .oid = oid, .info = info, .info_bytes = bytes
	};

	return rndis_oid_set(of, &control, change);
}

Test(rndis_oid, the_filter)
{
	const uint8_t value[4] = { 0x0D, 0, 0, 0xFF };
	struct rndis_change change;

	cr_assert_eq(set(&card, 0x0001010E, value, 4, &change), RNDIS_STATUS_SUCCESS);
	cr_assert_eq(change.kind, RNDIS_CHANGE_FILTER);
	cr_assert_eq(change.filter, 0x0D);
	cr_assert_eq(set(&card, 0x0001010E, value, 3, &change), RNDIS_STATUS_INVALID_LENGTH);
}

Test(rndis_oid, offload_parameters)
{
	uint8_t value[32] = { 0x80, 3, 32, 0, 1, 4, 4, 2, 4, 0, 0, 2, 1 };
	struct rndis_change change;

	cr_assert_eq(set(&card, 0xFC01020C, value, 32, &change), RNDIS_STATUS_SUCCESS);
	cr_assert_eq(change.offloads_on, RNDIS_OFFLOAD_TX_CHECKSUM4 | RNDIS_OFFLOAD_RX_CHECKSUM4 |
						 RNDIS_OFFLOAD_TX_CHECKSUM6 |
						 RNDIS_OFFLOAD_SEGMENT4);
	cr_assert_eq(change.offloads_off, RNDIS_OFFLOAD_RX_CHECKSUM6 | RNDIS_OFFLOAD_SEGMENT6);
	cr_assert_eq(set(&card, 0xFC01020C, value, 22, &change), RNDIS_STATUS_SUCCESS);
	cr_assert_eq(set(&card, 0xFC01020C, value, 12, &change), RNDIS_STATUS_INVALID_LENGTH);
	value[5] = 5;
	cr_assert_eq(set(&card, 0xFC01020C, value, 32, &change), RNDIS_STATUS_INVALID_DATA);
	value[5] = 4;
	value[11] = 3;
	cr_assert_eq(set(&card, 0xFC01020C, value, 32, &change), RNDIS_STATUS_INVALID_DATA);
}

static uint32_t mac_make(uint8_t *to, const char *text)
{
	static const char name[] = "NetworkAddress";

	memset(to, 0, 72);
	base_put_le32(to, 20);
	base_put_le32(to + 4, 28);
	base_put_le32(to + 8, 2);
	base_put_le32(to + 12, 48);
	base_put_le32(to + 16, 24);
	for (size_t i = 0; i < 14; i++)
		to[20 + 2 * i] = (uint8_t)name[i];
	for (size_t i = 0; i < 12; i++)
		to[48 + 2 * i] = (uint8_t)text[i];
	return 72;
}

Test(rndis_oid, another_address_only_where_that_is_allowed)
{
	struct rndis_card free_card = card;
	struct rndis_change change;
	uint8_t value[72];
	uint32_t bytes = mac_make(value, "02000000000a");

	cr_assert_eq(set(&card, 0x0001021B, value, bytes, &change), RNDIS_STATUS_FAILURE);
	free_card.mac_may_change = true;
	cr_assert_eq(set(&free_card, 0x0001021B, value, bytes, &change), RNDIS_STATUS_SUCCESS);
	cr_assert_eq(change.kind, RNDIS_CHANGE_MAC);
	cr_assert_eq(memcmp(change.mac, "\2\0\0\0\0\12", 6), 0);
	bytes = mac_make(value, "020000000001"); /* its own again */
	cr_assert_eq(set(&card, 0x0001021B, value, bytes, &change), RNDIS_STATUS_SUCCESS);
	bytes = mac_make(value, "010000000001"); /* a group */
	cr_assert_eq(set(&free_card, 0x0001021B, value, bytes, &change), RNDIS_STATUS_INVALID_DATA);
	bytes = mac_make(value, "0200000000g1");
	cr_assert_eq(set(&free_card, 0x0001021B, value, bytes, &change), RNDIS_STATUS_INVALID_DATA);
	bytes = mac_make(value, "02000000000a");
	base_put_le32(value + 12, 49);
	cr_assert_eq(set(&free_card, 0x0001021B, value, bytes, &change), RNDIS_STATUS_INVALID_DATA);
	base_put_le32(value + 12, 0xFFFFFFF0);
	cr_assert_eq(set(&free_card, 0x0001021B, value, bytes, &change), RNDIS_STATUS_INVALID_DATA);
	bytes = mac_make(value, "02000000000a");
	value[20] = 'X';
	cr_assert_eq(set(&free_card, 0x0001021B, value, bytes, &change),
		     RNDIS_STATUS_NOT_SUPPORTED);
}
