/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Allocations that fail on order.  Unit tests are linked with --wrap for malloc, calloc,
 * realloc and aligned_alloc, so every call from the project's own libraries and the test comes
 *here; those of the C library and of criterion do not.  One thread arms it at a time.
 *
 * "The k-th fails for every k until the test passes":
 *
 *	for (unsigned int k = 0; ; k++) {
 *		alloc_fail_at(k);
 *		code = thing_new(&thing, &err);
 *		if (!alloc_fail_done())
 *			break;             // fewer than k + 1 allocations: thing_new() worked
 *		cr_assert_eq(code, -ENOMEM);
 *	}
 */
#ifndef TESTS_ALLOC_FAIL_H
#define TESTS_ALLOC_FAIL_H

#include <stdbool.h>

/* Let the allocation after the next @skip_count ones fail, once. */
void alloc_fail_at(unsigned int skip_count);

/* Disarm; true when an allocation was made to fail since alloc_fail_at(). */
bool alloc_fail_done(void);

#endif
