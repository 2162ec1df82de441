/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The bodies of a migration's control messages.  The first byte is the type; what is taken is
 * encoded again as the same bytes, and stays within the limits.
 */
#include <stdlib.h>
#include <string.h>

#include "base/plain.h"
#include "migrate/mig_body.h"
#include "migrate/mig_body_post.h"
#include "migrate/mig_body_resume.h"
#include "migrate/mig_body_verify.h"
#include "migrate/mig_intake.h"
#include "migrate/mig_switch.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void expect(bool good)
{
	if (!good)
		abort();
}

/* What was encoded again is the @size bytes at @data. */
static void same(struct base_buffer *again, const uint8_t *data, size_t size)
{
	expect(!again->failed && again->size_bytes == size);
	expect(size == 0 || memcmp(again->data, data, size) == 0);
	base_buffer_fini(again);
}

static void fuzz_plan(const uint8_t *data, uint32_t size)
{
	struct base_buffer again = { .data = NULL };
	struct mig_plan out;

	if (mig_plan_decode(data, size, &out, NULL) < 0)
		return;
	expect(out.object_count >= 1 && out.object_count <= MIG_OBJECTS_MAX);
	for (uint32_t i = 0; i < out.object_count; i++)
		expect(strlen(out.objects[i].description) <= MIG_DESCRIPTION_BYTES);
	expect(strlen(out.config) <= MIG_CONFIG_BYTES);
	expect(mig_plan_encode(&out, &again, NULL) == 0);
	same(&again, data, size);
	mig_plan_fini(&out);
}

static void fuzz_findings(const uint8_t *data, uint32_t size)
{
	struct base_buffer again = { .data = NULL };
	struct mig_findings out;

	if (mig_findings_decode(data, size, &out, NULL) < 0)
		return;
	mig_findings_encode(&out, &again);
	same(&again, data, size);
}

static void fuzz_done(const uint8_t *data, uint32_t size)
{
	static struct mig_failure failures[MIG_FAILURES_MAX];
	struct base_buffer again = { .data = NULL };
	uint32_t number = 0;
	uint32_t count = 0;

	if (mig_done_decode(data, size, &number, failures, &count, NULL) < 0)
		return;
	mig_done_encode(number, failures, count, &again);
	same(&again, data, size);
}

static void fuzz_state(const uint8_t *data, uint32_t size)
{
	struct base_buffer again = { .data = NULL };
	struct mig_state_piece out;

	if (mig_state_decode(data, size, &out, NULL) < 0)
		return;
	mig_state_encode(&out, &again);
	same(&again, data, size);
}

static void fuzz_roots(const uint8_t *data, uint32_t size)
{
	struct base_buffer again = { .data = NULL };
	struct mig_digest roots[MIG_OBJECTS_MAX];
	uint32_t count = 0;

	if (mig_roots_decode(data, size, roots, &count, NULL) < 0)
		return;
	mig_roots_encode(roots, count, &again);
	same(&again, data, size);
}

static void fuzz_nodes(const uint8_t *data, uint32_t size)
{
	struct base_buffer again = { .data = NULL };
	struct mig_nodes nodes;

	if (mig_nodes_decode(data, size, &nodes, NULL) < 0)
		return;
	mig_nodes_encode(&nodes, &again);
	same(&again, data, size);
}

static void fuzz_have(const uint8_t *data, uint32_t size)
{
	static uint64_t generations[MIG_HAVE_SPANS_MAX];
	struct base_buffer again = { .data = NULL };
	struct mig_have have;

	if (mig_have_decode(data, size, &have, NULL) < 0)
		return;
	for (uint32_t i = 0; i < have.count; i++)
		generations[i] = mig_have_generation(&have, i);
	mig_have_encode(&have, generations, &again);
	same(&again, data, size);
}

static void fuzz_resumed(const uint8_t *data, uint32_t size)
{
	static struct mig_failure failures[MIG_FAILURES_MAX];
	struct base_buffer again = { .data = NULL };
	struct mig_resumed resumed;

	if (mig_resumed_decode(data, size, &resumed, failures, NULL) < 0)
		return;
	mig_resumed_encode(&resumed, failures, &again);
	same(&again, data, size);
}

/* Anything is a reason; what is made of it stays. */
static void fuzz_reason(const uint8_t *data, uint32_t size)
{
	uint8_t bytes[MIG_NOTIFY_BYTES_MAX];
	char text[MIG_REASON_BYTES + 1];
	char again[MIG_REASON_BYTES + 1];
	uint32_t length = 0;

	mig_reason_decode(data, size, text, 1 + size % sizeof(text));
	expect(base_is_plain(text, strlen(text)));
	mig_reason_decode(data, size, text, sizeof(text));
	length = mig_reason_encode(text, bytes);
	mig_reason_decode(bytes, length, again, sizeof(again));
	expect(length <= MIG_REASON_BYTES && strcmp(text, again) == 0);
}

#define FIXED(name, type)                                                                          \
	static void fuzz_##name(const uint8_t *data, uint32_t size)                                \
	{                                                                                          \
		uint8_t again[128] = { 0 };                                                        \
		type out;                                                                          \
                                                                                                   \
		if (mig_##name##_decode(data, size, &out, NULL) < 0)                               \
			return;                                                                    \
		mig_##name##_encode(&out, again);                                                  \
		expect(size <= sizeof(again) && memcmp(again, data, size) == 0);                   \
	}

/* mig_opened_decode, mig_round_decode, mig_sealed_decode, mig_epoch_decode, mig_ask_decode,
 * mig_answer_decode, mig_ask_nodes_decode, mig_verified_decode, mig_complete_decode */
FIXED(opened, struct mig_opened)
FIXED(round, struct mig_round)
FIXED(sealed, struct mig_sealed)
FIXED(epoch, struct mig_epoch_note)
FIXED(ask, struct mig_ask)
FIXED(answer, struct mig_answer)
FIXED(ask_nodes, struct mig_node)
FIXED(verified, struct mig_verified)
FIXED(complete, struct mig_complete)

/* What is taken is taken into a bitmap, and comes out of it again. */
static void fuzz_owed(const uint8_t *data, uint32_t size)
{
	static _Atomic uint64_t bits[MIG_OWED_WORDS_MAX];
	struct base_buffer again = { .data = NULL };
	const uint64_t pages = 64 * 1000 + 5;
	struct mig_owed out;
	uint64_t at = 0;

	if (mig_owed_decode(data, size, &out, NULL) < 0)
		return;
	mig_owed_encode(&out, &again);
	same(&again, data, size);
	for (uint32_t i = 0; i < 1001; i++)
		bits[i] = 0;
	if (mig_owed_take(&out, pages, &at, bits, NULL) < 0 || out.word_count == 0)
		return;
	expect(at <= 1001 && bits[1000] < 32);
	again = (struct base_buffer){ .data = NULL };
	at = 0;
	expect(mig_owed_next(bits, 1001, &at, &again) && !again.failed);
	expect(at == out.first_page / 64 + out.word_count || at < out.first_page / 64 + 1001);
	base_buffer_fini(&again);
}

static void fuzz_want(const uint8_t *data, uint32_t size)
{
	uint8_t again[MIG_WANT_BYTES_MAX];
	struct mig_want out;

	if (mig_want_decode(data, size, &out, NULL) < 0)
		return;
	expect(mig_want_encode(&out, again) == size && memcmp(again, data, size) == 0);
}

static void fuzz_pages(const uint8_t *data, uint32_t size)
{
	uint8_t again[MIG_PAGES_HEADER_BYTES];
	struct mig_pages out;

	if (mig_pages_decode(data, size, &out, NULL) < 0)
		return;
	expect(out.first + out.count > out.first && out.count <= MIG_PAGES_MAX);
	expect(mig_pages_encode(&out, again) == size && memcmp(again, data, sizeof(again)) == 0);
}

static void fuzz_barrier(const uint8_t *data, uint32_t size)
{
	uint8_t again[MIG_NUMBER_BYTES];
	uint32_t number = 0;

	if (mig_barrier_decode(data, size, &number, NULL) < 0)
		return;
	mig_barrier_encode(number, again);
	expect(size == sizeof(again) && memcmp(again, data, size) == 0);
}

static void fuzz_alive(const uint8_t *data, uint32_t size)
{
	uint8_t again[MIG_NUMBER_BYTES];
	uint64_t number = 0;

	if (mig_number_decode(data, size, &number, NULL) < 0)
		return;
	mig_number_encode(number, again);
	expect(size == sizeof(again) && memcmp(again, data, size) == 0);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static void (*const bodies[MIG_TYPES])(const uint8_t *, uint32_t) = {
		[MIG_TYPE_OPENED] = fuzz_opened,     [MIG_TYPE_PLAN] = fuzz_plan,
		[MIG_TYPE_FINDINGS] = fuzz_findings, [MIG_TYPE_ROUND] = fuzz_round,
		[MIG_TYPE_BARRIER] = fuzz_barrier,   [MIG_TYPE_ROUND_DONE] = fuzz_done,
		[MIG_TYPE_STATE] = fuzz_state,       [MIG_TYPE_SEALED] = fuzz_sealed,
		[MIG_TYPE_CANCEL] = fuzz_reason,     [MIG_TYPE_READY] = fuzz_epoch,
		[MIG_TYPE_ALIVE] = fuzz_alive,       [MIG_TYPE_ASK] = fuzz_ask,
		[MIG_TYPE_REGISTER] = fuzz_answer,   [MIG_TYPE_ROOTS] = fuzz_roots,
		[MIG_TYPE_NODES] = fuzz_nodes,       [MIG_TYPE_ASK_NODES] = fuzz_ask_nodes,
		[MIG_TYPE_VERIFIED] = fuzz_verified, [MIG_TYPE_HAVE] = fuzz_have,
		[MIG_TYPE_RESUMED] = fuzz_resumed,   [MIG_TYPE_OWED] = fuzz_owed,
		[MIG_TYPE_WANT] = fuzz_want,         [MIG_TYPE_PAGES] = fuzz_pages,
		[MIG_TYPE_LACKS] = fuzz_owed,        [MIG_TYPE_COMPLETE] = fuzz_complete,
	};
	uint8_t *copy = NULL;

	if (size < 1 || size > MIG_BODY_BYTES_MAX || data[0] >= MIG_TYPES ||
	    bodies[data[0]] == NULL)
		return 0;
	copy = malloc(size); /* a byte too far is seen */
	expect(copy != NULL);
	memcpy(copy, data, size);
	bodies[data[0]](copy + 1, (uint32_t)size - 1);
	free(copy);
	return 0;
}
