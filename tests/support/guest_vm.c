/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/support/guest_vm.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/crc32c.h"
#include "hypervisor/host_probe.h"

#define WAIT_NS       (180 * BASE_NS_PER_SECOND) /* a stuck guest, not a slow one */
#define CONSOLE_BYTES (1U << 20)

struct guest_vm {
	struct hv_machine *machine;
	struct hv_machine_fds fds;
	pthread_mutex_t lock;
	char console[CONSOLE_BYTES];
	size_t console_bytes;
	enum hv_machine_event event;
	char event_text[256];
	uint64_t command_count;
	atomic_bool is_shut;
};

static _Noreturn void give_up(struct guest_vm *vm, const char *what)
{
	printf("guest_vm: %s\n", what);
	if (vm != NULL)
		printf("--- console ---\n%s\n--- event %d: %s ---\n", vm->console, (int)vm->event,
		       vm->event_text);
	(void)fflush(stdout);
	abort();
}

static void on_event(void *context, enum hv_machine_event event, const char *text)
{
	struct guest_vm *vm = context;
	BASE_LOCKED(&vm->lock);

	vm->event = event;
	(void)snprintf(vm->event_text, sizeof(vm->event_text), "%s", text);
}

static void on_console(void *context, const uint8_t *bytes, size_t size_bytes)
{
	struct guest_vm *vm = context;
	BASE_LOCKED(&vm->lock);

	if (size_bytes >= CONSOLE_BYTES - vm->console_bytes)
		return;
	memcpy(vm->console + vm->console_bytes, bytes, size_bytes);
	vm->console_bytes += size_bytes;
	vm->console[vm->console_bytes] = '\0';
}

static void on_room(void *context)
{
	(void)context;
}

static bool on_may_act(void *context)
{
	struct guest_vm *vm = context;

	return !atomic_load(&vm->is_shut);
}

void guest_vm_set_gate(struct guest_vm *vm, bool is_open)
{
	atomic_store(&vm->is_shut, !is_open);
}

static const struct hv_machine_ops machine_ops = {
	.event = on_event,
	.console_out = on_console,
	.console_room = on_room,
	.may_act = on_may_act,
};

/* Memory page by page, then the rest, in the two steps of a migration. */
static int arrive(struct guest_vm *vm, const struct guest_vm_opts *opts, struct base_error *err)
{
	struct hv_slat *slat = hv_machine_slat(vm->machine);
	int r;

	for (uint64_t page = 0; page < hv_slat_page_count(slat); page++)
		memcpy(hv_slat_arrival_pages(slat, page, 1),
		       opts->arrive_memory + page * HV_PAGE_BYTES, HV_PAGE_BYTES);
	r = hv_machine_arrive(vm->machine, opts->arrive_fd, false, err);
	if (r < 0)
		return r;
	/* It is not ours yet, whatever is released. */
	if (hv_machine_boot(vm->machine, NULL) != -EPROTO ||
	    hv_machine_reset(vm->machine, false, NULL) != -EPROTO)
		give_up(vm, "a VM that has not arrived is booted or reset");
	return hv_machine_arrive_finish(vm->machine, err);
}

/* False: this host cannot take the saved state, and the test can live with that. */
static bool start_guest(struct guest_vm *vm, const struct guest_vm_opts *opts)
{
	struct base_error err = { .code = 0 };
	int r;

	if (opts->arrive_memory != NULL) {
		r = arrive(vm, opts, &err);
	} else if (opts->restore == NULL) {
		r = hv_machine_boot(vm->machine, &err);
	} else {
		int fd = open(opts->restore, O_RDONLY | O_CLOEXEC);

		r = hv_machine_restore(vm->machine, fd, false, &err);
		(void)close(fd);
	}
	if (opts->may_not_fit && (r == -ENOTSUP || r == -ERANGE)) {
		printf("SKIP %s\n", err.text);
		(void)fflush(stdout);
		return false;
	}
	if (r < 0)
		give_up(vm, err.text);
	if (!opts->paused)
		guest_vm_resume(vm);
	return true;
}

/* GUEST_VM_CPU names a processor model for a host on which `host` does not do. */
static enum hv_cpu_model default_cpu(void)
{
	const char *name = getenv("GUEST_VM_CPU");

	return name != NULL ? hv_cpu_model_parse(name) : HV_CPU_MODEL_HOST;
}

struct guest_vm *guest_vm_new(const struct guest_vm_opts *opts)
{
	struct hv_machine_config config = {
		.name = "test",
		.memory_bytes = opts->memory_bytes != 0 ? opts->memory_bytes : 128ULL << 20,
		.backing = opts->backing != HV_MEMORY_INVALID ? opts->backing : HV_MEMORY_AUTO,
		.vcpu_count = opts->vcpus != 0 ? opts->vcpus : 1,
		.cpu = opts->cpu != HV_CPU_MODEL_INVALID ? opts->cpu : default_cpu(),
		.test_page = true,
		.registers_by_call = opts->registers_by_call,
	};
	const char *path = TEST_BINARY_DIR "/tests/guest/testguest";
	struct base_error err = { .code = 0 };
	struct guest_vm *vm;
	int kvm_fd = hv_kvm_open(HV_KVM_PATH, &err);

	if (kvm_fd < 0) {
		printf("SKIP %s\n", err.text);
		(void)fflush(stdout);
		return NULL;
	}
	vm = calloc(1, sizeof(*vm));
	if (vm == NULL)
		give_up(NULL, "no memory");
	(void)pthread_mutex_init(&vm->lock, NULL);
	(void)snprintf(config.cmdline, sizeof(config.cmdline), "testpage=0x%llx %s",
		       HV_GPA_TEST_PAGE, opts->cmdline != NULL ? opts->cmdline : "");
	vm->fds = (struct hv_machine_fds){
		.kvm_fd = kvm_fd,
		.kernel_fd = open(path, O_RDONLY | O_CLOEXEC),
		.initrd_fd = -1,
		.kernel_name = path,
	};
	if (hv_machine_new(&config, &vm->fds, &machine_ops, vm, &vm->machine, &err) < 0)
		give_up(vm, err.text);
	if (opts->prepare != NULL)
		opts->prepare(vm->machine, opts->prepare_context);
	if (!start_guest(vm, opts)) {
		guest_vm_free(vm);
		return NULL;
	}
	/* A restored page carries the commands of before. */
	vm->command_count = guest_vm_get(vm, TESTPAGE_COMMAND) >> 8;
	return vm;
}

void guest_vm_free(struct guest_vm *vm)
{
	if (vm == NULL)
		return;
	hv_machine_free(vm->machine);
	(void)close(vm->fds.kvm_fd);
	(void)close(vm->fds.kernel_fd);
	(void)pthread_mutex_destroy(&vm->lock);
	free(vm);
}

bool guest_vm_said(struct guest_vm *vm, const char *text)
{
	BASE_LOCKED(&vm->lock);

	return strstr(vm->console, text) != NULL;
}

void guest_vm_forget(struct guest_vm *vm)
{
	BASE_LOCKED(&vm->lock);

	vm->console_bytes = 0;
	vm->console[0] = '\0';
}

/* No use in waiting on: time is up, or the guest has met its end. */
static bool is_over(struct guest_vm *vm, uint64_t end_ns)
{
	return base_clock_boot_ns(&base_clock_system) > end_ns || vm->event == HV_EVENT_CRASHED ||
	       guest_vm_said(vm, "guest: FATAL");
}

void guest_vm_wait(struct guest_vm *vm, const char *text)
{
	uint64_t end_ns = base_clock_boot_ns(&base_clock_system) + WAIT_NS;
	char what[128];

	while (!guest_vm_said(vm, text)) {
		if (is_over(vm, end_ns)) {
			(void)snprintf(what, sizeof(what), "waited for '%s'", text);
			give_up(vm, what);
		}
		base_sleep_ns(BASE_NS_PER_MS);
	}
}

uint64_t guest_vm_get(struct guest_vm *vm, uint32_t offset)
{
	struct base_error err = { .code = 0 };
	uint64_t value;

	if (hv_machine_test_get(vm->machine, offset / 8, &value, &err) < 0)
		give_up(vm, err.text);
	return value;
}

void guest_vm_set(struct guest_vm *vm, uint32_t offset, uint64_t value)
{
	struct base_error err = { .code = 0 };

	if (hv_machine_test_set(vm->machine, offset / 8, value, &err) < 0)
		give_up(vm, err.text);
}

void guest_vm_post(struct guest_vm *vm, enum testpage_opcode opcode, uint64_t arg0, uint64_t arg1,
		   uint64_t arg2)
{
	guest_vm_set(vm, TESTPAGE_ARG0, arg0);
	guest_vm_set(vm, TESTPAGE_ARG1, arg1);
	guest_vm_set(vm, TESTPAGE_ARG2, arg2);
	vm->command_count++;
	guest_vm_set(vm, TESTPAGE_COMMAND, vm->command_count << 8 | (uint64_t)opcode);
}

uint64_t guest_vm_result(struct guest_vm *vm)
{
	uint64_t end_ns = base_clock_boot_ns(&base_clock_system) + WAIT_NS;
	uint64_t command = guest_vm_get(vm, TESTPAGE_COMMAND);
	char what[64];

	while (guest_vm_get(vm, TESTPAGE_ACK) != command) {
		if (is_over(vm, end_ns)) {
			(void)snprintf(what, sizeof(what), "waited for command 0x%" PRIx64,
				       command);
			give_up(vm, what);
		}
		base_sleep_ns(BASE_NS_PER_MS);
	}
	return guest_vm_get(vm, TESTPAGE_RESULT);
}

uint64_t guest_vm_command(struct guest_vm *vm, enum testpage_opcode opcode, uint64_t arg0,
			  uint64_t arg1, uint64_t arg2)
{
	guest_vm_post(vm, opcode, arg0, arg1, arg2);
	return guest_vm_result(vm);
}

uint64_t guest_vm_region_page(struct guest_vm *vm, uint64_t number)
{
	uint64_t count = guest_vm_get(vm, TESTPAGE_EXTENTS);
	uint64_t ram_offset;

	for (uint32_t i = 0; i < count && i < TESTPAGE_EXTENTS_MAX; i++) {
		uint64_t pages = guest_vm_get(vm, TESTPAGE_EXTENT_PAGES(i));

		if (number >= pages) {
			number -= pages;
			continue;
		}
		if (hv_memory_translate(hv_slat_memory(hv_machine_slat(vm->machine)),
					guest_vm_get(vm, TESTPAGE_EXTENT_GPA(i)) +
						number * HV_PAGE_BYTES,
					HV_PAGE_BYTES, &ram_offset) < 0)
			break;
		return ram_offset >> HV_PAGE_SHIFT;
	}
	give_up(vm, "page outside the guest's region");
}

void guest_vm_pause(struct guest_vm *vm)
{
	struct base_error err = { .code = 0 };

	if (hv_machine_hold(vm->machine, HV_HOLD_USER, &err) < 0)
		give_up(vm, err.text);
}

void guest_vm_resume(struct guest_vm *vm)
{
	struct base_error err = { .code = 0 };

	if (hv_machine_release(vm->machine, HV_HOLD_USER, &err) < 0)
		give_up(vm, err.text);
}

static enum hv_machine_event take_event(struct guest_vm *vm)
{
	BASE_LOCKED(&vm->lock);
	enum hv_machine_event event = vm->event;

	vm->event = HV_EVENT_INVALID;
	return event;
}

void guest_vm_wait_event(struct guest_vm *vm, enum hv_machine_event event)
{
	uint64_t end_ns = base_clock_boot_ns(&base_clock_system) + WAIT_NS;
	enum hv_machine_event seen = take_event(vm);

	while (seen == HV_EVENT_INVALID) {
		if (base_clock_boot_ns(&base_clock_system) > end_ns)
			give_up(vm, "waited for an event");
		base_sleep_ns(BASE_NS_PER_MS);
		seen = take_event(vm);
	}
	if (seen != event)
		give_up(vm, "another event came");
}

struct hv_machine *guest_vm_machine(struct guest_vm *vm)
{
	return vm->machine;
}

uint32_t guest_vm_ram_crc(struct guest_vm *vm)
{
	struct hv_slat *slat = hv_machine_slat(vm->machine);
	uint64_t pages = hv_slat_page_count(slat);

	return base_crc32c(0, hv_slat_pages(slat, 0, pages), pages * HV_PAGE_BYTES);
}
