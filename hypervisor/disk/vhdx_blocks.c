/* SPDX-License-Identifier: Apache-2.0 */
/*
 * BAT entries and block locks; contract in vhdx_priv.h.
 *
 * Locks are in a table of buckets by block, in the order they came.  Nothing is allocated: a
 * lock is embedded in whoever wants it.  While nobody in a bucket is or wants to be exclusive,
 * taking and giving a shared lock does not look at the others at all.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/log.h"
#include "hypervisor/disk/vhdx_io_priv.h"

static void tell_ready(struct base_io_task *task);

int vhdx_blocks_new(struct vhdx *vhdx, struct base_error *err)
{
	struct vhdx_blocks *blocks = calloc(1, sizeof(*blocks));

	if (blocks == NULL)
		return base_fail(err, -ENOMEM, "block table, %zu bytes", sizeof(*blocks));
	blocks->vhdx = vhdx;
	blocks->block_shift = (uint32_t)__builtin_ctz(vhdx->block_bytes);
	blocks->ready_task.run = tell_ready;
	vhdx->blocks = blocks;
	return 0;
}

void vhdx_blocks_free(struct vhdx *vhdx)
{
	struct vhdx_blocks *blocks = vhdx->blocks;

	if (blocks == NULL)
		return;
	base_assert(blocks->in_flight == 0 && !blocks->held && blocks->queue_head == NULL);
	while (blocks->free_pieces != NULL) {
		struct vhdx_piece *piece = blocks->free_pieces;

		blocks->free_pieces = piece->next;
		free(piece);
	}
	free(blocks);
	vhdx->blocks = NULL;
}

/* --- BAT entries --- */

int vhdx_bat_page(struct vhdx *vhdx, uint64_t bat_index, struct vhdx_waiter *waiter,
		  struct vhdx_page **ret_page)
{
	uint64_t offset = bat_index * sizeof(uint64_t);

	base_assert(bat_index < vhdx->bat_entry_count);
	return vhdx_page_get(
		vhdx, vhdx->regions.bat.offset_bytes + (offset & ~(uint64_t)(VHDX_PAGE_BYTES - 1)),
		waiter, ret_page);
}

static uint8_t *entry_at(const struct vhdx_page *page, uint64_t bat_index)
{
	return page->data + (bat_index * sizeof(uint64_t)) % VHDX_PAGE_BYTES;
}

uint64_t vhdx_bat_get(const struct vhdx *vhdx, const struct vhdx_page *page, uint64_t bat_index)
{
	const uint8_t *at = entry_at(page, bat_index);
	uint64_t entry = 0;

	(void)vhdx;
	for (unsigned int i = 0; i < sizeof(entry); i++)
		entry |= (uint64_t)at[i] << (8 * i);
	return entry;
}

void vhdx_bat_set(struct vhdx *vhdx, struct vhdx_page *page, uint64_t bat_index, uint64_t entry,
		  bool ordered)
{
	uint8_t *at = entry_at(page, bat_index);

	(void)vhdx;
	for (unsigned int i = 0; i < sizeof(entry); i++)
		at[i] = (uint8_t)(entry >> (8 * i));
	vhdx_page_dirty(page, ordered);
}

static bool overlaps(uint64_t a, uint64_t a_bytes, uint64_t b, uint64_t b_bytes)
{
	return a < b ? b - a < a_bytes : a - b < b_bytes;
}

bool vhdx_range_is_payload(const struct vhdx *vhdx, uint64_t offset_bytes, uint64_t length_bytes)
{
	const struct vhdx_regions *regions = &vhdx->regions;

	if (offset_bytes < VHDX_MIB || offset_bytes > vhdx->file_bytes ||
	    length_bytes > vhdx->file_bytes - offset_bytes)
		return false;
	if (overlaps(offset_bytes, length_bytes, vhdx->header.log_offset, vhdx->header.log_bytes) ||
	    overlaps(offset_bytes, length_bytes, regions->bat.offset_bytes,
		     regions->bat.length_bytes) ||
	    overlaps(offset_bytes, length_bytes, regions->metadata.offset_bytes,
		     regions->metadata.length_bytes))
		return false;
	for (uint32_t i = 0; i < regions->other_count; i++) {
		if (overlaps(offset_bytes, length_bytes, regions->other[i].offset_bytes,
			     regions->other[i].length_bytes))
			return false;
	}
	return true;
}

/* Where the block's entry is in the file. */
static uint64_t entry_place(const struct vhdx *vhdx, uint64_t block)
{
	return vhdx->regions.bat.offset_bytes +
	       (block + block / vhdx->chunk_ratio) * sizeof(uint64_t);
}

static int bad_entry(struct vhdx *vhdx, uint64_t block, uint64_t entry, const char *why)
{
	if (vhdx->image.damage[0] == '\0')
		(void)snprintf(vhdx->image.damage, sizeof(vhdx->image.damage),
			       "BAT entry of block %llu at 0x%llx: 0x%016llx: %.100s",
			       (unsigned long long)block,
			       (unsigned long long)entry_place(vhdx, block),
			       (unsigned long long)entry, why);
	if (!vhdx->blocks->told_damage) {
		vhdx->blocks->told_damage = true;
		base_log(BASE_LOG_DEBUG, "disk.bat.damaged",
			 "file=%s block=%llu entry=0x%llx why=%s",
			 base_log_str(store_name(vhdx->image.file)), (unsigned long long)block,
			 (unsigned long long)entry, base_log_str(why));
	}
	return -EBADMSG;
}

int vhdx_bat_entry_check(struct vhdx *vhdx, uint64_t block, uint64_t entry)
{
	uint64_t start = block << vhdx->blocks->block_shift;
	uint64_t visible = vhdx->meta.disk_bytes - start;
	struct base_error err = { 0 };

	/* The usual case first: a whole block somewhere in the file. */
	if (vhdx_entry_state(entry) == VHDX_BLOCK_NOT_PRESENT && entry == 0)
		return 0;
	if (vhdx_payload_entry_decode(entry, vhdx->meta.has_parent, &err) < 0)
		return bad_entry(vhdx, block, entry, err.text);
	if (!vhdx_state_has_space(entry))
		return 0;
	/* The last block may be cut where the disk ends: nobody looks at the rest. */
	if (visible > vhdx->block_bytes)
		visible = vhdx->block_bytes;
	if (!vhdx_range_is_payload(vhdx, vhdx_entry_offset(entry), visible))
		return bad_entry(vhdx, block, entry, "outside the file or over a structure");
	return 0;
}

/* --- block locks --- */

static struct vhdx_lock_bucket *bucket_of(struct vhdx_blocks *blocks, uint64_t block)
{
	return &blocks->buckets[(block * 0x9E3779B97F4A7C15ULL) >> 56];
}

/* Nobody who came before @lock forbids it. */
static bool may_hold(const struct vhdx_block_lock *lock)
{
	for (const struct vhdx_block_lock *at = lock->previous; at != NULL; at = at->previous) {
		if (at->block == lock->block && (at->exclusive || lock->exclusive))
			return false;
	}
	return true;
}

void vhdx_block_lock(struct vhdx *vhdx, struct vhdx_block_lock *lock)
{
	struct vhdx_lock_bucket *bucket = bucket_of(vhdx->blocks, lock->block);

	lock->next = NULL;
	lock->ready = NULL;
	lock->previous = bucket->tail;
	if (bucket->tail != NULL)
		bucket->tail->next = lock;
	else
		bucket->head = lock;
	bucket->tail = lock;

	lock->held = (bucket->exclusive == 0 && !lock->exclusive) || may_hold(lock);
	if (lock->exclusive)
		bucket->exclusive++;
	if (lock->held)
		lock->granted(lock);
	else
		bucket->waiting++;
}

static void tell_ready(struct base_io_task *task)
{
	struct vhdx_blocks *blocks =
		(struct vhdx_blocks *)((char *)task - offsetof(struct vhdx_blocks, ready_task));

	blocks->ready_posted = false;
	while (blocks->ready_head != NULL) {
		struct vhdx_block_lock *lock = blocks->ready_head;

		blocks->ready_head = lock->ready;
		if (blocks->ready_head == NULL)
			blocks->ready_tail = NULL;
		lock->ready = NULL;
		lock->granted(lock);
	}
}

/* Something in @bucket was given up: who waits for @block and may hold it now? */
static void grant_waiting(struct vhdx_blocks *blocks, struct vhdx_lock_bucket *bucket,
			  uint64_t block)
{
	for (struct vhdx_block_lock *lock = bucket->head; lock != NULL; lock = lock->next) {
		if (lock->block != block || lock->held)
			continue;
		if (!may_hold(lock))
			break; /* first come, first served: nobody behind it either */
		lock->held = true;
		bucket->waiting--;
		if (blocks->ready_tail != NULL)
			blocks->ready_tail->ready = lock;
		else
			blocks->ready_head = lock;
		blocks->ready_tail = lock;
	}
	if (blocks->ready_head != NULL && !blocks->ready_posted) {
		blocks->ready_posted = true;
		base_io_post(blocks->vhdx->image.loop, &blocks->ready_task);
	}
}

void vhdx_block_unlock(struct vhdx *vhdx, struct vhdx_block_lock *lock)
{
	struct vhdx_lock_bucket *bucket = bucket_of(vhdx->blocks, lock->block);

	base_assert(lock->held);
	if (lock->previous != NULL)
		lock->previous->next = lock->next;
	else
		bucket->head = lock->next;
	if (lock->next != NULL)
		lock->next->previous = lock->previous;
	else
		bucket->tail = lock->previous;
	if (lock->exclusive)
		bucket->exclusive--;
	lock->held = false;
	if (bucket->waiting != 0)
		grant_waiting(vhdx->blocks, bucket, lock->block);
}

void vhdx_block_downgrade(struct vhdx *vhdx, struct vhdx_block_lock *lock)
{
	struct vhdx_lock_bucket *bucket = bucket_of(vhdx->blocks, lock->block);

	base_assert(lock->held && lock->exclusive);
	lock->exclusive = false;
	bucket->exclusive--;
	if (bucket->waiting != 0)
		grant_waiting(vhdx->blocks, bucket, lock->block);
}
