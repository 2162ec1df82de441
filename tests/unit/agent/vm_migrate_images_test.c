/* SPDX-License-Identifier: Apache-2.0 */
/* What a migration records of its images, and what becomes of them at its end, on either side. */
#include <criterion/criterion.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "agent/vm_devices_priv.h"
#include "agent/vm_migrate_priv.h"
#include "base/cleanup.h"
#include "hypervisor/disk/local_store.h"

#define EPOCH 3u

static char folder[300];
static struct vm_config config = { .name = "web1" };
static struct vm_devices devices;
static struct vm_disk disk;
static struct vm_move move;
static struct mig_plan plan;
static struct base_io_loop *loop;
static int folder_fd = -1;
static struct base_error err;

static void setup(void)
{
	const struct disk_create_options create = { .format = DISK_VHDX,
						    .kind = DISK_DYNAMIC,
						    .size_bytes = 8ULL << 20 };
	struct disk_options options = { .name = "a.vhdx", .format = DISK_VHDX };
	struct vm_store *store = &devices.stores[0];

	(void)snprintf(folder, sizeof(folder), "%s/images-XXXXXX", TEST_BINARY_DIR);
	cr_assert_not_null(mkdtemp(folder));
	folder_fd = open(folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	cr_assert_eq(base_io_loop_new(NULL, &loop, &err), 0);
	cr_assert_eq(base_io_loop_start(loop, "io", &err), 0);
	(void)snprintf(store->path, sizeof(store->path), "%s", folder);
	cr_assert_eq(local_store_open(folder, NULL, &store->store, &err), 0, "%s", err.text);
	devices.store_count = 1;
	devices.config = &config;
	devices.loops[0] = loop;
	devices.loop_count = 1;
	options.store = store->store;
	options.loop = loop;
	cr_assert_eq(disk_create(store->store, "a.vhdx", loop, &create, &err), 0, "%s", err.text);
	cr_assert_eq(disk_open_standby(&options, &disk.disk, &err), 0, "%s", err.text);
	cr_assert_eq(disk_activate(disk.disk, EPOCH, NULL, &err), 0, "%s", err.text);
	disk.devices = &devices;
	disk.place = (struct vm_place){ .store = store, .name = "a.vhdx" };
	devices.disks[0] = &disk;
	devices.disk_count = 1;
	move.options = (struct vm_move_options){ .config = &config,
						 .devices = &devices,
						 .state_dir_fd = folder_fd };
	cr_assert_eq(mig_records_new(folder_fd, NULL, &move.options.records, &err), 0);
	memset(move.id, 7, sizeof(move.id));
	cr_assert_eq(mig_keep_init(&move.keep, move.options.records, "web1", "192.0.2.1:7", move.id,
				   &err),
		     0);
}

static void teardown(void)
{
	char command[400];

	vm_migrate_out_free(move.images_out);
	vm_inventory_free(move.inventory);
	free(move.plan);
	mig_plan_fini(&plan);
	disk_close(disk.disk);
	store_free(devices.stores[0].store);
	base_io_loop_free(loop);
	mig_records_free(move.options.records);
	base_closep(&folder_fd);
	(void)snprintf(command, sizeof(command), "rm -rf '%s'", folder);
	(void)!system(command); /* NOLINT: the test's own path */
}

TestSuite(vm_migrate_images, .init = setup, .fini = teardown, .timeout = 60);

static bool is_there(const char *name)
{
	return faccessat(folder_fd, name, F_OK, 0) == 0;
}

static void depart(void)
{
	const struct vm_migrate_from from = { .store = devices.stores[0].store, .disk = disk.disk };

	plan.objects = calloc(1, sizeof(*plan.objects));
	cr_assert_not_null(plan.objects);
	plan.object_count = 1;
	cr_assert_eq(vm_migrate_out_new(&from, 1, &plan, &move.images_out, &err), 0, "%s",
		     err.text);
	cr_assert_eq(vm_move_images_leave(&move, &err), 0, "%s", err.text);
	cr_assert(is_there("web1.images"));
}

static void give_away(void)
{
	vm_migrate_out_stop(move.images_out);
	cr_assert_eq(disk_deactivate(disk.disk, &err), 0, "%s", err.text);
	move.end = MIG_OUT_MOVED;
}

Test(vm_migrate_images, a_vm_that_stays_keeps_its_image)
{
	depart();
	move.end = MIG_OUT_CANCELLED;
	vm_move_images_left(&move);
	cr_assert(is_there("a.vhdx") && !is_there("web1.images"));
}

Test(vm_migrate_images, a_vm_that_has_moved_leaves_no_image)
{
	depart();
	cr_assert_eq(mig_promise_make(&move.keep, EPOCH, &err), 0, "%s", err.text);
	give_away();
	cr_assert_eq(mig_promise_end(&move.keep, true, EPOCH, &err), 0, "%s", err.text);
	vm_move_images_left(&move);
	cr_assert(!is_there("a.vhdx") && !is_there("a.vhdx.moved") && !is_there("web1.images"));
}

Test(vm_migrate_images, it_leaves_one_that_nobody_starts_from_where_it_is_kept)
{
	move.request.keep = true;
	depart();
	cr_assert_eq(mig_promise_make(&move.keep, EPOCH, &err), 0, "%s", err.text);
	give_away();
	cr_assert_eq(mig_promise_end(&move.keep, true, EPOCH, &err), 0, "%s", err.text);
	vm_move_images_left(&move);
	cr_assert(!is_there("a.vhdx") && is_there("a.vhdx.moved") && !is_there("web1.images"));
}

Test(vm_migrate_images, what_is_not_recorded_lets_no_image_go)
{
	depart();
	cr_assert_eq(mig_promise_make(&move.keep, EPOCH, &err), 0, "%s", err.text);
	give_away();
	vm_move_images_left(&move);
	cr_assert(is_there("a.vhdx") && is_there("web1.images"));
	/* The process ends; what it did not know is in the records when the next one looks. */
	vm_inventory_free(base_take(&move.inventory));
	vm_migrate_out_free(base_take(&move.images_out));
	disk_close(base_take(&disk.disk));
	cr_assert_eq(vm_inventory_look(folder_fd, move.options.records, "web1", &err), 0);
	cr_assert(is_there("a.vhdx") && is_there("web1.images"));
	cr_assert_eq(mig_promise_end(&move.keep, true, EPOCH, &err), 0, "%s", err.text);
	cr_assert_eq(vm_inventory_look(folder_fd, move.options.records, "web1", &err), 0, "%s",
		     err.text);
	cr_assert(!is_there("a.vhdx") && !is_there("a.vhdx.moved") && !is_there("web1.images"));
}

static void arrive(void)
{
	static const char *const names[] = { "b.vhdx" };

	move.plan = calloc(1, sizeof(*move.plan));
	cr_assert_not_null(move.plan);
	memcpy(move.plan->id, move.id, sizeof(move.id));
	cr_assert_eq(mig_register_coming(&move.keep, EPOCH, &err), 0, "%s", err.text);
	cr_assert_eq(vm_move_images_making(&move, names, 1, &err), 0, "%s", err.text);
	(void)close(openat(folder_fd, "b.vhdx.incoming", O_CREAT | O_WRONLY | O_CLOEXEC, 0600));
}

Test(vm_migrate_images, what_came_is_nobodys_leftover)
{
	arrive();
	vm_move_images_came(&move);
	cr_assert(is_there("b.vhdx.incoming") && !is_there("web1.images"));
}

Test(vm_migrate_images, what_could_not_be_removed_stays_recorded)
{
	arrive();
	vm_move_images_gone(&move);
	cr_assert(is_there("web1.images"));
	cr_assert_eq(unlinkat(folder_fd, "b.vhdx.incoming", 0), 0);
	vm_move_images_gone(&move);
	cr_assert(!is_there("web1.images"));
}

Test(vm_migrate_images, what_a_dead_destination_left_goes_at_the_next_look)
{
	arrive();
	cr_assert_eq(vm_inventory_look(folder_fd, move.options.records, "web1", &err), 0);
	cr_assert(is_there("b.vhdx.incoming"), "it lives");
	vm_inventory_free(base_take(&move.inventory));
	cr_assert_eq(vm_inventory_look(folder_fd, move.options.records, "web1", &err), 0, "%s",
		     err.text);
	cr_assert(!is_there("b.vhdx.incoming") && !is_there("web1.images"));
	cr_assert(is_there("a.vhdx"));
}
