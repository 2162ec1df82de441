/* SPDX-License-Identifier: Apache-2.0 */
/* Power failures under VHD disks. */
#include "tests/support/disk_crash.h"

#define KIB   1024ULL
#define MIB   (1024ULL * 1024ULL)
#define PAGE  4096ULL
#define BLOCK (512 * KIB)

static bool one_in(struct crash *crash, uint64_t chances)
{
	return crash_random(crash, chances) == 0;
}

static uint64_t place(struct crash *crash, uint64_t blocks)
{
	static const uint64_t places[4] = { 0, 12 * PAGE, 64 * PAGE + 512, BLOCK - PAGE };

	return crash_random(crash, blocks) * BLOCK + places[crash_random(crash, 4)];
}

/* One of everything that changes content. */
static void change(struct crash *crash, uint64_t blocks)
{
	uint32_t flags = one_in(crash, 8) ? DISK_FUA : 0;

	switch (crash_random(crash, 12)) {
	case 0:
		crash_unmap(crash, crash_random(crash, blocks) * BLOCK, BLOCK, flags);
		break;
	case 1:
		crash_zero(crash, crash_random(crash, blocks) * BLOCK, BLOCK,
			   flags | DISK_MAY_UNMAP);
		break;
	case 2:
		crash_zero(crash, place(crash, blocks), PAGE + 512, flags);
		break;
	case 3:
	case 4:
		crash_flush(crash);
		break;
	case 5:
		crash_tick(crash, one_in(crash, 3) ? 1100 : 10);
		break;
	default:
		crash_write(crash, place(crash, blocks), 512 * (1 + crash_random(crash, 12)),
			    flags);
	}
}

static void run_mixed(struct crash *crash)
{
	crash_make(crash, "disk", NULL);
	crash_record(crash);
	for (uint32_t i = 0; i < 200; i++)
		change(crash, 12);
	crash_verify(crash);
	crash_reopen(crash);
	crash_verify(crash);
	for (uint32_t i = 0; i < 50; i++)
		change(crash, 16);
}

static void run_allocate(struct crash *crash)
{
	crash_make(crash, "disk", NULL);
	crash_record(crash);
	for (uint32_t i = 0; i < 150; i++) {
		crash_write(crash, place(crash, 60), PAGE, 0);
		if (one_in(crash, 7))
			crash_flush(crash);
	}
	crash_flush(crash);
}

static void run_child(struct crash *crash)
{
	crash_make(crash, "parent", NULL);
	for (uint32_t i = 0; i < 6; i++)
		crash_write(crash, i * 2 * BLOCK, 16 * PAGE, 0);
	crash_make(crash, "disk", "parent");
	crash_record(crash);
	for (uint32_t i = 0; i < 160; i++)
		change(crash, 12);
	crash_verify(crash);
	crash_reopen(crash);
	crash_verify(crash);
}

static void run_resize(struct crash *crash)
{
	crash_make(crash, "disk", NULL);
	crash_record(crash);
	for (uint32_t i = 0; i < 8; i++) {
		for (uint32_t k = 0; k < 10; k++)
			change(crash, crash_size(crash) / BLOCK);
		crash_resize(crash, crash_size(crash) + (1 + i % 3) * BLOCK);
		if (one_in(crash, 3))
			crash_flush(crash);
	}
}

#define SIZED(of_kind, bytes)                                                                      \
	{                                                                                          \
		.format = DISK_VHD, .kind = (of_kind), .size_bytes = (bytes),                      \
		.block_bytes = (of_kind) == DISK_FIXED ? 0 : BLOCK                                 \
	}
#define MIXED_UP(number)                                                                           \
	{                                                                                          \
		.seed = (number), .reorder = true, .delay_steps = (number) % 5                     \
	}

static const struct crash_case cases[] = {
	{ .name = "vhd-allocate",
	  .run = run_allocate,
	  .create = SIZED(DISK_DYNAMIC, 32 * MIB),
	  .plan = MIXED_UP(31) },
	{ .name = "vhd-mixed",
	  .run = run_mixed,
	  .create = SIZED(DISK_DYNAMIC, 16 * MIB),
	  .plan = MIXED_UP(32) },
	{ .name = "vhd-write-through",
	  .run = run_mixed,
	  .create = SIZED(DISK_DYNAMIC, 16 * MIB),
	  .plan = MIXED_UP(33),
	  .write_through = true },
	{ .name = "vhd-fixed",
	  .run = run_mixed,
	  .create = SIZED(DISK_FIXED, 16 * MIB),
	  .plan = MIXED_UP(34) },
	{ .name = "vhd-child",
	  .run = run_child,
	  .create = SIZED(DISK_DYNAMIC, 16 * MIB),
	  .plan = MIXED_UP(35),
	  .share = 3 },
	{ .name = "vhd-resize",
	  .run = run_resize,
	  .create = SIZED(DISK_DYNAMIC, 8 * MIB),
	  .plan = MIXED_UP(36) },
	{ .name = "vhd-resize-fixed",
	  .run = run_resize,
	  .create = SIZED(DISK_FIXED, 8 * MIB),
	  .plan = MIXED_UP(37) },
};

int main(int argc, char **argv)
{
	return crash_main(argc, argv, cases, sizeof(cases) / sizeof(cases[0]), 10000);
}
