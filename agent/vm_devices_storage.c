/* SPDX-License-Identifier: Apache-2.0 */
/* A disk of a running VM moves to another folder: docs/migrate/disks.md, section 5. */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "agent/vm_devices_priv.h"

static const char *leaf_of(const char *name)
{
	const char *slash = strrchr(name, '/');

	return slash != NULL ? slash + 1 : name;
}

/* 0: @disk can move. */
static int check_disk(const struct vm_disk *disk, struct base_error *err)
{
	const char *path = disk->config.path;

	if (disk->disk == NULL || !disk->active)
		return base_fail(err, -EROFS,
				 "disk '%s': read-only or empty: expected one that is written",
				 path);
	if (atomic_load(&disk->stalled) != 0)
		return base_fail(err, -EAGAIN,
				 "disk '%s': it waits for its store: expected it to work", path);
	return 0;
}

/* Where it goes: the folder @to, which is in one of the stores. */
static int find_place(struct vm_devices *devices, const struct vm_disk *disk, const char *to,
		      struct vm_place *ret_place, char path[VM_PATH_BYTES], struct base_error *err)
{
	size_t length = strlen(to);
	bool slash = length > 0 && to[length - 1] == '/';
	int written = snprintf(path, VM_PATH_BYTES, "%s%s%s", to, slash ? "" : "/",
			       leaf_of(disk_name(disk->disk)));
	int code = 0;

	if (written < 0 || (size_t)written >= VM_PATH_BYTES)
		return base_fail(err, -ENAMETOOLONG, "folder '%s': too long", to);
	code = vm_devices_find(devices, path, ret_place, err);
	if (code == 0 && ret_place->store == disk->place.store &&
	    strcmp(ret_place->name, disk_name(disk->disk)) == 0)
		return base_fail(err, -EINVAL, "folder '%s': the disk is there already", to);
	return code;
}

int vm_devices_disk_move(struct vm_devices *devices, const struct vm_disk_move *move,
			 struct vm_storage_move_report *ret_report, struct base_error *err)
{
	struct vm_disk *disk = vm_devices_disk(devices, move->controller, move->lun);
	struct vm_storage_move_options options = {
		.gate = { .may_submit = devices->options.may_submit,
			  .context = devices->options.context },
		.progress = move->progress,
		.context = move->context,
	};
	struct vm_place place = { .store = NULL };
	char folder[STORE_NAME_BYTES];
	char path[VM_PATH_BYTES];
	int code = 0;

	if (disk == NULL)
		return base_fail(err, -ENOENT,
				 "controller %" PRIu32 " LUN %" PRIu32
				 ": nothing there: expected a disk",
				 move->controller, move->lun);
	code = check_disk(disk, err);
	if (code == 0)
		code = find_place(devices, disk, move->folder, &place, path, err);
	if (code < 0)
		return code;
	(void)snprintf(folder, sizeof(folder), "%.*s", (int)(leaf_of(place.name) - place.name),
		       place.name);
	options.from = disk->place.store->store;
	options.disk = disk->disk;
	options.to = place.store->store;
	options.folder = folder;
	code = vm_storage_move(&options, ret_report, err);
	if (code < 0)
		return base_fail_within(err, code, "disk '%s'", disk->config.path);
	disk->place = place;
	(void)snprintf(disk->config.path, sizeof(disk->config.path), "%s", path);
	return 0;
}
