/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A disk of 4 GiB with 1 GiB in it moves from one folder to another, by all that a migration does
 * for a disk (over loopback TCP, without a VM), against a copy of its file: O_DIRECT on both sides,
 * holes left out, fdatasync at the end.  docs/benchmarks.md.
 */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "tests/support/bench_disk.h"
#include "tests/support/bench_table.h"
#include "tests/support/disk_mover.h"

#define MIB (1ULL << 20)
#define GIB (1ULL << 30)

struct bench {
	struct bench_disk disk;
	struct bench_series ends; /* ms: an empty last round, and all that makes it the VM's */
};

static void moved_once(struct bench *bench, uint32_t channels, bool tcp)
{
	const struct vm_migrate_from from = { .store = bench->disk.stores[0],
					      .disk = bench->disk.disk };
	const struct disk_mover_options options = { .disks = &from,
						    .disk_count = 1,
						    .store = bench->disk.stores[1],
						    .folder = "",
						    .loop = bench->disk.loop,
						    .channel_count = channels,
						    .tcp = tcp };
	struct base_error err = { .code = 0 };
	struct disk_mover mover;
	uint64_t begin_ns = 0;

	bench_need(disk_mover_init(&mover, &options, &err), &err);
	if (mover.findings->count > 0)
		base_bug("%s", mover.findings->lines[0]);
	bench_need(disk_mover_round(&mover, false, NULL, &err), &err);
	begin_ns = bench_now_ns();
	bench_need(disk_mover_round(&mover, true, NULL, &err), &err);
	bench_need(vm_migrate_in_finish(mover.in, &err), &err);
	bench_add(&bench->ends, (double)(bench_now_ns() - begin_ns) / 1e6);
	if (mig_image_counts(mover.image).block_bytes != bench->disk.data_bytes)
		base_bug("%" PRIu64 " bytes were sent", mig_image_counts(mover.image).block_bytes);
	disk_mover_fini(&mover); /* and removes it */
}

static double seconds_of(struct bench *bench, uint32_t which)
{
	uint64_t begin_ns = bench_now_ns();

	switch (which) {
	case 0:
		bench_disk_copy(&bench->disk, MIB);
		break;
	case 1:
		bench_disk_copy(&bench->disk, BENCH_DISK_BUFFER_BYTES);
		break;
	case 2:
		moved_once(bench, 1, true);
		break;
	default:
		moved_once(bench, 4, true);
		break;
	}
	return (double)(bench_now_ns() - begin_ns) / 1e9;
}

int main(int argc, char **argv)
{
	static const char *const names[] = { "  copy, blocks of 1 MiB", "  copy, blocks of 8 MiB",
					     "  move, 1 channel", "  move, 4 channels" };
	struct bench bench = { .disk = { .size_bytes = 4 * GIB, .data_bytes = GIB } };
	struct bench_series seconds[4] = { { .count = 0 } };
	struct bench_series cpus[4] = { { .count = 0 } };
	struct bench_series ratios[2] = { { .count = 0 } };
	uint32_t runs = bench_has_word(argc, argv, "--quick") ? 5 : 9;

	bench_disk_init(&bench.disk, "diskmove");
	for (uint32_t i = 0; i < runs; i++) {
		double took[4] = { 0 };
		double copy = 0;

		for (uint32_t turn = 0; turn < 4; turn++) {
			uint32_t which = (i + turn) % 4;

			bench_add(&cpus[which], -bench_cpu_seconds());
			took[which] = seconds_of(&bench, which);
			cpus[which].values[i] += bench_cpu_seconds();
			bench_add(&seconds[which], took[which]);
		}
		copy = took[0] < took[1] ? took[0] : took[1];
		bench_add(&ratios[0], copy / took[2]);
		bench_add(&ratios[1], copy / took[3]);
	}
	bench_title("a disk of 4 GiB with 1 GiB in it, from folder to folder");
	for (uint32_t which = 0; which < 4; which++)
		bench_row(names[which], &seconds[which], "s", "%.0f MiB/s, %.2f s of processors",
			  1024.0 / bench_median(&seconds[which]), bench_median(&cpus[which]));
	bench_row("  move, 1 channel, against the faster copy", &ratios[0], "", "goal >= 0.7");
	bench_row("  move, 4 channels, against the faster copy", &ratios[1], "", "goal >= 0.7");
	bench_row("  of a move: last round, flush, names, check", &bench.ends, "ms", "%s", "");
	bench_disk_fini(&bench.disk);
	return 0;
}
