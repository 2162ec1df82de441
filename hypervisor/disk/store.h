/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Where the bytes of disks are: the one interface between disk formats and stores (a local
 * folder, a cluster shared volume, an SMB share, a fake for tests).
 *
 * A *store* is a name space of files; a *file* is opened from it and belongs to one I/O loop.
 *
 * Threads.  Requests (store_submit) belong to the file's loop and complete on it.  All other
 * calls block; they may be made on any thread but the thread of a started loop, one at a
 * time per file.  A provider may work on threads of its own and completes a request from
 * any of them with store_complete().
 *
 * Order.  Requests in flight have no order among each other.  A FLUSH makes durable what had
 * completed before it was submitted.  A WRITE with FUA is durable when it completes.  Nothing
 * else is durable: not the size that TRUNCATE set, not a range that ZERO cleared.
 *
 * Ownership.  A file is read-only until acquire() grants an epoch.  Every request carries the
 * epoch of who sends it; one that is not the granted epoch fails with -ESTALE and
 * changes nothing.
 *
 * Waiting.  While a store is quiesced (its provider recalls, takes over, reconnects) or its
 * gate is closed (the worker's leash), requests wait inside store.c; they do not fail.  They
 * go on in the order they came.
 *
 * Write buffers may change while a store works on them (they are guest memory): a provider
 * that checksums, signs or encrypts copies first.  docs/hypervisor/disk/store.md.
 */
#ifndef HYPERVISOR_DISK_STORE_H
#define HYPERVISOR_DISK_STORE_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/uio.h>

#include "base/error.h"
#include "base/io_loop.h"

#define STORE_NAME_BYTES   1024 /* a path inside a store, with the terminator */
#define STORE_TEXT_BYTES   192  /* who holds, why a state */
#define STORE_EPOCH_NONE   0    /* no epoch was ever granted; tools run at the recorded one */
#define STORE_MS_UNBOUNDED UINT64_MAX
#define STORE_REQUEST_BYTES_MAX                                                                    \
	(256ULL << 20) /* one READ or WRITE: a format splits larger ones                           \
			*/

struct store;
struct store_file;

enum store_op {
	STORE_OP_INVALID,
	STORE_READ,     /* bytes past the end of the file read as zeros */
	STORE_WRITE,    /* within the file's size, except that a raw file may be extended */
	STORE_FLUSH,    /* what completed before is durable, the size included */
	STORE_ALLOCATE, /* reserve space; content stays, new space reads zero, the file may grow */
	STORE_PUNCH,    /* give space back; reads zero afterwards */
	STORE_ZERO,     /* reads zero afterwards; space may stay or go */
	STORE_TRUNCATE, /* size becomes @offset_bytes; new space reads zero */
	STORE_RANGES,   /* which parts hold data: see struct store_range */
	STORE_OPS
};

#define STORE_FUA 1U /* WRITE: durable when it completes */

/* A run of a file, in order, without gaps. @data false: reads zero and holds no space. */
struct store_range {
	uint64_t offset_bytes;
	uint64_t length_bytes;
	bool data;
};

/*
 * One request.  Owned by the caller until @done, borrowed by the store meanwhile, as is what
 * @iov points to.  @done runs on the file's loop, never within store_submit(); result 0, or
 *   -ESTALE  the epoch is not the granted one;      -EROFS   nothing was acquired
 *   -ENOSPC  the store is full                      -EIO     the medium failed
 *   -ENODEV  the store is gone (vanished);          -ECANCELED the file was closed first
 *   -ETIMEDOUT a write was sent and may or may not land: UNKNOWN
 *   -EINVAL  outside of every size, or not a multiple of the file's alignment
 */
struct store_request {
	enum store_op op;
	uint32_t flags;
	uint64_t epoch;
	uint64_t offset_bytes;
	uint64_t length_bytes;      /* READ, WRITE: the sum of @iov */
	const struct iovec *iov;    /* READ, WRITE */
	uint32_t iov_count;         /* READ, WRITE */
	struct store_range *ranges; /* RANGES: filled by the store */
	uint32_t range_capacity;    /* RANGES: 1 or more */
	uint32_t range_count; /* RANGES: set by the store; fewer than all when they do not fit */
	void (*done)(struct store_request *request, int result);
	void *context;

	/* From here on the store's own. */
	struct store_file *file;
	struct store_request *next;
	struct base_io_task task;
	struct base_io_completion completion;
	int result;
	uint64_t place[6]; /* the provider's scratch space */
	void *held[2];     /* the provider's: a bounce buffer, a copy */
};

enum store_state {
	STORE_STATE_INVALID,
	STORE_DIRECT,     /* the normal path */
	STORE_REDIRECTED, /* works, over a longer path: @reason says why */
	STORE_DOWN,       /* requests wait or fail: @reason says why */
	STORE_STATES
};

/* What a store tells who opened a file; on the file's loop; all may be NULL. */
struct store_events {
	void (*state)(void *context, enum store_state state, const char *reason);
	/* The store stops taking requests for a while, and goes on. */
	void (*quiesced)(void *context);
	void (*resumed)(void *context);
};

/* The gate in front of every submission (the worker's leash); any thread; NULL: open. */
struct store_gate {
	bool (*may_submit)(void *context);
	void *context;
};

struct store_open_options {
	struct base_io_loop *loop; /* borrowed; outlives the file */
	bool create;               /* make it; -EEXIST when it is there */
	bool read_only;            /* acquire() will not be called */
	uint32_t align_bytes;      /* what the caller's requests are multiples of; 512 at least */
	const struct store_events *events; /* borrowed; may be NULL */
	void *events_context;
	struct store_gate gate;
};

/* Proof that an older holder can write no more: who decided that, and how.  A value. */
enum store_fence {
	STORE_FENCE_NONE,     /* nothing is known about other holders */
	STORE_FENCE_RELEASED, /* the holder gave it back */
	STORE_FENCE_DEAD,     /* the holder's node was fenced, or is confirmed dead */
	STORE_FENCE_EXPIRED,  /* its leash ended, and max_inflight_ms has passed since */
	STORE_FENCES
};
struct store_proof {
	enum store_fence fence;
	uint64_t epoch; /* the epoch that was fenced */
};

struct store_facts {
	uint64_t size_bytes;      /* as of open, acquire, or the last TRUNCATE or WRITE completed */
	uint32_t align_bytes;     /* offsets and lengths of READ and WRITE are multiples of this */
	uint64_t max_inflight_ms; /* a request sent is over after this; or STORE_MS_UNBOUNDED */
	bool read_only;           /* the file or the store cannot be written */
	enum store_state state;
	char reason[STORE_TEXT_BYTES]; /* of the state; DIRECT: "", or why it is not O_DIRECT */
};

/* What is recorded about the owner of a file. */
struct store_lease {
	uint64_t epoch;                /* newest that was ever granted; STORE_EPOCH_NONE: never */
	bool held;                     /* somebody holds it now */
	char holder[STORE_TEXT_BYTES]; /* who: "" when not held */
};

/* --- for formats --- */

/* Opens a file of @store; reading only until store_acquire().  -ENOENT, -EEXIST, -EACCES,
 * -EINVAL a name that leads outside or is too long, -EISDIR, -ENOMEM, -EMFILE. */
BASE_MUST_CHECK int store_open(struct store *store, const char *name,
			       const struct store_open_options *options,
			       struct store_file **ret_file, struct base_error *err);
/* Ends waiting requests with -ECANCELED, waits for those in flight, gives an acquired epoch back.
 * Not from within a request's @done.  NULL is fine. */
void store_close(struct store_file *file);

/**
 * store_acquire - become the one writer, at @epoch.
 * @epoch: at least the newest ever granted; STORE_EPOCH_NONE takes the newest recorded one
 *         (offline tools), which ret_epoch then names.
 * @proof: may be NULL (nothing known).
 * Re-reads the file's size.
 * Return: 0; -ESTALE a higher epoch was granted (the text names both); -EBUSY somebody holds
 * it (the text says who) and @proof does not cover them; -EROFS; -ETIMEDOUT UNKNOWN.
 */
BASE_MUST_CHECK int store_acquire(struct store_file *file, uint64_t epoch,
				  const struct store_proof *proof, uint64_t *ret_epoch,
				  struct base_error *err);
/* Give it back after everything in flight is over.  Requests that come meanwhile wait for that;
 * later ones that change something get -EROFS. */
BASE_MUST_CHECK int store_release(struct store_file *file, struct base_error *err);

/* Loop only.  Never fails by itself: every outcome comes through @request->done. */
void store_submit(struct store_file *file, struct store_request *request);
/* Blocking form, for open, check and create: submit at the granted epoch and wait.  Returns the
 * result, with text.  One buffer of any size instead of an iov; @data is NULL but for READ and
 * WRITE.  Not for RANGES. */
BASE_MUST_CHECK int store_do(struct store_file *file, enum store_op op, uint64_t offset_bytes,
			     void *data, uint64_t length_bytes, struct base_error *err);

void store_facts(const struct store_file *file, struct store_facts *ret_facts);
uint64_t store_epoch(const struct store_file *file); /* granted; STORE_EPOCH_NONE */
const char *store_name(const struct store_file *file);
struct base_io_loop *store_loop(const struct store_file *file);
/* The file that @file of the same store names from where @from is; for parent locators: "/" is
 * the separator, "." and ".." are resolved.  -EINVAL leads outside, -ENAMETOOLONG. */
BASE_MUST_CHECK int store_resolve(const char *from, const char *path,
				  char ret_name[STORE_NAME_BYTES], struct base_error *err);

/* Names of one folder of a store, "" for its root; stops when @each says so (not 0). */
BASE_MUST_CHECK int store_list(struct store *store, const char *folder,
			       int (*each)(void *context, const char *name, uint64_t size_bytes),
			       void *context, struct base_error *err);
/* Atomic; replaces @to, unless somebody has acquired that (-EBUSY, naming them); @from may be
 * acquired.  Durable after store_sync_folder() of the folders. */
BASE_MUST_CHECK int store_rename(struct store *store, const char *from, const char *to,
				 struct base_error *err);
/* -EBUSY somebody has acquired it (the text names them). */
BASE_MUST_CHECK int store_remove(struct store *store, const char *name, struct base_error *err);
/* Makes names in the folder that @name is in durable.  -ETIMEDOUT UNKNOWN. */
BASE_MUST_CHECK int store_sync_folder(struct store *store, const char *name,
				      struct base_error *err);
/* Bytes that a new file could take. */
BASE_MUST_CHECK int store_free_space(struct store *store, uint64_t *ret_bytes,
				     struct base_error *err);
/* What is recorded about @name's owner; no lock is taken. */
BASE_MUST_CHECK int store_lease(struct store *store, const char *name,
				struct store_lease *ret_lease, struct base_error *err);
void store_free(struct store *store); /* all its files are closed; NULL is fine */

/* --- for providers --- */

/* Every member is set.  Blocking ones may be called from any thread. */
struct store_file_ops {
	/* Begin @request; on the file's loop; epoch, gate and quiescing were looked at. */
	void (*submit)(struct store_file *file, struct store_request *request);
	int (*acquire)(struct store_file *file, uint64_t epoch, const struct store_proof *proof,
		       uint64_t *ret_epoch, struct base_error *err);
	/* Not while a request that ended with -ETIMEDOUT may still land: wait for max_inflight_ms
	 * from then, or keep the epoch recorded as held and return -ETIMEDOUT, so that the next
	 * owner needs a proof.  The same in close(). */
	int (*release)(struct store_file *file, struct base_error *err);
	void (*close)(struct store_file *file); /* nothing is in flight; frees the file */
};

struct store_ops {
	/* Makes a provider's file, whose first member is struct store_file. */
	int (*open)(struct store *store, const char *name, const struct store_open_options *options,
		    struct store_file **ret_file, struct base_error *err);
	int (*list)(struct store *store, const char *folder,
		    int (*each)(void *context, const char *name, uint64_t size_bytes),
		    void *context, struct base_error *err);
	int (*rename)(struct store *store, const char *from, const char *to,
		      struct base_error *err);
	int (*remove)(struct store *store, const char *name, struct base_error *err);
	int (*sync_folder)(struct store *store, const char *name, struct base_error *err);
	int (*free_space)(struct store *store, uint64_t *ret_bytes, struct base_error *err);
	int (*lease)(struct store *store, const char *name, struct store_lease *ret_lease,
		     struct base_error *err);
	void (*free)(struct store *store);
};

struct store {
	const struct store_ops *ops;
};

/* The common part of an open file, zeroed by the provider.  Its open() sets ops, size, align,
 * max_inflight and read_only (with why), and may set state and reason; acquire() sets size again
 * (nothing is in flight then).  Everything else is store.c's. */
struct store_file {
	const struct store_file_ops *ops;
	struct store *store;
	struct base_io_loop *loop;
	const struct store_events *events;
	void *events_context;
	struct store_gate gate;
	char name[STORE_NAME_BYTES];
	uint64_t size_bytes;
	uint32_t align_bytes;
	uint64_t max_inflight_ms;
	bool read_only;
	char read_only_why[STORE_TEXT_BYTES];
	uint64_t epoch; /* granted */
	bool acquired;
	enum store_state state;
	char reason[STORE_TEXT_BYTES];
	bool quiesced;
	uint32_t in_flight;   /* at the provider */
	uint32_t undelivered; /* past the waiting ones, @done has not returned */
	bool closing;
	bool changing; /* its owner: what comes waits */
	bool *idle; /* base_io_done() once undelivered is 0; who releases or closes waits for it */
	struct store_request *waiting_head;
	struct store_request *waiting_tail;
	void (*drained)(void *context); /* called once in_flight is 0 */
	void *drained_context;
	struct base_io_timer gate_timer; /* looks at a closed gate again */
};

/* End @request with @result; any thread; exactly once per submit(). */
void store_complete(struct store_request *request, int result);

/**
 * store_quiesce - stop handing requests to the provider; @drained(@context) once none is with
 * it any more.  On the file's loop.  Requests that come meanwhile wait.
 */
void store_quiesce(struct store_file *file, void (*drained)(void *context), void *context);
/* Go on with what waits.  On the file's loop. */
void store_resume(struct store_file *file);
/* Tell a new state, on the file's loop.  @reason "" for DIRECT. */
void store_set_state(struct store_file *file, enum store_state state, const char *reason);

#endif
