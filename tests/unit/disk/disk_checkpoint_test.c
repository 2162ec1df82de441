/* SPDX-License-Identifier: Apache-2.0 */
#include "hypervisor/disk/disk.h"

#include <criterion/criterion.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "tests/support/disk_lab.h"

#define MIB  (1ULL << 20)
#define SIZE (16 * MIB)

static struct disk_lab lab;
static char top[STORE_NAME_BYTES]; /* as recorded by top_moved() */
static int top_code;

static int top_moved(void *context, const char *name)
{
	(void)context;
	if (top_code != 0)
		return top_code;
	(void)snprintf(top, sizeof(top), "%s", name);
	return 0;
}

static void setup(void)
{
	disk_lab_init(&lab);
	lab.events.top_moved = top_moved;
	top[0] = '\0';
	top_code = 0;
}

static void teardown(void)
{
	disk_lab_fini(&lab);
}

TestSuite(disk_checkpoint, .init = setup, .fini = teardown);

static void check_ok(struct disk *disk, const char *name)
{
	struct base_error err = { .code = 0 };

	cr_assert_eq(disk_checkpoint(disk, name, &err), 0, "%s", err.text);
	cr_assert_str_eq(disk_name(disk), name);
	cr_assert_str_eq(top, name);
}

static void guest_goes_on(enum disk_format format, const char *base, const char *one,
			  const char *two)
{
	struct disk *disk = NULL;
	struct disk_layer_info info;
	struct disk_geometry first;
	struct disk_geometry now;

	disk_lab_make(&lab, base, format, format == DISK_RAW ? DISK_DYNAMIC : DISK_DYNAMIC, SIZE,
		      NULL);
	disk = disk_lab_open(&lab, base);
	disk_geometry(disk, &first);
	cr_assert_eq(lab_write(disk, 0, 4 * MIB, 1), 0);
	check_ok(disk, one);
	cr_assert_eq(lab_verify(disk, 0, 4 * MIB, 1), 0);
	cr_assert_eq(lab_write(disk, MIB, MIB, 2), 0);
	check_ok(disk, two);
	cr_assert_eq(lab_write(disk, 2 * MIB, MIB, 3), 0);
	cr_assert_eq(disk_layer(disk, 2, &info, NULL), 0);
	cr_assert_str_eq(info.name, base);
	cr_assert_eq(disk_layer(disk, 0, &info, NULL), 0);
	cr_assert_eq(info.kind, DISK_DIFFERENCING);
	disk_geometry(disk, &now);
	cr_assert(disk_guid_equal(&now.id, &first.id), "to the guest it is the same disk");
	disk_close(disk);

	disk = disk_lab_open(&lab, two);
	disk_geometry(disk, &now);
	cr_assert(disk_guid_equal(&now.id, &first.id), "also after a restart");
	cr_assert_eq(lab_verify(disk, 0, MIB, 1), 0);
	cr_assert_eq(lab_verify(disk, MIB, MIB, 2), 0);
	cr_assert_eq(lab_verify(disk, 2 * MIB, MIB, 3), 0);
	cr_assert_eq(lab_verify(disk, 3 * MIB, MIB, 1), 0);
	cr_assert_eq(lab_verify(disk, 4 * MIB, MIB, 0), 0);
	disk_close(disk);

	lab.options.read_only = true; /* what was frozen is as it was */
	disk = disk_lab_open_standby(&lab, one);
	cr_assert_eq(lab_verify(disk, MIB, MIB, 2), 0);
	cr_assert_eq(lab_verify(disk, 2 * MIB, MIB, 1), 0);
	disk_close(disk);
}

Test(disk_checkpoint, vhdx_goes_on_in_a_child)
{
	guest_goes_on(DISK_VHDX, "a.vhdx", "b.vhdx", "c.vhdx");
}

Test(disk_checkpoint, raw_goes_on_in_a_vhdx_child)
{
	guest_goes_on(DISK_RAW, "a.img", "b.vhdx", "c.vhdx");
}

Test(disk_checkpoint, vhd_goes_on_in_a_child)
{
	guest_goes_on(DISK_VHD, "a.vhd", "b.vhd", "c.vhd");
}

Test(disk_checkpoint, errors_change_nothing)
{
	struct base_error err = { .code = 0 };
	char longest[STORE_NAME_BYTES + 1];
	struct disk *disk = NULL;
	uint64_t bytes = 0;

	disk_lab_make(&lab, "a.vhdx", DISK_VHDX, DISK_DYNAMIC, SIZE, NULL);
	disk_lab_make(&lab, "there.vhdx", DISK_VHDX, DISK_DYNAMIC, SIZE, NULL);
	disk = disk_lab_open(&lab, "a.vhdx");
	memset(longest, 'x', sizeof(longest) - 1);
	longest[sizeof(longest) - 1] = '\0';
	cr_assert_eq(disk_checkpoint(disk, "there.vhdx", &err), -EEXIST, "%s", err.text);
	cr_assert(fake_store_file_bytes(lab.store, "there.vhdx", &bytes));
	cr_assert_eq(disk_checkpoint(disk, longest, &err), -ENAMETOOLONG);
	top_code = -EROFS;
	cr_assert_eq(disk_checkpoint(disk, "b.vhdx", &err), -EROFS);
	cr_assert_not(fake_store_file_bytes(lab.store, "b.vhdx", &bytes));
	cr_assert_eq(lab_write(disk, 0, MIB, 4), 0);
	cr_assert_eq(lab_verify(disk, 0, MIB, 4), 0);
	cr_assert_str_eq(disk_name(disk), "a.vhdx");
	top_code = 0;
	check_ok(disk, "b.vhdx");
	cr_assert_eq(disk_deactivate(disk, NULL), 0);
	cr_assert_eq(disk_checkpoint(disk, "c.vhdx", &err), -EROFS);
	disk_close(disk);
}

Test(disk_checkpoint, a_chain_has_an_end)
{
	struct base_error err = { .code = 0 };
	struct disk *disk = NULL;
	char name[32];

	disk_lab_make(&lab, "0.vhdx", DISK_VHDX, DISK_DYNAMIC, SIZE, NULL);
	disk = disk_lab_open(&lab, "0.vhdx");
	for (int i = 1; i < DISK_CHAIN_MAX; i++) {
		(void)snprintf(name, sizeof(name), "%d.vhdx", i);
		check_ok(disk, name);
		cr_assert_eq(lab_write(disk, (uint64_t)i * 65536, 65536, (uint32_t)i), 0);
	}
	cr_assert_eq(disk_checkpoint(disk, "more.vhdx", &err), -ELOOP);
	for (int i = 1; i < DISK_CHAIN_MAX; i++)
		cr_assert_eq(lab_verify(disk, (uint64_t)i * 65536, 65536, (uint32_t)i), 0);
	disk_close(disk);
}

/* The k-th request to the store fails, for every k: the checkpoint is there, or nothing changed. */
Test(disk_checkpoint, every_failure_leaves_a_disk_that_works)
{
	struct base_error err = { .code = 0 };

	for (uint64_t k = 1;; k++) {
		struct fake_store_plan plan = { .fail_at = k, .fail_code = -EIO };
		struct disk *disk = NULL;
		int rc = 0;

		disk_lab_fini(&lab);
		setup();
		lab.events.top_moved = top_moved;
		disk_lab_make(&lab, "a.vhdx", DISK_VHDX, DISK_DYNAMIC, SIZE, NULL);
		disk = disk_lab_open(&lab, "a.vhdx");
		cr_assert_eq(lab_write(disk, 0, MIB, 1), 0);
		cr_assert_eq(disk_do(disk, DISK_FLUSH, 0, NULL, 0, NULL), 0);
		fake_store_set_plan(lab.store, &plan);
		rc = disk_checkpoint(disk, "b.vhdx", &err);
		if (fake_store_request_count(lab.store) < k) {
			cr_assert_eq(rc, 0);
			disk_close(disk);
			break;
		}
		plan = (struct fake_store_plan){ .fail_at = 0 };
		fake_store_set_plan(lab.store, &plan);
		cr_assert_eq(lab_verify(disk, 0, MIB, 1), 0, "request %lu", (unsigned long)k);
		disk_close(disk);
		lab.options.read_only = false;
		disk = disk_lab_open(&lab, top[0] != '\0' ? top : "a.vhdx");
		cr_assert_eq(lab_verify(disk, 0, MIB, 1), 0, "request %lu", (unsigned long)k);
		cr_assert_eq(lab_write(disk, MIB, MIB, 2), 0);
		disk_close(disk);
	}
}
