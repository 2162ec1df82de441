/* SPDX-License-Identifier: Apache-2.0 */
/* What changes of a record are made of: a pure step, and the one place that writes. */
#ifndef MIGRATE_MIG_RECORDS_PRIV_H
#define MIGRATE_MIG_RECORDS_PRIV_H

#include "migrate/mig_records.h"

enum mig_change {
	MIG_CHANGE_NONE, /* 0 */
	MIG_CHANGE_WRITE,
	MIG_CHANGE_REMOVE,
};

struct mig_wish;

/* What becomes of a record.  @now NULL: there is none.  @next: NONE: *now or nothing.  An enum
 * mig_change, or a negative errno with @err set. */
typedef int (*mig_step)(const struct mig_record *now, const struct mig_wish *wish,
			struct mig_record *next, struct base_error *err);

/* What somebody wants of a record. */
struct mig_wish {
	enum mig_record_kind kind;
	mig_step step;
	struct mig_record whose; /* name, peer, id */
	uint64_t epoch;
	enum mig_side owner;
	bool untouched; /* activation is known to have changed nothing */
	/* mig_resolve() */
	bool here;
	bool other_is_dead;
};

int mig_step_coming(const struct mig_record *now, const struct mig_wish *wish,
		    struct mig_record *next, struct base_error *err);
int mig_step_begin(const struct mig_record *now, const struct mig_wish *wish,
		   struct mig_record *next, struct base_error *err);
int mig_step_ask(const struct mig_record *now, const struct mig_wish *wish, struct mig_record *next,
		 struct base_error *err);
int mig_step_read(const struct mig_record *now, const struct mig_wish *wish,
		  struct mig_record *next, struct base_error *err);
int mig_step_activate(const struct mig_record *now, const struct mig_wish *wish,
		      struct mig_record *next, struct base_error *err);
int mig_step_untouched(const struct mig_record *now, const struct mig_wish *wish,
		       struct mig_record *next, struct base_error *err);
int mig_step_runs(const struct mig_record *now, const struct mig_wish *wish,
		  struct mig_record *next, struct base_error *err);
int mig_step_leave(const struct mig_record *now, const struct mig_wish *wish,
		   struct mig_record *next, struct base_error *err);
int mig_step_promise(const struct mig_record *now, const struct mig_wish *wish,
		     struct mig_record *next, struct base_error *err);
int mig_step_promise_end(const struct mig_record *now, const struct mig_wish *wish,
			 struct mig_record *next, struct base_error *err);
/* The register of a VM that has moved away from @wish->epoch. */
int mig_step_moved(const struct mig_record *now, const struct mig_wish *wish,
		   struct mig_record *next, struct base_error *err);

/* 1, or 0 where there is none; else as mig_records_load(). */
BASE_MUST_CHECK int mig_records_find(struct mig_records *records, enum mig_record_kind kind,
				     const char *name, struct mig_record *ret_record,
				     struct base_error *err);

/**
 * mig_records_change - under the lock: load, step, write.
 * @keep: NULL: nobody's.  With one, what is told of the record is durable.
 * @ret_record: the record as it is now; zeros where there is none.  May be NULL.
 * What the step gave, or an error.
 */
BASE_MUST_CHECK int mig_records_change(struct mig_records *records, const struct mig_wish *wish,
				       struct mig_keep *keep, struct mig_record *ret_record,
				       struct base_error *err);

#endif
