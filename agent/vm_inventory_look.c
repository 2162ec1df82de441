/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What a dead process has left of a job is removed, or finished: by the records of migrations, and
 * of a disk's move by the name of its old top.  docs/migrate/records.md, section 8.
 */
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "agent/vm_image_away.h"
#include "agent/vm_inventory_priv.h"
#include "base/cleanup.h"
#include "base/log.h"
#include "hypervisor/disk/disk_next.h"
#include "hypervisor/disk/local_store.h"

enum verdict {
	VERDICT_WAIT,    /* nobody here can say: nothing is touched */
	VERDICT_FORGET,  /* all files stay: they are somebody's */
	VERDICT_UNDO,    /* what was made goes */
	VERDICT_LEAVE,   /* what was left is put away */
	VERDICT_CONFLICT /* both look like the disk */
};

struct looking {
	struct vm_inventory *inventory;
	struct base_io_loop *loop;
	int count; /* of existing files, for the verdict */
	int code;  /* the first failure */
	struct base_error *err;
};

BASE_DEFINE_FREEP(struct vm_inventory, vm_inventory_free);
BASE_DEFINE_FREEP(struct base_io_loop, base_io_loop_free);
BASE_DEFINE_FREEP(struct store, store_free);

/* A folder that is not there is perhaps one that is not mounted: nothing is known of it then. */
static int open_store(struct looking *looking, const char *folder, struct store **ret_store)
{
	struct base_error why = { 0 };
	int code = local_store_open(folder, NULL, ret_store, &why);

	if (code < 0 && looking->code == 0)
		looking->code = base_fail(looking->err, code, "%s", why.text);
	return code;
}

static void done(struct looking *looking, const char *folder, const char *name, const char *what,
		 int code, const struct base_error *why)
{
	if (code == -ENOENT)
		return;
	if (code == 0)
		base_log(BASE_LOG_NOTICE, "vm.image-left", "vm=%s folder=%s image=%s what=%s",
			 looking->inventory->vm, base_log_str(folder), base_log_str(name), what);
	else if (looking->code == 0)
		looking->code =
			base_fail(looking->err, code, "'%s/%s' was left by an earlier move: %s",
				  folder, name, why->text);
}

/* Made by a job that came to nothing. */
static int undo(void *context, const char *folder, const char *name)
{
	BASE_CLEANUP(store_freep) struct store *store = NULL;
	struct looking *looking = context;
	struct base_error why = { 0 };
	char part[STORE_NAME_BYTES];
	int length = snprintf(part, sizeof(part), "%s.incoming", name);

	if (open_store(looking, folder, &store) < 0)
		return 0;
	disk_next_remove(store, name);
	if (length > 0 && (size_t)length < sizeof(part))
		done(looking, folder, part, "removed", store_remove(store, part, &why), &why);
	done(looking, folder, name, "removed", store_remove(store, name, &why), &why);
	(void)!store_sync_folder(store, name, NULL);
	return 0;
}

/* Of a VM, or a disk, that is elsewhere. */
static int leave(void *context, const char *folder, const char *name)
{
	BASE_CLEANUP(store_freep) struct store *store = NULL;
	struct looking *looking = context;
	struct base_error why = { 0 };
	struct store_lease lease = { .held = false };
	int code = 0;

	if (open_store(looking, folder, &store) < 0)
		return 0;
	code = disk_next_exists(store, looking->loop, name, &why);
	if (code > 0)
		code = store_lease(store, name, &lease, &why);
	else if (code == 0)
		code = -ENOENT;
	if (code == 0 && lease.held)
		code = base_fail(&why, -EBUSY, "'%s' has it", lease.holder);
	if (code == 0)
		code = vm_image_away_check(store, looking->loop, name, &why);
	if (code == 0)
		code = vm_image_put_away(store, name, &why);
	done(looking, folder, name, "put-away", code, &why);
	if ((code == 0 || code == -ENOENT) && !vm_inventory_keeps(looking->inventory))
		done(looking, folder, name, "removed", vm_image_drop(store, name, &why), &why);
	return 0;
}

/* --- what has become of it --- */

static enum verdict judge_incoming(const struct vm_inventory *inventory,
				   struct mig_records *records)
{
	struct mig_record record;
	int code = mig_records_load(records, MIG_RECORD_REGISTER, inventory->vm, &record, NULL);

	/* Without its register the VM has left again, or what came was removed. */
	if (code == -ENOENT || (code == 0 && !vm_inventory_is_of(inventory, record.id)))
		return VERDICT_FORGET;
	if (code < 0)
		return VERDICT_WAIT;
	if (record.now.owner == MIG_DESTINATION)
		return VERDICT_FORGET;
	return record.state == MIG_HELD_COMING || mig_record_given_back(&record) ? VERDICT_UNDO
										 : VERDICT_WAIT;
}

static enum verdict judge_leaving(const struct vm_inventory *inventory, struct mig_records *records)
{
	struct mig_record record;
	int code = mig_records_load(records, MIG_RECORD_PROMISE, inventory->vm, &record, NULL);

	if (code == -ENOENT || (code == 0 && !vm_inventory_is_of(inventory, record.id)))
		return VERDICT_FORGET;
	if (code < 0)
		return VERDICT_WAIT;
#ifdef GODWIT_MUTANT_IMAGES_EARLY
	return VERDICT_LEAVE;
#else
	/* safety: the destination has said that the VM runs; nothing less lets an image go. */
	if (record.state == MIG_HELD_OVER)
		return record.now.owner == MIG_DESTINATION ? VERDICT_LEAVE : VERDICT_FORGET;
	return VERDICT_WAIT;
#endif
}

static int count_names(void *context, const char *folder, const char *name)
{
	BASE_CLEANUP(store_freep) struct store *store = NULL;
	struct looking *looking = context;
	char away[STORE_NAME_BYTES];

	if (open_store(looking, folder, &store) < 0)
		return 1;
	if (disk_next_exists(store, looking->loop, name, NULL) == 1)
		looking->count |= 1;
	if (vm_image_away_name(name, away, NULL) == 0 &&
	    disk_next_exists(store, looking->loop, away, NULL) == 1)
		looking->count |= 2;
	return 1; /* the top is the first, and it alone says */
}

static enum verdict judge_disk_move(struct looking *looking)
{
	looking->count = 0;
	(void)vm_inventory_each(looking->inventory, false, count_names, looking);
	if (looking->code < 0) { /* whoever starts the VM must not guess */
		looking->code = -EPROTO;
		return VERDICT_WAIT;
	}
	if (looking->count == 3)
		return VERDICT_CONFLICT;
	return looking->count == 1 ? VERDICT_UNDO : VERDICT_LEAVE;
}

static enum verdict judge(struct looking *looking, struct mig_records *records)
{
	switch (vm_inventory_job(looking->inventory)) {
	case VM_INVENTORY_INCOMING:
		return judge_incoming(looking->inventory, records);
	case VM_INVENTORY_LEAVING:
		return judge_leaving(looking->inventory, records);
	case VM_INVENTORY_DISK_MOVE:
		return judge_disk_move(looking);
	case VM_INVENTORY_NONE:
	case VM_INVENTORY_JOBS:
	default:
		return VERDICT_WAIT;
	}
}

static int carry_out(struct looking *looking, enum verdict verdict)
{
	struct vm_inventory *inventory = looking->inventory;
	bool moved = false;

	if (verdict == VERDICT_WAIT)
		return looking->code;
	if (verdict == VERDICT_CONFLICT)
		return base_fail(looking->err, -EPROTO,
				 "record of images of '%s': the old image of a disk that was moved "
				 "is there under both names: expected one of them to be removed",
				 inventory->vm);
	if (verdict == VERDICT_UNDO)
		(void)vm_inventory_each(inventory, true, undo, looking);
	if (verdict == VERDICT_LEAVE)
		(void)vm_inventory_each(inventory, false, leave, looking);
	if (looking->code < 0)
		return looking->code;
	moved = verdict == VERDICT_LEAVE && vm_inventory_job(inventory) == VM_INVENTORY_DISK_MOVE;
	return vm_inventory_end(inventory, moved, looking->err);
}

int vm_inventory_look(int directory_fd, struct mig_records *records, const char *name,
		      struct base_error *err)
{
	BASE_CLEANUP(vm_inventory_freep) struct vm_inventory *inventory = NULL;
	BASE_CLEANUP(base_io_loop_freep) struct base_io_loop *loop = NULL;
	struct looking looking = { .err = err };
	int code = vm_inventory_load(directory_fd, name, &inventory, err);

	if (code < 0 || vm_inventory_job(inventory) == VM_INVENTORY_NONE)
		return code;
	code = vm_inventory_lock(inventory, err);
	if (code <= 0 || vm_inventory_job(inventory) == VM_INVENTORY_NONE)
		return code;
	code = base_io_loop_new(NULL, &loop, err);
	if (code < 0)
		return code;
	looking.inventory = inventory;
	looking.loop = loop;
	return carry_out(&looking, judge(&looking, records));
}
