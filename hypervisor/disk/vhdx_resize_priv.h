/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A RESIZE under way: what vhdx_resize.c (the order of things) and vhdx_resize_bat.c (the BAT's
 * part) share.  Loop only; steps as those of pieces.
 */
#ifndef HYPERVISOR_DISK_VHDX_RESIZE_PRIV_H
#define HYPERVISOR_DISK_VHDX_RESIZE_PRIV_H

#include "hypervisor/disk/vhdx_io_priv.h"
#include "hypervisor/disk/vhdx_journal_priv.h"

#define VHDX_RESIZE_PIECE    (1U << 20) /* bytes read and written at once */
#define VHDX_RESIZE_PER_TURN 4096U      /* entries looked at before the loop gets its turn */
#define VHDX_TABLE_PAGES     (VHDX_REGION_TABLE_BYTES / VHDX_PAGE_BYTES)
#define VHDX_RESIZE_PINS     (2 + 2 * VHDX_TABLE_PAGES)

struct vhdx_resize;
typedef enum vhdx_step_result (*vhdx_resize_step)(struct vhdx_resize *resize);

struct vhdx_resize {
	struct vhdx *vhdx;
	struct disk_request *request;
	vhdx_resize_step step;
	bool stepping;
	bool held;
	bool arrived; /* of what was sent, within a step */
	int result;
	struct vhdx_waiter waiter;
	struct base_io_task task;
	uint64_t old_bytes, new_bytes;
	struct vhdx_bat_shape old_shape, new_shape;
	/* The BAT's region when it is done; @moved: another one than now. */
	struct vhdx_region bat;
	bool moved;
	bool fresh;
	bool published;        /* the change is in a commit: it cannot be taken back any more */
	uint64_t at;           /* of the step under way: an index, a block or an offset */
	uint64_t filled;       /* fixed: blocks from the old end to here have space */
	uint64_t space_offset; /* taken for block @filled, not in its entry yet */
	bool has_space;
	struct vhdx_page *page; /* of the BAT */
	struct vhdx_page *pins[VHDX_RESIZE_PINS];
	uint32_t pin_count;
	uint8_t *buffer;
	struct iovec iov;
	struct store_request store;
	struct disk_request read;
};

void vhdx_resize_run(struct vhdx_resize *resize);
/* As vhdx_piece_after(). */
enum vhdx_step_result vhdx_resize_after(struct vhdx_resize *resize, int code,
					vhdx_resize_step next);
enum vhdx_step_result vhdx_resize_store(struct vhdx_resize *resize, enum store_op op,
					uint64_t offset_bytes, uint64_t length_bytes,
					vhdx_resize_step next);
/* Give the loop its turn, then the same step again. */
enum vhdx_step_result vhdx_resize_turn(struct vhdx_resize *resize);

/* --- vhdx_resize_bat.c --- */

/* Growing: @resize->bat is settled, moved if it has to, and all entries beyond the old end read
 * zero, or name space in a fixed image.  Goes on with step_publish. */
enum vhdx_step_result vhdx_resize_grow_bat(struct vhdx_resize *resize);
/* Shrinking: entries beyond the new end become zero. */
enum vhdx_step_result vhdx_resize_shrink_bat(struct vhdx_resize *resize);
/* After a failure: give back what new blocks of a fixed image have got. */
enum vhdx_step_result vhdx_resize_unfill(struct vhdx_resize *resize);
/* The page of entry @index in the region that will be the BAT, in resize->page; as
 * vhdx_page_get(). */
int vhdx_resize_page(struct vhdx_resize *resize, uint64_t index);

/* vhdx_resize.c: make it durable, then switch. */
enum vhdx_step_result vhdx_resize_publish(struct vhdx_resize *resize);

#endif
