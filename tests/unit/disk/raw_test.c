/* SPDX-License-Identifier: Apache-2.0 */
#include <criterion/criterion.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "tests/support/image_rig.h"

#define MIB (1ULL << 20)

static const struct image_ops *const raw = &image_raw_ops;

static void make(struct image_rig *rig, uint64_t size_bytes, enum disk_kind kind)
{
	const struct disk_create_options options = { .format = DISK_RAW,
						     .kind = kind,
						     .size_bytes = size_bytes };
	struct base_error err = { 0 };

	image_rig_init(rig);
	cr_assert_eq(image_rig_create(rig, raw, "disk.raw", &options, NULL, &err), 0, "%s",
		     err.text);
}

static int resize(struct image *image, uint64_t size_bytes)
{
	return image_rig_do(image, DISK_RESIZE, 0, size_bytes, NULL, 0);
}

Test(raw, random_requests_agree_with_a_model)
{
	for (uint64_t seed = 1; seed <= 10; seed++) {
		struct image_rig rig;
		struct image *image;
		uint8_t *model = calloc(1, 2 * MIB / 512);

		make(&rig, 2 * MIB, seed % 2 == 0 ? DISK_FIXED : DISK_DYNAMIC);
		fake_store_set_plan(rig.store, &(struct fake_store_plan){ .seed = seed,
									  .reorder = true,
									  .delay_steps = 3,
									  .quiesce_every = 50 });
		image = image_rig_active(&rig, raw, "disk.raw");
		cr_assert_eq(image_rig_random(image, model, seed, 400), 0);
		cr_assert(image_rig_model_holds(image, model));
		image_rig_close(image);
		image = image_rig_active(&rig, raw, "disk.raw");
		cr_assert(image_rig_model_holds(image, model));
		image_rig_close(image);
		free(model);
		image_rig_fini(&rig);
	}
}

Test(raw, a_size_that_is_no_whole_sector_is_rounded_up)
{
	struct image_rig rig;
	struct image *image;
	uint8_t tail[1000];
	uint8_t sector[512];
	uint64_t bytes;

	make(&rig, 1 * MIB, DISK_DYNAMIC);
	memset(tail, 7, sizeof(tail));
	cr_assert(fake_store_poke(rig.store, "disk.raw", 1 * MIB, tail, sizeof(tail)));
	cr_assert(fake_store_file_bytes(rig.store, "disk.raw", &bytes));
	if (bytes != 1 * MIB + sizeof(tail))
		cr_skip_test("the fake store does not extend a file by poke");
	image = image_rig_active(&rig, raw, "disk.raw");
	cr_assert_eq(image->geometry.size_bytes, 1 * MIB + 1024);
	cr_assert_eq(image_rig_do(image, DISK_READ, 0, 1 * MIB + 512, sector, 512), 0);
	cr_assert_eq(sector[487], 7);
	cr_assert_eq(sector[488], 0);
	image_rig_close(image);
	image_rig_fini(&rig);
}

Test(raw, map_tells_data_from_holes)
{
	struct disk_extent extents[4];
	struct image_rig rig;
	struct image *image;
	static uint8_t data[65536];

	make(&rig, 1 * MIB, DISK_DYNAMIC);
	image = image_rig_active(&rig, raw, "disk.raw");
	memset(data, 1, sizeof(data));
	cr_assert_eq(image_rig_do(image, DISK_WRITE, 0, 256 << 10, data, sizeof(data)), 0);
	cr_assert_eq(image_rig_map(image, 0, extents, 4), 3);
	cr_assert_eq(extents[0].kind, DISK_EXTENT_UNMAPPED);
	cr_assert_eq(extents[1].kind, DISK_EXTENT_DATA);
	cr_assert_eq(extents[1].offset_bytes, 256 << 10);
	cr_assert_eq(extents[1].length_bytes, sizeof(data));
	cr_assert_eq(extents[2].kind, DISK_EXTENT_UNMAPPED);
	cr_assert_eq(extents[2].offset_bytes + extents[2].length_bytes, 1 * MIB);
	cr_assert_eq(image_rig_do(image, DISK_UNMAP, DISK_FUA, 0, NULL, 1 * MIB), 0);
	cr_assert_eq(image_rig_map(image, 0, extents, 4), 1);
	cr_assert(image_rig_is(image, 0, 1 * MIB, 0));
	image_rig_close(image);
	image_rig_fini(&rig);
}

Test(raw, resize_grows_and_shrinks_only_over_zeros)
{
	struct image_rig rig;
	struct image *image;
	uint8_t sector[512] = { 1 };
	uint64_t bytes;

	make(&rig, 1 * MIB, DISK_DYNAMIC);
	image = image_rig_active(&rig, raw, "disk.raw");
	cr_assert_eq(resize(image, 1 * MIB + 1), -EINVAL);
	cr_assert_eq(resize(image, 4 * MIB), 0);
	cr_assert_eq(image->geometry.size_bytes, 4 * MIB);
	cr_assert_eq(image_rig_do(image, DISK_WRITE, 0, 3 * MIB, sector, 512), 0);
	cr_assert_eq(resize(image, 2 * MIB), -EBUSY);
	cr_assert_eq(resize(image, 3 * MIB + 512), 0, "only what is cut off counts");
	memset(sector, 0, sizeof(sector));
	cr_assert_eq(image_rig_do(image, DISK_WRITE, 0, 3 * MIB, sector, 512), 0);
	cr_assert_eq(resize(image, 1 * MIB), 0, "data that is all zeros may go");
	image_rig_close(image);
	cr_assert(fake_store_file_bytes(rig.store, "disk.raw", &bytes));
	cr_assert_eq(bytes, 1 * MIB);
	image_rig_fini(&rig);
}

Test(raw, a_failed_flush_is_final_until_it_is_opened_again)
{
	struct base_error err = { 0 };
	struct image_rig rig;
	struct image *image;
	uint8_t sector[512] = { 1 };

	make(&rig, 1 * MIB, DISK_DYNAMIC);
	image = image_rig_active(&rig, raw, "disk.raw");
	fake_store_set_plan(rig.store, &(struct fake_store_plan){ .fail_at = 1,
								  .fail_ops = 1U << STORE_FLUSH,
								  .fail_code = -EIO });
	cr_assert_eq(image_rig_do(image, DISK_WRITE, 0, 0, sector, 512), 0);
	cr_assert_eq(image_rig_do(image, DISK_FLUSH, 0, 0, NULL, 0), -EIO);
	cr_assert_eq(image_rig_do(image, DISK_FLUSH, 0, 0, NULL, 0), -EIO);
	cr_assert_eq(image_rig_do(image, DISK_WRITE, 0, 0, sector, 512), -EIO);
	cr_assert_eq(image_rig_do(image, DISK_READ, 0, 0, sector, 512), 0);
	cr_assert_eq(raw->deactivate(image, &err), -EIO);
	cr_assert_eq(raw->activate(image, STORE_EPOCH_NONE, NULL, &err), 0);
	cr_assert_eq(image_rig_do(image, DISK_FLUSH, 0, 0, NULL, 0), 0);
	image_rig_close(image);
	image_rig_fini(&rig);
}

Test(raw, bad_options_are_refused)
{
	static const struct disk_create_options bad[] = {
		{ .kind = DISK_DYNAMIC, .size_bytes = 0 },
		{ .kind = DISK_DYNAMIC, .size_bytes = 513 },
		{ .kind = DISK_DIFFERENCING, .size_bytes = 512 },
		{ .kind = DISK_FIXED, .size_bytes = UINT64_MAX - 511 },
	};
	struct base_error err = { 0 };
	struct image_rig rig;

	image_rig_init(&rig);
	for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++)
		cr_assert_eq(image_rig_create(&rig, raw, "x", &bad[i], NULL, &err), -EINVAL);
	image_rig_fini(&rig);
}

/* Whatever fails: the name is not there, or the image is whole. */
Test(raw, creation_is_whole_or_not_at_all)
{
	const struct disk_create_options options = { .kind = DISK_FIXED, .size_bytes = 1 * MIB };
	struct base_error err = { 0 };
	struct image_rig rig;
	struct image *image;
	uint64_t bytes;
	int code = -EIO;

	image_rig_init(&rig);
	for (uint64_t k = 1; code < 0; k++) {
		fake_store_set_plan(rig.store,
				    &(struct fake_store_plan){ .fail_at = k, .fail_code = -EIO });
		code = image_rig_create(&rig, raw, "disk.raw", &options, NULL, &err);
		if (code < 0)
			cr_assert_not(fake_store_file_bytes(rig.store, "disk.raw", &bytes));
		cr_assert_not(fake_store_file_bytes(rig.store, ".disk.raw.part", &bytes));
	}
	fake_store_set_plan(rig.store, &(struct fake_store_plan){ 0 });
	cr_assert_eq(image_rig_create(&rig, raw, "disk.raw", &options, NULL, &err), -EEXIST);
	image = image_rig_active(&rig, raw, "disk.raw");
	cr_assert_eq(image->geometry.size_bytes, 1 * MIB);
	image_rig_close(image);
	image_rig_fini(&rig);
}

Test(raw, check_and_info)
{
	struct disk_check_result result = { .damages = 1 };
	struct disk_layer_info info;
	struct base_error err = { 0 };
	struct image_rig rig;
	struct image *image;

	make(&rig, 1 * MIB, DISK_DYNAMIC);
	cr_assert_eq(image_rig_open(&rig, raw, "disk.raw", &image, &err), 0);
	cr_assert_eq(raw->check(image, false, NULL, NULL, &result, &err), 0);
	cr_assert_eq(result.damages, 0);
	cr_assert_eq(result.blocks_total, 0);
	cr_assert_eq(result.end_bytes, 1 * MIB);
	cr_assert_eq(raw->info(image, &info, &err), 0);
	cr_assert_eq(info.allocated_bytes, 0);
	cr_assert_eq(info.kind, DISK_DYNAMIC);
	raw->close(image);
	cr_assert_eq(image_rig_open(&rig, raw, "none", &image, &err), -ENOENT);
	image_rig_fini(&rig);
}
