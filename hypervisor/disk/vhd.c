/* SPDX-License-Identifier: Apache-2.0 */
/*
 * VHD images: opening, handing over, telling about them.  Blocking calls; see vhd_priv.h for the
 * rest.
 */
#include "hypervisor/disk/vhd_priv.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "hypervisor/disk/flat_io.h"

static void vhd_close(struct image *image)
{
	struct vhd *vhd = vhd_of(image);

	if (vhd == NULL)
		return;
	store_close(image->file);
	vhd_blocks_free(vhd);
	vhd_unload(vhd);
	free(vhd->sector);
	image_parts_free(image);
	free(vhd);
}

static void vhd_closep(struct vhd **held)
{
	vhd_close(*held == NULL ? NULL : &(*held)->image);
}

static int vhd_open(const struct image_open_options *options, struct image **ret_image,
		    struct base_error *err)
{
	const struct store_open_options open = { .loop = options->loop,
						 .read_only = options->read_only,
						 .align_bytes = VHD_SECTOR_BYTES,
						 .events = options->events,
						 .events_context = options->events_context,
						 .gate = options->gate };
	BASE_CLEANUP(vhd_closep) struct vhd *vhd = calloc(1, sizeof(*vhd));
	int code;

	if (vhd == NULL)
		return base_fail(err, -ENOMEM, "VHD image '%s'", options->name);
	vhd->image.ops = &image_vhd_ops;
	vhd->image.store = options->store;
	vhd->image.loop = options->loop;
	vhd_commit_init(vhd);
	vhd->sector = vhd_buffer_new(VHD_SECTOR_BYTES);
	if (vhd->sector == NULL)
		return base_fail(err, -ENOMEM, "VHD image '%s'", options->name);
	code = store_open(options->store, options->name, &open, &vhd->image.file, err);
	if (code == 0)
		code = vhd_load(vhd, err);
	if (code < 0)
		return code;
	*ret_image = &base_take(&vhd)->image;
	return 0;
}

/* --- activate, deactivate --- */

/* Put right what an interrupted extension or resize has left: the footer at the end, the copy at
 * 0.  One of them is good at every instant, and both are durable before anything else is
 * written. */
static int mend_dynamic(struct vhd *vhd, struct base_error *err)
{
	uint64_t end = vhd->tail_offset;
	int code = vhd_table_check(vhd, err);

	if (code == 0 && vhd->tail_good && vhd->copy_good && !vhd->copy_same && !vhd->twins)
		return base_fail(err, -EBADMSG,
				 "'%s': the VHD footer at 0x%" PRIx64 " and its copy at 0 are of "
				 "different disks: it can be read and converted, not written",
				 store_name(vhd->image.file), end);
	if (code == 0 && !vhd->tail_good) {
		/* What is behind the last block may hold anything: new space begins after it. */
		end = (vhd->file_bytes + VHD_SECTOR_BYTES - 1) & ~(uint64_t)(VHD_SECTOR_BYTES - 1);
		code = vhd_footer_write(vhd, end, err);
	}
	if (code == 0 && (!vhd->copy_good || (vhd->tail_good && !vhd->copy_same)))
		code = vhd_footer_write(vhd, 0, err);
	vhd->next_offset = end;
	vhd->grown_offset = end;
	return code;
}

/* The file was extended, and nothing else happened: back to what the footer says. */
static int mend_fixed(struct vhd *vhd, struct base_error *err)
{
	int code;

	if (vhd->tail_good)
		return 0;
	code = store_do(vhd->image.file, STORE_TRUNCATE, vhd->tail_offset + VHD_FOOTER_BYTES, NULL,
			0, err);
	if (code == 0)
		code = store_do(vhd->image.file, STORE_FLUSH, 0, NULL, 0, err);
	vhd->file_bytes = vhd->tail_offset + VHD_FOOTER_BYTES;
	return code;
}

static int load_for_writing(struct vhd *vhd, struct base_error *err)
{
	int code = vhd_load(vhd, err);

	if (code < 0)
		return code;
	if (vhd->sums_wrong)
		return base_fail(err, -EBADMSG,
				 "'%s': checksums of its VHD structures are wrong: it can be read "
				 "and converted, not written",
				 store_name(vhd->image.file));
	return vhd->image.kind == DISK_FIXED ? mend_fixed(vhd, err) : mend_dynamic(vhd, err);
}

static void give_back(struct vhd *vhd)
{
	int unheard = store_release(vhd->image.file, NULL); /* an earlier failure is told */

	(void)unheard;
}

static int vhd_activate(struct image *image, uint64_t epoch, const struct store_proof *proof,
			struct base_error *err)
{
	struct vhd *vhd = vhd_of(image);
	uint64_t granted;
	int code = store_acquire(image->file, epoch, proof, &granted, err);

	if (code < 0)
		return code;
	vhd_blocks_free(vhd);
	vhd_commit_init(vhd);
	code = load_for_writing(vhd, err);
	if (code < 0) {
		give_back(vhd);
		return code;
	}
	image->failed = false;
	image->active = true;
	return 0;
}

struct flush_wait {
	struct vhd *vhd;
	struct disk_request request;
	bool done;
	int result;
};

static void flush_done(struct disk_request *request, int result)
{
	struct flush_wait *wait = request->context;

	wait->result = result;
	base_io_done(wait->vhd->image.loop, &wait->done);
}

static void flush_submit(void *context)
{
	struct flush_wait *wait = context;

	vhd_io_submit(wait->vhd, &wait->request);
}

static void stop_timer(void *context)
{
	vhd_commit_stop(context);
}

/* Commit, and cut off what the file grew too much. */
static int settle(struct vhd *vhd, struct base_error *err)
{
	struct base_io_loop *loop = vhd->image.loop;
	struct flush_wait wait = { .vhd = vhd };
	int code;

	/* One more when another commit has begun meanwhile. */
	do {
		wait.done = false;
		wait.request = (struct disk_request){ .op = DISK_FLUSH,
						      .done = flush_done,
						      .context = &wait };
		base_io_call(loop, flush_submit, &wait);
		base_io_wait(loop, &wait.done);
	} while (wait.result == 0 && (vhd->dirty != NULL || vhd->commit.running));
	if (wait.result < 0)
		return base_fail_errno(err, wait.result, "'%s': flush",
				       store_name(vhd->image.file));
	if (vhd->next_offset == vhd->grown_offset)
		return 0;
	code = vhd_footer_write(vhd, vhd->next_offset, err);
	if (code == 0)
		code = store_do(vhd->image.file, STORE_TRUNCATE,
				vhd->next_offset + VHD_FOOTER_BYTES, NULL, 0, err);
	if (code == 0)
		code = store_do(vhd->image.file, STORE_FLUSH, 0, NULL, 0, err);
	if (code == 0) {
		vhd->grown_offset = vhd->next_offset;
		vhd->file_bytes = vhd->next_offset + VHD_FOOTER_BYTES;
	}
	return code;
}

static int vhd_deactivate(struct image *image, struct base_error *err)
{
	struct vhd *vhd = vhd_of(image);
	int code;

	if (image->failed)
		code = base_fail(err, -EIO, "%s", image->failed_why);
	else if (image->kind == DISK_FIXED)
		code = store_do(image->file, STORE_FLUSH, 0, NULL, 0, err);
	else
		code = settle(vhd, err);
	base_io_call(image->loop, stop_timer, vhd);
	image->active = false;
	if (code == 0)
		return store_release(image->file, err);
	/* What is not durable is not told to readers either: as if opened again. */
	vhd_blocks_free(vhd);
	give_back(vhd);
	if (vhd_load(vhd, NULL) < 0)
		image_fail(image, "'%s': cannot be read after a failed flush",
			   store_name(image->file));
	return code;
}

/* --- requests, information --- */

static void vhd_submit(struct image *image, struct disk_request *request)
{
	struct vhd *vhd = vhd_of(image);

	if (request->op == DISK_RESIZE)
		vhd_resize_submit(vhd, request);
	else if (image->kind == DISK_FIXED)
		flat_submit(image, request);
	else if (vhd->bat == NULL)
		image_done(request, -EIO); /* see vhd_deactivate() */
	else
		vhd_io_submit(vhd, request);
}

static int vhd_info(struct image *image, struct disk_layer_info *ret_info, struct base_error *err)
{
	const struct vhd *vhd = vhd_of(image);
	struct disk_layer_info info = { .format = DISK_VHD,
					.kind = image->kind,
					.size_bytes = image->geometry.size_bytes,
					.file_bytes = vhd->file_bytes,
					.block_bytes = vhd->block_bytes,
					.logical_sector_bytes = VHD_SECTOR_BYTES,
					.physical_sector_bytes = VHD_SECTOR_BYTES,
					.id = image->geometry.id,
					.data_id = image->data_id };

	(void)err;
	if (image->kind == DISK_FIXED)
		info.allocated_bytes = flat_data_bytes(image, info.size_bytes);
	for (uint32_t i = 0; image->kind != DISK_FIXED && i < vhd_block_count(vhd); i++)
		info.allocated_bytes += vhd->bat[i] != VHD_BLOCK_ABSENT ? vhd->block_bytes : 0;
	(void)snprintf(info.name, sizeof(info.name), "%s", store_name(image->file));
	(void)snprintf(info.parent, sizeof(info.parent), "%s", image->parent_is.name);
	(void)snprintf(info.creator, sizeof(info.creator), "%.4s %u.%u", vhd->footer.creator,
		       vhd->footer.creator_version >> 16, vhd->footer.creator_version & 0xffff);
	*ret_info = info;
	return 0;
}

const struct image_ops image_vhd_ops = {
	.format = DISK_VHD,
	.open = vhd_open,
	.activate = vhd_activate,
	.deactivate = vhd_deactivate,
	.close = vhd_close,
	.submit = vhd_submit,
	.info = vhd_info,
	.check = vhd_check,
	.create = vhd_create,
};
