/* SPDX-License-Identifier: Apache-2.0 */
/* Partition tables: GPT with its backup, MBR with logical partitions, or none. */
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "hypervisor/bootdisk/bootdisk_priv.h"

#define GPT_HEADER_BYTES  92u
#define GPT_ENTRY_BYTES   128u
#define GPT_ARRAY_BYTES   (1u << 20) /* 8192 entries of usual size */
#define MBR_TYPE_GPT      0xEEu
#define MBR_TYPE_ESP      0xEFu
#define MBR_TYPE_XBOOTLDR 0xEAu

static const uint8_t esp_type[16] = { 0x28, 0x73, 0x2A, 0xC1, 0x1F, 0xF8, 0xD2, 0x11,
				      0xBA, 0x4B, 0x00, 0xA0, 0xC9, 0x3E, 0xC9, 0x3B };
static const uint8_t xbootldr_type[16] = { 0xFF, 0xC2, 0x13, 0xBC, 0xE6, 0x59, 0x62, 0x42,
					   0xA3, 0x52, 0xB2, 0x75, 0xFD, 0x6F, 0x71, 0x72 };

static uint32_t crc32_of(const uint8_t *data, size_t bytes)
{
	uint32_t crc = ~0u;

	for (size_t i = 0; i < bytes; i++) {
		crc ^= data[i];
		for (int bit = 0; bit < 8; bit++)
			crc = (crc >> 1) ^ (0xEDB88320u & (0u - (crc & 1)));
	}
	return ~crc;
}

struct gpt_header {
	uint64_t array_lba;
	uint32_t count;
	uint32_t entry_bytes;
	uint32_t array_crc;
};

static int gpt_header_read(struct bootdisk_io *io, uint64_t lba, struct gpt_header *ret_header,
			   struct base_error *err)
{
	uint32_t sector = io->source->sector_bytes;
	uint8_t bytes[4096];
	uint32_t header_bytes;
	uint32_t crc;
	int rc;

	rc = bootdisk_io_read(io, lba * sector, bytes, sector, err);
	if (rc < 0)
		return rc;
	if (memcmp(bytes, "EFI PART", 8) != 0)
		return base_fail(err, -ENODEV, "GPT at sector %" PRIu64 ": no signature", lba);
	header_bytes = base_get_le32(bytes + 12);
	if (header_bytes < GPT_HEADER_BYTES || header_bytes > sector)
		return base_fail(err, -EBADMSG, "GPT header: %u bytes: expected %u to %u",
				 header_bytes, GPT_HEADER_BYTES, sector);
	crc = base_get_le32(bytes + 16);
	base_put_le32(bytes + 16, 0);
	if (crc32_of(bytes, header_bytes) != crc)
		return base_fail(err, -EBADMSG, "GPT header at sector %" PRIu64 ": checksum", lba);
	if (base_get_le64(bytes + 24) != lba)
		return base_fail(err, -EBADMSG, "GPT header at sector %" PRIu64 ": says %" PRIu64,
				 lba, base_get_le64(bytes + 24));
	ret_header->array_lba = base_get_le64(bytes + 72);
	ret_header->count = base_get_le32(bytes + 80);
	ret_header->entry_bytes = base_get_le32(bytes + 84);
	ret_header->array_crc = base_get_le32(bytes + 88);
	if (ret_header->entry_bytes < GPT_ENTRY_BYTES || ret_header->entry_bytes > 4096 ||
	    ret_header->entry_bytes % 8 != 0 ||
	    ret_header->count > GPT_ARRAY_BYTES / ret_header->entry_bytes)
		return base_fail(err, -EBADMSG,
				 "GPT: %u entries of %u bytes: expected at most %u bytes",
				 ret_header->count, ret_header->entry_bytes, GPT_ARRAY_BYTES);
	if (ret_header->array_lba > io->source->size_bytes / sector)
		return base_fail(err, -EBADMSG, "GPT: entries at sector %" PRIu64 ": past the end",
				 ret_header->array_lba);
	return 0;
}

static void gpt_entry_take(const struct bootdisk_io *io, const uint8_t *entry, uint32_t number,
			   struct bootdisk_parts *parts)
{
	uint32_t sector = io->source->sector_bytes;
	uint64_t sectors = io->source->size_bytes / sector;
	uint64_t first = base_get_le64(entry + 32);
	uint64_t last = base_get_le64(entry + 40);
	struct bootdisk_part *part;

	if (base_is_zero(entry, 16) || first > last || last >= sectors || first == 0 ||
	    parts->count == BOOTDISK_PARTS_MAX)
		return;
	part = &parts->part[parts->count++];
	part->start_bytes = first * sector;
	part->size_bytes = (last - first + 1) * sector;
	part->number = number;
	part->esp = memcmp(entry, esp_type, 16) == 0;
	part->xbootldr = memcmp(entry, xbootldr_type, 16) == 0;
	part->active = (entry[48] & 4) != 0; /* "legacy BIOS bootable" */
}

static int gpt_read(struct bootdisk_io *io, uint64_t lba, struct bootdisk_parts *parts,
		    struct base_error *err)
{
	BASE_FREE uint8_t *array = NULL;
	struct gpt_header header = { .count = 0 };
	size_t bytes;
	int rc;

	rc = gpt_header_read(io, lba, &header, err);
	if (rc < 0)
		return rc;
	bytes = (size_t)header.count * header.entry_bytes;
	array = malloc(bytes + 1);
	if (array == NULL)
		return base_fail(err, -ENOMEM, "GPT: %zu bytes of entries", bytes);
	rc = bootdisk_io_read(io, header.array_lba * io->source->sector_bytes, array, bytes, err);
	if (rc < 0)
		return rc;
	if (crc32_of(array, bytes) != header.array_crc)
		return base_fail(err, -EBADMSG,
				 "GPT at sector %" PRIu64 ": checksum of its entries", lba);
	parts->table = BOOTDISK_TABLE_GPT;
	for (uint32_t i = 0; i < header.count; i++)
		gpt_entry_take(io, array + (size_t)i * header.entry_bytes, i + 1, parts);
	return 0;
}

static bool mbr_is_extended(uint8_t type)
{
	return type == 0x05 || type == 0x0F || type == 0x85;
}

static bool mbr_entry_take(const struct bootdisk_io *io, const uint8_t *entry, uint64_t base,
			   uint32_t number, struct bootdisk_parts *parts)
{
	uint32_t sector = io->source->sector_bytes;
	uint64_t sectors = io->source->size_bytes / sector;
	uint64_t start = base + base_get_le32(entry + 8);
	uint64_t count = base_get_le32(entry + 12);
	struct bootdisk_part *part;

	if (entry[4] == 0 || count == 0 || start == 0 || start >= sectors ||
	    count > sectors - start || parts->count == BOOTDISK_PARTS_MAX)
		return false;
	part = &parts->part[parts->count++];
	part->start_bytes = start * sector;
	part->size_bytes = count * sector;
	part->number = number;
	part->esp = entry[4] == MBR_TYPE_ESP;
	part->xbootldr = entry[4] == MBR_TYPE_XBOOTLDR;
	part->active = entry[0] == 0x80;
	return true;
}

/* The chain of tables in an extended partition: bounded, so a loop ends. */
static int mbr_logical_read(struct bootdisk_io *io, uint64_t base, struct bootdisk_parts *parts,
			    struct base_error *err)
{
	uint32_t sector = io->source->sector_bytes;
	uint64_t at = base;
	uint32_t number = 5;

	for (uint32_t i = 0; i < BOOTDISK_CHAIN_MAX; i++) {
		uint8_t table[512];
		int rc;

		if (at >= io->source->size_bytes / sector)
			return 0; /* what came before it is good */
		rc = bootdisk_io_read(io, at * sector, table, sizeof(table), err);
		if (rc < 0)
			return rc;
		if (table[510] != 0x55 || table[511] != 0xAA)
			return 0;
		if (mbr_entry_take(io, table + 446, at, number, parts))
			number++;
		if (!mbr_is_extended(table[462 + 4]) || base_get_le32(table + 462 + 8) == 0)
			return 0;
		at = base + base_get_le32(table + 462 + 8);
	}
	return 0;
}

static bool mbr_is_table(const uint8_t *table)
{
	if (table[510] != 0x55 || table[511] != 0xAA)
		return false;
	if (memcmp(table + 54, "FAT", 3) == 0 || memcmp(table + 82, "FAT32", 5) == 0)
		return false; /* a file system's boot sector */
	for (size_t i = 0; i < 4; i++)
		if ((table[446 + 16 * i] & 0x7F) != 0)
			return false;
	return true;
}

/* A table without the type that protects a GPT: an old GPT beside it does not count. */
static bool mbr_rules_out_gpt(const uint8_t *table)
{
	bool any = false;

	for (size_t i = 0; i < 4; i++) {
		if (table[446 + 16 * i + 4] == MBR_TYPE_GPT)
			return false;
		any = any || table[446 + 16 * i + 4] != 0;
	}
	return any;
}

static int mbr_read(struct bootdisk_io *io, const uint8_t *table, struct bootdisk_parts *parts,
		    struct base_error *err)
{
	uint64_t extended = 0;

	for (uint32_t i = 0; i < 4; i++) {
		const uint8_t *entry = table + 446 + 16 * (size_t)i;

		if (entry[4] == MBR_TYPE_GPT)
			return base_fail(err, -EBADMSG, "GPT: both copies are damaged");
		if (!mbr_is_extended(entry[4]))
			(void)mbr_entry_take(io, entry, 0, i + 1, parts);
		else if (extended == 0)
			extended = base_get_le32(entry + 8);
	}
	parts->table = BOOTDISK_TABLE_MBR;
	return extended == 0 ? 0 : mbr_logical_read(io, extended, parts, err);
}

int bootdisk_parts_read(struct bootdisk_io *io, struct bootdisk_parts *ret_parts,
			struct base_error *err)
{
	uint64_t sectors = io->source->size_bytes / io->source->sector_bytes;
	uint8_t first[512];
	int rc;

	memset(ret_parts, 0, sizeof(*ret_parts));
	if (sectors < 4)
		return base_fail(err, -ENOENT, "boot disk: %" PRIu64 " sectors: too small",
				 sectors);
	rc = bootdisk_io_read(io, 0, first, sizeof(first), err);
	if (rc < 0)
		return rc;
	rc = -ENODEV;
	if (!mbr_is_table(first) || !mbr_rules_out_gpt(first))
		rc = gpt_read(io, 1, ret_parts, err);
	else
		sectors = 0;
	if (sectors != 0 && (rc == -EBADMSG || rc == -ENODEV))
		rc = gpt_read(io, sectors - 1, ret_parts, err);
	if (rc != -EBADMSG && rc != -ENODEV)
		return rc;
	if (mbr_is_table(first)) {
		rc = mbr_read(io, first, ret_parts, err);
		if (rc < 0 || ret_parts->count > 0)
			return rc;
	}
	ret_parts->table = BOOTDISK_TABLE_NONE;
	ret_parts->count = 1;
	ret_parts->part[0] = (struct bootdisk_part){ .size_bytes = io->source->size_bytes };
	return 0;
}
