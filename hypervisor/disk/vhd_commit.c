/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Making new blocks and changed bitmaps durable, many at a time, in an order that any power
 * failure leaves whole.  Loop thread.
 *
 *   1  bitmaps of new blocks: nothing names them yet
 *   2  flush: data, those bitmaps and the size of the file are durable
 *   3  sectors of the block table that name them, and bitmaps that the table names already
 *   4  flush
 *
 * What is written in 3 was copied before 2 began, so it never tells of data that 2 may have
 * missed.  Each sector of 3 is valid with or without the others.
 *
 * Every commit flushes at least once, also one that cannot even begin: so none is over before the
 * call that began it returns, and who begins the next from the end of one does not pile up on the
 * stack.
 */
#include "hypervisor/disk/vhd_priv.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "hypervisor/disk/flat_io.h"

enum phase {
	PHASE_IDLE,
	PHASE_NEW_BITMAPS,
	PHASE_DATA_FLUSH,
	PHASE_TABLES,
	PHASE_LAST_FLUSH,
};

/* One sector of the block table on its way to the file. */
struct vhd_commit_write {
	struct store_request request;
	struct iovec iov;
	uint32_t sector; /* of the table */
	struct vhd_commit_write *next;
};

static void commit_go_on(struct vhd *vhd);

static void table_free(struct vhd_commit *commit)
{
	while (commit->table != NULL) {
		struct vhd_commit_write *write = commit->table;

		commit->table = write->next;
		free(write->iov.iov_base);
		free(write);
	}
}

/* Blocks of a failed commit are dirty as before; the timer or the next flush tries again. */
static void blocks_end(struct vhd *vhd, int result)
{
	while (vhd->commit.blocks != NULL) {
		struct vhd_block *block = vhd->commit.blocks;

		vhd->commit.blocks = block->commit_next;
		free(block->snapshot);
		block->snapshot = NULL;
		block->committing = false;
		if (result == 0) {
			block->fresh = false;
		} else if (!block->dirty) {
			block->dirty = true;
			block->dirty_next = vhd->dirty;
			vhd->dirty = block;
			vhd->dirty_count++;
		}
		vhd_block_put(block); /* the commit's pin */
	}
	if (vhd->dirty != NULL)
		vhd_commit_later(vhd);
}

static int blocks_take(struct vhd *vhd)
{
	int code = 0;

	while (vhd->dirty != NULL) {
		struct vhd_block *block = vhd->dirty;

		vhd->dirty = block->dirty_next;
		vhd->dirty_count--;
		block->pins++; /* was dirty, so it is on no list of unused ones */
		block->dirty = false;
		block->committing = true;
		block->commit_next = vhd->commit.blocks;
		vhd->commit.blocks = block;
		if (vhd_is_full(vhd, block->index) || code < 0)
			continue;
		block->snapshot = vhd_buffer_new(vhd->bitmap_bytes);
		if (block->snapshot == NULL)
			code = -ENOMEM;
		else
			memcpy(block->snapshot, block->bits, vhd->bitmap_bytes);
	}
	return code;
}

/* Everything but the first phase. */
static void commit_take(struct vhd *vhd)
{
	struct vhd_commit *commit = &vhd->commit;

	base_io_timer_disarm(vhd->image.loop, &commit->timer);
	commit->running = true;
	commit->wanted = false;
	commit->now = commit->next;
	commit->next = (struct vhd_parts){ 0 };
	commit->result = blocks_take(vhd);
	/* With nothing dirty it is one flush. */
	commit->phase = commit->blocks == NULL ? PHASE_TABLES : PHASE_IDLE;
	if (commit->result < 0)
		commit->phase = PHASE_NEW_BITMAPS; /* the flush tells */
}

/* True: the next one is taken. */
static bool commit_end(struct vhd *vhd, int result)
{
	struct vhd_commit *commit = &vhd->commit;
	struct image_part *part = vhd_parts_take(&commit->now);

	table_free(commit);
	blocks_end(vhd, result);
	commit->phase = PHASE_IDLE;
	commit->running = false;
	while (part != NULL) {
		struct image_part *next = part->next;

		image_part_end(part, result);
		part = next;
	}
	vhd_parts_run(&vhd->crowd, result);
	if (commit->running) /* one of them began the next */
		return false;
	if (commit->idle != NULL) {
		void (*idle)(struct vhd * vhd) = commit->idle;

		commit->idle = NULL;
		commit->running = true;
		idle(vhd);
	} else if (commit->wanted) {
		commit_take(vhd);
		return true;
	}
	return false;
}

/* True: that was the phase's last. */
static bool write_over(struct vhd *vhd, int result)
{
	struct vhd_commit *commit = &vhd->commit;

	if (commit->result == 0)
		commit->result = result;
	return --commit->writes == 0;
}

static void write_ended(struct vhd *vhd, int result)
{
	if (write_over(vhd, result))
		commit_go_on(vhd);
}

static void bitmap_written(struct store_request *request, int result)
{
	struct vhd_block *block = request->context;

	write_ended(block->vhd, result);
}

static void table_written(struct store_request *request, int result)
{
	write_ended(request->context, result);
}

static void write_submit(struct vhd *vhd, struct store_request *request, struct iovec *iov,
			 uint64_t offset_bytes,
			 void (*done)(struct store_request *request, int result), void *context)
{
	*request = (struct store_request){ .op = STORE_WRITE,
					   .epoch = store_epoch(vhd->image.file),
					   .offset_bytes = offset_bytes,
					   .length_bytes = iov->iov_len,
					   .iov = iov,
					   .iov_count = 1,
					   .done = done,
					   .context = context };
	vhd->commit.writes++;
	store_submit(vhd->image.file, request);
}

static void bitmaps_write(struct vhd *vhd, bool fresh)
{
	for (struct vhd_block *block = vhd->commit.blocks; block != NULL;
	     block = block->commit_next) {
		if (block->fresh != fresh)
			continue;
		block->iov = (struct iovec){ block->snapshot != NULL ? block->snapshot : vhd->ones,
					     vhd->bitmap_bytes };
		write_submit(vhd, &block->request, &block->iov, vhd_block_offset(vhd, block->index),
			     bitmap_written, block);
	}
}

/* What the table says on disk once this commit is over: blocks that were made since it began
 * are not named yet. */
static void table_sector_fill(const struct vhd_commit_write *write, struct vhd *vhd)
{
	for (uint32_t i = 0; i < VHD_BAT_PER_SECTOR; i++) {
		uint32_t index = write->sector * VHD_BAT_PER_SECTOR + i;
		const struct vhd_block *block;
		uint32_t value = VHD_BLOCK_ABSENT;

		if (index < vhd->header.entries)
			value = vhd->bat[index];
		if (value != VHD_BLOCK_ABSENT && vhd->dirty != NULL) {
			block = vhd_block_find(vhd, index);
			if (block != NULL && block->fresh && !block->committing)
				value = VHD_BLOCK_ABSENT;
		}
		vhd_bat_put(write->iov.iov_base, i, value);
	}
}

static int table_sector_add(struct vhd *vhd, uint32_t sector)
{
	struct vhd_commit_write *write;

	for (write = vhd->commit.table; write != NULL; write = write->next)
		if (write->sector == sector)
			return 0;
	write = calloc(1, sizeof(*write));
	if (write == NULL)
		return -ENOMEM;
	write->sector = sector;
	write->next = vhd->commit.table;
	vhd->commit.table = write; /* freed with the list, half-made too */
	write->iov.iov_base = vhd_buffer_new(VHD_SECTOR_BYTES);
	write->iov.iov_len = VHD_SECTOR_BYTES;
	if (write->iov.iov_base == NULL)
		return -ENOMEM;
	return 0;
}

static void tables_write(struct vhd *vhd)
{
	int code = 0;

	for (struct vhd_block *block = vhd->commit.blocks; block != NULL && code == 0;
	     block = block->commit_next)
		if (block->fresh)
			code = table_sector_add(vhd, block->index / VHD_BAT_PER_SECTOR);
	if (code < 0) {
		vhd->commit.result = code;
		return;
	}
	for (struct vhd_commit_write *write = vhd->commit.table; write != NULL;
	     write = write->next) {
		table_sector_fill(write, vhd);
		write_submit(vhd, &write->request, &write->iov,
			     vhd->header.bat_offset + (uint64_t)write->sector * VHD_SECTOR_BYTES,
			     table_written, vhd);
	}
	bitmaps_write(vhd, false);
}

static void flush_ended(struct store_request *request, int result)
{
	struct vhd *vhd = request->context;
	int code = flat_flushed(&vhd->image, result);

	if (vhd->commit.result == 0)
		vhd->commit.result = code;
	commit_go_on(vhd);
}

static void flush_submit(struct vhd *vhd)
{
	struct store_request *flush = &vhd->commit.flush;

	*flush = (struct store_request){ .op = STORE_FLUSH,
					 .epoch = store_epoch(vhd->image.file),
					 .done = flush_ended,
					 .context = vhd };
	store_submit(vhd->image.file, flush);
}

/* The next phase.  True: there was nothing to wait for. */
static bool commit_step(struct vhd *vhd)
{
	struct vhd_commit *commit = &vhd->commit;

	commit->phase++;
#ifdef GODWIT_MUTANT_VHD_FLUSH
	if (commit->phase == PHASE_DATA_FLUSH)
		commit->phase = PHASE_TABLES;
#endif
	switch ((enum phase)commit->phase) {
	case PHASE_NEW_BITMAPS:
		commit->writes = 1;
		bitmaps_write(vhd, true);
		return write_over(vhd, 0);
	case PHASE_TABLES:
		commit->writes = 1;
		tables_write(vhd);
		return write_over(vhd, 0);
	case PHASE_DATA_FLUSH:
	case PHASE_LAST_FLUSH:
		flush_submit(vhd);
		break;
	case PHASE_IDLE:
		base_bug("a commit that is idle goes on");
	}
	return false;
}

/* The phase before is over. */
static void commit_go_on(struct vhd *vhd)
{
	const struct vhd_commit *commit = &vhd->commit;

	do {
		bool over = commit->result < 0 || commit->phase == PHASE_LAST_FLUSH;

		if (over && !commit_end(vhd, commit->result))
			return;
	} while (commit_step(vhd));
}

static void commit_begin(struct vhd *vhd)
{
	commit_take(vhd);
	if (commit_step(vhd))
		commit_go_on(vhd);
}

void vhd_commit_join(struct vhd *vhd, struct image_part *part)
{
	struct vhd_commit *commit = &vhd->commit;

	if (vhd->image.failed) {
		if (part != NULL)
			image_part_end(part, -EIO);
		return;
	}
	if (part != NULL)
		vhd_parts_add(&commit->next, part);
	commit->wanted = true;
	if (!commit->running)
		commit_begin(vhd);
}

static void timer_expired(struct base_io_timer *timer)
{
	struct vhd_commit *commit =
		(struct vhd_commit *)((char *)timer - offsetof(struct vhd_commit, timer));
	struct vhd *vhd = (struct vhd *)((char *)commit - offsetof(struct vhd, commit));

	vhd_commit_join(vhd, NULL);
}

void vhd_commit_later(struct vhd *vhd)
{
	struct base_io_loop *loop = vhd->image.loop;

	if (!vhd->commit.timer.armed && !vhd->image.failed)
		base_io_timer_arm(loop, &vhd->commit.timer,
				  base_io_loop_now_ns(loop) + VHD_COMMIT_NS);
}

void vhd_commit_exclude(struct vhd *vhd, void (*idle)(struct vhd *vhd))
{
	if (vhd->commit.running) {
		vhd->commit.idle = idle;
		return;
	}
	vhd->commit.running = true;
	idle(vhd);
}

void vhd_commit_release(struct vhd *vhd)
{
	vhd->commit.running = false;
	if (vhd->commit.wanted)
		commit_begin(vhd);
}

void vhd_commit_init(struct vhd *vhd)
{
	vhd->commit = (struct vhd_commit){ .timer = { .expired = timer_expired } };
}

void vhd_commit_stop(struct vhd *vhd)
{
	base_io_timer_disarm(vhd->image.loop, &vhd->commit.timer);
}
