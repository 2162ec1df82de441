/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A dump of a machine: while it runs, while it stands, before and after; and with a vCPU whose
 * thread is stuck in the worker.  What must never happen: a dump that stops a guest.  Needs KVM.
 */
#include <criterion/criterion.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#include "hypervisor/machine_dump_priv.h"
#include "tests/support/guest_vm.h"

static char *dump(struct guest_vm *vm, void (*also)(void *context, FILE *out), void *context)
{
	char *text = NULL;
	size_t size_bytes = 0;
	FILE *out = open_memstream(&text, &size_bytes);

	cr_assert_not_null(out);
	hv_machine_dump(guest_vm_machine(vm), out, also, context);
	cr_assert_eq(fclose(out), 0);
	cr_assert_lt(size_bytes, 2 * HV_DUMP_VCPU_BYTES_MAX);
	return text;
}

static void says(const char *text, const char *what)
{
	cr_assert_not_null(strstr(text, what), "'%s' is not in:\n%s", what, text);
}

static uint32_t holds(struct guest_vm *vm)
{
	struct hv_machine_status status;

	hv_machine_status(guest_vm_machine(vm), &status);
	return status.holds;
}

/* On the dump's thread: the machine is held, and nobody is told so. */
static void also(void *context, FILE *out)
{
	struct guest_vm *vm = context;
	struct hv_machine_status before;
	struct hv_machine_status after;

	hv_machine_status(guest_vm_machine(vm), &before);
	base_sleep_ns(20 * BASE_NS_PER_MS);
	hv_machine_status(guest_vm_machine(vm), &after);
	cr_assert_eq(before.exits.total, after.exits.total, "the vCPUs do not stand still");
	fputs("also\n", out);
}

static void check_text(const char *text)
{
	says(text, "hyper-v: reference-time=");
	says(text, "\nvcpu 0: exits=");
	says(text, "\nvcpu 1: exits=");
	says(text, "  state: ");
	says(text, "  code at gpa 0x");
	says(text, "  tsc=");
	says(text, "  events: exception=");
	says(text, " on=1 x2apic=0 id=1 svr=0x1");
	says(text, "    timer: ");
	says(text, "    16 SINTs are off and empty\n");
	cr_assert_null(strstr(text, "STUCK"), "%s", text);
	cr_assert_null(strstr(text, "KVM does not give"), "%s", text);
}

Test(machine_dump, running_and_paused, .timeout = 400)
{
	struct guest_vm_opts opts = { .vcpus = 2, .cmdline = "ws=16M rate=0 report=0" };
	struct guest_vm *vm = guest_vm_new(&opts);
	char *text;

	if (vm == NULL)
		return;
	guest_vm_wait(vm, "guest: ready");
	for (int i = 0; i < 20; i++) {
		text = dump(vm, i == 0 ? also : NULL, vm);
		says(text, "machine: holds: none; runs\n");
		check_text(text);
		if (i == 0)
			says(text, "\nalso\n");
		if (i == 19)
			(void)fputs(text, stdout);
		free(text);
	}
	cr_assert_eq(guest_vm_command(vm, TESTPAGE_VERIFY_ALL, 0, 0, 0), 0);
	guest_vm_pause(vm);
	text = dump(vm, also, vm);
	says(text, "machine: holds: user; stands still\n");
	check_text(text);
	free(text);
	cr_assert_eq(holds(vm), HV_HOLD_USER, "as it was");
	guest_vm_resume(vm);
	cr_assert_eq(guest_vm_command(vm, TESTPAGE_VERIFY_ALL, 0, 0, 0), 0);
	guest_vm_free(vm);
}

Test(machine_dump, after_its_end, .timeout = 400)
{
	struct guest_vm_opts opts = { .vcpus = 2, .cmdline = "ws=16M" };
	struct guest_vm *vm = guest_vm_new(&opts);
	char *text;

	if (vm == NULL)
		return;
	guest_vm_wait(vm, "guest: ready");
	guest_vm_post(vm, TESTPAGE_POWER_OFF, 0, 0, 0);
	guest_vm_wait_event(vm, HV_EVENT_POWER_OFF);
	text = dump(vm, NULL, NULL);
	says(text, "machine: holds: stopped; the guest has ended\n");
	says(text, "  rip=0x");
	free(text);
	guest_vm_free(vm);
}

static void before_boot(struct hv_machine *machine, void *context)
{
	char **ret_text = context;
	size_t size_bytes = 0;
	FILE *out = open_memstream(ret_text, &size_bytes);

	cr_assert_not_null(out);
	hv_machine_dump(machine, out, NULL, NULL);
	cr_assert_eq(fclose(out), 0);
}

Test(machine_dump, before_its_boot, .timeout = 400)
{
	char *text = NULL;
	struct guest_vm_opts opts = {
		.vcpus = 2, .cmdline = "ws=16M", .prepare = before_boot, .prepare_context = &text
	};
	struct guest_vm *vm = guest_vm_new(&opts);

	if (vm == NULL)
		return;
	says(text, "machine: holds: user; stands still\n");
	says(text, "vcpus: no guest was ever started\n");
	free(text);
	guest_vm_wait(vm, "guest: ok");
	guest_vm_free(vm);
}

/* A bus that does not answer, and does not let the vCPU go. */
struct stuck {
	_Atomic bool is_free;
	_Atomic uint32_t calls;
};

static enum hv_status post_message(void *context, uint32_t connection_id, uint32_t type,
				   const uint8_t *payload, uint32_t size_bytes)
{
	struct stuck *stuck = context;

	(void)connection_id;
	(void)type;
	(void)payload;
	(void)size_bytes;
	atomic_fetch_add(&stuck->calls, 1);
	while (!atomic_load(&stuck->is_free))
		base_sleep_ns(BASE_NS_PER_MS);
	return HV_STATUS_INSUFFICIENT_BUFFERS; /* try again */
}

static enum hv_status signal_event(void *context, uint32_t connection_id, uint16_t flag)
{
	(void)context;
	(void)connection_id;
	(void)flag;
	return HV_STATUS_SUCCESS;
}

static const struct hv_hypercall_ops stuck_ops = {
	.post_message = post_message,
	.signal_event = signal_event,
};

static void add_stuck(struct hv_machine *machine, void *context)
{
	hv_machine_set_hypercalls(machine, &stuck_ops, context);
}

static void until_calls(struct stuck *stuck, uint32_t least)
{
	for (int i = 0; atomic_load(&stuck->calls) < least && i < 180000; i++)
		base_sleep_ns(BASE_NS_PER_MS);
	cr_assert_geq(atomic_load(&stuck->calls), least);
}

/* The others are shown; and who was stuck goes on although it never parked. */
Test(machine_dump, a_vcpu_is_stuck_in_the_worker, .timeout = 400)
{
	struct stuck stuck = { .is_free = false };
	struct guest_vm_opts opts = { .vcpus = 2,
				      .cmdline = "ws=16M rate=1000 report=0 hv=on",
				      .prepare = add_stuck,
				      .prepare_context = &stuck };
	struct guest_vm *vm = guest_vm_new(&opts);
	const char *second;
	char *text;

	if (vm == NULL)
		return;
	until_calls(&stuck, 1);
	text = dump(vm, NULL, NULL);
	says(text, "last-exit=port (2)\n  STUCK: ");
	second = strstr(text, "\nvcpu 1: ");
	cr_assert_not_null(second);
	says(second, "  state: ");
	says(second, "    sint2: vector=80 masked=0 ");
	cr_assert_null(strstr(second, "STUCK"), "%s", text);
	free(text);
	cr_assert_eq(holds(vm), 0);
	atomic_store(&stuck.is_free, true);
	until_calls(&stuck, 10);
	guest_vm_free(vm);
}
