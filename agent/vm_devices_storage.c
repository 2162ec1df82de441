/* SPDX-License-Identifier: Apache-2.0 */
/* A disk of a running VM moves to another folder: docs/agent/disk-move.md. */
#include "agent/vm_devices_storage.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "agent/vm_devices_priv.h"
#include "base/cleanup.h"

struct vm_disk_move {
	struct vm_devices *devices;
	struct vm_disk *disk;
	struct vm_disk_move_options options;
	struct vm_place place;         /* where it goes */
	char folder[STORE_NAME_BYTES]; /* in its store */
	char from[VM_PATH_BYTES];      /* of the host */
	char to[VM_PATH_BYTES];
};

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

/* --- where to --- */

static int stop_at_once(void *context, const char *name, uint64_t size_bytes)
{
	(void)context;
	(void)name;
	(void)size_bytes;
	return 1;
}

/* @place is of a file: its folder is there. */
static bool take_folder(struct vm_disk_move *move, const struct vm_place *place)
{
	int length = (int)(leaf_of(place->name) - place->name);

	(void)snprintf(move->folder, sizeof(move->folder), "%.*s", length > 0 ? length - 1 : 0,
		       place->name);
	return store_list(place->store->store, move->folder, stop_at_once, NULL, NULL) >= 0;
}

/* The path of a file in a folder that is there. */
static int try_path(struct vm_disk_move *move, struct base_error *err)
{
	struct vm_place place;
	int code = vm_devices_find(move->devices, move->to, &place, err);

	if (code < 0)
		return code;
	if (!take_folder(move, &place))
		return base_fail(err, -ENOENT, "'%s': expected its folder to be there", move->to);
	if (place.store == move->disk->place.store &&
	    strcmp(place.name, disk_name(move->disk->disk)) == 0)
		return base_fail(err, -EINVAL, "'%s': the disk is there already", move->to);
	move->place = place;
	return 0;
}

/* What a format is told by has to stay: the next start looks at it. */
static int check_extension(const char *is, const char *was, struct base_error *err)
{
	const char *dot = strrchr(leaf_of(was), '.');
	const char *new_dot = strrchr(leaf_of(is), '.');

	if (strcasecmp(dot != NULL ? dot : "", new_dot != NULL ? new_dot : "") == 0)
		return 0;
	return base_fail(err, -EINVAL,
			 "'%s': expected a folder that is there, or a file that ends with '%s'", is,
			 dot != NULL ? dot : "no extension");
}

/* Below a folder of that name, or as a file of that name. */
static int find_place(struct vm_disk_move *move, const char *to, struct base_error *err)
{
	const char *leaf = leaf_of(disk_name(move->disk->disk));
	size_t length = strlen(to);
	bool slash = length > 0 && to[length - 1] == '/';
	int written = snprintf(move->to, sizeof(move->to), "%s%s%s", to, slash ? "" : "/", leaf);
	int code = 0;

	if (written < 0 || (size_t)written >= sizeof(move->to))
		return base_fail(err, -ENAMETOOLONG, "'%s': too long", to);
	code = try_path(move, err);
	if (code != -ENOENT || slash)
		return code;
	(void)snprintf(move->to, sizeof(move->to), "%s", to);
	code = try_path(move, err);
	return code == 0 ? check_extension(to, leaf, err) : code;
}

/* --- the move --- */

int vm_disk_move_new(struct vm_devices *devices, const struct vm_disk_move_options *options,
		     struct vm_disk_move **ret_move, struct base_error *err)
{
	BASE_FREE struct vm_disk_move *move = calloc(1, sizeof(*move));
	int code = 0;

	if (move == NULL)
		return base_fail(err, -ENOMEM, "move of a disk");
	move->devices = devices;
	move->options = *options;
	move->disk = vm_devices_disk(devices, options->controller, options->lun);
	if (move->disk == NULL)
		return base_fail(err, -ENOENT,
				 "controller %" PRIu32 " LUN %" PRIu32
				 ": nothing there: expected a disk",
				 options->controller, options->lun);
	code = check_disk(move->disk, err);
	if (code == 0)
		code = find_place(move, options->to, err);
	if (code < 0)
		return code;
	move->options.to = NULL; /* the caller's */
	memcpy(move->from, move->disk->config.path, sizeof(move->from));
	*ret_move = base_take(&move);
	return 0;
}

int vm_disk_move_run(struct vm_disk_move *move, struct vm_storage_move_report *ret_report,
		     struct base_error *err)
{
	const struct vm_devices_options *devices = &move->devices->options;
	const struct vm_storage_move_options options = {
		.from = move->disk->place.store->store,
		.disk = move->disk->disk,
		.to = move->place.store->store,
		.folder = move->folder,
		.leaf = leaf_of(move->place.name),
		.gate = { .may_submit = devices->may_submit, .context = devices->context },
		.keep = move->options.keep,
		.bandwidth = move->options.bandwidth,
		.view = move->options.view,
	};
	int code = vm_storage_move(&options, ret_report, err);

	return code < 0 ? base_fail_within(err, code, "disk '%s'", move->from) : 0;
}

void vm_disk_move_done(struct vm_disk_move *move)
{
	struct vm_disk *disk = move->disk;
	BASE_LOCKED(&move->devices->lock);

	disk->place = move->place;
	memcpy(disk->config.path, move->to, sizeof(disk->config.path));
}

const char *vm_disk_move_from(const struct vm_disk_move *move)
{
	return move->from;
}

const char *vm_disk_move_to(const struct vm_disk_move *move)
{
	return move->to;
}

void vm_disk_move_free(struct vm_disk_move *move)
{
	free(move);
}
