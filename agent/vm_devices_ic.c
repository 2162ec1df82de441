/* SPDX-License-Identifier: Apache-2.0 */
/* The integration services of a worker: shutdown, clock, what the guest tells, checkpoints. */
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "agent/vm_devices_priv.h"
#include "hypervisor/disk/disk.h"

static const char *heartbeat_name(enum ic_heartbeat state)
{
	static const char *const names[IC_HEARTBEATS] = {
		[IC_HEARTBEAT_INVALID] = "invalid",
		[IC_HEARTBEAT_NONE] = "none",
		[IC_HEARTBEAT_OK] = "ok",
		[IC_HEARTBEAT_LOST] = "lost",
	};

	return names[state];
}

/* --- on the services' loop --- */

static uint64_t reference_time(void *context)
{
	const struct vm_devices *devices = context;

	return hv_machine_reference_time(devices->machine);
}

static void heartbeat(void *context, enum ic_heartbeat state)
{
	struct vm_device_event event = { .kind = VM_DEVICE_HEARTBEAT };

	(void)snprintf(event.text, sizeof(event.text), "%s", heartbeat_name(state));
	vm_devices_tell(context, &event);
}

static void kvp_changed(void *context)
{
	struct vm_device_event event = { .kind = VM_DEVICE_GUEST_INFO };

	vm_devices_tell(context, &event);
}

static const struct ic_events events = { .heartbeat = heartbeat, .kvp_changed = kvp_changed };

/* --- life --- */

int vm_devices_make_ic(struct vm_devices *devices, struct base_error *err)
{
	struct ic_options options = {
		.bus = devices->bus,
		.loop = devices->loops[0],
		.clock = &base_clock_system,
		.vm_name = devices->config->name,
		.reference_time = reference_time,
		.reference_context = devices,
		.events = &events,
		.events_context = devices,
	};
	int code = ic_new(&options, &devices->ic, err);

	if (code < 0)
		return code;
	return hv_machine_add_service(devices->machine, &ic_service_ops, devices->ic, err);
}

void vm_devices_running(struct vm_devices *devices, bool running)
{
	if (devices->ic != NULL)
		ic_set_running(devices->ic, running);
}

/* --- commands --- */

int vm_devices_shutdown(struct vm_devices *devices, bool restart, bool force, bool *ret_by_button,
			struct base_error *err)
{
	int code = ic_shutdown(devices->ic, restart ? IC_POWER_RESTART : IC_POWER_OFF, force,
			       VM_SHUTDOWN_TIMEOUT_MS, err);

	*ret_by_button = false;
	if (code != -ENOTCONN || restart)
		return code;
	hv_machine_power_button(devices->machine);
	*ret_by_button = true;
	return 0;
}

void vm_devices_time_sync(struct vm_devices *devices)
{
	ic_sync_time(devices->ic);
}

static int checkpoint_disk(struct vm_disk *disk, const char *name, json_t *list,
			   struct base_error *err)
{
	char file[STORE_NAME_BYTES];
	int length = snprintf(file, sizeof(file), "%s-%u-%u.vhdx", name, disk->config.controller,
			      disk->config.lun);
	int code = 0;

	if (length < 0 || (size_t)length >= sizeof(file))
		return base_fail(err, -EINVAL, "checkpoint '%s': the name is too long", name);
	code = disk_checkpoint(disk->disk, file, err);
	if (code < 0)
		return base_fail_within(err, code, "checkpoint of disk %u:%u",
					disk->config.controller, disk->config.lun);
	(void)json_array_append_new(list, json_pack("{s:i, s:i, s:s}", "controller",
						    (int)disk->config.controller, "lun",
						    (int)disk->config.lun, "image", file));
	return 0;
}

int vm_devices_checkpoint(struct vm_devices *devices, const char *name, json_t **ret_result,
			  struct base_error *err)
{
	struct base_error why = { 0 };
	json_t *list = NULL;
	int frozen = 0;
	int code = 0;

	if (strchr(name, '/') != NULL || name[0] == '.')
		return base_fail(
			err, -EINVAL,
			"argument 'name': expected a plain name, not beginning with a dot");
	list = json_array();
	frozen = ic_freeze(devices->ic, VM_FREEZE_TIMEOUT_MS, VM_FREEZE_LIMIT_MS, &why);
	for (uint32_t i = 0; i < devices->disk_count && code == 0; i++) {
		struct vm_disk *disk = devices->disks[i];

		if (disk->disk != NULL && disk->active && disk->attached)
			code = checkpoint_disk(disk, name, list, err);
	}
	/* A guest that thawed meanwhile refuses, and then its files were not at rest all the time.
	 */
	if (frozen == 0)
		frozen = ic_thaw(devices->ic, VM_FREEZE_TIMEOUT_MS, &why);
	if (code < 0) {
		json_decref(list);
		return code;
	}
	*ret_result = json_pack("{s:b, s:s, s:o}", "consistent", frozen == 0, "why",
				frozen == 0 ? "" : why.text, "disks", list);
	return *ret_result != NULL ? 0 : base_fail(err, -ENOMEM, "checkpoint: no memory");
}

json_t *vm_devices_guest_json(struct vm_devices *devices)
{
	struct ic_status status;
	struct ic_guest_info info;
	json_t *object = NULL;

	ic_status(devices->ic, &status);
	ic_guest_info(devices->ic, &info);
	object = json_pack("{s:s, s:b, s:b, s:b, s:b, s:b}", "heartbeat",
			   heartbeat_name(status.heartbeat), "shutdown", (int)status.shutdown,
			   "time_sync", (int)status.time_sync, "kvp", (int)status.kvp, "vss",
			   (int)status.vss, "daemon", (int)info.kvp);
	if (object == NULL)
		return NULL;
	(void)json_object_set_new(object, "name", json_string(info.fqdn));
	(void)json_object_set_new(object, "os", json_string(info.os_name));
	(void)json_object_set_new(object, "os_version", json_string(info.os_version));
	(void)json_object_set_new(object, "os_build", json_string(info.os_build));
	(void)json_object_set_new(object, "integration_version",
				  json_string(info.integration_version));
	(void)json_object_set_new(object, "processor", json_string(info.processor_architecture));
	(void)json_object_set_new(object, "ipv4", json_string(info.ipv4));
	(void)json_object_set_new(object, "ipv6", json_string(info.ipv6));
	return object;
}
