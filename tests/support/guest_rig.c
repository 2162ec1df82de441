/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/support/guest_rig.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/clock.h"
#include "hypervisor/disk/fake_store.h"
#include "hypervisor/host_probe.h"

#define NAME     "a.vhdx"
#define EPOCH    7
#define LIMIT_NS (180 * BASE_NS_PER_SECOND) /* a stuck guest, not a slow one */

static _Noreturn void give_up(const char *why)
{
	printf("guest_rig: %s\n", why);
	(void)fflush(stdout);
	abort();
}

static void need(int code, const struct base_error *err)
{
	if (code < 0)
		give_up(err->text);
}

static void add_disk(struct guest_rig *rig, struct hv_machine *machine)
{
	struct storvsp_options options = { .bus = rig->bus,
					   .slat = hv_machine_slat(machine),
					   .loops = { rig->loop },
					   .loop_count = 1,
					   .vcpu_count = rig->vcpus,
					   .instance = { .bytes = { 5 } },
					   .vm_name = "test" };
	const struct storvsp_medium medium = { .kind = STORVSP_DISK,
					       .disk = rig->disk,
					       .write_cache = true };
	struct base_error err = { .code = 0 };

	need(storvsp_new(&options, &rig->scsi, &err), &err);
	need(hv_machine_add_service(machine, &storvsp_service_ops, rig->scsi, &err), &err);
	need(storvsp_attach(rig->scsi, 0, &medium, &err), &err);
}

static void add_card(struct guest_rig *rig, struct hv_machine *machine)
{
	struct netvsp_options options = { .bus = rig->bus,
					  .slat = hv_machine_slat(machine),
					  .loops = { rig->loop },
					  .loop_count = 1,
					  .tap_fds = { rig->tap[1] },
					  .queue_count = 1,
					  .vcpu_count = rig->vcpus,
					  .instance = { .bytes = { 6 } },
					  .mac = GUEST_RIG_MAC,
					  .link_up = true,
					  .vm_name = "test" };
	struct base_error err = { .code = 0 };

	need(netvsp_new(&options, &rig->card, &err), &err);
	need(hv_machine_add_service(machine, &netvsp_service_ops, rig->card, &err), &err);
}

static uint64_t reference_time(void *context)
{
	return hv_machine_reference_time(context);
}

static void prepare(struct hv_machine *machine, void *context)
{
	struct guest_rig *rig = context;
	const struct vmbus_options options = { .slat = hv_machine_slat(machine),
					       .synic = hv_machine_synic(machine),
					       .loop = rig->loop,
					       .vcpu_count = rig->vcpus,
					       .vm_name = "test" };
	struct ic_options ic = { .loop = rig->loop,
				 .clock = &base_clock_system,
				 .vm_name = "test",
				 .reference_time = reference_time,
				 .reference_context = machine };
	struct base_error err = { .code = 0 };

	need(vmbus_new(&options, &rig->bus, &err), &err);
	hv_machine_set_hypercalls(machine, &vmbus_hypercall_ops, rig->bus);
	need(hv_machine_add_service(machine, &vmbus_service_ops, rig->bus, &err), &err);
	ic.bus = rig->bus;
	need(ic_new(&ic, &rig->ic, &err), &err);
	need(hv_machine_add_service(machine, &ic_service_ops, rig->ic, &err), &err);
	add_disk(rig, machine);
	add_card(rig, machine);
}

bool guest_rig_start(struct guest_rig *rig, const char *restore)
{
	const struct guest_vm_opts opts = { .vcpus = rig->vcpus,
					    .cmdline = rig->cmdline,
					    .restore = restore,
					    .registers_by_call = rig->registers_by_call,
					    .prepare = prepare,
					    .prepare_context = rig };

	rig->vm = guest_vm_new(&opts);
	return rig->vm != NULL;
}

void guest_rig_stop(struct guest_rig *rig)
{
	if (guest_vm_said(rig->vm, "BAD"))
		give_up("the guest has said BAD");
	guest_vm_free(rig->vm);
	storvsp_free(rig->scsi);
	netvsp_free(rig->card);
	ic_free(rig->ic);
	vmbus_free(rig->bus);
}

bool guest_rig_setup(struct guest_rig *rig)
{
	const struct disk_create_options make = { .format = DISK_VHDX,
						  .kind = DISK_DYNAMIC,
						  .size_bytes = GUEST_RIG_DISK_BYTES };
	const struct base_io_loop_options loop = { .clock = NULL };
	struct disk_options options = { .name = NAME };
	struct base_error err = { .code = 0 };

	if (access(HV_KVM_PATH, R_OK | W_OK) != 0) {
		printf("SKIP no " HV_KVM_PATH "\n");
		return false;
	}
	need(base_io_loop_new(&loop, &rig->loop, &err), &err);
	need(base_io_loop_start(rig->loop, "io", &err), &err);
	need(fake_store_new(&rig->store, &err), &err);
	options.store = rig->store;
	options.loop = rig->loop;
	need(disk_create(rig->store, NAME, rig->loop, &make, &err), &err);
	need(disk_open_standby(&options, &rig->disk, &err), &err);
	need(disk_activate(rig->disk, EPOCH, NULL, &err), &err);
	if (socketpair(AF_UNIX, SOCK_DGRAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, rig->tap) < 0)
		give_up("socketpair");
	return guest_rig_start(rig, NULL);
}

void guest_rig_teardown(struct guest_rig *rig)
{
	struct base_error err = { .code = 0 };

	guest_rig_stop(rig);
	need(disk_deactivate(rig->disk, &err), &err);
	disk_close(rig->disk);
	store_free(rig->store);
	base_io_loop_free(rig->loop);
	(void)close(rig->tap[0]);
	(void)close(rig->tap[1]);
}

void guest_rig_until(struct guest_rig *rig, uint32_t offset, uint64_t least)
{
	uint64_t end_ns = base_clock_boot_ns(&base_clock_system) + LIMIT_NS;

	while (guest_vm_get(rig->vm, offset) < least && !guest_vm_said(rig->vm, "FATAL") &&
	       base_clock_boot_ns(&base_clock_system) < end_ns)
		base_sleep_ns(BASE_NS_PER_MS);
	if (guest_vm_get(rig->vm, offset) >= least && !guest_vm_said(rig->vm, "FATAL"))
		return;
	vmbus_dump(rig->bus, stdout);
	printf("register 0x%x: %llu, not %llu\n", offset,
	       (unsigned long long)guest_vm_get(rig->vm, offset), (unsigned long long)least);
	give_up("the guest does not get there");
}
