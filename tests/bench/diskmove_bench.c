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
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include "hypervisor/disk/local_store.h"
#include "tests/support/bench_table.h"
#include "tests/support/disk_mover.h"

#define MIB          (1ULL << 20)
#define GIB          (1ULL << 30)
#define EXTENTS      8u
#define BUFFER_BYTES (8 * MIB)
#define NAME         "disk.vhdx"

struct bench {
	char folder[400];
	char from[420];
	char to[420];
	struct store *stores[2];
	struct base_io_loop *loop;
	struct disk *disk;
	uint64_t size_bytes;
	uint64_t data_bytes;
	uint8_t *buffer;
	struct bench_series ends; /* ms: an empty last round, and all that makes it the VM's */
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
	(void)snprintf(bench->from, sizeof(bench->from), "%s/from", bench->folder);
	(void)snprintf(bench->to, sizeof(bench->to), "%s/to", bench->folder);
	if (mkdir(bench->from, 0700) < 0 || mkdir(bench->to, 0700) < 0)
		base_bug("folders in '%s'", bench->folder);
	bench->buffer = aligned_alloc(4096, BUFFER_BYTES);
	bench_need(base_io_loop_new(NULL, &bench->loop, &err), &err);
	bench_need(base_io_loop_start(bench->loop, "io", &err), &err);
	bench_need(local_store_open(bench->from, NULL, &bench->stores[0], &err), &err);
	bench_need(local_store_open(bench->to, NULL, &bench->stores[1], &err), &err);
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
	bench_need(store_remove(bench->stores[0], NAME, &err), &err);
	store_free(bench->stores[0]);
	store_free(bench->stores[1]);
	base_io_loop_free(bench->loop);
	free(bench->buffer);
	if (rmdir(bench->from) < 0 || rmdir(bench->to) < 0 || rmdir(bench->folder) < 0)
		(void)fprintf(stderr, "'%s' is not empty\n", bench->folder);
}

static void moved_once(struct bench *bench, uint32_t channels, bool tcp)
{
	const struct vm_migrate_from from = { .store = bench->stores[0], .disk = bench->disk };
	const struct disk_mover_options options = { .disks = &from,
						    .disk_count = 1,
						    .store = bench->stores[1],
						    .folder = "",
						    .loop = bench->loop,
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
	if (mig_image_counts(mover.image).block_bytes != bench->data_bytes)
		base_bug("%" PRIu64 " bytes were sent", mig_image_counts(mover.image).block_bytes);
	disk_mover_fini(&mover); /* and removes it */
}

/* What a person would do with the file of a disk that stands still. */
static void copied_once(const struct bench *bench, size_t block_bytes)
{
	char from[440];
	char to[440];
	int in = -1;
	int out = -1;
	off_t at = 0;
	struct stat stat;

	(void)snprintf(from, sizeof(from), "%s/%s", bench->from, NAME);
	(void)snprintf(to, sizeof(to), "%s/copy", bench->to);
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

static double seconds_of(struct bench *bench, uint32_t which)
{
	uint64_t begin_ns = bench_now_ns();

	switch (which) {
	case 0:
		copied_once(bench, MIB);
		break;
	case 1:
		copied_once(bench, BUFFER_BYTES);
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
	struct bench bench = { .size_bytes = 4 * GIB, .data_bytes = GIB };
	struct bench_series seconds[4] = { { .count = 0 } };
	struct bench_series cpus[4] = { { .count = 0 } };
	struct bench_series ratios[2] = { { .count = 0 } };
	uint32_t runs = bench_has_word(argc, argv, "--quick") ? 5 : 9;

	(void)snprintf(bench.folder, sizeof(bench.folder), "%s/diskmove-XXXXXX", TEST_BINARY_DIR);
	setup(&bench);
	for (uint32_t i = 0; i < runs; i++) {
		double took[4] = { 0 };
		double copy = 0;

		for (uint32_t turn = 0; turn < 4; turn++) {
			uint32_t which = (i + turn) % 4;

			bench_add(&cpus[which], -cpu_seconds());
			took[which] = seconds_of(&bench, which);
			cpus[which].values[i] += cpu_seconds();
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
	teardown(&bench);
	return 0;
}
