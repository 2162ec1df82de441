/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The parts of an open VHDX image and what they are to each other.  MS-VHDX v4 gives the format;
 * docs/hypervisor/disk/vhdx.md says how it is used here.
 *
 *   vhdx_format.h   bytes <-> structures, validation, no I/O
 *   vhdx_open.c     headers, region table, metadata; standby and activate
 *   vhdx_replay.c   finding and applying the log's active sequence
 *   vhdx_pages.c    metadata pages (BAT, bitmaps) in memory, loaded on demand, bounded
 *   vhdx_journal.c  header updates and the log: group commit of dirty pages, home writes, tail
 *   vhdx_space.c    which MiB of the file are used; taking, freeing, extending
 *   vhdx_blocks.c   BAT entries, block locks
 *   vhdx_io.c       requests: read, write, flush, unmap, zero, map
 *   vhdx_resize.c, vhdx_compact.c, vhdx_relink.c, vhdx_check.c, vhdx_create.c
 *
 * All of struct vhdx belongs to the loop while active; open, activate, deactivate and close run
 * on a blocking caller's thread while nothing is in flight.
 *
 * Invariants (docs/hypervisor/disk/vhdx.md proves them):
 *  W1  A BAT or bitmap page reaches its home only with content that a flushed log entry holds.
 *  W2  A log entry that makes a sector visible is written after that sector's data is durable,
 *      or the sector read zero before and the space is fresh (reads zero by itself).
 *  W3  Space freed by a change is taken again only after that change is durable in the log, and
 *      after every request that was using it is over.
 *  W4  A guest FLUSH ends only after a flush of the store that began after every dirty page of
 *      the writes completed before it was written to the log.
 *  W5  The first write of a session is preceded by a durable header with new GUIDs and a log
 *      that holds a valid sequence under its LogGuid.
 */
#ifndef HYPERVISOR_DISK_VHDX_PRIV_H
#define HYPERVISOR_DISK_VHDX_PRIV_H

#include "hypervisor/disk/image_priv.h"
#include "hypervisor/disk/vhdx_format.h"

struct vhdx;
struct vhdx_page;
struct vhdx_journal;
struct vhdx_overlay;
struct vhdx_pages;
struct vhdx_space;
struct vhdx_blocks;

#define VHDX_PAGE_BYTES 4096U
#define VHDX_PAGES_MAX  4096U /* clean metadata pages kept: 16 MiB map 64 GiB to 512 TiB */
#define VHDX_COMMIT_NS  (1000 * BASE_NS_PER_MS) /* dirty pages wait no longer for a flush */

/* Who waits for something of the image; embedded; called once, on the loop, never within the
 * call that took it. */
struct vhdx_waiter {
	void (*run)(struct vhdx_waiter *waiter, int result);
	void *context;
	struct vhdx_waiter *next;
	struct base_io_task task;
	int result;
};

struct vhdx {
	struct image image;
	/* As validated by vhdx_open.c; rewritten by resize and relink. */
	struct vhdx_header header; /* the current one */
	uint32_t header_slot;      /* 0 or 1: where it is */
	struct vhdx_regions
		regions; /* BAT and metadata region: offset, length; and the unknown ones */
	struct vhdx_metadata meta; /* decoded items */
	uint64_t chunk_ratio;      /* payload blocks per bitmap block */
	uint64_t block_count;      /* payload blocks */
	uint64_t bat_entry_count;  /* with bitmap slots */
	uint32_t block_bytes;
	uint64_t file_bytes;          /* size of the file, as we know it */
	struct vhdx_overlay *overlay; /* standby of a dirty file: the log in memory; else NULL */
	struct vhdx_pages *pages;
	struct vhdx_journal *journal; /* while active */
	struct vhdx_space *space;     /* while active */
	struct vhdx_blocks *blocks;
};

static inline struct vhdx *vhdx_of(struct image *image)
{
	return (struct vhdx *)image; /* its first member */
}

/* --- vhdx_replay.c: blocking --- */

/* Read the log region named by @header and find its active sequence.  *ret_overlay NULL when
 * LogGuid is zero.  -EBADMSG no valid sequence, or the file is shorter than the log says
 * it was (names both sizes). */
BASE_MUST_CHECK int vhdx_overlay_load(struct store_file *file, const struct vhdx_header *header,
				      uint64_t file_bytes, struct vhdx_overlay **ret_overlay,
				      struct base_error *err);
/* Put what the log says over @data, which was read from @offset. */
void vhdx_overlay_apply(const struct vhdx_overlay *overlay, uint64_t offset_bytes, void *data,
			size_t length_bytes);
/* Write it home, extend the file to LastFileOffset, flush.  Twice does no harm. */
BASE_MUST_CHECK int vhdx_overlay_replay(const struct vhdx_overlay *overlay, struct store_file *file,
					struct base_error *err);
/* What the file's size becomes: max of the file's and LastFileOffset. */
uint64_t vhdx_overlay_file_bytes(const struct vhdx_overlay *overlay);
void vhdx_overlay_free(struct vhdx_overlay *overlay);

/* --- vhdx_open.c --- */

/* Read and validate everything but the BAT: fills header .. file_bytes, image.geometry and the
 * parent; with an overlay when the log is dirty.  Blocking. */
BASE_MUST_CHECK int vhdx_load(struct vhdx *vhdx, struct base_error *err);
/* store_do() for READ with the overlay applied; zeros past the end of the file. */
BASE_MUST_CHECK int vhdx_read_meta(struct vhdx *vhdx, uint64_t offset_bytes, void *data,
				   size_t length_bytes, struct base_error *err);
/* Write @header to the slot that is not current, flush, and make it the current one; its sequence
 * number is set here.  Blocking: for activate(), while no journal is there. */
BASE_MUST_CHECK int vhdx_header_write(struct vhdx *vhdx, const struct vhdx_header *header,
				      struct base_error *err);

/* --- vhdx_pages.c: loop --- */

int vhdx_pages_new(struct vhdx *vhdx, struct base_error *err);
void vhdx_pages_free(struct vhdx *vhdx); /* drops everything */

struct vhdx_page {
	uint64_t offset_bytes; /* in the file */
	uint8_t *data;         /* VHDX_PAGE_BYTES; as the guest's requests see it */
	uint32_t pins;         /* a pinned or dirty page is not dropped */
	bool loaded;
	bool dirty;      /* differs from the newest log entry that holds it */
	bool ordered;    /* dirty, and data that it makes visible is not fresh space: flush first */
	uint8_t *logged; /* content of the newest flushed log entry, not home yet; or NULL */
	uint64_t logged_sequence;
	/* The journal's (vhdx_journal_priv.h). */
	struct vhdx_log_live *logged_in; /* the entry that holds @logged */
	uint8_t *snapshot;               /* content in the commit under way; or NULL */
	bool snapshot_ordered;
	uint8_t *homing; /* content on its way home; or NULL */
	struct vhdx_log_live *homing_in;
	bool idle; /* in the list of pages that may be dropped */
	/* links of cache, lists and waiters */
	struct vhdx_page *hash_next;
	struct vhdx_page *lru_next, *lru_previous;
	struct vhdx_page *dirty_next;
	struct vhdx_waiter *waiters;
	struct store_request request;
	struct iovec iov;
	struct vhdx *vhdx;
};

/**
 * vhdx_page_get - the page at @offset_bytes (4 KiB multiple), pinned.
 * Return: 0 and the page; -EINPROGRESS: @waiter runs once when it is loaded or failed; call again
 * then (it is found now, unless the result says otherwise); -ENOMEM.
 */
int vhdx_page_get(struct vhdx *vhdx, uint64_t offset_bytes, struct vhdx_waiter *waiter,
		  struct vhdx_page **ret_page);
/* A page whose home is fresh space: zeros, nothing is read.  Pinned. */
int vhdx_page_fresh(struct vhdx *vhdx, uint64_t offset_bytes, struct vhdx_page **ret_page);
void vhdx_page_put(struct vhdx_page *page);
/* @page was changed, by a change that spans no return to the loop (so that no commit sees half
 * of it).  @ordered: see W2.  Starts the commit timer. */
void vhdx_page_dirty(struct vhdx_page *page, bool ordered);
/* Forget pages of a region that moved (resize).  None is pinned or dirty. */
void vhdx_pages_drop(struct vhdx *vhdx, uint64_t offset_bytes, uint64_t length_bytes);
/* For the journal: the list of dirty pages, taken as a whole; count. */
struct vhdx_page *vhdx_pages_take_dirty(struct vhdx *vhdx, uint32_t *ret_count, bool *ret_ordered);
uint32_t vhdx_pages_dirty_count(const struct vhdx *vhdx);

/* --- vhdx_journal.c: loop, but for begin and end --- */

/* Blocking; after activate() has loaded and replayed; nothing is written before the first
 * vhdx_touch(). */
int vhdx_journal_begin(struct vhdx *vhdx, struct base_error *err);
/* Blocking: commit, home, flush, header with LogGuid zero, flush; cut the file's unused end. */
int vhdx_journal_end(struct vhdx *vhdx, struct base_error *err);
void vhdx_journal_free(struct vhdx *vhdx); /* without writing */

/* Before the first change of a session, and before the first change of guest-visible content
 * (@data): W5.  0: go on; -EINPROGRESS: @waiter runs when it is durable. */
int vhdx_touch(struct vhdx *vhdx, bool data, struct vhdx_waiter *waiter);
/* Keep the DataWriteGuid, or set this one: image_ops.set_data_id.  Async; durable at @waiter. */
void vhdx_journal_set_data_id(struct vhdx *vhdx, const struct disk_guid *id,
			      struct vhdx_waiter *waiter);
/**
 * vhdx_commit - make durable everything that completed, and every page that is dirty, before
 * this call (W4).  Calls that come while one is under way share the next.  With nothing dirty it
 * is one flush of the store.  @waiter gets 0, or the error: -ENOSPC, -EIO of a write may be
 * tried again (pages stay dirty); a failed flush is final (image_fail).
 */
void vhdx_commit(struct vhdx *vhdx, struct vhdx_waiter *waiter);
/* True when so many pages are dirty that a change must wait; then @waiter runs after a commit. */
bool vhdx_commit_crowded(struct vhdx *vhdx, struct vhdx_waiter *waiter);
/* True when pages are dirty or a commit has not ended: FUA needs more than the store's FUA. */
bool vhdx_commit_pending(const struct vhdx *vhdx);
/* The number of the commit that will hold a change made now; and the newest durable one. */
uint64_t vhdx_commit_next(const struct vhdx *vhdx);
uint64_t vhdx_commit_durable(const struct vhdx *vhdx);
/* Room for extra raw page images in the next commit, for structures that are no cached pages
 * (region tables, metadata items): @data is copied. */
int vhdx_commit_extra(struct vhdx *vhdx, uint64_t offset_bytes,
		      const uint8_t data[VHDX_PAGE_BYTES]);

/* --- vhdx_space.c: loop --- */

int vhdx_space_new(struct vhdx *vhdx, struct base_error *err);
void vhdx_space_free_all(struct vhdx *vhdx);
/**
 * vhdx_space_take - @length_bytes (MiB multiple) of the file, 1 MiB aligned.
 * First from what is known to be free, else at the end (extending the file in larger steps).
 * The session's first call waits for the scan; one that failed is tried again.
 * 0 with *ret_fresh: the space reads zero; else it holds old bytes and the caller clears what it
 * does not write (and treats the change as ordered).  -EINPROGRESS: @waiter runs; call again.
 * -ENOSPC, -EIO... from extending, through @waiter.
 */
int vhdx_space_take(struct vhdx *vhdx, uint64_t length_bytes, struct vhdx_waiter *waiter,
		    uint64_t *ret_offset, bool *ret_fresh);
/* Make the file as long as all that was handed out, and as what a block at its end lacks (which
 * no guest has seen so far).  As vhdx_space_take(). */
int vhdx_space_complete(struct vhdx *vhdx, struct vhdx_waiter *waiter);
/* It was taken and no durable structure names it: free at once. */
void vhdx_space_give_back(struct vhdx *vhdx, uint64_t offset_bytes, uint64_t length_bytes);
/* The BAT change that ends its use was made now: free once that commit is durable (W3). */
void vhdx_space_release(struct vhdx *vhdx, uint64_t offset_bytes, uint64_t length_bytes);
/* The same for what @entry named, which was at @bat_index of the BAT. */
void vhdx_space_release_entry(struct vhdx *vhdx, uint64_t bat_index, uint64_t entry,
			      uint64_t length_bytes);
/* An entry without space is replaced: release what others let it keep, when that is sure to be
 * nobody else's. */
void vhdx_space_release_kept(struct vhdx *vhdx, uint64_t entry, uint64_t length_bytes);
/* A write of unknown outcome may still land somewhere: from now on only fresh space is given. */
void vhdx_space_unsure(struct vhdx *vhdx);
/* The journal says: commit @number is durable. */
void vhdx_space_committed(struct vhdx *vhdx, uint64_t number);
/* Size that the file must have durably for what a commit names, and that is durable now:
 * LastFileOffset and FlushedFileOffset of a log entry. */
uint64_t vhdx_space_last_bytes(const struct vhdx *vhdx);
uint64_t vhdx_space_flushed_bytes(const struct vhdx *vhdx);
/* A flush of the store began / ended well: the size known at its begin is durable. */
void vhdx_space_flush_begin(struct vhdx *vhdx);
void vhdx_space_flush_end(struct vhdx *vhdx);
/* Read the whole BAT to know what is free (starts by itself at the first take).  @waiter when
 * known. */
int vhdx_space_scan(struct vhdx *vhdx, struct vhdx_waiter *waiter);
bool vhdx_space_known(const struct vhdx *vhdx);
/* First byte after the last used MiB (known only after the scan); and is this MiB range free? */
uint64_t vhdx_space_end(const struct vhdx *vhdx);
bool vhdx_space_is_free(const struct vhdx *vhdx, uint64_t offset_bytes, uint64_t length_bytes);
/* Lowest free range of that length below @limit; false when none (compaction). */
bool vhdx_space_take_below(struct vhdx *vhdx, uint64_t length_bytes, uint64_t limit_bytes,
			   uint64_t *ret_offset);

/* --- vhdx_blocks.c: loop --- */

int vhdx_blocks_new(struct vhdx *vhdx, struct base_error *err);
void vhdx_blocks_free(struct vhdx *vhdx);

static inline uint64_t vhdx_bat_index(const struct vhdx *vhdx, uint64_t block)
{
	return block + block / vhdx->chunk_ratio;
}
static inline uint64_t vhdx_bitmap_index(const struct vhdx *vhdx, uint64_t block)
{
	return (block / vhdx->chunk_ratio) * (vhdx->chunk_ratio + 1) + vhdx->chunk_ratio;
}
/* The page that holds a BAT entry, pinned, as vhdx_page_get(). */
int vhdx_bat_page(struct vhdx *vhdx, uint64_t bat_index, struct vhdx_waiter *waiter,
		  struct vhdx_page **ret_page);
uint64_t vhdx_bat_get(const struct vhdx *vhdx, const struct vhdx_page *page, uint64_t bat_index);
/* Changes the entry and marks the page dirty. */
void vhdx_bat_set(struct vhdx *vhdx, struct vhdx_page *page, uint64_t bat_index, uint64_t entry,
		  bool ordered);
/* An entry as validated before use: state known, offset inside the file, not over a structure.
 * -EBADMSG and image_fail() never: the request fails, with a line in the log once and
 * the text in image.damage. */
int vhdx_bat_entry_check(struct vhdx *vhdx, uint64_t block, uint64_t entry);

/*
 * Block locks: a request that uses a block holds it shared; who changes where it is (first
 * allocation, unmap, zero, move) holds it exclusively.  First come, first served.
 */
struct vhdx_block_lock {
	uint64_t block;
	bool exclusive;
	bool held;
	/* On the loop; within vhdx_block_lock() when nobody is in the way, else from a task. */
	void (*granted)(struct vhdx_block_lock *lock);
	void *context;
	struct vhdx_block_lock *next;     /* the table's */
	struct vhdx_block_lock *previous; /* the table's */
	struct vhdx_block_lock *ready;    /* the table's */
};
void vhdx_block_lock(struct vhdx *vhdx, struct vhdx_block_lock *lock);
void vhdx_block_unlock(struct vhdx *vhdx, struct vhdx_block_lock *lock);
/* Exclusive to shared, without letting anyone in between. */
void vhdx_block_downgrade(struct vhdx *vhdx, struct vhdx_block_lock *lock);

/* --- the operations of image_vhdx_ops, one file each --- */

void vhdx_submit(struct image *image, struct disk_request *request); /* vhdx_io.c */
void vhdx_resize(struct vhdx *vhdx, struct disk_request *request);   /* vhdx_resize.c; loop */
int vhdx_compact(struct image *image, disk_progress progress, void *context,
		 struct base_error *err);
int vhdx_set_parent(struct image *image, const struct image_parent *parent, struct base_error *err);
int vhdx_set_data_id(struct image *image, const struct disk_guid *id, struct base_error *err);
int vhdx_check(struct image *image, bool repair, disk_report report, void *context,
	       struct disk_check_result *ret_result, struct base_error *err);
int vhdx_create(struct store *store, const char *name, struct base_io_loop *loop,
		const struct disk_create_options *options, struct image *parent,
		struct base_error *err);
/* How @child names @parent: the relative path as Windows writes it, and the ids. */
BASE_MUST_CHECK int vhdx_locator_for(const char *child, const struct image_parent *parent,
				     struct vhdx_locator *ret_locator, struct base_error *err);
/* The way from @child to @parent, names in one store, as a parent locator has it.  vhdx_create.c.
 * -EINVAL, -ENAMETOOLONG. */
int vhdx_relative_path(const char *child, const char *parent, char to[VHDX_LOCATOR_TEXT_BYTES],
		       struct base_error *err);
int vhdx_info(struct image *image, struct disk_layer_info *ret_info, struct base_error *err);

/* Hold new requests at the image and wait until none is in flight; for resize and compact, which
 * move tables.  Loop; @waiter when quiet.  vhdx_io.c. */
void vhdx_hold(struct vhdx *vhdx, struct vhdx_waiter *waiter);
void vhdx_unhold(struct vhdx *vhdx);

#endif
