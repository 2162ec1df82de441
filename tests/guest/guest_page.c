/* SPDX-License-Identifier: Apache-2.0 */
/* Stamping and verification of pages: see guest_page.h for the layout. */
#include "tests/guest/guest_page.h"

#include <stdbool.h>

#include "tests/guest/testpage.h"

#define MAGIC       0x746e696f64776f47 /* "Godwoint": never zero, never a text word */
#define BODY_FIRST  8
#define TEXT_PIECES 64
#define LANES       4 /* independent checksum chains, so that the multiplier stays busy */

enum {
	WORD_MAGIC,
	WORD_NUMBER,
	WORD_SEQUENCE,
	WORD_BODY_SEQUENCE,
	WORD_BODY_SUM,
	WORD_HEAD_SUM = 7
};

/* 64 pieces of 8 letters. */
static const union {
	char letters[TEXT_PIECES * 8 + 1];
	uint64_t pieces[TEXT_PIECES + 1];
} text = { .letters = "migrate machine memory  without landing again   godwits travel  "
		      "between islands every   autumn  across  the open Pacific carryin"
		      "g nothing more   than fat and feathers; they neither swim nor gl"
		      "ide and so must flap all   the way over nights and days until la"
		      "nd appears at last where   the tide leaves mud full of worms   a"
		      "nd crabs.  Nobody  knows   how birds navigate these distances or"
		      " why so few are lost and now and thenone turns back  early   bec"
		      "ause the winds are wrong.    A virtual one does  as well, or bet" };

static uint64_t rotate(uint64_t value, unsigned int bits)
{
	return (value << bits) | (value >> (64 - bits));
}

/* A bijection of @sum for a given @word and of @word for a given @sum. */
static uint64_t add(uint64_t sum, uint64_t word)
{
	return rotate((sum ^ word) * 0x9e3779b97f4a7c15, 29);
}

static uint64_t head_sum(const uint64_t *page)
{
	uint64_t sum = MAGIC;

	for (unsigned int i = 0; i < WORD_HEAD_SUM; i++)
		sum = add(sum, page[i]);
	return testpage_mix(sum);
}

static uint64_t body_seed(uint64_t number, uint64_t sequence)
{
	return testpage_mix(testpage_mix(number) + sequence);
}

const char *const guest_page_kind_names[GUEST_PAGE_KINDS] = { "invalid", "good", "stale",
							      "ahead",   "torn", "foreign" };

/* Words @i .. @i + LANES - 1 of a body. */
static inline __attribute__((always_inline)) void
body_words(enum guest_content content, uint64_t seed, unsigned int i, uint64_t *ret_words)
{
	uint64_t bits = content == GUEST_CONTENT_TEXT ? testpage_mix(seed + i) : 0;

	for (unsigned int lane = 0; lane < LANES; lane++) {
		if (content == GUEST_CONTENT_RANDOM) {
			uint64_t word = seed + (i + lane) * 0x9e3779b97f4a7c15;

			ret_words[lane] = (word ^ (word >> 32)) * 0xd6e8feb86659fd93;
		} else if (content == GUEST_CONTENT_TEXT) {
			ret_words[lane] = text.pieces[(bits >> (lane * 8)) % TEXT_PIECES];
		} else { /* the two ends of a zero page belong together */
			ret_words[lane] = i + lane == GUEST_PAGE_WORDS - 1 ? seed | 1 : 0;
		}
	}
}

static uint64_t body_fold(const uint64_t *sums)
{
	uint64_t sum = MAGIC;

	for (unsigned int lane = 0; lane < LANES; lane++)
		sum = add(sum, sums[lane]);
	return testpage_mix(sum);
}

/* The content is a constant at each call, so each call becomes a tight loop of its own. */
static inline __attribute__((always_inline)) uint64_t
body_write(uint64_t *page, enum guest_content content, uint64_t seed)
{
	uint64_t sums[LANES] = { 1, 2, 3, 4 };

	for (unsigned int i = BODY_FIRST; i < GUEST_PAGE_WORDS; i += LANES) {
		uint64_t words[LANES];

		body_words(content, seed, i, words);
		for (unsigned int lane = 0; lane < LANES; lane++) {
			page[i + lane] = words[lane];
			sums[lane] = add(sums[lane], words[lane]);
		}
	}
	return body_fold(sums);
}

/* Return: the checksum of what is there; *@ret_same false when a word is not what it must be. */
static inline __attribute__((always_inline)) uint64_t
body_read(const uint64_t *page, enum guest_content content, uint64_t seed, bool *ret_same)
{
	uint64_t sums[LANES] = { 1, 2, 3, 4 };
	uint64_t differ = 0;

	for (unsigned int i = BODY_FIRST; i < GUEST_PAGE_WORDS; i += LANES) {
		uint64_t words[LANES];

		body_words(content, seed, i, words);
		for (unsigned int lane = 0; lane < LANES; lane++) {
			uint64_t word = page[i + lane];

			differ |= word ^ words[lane];
			sums[lane] = add(sums[lane], word);
		}
	}
	*ret_same = differ == 0;
	return body_fold(sums);
}

void guest_page_stamp(uint64_t *page, uint64_t number, uint64_t sequence,
		      enum guest_content content)
{
	uint64_t seed = body_seed(number, sequence);

	page[WORD_MAGIC] = MAGIC;
	page[WORD_NUMBER] = number;
	page[WORD_SEQUENCE] = sequence;
	page[WORD_BODY_SEQUENCE] = sequence;
	if (content == GUEST_CONTENT_RANDOM)
		page[WORD_BODY_SUM] = body_write(page, GUEST_CONTENT_RANDOM, seed);
	else if (content == GUEST_CONTENT_TEXT)
		page[WORD_BODY_SUM] = body_write(page, GUEST_CONTENT_TEXT, seed);
	else
		page[WORD_BODY_SUM] = body_write(page, GUEST_CONTENT_ZERO, seed);
	page[WORD_BODY_SUM + 1] = 0;
	page[WORD_BODY_SUM + 2] = 0;
	page[WORD_HEAD_SUM] = head_sum(page);
}

void guest_page_restamp(uint64_t *page, uint64_t sequence)
{
	page[WORD_SEQUENCE] = sequence;
	page[WORD_HEAD_SUM] = head_sum(page);
}

static bool page_is_zero(const uint64_t *page)
{
	uint64_t any = 0;

	for (unsigned int i = 0; i < GUEST_PAGE_WORDS; i++)
		any |= page[i];
	return any == 0;
}

struct guest_page_verdict guest_page_check_header(const uint64_t *page, uint64_t number,
						  uint64_t sequence)
{
	struct guest_page_verdict verdict = { GUEST_PAGE_GOOD, page[WORD_SEQUENCE] };

	if (page[WORD_MAGIC] != MAGIC || page[WORD_HEAD_SUM] != head_sum(page)) {
		/* never arrived, rather than half of it */
		verdict.kind = page_is_zero(page) ? GUEST_PAGE_STALE : GUEST_PAGE_TORN;
	} else if (page[WORD_NUMBER] != number) {
		verdict.kind = GUEST_PAGE_FOREIGN;
		verdict.got = page[WORD_NUMBER];
	} else if (verdict.got < sequence) {
		verdict.kind = GUEST_PAGE_STALE;
	} else if (verdict.got > sequence) {
		verdict.kind = GUEST_PAGE_AHEAD;
	}
	return verdict;
}

struct guest_page_verdict guest_page_check(const uint64_t *page, uint64_t number, uint64_t sequence,
					   enum guest_content content)
{
	struct guest_page_verdict verdict = guest_page_check_header(page, number, sequence);
	uint64_t seed = body_seed(number, page[WORD_BODY_SEQUENCE]);
	bool same = false;
	uint64_t sum;

	if (verdict.kind != GUEST_PAGE_GOOD)
		return verdict;
	if (content == GUEST_CONTENT_RANDOM)
		sum = body_read(page, GUEST_CONTENT_RANDOM, seed, &same);
	else if (content == GUEST_CONTENT_TEXT)
		sum = body_read(page, GUEST_CONTENT_TEXT, seed, &same);
	else
		sum = body_read(page, GUEST_CONTENT_ZERO, seed, &same);
	if (!same || sum != page[WORD_BODY_SUM])
		verdict.kind = GUEST_PAGE_TORN;
	return verdict;
}
