/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Guest memory into a saved state and back: every page once, and nothing else.
 */
#include "hypervisor/ram_state.h"

#include <criterion/criterion.h>
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/file.h"
#include "hypervisor/ram_codec.h"
#include "tests/support/alloc_fail.h"
#include "tests/support/depth.h"

#define BLOCK        HV_STATE_ALIGN_BYTES
#define MEMORY_BYTES (64ULL << 20)
#define CHUNKS       32u

struct world {
	struct hv_memory *memory;
	struct hv_slat *slat;
	struct base_pool *pool;
	struct hv_ram_report report;
	int fd;
};

static void memory_new(struct world *world)
{
	struct base_error err = { 0 };

	cr_assert_eq(hv_memory_new(MEMORY_BYTES, HV_MEMORY_SMALL, &world->memory, &err), 0, "%s",
		     err.text);
	cr_assert_eq(hv_slat_new(world->memory, -1, &world->slat, &err), 0, "%s", err.text);
}

static void memory_drop(struct world *world)
{
	hv_slat_free(world->slat);
	hv_memory_free(world->memory);
	world->slat = NULL;
	world->memory = NULL;
}

static void world_init(struct world *world)
{
	struct base_error err = { 0 };

	memset(world, 0, sizeof(*world));
	cr_assert_eq(base_pool_new(2, "test", &world->pool, &err), 0, "%s", err.text);
	world->fd = memfd_create("state", MFD_CLOEXEC);
	memory_new(world);
}

static void world_fini(struct world *world)
{
	memory_drop(world);
	base_pool_free(world->pool);
	close(world->fd);
}

static uint8_t *page(struct world *world, uint64_t index)
{
	return hv_slat_arrival_pages(world->slat, index, 1);
}

static void fill_random(uint8_t *to, size_t size_bytes, uint64_t seed)
{
	uint64_t state = seed * 0x9e3779b97f4a7c15ULL + 1;

	for (size_t i = 0; i < size_bytes; i++) {
		state ^= state << 13;
		state ^= state >> 7;
		state ^= state << 17;
		to[i] = (uint8_t)(state >> 32);
	}
}

static void save(struct world *world)
{
	struct hv_state_writer *writer = NULL;
	struct base_error err = { 0 };

	cr_assert_eq(ftruncate(world->fd, 0), 0);
	cr_assert_eq(hv_state_writer_new(world->fd, &writer, &err), 0, "%s", err.text);
	cr_assert_eq(hv_ram_save(world->slat, world->pool, writer, &world->report, &err), 0, "%s",
		     err.text);
	cr_assert_eq(hv_state_finish(writer, &err), 0, "%s", err.text);
	hv_state_writer_free(writer);
}

static int restore(struct world *world, struct base_error *err)
{
	struct hv_state_reader *reader = NULL;
	int r = hv_state_reader_open(world->fd, &reader, err);

	if (r == 0)
		r = hv_ram_restore(world->slat, world->pool, reader, &world->report, err);
	hv_state_reader_free(reader);
	return r;
}

static uint64_t allocated_bytes(struct world *world)
{
	struct stat status;

	cr_assert_eq(fstat(hv_memory_fd(world->memory), &status), 0);
	return (uint64_t)status.st_blocks * 512;
}

/* One raw page and ten that LZ4 likes, the rest never touched. */
static void fill_little(struct world *world)
{
	fill_random(page(world, 5), HV_PAGE_BYTES, 9);
	for (uint64_t i = 600; i < 610; i++)
		memset(page(world, i), (int)i, HV_PAGE_BYTES);
}

static void check_little(struct world *world)
{
	uint8_t expected[HV_PAGE_BYTES];

	fill_random(expected, HV_PAGE_BYTES, 9);
	cr_assert_arr_eq(hv_slat_pages(world->slat, 5, 1), expected, HV_PAGE_BYTES);
	for (uint64_t i = 600; i < 610; i++) {
		memset(expected, (int)i, HV_PAGE_BYTES);
		cr_assert_arr_eq(hv_slat_pages(world->slat, i, 1), expected, HV_PAGE_BYTES);
	}
}

Test(ram_state, round_trip_of_little)
{
	struct base_error err = { 0 };
	struct world world;

	world_init(&world);
	fill_little(&world);
	save(&world);
	cr_assert_eq(world.report.page_count, MEMORY_BYTES / HV_PAGE_BYTES);
	cr_assert_eq(world.report.zero_page_count, MEMORY_BYTES / HV_PAGE_BYTES - 11);
	cr_assert_eq(world.report.raw_page_count, 1);
	cr_assert_eq(world.report.lz4_page_count, 10);
	/* Only the two chunks that hold something were looked at. */
	cr_assert_leq(allocated_bytes(&world), 2 * HV_RAM_CHUNK_BYTES);
	memory_drop(&world);

	memory_new(&world);
	cr_assert_eq(restore(&world, &err), 0, "%s", err.text);
	cr_assert_eq(world.report.raw_page_count, 1);
	cr_assert_eq(world.report.lz4_page_count, 10);
	cr_assert_eq(world.report.zero_page_count, MEMORY_BYTES / HV_PAGE_BYTES - 11);
	cr_assert_leq(allocated_bytes(&world), 64 * HV_PAGE_BYTES, "zero pages were touched");
	check_little(&world);
	world_fini(&world);
}

Test(ram_state, untouched_memory_is_one_section)
{
	struct hv_state_reader *reader = NULL;
	struct base_error err = { 0 };
	struct world world;

	world_init(&world);
	save(&world);
	cr_assert_eq(world.report.zero_page_count, MEMORY_BYTES / HV_PAGE_BYTES);
	cr_assert_eq(hv_state_reader_open(world.fd, &reader, &err), 0);
	cr_assert_eq(hv_state_section_count(reader), 1);
	hv_state_reader_free(reader);
	cr_assert_eq(restore(&world, &err), 0, "%s", err.text);
	world_fini(&world);
}

Test(ram_state, populated_zero_memory_is_one_section_too)
{
	struct hv_state_reader *reader = NULL;
	struct base_error err = { 0 };
	struct world world;

	world_init(&world);
	cr_assert_eq(hv_memory_populate(world.memory, &err), 0, "%s", err.text);
	save(&world);
	cr_assert_eq(hv_state_reader_open(world.fd, &reader, &err), 0);
	cr_assert_eq(hv_state_section_count(reader), 1);
	hv_state_reader_free(reader);
	world_fini(&world);
}

Test(ram_state, round_trip_of_everything)
{
	BASE_FREE uint8_t *copy = malloc(MEMORY_BYTES);
	struct base_error err = { 0 };
	struct world world;
	uint8_t *all = NULL;

	world_init(&world);
	all = hv_slat_arrival_pages(world.slat, 0, MEMORY_BYTES / HV_PAGE_BYTES);
	for (uint64_t i = 0; i < MEMORY_BYTES / HV_PAGE_BYTES; i++) {
		uint64_t kind = (i / 512) % 4 == 3 ? i % 3 : (i / 512) % 4;

		if (kind == 1)
			fill_random(all + i * HV_PAGE_BYTES, HV_PAGE_BYTES, i);
		if (kind == 2)
			memset(all + i * HV_PAGE_BYTES, (int)i | 1, HV_PAGE_BYTES);
	}
	memcpy(copy, all, MEMORY_BYTES);
	save(&world);
	memory_drop(&world);
	memory_new(&world);
	cr_assert_eq(restore(&world, &err), 0, "%s", err.text);
	cr_assert_eq(memcmp(copy, hv_slat_pages(world.slat, 0, MEMORY_BYTES / HV_PAGE_BYTES),
			    MEMORY_BYTES),
		     0);
	world_fini(&world);
}

/* Sections made by hand: all of memory but what @skip says is zero. */
static void put_ram(struct hv_state_writer *writer, const struct hv_ram_table *table,
		    const void *data, uint32_t version, uint32_t instance)
{
	struct hv_state_key key = { .name = "ram", .instance = instance, .version = version };
	size_t table_bytes = hv_ram_table_bytes(table);
	size_t data_bytes = table->raw_bytes + table->lz4_bytes;
	BASE_FREE uint8_t *payload = malloc(table_bytes + data_bytes);
	struct base_error err = { 0 };

	hv_ram_table_encode(table, payload);
	if (data_bytes > 0)
		memcpy(payload + table_bytes, data, data_bytes);
	cr_assert_eq(hv_state_put(writer, &key, payload, table_bytes + data_bytes, &err), 0);
}

static struct hv_ram_table zeros(uint64_t first_chunk, uint64_t chunk_count)
{
	struct hv_ram_table table = { .first_page = first_chunk * 512,
				      .page_count = chunk_count * 512,
				      .run_count = 1 };

	table.runs[0] = (struct hv_ram_run){ HV_RAM_ZERO, 0, table.page_count };
	return table;
}

static void refused(struct world *world, struct hv_state_writer *writer, int code, const char *text)
{
	struct base_error err = { 0 };

	cr_assert_eq(hv_state_finish(writer, &err), 0);
	hv_state_writer_free(writer);
	cr_assert_eq(restore(world, &err), code, "%s", err.text);
	cr_assert_not_null(strstr(err.text, text), "'%s' is not in '%s'", text, err.text);
	cr_assert_eq(ftruncate(world->fd, 0), 0);
}

static struct hv_state_writer *begin(struct world *world)
{
	struct hv_state_writer *writer = NULL;
	struct base_error err = { 0 };

	cr_assert_eq(hv_state_writer_new(world->fd, &writer, &err), 0, "%s", err.text);
	return writer;
}

Test(ram_state, coverage_is_exactly_once)
{
	static struct hv_ram_table table;
	struct hv_state_writer *writer = NULL;
	struct world world;

	world_init(&world);
	writer = begin(&world);
	table = zeros(0, CHUNKS - 1);
	put_ram(writer, &table, NULL, 1, 0);
	refused(&world, writer, -EBADMSG, "RAM page 15872 is in no section");

	writer = begin(&world);
	table = zeros(0, CHUNKS);
	put_ram(writer, &table, NULL, 1, 0);
	table = zeros(3, 1);
	put_ram(writer, &table, NULL, 1, 0);
	refused(&world, writer, -EBADMSG, "page 1536 comes twice");

	writer = begin(&world);
	table = zeros(0, CHUNKS + 1);
	put_ram(writer, &table, NULL, 1, 0);
	refused(&world, writer, -EBADMSG, "16896 pages from 0, there are 16384");

	writer = begin(&world);
	table = zeros(UINT64_MAX / 512, 1);
	put_ram(writer, &table, NULL, 1, 0);
	refused(&world, writer, -EBADMSG, "there are 16384");

	writer = begin(&world);
	refused(&world, writer, -EBADMSG, "RAM page 0 is in no section");
	world_fini(&world);
}

Test(ram_state, versions_and_instances)
{
	static struct hv_ram_table table;
	struct hv_state_key key = { .name = "ram", .version = 1 };
	struct hv_state_writer *writer = NULL;
	struct base_error err = { 0 };
	struct world world;

	world_init(&world);
	table = zeros(0, CHUNKS);
	writer = begin(&world);
	put_ram(writer, &table, NULL, 2, 0);
	refused(&world, writer, -ENOTSUP, "section 'ram' has version 2, newest known is 1");
	writer = begin(&world);
	put_ram(writer, &table, NULL, 1, 1);
	refused(&world, writer, -EBADMSG, "instance 1");
	writer = begin(&world);
	cr_assert_eq(hv_state_put(writer, &key, NULL, 0, &err), 0);
	refused(&world, writer, -EBADMSG, "ram: empty");
	writer = begin(&world);
	cr_assert_eq(hv_state_put(writer, &key, "abc", 3, &err), 0);
	refused(&world, writer, -EBADMSG, "ram: truncated");
	world_fini(&world);
}

Test(ram_state, lz4_that_does_not_decode)
{
	static struct hv_ram_table table;
	struct hv_state_writer *writer = NULL;
	uint8_t garbage[4000];
	struct world world;

	world_init(&world);
	memset(garbage, 0xff, sizeof(garbage));
	table = (struct hv_ram_table){ .page_count = 512, .run_count = 2 };
	table.runs[0] = (struct hv_ram_run){ HV_RAM_LZ4, sizeof(garbage), 16 };
	table.runs[1] = (struct hv_ram_run){ HV_RAM_ZERO, 0, 496 };
	table.lz4_bytes = sizeof(garbage);
	writer = begin(&world);
	put_ram(writer, &table, garbage, 1, 0);
	refused(&world, writer, -EBADMSG, "4000 bytes of LZ4 do not decode to 65536");

	/* A block that decodes, but to one byte. */
	memcpy(garbage, "\x10x", 2);
	table.runs[0].stored_bytes = 2;
	table.lz4_bytes = 2;
	writer = begin(&world);
	put_ram(writer, &table, garbage, 1, 0);
	refused(&world, writer, -EBADMSG, "2 bytes of LZ4 do not decode to 65536");
	world_fini(&world);
}

/* The checksum alone protects raw pages. */
Test(ram_state, changed_raw_page_fails_its_checksum)
{
	struct base_error err = { 0 };
	struct world world;
	struct stat status;
	uint8_t *bytes = NULL;
	uint8_t needle[64];
	uint8_t *found = NULL;

	world_init(&world);
	fill_little(&world);
	save(&world);
	cr_assert_eq(fstat(world.fd, &status), 0);
	bytes = mmap(NULL, (size_t)status.st_size, PROT_READ | PROT_WRITE, MAP_SHARED, world.fd, 0);
	fill_random(needle, sizeof(needle), 9);
	found = memmem(bytes, (size_t)status.st_size, needle, sizeof(needle));
	cr_assert_not_null(found);
	cr_assert_eq((size_t)(found - bytes) % BLOCK, 0, "raw pages are aligned in the file");
	found[100] ^= 1;
	memory_drop(&world);
	memory_new(&world);
	cr_assert_eq(restore(&world, &err), -EBADMSG);
	cr_assert_not_null(strstr(err.text, "corrupted"), "%s", err.text);
	munmap(bytes, (size_t)status.st_size);
	world_fini(&world);
}

Test(ram_state, flip_in_every_byte_and_truncation_are_refused, .timeout = 250)
{
	struct base_error err = { 0 };
	struct world world;
	struct stat status;
	uint8_t *bytes = NULL;

	world_init(&world);
	fill_little(&world);
	save(&world);
	cr_assert_eq(fstat(world.fd, &status), 0);
	bytes = mmap(NULL, (size_t)status.st_size, PROT_READ | PROT_WRITE, MAP_SHARED, world.fd, 0);
	for (off_t i = 0; i < status.st_size; i += depth_stride()) {
		bytes[i] ^= (uint8_t)(1u << i % 8);
		cr_assert_eq(restore(&world, &err), -EBADMSG, "byte %ld: %s", i, err.text);
		bytes[i] ^= (uint8_t)(1u << i % 8);
	}
	munmap(bytes, (size_t)status.st_size);
	cr_assert_eq(restore(&world, &err), 0, "%s", err.text);
	for (off_t size = status.st_size - 1; size >= 0; size -= 97) {
		cr_assert_eq(ftruncate(world.fd, size), 0);
		cr_assert_eq(restore(&world, &err), -EBADMSG, "%ld bytes: %s", size, err.text);
	}
	world_fini(&world);
}

Test(ram_state, write_that_fails)
{
	struct hv_state_writer *writer = NULL;
	struct base_error err = { 0 };
	struct world world;

	world_init(&world);
	close(world.fd);
	world.fd = memfd_create("state", MFD_CLOEXEC | MFD_ALLOW_SEALING);
	fill_little(&world);
	writer = begin(&world);
	cr_assert_eq(fcntl(world.fd, F_ADD_SEALS, F_SEAL_GROW), 0);
	cr_assert_eq(hv_ram_save(world.slat, world.pool, writer, NULL, &err), -EPERM);
	cr_assert_not_null(strstr(err.text, "section 'ram'"), "%s", err.text);
	hv_state_writer_free(writer);
	world_fini(&world);
}

Test(ram_state, direct_io)
{
	char path[] = TEST_BINARY_DIR "/ram-direct-XXXXXX";
	struct base_error err = { 0 };
	struct world world;

	world_init(&world);
	close(world.fd);
	world.fd = mkstemp(path);
	cr_assert_geq(world.fd, 0);
	fill_little(&world);
	save(&world);
	cr_assert_eq(fsync(world.fd), 0);
	close(world.fd);
	world.fd = open(path, O_RDONLY | O_DIRECT | O_CLOEXEC);
	unlink(path);
	if (world.fd < 0)
		cr_skip_test("this file system has no O_DIRECT");
	memory_drop(&world);
	memory_new(&world);
	cr_assert_eq(restore(&world, &err), 0, "%s", err.text);
	check_little(&world);
	world_fini(&world);
}

Test(ram_state, every_allocation_may_fail)
{
	struct base_error err = { 0 };
	struct world world;
	unsigned int failures = 0;

	world_init(&world);
	fill_little(&world);
	save(&world);
	for (unsigned int k = 0;; k++) {
		int code = 0;

		alloc_fail_at(k);
		code = restore(&world, &err);
		if (!alloc_fail_done()) {
			cr_assert_eq(code, 0, "%s", err.text);
			break;
		}
		cr_assert_eq(code, -ENOMEM);
		failures++;
	}
	cr_assert_gt(failures, 2);
	world_fini(&world);
}
