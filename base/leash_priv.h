/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The leash page as holder and worker share it: its bytes, and the sequence lock that
 * lets the worker copy it while the holder may be writing.  docs/base/leash.md has the
 * layout.  For base/ and its tests only.
 */
#ifndef BASE_LEASH_PRIV_H
#define BASE_LEASH_PRIV_H

#include <stdint.h>

#include "base/leash.h"

/* The decoded page.  A value. */
struct base_leash_page {
	uint64_t sequence; /* even, > 0, grows with every update */
	struct base_leash_terms terms;
};

/* The canonical encoding of @page, which base_leash_page_read() gives back. */
void base_leash_page_encode(const struct base_leash_page *page, uint8_t to[BASE_LEASH_PAGE_BYTES]);

/* base_leash_page_decode() with the sequence. */
BASE_MUST_CHECK int base_leash_page_decode_all(const uint8_t page[BASE_LEASH_PAGE_BYTES],
					       struct base_leash_page *ret_page,
					       struct base_error *err);

/* Publish @page in the shared memory at @shared (page aligned).  One writer at a time. */
void base_leash_page_write(void *shared, const struct base_leash_page *page);

/* Copy, then decode.  Errors as base_leash_page_decode(); -EAGAIN also when the sequence
 * changed during the copy. */
BASE_MUST_CHECK int base_leash_page_read(const void *shared, struct base_leash_page *ret_page,
					 struct base_error *err);

#endif
