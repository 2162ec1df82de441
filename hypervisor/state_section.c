/* SPDX-License-Identifier: Apache-2.0 */
/*
 * File and section headers of a saved state.
 */
#include "hypervisor/state_section.h"

#include <errno.h>
#include <inttypes.h>
#include <string.h>

#include "base/crc32c.h"

#define HEADER_BYTES  64u
#define CRC_OFFSET    60u
#define FLAG_OPTIONAL 1u

static const uint8_t file_magic[8] = { 'G', 'O', 'D', 'W', 'I', 'T', 'S', 'V' };
static const uint8_t section_magic[4] = { 'S', 'E', 'C', 'T' };

void hv_state_file_header_encode(uint8_t block[HV_STATE_ALIGN_BYTES])
{
	memset(block, 0, HV_STATE_ALIGN_BYTES);
	memcpy(block, file_magic, sizeof(file_magic));
	base_put_le32(block + 8, HV_STATE_FORMAT_VERSION);
	base_put_le32(block + CRC_OFFSET, base_crc32c(0, block, CRC_OFFSET));
}

/* What every header block has: its CRC, and zeros behind it. */
static int check_block(const uint8_t block[HV_STATE_ALIGN_BYTES], struct base_error *err)
{
	uint32_t stored = base_get_le32(block + CRC_OFFSET);
	uint32_t computed = base_crc32c(0, block, CRC_OFFSET);

	if (stored != computed)
		return base_fail(err, -EBADMSG, "header CRC 0x%08" PRIx32 ", computed 0x%08" PRIx32,
				 stored, computed);
	if (!base_is_zero(block + HEADER_BYTES, HV_STATE_ALIGN_BYTES - HEADER_BYTES))
		return base_fail(err, -EBADMSG, "header is not followed by zeros");
	return 0;
}

int hv_state_file_header_decode(const uint8_t block[HV_STATE_ALIGN_BYTES], struct base_error *err)
{
	uint32_t version = base_get_le32(block + 8);
	int r = 0;

	if (base_is_zero(block, HV_STATE_ALIGN_BYTES))
		return base_fail(err, -EBADMSG, "not finished: the save was interrupted");
	if (memcmp(block, file_magic, sizeof(file_magic)) != 0)
		return base_fail(err, -EBADMSG, "no saved state: it does not begin with '%.8s'",
				 (const char *)file_magic);
	r = check_block(block, err);
	if (r < 0)
		return r;
	if (version > HV_STATE_FORMAT_VERSION)
		return base_fail(err, -ENOTSUP, "format version %" PRIu32 ", newest known is %u",
				 version, HV_STATE_FORMAT_VERSION);
	if (version == 0)
		return base_fail(err, -EBADMSG, "format version 0");
	if (!base_is_zero(block + 12, CRC_OFFSET - 12))
		return base_fail(err, -EBADMSG, "unknown flags in the file header");
	return 0;
}

/* Length of a well-formed name field, 0 otherwise. */
static size_t name_length(const char name[HV_STATE_NAME_BYTES])
{
	size_t length = strnlen(name, HV_STATE_NAME_BYTES);

	if (length == HV_STATE_NAME_BYTES)
		return 0;
	for (size_t i = 0; i < length; i++) {
		char c = name[i];

		if (!(c >= 'a' && c <= 'z') && !(c >= '0' && c <= '9') && c != '-')
			return 0;
	}
	if (!base_is_zero(name + length, HV_STATE_NAME_BYTES - length))
		return 0;
	return length;
}

void hv_state_section_encode(const struct hv_state_section *section,
			     uint8_t block[HV_STATE_ALIGN_BYTES])
{
	base_assert(name_length(section->name) > 0);
	base_assert(section->version > 0);

	memset(block, 0, HV_STATE_ALIGN_BYTES);
	memcpy(block, section_magic, sizeof(section_magic));
	memcpy(block + 4, section->name, HV_STATE_NAME_BYTES);
	base_put_le32(block + 28, section->instance);
	base_put_le32(block + 32, section->version);
	base_put_le32(block + 36, section->optional ? FLAG_OPTIONAL : 0);
	base_put_le64(block + 40, section->payload_bytes);
	base_put_le32(block + 48, section->payload_crc);
	base_put_le32(block + CRC_OFFSET, base_crc32c(0, block, CRC_OFFSET));
}

int hv_state_section_decode(const uint8_t block[HV_STATE_ALIGN_BYTES],
			    struct hv_state_section *ret_section, struct base_error *err)
{
	struct hv_state_section section = { 0 };
	uint32_t flags = base_get_le32(block + 36);
	int r = 0;

	if (memcmp(block, section_magic, sizeof(section_magic)) != 0)
		return base_fail(err, -EBADMSG, "no section begins here");
	r = check_block(block, err);
	if (r < 0)
		return r;

	memcpy(section.name, block + 4, HV_STATE_NAME_BYTES);
	section.instance = base_get_le32(block + 28);
	section.version = base_get_le32(block + 32);
	section.optional = (flags & FLAG_OPTIONAL) != 0;
	section.payload_bytes = base_get_le64(block + 40);
	section.payload_crc = base_get_le32(block + 48);
	if (name_length(section.name) == 0)
		return base_fail(err, -EBADMSG, "malformed section name");
	if (section.version == 0)
		return base_fail(err, -EBADMSG, "section '%s': version 0", section.name);
	if ((flags & ~FLAG_OPTIONAL) != 0 || !base_is_zero(block + 52, CRC_OFFSET - 52))
		return base_fail(err, -EBADMSG, "section '%s': unknown flags 0x%" PRIx32,
				 section.name, flags);
	if (section.payload_bytes > HV_STATE_PAYLOAD_BYTES_MAX)
		return base_fail(err, -EBADMSG,
				 "section '%s': payload of %" PRIu64 " bytes, limit %llu",
				 section.name, section.payload_bytes, HV_STATE_PAYLOAD_BYTES_MAX);
	*ret_section = section;
	return 0;
}
