/* SPDX-License-Identifier: Apache-2.0 */
/* Where everything lies: see guest_region.h. */
#include "tests/guest/guest_region.h"

#include <stddef.h>

#include "tests/guest/guest_call.h"
#include "tests/guest/guest_page.h"
#include "tests/guest/guest_print.h"

#define GIB           0x40000000ULL
#define MAP_END       (512 * GIB) /* one page directory pointer table */
#define DEFAULT_WS    (64ULL << 20)
#define PTE_LARGE     0xe7
#define PROBE_PATTERN 0x5a3cc3a596690ff0

extern const uint8_t guest_image_start_symbol[] __asm__("guest_image_start");
extern const uint8_t guest_image_end_symbol[] __asm__("guest_image_end");

struct guest_region guest_region;

static uint64_t align_up(uint64_t value)
{
	return (value + GUEST_PAGE_BYTES - 1) & ~(uint64_t)(GUEST_PAGE_BYTES - 1);
}

/* Whole pages of @range that the guest maps and does not use itself; empty if none. */
static struct guest_range usable(struct guest_range range, uint64_t taken_end)
{
	if (range.start < taken_end) /* nothing below the image either: the firmware's memory */
		range.start = taken_end;
	if (range.start < SUPER_HOLE_START && range.end > SUPER_HOLE_START)
		range.end = SUPER_HOLE_START;
	if (range.start >= SUPER_HOLE_START && range.start < SUPER_HOLE_END)
		range.start = SUPER_HOLE_END;
	if (range.end > MAP_END)
		range.end = MAP_END;
	range.start = align_up(range.start);
	range.end &= ~(uint64_t)(GUEST_PAGE_BYTES - 1);
	if (range.end < range.start)
		range.end = range.start;
	return range;
}

/* 2 MiB pages for [4 GiB, @top); the directories come from @at on.  Return: the end of them. */
static uint64_t map_high(uint64_t at, uint64_t top)
{
	for (uint64_t gib = SUPER_HOLE_END; gib < top && gib < MAP_END; gib += GIB) {
		uint64_t *directory = (uint64_t *)at;

		for (uint64_t i = 0; i < 512; i++)
			directory[i] = gib + (i << 21) + PTE_LARGE;
		guest_call(SUPER_MAP_GIB, gib / GIB, at, 0);
		at += GUEST_PAGE_BYTES;
	}
	return at;
}

/* The last page of each range must be memory: a VMM may promise more than it has. */
static void probe(struct guest_range range)
{
	volatile uint64_t *last = (volatile uint64_t *)(range.end - sizeof(uint64_t));
	uint64_t before = *last;

	*last = PROBE_PATTERN ^ range.end;
	if (*last != (PROBE_PATTERN ^ range.end))
		guest_die("the last page of a RAM range holds nothing", "");
	*last = before;
}

static void place_tables(uint64_t at, uint64_t pages)
{
	uint64_t bytes = align_up(pages * sizeof(uint64_t));

	guest_region.expected = (uint64_t *)at;
	guest_region.expected_masked = (uint64_t *)(at + bytes);
	guest_region.table_end = at + 2 * bytes;
}

static uint64_t place_pages(const struct guest_firmware *fw, uint64_t taken_end, uint64_t wanted)
{
	uint64_t left = wanted;

	guest_region.extent_count = 0;
	for (uint32_t i = 0; i < fw->ram_count && left > 0; i++) {
		struct guest_range range = usable(fw->ram[i], taken_end);
		uint64_t pages = (range.end - range.start) / GUEST_PAGE_BYTES;
		struct guest_extent *extent = &guest_region.extents[guest_region.extent_count];

		if (pages == 0 || guest_region.extent_count == TESTPAGE_EXTENTS_MAX)
			continue;
		extent->gpa = range.start;
		extent->page_count = pages < left ? pages : left;
		left -= extent->page_count;
		guest_region.extent_count++;
	}
	return wanted - left;
}

void guest_region_init(const struct guest_firmware *fw, const struct guest_options *options,
		       uint64_t pool_bytes)
{
	uint64_t top = 0, at, free_pages, table_room, pages;

	guest_region.image_start = (uint64_t)guest_image_start_symbol;
	guest_region.image_end = (uint64_t)guest_image_end_symbol;
	guest_region.table_start = guest_region.image_end;
	for (uint32_t i = 0; i < fw->ram_count; i++)
		if (fw->ram[i].end > top)
			top = fw->ram[i].end;
	at = map_high(guest_region.table_start, top);
	guest_region.pool_at = at;
	at += align_up(pool_bytes);
	guest_region.pool_end = at;
	for (uint32_t i = 0; i < fw->ram_count; i++) {
		struct guest_range range = usable(fw->ram[i], at);

		if (range.end > range.start)
			probe(range);
	}
	free_pages = place_pages(fw, at, UINT64_MAX);
	guest_region.ws_pages = align_up(options->ws_bytes) / GUEST_PAGE_BYTES;
	guest_region.fill_pages = align_up(options->fill_bytes) / GUEST_PAGE_BYTES;
	if (guest_region.ws_pages == 0) {
		guest_region.ws_pages = free_pages / 2;
		if (guest_region.ws_pages > DEFAULT_WS / GUEST_PAGE_BYTES)
			guest_region.ws_pages = DEFAULT_WS / GUEST_PAGE_BYTES;
	}
	table_room = guest_region.extent_count == 0 ? 0 : guest_region.extents[0].page_count;
	if (guest_region.ws_pages > free_pages || guest_region.fill_pages > free_pages)
		guest_die("ws= and fill= do not fit into memory", "");
	pages = guest_region.ws_pages + guest_region.fill_pages;
	place_tables(at, pages);
	if (guest_region.extents[0].gpa > at || /* the pool is not all in one piece of RAM */
	    (guest_region.table_end - at) / GUEST_PAGE_BYTES > table_room ||
	    place_pages(fw, guest_region.table_end, pages) < pages)
		guest_die("ws= and fill= do not fit into memory", "");
}

void *guest_region_take(uint64_t bytes)
{
	uint64_t at = guest_region.pool_at;

	bytes = align_up(bytes);
	if (bytes > guest_region.pool_end - at)
		guest_die("the pool for devices is too small", "");
	guest_region.pool_at = at + bytes;
	return __builtin_memset((void *)at, 0, bytes);
}

uint64_t *guest_region_page(uint64_t number)
{
	const struct guest_extent *extent = guest_region.extents;

	while (number >= extent->page_count)
		number -= extent++->page_count;
	return (uint64_t *)(extent->gpa + number * GUEST_PAGE_BYTES);
}

/* Depends on the page, so that a table page that holds another one's content is found too. */
static uint64_t mask(uint64_t number)
{
	return testpage_mix(~number);
}

void guest_region_expect(uint64_t number, uint64_t sequence)
{
	guest_region.expected[number] = sequence;
	guest_region.expected_masked[number] = sequence ^ mask(number);
}

uint64_t guest_region_expected(uint64_t number, uint64_t *ret_other)
{
	*ret_other = guest_region.expected_masked[number] ^ mask(number);
	return guest_region.expected[number];
}
