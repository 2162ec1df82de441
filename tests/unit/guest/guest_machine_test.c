/* SPDX-License-Identifier: Apache-2.0 */
/* The test guest in a real machine, on VMBus with storage, network and integration services: load,
 * save and restore under load, reset under load.  Needs KVM. */
#include <criterion/criterion.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

#include "hypervisor/disk/disk.h"
#include "hypervisor/disk/fake_store.h"
#include "hypervisor/host_probe.h"
#include "hypervisor/ic/ic.h"
#include "hypervisor/netvsp/netvsp.h"
#include "hypervisor/storvsp/storvsp.h"
#include "tests/guest/guest_inet.h"
#include "tests/support/guest_vm.h"

#define NAME       "a.vhdx"
#define DISK_BYTES (64ULL << 20)
#define EPOCH      7
#define VNET_BYTES 12u
#define QUIET      "ws=1M rate=100 verify=100 report=0 "

/* What outlives a machine: the loop, the disk, the cable. */
struct rig {
	struct base_io_loop *loop;
	struct store *store;
	struct disk *disk;
	int tap[2];
	uint32_t vcpus;
	const char *cmdline;
	struct guest_vm *vm;
	struct vmbus *bus;
	struct storvsp *scsi;
	struct netvsp *card;
	struct ic_set *ic;
	char folder[32], file[64];
};

static void need(int code, const struct base_error *err)
{
	cr_assert_geq(code, 0, "%s", err->text);
}

static void add_disk(struct rig *rig, struct hv_machine *machine)
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

static void add_card(struct rig *rig, struct hv_machine *machine)
{
	struct netvsp_options options = { .bus = rig->bus,
					  .slat = hv_machine_slat(machine),
					  .loops = { rig->loop },
					  .loop_count = 1,
					  .tap_fds = { rig->tap[1] },
					  .queue_count = 1,
					  .vcpu_count = rig->vcpus,
					  .instance = { .bytes = { 6 } },
					  .mac = { 0, 0x15, 0x5d, 1, 2, 3 },
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
	struct rig *rig = context;
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

static bool start(struct rig *rig, const char *restore)
{
	const struct guest_vm_opts opts = { .vcpus = rig->vcpus,
					    .cmdline = rig->cmdline,
					    .restore = restore,
					    .prepare = prepare,
					    .prepare_context = rig };

	rig->vm = guest_vm_new(&opts);
	return rig->vm != NULL;
}

static void stop(struct rig *rig)
{
	cr_assert_not(guest_vm_said(rig->vm, "BAD"));
	guest_vm_free(rig->vm);
	storvsp_free(rig->scsi);
	netvsp_free(rig->card);
	ic_free(rig->ic);
	vmbus_free(rig->bus);
}

static bool setup(struct rig *rig, uint32_t vcpus, const char *cmdline)
{
	const struct disk_create_options make = { .format = DISK_VHDX,
						  .kind = DISK_DYNAMIC,
						  .size_bytes = DISK_BYTES };
	struct disk_options options = { .name = NAME };
	struct base_error err = { .code = 0 };

	if (access(HV_KVM_PATH, R_OK | W_OK) != 0) {
		printf("SKIP no " HV_KVM_PATH "\n");
		return false;
	}
	*rig = (struct rig){ .vcpus = vcpus, .cmdline = cmdline, .folder = "/tmp/guestXXXXXX" };
	cr_assert_not_null(mkdtemp(rig->folder));
	(void)snprintf(rig->file, sizeof(rig->file), "%s/vm.save", rig->folder);
	need(base_io_loop_new(&(struct base_io_loop_options){ .clock = NULL }, &rig->loop, &err),
	     &err);
	need(base_io_loop_start(rig->loop, "io", &err), &err);
	need(fake_store_new(&rig->store, &err), &err);
	options.store = rig->store;
	options.loop = rig->loop;
	need(disk_create(rig->store, NAME, rig->loop, &make, &err), &err);
	need(disk_open_standby(&options, &rig->disk, &err), &err);
	need(disk_activate(rig->disk, EPOCH, NULL, &err), &err);
	cr_assert_eq(socketpair(AF_UNIX, SOCK_DGRAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, rig->tap),
		     0);
	return start(rig, NULL);
}

static void teardown(struct rig *rig)
{
	struct base_error err = { .code = 0 };

	stop(rig);
	need(disk_deactivate(rig->disk, &err), &err);
	disk_close(rig->disk);
	store_free(rig->store);
	base_io_loop_free(rig->loop);
	(void)close(rig->tap[0]);
	(void)close(rig->tap[1]);
	(void)unlink(rig->file);
	(void)rmdir(rig->folder);
}

/* Until the register of the test page is at least @least. */
static void until(struct rig *rig, uint32_t offset, uint64_t least)
{
	uint64_t end_ns = base_clock_boot_ns(&base_clock_system) + 180 * BASE_NS_PER_SECOND;

	while (guest_vm_get(rig->vm, offset) < least && !guest_vm_said(rig->vm, "FATAL") &&
	       base_clock_boot_ns(&base_clock_system) < end_ns)
		base_sleep_ns(BASE_NS_PER_MS);
	if (guest_vm_get(rig->vm, offset) < least)
		vmbus_dump(rig->bus, stdout);
	cr_assert_geq(guest_vm_get(rig->vm, offset), least, "register 0x%x", offset);
	cr_assert_not(guest_vm_said(rig->vm, "FATAL"));
}

static void save_and_restore(struct rig *rig)
{
	struct base_error err = { .code = 0 };
	struct hv_save_report report;
	int directory_fd = open(rig->folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC);

	need(hv_machine_save(guest_vm_machine(rig->vm), directory_fd, "vm.save", false, &report,
			     &err),
	     &err);
	(void)close(directory_fd);
	stop(rig);
	cr_assert(start(rig, rig->file));
}

static void load(uint32_t vcpus, const char *cmdline, int saves)
{
	struct rig rig;
	uint64_t writes;

	if (!setup(&rig, vcpus, cmdline))
		return;
	until(&rig, TESTPAGE_DISK_WRITES, 200);
	for (int i = 0; i < saves; i++) {
		save_and_restore(&rig);
		writes = guest_vm_get(rig.vm, TESTPAGE_DISK_WRITES);
		until(&rig, TESTPAGE_DISK_WRITES, writes + 200);
	}
	cr_assert_eq(guest_vm_command(rig.vm, TESTPAGE_DISK_VERIFY, 0, 0, 0), 0);
	teardown(&rig);
}

Test(guest_machine, storage_one_vcpu, .timeout = 400)
{
	load(1, QUIET "disk=stamp disk_bytes=4M disk_depth=1", 0);
}

Test(guest_machine, storage_two_vcpus_saved_and_restored, .timeout = 400)
{
	load(2, QUIET "disk=stamp disk_bytes=4M disk_depth=16 disk_io=16K", 3);
}

Test(guest_machine, reset_under_load, .timeout = 400)
{
	struct base_error err = { .code = 0 };
	struct rig rig;

	if (!setup(&rig, 2, QUIET "disk=stamp disk_bytes=4M disk_depth=16 disk_flush=8"))
		return;
	for (int i = 0; i < 3; i++) {
		guest_vm_wait(rig.vm, "guest: disk running");
		until(&rig, TESTPAGE_DISK_WRITES, 200);
		guest_vm_forget(rig.vm);
		need(hv_machine_reset(guest_vm_machine(rig.vm), false, &err), &err);
		guest_vm_wait(rig.vm, "guest: ready");
	}
	guest_vm_wait(rig.vm, "guest: disk running");
	cr_assert_eq(guest_vm_command(rig.vm, TESTPAGE_DISK_VERIFY, 0, 0, 0), 0);
	teardown(&rig);
}

Test(guest_machine, closed_and_opened_again, .timeout = 400)
{
	struct rig rig;

	if (!setup(&rig, 2, QUIET "disk=stamp disk_bytes=4M disk_depth=16"))
		return;
	for (uint64_t hard = 0; hard < 2; hard++) {
		guest_vm_wait(rig.vm, "guest: disk running");
		until(&rig, TESTPAGE_DISK_WRITES, 200 * (hard + 1));
		(void)guest_vm_command(rig.vm, TESTPAGE_DISK_REOPEN, hard, 0, 0);
		cr_assert_eq(guest_vm_command(rig.vm, TESTPAGE_DISK_VERIFY, 0, 0, 0), 0);
		(void)guest_vm_command(rig.vm, TESTPAGE_IO_START, 0, 0, 0);
	}
	teardown(&rig);
}

Test(guest_machine, the_network_answers_and_the_services_too, .timeout = 400)
{
	struct guest_inet peer = { .mac = { 2, 0, 0, 0, 0, 9 },
				   .address = 0x0a000009,
				   .peer = 0x0a000002 };
	uint8_t frame[VNET_BYTES + 2048] = { 0 };
	struct base_error err = { .code = 0 };
	uint32_t bytes = guest_inet_arp(&peer, peer.peer, frame + VNET_BYTES);
	struct rig rig;

	if (!setup(&rig, 2, QUIET "net=10.0.0.2/24 ic=on exit=acpi"))
		return;
	until(&rig, TESTPAGE_NET_STATE, TESTPAGE_IO_RUNNING);
	for (uint64_t i = 0; i < 50; i++) {
		cr_assert_gt(send(rig.tap[0], frame, VNET_BYTES + bytes, 0), 0);
		until(&rig, TESTPAGE_NET_ARP, i + 1);
	}
	until(&rig, TESTPAGE_IC_BEATS, 2);
	cr_assert_geq(guest_vm_get(rig.vm, TESTPAGE_IC_SYNCS), 1);
	need(ic_shutdown(rig.ic, IC_POWER_OFF, false, 60000, &err), &err);
	guest_vm_wait_event(rig.vm, HV_EVENT_POWER_OFF);
	teardown(&rig);
}
