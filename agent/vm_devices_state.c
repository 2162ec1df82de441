/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The section `disks` of a saved state: which images the machine goes on with.  A machine's memory
 * and its disks belong together: one that is given an older image, or one that was written since,
 * would destroy what is on it.  Layout: docs/hypervisor/saved-state-devices.md.
 */
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "agent/vm_devices_priv.h"
#include "base/cleanup.h"

static int layer_of(struct vm_disk *disk, struct disk_layer_info *ret_info, struct base_error *err)
{
	*ret_info = (struct disk_layer_info){ .format = DISK_FORMAT_INVALID };
	return disk->disk != NULL ? disk_layer(disk->disk, 0, ret_info, err) : 0;
}

int vm_devices_state_encode(struct vm_devices *devices, struct base_buffer *out,
			    struct base_error *err)
{
	base_buffer_le32(out, devices->disk_count);
	for (uint32_t i = 0; i < devices->disk_count; i++) {
		struct vm_disk *disk = devices->disks[i];
		struct disk_layer_info info;
		int code = layer_of(disk, &info, err);

		if (code < 0)
			return base_fail_within(err, code, "disk '%s'", disk->config.path);
		base_buffer_le32(out, disk->config.controller);
		base_buffer_le32(out, disk->config.lun);
		base_buffer_append(out, info.data_id.bytes, sizeof(info.data_id.bytes));
		base_buffer_le32(out, (uint32_t)strlen(info.name));
		base_buffer_append(out, info.name, strlen(info.name));
	}
	return out->failed ? base_fail(err, -ENOMEM, "disks") : 0;
}

static int decode_disk(struct base_reader *in, struct vm_saved_disk *ret_disk,
		       struct base_error *err)
{
	struct vm_saved_disk disk = { .controller = base_read_le32(in) };
	uint32_t length = 0;

	disk.lun = base_read_le32(in);
	base_read_bytes(in, disk.data_id.bytes, sizeof(disk.data_id.bytes));
	length = base_read_le32(in);
	if (in->failed || length >= sizeof(disk.name))
		return base_fail(err, -EBADMSG, "disks: truncated, or a name of %" PRIu32 " bytes",
				 length);
	base_read_bytes(in, disk.name, length);
	if (in->failed || memchr(disk.name, '\0', length) != NULL)
		return base_fail(err, -EBADMSG, "disks: a name that is none");
	if (disk.controller >= VM_CONTROLLERS || disk.lun >= STORVSP_LUNS)
		return base_fail(err, -EBADMSG, "disks: controller %" PRIu32 " LUN %" PRIu32,
				 disk.controller, disk.lun);
	*ret_disk = disk;
	return 0;
}

/* Formats without an id of their content (VHD, raw) are believed. */
static int check_disk(struct vm_devices *devices, const struct vm_saved_disk *saved,
		      struct base_error *err)
{
	struct vm_disk *disk = vm_devices_disk(devices, saved->controller, saved->lun);
	struct disk_layer_info info;
	int code = 0;

	if (disk == NULL || disk->came) /* whoever has the guest's view of it says so */
		return 0;
	code = layer_of(disk, &info, err);
	if (code < 0)
		return base_fail_within(err, code, "disk '%s'", disk->config.path);
#ifndef GODWIT_MUTANT_RESTORE_IMAGE
	if (disk_guid_is_zero(&saved->data_id) || disk_guid_is_zero(&info.data_id) ||
	    disk_guid_equal(&saved->data_id, &info.data_id))
		return 0;
	if (strcmp(saved->name, info.name) != 0)
		return base_fail(
			err, -EINVAL,
			"disk '%s': the machine was saved with the image '%s': expected that one",
			disk->config.path, saved->name);
	return base_fail(
		err, -EINVAL,
		"disk '%s': it was written since the machine was saved: expected it as it was",
		disk->config.path);
#else
	return 0;
#endif
}

int vm_devices_state_decode(struct vm_devices *devices, struct base_reader *in,
			    struct base_error *err)
{
	uint32_t count = base_read_le32(in);
	BASE_FREE struct vm_saved_disk *saved = NULL;

	if (in->failed || count > VM_DISKS_MAX)
		return base_fail(err, -EBADMSG, "disks: %" PRIu32 " of them", count);
	saved = calloc(count + 1, sizeof(*saved));
	if (saved == NULL)
		return base_fail(err, -ENOMEM, "disks");
	for (uint32_t i = 0; i < count; i++) {
		int code = decode_disk(in, &saved[i], err);

		if (code < 0)
			return code;
	}
	if (base_reader_left(in) != 0)
		return base_fail(err, -EBADMSG, "disks: bytes too many");
	free(devices->saved);
	devices->saved = base_take(&saved);
	devices->saved_count = count;
	return 0;
}

int vm_devices_state_check(struct vm_devices *devices, struct base_error *err)
{
	for (uint32_t i = 0; i < devices->saved_count; i++) {
		int code = check_disk(devices, &devices->saved[i], err);

		if (code < 0)
			return code;
	}
	return 0;
}
