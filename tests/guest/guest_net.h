/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The network client: the first network card, one queue, an address from the command line.
 * Everything but the page lists (vCPU 0) belongs to the vCPU that owns the channel.
 */
#ifndef GUEST_NET_H
#define GUEST_NET_H

#include "tests/guest/guest_bus.h"
#include "tests/guest/guest_work.h"

uint64_t guest_net_pool_bytes(void);
bool guest_net_wants(const struct guest_channel *channel);
void guest_net_packet(struct guest_worker *worker, struct guest_channel *channel,
		      const struct guest_packet *packet);
void guest_net_poll(struct guest_worker *worker);
/* TESTPAGE_NET_SOURCE: guest_source.c. */
uint64_t guest_net_command(struct guest_worker *worker, const struct guest_command *command);
void guest_net_put(void (*put)(uint64_t offset, uint64_t value));

#endif
