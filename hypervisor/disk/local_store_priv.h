/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the parts of the local store share: local_store.c (names and files), local_store_io.c
 * (requests), local_store_threads.c (what blocks), local_store_lease.c (owners) and
 * local_store_holder.c (who has a lock).
 */
#ifndef HYPERVISOR_DISK_LOCAL_STORE_PRIV_H
#define HYPERVISOR_DISK_LOCAL_STORE_PRIV_H

#include <sys/stat.h>

#include "base/pool.h"
#include "hypervisor/disk/local_store.h"

#define LOCAL_LEAF_BYTES 256 /* NAME_MAX and the terminator */

struct local_store {
	struct store common; /* first */
	int root_fd;
	bool is_root; /* "/": nothing is outside */
	bool buffered;
	struct base_pool *pool;
	void *zeros; /* LOCAL_ZEROS_BYTES, mapped, read only */
	char holder[STORE_TEXT_BYTES];
};

#define LOCAL_ZEROS_BYTES  (1U << 20) /* what one write of zeros takes; a page of them in memory */
#define LOCAL_BOUNCE_BYTES (1U << 20) /* of an unaligned request at a time */
#define LOCAL_POOLED_MAX   64         /* of one file with the threads; others wait */

/* A file by its folder, so that what happens beside it happens in the same folder. */
struct local_place {
	int folder_fd; /* owned, O_PATH */
	char leaf[LOCAL_LEAF_BYTES];
};

struct local_file {
	struct store_file common; /* first */
	struct local_store *store;
	struct local_place place;
	int fd;
	dev_t device;
	ino_t inode;
	bool is_block;
	/* The loop's. */
	bool direct;
	uint32_t memory_align; /* of direct I/O */
	bool sync_all;         /* made by us: its first flush takes everything along */
	bool no_zero_range;    /* the file system cannot */
	bool no_punch;
	bool size_unsure; /* a write or an allocation failed: it may have grown all the same */
	uint32_t pooled;
	struct store_request *pool_head; /* wait for room at the threads */
	struct store_request *pool_tail;
	struct base_io_timer pool_timer;
	uint64_t held_epoch; /* the blocking caller's: what acquire wrote */
};

/* One thing that the kernel is asked for: kept in a request's place. */
enum local_step_kind {
	LOCAL_STEP_INVALID,
	LOCAL_READ, /* one buffer */
	LOCAL_WRITE,
	LOCAL_READV,
	LOCAL_WRITEV,
	LOCAL_SYNC,
	LOCAL_DATASYNC,
	LOCAL_FALLOCATE,
	LOCAL_TRUNCATE,
	LOCAL_RANGES,
	LOCAL_STEPS
};
struct local_step {
	uint64_t done_bytes; /* of the request, before this step */
	uint64_t offset_bytes;
	uint64_t length_bytes;
	void *memory;           /* or const struct iovec * */
	uint32_t count;         /* iovecs; or the mode of fallocate */
	uint16_t kind;          /* enum local_step_kind */
	uint8_t bounced;        /* goes through held[0] */
	uint8_t direct;         /* a transfer; it was sent as direct I/O */
	uint32_t bounce_length; /* bytes of held[0] */
	uint32_t flags;         /* RWF_ */
};
_Static_assert(sizeof(struct local_step) <= sizeof(((struct store_request *)NULL)->place),
	       "a step fits a request's place");

static inline struct local_step *local_step_of(struct store_request *request)
{
	return (struct local_step *)(void *)request->place;
}

static inline struct local_file *local_file_of(struct store_file *file)
{
	return (struct local_file *)file; /* its first member */
}

static inline struct local_store *local_store_of(struct store *store)
{
	return (struct local_store *)store;
}

/* --- local_store.c --- */

/* Where @name is; with @follow, symbolic links at its end are followed, inside the store.
 * -EINVAL leads outside, -ELOOP, and what the system says. */
BASE_MUST_CHECK int local_place_open(struct local_store *store, const char *name, bool follow,
				     struct local_place *ret_place, struct base_error *err);
void local_place_close(struct local_place *place);
/* Bytes of what @fd is; regular files and block devices.  -EISDIR, -EINVAL. */
BASE_MUST_CHECK int local_fd_size(int fd, const struct stat *status, uint64_t *ret_bytes);

/* --- local_store_io.c --- */

void local_file_submit(struct store_file *common, struct store_request *request);
/* What a step gave; on the loop. */
void local_step_ended(struct store_request *request, int result);

/* --- local_store_threads.c --- */

/* Hand the request's step to a thread; local_step_ended() gets its result.  Loop only. */
void local_pool_submit(struct local_file *file, struct store_request *request);
void local_pool_look(struct base_io_timer *timer);

/* --- local_store_lease.c --- */

BASE_MUST_CHECK int local_acquire(struct store_file *file, uint64_t epoch,
				  const struct store_proof *proof, uint64_t *ret_epoch,
				  struct base_error *err);
BASE_MUST_CHECK int local_release(struct store_file *file, struct base_error *err);
/* Keep others from acquiring the file at @place until *@ret_fd is closed; -1 when there is none
 * that could be.  -EBUSY somebody has it, whom the text names. */
BASE_MUST_CHECK int local_place_lock(const struct local_place *place, int *ret_fd,
				     struct base_error *err);
/* What is recorded beside @place; epoch STORE_EPOCH_NONE when nothing is. */
BASE_MUST_CHECK int local_record_read(const struct local_place *place,
				      struct store_lease *ret_lease, struct base_error *err);
/* Take the record of @from along to @to, before the file: the higher epoch stays. */
BASE_MUST_CHECK int local_record_copy(const struct local_place *from, const struct local_place *to,
				      struct base_error *err);
BASE_MUST_CHECK int local_record_remove(const struct local_place *place, struct base_error *err);
BASE_MUST_CHECK int local_lease_query(struct store *store, const char *name,
				      struct store_lease *ret_lease, struct base_error *err);

/* --- local_store_holder.c --- */

/* Text for who has a lock on the file: "pid 71 (qemu-img)"; false when nobody can be seen. */
bool local_holder_find(dev_t device, ino_t inode, char *ret_text, size_t text_bytes);

#endif
