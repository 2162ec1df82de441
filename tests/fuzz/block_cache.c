/* SPDX-License-Identifier: Apache-2.0 */
/* The wrapped allocators; the linker resolves __real_* to the sanitizer's. */
#include "tests/fuzz/block_cache.h"

#include <sanitizer/asan_interface.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#define CACHED_BYTES_MIN 16384u
#define BLOCKS_MAX       64u /* more are the sanitizer's own */
#define ALIGN_BYTES      4096u
#define END_BYTES        64u /* poisoned, behind each block */

void *__real_malloc(size_t size_bytes);
void *__real_calloc(size_t count, size_t size_bytes);
void *__real_aligned_alloc(size_t align_bytes, size_t size_bytes);
void __real_free(void *memory);
void *__wrap_malloc(size_t size_bytes);
void *__wrap_calloc(size_t count, size_t size_bytes);
void *__wrap_aligned_alloc(size_t align_bytes, size_t size_bytes);
void __wrap_free(void *memory);

static struct {
	void *memory;
	size_t size_bytes; /* rounded up to END_BYTES */
	bool used;
} blocks[BLOCKS_MAX];
static uint32_t block_count;

static void *take(uint32_t index, size_t size_bytes)
{
	uint8_t *memory = blocks[index].memory;

	blocks[index].used = true;
	__asan_unpoison_memory_region(memory, size_bytes);
	__asan_poison_memory_region(memory + size_bytes,
				    blocks[index].size_bytes + END_BYTES - size_bytes);
	return memory;
}

/* NULL: not one for the cache. */
static void *cached(size_t size_bytes)
{
	size_t rounded_bytes = (size_bytes + END_BYTES - 1) / END_BYTES * END_BYTES;

	if (size_bytes < CACHED_BYTES_MIN || size_bytes > SIZE_MAX / 2)
		return NULL;
	for (uint32_t i = 0; i < block_count; i++)
		if (!blocks[i].used && blocks[i].size_bytes == rounded_bytes)
			return take(i, size_bytes);
	if (block_count == BLOCKS_MAX)
		return NULL;
	blocks[block_count].memory =
		__real_aligned_alloc(ALIGN_BYTES, (rounded_bytes + END_BYTES + ALIGN_BYTES - 1) /
							  ALIGN_BYTES * ALIGN_BYTES);
	if (blocks[block_count].memory == NULL)
		return NULL;
	blocks[block_count].size_bytes = rounded_bytes;
	return take(block_count++, size_bytes);
}

void *__wrap_malloc(size_t size_bytes)
{
	void *memory = cached(size_bytes);

	return memory != NULL ? memory : __real_malloc(size_bytes);
}

void *__wrap_calloc(size_t count, size_t size_bytes)
{
	void *memory = size_bytes == 0 || count > SIZE_MAX / size_bytes
			       ? NULL
			       : cached(count * size_bytes);

	return memory != NULL ? memset(memory, 0, count * size_bytes)
			      : __real_calloc(count, size_bytes);
}

void *__wrap_aligned_alloc(size_t align_bytes, size_t size_bytes)
{
	void *memory = align_bytes <= ALIGN_BYTES ? cached(size_bytes) : NULL;

	return memory != NULL ? memory : __real_aligned_alloc(align_bytes, size_bytes);
}

void __wrap_free(void *memory)
{
	for (uint32_t i = 0; memory != NULL && i < block_count; i++) {
		if (blocks[i].memory != memory)
			continue;
		if (!blocks[i].used)
			abort(); /* freed twice */
		blocks[i].used = false;
		__asan_poison_memory_region(memory, blocks[i].size_bytes);
		return;
	}
	__real_free(memory);
}

uint32_t block_cache_used(void)
{
	uint32_t count = 0;

	for (uint32_t i = 0; i < block_count; i++)
		count += blocks[i].used ? 1 : 0;
	return count;
}
