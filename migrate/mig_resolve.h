/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What an operator decides where source and destination are cut off from each other in doubt:
 * docs/migrate/records.md, section 6.
 *
 * Any thread; calls block as those of mig_records.h do.
 */
#ifndef MIGRATE_MIG_RESOLVE_H
#define MIGRATE_MIG_RESOLVE_H

#include "migrate/mig_records.h"

struct mig_resolve {
	bool here;          /* the VM is this side's; else the other side's */
	bool other_is_dead; /* the operator's word: records.md has what it has to mean */
	bool dry_run;
};

/**
 * mig_resolve_look - the record of VM @name that counts in this directory.
 * -ENOENT there is none; -EPROTO there are both of one migration; -EBADMSG, -EINVAL.
 */
BASE_MUST_CHECK int mig_resolve_look(struct mig_records *records, const char *name,
				     struct mig_record *ret_record, struct base_error *err);

/**
 * mig_resolve_decide - decide, in the record that counts.
 * @ret_record: as it is afterwards, or would be with a dry run.
 * Return: 1 decided; 0 it is so already; -EPROTO the record, or a word that is not given, forbids
 * it, and nothing was changed; -ETIMEDOUT decided, but not known to be durable: again; what
 * mig_resolve_look() gives; -EAGAIN, and other errors of the system.
 */
BASE_MUST_CHECK int mig_resolve_decide(struct mig_records *records, const char *name,
				       const struct mig_resolve *resolve,
				       struct mig_record *ret_record, struct base_error *err);

#endif
