/* SPDX-License-Identifier: Apache-2.0 */
/* What making a copy of a chain needs: a child whose parent comes later, with the ids of the
 * original, and a disk that stays as it is while it is watched. */
#include <criterion/criterion.h>
#include <errno.h>
#include <string.h>

#include "tests/support/disk_lab.h"

#define MIB  (1ULL << 20)
#define SIZE (8 * MIB)

static struct disk_lab lab;
static struct base_error err;

static void setup(void)
{
	disk_lab_init(&lab);
}

static void teardown(void)
{
	disk_lab_fini(&lab);
}

TestSuite(disk_alone, .init = setup, .fini = teardown);

static struct disk_layer_info layer_of(const char *name)
{
	struct disk *disk = disk_lab_open_standby(&lab, name);
	struct disk_layer_info info;

	cr_assert_eq(disk_layer(disk, 0, &info, &err), 0, "%s", err.text);
	disk_close(disk);
	return info;
}

static void fill(const char *name, uint32_t version)
{
	struct disk *disk = disk_lab_open(&lab, name);

	cr_assert_eq(lab_write(disk, 0, SIZE, version), 0);
	disk_close(disk);
}

/* A child made from what its parent will be, written, and read when that is there. */
static void child_before_parent(enum disk_format parent, enum disk_format child)
{
	struct disk_layer_info base;
	struct disk_parent_is is;
	struct disk_create_options options = { .format = child,
					       .kind = DISK_DIFFERENCING,
					       .size_bytes = SIZE,
					       .parent = "base",
					       .parent_format = parent,
					       .parent_is = &is };
	struct disk *disk = NULL;

	disk_lab_make(&lab, "base", parent, DISK_DYNAMIC, SIZE, NULL);
	fill("base", 1);
	base = layer_of("base");
	is = (struct disk_parent_is){ .size_bytes = base.size_bytes,
				      .logical_sector_bytes = base.logical_sector_bytes,
				      .physical_sector_bytes = base.physical_sector_bytes,
				      .id = base.id,
				      .data_id = base.data_id };
	cr_assert_eq(store_rename(lab.store, "base", "away", &err), 0);
	cr_assert_eq(disk_create(lab.store, "child", lab.loop, &options, &err), 0, "%s", err.text);
	lab.options.alone = true;
	lab.options.on_gone = DISK_POLICY_REPORT;
	disk = disk_lab_open(&lab, "child");
	cr_assert_eq(lab_write(disk, 4096, 512, 2), 0);
	cr_assert_eq(disk_do(disk, DISK_ZERO, 3 * MIB + 512, NULL, 1024, &err), 0);
	cr_assert_eq(lab_verify(disk, 4096, 512, 2), 0);
	cr_assert_lt(lab_verify(disk, 0, 512, 1), 0, "a parent that is not open shows nothing");
	disk_close(disk);
	lab.options.alone = false;
	cr_assert_eq(store_rename(lab.store, "away", "base", &err), 0);
	disk = disk_lab_open(&lab, "child");
	cr_assert_eq(lab_verify(disk, 0, 4096, 1), 0);
	cr_assert_eq(lab_verify(disk, 4096, 512, 2), 0);
	cr_assert_eq(lab_verify(disk, 4608, 3 * MIB - 4096, 1), 0);
	cr_assert_eq(lab_verify(disk, 3 * MIB + 512, 1024, 0), 0);
	disk_close(disk);
}

Test(disk_alone, vhdx_on_vhdx)
{
	child_before_parent(DISK_VHDX, DISK_VHDX);
}

Test(disk_alone, vhd_on_vhd)
{
	child_before_parent(DISK_VHD, DISK_VHD);
}

Test(disk_alone, vhdx_on_raw)
{
	child_before_parent(DISK_RAW, DISK_VHDX);
}

Test(disk_alone, vhdx_on_vhd)
{
	child_before_parent(DISK_VHD, DISK_VHDX);
}

Test(disk_alone, a_parent_that_cannot_be)
{
	struct disk_parent_is is = { .size_bytes = SIZE,
				     .logical_sector_bytes = 512,
				     .physical_sector_bytes = 4096 };
	struct disk_create_options options = { .format = DISK_VHDX,
					       .kind = DISK_DIFFERENCING,
					       .size_bytes = SIZE,
					       .parent = "base",
					       .parent_is = &is };

	cr_assert_eq(disk_create(lab.store, "c", lab.loop, &options, &err), -EINVAL);
	cr_assert(strstr(err.text, "format") != NULL, "%s", err.text);
	options.parent_format = DISK_VHDX;
	cr_assert_eq(disk_create(lab.store, "c", lab.loop, &options, &err), -EINVAL);
	cr_assert(strstr(err.text, "an id") != NULL, "%s", err.text);
	options.parent_format = DISK_RAW;
	options.parent = "../base";
	cr_assert_eq(disk_create(lab.store, "c", lab.loop, &options, &err), -EINVAL);
}

Test(disk_alone, identities_as_asked_for)
{
	static const enum disk_format formats[] = { DISK_VHDX, DISK_VHD };

	for (uint32_t i = 0; i < 2; i++) {
		struct disk_create_options options = { .format = formats[i],
						       .kind = DISK_DYNAMIC,
						       .size_bytes = SIZE,
						       .id = disk_guid_new() };
		struct disk_layer_info info;

		cr_assert_eq(disk_create(lab.store, "a", lab.loop, &options, &err), 0);
		info = layer_of("a");
		cr_assert(disk_guid_equal(&info.id, &options.id));
		cr_assert_eq(store_remove(lab.store, "a", &err), 0);
	}
}

Test(disk_alone, the_content_has_the_id_that_it_is_given)
{
	const struct disk_guid id = disk_guid_new();
	struct disk_layer_info info;
	struct disk *disk = NULL;

	disk_lab_make(&lab, "a", DISK_VHDX, DISK_DYNAMIC, SIZE, NULL);
	disk = disk_lab_open_standby(&lab, "a");
	cr_assert_eq(disk_set_data_id(disk, &id, &err), -EROFS);
	disk_close(disk);
	disk = disk_lab_open(&lab, "a");
	cr_assert_eq(lab_write(disk, 0, 4096, 1), 0);
	cr_assert_eq(disk_set_data_id(disk, &id, &err), 0, "%s", err.text);
	cr_assert_eq(lab_write(disk, 0, 4096, 2), 0);
	disk_close(disk);
	info = layer_of("a");
	cr_assert(disk_guid_equal(&info.data_id, &id));
	disk_lab_make(&lab, "r", DISK_RAW, DISK_DYNAMIC, SIZE, NULL);
	disk = disk_lab_open(&lab, "r");
	cr_assert_eq(disk_set_data_id(disk, &id, &err), 0);
	disk_close(disk);
}

/* --- watching --- */

static struct disk *watched;
static uint32_t seen;
static bool data_seen;

static void watch(void *context, const struct disk_hook_event *event)
{
	cr_assert_eq(context, &lab);
	seen++;
	data_seen = data_seen || event->data != NULL;
	disk_hook_done(watched, event->request);
}

Test(disk_alone, a_watched_disk_keeps_its_layers_and_its_size)
{
	disk_lab_make(&lab, "a", DISK_VHDX, DISK_DYNAMIC, SIZE, NULL);
	watched = disk_lab_open(&lab, "a");
	cr_assert_eq(disk_watch_begin(watched, watch, &lab, &err), 0, "%s", err.text);
	cr_assert_eq(disk_watch_begin(watched, watch, &lab, &err), -EBUSY);
	cr_assert_eq(lab_write(watched, 0, 4096, 1), 0);
	cr_assert_eq(disk_do(watched, DISK_ZERO, 512, NULL, 512, &err), 0);
	cr_assert_eq(seen, 2);
	cr_assert(!data_seen, "nothing is copied for who only watches");
	cr_assert_eq(disk_do(watched, DISK_RESIZE, 2 * SIZE, NULL, 0, &err), -EBUSY);
	cr_assert_eq(disk_checkpoint(watched, "b", &err), -EBUSY);
	cr_assert(strstr(err.text, "a move") != NULL, "%s", err.text);
	cr_assert_eq(disk_compact(watched, NULL, NULL, &err), -EBUSY);
	disk_watch_end(watched);
	cr_assert_eq(lab_write(watched, 0, 4096, 2), 0);
	cr_assert_eq(seen, 2);
	cr_assert_eq(disk_checkpoint(watched, "b", &err), 0, "%s", err.text);
	disk_close(watched);
}
