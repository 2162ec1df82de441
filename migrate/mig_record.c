/* SPDX-License-Identifier: Apache-2.0 */
/* A record's bytes, and which records there can be. */
#include "migrate/mig_record.h"

#include <errno.h>
#include <inttypes.h>
#include <string.h>

#include "base/bytes.h"
#include "base/crc32c.h"

#define RECORD_MAGIC   0x524d5747u /* "GWMR" */
#define RECORD_VERSION 1u
#define OWNER_ZEROS    7u
#define TAIL_ZEROS     132u
#define CRC_AT         (MIG_RECORD_BYTES - 4u)

static const char *const kinds[MIG_RECORD_KINDS] = {
	[MIG_RECORD_REGISTER] = "register",
	[MIG_RECORD_PROMISE] = "promise",
};

static const char *const states[MIG_HELD_STATES] = {
	[MIG_HELD_ALL_HERE] = "all here", [MIG_HELD_ACTIVATING] = "activating",
	[MIG_HELD_RUNS] = "runs",         [MIG_HELD_LEFT] = "left",
	[MIG_HELD_PROMISED] = "promised", [MIG_HELD_RESOLVED] = "resolved",
	[MIG_HELD_OVER] = "over",         [MIG_HELD_COMING] = "coming",
};

const char *mig_record_kind_name(enum mig_record_kind kind)
{
	return (uint32_t)kind < MIG_RECORD_KINDS && kinds[kind] != NULL ? kinds[kind] : "invalid";
}

const char *mig_record_state_name(enum mig_record_state state)
{
	return (uint32_t)state < MIG_HELD_STATES && states[state] != NULL ? states[state]
									  : "invalid";
}

bool mig_record_given_back(const struct mig_record *record)
{
	return record->kind == MIG_RECORD_REGISTER && record->now.owner == MIG_SOURCE &&
	       record->now.epoch > record->from_epoch;
}

bool mig_record_in_doubt(const struct mig_record *record)
{
	return record->state == MIG_HELD_PROMISED ||
	       (record->state == MIG_HELD_ALL_HERE && record->now.owner == MIG_SOURCE &&
		record->now.epoch == record->from_epoch);
}

static bool is_letter_or_digit(char c)
{
	return (c >= 'A' && c <= 'Z') || (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9');
}

/* As the names of VMs are; so it is a file's name as well. */
static bool is_name(const char *text)
{
	size_t length = strnlen(text, MIG_RECORD_NAME_BYTES);

	if (length == MIG_RECORD_NAME_BYTES || !is_letter_or_digit(text[0]))
		return false;
	for (size_t i = 1; i < length; i++)
		if (!is_letter_or_digit(text[i]) && strchr("._-", text[i]) == NULL)
			return false;
	return true;
}

static bool is_address(const char *text)
{
	size_t length = strnlen(text, MIG_RECORD_PEER_BYTES);

	if (length == MIG_RECORD_PEER_BYTES || length == 0)
		return false;
	for (size_t i = 0; i < length; i++)
		if (text[i] < ' ' || text[i] > '~')
			return false;
	return true;
}

/* Section 2's second table. */
static bool can_be(const struct mig_record *record)
{
	uint64_t steps = record->now.epoch - record->from_epoch;
	bool here = record->now.owner == MIG_DESTINATION && steps == 1;
	bool back = record->now.owner == MIG_SOURCE && (steps == 1 || steps == 2);
	bool begun = record->now.owner == MIG_SOURCE && steps == 0;

	if (record->kind == MIG_RECORD_PROMISE) {
		if (record->state == MIG_HELD_PROMISED)
			return begun;
		if (record->state == MIG_HELD_OVER)
			return here || back;
		return record->state == MIG_HELD_RESOLVED && steps == 2 &&
		       (record->now.owner == MIG_SOURCE || record->now.owner == MIG_DESTINATION);
	}
	if (record->kind != MIG_RECORD_REGISTER)
		return false;
	switch (record->state) {
	case MIG_HELD_COMING:
		return begun;
	case MIG_HELD_ALL_HERE:
		return begun || here || back;
	case MIG_HELD_ACTIVATING:
	case MIG_HELD_RUNS:
		return here;
	case MIG_HELD_LEFT:
		return back;
	case MIG_HELD_INVALID:
	case MIG_HELD_PROMISED:
	case MIG_HELD_RESOLVED:
	case MIG_HELD_OVER:
	case MIG_HELD_STATES:
	default:
		return false;
	}
}

static int fail_sense(const struct mig_record *record, int code, struct base_error *err)
{
	return base_fail(err, code,
			 "record: kind %d, state %d, register (%" PRIu64 ", %d) from epoch %" PRIu64
			 ": expected one that can come about",
			 (int)record->kind, (int)record->state, record->now.epoch,
			 (int)record->now.owner, record->from_epoch);
}

int mig_record_check(const struct mig_record *record, struct base_error *err)
{
	if (!is_name(record->name))
		return base_fail(err, -EINVAL,
				 "name '%.64s': expected 1 to 63 of the characters A-Z a-z 0-9 . "
				 "_ -, the first a letter or digit",
				 record->name);
	if (!is_address(record->peer))
		return base_fail(err, -EINVAL,
				 "other side: expected 1 to 255 printable characters of ASCII");
	if (record->from_epoch == 0 || record->from_epoch > MIG_EPOCH_MAX)
		return base_fail(err, -EINVAL, "epoch %" PRIu64 ": expected 1 to %" PRIu64,
				 record->from_epoch, MIG_EPOCH_MAX);
	if (!can_be(record))
		return fail_sense(record, -EINVAL, err);
	return 0;
}

void mig_record_encode(const struct mig_record *record, uint8_t ret_bytes[MIG_RECORD_BYTES])
{
	struct base_writer out = base_writer_over(ret_bytes, MIG_RECORD_BYTES);
	size_t name_bytes = strnlen(record->name, sizeof(record->name));
	size_t peer_bytes = strnlen(record->peer, sizeof(record->peer));

	base_write_le32(&out, RECORD_MAGIC);
	base_write_le16(&out, RECORD_VERSION);
	base_write_u8(&out, (uint8_t)record->kind);
	base_write_u8(&out, (uint8_t)record->state);
	base_write_le64(&out, record->now.epoch);
	base_write_u8(&out, (uint8_t)record->now.owner);
	base_write_zeros(&out, OWNER_ZEROS);
	base_write_le64(&out, record->from_epoch);
	base_write_bytes(&out, record->id, sizeof(record->id));
	base_write_le64(&out, record->written_s);
	base_write_bytes(&out, record->name, name_bytes);
	base_write_zeros(&out, MIG_RECORD_NAME_BYTES - name_bytes);
	base_write_bytes(&out, record->peer, peer_bytes);
	base_write_zeros(&out, MIG_RECORD_PEER_BYTES - peer_bytes);
	base_write_zeros(&out, TAIL_ZEROS);
	base_write_le32(&out, base_crc32c(0, ret_bytes, CRC_AT));
	base_assert(!out.failed && out.offset_bytes == MIG_RECORD_BYTES);
}

/* Text with zeros behind it up to the end of its field. */
static bool read_text(struct base_reader *in, char *to, size_t field_bytes)
{
	size_t length;

	base_read_bytes(in, to, field_bytes);
	length = strnlen(to, field_bytes);
	return length < field_bytes && base_is_zero(to + length, field_bytes - length);
}

static bool read_zeros(struct base_reader *in, size_t size_bytes)
{
	const uint8_t *span = base_read_span(in, size_bytes);

	return span != NULL && base_is_zero(span, size_bytes);
}

/* What is there before the fields: whole, ours, of a version that we know. */
static int decode_outside(const uint8_t *bytes, size_t size_bytes, struct base_error *err)
{
	uint32_t crc;

	if (size_bytes != MIG_RECORD_BYTES)
		return base_fail(err, -EBADMSG, "record of %zu bytes: expected %u", size_bytes,
				 MIG_RECORD_BYTES);
	if (base_get_le32(bytes) != RECORD_MAGIC)
		return base_fail(err, -EBADMSG, "record: magic 0x%08" PRIx32 ": expected 0x%08x",
				 base_get_le32(bytes), RECORD_MAGIC);
	crc = base_crc32c(0, bytes, CRC_AT);
	if (base_get_le32(bytes + CRC_AT) != crc)
		return base_fail(err, -EBADMSG,
				 "record: checksum 0x%08" PRIx32 ": expected 0x%08" PRIx32,
				 base_get_le32(bytes + CRC_AT), crc);
	if (base_get_le16(bytes + 4) != RECORD_VERSION)
		return base_fail(err, -EBADMSG, "record: version %u: expected %u",
				 base_get_le16(bytes + 4), RECORD_VERSION);
	return 0;
}

int mig_record_decode(const uint8_t *bytes, size_t size_bytes, struct mig_record *ret_record,
		      struct base_error *err)
{
	struct base_reader in = base_reader_over(bytes, size_bytes);
	struct mig_record record = { 0 };
	bool zeros;
	bool texts;
	int code = decode_outside(bytes, size_bytes, err);

	if (code < 0)
		return code;
	base_read_skip(&in, 6);
	record.kind = (enum mig_record_kind)base_read_u8(&in);
	record.state = (enum mig_record_state)base_read_u8(&in);
	record.now.epoch = base_read_le64(&in);
	record.now.owner = (enum mig_side)base_read_u8(&in);
	zeros = read_zeros(&in, OWNER_ZEROS);
	record.from_epoch = base_read_le64(&in);
	base_read_bytes(&in, record.id, sizeof(record.id));
	record.written_s = base_read_le64(&in);
	texts = read_text(&in, record.name, sizeof(record.name));
	texts = read_text(&in, record.peer, sizeof(record.peer)) && texts;
	zeros = read_zeros(&in, TAIL_ZEROS) && zeros;
	if (!zeros)
		return base_fail(err, -EBADMSG, "record: reserved bytes: expected zeros");
	if (!texts || !is_name(record.name) || !is_address(record.peer))
		return base_fail(err, -EBADMSG,
				 "record: name or other side: expected text with zeros behind it");
	if (record.kind != MIG_RECORD_REGISTER && record.kind != MIG_RECORD_PROMISE)
		return base_fail(err, -EBADMSG, "record: kind %d: expected 1 or 2",
				 (int)record.kind);
	if (record.from_epoch == 0 || record.from_epoch > MIG_EPOCH_MAX)
		return base_fail(err, -EBADMSG, "record: epoch %" PRIu64 ": expected 1 to %" PRIu64,
				 record.from_epoch, MIG_EPOCH_MAX);
	if (!can_be(&record))
		return fail_sense(&record, -EBADMSG, err);
	*ret_record = record;
	return 0;
}
