/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/support/bench_disk.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "hypervisor/disk/local_store.h"
#include "tests/support/bench_table.h"

#define EXTENTS 8u
#define NAME    "disk.vhdx"

static void fill(struct bench_disk *bench)
{
	struct base_error err = { .code = 0 };
	uint64_t seed = 88172645463325252ULL;
	uint64_t extent = bench->data_bytes / EXTENTS;

	for (uint32_t i = 0; i < EXTENTS; i++)
		for (uint64_t at = 0; at < extent; at += BENCH_DISK_BUFFER_BYTES) {
			for (uint64_t word = 0; word < BENCH_DISK_BUFFER_BYTES; word += 8) {
				seed ^= seed << 13;
				seed ^= seed >> 7;
				seed ^= seed << 17;
				memcpy(bench->buffer + word, &seed, 8);
			}
			bench_need(disk_do(bench->disk, DISK_WRITE,
					   i * (bench->size_bytes / EXTENTS) + at, bench->buffer,
					   BENCH_DISK_BUFFER_BYTES, &err),
				   &err);
		}
	bench_need(disk_do(bench->disk, DISK_FLUSH, 0, NULL, 0, &err), &err);
}

void bench_disk_init(struct bench_disk *bench, const char *name)
{
	const struct disk_create_options create = { .format = DISK_VHDX,
						    .kind = DISK_DYNAMIC,
						    .size_bytes = bench->size_bytes };
	struct disk_options options = { .name = NAME, .format = DISK_VHDX };
	struct base_error err = { .code = 0 };

	(void)snprintf(bench->folder, sizeof(bench->folder), "%s/%s-XXXXXX", TEST_BINARY_DIR, name);
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
	bench->buffer = aligned_alloc(4096, BENCH_DISK_BUFFER_BYTES);
	bench_need(disk_create(bench->stores[0], NAME, bench->loop, &create, &err), &err);
	options.store = bench->stores[0];
	options.loop = bench->loop;
	bench_need(disk_open_standby(&options, &bench->disk, &err), &err);
	bench_need(disk_activate(bench->disk, 1, NULL, &err), &err);
	fill(bench);
}

void bench_disk_fini(struct bench_disk *bench)
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

void bench_disk_copy(const struct bench_disk *bench, size_t block_bytes)
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
