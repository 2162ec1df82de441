/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A store in memory that misbehaves on order: for tests of everything that uses a store.
 *
 * It delays, reorders and fails requests, fills up, vanishes, quiesces, and keeps a record of
 * every write, zero, punch, truncate and flush, from which it builds what a power failure at any
 * point could leave.  Deterministic: the same seed and the same requests give the same
 * order.  Requests complete on the file's loop; nothing sleeps.  One thread (or one loop and
 * blocking callers of it), as struct store says.
 */
#ifndef HYPERVISOR_DISK_FAKE_STORE_H
#define HYPERVISOR_DISK_FAKE_STORE_H

#include "hypervisor/disk/store.h"

struct fake_store_plan {
	uint64_t seed;
	bool reorder;            /* complete requests in flight in a random order */
	uint32_t delay_steps;    /* each request waits a random number of loop turns up to this */
	uint32_t align_bytes;    /* 0: 512 */
	uint64_t capacity_bytes; /* 0: no limit; -ENOSPC beyond (allocated 4 KiB pages count) */
	uint64_t fail_at;        /* the k-th request from now on (1 = next) fails; 0: none */
	uint32_t fail_ops;       /* which operations count: bits 1 << STORE_WRITE ...; 0: all */
	int fail_code;           /* -EIO... */
	bool fail_forever;       /* that one and all that count after it */
	bool fail_does_it;       /* the failing write lands all the same (UNKNOWN) */
	uint64_t quiesce_every;  /* quiesce and, some turns later, resume, every so many requests */
	bool garbage_buffers;    /* copy what is written late, when the request ends, as a store
				    may: a test that changes the buffer meanwhile sees it */
};

BASE_MUST_CHECK int fake_store_new(struct store **ret_store, struct base_error *err);
/* Replaces the plan; counters start again. */
void fake_store_set_plan(struct store *store, const struct fake_store_plan *plan);
/* Requests of the counted operations since the plan was set. */
uint64_t fake_store_request_count(const struct store *store);
/* Gone: everything in flight and later fails with -ENODEV, until it is back. */
void fake_store_set_gone(struct store *store, bool gone);
/* Copies what the store holds now of a file, zeros past its end; false: it is not there. */
bool fake_store_peek(const struct store *store, const char *name, uint64_t offset_bytes, void *to,
		     uint64_t length_bytes);
/* Change bytes behind everybody's back (corruption tests). */
bool fake_store_poke(struct store *store, const char *name, uint64_t offset_bytes, const void *from,
		     uint64_t length_bytes);
bool fake_store_file_bytes(const struct store *store, const char *name, uint64_t *ret_bytes);
/* A copy, nothing held, plan empty.  Content is shared until it is changed, so it is cheap, and
 * belongs to the same thread. */
BASE_MUST_CHECK int fake_store_clone(const struct store *store, struct store **ret_store,
				     struct base_error *err);
/* Load from and save to the host's file system, for other people's tools. */
BASE_MUST_CHECK int fake_store_import(struct store *store, const char *name, const char *path,
				      struct base_error *err);
BASE_MUST_CHECK int fake_store_export(const struct store *store, const char *name, const char *path,
				      struct base_error *err);

/* --- power failure --- */

/* Begin to record from the present content on (a copy of it is kept), with all of it, names
 * too, durable.  Nothing is in flight. */
BASE_MUST_CHECK int fake_store_record(struct store *store, struct base_error *err);
/* Events so far: begin and completion of every WRITE, ZERO, PUNCH, ALLOCATE, TRUNCATE, FLUSH,
 * and each name operation, count one each. */
uint64_t fake_store_event_count(const struct store *store);
/*
 * What may be on the medium when the power fails after @event_count events:
 *
 *   - all that had completed before a FLUSH of that file was submitted which completed with 0, and
 *     each completed WRITE with FUA;
 *   - of everything else that had begun any subset, torn at 512 bytes; a TRUNCATE or ALLOCATE
 *     has happened or not, and data beyond the size extends the file;
 *   - a name operation after store_sync_folder() of its folders; before that it has happened
 *     or not, each for itself (a rename brings its file along where the file's own making is
 *     lost).
 *
 * A crash image is a store of its own: nothing is held, the plan is empty.
 */
enum fake_store_loss {
	FAKE_LOSS_INVALID,
	FAKE_LOSE_NONE,    /* everything that had begun is there */
	FAKE_LOSE_ALL,     /* nothing but what flushes cover */
	FAKE_LOSE_SOME,    /* whole requests at random: half, most or few, by the seed */
	FAKE_LOSE_SECTORS, /* 512-byte sectors at random */
	FAKE_LOSSES
};
BASE_MUST_CHECK int fake_store_crash(const struct store *store, uint64_t event_count,
				     enum fake_store_loss loss, uint64_t seed,
				     struct store **ret_store, struct base_error *err);

#endif
