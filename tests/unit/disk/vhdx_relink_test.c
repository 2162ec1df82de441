/* SPDX-License-Identifier: Apache-2.0 */
#include <criterion/criterion.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/bytes.h"
#include "tests/support/depth.h"
#include "tests/support/vhdx_file.h"

#define MIB   VHDX_MIB
#define BASE  "base.vhdx"
#define CHILD "child.vhdx"

static struct vhdx_world world;

static void setup(void)
{
	const struct disk_create_options options = {
		.format = DISK_VHDX,
		.kind = DISK_DIFFERENCING,
		.block_bytes = 1 << 20,
		.parent = BASE,
	};

	vhdx_world_init(&world);
	vhdx_file_make(&world, BASE);
	cr_assert_eq(disk_create(world.store, CHILD, world.loop, &options, NULL), 0);
}

static void teardown(void)
{
	vhdx_world_fini(&world);
}

TestSuite(vhdx_relink, .init = setup, .fini = teardown);

static struct image *open_child(bool active)
{
	struct image *image = NULL;
	struct base_error err = { 0 };

	cr_assert_eq(vhdx_file_open(&world, CHILD, &image, &err), 0, "%s", err.text);
	if (active)
		cr_assert_eq(image_vhdx_ops.activate(image, STORE_EPOCH_NONE, NULL, &err), 0, "%s",
			     err.text);
	return image;
}

static void close_child(struct image *image)
{
	struct base_error err = { 0 };

	if (image->active)
		cr_assert_eq(image_vhdx_ops.deactivate(image, &err), 0, "%s", err.text);
	image_vhdx_ops.close(image);
}

static struct image_parent parent_of(uint32_t name_bytes, uint8_t mark, bool two)
{
	struct image_parent parent = { .format = DISK_VHDX };

	memset(parent.name, 'a' + mark % 26, name_bytes);
	memset(parent.data_id.bytes, 1 + mark, sizeof(parent.data_id.bytes));
	if (two)
		memset(parent.data_id2.bytes, 101 + mark, sizeof(parent.data_id2.bytes));
	return parent;
}

static bool same(const struct image_parent *a, const struct image_parent *b)
{
	return strcmp(a->name, b->name) == 0 && a->format == b->format &&
	       memcmp(&a->data_id, &b->data_id, sizeof(a->data_id)) == 0 &&
	       memcmp(&a->data_id2, &b->data_id2, sizeof(a->data_id2)) == 0;
}

static void expect_parent(const struct image_parent *parent)
{
	struct image *image = open_child(false);

	cr_assert(same(&image->parent_is, parent), "'%.40s', want '%.40s'", image->parent_is.name,
		  parent->name);
	close_child(image);
}

static void expect_clean(void)
{
	const struct disk_options options = {
		.store = world.store,
		.name = CHILD,
		.format = DISK_VHDX,
		.loop = world.loop,
	};
	struct disk_check_result result;

	cr_assert_eq(disk_check(&options, false, NULL, NULL, &result, NULL), 0);
	cr_assert_eq(result.damages, 0);
}

/* More times than new room behind the last item would do. */
Test(vhdx_relink, longer_and_shorter_many_times)
{
	static const uint32_t lengths[] = { 3, 900, 20, 1000, 1, 500, 1, 1001 };
	struct image *image = open_child(true);
	struct base_error err = { 0 };
	struct image_parent parent;

	for (uint32_t i = 0; i < 2000; i++) {
		parent = parent_of(lengths[i % 8], (uint8_t)(i % 99), i % 3 == 0);
		cr_assert_eq(vhdx_set_parent(image, &parent, &err), 0, "%u: %s", i, err.text);
		cr_assert(same(&image->parent_is, &parent));
		if (i % 250 != 0)
			continue;
		close_child(image);
		expect_parent(&parent);
		image = open_child(true);
	}
	close_child(image);
	expect_parent(&parent);
	expect_clean();
}

Test(vhdx_relink, the_format_of_a_parent_is_kept_and_changed)
{
	struct image *image = open_child(true);
	struct image_parent parent = parent_of(4, 1, false);

	parent.format = DISK_RAW;
	cr_assert_eq(vhdx_set_parent(image, &parent, NULL), 0);
	close_child(image);
	expect_parent(&parent);
	image = open_child(true);
	parent.data_id.bytes[0]++;
	parent.format = DISK_FORMAT_INVALID;
	cr_assert_eq(vhdx_set_parent(image, &parent, NULL), 0);
	close_child(image);
	parent.format = DISK_RAW; /* nobody said that it is another one */
	expect_parent(&parent);
	image = open_child(true);
	parent.format = DISK_VHDX;
	cr_assert_eq(vhdx_set_parent(image, &parent, NULL), 0);
	close_child(image);
	expect_parent(&parent);
}

static uint64_t metadata_offset(void)
{
	struct image *image = open_child(false);
	uint64_t offset = vhdx_of(image)->regions.metadata.offset_bytes;

	close_child(image);
	return offset;
}

/* An item of somebody else, unknown and optional, at @offset in the region. */
static void foreign_item(uint64_t region, uint32_t offset, uint32_t length)
{
	uint8_t table[4096], item[512];
	uint32_t count;

	vhdx_file_peek(&world, CHILD, region, table, sizeof(table));
	count = base_get_le16(table + 10);
	memset(table + 32 + 32 * count, 0, 32);
	memset(table + 32 + 32 * count, 0xe1, 16);
	base_put_le32(table + 32 + 32 * count + 16, offset);
	base_put_le32(table + 32 + 32 * count + 20, length);
	base_put_le16(table + 10, (uint16_t)(count + 1));
	vhdx_file_poke(&world, CHILD, region, table, sizeof(table));
	memset(item, 0xe2, sizeof(item));
	vhdx_file_poke(&world, CHILD, region + offset, item, length);
}

static void expect_foreign(uint64_t region, uint32_t offset, uint32_t length)
{
	uint8_t item[512];

	vhdx_file_peek(&world, CHILD, region + offset, item, length);
	for (uint32_t i = 0; i < length; i++)
		cr_assert_eq(item[i], 0xe2, "byte %u of the foreign item", i);
}

Test(vhdx_relink, a_locator_that_is_not_the_last_item_moves_behind_it)
{
	uint64_t region = metadata_offset();
	struct image *image = open_child(false);
	uint32_t at = vhdx_of(image)->meta.items_end_bytes;
	struct image_parent parent = parent_of(700, 3, true);

	close_child(image);
	foreign_item(region, at, 501);
	for (uint32_t i = 0; i < 300; i++) {
		image = open_child(true);
		parent = parent_of(i % 2 == 0 ? 700 + i : 2, (uint8_t)(i % 50), i % 4 == 1);
		cr_assert_eq(vhdx_set_parent(image, &parent, NULL), 0);
		cr_assert_lt(vhdx_of(image)->meta.items_end_bytes, at + 501 + 8 + 8192);
		close_child(image);
		expect_parent(&parent);
		expect_foreign(region, at, 501);
	}
	expect_clean();
}

Test(vhdx_relink, a_region_without_room_says_so)
{
	uint64_t region = metadata_offset();
	struct image_parent before, parent = parent_of(900, 3, true);
	struct image *image;
	struct base_error err = { 0 };

	foreign_item(region, MIB - 512, 512);
	image = open_child(true);
	before = image->parent_is;
	cr_assert_eq(vhdx_set_parent(image, &parent, &err), -ENOSPC);
	cr_assert(strstr(err.text, "parent locator") != NULL);
	cr_assert(same(&image->parent_is, &before));
	close_child(image);
	expect_parent(&before);
	expect_foreign(region, MIB - 512, 512);
}

Test(vhdx_relink, who_cannot)
{
	struct image_parent parent = parent_of(5, 1, false);
	struct image *image = open_child(false);
	struct image *base = NULL;

	cr_assert_eq(vhdx_set_parent(image, &parent, NULL), -EROFS);
	cr_assert_eq(vhdx_set_data_id(image, &parent.data_id, NULL), -EROFS);
	close_child(image);
	cr_assert_eq(vhdx_file_open(&world, BASE, &base, NULL), 0);
	cr_assert_eq(image_vhdx_ops.activate(base, STORE_EPOCH_NONE, NULL, NULL), 0);
	cr_assert_eq(vhdx_set_parent(base, &parent, NULL), -EINVAL);
	image_fail(base, "for a test");
	cr_assert_eq(vhdx_set_data_id(base, &parent.data_id, NULL), -EIO);
	cr_assert_lt(image_vhdx_ops.deactivate(base, NULL), 0);
	image_vhdx_ops.close(base);
}

Test(vhdx_relink, every_request_that_fails_leaves_one_parent_or_the_other)
{
	const struct image_parent before = parent_of(40, 1, false);
	const struct image_parent after = parent_of(800, 2, true);
	struct image *image = open_child(true);
	uint64_t k = 1;

	cr_assert_eq(vhdx_set_parent(image, &before, NULL), 0);
	close_child(image);
	for (; k < 100; k++) {
		struct fake_store_plan plan = {
			.fail_at = k,
			.fail_code = k % 2 == 0 ? -EIO : -ENOSPC,
			.fail_does_it = k % 3 == 0,
		};
		struct store *clone = NULL, *original = world.store;
		bool changed;
		bool over;
		int code;

		cr_assert_eq(fake_store_clone(original, &clone, NULL), 0);
		world.store = clone;
		image = open_child(true);
		fake_store_set_plan(clone, &plan);
		code = vhdx_set_parent(image, &after, NULL);
		over = fake_store_request_count(clone) < k;
		fake_store_set_plan(clone, &(struct fake_store_plan){ 0 });
		changed = same(&image->parent_is, &after);
		cr_assert_eq(changed, code == 0);
		if (!image->failed && code < 0) { /* and once more: it works */
			cr_assert_eq(vhdx_set_parent(image, &after, NULL), 0);
			changed = true;
		}
		(void)image_vhdx_ops.deactivate(image, NULL);
		image_vhdx_ops.close(image);
		image = open_child(false);
		cr_assert(same(&image->parent_is, &after) ||
			  (!changed && same(&image->parent_is, &before)));
		close_child(image);
		expect_clean();
		world.store = original;
		store_free(clone);
		if (over)
			break;
	}
	cr_assert_gt(k, 5);
	cr_assert_lt(k, 100);
}

/* What the power failure at @event leaves; returns whether it has the new parent. */
static bool crash_at(uint64_t event, enum fake_store_loss loss, uint64_t seed,
		     const struct image_parent *before, const struct image_parent *after)
{
	struct store *left = NULL, *original = world.store;
	struct image *image;
	bool changed;

	cr_assert_eq(fake_store_crash(original, event, loss, seed, &left, NULL), 0);
	world.store = left;
	image = open_child(false);
	changed = same(&image->parent_is, after);
	cr_assert(changed || same(&image->parent_is, before), "event %llu loss %d: '%.20s'",
		  (unsigned long long)event, (int)loss, image->parent_is.name);
	close_child(image);
	expect_clean();
	image = open_child(true); /* replayed */
	cr_assert_eq(same(&image->parent_is, after), changed);
	close_child(image);
	world.store = original;
	store_free(left);
	return changed;
}

Test(vhdx_relink, a_power_failure_leaves_the_old_parent_or_the_new)
{
	const struct image_parent before = parent_of(400, 1, true);
	const struct image_parent after = parent_of(990, 2, false);
	struct image *image;
	uint64_t region = metadata_offset();
	uint64_t acknowledged;
	uint32_t old = 0, fresh = 0;

	image = open_child(true);
	cr_assert_eq(vhdx_set_parent(image, &before, NULL), 0);
	close_child(image);
	foreign_item(region, 73728, 512);
	cr_assert_eq(fake_store_record(world.store, NULL), 0);
	image = open_child(true);
	cr_assert_eq(vhdx_set_parent(image, &after, NULL), 0);
	acknowledged = fake_store_event_count(world.store);
	close_child(image);
	/* There are few of them, so the steps are short. */
	for (uint64_t event = 0; event <= fake_store_event_count(world.store);
	     event += 1 + depth_stride() / 9) {
		for (uint64_t seed = 0; seed < 12; seed++) {
			enum fake_store_loss loss = (enum fake_store_loss)(1 + seed % 4);
			bool changed = crash_at(event, loss, event * 100 + seed, &before, &after);

			cr_assert(changed || event < acknowledged, "a promise was broken");
			old += !changed;
			fresh += changed;
		}
	}
	cr_assert_gt(old, 0);
	cr_assert_gt(fresh, 0);
}

static void write_something(struct image *image, uint8_t value)
{
	uint8_t bytes[4096];

	memset(bytes, value, sizeof(bytes));
	cr_assert_eq(vhdx_file_io(image, DISK_WRITE, 0, bytes, sizeof(bytes)), 0);
	cr_assert_eq(vhdx_file_io(image, DISK_FLUSH, 0, NULL, 0), 0);
}

Test(vhdx_relink, an_id_that_was_set_is_kept_over_the_writes_of_its_session)
{
	for (uint32_t order = 0; order < 3; order++) {
		struct image *image = NULL;
		struct disk_guid id;

		memset(id.bytes, (int)(0x31 + order), sizeof(id.bytes));
		cr_assert_eq(vhdx_file_open(&world, BASE, &image, NULL), 0);
		cr_assert_eq(image_vhdx_ops.activate(image, STORE_EPOCH_NONE, NULL, NULL), 0);
		if (order == 1)
			write_something(image, 1);
		cr_assert_eq(vhdx_set_data_id(image, &id, NULL), 0);
		cr_assert_arr_eq(image->data_id.bytes, id.bytes, sizeof(id.bytes));
		if (order < 2)
			write_something(image, 2);
		cr_assert_arr_eq(image->data_id.bytes, id.bytes, sizeof(id.bytes));
		cr_assert_eq(image_vhdx_ops.deactivate(image, NULL), 0);
		cr_assert_arr_eq(image->data_id.bytes, id.bytes, sizeof(id.bytes));
		/* The next session's first write makes it another content. */
		cr_assert_eq(image_vhdx_ops.activate(image, STORE_EPOCH_NONE, NULL, NULL), 0);
		write_something(image, 3);
		cr_assert(memcmp(image->data_id.bytes, id.bytes, sizeof(id.bytes)) != 0);
		cr_assert_eq(image_vhdx_ops.deactivate(image, NULL), 0);
		image_vhdx_ops.close(image);
	}
}
