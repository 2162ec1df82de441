/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A log of 64 KiB.  The input is a row of pieces: a byte that says at which sector, a byte of
 * flags, two bytes of length, the bytes.  Flag 1: an entry begins there; signature, LogGuid and
 * checksum are made right.  The active sequence is walked to its end.
 *
 * Reached: vhdx_log_entry_peek(), vhdx_log_entry_decode(), vhdx_log_scan_run().
 */
#include <stdlib.h>
#include <string.h>

#include "base/bytes.h"
#include "base/crc32c.h"
#include "hypervisor/disk/vhdx_log_scan.h"

#define LOG_BYTES 65536U
#define SECTORS   (LOG_BYTES / VHDX_LOG_SECTOR_BYTES)

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static uint8_t region[2 * LOG_BYTES]; /* twice, so that an entry that wraps is in one piece */
static const struct disk_guid log_id = { { 1 } };

static void entry_fix(uint32_t sector)
{
	uint8_t *entry = region + sector * VHDX_LOG_SECTOR_BYTES;
	uint32_t length = base_get_le32(entry + 8);

	memcpy(entry, "loge", 4);
	memcpy(entry + 32, log_id.bytes, 16);
	if (length < 4096 || length > LOG_BYTES - sector * VHDX_LOG_SECTOR_BYTES)
		return;
	base_put_le32(entry + 4, 0);
	base_put_le32(entry + 4, base_crc32c(0, entry, length));
}

static void log_build(const uint8_t *data, size_t size)
{
	uint32_t entries[SECTORS];
	uint32_t entry_count = 0;

	memset(region, 0, sizeof(region));
	while (size >= 4) {
		uint32_t sector = data[0] % SECTORS;
		uint32_t room = LOG_BYTES - sector * VHDX_LOG_SECTOR_BYTES;
		size_t length = base_get_le16(data + 2);

		if (length > size - 4)
			length = size - 4;
		memcpy(region + sector * VHDX_LOG_SECTOR_BYTES, data + 4,
		       length < room ? length : room);
		if ((data[1] & 1) != 0 && entry_count < SECTORS)
			entries[entry_count++] = sector;
		data += 4 + length;
		size -= 4 + length;
	}
	for (uint32_t i = 0; i < entry_count; i++)
		entry_fix(entries[i]);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct vhdx_log_scan scan = {
		.log = region, .log_bytes = LOG_BYTES, .log_offset = VHDX_MIB, .id = log_id
	};
	uint64_t total = 0;

	log_build(data, size);
	if (vhdx_log_scan_run(&scan, NULL) == 0) {
		uint32_t slot = scan.tail_slot;
		struct vhdx_log_entry entry = { 0 };

		for (uint32_t i = 0; i < scan.entry_count; i++) {
			const uint8_t *bytes = vhdx_log_scan_next(&scan, &slot, &entry);
			uint32_t data_count = 0;
			uint8_t page[VHDX_LOG_SECTOR_BYTES];

			total += entry.entry_bytes;
			for (uint32_t j = 0; j < entry.descriptor_count; j++) {
				struct vhdx_log_descriptor descriptor =
					vhdx_log_descriptor_at(bytes, j, &data_count);

				if (descriptor.file_offset < VHDX_REGION1_OFFSET)
					abort();
				if (!descriptor.zero)
					vhdx_log_data_at(bytes, &entry, j, descriptor.data_sector,
							 page);
			}
		}
		if (total > LOG_BYTES || entry.sequence != scan.head.sequence)
			abort();
	}
	vhdx_log_scan_fini(&scan);
	return 0;
}
