/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A VM of a fault test: the guest of fault_guest.h with a real image in a real folder and real
 * records, and what a migration's sessions want of it, in the order in which agent/ does it.
 *
 * Threads: as mig_vm.h says.
 */
#ifndef TESTS_FAULT_VM_H
#define TESTS_FAULT_VM_H

#include "agent/vm_migrate_disk.h"
#include "migrate/mig_records.h"
#include "migrate/mig_vm.h"
#include "tests/fault/fault_guest.h"

#define FAULT_NAME  "vm"
#define FAULT_IMAGE "disk.vhdx"

struct fault_vm {
	struct fault_guest guest;
	const char *folder;
	const char *peer;
	struct store *store;
	struct base_io_loop *loop;
	struct disk *disk; /* NULL: none is open */
	int folder_fd;
	struct mig_records *records;
	struct mig_keep keep;
	bool has_keep;
	uint64_t epoch; /* at which it runs, or ran at the source */

	/* Source. */
	uint8_t id[MIG_ID_BYTES];
	struct vm_migrate_out *images_out;
	bool given;    /* the disk was given back, or may have been */
	bool released; /* the VM is another's */

	/* Destination. */
	struct vm_migrate_in *images_in;
	atomic_int lose_before; /* questions that are not carried out, and not answered */
	atomic_int lose_after;  /* that are carried out, and not answered */
};

extern const struct mig_source_vm fault_source;           /* context: the VM */
extern const struct mig_destination_vm fault_destination; /* context: the VM */

/* The register, on the VM's record; outlived by the VM. */
struct mig_arbiter fault_vm_arbiter(struct fault_vm *vm);

/* In @folder is its image, in its folder "state" its records.  Aborts where that cannot be. */
void fault_vm_init(struct fault_vm *vm, const char *folder, const char *witness, const char *peer);
void fault_vm_fini(struct fault_vm *vm);
/* A new image. */
void fault_vm_create(struct fault_vm *vm);
/* Switch it on, as a worker does that is started: what the records say, then the image. */
BASE_MUST_CHECK int fault_vm_boot(struct fault_vm *vm, struct base_error *err);
/* It stands still, its disk is closed. */
void fault_vm_stop(struct fault_vm *vm);

#endif
