/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Partition tables: GPT, its backup, MBR with logical partitions.  What is found lies on the disk.
 *
 * Input: flags (1: sectors of 4096 bytes, 2: checksums of the GPT are made right, 4: those of its
 * backup), le16 sectors of the disk, then records of fuzz_disk.h.
 */
#include <stdlib.h>

#include "tests/fuzz/fuzz_disk.h"

/* NOLINTNEXTLINE(readability-identifier-naming) */
int LLVMFuzzerTestOneInput(const uint8_t *input, size_t size);

#define ARRAY_BYTES_MAX 32768u /* of entries whose checksum is made right */

static void need(bool condition)
{
	if (!condition)
		abort();
}

static uint32_t checksum(const uint8_t *bytes, size_t size_bytes)
{
	uint32_t sum = UINT32_MAX;

	for (size_t i = 0; i < size_bytes; i++) {
		sum ^= bytes[i];
		for (uint32_t bit = 0; bit < 8; bit++)
			sum = sum >> 1 ^ ((sum & 1U) != 0 ? 0xEDB88320U : 0);
	}
	return ~sum;
}

/* The checksums in the header at @lba: of the entries, then of itself; @sums keeps them. */
static void make_right(struct fuzz_disk *disk, uint64_t lba, uint8_t sums[8])
{
	static uint8_t entries[ARRAY_BYTES_MAX];
	uint32_t sector = disk->source.sector_bytes;
	uint64_t last = disk->source.size_bytes / sector;
	uint8_t header[4096];
	uint64_t array = 0;
	uint64_t bytes = 0;
	uint32_t header_bytes = 0;

	need(fuzz_disk_read(disk, lba * sector, header, sector, NULL) == 0);
	array = base_get_le64(header + 72);
	bytes = (uint64_t)base_get_le32(header + 80) * base_get_le32(header + 84);
	if (array < last && bytes <= sizeof(entries) && bytes <= (last - array) * sector) {
		need(fuzz_disk_read(disk, array * sector, entries, (size_t)bytes, NULL) == 0);
		base_put_le32(sums, checksum(entries, (size_t)bytes));
		fuzz_disk_put(disk, lba * sector + 88, sums, 4);
		base_put_le32(header + 88, base_get_le32(sums));
	}
	header_bytes = base_get_le32(header + 12);
	if (header_bytes > sector)
		return;
	base_put_le32(header + 16, 0);
	base_put_le32(sums + 4, checksum(header, header_bytes));
	fuzz_disk_put(disk, lba * sector + 16, sums + 4, 4);
}

static void check(const struct bootdisk_parts *parts, uint64_t disk_bytes)
{
	need(parts->table > BOOTDISK_TABLE_INVALID && parts->table < BOOTDISK_TABLES);
	need(parts->count <= BOOTDISK_PARTS_MAX);
	for (uint32_t i = 0; i < parts->count; i++) {
		const struct bootdisk_part *part = &parts->part[i];

		need(part->size_bytes > 0 && part->start_bytes <= disk_bytes);
		need(part->size_bytes <= disk_bytes - part->start_bytes);
		need((part->number == 0) == (parts->table == BOOTDISK_TABLE_NONE));
	}
}

int LLVMFuzzerTestOneInput(const uint8_t *input, size_t size)
{
	static struct fuzz_disk disk;
	static struct bootdisk_parts parts;
	struct base_reader in = base_reader_over(input, size);
	struct base_error err = { 0 };
	struct bootdisk_io io;
	uint8_t sums[16];
	uint8_t flags = base_read_u8(&in);
	uint32_t sector = (flags & 1) != 0 ? 4096 : 512;
	uint64_t sectors = base_read_le16(&in);

	if (in.failed)
		return 0;
	fuzz_disk_init(&disk, sectors * sector, sector, &in);
	if ((flags & 2) != 0 && sectors > 1)
		make_right(&disk, 1, sums);
	if ((flags & 4) != 0 && sectors > 1)
		make_right(&disk, sectors - 1, sums + 8);
	need(bootdisk_io_init(&io, &disk.source, NULL) == 0);
	if (bootdisk_parts_read(&io, &parts, &err) == 0)
		check(&parts, disk.source.size_bytes);
	else
		need(err.text[0] != '\0');
	bootdisk_io_fini(&io);
	return 0;
}
