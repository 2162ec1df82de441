/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Between guest_net.c (the card) and guest_source.c (what it is made to send).  All of it belongs
 * to the vCPU that owns the channel.
 */
#ifndef GUEST_NET_PRIV_H
#define GUEST_NET_PRIV_H

#include "tests/guest/guest_inet.h"
#include "tests/guest/guest_net.h"

#define PAGE              4096u
#define RNDIS_PACKET      1
#define RNDIS_HEADER      44 /* of a data packet without extras */
#define GUEST_LARGE_PAGES 17u

/* The addresses, once the card runs and this vCPU owns it; else NULL. */
struct guest_inet *guest_net_of(const struct guest_worker *worker);
/* Room for a frame in a free section of the send buffer; NULL when all are under way. */
uint8_t *guest_net_frame_begin(uint32_t *ret_section);
bool guest_net_frame_send(uint32_t section, uint32_t bytes);
/* An RNDIS packet of @bytes (GUEST_LARGE_PAGES at most) at the page @at, the frame in it. */
bool guest_net_pages_send(const uint8_t *at, uint32_t bytes, uint32_t frame_bytes,
			  uint64_t trans_id);

/* --- guest_source.c --- */

uint64_t guest_source_pool_bytes(void);
/* A completion: whether it was of a packet of ours. */
bool guest_source_done(uint64_t trans_id);

#endif
