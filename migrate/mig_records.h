/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The records of a state directory, and how they change: docs/migrate/records.md.
 *
 * Every change is read, judged and written under one lock, and durable when the call returns 0.
 * -ETIMEDOUT: written, but not known to be durable; the next call that tells of the record writes
 * it again first.  -EAGAIN: another process was at the records all the time; nothing happened.
 * -EBADMSG: a record that is there cannot be used.  Anything else of the system: nothing happened.
 *
 * Threads: any, also at once; calls block for as long as fsync does.  A mig_keep belongs to its
 * records' lock.
 */
#ifndef MIGRATE_MIG_RECORDS_H
#define MIGRATE_MIG_RECORDS_H

#include <stdatomic.h>

#include "base/clock.h"
#include "migrate/mig_record.h"

struct mig_records;

/* @directory_fd: borrowed, outlives it.  @clock: NULL: the host's.  -ENOMEM. */
BASE_MUST_CHECK int mig_records_new(int directory_fd, const struct base_clock *clock,
				    struct mig_records **ret_records, struct base_error *err);
void mig_records_free(struct mig_records *records); /* NULL is fine */

/* One record.  -ENOENT there is none. */
BASE_MUST_CHECK int mig_records_load(struct mig_records *records, enum mig_record_kind kind,
				     const char *name, struct mig_record *ret_record,
				     struct base_error *err);

/* All of them, by name, register before promise.  Gives a malloc'ed list.  A record that is there
 * and cannot be used is an entry as well, with its error. */
struct mig_records_entry {
	char name[MIG_RECORD_NAME_BYTES];
	enum mig_record_kind kind;
	int code; /* 0, or what mig_records_load() gave */
	struct mig_record record;
	struct base_error err;
};
BASE_MUST_CHECK int mig_records_list(struct mig_records *records,
				     struct mig_records_entry **ret_list, size_t *ret_count,
				     struct base_error *err);

/**
 * mig_records_may_start - may VM @name be started here from its disks?
 * @epoch: at which; 0: at none in particular.
 * @ret_epoch: the least at which it may run; 0: no record says.
 * -EPROTO in doubt, or it belongs to the other side; -ESTALE @epoch is below the least.
 */
BASE_MUST_CHECK int mig_records_may_start(struct mig_records *records, const char *name,
					  uint64_t epoch, uint64_t *ret_epoch,
					  struct base_error *err);

/* What a session keeps of its own record.  Whole once mig_keep_init() returned 0. */
struct mig_keep {
	struct mig_records *records;
	struct mig_record whose; /* name, peer, id */
	/* The rest is mig_records.c's. */
	atomic_bool untouched; /* activating, but nothing was */
	bool is_settled;       /* @settled is durable */
	uint8_t settled[MIG_RECORD_BYTES];
};
/* @id: of the migration.  @peer: how people find the other side.  -EINVAL. */
BASE_MUST_CHECK int mig_keep_init(struct mig_keep *keep, struct mig_records *records,
				  const char *name, const char *peer,
				  const uint8_t id[MIG_ID_BYTES], struct base_error *err);

/*
 * The destination's register.
 *
 * may_begin: begin's answer before there is anything, for the findings; writes nothing.
 * coming: before anything of it is made here; what may_begin answers.  A life that was over before
 * begin is forgotten by leave.
 * begin: all is here, the register is (@epoch, source).  -ESTALE a register of a later life of the
 * VM is here; -EPROTO this migration has got further; -EINVAL.
 * ask, read: as mig_arbiter; -ENOENT, -ESTALE the record is gone or another migration's; -EPROTO
 * the VM's activation had begun, or a swap that cannot be.
 * activate: before a disk is.  -EPROTO the register is not (@epoch, destination).
 * untouched: activation failed, and no byte of a disk was changed.  It may be asked for again
 * whatever this returns.
 * runs: it does.  leave: nothing of it stays here; without a record there is nothing to do.
 * -EPROTO it is ours.
 */
BASE_MUST_CHECK int mig_register_may_begin(const struct mig_keep *keep, uint64_t epoch,
					   struct base_error *err);
BASE_MUST_CHECK int mig_register_coming(struct mig_keep *keep, uint64_t epoch,
					struct base_error *err);
BASE_MUST_CHECK int mig_register_begin(struct mig_keep *keep, uint64_t epoch,
				       struct base_error *err);
BASE_MUST_CHECK int mig_register_ask(struct mig_keep *keep, uint64_t epoch, enum mig_side owner,
				     struct mig_register *ret_register, struct base_error *err);
BASE_MUST_CHECK int mig_register_read(struct mig_keep *keep, struct mig_register *ret_register,
				      struct base_error *err);
BASE_MUST_CHECK int mig_register_activate(struct mig_keep *keep, uint64_t epoch,
					  struct base_error *err);
BASE_MUST_CHECK int mig_register_untouched(struct mig_keep *keep, struct base_error *err);
BASE_MUST_CHECK int mig_register_runs(struct mig_keep *keep, struct base_error *err);
BASE_MUST_CHECK int mig_register_leave(struct mig_keep *keep, struct base_error *err);
/* An arbiter on @keep, which outlives it. */
struct mig_arbiter mig_register_arbiter(struct mig_keep *keep);

/*
 * The source's promise.
 *
 * make: before the arbiter is asked.  -ESTALE the VM has a record of a later epoch here.
 * end: the VM runs here again, at @epoch; or, @moved, it is gone from here: then this side's own
 * register of it goes as well, before.  What the next start has to know stays: that it is another's
 * now, or at which epoch it came back.  Without a record there is nothing to do.
 * answer: 1 an operator has decided, 0 not.
 */
BASE_MUST_CHECK int mig_promise_make(struct mig_keep *keep, uint64_t epoch, struct base_error *err);
BASE_MUST_CHECK int mig_promise_end(struct mig_keep *keep, bool moved, uint64_t epoch,
				    struct base_error *err);
BASE_MUST_CHECK int mig_promise_answer(struct mig_keep *keep, struct mig_register *ret_register,
				       struct base_error *err);

#endif
