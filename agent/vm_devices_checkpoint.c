/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Checkpoints of a VM's disks: what the new images are called, and that the old ones are not taken
 * for the newest any more.  docs/hypervisor/disk/checkpoints.md.
 */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>

#include "agent/vm_devices_priv.h"
#include "base/log.h"
#include "hypervisor/disk/disk_next.h"

#define NUMBER_MAX 9999u /* of a checkpoint without a name: more than any folder should hold */

int vm_devices_top_moved(struct vm_disk *disk, const char *name)
{
	const struct vm_devices_options *options = &disk->devices->options;
	struct base_error err = { 0 };
	int code = 0;

	/* safety: the old image is perhaps another worker's already. */
	if (options->may_submit != NULL && !options->may_submit(options->context))
		return -EAGAIN;
	code = disk_next_write(disk->place.store->store, disk_loop(disk->disk),
			       disk_name(disk->disk), name, &err);
	if (code < 0)
		base_log(BASE_LOG_WARNING, "vm.checkpoint-record", "vm=%s image=%s why=%s",
			 disk->devices->config->name, base_log_str(disk_name(disk->disk)),
			 base_log_str(err.text));
	return code;
}

static bool takes_part(const struct vm_disk *disk)
{
	return disk->disk != NULL && disk->active && disk->attached;
}

/* --- names --- */

static bool is_checkpoint(const char *extension)
{
	return strcasecmp(extension, ".avhdx") == 0 || strcasecmp(extension, ".avhd") == 0;
}

/* Bytes of @name before its extension, and before the label of a checkpoint in front of that. */
static size_t stem_bytes(const char *name)
{
	const char *slash = strrchr(name, '/');
	const char *leaf = slash != NULL ? slash + 1 : name;
	const char *dot = strrchr(leaf, '.');

	if (dot == NULL || dot == leaf)
		return strlen(name);
	if (!is_checkpoint(dot))
		return (size_t)(dot - name);
	for (const char *at = dot - 1; at > leaf; at--)
		if (*at == '.')
			return (size_t)(at - name);
	return (size_t)(dot - name);
}

/* The image that a checkpoint @label of @disk goes on in, beside its image. */
static int image_name(const struct vm_disk *disk, const char *label,
		      char ret_name[STORE_NAME_BYTES], struct base_error *err)
{
	const char *top = disk_name(disk->disk);
	const char *dot = strrchr(top, '.');
	bool is_vhd =
		dot != NULL && (strcasecmp(dot, ".vhd") == 0 || strcasecmp(dot, ".avhd") == 0);
	int length = snprintf(ret_name, STORE_NAME_BYTES, "%.*s.%s.%s", (int)stem_bytes(top), top,
			      label, is_vhd ? "avhd" : "avhdx");

	if (length < 0 || length >= STORE_NAME_BYTES)
		return base_fail(err, -ENAMETOOLONG,
				 "checkpoint '%s' of '%s': the name is too long", label, top);
	return 0;
}

/* 1: no disk has an image of that checkpoint. */
static int is_free(struct vm_devices *devices, const char *label, struct base_error *err)
{
	for (uint32_t i = 0; i < devices->disk_count; i++) {
		struct vm_disk *disk = devices->disks[i];
		char name[STORE_NAME_BYTES];
		int code = 0;

		if (!takes_part(disk))
			continue;
		code = image_name(disk, label, name, err);
		if (code == 0)
			code = disk_next_exists(disk->place.store->store, disk_loop(disk->disk),
						name, err);
		if (code < 0)
			return code;
		if (code > 0)
			return 0;
	}
	return 1;
}

/* @label: as asked for; "" becomes the lowest number that is free for all disks. */
static int choose_label(struct vm_devices *devices, char label[VM_CONTROL_TEXT_BYTES],
			struct base_error *err)
{
	if (strchr(label, '/') != NULL || label[0] == '.')
		return base_fail(
			err, -EINVAL,
			"argument 'name': expected a plain name, not beginning with a dot");
	if (label[0] != '\0')
		return 0;
	for (uint32_t number = 1; number <= NUMBER_MAX; number++) {
		int code = 0;

		(void)snprintf(label, VM_CONTROL_TEXT_BYTES, "%" PRIu32, number);
		code = is_free(devices, label, err);
		if (code != 0)
			return code < 0 ? code : 0;
	}
	return base_fail(err, -EEXIST, "checkpoint: the numbers 1 to %u are taken: expected a name",
			 NUMBER_MAX);
}

/* --- the disks --- */

/* Before anything is done: nothing that would make the whole stop half-way or wait. */
static int check_disks(struct vm_devices *devices, const char *label, struct base_error *err)
{
	uint32_t count = 0;

	for (uint32_t i = 0; i < devices->disk_count; i++) {
		struct vm_disk *disk = devices->disks[i];
		char name[STORE_NAME_BYTES];
		int code = 0;

		if (!takes_part(disk))
			continue;
		count++;
		if (atomic_load(&disk->stalled) != 0)
			return base_fail(err, -EAGAIN,
					 "disk '%s': it waits for its store: expected it to work",
					 disk->config.path);
		code = image_name(disk, label, name, err);
		if (code == 0 &&
		    strlen(disk->place.store->name) + 1 + strlen(name) >= sizeof(disk->config.path))
			code = base_fail(err, -ENAMETOOLONG,
					 "checkpoint of '%s': its path is too long",
					 disk->config.path);
		if (code == 0)
			code = disk_next_exists(disk->place.store->store, disk_loop(disk->disk),
						name, err);
		if (code > 0)
			return base_fail(err, -EEXIST,
					 "checkpoint '%s': '%s' is there: expected another name",
					 label, name);
		if (code < 0)
			return code;
	}
	return count > 0
		       ? 0
		       : base_fail(err, -EPROTO, "checkpoint: expected a disk that is written to");
}

static int checkpoint_disk(struct vm_disk *disk, const char *label, json_t *list,
			   struct base_error *err)
{
	char name[STORE_NAME_BYTES];
	int code = image_name(disk, label, name, err);
	int length = 0;

	if (code == 0)
		code = disk_checkpoint(disk->disk, name, err);
	if (code < 0)
		return base_fail_within(err, code, "checkpoint of disk %" PRIu32 ":%" PRIu32,
					disk->config.controller, disk->config.lun);
	length = snprintf(disk->config.path, sizeof(disk->config.path), "%s/%s",
			  disk->place.store->name, name);
	base_assert(length > 0 && (size_t)length < sizeof(disk->config.path)); /* check_disks() */
	(void)snprintf(disk->place.name, sizeof(disk->place.name), "%s", name);
	disk->config.format = DISK_FORMAT_INVALID;
	(void)json_array_append_new(list, json_pack("{s:i, s:i, s:s, s:s}", "controller",
						    (int)disk->config.controller, "lun",
						    (int)disk->config.lun, "image", name, "path",
						    disk->config.path));
	return 0;
}

int vm_devices_checkpoint(struct vm_devices *devices, char label[VM_CONTROL_TEXT_BYTES],
			  json_t *list, struct base_error *err)
{
	int code = choose_label(devices, label, err);

	if (code == 0)
		code = check_disks(devices, label, err);
	for (uint32_t i = 0; i < devices->disk_count && code == 0; i++)
		if (takes_part(devices->disks[i]))
			code = checkpoint_disk(devices->disks[i], label, list, err);
	return code;
}
