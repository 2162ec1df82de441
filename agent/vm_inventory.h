/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The record of a VM's images in a state directory: which files a move under way makes and leaves,
 * so that a crash leaves none that nobody knows of; and where disks are that have moved.  It names
 * files one by one: nothing is ever removed by what it is called.
 * docs/migrate/records.md, section 8.
 *
 * Blocking.  Threads: any, one at a time per object.  The process that has a job under way holds a
 * lock on the file, so that nobody takes it for a dead one's.
 */
#ifndef AGENT_VM_INVENTORY_H
#define AGENT_VM_INVENTORY_H

#include <jansson.h>

#include "migrate/mig_records.h"

#define VM_INVENTORY_BYTES_MAX (4u << 20) /* a thousand images with long paths */

enum vm_inventory_job {
	VM_INVENTORY_NONE,
	VM_INVENTORY_INCOMING,  /* files are made; theirs if the register says so */
	VM_INVENTORY_LEAVING,   /* files are left, once the promise says that it has moved */
	VM_INVENTORY_DISK_MOVE, /* both; the old top's name says which */
	VM_INVENTORY_JOBS
};

struct vm_inventory;

/* What is recorded of VM @name; nothing is fine.  @directory_fd: borrowed.  -EBADMSG it cannot be
 * used. */
BASE_MUST_CHECK int vm_inventory_load(int directory_fd, const char *name,
				      struct vm_inventory **ret_inventory, struct base_error *err);
void vm_inventory_free(struct vm_inventory *inventory); /* NULL is fine; gives up the lock */

/* A new job, in memory; the one before is forgotten.  @id: of the migration, NULL: of a disk. */
void vm_inventory_begin(struct vm_inventory *inventory, enum vm_inventory_job job,
			const uint8_t *id, bool keep);
/* @made: or left.  @folder: a path of the host without links; @name: in it.  No memory shows in
 * write. */
void vm_inventory_add(struct vm_inventory *inventory, bool made, const char *folder,
		      const char *name);
/* DISK_MOVE: paths as in the configuration. */
void vm_inventory_paths(struct vm_inventory *inventory, const char *was, const char *now);
/* Durable when it returns 0. */
BASE_MUST_CHECK int vm_inventory_write(struct vm_inventory *inventory, struct base_error *err);
/* The job is over.  @moved: the disk is where it was to go, and that stays recorded. */
BASE_MUST_CHECK int vm_inventory_end(struct vm_inventory *inventory, bool moved,
				     struct base_error *err);

/* The files of the job; stops when @each says so (not 0), and returns that. */
int vm_inventory_each(const struct vm_inventory *inventory, bool made,
		      int (*each)(void *context, const char *folder, const char *name),
		      void *context);
/* Where a disk is that the configuration has at @path; NULL: nothing else is known. */
const char *vm_inventory_where(const struct vm_inventory *inventory, const char *path);

/**
 * vm_inventory_look - what a dead process has left of a job is removed, or finished, as the records
 * say; while nobody can say, nothing is touched.
 * 0 also where another process is at it.  The first failure; it is tried again at the next look.
 * -EPROTO the old and the new image both look like the disk: a person has to decide.
 */
BASE_MUST_CHECK int vm_inventory_look(int directory_fd, struct mig_records *records,
				      const char *name, struct base_error *err);

/* The bytes of a record: a line with the checksum of what follows, and a JSON object.  -EBADMSG. */
BASE_MUST_CHECK int vm_inventory_decode(const char *bytes, size_t size_bytes, json_t **ret_root,
					struct base_error *err);

#endif
