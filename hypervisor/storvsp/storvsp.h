/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The storage service (VSP): one SCSI controller with up to 64 disks and DVDs, on VMBus.
 *
 * Data goes straight between guest pages and the store: the pages of a request become the iovec
 * of the disk request (a write window each, ended, and so marked, after the last byte has landed
 * and before the completion is put into the ring).  Only buffers that are not sector-aligned in
 * memory are copied.
 *
 * A channel lives on one loop; its requests complete there, whichever loop the disk is on.
 * A request is answered exactly once, whatever happens to its disk or its channel; what is in
 * flight when the VM is saved is finished first, and what waits for a store that is full or gone
 * is saved as a request and made again after the restore.
 *
 * Protocol and commands: docs/hypervisor/storvsp/storvsp.md.
 * Source: SPC-4, SBC-3, MMC-6; the VSTOR messages as in Linux drivers/scsi/storvsc_drv.c.
 */
#ifndef HYPERVISOR_STORVSP_STORVSP_H
#define HYPERVISOR_STORVSP_STORVSP_H

#include <stdbool.h>
#include <stdint.h>

#include "base/error.h"
#include "hypervisor/disk/disk.h"
#include "hypervisor/machine.h"
#include "hypervisor/vmbus/vmbus.h"

#define STORVSP_LUNS      64u
#define STORVSP_LOOPS_MAX 16u

struct storvsp;

struct storvsp_options {
	struct vmbus *bus; /* borrowed, as everything here */
	struct hv_slat *slat;
	struct base_io_loop *loops[STORVSP_LOOPS_MAX]; /* channel n lives on loop n % count */
	uint32_t loop_count;
	uint32_t vcpu_count; /* sub-channels: one less than this, at most */
	uint32_t index;      /* of the controller: 0, 1, ...: its instance GUID and sections */
	struct disk_guid instance;
	const char *vm_name;
};
BASE_MUST_CHECK int storvsp_new(const struct storvsp_options *options, struct storvsp **ret_storvsp,
				struct base_error *err);
/* After the machine is gone.  Disks stay the caller's.  NULL is fine. */
void storvsp_free(struct storvsp *storvsp);
extern const struct hv_service_ops storvsp_service_ops; /* service: the controller */

enum storvsp_kind {
	STORVSP_INVALID,
	STORVSP_DISK,
	STORVSP_DVD, /* removable, read-only, 2048-byte blocks */
	STORVSP_KINDS
};
struct storvsp_medium {
	enum storvsp_kind kind;
	struct disk *disk; /* borrowed until detached; NULL: a DVD drive with nothing in it */
	bool read_only;    /* writes get DATA PROTECT, mode sense says so */
	bool write_cache;  /* shown in the caching mode page; off: the disk is write-through */
	bool solid_state;  /* medium rotation rate 1 */
	struct disk_guid
		id; /* for page 83; zero: that of the disk, else made from controller and lun */
};

/* Blocking, any thread but a loop; before boot and while the guest runs: it is told.  -EBUSY the
 * LUN is taken; -EINVAL. */
BASE_MUST_CHECK int storvsp_attach(struct storvsp *storvsp, uint32_t lun,
				   const struct storvsp_medium *medium, struct base_error *err);
/* Blocking: the LUN is gone for the guest, and nothing of it is in flight at the disk any more.
 * -ENOENT. */
BASE_MUST_CHECK int storvsp_detach(struct storvsp *storvsp, uint32_t lun, struct base_error *err);
/* Another medium (or none) in a DVD drive; the guest gets a unit attention.  -ENOENT, -EINVAL. */
BASE_MUST_CHECK int storvsp_change_medium(struct storvsp *storvsp, uint32_t lun, struct disk *disk,
					  struct base_error *err);
/* The disk's size has changed (disk_events.resized): CAPACITY DATA HAS CHANGED.  Any thread. */
void storvsp_resized(struct storvsp *storvsp, uint32_t lun);

struct storvsp_lun_status {
	enum storvsp_kind kind; /* INVALID: nothing there */
	bool seen;              /* the guest has asked this LUN for its identity */
	uint64_t read_count, write_count, flush_count, unmap_count, error_count;
	uint64_t read_bytes, write_bytes;
	uint32_t in_flight;
};
void storvsp_lun_status(struct storvsp *storvsp, uint32_t lun,
			struct storvsp_lun_status *ret_status); /* any thread but a loop */

#endif
