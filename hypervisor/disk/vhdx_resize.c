/* SPDX-License-Identifier: Apache-2.0 */
/*
 * RESIZE of an open VHDX image, on the loop, while the guest runs: requests are held, then
 *
 *   1. shrinking: nothing beyond the new end may be in use; entries there become zero
 *      growing: the BAT gets room, and zero entries beyond the old end (vhdx_resize_bat.c)
 *   2. everything dirty is committed
 *   3. one commit holds the new size (and both region tables when the BAT moved), behind a flush:
 *      the point of no return; what a power failure leaves has the old size or the new
 *   4. the state in memory is switched in the turn in which that commit ended
 *
 * When commit 3 fails its outcome is unknown, and the image refuses writes until it is opened
 * again: the old BAT and the new one are the same, so either is right.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/log.h"
#include "hypervisor/disk/vhdx_resize_priv.h"

static void resize_end(struct vhdx_resize *resize);

static bool shrinks(const struct vhdx_resize *resize)
{
	return resize->new_bytes < resize->old_bytes;
}

/* --- steps --- */

static void resize_fail(struct vhdx_resize *resize, int code)
{
	if (resize->result == 0)
		resize->result = code;
	if (resize->published)
		image_fail(&resize->vhdx->image,
			   "%s: a resize was written and may or may not be in effect: error %d",
			   store_name(resize->vhdx->image.file), -code);
}

static enum vhdx_step_result step_failed(struct vhdx_resize *resize)
{
	(void)resize;
	return VHDX_END;
}

/* After a failure there may be new blocks to give back. */
static bool wants_undo(const struct vhdx_resize *resize)
{
	return resize->result < 0 && !resize->published &&
	       resize->filled > resize->old_shape.block_count && resize->step != vhdx_resize_unfill;
}

void vhdx_resize_run(struct vhdx_resize *resize)
{
	enum vhdx_step_result next;

	base_assert(!resize->stepping);
	resize->stepping = true;
	do {
		next = resize->step(resize);
		if (next == VHDX_END && wants_undo(resize)) {
			resize->step = vhdx_resize_unfill;
			next = VHDX_GO;
		}
	} while (next == VHDX_GO);
	resize->stepping = false;
	if (next == VHDX_END)
		resize_end(resize);
}

static void resize_arrived(struct vhdx_resize *resize, int result)
{
	if (result < 0) {
		resize_fail(resize, result);
		if (resize->step == vhdx_resize_unfill)
			resize->filled = resize->old_shape.block_count; /* stays taken */
		else
			resize->step = step_failed;
	}
	resize->arrived = true;
	if (!resize->stepping)
		vhdx_resize_run(resize);
}

static void resize_waited(struct vhdx_waiter *waiter, int result)
{
	resize_arrived(waiter->context, result);
}

static void resize_stored(struct store_request *request, int result)
{
	resize_arrived(request->context, result);
}

static void resize_read(struct disk_request *request, int result)
{
	resize_arrived(request->context, result);
}

static void resize_turned(struct base_io_task *task)
{
	vhdx_resize_run((struct vhdx_resize *)((char *)task - offsetof(struct vhdx_resize, task)));
}

static enum vhdx_step_result fail(struct vhdx_resize *resize, int code)
{
	resize_fail(resize, code);
	return VHDX_END;
}

enum vhdx_step_result vhdx_resize_after(struct vhdx_resize *resize, int code, vhdx_resize_step next)
{
	if (code == -EINPROGRESS)
		return VHDX_WAIT;
	if (code < 0)
		return fail(resize, code);
	resize->step = next;
	return VHDX_GO;
}

enum vhdx_step_result vhdx_resize_turn(struct vhdx_resize *resize)
{
	resize->task.run = resize_turned;
	base_io_post(resize->vhdx->image.loop, &resize->task);
	return VHDX_WAIT;
}

enum vhdx_step_result vhdx_resize_store(struct vhdx_resize *resize, enum store_op op,
					uint64_t offset_bytes, uint64_t length_bytes,
					vhdx_resize_step next)
{
	struct store_file *file = resize->vhdx->image.file;
	bool bytes = op == STORE_READ || op == STORE_WRITE;

	resize->iov = (struct iovec){ .iov_base = resize->buffer, .iov_len = length_bytes };
	resize->store = (struct store_request){
		.op = op,
		.epoch = store_epoch(file),
		.offset_bytes = offset_bytes,
		.length_bytes = length_bytes,
		.iov = bytes ? &resize->iov : NULL,
		.iov_count = bytes ? 1 : 0,
		.done = resize_stored,
		.context = resize,
	};
	resize->step = next;
	store_submit(file, &resize->store);
	return VHDX_WAIT;
}

/* --- the end --- */

static void resize_end(struct vhdx_resize *resize)
{
	struct vhdx *vhdx = resize->vhdx;
	struct disk_request *request = resize->request;
	int result = resize->result;

	if (resize->page != NULL)
		vhdx_page_put(resize->page);
	for (uint32_t i = 0; i < resize->pin_count; i++)
		vhdx_page_put(resize->pins[i]);
	/* safety: what a write of unknown outcome may still reach is given to nobody else. */
	if (resize->has_space && result != -ETIMEDOUT)
		vhdx_space_give_back(vhdx, resize->space_offset, vhdx->block_bytes);
	if (resize->moved && !resize->published) {
		/* Released, not given back: pages of it may be in the log already. */
		vhdx_pages_drop(vhdx, resize->bat.offset_bytes, resize->bat.length_bytes);
		if (result != -ETIMEDOUT)
			vhdx_space_release(vhdx, resize->bat.offset_bytes,
					   resize->bat.length_bytes);
	}
	free(resize->buffer);
	if (resize->held)
		vhdx_unhold(vhdx);
	free(resize);
	image_done(request, result);
}

static enum vhdx_step_result step_switch(struct vhdx_resize *resize)
{
	struct vhdx *vhdx = resize->vhdx;
	struct vhdx_region old = vhdx->regions.bat;

	vhdx->meta.disk_bytes = resize->new_bytes;
	vhdx->image.geometry.size_bytes = resize->new_bytes;
	vhdx->block_count = resize->new_shape.block_count;
	vhdx->bat_entry_count = resize->new_shape.entry_count;
	vhdx->regions.bat = resize->bat;
	if (resize->moved) {
		vhdx_pages_drop(vhdx, old.offset_bytes, old.length_bytes);
		vhdx_space_release(vhdx, old.offset_bytes, old.length_bytes);
	}
	return VHDX_END;
}

/* --- one commit with the new size --- */

static uint64_t size_item_offset(const struct vhdx_resize *resize)
{
	const struct vhdx *vhdx = resize->vhdx;

	return vhdx->regions.metadata.offset_bytes + vhdx->meta.disk_bytes_at.offset_bytes;
}

/* The pages that change, in order: those of the size item, then of both region tables. */
static uint64_t pin_offset(const struct vhdx_resize *resize, uint32_t index)
{
	uint64_t item = size_item_offset(resize) + (index == 1 ? sizeof(uint64_t) - 1 : 0);
	uint64_t table = index - 2 < VHDX_TABLE_PAGES ? VHDX_REGION1_OFFSET : VHDX_REGION2_OFFSET;

	if (index < 2)
		return item & ~(uint64_t)(VHDX_PAGE_BYTES - 1);
	return table + (uint64_t)((index - 2) % VHDX_TABLE_PAGES) * VHDX_PAGE_BYTES;
}

static void write_tables(struct vhdx_resize *resize)
{
	struct vhdx_regions regions = resize->vhdx->regions;

	regions.bat = resize->bat;
	vhdx_regions_encode(&regions, resize->buffer);
	for (uint32_t i = 2; i < VHDX_RESIZE_PINS; i++) {
		const uint8_t *from =
			resize->buffer + (size_t)((i - 2) % VHDX_TABLE_PAGES) * VHDX_PAGE_BYTES;

		if (memcmp(resize->pins[i]->data, from, VHDX_PAGE_BYTES) == 0)
			continue;
		memcpy(resize->pins[i]->data, from, VHDX_PAGE_BYTES);
		vhdx_page_dirty(resize->pins[i], true);
	}
}

static enum vhdx_step_result step_no_return(struct vhdx_resize *resize)
{
	uint64_t item = size_item_offset(resize);
	uint32_t want = resize->moved ? VHDX_RESIZE_PINS : 2;

	while (resize->pin_count < want) {
		int code = vhdx_page_get(resize->vhdx, pin_offset(resize, resize->pin_count),
					 &resize->waiter, &resize->pins[resize->pin_count]);

		if (code < 0)
			return vhdx_resize_after(resize, code, NULL);
		resize->pin_count++;
	}
	/* From here to vhdx_commit() nothing can fail and the loop does not get its turn. */
	resize->published = true;
	for (uint32_t i = 0; i < sizeof(uint64_t); i++) {
		struct vhdx_page *page = resize->pins[0];

		if (item + i - page->offset_bytes >= VHDX_PAGE_BYTES)
			page = resize->pins[1];
		page->data[item + i - page->offset_bytes] = (uint8_t)(resize->new_bytes >> (8 * i));
	}
	vhdx_page_dirty(resize->pins[0], true);
	if (resize->pins[1] != resize->pins[0])
		vhdx_page_dirty(resize->pins[1], true);
	if (resize->moved)
		write_tables(resize);
	resize->step = step_switch;
	vhdx_commit(resize->vhdx, &resize->waiter);
	return VHDX_WAIT;
}

enum vhdx_step_result vhdx_resize_publish(struct vhdx_resize *resize)
{
	resize->step = step_no_return;
	vhdx_commit(resize->vhdx, &resize->waiter);
	return VHDX_WAIT;
}

/* --- shrinking: is the tail free? --- */

/* The first byte in use is told in the request, for the text that the user gets. */
static enum vhdx_step_result in_use(struct vhdx_resize *resize, uint64_t offset_bytes)
{
	resize->request->length_bytes = offset_bytes;
	base_log(BASE_LOG_DEBUG, "disk.resize.in-use", "file=%s offset=%llu size=%llu",
		 base_log_str(store_name(resize->vhdx->image.file)),
		 (unsigned long long)offset_bytes, (unsigned long long)resize->new_bytes);
	return fail(resize, -EBUSY);
}

static enum vhdx_step_result step_tail_read(struct vhdx_resize *resize);

static uint64_t tail_end(const struct vhdx_resize *resize)
{
	uint64_t end = resize->new_shape.block_count * resize->vhdx->block_bytes;

	return end < resize->old_bytes ? end : resize->old_bytes;
}

static enum vhdx_step_result step_tail_look(struct vhdx_resize *resize)
{
	uint64_t length = resize->read.length_bytes;

	for (uint64_t i = 0; i < length; i++) {
		if (resize->buffer[i] != 0)
			return in_use(resize, resize->at + i);
	}
	resize->at += length;
	resize->step = step_tail_read;
	return VHDX_GO;
}

static enum vhdx_step_result step_tail_read(struct vhdx_resize *resize)
{
	uint64_t length = tail_end(resize) - resize->at;

	if (resize->at >= tail_end(resize)) {
		resize->step = vhdx_resize_shrink_bat;
		return VHDX_GO;
	}
	if (length > VHDX_RESIZE_PIECE)
		length = VHDX_RESIZE_PIECE;
	resize->iov = (struct iovec){ .iov_base = resize->buffer, .iov_len = length };
	resize->read = (struct disk_request){
		.op = DISK_READ,
		.offset_bytes = resize->at,
		.length_bytes = length,
		.iov = &resize->iov,
		.iov_count = 1,
		.done = resize_read,
		.context = resize,
	};
	resize->step = step_tail_look;
	resize->arrived = false;
	vhdx_start(resize->vhdx, &resize->read);
	return resize->arrived ? VHDX_GO : VHDX_WAIT;
}

static enum vhdx_step_result step_tail_entries(struct vhdx_resize *resize)
{
	struct vhdx *vhdx = resize->vhdx;
	uint64_t looked = 0;

	for (; resize->at < resize->old_shape.block_count; resize->at++) {
		uint64_t index = vhdx_bat_index(vhdx, resize->at);
		int code;

		if (looked++ == VHDX_RESIZE_PER_TURN)
			return vhdx_resize_turn(resize);
		code = vhdx_resize_page(resize, index);
		if (code < 0)
			return vhdx_resize_after(resize, code, NULL);
		if (vhdx_state_has_space(vhdx_bat_get(vhdx, resize->page, index)))
			return in_use(resize, resize->at * vhdx->block_bytes);
	}
	resize->at = resize->new_bytes;
	resize->step = step_tail_read;
	return VHDX_GO;
}

/* --- the beginning --- */

static enum vhdx_step_result step_begin(struct vhdx_resize *resize)
{
	struct vhdx *vhdx = resize->vhdx;
	const struct image *parent = vhdx->image.parent;
	int code;

	resize->held = true;
	resize->old_bytes = vhdx->meta.disk_bytes;
	resize->bat = vhdx->regions.bat;
	resize->old_shape = vhdx_bat_shape(resize->old_bytes, vhdx->block_bytes,
					   vhdx->meta.logical_sector_bytes, vhdx->meta.has_parent);
	resize->filled = resize->old_shape.block_count;
	if (vhdx->image.failed)
		return fail(resize, -EIO);
	if (resize->new_bytes == resize->old_bytes)
		return VHDX_END;
	if (vhdx->meta.has_parent && parent == NULL)
		return fail(resize, -ENODEV);
	/* The parent's content would come back, or come to light, beyond the child's end. */
	if (vhdx->meta.has_parent && shrinks(resize) &&
	    parent->geometry.size_bytes > resize->new_bytes)
		return in_use(resize, resize->new_bytes);
	if (vhdx->meta.has_parent && !shrinks(resize) &&
	    parent->geometry.size_bytes > resize->old_bytes)
		return fail(resize, -EOPNOTSUPP);
	code = vhdx_touch(vhdx, true, &resize->waiter);
	if (code < 0)
		return vhdx_resize_after(resize, code, NULL);
	vhdx->blocks->touched = true;
	resize->at = resize->new_shape.block_count;
	resize->step = shrinks(resize) ? step_tail_entries : vhdx_resize_grow_bat;
	return VHDX_GO;
}

void vhdx_resize(struct vhdx *vhdx, struct disk_request *request)
{
	uint64_t size = request->offset_bytes;
	struct vhdx_resize *resize;

	if (!vhdx->image.active) {
		image_done(request, -EROFS);
		return;
	}
	if (size == 0 || size > VHDX_DISK_BYTES_MAX ||
	    size % vhdx->meta.logical_sector_bytes != 0) {
		image_done(request, -EINVAL);
		return;
	}
	resize = calloc(1, sizeof(*resize));
	if (resize != NULL)
		resize->buffer = aligned_alloc(VHDX_PAGE_BYTES, VHDX_RESIZE_PIECE);
	if (resize == NULL || resize->buffer == NULL) {
		free(resize);
		image_done(request, -ENOMEM);
		return;
	}
	resize->vhdx = vhdx;
	resize->request = request;
	resize->new_bytes = size;
	resize->new_shape = vhdx_bat_shape(size, vhdx->block_bytes, vhdx->meta.logical_sector_bytes,
					   vhdx->meta.has_parent);
	resize->waiter.run = resize_waited;
	resize->waiter.context = resize;
	resize->step = step_begin;
	vhdx_hold(vhdx, &resize->waiter);
}
