/* SPDX-License-Identifier: Apache-2.0 */
/*
 * disk_merge(): a layer's content goes into its parent, and the layer away, while the guest goes
 * on.  Blocking, but for the mirror, which runs on the loop.
 *
 * Writing to a parent changes what its child says of it, so the child is told first: it
 * accepts the parent's old identity and a new one, then the parent takes the new one, then its
 * bytes change, only where the child hides them.  docs/hypervisor/disk/checkpoints.md lists what a
 * power failure leaves at each step.
 */
#include "hypervisor/disk/disk_merge_priv.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* --- the mirror: the guest's writes go into the parent too --- */

struct mirror {
	struct disk_merge *merge;
	struct disk_request *guest;
	struct disk_request request;
	struct iovec iov;
};

static void mirror_done(struct disk_request *request, int result)
{
	struct mirror *mirror = request->context;
	struct disk_merge *merge = mirror->merge;

	if (result != 0 && merge->mirror_result == 0)
		merge->mirror_result = result;
	disk_hook_done(merge->disk, mirror->guest);
	free(mirror);
}

static void mirror_write(void *context, const struct disk_hook_event *event)
{
	struct disk_merge *merge = context;
	struct mirror *mirror = NULL;

	if (merge->mirror_result == 0 && (event->op != DISK_WRITE || event->data != NULL))
		mirror = calloc(1, sizeof(*mirror));
	if (mirror == NULL) {
		if (merge->mirror_result == 0)
			merge->mirror_result = -ENOMEM;
		disk_hook_done(merge->disk, event->request);
		return;
	}
	mirror->merge = merge;
	mirror->guest = event->request;
	/* An iovec cannot say that it is only read. */
	mirror->iov = (struct iovec){ (void *)(uintptr_t)event->data, (size_t)event->length_bytes };
	mirror->request = (struct disk_request){
		.op = event->op,
		.offset_bytes = event->offset_bytes,
		.length_bytes = event->length_bytes,
		.iov = event->op == DISK_WRITE ? &mirror->iov : NULL,
		.iov_count = event->op == DISK_WRITE ? 1 : 0,
		.done = mirror_done,
		.context = mirror,
	};
	if (event->op == DISK_UNMAP) { /* the parent's granules are others */
		mirror->request.op = DISK_ZERO;
		mirror->request.flags = DISK_MAY_UNMAP;
	}
	merge->parent->ops->submit(merge->parent, &mirror->request);
}

/* --- requests of our own to an image --- */

static void image_submit(void *context, struct disk_request *request)
{
	struct image *image = context;

	image->ops->submit(image, request);
}

/* --- changing the chain, on the loop, held --- */

/* The handle that is open for writing takes the place of the one that was for reading. */
static void parent_switch(void *context)
{
	struct disk_merge *merge = context;
	struct disk *disk = merge->disk;
	struct image *old = disk->layers[merge->index + 1];

	disk->layers[merge->index + 1] = merge->parent;
	disk->layers[merge->index]->parent = merge->parent;
	merge->parent->parent = old->parent;
	merge->replaced = old;
}

/* The layer is out of the chain. */
static void layer_drop(void *context)
{
	struct disk_merge *merge = context;
	struct disk *disk = merge->disk;
	uint32_t index = merge->index;

	merge->layer = disk->layers[index];
	disk->layer_count--;
	for (uint32_t i = index; i < disk->layer_count; i++)
		disk->layers[i] = disk->layers[i + 1];
	disk->layers[disk->layer_count] = NULL;
	if (index > 0) {
		disk->layers[index - 1]->parent = disk->layers[index];
		return;
	}
	disk->hook = NULL;
	disk->hook_context = NULL;
	disk->hook_inside = false;
	(void)snprintf(disk->top_name, sizeof(disk->top_name), "%s",
		       store_name(merge->parent->file));
	disk_facts_update(disk);
}

/* --- telling children of a parent's identity --- */

/* Record @parent in layer @index of the chain, durably. */
static int layer_relink(struct disk_merge *merge, uint32_t index, const struct image_parent *parent,
			struct base_error *err)
{
	struct disk *disk = merge->disk;
	struct image *layer = disk->layers[index];
	struct image *writable = NULL;
	int rc = 0;

	if (layer->active)
		return layer->ops->set_parent(layer, parent, err);
	/* A handle of its own, so that reads of the guest go on through the other. */
	rc = disk_image_open(disk, store_name(layer->file), layer->ops->format, false, &writable,
			     err);
	if (rc != 0)
		return rc;
	rc = writable->ops->activate(writable, disk_epoch(disk), NULL, err);
	if (rc == 0) {
		int end = 0;

		rc = writable->ops->set_parent(writable, parent, err);
		end = writable->ops->deactivate(writable, rc == 0 ? err : NULL);
		rc = rc != 0 ? rc : end;
	}
	writable->ops->close(writable);
	if (rc == 0)
		layer->parent_is = *parent;
	return rc;
}

/* The parent gets an identity that the merge may write under, and the layer knows it before. */
static int identity_change(struct disk_merge *merge, struct base_error *err)
{
	struct image *parent = merge->parent;
	struct image_parent recorded = merge->disk->layers[merge->index]->parent_is;
	const struct disk_guid id = disk_guid_new();
	int rc = 0;

	if (parent->ops->set_data_id == NULL)
		return 0;
	recorded.data_id = parent->data_id;
	recorded.data_id2 = id;
	rc = layer_relink(merge, merge->index, &recorded, err);
	if (rc == 0)
		rc = parent->ops->set_data_id(parent, &id, err);
	return rc;
}

/* --- the steps --- */

static int parent_size(struct disk_merge *merge, struct base_error *err)
{
	struct disk *disk = merge->disk;
	uint64_t size = disk->layers[merge->index]->geometry.size_bytes;
	uint64_t parent = merge->parent->geometry.size_bytes;

	if (parent > size)
		return base_fail(err, -EPROTO, "the parent has %llu bytes, more than %llu",
				 (unsigned long long)parent, (unsigned long long)size);
	return parent == size ? 0 : disk_image_do(merge->parent, DISK_RESIZE, size, err);
}

/* Open the parent for writing.  Until it is in the chain, nothing reads through it. */
static int parent_open(struct disk_merge *merge, struct base_error *err)
{
	struct disk *disk = merge->disk;
	struct image *now = disk->layers[merge->index + 1];
	int rc = 0;

	rc = disk_image_open(disk, store_name(now->file), now->ops->format, false, &merge->parent,
			     err);
	if (rc != 0)
		return rc;
	merge->parent->parent = now->parent;
	rc = merge->parent->ops->activate(merge->parent, disk_epoch(disk), NULL, err);
	if (rc == 0)
		rc = disk_parent_check(disk->layers[merge->index], merge->parent, err);
	if (rc == 0 &&
	    merge->parent->geometry.size_bytes > disk->layers[merge->index]->geometry.size_bytes)
		rc = parent_size(merge, err); /* refused before anything was changed */
	return rc;
}

static int merge_begin(struct disk_merge *merge, struct base_error *err)
{
	struct disk *disk = merge->disk;
	int rc = parent_open(merge, err);

	if (rc == 0)
		rc = identity_change(merge, err);
	if (rc == 0)
		rc = parent_size(merge, err);
	if (rc != 0)
		return rc;
	disk_hold(disk);
	base_io_call(disk->loop, parent_switch, merge);
	disk_unhold(disk);
	merge->replaced->ops->close(merge->replaced);
	merge->in_chain = true;
	return 0;
}

static int progress(void *context, uint64_t done_bytes, uint64_t total_bytes)
{
	struct disk_merge *merge = context;

	if (merge->mirror_result != 0)
		return merge->mirror_result;
	return merge->progress == NULL
		       ? 0
		       : merge->progress(merge->progress_context, done_bytes, total_bytes);
}

static int merge_copy(struct disk_merge *merge, struct base_error *err)
{
	struct disk *disk = merge->disk;
	struct image *layer = disk->layers[merge->index];
	struct disk_copy_plan plan = {
		.loop = disk->loop,
		.from = { image_submit, layer, store_name(layer->file) },
		.to = { image_submit, merge->parent, store_name(merge->parent->file) },
		.size_bytes = layer->geometry.size_bytes,
		.align_bytes = merge->parent->geometry.logical_sector_bytes,
		.map_flags = DISK_THIS_LAYER,
		.locks = merge->index == 0 ? disk : NULL,
		.chunk_bytes = DISK_COPY_CHUNK_BYTES,
		.depth = DISK_COPY_DEPTH,
		.detect_zeroes = true,
		.progress = progress,
		.context = merge,
	};
	int rc = disk_copy_run(&plan, err);

	if (merge->mirror_result != 0)
		return base_fail_errno(err, merge->mirror_result,
				       "write what the guest writes into '%s' too", plan.to.name);
	return rc;
}

/* The file of the layer, which nobody reads any more. */
static int layer_remove(struct disk_merge *merge, struct base_error *err)
{
	struct store *store = merge->disk->options.store;
	char name[STORE_NAME_BYTES];
	int rc = 0;

	(void)snprintf(name, sizeof(name), "%s", store_name(merge->layer->file));
	if (merge->layer->active)
		(void)merge->layer->ops->deactivate(merge->layer,
						    NULL); /* its content is in the parent */
	merge->layer->ops->close(merge->layer);
	merge->layer = NULL;
	rc = store_remove(store, name, err);
	if (rc == 0)
		rc = store_sync_folder(store, name, err);
	return rc == 0 ? 0 : base_fail_within(err, rc, "merged; '%s' may be left", name);
}

/* --- a frozen layer --- */

static int merge_frozen(struct disk_merge *merge, struct base_error *err)
{
	struct disk *disk = merge->disk;
	struct image *parent = merge->parent;
	struct image_parent recorded = { .format = parent->ops->format };
	int rc = merge_copy(merge, err);

	if (rc == 0)
		rc = disk_image_do(parent, DISK_FLUSH, 0, err);
	if (rc != 0)
		return rc;
	(void)snprintf(recorded.name, sizeof(recorded.name), "%s", store_name(parent->file));
	recorded.data_id = parent->data_id;
	rc = layer_relink(merge, merge->index - 1, &recorded, err);
	if (rc != 0)
		return rc;
	merge->past_return = true; /* the child above may be without the layer from here on */
	disk_hold(disk);
	base_io_call(disk->loop, layer_drop, merge);
	(void)parent->ops->deactivate(parent, NULL); /* all of it is flushed */
	disk_unhold(disk);
	return layer_remove(merge, err);
}

/* --- the top --- */

/*
 * Held.  The old top's file goes away afterwards, while the guest runs: removing a large file takes
 * a file system seconds.  What the guest writes from now on is in the parent alone, so the old
 * file must not be taken for the newer one before: it does not know the identity that the parent
 * gets here.  Where nobody records the top's name, or the parent has no identity, the old file
 * goes under the hold.
 */
static int top_hand_over(struct disk_merge *merge, struct base_error *err)
{
	struct disk *disk = merge->disk;
	const struct disk_events *events = disk->options.events;
	struct image *parent = merge->parent;
	const char *name = store_name(parent->file);
	const struct disk_guid other = disk_guid_new();
	int rc = 0;

	if (merge->mirror_result != 0)
		rc = base_fail_errno(err, merge->mirror_result, "write into '%s'", name);
	if (rc == 0)
		rc = disk_image_do(parent, DISK_FLUSH, 0, err);
	if (rc == 0 && events != NULL && events->top_moved != NULL) {
		rc = events->top_moved(disk->options.events_context, name);
		if (rc != 0)
			rc = base_fail_errno(err, rc, "record '%s' as the top", name);
	}
	if (rc != 0)
		return rc;
	merge->past_return = true;
	base_io_call(disk->loop, layer_drop, merge);
	/* Where nobody records it, only the file's absence says that the merge is over. */
	if (parent->ops->set_data_id == NULL || events == NULL || events->top_moved == NULL)
		return layer_remove(merge, err);
	if (parent->ops->set_data_id(parent, &other, NULL) != 0)
		disk_break(disk, "the image that was merged is left and looks newer");
	return 0;
}

static int merge_top(struct disk_merge *merge, struct base_error *err)
{
	struct disk *disk = merge->disk;
	int rc = disk_hook_set_inside(disk, mirror_write, merge, err);

	if (rc != 0)
		return rc;
	merge->mirrors = true;
	rc = merge_copy(merge, err);
	if (rc == 0) /* the most of it, so that the one under the hold is short */
		rc = disk_image_do(merge->parent, DISK_FLUSH, 0, err);
	if (rc != 0)
		return rc;
	disk_hold(disk);
	rc = top_hand_over(merge, err);
	disk_unhold(disk);
	return rc == 0 && merge->layer != NULL ? layer_remove(merge, err) : rc;
}

/* The chain as before: the parent is read only again. */
static void merge_undo(struct disk_merge *merge)
{
	struct disk *disk = merge->disk;

	if (merge->mirrors) {
		int unheard = disk_hook_set_inside(disk, NULL, NULL, NULL);

		(void)unheard; /* it is ours */
	}
	if (merge->parent == NULL)
		return;
	disk_hold(disk);
	if (merge->parent->active)
		(void)merge->parent->ops->deactivate(merge->parent, NULL);
	disk_unhold(disk);
	if (!merge->in_chain)
		merge->parent->ops->close(merge->parent);
}

static int merge_check(const struct disk *disk, uint32_t index, struct base_error *err)
{
	const struct image *layer = NULL;

	if (!disk->active)
		return base_fail(err, -EROFS, "the disk is not active");
	if (index >= disk->layer_count || index + 1 >= disk->layer_count)
		return base_fail(err, -EINVAL, "layer %u of %u has no parent", index,
				 disk->layer_count);
	layer = disk->layers[index];
	if (disk->layers[index + 1]->ops->set_data_id != NULL && layer->ops->set_parent == NULL)
		return base_fail(err, -EOPNOTSUPP, "a %s image cannot record its parent's new id",
				 disk_format_name(layer->ops->format));
	if (index > 0 && disk->layers[index - 1]->ops->set_parent == NULL)
		return base_fail(err, -EOPNOTSUPP,
				 "'%s' is %s, which cannot be given another parent",
				 store_name(disk->layers[index - 1]->file),
				 disk_format_name(disk->layers[index - 1]->ops->format));
	if (index == 0 && disk->hook != NULL)
		return base_fail(err, -EBUSY, "a hook watches its writes");
	return 0;
}

int disk_merge(struct disk *disk, uint32_t index, disk_progress report, void *context,
	       struct base_error *err)
{
	struct disk_merge merge = {
		.disk = disk, .index = index, .progress = report, .progress_context = context
	};
	int rc = disk_job_begin(disk, DISK_JOB_MERGE, err);

	if (rc != 0)
		return rc;
	rc = merge_check(disk, index, err);
	if (rc == 0)
		rc = merge_begin(&merge, err);
	if (rc == 0)
		rc = index == 0 ? merge_top(&merge, err) : merge_frozen(&merge, err);
	if (rc != 0 && !merge.past_return)
		merge_undo(&merge);
	disk_job_end(disk);
	return rc == 0 ? 0 : base_fail_within(err, rc, "merge of '%s'", disk->top_name);
}
