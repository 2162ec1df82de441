/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Every saved state in tests/golden/ decodes, section by section, for ever.
 */
#include <criterion/criterion.h>
#include <dirent.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "hypervisor/machine_sections.h"
#include "hypervisor/platform.h"
#include "hypervisor/ram_codec.h"
#include "hypervisor/ram_state.h"
#include "hypervisor/state_file.h"
#include "hypervisor/vcpu_state.h"
#include "tests/support/guest_vm.h"

#define FOLDER TEST_SOURCE_DIR "/tests/golden"

struct coverage {
	uint64_t page_count;
	uint64_t end_page;
};

static void decode_vcpu(struct base_reader *in, uint32_t version)
{
	BASE_FREE struct hv_vcpu_state *state = malloc(sizeof(*state));
	struct base_error err = { 0 };

	cr_assert_eq(hv_vcpu_state_decode(in, version, state, &err), 0, "%s", err.text);
}

static void decode_chips(struct base_reader *in, uint32_t version)
{
	struct hv_chip_state state;
	struct base_error err = { 0 };

	cr_assert_eq(hv_chip_state_decode(in, version, &state, &err), 0, "%s", err.text);
}

static void decode_machine(struct base_reader *in, uint32_t version)
{
	struct hv_machine_section section;
	struct base_error err = { 0 };

	cr_assert_eq(hv_machine_section_decode(in, version, &section, &err), 0, "%s", err.text);
}

static void decode_time(struct base_reader *in, uint32_t version)
{
	struct hv_time_section section;
	struct base_error err = { 0 };

	cr_assert_eq(hv_time_section_decode(in, version, &section, &err), 0, "%s", err.text);
}

static void decode_cpuid(struct base_reader *in, uint32_t version)
{
	struct hv_cpuid_table table;
	struct base_error err = { 0 };

	cr_assert_eq(version, 1);
	cr_assert_eq(hv_cpuid_decode(in, &table, &err), 0, "%s", err.text);
}

static void ignore_power_off(void *context)
{
	(void)context;
}

static void ignore_console(void *context, const uint8_t *bytes, size_t size_bytes)
{
	(void)context;
	(void)bytes;
	(void)size_bytes;
}

static void ignore_irq(void *context, uint32_t gsi, int level)
{
	(void)context;
	(void)gsi;
	(void)level;
}

/* A device section goes through the device itself; true when @name is one. */
static bool decode_device(struct base_reader *in, const char *name, uint32_t version)
{
	static const struct hv_platform_ops ops = { .power_off = ignore_power_off,
						    .reset = ignore_power_off,
						    .console_out = ignore_console,
						    .irq = ignore_irq };
	struct hv_guest_time time = { .clock = &base_clock_system };
	struct hv_platform *platform = NULL;
	struct hv_iobus *bus = NULL;
	struct base_error err = { 0 };
	bool is_device = false;

	cr_assert_eq(hv_iobus_new(&bus, &err), 0, "%s", err.text);
	cr_assert_eq(hv_platform_new(bus, &ops, NULL, &time, &platform, &err), 0, "%s", err.text);
	for (size_t i = 0; i < hv_platform_section_count(); i++) {
		if (strcmp(hv_platform_section(i).name, name) != 0)
			continue;
		is_device = true;
		cr_assert_eq(hv_platform_load(platform, i, version, in, &err), 0, "%s", err.text);
	}
	hv_platform_free(platform);
	hv_iobus_free(bus);
	return is_device;
}

static void decode_ram(struct base_reader *in, uint64_t payload_bytes, struct coverage *coverage)
{
	static struct hv_ram_table table;
	struct base_error err = { 0 };

	cr_assert_eq(hv_ram_table_decode(in, payload_bytes, &table, &err), 0, "%s", err.text);
	coverage->page_count += table.page_count;
	if (table.first_page + table.page_count > coverage->end_page)
		coverage->end_page = table.first_page + table.page_count;
}

/* All of memory, as a restore would load it. */
static void restore_ram(const struct hv_state_reader *reader, const struct coverage *coverage)
{
	struct hv_memory *memory = NULL;
	struct hv_slat *slat = NULL;
	struct base_pool *pool = NULL;
	struct base_error err = { 0 };

	cr_assert_eq(
		hv_memory_new(coverage->end_page * HV_PAGE_BYTES, HV_MEMORY_SMALL, &memory, &err),
		0, "%s", err.text);
	cr_assert_eq(hv_slat_new(memory, -1, &slat, &err), 0, "%s", err.text);
	cr_assert_eq(base_pool_new(1, "golden", &pool, &err), 0, "%s", err.text);
	cr_assert_eq(hv_ram_restore(slat, pool, reader, NULL, &err), 0, "%s", err.text);
	base_pool_free(pool);
	hv_slat_free(slat);
	hv_memory_free(memory);
}

static void check_file(int fd, const char *name)
{
	struct hv_state_reader *reader = NULL;
	struct coverage coverage = { 0 };
	struct base_error err = { 0 };

	cr_assert_eq(hv_state_reader_open(fd, &reader, &err), 0, "%s: %s", name, err.text);
	for (uint64_t i = 0; i < hv_state_section_count(reader); i++) {
		const struct hv_state_section *section = hv_state_section_at(reader, i);
		BASE_FREE uint8_t *payload = NULL;
		struct base_reader in;

		cr_assert_eq(hv_state_get(reader, section, &payload, &err), 0, "%s: %s", name,
			     err.text);
		in = base_reader_over(payload, section->payload_bytes);
		if (strcmp(section->name, "vcpu") == 0)
			decode_vcpu(&in, section->version);
		else if (strcmp(section->name, "chips") == 0)
			decode_chips(&in, section->version);
		else if (strcmp(section->name, "ram") == 0)
			decode_ram(&in, section->payload_bytes, &coverage);
		else if (strcmp(section->name, "machine") == 0)
			decode_machine(&in, section->version);
		else if (strcmp(section->name, "time") == 0)
			decode_time(&in, section->version);
		else if (strcmp(section->name, "cpuid") == 0)
			decode_cpuid(&in, section->version);
		else if (!decode_device(&in, section->name, section->version))
			cr_assert_str_eq(section->name, "test-page");
	}
	cr_assert_not_null(hv_state_find(reader, "vcpu", 0), "%s", name);
	cr_assert_not_null(hv_state_find(reader, "chips", 0), "%s", name);
	cr_assert_eq(coverage.page_count, coverage.end_page, "%s", name);
	restore_ram(reader, &coverage);
	hv_state_reader_free(reader);
}

Test(golden, every_file_decodes)
{
	DIR *folder = opendir(FOLDER);
	unsigned int files = 0;

	for (struct dirent *entry = folder == NULL ? NULL : readdir(folder); entry != NULL;
	     entry = readdir(folder)) {
		size_t length = strlen(entry->d_name);
		BASE_CLOSE int fd = -1;

		if (length < 6 || strcmp(entry->d_name + length - 6, ".state") != 0)
			continue;
		fd = openat(dirfd(folder), entry->d_name, O_RDONLY | O_CLOEXEC);
		cr_assert_geq(fd, 0, "%s", entry->d_name);
		check_file(fd, entry->d_name);
		files++;
	}
	if (folder != NULL)
		closedir(folder);
	if (files == 0)
		cr_skip_test("no file in " FOLDER);
}

/* The whole machine from the file: it goes on, and every page is as the guest wrote it. */
static void goes_on(const char *name)
{
	char path[512];
	struct guest_vm_opts opts = { .memory_bytes = 64ULL << 20,
				      .vcpus = 2,
				      .cpu = HV_CPU_MODEL_V1,
				      .restore = path,
				      .may_not_fit = true };
	struct guest_vm *vm;

	(void)snprintf(path, sizeof(path), "%s/%s", FOLDER, name);
	vm = guest_vm_new(&opts);
	if (vm == NULL)
		return;
	guest_vm_wait(vm, "guest: ok");
	cr_assert_eq(guest_vm_command(vm, TESTPAGE_VERIFY_ALL, 0, 0, 0), 0);
	cr_assert_eq(guest_vm_get(vm, TESTPAGE_BAD), 0);
	guest_vm_free(vm);
}

Test(golden, version_1_restores_and_goes_on, .timeout = 400)
{
	goes_on("v1.state");
}
