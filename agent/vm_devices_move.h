/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The disks of a VM that moves: which images there are at the source, and at the destination the
 * place of those that come.
 *
 * Threads: as vm_devices.h; a migration calls while the machine is not changed by others.
 */
#ifndef AGENT_VM_DEVICES_MOVE_H
#define AGENT_VM_DEVICES_MOVE_H

#include "agent/vm_devices.h"
#include "agent/vm_migrate_disk.h"
#include "agent/vm_migrate_plan.h"

/* Source: what the guest sees of its disks now, and each that has an image.  The count. */
uint32_t vm_devices_seen(struct vm_devices *devices, struct vm_plan_disk ret_list[VM_DISKS_MAX]);
uint32_t vm_devices_images(struct vm_devices *devices,
			   struct vm_migrate_from ret_list[VM_DISKS_MAX]);

/* Destination: disks whose image is not there: it is to come. */
uint32_t vm_devices_awaited(const struct vm_devices *devices);
/* The one folder that all disks here are in; NULL: there are several, or no disk. */
struct store *vm_devices_store(const struct vm_devices *devices);
/* The path of the folder that @store, one of the disks', is of. */
const char *vm_devices_folder_of(const struct vm_devices *devices, const struct store *store);
struct base_io_loop *vm_devices_move_loop(struct vm_devices *devices);
/* The images have come: opened, not active, and put in.  Before the machine is loaded. */
BASE_MUST_CHECK int vm_devices_came(struct vm_devices *devices, struct base_error *err);

#endif
