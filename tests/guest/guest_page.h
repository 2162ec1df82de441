/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What is in a stamped page, and how a wrong one is told from a right one.
 * Pure: no state, no calls to the outside, compiles for the guest and the host.
 *
 * Layout, 512 little-endian words of 64 bits:
 *   0 magic        4 checksum of the body
 *   1 page number  5, 6 zero
 *   2 sequence     7 checksum of words 0 .. 6
 *   3 sequence the body was generated for
 *   8 .. 511 body: a function of (content, page number, word 3)
 * A sequence starts at 1; a page of zeros counts as sequence 0.
 */
#ifndef GUEST_PAGE_H
#define GUEST_PAGE_H

#include <stdint.h>

#define GUEST_PAGE_BYTES 4096
#define GUEST_PAGE_WORDS 512

enum guest_content {
	GUEST_CONTENT_INVALID = 0,
	GUEST_CONTENT_ZERO,   /* body zero but for its last word: compresses to nothing */
	GUEST_CONTENT_TEXT,   /* words of 8 letters out of 64: compresses to less than half */
	GUEST_CONTENT_RANDOM, /* does not compress */
	GUEST_CONTENTS
};

enum guest_page_kind {
	GUEST_PAGE_INVALID = 0,
	GUEST_PAGE_GOOD,
	GUEST_PAGE_STALE,   /* whole, but of an older sequence than expected */
	GUEST_PAGE_AHEAD,   /* whole, but of a newer one: the expectation is the stale part */
	GUEST_PAGE_TORN,    /* parts of it belong to another state, or to nothing */
	GUEST_PAGE_FOREIGN, /* whole, but it is another page */
	GUEST_PAGE_KINDS
};

extern const char *const guest_page_kind_names[GUEST_PAGE_KINDS];

struct guest_page_verdict {
	enum guest_page_kind kind;
	uint64_t got; /* sequence found; for FOREIGN the page number found */
};

/** guest_page_stamp - write all of @page for (@number, @sequence).  4096 bytes, 8-aligned. */
void guest_page_stamp(uint64_t *page, uint64_t number, uint64_t sequence,
		      enum guest_content content);

/**
 * guest_page_restamp - give a page a new sequence by writing two words only.
 * The caller has just found the header good; the body stays as it is.
 */
void guest_page_restamp(uint64_t *page, uint64_t sequence);

/** guest_page_check_header - the first 64 bytes only; never finds a torn body. */
struct guest_page_verdict guest_page_check_header(const uint64_t *page, uint64_t number,
						  uint64_t sequence);

/** guest_page_check - the whole page: checksum, and every word against what it must be. */
struct guest_page_verdict guest_page_check(const uint64_t *page, uint64_t number, uint64_t sequence,
					   enum guest_content content);

#endif
