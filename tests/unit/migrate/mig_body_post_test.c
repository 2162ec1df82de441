/* SPDX-License-Identifier: Apache-2.0 */
/* The bodies of post-copy: there and back, and each thing that cannot be. */
#include <criterion/criterion.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "migrate/mig_body_post.h"
#include "migrate/mig_waits_priv.h"
#include "migrate/mig_yield.h"

#define PAGES 1000u
#define WORDS 16u

static struct base_error err;

static void expect_owed(const struct mig_owed *owed, const char *what)
{
	BASE_CLEANUP(base_buffer_fini) struct base_buffer body = { .data = NULL };
	struct mig_owed out;

	mig_owed_encode(owed, &body);
	cr_assert_eq(mig_owed_decode(body.data, (uint32_t)body.size_bytes, &out, &err), -EBADMSG);
	cr_assert_not_null(strstr(err.text, what), "%s", err.text);
}

static int take(const struct mig_owed *owed, uint64_t at, _Atomic uint64_t *bits)
{
	return mig_owed_take(owed, PAGES, &at, bits, &err);
}

Test(mig_body_post, owed_there_and_back)
{
	_Atomic uint64_t bits[WORDS];
	_Atomic uint64_t again[WORDS];
	uint32_t seed = 1;

	for (uint32_t round = 0; round < 2000; round++) {
		uint64_t at = 0;
		uint64_t taken = 0;
		bool more = true;

		for (uint32_t i = 0; i < WORDS; i++) {
			seed = seed * 1664525u + 1013904223u;
			bits[i] = seed >> 28 < round % 16 ? seed : 0;
			again[i] = 0;
		}
		bits[WORDS - 1] &= (1ULL << PAGES % 64) - 1;
		while (more) {
			BASE_CLEANUP(base_buffer_fini) struct base_buffer body = { .data = NULL };
			struct mig_owed out;

			more = mig_owed_next(bits, WORDS, &at, &body);
			if (!more)
				break;
			cr_assert_eq(
				mig_owed_decode(body.data, (uint32_t)body.size_bytes, &out, &err),
				0, "%s", err.text);
			cr_assert_eq(mig_owed_take(&out, PAGES, &taken, again, &err), 0, "%s",
				     err.text);
		}
		for (uint32_t i = 0; i < WORDS; i++)
			cr_assert_eq(bits[i], again[i]);
	}
}

/* Much more than one message holds, with gaps of all sizes. */
Test(mig_body_post, owed_in_pieces)
{
	uint64_t words = 3ULL * MIG_OWED_WORDS_MAX;
	_Atomic uint64_t *bits = calloc(words, sizeof(*bits));
	uint64_t at = 0;
	uint32_t pieces = 0;

	for (uint64_t i = 0; i < words; i++)
		bits[i] = i % 7 != 3;
	for (;; pieces++) {
		BASE_CLEANUP(base_buffer_fini) struct base_buffer body = { .data = NULL };

		if (!mig_owed_next(bits, words, &at, &body))
			break;
		cr_assert(!body.failed && body.size_bytes <= MIG_BODY_BYTES_MAX);
	}
	cr_assert(pieces == 3 || pieces == 4, "%u", pieces);
	free(bits);
}

Test(mig_body_post, owed_that_cannot_be)
{
	static const uint8_t one[16] = { 1, 0, 0, 0, 0, 0, 0, 0, 1 };
	static const uint8_t empty[16] = { 1 };
	_Atomic uint64_t bits[WORDS];
	uint8_t body[24];
	struct mig_owed out;

	expect_owed(&(struct mig_owed){ .first_page = 1, .word_count = 1, .words = one },
		    "from page 1");
	expect_owed(&(struct mig_owed){ .first_page = 64, .last = true }, "from page 64");
	expect_owed(&(struct mig_owed){ .word_count = 0 }, "say nothing");
	expect_owed(&(struct mig_owed){ .word_count = 2, .words = empty }, "say nothing");
	expect_owed(&(struct mig_owed){ .word_count = 1, .words = empty + 1 }, "say nothing");
	cr_assert_eq(take(&(struct mig_owed){ .first_page = 64ULL * WORDS,
					      .word_count = 1,
					      .words = one },
			  0, bits),
		     -EBADMSG);
	cr_assert_eq(take(&(struct mig_owed){ .first_page = 64ULL * (WORDS - 1),
					      .word_count = 2,
					      .words = one },
			  0, bits),
		     -EBADMSG);
	cr_assert_eq(take(&(struct mig_owed){ .first_page = 64, .word_count = 1, .words = one }, 2,
			  bits),
		     -EBADMSG);
	cr_assert_eq(take(&(struct mig_owed){ .first_page = 64ULL * (WORDS - 1),
					      .word_count = 1,
					      .words = (const uint8_t[8]){ 0, 0, 0, 0, 0, 1 } },
			  0, bits),
		     -EBADMSG, "page 1000");
	memset(body, 0, sizeof(body));
	body[8] = 2;
	cr_assert_eq(mig_owed_decode(body, 16, &out, &err), -EBADMSG, "flags");
	body[8] = 1;
	cr_assert_eq(mig_owed_decode(body, 15, &out, &err), -EBADMSG, "too short");
	cr_assert_eq(mig_owed_decode(body, 17, &out, &err), -EBADMSG, "too long");
	base_put_le32(body + 12, MIG_OWED_WORDS_MAX + 1);
	cr_assert_eq(mig_owed_decode(body, 24, &out, &err), -EBADMSG, "too many");
}

Test(mig_body_post, want_and_pages_that_cannot_be)
{
	static uint8_t body[MIG_PAGES_BYTES_MAX + 1];
	struct mig_want want;
	struct mig_pages pages;

	cr_assert_eq(mig_want_decode(body, 16, &want, &err), -EBADMSG, "none");
	base_put_le32(body, MIG_WANT_MAX + 1);
	cr_assert_eq(mig_want_decode(body, MIG_WANT_BYTES_MAX + 8, &want, &err), -EBADMSG);
	base_put_le32(body, 2);
	cr_assert_eq(mig_want_decode(body, 16, &want, &err), -EBADMSG, "one is not there");
	body[4] = 1;
	cr_assert_eq(mig_want_decode(body, 24, &want, &err), -EBADMSG, "reserved");
	memset(body, 0, sizeof(body));
	base_put_le32(body + 12, 2);
	cr_assert_eq(mig_pages_decode(body, 16, &pages, &err), -EBADMSG, "none");
	base_put_le32(body + 8, MIG_PAGES_MAX + 1);
	cr_assert_eq(mig_pages_decode(body, 16, &pages, &err), -EBADMSG, "too many");
	base_put_le32(body + 8, 1);
	cr_assert_eq(mig_pages_decode(body, 16, &pages, &err), 0);
	cr_assert_eq(mig_pages_decode(body, 17, &pages, &err), -EBADMSG, "zeros with bytes");
	base_put_le32(body + 12, 3);
	cr_assert_eq(mig_pages_decode(body, 16, &pages, &err), -EBADMSG, "kind");
	base_put_le32(body + 12, 1);
	cr_assert_eq(mig_pages_decode(body, 16 + MIG_PAGE_BYTES - 1, &pages, &err), -EBADMSG);
	base_put_le64(body, UINT64_MAX);
	cr_assert_eq(mig_pages_decode(body, 16 + MIG_PAGE_BYTES, &pages, &err), -EBADMSG, "wraps");
}

Test(mig_body_post, complete_there_and_back)
{
	struct mig_complete complete = { .epoch = 1,
					 .owed_pages = 2,
					 .fault_pages = 3,
					 .rest_pages = 4,
					 .twice_pages = 5,
					 .waits = 6,
					 .p50_ns = 7,
					 .p99_ns = 8,
					 .longest_ns = 9,
					 .fill_ns = 10,
					 .reconnects = 11 };
	uint8_t body[MIG_COMPLETE_BYTES];
	struct mig_complete out;

	mig_complete_encode(&complete, body);
	cr_assert_eq(mig_complete_decode(body, sizeof(body), &out, &err), 0);
	cr_assert_eq(memcmp(&complete, &out, sizeof(out)), 0);
	cr_assert_eq(mig_complete_decode(body, sizeof(body) - 1, &out, &err), -EBADMSG);
	body[95] = 1;
	cr_assert_eq(mig_complete_decode(body, sizeof(body), &out, &err), -EBADMSG);
}

/* --- waits --- */

Test(mig_waits, lengths)
{
	static struct mig_waits waits;
	static uint64_t pages[MIG_WAITS_MAX];
	struct mig_complete out = { 0 };

	for (uint64_t i = 1; i <= 100; i++) {
		cr_assert(mig_waits_add(&waits, i, 1000));
		cr_assert(!mig_waits_add(&waits, i, 2000), "twice");
		mig_waits_end(&waits, i, 1000 + i * 1000000);
		mig_waits_end(&waits, i, 5);
	}
	mig_waits_tell(&waits, &out);
	cr_assert_eq(out.waits, 100);
	cr_assert_eq(out.longest_ns, 100000000);
	cr_assert(out.p50_ns >= 50000000 && out.p50_ns < 58000000);
	cr_assert(out.p99_ns >= 99000000 && out.p99_ns <= 100000000);
	for (uint64_t i = 0; i < MIG_WAITS_MAX; i++)
		cr_assert(mig_waits_add(&waits, i, 10 + i));
	cr_assert(!mig_waits_add(&waits, UINT64_MAX, 10), "no room");
	cr_assert_eq(mig_waits_oldest(&waits), 10);
	cr_assert_eq(mig_waits_list(&waits, pages, 99), MIG_WAITS_MAX);
	cr_assert_eq(mig_waits_oldest(&waits), 99);
	mig_waits_end(&waits, 0, UINT64_MAX);
	mig_waits_tell(&waits, &out);
	cr_assert_eq(out.longest_ns, UINT64_MAX - 10);
	cr_assert_lt(waits.count, MIG_WAITS_MAX);
}

/* --- what yields --- */

Test(mig_yield, the_window_follows_the_way)
{
	static struct mig_yield yield;
	uint64_t now_ns = 1;

	mig_yield_begin(&yield);
	cr_assert(mig_yield_may(&yield, UINT32_MAX), "one always");
	cr_assert(!mig_yield_got(&yield, now_ns), "nothing is under way");
	for (uint32_t i = 0; i < 4000; i++) { /* answers come at once: it opens */
		mig_yield_sent(&yield, now_ns, 65536);
		now_ns += 100000;
		cr_assert(mig_yield_got(&yield, now_ns));
	}
	cr_assert_geq(yield.window_bytes, MIG_YIELD_BYTES_MAX);
	for (uint32_t i = 0; mig_yield_may(&yield, 65536); i++)
		mig_yield_sent(&yield, now_ns, 65536);
	cr_assert(yield.count == MIG_YIELD_MESSAGES ||
		  yield.way_bytes > MIG_YIELD_BYTES_MAX - 65536);
	while (yield.count > 0) { /* answers that stood in a queue: it closes */
		now_ns += 2000000;
		cr_assert(mig_yield_got(&yield, now_ns));
	}
	for (uint32_t i = 0; i < 1000; i++) {
		mig_yield_sent(&yield, now_ns, 65536);
		now_ns += 2000000;
		cr_assert(mig_yield_got(&yield, now_ns));
	}
	cr_assert_eq(yield.window_bytes, MIG_YIELD_BYTES_MIN);
	cr_assert_eq(yield.way_bytes, 0);
}
