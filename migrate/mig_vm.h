/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What a migration needs of a VM on either side; filled in by agent/.
 *
 * The source copies while the VM runs: track, harvests, hold, then state and let_go.  The
 * destination prepares room for what the plan names, takes memory and images, loads the device
 * state while nothing runs, and runs only when told to.  Who runs is docs/migrate/switchover.md's
 * matter; a VM does what it is told.
 *
 * Threads: calls come from the session's own threads, one at a time (but disk ops: docs of
 * mig_intake.h; and what says otherwise).  They may block, for less than the session's timeout
 * where the VM is paused.
 */
#ifndef MIGRATE_MIG_VM_H
#define MIGRATE_MIG_VM_H

#include "migrate/mig_body.h"
#include "migrate/mig_heat.h"
#include "migrate/mig_image.h"
#include "migrate/mig_intake.h"
#include "migrate/mig_switch.h"

/* Who owns the VM: docs/migrate/switchover.md, section 1. */
struct mig_register {
	uint64_t epoch;
	enum mig_side owner;
};

/* Bitmaps of pages are as in mig_copy_round(). */
struct mig_source_vm {
	/* What there is to move.  Filled in; mig_plan_fini() releases. */
	int (*plan)(void *vm, struct mig_plan *ret_plan, struct base_error *err);
	/* Guest memory, pages in a row; outlives the session. */
	const uint8_t *(*memory)(void *vm);
	/* Log what is written from now on; or stop that. */
	int (*track)(void *vm, bool on, struct base_error *err);
	struct mig_dirty_ops dirty; /* of the log; context: the VM */
	/* Pages that may be other than zero: what was never touched is not among them, and is in
	 * the log once it is touched after the call.  Overwritten. */
	int (*touched)(void *vm, uint64_t *into, struct base_error *err);
	/* Of the plan's objects 1 and up; NULL where there are none. */
	const struct mig_image_ops *images;
	/* Keep the guest from running for so much of its time, those who write first
	 * (mig_throttle.h); 0: no more.  NULL: cannot. */
	void (*throttle)(void *vm, uint32_t permille);
	/* vCPUs stand still, no request of the guest's is in flight. */
	int (*hold)(void *vm, struct base_error *err);
	/* Held: append the device state. */
	int (*state)(void *vm, struct base_buffer *out, struct base_error *err);
	/* Held: the disks are flushed and given back; nothing here writes to them any more. */
	int (*let_go)(void *vm, struct base_error *err);
	/* Take the disks again at @epoch and go on.  Also when only hold() was called, or it
	 * failed.  Not 0: not a byte of a disk was changed; it is tried again. */
	int (*run)(void *vm, uint64_t epoch, struct base_error *err);
	/* The VM runs there, and is never run here again; its memory stays, as pages of it are
	 * still sent, until release().  Make durable that it has moved; what is not now is by
	 * promise() at the end.  NULL: nothing to do. */
	void (*serve)(void *vm);
	/* The VM is another's: its memory here goes.  Last call. */
	void (*release)(void *vm);
	/* Make durable that the arbiter may have been asked to give the VM away from @epoch; or,
	 * with @on false, that this is over: before run(), and at the end, more than once.
	 * -ETIMEDOUT: unknown. */
	int (*promise)(void *vm, bool on, uint64_t epoch, struct base_error *err);
	/* Whether an operator has decided in doubt (docs/migrate/records.md): 1 and *ret_register,
	 * which is to be taken as the answer; 0 no, or not known.  Called when a question to a
	 * destination that keeps the register had no answer, and nothing is heard of it: who is
	 * heard of is not dead.  NULL: never. */
	int (*resolved)(void *vm, struct mig_register *ret_register);
};

struct mig_destination_vm {
	/* Look at all of @plan; each objection is a line of @findings, which may have some.
	 * Without any: memory (zero,
	 * populated ahead as far as is sensible) and images under their temporary names are there.
	 * Not 0: it cannot even be looked at. */
	int (*prepare)(void *vm, const struct mig_plan *plan, struct mig_findings *findings,
		       uint8_t **ret_memory, struct base_error *err);
	struct mig_disk_ops disk;
	/* Pages may be waited for from now on: what touches memory ahead of its arrival has ended
	 * when it returns.  NULL: nothing does. */
	void (*settle)(void *vm);
	/* So many bytes of memory other than zeros have come, in all.  From the channels' threads,
	 * between prepare() and settle() or check(); does not block.  NULL: not needed. */
	void (*came)(void *vm, uint64_t bytes);
	/* All has come: load the device state, make the images durable, and durable that all is
	 * here (the register of mig_arbiter).  Nothing runs, no disk is active.  -ENOSPC, -EBADMSG,
	 * -ENOTSUP, ...: it cannot run here. */
	int (*check)(void *vm, const uint8_t *state, size_t state_bytes, struct base_error *err);
	/* Activate the disks at @epoch, run.  Not 0: nothing ran, and not a byte of a disk was
	 * changed. */
	int (*run)(void *vm, uint64_t epoch, struct base_error *err);
	/* Nothing of the VM stays here, neither memory nor images.  Last call. */
	void (*release)(void *vm);
};

/*
 * The register (epoch, side) of the VM, as switchover.md wants it.  May block, for less than the
 * timeout.  0: *ret_register is what it was at one instant after the call began.  Anything else:
 * unknown, the request may still be carried out.
 */
struct mig_arbiter {
	/* From (@epoch, anyone) to (@epoch + 1, @owner). */
	int (*ask)(void *context, uint64_t epoch, enum mig_side owner,
		   struct mig_register *ret_register, struct base_error *err);
	int (*read)(void *context, struct mig_register *ret_register, struct base_error *err);
	void *context;
};

#endif
