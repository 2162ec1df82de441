/* SPDX-License-Identifier: Apache-2.0 */
#include "hypervisor/acpi.h"

#include <errno.h>
#include <inttypes.h>
#include <string.h>

#include "base/bytes.h"
#include "base/cleanup.h"
#include "hypervisor/acpi_aml.h"

/* Area: RSDP at its start (where a kernel that scans for it looks), FACS, then the tables. */
#define FACS_OFFSET         0x40u /* 64-byte aligned: ACPI 6.4, section 5.2.10 */
#define FACS_BYTES          64u
#define FACS_VERSION        2u
#define FACS_VERSION_OFFSET 32u
#define TABLES_OFFSET       0x80u
#define TABLE_ALIGN         16u

#define HEADER_BYTES    36u /* of every table: section 5.2.6 */
#define LENGTH_OFFSET   4u
#define CHECKSUM_OFFSET 9u
#define RSDP_BYTES      36u
#define RSDP_V1_BYTES   20u /* covered by the first checksum */
#define RSDP_REVISION   2u
#define RSDP_CHECKSUM   8u
#define RSDP_CHECKSUM2  32u

#define OEM_ID         "GODWIT"   /* 6 bytes */
#define OEM_TABLE_ID   "GODWITVM" /* 8 bytes */
#define CREATOR_ID     "GDWT"
#define TABLE_REVISION 1u

#define FADT_REVISION 6u
#define FADT_MINOR    4u /* FADT of ACPI 6.4 */
#define FADT_BYTES    276u
#define MADT_REVISION 5u
#define XSDT_REVISION 1u
#define DSDT_REVISION 2u /* 64-bit integers */

/* FADT flags: table 5.10. */
#define FADT_WBINVD        (1u << 0)
#define FADT_C1            (1u << 2)
#define FADT_NO_SLP_BUTTON (1u << 5)
#define FADT_NO_FIX_RTC    (1u << 6) /* the clock's alarm is in no fixed register */
#define FADT_TMR_32BIT     (1u << 8)
#define FADT_RESET_REG     (1u << 10)

/* IAPC_BOOT_ARCH: table 5.11.  No 8042; the CMOS clock is there. */
#define BOOT_LEGACY_DEVICES (1u << 0)
#define BOOT_NO_VGA         (1u << 2)

#define RESET_VALUE     6u
#define C2_UNSUPPORTED  101u  /* > 100 us: section 5.2.9, P_LVL2_LAT */
#define C3_UNSUPPORTED  1001u /* > 1000 us */
#define PM1_EVT_BYTES   4u
#define PM1_CNT_BYTES   2u
#define PM_TMR_BYTES    4u
#define GAS_SYSTEM_IO   1u
#define RTC_CENTURY_REG 0x32u

/* MADT entries: section 5.2.12. */
#define MADT_LAPIC        0u
#define MADT_IOAPIC       1u
#define MADT_OVERRIDE     2u
#define MADT_LAPIC_NMI    4u
#define MADT_X2APIC       9u
#define MADT_X2APIC_NMI   10u
#define MADT_PCAT_COMPAT  1u
#define MADT_ENABLED      1u
#define MADT_LEVEL_HIGH   0xDu
#define XAPIC_ID_MAX      254u /* 255 is broadcast */
#define ALL_PROCESSORS_8  0xFFu
#define ALL_PROCESSORS_32 0xFFFFFFFFu
#define NMI_LINT          1u
#define PIT_GSI           2u

#define SERIAL_PORT   0x3F8u
#define SERIAL_PORTS  8u
#define SERIAL_IRQ    4u
#define RTC_PORT      0x70u
#define RTC_PORTS     2u
#define VMBUS_IRQ     5u   /* of nobody else; never raised */
#define VMBUS_PRESENT 0xFu /* present, enabled, shown, working */
#define RTC_IRQ       8u

static uint8_t checksum(const uint8_t *data, size_t size_bytes)
{
	uint8_t sum = 0;

	for (size_t i = 0; i < size_bytes; i++)
		sum = (uint8_t)(sum + data[i]);
	return (uint8_t)(0u - sum);
}

/* Pads, then starts a table in @area; its offset there. */
static size_t table_begin(struct base_buffer *area, const char signature[5], uint8_t revision)
{
	static const uint8_t zeros[TABLE_ALIGN];
	size_t at;

	base_buffer_append(area, zeros, (0 - area->size_bytes) & (TABLE_ALIGN - 1));
	at = area->size_bytes;
	base_buffer_append(area, signature, 4);
	base_buffer_le32(area, 0); /* length */
	base_buffer_u8(area, revision);
	base_buffer_u8(area, 0); /* checksum */
	base_buffer_append(area, OEM_ID, 6);
	base_buffer_append(area, OEM_TABLE_ID, 8);
	base_buffer_le32(area, TABLE_REVISION);
	base_buffer_append(area, CREATOR_ID, 4);
	base_buffer_le32(area, TABLE_REVISION);
	return at;
}

/* Length and checksum; the table's GPA. */
static uint64_t table_end(struct base_buffer *area, size_t at)
{
	size_t size_bytes = area->size_bytes - at;

	if (!area->failed) {
		base_put_le32(area->data + at + LENGTH_OFFSET, (uint32_t)size_bytes);
		area->data[at + CHECKSUM_OFFSET] = checksum(area->data + at, size_bytes);
	}
	return HV_ACPI_AREA_GPA + at;
}

static void describe_isa_device(struct hv_aml *aml, const char *name, const char id[8])
{
	hv_aml_device_begin(aml, name);
	hv_aml_name(aml, "_HID");
	hv_aml_eisa_id(aml, id);
	hv_aml_name(aml, "_CRS");
	hv_aml_resources_begin(aml);
}

/*
 * What a guest's VMBus driver binds to, by this name, which is no legal ACPI identifier.  Linux
 * wants _CRS to be there and takes its vector from the SINT; Windows wants an interrupt in it.  No
 * memory range: no device here needs MMIO space.
 */
static void describe_vmbus(struct hv_aml *aml)
{
	hv_aml_device_begin(aml, "VMBS");
	hv_aml_name(aml, "_HID");
	hv_aml_string(aml, "VMBUS");
	hv_aml_name(aml, "_UID");
	hv_aml_integer(aml, 0);
	hv_aml_name(aml, "_DDN");
	hv_aml_string(aml, "VMBUS");
	hv_aml_name(aml, "_STA");
	hv_aml_integer(aml, VMBUS_PRESENT);
	hv_aml_name(aml, "_CRS");
	hv_aml_resources_begin(aml);
	hv_aml_irq(aml, VMBUS_IRQ);
	hv_aml_end(aml);
	hv_aml_end(aml);
}

static uint64_t build_dsdt(struct base_buffer *area)
{
	BASE_CLEANUP(hv_aml_fini) struct hv_aml aml = { 0 };
	size_t at = table_begin(area, "DSDT", DSDT_REVISION);

	hv_aml_name(&aml, "\\_S5"); /* section 7.4.2: SLP_TYPa, SLP_TYPb, reserved twice */
	hv_aml_package_begin(&aml, 4);
	hv_aml_integer(&aml, HV_ACPI_SLP_TYP_S5);
	hv_aml_integer(&aml, HV_ACPI_SLP_TYP_S5);
	hv_aml_integer(&aml, 0);
	hv_aml_integer(&aml, 0);
	hv_aml_end(&aml);

	hv_aml_scope_begin(&aml, "\\_SB");
	describe_isa_device(&aml, "COM1", "PNP0501");
	hv_aml_io_ports(&aml, SERIAL_PORT, SERIAL_PORTS);
	hv_aml_irq(&aml, SERIAL_IRQ);
	hv_aml_end(&aml); /* _CRS */
	hv_aml_name(&aml, "_UID");
	hv_aml_integer(&aml, 1);
	hv_aml_end(&aml); /* COM1 */
	describe_isa_device(&aml, "RTC", "PNP0B00");
	hv_aml_io_ports(&aml, RTC_PORT, RTC_PORTS);
	hv_aml_irq(&aml, RTC_IRQ);
	hv_aml_end(&aml); /* _CRS */
	hv_aml_end(&aml); /* RTC */
	describe_vmbus(&aml);
	hv_aml_end(&aml); /* _SB */

	base_assert(aml.depth == 0);
	if (aml.bytes.failed)
		area->failed = true;
	else
		base_buffer_append(area, aml.bytes.data, aml.bytes.size_bytes);
	return table_end(area, at);
}

/* Generic address structure of a port: section 5.2.3.2. */
static void put_port(struct base_writer *out, uint16_t port, uint8_t size_bytes,
		     uint8_t access_size)
{
	base_write_u8(out, GAS_SYSTEM_IO);
	base_write_u8(out, (uint8_t)(size_bytes * 8));
	base_write_u8(out, 0);           /* bit offset */
	base_write_u8(out, access_size); /* 1 byte, 2 word, 3 dword */
	base_write_le64(out, port);
}

static void put_no_port(struct base_writer *out)
{
	base_write_zeros(out, 12);
}

/* Fields at offsets 36 to 115, from before the reset register. */
static void put_fadt_ports(struct base_writer *out, uint64_t facs, uint64_t dsdt)
{
	base_write_le32(out, (uint32_t)facs);
	base_write_le32(out, (uint32_t)dsdt);
	base_write_u8(out, 0); /* reserved */
	base_write_u8(out, 0); /* preferred profile: unspecified */
	base_write_le16(out, HV_ACPI_SCI_IRQ);
	base_write_le32(out, 0); /* SMI_CMD 0: ACPI mode is always on */
	base_write_le32(out, 0); /* ACPI_ENABLE, _DISABLE, S4BIOS_REQ, PSTATE_CNT */
	base_write_le32(out, HV_ACPI_PM1A_EVT_PORT);
	base_write_le32(out, 0);
	base_write_le32(out, HV_ACPI_PM1A_CNT_PORT);
	base_write_le32(out, 0); /* PM1b_CNT */
	base_write_le32(out, 0); /* PM2_CNT */
	base_write_le32(out, HV_ACPI_PM_TMR_PORT);
	base_write_zeros(out, 8); /* GPE0, GPE1 */
	base_write_u8(out, PM1_EVT_BYTES);
	base_write_u8(out, PM1_CNT_BYTES);
	base_write_u8(out, 0);
	base_write_u8(out, PM_TMR_BYTES);
	base_write_le32(out, 0); /* GPE lengths, GPE1 base, CST_CNT */
	base_write_le16(out, C2_UNSUPPORTED);
	base_write_le16(out, C3_UNSUPPORTED);
	base_write_zeros(out, 6); /* flush size and stride, duty offset and width */
	base_write_u8(out, 0);    /* DAY_ALRM */
	base_write_u8(out, 0);    /* MON_ALRM */
	base_write_u8(out, RTC_CENTURY_REG);
	base_write_le16(out, BOOT_LEGACY_DEVICES | BOOT_NO_VGA);
	base_write_u8(out, 0);
	base_write_le32(out, FADT_WBINVD | FADT_C1 | FADT_NO_SLP_BUTTON | FADT_NO_FIX_RTC |
				     FADT_TMR_32BIT | FADT_RESET_REG);
}

/* Section 5.2.9.  PWR_BUTTON clear: the power button is the fixed one in PM1. */
static uint64_t build_fadt(struct base_buffer *area, uint64_t facs, uint64_t dsdt)
{
	uint8_t fields[FADT_BYTES - HEADER_BYTES];
	struct base_writer out = base_writer_over(fields, sizeof(fields));
	size_t at = table_begin(area, "FACP", FADT_REVISION);

	put_fadt_ports(&out, facs, dsdt);
	put_port(&out, HV_ACPI_RESET_PORT, 1, 1);
	base_write_u8(&out, RESET_VALUE);
	base_write_le16(&out, 0); /* ARM_BOOT_ARCH */
	base_write_u8(&out, FADT_MINOR);
	base_write_le64(&out, 0); /* X_FIRMWARE_CTRL: the 32-bit field holds it */
	base_write_le64(&out, dsdt);
	put_port(&out, HV_ACPI_PM1A_EVT_PORT, PM1_EVT_BYTES, 2);
	put_no_port(&out);
	put_port(&out, HV_ACPI_PM1A_CNT_PORT, PM1_CNT_BYTES, 2);
	put_no_port(&out); /* PM1b_CNT */
	put_no_port(&out); /* PM2_CNT */
	put_port(&out, HV_ACPI_PM_TMR_PORT, PM_TMR_BYTES, 3);
	put_no_port(&out); /* GPE0 */
	put_no_port(&out); /* GPE1 */
	put_no_port(&out); /* sleep control and status: for hardware-reduced machines */
	put_no_port(&out);
	base_write_bytes(&out, "GODWIT\0", 8); /* hypervisor vendor */
	base_assert(!out.failed && out.offset_bytes == sizeof(fields));
	base_buffer_append(area, fields, sizeof(fields));
	return table_end(area, at);
}

static void put_processor(struct base_buffer *area, uint32_t id)
{
	if (id <= XAPIC_ID_MAX) {
		base_buffer_u8(area, MADT_LAPIC);
		base_buffer_u8(area, 8);
		base_buffer_u8(area, (uint8_t)id); /* processor uid */
		base_buffer_u8(area, (uint8_t)id); /* APIC id */
		base_buffer_le32(area, MADT_ENABLED);
		return;
	}
	base_buffer_u8(area, MADT_X2APIC);
	base_buffer_u8(area, 16);
	base_buffer_le16(area, 0);
	base_buffer_le32(area, id);
	base_buffer_le32(area, MADT_ENABLED);
	base_buffer_le32(area, id); /* processor uid */
}

static void put_override(struct base_buffer *area, uint8_t irq, uint32_t gsi, uint16_t flags)
{
	base_buffer_u8(area, MADT_OVERRIDE);
	base_buffer_u8(area, 10);
	base_buffer_u8(area, 0); /* ISA */
	base_buffer_u8(area, irq);
	base_buffer_le32(area, gsi);
	base_buffer_le16(area, flags);
}

static uint64_t build_madt(struct base_buffer *area, uint32_t vcpu_count)
{
	size_t at = table_begin(area, "APIC", MADT_REVISION);

	base_buffer_le32(area, (uint32_t)HV_GPA_LAPIC);
	base_buffer_le32(area, MADT_PCAT_COMPAT);
	for (uint32_t id = 0; id < vcpu_count; id++)
		put_processor(area, id);

	base_buffer_u8(area, MADT_IOAPIC);
	base_buffer_u8(area, 12);
	base_buffer_u8(area, 0); /* id, as KVM's IOAPIC has it at power-on */
	base_buffer_u8(area, 0);
	base_buffer_le32(area, (uint32_t)HV_GPA_IOAPIC);
	base_buffer_le32(area, 0); /* first GSI */
	put_override(area, 0, PIT_GSI, 0);
	put_override(area, HV_ACPI_SCI_IRQ, HV_ACPI_SCI_IRQ, MADT_LEVEL_HIGH);

	base_buffer_u8(area, MADT_LAPIC_NMI);
	base_buffer_u8(area, 6);
	base_buffer_u8(area, ALL_PROCESSORS_8);
	base_buffer_le16(area, 0);
	base_buffer_u8(area, NMI_LINT);
	if (vcpu_count > XAPIC_ID_MAX + 1) {
		base_buffer_u8(area, MADT_X2APIC_NMI);
		base_buffer_u8(area, 12);
		base_buffer_le16(area, 0);
		base_buffer_le32(area, ALL_PROCESSORS_32);
		base_buffer_u8(area, NMI_LINT);
		base_buffer_append(area, "\0\0", 3);
	}
	return table_end(area, at);
}

static uint64_t build_xsdt(struct base_buffer *area, uint64_t fadt, uint64_t madt)
{
	size_t at = table_begin(area, "XSDT", XSDT_REVISION);

	base_buffer_le64(area, fadt);
	base_buffer_le64(area, madt);
	return table_end(area, at);
}

static void put_rsdp(uint8_t to[RSDP_BYTES], uint64_t xsdt)
{
	struct base_writer out = base_writer_over(to, RSDP_BYTES);

	base_write_bytes(&out, "RSD PTR ", 8);
	base_write_u8(&out, 0); /* checksum of the first part */
	base_write_bytes(&out, OEM_ID, 6);
	base_write_u8(&out, RSDP_REVISION);
	base_write_le32(&out, 0); /* no RSDT: every kernel we boot is 64-bit */
	base_write_le32(&out, RSDP_BYTES);
	base_write_le64(&out, xsdt);
	base_write_le32(&out, 0); /* checksum of all, reserved */
	base_assert(!out.failed && out.offset_bytes == RSDP_BYTES);
	to[RSDP_CHECKSUM] = checksum(to, RSDP_V1_BYTES);
	to[RSDP_CHECKSUM2] = checksum(to, RSDP_BYTES);
}

/* Section 5.2.10: waking vectors and the global lock start as zero. */
static void put_facs(uint8_t to[FACS_BYTES])
{
	struct base_writer out = base_writer_over(to, FACS_BYTES);

	base_write_bytes(&out, "FACS", 4);
	base_write_le32(&out, FACS_BYTES);
	base_write_zeros(&out, FACS_VERSION_OFFSET - out.offset_bytes);
	base_write_u8(&out, FACS_VERSION);
	base_assert(!out.failed);
}

int hv_acpi_build(struct hv_slat *slat, uint32_t vcpu_count, uint64_t *ret_rsdp,
		  struct base_error *err)
{
	BASE_CLEANUP(base_buffer_fini) struct base_buffer area = { 0 };
	uint8_t *head;
	uint64_t fadt;
	uint64_t madt;
	uint64_t xsdt;
	int rc;

	if (vcpu_count == 0 || vcpu_count > HV_ACPI_VCPUS_MAX)
		return base_fail(err, -EINVAL, "ACPI tables: %" PRIu32 " vCPUs, expected 1..%u",
				 vcpu_count, HV_ACPI_VCPUS_MAX);
	head = base_buffer_extend(&area, TABLES_OFFSET);
	if (head != NULL)
		memset(head, 0, TABLES_OFFSET);
	fadt = build_fadt(&area, HV_ACPI_AREA_GPA + FACS_OFFSET, build_dsdt(&area));
	madt = build_madt(&area, vcpu_count);
	xsdt = build_xsdt(&area, fadt, madt);
	if (area.failed)
		return base_fail(err, -ENOMEM, "ACPI tables of %" PRIu32 " vCPUs", vcpu_count);
	base_assert(area.size_bytes <= HV_ACPI_AREA_BYTES);
	put_rsdp(area.data, xsdt);
	put_facs(area.data + FACS_OFFSET);

	rc = hv_slat_write(slat, HV_ACPI_AREA_GPA, area.data, area.size_bytes);
	if (rc == 0)
		rc = hv_slat_zero(slat, HV_ACPI_AREA_GPA + area.size_bytes,
				  HV_ACPI_AREA_BYTES - area.size_bytes);
	if (rc < 0)
		return base_fail_errno(err, rc, "ACPI tables at 0x%llx", HV_ACPI_AREA_GPA);
	*ret_rsdp = HV_ACPI_AREA_GPA;
	return 0;
}
