/* SPDX-License-Identifier: Apache-2.0 */
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/file.h"
#include "boot_image.h"
#include "hypervisor/acpi.h"
#include "hypervisor/acpi_aml.h"

static struct boot_vm vm;

static void set_up(void)
{
	vm = boot_vm_new(MEMORY_BYTES, -1);
}

static void tear_down(void)
{
	boot_vm_free(&vm);
}

TestSuite(acpi, .init = set_up, .fini = tear_down);

static uint64_t build(uint32_t vcpu_count)
{
	struct base_error err = { 0 };
	uint64_t rsdp = 0;

	cr_assert_eq(hv_acpi_build(vm.slat, vcpu_count, &rsdp, &err), 0, "%s", err.text);
	return rsdp;
}

static uint8_t sum_of(uint64_t gpa, size_t size_bytes)
{
	const uint8_t *bytes = hv_slat_view(vm.slat, gpa, size_bytes);
	uint8_t sum = 0;

	cr_assert_not_null(bytes);
	for (size_t i = 0; i < size_bytes; i++)
		sum = (uint8_t)(sum + bytes[i]);
	return sum;
}

struct table {
	uint64_t gpa;
	uint32_t size_bytes;
	const uint8_t *bytes;
};

/* The table at @gpa: signature and checksum hold and it lies in the area. */
static struct table table_at(uint64_t gpa, const char *signature)
{
	struct table table = { .gpa = gpa, .size_bytes = boot_peek32(vm.slat, gpa + 4) };

	cr_assert_geq(gpa, HV_ACPI_AREA_GPA);
	cr_assert_leq(gpa + table.size_bytes, HV_ACPI_AREA_GPA + HV_ACPI_AREA_BYTES);
	table.bytes = hv_slat_view(vm.slat, gpa, table.size_bytes);
	cr_assert_eq(memcmp(table.bytes, signature, 4), 0, "%s", signature);
	cr_assert_eq(sum_of(gpa, table.size_bytes), 0, "checksum of %s", signature);
	return table;
}

static struct table xsdt_entry(uint64_t rsdp, uint32_t index, const char *signature)
{
	struct table xsdt = table_at(boot_peek64(vm.slat, rsdp + 24), "XSDT");

	cr_assert_eq(xsdt.size_bytes, 36 + 2 * 8);
	return table_at(base_get_le64(xsdt.bytes + 36 + index * 8), signature);
}

Test(acpi, rsdp_is_found_and_both_checksums_hold)
{
	uint64_t rsdp = build(1);
	const uint8_t *bytes = hv_slat_view(vm.slat, rsdp, 36);

	cr_assert_eq(rsdp, HV_ACPI_AREA_GPA, "16-byte aligned, first in the area");
	cr_assert_eq(memcmp(bytes, "RSD PTR ", 8), 0);
	cr_assert_eq(bytes[15], 2);
	cr_assert_eq(sum_of(rsdp, 20), 0);
	cr_assert_eq(sum_of(rsdp, 36), 0);
}

Test(acpi, fadt_names_the_ports)
{
	struct table fadt = xsdt_entry(build(1), 0, "FACP");
	uint64_t facs = base_get_le32(fadt.bytes + 36);

	cr_assert_eq(fadt.size_bytes, 276);
	cr_assert_eq(fadt.bytes[8], 6, "revision");
	cr_assert_eq(facs % 64, 0);
	cr_assert_eq(boot_peek32(vm.slat, facs), 0x53434146, "FACS");
	cr_assert_eq(boot_peek32(vm.slat, facs + 4), 64);
	cr_assert_eq(base_get_le64(fadt.bytes + 132), 0, "only one of the FACS fields");
	cr_assert_eq(base_get_le32(fadt.bytes + 40), base_get_le64(fadt.bytes + 140));
	cr_assert_eq(base_get_le16(fadt.bytes + 46), HV_ACPI_SCI_IRQ);
	cr_assert_eq(base_get_le32(fadt.bytes + 48), 0, "no SMI command: ACPI mode");
	cr_assert_eq(base_get_le32(fadt.bytes + 56), HV_ACPI_PM1A_EVT_PORT);
	cr_assert_eq(base_get_le32(fadt.bytes + 64), HV_ACPI_PM1A_CNT_PORT);
	cr_assert_eq(base_get_le32(fadt.bytes + 76), HV_ACPI_PM_TMR_PORT);
	cr_assert_eq(fadt.bytes[88], 4);
	cr_assert_eq(fadt.bytes[89], 2);
	cr_assert_eq(fadt.bytes[91], 4);
	cr_assert_eq(base_get_le16(fadt.bytes + 109), 0x5, "legacy devices, no VGA, no 8042, RTC");
	cr_assert_eq(base_get_le32(fadt.bytes + 112), 0x565);
	cr_assert_eq(fadt.bytes[116], 1, "reset register is a port");
	cr_assert_eq(base_get_le64(fadt.bytes + 120), HV_ACPI_RESET_PORT);
	cr_assert_eq(fadt.bytes[128], 6);
	cr_assert_eq(base_get_le64(fadt.bytes + 152), HV_ACPI_PM1A_EVT_PORT);
	cr_assert_eq(base_get_le64(fadt.bytes + 176), HV_ACPI_PM1A_CNT_PORT);
	cr_assert_eq(base_get_le64(fadt.bytes + 212), HV_ACPI_PM_TMR_PORT);
}

struct madt_counts {
	uint32_t lapics;
	uint32_t x2apics;
	uint32_t others[16];
};

/* Walk the entries; processors come in order of their ids, 0 upwards. */
static struct madt_counts walk_madt(const struct table *madt)
{
	struct madt_counts counts = { 0 };
	uint32_t at = 44;

	while (at < madt->size_bytes) {
		const uint8_t *entry = madt->bytes + at;

		cr_assert_geq(entry[1], 6);
		cr_assert_leq(entry[1], madt->size_bytes - at);
		if (entry[0] == 0) {
			cr_assert_eq(entry[2], counts.lapics);
			cr_assert_eq(entry[3], counts.lapics++);
			cr_assert_eq(base_get_le32(entry + 4), 1);
		} else if (entry[0] == 9) {
			cr_assert_eq(base_get_le32(entry + 4), counts.lapics + counts.x2apics);
			cr_assert_eq(base_get_le32(entry + 8), 1);
			cr_assert_eq(base_get_le32(entry + 12), counts.lapics + counts.x2apics++);
		} else {
			cr_assert_lt(entry[0], 16);
			counts.others[entry[0]]++;
		}
		at += entry[1];
	}
	cr_assert_eq(at, madt->size_bytes);
	return counts;
}

Test(acpi, madt_has_every_processor)
{
	static const struct {
		uint32_t vcpus;
		uint32_t lapics;
		uint32_t x2apics;
		uint32_t x2apic_nmis;
	} cases[] = {
		{ 1, 1, 0, 0 },      { 64, 64, 0, 0 },
		{ 255, 255, 0, 0 },  { 256, 255, 1, 1 },
		{ 300, 255, 45, 1 }, { HV_ACPI_VCPUS_MAX, 255, HV_ACPI_VCPUS_MAX - 255, 1 },
	};

	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		struct table madt = xsdt_entry(build(cases[i].vcpus), 1, "APIC");
		struct madt_counts counts = walk_madt(&madt);

		cr_assert_eq(base_get_le32(madt.bytes + 36), HV_GPA_LAPIC);
		cr_assert_eq(base_get_le32(madt.bytes + 40), 1);
		cr_assert_eq(counts.lapics, cases[i].lapics);
		cr_assert_eq(counts.x2apics, cases[i].x2apics);
		cr_assert_eq(counts.others[1], 1, "IOAPIC");
		cr_assert_eq(counts.others[2], 2, "overrides of PIT and SCI");
		cr_assert_eq(counts.others[4], 1, "NMI");
		cr_assert_eq(counts.others[10], cases[i].x2apic_nmis);
	}
}

Test(acpi, a_smaller_machine_leaves_nothing_of_a_larger_one)
{
	struct table xsdt;

	(void)build(HV_ACPI_VCPUS_MAX);
	xsdt = table_at(boot_peek64(vm.slat, build(1) + 24), "XSDT");
	cr_assert(base_is_zero(xsdt.bytes + xsdt.size_bytes,
			       HV_ACPI_AREA_GPA + HV_ACPI_AREA_BYTES - xsdt.gpa - xsdt.size_bytes));
}

Test(acpi, counts_out_of_range_are_refused)
{
	struct base_error err = { 0 };
	uint64_t rsdp = 7;

	cr_assert_eq(hv_acpi_build(vm.slat, 0, &rsdp, &err), -EINVAL);
	cr_assert_str_eq(err.text, "ACPI tables: 0 vCPUs, expected 1..4096");
	cr_assert_eq(hv_acpi_build(vm.slat, HV_ACPI_VCPUS_MAX + 1, &rsdp, &err), -EINVAL);
	cr_assert_eq(hv_acpi_build(vm.slat, UINT32_MAX, &rsdp, NULL), -EINVAL);
	cr_assert_eq(rsdp, 7);
}

Test(acpi_aml, lengths_at_the_borders)
{
	/* Content and what the length before it must look like: it counts itself. */
	static const struct {
		size_t content_bytes;
		size_t length_bytes;
		uint8_t bytes[3];
	} cases[] = {
		{ 5, 1, { 0x06 } },
		{ 62, 1, { 0x3F } },
		{ 63, 2, { 0x41, 0x04 } },
		{ 4093, 2, { 0x4F, 0xFF } },
		{ 4094, 3, { 0x81, 0x00, 0x01 } },
		{ 70000, 3, { 0x83, 0x17, 0x11 } },
	};

	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		struct hv_aml aml = { 0 };

		hv_aml_scope_begin(&aml, "_SB");
		cr_assert_not_null(base_buffer_extend(&aml.bytes, cases[i].content_bytes - 4));
		memset(aml.bytes.data + 5, 0xAA, cases[i].content_bytes - 4);
		hv_aml_end(&aml);
		cr_assert_eq(aml.bytes.size_bytes,
			     1 + cases[i].length_bytes + cases[i].content_bytes);
		cr_assert_eq(aml.bytes.data[0], 0x10);
		cr_assert_eq(memcmp(aml.bytes.data + 1, cases[i].bytes, cases[i].length_bytes), 0,
			     "%zu bytes", cases[i].content_bytes);
		cr_assert_eq(memcmp(aml.bytes.data + 1 + cases[i].length_bytes, "_SB_", 4), 0);
		hv_aml_fini(&aml);
	}
}

Test(acpi_aml, objects)
{
	static const uint8_t expected[] = {
		0x00,
		0x01,
		0x0A,
		0xFF,
		0x0B,
		0x00,
		0x01,
		0x0C,
		0x00,
		0x00,
		0x01,
		0x00,
		0x0E,
		0,
		0,
		0,
		0,
		1,
		0,
		0,
		0,
		0x0D,
		'V',
		'M',
		0x00,
		/* PNP0501 */ 0x0C,
		0x41,
		0xD0,
		0x05,
		0x01,
		/* name */ 0x08,
		'\\',
		'_',
		'S',
		'5',
		'_',
	};
	struct hv_aml aml = { 0 };

	hv_aml_integer(&aml, 0);
	hv_aml_integer(&aml, 1);
	hv_aml_integer(&aml, 255);
	hv_aml_integer(&aml, 256);
	hv_aml_integer(&aml, 65536);
	hv_aml_integer(&aml, 1ULL << 32);
	hv_aml_string(&aml, "VM");
	hv_aml_eisa_id(&aml, "PNP0501");
	hv_aml_name(&aml, "\\_S5");
	cr_assert_eq(aml.bytes.size_bytes, sizeof(expected));
	cr_assert_eq(memcmp(aml.bytes.data, expected, sizeof(expected)), 0);
	hv_aml_fini(&aml);
}

Test(acpi_aml, ending_too_often_is_a_bug, .signal = SIGABRT)
{
	struct hv_aml aml = { 0 };

	hv_aml_end(&aml);
}

/* Runs a program in @folder with all output in the file "out" there; its exit status. */
static int run_in(const char *folder, char *const argv[])
{
	pid_t child = fork();
	int status = -1;

	cr_assert_geq(child, 0);
	if (child == 0) {
		int out = -1;

		if (chdir(folder) == 0)
			out = open("out", O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
		if (out >= 0 && dup2(out, 1) >= 0 && dup2(out, 2) >= 0)
			(void)execvp(argv[0], argv);
		_exit(127);
	}
	cr_assert_eq(waitpid(child, &status, 0), child);
	return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

static char *output_of(const char *folder)
{
	uint8_t *text = NULL;
	size_t size_bytes;
	char path[256];

	(void)snprintf(path, sizeof(path), "%s/out", folder);
	cr_assert_eq(base_file_load(path, 1 << 20, &text, &size_bytes, NULL), 0);
	return (char *)text;
}

static void dump(const char *folder, const char *name, const struct table *table)
{
	char path[256];
	int fd;

	(void)snprintf(path, sizeof(path), "%s/%s.dat", folder, name);
	fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
	cr_assert_geq(fd, 0);
	cr_assert_eq(base_write_all(fd, table->bytes, table->size_bytes), 0);
	close(fd);
}

/* The ACPI project's own compiler reads each table without complaint; what it read of the
 * DSDT compiles again, with one complaint: the name of VMBus, which guests want as it is. */
static void judge(char *folder, const char *name, const struct table *table)
{
	char data[32];
	char source[32];
	char *const disassemble[] = { (char[]){ "iasl" }, (char[]){ "-d" }, data, NULL };
	char *const compile[] = { (char[]){ "iasl" }, (char[]){ "-we" }, source, NULL };
	char *text;

	(void)snprintf(data, sizeof(data), "%s.dat", name);
	(void)snprintf(source, sizeof(source), "%s.dsl", name);
	dump(folder, name, table);
	cr_assert_eq(run_in(folder, disassemble), 0, "%s: %s", name, output_of(folder));
	text = output_of(folder);
	cr_assert_null(strcasestr(text, "warning"), "%s: %s", name, text);
	cr_assert_null(strcasestr(text, "error"), "%s: %s", name, text);
	cr_assert_null(strcasestr(text, "incorrect"), "%s: %s", name, text);
	free(text);
	if (strcmp(name, "dsdt") != 0) {
		cr_assert_eq(run_in(folder, compile), 0, "%s: %s", name, output_of(folder));
		return;
	}
	(void)run_in(folder, compile);
	text = output_of(folder);
	cr_assert_not_null(strstr(text, "1 Errors, 0 Warnings"), "%s", text);
	cr_assert_not_null(strstr(text, "7 or 8 characters (VMBUS)"), "%s", text);
	free(text);
}

Test(acpi, iasl_finds_no_fault)
{
	char folder[] = TEST_BINARY_DIR "/acpi_test.XXXXXX";
	char *const version[] = { (char[]){ "iasl" }, (char[]){ "-v" }, NULL };
	char *const clean[] = { (char[]){ "rm" }, (char[]){ "-rf" }, folder, NULL };
	uint64_t rsdp = build(300);
	struct table fadt = xsdt_entry(rsdp, 0, "FACP");
	struct table madt = xsdt_entry(rsdp, 1, "APIC");
	struct table dsdt = table_at(base_get_le64(fadt.bytes + 140), "DSDT");
	struct table xsdt = table_at(boot_peek64(vm.slat, rsdp + 24), "XSDT");
	struct table facs = { .size_bytes = 64 };

	facs.bytes = hv_slat_view(vm.slat, base_get_le32(fadt.bytes + 36), 64);
	cr_assert_not_null(mkdtemp(folder));
	if (run_in(folder, version) != 0) {
		(void)run_in(folder, clean);
		cr_skip_test("iasl (package acpica-tools) is not installed");
	}
	judge(folder, "dsdt", &dsdt);
	judge(folder, "facp", &fadt);
	judge(folder, "apic", &madt);
	judge(folder, "xsdt", &xsdt);
	judge(folder, "facs", &facs);
	(void)run_in(folder, clean);
}
