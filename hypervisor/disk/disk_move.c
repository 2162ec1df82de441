/* SPDX-License-Identifier: Apache-2.0 */
/* disk_move(): blocking; what it changes it changes on the loop, while the disk is held. */
#include "hypervisor/disk/disk_move.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "base/clock.h"
#include "hypervisor/disk/disk_priv.h"

struct move {
	struct disk *disk;
	const struct disk_move_options *options;
	struct image *layers[DISK_CHAIN_MAX]; /* of the copy; after the switch the old ones */
	uint32_t count;
};

/* --- requests past the queues --- */

struct held_wait {
	struct disk *disk;
	struct disk_request *request;
	bool done;
	int result;
};

static void held_done(struct disk_request *request, int result)
{
	struct held_wait *wait = request->context;

	wait->result = result;
	base_io_done(wait->disk->loop, &wait->done);
}

static void held_start(void *context)
{
	struct held_wait *wait = context;
	struct image *top = wait->disk->layers[0];

	base_assert(wait->disk->holds > 0);
	wait->request->extent_count = 0;
	top->ops->submit(top, wait->request);
}

int disk_do_held(struct disk *disk, struct disk_request *request, struct base_error *err)
{
	struct held_wait wait = { .disk = disk, .request = request };

	base_assert(request->op == DISK_READ || request->op == DISK_MAP);
	request->done = held_done;
	request->context = &wait;
	base_io_call(disk->loop, held_start, &wait);
	base_io_wait(disk->loop, &wait.done);
	if (wait.result == 0)
		return 0;
	return base_fail_errno(err, wait.result, "disk '%s': %" PRIu64 " bytes at %" PRIu64,
			       disk->top_name, request->length_bytes, request->offset_bytes);
}

/* --- the copy --- */

static int fits(const struct move *move, struct base_error *err)
{
	const struct image *copy = move->layers[0];
	struct disk_geometry now;

	disk_geometry(move->disk, &now);
	if (copy->geometry.size_bytes == now.size_bytes &&
	    copy->geometry.logical_sector_bytes == now.logical_sector_bytes)
		return 0;
	return base_fail(err, -EINVAL,
			 "'%s' has %" PRIu64 " bytes in sectors of %" PRIu32 ", expected %" PRIu64
			 " in sectors of %" PRIu32,
			 move->options->name, copy->geometry.size_bytes,
			 copy->geometry.logical_sector_bytes, now.size_bytes,
			 now.logical_sector_bytes);
}

static int copy_open(struct move *move, struct base_error *err)
{
	const struct disk_image_at at = { .store = move->options->store,
					  .name = move->options->name,
					  .format = move->options->format };
	int rc = disk_image_open_at(move->disk, &at, &move->layers[0], err);

	if (rc != 0)
		return rc;
	move->count = 1;
	rc = move->layers[0]->ops->activate(move->layers[0], disk_epoch(move->disk), NULL, err);
	if (rc != 0)
		return rc;
	rc = disk_parents_open(move->disk, move->layers[0], move->layers, 1, err);
	if (rc < 0)
		return rc;
	move->count = (uint32_t)rc;
	return fits(move, err);
}

static void layers_close(struct move *move)
{
	struct image *top = move->layers[0];
	int unheard = 0;

	if (top != NULL && top->active)
		unheard = top->ops->deactivate(top, NULL);
	(void)unheard; /* nobody was promised what is in there alone */
	disk_layers_close(move->layers, 0, move->count);
}

/* On the loop, held. */
static void move_switch(void *context)
{
	struct move *move = context;
	struct disk *disk = move->disk;
	uint32_t count = disk->layer_count;

	for (uint32_t i = 0; i < DISK_CHAIN_MAX; i++) {
		struct image *old = i < count ? disk->layers[i] : NULL;

		disk->layers[i] = i < move->count ? move->layers[i] : NULL;
		move->layers[i] = old;
	}
	disk->layer_count = move->count;
	move->count = count;
	disk->options.store = move->options->store;
	(void)snprintf(disk->top_name, sizeof(disk->top_name), "%s", move->options->name);
	disk_facts_update(disk);
}

int disk_move(struct disk *disk, const struct disk_move_options *options, struct base_error *err)
{
	struct move move = { .disk = disk, .options = options };
	uint64_t begin_ns = base_clock_boot_ns(&base_clock_system);
	int rc = 0;

	base_assert(atomic_load(&disk->job) == DISK_JOB_MOVE);
	if (!disk->active)
		return base_fail(err, -EROFS, "move of disk '%s': it is not active",
				 disk->top_name);
	disk_hold(disk);
	rc = options->fill(options->context, err);
	if (rc == 0)
		rc = copy_open(&move, err);
	if (rc == 0)
		rc = options->commit(options->context, err);
	if (rc == 0)
		base_io_call(disk->loop, move_switch, &move);
	disk_unhold(disk);
	if (options->held_ns != NULL)
		*options->held_ns = base_clock_boot_ns(&base_clock_system) - begin_ns;
	layers_close(&move); /* of the copy, or of what it replaces */
	return rc == 0 ? 0 : base_fail_within(err, rc, "move of disk '%s'", disk->top_name);
}
