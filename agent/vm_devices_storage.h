/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A disk of a running VM moves to another folder of the stores, the guest goes on:
 * docs/agent/disk-move.md.
 *
 * Threads: new on the thread that changes the machine; run on one of its own; moved and free on the
 * main thread, when run has returned.  From new to free no disk is added, removed or changed, and
 * nothing is saved, checkpointed or migrated: the caller sees to that.
 */
#ifndef AGENT_VM_DEVICES_STORAGE_H
#define AGENT_VM_DEVICES_STORAGE_H

#include "agent/vm_devices.h"
#include "agent/vm_storage_move.h"

struct vm_disk_move;

struct vm_disk_move_options {
	uint32_t controller;
	uint32_t lun;
	const char *to;               /* of the host: a folder that is there, or a file in one */
	bool keep;                    /* the old images stay, as NAME.moved */
	uint64_t bandwidth;           /* bytes a second; 0: no cap */
	int state_dir_fd;             /* where it is recorded; -1: nowhere */
	struct vm_storage_view *view; /* borrowed, outlives it; may be NULL */
};

/* -ENOENT no disk there, no such folder; -EROFS it is not written; -EAGAIN it waits for its store;
 * -EINVAL it is there already, or a file whose name ends otherwise; -ENOMEM. */
BASE_MUST_CHECK int vm_disk_move_new(struct vm_devices *devices,
				     const struct vm_disk_move_options *options,
				     struct vm_disk_move **ret_move, struct base_error *err);
/* Errors of vm_storage_move(), after which the disk is where it was. */
BASE_MUST_CHECK int vm_disk_move_run(struct vm_disk_move *move,
				     struct vm_storage_move_report *ret_report,
				     struct base_error *err);
/* It has moved: its path is the new one from now on.  The caller tells whoever starts the VM. */
void vm_disk_move_done(struct vm_disk_move *move);
/* Where it is, and where it goes: paths of the host. */
const char *vm_disk_move_from(const struct vm_disk_move *move);
const char *vm_disk_move_to(const struct vm_disk_move *move);
void vm_disk_move_free(struct vm_disk_move *move); /* NULL is fine */

#endif
