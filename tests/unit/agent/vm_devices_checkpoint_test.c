/* SPDX-License-Identifier: Apache-2.0 */
/* Checkpoints as a worker makes them: names, what is told, and that the old image is not written.
 */
#include <criterion/criterion.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "agent/vm_devices_priv.h"
#include "hypervisor/disk/disk_next.h"
#include "tests/support/disk_lab.h"

#define SIZE (4ULL << 20)

static struct disk_lab lab;
static struct vm_config config = { .name = "vm" };
static struct vm_disk disks[3];
static struct vm_store folder = { .name = "/srv/vm" };
static struct vm_devices devices;
static bool may;
static json_t *list;

static bool may_submit(void *context)
{
	(void)context;
	return may;
}

static int top_moved(void *context, const char *name)
{
	return vm_devices_top_moved(context, name);
}

static const struct disk_events events = { .top_moved = top_moved };

static void add_disk(uint32_t number, const char *name, enum disk_format format)
{
	struct vm_disk *disk = &disks[number];
	const struct disk_options options = {
		.store = lab.store,
		.name = name,
		.loop = lab.loop,
		.events = &events,
		.events_context = disk,
	};
	struct base_error err = { 0 };

	disk_lab_make(&lab, name, format, DISK_DYNAMIC, SIZE, NULL);
	*disk = (struct vm_disk){ .devices = &devices,
				  .config = { .lun = number },
				  .place = { .store = &folder },
				  .active = true,
				  .attached = true };
	(void)snprintf(disk->config.path, sizeof(disk->config.path), "/srv/vm/%s", name);
	cr_assert_eq(disk_open_standby(&options, &disk->disk, &err), 0, "%s", err.text);
	cr_assert_eq(disk_activate(disk->disk, 7, NULL, &err), 0, "%s", err.text);
	devices.disks[number] = disk;
	devices.disk_count = number + 1;
}

static void setup(void)
{
	disk_lab_init(&lab);
	may = true;
	folder.store = lab.store;
	devices.config = &config;
	devices.options.may_submit = may_submit;
	list = json_array();
}

static void teardown(void)
{
	for (uint32_t i = 0; i < devices.disk_count; i++)
		disk_close(disks[i].disk);
	json_decref(list);
	free(devices.saved);
	disk_lab_fini(&lab);
}

TestSuite(vm_devices_checkpoint, .init = setup, .fini = teardown);

static char label[VM_CONTROL_TEXT_BYTES];
static struct base_error err;

static int checkpoint(const char *name)
{
	err = (struct base_error){ 0 };
	(void)snprintf(label, sizeof(label), "%s", name);
	(void)json_array_clear(list);
	return vm_devices_checkpoint(&devices, label, list, &err);
}

static void tops_are(const char *first, const char *second)
{
	const char *const names[] = { first, second };

	for (uint32_t i = 0; i < 2; i++) {
		const json_t *told = json_array_get(list, i);
		char path[64];

		(void)snprintf(path, sizeof(path), "/srv/vm/%s", names[i]);
		cr_assert_str_eq(disk_name(disks[i].disk), names[i]);
		cr_assert_str_eq(disks[i].config.path, path);
		cr_assert_str_eq(json_string_value(json_object_get(told, "path")), path);
		cr_assert_str_eq(json_string_value(json_object_get(told, "image")), names[i]);
		cr_assert_eq(json_integer_value(json_object_get(told, "lun")), i);
	}
}

Test(vm_devices_checkpoint, names_are_found_beside_the_disks)
{
	add_disk(0, "web.vhdx", DISK_VHDX);
	add_disk(1, "sub/data.old.img", DISK_RAW);
	cr_assert_eq(checkpoint(""), 0, "%s", err.text);
	cr_assert_str_eq(label, "1");
	tops_are("web.1.avhdx", "sub/data.old.1.avhdx");
	disk_lab_make(&lab, "web.2.avhdx", DISK_RAW, DISK_DYNAMIC, SIZE, NULL); /* another's */
	cr_assert_eq(checkpoint(""), 0, "%s", err.text);
	cr_assert_str_eq(label, "3");
	tops_are("web.3.avhdx", "sub/data.old.3.avhdx");
	cr_assert_eq(checkpoint("before upgrade"), 0, "%s", err.text);
	tops_are("web.before upgrade.avhdx", "sub/data.old.before upgrade.avhdx");
}

Test(vm_devices_checkpoint, a_vhd_goes_on_in_a_vhd)
{
	add_disk(0, "old.vhd", DISK_VHD);
	add_disk(1, ".img", DISK_RAW);
	cr_assert_eq(checkpoint("x"), 0, "%s", err.text);
	tops_are("old.x.avhd", ".img.x.avhdx");
	cr_assert_eq(checkpoint("y"), 0, "%s", err.text);
	tops_are("old.y.avhd", ".img.y.avhdx");
}

/* The old image is not opened for writing again while the newer one is there. */
Test(vm_devices_checkpoint, the_old_image_is_marked)
{
	add_disk(0, "a.vhdx", DISK_VHDX);
	cr_assert_eq(checkpoint(""), 0);
	cr_assert_eq(checkpoint(""), 0);
	cr_assert_eq(disk_next_check(lab.store, lab.loop, "a.vhdx", &err), -EPROTO);
	cr_assert_not_null(strstr(err.text, "'a.2.avhdx'"), "%s", err.text);
	cr_assert_eq(disk_next_check(lab.store, lab.loop, "a.1.avhdx", &err), -EPROTO);
	cr_assert_eq(disk_next_check(lab.store, lab.loop, "a.2.avhdx", &err), 0);
}

Test(vm_devices_checkpoint, what_takes_no_part)
{
	add_disk(0, "a.vhdx", DISK_VHDX);
	add_disk(1, "b.vhdx", DISK_VHDX);
	disks[1].active = false; /* read-only */
	cr_assert_eq(checkpoint(""), 0);
	cr_assert_eq(json_array_size(list), 1);
	cr_assert_str_eq(disk_name(disks[1].disk), "b.vhdx");
	disks[0].active = false;
	cr_assert_eq(checkpoint(""), -EPROTO);
	disks[0].active = true;
	disks[1].active = true;
}

Test(vm_devices_checkpoint, refused_before_anything_is_done)
{
	char longest[VM_CONTROL_TEXT_BYTES];

	add_disk(0, "a.vhdx", DISK_VHDX);
	add_disk(1, "b.vhdx", DISK_VHDX);
	cr_assert_eq(checkpoint("x/y"), -EINVAL);
	cr_assert_eq(checkpoint(".x"), -EINVAL);
	disk_lab_make(&lab, "b.x.avhdx", DISK_RAW, DISK_DYNAMIC, SIZE, NULL);
	cr_assert_eq(checkpoint("x"), -EEXIST);
	cr_assert_not_null(strstr(err.text, "'b.x.avhdx'"), "%s", err.text);
	atomic_store(&disks[1].stalled, -ENOSPC);
	cr_assert_eq(checkpoint("y"), -EAGAIN);
	atomic_store(&disks[1].stalled, 0);
	memset(longest, 'n', sizeof(longest) - 1);
	longest[sizeof(longest) - 1] = '\0';
	memset(folder.name, 'f', sizeof(folder.name) - 1);
	cr_assert_eq(checkpoint(longest), -ENAMETOOLONG);
	memset(folder.name, 0, sizeof(folder.name));
	cr_assert_eq(json_array_size(list), 0);
	cr_assert_str_eq(disk_name(disks[0].disk), "a.vhdx");
	cr_assert_str_eq(disk_name(disks[1].disk), "b.vhdx");
}

/* Without its leash the old image is perhaps another worker's: nothing is recorded there. */
Test(vm_devices_checkpoint, not_without_the_leash)
{
	add_disk(0, "a.vhdx", DISK_VHDX);
	may = false;
	cr_assert_eq(checkpoint(""), -EAGAIN);
	cr_assert_str_eq(disk_name(disks[0].disk), "a.vhdx");
	cr_assert_eq(disk_next_exists(lab.store, lab.loop, ".a.vhdx.next", NULL), 0);
	cr_assert_eq(disk_next_exists(lab.store, lab.loop, "a.1.avhdx", NULL), 0);
	cr_assert_eq(lab_write(disks[0].disk, 0, 4096, 1), 0);
}

/* --- the section `disks` of a saved state --- */

static int restored(struct base_buffer *saved)
{
	struct base_reader in = base_reader_over(saved->data, saved->size_bytes);

	int code = 0;

	err = (struct base_error){ 0 };
	code = vm_devices_state_decode(&devices, &in, &err);
	return code == 0 ? vm_devices_state_check(&devices, &err) : code;
}

/* As another worker would, after the first has handed the disk back. */
static void open_again(const char *name)
{
	const struct disk_options options = {
		.store = lab.store,
		.name = name,
		.loop = lab.loop,
		.events = &events,
		.events_context = &disks[0],
	};

	disk_close(disks[0].disk);
	cr_assert_eq(disk_open_standby(&options, &disks[0].disk, NULL), 0);
	cr_assert_eq(disk_activate(disks[0].disk, 8, NULL, NULL), 0);
	(void)snprintf(disks[0].config.path, sizeof(disks[0].config.path), "/srv/vm/%s", name);
}

Test(vm_devices_checkpoint, a_saved_machine_goes_on_with_its_image_only)
{
	struct base_buffer saved = { 0 };

	add_disk(0, "a.vhdx", DISK_VHDX);
	cr_assert_eq(lab_write(disks[0].disk, 0, 4096, 1), 0);
	cr_assert_eq(checkpoint(""), 0);
	cr_assert_eq(lab_write(disks[0].disk, 0, 4096, 2), 0);
	cr_assert_eq(vm_devices_state_encode(&devices, &saved, &err), 0);
	cr_assert_eq(restored(&saved), 0, "%s", err.text);
	open_again("a.1.avhdx");
	cr_assert_eq(restored(&saved), 0, "%s", err.text);
	open_again("a.vhdx"); /* what was the newest before */
	cr_assert_eq(restored(&saved), -EINVAL);
	cr_assert_not_null(strstr(err.text, "'/srv/vm/a.vhdx'"), "%s", err.text);
	cr_assert_not_null(strstr(err.text, "'a.1.avhdx'"), "%s", err.text);
	open_again("a.1.avhdx"); /* somebody writes to it, and gives it back */
	cr_assert_eq(lab_write(disks[0].disk, 0, 4096, 3), 0);
	open_again("a.1.avhdx");
	cr_assert_eq(restored(&saved), -EINVAL);
	cr_assert_not_null(strstr(err.text, "written since"), "%s", err.text);
	base_buffer_fini(&saved);
}

Test(vm_devices_checkpoint, a_bad_section)
{
	struct base_buffer saved = { 0 };
	struct base_buffer huge = { 0 };

	add_disk(0, "a.vhdx", DISK_VHDX);
	add_disk(1, "b.img", DISK_RAW); /* nothing to know it by */
	cr_assert_eq(vm_devices_state_encode(&devices, &saved, &err), 0);
	cr_assert_eq(restored(&saved), 0, "%s", err.text);
	for (size_t size = saved.size_bytes; size > 0; size--) {
		struct base_reader in = base_reader_over(saved.data, size - 1);

		cr_assert_eq(vm_devices_state_decode(&devices, &in, NULL), -EBADMSG, "%zu", size);
	}
	base_buffer_u8(&saved, 0);
	cr_assert_eq(restored(&saved), -EBADMSG);
	base_buffer_le32(&huge, UINT32_MAX);
	cr_assert_eq(restored(&huge), -EBADMSG);
	saved.data[4] = VM_CONTROLLERS;
	cr_assert_eq(restored(&saved), -EBADMSG);
	base_buffer_fini(&saved);
	base_buffer_fini(&huge);
}
