/* SPDX-License-Identifier: Apache-2.0 */
/* The wrapped allocators; the linker resolves __real_* to the C library's. */
#include "tests/support/alloc_fail.h"

#include <errno.h>
#include <stdatomic.h>
#include <stdlib.h>

#define DISARMED (-1L)

void *__real_malloc(size_t size_bytes);
void *__real_calloc(size_t count, size_t size_bytes);
void *__real_realloc(void *memory, size_t size_bytes);
void *__real_aligned_alloc(size_t align_bytes, size_t size_bytes);
void *__wrap_malloc(size_t size_bytes);
void *__wrap_calloc(size_t count, size_t size_bytes);
void *__wrap_realloc(void *memory, size_t size_bytes);
void *__wrap_aligned_alloc(size_t align_bytes, size_t size_bytes);

static atomic_long left = DISARMED; /* allocations that still succeed */
static atomic_bool failed;

void alloc_fail_at(unsigned int skip_count)
{
	atomic_store(&failed, false);
	atomic_store(&left, (long)skip_count);
}

bool alloc_fail_done(void)
{
	atomic_store(&left, DISARMED);
	return atomic_load(&failed);
}

static bool is_due(void)
{
	long now = atomic_load(&left);

	while (now != DISARMED && !atomic_compare_exchange_weak(&left, &now, now - 1))
		;
	if (now != 0)
		return false;
	atomic_store(&failed, true);
	errno = ENOMEM;
	return true;
}

void *__wrap_malloc(size_t size_bytes)
{
	return is_due() ? NULL : __real_malloc(size_bytes);
}

void *__wrap_calloc(size_t count, size_t size_bytes)
{
	return is_due() ? NULL : __real_calloc(count, size_bytes);
}

void *__wrap_realloc(void *memory, size_t size_bytes)
{
	return is_due() ? NULL : __real_realloc(memory, size_bytes);
}

void *__wrap_aligned_alloc(size_t align_bytes, size_t size_bytes)
{
	return is_due() ? NULL : __real_aligned_alloc(align_bytes, size_bytes);
}
