/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Dirty tracking: own writes without KVM, then a guest's writes on KVM.
 * What must never happen: a written page that no harvest names.
 */
#include <criterion/criterion.h>
#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "hypervisor/slat.h"
#include "tests/support/guest_vm.h"

#define MEMORY_BYTES (64ULL << 20)

struct world {
	struct hv_memory *memory;
	struct hv_slat *slat;
	uint64_t *bitmap;
};

static struct world world_new(void)
{
	struct world world = { .memory = NULL };
	struct base_error err = { .code = 0 };

	cr_assert_eq(hv_memory_new(MEMORY_BYTES, HV_MEMORY_SMALL, &world.memory, &err), 0, "%s",
		     err.text);
	cr_assert_eq(hv_slat_new(world.memory, -1, &world.slat, &err), 0, "%s", err.text);
	world.bitmap = calloc(hv_slat_word_count(world.slat), sizeof(uint64_t));
	cr_assert_not_null(world.bitmap);
	return world;
}

static void world_free(struct world *world)
{
	hv_slat_free(world->slat);
	hv_memory_free(world->memory);
	free(world->bitmap);
}

static uint64_t harvest(struct world *world)
{
	struct base_error err = { .code = 0 };
	uint64_t count = 0;

	cr_assert_eq(hv_slat_harvest(world->slat, world->bitmap, &count, &err), 0, "%s", err.text);
	return count;
}

static bool is_dirty(const uint64_t *bitmap, uint64_t page)
{
	return (bitmap[page / 64] >> (page % 64) & 1) != 0;
}

static void start(struct world *world)
{
	cr_assert_eq(hv_slat_start(world->slat, NULL), 0);
	cr_assert_eq(harvest(world), hv_slat_page_count(world->slat),
		     "the first harvest names every page");
}

Test(slat, first_harvest_names_all_then_nothing)
{
	struct world world = world_new();

	start(&world);
	cr_assert_eq(harvest(&world), 0);
	world_free(&world);
}

/* A page that was never touched may be left out; one that was written never. */
Test(slat, touched_names_what_was_written_and_no_hole)
{
	struct world world = world_new();
	static const uint64_t pages[] = { 0, 63, 64, 511, 512, 700, 16383 };
	size_t words = hv_slat_word_count(world.slat);
	uint64_t count = 1;

	hv_slat_touched(world.slat, world.bitmap, &count);
	cr_assert_eq(count, 0, "%llu pages of untouched memory", (unsigned long long)count);
	for (size_t i = 0; i < sizeof(pages) / sizeof(pages[0]); i++)
		cr_assert_eq(hv_slat_write(world.slat, pages[i] * HV_PAGE_BYTES, "x", 1), 0);
	memset(world.bitmap, 0xff, words * sizeof(*world.bitmap));
	hv_slat_touched(world.slat, world.bitmap, &count);
	for (size_t i = 0; i < sizeof(pages) / sizeof(pages[0]); i++)
		cr_assert(is_dirty(world.bitmap, pages[i]), "page %llu",
			  (unsigned long long)pages[i]);
	for (uint64_t page = 0, seen = 0; page < hv_slat_page_count(world.slat); page++) {
		seen += is_dirty(world.bitmap, page);
		if (page + 1 == hv_slat_page_count(world.slat))
			cr_assert_eq(seen, count, "count and bits");
	}
	cr_assert_eq(count, sizeof(pages) / sizeof(pages[0]));
	world_free(&world);
}

Test(slat, own_write_is_named_once)
{
	struct world world = world_new();

	start(&world);
	cr_assert_eq(hv_slat_write(world.slat, 0x5ffe, "abcd", 4), 0);
	cr_assert_eq(harvest(&world), 2);
	cr_assert(is_dirty(world.bitmap, 5) && is_dirty(world.bitmap, 6));
	cr_assert_eq(harvest(&world), 0);
	world_free(&world);
}

Test(slat, window_is_marked_when_it_ends_not_before)
{
	struct world world = world_new();

	start(&world);
	{
		HV_SLAT_WINDOW window = { .data = NULL };

		cr_assert_eq(hv_slat_window_begin(world.slat, 0x10000, 3 * HV_PAGE_BYTES, &window),
			     0);
		window.data[0] = 1;
		cr_assert_eq(harvest(&world), 0,
			     "bytes still land: a mark now would be forgotten too early");
	}
	cr_assert_eq(harvest(&world), 3);
	world_free(&world);
}

/* Every first and last page around word borders: masks of whole words. */
Test(slat, ranges_of_every_alignment)
{
	struct world world = world_new();

	start(&world);
	for (uint64_t first = 60; first < 70; first++)
		for (uint64_t count = 1; count < 200; count += 7) {
			cr_assert_eq(hv_slat_zero(world.slat, first * HV_PAGE_BYTES,
						  count * HV_PAGE_BYTES),
				     0);
			cr_assert_eq(harvest(&world), count);
			for (uint64_t page = 0; page < 300; page++)
				cr_assert_eq(is_dirty(world.bitmap, page),
					     page >= first && page < first + count);
		}
	world_free(&world);
}

static uint64_t look(struct world *world)
{
	uint64_t count = 0;

	cr_assert_eq(hv_slat_dirty_get(world->slat, world->bitmap, NULL), 0);
	for (size_t i = 0; i < hv_slat_word_count(world->slat); i++)
		count += (uint64_t)__builtin_popcountll(world->bitmap[i]);
	return count;
}

/* A harvest in two halves: nothing is forgotten but what a clear names. */
Test(slat, get_forgets_nothing_and_clear_what_it_names)
{
	struct world world = world_new();
	uint64_t bits[2] = { 1ULL << 3 | 1ULL << 4, 1 };

	cr_assert_eq(hv_slat_dirty_get(world.slat, world.bitmap, NULL), -EPROTO);
	cr_assert_eq(hv_slat_dirty_clear(world.slat, 0, 64, bits, NULL), -EPROTO);
	cr_assert_eq(hv_slat_start(world.slat, NULL), 0);
	cr_assert_eq(look(&world), hv_slat_page_count(world.slat), "after a start all");
	cr_assert_eq(look(&world), hv_slat_page_count(world.slat));
	cr_assert_eq(hv_slat_dirty_clear(world.slat, 128, 128, bits, NULL), 0);
	cr_assert_eq(look(&world), hv_slat_page_count(world.slat) - 3);
	cr_assert_not(is_dirty(world.bitmap, 131));
	cr_assert_not(is_dirty(world.bitmap, 132));
	cr_assert_not(is_dirty(world.bitmap, 192));
	cr_assert(is_dirty(world.bitmap, 3) && is_dirty(world.bitmap, 193));
	cr_assert_eq(hv_slat_write(world.slat, 131 * HV_PAGE_BYTES, "x", 1), 0);
	cr_assert_eq(look(&world), hv_slat_page_count(world.slat) - 2, "written again");
	cr_assert_eq(harvest(&world), hv_slat_page_count(world.slat) - 2);
	cr_assert_eq(look(&world), 0);
	world_free(&world);
}

Test(slat, outside_ram_is_refused_and_unmarked)
{
	struct world world = world_new();
	struct hv_slat_window window;
	uint8_t byte = 7;

	start(&world);
	cr_assert_eq(hv_slat_write(world.slat, MEMORY_BYTES - 1, "ab", 2), -EFAULT);
	cr_assert_eq(hv_slat_write(world.slat, UINT64_MAX, "ab", 2), -EFAULT);
	cr_assert_eq(hv_slat_zero(world.slat, 0, UINT64_MAX), -EFAULT);
	cr_assert_eq(hv_slat_read(world.slat, MEMORY_BYTES, &byte, 1), -EFAULT);
	cr_assert_eq(byte, 7);
	cr_assert_eq(hv_slat_window_begin(world.slat, HV_GPA_HOLE_START, 1, &window), -EFAULT);
	cr_assert_null(hv_slat_view(world.slat, MEMORY_BYTES - 1, 2));
	cr_assert_null(hv_slat_pages(world.slat, MEMORY_BYTES / HV_PAGE_BYTES, 1));
	cr_assert_eq(harvest(&world), 0);
	world_free(&world);
}

Test(slat, wrong_order_is_refused)
{
	struct world world = world_new();

	cr_assert_eq(hv_slat_harvest(world.slat, world.bitmap, NULL, NULL), -EPROTO);
	cr_assert_eq(hv_slat_stop(world.slat, NULL), -EPROTO);
	start(&world);
	cr_assert_eq(hv_slat_start(world.slat, NULL), -EPROTO);
	cr_assert_null(hv_slat_arrival_pages(world.slat, 0, 1),
		       "no unmarked writes while tracking");
	cr_assert_eq(hv_slat_stop(world.slat, NULL), 0);
	cr_assert_not_null(hv_slat_arrival_pages(world.slat, 0, 1));
	world_free(&world);
}

/* Slots hold all of RAM once, in order, on whole words of a bitmap, none too large for KVM. */
Test(slat, slots_of_every_size)
{
	static const uint64_t sizes[] = {
		64ULL << 20,        3ULL << 30,  (3ULL << 30) + (2ULL << 20),
		4ULL << 40,         12ULL << 40, (4ULL << 40) + (3ULL << 30),
		HV_MEMORY_BYTES_MAX
	};

	for (size_t i = 0; i < sizeof(sizes) / sizeof(sizes[0]); i++) {
		struct hv_ram_range slots[HV_SLOTS_MAX];
		uint32_t count = hv_slat_cut(sizes[i], slots);
		uint64_t offset = 0;

		cr_assert_leq(count, HV_SLOTS_MAX);
		for (uint32_t k = 0; k < count; k++) {
			cr_assert_eq(slots[k].ram_offset, offset);
			cr_assert_gt(slots[k].size_bytes, 0);
			cr_assert_lt(slots[k].size_bytes / HV_PAGE_BYTES, 1ULL << 31);
			cr_assert_eq(slots[k].ram_offset / HV_PAGE_BYTES % 64, 0);
			cr_assert_eq(slots[k].gpa,
				     offset < HV_GPA_HOLE_START
					     ? offset
					     : offset - HV_GPA_HOLE_START + HV_GPA_HOLE_END);
			cr_assert(slots[k].gpa >= HV_GPA_HOLE_END ||
				  slots[k].gpa + slots[k].size_bytes <= HV_GPA_HOLE_START);
			offset += slots[k].size_bytes;
		}
		cr_assert_eq(offset, sizes[i]);
	}
}

Test(slat, addresses_around_the_hole)
{
	struct hv_memory *memory = NULL;
	struct hv_slat *slat = NULL;
	uint8_t byte = 0;

	cr_assert_eq(hv_memory_new((3ULL << 30) + (2ULL << 20), HV_MEMORY_SMALL, &memory, NULL), 0);
	cr_assert_eq(hv_slat_new(memory, -1, &slat, NULL), 0);
	cr_assert_eq(hv_slat_write(slat, HV_GPA_HOLE_START - 1, "a", 1), 0);
	cr_assert_eq(hv_slat_write(slat, HV_GPA_HOLE_START - 1, "ab", 2), -EFAULT);
	cr_assert_eq(hv_slat_write(slat, HV_GPA_HOLE_END - 1, "a", 1), -EFAULT);
	cr_assert_eq(hv_slat_write(slat, HV_GPA_HOLE_END, "b", 1), 0);
	cr_assert_eq(hv_slat_write(slat, HV_GPA_HOLE_END + (2ULL << 20), "b", 1), -EFAULT);
	cr_assert_eq(hv_slat_pages(slat, (3ULL << 30) / HV_PAGE_BYTES, 1)[0], 'b');
	cr_assert_eq(hv_slat_read(slat, HV_GPA_HOLE_START - 1, &byte, 1), 0);
	cr_assert_eq(byte, 'a');
	hv_slat_free(slat);
	hv_memory_free(memory);
}

/* Writers against a harvester: each page's last value must have been named after it landed. */
struct race {
	struct world world;
	atomic_bool stop;
	_Atomic uint64_t writers;
};

static void *writer(void *argument)
{
	struct race *race = argument;
	uint64_t side = atomic_fetch_add(&race->writers, 1);
	uint64_t value = 1;

	for (; !atomic_load(&race->stop); value++) {
		uint64_t page = testpage_mix(value) % 128 * 2 + side; /* a writer's own pages */

		cr_assert_eq(hv_slat_write(race->world.slat, page * HV_PAGE_BYTES, &value,
					   sizeof(value)),
			     0);
	}
	return NULL;
}

/* Reads what writers change meanwhile: that is the point, and no finding of a thread sanitizer. */
__attribute__((no_sanitize("thread"))) static uint64_t read_racing(const struct world *world,
								   uint64_t page)
{
	return *(const volatile uint64_t *)hv_slat_pages(world->slat, page, 1);
}

static void take_whole(struct world *world)
{
	(void)harvest(world);
}

/* Word by word, as a sender does. */
static void take_in_parts(struct world *world)
{
	(void)look(world);
	for (uint64_t page = 0; page < 256; page += 64)
		cr_assert_eq(
			hv_slat_dirty_clear(world->slat, page, 64, &world->bitmap[page / 64], NULL),
			0);
}

static void never_loses_a_racing_write(void (*take)(struct world *world))
{
	struct race race = { .world = world_new() };
	uint64_t copies[256] = { 0 };
	pthread_t threads[2];

	start(&race.world);
	for (int i = 0; i < 2; i++)
		cr_assert_eq(pthread_create(&threads[i], NULL, writer, &race), 0);
	for (int round = 0; round < 20000; round++) {
		if (round == 19999) {
			atomic_store(&race.stop, true);
			for (int i = 0; i < 2; i++)
				cr_assert_eq(pthread_join(threads[i], NULL), 0);
		}
		take(&race.world);
		for (uint64_t page = 0; page < 256; page++)
			if (is_dirty(race.world.bitmap, page))
				copies[page] = read_racing(&race.world, page);
	}
	for (uint64_t page = 0; page < 256; page++) {
		uint64_t value;

		cr_assert_eq(
			hv_slat_read(race.world.slat, page * HV_PAGE_BYTES, &value, sizeof(value)),
			0);
		cr_assert_eq(copies[page], value, "page %llu: copied %llu, holds %llu",
			     (unsigned long long)page, (unsigned long long)copies[page],
			     (unsigned long long)value);
	}
	world_free(&race.world);
}

Test(slat, a_harvest_never_loses_a_racing_write)
{
	never_loses_a_racing_write(take_whole);
}

Test(slat, a_harvest_in_parts_never_loses_a_racing_write)
{
	never_loses_a_racing_write(take_in_parts);
}

/* --- on KVM --- */

/* The guest's own pages (stacks, counters, tables) may be written at any time. */
static void exclude(struct guest_vm *vm, uint64_t *bitmap, uint32_t start_reg, uint32_t end_reg)
{
	uint64_t first = guest_vm_get(vm, start_reg) >> HV_PAGE_SHIFT;
	uint64_t end = (guest_vm_get(vm, end_reg) + HV_PAGE_BYTES - 1) >> HV_PAGE_SHIFT;

	for (uint64_t page = first; page < end; page++)
		bitmap[page / 64] &= ~(1ULL << (page % 64));
}

/* As a whole, or what is named and then forgotten in spans of 1 MiB. */
static void take_log(struct hv_slat *slat, uint64_t *bitmap, bool in_parts)
{
	uint64_t page_count = hv_slat_page_count(slat);

	if (!in_parts) {
		cr_assert_eq(hv_slat_harvest(slat, bitmap, NULL, NULL), 0);
		return;
	}
	cr_assert_eq(hv_slat_dirty_get(slat, bitmap, NULL), 0);
	for (uint64_t page = 0; page < page_count; page += 256)
		cr_assert_eq(hv_slat_dirty_clear(slat, page,
						 page_count - page < 256 ? page_count - page : 256,
						 &bitmap[page / 64], NULL),
			     0);
}

static void exactness(struct guest_vm *vm, uint64_t *bitmap, uint64_t *expected, uint64_t seed,
		      uint64_t count)
{
	struct hv_slat *slat = hv_machine_slat(guest_vm_machine(vm));
	uint64_t ws_pages = guest_vm_get(vm, TESTPAGE_WS_PAGES);
	uint64_t extra = 0;

	memset(expected, 0, hv_slat_word_count(slat) * sizeof(uint64_t));
	for (uint64_t k = 0; k < count; k++) {
		uint64_t page = guest_vm_region_page(vm, testpage_pick(seed, k, ws_pages));

		expected[page / 64] |= 1ULL << (page % 64);
	}
	cr_assert_eq(guest_vm_command(vm, TESTPAGE_WRITE_SET, seed, count, 0), count);
	take_log(slat, bitmap, seed % 2 == 0);
	for (size_t i = 0; i < hv_slat_word_count(slat); i++)
		cr_assert_eq(expected[i] & ~bitmap[i], 0, "round %llu: a written page is not named",
			     (unsigned long long)seed);
	exclude(vm, bitmap, TESTPAGE_IMAGE_START, TESTPAGE_IMAGE_END);
	exclude(vm, bitmap, TESTPAGE_TABLE_START, TESTPAGE_TABLE_END);
	for (size_t i = 0; i < hv_slat_word_count(slat); i++)
		extra += (uint64_t)__builtin_popcountll(bitmap[i] & ~expected[i]);
	/* KVM may name the neighbours of a page it mapped huge; 4 KiB logging does not. */
	cr_assert_eq(extra, 0, "%llu pages named that nobody wrote", (unsigned long long)extra);
}

static void exact_on(enum hv_memory_backing backing, uint32_t vcpus, uint64_t memory_bytes,
		     const char *cmdline)
{
	struct guest_vm_opts opts = {
		.memory_bytes = memory_bytes, .vcpus = vcpus, .backing = backing, .cmdline = cmdline
	};
	struct guest_vm *vm = guest_vm_new(&opts);
	struct hv_slat *slat;
	uint64_t *bitmap;
	uint64_t *expected;

	if (vm == NULL)
		return;
	slat = hv_machine_slat(guest_vm_machine(vm));
	bitmap = calloc(hv_slat_word_count(slat), sizeof(uint64_t));
	expected = calloc(hv_slat_word_count(slat), sizeof(uint64_t));
	guest_vm_wait(vm, "guest: ready");
	cr_assert_eq(guest_vm_command(vm, TESTPAGE_WRITE_SET, 0, 1, 0),
		     1); /* pauses all other writes */
	cr_assert_eq(hv_slat_start(slat, NULL), 0);
	take_log(slat, bitmap, vcpus == 2);
	for (uint64_t seed = 1; seed <= 30; seed++)
		exactness(vm, bitmap, expected, seed, testpage_mix(seed) % 400);
	cr_assert_eq(hv_slat_stop(slat, NULL), 0);
	cr_assert_eq(guest_vm_get(vm, TESTPAGE_BAD), 0);
	free(bitmap);
	free(expected);
	guest_vm_free(vm);
}

Test(slat_kvm, exact_on_huge_pages, .timeout = 400)
{
	exact_on(HV_MEMORY_AUTO, 1, 192ULL << 20, "ws=96M rate=1000 report=0");
}

Test(slat_kvm, exact_on_small_pages_two_vcpus, .timeout = 400)
{
	exact_on(HV_MEMORY_SMALL, 2, 192ULL << 20, "ws=96M rate=1000 report=0");
}

/* Two slots: pages on both sides of the hole. */
Test(slat_kvm, exact_above_four_gib, .timeout = 400)
{
	exact_on(HV_MEMORY_AUTO, 1, 3200ULL << 20,
		 "ws=3000M rate=1000 report=0 stamp=word content=zero");
}
