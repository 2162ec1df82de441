/* SPDX-License-Identifier: Apache-2.0 */
/*
 * How deep a test goes that lets each request, allocation, byte or event fail in turn.
 *
 * A sanitizer makes one such point ten to twenty times as slow, and what it looks for is on the
 * same paths at the next point: there one in twenty-six is taken, else every third, and all of
 * them where TEST_ALL_POINTS is set, as tests/run --long and tests/mutants/run do.
 */
#ifndef TESTS_DEPTH_H
#define TESTS_DEPTH_H

#include <stdint.h>
#include <stdlib.h>

/* The distance from one point to the next, at least 1. */
static inline uint32_t depth_stride(void)
{
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
	return getenv("TEST_ALL_POINTS") != NULL ? 1 : 26;
#else
	return getenv("TEST_ALL_POINTS") != NULL ? 1 : 3;
#endif
}

#endif
