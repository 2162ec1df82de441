/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Pages of a VM's memory that are not there yet: whoever touches one waits, until it is filled.
 * userfaultfd(2) over a mapping of a file; docs/migrate/postcopy.md, section 2.
 *
 * Bytes go to the file through a mapping of its own that nobody else knows, and are then shown at
 * the guest's; so nobody sees a page that is half there.  Which pages may be filled or shown when
 * is the caller's to know: here nothing is remembered.
 *
 * Threads: read on one, fill and show on any, for pages that nobody else fills at the time; new,
 * end and free while none of these is inside.  Whoever is inside must not touch the guest's
 * mapping, nor hold a lock that one who touches it may want.
 */
#ifndef MIGRATE_MIG_FAULTS_H
#define MIGRATE_MIG_FAULTS_H

#include <stdbool.h>
#include <stdint.h>

#include "base/error.h"

#define MIG_FAULTS_BLOCK_PAGES                                                                     \
	512u /* what is mapped as one where it can be, and dropped as one                          \
	      */

struct mig_faults;

/* Where: all borrowed. */
struct mig_faults_place {
	int fault_fd;    /* of mig_faults_open() */
	int memory_fd;   /* the file; it has all of its pages */
	uint8_t *memory; /* its mapping from its start on, MAP_SHARED: the guest's */
	uint64_t page_count;
};

/**
 * mig_faults_open - a descriptor that takes the faults of this process, the kernel's too.
 * Needs a privilege: before it is given up.  -EPERM; -ENOTSUP this kernel cannot.
 */
BASE_MUST_CHECK int mig_faults_open(int *ret_fd, struct base_error *err);

/**
 * mig_faults_new - from here on whoever touches a page of @owed waits; and, as they are dropped
 * by the block, whoever touches one beside, once.
 * @owed: a bit for each page, bit i of word w is page 64 * w + i.
 * Errors of the kernel; -ENOMEM.  Nothing is registered then.
 */
BASE_MUST_CHECK int mig_faults_new(const struct mig_faults_place *place,
				   const _Atomic uint64_t *owed, struct mig_faults **ret_faults,
				   struct base_error *err);

/* Pages that somebody waits for, at most @most; the same one may come again.  0: none now.  The
 * descriptor is readable when there are some. */
BASE_MUST_CHECK int mig_faults_read(struct mig_faults *faults, uint64_t *ret_pages, uint32_t most,
				    struct base_error *err);

/* The page @first and @count - 1 behind it have these bytes (NULL: zeros), and are shown.  Errors:
 * of each page it is unknown whether it is shown: none may be taken for shown. */
BASE_MUST_CHECK int mig_faults_fill(struct mig_faults *faults, uint64_t first, uint64_t count,
				    const uint8_t *bytes, struct base_error *err);

/* They are as they shall be: show them.  Those that are shown already stay so. */
BASE_MUST_CHECK int mig_faults_show(struct mig_faults *faults, uint64_t first, uint64_t count,
				    struct base_error *err);

/* Nobody waits any more, now or later: all is as it is in the file.  Again is fine. */
void mig_faults_end(struct mig_faults *faults);
void mig_faults_free(struct mig_faults *faults); /* ends it; NULL is fine */

#endif
