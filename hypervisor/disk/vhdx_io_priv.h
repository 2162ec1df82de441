/* SPDX-License-Identifier: Apache-2.0 */
/*
 * How requests of an open VHDX image are carried out: for vhdx_blocks.c, vhdx_io.c and the files
 * beside it that work on one kind of request.  All of it belongs to the loop.
 *
 * A *piece* is the work of one request on one block after the other: a READ or WRITE has one per
 * block, which run side by side; UNMAP, ZERO, MAP and FLUSH have one that goes through the range.
 * It is a chain of steps.  A step never blocks: it ends with VHDX_GO (run the next one),
 * VHDX_WAIT (whoever it waits for runs piece->step later) or VHDX_END.  Everything a piece holds
 * (locks, pinned pages, space that no entry names yet) is in its members, so that
 * vhdx_piece_release() lets go of all of it on every path.
 */
#ifndef HYPERVISOR_DISK_VHDX_IO_PRIV_H
#define HYPERVISOR_DISK_VHDX_IO_PRIV_H

#include "base/cleanup.h"
#include "hypervisor/disk/vhdx_priv.h"

#define VHDX_LOCK_BUCKETS     256U
#define VHDX_PARTS_AT_ONCE    16U /* runs of one PARTIAL block in flight for one piece */
#define VHDX_BLOCKS_PER_TURN  64U /* then the loop gets its turn */
#define VHDX_BITS_PAGES_MAX   17U /* bitmap pages of one block of 256 MiB, not aligned */
#define VHDX_MAP_SUB_EXTENTS  32U
#define VHDX_CHUNK_LOCK       (1ULL << 63) /* lock names of chunks, beside those of blocks */
#define VHDX_PIECES_FREE_KEPT 1024U

enum vhdx_step_result {
	VHDX_END,
	VHDX_GO,
	VHDX_WAIT
};

struct vhdx_piece;
typedef enum vhdx_step_result (*vhdx_step)(struct vhdx_piece *piece);

/* A look into the parent for MAP. */
struct vhdx_map_below {
	struct disk_request request;
	struct disk_extent extents[VHDX_MAP_SUB_EXTENTS];
};

struct vhdx_piece {
	struct vhdx *vhdx;
	struct disk_request *request;
	vhdx_step step;
	struct vhdx_piece *next; /* the free list's */
	struct vhdx_block_lock lock;
	struct vhdx_waiter waiter;
	uint64_t cursor; /* of the disk: what is left is from here ... */
	uint64_t end;    /* ... to here */
	/* The block that cursor is in. */
	uint64_t block;
	uint32_t within;  /* cursor's place in the block */
	uint32_t length;  /* bytes of this block to work on */
	uint32_t visible; /* bytes of the block that are in the disk */
	bool whole;       /* all the visible ones are to be worked on */
	uint64_t entry;
	uint64_t bat_index;
	struct vhdx_page *bat;
	/* Set while something is in flight. */
	uint32_t pending;
	int result;
	bool stepping;
	bool locked;       /* lock was asked for */
	bool chunk_locked; /* chunk was asked for */
	bool commit;       /* FUA needs a commit at the end */
	bool dirt;         /* changed an entry, bits or the file */
	bool fresh;        /* the space taken reads zero */
	bool has_space;
	bool has_bits;
	uint32_t turns;
	/* Space that was taken and that no entry names yet. */
	uint64_t space_offset;
	uint64_t space_bytes;
	/* The sector bitmap: vhdx_diff.c. */
	struct vhdx_block_lock chunk;
	struct vhdx_page *bitmap_bat;
	uint64_t bitmap_offset;
	struct vhdx_page *bits[VHDX_BITS_PAGES_MAX];
	uint32_t bits_count;
	uint64_t bits_first;        /* offset in the file of bits[0] */
	uint64_t bits_start;        /* byte in the bitmap block where the block's bits begin */
	uint32_t run_at;            /* next byte of the block to look at */
	struct store_request store; /* ZERO on the file */
	struct base_io_task task;
	struct vhdx_map_below *below; /* MAP only, or NULL */
	uint64_t below_at, below_end; /* MAP: the parent's run that is being looked at */
};

struct vhdx_lock_bucket {
	struct vhdx_block_lock *head;
	struct vhdx_block_lock *tail;
	uint32_t exclusive; /* held or waiting */
	uint32_t waiting;
};

struct vhdx_blocks {
	struct vhdx *vhdx;
	uint32_t block_shift;
	uint32_t in_flight; /* pieces */
	bool told_damage;
	bool touched; /* this session has written something */
	/* Who holds requests back (one at a time), and what waits meanwhile. */
	bool held;
	struct vhdx_waiter *holders;
	struct disk_request *queue_head;
	struct disk_request *queue_tail;
	struct vhdx_piece *free_pieces;
	uint32_t free_count;
	/* Locks granted by an unlock: told from a task, so that they do not nest. */
	struct vhdx_block_lock *ready_head;
	struct vhdx_block_lock *ready_tail;
	struct base_io_task ready_task;
	bool ready_posted;
	struct vhdx_lock_bucket buckets[VHDX_LOCK_BUCKETS];
};

/* --- vhdx_io.c --- */

/* Carry out a request, also while requests are held back (resize reads the tail). */
void vhdx_start(struct vhdx *vhdx, struct disk_request *request);
/* Run @waiter from a task. */
void vhdx_waiter_post(struct vhdx *vhdx, struct vhdx_waiter *waiter, int result);
/* Run steps until one waits. */
void vhdx_piece_run(struct vhdx_piece *piece);
/* The piece fails; everything is let go. */
enum vhdx_step_result vhdx_piece_fail(struct vhdx_piece *piece, int code);
/* What a call that may wait for piece->waiter has returned: the same step runs again after
 * -EINPROGRESS, @next after 0. */
enum vhdx_step_result vhdx_piece_after(struct vhdx_piece *piece, int code, vhdx_step next);
/* Wait for what is in flight, if anything is, then @next (or failure). */
enum vhdx_step_result vhdx_piece_join(struct vhdx_piece *piece, vhdx_step next);
/* Bytes [at, at + length) of the block to or from the file at @file_offset, or the parent. */
int vhdx_piece_file(struct vhdx_piece *piece, uint32_t at, uint32_t length, uint64_t file_offset,
		    uint32_t store_flags);
int vhdx_piece_parent(struct vhdx_piece *piece, uint32_t at, uint32_t length);
void vhdx_piece_zero(struct vhdx_piece *piece, uint32_t at, uint32_t length);
/* STORE_ZERO on the file. */
void vhdx_piece_clear(struct vhdx_piece *piece, uint64_t file_offset, uint64_t length_bytes);
/* Where the piece's own bytes come and go: WRITE or STORE_ZERO, at the block at @block_offset. */
int vhdx_piece_put(struct vhdx_piece *piece, uint64_t block_offset, uint32_t store_flags);
/* Lets go of locks, pages and space. */
void vhdx_piece_release(struct vhdx_piece *piece);
/* Drop the shared lock and ask for the exclusive one; the entry is read again. */
enum vhdx_step_result vhdx_piece_upgrade(struct vhdx_piece *piece);
enum vhdx_step_result vhdx_step_entry(struct vhdx_piece *piece);
/* This block is done: to the next one, or the end. */
enum vhdx_step_result vhdx_step_block_done(struct vhdx_piece *piece);

/* --- vhdx_write.c, vhdx_unmap.c, vhdx_diff.c, vhdx_map.c: from the entry on --- */

enum vhdx_step_result vhdx_step_write(struct vhdx_piece *piece);
enum vhdx_step_result vhdx_step_unmap(struct vhdx_piece *piece);
/* Exclusive: the entry becomes @piece's new state without space, what it had is released. */
enum vhdx_step_result vhdx_step_forget(struct vhdx_piece *piece);
enum vhdx_step_result vhdx_step_read_partial(struct vhdx_piece *piece);
enum vhdx_step_result vhdx_step_write_partial(struct vhdx_piece *piece);
/* Exclusive: NOT_PRESENT over a parent becomes PARTIAL with no bit set, then it is written. */
enum vhdx_step_result vhdx_step_alloc_partial(struct vhdx_piece *piece);
enum vhdx_step_result vhdx_step_map(struct vhdx_piece *piece);

/* Pin the bitmap pages for [at, at + length) of the block; -EINPROGRESS: run the step again. */
int vhdx_bits_load(struct vhdx_piece *piece, uint32_t at, uint32_t length);
void vhdx_bits_drop(struct vhdx_piece *piece);
/* Bytes from @at on, to @limit at most, whose bits are all equal; *ret_set: present here. */
uint32_t vhdx_bits_run(const struct vhdx_piece *piece, uint32_t at, uint32_t limit, bool *ret_set);

/* [offset, offset + length) lies in the file and over no structure. */
bool vhdx_range_is_payload(const struct vhdx *vhdx, uint64_t offset_bytes, uint64_t length_bytes);

static inline bool vhdx_state_has_space(uint64_t entry)
{
	return vhdx_entry_state(entry) == VHDX_BLOCK_FULL ||
	       vhdx_entry_state(entry) == VHDX_BLOCK_PARTIAL;
}

#endif
