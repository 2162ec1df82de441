/* SPDX-License-Identifier: Apache-2.0 */
#include <criterion/criterion.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "hypervisor/disk/vhd_priv.h"
#include "tests/support/depth.h"
#include "tests/support/image_rig.h"

#define MIB   (1ULL << 20)
#define BLOCK (512U << 10)
#define NAME  "disk.vhd"

static const struct image_ops *const ops = &image_vhd_ops;

static void make(struct image_rig *rig, enum disk_kind kind, uint64_t size_bytes)
{
	const struct disk_create_options options = { .format = DISK_VHD,
						     .kind = kind,
						     .size_bytes = size_bytes,
						     .block_bytes =
							     kind == DISK_FIXED ? 0 : BLOCK };
	struct base_error err = { 0 };

	image_rig_init(rig);
	cr_assert_eq(image_rig_create(rig, ops, NAME, &options, NULL, &err), 0, "%s", err.text);
}

static struct disk_check_result check(struct image_rig *rig, bool repair)
{
	struct disk_check_result result = { 0 };
	struct base_error err = { 0 };
	struct image *image = NULL;

	cr_assert_eq(image_rig_open(rig, ops, NAME, &image, &err), 0, "%s", err.text);
	if (repair)
		cr_assert_eq(ops->activate(image, STORE_EPOCH_NONE, NULL, &err), 0, "%s", err.text);
	cr_assert_eq(ops->check(image, repair, NULL, NULL, &result, &err), 0, "%s", err.text);
	if (repair)
		cr_assert_eq(ops->deactivate(image, &err), 0, "%s", err.text);
	ops->close(image);
	return result;
}

static void clean(struct image_rig *rig)
{
	struct disk_check_result result = check(rig, false);

	cr_assert_eq(result.damages, 0);
	cr_assert_eq(result.leaks, 0);
}

Test(vhd, random_requests_agree_with_a_model)
{
	for (uint64_t seed = 1; seed <= 20; seed++) {
		enum disk_kind kind = seed % 4 == 0 ? DISK_FIXED : DISK_DYNAMIC;
		uint64_t size = 8 * MIB + seed * 512;
		uint8_t *model = calloc(1, size / 512);
		struct image_rig rig;
		struct image *image;

		make(&rig, kind, size);
		fake_store_set_plan(rig.store, &(struct fake_store_plan){ .seed = seed,
									  .reorder = true,
									  .delay_steps = 3,
									  .quiesce_every = 70 });
		for (uint64_t round = 0; round < 3; round++) {
			image = image_rig_active(&rig, ops, NAME);
			cr_assert_eq(image->geometry.size_bytes, size);
			cr_assert(image_rig_model_holds(image, model));
			cr_assert_eq(image_rig_random(image, model, seed * 7 + round, 200), 0);
			cr_assert(image_rig_model_holds(image, model));
			image_rig_close(image);
			clean(&rig);
		}
		free(model);
		image_rig_fini(&rig);
	}
}

/* The k-th request to the store fails: what a flush has acknowledged stays. */
Test(vhd, any_request_may_fail)
{
	static const int codes[] = { -EIO, -ENOSPC };

	for (uint64_t k = 1; k < 90; k += depth_stride()) {
		struct base_error err = { 0 };
		uint8_t *model = calloc(1, 4 * MIB / 512);
		struct image_rig rig;
		struct image *image;
		uint8_t *data = aligned_alloc(512, BLOCK);
		uint8_t kept[8] = { 0 };

		make(&rig, DISK_DYNAMIC, 4 * MIB);
		image = image_rig_active(&rig, ops, NAME);
		fake_store_set_plan(rig.store,
				    &(struct fake_store_plan){
					    .seed = k, .fail_at = k, .fail_code = codes[k % 2] });
		for (uint8_t i = 0; i < 8; i++) {
			memset(data, i + 1, BLOCK);
			if (image_rig_do(image, DISK_WRITE, 0, i * (uint64_t)BLOCK, data, BLOCK) ==
				    0 &&
			    image_rig_do(image, DISK_FLUSH, 0, 0, NULL, 0) == 0)
				kept[i] = (uint8_t)(i + 1);
		}
		fake_store_set_plan(rig.store, &(struct fake_store_plan){ 0 });
		(void)!ops->deactivate(image, &err);
		ops->close(image);
		image = image_rig_active(&rig, ops, NAME);
		for (uint32_t i = 0; i < 8; i++)
			if (kept[i] != 0)
				cr_assert(image_rig_is(image, i * (uint64_t)BLOCK, BLOCK, kept[i]),
					  "k %u block %u", (unsigned int)k, i);
		image_rig_close(image);
		cr_assert_eq(check(&rig, false).damages, 0);
		free(data);
		free(model);
		image_rig_fini(&rig);
	}
}

Test(vhd, creation_is_whole_or_not_at_all)
{
	const struct disk_create_options options = { .kind = DISK_DYNAMIC, .size_bytes = 8 * MIB };
	struct base_error err = { 0 };
	struct image_rig rig;
	uint64_t bytes;
	int code = -EIO;

	image_rig_init(&rig);
	for (uint64_t k = 1; code < 0; k++) {
		fake_store_set_plan(rig.store,
				    &(struct fake_store_plan){ .fail_at = k, .fail_code = -EIO });
		code = image_rig_create(&rig, ops, NAME, &options, NULL, &err);
		if (code < 0)
			cr_assert_not(fake_store_file_bytes(rig.store, NAME, &bytes));
	}
	fake_store_set_plan(rig.store, &(struct fake_store_plan){ 0 });
	clean(&rig);
	image_rig_fini(&rig);
}

Test(vhd, bad_options_are_refused)
{
	static const struct disk_create_options bad[] = {
		{ .kind = DISK_DYNAMIC, .size_bytes = 0 },
		{ .kind = DISK_DYNAMIC, .size_bytes = 1000 },
		{ .kind = DISK_DYNAMIC, .size_bytes = VHD_SIZE_MAX + 512 },
		{ .kind = DISK_DYNAMIC, .size_bytes = 512, .block_bytes = 4096 },
		{ .kind = DISK_DYNAMIC, .size_bytes = 512, .block_bytes = 3 << 20 },
		{ .kind = DISK_FIXED, .size_bytes = 512, .block_bytes = BLOCK },
		{ .kind = DISK_DYNAMIC, .size_bytes = 512, .logical_sector_bytes = 4096 },
		{ .kind = DISK_DYNAMIC, .size_bytes = 512, .physical_sector_bytes = 4096 },
		{ .kind = DISK_DIFFERENCING, .size_bytes = 512 },
	};
	struct base_error err = { 0 };
	struct image_rig rig;

	image_rig_init(&rig);
	for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++)
		cr_assert_eq(image_rig_create(&rig, ops, "x", &bad[i], NULL, &err), -EINVAL);
	image_rig_fini(&rig);
}

Test(vhd, a_lost_footer_is_taken_from_the_copy_and_mended)
{
	uint8_t sector[512] = { 5 };
	uint8_t junk[512] = { 9 };
	struct image_rig rig;
	struct image *image;
	uint64_t bytes;

	make(&rig, DISK_DYNAMIC, 4 * MIB);
	image = image_rig_active(&rig, ops, NAME);
	cr_assert_eq(image_rig_do(image, DISK_WRITE, DISK_FUA, MIB, sector, 512), 0);
	image_rig_close(image);
	cr_assert(fake_store_file_bytes(rig.store, NAME, &bytes));
	cr_assert(fake_store_poke(rig.store, NAME, bytes - 512, junk, 512));
	cr_assert_eq(check(&rig, false).damages, 0);
	cr_assert_eq(check(&rig, false).leaks, 1);
	cr_assert_eq(check(&rig, true).repaired, 1);
	clean(&rig);
	cr_assert(fake_store_poke(rig.store, NAME, 0, junk, 512));
	cr_assert_eq(check(&rig, false).damages, 1);
	cr_assert_eq(check(&rig, true).repaired, 1);
	clean(&rig);
	image = image_rig_active(&rig, ops, NAME);
	cr_assert_eq(image_rig_do(image, DISK_READ, 0, MIB, sector, 512), 0);
	cr_assert_eq(sector[0], 5);
	image_rig_close(image);
	image_rig_fini(&rig);
}

Test(vhd, a_fixed_disk_without_its_footer_is_refused)
{
	struct base_error err = { 0 };
	uint8_t junk[512] = { 9 };
	struct image_rig rig;
	struct image *image;

	make(&rig, DISK_FIXED, MIB);
	cr_assert(fake_store_poke(rig.store, NAME, MIB, junk, 512));
	cr_assert_eq(image_rig_open(&rig, ops, NAME, &image, &err), -EBADMSG);
	image_rig_fini(&rig);
}

Test(vhd, equal_footers_with_a_wrong_checksum_are_for_reading_only)
{
	struct base_error err = { 0 };
	struct image_rig rig;
	struct image *image;
	uint8_t stamp[4] = { 1, 2, 3, 4 };
	uint64_t bytes;

	make(&rig, DISK_DYNAMIC, 4 * MIB);
	cr_assert(fake_store_file_bytes(rig.store, NAME, &bytes));
	cr_assert(fake_store_poke(rig.store, NAME, 24, stamp, 4));
	cr_assert(fake_store_poke(rig.store, NAME, bytes - 512 + 24, stamp, 4));
	cr_assert_eq(image_rig_open(&rig, ops, NAME, &image, &err), 0);
	cr_assert(image_rig_is(image, 0, MIB, 0));
	cr_assert_eq(ops->activate(image, STORE_EPOCH_NONE, NULL, &err), -EBADMSG);
	ops->close(image);
	cr_assert_eq(check(&rig, false).damages, 1);
	stamp[0] = 9;
	cr_assert(fake_store_poke(rig.store, NAME, 24, stamp, 4));
	cr_assert_eq(image_rig_open(&rig, ops, NAME, &image, &err), -EBADMSG);
	image_rig_fini(&rig);
}

Test(vhd, damaged_table_entries_are_found)
{
	static const uint8_t entries[][4] = { { 0, 0, 0, 0 },    /* the footer copy */
					      { 0, 0, 0, 1 },    /* the header */
					      { 0, 0, 0, 3 },    /* the table */
					      { 0x7f, 0, 0, 0 }, /* outside */
					      { 0, 0, 0, 0 } };  /* another block */
	uint8_t sector[512] = { 5 };
	struct base_error err = { 0 };
	struct image_rig rig;
	struct image *image;
	uint8_t first[4];

	make(&rig, DISK_DYNAMIC, 4 * MIB);
	image = image_rig_active(&rig, ops, NAME);
	cr_assert_eq(image_rig_do(image, DISK_WRITE, 0, 0, sector, 512), 0);
	image_rig_close(image);
	cr_assert(fake_store_peek(rig.store, NAME, 1536, first, 4));
	for (size_t i = 0; i < sizeof(entries) / sizeof(entries[0]); i++) {
		cr_assert(fake_store_poke(rig.store, NAME, 1540, i == 4 ? first : entries[i], 4));
		cr_assert_geq(check(&rig, false).damages, 1, "%zu", i);
		cr_assert_eq(image_rig_open(&rig, ops, NAME, &image, &err), 0);
		if (i != 4)
			cr_assert_eq(image_rig_do(image, DISK_READ, 0, BLOCK, sector, 512),
				     -EBADMSG);
		cr_assert_eq(ops->activate(image, STORE_EPOCH_NONE, NULL, &err), -EBADMSG);
		ops->close(image);
	}
	image_rig_fini(&rig);
}

Test(vhd, a_fixed_disk_grows)
{
	uint8_t sector[512] = { 5 };
	struct image_rig rig;
	struct image *image;

	make(&rig, DISK_FIXED, MIB);
	image = image_rig_active(&rig, ops, NAME);
	cr_assert_eq(image_rig_do(image, DISK_RESIZE, 0, MIB / 2, NULL, 0), -EOPNOTSUPP);
	cr_assert_eq(image_rig_do(image, DISK_RESIZE, 0, MIB + 1, NULL, 0), -EINVAL);
	cr_assert_eq(image_rig_do(image, DISK_RESIZE, 0, 3 * MIB, NULL, 0), 0);
	cr_assert(image_rig_is(image, 0, 3 * MIB, 0), "no footer shows in the disk");
	cr_assert_eq(image_rig_do(image, DISK_WRITE, 0, 3 * MIB - 512, sector, 512), 0);
	image_rig_close(image);
	clean(&rig);
	image = image_rig_active(&rig, ops, NAME);
	cr_assert_eq(image->geometry.size_bytes, 3 * MIB);
	cr_assert_eq(image_rig_do(image, DISK_READ, 0, 3 * MIB - 512, sector, 512), 0);
	cr_assert_eq(sector[0], 5);
	image_rig_close(image);
	image_rig_fini(&rig);
}

/* The power fails anywhere in a resize: the size is the old or the new one, and zeros show. */
Test(vhd, growing_survives_a_power_failure)
{
	for (int kind = DISK_FIXED; kind <= DISK_DYNAMIC; kind++) {
		struct base_error err = { 0 };
		struct image_rig rig;
		struct image *image;

		make(&rig, (enum disk_kind)kind, MIB);
		image = image_rig_active(&rig, ops, NAME);
		cr_assert_eq(fake_store_record(rig.store, &err), 0);
		cr_assert_eq(image_rig_do(image, DISK_RESIZE, 0, 3 * MIB, NULL, 0), 0);
		for (uint64_t at = 0; at <= fake_store_event_count(rig.store); at++)
			for (uint64_t seed = 0; seed < 16; seed += depth_stride()) {
				struct image_rig after = rig;
				struct image *left = NULL;

				cr_assert_eq(fake_store_crash(rig.store, at,
							      (enum fake_store_loss)(1 + seed % 4),
							      seed, &after.store, &err),
					     0);
				left = image_rig_active(&after, ops, NAME);
				cr_assert(left->geometry.size_bytes == MIB ||
					  left->geometry.size_bytes == 3 * MIB);
				cr_assert(image_rig_is(left, 0, left->geometry.size_bytes, 0));
				image_rig_close(left);
				cr_assert_eq(check(&after, false).damages, 0);
				store_free(after.store);
			}
		image_rig_close(image);
		image_rig_fini(&rig);
	}
}

Test(vhd, a_dynamic_disk_grows_while_its_table_has_room)
{
	uint8_t sector[512] = { 5 };
	struct image_rig rig;
	struct image *image;

	make(&rig, DISK_DYNAMIC, MIB);
	image = image_rig_active(&rig, ops, NAME);
	cr_assert_eq(image_rig_do(image, DISK_WRITE, 0, 0, sector, 512), 0);
	cr_assert_eq(image_rig_do(image, DISK_RESIZE, 0, 128ULL * BLOCK + 512, NULL, 0),
		     -EOPNOTSUPP);
	cr_assert_eq(image_rig_do(image, DISK_RESIZE, 0, 128ULL * BLOCK, NULL, 0), 0);
	cr_assert_eq(image_rig_do(image, DISK_WRITE, 0, 128ULL * BLOCK - 512, sector, 512), 0);
	image_rig_close(image);
	clean(&rig);
	image = image_rig_active(&rig, ops, NAME);
	cr_assert_eq(image->geometry.size_bytes, 128ULL * BLOCK);
	cr_assert_eq(image_rig_do(image, DISK_READ, 0, 128ULL * BLOCK - 512, sector, 512), 0);
	cr_assert_eq(sector[0], 5);
	image_rig_close(image);
	image_rig_fini(&rig);
}

Test(vhd, zeros_on_absent_blocks_allocate_nothing)
{
	struct disk_extent extents[4];
	uint8_t sector[512] = { 5 };
	struct image_rig rig;
	struct image *image;

	make(&rig, DISK_DYNAMIC, 8 * MIB);
	image = image_rig_active(&rig, ops, NAME);
	cr_assert_eq(image_rig_do(image, DISK_WRITE, 0, MIB, sector, 512), 0);
	cr_assert_eq(image_rig_do(image, DISK_ZERO, DISK_FUA, 0, NULL, 8 * MIB), 0);
	cr_assert(image_rig_is(image, 0, 8 * MIB, 0));
	cr_assert_eq(image_rig_map(image, 0, extents, 4), 3);
	cr_assert_eq(extents[1].kind, DISK_EXTENT_DATA);
	cr_assert_eq(extents[1].length_bytes, BLOCK);
	image_rig_close(image);
	image_rig_fini(&rig);
}
