/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Storage only: a disk of 4 GiB with 1 GiB in it moves from folder to folder while its guest
 * writes, against a copy of its file while the guest writes as much: O_DIRECT on both sides, holes
 * left out, fdatasync at the end.  Both in turns; the disk goes there and back. docs/benchmarks.md.
 *
 *   storagemove_bench [--quick] [--quiet]      --quiet: without a guest that writes
 */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "agent/vm_storage_move.h"
#include "base/clock.h"
#include "tests/support/bench_disk.h"
#include "tests/support/bench_table.h"

#define MIB         (1ULL << 20)
#define GIB         (1ULL << 30)
#define WRITE_BYTES 4096u
#define WRITE_NS    (2 * BASE_NS_PER_MS) /* 500 a second */
#define WRITE_AREA  (128 * MIB)
#define FLUSH_EVERY 100u

struct bench {
	struct bench_disk disk;
	atomic_bool over;
	atomic_uint_fast64_t longest_ns; /* of the guest's requests */
	atomic_uint_fast64_t writes;
	struct vm_storage_move_report report;
};

/* --- the guest --- */

static void one_write(struct bench *bench, uint8_t *buffer, uint64_t random)
{
	struct base_error err = { .code = 0 };
	uint64_t begin_ns = bench_now_ns();
	uint64_t took_ns = 0;

	bench_need(disk_do(bench->disk.disk, DISK_WRITE,
			   random % (WRITE_AREA / WRITE_BYTES) * WRITE_BYTES, buffer, WRITE_BYTES,
			   &err),
		   &err);
	if (atomic_fetch_add(&bench->writes, 1) % FLUSH_EVERY == 0)
		bench_need(disk_do(bench->disk.disk, DISK_FLUSH, 0, NULL, 0, &err), &err);
	took_ns = bench_now_ns() - begin_ns;
	if (took_ns > atomic_load(&bench->longest_ns))
		atomic_store(&bench->longest_ns, took_ns);
}

static void *guest(void *context)
{
	struct bench *bench = context;
	uint8_t *buffer = aligned_alloc(4096, WRITE_BYTES);
	uint64_t next_ns = bench_now_ns();
	uint64_t random = 1;

	memset(buffer, 0x5a, WRITE_BYTES);
	while (!atomic_load(&bench->over)) {
		uint64_t now_ns = bench_now_ns();

		random = random * 6364136223846793005U + 1442695040888963407U;
		one_write(bench, buffer, random >> 33);
		next_ns += WRITE_NS;
		if (now_ns < next_ns)
			base_sleep_ns(next_ns - now_ns);
		else
			next_ns = now_ns; /* what was missed is not made up for */
	}
	free(buffer);
	return NULL;
}

/* --- the two --- */

static void moved_once(struct bench *bench)
{
	const struct vm_storage_move_options options = {
		.from = bench->disk.stores[bench->disk.at],
		.disk = bench->disk.disk,
		.to = bench->disk.stores[1 - bench->disk.at],
		.folder = ""
	};
	struct base_error err = { .code = 0 };

	bench_need(vm_storage_move(&options, &bench->report, &err), &err);
	bench->disk.at = 1 - bench->disk.at;
}

static double seconds_of(struct bench *bench, uint32_t which, bool quiet)
{
	pthread_t thread;
	uint64_t begin_ns = 0;
	double took = 0;

	atomic_store(&bench->over, false);
	atomic_store(&bench->longest_ns, 0);
	if (!quiet && pthread_create(&thread, NULL, guest, bench) != 0)
		base_bug("no thread");
	begin_ns = bench_now_ns();
	if (which == 2)
		moved_once(bench);
	else
		bench_disk_copy(&bench->disk, which == 0 ? MIB : BENCH_DISK_BUFFER_BYTES);
	took = (double)(bench_now_ns() - begin_ns) / 1e9;
	atomic_store(&bench->over, true);
	if (!quiet)
		(void)pthread_join(thread, NULL);
	return took;
}

int main(int argc, char **argv)
{
	static const char *const names[] = { "  copy, blocks of 1 MiB", "  copy, blocks of 8 MiB",
					     "  move" };
	struct bench bench = { .disk = { .size_bytes = 4 * GIB, .data_bytes = GIB } };
	struct bench_series seconds[3] = { { .count = 0 } };
	struct bench_series cpus[3] = { { .count = 0 } };
	struct bench_series longest[3] = { { .count = 0 } };
	struct bench_series ratios = { .count = 0 };
	struct bench_series held = { .count = 0 };
	struct bench_series rounds = { .count = 0 };
	uint32_t runs = bench_has_word(argc, argv, "--quick") ? 5 : 9;
	bool quiet = bench_has_word(argc, argv, "--quiet");

	bench_disk_init(&bench.disk, "storagemove");
	for (uint32_t i = 0; i < runs; i++) {
		double took[3] = { 0 };

		for (uint32_t turn = 0; turn < 3; turn++) {
			uint32_t which = (i + turn) % 3;
			double cpu = bench_cpu_seconds();

			took[which] = seconds_of(&bench, which, quiet);
			bench_add(&cpus[which], bench_cpu_seconds() - cpu);
			bench_add(&seconds[which], took[which]);
			bench_add(&longest[which], (double)atomic_load(&bench.longest_ns) / 1e6);
		}
		bench_add(&ratios, (took[0] < took[1] ? took[0] : took[1]) / took[2]);
		bench_add(&held, (double)bench.report.held_ns / 1e6);
		bench_add(&rounds, bench.report.rounds);
	}
	bench_title(quiet ? "storage only: a disk of 4 GiB with 1 GiB in it, no guest"
			  : "storage only: a disk of 4 GiB with 1 GiB in it, its guest writes");
	for (uint32_t which = 0; which < 3; which++)
		bench_row(names[which], &seconds[which], "s", "%.0f MiB/s, %.2f s of processors",
			  1024.0 / bench_median(&seconds[which]), bench_median(&cpus[which]));
	bench_row("  move against the faster copy", &ratios, "", "goal >= 0.7");
	bench_row("  of a move: requests held", &held, "ms", "%s", "");
	bench_row("  of a move: rounds", &rounds, "", "%s", "");
	for (uint32_t which = 0; which < 3 && !quiet; which++)
		bench_row(which == 2 ? "  guest's longest request: move"
				     : "  guest's longest request: copy",
			  &longest[which], "ms", "%s", "");
	bench_disk_fini(&bench.disk);
	return 0;
}
