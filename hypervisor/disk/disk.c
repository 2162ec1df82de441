/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The states of a disk: standby, active, deactivated, closed; holding and draining.
 * docs/hypervisor/disk/disk.md.  Blocking calls; what they change they change on the loop, while
 * the disk is held and nothing is in flight.
 */
#include "hypervisor/disk/disk_priv.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"

void disk_facts_update(struct disk *disk)
{
	const struct image *top = disk->layers[0];
	BASE_LOCKED(&disk->facts_lock);

	disk->geometry = top->geometry;
	/* To its guest the disk stays the same whatever is put on top of its base or merged into
	 * it; a VHD child has an identity of its own, and the VHDX child of a raw image cannot
	 * inherit. */
	disk->geometry.id = disk->layers[disk->layer_count - 1]->geometry.id;
	disk->epoch = disk->active ? store_epoch(top->file) : STORE_EPOCH_NONE;
}

void disk_geometry(const struct disk *disk, struct disk_geometry *ret_geometry)
{
	pthread_mutex_t *lock = (pthread_mutex_t *)(uintptr_t)&disk->facts_lock;
	BASE_LOCKED(lock);

	*ret_geometry = disk->geometry;
}

uint64_t disk_epoch(const struct disk *disk)
{
	pthread_mutex_t *lock = (pthread_mutex_t *)(uintptr_t)&disk->facts_lock;
	BASE_LOCKED(lock);

	return disk->epoch;
}

const char *disk_name(const struct disk *disk)
{
	return disk->top_name;
}

struct base_io_loop *disk_loop(const struct disk *disk)
{
	return disk->loop;
}

void disk_tell_failed(struct disk *disk, const char *why)
{
	const struct disk_events *events = disk->options.events;

	if (disk->failed_told)
		return;
	disk->failed_told = true;
	if (events != NULL && events->failed != NULL)
		events->failed(disk->options.events_context, why);
}

struct breaking {
	struct disk *disk;
	const char *why;
};

static void breaking(void *context)
{
	const struct breaking *now = context;

	now->disk->broken = now->why;
	disk_tell_failed(now->disk, now->why);
}

void disk_break(struct disk *disk, const char *why)
{
	struct breaking now = { .disk = disk, .why = why };

	base_io_call(disk->loop, breaking, &now);
}

/* --- holding --- */

struct hold {
	struct disk *disk;
	struct disk_drain drain;
};

void disk_drained(struct disk *disk)
{
	struct disk_drain *drain = disk->drains;

	disk->drains = NULL;
	while (drain != NULL) {
		struct disk_drain *next = drain->next; /* its waiter may be gone once told */

		base_io_done(disk->loop, &drain->done);
		drain = next;
	}
}

static void hold_begin(void *context)
{
	struct hold *hold = context;
	struct disk *disk = hold->disk;

	disk->holds++;
	hold->drain.next = disk->drains;
	disk->drains = &hold->drain;
	if (disk->flight.count == 0)
		disk_drained(disk);
}

static void nothing(void *context)
{
	(void)context;
}

void disk_hold(struct disk *disk)
{
	struct hold hold = { .disk = disk };

	base_io_call(disk->loop, hold_begin, &hold);
	base_io_wait(disk->loop, &hold.drain.done);
	/* Whoever ended the last request has returned to the loop after this. */
	base_io_call(disk->loop, nothing, NULL);
}

static void hold_end(void *context)
{
	struct disk *disk = context;

	base_assert(disk->holds > 0);
	if (--disk->holds > 0 || disk->parked)
		return;
	/* A stall whose requests were all given back ends with the next try as well. */
	if (disk->stalled.count > 0 || (disk->stall_code != 0 && !disk->retry_timer.armed))
		disk_retry_now(disk);
	disk_waiting_go(disk);
}

void disk_unhold(struct disk *disk)
{
	base_io_call(disk->loop, hold_end, disk);
}

/* --- requests of our own to an image --- */

struct image_wait {
	struct image *image;
	struct disk_request request;
	bool done;
	int result;
};

static void image_wait_done(struct disk_request *request, int result)
{
	struct image_wait *wait = request->context;

	wait->result = result;
	base_io_done(wait->image->loop, &wait->done);
}

static void image_wait_start(void *context)
{
	struct image_wait *wait = context;

	wait->image->ops->submit(wait->image, &wait->request);
}

int disk_image_do(struct image *image, enum disk_op op, uint64_t offset, struct base_error *err)
{
	struct image_wait wait = {
		.image = image,
		.request = { .op = op, .offset_bytes = offset, .done = image_wait_done },
	};

	wait.request.context = &wait;
	base_io_call(image->loop, image_wait_start, &wait);
	base_io_wait(image->loop, &wait.done);
	if (wait.result == 0)
		return 0;
	return base_fail_errno(err, wait.result, "%s '%s'", op == DISK_FLUSH ? "flush" : "resize",
			       store_name(image->file));
}

/* --- jobs --- */

int disk_job_begin(struct disk *disk, enum disk_job job, struct base_error *err)
{
	static const char *const names[DISK_JOBS] = { "nothing", "a checkpoint", "a merge",
						      "a compaction", "a move" };
	uint32_t now = DISK_JOB_NONE;

	if (!atomic_compare_exchange_strong(&disk->job, &now, (uint32_t)job))
		return base_fail(err, -EBUSY, "disk '%s': %s is under way", disk->top_name,
				 names[now]);
	/* A resize that is under way ends before the job begins; later ones are refused. */
	disk_hold(disk);
	disk_unhold(disk);
	return 0;
}

void disk_job_end(struct disk *disk)
{
	atomic_store(&disk->job, (uint32_t)DISK_JOB_NONE);
}

/* --- activate --- */

struct activation {
	struct disk *disk;
	struct image *parents[DISK_CHAIN_MAX]; /* from 1 on */
	uint32_t count;                        /* with the top */
};

/* On the loop: the parents that were opened now take the place of those from before. */
static void chain_replace(void *context)
{
	struct activation *activation = context;
	struct disk *disk = activation->disk;
	uint32_t old_count = disk->layer_count;

	for (uint32_t i = 1; i < DISK_CHAIN_MAX; i++) {
		struct image *old = i < old_count ? disk->layers[i] : NULL;

		disk->layers[i] = i < activation->count ? activation->parents[i] : NULL;
		activation->parents[i] = old;
		if (disk->layers[i] != NULL) {
			base_assert(disk->layers[i - 1] != NULL); /* a chain has no gaps */
			disk->layers[i - 1]->parent = disk->layers[i];
		}
	}
	disk->layer_count = activation->count;
	activation->count = old_count; /* to be closed by the caller */
	disk->active = true;
	disk->parked = false;
	disk->broken = NULL;
	disk->failed_told = false;
	disk_facts_update(disk);
}

static int activate_held(struct disk *disk, uint64_t epoch, const struct store_proof *proof,
			 struct base_error *err)
{
	struct image *top = disk->layers[0];
	struct activation activation = { .disk = disk };
	int rc = top->ops->activate(top, epoch, proof, err);

	if (rc != 0)
		return rc;
	/* What its parents' headers say may have changed since they were opened. */
	rc = disk_parents_open(disk, top, activation.parents, 1, err);
	if (rc < 0) {
		(void)top->ops->deactivate(top, NULL); /* the first error counts */
		if (disk->layer_count > 1)
			top->parent = disk->layers[1];
		return rc;
	}
	activation.count = (uint32_t)rc;
	base_io_call(disk->loop, chain_replace, &activation);
	disk_layers_close(activation.parents, 1, activation.count);
	return 0;
}

int disk_activate(struct disk *disk, uint64_t epoch, const struct store_proof *proof,
		  struct base_error *err)
{
	int rc = 0;

	if (disk->options.read_only)
		return base_fail(err, -EROFS, "disk '%s': opened for reading only", disk->top_name);
	if (disk->active)
		return base_fail(err, -EPROTO, "disk '%s': already active at epoch %llu",
				 disk->top_name, (unsigned long long)disk_epoch(disk));
	disk_hold(disk);
	rc = activate_held(disk, epoch, proof, err);
	disk_unhold(disk);
	return rc == 0 ? 0 : base_fail_within(err, rc, "activate disk '%s'", disk->top_name);
}

/* --- deactivate and close --- */

static void park(void *context)
{
	struct disk *disk = context;

	disk->parked = true;
	base_io_timer_disarm(disk->loop, &disk->retry_timer);
}

static void unpark(void *context)
{
	struct disk *disk = context;

	disk->parked = false;
}

/*
 * What the guest was told is done becomes durable before anything is given up: a store that is
 * full or fails for a moment costs the hand-over, not the writes.  An image that has failed for
 * good, or a disk that is being closed, goes on all the same.
 */
static int flush_first(struct disk *disk, struct base_error *err)
{
	struct image *top = disk->layers[0];
	int rc = disk_image_do(top, DISK_FLUSH, 0, err);

	return top->failed || disk->ending ? 0 : rc;
}

static void inactive(void *context)
{
	struct disk *disk = context;

	disk->active = false;
	disk_facts_update(disk);
}

int disk_deactivate(struct disk *disk, struct base_error *err)
{
	struct image *top = disk->layers[0];
	uint32_t job = atomic_load(&disk->job);
	int rc = 0;

	if (job != DISK_JOB_NONE)
		return base_fail(err, -EBUSY, "disk '%s': a job is under way: cancel it first",
				 disk->top_name);
	if (!disk->active)
		return 0;
	base_io_call(disk->loop, park, disk);
	disk_hold(disk);
	rc = flush_first(disk, err);
	if (rc != 0) {
		base_io_call(disk->loop, unpark, disk);
		disk_unhold(disk);
		return base_fail_within(err, rc, "deactivate disk '%s': it stays active",
					disk->top_name);
	}
	rc = top->ops->deactivate(top, err);
	base_io_call(disk->loop, inactive, disk);
	disk_unhold(disk);
	return rc == 0 ? 0 : base_fail_within(err, rc, "deactivate disk '%s'", disk->top_name);
}

struct closing {
	struct disk *disk;
	struct base_io_task task;
	bool done;
	bool over; /* everything that was posted to the loop for this disk has run */
};

static void closing_over(struct base_io_task *task)
{
	struct closing *closing = (struct closing *)((char *)task - offsetof(struct closing, task));

	base_io_done(closing->disk->loop, &closing->over);
}

static void closing_begin(void *context)
{
	struct closing *closing = context;
	struct disk *disk = closing->disk;

	disk->closing = true;
	base_io_timer_disarm(disk->loop, &disk->retry_timer);
	disk->closed_wait = &closing->done;
	disk_waiting_end(disk, -ECANCELED);
	if (disk->live == 0)
		base_io_done(disk->loop, &closing->done);
}

static void disk_free(struct disk *disk)
{
	while (disk->free_ios != NULL) {
		struct disk_io *io = disk->free_ios;

		disk->free_ios = io->next;
		free(io);
	}
	(void)pthread_mutex_destroy(&disk->facts_lock);
	free(disk);
}

void disk_close(struct disk *disk)
{
	struct closing closing = { .disk = disk, .task = { .run = closing_over } };

	if (disk == NULL)
		return;
	base_assert(atomic_load(&disk->job) == DISK_JOB_NONE);
	if (disk->layer_count > 0) {
		/* What it could not flush nobody was promised. */
		int unheard = 0;

		disk->ending = true;
		unheard = disk_deactivate(disk, NULL);
		(void)unheard;
		base_io_call(disk->loop, closing_begin, &closing);
		base_io_wait(disk->loop, &closing.done);
		base_io_post(disk->loop, &closing.task);
		base_io_wait(disk->loop, &closing.over);
		base_io_call(disk->loop, nothing, NULL);
		disk_layers_close(disk->layers, 0, disk->layer_count);
	}
	disk_free(disk);
}

/* --- open --- */

static void first_facts(void *context)
{
	disk_facts_update(context);
}

static int open_chain(struct disk *disk, struct base_error *err)
{
	int rc = disk_image_open(disk, disk->top_name, disk->options.format,
				 disk->options.read_only, &disk->layers[0], err);

	if (rc != 0)
		return rc;
	disk->layer_count = 1;
	rc = disk_parents_open(disk, disk->layers[0], disk->layers, 1, err);
	if (rc < 0) {
		disk_layers_close(disk->layers, 0, 1);
		disk->layer_count = 0;
		return rc;
	}
	disk->layer_count = (uint32_t)rc;
	base_io_call(disk->loop, first_facts, disk);
	return 0;
}

int disk_open_standby(const struct disk_options *options, struct disk **ret_disk,
		      struct base_error *err)
{
	struct disk *disk = NULL;
	int rc = 0;

	if (options->name == NULL || strlen(options->name) >= STORE_NAME_BYTES)
		return base_fail(err, -EINVAL, "disk name: none, or longer than %d bytes",
				 STORE_NAME_BYTES - 1);
	if (options->format < DISK_FORMAT_INVALID || options->format >= DISK_FORMATS)
		return base_fail(err, -EINVAL, "disk '%s': format %d is unknown", options->name,
				 (int)options->format);
	disk = calloc(1, sizeof(*disk));
	if (disk == NULL)
		return base_fail(err, -ENOMEM, "disk '%s'", options->name);

	disk->options = *options;
	disk->options.name = NULL;
	disk->loop = options->loop;
	(void)snprintf(disk->top_name, sizeof(disk->top_name), "%s", options->name);
	if (pthread_mutex_init(&disk->facts_lock, NULL) != 0)
		base_bug("mutex of disk '%s'", options->name);
	disk_policy_init(disk);
	rc = open_chain(disk, err);
	if (rc != 0) {
		rc = base_fail_within(err, rc, "disk '%s'", options->name);
		disk_free(disk);
		return rc;
	}
	*ret_disk = disk;
	return 0;
}

/* --- facts and jobs of the format --- */

int disk_layer(struct disk *disk, uint32_t index, struct disk_layer_info *ret_info,
	       struct base_error *err)
{
	struct image *layer = NULL;
	int rc = 0;

	if (index >= disk->layer_count)
		return base_fail(err, -ENOENT, "disk '%s': layer %u of %u", disk->top_name, index,
				 disk->layer_count);
	disk_hold(disk);
	layer = disk->layers[index];
	rc = layer->ops->info(layer, ret_info, err);
	disk_unhold(disk);
	return rc;
}

int disk_set_data_id(struct disk *disk, const struct disk_guid *id, struct base_error *err)
{
	struct image *top = disk->layers[0];
	int rc = 0;

	if (!disk->active)
		return base_fail(err, -EROFS, "data id of disk '%s': not active", disk->top_name);
	if (top->ops->set_data_id == NULL)
		return 0;
	rc = top->ops->set_data_id(top, id, err);
	return rc == 0 ? 0 : base_fail_within(err, rc, "disk '%s'", disk->top_name);
}

int disk_compact(struct disk *disk, disk_progress progress, void *context, struct base_error *err)
{
	struct image *top = disk->layers[0];
	int rc = 0;

	if (!disk->active)
		return base_fail(err, -EROFS, "compact disk '%s': not active", disk->top_name);
	if (top->ops->compact == NULL)
		return base_fail(err, -EOPNOTSUPP, "compact disk '%s': %s cannot", disk->top_name,
				 disk_format_name(top->ops->format));
	rc = disk_job_begin(disk, DISK_JOB_COMPACT, err);
	if (rc != 0)
		return rc;
	rc = top->ops->compact(top, progress, context, err);
	disk_job_end(disk);
	return rc == 0 ? 0 : base_fail_within(err, rc, "compact disk '%s'", disk->top_name);
}
