/* SPDX-License-Identifier: Apache-2.0 */
/* The integration services of a worker: shutdown, clock, what the guest tells, checkpoints. */
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "agent/vm_devices_priv.h"

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

int vm_devices_freeze(struct vm_devices *devices, struct base_error *err)
{
	return ic_freeze(devices->ic, VM_FREEZE_TIMEOUT_MS, VM_FREEZE_LIMIT_MS, err);
}

int vm_devices_thaw(struct vm_devices *devices, struct base_error *err)
{
	return ic_thaw(devices->ic, VM_FREEZE_TIMEOUT_MS, err);
}

void vm_devices_thaw_soon(struct vm_devices *devices)
{
	ic_thaw_soon(devices->ic);
}

void vm_devices_end_waits(struct vm_devices *devices)
{
	if (devices != NULL && devices->ic != NULL)
		ic_end(devices->ic);
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
