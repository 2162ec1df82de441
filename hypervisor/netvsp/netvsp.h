/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The network service (VSP): one network card on VMBus, in front of a TAP device.
 *
 * NVSP and RNDIS towards the guest; towards the host frames with a virtio-net header, so that
 * checksums and segmentation that the guest leaves to us are left to the host's network stack
 * (or to the card behind the bridge).  Frames the guest sends must carry its own address as
 * source unless mac_spoofing allows others.
 *
 * Queues: channel n has TAP queue n and lives on loop n % count.  Frames from the guest are
 * sent only while the gate is open (the leash): late frames of a dead owner would be a lie.
 *
 * Protocol: docs/hypervisor/netvsp/netvsp.md.
 * Source: NVSP as in Linux drivers/net/hyperv; RNDIS: MS-RNDIS; offloads: NDIS 6.
 */
#ifndef HYPERVISOR_NETVSP_NETVSP_H
#define HYPERVISOR_NETVSP_NETVSP_H

#include <stdbool.h>
#include <stdint.h>

#include "base/error.h"
#include "base/io_loop.h"
#include "hypervisor/disk/guid.h"
#include "hypervisor/machine.h"
#include "hypervisor/vmbus/vmbus.h"

#define NETVSP_QUEUES_MAX 16u
#define NETVSP_MTU_MIN    576u /* of IPv4 hosts */
#define NETVSP_MTU_MAX    9000u

struct netvsp;

/**
 * netvsp_tap_prepare - what a queue's descriptor needs, for whoever opened it.
 * @tap_fd: after TUNSETIFF with IFF_TAP | IFF_NO_PI | IFF_VNET_HDR (and IFF_MULTI_QUEUE).
 * Sets a header of 12 bytes, little-endian; offload of checksums towards us (TUN_F_CSUM) and of
 * nothing else, since what we receive has to fit a guest's receive buffer; not blocking.
 * Errno of the call that failed, named.
 */
BASE_MUST_CHECK int netvsp_tap_prepare(int tap_fd, struct base_error *err);

struct netvsp_options {
	struct vmbus *bus; /* borrowed, as everything here */
	struct hv_slat *slat;
	struct base_io_loop *loops[NETVSP_QUEUES_MAX];
	uint32_t loop_count;
	/* One descriptor per queue of one TAP device, each prepared with netvsp_tap_prepare().
	 * Borrowed. */
	int tap_fds[NETVSP_QUEUES_MAX];
	uint32_t queue_count; /* 1..NETVSP_QUEUES_MAX, at most vcpu_count are used */
	uint32_t vcpu_count;
	uint32_t index; /* of the card: its sections */
	struct disk_guid instance;
	uint8_t mac[6];
	uint32_t mtu; /* 0: 1500 */
	bool mac_spoofing;
	bool link_up;
	const char *vm_name;
	bool (*may_send)(void *context); /* the gate; NULL: always */
	void *gate_context;
};
/* The card is on the bus from then on.  -EINVAL an option (named); -ENOMEM, -EAGAIN; as
 * vmbus_offer().
 */
BASE_MUST_CHECK int netvsp_new(const struct netvsp_options *options, struct netvsp **ret_netvsp,
			       struct base_error *err);
/* After the machine is gone, before the bus and the loops are.  NULL is fine. */
void netvsp_free(struct netvsp *netvsp);
extern const struct hv_service_ops netvsp_service_ops; /* service: the card */

/* For after a restore or a move, once the vCPUs run: RARP requests for the guest's address into the
 * TAP device, repeated (at once, then after 50, 150, 250, 350, 450 ms: as the field does), and a
 * network-change indication to the guest, so that it announces itself too.  Any thread. */
void netvsp_announce(struct netvsp *netvsp);
/* Cable in or out; the guest is told.  Any thread. */
void netvsp_set_link(struct netvsp *netvsp, bool up);

struct netvsp_status {
	uint8_t mac[6]; /* the guest's current one */
	bool connected; /* the guest's driver runs */
	bool link_up;
	uint32_t queue_count; /* open */
	uint64_t rx_frames, rx_bytes, rx_dropped;
	uint64_t tx_frames, tx_bytes, tx_dropped;
	uint64_t tx_spoofed; /* refused by the MAC filter */
};
void netvsp_status(struct netvsp *netvsp,
		   struct netvsp_status *ret_status); /* any thread but a loop */

#endif
