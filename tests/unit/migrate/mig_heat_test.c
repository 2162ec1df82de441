/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Where a guest writes.  What must never happen: that a page is forgotten which nobody is going to
 * send, or left out of a round and out of the log.
 */
#include <criterion/criterion.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "migrate/mig_heat.h"

#define PAGES 2637u /* ten spans and a part */
#define WORDS 42u
#define SPANS 11u

static uint64_t dirty_log[WORDS];
static uint64_t dirty[WORDS];
static struct mig_heat *heat;
static int clear_code;
static int get_code;

static int get(void *context, uint64_t *into, struct base_error *err)
{
	(void)err;
	cr_assert_eq(context, dirty_log);
	memcpy(into, dirty_log, sizeof(dirty_log));
	return get_code;
}

static int clear(void *context, uint64_t first_page, uint64_t page_count, const uint64_t *bits,
		 struct base_error *err)
{
	cr_assert_eq(context, dirty_log);
	cr_assert(first_page % 64 == 0 && first_page + page_count <= PAGES);
	for (uint64_t i = 0; i < (page_count + 63) / 64; i++)
		dirty_log[first_page / 64 + i] &= ~bits[i];
	return clear_code < 0 ? base_fail(err, clear_code, "by the test's wish") : 0;
}

static const struct mig_dirty_ops ops = { .get = get, .clear = clear };

static uint64_t count_of(const uint64_t *bits)
{
	uint64_t count = 0;

	for (size_t i = 0; i < WORDS; i++)
		count += (uint64_t)__builtin_popcountll(bits[i]);
	return count;
}

static void fill(uint64_t *bits)
{
	memset(bits, 0xff, WORDS * sizeof(*bits));
	bits[WORDS - 1] = (1ULL << PAGES % 64) - 1;
}

static void setup(void)
{
	fill(dirty_log);
	fill(dirty);
	cr_assert_eq(mig_heat_new(&ops, dirty_log, PAGES, &heat, NULL), 0);
}

static void teardown(void)
{
	mig_heat_free(heat);
}

TestSuite(mig_heat, .init = setup, .fini = teardown);

/* Asks until a look has been made, which is a matter of milliseconds. */
static bool gets_hot(uint64_t span)
{
	for (int i = 0; i < 5; i++) {
		if (mig_heat_is_hot(heat, span))
			return true;
		base_sleep_ns(3 * BASE_NS_PER_MS);
	}
	return false;
}

Test(mig_heat, one_page_in_64_tells)
{
	cr_assert_eq(mig_heat_begin(heat, dirty, NULL), 0);
	cr_assert_geq(count_of(dirty_log), PAGES - WORDS);
	cr_assert_leq(count_of(dirty_log), PAGES - WORDS + 1, "the last word is not whole");
	for (uint64_t span = 0; span < SPANS; span++)
		cr_assert_not(gets_hot(span), "span %u", (unsigned int)span);
}

Test(mig_heat, a_span_that_is_written_gets_hot_and_stays_so)
{
	cr_assert_eq(mig_heat_begin(heat, dirty, NULL), 0);
	for (uint64_t word = 12; word < 16; word++)
		dirty_log[word] = UINT64_MAX;
	cr_assert(gets_hot(3));
	for (uint64_t span = 0; span < SPANS; span++)
		cr_assert_eq(mig_heat_is_hot(heat, span), span == 3);
	cr_assert_eq(mig_heat_begin(heat, dirty, NULL), 0);
	cr_assert_not(gets_hot(3), "it begins anew");
}

/* What is not sent in the round has to stay in the log: it was touched a moment ago. */
Test(mig_heat, forgets_nothing_that_is_not_sent)
{
	memset(dirty + 8, 0, 16 * sizeof(*dirty));
	cr_assert_eq(mig_heat_begin(heat, dirty, NULL), 0);
	for (size_t word = 8; word < 24; word++)
		cr_assert_eq(dirty_log[word], UINT64_MAX, "word %zu", word);
	cr_assert_not(gets_hot(2), "what does not tell is not hot");
}

Test(mig_heat, tells_what_the_log_gives)
{
	struct base_error err = { .code = 0 };

	clear_code = -EIO;
	cr_assert_eq(mig_heat_begin(heat, dirty, &err), -EIO);
	clear_code = 0;
	cr_assert_eq(mig_heat_begin(heat, dirty, &err), 0);
	get_code = -EIO;
	fill(dirty_log);
	cr_assert_not(gets_hot(0), "it is a hint only");
}

Test(mig_heat, a_stride_comes_everywhere_once)
{
	for (uint64_t count = 1; count < 700; count++) {
		uint64_t stride = mig_heat_stride(count);
		bool seen[700] = { false };
		uint64_t at = 0;

		for (uint64_t i = 0; i < count; i++) {
			cr_assert_not(seen[at], "%u of %u", (unsigned int)at, (unsigned int)count);
			seen[at] = true;
			at = (at + stride) % count;
		}
	}
	cr_assert_gt(mig_heat_stride(0), 0);
}

/* --- what is left to the pause --- */

static const uint64_t sent[2] = { 0xff, 1 };

Test(mig_heat, hot_pages_that_fit_are_left)
{
	uint64_t next[2] = { 0xf0f, 1 };
	uint64_t in_log[2] = { 0xf0f, 1 };

	mig_heat_leave(next, sent, in_log, 2, 5);
	cr_assert_eq(next[0], 0xf00);
	cr_assert_eq(next[1], 0);
}

Test(mig_heat, hot_pages_that_do_not_fit_are_sent)
{
	uint64_t next[2] = { 0xf0f, 1 };
	uint64_t in_log[2] = { 0xf0f, 1 };

	mig_heat_leave(next, sent, in_log, 2, 4);
	cr_assert_eq(next[0], 0xf0f);
	cr_assert_eq(next[1], 1);
}

/* What arrived damaged is sent again, and is perhaps not in the log any more. */
Test(mig_heat, what_is_not_in_the_log_is_never_left)
{
	uint64_t next[2] = { 0xfff, 1 };
	uint64_t in_log[2] = { 0xf0f, 0 };

	mig_heat_leave(next, sent, in_log, 2, 100);
	cr_assert_eq(next[0], 0xff0);
	cr_assert_eq(next[1], 1);
}

Test(mig_heat, a_round_of_hot_pages_only_is_sent)
{
	uint64_t next[2] = { 0xf, 1 };
	uint64_t in_log[2] = { 0xf, 1 };

	mig_heat_leave(next, sent, in_log, 2, 100);
	cr_assert_eq(next[0], 0xf);
	cr_assert_eq(next[1], 1);
}
