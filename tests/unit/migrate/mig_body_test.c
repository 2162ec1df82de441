/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Bodies of a migration's messages: what goes in comes out, each rule is broken alone and named,
 * and what is short, long or lies about its counts is refused.
 */
#include "migrate/mig_body.h"

#include <criterion/criterion.h>
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "base/plain.h"
#include "migrate/mig_intake.h"
#include "migrate/mig_switch.h"
#include "tests/support/alloc_fail.h"

static struct base_error err;
static struct base_buffer buffer;
static struct mig_failure failures[MIG_FAILURES_MAX];
static struct mig_findings findings;

static void teardown(void)
{
	base_buffer_fini(&buffer);
}

TestSuite(mig_body, .fini = teardown);

/* --- one way to call all decoders --- */

typedef int (*decoder)(const uint8_t *bytes, uint32_t size_bytes);

#define FIXED(name, type)                                                                          \
	static int take_##name(const uint8_t *bytes, uint32_t size_bytes)                          \
	{                                                                                          \
		uint8_t again[64];                                                                 \
		type out;                                                                          \
		int r = mig_##name##_decode(bytes, size_bytes, &out, &err);                        \
                                                                                                   \
		if (r < 0)                                                                         \
			return r;                                                                  \
		mig_##name##_encode(&out, again);                                                  \
		cr_assert_eq(memcmp(again, bytes, size_bytes), 0, "one encoding");                 \
		return 0;                                                                          \
	}
FIXED(opened, struct mig_opened)
FIXED(round, struct mig_round)
FIXED(sealed, struct mig_sealed)
FIXED(epoch, struct mig_epoch_note)
FIXED(ask, struct mig_ask)
FIXED(answer, struct mig_answer)

static int take_barrier(const uint8_t *bytes, uint32_t size_bytes)
{
	uint8_t again[MIG_NUMBER_BYTES];
	uint32_t number = 0;
	int r = mig_barrier_decode(bytes, size_bytes, &number, &err);

	if (r < 0)
		return r;
	mig_barrier_encode(number, again);
	cr_assert_eq(memcmp(again, bytes, size_bytes), 0);
	return 0;
}

static int take_number(const uint8_t *bytes, uint32_t size_bytes)
{
	uint8_t again[MIG_NUMBER_BYTES];
	uint64_t number = 0;
	int r = mig_number_decode(bytes, size_bytes, &number, &err);

	if (r < 0)
		return r;
	mig_number_encode(number, again);
	cr_assert_eq(memcmp(again, bytes, size_bytes), 0);
	return 0;
}

/* The same bytes again, in a buffer. */
static void expect_again(struct base_buffer *again, const uint8_t *bytes, uint32_t size_bytes)
{
	cr_assert_not(again->failed);
	cr_assert_eq(again->size_bytes, size_bytes);
	cr_assert_eq(memcmp(again->data, bytes, size_bytes), 0);
	base_buffer_fini(again);
}

static int take_plan(const uint8_t *bytes, uint32_t size_bytes)
{
	struct base_buffer again = { .data = NULL };
	struct mig_plan plan;
	int r = mig_plan_decode(bytes, size_bytes, &plan, &err);

	if (r < 0)
		return r;
	cr_assert_eq(mig_plan_encode(&plan, &again, &err), 0, "%s", err.text);
	expect_again(&again, bytes, size_bytes);
	mig_plan_fini(&plan);
	return 0;
}

static int take_findings(const uint8_t *bytes, uint32_t size_bytes)
{
	struct base_buffer again = { .data = NULL };
	int r = mig_findings_decode(bytes, size_bytes, &findings, &err);

	if (r < 0)
		return r;
	mig_findings_encode(&findings, &again);
	expect_again(&again, bytes, size_bytes);
	return 0;
}

static int take_done(const uint8_t *bytes, uint32_t size_bytes)
{
	struct base_buffer again = { .data = NULL };
	uint32_t number = 0;
	uint32_t count = 0;
	int r = mig_done_decode(bytes, size_bytes, &number, failures, &count, &err);

	if (r < 0)
		return r;
	mig_done_encode(number, failures, count, &again);
	expect_again(&again, bytes, size_bytes);
	return 0;
}

static int take_state(const uint8_t *bytes, uint32_t size_bytes)
{
	struct base_buffer again = { .data = NULL };
	struct mig_state_piece piece;
	int r = mig_state_decode(bytes, size_bytes, &piece, &err);

	if (r < 0)
		return r;
	mig_state_encode(&piece, &again);
	expect_again(&again, bytes, size_bytes);
	return 0;
}

/* --- one good body of each --- */

static const struct mig_opened opened = { .version = 1,
					  .version_min = 1,
					  .version_max = 3,
					  .capabilities = 0x80000003,
					  .secret = { 1, 2, 3 } };
static const struct mig_round round_last = {
	.number = 7, .last = true, .sweep = true, .page_count = 5, .bytes = 5 * 4096
};
static const struct mig_sealed sealed = {
	.round = 7, .chunks = 1ULL << 33, .state_bytes = MIG_STATE_BYTES_MAX, .state_crc = 0xabcd
};
static const struct mig_epoch_note note = { .epoch = 8, .took_ns = 1ULL << 40 };
static const struct mig_ask ask = { .number = 3, .epoch = 7, .owner = MIG_DESTINATION };
static const struct mig_answer answer = { .number = 3, .epoch = 8, .owner = MIG_OTHER };

static struct mig_plan_object two_objects[] = {
	{ .object = { .unit_count = 1u << 20 }, .description = (char[]){ "" } },
	{ .object = { .unit_count = 2048 }, .description = (char[]){ "{\"path\":\"a.vhdx\"}" } },
};
static char config[] = "{\"name\":\"v\303\244\"}";
static char nothing[] = "";
static char described[] = "d";
static char escape[] = "\x1b";

static struct mig_plan plan_of_two(void)
{
	return (struct mig_plan){ .epoch = 7,
				  .capabilities = MIG_CAN_ALL | 1u << 31,
				  .flags = MIG_PLAN_VERIFY,
				  .config = config,
				  .object_count = 2,
				  .objects = two_objects };
}

#define EACH 11

/* Bytes of a good body, in a block of exactly its size. */
static uint8_t *good(int which, uint32_t *ret_size, decoder *ret_decoder)
{
	static const decoder decoders[EACH] = { take_opened,   take_round,  take_sealed,
						take_epoch,    take_ask,    take_answer,
						take_barrier,  take_number, take_plan,
						take_findings, take_done };
	static const uint32_t sizes[EACH] = { MIG_OPENED_BYTES, MIG_ROUND_BYTES, MIG_SEALED_BYTES,
					      MIG_EPOCH_BYTES,  MIG_ASK_BYTES,   MIG_REGISTER_BYTES,
					      MIG_NUMBER_BYTES, MIG_NUMBER_BYTES };
	struct base_buffer out = { .data = NULL };
	uint8_t fixed[64];

	mig_opened_encode(&opened, fixed);
	if (which == 1)
		mig_round_encode(&round_last, fixed);
	if (which == 2)
		mig_sealed_encode(&sealed, fixed);
	if (which == 3)
		mig_epoch_encode(&note, fixed);
	if (which == 4)
		mig_ask_encode(&ask, fixed);
	if (which == 5)
		mig_answer_encode(&answer, fixed);
	if (which == 6)
		mig_barrier_encode(9, fixed);
	if (which == 7)
		mig_number_encode(1ULL << 60, fixed);
	base_buffer_append(&out, fixed, sizes[which]);
	if (which == 8) {
		struct mig_plan plan = plan_of_two();

		cr_assert_eq(mig_plan_encode(&plan, &out, &err), 0, "%s", err.text);
	}
	if (which == 9) {
		findings = (struct mig_findings){ .count = 0 };
		mig_findings_add(&findings, "no %s", "room");
		mig_findings_add(&findings, "no CPU feature %u", 5u);
		mig_findings_encode(&findings, &out);
	}
	if (which == 10) {
		failures[0] = (struct mig_failure){ .first = 256, .count = 256 };
		failures[1] = (struct mig_failure){ .first = 2047, .count = 1, .object = 1 };
		mig_done_encode(4, failures, 2, &out);
	}
	cr_assert_not(out.failed);
	*ret_size = (uint32_t)out.size_bytes;
	*ret_decoder = decoders[which];
	return out.data;
}

/* A block that ends where the body does, so that the sanitizer sees a byte too far. */
static int take_copy(decoder decode, const uint8_t *bytes, uint32_t size_bytes)
{
	uint8_t *copy = malloc(size_bytes > 0 ? size_bytes : 1);
	int r = 0;

	cr_assert_not_null(copy);
	memcpy(copy, bytes, size_bytes);
	err = (struct base_error){ .code = 0 };
	r = decode(copy, size_bytes);
	free(copy);
	return r;
}

Test(mig_body, all_of_it_and_nothing_behind)
{
	for (int which = 0; which < EACH; which++) {
		decoder decode = NULL;
		uint32_t size = 0;
		uint8_t *bytes = good(which, &size, &decode);
		uint8_t *longer = calloc(1, size + 1);

		cr_assert_eq(take_copy(decode, bytes, size), 0, "%d: %s", which, err.text);
		for (uint32_t cut = 0; cut < size; cut++) {
			cr_assert_eq(take_copy(decode, bytes, cut), -EBADMSG, "%d: %u", which, cut);
			cr_assert_neq(err.text[0], '\0');
		}
		cr_assert_not_null(longer);
		memcpy(longer, bytes, size);
		cr_assert_eq(take_copy(decode, longer, size + 1), -EBADMSG, "%d", which);
		free(longer);
		free(bytes);
	}
}

/* Whatever is done to a byte: it is refused, or what comes out is encoded as these bytes (which
 * the decoders of this test look at). */
Test(mig_body, one_encoding_whatever_a_byte_is)
{
	for (int which = 0; which < EACH; which++) {
		decoder decode = NULL;
		uint32_t size = 0;
		uint8_t *bytes = good(which, &size, &decode);

		for (uint32_t i = 0; i < size; i++) {
			uint8_t was = bytes[i];

			for (uint32_t value = 0; value < 256; value++) {
				int r = 0;

				bytes[i] = (uint8_t)value;
				r = take_copy(decode, bytes, size);
				cr_assert(r == 0 || r == -EBADMSG, "%d: %d", which, r);
			}
			bytes[i] = was;
		}
		free(bytes);
	}
}

/* --- what comes out --- */

Test(mig_body, fields_come_out)
{
	uint8_t bytes[64];
	struct mig_opened o;
	struct mig_round r;
	struct mig_sealed s;
	struct mig_epoch_note n;
	struct mig_ask a;
	struct mig_answer b;

	mig_opened_encode(&opened, bytes);
	cr_assert_eq(mig_opened_decode(bytes, MIG_OPENED_BYTES, &o, &err), 0);
	cr_assert(o.version == 1 && o.version_min == 1 && o.version_max == 3);
	cr_assert_eq(o.capabilities, 0x80000003);
	cr_assert_eq(memcmp(o.secret, opened.secret, MIG_ID_BYTES), 0);
	mig_round_encode(&round_last, bytes);
	cr_assert_eq(mig_round_decode(bytes, MIG_ROUND_BYTES, &r, &err), 0);
	cr_assert(r.number == 7 && r.last && r.sweep && r.page_count == 5 && r.bytes == 20480);
	mig_sealed_encode(&sealed, bytes);
	cr_assert_eq(mig_sealed_decode(bytes, MIG_SEALED_BYTES, &s, &err), 0);
	cr_assert(s.round == 7 && s.chunks == 1ULL << 33 && s.state_crc == 0xabcd);
	cr_assert_eq(s.state_bytes, MIG_STATE_BYTES_MAX);
	mig_epoch_encode(&note, bytes);
	cr_assert_eq(mig_epoch_decode(bytes, MIG_EPOCH_BYTES, &n, &err), 0);
	cr_assert(n.epoch == 8 && n.took_ns == 1ULL << 40);
	mig_ask_encode(&ask, bytes);
	cr_assert_eq(mig_ask_decode(bytes, MIG_ASK_BYTES, &a, &err), 0);
	cr_assert(a.number == 3 && a.epoch == 7 && a.owner == MIG_DESTINATION);
	mig_answer_encode(&answer, bytes);
	cr_assert_eq(mig_answer_decode(bytes, MIG_REGISTER_BYTES, &b, &err), 0);
	cr_assert(b.number == 3 && b.epoch == 8 && b.owner == MIG_OTHER);
}

Test(mig_body, lists_come_out)
{
	decoder decode = NULL;
	uint32_t size = 0;
	uint32_t number = 0;
	uint32_t count = 0;
	uint8_t *bytes = good(10, &size, &decode);

	memset(failures, 0, sizeof(failures));
	cr_assert_eq(mig_done_decode(bytes, size, &number, failures, &count, &err), 0);
	cr_assert(number == 4 && count == 2);
	cr_assert(failures[0].first == 256 && failures[0].count == 256 && failures[0].object == 0);
	cr_assert(failures[1].first == 2047 && failures[1].count == 1 && failures[1].object == 1);
	free(bytes);
	bytes = good(9, &size, &decode);
	memset(&findings, 0, sizeof(findings));
	cr_assert_eq(mig_findings_decode(bytes, size, &findings, &err), 0);
	cr_assert(findings.count == 2 && findings.dropped == 0);
	cr_assert_str_eq(findings.lines[0], "no room");
	cr_assert_str_eq(findings.lines[1], "no CPU feature 5");
	free(bytes);
}

/* --- one rule broken at a time --- */

static void expect_bad_at(int which, uint32_t offset, uint32_t width, uint64_t value,
			  const char *text)
{
	decoder decode = NULL;
	uint32_t size = 0;
	uint8_t *bytes = good(which, &size, &decode);

	for (uint32_t i = 0; i < width; i++)
		bytes[offset + i] = (uint8_t)(value >> 8 * i);
	cr_assert_eq(take_copy(decode, bytes, size), -EBADMSG, "%d, byte %u", which, offset);
	cr_assert_not_null(strstr(err.text, text), "%s, not %s", err.text, text);
	free(bytes);
}

Test(mig_body, fields_that_cannot_be)
{
	expect_bad_at(0, 0, 2, 4, "version 4 chosen, expected 0 or 1 to 3");
	expect_bad_at(0, 2, 2, 0, "versions 0 to 3");
	expect_bad_at(0, 2, 2, 2, "version 1 chosen, expected 0 or 2 to 3");
	expect_bad_at(0, 2, 2, 4, "versions 4 to 3");
	expect_bad_at(0, 6, 2, 1, "migration opened: reserved bytes, expected 0");
	expect_bad_at(0, 12, 4, 1u << 31, "migration opened: reserved bytes");
	expect_bad_at(1, 4, 4, 5, "migration round: flags 0x5, expected none but 0x3");
	expect_bad_at(2, 16, 8, MIG_STATE_BYTES_MAX + 1ULL,
		      "a state of 67108865 bytes, expected at most 67108864");
	expect_bad_at(2, 24, 1, 2, "migration sealed: flags 0x2");
	expect_bad_at(2, 28, 1, 1, "migration sealed: reserved bytes");
	expect_bad_at(2, 32, 1, 1, "migration sealed: flags 0x0, 1 pages owed");
	expect_bad_at(2, 47, 1, 1, "migration sealed: reserved bytes");
	expect_bad_at(4, 16, 4, MIG_OTHER, "migration ask: owner 3, expected 0 to 2");
	expect_bad_at(4, 16, 4, 0, "migration ask: epoch 7 without an owner, expected 0");
	expect_bad_at(4, 8, 8, UINT64_MAX, "migration ask: no epoch is after");
	expect_bad_at(4, 20, 4, 1, "migration ask: reserved bytes");
	expect_bad_at(5, 16, 4, MIG_SIDES, "migration register: owner 4, expected 0 to 3");
	expect_bad_at(5, 16, 4, 0, "migration register: epoch 8 without an owner, expected 0");
	expect_bad_at(5, 20, 4, 1, "migration register: reserved bytes");
	expect_bad_at(6, 4, 4, 1, "migration barrier: reserved bytes");
}

Test(mig_body, sizes_are_named)
{
	static const char *const texts[] = {
		"migration opened: 0 bytes, expected 32",
		"migration round: 0 bytes, expected 24",
		"migration sealed: 0 bytes, expected 48",
		"migration epoch: 0 bytes, expected 16",
		"migration ask: 0 bytes, expected 24",
		"migration register: 0 bytes, expected 24",
		"migration barrier: 0 bytes, expected 8",
		"migration number: 0 bytes, expected 8",
		"migration plan: truncated",
		"migration findings: truncated",
		"migration round-done: truncated",
	};

	for (int which = 0; which < EACH; which++) {
		decoder decode = NULL;
		uint32_t size = 0;
		uint8_t *bytes = good(which, &size, &decode);

		cr_assert_eq(take_copy(decode, bytes, 0), -EBADMSG);
		cr_assert_str_eq(err.text, texts[which]);
		free(bytes);
	}
}

Test(mig_body, done_that_cannot_be)
{
	expect_bad_at(10, 4, 4, MIG_FAILURES_MAX + 1, "65536 chunks, expected at most 65535");
	expect_bad_at(10, 4, 4, UINT32_MAX, "4294967295 chunks, expected at most 65535");
	expect_bad_at(10, 4, 4, 1, "round-done: 40 bytes, expected 24");
	expect_bad_at(10, 4, 4, 3, "round-done: 40 bytes, expected 56");
	expect_bad_at(10, 16, 4, 0, "0 units from 256, expected 1 or more within a span of 256");
	expect_bad_at(10, 16, 4, 257, "257 units from 256");
	expect_bad_at(10, 8, 8, 257, "256 units from 257");
	expect_bad_at(10, 8, 8, UINT64_MAX, "256 units from 18446744073709551615");
	expect_bad_at(10, 20, 2, 1024, "object 1024, expected less than 1024");
	expect_bad_at(10, 22, 2, 1, "round-done: reserved bytes");
	expect_bad_at(10, 32, 4, 2, "2 units from 2047, expected 1 or more within a span of 2048");
}

Test(mig_body, done_of_as_many_as_there_may_be)
{
	uint32_t number = 0;
	uint32_t count = 0;

	for (uint32_t i = 0; i < MIG_FAILURES_MAX; i++)
		failures[i] = (struct mig_failure){ .first = i, .count = 1 };
	mig_done_encode(1, failures, MIG_FAILURES_MAX, &buffer);
	cr_assert_not(buffer.failed);
	cr_assert_leq(buffer.size_bytes, MIG_BODY_BYTES_MAX);
	cr_assert_eq(mig_done_decode(buffer.data, (uint32_t)buffer.size_bytes, &number, failures,
				     &count, &err),
		     0);
	cr_assert_eq(count, MIG_FAILURES_MAX);
}

/* --- device state --- */

Test(mig_body, pieces_of_state)
{
	static uint8_t bytes[MIG_BODY_BYTES_MAX + 1];
	struct mig_state_piece piece = { .offset_bytes = 1u << 20,
					 .bytes = (const uint8_t *)"abc",
					 .size_bytes = 3 };

	mig_state_encode(&piece, &buffer);
	cr_assert_eq(buffer.size_bytes, MIG_STATE_HEADER_BYTES + 3);
	piece = (struct mig_state_piece){ .size_bytes = 0 };
	cr_assert_eq(mig_state_decode(buffer.data, 11, &piece, &err), 0);
	cr_assert(piece.offset_bytes == 1u << 20 && piece.size_bytes == 3);
	cr_assert_eq(memcmp(piece.bytes, "abc", 3), 0);
	for (uint32_t cut = 0; cut <= MIG_STATE_HEADER_BYTES; cut++) {
		cr_assert_eq(take_copy(take_state, buffer.data, cut), -EBADMSG);
		cr_assert_not_null(strstr(err.text, "bytes, expected 9 to 1048576"), "%s",
				   err.text);
	}
	base_put_le64(bytes, MIG_STATE_BYTES_MAX - 3);
	cr_assert_eq(take_copy(take_state, bytes, 11), 0);
	cr_assert_eq(take_copy(take_state, bytes, 12), -EBADMSG);
	cr_assert_str_eq(err.text, "migration state: 4 bytes at 67108861, expected at most "
				   "67108864 in all");
	base_put_le64(bytes, UINT64_MAX);
	cr_assert_eq(take_copy(take_state, bytes, 12), -EBADMSG);
	base_put_le64(bytes, 0);
	cr_assert_eq(take_copy(take_state, bytes, MIG_BODY_BYTES_MAX), 0);
	cr_assert_eq(take_copy(take_state, bytes, MIG_BODY_BYTES_MAX + 1), -EBADMSG);
}

/* --- findings --- */

Test(mig_body, findings_that_cannot_be)
{
	expect_bad_at(9, 0, 4, 65, "65 lines, expected at most 64");
	expect_bad_at(9, 0, 4, UINT32_MAX, "lines, expected at most 64");
	expect_bad_at(9, 0, 4, 3, "migration findings: truncated");
	expect_bad_at(9, 0, 4, 1, "migration findings: 18 bytes too many");
	expect_bad_at(9, 4, 4, 1, "1 more than 2 lines, expected none but after 64");
	expect_bad_at(9, 8, 2, 0, "a line of 0 bytes, expected 1 to 399");
	expect_bad_at(9, 8, 2, UINT16_MAX, "migration findings: truncated");
	expect_bad_at(9, 10, 1, 0, "a line that is not printable UTF-8");
	expect_bad_at(9, 10, 1, '\n', "a line that is not printable UTF-8");
	expect_bad_at(9, 10, 1, 0xff, "a line that is not printable UTF-8");
}

Test(mig_body, a_finding_that_is_too_long)
{
	uint8_t bytes[8 + 2 + MIG_FINDING_BYTES];

	memset(bytes, 'x', sizeof(bytes));
	memset(bytes, 0, 8);
	bytes[0] = 1;
	base_put_le16(bytes + 8, MIG_FINDING_BYTES - 1);
	cr_assert_eq(take_copy(take_findings, bytes, sizeof(bytes) - 1), 0, "%s", err.text);
	base_put_le16(bytes + 8, MIG_FINDING_BYTES);
	cr_assert_eq(take_copy(take_findings, bytes, sizeof(bytes)), -EBADMSG);
	cr_assert_not_null(strstr(err.text, "a line of 400 bytes, expected 1 to 399"), "%s",
			   err.text);
}

/* Whatever is added can be sent. */
Test(mig_body, findings_are_made_fit)
{
	char text[600];

	findings = (struct mig_findings){ .count = 0 };
	mig_findings_add(&findings, "%s", "");
	mig_findings_add(&findings, "disk '%s'", "a\nb\x1b[2J\xff");
	memset(text, 'y', sizeof(text));
	memcpy(text + 397, "\xe2\x82\xac", 4); /* one byte of it would fit and another not */
	mig_findings_add(&findings, "%s", text);
	memset(text, 'y', sizeof(text) - 1);
	text[sizeof(text) - 1] = '\0';
	mig_findings_add(&findings, "%s", text);
	cr_assert_eq(findings.count, 4);
	cr_assert_str_eq(findings.lines[0], "?");
	cr_assert_str_eq(findings.lines[1], "disk 'a?b?[2J?'");
	cr_assert_eq(strlen(findings.lines[2]), 397);
	cr_assert_eq(strlen(findings.lines[3]), 399);
	mig_findings_encode(&findings, &buffer);
	cr_assert_eq(take_findings(buffer.data, (uint32_t)buffer.size_bytes), 0, "%s", err.text);
	for (uint32_t i = 4; i < MIG_FINDINGS_MAX + 10; i++)
		mig_findings_add(&findings, "%s", text);
	cr_assert_eq(findings.count, MIG_FINDINGS_MAX);
	cr_assert_eq(findings.dropped, 10);
	base_buffer_fini(&buffer);
	mig_findings_encode(&findings, &buffer);
	cr_assert_leq(buffer.size_bytes, MIG_FINDINGS_BYTES_MAX);
	cr_assert_eq(take_findings(buffer.data, (uint32_t)buffer.size_bytes), 0, "%s", err.text);
	cr_assert_eq(findings.dropped, 10);
}

/* --- reasons --- */

static const char *reason_of(const void *bytes, uint32_t size_bytes)
{
	static char text[MIG_REASON_BYTES + 1];

	mig_reason_decode(bytes, size_bytes, text, sizeof(text));
	cr_assert(base_is_plain(text, strlen(text)));
	return text;
}

Test(mig_body, reasons)
{
	static char text[3 * MIG_NOTIFY_BYTES_MAX];
	uint8_t bytes[MIG_NOTIFY_BYTES_MAX];
	char few[8];

	cr_assert_eq(mig_reason_encode("no room", bytes), 7);
	cr_assert_str_eq(reason_of(bytes, 7), "no room");
	cr_assert_eq(mig_reason_encode("", bytes), 0);
	cr_assert_str_eq(reason_of(bytes, 0), "");
	cr_assert_eq(mig_reason_encode("a\nb\xff", bytes), 4);
	cr_assert_str_eq(reason_of(bytes, 4), "a?b?");
	cr_assert_str_eq(reason_of("a\0b\x1b", 4), "a?b?");
	memset(text, 'x', sizeof(text) - 1);
	cr_assert_eq(mig_reason_encode(text, bytes), MIG_REASON_BYTES);
	cr_assert_eq(strlen(reason_of(text, sizeof(text) - 1)), MIG_REASON_BYTES);
	memcpy(text + MIG_REASON_BYTES - 2, "\xe2\x82\xac", 3);
	cr_assert_eq(mig_reason_encode(text, bytes), MIG_REASON_BYTES - 2);
	memset(text, 0x80, sizeof(text) - 1); /* no character at all */
	cr_assert_leq(mig_reason_encode(text, bytes), MIG_REASON_BYTES);
	mig_reason_decode((const uint8_t *)"abcde\xe2\x82\xac", 8, few, sizeof(few));
	cr_assert_str_eq(few, "abcde");
	mig_reason_decode((const uint8_t *)"abc", 3, few, 1);
	cr_assert_str_eq(few, "");
}

/* --- plans --- */

Test(mig_body, plan_comes_out)
{
	struct mig_plan plan = plan_of_two();
	struct mig_plan out;

	cr_assert_eq(mig_plan_encode(&plan, &buffer, &err), 0, "%s", err.text);
	cr_assert_eq(mig_plan_decode(buffer.data, (uint32_t)buffer.size_bytes, &out, &err), 0, "%s",
		     err.text);
	cr_assert_eq(out.epoch, 7);
	cr_assert_eq(out.capabilities, MIG_CAN_ALL | 1u << 31);
	cr_assert_eq(out.flags, MIG_PLAN_VERIFY);
	cr_assert_str_eq(out.config, plan.config);
	cr_assert_eq(out.object_count, 2);
	cr_assert_eq(out.objects[0].object.unit_count, 1u << 20);
	cr_assert_str_eq(out.objects[0].description, "");
	cr_assert_eq(out.objects[1].object.unit_count, 2048);
	cr_assert_str_eq(out.objects[1].description, two_objects[1].description);
	mig_plan_fini(&out);
	mig_plan_fini(&out);
	cr_assert_null(out.objects);
}

/* In the plan of two the configuration has 14 bytes: memory is at 38 and the image at 54. */
Test(mig_body, plans_that_cannot_be)
{
	expect_bad_at(8, 0, 8, UINT64_MAX - 1,
		      "epoch 18446744073709551614, expected at most 18446744073709551613");
	expect_bad_at(8, 12, 4, 4, "flags 0x4, expected none but 0x3");
	expect_bad_at(8, 16, 4, 0, "0 objects, expected 1 to 1024");
	expect_bad_at(8, 16, 4, 1025, "1025 objects, expected 1 to 1024");
	expect_bad_at(8, 16, 4, UINT32_MAX, "4294967295 objects");
	expect_bad_at(8, 16, 4, 1024, "migration plan: truncated");
	expect_bad_at(8, 16, 4, 1, "migration plan: 33 bytes too many");
	expect_bad_at(8, 20, 4, MIG_CONFIG_BYTES + 1,
		      "a configuration of 65537 bytes, expected at most 65536");
	expect_bad_at(8, 20, 4, MIG_CONFIG_BYTES, "truncated in a text");
	expect_bad_at(8, 24, 1, 0, "a text that is not printable UTF-8 of one line");
	expect_bad_at(8, 24, 1, '\n', "a text that is not printable UTF-8 of one line");
	expect_bad_at(8, 38, 8, 0, "object 0 of 0 units, expected 1 to 17179869184");
	expect_bad_at(8, 38, 8, (1ULL << 34) + 1, "object 0 of 17179869185 units");
	expect_bad_at(8, 12, 4, MIG_PLAN_NO_MEMORY, "object 0 of 1048576 units, expected 0 to 0");
	expect_bad_at(8, 46, 4, 1, "object 0 is described in 1 bytes, expected 0 to 0");
	expect_bad_at(8, 50, 4, 1, "migration plan: reserved bytes");
	expect_bad_at(8, 54, 8, 0, "object 1 of 0 units, expected 1 to 137438953472");
	expect_bad_at(8, 54, 8, UINT64_MAX, "object 1 of 18446744073709551615 units");
	expect_bad_at(8, 62, 4, 0, "object 1 is described in 0 bytes, expected 1 to 4096");
	expect_bad_at(8, 62, 4, 4097, "object 1 is described in 4097 bytes");
	expect_bad_at(8, 62, 4, 4096, "truncated in a text");
	expect_bad_at(8, 70, 1, 0x7f, "a text that is not printable UTF-8 of one line");
}

static void expect_no_plan(const struct mig_plan *plan, const char *text)
{
	size_t before = buffer.size_bytes;

	cr_assert_eq(mig_plan_encode(plan, &buffer, &err), -EINVAL);
	cr_assert_not_null(strstr(err.text, text), "%s, not %s", err.text, text);
	cr_assert_eq(buffer.size_bytes, before);
}

Test(mig_body, plans_that_cannot_be_sent)
{
	static struct mig_plan_object many[MIG_OBJECTS_MAX];
	static char text[MIG_CONFIG_BYTES + 2];
	struct mig_plan plan = plan_of_two();

	base_buffer_u8(&buffer, 1);
	memset(text, 'x', sizeof(text) - 1);
	plan.config = text;
	expect_no_plan(&plan, "a configuration of 65537 bytes");
	plan.config = escape;
	expect_no_plan(&plan, "not printable");
	plan = plan_of_two();
	plan.epoch = UINT64_MAX;
	expect_no_plan(&plan, "epoch 18446744073709551615");
	plan = plan_of_two();
	plan.flags = MIG_PLAN_NO_MEMORY;
	expect_no_plan(&plan, "object 0 of 1048576 units, expected 0 to 0");
	plan = plan_of_two();
	plan.object_count = 0;
	expect_no_plan(&plan, "0 objects");
	text[MIG_DESCRIPTION_BYTES] = '\0';
	for (uint32_t i = 0; i < MIG_OBJECTS_MAX; i++)
		many[i] = (struct mig_plan_object){ .object = { .unit_count = 1 },
						    .description = text };
	many[0].description = nothing;
	plan.objects = many;
	plan.object_count = MIG_OBJECTS_MAX;
	expect_no_plan(&plan, "bytes in all, expected at most 1048576");
	text[MIG_DESCRIPTION_BYTES] = 'x';
	expect_no_plan(&plan, "object 1 is described in 65537 bytes, expected 1 to 4096");
}

/* As many objects as there may be, and storage alone. */
Test(mig_body, plans_at_their_limits)
{
	static struct mig_plan_object many[MIG_OBJECTS_MAX];
	struct mig_plan plan = { .epoch = MIG_EPOCH_MAX,
				 .flags = MIG_PLAN_FLAGS,
				 .config = nothing,
				 .object_count = MIG_OBJECTS_MAX,
				 .objects = many };

	for (uint32_t i = 0; i < MIG_OBJECTS_MAX; i++)
		many[i] = (struct mig_plan_object){
			.object = { .unit_count = i == 0 ? 0 : MIG_OBJECT_BYTES_MAX / 512 },
			.description = i == 0 ? nothing : described
		};
	cr_assert_eq(mig_plan_encode(&plan, &buffer, &err), 0, "%s", err.text);
	cr_assert_eq(take_plan(buffer.data, (uint32_t)buffer.size_bytes), 0, "%s", err.text);
}

Test(mig_body, no_memory_for_a_plan)
{
	struct mig_plan plan = plan_of_two();
	struct mig_plan out = { .objects = NULL };

	alloc_fail_at(0);
	cr_assert_eq(mig_plan_encode(&plan, &buffer, &err), -ENOMEM);
	cr_assert(alloc_fail_done());
	base_buffer_fini(&buffer);
	cr_assert_eq(mig_plan_encode(&plan, &buffer, &err), 0);
	for (unsigned int k = 0;; k++) {
		int r = 0;

		alloc_fail_at(k);
		r = mig_plan_decode(buffer.data, (uint32_t)buffer.size_bytes, &out, &err);
		if (!alloc_fail_done()) {
			cr_assert_eq(r, 0);
			cr_assert_eq(k, 4);
			break;
		}
		cr_assert_eq(r, -ENOMEM);
		cr_assert_null(out.objects);
	}
	mig_plan_fini(&out);
}
