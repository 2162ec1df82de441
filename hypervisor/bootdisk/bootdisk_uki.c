/* SPDX-License-Identifier: Apache-2.0 */
/* The sections of a unified kernel image (a PE file for x86-64). */
#include <errno.h>
#include <string.h>

#include "hypervisor/bootdisk/bootdisk_priv.h"

#define PE_MACHINE_X64   0x8664u
#define PE_SECTIONS_MAX  64u
#define PE_SECTION_BYTES 40u

int bootdisk_uki_decode(const uint8_t *head, size_t head_bytes, uint64_t file_bytes,
			struct bootdisk_uki *ret_uki, struct base_error *err)
{
	struct base_reader in = base_reader_over(head, head_bytes);
	struct bootdisk_uki uki = { 0 };
	uint32_t sections;
	uint32_t optional;

	if (head_bytes < 64 || memcmp(head, "MZ", 2) != 0)
		return base_fail(err, -EBADMSG, "unified kernel: no PE file");
	base_read_skip(&in, base_get_le32(head + 60));
	if (base_read_le32(&in) != 0x00004550 || base_read_le16(&in) != PE_MACHINE_X64)
		return base_fail(err, -EBADMSG, "unified kernel: no PE file for x86-64");
	sections = base_read_le16(&in);
	base_read_skip(&in, 12);
	optional = base_read_le16(&in);
	base_read_skip(&in, 2 + (size_t)optional);
	if (in.failed || sections > PE_SECTIONS_MAX)
		return base_fail(err, -EBADMSG, "unified kernel: %u sections", sections);
	for (uint32_t i = 0; i < sections; i++) {
		const uint8_t *section = base_read_span(&in, PE_SECTION_BYTES);
		uint64_t bytes;
		uint64_t offset;

		if (section == NULL)
			return base_fail(err, -EBADMSG, "unified kernel: sections cut off");
		bytes = base_get_le32(section + 8); /* without the padding */
		offset = base_get_le32(section + 20);
		if (bytes > base_get_le32(section + 16))
			bytes = base_get_le32(section + 16);
		if (offset > file_bytes || bytes > file_bytes - offset)
			return base_fail(err, -EBADMSG, "unified kernel: section %u past the end",
					 i);
#define TAKE(name, field)                                                                          \
	if (memcmp(section, name, 8) == 0) {                                                       \
		uki.field.offset = offset;                                                         \
		uki.field.size_bytes = bytes;                                                      \
	}
		TAKE(".linux\0", linux_image)
		TAKE(".initrd", initrd)
		TAKE(".cmdline", cmdline)
		TAKE(".osrel\0", osrel)
#undef TAKE
	}
	if (uki.linux_image.size_bytes == 0)
		return base_fail(err, -EBADMSG, "unified kernel: no .linux section");
	*ret_uki = uki;
	return 0;
}
