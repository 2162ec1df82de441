/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The objects (OIDs) that a guest reads and sets on its network card.  Pure: a query looks at
 * facts, a set yields the change that the card then makes.
 *
 * List and layouts: docs/hypervisor/netvsp/netvsp.md section 4.
 */
#ifndef HYPERVISOR_NETVSP_RNDIS_OID_H
#define HYPERVISOR_NETVSP_RNDIS_OID_H

#include <stdbool.h>
#include <stdint.h>

#include "hypervisor/netvsp/rndis_message.h"

#define RNDIS_INFO_BYTES_MAX 512u /* of any answer */

#define RNDIS_FILTER_DIRECTED      0x01u
#define RNDIS_FILTER_MULTICAST     0x02u
#define RNDIS_FILTER_ALL_MULTICAST 0x04u
#define RNDIS_FILTER_BROADCAST     0x08u
#define RNDIS_FILTER_PROMISCUOUS   0x20u
#define RNDIS_FILTER_KNOWN         0x2Fu

#define RNDIS_RSS_TABLE_ENTRIES 128u
/* Of one segmented send: below what an IPv4 length can say, with room for headers. */
#define RNDIS_SEGMENT_BYTES_MAX 62780u
#define RNDIS_SEGMENTS_MIN      2u

/* Offloads that are on. */
#define RNDIS_OFFLOAD_TX_CHECKSUM4 0x01u
#define RNDIS_OFFLOAD_TX_CHECKSUM6 0x02u
#define RNDIS_OFFLOAD_RX_CHECKSUM4 0x04u
#define RNDIS_OFFLOAD_RX_CHECKSUM6 0x08u
#define RNDIS_OFFLOAD_SEGMENT4     0x10u
#define RNDIS_OFFLOAD_SEGMENT6     0x20u
#define RNDIS_OFFLOAD_KNOWN        0x3Fu

/* What queries are answered from. */
struct rndis_card {
	uint32_t nvsp_version;
	uint8_t permanent_mac[6];
	uint8_t mac[6];
	uint32_t mtu;
	bool link_up;
	uint32_t filter;
	uint32_t queue_count; /* the most that there can be */
	bool mac_may_change;
	uint64_t rx_frames, tx_frames, rx_dropped, tx_dropped;
};

/* RNDIS_STATUS_*; the answer is in @info, *ret_bytes of it (0 unless it succeeded). */
uint32_t rndis_oid_query(const struct rndis_card *card, uint32_t oid,
			 uint8_t info[RNDIS_INFO_BYTES_MAX], uint32_t *ret_bytes);

enum rndis_change_kind {
	RNDIS_CHANGE_NONE, /* accepted, nothing for us to do */
	RNDIS_CHANGE_FILTER,
	RNDIS_CHANGE_MAC,
	RNDIS_CHANGE_OFFLOADS,
	RNDIS_CHANGE_RSS,
};
struct rndis_change {
	enum rndis_change_kind kind;
	uint32_t filter;
	uint8_t mac[6];
	uint32_t offloads_on, offloads_off; /* RNDIS_OFFLOAD_*; the rest stays */
	bool rss_on;
};
/* RNDIS_STATUS_*; @ret_change is set on success. */
uint32_t rndis_oid_set(const struct rndis_card *card, const struct rndis_control *control,
		       struct rndis_change *ret_change);

#endif
