/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Making VHDX files.  Blocking.
 *
 * Layout: headers and region tables in the first MiB, the log, the metadata region, the BAT,
 * then (fixed) the blocks in their order.  The log is written, not only reserved, so that
 * no commit ever finds the store full; so is what the BAT takes.
 */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/bytes.h"
#include "base/cleanup.h"
#include "hypervisor/disk/image_create.h"
#include "hypervisor/disk/vhdx_priv.h"

#define DEFAULT_BLOCK_BYTES (32U << 20)
#define DEFAULT_CHILD_BLOCK (2U << 20) /* a child copies little */
#define DEFAULT_LOGICAL     512U
#define DEFAULT_PHYSICAL    4096U
#define BUFFER_BYTES        (1U << 20)
#define BAT_PIECE_ENTRIES   (BUFFER_BYTES / 8U)

struct plan {
	struct vhdx_header header;
	struct vhdx_regions regions;
	struct vhdx_metadata meta;
	struct vhdx_bat_shape shape;
	uint64_t data_offset; /* first block */
	uint64_t file_bytes;
	uint8_t *buffer; /* BUFFER_BYTES; owned */
};

static void plan_free(struct plan *plan)
{
	if (plan == NULL)
		return;
	free(plan->buffer);
	free(plan);
}
BASE_DEFINE_FREEP(struct plan, plan_free);

/* --- what is asked for --- */

static int sectors_plan(const struct disk_create_options *options, const struct image *parent,
			struct vhdx_metadata *meta, struct base_error *err)
{
	uint32_t logical = options->logical_sector_bytes;
	uint32_t physical = options->physical_sector_bytes;

	if (parent != NULL) {
		logical = logical != 0 ? logical : parent->geometry.logical_sector_bytes;
		physical = physical != 0 ? physical : parent->geometry.physical_sector_bytes;
		if (logical != parent->geometry.logical_sector_bytes)
			return base_fail(err, -EINVAL,
					 "logical sector size %" PRIu32 ": the parent's is %" PRIu32
					 ", and a child has the same",
					 logical, parent->geometry.logical_sector_bytes);
	}
	logical = logical != 0 ? logical : DEFAULT_LOGICAL;
	physical = physical != 0 ? physical : DEFAULT_PHYSICAL;
	if (logical != 512 && logical != 4096)
		return base_fail(err, -EINVAL, "logical sector size %" PRIu32 ": 512 or 4096",
				 logical);
	if ((physical != 512 && physical != 4096) || physical < logical)
		return base_fail(err, -EINVAL,
				 "physical sector size %" PRIu32
				 ": 512 or 4096, and not below the logical sector's %" PRIu32,
				 physical, logical);
	meta->logical_sector_bytes = logical;
	meta->physical_sector_bytes = physical;
	return 0;
}

static int sizes_plan(const struct disk_create_options *options, const struct image *parent,
		      struct vhdx_metadata *meta, struct base_error *err)
{
	uint64_t size = options->size_bytes;
	uint32_t block = options->block_bytes;

	base_assert(meta->logical_sector_bytes != 0);
	if (parent != NULL && size == 0)
		size = parent->geometry.size_bytes;
	if (parent != NULL && size < parent->geometry.size_bytes)
		return base_fail(err, -EINVAL,
				 "size %" PRIu64 ": a child is at least as large as its parent, "
				 "which has %" PRIu64 " bytes",
				 size, parent->geometry.size_bytes);
	if (size == 0 || size > VHDX_DISK_BYTES_MAX || size % meta->logical_sector_bytes != 0)
		return base_fail(err, -EINVAL,
				 "size %" PRIu64 ": a multiple of the sector's %" PRIu32
				 " bytes, above 0 and at most %llu (64 TiB)",
				 size, meta->logical_sector_bytes, VHDX_DISK_BYTES_MAX);
	if (block == 0)
		block = parent != NULL ? DEFAULT_CHILD_BLOCK : DEFAULT_BLOCK_BYTES;
	if (block < VHDX_BLOCK_BYTES_MIN || block > VHDX_BLOCK_BYTES_MAX ||
	    (block & (block - 1)) != 0)
		return base_fail(err, -EINVAL,
				 "block size %" PRIu32 ": a power of two from %u (1 MiB) to %u "
				 "(256 MiB)",
				 block, VHDX_BLOCK_BYTES_MIN, VHDX_BLOCK_BYTES_MAX);
	meta->disk_bytes = size;
	meta->block_bytes = block;
	return 0;
}

static int log_plan(const struct disk_create_options *options, struct vhdx_header *header,
		    struct base_error *err)
{
	uint32_t log = options->log_bytes != 0 ? options->log_bytes : (uint32_t)VHDX_MIB;

	if (log % VHDX_MIB != 0 || log > VHDX_LOG_BYTES_MAX)
		return base_fail(err, -EINVAL,
				 "log size %" PRIu32 ": a multiple of 1 MiB, at most %u", log,
				 VHDX_LOG_BYTES_MAX);
	header->file_write = disk_guid_new();
	header->data_write = disk_guid_new();
	header->log_bytes = log;
	header->log_offset = VHDX_MIB;
	return 0;
}

/* --- the parent's path --- */

/* Bytes of what @a and @b have in common, up to and with a slash. */
static size_t common_folder(const char *a, const char *b)
{
	size_t common = 0;

	for (size_t i = 0; a[i] != '\0' && a[i] == b[i]; i++) {
		if (a[i] == '/')
			common = i + 1;
	}
	return common;
}

/*
 * The way from the folder of @child to @parent, as Windows writes it: ".\x.vhdx" beside the
 * child, "..\x.vhdx" above it.
 */
int vhdx_relative_path(const char *child, const char *parent, char to[VHDX_LOCATOR_TEXT_BYTES],
		       struct base_error *err)
{
	size_t common = common_folder(child, parent);
	struct base_writer out = base_writer_over(to, VHDX_LOCATOR_TEXT_BYTES);
	uint32_t ups = 0;

	if (strchr(parent, '\\') != NULL)
		return base_fail(err, -EINVAL,
				 "parent '%s': a name with a backslash cannot be recorded in a "
				 "VHDX file",
				 parent);
	for (const char *at = strchr(child + common, '/'); at != NULL; at = strchr(at + 1, '/'))
		ups++;
	if (ups == 0)
		base_write_bytes(&out, ".\\", 2);
	for (; ups > 0; ups--)
		base_write_bytes(&out, "..\\", 3);
	for (const char *at = parent + common; *at != '\0'; at++)
		base_write_u8(&out, *at == '/' ? '\\' : (uint8_t)*at);
	base_write_u8(&out, 0);
	if (out.failed)
		return base_fail(err, -ENAMETOOLONG, "parent '%s' as seen from '%s': too long",
				 parent, child);
	return 0;
}

int vhdx_locator_for(const char *child, const struct image_parent *parent,
		     struct vhdx_locator *ret_locator, struct base_error *err)
{
	char child_name[STORE_NAME_BYTES];
	char parent_name[STORE_NAME_BYTES];
	int code = store_resolve("", child, child_name, err);

	memset(ret_locator, 0, sizeof(*ret_locator));
	if (code == 0)
		code = store_resolve("", parent->name, parent_name, err);
	if (code == 0)
		code = vhdx_relative_path(child_name, parent_name, ret_locator->relative, err);
	if (code < 0)
		return code;
	if (parent->format != DISK_VHDX)
		(void)snprintf(ret_locator->format, sizeof(ret_locator->format), "%s",
			       disk_format_name(parent->format));
	ret_locator->linkage_present = true;
	ret_locator->linkage = parent->data_id;
	ret_locator->linkage2_present = !disk_guid_is_zero(&parent->data_id2);
	ret_locator->linkage2 = parent->data_id2;
	return 0;
}

static int parent_plan(const char *name, const struct image *parent, struct vhdx_metadata *meta,
		       struct base_error *err)
{
	struct image_parent is = { .format = parent->ops->format, .data_id = parent->data_id };

	(void)snprintf(is.name, sizeof(is.name), "%s", store_name(parent->file));
	meta->has_parent = true;
	return vhdx_locator_for(name, &is, &meta->locator, err);
}

/* --- the plan --- */

static void layout_plan(struct plan *plan)
{
	struct vhdx_regions *regions = &plan->regions;

	regions->metadata.offset_bytes = plan->header.log_offset + plan->header.log_bytes;
	regions->metadata.length_bytes = (uint32_t)VHDX_MIB;
	regions->bat.offset_bytes = regions->metadata.offset_bytes + VHDX_MIB;
	/* At most 64 Mi blocks and their bitmaps: some 512 MiB of entries. */
	regions->bat.length_bytes =
		(uint32_t)((plan->shape.bat_bytes + VHDX_MIB - 1) / VHDX_MIB * VHDX_MIB);
	plan->data_offset = regions->bat.offset_bytes + regions->bat.length_bytes;
	plan->file_bytes = plan->data_offset;
	if (plan->meta.leave_allocated)
		plan->file_bytes += plan->shape.block_count * plan->meta.block_bytes;
}

static int plan_make(struct plan *plan, const char *name, const struct disk_create_options *options,
		     const struct image *parent, struct base_error *err)
{
	struct vhdx_metadata *meta = &plan->meta;
	int code = sectors_plan(options, parent, meta, err);

	if (code == 0)
		code = sizes_plan(options, parent, meta, err);
	if (code == 0)
		code = log_plan(options, &plan->header, err);
	if (code == 0 && parent != NULL)
		code = parent_plan(name, parent, meta, err);
	if (code < 0)
		return code;
	meta->leave_allocated = options->kind == DISK_FIXED;
	meta->page83 = options->id;
	/* To a guest a child is the same disk as its parent. */
	if (disk_guid_is_zero(&meta->page83) && parent != NULL)
		meta->page83 = parent->geometry.id;
	if (disk_guid_is_zero(&meta->page83))
		meta->page83 = disk_guid_new();
	plan->shape = vhdx_bat_shape(meta->disk_bytes, meta->block_bytes,
				     meta->logical_sector_bytes, meta->has_parent);
	layout_plan(plan);
	plan->buffer = aligned_alloc(4096, BUFFER_BYTES);
	if (plan->buffer == NULL)
		return base_fail(err, -ENOMEM, "buffer of %u bytes", BUFFER_BYTES);
	return 0;
}

static int kind_check(struct store *store, const struct disk_create_options *options,
		      const struct image *parent, struct base_error *err)
{
	if (options->kind != DISK_FIXED && options->kind != DISK_DYNAMIC &&
	    options->kind != DISK_DIFFERENCING)
		return base_fail(err, -EINVAL, "kind %d of a VHDX: fixed, dynamic or differencing",
				 (int)options->kind);
	if ((options->kind == DISK_DIFFERENCING) != (parent != NULL))
		return base_fail(err, -EINVAL, "%s VHDX: %s", disk_kind_name(options->kind),
				 parent == NULL ? "it needs a parent" : "it has no parent");
	if (parent != NULL && parent->store != store)
		return base_fail(err, -EINVAL, "parent '%s' is in another store",
				 store_name(parent->file));
	return 0;
}

/* --- writing it --- */

static int first_mib_write(struct plan *plan, struct store_file *file, struct base_error *err)
{
	uint8_t *to = plan->buffer;

	memset(to, 0, BUFFER_BYTES);
	vhdx_identifier_encode(to);
	vhdx_header_encode(&plan->header, to + VHDX_HEADER1_OFFSET);
	plan->header.sequence++;
	vhdx_header_encode(&plan->header, to + VHDX_HEADER2_OFFSET);
	vhdx_regions_encode(&plan->regions, to + VHDX_REGION1_OFFSET);
	vhdx_regions_encode(&plan->regions, to + VHDX_REGION2_OFFSET);
	return store_do(file, STORE_WRITE, 0, to, VHDX_MIB, err);
}

static int log_write(struct plan *plan, struct store_file *file, struct base_error *err)
{
	int code = 0;

	base_assert(plan->buffer != NULL); /* vhdx_create() made it */
	memset(plan->buffer, 0, BUFFER_BYTES);
	for (uint32_t at = 0; code == 0 && at < plan->header.log_bytes; at += BUFFER_BYTES)
		code = store_do(file, STORE_WRITE, plan->header.log_offset + at, plan->buffer,
				BUFFER_BYTES, err);
	return code;
}

static int metadata_write(struct plan *plan, struct store_file *file, struct base_error *err)
{
	int code = vhdx_metadata_encode(&plan->meta, plan->buffer, BUFFER_BYTES, err);

	if (code < 0)
		return code;
	return store_do(file, STORE_WRITE, plan->regions.metadata.offset_bytes, plan->buffer,
			BUFFER_BYTES, err);
}

/* A fixed disk: every block is there, one behind the other. */
static int bat_write(struct plan *plan, struct store_file *file, struct base_error *err)
{
	uint64_t per_chunk = plan->shape.chunk_ratio + 1;
	uint64_t offset = plan->data_offset;

	for (uint64_t index = 0; index < plan->shape.entry_count;) {
		uint64_t at = plan->regions.bat.offset_bytes + index * 8;
		int code;

		memset(plan->buffer, 0, BUFFER_BYTES);
		for (uint32_t i = 0; i < BAT_PIECE_ENTRIES && index < plan->shape.entry_count;
		     i++, index++) {
			if (index % per_chunk == plan->shape.chunk_ratio)
				continue; /* a sector bitmap's place: stays empty */
			base_put_le64(plan->buffer + (size_t)i * 8,
				      vhdx_entry_make(VHDX_BLOCK_FULL, offset));
			offset += plan->meta.block_bytes;
		}
		code = store_do(file, STORE_WRITE, at, plan->buffer, BUFFER_BYTES, err);
		if (code < 0)
			return code;
	}
	return 0;
}

static int file_write(struct plan *plan, struct store_file *file, struct base_error *err)
{
	uint64_t bat_offset = plan->regions.bat.offset_bytes;
	int code = store_do(file, STORE_TRUNCATE, plan->file_bytes, NULL, 0, err);

	/* The BAT, and behind it all blocks of a fixed disk. */
	if (code == 0)
		code = store_do(file, STORE_ALLOCATE, bat_offset, NULL,
				plan->file_bytes - bat_offset, err);
	if (code == 0)
		code = log_write(plan, file, err);
	if (code == 0)
		code = metadata_write(plan, file, err);
	if (code == 0 && plan->meta.leave_allocated)
		code = bat_write(plan, file, err);
	if (code == 0)
		code = first_mib_write(plan, file, err);
	return code;
}

int vhdx_create(struct store *store, const char *name, struct base_io_loop *loop,
		const struct disk_create_options *options, struct image *parent,
		struct base_error *err)
{
	BASE_CLEANUP(plan_freep) struct plan *plan = calloc(1, sizeof(*plan));
	struct image_create create;
	int code;

	if (plan == NULL)
		return base_fail(err, -ENOMEM, "making '%s'", name);
	code = kind_check(store, options, parent, err);
	if (code == 0)
		code = plan_make(plan, name, options, parent, err);
	if (code < 0)
		return base_fail_within(err, code, "making '%s'", name);
	code = image_create_begin(store, name, loop, &create, err);
	if (code < 0)
		return code;
	code = file_write(plan, create.file, err);
	if (code == 0)
		return image_create_commit(&create, err);
	image_create_abort(&create);
	return base_fail_within(err, code, "making '%s'", name);
}
