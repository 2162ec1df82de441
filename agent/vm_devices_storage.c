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
#include "agent/vm_image_away.h"
#include "agent/vm_inventory.h"
#include "base/cleanup.h"
#include "base/log.h"
#include "hypervisor/disk/disk_next.h"

struct vm_disk_move {
	struct vm_devices *devices;
	struct vm_disk *disk;
	struct vm_disk_move_options options;
	struct vm_place place;         /* where it goes */
	char folder[STORE_NAME_BYTES]; /* in its store */
	char from[VM_PATH_BYTES];      /* of the host */
	char to[VM_PATH_BYTES];
	struct vm_inventory *inventory; /* while it runs */
	bool switched;
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

/* --- what is recorded of it --- */

static int begins(void *context, const struct vm_storage_files *files, struct base_error *err)
{
	struct vm_disk_move *move = context;
	int code = vm_inventory_load(move->options.state_dir_fd, move->devices->config->name,
				     &move->inventory, err);

	if (code < 0)
		return code;
	vm_inventory_begin(move->inventory, VM_INVENTORY_DISK_MOVE, NULL, move->options.keep);
	vm_inventory_paths(move->inventory, move->from, move->to);
	for (uint32_t i = 0; i < files->own_count; i++)
		vm_inventory_add(move->inventory, false, move->disk->place.store->path,
				 files->own[i].name);
	for (uint32_t i = 0; i < files->made_count; i++)
		vm_inventory_add(move->inventory, true, move->place.store->path, files->made[i]);
	return vm_inventory_write(move->inventory, err);
}

static void switched(void *context)
{
	struct vm_disk_move *move = context;

	move->switched = true;
}

/* Not 0: a file of a move that came to nothing is still there. */
static int is_made(void *context, const char *folder, const char *name)
{
	struct vm_disk_move *move = context;
	struct base_io_loop *loop = disk_loop(move->disk->disk);
	char part[STORE_NAME_BYTES];

	(void)folder;
	(void)snprintf(part, sizeof(part), "%s.incoming", name);
	return disk_next_exists(move->place.store->store, loop, name, NULL) != 0 ||
	       disk_next_exists(move->place.store->store, loop, part, NULL) != 0;
}

/* Not 0: an old image is still there, other than as it is to be. */
static int is_left(void *context, const char *folder, const char *name)
{
	struct vm_disk_move *move = context;
	struct store *store = move->disk->place.store->store;
	struct base_io_loop *loop = disk_loop(move->disk->disk);
	char away[STORE_NAME_BYTES];

	(void)folder;
	return disk_next_exists(store, loop, name, NULL) != 0 ||
	       (!move->options.keep && vm_image_away_name(name, away, NULL) == 0 &&
		disk_next_exists(store, loop, away, NULL) != 0);
}

/* What is still there stays recorded, for the next start. */
static void over(void *context)
{
	struct vm_disk_move *move = context;
	struct base_error why = { 0 };
	bool all = vm_inventory_each(move->inventory, !move->switched,
				     move->switched ? is_left : is_made, move) == 0;

	if (all && vm_inventory_end(move->inventory, move->switched, &why) < 0)
		base_log(BASE_LOG_WARNING, "vm.images-record", "vm=%s why=%s",
			 move->devices->config->name, base_log_str(why.text));
	vm_inventory_free(move->inventory);
	move->inventory = NULL;
}

int vm_disk_move_run(struct vm_disk_move *move, struct vm_storage_move_report *ret_report,
		     struct base_error *err)
{
	const struct vm_devices_options *devices = &move->devices->options;
	const struct vm_storage_words words = {
		.begins = begins, .switched = switched, .over = over, .context = move
	};
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
		.words = move->options.state_dir_fd >= 0 ? &words : NULL,
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
	if (move != NULL)
		vm_inventory_free(move->inventory);
	free(move);
}
