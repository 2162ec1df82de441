/* SPDX-License-Identifier: Apache-2.0 */
/*
 * disk_checkpoint(): the guest goes on in a new differencing image.
 * Blocking; docs/hypervisor/disk/checkpoints.md lists what a power failure leaves at each step.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "hypervisor/disk/disk_priv.h"

struct checkpoint {
	struct disk *disk;
	const char *name;
	struct image *child;
	bool made; /* the file is there */
};

/* On the loop, held: the child is the top. */
static void checkpoint_switch(void *context)
{
	struct checkpoint *checkpoint = context;
	struct disk *disk = checkpoint->disk;

	for (uint32_t i = disk->layer_count; i > 0; i--)
		disk->layers[i] = disk->layers[i - 1];
	disk->layers[0] = checkpoint->child;
	disk->layer_count++;
	(void)snprintf(disk->top_name, sizeof(disk->top_name), "%s", checkpoint->name);
	disk_facts_update(disk);
}

/*
 * The child names the content of its parent by an id that a first write of the session would
 * change.  A new id now, which no later write of this session changes, lets the child be made
 * while the guest goes on writing.
 */
static int checkpoint_make(struct checkpoint *checkpoint, struct base_error *err)
{
	struct disk *disk = checkpoint->disk;
	struct image *top = disk->layers[0];
	const struct disk_guid id = disk_guid_new();
	const struct disk_create_options options = {
		.format = top->ops->format == DISK_VHD ? DISK_VHD : DISK_VHDX,
		.kind = DISK_DIFFERENCING,
		.parent = disk->top_name,
		.parent_format = top->ops->format,
	};
	int rc = 0;

	if (top->ops->set_data_id != NULL)
		rc = top->ops->set_data_id(top, &id, err);
	if (rc == 0)
		rc = image_ops_of(options.format)
			     ->create(disk->options.store, checkpoint->name, disk->loop, &options,
				      top, err);
	if (rc != 0)
		return rc;
	checkpoint->made = true;
	rc = disk_image_open(disk, checkpoint->name, options.format, false, &checkpoint->child,
			     err);
	if (rc != 0)
		return rc;
	checkpoint->child->parent = top;
	return checkpoint->child->ops->activate(checkpoint->child, disk_epoch(disk), NULL, err);
}

/* Held.  The old top becomes a parent; after a failure it is the top again. */
static int checkpoint_hand_over(struct checkpoint *checkpoint, struct base_error *err)
{
	struct disk *disk = checkpoint->disk;
	const struct disk_events *events = disk->options.events;
	struct image *top = disk->layers[0];
	struct image *child = checkpoint->child;
	uint64_t epoch = disk_epoch(disk);
	int rc = 0;

	rc = disk_image_do(top, DISK_FLUSH, 0, err); /* what fails here costs nothing */
	if (rc != 0)
		return rc;
	rc = top->ops->deactivate(top, err);
	if (rc == 0)
		rc = disk_parent_check(child, top, err);
	if (rc == 0 && events != NULL && events->top_moved != NULL) {
		rc = events->top_moved(disk->options.events_context, checkpoint->name);
		if (rc != 0)
			rc = base_fail_errno(err, rc, "record '%s' as the top", checkpoint->name);
	}
	if (rc == 0) {
		base_io_call(disk->loop, checkpoint_switch, checkpoint);
		return 0;
	}
	if (top->ops->activate(top, epoch, NULL, NULL) != 0)
		disk_break(disk, "the old top image could not be activated again");
	return rc;
}

static void checkpoint_undo(struct checkpoint *checkpoint)
{
	struct disk *disk = checkpoint->disk;
	struct image *child = checkpoint->child;

	if (child != NULL) {
		if (child->active)
			(void)child->ops->deactivate(child, NULL);
		child->ops->close(child);
	}
	if (checkpoint->made) {
		int unheard = store_remove(disk->options.store, checkpoint->name, NULL);

		if (unheard == 0)
			unheard = store_sync_folder(disk->options.store, checkpoint->name, NULL);
		(void)unheard; /* an empty child that nobody names does no harm */
	}
}

static int checkpoint_check(const struct disk *disk, const char *name, struct base_error *err)
{
	if (!disk->active)
		return base_fail(err, -EROFS, "the disk is not active");
	if (strlen(name) >= STORE_NAME_BYTES)
		return base_fail(err, -ENAMETOOLONG, "name longer than %d bytes",
				 STORE_NAME_BYTES - 1);
	if (disk->layers[0]->ops->format == DISK_RAW && !disk_is_near(name, disk->top_name))
		return base_fail(err, -EINVAL,
				 "'%s' is raw: its child must be in its folder or above",
				 disk->top_name);
	if (disk->layer_count >= DISK_CHAIN_MAX)
		return base_fail(err, -ELOOP, "the chain is %d images deep already",
				 DISK_CHAIN_MAX);
	return 0;
}

int disk_checkpoint(struct disk *disk, const char *name, struct base_error *err)
{
	struct checkpoint checkpoint = { .disk = disk, .name = name };
	int rc = checkpoint_check(disk, name, err);

	if (rc == 0)
		rc = disk_job_begin(disk, DISK_JOB_CHECKPOINT, err);
	if (rc != 0)
		return base_fail_within(err, rc, "checkpoint of '%s'", disk->top_name);
	rc = checkpoint_make(&checkpoint, err);
	if (rc == 0) {
		disk_hold(disk);
		rc = checkpoint_hand_over(&checkpoint, err);
		disk_unhold(disk);
	}
	if (rc != 0) {
		checkpoint_undo(&checkpoint);
		rc = base_fail_within(err, rc, "checkpoint of '%s' in '%s'", disk->top_name, name);
	}
	disk_job_end(disk);
	return rc;
}
