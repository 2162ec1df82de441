/* SPDX-License-Identifier: Apache-2.0 */
/* Bodies of what is said after a cut: what goes in comes out, and each rule is broken alone. */
#include "migrate/mig_body_resume.h"

#include <criterion/criterion.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

static struct base_error err;
static struct base_buffer out;
static struct mig_have have;
static struct mig_resumed resumed;
static struct mig_failure failures[MIG_FAILURES_MAX];
static uint64_t first_generation;

static int take_have(const uint8_t *bytes, uint32_t size_bytes)
{
	int r = mig_have_decode(bytes, size_bytes, &have, &err);

	if (r == 0)
		first_generation = mig_have_generation(&have, 0);
	return r;
}

static int take_resumed(const uint8_t *bytes, uint32_t size_bytes)
{
	return mig_resumed_decode(bytes, size_bytes, &resumed, failures, &err);
}

typedef int (*decoder)(const uint8_t *bytes, uint32_t size_bytes);

/* A block that ends where the body does, so that the sanitizer sees a byte too far. */
static int take_copy(decoder decode, size_t size_bytes)
{
	uint8_t *copy = calloc(1, size_bytes + 1);
	int r = 0;

	cr_assert_not_null(copy);
	memcpy(copy, out.data, size_bytes < out.size_bytes ? size_bytes : out.size_bytes);
	copy = realloc(copy, size_bytes > 0 ? size_bytes : 1);
	r = decode(copy, (uint32_t)size_bytes);
	free(copy);
	return r;
}

static void expect_exact(decoder decode)
{
	for (size_t size = 0; size < out.size_bytes; size++)
		cr_assert_eq(take_copy(decode, size), -EBADMSG, "%zu", size);
	cr_assert_eq(take_copy(decode, out.size_bytes + 1), -EBADMSG);
	cr_assert_eq(take_copy(decode, out.size_bytes), 0, "%s", err.text);
}

static void expect_bad(decoder decode, size_t offset, uint8_t value, const char *text)
{
	uint8_t was = out.data[offset];

	out.data[offset] = value;
	cr_assert_eq(take_copy(decode, out.size_bytes), -EBADMSG);
	cr_assert_not_null(strstr(err.text, text), "'%s', expected '%s'", err.text, text);
	out.data[offset] = was;
}

static void teardown(void)
{
	base_buffer_fini(&out);
}

TestSuite(mig_body_resume, .fini = teardown);

Test(mig_body_resume, generations_come_out)
{
	const uint64_t generations[3] = { 7, 0, UINT64_MAX };
	const struct mig_have told = { .object = 1023, .count = 3, .first = 1ULL << 40 };

	mig_have_encode(&told, generations, &out);
	expect_exact(take_have);
	cr_assert(have.object == 1023 && have.count == 3 && have.first == 1ULL << 40);
	cr_assert_eq(first_generation, 7);
	expect_bad(take_have, 1, 4, "migration have: object 1279, expected less than 1024");
	expect_bad(take_have, 2, 1, "reserved");
	expect_bad(take_have, 4, 0, "migration have: 0 spans, expected 1 to 131070");
	expect_bad(take_have, 7, 1, "expected 1 to 131070");
	expect_bad(take_have, 4, 4, "migration have: 40 bytes, expected 48");
	memset(out.data + 8, 0xff, 8);
	expect_bad(take_have, 8, 0xfe, "is too far");
}

Test(mig_body_resume, as_many_spans_as_there_may_be)
{
	uint64_t *generations = calloc(MIG_HAVE_SPANS_MAX, sizeof(*generations));
	const struct mig_have told = { .count = MIG_HAVE_SPANS_MAX };

	cr_assert_not_null(generations);
	mig_have_encode(&told, generations, &out);
	cr_assert_leq(out.size_bytes, MIG_BODY_BYTES_MAX);
	cr_assert_eq(take_copy(take_have, out.size_bytes), 0, "%s", err.text);
	free(generations);
}

Test(mig_body_resume, what_there_is_comes_out)
{
	const struct mig_failure two[2] = { { .first = 5, .count = 3 },
					    { .first = 9, .count = 1 } };
	const struct mig_resumed told = { .rounds = 4, .chunks = 1ULL << 50, .failure_count = 2 };

	mig_resumed_encode(&told, two, &out);
	expect_exact(take_resumed);
	cr_assert(resumed.rounds == 4 && resumed.chunks == 1ULL << 50);
	cr_assert_eq(resumed.failure_count, 2);
	cr_assert(failures[0].first == 5 && failures[0].count == 3 && failures[1].first == 9);
	expect_bad(take_resumed, 12, 3, "bytes, expected");
}

Test(mig_body_resume, as_many_failures_as_there_may_be)
{
	const struct mig_resumed told = { .failure_count = MIG_FAILURES_MAX };

	for (uint32_t i = 0; i < MIG_FAILURES_MAX; i++)
		failures[i].count = 1;
	mig_resumed_encode(&told, failures, &out);
	cr_assert_leq(out.size_bytes, MIG_BODY_BYTES_MAX);
	cr_assert_eq(take_copy(take_resumed, out.size_bytes), 0, "%s", err.text);
	cr_assert_eq(resumed.failure_count, MIG_FAILURES_MAX);
}
