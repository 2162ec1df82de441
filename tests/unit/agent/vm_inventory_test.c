/* SPDX-License-Identifier: Apache-2.0 */
/* The record of a VM's images: what a dead process has left goes or is finished by the word of the
 * migrations' records, and nothing else is touched. */
#include <criterion/criterion.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "agent/vm_inventory.h"
#include "base/cleanup.h"

#define VM "web1"

static char folder[300];
static int state_fd = -1;
static struct mig_records *records;
static struct mig_keep keep;
static struct vm_inventory *inventory;
static const uint8_t id[MIG_ID_BYTES] = { 1, 2, 3 };
static const uint8_t other_id[MIG_ID_BYTES] = { 9 };
static struct base_error err;

static void setup(void)
{
	(void)snprintf(folder, sizeof(folder), "%s/inventory-XXXXXX", TEST_BINARY_DIR);
	cr_assert_not_null(mkdtemp(folder));
	state_fd = open(folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	cr_assert_geq(state_fd, 0);
	cr_assert_eq(mig_records_new(state_fd, NULL, &records, &err), 0);
	cr_assert_eq(mig_keep_init(&keep, records, VM, "192.0.2.1:7", id, &err), 0);
}

static void teardown(void)
{
	char command[400];

	vm_inventory_free(inventory);
	mig_records_free(records);
	base_closep(&state_fd);
	(void)snprintf(command, sizeof(command), "rm -rf '%s'", folder);
	(void)!system(command); /* NOLINT: the test's own path */
}

TestSuite(vm_inventory, .init = setup, .fini = teardown, .timeout = 60);

static void touch(const char *name)
{
	int fd = openat(state_fd, name, O_WRONLY | O_CREAT | O_CLOEXEC, 0600);

	cr_assert_geq(fd, 0);
	(void)close(fd);
}

static bool is_there(const char *name)
{
	return faccessat(state_fd, name, F_OK, 0) == 0;
}

/* What a process that is dead by now has written. */
static void record(enum vm_inventory_job job, const uint8_t *of, bool keeps)
{
	cr_assert_eq(vm_inventory_load(state_fd, VM, &inventory, &err), 0, "%s", err.text);
	vm_inventory_begin(inventory, job, of, keeps);
	if (job != VM_INVENTORY_LEAVING)
		vm_inventory_add(inventory, true, folder, "new.vhdx");
	if (job != VM_INVENTORY_INCOMING) {
		vm_inventory_add(inventory, false, folder, "old.vhdx");
		vm_inventory_add(inventory, false, folder, "past.vhdx");
	}
	if (job == VM_INVENTORY_DISK_MOVE)
		vm_inventory_paths(inventory, "/srv/old.vhdx", "/srv/new.vhdx");
	cr_assert_eq(vm_inventory_write(inventory, &err), 0, "%s", err.text);
}

static void die(void)
{
	vm_inventory_free(base_take(&inventory));
}

static int look(void)
{
	return vm_inventory_look(state_fd, records, VM, &err);
}

static void make_files(void)
{
	static const char *const names[] = { "new.vhdx", "new.vhdx.incoming", "old.vhdx",
					     "past.vhdx", "bystander.vhdx.incoming" };

	for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++)
		touch(names[i]);
}

/* --- a destination --- */

static void arrive(void)
{
	make_files();
	record(VM_INVENTORY_INCOMING, id, false);
	die();
}

Test(vm_inventory, what_was_coming_and_never_was_all_here_goes)
{
	cr_assert_eq(mig_register_coming(&keep, 5, &err), 0, "%s", err.text);
	arrive();
	cr_assert_eq(look(), 0, "%s", err.text);
	cr_assert(!is_there("new.vhdx") && !is_there("new.vhdx.incoming"));
	cr_assert(is_there("bystander.vhdx.incoming"), "it is not named");
	cr_assert(!is_there(VM ".images"));
	cr_assert_eq(look(), 0);
}

Test(vm_inventory, what_is_in_doubt_stays)
{
	struct mig_register now;

	cr_assert_eq(mig_register_begin(&keep, 5, &err), 0, "%s", err.text);
	arrive();
	cr_assert_eq(look(), 0);
	cr_assert(is_there("new.vhdx") && is_there(VM ".images"));
	cr_assert_eq(mig_register_ask(&keep, 5, MIG_SOURCE, &now, &err), 0, "%s", err.text);
	cr_assert_eq(look(), 0);
	cr_assert(!is_there("new.vhdx"), "it was given back");
}

Test(vm_inventory, what_the_vm_has_come_with_stays)
{
	struct mig_register now;

	cr_assert_eq(mig_register_begin(&keep, 5, &err), 0, "%s", err.text);
	arrive();
	cr_assert_eq(mig_register_ask(&keep, 5, MIG_DESTINATION, &now, &err), 0, "%s", err.text);
	cr_assert_eq(look(), 0);
	cr_assert(is_there("new.vhdx") && !is_there(VM ".images"));
}

Test(vm_inventory, without_the_migrations_register_nothing_goes)
{
	struct mig_keep other;

	arrive();
	cr_assert_eq(look(), 0);
	cr_assert(is_there("new.vhdx") && !is_there(VM ".images"));
	cr_assert_eq(mig_keep_init(&other, records, VM, "192.0.2.1:7", other_id, &err), 0);
	cr_assert_eq(mig_register_coming(&other, 5, &err), 0);
	arrive();
	cr_assert_eq(look(), 0);
	cr_assert(is_there("new.vhdx"));
}

Test(vm_inventory, nothing_of_a_process_that_lives_is_touched)
{
	cr_assert_eq(mig_register_coming(&keep, 5, &err), 0);
	make_files();
	record(VM_INVENTORY_INCOMING, id, false);
	cr_assert_eq(look(), 0);
	cr_assert(is_there("new.vhdx.incoming"));
	die();
	cr_assert_eq(look(), 0);
	cr_assert(!is_there("new.vhdx.incoming"));
}

/* --- a source --- */

static void depart(bool keeps)
{
	make_files();
	record(VM_INVENTORY_LEAVING, id, keeps);
	die();
}

Test(vm_inventory, an_image_goes_when_the_vm_is_known_to_run_elsewhere)
{
	depart(false);
	cr_assert_eq(mig_promise_make(&keep, 5, &err), 0, "%s", err.text);
	cr_assert_eq(look(), 0);
	cr_assert(is_there("old.vhdx") && is_there("past.vhdx") && is_there(VM ".images"));
	cr_assert_eq(mig_promise_end(&keep, true, 5, &err), 0, "%s", err.text);
	cr_assert_eq(look(), 0, "%s", err.text);
	cr_assert(!is_there("old.vhdx") && !is_there("old.vhdx.moved") && !is_there("past.vhdx"));
	cr_assert(is_there("new.vhdx") && !is_there(VM ".images"));
}

Test(vm_inventory, an_image_that_is_kept_is_put_away)
{
	depart(true);
	cr_assert_eq(mig_promise_make(&keep, 5, &err), 0, "%s", err.text);
	cr_assert_eq(mig_promise_end(&keep, true, 5, &err), 0, "%s", err.text);
	cr_assert_eq(look(), 0, "%s", err.text);
	cr_assert(!is_there("old.vhdx") && is_there("old.vhdx.moved"));
}

Test(vm_inventory, an_image_stays_where_the_vm_stayed)
{
	depart(false);
	cr_assert_eq(look(), 0);
	cr_assert(is_there("old.vhdx") && !is_there(VM ".images"), "nobody was asked");
	depart(false);
	cr_assert_eq(mig_promise_make(&keep, 5, &err), 0, "%s", err.text);
	cr_assert_eq(mig_promise_end(&keep, false, 6, &err), 0, "%s", err.text);
	cr_assert_eq(look(), 0);
	cr_assert(is_there("old.vhdx") && !is_there(VM ".images"), "it was handed back");
}

/* --- a disk --- */

Test(vm_inventory, a_disk_that_had_not_switched_is_where_it_was)
{
	make_files();
	record(VM_INVENTORY_DISK_MOVE, NULL, false);
	die();
	cr_assert_eq(look(), 0, "%s", err.text);
	cr_assert(is_there("old.vhdx") && is_there("past.vhdx"));
	cr_assert(!is_there("new.vhdx") && !is_there("new.vhdx.incoming"));
	cr_assert(!is_there(VM ".images"));
}

Test(vm_inventory, a_disk_that_had_switched_is_where_it_went)
{
	make_files();
	record(VM_INVENTORY_DISK_MOVE, NULL, false);
	die();
	cr_assert_eq(renameat(state_fd, "old.vhdx", state_fd, "old.vhdx.moved"), 0);
	cr_assert_eq(look(), 0, "%s", err.text);
	cr_assert(!is_there("old.vhdx.moved") && !is_there("past.vhdx") && is_there("new.vhdx"));
	cr_assert_eq(vm_inventory_load(state_fd, VM, &inventory, &err), 0);
	cr_assert_str_eq(vm_inventory_where(inventory, "/srv/old.vhdx"), "/srv/new.vhdx");
	cr_assert_null(vm_inventory_where(inventory, "/srv/new.vhdx"));
	vm_inventory_begin(inventory, VM_INVENTORY_DISK_MOVE, NULL, false);
	vm_inventory_paths(inventory, "/srv/new.vhdx", "/srv/third.vhdx");
	cr_assert_eq(vm_inventory_end(inventory, true, &err), 0);
	cr_assert_str_eq(vm_inventory_where(inventory, "/srv/old.vhdx"), "/srv/third.vhdx");
	cr_assert_str_eq(vm_inventory_where(inventory, "/srv/new.vhdx"), "/srv/third.vhdx");
	vm_inventory_begin(inventory, VM_INVENTORY_DISK_MOVE, NULL, false);
	vm_inventory_paths(inventory, "/srv/third.vhdx", "/srv/old.vhdx");
	cr_assert_eq(vm_inventory_end(inventory, true, &err), 0);
	cr_assert_null(vm_inventory_where(inventory, "/srv/old.vhdx"), "it is there again");
	cr_assert_str_eq(vm_inventory_where(inventory, "/srv/new.vhdx"), "/srv/old.vhdx");
}

Test(vm_inventory, two_images_that_look_like_the_disk_are_a_persons_matter)
{
	make_files();
	touch("old.vhdx.moved");
	record(VM_INVENTORY_DISK_MOVE, NULL, false);
	die();
	cr_assert_eq(look(), -EPROTO);
	cr_assert(strstr(err.text, "under both names") != NULL, "%s", err.text);
	cr_assert(is_there("old.vhdx") && is_there("new.vhdx") && is_there("old.vhdx.moved"));
}

/* --- the record --- */

Test(vm_inventory, a_record_that_is_damaged_is_an_error)
{
	char bytes[4096];
	size_t length = 0;
	int fd = -1;

	record(VM_INVENTORY_DISK_MOVE, NULL, true);
	die();
	fd = openat(state_fd, VM ".images", O_RDWR | O_CLOEXEC);
	cr_assert_geq(fd, 0);
	length = (size_t)read(fd, bytes, sizeof(bytes));
	for (size_t i = 0; i < length; i++) {
		json_t *root = NULL;

		bytes[i] ^= 4;
		cr_assert_eq(vm_inventory_decode(bytes, length, &root, &err), -EBADMSG, "byte %zu",
			     i);
		bytes[i] ^= 4;
		cr_assert_eq(vm_inventory_decode(bytes, i, &root, &err), -EBADMSG);
	}
	cr_assert_eq(pwrite(fd, "x", 1, 30), 1);
	(void)close(fd);
	cr_assert_eq(look(), -EBADMSG);
	cr_assert(strstr(err.text, VM ".images") != NULL, "%s", err.text);
}
