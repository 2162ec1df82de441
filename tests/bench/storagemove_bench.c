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
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include "agent/vm_storage_move.h"
#include "base/clock.h"
#include "hypervisor/disk/local_store.h"
#include "tests/support/bench_table.h"

#define MIB          (1ULL << 20)
#define GIB          (1ULL << 30)
#define EXTENTS      8u
#define BUFFER_BYTES (8 * MIB)
#define NAME         "disk.vhdx"
#define WRITE_BYTES  4096u
#define WRITE_NS     (2 * BASE_NS_PER_MS) /* 500 a second */
#define WRITE_AREA   (128 * MIB)
#define FLUSH_EVERY  100u

struct bench {
	char folder[400];
	char paths[2][420];
	struct store *stores[2];
	uint32_t at; /* where the disk is */
	struct base_io_loop *loop;
	struct disk *disk;
	uint64_t size_bytes;
	uint64_t data_bytes;
	uint8_t *buffer;
	atomic_bool over;
	atomic_uint_fast64_t longest_ns; /* of the guest's requests */
	atomic_uint_fast64_t writes;
	struct vm_storage_move_report report;
};

static void fill(struct bench *bench)
{
	struct base_error err = { .code = 0 };
	uint64_t seed = 88172645463325252ULL;
	uint64_t extent = bench->data_bytes / EXTENTS;

	for (uint32_t i = 0; i < EXTENTS; i++)
		for (uint64_t at = 0; at < extent; at += BUFFER_BYTES) {
			for (uint64_t word = 0; word < BUFFER_BYTES; word += 8) {
				seed ^= seed << 13;
				seed ^= seed >> 7;
				seed ^= seed << 17;
				memcpy(bench->buffer + word, &seed, 8);
			}
			bench_need(disk_do(bench->disk, DISK_WRITE,
					   i * (bench->size_bytes / EXTENTS) + at, bench->buffer,
					   BUFFER_BYTES, &err),
				   &err);
		}
	bench_need(disk_do(bench->disk, DISK_FLUSH, 0, NULL, 0, &err), &err);
}

static void setup(struct bench *bench)
{
	const struct disk_create_options create = { .format = DISK_VHDX,
						    .kind = DISK_DYNAMIC,
						    .size_bytes = bench->size_bytes };
	struct disk_options options = { .name = NAME, .format = DISK_VHDX };
	struct base_error err = { .code = 0 };

	if (mkdtemp(bench->folder) == NULL)
		base_bug("'%s': %s", bench->folder, strerror(errno));
	bench_need(base_io_loop_new(NULL, &bench->loop, &err), &err);
	bench_need(base_io_loop_start(bench->loop, "io", &err), &err);
	for (uint32_t i = 0; i < 2; i++) {
		(void)snprintf(bench->paths[i], sizeof(bench->paths[i]), "%s/%" PRIu32,
			       bench->folder, i);
		if (mkdir(bench->paths[i], 0700) < 0)
			base_bug("'%s': %s", bench->paths[i], strerror(errno));
		bench_need(local_store_open(bench->paths[i], NULL, &bench->stores[i], &err), &err);
	}
	bench->buffer = aligned_alloc(4096, BUFFER_BYTES);
	bench_need(disk_create(bench->stores[0], NAME, bench->loop, &create, &err), &err);
	options.store = bench->stores[0];
	options.loop = bench->loop;
	bench_need(disk_open_standby(&options, &bench->disk, &err), &err);
	bench_need(disk_activate(bench->disk, 1, NULL, &err), &err);
	fill(bench);
}

static void teardown(struct bench *bench)
{
	struct base_error err = { .code = 0 };

	disk_close(bench->disk);
	bench_need(store_remove(bench->stores[bench->at], NAME, &err), &err);
	store_free(bench->stores[0]);
	store_free(bench->stores[1]);
	base_io_loop_free(bench->loop);
	free(bench->buffer);
	if (rmdir(bench->paths[0]) < 0 || rmdir(bench->paths[1]) < 0 || rmdir(bench->folder) < 0)
		(void)fprintf(stderr, "'%s' is not empty\n", bench->folder);
}

/* --- the guest --- */

static void one_write(struct bench *bench, uint8_t *buffer, uint64_t random)
{
	struct base_error err = { .code = 0 };
	uint64_t begin_ns = bench_now_ns();
	uint64_t took_ns = 0;

	bench_need(disk_do(bench->disk, DISK_WRITE,
			   random % (WRITE_AREA / WRITE_BYTES) * WRITE_BYTES, buffer, WRITE_BYTES,
			   &err),
		   &err);
	if (atomic_fetch_add(&bench->writes, 1) % FLUSH_EVERY == 0)
		bench_need(disk_do(bench->disk, DISK_FLUSH, 0, NULL, 0, &err), &err);
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
	const struct vm_storage_move_options options = { .from = bench->stores[bench->at],
							 .disk = bench->disk,
							 .to = bench->stores[1 - bench->at],
							 .folder = "" };
	struct base_error err = { .code = 0 };

	bench_need(vm_storage_move(&options, &bench->report, &err), &err);
	bench->at = 1 - bench->at;
}

static void copied_once(const struct bench *bench, size_t block_bytes)
{
	char from[440];
	char to[440];
	int in = -1;
	int out = -1;
	off_t at = 0;
	struct stat stat;

	(void)snprintf(from, sizeof(from), "%s/%s", bench->paths[bench->at], NAME);
	(void)snprintf(to, sizeof(to), "%s/copy", bench->paths[1 - bench->at]);
	in = open(from, O_RDONLY | O_DIRECT | O_CLOEXEC);
	out = open(to, O_WRONLY | O_CREAT | O_TRUNC | O_DIRECT | O_CLOEXEC, 0600);
	if (in < 0 || out < 0 || fstat(in, &stat) < 0 || ftruncate(out, stat.st_size) < 0)
		base_bug("copy: %s", strerror(errno));
	while ((at = lseek(in, at, SEEK_DATA)) >= 0) {
		off_t end = lseek(in, at, SEEK_HOLE);

		while (at < end) {
			size_t bytes = (uint64_t)(end - at) < block_bytes ? (size_t)(end - at)
									  : block_bytes;

			if (pread(in, bench->buffer, bytes, at) != (ssize_t)bytes ||
			    pwrite(out, bench->buffer, bytes, at) != (ssize_t)bytes)
				base_bug("copy: %s", strerror(errno));
			at += (off_t)bytes;
		}
	}
	if (fdatasync(out) < 0 || close(out) < 0 || close(in) < 0 || unlink(to) < 0)
		base_bug("copy: %s", strerror(errno));
}

static double cpu_seconds(void)
{
	struct rusage usage;

	(void)getrusage(RUSAGE_SELF, &usage);
	return (double)(usage.ru_utime.tv_sec + usage.ru_stime.tv_sec) +
	       (double)(usage.ru_utime.tv_usec + usage.ru_stime.tv_usec) / 1e6;
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
		copied_once(bench, which == 0 ? MIB : BUFFER_BYTES);
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
	struct bench bench = { .size_bytes = 4 * GIB, .data_bytes = GIB };
	struct bench_series seconds[3] = { { .count = 0 } };
	struct bench_series cpus[3] = { { .count = 0 } };
	struct bench_series longest[3] = { { .count = 0 } };
	struct bench_series ratios = { .count = 0 };
	struct bench_series held = { .count = 0 };
	struct bench_series rounds = { .count = 0 };
	uint32_t runs = bench_has_word(argc, argv, "--quick") ? 5 : 9;
	bool quiet = bench_has_word(argc, argv, "--quiet");

	(void)snprintf(bench.folder, sizeof(bench.folder), "%s/storagemove-XXXXXX",
		       TEST_BINARY_DIR);
	setup(&bench);
	for (uint32_t i = 0; i < runs; i++) {
		double took[3] = { 0 };

		for (uint32_t turn = 0; turn < 3; turn++) {
			uint32_t which = (i + turn) % 3;
			double cpu = cpu_seconds();

			took[which] = seconds_of(&bench, which, quiet);
			bench_add(&cpus[which], cpu_seconds() - cpu);
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
	teardown(&bench);
	return 0;
}
