/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The object of a move, for vm_migrate.c (life, what is told), vm_migrate_source.c and
 * vm_migrate_destination.c (what the sessions want done).
 */
#ifndef AGENT_VM_MIGRATE_PRIV_H
#define AGENT_VM_MIGRATE_PRIV_H

#include <pthread.h>
#include <stdatomic.h>

#include "agent/vm_devices_move.h"
#include "agent/vm_inventory.h"
#include "agent/vm_migrate.h"
#include "agent/vm_migrate_plan.h"
#include "agent/vm_migrate_route.h"
#include "agent/vm_migrate_yield.h"

/* Before the container of the saved-state format: u32 version, u32 flags. */
#define VM_MOVE_STATE_HEADER_BYTES 8u
#define VM_MOVE_STATE_VERSION      1u
#define VM_MOVE_STATE_PAUSED       1u /* by the user */

struct vm_move {
	struct vm_move_options options;
	uint64_t epoch; /* at the source; from 1 */
	struct mig_keep keep;
	atomic_bool has_keep;           /* @keep is whole */
	struct vm_inventory *inventory; /* the images, while it is under way; NULL: none */

	/* Source. */
	struct vm_move_request request;
	struct vm_route route;
	struct vm_yield yield; /* nothing unless it yields */
	uint8_t id[MIG_ID_BYTES];
	struct mig_out *out;
	struct mig_rate *rate;             /* NULL: no cap */
	struct vm_migrate_out *images_out; /* NULL: no image is sent */
	pthread_t thread;
	bool has_thread;
	atomic_bool over; /* end, err, findings and report are final */
	enum mig_out_end end;
	struct base_error err;
	struct mig_findings findings;
	struct mig_out_report report;
	/* Of the session's thread. */
	bool quiet;                    /* we have quiesced it */
	bool given;                    /* the disks were handed back, or may have been */
	bool released;                 /* the VM is another's */
	_Atomic uint64_t epoch_now;    /* at which it runs here; 0: as when this began */
	uint32_t shares[HV_VCPUS_MAX]; /* the mover's: permille that each vCPU is slowed by */

	/* Destination. */
	struct mig_in *in;
	struct mig_arbiter arbiter;      /* the register, on @keep */
	struct vm_plan *plan;            /* of the VM that comes */
	struct vm_migrate_in *images_in; /* NULL: no image comes */
	struct vm_ahead *ahead;          /* NULL: memory is not populated now */
	bool comes_paused;
	uint64_t turned_away_ns; /* the door's: when a stranger was in the log; 0: none was */
};

/* --- vm_migrate_images.c --- */

/* Source: the images that it will have left are recorded; and what becomes of them, once it is
 * over. */
BASE_MUST_CHECK int vm_move_images_leave(struct vm_move *move, struct base_error *err);
void vm_move_images_left(struct vm_move *move);
/* Destination: vm_migrate_in_options.making; then they are the VM's, or were removed. */
BASE_MUST_CHECK int vm_move_images_making(void *context, const char *const *names, uint32_t count,
					  struct base_error *err);
void vm_move_images_came(struct vm_move *move);
void vm_move_images_gone(struct vm_move *move);

/* --- vm_migrate_post.c --- */

/* Source: figures of post-copy; nothing without. */
void vm_move_put_post(json_t *object, const struct vm_move *move);
/* Destination: whether pages may come after the VM, and where to. */
void vm_move_post_options(const struct vm_move *move, struct mig_in_options *options);

extern const struct mig_source_vm vm_move_source;           /* context: the move */
extern const struct mig_destination_vm vm_move_destination; /* likewise */

#endif
