/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The storage client: one LUN of the first SCSI controller.  vCPU 0 brings the controller up;
 * then each channel is a lane, which a vCPU of its own drives: a slice of the region, a share of
 * the depth, a ledger of what must be on the disk.
 */
#ifndef GUEST_DISK_H
#define GUEST_DISK_H

#include "tests/guest/guest_bus.h"
#include "tests/guest/guest_work.h"

uint64_t guest_disk_pool_bytes(void);

/** guest_disk_wants - is @channel (offered) one of the controller that is used?  vCPU 0. */
bool guest_disk_wants(const struct guest_channel *channel);

void guest_disk_packet(struct guest_worker *worker, struct guest_channel *channel,
		       const struct guest_packet *packet);

/** guest_disk_poll - new requests of this vCPU's lane; vCPU 0: the controller's steps. */
void guest_disk_poll(struct guest_worker *worker);

/** guest_disk_command - what each vCPU does for a command of the test page.  Return: its part of
 *  the result. */
uint64_t guest_disk_command(struct guest_worker *worker, const struct guest_command *command);

/** guest_disk_put - counters and the last measurement to the test page; vCPU 0. */
void guest_disk_put(void (*put)(uint64_t offset, uint64_t value));

#endif
