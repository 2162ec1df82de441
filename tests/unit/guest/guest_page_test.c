/* SPDX-License-Identifier: Apache-2.0 */
/* Every kind of wrong page is found, whatever the content; a right one never is. */
#include <criterion/criterion.h>
#include <string.h>

/* Part of the guest image, not of a library.  NOLINTNEXTLINE(bugprone-suspicious-include) */
#include "tests/guest/guest_page.c"

#define NUMBER   4711
#define SEQUENCE 12

static uint64_t page[GUEST_PAGE_WORDS], other[GUEST_PAGE_WORDS];

static void expect(enum guest_page_kind kind, uint64_t got, enum guest_content content)
{
	struct guest_page_verdict verdict = guest_page_check(page, NUMBER, SEQUENCE, content);

	cr_assert_eq(verdict.kind, kind, "content %d: kind %d, want %d", (int)content,
		     (int)verdict.kind, (int)kind);
	cr_assert_eq(verdict.got, got, "content %d: got %lu, want %lu", (int)content,
		     (unsigned long)verdict.got, (unsigned long)got);
}

#define FOR_EACH_CONTENT(c) for (enum guest_content c = GUEST_CONTENT_ZERO; c < GUEST_CONTENTS; c++)

Test(guest_page, good)
{
	FOR_EACH_CONTENT(content)
	{
		guest_page_stamp(page, NUMBER, SEQUENCE, content);
		expect(GUEST_PAGE_GOOD, SEQUENCE, content);
	}
}

Test(guest_page, restamped_is_good)
{
	FOR_EACH_CONTENT(content)
	{
		guest_page_stamp(page, NUMBER, SEQUENCE - 3, content);
		guest_page_restamp(page, SEQUENCE - 1);
		expect(GUEST_PAGE_STALE, SEQUENCE - 1, content);
		guest_page_restamp(page, SEQUENCE);
		expect(GUEST_PAGE_GOOD, SEQUENCE, content);
	}
}

Test(guest_page, stale)
{
	FOR_EACH_CONTENT(content)
	{
		guest_page_stamp(page, NUMBER, SEQUENCE - 1, content);
		expect(GUEST_PAGE_STALE, SEQUENCE - 1, content);
	}
}

Test(guest_page, zeros_are_stale)
{
	FOR_EACH_CONTENT(content)
	{
		memset(page, 0, sizeof(page));
		expect(GUEST_PAGE_STALE, 0, content);
	}
}

Test(guest_page, ahead)
{
	FOR_EACH_CONTENT(content)
	{
		guest_page_stamp(page, NUMBER, SEQUENCE + 1, content);
		expect(GUEST_PAGE_AHEAD, SEQUENCE + 1, content);
	}
}

Test(guest_page, foreign)
{
	FOR_EACH_CONTENT(content)
	{
		guest_page_stamp(page, NUMBER + 1, SEQUENCE, content);
		expect(GUEST_PAGE_FOREIGN, NUMBER + 1, content);
	}
}

/*
 * A page that was copied while it was written: new up to some word, old after it,
 * or the other way round.  Whole when the two agree on one side, never good otherwise.
 */
Test(guest_page, torn_at_every_word)
{
	FOR_EACH_CONTENT(content)
	{
		uint64_t mixed[GUEST_PAGE_WORDS];

		guest_page_stamp(other, NUMBER, SEQUENCE - 1, content);
		for (size_t cut = 1; cut < GUEST_PAGE_WORDS; cut++) {
			guest_page_stamp(page, NUMBER, SEQUENCE, content);
			memcpy(mixed, page, sizeof(mixed));
			memcpy(&page[cut], &other[cut], sizeof(page) - cut * sizeof(page[0]));
			if (memcmp(page, mixed, sizeof(page)) == 0 ||
			    memcmp(page, other, sizeof(page)) == 0)
				continue;
			cr_assert_eq(guest_page_check(page, NUMBER, SEQUENCE, content).kind,
				     GUEST_PAGE_TORN, "content %d cut %zu", (int)content, cut);
			memcpy(page, mixed, sizeof(page));
			memcpy(page, other, cut * sizeof(page[0]));
			if (memcmp(page, mixed, sizeof(page)) == 0 ||
			    memcmp(page, other, sizeof(page)) == 0)
				continue;
			cr_assert_neq(guest_page_check(page, NUMBER, SEQUENCE, content).kind,
				      GUEST_PAGE_GOOD, "content %d cut %zu", (int)content, cut);
		}
	}
}

Test(guest_page, every_flipped_bit_is_found)
{
	FOR_EACH_CONTENT(content)
	{
		guest_page_stamp(page, NUMBER, SEQUENCE, content);
		for (size_t bit = 0; bit < sizeof(page) * 8; bit++) {
			page[bit / 64] ^= 1ULL << (bit % 64);
			cr_assert_eq(guest_page_check(page, NUMBER, SEQUENCE, content).kind,
				     GUEST_PAGE_TORN, "content %d bit %zu", (int)content, bit);
			page[bit / 64] ^= 1ULL << (bit % 64);
		}
	}
}

Test(guest_page, header_check_finds_what_is_in_the_header)
{
	struct guest_page_verdict verdict;

	guest_page_stamp(page, NUMBER, SEQUENCE, GUEST_CONTENT_TEXT);
	verdict = guest_page_check_header(page, NUMBER, SEQUENCE);
	cr_assert_eq(verdict.kind, GUEST_PAGE_GOOD);
	verdict = guest_page_check_header(page, NUMBER, SEQUENCE + 1);
	cr_assert_eq(verdict.kind, GUEST_PAGE_STALE);
	verdict = guest_page_check_header(page, NUMBER + 1, SEQUENCE);
	cr_assert_eq(verdict.kind, GUEST_PAGE_FOREIGN);
	page[2]++;
	verdict = guest_page_check_header(page, NUMBER, SEQUENCE);
	cr_assert_eq(verdict.kind, GUEST_PAGE_TORN);
}

Test(guest_page, bodies_depend_on_page_and_sequence)
{
	FOR_EACH_CONTENT(content)
	{
		guest_page_stamp(page, NUMBER, SEQUENCE, content);
		guest_page_stamp(other, NUMBER, SEQUENCE + 1, content);
		cr_assert_neq(page[GUEST_PAGE_WORDS - 1], 0);
		cr_assert(memcmp(&page[8], &other[8], sizeof(page) - 64) != 0);
		guest_page_stamp(other, NUMBER + 1, SEQUENCE, content);
		cr_assert(memcmp(&page[8], &other[8], sizeof(page) - 64) != 0);
	}
}

Test(guest_page, picks_stay_inside_and_spread)
{
	bool seen[64] = { false };
	unsigned int count = 0;

	for (uint64_t k = 0; k < 1000; k++) {
		uint64_t pick = testpage_pick(7, k, 64);

		cr_assert_lt(pick, 64);
		count += seen[pick] ? 0 : 1;
		seen[pick] = true;
	}
	cr_assert_eq(count, 64);
}
