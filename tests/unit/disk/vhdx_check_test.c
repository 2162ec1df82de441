/* SPDX-License-Identifier: Apache-2.0 */
#include <criterion/criterion.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/bytes.h"
#include "base/crc32c.h"
#include "tests/support/vhdx_file.h"

#define MIB  VHDX_MIB
#define NAME "disk.vhdx"
#define BAT  (3 * MIB)
#define DATA (4 * MIB)

static struct vhdx_world world;
static struct disk_check_result result;
static char told[16][256];
static uint32_t told_count;

static void setup(void)
{
	vhdx_world_init(&world);
	vhdx_file_make(&world, NAME);
}

static void teardown(void)
{
	vhdx_world_fini(&world);
}

TestSuite(vhdx_check, .init = setup, .fini = teardown);

static void report(void *context, enum disk_finding finding, const char *text)
{
	(void)context;
	(void)finding;
	if (told_count < 16)
		(void)snprintf(told[told_count], sizeof(told[0]), "%s", text);
	told_count++;
}

static bool was_told(const char *text)
{
	for (uint32_t i = 0; i < told_count && i < 16; i++) {
		if (strstr(told[i], text) != NULL)
			return true;
	}
	return false;
}

static int check_named(const char *name, bool repair)
{
	const struct disk_options options = {
		.store = world.store,
		.name = name,
		.format = DISK_VHDX,
		.loop = world.loop,
	};
	struct base_error err = { 0 };
	int code;

	told_count = 0;
	memset(&result, 0, sizeof(result));
	code = disk_check(&options, repair, report, NULL, &result, &err);
	return code;
}

static void check(bool repair)
{
	cr_assert_eq(check_named(NAME, repair), 0);
}

static void expect(uint64_t damages, uint64_t leaks, uint64_t repaired)
{
	cr_assert_eq(result.damages, damages, "%llu: %s", (unsigned long long)result.damages,
		     told[0]);
	cr_assert_eq(result.leaks, leaks, "%llu: %s", (unsigned long long)result.leaks, told[0]);
	cr_assert_eq(result.repaired, repaired, "%llu: %s", (unsigned long long)result.repaired,
		     told[0]);
}

static void entry_put(uint64_t index, uint64_t entry)
{
	uint8_t bytes[8];

	base_put_le64(bytes, entry);
	vhdx_file_poke(&world, NAME, BAT + index * 8, bytes, sizeof(bytes));
}

/* Blocks 0 and 1 have space and content. */
static void fill(void)
{
	struct image *image = NULL;
	uint8_t *bytes = malloc(2 * MIB);

	memset(bytes, 0x5a, 2 * MIB);
	cr_assert_eq(vhdx_file_open(&world, NAME, &image, NULL), 0);
	cr_assert_eq(image_vhdx_ops.activate(image, STORE_EPOCH_NONE, NULL, NULL), 0);
	cr_assert_eq(vhdx_file_io(image, DISK_WRITE, 0, bytes, 2 * MIB), 0);
	cr_assert_eq(image_vhdx_ops.deactivate(image, NULL), 0);
	image_vhdx_ops.close(image);
	free(bytes);
}

static uint64_t file_bytes(void)
{
	uint64_t bytes = 0;

	cr_assert(fake_store_file_bytes(world.store, NAME, &bytes));
	return bytes;
}

static void lengthen(uint64_t bytes)
{
	struct store_open_options options = { .loop = world.loop, .align_bytes = 512 };
	struct store_file *file = NULL;
	uint64_t epoch = 0;

	cr_assert_eq(store_open(world.store, NAME, &options, &file, NULL), 0);
	cr_assert_eq(store_acquire(file, STORE_EPOCH_NONE, NULL, &epoch, NULL), 0);
	cr_assert_eq(store_do(file, STORE_TRUNCATE, bytes, NULL, 0, NULL), 0);
	cr_assert_eq(store_release(file, NULL), 0);
	store_close(file);
}

/* The whole file, for comparing. */
static uint8_t *copy_of(uint64_t bytes)
{
	uint8_t *copy = malloc(bytes);

	vhdx_file_peek(&world, NAME, 0, copy, bytes);
	return copy;
}

Test(vhdx_check, a_new_disk_and_a_used_one_are_clean)
{
	check(false);
	expect(0, 0, 0);
	cr_assert_eq(result.blocks_total, 1024);
	cr_assert_eq(result.blocks_allocated, 0);
	fill();
	check(false);
	expect(0, 0, 0);
	cr_assert_eq(result.blocks_allocated, 2);
	cr_assert_eq(result.end_bytes, DATA + 2 * MIB);
	cr_assert_eq(file_bytes(), DATA + 2 * MIB);
	check(true);
	expect(0, 0, 0);
}

Test(vhdx_check, every_kind_is_clean)
{
	static const enum disk_kind kinds[] = { DISK_FIXED, DISK_DYNAMIC, DISK_DIFFERENCING };
	char name[32];

	for (uint32_t i = 0; i < 3; i++) {
		for (uint32_t shift = 20; shift <= 25; shift += 5) {
			const struct disk_create_options options = {
				.format = DISK_VHDX,
				.kind = kinds[i],
				.size_bytes = kinds[i] == DISK_DIFFERENCING ? 0 : 70 * MIB + 4096,
				.block_bytes = 1U << shift,
				.parent = kinds[i] == DISK_DIFFERENCING ? NAME : NULL,
			};

			(void)snprintf(name, sizeof(name), "k%u-%u.vhdx", i, shift);
			cr_assert_eq(disk_create(world.store, name, world.loop, &options, NULL), 0);
			cr_assert_eq(check_named(name, false), 0);
			expect(0, 0, 0);
			cr_assert_eq(check_named(name, true), 0);
			expect(0, 0, 0);
		}
	}
}

/* Where the header is that does, or does not count. */
static uint64_t header_place(bool current)
{
	uint8_t first[8], second[8];

	vhdx_file_peek(&world, NAME, VHDX_HEADER1_OFFSET + 8, first, sizeof(first));
	vhdx_file_peek(&world, NAME, VHDX_HEADER2_OFFSET + 8, second, sizeof(second));
	return (base_get_le64(first) > base_get_le64(second)) == current ? VHDX_HEADER1_OFFSET
									 : VHDX_HEADER2_OFFSET;
}

Test(vhdx_check, a_bad_header_copy_is_noted_and_written_anew)
{
	for (uint32_t round = 0; round < 4; round++) {
		/* In the last rounds the older header, which counts now, still names a log. */
		vhdx_file_poke(&world, NAME, header_place(round >= 2) + 100, "x", 1);
		check(false);
		expect(0, round < 2 ? 1 : 2, 0);
		cr_assert(was_told("the other header is whole"));
		check(true);
		cr_assert_eq(result.damages, 0);
		if (round < 2)
			expect(0, 0, 1);
		check(false);
		expect(0, 0, 0);
	}
}

Test(vhdx_check, a_broken_region_table_is_written_anew_from_its_copy)
{
	for (uint64_t at = VHDX_REGION1_OFFSET; at <= VHDX_REGION2_OFFSET; at += 65536) {
		uint8_t *before = NULL;

		fill();
		before = copy_of(file_bytes());
		vhdx_file_poke(&world, NAME, at + 40, "x", 1);
		check(false);
		expect(1, 0, 0);
		cr_assert(was_told("region table"));
		check(true);
		expect(0, 0, 1);
		check(false);
		expect(0, 0, 0);
		for (uint32_t i = 0; i < 2; i++) {
			uint8_t *now = copy_of(file_bytes());

			cr_assert_arr_eq(now + VHDX_REGION1_OFFSET, before + VHDX_REGION1_OFFSET,
					 2 * VHDX_REGION_TABLE_BYTES);
			cr_assert_arr_eq(now + 2 * MIB, before + 2 * MIB, 4 * MIB);
			free(now);
		}
		free(before);
	}
}

static void table_crc_put(uint8_t *table)
{
	base_put_le32(table + 4, 0);
	base_put_le32(table + 4, base_crc32c(0, table, VHDX_REGION_TABLE_BYTES));
}

Test(vhdx_check, two_whole_region_tables_that_differ_are_left_alone)
{
	uint8_t *table = malloc(VHDX_REGION_TABLE_BYTES);
	uint8_t *now = malloc(VHDX_REGION_TABLE_BYTES);

	vhdx_file_peek(&world, NAME, VHDX_REGION2_OFFSET, table, VHDX_REGION_TABLE_BYTES);
	table[60000] = 7;
	table_crc_put(table);
	vhdx_file_poke(&world, NAME, VHDX_REGION2_OFFSET, table, VHDX_REGION_TABLE_BYTES);
	check(true);
	expect(1, 0, 0);
	cr_assert(was_told("both whole, and different"));
	vhdx_file_peek(&world, NAME, VHDX_REGION2_OFFSET, now, VHDX_REGION_TABLE_BYTES);
	cr_assert_arr_eq(now, table, VHDX_REGION_TABLE_BYTES);
	free(table);
	free(now);
}

/* Its checksum is right, so somebody wrote it like that: no garbage. */
Test(vhdx_check, a_region_table_that_says_something_else_is_not_replaced)
{
	uint8_t *table = malloc(VHDX_REGION_TABLE_BYTES);
	uint8_t *now = malloc(VHDX_REGION_TABLE_BYTES);

	vhdx_file_peek(&world, NAME, VHDX_REGION2_OFFSET, table, VHDX_REGION_TABLE_BYTES);
	base_put_le64(table + 16 + 16, 1ULL << 50); /* past the end of the file */
	table_crc_put(table);
	vhdx_file_poke(&world, NAME, VHDX_REGION2_OFFSET, table, VHDX_REGION_TABLE_BYTES);
	check(true);
	expect(1, 0, 0);
	vhdx_file_peek(&world, NAME, VHDX_REGION2_OFFSET, now, VHDX_REGION_TABLE_BYTES);
	cr_assert_arr_eq(now, table, VHDX_REGION_TABLE_BYTES);
	free(table);
	free(now);
}

struct bad {
	uint64_t index;
	uint64_t entry;
	const char *text;
};

Test(vhdx_check, entries_that_are_damaged)
{
	static const struct bad bads[] = {
		{ 5, 4, "payload block 5" },
		{ 5, DATA | 7, "payload block 5" }, /* partial, without a parent */
		{ 5, (1ULL << 40) | 6, "past the end" },
		{ 5, 0xfffffffffff00006ULL, "payload block 5" },
		{ 5, (DATA + 2 * MIB) | 6, "past the end" },
		{ 5, DATA | 6, "overlaps" },      /* block 0's */
		{ 5, 0 | 6, "payload block 5" },  /* over the headers */
		{ 5, MIB | 6, "overlaps" },       /* the log */
		{ 5, (2 * MIB) | 6, "overlaps" }, /* the metadata */
		{ 5, (3 * MIB) | 6, "overlaps" }, /* the BAT itself */
	};

	for (size_t i = 0; i < sizeof(bads) / sizeof(bads[0]); i++) {
		uint64_t size;
		uint8_t *before, *after;

		if (i == 0)
			fill();
		entry_put(bads[i].index, bads[i].entry);
		lengthen(file_bytes()); /* acquired once: nothing else is new in what follows */
		size = file_bytes();
		before = copy_of(size);
		check(false);
		expect(1, 0, 0);
		cr_assert(was_told(bads[i].text), "%zu: %s", i, told[0]);
		check(true);
		expect(1, 0, 0);
		cr_assert_eq(file_bytes(), size);
		after = copy_of(size);
		cr_assert_arr_eq(after, before, size);
		free(before);
		free(after);
		entry_put(bads[i].index, 0);
	}
	check(false);
	expect(0, 0, 0);
}

Test(vhdx_check, an_entry_behind_the_disks_end_is_nobodys)
{
	entry_put(1024, 5);
	check(false);
	expect(0, 0, 0);
}

static void make_child(void)
{
	const struct disk_create_options options = {
		.format = DISK_VHDX,
		.kind = DISK_DIFFERENCING,
		.block_bytes = 2 << 20,
		.parent = NAME,
	};

	cr_assert_eq(disk_create(world.store, "child.vhdx", world.loop, &options, NULL), 0);
}

static void child_entry(uint64_t index, uint64_t entry)
{
	uint8_t bytes[8];

	base_put_le64(bytes, entry);
	vhdx_file_poke(&world, "child.vhdx", BAT + index * 8, bytes, sizeof(bytes));
}

Test(vhdx_check, a_partial_block_wants_its_bitmap)
{
	uint64_t ratio = (1ULL << 23) * 512 / (2 * MIB);

	make_child();
	vhdx_file_poke(&world, "child.vhdx", DATA + 3 * MIB - 1, "x", 1);
	child_entry(7, DATA | 7);
	cr_assert_eq(check_named("child.vhdx", false), 0);
	cr_assert_eq(result.damages, 1);
	cr_assert(was_told("bitmap block 0: not present"));
	child_entry(ratio, (DATA + 2 * MIB) | 6);
	cr_assert_eq(check_named("child.vhdx", false), 0);
	expect(0, 0, 0);
	child_entry(ratio, (DATA + MIB) | 6);
	cr_assert_eq(check_named("child.vhdx", false), 0);
	cr_assert_eq(result.damages, 1);
	cr_assert(was_told("bitmap block 0: at"));
	child_entry(ratio, 3);
	cr_assert_eq(check_named("child.vhdx", false), 0);
	cr_assert_eq(result.damages, 1, "state 3 is none of a bitmap");
}

Test(vhdx_check, space_at_the_end_is_cut_and_inside_is_kept)
{
	fill();
	entry_put(0, 0); /* a leak inside */
	lengthen(DATA + 2 * MIB + 5 * MIB + 512);
	check(false);
	expect(0, 2, 0);
	cr_assert_eq(result.leaked_bytes, 7 * MIB);
	cr_assert_eq(file_bytes(), DATA + 7 * MIB + 512, "nothing is changed without repair");
	check(true);
	expect(0, 1, 1);
	cr_assert(was_told("cut off"));
	cr_assert_eq(file_bytes(), DATA + 2 * MIB);
	check(false);
	expect(0, 1, 0);
	cr_assert_eq(result.leaked_bytes, MIB);
}

Test(vhdx_check, nothing_is_cut_when_the_tables_are_damaged)
{
	fill();
	lengthen(DATA + 9 * MIB);
	entry_put(9, (1ULL << 40) | 6);
	check(true);
	expect(1, 1, 0);
	cr_assert_eq(file_bytes(), DATA + 9 * MIB);
}

/* Others leave the place of what was unmapped in the entry, and may count on it. */
Test(vhdx_check, space_that_an_unmapped_entry_names_is_no_leak)
{
	fill();
	lengthen(DATA + 4 * MIB);
	entry_put(3, (DATA + 2 * MIB) | 3);
	check(false);
	expect(0, 1, 0);
	cr_assert_eq(result.leaked_bytes, MIB);
	check(true);
	expect(0, 0, 1);
	cr_assert_eq(file_bytes(), DATA + 3 * MIB, "the unmapped block's is still there");
	entry_put(4, DATA | 3); /* over block 0, whose data counts */
	lengthen(DATA + 4 * MIB);
	check(true);
	cr_assert_eq(result.damages, 0);
	cr_assert(was_told("left as they are"), "%s", told[0]);
	cr_assert_eq(file_bytes(), DATA + 4 * MIB);
}

/* Sessions that ended without a word: the log is told of, and nothing is changed by looking. */
Test(vhdx_check, a_dirty_log_is_noted_and_replayed_by_repair)
{
	struct store *clone = NULL;
	struct image *image = NULL;
	struct store *live = world.store;
	uint8_t bytes[4096];

	memset(bytes, 0x77, sizeof(bytes));
	cr_assert_eq(vhdx_file_open(&world, NAME, &image, NULL), 0);
	cr_assert_eq(image_vhdx_ops.activate(image, STORE_EPOCH_NONE, NULL, NULL), 0);
	cr_assert_eq(vhdx_file_io(image, DISK_WRITE, 17 * MIB, bytes, sizeof(bytes)), 0);
	cr_assert_eq(vhdx_file_io(image, DISK_FLUSH, 0, NULL, 0), 0);
	cr_assert_eq(fake_store_clone(world.store, &clone, NULL), 0);
	world.store = clone;
	check(false);
	cr_assert_eq(result.damages, 0);
	cr_assert_eq(result.blocks_allocated, 1, "as the log says");
	cr_assert(was_told("log at 0x100000: not empty"));
	check(true);
	cr_assert_eq(result.damages, 0);
	check(false);
	expect(0, 0, 0);
	cr_assert_eq(result.blocks_allocated, 1);
	world.store = live;
	cr_assert_eq(image_vhdx_ops.deactivate(image, NULL), 0);
	image_vhdx_ops.close(image);
	store_free(clone);
}

static uint32_t lines;
static void count_lines(void *context, enum disk_finding finding, const char *text)
{
	(void)context;
	(void)finding;
	(void)text;
	lines++;
}

/* 64 TB, blocks of 1 MiB, and every entry in 8 MiB of the BAT is damaged; a file of 2^60 bytes. */
Test(vhdx_check, a_hostile_image_is_bounded)
{
	const struct disk_create_options options = {
		.format = DISK_VHDX,
		.kind = DISK_DYNAMIC,
		.size_bytes = 64ULL << 40,
		.block_bytes = 1 << 20,
	};
	const struct disk_options open = {
		.store = world.store,
		.name = "huge.vhdx",
		.format = DISK_VHDX,
		.loop = world.loop,
	};
	uint8_t *bad = malloc(8 * MIB);

	memset(bad, 0xff, 8 * MIB);
	cr_assert_eq(disk_create(world.store, "huge.vhdx", world.loop, &options, NULL), 0);
	vhdx_file_poke(&world, "huge.vhdx", BAT, bad, 8 * MIB);
	lines = 0;
	cr_assert_eq(disk_check(&open, false, count_lines, NULL, &result, NULL), 0);
	cr_assert_gt(result.damages, MIB - 2048);
	cr_assert_eq(lines, 1001);
	free(bad);
}

Test(vhdx_check, a_file_that_claims_to_be_immense)
{
	lengthen(1ULL << 60);
	check(false);
	expect(0, 1, 0);
	cr_assert_eq(result.leaked_bytes, (1ULL << 60) - DATA);
	check(true);
	cr_assert_eq(result.damages, 0);
}

Test(vhdx_check, errors_of_the_store_are_told)
{
	struct fake_store_plan plan = { .fail_ops = 1U << STORE_READ, .fail_code = -EIO };
	uint64_t k = 1;

	fill();
	vhdx_file_poke(&world, NAME, VHDX_REGION2_OFFSET + 40, "x", 1);
	for (;; k++) {
		int code;

		plan.fail_at = k;
		fake_store_set_plan(world.store, &plan);
		code = check_named(NAME, false);
		if (code == 0)
			break;
		cr_assert_eq(code, -EIO);
	}
	cr_assert_gt(k, 5);
	plan.fail_ops = 0;
	for (k = 1;; k++) {
		bool over;

		vhdx_file_poke(&world, NAME, VHDX_REGION2_OFFSET + 40, "x", 1);
		plan.fail_at = k;
		fake_store_set_plan(world.store, &plan);
		(void)check_named(NAME, true);
		over = fake_store_request_count(world.store) < k;
		fake_store_set_plan(world.store, &(struct fake_store_plan){ 0 });
		check(true);
		cr_assert_eq(result.damages, 0);
		check(false);
		expect(0, 0, 0);
		cr_assert_eq(result.blocks_allocated, 2);
		if (over)
			break;
	}
	cr_assert_gt(k, 20);
}
