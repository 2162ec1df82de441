/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Storage only: a running disk moves to another store or folder, the VM stays.
 * docs/migrate/disks.md, section 5.
 *
 * Blocking, on any thread but an I/O loop's; it makes threads of its own.
 */
#ifndef AGENT_VM_STORAGE_MOVE_H
#define AGENT_VM_STORAGE_MOVE_H

#include "agent/vm_migrate_disk.h"

struct vm_storage_move_options {
	struct store *from;     /* borrowed; of the disk */
	struct disk *disk;      /* borrowed; active */
	struct store *to;       /* borrowed; outlives the disk */
	const char *folder;     /* in it, "" its root */
	struct store_gate gate; /* the worker's leash: closed, nothing is switched */
	/* Hold the guest's requests when so much is left, or when less does not come; 0: 1 MiB. */
	uint64_t left_bytes;
	/* After each round, how much is left.  Not 0: cancelled.  May be NULL. */
	int (*progress)(void *context, uint64_t sent_bytes, uint64_t left_bytes);
	void *context;
};

struct vm_storage_move_report {
	char name[STORE_NAME_BYTES]; /* of the disk in the new store */
	uint32_t rounds;
	uint64_t sent_bytes;
	uint64_t held_ns; /* how long the guest's requests waited */
};

/**
 * vm_storage_move - copy the chain, switch over, and remove the old top image.
 * 0: the disk goes on in the new store; its parents' old files stay, because others may use them.
 * Else it goes on where it was, and nothing is in the new store: -EBUSY a job; -EINVAL what the new
 * store objects to (the first objection); -ECANCELED by @progress; -EAGAIN the gate is closed; what
 * reading, writing and switching gave.
 */
BASE_MUST_CHECK int vm_storage_move(const struct vm_storage_move_options *options,
				    struct vm_storage_move_report *ret_report,
				    struct base_error *err);

#endif
