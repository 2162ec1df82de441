/* SPDX-License-Identifier: Apache-2.0 */
/* Disks of a VM that moves. */
#include "agent/vm_devices_move.h"

#include <stdio.h>
#include <string.h>

#include "agent/vm_devices_priv.h"

static void see(const struct vm_disk *disk, struct vm_plan_disk *ret_disk)
{
	const char *slash = strrchr(disk->place.name, '/');
	bool empty = disk->config.path[0] == '\0';

	*ret_disk = (struct vm_plan_disk){
		.controller = disk->config.controller,
		.lun = disk->config.lun,
		.dvd = disk->config.dvd,
		.read_only = disk->config.read_only,
		.empty = empty,
	};
	/* A longer one is cut, and refused as an image that cannot move. */
	if (!empty)
		(void)snprintf(ret_disk->image, sizeof(ret_disk->image), "%.*s",
			       (int)sizeof(ret_disk->image) - 1,
			       slash != NULL ? slash + 1 : disk->place.name);
}

uint32_t vm_devices_seen(struct vm_devices *devices, struct vm_plan_disk ret_list[VM_DISKS_MAX])
{
	for (uint32_t i = 0; i < devices->disk_count; i++)
		see(devices->disks[i], &ret_list[i]);
	return devices->disk_count;
}

uint32_t vm_devices_images(struct vm_devices *devices,
			   struct vm_migrate_from ret_list[VM_DISKS_MAX])
{
	uint32_t count = 0;

	for (uint32_t i = 0; i < devices->disk_count; i++) {
		const struct vm_disk *disk = devices->disks[i];

		if (disk->disk != NULL)
			ret_list[count++] =
				(struct vm_migrate_from){ .store = disk->place.store->store,
							  .disk = disk->disk,
							  .read_only = disk->config.read_only };
	}
	return count;
}

uint32_t vm_devices_awaited(const struct vm_devices *devices)
{
	uint32_t count = 0;

	for (uint32_t i = 0; i < devices->disk_count; i++)
		count += devices->disks[i]->place.comes;
	return count;
}

struct store *vm_devices_store(const struct vm_devices *devices)
{
	struct store *store = NULL;

	for (uint32_t i = 0; i < devices->disk_count; i++) {
		const struct vm_place *place = &devices->disks[i]->place;

		if (place->store == NULL)
			continue;
		if (store != NULL && store != place->store->store)
			return NULL;
		store = place->store->store;
	}
	return store;
}

const char *vm_devices_folder_of(const struct vm_devices *devices, const struct store *store)
{
	for (uint32_t i = 0; i < devices->store_count; i++)
		if (devices->stores[i].store == store)
			return devices->stores[i].path;
	base_bug("a store that is none of the disks'");
}

struct base_io_loop *vm_devices_move_loop(struct vm_devices *devices)
{
	return vm_devices_loop(devices);
}

int vm_devices_came(struct vm_devices *devices, struct base_error *err)
{
	int code = 0;

	for (uint32_t i = 0; code == 0 && i < devices->disk_count; i++)
		if (devices->disks[i]->place.comes)
			code = vm_devices_put_in(devices->disks[i], err);
	return code;
}
