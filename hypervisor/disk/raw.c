/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Raw images: the file's bytes are the disk's.  A file whose size is no whole sector reads
 * as zeros up to the next one; a write there extends it.  Everything that serves requests
 * belongs to the loop.  docs/hypervisor/disk/raw.md.
 */

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "base/bytes.h"
#include "base/cleanup.h"
#include "hypervisor/disk/flat_io.h"
#include "hypervisor/disk/image_create.h"

#define RAW_SECTOR_BYTES   512U
#define RAW_PHYSICAL_BYTES 4096U
#define RAW_RANGES         64U        /* asked of the store at a time */
#define RAW_LOOK_BYTES     (1U << 20) /* read at a time to see whether a tail is zero */
#define RAW_SIZE_MAX       ((uint64_t)INT64_MAX & ~(uint64_t)(RAW_SECTOR_BYTES - 1))

/* RESIZE: what it needs beyond the request. */
struct raw_job {
	struct image *image;
	struct disk_request *request;
	struct store_request store;
	struct store_range ranges[RAW_RANGES];
	uint64_t at_bytes;  /* the tail before this was looked at */
	uint64_t end_bytes; /* end of what is looked at */
	struct iovec iov;
	uint8_t *look; /* RAW_LOOK_BYTES, once a part of the tail holds data */
};

static uint64_t sector_ceil(uint64_t bytes)
{
	return (bytes + RAW_SECTOR_BYTES - 1) & ~(uint64_t)(RAW_SECTOR_BYTES - 1);
}

static uint64_t file_size(const struct image *image)
{
	struct store_facts facts;

	store_facts(image->file, &facts);
	return facts.size_bytes;
}

static int take_size(struct image *image, struct base_error *err)
{
	uint64_t size_bytes = file_size(image);

	if (size_bytes > RAW_SIZE_MAX)
		return base_fail(err, -EBADMSG, "'%s': %" PRIu64 " bytes, at most %" PRIu64,
				 store_name(image->file), size_bytes, RAW_SIZE_MAX);
	image->geometry.size_bytes = sector_ceil(size_bytes);
	return 0;
}

static void raw_close(struct image *image)
{
	if (image == NULL)
		return;
	store_close(image->file);
	image_parts_free(image);
	free(image);
}
BASE_DEFINE_FREEP(struct image, raw_close);

static int raw_open(const struct image_open_options *options, struct image **ret_image,
		    struct base_error *err)
{
	const struct store_open_options open = { .loop = options->loop,
						 .read_only = options->read_only,
						 .align_bytes = RAW_SECTOR_BYTES,
						 .events = options->events,
						 .events_context = options->events_context,
						 .gate = options->gate };
	BASE_CLEANUP(raw_closep) struct image *image = calloc(1, sizeof(*image));
	int code;

	if (image == NULL)
		return base_fail(err, -ENOMEM, "raw image '%s'", options->name);
	image->ops = &image_raw_ops;
	image->store = options->store;
	image->loop = options->loop;
	image->kind = DISK_FIXED;
	image->geometry.logical_sector_bytes = RAW_SECTOR_BYTES;
	image->geometry.physical_sector_bytes = RAW_PHYSICAL_BYTES;
	image->geometry.unmap_granularity_bytes = FLAT_GRANULARITY_BYTES;
	code = store_open(options->store, options->name, &open, &image->file, err);
	if (code == 0)
		code = take_size(image, err);
	if (code < 0)
		return code;
	*ret_image = base_take(&image);
	return 0;
}

/* After a failure, which is the one to tell: what giving back adds changes nothing. */
static void give_back(struct image *image)
{
	int unheard = store_release(image->file, NULL);

	(void)unheard;
	image->active = false;
}

static int raw_activate(struct image *image, uint64_t epoch, const struct store_proof *proof,
			struct base_error *err)
{
	uint64_t granted;
	int code = store_acquire(image->file, epoch, proof, &granted, err);

	if (code < 0)
		return code;
	code = take_size(image, err);
	if (code < 0) {
		give_back(image);
		return code;
	}
	image->failed = false;
	image->active = true;
	return 0;
}

static int raw_deactivate(struct image *image, struct base_error *err)
{
	int code;

	if (image->failed)
		code = base_fail(err, -EIO, "%s", image->failed_why);
	else
		code = store_do(image->file, STORE_FLUSH, 0, NULL, 0, err);
	image->active = false;
	if (code == 0)
		return store_release(image->file, err);
	give_back(image);
	return code;
}

static void job_end(struct raw_job *job, int result)
{
	struct disk_request *request = job->request;

	free(job->look);
	free(job);
	image_part_done(request, result);
}

static void job_submit(struct raw_job *job, enum store_op op, uint64_t offset_bytes,
		       uint64_t length_bytes, void (*done)(struct store_request *store, int result))
{
	job->store = (struct store_request){ .op = op,
					     .epoch = store_epoch(job->image->file),
					     .offset_bytes = offset_bytes,
					     .length_bytes = length_bytes,
					     .done = done,
					     .context = job };
	if (op == STORE_READ) {
		job->iov = (struct iovec){ .iov_base = job->look, .iov_len = length_bytes };
		job->store.iov = &job->iov;
		job->store.iov_count = 1;
	} else if (op == STORE_RANGES) {
		job->store.ranges = job->ranges;
		job->store.range_capacity = RAW_RANGES;
	}
	store_submit(job->image->file, &job->store);
}

/* --- resize: look at the tail, truncate, flush --- */

static void resize_flushed(struct store_request *store, int result)
{
	struct raw_job *job = store->context;

	if (flat_flushed(job->image, result) == 0)
		job->image->geometry.size_bytes = job->request->offset_bytes;
	job_end(job, result);
}

static void resize_truncated(struct store_request *store, int result)
{
	struct raw_job *job = store->context;

	if (result < 0)
		job_end(job, result);
	else
		job_submit(job, STORE_FLUSH, 0, 0, resize_flushed);
}

static void look_on(struct raw_job *job);

static void tail_read(struct store_request *store, int result)
{
	struct raw_job *job = store->context;

	if (result == 0 && !base_is_zero(job->look, job->iov.iov_len))
		result = -EBUSY;
	if (result < 0) {
		job_end(job, result);
		return;
	}
	job->at_bytes += job->iov.iov_len;
	look_on(job);
}

static void tail_ranges(struct store_request *store, int result)
{
	struct raw_job *job = store->context;
	uint64_t at_bytes = job->at_bytes;
	uint64_t left_bytes;

	for (uint32_t i = 0; result == 0 && i < store->range_count && !job->ranges[i].data; i++)
		at_bytes = job->ranges[i].offset_bytes + job->ranges[i].length_bytes;
	at_bytes -= at_bytes % RAW_SECTOR_BYTES;
	if (result == 0 && at_bytes > job->at_bytes) {
		job->at_bytes = at_bytes; /* a hole */
		look_on(job);
		return;
	}
	if (result == 0 && job->look == NULL) {
		job->look = aligned_alloc(RAW_PHYSICAL_BYTES, RAW_LOOK_BYTES);
		result = job->look == NULL ? -ENOMEM : 0;
	}
	if (result < 0) {
		job_end(job, result);
		return;
	}
	left_bytes = sector_ceil(job->end_bytes) - job->at_bytes;
	job_submit(job, STORE_READ, job->at_bytes,
		   left_bytes < RAW_LOOK_BYTES ? left_bytes : RAW_LOOK_BYTES, tail_read);
}

/* Step by step, one store request each, so that nothing recurses and the loop stays free. */
static void look_on(struct raw_job *job)
{
	if (job->at_bytes >= job->end_bytes)
		job_submit(job, STORE_TRUNCATE, job->request->offset_bytes, 0, resize_truncated);
	else
		job_submit(job, STORE_RANGES, job->at_bytes, job->end_bytes - job->at_bytes,
			   tail_ranges);
}

static void resize(struct raw_job *job)
{
	uint64_t new_bytes = job->request->offset_bytes;

	if (new_bytes % RAW_SECTOR_BYTES != 0 || new_bytes > RAW_SIZE_MAX) {
		job_end(job, -EINVAL);
		return;
	}
	job->at_bytes = new_bytes;
	job->end_bytes = file_size(job->image);
	look_on(job);
}

static void submit_resize(struct image *image, struct disk_request *request)
{
	struct raw_job *job = calloc(1, sizeof(*job));

	image_part_add(request);
	if (job == NULL) {
		image_part_done(request, -ENOMEM);
		return;
	}
	job->image = image;
	job->request = request;
	resize(job);
}

static void raw_submit(struct image *image, struct disk_request *request)
{
	if (request->op != DISK_RESIZE) {
		flat_submit(image, request);
	} else if (image->failed) {
		image_done(request, -EIO);
	} else {
		image_split(request);
		submit_resize(image, request);
		image_part_done(request, 0);
	}
}

static int raw_info(struct image *image, struct disk_layer_info *ret_info, struct base_error *err)
{
	struct disk_layer_info info = { .format = DISK_RAW,
					.size_bytes = image->geometry.size_bytes,
					.file_bytes = file_size(image),
					.logical_sector_bytes =
						image->geometry.logical_sector_bytes,
					.physical_sector_bytes =
						image->geometry.physical_sector_bytes };

	(void)err;
	info.allocated_bytes = flat_data_bytes(image, info.file_bytes);
	info.kind = info.allocated_bytes < info.file_bytes ? DISK_DYNAMIC : DISK_FIXED;
	memcpy(info.name, store_name(image->file), strlen(store_name(image->file)) + 1);
	*ret_info = info;
	return 0;
}

/* A raw image has no structures, so nothing in it can be wrong: blocks_total 0 says that
 * nothing was looked at. */
static int raw_check(struct image *image, bool repair, disk_report report, void *context,
		     struct disk_check_result *ret_result, struct base_error *err)
{
	(void)repair;
	(void)report;
	(void)context;
	(void)err;
	*ret_result = (struct disk_check_result){ .end_bytes = file_size(image) };
	return 0;
}

static int raw_create(struct store *store, const char *name, struct base_io_loop *loop,
		      const struct disk_create_options *options, struct image *parent,
		      struct base_error *err)
{
	struct image_create create;
	int code;

	if (options->kind == DISK_DIFFERENCING || parent != NULL)
		return base_fail(err, -EINVAL,
				 "raw image '%s': differencing: raw can be fixed or dynamic", name);
	if (options->size_bytes == 0 || options->size_bytes % RAW_SECTOR_BYTES != 0 ||
	    options->size_bytes > RAW_SIZE_MAX)
		return base_fail(err, -EINVAL,
				 "raw image '%s': size %" PRIu64
				 " bytes: a multiple of %u, up to %" PRIu64,
				 name, options->size_bytes, RAW_SECTOR_BYTES, RAW_SIZE_MAX);
	code = image_create_begin(store, name, loop, &create, err);
	if (code < 0)
		return code;
	code = store_do(create.file, STORE_TRUNCATE, options->size_bytes, NULL, 0, err);
	if (code == 0 && options->kind == DISK_FIXED)
		code = store_do(create.file, STORE_ALLOCATE, 0, NULL, options->size_bytes, err);
	if (code == 0)
		return image_create_commit(&create, err);
	image_create_abort(&create);
	return base_fail_within(err, code, "making '%s'", name);
}

const struct image_ops image_raw_ops = {
	.format = DISK_RAW,
	.open = raw_open,
	.activate = raw_activate,
	.deactivate = raw_deactivate,
	.close = raw_close,
	.submit = raw_submit,
	.info = raw_info,
	.check = raw_check,
	.create = raw_create,
};
