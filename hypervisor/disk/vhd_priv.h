/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The parts of an open VHD image and what they are to each other.
 *
 *   vhd_format.h  bytes <-> structures, no I/O
 *   vhd.c         open, activate, deactivate, info; the ops table
 *   vhd_open.c    footers, header, block table; the parent's name
 *   vhd_blocks.c  blocks in memory: sector bitmaps, space for new ones
 *   vhd_commit.c  making block table and bitmaps durable
 *   vhd_io.c      requests of dynamic and differencing disks
 *   vhd_resize.c, vhd_create.c, vhd_check.c
 *
 * All of struct vhd belongs to the loop while active; open, activate, deactivate and close run
 * on a blocking caller's thread while nothing is in flight.
 *
 * Invariants (docs/hypervisor/disk/vhd.md says why they suffice):
 *  V1  A block table entry is written after a flush that covers the block's bitmap, the data
 *      written to it so far, and the file's size.
 *  V2  A bitmap bit of a block that the table names is written after a flush that covers its
 *      sector's data.
 *  V3  New blocks lie where the file had ended at open or later, so they read zero by themselves.
 *      They are used after a flush that covers the file's size and the footer at its end: no power
 *      failure leaves a file that ends with what a guest wrote, which may look like a footer.
 *  V4  The footer copy at 0 is only ever replaced whole (one sector) and is always valid.
 *  V5  A guest FLUSH ends only after the table and bitmap sectors of all writes that had
 *      completed before it are durable.
 */
#ifndef HYPERVISOR_DISK_VHD_PRIV_H
#define HYPERVISOR_DISK_VHD_PRIV_H

#include "hypervisor/disk/image_priv.h"
#include "hypervisor/disk/vhd_format.h"

#define VHD_BLOCK_HASH  1024U /* buckets, a power of two */
#define VHD_BLOCKS_KEPT 2048U /* blocks in memory that nobody uses: 1 MiB of 512-byte bitmaps */
#define VHD_DIRTY_MANY  256U  /* begin a commit by ourselves */
#define VHD_DIRTY_MAX   1024U /* new blocks wait for a commit */
#define VHD_COMMIT_NS   (1000 * BASE_NS_PER_MS) /* dirty blocks wait no longer for a flush */
#define VHD_GROW_BLOCKS 16U                     /* the file grows by so many blocks... */
#define VHD_GROW_BYTES  (64ULL << 20)           /* ...or about so much */
#define VHD_DATA_ALIGN  4096U                   /* data of new blocks: direct I/O likes it */

struct vhd;

/* Parts that wait for something, in order.  Linked by image_part.next. */
struct vhd_parts {
	struct image_part *head;
	struct image_part *tail;
};

/* A block that has something to remember. */
struct vhd_block {
	uint32_t index;
	uint32_t pins;     /* users; a pinned, dirty or committing block stays */
	bool loading;      /* its bitmap is being read */
	bool fresh;        /* the table on disk does not name it yet */
	bool dirty;        /* fresh, or bits that are not in a commit yet */
	bool committing;   /* in the commit under way */
	uint8_t *bits;     /* the bitmap as requests see it; NULL: not loaded, or all set */
	uint8_t *snapshot; /* of @bits for the commit under way; NULL: all set */
	struct vhd_parts waiters;
	struct vhd_block *hash_next;
	struct vhd_block *lru_next, *lru_previous; /* while nobody uses it */
	struct vhd_block *dirty_next;
	struct vhd_block *commit_next;
	struct store_request request;
	struct iovec iov;
	struct vhd *vhd;
};

/* The commit machine: one at a time; requests that come meanwhile share the next. */
struct vhd_commit {
	bool running;                   /* or resize keeps it out */
	bool wanted;                    /* another one after this */
	struct vhd_parts now;           /* end with this one */
	struct vhd_parts next;          /* end with the next */
	struct vhd_block *blocks;       /* in this one */
	uint32_t writes;                /* in flight, plus one while they are being started */
	uint32_t phase;                 /* enum of vhd_commit.c */
	int result;                     /* the first failure */
	struct vhd_commit_write *table; /* sectors of the block table being written */
	struct store_request flush;
	struct base_io_timer timer;
	void (*idle)(struct vhd *vhd); /* called once when none runs: resize waits */
};

struct vhd {
	struct image image;
	/* As read by vhd_open.c; rewritten by resize. */
	struct vhd_footer footer;
	struct vhd_header header; /* not of a fixed disk */
	uint8_t footer_bytes[VHD_FOOTER_BYTES];
	uint8_t header_bytes[VHD_HEADER_BYTES];
	bool tail_good;  /* the footer at the end of the file */
	bool copy_good;  /* the one at 0; fixed: true */
	bool copy_same;  /* and both say the same */
	bool twins;      /* both are good, differ, and are of one disk: a resize was cut off */
	bool sums_wrong; /* readable, not to be written: see the docs */
	uint64_t file_bytes;
	uint64_t tail_offset; /* where the footer at the end is, or belongs */

	uint32_t block_bytes;
	uint32_t bitmap_bytes;
	uint32_t entry_capacity; /* of @bat: whole sectors of the table */
	uint32_t *bat;           /* sector of each block; as requests see it */
	uint8_t *full;           /* bit set: all sectors of the block are in this file */
	uint8_t *ones;           /* bitmap_bytes of 0xff */
	uint64_t next_offset;    /* space from here to grown_offset is free and reads zero */
	uint64_t grown_offset;   /* where the footer is while active */

	struct vhd_block *hash[VHD_BLOCK_HASH];
	struct vhd_block *lru_head, *lru_tail; /* head: used last */
	uint32_t lru_count;
	struct vhd_block *dirty;
	uint32_t dirty_count;

	bool growing;            /* the file is being extended, or resize keeps it out */
	struct vhd_parts growth; /* wait for space */
	struct vhd_parts crowd;  /* wait for a commit to make room */
	struct store_request grow_request;
	struct iovec grow_iov;
	uint64_t grow_to;
	uint8_t *sector; /* a footer on its way to the file */
	struct vhd_commit commit;
	struct resize *resize; /* waits for its turn */
	bool resize_waits;     /* for @growing to end */
};

static inline struct vhd *vhd_of(struct image *image)
{
	return (struct vhd *)image; /* its first member */
}

static inline uint32_t vhd_block_count(const struct vhd *vhd)
{
	return (uint32_t)((vhd->image.geometry.size_bytes + vhd->block_bytes - 1) /
			  vhd->block_bytes);
}

static inline bool vhd_is_full(const struct vhd *vhd, uint32_t index)
{
	return (vhd->full[index / 8] & (1U << index % 8)) != 0;
}

/* --- vhd_open.c: blocking --- */

/* Read and validate everything but single table entries; fills footer .. full. */
BASE_MUST_CHECK int vhd_load(struct vhd *vhd, struct base_error *err);
void vhd_unload(struct vhd *vhd);
/* Every entry of the table: inside the file, outside of the tables, no two alike. */
BASE_MUST_CHECK int vhd_table_check(const struct vhd *vhd, struct base_error *err);
/* Is block @index, which is there, where a block can be? */
bool vhd_entry_valid(const struct vhd *vhd, uint32_t index);
/* End of header, locators and table: blocks begin here or later. */
uint64_t vhd_tables_end(const struct vhd *vhd);
/* 512-byte aligned buffer of whole sectors, zeroed; NULL without memory.  free(). */
void *vhd_buffer_new(size_t size_bytes);
/* Write @footer at @offset of the file, growing it if need be, and flush. */
BASE_MUST_CHECK int vhd_footer_write(struct vhd *vhd, uint64_t offset_bytes,
				     struct base_error *err);

/* --- vhd_blocks.c: loop --- */

void vhd_parts_add(struct vhd_parts *parts, struct image_part *part);
struct image_part *vhd_parts_take(struct vhd_parts *parts); /* all of them, linked by next */

void vhd_parts_run(struct vhd_parts *parts, int result); /* vhd_part_run() for all */

struct vhd_block *vhd_block_find(struct vhd *vhd, uint32_t index);
/* Find or make; pinned; NULL without memory. */
struct vhd_block *vhd_block_get(struct vhd *vhd, uint32_t index);
void vhd_block_put(struct vhd_block *block);
/* The bitmap in memory: 0; -EINPROGRESS: @part runs again later; -ENOMEM. */
int vhd_block_load(struct vhd_block *block, struct image_part *part);
bool vhd_block_bit(const struct vhd_block *block, uint32_t sector);
/* Sectors that are in this file from now on; their data has been written. */
void vhd_block_set(struct vhd_block *block, uint32_t sector, uint32_t count);
void vhd_block_dirty(struct vhd_block *block);
/* A place for block @index: 0, and the table in memory names it; -EINPROGRESS: @part runs again
 * later; -ENOSPC; -ENOMEM. */
int vhd_block_allocate(struct vhd *vhd, uint32_t index, struct image_part *part);
void vhd_grow_done(struct vhd *vhd, int result); /* whoever set @growing: go on */
void vhd_blocks_free(struct vhd *vhd);
/* Where block @index's bitmap is in the file; the table names it. */
static inline uint64_t vhd_block_offset(const struct vhd *vhd, uint32_t index)
{
	return (uint64_t)vhd->bat[index] * VHD_SECTOR_BYTES;
}

/* --- vhd_commit.c: loop --- */

/* End @part after everything that completed before is durable; NULL: nobody waits. */
void vhd_commit_join(struct vhd *vhd, struct image_part *part);
void vhd_commit_later(struct vhd *vhd); /* by the timer */
/* Call @idle once when no commit runs; none begins before vhd_commit_release(). */
void vhd_commit_exclude(struct vhd *vhd, void (*idle)(struct vhd *vhd));
void vhd_commit_release(struct vhd *vhd);
void vhd_commit_init(struct vhd *vhd);
void vhd_commit_stop(struct vhd *vhd); /* the timer; nothing is in flight */

/* --- vhd_io.c, vhd_resize.c: loop --- */

void vhd_io_submit(struct vhd *vhd, struct disk_request *request);
void vhd_part_run(struct image_part *part, int result); /* again, after waiting */
void vhd_resize_submit(struct vhd *vhd, struct disk_request *request);
void vhd_resize_after_growth(struct vhd *vhd); /* the file has stopped growing */

/* --- blocking --- */

int vhd_check(struct image *image, bool repair, disk_report report, void *context,
	      struct disk_check_result *ret_result, struct base_error *err);
int vhd_create(struct store *store, const char *name, struct base_io_loop *loop,
	       const struct disk_create_options *options, struct image *parent,
	       struct base_error *err);

#endif
