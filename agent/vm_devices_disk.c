/* SPDX-License-Identifier: Apache-2.0 */
/* Disks, DVD drives and the SCSI controllers that they are on. */
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "agent/vm_devices_priv.h"
#include "base/cleanup.h"
#include "base/log.h"
#include "hypervisor/disk/disk_next.h"

#define INSTANCE_SCSI 1 /* vm_devices_instance() */

/* --- what disks report, on their loops --- */

static void tell(struct vm_disk *disk, enum vm_device_event_kind kind, int code, const char *text)
{
	struct vm_device_event event = { .kind = kind,
					 .controller = disk->config.controller,
					 .lun = disk->config.lun,
					 .code = code };

	(void)snprintf(event.text, sizeof(event.text), "%s", text);
	vm_devices_tell(disk->devices, &event);
}

static void on_stalled(void *context, int code, const char *why)
{
	struct vm_disk *disk = context;

	atomic_store(&disk->stalled, code);
	tell(disk, VM_DEVICE_DISK_STALLED, code, why);
}

static void on_unstalled(void *context)
{
	struct vm_disk *disk = context;

	atomic_store(&disk->stalled, 0);
	tell(disk, VM_DEVICE_DISK_UNSTALLED, 0, "");
}

static void on_failed(void *context, const char *why)
{
	struct vm_disk *disk = context;

	atomic_store(&disk->failed, true);
	tell(disk, VM_DEVICE_DISK_FAILED, -EIO, why);
}

static void on_resized(void *context, uint64_t size_bytes)
{
	struct vm_disk *disk = context;

	(void)size_bytes; /* the controller looks at the disk */
	if (disk->attached)
		storvsp_resized(disk->devices->controllers[disk->config.controller],
				disk->config.lun);
}

static void on_store_state(void *context, enum store_state state, const char *reason)
{
	tell(context, VM_DEVICE_DISK_STORE, 0, state == STORE_DIRECT ? "" : reason);
}

/* On the thread of the checkpoint. */
static int on_top_moved(void *context, const char *name)
{
	return vm_devices_top_moved(context, name);
}

static const struct disk_events disk_events = {
	.stalled = on_stalled,
	.unstalled = on_unstalled,
	.failed = on_failed,
	.resized = on_resized,
	.store_state = on_store_state,
	.top_moved = on_top_moved,
};

/* --- one disk --- */

static int disk_open_at(struct vm_disk *disk, const struct vm_place *place, struct base_error *err)
{
	struct vm_devices *devices = disk->devices;
	const struct vm_disk_config *config = &disk->config;
	struct disk_options options = {
		.store = place->store->store,
		.name = place->name,
		.format = config->format,
		.loop = vm_devices_loop(devices),
		.read_only = config->read_only,
		.write_through = config->write_through,
		.gate = { .may_submit = devices->options.may_submit,
			  .context = devices->options.context },
		.events = &disk_events,
		.events_context = disk,
	};
	int code = disk_open_standby(&options, &disk->disk, err);

	disk->place = *place;
	return code < 0 ? base_fail_within(err, code, "disk '%s'", config->path) : 0;
}

static int disk_activate_at(struct vm_disk *disk, struct base_error *err)
{
	int code = 0;

	/* Who only reads takes nothing from anybody. */
	if (disk->disk == NULL || disk->active || disk->config.read_only)
		return 0;
	code = disk_next_check(disk->place.store->store, disk_loop(disk->disk),
			       disk_name(disk->disk), err);
	if (code == 0)
		code = disk_activate(disk->disk, disk->devices->epoch, NULL, err);
	if (code < 0)
		return base_fail_within(err, code, "disk '%s'", disk->config.path);
	disk->active = true;
	return 0;
}

static int disk_attach(struct vm_disk *disk, struct base_error *err)
{
	const struct vm_disk_config *config = &disk->config;
	struct storvsp_medium medium = {
		.kind = config->dvd ? STORVSP_DVD : STORVSP_DISK,
		.disk = disk->disk,
		.read_only = config->read_only,
		.write_cache = !config->write_through,
		.solid_state = config->solid_state,
	};
	int code = storvsp_attach(disk->devices->controllers[config->controller], config->lun,
				  &medium, err);

	if (code < 0)
		return base_fail_within(err, code, "disk '%s'", config->path);
	disk->attached = true;
	return 0;
}

static void disk_release(struct vm_disk *disk)
{
	disk_close(disk->disk);
	free(disk);
}

static void disk_releasep(struct vm_disk **disk)
{
	if (*disk != NULL)
		disk_release(*disk);
}

static struct vm_disk *disk_new(struct vm_devices *devices, const struct vm_disk_config *config)
{
	struct vm_disk *disk = calloc(1, sizeof(*disk));

	if (disk == NULL)
		return NULL;
	disk->devices = devices;
	disk->config = *config;
	return disk;
}

struct vm_disk *vm_devices_disk(struct vm_devices *devices, uint32_t controller, uint32_t lun)
{
	for (uint32_t i = 0; i < devices->disk_count; i++)
		if (devices->disks[i]->config.controller == controller &&
		    devices->disks[i]->config.lun == lun)
			return devices->disks[i];
	return NULL;
}

struct vm_disk *vm_devices_boot_disk(struct vm_devices *devices)
{
	struct vm_disk *first = NULL;

	for (uint32_t i = 0; i < devices->disk_count; i++) {
		struct vm_disk *disk = devices->disks[i];

		if (disk->config.dvd || disk->disk == NULL)
			continue;
		if (first == NULL || disk->config.controller < first->config.controller ||
		    (disk->config.controller == first->config.controller &&
		     disk->config.lun < first->config.lun))
			first = disk;
	}
	return first;
}

/* --- all of them --- */

/* The first controller is always there, so that a disk can be added to a running VM. */
static int make_controllers(struct vm_devices *devices, struct base_error *err)
{
	const struct vm_config *config = devices->config;
	uint32_t count = 1;

	for (uint32_t i = 0; i < config->disk_count; i++)
		if (config->disks[i].controller >= count)
			count = config->disks[i].controller + 1;
	for (uint32_t i = 0; i < count; i++) {
		struct storvsp_options options = {
			.bus = devices->bus,
			.slat = hv_machine_slat(devices->machine),
			.loop_count = devices->loop_count,
			.vcpu_count = (uint32_t)config->vcpu_count,
			.index = i,
			.instance = vm_devices_instance(INSTANCE_SCSI, i),
			.vm_name = config->name,
		};
		int code = 0;

		memcpy(options.loops, devices->loops, sizeof(options.loops));
		code = storvsp_new(&options, &devices->controllers[i], err);
		if (code == 0)
			code = hv_machine_add_service(devices->machine, &storvsp_service_ops,
						      devices->controllers[i], err);
		if (code < 0)
			return base_fail_within(err, code, "SCSI controller %" PRIu32, i);
	}
	return 0;
}

int vm_devices_make_disks(struct vm_devices *devices, bool standby, struct base_error *err)
{
	const struct vm_config *config = devices->config;
	int code = make_controllers(devices, err);

	for (uint32_t i = 0; code == 0 && i < config->disk_count; i++) {
		struct vm_disk *disk = disk_new(devices, &config->disks[i]);

		if (disk == NULL)
			return base_fail(err, -ENOMEM, "disk '%s': no memory",
					 config->disks[i].path);
		devices->disks[devices->disk_count++] = disk;
		disk->place = devices->places[i];
		if (disk->config.path[0] != '\0' && !disk->place.comes)
			code = disk_open_at(disk, &devices->places[i], err);
	}
	if (code == 0 && !standby)
		code = vm_devices_activate(devices, err);
	for (uint32_t i = 0; code == 0 && i < devices->disk_count; i++)
		if (!devices->disks[i]->place.comes)
			code = disk_attach(devices->disks[i], err);
	return code;
}

int vm_devices_put_in(struct vm_disk *disk, struct base_error *err)
{
	struct vm_place place = disk->place;
	int code = 0;

	place.comes = false;
	code = disk_open_at(disk, &place, err);
	disk->came = true;
	return code == 0 ? disk_attach(disk, err) : code;
}

void vm_devices_set_epoch(struct vm_devices *devices, uint64_t epoch)
{
	devices->epoch = epoch;
}

int vm_devices_activate(struct vm_devices *devices, struct base_error *err)
{
	int code = 0;

	for (uint32_t i = 0; code == 0 && i < devices->disk_count; i++)
		code = disk_activate_at(devices->disks[i], err);
	return code;
}

int vm_devices_flush(struct vm_devices *devices, struct base_error *err)
{
	for (uint32_t i = 0; i < devices->disk_count; i++) {
		struct vm_disk *disk = devices->disks[i];
		int code = 0;

		if (!disk->active || atomic_load(&disk->failed))
			continue;
		/* Where it would have to wait for the store it ends instead. */
		disk_give_back(disk->disk);
		code = disk_do(disk->disk, DISK_FLUSH, 0, NULL, 0, err);
		disk_keep(disk->disk);
		if (code < 0)
			return base_fail_within(err, -EAGAIN, "disk '%s'", disk->config.path);
	}
	return 0;
}

bool vm_devices_active(const struct vm_devices *devices)
{
	for (uint32_t i = 0; devices != NULL && i < devices->disk_count; i++)
		if (devices->disks[i]->active)
			return true;
	return false;
}

int vm_devices_stop(struct vm_devices *devices, struct base_error *err)
{
	int first = 0;

	for (uint32_t i = 0; i < devices->disk_count; i++) {
		struct vm_disk *disk = devices->disks[i];
		struct base_error why = { 0 };
		int code = 0;

		if (!disk->active)
			continue;
		disk_give_back(disk->disk); /* what waits for its store would wait for ever */
		code = disk_deactivate(disk->disk, &why);
		disk_keep(disk->disk);
		disk->active = code < 0 && disk_epoch(disk->disk) != STORE_EPOCH_NONE;
		if (code == 0 || first < 0)
			continue;
		first = base_fail(err, code, "disk '%s': %s", disk->config.path, why.text);
	}
	return first;
}

void vm_devices_close_disks(struct vm_devices *devices)
{
	for (uint32_t i = 0; i < devices->disk_count; i++)
		disk_release(devices->disks[i]);
	devices->disk_count = 0;
}

/* --- changes while the guest runs --- */

/* NULL: -ENOENT. */
static struct vm_disk *find_drive(struct vm_devices *devices, uint32_t controller, uint32_t lun,
				  struct base_error *err)
{
	struct vm_disk *disk = vm_devices_disk(devices, controller, lun);

	if (disk == NULL)
		(void)base_fail(err, -ENOENT,
				"controller %" PRIu32 " LUN %" PRIu32
				": nothing there: expected a disk",
				controller, lun);
	return disk;
}

/* The lowest LUN that is free, or the one that was asked for. */
static int choose_lun(struct vm_devices *devices, struct vm_disk_config *config,
		      struct base_error *err)
{
	if (devices->controllers[config->controller] == NULL)
		return base_fail(err, -EINVAL,
				 "controller %" PRIu32 ": not there: expected one that had a disk "
				 "when the machine was started",
				 config->controller);
	if (devices->disk_count == VM_DISKS_MAX)
		return base_fail(err, -ENOSPC, "%u disks: expected fewer", VM_DISKS_MAX);
	if (!config->lun_given)
		while (vm_devices_disk(devices, config->controller, config->lun) != NULL)
			config->lun++; /* there are more LUNs than disks */
	config->lun_given = true;
	if (vm_devices_disk(devices, config->controller, config->lun) != NULL)
		return base_fail(err, -EBUSY,
				 "controller %" PRIu32 " LUN %" PRIu32 ": taken: expected a free "
				 "one",
				 config->controller, config->lun);
	return 0;
}

int vm_devices_disk_add(struct vm_devices *devices, struct vm_disk_config *config,
			struct base_error *err)
{
	BASE_CLEANUP(disk_releasep) struct vm_disk *disk = NULL;
	struct vm_place place = { .store = NULL };
	int code = choose_lun(devices, config, err);

	if (code < 0)
		return code;
	disk = disk_new(devices, config);
	if (disk == NULL)
		return base_fail(err, -ENOMEM, "disk '%s': no memory", config->path);
	if (config->path[0] != '\0') {
		code = vm_devices_find(devices, config->path, &place, err);
		if (code == 0)
			code = disk_open_at(disk, &place, err);
		if (code == 0)
			code = disk_activate_at(disk, err);
	}
	if (code == 0)
		code = disk_attach(disk, err);
	if (code < 0)
		return code;
	devices->disks[devices->disk_count++] = base_take(&disk);
	return 0;
}

int vm_devices_disk_remove(struct vm_devices *devices, uint32_t controller, uint32_t lun,
			   struct base_error *err)
{
	struct vm_disk *disk = find_drive(devices, controller, lun, err);
	int code = 0;

	if (disk == NULL)
		return -ENOENT;
	code = storvsp_detach(devices->controllers[controller], lun, err);
	if (code < 0)
		return code;
	for (uint32_t i = 0; i < devices->disk_count; i++)
		if (devices->disks[i] == disk)
			devices->disks[i] = devices->disks[--devices->disk_count];
	disk_release(disk);
	return 0;
}

int vm_devices_medium(struct vm_devices *devices, uint32_t controller, uint32_t lun,
		      const char *path, struct base_error *err)
{
	BASE_CLEANUP(disk_releasep) struct vm_disk *next = NULL;
	struct vm_place place = { .store = NULL };
	struct vm_disk *drive = find_drive(devices, controller, lun, err);
	struct disk *before = NULL;
	int code = 0;

	if (drive == NULL)
		return -ENOENT;
	if (!drive->config.dvd)
		return base_fail(err, -EINVAL,
				 "controller %" PRIu32 " LUN %" PRIu32 ": a disk: expected a DVD "
				 "drive",
				 controller, lun);
	next = disk_new(devices, &drive->config);
	if (next == NULL)
		return base_fail(err, -ENOMEM, "DVD '%s': no memory", path);
	(void)snprintf(next->config.path, sizeof(next->config.path), "%s", path);
	if (path[0] != '\0') {
		code = vm_devices_find(devices, path, &place, err);
		if (code == 0)
			code = disk_open_at(next, &place, err);
	}
	if (code == 0)
		code = storvsp_change_medium(devices->controllers[controller], lun, next->disk,
					     err);
	if (code < 0)
		return code;
	/* The drive's object goes with its medium: events name their place, not their object. */
	before = drive->disk;
	next->attached = true;
	for (uint32_t i = 0; i < devices->disk_count; i++)
		if (devices->disks[i] == drive)
			devices->disks[i] = base_take(&next);
	drive->disk = before;
	disk_release(drive);
	return 0;
}

int vm_devices_disk_resize(struct vm_devices *devices, uint32_t controller, uint32_t lun,
			   uint64_t size_bytes, struct base_error *err)
{
	struct vm_disk *disk = find_drive(devices, controller, lun, err);
	struct disk_request request = { .op = DISK_RESIZE, .offset_bytes = size_bytes };
	int code = 0;

	if (disk == NULL)
		return -ENOENT;
	if (!disk->active)
		return base_fail(err, -EROFS, "disk '%s': read-only: expected one that is written",
				 disk->config.path);
	code = disk_do_request(disk->disk, &request, err);
	return code < 0 ? base_fail_within(err, code, "disk '%s'", disk->config.path) : 0;
}
