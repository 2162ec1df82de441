/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "base/bytes.h"
#include "base/crc32c.h"
#include "hypervisor/disk/vhdx_format.h"

#define HEADER_SIGNATURE 0x64616568U /* "head" */
#define FORMAT_VERSION   1
#define CREATOR_OFFSET   8U
#define CREATOR_BYTES    512U

static const char identifier_signature[8] = { 'v', 'h', 'd', 'x', 'f', 'i', 'l', 'e' };

static uint32_t header_crc(const uint8_t bytes[VHDX_HEADER_BYTES])
{
	static const uint8_t no_crc[4] = { 0 };
	uint32_t crc = base_crc32c(0, bytes, 4);

	crc = base_crc32c(crc, no_crc, sizeof(no_crc));
	return base_crc32c(crc, bytes + 8, VHDX_HEADER_BYTES - 8);
}

static int log_place_check(const struct vhdx_header *header, uint64_t at, struct base_error *err)
{
	if (header->log_bytes < VHDX_MIB || header->log_bytes % VHDX_MIB != 0)
		return base_fail(err, -EBADMSG,
				 "VHDX header at 0x%" PRIx64 ": log length %" PRIu32
				 " is not a multiple of 1 MiB, at least 1 MiB",
				 at, header->log_bytes);
	if (header->log_offset < VHDX_MIB || header->log_offset % VHDX_MIB != 0)
		return base_fail(err, -EBADMSG,
				 "VHDX header at 0x%" PRIx64 ": log offset 0x%" PRIx64
				 " is not a multiple of 1 MiB, at least 1 MiB",
				 at, header->log_offset);
	if (header->log_offset > VHDX_FILE_BYTES_MAX - header->log_bytes)
		return base_fail(err, -EBADMSG,
				 "VHDX header at 0x%" PRIx64 ": log offset 0x%" PRIx64
				 " is past every file",
				 at, header->log_offset);
	return 0;
}

int vhdx_header_decode(const uint8_t bytes[VHDX_HEADER_BYTES], uint64_t slot_offset,
		       struct vhdx_header *ret_header, struct base_error *err)
{
	struct base_reader in = base_reader_over(bytes, VHDX_HEADER_BYTES);
	struct vhdx_header header = { 0 };
	uint32_t signature = base_read_le32(&in);
	uint32_t crc = base_read_le32(&in);
	uint16_t log_version;
	uint16_t version;
	int code;

	if (signature != HEADER_SIGNATURE)
		return base_fail(err, -EBADMSG,
				 "VHDX header at 0x%" PRIx64 ": signature 0x%08" PRIx32
				 " is not 0x%08" PRIx32,
				 slot_offset, signature, HEADER_SIGNATURE);
	if (crc != header_crc(bytes))
		return base_fail(err, -EBADMSG,
				 "VHDX header at 0x%" PRIx64 ": checksum 0x%08" PRIx32
				 " recorded, 0x%08" PRIx32 " computed",
				 slot_offset, crc, header_crc(bytes));
	header.sequence = base_read_le64(&in);
	base_read_bytes(&in, header.file_write.bytes, 16);
	base_read_bytes(&in, header.data_write.bytes, 16);
	base_read_bytes(&in, header.log.bytes, 16);
	log_version = base_read_le16(&in);
	version = base_read_le16(&in);
	header.log_bytes = base_read_le32(&in);
	header.log_offset = base_read_le64(&in);
	if (version != FORMAT_VERSION)
		return base_fail(err, -EOPNOTSUPP,
				 "VHDX header at 0x%" PRIx64 ": version %u, known is %d",
				 slot_offset, version, FORMAT_VERSION);
	if (log_version != 0)
		return base_fail(err, -EOPNOTSUPP,
				 "VHDX header at 0x%" PRIx64 ": log version %u, known is 0",
				 slot_offset, log_version);
	code = log_place_check(&header, slot_offset, err);
	if (code < 0)
		return code;

	*ret_header = header;
	return 0;
}

void vhdx_header_encode(const struct vhdx_header *header, uint8_t to[VHDX_HEADER_BYTES])
{
	struct base_writer out = base_writer_over(to, VHDX_HEADER_BYTES);

	base_write_le32(&out, HEADER_SIGNATURE);
	base_write_le32(&out, 0);
	base_write_le64(&out, header->sequence);
	base_write_bytes(&out, header->file_write.bytes, 16);
	base_write_bytes(&out, header->data_write.bytes, 16);
	base_write_bytes(&out, header->log.bytes, 16);
	base_write_le16(&out, 0);
	base_write_le16(&out, FORMAT_VERSION);
	base_write_le32(&out, header->log_bytes);
	base_write_le64(&out, header->log_offset);
	base_write_zeros(&out, VHDX_HEADER_BYTES - out.offset_bytes);
	base_put_le32(to + 4, header_crc(to));
}

int vhdx_identifier_decode(const uint8_t *bytes, size_t size_bytes, char *ret_creator,
			   size_t creator_bytes, struct base_error *err)
{
	size_t used = 0;

	if (size_bytes < CREATOR_OFFSET + CREATOR_BYTES)
		return base_fail(err, -EBADMSG,
				 "VHDX file identifier at 0x0: %zu bytes, %u are wanted",
				 size_bytes, CREATOR_OFFSET + CREATOR_BYTES);
	if (memcmp(bytes, identifier_signature, sizeof(identifier_signature)) != 0)
		return base_fail(err, -EBADMSG,
				 "VHDX file identifier at 0x0: signature 0x%016" PRIx64
				 " is not \"vhdxfile\"",
				 base_get_le64(bytes));
	/* Who made it is for people only: what is not plain ASCII becomes a question mark, so
	 * that nothing in it can play tricks on a terminal. */
	for (size_t at = 0; at < CREATOR_BYTES && used + 1 < creator_bytes; at += 2) {
		uint16_t unit = base_get_le16(bytes + CREATOR_OFFSET + at);

		if (unit == 0)
			break;
		ret_creator[used] = '?';
		if (unit >= 0x20 && unit < 0x7f)
			ret_creator[used] = (char)unit;
		used++;
	}
	if (creator_bytes > 0)
		ret_creator[used] = '\0';
	return 0;
}

void vhdx_identifier_encode(uint8_t to[4096])
{
	static const char creator[] = "Godwit " GODWIT_VERSION;

	memset(to, 0, 4096);
	memcpy(to, identifier_signature, sizeof(identifier_signature));
	for (size_t i = 0; i + 1 < sizeof(creator); i++)
		base_put_le16(to + CREATOR_OFFSET + 2 * i, (uint16_t)creator[i]);
}
