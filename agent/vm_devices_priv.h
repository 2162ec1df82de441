/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The devices' object, for the files that make it up: vm_devices.c (life), _open.c (threads
 * and stores), _disk.c (disks and their controllers), _checkpoint.c, _state.c (which images a saved
 * state belongs to), _net.c (network cards), _ic.c (what is asked of the guest), _boot.c (the
 * kernel on a disk), _move.c (what a migration asks), _status.c (what they tell).
 */
#ifndef AGENT_VM_DEVICES_PRIV_H
#define AGENT_VM_DEVICES_PRIV_H

#include <pthread.h>
#include <stdatomic.h>

#include "agent/vm_devices.h"
#include "hypervisor/bootdisk/bootdisk_reader.h"
#include "hypervisor/disk/disk.h"
#include "hypervisor/ic/ic.h"
#include "hypervisor/netvsp/netvsp.h"
#include "hypervisor/storvsp/storvsp.h"
#include "hypervisor/vmbus/vmbus.h"

#define VM_DEVICE_EVENTS_MAX 64u /* not taken yet; the oldest goes, its state is in status */

/* A folder that disks come from. */
struct vm_store {
	char path[VM_PATH_BYTES]; /* without symbolic links */
	char name[VM_PATH_BYTES]; /* as it was given, for disks that are named later */
	int folder_fd;            /* O_PATH */
	struct store *store;
};

/* Where a configured disk is: found before the lock-down, while links can be followed. */
struct vm_place {
	struct vm_store *store; /* NULL: an empty drive */
	char name[STORE_NAME_BYTES];
	bool comes; /* the image is not there: a migration brings it */
};

/* One disk or drive. */
struct vm_disk {
	struct vm_devices *devices;
	struct vm_disk_config config; /* its path follows checkpoints */
	struct vm_place place;
	struct disk *disk; /* NULL: an empty drive */
	bool active;
	bool came; /* with the migration that brought the state: nobody else had it since */
	atomic_bool attached;
	atomic_int stalled; /* the code, 0 when nothing waits; set on the disk's loop */
	atomic_bool failed; /* likewise */
};

/* An image that a saved machine goes on with. */
struct vm_saved_disk {
	uint32_t controller;
	uint32_t lun;
	struct disk_guid data_id;
	char name[STORE_NAME_BYTES];
};

/* One network card. */
struct vm_nic {
	char name[VM_INTERFACE_BYTES]; /* of the TAP device */
	int fds[VM_NIC_QUEUES_MAX];
	uint32_t fd_count;
	struct netvsp *card;
};

struct vm_devices {
	struct vm_devices_options options;
	const struct vm_config *config;
	struct hv_machine *machine;
	uint64_t epoch; /* of the disks that are made active */

	struct base_io_loop *loops[VM_IO_THREADS_MAX];
	uint32_t loop_count;
	uint32_t next_loop; /* disks take turns */
	struct vm_store stores[VM_STORES_MAX + VM_DISKS_MAX];
	uint32_t store_count;
	struct vm_place places[VM_DISKS_MAX]; /* of the configured disks */

	struct vmbus *bus;
	struct ic_set *ic;
	struct storvsp *controllers[VM_CONTROLLERS];
	struct vm_disk *disks[VM_DISKS_MAX];
	uint32_t disk_count;
	struct vm_saved_disk *saved; /* of the state that is being restored */
	uint32_t saved_count;
	struct vm_nic nics[VM_NICS_MAX];
	uint32_t nic_count;

	/* The kernel of the boot disk, as long as it may be loaded again. */
	struct bootdisk_entry boot;

	pthread_mutex_t lock; /* a leaf: the events */
	struct vm_device_event events[VM_DEVICE_EVENTS_MAX];
	uint32_t event_first;
	uint32_t event_count;
};

/* Any thread. */
void vm_devices_tell(struct vm_devices *devices, const struct vm_device_event *event);
/* The next loop in turn. */
struct base_io_loop *vm_devices_loop(struct vm_devices *devices);
/* The fixed identity of device @number of a kind: the same in each life of a VM. */
struct disk_guid vm_devices_instance(uint8_t kind, uint32_t number);

/* --- vm_devices_open.c --- */

BASE_MUST_CHECK int vm_devices_open_loops(struct vm_devices *devices, struct base_error *err);
BASE_MUST_CHECK int vm_devices_open_stores(struct vm_devices *devices, struct base_error *err);
void vm_devices_close_stores(struct vm_devices *devices);
/* The store that @path is in and its name there, by text alone. -ENOENT no store. */
BASE_MUST_CHECK int vm_devices_find(struct vm_devices *devices, const char *path,
				    struct vm_place *ret_place, struct base_error *err);

/* --- vm_devices_disk.c --- */

/* Controllers, and the configured disks on them. */
BASE_MUST_CHECK int vm_devices_make_disks(struct vm_devices *devices, bool standby,
					  struct base_error *err);
/* What completed is durable.  -EAGAIN a disk is stalled. */
BASE_MUST_CHECK int vm_devices_flush(struct vm_devices *devices, struct base_error *err);
void vm_devices_close_disks(struct vm_devices *devices);
/* NULL: none. */
struct vm_disk *vm_devices_disk(struct vm_devices *devices, uint32_t controller, uint32_t lun);
/* The one with the lowest controller and LUN that is no DVD; NULL: none. */
struct vm_disk *vm_devices_boot_disk(struct vm_devices *devices);

/* A disk whose image has come: open it, and put it in. */
BASE_MUST_CHECK int vm_devices_put_in(struct vm_disk *disk, struct base_error *err);

/* --- vm_devices_checkpoint.c --- */

/* disk_events.top_moved: the image of @disk is @name from now on. */
BASE_MUST_CHECK int vm_devices_top_moved(struct vm_disk *disk, const char *name);

/* --- vm_devices_state.c --- */

/* The payload of the section `disks`. */
BASE_MUST_CHECK int vm_devices_state_encode(struct vm_devices *devices, struct base_buffer *out,
					    struct base_error *err);
/* Take it, for the check below.  -EBADMSG malformed. */
BASE_MUST_CHECK int vm_devices_state_decode(struct vm_devices *devices, struct base_reader *in,
					    struct base_error *err);
/* The disks are active: what their images say was read under their leases.  -EINVAL an image is not
 * the one that the machine was saved with, or was written since. */
BASE_MUST_CHECK int vm_devices_state_check(struct vm_devices *devices, struct base_error *err);

/* --- vm_devices_net.c --- */

BASE_MUST_CHECK int vm_devices_open_nics(struct vm_devices *devices, struct base_error *err);
BASE_MUST_CHECK int vm_devices_make_nics(struct vm_devices *devices, struct base_error *err);
void vm_devices_close_nics(struct vm_devices *devices);

/* --- vm_devices_ic.c --- */

BASE_MUST_CHECK int vm_devices_make_ic(struct vm_devices *devices, struct base_error *err);

/* --- vm_devices_boot.c --- */

/* Read the boot disk, which is active or in standby.  -ENOENT no disk, or nothing to boot on it;
 * errors of bootdisk_find().  The caller closes the descriptors. */
BASE_MUST_CHECK int vm_devices_find_kernel(struct vm_devices *devices,
					   struct bootdisk_entry *ret_entry,
					   struct base_error *err);
/* hv_machine_on_load(): context is the devices. */
BASE_MUST_CHECK int vm_devices_load_kernel(void *context, struct base_error *err);

#endif
