/* SPDX-License-Identifier: Apache-2.0 */
/* Bodies of a verified move's messages: what goes in comes out, and each rule is broken alone. */
#include "migrate/mig_body_verify.h"

#include <criterion/criterion.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

static struct base_error err;
static struct base_buffer out;
static struct mig_digest roots[MIG_OBJECTS_MAX];
static struct mig_nodes nodes;
static struct mig_node node;
static struct mig_verified verified;
static uint32_t count;

typedef int (*decoder)(const uint8_t *bytes, uint32_t size_bytes);

static int take_roots(const uint8_t *bytes, uint32_t size_bytes)
{
	return mig_roots_decode(bytes, size_bytes, roots, &count, &err);
}

static int take_ask(const uint8_t *bytes, uint32_t size_bytes)
{
	return mig_ask_nodes_decode(bytes, size_bytes, &node, &err);
}

static int take_nodes(const uint8_t *bytes, uint32_t size_bytes)
{
	return mig_nodes_decode(bytes, size_bytes, &nodes, &err);
}

static int take_verified(const uint8_t *bytes, uint32_t size_bytes)
{
	return mig_verified_decode(bytes, size_bytes, &verified, &err);
}

/* A block that ends where the body does, so that the sanitizer sees a byte too far. */
static int take_copy(decoder decode, const uint8_t *bytes, size_t size_bytes)
{
	uint8_t *copy = malloc(size_bytes > 0 ? size_bytes : 1);
	int r = 0;

	cr_assert_not_null(copy);
	memcpy(copy, bytes, size_bytes);
	r = decode(copy, (uint32_t)size_bytes);
	free(copy);
	return r;
}

/* Nothing of it may miss, nothing may follow. */
static void expect_exact(decoder decode)
{
	uint8_t *longer = calloc(1, out.size_bytes + 1);

	cr_assert_not_null(longer);
	memcpy(longer, out.data, out.size_bytes);
	for (size_t size = 0; size < out.size_bytes; size++)
		cr_assert_eq(take_copy(decode, longer, size), -EBADMSG, "%zu", size);
	cr_assert_eq(take_copy(decode, longer, out.size_bytes + 1), -EBADMSG);
	cr_assert_eq(take_copy(decode, longer, out.size_bytes), 0, "%s", err.text);
	free(longer);
}

static void expect_bad(decoder decode, size_t offset, uint8_t value, const char *text)
{
	uint8_t was = out.data[offset];

	out.data[offset] = value;
	cr_assert_eq(take_copy(decode, out.data, out.size_bytes), -EBADMSG);
	cr_assert_not_null(strstr(err.text, text), "'%s', expected '%s'", err.text, text);
	out.data[offset] = was;
}

static void teardown(void)
{
	base_buffer_fini(&out);
}

TestSuite(mig_body_verify, .fini = teardown);

Test(mig_body_verify, roots_come_out)
{
	const struct mig_digest two[2] = { { .bytes = { 1, 2 } }, { .bytes = { [15] = 3 } } };

	mig_roots_encode(two, 2, &out);
	cr_assert_not(out.failed);
	expect_exact(take_roots);
	cr_assert_eq(count, 2);
	cr_assert_arr_eq(roots, two, sizeof(two));
	expect_bad(take_roots, 0, 0, "migration roots: 0, expected 1 to 1024");
	expect_bad(take_roots, 0, 3, "migration roots: 40 bytes, expected 56");
	expect_bad(take_roots, 3, 1, "expected 1 to 1024");
	expect_bad(take_roots, 4, 1, "reserved");
}

Test(mig_body_verify, as_many_roots_as_there_may_be)
{
	mig_roots_encode(roots, MIG_OBJECTS_MAX, &out);
	cr_assert_eq(out.size_bytes, MIG_ROOTS_BYTES_MAX);
	cr_assert_eq(take_copy(take_roots, out.data, out.size_bytes), 0);
	cr_assert_eq(count, MIG_OBJECTS_MAX);
}

Test(mig_body_verify, questions_come_out)
{
	const struct mig_node asked = { .object = 1023, .level = 7, .index = 1ULL << 40 };
	uint8_t bytes[MIG_ASK_NODES_BYTES];

	mig_ask_nodes_encode(&asked, bytes);
	base_buffer_append(&out, bytes, sizeof(bytes));
	expect_exact(take_ask);
	cr_assert(node.object == 1023 && node.level == 7 && node.index == 1ULL << 40);
	expect_bad(take_ask, 1, 4, "migration ask-nodes: object 1279, expected less than 1024");
	expect_bad(take_ask, 2, 0, "migration ask-nodes: level 0, expected 1 to 7");
	expect_bad(take_ask, 2, 8, "migration ask-nodes: level 8, expected 1 to 7");
	expect_bad(take_ask, 4, 1, "reserved");
}

Test(mig_body_verify, answers_come_out)
{
	static struct mig_nodes given = { .of = { .object = 2, .level = 3, .index = 9 },
					  .count = 3 };

	given.children[2].bytes[1] = 77;
	mig_nodes_encode(&given, &out);
	expect_exact(take_nodes);
	cr_assert(nodes.of.object == 2 && nodes.of.level == 3 && nodes.of.index == 9);
	cr_assert_eq(nodes.count, 3);
	cr_assert_arr_eq(nodes.children, given.children, 3 * sizeof(nodes.children[0]));
	expect_bad(take_nodes, 1, 4, "migration nodes: object 1026");
	expect_bad(take_nodes, 2, 0, "migration nodes: level 0");
	expect_bad(take_nodes, 4, 0, "migration nodes: 0, expected 1 to 256");
	expect_bad(take_nodes, 5, 1, "migration nodes: 259, expected 1 to 256");
	expect_bad(take_nodes, 4, 4, "migration nodes: 64 bytes, expected 80");
}

Test(mig_body_verify, figures_come_out)
{
	const struct mig_verified told = { .bytes = 1, .running_ns = 2, .blackout_ns = UINT64_MAX };
	uint8_t bytes[MIG_VERIFIED_BYTES];

	mig_verified_encode(&told, bytes);
	base_buffer_append(&out, bytes, sizeof(bytes));
	expect_exact(take_verified);
	cr_assert(verified.bytes == 1 && verified.running_ns == 2 &&
		  verified.blackout_ns == UINT64_MAX);
}
