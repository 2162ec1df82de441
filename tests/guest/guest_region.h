/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The memory above the image: first the tables, then the numbered pages that the
 * guest stamps.  Page numbers run through the working set (0 .. ws_pages - 1) and
 * then the fill pages.  Set up by vCPU 0 before the others start; after that the
 * layout never changes and each page's expectation belongs to the vCPU that owns
 * the page.
 */
#ifndef GUEST_REGION_H
#define GUEST_REGION_H

#include <stdbool.h>
#include <stdint.h>

#include "tests/guest/guest_cmdline.h"
#include "tests/guest/guest_firmware.h"
#include "tests/guest/testpage.h"

struct guest_extent {
	uint64_t gpa;
	uint64_t page_count;
};

struct guest_region {
	struct guest_extent extents[TESTPAGE_EXTENTS_MAX];
	uint32_t extent_count;
	uint64_t ws_pages, fill_pages;
	uint64_t image_start, image_end;
	uint64_t table_start, table_end; /* the pool is in it */
	uint64_t pool_at, pool_end;
	uint64_t shift; /* of an address against the physical one: 0, but in tests on the host */
	uint64_t *expected;        /* the sequence of each page ... */
	uint64_t *expected_masked; /* ... and again, elsewhere and in another form */
};

extern struct guest_region guest_region;

/**
 * guest_region_init - map the RAM above 4 GiB, place pool, tables and pages.
 * @pool_bytes: for guest_region_take(); 0: none.
 * Dies if they do not fit.
 */
void guest_region_init(const struct guest_firmware *fw, const struct guest_options *options,
		       uint64_t pool_bytes);

/**
 * guest_region_take - zeroed pages for what devices access: rings, buffers, tables of disks.
 * vCPU 0 only.  They lie between the image and the tables and are neither stamped nor checked.
 * Dies when the pool that guest_region_init() was asked for is used up.
 */
void *guest_region_take(uint64_t bytes);

/** guest_region_page - address of page @number. */
uint64_t *guest_region_page(uint64_t number);

/** guest_region_expect - from now on page @number must have @sequence. */
void guest_region_expect(uint64_t number, uint64_t sequence);

/**
 * guest_region_expected - read the expectation of page @number.
 * @ret_other: the second copy.  They are equal unless the table itself lost an update.
 */
uint64_t guest_region_expected(uint64_t number, uint64_t *ret_other);

#endif
