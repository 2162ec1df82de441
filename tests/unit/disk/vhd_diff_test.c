/* SPDX-License-Identifier: Apache-2.0 */
#include <criterion/criterion.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "hypervisor/disk/vhd_priv.h"
#include "tests/support/image_rig.h"

#define MIB   (1ULL << 20)
#define SIZE  (4 * MIB + 1024)
#define BLOCK (512U << 10)

static const struct image_ops *const ops = &image_vhd_ops;

struct pair {
	struct image_rig rig;
	struct image *parent;
	struct image *child;
	uint8_t *model;
};

/* A parent with content and a child without; both names in folders. */
static void setup(struct pair *pair, uint64_t seed)
{
	struct disk_create_options options = { .kind = DISK_DYNAMIC,
					       .size_bytes = SIZE,
					       .block_bytes = BLOCK };
	struct base_error err = { 0 };

	image_rig_init(&pair->rig);
	pair->model = calloc(1, SIZE / 512);
	cr_assert_eq(image_rig_create(&pair->rig, ops, "base.vhd", &options, NULL, &err), 0, "%s",
		     err.text);
	pair->parent = image_rig_active(&pair->rig, ops, "base.vhd");
	cr_assert_eq(image_rig_random(pair->parent, pair->model, seed, 60), 0);
	image_rig_close(pair->parent);
	cr_assert_eq(image_rig_open(&pair->rig, ops, "base.vhd", &pair->parent, &err), 0);
	options = (struct disk_create_options){ .kind = DISK_DIFFERENCING, .block_bytes = BLOCK };
	cr_assert_eq(image_rig_create(&pair->rig, ops, "child.vhd", &options, pair->parent, &err),
		     0, "%s", err.text);
	pair->child = image_rig_active(&pair->rig, ops, "child.vhd");
	pair->child->parent = pair->parent;
}

static void reopen(struct pair *pair)
{
	image_rig_close(pair->child);
	pair->child = image_rig_active(&pair->rig, ops, "child.vhd");
	pair->child->parent = pair->parent;
}

static void teardown(struct pair *pair)
{
	image_rig_close(pair->child);
	ops->close(pair->parent);
	free(pair->model);
	image_rig_fini(&pair->rig);
}

Test(vhd_diff, the_parent_is_found_and_identified)
{
	struct pair pair;

	setup(&pair, 1);
	cr_assert_eq(pair.child->kind, DISK_DIFFERENCING);
	cr_assert_str_eq(pair.child->parent_is.name, "base.vhd");
	cr_assert_eq(pair.child->parent_is.format, DISK_VHD);
	cr_assert(disk_guid_equal(&pair.child->parent_is.data_id, &pair.parent->data_id));
	cr_assert_not(disk_guid_equal(&pair.child->data_id, &pair.parent->data_id));
	cr_assert_eq(pair.child->geometry.size_bytes, SIZE);
	teardown(&pair);
}

Test(vhd_diff, random_requests_agree_with_a_model)
{
	for (uint64_t seed = 1; seed <= 20; seed++) {
		struct disk_check_result result;
		struct base_error err = { 0 };
		struct pair pair;

		setup(&pair, seed);
		fake_store_set_plan(pair.rig.store, &(struct fake_store_plan){ .seed = seed,
									       .reorder = true,
									       .delay_steps = 3 });
		for (uint64_t round = 0; round < 3; round++) {
			cr_assert(image_rig_model_holds(pair.child, pair.model));
			cr_assert_eq(
				image_rig_random(pair.child, pair.model, seed * 5 + round, 150), 0);
			cr_assert(image_rig_model_holds(pair.child, pair.model));
			reopen(&pair);
			cr_assert_eq(ops->check(pair.child, false, NULL, NULL, &result, &err), 0);
			cr_assert_eq(result.damages, 0);
		}
		cr_assert(image_rig_model_holds(pair.child, pair.model));
		teardown(&pair);
	}
}

/* Each write is acknowledged by a flush or FUA; the power fails at every event. */
Test(vhd_diff, what_was_flushed_survives_a_power_failure)
{
	struct base_error err = { 0 };
	uint8_t data[4096];
	uint64_t events[24];
	struct pair pair;

	setup(&pair, 3);
	cr_assert_eq(fake_store_record(pair.rig.store, &err), 0);
	for (uint32_t i = 0; i < 24; i++) {
		memset(data, (int)(100 + i), sizeof(data));
		cr_assert_eq(image_rig_do(pair.child, DISK_WRITE, i % 3 == 0 ? DISK_FUA : 0,
					  i * 170000ULL / 512 * 512, data, sizeof(data)),
			     0);
		if (i % 3 != 0)
			cr_assert_eq(image_rig_do(pair.child, DISK_FLUSH, 0, 0, NULL, 0), 0);
		events[i] = fake_store_event_count(pair.rig.store);
	}
	for (uint64_t at = 0; at <= events[23]; at++) {
		uint8_t *model = malloc(SIZE / 512);
		struct image_rig after = pair.rig;
		struct image *left;
		uint32_t known = 0;

		memcpy(model, pair.model, SIZE / 512);
		for (; known < 24 && events[known] <= at; known++)
			memset(model + known * 170000ULL / 512, (int)(100 + known), 8);
		cr_assert_eq(fake_store_crash(pair.rig.store, at,
					      (enum fake_store_loss)(1 + at % 4), at, &after.store,
					      &err),
			     0);
		left = image_rig_active(&after, ops, "child.vhd");
		left->parent = pair.parent;
		if (known <
		    24) { /* not acknowledged: the old bytes, the new ones, sector by sector */
			uint64_t first = known * 170000ULL / 512;

			for (uint64_t s = first; s < first + 8; s++)
				if (image_rig_is(left, s * 512, 512, (uint8_t)(100 + known)))
					model[s] = (uint8_t)(100 + known);
		}
		cr_assert(image_rig_model_holds(left, model), "event %u", (unsigned int)at);
		image_rig_close(left);
		store_free(after.store);
		free(model);
	}
	teardown(&pair);
}

/* A table entry or a bitmap bit never shows before the data that it tells of: what was not flushed
 * yet reads as the parent has it, or as it was written; zeros are neither. */
Test(vhd_diff, a_power_failure_never_shows_what_nobody_wrote)
{
	struct base_error err = { 0 };
	uint8_t *data = aligned_alloc(512, BLOCK);
	struct pair pair;
	uint64_t count;

	setup(&pair, 4);
	ops->close(pair.parent);
	pair.parent = image_rig_active(&pair.rig, ops, "base.vhd");
	memset(data, 9, BLOCK);
	for (uint64_t i = 0; i < 6; i++)
		cr_assert_eq(image_rig_do(pair.parent, DISK_WRITE, 0, i * BLOCK, data, BLOCK), 0);
	image_rig_close(pair.parent);
	cr_assert_eq(image_rig_open(&pair.rig, ops, "base.vhd", &pair.parent, &err), 0);
	pair.child->parent = pair.parent;
	cr_assert_eq(fake_store_record(pair.rig.store, &err), 0);
	memset(data, 7, BLOCK);
	for (uint64_t i = 0; i < 12; i++) { /* new blocks first, then new bits in them */
		uint64_t offset = i % 6 * BLOCK + i * 1536;

		cr_assert_eq(image_rig_do(pair.child, DISK_WRITE, 0, offset, data, 1024), 0);
		if (i % 6 == 5)
			cr_assert_eq(image_rig_do(pair.child, DISK_FLUSH, 0, 0, NULL, 0), 0);
	}
	count = fake_store_event_count(pair.rig.store);
	for (uint64_t at = 0; at <= count * 12; at++) {
		struct image_rig after = pair.rig;
		struct image *left;

		cr_assert_eq(fake_store_crash(pair.rig.store, at / 12,
					      (enum fake_store_loss)(1 + at % 4), at, &after.store,
					      &err),
			     0);
		cr_assert_eq(image_rig_open(&after, ops, "child.vhd", &left, &err), 0, "%s",
			     err.text);
		left->parent = pair.parent;
		for (uint64_t i = 0; i < 24; i++) {
			uint64_t offset = i / 2 % 6 * BLOCK + i / 2 * 1536 + i % 2 * 512;

			cr_assert(image_rig_is(left, offset, 512, 7) ||
					  image_rig_is(left, offset, 512, 9),
				  "event %u, write %u", (unsigned int)(at / 12),
				  (unsigned int)(i / 2));
		}
		ops->close(left);
		store_free(after.store);
	}
	free(data);
	teardown(&pair);
}

Test(vhd_diff, map_tells_this_layer_from_the_parent)
{
	struct disk_extent extents[64];
	uint8_t sector[512] = { 5 };
	struct pair pair;
	uint32_t count;

	setup(&pair, 5);
	cr_assert_eq(image_rig_map(pair.child, DISK_THIS_LAYER, extents, 64), 1);
	cr_assert_eq(extents[0].kind, DISK_EXTENT_PARENT);
	cr_assert_eq(image_rig_do(pair.child, DISK_WRITE, 0, MIB + 512, sector, 512), 0);
	cr_assert_eq(image_rig_map(pair.child, DISK_THIS_LAYER, extents, 64), 3);
	cr_assert_eq(extents[1].kind, DISK_EXTENT_DATA);
	cr_assert_eq(extents[1].offset_bytes, MIB + 512);
	cr_assert_eq(extents[1].length_bytes, 512);
	count = image_rig_map(pair.child, 0, extents, 64);
	cr_assert_gt(count, 0);
	for (uint32_t i = 0; i < count; i++)
		cr_assert_neq(extents[i].kind, DISK_EXTENT_PARENT);
	teardown(&pair);
}

Test(vhd_diff, without_its_parent_nothing_is_made_up)
{
	uint8_t sector[512];
	struct pair pair;

	setup(&pair, 6);
	pair.child->parent = NULL;
	cr_assert_eq(image_rig_do(pair.child, DISK_READ, 0, 0, sector, 512), -EIO);
	teardown(&pair);
}

Test(vhd_diff, options_follow_the_parent)
{
	struct disk_create_options options = { .kind = DISK_DIFFERENCING, .size_bytes = 512 };
	struct base_error err = { 0 };
	struct pair pair;

	setup(&pair, 7);
	cr_assert_eq(image_rig_create(&pair.rig, ops, "x", &options, pair.parent, &err), -EINVAL);
	options.size_bytes = 0;
	options.kind = DISK_DYNAMIC;
	cr_assert_eq(image_rig_create(&pair.rig, ops, "x", &options, pair.parent, &err), -EINVAL);
	teardown(&pair);
}
