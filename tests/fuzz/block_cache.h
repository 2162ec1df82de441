/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Large blocks of memory for fuzz targets that make and free the same objects for each input.
 *
 * The sanitizer maps and unmaps a large block with each allocation, which
 * takes milliseconds.  In the targets that link block_cache.c, malloc(), calloc() and free() keep
 * such blocks (--wrap): poisoned while they are free, and with a poisoned end.
 *
 * One thread.
 */
#ifndef TESTS_FUZZ_BLOCK_CACHE_H
#define TESTS_FUZZ_BLOCK_CACHE_H

#include <stdint.h>

/* Blocks of the cache that are not free: the leak detector does not see them as lost. */
uint32_t block_cache_used(void);

#endif
