/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The devices' life, and what of it the machine is told.
 *
 * Two services stand around those of the devices: the first makes the disks active before
 * anybody takes up requests of a saved state, the last makes durable what completed once
 * nobody has a request under way, so that a saved state never knows more than the disks.
 */
#include "agent/vm_devices.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "agent/vm_devices_priv.h"
#include "base/cleanup.h"

/* --- events --- */

void vm_devices_tell(struct vm_devices *devices, const struct vm_device_event *event)
{
	{
		BASE_LOCKED(&devices->lock);

		if (devices->event_count == VM_DEVICE_EVENTS_MAX) {
			devices->event_first = (devices->event_first + 1) % VM_DEVICE_EVENTS_MAX;
			devices->event_count--;
		}
		devices->events[(devices->event_first + devices->event_count) %
				VM_DEVICE_EVENTS_MAX] = *event;
		devices->event_count++;
	}
	devices->options.news(devices->options.context);
}

bool vm_devices_event(struct vm_devices *devices, struct vm_device_event *ret_event)
{
	BASE_LOCKED(&devices->lock);

	if (devices->event_count == 0)
		return false;
	*ret_event = devices->events[devices->event_first];
	devices->event_first = (devices->event_first + 1) % VM_DEVICE_EVENTS_MAX;
	devices->event_count--;
	return true;
}

/* --- what others share --- */

struct base_io_loop *vm_devices_loop(struct vm_devices *devices)
{
	return devices->loops[devices->next_loop++ % devices->loop_count];
}

struct disk_guid vm_devices_instance(uint8_t kind, uint32_t number)
{
	/* Random once; a guest knows its devices by it again, also on another host. */
	struct disk_guid guid = { .bytes = { 0x5b, 0x1e, 0x7c, 0x94, 0x3a, 0xd0, 0x47, 0x4f, 0xa6,
					     0x0b, 0x92, 0xe8, 0x51, 0xc7, 0, 0 } };

	guid.bytes[14] = kind;
	guid.bytes[15] = (uint8_t)number;
	return guid;
}

/* --- the services around the others --- */

static int nothing(void *service, struct base_error *err)
{
	(void)service;
	(void)err;
	return 0;
}

static void no_resume(void *service)
{
	(void)service;
}

static uint32_t no_sections(void *service)
{
	(void)service;
	return 0;
}

static int first_loaded(void *service, struct base_error *err)
{
	int code = vm_devices_activate(service, err);

	return code == 0 ? vm_devices_state_check(service, err) : code;
}

static int last_quiesce(void *service, struct base_error *err)
{
	return vm_devices_flush(service, err);
}

static uint32_t one_section(void *service)
{
	(void)service;
	return 1;
}

static struct hv_service_section disks_section(void *service, uint32_t index)
{
	(void)service;
	(void)index;
	return (struct hv_service_section){ .name = "disks", .version = 1 };
}

static int disks_save(void *service, uint32_t index, struct base_buffer *out,
		      struct base_error *err)
{
	(void)index;
	return vm_devices_state_encode(service, out, err);
}

static int disks_load(void *service, uint32_t index, uint32_t version, struct base_reader *in,
		      struct base_error *err)
{
	(void)index;
	if (version != 1)
		return base_fail(err, version == 0 ? -EBADMSG : -ENOTSUP,
				 "disks: version %" PRIu32 ", this one knows 1", version);
	return vm_devices_state_decode(service, in, err);
}

static const struct hv_service_ops first_ops = {
	.quiesce = nothing,
	.resume = no_resume,
	.reset = nothing,
	.section_count = one_section,
	.section = disks_section,
	.save = disks_save,
	.load = disks_load,
	.loaded = first_loaded,
};

static const struct hv_service_ops last_ops = {
	.quiesce = last_quiesce,
	.resume = no_resume,
	.reset = nothing,
	.section_count = no_sections,
	.loaded = nothing,
};

/* --- life --- */

static void devices_freep(struct vm_devices **devices)
{
	vm_devices_free(*devices);
}

int vm_devices_open(const struct vm_devices_options *options, struct vm_devices **ret_devices,
		    struct base_error *err)
{
	BASE_CLEANUP(devices_freep) struct vm_devices *devices = calloc(1, sizeof(*devices));
	int code = 0;

	if (devices == NULL)
		return base_fail(err, -ENOMEM, "devices: no memory");
	devices->options = *options;
	devices->config = options->config;
	devices->epoch = options->config->epoch;
	devices->boot.kernel_fd = -1;
	devices->boot.initrd_fd = -1;
	(void)pthread_mutex_init(&devices->lock, NULL);
	code = vm_devices_open_loops(devices, err);
	if (code == 0)
		code = vm_devices_open_stores(devices, err);
	if (code == 0)
		code = vm_devices_open_nics(devices, err);
	if (code < 0)
		return code;
	*ret_devices = base_take(&devices);
	return 0;
}

int vm_devices_store_fd(const struct vm_devices *devices, uint32_t index)
{
	return index < devices->store_count ? devices->stores[index].folder_fd : -1;
}

static int make_bus(struct vm_devices *devices, struct base_error *err)
{
	struct vmbus_options options = {
		.slat = hv_machine_slat(devices->machine),
		.synic = hv_machine_synic(devices->machine),
		.loop = devices->loops[0],
		.vcpu_count = (uint32_t)devices->config->vcpu_count,
		.vm_name = devices->config->name,
	};
	int code = vmbus_new(&options, &devices->bus, err);

	if (code < 0)
		return base_fail_within(err, code, "VMBus");
	hv_machine_set_hypercalls(devices->machine, &vmbus_hypercall_ops, devices->bus);
	return hv_machine_add_service(devices->machine, &vmbus_service_ops, devices->bus, err);
}

int vm_devices_make(struct vm_devices *devices, struct hv_machine *machine, bool standby,
		    struct base_error *err)
{
	int code = 0;

	devices->machine = machine;
	code = hv_machine_add_service(machine, &first_ops, devices, err);
	if (code == 0)
		code = make_bus(devices, err);
	if (code == 0)
		code = vm_devices_make_disks(devices, standby, err);
	if (code == 0)
		code = vm_devices_make_nics(devices, err);
	if (code == 0)
		code = vm_devices_make_ic(devices, err);
	if (code == 0)
		code = hv_machine_add_service(machine, &last_ops, devices, err);
	if (code == 0 && devices->options.boot_reader != NULL)
		hv_machine_on_load(machine, vm_devices_load_kernel, devices);
	return code;
}

void vm_devices_free(struct vm_devices *devices)
{
	if (devices == NULL)
		return;
	vm_devices_close_nics(devices);
	for (uint32_t i = 0; i < VM_CONTROLLERS; i++)
		storvsp_free(devices->controllers[i]);
	ic_free(devices->ic);
	vmbus_free(devices->bus);
	vm_devices_close_disks(devices);
	vm_devices_close_stores(devices);
	for (uint32_t i = 0; i < devices->loop_count; i++)
		base_io_loop_free(devices->loops[i]);
	base_closep(&devices->boot.kernel_fd);
	base_closep(&devices->boot.initrd_fd);
	(void)pthread_mutex_destroy(&devices->lock);
	free(devices->saved);
	free(devices);
}
