/* SPDX-License-Identifier: Apache-2.0 */
/*
 * For tests and benchmarks: the test guest in a real machine (guest_vm.h) with VMBus, a disk on a
 * store in memory, a network card on a datagram socket, and the integration services.  Needs KVM.
 * Failures end the program.
 */
#ifndef SUPPORT_GUEST_RIG_H
#define SUPPORT_GUEST_RIG_H

#include "base/io_loop.h"
#include "hypervisor/disk/disk.h"
#include "hypervisor/ic/ic.h"
#include "hypervisor/netvsp/netvsp.h"
#include "hypervisor/storvsp/storvsp.h"
#include "hypervisor/vmbus/vmbus.h"
#include "tests/support/guest_vm.h"

#define GUEST_RIG_DISK_BYTES (64ULL << 20)
#define GUEST_RIG_VNET_BYTES 12u
#define GUEST_RIG_MAC                                                                              \
	{                                                                                          \
		0, 0x15, 0x5d, 1, 2, 3                                                             \
	}

/* Loop, disk and cable outlive a machine; the rest is one machine's. */
struct guest_rig {
	struct base_io_loop *loop; /* the bus's and the devices' thread */
	struct store *store;
	struct disk *disk;
	int tap[2]; /* ours, the card's */
	uint32_t vcpus;
	const char *cmdline;
	bool registers_by_call;
	struct guest_vm *vm;
	struct vmbus *bus;
	struct storvsp *scsi;
	struct netvsp *card;
	struct ic_set *ic;
};

/* @rig: its vcpus, cmdline and registers_by_call are set, the rest is zero.  False: no KVM here,
 * and "SKIP" and the reason are on stdout. */
bool guest_rig_setup(struct guest_rig *rig);
void guest_rig_teardown(struct guest_rig *rig);
/* End the machine, keeping disk and cable; and another one, from a saved state or (NULL) booted. */
void guest_rig_stop(struct guest_rig *rig);
bool guest_rig_start(struct guest_rig *rig, const char *restore);
/* Until the register of the test page is at least @least. */
void guest_rig_until(struct guest_rig *rig, uint32_t offset, uint64_t least);

#endif
