/* SPDX-License-Identifier: Apache-2.0 */
/* INQUIRY: who the unit is, and its vital product data. */
#include <stddef.h>

#include "hypervisor/storvsp/scsi_priv.h"

#define STANDARD_BYTES 36
#define TYPE_DISK      0x00
#define TYPE_DVD       0x05
#define TYPE_ABSENT    0x7f /* qualifier 3, type 1F: no unit can be there */
#define VERSION_SPC3   5

#define SERIAL_BYTES 32 /* the id in hexadecimal */

static const char vendor[] = "Msft    ";
static const char product_disk[] = "Virtual Disk    ";
static const char product_dvd[] = "Virtual DVD-ROM ";
static const char revision[] = "1.0 ";

static uint8_t type_of(const struct scsi_unit *unit)
{
	return unit->dvd ? TYPE_DVD : TYPE_DISK;
}

static void standard(const struct scsi_call *call, uint8_t type)
{
	uint8_t *data = call->plan->data;

	memset(data, 0, STANDARD_BYTES);
	data[0] = type;
	data[1] = call->unit->dvd ? 0x80 : 0; /* RMB */
	data[2] = VERSION_SPC3;
	data[3] = 2; /* response data format */
	data[4] = STANDARD_BYTES - 5;
	data[7] = 2; /* CMDQUE */
	/* Fields of fixed length, padded with blanks and not terminated. */
	memcpy(data + 8, vendor, 8); /* NOLINT(bugprone-not-null-terminated-result) */
	memcpy(data + 16, call->unit->dvd ? product_dvd : product_disk, 16);
	memcpy(data + 32, revision, 4); /* NOLINT(bugprone-not-null-terminated-result) */
	scsi_good_data(call, STANDARD_BYTES, base_get_be16(call->cdb + 3));
}

void scsi_inquiry_absent(const struct scsi_call *call)
{
	if ((call->cdb[1] & 1) != 0 || call->cdb[2] != 0)
		scsi_refuse_field(call->plan);
	else
		standard(call, TYPE_ABSENT);
}

/* --- vital product data: each writes behind the header and returns how much --- */

static void serial(const struct scsi_unit *unit, uint8_t *to)
{
	static const char digits[] = "0123456789abcdef";

	for (size_t i = 0; i < sizeof(unit->id.bytes); i++) {
		to[2 * i] = (uint8_t)digits[unit->id.bytes[i] >> 4];
		to[2 * i + 1] = (uint8_t)digits[unit->id.bytes[i] & 15];
	}
}

static uint32_t page_serial(const struct scsi_unit *unit, uint8_t *to)
{
	serial(unit, to);
	return SERIAL_BYTES;
}

/*
 * A T10 vendor designator with the whole id, and an NAA one, which initiators prefer: type 6,
 * company 00-22-48 as Hyper-V's disks have it, the id folded into what is left.
 */
static uint32_t page_identification(const struct scsi_unit *unit, uint8_t *to)
{
	uint8_t *naa = to;
	uint8_t *t10 = to + 4 + 16;
	const uint8_t *id = unit->id.bytes;

	naa[0] = 1; /* binary */
	naa[1] = 3; /* NAA, of the unit */
	naa[2] = 0;
	naa[3] = 16;
	base_put_be32(naa + 4, 0x60022480);
	memcpy(naa + 8, id, 12);
	for (uint32_t i = 0; i < 4; i++)
		naa[8 + 8 + i] ^= id[12 + i];

	t10[0] = 2; /* ASCII */
	t10[1] = 1; /* T10 vendor id, of the unit */
	t10[2] = 0;
	t10[3] = 8 + SERIAL_BYTES;
	memcpy(t10 + 4, vendor, 8);
	serial(unit, t10 + 12);
	return 4 + 16 + 4 + 8 + SERIAL_BYTES;
}

static uint32_t blocks(const struct scsi_unit *unit, uint64_t bytes)
{
	uint64_t count = bytes / unit->block_bytes;

	return count > UINT32_MAX ? UINT32_MAX : (uint32_t)count;
}

static uint32_t page_limits(const struct scsi_unit *unit, uint8_t *to)
{
	uint8_t *page = to - 4; /* offsets as in SBC-3, which counts the header */

	memset(to, 0, 0x3c);
	page[4] = 1; /* WSNZ: WRITE SAME of "to the end" is refused */
	base_put_be16(page + 6, (uint16_t)(blocks(unit, unit->physical_block_bytes)));
	base_put_be32(page + 8, blocks(unit, unit->transfer_bytes_max));
	base_put_be32(page + 12, blocks(unit, unit->transfer_bytes_max));
	if (unit->unmap_bytes != 0) {
		base_put_be32(page + 20, UINT32_MAX);
		base_put_be32(page + 24, SCSI_UNMAP_RANGES_MAX);
		base_put_be32(page + 28, blocks(unit, unit->unmap_bytes));
		base_put_be32(page + 32, 0x80000000U); /* UGAVALID, alignment 0 */
	}
	base_put_be64(page + 36, blocks(unit, SCSI_ZERO_BYTES_MAX));
	return 0x3c;
}

static uint32_t page_characteristics(const struct scsi_unit *unit, uint8_t *to)
{
	memset(to, 0, 0x3c);
	base_put_be16(to, unit->solid_state ? 1 : 0); /* rotation: none, or not told */
	return 0x3c;
}

static uint32_t page_provisioning(const struct scsi_unit *unit, uint8_t *to)
{
	memset(to, 0, 4);
	if (unit->unmap_bytes != 0) {
		to[1] = 0x80 | 0x40 | 0x20 | 0x04; /* LBPU, LBPWS, LBPWS10, LBPRZ */
		to[2] = 2;                         /* thin */
	}
	return 4;
}

struct vpd_page {
	uint8_t code;
	bool disk_only;
	uint32_t (*write)(const struct scsi_unit *unit, uint8_t *to);
};
static const struct vpd_page pages[] = {
	{ 0x80, false, page_serial },      { 0x83, false, page_identification },
	{ 0xb0, true, page_limits },       { 0xb1, true, page_characteristics },
	{ 0xb2, true, page_provisioning },
};
#define PAGE_COUNT (sizeof(pages) / sizeof(pages[0]))

static void vital(const struct scsi_call *call)
{
	uint8_t *data = call->plan->data;
	uint32_t size = 0;
	bool found = call->cdb[2] == 0;

	for (size_t i = 0; i < PAGE_COUNT; i++) {
		if (pages[i].disk_only && call->unit->dvd)
			continue;
		if (call->cdb[2] == 0)
			data[5 + size++] = pages[i].code;
		if (call->cdb[2] == pages[i].code) {
			size = pages[i].write(call->unit, data + 4);
			found = true;
		}
	}
	if (!found) {
		scsi_refuse_field(call->plan);
		return;
	}
	if (call->cdb[2] == 0) {
		data[4] = 0;
		size++;
	}
	data[0] = type_of(call->unit);
	data[1] = call->cdb[2];
	base_put_be16(data + 2, (uint16_t)size);
	scsi_good_data(call, 4 + size, base_get_be16(call->cdb + 3));
}

void scsi_inquiry(const struct scsi_call *call)
{
	if ((call->cdb[1] & 1) != 0) /* EVPD */
		vital(call);
	else if (call->cdb[2] != 0)
		scsi_refuse_field(call->plan);
	else
		standard(call, type_of(call->unit));
}
