/* SPDX-License-Identifier: Apache-2.0 */
/* Memory that is there and untouched: what the host has taken, and what can be told of it. */
#include <criterion/criterion.h>
#include <stdlib.h>
#include <sys/stat.h>

#include "hypervisor/slat.h"

#define MEMORY_BYTES (64ULL << 20)
#define PROBES       4u

struct world {
	struct hv_memory *memory;
	struct hv_slat *slat;
};

static struct world world_new(enum hv_memory_backing backing)
{
	struct world world = { .memory = NULL };
	struct base_error err = { .code = 0 };

	cr_assert_eq(hv_memory_new(MEMORY_BYTES, backing, &world.memory, &err), 0, "%s", err.text);
	cr_assert_eq(hv_memory_reserve(world.memory, &err), 0, "%s", err.text);
	cr_assert_eq(hv_slat_new(world.memory, -1, &world.slat, &err), 0, "%s", err.text);
	return world;
}

static void world_free(struct world *world)
{
	hv_slat_free(world->slat);
	hv_memory_free(world->memory);
}

static uint64_t touched_bytes(const struct world *world)
{
	uint64_t count = 0;
	uint64_t *bits = calloc(hv_slat_word_count(world->slat), sizeof(*bits));

	cr_assert_not_null(bits);
	hv_slat_touched(world->slat, bits, &count);
	free(bits);
	return count * HV_PAGE_BYTES;
}

static uint64_t taken_bytes(const struct world *world)
{
	struct stat st;

	cr_assert_eq(fstat(hv_memory_fd(world->memory), &st), 0);
	return (uint64_t)st.st_blocks * 512;
}

Test(memory_reserve, small_pages_are_taken_and_untouched)
{
	struct world world = world_new(HV_MEMORY_SMALL);

	cr_assert_eq(taken_bytes(&world), MEMORY_BYTES);
	cr_assert_eq(touched_bytes(&world), 0);
	cr_assert_eq(hv_slat_write(world.slat, 5 * HV_PAGE_BYTES + 1, "x", 1), 0);
	cr_assert_eq(touched_bytes(&world), HV_PAGE_BYTES);
	cr_assert_eq(hv_memory_backing(world.memory), HV_MEMORY_SMALL);
	world_free(&world);
}

/* Where the host gives no huge pages it says so, and the rest holds as well. */
Test(memory_reserve, of_huge_pages_a_few_are_touched)
{
	struct world world = world_new(HV_MEMORY_AUTO);
	uint64_t before = touched_bytes(&world);

	cr_assert_eq(taken_bytes(&world), MEMORY_BYTES);
	cr_assert_leq(before, PROBES * HV_HUGE_PAGE_BYTES);
	cr_assert_eq(hv_slat_write(world.slat, MEMORY_BYTES / 2 + HV_HUGE_PAGE_BYTES, "x", 1), 0);
	cr_assert_gt(touched_bytes(&world), before);
	cr_assert_leq(touched_bytes(&world), before + HV_HUGE_PAGE_BYTES);
	for (uint64_t page = 0; page < MEMORY_BYTES / HV_PAGE_BYTES; page += 511) {
		uint64_t value = 1;

		cr_assert_eq(hv_slat_read(world.slat, page * HV_PAGE_BYTES + 8, &value, 8), 0);
		cr_assert_eq(value, 0);
	}
	world_free(&world);
}
