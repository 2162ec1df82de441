/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A VHDX image as disk.c sees it: open, the hand-overs between standby and active, close, info.
 *
 * Blocking, while nothing is in flight.  What the image is made of (headers, tables, caches) is
 * replaced as a whole: a hand-over that fails leaves what was there before it, so an image that
 * is open can always be read and closed.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "hypervisor/disk/vhdx_priv.h"

#define IO_ALIGN_BYTES 512U /* the smallest sector a guest writes */
#define OPEN_TRIES     16U  /* of a file that somebody writes at that moment */

/* --- replacing the parts --- */

static void parts_free_call(void *context)
{
	struct vhdx *vhdx = context;

	vhdx_journal_free(vhdx);
	vhdx_space_free_all(vhdx);
	vhdx_blocks_free(vhdx);
	vhdx_pages_free(vhdx);
	vhdx_overlay_free(vhdx->overlay);
	vhdx->overlay = NULL;
}

/* On the loop, where their timers and tasks are. */
static void parts_free(struct vhdx *vhdx)
{
	base_io_call(vhdx->image.loop, parts_free_call, vhdx);
}

static void parts_forget(struct vhdx *vhdx)
{
	vhdx->overlay = NULL;
	vhdx->pages = NULL;
	vhdx->journal = NULL;
	vhdx->space = NULL;
	vhdx->blocks = NULL;
}

/* Everything from the medium and empty caches; what was there before is in @before. */
static int parts_load(struct vhdx *vhdx, struct vhdx *before, struct base_error *err)
{
	int code;

	*before = *vhdx;
	parts_forget(vhdx);
	code = vhdx_load(vhdx, err);
	if (code == 0)
		code = vhdx_pages_new(vhdx, err);
	if (code == 0)
		code = vhdx_blocks_new(vhdx, err);
	return code;
}

/* The new parts stay: free the old ones.  They are put in place for that, because what frees
 * them finds them there. */
static void parts_keep(struct vhdx *vhdx, struct vhdx *before)
{
	struct vhdx now = *vhdx;

	*vhdx = *before;
	parts_free(vhdx);
	*vhdx = now;
}

static void parts_restore(struct vhdx *vhdx, const struct vhdx *before)
{
	parts_free(vhdx);
	*vhdx = *before;
}

/* --- open and close --- */

static void vhdx_close(struct image *image)
{
	struct vhdx *vhdx = vhdx_of(image);

	parts_free(vhdx);
	image_parts_free(image);
	store_close(image->file);
	free(vhdx);
}

static int open_once(const struct image_open_options *options, struct image **ret_image,
		     struct base_error *err)
{
	const struct store_open_options file_options = {
		.loop = options->loop,
		.read_only = options->read_only,
		.align_bytes = IO_ALIGN_BYTES,
		.events = options->events,
		.events_context = options->events_context,
		.gate = options->gate,
	};
	struct vhdx *vhdx = calloc(1, sizeof(*vhdx));
	int code;

	if (vhdx == NULL)
		return base_fail(err, -ENOMEM, "VHDX image '%s'", options->name);
	vhdx->image.ops = &image_vhdx_ops;
	vhdx->image.store = options->store;
	vhdx->image.loop = options->loop;
	code = store_open(options->store, options->name, &file_options, &vhdx->image.file, err);
	if (code == 0)
		code = vhdx_load(vhdx, err);
	if (code == 0)
		code = vhdx_pages_new(vhdx, err);
	if (code == 0)
		code = vhdx_blocks_new(vhdx, err);
	if (code < 0) {
		vhdx_close(&vhdx->image);
		return base_fail_within(err, code, "'%s'", options->name);
	}
	*ret_image = &vhdx->image;
	return 0;
}

static bool is_held(const struct image_open_options *options, struct store_lease *ret_lease)
{
	return store_lease(options->store, options->name, ret_lease, NULL) == 0 && ret_lease->held;
}

/*
 * Somebody may be writing the file while it is read, as the source of a migration does: a header
 * is torn then, the log goes on while it is searched, the file is longer than it was at its
 * opening.  What does not fit together is read again, from the opening on; to activate an image
 * reads everything anew anyway, and then nobody else writes.
 */
static int vhdx_open(const struct image_open_options *options, struct image **ret_image,
		     struct base_error *err)
{
	struct base_error seen = { 0 };
	struct store_lease lease = { 0 };
	bool held = false;
	int code = -EBADMSG;

	for (uint32_t i = 0; code == -EBADMSG && i < OPEN_TRIES; i++) {
		code = open_once(options, ret_image, &seen);
		held = code == -EBADMSG && is_held(options, &lease);
		if (!held && i > 0) /* twice also without a holder: it may have ended just now */
			break;
	}
	if (code < 0 && err != NULL)
		*err = seen;
	if (held)
		return base_fail_within(err, -EAGAIN,
					"'%s' writes it now, and what was read does not fit "
					"together: try again later",
					lease.holder);
	return code;
}

/* --- hand-overs --- */

/*
 * Write home what the log holds and close it.  The new FileWriteGuid is durable before the first
 * byte changes; the LogGuid goes away only when all of it is durable at home, so a crash in
 * between finds the same log again.
 */
static int replay(struct vhdx *vhdx, struct base_error *err)
{
	struct vhdx_header header = vhdx->header;
	int code;

	if (vhdx->overlay == NULL)
		return 0;
	header.file_write = disk_guid_new();
	code = vhdx_header_write(vhdx, &header, err);
	if (code == 0)
		code = vhdx_overlay_replay(vhdx->overlay, vhdx->image.file, err);
	if (code < 0)
		return code;
	header.log = (struct disk_guid){ 0 };
	code = vhdx_header_write(vhdx, &header, err);
	if (code < 0)
		return code;
	vhdx_overlay_free(vhdx->overlay);
	vhdx->overlay = NULL;
	return 0;
}

static int activate_parts(struct vhdx *vhdx, struct vhdx *before, struct base_error *err)
{
	int code = parts_load(vhdx, before, err);

	if (code == 0)
		code = replay(vhdx, err);
	if (code == 0)
		code = vhdx_space_new(vhdx, err);
	if (code == 0)
		code = vhdx_journal_begin(vhdx, err);
	if (code < 0) {
		parts_restore(vhdx, before);
		return code;
	}
	parts_keep(vhdx, before);
	return 0;
}

static int vhdx_activate(struct image *image, uint64_t epoch, const struct store_proof *proof,
			 struct base_error *err)
{
	struct vhdx *vhdx = vhdx_of(image);
	BASE_FREE struct vhdx *before = malloc(sizeof(*before));
	uint64_t granted;
	int code;

	if (before == NULL)
		return base_fail(err, -ENOMEM, "'%s'", store_name(image->file));
	code = store_acquire(image->file, epoch, proof, &granted, err);
	if (code < 0)
		return code;
	code = activate_parts(vhdx, before, err);
	if (code < 0) {
		int unheard = store_release(image->file, NULL); /* the first failure is told */

		(void)unheard;
		return base_fail_within(err, code, "'%s'", store_name(image->file));
	}
	image->active = true;
	image->failed = false;
	image->failed_why[0] = '\0';
	return 0;
}

/* Standby again: what is on the medium now, with its log if it has one. */
static int standby_parts(struct vhdx *vhdx, struct vhdx *before, struct base_error *err)
{
	int code = parts_load(vhdx, before, err);

	if (code < 0) {
		/* The old caches hold what the guest saw last: good enough to be read. */
		parts_restore(vhdx, before);
		return code;
	}
	parts_keep(vhdx, before);
	return 0;
}

static void session_free_call(void *context)
{
	struct vhdx *vhdx = context;

	vhdx_journal_free(vhdx);
	vhdx_space_free_all(vhdx);
}

static int vhdx_deactivate(struct image *image, struct base_error *err)
{
	struct vhdx *vhdx = vhdx_of(image);
	BASE_FREE struct vhdx *before = malloc(sizeof(*before));
	struct base_error later = { 0 };
	int code = vhdx_journal_end(vhdx, err);
	int released;
	int next;

	base_io_call(image->loop, session_free_call, vhdx);
	image->active = false;
	/* Before the next owner may write: what is read is whole. */
	if (before == NULL)
		next = base_fail(&later, -ENOMEM, "standby");
	else
		next = standby_parts(vhdx, before, &later);
	released = store_release(image->file, next == 0 ? &later : NULL);
	if (next == 0)
		next = released;
	if (code == 0 && next < 0) {
		code = next;
		if (err != NULL)
			*err = later;
	}
	return code < 0 ? base_fail_within(err, code, "'%s'", store_name(image->file)) : 0;
}

/* --- info --- */

static const char *recorded_parent(const struct vhdx_locator *locator)
{
	if (locator->relative[0] != '\0')
		return locator->relative;
	return locator->volume[0] != '\0' ? locator->volume : locator->absolute;
}

int vhdx_info(struct image *image, struct disk_layer_info *ret_info, struct base_error *err)
{
	struct vhdx *vhdx = vhdx_of(image);
	BASE_FREE uint8_t *bytes = aligned_alloc(VHDX_HEADER_BYTES, VHDX_HEADER_BYTES);
	struct disk_layer_info info = {
		.format = DISK_VHDX,
		.kind = image->kind,
		.size_bytes = image->geometry.size_bytes,
		.file_bytes = vhdx->file_bytes,
		.allocated_bytes = UINT64_MAX,
		.block_bytes = vhdx->block_bytes,
		.logical_sector_bytes = image->geometry.logical_sector_bytes,
		.physical_sector_bytes = image->geometry.physical_sector_bytes,
		.id = image->geometry.id,
		.data_id = image->data_id,
		.log_dirty = !disk_guid_is_zero(&vhdx->header.log),
	};
	int code;

	if (bytes == NULL)
		return base_fail(err, -ENOMEM, "VHDX file identifier");
	code = store_do(image->file, STORE_READ, 0, bytes, VHDX_HEADER_BYTES, err);
	if (code == 0)
		code = vhdx_identifier_decode(bytes, VHDX_HEADER_BYTES, info.creator,
					      sizeof(info.creator), err);
	if (code < 0)
		return code;
	snprintf(info.name, sizeof(info.name), "%s", store_name(image->file));
	if (vhdx->meta.has_parent) {
		const char *parent = recorded_parent(&vhdx->meta.locator);

		base_assert(strlen(parent) < sizeof(info.parent)); /* vhdx_load() saw to that */
		memcpy(info.parent, parent, strlen(parent) + 1);
	}

	*ret_info = info;
	return 0;
}

const struct image_ops image_vhdx_ops = {
	.format = DISK_VHDX,
	.open = vhdx_open,
	.activate = vhdx_activate,
	.deactivate = vhdx_deactivate,
	.close = vhdx_close,
	.submit = vhdx_submit,
	.info = vhdx_info,
	.check = vhdx_check,
	.compact = vhdx_compact,
	.set_parent = vhdx_set_parent,
	.set_data_id = vhdx_set_data_id,
	.create = vhdx_create,
};
