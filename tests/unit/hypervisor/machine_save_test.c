/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Save and restore of a running machine.  What must never happen: a page, a register, a
 * device access that is lost or done twice.
 */
#include <criterion/criterion.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "hypervisor/machine_sections.h"
#include "hypervisor/state_file.h"
#include "hypervisor/test_page.h"
#include "tests/support/guest_vm.h"

/* A folder of this test's own, gone at the end. */
struct folder {
	char path[64];
	char file[96];
	int fd;
};

static struct folder folder_new(void)
{
	struct folder folder = { .path = "/tmp/godwit-save-XXXXXX" };

	cr_assert_not_null(mkdtemp(folder.path));
	folder.fd = open(folder.path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	cr_assert_geq(folder.fd, 0);
	(void)snprintf(folder.file, sizeof(folder.file), "%s/vm.state", folder.path);
	return folder;
}

static void folder_free(struct folder *folder)
{
	(void)unlinkat(folder->fd, "vm.state", 0);
	(void)close(folder->fd);
	cr_assert_eq(rmdir(folder->path), 0, "a temporary file was left in %s", folder->path);
}

static void save(struct guest_vm *vm, struct folder *folder, bool go_on)
{
	struct base_error err = { .code = 0 };
	struct hv_save_report report;

	cr_assert_eq(
		hv_machine_save(guest_vm_machine(vm), folder->fd, "vm.state", go_on, &report, &err),
		0, "%s", err.text);
	cr_assert_eq(report.ram.zero_page_count + report.ram.raw_page_count +
			     report.ram.lz4_page_count,
		     report.ram.page_count);
}

static void read_time(const struct folder *folder, struct hv_time_section *ret_time)
{
	struct hv_state_reader *reader = NULL;
	const struct hv_state_section *section;
	struct base_reader in;
	uint8_t *payload = NULL;
	int fd = open(folder->file, O_RDONLY | O_CLOEXEC);

	cr_assert_eq(hv_state_reader_open(fd, &reader, NULL), 0);
	section = hv_state_find(reader, "time", 0);
	cr_assert_not_null(section);
	cr_assert_eq(hv_state_get(reader, section, &payload, NULL), 0);
	in = base_reader_over(payload, section->payload_bytes);
	cr_assert_eq(hv_time_section_decode(&in, section->version, ret_time, NULL), 0);
	free(payload);
	hv_state_reader_free(reader);
	(void)close(fd);
}

static void goes_on(uint32_t vcpus, const char *cmdline, int rounds)
{
	struct guest_vm_opts opts = { .vcpus = vcpus, .cmdline = cmdline };
	struct folder folder = folder_new();
	struct guest_vm *vm = guest_vm_new(&opts);

	for (int i = 0; i < rounds && vm != NULL; i++) {
		struct guest_vm_opts again = opts;
		uint64_t ticks;
		uint32_t crc;

		guest_vm_wait(vm, "guest: ok");
		save(vm, &folder, false);
		crc = guest_vm_ram_crc(vm);
		ticks = guest_vm_get(vm, TESTPAGE_TICKS);
		guest_vm_free(vm);
		again.restore = folder.file;
		again.paused = true;
		vm = guest_vm_new(&again);
		cr_assert_eq(guest_vm_ram_crc(vm), crc, "memory differs after restore");
		guest_vm_resume(vm);
		guest_vm_wait(vm, "guest: ok");
		cr_assert_eq(guest_vm_command(vm, TESTPAGE_VERIFY_ALL, 0, 0, 0), 0);
		cr_assert_gt(guest_vm_get(vm, TESTPAGE_TICKS), ticks, "the timer stands still");
		cr_assert_eq(guest_vm_get(vm, TESTPAGE_BAD), 0);
		cr_assert_not(guest_vm_said(vm, "BAD"));
	}
	guest_vm_free(vm);
	folder_free(&folder);
}

Test(machine_save, one_vcpu_random_pages, .timeout = 400)
{
	goes_on(1, "ws=48M content=random rate=0 report=200", 3);
}

Test(machine_save, two_vcpus_text_pages, .timeout = 400)
{
	goes_on(2, "ws=48M content=text rate=20000 report=200", 3);
}

Test(machine_save, four_vcpus, .timeout = 400)
{
	goes_on(4, "ws=32M content=random rate=5000 report=200", 2);
}

Test(machine_save, idle_guest_in_halt, .timeout = 400)
{
	goes_on(2, "ws=16M rate=100 idle=halt report=200", 3);
}

/*
 * Saves and pauses while every vCPU does nothing but exits: each access exactly once.
 */
static void exits_once(uint64_t port)
{
	struct guest_vm_opts opts = { .vcpus = 2, .cmdline = "ws=16M report=0" };
	struct folder folder = folder_new();
	struct guest_vm *vm = guest_vm_new(&opts);
	uint64_t mismatches = 1;

	if (vm == NULL) {
		folder_free(&folder);
		return;
	}
	guest_vm_wait(vm, "guest: ready");
	opts.restore = folder.file;
	guest_vm_post(vm, TESTPAGE_EXIT_LOOP, 20000, port == 0, port);
	for (uint64_t delay_ms = 1; delay_ms < 36; delay_ms += 3) {
		base_sleep_ns(delay_ms * BASE_NS_PER_MS);
		save(vm, &folder, false);
		guest_vm_free(vm);
		vm = guest_vm_new(&opts);
	}
	cr_assert_eq(guest_vm_result(vm), 0, "the guest saw reads out of sequence");
	cr_assert_eq(hv_machine_test_mismatches(guest_vm_machine(vm), &mismatches, NULL), 0);
	cr_assert_eq(mismatches, 0, "%llu writes lost or done twice",
		     (unsigned long long)mismatches);
	guest_vm_free(vm);
	folder_free(&folder);
}

Test(machine_save, every_access_happens_once, .timeout = 400)
{
	exits_once(0);
}

Test(machine_save, every_port_access_happens_once, .timeout = 400)
{
	exits_once(HV_TEST_PAGE_PORT);
}

/* Saved and left, it belongs to the file: nothing runs it here again. */
Test(machine_save, a_saved_vm_has_stopped, .timeout = 400)
{
	struct guest_vm_opts opts = { .cmdline = "ws=16M rate=1000 report=100" };
	struct folder folder = folder_new();
	struct guest_vm *vm = guest_vm_new(&opts);

	if (vm != NULL) {
		guest_vm_wait(vm, "guest: ok");
		save(vm, &folder, false);
		cr_assert_eq(hv_machine_release(guest_vm_machine(vm), HV_HOLD_USER, NULL), -EPROTO);
		cr_assert_eq(hv_machine_reset(guest_vm_machine(vm), false, NULL), -EPROTO);
	}
	guest_vm_free(vm);
	folder_free(&folder);
}

/* With the leash's gate shut no state is written, and the VM goes on when it opens. */
Test(machine_save, a_shut_gate_writes_nothing, .timeout = 400)
{
	struct guest_vm_opts opts = { .cmdline = "ws=16M rate=1000 report=100" };
	struct folder folder = folder_new();
	struct guest_vm *vm = guest_vm_new(&opts);
	struct hv_save_report report;

	if (vm != NULL) {
		guest_vm_wait(vm, "guest: ok");
		guest_vm_set_gate(vm, false);
		cr_assert_eq(hv_machine_save(guest_vm_machine(vm), folder.fd, "vm.state", false,
					     &report, NULL),
			     -EAGAIN);
		cr_assert_lt(access(folder.file, F_OK), 0);
		guest_vm_set_gate(vm, true);
		guest_vm_forget(vm);
		guest_vm_wait(vm, "guest: ok");
	}
	guest_vm_free(vm);
	folder_free(&folder);
}

static void check_tscs_equal(const struct folder *folder)
{
	struct hv_time_section time;

	read_time(folder, &time);
	for (uint32_t i = 1; i < time.vcpu_count; i++)
		cr_assert_eq(time.tsc[i], time.tsc[0], "vcpu %u is %lld ticks off", i,
			     (long long)(time.tsc[i] - time.tsc[0]));
}

/*
 * All vCPUs' TSCs in the file belong to one instant: equal here, where nobody set them apart, and
 * still so when the restored VM is saved again.
 */
Test(machine_save, tscs_of_one_instant, .timeout = 400)
{
	struct guest_vm_opts opts = { .vcpus = 4, .cmdline = "ws=16M rate=1000 report=100" };
	struct folder folder = folder_new();
	struct guest_vm *vm = guest_vm_new(&opts);

	opts.restore = folder.file;
	for (int i = 0; i < 2 && vm != NULL; i++) {
		uint64_t reference;

		guest_vm_wait(vm, "guest: ok");
		reference = hv_machine_reference_time(guest_vm_machine(vm));
		cr_assert_gt(reference, 0);
		save(vm, &folder, false);
		check_tscs_equal(&folder);
		guest_vm_free(vm);
		vm = guest_vm_new(&opts);
		cr_assert_geq(hv_machine_reference_time(guest_vm_machine(vm)), reference);
		guest_vm_wait(vm, "guest: ok");
		cr_assert_eq(guest_vm_get(vm, TESTPAGE_BAD), 0);
	}
	guest_vm_free(vm);
	folder_free(&folder);
}

/* A save that goes on, and one that fails, leave the guest running. */
Test(machine_save, goes_on_after_success_and_failure, .timeout = 400)
{
	struct guest_vm_opts opts = { .cmdline = "ws=16M rate=1000 report=100" };
	struct folder folder = folder_new();
	struct guest_vm *vm = guest_vm_new(&opts);
	struct base_error err = { .code = 0 };
	struct hv_save_report report;
	int closed = dup(folder.fd);

	if (vm != NULL) {
		guest_vm_wait(vm, "guest: ok");
		save(vm, &folder, true);
		guest_vm_forget(vm);
		guest_vm_wait(vm, "guest: ok");
		(void)close(closed);
		cr_assert_lt(hv_machine_save(guest_vm_machine(vm), closed, "vm.state", false,
					     &report, &err),
			     0);
		cr_assert_neq(err.text[0], '\0');
		guest_vm_forget(vm);
		guest_vm_wait(vm, "guest: ok");
		cr_assert_eq(guest_vm_get(vm, TESTPAGE_BAD), 0);
	}
	guest_vm_free(vm);
	folder_free(&folder);
}

/* The state of a VM that stands still, and its memory, as a migration's last round finds them. */
struct moved {
	int fd;
	uint8_t *memory;
};

static struct moved move_out(struct guest_vm *vm)
{
	struct hv_machine *machine = guest_vm_machine(vm);
	struct hv_slat *slat = hv_machine_slat(machine);
	size_t bytes = (size_t)hv_slat_page_count(slat) * HV_PAGE_BYTES;
	struct moved moved = { .fd = memfd_create("state", MFD_CLOEXEC), .memory = malloc(bytes) };
	struct base_error err = { .code = 0 };

	cr_assert_eq(hv_machine_state_save(machine, moved.fd, NULL), -EPROTO, "it runs");
	cr_assert_eq(hv_machine_hold(machine, HV_HOLD_MIGRATE, &err), 0, "%s", err.text);
	cr_assert_eq(hv_machine_state_save(machine, moved.fd, NULL), -EPROTO, "only held");
	cr_assert_eq(hv_machine_quiesce(machine, HV_HOLD_MIGRATE, &err), 0, "%s", err.text);
	cr_assert_eq(hv_machine_state_save(machine, moved.fd, &err), 0, "%s", err.text);
	memcpy(moved.memory, hv_slat_pages(slat, 0, hv_slat_page_count(slat)), bytes);
	return moved;
}

static void moved_free(struct moved *moved)
{
	(void)close(moved->fd);
	free(moved->memory);
}

/* What a move needs of both machines, in one process: there, and on. */
Test(machine_save, arrives_and_goes_on, .timeout = 400)
{
	struct guest_vm_opts opts = { .vcpus = 2,
				      .cmdline = "ws=32M content=random rate=5000 report=200" };
	struct guest_vm *vm = guest_vm_new(&opts);

	for (int i = 0; i < 2 && vm != NULL; i++) {
		struct guest_vm_opts again = opts;
		struct moved moved;
		uint64_t ticks;

		guest_vm_wait(vm, "guest: ok");
		moved = move_out(vm);
		ticks = guest_vm_get(vm, TESTPAGE_TICKS);
		guest_vm_free(vm);
		again.arrive_fd = moved.fd;
		again.arrive_memory = moved.memory;
		vm = guest_vm_new(&again);
		guest_vm_wait(vm, "guest: ok");
		cr_assert_eq(guest_vm_command(vm, TESTPAGE_VERIFY_ALL, 0, 0, 0), 0);
		cr_assert_gt(guest_vm_get(vm, TESTPAGE_TICKS), ticks, "the timer stands still");
		cr_assert_eq(guest_vm_get(vm, TESTPAGE_BAD), 0);
		cr_assert_not(guest_vm_said(vm, "BAD"));
		moved_free(&moved);
	}
	guest_vm_free(vm);
}

/* The state was taken, and the VM stays after all. */
Test(machine_save, a_state_that_was_taken_changes_nothing, .timeout = 400)
{
	struct guest_vm_opts opts = { .cmdline = "ws=16M rate=1000 report=100" };
	struct guest_vm *vm = guest_vm_new(&opts);
	struct moved moved;

	if (vm != NULL) {
		guest_vm_wait(vm, "guest: ok");
		moved = move_out(vm);
		cr_assert_eq(hv_machine_unquiesce(guest_vm_machine(vm), HV_HOLD_MIGRATE, NULL), 0);
		guest_vm_forget(vm);
		guest_vm_wait(vm, "guest: ok");
		cr_assert_eq(guest_vm_get(vm, TESTPAGE_BAD), 0);
		moved_free(&moved);
	}
	guest_vm_free(vm);
}

/* Memory comes one way only: a saved state is no state of a move, nor the other way round. */
struct wrong_files {
	int whole_fd;
	int state_fd;
};

static void try_wrong_files(struct hv_machine *machine, void *context)
{
	const struct wrong_files *files = context;
	struct base_error err = { .code = 0 };

	cr_assert_eq(hv_machine_arrive_finish(machine, NULL), -EPROTO, "nothing has arrived");
	cr_assert_eq(hv_machine_arrive(machine, files->whole_fd, false, &err), -EBADMSG, "%s",
		     err.text);
	cr_assert_not_null(strstr(err.text, "'ram'"), "%s", err.text);
	cr_assert_eq(hv_machine_restore(machine, files->state_fd, false, &err), -EBADMSG, "%s",
		     err.text);
	cr_assert_not_null(strstr(err.text, "RAM page 0"), "%s", err.text);
	cr_assert_eq(hv_machine_arrive_finish(machine, NULL), -EPROTO, "nothing has arrived");
}

Test(machine_save, neither_is_taken_for_the_other, .timeout = 400)
{
	struct guest_vm_opts opts = { .cmdline = "ws=16M rate=1000 report=100" };
	struct folder folder = folder_new();
	struct guest_vm *vm = guest_vm_new(&opts);
	struct wrong_files files = { .state_fd = -1 };
	struct moved moved;

	if (vm != NULL) {
		guest_vm_wait(vm, "guest: ok");
		save(vm, &folder, true);
		moved = move_out(vm);
		cr_assert_eq(hv_machine_arrive(guest_vm_machine(vm), moved.fd, false, NULL),
			     -EPROTO, "it has a guest");
		guest_vm_free(vm);
		files.state_fd = moved.fd;
		files.whole_fd = open(folder.file, O_RDONLY | O_CLOEXEC);
		opts.prepare = try_wrong_files;
		opts.prepare_context = &files;
		opts.paused = true;
		vm = guest_vm_new(&opts);
		(void)close(files.whole_fd);
		moved_free(&moved);
	}
	guest_vm_free(vm);
	folder_free(&folder);
}
