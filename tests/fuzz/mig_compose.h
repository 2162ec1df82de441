/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Frames of the migration protocol from a fuzzer's bytes, without the checksums of header and body,
 * which are put in here, as nothing gets far without them: type, flags, two bytes of length, eight
 * of region and place (WRITE), body.  A flag breaks a byte of the header.
 */
#ifndef TESTS_FUZZ_MIG_COMPOSE_H
#define TESTS_FUZZ_MIG_COMPOSE_H

#include <string.h>

#include "base/bytes.h"
#include "base/crc32c.h"
#include "migrate/mig_wire.h"

#define COMPOSE_RECORD_BYTES 12u
#define COMPOSE_BROKEN       1u

/* The next of @data as a frame at @to: its bytes, and what it took in *ret_used; 0: no more. */
static inline size_t mig_compose_one(const uint8_t *data, size_t size, uint8_t *to,
				     size_t room_bytes, size_t *ret_used)
{
	struct mig_frame frame = { .type = MIG_TYPE_INVALID };
	size_t body = 0;

	if (size < COMPOSE_RECORD_BYTES)
		return 0;
	frame.type = (enum mig_type)data[0];
	body = base_get_le16(data + 2);
	body = body < size - COMPOSE_RECORD_BYTES ? body : size - COMPOSE_RECORD_BYTES;
	if (MIG_FRAME_BYTES + body > room_bytes)
		return 0;
	frame.body_bytes = (uint32_t)body;
	if (frame.type == MIG_TYPE_WRITE) {
		frame.region = data[4];
		frame.offset_bytes = base_get_le64(data + 4) >> 8;
	} else {
		frame.body_crc = base_crc32c(0, data + COMPOSE_RECORD_BYTES, body);
	}
	mig_frame_encode(&frame, to);
	if ((data[1] & COMPOSE_BROKEN) != 0)
		to[data[4] % MIG_FRAME_BYTES] ^= data[5];
	memcpy(to + MIG_FRAME_BYTES, data + COMPOSE_RECORD_BYTES, body);
	*ret_used = COMPOSE_RECORD_BYTES + body;
	return MIG_FRAME_BYTES + body;
}

/* All of @data; returns the bytes at @to. */
static inline size_t mig_compose(const uint8_t *data, size_t size, uint8_t *to, size_t room_bytes)
{
	size_t bytes = 0;

	for (;;) {
		size_t used = 0;
		size_t frame = mig_compose_one(data, size, to + bytes, room_bytes - bytes, &used);

		if (frame == 0)
			return bytes;
		bytes += frame;
		data += used;
		size -= used;
	}
}

#endif
