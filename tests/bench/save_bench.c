/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Saving a VM of 1 GiB (with --quick 256 MiB) against plain write and fsync of the same bytes.
 *
 * save_bench [--quick] [FOLDER...]: the folders to save into; without any, the current
 * one and /dev/shm.
 *
 * The VM was booted but never ran; its memory above 64 MiB is filled from outside.  Two
 * peers take turns with the save, in an order that rotates, on the same threads and made durable in
 * the same way: the bytes of the file that the save made, and all of memory as it is.
 */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/bytes.h"
#include "base/cleanup.h"
#include "base/file.h"
#include "base/pool.h"
#include "tests/support/bench_table.h"
#include "tests/support/guest_vm.h"

#define CHUNK_BYTES (2ULL << 20)
#define FIRST_BYTES (64ULL << 20) /* below it lie the guest's image and tables */
#define FILE_NAME   "godwit-save-bench.saved"

enum content {
	RANDOM,
	TEXT,
	ZERO,
	CONTENTS
};
static const char *const content_names[CONTENTS] = { "random", "text", "zero" };

struct bench {
	struct guest_vm *vm;
	struct base_pool *pool;
	int directory_fd;
	uint32_t runs;
	uint64_t memory_bytes;
};

static uint64_t next_random(uint64_t *state)
{
	*state ^= *state << 13;
	*state ^= *state >> 7;
	*state ^= *state << 17;
	return *state;
}

/* Text: words of eight letters out of 64, which LZ4 about halves. */
static void fill_words(uint8_t *to, uint64_t size_bytes, enum content content, uint64_t seed)
{
	uint64_t state = 0x9e3779b97f4a7c15ULL * (seed + 1);

	for (uint64_t at = 0; at < size_bytes; at += 8) {
		uint64_t value = next_random(&state);

		if (content == TEXT)
			value = 0x6f74207473616c20ULL + (value >> 58) * 0x0101010001ULL;
		base_put_le64(to + at, value);
	}
}

struct filling {
	struct hv_slat *slat;
	enum content content;
};

static int fill_chunk(void *context, uint64_t index, struct base_error *err)
{
	const struct filling *filling = context;
	HV_SLAT_WINDOW window = { .data = NULL };
	int r = hv_slat_window_begin(filling->slat, FIRST_BYTES + index * CHUNK_BYTES, CHUNK_BYTES,
				     &window);

	if (r < 0)
		return base_fail_errno(err, r, "chunk %" PRIu64, index);
	if (filling->content == ZERO)
		memset(window.data, 0, CHUNK_BYTES);
	else
		fill_words(window.data, CHUNK_BYTES, filling->content, index);
	return 0;
}

struct writing {
	const uint8_t *from;
	int fd;
	uint64_t size_bytes;
};

static int write_chunk(void *context, uint64_t index, struct base_error *err)
{
	const struct writing *writing = context;
	uint64_t offset = index * CHUNK_BYTES;
	uint64_t left = writing->size_bytes - offset;
	int r = base_pwrite_all(writing->fd, writing->from + offset,
				left < CHUNK_BYTES ? left : CHUNK_BYTES, offset);

	return r < 0 ? base_fail_errno(err, r, "write") : 0;
}

/* Seconds to write @size_bytes of guest memory to a new file, whole and durable. */
static double plain_write(const struct bench *bench, uint64_t size_bytes)
{
	struct hv_slat *slat = hv_machine_slat(guest_vm_machine(bench->vm));
	struct writing writing = { .size_bytes = size_bytes };
	struct base_error err = { .code = 0 };
	struct base_new_file file;
	uint64_t begin_ns = bench_now_ns();

	writing.from = hv_slat_pages(slat, 0, hv_slat_page_count(slat));
	if (size_bytes >
	    bench->memory_bytes) /* a file of headers and incompressible memory is a little more */
		writing.size_bytes = bench->memory_bytes;
	bench_need(base_new_file_begin(bench->directory_fd, FILE_NAME, &file, &err), &err);
	writing.fd = file.fd;
	bench_need(base_pool_each(bench->pool, (writing.size_bytes + CHUNK_BYTES - 1) / CHUNK_BYTES,
				  write_chunk, &writing, &err),
		   &err);
	bench_need(base_new_file_commit(&file, &err), &err);
	begin_ns = bench_now_ns() - begin_ns;
	(void)unlinkat(bench->directory_fd, FILE_NAME, 0);
	return (double)begin_ns / 1e9;
}

static double save(const struct bench *bench, struct hv_save_report *ret_report)
{
	struct base_error err = { .code = 0 };
	uint64_t begin_ns = bench_now_ns();

	bench_need(hv_machine_save(guest_vm_machine(bench->vm), bench->directory_fd, FILE_NAME,
				   true, ret_report, &err),
		   &err);
	begin_ns = bench_now_ns() - begin_ns;
	(void)unlinkat(bench->directory_fd, FILE_NAME, 0);
	return (double)begin_ns / 1e9;
}

static void compare(const struct bench *bench, enum content content, const char *folder)
{
	struct hv_slat *slat = hv_machine_slat(guest_vm_machine(bench->vm));
	struct filling filling = { .slat = slat, .content = content };
	struct bench_series saves = { .count = 0 };
	struct bench_series same = { .count = 0 };
	struct bench_series all = { .count = 0 };
	struct bench_series ratios = { .count = 0 };
	struct hv_save_report report = { .file_bytes = 0 };
	struct base_error err = { .code = 0 };

	bench_need(base_pool_each(bench->pool, (bench->memory_bytes - FIRST_BYTES) / CHUNK_BYTES,
				  fill_chunk, &filling, &err),
		   &err);
	for (uint32_t i = 0; i < bench->runs; i++) {
		double seconds[3] = { 0 };

		/* A disk that is slower after much was written must not favour one of them. */
		for (uint32_t turn = 0; turn < 3; turn++) {
			uint32_t which = (i + turn) % 3;

			seconds[which] = which == 0   ? save(bench, &report)
					 : which == 1 ? plain_write(bench, report.file_bytes)
						      : plain_write(bench, bench->memory_bytes);
		}
		bench_add(&saves, seconds[0]);
		bench_add(&same, seconds[1]);
		bench_add(&all, seconds[2]);
		bench_add(&ratios, seconds[1] / seconds[0]);
	}
	bench_title("save of %" PRIu64 " MiB %s to %s: %.1f MiB; pages zero %" PRIu64
		    ", raw %" PRIu64 ", LZ4 %" PRIu64,
		    bench->memory_bytes >> 20, content_names[content], folder,
		    (double)report.file_bytes / (1 << 20), report.ram.zero_page_count,
		    report.ram.raw_page_count, report.ram.lz4_page_count);
	bench_row("  save", &saves, "s", "%.2f GiB/s of memory",
		  (double)bench->memory_bytes / (1 << 30) / bench_median(&saves));
	bench_row("  plain write and fsync of the file's bytes", &same, "s", "%s", "limit");
	bench_row("  plain write and fsync of all memory", &all, "s", "%s", "peer");
	bench_row("  speed of save by that of the plain write", &ratios, "", "%s",
		  "1: as fast as writing the same bytes");
}

static void bench_folder(struct bench *bench, const char *folder)
{
	struct base_error err = { .code = 0 };

	bench->directory_fd = open(folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (bench->directory_fd < 0)
		bench_need(base_fail_errno(&err, -errno, "folder '%s'", folder), &err);
	for (int content = 0; content < CONTENTS; content++)
		compare(bench, (enum content)content, folder);
	base_closep(&bench->directory_fd);
}

int main(int argc, char **argv)
{
	struct bench bench = { .runs = 6, .memory_bytes = 1ULL << 30 };
	struct guest_vm_opts opts = { .paused = true };
	struct base_error err = { .code = 0 };
	uint32_t cpus = base_cpu_count();
	bool has_folder = false;

	if (bench_has_word(argc, argv, "--quick"))
		bench.memory_bytes >>= 2;
	opts.memory_bytes = bench.memory_bytes;
	bench.vm = guest_vm_new(&opts);
	if (bench.vm == NULL)
		return 77;
	bench_need(base_pool_new(cpus > 1 ? cpus - 1 : 1, "bench", &bench.pool, &err), &err);
	for (int i = 1; i < argc; i++) {
		if (argv[i][0] == '-')
			continue;
		has_folder = true;
		bench_folder(&bench, argv[i]);
	}
	if (!has_folder) {
		bench_folder(&bench, ".");
		bench_folder(&bench, "/dev/shm");
	}
	base_pool_free(bench.pool);
	guest_vm_free(bench.vm);
	return 0;
}
