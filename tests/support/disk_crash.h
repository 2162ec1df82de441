/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Power failures under a disk, for any format.
 *
 * A *case* is a workload that runs against a disk on a recording fake store.  Afterwards the power
 * fails at chosen events of the record, in each of the ways fake_store_crash() knows.
 * What is left is opened as after a real failure: read in standby, activated, checked, read
 * whole, now and then written to, closed, checked again.  crash_model.h says what it may hold.
 *
 * A program of crash tests is a table of cases and crash_main().  A failure prints a line
 *	reproduce: <program> --point CASE:ROUND:EVENT:LOSS:SEED
 * and that command line runs this point only.  Each case runs in several rounds that differ in
 * their random numbers; "--rounds N" runs more of them.
 *
 * Everything runs on one thread, which pumps the loops; their clock is set by hand.
 */
#ifndef TESTS_DISK_CRASH_H
#define TESTS_DISK_CRASH_H

#include "hypervisor/disk/disk.h"
#include "hypervisor/disk/fake_store.h"

struct crash;

struct crash_case {
	const char *name;
	/* Sets the disk up, calls crash_record(), does what is to be interrupted. */
	void (*run)(struct crash *crash);
	struct disk_create_options create; /* of the disk "disk"; see crash_make() */
	struct fake_store_plan plan;       /* while it is recorded */
	bool write_through;
	uint32_t share; /* of the points; 0: 1 */
};

/**
 * crash_main - run all cases, or the point that the command line names.
 * @points: how many power failures in all, divided by share and among the rounds; a tenth of
 *          that, in one round, with a sanitizer.
 * Return: 0, or 1 when something failed; it is printed.
 */
int crash_main(int argc, char **argv, const struct crash_case *cases, size_t case_count,
	       uint32_t points);

/* --- what a workload may do; a failure ends the case, except where the plan says it may --- */

/* Make the case's disk under @name and open it; @parent NULL: none.  An open one is closed
 * first: the way to a parent with content. */
void crash_make(struct crash *crash, const char *name, const char *parent);
/* From here on the power may fail. */
void crash_record(struct crash *crash);
/* Random, the same for each run; below @limit. */
uint64_t crash_random(struct crash *crash, uint64_t limit);
uint64_t crash_size(const struct crash *crash);

/* Asynchronous; up to 16 are in flight; one that touches what is in flight waits for that.  What
 * is past the end of the disk is cut off. */
void crash_write(struct crash *crash, uint64_t offset_bytes, uint64_t length_bytes, uint32_t flags);
void crash_zero(struct crash *crash, uint64_t offset_bytes, uint64_t length_bytes, uint32_t flags);
void crash_unmap(struct crash *crash, uint64_t offset_bytes, uint64_t length_bytes, uint32_t flags);
void crash_flush(struct crash *crash);
/* False: not now, because it would have to wait; for callbacks on the loop. */
bool crash_try_write(struct crash *crash, uint64_t offset_bytes, uint64_t length_bytes,
		     uint32_t flags);
/* All that is in flight is over. */
void crash_wait(struct crash *crash);
/* Waits, before and after. */
void crash_resize(struct crash *crash, uint64_t size_bytes);
/* The clock goes on: timers expire.  Waits. */
void crash_tick(struct crash *crash, uint64_t duration_ms);
/* Reads all that was written, and compares.  Waits. */
void crash_verify(struct crash *crash);
/* Close and open again. */
void crash_reopen(struct crash *crash);
/* Go on in a new image on top. */
void crash_checkpoint(struct crash *crash, const char *name);
/* Merge layer @index into its parent; @guest is called again and again meanwhile, on the loop;
 * may be NULL. */
void crash_merge(struct crash *crash, uint32_t index, void (*guest)(struct crash *crash));
void crash_compact(struct crash *crash, void (*guest)(struct crash *crash));

#endif
