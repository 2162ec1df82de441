/* SPDX-License-Identifier: Apache-2.0 */
#include <criterion/criterion.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "base/bytes.h"
#include "base/crc32c.h"
#include "base/leash_priv.h"
#include "base/thread.h"

static const struct base_leash_page sample = {
	.sequence = 10,
	.terms = { .epoch = 7,
		   .soft_ns = 1000,
		   .hard_ns = 2000,
		   .thaw_count = 3,
		   .thaw_until_ns = 900 },
};

static uint8_t page[BASE_LEASH_PAGE_BYTES];

static void encode(void)
{
	base_leash_page_encode(&sample, page);
}

static int decode(void)
{
	struct base_error err = { .code = 0 };
	struct base_leash_terms terms = { .epoch = 99 };
	int code = base_leash_page_decode(page, &terms, &err);

	cr_assert_eq(err.code, code);
	if (code < 0)
		cr_assert_eq(terms.epoch, 99, "nothing is written on failure");
	return code;
}

/* The checksum of what stands in the page now: the other checks must hold by themselves. */
static void sign(void)
{
	base_put_le32(page + 64, base_crc32c(0, page, 64));
}

Test(leash_page, golden_bytes, .init = encode)
{
	static const uint8_t wanted[64] = {
		'G',  'W', 'L', 'E', 'A', 'S', 'H', 0,
		1,    0,   0,   0,   0,   0,   0,   0, /* magic ... */
		10,   0,   0,   0,   0,   0,   0,   0,
		7,    0,   0,   0,   0,   0,   0,   0, /* sequence, epoch */
		0xe8, 3,   0,   0,   0,   0,   0,   0,
		0xd0, 7,   0,   0,   0,   0,   0,   0, /* soft, hard */
		3,    0,   0,   0,   0,   0,   0,   0,
		0x84, 3,   0,   0,   0,   0,   0,   0, /* thaws, until */
	};

	cr_assert_eq(memcmp(page, wanted, sizeof(wanted)), 0);
	cr_assert_eq(base_get_le32(page + 64), base_crc32c(0, wanted, sizeof(wanted)));
	cr_assert(base_is_zero(page + 68, sizeof(page) - 68));
}

Test(leash_page, decodes_what_was_encoded, .init = encode)
{
	struct base_leash_page back;

	cr_assert_eq(base_leash_page_decode_all(page, &back, NULL), 0);
	cr_assert_eq(back.sequence, sample.sequence);
	cr_assert_eq(back.terms.epoch, sample.terms.epoch);
	cr_assert_eq(back.terms.soft_ns, sample.terms.soft_ns);
	cr_assert_eq(back.terms.hard_ns, sample.terms.hard_ns);
	cr_assert_eq(back.terms.thaw_count, sample.terms.thaw_count);
	cr_assert_eq(back.terms.thaw_until_ns, sample.terms.thaw_until_ns);
}

Test(leash_page, any_flipped_bit_is_refused, .init = encode)
{
	for (size_t bit = 0; bit < 8 * sizeof(page); bit++) {
		page[bit / 8] ^= (uint8_t)(1U << bit % 8);
		cr_assert_neq(decode(), 0, "bit %zu", bit);
		page[bit / 8] ^= (uint8_t)(1U << bit % 8);
	}
	cr_assert_eq(decode(), 0);
}

Test(leash_page, empty_page_is_refused)
{
	cr_assert_eq(decode(), -EBADMSG);
}

Test(leash_page, each_field_is_checked_by_itself, .init = encode)
{
	static const struct {
		size_t at;
		uint8_t value;
		int code;
	} cases[] = {
		{ .at = 0, .value = 'X', .code = -EBADMSG },  /* magic */
		{ .at = 8, .value = 2, .code = -EBADMSG },    /* version */
		{ .at = 12, .value = 1, .code = -EBADMSG },   /* flags */
		{ .at = 16, .value = 0, .code = -EBADMSG },   /* sequence 0 */
		{ .at = 16, .value = 11, .code = -EAGAIN },   /* sequence odd */
		{ .at = 34, .value = 1, .code = -EBADMSG },   /* soft after hard */
		{ .at = 68, .value = 1, .code = -EBADMSG },   /* reserved */
		{ .at = 72, .value = 1, .code = -EBADMSG },   /* rest of the page */
		{ .at = 4095, .value = 1, .code = -EBADMSG }, /* its last byte */
	};

	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		encode();
		page[cases[i].at] = cases[i].value;
		sign();
		cr_assert_eq(decode(), cases[i].code, "byte %zu", cases[i].at);
	}
	encode();
	page[64] ^= 1;
	cr_assert_eq(decode(), -EBADMSG, "checksum");
}

enum {
	UPDATES = 20000,
	READERS = 2
};

static void *write_updates(void *shared)
{
	struct base_leash_page update = { .sequence = 2 };

	for (uint64_t i = 1; i <= UPDATES; i++) {
		update.sequence += 2;
		update.terms = (struct base_leash_terms){ .epoch = i,
							  .soft_ns = i + 1,
							  .hard_ns = i + 2,
							  .thaw_count = i + 3,
							  .thaw_until_ns = i + 4 };
		base_leash_page_write(shared, &update);
	}
	return NULL;
}

static void *read_updates(void *shared)
{
	struct base_leash_page got = { .sequence = 0 };
	uint64_t before = 0;

	while (got.terms.epoch < UPDATES) {
		int code = base_leash_page_read(shared, &got, NULL);

		if (code == -EAGAIN)
			continue;
		if (code != 0 || got.terms.epoch < before ||
		    got.sequence != 2 * got.terms.epoch + 2)
			return shared;
		if (got.terms.epoch > 0 && (got.terms.soft_ns != got.terms.epoch + 1 ||
					    got.terms.hard_ns != got.terms.epoch + 2 ||
					    got.terms.thaw_count != got.terms.epoch + 3 ||
					    got.terms.thaw_until_ns != got.terms.epoch + 4))
			return shared;
		before = got.terms.epoch;
	}
	return NULL;
}

Test(leash_page, readers_never_see_half_an_update)
{
	void *shared = aligned_alloc(4096, BASE_LEASH_PAGE_BYTES);
	const struct base_leash_page first = { .sequence = 2 };
	pthread_t readers[READERS];
	pthread_t writer;

	cr_assert_not_null(shared);
	memset(shared, 0, BASE_LEASH_PAGE_BYTES);
	base_leash_page_write(shared, &first);
	for (size_t i = 0; i < READERS; i++)
		cr_assert_eq(base_thread_start(&readers[i], "read", read_updates, shared, NULL), 0);
	cr_assert_eq(base_thread_start(&writer, "write", write_updates, shared, NULL), 0);
	for (size_t i = 0; i < READERS; i++) {
		void *failed = NULL;

		cr_assert_eq(pthread_join(readers[i], &failed), 0);
		cr_assert_null(failed, "a torn or older update was read");
	}
	base_thread_join(writer);
	free(shared);
}
