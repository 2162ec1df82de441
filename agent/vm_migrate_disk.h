/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Disks in a migration, on real images: what a plan says of each, the source's side of
 * mig_image_ops, and the destination's of mig_disk_ops.  docs/migrate/disks.md.
 *
 * Threads: the source's harvest and the destination's making and finishing on one thread; map,
 * read, write and clear on several at a time; none of them an I/O loop's.
 */
#ifndef AGENT_VM_MIGRATE_DISK_H
#define AGENT_VM_MIGRATE_DISK_H

#include "hypervisor/disk/disk.h"
#include "migrate/mig_body.h"
#include "migrate/mig_image.h"
#include "migrate/mig_intake.h"

#define VM_IMAGE_NAME_BYTES                                                                        \
	201 /* a file name; with what is put around it a folder still takes it */
#define VM_IMAGE_BYTES_MAX (64ULL << 40) /* of one: as large as a VHDX gets */

/* --- what a plan says of an image --- */

/* A value. */
struct vm_image {
	bool is_top; /* sectors as a guest sees them; else those of a file, as it is */
	char name[VM_IMAGE_NAME_BYTES];
	enum disk_format format;
	uint64_t bytes;      /* top: of the disk; else of the file */
	uint64_t need_bytes; /* of space, at the destination */
	struct disk_guid data_id;
	char next[VM_IMAGE_NAME_BYTES]; /* file: the image that a checkpoint goes on in; "" none */

	/* Top. */
	enum disk_kind kind;
	uint32_t block_bytes;
	uint32_t logical_sector_bytes;
	uint32_t physical_sector_bytes;
	struct disk_guid id;
	char parent[VM_IMAGE_NAME_BYTES]; /* "": none */
	enum disk_format parent_format;
	struct disk_parent_is parent_is;
};

/* A description of mig_plan_object: JSON, from malloc(); NULL no memory. */
char *vm_image_encode(const struct vm_image *image);
/* -EBADMSG: not JSON, a key missing or unknown, a value that cannot be (a name that is no plain
 * file name above all).  Bytes of a peer. */
BASE_MUST_CHECK int vm_image_decode(const char *text, struct vm_image *ret_image,
				    struct base_error *err);

/* --- the source --- */

struct vm_migrate_out;

struct vm_migrate_from {
	struct store *store; /* borrowed */
	struct disk *disk;   /* borrowed; with its loop */
	bool read_only;      /* nobody writes it: all of its images go as files */
};

/**
 * vm_migrate_out_new - watch @disks from now on, and say what there is to move.
 * @plan: gets an object for each image, behind those that it has; an image that several disks have
 * goes once.
 * -EBUSY a job on a disk; -EINVAL a chain that is not in one folder, or a name that no plan can
 * have; -ENOSPC more than MIG_OBJECTS_MAX; -ENOMEM; errors of the store.
 */
BASE_MUST_CHECK int vm_migrate_out_new(const struct vm_migrate_from *disks, uint32_t count,
				       struct mig_plan *plan, struct vm_migrate_out **ret_out,
				       struct base_error *err);
/* mig_image_options.ops; the context is the vm_migrate_out. */
extern const struct mig_image_ops vm_migrate_out_ops;
/* The disks are held (disk_move()) from now on: map and read go past what waits. */
void vm_migrate_out_held(struct vm_migrate_out *out);
/* The disks are watched no more; before they are deactivated.  Again is fine. */
void vm_migrate_out_stop(struct vm_migrate_out *out);
/* The images that are this VM's alone, and stand for an older state of it once it goes on
 * elsewhere: the tops, and parents that a checkpoint of them has made; never a parent that others
 * may use, or what is only read.  Valid until free.  The count. */
struct vm_migrate_own {
	struct store *store;
	const char *name; /* in it */
};
uint32_t vm_migrate_out_own(const struct vm_migrate_out *out,
			    struct vm_migrate_own ret_list[MIG_OBJECTS_MAX]);
/* The VM runs elsewhere, with its images there: those that were its own here are put away, and
 * removed unless @keep, so that nobody starts from them (vm_image_away.h).  The disks are given
 * back (disk_deactivate()) and may still be open.  The first failure; the others go all the same.
 */
BASE_MUST_CHECK int vm_migrate_out_discard(struct vm_migrate_out *out, bool keep,
					   struct base_error *err);
/* Stops, and closes what was opened.  NULL is fine. */
void vm_migrate_out_free(struct vm_migrate_out *out);

/* --- the destination --- */

struct vm_migrate_in;

struct vm_migrate_in_options {
	struct store *store; /* borrowed */
	const char *folder;  /* in it, "" its root; all images go there */
	struct base_io_loop *loop;
	const struct mig_plan *plan; /* borrowed for the call; object 0 is skipped */
	/* Nothing is objected to, and these files are made next, as NAME.incoming, later NAME: to
	 * be recorded durably.  Not 0: none is.  May be NULL. */
	int (*making)(void *context, const char *const *names, uint32_t count,
		      struct base_error *err);
	void *context;
};

/**
 * vm_migrate_in_new - look at what has to be made; and make it, where there is no objection.
 * @findings: gets a line for each objection; then *ret_in is NULL.
 * Errors: it cannot even be looked at.  Nothing stays then.
 */
BASE_MUST_CHECK int vm_migrate_in_new(const struct vm_migrate_in_options *options,
				      struct mig_findings *findings, struct vm_migrate_in **ret_in,
				      struct base_error *err);
/* mig_intake_options.disk; the context is the vm_migrate_in. */
extern const struct mig_disk_ops vm_migrate_in_ops;
/**
 * vm_migrate_in_finish - all has come: durable, under their names, closed.
 * Chains were opened and fit; nobody has a lease.  After an error only free is of use.
 */
BASE_MUST_CHECK int vm_migrate_in_finish(struct vm_migrate_in *in, struct base_error *err);
/* What came so far is durable: less is left for the end.  Not during a round. */
BASE_MUST_CHECK int vm_migrate_in_flush(struct vm_migrate_in *in, struct base_error *err);
/* The images are somebody's now: free leaves them. */
void vm_migrate_in_keep(struct vm_migrate_in *in);
/* Removes what was made, unless it was to be kept.  NULL is fine. */
void vm_migrate_in_free(struct vm_migrate_in *in);

#endif
