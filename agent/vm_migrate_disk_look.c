/* SPDX-License-Identifier: Apache-2.0 */
/* What a destination has to object to in the images of a plan, before a byte moves. */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "agent/vm_migrate_disk_priv.h"
#include "hypervisor/disk/disk_next.h"

static bool set_names(const struct vm_migrate_in *in, struct incoming *image)
{
	int name = snprintf(image->name, sizeof(image->name), "%s%s", in->folder, image->is.name);
	int part = snprintf(image->part, sizeof(image->part), "%s.incoming", image->name);

	return name > 0 && part > 0 && (size_t)part < sizeof(image->part);
}

static void look_at_text(const struct vm_migrate_in *in, const struct mig_plan_object *object,
			 struct incoming *image, struct mig_findings *findings)
{
	struct base_error why = { 0 };
	uint64_t sectors = 0;

	if (vm_image_decode(object->description, &image->is, &why) < 0) {
		mig_findings_add(findings, "%s", why.text);
		return;
	}
	sectors = (image->is.bytes + MIG_SECTOR_BYTES - 1) / MIG_SECTOR_BYTES;
	if (sectors != object->object.unit_count)
		mig_findings_add(findings,
				 "image '%s': %" PRIu64 " sectors by its size, %" PRIu64
				 " by the plan",
				 image->is.name, sectors, object->object.unit_count);
	if (!set_names(in, image))
		mig_findings_add(findings, "image '%s': the folder's path is too long",
				 image->is.name);
}

static void look_for_twins(const struct vm_migrate_in *in, uint32_t index,
			   struct mig_findings *findings)
{
	for (uint32_t i = 0; i < index; i++)
		if (strcmp(in->images[i].is.name, in->images[index].is.name) == 0) {
			mig_findings_add(findings,
					 "image '%s': two of the plan have this name: expected "
					 "different ones, as all come into one folder",
					 in->images[index].is.name);
			return;
		}
}

static void look_for_parent(const struct vm_migrate_in *in, const struct vm_image *image,
			    struct mig_findings *findings)
{
	if (image->parent[0] == '\0')
		return;
	for (uint32_t i = 0; i < in->count; i++)
		if (!in->images[i].is.is_top && strcmp(in->images[i].is.name, image->parent) == 0)
			return;
	mig_findings_add(findings, "image '%s': its parent '%s' is not in the plan", image->name,
			 image->parent);
}

/* A parent that came here before: by its content's id it is the same. */
static bool is_same(const struct vm_migrate_in *in, const struct incoming *image)
{
	struct disk_layer_info info;
	struct store_lease lease;
	struct disk *disk = NULL;
	bool same = false;

	if (image->is.is_top || image->is.format == DISK_RAW ||
	    disk_guid_is_zero(&image->is.data_id) ||
	    store_lease(in->store, image->name, &lease, NULL) < 0 || lease.held ||
	    vm_migrate_in_open(in, image, true, &disk, NULL) < 0)
		return false;
	if (disk_layer(disk, 0, &info, NULL) == 0)
		same = info.file_bytes == image->is.bytes &&
		       disk_guid_equal(&info.data_id, &image->is.data_id);
	disk_close(disk);
	return same;
}

static int look_at_folder(const struct vm_migrate_in *in, struct incoming *image,
			  struct mig_findings *findings, struct base_error *err)
{
	int code = disk_next_exists(in->store, in->loop, image->name, err);

	if (code > 0)
		image->there = is_same(in, image);
	if (code > 0 && !image->there)
		mig_findings_add(findings, "image '%s': it exists already", image->name);
	if (code >= 0)
		code = disk_next_exists(in->store, in->loop, image->part, err);
	if (code > 0)
		mig_findings_add(findings,
				 "image '%s': it exists already, left by an earlier move: expected "
				 "none",
				 image->part);
	return code < 0 ? code : 0;
}

static int look_at_space(const struct vm_migrate_in *in, struct mig_findings *findings,
			 struct base_error *err)
{
	uint64_t free_bytes = 0;
	uint64_t need_bytes = 0; /* at most 1023 times 64 TiB */
	int code = store_free_space(in->store, &free_bytes, err);

	for (uint32_t i = 0; i < in->count; i++)
		if (!in->images[i].there)
			need_bytes += in->images[i].is.need_bytes;
	if (code == 0 && need_bytes > free_bytes)
		mig_findings_add(findings,
				 "disk space: the images need %" PRIu64
				 " bytes, and there are %" PRIu64,
				 need_bytes, free_bytes);
	return code;
}

int vm_migrate_in_look(struct vm_migrate_in *in, const struct mig_plan *plan,
		       struct mig_findings *findings, struct base_error *err)
{
	uint32_t before = findings->count;
	int code = 0;

	for (uint32_t i = 0; i < in->count; i++)
		look_at_text(in, &plan->objects[i + 1], &in->images[i], findings);
	if (findings->count > before)
		return 0; /* what else there is to say rests on it */
	for (uint32_t i = 0; i < in->count && code == 0; i++) {
		look_for_twins(in, i, findings);
		look_for_parent(in, &in->images[i].is, findings);
		code = look_at_folder(in, &in->images[i], findings, err);
	}
	if (code == 0 && in->count > 0)
		code = look_at_space(in, findings, err);
	return code;
}
