/* SPDX-License-Identifier: Apache-2.0 */
/*
 * One record of a migration: what a side wrote down of who runs the VM.  docs/migrate/records.md,
 * section 2.  A value; any thread.
 */
#ifndef MIGRATE_MIG_RECORD_H
#define MIGRATE_MIG_RECORD_H

#include "migrate/mig_vm.h"

#define MIG_RECORD_BYTES      512u
#define MIG_RECORD_NAME_BYTES 64u              /* with its zero */
#define MIG_RECORD_PEER_BYTES 256u             /* with its zero */
#define MIG_EPOCH_MAX         (UINT64_MAX - 2) /* e + 2 is an epoch as well */

enum mig_record_kind {
	MIG_RECORD_INVALID,
	MIG_RECORD_REGISTER, /* at the destination */
	MIG_RECORD_PROMISE,  /* at the source */
	MIG_RECORD_KINDS
};

enum mig_record_state {
	MIG_HELD_INVALID,
	MIG_HELD_ALL_HERE,
	MIG_HELD_ACTIVATING,
	MIG_HELD_RUNS,
	MIG_HELD_LEFT,
	MIG_HELD_PROMISED,
	MIG_HELD_RESOLVED,
	MIG_HELD_OVER,
	MIG_HELD_COMING,
	MIG_HELD_STATES
};

struct mig_record {
	enum mig_record_kind kind;
	enum mig_record_state state;
	struct mig_register now;
	uint64_t from_epoch; /* e */
	uint64_t written_s;  /* since 1970, for people */
	uint8_t id[MIG_ID_BYTES];
	char name[MIG_RECORD_NAME_BYTES];
	char peer[MIG_RECORD_PEER_BYTES];
};

void mig_record_encode(const struct mig_record *record, uint8_t ret_bytes[MIG_RECORD_BYTES]);
/* -EBADMSG with field, value and expectation. */
BASE_MUST_CHECK int mig_record_decode(const uint8_t *bytes, size_t size_bytes,
				      struct mig_record *ret_record, struct base_error *err);
/* Whether it may be encoded: -EINVAL a name, a side or an epoch that cannot be; anything else is a
 * bug of the caller's. */
BASE_MUST_CHECK int mig_record_check(const struct mig_record *record, struct base_error *err);

/* Nobody here can know who is to run it. */
bool mig_record_in_doubt(const struct mig_record *record);
/* Register: to the source, withdrawn or handed back. */
bool mig_record_given_back(const struct mig_record *record);
const char *mig_record_kind_name(enum mig_record_kind kind);    /* "register", "promise" */
const char *mig_record_state_name(enum mig_record_state state); /* "all here"... */

#endif
