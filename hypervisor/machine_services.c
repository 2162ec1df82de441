/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The devices that live outside of this folder: told of the machine's life, in order.
 */
#include <errno.h>
#include <stdio.h>

#include "base/cleanup.h"
#include "hypervisor/machine_priv.h"

int hv_machine_add_service(struct hv_machine *machine, const struct hv_service_ops *ops,
			   void *service, struct base_error *err)
{
	BASE_LOCKED(&machine->change_lock);

	if (machine->has_guest)
		return base_fail(err, -EPROTO, "service: expected before the VM has a guest");
	if (machine->service_count == HV_SERVICES_MAX)
		return base_fail(err, -ENOSPC, "services: expected at most %d", HV_SERVICES_MAX);
	machine->services[machine->service_count++] =
		(struct hv_machine_service){ .ops = ops, .service = service };
	return 0;
}

void hv_machine_on_load(struct hv_machine *machine,
			int (*load)(void *context, struct base_error *err), void *context)
{
	BASE_LOCKED(&machine->change_lock);

	machine->on_load = load;
	machine->on_load_context = context;
}

/* The first @count services go on, the last of them first. */
static void resume_first(struct hv_machine *machine, uint32_t count)
{
	for (uint32_t i = count; i > 0; i--)
		machine->services[i - 1].ops->resume(machine->services[i - 1].service);
}

int hv_machine_services_quiesce(struct hv_machine *machine, struct base_error *err)
{
	if (machine->quiesce_depth++ > 0)
		return 0;
	for (uint32_t i = 0; i < machine->service_count; i++) {
		const struct hv_machine_service *service = &machine->services[i];
		int r = service->ops->quiesce(service->service, err);

		if (r < 0) {
			resume_first(machine, i);
			machine->quiesce_depth--;
			return r;
		}
	}
	return 0;
}

void hv_machine_services_resume(struct hv_machine *machine)
{
	base_assert(machine->quiesce_depth > 0);
	if (--machine->quiesce_depth == 0)
		resume_first(machine, machine->service_count);
}

void hv_machine_services_end(struct hv_machine *machine)
{
	if (machine->quiesce_depth++ > 0)
		return;
	for (uint32_t i = 0; i < machine->service_count; i++)
		(void)!machine->services[i].ops->quiesce(machine->services[i].service, NULL);
}

int hv_machine_services_reset(struct hv_machine *machine, struct base_error *err)
{
	for (uint32_t i = 0; i < machine->service_count; i++) {
		const struct hv_machine_service *service = &machine->services[i];
		int r = service->ops->reset(service->service, err);

		if (r < 0)
			return r;
	}
	return 0;
}

int hv_machine_services_loaded(struct hv_machine *machine, struct base_error *err)
{
	for (uint32_t i = 0; i < machine->service_count; i++) {
		const struct hv_machine_service *service = &machine->services[i];
		int r = service->ops->loaded(service->service, err);

		if (r < 0)
			return r;
	}
	return 0;
}

bool hv_machine_services_set_date(const struct hv_machine *machine)
{
	for (uint32_t i = 0; i < machine->service_count; i++) {
		const struct hv_machine_service *service = &machine->services[i];

		if (service->ops->sets_date != NULL && service->ops->sets_date(service->service))
			return true;
	}
	return false;
}

uint32_t hv_machine_service_sections(const struct hv_machine *machine)
{
	uint32_t count = 0;

	for (uint32_t i = 0; i < machine->service_count; i++)
		count += machine->services[i].ops->section_count(machine->services[i].service);
	return count;
}

struct hv_service_section hv_machine_service_section(const struct hv_machine *machine,
						     uint32_t index,
						     const struct hv_machine_service **ret_service,
						     uint32_t *ret_own_index)
{
	for (uint32_t i = 0; i < machine->service_count; i++) {
		const struct hv_machine_service *service = &machine->services[i];
		uint32_t count = service->ops->section_count(service->service);

		if (index < count) {
			*ret_service = service;
			*ret_own_index = index;
			return service->ops->section(service->service, index);
		}
		index -= count;
	}
	base_bug("service section %u of %u", (unsigned int)index,
		 (unsigned int)hv_machine_service_sections(machine));
}

int hv_machine_quiesce(struct hv_machine *machine, enum hv_hold hold, struct base_error *err)
{
	BASE_LOCKED(&machine->change_lock);
	bool was_held = (hv_partition_holds(machine->partition) & (uint32_t)hold) != 0;
	int r = hv_machine_hold(machine, hold, err);

	if (r < 0)
		return r;
	r = hv_machine_services_quiesce(machine, err);
	if (r < 0 && !was_held)
		hv_partition_release(machine->partition, (uint32_t)hold);
	return r;
}

int hv_machine_unquiesce(struct hv_machine *machine, enum hv_hold hold, struct base_error *err)
{
	BASE_LOCKED(&machine->change_lock);

	if ((hv_partition_holds(machine->partition) & HV_HOLD_STOPPED) != 0)
		return base_fail(err, -EPROTO, "the VM has stopped");
	hv_machine_services_resume(machine);
	hv_partition_release(machine->partition, (uint32_t)hold);
	return 0;
}

int hv_machine_set_kernel(struct hv_machine *machine, const struct hv_machine_kernel *kernel,
			  struct base_error *err)
{
	int length = snprintf(machine->config.cmdline, sizeof(machine->config.cmdline), "%s",
			      kernel->cmdline);

	if (length < 0 || (size_t)length >= sizeof(machine->config.cmdline))
		return base_fail(err, -E2BIG, "command line: %d bytes, expected at most %zu",
				 length, sizeof(machine->config.cmdline) - 1);
	machine->fds.kernel_fd = kernel->kernel_fd;
	machine->fds.initrd_fd = kernel->initrd_fd;
	machine->fds.kernel_name = kernel->kernel_name;
	machine->fds.initrd_name = kernel->initrd_name;
	return 0;
}
