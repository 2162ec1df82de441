/* SPDX-License-Identifier: Apache-2.0 */
/* Power failures while a disk gets a checkpoint, and while one is merged back under a guest that
 * goes on writing. */
#include "tests/support/disk_crash.h"

#define KIB    1024ULL
#define MIB    (1024ULL * 1024ULL)
#define PAGE   4096ULL
#define BLOCKS 12U

/* VHD blocks may be smaller; places are spread over MiB for both. */
static uint64_t place(struct crash *crash)
{
	return crash_random(crash, BLOCKS) * MIB + crash_random(crash, 20) * PAGE;
}

static bool one_in(struct crash *crash, uint64_t chances)
{
	return crash_random(crash, chances) == 0;
}

static void change(struct crash *crash)
{
	switch (crash_random(crash, 14)) {
	case 0:
		crash_unmap(crash, crash_random(crash, BLOCKS) * MIB, MIB, 0);
		break;
	case 1:
		crash_zero(crash, place(crash), PAGE + 512, DISK_MAY_UNMAP);
		break;
	case 2:
	case 3:
		crash_flush(crash);
		break;
	case 4:
		crash_tick(crash, 1100);
		break;
	default:
		crash_write(crash, place(crash), 512 * (1 + crash_random(crash, 10)),
			    one_in(crash, 8) ? DISK_FUA : 0);
	}
}

static void changes(struct crash *crash, uint32_t count)
{
	for (uint32_t i = 0; i < count; i++)
		change(crash);
}

/* What the guest does while a job runs. */
static void guest(struct crash *crash)
{
	if (one_in(crash, 2))
		(void)crash_try_write(crash, place(crash), PAGE, one_in(crash, 6) ? DISK_FUA : 0);
}

static void filled(struct crash *crash)
{
	crash_make(crash, "disk", NULL);
	for (uint32_t i = 0; i < BLOCKS; i += 2)
		crash_write(crash, i * MIB, 16 * PAGE, 0);
}

static void run_checkpoint(struct crash *crash)
{
	filled(crash);
	crash_record(crash);
	changes(crash, 30);
	crash_checkpoint(crash, "one"); /* with requests in flight */
	changes(crash, 40);
	crash_checkpoint(crash, "two");
	changes(crash, 40);
	crash_verify(crash);
}

/* The top goes back into the base, in one step. */
static void run_merge_top(struct crash *crash)
{
	filled(crash);
	crash_checkpoint(crash, "one");
	changes(crash, 40);
	crash_record(crash);
	changes(crash, 20);
	crash_merge(crash, 0, guest);
	changes(crash, 30);
	crash_verify(crash);
}

/* A layer in the middle. */
static void run_merge_middle(struct crash *crash)
{
	filled(crash);
	crash_checkpoint(crash, "one");
	changes(crash, 40);
	crash_checkpoint(crash, "two");
	changes(crash, 20);
	crash_record(crash);
	changes(crash, 10);
	crash_merge(crash, 1, guest);
	changes(crash, 20);
	crash_verify(crash);
	crash_reopen(crash);
	crash_verify(crash);
}

/* Checkpoint and merge again and again, as a backup does. */
static void run_both(struct crash *crash)
{
	filled(crash);
	crash_record(crash);
	changes(crash, 10);
	crash_checkpoint(crash, "one");
	changes(crash, 20);
	crash_merge(crash, 0, guest);
	changes(crash, 10);
	crash_checkpoint(crash, "two");
	changes(crash, 20);
	crash_merge(crash, 0, guest);
	crash_verify(crash);
}

#define VHDX                                                                                       \
	{                                                                                          \
		.format = DISK_VHDX, .kind = DISK_DYNAMIC, .size_bytes = 16 * MIB,                 \
		.block_bytes = MIB                                                                 \
	}
#define VHD                                                                                        \
	{                                                                                          \
		.format = DISK_VHD, .kind = DISK_DYNAMIC, .size_bytes = 16 * MIB,                  \
		.block_bytes = MIB                                                                 \
	}
#define MIXED_UP(number)                                                                           \
	{                                                                                          \
		.seed = (number), .reorder = true, .delay_steps = (number) % 5                     \
	}

static const struct crash_case cases[] = {
	{ .name = "checkpoint", .run = run_checkpoint, .create = VHDX, .plan = MIXED_UP(41) },
	{ .name = "merge-top", .run = run_merge_top, .create = VHDX, .plan = MIXED_UP(42) },
	{ .name = "merge-middle", .run = run_merge_middle, .create = VHDX, .plan = MIXED_UP(43) },
	{ .name = "merge-again", .run = run_both, .create = VHDX, .plan = MIXED_UP(44) },
	{ .name = "vhd-checkpoint", .run = run_checkpoint, .create = VHD, .plan = MIXED_UP(45) },
	{ .name = "vhd-merge-top", .run = run_merge_top, .create = VHD, .plan = MIXED_UP(46) },
	{ .name = "vhd-merge-again", .run = run_both, .create = VHD, .plan = MIXED_UP(47) },
};

int main(int argc, char **argv)
{
	return crash_main(argc, argv, cases, sizeof(cases) / sizeof(cases[0]), 8000);
}
