/* SPDX-License-Identifier: Apache-2.0 */
/* The record of the image that goes on from another: bytes, names, chains. */
#include "hypervisor/disk/disk_next.h"

#include <criterion/criterion.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "tests/support/disk_lab.h"

#define MIB (1ULL << 20)

static struct disk_lab lab;
static char newest[STORE_NAME_BYTES];

static void setup(void)
{
	disk_lab_init(&lab);
}

static void teardown(void)
{
	disk_lab_fini(&lab);
}

TestSuite(disk_next, .init = setup, .fini = teardown);

static void make(const char *name)
{
	disk_lab_make(&lab, name, DISK_RAW, DISK_DYNAMIC, MIB, NULL);
}

static void record(const char *name, const char *next)
{
	struct base_error err = { 0 };

	cr_assert_eq(disk_next_write(lab.store, lab.loop, name, next, &err), 0, "%s", err.text);
}

static int find(const char *name)
{
	return disk_next_find(lab.store, lab.loop, name, newest, NULL);
}

Test(disk_next, bytes_and_back)
{
	uint8_t bytes[DISK_NEXT_BYTES];
	char name[STORE_NAME_BYTES];

	cr_assert_eq(disk_next_encode("a b.1.avhdx", bytes, NULL), 0);
	cr_assert_eq(disk_next_decode(bytes, sizeof(bytes), name, NULL), 0);
	cr_assert_str_eq(name, "a b.1.avhdx");
	for (size_t i = 0; i < sizeof(bytes); i++) {
		bytes[i] ^= 1;
		cr_assert_eq(disk_next_decode(bytes, sizeof(bytes), name, NULL), -EBADMSG, "%zu",
			     i);
		bytes[i] ^= 1;
	}
	cr_assert_eq(disk_next_decode(bytes, sizeof(bytes) - 1, name, NULL), -EBADMSG);
	cr_assert_eq(disk_next_decode(bytes, 0, name, NULL), -EBADMSG);
}

Test(disk_next, names_that_are_none)
{
	static const char *const names[] = { "", ".", "..", "a/b", "a\nb", "a\x7f" };
	uint8_t bytes[DISK_NEXT_BYTES];
	char name[STORE_NAME_BYTES + 1];

	for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++)
		cr_assert_eq(disk_next_encode(names[i], bytes, NULL), -EINVAL, "%zu", i);
	memset(name, 'a', STORE_NAME_BYTES);
	name[STORE_NAME_BYTES] = '\0';
	cr_assert_eq(disk_next_encode(name, bytes, NULL), -ENAMETOOLONG);
}

Test(disk_next, found_over_several_checkpoints)
{
	struct base_error err = { 0 };

	make("d/a.img");
	make("d/a.1.avhdx");
	make("d/a.2.avhdx");
	cr_assert_eq(find("d/a.img"), 0);
	cr_assert_eq(disk_next_check(lab.store, lab.loop, "d/a.img", NULL), 0);
	record("d/a.img", "d/a.1.avhdx");
	cr_assert_eq(find("d/a.img"), 1);
	cr_assert_str_eq(newest, "d/a.1.avhdx");
	record("d/a.1.avhdx", "d/a.2.avhdx");
	cr_assert_eq(find("d/a.img"), 1);
	cr_assert_str_eq(newest, "d/a.2.avhdx");
	cr_assert_eq(find("d/a.2.avhdx"), 0);
	cr_assert_eq(disk_next_check(lab.store, lab.loop, "d/a.img", &err), -EPROTO);
	cr_assert_not_null(strstr(err.text, "'d/a.img'"), "%s", err.text);
	cr_assert_not_null(strstr(err.text, "'d/a.2.avhdx'"), "%s", err.text);
}

Test(disk_next, says_nothing_without_the_newer_image)
{
	make("a.img");
	record("a.img", "a.1.avhdx");
	cr_assert_eq(find("a.img"), 0);
	make("a.2.avhdx");
	record("a.img", "a.2.avhdx"); /* replaces it */
	cr_assert_eq(find("a.img"), 1);
	cr_assert_eq(store_remove(lab.store, "a.2.avhdx", NULL), 0);
	cr_assert_eq(find("a.img"), 0);
	disk_next_remove(lab.store, "a.img");
	disk_next_remove(lab.store, "a.img");
	cr_assert_eq(disk_next_exists(lab.store, lab.loop, ".a.img.next", NULL), 0);
}

Test(disk_next, a_circle_and_another_folder)
{
	make("a.img");
	make("b.img");
	record("a.img", "b.img");
	record("b.img", "a.img");
	cr_assert_eq(find("a.img"), -EBADMSG);
	cr_assert_eq(disk_next_write(lab.store, lab.loop, "d/a.img", "a.img", NULL), -EINVAL);
	cr_assert_eq(disk_next_write(lab.store, lab.loop, "a.img", "d/a.img", NULL), -EINVAL);
}

Test(disk_next, a_damaged_record_is_not_passed_over)
{
	struct base_error err = { 0 };

	make("a.img");
	disk_lab_make(&lab, ".a.img.next", DISK_RAW, DISK_DYNAMIC, DISK_NEXT_BYTES, NULL);
	cr_assert_eq(disk_next_check(lab.store, lab.loop, "a.img", &err), -EBADMSG);
	cr_assert_not_null(strstr(err.text, "'.a.img.next'"), "%s", err.text);
}

Test(disk_next, a_store_that_is_gone)
{
	make("a.img");
	fake_store_set_gone(lab.store, true);
	cr_assert_lt(find("a.img"), 0);
	cr_assert_lt(disk_next_write(lab.store, lab.loop, "a.img", "b.img", NULL), 0);
	fake_store_set_gone(lab.store, false);
	cr_assert_eq(find("a.img"), 0);
}
