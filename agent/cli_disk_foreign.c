/* SPDX-License-Identifier: Apache-2.0 */
#include "agent/cli_disk_foreign.h"

#include <string.h>

#define QCOW2_V3             3U
#define QCOW2_HEADER_V2      72U /* bytes; version 3 goes on with the feature bits */
#define QCOW2_HEADER_V3      104U
#define QCOW2_EXTERNAL_DATA  4U /* incompatible feature, bit 2 */
#define QCOW2_BACKING_OFFSET 8U
#define QCOW2_INCOMPATIBLE   72U

static const struct {
	enum cli_foreign foreign;
	size_t offset;
	const char *magic;
	size_t magic_bytes;
} magics[] = {
	{ CLI_FOREIGN_QCOW, 0, "QFI\xfb\0\0\0\1", 8 },
	{ CLI_FOREIGN_QCOW2, 0, "QFI\xfb", 4 },
	{ CLI_FOREIGN_QED, 0, "QED\0", 4 },
	{ CLI_FOREIGN_VMDK, 0, "KDMV", 4 },
	{ CLI_FOREIGN_VMDK, 0, "COWD", 4 },
	{ CLI_FOREIGN_VMDK, 0, "# Disk DescriptorFile", 21 },
	{ CLI_FOREIGN_VDI, 64, "\x7f\x10\xda\xbe", 4 },
	{ CLI_FOREIGN_PARALLELS, 0, "WithoutFreeSpace", 16 },
	{ CLI_FOREIGN_PARALLELS, 0, "WithouFreSpacExt", 16 },
};

enum cli_foreign cli_foreign_find(const uint8_t *bytes, size_t size_bytes)
{
	for (size_t i = 0; i < sizeof(magics) / sizeof(magics[0]); i++)
		if (size_bytes >= magics[i].offset + magics[i].magic_bytes &&
		    memcmp(bytes + magics[i].offset, magics[i].magic, magics[i].magic_bytes) == 0)
			return magics[i].foreign;
	return CLI_FOREIGN_NONE;
}

const char *cli_foreign_name(enum cli_foreign foreign)
{
	static const char *const names[CLI_FOREIGNS] = {
		[CLI_FOREIGN_NONE] = "none",           [CLI_FOREIGN_QCOW] = "qcow",
		[CLI_FOREIGN_QCOW2] = "qcow2",         [CLI_FOREIGN_QED] = "qed",
		[CLI_FOREIGN_VMDK] = "vmdk",           [CLI_FOREIGN_VDI] = "vdi",
		[CLI_FOREIGN_PARALLELS] = "parallels",
	};

	return names[foreign];
}

static uint64_t be(const uint8_t *bytes, size_t count)
{
	uint64_t value = 0;

	for (size_t i = 0; i < count; i++)
		value = value << 8 | bytes[i];
	return value;
}

bool cli_qcow2_outside(const uint8_t *bytes, size_t size_bytes,
		       struct cli_qcow2_outside *ret_outside)
{
	uint64_t version;

	if (size_bytes < QCOW2_HEADER_V2)
		return false;
	version = be(bytes + 4, 4);
	if (version >= QCOW2_V3 && size_bytes < QCOW2_HEADER_V3)
		return false;
	ret_outside->backing = be(bytes + QCOW2_BACKING_OFFSET, 8) != 0;
	ret_outside->data_file = version >= QCOW2_V3 &&
				 (be(bytes + QCOW2_INCOMPATIBLE, 8) & QCOW2_EXTERNAL_DATA) != 0;
	return true;
}
