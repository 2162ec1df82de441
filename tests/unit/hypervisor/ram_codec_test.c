/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The table of a section "ram", and the choice between zero, raw and LZ4.
 */
#include "hypervisor/ram_codec.h"

#include <criterion/criterion.h>
#include <errno.h>
#include <lz4.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"

#define PAGE HV_PAGE_BYTES

/* Numbers that LZ4 cannot shrink. */
static void fill_random(uint8_t *to, size_t size_bytes, uint64_t seed)
{
	uint64_t state = seed * 0x9e3779b97f4a7c15ULL + 1;

	for (size_t i = 0; i < size_bytes; i++) {
		state ^= state << 13;
		state ^= state >> 7;
		state ^= state << 17;
		to[i] = (uint8_t)(state >> 32);
	}
}

/* A table over one chunk whose runs are all well. */
static struct hv_ram_table well(void)
{
	struct hv_ram_table table = { .first_page = 1024, .page_count = 512, .run_count = 4 };

	table.runs[0] = (struct hv_ram_run){ HV_RAM_ZERO, 0, 400 };
	table.runs[1] = (struct hv_ram_run){ HV_RAM_RAW, 100 * (uint32_t)PAGE, 100 };
	table.runs[2] = (struct hv_ram_run){ HV_RAM_LZ4, 777, 10 };
	table.runs[3] = (struct hv_ram_run){ HV_RAM_LZ4, 1, 2 };
	table.raw_bytes = 100 * PAGE;
	table.lz4_bytes = 778;
	return table;
}

static uint64_t payload_bytes(const struct hv_ram_table *table)
{
	return hv_ram_table_bytes(table) + table->raw_bytes + table->lz4_bytes;
}

static int decode(const struct hv_ram_table *table, uint64_t payload, struct hv_ram_table *ret)
{
	static uint8_t bytes[HV_RAM_TABLE_BYTES_MAX + PAGE];
	struct base_reader in = base_reader_over(bytes, hv_ram_table_bytes(table));

	hv_ram_table_encode(table, bytes);
	return hv_ram_table_decode(&in, payload, ret, NULL);
}

static void refused(const struct hv_ram_table *table)
{
	static struct hv_ram_table out;

	cr_assert_eq(decode(table, payload_bytes(table), &out), -EBADMSG);
}

Test(ram_codec, table_round_trip)
{
	static struct hv_ram_table in;
	static struct hv_ram_table out;

	in = well();
	cr_assert_eq(hv_ram_table_bytes(&in), PAGE);
	cr_assert_eq(decode(&in, payload_bytes(&in), &out), 0);
	cr_assert_eq(out.first_page, 1024);
	cr_assert_eq(out.page_count, 512);
	cr_assert_eq(out.run_count, 4);
	cr_assert_eq(out.raw_bytes, in.raw_bytes);
	cr_assert_eq(out.lz4_bytes, in.lz4_bytes);
	for (uint32_t i = 0; i < 4; i++) {
		cr_assert_eq(out.runs[i].kind, in.runs[i].kind);
		cr_assert_eq(out.runs[i].stored_bytes, in.runs[i].stored_bytes);
		cr_assert_eq(out.runs[i].page_count, in.runs[i].page_count);
	}
}

Test(ram_codec, zero_section_of_any_length)
{
	static struct hv_ram_table in = { .page_count = 512ULL << 25, .run_count = 1 };
	static struct hv_ram_table out;

	in.runs[0] = (struct hv_ram_run){ HV_RAM_ZERO, 0, in.page_count };
	cr_assert_eq(hv_ram_table_bytes(&in), 40);
	cr_assert_eq(decode(&in, 40, &out), 0);
	cr_assert_eq(decode(&in, 41, &out), -EBADMSG);
	in.page_count += 512;
	refused(&in);
}

Test(ram_codec, longest_table)
{
	static struct hv_ram_table in = { .page_count = 512, .run_count = 512 };
	static struct hv_ram_table out;

	for (uint32_t i = 0; i < 512; i += 2) {
		in.runs[i] = (struct hv_ram_run){ HV_RAM_ZERO, 0, 1 };
		in.runs[i + 1] = (struct hv_ram_run){ HV_RAM_RAW, (uint32_t)PAGE, 1 };
	}
	in.raw_bytes = 256 * PAGE;
	cr_assert_eq(hv_ram_table_bytes(&in), 3 * PAGE);
	cr_assert_eq(decode(&in, payload_bytes(&in), &out), 0);
}

Test(ram_codec, heads_that_are_refused)
{
	static struct hv_ram_table table;

	table = well();
	table.first_page = 1;
	refused(&table);
	table = well();
	table.page_count = 0;
	refused(&table);
	table = well();
	table.page_count = 511;
	refused(&table);
	table = well();
	table.run_count = 0;
	refused(&table);
	table = well();
	table.page_count = 1024; /* more than a chunk, and not one zero run */
	table.runs[0].page_count += 512;
	refused(&table);
}

Test(ram_codec, runs_that_are_refused)
{
	static struct hv_ram_table table;

	table = well();
	table.runs[0].kind = HV_RAM_INVALID;
	refused(&table);
	table = well();
	table.runs[0].kind = HV_RAM_KINDS;
	refused(&table);
	table = well();
	table.runs[0].page_count = 0;
	refused(&table);
	table = well();
	table.runs[0].page_count = 399; /* a page in no run */
	refused(&table);
	table = well();
	table.runs[0].page_count = UINT64_MAX;
	refused(&table);
	table = well();
	table.runs[0].stored_bytes = 1;
	refused(&table);
	table = well();
	table.runs[1].stored_bytes--;
	refused(&table);
	table = well();
	table.runs[2].stored_bytes = 0;
	refused(&table);
	table = well();
	table.runs[3].stored_bytes = 2 * (uint32_t)PAGE;
	refused(&table);
	table = well();
	table.runs[0].page_count = 393;
	table.runs[2].page_count = 17;
	refused(&table);
	table = well();
	table.runs[2] = (struct hv_ram_run){ HV_RAM_RAW, 10 * (uint32_t)PAGE, 10 };
	refused(&table); /* raw follows raw */
}

Test(ram_codec, lengths_that_are_refused)
{
	static struct hv_ram_table table;
	static struct hv_ram_table out;
	uint8_t bytes[PAGE];

	table = well();
	cr_assert_eq(decode(&table, payload_bytes(&table) - 1, &out), -EBADMSG);
	cr_assert_eq(decode(&table, payload_bytes(&table) + 1, &out), -EBADMSG);
	hv_ram_table_encode(&table, bytes);
	for (size_t size = 0; size < PAGE; size++) {
		struct base_reader in = base_reader_over(bytes, size);

		cr_assert_eq(hv_ram_table_decode(&in, payload_bytes(&table), &out, NULL), -EBADMSG);
	}
	for (size_t at = HV_RAM_TABLE_HEAD + 4 * HV_RAM_RUN_BYTES; at < PAGE; at++) {
		struct base_reader in = base_reader_over(bytes, PAGE);

		bytes[at] = 1;
		cr_assert_eq(hv_ram_table_decode(&in, payload_bytes(&table), &out, NULL), -EBADMSG);
		bytes[at] = 0;
	}
}

struct chunk {
	uint8_t *pages;
	uint8_t *scratch;
	struct hv_ram_table table;
};

static void choose(struct chunk *chunk)
{
	hv_ram_choose(chunk->pages, chunk->scratch, &chunk->table);
	cr_assert_eq(chunk->table.page_count, 512);
	cr_assert_leq(chunk->table.lz4_bytes, HV_RAM_CHUNK_BYTES);
}

static struct chunk chunk_new(void)
{
	struct chunk chunk = { calloc(1, HV_RAM_CHUNK_BYTES),
			       calloc(1, HV_RAM_CHUNK_BYTES),
			       { .first_page = 512 } };

	cr_assert(chunk.pages != NULL && chunk.scratch != NULL);
	return chunk;
}

static void chunk_free(struct chunk *chunk)
{
	free(chunk->pages);
	free(chunk->scratch);
}

Test(ram_codec, zero_chunk_is_one_run)
{
	struct chunk chunk = chunk_new();

	choose(&chunk);
	cr_assert_eq(chunk.table.run_count, 1);
	cr_assert_eq(chunk.table.runs[0].kind, HV_RAM_ZERO);
	cr_assert_eq(chunk.table.runs[0].page_count, 512);
	chunk_free(&chunk);
}

Test(ram_codec, random_chunk_is_one_raw_run)
{
	struct chunk chunk = chunk_new();

	fill_random(chunk.pages, HV_RAM_CHUNK_BYTES, 1);
	choose(&chunk);
	cr_assert_eq(chunk.table.run_count, 1);
	cr_assert_eq(chunk.table.runs[0].kind, HV_RAM_RAW);
	cr_assert_eq(chunk.table.raw_bytes, HV_RAM_CHUNK_BYTES);
	chunk_free(&chunk);
}

Test(ram_codec, one_byte_anywhere_is_not_zero)
{
	struct chunk chunk = chunk_new();

	for (size_t at = 0; at < HV_RAM_CHUNK_BYTES; at = at * 2 + 1) {
		chunk.pages[at] = 1;
		choose(&chunk);
		cr_assert_gt(chunk.table.lz4_bytes, 0, "byte %zu", at);
		chunk.pages[at] = 0;
	}
	chunk_free(&chunk);
}

/* What the runs say is what the pages hold, whatever the mixture. */
Test(ram_codec, mixtures_come_back)
{
	struct chunk chunk = chunk_new();
	BASE_FREE uint8_t *back = malloc(HV_RAM_CHUNK_BYTES);

	for (uint64_t seed = 1; seed <= 40; seed++) {
		const uint8_t *lz4 = chunk.scratch;
		uint8_t kinds[512];
		uint64_t page = 0;

		fill_random(kinds, sizeof(kinds), seed);
		for (size_t i = 0; i < 512; i++) {
			/* Low seeds: long stretches; high ones: each page on its own. */
			uint8_t kind = kinds[seed < 20 ? i / 40 : i] % 3;

			memset(chunk.pages + i * PAGE, kind == 0 ? 0 : (int)i | 1, PAGE);
			if (kind == 2)
				fill_random(chunk.pages + i * PAGE, PAGE, seed * 512 + i);
		}
		choose(&chunk);
		for (uint32_t i = 0; i < chunk.table.run_count; i++) {
			const struct hv_ram_run *run = &chunk.table.runs[i];
			uint8_t *to = back + page * PAGE;
			int bytes = (int)(run->page_count * PAGE);

			if (run->kind == HV_RAM_ZERO)
				memset(to, 0, (size_t)bytes);
			if (run->kind == HV_RAM_RAW)
				memcpy(to, chunk.pages + page * PAGE, (size_t)bytes);
			if (run->kind == HV_RAM_LZ4) {
				cr_assert_eq(LZ4_decompress_safe((const char *)lz4, (char *)to,
								 (int)run->stored_bytes, bytes),
					     bytes);
				lz4 += run->stored_bytes;
			}
			page += run->page_count;
		}
		cr_assert_eq(page, 512);
		cr_assert_eq(memcmp(back, chunk.pages, HV_RAM_CHUNK_BYTES), 0);
		cr_assert_eq(decode(&chunk.table, payload_bytes(&chunk.table), &chunk.table), 0);
	}
	chunk_free(&chunk);
}
