/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A guest that verifies itself, in a process that may be killed, stopped or cut off at any time.
 *
 * It writes pages of memory and records on a disk, and tells a witness outside of its process what
 * it wrote: a file that both sides of a migration have mapped.  Wherever it begins to run it first
 * looks at every page and every record.  That it runs at all is a lock on a file, which the kernel
 * gives to one process at a time and takes back from a dead one: who does not get it has found a
 * VM that runs twice.
 *
 * Threads: calls come one at a time; the guest has two threads of its own.
 */
#ifndef TESTS_FAULT_GUEST_H
#define TESTS_FAULT_GUEST_H

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "hypervisor/disk/disk.h"
#include "migrate/mig_copy.h"

#define FAULT_PAGES   (6u * 256u + 45u) /* the last span is not whole */
#define FAULT_WORDS   (FAULT_PAGES / 64u + 1u)
#define FAULT_SLOTS   96u
#define FAULT_RECORD  4096u
#define FAULT_DISK    (8ULL << 20)
#define FAULT_SPACING (FAULT_DISK / FAULT_SLOTS / FAULT_RECORD * FAULT_RECORD)

/* What everybody has mapped, and what stays when a process dies. */
struct fault_witness {
	_Atomic uint64_t clock;              /* the guest's own: each write takes the next */
	_Atomic uint64_t pages[FAULT_PAGES]; /* when each was written last; 0: never */
	/* Records, likewise: begun, completed, flushed. */
	_Atomic uint64_t issued[FAULT_SLOTS];
	_Atomic uint64_t done[FAULT_SLOTS];
	_Atomic uint64_t acked[FAULT_SLOTS];
	_Atomic uint64_t starts; /* times that it began to run */
	_Atomic uint64_t twice, bad_pages, bad_records;
};

struct fault_guest {
	struct fault_witness *witness;
	int lock_fd; /* locked while it runs, or may */
	bool locked;
	uint8_t *memory;
	int memory_fd;     /* the file of it */
	bool comes_later;  /* pages may come when it runs: they are looked at by its own thread */
	struct disk *disk; /* active while it runs */
	_Atomic uint64_t log[FAULT_WORDS];
	bool tracks;
	atomic_bool stop;
	atomic_bool verified;    /* all of it, since it began to run */
	_Atomic uint64_t writes; /* pages and records, since then */
	atomic_uint disk_errors;
	bool runs;
	pthread_t threads[2];
};

/* The witness is @path, the lock @path with ".lock". */
void fault_guest_init(struct fault_guest *guest, const char *path);
/* The only one; otherwise it is noted, and false. */
bool fault_guest_lock(struct fault_guest *guest);
void fault_guest_unlock(struct fault_guest *guest);
/* A machine that was switched on: memory is new, the disk is what a crash leaves at worst. */
void fault_guest_boot(struct fault_guest *guest);
/* A machine that goes on: each page and each completed record is there.  Locked before. */
void fault_guest_run(struct fault_guest *guest);
/* It stands still, and none of its requests is in flight.  Again is fine. */
void fault_guest_hold(struct fault_guest *guest);

#endif
