/* SPDX-License-Identifier: Apache-2.0 */
/* Power failures under VHDX disks, each case with one thing that the format has to get right. */
#include <errno.h>

#include "tests/support/disk_crash.h"

#define KIB   1024ULL
#define MIB   (1024ULL * 1024ULL)
#define GIB   (1024ULL * MIB)
#define PAGE  4096ULL
#define BLOCK MIB /* of most cases: small blocks make many of them */

/* A page inside a block that is one of the first @blocks; only a few places of each block are ever
 * used, so that reading all that was written stays cheap. */
static uint64_t place(struct crash *crash, uint64_t blocks)
{
	static const uint64_t places[4] = { 0, 12 * PAGE, 128 * PAGE, BLOCK - PAGE };

	return crash_random(crash, blocks) * BLOCK + places[crash_random(crash, 4)];
}

static bool one_in(struct crash *crash, uint64_t chances)
{
	return crash_random(crash, chances) == 0;
}

/* Each write takes a new block, now and then a flush. */
static void run_allocate(struct crash *crash)
{
	crash_make(crash, "disk", NULL);
	crash_record(crash);
	for (uint32_t i = 0; i < 160; i++) {
		crash_write(crash, place(crash, 60), PAGE, 0);
		if (one_in(crash, 8))
			crash_flush(crash);
	}
	crash_flush(crash);
}

/* A flush after each. */
static void run_allocate_flushed(struct crash *crash)
{
	crash_make(crash, "disk", NULL);
	crash_record(crash);
	for (uint32_t i = 0; i < 60; i++) {
		crash_write(crash, place(crash, 60), PAGE, 0);
		crash_wait(crash);
		crash_flush(crash);
		crash_wait(crash);
	}
}

/* No flush at all: only the commit timer makes anything durable. */
static void run_timer(struct crash *crash)
{
	crash_make(crash, "disk", NULL);
	crash_record(crash);
	for (uint32_t i = 0; i < 100; i++) {
		crash_write(crash, place(crash, 60), PAGE, 0);
		if (one_in(crash, 10))
			crash_tick(crash, 1100);
	}
	crash_tick(crash, 1100);
}

/* Whole and half sectors of blocks that are there, over block borders, too. */
static void run_overwrite(struct crash *crash)
{
	crash_make(crash, "disk", NULL);
	for (uint32_t i = 0; i < 8; i++)
		crash_write(crash, i * BLOCK, 16 * KIB, 0);
	crash_record(crash);
	for (uint32_t i = 0; i < 200; i++) {
		uint64_t length_bytes = 512 * (1 + crash_random(crash, 24));
		uint64_t offset_bytes =
			crash_random(crash, 8) * BLOCK + 512 * crash_random(crash, 9);

		if (one_in(crash, 6))
			offset_bytes = (1 + crash_random(crash, 7)) * BLOCK - PAGE;
		crash_write(crash, offset_bytes, length_bytes, one_in(crash, 10) ? DISK_FUA : 0);
		if (one_in(crash, 15))
			crash_flush(crash);
	}
}

/* Writes, most of them FUA, into new blocks and old ones. */
static void run_fua(struct crash *crash)
{
	crash_make(crash, "disk", NULL);
	crash_record(crash);
	for (uint32_t i = 0; i < 120; i++) {
		crash_write(crash, place(crash, 40), PAGE, one_in(crash, 3) ? 0 : DISK_FUA);
		if (one_in(crash, 30))
			crash_flush(crash);
	}
}

/* One of everything that changes content. */
static void change(struct crash *crash, uint64_t blocks)
{
	uint32_t flags = one_in(crash, 8) ? DISK_FUA : 0;
	uint64_t block_bytes = crash_random(crash, blocks) * BLOCK;

	switch (crash_random(crash, 12)) {
	case 0:
	case 1:
		crash_unmap(crash, block_bytes, BLOCK, flags);
		break;
	case 2:
		crash_unmap(crash, place(crash, blocks), 16 * PAGE, flags);
		break;
	case 3:
		crash_zero(crash, block_bytes, BLOCK, flags | DISK_MAY_UNMAP);
		break;
	case 4:
		crash_zero(crash, place(crash, blocks), PAGE + 512, flags);
		break;
	case 5:
		crash_flush(crash);
		break;
	case 6:
		crash_tick(crash, one_in(crash, 3) ? 1100 : 10);
		break;
	default:
		crash_write(crash, place(crash, blocks), PAGE, flags);
	}
}

/* Unmap and zero of blocks, whose space is taken again at once. */
static void run_unmap(struct crash *crash)
{
	crash_make(crash, "disk", NULL);
	for (uint32_t i = 0; i < 10; i++)
		crash_write(crash, i * BLOCK, 4 * PAGE, 0);
	crash_record(crash);
	for (uint32_t i = 0; i < 260; i++)
		change(crash, 10);
	crash_verify(crash);
}

/* Close and open between: what was freed is known again, the log begins anew. */
static void run_reopen(struct crash *crash)
{
	crash_make(crash, "disk", NULL);
	crash_record(crash);
	for (uint32_t round = 0; round < 5; round++) {
		for (uint32_t i = 0; i < 40; i++)
			change(crash, 8);
		crash_reopen(crash);
		crash_verify(crash);
	}
}

/* Space is used over and over: one block is freed, another takes its place, without a flush. */
static void run_reuse(struct crash *crash)
{
	crash_make(crash, "disk", NULL);
	for (uint32_t i = 0; i < 4; i++)
		crash_write(crash, i * BLOCK, BLOCK / 4, 0);
	crash_record(crash);
	for (uint32_t i = 0; i < 80; i++) {
		crash_unmap(crash, crash_random(crash, 4) * BLOCK, BLOCK, 0);
		if (one_in(crash, 2))
			crash_wait(crash);
		if (one_in(crash, 5))
			crash_flush(crash);
		if (one_in(crash, 5))
			crash_tick(crash, 1100);
		crash_write(crash, (4 + crash_random(crash, 12)) * BLOCK + 2 * PAGE, PAGE, 0);
		if (one_in(crash, 3))
			crash_write(crash, crash_random(crash, 4) * BLOCK, 2 * PAGE, 0);
		crash_unmap(crash, (4 + crash_random(crash, 12)) * BLOCK, BLOCK, 0);
	}
	crash_verify(crash);
}

/* More metadata than the log holds at once: its tail has to follow. */
static void run_log_wrap(struct crash *crash)
{
	crash_make(crash, "disk", NULL);
	crash_record(crash);
	for (uint32_t i = 0; i < 500; i++) {
		/* Far apart: each entry is in a page of the BAT of its own. */
		uint64_t offset_bytes = crash_random(crash, 220) * 512 * BLOCK;

		if (one_in(crash, 5))
			crash_unmap(crash, offset_bytes, BLOCK, 0);
		else
			crash_write(crash, offset_bytes, PAGE, 0);
		if (one_in(crash, 4))
			crash_flush(crash);
	}
}

/* A fixed disk has no log traffic but the first. */
static void run_fixed(struct crash *crash)
{
	crash_make(crash, "disk", NULL);
	crash_record(crash);
	for (uint32_t i = 0; i < 100; i++)
		change(crash, 6);
}

/* --- resize --- */

static void run_resize(struct crash *crash)
{
	crash_make(crash, "disk", NULL);
	crash_record(crash);
	for (uint32_t i = 0; i < 24; i++) {
		uint64_t blocks = crash_size(crash) / BLOCK;

		for (uint32_t k = 0; k < 6; k++)
			change(crash, blocks);
		if (i % 4 == 3) {
			/* The tail has to be free. */
			crash_unmap(crash, (blocks - 2) * BLOCK, 2 * BLOCK, 0);
			crash_resize(crash, (blocks - 2) * BLOCK);
		} else {
			crash_resize(crash, crash_size(crash) + (1 + i % 3) * BLOCK);
		}
		if (one_in(crash, 3))
			crash_flush(crash);
	}
}

/* The BAT outgrows its region and moves: 1 MiB holds the entries of almost 128 GiB. */
static void run_relocate(struct crash *crash)
{
	crash_make(crash, "disk", NULL);
	for (uint32_t i = 0; i < 20; i++)
		crash_write(crash, i * 5000 * BLOCK, PAGE, 0);
	crash_record(crash);
	for (uint32_t i = 0; i < 30; i++)
		change(crash, 8);
	crash_resize(crash, 140 * GIB);
	for (uint32_t i = 0; i < 30; i++) {
		change(crash, 8);
		crash_write(crash, (138 * 1024 + crash_random(crash, 6)) * BLOCK, PAGE, 0);
	}
	crash_flush(crash);
	crash_resize(crash, 150 * GIB);
	crash_verify(crash);
}

/* --- differencing --- */

static void run_child(struct crash *crash)
{
	crash_make(crash, "parent", NULL);
	for (uint32_t i = 0; i < 6; i++)
		crash_write(crash, i * 2 * BLOCK, 16 * PAGE, 0);
	crash_make(crash, "disk", "parent");
	crash_record(crash);
	for (uint32_t i = 0; i < 160; i++) {
		uint64_t offset_bytes = crash_random(crash, 12) * BLOCK;
		uint64_t sectors = crash_random(crash, 40);

		/* Some sectors of a block here, the others in the parent. */
		crash_write(crash, offset_bytes + sectors * 512, 512 * (1 + sectors % 7),
			    one_in(crash, 9) ? DISK_FUA : 0);
		if (one_in(crash, 9))
			crash_flush(crash);
		if (one_in(crash, 12))
			crash_unmap(crash, offset_bytes, BLOCK, 0);
		if (one_in(crash, 12))
			crash_zero(crash, offset_bytes + PAGE, 3 * PAGE, 0);
		if (one_in(crash, 40))
			crash_tick(crash, 1100);
	}
	crash_verify(crash);
	crash_reopen(crash);
	crash_verify(crash);
}

/* A whole block written in a child: it is there altogether, the bitmap goes. */
static void run_child_whole(struct crash *crash)
{
	crash_make(crash, "parent", NULL);
	for (uint32_t i = 0; i < 4; i++)
		crash_write(crash, i * BLOCK, 64 * KIB, 0);
	crash_make(crash, "disk", "parent");
	crash_record(crash);
	for (uint32_t i = 0; i < 16; i++) {
		uint64_t offset_bytes = crash_random(crash, 6) * BLOCK;

		crash_write(crash, offset_bytes + 8 * PAGE, PAGE, 0);
		if (one_in(crash, 3))
			crash_write(crash, offset_bytes, BLOCK, 0);
		if (one_in(crash, 4))
			crash_unmap(crash, offset_bytes, BLOCK, 0);
		if (one_in(crash, 2))
			crash_flush(crash);
	}
}

/* --- compaction --- */

static void compact_guest(struct crash *crash)
{
	if (one_in(crash, 2))
		(void)crash_try_write(crash, place(crash, 20), PAGE,
				      one_in(crash, 6) ? DISK_FUA : 0);
}

static void run_compact(struct crash *crash)
{
	crash_make(crash, "disk", NULL);
	for (uint32_t i = 0; i < 20; i++)
		crash_write(crash, i * BLOCK, 4 * PAGE, 0);
	crash_record(crash);
	for (uint32_t round = 0; round < 3; round++) {
		for (uint32_t i = 0; i < 10; i++)
			crash_unmap(crash, crash_random(crash, 20) * BLOCK, BLOCK, 0);
		crash_zero(crash, 0, BLOCK, 0);
		crash_compact(crash, compact_guest);
		for (uint32_t i = 0; i < 10; i++)
			change(crash, 20);
	}
	crash_verify(crash);
}

/* --- a store that fails --- */

/* What failed is there or not; what was acknowledged is there. */
static void run_failing(struct crash *crash)
{
	crash_make(crash, "disk", NULL);
	for (uint32_t i = 0; i < 4; i++)
		crash_write(crash, i * BLOCK, 4 * PAGE, 0);
	crash_record(crash);
	for (uint32_t i = 0; i < 120; i++)
		change(crash, 12);
}

#define DYNAMIC(bytes)                                                                             \
	{                                                                                          \
		.format = DISK_VHDX, .kind = DISK_DYNAMIC, .size_bytes = (bytes),                  \
		.block_bytes = BLOCK                                                               \
	}
#define MIXED_UP(number)                                                                           \
	{                                                                                          \
		.seed = (number), .reorder = true, .delay_steps = (number) % 5                     \
	}

static const struct crash_case cases[] = {
	{ .name = "vhdx-allocate",
	  .run = run_allocate,
	  .create = DYNAMIC(64 * MIB),
	  .plan = MIXED_UP(11),
	  .share = 2 },
	{ .name = "vhdx-allocate-flushed",
	  .run = run_allocate_flushed,
	  .create = DYNAMIC(64 * MIB),
	  .plan = MIXED_UP(12) },
	{ .name = "vhdx-timer",
	  .run = run_timer,
	  .create = DYNAMIC(64 * MIB),
	  .plan = MIXED_UP(13) },
	{ .name = "vhdx-overwrite",
	  .run = run_overwrite,
	  .create = DYNAMIC(64 * MIB),
	  .plan = MIXED_UP(14) },
	{ .name = "vhdx-fua", .run = run_fua, .create = DYNAMIC(64 * MIB), .plan = MIXED_UP(15) },
	{ .name = "vhdx-write-through",
	  .run = run_allocate,
	  .create = DYNAMIC(64 * MIB),
	  .plan = MIXED_UP(16),
	  .write_through = true },
	{ .name = "vhdx-unmap",
	  .run = run_unmap,
	  .create = DYNAMIC(64 * MIB),
	  .plan = MIXED_UP(17),
	  .share = 2 },
	{ .name = "vhdx-unmap-quiesced",
	  .run = run_unmap,
	  .create = DYNAMIC(64 * MIB),
	  .plan = { .seed = 18, .reorder = true, .quiesce_every = 13, .garbage_buffers = true } },
	{ .name = "vhdx-reopen",
	  .run = run_reopen,
	  .create = DYNAMIC(64 * MIB),
	  .plan = MIXED_UP(19) },
	{ .name = "vhdx-reuse",
	  .run = run_reuse,
	  .create = DYNAMIC(64 * MIB),
	  .plan = MIXED_UP(20),
	  .share = 2 },
	{ .name = "vhdx-log-wrap",
	  .run = run_log_wrap,
	  .create = DYNAMIC(120 * GIB),
	  .plan = MIXED_UP(21),
	  .share = 2 },
	{ .name = "vhdx-fixed",
	  .run = run_fixed,
	  .create = { .format = DISK_VHDX,
		      .kind = DISK_FIXED,
		      .size_bytes = 8 * MIB,
		      .block_bytes = BLOCK },
	  .plan = MIXED_UP(22) },
	{ .name = "vhdx-resize",
	  .run = run_resize,
	  .create = DYNAMIC(12 * MIB),
	  .plan = MIXED_UP(23),
	  .share = 2 },
	{ .name = "vhdx-relocate",
	  .run = run_relocate,
	  .create = DYNAMIC(120 * GIB),
	  .plan = MIXED_UP(24) },
	{ .name = "vhdx-child",
	  .run = run_child,
	  .create = DYNAMIC(16 * MIB),
	  .plan = MIXED_UP(25),
	  .share = 2 },
	{ .name = "vhdx-child-whole",
	  .run = run_child_whole,
	  .create = DYNAMIC(16 * MIB),
	  .plan = MIXED_UP(26) },
	{ .name = "vhdx-4k-sectors",
	  .run = run_allocate,
	  .create = { .format = DISK_VHDX,
		      .kind = DISK_DYNAMIC,
		      .size_bytes = 64 * MIB,
		      .block_bytes = 2 * BLOCK,
		      .logical_sector_bytes = 4096 },
	  .plan = MIXED_UP(32) },
	{ .name = "vhdx-compact",
	  .run = run_compact,
	  .create = DYNAMIC(64 * MIB),
	  .plan = MIXED_UP(27),
	  .share = 2 },
	{ .name = "vhdx-write-fails",
	  .run = run_failing,
	  .create = DYNAMIC(16 * MIB),
	  .plan = { .seed = 28,
		    .reorder = true,
		    .delay_steps = 2,
		    .fail_at = 20,
		    .fail_ops = 1U << STORE_WRITE } },
	{ .name = "vhdx-write-unknown",
	  .run = run_failing,
	  .create = DYNAMIC(16 * MIB),
	  .plan = { .seed = 29,
		    .reorder = true,
		    .fail_at = 20,
		    .fail_ops = 1U << STORE_WRITE,
		    .fail_code = -ETIMEDOUT,
		    .fail_does_it = true } },
	{ .name = "vhdx-flush-fails",
	  .run = run_failing,
	  .create = DYNAMIC(16 * MIB),
	  .plan = { .seed = 30, .reorder = true, .fail_at = 6, .fail_ops = 1U << STORE_FLUSH } },
	{ .name = "vhdx-full",
	  .run = run_failing,
	  .create = DYNAMIC(16 * MIB),
	  .plan = { .seed = 31, .reorder = true, .capacity_bytes = 3 * MIB } },
};

int main(int argc, char **argv)
{
	return crash_main(argc, argv, cases, sizeof(cases) / sizeof(cases[0]), 30000);
}
