/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The VMBus of one VM: the connection that the guest makes, the channels offered to it, the
 * guest page lists (GPADLs) it gives us.
 *
 * Everything of the connection lives on one I/O loop, the bus's.  A message that the guest
 * posts is copied on the vCPU's thread into a bounded queue and handled on that loop, so no
 * vCPU ever waits for a device.  A channel's rings live on the channel's own loop (which may
 * be the same): vmbus_channel.h.
 *
 * The guest is hostile: a message that is malformed or out of place is dropped with one
 * log line (rate-limited); a broken ring closes its channel; neither ends the worker.
 *
 * Protocol: docs/hypervisor/vmbus/vmbus.md.  Versions 4.0 to 5.3 are accepted.
 */
#ifndef HYPERVISOR_VMBUS_VMBUS_H
#define HYPERVISOR_VMBUS_VMBUS_H

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>

#include "base/error.h"
#include "base/io_loop.h"
#include "hypervisor/machine.h"
#include "hypervisor/slat.h"
#include "hypervisor/synic.h"

struct vmbus;

struct vmbus_options {
	struct hv_slat *slat; /* borrowed, as everything here; outlives the bus */
	struct hv_synic *synic;
	struct base_io_loop *loop; /* started */
	uint32_t vcpu_count;
	const char *vm_name; /* for logs */
};

BASE_MUST_CHECK int vmbus_new(const struct vmbus_options *options, struct vmbus **ret_bus,
			      struct base_error *err);
/* After the machine and after the devices on it; loops still run.  NULL is fine. */
void vmbus_free(struct vmbus *bus);

/* For hv_machine_set_hypercalls() and hv_machine_add_service() (first of all services); the
 * context and the service are the bus. */
extern const struct hv_hypercall_ops vmbus_hypercall_ops;
extern const struct hv_service_ops vmbus_service_ops;

/* A value; any thread but the bus's loop (blocks for it). */
struct vmbus_status {
	bool connected;
	uint32_t version; /* major << 16 | minor */
	uint32_t offered_count;
	uint32_t open_count;
	uint64_t message_count;   /* from the guest */
	uint64_t signal_count;    /* from the guest */
	uint64_t interrupt_count; /* event flags that went from 0 to 1 */
	uint64_t refused_count;   /* messages and packets that were malformed or out of place */
};
void vmbus_status(struct vmbus *bus, struct vmbus_status *ret_status);

/* For people: connection, each channel with its ring indices, masks and counters, GPADLs.  What
 * one looks at when a guest has stalled.  A loop that is stuck is said to be, and the rest shown.
 * Any thread but a device's loop. */
void vmbus_dump(struct vmbus *bus, FILE *out);

#endif
