/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Entries of the log, section 2.3 of [MS-VHDX].
 *
 * A data sector gives its first 8 and last 4 bytes to a signature and the sequence number, which
 * show a torn write; what stood there is kept in the descriptor.
 */
#include <errno.h>
#include <inttypes.h>
#include <string.h>

#include "base/bytes.h"
#include "base/crc32c.h"
#include "hypervisor/disk/vhdx_format.h"

#define ENTRY_SIGNATURE 0x65676f6cU /* "loge" */
#define DATA_DESCRIPTOR 0x63736564U /* "desc" */
#define ZERO_DESCRIPTOR 0x6f72657aU /* "zero" */
#define DATA_SECTOR     0x61746164U /* "data" */
#define SECTOR          VHDX_LOG_SECTOR_BYTES
#define LEADING_BYTES   8U
#define TRAILING_BYTES  4U

static uint32_t entry_crc(const uint8_t *bytes, uint32_t entry_bytes)
{
	static const uint8_t no_crc[4] = { 0 };
	uint32_t crc = base_crc32c(0, bytes, 4);

	crc = base_crc32c(crc, no_crc, sizeof(no_crc));
	return base_crc32c(crc, bytes + 8, entry_bytes - 8);
}

/* Header and descriptors, in whole sectors; 64 bits, so that no count wraps. */
static uint64_t descriptor_area_bytes(uint32_t descriptor_count)
{
	uint64_t bytes = VHDX_LOG_ENTRY_HEADER_BYTES +
			 (uint64_t)descriptor_count * VHDX_LOG_DESCRIPTOR_BYTES;

	return (bytes + SECTOR - 1) / SECTOR * SECTOR;
}

static const uint8_t *descriptor_bytes(const uint8_t *bytes, uint32_t index)
{
	return bytes + VHDX_LOG_ENTRY_HEADER_BYTES + (size_t)index * VHDX_LOG_DESCRIPTOR_BYTES;
}

int vhdx_log_entry_peek(const uint8_t bytes[VHDX_LOG_SECTOR_BYTES], const struct disk_guid *log,
			uint32_t log_bytes, struct vhdx_log_entry *ret_entry,
			struct base_error *err)
{
	struct base_reader in = base_reader_over(bytes, VHDX_LOG_ENTRY_HEADER_BYTES);
	struct vhdx_log_entry entry = { 0 };
	uint32_t signature = base_read_le32(&in);

	base_read_skip(&in, 4);
	entry.entry_bytes = base_read_le32(&in);
	entry.tail_bytes = base_read_le32(&in);
	entry.sequence = base_read_le64(&in);
	entry.descriptor_count = base_read_le32(&in);
	base_read_skip(&in, 4);
	base_read_bytes(&in, entry.log.bytes, 16);
	entry.flushed_file_bytes = base_read_le64(&in);
	entry.last_file_bytes = base_read_le64(&in);
	if (signature != ENTRY_SIGNATURE)
		return base_fail(err, -EBADMSG,
				 "VHDX log entry: signature 0x%08" PRIx32 " is not 0x%08" PRIx32,
				 signature, ENTRY_SIGNATURE);
	if (!disk_guid_equal(&entry.log, log))
		return base_fail(err, -EBADMSG, "VHDX log entry: of another log");
	if (entry.entry_bytes < SECTOR || entry.entry_bytes % SECTOR != 0 ||
	    entry.entry_bytes > log_bytes)
		return base_fail(err, -EBADMSG,
				 "VHDX log entry: length %" PRIu32
				 " is not a multiple of %u, at most %" PRIu32,
				 entry.entry_bytes, SECTOR, log_bytes);
	if (entry.tail_bytes >= log_bytes || entry.tail_bytes % SECTOR != 0)
		return base_fail(err, -EBADMSG,
				 "VHDX log entry: tail 0x%" PRIx32
				 " is not a multiple of %u below 0x%" PRIx32,
				 entry.tail_bytes, SECTOR, log_bytes);
	if (entry.sequence == 0)
		return base_fail(err, -EBADMSG, "VHDX log entry: sequence number 0 is not used");
	if (descriptor_area_bytes(entry.descriptor_count) > entry.entry_bytes)
		return base_fail(err, -EBADMSG,
				 "VHDX log entry %" PRIu64 ": %" PRIu32
				 " descriptors do not fit into %" PRIu32 " bytes",
				 entry.sequence, entry.descriptor_count, entry.entry_bytes);
	*ret_entry = entry;
	return 0;
}

/* Where a descriptor may write: 4 KiB pages behind the headers and beside the log. */
static int target_check(const struct vhdx_log_entry *entry, uint32_t index, uint64_t offset,
			uint64_t length, struct base_error *err)
{
	if (length == 0 || offset % SECTOR != 0 || length % SECTOR != 0)
		return base_fail(err, -EBADMSG,
				 "VHDX log entry %" PRIu64 " descriptor %" PRIu32
				 ": offset 0x%" PRIx64 " or length %" PRIu64
				 " is not a multiple of %u, or empty",
				 entry->sequence, index, offset, length, SECTOR);
	if (offset < VHDX_REGION1_OFFSET)
		return base_fail(err, -EBADMSG,
				 "VHDX log entry %" PRIu64 " descriptor %" PRIu32
				 ": offset 0x%" PRIx64 " is in the headers, below 0x%llx",
				 entry->sequence, index, offset, VHDX_REGION1_OFFSET);
	if (offset >= VHDX_FILE_BYTES_MAX || length > VHDX_FILE_BYTES_MAX - offset)
		return base_fail(err, -EBADMSG,
				 "VHDX log entry %" PRIu64 " descriptor %" PRIu32
				 ": offset 0x%" PRIx64 ", length %" PRIu64 " is past every file",
				 entry->sequence, index, offset, length);
	return 0;
}

static int descriptor_check(const uint8_t *bytes, const struct vhdx_log_entry *entry,
			    uint32_t index, bool *ret_data, struct base_error *err)
{
	const uint8_t *descriptor = descriptor_bytes(bytes, index);
	uint32_t signature = base_get_le32(descriptor);
	uint64_t sequence = base_get_le64(descriptor + 24);
	bool data = signature == DATA_DESCRIPTOR;

	if (!data && signature != ZERO_DESCRIPTOR)
		return base_fail(
			err, -EBADMSG,
			"VHDX log entry %" PRIu64 " descriptor %" PRIu32 ": signature 0x%08" PRIx32
			" is not 0x%08" PRIx32 " or 0x%08" PRIx32,
			entry->sequence, index, signature, DATA_DESCRIPTOR, ZERO_DESCRIPTOR);
	if (sequence != entry->sequence)
		return base_fail(err, -EBADMSG,
				 "VHDX log entry %" PRIu64 " descriptor %" PRIu32
				 ": sequence number %" PRIu64,
				 entry->sequence, index, sequence);
	*ret_data = data;
	return target_check(entry, index, base_get_le64(descriptor + 16),
			    data ? SECTOR : base_get_le64(descriptor + 8), err);
}

static int log_overlap_check(const uint8_t *bytes, const struct vhdx_log_entry *entry,
			     const struct vhdx_log_region *log, struct base_error *err)
{
	uint32_t data_count = 0;

	for (uint32_t i = 0; i < entry->descriptor_count; i++) {
		struct vhdx_log_descriptor descriptor =
			vhdx_log_descriptor_at(bytes, i, &data_count);

		if (descriptor.file_offset < log->log_offset + log->log_bytes &&
		    log->log_offset < descriptor.file_offset + descriptor.length_bytes)
			return base_fail(err, -EBADMSG,
					 "VHDX log entry %" PRIu64 " descriptor %" PRIu32
					 ": offset 0x%" PRIx64 ", length %" PRIu64
					 " is in the log at 0x%" PRIx64,
					 entry->sequence, i, descriptor.file_offset,
					 descriptor.length_bytes, log->log_offset);
	}
	return 0;
}

static int data_sectors_check(const uint8_t *bytes, const struct vhdx_log_entry *entry,
			      uint32_t data_count, struct base_error *err)
{
	const uint8_t *sector = bytes + descriptor_area_bytes(entry->descriptor_count);

	for (uint32_t i = 0; i < data_count; i++, sector += SECTOR) {
		uint64_t sequence = ((uint64_t)base_get_le32(sector + 4) << 32) |
				    base_get_le32(sector + SECTOR - TRAILING_BYTES);

		if (base_get_le32(sector) != DATA_SECTOR || sequence != entry->sequence)
			return base_fail(err, -EBADMSG,
					 "VHDX log entry %" PRIu64 " data sector %" PRIu32
					 ": signature 0x%08" PRIx32 ", sequence number %" PRIu64
					 ": torn",
					 entry->sequence, i, base_get_le32(sector), sequence);
	}
	return 0;
}

int vhdx_log_entry_decode(const uint8_t *bytes, size_t size_bytes,
			  const struct vhdx_log_region *log, struct vhdx_log_entry *ret_entry,
			  struct base_error *err)
{
	struct vhdx_log_entry entry = { 0 };
	uint32_t data_count = 0;
	int code;

	if (size_bytes < SECTOR)
		return base_fail(err, -EBADMSG, "VHDX log entry: %zu bytes, at least %u are wanted",
				 size_bytes, SECTOR);
	code = vhdx_log_entry_peek(bytes, &log->id, log->log_bytes, &entry, err);
	if (code < 0)
		return code;
	if (entry.entry_bytes > size_bytes)
		return base_fail(err, -EBADMSG,
				 "VHDX log entry %" PRIu64 ": length %" PRIu32
				 ", %zu bytes are there",
				 entry.sequence, entry.entry_bytes, size_bytes);
	for (uint32_t i = 0; i < entry.descriptor_count; i++) {
		bool data = false;

		code = descriptor_check(bytes, &entry, i, &data, err);
		if (code < 0)
			return code;
		data_count += data;
	}
	if (descriptor_area_bytes(entry.descriptor_count) + (uint64_t)data_count * SECTOR !=
	    entry.entry_bytes)
		return base_fail(err, -EBADMSG,
				 "VHDX log entry %" PRIu64 ": length %" PRIu32
				 " is not that of %" PRIu32 " descriptors, %" PRIu32 " with data",
				 entry.sequence, entry.entry_bytes, entry.descriptor_count,
				 data_count);
	code = data_sectors_check(bytes, &entry, data_count, err);
	if (code < 0)
		return code;
	if (base_get_le32(bytes + 4) != entry_crc(bytes, entry.entry_bytes))
		return base_fail(err, -EBADMSG,
				 "VHDX log entry %" PRIu64 ": checksum 0x%08" PRIx32
				 " recorded, 0x%08" PRIx32 " computed",
				 entry.sequence, base_get_le32(bytes + 4),
				 entry_crc(bytes, entry.entry_bytes));
	code = log_overlap_check(bytes, &entry, log, err);
	if (code < 0)
		return code;

	*ret_entry = entry;
	return 0;
}

struct vhdx_log_descriptor vhdx_log_descriptor_at(const uint8_t *bytes, uint32_t index,
						  uint32_t *data_count)
{
	const uint8_t *from = descriptor_bytes(bytes, index);
	struct vhdx_log_descriptor descriptor = { 0 };

	descriptor.zero = base_get_le32(from) == ZERO_DESCRIPTOR;
	descriptor.file_offset = base_get_le64(from + 16);
	descriptor.length_bytes = descriptor.zero ? base_get_le64(from + 8) : SECTOR;
	if (!descriptor.zero)
		descriptor.data_sector = (*data_count)++;
	return descriptor;
}

void vhdx_log_data_at(const uint8_t *bytes, const struct vhdx_log_entry *entry, uint32_t index,
		      uint32_t data_sector, uint8_t to[VHDX_LOG_SECTOR_BYTES])
{
	const uint8_t *descriptor = descriptor_bytes(bytes, index);
	const uint8_t *sector = bytes + descriptor_area_bytes(entry->descriptor_count) +
				(size_t)data_sector * SECTOR;

	memcpy(to, descriptor + 8, LEADING_BYTES);
	memcpy(to + LEADING_BYTES, sector + LEADING_BYTES, SECTOR - LEADING_BYTES - TRAILING_BYTES);
	memcpy(to + SECTOR - TRAILING_BYTES, descriptor + 4, TRAILING_BYTES);
}

uint32_t vhdx_log_entry_bytes(uint32_t page_count)
{
	uint64_t bytes = descriptor_area_bytes(page_count) + (uint64_t)page_count * SECTOR;

	base_assert(bytes <= UINT32_MAX);
	return (uint32_t)bytes;
}

static void data_encode(const struct vhdx_log_page *page, uint64_t sequence, uint8_t *descriptor,
			uint8_t *sector)
{
	base_put_le32(descriptor, DATA_DESCRIPTOR);
	memcpy(descriptor + 4, page->data + SECTOR - TRAILING_BYTES, TRAILING_BYTES);
	memcpy(descriptor + 8, page->data, LEADING_BYTES);
	base_put_le64(descriptor + 16, page->file_offset);
	base_put_le64(descriptor + 24, sequence);

	base_put_le32(sector, DATA_SECTOR);
	base_put_le32(sector + 4, (uint32_t)(sequence >> 32));
	memcpy(sector + LEADING_BYTES, page->data + LEADING_BYTES,
	       SECTOR - LEADING_BYTES - TRAILING_BYTES);
	base_put_le32(sector + SECTOR - TRAILING_BYTES, (uint32_t)sequence);
}

void vhdx_log_entry_encode(const struct vhdx_log_entry *entry, const struct vhdx_log_page *pages,
			   uint32_t page_count, uint8_t *to)
{
	uint32_t entry_bytes = vhdx_log_entry_bytes(page_count);
	size_t area_bytes = (size_t)descriptor_area_bytes(page_count);
	struct base_writer out = base_writer_over(to, area_bytes);

	base_write_le32(&out, ENTRY_SIGNATURE);
	base_write_le32(&out, 0);
	base_write_le32(&out, entry_bytes);
	base_write_le32(&out, entry->tail_bytes);
	base_write_le64(&out, entry->sequence);
	base_write_le32(&out, page_count);
	base_write_le32(&out, 0);
	base_write_bytes(&out, entry->log.bytes, 16);
	base_write_le64(&out, entry->flushed_file_bytes);
	base_write_le64(&out, entry->last_file_bytes);
	base_write_zeros(&out, area_bytes - out.offset_bytes);
	for (uint32_t i = 0; i < page_count; i++)
		data_encode(&pages[i], entry->sequence,
			    to + VHDX_LOG_ENTRY_HEADER_BYTES +
				    (size_t)i * VHDX_LOG_DESCRIPTOR_BYTES,
			    to + area_bytes + (size_t)i * SECTOR);
	base_put_le32(to + 4, entry_crc(to, entry_bytes));
}
