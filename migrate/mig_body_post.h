/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The bodies of the messages of post-copy: docs/migrate/postcopy.md, section 4.  As mig_body.h;
 * whether memory has such a page is the caller's to check, but for mig_owed_take().
 *
 * Any thread.
 */
#ifndef MIGRATE_MIG_BODY_POST_H
#define MIGRATE_MIG_BODY_POST_H

#include "base/bytes.h"
#include "migrate/mig_wire.h"

#define MIG_OWED_HEADER_BYTES  16u
#define MIG_OWED_WORDS_MAX     ((MIG_BODY_BYTES_MAX - MIG_OWED_HEADER_BYTES) / 8u)
#define MIG_WANT_MAX           64u /* pages asked for at once */
#define MIG_WANT_HEADER_BYTES  8u
#define MIG_WANT_BYTES_MAX     (MIG_WANT_HEADER_BYTES + MIG_WANT_MAX * 8u)
#define MIG_PAGES_MAX          64u /* in one message */
#define MIG_PAGES_HEADER_BYTES 16u
#define MIG_PAGES_BYTES_MAX    (MIG_PAGES_HEADER_BYTES + MIG_PAGES_MAX * MIG_PAGE_BYTES)
#define MIG_COMPLETE_BYTES     96u

/* OWED and LACKS: a part of a bitmap of pages. */
struct mig_owed {
	uint64_t first_page; /* a multiple of 64 */
	bool last;           /* LACKS: nothing follows */
	uint32_t word_count; /* the first and the last are not 0; none only in a last one */
	const uint8_t *words;
};
BASE_MUST_CHECK int mig_owed_decode(const uint8_t *bytes, uint32_t size_bytes,
				    struct mig_owed *ret_owed, struct base_error *err);
/* The same bytes again.  Appends; out->failed: no memory. */
void mig_owed_encode(const struct mig_owed *owed, struct base_buffer *out);
/**
 * mig_owed_next - the next part of @bits, from word *@at on, which moves behind it.
 * Appends; false: there was none.  @bits may change meanwhile, by bits that go.
 */
bool mig_owed_next(const _Atomic uint64_t *bits, uint64_t word_count, uint64_t *at,
		   struct base_buffer *out);
/**
 * mig_owed_take - put a part into @bits of @page_count pages.
 * *@at: the word behind the part before.  -EBADMSG: beyond memory, or not behind that.
 */
BASE_MUST_CHECK int mig_owed_take(const struct mig_owed *owed, uint64_t page_count, uint64_t *at,
				  _Atomic uint64_t *bits, struct base_error *err);

/* WANT: pages that somebody waits for. */
struct mig_want {
	uint32_t count; /* 1 to MIG_WANT_MAX */
	uint64_t pages[MIG_WANT_MAX];
};
/* Returns the bytes of it. */
uint32_t mig_want_encode(const struct mig_want *want, uint8_t ret_bytes[MIG_WANT_BYTES_MAX]);
BASE_MUST_CHECK int mig_want_decode(const uint8_t *bytes, uint32_t size_bytes,
				    struct mig_want *ret_want, struct base_error *err);

/* PAGES. */
struct mig_pages {
	uint64_t first;
	uint32_t count;       /* 1 to MIG_PAGES_MAX */
	const uint8_t *bytes; /* in the body; NULL: zeros */
};
/* The message but for its pages' bytes, which stand behind the header: returns the bytes of it. */
uint32_t mig_pages_encode(const struct mig_pages *pages, uint8_t ret_bytes[MIG_PAGES_HEADER_BYTES]);
/* @ret_pages: does not wrap round. */
BASE_MUST_CHECK int mig_pages_decode(const uint8_t *bytes, uint32_t size_bytes,
				     struct mig_pages *ret_pages, struct base_error *err);

/* COMPLETE: how it went, as the destination saw it. */
struct mig_complete {
	uint64_t epoch;
	uint64_t owed_pages;
	uint64_t fault_pages; /* came because somebody waited */
	uint64_t rest_pages;
	uint64_t twice_pages; /* came once more */
	uint64_t waits;       /* for the network */
	uint64_t p50_ns, p99_ns, longest_ns;
	uint64_t fill_ns; /* from RUNNING to the last page */
	uint64_t reconnects;
};
void mig_complete_encode(const struct mig_complete *complete,
			 uint8_t ret_bytes[MIG_COMPLETE_BYTES]);
BASE_MUST_CHECK int mig_complete_decode(const uint8_t *bytes, uint32_t size_bytes,
					struct mig_complete *ret_complete, struct base_error *err);

#endif
