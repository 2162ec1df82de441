/* SPDX-License-Identifier: Apache-2.0 */
/* Where a VM's memory is touched, and the destination's ahead of its arrival. */
#include <criterion/criterion.h>
#include <stdlib.h>
#include <string.h>

#include "agent/vm_migrate_ahead.h"
#include "base/clock.h"
#include "hypervisor/slat.h"

#define HUGE_WORDS 8u
#define HUGE       400u
#define WORDS      (HUGE * HUGE_WORDS)
#define PAGES      (WORDS * 64u)

static uint64_t bits[WORDS];
static struct vm_touched touched;

static bool has(uint64_t huge)
{
	for (uint32_t i = 0; i < touched.count; i++)
		if (huge >= touched.runs[i].first &&
		    huge - touched.runs[i].first < touched.runs[i].count)
			return true;
	return false;
}

static bool has_bits(uint64_t huge)
{
	for (uint64_t word = huge * HUGE_WORDS; word < (huge + 1) * HUGE_WORDS; word++)
		if (bits[word] != 0)
			return true;
	return false;
}

Test(vm_migrate_ahead, runs_are_exact_where_there_are_few)
{
	bits[0] = 1;
	bits[3 * HUGE_WORDS - 1] = 1ULL << 63;
	bits[WORDS - 1] = 1;
	vm_touched_of(bits, PAGES, &touched);
	cr_assert_eq(touched.count, 3);
	for (uint64_t huge = 0; huge < HUGE; huge++)
		cr_assert_eq(has(huge), has_bits(huge), "%u", (unsigned int)huge);
}

Test(vm_migrate_ahead, nothing_and_all)
{
	vm_touched_of(bits, PAGES, &touched);
	cr_assert_eq(touched.count, 0);
	memset(bits, 0xff, sizeof(bits));
	vm_touched_of(bits, PAGES, &touched);
	cr_assert_eq(touched.count, 1);
	cr_assert_eq(touched.runs[0].count, HUGE);
	vm_touched_of(bits, 64, &touched);
	cr_assert_eq(touched.runs[0].count, 1, "a part of a huge page");
	vm_touched_of(bits, 0, &touched);
	cr_assert_eq(touched.count, 0);
}

Test(vm_migrate_ahead, too_many_runs_grow_together_and_none_is_missing)
{
	for (uint64_t huge = 0; huge < HUGE; huge += 3)
		bits[huge * HUGE_WORDS + huge % HUGE_WORDS] = 1;
	vm_touched_of(bits, PAGES, &touched);
	cr_assert_leq(touched.count, VM_TOUCHED_RUNS_MAX);
	for (uint64_t huge = 0; huge < HUGE; huge++)
		cr_assert(has(huge) || !has_bits(huge), "%u", (unsigned int)huge);
	for (uint32_t i = 0; i < touched.count; i++)
		cr_assert_leq(touched.runs[i].first + touched.runs[i].count, HUGE);
}

/* --- a destination's memory --- */

static struct hv_memory *memory;
static struct hv_slat *slat;

static void setup(void)
{
	struct base_error err = { .code = 0 };

	cr_assert_eq(hv_memory_new(64ULL << 20, HV_MEMORY_SMALL, &memory, &err), 0, "%s", err.text);
	cr_assert_eq(hv_memory_reserve(memory, &err), 0, "%s", err.text);
	cr_assert_eq(hv_slat_new(memory, -1, &slat, &err), 0, "%s", err.text);
}

static void teardown(void)
{
	hv_slat_free(slat);
	hv_memory_free(memory);
}

Test(vm_migrate_ahead, touches_what_is_named_and_nothing_else, .init = setup, .fini = teardown)
{
	const struct vm_touched named = { .count = 3,
					  .runs = { { 1, 2 }, { 20, 9 }, { 31, 1000 } } };
	struct vm_ahead *ahead = NULL;
	uint64_t count = 0;

	cr_assert_eq(vm_ahead_start(memory, &named, &ahead, NULL), 0);
	vm_ahead_came(ahead, 64ULL << 20);
	while (!vm_ahead_is_over(ahead))
		base_sleep_ns(BASE_NS_PER_MS);
	vm_ahead_stop(ahead);
	hv_slat_touched(slat, bits, &count);
	cr_assert_eq(count, (2 + 9 + 1) * 512);
	for (uint64_t huge = 0; huge < 32; huge++)
		cr_assert_eq(has_bits(huge),
			     (huge >= 1 && huge < 3) || (huge >= 20 && huge < 29) || huge == 31);
	for (uint64_t at = 0; at < 64ULL << 20; at += 4096)
		cr_assert_eq(*(const uint8_t *)hv_slat_view(slat, at, 1), 0);
}

Test(vm_migrate_ahead, ends_when_it_is_told, .init = setup, .fini = teardown)
{
	const struct vm_touched all = { .count = 1, .runs = { { 0, UINT64_MAX } } };
	struct vm_ahead *ahead = NULL;

	for (int i = 0; i < 50; i++) {
		cr_assert_eq(vm_ahead_start(memory, &all, &ahead, NULL), 0);
		vm_ahead_stop(ahead);
	}
	vm_ahead_stop(NULL);
}

/* Too many may be named while they become more. */
static void wait_touched(uint64_t size_bytes)
{
	uint64_t count = 0;

	for (int i = 0; i < 60000 && count * 4096 != size_bytes; i++) {
		base_sleep_ns(BASE_NS_PER_MS);
		hv_slat_touched(slat, bits, &count);
	}
	cr_assert_eq(count * 4096, size_bytes);
}

Test(vm_migrate_ahead, gets_ahead_only_of_what_has_come, .init = setup, .fini = teardown)
{
	const struct vm_touched all = { .count = 1, .runs = { { 0, UINT64_MAX } } };
	const uint64_t more_bytes = 2ULL << 20;
	struct vm_ahead *ahead = NULL;

	cr_assert_eq(vm_ahead_start(memory, &all, &ahead, NULL), 0);
	vm_ahead_came(ahead, 0); /* zeros */
	wait_touched(VM_AHEAD_FIRST_BYTES);
	cr_assert(!vm_ahead_is_over(ahead));
	vm_ahead_came(ahead, more_bytes);
	vm_ahead_came(ahead, 0); /* what another channel has said late */
	wait_touched(VM_AHEAD_FIRST_BYTES + VM_AHEAD_TIMES * more_bytes);
	cr_assert(!vm_ahead_is_over(ahead));
	vm_ahead_came(ahead, 64ULL << 20);
	wait_touched(64ULL << 20);
	vm_ahead_stop(ahead);
}
