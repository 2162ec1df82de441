/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Guest memory that is made once and is all zeros again for each input of a fuzz target: what an
 * input wrote is found by its dirty marks.  So a write that is not marked is found, too.
 */
#ifndef TESTS_FUZZ_FUZZ_MEMORY_H
#define TESTS_FUZZ_FUZZ_MEMORY_H

#include <stdlib.h>
#include <string.h>

#include "base/error.h"
#include "hypervisor/hv_limits.h"
#include "hypervisor/memory_priv.h"
#include "hypervisor/slat.h"

#define FUZZ_MEMORY_BYTES (64ULL << 20)

struct fuzz_memory {
	struct hv_memory *memory;
	struct hv_slat *slat;
	uint64_t *dirty; /* hv_slat_word_count() */
};

static inline void fuzz_memory_init(struct fuzz_memory *memory)
{
	base_assert(hv_memory_new(FUZZ_MEMORY_BYTES, HV_MEMORY_SMALL, &memory->memory, NULL) == 0);
	base_assert(hv_slat_new(memory->memory, -1, &memory->slat, NULL) == 0);
	memory->dirty = calloc(hv_slat_word_count(memory->slat), sizeof(*memory->dirty));
	base_assert(memory->dirty != NULL);
	base_assert(hv_slat_start(memory->slat, NULL) == 0);
	base_assert(hv_slat_harvest(memory->slat, memory->dirty, NULL, NULL) == 0); /* all of it */
}

/* Zeros again; that they are is looked at in @count pages from @first on, where inputs write. */
static inline void fuzz_memory_reset(struct fuzz_memory *memory, uint64_t first, uint64_t count)
{
	static const uint8_t zeros[HV_PAGE_BYTES];
	uint8_t *base = hv_memory_base(memory->memory);

	base_assert(hv_slat_harvest(memory->slat, memory->dirty, NULL, NULL) == 0);
	for (size_t i = 0; i < hv_slat_word_count(memory->slat); i++)
		for (uint64_t bits = memory->dirty[i]; bits != 0; bits &= bits - 1)
			memset(base + (i * 64 + (uint64_t)__builtin_ctzll(bits)) * HV_PAGE_BYTES, 0,
			       HV_PAGE_BYTES);
	for (uint64_t page = first; page < first + count; page++)
		if (memcmp(base + page * HV_PAGE_BYTES, zeros, HV_PAGE_BYTES) != 0)
			base_bug("page %llu was written and not marked", (unsigned long long)page);
}

#endif
