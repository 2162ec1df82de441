/* SPDX-License-Identifier: Apache-2.0 */
/* The test guest in a real machine, on VMBus with storage, network and integration services: load,
 * save and restore under load, reset under load, hypercalls.  Needs KVM. */
#include <criterion/criterion.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

#include "hypervisor/hyperv.h"
#include "tests/guest/guest_inet.h"
#include "tests/support/guest_rig.h"

#define CALLS 100
#define QUIET "ws=1M rate=100 verify=100 report=0 "

static void need(int code, const struct base_error *err)
{
	cr_assert_geq(code, 0, "%s", err->text);
}

static void save_and_restore(struct guest_rig *rig, const char *folder)
{
	struct base_error err = { .code = 0 };
	struct hv_save_report report;
	int directory_fd = open(folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	char file[64];

	(void)snprintf(file, sizeof(file), "%s/vm.save", folder);
	need(hv_machine_save(guest_vm_machine(rig->vm), directory_fd, "vm.save", false, &report,
			     &err),
	     &err);
	(void)close(directory_fd);
	guest_rig_stop(rig);
	cr_assert(guest_rig_start(rig, file));
	(void)unlink(file);
}

static void load(uint32_t vcpus, const char *cmdline, int saves)
{
	struct guest_rig rig = { .vcpus = vcpus, .cmdline = cmdline };
	char folder[] = "/tmp/guestXXXXXX";
	uint64_t writes;

	if (!guest_rig_setup(&rig))
		return;
	cr_assert_not_null(mkdtemp(folder));
	guest_rig_until(&rig, TESTPAGE_DISK_WRITES, 200);
	for (int i = 0; i < saves; i++) {
		save_and_restore(&rig, folder);
		writes = guest_vm_get(rig.vm, TESTPAGE_DISK_WRITES);
		guest_rig_until(&rig, TESTPAGE_DISK_WRITES, writes + 200);
	}
	cr_assert_eq(guest_vm_command(rig.vm, TESTPAGE_DISK_VERIFY, 0, 0, 0), 0);
	guest_rig_teardown(&rig);
	(void)rmdir(folder);
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
	struct guest_rig rig = { .vcpus = 2,
				 .cmdline = QUIET
				 "disk=stamp disk_bytes=4M disk_depth=16 disk_flush=8" };
	struct base_error err = { .code = 0 };

	if (!guest_rig_setup(&rig))
		return;
	for (int i = 0; i < 3; i++) {
		guest_vm_wait(rig.vm, "guest: disk running");
		guest_rig_until(&rig, TESTPAGE_DISK_WRITES, 200);
		guest_vm_forget(rig.vm);
		need(hv_machine_reset(guest_vm_machine(rig.vm), false, &err), &err);
		guest_vm_wait(rig.vm, "guest: ready");
	}
	guest_vm_wait(rig.vm, "guest: disk running");
	cr_assert_eq(guest_vm_command(rig.vm, TESTPAGE_DISK_VERIFY, 0, 0, 0), 0);
	guest_rig_teardown(&rig);
}

Test(guest_machine, closed_and_opened_again, .timeout = 400)
{
	struct guest_rig rig = { .vcpus = 2,
				 .cmdline = QUIET "disk=stamp disk_bytes=4M disk_depth=16" };

	if (!guest_rig_setup(&rig))
		return;
	for (uint64_t hard = 0; hard < 2; hard++) {
		guest_vm_wait(rig.vm, "guest: disk running");
		guest_rig_until(&rig, TESTPAGE_DISK_WRITES, 200 * (hard + 1));
		(void)guest_vm_command(rig.vm, TESTPAGE_DISK_REOPEN, hard, 0, 0);
		cr_assert_eq(guest_vm_command(rig.vm, TESTPAGE_DISK_VERIFY, 0, 0, 0), 0);
		(void)guest_vm_command(rig.vm, TESTPAGE_IO_START, 0, 0, 0);
	}
	guest_rig_teardown(&rig);
}

Test(guest_machine, the_network_answers_and_the_services_too, .timeout = 400)
{
	struct guest_inet peer = { .mac = { 2, 0, 0, 0, 0, 9 },
				   .address = 0x0a000009,
				   .peer = 0x0a000002 };
	struct guest_rig rig = { .vcpus = 2, .cmdline = QUIET "net=10.0.0.2/24 ic=on exit=acpi" };
	uint8_t frame[GUEST_RIG_VNET_BYTES + 2048] = { 0 };
	struct base_error err = { .code = 0 };
	uint32_t bytes = guest_inet_arp(&peer, peer.peer, frame + GUEST_RIG_VNET_BYTES);

	if (!guest_rig_setup(&rig))
		return;
	guest_rig_until(&rig, TESTPAGE_NET_STATE, TESTPAGE_IO_RUNNING);
	for (uint64_t i = 0; i < 50; i++) {
		cr_assert_gt(send(rig.tap[0], frame, GUEST_RIG_VNET_BYTES + bytes, 0), 0);
		guest_rig_until(&rig, TESTPAGE_NET_ARP, i + 1);
	}
	guest_rig_until(&rig, TESTPAGE_IC_BEATS, 2);
	cr_assert_geq(guest_vm_get(rig.vm, TESTPAGE_IC_SYNCS), 1);
	need(ic_shutdown(rig.ic, IC_POWER_OFF, false, 60000, &err), &err);
	guest_vm_wait_event(rig.vm, HV_EVENT_POWER_OFF);
	guest_rig_teardown(&rig);
}

static uint64_t call_loop(struct guest_rig *rig, enum testpage_call kind)
{
	return guest_vm_command(rig->vm, TESTPAGE_CALL_LOOP, CALLS, kind, HV_HYPERCALL_PORT);
}

/* The port by itself does nothing: not for ring 3, whatever it may do with ports, and not outside
 * of the page, also when the vCPU has made hypercalls before. */
static void hypercalls(bool registers_by_call)
{
	struct guest_rig rig = { .vcpus = 1,
				 .cmdline = QUIET "hv=on",
				 .registers_by_call = registers_by_call };
	struct hv_machine_status before, after;

	if (!guest_rig_setup(&rig))
		return;
	guest_rig_until(&rig, TESTPAGE_HV_VERSION, 1);
	hv_machine_status(guest_vm_machine(rig.vm), &before);
	hv_machine_status(guest_vm_machine(rig.vm), &before);
	for (int i = 0; i < 3; i++) {
		cr_assert_eq(call_loop(&rig, TESTPAGE_CALL_PAGE), CALLS);
		cr_assert_eq(call_loop(&rig, TESTPAGE_CALL_USER_PAGE), 0);
		cr_assert_eq(call_loop(&rig, TESTPAGE_CALL_STRAY), 0);
	}
	hv_machine_status(guest_vm_machine(rig.vm), &after);
	cr_assert_geq(after.exits.hypercalls - before.exits.hypercalls, 9 * CALLS);
	cr_assert_geq(after.exits.mmio - before.exits.mmio, 9); /* the test page's */
	cr_assert_geq(after.exits.total, after.exits.hypercalls + after.exits.ports +
						 after.exits.mmio + after.exits.msrs +
						 after.exits.interrupted);
	guest_rig_teardown(&rig);
}

Test(guest_machine, hypercalls_come_from_their_page_only, .timeout = 400)
{
	hypercalls(false);
}

Test(guest_machine, hypercalls_where_registers_are_asked_for, .timeout = 400)
{
	hypercalls(true);
}
