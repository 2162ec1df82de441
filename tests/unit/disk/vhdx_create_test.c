/* SPDX-License-Identifier: Apache-2.0 */
#include <criterion/criterion.h>
#include <errno.h>
#include <string.h>

#include "base/bytes.h"
#include "tests/support/vhdx_file.h"

#define NAME "made.vhdx"

static struct vhdx_world world;
static struct base_error err;

static void setup(void)
{
	vhdx_world_init(&world);
}

static void teardown(void)
{
	vhdx_world_fini(&world);
}

TestSuite(vhdx_create, .init = setup, .fini = teardown);

static int create(const struct disk_create_options *options, struct image *parent)
{
	return vhdx_create(world.store, NAME, world.loop, options, parent, &err);
}

static struct image *open_it(const char *name)
{
	struct image *image = NULL;

	cr_assert_eq(vhdx_file_open(&world, name, &image, &err), 0, "%s", err.text);
	return image;
}

static void remove_it(void)
{
	cr_assert_eq(store_remove(world.store, NAME, &err), 0);
}

Test(vhdx_create, every_block_and_sector_size)
{
	static const uint32_t sectors[3][2] = { { 512, 512 }, { 512, 4096 }, { 4096, 4096 } };

	for (uint32_t block = 1 << 20; block <= 256 << 20; block *= 2) {
		for (uint32_t i = 0; i < 3; i++) {
			const struct disk_create_options options = {
				.kind = DISK_DYNAMIC,
				.size_bytes = (5ULL << 30) + sectors[i][0],
				.block_bytes = block,
				.logical_sector_bytes = sectors[i][0],
				.physical_sector_bytes = sectors[i][1],
				.log_bytes = i << 20,
			};
			struct image *image;

			cr_assert_eq(create(&options, NULL), 0, "%s", err.text);
			image = open_it(NAME);
			cr_assert_eq(image->geometry.size_bytes, options.size_bytes);
			cr_assert_eq(image->geometry.logical_sector_bytes, sectors[i][0]);
			cr_assert_eq(image->geometry.physical_sector_bytes, sectors[i][1]);
			cr_assert_eq(vhdx_of(image)->block_bytes, block);
			cr_assert_eq(vhdx_of(image)->header.log_bytes, (i == 0 ? 1 : i) << 20);
			image->ops->close(image);
			remove_it();
		}
	}
}

Test(vhdx_create, the_largest_disk)
{
	const struct disk_create_options options = { .kind = DISK_DYNAMIC,
						     .size_bytes = 64ULL << 40,
						     .block_bytes = 1 << 20 };
	struct image *image;

	cr_assert_eq(create(&options, NULL), 0, "%s", err.text);
	image = open_it(NAME);
	cr_assert_eq(vhdx_of(image)->block_count, 1ULL << 26);
	cr_assert_eq(image->ops->activate(image, 0, NULL, &err), 0, "%s", err.text);
	cr_assert_eq(image->ops->deactivate(image, &err), 0, "%s", err.text);
	image->ops->close(image);
}

Test(vhdx_create, a_fixed_disk_has_all_its_blocks)
{
	const struct disk_create_options options = { .kind = DISK_FIXED,
						     .size_bytes = (12ULL << 30) + 512,
						     .block_bytes = 64 << 20 };
	struct image *image;
	uint64_t entries[256];
	uint8_t data[512];

	cr_assert_eq(create(&options, NULL), 0, "%s", err.text);
	image = open_it(NAME);
	cr_assert_eq(image->kind, DISK_FIXED);
	cr_assert_eq(vhdx_of(image)->file_bytes, 4 * VHDX_MIB + 193 * (64ULL << 20));
	vhdx_file_peek(&world, NAME, 3 * VHDX_MIB, entries, sizeof(entries));
	for (uint64_t block = 0; block < 193; block++) {
		uint64_t entry = base_get_le64(&entries[vhdx_bat_index(vhdx_of(image), block)]);

		cr_assert_eq(entry, (4 * VHDX_MIB + block * (64ULL << 20)) | VHDX_BLOCK_FULL);
	}
	cr_assert_eq(entries[64], 0, "a sector bitmap's place");
	cr_assert_eq(vhdx_file_io(image, DISK_READ, 12ULL << 30, data, sizeof(data)), 0);
	cr_assert(base_is_zero(data, sizeof(data)));
	image->ops->close(image);
}

static void make_child(const char *parent, const char *child, const char *relative)
{
	const struct disk_create_options options = { .kind = DISK_DIFFERENCING };
	struct image *base;
	struct image *image;

	vhdx_file_make(&world, parent);
	base = open_it(parent);
	cr_assert_eq(vhdx_create(world.store, child, world.loop, &options, base, &err), 0, "%s",
		     err.text);
	image = open_it(child);
	cr_assert_str_eq(vhdx_of(image)->meta.locator.relative, relative);
	cr_assert_str_eq(image->parent_is.name, parent);
	cr_assert_eq(image->parent_is.format, DISK_VHDX);
	cr_assert(disk_guid_equal(&image->parent_is.data_id, &base->data_id));
	cr_assert_eq(image->kind, DISK_DIFFERENCING);
	cr_assert_eq(image->geometry.size_bytes, base->geometry.size_bytes);
	cr_assert(disk_guid_equal(&image->geometry.id, &base->geometry.id));
	cr_assert_eq(vhdx_of(image)->block_bytes, 2 << 20);
	image->ops->close(image);
	base->ops->close(base);
}

Test(vhdx_create, a_child_finds_its_parent)
{
	make_child("base.vhdx", "child.vhdx", ".\\base.vhdx");
	make_child("a/base.vhdx", "a/b/child.vhdx", "..\\base.vhdx");
	make_child("c/base.vhdx", "d/e/child.vhdx", "..\\..\\c\\base.vhdx");
	make_child("f/g/base.vhdx", "f/child.vhdx", ".\\g\\base.vhdx");
	make_child("same.vhdx", "samechild.vhdx", ".\\same.vhdx");
}

static void refused(const struct disk_create_options *options, struct image *parent,
		    const char *text)
{
	uint64_t bytes;

	cr_assert_eq(create(options, parent), -EINVAL, "%s", err.text);
	cr_assert_not_null(strstr(err.text, text), "%s", err.text);
	cr_assert_not(fake_store_file_bytes(world.store, NAME, &bytes));
}

Test(vhdx_create, sizes_that_are_not_allowed)
{
	struct disk_create_options good = { .kind = DISK_DYNAMIC, .size_bytes = 1 << 30 };
	struct disk_create_options bad = good;

	bad.size_bytes = 513;
	refused(&bad, NULL, "size 513: a multiple of the sector's 512 bytes");
	bad.size_bytes = 0;
	refused(&bad, NULL, "size 0");
	bad.size_bytes = (64ULL << 40) + 512;
	refused(&bad, NULL, "at most 70368744177664 (64 TiB)");
	bad = good;
	bad.block_bytes = 3 << 20;
	refused(&bad, NULL, "block size 3145728: a power of two");
	bad.block_bytes = 512 << 20;
	refused(&bad, NULL, "block size 536870912");
	bad = good;
	bad.logical_sector_bytes = 1024;
	refused(&bad, NULL, "logical sector size 1024: 512 or 4096");
	bad = good;
	bad.logical_sector_bytes = 4096;
	bad.physical_sector_bytes = 512;
	refused(&bad, NULL, "physical sector size 512");
	bad = good;
	bad.log_bytes = 4096;
	refused(&bad, NULL, "log size 4096: a multiple of 1 MiB");
	bad.log_bytes = 128 << 20;
	refused(&bad, NULL, "log size 134217728");
	bad = good;
	bad.kind = DISK_KIND_INVALID;
	refused(&bad, NULL, "fixed, dynamic or differencing");
	bad.kind = DISK_DIFFERENCING;
	refused(&bad, NULL, "needs a parent");
}

Test(vhdx_create, children_that_do_not_fit_their_parent)
{
	struct disk_create_options options = { .kind = DISK_DIFFERENCING, .size_bytes = 1 << 20 };
	struct vhdx_world other;
	struct image *base;

	vhdx_file_make(&world, "base.vhdx");
	base = open_it("base.vhdx");
	refused(&options, base, "at least as large as its parent");
	options.size_bytes = 0;
	options.logical_sector_bytes = 4096;
	refused(&options, base, "a child has the same");
	options.logical_sector_bytes = 0;
	options.kind = DISK_DYNAMIC;
	refused(&options, base, "it has no parent");
	base->ops->close(base);

	vhdx_world_init(&other);
	vhdx_file_make(&other, "base.vhdx");
	cr_assert_eq(vhdx_file_open(&other, "base.vhdx", &base, &err), 0);
	options.kind = DISK_DIFFERENCING;
	refused(&options, base, "is in another store");
	base->ops->close(base);
	vhdx_world_fini(&other);

	vhdx_file_make(&world, "ba\\se.vhdx");
	base = open_it("ba\\se.vhdx");
	refused(&options, base, "backslash");
	base->ops->close(base);
}

Test(vhdx_create, nothing_is_overwritten)
{
	const struct disk_create_options options = { .kind = DISK_DYNAMIC, .size_bytes = 1 << 30 };

	vhdx_file_make(&world, NAME);
	cr_assert_eq(create(&options, NULL), -EEXIST, "%s", err.text);
	cr_assert_not_null(strstr(err.text, NAME));
}

static int count(void *context, const char *name, uint64_t size_bytes)
{
	(void)name;
	(void)size_bytes;
	*(int *)context += 1;
	return 0;
}

Test(vhdx_create, a_full_or_failing_store_is_left_as_it_was)
{
	const struct disk_create_options options = { .kind = DISK_FIXED, .size_bytes = 64 << 20 };

	for (uint64_t k = 1;; k++) {
		const struct fake_store_plan plan = { .fail_at = k, .fail_code = -ENOSPC };
		int files = 0;
		int code;

		fake_store_set_plan(world.store, &plan);
		code = create(&options, NULL);
		if (code == 0) {
			cr_assert_gt(k, 5);
			break;
		}
		cr_assert_eq(code, -ENOSPC, "%s", err.text);
		cr_assert_eq(store_list(world.store, "", count, &files, &err), 0);
		cr_assert_eq(files, 0, "request %lu", k);
	}
}

/* Whenever the power fails, there is no file of that name or a whole one. */
Test(vhdx_create, a_crash_never_leaves_half_a_disk)
{
	const struct disk_create_options options = { .kind = DISK_FIXED, .size_bytes = 3 << 20 };
	uint64_t events;

	cr_assert_eq(fake_store_record(world.store, &err), 0);
	cr_assert_eq(create(&options, NULL), 0, "%s", err.text);
	events = fake_store_event_count(world.store);
	for (uint64_t i = 0; i <= events; i++) {
		struct vhdx_world after = { .loop = world.loop };
		struct image *image = NULL;
		int code;

		cr_assert_eq(
			fake_store_crash(world.store, i, FAKE_LOSE_SECTORS, i, &after.store, &err),
			0);
		code = vhdx_file_open(&after, NAME, &image, &err);
		cr_assert(code == -ENOENT || code == 0, "event %lu: %s", i, err.text);
		if (code == 0)
			image->ops->close(image);
		store_free(after.store);
	}
}
