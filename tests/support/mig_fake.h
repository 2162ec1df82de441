/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Two VMs without a hypervisor, a source's and a destination's, and a guest that writes, for tests
 * of migration sessions.  The guest remembers outside of its memory what it wrote, and checks it
 * where it runs; that it runs at two places at once, or with a disk that another has, is counted.
 */
#ifndef TESTS_SUPPORT_MIG_FAKE_H
#define TESTS_SUPPORT_MIG_FAKE_H

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>

#include "migrate/mig_vm.h"

#define MIG_FAKE_PAGES   (9u * 256u + 77u) /* the last span is not whole */
#define MIG_FAKE_WORDS   (MIG_FAKE_PAGES / 64u + 1u)
#define MIG_FAKE_EPOCH   7u
#define MIG_FAKE_SECTORS (3u * 2048u + 77u) /* of its image, where it has one */
#define MIG_FAKE_STATE   "the device state of a machine that is not one"

/* How often an operation fails before it works; a negative number: always. */
struct mig_fake_faults {
	atomic_int touched, hold, state, let_go, run, promise, prepare, findings, check;
	atomic_int unknown_before; /* the arbiter: no answer, nothing done */
	atomic_int unknown_after;  /* no answer, done */
};

/* What the whole world knows. */
struct mig_fake_world {
	atomic_int running;   /* VMs that run */
	atomic_int twice;     /* times that it were more than one, or a disk had two writers */
	atomic_int disk;      /* its writers */
	atomic_uint bad_page; /* found by the guest, where it ran */
	uint64_t written[MIG_FAKE_PAGES];
	uint64_t clock; /* the guest's own */

	pthread_mutex_t lock; /* the register */
	struct mig_register owner;
	bool promised;
	_Atomic uint64_t resolved; /* an operator gave it back to the source, at this epoch */
	bool all_here;
	uint64_t asked; /* successful changes */
};

struct mig_fake_vm {
	struct mig_fake_world *world;
	struct mig_fake_faults faults;
	uint8_t *memory;
	int memory_fd;        /* of a mapping of a file; -1: it is none */
	int fault_fd;         /* of the destination, which takes pages by post-copy; -1 */
	bool check_touches;   /* the destination's check looks at every page */
	uint8_t *image;       /* NULL: none */
	uint64_t image_marks; /* granules of it to be sent */
	bool unwatched;       /* since it was let go: what its guest writes gets no mark */
	_Atomic uint64_t log[MIG_FAKE_WORDS];
	bool tracking;
	bool has_disk;
	bool is_source;
	bool writes;            /* the guest does something */
	uint32_t writes_per_ms; /* 0: as fast as it can */
	atomic_uint throttled;  /* permille of its time that it is kept from running */
	atomic_uint throttles;  /* times that it was slowed */
	atomic_uint unslowed;   /* times that it was let go */
	/* Pages between two harvests, however long that is, less what it is throttled by; it does
	 * not write as well (@writes). */
	uint32_t writes_per_harvest;
	bool writes_last; /* some more, right before it is held */
	atomic_bool runs;
	atomic_bool stop;
	atomic_bool released;
	atomic_bool checked; /* its guest has looked at every page since it began to run */
	atomic_uint holds;
	atomic_uint serves;
	atomic_uint tracks;                /* times that tracking began */
	void (*at)(const char *operation); /* before each of them; may be NULL */
	uint64_t epoch;
	uint64_t writes_done;
	bool has_thread;
	pthread_t thread;
};

extern const struct mig_source_vm mig_fake_source;           /* context: the VM */
extern const struct mig_destination_vm mig_fake_destination; /* context: the VM */

void mig_fake_world_init(struct mig_fake_world *world);
struct mig_arbiter mig_fake_arbiter(struct mig_fake_vm *vm);
void mig_fake_vm_init(struct mig_fake_vm *vm, struct mig_fake_world *world, bool is_source);
/* It has an image, too, which moves with it; both sides, before anything else. */
void mig_fake_vm_add_image(struct mig_fake_vm *vm);
/* Its memory is that of a file, and pages may be waited for: for post-copy.  Before anything else;
 * false: this host does not let us. */
bool mig_fake_vm_share(struct mig_fake_vm *vm);
/* Its guest runs no more; nothing is left. */
void mig_fake_vm_fini(struct mig_fake_vm *vm);
/* The source's guest begins to run. */
void mig_fake_vm_start(struct mig_fake_vm *vm);
/* Waits until the guest, which runs, has looked at every page. */
void mig_fake_vm_wait_checked(struct mig_fake_vm *vm);
/* Waits until the guest wrote @count times more, where it runs. */
void mig_fake_vm_wait_writes(struct mig_fake_vm *vm, uint64_t count);

#endif
