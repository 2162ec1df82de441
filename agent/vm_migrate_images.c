/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Which images a migration leaves at its source and makes at its destination, as the record of them
 * knows it: written before there is anything that a crash could leave behind.
 * docs/migrate/records.md, section 8.
 */
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "agent/vm_inventory.h"
#include "agent/vm_migrate_priv.h"
#include "base/log.h"
#include "hypervisor/disk/disk_next.h"

static int load(struct vm_move *move, struct base_error *err)
{
	vm_inventory_free(move->inventory);
	move->inventory = NULL;
	return vm_inventory_load(move->options.state_dir_fd, move->options.config->name,
				 &move->inventory, err);
}

static void complain(const struct vm_move *move, const struct base_error *why)
{
	base_log(BASE_LOG_WARNING, "vm.images-record", "vm=%s why=%s", move->options.config->name,
		 base_log_str(why->text));
}

/* The record has nothing more to say. */
static void end(struct vm_move *move)
{
	struct base_error why = { 0 };

	if (vm_inventory_end(move->inventory, false, &why) < 0)
		complain(move, &why);
	vm_inventory_free(move->inventory);
	move->inventory = NULL;
}

/* --- source --- */

int vm_move_images_leave(struct vm_move *move, struct base_error *err)
{
	struct vm_migrate_own own[MIG_OBJECTS_MAX];
	uint32_t count = vm_migrate_out_own(move->images_out, own);
	int code = load(move, err);

	if (code < 0)
		return code;
	vm_inventory_begin(move->inventory, VM_INVENTORY_LEAVING, move->id, move->request.keep);
	for (uint32_t i = 0; i < count; i++)
		vm_inventory_add(move->inventory, false,
				 vm_devices_folder_of(move->options.devices, own[i].store),
				 own[i].name);
	return vm_inventory_write(move->inventory, err);
}

/* safety: not by what this process believes but by what is recorded durably: the destination has
 * said that the VM runs there. */
static bool is_over(const struct vm_move *move)
{
	struct mig_record record;

	return mig_records_load(move->options.records, MIG_RECORD_PROMISE,
				move->options.config->name, &record, NULL) == 0 &&
	       memcmp(record.id, move->id, sizeof(record.id)) == 0 &&
	       record.state == MIG_HELD_OVER && record.now.owner == MIG_DESTINATION;
}

void vm_move_images_left(struct vm_move *move)
{
	struct base_error why = { 0 };

	if (move->inventory == NULL || move->end == MIG_OUT_STALE)
		return; /* another's word decides: the next look finds it */
	if (move->end == MIG_OUT_MOVED) {
		if (!is_over(move))
			return;
		if (vm_migrate_out_discard(move->images_out, move->request.keep, &why) < 0) {
			complain(move, &why);
			return;
		}
	}
	end(move);
}

/* --- destination --- */

int vm_move_images_making(void *context, const char *const *names, uint32_t count,
			  struct base_error *err)
{
	struct vm_move *move = context;
	const char *folder = vm_devices_folder_of(move->options.devices,
						  vm_devices_store(move->options.devices));
	int code = load(move, err);

	if (code < 0)
		return code;
	vm_inventory_begin(move->inventory, VM_INVENTORY_INCOMING, move->plan->id, false);
	for (uint32_t i = 0; i < count; i++)
		vm_inventory_add(move->inventory, true, folder, names[i]);
	return vm_inventory_write(move->inventory, err);
}

void vm_move_images_came(struct vm_move *move)
{
	if (move->inventory != NULL)
		end(move);
}

static int is_there(void *context, const char *folder, const char *name)
{
	struct vm_move *move = context;
	struct store *store = vm_devices_store(move->options.devices);
	struct base_io_loop *loop = vm_devices_move_loop(move->options.devices);
	char part[STORE_NAME_BYTES];

	(void)folder;
	(void)snprintf(part, sizeof(part), "%s.incoming", name);
	return disk_next_exists(store, loop, name, NULL) != 0 ||
	       disk_next_exists(store, loop, part, NULL) != 0;
}

void vm_move_images_gone(struct vm_move *move)
{
	struct base_error why = { 0 };

	if (move->inventory == NULL)
		return;
	if (vm_inventory_each(move->inventory, true, is_there, move) == 0) {
		end(move);
		return;
	}
	(void)base_fail(&why, -EIO, "images that came could not be removed");
	complain(move, &why);
}
