/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Making a VHD larger while it is in use.  Loop thread.  Step by step, one store request each;
 * a failure on the way leaves the old size, and so does a power failure up to the last step.
 *
 * Dynamic, differencing: [table sector with absent entries, flush, header, flush,] footer at the
 * end, flush, copy at 0, flush.  No commit runs and the file does not grow meanwhile.
 *
 * Fixed: the file grows and gets a footer at its end that still tells the old size; flush; what
 * lies behind the disk, the old footer among it, is zeroed; flush; the new footer tells the new
 * size; flush.
 */
#include "hypervisor/disk/vhd_priv.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "hypervisor/disk/flat_io.h"

#define STEPS_MAX 10U

enum target {
	TARGET_FLUSH,
	TARGET_TRUNCATE,
	TARGET_OLD_FOOTER, /* of @old_bytes, at @offset */
	TARGET_NEW_FOOTER,
	TARGET_ZEROS,  /* from @offset, @length */
	TARGET_ABSENT, /* the table's last sector, with what it has and absent entries */
	TARGET_HEADER,
};

struct step {
	enum target target;
	uint64_t offset;
	uint64_t length;
};

struct resize {
	struct vhd *vhd;
	struct disk_request *request;
	struct vhd_footer footer; /* as it will be */
	struct vhd_header header;
	struct step steps[STEPS_MAX];
	uint32_t step_count;
	uint32_t at;
	bool moves_footer; /* fixed: until it is durable at the new end */
	uint8_t *buffer;   /* VHD_HEADER_BYTES */
	struct iovec iov;
	struct store_request store;
};

static void add(struct resize *resize, enum target target, uint64_t offset)
{
	base_assert(resize->step_count < STEPS_MAX);
	resize->steps[resize->step_count++] = (struct step){ .target = target, .offset = offset };
}

static void resize_free(struct resize *resize)
{
	free(resize->buffer);
	free(resize);
}

static void resize_end(struct resize *resize, int result)
{
	struct vhd *vhd = resize->vhd;
	struct disk_request *request = resize->request;
	bool flat = vhd->image.kind == DISK_FIXED;

	if (result == 0) {
		vhd->footer = resize->footer;
		vhd_footer_encode(&vhd->footer, vhd->footer_bytes);
		vhd->image.geometry.size_bytes = resize->footer.current_bytes;
		if (flat) {
			vhd->tail_offset = resize->footer.current_bytes;
			vhd->file_bytes = vhd->tail_offset + VHD_FOOTER_BYTES;
		} else {
			vhd->header = resize->header;
			vhd_header_encode(&vhd->header, vhd->header_bytes);
		}
	}
	resize_free(resize);
	vhd->resize = NULL;
	if (!flat) {
		vhd_grow_done(vhd, 0); /* who waits for space looks for itself */
		vhd_commit_release(vhd);
	}
	image_done(request, result);
}

static void resize_go_on(struct resize *resize);

static void step_done(struct store_request *store, int result)
{
	struct resize *resize = store->context;

	if (store->op == STORE_FLUSH)
		result = flat_flushed(&resize->vhd->image, result);
	/* Fixed: the footer that has moved is durable.  The old one may not last from here on. */
	if (result == 0 && store->op == STORE_FLUSH && resize->moves_footer) {
		resize->moves_footer = false;
		resize->vhd->tail_offset = resize->footer.current_bytes;
		resize->vhd->file_bytes = resize->footer.current_bytes + VHD_FOOTER_BYTES;
	}
	if (result < 0)
		resize_end(resize, result);
	else
		resize_go_on(resize);
}

static size_t step_fill(struct resize *resize, enum target target)
{
	const struct vhd *vhd = resize->vhd;
	uint32_t first = vhd->entry_capacity - VHD_BAT_PER_SECTOR;

	switch (target) {
	case TARGET_OLD_FOOTER:
		memcpy(resize->buffer, vhd->footer_bytes, VHD_FOOTER_BYTES);
		break;
	case TARGET_NEW_FOOTER:
		memcpy(resize->buffer, vhd->footer_bytes, VHD_FOOTER_BYTES);
		vhd_footer_encode(&resize->footer, resize->buffer);
		break;
	case TARGET_ABSENT:
		/* No commit runs: what the next one will name is not named by this write. */
		for (uint32_t i = 0; i < VHD_BAT_PER_SECTOR; i++) {
			const struct vhd_block *block = vhd_block_find(resize->vhd, first + i);
			bool fresh = block != NULL && block->fresh;

			vhd_bat_put(resize->buffer, i,
				    fresh ? VHD_BLOCK_ABSENT : vhd->bat[first + i]);
		}
		break;
	case TARGET_HEADER:
		memcpy(resize->buffer, vhd->header_bytes, VHD_HEADER_BYTES);
		vhd_header_encode(&resize->header, resize->buffer);
		break;
	case TARGET_ZEROS:
	case TARGET_FLUSH:
	case TARGET_TRUNCATE:
		memset(resize->buffer, 0, VHD_HEADER_BYTES);
		break;
	}
	return target == TARGET_HEADER ? VHD_HEADER_BYTES : VHD_SECTOR_BYTES;
}

static void resize_go_on(struct resize *resize)
{
	struct image *image = &resize->vhd->image;
	const struct step *step = &resize->steps[resize->at];

	if (resize->at == resize->step_count) {
		resize_end(resize, 0);
		return;
	}
	resize->at++;
	resize->store = (struct store_request){ .op = STORE_WRITE,
						.epoch = store_epoch(image->file),
						.offset_bytes = step->offset,
						.done = step_done,
						.context = resize };
	if (step->target == TARGET_FLUSH) {
		resize->store.op = STORE_FLUSH;
	} else if (step->target == TARGET_TRUNCATE) {
		resize->store.op = STORE_TRUNCATE;
	} else if (step->target == TARGET_ZEROS) {
		resize->store.op = STORE_ZERO;
		resize->store.length_bytes = step->length;
	} else {
		size_t bytes = step_fill(resize, step->target);

		resize->iov = (struct iovec){ resize->buffer, bytes };
		resize->store.length_bytes = bytes;
		resize->store.iov = &resize->iov;
		resize->store.iov_count = 1;
	}
	store_submit(image->file, &resize->store);
}

static void plan_fixed(struct resize *resize)
{
	uint64_t clear_end = resize->vhd->tail_offset;
	uint64_t clear = (resize->vhd->footer.current_bytes + VHD_SECTOR_BYTES - 1) &
			 ~(uint64_t)(VHD_SECTOR_BYTES - 1);
	uint64_t offset = resize->footer.current_bytes;

	/* A file that is that large already: an earlier resize did not get further. */
	if (offset != clear_end) {
		resize->moves_footer = true;
		clear_end += VHD_FOOTER_BYTES;
		add(resize, TARGET_TRUNCATE, offset + VHD_FOOTER_BYTES);
		add(resize, TARGET_OLD_FOOTER, offset);
		add(resize, TARGET_FLUSH, 0);
	}
	if (clear < clear_end) {
		add(resize, TARGET_ZEROS, clear);
		resize->steps[resize->step_count - 1].length = clear_end - clear;
		add(resize, TARGET_FLUSH, 0);
	}
	add(resize, TARGET_NEW_FOOTER, offset);
	add(resize, TARGET_FLUSH, 0);
}

static void plan_dynamic(struct resize *resize)
{
	const struct vhd *vhd = resize->vhd;

	if (resize->header.entries != vhd->header.entries) {
		add(resize, TARGET_ABSENT,
		    vhd->header.bat_offset + 4ULL * vhd->entry_capacity - VHD_SECTOR_BYTES);
		add(resize, TARGET_FLUSH, 0);
		add(resize, TARGET_HEADER, vhd->footer.header_offset);
		add(resize, TARGET_FLUSH, 0);
	}
	add(resize, TARGET_NEW_FOOTER, vhd->grown_offset);
	add(resize, TARGET_FLUSH, 0);
	add(resize, TARGET_NEW_FOOTER, 0);
	add(resize, TARGET_FLUSH, 0);
}

/* Neither commits nor growth are under way: this image's resize is the commit's idle call. */
static void resize_alone(struct vhd *vhd)
{
	struct resize *resize = vhd->resize;

	if (vhd->growing) { /* its end calls again: see vhd_grow_done() */
		vhd->resize_waits = true;
		return;
	}
	vhd->growing = true;
	plan_dynamic(resize);
	resize_go_on(resize);
}

void vhd_resize_after_growth(struct vhd *vhd)
{
	vhd->resize_waits = false;
	resize_alone(vhd);
}

static int check_size(const struct vhd *vhd, uint64_t size_bytes)
{
	if (size_bytes == 0 || size_bytes % VHD_SECTOR_BYTES != 0 || size_bytes > VHD_SIZE_MAX)
		return -EINVAL;
	if (size_bytes < vhd->image.geometry.size_bytes)
		return -EOPNOTSUPP;
	if (vhd->image.kind == DISK_FIXED)
		return size_bytes < vhd->tail_offset ? -EOPNOTSUPP : 0;
	return (size_bytes + vhd->block_bytes - 1) / vhd->block_bytes > vhd->entry_capacity
		       ? -EOPNOTSUPP
		       : 0;
}

void vhd_resize_submit(struct vhd *vhd, struct disk_request *request)
{
	struct resize *resize = NULL;
	uint64_t size = request->offset_bytes;
	uint32_t blocks;
	int code = vhd->image.failed ? -EIO : check_size(vhd, size);

	if (code == 0 && vhd->resize != NULL)
		code = -EBUSY;
	if (code < 0 || size == vhd->image.geometry.size_bytes) {
		image_done(request, code);
		return;
	}
	resize = calloc(1, sizeof(*resize));
	if (resize != NULL)
		resize->buffer = vhd_buffer_new(VHD_HEADER_BYTES);
	if (resize == NULL || resize->buffer == NULL) {
		free(resize);
		image_done(request, -ENOMEM);
		return;
	}
	resize->vhd = vhd;
	resize->request = request;
	resize->footer = vhd->footer;
	resize->footer.current_bytes = size;
	resize->footer.geometry = vhd_geometry_of(size);
	/* The size is exact from now on, whoever made the image. */
	memcpy(resize->footer.creator, "win ", 4);
	resize->header = vhd->header;
	vhd->resize = resize;
	if (vhd->image.kind == DISK_FIXED) {
		plan_fixed(resize);
		resize_go_on(resize);
		return;
	}
	blocks = (uint32_t)((size + vhd->block_bytes - 1) / vhd->block_bytes);
	if (blocks > resize->header.entries)
		resize->header.entries = blocks;
	vhd_commit_exclude(vhd, resize_alone);
}
