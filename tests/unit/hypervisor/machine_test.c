/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A whole machine with the test guest: boot, pause, reset, power off, processors.
 */
#include <criterion/criterion.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "tests/support/guest_vm.h"

static void boots_with(uint32_t vcpus)
{
	struct guest_vm_opts opts = { .vcpus = vcpus, .cmdline = "ws=16M rate=2000" };
	struct guest_vm *vm = guest_vm_new(&opts);

	if (vm == NULL)
		return;
	guest_vm_wait(vm, "guest: ok");
	cr_assert_eq(guest_vm_get(vm, TESTPAGE_VCPUS), vcpus);
	cr_assert_eq(guest_vm_command(vm, TESTPAGE_VERIFY_ALL, 0, 0, 0), 0);
	cr_assert_gt(guest_vm_get(vm, TESTPAGE_TICKS), 0);
	cr_assert_eq(guest_vm_get(vm, TESTPAGE_BAD), 0);
	guest_vm_free(vm);
}

Test(machine, boots_with_one_vcpu, .timeout = 400)
{
	boots_with(1);
}

Test(machine, boots_with_two_vcpus, .timeout = 400)
{
	boots_with(2);
}

Test(machine, boots_with_four_vcpus, .timeout = 400)
{
	boots_with(4);
}

/* Memory above the hole: two slots, a page number that skips the hole. */
Test(machine, boots_with_memory_above_four_gib, .timeout = 400)
{
	struct guest_vm_opts opts = { .memory_bytes = 3200ULL << 20,
				      .vcpus = 1,
				      .cmdline = "ws=3000M rate=1000 stamp=word content=zero" };
	struct guest_vm *vm = guest_vm_new(&opts);

	if (vm == NULL)
		return;
	guest_vm_wait(vm, "guest: ok");
	cr_assert_eq(guest_vm_get(vm, TESTPAGE_BAD), 0);
	guest_vm_free(vm);
}

Test(machine, pauses_and_goes_on_many_times, .timeout = 400)
{
	struct guest_vm_opts opts = { .vcpus = 3, .cmdline = "ws=16M rate=0 report=0" };
	struct guest_vm *vm = guest_vm_new(&opts);

	if (vm == NULL)
		return;
	guest_vm_wait(vm, "guest: ready");
	for (int i = 0; i < 500; i++) {
		uint32_t before;

		guest_vm_pause(vm);
		if (i % 50 == 0) {
			before = guest_vm_ram_crc(vm);
			base_sleep_ns(2 * BASE_NS_PER_MS);
			cr_assert_eq(guest_vm_ram_crc(vm), before, "a paused guest wrote");
		}
		guest_vm_resume(vm);
	}
	cr_assert_eq(guest_vm_command(vm, TESTPAGE_VERIFY_ALL, 0, 0, 0), 0);
	guest_vm_free(vm);
}

/* Each reason to stand still is its own: a user's resume does not undo the leash. */
Test(machine, holds_compose, .timeout = 400)
{
	struct guest_vm_opts opts = { .cmdline = "ws=16M rate=0 report=0" };
	struct guest_vm *vm = guest_vm_new(&opts);
	struct hv_machine_status status;
	uint64_t exits;

	if (vm == NULL)
		return;
	guest_vm_wait(vm, "guest: ready");
	cr_assert_eq(hv_machine_hold(guest_vm_machine(vm), HV_HOLD_LEASH, NULL), 0);
	guest_vm_pause(vm);
	guest_vm_resume(vm);
	hv_machine_status(guest_vm_machine(vm), &status);
	cr_assert_eq(status.holds, HV_HOLD_LEASH);
	exits = status.exits.total;
	base_sleep_ns(50 * BASE_NS_PER_MS);
	hv_machine_status(guest_vm_machine(vm), &status);
	cr_assert_eq(status.exits.total, exits);
	cr_assert_eq(hv_machine_release(guest_vm_machine(vm), HV_HOLD_LEASH, NULL), 0);
	cr_assert_eq(guest_vm_command(vm, TESTPAGE_VERIFY_ALL, 0, 0, 0), 0);
	guest_vm_free(vm);
}

static void post_and_expect(struct guest_vm *vm, enum testpage_opcode opcode,
			    enum hv_machine_event event)
{
	guest_vm_post(vm, opcode, 0, 0, 0);
	guest_vm_wait_event(vm, event);
}

Test(machine, guest_powers_off, .timeout = 400)
{
	struct guest_vm_opts opts = { .vcpus = 2, .cmdline = "ws=16M" };
	struct guest_vm *vm = guest_vm_new(&opts);

	if (vm == NULL)
		return;
	guest_vm_wait(vm, "guest: ready");
	post_and_expect(vm, TESTPAGE_POWER_OFF, HV_EVENT_POWER_OFF);
	cr_assert_eq(hv_machine_release(guest_vm_machine(vm), HV_HOLD_USER, NULL), -EPROTO,
		     "a VM that is off stays off");
	guest_vm_free(vm);
}

Test(machine, resets_in_place_again_and_again, .timeout = 400)
{
	struct guest_vm_opts opts = { .vcpus = 2, .cmdline = "ws=16M rate=1000" };
	struct guest_vm *vm = guest_vm_new(&opts);
	struct hv_machine_status status;
	struct base_error err = { .code = 0 };

	if (vm == NULL)
		return;
	for (int i = 0; i < 3; i++) {
		guest_vm_wait(vm, "guest: ok");
		post_and_expect(vm, TESTPAGE_RESET, HV_EVENT_RESET_REQUEST);
		guest_vm_forget(vm);
		guest_vm_set(vm, TESTPAGE_COMMAND, 0);
		cr_assert_eq(hv_machine_reset(guest_vm_machine(vm), true, &err), 0, "%s", err.text);
	}
	guest_vm_wait(vm, "guest: ok");
	hv_machine_status(guest_vm_machine(vm), &status);
	cr_assert_eq(status.reset_count, 3);
	guest_vm_free(vm);
}

/* A guest's request that was carried out is not carried out again. */
Test(machine, a_reset_asked_for_twice_happens_once, .timeout = 400)
{
	struct guest_vm_opts opts = { .vcpus = 2, .cmdline = "ws=16M rate=1000" };
	struct guest_vm *vm = guest_vm_new(&opts);
	struct hv_machine_status status;

	if (vm == NULL)
		return;
	guest_vm_wait(vm, "guest: ok");
	post_and_expect(vm, TESTPAGE_RESET, HV_EVENT_RESET_REQUEST);
	guest_vm_set(vm, TESTPAGE_COMMAND, 0);
	cr_assert_eq(hv_machine_reset(guest_vm_machine(vm), true, NULL), 0);
	cr_assert_eq(hv_machine_reset(guest_vm_machine(vm), true, NULL), 0);
	hv_machine_status(guest_vm_machine(vm), &status);
	cr_assert_eq(status.reset_count, 1);
	cr_assert_eq(hv_machine_reset(guest_vm_machine(vm), false, NULL), 0,
		     "a command's reset is one");
	hv_machine_status(guest_vm_machine(vm), &status);
	cr_assert_eq(status.reset_count, 2);
	guest_vm_free(vm);
}

/* Past the soft deadline no vCPU enters the guest, although nobody has set a hold yet. */
Test(machine, a_shut_gate_keeps_the_guest_out, .timeout = 400)
{
	struct guest_vm_opts opts = { .vcpus = 2, .cmdline = "ws=16M rate=0 report=0" };
	struct guest_vm *vm = guest_vm_new(&opts);
	uint32_t crc;

	if (vm == NULL)
		return;
	guest_vm_wait(vm, "guest: ready");
	guest_vm_post(vm, TESTPAGE_EXIT_LOOP, 1000000, 1, 0);
	guest_vm_pause(vm);
	crc = guest_vm_ram_crc(vm);
	guest_vm_set_gate(vm, false);
	guest_vm_resume(vm);
	base_sleep_ns(50 * BASE_NS_PER_MS);
	cr_assert_eq(guest_vm_ram_crc(vm), crc, "the guest ran past the gate");
	guest_vm_pause(vm); /* parks all the same */
	guest_vm_resume(vm);
	guest_vm_set_gate(vm, true);
	guest_vm_post(vm, TESTPAGE_STATUS, 0, 0, 0);
	guest_vm_wait(vm, "guest: ok");
	guest_vm_free(vm);
}

Test(machine, triple_fault_asks_for_a_reset, .timeout = 400)
{
	struct guest_vm_opts opts = { .cmdline = "ws=16M time=200 exit=triple" };
	struct guest_vm *vm = guest_vm_new(&opts);

	if (vm == NULL)
		return;
	guest_vm_wait_event(vm, HV_EVENT_RESET_REQUEST);
	guest_vm_free(vm);
}

Test(machine, wrong_sizes_are_refused)
{
	struct base_error err = { .code = 0 };

	cr_assert_eq(hv_memory_check_size(0, &err), -EINVAL);
	cr_assert_eq(hv_memory_check_size(32ULL << 20, &err), -EINVAL);
	cr_assert_eq(hv_memory_check_size((64ULL << 20) + 4096, &err), -EINVAL);
	cr_assert_eq(hv_memory_check_size(1ULL << 50, &err), -EINVAL);
	cr_assert_eq(hv_memory_check_size(1ULL << 45, &err), -ENOMEM);
	cr_assert_eq(hv_memory_check_size(64ULL << 20, &err), 0);
}

Test(machine, hugetlb_pool_too_small_says_have_and_need)
{
	struct base_error err = { .code = 0 };
	struct hv_memory *memory = NULL;
	int r = hv_memory_new(1ULL << 30, HV_MEMORY_HUGETLB, &memory, &err);

	if (r == 0) {
		hv_memory_free(memory); /* somebody gave this host a pool */
		return;
	}
	cr_assert_eq(r, -ENOMEM);
	cr_assert_not_null(strstr(err.text, "needs 512 pages"), "%s", err.text);
}
