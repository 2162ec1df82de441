/* SPDX-License-Identifier: Apache-2.0 */
/*
 * VHDX headers and file identifiers.  The first byte: 1 makes the checksum right.  What is accepted
 * survives encoding: same values.
 *
 * Reached: vhdx_header_decode(), vhdx_identifier_decode().
 */
#include <stdlib.h>
#include <string.h>

#include "base/bytes.h"
#include "base/crc32c.h"
#include "hypervisor/disk/vhdx_format.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	uint8_t bytes[VHDX_HEADER_BYTES] = { 0 };
	struct vhdx_header header;
	struct vhdx_header again;
	struct base_error err = { 0 };
	char creator[32];

	if (size == 0 || size - 1 > sizeof(bytes))
		return -1;
	memcpy(bytes, data + 1, size - 1);
	if (vhdx_identifier_decode(bytes, sizeof(bytes), creator, sizeof(creator), &err) == 0 &&
	    memchr(creator, 0, sizeof(creator)) == NULL)
		abort();
	if ((data[0] & 1) != 0) {
		base_put_le32(bytes + 4, 0);
		base_put_le32(bytes + 4, base_crc32c(0, bytes, sizeof(bytes)));
	}
	if (vhdx_header_decode(bytes, 0, &header, &err) < 0) {
		if (err.text[0] == '\0')
			abort();
		return 0;
	}
	vhdx_header_encode(&header, bytes);
	if (vhdx_header_decode(bytes, 0, &again, &err) < 0 ||
	    memcmp(&header, &again, sizeof(header)) != 0)
		abort();
	return 0;
}
