/* SPDX-License-Identifier: Apache-2.0 */
/* A disk of a VM's devices moves to another folder: where it is found from then on. */
#include <criterion/criterion.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "agent/vm_devices_priv.h"
#include "agent/vm_devices_storage.h"
#include "agent/vm_inventory.h"
#include "base/cleanup.h"
#include "hypervisor/disk/disk_next.h"
#include "hypervisor/disk/local_store.h"

#define SIZE (8ULL << 20)

static char folder[300];
static struct vm_config config = { .name = "vm" };
static struct vm_devices devices;
static struct vm_disk disk;
static struct base_io_loop *loop;
static struct base_error err;
static bool may;
static int state_fd = -1;

static bool may_submit(void *context)
{
	(void)context;
	return may;
}

static void add_store(const char *name)
{
	struct vm_store *store = &devices.stores[devices.store_count++];

	(void)snprintf(store->path, sizeof(store->path), "%s/%s", folder, name);
	(void)snprintf(store->name, sizeof(store->name), "/srv/%s", name);
	cr_assert_eq(mkdir(store->path, 0700), 0);
	cr_assert_eq(local_store_open(store->path, NULL, &store->store, &err), 0, "%s", err.text);
}

static void setup(void)
{
	const struct disk_create_options create = { .format = DISK_VHDX,
						    .kind = DISK_DYNAMIC,
						    .size_bytes = SIZE };
	struct disk_options options = { .name = "a.vhdx", .format = DISK_VHDX };
	char sub[340];

	(void)snprintf(folder, sizeof(folder), "%s/storage-XXXXXX", TEST_BINARY_DIR);
	cr_assert_not_null(mkdtemp(folder));
	may = true;
	devices.config = &config;
	devices.options.may_submit = may_submit;
	cr_assert_eq(base_io_loop_new(NULL, &loop, &err), 0);
	cr_assert_eq(base_io_loop_start(loop, "io", &err), 0);
	add_store("one");
	add_store("two");
	(void)snprintf(sub, sizeof(sub), "%s/two/sub", folder);
	cr_assert_eq(mkdir(sub, 0700), 0);
	options.store = devices.stores[0].store;
	options.loop = loop;
	cr_assert_eq(disk_create(options.store, "a.vhdx", loop, &create, &err), 0, "%s", err.text);
	disk = (struct vm_disk){ .devices = &devices,
				 .place = { .store = &devices.stores[0], .name = "a.vhdx" },
				 .active = true,
				 .attached = true };
	(void)snprintf(disk.config.path, sizeof(disk.config.path), "/srv/one/a.vhdx");
	cr_assert_eq(disk_open_standby(&options, &disk.disk, &err), 0, "%s", err.text);
	cr_assert_eq(disk_activate(disk.disk, 3, NULL, &err), 0, "%s", err.text);
	devices.disks[0] = &disk;
	devices.disk_count = 1;
}

static void teardown(void)
{
	char command[400];

	disk_close(disk.disk);
	for (uint32_t i = 0; i < devices.store_count; i++)
		store_free(devices.stores[i].store);
	base_io_loop_free(loop);
	(void)snprintf(command, sizeof(command), "rm -rf '%s'", folder);
	cr_assert_eq(system(command), 0); /* NOLINT: the test's own path */
}

TestSuite(vm_devices_storage, .init = setup, .fini = teardown, .timeout = 60);

static int move(uint32_t lun, const char *to)
{
	const struct vm_disk_move_options options = { .lun = lun,
						      .to = to,
						      .state_dir_fd = state_fd };
	struct vm_storage_move_report report;
	struct vm_disk_move *move = NULL;
	int code = vm_disk_move_new(&devices, &options, &move, &err);

	if (code == 0)
		code = vm_disk_move_run(move, &report, &err);
	if (code == 0)
		vm_disk_move_done(move);
	vm_disk_move_free(move);
	return code;
}

Test(vm_devices_storage, a_disk_is_where_it_has_moved)
{
	static uint8_t sector[512] __attribute__((aligned(512))) = "hello";
	static uint8_t seen[512] __attribute__((aligned(512)));

	cr_assert_eq(disk_do(disk.disk, DISK_WRITE, 4096, sector, 512, &err), 0);
	cr_assert_eq(move(0, "/srv/two"), 0, "%s", err.text);
	cr_assert_str_eq(disk.config.path, "/srv/two/a.vhdx");
	cr_assert_eq(disk.place.store, &devices.stores[1]);
	cr_assert_str_eq(disk_name(disk.disk), "a.vhdx");
	cr_assert_eq(disk_do(disk.disk, DISK_READ, 4096, seen, 512, &err), 0);
	cr_assert_arr_eq(sector, seen, 512);
	cr_assert_eq(disk_next_exists(devices.stores[0].store, loop, "a.vhdx", &err), 0);
	cr_assert_eq(move(0, "/srv/two/sub/"), 0, "%s", err.text);
	cr_assert_str_eq(disk.config.path, "/srv/two/sub/a.vhdx");
	cr_assert_str_eq(disk.place.name, "sub/a.vhdx");
	cr_assert_eq(disk_do(disk.disk, DISK_READ, 4096, seen, 512, &err), 0);
	cr_assert_arr_eq(sector, seen, 512);
	cr_assert_eq(move(0, "/srv/one"), 0, "%s", err.text);
	cr_assert_str_eq(disk.config.path, "/srv/one/a.vhdx");
}

Test(vm_devices_storage, where_a_disk_has_moved_is_recorded)
{
	BASE_CLOSE int fd = open(folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	struct vm_inventory *inventory = NULL;

	state_fd = fd;
	cr_assert_eq(disk_create(devices.stores[1].store, "a.vhdx", loop,
				 &(struct disk_create_options){ .format = DISK_RAW,
								.kind = DISK_DYNAMIC,
								.size_bytes = 4096 },
				 &err),
		     0);
	cr_assert_eq(move(0, "/srv/two"), -EINVAL, "it is there");
	cr_assert_lt(faccessat(fd, "vm.images", F_OK, 0), 0);
	may = false;
	cr_assert_eq(move(0, "/srv/two/sub"), -EAGAIN, "no leash");
	may = true;
	cr_assert_lt(faccessat(fd, "vm.images", F_OK, 0), 0, "nothing of it is left");
	cr_assert_eq(move(0, "/srv/two/b.vhdx"), 0, "%s", err.text);
	cr_assert_str_eq(disk_name(disk.disk), "b.vhdx");
	cr_assert_eq(vm_inventory_load(fd, "vm", &inventory, &err), 0, "%s", err.text);
	cr_assert_str_eq(vm_inventory_where(inventory, "/srv/one/a.vhdx"), "/srv/two/b.vhdx");
	vm_inventory_free(inventory);
	cr_assert_eq(move(0, "/srv/two/c.raw"), -EINVAL, "it ends otherwise");
	cr_assert_eq(move(0, "/srv/none/c.vhdx"), -ENOENT);
}

Test(vm_devices_storage, what_cannot_move_stays)
{
	cr_assert_eq(move(1, "/srv/two"), -ENOENT);
	cr_assert_eq(move(0, "/elsewhere"), -ENOENT);
	cr_assert_eq(move(0, "/srv/one"), -EINVAL);
	cr_assert(strstr(err.text, "there already") != NULL, "%s", err.text);
	atomic_store(&disk.stalled, -ENOSPC);
	cr_assert_eq(move(0, "/srv/two"), -EAGAIN);
	atomic_store(&disk.stalled, 0);
	may = false;
	cr_assert_eq(move(0, "/srv/two"), -EAGAIN, "no leash");
	may = true;
	disk.active = false;
	cr_assert_eq(move(0, "/srv/two"), -EROFS);
	disk.active = true;
	cr_assert_str_eq(disk.config.path, "/srv/one/a.vhdx");
	cr_assert_eq(move(0, "/srv/two"), 0, "%s", err.text);
}
