/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What a service is told of the machine's life, and in which order.
 */
#include <criterion/criterion.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/bytes.h"
#include "tests/support/guest_vm.h"

#define CMDLINE "ws=16M rate=1000 report=100"

/* Two services that write down what they are told: "Aq" is quiesce of A. */
struct fake {
	char name;
	struct trace *trace;
	bool refuses;
	uint32_t value;
};
struct trace {
	char text[256];
	struct fake a;
	struct fake b;
	int load_result;
};

static void note(struct fake *fake, char what)
{
	size_t at = strlen(fake->trace->text);

	cr_assert_lt(at + 3, sizeof(fake->trace->text));
	fake->trace->text[at] = fake->name;
	fake->trace->text[at + 1] = what;
	fake->trace->text[at + 2] = '\0';
}

static int fake_quiesce(void *service, struct base_error *err)
{
	struct fake *fake = service;

	if (fake->refuses)
		return base_fail(err, -EAGAIN, "fake %c cannot now", fake->name);
	note(fake, 'q');
	return 0;
}

static void fake_resume(void *service)
{
	note(service, 'r');
}

static int fake_reset(void *service, struct base_error *err)
{
	(void)err;
	note(service, '0');
	return 0;
}

static uint32_t fake_section_count(void *service)
{
	(void)service;
	return 1;
}

static struct hv_service_section fake_section(void *service, uint32_t index)
{
	struct fake *fake = service;

	cr_assert_eq(index, 0);
	return (struct hv_service_section){ "fake", fake->name == 'A' ? 0 : 1, 3 };
}

static int fake_save(void *service, uint32_t index, struct base_buffer *out, struct base_error *err)
{
	struct fake *fake = service;

	(void)index;
	(void)err;
	note(fake, 's');
	base_buffer_le32(out, fake->value);
	return 0;
}

static int fake_load(void *service, uint32_t index, uint32_t version, struct base_reader *in,
		     struct base_error *err)
{
	struct fake *fake = service;

	cr_assert_eq(index, 0);
	cr_assert_eq(version, 3);
	note(fake, 'l');
	fake->value = base_read_le32(in);
	return in->failed ? base_fail(err, -EBADMSG, "truncated") : 0;
}

static int fake_loaded(void *service, struct base_error *err)
{
	(void)err;
	note(service, 'd');
	return 0;
}

static const struct hv_service_ops fake_ops = {
	.quiesce = fake_quiesce,
	.resume = fake_resume,
	.reset = fake_reset,
	.section_count = fake_section_count,
	.section = fake_section,
	.save = fake_save,
	.load = fake_load,
	.loaded = fake_loaded,
};

static int on_load(void *context, struct base_error *err)
{
	struct trace *trace = context;

	(void)err;
	(void)strncat(trace->text, "K.", sizeof(trace->text) - strlen(trace->text) - 1);
	return trace->load_result;
}

static void prepare(struct hv_machine *machine, void *context)
{
	struct trace *trace = context;

	trace->a = (struct fake){ .name = 'A', .trace = trace, .value = trace->a.value };
	trace->b = (struct fake){ .name = 'B', .trace = trace, .value = trace->b.value };
	cr_assert_eq(hv_machine_add_service(machine, &fake_ops, &trace->a, NULL), 0);
	cr_assert_eq(hv_machine_add_service(machine, &fake_ops, &trace->b, NULL), 0);
	hv_machine_on_load(machine, on_load, trace);
}

static void prepare_nothing(struct hv_machine *machine, void *context)
{
	(void)machine;
	(void)context;
}

static void expect(struct trace *trace, const char *text)
{
	cr_assert_str_eq(trace->text, text);
	trace->text[0] = '\0';
}

struct folder {
	char path[64];
	char file[96];
	int fd;
};

static struct folder folder_new(void)
{
	struct folder folder = { .path = "/tmp/godwit-service-XXXXXX" };

	cr_assert_not_null(mkdtemp(folder.path));
	folder.fd = open(folder.path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	(void)snprintf(folder.file, sizeof(folder.file), "%s/vm.state", folder.path);
	return folder;
}

static void folder_free(struct folder *folder)
{
	(void)unlinkat(folder->fd, "vm.state", 0);
	(void)close(folder->fd);
	cr_assert_eq(rmdir(folder->path), 0);
}

static int save(struct guest_vm *vm, const struct folder *folder, bool go_on)
{
	struct hv_save_report report;

	return hv_machine_save(guest_vm_machine(vm), folder->fd, "vm.state", go_on, &report, NULL);
}

Test(machine_services, saved_and_restored_in_order, .timeout = 200)
{
	struct trace trace = { .a.value = 0xA1, .b.value = 0xB2 };
	struct guest_vm_opts opts = { .cmdline = CMDLINE,
				      .prepare = prepare,
				      .prepare_context = &trace };
	struct folder folder = folder_new();
	struct guest_vm *vm = guest_vm_new(&opts);

	if (vm != NULL) {
		expect(&trace, "K.");
		guest_vm_wait(vm, "guest: ok");
		cr_assert_eq(save(vm, &folder, true), 0);
		expect(&trace, "AqBqAsBsBrAr");
		cr_assert_eq(save(vm, &folder, false), 0);
		expect(&trace, "AqBqAsBs"); /* it belongs to the file: nothing goes on */
		guest_vm_free(vm);
		expect(&trace, ""); /* quiet already */
		trace.a.value = trace.b.value = 0;
		opts.restore = folder.file;
		vm = guest_vm_new(&opts);
		expect(&trace, "AqBqAlBlAdBdBrAr");
		cr_assert_eq(trace.a.value, 0xA1);
		cr_assert_eq(trace.b.value, 0xB2);
		guest_vm_wait(vm, "guest: ok");
	}
	guest_vm_free(vm);
	folder_free(&folder);
}

/* A guest that never saw the services leaves them as they are; one that did wants them. */
Test(machine_services, sections_none_or_all, .timeout = 200)
{
	struct trace trace = { .a.value = 1 };
	struct guest_vm_opts with = { .cmdline = CMDLINE,
				      .prepare = prepare,
				      .prepare_context = &trace };
	struct guest_vm_opts without = { .cmdline = CMDLINE, .prepare = prepare_nothing };
	struct folder folder = folder_new();
	struct guest_vm *vm = guest_vm_new(&without);

	if (vm != NULL) {
		guest_vm_wait(vm, "guest: ok");
		cr_assert_eq(save(vm, &folder, false), 0);
		guest_vm_free(vm);
		with.restore = folder.file;
		vm = guest_vm_new(&with);
		expect(&trace, "AqBqBrAr");
		cr_assert_eq(save(vm, &folder, false), 0);
		guest_vm_free(vm);
		without.restore = folder.file;
		without.may_not_fit = true;
		vm = guest_vm_new(&without);
		cr_assert_null(vm, "sections of services that are not there were taken");
	}
	guest_vm_free(vm);
	folder_free(&folder);
}

Test(machine_services, one_that_cannot_be_quiet_stops_a_save, .timeout = 200)
{
	struct trace trace = { .a.value = 1 };
	struct guest_vm_opts opts = { .cmdline = CMDLINE,
				      .prepare = prepare,
				      .prepare_context = &trace };
	struct folder folder = folder_new();
	struct guest_vm *vm = guest_vm_new(&opts);
	struct hv_machine_status status;

	if (vm != NULL) {
		guest_vm_wait(vm, "guest: ok");
		expect(&trace, "K.");
		trace.b.refuses = true;
		cr_assert_eq(save(vm, &folder, false), -EAGAIN);
		expect(&trace, "AqAr");
		cr_assert_lt(access(folder.file, F_OK), 0);
		cr_assert_eq(hv_machine_quiesce(guest_vm_machine(vm), HV_HOLD_USER, NULL), -EAGAIN);
		expect(&trace, "AqAr");
		guest_vm_forget(vm);
		guest_vm_wait(vm, "guest: ok");
		cr_assert_eq(hv_machine_hold(guest_vm_machine(vm), HV_HOLD_USER, NULL), 0);
		cr_assert_eq(hv_machine_quiesce(guest_vm_machine(vm), HV_HOLD_USER, NULL), -EAGAIN);
		expect(&trace, "AqAr");
		hv_machine_status(guest_vm_machine(vm), &status);
		cr_assert_eq(status.holds, HV_HOLD_USER, "somebody had paused it");
		trace.b.refuses = false;
		cr_assert_eq(hv_machine_quiesce(guest_vm_machine(vm), HV_HOLD_USER, NULL), 0);
		cr_assert_eq(save(vm, &folder, true), 0);
		expect(&trace, "AqBqAsBs"); /* quiet already, and it stays so */
		cr_assert_eq(hv_machine_unquiesce(guest_vm_machine(vm), HV_HOLD_USER, NULL), 0);
		expect(&trace, "BrAr");
		guest_vm_forget(vm);
		guest_vm_wait(vm, "guest: ok");
	}
	guest_vm_free(vm);
	folder_free(&folder);
}

Test(machine_services, reset_with_a_kernel_from_the_source, .timeout = 200)
{
	struct trace trace = { .a.value = 1 };
	struct guest_vm_opts opts = { .cmdline = CMDLINE,
				      .prepare = prepare,
				      .prepare_context = &trace };
	struct guest_vm *vm = guest_vm_new(&opts);

	if (vm != NULL) {
		guest_vm_wait(vm, "guest: ok");
		expect(&trace, "K.");
		guest_vm_forget(vm);
		cr_assert_eq(hv_machine_reset(guest_vm_machine(vm), false, NULL), 0);
		expect(&trace, "AqBqA0B0K.BrAr");
		guest_vm_wait(vm, "guest: ok");
		trace.load_result = -ENOENT;
		cr_assert_eq(hv_machine_reset(guest_vm_machine(vm), false, NULL), -ENOENT);
		expect(&trace, "AqBqA0B0K.");
	}
	guest_vm_free(vm);
}

Test(machine_services, limits, .timeout = 200)
{
	struct trace trace = { .a.value = 1 };
	struct guest_vm_opts opts = {
		.cmdline = CMDLINE, .prepare = prepare, .prepare_context = &trace, .paused = true
	};
	struct guest_vm *vm = guest_vm_new(&opts);

	if (vm != NULL)
		cr_assert_eq(
			hv_machine_add_service(guest_vm_machine(vm), &fake_ops, &trace.a, NULL),
			-EPROTO);
	guest_vm_free(vm);
}

/* What a service writes to and signals goes with the machine: no service may run on, also not
 * behind one that cannot finish, and none that was quiet goes on. */
Test(machine_services, quiet_when_the_machine_goes, .timeout = 200)
{
	struct trace trace = { .a.value = 1 };
	struct guest_vm_opts opts = { .cmdline = CMDLINE,
				      .prepare = prepare,
				      .prepare_context = &trace };
	struct guest_vm *vm = guest_vm_new(&opts);

	if (vm == NULL)
		return;
	guest_vm_wait(vm, "guest: ok");
	expect(&trace, "K.");
	guest_vm_free(vm);
	expect(&trace, "AqBq");
	vm = guest_vm_new(&opts);
	cr_assert_not_null(vm);
	expect(&trace, "K.");
	trace.a.refuses = true;
	guest_vm_free(vm);
	expect(&trace, "Bq");
	vm = guest_vm_new(&opts);
	cr_assert_not_null(vm);
	expect(&trace, "K.");
	trace.b.refuses = true;
	guest_vm_free(vm);
	expect(&trace, "Aq");
}

/* Who has powered off still has requests under way at its devices: they are finished as well. */
Test(machine_services, quiet_after_power_off, .timeout = 200)
{
	struct trace trace = { .a.value = 1 };
	struct guest_vm_opts opts = { .cmdline = CMDLINE " time=100 exit=acpi",
				      .prepare = prepare,
				      .prepare_context = &trace };
	struct guest_vm *vm = guest_vm_new(&opts);

	if (vm == NULL)
		return;
	guest_vm_wait(vm, "guest: end");
	while (hv_machine_hold(guest_vm_machine(vm), HV_HOLD_USER, NULL) == 0)
		(void)!hv_machine_release(guest_vm_machine(vm), HV_HOLD_USER, NULL);
	expect(&trace, "K.");
	cr_assert_eq(hv_machine_quiesce(guest_vm_machine(vm), HV_HOLD_USER, NULL), -EPROTO);
	expect(&trace, "");
	hv_machine_end(guest_vm_machine(vm));
	expect(&trace, "AqBq");
	hv_machine_end(guest_vm_machine(vm));
	guest_vm_free(vm);
	expect(&trace, "");
}
