/* SPDX-License-Identifier: Apache-2.0 */
#include "migrate/mig_wire.h"

#include <criterion/criterion.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/bytes.h"
#include "base/crc32c.h"

static struct base_error err;

/* --- frames --- */

static const struct mig_frame write_frame = {
	.type = MIG_TYPE_WRITE, .body_bytes = 65536, .offset_bytes = 1ULL << 40, .region = 3
};

static int decode(const uint8_t *bytes, bool by_source, bool on_control)
{
	struct mig_frame frame;

	memset(&err, 0, sizeof(err));
	return mig_frame_decode(bytes, by_source, on_control, &frame, &err);
}

static void seal(uint8_t *bytes)
{
	base_put_le32(bytes + 28, base_crc32c(0, bytes, 28));
}

static void expect_bad(const uint8_t *bytes, int code, const char *text)
{
	cr_assert_eq(decode(bytes, true, false), code, "%s", err.text);
	cr_assert_not_null(strstr(err.text, text), "%s, not %s", err.text, text);
}

Test(mig_wire, frame_round_trip)
{
	uint8_t bytes[MIG_FRAME_BYTES];
	struct mig_frame frame;

	mig_frame_encode(&write_frame, bytes);
	cr_assert_eq(memcmp(bytes, "GWMF", 4), 0);
	cr_assert_eq(mig_frame_decode(bytes, true, false, &frame, &err), 0, "%s", err.text);
	cr_assert_eq(frame.type, write_frame.type);
	cr_assert_eq(frame.body_bytes, write_frame.body_bytes);
	cr_assert_eq(frame.body_crc, 0);
	cr_assert_eq(frame.offset_bytes, write_frame.offset_bytes);
	cr_assert_eq(frame.region, write_frame.region);
}

Test(mig_wire, every_bit_of_a_header_is_covered)
{
	uint8_t bytes[MIG_FRAME_BYTES];

	mig_frame_encode(&write_frame, bytes);
	for (uint32_t i = 0; i < MIG_FRAME_BYTES * 8; i++) {
		bytes[i / 8] ^= (uint8_t)(1u << i % 8);
		cr_assert_eq(decode(bytes, true, false), -EBADMSG, "bit %u", i);
		bytes[i / 8] ^= (uint8_t)(1u << i % 8);
	}
	cr_assert_eq(decode(bytes, true, false), 0);
}

Test(mig_wire, headers_that_cannot_be)
{
	uint8_t bytes[MIG_FRAME_BYTES];

	mig_frame_encode(&write_frame, bytes);
	bytes[0] = 'X';
	seal(bytes);
	expect_bad(bytes, -EBADMSG, "magic 0x");
	mig_frame_encode(&write_frame, bytes);
	bytes[31] ^= 1;
	expect_bad(bytes, -EBADMSG, "checksum");
	mig_frame_encode(&write_frame, bytes);
	base_put_le16(bytes + 4, MIG_TYPES);
	seal(bytes);
	expect_bad(bytes, -EBADMSG, "type 34, expected 1 to 33");
	mig_frame_encode(&write_frame, bytes);
	base_put_le16(bytes + 6, 1);
	seal(bytes);
	expect_bad(bytes, -EBADMSG, "reserved 0x1, expected 0");
	mig_frame_encode(&write_frame, bytes);
	base_put_le32(bytes + 8, MIG_BODY_BYTES_MAX + 1);
	seal(bytes);
	expect_bad(bytes, -EBADMSG, "body of 1048577 bytes, expected 1 to 1048576");
	base_put_le32(bytes + 8, 0);
	seal(bytes);
	expect_bad(bytes, -EBADMSG, "body of 0 bytes");
	mig_frame_encode(&write_frame, bytes);
	base_put_le64(bytes + 16, UINT64_MAX - 65535);
	seal(bytes);
	expect_bad(bytes, -EBADMSG, "too far");
	mig_frame_encode(&write_frame, bytes);
	base_put_le32(bytes + 12, 1);
	seal(bytes);
	expect_bad(bytes, -EBADMSG, "checksum 0x00000001, expected none");
	mig_frame_encode(&(struct mig_frame){ .type = MIG_TYPE_BARRIER, .body_bytes = 8 }, bytes);
	base_put_le32(bytes + 24, 1);
	seal(bytes);
	expect_bad(bytes, -EBADMSG, "in region 1, expected 0");
}

/* Each type: who may send it, and where; and its smallest and largest body. */
Test(mig_wire, types_go_one_way_on_their_channels)
{
	cr_assert_null(mig_type_row(MIG_TYPE_INVALID));
	cr_assert_null(mig_type_row(MIG_TYPES));
	for (uint32_t type = 1; type < MIG_TYPES; type++) {
		const struct mig_type_row *row = mig_type_row(type);
		uint8_t bytes[MIG_FRAME_BYTES];

		cr_assert_not_null(row);
		cr_assert(row->by_source || row->by_destination);
		cr_assert(row->on_control || row->on_data);
		for (uint32_t i = 0; i < 4; i++) {
			bool by_source = (i & 1) != 0;
			bool on_control = (i & 2) != 0;
			bool good = (by_source ? row->by_source : row->by_destination) &&
				    (on_control ? row->on_control : row->on_data);
			struct mig_frame frame = { .type = (enum mig_type)type,
						   .body_bytes = row->body_bytes_max };

			mig_frame_encode(&frame, bytes);
			cr_assert_eq(decode(bytes, by_source, on_control), good ? 0 : -EPROTO,
				     "%s: %s", row->name, err.text);
			frame.body_bytes = row->body_bytes_max + 1;
			mig_frame_encode(&frame, bytes);
			cr_assert_eq(decode(bytes, by_source, on_control), -EBADMSG);
		}
	}
}

/* --- the first frame --- */

static const struct mig_open plain_open = { .version_min = 1,
					    .version_max = 3,
					    .channel = 2,
					    .channel_count = 16,
					    .id = { 1, 2, 3 },
					    .secret = { 4, 5, 6 } };

static void expect_bad_open(struct mig_open open, const char *text)
{
	uint8_t bytes[MIG_OPEN_BYTES];
	struct mig_open out;

	mig_open_encode(&open, bytes);
	cr_assert_eq(mig_open_decode(bytes, &out, &err), -EBADMSG);
	cr_assert_not_null(strstr(err.text, text), "%s, not %s", err.text, text);
}

Test(mig_wire, open)
{
	uint8_t bytes[MIG_OPEN_BYTES];
	struct mig_open open = plain_open;

	mig_open_encode(&plain_open, bytes);
	cr_assert_eq(mig_open_decode(bytes, &open, &err), 0, "%s", err.text);
	cr_assert_eq(open.version_max, 3);
	cr_assert_eq(open.channel, 2);
	cr_assert_eq(open.channel_count, 16);
	cr_assert_eq(memcmp(open.id, plain_open.id, MIG_ID_BYTES), 0);
	cr_assert_eq(memcmp(open.secret, plain_open.secret, MIG_ID_BYTES), 0);
	bytes[63] = 1;
	cr_assert_eq(mig_open_decode(bytes, &open, &err), -EBADMSG);
	open.version_min = 0;
	expect_bad_open(open, "versions 0 to 3");
	open.version_min = 4;
	expect_bad_open(open, "versions 4 to 3");
	open = plain_open;
	open.channel_count = 0;
	expect_bad_open(open, "0 data channels");
	open.channel_count = MIG_CHANNELS_MAX + 1;
	expect_bad_open(open, "17 data channels");
	open = plain_open;
	open.channel = 17;
	expect_bad_open(open, "channel 17 of 16");
	open.channel = 0; /* with a secret: the control channel again */
	mig_open_encode(&open, bytes);
	cr_assert_eq(mig_open_decode(bytes, &open, &err), 0, "%s", err.text);
}

Test(mig_wire, the_newest_version_of_both)
{
	cr_assert_eq(mig_open_version(&(struct mig_open){ .version_min = 1, .version_max = 1 }), 1);
	cr_assert_eq(mig_open_version(&(struct mig_open){ .version_min = 1, .version_max = 9 }), 1);
	cr_assert_eq(mig_open_version(&(struct mig_open){ .version_min = 2, .version_max = 9 }), 0);
}

/* --- chunks --- */

static const struct mig_object objects[] = { { .unit_count = 1000 }, { .unit_count = 5000 } };

static const struct mig_chunk pages = { .kind = MIG_CHUNK_PAGES,
					.round = 2,
					.first = 256,
					.count = 256,
					.stored_bytes = 1 << 20,
					.generation = 9,
					.offset_bytes = 1 << 20,
					.region = 1,
					.crc = 77 };

static int decode_chunk(const struct mig_chunk *chunk)
{
	uint8_t bytes[MIG_CHUNK_BYTES];
	struct mig_chunk out;

	mig_chunk_encode(chunk, bytes);
	return mig_chunk_decode(bytes, objects, 2, &out, &err);
}

static void expect_bad_chunk(const struct mig_chunk *chunk, const char *text)
{
	cr_assert_eq(decode_chunk(chunk), -EBADMSG);
	cr_assert_not_null(strstr(err.text, text), "%s, not %s", err.text, text);
}

Test(mig_wire, chunk_round_trip)
{
	uint8_t bytes[MIG_CHUNK_BYTES];
	uint8_t again[MIG_CHUNK_BYTES];
	struct mig_chunk chunk;

	mig_chunk_encode(&pages, bytes);
	cr_assert_eq(mig_chunk_decode(bytes, objects, 2, &chunk, &err), 0, "%s", err.text);
	mig_chunk_encode(&chunk, again);
	cr_assert_eq(memcmp(bytes, again, sizeof(bytes)), 0);
	cr_assert_eq(chunk.first, 256);
	cr_assert_eq(chunk.stored_bytes, 1 << 20);
	cr_assert_eq(chunk.generation, 9);
	cr_assert_eq(chunk.crc, 77);
}

Test(mig_wire, chunks_that_cannot_be)
{
	struct mig_chunk chunk = pages;

	chunk.kind = MIG_CHUNK_INVALID;
	expect_bad_chunk(&chunk, "kind 0, expected 1 to 6");
	chunk.kind = MIG_CHUNK_KINDS;
	expect_bad_chunk(&chunk, "kind 7");
	chunk.kind = MIG_CHUNK_BLOCKS;
	expect_bad_chunk(&chunk, "kind 4 for object 0");
	chunk = pages;
	chunk.object = 1;
	expect_bad_chunk(&chunk, "kind 1 for object 1");
	chunk.object = 2;
	expect_bad_chunk(&chunk, "object 2 of 2");
	chunk = pages;
	chunk.count = 0;
	expect_bad_chunk(&chunk, "0 units from 256");
	chunk.count = 257;
	expect_bad_chunk(&chunk, "257 units from 256");
	chunk = pages;
	chunk.first = 257; /* over the border of a span */
	expect_bad_chunk(&chunk, "256 units from 257");
	chunk.first = 768;
	expect_bad_chunk(&chunk, "of object 0, which has 1000");
	chunk.first = UINT64_MAX - 255;
	expect_bad_chunk(&chunk, "which has 1000");
	chunk = pages;
	chunk.stored_bytes--;
	expect_bad_chunk(&chunk, "1048575 bytes stored for 1048576");
	chunk = pages;
	chunk.offset_bytes = UINT64_MAX - 4096;
	expect_bad_chunk(&chunk, "too far");
}

Test(mig_wire, stored_bytes_fit_the_kind)
{
	struct mig_chunk chunk = pages;

	chunk.kind = MIG_CHUNK_LZ4;
	expect_bad_chunk(&chunk,
			 "bytes stored"); /* not smaller: it would have been sent as it is */
	chunk.stored_bytes = 1;
	cr_assert_eq(decode_chunk(&chunk), 0);
	chunk.stored_bytes = 0;
	expect_bad_chunk(&chunk, "0 bytes stored");
	chunk = (struct mig_chunk){ .kind = MIG_CHUNK_ZEROS, .first = 5, .count = 3 };
	cr_assert_eq(decode_chunk(&chunk), 0);
	chunk.crc = 1;
	expect_bad_chunk(&chunk, "kind 3");
	chunk = (struct mig_chunk){
		.kind = MIG_CHUNK_UNMAP, .object = 1, .first = 4999, .count = 1
	};
	cr_assert_eq(decode_chunk(&chunk), 0);
	chunk.region = 1;
	expect_bad_chunk(&chunk, "kind 6");
	chunk = (struct mig_chunk){ .kind = MIG_CHUNK_BLOCKS,
				    .object = 1,
				    .first = 2048,
				    .count = 2,
				    .stored_bytes = 1024 };
	cr_assert_eq(decode_chunk(&chunk), 0);
}

/* All units of a span belong to one channel, and spans are spread over all. */
Test(mig_wire, spans_have_channels)
{
	uint32_t seen[5] = { 0 };

	for (uint64_t unit = 0; unit < 256ULL * 40; unit++) {
		uint32_t channel = mig_channel_of(0, unit, 4);

		cr_assert(channel >= 1 && channel <= 4);
		cr_assert_eq(channel, mig_channel_of(0, unit / 256 * 256, 4));
		seen[channel]++;
	}
	for (uint32_t i = 1; i <= 4; i++)
		cr_assert_eq(seen[i], 256 * 10);
	cr_assert_eq(mig_channel_of(1, 2047, 16), mig_channel_of(1, 0, 16));
	cr_assert_neq(mig_channel_of(1, 2048, 16), mig_channel_of(1, 0, 16));
}
