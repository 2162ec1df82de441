/* SPDX-License-Identifier: Apache-2.0 */
#include "migrate/mig_body_post.h"

#include <errno.h>
#include <inttypes.h>
#include <stdatomic.h>

#include "migrate/mig_body_priv.h"

#define FLAG_LAST  1u
#define GAP_WORDS  8u /* so many empty ones cost as much as another message */
#define KIND_PAGES 1u
#define KIND_ZEROS 2u

/* --- OWED, LACKS --- */

static uint64_t word_at(const struct mig_owed *owed, uint32_t index)
{
	return base_get_le64(owed->words + (size_t)index * 8);
}

int mig_owed_decode(const uint8_t *bytes, uint32_t size_bytes, struct mig_owed *ret_owed,
		    struct base_error *err)
{
	struct base_reader in = base_reader_over(bytes, size_bytes);
	struct mig_owed owed = { .first_page = base_read_le64(&in) };
	uint32_t flags = base_read_le32(&in);
	int r = 0;

	owed.word_count = base_read_le32(&in);
	owed.last = flags == FLAG_LAST;
	if (in.failed || flags > FLAG_LAST || owed.word_count > MIG_OWED_WORDS_MAX)
		return base_fail(err, -EBADMSG,
				 "migration owed: flags 0x%" PRIx32 ", %" PRIu32
				 " words, expected at most %u",
				 flags, owed.word_count, MIG_OWED_WORDS_MAX);
	r = mig_body_size("owed", size_bytes, MIG_OWED_HEADER_BYTES + owed.word_count * 8, err);
	if (r < 0)
		return r;
	if (owed.first_page % 64 != 0 || (owed.word_count == 0 && owed.first_page != 0))
		return base_fail(err, -EBADMSG, "migration owed: from page %" PRIu64,
				 owed.first_page);
	owed.words = base_read_span(&in, (size_t)owed.word_count * 8);
	if (owed.word_count == 0
		    ? !owed.last
		    : word_at(&owed, 0) == 0 || word_at(&owed, owed.word_count - 1) == 0)
		return base_fail(err, -EBADMSG, "migration owed: words that say nothing");
	*ret_owed = owed;
	return 0;
}

static void put_header(struct base_buffer *out, uint64_t first_page, bool last, uint32_t words)
{
	base_buffer_le64(out, first_page);
	base_buffer_le32(out, last ? FLAG_LAST : 0);
	base_buffer_le32(out, words);
}

void mig_owed_encode(const struct mig_owed *owed, struct base_buffer *out)
{
	put_header(out, owed->first_page, owed->last, owed->word_count);
	base_buffer_append(out, owed->words, (size_t)owed->word_count * 8);
}

/* Words from @first on, up to the last before a gap that is worth it. */
static uint32_t stretch(const _Atomic uint64_t *bits, uint64_t word_count, uint64_t first)
{
	uint32_t count = 1;

	for (uint32_t i = 1; i < MIG_OWED_WORDS_MAX && first + i < word_count; i++) {
		if (atomic_load_explicit(&bits[first + i], memory_order_relaxed) != 0)
			count = i + 1;
		else if (i - count >= GAP_WORDS)
			break;
	}
	return count;
}

/* The words of a stretch, as they are now: empty ones at both ends may have come about meanwhile.
 * Returns their number, without those at the end; 0 where the first is empty. */
static uint32_t copy_words(const _Atomic uint64_t *bits, uint32_t count, struct base_buffer *words)
{
	uint32_t used = 0;

	for (uint32_t i = 0; i < count; i++) {
		uint64_t word = atomic_load_explicit(&bits[i], memory_order_relaxed);

		if (i == 0 && word == 0)
			return 0;
		used = word != 0 ? i + 1 : used;
		base_buffer_le64(words, word);
	}
	return used;
}

bool mig_owed_next(const _Atomic uint64_t *bits, uint64_t word_count, uint64_t *at,
		   struct base_buffer *out)
{
	while (*at < word_count && !out->failed) {
		BASE_CLEANUP(base_buffer_fini) struct base_buffer words = { .data = NULL };
		uint64_t first = *at;
		bool some = atomic_load_explicit(&bits[first], memory_order_relaxed) != 0;
		uint32_t count = some ? stretch(bits, word_count, first) : 0;
		uint32_t used = copy_words(bits + first, count, &words);

		*at = used > 0 ? first + count : first + 1;
		out->failed = out->failed || words.failed;
		if (used == 0 || out->failed)
			continue;
		put_header(out, first * 64, false, used);
		base_buffer_append(out, words.data, (size_t)used * 8);
		return true;
	}
	return false;
}

int mig_owed_take(const struct mig_owed *owed, uint64_t page_count, uint64_t *at,
		  _Atomic uint64_t *bits, struct base_error *err)
{
	uint64_t words = page_count / 64 + (page_count % 64 != 0 ? 1 : 0);
	uint64_t first = owed->first_page / 64;

	if (owed->word_count == 0)
		return 0;
	if (first < *at || first >= words || owed->word_count > words - first)
		return base_fail(err, -EBADMSG,
				 "migration owed: %" PRIu32 " words from page %" PRIu64
				 ", expected behind %" PRIu64 " and within %" PRIu64,
				 owed->word_count, owed->first_page, *at * 64, page_count);
	if (first + owed->word_count == words && page_count % 64 != 0 &&
	    word_at(owed, owed->word_count - 1) >> page_count % 64 != 0)
		return base_fail(err, -EBADMSG, "migration owed: a page behind the last, %" PRIu64,
				 page_count);
	for (uint32_t i = 0; i < owed->word_count; i++)
		atomic_store_explicit(&bits[first + i], word_at(owed, i), memory_order_relaxed);
	*at = first + owed->word_count;
	return 0;
}

/* --- WANT --- */

uint32_t mig_want_encode(const struct mig_want *want, uint8_t ret_bytes[MIG_WANT_BYTES_MAX])
{
	struct base_writer out = base_writer_over(ret_bytes, MIG_WANT_BYTES_MAX);

	base_assert(want->count > 0 && want->count <= MIG_WANT_MAX);
	base_write_le32(&out, want->count);
	base_write_le32(&out, 0);
	for (uint32_t i = 0; i < want->count; i++)
		base_write_le64(&out, want->pages[i]);
	return (uint32_t)out.offset_bytes;
}

int mig_want_decode(const uint8_t *bytes, uint32_t size_bytes, struct mig_want *ret_want,
		    struct base_error *err)
{
	struct base_reader in = base_reader_over(bytes, size_bytes);
	struct mig_want want = { .count = base_read_le32(&in) };
	int r = mig_body_zeros("want", &in, 4, err);

	if (r < 0)
		return r;
	if (want.count == 0 || want.count > MIG_WANT_MAX)
		return base_fail(err, -EBADMSG,
				 "migration want: %" PRIu32 " pages, expected 1 to %u", want.count,
				 MIG_WANT_MAX);
	r = mig_body_size("want", size_bytes, MIG_WANT_HEADER_BYTES + want.count * 8, err);
	if (r < 0)
		return r;
	for (uint32_t i = 0; i < want.count; i++)
		want.pages[i] = base_read_le64(&in);
	*ret_want = want;
	return 0;
}

/* --- PAGES --- */

uint32_t mig_pages_encode(const struct mig_pages *pages, uint8_t ret_bytes[MIG_PAGES_HEADER_BYTES])
{
	struct base_writer out = base_writer_over(ret_bytes, MIG_PAGES_HEADER_BYTES);

	base_assert(pages->count > 0 && pages->count <= MIG_PAGES_MAX);
	base_write_le64(&out, pages->first);
	base_write_le32(&out, pages->count);
	base_write_le32(&out, pages->bytes != NULL ? KIND_PAGES : KIND_ZEROS);
	return MIG_PAGES_HEADER_BYTES + (pages->bytes != NULL ? pages->count * MIG_PAGE_BYTES : 0);
}

int mig_pages_decode(const uint8_t *bytes, uint32_t size_bytes, struct mig_pages *ret_pages,
		     struct base_error *err)
{
	struct base_reader in = base_reader_over(bytes, size_bytes);
	struct mig_pages pages = { .first = base_read_le64(&in) };
	uint32_t kind = 0;
	uint32_t left = 0;
	int r = 0;

	pages.count = base_read_le32(&in);
	kind = base_read_le32(&in);
	if (in.failed || pages.count == 0 || pages.count > MIG_PAGES_MAX ||
	    pages.first > UINT64_MAX - pages.count)
		return base_fail(err, -EBADMSG,
				 "migration pages: %" PRIu32 " from %" PRIu64 ", expected 1 to %u",
				 pages.count, pages.first, MIG_PAGES_MAX);
	if (kind != KIND_PAGES && kind != KIND_ZEROS)
		return base_fail(err, -EBADMSG, "migration pages: kind %" PRIu32, kind);
	left = kind == KIND_PAGES ? pages.count * MIG_PAGE_BYTES : 0;
	r = mig_body_size("pages", size_bytes, MIG_PAGES_HEADER_BYTES + left, err);
	if (r < 0)
		return r;
	pages.bytes = kind == KIND_PAGES ? base_read_span(&in, left) : NULL;
	*ret_pages = pages;
	return 0;
}

/* --- COMPLETE --- */

void mig_complete_encode(const struct mig_complete *complete, uint8_t ret_bytes[MIG_COMPLETE_BYTES])
{
	struct base_writer out = base_writer_over(ret_bytes, MIG_COMPLETE_BYTES);

	base_write_le64(&out, complete->epoch);
	base_write_le64(&out, complete->owed_pages);
	base_write_le64(&out, complete->fault_pages);
	base_write_le64(&out, complete->rest_pages);
	base_write_le64(&out, complete->twice_pages);
	base_write_le64(&out, complete->waits);
	base_write_le64(&out, complete->p50_ns);
	base_write_le64(&out, complete->p99_ns);
	base_write_le64(&out, complete->longest_ns);
	base_write_le64(&out, complete->fill_ns);
	base_write_le64(&out, complete->reconnects);
	base_write_le64(&out, 0);
}

int mig_complete_decode(const uint8_t *bytes, uint32_t size_bytes,
			struct mig_complete *ret_complete, struct base_error *err)
{
	struct base_reader in = base_reader_over(bytes, size_bytes);
	struct mig_complete complete = { .epoch = base_read_le64(&in) };
	int r = mig_body_size("complete", size_bytes, MIG_COMPLETE_BYTES, err);

	if (r < 0)
		return r;
	complete.owed_pages = base_read_le64(&in);
	complete.fault_pages = base_read_le64(&in);
	complete.rest_pages = base_read_le64(&in);
	complete.twice_pages = base_read_le64(&in);
	complete.waits = base_read_le64(&in);
	complete.p50_ns = base_read_le64(&in);
	complete.p99_ns = base_read_le64(&in);
	complete.longest_ns = base_read_le64(&in);
	complete.fill_ns = base_read_le64(&in);
	complete.reconnects = base_read_le64(&in);
	r = mig_body_zeros("complete", &in, 8, err);
	if (r < 0)
		return r;
	*ret_complete = complete;
	return 0;
}
