/* SPDX-License-Identifier: Apache-2.0 */
/* Power failures under raw disks: mostly a test of the harness, which all other formats use. */
#include "tests/support/disk_crash.h"

#define KIB 1024ULL
#define MIB (1024ULL * 1024ULL)

static uint64_t somewhere(struct crash *crash, uint64_t pages)
{
	return crash_random(crash, pages) * 4096;
}

/* Small writes over a few pages, some with FUA, some flushes. */
static void run_writes(struct crash *crash)
{
	crash_make(crash, "disk", NULL);
	crash_write(crash, 0, 64 * KIB, 0);
	crash_record(crash);
	for (uint32_t i = 0; i < 300; i++) {
		uint32_t flags = crash_random(crash, 10) == 0 ? DISK_FUA : 0;

		crash_write(crash, somewhere(crash, 64), 512 * (1 + crash_random(crash, 16)),
			    flags);
		if (crash_random(crash, 12) == 0)
			crash_flush(crash);
	}
	crash_verify(crash);
	crash_reopen(crash);
	crash_verify(crash);
}

/* Everything that a raw disk can do. */
static void run_mixed(struct crash *crash)
{
	crash_make(crash, "disk", NULL);
	crash_record(crash);
	for (uint32_t i = 0; i < 300; i++) {
		uint64_t offset_bytes = somewhere(crash, 64);

		switch (crash_random(crash, 10)) {
		case 0:
			crash_unmap(crash, offset_bytes, 8192, 0);
			break;
		case 1:
			crash_zero(crash, offset_bytes, 4096 + 512,
				   crash_random(crash, 2) == 0 ? DISK_MAY_UNMAP : DISK_FUA);
			break;
		case 2:
			crash_flush(crash);
			break;
		default:
			crash_write(crash, offset_bytes, 4096, 0);
		}
		if (i % 100 == 50)
			crash_resize(crash, crash_size(crash) + MIB);
	}
}

static const struct crash_case cases[] = {
	{
		.name = "raw-writes",
		.run = run_writes,
		.create = { .format = DISK_RAW, .kind = DISK_FIXED, .size_bytes = 4 * MIB },
		.plan = { .seed = 1, .reorder = true, .delay_steps = 4 },
	},
	{
		.name = "raw-mixed",
		.run = run_mixed,
		.create = { .format = DISK_RAW, .kind = DISK_DYNAMIC, .size_bytes = 4 * MIB },
		.plan = { .seed = 2, .reorder = true, .delay_steps = 2, .quiesce_every = 17 },
	},
	{
		.name = "raw-write-through",
		.run = run_writes,
		.create = { .format = DISK_RAW, .kind = DISK_DYNAMIC, .size_bytes = 4 * MIB },
		.plan = { .seed = 3, .reorder = true },
		.write_through = true,
	},
};

int main(int argc, char **argv)
{
	return crash_main(argc, argv, cases, sizeof(cases) / sizeof(cases[0]), 1500);
}
