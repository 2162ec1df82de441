/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What a peer of a migration sends: headers of frames, the first frame, chunks.  What is taken lies
 * within its object and is encoded again as the same bytes.
 */
#include <stdlib.h>
#include <string.h>

#include "base/bytes.h"
#include "base/crc32c.h"
#include "migrate/mig_wire.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void frame(const uint8_t *data, size_t size)
{
	uint8_t bytes[MIG_FRAME_BYTES] = { 0 };
	uint8_t again[MIG_FRAME_BYTES];
	struct mig_frame out;

	memcpy(bytes, data, size < sizeof(bytes) ? size : sizeof(bytes));
	base_put_le32(bytes + 28, base_crc32c(0, bytes, 28)); /* else nothing gets in */
	for (int i = 0; i < 4; i++) {
		if (mig_frame_decode(bytes, (i & 1) != 0, (i & 2) != 0, &out, NULL) < 0)
			continue;
		mig_frame_encode(&out, again);
		if (memcmp(bytes, again, sizeof(bytes)) != 0 || out.body_bytes > MIG_BODY_BYTES_MAX)
			abort();
	}
}

static void first(const uint8_t *data, size_t size)
{
	uint8_t bytes[MIG_OPEN_BYTES] = { 0 };
	uint8_t again[MIG_OPEN_BYTES];
	struct mig_open out;

	memcpy(bytes, data, size < sizeof(bytes) ? size : sizeof(bytes));
	if (mig_open_decode(bytes, &out, NULL) < 0)
		return;
	mig_open_encode(&out, again);
	if (memcmp(bytes, again, sizeof(bytes)) != 0 ||
	    (out.channel > MIG_CHANNELS_MAX && out.channel != MIG_CHANNEL_URGENT &&
	     out.channel != MIG_CHANNEL_REST))
		abort();
	(void)mig_open_version(&out);
}

static void chunk(const uint8_t *data, size_t size)
{
	static const struct mig_object objects[] = { { .unit_count = 3000 }, { .unit_count = 1 } };
	uint8_t bytes[MIG_CHUNK_BYTES] = { 0 };
	uint8_t again[MIG_CHUNK_BYTES];
	struct mig_chunk out;

	memcpy(bytes, data, size < sizeof(bytes) ? size : sizeof(bytes));
	if (mig_chunk_decode(bytes, objects, 2, &out, NULL) < 0)
		return;
	mig_chunk_encode(&out, again);
	if (memcmp(bytes, again, sizeof(bytes)) != 0 || out.stored_bytes > MIG_SPAN_BYTES ||
	    out.first + out.count > objects[out.object].unit_count)
		abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	if (size == 0)
		return 0;
	if (data[0] % 3 == 0)
		frame(data + 1, size - 1);
	else if (data[0] % 3 == 1)
		first(data + 1, size - 1);
	else
		chunk(data + 1, size - 1);
	return 0;
}
