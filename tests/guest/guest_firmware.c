/* SPDX-License-Identifier: Apache-2.0 */
/*
 * PVH start info (Xen's arch-x86/hvm/start_info.h) and the few ACPI tables that
 * matter (ACPI 6.4, sections 5.2.5 to 5.2.12).  The guest trusts its firmware's
 * addresses but checks every signature and checksum: a VMM that writes broken
 * tables is told so here.
 */
#include "tests/guest/guest_firmware.h"

#include <stddef.h>

#include "tests/guest/guest_print.h"

#define START_MAGIC        0x336ec578
#define START_CMDLINE      24
#define START_RSDP         32
#define START_MEMMAP       40
#define START_MEMMAP_COUNT 48
#define MEMMAP_BYTES       24
#define MEMMAP_RAM         1

#define ACPI_HEADER_BYTES  36
#define RSDP_SCAN_START    0xe0000
#define RSDP_SCAN_END      0x100000
#define FADT_DSDT          40
#define FADT_PM1A_CONTROL  64
#define FADT_FLAGS         112
#define FADT_RESET_SUP     (1u << 10)
#define FADT_RESET_ADDRESS 120
#define FADT_RESET_VALUE   128
#define FADT_X_DSDT        140
#define MADT_LIST          44
#define MADT_LOCAL_APIC    0
#define MADT_ENABLED       1
#define AML_BYTE           0x0a
#define AML_PACKAGE        0x12
#define S5_DEFAULT         5

static uint64_t read_le(uint64_t address, unsigned int bytes)
{
	uint64_t value = 0;

	for (unsigned int i = 0; i < bytes; i++)
		value |= (uint64_t) * (const volatile uint8_t *)(address + i) << (i * 8);
	return value;
}

static bool has_signature(uint64_t address, const char *signature)
{
	for (unsigned int i = 0; signature[i] != '\0'; i++)
		if (read_le(address + i, 1) != (uint8_t)signature[i])
			return false;
	return true;
}

static void check_sum(uint64_t address, uint64_t bytes, const char *what)
{
	uint8_t sum = 0;

	for (uint64_t i = 0; i < bytes; i++)
		sum = (uint8_t)(sum + read_le(address + i, 1));
	if (sum != 0)
		guest_die("bad checksum of ACPI table ", what);
}

static void read_memory_map(uint64_t info, struct guest_firmware *fw)
{
	uint64_t entry = read_le(info + START_MEMMAP, 8);
	uint64_t count = read_le(info + START_MEMMAP_COUNT, 4);

	if (read_le(info + 4, 4) < 1 || entry == 0 || count == 0)
		guest_die("the start info has no memory map", "");
	for (; count > 0; count--, entry += MEMMAP_BYTES) {
		uint64_t start = read_le(entry, 8), bytes = read_le(entry + 8, 8);

		if (read_le(entry + 16, 4) != MEMMAP_RAM || bytes == 0)
			continue;
		if (start > UINT64_MAX - bytes)
			guest_die("a memory map entry wraps around", "");
		if (fw->ram_count == GUEST_RAM_MAX)
			guest_die("more RAM ranges than expected", "");
		fw->ram[fw->ram_count].start = start;
		fw->ram[fw->ram_count++].end = start + bytes;
		fw->ram_bytes += bytes;
	}
}

static void read_madt(uint64_t madt, struct guest_firmware *fw)
{
	uint64_t end = madt + read_le(madt + 4, 4);

	for (uint64_t at = madt + MADT_LIST; at + 2 <= end; at += read_le(at + 1, 1)) {
		if (read_le(at + 1, 1) < 2)
			guest_die("an entry without length in ACPI table ", "APIC");
		if (read_le(at, 1) != MADT_LOCAL_APIC || (read_le(at + 4, 4) & MADT_ENABLED) == 0)
			continue;
		if (fw->vcpu_count < SUPER_VCPUS_MAX)
			fw->apic_ids[fw->vcpu_count++] = (uint8_t)read_le(at + 3, 1);
	}
}

/* \_S5 is Name (_S5_, Package () { type, ... }): look for exactly that. */
static void read_sleep_type(uint64_t dsdt, struct guest_firmware *fw)
{
	uint64_t end = dsdt + read_le(dsdt + 4, 4);

	fw->sleep_type = S5_DEFAULT;
	for (uint64_t at = dsdt + ACPI_HEADER_BYTES; at + 8 < end; at++) {
		uint64_t value;

		if (!has_signature(at, "_S5_") || read_le(at + 4, 1) != AML_PACKAGE)
			continue;
		value = at + 7 + (read_le(at + 5, 1) >> 6); /* past PkgLength, NumElements */
		fw->sleep_type = (uint8_t)read_le(value, 1);
		if (fw->sleep_type == AML_BYTE)
			fw->sleep_type = (uint8_t)read_le(value + 1, 1);
		return;
	}
}

static void read_fadt(uint64_t fadt, struct guest_firmware *fw)
{
	uint64_t bytes = read_le(fadt + 4, 4);
	uint64_t dsdt = read_le(fadt + FADT_DSDT, 4);

	fw->pm1a_control = (uint16_t)read_le(fadt + FADT_PM1A_CONTROL, 4);
	if (bytes > FADT_RESET_VALUE && (read_le(fadt + FADT_FLAGS, 4) & FADT_RESET_SUP) != 0) {
		fw->reset_port = (uint16_t)read_le(fadt + FADT_RESET_ADDRESS, 8);
		fw->reset_value = (uint8_t)read_le(fadt + FADT_RESET_VALUE, 1);
	}
	if (bytes >= FADT_X_DSDT + 8 && read_le(fadt + FADT_X_DSDT, 8) != 0)
		dsdt = read_le(fadt + FADT_X_DSDT, 8);
	check_sum(dsdt, read_le(dsdt + 4, 4), "DSDT");
	read_sleep_type(dsdt, fw);
}

static void read_acpi(uint64_t rsdp, struct guest_firmware *fw)
{
	bool has_xsdt = read_le(rsdp + 15, 1) >= 2 && read_le(rsdp + 24, 8) != 0;
	uint64_t root = has_xsdt ? read_le(rsdp + 24, 8) : read_le(rsdp + 16, 4);
	unsigned int width = has_xsdt ? 8 : 4;
	uint64_t end = root + read_le(root + 4, 4);

	check_sum(rsdp, 20, "RSDP");
	if (!has_signature(root, has_xsdt ? "XSDT" : "RSDT"))
		guest_die("no root table where the RSDP says", "");
	check_sum(root, end - root, "XSDT");
	for (uint64_t at = root + ACPI_HEADER_BYTES; at + width <= end; at += width) {
		uint64_t table = read_le(at, width);

		if (has_signature(table, "APIC")) {
			check_sum(table, read_le(table + 4, 4), "APIC");
			read_madt(table, fw);
		} else if (has_signature(table, "FACP")) {
			check_sum(table, read_le(table + 4, 4), "FACP");
			read_fadt(table, fw);
		}
	}
}

static uint64_t find_rsdp(uint64_t given)
{
	if (given != 0) {
		if (!has_signature(given, "RSD PTR "))
			guest_die("no RSDP where the start info says", "");
		return given;
	}
	for (uint64_t at = RSDP_SCAN_START; at < RSDP_SCAN_END; at += 16)
		if (has_signature(at, "RSD PTR "))
			return at;
	return 0;
}

void guest_firmware_read(uint64_t start_info, struct guest_firmware *ret)
{
	uint64_t cmdline, rsdp;

	if (read_le(start_info, 4) != START_MAGIC)
		guest_die("EBX does not point to a PVH start info", "");
	cmdline = read_le(start_info + START_CMDLINE, 8);
	for (unsigned int i = 0; cmdline != 0; i++) {
		if (i == SUPER_CMDLINE_BYTES)
			guest_die("the command line is too long", "");
		ret->cmdline[i] = (char)read_le(cmdline + i, 1);
		if (ret->cmdline[i] == '\0')
			break;
	}
	read_memory_map(start_info, ret);
	rsdp = find_rsdp(read_le(start_info + START_RSDP, 8));
	if (rsdp != 0)
		read_acpi(rsdp, ret);
}
