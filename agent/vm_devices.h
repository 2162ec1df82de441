/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The devices of a worker's VM: I/O threads, stores, disks, the bus and the services on it,
 * TAP devices; and where the kernel comes from when it is on a disk.
 *
 * Life: open (privileged: everything that has a path or a name on the host; no byte of the
 * guest's is parsed), lock-down, make (disks, devices, services of the machine), boot or
 * restore, stop (disks are handed back), free.
 *
 * Threads: open and free on the main thread; the rest on the thread that changes the machine
 * (job), one at a time.  Events are queued by I/O loops and taken by the main thread.
 */
#ifndef AGENT_VM_DEVICES_H
#define AGENT_VM_DEVICES_H

#include <jansson.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>

#include "agent/vm_config.h"
#include "base/error.h"
#include "hypervisor/disk/store.h"
#include "hypervisor/machine.h"

struct bootdisk_reader;
struct vm_devices;

enum vm_device_event_kind {
	VM_DEVICE_EVENT_INVALID,
	VM_DEVICE_DISK_STALLED,   /* requests wait for the store: @code, @text */
	VM_DEVICE_DISK_UNSTALLED, /* and go on */
	VM_DEVICE_DISK_FAILED,    /* the image refuses writes from now on: @text */
	VM_DEVICE_DISK_STORE,     /* the store's state: @text, "" for the normal path */
	VM_DEVICE_HEARTBEAT,      /* the guest's: @text none, ok, lost */
	VM_DEVICE_GUEST_INFO,     /* what the guest tells of itself has changed */
	VM_DEVICE_EVENTS
};

/* A value. */
struct vm_device_event {
	enum vm_device_event_kind kind;
	uint32_t controller;
	uint32_t lun;
	int code;
	char text[STORE_TEXT_BYTES];
};

struct vm_devices_options {
	const struct vm_config *config;      /* borrowed, as everything here */
	struct bootdisk_reader *boot_reader; /* NULL: the kernel is not on a disk */
	/* The leash's gate: asked before each request to a store and each frame sent. */
	bool (*may_submit)(void *context);
	/* Something can be taken with vm_devices_event(); any thread, must not block. */
	void (*news)(void *context);
	void *context;
};

/**
 * vm_devices_open - threads, folders of the disks, TAP devices.
 * -EINVAL, -ENOENT, -EACCES...: names key, value and what was expected; -ENOMEM, -EMFILE.
 */
BASE_MUST_CHECK int vm_devices_open(const struct vm_devices_options *options,
				    struct vm_devices **ret_devices, struct base_error *err);
/* Descriptors of the stores' folders, for the lock-down; -1 beyond the last. */
int vm_devices_store_fd(const struct vm_devices *devices, uint32_t index);

/**
 * vm_devices_make - open the disks and put all devices into @machine, before boot or restore.
 * Disks are active when it returns; for a restore (@standby) they are open for reading only,
 * until the machine is loaded.
 */
BASE_MUST_CHECK int vm_devices_make(struct vm_devices *devices, struct hv_machine *machine,
				    bool standby, struct base_error *err);

/* The epoch that disks are made active at from now on; the configuration's before. */
void vm_devices_set_epoch(struct vm_devices *devices, uint64_t epoch);
/* After a restore: all disks that can be written are active.  Again: nothing. */
BASE_MUST_CHECK int vm_devices_activate(struct vm_devices *devices, struct base_error *err);

/* Hand the disks back: everything that completed is durable, and others may take them.  The
 * machine is saved and left, or about to be freed.  The first failure; all are tried. */
BASE_MUST_CHECK int vm_devices_stop(struct vm_devices *devices, struct base_error *err);
/* Is there a disk that only we may write?  NULL: no. */
bool vm_devices_active(const struct vm_devices *devices);
/* After the machine.  NULL is fine. */
void vm_devices_free(struct vm_devices *devices);

/* Main thread: the next event, false when there is none. */
bool vm_devices_event(struct vm_devices *devices, struct vm_device_event *ret_event);

/* --- while the guest runs --- */

/* @disk: lun_given false takes the lowest free one, which is set.  -EBUSY the LUN is taken;
 * -ENOENT its folder is none of the stores; errors of disk_open_standby() and
 * disk_activate(). */
BASE_MUST_CHECK int vm_devices_disk_add(struct vm_devices *devices, struct vm_disk_config *disk,
					struct base_error *err);
/* -ENOENT no disk there. */
BASE_MUST_CHECK int vm_devices_disk_remove(struct vm_devices *devices, uint32_t controller,
					   uint32_t lun, struct base_error *err);
/* Another medium in a DVD drive; @path "" takes it out.  -ENOENT, -EINVAL no drive. */
BASE_MUST_CHECK int vm_devices_medium(struct vm_devices *devices, uint32_t controller, uint32_t lun,
				      const char *path, struct base_error *err);
BASE_MUST_CHECK int vm_devices_disk_resize(struct vm_devices *devices, uint32_t controller,
					   uint32_t lun, uint64_t size_bytes,
					   struct base_error *err);

/* Cable in or out of a network card.  -ENOENT. */
BASE_MUST_CHECK int vm_devices_link(struct vm_devices *devices, uint32_t index, bool up,
				    struct base_error *err);
/* The guest is somewhere else or back: the network learns where it is. */
void vm_devices_announce(struct vm_devices *devices);

/* --- what is asked of the guest --- */

/* Whether the vCPUs run: no hold.  Any thread but an I/O loop. */
void vm_devices_running(struct vm_devices *devices, bool running);
/* By the integration service; to power off without one, by the power button (@ret_by_button).
 * Errors of ic_shutdown(). */
#define VM_SHUTDOWN_TIMEOUT_MS 10000u
BASE_MUST_CHECK int vm_devices_shutdown(struct vm_devices *devices, bool restart, bool force,
					bool *ret_by_button, struct base_error *err);
void vm_devices_time_sync(struct vm_devices *devices);
/* The guest's file systems: ic_freeze(), ic_thaw(), ic_thaw_soon(), ic_end(), which see.  Freeze
 * and thaw block, on any thread but an I/O loop; the others do not wait, and may be called on any.
 */
#define VM_FREEZE_TIMEOUT_MS 30000u /* for the guest to agree, and to thaw */
#define VM_FREEZE_LIMIT_MS   10000u /* of being frozen: as long as a Windows guest would stand it */
BASE_MUST_CHECK int vm_devices_freeze(struct vm_devices *devices, struct base_error *err);
BASE_MUST_CHECK int vm_devices_thaw(struct vm_devices *devices, struct base_error *err);
void vm_devices_thaw_soon(struct vm_devices *devices);
void vm_devices_end_waits(struct vm_devices *devices); /* NULL, or not made: nothing */
/**
 * vm_devices_checkpoint - a checkpoint of each disk that is written: its image stays as it is, and
 * the guest goes on in STEM.LABEL.avhdx (.avhd on a VHD) beside it, where STEM is the image's name
 * without extension and without an earlier label.  The old image is marked: it cannot be written
 * again while the new one is there.
 * @label: "" becomes the lowest number that is free; set.
 * @list: gets {"controller":, "lun":, "image":, "path":} of each, also when another one fails then.
 * -EINVAL @label; -EEXIST; -EAGAIN a disk waits for its store; -EPROTO no such disk; errors of
 * disk_checkpoint().
 */
BASE_MUST_CHECK int vm_devices_checkpoint(struct vm_devices *devices,
					  char label[VM_CONTROL_TEXT_BYTES], json_t *list,
					  struct base_error *err);
/* Heartbeat, services, and what the guest told of itself; NULL no memory. */
json_t *vm_devices_guest_json(struct vm_devices *devices);

/* What there is and how it does: {"bus":{}, "disks":[], "nics":[]}; NULL no memory. */
json_t *vm_devices_json(struct vm_devices *devices);
/* For people: rings, channels.  */
void vm_devices_dump(struct vm_devices *devices, FILE *out);

#endif
