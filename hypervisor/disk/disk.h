/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A virtual disk as a device and as migration see it.
 *
 * A disk is a chain of images (VHDX, VHD, raw), the top one written, the others read.  Its
 * states:
 *
 *   closed    nothing is open
 *   standby   open for reading: nothing is written, no log is replayed (a dirty log is
 *             applied in memory), no lease is held; somebody else may be writing, so what a
 *             read gives is only sure while nobody is
 *   active    at an epoch: headers and tables were read again under the lease, the log was
 *             replayed; reads and writes
 *
 * Threads.  disk_submit() may be called on any thread; @done runs on the disk's loop.  Calls
 * marked "blocking" may be made on any thread but a started loop's, one at a time per disk;
 * they go well with requests in flight.  Everything else says where it belongs.
 *
 * Order and durability are those of a drive with a volatile write cache: requests in flight
 * have no order; FLUSH makes durable what completed before it was submitted; FUA makes that
 * write durable.  With a stable cache off (disk_options.write_through) every write is FUA.
 * docs/hypervisor/disk/disk.md.
 */
#ifndef HYPERVISOR_DISK_DISK_H
#define HYPERVISOR_DISK_DISK_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/uio.h>

#include "base/error.h"
#include "base/io_loop.h"
#include "hypervisor/disk/guid.h"
#include "hypervisor/disk/store.h"

#define DISK_CHAIN_MAX          64 /* images of one disk: every read may visit them all */
#define DISK_REQUEST_BYTES_MAX  (32ULL << 20) /* one READ or WRITE */
#define DISK_REQUEST_IOVECS_MAX 1024

struct disk;

enum disk_format {
	DISK_FORMAT_INVALID, /* in options: look at the content (never for a guest's raw disk) */
	DISK_RAW,
	DISK_VHD,
	DISK_VHDX,
	DISK_FORMATS
};
enum disk_kind {
	DISK_KIND_INVALID,
	DISK_FIXED,
	DISK_DYNAMIC,
	DISK_DIFFERENCING,
	DISK_KINDS
};
const char *disk_format_name(enum disk_format format); /* "raw", "vhd", "vhdx" */
const char *disk_kind_name(enum disk_kind kind);       /* "fixed", "dynamic", "differencing" */

struct disk_geometry {
	uint64_t size_bytes; /* a multiple of the logical sector */
	uint32_t logical_sector_bytes;
	uint32_t physical_sector_bytes;
	/* UNMAP takes effect on whole aligned granules only; the edges stay as they are. */
	uint32_t unmap_granularity_bytes;
	/* Page 83 identity; zero when the format has none.  Of a disk, that of the base of its
	 * chain, which a checkpoint and a merge leave alone. */
	struct disk_guid id;
};

enum disk_op {
	DISK_OP_INVALID,
	DISK_READ,
	DISK_WRITE,
	DISK_FLUSH,
	DISK_UNMAP,  /* whole granules inside the range read zero afterwards and give space back */
	DISK_ZERO,   /* the range reads zero afterwards */
	DISK_MAP,    /* runs: see struct disk_extent */
	DISK_RESIZE, /* the new size is @offset_bytes; shrinking only where the tail is free */
	DISK_OPS
};

#define DISK_FUA        1U /* WRITE, ZERO, UNMAP: durable when it completes */
#define DISK_MAY_UNMAP  2U /* ZERO: the space may be given back */
#define DISK_THIS_LAYER 4U /* MAP: do not look into parents: DISK_EXTENT_PARENT says where */

enum disk_extent_kind {
	DISK_EXTENT_INVALID,
	DISK_EXTENT_DATA,     /* allocated, holds data */
	DISK_EXTENT_ZERO,     /* known to read zero (whoever copies must write zeros) */
	DISK_EXTENT_UNMAPPED, /* not allocated anywhere: reads zero (a fresh copy has it already) */
	DISK_EXTENT_PARENT,   /* with DISK_THIS_LAYER: the parent's content shows */
	DISK_EXTENT_KINDS
};
struct disk_extent {
	uint64_t offset_bytes;
	uint64_t length_bytes;
	enum disk_extent_kind kind;
};

/*
 * One request.  Owned by the caller until @done and borrowed meanwhile, with what @iov and
 * @extents point to.  @done runs on the disk's loop, never within disk_submit().  Result 0, or
 *   -EINVAL  outside the disk, not whole sectors, or malformed (nothing was done)
 *   -EROFS   the disk is not active
 *   -ENOSPC, -EIO, -ENODEV as the store; only where the policy is to report it
 *   -EBADMSG the image's tables are damaged there
 *   -EBUSY   RESIZE: shrinking, and the tail is in use; or a job forbids it
 *   -EOPNOTSUPP the format cannot do that; -ENOMEM
 *   -ECANCELED closed, or given back (below), before it was over: none of it is under way any
 *              more, and it may be made again
 */
struct disk_request {
	enum disk_op op;
	uint32_t flags;
	uint64_t offset_bytes;
	uint64_t length_bytes;
	const struct iovec *iov; /* READ, WRITE: adds up to @length_bytes; sectors, 512-aligned */
	uint32_t iov_count;
	struct disk_extent *extents; /* MAP: in order, no gaps, from @offset_bytes */
	uint32_t extent_capacity;
	uint32_t extent_count; /* MAP: set; they may end before the range does, never empty */
	void (*done)(struct disk_request *request, int result);
	void *context;

	/* From here on the disk's own. */
	struct disk_request *next;
	struct disk_request *previous;
	struct base_io_task task;
	void *owner;       /* the layer that works on it */
	uint32_t pending;  /* parts not over yet, plus one while it is split up */
	int result;        /* of the parts: the first that failed */
	uint64_t place[6]; /* that layer's scratch space */
	void *held[3];
};

/* What to do when the store fails a request. */
enum disk_policy {
	DISK_POLICY_INVALID,
	DISK_POLICY_REPORT, /* the guest gets the error */
	DISK_POLICY_PAUSE,  /* the request waits, @stalled is told, and it is tried again */
	DISK_POLICIES
};

/* On the disk's loop, no lock held.  All may be NULL. */
struct disk_events {
	/* The first request waits because of @code (-ENOSPC...): pause the VM, tell the user. */
	void (*stalled)(void *context, int code, const char *why);
	void (*unstalled)(void *context); /* nothing waits any more: go on */
	void (*resized)(void *context, uint64_t size_bytes);
	/* The image refuses writes from now on (a flush failed): the reason. */
	void (*failed)(void *context, const char *why);
	void (*store_state)(void *context, enum store_state state, const char *reason);
	/* Not on the loop but on the thread of disk_checkpoint() or of a merge of the top, while
	 * requests are held: the top image is @name from now on.  Record it durably before it
	 * returns: the next write goes there alone.  Not 0: the call is undone and fails with that.
	 * Without it the caller may not write again before it has seen to that itself. */
	int (*top_moved)(void *context, const char *name);
};

struct disk_options {
	struct store *store;       /* borrowed; outlives the disk */
	const char *name;          /* of the top image in @store */
	enum disk_format format;   /* INVALID: look */
	struct base_io_loop *loop; /* borrowed; outlives the disk */
	bool read_only;
	/* The top image without its parents, which need not be there: it can be written, and what
	 * they would show cannot be read (-EIO, -ENODEV).  For who makes a copy of a chain. */
	bool alone;
	bool write_through;           /* the guest's write cache is off: every write is FUA */
	enum disk_policy on_no_space; /* INVALID: PAUSE */
	enum disk_policy on_io_error; /* INVALID: REPORT */
	enum disk_policy on_gone;     /* INVALID: PAUSE */
	uint64_t retry_ms;            /* how often what waits is tried again; 0: 1000 */
	struct store_gate gate;
	const struct disk_events *events;
	void *events_context;
};

/* --- open and hand over (blocking) --- */

/* -ENOENT, -EBADMSG damaged (structure, offset, both values), -EOPNOTSUPP a feature we do not
 * know, -ELOOP chain deeper than DISK_CHAIN_MAX or in a circle, -EPROTO a parent that is not
 * the one the child was made from, what store_open() gave. */
BASE_MUST_CHECK int disk_open_standby(const struct disk_options *options, struct disk **ret_disk,
				      struct base_error *err);
/* STORE_EPOCH_NONE: the recorded one (tools).  Errors as store_acquire() and as above: then it
 * is in standby again. */
BASE_MUST_CHECK int disk_activate(struct disk *disk, uint64_t epoch,
				  const struct store_proof *proof, struct base_error *err);
/* New requests wait from here on; drains, flushes, closes the log, gives the lease back.  They go
 * on at the next activate(), or end with -ECANCELED at close.  When the flush fails (and the image
 * has not failed for good) the disk stays active and requests go on: disk_epoch() tells.  After an
 * error behind the flush everything that completed is durable; the lease is given back, unless a
 * write of unknown outcome forbids it (-ETIMEDOUT: the next owner needs a proof). */
BASE_MUST_CHECK int disk_deactivate(struct disk *disk, struct base_error *err);
/* As deactivate, then gone.  NULL is fine. */
void disk_close(struct disk *disk);

/* --- requests --- */

void disk_submit(struct disk *disk, struct disk_request *request); /* any thread */
/* Blocking: submit @request and wait; its done and context are set here. */
BASE_MUST_CHECK int disk_do_request(struct disk *disk, struct disk_request *request,
				    struct base_error *err);
/* Blocking, without flags.  @data NULL where the operation has none. */
BASE_MUST_CHECK int disk_do(struct disk *disk, enum disk_op op, uint64_t offset_bytes, void *data,
			    uint64_t length_bytes, struct base_error *err);
/* What the first request that ended with -EBADMSG met: structure, offset, values; "" none.
 * Any thread, once such a request has ended; valid until the layers change or close. */
const char *disk_damage(const struct disk *disk);
/* Hold new requests and wait for those in flight; and let them go on.  Counted. */
void disk_hold(struct disk *disk);
void disk_unhold(struct disk *disk);
/* Try again now what waits by policy; any thread. */
void disk_retry(struct disk *disk);
/* Give requests back instead of keeping them: what waits for a store that is full or gone, or for
 * the next disk_activate(), ends with -ECANCELED, and so does, until disk_keep(), whatever would
 * have to wait for that.  So everything in flight ends while the store only answers.  What is
 * made again afterwards waits its turn: not before the next try, so that a write of unknown
 * outcome cannot land late.  Counted; any thread; neither blocks. */
void disk_give_back(struct disk *disk);
void disk_keep(struct disk *disk);

void disk_geometry(const struct disk *disk, struct disk_geometry *ret_geometry); /* any thread */
/* Of the top image in the store; valid until the next checkpoint, merge or close. */
const char *disk_name(const struct disk *disk);
struct base_io_loop *disk_loop(const struct disk *disk);
uint64_t disk_epoch(const struct disk *disk); /* STORE_EPOCH_NONE while standby; any thread */

/* One image of the chain, 0 = top.  Blocking; a value. */
struct disk_layer_info {
	enum disk_format format;
	enum disk_kind kind;
	char name[STORE_NAME_BYTES]; /* in the store */
	uint64_t size_bytes;
	uint64_t file_bytes;      /* size of the file */
	uint64_t allocated_bytes; /* of guest data in this layer; UINT64_MAX not known without a
				     scan */
	uint32_t block_bytes;     /* 0: the format has none */
	uint32_t logical_sector_bytes;
	uint32_t physical_sector_bytes;
	struct disk_guid id;
	struct disk_guid data_id;      /* VHDX DataWriteGuid, VHD unique id */
	char parent[STORE_NAME_BYTES]; /* as recorded; "" none */
	bool log_dirty;                /* VHDX: not closed cleanly, or open for writing now */
	char creator[64];
};
BASE_MUST_CHECK int disk_layer(struct disk *disk, uint32_t index, struct disk_layer_info *ret_info,
			       struct base_error *err); /* -ENOENT past the base */

/* --- what storage migration needs --- */

/*
 * The write hook: sees every WRITE, ZERO, UNMAP and RESIZE that a guest makes, after it has
 * succeeded here and before the guest gets its completion.  The range is locked until
 * @disk_hook_done(), so overlapping writes reach the hook in the order they landed.  The data
 * is a stable copy, the same that was written here.  UNMAP comes trimmed to whole granules.
 * A hook cannot fail the guest's request: its owner notes its own failure.
 */
struct disk_hook_event {
	enum disk_op op;
	uint64_t offset_bytes; /* RESIZE: the new size */
	uint64_t length_bytes;
	/* WRITE only; valid until done.  NULL: there was no memory for the stable copy; the write
	 * has succeeded all the same, so whoever copies has failed. */
	const void *data;
	struct disk_request *request; /* for disk_hook_done() */
};
typedef void (*disk_hook)(void *context, const struct disk_hook_event *event);
/* Blocking; drains first, so that every write is seen or had completed before.  One hook at a
 * time: -EBUSY.  NULL takes it out. */
BASE_MUST_CHECK int disk_hook_set(struct disk *disk, disk_hook hook, void *context,
				  struct base_error *err);
void disk_hook_done(struct disk *disk, struct disk_request *request); /* any thread */

/*
 * Watch a disk that is being moved: as disk_hook_set(), and until disk_watch_end() its layers and
 * its size stay what they are (jobs and RESIZE: -EBUSY).  The hook gets no data; so nothing is
 * copied for it.  -EBUSY a job, or another hook.  Both block; end it before deactivating.
 */
BASE_MUST_CHECK int disk_watch_begin(struct disk *disk, disk_hook hook, void *context,
				     struct base_error *err);
void disk_watch_end(struct disk *disk);

/**
 * disk_set_data_id - the content of the top image has the id @id, durably, and no later write of
 * this activation changes it.  Blocking; active.  Formats whose id is no content's: nothing
 * happens.
 */
BASE_MUST_CHECK int disk_set_data_id(struct disk *disk, const struct disk_guid *id,
				     struct base_error *err);

/*
 * A lock on a range: no guest write overlaps it while it is held; @granted on the disk's loop
 * once the overlapping writes in flight are over.  First come, first served.
 */
struct disk_range_lock {
	uint64_t offset_bytes;
	uint64_t length_bytes;
	void (*granted)(struct disk_range_lock *lock);
	void *context;
	struct disk_range_lock *next;     /* the disk's */
	struct disk_range_lock *previous; /* the disk's */
	struct disk_range_lock *grant;    /* the disk's */
	bool held;                        /* the disk's */
};
void disk_range_lock(struct disk *disk, struct disk_range_lock *lock);   /* loop only */
void disk_range_unlock(struct disk *disk, struct disk_range_lock *lock); /* loop only */

/* --- checkpoints (blocking; the guest goes on) --- */

/* Progress of a job; on the disk's loop.  Not 0 ends the job with -ECANCELED. */
typedef int (*disk_progress)(void *context, uint64_t done_bytes, uint64_t total_bytes);

/**
 * disk_checkpoint - what was written so far stays as it is in the current top image; the
 * guest goes on in a new differencing image @name (VHDX on VHDX, VHD on VHD and VHDX on all).
 * The new file is made first; the guest waits only while requests drain and one flush.
 * -EEXIST; -ELOOP the chain is DISK_CHAIN_MAX deep; -EROFS not active; errors of the store:
 * then nothing has changed and the new file is gone.
 */
BASE_MUST_CHECK int disk_checkpoint(struct disk *disk, const char *name, struct base_error *err);

/**
 * disk_merge - merge layer @index (0 = top) into its parent, live, and remove its file.
 * Reads give the same bytes at every instant, over a crash too.  -EINVAL it has no parent;
 * -EPROTO the parent is larger (other children of it are cut off: they
 * refuse its new id); -EBUSY
 * another job; -ECANCELED by @progress: the chain is as before and works.
 */
BASE_MUST_CHECK int disk_merge(struct disk *disk, uint32_t index, disk_progress progress,
			       void *context, struct base_error *err);

/* Give back what holds only zeros, move blocks down and cut the file.  The top image; live.
 * -EOPNOTSUPP for a fixed disk or raw. */
BASE_MUST_CHECK int disk_compact(struct disk *disk, disk_progress progress, void *context,
				 struct base_error *err);

/* --- making and checking --- */

/* A parent as its child has to know it. */
struct disk_parent_is {
	uint64_t size_bytes;
	uint32_t logical_sector_bytes;
	uint32_t physical_sector_bytes;
	struct disk_guid id;
	struct disk_guid data_id; /* zero: raw */
};

struct disk_create_options {
	enum disk_format format;
	enum disk_kind kind;            /* raw: FIXED allocates, DYNAMIC is sparse */
	uint64_t size_bytes;            /* differencing: 0 = the parent's */
	uint32_t block_bytes;           /* 0: the default of format and kind */
	uint32_t logical_sector_bytes;  /* 0: 512, or the parent's */
	uint32_t physical_sector_bytes; /* 0: 4096, or the parent's */
	uint32_t log_bytes;             /* VHDX; 0: 1 MiB */
	const char *parent;             /* differencing: name in the same store */
	enum disk_format parent_format; /* INVALID: look */
	/* The identity to have (page 83; of a VHD also the one that children know it by); zero: the
	 * parent's or a new one. */
	struct disk_guid id;
	/* Differencing: the parent need not be there yet, and is not looked at: @parent_format and
	 * this say what it will be. */
	const struct disk_parent_is *parent_is;
};
/* Blocking.  The file is there whole and durable, or not at all.  -EBUSY the parent is being
 * written; -EPROTO a raw parent elsewhere than in the child's folder; -EEXIST; -EINVAL (thing,
 * value and what is allowed); -ENOSPC... */
BASE_MUST_CHECK int disk_create(struct store *store, const char *name, struct base_io_loop *loop,
				const struct disk_create_options *options, struct base_error *err);

/* What check found.  @fixed: repaired, when repair was asked for. */
enum disk_finding {
	DISK_FINDING_INVALID,
	DISK_LEAK,     /* harmless: unused space, or what opening for writing puts right */
	DISK_DAMAGE,   /* data or structure is wrong */
	DISK_REPAIRED, /* was wrong, is right now */
	DISK_FINDINGS
};
struct disk_check_result {
	uint64_t leaks; /* findings of each kind */
	uint64_t damages;
	uint64_t repaired;
	uint64_t leaked_bytes;
	uint64_t blocks_total;
	uint64_t blocks_allocated;
	uint64_t end_bytes; /* of the last structure or block in the file */
};
typedef void (*disk_report)(void *context, enum disk_finding finding, const char *text);
/* Blocking; of one image (not its parents).  0 also with findings; an error when it cannot be
 * read at all.  @repair opens it for writing and mends only what is proven: a copy that is
 * whole replaces a broken one, leaks are given back, the log is replayed. */
BASE_MUST_CHECK int disk_check(const struct disk_options *options, bool repair, disk_report report,
			       void *context, struct disk_check_result *ret_result,
			       struct base_error *err);

/* By content: VHDX and VHD signatures, else raw.  Blocking. */
BASE_MUST_CHECK int disk_probe(struct store *store, const char *name, struct base_io_loop *loop,
			       enum disk_format *ret_format, struct base_error *err);

#endif
