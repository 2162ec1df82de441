/* SPDX-License-Identifier: Apache-2.0 */
#include "migrate/mig_body.h"

#include <errno.h>
#include <inttypes.h>
#include <string.h>

#include "base/plain.h"
#include "migrate/mig_body_priv.h"
#include "migrate/mig_switch.h"

#define ROUND_LAST         (1u << 0)
#define ROUND_SWEEP        (1u << 1)
#define ROUND_FLAGS        (ROUND_LAST | ROUND_SWEEP)
#define SEALED_POST        1u /* flag: pages follow */
#define REGISTER_PAD_BYTES 4u
#define BARRIER_PAD_BYTES  4u
#define VERSION_PAD_BYTES  2u
#define OPENED_PAD_BYTES   4u

int mig_body_size(const char *name, uint32_t size_bytes, uint32_t expected, struct base_error *err)
{
	if (size_bytes != expected)
		return base_fail(err, -EBADMSG,
				 "migration %s: %" PRIu32 " bytes, expected %" PRIu32, name,
				 size_bytes, expected);
	return 0;
}

int mig_body_zeros(const char *name, struct base_reader *in, size_t size_bytes,
		   struct base_error *err)
{
	const uint8_t *zeros = base_read_span(in, size_bytes);

	if (zeros == NULL)
		return base_fail(err, -EBADMSG, "migration %s: truncated", name);
	if (!base_is_zero(zeros, size_bytes))
		return base_fail(err, -EBADMSG, "migration %s: reserved bytes, expected 0", name);
	return 0;
}

/* --- OPENED --- */

void mig_opened_encode(const struct mig_opened *opened, uint8_t ret_bytes[MIG_OPENED_BYTES])
{
	struct base_writer out = base_writer_over(ret_bytes, MIG_OPENED_BYTES);

	base_write_le16(&out, opened->version);
	base_write_le16(&out, opened->version_min);
	base_write_le16(&out, opened->version_max);
	base_write_zeros(&out, VERSION_PAD_BYTES);
	base_write_le32(&out, opened->capabilities);
	base_write_zeros(&out, OPENED_PAD_BYTES);
	base_write_bytes(&out, opened->secret, MIG_ID_BYTES);
}

int mig_opened_decode(const uint8_t *bytes, uint32_t size_bytes, struct mig_opened *ret_opened,
		      struct base_error *err)
{
	struct base_reader in = base_reader_over(bytes, size_bytes);
	struct mig_opened opened = { .version = base_read_le16(&in) };
	int r = mig_body_size("opened", size_bytes, MIG_OPENED_BYTES, err);

	opened.version_min = base_read_le16(&in);
	opened.version_max = base_read_le16(&in);
	if (r == 0)
		r = mig_body_zeros("opened", &in, VERSION_PAD_BYTES, err);
	opened.capabilities = base_read_le32(&in);
	if (r == 0)
		r = mig_body_zeros("opened", &in, OPENED_PAD_BYTES, err);
	base_read_bytes(&in, opened.secret, MIG_ID_BYTES);
	if (r < 0)
		return r;
	if (opened.version_min == 0 || opened.version_min > opened.version_max)
		return base_fail(err, -EBADMSG, "migration opened: versions %u to %u",
				 (unsigned int)opened.version_min,
				 (unsigned int)opened.version_max);
	if (opened.version != 0 &&
	    (opened.version < opened.version_min || opened.version > opened.version_max))
		return base_fail(err, -EBADMSG,
				 "migration opened: version %u chosen, expected 0 or %u to %u",
				 (unsigned int)opened.version, (unsigned int)opened.version_min,
				 (unsigned int)opened.version_max);
	*ret_opened = opened;
	return 0;
}

/* --- rounds --- */

void mig_round_encode(const struct mig_round *round, uint8_t ret_bytes[MIG_ROUND_BYTES])
{
	struct base_writer out = base_writer_over(ret_bytes, MIG_ROUND_BYTES);

	base_write_le32(&out, round->number);
	base_write_le32(&out, (round->last ? ROUND_LAST : 0) | (round->sweep ? ROUND_SWEEP : 0));
	base_write_le64(&out, round->page_count);
	base_write_le64(&out, round->bytes);
}

int mig_round_decode(const uint8_t *bytes, uint32_t size_bytes, struct mig_round *ret_round,
		     struct base_error *err)
{
	struct base_reader in = base_reader_over(bytes, size_bytes);
	struct mig_round round = { .number = base_read_le32(&in) };
	uint32_t flags = base_read_le32(&in);
	int r = mig_body_size("round", size_bytes, MIG_ROUND_BYTES, err);

	round.last = (flags & ROUND_LAST) != 0;
	round.sweep = (flags & ROUND_SWEEP) != 0;
	round.page_count = base_read_le64(&in);
	round.bytes = base_read_le64(&in);
	if (r < 0)
		return r;
	if ((flags & ~ROUND_FLAGS) != 0)
		return base_fail(err, -EBADMSG,
				 "migration round: flags 0x%" PRIx32 ", expected none but 0x%x",
				 flags, ROUND_FLAGS);
	*ret_round = round;
	return 0;
}

void mig_barrier_encode(uint32_t round, uint8_t ret_bytes[MIG_NUMBER_BYTES])
{
	struct base_writer out = base_writer_over(ret_bytes, MIG_NUMBER_BYTES);

	base_write_le32(&out, round);
	base_write_zeros(&out, BARRIER_PAD_BYTES);
}

int mig_barrier_decode(const uint8_t *bytes, uint32_t size_bytes, uint32_t *ret_round,
		       struct base_error *err)
{
	struct base_reader in = base_reader_over(bytes, size_bytes);
	uint32_t round = base_read_le32(&in);
	int r = mig_body_size("barrier", size_bytes, MIG_NUMBER_BYTES, err);

	if (r == 0)
		r = mig_body_zeros("barrier", &in, BARRIER_PAD_BYTES, err);
	if (r < 0)
		return r;
	*ret_round = round;
	return 0;
}

/* --- device state, and that it was all --- */

void mig_state_encode(const struct mig_state_piece *piece, struct base_buffer *out)
{
	base_assert(piece->size_bytes > 0 && piece->size_bytes <= MIG_STATE_PIECE_BYTES);
	base_assert(piece->offset_bytes <= MIG_STATE_BYTES_MAX - piece->size_bytes);
	base_buffer_le64(out, piece->offset_bytes);
	base_buffer_append(out, piece->bytes, piece->size_bytes);
}

int mig_state_decode(const uint8_t *bytes, uint32_t size_bytes, struct mig_state_piece *ret_piece,
		     struct base_error *err)
{
	struct base_reader in = base_reader_over(bytes, size_bytes);
	struct mig_state_piece piece = { .offset_bytes = base_read_le64(&in) };

	if (size_bytes <= MIG_STATE_HEADER_BYTES || size_bytes > MIG_BODY_BYTES_MAX)
		return base_fail(err, -EBADMSG,
				 "migration state: %" PRIu32 " bytes, expected %u to %u",
				 size_bytes, MIG_STATE_HEADER_BYTES + 1, MIG_BODY_BYTES_MAX);
	piece.size_bytes = size_bytes - MIG_STATE_HEADER_BYTES;
	piece.bytes = base_read_span(&in, piece.size_bytes);
	if (piece.offset_bytes > MIG_STATE_BYTES_MAX - piece.size_bytes)
		return base_fail(err, -EBADMSG,
				 "migration state: %" PRIu32 " bytes at %" PRIu64
				 ", expected at most %u in all",
				 piece.size_bytes, piece.offset_bytes, MIG_STATE_BYTES_MAX);
	*ret_piece = piece;
	return 0;
}

void mig_sealed_encode(const struct mig_sealed *sealed, uint8_t ret_bytes[MIG_SEALED_BYTES])
{
	struct base_writer out = base_writer_over(ret_bytes, MIG_SEALED_BYTES);

	base_write_le32(&out, sealed->round);
	base_write_le32(&out, sealed->state_crc);
	base_write_le64(&out, sealed->chunks);
	base_write_le64(&out, sealed->state_bytes);
	base_write_le32(&out, sealed->post ? SEALED_POST : 0);
	base_write_le32(&out, 0);
	base_write_le64(&out, sealed->post ? sealed->owed_pages : 0);
	base_write_le64(&out, 0);
}

int mig_sealed_decode(const uint8_t *bytes, uint32_t size_bytes, struct mig_sealed *ret_sealed,
		      struct base_error *err)
{
	struct base_reader in = base_reader_over(bytes, size_bytes);
	struct mig_sealed sealed = { .round = base_read_le32(&in) };
	uint32_t flags = 0;
	int r = mig_body_size("sealed", size_bytes, MIG_SEALED_BYTES, err);

	sealed.state_crc = base_read_le32(&in);
	sealed.chunks = base_read_le64(&in);
	sealed.state_bytes = base_read_le64(&in);
	flags = base_read_le32(&in);
	sealed.post = flags == SEALED_POST;
	if (r == 0)
		r = mig_body_zeros("sealed", &in, 4, err);
	sealed.owed_pages = base_read_le64(&in);
	if (r == 0)
		r = mig_body_zeros("sealed", &in, 8, err);
	if (r < 0)
		return r;
	if ((flags != 0 && !sealed.post) || (sealed.owed_pages != 0 && !sealed.post))
		return base_fail(err, -EBADMSG,
				 "migration sealed: flags 0x%" PRIx32 ", %" PRIu64 " pages owed",
				 flags, sealed.owed_pages);
	if (sealed.state_bytes > MIG_STATE_BYTES_MAX)
		return base_fail(err, -EBADMSG,
				 "migration sealed: a state of %" PRIu64
				 " bytes, expected at most %u",
				 sealed.state_bytes, MIG_STATE_BYTES_MAX);
	*ret_sealed = sealed;
	return 0;
}

/* --- who runs it --- */

void mig_epoch_encode(const struct mig_epoch_note *note, uint8_t ret_bytes[MIG_EPOCH_BYTES])
{
	struct base_writer out = base_writer_over(ret_bytes, MIG_EPOCH_BYTES);

	base_write_le64(&out, note->epoch);
	base_write_le64(&out, note->took_ns);
}

int mig_epoch_decode(const uint8_t *bytes, uint32_t size_bytes, struct mig_epoch_note *ret_note,
		     struct base_error *err)
{
	struct base_reader in = base_reader_over(bytes, size_bytes);
	struct mig_epoch_note note = { .epoch = base_read_le64(&in) };
	int r = mig_body_size("epoch", size_bytes, MIG_EPOCH_BYTES, err);

	note.took_ns = base_read_le64(&in);
	if (r < 0)
		return r;
	*ret_note = note;
	return 0;
}

/* ASK and REGISTER look alike. */
static void register_encode(uint64_t number, uint64_t epoch, uint32_t owner, uint8_t *ret_bytes)
{
	struct base_writer out = base_writer_over(ret_bytes, MIG_ASK_BYTES);

	base_write_le64(&out, number);
	base_write_le64(&out, epoch);
	base_write_le32(&out, owner);
	base_write_zeros(&out, REGISTER_PAD_BYTES);
}

static int register_decode(const char *name, struct base_reader in, uint32_t owner_most,
			   struct mig_answer *ret_answer, struct base_error *err)
{
	struct mig_answer answer = { .number = base_read_le64(&in) };
	int r = mig_body_size(name, (uint32_t)in.size_bytes, MIG_ASK_BYTES, err);

	answer.epoch = base_read_le64(&in);
	answer.owner = base_read_le32(&in);
	if (r == 0)
		r = mig_body_zeros(name, &in, REGISTER_PAD_BYTES, err);
	if (r < 0)
		return r;
	if (answer.owner > owner_most)
		return base_fail(err, -EBADMSG,
				 "migration %s: owner %" PRIu32 ", expected 0 to %" PRIu32, name,
				 answer.owner, owner_most);
	if (answer.owner == MIG_SIDE_INVALID && answer.epoch != 0)
		return base_fail(err, -EBADMSG,
				 "migration %s: epoch %" PRIu64 " without an owner, expected 0",
				 name, answer.epoch);
	*ret_answer = answer;
	return 0;
}

void mig_ask_encode(const struct mig_ask *ask, uint8_t ret_bytes[MIG_ASK_BYTES])
{
	register_encode(ask->number, ask->epoch, ask->owner, ret_bytes);
}

int mig_ask_decode(const uint8_t *bytes, uint32_t size_bytes, struct mig_ask *ret_ask,
		   struct base_error *err)
{
	struct mig_answer asked = { .number = 0 };
	int r = register_decode("ask", base_reader_over(bytes, size_bytes), MIG_DESTINATION, &asked,
				err);

	if (r < 0)
		return r;
	if (asked.epoch == UINT64_MAX)
		return base_fail(err, -EBADMSG, "migration ask: no epoch is after %" PRIu64,
				 asked.epoch);
	*ret_ask = (struct mig_ask){ .number = asked.number,
				     .epoch = asked.epoch,
				     .owner = asked.owner };
	return 0;
}

void mig_answer_encode(const struct mig_answer *answer, uint8_t ret_bytes[MIG_REGISTER_BYTES])
{
	register_encode(answer->number, answer->epoch, answer->owner, ret_bytes);
}

int mig_answer_decode(const uint8_t *bytes, uint32_t size_bytes, struct mig_answer *ret_answer,
		      struct base_error *err)
{
	return register_decode("register", base_reader_over(bytes, size_bytes), MIG_OTHER,
			       ret_answer, err);
}

/* --- numbers and reasons --- */

void mig_number_encode(uint64_t number, uint8_t ret_bytes[MIG_NUMBER_BYTES])
{
	base_put_le64(ret_bytes, number);
}

int mig_number_decode(const uint8_t *bytes, uint32_t size_bytes, uint64_t *ret_number,
		      struct base_error *err)
{
	int r = mig_body_size("number", size_bytes, MIG_NUMBER_BYTES, err);

	if (r == 0)
		*ret_number = base_get_le64(bytes);
	return r;
}

size_t mig_body_cut(const char *text, size_t most_bytes)
{
	size_t length = strnlen(text, most_bytes + 1);

	if (length <= most_bytes)
		return length;
	length = most_bytes;
	while (length > 0 && most_bytes - length < 3 && ((uint8_t)text[length] & 0xc0) == 0x80)
		length--; /* in front of the character that does not fit */
	return length;
}

uint32_t mig_reason_encode(const char *text, uint8_t ret_bytes[MIG_NOTIFY_BYTES_MAX])
{
	char line[MIG_REASON_BYTES + 1];
	size_t length = mig_body_cut(text, MIG_REASON_BYTES);

	memcpy(line, text, length);
	line[length] = '\0';
	base_plain(line);
	length = strlen(line);
	memcpy(ret_bytes, line, length);
	return (uint32_t)length;
}

void mig_reason_decode(const uint8_t *bytes, uint32_t size_bytes, char *ret_text, size_t size)
{
	char line[MIG_REASON_BYTES + 1];
	size_t length = size_bytes < MIG_REASON_BYTES ? size_bytes : MIG_REASON_BYTES;

	base_assert(size > 0);
	if (length > 0)
		memcpy(line, bytes, length);
	for (size_t i = 0; i < length; i++)
		if (line[i] == '\0')
			line[i] = '?';
	line[length] = '\0';
	base_plain(line);
	length = mig_body_cut(line, size - 1);
	memcpy(ret_text, line, length);
	ret_text[length] = '\0';
}
