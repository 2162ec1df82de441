/* SPDX-License-Identifier: Apache-2.0 */
#include "migrate/mig_wire.h"

#include <errno.h>
#include <inttypes.h>
#include <string.h>

#include "base/bytes.h"
#include "base/crc32c.h"
#include "migrate/mig_body.h"
#include "migrate/mig_body_post.h"
#include "migrate/mig_body_resume.h"
#include "migrate/mig_body_verify.h"

#define FRAME_MAGIC      0x464d5747u /* "GWMF" */
#define FRAME_CRC_OFFSET 28u
#define OPEN_PAD_BYTES   20u

#define SOURCE  true, false
#define BACK    false, true
#define BOTH    true, true
#define CONTROL true, false
#define DATA    false, true
#define ANY     true, true

static const struct mig_type_row rows[MIG_TYPES] = {
	[MIG_TYPE_OPEN] = { "open", SOURCE, ANY, MIG_OPEN_BYTES, MIG_OPEN_BYTES },
	[MIG_TYPE_OPENED] = { "opened", BACK, ANY, MIG_OPENED_BYTES, MIG_OPENED_BYTES },
	[MIG_TYPE_PLAN] = { "plan", SOURCE, CONTROL, MIG_PLAN_HEADER_BYTES + MIG_PLAN_OBJECT_BYTES,
			    MIG_BODY_BYTES_MAX },
	[MIG_TYPE_FINDINGS] = { "findings", BACK, CONTROL, MIG_LIST_HEADER_BYTES,
				MIG_FINDINGS_BYTES_MAX },
	[MIG_TYPE_ROUND] = { "round", SOURCE, CONTROL, MIG_ROUND_BYTES, MIG_ROUND_BYTES },
	[MIG_TYPE_CHUNK] = { "chunk", SOURCE, DATA, MIG_CHUNK_BYTES, MIG_CHUNK_BYTES },
	[MIG_TYPE_BARRIER] = { "barrier", SOURCE, DATA, MIG_NUMBER_BYTES, MIG_NUMBER_BYTES },
	[MIG_TYPE_ROUND_DONE] = { "round-done", BACK, CONTROL, MIG_LIST_HEADER_BYTES,
				  MIG_BODY_BYTES_MAX },
	[MIG_TYPE_STATE] = { "state", SOURCE, CONTROL, MIG_STATE_HEADER_BYTES + 1,
			     MIG_BODY_BYTES_MAX },
	[MIG_TYPE_SEALED] = { "sealed", SOURCE, CONTROL, MIG_SEALED_BYTES, MIG_SEALED_BYTES },
	[MIG_TYPE_CANCEL] = { "cancel", SOURCE, CONTROL, 0, MIG_REASON_BYTES },
	[MIG_TYPE_COMMIT] = { "commit", SOURCE, CONTROL, MIG_EPOCH_BYTES, MIG_EPOCH_BYTES },
	[MIG_TYPE_READY] = { "ready", BACK, CONTROL, MIG_EPOCH_BYTES, MIG_EPOCH_BYTES },
	[MIG_TYPE_FAILED] = { "failed", BACK, CONTROL, 0, MIG_REASON_BYTES },
	[MIG_TYPE_RUNNING] = { "running", BACK, CONTROL, MIG_EPOCH_BYTES, MIG_EPOCH_BYTES },
	[MIG_TYPE_HANDED_BACK] = { "handed-back", BACK, CONTROL, MIG_EPOCH_BYTES, MIG_EPOCH_BYTES },
	[MIG_TYPE_ALIVE] = { "alive", BOTH, CONTROL, MIG_NUMBER_BYTES, MIG_NUMBER_BYTES },
	[MIG_TYPE_WRITE] = { "write", SOURCE, DATA, 1, MIG_BODY_BYTES_MAX },
	[MIG_TYPE_ASK] = { "ask", SOURCE, CONTROL, MIG_ASK_BYTES, MIG_ASK_BYTES },
	[MIG_TYPE_REGISTER] = { "register", BACK, CONTROL, MIG_REGISTER_BYTES, MIG_REGISTER_BYTES },
	[MIG_TYPE_BYE] = { "bye", SOURCE, CONTROL, 0, 0 },
	[MIG_TYPE_ROOTS] = { "roots", SOURCE, CONTROL, MIG_ROOTS_HEADER_BYTES + MIG_DIGEST_BYTES,
			     MIG_ROOTS_BYTES_MAX },
	[MIG_TYPE_ASK_NODES] = { "ask-nodes", BACK, CONTROL, MIG_ASK_NODES_BYTES,
				 MIG_ASK_NODES_BYTES },
	[MIG_TYPE_NODES] = { "nodes", SOURCE, CONTROL, MIG_NODES_HEADER_BYTES + MIG_DIGEST_BYTES,
			     MIG_NODES_BYTES_MAX },
	[MIG_TYPE_VERIFIED] = { "verified", BACK, CONTROL, MIG_VERIFIED_BYTES, MIG_VERIFIED_BYTES },
	[MIG_TYPE_HAVE] = { "have", BACK, CONTROL, MIG_HAVE_HEADER_BYTES + 8, MIG_BODY_BYTES_MAX },
	[MIG_TYPE_RESUMED] = { "resumed", BACK, CONTROL, MIG_RESUMED_HEADER_BYTES,
			       MIG_BODY_BYTES_MAX },
	[MIG_TYPE_OWED] = { "owed", SOURCE, CONTROL, MIG_OWED_HEADER_BYTES + 8,
			    MIG_BODY_BYTES_MAX },
	[MIG_TYPE_WANT] = { "want", BACK, DATA, MIG_WANT_HEADER_BYTES + 8, MIG_WANT_BYTES_MAX },
	[MIG_TYPE_PAGES] = { "pages", SOURCE, DATA, MIG_PAGES_HEADER_BYTES, MIG_PAGES_BYTES_MAX },
	[MIG_TYPE_LACKS] = { "lacks", BACK, DATA, MIG_OWED_HEADER_BYTES, MIG_BODY_BYTES_MAX },
	[MIG_TYPE_GOT] = { "got", BACK, DATA, MIG_NUMBER_BYTES, MIG_NUMBER_BYTES },
	[MIG_TYPE_COMPLETE] = { "complete", BACK, CONTROL, MIG_COMPLETE_BYTES, MIG_COMPLETE_BYTES },
};

const struct mig_type_row *mig_type_row(uint32_t type)
{
	return type < MIG_TYPES && rows[type].name != NULL ? &rows[type] : NULL;
}

/* --- frames --- */

void mig_frame_encode(const struct mig_frame *frame, uint8_t ret_bytes[MIG_FRAME_BYTES])
{
	struct base_writer out = base_writer_over(ret_bytes, MIG_FRAME_BYTES);

	base_write_le32(&out, FRAME_MAGIC);
	base_write_le16(&out, (uint16_t)frame->type);
	base_write_le16(&out, 0);
	base_write_le32(&out, frame->body_bytes);
	base_write_le32(&out, frame->body_crc);
	base_write_le64(&out, frame->offset_bytes);
	base_write_le32(&out, frame->region);
	base_write_le32(&out, base_crc32c(0, ret_bytes, FRAME_CRC_OFFSET));
}

/* Whether the fields can be, whoever sent them. */
static int frame_check(const struct mig_frame *frame, uint16_t reserved, struct base_error *err)
{
	const struct mig_type_row *row = mig_type_row((uint32_t)frame->type);

	if (row == NULL)
		return base_fail(err, -EBADMSG, "migration frame: type %u, expected 1 to %u",
				 (unsigned int)frame->type, (unsigned int)MIG_TYPES - 1);
	if (reserved != 0)
		return base_fail(err, -EBADMSG, "migration frame %s: reserved 0x%x, expected 0",
				 row->name, (unsigned int)reserved);
	if (frame->body_bytes < row->body_bytes_min || frame->body_bytes > row->body_bytes_max)
		return base_fail(err, -EBADMSG,
				 "migration frame %s: body of %" PRIu32 " bytes, expected %" PRIu32
				 " to %" PRIu32,
				 row->name, frame->body_bytes, row->body_bytes_min,
				 row->body_bytes_max);
	if (frame->type != MIG_TYPE_WRITE && (frame->offset_bytes != 0 || frame->region != 0))
		return base_fail(err, -EBADMSG,
				 "migration frame %s: place %" PRIu64 " in region %" PRIu32
				 ", expected 0",
				 row->name, frame->offset_bytes, frame->region);
	if (frame->type == MIG_TYPE_WRITE && frame->body_crc != 0)
		return base_fail(err, -EBADMSG,
				 "migration frame %s: checksum 0x%08" PRIx32 ", expected none",
				 row->name, frame->body_crc);
	if (frame->offset_bytes > UINT64_MAX - frame->body_bytes)
		return base_fail(err, -EBADMSG, "migration frame %s: place %" PRIu64 " is too far",
				 row->name, frame->offset_bytes);
	return 0;
}

int mig_frame_decode(const uint8_t bytes[MIG_FRAME_BYTES], bool by_source, bool on_control,
		     struct mig_frame *ret_frame, struct base_error *err)
{
	struct base_reader in = base_reader_over(bytes, MIG_FRAME_BYTES);
	uint32_t magic = base_read_le32(&in);
	struct mig_frame frame = { .type = (enum mig_type)base_read_le16(&in) };
	uint16_t reserved = base_read_le16(&in);
	const struct mig_type_row *row = NULL;
	int r = 0;

	frame.body_bytes = base_read_le32(&in);
	frame.body_crc = base_read_le32(&in);
	frame.offset_bytes = base_read_le64(&in);
	frame.region = base_read_le32(&in);
	if (magic != FRAME_MAGIC)
		return base_fail(err, -EBADMSG,
				 "migration frame: magic 0x%08" PRIx32 ", expected 0x%08x", magic,
				 FRAME_MAGIC);
	if (base_read_le32(&in) != base_crc32c(0, bytes, FRAME_CRC_OFFSET))
		return base_fail(err, -EBADMSG, "migration frame: the header's checksum is wrong");
	r = frame_check(&frame, reserved, err);
	if (r < 0)
		return r;
	row = &rows[frame.type]; /* checked above */
	if (!(by_source ? row->by_source : row->by_destination))
		return base_fail(err, -EPROTO, "migration frame %s: not for a %s to send",
				 row->name, by_source ? "source" : "destination");
	if (!(on_control ? row->on_control : row->on_data))
		return base_fail(err, -EPROTO, "migration frame %s: not for a %s channel",
				 row->name, on_control ? "control" : "data");
	*ret_frame = frame;
	return 0;
}

/* --- the first frame --- */

void mig_open_encode(const struct mig_open *open, uint8_t ret_bytes[MIG_OPEN_BYTES])
{
	struct base_writer out = base_writer_over(ret_bytes, MIG_OPEN_BYTES);

	base_write_le16(&out, open->version_min);
	base_write_le16(&out, open->version_max);
	base_write_le16(&out, open->channel);
	base_write_le16(&out, open->channel_count);
	base_write_bytes(&out, open->id, MIG_ID_BYTES);
	base_write_bytes(&out, open->secret, MIG_ID_BYTES);
	base_write_le32(&out, open->resume_ms);
	base_write_zeros(&out, OPEN_PAD_BYTES);
}

int mig_open_decode(const uint8_t bytes[MIG_OPEN_BYTES], struct mig_open *ret_open,
		    struct base_error *err)
{
	struct base_reader in = base_reader_over(bytes, MIG_OPEN_BYTES);
	struct mig_open open = { .version_min = base_read_le16(&in) };

	open.version_max = base_read_le16(&in);
	open.channel = base_read_le16(&in);
	open.channel_count = base_read_le16(&in);
	base_read_bytes(&in, open.id, MIG_ID_BYTES);
	base_read_bytes(&in, open.secret, MIG_ID_BYTES);
	open.resume_ms = base_read_le32(&in);
	if (open.version_min == 0 || open.version_min > open.version_max)
		return base_fail(err, -EBADMSG, "migration: versions %u to %u",
				 (unsigned int)open.version_min, (unsigned int)open.version_max);
	if (open.channel_count == 0 || open.channel_count > MIG_CHANNELS_MAX)
		return base_fail(err, -EBADMSG, "migration: %u data channels, expected 1 to %u",
				 (unsigned int)open.channel_count, MIG_CHANNELS_MAX);
	if (open.channel > open.channel_count && open.channel < MIG_CHANNEL_URGENT)
		return base_fail(err, -EBADMSG, "migration: channel %u of %u",
				 (unsigned int)open.channel, (unsigned int)open.channel_count);
	if (!base_is_zero(base_read_span(&in, OPEN_PAD_BYTES), OPEN_PAD_BYTES))
		return base_fail(err, -EBADMSG, "migration: open: reserved bytes, expected 0");
	*ret_open = open;
	return 0;
}

uint16_t mig_open_version(const struct mig_open *open)
{
	if (open->version_min > MIG_VERSION || open->version_max < 1)
		return 0;
	return open->version_max < MIG_VERSION ? open->version_max : MIG_VERSION;
}

/* --- chunks --- */

uint32_t mig_unit_bytes(uint16_t object)
{
	return object == 0 ? MIG_PAGE_BYTES : MIG_SECTOR_BYTES;
}

uint32_t mig_channel_of(uint16_t object, uint64_t unit, uint32_t channel_count)
{
	uint64_t span = unit / (MIG_SPAN_BYTES / mig_unit_bytes(object));

	return 1 + (uint32_t)((span + object) % channel_count);
}

void mig_chunk_encode(const struct mig_chunk *chunk, uint8_t ret_bytes[MIG_CHUNK_BYTES])
{
	struct base_writer out = base_writer_over(ret_bytes, MIG_CHUNK_BYTES);

	base_write_le16(&out, (uint16_t)chunk->kind);
	base_write_le16(&out, chunk->object);
	base_write_le32(&out, chunk->round);
	base_write_le64(&out, chunk->first);
	base_write_le32(&out, chunk->count);
	base_write_le32(&out, chunk->stored_bytes);
	base_write_le64(&out, chunk->generation);
	base_write_le64(&out, chunk->offset_bytes);
	base_write_le32(&out, chunk->region);
	base_write_le32(&out, chunk->crc);
}

static bool kind_is_of_memory(enum mig_chunk_kind kind)
{
	return kind == MIG_CHUNK_PAGES || kind == MIG_CHUNK_LZ4 || kind == MIG_CHUNK_ZEROS;
}

static bool kind_is_stored(enum mig_chunk_kind kind)
{
	return kind == MIG_CHUNK_PAGES || kind == MIG_CHUNK_LZ4 || kind == MIG_CHUNK_BLOCKS;
}

static int span_check(const struct mig_chunk *chunk, const struct mig_object *object,
		      struct base_error *err)
{
	uint64_t per_span = MIG_SPAN_BYTES / mig_unit_bytes(chunk->object);

	if (chunk->count == 0 || chunk->count > per_span ||
	    chunk->count > per_span - chunk->first % per_span)
		return base_fail(err, -EBADMSG,
				 "migration chunk: %" PRIu32 " units from %" PRIu64
				 ", expected 1 or more within a span of %" PRIu64,
				 chunk->count, chunk->first, per_span);
	if (chunk->first >= object->unit_count || chunk->count > object->unit_count - chunk->first)
		return base_fail(err, -EBADMSG,
				 "migration chunk: %" PRIu32 " units from %" PRIu64
				 " of object %u, which has %" PRIu64,
				 chunk->count, chunk->first, (unsigned int)chunk->object,
				 object->unit_count);
	return 0;
}

static int stored_check(const struct mig_chunk *chunk, struct base_error *err)
{
	uint32_t bytes = chunk->count * mig_unit_bytes(chunk->object); /* at most a span */
	bool good = chunk->stored_bytes == bytes;

	if (chunk->kind == MIG_CHUNK_LZ4)
		good = chunk->stored_bytes > 0 && chunk->stored_bytes < bytes;
	else if (!kind_is_stored(chunk->kind))
		good = chunk->stored_bytes == 0 && chunk->offset_bytes == 0 && chunk->region == 0 &&
		       chunk->crc == 0;
	if (!good)
		return base_fail(err, -EBADMSG,
				 "migration chunk of kind %d: %" PRIu32
				 " bytes stored for %" PRIu32,
				 (int)chunk->kind, chunk->stored_bytes, bytes);
	if (chunk->offset_bytes > UINT64_MAX - chunk->stored_bytes)
		return base_fail(err, -EBADMSG, "migration chunk: place %" PRIu64 " is too far",
				 chunk->offset_bytes);
	return 0;
}

int mig_chunk_decode(const uint8_t bytes[MIG_CHUNK_BYTES], const struct mig_object *objects,
		     uint32_t object_count, struct mig_chunk *ret_chunk, struct base_error *err)
{
	struct base_reader in = base_reader_over(bytes, MIG_CHUNK_BYTES);
	struct mig_chunk chunk = { .kind = (enum mig_chunk_kind)base_read_le16(&in) };
	int r = 0;

	chunk.object = base_read_le16(&in);
	chunk.round = base_read_le32(&in);
	chunk.first = base_read_le64(&in);
	chunk.count = base_read_le32(&in);
	chunk.stored_bytes = base_read_le32(&in);
	chunk.generation = base_read_le64(&in);
	chunk.offset_bytes = base_read_le64(&in);
	chunk.region = base_read_le32(&in);
	chunk.crc = base_read_le32(&in);
	if (chunk.kind == MIG_CHUNK_INVALID || chunk.kind >= MIG_CHUNK_KINDS)
		return base_fail(err, -EBADMSG, "migration chunk: kind %d, expected 1 to %d",
				 (int)chunk.kind, (int)MIG_CHUNK_KINDS - 1);
	if (chunk.object >= object_count)
		return base_fail(err, -EBADMSG, "migration chunk: object %u of %" PRIu32,
				 (unsigned int)chunk.object, object_count);
	if (kind_is_of_memory(chunk.kind) != (chunk.object == 0))
		return base_fail(err, -EBADMSG, "migration chunk: kind %d for object %u",
				 (int)chunk.kind, (unsigned int)chunk.object);
	r = span_check(&chunk, &objects[chunk.object], err);
	if (r == 0)
		r = stored_check(&chunk, err);
	if (r < 0)
		return r;
	*ret_chunk = chunk;
	return 0;
}
