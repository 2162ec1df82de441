/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Storage only: a running disk moves to another store or folder, the VM stays.
 * docs/migrate/disks.md, section 5.
 *
 * Blocking, on any thread but an I/O loop's; it makes threads of its own.
 */
#ifndef AGENT_VM_STORAGE_MOVE_H
#define AGENT_VM_STORAGE_MOVE_H

#include "agent/vm_storage_copy.h"

/* The files of a move; valid during the call. */
struct vm_storage_files {
	const char *const *made; /* in the new store: as NAME.incoming, then NAME */
	uint32_t made_count;
	const struct vm_migrate_own *own; /* images that the VM leaves, the top first */
	uint32_t own_count;
	const char *name; /* of the new top */
};

/* Whoever keeps durable words about a move, so that a crash leaves nothing that nobody knows of. */
struct vm_storage_words {
	/* Before the first file is made.  Not 0: none is. */
	int (*begins)(void *context, const struct vm_storage_files *files, struct base_error *err);
	/* The old top is called NAME.moved, durably: the disk is the new one. */
	void (*switched)(void *context);
	/* It is over, either way; what could not be removed is still there. */
	void (*over)(void *context);
	void *context;
};

struct vm_storage_move_options {
	struct store *from;     /* borrowed; of the disk */
	struct disk *disk;      /* borrowed; active */
	struct store *to;       /* borrowed; outlives the disk */
	const char *folder;     /* in it, "" its root */
	const char *leaf;       /* what the top is called there; NULL: as here */
	struct store_gate gate; /* the worker's leash: closed, nothing is switched */
	bool keep;              /* the old images stay, as NAME.moved */
	uint64_t bandwidth;     /* bytes a second until the guest's requests are held; 0: no cap */
	/* Hold the guest's requests when so much is left, or when less does not come; 0: what is
	 * copied in 50 ms, 1 MiB at least. */
	uint64_t left_bytes;
	struct vm_storage_view *view;         /* told, and asked whether to go on; may be NULL */
	const struct vm_storage_words *words; /* may be NULL */
	/* Before each round, how much is left.  Not 0: cancelled.  May be NULL. */
	int (*progress)(void *context, uint64_t sent_bytes, uint64_t left_bytes);
	void *context;
};

struct vm_storage_move_report {
	char name[STORE_NAME_BYTES]; /* of the disk in the new store */
	uint32_t rounds;
	uint64_t sent_bytes;
	uint64_t held_ns;  /* how long a request of the guest waited, at most */
	uint64_t total_ns; /* until the guest went on in the copy */
};

/**
 * vm_storage_move - copy the chain, switch over, and remove the old images that are the VM's own.
 * 0: the disk goes on in the new store; parents that others may use stay where they were, too.
 * Else it goes on where it was, and nothing is in the new store: -EBUSY a job; -EEXIST an image
 * that an earlier move has kept is in the way; -EINVAL what the new store objects to (the first
 * objection), or a bandwidth that is none; -ECANCELED by @progress or @view; -EAGAIN the gate is
 * closed; what reading, writing and switching gave.
 */
BASE_MUST_CHECK int vm_storage_move(const struct vm_storage_move_options *options,
				    struct vm_storage_move_report *ret_report,
				    struct base_error *err);

#endif
