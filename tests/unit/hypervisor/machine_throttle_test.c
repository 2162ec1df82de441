/* SPDX-License-Identifier: Apache-2.0 */
/* vCPUs that are kept from running, on KVM: holds work as ever, and it has an end. */
#include <criterion/criterion.h>
#include <stdlib.h>

#include "base/clock.h"
#include "tests/support/guest_vm.h"

static uint64_t interrupted(struct guest_vm *vm)
{
	struct hv_machine_status status;

	hv_machine_status(guest_vm_machine(vm), &status);
	return status.exits.interrupted;
}

static void throttle(struct guest_vm *vm, uint32_t first, uint32_t second)
{
	const uint32_t permille[] = { first, second };

	cr_assert_eq(hv_machine_throttle(guest_vm_machine(vm), permille, NULL), 0);
}

static void wait_kicks(struct guest_vm *vm, uint64_t count)
{
	uint64_t before = interrupted(vm);

	while (interrupted(vm) - before < count)
		base_sleep_ns(BASE_NS_PER_MS);
}

Test(machine_throttle, holds_work_meanwhile_and_it_ends, .timeout = 400)
{
	struct guest_vm_opts opts = { .vcpus = 2, .cmdline = "ws=16M rate=0 report=0" };
	struct guest_vm *vm = guest_vm_new(&opts);
	uint64_t before = 0;

	if (vm == NULL)
		return;
	guest_vm_wait(vm, "guest: ready");
	throttle(vm, 900, 400);
	wait_kicks(vm, 10);
	for (int i = 0; i < 50; i++) {
		guest_vm_pause(vm);
		guest_vm_resume(vm);
	}
	throttle(vm, 0, 900); /* another share, while it lasts */
	wait_kicks(vm, 5);
	throttle(vm, 0, 0);
	throttle(vm, 0, 0);
	before = interrupted(vm);
	base_sleep_ns(100 * BASE_NS_PER_MS);
	/* One was on its way for each. */
	cr_assert_leq(interrupted(vm) - before, 2);
	cr_assert_eq(guest_vm_command(vm, TESTPAGE_VERIFY_ALL, 0, 0, 0), 0);
	guest_vm_free(vm);
}

Test(machine_throttle, a_machine_ends_while_it_lasts, .timeout = 400)
{
	struct guest_vm_opts opts = { .vcpus = 2, .cmdline = "ws=16M rate=0 report=0" };
	struct guest_vm *vm = guest_vm_new(&opts);

	if (vm == NULL)
		return;
	guest_vm_wait(vm, "guest: ready");
	throttle(vm, 900, 900);
	wait_kicks(vm, 2);
	guest_vm_free(vm);
}

/* While writes are tracked, KVM counts the faults of who writes (where it counts at all). */
Test(machine_throttle, who_writes_is_known, .timeout = 400)
{
	struct guest_vm_opts opts = { .vcpus = 1, .cmdline = "ws=16M rate=0 report=0" };
	struct guest_vm *vm = guest_vm_new(&opts);
	uint64_t faults[2] = { 0 };
	uint64_t *bitmap = NULL;
	struct hv_slat *slat = NULL;

	if (vm == NULL)
		return;
	guest_vm_wait(vm, "guest: ready");
	if (!hv_machine_writers(guest_vm_machine(vm), faults)) {
		guest_vm_free(vm);
		cr_skip_test("KVM does not count faults here");
	}
	slat = hv_machine_slat(guest_vm_machine(vm));
	bitmap = calloc(hv_slat_word_count(slat), sizeof(*bitmap));
	cr_assert_eq(hv_slat_start(slat, NULL), 0);
	cr_assert_eq(hv_slat_harvest(slat, bitmap, NULL, NULL), 0);
	do {
		base_sleep_ns(BASE_NS_PER_MS);
		cr_assert(hv_machine_writers(guest_vm_machine(vm), faults));
	} while (faults[0] == 0);
	cr_assert_eq(hv_slat_stop(slat, NULL), 0);
	free(bitmap);
	guest_vm_free(vm);
}
