/* SPDX-License-Identifier: Apache-2.0 */
/*
 * How fast is restoring memory, measured against merely reading the same file into
 * fresh guest memory in the same run?
 *
 * restore_bench [MiB [FOLDER [RUNS]]]: 1024 MiB, the current folder, 7 runs.
 *
 * The file is in the page cache. Both sides use the same threads (as many as there are
 * processors) and memory of the same kind, made anew for each run; making it is not
 * timed, its first touch is.  They take turns, so that both see the same noise.
 */
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/file.h"
#include "base/pool.h"
#include "hypervisor/ram_codec.h"
#include "hypervisor/ram_state.h"

#define RUNS_MAX 99u

enum content {
	RANDOM,
	TEXT,
	MIXED,
	CONTENTS
};
static const char *const content_names[CONTENTS] = { "random", "text", "mixed" };

struct bench {
	uint64_t memory_bytes;
	uint32_t runs;
	struct base_pool *pool;
	int fd; /* the saved file */
	uint64_t file_bytes;
};

struct numbers {
	double values[RUNS_MAX];
	uint32_t count;
};

static void die_if(int code, const struct base_error *err)
{
	if (code >= 0)
		return;
	(void)fprintf(stderr, "restore_bench: %s\n", err->text);
	_exit(1);
}

static int by_value(const void *a, const void *b)
{
	const double *x = a;
	const double *y = b;

	return (*x > *y) - (*x < *y);
}

static double median(struct numbers *numbers)
{
	qsort(numbers->values, numbers->count, sizeof(double), by_value);
	return numbers->values[numbers->count / 2];
}

static void print(const char *what, struct numbers *numbers, const char *unit)
{
	double middle = median(numbers);

	(void)printf("  %-28s median %7.2f %s (%.2f to %.2f, %u runs)\n", what, middle, unit,
		     numbers->values[0], numbers->values[numbers->count - 1], numbers->count);
}

static uint64_t next_random(uint64_t *state)
{
	*state ^= *state << 13;
	*state ^= *state >> 7;
	*state ^= *state << 17;
	return *state;
}

static void fill_random(uint8_t *to, uint64_t *state)
{
	for (size_t i = 0; i < HV_PAGE_BYTES; i += 8)
		base_put_le64(to + i, next_random(state));
}

static void fill_text(uint8_t *to, uint64_t *state)
{
	static const char *const words[] = { "memory ", "guest ", "restored ", "the ",
					     "page ",   "of ",    "file\n",    "section " };
	const char *word = "";

	for (size_t i = 0; i < HV_PAGE_BYTES; i++) {
		if (*word == 0)
			word = words[next_random(state) % 8];
		to[i] = (uint8_t)*word++;
	}
}

struct filling {
	struct hv_slat *slat;
	enum content content;
};

static int fill_chunk(void *context, uint64_t index, struct base_error *err)
{
	const struct filling *filling = context;
	uint64_t state = 0x9e3779b97f4a7c15ULL * (index + 1);
	uint8_t *to = hv_slat_arrival_pages(filling->slat, index * HV_RAM_CHUNK_PAGES,
					    HV_RAM_CHUNK_PAGES);

	(void)err;
	for (uint32_t i = 0; i < HV_RAM_CHUNK_PAGES; i++, to += HV_PAGE_BYTES) {
		uint64_t kind = filling->content == MIXED ? next_random(&state) % 3
							  : (uint64_t)filling->content;

		if (kind == RANDOM)
			fill_random(to, &state);
		else if (kind == TEXT)
			fill_text(to, &state);
	}
	return 0;
}

/* Fresh guest memory with or without its pages. */
static struct hv_slat *fresh(const struct bench *bench, bool populated,
			     struct hv_memory **ret_memory)
{
	struct base_error err = { 0 };
	struct hv_slat *slat = NULL;

	die_if(hv_memory_new(bench->memory_bytes, HV_MEMORY_AUTO, ret_memory, &err), &err);
	if (populated)
		die_if(hv_memory_populate(*ret_memory, &err), &err);
	die_if(hv_slat_new(*ret_memory, -1, &slat, &err), &err);
	return slat;
}

static void drop(struct hv_slat *slat, struct hv_memory *memory)
{
	hv_slat_free(slat);
	hv_memory_free(memory);
}

static void save(struct bench *bench, enum content content)
{
	struct filling filling = { .content = content };
	struct hv_state_writer *writer = NULL;
	struct hv_memory *memory = NULL;
	struct hv_ram_report report;
	struct base_error err = { 0 };
	uint64_t begin = 0;
	double seconds = 0;

	filling.slat = fresh(bench, true, &memory);
	die_if(base_pool_each(bench->pool, bench->memory_bytes / HV_RAM_CHUNK_BYTES, fill_chunk,
			      &filling, &err),
	       &err);
	if (ftruncate(bench->fd, 0) < 0)
		die_if(base_fail_errno(&err, -1, "ftruncate"), &err);
	die_if(hv_state_writer_new(bench->fd, &writer, &err), &err);
	begin = base_clock_boot_ns(&base_clock_system);
	die_if(hv_ram_save(filling.slat, bench->pool, writer, &report, &err), &err);
	die_if(hv_state_finish(writer, &err), &err);
	seconds = (double)(base_clock_boot_ns(&base_clock_system) - begin) / 1e9;
	bench->file_bytes = hv_state_written_bytes(writer);
	hv_state_writer_free(writer);
	(void)printf("%s: %" PRIu64 " MiB saved in %.3f s to %.1f MiB: %" PRIu64
		     " pages zero, %" PRIu64 " raw, %" PRIu64 " LZ4\n",
		     content_names[content], bench->memory_bytes >> 20, seconds,
		     (double)bench->file_bytes / (1 << 20), report.zero_page_count,
		     report.raw_page_count, report.lz4_page_count);
	drop(filling.slat, memory);
}

struct reading {
	struct hv_slat *slat;
	int fd;
	uint64_t file_bytes;
	uint64_t memory_bytes;
};

/* The baseline: 2 MiB of the file into as much of guest memory. */
static int read_chunk(void *context, uint64_t index, struct base_error *err)
{
	const struct reading *reading = context;
	uint64_t offset = index * HV_RAM_CHUNK_BYTES;
	uint64_t bytes = reading->file_bytes - offset;
	uint64_t chunk = index % (reading->memory_bytes / HV_RAM_CHUNK_BYTES);
	uint8_t *to = hv_slat_arrival_pages(reading->slat, chunk * HV_RAM_CHUNK_PAGES,
					    HV_RAM_CHUNK_PAGES);
	int r = 0;

	if (bytes > HV_RAM_CHUNK_BYTES)
		bytes = HV_RAM_CHUNK_BYTES;
	r = base_pread_all(reading->fd, to, bytes, offset);
	return r < 0 ? base_fail_errno(err, r, "read at %" PRIu64, offset) : 0;
}

static double seconds_of_read(const struct bench *bench, bool populated)
{
	struct reading reading = { .fd = bench->fd,
				   .file_bytes = bench->file_bytes,
				   .memory_bytes = bench->memory_bytes };
	struct hv_memory *memory = NULL;
	struct base_error err = { 0 };
	uint64_t begin = 0;
	uint64_t end = 0;

	reading.slat = fresh(bench, populated, &memory);
	begin = base_clock_boot_ns(&base_clock_system);
	die_if(base_pool_each(bench->pool,
			      (bench->file_bytes + HV_RAM_CHUNK_BYTES - 1) / HV_RAM_CHUNK_BYTES,
			      read_chunk, &reading, &err),
	       &err);
	end = base_clock_boot_ns(&base_clock_system);
	drop(reading.slat, memory);
	return (double)(end - begin) / 1e9;
}

static double seconds_of_restore(const struct bench *bench, bool populated)
{
	struct hv_memory *memory = NULL;
	struct hv_state_reader *reader = NULL;
	struct base_error err = { 0 };
	struct hv_slat *slat = fresh(bench, populated, &memory);
	uint64_t begin = base_clock_boot_ns(&base_clock_system);
	uint64_t end = 0;

	die_if(hv_state_reader_open(bench->fd, &reader, &err), &err);
	die_if(hv_ram_restore(slat, bench->pool, reader, NULL, &err), &err);
	end = base_clock_boot_ns(&base_clock_system);
	hv_state_reader_free(reader);
	drop(slat, memory);
	return (double)(end - begin) / 1e9;
}

static void compare(const struct bench *bench, bool populated)
{
	double mib = (double)(bench->memory_bytes >> 20);
	struct numbers restore = { .count = 0 };
	struct numbers reading = { .count = 0 };
	struct numbers ratio = { .count = 0 };

	(void)seconds_of_read(bench, populated); /* warms the page cache */
	for (uint32_t i = 0; i < bench->runs; i++) {
		double read_s = seconds_of_read(bench, populated);
		double restore_s = seconds_of_restore(bench, populated);

		reading.values[reading.count++] = (double)bench->file_bytes / (1 << 20) / read_s;
		restore.values[restore.count++] = mib / restore_s;
		ratio.values[ratio.count++] = read_s / restore_s;
	}
	(void)printf(" into memory %s\n", populated ? "already populated" : "touched first");
	print("reading the file", &reading, "MiB/s of file");
	print("restoring", &restore, "MiB/s of memory");
	print("time of reading / restoring", &ratio, "");
}

int main(int argc, char **argv)
{
	struct bench bench = { .memory_bytes = 1024ULL << 20, .runs = 7, .fd = -1 };
	const char *folder = argc > 2 ? argv[2] : ".";
	struct base_error err = { 0 };
	uint32_t cpus = base_cpu_count();

	if (argc > 1)
		bench.memory_bytes = strtoull(argv[1], NULL, 10) << 20;
	if (argc > 3)
		bench.runs = (uint32_t)strtoul(argv[3], NULL, 10);
	die_if(hv_memory_check_size(bench.memory_bytes, &err), &err);
	if (bench.runs == 0 || bench.runs > RUNS_MAX)
		die_if(base_fail(&err, -1, "runs: 1 to %u", RUNS_MAX), &err);
	bench.fd = open(folder, O_TMPFILE | O_RDWR | O_CLOEXEC, 0600);
	if (bench.fd < 0)
		die_if(base_fail(&err, -1, "no file can be made in '%s'", folder), &err);
	/* The calling thread works too. */
	die_if(base_pool_new(cpus > 1 ? cpus - 1 : 1, "bench", &bench.pool, &err), &err);
	(void)printf("restore_bench: %u processors\n", cpus);
	for (int content = 0; content < CONTENTS; content++) {
		save(&bench, (enum content)content);
		compare(&bench, false);
		compare(&bench, true);
	}
	base_pool_free(bench.pool);
	close(bench.fd);
	return 0;
}
