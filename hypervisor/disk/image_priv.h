/* SPDX-License-Identifier: Apache-2.0 */
/*
 * One image file of a disk's chain: what a format (VHDX, VHD, raw) does for disk.c.
 *
 * Everything that serves requests runs on the loop.  The blocking members are called while
 * disk.c has no request in flight at the image, one at a time, not on a started loop's thread;
 * they may use store_do() and base_io_call().  disk.c checked every request: inside the disk,
 * whole logical sectors, iov adds up, UNMAP trimmed to granules, writes only while active.
 *
 * A format completes a request by calling image_done() on the loop; also within submit()
 * (disk.c makes sure that @done of the guest does not run inside disk_submit()).
 */
#ifndef HYPERVISOR_DISK_IMAGE_PRIV_H
#define HYPERVISOR_DISK_IMAGE_PRIV_H

#include "hypervisor/disk/disk.h"

struct image;
struct image_part;

/* How a differencing image names its parent. */
struct image_parent {
	char name[STORE_NAME_BYTES]; /* in the store, resolved */
	enum disk_format format;     /* INVALID: look at it */
	struct disk_guid data_id;    /* the parent's data_id must be this */
	struct disk_guid data_id2;   /* or this, unless zero: a merge was under way */
};

struct image_open_options {
	struct store *store;
	const char *name;
	struct base_io_loop *loop;
	bool read_only;
	struct store_gate gate;
	const struct store_events *events;
	void *events_context;
};

struct image_ops {
	enum disk_format format;
	/* Blocking.  Standby: reads only; nothing is written. */
	int (*open)(const struct image_open_options *options, struct image **ret_image,
		    struct base_error *err);
	/* Blocking.  Acquire, read everything again, replay; then writes may come. */
	int (*activate)(struct image *image, uint64_t epoch, const struct store_proof *proof,
			struct base_error *err);
	/* Blocking.  Commit, flush, close the log, release.  Standby again, also after an error. */
	int (*deactivate)(struct image *image, struct base_error *err);
	void (*close)(struct image *image); /* from standby; frees; not the parent */
	/* Loop. */
	void (*submit)(struct image *image, struct disk_request *request);
	/* Blocking. */
	int (*info)(struct image *image, struct disk_layer_info *ret_info, struct base_error *err);
	int (*check)(struct image *image, bool repair, disk_report report, void *context,
		     struct disk_check_result *ret_result, struct base_error *err);
	/* Blocking, requests in flight; -EOPNOTSUPP when the format cannot.  NULL: cannot. */
	int (*compact)(struct image *image, disk_progress progress, void *context,
		       struct base_error *err);
	/* Blocking, active, durable on return: record another parent (or both ids, see
	 * image_parent), content unchanged.  NULL: cannot. */
	int (*set_parent)(struct image *image, const struct image_parent *parent,
			  struct base_error *err);
	/* Blocking, active, durable on return: data_id is @id from now on, and the next write does
	 * not change it again (a merge into this image).  NULL: writing does not change the id. */
	int (*set_data_id)(struct image *image, const struct disk_guid *id, struct base_error *err);
	/* Blocking. */
	int (*create)(struct store *store, const char *name, struct base_io_loop *loop,
		      const struct disk_create_options *options, struct image *parent,
		      struct base_error *err);
};

/* The common part; a format's own structure begins with it.  Written by open, activate and,
 * on the loop, RESIZE. */
struct image {
	const struct image_ops *ops;
	struct store *store;     /* borrowed */
	struct store_file *file; /* owned by the format */
	struct base_io_loop *loop;
	struct image *parent; /* borrowed; disk.c sets it before requests come; NULL for a base */
	struct disk_geometry geometry;
	enum disk_kind kind;
	struct disk_guid data_id;      /* now */
	struct image_parent parent_is; /* DIFFERENCING: as recorded */
	bool active;
	struct image_part *free_parts;
	/* A flush failed: later writes and flushes get -EIO until it is opened again, because what
	 * completed before may not be there.  Text for the user. */
	bool failed;
	char failed_why[STORE_TEXT_BYTES];
	/* The first damage that a request met: structure, place, values; "" none.  Written once, on
	 * the loop, before that request ends with -EBADMSG. */
	char damage[STORE_TEXT_BYTES];
};

extern const struct image_ops image_raw_ops;
extern const struct image_ops image_vhd_ops;
extern const struct image_ops image_vhdx_ops;
const struct image_ops *image_ops_of(enum disk_format format);

/* End a request at the image; loop; calls request->done(request, result) directly. */
void image_done(struct disk_request *request, int result);

/*
 * A request in parts.  image_split() sets @pending to 1; each part adds one before it is
 * started; image_part_done() takes one off and, at 0, ends the request with the first
 * failure.  The splitter's own one is taken off last.
 */
void image_split(struct disk_request *request);
void image_part_add(struct disk_request *request);
void image_part_done(struct disk_request *request, int result);

/* A piece of @request's iov as an array of its own: for parts.  Returns the count; @to has room
 * for request->iov_count + 1... at most @capacity entries, -ENOMEM when it does not suffice. */
int image_iov_slice(const struct iovec *iov, uint32_t iov_count, uint64_t skip_bytes,
		    uint64_t length_bytes, struct iovec *to, uint32_t capacity);
/* Zeros into a piece of an iov. */
void image_iov_zero(const struct iovec *iov, uint32_t iov_count, uint64_t skip_bytes,
		    uint64_t length_bytes);

/* Mark as failed; loop or blocking; the first reason stays. */
void image_fail(struct image *image, const char *format, ...) BASE_PRINTF(2, 3);

/* Append a run, joined with the one before where it continues it.  False when there is no room. */
bool image_extent_add(struct disk_request *request, uint64_t offset_bytes, uint64_t length_bytes,
		      enum disk_extent_kind kind);

/*
 * A part of a READ or WRITE: some bytes of the request that go to one place.  Made from a free
 * list, so the fast path does not allocate.  A part carries the slice of the request's iov; when
 * the whole request is one part it borrows the request's own.
 */
struct image_part {
	struct image *image;
	struct disk_request *request;
	uint64_t skip_bytes;   /* where in the request */
	uint64_t length_bytes; /* how much */
	/* Runs at the end of the part's I/O, on the loop, before image_part_end(); NULL: the part
	 * ends at once.  Whoever sets it calls image_part_end() later. */
	void (*finish)(struct image_part *part, int result);
	uint64_t place[4]; /* the format's */
	void *held;        /* the format's */
	struct store_request store;
	struct disk_request parent;
	const struct iovec *iov;
	uint32_t iov_count;
	struct iovec *iov_owned; /* malloc'ed when iov_inline does not suffice */
	struct iovec iov_inline[4];
	struct image_part *next;
};

/* A part of @request (image_part_add() is done by this); NULL without memory: the caller ends
 * that part with image_part_done(request, -ENOMEM) itself after an image_part_add(). */
struct image_part *image_part_new(struct image *image, struct disk_request *request,
				  uint64_t skip_bytes, uint64_t length_bytes);
/* Start it: READ or WRITE as the request says, at @file_offset of the image's file; with FUA if
 * @store_flags says so. */
void image_part_file(struct image_part *part, uint64_t file_offset, uint32_t store_flags);
/* Read it from the parent chain at the request's own offset; past the parent's end zeros. */
void image_part_parent(struct image_part *part);
/* Give the part back and image_part_done() its request. */
void image_part_end(struct image_part *part, int result);
/* The free list, when the image closes. */
void image_parts_free(struct image *image);

#endif
