/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Making VHD images.  Blocking.
 */
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "hypervisor/disk/image_create.h"
#include "hypervisor/disk/vhd_priv.h"

#define HEADER_OFFSET  512U
#define TABLE_OFFSET   1536U
#define LOCATOR_OFFSET TABLE_OFFSET /* differencing: before the table, one sector each or more */
#define WRITE_BYTES    (1U << 20)

struct plan {
	struct vhd_footer footer;
	struct vhd_header header;
	uint8_t relative[VHD_LOCATOR_MAX];
	uint64_t table_bytes;
	uint64_t end_offset; /* where the footer goes */
};

static int check_options(const char *name, const struct disk_create_options *options,
			 const struct image *parent, uint64_t size, struct base_error *err)
{
	uint32_t block = options->block_bytes;

	if (options->kind == DISK_DIFFERENCING &&
	    (parent == NULL || parent->ops->format != DISK_VHD))
		return base_fail(err, -EINVAL, "VHD image '%s': its parent must be a VHD", name);
	if (options->kind != DISK_DIFFERENCING && parent != NULL)
		return base_fail(err, -EINVAL, "VHD image '%s': only differencing has a parent",
				 name);
	if (size == 0 || size % VHD_SECTOR_BYTES != 0 || size > VHD_SIZE_MAX)
		return base_fail(err, -EINVAL,
				 "VHD image '%s': size %" PRIu64
				 " bytes: a multiple of 512, up to %" PRIu64 " (2040 GiB)",
				 name, size, (uint64_t)VHD_SIZE_MAX);
	if (parent != NULL && size != parent->geometry.size_bytes)
		return base_fail(err, -EINVAL,
				 "VHD image '%s': size %" PRIu64 " bytes: its parent has %" PRIu64,
				 name, size, parent->geometry.size_bytes);
	if (block != 0 &&
	    (block < VHD_BLOCK_MIN || block > VHD_BLOCK_MAX || (block & (block - 1)) != 0))
		return base_fail(err, -EINVAL,
				 "VHD image '%s': block size %" PRIu32
				 " bytes: a power of two, %u to %u",
				 name, block, VHD_BLOCK_MIN, VHD_BLOCK_MAX);
	if (options->kind == DISK_FIXED && block != 0)
		return base_fail(err, -EINVAL, "VHD image '%s': a fixed disk has no blocks", name);
	if (options->logical_sector_bytes != 0 && options->logical_sector_bytes != 512)
		return base_fail(err, -EINVAL,
				 "VHD image '%s': logical sector %" PRIu32 " bytes: 512", name,
				 options->logical_sector_bytes);
	if (options->physical_sector_bytes != 0 && options->physical_sector_bytes != 512)
		return base_fail(err, -EINVAL,
				 "VHD image '%s': physical sector %" PRIu32 " bytes: 512", name,
				 options->physical_sector_bytes);
	return 0;
}

/* @parent as seen from the folder of @name: both are paths in one store. */
static int relative_path(const char *name, const char *parent, char *to, size_t to_bytes)
{
	static const char beside[2] = { '.', '/' }; /* Windows writes .\name for it */
	static const char above[3] = { '.', '.', '/' };
	size_t common = 0;
	size_t length = 0;

	for (size_t i = 0; name[i] == parent[i] && name[i] != '\0'; i++)
		if (name[i] == '/')
			common = i + 1;
	name += common;
	parent += common;
	if (strchr(name, '/') == NULL) {
		memcpy(to, beside, sizeof(beside));
		length = sizeof(beside);
	}
	for (const char *slash = strchr(name, '/'); slash != NULL; slash = strchr(slash + 1, '/')) {
		if (to_bytes - length < 4)
			return -ENAMETOOLONG;
		memcpy(to + length, above, sizeof(above));
		length += sizeof(above);
	}
	if (strlen(parent) >= to_bytes - length)
		return -ENAMETOOLONG;
	memcpy(to + length, parent, strlen(parent) + 1);
	return 0;
}

static int plan_parent(struct plan *plan, const char *name, const struct image *parent,
		       struct base_error *err)
{
	const char *parent_name = store_name(parent->file);
	const char *slash = strrchr(parent_name, '/');
	struct vhd_header *header = &plan->header;
	char path[STORE_NAME_BYTES];
	int bytes = relative_path(name, parent_name, path, sizeof(path));

	header->parent_id = parent->data_id;
	header->parent_time = 0; /* as Hyper-V writes it: the id is what is compared */
	if (bytes == 0)
		bytes = vhd_utf16_encode(path, true, plan->relative, sizeof(plan->relative));
	if (bytes >= 0) {
		header->locators[0] = (struct vhd_locator){ .code = VHD_CODE_W2RU,
							    .length_bytes = (uint32_t)bytes,
							    .offset_bytes = LOCATOR_OFFSET };
		header->bat_offset +=
			((uint32_t)bytes + VHD_SECTOR_BYTES - 1) & ~(VHD_SECTOR_BYTES - 1);
		bytes = vhd_utf16_encode(slash == NULL ? parent_name : slash + 1, false,
					 header->parent_name, sizeof(header->parent_name) - 2);
	}
	if (bytes < 0)
		return base_fail(err, -EINVAL, "VHD image '%s': parent '%s': %s", name, parent_name,
				 bytes == -EINVAL ? "no UTF-8 text" : "the name is too long");
	return 0;
}

static int plan_image(struct plan *plan, const char *name,
		      const struct disk_create_options *options, const struct image *parent,
		      struct base_error *err)
{
	struct vhd_header *header = &plan->header;
	uint64_t size = options->size_bytes != 0 || parent == NULL ? options->size_bytes
								   : parent->geometry.size_bytes;
	int code = check_options(name, options, parent, size, err);

	if (code < 0)
		return code;
	plan->footer = (struct vhd_footer){
		.header_offset = VHD_NO_OFFSET,
		.time = (uint32_t)(base_clock_real_ns(&base_clock_system) / BASE_NS_PER_SECOND -
				   VHD_EPOCH_SECONDS),
		.creator = { 'w', 'i', 'n', ' ' }, /* the size is exact: see the docs */
		.creator_version = 0x00060003,
		.original_bytes = size,
		.current_bytes = size,
		.geometry = vhd_geometry_of(size),
		.type = VHD_TYPE_FIXED,
		.id = disk_guid_is_zero(&options->id) ? disk_guid_new() : options->id
	};
	plan->end_offset = size;
	if (options->kind == DISK_FIXED)
		return 0;
	plan->footer.type = parent != NULL ? VHD_TYPE_DIFFERENCING : VHD_TYPE_DYNAMIC;
	plan->footer.header_offset = HEADER_OFFSET;
	header->bat_offset = TABLE_OFFSET;
	header->block_bytes = options->block_bytes != 0 ? options->block_bytes : VHD_BLOCK_DEFAULT;
	header->entries = (uint32_t)((size + header->block_bytes - 1) / header->block_bytes);
	if (parent != NULL)
		code = plan_parent(plan, name, parent, err);
	plan->table_bytes =
		(4ULL * header->entries + VHD_SECTOR_BYTES - 1) & ~(uint64_t)(VHD_SECTOR_BYTES - 1);
	plan->end_offset = header->bat_offset + plan->table_bytes;
	return code;
}

static int write_at(struct store_file *file, uint64_t offset, uint8_t *bytes, uint64_t length,
		    struct base_error *err)
{
	return store_do(file, STORE_WRITE, offset, bytes, length, err);
}

static int write_tables(struct store_file *file, const struct plan *plan, uint8_t *buffer,
			struct base_error *err)
{
	uint64_t locator_bytes = plan->header.bat_offset - TABLE_OFFSET;
	int code;

	memset(buffer, 0, VHD_HEADER_BYTES);
	vhd_footer_encode(&plan->footer, buffer);
	code = write_at(file, 0, buffer, VHD_FOOTER_BYTES, err);
	memset(buffer, 0, VHD_HEADER_BYTES);
	vhd_header_encode(&plan->header, buffer);
	if (code == 0)
		code = write_at(file, HEADER_OFFSET, buffer, VHD_HEADER_BYTES, err);
	if (code == 0 && locator_bytes > 0) {
		memset(buffer, 0, locator_bytes);
		memcpy(buffer, plan->relative, plan->header.locators[0].length_bytes);
		code = write_at(file, LOCATOR_OFFSET, buffer, locator_bytes, err);
	}
	memset(buffer, 0xff, WRITE_BYTES);
	for (uint64_t at = 0; at < plan->table_bytes && code == 0; at += WRITE_BYTES) {
		uint64_t left = plan->table_bytes - at;

		code = write_at(file, plan->header.bat_offset + at, buffer,
				left < WRITE_BYTES ? left : WRITE_BYTES, err);
	}
	return code;
}

static int write_image(struct store_file *file, const struct plan *plan, struct base_error *err)
{
	uint8_t *buffer = vhd_buffer_new(WRITE_BYTES);
	int code;

	if (buffer == NULL)
		return base_fail(err, -ENOMEM, "VHD tables");
	code = store_do(file, STORE_TRUNCATE, plan->end_offset + VHD_FOOTER_BYTES, NULL, 0, err);
	if (code == 0 && plan->footer.type == VHD_TYPE_FIXED)
		code = store_do(file, STORE_ALLOCATE, 0, NULL, plan->end_offset, err);
	else if (code == 0)
		code = write_tables(file, plan, buffer, err);
	memset(buffer, 0, VHD_FOOTER_BYTES);
	vhd_footer_encode(&plan->footer, buffer);
	if (code == 0)
		code = write_at(file, plan->end_offset, buffer, VHD_FOOTER_BYTES, err);
	free(buffer);
	return code;
}

int vhd_create(struct store *store, const char *name, struct base_io_loop *loop,
	       const struct disk_create_options *options, struct image *parent,
	       struct base_error *err)
{
	struct image_create create;
	struct plan *plan = calloc(1, sizeof(*plan));
	int code;

	if (plan == NULL)
		return base_fail(err, -ENOMEM, "VHD image '%s'", name);
	code = plan_image(plan, name, options, parent, err);
	if (code == 0)
		code = image_create_begin(store, name, loop, &create, err);
	if (code == 0) {
		code = write_image(create.file, plan, err);
		if (code == 0)
			code = image_create_commit(&create, err);
		else
			image_create_abort(&create);
	}
	free(plan);
	return code < 0 ? base_fail_within(err, code, "making '%s'", name) : 0;
}
